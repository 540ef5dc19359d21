//! Id 50: what host and LCDM-1000 or LCDM-2000 say to each other.
//!
//! Promise: each message is built and read back exactly; numbers are two ASCII digits. A frame that
//! fits no known message, or whose digits are none, is `Unknown` with its bytes. An LCDM-1000 has
//! the upper cassette only.

use super::{ErrorCode, Frame, Id, digits, two_digits};

/// The command that moves notes of the upper cassette to the exit.
pub const UPPER: u8 = 0x45;
/// Of the lower one.
pub const LOWER: u8 = 0x55;
/// Of both.
pub const BOTH: u8 = 0x56;
/// The command that asks for the sensors.
pub const STATUS: u8 = 0x46;

const PURGE: u8 = 0x44;
const ROM_VERSION: u8 = 0x47;
const TEST_UPPER: u8 = 0x76;
const TEST_LOWER: u8 = 0x77;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// 44: starts again and moves notes in the path to the reject tray.
    Purge,
    /// 45: notes of the upper cassette to the exit. Moves money.
    Upper(u8),
    /// 55: of the lower cassette. Moves money.
    Lower(u8),
    /// 56: of both, upper first. Moves money.
    Both(u8, u8),
    /// 46: the sensors.
    Status,
    /// 47: the version of its program.
    RomVersion,
    /// 76: notes of the upper cassette to the reject tray.
    TestUpper(u8),
    /// 77: of the lower cassette.
    TestLower(u8),
    /// None of these.
    Unknown(Frame),
}

/// What the device counted at one cassette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BayCount {
    /// What passed the check sensors behind the cassette.
    pub checked: u8,
    /// Notes that passed the exit sensor.
    pub exit: u8,
    /// Times that something was rejected: one or more notes each.
    pub rejected: u8,
    /// Whether few notes are left.
    pub near_end: bool,
}

/// The sensors as the status tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sensors(pub [u8; 2]);

/// Bit of the first byte that is always set.
const ALWAYS: u8 = 0x80;

impl Sensors {
    /// Whether a note lies at the exit sensor.
    #[must_use]
    pub const fn at_exit(self) -> bool {
        self.0[0] & 0x20 != 0
    }

    /// Whether the upper and the lower cassette are missing.
    #[must_use]
    pub const fn missing(self) -> [bool; 2] {
        [self.0[1] & 0x02 != 0, self.0[1] & 0x04 != 0]
    }

    /// Whether the upper and the lower cassette are nearly empty.
    #[must_use]
    pub const fn near_end(self) -> [bool; 2] {
        [self.0[0] & 0x40 != 0, self.0[1] & 0x20 != 0]
    }

    /// Whether the reject tray is missing.
    #[must_use]
    pub const fn no_reject_tray(self) -> bool {
        self.0[1] & 0x40 != 0
    }

    /// The sensors of a device in which all is well but for what is said.
    #[must_use]
    pub fn draft(at_exit: bool, missing: [bool; 2], near_end: [bool; 2]) -> Self {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let [upper, lower] = missing;
        let [upper_end, lower_end] = near_end;
        Self([
            ALWAYS | bit(at_exit, 0x20) | bit(upper_end, 0x40),
            bit(upper, 0x02) | bit(lower, 0x04) | bit(lower_end, 0x20),
        ])
    }
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To 44, or to any when there is nothing else to say.
    Done {
        /// The command.
        command: u8,
        /// The error code.
        error: ErrorCode,
    },
    /// To 45, 55, 76 and 77.
    One {
        /// The command.
        command: u8,
        /// The error code.
        error: ErrorCode,
        /// What was counted.
        bay: BayCount,
    },
    /// To 56.
    Two {
        /// The error code.
        error: ErrorCode,
        /// What was counted at the upper and the lower cassette.
        bays: [BayCount; 2],
    },
    /// To 46.
    Status {
        /// The error code of the last command.
        error: ErrorCode,
        /// The sensors.
        sensors: Sensors,
    },
    /// To 47.
    Rom {
        /// Two characters.
        version: [u8; 2],
        /// The check sum of its program.
        checksum: u16,
    },
    /// None of these.
    Unknown(Frame),
}

/// An error code as it stands on the line.
#[must_use]
pub const fn error(raw: u8) -> ErrorCode {
    ErrorCode { id: Id::Lcdm1000, raw }
}

