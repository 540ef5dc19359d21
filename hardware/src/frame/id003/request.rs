//! What the host says to an ID-003 device, and the settings that both sides name.

use std::fmt;

use super::Frame;

/// Bit of [`Config::Optional`]: after a power loss while stacking, the device repeats VEND VALID.
pub const POWER_RECOVERY: u16 = 0x0002;

/// How the device speaks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommMode {
    /// Only when asked.
    Poll,
    /// It sends ENQ when its state changes.
    Interrupt1,
    /// As `Interrupt1`, in the other of its two forms.
    Interrupt2,
}

/// One setting with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// C0: a set bit `n` disables the note of escrow code `61 + n`.
    Denominations {
        /// The bits; the first byte on the line is the low one.
        disabled: u16,
    },
    /// C1: a set bit asks for strict recognition of that note.
    Security(u16),
    /// C2.
    Mode(CommMode),
    /// C3: `true` closes the inlet.
    Inhibit(bool),
    /// C4: directions of insertion that are refused; 0 takes all.
    Direction(u8),
    /// C5: optional functions, see [`POWER_RECOVERY`].
    Optional(u16),
    /// C6: barcode tickets.
    Barcode([u8; 2]),
    /// C7: what of notes and tickets is refused.
    BarcodeInhibit(u8),
}

/// A setting without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// C0.
    Denominations,
    /// C1.
    Security,
    /// C2.
    Mode,
    /// C3.
    Inhibit,
    /// C4.
    Direction,
    /// C5.
    Optional,
    /// C6.
    Barcode,
    /// C7.
    BarcodeInhibit,
}

impl ConfigKind {
    /// Every setting, in the order of the codes from C0.
    pub const ALL: [Self; 8] = [
        Self::Denominations,
        Self::Security,
        Self::Mode,
        Self::Inhibit,
        Self::Direction,
        Self::Optional,
        Self::Barcode,
        Self::BarcodeInhibit,
    ];

    /// Place after C0 (set) and 80 (read back).
    const fn offset(self) -> u8 {
        match self {
            Self::Denominations => 0,
            Self::Security => 1,
            Self::Mode => 2,
            Self::Inhibit => 3,
            Self::Direction => 4,
            Self::Optional => 5,
            Self::Barcode => 6,
            Self::BarcodeInhibit => 7,
        }
    }

    /// The setting whose code is `base` plus its place.
    pub(super) fn from_op(op: u8, base: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| base | kind.offset() == op)
    }
}

/// Base of the codes that set; the echo has the same code.
pub(super) const SET: u8 = 0xc0;
/// Base of the codes that read back.
pub(super) const GET: u8 = 0x80;

impl Config {
    /// Which setting it is.
    #[must_use]
    pub const fn kind(self) -> ConfigKind {
        match self {
            Self::Denominations { .. } => ConfigKind::Denominations,
            Self::Security(_) => ConfigKind::Security,
            Self::Mode(_) => ConfigKind::Mode,
            Self::Inhibit(_) => ConfigKind::Inhibit,
            Self::Direction(_) => ConfigKind::Direction,
            Self::Optional(_) => ConfigKind::Optional,
            Self::Barcode(_) => ConfigKind::Barcode,
            Self::BarcodeInhibit(_) => ConfigKind::BarcodeInhibit,
        }
    }

    pub(super) fn frame(self, base: u8) -> Frame {
        let op = base | self.kind().offset();
        match self {
            Self::Denominations { disabled: bits }
            | Self::Security(bits)
            | Self::Optional(bits) => Frame::new(op, &bits.to_le_bytes()),
            Self::Barcode(bytes) => Frame::new(op, &bytes),
            Self::Mode(CommMode::Poll) => Frame::new(op, &[0]),
            Self::Mode(CommMode::Interrupt1) => Frame::new(op, &[1]),
            Self::Mode(CommMode::Interrupt2) => Frame::new(op, &[2]),
            Self::Inhibit(closed) => Frame::new(op, &[u8::from(closed)]),
            Self::Direction(byte) | Self::BarcodeInhibit(byte) => Frame::new(op, &[byte]),
        }
    }

