//! One exchange with an F53/F56: `ENQ`, frame, `ACK`, the device's work, its reply.
//!
//! Promise: a request is delivered with at most 3 tries at each step and 5 s a step, and its reply
//! is acknowledged exactly as the device needs it: a damaged reply is asked for again, a repeated
//! one is acknowledged again. A request that moves notes is written a second time only when the
//! device itself said `NAK` to it; silence after it is never answered with it.
//!
//! States of the sender, and of the receiver beside it:
//! ```text
//! Idle -send-> Asking -ACK-> Sent -ACK-> Waiting -reply-> Idle          (Reply)
//!              Asking -3 x NAK or silence-> Idle                        (NotSent)
//!              Asking -ENQ: both want to send-> ENQ again; 3 times, then the device goes first
//!              Sent -NAK-> the frame again; 3 times -> Idle             (NotSent)
//!              Sent -ENQ-> Waiting: it may have taken the frame
//!              Sent -silence-> Asking again, 3 times, if it may be repeated, else Waiting
//!              Waiting -time over-> Idle                                (Lost)
//! Quiet -ENQ, we say ACK-> Expecting -frame, we say ACK-> Quiet
//!                          Expecting -damaged, line quiet for 100 ms, we say NAK-> Expecting
//! ```
//! Failure policy: `NotSent` is said only where the device cannot have taken the frame; everything
//! after its first possible `ACK` is `Lost`.

use bitspire_shared::time::Mono;

use crate::frame::f56::{ACK, Decoder, ENQ, NAK, Payload, Reply, Request, Token, encode};
use crate::frame::hex;

/// Tries at each step.
const TRIES: u8 = 3;
/// How long a step may take.
const STEP_MS: u64 = 5_000;
/// Pause after a `NAK` to our `ENQ`.
const BACK_OFF_MS: u64 = 200;
/// Silence inside a frame after which it is damaged. Shorter than the device's own step, so that
/// our `NAK` is there before it tries by itself.
const IN_FRAME_MS: u64 = 1_000;
/// Silence after which a damaged frame is over; a byte takes 1.2 ms.
const QUIET_MS: u64 = 100;
/// An `ENQ` this soon after our `ACK` to one is an echo of it: a second `ACK` would be taken for
/// the frame's.
const ECHO_MS: u64 = 1_000;
/// How long a reply that has begun may hold up the end of the wait.
const OVERTIME_MS: u64 = 20_000;

/// How long the device may work, and whether the frame may be written again without a `NAK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// Reading state: repeatable, answered at once.
    Query,
    /// The same, but where both want to send, the device goes first: what it has is worth more.
    Listening,
    /// Moving the mechanism, no note for good: repeatable, slow.
    Mechanical,
    /// Moving notes for good: never repeated.
    Money,
}

impl Nature {
    const fn work_ms(self) -> u64 {
        match self {
            Self::Query | Self::Listening => 10_000,
            Self::Mechanical | Self::Money => 40_000,
        }
    }
}

/// How an exchange ended, or what came beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineEvent {
    /// The answer to the request.
    Reply(Reply),
    /// The device did not take the request.
    NotSent {
        /// Whether it was silent; otherwise it said no.
        silent: bool,
        /// In words.
        why: String,
    },
    /// It may have taken the request, and no answer came.
    Lost {
        /// In words.
        why: String,
    },
    /// A reply to nothing that was asked now: a repetition of an older one, or a late one.
    Stray(Reply),
}

#[derive(Debug)]
struct Exchange {
    request: Request,
    frame: Vec<u8>,
    nature: Nature,
    /// How often it has been begun again after silence.
    rounds: u8,
}

#[derive(Debug)]
enum Sender {
    Idle,
    Asking { exchange: Exchange, tries: u8, collisions: u8, naks: u8, due: Mono },
    Sent { exchange: Exchange, tries: u8, due: Mono },
    Waiting { exchange: Exchange, acknowledged: bool, due: Mono },
}

#[derive(Clone, Copy, Debug)]
enum Receiver {
    Quiet,
    Expecting { since: Mono, due: Mono, damaged: u8 },
    Settling { until: Mono, damaged: u8 },
}

