//! CashCode CCNET frames: `02 ADR LNG CMD [DATA] CRClo CRChi`.
//!
//! Promise: as of [`stream`]; LNG counts the whole frame. A reply names no command: what it
//! answers is told by its length and its first byte, and by who had asked.
//!
//! Failure policy: a frame with a bad check or length is passed over; whoever waits for it says NAK
//! or asks again. The long frames of firmware downloads (LNG 00) are passed over too: they would
//! let one false start swallow 64 KiB, and nobody here downloads firmware. Codes that we do not know
//! stay `Unknown`.
//!
//! Source: CashCode CCNET protocol, common specifications 2.6.0.

mod codes;
mod reply;
mod request;
pub mod unit;

use std::fmt;
use std::ops::RangeInclusive;

pub use codes::{FailureCode, RejectReason, UnitFailure, UnitJam, country_currency};
pub use reply::{BillSlot, BillTable, Identity, Reply, State};
pub use request::{Bills, Request};

use super::kermit::{self, Data};
use super::stream::{self, Layout, MAX_FRAME};
use crate::trace::Direction;

/// Address of a bill validator.
pub const VALIDATOR: u8 = 0x03;
/// Address of a Bill-to-Bill recycler.
pub const BILL_TO_BILL: u8 = 0x01;

/// First byte of a frame.
const SYNC: u8 = 0x02;
/// Bytes around command and data.
const OVERHEAD: u8 = 5;

/// `02 ADR LNG CMD [DATA]`.
pub enum CcnetLayout {}

impl Layout for CcnetLayout {
    type Frame = Frame;
    const START: u8 = SYNC;
    const LEN_AT: usize = 2;
    const LENGTHS: RangeInclusive<u8> = OVERHEAD + 1..=u8::MAX;

    fn checked(whole: &[u8]) -> Option<Frame> {
        let [_, address, _, content @ ..] = kermit::covered(whole)? else { return None };
        Some(Frame { address: *address, content: Data::new(content) })
    }
}

/// Finds frames in bytes; for either side of the line.
pub type Decoder = stream::Decoder<CcnetLayout>;

/// One frame: the peripheral's address, and a command or the bytes of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    address: u8,
    content: Data,
}

impl Frame {
    /// A frame; content past 250 bytes is cut, for no frame can carry it.
    #[must_use]
    pub fn new(address: u8, first: u8, rest: &[u8]) -> Self {
        let mut content = Data::new(&[first]);
        content.extend(rest);
        Self { address, content }
    }

    /// Whom it is for, or whom it is from.
    #[must_use]
    pub const fn address(&self) -> u8 {
        self.address
    }

    /// The same for, or from, another peripheral.
    #[must_use]
    pub const fn with_address(self, address: u8) -> Self {
        Self { address, ..self }
    }

    /// Command and data, or the bytes of a reply; never empty.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.content.get()
    }

    /// Appends the frame as it goes over the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([SYNC, self.address, self.content.len().saturating_add(OVERHEAD)]);
        out.extend_from_slice(self.content());
        kermit::seal(out, start);
    }

    /// The frame as it goes over the line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_FRAME);
        self.write_to(&mut bytes);
        bytes
    }
}

/// Content in hex, after the address where it is not a validator's.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address != VALIDATOR {
            write!(f, "[{:02X}] ", self.address)?;
        }
        self.content.fmt(f)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({self})")
    }
}

/// What bytes of one direction say, for the trace.
#[must_use]
pub fn in_words(direction: Direction, bytes: &[u8]) -> String {
    stream::in_words::<CcnetLayout>(bytes, |frame| match direction {
        Direction::Sent => Request::parse(frame).to_string(),
        Direction::Received => Reply::parse(frame).to_string(),
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unit_tests;
