//! Why the vault refuses a seed.

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::Currency;
use bitspire_shared::seed::{MissingPins, SeedError};
use thiserror::Error;

use crate::refused::{Refused, in_words};

/// Why a seed is refused before any bunker hears of it.
#[derive(Debug, Error)]
pub(super) enum SeedRefused {
    /// The machine is somebody's, and its own user has not said that it may be paired again.
    #[error(
        "this machine is paired already, as {}: run `bitspire-agent pair` on it, as the user that \
         its vault runs as, with a new seed of its operator",
        .0.npub()
    )]
    Paired(PubKey),
    /// The seed of the pairing in force.
    #[error(
        "this machine is paired already, as {}: this seed is for that very pairing: make a new one",
        .0.npub()
    )]
    ThisPairing(PubKey),
    /// A seed that would hand the machine to somebody else.
    #[error(
        "this machine is paired already, as {}: this seed is of another operator, service or \
         currency: reset the pairing at the machine first",
        .0.npub()
    )]
    AnotherOperator(PubKey),
    /// It was somebody's, and its own user has not said that it may be paired again.
    #[error(
        "this machine was paired before: run `bitspire-agent pair` on it, as the user that its \
         vault runs as"
    )]
    PairedBefore,
    /// The text is none that can be used.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// It does not name what is pinned.
    #[error(transparent)]
    Pins(#[from] MissingPins),
    /// Another currency than the machine is set up for.
    #[error("expected a seed for {own}, as this machine is set up, got {got}")]
    Currency {
        /// The machine's.
        own: Currency,
        /// The seed's.
        got: Currency,
    },
    /// Nobody could carry it to its bunker.
    #[error("the network process is not running: start it, then pair again")]
    NoNet,
    /// Somebody has brought another one since.
    #[error("another seed was brought before this one's bunker answered: see which one is meant")]
    Replaced,
}

impl SeedRefused {
    /// The name of the reason.
    const fn code(&self) -> &'static str {
        match self {
            Self::Paired(_) => "paired_already",
            Self::ThisPairing(_) => "seed_of_this_pairing",
            Self::AnotherOperator(_) => "seed_of_another_operator",
            Self::PairedBefore => "paired_before",
            Self::Seed(error) => error.code(),
            Self::Pins(missing) => missing.code(),
            Self::Currency { .. } => "seed_currency",
            Self::NoNet => "net_not_running",
            Self::Replaced => "seed_replaced",
        }
    }
}

impl From<SeedRefused> for Refused {
    fn from(error: SeedRefused) -> Self {
        Self::new(error.code(), in_words(&error))
    }
}
