//! Why a seed led to no pairing, and why the bunker fails a machine that is paired, for the vault: a
//! name and words.

use bitspire_shared::nip46::client::{CallError, SignerState};
use bitspire_shell::pool::PoolError;

use super::pairing::PairError;
use super::signer::SignerError;
use crate::refused::{Refused, in_words};

impl PairError {
    /// The name of the reason.
    fn code(&self) -> &'static str {
        match self {
            Self::Address(error) => error.code(),
            Self::NoSecret => "seed_invalid",
            Self::Store(_) => "client_key",
            Self::Relay(PoolError::Url { .. }) => "relay_address",
            Self::Relay(PoolError::NotTaken { .. }) => "bunker_not_reached",
            Self::Signer(_) if self.is_over() => "seed_expired",
            Self::Signer(error) => error.code(),
            Self::TurnedAway { .. } => "seed_turned_away",
            Self::NotInverse => "bunker_lied",
        }
    }

    /// Whether the bunker says that the seed's time is over.
    fn is_over(&self) -> bool {
        matches!(self, Self::Signer(SignerError::Call(CallError::Rejected { reply, .. }))
            if reply.to_ascii_lowercase().contains("expired"))
    }
}

impl SignerError {
    /// The name of the reason.
    const fn code(&self) -> &'static str {
        match self {
            Self::Call(error) => error.code(),
            Self::Ask(error) => error.code(),
            Self::Encrypt(_) | Self::Random(_) => "bunker_request",
            Self::Closed => "bunker_not_reached",
        }
    }
}

/// Of a machine that is paired.
impl From<&SignerError> for Refused {
    fn from(error: &SignerError) -> Self {
        let (code, mut words) = (error.code(), in_words(error));
        if code == "bunker_lied" {
            words.push_str(
                "; nothing was made of it: do not use this bunker, look at what runs there",
            );
        }
        Self::new(code, words)
    }
}

impl From<&PairError> for Refused {
    fn from(error: &PairError) -> Self {
        let (code, mut words) = (error.code(), in_words(error));
        if let PairError::Signer(SignerError::Call(CallError::NoReply { method, state })) = error {
            // nothing tries a seed by itself
            let look = match state {
                SignerState::Locked => "unlock its key, or start it",
                _ => "check it and the seed's relays",
            };
            words = format!(
                "the bunker did not answer {method}: {look}; then pair again with the same seed"
            );
        } else if error.is_over() {
            words.push_str("; the seed's time is over: make a new seed and pair again");
        } else if code == "bunker_not_reached" {
            words = "no relay of the seed carries a question to its bunker: see to the machine's \
                     network, then bring the same seed again"
                .to_owned();
        }
        Self::new(code, words)
    }
}
