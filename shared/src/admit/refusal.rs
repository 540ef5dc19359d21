//! Why an event is refused, and what follows from it: one table.

use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::rate::Quota;
use crate::rpc::{BadRequest, ErrorCode};

/// Why an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// Larger than anything that we read.
    #[error("expected at most {max} bytes, got {got}")]
    TooLarge {
        /// Bytes that may come.
        max: usize,
        /// Bytes that came.
        got: usize,
    },
    /// No event, or one that says something twice.
    #[error("expected a Nostr event (NIP-01) with at most one p and one expiration tag")]
    Malformed,
    /// A kind that nobody here asked for.
    #[error("kind {got} is not read here")]
    Kind {
        /// Its kind.
        got: u16,
    },
    /// For somebody else, or for nobody.
    #[error("its p tag names none of our keys")]
    WrongRecipient,
    /// Past its `expiration` (NIP-40).
    #[error("expired {late_s} s ago")]
    Expired {
        /// Seconds since.
        late_s: u64,
    },
    /// Its clock and ours stand too far apart.
    #[error("created {off_s} s off our clock, at most {max_s} s are taken")]
    Stale {
        /// Seconds apart.
        off_s: u64,
        /// Seconds that are taken.
        max_s: u64,
    },
    /// Seen before.
    #[error("seen before")]
    Duplicate,
    /// No machine of ours, nor a live session of one.
    #[error("the author is not in the roster")]
    NotInRoster,
    /// Nobody is there to say whose machine it is.
    #[error("nobody can say whose machine it is")]
    NoResolver,
    /// Whoever says whose machine it is failed.
    #[error("asking whose machine it is failed")]
    ResolverError,
    /// Too many events through one relay.
    #[error("too much from this relay, for another {retry_after_ms} ms")]
    RelayBusy {
        /// Milliseconds until the next one passes.
        retry_after_ms: u64,
    },
    /// Id or signature do not hold.
    #[error("id or signature does not hold")]
    BadSignature,
    /// Too many events of one machine.
    #[error("too much from this machine, for another {retry_after_ms} ms")]
    MachineBusy {
        /// Milliseconds until the next one passes.
        retry_after_ms: u64,
    },
    /// NIP-44 could not read it.
    #[error("cannot be decrypted")]
    Undecryptable,
    /// It decrypts, but is no request that can be served.
    #[error("no request that can be served: {0}")]
    Request(ErrorCode),
    /// The operator has not yet confirmed the pairing.
    #[error("the pairing is not confirmed")]
    NotConfirmed,
    /// The machine is switched off.
    #[error("the machine is disabled")]
    Disabled,
    /// The pairing was revoked.
    #[error("the pairing is revoked")]
    Revoked,
    /// The pairing's time is over.
    #[error("the pairing has expired")]
    TokenExpired,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For whoever looks closely.
    Debug,
    /// Goes by itself.
    Info,
    /// Somebody outside does something wrong.
    Warn,
    /// The operator should look.
    Error,
}

/// Whether the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyRule {
    /// Not a word.
    Never,
    /// Each time; the machine's bucket bounds it.
    Always,
    /// At most so often for one machine.
    AtMost(Quota),
}

/// Whether the author was known for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Anybody may have sent it: it is never answered.
    BeforeSignature,
    /// The author signed it.
    AfterSignature,
}

/// A refusal and where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("refused: {why}")]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// Where.
    pub stage: Stage,
}

const fn quota(per_minute: u32) -> Quota {
    use std::num::NonZeroU32;
    match NonZeroU32::new(per_minute) {
        Some(rate) => Quota::per_minute(rate, NonZeroU32::MIN),
        None => Quota::per_minute(NonZeroU32::MIN, NonZeroU32::MIN),
    }
}

const EACH_SECOND: ReplyRule = ReplyRule::AtMost(quota(60));
const EACH_MINUTE: ReplyRule = ReplyRule::AtMost(quota(1));

