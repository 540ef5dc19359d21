//! Time as an argument.
//!
//! Promise: the two kinds of time cannot be mixed up. [`Mono`] orders what happens inside one
//! process and survives a changed wall clock; [`Unix`] is what travels on the wire.

use serde::{Deserialize, Serialize};

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

    /// How far two clocks stand apart, in seconds.
    #[must_use]
    pub const fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}
