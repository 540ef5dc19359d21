//! What the host says to an EBDS device.

use std::fmt;

use super::{Frame, kind};

/// What the device does with a note that a power loss has stopped (omnibus D2, bits 2 and 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerUpPolicy {
    /// A: at escrow, given back; past escrow, stacked without a value.
    A,
    /// B: at escrow, kept for the host's decision; past escrow, stacked with its value.
    #[default]
    B,
    /// C: at escrow, kept; past escrow, stacked without a value.
    C,
}

impl PowerUpPolicy {
    const fn bits(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::A),
            1 => Some(Self::B),
            2 => Some(Self::C),
            _ => None,
        }
    }
}

/// The standing wishes that every omnibus command carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omnibus {
    /// D0: bit `n` enables the note of index `n + 1`; with reports at length, anything but 0 opens
    /// the inlet.
    pub notes: u8,
    /// D1 bit 0: the device may send ENQ (05) on a change; obsolete.
    pub interrupt: bool,
    /// D1 bit 1: strict recognition; obsolete.
    pub high_security: bool,
    /// D1 bits 2 and 3: 0 one way, 1 two ways, 2 and 3 any way.
    pub orientation: u8,
    /// D1 bit 4: a note waits in escrow; without, it is stacked at once.
    pub escrow: bool,
    /// D1 bit 5: stack the note in escrow.
    pub stack: bool,
    /// D1 bit 6: give the note in escrow back.
    pub give_back: bool,
    /// D2 bit 0: a note that can be neither credited nor given back stops the device.
    pub no_push: bool,
    /// D2 bit 1: barcode tickets.
    pub barcode: bool,
    /// D2 bits 2 and 3.
    pub policy: PowerUpPolicy,
    /// D2 bit 4: notes are reported at length, with currency and value.
    pub extended: bool,
    /// D2 bit 5: coupons are reported at length.
    pub coupon: bool,
}

impl Omnibus {
    fn parse([notes, mode, config]: [u8; 3]) -> Option<Self> {
        let policy = PowerUpPolicy::from_bits(config >> 2 & 3)?;
        let bit = |byte: u8, bit: u8| byte & bit != 0;
        (config & 0x40 == 0).then_some(Self {
            notes,
            interrupt: bit(mode, 0x01),
            high_security: bit(mode, 0x02),
            orientation: mode >> 2 & 3,
            escrow: bit(mode, 0x10),
            stack: bit(mode, 0x20),
            give_back: bit(mode, 0x40),
            no_push: bit(config, 0x01),
            barcode: bit(config, 0x02),
            policy,
            extended: bit(config, 0x10),
            coupon: bit(config, 0x20),
        })
    }

    fn bytes(self) -> [u8; 3] {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let mode = bit(self.interrupt, 0x01)
            | bit(self.high_security, 0x02)
            | (self.orientation & 3) << 2
            | bit(self.escrow, 0x10)
            | bit(self.stack, 0x20)
            | bit(self.give_back, 0x40);
        let config = bit(self.no_push, 0x01)
            | bit(self.barcode, 0x02)
            | self.policy.bits() << 2
            | bit(self.extended, 0x10)
            | bit(self.coupon, 0x20);
        [self.notes, mode, config]
    }
}

/// An auxiliary question (type 6); its answer is text or a number of its own form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// 00: check sum of the firmware.
    SoftwareCrc,
    /// 04: device type.
    Type,
    /// 05: serial number.
    Serial,
    /// 06: part number of the boot firmware.
    BootPart,
    /// 07: part number of the firmware.
    ApplicationPart,
    /// 08: name of the set of notes.
    VariantName,
    /// 09: part number of the set of notes.
    VariantPart,
    /// 0D: what the device can do.
    Capabilities,
    /// 0E: the firmware in use.
    ApplicationId,
    /// 0F: the set of notes in use.
    VariantId,
}

impl Query {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SoftwareCrc,
        Self::Type,
        Self::Serial,
        Self::BootPart,
        Self::ApplicationPart,
        Self::VariantName,
        Self::VariantPart,
        Self::Capabilities,
        Self::ApplicationId,
        Self::VariantId,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::SoftwareCrc => 0x00,
            Self::Type => 0x04,
            Self::Serial => 0x05,
            Self::BootPart => 0x06,
            Self::ApplicationPart => 0x07,
            Self::VariantName => 0x08,
            Self::VariantPart => 0x09,
            Self::Capabilities => 0x0d,
            Self::ApplicationId => 0x0e,
            Self::VariantId => 0x0f,
        }
    }
}

/// Indexes of notes, from 1, seven to a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoteSet {
    bytes: [u8; NoteSet::LONG],
}

impl NoteSet {
    /// Bytes that a Cashflow SC 66, 83 or 85 takes: 50 notes.
    pub const SHORT: usize = 8;
    /// Bytes that an SC Advance or a recycler takes: 128 notes.
    pub const LONG: usize = 19;

