//! Fujitsu F53/F56 (F510 family): the frames on the line.
//!
//! Promise: every byte stream becomes tokens ([`Token`]) in any split; nothing panics and nothing
//! larger than [`MAX_PAYLOAD`] is ever held. The link is half duplex and symmetric: `DLE ENQ`, `DLE
//! ACK` or `DLE NAK`, then `DLE STX LENhi LENlo payload DLE ETX CRClo CRChi`, then `DLE ACK` or `DLE
//! NAK`. The length counts the payload only; a `10` inside it is not doubled, so a frame is read by
//! its length; the CRC is CRC-16/KERMIT over length, payload and `10 03`, low byte first.
//!
//! Failure policy: a frame that does not add up is [`Token::Damaged`] with the reason, never a
//! payload; bytes outside a frame that are no control pair are skipped. The decoder cannot tell the
//! rest of a damaged frame from control pairs: whoever drives it waits for a quiet line first.
//!
//! Sources: the public Lamassu driver (lamassu-machine `lib/f56`), public captures of F53 units.

mod notes;
mod reply;
mod request;

pub use notes::{NoteSize, UnsupportedNote, note_size};
pub use reply::{BayCount, ErrorReport, Reply, SENSOR_NAMES, SensorState};
pub use request::{Counts, Request, Setup, TwoDigits};

use crate::frame::{crc16_kermit, hex};

/// Cassettes that one command addresses; smaller units leave slots at 0.
pub const SLOTS: usize = 4;
/// Longest payload that is read; the longest known one has 157 bytes.
pub const MAX_PAYLOAD: usize = 512;

/// `DLE`.
pub const DLE: u8 = 0x10;
/// `DLE ENQ`: may I send?
pub const ENQ: [u8; 2] = [DLE, 0x05];
/// `DLE ACK`: yes, or: received.
pub const ACK: [u8; 2] = [DLE, 0x06];
/// `DLE NAK`: no, or: send it again.
pub const NAK: [u8; 2] = [DLE, 0x15];

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// The last byte of every payload.
const FS: u8 = 0x1c;

/// What a frame carries, without a heap.
#[derive(Clone, Copy)]
pub struct Payload {
    bytes: [u8; MAX_PAYLOAD],
    len: usize,
}

impl Payload {
    /// A payload; bytes past [`MAX_PAYLOAD`] are cut, for no frame can carry them.
    #[must_use]
    pub fn new(from: &[u8]) -> Self {
        let len = from.len().min(MAX_PAYLOAD);
        let mut payload = Self { bytes: [0; MAX_PAYLOAD], len };
        if let (Some(to), Some(from)) = (payload.bytes.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        payload
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl std::ops::DerefMut for Payload {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

/// In hex.
impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({})", hex(self))
    }
}

/// What came over the line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "no heap; tokens are used up one by one")]
pub enum Token {
    /// `10 05`.
    Enq,
    /// `10 06`.
    Ack,
    /// `10 15`.
    Nak,
    /// The payload of a frame whose length and checksum are right.
    Payload(Payload),
    /// A frame began and did not add up.
    Damaged(Damage),
}

/// Why a frame was no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The length field is 0 or beyond what any unit sends.
    #[error("expected a length from 1 to 512, got {got}")]
    Length {
        /// The length field.
        got: u16,
    },
    /// No `10 03` where the length says that the payload ends.
    #[error("expected the trailer 10 03, got byte {got:02X}")]
    Trailer {
        /// The byte that came.
        got: u8,
    },
    /// The checksum is another.
    #[error("expected checksum {expected:04X}, got {got:04X}")]
    Checksum {
        /// Computed from the frame.
        expected: u16,
        /// As it came.
        got: u16,
    },
}

/// The frame around a payload of at most [`MAX_PAYLOAD`] bytes (each [`Request`] and [`Reply`] is).
#[must_use]
pub fn encode(payload: &[u8]) -> Vec<u8> {
    let [.., high, low] = payload.len().to_be_bytes();
    let mut body = vec![high, low];
    body.extend_from_slice(payload);
    body.extend_from_slice(&[DLE, ETX]);
    let crc = crc16_kermit(&body);
    let mut frame = vec![DLE, STX];
    frame.append(&mut body);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame
}

#[derive(Clone, Copy, Debug)]
enum At {
    Outside,
    Dle,
    LengthHigh,
    LengthLow,
    Payload,
    TrailerDle,
    Trailer,
    CrcLow,
    CrcHigh,
}

/// Length, payload and trailer.
const MAX_BODY: usize = MAX_PAYLOAD + 4;

/// Reads bytes in any split; one per direction.
#[derive(Debug)]
pub struct Decoder {
    at: At,
    /// Length, payload and trailer of the frame being read: what the checksum covers.
    body: [u8; MAX_BODY],
    len: usize,
    /// Where the payload ends in `body`.
    end: usize,
    crc_low: u8,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { at: At::Outside, body: [0; MAX_BODY], len: 0, end: 0, crc_low: 0 }
    }
}

