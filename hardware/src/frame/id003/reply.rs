//! What an ID-003 device says: its state, and answers to settings and questions.

use std::fmt;

use bitspire_shared::money::{Currency, Denomination};

use super::request::{Config, GET, SET};
use super::{FailureCode, Frame, RejectReason, country_currency};

/// What is in escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A note with its escrow code, from 61.
    Note(u8),
    /// A barcode ticket (code 6F); its text is the rest of the frame's data.
    Ticket,
}

/// A state of the device, the answer to STATUS REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 11: ready for a note (ENABLE).
    Idling,
    /// 12: a note is coming in.
    Accepting,
    /// 13: a note waits for the host.
    Escrow(Held),
    /// 14; recyclers name the destination.
    Stacking(Option<u8>),
    /// 15: past the point of no return; with the escrow code on most firmware.
    VendValid(Option<u8>),
    /// 16; recyclers name the destination.
    Stacked(Option<u8>),
    /// 17.
    Rejecting(RejectReason),
    /// 18.
    Returning,
    /// 19: the note in escrow is held on the host's wish.
    Holding,
    /// 1A: the inlet is closed (INHIBIT).
    Disabled,
    /// 1B.
    Initializing,
    /// DE: the program signature is being computed.
    SignatureBusy,
    /// DF.
    SignatureEnd,
    /// 40.
    PowerUp,
    /// 41.
    PowerUpBillInAcceptor,
    /// 42.
    PowerUpBillInStacker,
    /// 43.
    StackerFull,
    /// 44: the cashbox is out.
    StackerOpen,
    /// 45.
    JamInAcceptor,
    /// 46.
    JamInStacker,
    /// 47: a second note lies in the inlet.
    Pause,
    /// 48.
    Cheated,
    /// 49.
    Failure(FailureCode),
    /// 4A.
    CommError,
}

impl Status {
    fn parse(frame: &Frame) -> Option<Self> {
        let optional = |data: &[u8]| data.first().copied();
        Some(match (frame.op(), frame.data()) {
            (0x11, []) => Self::Idling,
            (0x12, []) => Self::Accepting,
            (0x13, [0x6f, ..]) => Self::Escrow(Held::Ticket),
            (0x13, [code]) => Self::Escrow(Held::Note(*code)),
            (0x14, data @ ([] | [_])) => Self::Stacking(optional(data)),
            (0x15, data @ ([] | [_])) => Self::VendValid(optional(data)),
            (0x16, data @ ([] | [_])) => Self::Stacked(optional(data)),
            (0x17, [reason]) => Self::Rejecting(RejectReason::from_code(*reason)),
            (0x18, []) => Self::Returning,
            (0x19, []) => Self::Holding,
            (0x1a, []) => Self::Disabled,
            (0x1b, []) => Self::Initializing,
            (0xde, []) => Self::SignatureBusy,
            (0xdf, _) => Self::SignatureEnd,
            (0x40, []) => Self::PowerUp,
            (0x41, []) => Self::PowerUpBillInAcceptor,
            (0x42, []) => Self::PowerUpBillInStacker,
            (0x43, []) => Self::StackerFull,
            (0x44, []) => Self::StackerOpen,
            (0x45, []) => Self::JamInAcceptor,
            (0x46, []) => Self::JamInStacker,
            (0x47, []) => Self::Pause,
            (0x48, []) => Self::Cheated,
            (0x49, [code]) => Self::Failure(FailureCode::from_code(*code)),
            (0x4a, []) => Self::CommError,
            _ => return None,
        })
    }

    /// Code and name of the state, as the specification has them.
    #[must_use]
    pub const fn code_and_name(&self) -> (u8, &'static str) {
        match self {
            Self::Idling => (0x11, "IDLING"),
            Self::Accepting => (0x12, "ACCEPTING"),
            Self::Escrow(_) => (0x13, "ESCROW"),
            Self::Stacking(_) => (0x14, "STACKING"),
            Self::VendValid(_) => (0x15, "VEND VALID"),
            Self::Stacked(_) => (0x16, "STACKED"),
            Self::Rejecting(_) => (0x17, "REJECTING"),
            Self::Returning => (0x18, "RETURNING"),
            Self::Holding => (0x19, "HOLDING"),
            Self::Disabled => (0x1a, "DISABLE"),
            Self::Initializing => (0x1b, "INITIALIZE"),
            Self::SignatureBusy => (0xde, "PROGRAM SIGNATURE BUSY"),
            Self::SignatureEnd => (0xdf, "PROGRAM SIGNATURE END"),
            Self::PowerUp => (0x40, "POWER UP"),
            Self::PowerUpBillInAcceptor => (0x41, "POWER UP, BILL IN ACCEPTOR"),
            Self::PowerUpBillInStacker => (0x42, "POWER UP, BILL IN STACKER"),
            Self::StackerFull => (0x43, "STACKER FULL"),
            Self::StackerOpen => (0x44, "STACKER OPEN"),
            Self::JamInAcceptor => (0x45, "JAM IN ACCEPTOR"),
            Self::JamInStacker => (0x46, "JAM IN STACKER"),
            Self::Pause => (0x47, "PAUSE"),
            Self::Cheated => (0x48, "CHEATED"),
            Self::Failure(_) => (0x49, "FAILURE"),
            Self::CommError => (0x4a, "COMMUNICATION ERROR"),
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let (op, _) = self.code_and_name();
        match self {
            Self::Escrow(Held::Note(code)) => Frame::new(op, &[*code]),
            Self::Escrow(Held::Ticket) => Frame::new(op, &[0x6f]),
            Self::Stacking(byte) | Self::VendValid(byte) | Self::Stacked(byte) => {
                Frame::new(op, byte.as_slice())
            }
            Self::Rejecting(reason) => Frame::new(op, &[reason.code()]),
            Self::Failure(code) => Frame::new(op, &[code.code()]),
            _ => Frame::new(op, &[]),
        }
    }
}

/// Name and code, with what the data says.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, name) = self.code_and_name();
        match self {
            Self::Escrow(Held::Note(note)) => write!(f, "{name} of note {note:02X}")?,
            Self::Escrow(Held::Ticket) => write!(f, "{name} of a ticket")?,
            Self::VendValid(Some(note)) => write!(f, "{name} of note {note:02X}")?,
            Self::Rejecting(reason) => write!(f, "{name}: {reason}")?,
            Self::Failure(failure) => write!(f, "{name}: {failure}")?,
            _ => f.write_str(name)?,
        }
        write!(f, " ({code:02X})")
    }
}

