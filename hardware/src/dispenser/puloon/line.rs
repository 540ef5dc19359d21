//! One exchange with an LCDM: frame, `ACK`, the device's work, its reply, `ACK`, `EOT`.
//!
//! Promise: a request is written at most 3 times, and its reply is acknowledged as often as the
//! device repeats it; a damaged reply is asked for again with `NAK`. A request that moves notes for
//! good is written once by this layer, whatever comes or does not come back.
//!
//! States:
//! ```text
//! Idle -send-> Queued -the last exchange is over, 200 ms-> Sent -ACK-> Waiting -reply, we say ACK-> Idle
//!              Sent -NAK or 2 s of silence-> again, 3 times, then Idle           (NotSent)
//!              Sent -NAK, notes-> Idle                                           (Refused)
//!              Sent -2 s of silence, notes-> Waiting: it may have taken the frame
//!              Sent -reply-> Idle: its ACK was lost                              (Reply)
//!              Waiting -damaged, line quiet for 100 ms, we say NAK-> Waiting, 3 times
//!              Waiting -reply, notes-> Answered: the engine says ACK, or NAK to read it again -> Waiting
//!              Waiting -time over-> Idle                                         (Lost)
//! after a reply: EOT, or 800 ms, within which the device repeats what it thinks was lost
//! Queued -no EOT in 6 s from a device that ends its exchanges, notes-> Idle        (NotSent)
//! ```
//! Failure policy: `NotSent` is said only where the frame moves nothing, or was not written;
//! `Refused` is one byte of evidence, which the engine checks.

use bitspire_shared::time::Mono;

use crate::frame::hex;
use crate::frame::puloon::{ACK, Decoder, Frame, Id, NAK, Side, Token};

const TRIES: u8 = 3;
/// How long the device has for its `ACK`: more than the specifications give, since nothing is lost
/// by waiting and USB adapters and busy machines are late.
const ACK_MS: u64 = 2_000;
/// How long the device has for its `EOT`: longer than it waits before it repeats a reply.
const EOT_MS: u64 = 800;
/// The same before a frame that moves notes: nothing is lost by waiting.
const LATE_EOT_MS: u64 = 6_000;
/// How long the device has to repeat a reply that was read well.
const AGAIN_MS: u64 = 1_500;
/// Pause between two exchanges.
const GAP_MS: u64 = 200;
/// Silence inside a frame after which it is damaged.
const IN_FRAME_MS: u64 = 300;
/// Silence after which a damaged frame is over; a byte takes 1.1 ms.
const QUIET_MS: u64 = 100;
/// How long bytes that keep coming may hold up the end of a wait.
const OVERTIME_MS: u64 = 5_000;

/// How long the device may work, and whether the frame may be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Reading or setting something: repeatable, answered at once.
    Query,
    /// The same, not again after silence: only an answer at once is worth anything.
    Once,
    /// Starting the device again, which it answers or not.
    Reset,
    /// Moving the mechanism, no note for good: repeatable, slow.
    Mechanical,
    /// Moving this many notes for good: never repeated.
    Money(u32),
}

impl Nature {
    /// 60 s and a second a note, as TerminalClient waits; 20 s for a purge.
    fn work_ms(self) -> u64 {
        match self {
            Self::Query | Self::Once => 5_000,
            Self::Reset => 2_500,
            Self::Mechanical => 20_000,
            Self::Money(notes) => u64::from(notes).saturating_mul(1_000).saturating_add(60_000),
        }
    }

    const fn tries(self) -> u8 {
        match self {
            Self::Once | Self::Money(_) => 1,
            Self::Query | Self::Reset | Self::Mechanical => TRIES,
        }
    }

    const fn is_money(self) -> bool {
        matches!(self, Self::Money(_))
    }
}

