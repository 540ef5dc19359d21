//! A JCM ID-003 validator on the wire, with a real note path.
//!
//! Promise: it answers bytes with bytes as the specification has it, knows where each simulated
//! note is (inlet, escrow, transport, cashbox, collected, given back, taken out by hand), and keeps
//! VEND VALID up until the ACK. Power may go at any point; what it says at the next start follows
//! from where the note was. Settings are lost with the power and by RESET.
//!
//! Failure policy: a bad frame, or a command while it is off or deaf, is answered with silence; a
//! command that does not fit the state with 4B; a control action that does not fit with an error.
//!
//! The counters tell beside the notes when the host was first told of the last note in escrow
//! (`escrow_at_ms` of the simulator's clock), and when STACK or RETURN came (`decided_at_ms`).
//!
//! # Control actions (`{"action": NAME, ...}`)
//! | action | arguments | what happens |
//! |---|---|---|
//! | `insert` | `denomination` (major units) | a customer inserts a note |
//! | `reject_next` | `reason` ("71".."7F") | the next note is refused for this reason |
//! | `leave`, `take` | | the customer leaves what is given back in the inlet; takes it |
//! | `power_off`, `power_on` | | |
//! | `power_off_at` | `byte` | the power goes once it has said so many bytes more |
//! | `stacker_out`, `stacker_in` | | the cashbox is taken out; put back |
//! | `collect` | | the cashbox, while out, is emptied |
//! | `stacker_full` | | the cashbox is full until it has been emptied |
//! | `jam` | `where` ("acceptor" or "stacker") | latched until `clear` and RESET |
//! | `cheat`, `comm_error` | | latched likewise |
//! | `fail` | `code` ("A2"..) | FAILURE, latched likewise |
//! | `pause` | | a second note in the inlet, until `clear` |
//! | `status` | `code` ("77") | it answers polls with this code until `clear` |
//! | `clear` | | a person puts it right; a jammed note is taken out |
//! | `silence` | `replies` | the next replies are lost; commands are obeyed |
//! | `deaf` | `frames` | the next commands are lost |
//! | `damage` | `replies` | the next replies have a wrong check |
//! | `set` | `option`, `on` | see [`Options`] |
//! | `load` | `box`, `notes` | a recycler: a person puts notes of its value into a box and sets its count |
//! | `recycler_jam` | | a recycler: latched until `clear` and CLEAR or RESET |
//! | `state` | | only the answer: `{"status": "..."}` as for each other action |

mod answer;
mod control;
mod path;
mod recycler;

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::mishaps::Mishaps;
use super::{Key, SimDevice, SimError, count};
use crate::frame::id003::{Config, CurrencySlot, Decoder, RejectReason, Reply, Status};
use path::{Inside, Phase, Trouble};
use recycler::Boxes;

/// The host decides about a note in escrow within this time.
const ESCROW_MS: u64 = 10_000;
/// One WAIT.
const WAIT_MS: u64 = 3_000;
/// Without a poll for longer than this, a note that is not stacked yet is given back.
const UNPOLLED_MS: u64 = 3_000;
/// VEND VALID without ACK for this long: it answers nothing but RESET.
const UNACKED_MS: u64 = 60_000;
/// A frame whose bytes stop for this long is forgotten.
const INTER_BYTE_MS: u64 = 200;

/// How firmware differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `strict`: settings C0..C5 only during INITIALIZE, questions (88, 8A) not while a note moves.
    pub strict: bool,
    /// `says_note`: VEND VALID carries the escrow code.
    pub says_note: bool,
    /// `power_recovery`: a credit that the power loss cut off is repeated after RESET, if the host
    /// has set C5 02; without, the note is stacked and no credit comes.
    pub power_recovery: bool,
    /// `remembers`: after a power loss it knows that a note is inside (41, 42); without, it says 40.
    pub remembers: bool,
    /// `closes_after_note`: it closes its inlet (1A) after each stacked note.
    pub closes_after_note: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strict: false,
            says_note: true,
            power_recovery: true,
            remembers: true,
            closes_after_note: false,
        }
    }
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// INITIALIZE.
    pub initialize: u64,
    /// From the inlet to escrow, or to the decision to refuse.
    pub accept: u64,
    /// From escrow to VEND VALID, for STACK-2 and STACK-3; half of it for STACK-1.
    pub stack: u64,
    /// STACKED.
    pub stacked: u64,
    /// Until a customer has taken what is given back.
    pub take: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { initialize: 3_000, accept: 1_000, stack: 1_200, stacked: 200, take: 1_500 }
    }
}

