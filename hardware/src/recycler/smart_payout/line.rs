//! One command at a time: said again, byte for byte, until it is answered.
//!
//! The same sequence flag makes the device repeat its last answer instead of obeying again, so a
//! command whose answer was lost is safe to say again for as long as nothing else was said. Once keys
//! are agreed on everything goes encrypted, and an answer counts only with the count of its command.

use super::*;
use crate::frame::ssp::cipher::{Draw, Exchange, Session};
use crate::frame::ssp::{Decoder, Frame, Reply, STEX, Status};

/// An answer that does not come within this is asked for again.
pub(super) const TIMEOUT_MS: u64 = 1_000;

/// What was heard on the line.
#[expect(clippy::large_enum_variant, reason = "one at a time, and none of them is kept")]
pub(super) enum Heard {
    /// Nothing that counts.
    Nothing,
    /// The answer to this.
    Answer(Request<'static>, Answer),
    /// The device does not know our keys (any more).
    KeysLost,
}

/// The data of an answer.
#[derive(Clone, Copy)]
pub(super) struct Answer(Frame);

impl Answer {
    pub(super) fn reply(&self) -> Reply<'_> {
        Reply::parse(self.0.data())
    }
}

struct Waiting {
    said: Request<'static>,
    bytes: Vec<u8>,
    since: Mono,
    /// How often it was said.
    tries: u8,
}

pub(super) struct Line {
    decoder: Decoder,
    seq: bool,
    session: Option<Session>,
    exchange: Option<Exchange>,
    waiting: Option<Waiting>,
    draw: Draw,
}

impl Line {
    pub(super) fn new(draw: Draw) -> Self {
        Self {
            decoder: Decoder::default(),
            seq: true,
            session: None,
            exchange: None,
            waiting: None,
            draw,
        }
    }

    /// Forgets everything: keys, flags, and what was said.
    pub(super) fn clear(&mut self) {
        self.decoder.clear();
        (self.session, self.exchange, self.waiting) = (None, None, None);
        // SYNC goes out with the flag set, and the command behind it without
        self.seq = false;
    }

    /// Our part of a new exchange of keys.
    pub(super) fn begin_exchange(&mut self, primes: Primes) -> u64 {
        let secret = self.draw.secret();
        let exchange = Exchange::new(primes.generator(), primes.modulus(), secret);
        let public = exchange.public();
        self.exchange = Some(exchange);
        public
    }

    pub(super) fn finish_exchange(
        &mut self,
        theirs: u64,
        fixed: &FixedKey,
    ) -> Result<(), SealError> {
        let Some(exchange) = self.exchange.take() else { return Err(SealError::Key(theirs)) };
        self.session = Some(exchange.finish(theirs, fixed)?);
        Ok(())
    }

    pub(super) fn say(&mut self, said: Request<'static>, now: Mono, out: &mut Vec<u8>) {
        self.seq = !self.seq;
        // half duplex: whatever is half there is not the answer to this
        self.decoder.clear();
        let plain = said.frame(self.seq, VALIDATOR);
        let sealed = match &mut self.session {
            Some(session) => session.seal_command(plain.data(), self.draw.block()),
            None => None,
        };
        // none of ours is too long to be sealed
        let frame = sealed.map_or(plain, |data| Frame::new(self.seq, VALIDATOR, &data));
        let bytes = frame.to_bytes();
        out.extend_from_slice(&bytes);
        self.waiting = Some(Waiting { said, bytes, since: now, tries: 1 });
    }

    /// Until when an answer is waited for.
    pub(super) fn waits_until(&self) -> Option<Mono> {
        self.waiting.as_ref().map(|waiting| waiting.since.after(TIMEOUT_MS))
    }

    /// What waits for its answer, and how often it was said.
    pub(super) fn said(&self) -> Option<(Request<'static>, u8)> {
        self.waiting.as_ref().map(|waiting| (waiting.said, waiting.tries))
    }

    /// The same bytes once more.
    pub(super) fn say_again(&mut self, now: Mono, out: &mut Vec<u8>) {
        self.decoder.clear();
        if let Some(waiting) = &mut self.waiting {
            out.extend_from_slice(&waiting.bytes);
            waiting.since = now;
            waiting.tries = waiting.tries.saturating_add(1);
        }
    }

    /// The next frame in these bytes, and what it means.
    pub(super) fn hear(&mut self, bytes: &mut &[u8]) -> Option<Heard> {
        let frame = self.decoder.push(bytes)?;
        let Some(waiting) = &self.waiting else { return Some(Heard::Nothing) };
        if frame.seq() != self.seq || frame.address() != VALIDATOR {
            return Some(Heard::Nothing);
        }
        let answer = match (&self.session, frame.data().first()) {
            (Some(session), Some(&STEX)) => match session.open_reply(frame.data()) {
                Ok(opened) => Frame::new(self.seq, VALIDATOR, opened.data()),
                // an old packet, or damage: it is asked for again
                Err(_) => return Some(Heard::Nothing),
            },
            // it has lost the keys, and has not understood what was said
            (Some(_), _) => return Some(Heard::KeysLost),
            (None, Some(&STEX)) => return Some(Heard::Nothing),
            (None, _) => frame,
        };
        let said = waiting.said;
        self.waiting = None;
        if Reply::parse(answer.data()).status == Status::KeyNotSet {
            return Some(Heard::KeysLost);
        }
        Some(Heard::Answer(said, Answer(answer)))
    }
}
