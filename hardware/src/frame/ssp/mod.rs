//! ITL SSP and eSSP: validators (NV9, NV200), and the SMART Payout on them.
//!
//! Promise: `7F SEQ|ADDR LEN DATA CRC`, every 7F after the first doubled. The [`Decoder`] takes bytes
//! in any split, allocates nothing and holds less than one longest frame; a single 7F begins a frame
//! anew, so that whatever came before it costs no more than the frame that it stood in. Payout
//! commands go in [encrypted](cipher) data.
//!
//! Failure policy: a frame whose check does not hold is passed over in silence; codes that we do not
//! know stay `Unknown` with their bytes.
//!
//! Source: ITL's SSP protocol manual GA138 and its implementation guide GA973.

pub mod cipher;
mod event;
mod reply;
mod request;

use std::fmt;

use crc::{CRC_16_CMS, Crc, Table};

use super::kermit::Data;
use crate::trace::Direction;

pub use event::{Amount, CAUSE_WRONG_NOTE, Detail, Event, EventCode, Events, Pairs, Sums};
pub use reply::{
    Channel, Levels, RejectReason, Reply, Setup, Status, UNIT_SMART_PAYOUT, write_levels,
};
pub use request::{COUNTRY, Counted, Hidden, How, MAX_COUNTED, Money, Request, Route};

/// First byte of a frame.
pub const STX: u8 = 0x7f;
/// First byte of encrypted data.
pub const STEX: u8 = 0x7e;
/// Address of a validator, and of the payout on it.
pub const VALIDATOR: u8 = 0x00;
/// Longest data of a frame.
pub const MAX_DATA: usize = 255;

/// Bit of the sequence flag beside the address.
const SEQ: u8 = 0x80;
/// SEQ|ADDR, LEN and check.
const OVERHEAD: usize = 4;
const MAX_BODY: usize = MAX_DATA + OVERHEAD;

/// Polynomial 8005, start FFFF, not reflected.
static CHECK: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_CMS);

/// The check of SSP frames and of what stands encrypted in them; the low byte goes first.
#[must_use]
pub fn crc16_ssp(bytes: &[u8]) -> u16 {
    CHECK.checksum(bytes)
}

/// One frame, of either side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    head: u8,
    data: Data<MAX_DATA>,
}

impl Frame {
    /// A frame; bytes past 255 are cut, for no frame can carry them.
    #[must_use]
    pub fn new(seq: bool, address: u8, data: &[u8]) -> Self {
        let flag = if seq { SEQ } else { 0 };
        Self { head: (address & !SEQ) | flag, data: Data::new(data) }
    }

    /// The sequence flag: it flips with each new command, and stays for the same one again.
    #[must_use]
    pub const fn seq(&self) -> bool {
        self.head & SEQ != 0
    }

    /// Whose it is.
    #[must_use]
    pub const fn address(&self) -> u8 {
        self.head & !SEQ
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get()
    }

    /// Appends the frame as it goes over the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut digest = CHECK.digest();
        let head = [self.head, self.data.len()];
        digest.update(&head);
        digest.update(self.data());
        let check = digest.finalize().to_le_bytes();
        out.push(STX);
        for byte in head.iter().chain(self.data()).chain(&check) {
            out.push(*byte);
            if *byte == STX {
                out.push(STX);
            }
        }
    }

    /// The frame as it goes over the line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_BODY);
        self.write_to(&mut bytes);
        bytes
    }
}

/// Sequence flag, address and data in hex.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X} {}", self.head, self.data)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({self})")
    }
}

/// Finds frames in bytes; for either side of the line.
pub struct Decoder {
    body: [u8; MAX_BODY],
    len: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a 7F.
    Between,
    /// Behind the 7F that begins a frame.
    Begun,
    Body,
    /// Behind a 7F in the body: the first of two, or the beginning of another frame.
    Half,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { body: [0; MAX_BODY], len: 0, state: State::Between }
    }
}

impl Decoder {
    /// Takes bytes off the front until a frame is whole or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.state {
                State::Between => {
                    let at = bytes.iter().position(|byte| *byte == STX);
                    let Some(at) = at else {
                        *bytes = &[];
                        return None;
                    };
                    *bytes = bytes.get(at.saturating_add(1)..).unwrap_or_default();
                    self.state = State::Begun;
                    self.len = 0;
                    continue;
                }
                // no unit has the address 7F: the second of two begins the frame
                State::Begun if *first == STX => {}
                State::Begun => {
                    self.state = State::Body;
                    continue;
                }
                State::Half if *first == STX => {
                    self.state = State::Body;
                    self.hold(&[STX]);
                }
                State::Half => {
                    self.len = 0;
                    self.state = State::Body;
                    continue;
                }
                State::Body if *first == STX => self.state = State::Half,
                State::Body => {
                    let wanted = bytes.get(..self.missing()).unwrap_or(bytes);
                    let run = wanted.iter().position(|byte| *byte == STX).unwrap_or(wanted.len());
                    let (run, rest) = bytes.split_at_checked(run).unwrap_or((bytes, &[]));
                    *bytes = rest;
                    self.hold(run);
                    if let Some(frame) = self.whole() {
                        return Some(frame);
                    }
                    continue;
                }
            }
            *bytes = rest;
            if let Some(frame) = self.whole() {
                return Some(frame);
            }
        }
        None
    }

    /// Forgets a frame that has begun: what comes next begins anew.
    pub fn clear(&mut self) {
        self.len = 0;
        self.state = State::Between;
    }

    /// Bytes of a frame that has begun.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.len
    }

    /// Bytes that are missing before more can be said.
    fn missing(&self) -> usize {
        let needed = match self.body.get(1) {
            Some(len) if self.len >= 2 => usize::from(*len).saturating_add(OVERHEAD),
            _ => 2,
        };
        needed.saturating_sub(self.len)
    }

    fn hold(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(room) = self.body.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }

    /// The frame, once all of it is there and its check holds.
    fn whole(&mut self) -> Option<Frame> {
        if self.state != State::Body || self.missing() > 0 {
            return None;
        }
        let body = self.body.get(..self.len)?;
        let (covered, check) = body.split_last_chunk::<2>()?;
        let good = crc16_ssp(covered) == u16::from_le_bytes(*check);
        let frame = match covered {
            [head, _, data @ ..] if good && !data.is_empty() => {
                Some(Frame { head: *head, data: Data::new(data) })
            }
            _ => None,
        };
        self.clear();
        frame
    }
}

/// What bytes of one direction say, for the trace.
#[must_use]
pub fn in_words(direction: Direction, mut bytes: &[u8]) -> String {
    let mut decoder = Decoder::default();
    let mut words = String::new();
    while let Some(frame) = decoder.push(&mut bytes) {
        if !words.is_empty() {
            words.push_str("; ");
        }
        let said = match (direction, frame.data()) {
            (_, [STEX, rest @ ..]) => format!("encrypted, {} bytes", rest.len()),
            (Direction::Sent, data) => Request::parse(data).to_string(),
            (Direction::Received, data) => Reply::parse(data).to_string(),
        };
        words.push_str(&said);
    }
    if words.is_empty() || decoder.pending() > 0 {
        words.push_str(" (no whole frame)");
    }
    words
}

#[cfg(test)]
mod tests;
