//! What only a Bill-to-Bill recycler hears and says (address 01): its commands, its states, its
//! cassettes, and what it was at when its power went.
//!
//! Promise: each form is read from one answer's bytes by who has asked: an answer of CCNET names no
//! command, and some of these look alike.
//!
//! Failure policy: another length or code is none of these; whoever reads it keeps its bytes.
//!
//! Source: CashCode CCNET protocol, common specifications 2.6.0, Bill-to-Bill unit; names of older
//! states from public hosts.

use std::fmt;

use super::{BILL_TO_BILL, Frame};

/// Most recycling cassettes of a unit; they are numbered from 1.
pub const CASSETTES: u8 = 16;
/// Most notes that one DISPENSE gives.
pub const MOST_NOTES: u32 = 20;
/// Type of a cassette that keeps no notes.
pub const UNASSIGNED: u8 = 0x1f;
/// Type of a cassette that holds several notes in escrow.
pub const ESCROW_CASSETTE: u8 = 24;

/// A command that no validator knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// 3B: RECYCLING CASSETTE STATUS.
    CassetteStatus,
    /// 3C: give out notes, (type, count) each; only while the unit is disabled.
    Dispense(&'a [[u8; 2]]),
    /// 3D: move notes of a cassette to the drop cassette; likewise.
    Unload {
        /// The cassette, from 1.
        cassette: u8,
        /// How many.
        notes: u8,
    },
    /// 40: which notes a cassette keeps. What it holds of others goes to the drop cassette.
    SetCassetteType {
        /// The cassette, from 1.
        cassette: u8,
        /// The bill type, or [`UNASSIGNED`].
        kind: u8,
    },
    /// 66: what it was at when its power went.
    PowerRecovery,
    /// 67: finish with the notes that a power loss has left in the dispenser.
    EmptyDispenser,
}

impl<'a> Command<'a> {
    /// What a frame's content means, to a unit.
    #[must_use]
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        Some(match content {
            [0x3b] => Self::CassetteStatus,
            [0x3c, notes @ ..] if !notes.is_empty() => Self::Dispense(pairs(notes)?),
            &[0x3d, cassette, notes] => Self::Unload { cassette, notes },
            &[0x40, cassette, kind] => Self::SetCassetteType { cassette, kind },
            [0x66] => Self::PowerRecovery,
            [0x67] => Self::EmptyDispenser,
            _ => return None,
        })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let of = |op, data: &[u8]| Frame::new(BILL_TO_BILL, op, data);
        match self {
            Self::CassetteStatus => of(0x3b, &[]),
            Self::Dispense(notes) => of(0x3c, notes.as_flattened()),
            Self::Unload { cassette, notes } => of(0x3d, &[*cassette, *notes]),
            Self::SetCassetteType { cassette, kind } => of(0x40, &[*cassette, *kind]),
            Self::PowerRecovery => of(0x66, &[]),
            Self::EmptyDispenser => of(0x67, &[]),
        }
    }
}

impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CassetteStatus => f.write_str("RECYCLING CASSETTE STATUS"),
            Self::Dispense(notes) => write!(f, "DISPENSE {}", OfTypes(notes)),
            Self::Unload { cassette, notes } => {
                write!(f, "UNLOAD {notes} notes of cassette {cassette}")
            }
            Self::SetCassetteType { cassette, kind: UNASSIGNED } => {
                write!(f, "SET CASSETTE TYPE: cassette {cassette} keeps none")
            }
            Self::SetCassetteType { cassette, kind } => {
                write!(f, "SET CASSETTE TYPE: cassette {cassette} keeps type {kind}")
            }
            Self::PowerRecovery => f.write_str("POWER RECOVERY"),
            Self::EmptyDispenser => f.write_str("EMPTY DISPENSER"),
        }
    }
}

/// (type, count) pairs in words.
struct OfTypes<'a>(&'a [[u8; 2]]);

