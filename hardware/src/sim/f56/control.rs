//! What a person at the simulated F53/F56, or the bench, can do to it.
//!
//! Promise: every action is data, refused with the list of what is understood; a trap that is
//! armed fires at the note, step or byte that it names and then counts down.

use serde::Deserialize;

/// What is understood, for errors and help.
pub(super) const ACTIONS: &str = r#"
{"action":"take"} the customer takes the notes at the exit;
{"action":"refill","bay":1,"notes":100};
{"action":"pull","bay":1} and {"action":"insert","bay":1} a cassette;
{"action":"collect_rejects"} empties the reject bin;
{"action":"power_off"} and {"action":"power_on"};
{"action":"arm","trap":T,"bay":B,"at_note":N,"at_byte":N,"times":K} with T one of reject, jam,
pull, power_cut, nak_enq, nak_frame, damage_reply, collide, mute_all, mute_reply (bay, at_note,
at_byte and times are optional);
{"action":"disarm"} forgets every trap;
{"action":"set","note_ms":N,"short_reply":true}"#;

/// An action.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Action {
    Take,
    Refill { bay: u8, notes: u32 },
    Pull { bay: u8 },
    Insert { bay: u8 },
    CollectRejects,
    PowerOff,
    PowerOn,
    Arm(Arm),
    Disarm,
    Set { note_ms: Option<u64>, short_reply: Option<bool> },
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trap {
    /// A note goes to the reject bin.
    Reject,
    /// A note gets stuck in the path.
    Jam,
    /// The cassette is pulled before the note is picked.
    Pull,
    /// The power fails: in the middle of note `at_note`, or after byte `at_byte` of the reply.
    PowerCut,
    /// `NAK` to an `ENQ`.
    NakEnq,
    /// `NAK` to a frame.
    NakFrame,
    /// A reply goes out with a wrong checksum.
    DamageReply,
    /// The device answers an `ENQ` with an `ENQ` of its own.
    Collide,
    /// The device takes a frame and says nothing at all about it, not even `ACK`.
    MuteAll,
    /// The device takes a frame, works, and never answers.
    MuteReply,
}

/// One trap.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// What goes wrong.
    pub trap: Trap,
    /// Only with notes of this bay.
    pub bay: Option<u8>,
    /// Not before this note of a dispense, from 1.
    pub at_note: Option<u32>,
    /// Only at this byte of a reply's frame.
    pub at_byte: Option<usize>,
    /// How often; once where it is left out.
    #[serde(default = "once")]
    pub times: u32,
}

const fn once() -> u32 {
    1
}

impl Arm {
    /// `trap`, once, at the first chance.
    #[must_use]
    pub const fn new(trap: Trap) -> Self {
        Self { trap, bay: None, at_note: None, at_byte: None, times: 1 }
    }
}

/// The traps that are set.
#[derive(Debug, Default)]
pub(super) struct Armed(Vec<Arm>);

impl Armed {
    pub(super) fn add(&mut self, arm: Arm) {
        self.0.push(arm);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether `trap` goes off with this note of a dispense.
    pub(super) fn fires(&mut self, trap: Trap, bay: u32, note: u32) -> bool {
        self.fire(|arm| {
            arm.trap == trap
                && arm.at_byte.is_none()
                && arm.bay.is_none_or(|b| u32::from(b) == bay)
                && arm.at_note.is_none_or(|n| note >= n)
        })
    }

    /// Whether `trap` goes off at this step of the link.
    pub(super) fn springs(&mut self, trap: Trap) -> bool {
        self.fire(|arm| arm.trap == trap && arm.at_byte.is_none())
    }

    /// The byte of this reply after which the power fails, if it does.
    pub(super) fn cut_in_reply(&mut self) -> Option<usize> {
        let mut cuts = self.0.iter().filter(|arm| arm.trap == Trap::PowerCut);
        let at = cuts.find_map(|arm| arm.at_byte)?;
        self.fire(|arm| arm.trap == Trap::PowerCut && arm.at_byte == Some(at)).then_some(at)
    }

    fn fire(&mut self, fits: impl Fn(&Arm) -> bool) -> bool {
        let Some(arm) = self.0.iter_mut().find(|arm| fits(arm) && arm.times > 0) else {
            return false;
        };
        arm.times = arm.times.saturating_sub(1);
        self.0.retain(|arm| arm.times > 0);
        true
    }
}