/// How an exchange ended, or what came beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineEvent {
    /// The answer to the request.
    Reply(Frame),
    /// The device did not take the request, which moves nothing, or it was not written.
    NotSent {
        /// Whether it was silent; otherwise it said no.
        silent: bool,
        /// In words.
        why: String,
    },
    /// It said `NAK` to a request that moves notes.
    Refused,
    /// It may have taken the request, and no answer came.
    Lost {
        /// In words.
        why: String,
    },
    /// A reply to nothing that was asked now.
    Stray(Frame),
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    frame: Frame,
    nature: Nature,
    tries: u8,
    /// How often its reply was asked for again.
    naks: u8,
}

#[derive(Clone, Copy, Debug)]
enum Sender {
    Idle,
    Queued(Exchange),
    Sent {
        exchange: Exchange,
        due: Mono,
    },
    Waiting {
        exchange: Exchange,
        acknowledged: bool,
        due: Mono,
    },
    /// The reply to a request that moves notes is there, and is to be acknowledged.
    Answered {
        exchange: Exchange,
    },
}

/// The link layer of one device.
#[derive(Debug)]
pub(super) struct Line {
    id: Id,
    decoder: Decoder,
    sender: Sender,
    /// When the next frame may be written.
    free_at: Mono,
    /// When the last reply was acknowledged.
    acked_at: Mono,
    /// Whether the device ends exchanges with `EOT`, and whether it has ended the last one.
    ends: bool,
    ended: bool,
    /// When a frame that has begun and got stuck is given up.
    frame_due: Option<Mono>,
    /// Until when the rest of a damaged frame is waited for.
    settling: Option<Mono>,
    /// Bytes that were not understood since the exchange began.
    garbled: bool,
    write: Vec<u8>,
    events: Vec<LineEvent>,
    heard: String,
}

