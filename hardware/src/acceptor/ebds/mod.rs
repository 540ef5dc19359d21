//! MEI/CPI EBDS host: Cashflow SC 66, 83, 85, SCN and their kin.
//!
//! Promise: a note is stacked only on a proof, and only the note that the proof names; each note is
//! credited once; the device is not let go of the word `stacked` before [`AcknowledgeCredit`].
//!
//! **The toggle is the acknowledgement.** A device says `stacked`, `returned` and `rejected` in one
//! answer only, and gives that answer again for as long as the toggle stays as it was. So the toggle
//! turns over only after the answer was understood, and, for `stacked`, after the credit is durable.
//! A host that has died meanwhile does not know the toggle; a new one begins with 0, and this engine
//! sees to it that `stacked` comes under 0: STACK goes out under 1, the message under 0 half a
//! second later, the next one under 1 right behind it. Where the note falls just between these two
//! and the host dies before the credit is durable, nobody can tell any more where the note is.
//!
//! **Everything new is heard twice.** The check is one XOR byte, which two errors in one column
//! pass; so an answer that differs from the one before is asked for again, with the same toggle,
//! and counts when it comes again. A value in escrow counts when two polls agree on it: some units
//! show the value of the note before for one poll.
//!
//! ```text
//!  link up -> first answer: an old one, perhaps; only `stacked` with a value, `returned` count
//!     |
//!     v          questions: type, serial, firmware, note table; note inhibits
//!  IDLING, D0 = 0: Closed <--- wishes of every poll ---> IDLING, D0 <> 0: Accepting
//!     ^                                                     | note
//!     |  REJECTED (once)                                    v
//!     +<------------------------------------------------ ACCEPTING
//!     |                                                     v
//!     +<-- RETURNED (once) <-- RETURNING <-- RETURN --- ESCROWED, 2 polls: Escrowed; 10 s or Hold
//!     |                                                     | STACK, proof taken
//!     |                                                     v
//!     +<-- toggle turns, credit durable <-- Credit <--- STACKED (once) <-- STACKING
//!
//!  power-up bit: PoweredUp; ESCROWED then: RETURN; STACKING then: `stacked` follows, with its value
//!     under policy B, blank under A and C
//!  jammed, cheated, cashbox full or out, failure, transport open, stalled, calibration: Fault until
//!     it is over; AcceptorCommand::Reset is the soft reset
//! ```
//!
//! **Blank words.** Devices say `stacked` without a value when the cashbox is put back and when
//! their power comes. Such a word counts only for a note that this run has told to stack, whose way
//! was in sight: no power loss since (or seen STACKING after it), no jam, cashbox in place.
//!
//! Failure policy: a bad frame is silence, silence is asked again, 3 s of it are `Fault(Silent)`;
//! after an action a plain poll asks, under the action's toggle, so that nothing is done twice, and
//! only a note that is seen still waiting gets its STACK again; messages that we do not know are
//! `Fault(ServiceNeeded)` with their bytes. A note whose end the device does not tell, or with a
//! value that cannot be named, is neither credited nor called returned: a fault says so, and
//! [`Accepting`] or [`Closed`] follows without the `Credit` or `Returned` that would have come before
//! it. Another value than in escrow is told with the credit, for the agent to doubt.
//!
//! Source: MEI/CPI EBDS protocol specification.
//!
//! [`AcknowledgeCredit`]: AcceptorCommand::AcknowledgeCredit
//! [`Accepting`]: AcceptorEvent::Accepting
//! [`Closed`]: AcceptorEvent::Closed

mod note;
mod setup;
mod status;
mod talk;
mod trouble;

use std::collections::BTreeSet;
use std::marker::PhantomData;

use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;

use super::{AcceptorCommand, AcceptorEvent, DeviceFault, FaultKind};
use crate::Authority;
use crate::engine::{Engine, LineSettings, Output, Parity};
use crate::frame::ebds::{
    Classification, Decoder, Frame, NoteSet, PowerUpPolicy, Query, Status, in_words,
};
use crate::trace::Direction;
use note::{Bill, Said};
use setup::Setup;
use talk::Waiting;

/// Between polls while a note moves.
const POLL_MS: u64 = 100;
/// Between polls while nothing happens.
const IDLE_POLL_MS: u64 = 200;
/// Before the poll, under toggle 0, that is to bring `stacked`.
const STACK_POLL_MS: u64 = 500;
/// Between polls while the device is silent.
const SILENT_POLL_MS: u64 = 1_000;
/// A reply normally comes within tens of milliseconds; 30 bytes take 31 ms.
const RESPONSE_MS: u64 = 300;
/// Silence that is a fault.
const SILENT_MS: u64 = 3_000;
/// Silence that a soft reset may take on top.
const RESET_MS: u64 = 12_000;
/// How long a note waits for the agent; the device itself has no limit.
const ESCROW_MS: u64 = 10_000;
/// One [`AcceptorCommand::Hold`] keeps the note this long.
const HOLD_MS: u64 = 60_000;
/// How often STACK, RETURN or a question is said in vain.
const TRIES: u8 = 3;

/// What must be known before the device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only notes of this currency are ever taken, whatever else the device knows.
    pub currency: Currency,
    /// 9600, or what the device is set to.
    pub baud: u32,
    /// What the device does with a note that a power loss has stopped. Under A and C it tells no
    /// value afterwards, so that more notes end as unknown.
    pub policy: PowerUpPolicy,
}