impl Refusal {
    /// The table: code of the reply, name of the counter, reply once the signature has verified,
    /// level before and after that.
    const fn row(self) -> (ErrorCode, &'static str, ReplyRule, Level, Level) {
        use Level::{Debug, Error, Info, Warn};
        use ReplyRule::{Always, Never};
        match self {
            Self::TooLarge { .. } => (ErrorCode::TooLarge, "too_large", Always, Warn, Warn),
            Self::Malformed => (ErrorCode::Malformed, "malformed", Always, Warn, Warn),
            Self::Kind { .. } => (ErrorCode::Malformed, "kind", Never, Warn, Warn),
            Self::WrongRecipient => {
                (ErrorCode::WrongRecipient, "wrong_recipient", Never, Warn, Warn)
            }
            Self::Expired { .. } => (ErrorCode::Expired, "expired", Always, Info, Info),
            Self::Stale { .. } => (ErrorCode::Stale, "stale", Always, Warn, Warn),
            // the same event by several relays is the normal case, and was answered once
            Self::Duplicate => (ErrorCode::Duplicate, "duplicate", Never, Debug, Debug),
            Self::NotInRoster => (ErrorCode::NotInRoster, "not_in_roster", Always, Warn, Error),
            Self::NoResolver => (ErrorCode::NoResolver, "no_resolver", Always, Error, Error),
            Self::ResolverError => {
                (ErrorCode::ResolverError, "resolver_error", Always, Error, Error)
            }
            Self::RelayBusy { .. } => (ErrorCode::RateLimited, "relay_busy", Never, Warn, Warn),
            Self::BadSignature => (ErrorCode::BadSignature, "bad_signature", Never, Warn, Warn),
            Self::MachineBusy { .. } => {
                (ErrorCode::RateLimited, "machine_busy", EACH_SECOND, Warn, Warn)
            }
            Self::Undecryptable => (ErrorCode::Malformed, "undecryptable", Always, Warn, Warn),
            Self::Request(code) => (code, "request", Always, Warn, Warn),
            Self::NotConfirmed => (ErrorCode::NotConfirmed, "not_confirmed", Always, Info, Info),
            Self::Disabled => (ErrorCode::Disabled, "disabled", Always, Info, Info),
            Self::Revoked => (ErrorCode::Revoked, "revoked", EACH_MINUTE, Error, Error),
            Self::TokenExpired => {
                (ErrorCode::TokenExpired, "token_expired", EACH_MINUTE, Error, Error)
            }
        }
    }

    /// The code that a reply has.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        self.row().0
    }

    /// A stable name for counters.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.row().1
    }

    /// The refusal of an event whose author is not known for certain.
    #[must_use]
    pub const fn before_signature(self) -> Refused {
        Refused { why: self, stage: Stage::BeforeSignature }
    }

    /// The refusal of an event that its author signed.
    #[must_use]
    pub const fn after_signature(self) -> Refused {
        Refused { why: self, stage: Stage::AfterSignature }
    }
}

impl Refused {
    /// Whether the sender is told: never before its signature has verified.
    #[must_use]
    pub const fn reply(self) -> ReplyRule {
        match self.stage {
            Stage::BeforeSignature => ReplyRule::Never,
            Stage::AfterSignature => self.why.row().2,
        }
    }

    /// How loud its log line is.
    #[must_use]
    pub const fn level(self) -> Level {
        match self.stage {
            Stage::BeforeSignature => self.why.row().3,
            Stage::AfterSignature => self.why.row().4,
        }
    }
}

impl Classified for Refused {
    fn kind(&self) -> Kind {
        self.why.code().kind()
    }
}

impl From<&BadRequest> for Refused {
    fn from(bad: &BadRequest) -> Self {
        Refusal::Request(bad.error.code).after_signature()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refusal; 19] = [
        Refusal::TooLarge { max: 1, got: 2 },
        Refusal::Malformed,
        Refusal::Kind { got: 1 },
        Refusal::WrongRecipient,
        Refusal::Expired { late_s: 1 },
        Refusal::Stale { off_s: 121, max_s: 120 },
        Refusal::Duplicate,
        Refusal::NotInRoster,
        Refusal::NoResolver,
        Refusal::ResolverError,
        Refusal::RelayBusy { retry_after_ms: 1 },
        Refusal::BadSignature,
        Refusal::MachineBusy { retry_after_ms: 1 },
        Refusal::Undecryptable,
        Refusal::Request(ErrorCode::UnknownRpc),
        Refusal::NotConfirmed,
        Refusal::Disabled,
        Refusal::Revoked,
        Refusal::TokenExpired,
    ];

    /// Loss prevented: a stranger makes the service sign and send; an alarm that nobody hears.
    #[test]
    fn the_table_of_refusals() {
        let mut table = Vec::new();
        for why in ALL {
            let (before, after) = (why.before_signature(), why.after_signature());
            assert_eq!(before.reply(), ReplyRule::Never, "{why}");
            let reply = match after.reply() {
                ReplyRule::AtMost(quota) if quota == super::quota(60) => "one a second".into(),
                ReplyRule::AtMost(quota) if quota == super::quota(1) => "one a minute".into(),
                other => format!("{other:?}"),
            };
            table.push(format!(
                "{}: {}, reply {reply}, {:?}/{:?}: {after}",
                why.label(),
                why.code(),
                before.level(),
                after.level()
            ));
        }
        insta::assert_snapshot!(table.join("\n"));
    }
}
