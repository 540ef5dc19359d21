//! The clocks of `net`.
//!
//! Promise: intervals are measured on the runtime's monotonic clock. What is dated on the wire is
//! dated by the service's clock, carried on by the monotonic one, once a reply to a request of ours
//! has told it; so neither a dead battery nor a step of the system's clock makes a machine stale.
//!
//! Failure policy: before the first reply the system's clock has to do.

use std::sync::{Arc, Mutex, PoisonError};

use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use tokio::time::{Duration, Instant};

/// Seconds by which a reply may lag behind what is known: relays take their time. Beyond, the
/// service's clock was set back.
const LAG_S: u64 = 60;

/// Monotonic clock, system clock, and the service's as last heard.
#[derive(Clone, Debug)]
pub(super) struct Times {
    wall: Clock,
    epoch: Instant,
    heard: Arc<Mutex<Option<(Mono, Unix)>>>,
}

impl Times {
    pub(super) fn new(wall: Clock) -> Self {
        Self { wall, epoch: Instant::now(), heard: Arc::default() }
    }

    /// Milliseconds since this was made.
    pub(super) fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant of `at`.
    pub(super) fn instant(&self, at: Mono) -> Instant {
        self.epoch + Duration::from_millis(at.0)
    }

    /// Now, by the service's clock if it is known.
    pub(super) fn unix(&self) -> Unix {
        match *self.heard.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, unix)) => unix.after(self.mono().since(at) / 1_000),
            None => self.wall.now(),
        }
    }

    /// A reply of `created_at` came to a request of ours that still waited. The service never dates
    /// ahead of its clock, so the latest word is the best; an earlier one counts only where it
    /// cannot be the relay's delay.
    pub(super) fn heard(&self, created_at: Unix) {
        let now = self.unix();
        let known = self.heard.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if known && created_at <= now && now.since(created_at) <= LAG_S {
            return;
        }
        if created_at.distance(now) > LAG_S {
            tracing::warn!(event = "clock_set", from = now.0, to = created_at.0);
        }
        let at = self.mono();
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, created_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a machine with a dead clock battery is refused as stale for ever.
    #[tokio::test(start_paused = true)]
    async fn the_services_clock_counts_and_goes_on_by_itself() {
        let wall = Arc::new(Mutex::new(Unix(1_000)));
        let told = wall.clone();
        let times = Times::new(Clock::new(move || *told.lock().unwrap()));
        assert_eq!(times.unix(), Unix(1_000));
        times.heard(Unix(900_000));
        assert_eq!(times.unix(), Unix(900_000));
        *wall.lock().unwrap() = Unix(5);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(times.unix(), Unix(900_100), "the system's clock counts no more");
        times.heard(Unix(900_080));
        assert_eq!(times.unix(), Unix(900_100), "a reply that a relay kept for a while");
        times.heard(Unix(900_105));
        assert_eq!(times.unix(), Unix(900_105));
        times.heard(Unix(899_000));
        assert_eq!(times.unix(), Unix(899_000), "the service's clock was set back");
    }
}
