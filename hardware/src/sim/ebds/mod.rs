//! An MEI/CPI EBDS validator on the wire, with a real note path.
//!
//! Promise: it answers bytes with bytes as the specification has it, knows where each simulated
//! note is (inlet, escrow, transport, cashbox, collected, given back, taken out by hand), and says
//! `stacked`, `returned` and `rejected` once: in its next new answer. A message with the toggle of
//! the one before it is answered with the answer before, and nothing else is done. Power may go at
//! any point; what becomes of the note, and what is said of it, follows the policy that the host
//! has set last.
//!
//! Failure policy: a bad frame, or a message while it is off, booting or deaf, is answered with
//! silence; a message that it does not know with the bit for an invalid command; a control action
//! that does not fit with an error.
//!
//! # Control actions (`{"action": NAME, ...}`)
//! | action | arguments | what happens |
//! |---|---|---|
//! | `insert` | `denomination` (major units) | a customer inserts a note |
//! | `reject_next` | | the next note is refused |
//! | `classify_next` | `class` ("01".."04") | the next note is of this class |
//! | `misread` | `denomination` | it calls the note inside by this value from now on |
//! | `leave`, `take` | | the customer leaves what is given back in the inlet; takes it |
//! | `power_off`, `power_on` | | |
//! | `power_off_at` | `byte` | the power goes once it has said so many bytes more |
//! | `stacker_out`, `stacker_in` | | the cashbox is taken out; put back |
//! | `collect` | | the cashbox, while out, is emptied |
//! | `stacker_full` | | the cashbox is full until it has been emptied |
//! | `jam`, `cheat` | | until `clear`; a jammed note is taken out by hand |
//! | `fail` | | FAILURE, latched until `clear` and a reset |
//! | `pause` | | a second note in the inlet, until `clear` |
//! | `status` | `code` ("77") | it answers everything with a message of type 3 and this byte, until `clear` |
//! | `clear` | | a person puts it right |
//! | `silence` | `replies` | the next replies are lost; commands are obeyed |
//! | `deaf` | `frames` | the next commands are lost |
//! | `damage` | `replies` | the next replies have a wrong check |
//! | `set` | `option`, `on` | see [`Options`] |
//! | `state` | | only the answer: `{"status": "..."}` as for each other action |

mod answer;
mod control;
mod path;

use std::collections::BTreeMap;

use bitspire_shared::money::Currency;
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::mishaps::Mishaps;
use super::{Key, SimDevice, SimError};
use crate::frame::ebds::{
    Classification, Decoder, Frame, NoteReport, NoteSet, Omnibus, PowerUpPolicy, Status,
};
use path::{Inside, Phase, Trouble};

/// Without a poll for longer than this it takes no notes.
const UNPOLLED_MS: u64 = 5_000;
/// A frame whose bytes stop for this long is forgotten.
const INTER_BYTE_MS: u64 = 200;
/// New answers that carry the power-up bit.
const POWER_UP_ANSWERS: u8 = 3;

/// How firmware differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `extended`: it reports notes at length where the host wants it; without, it says indexes.
    pub extended: bool,
    /// `long_inhibits`: it takes the long form of the note inhibits only.
    pub long_inhibits: bool,
    /// `reports_once`: a note in escrow is reported in one answer only.
    pub reports_once: bool,
    /// `says_value`: `stacked` carries the value, outside of power losses.
    pub says_value: bool,
    /// `stale_value`: the value stays one answer too long: after `stacked`, and at the next escrow.
    pub stale_value: bool,
    /// `blank_stack`: it says `stacked` without a value at power-up and when its cashbox is put
    /// back.
    pub blank_stack: bool,
    /// `repeats`: a message with the toggle of the one before it gets the answer before; without,
    /// a fresh one.
    pub repeats: bool,
    /// `remembers`: a `stacked` that the host has not heard is said again after a power loss.
    pub remembers: bool,
    /// `closed_is_zero`: with its inlet closed it shows no state at all.
    pub closed_is_zero: bool,
    /// `returns_unpolled`: a note in escrow is given back when nobody polls for 5 s.
    pub returns_unpolled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extended: true,
            long_inhibits: false,
            reports_once: false,
            says_value: true,
            stale_value: false,
            blank_stack: true,
            repeats: true,
            remembers: true,
            closed_is_zero: false,
            returns_unpolled: false,
        }
    }
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From power, or a reset, to the first answer.
    pub boot: u64,
    /// From the inlet to escrow, or to the decision to refuse.
    pub accept: u64,
    /// From escrow to the cashbox.
    pub stack: u64,
    /// Until a customer has taken what is given back.
    pub take: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { boot: 5_000, accept: 1_000, stack: 1_200, take: 1_500 }
    }
}

/// The simulated device.
pub struct EbdsSim {
    table: Vec<NoteReport>,
    options: Options,
    timing: Timing,
    decoder: Decoder,
    last_byte: Mono,
    /// The last message's toggle and the answer to it.
    last: Option<(bool, Frame)>,
    own: Omnibus,
    inhibits: Option<NoteSet>,
    phase: Phase,
    trouble: Option<Trouble>,
    cashbox_full: bool,
    /// Answers that still say that the power came.
    power_up: u8,
    /// What the next new answer says, once.
    once: Once,
    /// The last answer told of a note in the cashbox; the next new message shows that it was heard.
    told: Option<u8>,
    invalid: bool,
    /// The note in escrow was reported.
    reported: bool,
    /// What the last note was called, for firmware that goes on calling it so.
    stale: Option<NoteReport>,
    /// The last answer told of a note in the cashbox.
    lingers: bool,
    last_poll: Mono,
    tally: Tally,
    reject_next: bool,
    class_next: Classification,
    misread: Option<u8>,
    customer_takes: bool,
    mishaps: Mishaps,
}