    pub(super) fn parse(frame: &Frame, base: u8) -> Option<Self> {
        let kind = ConfigKind::from_op(frame.op(), base)?;
        Some(match (kind, frame.data()) {
            (ConfigKind::Denominations, &[low, high]) => {
                Self::Denominations { disabled: u16::from_le_bytes([low, high]) }
            }
            (ConfigKind::Security, &[low, high]) => Self::Security(u16::from_le_bytes([low, high])),
            (ConfigKind::Optional, &[low, high]) => Self::Optional(u16::from_le_bytes([low, high])),
            (ConfigKind::Barcode, &[first, second]) => Self::Barcode([first, second]),
            (ConfigKind::Mode, [0]) => Self::Mode(CommMode::Poll),
            (ConfigKind::Mode, [1]) => Self::Mode(CommMode::Interrupt1),
            (ConfigKind::Mode, [2]) => Self::Mode(CommMode::Interrupt2),
            (ConfigKind::Inhibit, [0]) => Self::Inhibit(false),
            (ConfigKind::Inhibit, [1]) => Self::Inhibit(true),
            (ConfigKind::Direction, &[byte]) => Self::Direction(byte),
            (ConfigKind::BarcodeInhibit, &[byte]) => Self::BarcodeInhibit(byte),
            _ => return None,
        })
    }
}

/// A frame of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// 11.
    StatusRequest,
    /// 40.
    Reset,
    /// 41: stack; VEND VALID comes when the note passes the stacker's lever.
    Stack1,
    /// 42: stack; VEND VALID comes when the note lies in the stacker.
    Stack2,
    /// 49: stack into the cashbox even if the note could be recycled.
    Stack3,
    /// 43: give the note in escrow back.
    Return,
    /// 44: keep the note in escrow for 10 s more.
    Hold,
    /// 45: 3 s more.
    Wait,
    /// 50: VEND VALID or POWER UP is understood; has no reply.
    Ack,
    /// C0..C7: to be echoed.
    Set(Config),
    /// 80..87: to be answered with the same code and the value.
    Get(ConfigKind),
    /// 88.
    Version,
    /// 89.
    BootVersion,
    /// 8A.
    CurrencyAssign,
    /// 92.
    UnitInformation,
    /// Anything else, also a known code with data that does not fit.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Request<'a> {
    /// What a frame of the host means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        if let Some(config) = Config::parse(frame, SET) {
            return Self::Set(config);
        }
        match (frame.op(), frame.data()) {
            (0x11, []) => Self::StatusRequest,
            (0x40, []) => Self::Reset,
            (0x41, []) => Self::Stack1,
            (0x42, []) => Self::Stack2,
            (0x49, []) => Self::Stack3,
            (0x43, []) => Self::Return,
            (0x44, []) => Self::Hold,
            (0x45, []) => Self::Wait,
            (0x50, []) => Self::Ack,
            (0x88, []) => Self::Version,
            (0x89, []) => Self::BootVersion,
            (0x8a, []) => Self::CurrencyAssign,
            (0x92, []) => Self::UnitInformation,
            (op, []) => {
                ConfigKind::from_op(op, GET).map_or(Self::Unknown { raw: frame }, Self::Get)
            }
            _ => Self::Unknown { raw: frame },
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let op = match self {
            Self::StatusRequest => 0x11,
            Self::Reset => 0x40,
            Self::Stack1 => 0x41,
            Self::Stack2 => 0x42,
            Self::Stack3 => 0x49,
            Self::Return => 0x43,
            Self::Hold => 0x44,
            Self::Wait => 0x45,
            Self::Ack => 0x50,
            Self::Version => 0x88,
            Self::BootVersion => 0x89,
            Self::CurrencyAssign => 0x8a,
            Self::UnitInformation => 0x92,
            Self::Get(kind) => GET | kind.offset(),
            Self::Set(config) => return config.frame(SET),
            Self::Unknown { raw } => return **raw,
        };
        Frame::new(op, &[])
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatusRequest => f.write_str("STATUS REQUEST"),
            Self::Reset => f.write_str("RESET"),
            Self::Stack1 => f.write_str("STACK-1"),
            Self::Stack2 => f.write_str("STACK-2"),
            Self::Stack3 => f.write_str("STACK-3"),
            Self::Return => f.write_str("RETURN"),
            Self::Hold => f.write_str("HOLD"),
            Self::Wait => f.write_str("WAIT"),
            Self::Ack => f.write_str("ACK"),
            Self::Set(config) => write!(f, "SET {config:?}"),
            Self::Get(kind) => write!(f, "GET {kind:?}"),
            Self::Version => f.write_str("VERSION REQUEST"),
            Self::BootVersion => f.write_str("BOOT VERSION REQUEST"),
            Self::CurrencyAssign => f.write_str("CURRENCY ASSIGN REQUEST"),
            Self::UnitInformation => f.write_str("UNIT INFORMATION REQUEST"),
            Self::Unknown { raw } => write!(f, "unknown command {raw}"),
        }
    }
}
