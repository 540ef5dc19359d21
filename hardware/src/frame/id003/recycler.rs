//! The recycler extension of ID-003: frames `F0 20 CMD [DATA]`, and the states of a payout.
//!
//! Boxes are numbered 1 and 2; sums and masks are two bytes, low byte first. A command is answered
//! with ACK (50), a setting with its echo, a question with its own code and the data; the extension
//! status with `F0 20` and the status in the place of the command.
//!
//! Source: JCM ID-003 recycler extension as public hosts of iPRO-RC, UBA-RC and Vega-RC speak it.

use std::fmt;

use super::Frame;
use crate::frame::codes::codes;
use crate::frame::hex;

/// Code of every frame of the extension.
const EXTENSION: u8 = 0xf0;
/// The recycler among the units that an extension may address.
const UNIT: u8 = 0x20;
/// Boxes of a recycler.
pub const BOXES: usize = 2;

codes!(
    /// What the recycler says of itself (answer to EXTENSION STATUS).
    Condition {
        0x00 NotConnected "not connected",
        0x10 Normal "normal",
        0x11 Empty "empty",
        0x12 Full "full",
        0x1f Busy "busy",
        0x40 Jam "recycler jam",
        0x41 DoorOpen "door open",
        0x42 Motor "motor error",
        0x43 Eeprom "EEPROM error",
        0x44 PayOutNote "pay-out note error",
        0x45 BoxOpen "recycle box open",
        0x4a Hardware "hardware error",
    }
);

/// A state that only recyclers have; an answer to STATUS REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayState {
    /// 20: notes are on their way out.
    Paying,
    /// 21: notes are on their way from a box to the cashbox.
    Collecting,
    /// 22: they are there; with the box.
    Collected(Option<u8>),
    /// 23: the customer took a note. Said until it is acknowledged.
    PayValid,
    /// 24: a note waits for the customer.
    PayStay,
    /// 25: a note that nobody took went back. Said until it is acknowledged.
    ReturnToBox,
    /// 26: a note on its way out went back. Said until it is acknowledged.
    ReturnPayOutNote(Option<u8>),
    /// 2F: a note on its way back is stuck. Said until it is acknowledged.
    ReturnError,
    /// 4C: the recycler is in trouble; EXTENSION STATUS says in which.
    Error,
}

impl PayState {
    /// The state in a frame, if it is one of these.
    #[must_use]
    pub fn parse(frame: &Frame) -> Option<Self> {
        Some(match (frame.op(), frame.data()) {
            (0x20, []) => Self::Paying,
            (0x21, []) => Self::Collecting,
            (0x22, data @ ([] | [_])) => Self::Collected(data.first().copied()),
            (0x23, []) => Self::PayValid,
            (0x24, []) => Self::PayStay,
            (0x25, []) => Self::ReturnToBox,
            (0x26, data @ ([] | [_])) => Self::ReturnPayOutNote(data.first().copied()),
            (0x2f, []) => Self::ReturnError,
            (0x4c, []) => Self::Error,
            _ => return None,
        })
    }

    /// Code and name of the state.
    #[must_use]
    pub const fn code_and_name(self) -> (u8, &'static str) {
        match self {
            Self::Paying => (0x20, "PAYING"),
            Self::Collecting => (0x21, "COLLECTING"),
            Self::Collected(_) => (0x22, "COLLECTED"),
            Self::PayValid => (0x23, "PAY VALID"),
            Self::PayStay => (0x24, "PAY STAY"),
            Self::ReturnToBox => (0x25, "RETURN TO BOX"),
            Self::ReturnPayOutNote(_) => (0x26, "RETURN PAY OUT NOTE"),
            Self::ReturnError => (0x2f, "RETURN ERROR"),
            Self::Error => (0x4c, "RECYCLER ERROR"),
        }
    }

    /// Whether it is said until the host has acknowledged it.
    #[must_use]
    pub const fn wants_ack(self) -> bool {
        matches!(
            self,
            Self::PayValid | Self::ReturnToBox | Self::ReturnPayOutNote(_) | Self::ReturnError
        )
    }

    /// The frame.
    #[must_use]
    pub fn frame(self) -> Frame {
        let (op, _) = self.code_and_name();
        match self {
            Self::Collected(byte) | Self::ReturnPayOutNote(byte) => Frame::new(op, byte.as_slice()),
            _ => Frame::new(op, &[]),
        }
    }
}

/// Name and code.
impl fmt::Display for PayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, name) = self.code_and_name();
        write!(f, "{name} ({code:02X})")
    }
}

