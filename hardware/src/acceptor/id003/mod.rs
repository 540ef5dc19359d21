//! JCM ID-003 host: UBA, iVIZION, iPRO and their kin, in poll mode.
//!
//! Promise: a note is stacked only on a proof, and only the note that the proof names; each note is
//! credited once, however often the device repeats VEND VALID, and ACK goes out only after
//! [`AcknowledgeCredit`]; a device that comes up with a note inside is asked where it was and told
//! to repeat its credit (power recovery, C5 02 00).
//!
//! The device's own state leads; what to say next follows from the last answer and from what is
//! still wanted, so a lost reply needs no memory of its own: the state is asked for first, and only
//! a note that is seen still waiting in escrow gets its STACK again.
//!
//! ```text
//!  link up -> (11) -> 40 POWER UP / 41 / 42 --<RESET>--> 1B INITIALIZE <C0 C1 C5 C4 C2 C3> --+
//!                \--> 1A / 11, met running --<RESET>--^      (15 here: a credit comes back)  |
//!                \--> 13 / 19, met running --<RETURN>--> 18                                  v
//!                                                             1A DISABLE <--C3--> 11 IDLING <-+
//!                                                                                   | note     |
//!    17 REJECTING <------------------------------------------------------------- 12 ACCEPTING |
//!         |  (79: escrow timed out)                                                 v          |
//!         |       18 RETURNING <--<RETURN>-- 13 ESCROW / 19 HOLDING <HOLD>       13 ESCROW     |
//!         |            |                             | <STACK-2>, proof taken                  |
//!         |            |                             v                                         |
//!         |            |              14 STACKING -> 15 VEND VALID (Credit; <ACK> when durable)|
//!         |            |                             -> 16 STACKED ----------------------------+
//!         +------------+-----------------------------------------------------------------------+
//!  43 full, 44 cashbox out, 45 / 46 jam, 48 cheated, 49 failure, 4A: Fault, until it is over;
//!  the latching ones want AcceptorCommand::Reset after a person has looked.
//! ```
//!
//! STACK-2 and not STACK-1: with STACK-1 the device gives VEND VALID when the note passes the
//! stacker's lever, so a power loss after the ACK finds a note still under way and may bring the
//! same credit a second time; with STACK-2 VEND VALID means that the note lies in the cashbox and
//! nothing moves after the ACK.
//!
//! Failure policy: a bad frame is silence, silence is asked again, 3 s of it are `Fault(Silent)`;
//! unknown states are `Fault(ServiceNeeded)` with their bytes. A note whose end the device does not
//! tell is neither credited nor called returned: a fault says so, and [`Accepting`] or [`Closed`]
//! follows without the `Credit` or `Returned` that would have come before it. A STACK whose note is
//! not in escrow (any more) is dropped: the note's end has been told, or will be.
//!
//! Source: JCM ID-003 protocol specification.
//!
//! [`AcknowledgeCredit`]: AcceptorCommand::AcknowledgeCredit
//! [`Accepting`]: AcceptorEvent::Accepting
//! [`Closed`]: AcceptorEvent::Closed

mod lend;
mod note;
mod setup;
mod talk;
mod trouble;

use std::collections::BTreeSet;
use std::marker::PhantomData;

use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;

use super::bill::{Coded, Known, Notes, TRIES, Voice, Word};
use super::{AcceptorCommand, AcceptorEvent, FaultKind};
use crate::Authority;
use crate::engine::{Engine, LineSettings, Output, Parity};
use crate::frame::id003::{Config, Decoder, Held, Reply, Request, Status, in_words};
use crate::trace::Direction;
use setup::Setup;

/// Between polls while a note moves.
const POLL_MS: u64 = 100;
/// Between polls while nothing happens (200 ms is the specification's longest).
const IDLE_POLL_MS: u64 = 200;
/// Between polls while the device is silent.
const SILENT_POLL_MS: u64 = 1_000;
/// A reply normally comes within 50 ms.
const RESPONSE_MS: u64 = 300;
/// Silence that is a fault; the device itself gives a note back after 3 s without a poll.
const SILENT_MS: u64 = 3_000;

/// What must be known before the device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only notes of this currency are ever taken, whatever else the device knows.
    pub currency: Currency,
    /// 9600, or 19200 where the device is set to it.
    pub baud: u32,
}

