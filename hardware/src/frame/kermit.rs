//! What ID-003 and CCNET frames have in common: their data (as SSP has it, too), and CRC-16/KERMIT over
//! everything before it, low byte first.
//!
//! Promise: nothing here allocates but the bytes of a frame that is sent.
//!
//! Failure policy: bytes whose check does not hold are no frame.

use std::fmt;

use super::{crc16_kermit, hex};

/// Longest data of a frame.
pub const MAX_DATA: usize = 250;

/// The data of a frame, at most `MOST` bytes (which is at most 255), without a heap.
#[derive(Clone, Copy)]
pub(super) struct Data<const MOST: usize = MAX_DATA> {
    bytes: [u8; MOST],
    len: u8,
}

impl<const MOST: usize> Data<MOST> {
    /// Bytes past the most are cut, for no frame can carry them.
    pub(super) fn new(from: &[u8]) -> Self {
        let mut data = Self { bytes: [0; MOST], len: 0 };
        data.extend(from);
        data
    }

    /// Appends bytes; those past the most are cut.
    pub(super) fn extend(&mut self, from: &[u8]) {
        let room = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        let count = from.len().min(room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..count), from.get(..count)) {
            to.copy_from_slice(from);
        }
        // at most 255
        self.len = self.len.saturating_add(u8::try_from(count).unwrap_or(u8::MAX));
    }

    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(super) const fn len(&self) -> u8 {
        self.len
    }
}

impl<const MOST: usize> PartialEq for Data<MOST> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<const MOST: usize> Eq for Data<MOST> {}

/// In hex.
impl<const MOST: usize> fmt::Display for Data<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.get()))
    }
}

/// Appends the check of everything from `start` on.
pub(super) fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc16_kermit(out.get(start..).unwrap_or_default());
    out.extend(crc.to_le_bytes());
}

/// What stands before the check of these bytes, if the check holds.
pub(super) fn covered(whole: &[u8]) -> Option<&[u8]> {
    let (covered, check) = whole.split_last_chunk::<2>()?;
    (crc16_kermit(covered) == u16::from_le_bytes(*check)).then_some(covered)
}
