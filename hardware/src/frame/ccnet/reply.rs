//! What a CCNET validator or Bill-to-Bill unit says: its state, and answers to commands and
//! questions.

use std::fmt;

use bitspire_shared::money::{Currency, Denomination};

use super::unit::{Cassettes, UnitState};
use super::{
    BILL_TO_BILL, Bills, FailureCode, Frame, RejectReason, UnitFailure, UnitJam, VALIDATOR,
    country_currency,
};

/// A state of the device, the answer to POLL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// 10.
    PowerUp,
    /// 11: a note lies in the validator.
    PowerUpBillInValidator,
    /// 12: a note lies in the stacker.
    PowerUpBillInStacker,
    /// 13.
    Initialize,
    /// 14: ready for a note.
    Idling,
    /// 15: a note is coming in.
    Accepting,
    /// 17.
    Stacking,
    /// 18.
    Returning,
    /// 19: the inlet is closed.
    Disabled,
    /// 1A: the note in escrow is held on the host's wish.
    Holding,
    /// 1B: it cannot answer for so many tenths of a second.
    Busy(u8),
    /// 1C.
    Rejecting(RejectReason),
    /// 41: the drop cassette is full.
    CassetteFull,
    /// 42: the drop cassette is out of its place.
    CassetteOut,
    /// 43.
    ValidatorJammed,
    /// 44.
    CassetteJammed,
    /// 45.
    Cheated,
    /// 46: a second note lies in the inlet.
    Pause,
    /// 47.
    Failure(FailureCode),
    /// 80: a note of this type waits for the host.
    Escrow(u8),
    /// 81: a note of this type lies in the cassette. Said until it is acknowledged.
    Stacked(u8),
    /// 82: a note of this type was given back. Said until it is acknowledged.
    Returned(u8),
    /// 84: the note may be a counterfeit.
    Suspected(Option<u8>),
    /// 90.
    Counterfeit(Option<u8>),
    /// 12 of a Bill-to-Bill unit, with where notes lie: 00 in its transport path, 01 in its
    /// dispenser.
    PowerUpBillInUnit(u8),
    /// 81 of a Bill-to-Bill unit: likewise, with where the note lies.
    Packed {
        /// The bill type.
        kind: u8,
        /// 0 is the drop cassette, the others are the recycling cassettes.
        to: u8,
    },
    /// 47 of a Bill-to-Bill unit.
    UnitFailure(UnitFailure),
    /// 48 of a Bill-to-Bill unit.
    UnitJammed(UnitJam),
}

impl State {
    fn parse(address: u8, content: &[u8]) -> Option<Self> {
        if address == BILL_TO_BILL {
            match content {
                [0x12, place] => return Some(Self::PowerUpBillInUnit(*place)),
                [0x47, code] => return Some(Self::UnitFailure(UnitFailure::from_code(*code))),
                [0x48, code] => return Some(Self::UnitJammed(UnitJam::from_code(*code))),
                [0x81, kind, to] => return Some(Self::Packed { kind: *kind, to: *to }),
                // of old firmware, which puts type and destination into one byte: which is which
                // nobody can tell
                [0x81, _] => return None,
                _ => {}
            }
        }
        Some(match content {
            [0x10] => Self::PowerUp,
            [0x11] => Self::PowerUpBillInValidator,
            [0x12] => Self::PowerUpBillInStacker,
            [0x13] => Self::Initialize,
            [0x14] => Self::Idling,
            [0x15] => Self::Accepting,
            [0x17] => Self::Stacking,
            [0x18] => Self::Returning,
            [0x19] => Self::Disabled,
            [0x1a] => Self::Holding,
            [0x1b, tenths] => Self::Busy(*tenths),
            [0x1c, reason] => Self::Rejecting(RejectReason::from_code(*reason)),
            [0x41] => Self::CassetteFull,
            [0x42] => Self::CassetteOut,
            [0x43] => Self::ValidatorJammed,
            [0x44] => Self::CassetteJammed,
            [0x45] => Self::Cheated,
            [0x46] => Self::Pause,
            [0x47, code] => Self::Failure(FailureCode::from_code(*code)),
            [0x80, kind] => Self::Escrow(*kind),
            [0x81, kind] => Self::Stacked(*kind),
            [0x82, kind] => Self::Returned(*kind),
            [0x84, kind @ ..] if kind.len() < 2 => Self::Suspected(kind.first().copied()),
            [0x90, kind @ ..] if kind.len() < 2 => Self::Counterfeit(kind.first().copied()),
            _ => return None,
        })
    }

