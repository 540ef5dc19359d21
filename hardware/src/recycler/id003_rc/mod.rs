//! JCM ID-003 recyclers (iPRO-RC, UBA-RC, Vega-RC): two boxes that keep notes and give them out.
//!
//! Promise: the validator in it is driven by the ID-003 engine, with all that this promises. Notes go
//! out, or from a box to the cashbox, only on a proof, once, and only while the inlet is closed and
//! no note is in the device. Before and after each movement the device's counts are read (A2); what
//! a customer took is what the device said (PAY VALID) and what the counts bear out.
//!
//! ```text
//!           validator at rest, no note, inlet closed for it (C3 01)
//!                         1A DISABLE
//!    set-up:   <D0 currencies> <D2 limits> <A2 counts>  -> Ready, Counts
//!    payout:   <A2> -> <4A n box> -> 50 -> 20 PAYING -> 24 PAY STAY -> 23 PAY VALID <ACK>
//!                                           ^   nobody takes it: |         | next note
//!                                           |   60 s <4D>        v         v
//!                                           +--------- 26, 25, 2F <ACK> -> 20 ... 1A -> <A2>
//!    emptying: <A2> -> <4B 00 box> -> 50 -> 21 COLLECTING -> 22 COLLECTED -> 1A -> <A2>
//!    4C RECYCLER ERROR: <1A> says which; the payout has ended there -> <A2>; Fault, until it is over
//!    a payout met running (the host died): followed to its end, every 23 acknowledged -> Followed,
//!       <A2>, Counts; a state of the validator's own ends that: the line is the validator's again
//! ```
//!
//! A lost answer to PAY OUT needs no memory: the state is asked for, and where the device still rests
//! with the counts of before, nothing has moved. It is never said twice. An order that was
//! acknowledged is carried out or unknown, however long the device seems to rest.
//!
//! Failure policy: notes that left a box and were neither taken nor put back by the device's word
//! (26 after our 4D) make the outcome `Unknowable`; so does a line that is lost, or a device that is
//! silent for a minute, while notes go out. Before the order, the same is `NotStarted`. A payout that
//! ends short is final, with its fault.
//!
//! Source: the recycler extension of JCM ID-003, see [`crate::frame::id003::recycler`].

mod moving;
mod outcome;
mod talk;

use std::collections::BTreeMap;

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;

use super::orders::{Orders, emptied, nothing};
use super::{EmptyOutcome, Emptying, RecyclerCommand, RecyclerEvent};
use crate::Authority;
use crate::acceptor::id003::{Id003, Settings as Validator};
use crate::acceptor::{AcceptorEvent, DeviceFault, FaultKind};
use crate::dispenser::state::{Link, State};
use crate::dispenser::{BayState, DispensePlan, DispenserCommand, DispenserEvent, DispenserLimits};
use crate::engine::{Engine, LineSettings, Output};
use crate::frame::id003::recycler::{BOXES, COUNTS, Extension, PayState};
use crate::frame::id003::{Decoder, Frame, Reply, Request, Status, in_words};
use crate::trace::Direction;
use moving::Moving;

/// What one command can carry.
pub const LIMITS: DispenserLimits = DispenserLimits { notes_per_bay: 20, bays: 2 };

/// What must be known before the device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// As for every ID-003 device.
    pub validator: Validator,
    /// Notes that a box keeps at most; the rest goes to the cashbox.
    pub notes_per_box: u16,
}

/// The engine of one recycler.
pub struct Id003Rc<A: Authority> {
    settings: Settings,
    validator: Id003<A>,
    decoder: Decoder,
    out: Output<RecyclerEvent>,
    /// When the validator wants to be woken.
    validator_wake: Option<Mono>,
    state: State,
    work: Work<A>,
    /// What the line waits for, while it is ours.
    waiting: Option<(Said, Mono)>,
    next_poll: Mono,
    /// When the device last answered us.
    heard: Mono,
    /// Which note each box keeps.
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
    /// The counts that were told last.
    counts: Option<[u16; BOXES]>,
    /// The recycler's own trouble has been told.
    in_trouble: bool,
}

/// What has the line.
enum Work<A: Authority> {
    /// The validator has it.
    None,
    SetUp {
        step: usize,
    },
    Count,
    Pay(Payment<A>),
    Empty(A::Committed<Emptying>, Moving),
    /// A movement that nobody here has begun, or trouble after one.
    Follow(Moving),
}

