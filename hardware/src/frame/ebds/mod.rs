//! MEI/CPI EBDS frames: `02 LEN CTL DATA 03 CHK`, every byte below 80.
//!
//! Promise: the [`Decoder`] takes bytes in any split, allocates nothing, holds at most 127 bytes,
//! and finds the next frame inside what a false start has swallowed. LEN counts the whole frame;
//! CHK is the XOR of everything from LEN to the last byte of the data. CTL carries the toggle
//! (bit 0), the device type (bits 1 to 3) and the message type (bits 4 to 6).
//!
//! Failure policy: a frame with a bad check, length or end is passed over in silence, as the
//! protocol wants: it has no NAK, the host asks again with the same toggle. The check is weak: two
//! errors in one column cancel each other, so that whoever acts on a frame should have heard it
//! twice. Types that we do not know stay `Unknown`.
//!
//! Source: MEI/CPI EBDS protocol specification, as used by Cashflow SC 66, 83, 85 and SCN.

mod note;
mod reply;
mod request;

use std::fmt;

pub use note::{Classification, NoteReport, ValueTable};
pub use reply::{Reply, Status, bits};
pub use request::{NoteSet, Omnibus, PowerUpPolicy, Query, Request};

use super::hex;
use crate::trace::Direction;

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// Bytes around the data.
const OVERHEAD: u8 = 5;
/// Longest data: bytes are below 80, and LEN is one of them.
pub const MAX_DATA: usize = 122;
const MAX_FRAME: usize = 127;
/// Every byte of a frame is below this.
const SEVEN_BITS: u8 = 0x7f;

/// Bits 4 to 6 of CTL.
mod kind {
    pub(super) const OMNIBUS: u8 = 1;
    pub(super) const REPLY: u8 = 2;
    pub(super) const AUXILIARY: u8 = 6;
    pub(super) const EXTENDED: u8 = 7;
}

/// One frame: its control byte and its data.
#[derive(Clone, Copy)]
pub struct Frame {
    control: u8,
    data: [u8; MAX_DATA],
    data_len: u8,
}

impl Frame {
    /// A frame of a note acceptor; data past 122 bytes is cut, and the high bit of each byte is
    /// dropped, for no frame can carry it.
    #[must_use]
    pub fn new(kind: u8, toggle: bool, data: &[u8]) -> Self {
        Self::with_control((kind & 7) << 4 | u8::from(toggle), data.iter().copied())
    }

    fn with_control(control: u8, data: impl Iterator<Item = u8>) -> Self {
        let mut frame = Self { control: control & SEVEN_BITS, data: [0; MAX_DATA], data_len: 0 };
        for (slot, byte) in frame.data.iter_mut().zip(data) {
            *slot = byte & SEVEN_BITS;
            frame.data_len = frame.data_len.saturating_add(1);
        }
        frame
    }

    /// The message type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.control >> 4
    }

    /// The toggle: the host turns it over with each new message, the device gives it back.
    #[must_use]
    pub const fn toggle(&self) -> bool {
        self.control & 1 == 1
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..usize::from(self.data_len)).unwrap_or_default()
    }

    /// Appends the frame as it goes over the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend([STX, self.data_len.saturating_add(OVERHEAD), self.control]);
        out.extend_from_slice(self.data());
        out.extend([ETX, self.check()]);
    }

    /// The frame as it goes over the line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_FRAME);
        self.write_to(&mut bytes);
        bytes
    }

    fn check(&self) -> u8 {
        let head = self.data_len.saturating_add(OVERHEAD) ^ self.control;
        self.data().iter().fold(head, |check, byte| check ^ byte)
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.control == other.control && self.data() == other.data()
    }
}

impl Eq for Frame {}

/// Control byte and data in hex.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.control)?;
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
                [] | [STX] => return None,
                [STX, len, ..] if (OVERHEAD..=SEVEN_BITS).contains(len) => usize::from(*len),
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

/// The frame in exactly these bytes, if end and check hold.
fn checked(bytes: &[u8]) -> Option<Frame> {
    let [_, _, control, data @ .., ETX, check] = bytes else { return None };
    let frame = Frame::with_control(*control, data.iter().copied());
    (bytes.iter().all(|byte| *byte <= SEVEN_BITS) && frame.check() == *check).then_some(frame)
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
        words.push_str(if frame.toggle() { " [1]" } else { " [0]" });
    }
    if words.is_empty() || decoder.pending() > 0 {
        words.push_str(" (no whole frame)");
    }
    words
}

#[cfg(test)]
mod tests;
