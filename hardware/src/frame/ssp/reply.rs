//! What the device answers.

use std::fmt;

use super::{COUNTRY, Events, Money};
use crate::frame::codes::codes;
use crate::frame::hex;

/// A SMART Payout on a validator, by the first byte of SETUP REQUEST's answer.
pub const UNIT_SMART_PAYOUT: u8 = 0x06;

codes! {
    /// First byte of every answer.
    Status {
        0xf0 Ok "ok",
        0xf2 UnknownCommand "command not known",
        0xf3 Parameters "wrong number of parameters",
        0xf4 OutOfRange "parameter out of range",
        0xf5 CannotProcess "command cannot be processed",
        0xf6 Software "software error",
        0xf8 Fail "fail",
        0xfa KeyNotSet "key not set",
    }
}

codes! {
    /// Why a note was refused.
    RejectReason {
        0x00 Accepted "note accepted",
        0x01 Length "wrong length",
        0x02 Average "average fail",
        0x03 Coastline "coastline fail",
        0x04 Graph "graph fail",
        0x05 Buried "buried fail",
        0x06 Channel "channel inhibited",
        0x07 Second "second note inserted",
        0x08 Host "rejected by the host",
        0x09 NotRecognised "note recognised in more than one channel",
        0x0a Reason10 "rejected (reason 10)",
        0x0b TooLong "note too long",
        0x0c Disabled "validator disabled",
        0x0d Slow "mechanism slow or stalled",
        0x0e Strim "strim attempt",
        0x0f FraudChannel "fraud channel",
        0x10 NoNotes "no notes inserted",
        0x11 PeakDetect "peak detect fail",
        0x12 Twisted "twisted note",
        0x13 TimeOut "escrow time-out",
        0x14 BarCode "bar code scan fail",
        0x15 Rear "rear sensor 2 fail",
        0x16 Slot1 "slot fail 1",
        0x17 Slot2 "slot fail 2",
        0x18 Lens "lens over-sample",
        0x19 WidthDetect "width detect fail",
        0x1a Short "short note",
        0x1b Payout "payout cannot store it",
        0x1c Unable "unable to stack note",
    }
}

/// An answer; which command it belongs to is the sequence flag's to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// How it went.
    pub status: Status,
    /// What follows.
    pub rest: &'a [u8],
}

impl<'a> Reply<'a> {
    /// What data mean; no data are no answer of ours.
    #[must_use]
    pub fn parse(data: &'a [u8]) -> Self {
        let (code, rest) = data.split_first().unwrap_or((&0, &[]));
        Self { status: Status::from_code(*code), rest }
    }

    /// Whether the command was taken.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// The events that it tells, if it answers a poll.
    #[must_use]
    pub const fn events(&self) -> Events<'a> {
        Events::new(self.rest)
    }

    /// Why a payout or a float cannot be, in words.
    #[must_use]
    pub fn refusal(&self) -> String {
        let why = match (self.status, self.rest.first()) {
            (Status::CannotProcess, Some(1)) => "not enough value in the device",
            (Status::CannotProcess, Some(2)) => "the exact amount cannot be paid",
            (Status::CannotProcess, Some(3)) => "the device is busy",
            (Status::CannotProcess, Some(4)) => "the device is disabled",
            _ => return self.to_string(),
        };
        format!("{why} ({self})")
    }
}

/// In words, with what follows in hex.
impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.rest.is_empty() {
            write!(f, " {}", hex(self.rest))?;
        }
        Ok(())
    }
}

/// One channel of a validator's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its number, from 1.
    pub number: u8,
    /// The note that it takes, as real value.
    pub note: Money,
}

/// The answer to SETUP REQUEST, of a validator in protocol version 6 or above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup<'a> {
    /// Kind of unit.
    pub unit: u8,
    /// Firmware, as ASCII digits.
    pub firmware: [u8; 4],
    /// What channel values are multiplied with to make real ones.
    pub multiplier: u32,
    /// The protocol version that is spoken.
    pub protocol: u8,
    countries: &'a [u8],
    values: &'a [u8],
}

