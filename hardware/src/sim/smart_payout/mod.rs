//! An ITL NV200 with SMART Payout on the wire: inlet, escrow, cashbox, and a store that pays out.
//!
//! Promise: it answers bytes with bytes as the manuals have it, in the clear and encrypted; it repeats
//! its last answer for a command that comes with the same flag and drops encrypted packets with
//! another count; events that count are repeated until their acknowledgement, over a power loss too.
//! It knows where each simulated note is. Power may go at any point, also after a byte of an answer;
//! keys, inhibits and ENABLE are lost with it and by RESET.
//!
//! Failure policy: a bad frame, or a command while it is off or deaf, is answered with silence; a
//! command that does not fit with F5; a control action that does not fit with an error.
//!
//! # Control actions (`{"action": NAME, ...}`)
//! | action | arguments | what happens |
//! |---|---|---|
//! | `insert` | `denomination` (major units) | a customer inserts a note |
//! | `reject_next` | `reason` ("01".."1C") | the next note is refused for this reason |
//! | `leave`, `take` | | the customer leaves what is given out in the bezel; takes it |
//! | `power_off`, `power_on` | | |
//! | `power_off_at` | `byte` | the power goes once it has said so many bytes more |
//! | `stacker_out`, `stacker_in` | | the cashbox is taken out; put back |
//! | `collect` | | the cashbox, while out, is emptied |
//! | `stacker_full` | | the cashbox is full until it has been emptied |
//! | `jam` | `where` ("acceptor" or "payout") | latched until `clear` and RESET |
//! | `cheat` | | a fraud attempt is told |
//! | `misread` | | the next note out of the store is another one: it goes to the cashbox |
//! | `clear` | | a person puts it right; a jammed note is taken out |
//! | `silence` | `replies` | the next replies are lost; commands are obeyed |
//! | `deaf` | `frames` | the next commands are lost |
//! | `damage` | `replies` | the next replies have a wrong check |
//! | `set` | `option`, `on` | see [`Options`] |
//! | `load` | `box`, `notes` | notes of the box-th kind that the store keeps are put into it |
//! | `short` | `box`, `notes` | so many are taken out of it, and the levels do not know |
//! | `code` | `code` ("99") | polls tell this, too, until `clear` |
//! | `odd_order` | `code` ("F6") | the next order is begun, and answered with this |
//! | `stall` | | notes on their way out stand still, and HALT does not help, until `clear` |
//! | `rekey` | `on` | it is given another fixed key; the one that units are delivered with again |
//! | `replace` | | another unit is in its place: another serial number, without power so far |
//! | `state` | | only the answer: `{"status": "..."}` as for each other action |

mod answer;
mod control;
mod link;
mod out;
mod path;

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::{Key, SimDevice, SimError, count};
use crate::frame::ssp::cipher::{Draw, FixedKey, Seed};
use crate::frame::ssp::{EventCode, Money, RejectReason, Route};
use link::Link;
use out::{Cut, Out};
use path::{Phase, Trouble};

/// How firmware differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `remembers`: what nobody has acknowledged, and what a power loss has cut off, is told after it.
    pub remembers: bool,
    /// `flaky_levels`: every second GET ALL LEVELS is refused.
    pub flaky_levels: bool,
    /// `closes_after_payout`: it disables its validator after each payout.
    pub closes_after_payout: bool,
    /// `says_starting`: it says that it initialises; what else it has to tell comes after that.
    pub says_starting: bool,
    /// `old_protocol`: it does not speak protocol version 8.
    pub old_protocol: bool,
    /// `says_unread`: it says that it has no key (FA) to what it cannot decrypt, and not nothing.
    pub says_unread: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            remembers: true,
            flaky_levels: false,
            closes_after_payout: false,
            says_starting: true,
            old_protocol: false,
            says_unread: false,
        }
    }
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From power or RESET until it is ready.
    pub start: u64,
    /// From the inlet to escrow, or to the decision to refuse.
    pub read: u64,
    /// From escrow to the store or the cashbox; the credit comes half-way.
    pub stack: u64,
    /// Until a customer has taken what is given back or out.
    pub take: u64,
    /// From the store to the bezel or the cashbox.
    pub carry: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { start: 3_000, read: 1_000, stack: 1_200, take: 1_500, carry: 1_500 }
    }
}

/// The simulated device.
pub struct SmartPayoutSim {
    /// The note of each channel, from 1.
    notes: Vec<Money>,
    options: Options,
    timing: Timing,
    link: Link,
    fixed: FixedKey,
    draw: Draw,
    settings: Settings,
    routes: BTreeMap<u32, Route>,
    phase: Phase,
    out: Option<Out>,
    /// A movement that a power loss has cut off.
    cut: Option<Cut>,
    trouble: Option<Trouble>,
    cashbox_out: bool,
    cashbox_full: bool,
    /// What is told once.
    told: Vec<u8>,
    /// What is told until it is acknowledged, and how much of it the last poll has told.
    pending: Vec<Vec<u8>>,
    shown: usize,
    /// Notes in the store as the device counts them, by value.
    levels: BTreeMap<u32, u16>,
    levels_asked: u32,
    /// What the last movement has moved to the cashbox, by value.
    moved: BTreeMap<u32, u16>,
    last_reject: RejectReason,
    tally: Tally,
    reject_next: Option<RejectReason>,
    customer_takes: bool,
    misread: bool,
    extra_code: Option<u8>,
    odd_order: Option<u8>,
    /// How often another unit was put in its place.
    replaced: u8,
    payouts: u32,
}

