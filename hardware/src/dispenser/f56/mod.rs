//! Fujitsu F53/F56 note dispenser (Sintra, Tejo, BATM3), 9600 8E1.
//!
//! Promise: a plan is written to the device at most once, and only with its proof; its result is
//! the device's own count, bay by bay, or [`DispenseOutcome::Unknowable`]. The device has no
//! command that repeats its last result, so a lost answer is never asked for again and the command
//! is never sent again.
//!
//! States:
//! ```text
//! not set up --Configure--> Look --exit clear--> Init --ok--> Confirm --> Ready
//!                             '--notes at exit: wait until taken, once a second--'
//! Ready --Dispense--> Look --refused, silent, notes at exit--> NotStarted
//!                       '--ok--> Command --never taken by the device--> NotStarted
//!                                   |--its answer, positive--> Final, Ready
//!                                   |--its answer, negative--> Final + fault, not set up
//!                                   '--no answer--> LastLook (exit sensor) --> Unknowable, not set up
//! notes at the exit: status once a second until they are gone --> Taken
//! else: status every 10 s; no answer --> Fault(Silent), not set up; an answer again --> Recovered
//! ```
//! The status before each command is what makes its answer unambiguous: the device has one answer
//! pending at most, so after a status none of an older dispense can come. Until `Unknowable` has
//! been said, an answer that comes late still counts.
//!
//! Failure policy: up to the moment in which the first byte of the count command's frame is
//! written, and when the device itself says NAK to it three times, nothing can have moved:
//! `NotStarted`. From then on, without an answer, nobody knows: `Unknowable`. After a negative
//! answer notes may lie in the path, counted nowhere; the next `Configure` purges them to the reject
//! bin, so `picked` is told only with a positive answer. An error code in no public list is
//! [`FaultKind::ServiceNeeded`] with its hex.
//!
//! Sources: see [`crate::frame::f56`]. Times: 5 s a step, 3 tries, 40 s for an answer, as field
//! units run; 10 s for the answer to a status.

mod dispense;
mod line;
mod set_up;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::Currency;
use bitspire_shared::time::Mono;

use self::line::{Line, LineEvent, Nature, describe};
use super::state::{Link, State, is_fault, slot};
use super::{
    DeviceFault, DispensePlan, DispenserCommand, DispenserEvent, DispenserLimits, FaultKind,
};
use crate::Authority;
use crate::engine::{Engine, LineSettings, Output, Parity};
use crate::frame::f56::{Decoder, ErrorReport, Reply, Request, Setup};
use crate::frame::hex;
use crate::trace::Direction;

/// What one command can carry: 20 notes a cassette, 4 cassettes. More goes out in batches
/// ([`crate::plan::batches`]), each a plan of its own with its own proof.
pub const LIMITS: DispenserLimits = DispenserLimits { notes_per_bay: 20, bays: 4 };

/// Operation code of an initialisation for polymer notes.
const POLYMER: u8 = 0x40;

/// The engine of one F53/F56.
pub struct F56<A: Authority> {
    currency: Currency,
    line: Line,
    state: State,
    job: Job<A>,
    next: Option<Next>,
    waiting_plan: Option<A::Committed<DispensePlan>>,
    refresh: bool,
}

/// A set-up that waits for its turn.
struct Next {
    bays: BTreeSet<BayId>,
    setup: Setup,
}

enum Job<A: Authority> {
    None,
    Poll,
    SetUp { next: Next, step: SetUpStep },
    Dispense { plan: A::Committed<DispensePlan>, step: DispenseStep },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetUpStep {
    Look,
    WaitForExit { looking: bool },
    Init,
    Confirm,
}

enum DispenseStep {
    Look,
    Command,
    LastLook { why: String },
}

impl<A: Authority> F56<A> {
    /// An engine for a machine that trades in `currency`.
    #[must_use]
    pub fn new(currency: Currency) -> Self {
        Self {
            currency,
            line: Line::new(),
            state: State::new(LIMITS),
            job: Job::None,
            next: None,
            waiting_plan: None,
            refresh: false,
        }
    }

    /// The line's events, then the next job, then what the outside must do.
    fn settle(&mut self, now: Mono) -> Output<DispenserEvent> {
        for event in self.line.take_events() {
            self.on_line_event(event, now);
        }
        if self.state.link == Link::Up {
            self.begin(now);
        }
        let poll = self.polls().then_some(self.state.poll_at);
        Output {
            write: self.line.take_write(),
            events: std::mem::take(&mut self.state.events),
            wake_at: [self.line.wake_at(), poll].into_iter().flatten().min(),
        }
    }

    /// Whether the engine waits for the time of its next status.
    fn polls(&self) -> bool {
        let waits = SetUpStep::WaitForExit { looking: false };
        let idle = match &self.job {
            Job::None => true,
            Job::SetUp { step, .. } => *step == waits,
            Job::Poll | Job::Dispense { .. } => false,
        };
        idle && self.state.link == Link::Up
    }

