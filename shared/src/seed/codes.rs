//! A name for each reason, for programs: it stays, whatever the words become.

use super::{BunkerError, MissingPins, SeedError};

impl SeedError {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotASeed => "seed_not_one",
            Self::PrivateKey => "private_key",
            Self::Truncated => "seed_truncated",
            Self::TooLong { .. } => "seed_too_long",
            Self::Version { .. } => "seed_version",
            Self::NotBase64 | Self::NotJson => "seed_damaged",
            Self::MissingField { .. } | Self::InvalidField { .. } | Self::NpubMismatch => {
                "seed_invalid"
            }
            Self::Address { source, .. } => source.code(),
            Self::Expired { .. } => "seed_expired",
        }
    }
}

impl BunkerError {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Scheme
            | Self::Signer
            | Self::SeveralSecrets
            | Self::SecretLength { .. }
            | Self::SecretPresent => "bunker_address",
            Self::NoRelays => "relay_none",
            Self::Relay => "relay_address",
            Self::Loopback { .. } => "relay_on_loopback",
        }
    }
}

impl MissingPins {
    /// The name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self { .. } => "seed_without_keys",
        }
    }
}