impl fmt::Display for OfTypes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (no, [kind, count]) in self.0.iter().enumerate() {
            let comma = if no == 0 { "" } else { ", " };
            write!(f, "{comma}{count} of type {kind}")?;
        }
        Ok(())
    }
}

fn pairs(bytes: &[u8]) -> Option<&[[u8; 2]]> {
    let (pairs, rest) = bytes.as_chunks();
    rest.is_empty().then_some(pairs)
}

/// A state that no validator knows: notes move other than in, or have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState<'a> {
    /// 1D: notes go out. 00: they move; 01: they wait for the customer.
    Dispensing(Option<u8>),
    /// 1E: notes of a cassette go to the drop cassette.
    Unloading(Option<u8>),
    /// 1F: notes of the escrow cassette go back to the customer (older units).
    CustomReturning,
    /// 20: notes of the escrow cassette go where they are kept (older units).
    EscrowUnloading,
    /// 21: a cassette gets another type.
    SettingType,
    /// 25: the notes were taken. Some firmware says how many, (type, count) each. Said until it is
    /// acknowledged, as are the ones below.
    Dispensed(&'a [[u8; 2]]),
    /// 26: so many notes were unloaded.
    Unloaded(Option<u8>),
    /// 27: the notes of the escrow cassette were taken (older units).
    CustomReturned,
    /// 28: it has not as many notes as it was to give.
    InvalidNumber,
    /// 29: a cassette has its new type.
    TypeSet,
}

impl<'a> UnitState<'a> {
    /// What an answer to POLL means.
    #[must_use]
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        let one = |rest: &[u8]| match rest {
            [] => Some(None),
            [byte] => Some(Some(*byte)),
            _ => None,
        };
        Some(match content {
            [0x1d, rest @ ..] => Self::Dispensing(one(rest)?),
            [0x1e, rest @ ..] => Self::Unloading(one(rest)?),
            [0x1f] => Self::CustomReturning,
            [0x20] => Self::EscrowUnloading,
            [0x21] => Self::SettingType,
            [0x25, notes @ ..] => Self::Dispensed(pairs(notes)?),
            [0x26, rest @ ..] => Self::Unloaded(one(rest)?),
            [0x27] => Self::CustomReturned,
            [0x28] => Self::InvalidNumber,
            [0x29] => Self::TypeSet,
            _ => return None,
        })
    }

    const fn code_and_name(&self) -> (u8, &'static str) {
        match self {
            Self::Dispensing(Some(1)) => (0x1d, "DISPENSING, notes wait at the exit"),
            Self::Dispensing(_) => (0x1d, "DISPENSING"),
            Self::Unloading(_) => (0x1e, "UNLOADING"),
            Self::CustomReturning => (0x1f, "CUSTOM RETURNING"),
            Self::EscrowUnloading => (0x20, "RECYCLING UNLOADING"),
            Self::SettingType => (0x21, "SETTING TYPE CASSETTE"),
            Self::Dispensed(_) => (0x25, "DISPENSED"),
            Self::Unloaded(_) => (0x26, "UNLOADED"),
            Self::CustomReturned => (0x27, "CUSTOM BILLS RETURNED"),
            Self::InvalidNumber => (0x28, "INVALID BILL NUMBER"),
            Self::TypeSet => (0x29, "SET TYPE CASSETTE"),
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let (code, _) = self.code_and_name();
        match self {
            Self::Dispensing(byte) | Self::Unloading(byte) | Self::Unloaded(byte) => {
                Frame::new(BILL_TO_BILL, code, byte.as_slice())
            }
            Self::Dispensed(notes) => Frame::new(BILL_TO_BILL, code, notes.as_flattened()),
            _ => Frame::new(BILL_TO_BILL, code, &[]),
        }
    }
}

/// Name and code, with what the data says.
impl fmt::Display for UnitState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, name) = self.code_and_name();
        f.write_str(name)?;
        match self {
            Self::Dispensed(notes) if !notes.is_empty() => write!(f, ": {}", OfTypes(notes))?,
            Self::Unloaded(Some(notes)) => write!(f, ": {notes} notes")?,
            _ => {}
        }
        write!(f, " ({code:02X})")
    }
}