impl<'a> Setup<'a> {
    /// What follows the status; `None` where it has not this form.
    #[must_use]
    pub fn parse(rest: &'a [u8]) -> Option<Self> {
        let (unit, rest) = rest.split_first()?;
        let (firmware, rest) = rest.split_first_chunk::<4>()?;
        // country, and the value multiplier of protocol versions before 6
        let (_, rest) = rest.split_first_chunk::<6>()?;
        let (channels, rest) = rest.split_first()?;
        let channels = usize::from(*channels);
        // values of one byte, and the security level of each channel
        let rest = rest.get(channels.checked_mul(2)?..)?;
        let ([high, middle, low], rest) = rest.split_first_chunk::<3>()?;
        let (protocol, rest) = rest.split_first()?;
        let (countries, rest) = rest.split_at_checked(channels.checked_mul(COUNTRY)?)?;
        let values = rest.get(..channels.checked_mul(4)?)?;
        let multiplier = u32::from_be_bytes([0, *high, *middle, *low]);
        let (unit, protocol, firmware) = (*unit, *protocol, *firmware);
        Some(Self { unit, firmware, multiplier, protocol, countries, values })
    }

    /// The channels.
    pub fn channels(&self) -> impl Iterator<Item = Channel> + '_ {
        let values = self.values.as_chunks::<4>().0.iter();
        let both = self.countries.as_chunks::<COUNTRY>().0.iter().zip(values);
        (1..).zip(both).filter_map(|(number, (country, value))| {
            let value = u32::from_le_bytes(*value).checked_mul(self.multiplier)?;
            Some(Channel { number, note: Money { value, country: *country } })
        })
    }

    /// Appends the answer with these channels (real values, multiples of `multiplier`).
    pub fn write(
        unit: u8,
        firmware: [u8; 4],
        protocol: u8,
        multiplier: u32,
        notes: &[Money],
        out: &mut Vec<u8>,
    ) {
        let [_, high, middle, low] = multiplier.to_be_bytes();
        let value = |note: &Money| note.value.checked_div(multiplier).unwrap_or(0);
        out.push(unit);
        out.extend(firmware);
        out.extend(notes.first().map_or([b'X'; COUNTRY], |note| note.country));
        out.extend([0, 0, 1, u8::try_from(notes.len()).unwrap_or(u8::MAX)]);
        out.extend(notes.iter().map(|note| u8::try_from(value(note)).unwrap_or(0)));
        out.extend(notes.iter().map(|_| 2));
        out.extend([high, middle, low, protocol]);
        out.extend(notes.iter().flat_map(|note| note.country));
        out.extend(notes.iter().flat_map(|note| value(note).to_le_bytes()));
    }
}

/// How many notes of each kind lie in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels<'a>(&'a [u8]);

const LEVEL: usize = 9;

impl<'a> Levels<'a> {
    /// What follows the status of GET ALL LEVELS; `None` where it has not this form.
    #[must_use]
    pub fn parse(rest: &'a [u8]) -> Option<Self> {
        let (count, levels) = rest.split_first()?;
        (levels.len() == usize::from(*count).checked_mul(LEVEL)?).then_some(Self(levels))
    }

    /// Notes and their kind.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Money)> + 'a {
        self.0.as_chunks::<LEVEL>().0.iter().map(|level| {
            let [n0, n1, v0, v1, v2, v3, country @ ..] = *level;
            let value = u32::from_le_bytes([v0, v1, v2, v3]);
            (u16::from_le_bytes([n0, n1]), Money { value, country })
        })
    }
}

/// Appends the answer to GET ALL LEVELS, behind its status.
pub fn write_levels(levels: &[(u16, Money)], out: &mut Vec<u8>) {
    out.push(u8::try_from(levels.len()).unwrap_or(u8::MAX));
    for (notes, note) in levels {
        out.extend(notes.to_le_bytes());
        out.extend(note.value.to_le_bytes());
        out.extend(note.country);
    }
}
