//! Id 30: what host and LCDM-4000 say to each other.
//!
//! Promise: each message is built and read back exactly. Counts, the error code and most values are
//! sent with 20h added. A frame that fits no known message, or whose fixed bytes are others, is
//! `Unknown` with its bytes: counts are read only from a frame that is right in every place.

use super::{ErrorCode, Frame, Id};

/// Cassettes that one command addresses.
pub const SLOTS: usize = 4;
/// The command that moves notes to the exit.
pub const DISPENSE: u8 = 0x52;
/// The command that moves notes to the reject tray.
pub const TEST_DISPENSE: u8 = 0x53;
/// Serial numbers of dispenses, from 0.
pub const SERIALS: u8 = 96;

const RESET: u8 = 0x44;
const STATUS: u8 = 0x50;
const PURGE: u8 = 0x51;
const LAST_STATUS: u8 = 0x55;
const DIAGNOSTICS: u8 = 0x58;
const SET_OPACITIES: u8 = 0x5a;
const OPACITIES: u8 = 0x5b;
const SET_ORDER: u8 = 0x5c;
const ORDER: u8 = 0x5d;
const SET_LENGTHS: u8 = 0x5e;
const LENGTHS: u8 = 0x5f;
const SERIAL: u8 = 0x67;

/// Added to numbers.
const BASE: u8 = 0x20;
/// The byte `MISS` in front of the counts.
const MISS: u8 = 0x30;
/// Reserved bytes behind the counts of a dispense.
const RESERVED: usize = 9;
/// Tenths of a millimetre and less: one unit of a note's length is 0.785 mm.
const UNIT_UM: u32 = 785;

/// A number of notes and the parameters behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Notes of each cassette.
    pub notes: [u8; SLOTS],
    /// How the command ends; units differ.
    pub form: Form,
}

/// What stands behind the four counts of a dispense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Two empty timeouts and a serial number from 0 to 95: as Lamassu's field units are driven.
    Serial(u8),
    /// Two empty timeouts and nine reserved bytes: as the PyPI package has it.
    Plain,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// 44: starts the device again. Answered not at all, once or twice.
    Reset,
    /// 50: sensors and cassettes.
    Status,
    /// 51: moves notes in the path to the reject tray.
    Purge,
    /// 52: notes to the exit. Moves money.
    Dispense(Counts),
    /// 53: notes to the reject tray.
    TestDispense(Counts),
    /// 55: the result of the last purge, dispense or test dispense again.
    LastStatus,
    /// 58: five notes of a cassette (from 1) to the reject tray, measured.
    Diagnostics(u8),
    /// 5A: sets the opacities that notes are measured against.
    SetOpacities([u8; SLOTS]),
    /// 5B: what they are.
    Opacities,
    /// 5C: sets the order of the cassettes (each from 1).
    SetOrder([u8; SLOTS]),
    /// 5D: what it is.
    Order,
    /// 5E: sets the lengths that notes are measured against ([`length_units`]); 0 leaves one as it is.
    SetLengths([u8; SLOTS]),
    /// 5F: what they are.
    Lengths,
    /// 67: the serial number of the last dispense.
    Serial,
    /// None of these.
    Unknown(Frame),
}

/// What the device counted at one cassette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BayCount {
    /// Notes that passed the exit sensor.
    pub exit: u8,
    /// Times that something was rejected: one or more notes each.
    pub rejected: u8,
    /// Whether the cassette is there.
    pub present: bool,
}

/// What the device sees at one cassette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BayStatus {
    /// Sensors: bit 3 near end.
    pub sensors: u8,
    /// Whether the cassette is there.
    pub present: bool,
    /// The opacity that its notes are measured against.
    pub opacity: u8,
    /// Likewise the length.
    pub length: u8,
}

impl BayStatus {
    /// Whether few notes are left.
    #[must_use]
    pub const fn near_end(self) -> bool {
        self.sensors & 0x08 != 0
    }
}