    fn begin(&mut self, now: Mono) {
        if let Job::SetUp { step: step @ SetUpStep::WaitForExit { looking: false }, .. } =
            &mut self.job
        {
            if self.next.is_none() && now < self.state.poll_at {
                return;
            }
            *step = SetUpStep::WaitForExit { looking: true };
            self.line.send(Request::Status, Nature::Query, now);
            return;
        }
        if !matches!(self.job, Job::None) {
            return;
        }
        self.job = if let Some(plan) = self.waiting_plan.take() {
            Job::Dispense { plan, step: DispenseStep::Look }
        } else if let Some(next) = self.next.take() {
            Job::SetUp { next, step: SetUpStep::Look }
        } else if self.refresh || now >= self.state.poll_at {
            Job::Poll
        } else {
            return;
        };
        self.line.send(Request::Status, Nature::Query, now);
    }

    fn on_line_event(&mut self, event: LineEvent, now: Mono) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::None => {}
            Job::Poll => match event {
                LineEvent::Reply(reply) => self.on_poll(&reply, now),
                LineEvent::NotSent { why, .. } | LineEvent::Lost { why } => {
                    let asked = std::mem::take(&mut self.refresh);
                    self.no_answer(why, asked, now);
                }
                LineEvent::Stray(_) => self.job = Job::Poll,
            },
            Job::SetUp { next, step } => self.on_set_up(next, step, event, now),
            Job::Dispense { plan, step } => self.on_dispense(plan, step, event, now),
        }
    }

    /// What every status reply says, whatever it was asked for.
    fn on_status(&mut self, reply: &Reply, now: Mono) {
        let present = reply.cassettes().map(|all| all.map(|magnets| magnets.is_some()));
        self.state.status(reply.notes_at_exit(), present, now);
    }

    fn on_poll(&mut self, reply: &Reply, now: Mono) {
        let before = self.state.bays.clone();
        self.on_status(reply, now);
        let asked = std::mem::take(&mut self.refresh);
        self.state.polled(before.as_ref(), asked);
    }

    fn no_answer(&mut self, why: String, asked: bool, now: Mono) {
        let waiting = self.waiting_plan.take().is_some();
        self.state.no_answer(why, asked, waiting, now);
    }
}

impl<A: Authority> Engine for F56<A> {
    type Command = DispenserCommand<A>;
    type Event = DispenserEvent;

    fn line(&self) -> LineSettings {
        LineSettings { baud: 9_600, data_bits: 8, parity: Parity::Even, stop_bits: 1 }
    }

    fn on_link_up(&mut self, now: Mono) -> Output<DispenserEvent> {
        self.line.reset();
        self.state.up(now);
        self.settle(now)
    }

    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<DispenserEvent> {
        let exposed = self.line.exposed();
        let heard = self.line.heard().to_owned();
        match std::mem::replace(&mut self.job, Job::None) {
            Job::Dispense { step: DispenseStep::LastLook { why: first }, .. } => {
                self.state.unknowable(format!("{first}; then the line was lost: {why}"));
            }
            Job::Dispense { step: DispenseStep::Command, .. } if exposed => {
                let text =
                    format!("the line was lost after the command: {why}; last heard: {heard}");
                self.state.unknowable(text);
            }
            Job::Dispense { .. } => self.state.not_started(FaultKind::LinkLost, why.to_owned()),
            Job::None | Job::Poll | Job::SetUp { .. } => {}
        }
        if self.waiting_plan.take().is_some() {
            self.state.not_started(FaultKind::LinkLost, why.to_owned());
        }
        self.line.reset();
        self.next = None;
        self.refresh = false;
        self.state.down(why);
        self.settle(now)
    }

    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Output<DispenserEvent> {
        self.line.on_bytes(bytes, now);
        self.settle(now)
    }

    fn on_tick(&mut self, now: Mono) -> Output<DispenserEvent> {
        self.line.on_tick(now);
        self.settle(now)
    }

    fn command(&mut self, command: DispenserCommand<A>, now: Mono) -> Output<DispenserEvent> {
        match command {
            DispenserCommand::Dispense(plan) => {
                let busy = matches!(self.job, Job::Dispense { .. }) || self.waiting_plan.is_some();
                match self.state.refusal(plan.as_ref(), busy) {
                    Some(DeviceFault { kind, detail }) => self.state.not_started(kind, detail),
                    None => self.waiting_plan = Some(plan),
                }
            }
            DispenserCommand::Configure(_) | DispenserCommand::Refresh
                if self.state.link != Link::Up =>
            {
                self.state.fault(FaultKind::LinkLost, "the port is not open".to_owned());
            }
            DispenserCommand::Configure(bays) => self.configure(&bays),
            DispenserCommand::Refresh => self.refresh = true,
        }
        self.settle(now)
    }

    fn is_fault(event: &DispenserEvent) -> bool {
        is_fault(event)
    }

    fn in_words(_: Direction, bytes: &[u8]) -> String {
        let (mut decoder, mut rest) = (Decoder::default(), bytes);
        let tokens: Vec<_> = std::iter::from_fn(|| decoder.push(&mut rest)).collect();
        if tokens.is_empty() {
            return format!("part of a frame ({})", hex(bytes));
        }
        tokens.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}

fn fault_kind(error: &ErrorReport) -> FaultKind {
    if error.empty_cassette().is_some() { FaultKind::Cassette } else { FaultKind::ServiceNeeded }
}
