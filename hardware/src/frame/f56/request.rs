//! What the host asks of an F53/F56.
//!
//! Promise: each request is built and read back exactly; a payload that fits no known request is
//! [`Request::Unknown`] with its bytes.

use super::{FS, NoteSize, SLOTS};

/// A number from 0 to 99 as two ASCII digits with even parity in bit 7 (`30 B1 B2 33 B4 35 36 B7 B8
/// 39` for 0 to 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TwoDigits(u8);

impl TwoDigits {
    /// `number`, if two digits can say it.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| *n < 100).map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The two bytes on the line.
    #[must_use]
    pub const fn wire(self) -> [u8; 2] {
        [digit(self.0 / 10), digit(self.0 % 10)]
    }

    /// The number in two bytes, whatever their parity bits; `None` where they are no digits.
    #[must_use]
    pub fn from_wire(wire: [u8; 2]) -> Option<Self> {
        let value = |byte: u8| match byte & 0x7f {
            ascii @ b'0'..=b'9' => Some(ascii & 0x0f),
            _ => None,
        };
        let [tens, ones] = wire;
        Some(Self(value(tens)?.checked_mul(10)?.checked_add(value(ones)?)?))
    }
}

const fn digit(value: u8) -> u8 {
    let ascii = b'0' | (value & 0x0f);
    if ascii.count_ones() & 1 == 1 { ascii | 0x80 } else { ascii }
}

/// What the cassettes hold, for an initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Operation code of the initialisation: 00, or 40 for polymer notes.
    pub odr: u8,
    /// The note of each cassette; [`NoteSize::UNUSED`] where there is none.
    pub slots: [NoteSize; SLOTS],
}

/// How many notes to give out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Notes per cassette.
    pub notes: [TwoDigits; SLOTS],
    /// Rejected notes per cassette before the unit gives up.
    pub reject_limits: [TwoDigits; SLOTS],
    /// Further tries when no note can be picked.
    pub retries: [u8; SLOTS],
}

impl Counts {
    /// `notes` with the limits that field units run with: 4 rejects, 3 retries.
    #[must_use]
    pub const fn new(notes: [TwoDigits; SLOTS]) -> Self {
        Self { notes, reject_limits: [TwoDigits(4); SLOTS], retries: [3; SLOTS] }
    }
}

/// A request, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `60 02 0D`: mechanical reset and cassette set-up; purges the path to the reject bin.
    Init(Setup),
    /// `60 02 FF`: the same with the extended parameter block.
    InitExtended(Setup),
    /// `60 03 15 E4`: count notes out to the exit. Moves money.
    Count(Counts),
    /// `60 09 15 E4`: count and transport. Moves money.
    CountAndTransport(Counts),
    /// `60 05 01 01`: transport only. Moves money.
    Transport,
    /// `00 01`: status.
    Status,
    /// `60 01 FF`: the longer status.
    Status2,
    /// `60 02 0D 1C`: sensor levels.
    SensorLevels,
    /// `00 10`: cancel, release.
    Cancel,
    /// `60 12 29 03`: clear the log, with a line of ASCII about when.
    ClearLog(String),
    /// None of these.
    Unknown {
        /// The payload.
        raw: Vec<u8>,
    },
}

const INIT: [u8; 3] = [0x60, 0x02, 0x0d];
const INIT_EXTENDED: [u8; 7] = [0x60, 0x02, 0xff, 0x00, 0x00, 0x1a, 0x00];
const COUNT: [u8; 4] = [0x60, 0x03, 0x15, 0xe4];
const COUNT_AND_TRANSPORT: [u8; 4] = [0x60, 0x09, 0x15, 0xe4];
const TRANSPORT: [u8; 5] = [0x60, 0x05, 0x01, 0x01, FS];
const STATUS: [u8; 3] = [0x00, 0x01, FS];
const STATUS_2: [u8; 8] = [0x60, 0x01, 0xff, 0x00, 0x00, 0x01, 0x00, FS];
const SENSOR_LEVELS: [u8; 4] = [0x60, 0x02, 0x0d, FS];
const CANCEL: [u8; 3] = [0x00, 0x10, FS];
const CLEAR_LOG: [u8; 4] = [0x60, 0x12, 0x29, 0x03];
/// Zeros between the thickness bytes of the extended block and its end.
const EXTENDED_PADDING: usize = 12;

impl Request {
    /// Class and command, which every reply echoes.
    #[must_use]
    pub fn head(&self) -> [u8; 2] {
        match self.payload().as_slice() {
            [class, command, ..] => [*class, *command],
            _ => [0, 0],
        }
    }

