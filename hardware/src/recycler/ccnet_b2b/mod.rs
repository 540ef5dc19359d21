//! CashCode Bill-to-Bill units (CCNET, address 01): recycling cassettes that keep notes and give
//! them out.
//!
//! Promise: the validator in it is driven by the CCNET engine, with all that this promises. Notes go
//! out, or from a cassette to the drop cassette, only on a proof, once, and only while the inlet is
//! closed and no note is in the device. Before and after each movement the cassettes are counted
//! (3B): what a customer took is what has left the cassettes, if the unit has said DISPENSED and
//! nothing else is odd. A cassette that holds notes never gets another type: the unit would move
//! them to the drop cassette, and nobody has allowed that.
//!
//! ```text
//!   validator: 10 / 11 / 12 --<RESET>--> 13 INITIALIZE -> 19 DISABLED
//!                                                            |
//!    recovery: <66> -> 00, twice ------------------------> validator: <34 ENABLE> 14 ...
//!                   -> 17 type, cassette ... : Credit each; once all are durable <66> <ACK> --^
//!                   -> 3C words: <ACK> <67 EMPTY DISPENSER> -> 1D ... 25 <ACK> -> <66> ...    ^
//!                   -> 3D cassette, n: <ACK>, they lie in the drop cassette -> <66> ...       ^
//!
//!           validator at rest, no note, inlet closed for it: 19 DISABLED
//!    set-up:   <3B> -> <40 cassette type> -> 21 -> 29 <ACK> -> <3B> ... -> Ready, Counts
//!    payout:   <3B> -> <3C type n ...> -> 00 -> 1D 00 -> 1D 01 -> 25 DISPENSED <ACK> -> 19 -> <3B>
//!                                          |      |       | nobody takes them for 2 min:
//!                                          |      |       +-> <3B>: presented, Taken with the 25
//!                                          |      +-> 43, 44, 47, 48, power: unknown, but where
//!                                          |          nothing has left a cassette
//!                                          +-> 28 INVALID BILL NUMBER <ACK>, 30: not begun
//!    emptying: <3B> -> <3D cassette n> -> 00 -> 1E -> 26 n UNLOADED <ACK> -> 19 -> <3B>
//!    away:     the note that went in by StackAway and into a cassette: <3D cassette 1>, likewise
//!    1D, 1E, 25, 26 met (the host died): followed to its end -> Followed, <3B>, Counts
//! ```
//!
//! STACK lets the unit choose where a note goes, so a note that is to go to the drop cassette is
//! unloaded from its cassette after it: the proof that let it in is kept until then. DISPENSE names
//! notes, not cassettes: two cassettes for one note are refused, and a cassette that nobody
//! configured keeps none.
//!
//! A lost answer to DISPENSE needs no memory: the state is asked for, and where the unit still rests
//! with the counts of before, nothing has moved. It is never said twice. An order that was
//! acknowledged is carried out or unknown, however long the unit seems to rest. An answer that comes
//! late is not confirmed, and one that tells the end of a movement counts all the same: our ACK for
//! the one before it may have been taken for its own.
//!
//! Failure policy: notes that left a cassette without DISPENSED make the outcome `Unknowable`; so
//! does power, line or voice of the unit lost while notes go out. Before the order, the same is
//! `NotStarted`. A payout that ends short is final, with its fault. An answer to POWER RECOVERY that
//! we do not understand keeps the inlet closed: ENABLE would make the unit forget it.
//!
//! Source: CashCode CCNET protocol, common specifications 2.6.0, Bill-to-Bill unit.

mod moving;
mod outcome;
mod recovery;
mod set_up;
mod talk;

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;

use super::orders::{Orders, emptied};
use super::{EmptyOutcome, Emptying, RecyclerCommand, RecyclerEvent};
use crate::Authority;
use crate::acceptor::ccnet::{Ccnet, Settings};
use crate::acceptor::{AcceptorCommand, AcceptorEvent, DeviceFault, EscrowedBill, FaultKind};
use crate::dispenser::state::{Link, State};
use crate::dispenser::{BayState, DispensePlan, DispenserCommand, DispenserEvent, DispenserLimits};
use crate::engine::{Engine, LineSettings, Output};
use crate::frame::ccnet::unit::{CASSETTES, Cassette, Cassettes, MOST_NOTES};
use crate::frame::ccnet::{Decoder, Frame, in_words};
use crate::trace::Direction;
use moving::{Moving, Stage};
use recovery::Recovering;
use set_up::Typing;

