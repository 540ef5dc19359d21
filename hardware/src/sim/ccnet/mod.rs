//! A CashCode CCNET validator on the wire, or a Bill-to-Bill unit, with a real note path.
//!
//! Promise: it answers bytes with bytes as the specification has it, knows where each simulated
//! note is (inlet, escrow, transport, cassette, collected, given back, taken out by hand), and keeps
//! BILL STACKED and BILL RETURNED up until the host's ACK comes in time. Power may go at any point;
//! what it says at the next start follows from where the note was. What is enabled is lost with the
//! power and by RESET.
//!
//! Failure policy: a bad frame, or a command while it is off or deaf, is answered with silence; a
//! command that does not fit the state with 30; a control action that does not fit with an error.
//!
//! # Control actions (`{"action": NAME, ...}`)
//! | action | arguments | what happens |
//! |---|---|---|
//! | `insert` | `denomination` (major units) | a customer inserts a note |
//! | `reject_next` | `reason` ("60".."6D") | the next note is refused for this reason |
//! | `misread_next` | `denomination` | BILL STACKED of the next note names this one |
//! | `leave`, `take` | | the customer leaves what is given back in the inlet; takes it |
//! | `power_off`, `power_on` | | |
//! | `stacker_out`, `stacker_in` | | the cassette is taken out; put back |
//! | `collect` | | the cassette, while out, is emptied |
//! | `stacker_full` | | the cassette is full until it has been emptied |
//! | `jam` | `where` ("acceptor" or "stacker") | latched until `clear` and RESET |
//! | `cheat` | | latched likewise, or told once, see [`Options`] |
//! | `fail` | `code` ("50"..) | GENERIC FAILURE, latched likewise |
//! | `pause` | | a second note in the inlet, until `clear` |
//! | `status` | `code` ("77") | it answers polls with this code until `clear` |
//! | `clear` | | a person puts it right; a jammed note is taken out |
//! | `silence` | `replies` | the next replies are lost; commands are obeyed |
//! | `deaf` | `frames` | the next commands are lost |
//! | `deny` | `frames` | the next commands are answered with NAK |
//! | `busy` | `polls` | the next polls are answered with BUSY |
//! | `damage` | `replies` | the next replies have a wrong check |
//! | `power_off_at` | `byte` | the power goes once it has said so many bytes more |
//! | `set` | `option`, `on` | see [`Options`] |
//! | `load` | `box`, `notes` | of a unit: notes for which a cassette was told to keep |
//! | `cassette_out`, `cassette_in` | `box` | likewise: a recycling cassette is taken out; put back |
//! | `unit_jam` | `where` ("70".."75") | likewise: BILL-TO-BILL UNIT JAMMED, latched as `jam` |
//! | `retract` | | likewise: notes at the exit are drawn back |
//! | `divert_next` | | likewise: the next note goes to the drop cassette, whatever the others keep |
//! | `retype` | `box`, `code` ("18") | likewise: another host has given the cassette this type |
//! | `start_late` | `ms` | likewise: the next order is taken, and begun only then |
//! | `state` | | only the answer: `{"status": "..."}` as for each other action |

mod answer;
mod control;
mod path;
mod unit;

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::count;
use super::mishaps::Mishaps;
use super::{Key, SimDevice, SimError};
use crate::frame::ccnet::unit::UnitState;
use crate::frame::ccnet::{BillSlot, Bills, Decoder, Frame, RejectReason, State, VALIDATOR};
use path::{Inside, Phase, Trouble};
use unit::Unit;

/// The host decides about a note in escrow within this time.
const ESCROW_MS: u64 = 10_000;
/// A frame whose bytes stop for this long is forgotten (5 ms on a real line).
const INTER_BYTE_MS: u64 = 200;

/// How firmware differs, and what no public document tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `strict`: questions and ENABLE only while no note moves.
    pub strict: bool,
    /// `power_recovery`: a credit that the power loss cut off is told after RESET; without, the note
    /// is stacked and no credit comes.
    pub power_recovery: bool,
    /// `remembers`: after a power loss it knows that a note is inside (11, 12); without, it says 10.
    pub remembers: bool,
    /// `closes_after_note`: it disables itself (19) after each stacked or returned note.
    pub closes_after_note: bool,
    /// `says_again`: an answer that is not confirmed in time is said again at once, without a POLL.
    pub says_again: bool,
    /// `cheat_passes`: CHEATED is told once, until its ACK, and the device starts again by itself.
    pub cheat_passes: bool,
    /// `late_credit`: a unit tells a credit that a power loss cut off by BILL STACKED, not by its
    /// answer to POWER RECOVERY.
    pub late_credit: bool,
    /// `closes_late`: a note that is on its way to escrow as the inlet is closed still comes in.
    pub closes_late: bool,
    /// `tells_counts`: a unit says with DISPENSED how many notes of each type those were.
    pub tells_counts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strict: false,
            power_recovery: true,
            remembers: true,
            closes_after_note: false,
            says_again: false,
            cheat_passes: false,
            late_credit: false,
            closes_late: false,
            tells_counts: false,
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
    /// From escrow to BILL STACKED.
    pub stack: u64,
    /// Until a customer has taken what is given back.
    pub take: u64,
    /// How long an answer waits for its ACK: 10 ms on a real line, which no pseudo-terminal keeps.
    pub confirm: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { initialize: 3_000, accept: 1_000, stack: 1_200, take: 1_500, confirm: 100 }
    }
}

