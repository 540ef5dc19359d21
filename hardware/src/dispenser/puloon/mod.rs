//! Puloon LCDM-4000, LCDM-2000 and LCDM-1000 note dispensers.
//!
//! Promise: a plan is written to the device once, and only with its proof; its result is the
//! device's own count, bay by bay, or [`DispenseOutcome::Unknowable`](super::DispenseOutcome). After a
//! lost answer an LCDM-4000 is asked for its last result (55), which counts only if it differs from
//! the one that it gave before the command; the smaller models have no such command.
//!
//! States:
//! ```text
//! not set up --Configure--> Look --exit clear--> [Reset, Serial, Lengths (LCDM-4000)] -> Purge -> Confirm --> Ready
//!                             '--notes at exit: wait until they are gone, once a second--'
//! Ready --Dispense--> Look [-> Before: the last result (LCDM-4000)] --refused, silent--> NotStarted
//!                       '--ok--> Command --answer that adds up--> Final
//!   Command --another answer--> read again --the same, or none--> Final, or below
//!   Command --NAK--> Refused: is it idle, nothing done? --yes--> Command, 3 times, then NotStarted
//!                                                        '--not sure--> Unknowable
//!   Command --no answer, or one that does not add up--> Ask (LCDM-4000): the last result
//!                                  |--another than Before, adds up--> Final
//!                                  '--the same, none--> Unknowable
//!   Command --the same, smaller models--> LastLook (status) --> Unknowable
//! after notes went out: status once a second until the exit sensor is clear --> Taken
//! else: status every 10 s; no answer --> Fault(Silent), not set up; an answer again --> Recovered
//! ```
//! The status before each command replaces an answer that the device may still be repeating.
//! A unit whose notes fall into an open tray sees nothing at its exit: there `Taken` means that they
//! are out of its reach.
//!
//! Failure policy: up to the moment in which the first byte of the dispense's frame is written
//! nothing can have moved: `NotStarted`. A `NAK` is one byte, and may be a damaged `ACK`: the frame is
//! written again only when the device shows that it has not taken it. A BCC cannot tell every two
//! wrong bytes: an answer that is not plain success is read once more (`NAK`), and one whose counts
//! contradict its error code or its request is not believed unless the last result says the same. Where the device says that it has miscounted, nobody
//! knows: `Unknowable`. Rejects are counted in events of one or more notes each, so `picked` is told
//! only where there was none. After any fault the next `Configure` purges the path to the reject
//! tray. A code in no public list is [`FaultKind::ServiceNeeded`].
//!
//! Sources: see [`crate::frame::puloon`].

mod dispense;
mod line;
mod model;
mod set_up;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;

use self::line::{Line, LineEvent, Nature, describe};
use self::model::{Answer, Counted};
pub use self::model::{DispenseForm, Model, Settings};
use super::state::{Link, SLOTS, State, is_fault};
use super::{DeviceFault, DispensePlan, DispenserCommand, DispenserEvent, FaultKind};
use crate::Authority;
use crate::engine::{Engine, LineSettings, Output};
use crate::frame::hex;
use crate::frame::puloon::{Decoder, ErrorCode, Frame, Nature as Meaning, Side};
use crate::trace::Direction;

/// The engine of one LCDM.
pub struct Puloon<A: Authority> {
    settings: Settings,
    line: Line,
    state: State,
    job: Job<A>,
    next: Option<Next>,
    waiting_plan: Option<A::Committed<DispensePlan>>,
    refresh: bool,
    /// The serial number of the last dispense.
    serial: u8,
}

/// A set-up that waits for its turn.
struct Next {
    bays: BTreeSet<BayId>,
    /// Lengths of the notes in the device's units, 0 for none.
    lengths: [u8; SLOTS],
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
    WaitForExit {
        looking: bool,
    },
    Reset,
    /// Between the first reply to a reset and the second, or the end of the wait for it.
    Restart,
    Serial,
    Lengths,
    Purge,
    Confirm,
}

enum DispenseStep {
    Look,
    Before,
    /// `first`: an answer that is read once more, since it is not plain success.
    Command {
        tries: u8,
        before: Before,
        first: Option<Frame>,
    },
    Refused {
        tries: u8,
        before: Before,
    },
    /// `said`: an answer that came and does not add up.
    Ask {
        why: String,
        before: Before,
        said: Option<Counted>,
    },
    LastLook {
        why: String,
    },
}

/// The last result as it was before the command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The model has none, or it could not be read.
    Unread,
    /// The device has none.
    Nothing,
    Result(Counted),
}

