//! The connection string of NIP-47: `nostr+walletconnect://<wallet>?relay=...&secret=...`.
//!
//! Promise: it is a secret as a whole and is never shown; an error does not repeat any of it.

use std::fmt;

use bitspire_shared::ids::PubKey;
use bitspire_shared::seed::parse_relay;
use nostr::{Keys, SecretKey, Url};
use thiserror::Error;

/// Why a connection string is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UriError {
    /// Not of this form at all.
    #[error("expected nostr+walletconnect://, the wallet's key, a relay and a secret")]
    Form,
    /// The wallet's key.
    #[error("expected the wallet's key as 64 hex characters after nostr+walletconnect://")]
    Wallet,
    /// No relay, or one that is none.
    #[error("expected relay= with a ws:// or wss:// address")]
    Relay,
    /// The secret.
    #[error("expected secret= with a private key of 64 hex characters")]
    Secret,
}

/// A connection to a wallet.
#[derive(Clone)]
pub(crate) struct Uri {
    pub(in crate::wallet) wallet: PubKey,
    pub(super) relays: Vec<String>,
    pub(super) keys: Keys,
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({})", self.wallet)
    }
}

impl Uri {
    /// Reads one.
    ///
    /// # Errors
    /// [`UriError`].
    pub(crate) fn parse(text: &str) -> Result<Self, UriError> {
        let url: Url = text.parse().map_err(|_| UriError::Form)?;
        if url.scheme() != "nostr+walletconnect" {
            return Err(UriError::Form);
        }
        let wallet = url.host_str().unwrap_or_else(|| url.path());
        let wallet = PubKey::from_hex_or_npub(wallet).map_err(|_| UriError::Wallet)?;
        let mut relays = Vec::new();
        let mut secret = None;
        for (name, value) in url.query_pairs() {
            match &*name {
                "relay" => {
                    parse_relay(&value).map_err(|_| UriError::Relay)?;
                    relays.push(value.into_owned());
                }
                "secret" => secret = SecretKey::from_hex(&value).ok(),
                _ => {}
            }
        }
        if relays.is_empty() {
            return Err(UriError::Relay);
        }
        let keys = Keys::new(secret.ok_or(UriError::Secret)?);
        Ok(Self { wallet, relays, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a wallet's secret in a message about a typing error.
    #[test]
    fn a_connection_is_read_and_never_shown() {
        let (wallet, secret) = (
            "1b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f",
            "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c",
        );
        let good = format!(
            "nostr+walletconnect://{wallet}?relay=wss%3A%2F%2Frelay.example&relay=ws://127.0.0.1:7000&secret={secret}&lud16=a@b.c"
        );
        let uri = Uri::parse(&good).unwrap();
        assert_eq!(uri.relays, ["wss://relay.example", "ws://127.0.0.1:7000"]);
        assert_eq!(uri.wallet.to_string(), wallet);
        assert!(!format!("{uri:?}").contains(secret));
        for (wrong, expected) in [
            (good.replace("nostr+walletconnect", "https"), UriError::Form),
            (good.replace(wallet, "wallet"), UriError::Wallet),
            (good.replace("wss%3A%2F%2F", "https%3A%2F%2F"), UriError::Relay),
            (format!("nostr+walletconnect://{wallet}?secret={secret}"), UriError::Relay),
            (good.replace(secret, &secret[1..]), UriError::Secret),
            (secret.to_owned(), UriError::Form),
        ] {
            let refused = Uri::parse(&wrong).err();
            assert_eq!(refused, Some(expected));
            assert!(!format!("{refused:?}").contains(&secret[1..]));
        }
    }
}
