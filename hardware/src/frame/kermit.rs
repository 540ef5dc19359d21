//! What ID-003 and CCNET frames have in common: a start byte, one byte for the length of the whole
//! frame, and CRC-16/KERMIT over everything before it, low byte first.
//!
//! Promise: the [`Decoder`] takes bytes in any split, allocates nothing, holds at most 255 bytes,
//! and finds the next frame inside what a false start has swallowed.
//!
//! Failure policy: a frame with a bad check or length is passed over in silence.

use std::fmt;
use std::marker::PhantomData;

use super::{crc16_kermit, hex};

/// Longest data of a frame.
pub const MAX_DATA: usize = 250;
/// Longest frame.
pub(super) const MAX_FRAME: usize = 255;

/// How a protocol lays its frames out.
pub trait Layout {
    /// What a frame becomes.
    type Frame;
    /// First byte of a frame.
    const START: u8;
    /// Where the length stands.
    const LEN_AT: usize;
    /// Shortest frame.
    const MIN: u8;
    /// The frame in these bytes, check and all left out; `None` if they are too few.
    fn frame(covered: &[u8]) -> Option<Self::Frame>;
}

/// The data of a frame, without a heap.
#[derive(Clone, Copy)]
pub(super) struct Data {
    bytes: [u8; MAX_DATA],
    len: u8,
}

impl Data {
    /// Bytes past 250 are cut, for no frame can carry them.
    pub(super) fn new<'a>(from: impl IntoIterator<Item = &'a u8>) -> Self {
        let mut data = Self { bytes: [0; MAX_DATA], len: 0 };
        for (slot, byte) in data.bytes.iter_mut().zip(from) {
            *slot = *byte;
            data.len = data.len.saturating_add(1);
        }
        data
    }

    pub(super) fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(super) const fn len(&self) -> u8 {
        self.len
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Data {}

/// In hex.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.get()))
    }
}

/// Appends the check of everything from `start` on.
pub(super) fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc16_kermit(out.get(start..).unwrap_or_default());
    out.extend(crc.to_le_bytes());
}

/// Finds frames in bytes; for either side of the line.
pub struct Decoder<L> {
    buffer: [u8; MAX_FRAME],
    len: usize,
    layout: PhantomData<fn() -> L>,
}

impl<L> Default for Decoder<L> {
    fn default() -> Self {
        Self { buffer: [0; MAX_FRAME], len: 0, layout: PhantomData }
    }
}

impl<L: Layout> Decoder<L> {
    /// Takes bytes off the front until a frame is whole or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<L::Frame> {
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

    fn settle(&mut self) -> Option<L::Frame> {
        loop {
            let held = self.buffer.get(..self.len)?;
            let start = *held.first()?;
            let len = match held.get(L::LEN_AT) {
                _ if start != L::START => 0,
                None => return None,
                Some(len) => usize::from(*len),
            };
            if len < usize::from(L::MIN) {
                self.skip(1);
                continue;
            }
            let frame = checked::<L>(held.get(..len)?);
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
pub(super) fn checked<L: Layout>(bytes: &[u8]) -> Option<L::Frame> {
    let (covered, check) = bytes.split_last_chunk::<2>()?;
    (crc16_kermit(covered) == u16::from_le_bytes(*check)).then(|| L::frame(covered)).flatten()
}

/// What bytes of one direction say, for the trace.
pub(super) fn in_words<L: Layout>(mut bytes: &[u8], say: impl Fn(&L::Frame) -> String) -> String {
    let mut decoder = Decoder::<L>::default();
    let mut words = String::new();
    while let Some(frame) = decoder.push(&mut bytes) {
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(&say(&frame));
    }
    if words.is_empty() || decoder.pending() > 0 {
        words.push_str(" (no whole frame)");
    }
    words
}

/// What every protocol with this layout is tested by.
#[cfg(test)]
pub(super) mod testing {
    use super::{Decoder, Layout, MAX_FRAME};

    pub(in crate::frame) fn bytes(text: &str) -> Vec<u8> {
        text.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
    }

    pub(in crate::frame) fn decode<L: Layout>(mut bytes: &[u8]) -> Vec<L::Frame> {
        let mut decoder = Decoder::<L>::default();
        std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
    }

    pub(in crate::frame) fn refuses_each_bit_error<L: Layout>(text: &str) {
        let good = bytes(text);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<L>(&bad).is_empty(), "{text}, bit {bit}");
        }
    }

    /// The frames in `stream`, given in pieces of these sizes, again and again.
    pub(in crate::frame) fn in_pieces<L: Layout>(
        mut stream: &[u8],
        sizes: &[usize],
    ) -> Vec<L::Frame> {
        let (mut decoder, mut got) = (Decoder::<L>::default(), Vec::new());
        for size in sizes.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let (mut piece, after) = stream.split_at((*size).min(stream.len()));
            stream = after;
            got.extend(std::iter::from_fn(|| decoder.push(&mut piece)));
        }
        got
    }

    /// Whether the frame is found behind this noise once one longest frame has gone by.
    pub(in crate::frame) fn is_found_behind<L: Layout>(mut noise: Vec<u8>, frame: &[u8]) -> bool
    where
        L::Frame: PartialEq,
    {
        // a false start claims at most 255 bytes; what it has swallowed is looked through again
        for _ in 0..=MAX_FRAME / frame.len() {
            noise.extend_from_slice(frame);
        }
        decode::<L>(&noise).last() == decode::<L>(frame).last()
    }
}