    /// Code and name of the state, as the specification has them.
    #[must_use]
    pub const fn code_and_name(&self) -> (u8, &'static str) {
        match self {
            Self::PowerUp => (0x10, "POWER UP"),
            Self::PowerUpBillInValidator => (0x11, "POWER UP, BILL IN VALIDATOR"),
            Self::PowerUpBillInStacker => (0x12, "POWER UP, BILL IN STACKER"),
            Self::Initialize => (0x13, "INITIALIZE"),
            Self::Idling => (0x14, "IDLING"),
            Self::Accepting => (0x15, "ACCEPTING"),
            Self::Stacking => (0x17, "STACKING"),
            Self::Returning => (0x18, "RETURNING"),
            Self::Disabled => (0x19, "UNIT DISABLED"),
            Self::Holding => (0x1a, "HOLDING"),
            Self::Busy(_) => (0x1b, "DEVICE BUSY"),
            Self::Rejecting(_) => (0x1c, "REJECTING"),
            Self::CassetteFull => (0x41, "DROP CASSETTE FULL"),
            Self::CassetteOut => (0x42, "DROP CASSETTE OUT OF POSITION"),
            Self::ValidatorJammed => (0x43, "VALIDATOR JAMMED"),
            Self::CassetteJammed => (0x44, "DROP CASSETTE JAMMED"),
            Self::Cheated => (0x45, "CHEATED"),
            Self::Pause => (0x46, "PAUSE"),
            Self::Failure(_) => (0x47, "GENERIC FAILURE"),
            Self::Escrow(_) => (0x80, "ESCROW POSITION"),
            Self::Stacked(_) => (0x81, "BILL STACKED"),
            Self::Returned(_) => (0x82, "BILL RETURNED"),
            Self::Suspected(_) => (0x84, "SUSPECTED BILL"),
            Self::Counterfeit(_) => (0x90, "COUNTERFEIT"),
            Self::PowerUpBillInUnit(_) => (0x12, "POWER UP, BILL IN THE UNIT"),
            Self::Packed { .. } => (0x81, "BILL STACKED"),
            Self::UnitFailure(_) => (0x47, "GENERIC FAILURE"),
            Self::UnitJammed(_) => (0x48, "BILL-TO-BILL UNIT JAMMED"),
        }
    }

    /// The byte behind the code, if there is one.
    const fn detail(&self) -> Option<u8> {
        match self {
            Self::Busy(byte) | Self::Escrow(byte) | Self::Stacked(byte) | Self::Returned(byte) => {
                Some(*byte)
            }
            Self::Rejecting(reason) => Some(reason.code()),
            Self::Failure(code) => Some(code.code()),
            Self::Suspected(kind) | Self::Counterfeit(kind) => *kind,
            Self::PowerUpBillInUnit(byte) => Some(*byte),
            Self::UnitFailure(code) => Some(code.code()),
            Self::UnitJammed(code) => Some(code.code()),
            _ => None,
        }
    }

    /// The frame, from a validator.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let (code, _) = self.code_and_name();
        if let Self::Packed { kind, to } = self {
            return Frame::new(VALIDATOR, code, &[*kind, *to]);
        }
        Frame::new(VALIDATOR, code, self.detail().as_slice())
    }
}

