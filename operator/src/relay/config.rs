//! What the embedded relay is told at its start: names, limits, clock; and the NIP-11 document
//! that tells clients of them.

use std::num::NonZeroU32;
use std::time::Duration;

use bitspire_shared::rate::Quota;
use bitspire_shell::clock::Clock;
use nostr::RelayUrl;
use serde_json::{Value, json};

/// Bounds on what clients may cause. The defaults suit 10 000 machines on two cores.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one websocket message; a full NIP-44 payload (65 408 bytes of plaintext) fits.
    pub message_bytes: usize,
    /// Bytes of one message of a connection without a rostered key.
    pub stranger_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections without a rostered key; a further one closes the oldest of them.
    pub strangers: usize,
    /// Keys that one connection may authenticate.
    pub keys: usize,
    /// Messages waiting for one connection; one more closes it.
    pub queue: usize,
    /// Documents of one connection that may be on their way to the disk.
    pub writes: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Filters of one REQ.
    pub filters: usize,
    /// Bytes of a subscription id.
    pub subscription_id: usize,
    /// Stored events that one filter brings.
    pub limit: usize,
    /// Tags of one event.
    pub tags: usize,
    /// Documents that one spire or session key may hold.
    pub documents: u32,
    /// Frames that no honest client sends; a connection beyond it is closed.
    pub bad_frames: Quota,
    /// Frames of one connection other than the service's or the bunker's.
    pub frames: Quota,
    /// Events of one machine, all its connections, sessions and keys together.
    pub machine_events: Quota,
    /// Events of one key that is not in the roster.
    pub stranger_events: Quota,
    /// Events of customers' wallets through one connection.
    pub wallet_events: Quota,
    /// Events of customers' wallets through all connections together.
    pub all_wallet_events: Quota,
    /// Subscriptions of a connection that has not authenticated.
    pub wallet_subscriptions: usize,
    /// Seconds that an event's created_at may lie ahead.
    pub future_secs: u64,
    /// Seconds that an AUTH event's created_at may be off either way (NIP-42).
    pub auth_secs: u64,
    /// Time in which a new connection has to authenticate.
    pub auth_deadline: Duration,
    /// Time for which a connection may stay without authenticating, where customers' wallets are
    /// served: they never do.
    pub wallet_deadline: Duration,
    /// Time between two pings; a connection silent for two of them is closed.
    pub ping: Duration,
    /// Time that one write may take.
    pub write_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 128 * 1024,
            stranger_bytes: 4096,
            connections: 12_000,
            strangers: 256,
            keys: 4,
            queue: 256,
            writes: 64,
            subscriptions: 32,
            filters: 10,
            subscription_id: 64,
            limit: 500,
            tags: 64,
            documents: 64,
            bad_frames: per_minute(16, 16),
            frames: per_minute(240, 120),
            machine_events: per_minute(120, 60),
            stranger_events: per_minute(5, 5),
            wallet_events: per_minute(30, 10),
            all_wallet_events: per_minute(600, 100),
            wallet_subscriptions: 4,
            future_secs: 900,
            auth_secs: 600,
            auth_deadline: Duration::from_secs(10),
            wallet_deadline: Duration::from_secs(60),
            ping: Duration::from_secs(45),
            write_deadline: Duration::from_secs(20),
        }
    }
}

/// A quota of at least one a minute.
pub(super) const fn per_minute(rate: u32, burst: u32) -> Quota {
    let one = NonZeroU32::MIN;
    Quota::per_minute(
        one.saturating_add(rate.saturating_sub(1)),
        one.saturating_add(burst.saturating_sub(1)),
    )
}

/// How one relay is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses under which clients reach it; an AUTH event must name one of them.
    pub urls: Vec<RelayUrl>,
    /// Name in the NIP-11 document; public.
    pub name: String,
    /// Bounds.
    pub limits: Limits,
    /// The wall clock.
    pub clock: Clock,
}

impl Config {
    /// The default limits and the system's clock.
    #[must_use]
    pub fn new(urls: Vec<RelayUrl>) -> Self {
        Self {
            urls,
            name: "bitSpire relay".to_owned(),
            limits: Limits::default(),
            clock: Clock::system(),
        }
    }

    /// The NIP-11 document; `open` where customers' wallets are served, which never authenticate.
    pub(super) fn information(&self, open: bool) -> Value {
        let limits = &self.limits;
        json!({
            "name": self.name,
            "description": "Private relay of one operator of cash machines",
            "software": "bitspire-operator",
            "version": env!("CARGO_PKG_VERSION"),
            "supported_nips": [1, 11, 40, 42, 46, 78],
            "limitation": {
                "auth_required": !open,
                "payment_required": false,
                "restricted_writes": true,
                "max_message_length": limits.message_bytes,
                "max_subscriptions": limits.subscriptions,
                "max_filters": limits.filters,
                "max_limit": limits.limit,
                "max_subid_length": limits.subscription_id,
                "max_event_tags": limits.tags,
                "created_at_upper_limit": limits.future_secs,
            },
            // ephemeral kinds are never kept
            "retention": [{ "kinds": [[20_000, 29_999]], "time": 0 }],
        })
    }
}