/// The engine of one EBDS device.
pub struct Ebds<A: Authority> {
    settings: Settings,
    authority: PhantomData<fn() -> A>,
    decoder: Decoder,
    out: Output<AcceptorEvent>,
    up: bool,
    /// The toggle of the next new message.
    toggle: bool,
    /// What the line waits for.
    waiting: Option<Waiting>,
    /// The last message that asks without doing anything: it may be said again under its toggle.
    last: Option<Frame>,
    /// The last answer that was believed to be the state.
    believed: Option<Frame>,
    /// Answers in a row under the wrong toggle.
    astray: u8,
    next_poll: Mono,
    /// When the device last said something whole.
    heard: Mono,
    /// The next answer may be an old one.
    fresh: bool,
    /// The last state, and when it was first and last seen.
    seen: Option<Status>,
    entered: Mono,
    seen_at: Mono,
    /// Nothing that may change the state was sent since it was seen.
    current: bool,
    /// Whether this link has told where a note was when it came up.
    found: bool,
    /// The power-up bit was set in the last state.
    powering: bool,
    /// When a soft reset was said, until the device is back.
    reset_at: Option<Mono>,
    setup: Setup,
    wanted: BTreeSet<Denomination>,
    /// The last inlet event, since the device was last busy.
    told_open: Option<bool>,
    bill: Option<Bill>,
    /// What the note in escrow was said to be in the poll before.
    weighed: Option<(Said, Classification)>,
    serial: u32,
    hold_until: Mono,
    reset_wanted: bool,
    cashbox_out: bool,
    fault: Option<DeviceFault>,
}

/// What this engine says to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Poll,
    /// The last message again, under its toggle: it holds the device's last word.
    Again,
    Stack,
    Return,
    Reset,
    Query(Query),
    Note(u8),
    Inhibits(NoteSet, bool),
    Table,
}

impl<A: Authority> Ebds<A> {
    /// An engine that knows nothing of the device yet; the inlet stays closed until
    /// [`AcceptorCommand::Accept`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            authority: PhantomData,
            decoder: Decoder::default(),
            out: Output::default(),
            up: false,
            toggle: false,
            waiting: None,
            last: None,
            believed: None,
            astray: 0,
            next_poll: Mono(0),
            heard: Mono(0),
            fresh: true,
            seen: None,
            entered: Mono(0),
            seen_at: Mono(0),
            current: false,
            found: false,
            powering: false,
            reset_at: None,
            setup: Setup::default(),
            wanted: BTreeSet::new(),
            told_open: None,
            bill: None,
            weighed: None,
            serial: 0,
            hold_until: Mono(0),
            reset_wanted: false,
            cashbox_out: false,
            fault: None,
        }
    }

    fn tell(&mut self, event: AcceptorEvent) {
        self.out.events.push(event);
    }

    /// Says what is due and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.out.wake_at = if self.up { Some(self.pump(now)) } else { None };
        std::mem::take(&mut self.out)
    }
}

impl<A: Authority> Engine for Ebds<A> {
    type Command = AcceptorCommand<A>;
    type Event = AcceptorEvent;

    fn line(&self) -> LineSettings {
        LineSettings { baud: self.settings.baud, data_bits: 7, parity: Parity::Even, stop_bits: 1 }
    }

    fn on_link_up(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.up = true;
        self.heard = now;
        self.seen_at = now;
        self.next_poll = now;
        self.setup = Setup::default();
        self.finish(now)
    }

    fn on_link_down(&mut self, why: &str, now: Mono) -> Output<AcceptorEvent> {
        self.up = false;
        self.decoder.clear();
        self.interrupted();
        self.seen = None;
        self.current = false;
        self.found = false;
        self.told_open = None;
        self.fail(FaultKind::LinkLost, why.to_owned());
        self.finish(now)
    }

    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Output<AcceptorEvent> {
        while let Some(frame) = self.decoder.push(&mut bytes) {
            if self.up {
                self.on_frame(&frame, now);
            }
        }
        self.finish(now)
    }

    fn on_tick(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.finish(now)
    }

    fn command(&mut self, command: AcceptorCommand<A>, now: Mono) -> Output<AcceptorEvent> {
        match command {
            // these two hold until the device can be told
            AcceptorCommand::Accept(notes) => {
                self.wanted = notes;
                self.setup.inlet_changed();
            }
            AcceptorCommand::AcknowledgeCredit => self.credit_is_durable(now),
            _ if !self.up => {
                if let Some(fault) = self.fault.clone() {
                    self.tell(AcceptorEvent::Fault(fault));
                }
            }
            AcceptorCommand::Stack(bill) => self.stack(*bill.as_ref()),
            AcceptorCommand::Return => self.give_back_if_undecided(),
            AcceptorCommand::Hold => self.hold_until = now.after(HOLD_MS),
            AcceptorCommand::Reset => self.reset_wanted = true,
        }
        self.finish(now)
    }

    fn is_fault(event: &AcceptorEvent) -> bool {
        matches!(event, AcceptorEvent::Fault(_))
    }

    fn in_words(direction: Direction, bytes: &[u8]) -> String {
        in_words(direction, bytes)
    }
}

#[cfg(test)]
mod tests;
