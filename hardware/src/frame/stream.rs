//! Finding frames in a stream, for protocols whose frames begin with a fixed byte and say their
//! length.
//!
//! Promise: the [`Decoder`] takes bytes in any split, allocates nothing, holds less than one longest
//! frame, and finds the next frame inside what a false start has swallowed. A frame that lies whole
//! in the bytes given is read where it lies.
//!
//! Failure policy: a frame with a bad check or length is passed over in silence.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// Longest frame: one byte says its length.
pub(super) const MAX_FRAME: usize = 255;

/// How a protocol lays its frames out.
pub trait Layout {
    /// What a frame becomes.
    type Frame;
    /// First byte of a frame.
    const START: u8;
    /// Where the length of the whole frame stands.
    const LEN_AT: usize;
    /// Lengths that a frame can have.
    const LENGTHS: RangeInclusive<u8>;
    /// The frame in exactly these bytes, if its check holds.
    fn checked(whole: &[u8]) -> Option<Self::Frame>;
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

/// What stands at the front of some bytes that begin with a start byte.
enum Front<F> {
    /// A good frame of this length.
    Frame(F, usize),
    /// A false start.
    Garbage,
    /// So many bytes are missing before more can be said.
    Missing(usize),
}

fn front<L: Layout>(bytes: &[u8]) -> Front<L::Frame> {
    let Some(len) = bytes.get(L::LEN_AT) else {
        return Front::Missing(L::LEN_AT.saturating_add(1).saturating_sub(bytes.len()));
    };
    if !L::LENGTHS.contains(len) {
        return Front::Garbage;
    }
    let len = usize::from(*len);
    match bytes.get(..len) {
        None => Front::Missing(len.saturating_sub(bytes.len())),
        Some(whole) => L::checked(whole).map_or(Front::Garbage, |frame| Front::Frame(frame, len)),
    }
}

impl<L: Layout> Decoder<L> {
    /// Takes bytes off the front until a frame is whole or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<L::Frame> {
        loop {
            if self.len == 0 {
                *bytes = from_start::<L>(bytes, 0);
                match front::<L>(bytes) {
                    Front::Frame(frame, len) => {
                        *bytes = bytes.get(len..).unwrap_or_default();
                        return Some(frame);
                    }
                    Front::Garbage => *bytes = from_start::<L>(bytes, 1),
                    Front::Missing(_) if bytes.is_empty() => return None,
                    Front::Missing(_) => self.hold(bytes, MAX_FRAME),
                }
                continue;
            }
            match front::<L>(self.buffer.get(..self.len).unwrap_or_default()) {
                Front::Frame(frame, len) => {
                    self.skip(len);
                    return Some(frame);
                }
                Front::Garbage => self.skip(1),
                Front::Missing(_) if bytes.is_empty() => return None,
                Front::Missing(count) => self.hold(bytes, count),
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

    /// Moves at most `count` bytes behind those held. There is room: what is held is less than a
    /// whole frame.
    fn hold(&mut self, bytes: &mut &[u8], count: usize) {
        let room = self.buffer.get_mut(self.len..).unwrap_or_default();
        let count = count.min(bytes.len()).min(room.len());
        if let (Some(to), Some((from, rest))) =
            (room.get_mut(..count), bytes.split_at_checked(count))
        {
            to.copy_from_slice(from);
            *bytes = rest;
            self.len = self.len.saturating_add(count);
        }
    }

    /// Drops `count` bytes, and what stands before the next start byte behind them.
    fn skip(&mut self, count: usize) {
        let left = from_start::<L>(self.buffer.get(..self.len).unwrap_or_default(), count).len();
        self.buffer.copy_within(self.len.saturating_sub(left)..self.len, 0);
        self.len = left;
    }
}

/// The bytes from the first start byte at or behind `from`.
fn from_start<L: Layout>(bytes: &[u8], from: usize) -> &[u8] {
    let bytes = bytes.get(from..).unwrap_or_default();
    let at = bytes.iter().position(|byte| *byte == L::START).unwrap_or(bytes.len());
    bytes.get(at..).unwrap_or_default()
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