/// One slot of the currency table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencySlot {
    /// Escrow code, from 61.
    pub code: u8,
    /// Country code.
    pub country: u8,
    /// Value in major units, to be scaled by the exponent; 0 = empty slot.
    pub value: u8,
    /// Power of ten.
    pub exponent: u8,
}

impl CurrencySlot {
    /// The note in this slot; `None` for an empty slot, an unknown country or an absurd value.
    #[must_use]
    pub fn note(&self) -> Option<(Denomination, Currency)> {
        let currency = country_currency(self.country)?;
        let scale = 10u32.checked_pow(u32::from(self.exponent))?;
        let major = u32::from(self.value).checked_mul(scale)?;
        Some((Denomination::from_major(major, currency).ok()?, currency))
    }
}

/// The currency table, slot by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currencies<'a>(&'a [u8]);

impl<'a> Currencies<'a> {
    /// The slots in the order of the device.
    pub fn slots(&self) -> impl Iterator<Item = CurrencySlot> + use<'a> {
        self.0.as_chunks().0.iter().map(|&[code, country, value, exponent]| CurrencySlot {
            code,
            country,
            value,
            exponent,
        })
    }
}

/// A frame of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Its state.
    Status(Status),
    /// 50: the command was taken.
    Ack,
    /// 05: the state has changed, ask for it (interrupt mode).
    Enq,
    /// 4B: the command does not fit the state.
    InvalidCommand,
    /// C0..C7: the setting was taken.
    Echo(Config),
    /// 80..87.
    ReadBack(Config),
    /// 88: model, version, date and check sum as ASCII.
    Version(&'a [u8]),
    /// 89.
    BootVersion(&'a [u8]),
    /// 8A.
    CurrencyAssign(Currencies<'a>),
    /// 92.
    UnitInformation(&'a [u8]),
    /// Anything else, also a known code with data that does not fit.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Reply<'a> {
    /// What a frame of the device means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        if let Some(status) = Status::parse(frame) {
            return Self::Status(status);
        }
        if let Some(config) = Config::parse(frame, SET) {
            return Self::Echo(config);
        }
        if let Some(config) = Config::parse(frame, GET) {
            return Self::ReadBack(config);
        }
        match (frame.op(), frame.data()) {
            (0x50, []) => Self::Ack,
            (0x05, []) => Self::Enq,
            (0x4b, []) => Self::InvalidCommand,
            (0x88, text) => Self::Version(text),
            (0x89, text) => Self::BootVersion(text),
            (0x8a, table) if table.as_chunks::<4>().1.is_empty() => {
                Self::CurrencyAssign(Currencies(table))
            }
            (0x92, data) => Self::UnitInformation(data),
            _ => Self::Unknown { raw: frame },
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        match self {
            Self::Status(status) => status.frame(),
            Self::Ack => Frame::new(0x50, &[]),
            Self::Enq => Frame::new(0x05, &[]),
            Self::InvalidCommand => Frame::new(0x4b, &[]),
            Self::Echo(config) => config.frame(SET),
            Self::ReadBack(config) => config.frame(GET),
            Self::Version(text) => Frame::new(0x88, text),
            Self::BootVersion(text) => Frame::new(0x89, text),
            Self::CurrencyAssign(table) => Frame::new(0x8a, table.0),
            Self::UnitInformation(data) => Frame::new(0x92, data),
            Self::Unknown { raw } => **raw,
        }
    }
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Ack => f.write_str("ACK"),
            Self::Enq => f.write_str("ENQ"),
            Self::InvalidCommand => f.write_str("INVALID COMMAND (4B)"),
            Self::Echo(config) => write!(f, "ECHO {config:?}"),
            Self::ReadBack(config) => write!(f, "VALUE {config:?}"),
            Self::Version(text) => write!(f, "VERSION {}", text.escape_ascii()),
            Self::BootVersion(text) => write!(f, "BOOT VERSION {}", text.escape_ascii()),
            Self::CurrencyAssign(table) => {
                write!(f, "CURRENCY ASSIGN of {} slots", table.slots().count())
            }
            Self::UnitInformation(data) => write!(f, "UNIT INFORMATION {}", data.escape_ascii()),
            Self::Unknown { raw } => write!(f, "unknown reply {raw}"),
        }
    }
}
