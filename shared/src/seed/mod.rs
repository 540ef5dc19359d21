//! The seed URL: what an operator hands to a machine so that it can be paired, once.
//!
//! `spire-seed:v1:<base64url(JSON)>`, the JSON with `spire_npub`, `spire_pubkey`, `bunker_url`,
//! `relays` and, beyond what other producers write, `operator_pubkey`, `service_pubkey`,
//! `fiat_code`, `expires_at` (Unix seconds). Written without base64 padding, read with or without;
//! unknown fields are ignored.
//!
//! Promise: a [`Seed`] that exists is whole: its npub and its key are one key, its bunker secret is
//! 64 hex characters, it names relays that a machine can reach, and it had not expired when it was
//! read. It is a bearer secret: only [`Seed::expose`] gives it out, `Debug` shows none of it, what
//! holds it is wiped when dropped.
//!
//! Failure policy: each defect is its own [`SeedError`], whose text never quotes the seed. A seed
//! of another producer may lack the keys that a machine pins; it pairs, and [`Seed::pins`] says
//! what is missing before the machine can be in service. Nothing is trusted on first use.

mod bunker;
mod codes;
mod pins;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use nostr::RelayUrl;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::bunker::{BunkerError, BunkerLink, BunkerSecret, BunkerUri, Loopback, parse_relay};
pub use self::pins::{MissingPins, Pins, confirmation_digits};
use crate::error::{Classified, Kind};
use crate::ids::PubKey;
use crate::money::Currency;
use crate::time::Unix;

/// What every seed of this version begins with.
const PREFIX: &str = "spire-seed:v1:";
/// The same without the version.
const SCHEME: &str = "spire-seed:";
/// Longest seed URL that is read, in bytes: a dozen relays fit many times over.
const MAX_LENGTH: usize = 16_384;

/// Why a text is not a seed that this machine can use now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SeedError {
    /// No seed URL at all.
    #[error("expected a seed URL that begins with {PREFIX}; copy it from the pairing page")]
    NotASeed,
    /// A key where a seed belongs.
    #[error(
        "this is a private key, not a seed URL: a machine holds no Nostr key of its own; \
         pair it with the seed URL of the pairing page"
    )]
    PrivateKey,
    /// Cut off.
    #[error("the seed URL ends too early: copy it again, whole")]
    Truncated,
    /// Longer than any seed.
    #[error("expected a seed URL of at most {MAX_LENGTH} bytes, got {got}")]
    TooLong {
        /// Bytes that came.
        got: usize,
    },
    /// Made for another version of the software.
    #[error("seed version {got} is not known here, expected v1: update one side, then pair again")]
    Version {
        /// The version that the seed names.
        got: String,
    },
    /// Characters outside base64url.
    #[error("the seed URL is damaged: expected base64url after {PREFIX}; copy it again")]
    NotBase64,
    /// Base64url of something else.
    #[error("the seed URL is damaged: expected a JSON object inside; make a new seed")]
    NotJson,
    /// A mandatory field is absent.
    #[error("the seed lacks {field}: make a new seed")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// A field that holds something else.
    #[error("the seed's {field} is wrong: expected {expected}; make a new seed")]
    InvalidField {
        /// The field.
        field: &'static str,
        /// What it must hold.
        expected: &'static str,
    },
    /// Two names for two keys.
    #[error("the seed's spire_npub and spire_pubkey are two different keys: make a new seed")]
    NpubMismatch,
    /// The bunker URI or a relay does not hold.
    #[error("the seed's {field} cannot be used")]
    Address {
        /// The field: `bunker_url` or `relays`.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: BunkerError,
    },
    /// Too late.
    #[error(
        "the seed was valid until {expires_at} (Unix seconds), now is {now}: make a new seed",
        expires_at = .expires_at.0, now = .now.0
    )]
    Expired {
        /// The end of its validity.
        expires_at: Unix,
        /// The time of the check.
        now: Unix,
    },
}

impl Classified for SeedError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// A seed, read or about to be handed out.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    spire: PubKey,
    bunker: BunkerUri,
    secret: BunkerSecret,
    relays: Vec<RelayUrl>,
    operator: Option<PubKey>,
    service: Option<PubKey>,
    currency: Option<Currency>,
    expires_at: Option<Unix>,
}