impl Request {
    /// The frame that says it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let new = |command, data: &[u8]| Frame::new(Id::Lcdm1000, command, data);
        match self {
            Self::Purge => new(PURGE, &[]),
            Self::Upper(notes) => new(UPPER, &digits(*notes)),
            Self::Lower(notes) => new(LOWER, &digits(*notes)),
            Self::Both(upper, lower) => new(BOTH, [*upper, *lower].map(digits).as_flattened()),
            Self::Status => new(STATUS, &[]),
            Self::RomVersion => new(ROM_VERSION, &[]),
            Self::TestUpper(notes) => new(TEST_UPPER, &digits(*notes)),
            Self::TestLower(notes) => new(TEST_LOWER, &digits(*notes)),
            Self::Unknown(frame) => *frame,
        }
    }

    /// The request in a frame.
    #[must_use]
    pub fn parse(frame: &Frame) -> Self {
        Self::known(frame).unwrap_or(Self::Unknown(*frame))
    }

    fn known(frame: &Frame) -> Option<Self> {
        if frame.id() != Id::Lcdm1000 {
            return None;
        }
        let one = || two_digits(frame.data().try_into().ok()?);
        Some(match (frame.command(), frame.data()) {
            (PURGE, []) => Self::Purge,
            (UPPER, _) => Self::Upper(one()?),
            (LOWER, _) => Self::Lower(one()?),
            (BOTH, [a, b, c, d]) => Self::Both(two_digits([*a, *b])?, two_digits([*c, *d])?),
            (STATUS, []) => Self::Status,
            (ROM_VERSION, []) => Self::RomVersion,
            (TEST_UPPER, _) => Self::TestUpper(one()?),
            (TEST_LOWER, _) => Self::TestLower(one()?),
            _ => return None,
        })
    }
}

impl Reply {
    /// The frame that says it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let new = |command, data: &[u8]| Frame::new(Id::Lcdm1000, command, data);
        let end = |bay: &BayCount| if bay.near_end { b'1' } else { b'0' };
        match self {
            Self::Done { command, error } => new(*command, &[error.raw]),
            Self::One { command, error, bay } => {
                let ([a, b], [c, d]) = (digits(bay.checked), digits(bay.exit));
                let [e, f] = digits(bay.rejected);
                new(*command, &[a, b, c, d, error.raw, end(bay), e, f])
            }
            Self::Two { error, bays: [upper, lower] } => {
                let counts = [upper.checked, upper.exit, lower.checked, lower.exit].map(digits);
                let rejected = [upper.rejected, lower.rejected].map(digits);
                let mut data = [0; 15];
                let middle = [error.raw, end(upper), end(lower)];
                let all = counts.as_flattened().iter().chain(&middle);
                for (to, from) in data.iter_mut().zip(all.chain(rejected.as_flattened())) {
                    *to = *from;
                }
                new(BOTH, &data)
            }
            Self::Status { error, sensors: Sensors([first, second]) } => {
                new(STATUS, &[b'0', error.raw, *first, *second])
            }
            Self::Rom { version: [a, b], checksum } => {
                let [high, low] = checksum.to_be_bytes();
                let nibble = |n: u8| 0x30 | (n & 0x0f);
                let sum = [high >> 4, high, low >> 4, low].map(nibble);
                let [c, d, e, f] = sum;
                new(ROM_VERSION, &[*a, *b, b' ', c, d, e, f])
            }
            Self::Unknown(frame) => *frame,
        }
    }

    /// The reply in a frame.
    #[must_use]
    pub fn parse(frame: &Frame) -> Self {
        Self::known(frame).unwrap_or(Self::Unknown(*frame))
    }

    fn known(frame: &Frame) -> Option<Self> {
        if frame.id() != Id::Lcdm1000 {
            return None;
        }
        let command = frame.command();
        Some(match (command, frame.data()) {
            (
                PURGE | UPPER | LOWER | BOTH | STATUS | ROM_VERSION | TEST_UPPER | TEST_LOWER,
                [code],
            ) => Self::Done { command, error: error(*code) },
            (UPPER | LOWER | TEST_UPPER | TEST_LOWER, [a, b, c, d, code, end, e, f]) => {
                let bay = BayCount {
                    checked: two_digits([*a, *b])?,
                    exit: two_digits([*c, *d])?,
                    rejected: two_digits([*e, *f])?,
                    near_end: near_end(*end)?,
                };
                Self::One { command, error: error(*code), bay }
            }
            (BOTH, [counts @ .., code, end1, end2, r1, r2, r3, r4]) => {
                let [a, b, c, d, e, f, g, h] = counts else { return None };
                let upper = BayCount {
                    checked: two_digits([*a, *b])?,
                    exit: two_digits([*c, *d])?,
                    rejected: two_digits([*r1, *r2])?,
                    near_end: near_end(*end1)?,
                };
                let lower = BayCount {
                    checked: two_digits([*e, *f])?,
                    exit: two_digits([*g, *h])?,
                    rejected: two_digits([*r3, *r4])?,
                    near_end: near_end(*end2)?,
                };
                Self::Two { error: error(*code), bays: [upper, lower] }
            }
            (STATUS, [_, code, first, second]) => {
                Self::Status { error: error(*code), sensors: Sensors([*first, *second]) }
            }
            (ROM_VERSION, [a, b, .., c, d, e, f]) => {
                let nibble = |byte: &u8| u16::from(byte & 0x0f);
                let checksum = nibble(c) << 12 | nibble(d) << 8 | nibble(e) << 4 | nibble(f);
                Self::Rom { version: [*a, *b], checksum }
            }
            _ => return None,
        })
    }
}

const fn near_end(byte: u8) -> Option<bool> {
    match byte {
        b'0' => Some(false),
        b'1' => Some(true),
        _ => None,
    }
}