#[derive(Default)]
struct Settings {
    inhibits: u16,
    enabled: bool,
    payout_on: bool,
    protocol: u8,
    generator: Option<u64>,
    modulus: Option<u64>,
    /// The reset has been told.
    reset_told: bool,
}

/// Where notes went, by channel.
#[derive(Default)]
struct Tally {
    inserted: u32,
    store: BTreeMap<u8, u32>,
    cashbox: BTreeMap<u8, u32>,
    collected: BTreeMap<u8, u32>,
    given: BTreeMap<u8, u32>,
    returned: u32,
    rejected: u32,
    removed: u32,
    /// Credits that the host has acknowledged.
    acknowledged: u32,
}

impl SmartPayoutSim {
    /// A device, powered up, empty, with these notes.
    #[must_use]
    pub fn new(notes: Vec<Money>, options: Options, timing: Timing) -> Self {
        Self {
            notes,
            options,
            timing,
            link: Link::default(),
            fixed: FixedKey::default(),
            draw: Draw::new(&Seed::new(*b"a simulated unit")),
            settings: Settings::default(),
            routes: BTreeMap::new(),
            phase: Phase::Starting { inside: None, until: Mono(timing.start) },
            out: None,
            cut: None,
            trouble: None,
            cashbox_out: false,
            cashbox_full: false,
            told: Vec::new(),
            pending: Vec::new(),
            shown: 0,
            levels: BTreeMap::new(),
            levels_asked: 0,
            moved: BTreeMap::new(),
            last_reject: RejectReason::Accepted,
            tally: Tally::default(),
            reject_next: None,
            customer_takes: true,
            misread: false,
            extra_code: None,
            odd_order: None,
            replaced: 0,
            payouts: 0,
        }
    }

    /// The notes of a EUR unit: 5 to 500 on channels 1 to 7.
    #[must_use]
    pub fn eur() -> Vec<Money> {
        notes([500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000], *b"EUR")
    }

    /// The notes of a USD unit: 1, 5, 10, 20, 50, 100 on channels 1 to 6.
    #[must_use]
    pub fn usd() -> Vec<Money> {
        notes([100, 500, 1_000, 2_000, 5_000, 10_000], *b"USD")
    }

    fn note(&self, channel: u8) -> Money {
        let at = usize::from(channel).checked_sub(1);
        let nothing = Money { value: 0, country: *b"XXX" };
        at.and_then(|at| self.notes.get(at)).copied().unwrap_or(nothing)
    }

    fn channel(&self, note: Money) -> Option<u8> {
        (1..).zip(&self.notes).find(|(_, known)| **known == note).map(|(channel, _)| channel)
    }

    fn major(&self, channel: u8) -> Option<u32> {
        let (denomination, currency) = self.note(channel).note()?;
        denomination.major(currency)
    }

    /// The kinds of notes that the store keeps, in the order of their channels.
    fn kept(&self) -> Vec<u8> {
        let kept = |note: &Money| self.routes.get(&note.value) == Some(&Route::Store);
        (1..).zip(&self.notes).filter(|(_, note)| kept(note)).map(|(channel, _)| channel).collect()
    }

    /// An event that is repeated until it is acknowledged.
    fn announce(&mut self, code: EventCode, data: &[u8]) {
        let mut event = vec![code.code()];
        event.extend(data);
        self.pending.push(event);
    }

    fn lose_power(&mut self) {
        let inside = self.left_behind();
        self.cut_off();
        self.forget();
        if !self.options.remembers {
            self.pending.clear();
            self.cut = None;
        }
        self.phase = Phase::Off(inside);
    }

    /// What power and RESET take.
    fn forget(&mut self) {
        self.settings = Settings::default();
        self.link.forget();
        self.told.clear();
        self.shown = 0;
    }
}

fn notes<const N: usize>(values: [u32; N], country: [u8; 3]) -> Vec<Money> {
    values.map(|value| Money { value, country }).to_vec()
}

impl SimDevice for SmartPayoutSim {
    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Vec<u8> {
        self.advance(now);
        self.hear(bytes, now)
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
        Ok(json!({ "status": self.phase.name() }))
    }

    fn counters(&self) -> Value {
        let by_value = |tally: &BTreeMap<u8, u32>| super::by_value(tally, |code| self.major(code));
        let kept = self.kept();
        let boxes: Vec<_> = kept
            .iter()
            .map(|channel| {
                let notes = self.tally.store.get(channel).copied().unwrap_or(0);
                by_value(&BTreeMap::from([(*channel, notes)]))
            })
            .collect();
        let level = |channel: &u8| self.levels.get(&self.note(*channel).value).copied();
        let levels: Vec<_> = kept.iter().map(|channel| level(channel).unwrap_or(0)).collect();
        json!({
            "inserted": self.tally.inserted,
            "store": by_value(&self.tally.store),
            "boxes": boxes,
            "told": levels,
            "cashbox": by_value(&self.tally.cashbox),
            "collected": by_value(&self.tally.collected),
            "given": by_value(&self.tally.given),
            "returned": self.tally.returned,
            "rejected": self.tally.rejected,
            "removed": self.tally.removed,
            "acknowledged": self.tally.acknowledged,
            "in_path": self.in_path(),
            "at_bezel": u8::from(self.at_bezel().is_some()),
            "payouts": self.payouts,
        })
    }

    fn keys(&self) -> &'static [Key] {
        super::VALIDATOR_KEYS
    }
}

#[cfg(test)]
mod tests;