/// A frame of the extension, in either direction; a setting and its echo are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension<'a> {
    /// 1A, of the host: how is the recycler?
    StatusRequest,
    /// Its answer.
    Condition(Condition),
    /// 4A: pay out so many notes of a box. Only while the inlet is closed (1A).
    PayOut {
        /// Notes.
        notes: u8,
        /// From this box.
        from: u8,
    },
    /// 4B: move so many notes (0 = all) of a box to the cashbox. Only while the inlet is closed.
    Collect {
        /// Notes, 0 for all.
        notes: u8,
        /// From this box.
        from: u8,
    },
    /// 4C: after an error.
    Clear,
    /// 4D: stop a payout before PAY VALID; the note on its way goes to the cashbox.
    EmergencyStop,
    /// D0: which notes each box keeps, a bit each, bit 0 = escrow code 61.
    SetCurrencies([u16; BOXES]),
    /// D2: how many notes a box keeps at most.
    SetLimit {
        /// Notes.
        notes: u16,
        /// The box.
        of: u8,
    },
    /// E2: how many notes a box holds, as a person has counted.
    SetCount {
        /// Notes.
        notes: u16,
        /// The box.
        of: u8,
    },
    /// 90, 91, 92, 93, 94, A0, A1, A2, of the host: a question without data.
    Question(u8),
    /// 90, of the device: which notes each box keeps.
    Currencies([u16; BOXES]),
    /// A2, of the device: how many notes each box holds.
    Counts([u16; BOXES]),
    /// Anything else of the extension: code and data as they came.
    Other {
        /// The code.
        code: u8,
        /// Its data.
        data: &'a [u8],
    },
}

/// A2: how many notes each box holds.
pub const COUNTS: u8 = 0xa2;
/// 90: which notes each box keeps.
pub const CURRENCIES: u8 = 0x90;

impl<'a> Extension<'a> {
    /// The extension's frame of the host or the device in a frame; `None` if it is none.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Option<Self> {
        let (EXTENSION, [UNIT, code, data @ ..]) = (frame.op(), frame.data()) else { return None };
        let word = |low: u8, high: u8| u16::from_le_bytes([low, high]);
        Some(match (*code, data) {
            (0x1a, []) => Self::StatusRequest,
            (0x4a, &[notes, from]) => Self::PayOut { notes, from },
            (0x4b, &[notes, from]) => Self::Collect { notes, from },
            // alone a command; as the answer to a question it would carry data
            (0x4c, []) => Self::Clear,
            (0x4d, []) => Self::EmergencyStop,
            (0xd0, &[a, b, 1, c, d, 2]) => Self::SetCurrencies([word(a, b), word(c, d)]),
            (0xd2, &[low, high, of]) => Self::SetLimit { notes: word(low, high), of },
            (0xe2, &[low, high, of]) => Self::SetCount { notes: word(low, high), of },
            (0x90..=0x94 | 0xa0..=0xa2, []) => Self::Question(*code),
            (CURRENCIES, &[a, b, c, d]) => Self::Currencies([word(a, b), word(c, d)]),
            (COUNTS, &[a, b, c, d]) => Self::Counts([word(a, b), word(c, d)]),
            (0x00 | 0x10..=0x12 | 0x1f | 0x40..=0x45 | 0x4a, []) => {
                Self::Condition(Condition::from_code(*code))
            }
            _ => Self::Other { code: *code, data },
        })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let of = |code: u8, data: &[u8]| Frame::new(EXTENSION, &[&[UNIT, code], data].concat());
        let two = |[first, second]: [u16; BOXES]| {
            let ([a, b], [c, d]) = (first.to_le_bytes(), second.to_le_bytes());
            (a, b, c, d)
        };
        match *self {
            Self::StatusRequest => of(0x1a, &[]),
            Self::Condition(condition) => of(condition.code(), &[]),
            Self::PayOut { notes, from } => of(0x4a, &[notes, from]),
            Self::Collect { notes, from } => of(0x4b, &[notes, from]),
            Self::Clear => of(0x4c, &[]),
            Self::EmergencyStop => of(0x4d, &[]),
            Self::SetCurrencies(masks) => {
                let (a, b, c, d) = two(masks);
                of(0xd0, &[a, b, 1, c, d, 2])
            }
            Self::SetLimit { notes, of: number } | Self::SetCount { notes, of: number } => {
                let [low, high] = notes.to_le_bytes();
                let code = if matches!(self, Self::SetLimit { .. }) { 0xd2 } else { 0xe2 };
                of(code, &[low, high, number])
            }
            Self::Question(code) => of(code, &[]),
            Self::Currencies(masks) => {
                let (a, b, c, d) = two(masks);
                of(CURRENCIES, &[a, b, c, d])
            }
            Self::Counts(counts) => {
                let (a, b, c, d) = two(counts);
                of(COUNTS, &[a, b, c, d])
            }
            Self::Other { code, data } => of(code, data),
        }
    }
}

