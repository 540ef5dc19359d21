//! CashCode CCNET host: bill validators at address 03, and the validator in a Bill-to-Bill unit at
//! address 01, which lends line and inlet to the [unit's engine](crate::recycler::ccnet_b2b).
//!
//! Promise: a note is stacked only on a proof, and only the note that the proof names; each note is
//! credited once, however often the device repeats BILL STACKED, and that is acknowledged only after
//! [`AcknowledgeCredit`]; every other answer with data is acknowledged at once. A device that comes
//! up with a note inside is asked where it was, and what became of it is waited for.
//!
//! The device's own state leads; what to say next follows from the last answer and from what is
//! still wanted, so a lost reply needs no memory of its own: the state is asked for first, and only
//! a note that is seen still waiting in escrow gets its STACK again.
//!
//! ```text
//!  link up -> (33) -> 10 POWER UP / 11 / 12 --<RESET>--> 13 INITIALIZE ----------------------+
//!                \--> 19 / 14, met running --<RESET>--^     (81 or 82 here: what became of   |
//!                \--> 80 / 1A, met running --<RETURN>--> 18  the note of an earlier run)     v
//!                               <IDENT, TABLE, ENABLE, STATUS> 14 IDLING <--ENABLE-- 19 DISABLED
//!                                                                 | note                     ^
//!    1C REJECTING <------------------------------------------- 15 ACCEPTING                  |
//!         |                                                       v                          |
//!         |  82 RETURNED <- 18 RETURNING <--<RETURN>-- 80 ESCROW / 1A HOLDING <HOLD>         |
//!         |    <ACK>                                      | <STACK>, proof taken             |
//!         |      |                                        v                                  |
//!         |      |            17 STACKING -> 81 STACKED (Credit; <ACK> when durable) --------+
//!         +------+---------------------------------------------------------------------------+
//!  41 full, 42 cassette out, 43 / 44 jam, 45 cheated, 47 failure, 84 / 90 doubtful note: Fault,
//!  until it is over; the latching ones want AcceptorCommand::Reset after a person has looked.
//!  1B busy: asked again later. 46 pause: a fault when it lasts.
//! ```
//!
//! Each answer with data is to be followed by the host's ACK, or NAK to have it said again; no word
//! at all counts as NAK. So BILL STACKED whose credit is not durable yet is left without a word: the
//! device says it again at each POLL, and nothing is lost whichever side dies. An answer that came
//! damaged gets one NAK. A code that we do not know gets no word either: what is not understood is
//! not confirmed.
//!
//! ENABLE always sets the same types for escrow: no note is ever stacked without a proof. What the
//! device has enabled is read back.
//!
//! A Bill-to-Bill unit tells what became of a note over a power loss in its answer to POWER RECOVERY,
//! and forgets it at ENABLE: after each INITIALIZE no ENABLE is said, and no end of a note told,
//! before that answer has been dealt with.
//!
//! Failure policy: a bad frame is denied once, then asked for again; 5 s of silence are
//! `Fault(Silent)`. The specification wants RESETs then: they could lose a BILL STACKED that nobody
//! has seen, so a silent device is only asked for its state, unless the agent says RESET. Unknown
//! states are `Fault(ServiceNeeded)` with their bytes. A note whose end the device does not tell is
//! neither credited nor called returned: a fault says so.
//!
//! Source: CashCode CCNET protocol, common specifications 2.6.0.
//!
//! [`AcknowledgeCredit`]: AcceptorCommand::AcknowledgeCredit

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
use crate::frame::ccnet::{
    BILL_TO_BILL, Bills, Decoder, Frame, Reply, Request, State, VALIDATOR, in_words,
};
use crate::trace::Direction;
use setup::Setup;

/// Between polls while a note moves (the specification's shortest).
const POLL_MS: u64 = 100;
/// Between polls while nothing happens.
const IDLE_POLL_MS: u64 = 200;
/// Between polls while the device is silent.
const SILENT_POLL_MS: u64 = 1_000;
/// The device answers within 10 ms; adapters and kernels take their time too.
const RESPONSE_MS: u64 = 300;
/// The line stays free for 20 ms after an ACK or NAK, which takes 6 ms itself at 9600 baud.
const FREE_MS: u64 = 30;
/// Silence that is a fault.
const SILENT_MS: u64 = 5_000;
/// Out of sight for this long, the note in escrow may be another one.
const GAP_MS: u64 = 3_000;

/// What must be known before the device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Only notes of this currency are ever taken, whatever else the device knows.
    pub currency: Currency,
    /// 9600, or 19200 where the device is set to it.
    pub baud: u32,
}

