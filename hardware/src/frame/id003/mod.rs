//! JCM ID-003 frames: `FC LEN CMD [DATA 0..250] CRClo CRChi`.
//!
//! Promise: the [`Decoder`] takes bytes in any split, allocates nothing, holds at most 255 bytes,
//! and finds the next frame inside what a false start has swallowed. LEN counts the whole frame;
//! the check is CRC-16/KERMIT over everything before it, low byte first.
//!
//! Failure policy: a frame with a bad check or length is passed over in silence, as the protocol
//! wants: it has no NAK, the host asks again. Codes that we do not know stay `Unknown`.
//!
//! Source: JCM ID-003 protocol specification, as used by UBA, iVIZION and iPRO units.

mod codes;
mod reply;
mod request;

use std::fmt;

pub use codes::{FailureCode, RejectReason, country_currency};
pub use reply::{Currencies, CurrencySlot, Held, Reply, Status};
pub use request::{CommMode, Config, ConfigKind, POWER_RECOVERY, Request};

use super::{crc16_kermit, hex};
use crate::trace::Direction;

/// First byte of a frame.
const SYNC: u8 = 0xfc;
/// Bytes around the data.
const OVERHEAD: u8 = 5;
/// Longest data.
pub const MAX_DATA: usize = 250;
const MAX_FRAME: usize = 255;

/// One frame: a command or reply code and its data.
#[derive(Clone, Copy)]
pub struct Frame {
    op: u8,
    data: [u8; MAX_DATA],
    data_len: u8,
}

impl Frame {
    /// A frame; data past 250 bytes is cut, for no frame can carry it.
    #[must_use]
    pub fn new(op: u8, data: &[u8]) -> Self {
        let mut frame = Self { op, data: [0; MAX_DATA], data_len: 0 };
        for (slot, byte) in frame.data.iter_mut().zip(data) {
            *slot = *byte;
            frame.data_len = frame.data_len.saturating_add(1);
        }
        frame
    }

    /// The command or reply code.
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.op
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..usize::from(self.data_len)).unwrap_or_default()
    }

    /// Appends the frame as it goes over the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([SYNC, self.data_len.saturating_add(OVERHEAD), self.op]);
        out.extend_from_slice(self.data());
        let crc = crc16_kermit(out.get(start..).unwrap_or_default());
        out.extend(crc.to_le_bytes());
    }

    /// The frame as it goes over the line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_FRAME);
        self.write_to(&mut bytes);
        bytes
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.data() == other.data()
    }
}

impl Eq for Frame {}

/// Code and data in hex.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.op)?;
        if self.data_len > 0 {
            write!(f, " {}", hex(self.data()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({self})")
    }
}

/// Finds frames in bytes; for either side of the line.
pub struct Decoder {
    buffer: [u8; MAX_FRAME],
    len: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: [0; MAX_FRAME], len: 0 }
    }
}

impl Decoder {
    /// Takes bytes off the front until a frame is whole or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            if let Some(frame) = self.settle() {
                return Some(frame);
            }
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            // settle leaves less than a whole frame, so there is room
            if let Some(slot) = self.buffer.get_mut(self.len) {
                *slot = *first;
                self.len = self.len.saturating_add(1);
            }
        }
    }

    /// Forgets a frame that has begun: what comes next begins anew.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes of a frame that has begun.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.len
    }

    fn settle(&mut self) -> Option<Frame> {
        loop {
            let held = self.buffer.get(..self.len)?;
            let len = match held {
                [] | [SYNC] => return None,
                [SYNC, len, ..] if *len >= OVERHEAD => usize::from(*len),
                _ => {
                    self.skip(1);
                    continue;
                }
            };
            let frame = checked(held.get(..len)?);
            self.skip(if frame.is_some() { len } else { 1 });
            if frame.is_some() {
                return frame;
            }
        }
    }

    fn skip(&mut self, count: usize) {
        let count = count.min(self.len);
        self.buffer.copy_within(count..self.len, 0);
        self.len = self.len.saturating_sub(count);
    }
}

/// The frame in exactly these bytes, if the check holds.
fn checked(bytes: &[u8]) -> Option<Frame> {
    let (covered, check) = bytes.split_last_chunk::<2>()?;
    let [_, _, op, data @ ..] = covered else { return None };
    (crc16_kermit(covered) == u16::from_le_bytes(*check)).then(|| Frame::new(*op, data))
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
        words.push_str(&match direction {
            Direction::Sent => Request::parse(&frame).to_string(),
            Direction::Received => Reply::parse(&frame).to_string(),
        });
    }
    if words.is_empty() || decoder.pending() > 0 {
        words.push_str(" (no whole frame)");
    }
    words
}

#[cfg(test)]
mod tests;