/// Events that are said once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Once {
    /// A note, and whether its value is told; no note where the word means nothing.
    stacked: Option<(Option<u8>, bool)>,
    returned: bool,
    rejected: bool,
}

/// Where notes went.
#[derive(Default)]
struct Tally {
    inserted: u32,
    cashbox: BTreeMap<u8, u32>,
    collected: BTreeMap<u8, u32>,
    returned: u32,
    rejected: u32,
    removed: u32,
    acknowledged: u32,
}

fn count(tally: &mut BTreeMap<u8, u32>, index: u8) {
    let notes = tally.entry(index).or_default();
    *notes = notes.saturating_add(1);
}

impl EbdsSim {
    /// A device, empty, whose power has just come, with these notes.
    #[must_use]
    pub fn new(table: Vec<NoteReport>, options: Options, timing: Timing) -> Self {
        Self {
            table,
            options,
            timing,
            decoder: Decoder::default(),
            last_byte: Mono(0),
            last: None,
            own: Omnibus { policy: PowerUpPolicy::A, ..Omnibus::default() },
            inhibits: None,
            phase: Phase::Booting { inside: None, until: Mono(timing.boot) },
            trouble: None,
            cashbox_full: false,
            power_up: POWER_UP_ANSWERS,
            once: Once::default(),
            told: None,
            invalid: false,
            reported: false,
            stale: None,
            lingers: false,
            last_poll: Mono(0),
            tally: Tally::default(),
            reject_next: false,
            class_next: Classification::Genuine,
            misread: None,
            customer_takes: true,
            mishaps: Mishaps::default(),
        }
    }

    /// The note table of a EUR unit: 5 to 500.
    #[must_use]
    pub fn eur() -> Vec<NoteReport> {
        Self::notes("EUR", [(5, 0), (10, 0), (20, 0), (50, 0), (100, 0), (200, 0), (5, 2)])
    }

    /// The note table of a USD unit: 1, 2, 5, 10, 20, 50, 100 at the published indexes.
    #[must_use]
    pub fn usd() -> Vec<NoteReport> {
        Self::notes("USD", [(1, 0), (2, 0), (5, 0), (10, 0), (20, 0), (50, 0), (100, 0)])
    }

    fn notes(currency: &str, values: [(u16, u8); 7]) -> Vec<NoteReport> {
        // both names that are given here are currencies
        let Ok(currency) = currency.parse::<Currency>() else { return Vec::new() };
        let report = |(index, value)| NoteReport::new(index, currency, value, Classification::None);
        (1..).zip(values).map(report).collect()
    }

    fn report(&self, index: u8) -> Option<NoteReport> {
        self.table.iter().find(|report| report.index() == index).copied()
    }

    /// Value of an index in major units.
    fn major(&self, index: u8) -> Option<u32> {
        let (denomination, currency) = self.report(index)?.note()?;
        denomination.major(currency)
    }

    fn by_value(&self, tally: &BTreeMap<u8, u32>) -> Value {
        let mut notes = BTreeMap::<String, u32>::new();
        for (index, count) in tally {
            let value = self.major(*index).unwrap_or_default();
            let sum = notes.entry(value.to_string()).or_default();
            *sum = sum.saturating_add(*count);
        }
        json!(notes)
    }
}

impl SimDevice for EbdsSim {
    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Vec<u8> {
        self.advance(now);
        if now.since(self.last_byte) >= INTER_BYTE_MS {
            self.decoder.clear();
        }
        self.last_byte = now;
        let mut out = Vec::new();
        while let Some(frame) = self.decoder.push(&mut bytes) {
            self.on_frame(&frame, now, &mut out);
        }
        out
    }

    fn on_tick(&mut self, now: Mono) -> Vec<u8> {
        self.advance(now);
        Vec::new()
    }

    fn wake_at(&self) -> Option<Mono> {
        self.due()
    }

    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.advance(now);
        self.act(action, now)?;
        self.advance(now);
        Ok(json!({ "status": self.in_words() }))
    }

    fn counters(&self) -> Value {
        json!({
            "inserted": self.tally.inserted,
            "in_path": u8::from(self.inside().is_some()),
            "cashbox": self.by_value(&self.tally.cashbox),
            "collected": self.by_value(&self.tally.collected),
            "returned": self.tally.returned,
            "rejected": self.tally.rejected,
            "removed": self.tally.removed,
            "acknowledged": self.tally.acknowledged,
        })
    }

    fn keys(&self) -> &'static [Key] {
        const KEYS: &[Key] = &[
            Key::new('5', "insert a 5", r#"{"action":"insert","denomination":5}"#),
            Key::new('1', "insert a 10", r#"{"action":"insert","denomination":10}"#),
            Key::new('2', "insert a 20", r#"{"action":"insert","denomination":20}"#),
            Key::new('h', "insert a 100", r#"{"action":"insert","denomination":100}"#),
            Key::new('r', "the next note is refused", r#"{"action":"reject_next"}"#),
            Key::new('j', "a jam", r#"{"action":"jam"}"#),
            Key::new('k', "clear it", r#"{"action":"clear"}"#),
            Key::new('p', "take the cashbox out", r#"{"action":"stacker_out"}"#),
            Key::new('e', "empty it", r#"{"action":"collect"}"#),
            Key::new('i', "put it back", r#"{"action":"stacker_in"}"#),
            Key::new('x', "power off", r#"{"action":"power_off"}"#),
            Key::new('o', "power on", r#"{"action":"power_on"}"#),
        ];
        KEYS
    }
}

#[cfg(test)]
mod tests;