/// One cassette, as the unit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cassette {
    /// It is in its place.
    pub present: bool,
    /// It takes no more notes.
    pub full: bool,
    /// The notes that it keeps: a bill type, [`UNASSIGNED`] or [`ESCROW_CASSETTE`].
    pub kind: u8,
    /// How many it holds.
    pub notes: u8,
}

/// The cassettes, the answer to RECYCLING CASSETTE STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cassettes<'a>(&'a [[u8; 2]]);

impl<'a> Cassettes<'a> {
    /// Two cassettes at least: one alone would look like a state with its data, which may come late.
    #[must_use]
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        let cassettes = pairs(content)?;
        (2..=usize::from(CASSETTES)).contains(&cassettes.len()).then_some(Self(cassettes))
    }

    /// The cassettes with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u8, Cassette)> + use<'a> {
        (1..).zip(self.0).map(|(number, [status, notes])| {
            let (present, full) = (status & 0x80 != 0, status & 0x40 != 0);
            (number, Cassette { present, full, kind: status & 0x1f, notes: *notes })
        })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        match self.0.as_flattened() {
            [first, rest @ ..] => Frame::new(BILL_TO_BILL, *first, rest),
            [] => Frame::new(BILL_TO_BILL, 0, &[]),
        }
    }
}

impl fmt::Display for Cassettes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CASSETTES")?;
        for (number, Cassette { present, full, kind, notes }) in self.iter() {
            match (present, kind) {
                (false, _) => write!(f, ", {number} is out")?,
                (true, UNASSIGNED) => write!(f, ", {number} keeps none")?,
                (true, ESCROW_CASSETTE) => write!(f, ", {number} is for escrow, {notes} notes")?,
                (true, kind) => write!(f, ", {number}: {notes} of type {kind}")?,
            }
            if full {
                f.write_str(" (full)")?;
            }
        }
        Ok(())
    }
}

/// What the unit was at when its power went: the answer to POWER RECOVERY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery<'a> {
    /// 00: nothing. The same byte is an ACK.
    None,
    /// 17: notes were coming in, (type, destination) each; 0 is the drop cassette, the others are
    /// the cassettes. Each is a credit.
    Packing(&'a [[u8; 2]]),
    /// 3C: notes were going out and are in the dispenser, a word each.
    Dispensing(&'a [[u8; 2]]),
    /// 3D: notes were on their way to the drop cassette, and are there now.
    Unloading {
        /// Out of this cassette.
        cassette: u8,
        /// So many were to be unloaded.
        notes: u8,
        /// Those that were on their way, a word each.
        words: &'a [[u8; 2]],
    },
}

impl<'a> Recovery<'a> {
    /// What an answer to POWER RECOVERY means.
    #[must_use]
    pub fn parse(content: &'a [u8]) -> Option<Self> {
        Some(match content {
            [0x00] => Self::None,
            [0x17, notes @ ..] => Self::Packing(pairs(notes)?),
            [0x3c, words @ ..] => Self::Dispensing(pairs(words)?),
            [0x3d, cassette, notes, words @ ..] => {
                Self::Unloading { cassette: *cassette, notes: *notes, words: pairs(words)? }
            }
            _ => return None,
        })
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        match self {
            Self::None => Frame::new(BILL_TO_BILL, 0x00, &[]),
            Self::Packing(notes) => Frame::new(BILL_TO_BILL, 0x17, notes.as_flattened()),
            Self::Dispensing(words) => Frame::new(BILL_TO_BILL, 0x3c, words.as_flattened()),
            Self::Unloading { cassette, notes, words } => {
                let mut data = vec![*cassette, *notes];
                data.extend_from_slice(words.as_flattened());
                Frame::new(BILL_TO_BILL, 0x3d, &data)
            }
        }
    }
}
