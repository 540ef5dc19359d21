//! Why a document waits.
//!
//! Promise: in words that say what whoever runs the service can do about it; they stand in the outbox
//! and on the page.

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::document::DocumentError;
use bitspire_shared::document::watermark::Ahead;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shell::pool::PoolError;
use bitspire_shell::secrets::SecretError;
use thiserror::Error;

use crate::signer::SignerError;
use crate::store::StoreError;

/// Why a document is not with a relay yet.
#[derive(Debug, Error)]
pub(super) enum PublishError {
    #[error("the machine has no key yet: it is published when the machine is paired")]
    Unpaired,
    #[error("the machine is revoked: it is published when the machine is paired again")]
    Revoked,
    #[error("the operator has no key yet; make one with `operator init`")]
    NoIdentity,
    #[error("the operator's key cannot be used: its bunker has not been reached since the start")]
    NoSigner,
    #[error("it was signed for other keys than today's: publish it again")]
    OtherKeys,
    #[error("the bunker did not answer for another document of this operator just now")]
    SignerRests,
    #[error(transparent)]
    Ahead(#[from] Ahead),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Relay(#[from] PoolError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("the operator's statement")]
    Statement(#[from] CanonicalError),
    #[error("no random bytes")]
    Random(#[from] SecretError),
    #[error("the kept event cannot be read: {0}")]
    Event(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classified for PublishError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unpaired | Self::Revoked | Self::NoIdentity | Self::OtherKeys => Kind::Permanent,
            Self::NoSigner | Self::SignerRests => Kind::Transient,
            Self::Ahead(error) => error.kind(),
            Self::Signer(error) => error.kind(),
            Self::Relay(error) => error.kind(),
            Self::Document(error) => error.kind(),
            Self::Statement(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::Event(_) => Kind::Permanent,
            Self::Store(error) => error.kind(),
        }
    }
}