/// What one plan can carry; what one DISPENSE cannot goes out by several, one after the other.
pub const LIMITS: DispenserLimits = DispenserLimits { notes_per_bay: MOST_NOTES, bays: CASSETTES };

/// The cassettes by their numbers.
type Held = BTreeMap<u8, Cassette>;

/// The engine of one unit.
pub struct CcnetB2b<A: Authority> {
    validator: Ccnet<A>,
    /// For answers while the line is ours.
    decoder: Decoder,
    out: Output<RecyclerEvent>,
    /// When the validator wants to be woken.
    validator_wake: Option<Mono>,
    state: State,
    work: Work<A>,
    /// What the line waits for, while it is ours.
    waiting: Option<(Said, Mono)>,
    next_poll: Mono,
    /// Before then the line is the device's.
    free_at: Mono,
    /// When the device last answered us.
    heard: Mono,
    /// Which note each cassette keeps.
    boxes: BTreeMap<BayId, Denomination>,
    set_up_wanted: bool,
    /// Times that the device has refused or not answered a set-up or a question, in a row.
    refused: u8,
    /// That has been told.
    complained: bool,
    /// The device is not asked again before.
    again_at: Mono,
    recount: bool,
    /// Somebody asked for the state.
    asked: bool,
    orders: Orders<A>,
    /// A note that is to go on to the drop cassette, with its proof.
    away: Option<Away<A>>,
    /// Credits of the unit's answer to POWER RECOVERY that are durable; an answer that is cut off is
    /// said again.
    found: usize,
    /// The cassettes as they were told last.
    held: Option<Held>,
    /// The unit's own trouble has been told.
    in_trouble: bool,
}

/// A note on its way in that is not to stay in a cassette.
struct Away<A: Authority> {
    /// Authorises the note's way to the drop cassette, in as many movements as it takes.
    proof: A::Committed<EscrowedBill>,
    /// The cassette that it went to; 0 while it is not there yet.
    cassette: u8,
}

/// What has the line.
enum Work<A: Authority> {
    /// The validator has it.
    None,
    Recover(Recovering),
    SetUp(Typing),
    Count,
    Pay(Payment<A>),
    Empty(Unloading<A>),
    /// A movement that nobody here has begun, or trouble after one.
    Follow(Moving),
}

/// A plan on its way.
struct Payment<A: Authority> {
    /// The proof; it authorises this one payout.
    plan: A::Committed<DispensePlan>,
    /// Bays that are done.
    done: BayResults,
    /// Bays whose notes go out now.
    part: BTreeMap<BayId, u32>,
    moving: Moving,
}

/// Notes on their way to the drop cassette.
struct Unloading<A: Authority> {
    proof: UnloadProof<A>,
    cassette: u8,
    notes: u8,
    moving: Moving,
}

/// What allows it.
enum UnloadProof<A: Authority> {
    /// All notes of a bay.
    Wish(A::Committed<Emptying>),
    /// One note that has just come in.
    Away(A::Committed<EscrowedBill>),
}

/// What we say while the line is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Poll,
    Reset,
    Cassettes,
    Recovery,
    EmptyDispenser,
    SetType {
        cassette: u8,
        kind: u8,
    },
    /// DISPENSE or UNLOAD, by what is under way.
    Order,
}

