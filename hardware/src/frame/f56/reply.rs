//! What an F53/F56 answers.
//!
//! Promise: a reply gives out what it says and nothing that it does not: a field beyond its end is
//! `None`, an error code that is in no public list stays raw. Counts are read from positive and
//! from negative replies alike: a dispense that stopped half-way says how far it came.
//!
//! Offsets are those of the public driver and captures. The place of the cassette registers (right
//! behind the sensor register) is inferred from a capture, not stated by a source.

use bitspire_shared::ids::BayId;

use super::request::four_digits;
use super::{FS, Payload, Request, SLOTS, TwoDigits};
use crate::frame::hex;

const POSITIVE: u8 = 0x80;
const NEGATIVE: u8 = 0x10;
const ERROR_CODE: usize = 3;
const ERROR_ADDRESS: usize = 5;
const ERROR_REGISTER: usize = 9;
const SENSORS: usize = 0x0c;
const EXIT_BYTE: usize = 0x0e;
const EXIT_BIT: u8 = 0x10;
const CASSETTES: usize = 0x12;
const CASSETTE_PRESENT: u8 = 0x80;
const DISPENSED: usize = 0x27;
const REJECTED: usize = 0x2f;
const LEVELS: usize = 0x27;

/// Names of the sensors, in the order in which their levels come.
pub const SENSOR_NAMES: [&str; 15] = [
    "FDLS1", "FDLS2", "FDLS3", "FDLS4", "FDLS5", "FDLS6", "DFSS", "REJS", "BPS", "BRS1", "BRS2",
    "BRS3", "EJSR", "EJSF", "BCS",
];

/// How dirty a sensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SensorState {
    /// Level 0: not fitted.
    Absent,
    /// Levels 1 to 8.
    Normal,
    /// Levels 9 to 12: clean it.
    Clean,
    /// Above 12: replace it.
    Replace,
}

/// The notes of one cassette in a reply to a count command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BayCount {
    /// Notes beyond the last sensor: the customer has them or can have them.
    pub dispensed: TwoDigits,
    /// Notes in the reject bin.
    pub rejected: TwoDigits,
}

/// The error fields of a negative reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReport {
    /// Error code.
    pub code: [u8; 2],
    /// Where in the unit.
    pub address: [u8; 2],
    /// Error register.
    pub register: [u8; 3],
}

impl ErrorReport {
    /// The cassette that the unit could not pick a note from, if that is what the code means: high
    /// byte 11, 21, 31 for cassettes 1 to 3 (public), 41 for cassette 4 (inferred).
    #[must_use]
    pub const fn empty_cassette(&self) -> Option<BayId> {
        let [high, _] = self.code;
        match high {
            0x11 | 0x21 | 0x31 | 0x41 => BayId::new(high >> 4),
            _ => None,
        }
    }
}

impl std::fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, address, register } = self;
        if let Some(bay) = self.empty_cassette() {
            write!(f, "cassette {bay} is empty or its notes cannot be picked: ")?;
        }
        write!(f, "error {} at {}, register {}", hex(code), hex(address), hex(register))
    }
}

/// The payload of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    raw: Payload,
}

impl Reply {
    /// The reply in a payload; `None` where its first byte is no reply's.
    #[must_use]
    pub fn parse(payload: &Payload) -> Option<Self> {
        match payload[..] {
            [class, _, _, ..] if class & POSITIVE != 0 => Some(Self { raw: *payload }),
            _ => None,
        }
    }

    /// An answer to `request` with `data` zero bytes (at most 255) between head and `1C`; the
    /// class is the request's with bit 80h, and 10h where the answer is negative.
    #[must_use]
    pub fn draft(request: &Request, positive: bool, data: u8) -> Self {
        let [class, command] = request.head();
        let sign = if positive { POSITIVE } else { POSITIVE | NEGATIVE };
        let mut raw = vec![class | sign, command, data];
        raw.resize(usize::from(data).saturating_add(3), 0);
        raw.push(FS);
        Self { raw: Payload::new(&raw) }
    }

    /// With error code and address.
    #[must_use]
    pub fn with_error(mut self, code: [u8; 2], address: [u8; 2]) -> Self {
        self.put(ERROR_CODE, &code);
        self.put(ERROR_ADDRESS, &address);
        self
    }

    /// With or without notes at the exit.
    #[must_use]
    pub fn with_exit(mut self, notes: bool) -> Self {
        self.put(EXIT_BYTE, &[if notes { EXIT_BIT } else { 0 }]);
        self
    }

