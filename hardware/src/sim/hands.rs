//! What a person at a simulated dispenser, or the bench, can do to it.
//!
//! Promise: every action is data, refused with the list of what is understood; a trap that is
//! armed fires at the note, step or byte that it names and then counts down.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::bays::Bays;
use super::{Key, SimError};

/// Keys that every simulated dispenser has.
pub(super) const KEYS: &[Key] = &[
    Key::new('t', "take the notes at the exit", r#"{"action":"take"}"#),
    Key::new('1', "100 more into bay 1", r#"{"action":"refill","bay":1,"notes":100}"#),
    Key::new('2', "100 more into bay 2", r#"{"action":"refill","bay":2,"notes":100}"#),
    Key::new('r', "the next note is rejected", r#"{"action":"arm","trap":"reject"}"#),
    Key::new('j', "the next note gets stuck", r#"{"action":"arm","trap":"jam"}"#),
    Key::new('m', "the next reply is lost", r#"{"action":"arm","trap":"mute_reply"}"#),
    Key::new('p', "pull the cassette of bay 1", r#"{"action":"pull","bay":1}"#),
    Key::new('i', "put that cassette back", r#"{"action":"insert","bay":1}"#),
    Key::new('x', "power off", r#"{"action":"power_off"}"#),
    Key::new('o', "power on", r#"{"action":"power_on"}"#),
];

/// An action; `T` are the device's traps, `S` what can be set.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Action<T, S> {
    Take,
    Refill { bay: u8, notes: u32 },
    Pull { bay: u8 },
    Insert { bay: u8 },
    CollectRejects,
    PowerOff,
    PowerOn,
    Arm(Arm<T>),
    Disarm,
    Set(S),
}

/// What an action leaves to the device itself.
pub(super) enum Rest<S> {
    PowerOff,
    PowerOn,
    Set(S),
}

/// Does the part of an action that is the same for all: notes, cassettes and traps.
///
/// # Errors
/// [`SimError`], with `expected` where the action is not understood.
pub(super) fn act<T: DeserializeOwned, S: DeserializeOwned>(
    action: &Value,
    expected: &'static str,
    bays: &mut Bays,
    armed: &mut Armed<T>,
) -> Result<Result<Value, Rest<S>>, SimError> {
    let typed = serde_json::from_value(action.clone()).map_err(|error| SimError::Action {
        expected: expected.trim(),
        got: format!("{action} ({error})"),
    })?;
    let no = |what: String| Err(SimError::State(what));
    match typed {
        Action::Take => match bays.take() {
            0 => return no("no notes lie at the exit".to_owned()),
            notes => return Ok(Ok(json!({ "taken": notes }))),
        },
        Action::Refill { bay, notes } => {
            if !bays.refill(bay, notes) {
                return no(format!("there is no cassette in bay {bay} to put notes into"));
            }
        }
        Action::Pull { bay } => {
            if !bays.pull(bay) {
                return no(format!("there is no cassette in bay {bay}"));
            }
        }
        Action::Insert { bay } => {
            if !bays.insert(bay) {
                return no(format!("no cassette was pulled from bay {bay}"));
            }
        }
        Action::CollectRejects => return Ok(Ok(json!({ "collected": bays.collect_rejects() }))),
        Action::PowerOff => return Ok(Err(Rest::PowerOff)),
        Action::PowerOn => return Ok(Err(Rest::PowerOn)),
        Action::Set(set) => return Ok(Err(Rest::Set(set))),
        Action::Arm(arm) => armed.0.push(arm),
        Action::Disarm => armed.0.clear(),
    }
    Ok(Ok(json!({})))
}

/// One trap.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Arm<T> {
    /// What goes wrong.
    trap: T,
    /// Only with notes of this bay.
    bay: Option<u8>,
    /// Not before this note of a dispense, from 1.
    at_note: Option<u32>,
    /// Only at this byte of a reply's frame.
    at_byte: Option<usize>,
    /// How often; once where it is left out.
    #[serde(default = "once")]
    times: u32,
}

const fn once() -> u32 {
    1
}

/// The traps that are set.
#[derive(Debug)]
pub(super) struct Armed<T>(Vec<Arm<T>>);

impl<T> Default for Armed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Armed<T> {
    /// Whether `trap` goes off with this note of a dispense.
    pub(super) fn fires(&mut self, trap: T, bay: u32, note: u32) -> bool {
        self.fire(|arm| {
            arm.trap == trap
                && arm.at_byte.is_none()
                && arm.bay.is_none_or(|b| u32::from(b) == bay)
                && arm.at_note.is_none_or(|n| note >= n)
        })
    }

    /// Whether `trap` goes off at this step of the link.
    pub(super) fn springs(&mut self, trap: T) -> bool {
        self.fire(|arm| arm.trap == trap && arm.at_byte.is_none())
    }

    /// The byte of this reply at which `trap` goes off, if it does.
    pub(super) fn in_reply(&mut self, trap: T) -> Option<usize> {
        let at = self.0.iter().filter(|arm| arm.trap == trap).find_map(|arm| arm.at_byte)?;
        self.fire(|arm| arm.trap == trap && arm.at_byte == Some(at)).then_some(at)
    }

    fn fire(&mut self, fits: impl Fn(&Arm<T>) -> bool) -> bool {
        let Some(arm) = self.0.iter_mut().find(|arm| fits(arm) && arm.times > 0) else {
            return false;
        };
        arm.times = arm.times.saturating_sub(1);
        self.0.retain(|arm| arm.times > 0);
        true
    }
}