impl<A: Authority> CcnetB2b<A> {
    /// An engine that knows nothing of the device yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            validator: Ccnet::in_unit(settings),
            decoder: Decoder::default(),
            out: Output::default(),
            validator_wake: None,
            state: State::new(LIMITS),
            work: Work::None,
            waiting: None,
            next_poll: Mono(0),
            free_at: Mono(0),
            heard: Mono(0),
            boxes: BTreeMap::new(),
            set_up_wanted: false,
            refused: 0,
            complained: false,
            again_at: Mono(0),
            recount: true,
            asked: false,
            orders: Orders::new(),
            away: None,
            found: 0,
            held: None,
            in_trouble: false,
        }
    }

    /// What the validator wrote and told.
    fn absorb(&mut self, out: Output<AcceptorEvent>) {
        let Output { write, events, wake_at } = out;
        self.out.write.extend(write);
        self.validator_wake = wake_at;
        for event in events {
            match event {
                AcceptorEvent::PoweredUp(_) => {
                    self.recount = true;
                    self.set_up_wanted = !self.boxes.is_empty();
                    self.again_at = Mono(0);
                    if self.set_up_wanted {
                        self.state.unset();
                    }
                    if std::mem::take(&mut self.in_trouble) {
                        self.state.events.push(DispenserEvent::Recovered);
                    }
                }
                AcceptorEvent::Credit { .. } => {
                    self.recount = true;
                    let to = self.validator.packed_to();
                    // one that lies in its cassette waits there, whatever comes in after it
                    if let Some(away) = self.away.take_if(|away| away.cassette == 0)
                        && to > 0
                    {
                        self.away = Some(Away { cassette: to, ..away });
                    }
                }
                // it did not come in
                AcceptorEvent::Returned | AcceptorEvent::Escrowed(_) => {
                    self.away = self.away.take().filter(|away| away.cassette > 0);
                }
                AcceptorEvent::Stacked => self.recount = true,
                _ => {}
            }
            self.out.events.push(RecyclerEvent::In(event));
        }
    }

    fn set_bays(&mut self, boxes: BTreeMap<BayId, Denomination>, now: Mono) {
        if let Some(why) = self.state.unfit(boxes.keys()).or_else(|| twice(&boxes)) {
            return self.state.fault(FaultKind::ServiceNeeded, why);
        }
        // a plan that was made for other bays would pay other notes
        let why = "the bays were configured anew before it began";
        let cancelled = self.orders.cancel(FaultKind::ServiceNeeded, why, &mut self.state);
        self.out.events.extend(cancelled);
        if let Some(moving) = self.moving()
            && matches!(moving.stage, Stage::Before | Stage::Order)
        {
            self.not_begun(FaultKind::ServiceNeeded, why, now);
        }
        self.boxes = boxes;
        self.state.unset();
        (self.complained, self.again_at) = (false, Mono(0));
        self.set_up_wanted = true;
    }

    /// A note lies in a cassette and is to go on.
    fn awaits_way(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.cassette > 0)
    }

    const fn is_busy(&self) -> bool {
        matches!(self.work, Work::Pay(_) | Work::Empty(_) | Work::Follow(_) | Work::Recover(_))
    }

    /// Begins what is due, says what is due, and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<RecyclerEvent> {
        if self.state.link == Link::Up {
            self.credit_next(now);
            self.begin(now);
        }
        let ours = !matches!(self.work, Work::None) && self.state.link == Link::Up;
        let work = ours.then(|| self.pump(now));
        let events = std::mem::take(&mut self.state.events);
        self.out.events.extend(events.into_iter().map(RecyclerEvent::Out));
        let wakes = [if ours { work } else { self.validator_wake }, self.orders.patience()];
        self.out.wake_at = wakes.into_iter().flatten().min();
        std::mem::take(&mut self.out)
    }

    /// Takes the line from the validator, once it rests, for what is to be done.
    fn begin(&mut self, now: Mono) {
        let given_up = self.orders.give_up(&mut self.state, now);
        self.out.events.extend(given_up);
        if !matches!(self.work, Work::None) {
            return;
        }
        let set_up = self.set_up_wanted && self.again_at <= now;
        let away = self.awaits_way();
        let out = self.validator.shut(set_up || away || self.orders.any(), now);
        self.absorb(out);
        if self.validator.awaits_recovery(now) {
            if self.again_at <= now {
                self.work = Work::Recover(Recovering::new());
                self.take_line(now);
            }
            return;
        }
        let Some(open) = self.validator.at_rest() else { return };
        self.work = if open {
            if !(self.recount || self.asked) || self.again_at > now {
                return;
            }
            Work::Count
        } else if let Some(Away { proof, cassette }) = self.away.take_if(|a| a.cassette > 0) {
            let proof = UnloadProof::Away(proof);
            Work::Empty(Unloading { proof, cassette, notes: 1, moving: Moving::new(now) })
        } else if set_up {
            Work::SetUp(Typing::new())
        } else if let Some(plan) = self.orders.take_plan(&mut self.state) {
            return self.begin_payout(plan, now);
        } else if let Some(wish) = self.orders.take_emptying() {
            let cassette = wish.as_ref().bay.get();
            let proof = UnloadProof::Wish(wish);
            Work::Empty(Unloading { proof, cassette, notes: 0, moving: Moving::new(now) })
        } else if (self.recount || self.asked) && self.again_at <= now {
            Work::Count
        } else {
            return;
        };
        self.take_line(now);
    }

    fn take_line(&mut self, now: Mono) {
        self.validator.lend();
        self.decoder.clear();
        self.waiting = None;
        (self.next_poll, self.heard) = (now, now);
        self.leave_free(now);
    }

    fn end_work(&mut self, now: Mono) {
        self.work = Work::None;
        self.waiting = None;
        let out = self.validator.take_back(now);
        self.absorb(out);
    }
}