/// The engine of one ID-003 device.
pub struct Id003<A: Authority> {
    settings: Settings,
    authority: PhantomData<fn() -> A>,
    decoder: Decoder,
    voice: Voice,
    up: bool,
    /// What the line waits for.
    waiting: Option<Waiting>,
    next_poll: Mono,
    /// When the device last said something whole.
    heard: Mono,
    /// The last state, and when it was first and last seen.
    seen: Option<Status>,
    entered: Mono,
    seen_at: Mono,
    /// Nothing that may change the state was sent since it was seen.
    current: bool,
    /// POWER UP has had its ACK.
    power_up_acked: bool,
    setup: Setup,
    wanted: BTreeSet<Denomination>,
    /// The last inlet event, since the device was last busy.
    told_open: Option<bool>,
    notes: Notes,
    reset_wanted: bool,
    cashbox_out: bool,
    /// A recycler's own business has the line.
    lent: bool,
    /// A recycler's own business wants the inlet closed.
    shut: bool,
    /// The next note that is stacked goes to the cashbox, even where a box could keep it.
    away: bool,
}

#[derive(Clone, Copy)]
struct Waiting {
    ask: Ask,
    since: Mono,
}

/// What this engine says to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Status,
    Reset,
    Stack,
    StackAway,
    Return,
    Hold,
    Ack,
    Set(Config),
    Version,
    Currencies,
}

impl Ask {
    const fn request(self) -> Request<'static> {
        match self {
            Self::Status => Request::StatusRequest,
            Self::Reset => Request::Reset,
            Self::Stack => Request::Stack2,
            Self::StackAway => Request::Stack3,
            Self::Return => Request::Return,
            Self::Hold => Request::Hold,
            Self::Ack => Request::Ack,
            Self::Set(config) => Request::Set(config),
            Self::Version => Request::Version,
            Self::Currencies => Request::CurrencyAssign,
        }
    }
}

impl<A: Authority> Id003<A> {
    /// An engine that knows nothing of the device yet; the inlet stays closed until
    /// [`AcceptorCommand::Accept`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            authority: PhantomData,
            decoder: Decoder::default(),
            voice: Voice::default(),
            up: false,
            waiting: None,
            next_poll: Mono(0),
            heard: Mono(0),
            seen: None,
            entered: Mono(0),
            seen_at: Mono(0),
            current: false,
            power_up_acked: false,
            setup: Setup::default(),
            wanted: BTreeSet::new(),
            told_open: None,
            notes: Notes::default(),
            reset_wanted: false,
            cashbox_out: false,
            lent: false,
            shut: false,
            away: false,
        }
    }

    /// Says what is due and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<AcceptorEvent> {
        let speaks = self.up && !self.lent;
        self.voice.out.wake_at = if speaks { Some(self.pump(now)) } else { None };
        std::mem::take(&mut self.voice.out)
    }
}

impl<A: Authority> Engine for Id003<A> {
    type Command = AcceptorCommand<A>;
    type Event = AcceptorEvent;

    fn line(&self) -> LineSettings {
        LineSettings { baud: self.settings.baud, data_bits: 8, parity: Parity::Even, stop_bits: 1 }
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
        self.waiting = None;
        self.decoder.clear();
        self.seen = None;
        self.current = false;
        self.notes.found = false;
        self.told_open = None;
        self.voice.fail(FaultKind::LinkLost, why.to_owned());
        self.finish(now)
    }

    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Output<AcceptorEvent> {
        while let Some(frame) = self.decoder.push(&mut bytes) {
            if self.up {
                self.on_reply(&Reply::parse(&frame), now);
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
            AcceptorCommand::AcknowledgeCredit => self.notes.credit_is_durable(),
            _ if !self.up => self.voice.say_fault_again(),
            AcceptorCommand::Stack(bill) if self.waits() => {
                if self.notes.stack(*bill.as_ref()) {
                    self.away = false;
                }
            }
            // its note is not in escrow any more
            AcceptorCommand::Stack(_) => {}
            AcceptorCommand::Return => self.notes.give_back_if_undecided(),
            AcceptorCommand::Hold => self.notes.hold(now),
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