/// Bit of [`Reply::Status`] `sensors`: a note lies at the exit sensor.
pub const AT_EXIT: u8 = 0x08;
/// Bits of the sensors between cassettes and exit.
pub const IN_PATH: u8 = 0x07;
/// How sensor bits are told: with bit 6 set, so that no control byte comes of them.
const SENSORS: u8 = 0x40;
const SENSOR_BITS: u8 = 0x3f;

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a command that has only an error code to answer, or to any when there is nothing else to
    /// say.
    Done {
        /// The command.
        command: u8,
        /// The error code.
        error: ErrorCode,
    },
    /// To 50.
    Status {
        /// The error code.
        error: ErrorCode,
        /// Sensors of the path ([`AT_EXIT`], [`IN_PATH`]).
        sensors: u8,
        /// The cassettes.
        bays: [BayStatus; SLOTS],
    },
    /// To 51, 52 and 53.
    Counted {
        /// The command.
        command: u8,
        /// The error code.
        error: ErrorCode,
        /// What was counted.
        bays: [BayCount; SLOTS],
    },
    /// To 55: the same of the last such command.
    Last {
        /// That command.
        command: u8,
        /// Its error code.
        error: ErrorCode,
        /// What was counted.
        bays: [BayCount; SLOTS],
    },
    /// To 58.
    Measured {
        /// The error code.
        error: ErrorCode,
        /// Opacity of the last note.
        opacity: u8,
        /// Its length.
        length: u8,
        /// What the diverter took, in milliseconds.
        divert_ms: u8,
        /// How often something was rejected.
        rejected: u8,
    },
    /// To 5B, 5D and 5F.
    Values {
        /// The command.
        command: u8,
        /// The error code.
        error: ErrorCode,
        /// A value a cassette.
        values: [u8; SLOTS],
    },
    /// To 67.
    Serial {
        /// The error code.
        error: ErrorCode,
        /// The number, from 0.
        serial: u8,
    },
    /// None of these.
    Unknown(Frame),
}

/// A note's length in the device's units, from mm.
#[must_use]
pub fn length_units(mm: u8) -> u8 {
    let units = u32::from(mm).saturating_mul(1_000) / UNIT_UM;
    u8::try_from(units).unwrap_or(u8::MAX)
}

/// An error code by its value without the 20h.
#[must_use]
pub const fn error(raw: u8) -> ErrorCode {
    ErrorCode { id: Id::Lcdm4000, raw }
}

impl Request {
    /// The frame that says it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let new = |command, data: &[u8]| Frame::new(Id::Lcdm4000, command, data);
        match self {
            Self::Reset => new(RESET, &[]),
            Self::Status => new(STATUS, &[]),
            Self::Purge => new(PURGE, &[]),
            Self::Dispense(counts) => counts.frame(DISPENSE),
            Self::TestDispense(counts) => counts.frame(TEST_DISPENSE),
            Self::LastStatus => new(LAST_STATUS, &[]),
            Self::Diagnostics(bay) => new(DIAGNOSTICS, &[0x30 | (bay & 0x0f)]),
            Self::SetOpacities(values) => new(SET_OPACITIES, nibbles(values).as_flattened()),
            Self::Opacities => new(OPACITIES, &[]),
            Self::SetOrder(order) => new(SET_ORDER, &order.map(|bay| 0x30 | (bay & 0x0f))),
            Self::Order => new(ORDER, &[]),
            Self::SetLengths(values) => new(SET_LENGTHS, nibbles(values).as_flattened()),
            Self::Lengths => new(LENGTHS, &[]),
            Self::Serial => new(SERIAL, &[]),
            Self::Unknown(frame) => *frame,
        }
    }

    /// The request in a frame.
    #[must_use]
    pub fn parse(frame: &Frame) -> Self {
        Self::known(frame).unwrap_or(Self::Unknown(*frame))
    }

    fn known(frame: &Frame) -> Option<Self> {
        if frame.id() != Id::Lcdm4000 {
            return None;
        }
        Some(match (frame.command(), frame.data()) {
            (RESET, []) => Self::Reset,
            (STATUS, []) => Self::Status,
            (PURGE, []) => Self::Purge,
            (DISPENSE, data) => Self::Dispense(Counts::read(data)?),
            (TEST_DISPENSE, data) => Self::TestDispense(Counts::read(data)?),
            (LAST_STATUS, []) => Self::LastStatus,
            (DIAGNOSTICS, [bay @ 0x31..=0x34]) => Self::Diagnostics(bay & 0x0f),
            (SET_OPACITIES, data) => Self::SetOpacities(from_nibbles(data)?),
            (OPACITIES, []) => Self::Opacities,
            (SET_ORDER, data) => Self::SetOrder(order(data)?),
            (ORDER, []) => Self::Order,
            (SET_LENGTHS, data) => Self::SetLengths(from_nibbles(data)?),
            (LENGTHS, []) => Self::Lengths,
            (SERIAL, []) => Self::Serial,
            _ => return None,
        })
    }
}