impl<A: Authority> Puloon<A> {
    /// An engine with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            line: Line::new(settings.model.id()),
            state: State::new(settings.model.limits()),
            job: Job::None,
            next: None,
            waiting_plan: None,
            refresh: false,
            serial: 0,
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

    /// Whether the engine waits for a time of its own.
    fn polls(&self) -> bool {
        let idle = match &self.job {
            Job::None => true,
            Job::SetUp { step, .. } => {
                matches!(step, SetUpStep::WaitForExit { looking: false } | SetUpStep::Restart)
            }
            Job::Poll | Job::Dispense { .. } => false,
        };
        idle && self.state.link == Link::Up
    }

    fn begin(&mut self, now: Mono) {
        match &mut self.job {
            Job::SetUp { step: step @ SetUpStep::WaitForExit { looking: false }, .. } => {
                if self.next.is_none() && now < self.state.poll_at {
                    return;
                }
                *step = SetUpStep::WaitForExit { looking: true };
                return self.line.send(self.settings.status(), Nature::Query, now);
            }
            Job::SetUp { step: SetUpStep::Restart, .. } if now >= self.state.poll_at => {
                return self.restarted(now);
            }
            Job::SetUp { .. } | Job::Poll | Job::Dispense { .. } => return,
            Job::None => {}
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
        self.line.send(self.settings.status(), Nature::Query, now);
    }

    fn on_line_event(&mut self, event: LineEvent, now: Mono) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::None => {}
            Job::Poll => match event {
                LineEvent::Reply(frame) => {
                    let before = self.state.bays.clone();
                    self.on_status(Answer::read(&frame), now);
                    let asked = std::mem::take(&mut self.refresh);
                    self.state.polled(before.as_ref(), asked);
                }
                LineEvent::NotSent { why, .. } | LineEvent::Lost { why } => {
                    let asked = std::mem::take(&mut self.refresh);
                    self.no_answer(why, asked, now);
                }
                LineEvent::Stray(_) | LineEvent::Refused => self.job = Job::Poll,
            },
            Job::SetUp { next, step } => self.on_set_up(next, step, event, now),
            Job::Dispense { plan, step } => self.on_dispense(plan, step, event, now),
        }
    }

    /// What an answer says of the state; its error code, if it is a status.
    fn on_status(&mut self, answer: Answer, now: Mono) -> Option<ErrorCode> {
        match answer {
            Answer::Status { error, at_exit, present } => {
                self.state.status(Some(at_exit), Some(present), now);
                Some(error)
            }
            _ => {
                self.state.status(None, None, now);
                None
            }
        }
    }

    fn no_answer(&mut self, why: String, asked: bool, now: Mono) {
        let waiting = self.waiting_plan.take().is_some();
        self.state.no_answer(why, asked, waiting, now);
    }
}

impl<A: Authority> Engine for Puloon<A> {
    type Command = DispenserCommand<A>;
    type Event = DispenserEvent;

    fn line(&self) -> LineSettings {
        self.settings.line()
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
            Job::Dispense {
                step: DispenseStep::Ask { why: first, .. } | DispenseStep::LastLook { why: first },
                ..
            } => self.state.unknowable(format!("{first}; then the line was lost: {why}")),
            Job::Dispense { step: DispenseStep::Refused { .. }, .. } => {
                let text = format!("NAK (15) to the command, then the line was lost: {why}");
                self.state.unknowable(text);
            }
            Job::Dispense { step: DispenseStep::Command { .. }, .. } if exposed => {
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

    fn in_words(direction: Direction, bytes: &[u8]) -> String {
        let side = match direction {
            Direction::Sent => Side::Host,
            Direction::Received => Side::Device,
        };
        let mut decoder = Decoder::new(side);
        let mut rest = bytes;
        let tokens: Vec<_> = std::iter::from_fn(|| decoder.push(&mut rest)).collect();
        if tokens.is_empty() {
            return format!("part of a frame ({})", hex(bytes));
        }
        tokens.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}

fn fault_kind(error: ErrorCode) -> FaultKind {
    match error.nature() {
        Meaning::Pick(_) | Meaning::Cassette(_) => FaultKind::Cassette,
        Meaning::Jam => FaultKind::Jam,
        Meaning::Fine
        | Meaning::Refused
        | Meaning::Stopped
        | Meaning::Miscounted
        | Meaning::Unknown => FaultKind::ServiceNeeded,
    }
}

/// Whether the device cannot be used at all; a cassette that is missing or empty leaves the others.
fn is_down(error: ErrorCode) -> bool {
    !matches!(error.nature(), Meaning::Fine | Meaning::Pick(_) | Meaning::Cassette(_))
}
