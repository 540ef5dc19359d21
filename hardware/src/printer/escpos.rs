//! The engine of an ESC/POS printer, on a serial line or a USB printer port.
//!
//! Promise: see [`crate::printer`]. A slip is sent after the printer has answered, just then, that
//! it can print; behind the slip stands a question whose answer comes when all of it was printed.
//!
//! States:
//! ```text
//! Unknown --all three status answers--> Ready <-> Trouble
//! Ready --Print--> status asked again --well--> Printing --fence answered--> Printed, Ready
//!                        |--trouble, silent--> NotPrinted      |--trouble, silent, link lost--> buffers cleared, NotPrinted
//! ```
//! Status is asked every 5 s, once a second while a slip is being printed.
//!
//! Failure policy: three questions without an answer are [`FaultKind::Silent`]; a byte that is no
//! status is passed over. What was sent to a printer that then fails is cleared out of its buffers
//! before it prints anything else, also when it comes back after its line was lost.
//!
//! Source: see [`crate::frame::escpos`].

use std::borrow::Cow;

use bitspire_shared::time::Mono;

use super::{DeviceFault, FaultKind, PrinterCommand, PrinterEvent, Slip};
use crate::engine::{Engine, LineSettings, Output, Parity};
use crate::frame::escpos::{Ask, CLEAR, FENCE, INITIALISE, Status, Trouble};
use crate::trace::Direction;

/// Longest wait for an answer to `DLE EOT`.
const ANSWER_MS: u64 = 1_000;
/// Between two looks at an idle printer.
const IDLE_MS: u64 = 5_000;
/// Between two looks while it prints.
const BUSY_MS: u64 = 1_000;
/// Longest time that a slip takes; a slow one of 300 mm takes 6 s.
const PRINT_MS: u64 = 30_000;
/// Questions without an answer until it counts as silent.
const SILENT: u8 = 3;

/// One ESC/POS printer.
#[derive(Debug)]
pub struct EscPos {
    baud: u32,
    up: bool,
    /// The question that waits for its answer, since when.
    asked: Option<(Ask, Mono)>,
    unanswered: u8,
    /// The answers of this round, in the order of [`Ask::ALL`].
    round: Vec<u8>,
    next_round: Mono,
    said: Said,
    job: Job,
    /// Something that was not printed may lie in its buffers.
    dirty: bool,
    out: Vec<u8>,
    events: Vec<PrinterEvent>,
}

/// What the agent was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Ready { paper_low: bool },
    Fault(DeviceFault),
}

#[derive(Debug)]
enum Job {
    None,
    /// Waits for a round of answers that begins after it came.
    Waiting {
        slip: Slip,
        /// Whether the round that is being asked did.
        fresh: bool,
    },
    Printing {
        until: Mono,
    },
}