impl Seed {
    /// Makes the seed that an operator hands out: with everything that a machine pins, and its end.
    ///
    /// # Errors
    /// [`SeedError::InvalidField`] for a secret that is not 64 hex characters,
    /// [`SeedError::Address`] for no relays, or one on loopback where that is not allowed.
    pub fn issue(
        pins: &Pins,
        bunker: BunkerUri,
        secret: BunkerSecret,
        relays: Vec<RelayUrl>,
        expires_at: Unix,
        loopback: Loopback,
    ) -> Result<Self, SeedError> {
        let seed = Self {
            spire: pins.spire,
            bunker,
            secret,
            relays,
            operator: Some(pins.operator),
            service: Some(pins.service),
            currency: Some(pins.currency),
            expires_at: Some(expires_at),
        };
        seed.check(loopback)?;
        Ok(seed)
    }

    /// Reads a seed URL as a person pastes it; `now` is what its end is held against.
    ///
    /// # Errors
    /// The first [`SeedError`] that applies, the expiry last.
    pub fn parse(text: &str, now: Unix, loopback: Loopback) -> Result<Self, SeedError> {
        let json = decode(text.trim())?;
        let fields = Fields::read(&json)?;
        let spire: PubKey = fields.needed("spire_pubkey", "64 lower-case hex characters")?;
        let npub: String = fields.needed("spire_npub", "an npub")?;
        let named = PubKey::from_hex_or_npub(&npub).ok().filter(|_| npub.starts_with("npub1"));
        let named =
            named.ok_or(SeedError::InvalidField { field: "spire_npub", expected: "an npub" })?;
        if named != spire {
            return Err(SeedError::NpubMismatch);
        }
        let link: String = fields.needed("bunker_url", "a bunker:// URI")?;
        let link = BunkerLink::parse(&Zeroizing::new(link))
            .map_err(|source| SeedError::Address { field: "bunker_url", source })?;
        let secret = link.secret.ok_or(SeedError::MissingField { field: "bunker_url's secret" })?;
        let relays: Vec<String> = fields.needed("relays", "a list of relay URLs")?;
        let relays = relays.iter().map(|relay| parse_relay(relay)).collect::<Result<_, _>>();
        let relays = relays.map_err(|source| SeedError::Address { field: "relays", source })?;
        let key = "64 lower-case hex characters";
        let seed = Self {
            spire,
            bunker: link.uri,
            secret,
            relays,
            operator: fields.optional("operator_pubkey", key)?,
            service: fields.optional("service_pubkey", key)?,
            currency: fields.optional("fiat_code", "an ISO-4217 code")?,
            expires_at: fields.optional("expires_at", "whole Unix seconds")?,
        };
        seed.check(loopback)?;
        match seed.expires_at {
            Some(expires_at) if now > expires_at => Err(SeedError::Expired { expires_at, now }),
            _ => Ok(seed),
        }
    }

