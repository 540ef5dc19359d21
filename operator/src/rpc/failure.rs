//! Why a request is not served, and what its sender is told.
//!
//! Promise: a machine learns the code and what it asked wrongly; what failed inside the service it
//! learns as `internal` alone, and the log has the cause.

use bitspire_shared::admit::{Refusal, Refused};
use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::MoneyError;
use bitspire_shared::rpc::{ErrorCode, RpcError};
use bitspire_shared::split::SplitError;
use thiserror::Error;

use super::line::LineError;
use crate::ledger::LedgerError;
use crate::store::StoreError;

/// Why a request is not served.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Its sender may not ask for it, now.
    #[error(transparent)]
    Turned(Refused),
    /// It cannot be served.
    #[error(transparent)]
    Refused(#[from] RpcError),
    /// The database did not take it.
    #[error("the database did not take it")]
    Store(#[from] StoreError),
    /// A message cannot be made.
    #[error("a message cannot be made")]
    Line(#[from] LineError),
    /// The books do not take it.
    #[error("the books do not take it")]
    Ledger(#[from] LedgerError),
    /// Amounts that have no split.
    #[error("the amounts have no split")]
    Split(#[from] SplitError),
    /// An amount that does not fit.
    #[error("an amount does not fit")]
    Money(#[from] MoneyError),
    /// A stored or computed value is not what it must be.
    #[error("{0}")]
    Broken(String),
}

impl From<Refusal> for Failure {
    fn from(why: Refusal) -> Self {
        Self::Turned(why.after_signature())
    }
}

impl From<CanonicalError> for Failure {
    fn from(error: CanonicalError) -> Self {
        Self::Line(error.into())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Failure {
    /// Code and words for the sender.
    pub(super) fn told(&self) -> RpcError {
        match self {
            Self::Turned(refused) => {
                RpcError { code: refused.why.code(), reason: refused.why.to_string() }
            }
            Self::Refused(error) => error.clone(),
            Self::Store(error) if error.kind() == Kind::Transient => refusal(
                ErrorCode::RateLimited,
                "the service is busy: the same request again, in a moment",
            ),
            _ => refusal(ErrorCode::Internal, "the service failed; its log says why"),
        }
    }

    /// Whether the service itself failed, so that its operator has to look.
    pub(super) const fn is_ours(&self) -> bool {
        !matches!(self, Self::Turned(_) | Self::Refused(_))
    }
}

/// A refusal with its words.
pub(super) fn refusal(code: ErrorCode, reason: impl Into<String>) -> RpcError {
    RpcError { code, reason: reason.into() }
}

/// The refusal of a request with the code `code`, unless `holds`.
pub(super) fn ensure(
    holds: bool,
    code: ErrorCode,
    reason: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(refusal(code, reason()).into()) }
}
