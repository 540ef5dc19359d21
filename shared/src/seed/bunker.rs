//! `bunker://<signer>?relay=..&relay=..&secret=..` (NIP-46) and the relay addresses in it.
//!
//! Two types, so that what is stored cannot hold the secret: a [`BunkerUri`] never has one and is
//! what `Display` and serde write; a [`BunkerLink`] may have one and has neither.

use std::fmt;
use std::str::FromStr;

use nostr::RelayUrl;
use nostr::types::url::{Host, Url, form_urlencoded};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::canonical::sha256;
use crate::error::{Classified, Kind};
use crate::ids::{Digest, PubKey, from_hex};

/// Why a text is no bunker URI, or no relay address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BunkerError {
    /// Another scheme.
    #[error("expected a URI that begins with bunker://")]
    Scheme,
    /// No public key after the scheme.
    #[error("bunker URI: expected the signer's public key, 64 lower-case hex characters")]
    Signer,
    /// Two secrets; which one holds nobody can tell.
    #[error("bunker URI: expected one secret, got several")]
    SeveralSecrets,
    /// An empty or endless secret.
    #[error("bunker URI: expected a secret of 1 to {} characters, got {got}", BunkerSecret::MAX)]
    SecretLength {
        /// Bytes that came.
        got: usize,
    },
    /// A secret where none may be stored.
    #[error("bunker URI: expected one without a secret, since this one is stored")]
    SecretPresent,
    /// Nothing to connect to.
    #[error("expected at least one relay, got none")]
    NoRelays,
    /// A relay address that is none.
    #[error("relay: expected ws://host or wss://host without user, password or fragment")]
    Relay,
    /// A relay that only its own computer can reach.
    #[error(
        "relay {relay} is on loopback, which no other computer can reach: name the relay's public \
         address, or allow loopback where both ends run on one computer"
    )]
    Loopback {
        /// The address.
        relay: String,
    },
}

impl Classified for BunkerError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Reads a relay's address: `ws://` or `wss://`, with a host, without credentials or fragment.
///
/// # Errors
/// [`BunkerError::Relay`]; the text is not quoted, since it may hold a password.
pub fn parse_relay(text: &str) -> Result<RelayUrl, BunkerError> {
    let parse = |text: &str| RelayUrl::parse(text).map_err(|_| BunkerError::Relay);
    // the type remembers how its end was typed, so "//." is printed as another address than it is
    let relay = parse(parse(text.trim())?.as_str())?;
    let url: &Url = (&relay).into();
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    // "wss:///" parses for no relay that exists
    if plain && relay.host().is_some() { Ok(relay) } else { Err(BunkerError::Relay) }
}

/// Whether relays on loopback are taken: only where machine and service share one computer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// The rule.
    Refused,
    /// Asked for by a flag.
    Allowed,
}

impl Loopback {
    /// Checks that there are relays, and that they can be reached from elsewhere.
    ///
    /// # Errors
    /// [`BunkerError::NoRelays`], [`BunkerError::Loopback`].
    pub fn check(self, relays: &[RelayUrl]) -> Result<(), BunkerError> {
        if relays.is_empty() {
            return Err(BunkerError::NoRelays);
        }
        match relays.iter().find(|relay| self == Self::Refused && is_loopback(relay)) {
            Some(relay) => Err(BunkerError::Loopback { relay: relay.to_string() }),
            None => Ok(()),
        }
    }
}

fn is_loopback(relay: &RelayUrl) -> bool {
    match relay.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        // 0.0.0.0 is what servers listen on; connecting to it reaches this computer
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => {
            let mapped = ip.to_ipv4_mapped();
            ip.is_loopback()
                || ip.is_unspecified()
                || mapped.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified())
        }
        None => false,
    }
}

/// What the first `connect` shows to the bunker. Wiped when dropped.
#[derive(Clone)]
pub struct BunkerSecret(Zeroizing<String>);

impl BunkerSecret {
    /// Longest secret, in bytes.
    const MAX: usize = 512;

