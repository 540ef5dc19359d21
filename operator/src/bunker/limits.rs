//! How often somebody may ask, and counts of what happened.
//!
//! Promise: bounded memory, however many keys ask. What strangers can cause is bounded per held key
//! before a signature is checked, and in the log.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bitspire_shared::rate::{Keyed, Limiter, Quota};
use bitspire_shared::time::Mono;

use crate::signer::provision::POLICY;

/// Buckets in memory.
const BUCKETS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(16_383);

const fn quota(per_minute: u32, burst: u32) -> Quota {
    let one = NonZeroU32::MIN;
    Quota::per_minute(
        one.saturating_add(per_minute.saturating_sub(1)),
        one.saturating_add(burst.saturating_sub(1)),
    )
}

/// Who asks, by the policy of their grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A machine, or whatever else an administrator has let in.
    Machine,
    /// The service, under an operator's key.
    Service,
}

impl Asker {
    /// Who has a grant under the policy of this name.
    pub(super) fn under(policy: &str) -> Self {
        if policy == POLICY { Self::Service } else { Self::Machine }
    }
}

/// A machine asks a few times a minute, since sales are signed by its session key.
const MACHINE: Quota = quota(60, 60);
/// A change of the platform's fees is three requests for each machine: more a second than are signed.
const SERVICE: Quota = quota(240_000, 4_000);
/// Of all strangers together to one key: a pairing takes a handful.
const STRANGERS: Quota = quota(30, 30);
const LOG: Quota = quota(60, 10);

/// The buckets.
#[derive(Debug)]
pub(super) struct Limits {
    machines: Mutex<Keyed<[u8; 32]>>,
    service: Mutex<Keyed<[u8; 32]>>,
    strangers: Mutex<Keyed<[u8; 32]>>,
    log: Mutex<Limiter>,
}

impl Limits {
    pub(super) const fn new() -> Self {
        Self {
            machines: Mutex::new(Keyed::new(MACHINE, BUCKETS)),
            service: Mutex::new(Keyed::new(SERVICE, BUCKETS)),
            strangers: Mutex::new(Keyed::new(STRANGERS, BUCKETS)),
            log: Mutex::new(Limiter::new(LOG)),
        }
    }

    /// Whether one more request of this client, whose signature has verified, is looked at.
    pub(super) fn client(&self, asker: Asker, client: &[u8; 32], now: Mono) -> bool {
        let buckets = match asker {
            Asker::Machine => &self.machines,
            Asker::Service => &self.service,
        };
        buckets.lock().unwrap_or_else(PoisonError::into_inner).take(client, now).is_ok()
    }

    /// Whether one more stranger's message to this key is looked at.
    pub(super) fn stranger(&self, key: &[u8; 32], now: Mono) -> bool {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner).take(key, now).is_ok()
    }

    /// Whether one more line that others can cause is logged.
    pub(super) fn log(&self, now: Mono) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take(now).is_ok()
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a bunker has done since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct BunkerStats { $($(#[$doc])* pub $name: u64),* }

        /// The live counters.
        #[derive(Debug, Default)]
        pub(super) struct Counts { $(pub(super) $name: AtomicU64),* }

        impl Counts {
            pub(super) fn snapshot(&self) -> BunkerStats {
                BunkerStats { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counts! {
    /// Requests answered with what they asked for.
    answered,
    /// Requests refused with an error.
    refused,
    /// Requests answered again from memory, or carried out again without being counted.
    repeated,
    /// Messages that could not be read.
    unreadable,
    /// Messages for keys that are not held, or by strangers to the transport key.
    not_for_us,
    /// Messages above a limit.
    limited,
    /// Requests without an answer because the database or the random source failed.
    failed,
    /// Administrators' requests carried out.
    admin_done,
    /// Administrators' requests refused.
    admin_refused,
}

/// One more.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