    /// Adds an index.
    pub fn insert(&mut self, index: u8) {
        let Some(from_0) = index.checked_sub(1) else { return };
        if let Some(byte) = self.bytes.get_mut(usize::from(from_0 / 7)) {
            *byte |= 1 << (from_0 % 7);
        }
    }

    /// Whether it holds an index.
    #[must_use]
    pub fn contains(&self, index: u8) -> bool {
        let Some(from_0) = index.checked_sub(1) else { return false };
        self.bytes.get(usize::from(from_0 / 7)).is_some_and(|byte| byte & 1 << (from_0 % 7) != 0)
    }
}

/// A frame of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Type 1: the poll, which also carries all wishes.
    Omnibus(Omnibus),
    /// Type 6.
    Query(Query),
    /// Type 6 with 7F three times: start again. Has no answer that could be relied upon.
    SoftReset,
    /// Type 7, 02: the entry of the note table at this index, from 1.
    NoteSpecification(Omnibus, u8),
    /// Type 7, 03: only these notes; the second is true for the long form.
    NoteInhibits(Omnibus, NoteSet, bool),
    /// Type 7, 06: the table of the value indexes 1 to 7.
    ValueTable(Omnibus),
    /// Anything else.
    Unknown {
        /// As it came.
        raw: &'a Frame,
    },
}

impl<'a> Request<'a> {
    /// What a frame of the host means.
    #[must_use]
    pub fn parse(frame: &'a Frame) -> Self {
        let unknown = Self::Unknown { raw: frame };
        let parsed = match (frame.kind(), frame.data()) {
            (kind::OMNIBUS, &[a, b, c]) => Omnibus::parse([a, b, c]).map(Self::Omnibus),
            (kind::AUXILIARY, [0x7f, 0x7f, 0x7f]) => Some(Self::SoftReset),
            (kind::AUXILIARY, [0, 0, code]) => {
                Query::ALL.into_iter().find(|query| query.code() == *code).map(Self::Query)
            }
            (kind::EXTENDED, &[0x02, a, b, c, index]) => {
                Omnibus::parse([a, b, c]).map(|own| Self::NoteSpecification(own, index))
            }
            (kind::EXTENDED, &[0x03, a, b, c, ref notes @ ..]) => {
                let long = notes.len() == NoteSet::LONG;
                let mut bytes = [0; NoteSet::LONG];
                for (slot, byte) in bytes.iter_mut().zip(notes) {
                    *slot = *byte;
                }
                let own =
                    Omnibus::parse([a, b, c]).filter(|_| long || notes.len() == NoteSet::SHORT);
                own.map(|own| Self::NoteInhibits(own, NoteSet { bytes }, long))
            }
            (kind::EXTENDED, &[0x06, a, b, c]) => Omnibus::parse([a, b, c]).map(Self::ValueTable),
            _ => None,
        };
        // bits that stand for a note acceptor's kin are not ours to answer
        parsed.filter(|parsed| parsed.frame(frame.toggle()) == *frame).unwrap_or(unknown)
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self, toggle: bool) -> Frame {
        let extended = |subtype: u8, own: Omnibus, rest: &[u8]| {
            let [a, b, c] = own.bytes();
            let head = [subtype, a, b, c];
            let control = kind::EXTENDED << 4 | u8::from(toggle);
            Frame::with_control(control, head.into_iter().chain(rest.iter().copied()))
        };
        match self {
            Self::Omnibus(own) => Frame::new(kind::OMNIBUS, toggle, &own.bytes()),
            Self::Query(query) => Frame::new(kind::AUXILIARY, toggle, &[0, 0, query.code()]),
            Self::SoftReset => Frame::new(kind::AUXILIARY, toggle, &[0x7f; 3]),
            Self::NoteSpecification(own, index) => extended(0x02, *own, &[*index]),
            Self::NoteInhibits(own, notes, long) => {
                let len = if *long { NoteSet::LONG } else { NoteSet::SHORT };
                extended(0x03, *own, notes.bytes.get(..len).unwrap_or_default())
            }
            Self::ValueTable(own) => extended(0x06, *own, &[]),
            Self::Unknown { raw } => **raw,
        }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Omnibus(own) if own.stack => f.write_str("STACK"),
            Self::Omnibus(own) if own.give_back => f.write_str("RETURN"),
            Self::Omnibus(own) if own.notes == 0 => f.write_str("POLL, closed"),
            Self::Omnibus(own) => write!(f, "POLL, notes {:02X}", own.notes),
            Self::Query(query) => write!(f, "QUERY {query:?}"),
            Self::SoftReset => f.write_str("SOFT RESET"),
            Self::NoteSpecification(_, index) => write!(f, "QUERY note {index}"),
            Self::NoteInhibits(..) => f.write_str("SET NOTE INHIBITS"),
            Self::ValueTable(_) => f.write_str("QUERY value table"),
            Self::Unknown { raw } => write!(f, "unknown command {raw}"),
        }
    }
}