    /// Takes a secret: any text, since signers differ; a seed's is 64 hex characters.
    ///
    /// # Errors
    /// [`BunkerError::SecretLength`].
    pub fn new(text: &str) -> Result<Self, BunkerError> {
        let got = text.len();
        if !(1..=Self::MAX).contains(&got) {
            return Err(BunkerError::SecretLength { got });
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for the `connect` request. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a bunker keeps of it: SHA-256 of the text.
    #[must_use]
    pub fn hash(&self) -> Digest {
        sha256(&self.0)
    }

    /// Whether it has the form of a seed's secret: 64 lower-case hex characters.
    #[must_use]
    pub fn is_token(&self) -> bool {
        from_hex::<32>("bunker secret", &self.0).is_ok()
    }
}

/// By hash: how long a comparison takes says nothing about the secret.
impl PartialEq for BunkerSecret {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for BunkerSecret {}

impl fmt::Debug for BunkerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BunkerSecret(redacted)")
    }
}

/// Where a bunker is reached: what a machine stores after pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BunkerUri {
    signer: PubKey,
    relays: Vec<RelayUrl>,
}

impl BunkerUri {
    /// Makes the address of `signer` on `relays`.
    ///
    /// # Errors
    /// [`BunkerError::NoRelays`].
    pub fn new(signer: PubKey, relays: Vec<RelayUrl>) -> Result<Self, BunkerError> {
        if relays.is_empty() { Err(BunkerError::NoRelays) } else { Ok(Self { signer, relays }) }
    }

    /// The key that requests are encrypted to and replies are signed by. With some signers it is
    /// not the key that they sign with.
    #[must_use]
    pub const fn signer(&self) -> PubKey {
        self.signer
    }

    /// The bunker's relays; at least one.
    #[must_use]
    pub fn relays(&self) -> &[RelayUrl] {
        &self.relays
    }
}

impl fmt::Display for BunkerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.relays.iter().map(|relay| ("relay", relay.as_str())));
        write!(f, "bunker://{}?{}", self.signer, query.finish())
    }
}

impl FromStr for BunkerUri {
    type Err = BunkerError;
    fn from_str(text: &str) -> Result<Self, BunkerError> {
        match BunkerLink::parse(text)? {
            BunkerLink { uri, secret: None } => Ok(uri),
            BunkerLink { secret: Some(_), .. } => Err(BunkerError::SecretPresent),
        }
    }
}

impl Serialize for BunkerUri {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BunkerUri {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A bunker URI as an operator gets it: an address and, mostly, a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BunkerLink {
    /// The address.
    pub uri: BunkerUri,
    /// The secret, where the URI has one.
    pub secret: Option<BunkerSecret>,
}

impl BunkerLink {
    /// Reads a bunker URI; parameters other than `relay` and `secret` are ignored.
    ///
    /// # Errors
    /// The first [`BunkerError`] that applies; none quotes the secret.
    pub fn parse(text: &str) -> Result<Self, BunkerError> {
        let rest = text.trim().strip_prefix("bunker://").ok_or(BunkerError::Scheme)?;
        let (signer, query) = rest.split_once('?').unwrap_or((rest, ""));
        let signer = signer.strip_suffix('/').unwrap_or(signer);
        let signer = signer.parse().map_err(|_| BunkerError::Signer)?;
        let mut relays = Vec::new();
        let mut secret = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "relay" => relays.push(parse_relay(&value)?),
                "secret" if secret.is_some() => return Err(BunkerError::SeveralSecrets),
                "secret" => secret = Some(BunkerSecret::new(&value)?),
                _ => {}
            }
        }
        Ok(Self { uri: BunkerUri::new(signer, relays)?, secret })
    }

    /// The URI with its secret: whoever has it can connect. Never log it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.uri.to_string());
        if let Some(secret) = &self.secret {
            // room for the worst case first: growing would leave an unwiped copy behind
            text.reserve(secret.0.len().saturating_mul(3).saturating_add(8));
            text.push_str("&secret=");
            text.extend(form_urlencoded::byte_serialize(secret.0.as_bytes()));
        }
        text
    }
}
