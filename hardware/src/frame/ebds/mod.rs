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
use std::ops::RangeInclusive;

pub use note::{Classification, NoteReport, ValueTable};
pub use reply::{Reply, Status, bits};
pub use request::{NoteSet, Omnibus, PowerUpPolicy, Query, Request};

use super::hex;
use super::stream::{self, Layout};
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

/// `02 LEN CTL [DATA] 03 CHK`.
pub enum EbdsLayout {}

impl Layout for EbdsLayout {
    type Frame = Frame;
    const START: u8 = STX;
    const LEN_AT: usize = 1;
    const LENGTHS: RangeInclusive<u8> = OVERHEAD..=SEVEN_BITS;

    fn checked(whole: &[u8]) -> Option<Frame> {
        let [STX, covered @ .., ETX, check] = whole else { return None };
        let [_, control, data @ ..] = covered else { return None };
        let mix = |(any, sum), byte: &u8| (any | byte, sum ^ byte);
        let (any, sum) = covered.iter().fold((*check, *check), mix);
        (any <= SEVEN_BITS && sum == 0).then(|| {
            let mut frame = Frame { control: *control, data: [0; MAX_DATA], data_len: 0 };
            if let Some(slot) = frame.data.get_mut(..data.len()) {
                slot.copy_from_slice(data);
                // a frame has at most 127 bytes
                frame.data_len = u8::try_from(data.len()).unwrap_or(0);
            }
            frame
        })
    }
}

/// Finds frames in bytes; for either side of the line.
pub type Decoder = stream::Decoder<EbdsLayout>;

/// What bytes of one direction say, for the trace.
#[must_use]
pub fn in_words(direction: Direction, bytes: &[u8]) -> String {
    stream::in_words::<EbdsLayout>(bytes, |frame| {
        let words = match direction {
            Direction::Sent => Request::parse(frame).to_string(),
            Direction::Received => Reply::parse(frame).to_string(),
        };
        format!("{words} [{}]", u8::from(frame.toggle()))
    })
}

#[cfg(test)]
mod tests;