/// The engine of one CCNET validator.
pub struct Ccnet<A: Authority> {
    settings: Settings,
    address: u8,
    authority: PhantomData<fn() -> A>,
    decoder: Decoder,
    voice: Voice,
    up: bool,
    /// What the line waits for.
    waiting: Option<Waiting>,
    next_poll: Mono,
    /// Before then the line is the device's.
    free_at: Mono,
    /// When the device last said something whole.
    heard: Mono,
    /// The last state, and when it was first and last seen.
    seen: Option<State>,
    entered: Mono,
    seen_at: Mono,
    /// It answers nothing but BUSY since then.
    busy_since: Option<Mono>,
    /// Nothing that may change the state was sent since it was seen.
    current: bool,
    setup: Setup,
    wanted: BTreeSet<Denomination>,
    /// The last inlet event, since the device was last busy.
    told_open: Option<bool>,
    notes: Notes,
    reset_wanted: bool,
    cassette_out: bool,
    /// Somebody else has the line.
    lent: bool,
    /// The inlet stays closed, whatever is wanted.
    shut: bool,
    /// A unit's answer to POWER RECOVERY has been dealt with since it was last initialised.
    recovered: bool,
    /// An answer to POLL that is the unit's, not the validator's.
    met: Option<Frame>,
    /// Where the unit has put the last note.
    packed_to: u8,
}

#[derive(Clone, Copy)]
struct Waiting {
    ask: Ask,
    since: Mono,
    /// Bytes came, and no frame.
    noise: bool,
    denied: bool,
}

/// What this engine says to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Poll,
    Reset,
    Stack,
    Return,
    Hold,
    Enable(Bills),
    Status,
    Identity,
    Table,
}

impl Ask {
    const fn request(self) -> Request<'static> {
        match self {
            Self::Poll => Request::Poll,
            Self::Reset => Request::Reset,
            Self::Stack => Request::Stack,
            Self::Return => Request::Return,
            Self::Hold => Request::Hold,
            Self::Enable(bills) => Request::Enable { bills, escrow: bills },
            Self::Status => Request::GetStatus,
            Self::Identity => Request::Identification,
            Self::Table => Request::GetBillTable,
        }
    }

    /// Whether it only asks: what was answered may be said again without harm.
    const fn is_question(self) -> bool {
        matches!(self, Self::Poll | Self::Status | Self::Identity | Self::Table)
    }
}

impl<A: Authority> Ccnet<A> {
    /// An engine that knows nothing of the device yet; the inlet stays closed until
    /// [`AcceptorCommand::Accept`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::at(VALIDATOR, settings)
    }

    /// The validator in a Bill-to-Bill unit.
    pub(crate) fn in_unit(settings: Settings) -> Self {
        Self::at(BILL_TO_BILL, settings)
    }

    fn at(address: u8, settings: Settings) -> Self {
        Self {
            settings,
            address,
            authority: PhantomData,
            decoder: Decoder::default(),
            voice: Voice::default(),
            up: false,
            waiting: None,
            next_poll: Mono(0),
            free_at: Mono(0),
            heard: Mono(0),
            seen: None,
            entered: Mono(0),
            seen_at: Mono(0),
            busy_since: None,
            current: false,
            setup: Setup::default(),
            wanted: BTreeSet::new(),
            told_open: None,
            notes: Notes::default(),
            reset_wanted: false,
            cassette_out: false,
            lent: false,
            shut: false,
            recovered: address == VALIDATOR,
            met: None,
            packed_to: 0,
        }
    }

    /// Says what is due and hands out what has gathered.
    fn finish(&mut self, now: Mono) -> Output<AcceptorEvent> {
        self.voice.out.wake_at = if self.up && !self.lent { Some(self.pump(now)) } else { None };
        std::mem::take(&mut self.voice.out)
    }
}

impl<A: Authority> Engine for Ccnet<A> {
    type Command = AcceptorCommand<A>;
    type Event = AcceptorEvent;

    fn line(&self) -> LineSettings {
        LineSettings { baud: self.settings.baud, data_bits: 8, parity: Parity::None, stop_bits: 1 }
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
        self.met = None;
        self.voice.fail(FaultKind::LinkLost, why.to_owned());
        self.finish(now)
    }

    fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) -> Output<AcceptorEvent> {
        if let Some(waiting) = &mut self.waiting {
            waiting.noise |= !bytes.is_empty();
        }
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
            AcceptorCommand::AcknowledgeCredit => self.notes.credit_is_durable(),
            _ if !self.up => self.voice.say_fault_again(),
            AcceptorCommand::Stack(bill) if self.waits() => {
                self.notes.stack(*bill.as_ref());
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
