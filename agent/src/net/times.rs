//! The clocks of `net`.
//!
//! Promise: intervals are measured on the runtime's monotonic clock; what is dated on the wire is
//! dated by the service's clock once a reply to a fresh request has told it, so that a machine
//! whose own clock is wrong is not refused as stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use tokio::time::{Duration, Instant};

/// Seconds by which the clocks may differ before the service's counts.
const TOLERANCE_S: i64 = 5;

/// Wall clock, monotonic clock, and how far the service's clock is ahead of ours.
#[derive(Clone, Debug)]
pub(super) struct Times {
    wall: Clock,
    epoch: Instant,
    ahead: Arc<AtomicI64>,
}

impl Times {
    pub(super) fn new(wall: Clock) -> Self {
        Self { wall, epoch: Instant::now(), ahead: Arc::default() }
    }

    /// Milliseconds since this was made.
    pub(super) fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant of `at`.
    pub(super) fn instant(&self, at: Mono) -> Instant {
        self.epoch + Duration::from_millis(at.0)
    }

    /// Now, by the service's clock as far as it is known.
    pub(super) fn unix(&self) -> Unix {
        Unix(self.wall.now().0.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    /// The service answered a request of this moment, in an event of `created_at`.
    pub(super) fn heard(&self, created_at: Unix) {
        let signed = |unix: Unix| i64::try_from(unix.0).unwrap_or(i64::MAX);
        let ahead = signed(created_at).saturating_sub(signed(self.wall.now()));
        let known = self.ahead.load(Ordering::Relaxed);
        if ahead.saturating_sub(known).saturating_abs() > TOLERANCE_S {
            tracing::warn!(event = "clock_differs", service_ahead_s = ahead);
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a machine with a dead clock battery is refused as stale for ever.
    #[test]
    fn the_services_clock_counts_where_ours_is_wrong() {
        let times = Times::new(Clock::new(|| Unix(1_000)));
        times.heard(Unix(1_003));
        assert_eq!(times.unix(), Unix(1_000), "network delay is no difference");
        times.heard(Unix(900_000));
        assert_eq!(times.unix(), Unix(900_000));
        times.heard(Unix(990));
        assert_eq!(times.unix(), Unix(990));
    }
}
