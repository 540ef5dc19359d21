//! The codes of refusals: a closed list; the strings are part of the protocol.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{Classified, Kind};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident;)*) => {
        /// Why a request was refused.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// Every code, for tables and counters.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable string.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What the sender may do. `Transient`: the same request id and body again, in a
            /// freshly signed event, with backoff; the service keeps no such answer in its
            /// idempotency table. `Permanent`: the answer stays the same. `Uncertain`: ask with
            /// `get_payment`, or repeat the same request id, which the service answers once.
            /// `Misuse`: a bug on the sender's side.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

codes! {
    /// The sender is no machine of ours and no live session of one.
    NotInRoster = "not_in_roster", Permanent;
    /// Nobody is there to say whose machine it is.
    NoResolver = "no_resolver", Transient;
    /// Whoever says whose machine it is failed.
    ResolverError = "resolver_error", Transient;
    /// The operator has not yet compared the eight digits of the pairing.
    NotConfirmed = "not_confirmed", Transient;
    /// The machine was switched off by its operator or by an alarm.
    Disabled = "disabled", Permanent;
    /// The machine's pairing was revoked.
    Revoked = "revoked", Permanent;
    /// The pairing's time is over; pair again.
    TokenExpired = "token_expired", Permanent;
    /// Too many requests.
    RateLimited = "rate_limited", Transient;
    /// The event's `expiration` (NIP-40) has passed.
    Expired = "expired", Transient;
    /// The event's `created_at` is too far from the service's clock.
    Stale = "stale", Transient;
    /// This very event was seen before.
    Duplicate = "duplicate", Transient;
    /// The request id, or the transaction, is known with another body.
    Conflict = "conflict", Misuse;
    /// A signature does not hold.
    BadSignature = "bad_signature", Permanent;
    /// Addressed to somebody else.
    WrongRecipient = "wrong_recipient", Permanent;
    /// Larger than this service reads.
    TooLarge = "too_large", Misuse;
    /// Not the shape of the message that it names.
    Malformed = "malformed", Misuse;
    /// No such RPC at this service.
    UnknownRpc = "unknown_rpc", Permanent;
    /// The right shape with a value that cannot be served.
    Invalid = "invalid", Permanent;
    /// Above a cap, or more than the wallet can pay.
    OverLimit = "over_limit", Permanent;
    /// The fee is not the one of the fee document in force.
    FeeMismatch = "fee_mismatch", Permanent;
    /// The quote's time is over; ask for another.
    QuoteExpired = "quote_expired", Permanent;
    /// The operator's wallet does not answer.
    WalletUnavailable = "wallet_unavailable", Transient;
    /// The service failed; nobody knows how far it came.
    Internal = "internal", Uncertain;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal as the sender of the request gets it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the service refused: {code}: {reason}")]
pub struct RpcError {
    /// The code.
    pub code: ErrorCode,
    /// In words, for a log.
    pub reason: String,
}

impl Classified for RpcError {
    fn kind(&self) -> Kind {
        self.code.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a renamed code makes an older machine retry for ever, or give up a claim.
    #[test]
    fn the_strings_and_what_may_be_retried_are_stable() {
        let table: Vec<String> =
            ErrorCode::ALL.iter().map(|code| format!("{code} {:?}", code.kind())).collect();
        insta::assert_snapshot!(table.join("\n"));
        for code in ErrorCode::ALL {
            let wire = serde_json::to_string(code).unwrap();
            assert_eq!(wire, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&wire).unwrap(), *code);
        }
        assert!(serde_json::from_str::<ErrorCode>("\"something_else\"").is_err());
    }
}