impl Decoder {
    /// Takes bytes off the front until there is a token or none are left; call it again until it
    /// says `None`.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        loop {
            if matches!(self.at, At::Payload) {
                self.payload(bytes);
            }
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            if let Some(token) = self.byte(*first) {
                return Some(token);
            }
        }
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub const fn in_frame(&self) -> bool {
        !matches!(self.at, At::Outside | At::Dle)
    }

    /// Forgets a frame that has begun.
    pub const fn reset(&mut self) {
        self.at = At::Outside;
        self.len = 0;
    }

    /// As much of the payload as there is.
    fn payload(&mut self, bytes: &mut &[u8]) {
        let room = self.body.get_mut(self.len..self.end).unwrap_or_default();
        let count = room.len().min(bytes.len());
        if let (Some(to), Some((from, rest))) =
            (room.get_mut(..count), bytes.split_at_checked(count))
        {
            to.copy_from_slice(from);
            *bytes = rest;
            self.len = self.len.saturating_add(count);
        }
        if self.len >= self.end {
            self.at = At::TrailerDle;
        }
    }

    fn byte(&mut self, byte: u8) -> Option<Token> {
        match self.at {
            At::Outside => {
                if byte == DLE {
                    self.at = At::Dle;
                }
                None
            }
            At::Dle => self.control(byte),
            At::LengthHigh => self.keep(byte, At::LengthLow),
            At::LengthLow => {
                self.keep(byte, At::Payload);
                let high = self.body.first().copied().unwrap_or(0);
                let length = u16::from_be_bytes([high, byte]);
                if length == 0 || usize::from(length) > MAX_PAYLOAD {
                    return self.damaged(Damage::Length { got: length });
                }
                self.end = usize::from(length).saturating_add(2);
                None
            }
            At::TrailerDle if byte == DLE => self.keep(byte, At::Trailer),
            At::Trailer if byte == ETX => self.keep(byte, At::CrcLow),
            // push takes the payload before it comes here
            At::Payload | At::TrailerDle | At::Trailer => {
                self.damaged(Damage::Trailer { got: byte })
            }
            At::CrcLow => {
                self.crc_low = byte;
                self.at = At::CrcHigh;
                None
            }
            At::CrcHigh => {
                let got = u16::from_le_bytes([self.crc_low, byte]);
                let expected = crc16_kermit(self.body.get(..self.len).unwrap_or_default());
                if got != expected {
                    return self.damaged(Damage::Checksum { expected, got });
                }
                let payload = Payload::new(self.body.get(2..self.end).unwrap_or_default());
                self.reset();
                Some(Token::Payload(payload))
            }
        }
    }

    fn control(&mut self, byte: u8) -> Option<Token> {
        self.at = At::Outside;
        match byte {
            STX => {
                self.at = At::LengthHigh;
                None
            }
            DLE => {
                self.at = At::Dle;
                None
            }
            0x05 => Some(Token::Enq),
            0x06 => Some(Token::Ack),
            0x15 => Some(Token::Nak),
            _ => None,
        }
    }

    fn keep(&mut self, byte: u8, next: At) -> Option<Token> {
        if let Some(slot) = self.body.get_mut(self.len) {
            *slot = byte;
            self.len = self.len.saturating_add(1);
        }
        self.at = next;
        None
    }

    fn damaged(&mut self, why: Damage) -> Option<Token> {
        self.reset();
        Some(Token::Damaged(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of a hex text with blanks.
    pub(super) fn bytes(hex: &str) -> Vec<u8> {
        hex.split_ascii_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
    }

    fn tokens(mut bytes: &[u8]) -> Vec<Token> {
        let mut decoder = Decoder::default();
        std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
    }

    /// Loss prevented: one wrong bit in our framing and no real unit ever answers.
    #[test]
    fn public_request_vectors_in_both_directions() {
        let size = |max, min, thickness| NoteSize { max, min, thickness, polymer: false };
        let usd = size(0xa6, 0x92, 0x0d);
        let none = size(0, 0, 0x0d);
        let digits = |n| TwoDigits::new(n).unwrap();
        let four = |a, b, c, d| [digits(a), digits(b), digits(c), digits(d)];
        let vectors = [
            (
                "10 02 00 11 60 02 0D 00 A6 92 A6 92 00 00 00 00 0D 0D 0D 0D 1C 10 03 DC B0",
                Request::Init(Setup { odr: 0, slots: [usd, usd, none, none] }),
            ),
            (
                "10 02 00 19 60 03 15 E4 30 33 30 B1 30 30 30 30 30 B4 30 B4 30 B4 30 B4 \
                 03 03 03 03 1C 10 03 8D 21",
                Request::Count(Counts::new(four(3, 1, 0, 0))),
            ),
            ("10 02 00 03 00 01 1C 10 03 FA 97", Request::Status),
            ("10 02 00 03 00 10 1C 10 03 E0 48", Request::Cancel),
            (
                "10 02 00 19 60 03 15 E4 30 B1 30 30 30 30 30 30 30 30 30 30 30 30 30 30 \
                 02 02 02 00 1C 10 03 9A D6",
                Request::Count(Counts {
                    notes: four(1, 0, 0, 0),
                    reject_limits: four(0, 0, 0, 0),
                    retries: [2, 2, 2, 0],
                }),
            ),
            (
                "10 02 00 21 60 02 FF 00 00 1A 00 40 82 6E 89 75 93 7F 00 00 0C 0C 0C 00 \
                 00 00 00 00 00 00 00 00 00 00 00 00 1C 10 03 A6 AE",
                Request::InitExtended(Setup {
                    odr: 0x40,
                    slots: [
                        size(0x82, 0x6e, 0x0c),
                        size(0x89, 0x75, 0x0c),
                        size(0x93, 0x7f, 0x0c),
                        size(0, 0, 0),
                    ],
                }),
            ),
        ];
        for (wire, request) in vectors {
            let wire = bytes(wire);
            assert_eq!(hex(&encode(&request.payload())), hex(&wire), "{request:?}");
            let tokens = tokens(&wire);
            let [Token::Payload(payload)] = tokens.as_slice() else { panic!("{tokens:?}") };
            assert_eq!(Request::parse(payload), request);
        }
    }

    /// Loss prevented: a correct answer of the device is refused, or its notes are misread.
    #[test]
    fn public_reply_vectors_in_both_directions() {
        let zero = TwoDigits::new(0).unwrap();
        let count = |dispensed, rejected| BayCount {
            dispensed: TwoDigits::new(dispensed).unwrap(),
            rejected: TwoDigits::new(rejected).unwrap(),
        };
        let nothing = BayCount { dispensed: zero, rejected: zero };

        let init = Reply::draft(
            &Request::Init(Setup {
                odr: 0,
                slots: [NoteSize { max: 0, min: 0, thickness: 0, polymer: false }; SLOTS],
            }),
            true,
            52,
        );
        let wire = encode(init.payload());
        assert_eq!(wire[..7], bytes("10 02 00 38 E0 02 34"));
        assert_eq!(wire[wire.len() - 5..], bytes("1C 10 03 7F F1"));

        let counts = [count(3, 1), count(1, 0), nothing, nothing];
        let request = Request::Count(Counts::new([zero; SLOTS]));
        let reply = Reply::draft(&request, true, 153).with_counts(counts);
        let wire = encode(reply.payload());
        assert_eq!(wire[..7], bytes("10 02 00 9D E0 03 99"));
        assert_eq!(wire[wire.len() - 5..], bytes("1C 10 03 72 78"));
        let tokens = tokens(&wire);
        let [Token::Payload(payload)] = tokens.as_slice() else { panic!("{tokens:?}") };
        let read = Reply::parse(payload).unwrap();
        assert!(read.positive() && read.answers(&request));
        assert_eq!(read.counts(), Some(counts));
    }

    /// Loss prevented: a flipped bit in a count is believed.
    #[test]
    fn every_single_byte_error_is_noticed() {
        let good =
            encode(&Request::Count(Counts::new([TwoDigits::new(3).unwrap(); SLOTS])).payload());
        for at in 0..good.len() {
            for flip in 1..=255u8 {
                let mut bad = good.clone();
                bad[at] ^= flip;
                let tokens = tokens(&bad);
                assert!(
                    !tokens.iter().any(|t| matches!(t, Token::Payload(_))),
                    "byte {at} ^ {flip:02x}: {tokens:?}"
                );
            }
        }
    }

    /// Loss prevented: a length that lies makes the machine allocate or wait without end.
    #[test]
    fn lengths_out_of_bounds_are_damage() {
        for (wire, got) in [("10 02 00 00", 0), ("10 02 02 01", 513), ("10 02 FF FF", 65_535)] {
            let tokens = tokens(&bytes(wire));
            assert_eq!(tokens, [Token::Damaged(Damage::Length { got })]);
        }
    }

    proptest! {
        /// Loss prevented: a read that is split or merged by the driver loses a reply; bytes that
        /// look like controls inside a payload end it.
        #[test]
        fn any_payload_survives_any_split(
            payload in prop::collection::vec(prop_oneof![any::<u8>(), Just(DLE), Just(ETX)], 1..200),
            noise in prop::collection::vec(0x20..=0x7f_u8, 0..20),
            cut in 1..40_usize,
        ) {
            let mut wire = noise;
            wire.extend(ENQ);
            wire.extend(encode(&payload));
            wire.extend(ACK);
            let (mut decoder, mut tokens) = (Decoder::default(), Vec::new());
            for mut part in wire.chunks(cut) {
                tokens.extend(std::iter::from_fn(|| decoder.push(&mut part)));
            }
            let payload = Token::Payload(Payload::new(&payload));
            prop_assert_eq!(tokens, vec![Token::Enq, payload, Token::Ack]);
        }

        /// Loss prevented: noise on the line stops the machine (panic) or is looked at for ever.
        #[test]
        fn noise_never_panics_and_is_used_up(noise in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut decoder = Decoder::default();
            for mut part in noise.chunks(7) {
                while decoder.push(&mut part).is_some() {}
                prop_assert!(part.is_empty());
            }
        }
    }
}