/// Name and code, with what the data says.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, name) = self.code_and_name();
        match self {
            Self::Rejecting(reason) => write!(f, "{name}: {reason}")?,
            Self::Failure(failure) => write!(f, "{name}: {failure}")?,
            Self::UnitFailure(failure) => write!(f, "{name}: {failure}")?,
            Self::UnitJammed(jam) => write!(f, "{name}: {jam}")?,
            Self::PowerUpBillInUnit(1) => write!(f, "{name}'s dispenser")?,
            Self::PowerUpBillInUnit(place) => write!(f, "{name}, place {place}")?,
            Self::Packed { kind, to: 0 } => write!(f, "{name}, type {kind}, in the drop cassette")?,
            Self::Packed { kind, to } => write!(f, "{name}, type {kind}, in cassette {to}")?,
            Self::Busy(tenths) => write!(f, "{name} for {tenths} tenths of a second")?,
            _ => match self.detail() {
                Some(kind) => write!(f, "{name}, type {kind}")?,
                None => f.write_str(name)?,
            },
        }
        write!(f, " ({code:02X})")
    }
}

/// Who the device is, as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a>(&'a [u8]);

impl Identity<'_> {
    /// Bytes of part number and serial number; the asset number behind them is binary.
    const TEXT: usize = 27;
    /// Its own length, and what firmware is given beyond or short of it.
    const LEN: std::ops::RangeInclusive<usize> = 27..=48;
    /// The same of a Bill-to-Bill unit, newer ones of which add the firmware of their parts.
    const UNIT_LEN: std::ops::RangeInclusive<usize> = 33..=119;

    /// Part number and serial number, as people can read them.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.0.get(..Self::TEXT).unwrap_or_default();
        let printable = text.iter().map(|b| if b.is_ascii_graphic() { *b } else { b' ' });
        let text: String = printable.map(char::from).collect();
        text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// One bill type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillSlot {
    /// The type, counted from 0.
    pub kind: u8,
    /// Leading digits of the value; 0 = empty slot.
    pub digits: u8,
    /// Country, three letters.
    pub country: [u8; 3],
    /// Zeros after the digits; with bit 7, so many of the digits stand after the point.
    pub exponent: u8,
}

impl BillSlot {
    /// The note in this slot; `None` for an empty slot, an unknown country or an absurd value.
    #[must_use]
    pub fn note(&self) -> Option<(Denomination, Currency)> {
        let currency = country_currency(self.country)?;
        let scale = 10u32.checked_pow(u32::from(self.exponent & 0x7f))?;
        let minor = u32::from(self.digits).checked_mul(currency.minor_per_major())?;
        let minor = if self.exponent & 0x80 == 0 {
            minor.checked_mul(scale)?
        } else if minor.checked_rem(scale) == Some(0) {
            minor.checked_div(scale)?
        } else {
            return None;
        };
        Some((Denomination::from_minor(minor).ok()?, currency))
    }
}

/// The bill table, slot by slot, five bytes each: leading digits, country, exponent. It has 24 types in
/// 120 bytes; of a device with the option `BillTable48`, the types 0 to 47 in 240, with the barcode's
/// at their end (CCNET common specifications 2.6.0). ENABLE BILL TYPES names the first 24 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillTable<'a>(&'a [u8]);

impl<'a> BillTable<'a> {
    /// The slots in the order of the device.
    pub fn slots(&self) -> impl Iterator<Item = BillSlot> + use<'a> {
        let slots = (0..).zip(self.0.as_chunks().0);
        slots.map(|(kind, &[digits, a, b, c, exponent])| BillSlot {
            kind,
            digits,
            country: [a, b, c],
            exponent,
        })
    }
}