/// A plan on its way.
struct Payment<A: Authority> {
    /// The proof; it authorises this one payout.
    plan: A::Committed<DispensePlan>,
    /// Boxes that are done.
    done: BayResults,
    /// The box that notes come from now.
    bay: BayId,
    notes: u8,
    moving: Moving,
}

/// What we say while the line is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Status,
    Ack,
    Reset,
    Extension(Extension<'static>),
}

impl<A: Authority> Id003Rc<A> {
    /// An engine that knows nothing of the device yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            validator: Id003::new(settings.validator),
            decoder: Decoder::default(),
            out: Output::default(),
            validator_wake: None,
            state: State::new(LIMITS),
            work: Work::None,
            waiting: None,
            next_poll: Mono(0),
            heard: Mono(0),
            boxes: BTreeMap::new(),
            set_up_wanted: false,
            refused: 0,
            complained: false,
            again_at: Mono(0),
            recount: true,
            asked: false,
            orders: Orders::new(),
            counts: None,
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
                AcceptorEvent::Credit { .. } | AcceptorEvent::Stacked => self.recount = true,
                _ => {}
            }
            self.out.events.push(RecyclerEvent::In(event));
        }
    }

    fn set_bays(&mut self, boxes: BTreeMap<BayId, Denomination>) {
        if let Some(why) = self.state.unfit(boxes.keys()) {
            return self.state.fault(FaultKind::ServiceNeeded, why);
        }
        // a plan that was made for other bays would pay other notes
        let why = "the bays were configured anew before it began";
        let cancelled = self.orders.cancel(FaultKind::ServiceNeeded, why, &mut self.state);
        self.out.events.extend(cancelled);
        self.boxes = boxes;
        self.state.unset();
        (self.complained, self.again_at) = (false, Mono(0));
        self.set_up_wanted = true;
    }

    const fn is_busy(&self) -> bool {
        matches!(self.work, Work::Pay(_) | Work::Empty(..) | Work::Follow(_))
    }

    fn tell_emptied(&mut self, bay: BayId, outcome: EmptyOutcome) {
        self.out.events.push(emptied(bay, outcome));
    }

    /// Begins what is due, says what is due, and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<RecyclerEvent> {
        if self.state.link == Link::Up {
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
        let shut = set_up || self.orders.any();
        let out = self.validator.shut(shut, now);
        self.absorb(out);
        let Some(open) = self.validator.at_rest() else { return };
        self.work = if set_up && !open {
            Work::SetUp { step: 0 }
        } else if !open && let Some(plan) = self.orders.take_plan(&mut self.state) {
            return self.begin_payout(plan, now);
        } else if !open && let Some(wish) = self.orders.take_emptying() {
            Work::Empty(wish, Moving::new(now))
        } else if (self.recount || self.asked) && self.again_at <= now {
            Work::Count
        } else {
            return;
        };
        self.take_line(now);
    }

    fn take_line(&mut self, now: Mono) {
        self.validator.lend();
        self.waiting = None;
        (self.next_poll, self.heard) = (now, now);
    }

    fn end_work(&mut self, now: Mono) {
        self.work = Work::None;
        self.waiting = None;
        let out = self.validator.take_back(now);
        self.absorb(out);
    }
}

impl<A: Authority> Engine for Id003Rc<A> {
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
        while let Some(frame) = self.decoder.push(&mut bytes) {
            if self.state.link != Link::Up {
                continue;
            }
            if !matches!(self.work, Work::None) {
                self.on_answer(&frame, now);
            } else if self.validator.awaits_state() && PayState::parse(&frame).is_some() {
                // it was met on its way, or went into trouble by itself
                self.take_line(now);
                self.work = Work::Follow(Moving::met(now));
                self.waiting = Some((Said::Status, now));
                self.on_answer(&frame, now);
            } else if Extension::parse(&frame).is_none() {
                // the late answer to a question of ours is no state of the validator's
                let out = self.validator.on_frame(&frame, now);
                self.absorb(out);
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
            RecyclerCommand::StackAway(bill) => {
                let out = self.validator.stack_away(bill, now);
                self.absorb(out);
            }
            RecyclerCommand::Out(DispenserCommand::Configure(boxes)) => self.set_bays(boxes),
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

/// A box by its number in these tables.
fn at(bay: BayId) -> Option<usize> {
    usize::from(bay.get()).checked_sub(1).filter(|at| *at < BOXES)
}

#[cfg(test)]
mod tests;