impl Line {
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            decoder: Decoder::new(Side::Device),
            sender: Sender::Idle,
            free_at: Mono(0),
            acked_at: Mono(0),
            ends: false,
            ended: true,
            frame_due: None,
            settling: None,
            garbled: false,
            write: Vec::new(),
            events: Vec::new(),
            heard: "nothing".to_owned(),
        }
    }

    /// Forgets everything under way.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.id);
    }

    /// Begins an exchange; one that is under way is forgotten.
    pub(super) fn send(&mut self, frame: Frame, nature: Nature, now: Mono) {
        self.heard = "nothing".to_owned();
        self.garbled = false;
        self.settling = None;
        self.queue(Exchange { frame, nature, tries: 1, naks: 0 }, now);
    }

    /// Whether the frame of the exchange under way has been written: the device may have it.
    pub(super) const fn exposed(&self) -> bool {
        matches!(
            self.sender,
            Sender::Sent { .. } | Sender::Waiting { .. } | Sender::Answered { .. }
        )
    }

    /// The reply to a request that moves notes is good.
    pub(super) fn acknowledge(&mut self, now: Mono) {
        if matches!(self.sender, Sender::Answered { .. }) {
            self.sender = Sender::Idle;
            self.acked(now);
        }
    }

    /// The same reply once more, please; `Lost` where it does not come.
    pub(super) fn read_again(&mut self, now: Mono) {
        if let Sender::Answered { mut exchange } = self.sender {
            if exchange.naks < TRIES {
                self.write.push(NAK);
            }
            // more than two readings differ from one another
            self.garbled |= exchange.naks > 0;
            exchange.naks = exchange.naks.saturating_add(1);
            let due = now.after(AGAIN_MS);
            self.sender = Sender::Waiting { exchange, acknowledged: true, due };
        }
    }

    /// Does not write a frame that still waits for its turn.
    pub(super) const fn withdraw(&mut self) {
        if matches!(self.sender, Sender::Queued(_)) {
            self.sender = Sender::Idle;
        }
    }

    /// The last thing that the device said in this exchange, in words and hex.
    pub(super) fn heard(&self) -> &str {
        &self.heard
    }

    /// Whether bytes came in this exchange that were not understood.
    pub(super) const fn garbled(&self) -> bool {
        self.garbled
    }

    /// Bytes to write, since the last call.
    pub(super) fn take_write(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.write)
    }

    /// Events, since the last call.
    pub(super) fn take_events(&mut self) -> Vec<LineEvent> {
        std::mem::take(&mut self.events)
    }

    /// When [`on_tick`](Self::on_tick) has something to do.
    pub(super) fn wake_at(&self) -> Option<Mono> {
        let incoming = self.settling.or(self.frame_due);
        let late = |due: Mono| if incoming.is_some() { due.after(OVERTIME_MS) } else { due };
        let sender = match &self.sender {
            Sender::Idle | Sender::Answered { .. } => None,
            Sender::Queued(_) => Some(self.free_at),
            Sender::Sent { due, .. } | Sender::Waiting { due, .. } => Some(late(*due)),
        };
        [sender, incoming].into_iter().flatten().min()
    }

    pub(super) fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) {
        if let Some(until) = &mut self.settling {
            *until = now.after(QUIET_MS);
            return;
        }
        while let Some(token) = self.decoder.push(&mut bytes) {
            self.heard = describe(&token);
            match token {
                Token::Ack => self.on_ack(now),
                Token::Nak => self.on_nak(now),
                Token::Eot => {
                    self.free_at = self.free_at.min(now.after(GAP_MS));
                    (self.ends, self.ended) = (true, true);
                }
                Token::Frame(frame) => self.on_frame(frame, now),
                Token::Item { .. } => {}
                Token::Damaged(_) | Token::Noise(_) => {
                    if self.on_damaged(now) {
                        // what follows in this read may be the rest of the damaged frame
                        break;
                    }
                }
            }
        }
        self.frame_due = self.decoder.in_frame().then(|| now.after(IN_FRAME_MS));
    }

    pub(super) fn on_tick(&mut self, now: Mono) {
        if self.frame_due.is_some_and(|due| now >= due) {
            self.frame_due = None;
            self.decoder.reset();
            self.garbled = true;
            self.ask_again();
        }
        if self.settling.is_some_and(|until| now >= until) {
            self.settling = None;
            self.ask_again();
        }
        let incoming = self.settling.is_some() || self.frame_due.is_some();
        let over = |due: Mono| if incoming { now >= due.after(OVERTIME_MS) } else { now >= due };
        match self.sender {
            Sender::Queued(exchange) if now >= self.free_at => self.write_frame(exchange, now),
            Sender::Sent { exchange, due } if over(due) => self.no_ack(exchange, now),
            Sender::Waiting { exchange, acknowledged, due } if over(due) => {
                self.sender = Sender::Idle;
                self.settling = None;
                let secs = exchange.nature.work_ms() / 1_000;
                let command = exchange.frame.command();
                let not = if acknowledged { "" } else { "not " };
                let why = format!(
                    "no answer to command {command:02X} within {secs} s (frame {not}acknowledged)"
                );
                self.events.push(LineEvent::Lost { why });
            }
            _ => {}
        }
    }

    fn no_ack(&mut self, exchange: Exchange, now: Mono) {
        if exchange.nature.is_money() {
            self.wait(exchange, false, now);
        } else if exchange.tries < exchange.nature.tries() {
            let tries = exchange.tries.saturating_add(1);
            self.queue(Exchange { tries, ..exchange }, now);
        } else {
            self.sender = Sender::Idle;
            let (command, tries) = (exchange.frame.command(), exchange.tries);
            let why = format!("no answer to command {command:02X}, {tries} tries of 2 s");
            self.events.push(LineEvent::NotSent { silent: true, why });
        }
    }

    fn on_ack(&mut self, now: Mono) {
        if let Sender::Sent { exchange, .. } = self.sender {
            self.wait(exchange, true, now);
        }
    }

    fn on_nak(&mut self, now: Mono) {
        let Sender::Sent { exchange, .. } = self.sender else { return };
        if exchange.nature.is_money() {
            self.sender = Sender::Idle;
            self.events.push(LineEvent::Refused);
        } else if exchange.tries < TRIES {
            self.free_at = now.after(GAP_MS);
            let tries = exchange.tries.saturating_add(1);
            self.queue(Exchange { tries, ..exchange }, now);
        } else {
            self.sender = Sender::Idle;
            let (command, tries) = (exchange.frame.command(), exchange.tries);
            let why = format!("the device refused command {command:02X} {tries} times (NAK 15)");
            self.events.push(LineEvent::NotSent { silent: false, why });
        }
    }

    fn on_frame(&mut self, frame: Frame, now: Mono) {
        match self.sender {
            Sender::Sent { exchange, .. } | Sender::Waiting { exchange, .. }
                if frame.id() == self.id && frame.command() == exchange.frame.command() =>
            {
                if exchange.nature.is_money() {
                    self.sender = Sender::Answered { exchange };
                } else {
                    self.sender = Sender::Idle;
                    self.acked(now);
                }
                self.events.push(LineEvent::Reply(frame));
            }
            _ => {
                self.acked(now);
                self.events.push(LineEvent::Stray(frame));
            }
        }
    }

    fn acked(&mut self, now: Mono) {
        self.write.push(ACK);
        self.free_at = now.after(EOT_MS);
        self.acked_at = now;
        self.ended = false;
    }

    /// Whether the rest of what is coming in is to be passed over.
    fn on_damaged(&mut self, now: Mono) -> bool {
        self.garbled = true;
        if !matches!(self.sender, Sender::Waiting { .. }) {
            return false;
        }
        self.decoder.reset();
        self.settling = Some(now.after(QUIET_MS));
        true
    }

    /// Asks for the reply again.
    fn ask_again(&mut self) {
        if let Sender::Waiting { exchange, .. } = &mut self.sender
            && exchange.naks < TRIES
        {
            exchange.naks = exchange.naks.saturating_add(1);
            self.write.push(NAK);
        }
    }

    fn queue(&mut self, exchange: Exchange, now: Mono) {
        self.sender = Sender::Queued(exchange);
        if now >= self.free_at {
            self.write_frame(exchange, now);
        }
    }

    fn write_frame(&mut self, exchange: Exchange, now: Mono) {
        if exchange.nature.is_money() && self.ends && !self.ended {
            if now < self.acked_at.after(LATE_EOT_MS) {
                self.free_at = self.acked_at.after(LATE_EOT_MS);
                self.sender = Sender::Queued(exchange);
                return;
            }
            self.sender = Sender::Idle;
            let why = "the device did not end the exchange before (EOT 04)".to_owned();
            return self.events.push(LineEvent::NotSent { silent: true, why });
        }
        exchange.frame.write(Side::Host, &mut self.write);
        self.sender = Sender::Sent { exchange, due: now.after(ACK_MS) };
    }

    fn wait(&mut self, exchange: Exchange, acknowledged: bool, now: Mono) {
        let due = now.after(exchange.nature.work_ms());
        self.sender = Sender::Waiting { exchange, acknowledged, due };
    }
}

/// A token in words and hex.
pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::Ack => "ACK (06)".to_owned(),
        Token::Nak => "NAK (15)".to_owned(),
        Token::Eot => "EOT (04)".to_owned(),
        Token::Frame(frame) => {
            let (id, command) = (frame.id().byte(), frame.command());
            format!("a frame of id {id:02X}, command {command:02X} ({})", hex(frame.data()))
        }
        Token::Item { kind: 0x9c, value } => format!("a note was rejected (9C {value:02X})"),
        Token::Item { kind, value } => format!("at work ({kind:02X} {value:02X})"),
        Token::Damaged(why) => format!("a damaged frame ({why})"),
        Token::Noise(byte) => format!("noise ({byte:02X})"),
    }
}