impl<A: Authority> Engine for CcnetB2b<A> {
    type Command = RecyclerCommand<A>;
    type Event = RecyclerEvent;

    fn line(&self) -> LineSettings {
        self.validator.line()
    }

    fn on_link_up(&mut self, now: Mono) -> Output<RecyclerEvent> {
        self.state.up(now);
        self.recount = true;
        let out = self.validator.on_link_up(now);
        self.absorb(out);
        self.finish(now)
    }

    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<RecyclerEvent> {
        self.cut_off(why, now);
        self.state.down(why);
        self.decoder.clear();
        let back = self.validator.take_back(now);
        self.absorb(Output { write: Vec::new(), ..back });
        let out = self.validator.on_link_down(why, now);
        self.absorb(out);
        self.finish(now)
    }

    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Output<RecyclerEvent> {
        if self.state.link != Link::Up {
            return self.finish(now);
        }
        if matches!(self.work, Work::None) {
            let out = self.validator.on_bytes(bytes, now);
            self.absorb(out);
            if let Some(frame) = self.validator.take_met() {
                // it was met on its way
                self.take_line(now);
                self.work = Work::Follow(Moving::met(now));
                self.waiting = Some((Said::Poll, now));
                self.on_answer(&frame, now);
            }
        } else {
            while let Some(frame) = self.decoder.push(&mut bytes) {
                self.on_answer(&frame, now);
            }
        }
        self.finish(now)
    }

    fn on_tick(&mut self, now: Mono) -> Output<RecyclerEvent> {
        if matches!(self.work, Work::None) {
            let out = self.validator.on_tick(now);
            self.absorb(out);
        }
        self.finish(now)
    }

    fn command(&mut self, command: RecyclerCommand<A>, now: Mono) -> Output<RecyclerEvent> {
        match command {
            RecyclerCommand::In(command) => {
                let out = self.validator.command(command, now);
                self.absorb(out);
            }
            // one proof is kept: the note after it goes back
            RecyclerCommand::StackAway(_) if self.awaits_way() => {
                let out = self.validator.command(AcceptorCommand::Return, now);
                self.absorb(out);
            }
            RecyclerCommand::StackAway(proof) => {
                if self.validator.stack(*proof.as_ref()) {
                    self.away = Some(Away { proof, cassette: 0 });
                    if matches!(self.work, Work::None) {
                        let out = self.validator.on_tick(now);
                        self.absorb(out);
                    }
                }
            }
            RecyclerCommand::Out(DispenserCommand::Configure(boxes)) => self.set_bays(boxes, now),
            RecyclerCommand::Out(DispenserCommand::Dispense(plan)) => {
                let busy = self.is_busy();
                self.orders.plan(plan, &mut self.state, busy, now);
            }
            RecyclerCommand::Out(DispenserCommand::Refresh) if self.state.link != Link::Up => {
                self.state.fault(FaultKind::LinkLost, "the port is not open".to_owned());
            }
            RecyclerCommand::Out(DispenserCommand::Refresh) => self.asked = true,
            RecyclerCommand::Empty(wish) => {
                let refused = self.orders.empty(wish, &self.state, self.is_busy(), now);
                self.out.events.extend(refused);
            }
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

/// Two cassettes for one note, in words.
fn twice(boxes: &BTreeMap<BayId, Denomination>) -> Option<String> {
    let mut seen = BTreeMap::new();
    boxes.iter().find_map(|(bay, note)| {
        let other: BayId = seen.insert(*note, *bay)?;
        Some(format!(
            "expected one cassette for each note, got {other} and {bay} for notes of {} minor units: \
             the unit pays out by note, and chooses the cassette itself",
            note.minor()
        ))
    })
}

#[cfg(test)]
mod tests;