/// The simulated device.
pub struct Id003Sim {
    table: Vec<CurrencySlot>,
    version: String,
    options: Options,
    timing: Timing,
    decoder: Decoder,
    last_byte: Mono,
    settings: Settings,
    phase: Phase,
    trouble: Option<Trouble>,
    cashbox_full: bool,
    last_poll: Mono,
    announced: Status,
    tally: Tally,
    /// Of a recycler only.
    boxes: Option<Boxes>,
    reject_next: Option<RejectReason>,
    customer_takes: bool,
    escrow: Option<Decision>,
    mishaps: Mishaps,
}

/// When the host was first told of the last note in escrow, and when it decided.
struct Decision {
    told_at: Mono,
    decided_at: Option<Mono>,
}

struct Settings {
    disabled: u16,
    inhibit: bool,
    optional: u16,
    polled: bool,
    /// As they were echoed, for reading back.
    echoed: Vec<Config>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { disabled: 0, inhibit: true, optional: 0, polled: true, echoed: Vec::new() }
    }
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

impl Id003Sim {
    /// A device, powered up, empty, with these notes.
    #[must_use]
    pub fn new(table: Vec<CurrencySlot>, options: Options, timing: Timing) -> Self {
        Self {
            table,
            version: "i(SIM)100-SS ID003-05V300-45 28JUN23 7F23".to_owned(),
            options,
            timing,
            decoder: Decoder::default(),
            last_byte: Mono(0),
            settings: Settings::default(),
            phase: Phase::PowerUp(None),
            trouble: None,
            cashbox_full: false,
            last_poll: Mono(0),
            announced: Status::PowerUp,
            tally: Tally::default(),
            boxes: None,
            reject_next: None,
            customer_takes: true,
            escrow: None,
            mishaps: Mishaps::default(),
        }
    }

    /// The currency table of a EUR unit: 5 to 500 at the escrow codes 62 to 68.
    #[must_use]
    pub fn eur() -> Vec<CurrencySlot> {
        let notes = [(5, 0), (1, 1), (2, 1), (5, 1), (1, 2), (2, 2), (5, 2)];
        std::iter::once(CurrencySlot { code: 0x61, country: 0xe0, value: 0, exponent: 0 })
            .chain((0x62..).zip(notes).map(|(code, (value, exponent))| CurrencySlot {
                code,
                country: 0xe0,
                value,
                exponent,
            }))
            .collect()
    }

    /// The currency table of a USD unit: 1, 5, 10, 20, 50, 100, at the codes of the published
    /// example.
    #[must_use]
    pub fn usd() -> Vec<CurrencySlot> {
        let notes =
            [(0x61, 1, 0), (0x63, 5, 0), (0x64, 1, 1), (0x65, 2, 1), (0x66, 5, 1), (0x67, 1, 2)];
        let slot = |(code, value, exponent)| CurrencySlot { code, country: 0x01, value, exponent };
        notes.into_iter().map(slot).collect()
    }

    /// Value of an escrow code in major units.
    fn major(&self, code: u8) -> Option<u32> {
        let (denomination, currency) = self.table.iter().find(|s| s.code == code)?.note()?;
        denomination.major(currency)
    }

    fn by_value(&self, tally: &BTreeMap<u8, u32>) -> Value {
        super::by_value(tally, |code| self.major(code))
    }
}

impl SimDevice for Id003Sim {
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
        let mut out = Vec::new();
        if let Some(status) = self.to_announce() {
            self.announced = status;
            self.send(&Reply::Enq, &mut out);
        }
        out
    }

    fn wake_at(&self) -> Option<Mono> {
        if self.to_announce().is_some() { Some(Mono(0)) } else { self.due() }
    }

    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.advance(now);
        self.act(action, now)?;
        self.advance(now);
        Ok(json!({ "status": self.status().map_or("OFF".to_owned(), |s| s.to_string()) }))
    }

    fn counters(&self) -> Value {
        let mut counters = json!({
            "inserted": self.tally.inserted,
            "in_path": u8::from(self.inside().is_some()),
            "cashbox": self.by_value(&self.tally.cashbox),
            "collected": self.by_value(&self.tally.collected),
            "returned": self.tally.returned,
            "rejected": self.tally.rejected,
            "removed": self.tally.removed,
            "acknowledged": self.tally.acknowledged,
            "escrow_at_ms": self.escrow.as_ref().map(|escrow| escrow.told_at.0),
            "decided_at_ms": self.escrow.as_ref().and_then(|e| e.decided_at).map(|at| at.0),
        });
        if let (Some(fields), Some(own)) = (counters.as_object_mut(), self.box_counters()) {
            fields.extend(own);
        }
        counters
    }

    fn keys(&self) -> &'static [Key] {
        super::VALIDATOR_KEYS
    }
}

#[cfg(test)]
mod tests;