impl EscPos {
    /// An engine for a printer at this speed, in bits a second (a USB port has none).
    #[must_use]
    pub const fn new(baud: u32) -> Self {
        Self {
            baud,
            up: false,
            asked: None,
            unanswered: 0,
            round: Vec::new(),
            next_round: Mono(0),
            said: Said::Nothing,
            job: Job::None,
            // whoever ran before may have left something in it
            dirty: true,
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    /// What is to be done, and when to look again.
    fn output(&mut self, now: Mono) -> Output<PrinterEvent> {
        if self.up {
            self.go_on(now);
        }
        let until = match self.job {
            Job::Printing { until } => Some(until),
            _ => None,
        };
        let answer = self.asked.map(|(_, since)| since.after(ANSWER_MS));
        let look = answer.or(Some(self.next_round));
        let wake_at = [look, until].into_iter().flatten().min().filter(|_| self.up);
        let write = std::mem::take(&mut self.out);
        Output { write, events: std::mem::take(&mut self.events), wake_at }
    }

    fn go_on(&mut self, now: Mono) {
        if let Job::Printing { until } = self.job
            && now >= until
        {
            self.failed("the printer did not say that it was done");
        }
        if self.asked.is_some_and(|(_, since)| now.since(since) >= ANSWER_MS) {
            self.asked = None;
            self.round.clear();
            self.unanswered = self.unanswered.saturating_add(1);
            if self.unanswered >= SILENT {
                let detail = "the printer does not answer: is it switched on?".to_owned();
                self.trouble(DeviceFault { kind: FaultKind::Silent, detail });
            }
            self.next_round = now;
        }
        let waits = matches!(self.job, Job::Waiting { .. }) && self.round.is_empty();
        if self.asked.is_none() && (waits || now >= self.next_round) {
            self.ask(now);
        }
    }

    /// The next question of the round.
    fn ask(&mut self, now: Mono) {
        if let Some(ask) = Ask::ALL.get(self.round.len()) {
            self.out.extend_from_slice(&ask.bytes());
            self.asked = Some((*ask, now));
        }
    }

    fn answered(&mut self, byte: u8, now: Mono) {
        if self.asked.take().is_none() {
            return;
        }
        self.unanswered = 0;
        self.round.push(byte);
        if self.round.len() < Ask::ALL.len() {
            self.ask(now);
            return;
        }
        let round: Vec<(Ask, u8)> = Ask::ALL.into_iter().zip(self.round.drain(..)).collect();
        let wait = if matches!(self.job, Job::Printing { .. }) { BUSY_MS } else { IDLE_MS };
        self.next_round = now.after(wait);
        let found: Option<Trouble> = round.iter().flat_map(|(ask, byte)| ask.troubles(*byte)).min();
        match found {
            Some(trouble) => self.trouble(fault(trouble, &round)),
            None => self.well(round.iter().any(|(ask, byte)| ask.is_near_end(*byte)), now),
        }
    }

    fn well(&mut self, paper_low: bool, now: Mono) {
        if std::mem::take(&mut self.dirty) {
            self.out.extend_from_slice(&CLEAR);
            self.out.extend_from_slice(&INITIALISE);
        }
        self.say(Said::Ready { paper_low });
        match &mut self.job {
            Job::Waiting { fresh: fresh @ false, .. } => {
                *fresh = true;
                self.ask(now);
            }
            Job::Waiting { slip, .. } => {
                self.out.extend_from_slice(slip.expose());
                self.out.extend_from_slice(&FENCE);
                self.job = Job::Printing { until: now.after(PRINT_MS) };
                self.next_round = now.after(BUSY_MS);
            }
            Job::None | Job::Printing { .. } => {}
        }
    }

    fn trouble(&mut self, fault: DeviceFault) {
        self.failed(&fault.detail);
        self.say(Said::Fault(fault));
    }

    fn say(&mut self, new: Said) {
        if self.said == new {
            return;
        }
        self.events.push(match new.clone() {
            Said::Ready { paper_low } => PrinterEvent::Ready { paper_low },
            Said::Fault(fault) => PrinterEvent::Fault(fault),
            Said::Nothing => return,
        });
        self.said = new;
    }

    /// The slip does not come, or not whole.
    fn failed(&mut self, why: &str) {
        match std::mem::replace(&mut self.job, Job::None) {
            Job::None => return,
            Job::Waiting { .. } => {}
            Job::Printing { .. } => {
                // at once, for a printer that stands; and again when it is well
                self.out.extend_from_slice(&CLEAR);
                self.dirty = true;
            }
        }
        self.events.push(PrinterEvent::NotPrinted { why: why.to_owned() });
    }
}

fn fault(trouble: Trouble, round: &[(Ask, u8)]) -> DeviceFault {
    let codes: Vec<_> = round.iter().map(|(ask, b)| format!("{}:{b:02X}", ask.number())).collect();
    let kind = match trouble {
        Trouble::Cutter | Trouble::Mechanism => FaultKind::Jam,
        _ => FaultKind::ServiceNeeded,
    };
    DeviceFault { kind, detail: format!("{} (DLE EOT {})", trouble.words(), codes.join(" ")) }
}

impl Engine for EscPos {
    type Command = PrinterCommand;
    type Event = PrinterEvent;

    fn line(&self) -> LineSettings {
        LineSettings { baud: self.baud, data_bits: 8, parity: Parity::None, stop_bits: 1 }
    }

    fn on_link_up(&mut self, now: Mono) -> Output<PrinterEvent> {
        (self.up, self.asked, self.unanswered, self.next_round) = (true, None, 0, now);
        self.round.clear();
        self.output(now)
    }

    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<PrinterEvent> {
        self.up = false;
        self.asked = None;
        self.round.clear();
        self.trouble(DeviceFault { kind: FaultKind::LinkLost, detail: why.to_owned() });
        self.out.clear();
        self.output(now)
    }

    fn on_bytes(&mut self, bytes: &[u8], now: Mono) -> Output<PrinterEvent> {
        for byte in bytes {
            match Status::of(*byte) {
                Status::RealTime(byte) => self.answered(byte, now),
                Status::Fence(_) if matches!(self.job, Job::Printing { .. }) => {
                    self.job = Job::None;
                    self.events.push(PrinterEvent::Printed);
                }
                Status::Fence(_) => {}
                Status::Unknown(byte) => tracing::debug!(event = "no_printer_status", byte),
            }
        }
        self.output(now)
    }

    fn on_tick(&mut self, now: Mono) -> Output<PrinterEvent> {
        self.output(now)
    }

    fn command(&mut self, command: PrinterCommand, now: Mono) -> Output<PrinterEvent> {
        let PrinterCommand::Print(slip) = command;
        let refused = match (&self.said, &self.job) {
            (Said::Fault(fault), _) => Some(fault.detail.clone()),
            (Said::Nothing, _) => Some("the printer has not answered yet".to_owned()),
            (_, Job::Waiting { .. } | Job::Printing { .. }) => {
                Some("it prints another slip".to_owned())
            }
            (Said::Ready { .. }, Job::None) => None,
        };
        match refused {
            Some(why) => self.events.push(PrinterEvent::NotPrinted { why }),
            None => {
                let fresh = self.asked.is_none() && self.round.is_empty();
                self.job = Job::Waiting { slip, fresh };
            }
        }
        self.output(now)
    }

    fn is_fault(event: &PrinterEvent) -> bool {
        matches!(event, PrinterEvent::Fault(_) | PrinterEvent::NotPrinted { .. })
    }

    fn traced(direction: Direction, bytes: &[u8]) -> Cow<'_, [u8]> {
        match direction {
            Direction::Sent if bytes.len() > Ask::Paper.bytes().len() => Cow::Borrowed(&INITIALISE),
            _ => Cow::Borrowed(bytes),
        }
    }

    fn in_words(direction: Direction, bytes: &[u8]) -> String {
        match (direction, bytes) {
            (Direction::Sent, [0x10, 0x04, n]) => format!("DLE EOT {n}"),
            (Direction::Sent, _) => "a slip or a reset; what it says is not kept".to_owned(),
            (Direction::Received, [byte]) => format!("{:?}", Status::of(*byte)),
            (Direction::Received, _) => "status bytes".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
