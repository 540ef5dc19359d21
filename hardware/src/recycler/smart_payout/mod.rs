//! ITL SMART Payout on an NV200 (SSP/eSSP): a validator with a store that pays notes out again.
//!
//! Promise: a note in escrow is held, and accepted only by the proof that names it (a POLL accepts, so
//! none goes out while a note waits for its decision); each credit is told once and acknowledged to
//! the device only when it is durable. Notes go out, or from the store to the cashbox, only on a
//! proof, by one command that is never given anew: the same frame may be said again, which the device
//! does not obey twice. Counts by denomination (22) are read before and after each movement.
//!
//! ```text
//!  <11 SYNC> <08 REJECT> <09 DISABLE> <4A 4B 4C keys> <06> <05 table> <0C serial> <21>
//!       from here on encrypted; any plain answer, or 20 lost ones, begins at SYNC again
//!  settings: <02 inhibits> <3B routes> <5C payout> <22 levels> <0A ENABLE>  -> Ready, Accepting
//!  note in:  EF 0 -> EF ch -> <18 HOLD>.. -> <56> accept -> CC -> EE ch ..<57> -> EB | DB
//!                             \-> <08 REJECT> -> ED -> EC <17 why>
//!  payout:   <22> -> <46 test> -> <46> -> DA.. CE (bezel).. -> D2 paid <57> -> <22>
//!                                            | 60 s: <38 HALT> -> C9 back, D6 halted
//!                                            D5 jam, D9 time-out; after a power loss DC (CA CB CD)
//!  emptying: <22> -> <44 keep the others | 52 SMART empty> -> D7, B3.. -> D8, B4 <57> -> <22>
//!  a movement that is met running is followed to its end -> Followed, <22>, Counts
//! ```
//!
//! Failure policy: what left the store by the counts must be what the device says it paid and moved to
//! the cashbox; where it is not, the outcome is `Unknowable`. So it is for a line that is lost, a
//! device that is silent for a minute, and another serial number in the middle of a movement. A note
//! that the device says it gave out at its start after a power loss may be with anybody: unknown.
//!
//! Source: ITL GA138 and GA973; see [`crate::frame::ssp`].

mod hear;
mod line;
mod moving;
mod outcome;
mod setup;
mod talk;

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;

use super::{EmptyOutcome, Emptying, RecyclerCommand, RecyclerEvent};
use crate::Authority;
use crate::acceptor::bill::{Coded, Known, Notes, Voice, Word};
use crate::acceptor::{AcceptorCommand, AcceptorEvent, DeviceFault, FaultKind, PowerUpBill};
use crate::dispenser::state::{Link, State};
use crate::dispenser::{BayState, DispensePlan, DispenserCommand, DispenserEvent, DispenserLimits};
use crate::engine::{Engine, LineSettings, Output, Parity};
use crate::frame::ssp::cipher::{Draw, FixedKey, Primes, SealError, Seed};
use crate::frame::ssp::{Money, Request, VALIDATOR, in_words};
use crate::trace::Direction;
use line::{Heard, Line};
use moving::{Moving, Stage};
use setup::{Setup, Step};

/// What one command can carry.
pub const LIMITS: DispenserLimits = DispenserLimits { notes_per_bay: 20, bays: 8 };
/// A plan waits for so long until the device is set up and without a note.
const REST_MS: u64 = 30_000;

/// The line at this rate.
#[must_use]
pub const fn line(baud: u32) -> LineSettings {
    LineSettings { baud, data_bits: 8, parity: Parity::None, stop_bits: 2 }
}

/// What must be known before the device is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Currency of the machine; notes of others are never taken.
    pub currency: Currency,
    /// Bits per second.
    pub baud: u32,
    /// Notes of a kind that the store keeps at most; the rest goes to the cashbox.
    pub notes_per_bay: u16,
    /// The key that the unit is set to.
    pub fixed_key: FixedKey,
    /// Generator and modulus of the key exchange.
    pub primes: Primes,
    /// What secrets come from.
    pub seed: Seed,
}

/// The engine of one validator with a SMART Payout.
pub struct SmartPayout<A: Authority> {
    settings: Settings,
    line: Line,
    out: Output<RecyclerEvent>,
    voice: Voice,
    notes: Notes,
    state: State,
    setup: Setup,
    /// Notes that are wanted; none closes the inlet.
    wanted: BTreeSet<Denomination>,
    told_open: Option<bool>,
    inlet: Inlet,
    next_poll: Mono,
    /// When the device last answered.
    heard: Mono,
    /// When a poll last told a fault.
    fault_at: Mono,
    cashbox_out: bool,
    reset_wanted: bool,
    /// Which note each bay stands for.
    bays: BTreeMap<BayId, Denomination>,
    set_up_wanted: bool,
    /// Notes of our currency in the store, by value.
    levels: Option<BTreeMap<u32, u16>>,
    recount: bool,
    asked: bool,
    /// The counts that were told last.
    told_counts: Option<BTreeMap<BayId, u32>>,
    work: Option<Work<A>>,
    waiting_plan: Option<(A::Committed<DispensePlan>, Mono)>,
    waiting_emptying: Option<(A::Committed<Emptying>, Mono)>,
    /// The payout's own trouble has been told.
    in_trouble: bool,
}