/// The simulated device.
pub struct CcnetSim {
    address: u8,
    /// What a Bill-to-Bill unit has beyond a validator.
    unit: Option<Unit>,
    table: Vec<BillSlot>,
    identity: [u8; 34],
    options: Options,
    timing: Timing,
    decoder: Decoder,
    last_byte: Mono,
    enabled: Bills,
    escrow: Bills,
    secure: Bills,
    phase: Phase,
    trouble: Option<Trouble>,
    cassette_full: bool,
    unconfirmed: Option<Unconfirmed>,
    tally: Tally,
    reject_next: Option<RejectReason>,
    misread_next: Option<u8>,
    customer_takes: bool,
    mishaps: Mishaps,
    denied_frames: u64,
    busy_polls: u64,
}

/// The last answer with data, which waits for its ACK.
struct Unconfirmed {
    frame: Frame,
    state: Option<State>,
    until: Mono,
    said_again: bool,
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

impl CcnetSim {
    /// A device, powered up, empty, with these notes.
    #[must_use]
    pub fn new(table: Vec<BillSlot>, options: Options, timing: Timing) -> Self {
        Self {
            address: VALIDATOR,
            unit: None,
            table,
            identity: *b"SM-SIM       A 21KC00000001\0\0\0\0\0\0\x01",
            options,
            timing,
            decoder: Decoder::default(),
            last_byte: Mono(0),
            enabled: Bills::NONE,
            escrow: Bills::NONE,
            secure: Bills::NONE,
            phase: Phase::PowerUp(None),
            trouble: None,
            cassette_full: false,
            unconfirmed: None,
            tally: Tally::default(),
            reject_next: None,
            misread_next: None,
            customer_takes: true,
            mishaps: Mishaps::default(),
            denied_frames: 0,
            busy_polls: 0,
        }
    }

    /// The bill table of a EUR unit: 5 to 500 at the types 8 to 14, as units on the market have them.
    #[must_use]
    pub fn eur() -> Vec<BillSlot> {
        slots(*b"EUR", (8..).zip([(5, 0), (1, 1), (2, 1), (5, 1), (1, 2), (2, 2), (5, 2)]))
    }

    /// The bill table of a USD unit: 1, 2, 5, 10, 20, 50, 100 from type 0 on.
    #[must_use]
    pub fn usd() -> Vec<BillSlot> {
        slots(*b"USA", (0..).zip([(1, 0), (2, 0), (5, 0), (1, 1), (2, 1), (5, 1), (1, 2)]))
    }

    /// Value of a bill type in major units.
    fn major(&self, kind: u8) -> Option<u32> {
        let (denomination, currency) = self.table.iter().find(|s| s.kind == kind)?.note()?;
        denomination.major(currency)
    }

    /// Its state, for people.
    fn words(&self) -> String {
        let moving = self.moving_frame();
        let moving = moving.as_ref().and_then(|frame| UnitState::parse(frame.content()));
        let state = || self.state().map_or("OFF".to_owned(), |state| state.to_string());
        moving.map_or_else(state, |moving| moving.to_string())
    }

    fn by_value(&self, tally: &BTreeMap<u8, u32>) -> Value {
        super::by_value(tally, |kind| self.major(kind))
    }
}

fn slots(country: [u8; 3], notes: impl Iterator<Item = (u8, (u8, u8))>) -> Vec<BillSlot> {
    let slot = |(kind, (digits, exponent))| BillSlot { kind, digits, country, exponent };
    notes.map(slot).collect()
}

impl SimDevice for CcnetSim {
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
        self.say_again_when_due(now, &mut out);
        out
    }

    fn wake_at(&self) -> Option<Mono> {
        [self.due(), self.says_again_at()].into_iter().flatten().min()
    }

    fn control(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.advance(now);
        self.act(action, now)?;
        self.advance(now);
        Ok(json!({ "status": self.words() }))
    }

    fn counters(&self) -> Value {
        let (moving, own) = self.unit_counters().unwrap_or_default();
        let mut all = json!({
            "inserted": self.tally.inserted,
            "in_path": moving.saturating_add(usize::from(self.inside().is_some())),
            "cashbox": self.by_value(&self.tally.cashbox),
            "collected": self.by_value(&self.tally.collected),
            "returned": self.tally.returned,
            "rejected": self.tally.rejected,
            "removed": self.tally.removed,
            "acknowledged": self.tally.acknowledged,
        });
        if let Some(all) = all.as_object_mut() {
            all.extend(own);
        }
        all
    }

    fn keys(&self) -> &'static [Key] {
        super::VALIDATOR_KEYS
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unit_tests;
