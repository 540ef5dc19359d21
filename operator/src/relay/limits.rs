//! The relay's buckets: what one connection, one machine, one stranger may cause in a minute.
//!
//! Promise: bounded memory, however many keys come; a key keeps its bucket when it reconnects.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use bitspire_shared::rate::{Keyed, Limiter};
use bitspire_shared::time::Mono;

use super::config::{Limits, per_minute};
use super::rules::Writer;

/// Keys outside the roster whose rate is remembered.
const STRANGERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// The buckets of one connection.
#[derive(Debug)]
pub(super) struct ConnectionBuckets {
    frames: Limiter,
    bad_frames: Limiter,
    wallet_events: Limiter,
}

impl ConnectionBuckets {
    pub(super) const fn new(limits: &Limits) -> Self {
        let (frames, bad_frames) = (Limiter::new(limits.frames), Limiter::new(limits.bad_frames));
        Self { frames, bad_frames, wallet_events: Limiter::new(limits.wallet_events) }
    }

    pub(super) fn allows_frame(&mut self, now: Mono) -> bool {
        self.frames.take(now).is_ok()
    }

    /// Whether one more event of a customer's wallet may come through this connection.
    pub(super) fn allows_wallet_event(&mut self, now: Mono) -> bool {
        self.wallet_events.take(now).is_ok()
    }

    pub(super) fn allows_bad_frame(&mut self, now: Mono) -> bool {
        self.bad_frames.take(now).is_ok()
    }
}

/// The buckets that connections share.
#[derive(Debug)]
pub(super) struct Buckets {
    machines: Mutex<Keyed<[u8; 32]>>,
    strangers: Mutex<Keyed<[u8; 32]>>,
    /// All customers' wallets together: they name themselves, so none has a bucket of its own.
    wallets: Mutex<Limiter>,
    log: Mutex<Limiter>,
}

impl Buckets {
    pub(super) fn new(limits: &Limits) -> Self {
        let machines = NonZeroUsize::new(limits.connections).unwrap_or(NonZeroUsize::MIN);
        Self {
            machines: Mutex::new(Keyed::new(limits.machine_events, machines)),
            strangers: Mutex::new(Keyed::new(limits.stranger_events, STRANGERS)),
            wallets: Mutex::new(Limiter::new(limits.all_wallet_events)),
            log: Mutex::new(Limiter::new(per_minute(60, 10))),
        }
    }

    /// Whether one more event of this writer may pass.
    pub(super) fn allows_event(&self, writer: Writer, now: Mono) -> bool {
        let take = |table: &Mutex<Keyed<_>>, key| {
            table.lock().unwrap_or_else(PoisonError::into_inner).take(key, now).is_ok()
        };
        match writer {
            Writer::Machine(spire) => take(&self.machines, &spire),
            Writer::Stranger(key) => take(&self.strangers, &key),
            Writer::Wallet => {
                self.wallets.lock().unwrap_or_else(PoisonError::into_inner).take(now).is_ok()
            }
            Writer::Staff => true,
        }
    }

    /// Whether one more refusal may be logged.
    pub(super) fn allows_log(&self, now: Mono) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take(now).is_ok()
    }
}
