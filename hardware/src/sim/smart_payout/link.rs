//! Frames, flags and keys, as the device has them.

use super::super::mishaps::Mishaps;
use super::*;
use crate::frame::ssp::cipher::{Exchange, Session};
use crate::frame::ssp::{Decoder, Frame, Request, STEX, Status, VALIDATOR};

/// A frame whose bytes stop for this long is forgotten.
const INTER_BYTE_MS: u64 = 200;

#[derive(Default)]
pub(super) struct Link {
    decoder: Decoder,
    last_byte: Mono,
    /// The flag of the last command, and the answer to it.
    last: Option<(bool, Vec<u8>)>,
    session: Option<Session>,
    /// RESET takes the keys, once it is answered.
    ending: bool,
    pub(super) mishaps: Mishaps,
}

impl Link {
    pub(super) fn forget(&mut self) {
        (self.session, self.last) = (None, None);
        self.decoder.clear();
        self.mishaps.bytes_left = None;
    }

    pub(super) fn end_session_after_answer(&mut self) {
        self.ending = true;
    }
}

impl SmartPayoutSim {
    pub(super) fn hear(&mut self, mut bytes: &[u8], now: Mono) -> Vec<u8> {
        if now.since(self.link.last_byte) >= INTER_BYTE_MS {
            self.link.decoder.clear();
        }
        self.link.last_byte = now;
        let mut out = Vec::new();
        while let Some(frame) = self.link.decoder.push(&mut bytes) {
            if matches!(self.phase, Phase::Off(_)) || frame.address() != VALIDATOR {
                continue;
            }
            if self.link.mishaps.is_deaf() {
                continue;
            }
            if let Some(answer) = self.on_frame(&frame, now) {
                self.send(&answer, &mut out);
            }
        }
        out
    }

    fn on_frame(&mut self, frame: &Frame, now: Mono) -> Option<Vec<u8>> {
        let sync = Request::parse(frame.data()) == Request::Sync;
        match &self.link.last {
            Some((flag, answer)) if *flag == frame.seq() && !sync => return Some(answer.clone()),
            _ => {}
        }
        let reply = if frame.data().first() == Some(&STEX) {
            match &mut self.link.session {
                None => vec![Status::KeyNotSet.code()],
                Some(session) => match session.open_command(frame.data()) {
                    Ok(opened) => {
                        let plain = self.obey(&Request::parse(opened.data()), true, now);
                        let pad = self.draw.block();
                        self.link.session.as_ref()?.seal_reply(&plain, pad)?
                    }
                    Err(_) if self.options.says_unread => vec![Status::KeyNotSet.code()],
                    Err(_) => return None,
                },
            }
        } else {
            self.obey(&Request::parse(frame.data()), false, now)
        };
        let answer = Frame::new(frame.seq(), VALIDATOR, &reply).to_bytes();
        // behind SYNC the first command comes without the flag
        self.link.last = Some((sync || frame.seq(), answer.clone()));
        if std::mem::take(&mut self.link.ending) {
            (self.link.session, self.link.last) = (None, None);
        }
        Some(answer)
    }

    fn send(&mut self, answer: &[u8], out: &mut Vec<u8>) {
        if !self.link.mishaps.say(out, |out| out.extend_from_slice(answer)) {
            self.lose_power();
        }
    }

    /// The device's part of the key exchange.
    pub(super) fn exchange(&mut self, theirs: u64) -> Option<u64> {
        let (generator, modulus) = (self.settings.generator?, self.settings.modulus?);
        let exchange = Exchange::new(generator, modulus, self.draw.secret());
        self.link.session = Some(exchange.finish(theirs, &self.fixed).ok()?);
        Some(exchange.public())
    }
}