impl Counts {
    fn frame(&self, command: u8) -> Frame {
        let mut data = [BASE; SLOTS + 2 + RESERVED];
        for (place, notes) in data.iter_mut().zip(self.notes) {
            *place = plus(notes);
        }
        let len = match self.form {
            Form::Plain => data.len(),
            Form::Serial(serial) => {
                if let Some(place) = data.get_mut(6) {
                    *place = plus(serial);
                }
                7
            }
        };
        Frame::new(Id::Lcdm4000, command, data.get(..len).unwrap_or_default())
    }

    fn read(data: &[u8]) -> Option<Self> {
        let (notes, rest) = data.split_first_chunk::<SLOTS>()?;
        let form = match rest {
            [BASE, BASE, serial] => Form::Serial(minus(*serial)?),
            [BASE, BASE, reserved @ ..] if *reserved == [BASE; RESERVED] => Form::Plain,
            _ => return None,
        };
        let mut counts = Self { notes: [0; SLOTS], form };
        for (to, from) in counts.notes.iter_mut().zip(notes) {
            *to = minus(*from)?;
        }
        Some(counts)
    }
}

impl Reply {
    /// The frame that says it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let mut data = [BASE; 3 + 3 * SLOTS + RESERVED];
        let mut len = 0;
        let mut put = |bytes: &[u8]| {
            for byte in bytes {
                if let Some(place) = data.get_mut(len) {
                    *place = *byte;
                }
                len = usize::saturating_add(len, 1);
            }
        };
        let command = match self {
            Self::Done { command, error } => {
                put(&[plus(error.raw)]);
                *command
            }
            Self::Status { error, sensors, bays } => {
                put(&[plus(error.raw), SENSORS | (sensors & SENSOR_BITS)]);
                for (bay, number) in bays.iter().zip(1..) {
                    let kind = kind(bay.present, number);
                    let sensors = SENSORS | (bay.sensors & SENSOR_BITS);
                    put(&[sensors, kind, plus(bay.opacity), plus(bay.length)]);
                }
                STATUS
            }
            Self::Counted { command, error, bays } => {
                put(&[plus(error.raw), MISS]);
                put(counted(bays).as_flattened());
                if *command != PURGE {
                    put(&[BASE; RESERVED]);
                }
                *command
            }
            Self::Last { command, error, bays } => {
                put(&[*command, plus(error.raw), MISS]);
                put(counted(bays).as_flattened());
                LAST_STATUS
            }
            Self::Measured { error, opacity, length, divert_ms, rejected } => {
                put(&[plus(error.raw)]);
                put(&[*opacity, *length, *divert_ms, *rejected].map(plus));
                DIAGNOSTICS
            }
            Self::Values { command, error, values } => {
                put(&[plus(error.raw)]);
                if *command == ORDER {
                    put(&values.map(|bay| 0x30 | (bay & 0x0f)));
                } else {
                    put(nibbles(values).as_flattened());
                }
                *command
            }
            Self::Serial { error, serial } => {
                put(&[plus(error.raw), plus(*serial)]);
                SERIAL
            }
            Self::Unknown(frame) => return *frame,
        };
        Frame::new(Id::Lcdm4000, command, data.get(..len).unwrap_or_default())
    }

    /// The reply in a frame.
    #[must_use]
    pub fn parse(frame: &Frame) -> Self {
        Self::known(frame).unwrap_or(Self::Unknown(*frame))
    }

    fn known(frame: &Frame) -> Option<Self> {
        if frame.id() != Id::Lcdm4000 {
            return None;
        }
        let (command, data) = (frame.command(), frame.data());
        if command == LAST_STATUS && data.len() > 1 {
            let [command, error, rest @ ..] = data else { return None };
            let error = self::error(minus(*error)?);
            return Some(Self::Last { command: *command, error, bays: read_counted(rest)? });
        }
        let (code, rest) = data.split_first()?;
        let error = self::error(minus(*code)?);
        Some(match (command, rest) {
            (
                RESET | STATUS | PURGE | DISPENSE | TEST_DISPENSE | LAST_STATUS | DIAGNOSTICS
                | SET_OPACITIES | OPACITIES | SET_ORDER | ORDER | SET_LENGTHS | LENGTHS | SERIAL,
                [],
            ) => Self::Done { command, error },
            (STATUS, [sensors, bays @ ..]) => {
                Self::Status { error, sensors: sensors & SENSOR_BITS, bays: read_bays(bays)? }
            }
            (PURGE, rest) => Self::Counted { command, error, bays: read_counted(rest)? },
            (DISPENSE | TEST_DISPENSE, rest) => {
                let (counted, reserved) = rest.split_at_checked(1 + 3 * SLOTS)?;
                if reserved.len() != RESERVED {
                    return None;
                }
                Self::Counted { command, error, bays: read_counted(counted)? }
            }
            (DIAGNOSTICS, [opacity, length, divert, rejected]) => Self::Measured {
                error,
                opacity: minus(*opacity)?,
                length: minus(*length)?,
                divert_ms: minus(*divert)?,
                rejected: minus(*rejected)?,
            },
            (OPACITIES | LENGTHS, rest) => {
                Self::Values { command, error, values: from_nibbles(rest)? }
            }
            (ORDER, rest) => Self::Values { command, error, values: order(rest)? },
            (SERIAL, [serial]) => Self::Serial { error, serial: minus(*serial)? },
            _ => return None,
        })
    }
}