impl fmt::Display for Extension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatusRequest => f.write_str("EXTENSION STATUS REQUEST"),
            Self::Condition(condition) => write!(f, "EXTENSION STATUS: {condition}"),
            Self::PayOut { notes, from } => write!(f, "PAY OUT {notes} of box {from}"),
            Self::Collect { notes: 0, from } => write!(f, "COLLECT all of box {from}"),
            Self::Collect { notes, from } => write!(f, "COLLECT {notes} of box {from}"),
            Self::Clear => f.write_str("CLEAR"),
            Self::EmergencyStop => f.write_str("EMERGENCY STOP"),
            Self::SetCurrencies([a, b]) => write!(f, "RECYCLE CURRENCY {a:04X}, {b:04X}"),
            Self::SetLimit { notes, of } => write!(f, "COUNT LIMIT {notes} of box {of}"),
            Self::SetCount { notes, of } => write!(f, "SET CURRENT COUNT {notes} of box {of}"),
            Self::Question(code) => write!(f, "RECYCLER REQUEST {code:02X}"),
            Self::Currencies([a, b]) => write!(f, "RECYCLE CURRENCY is {a:04X}, {b:04X}"),
            Self::Counts([a, b]) => write!(f, "CURRENT COUNT {a}, {b}"),
            Self::Other { code, data } => {
                write!(f, "recycler code {code:02X} {}", hex(data))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Id003Layout, in_words};
    use super::*;
    use crate::frame::stream::testing::{self, bytes};
    use crate::trace::Direction;

    /// Loss prevented: a frame that real units read otherwise: notes paid out of the wrong box, or
    /// counts that are not theirs.
    #[test]
    fn public_vectors_hold_in_both_directions() {
        let vectors = [
            ("FC 07 F0 20 1A 6B AF", Extension::StatusRequest),
            ("FC 07 F0 20 A2 A8 96", Extension::Question(COUNTS)),
            ("FC 07 F0 20 4C D8 98", Extension::Clear),
            ("FC 07 F0 20 4D 51 89", Extension::EmergencyStop),
        ];
        for (text, meant) in vectors {
            let frames = testing::decode::<Id003Layout>(&bytes(text));
            assert_eq!(Extension::parse(&frames[0]), Some(meant), "{text}");
            assert_eq!(hex(&meant.frame().to_bytes()), text);
            testing::refuses_each_bit_error::<Id003Layout>(text);
            assert_eq!(in_words(Direction::Sent, &bytes(text)), meant.to_string());
        }
    }

    /// Loss prevented: a count or a command that changes on its way through the types.
    #[test]
    fn every_frame_goes_there_and_back() {
        let laid_out = [
            (Extension::PayOut { notes: 3, from: 2 }, "20 4A 03 02"),
            (Extension::Collect { notes: 0, from: 1 }, "20 4B 00 01"),
            (Extension::SetCurrencies([0x04, 0x08]), "20 D0 04 00 01 08 00 02"),
            (Extension::SetLimit { notes: 30, of: 1 }, "20 D2 1E 00 01"),
            (Extension::SetCount { notes: 7, of: 2 }, "20 E2 07 00 02"),
            (Extension::Counts([12, 300]), "20 A2 0C 00 2C 01"),
            (Extension::Currencies([2, 4]), "20 90 02 00 04 00"),
            (Extension::Condition(Condition::Jam), "20 40"),
            (Extension::Other { code: 0xa0, data: &[1, 2, 3] }, "20 A0 01 02 03"),
        ];
        for (meant, data) in laid_out {
            let frame = meant.frame();
            assert_eq!((frame.op(), hex(frame.data()).as_str()), (0xf0, data));
            assert_eq!(Extension::parse(&frame), Some(meant));
        }
        for code in 0..=255u8 {
            for data in [&[][..], &[1], &[1, 2], &[1, 0, 1], &[1, 0, 2, 0]] {
                let frame = Frame::new(0xf0, &[&[0x20, code], data].concat());
                assert_eq!(Extension::parse(&frame).unwrap().frame(), frame);
                let state = Frame::new(code, data);
                assert!(PayState::parse(&state).is_none_or(|known| known.frame() == state));
            }
            assert_eq!(Condition::from_code(code).code(), code);
        }
        assert_eq!(Extension::parse(&Frame::new(0xf0, &[0x21, 0x1a])), None, "another unit");
        assert_eq!(Condition::KNOWN.len(), 12);
    }
}
