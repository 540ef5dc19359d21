//! Time as an argument.
//!
//! Promise: the two kinds of time cannot be mixed up. [`Mono`] orders what happens inside one
//! process and survives a changed wall clock; [`Unix`] is what travels on the wire.

use serde::{Deserialize, Serialize};

/// Seconds of a day.
const DAY: u64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: u64 = 719_468;

/// Milliseconds on one process's monotonic clock; the zero point has no meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `ms` milliseconds later, saturating.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; 0 where `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Seconds since 1970-01-01 UTC, as in a Nostr event's `created_at`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Unix(pub u64);

impl Unix {
    /// The moment `secs` seconds later, saturating.
    #[must_use]
    pub const fn after(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs))
    }

    /// Seconds since `earlier`; 0 where `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As people read it: `2026-01-31T12:00:00Z` (ISO 8601, UTC).
    #[must_use]
    pub fn to_iso(self) -> String {
        // the year begins in March here, so that a leap day is its last one
        let (days, second) = ((self.0 / DAY).saturating_add(EPOCH), self.0 % DAY);
        let (era, of_era) = (days / ERA, days % ERA);
        let common = of_era.saturating_add(of_era / 36_524);
        let year = common.saturating_sub(of_era / 1_460).saturating_sub(of_era / 146_096) / 365;
        let before = year.saturating_mul(365).saturating_add(year / 4).saturating_sub(year / 100);
        let of_year = of_era.saturating_sub(before);
        let month = of_year.saturating_mul(5).saturating_add(2) / 153;
        let to_month = month.saturating_mul(153).saturating_add(2) / 5;
        let day = of_year.saturating_sub(to_month).saturating_add(1);
        let (month, shift) = match month < 10 {
            true => (month.saturating_add(3), 0),
            false => (month.saturating_sub(9), 1),
        };
        let year = era.saturating_mul(400).saturating_add(year).saturating_add(shift);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// How far two clocks stand apart, in seconds.
    #[must_use]
    pub const fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a receipt dated a day off, by which a claim looks too late.
    #[test]
    fn days_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_800_003_725, "2027-01-15T09:02:05Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_294_967_295, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(Unix(secs).to_iso(), text);
        }
    }
}
