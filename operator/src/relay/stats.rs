//! What the embedded relay counts, and why it refuses.
//!
//! Promise: each refusal is one variant with one stable label (for metrics) and one text (for the
//! client), and every refused frame is counted exactly once under it.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All of them, in the order in which they are counted.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// The name in metrics; stable.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

labelled! {
    /// Things that happen and are no refusal.
    Count {
        /// Connections upgraded.
        Opened = "connections_opened",
        /// Connections that have ended.
        Closed = "connections_closed",
        /// AUTH events that held.
        Authenticated = "authentications",
        /// Signatures checked, good or bad: what a stranger must not be able to cause freely.
        SignatureChecks = "signature_checks",
        /// Ephemeral events passed on to whoever listened.
        Routed = "events_routed",
        /// Documents made durable.
        Stored = "documents_stored",
        /// Documents that were stored already, or older than the stored one.
        Duplicate = "documents_duplicate",
        /// Events put into a connection's queue.
        Delivered = "events_delivered",
        /// Events dropped at the moment of sending because they had expired (NIP-40).
        ExpiredInQueue = "events_expired_in_queue",
        /// Connections closed because their queue was full.
        Overflows = "closed_overflow",
        /// Connections closed because a write took too long.
        Stalled = "closed_stalled",
        /// Connections closed because nothing came from them, not even a pong.
        Idle = "closed_idle",
        /// Connections closed by a revocation.
        Revoked = "closed_revoked",
        /// Connections closed for too many bad frames.
        Abusive = "closed_abusive",
        /// Connections closed because they did not authenticate in time.
        NeverAuthenticated = "closed_unauthenticated",
        /// Strangers closed to make room for a new connection.
        Evicted = "closed_evicted",
        /// Connections that sent what is no websocket message of the allowed size.
        Broken = "closed_broken",
        /// Upgrades refused because the relay is full.
        Full = "connections_refused",
    }
}

labelled! {
    /// Why a frame was refused.
    Refusal {
        /// Not a message of NIP-01 or NIP-42, or a broken event or filter.
        Malformed = "malformed",
        /// Larger than a connection of its rank may send.
        TooLarge = "too_large",
        /// More frames or events than the limit allows.
        RateLimited = "rate_limited",
        /// Not authenticated yet.
        AuthRequired = "auth_required",
        /// A kind that this relay does not carry for that connection.
        Kind = "kind",
        /// The author is none of the connection's keys.
        Author = "author",
        /// An unknown key wrote to a key that awaits no pairing.
        NoPairing = "no_pairing",
        /// More tags than allowed.
        TooManyTags = "too_many_tags",
        /// Expired (NIP-40).
        Expired = "expired",
        /// Dated too far ahead.
        Future = "future",
        /// The id is not the hash of the event.
        Id = "bad_id",
        /// The signature does not hold.
        Signature = "bad_signature",
        /// A REQ for what is neither addressed to nor written by the connection's keys.
        Outside = "outside",
        /// More subscriptions or filters than allowed.
        TooManySubscriptions = "too_many_subscriptions",
        /// A filter or a verb that is not served: search, COUNT, NEG-OPEN.
        Unsupported = "unsupported",
        /// The author holds as many documents as it may.
        Quota = "quota",
        /// The store did not answer or could not write.
        Store = "store",
        /// AUTH: not kind 22242.
        AuthKind = "auth_kind",
        /// AUTH: another challenge than this connection's.
        AuthChallenge = "auth_challenge",
        /// AUTH: the relay tag names another relay.
        AuthRelay = "auth_relay",
        /// AUTH: created_at is too far from this relay's clock.
        AuthTime = "auth_time",
        /// AUTH: more keys on one connection than allowed.
        AuthKeys = "auth_keys",
    }
}

impl Refusal {
    /// Whether no honest client causes it often: enough of these close a connection.
    pub(super) const fn is_abuse(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::TooLarge
                | Self::RateLimited
                | Self::Author
                | Self::NoPairing
                | Self::Id
                | Self::Signature
                | Self::AuthKind
                | Self::AuthChallenge
                | Self::AuthRelay
        )
    }

    /// What the client is told: a machine-readable prefix of NIP-01 or NIP-42, then words.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Malformed => "invalid: expected a message of NIP-01 or NIP-42",
            Self::TooLarge => "restricted: larger than this connection may send; see NIP-11",
            Self::RateLimited => "rate-limited: slow down",
            Self::AuthRequired => "auth-required: authenticate first (NIP-42)",
            Self::Kind => "blocked: this relay does not carry this kind for you",
            Self::Author => "restricted: the author is none of this connection's keys",
            Self::NoPairing => "restricted: only a request to a key that awaits pairing is taken",
            Self::TooManyTags => "invalid: too many tags; see NIP-11",
            Self::Expired => "invalid: expired (NIP-40)",
            Self::Future => "invalid: created_at is too far ahead",
            Self::Id => "invalid: the id is not the hash of the event",
            Self::Signature => "invalid: the signature does not hold",
            Self::Outside => {
                "restricted: each filter must name, in #p or authors, only this connection's keys"
            }
            Self::TooManySubscriptions => {
                "restricted: too many subscriptions or filters; see NIP-11"
            }
            Self::Unsupported => "unsupported: search, COUNT and NEG-OPEN are not served",
            Self::Quota => "blocked: this author holds as many documents as it may",
            Self::Store => "error: the document could not be made durable; try again",
            Self::AuthKind => "invalid: expected an AUTH event of kind 22242",
            Self::AuthChallenge => "invalid: expected the challenge of this connection",
            Self::AuthRelay => "invalid: the relay tag names another relay",
            Self::AuthTime => "invalid: created_at is too far from this relay's clock",
            Self::AuthKeys => "restricted: too many keys on one connection",
        }
    }
}

/// Counters since the start; each only grows.
#[derive(Debug)]
pub struct RelayStats {
    counts: [AtomicU64; Count::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Default for RelayStats {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; _],
            refusals: [const { AtomicU64::new(0) }; _],
        }
    }
}

impl RelayStats {
    pub(super) fn add(&self, count: Count) {
        self.counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often `count` happened.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Ordering::Relaxed)
    }

    /// How many frames were refused for `refusal`.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals[refusal as usize].load(Ordering::Relaxed)
    }

    /// Connections open right now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.get(Count::Opened).saturating_sub(self.get(Count::Closed))
    }
}