/// The link layer of one device.
#[derive(Debug)]
pub(super) struct Line {
    decoder: Decoder,
    sender: Sender,
    receiver: Receiver,
    /// When a frame that has begun and got stuck is given up.
    frame_due: Option<Mono>,
    write: Vec<u8>,
    events: Vec<LineEvent>,
    heard: String,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            decoder: Decoder::default(),
            sender: Sender::Idle,
            receiver: Receiver::Quiet,
            frame_due: None,
            write: Vec::new(),
            events: Vec::new(),
            heard: "nothing".to_owned(),
        }
    }

    /// Forgets everything under way.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Begins an exchange; one that is under way is forgotten.
    pub(super) fn send(&mut self, request: Request, nature: Nature, now: Mono) {
        let frame = encode(&request.payload());
        let exchange = Exchange { request, frame, nature, rounds: 1 };
        self.heard = "nothing".to_owned();
        let collisions = if nature == Nature::Listening { TRIES } else { 0 };
        self.ask(exchange, 1, collisions, 0, now);
    }

    /// Whether the frame of the exchange under way has been written: the device may have it.
    pub(super) const fn exposed(&self) -> bool {
        matches!(self.sender, Sender::Sent { .. } | Sender::Waiting { .. })
    }

    /// The last thing that the device said in this exchange, in words and hex.
    pub(super) fn heard(&self) -> &str {
        &self.heard
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
        let sender = match &self.sender {
            Sender::Idle => None,
            Sender::Asking { due, .. } | Sender::Sent { due, .. } | Sender::Waiting { due, .. } => {
                Some(*due)
            }
        };
        let receiver = match self.receiver {
            Receiver::Quiet => None,
            Receiver::Expecting { due, .. } => Some(self.frame_due.unwrap_or(due)),
            Receiver::Settling { until, .. } => Some(until),
        };
        // while something comes in, the sender waits for its end, but not for ever
        let sender = sender.map(|due| receiver.map_or(due, |_| due.after(OVERTIME_MS)));
        [sender, receiver, self.frame_due].into_iter().flatten().min()
    }

    pub(super) fn on_bytes(&mut self, mut bytes: &[u8], now: Mono) {
        if let Receiver::Settling { until, .. } = &mut self.receiver {
            *until = now.after(QUIET_MS);
            return;
        }
        while let Some(token) = self.decoder.push(&mut bytes) {
            self.heard = describe(&token);
            match token {
                Token::Enq => self.on_enq(now),
                Token::Ack => self.on_ack(now),
                Token::Nak => self.on_nak(now),
                Token::Payload(payload) => self.on_payload(&payload, now),
                Token::Damaged(_) => {
                    self.on_damaged(now);
                    if matches!(self.receiver, Receiver::Settling { .. }) {
                        // what follows in this read may be the rest of the damaged frame
                        self.decoder.reset();
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
            if let Receiver::Expecting { damaged, .. } = self.receiver {
                self.ask_again(damaged, now);
            }
        }
        match self.receiver {
            Receiver::Expecting { due, .. } if now >= due && self.frame_due.is_none() => {
                self.receiver = Receiver::Quiet;
            }
            Receiver::Settling { until, damaged } if now >= until => self.ask_again(damaged, now),
            _ => {}
        }
        self.sender_tick(now);
    }

    fn sender_tick(&mut self, now: Mono) {
        let over = |due: Mono, receiver: Receiver| match receiver {
            Receiver::Quiet => now >= due,
            _ => now >= due.after(OVERTIME_MS),
        };
        match std::mem::replace(&mut self.sender, Sender::Idle) {
            Sender::Asking { exchange, tries, collisions, naks, due }
                if over(due, self.receiver) =>
            {
                if tries < TRIES {
                    self.ask(exchange, tries.saturating_add(1), collisions, naks, now);
                } else {
                    let silent = naks == 0;
                    let why = if silent {
                        format!("no answer to DLE ENQ (10 05), {TRIES} tries of 5 s")
                    } else {
                        format!("the device refused DLE ENQ (10 05) {naks} times of {TRIES}")
                    };
                    self.events.push(LineEvent::NotSent { silent, why });
                }
            }
            Sender::Sent { mut exchange, due, .. } if over(due, self.receiver) => {
                if exchange.nature != Nature::Money && exchange.rounds < TRIES {
                    // by now the device waits for an ENQ again, not for a frame
                    exchange.rounds = exchange.rounds.saturating_add(1);
                    self.ask(exchange, 1, 0, 0, now);
                } else {
                    self.wait(exchange, false, now);
                }
            }
            Sender::Waiting { exchange, acknowledged, due } if over(due, self.receiver) => {
                let secs = exchange.nature.work_ms() / 1_000;
                let head = hex(&exchange.request.head());
                let not = if acknowledged { "" } else { "not " };
                let why = format!(
                    "no answer to request {head} within {secs} s (frame {not}acknowledged)"
                );
                self.events.push(LineEvent::Lost { why });
            }
            other => {
                self.sender = other;
                return;
            }
        }
        // a step is over: whatever was still coming in belongs to it
        self.quiet();
    }

    fn quiet(&mut self) {
        self.receiver = Receiver::Quiet;
        self.frame_due = None;
        self.decoder.reset();
    }

    fn on_enq(&mut self, now: Mono) {
        match std::mem::replace(&mut self.sender, Sender::Idle) {
            Sender::Asking { exchange, tries, collisions, naks, .. } if collisions < TRIES => {
                self.ask(exchange, tries, collisions.saturating_add(1), naks, now);
                return;
            }
            Sender::Sent { exchange, .. } => self.wait(exchange, false, now),
            other => self.sender = other,
        }
        if let Receiver::Expecting { since, .. } = self.receiver
            && now.since(since) < ECHO_MS
        {
            return;
        }
        self.write.extend_from_slice(&ACK);
        self.receiver = Receiver::Expecting { since: now, due: now.after(STEP_MS), damaged: 0 };
    }

    fn on_ack(&mut self, now: Mono) {
        match std::mem::replace(&mut self.sender, Sender::Idle) {
            Sender::Asking { exchange, .. } if matches!(self.receiver, Receiver::Quiet) => {
                self.write_frame(exchange, 1, now);
            }
            Sender::Sent { exchange, .. } => self.wait(exchange, true, now),
            other => self.sender = other,
        }
    }

    fn on_nak(&mut self, now: Mono) {
        match std::mem::replace(&mut self.sender, Sender::Idle) {
            Sender::Asking { exchange, tries, collisions, naks, .. } => {
                let due = now.after(BACK_OFF_MS);
                let naks = naks.saturating_add(1).min(tries);
                self.sender = Sender::Asking { exchange, tries, collisions, naks, due };
            }
            Sender::Sent { exchange, tries, .. } if tries < TRIES => {
                self.write_frame(exchange, tries.saturating_add(1), now);
            }
            Sender::Sent { .. } => {
                let why = format!("the device refused the frame {TRIES} times (DLE NAK 10 15)");
                self.events.push(LineEvent::NotSent { silent: false, why });
            }
            other => self.sender = other,
        }
    }

    fn on_payload(&mut self, payload: &Payload, now: Mono) {
        self.write.extend_from_slice(&ACK);
        self.receiver = Receiver::Quiet;
        let Some(reply) = Reply::parse(payload) else { return };
        match std::mem::replace(&mut self.sender, Sender::Idle) {
            Sender::Sent { exchange, .. } | Sender::Waiting { exchange, .. }
                if reply.answers(&exchange.request) =>
            {
                self.events.push(LineEvent::Reply(reply));
            }
            // it went first with something older; now it is our turn
            Sender::Asking { exchange, tries, naks, .. } => {
                self.ask(exchange, tries, 0, naks, now);
                self.events.push(LineEvent::Stray(reply));
            }
            other => {
                self.sender = other;
                self.events.push(LineEvent::Stray(reply));
            }
        }
    }

    fn on_damaged(&mut self, now: Mono) {
        if let Receiver::Expecting { damaged, .. } = self.receiver {
            self.receiver = Receiver::Settling { until: now.after(QUIET_MS), damaged };
        }
    }

    fn ask_again(&mut self, damaged: u8, now: Mono) {
        self.quiet();
        let damaged = damaged.saturating_add(1);
        if damaged > TRIES {
            return;
        }
        self.write.extend_from_slice(&NAK);
        self.receiver = Receiver::Expecting { since: now, due: now.after(STEP_MS), damaged };
    }

    fn ask(&mut self, exchange: Exchange, tries: u8, collisions: u8, naks: u8, now: Mono) {
        self.write.extend_from_slice(&ENQ);
        let due = now.after(STEP_MS);
        self.sender = Sender::Asking { exchange, tries, collisions, naks, due };
    }

    fn write_frame(&mut self, exchange: Exchange, tries: u8, now: Mono) {
        self.write.extend_from_slice(&exchange.frame);
        self.sender = Sender::Sent { exchange, tries, due: now.after(STEP_MS) };
    }

    fn wait(&mut self, exchange: Exchange, acknowledged: bool, now: Mono) {
        let due = now.after(exchange.nature.work_ms());
        self.sender = Sender::Waiting { exchange, acknowledged, due };
    }
}

/// A token in words and hex.
pub(super) fn describe(token: &Token) -> String {
    match token {
        Token::Enq => "DLE ENQ (10 05)".to_owned(),
        Token::Ack => "DLE ACK (10 06)".to_owned(),
        Token::Nak => "DLE NAK (10 15)".to_owned(),
        Token::Payload(payload) => {
            let shown = payload.get(..64).unwrap_or(payload);
            format!("a frame of {} bytes ({})", payload.len(), hex(shown))
        }
        Token::Damaged(why) => format!("a damaged frame ({why})"),
    }
}