/// A note on its way in, beyond what [`Notes`] knows.
#[derive(Default)]
struct Inlet {
    escrow: Option<Escrow>,
    escrow_since: Mono,
    held_at: Mono,
    /// REJECT was not taken; it is not said again before.
    reject_at: Mono,
    /// The note in escrow is to go to the cashbox.
    away: Option<Denomination>,
    /// A credit was told that is not durable yet.
    credit_open: bool,
    /// The credit that was told last has been acknowledged to the device.
    credit_acked: bool,
    /// Events that the device repeats until they are acknowledged, as its last answer told them.
    pending: Vec<Vec<u8>>,
    ack_due: bool,
    /// The reason of a refusal is to be asked for.
    why_due: bool,
    /// The device has said where the note went.
    over: bool,
    /// When a poll last told of a note.
    busy_at: Mono,
    /// The last poll told of no note.
    calm: bool,
    /// Nobody could look for a while.
    out_of_sight: bool,
}

/// Whose the note in escrow is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Escrow {
    /// [`Notes`] knows it.
    Ours,
    /// It goes back, whatever it is.
    Refused,
}

/// Notes on their way out.
struct Work<A: Authority> {
    what: What<A>,
    moving: Moving,
}

enum What<A: Authority> {
    /// The proof; it authorises this one payout.
    Pay(A::Committed<DispensePlan>),
    /// Likewise this one emptying.
    Empty(A::Committed<Emptying>),
    /// A movement that nobody here has begun, or whose outcome was told.
    Follow,
}

impl<A: Authority> SmartPayout<A> {
    /// An engine that knows nothing of the device yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let line = Line::new(Draw::new(&settings.seed));
        Self {
            settings,
            line,
            out: Output::default(),
            voice: Voice::default(),
            notes: Notes::default(),
            state: State::new(LIMITS),
            setup: Setup::default(),
            wanted: BTreeSet::new(),
            told_open: None,
            inlet: Inlet::default(),
            next_poll: Mono(0),
            heard: Mono(0),
            fault_at: Mono(0),
            cashbox_out: false,
            reset_wanted: false,
            bays: BTreeMap::new(),
            set_up_wanted: false,
            levels: None,
            recount: true,
            asked: false,
            told_counts: None,
            work: None,
            waiting_plan: None,
            waiting_emptying: None,
            in_trouble: false,
        }
    }

    fn country(&self) -> [u8; 3] {
        self.money(0).country
    }

    /// So many minor units of our currency.
    fn money(&self, value: u32) -> Money {
        let mut country = [0; 3];
        for (to, from) in country.iter_mut().zip(self.settings.currency.code().bytes()) {
            *to = from;
        }
        Money { value, country }
    }

    fn with_notes<T>(&mut self, act: impl FnOnce(&mut Notes, &Known<'_>, &mut Voice) -> T) -> T {
        let mut notes = std::mem::take(&mut self.notes);
        let mut voice = std::mem::take(&mut self.voice);
        let known = Known {
            currency: self.settings.currency,
            wanted: &self.wanted,
            table: self.setup.table(),
        };
        let done = act(&mut notes, &known, &mut voice);
        (self.notes, self.voice) = (notes, voice);
        done
    }

    fn on_accept(&mut self, command: AcceptorCommand<A>, now: Mono) {
        match command {
            // these two hold until the device can be told
            AcceptorCommand::Accept(notes) => {
                self.wanted = notes;
                self.told_open = None;
            }
            AcceptorCommand::AcknowledgeCredit => {
                self.notes.credit_is_durable();
                self.inlet.credit_open = false;
            }
            _ if self.state.link != Link::Up => self.voice.say_fault_again(),
            AcceptorCommand::Stack(bill) if self.inlet.escrow == Some(Escrow::Ours) => {
                self.inlet.away = None;
                self.notes.stack(*bill.as_ref());
            }
            // its note is not in escrow any more
            AcceptorCommand::Stack(_) => {}
            AcceptorCommand::Return => self.notes.give_back_if_undecided(),
            AcceptorCommand::Hold => self.notes.hold(now),
            AcceptorCommand::Reset => self.reset_wanted = true,
        }
    }

    fn plan(&mut self, plan: A::Committed<DispensePlan>, now: Mono) {
        match self.state.refusal_so_far(plan.as_ref(), self.is_busy()) {
            Some(DeviceFault { kind, detail }) => self.state.not_started(kind, detail),
            None => self.waiting_plan = Some((plan, now.after(REST_MS))),
        }
    }

    fn empty(&mut self, wish: A::Committed<Emptying>, now: Mono) {
        let bay = wish.as_ref().bay;
        let plan = DispensePlan { notes: BTreeMap::from([(bay, 1)]) };
        match self.state.refusal(&plan, self.is_busy()) {
            Some(fault) => self.tell_emptied(bay, EmptyOutcome::NotStarted(fault)),
            None => self.waiting_emptying = Some((wish, now.after(REST_MS))),
        }
    }

    fn is_busy(&self) -> bool {
        self.waiting_plan.is_some() || self.waiting_emptying.is_some() || self.work.is_some()
    }

    fn tell_emptied(&mut self, bay: BayId, outcome: EmptyOutcome) {
        self.out.events.push(RecyclerEvent::Emptied { bay, outcome });
    }

    fn set_bays(&mut self, bays: BTreeMap<BayId, Denomination>) {
        let kinds: BTreeSet<_> = bays.values().collect();
        let twice = (kinds.len() < bays.len())
            .then(|| "expected bays of different notes: the store counts by note".to_owned());
        if let Some(why) = self.state.unfit(bays.keys()).or(twice) {
            return self.state.fault(FaultKind::ServiceNeeded, why);
        }
        // a plan names bays as they were
        let why = "the bays were configured anew";
        if self.waiting_plan.take().is_some() {
            self.state.not_started(FaultKind::ServiceNeeded, why.to_owned());
        }
        if self.work.as_ref().is_some_and(|work| !work.moving.is_ordered()) {
            self.not_begun(FaultKind::ServiceNeeded, why);
        }
        self.bays = bays;
        self.unset();
        self.setup.ask_again();
        self.set_up_wanted = true;
        self.recount = true;
    }

    /// Begins what is due, says what is due, and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<RecyclerEvent> {
        let mut wake_at = None;
        if self.state.link == Link::Up {
            self.begin(now);
            let patience = [
                self.waiting_plan.as_ref().map(|(_, end)| *end),
                self.waiting_emptying.as_ref().map(|(_, end)| *end),
            ];
            let due = self.pump(now);
            wake_at = patience.into_iter().flatten().chain([due]).min();
        }
        let voice = std::mem::take(&mut self.voice.out);
        // what was told of the notes that come in goes before what came of it
        let mut events: Vec<_> = voice.events.into_iter().map(RecyclerEvent::In).collect();
        events.append(&mut self.out.events);
        let told = std::mem::take(&mut self.state.events);
        events.extend(told.into_iter().map(RecyclerEvent::Out));
        Output { write: std::mem::take(&mut self.out.write), events, wake_at }
    }
}