    /// With the magnet id of each cassette; `None` where there is no cassette.
    #[must_use]
    pub fn with_cassettes(mut self, magnets: [Option<u8>; SLOTS]) -> Self {
        let registers = magnets.map(|id| id.map_or(0, |id| CASSETTE_PRESENT | id));
        self.put(CASSETTES, &registers);
        self
    }

    /// With counts.
    #[must_use]
    pub fn with_counts(mut self, counts: [BayCount; SLOTS]) -> Self {
        let digits = |of: fn(&BayCount) -> TwoDigits| -> Vec<u8> {
            counts.iter().flat_map(|count| of(count).wire()).collect()
        };
        self.put(DISPENSED, &digits(|c| c.dispensed));
        self.put(REJECTED, &digits(|c| c.rejected));
        self
    }

    /// With sensor levels.
    #[must_use]
    pub fn with_levels(mut self, levels: [u8; SENSOR_NAMES.len()]) -> Self {
        self.put(LEVELS, &levels);
        self
    }

    /// Shortened to `length` bytes with the same declared length, as one older unit sends it.
    #[must_use]
    pub fn cut_to(mut self, length: usize) -> Self {
        let kept = self.raw.get(..length.saturating_sub(1)).unwrap_or(&self.raw);
        self.raw = Payload::new(&[kept, &[FS]].concat());
        self
    }