const fn plus(value: u8) -> u8 {
    value.saturating_add(BASE)
}

const fn minus(byte: u8) -> Option<u8> {
    byte.checked_sub(BASE)
}

/// `TYPE`: 30 for a cassette that is missing, else 30 and its place.
const fn kind(present: bool, number: u8) -> u8 {
    if present { 0x30 | number } else { 0x30 }
}

fn present(kind: u8, number: u8) -> Option<bool> {
    match kind {
        0x30 => Some(false),
        there if there == 0x30 | number => Some(true),
        _ => None,
    }
}

fn counted(bays: &[BayCount; SLOTS]) -> [[u8; 3]; SLOTS] {
    let mut numbers = 1..;
    bays.map(|bay| {
        let number = numbers.next().unwrap_or(0);
        [plus(bay.exit), plus(bay.rejected), kind(bay.present, number)]
    })
}

/// `MISS`, then exit, rejected and type of each cassette. The types are held against their places,
/// since the check cannot tell a byte that is missing here and doubled there.
fn read_counted(data: &[u8]) -> Option<[BayCount; SLOTS]> {
    let [MISS, rest @ ..] = data else { return None };
    let (bays, []) = rest.as_chunks::<3>() else { return None };
    let mut read = [BayCount::default(); SLOTS];
    if bays.len() != SLOTS {
        return None;
    }
    for ((to, [exit, rejected, kind]), number) in read.iter_mut().zip(bays).zip(1..) {
        let present = present(*kind, number)?;
        *to = BayCount { exit: minus(*exit)?, rejected: minus(*rejected)?, present };
    }
    Some(read)
}

fn read_bays(data: &[u8]) -> Option<[BayStatus; SLOTS]> {
    let (bays, []) = data.as_chunks::<4>() else { return None };
    let mut read = [BayStatus::default(); SLOTS];
    if bays.len() != SLOTS {
        return None;
    }
    for ((to, [sensors, kind, opacity, length]), number) in read.iter_mut().zip(bays).zip(1..) {
        *to = BayStatus {
            sensors: sensors & SENSOR_BITS,
            present: present(*kind, number)?,
            opacity: minus(*opacity)?,
            length: minus(*length)?,
        };
    }
    Some(read)
}

/// A value a cassette as two nibbles, each with 30 added.
fn nibbles(values: &[u8; SLOTS]) -> [[u8; 2]; SLOTS] {
    values.map(|value| [0x30 | (value >> 4), 0x30 | (value & 0x0f)])
}

fn from_nibbles(data: &[u8]) -> Option<[u8; SLOTS]> {
    let (pairs, []) = data.as_chunks::<2>() else { return None };
    let mut values = [0; SLOTS];
    if pairs.len() != SLOTS || data.iter().any(|byte| byte & 0xf0 != 0x30) {
        return None;
    }
    for (value, [high, low]) in values.iter_mut().zip(pairs) {
        *value = (high & 0x0f) << 4 | (low & 0x0f);
    }
    Some(values)
}

fn order(data: &[u8]) -> Option<[u8; SLOTS]> {
    let order: [u8; SLOTS] = data.try_into().ok()?;
    order.iter().all(|bay| matches!(bay, 0x31..=0x34)).then(|| order.map(|bay| bay & 0x0f))
}