impl<A: Authority> Engine for SmartPayout<A> {
    type Command = RecyclerCommand<A>;
    type Event = RecyclerEvent;

    fn line(&self) -> LineSettings {
        line(self.settings.baud)
    }

    fn on_link_up(&mut self, now: Mono) -> Output<RecyclerEvent> {
        self.state.up(now);
        self.heard = now;
        self.synchronise(now);
        self.finish(now)
    }

    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<RecyclerEvent> {
        self.cut_off(why, now);
        self.state.down(why);
        self.line.clear();
        self.notes.found = false;
        self.told_open = None;
        self.voice.fail(FaultKind::LinkLost, why.to_owned());
        self.finish(now)
    }

    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Output<RecyclerEvent> {
        while let Some(heard) = self.line.hear(&mut bytes) {
            if self.state.link != Link::Up {
                continue;
            }
            match heard {
                Heard::Nothing => {}
                Heard::KeysLost => {
                    self.heard = now;
                    self.keys_fail(now);
                }
                Heard::Answer(said, answer) => {
                    self.heard = now;
                    self.on_answer(said, &answer.reply(), now);
                }
            }
        }
        self.finish(now)
    }

    fn on_tick(&mut self, now: Mono) -> Output<RecyclerEvent> {
        self.finish(now)
    }

    fn command(&mut self, command: RecyclerCommand<A>, now: Mono) -> Output<RecyclerEvent> {
        match command {
            RecyclerCommand::In(command) => self.on_accept(command, now),
            RecyclerCommand::StackAway(bill) => {
                let bill = *bill.as_ref();
                if self.inlet.escrow == Some(Escrow::Ours) {
                    self.inlet.away = Some(bill.denomination);
                    self.notes.stack(bill);
                }
            }
            RecyclerCommand::Out(DispenserCommand::Configure(bays)) => self.set_bays(bays),
            RecyclerCommand::Out(DispenserCommand::Dispense(plan)) => self.plan(plan, now),
            RecyclerCommand::Out(DispenserCommand::Refresh) if self.state.link != Link::Up => {
                self.state.fault(FaultKind::LinkLost, "the port is not open".to_owned());
            }
            RecyclerCommand::Out(DispenserCommand::Refresh) => {
                (self.asked, self.recount) = (true, true);
            }
            RecyclerCommand::Empty(wish) => self.empty(wish, now),
        }
        self.finish(now)
    }

    fn is_fault(event: &RecyclerEvent) -> bool {
        super::is_fault(event)
    }

    fn in_words(direction: Direction, bytes: &[u8]) -> String {
        in_words(direction, bytes)
    }
}

#[cfg(test)]
mod tests;