    /// The bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.raw
    }

    /// Whether the request was carried out.
    #[must_use]
    pub fn positive(&self) -> bool {
        self.raw.first().is_some_and(|class| class & NEGATIVE == 0)
    }

    /// Whether this can be the answer to `request`: its command is echoed. The class byte is not
    /// compared: for class 00 requests no source says what it becomes.
    #[must_use]
    pub fn answers(&self, request: &Request) -> bool {
        let [_, command] = request.head();
        self.raw.get(1) == Some(&command)
    }

    /// Error fields; `None` in a positive reply.
    #[must_use]
    pub fn error(&self) -> Option<ErrorReport> {
        if self.positive() {
            return None;
        }
        Some(ErrorReport {
            code: self.field(ERROR_CODE).unwrap_or_default(),
            address: self.field(ERROR_ADDRESS).unwrap_or_default(),
            register: self.field(ERROR_REGISTER).unwrap_or_default(),
        })
    }

    /// The sensor register.
    #[must_use]
    pub fn sensors(&self) -> Option<[u8; 6]> {
        self.field(SENSORS)
    }

    /// Whether notes lie at the exit; `None` in a reply too short to say.
    #[must_use]
    pub fn notes_at_exit(&self) -> Option<bool> {
        self.field(EXIT_BYTE).map(|[byte]| byte & EXIT_BIT != 0)
    }

    /// For each cassette its magnet id, `Some(None)` where it is missing; `None` altogether where
    /// the reply does not show a single cassette, which some firmware never does.
    #[must_use]
    pub fn cassettes(&self) -> Option<[Option<u8>; SLOTS]> {
        let registers: [u8; SLOTS] = self.field(CASSETTES)?;
        let ids = registers.map(|r| (r & CASSETTE_PRESENT != 0).then_some(r & 0x0f));
        ids.iter().any(Option::is_some).then_some(ids)
    }

    /// Notes dispensed and rejected per cassette; `None` where the reply is too short or holds no
    /// digits there.
    #[must_use]
    pub fn counts(&self) -> Option<[BayCount; SLOTS]> {
        let dispensed = four_digits(&self.field::<8>(DISPENSED)?)?;
        let rejected = four_digits(&self.field::<8>(REJECTED)?)?;
        let mut counts = [BayCount::default(); SLOTS];
        for ((count, dispensed), rejected) in counts.iter_mut().zip(dispensed).zip(rejected) {
            *count = BayCount { dispensed, rejected };
        }
        Some(counts)
    }

    /// State of each sensor by name, in a reply to [`Request::SensorLevels`].
    #[must_use]
    pub fn sensor_levels(&self) -> Option<Vec<(&'static str, SensorState)>> {
        let levels: [u8; SENSOR_NAMES.len()] = self.field(LEVELS)?;
        let state = |level: u8| match level {
            0 => SensorState::Absent,
            1..=8 => SensorState::Normal,
            9..=12 => SensorState::Clean,
            13.. => SensorState::Replace,
        };
        Some(SENSOR_NAMES.into_iter().zip(levels.map(state)).collect())
    }

    /// `N` bytes at `at`, not reaching into the closing `1C`.
    fn field<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let end = at.checked_add(N)?;
        let fields = self.raw.split_last().map(|(_, fields)| fields)?;
        fields.get(at..end)?.try_into().ok()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (slot, byte) in self.raw.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counts;
    use super::*;

    fn count_request() -> Request {
        Request::Count(Counts::new([TwoDigits::default(); SLOTS]))
    }

    fn counts() -> [BayCount; SLOTS] {
        let n = |n| TwoDigits::new(n).unwrap();
        [(3, 1), (0, 0), (20, 4), (7, 99)].map(|(dispensed, rejected)| BayCount {
            dispensed: n(dispensed),
            rejected: n(rejected),
        })
    }

    /// Loss prevented: notes that left before an error are forgotten and given out again.
    #[test]
    fn a_negative_reply_keeps_its_counts_and_its_code() {
        for (cut, data) in [(157, 153), (139, 153)] {
            let reply = Reply::draft(&count_request(), false, data)
                .with_error([0x21, 0x04], [0x00, 0x02])
                .with_counts(counts())
                .cut_to(cut);
            let read = Reply::parse(&Payload::new(reply.payload())).unwrap();
            assert_eq!(read.payload().len(), cut);
            assert!(!read.positive() && read.answers(&count_request()));
            assert_eq!(read.counts(), Some(counts()));
            let error = read.error().unwrap();
            assert_eq!(error.empty_cassette(), BayId::new(2));
            assert!(error.to_string().contains("cassette 2"), "{error}");
            assert!(error.to_string().contains("error 21 04 at 00 02"), "{error}");
        }
    }

    /// Loss prevented: an unknown code is shown as something that it is not.
    #[test]
    fn an_unknown_code_stays_hex() {
        let report = ErrorReport { code: [0x5a, 0x01], address: [0, 9], register: [0, 0, 1] };
        assert_eq!(report.empty_cassette(), None);
        assert_eq!(report.to_string(), "error 5A 01 at 00 09, register 00 00 01");
    }

    /// Loss prevented: a reply cut short is read as "0 notes" although it says nothing.
    #[test]
    fn fields_beyond_the_end_are_absent_not_zero() {
        let full = Reply::draft(&count_request(), false, 153).with_counts(counts());
        for length in 4..=157 {
            let reply = full.cut_to(length);
            assert_eq!(reply.counts().is_some(), length > REJECTED + 8, "{length}");
            assert_eq!(reply.notes_at_exit().is_some(), length > EXIT_BYTE + 1, "{length}");
        }
        let no_digits = Reply::draft(&count_request(), true, 153);
        assert_eq!(no_digits.counts(), None);
        assert_eq!(Reply::parse(&Payload::new(&[0x60, 0x03, 0x99])), None);
        assert_eq!(Reply::parse(&Payload::new(&[0xe0, 0x03])), None);
    }

    /// Loss prevented: notes at the exit go unseen, or a missing cassette counts as present.
    #[test]
    fn exit_and_cassettes() {
        let reply = Reply::draft(&Request::Status, true, 52);
        assert_eq!(reply.notes_at_exit(), Some(false));
        assert_eq!(reply.cassettes(), None);
        let magnets = [Some(0x0c), None, Some(0x0a), Some(0x09)];
        let reply = reply.with_exit(true).with_cassettes(magnets);
        assert_eq!(reply.payload()[0x0e], 0x10);
        assert_eq!(reply.notes_at_exit(), Some(true));
        assert_eq!(reply.cassettes(), Some(magnets));
        assert_eq!(reply.sensors(), Some([0, 0, 0x10, 0, 0, 0]));
    }

    /// Loss prevented: a sensor that must be replaced counts as clean, and notes are misfed.
    #[test]
    fn sensor_levels_by_name() {
        let mut levels = [4; SENSOR_NAMES.len()];
        levels[0] = 9;
        levels[8] = 13;
        levels[14] = 0;
        let read = Reply::draft(&Request::SensorLevels, true, 52).with_levels(levels);
        let read = read.sensor_levels().unwrap();
        assert_eq!(read[0], ("FDLS1", SensorState::Clean));
        assert_eq!(read[1], ("FDLS2", SensorState::Normal));
        assert_eq!(read[8], ("BPS", SensorState::Replace));
        assert_eq!(read[14], ("BCS", SensorState::Absent));
    }
}