    /// The seed URL. Whoever has it can pair in the machine's name: show it once, never log it.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let link = BunkerLink { uri: self.bunker.clone(), secret: Some(self.secret.clone()) };
        let bunker_url = link.expose();
        let npub = self.spire.npub();
        let wire = Wire {
            spire_npub: &npub,
            spire_pubkey: self.spire,
            bunker_url: &bunker_url,
            relays: &self.relays,
            operator_pubkey: self.operator,
            service_pubkey: self.service,
            fiat_code: self.currency,
            expires_at: self.expires_at,
        };
        // room first: growing would leave unwiped copies behind
        let mut json = Zeroizing::new(Vec::with_capacity(MAX_LENGTH));
        let mut url = Zeroizing::new(String::with_capacity(MAX_LENGTH));
        url.push_str(PREFIX);
        // strings, keys and one integer, into memory: there is nothing here that can fail
        if serde_json::to_writer(&mut *json, &wire).is_ok() {
            URL_SAFE_NO_PAD.encode_string(json.as_slice(), &mut url);
        }
        url
    }

    /// The machine's identity, whose key is in the bunker.
    #[must_use]
    pub const fn spire(&self) -> PubKey {
        self.spire
    }

    /// Where the bunker is; this part may be stored.
    #[must_use]
    pub const fn bunker(&self) -> &BunkerUri {
        &self.bunker
    }

    /// What the first `connect` shows to the bunker; never stored.
    #[must_use]
    pub const fn secret(&self) -> &BunkerSecret {
        &self.secret
    }

    /// The relays of machine and operator service; at least one.
    #[must_use]
    pub fn relays(&self) -> &[RelayUrl] {
        &self.relays
    }

    /// The last second at which it may be used, where it names one.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Unix> {
        self.expires_at
    }

    /// What the machine pins.
    ///
    /// # Errors
    /// [`MissingPins`]: no machine is paired by it.
    pub fn pins(&self) -> Result<Pins, MissingPins> {
        match (self.operator, self.service, self.currency) {
            (Some(operator), Some(service), Some(currency)) => {
                Ok(Pins { spire: self.spire, operator, service, currency })
            }
            (operator, service, currency) => {
                Err(MissingPins { spire: self.spire, operator, service, currency })
            }
        }
    }

    fn check(&self, loopback: Loopback) -> Result<(), SeedError> {
        if !self.secret.is_token() {
            let (field, expected) = ("bunker_url", "a secret of 64 lower-case hex characters");
            return Err(SeedError::InvalidField { field, expected });
        }
        loopback
            .check(self.bunker.relays())
            .map_err(|source| SeedError::Address { field: "bunker_url", source })?;
        loopback
            .check(&self.relays)
            .map_err(|source| SeedError::Address { field: "relays", source })
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("spire", &self.spire)
            .field("bunker", &self.bunker)
            .field("secret", &self.secret)
            .field("relays", &self.relays)
            .field("operator", &self.operator)
            .field("service", &self.service)
            .field("currency", &self.currency)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

/// The JSON inside, as we write it.
#[derive(Serialize)]
struct Wire<'a> {
    spire_npub: &'a str,
    spire_pubkey: PubKey,
    bunker_url: &'a str,
    relays: &'a [RelayUrl],
    #[serde(skip_serializing_if = "Option::is_none")]
    operator_pubkey: Option<PubKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_pubkey: Option<PubKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fiat_code: Option<Currency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Unix>,
}

/// The JSON inside, as it comes. Fields stay unread text until they are asked for, so that an error
/// names its field and serde's own messages, which quote values, go nowhere.
struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    fn read(json: &'a [u8]) -> Result<Self, SeedError> {
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|e| if e.is_eof() { SeedError::Truncated } else { SeedError::NotJson })
    }

    /// A field that other producers leave out or set to null.
    fn optional<T: DeserializeOwned>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, SeedError> {
        let Some(raw) = self.0.get(field) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| SeedError::InvalidField { field, expected })
    }

    fn needed<T: DeserializeOwned>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, SeedError> {
        self.optional(field, expected)?.ok_or(SeedError::MissingField { field })
    }
}

/// The JSON text of a seed URL.
fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, SeedError> {
    if text.len() > MAX_LENGTH {
        return Err(SeedError::TooLong { got: text.len() });
    }
    if looks_like_a_private_key(text) {
        return Err(SeedError::PrivateKey);
    }
    let Some(payload) = text.strip_prefix(PREFIX) else {
        if !text.is_empty() && PREFIX.starts_with(text) {
            return Err(SeedError::Truncated);
        }
        return Err(match text.strip_prefix(SCHEME).and_then(version) {
            Some(got) => SeedError::Version { got },
            None => SeedError::NotASeed,
        });
    };
    if payload.is_empty() {
        return Err(SeedError::Truncated);
    }
    use nostr::base64::DecodeError;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|e| match e {
        DecodeError::InvalidByte(..) | DecodeError::InvalidPadding => SeedError::NotBase64,
        // what a whole text never ends with: it was cut within a group of four
        DecodeError::InvalidLength(_) | DecodeError::InvalidLastSymbol(..) => SeedError::Truncated,
    })?;
    Ok(Zeroizing::new(json))
}

fn looks_like_a_private_key(text: &str) -> bool {
    let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex || text.starts_with("nsec1") || text.starts_with("ncryptsec1")
}

/// The version in `v2:...`; `None` where the text could be anything, which is then not quoted.
fn version(rest: &str) -> Option<String> {
    let (version, _) = rest.split_once(':').unwrap_or((rest, ""));
    let digits = version.strip_prefix('v')?;
    let known_shape = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    known_shape.then(|| version.to_owned())
}
