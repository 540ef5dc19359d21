//! What the host says to a CCNET validator or Bill-to-Bill unit.

use std::fmt;

use super::unit::Command;
use super::{BILL_TO_BILL, Frame, VALIDATOR};

/// A set of bill types, bit `n` for type `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bills(u32);

impl Bills {
    /// No type at all.
    pub const NONE: Self = Self(0);
    /// Every type.
    pub const ALL: Self = Self(0x00ff_ffff);

    /// Of three bytes, as they stand on the line: the high types first.
    pub(super) const fn from_bytes([high, middle, low]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, high, middle, low]))
    }

    pub(super) const fn to_bytes(self) -> [u8; 3] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        [high, middle, low]
    }

    /// Whether it has this type; no set has a type from 24 on.
    #[must_use]
    pub fn has(self, kind: u8) -> bool {
        bit(kind).is_some_and(|bit| self.0 & bit != 0)
    }
}

impl FromIterator<u8> for Bills {
    /// Types from 24 on are left out: no set of the protocol can name them.
    fn from_iter<I: IntoIterator<Item = u8>>(kinds: I) -> Self {
        Self(kinds.into_iter().filter_map(bit).fold(0, |bits, bit| bits | bit))
    }
}

fn bit(kind: u8) -> Option<u32> {
    (kind < 24).then(|| 1u32.checked_shl(u32::from(kind))).flatten()
}

/// A frame of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// 30.
    Reset,
    /// 31.
    GetStatus,
    /// 32: types whose notes are checked more strictly.
    SetSecurity(Bills),
    /// 33.
    Poll,
    /// 34: which types are taken, and which of them wait in escrow.
    Enable {
        /// The types that are taken; none closes the inlet.
        bills: Bills,
        /// Of these, the ones that wait for STACK or RETURN. The others are stacked at once.
        escrow: Bills,
    },
    /// 35.
    Stack,
    /// 36: give the note in escrow back.
    Return,
    /// 37.
    Identification,
    /// 38: keep the note in escrow for 10 s more.
    Hold,
    /// 41.
    GetBillTable,
    /// 00: the last reply has come whole. Has no answer.
    Ack,
    /// FF: the last reply has come damaged; it is to be said again.
    Nak,
    /// What only a Bill-to-Bill unit knows.
    Unit(Command<'a>),
    /// Anything else: another address, an unknown command, a known one with data that does not fit.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Request<'a> {
    /// What a frame of the host means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        match frame.content() {
            _ if !matches!(frame.address(), VALIDATOR | BILL_TO_BILL) => {
                Self::Unknown { raw: frame }
            }
            [0x30] => Self::Reset,
            [0x31] => Self::GetStatus,
            &[0x32, a, b, c] => Self::SetSecurity(Bills::from_bytes([a, b, c])),
            [0x33] => Self::Poll,
            &[0x34, a, b, c, d, e, f] => Self::Enable {
                bills: Bills::from_bytes([a, b, c]),
                escrow: Bills::from_bytes([d, e, f]),
            },
            [0x35] => Self::Stack,
            [0x36] => Self::Return,
            [0x37] => Self::Identification,
            [0x38] => Self::Hold,
            [0x41] => Self::GetBillTable,
            [0x00] => Self::Ack,
            [0xff] => Self::Nak,
            other => match Command::parse(other).filter(|_| frame.address() == BILL_TO_BILL) {
                Some(command) => Self::Unit(command),
                None => Self::Unknown { raw: frame },
            },
        }
    }

    /// The frame: to a validator, for [`Frame::with_address`] where the other one is meant too; to a
    /// unit what only a unit knows.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let op = match self {
            Self::Reset => 0x30,
            Self::GetStatus => 0x31,
            Self::SetSecurity(bills) => return Frame::new(VALIDATOR, 0x32, &bills.to_bytes()),
            Self::Poll => 0x33,
            Self::Enable { bills, escrow } => {
                let ([a, b, c], [d, e, f]) = (bills.to_bytes(), escrow.to_bytes());
                return Frame::new(VALIDATOR, 0x34, &[a, b, c, d, e, f]);
            }
            Self::Stack => 0x35,
            Self::Return => 0x36,
            Self::Identification => 0x37,
            Self::Hold => 0x38,
            Self::GetBillTable => 0x41,
            Self::Ack => 0x00,
            Self::Nak => 0xff,
            Self::Unit(command) => return command.frame(),
            Self::Unknown { raw } => return **raw,
        };
        Frame::new(VALIDATOR, op, &[])
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset => f.write_str("RESET"),
            Self::GetStatus => f.write_str("GET STATUS"),
            Self::SetSecurity(Bills(bits)) => write!(f, "SET SECURITY {bits:06X}"),
            Self::Poll => f.write_str("POLL"),
            Self::Enable { bills: Bills(bits), escrow: Bills(escrow) } => {
                write!(f, "ENABLE BILL TYPES {bits:06X}, escrow {escrow:06X}")
            }
            Self::Stack => f.write_str("STACK"),
            Self::Return => f.write_str("RETURN"),
            Self::Identification => f.write_str("IDENTIFICATION"),
            Self::Hold => f.write_str("HOLD"),
            Self::GetBillTable => f.write_str("GET BILL TABLE"),
            Self::Ack => f.write_str("ACK"),
            Self::Nak => f.write_str("NAK"),
            Self::Unit(command) => command.fmt(f),
            Self::Unknown { raw } => write!(f, "unknown command {raw}"),
        }
    }
}
