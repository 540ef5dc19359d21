//! JCM ID-003 frames: `FC LEN CMD [DATA 0..250] CRClo CRChi`.
//!
//! Promise: as of [`stream`]; LEN counts the whole frame.
//!
//! Failure policy: a frame with a bad check or length is passed over in silence, as the protocol
//! wants: it has no NAK, the host asks again. Codes that we do not know stay `Unknown`.
//!
//! Source: JCM ID-003 protocol specification, as used by UBA, iVIZION and iPRO units.

mod codes;
pub mod recycler;
mod reply;
mod request;

use std::fmt;
use std::ops::RangeInclusive;

pub use codes::{FailureCode, RejectReason, country_currency};
pub use reply::{Currencies, CurrencySlot, Held, Reply, Status};
pub use request::{CommMode, Config, ConfigKind, POWER_RECOVERY, Request};

pub use super::kermit::MAX_DATA;
use super::kermit::{self, Data};
use super::stream::{self, Layout, MAX_FRAME};
use crate::trace::Direction;

/// First byte of a frame.
const SYNC: u8 = 0xfc;
/// Bytes around the data.
const OVERHEAD: u8 = 5;

/// `FC LEN CMD [DATA]`.
pub enum Id003Layout {}

impl Layout for Id003Layout {
    type Frame = Frame;
    const START: u8 = SYNC;
    const LEN_AT: usize = 1;
    const LENGTHS: RangeInclusive<u8> = OVERHEAD..=u8::MAX;

    fn checked(whole: &[u8]) -> Option<Frame> {
        let [_, _, op, data @ ..] = kermit::covered(whole)? else { return None };
        Some(Frame::new(*op, data))
    }
}

/// Finds frames in bytes; for either side of the line.
pub type Decoder = stream::Decoder<Id003Layout>;

/// One frame: a command or reply code and its data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    op: u8,
    data: Data,
}

impl Frame {
    /// A frame; data past 250 bytes is cut, for no frame can carry it.
    #[must_use]
    pub fn new(op: u8, data: &[u8]) -> Self {
        Self { op, data: Data::new(data) }
    }

    /// The command or reply code.
    #[must_use]
    pub const fn op(&self) -> u8 {
        self.op
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get()
    }

    /// Appends the frame as it goes over the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([SYNC, self.data.len().saturating_add(OVERHEAD), self.op]);
        out.extend_from_slice(self.data());
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

/// Code and data in hex.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X}", self.op)?;
        if self.data.len() > 0 {
            write!(f, " {}", self.data)?;
        }
        Ok(())
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
    stream::in_words::<Id003Layout>(bytes, |frame| {
        if let Some(extension) = recycler::Extension::parse(frame) {
            return extension.to_string();
        }
        match direction {
            Direction::Sent => Request::parse(frame).to_string(),
            Direction::Received => recycler::PayState::parse(frame)
                .map_or_else(|| Reply::parse(frame).to_string(), |state| state.to_string()),
        }
    })
}

#[cfg(test)]
mod tests;