    /// The payload, with its closing `1C`.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        match self {
            Self::Init(setup) => {
                let mut out = INIT.to_vec();
                setup.write(&mut out);
                out.push(FS);
                out
            }
            Self::InitExtended(setup) => {
                let mut out = INIT_EXTENDED.to_vec();
                setup.write(&mut out);
                out.extend_from_slice(&[0; EXTENDED_PADDING]);
                out.push(FS);
                out
            }
            Self::Count(counts) => counts.payload(COUNT),
            Self::CountAndTransport(counts) => counts.payload(COUNT_AND_TRANSPORT),
            Self::Transport => TRANSPORT.to_vec(),
            Self::Status => STATUS.to_vec(),
            Self::Status2 => STATUS_2.to_vec(),
            Self::SensorLevels => SENSOR_LEVELS.to_vec(),
            Self::Cancel => CANCEL.to_vec(),
            Self::ClearLog(text) => {
                let mut out = CLEAR_LOG.to_vec();
                out.extend(text.bytes().filter(u8::is_ascii).take(64));
                out.extend_from_slice(&[0, 0, 0, 0, FS]);
                out
            }
            Self::Unknown { raw } => raw.clone(),
        }
    }

    /// The request in a payload.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Self {
        for known in
            [Self::Transport, Self::Status, Self::Status2, Self::SensorLevels, Self::Cancel]
        {
            if known.payload() == payload {
                return known;
            }
        }
        let after = |head: &[u8]| payload.strip_prefix(head).and_then(|b| b.strip_suffix(&[FS]));
        let extended = || {
            let body = after(&INIT_EXTENDED)?.strip_suffix(&[0; EXTENDED_PADDING])?;
            Setup::read(body).map(Self::InitExtended)
        };
        let clear = || {
            let text = after(&CLEAR_LOG)?.strip_suffix(&[0; 4])?;
            String::from_utf8(text.to_vec()).ok().map(Self::ClearLog)
        };
        None.or_else(|| after(&INIT).and_then(Setup::read).map(Self::Init))
            .or_else(extended)
            .or_else(|| after(&COUNT).and_then(Counts::read).map(Self::Count))
            .or_else(|| {
                after(&COUNT_AND_TRANSPORT).and_then(Counts::read).map(Self::CountAndTransport)
            })
            .or_else(clear)
            .unwrap_or_else(|| Self::Unknown { raw: payload.to_vec() })
    }
}

impl Setup {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.odr);
        out.extend(self.slots.iter().flat_map(|note| [note.max, note.min]));
        out.extend(self.slots.iter().map(|note| note.thickness));
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (odr, rest) = body.split_first()?;
        let (lengths, thickness) = rest.split_at_checked(8)?;
        if thickness.len() != SLOTS {
            return None;
        }
        let mut slots = [NoteSize::UNUSED; SLOTS];
        for ((slot, pair), thickness) in slots.iter_mut().zip(lengths.chunks(2)).zip(thickness) {
            let [max, min] = pair else { return None };
            *slot = NoteSize { max: *max, min: *min, thickness: *thickness, polymer: false };
        }
        Some(Self { odr: *odr, slots })
    }
}

impl Counts {
    fn payload(&self, head: [u8; 4]) -> Vec<u8> {
        let mut out = head.to_vec();
        out.extend(self.notes.iter().flat_map(|n| n.wire()));
        out.extend(self.reject_limits.iter().flat_map(|n| n.wire()));
        out.extend_from_slice(&self.retries);
        out.push(FS);
        out
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (notes, rest) = body.split_at_checked(8)?;
        let (limits, retries) = rest.split_at_checked(8)?;
        Some(Self {
            notes: four_digits(notes)?,
            reject_limits: four_digits(limits)?,
            retries: retries.try_into().ok()?,
        })
    }
}

/// Four two-digit numbers in eight bytes.
pub(super) fn four_digits(bytes: &[u8]) -> Option<[TwoDigits; SLOTS]> {
    let mut numbers = [TwoDigits::default(); SLOTS];
    if bytes.len() != 8 {
        return None;
    }
    for (number, pair) in numbers.iter_mut().zip(bytes.chunks(2)) {
        *number = TwoDigits::from_wire(pair.try_into().ok()?)?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a digit with the wrong parity bit asks for another number of notes.
    #[test]
    fn digits_have_even_parity_and_parity_is_ignored_when_read() {
        let wire = [0x30, 0xb1, 0xb2, 0x33, 0xb4, 0x35, 0x36, 0xb7, 0xb8, 0x39];
        for number in 0..100u32 {
            let digits = TwoDigits::new(number).unwrap();
            let [tens, ones] = digits.wire();
            assert_eq!(tens, wire[usize::try_from(number / 10).unwrap()]);
            assert_eq!(ones, wire[usize::try_from(number % 10).unwrap()]);
            assert_eq!(TwoDigits::from_wire([tens ^ 0x80, ones]), Some(digits));
        }
        assert_eq!(TwoDigits::new(100), None);
        assert_eq!(TwoDigits::from_wire([0x30, 0x3a]), None);
        assert_eq!(TwoDigits::from_wire([0x00, 0x30]), None);
    }

    /// Loss prevented: a request without a public vector is built in a form that it is not read in.
    #[test]
    fn the_other_requests_are_read_as_they_are_built() {
        let counts = Counts::new([TwoDigits(1), TwoDigits(0), TwoDigits(20), TwoDigits(99)]);
        for request in [
            Request::CountAndTransport(counts),
            Request::Transport,
            Request::Status2,
            Request::SensorLevels,
            Request::ClearLog("Log clear date : 2026-01-31".to_owned()),
            Request::Unknown { raw: vec![0x60, 0x77, 0x1c] },
        ] {
            assert_eq!(Request::parse(&request.payload()), request);
        }
    }

    /// Loss prevented: a cut or padded count command is taken for a shorter one.
    #[test]
    fn a_count_of_another_length_is_unknown() {
        let good = Request::Count(Counts::new([TwoDigits(1); SLOTS])).payload();
        for raw in [good[..good.len() - 1].to_vec(), [&good[..4], &good[6..]].concat(), vec![]] {
            assert_eq!(Request::parse(&raw), Request::Unknown { raw });
        }
    }
}