/// A frame of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Its state.
    State(State),
    /// 00: the command was taken.
    Ack,
    /// FF: the command came damaged.
    Nak,
    /// 30: the command does not fit the state.
    Illegal,
    /// To GET STATUS.
    Status {
        /// The types that are taken.
        bills: Bills,
        /// The types that are checked more strictly.
        secure: Bills,
    },
    /// To GET STATUS, of a Bill-to-Bill unit.
    UnitStatus {
        /// The types that are taken.
        bills: Bills,
        /// The types that are checked more strictly.
        secure: Bills,
        /// The types that a recycling cassette keeps.
        routed: Bills,
    },
    /// To RECYCLING CASSETTE STATUS.
    Cassettes(Cassettes<'a>),
    /// The state of a Bill-to-Bill unit that moves notes other than in.
    Unit(UnitState<'a>),
    /// To IDENTIFICATION.
    Identity(Identity<'a>),
    /// To GET BILL TABLE: 24 types, or 48 where the device has that option.
    BillTable(BillTable<'a>),
    /// Anything else, also a frame of another peripheral.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Reply<'a> {
    /// What a frame of the device means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        let content = frame.content();
        let unit = frame.address() == BILL_TO_BILL;
        if !unit && frame.address() != VALIDATOR {
            return Self::Unknown { raw: frame };
        }
        if let Some(state) = State::parse(frame.address(), content) {
            return Self::State(state);
        }
        if unit && let Some(reply) = Self::of_unit(content) {
            return reply;
        }
        match content {
            [0x00] => Self::Ack,
            [0xff] => Self::Nak,
            [0x30] => Self::Illegal,
            &[a, b, c, d, e, f] if !unit => Self::Status {
                bills: Bills::from_bytes([a, b, c]),
                secure: Bills::from_bytes([d, e, f]),
            },
            table if matches!(table.len(), 120 | 240) => Self::BillTable(BillTable(table)),
            text if unit && Identity::UNIT_LEN.contains(&text.len())
                || !unit && Identity::LEN.contains(&text.len()) =>
            {
                Self::Identity(Identity(text))
            }
            _ => Self::Unknown { raw: frame },
        }
    }

    fn of_unit(content: &'a [u8]) -> Option<Self> {
        if let &[a, b, c, d, e, f, g, h, i] = content {
            return Some(Self::UnitStatus {
                bills: Bills::from_bytes([a, b, c]),
                secure: Bills::from_bytes([d, e, f]),
                routed: Bills::from_bytes([g, h, i]),
            });
        }
        let cassettes = || Cassettes::parse(content).map(Self::Cassettes);
        UnitState::parse(content).map(Self::Unit).or_else(cassettes)
    }

    /// The frame: from a validator, for [`Frame::with_address`] where the other one says it too; from
    /// a unit what only a unit says.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let of = |content: &[u8]| match content {
            [first, rest @ ..] => Frame::new(VALIDATOR, *first, rest),
            [] => Frame::new(VALIDATOR, 0, &[]),
        };
        match self {
            Self::State(state) => state.frame(),
            Self::Ack => of(&[0x00]),
            Self::Nak => of(&[0xff]),
            Self::Illegal => of(&[0x30]),
            Self::Status { bills, secure } => {
                of([bills.to_bytes(), secure.to_bytes()].as_flattened())
            }
            Self::UnitStatus { bills, secure, routed } => {
                let masks = [bills.to_bytes(), secure.to_bytes(), routed.to_bytes()];
                of(masks.as_flattened()).with_address(BILL_TO_BILL)
            }
            Self::Cassettes(cassettes) => cassettes.frame(),
            Self::Unit(state) => state.frame(),
            Self::Identity(Identity(content)) | Self::BillTable(BillTable(content)) => of(content),
            Self::Unknown { raw } => **raw,
        }
    }
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => state.fmt(f),
            Self::Ack => f.write_str("ACK"),
            Self::Nak => f.write_str("NAK"),
            Self::Illegal => f.write_str("ILLEGAL COMMAND (30)"),
            Self::Status { bills, .. } | Self::UnitStatus { bills, .. } => {
                let [a, b, c] = bills.to_bytes();
                write!(f, "STATUS: types {a:02X}{b:02X}{c:02X}")
            }
            Self::Cassettes(cassettes) => cassettes.fmt(f),
            Self::Unit(state) => state.fmt(f),
            Self::Identity(identity) => write!(f, "IDENTIFICATION {}", identity.text()),
            Self::BillTable(table) => write!(f, "BILL TABLE of {} types", table.slots().count()),
            Self::Unknown { raw } => write!(f, "unknown reply {raw}"),
        }
    }
}
