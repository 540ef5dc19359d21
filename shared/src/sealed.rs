//! Secrets at rest.
//!
//! Promise: what [`MachineSecret::seal`] wrote opens with the same machine secret, for the same
//! purpose and the same record, and with nothing else. ChaCha20-Poly1305 (RFC 8439) under a key
//! that HKDF-SHA256 (RFC 5869) derives for each purpose; the whole head of the envelope and the
//! record's id are associated data, so that an envelope copied to another record does not open
//! there. The nonce is the caller's: 12 fresh random bytes for every sealing.
//!
//! The envelope is one line of text, fit for a file and for a column:
//! `bitspire-sealed:v1:<purpose>:<secret id>:<base64url(nonce, ciphertext, tag)>`. The secret id is
//! 8 bytes that HKDF derives from the machine secret: they tell a wrong secret from a damaged
//! envelope and say nothing about the secret.
//!
//! Failure policy: [`SealError`] says which of secret, purpose, record or bytes is wrong, as far as
//! that can be known; it never comes with a part of the plaintext.

use std::fmt;
use std::str::FromStr;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use hkdf::Hkdf;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::{Classified, Kind};
use crate::ids::to_hex;

/// What every envelope begins with.
const PREFIX: &str = "bitspire-sealed:v1:";
/// The same without the version.
const SCHEME: &str = "bitspire-sealed:";
/// HKDF's salt: keeps these keys apart from any other use of the same secret.
const SALT: &[u8] = b"bitspire-sealed:v1";
/// Bytes of a nonce (RFC 8439).
pub const NONCE_LEN: usize = 12;
/// Bytes of the tag at the end.
const TAG_LEN: usize = 16;

/// Why something is not sealed, or does not open.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// A machine secret of another length.
    #[error("machine secret: expected 32 bytes, got {got}")]
    SecretLength {
        /// Bytes that came.
        got: usize,
    },
    /// No envelope.
    #[error("sealed: expected {PREFIX}<purpose>:<secret id>:<base64url>, got something else")]
    Malformed,
    /// By a later version of the software.
    #[error("sealed: version {got} is not known here, expected v1: update the software")]
    Version {
        /// The version that the envelope names.
        got: String,
    },
    /// For another use.
    #[error("sealed: expected a record for {expected}, got one for {got}")]
    WrongPurpose {
        /// What it was opened as.
        expected: Purpose,
        /// What it was sealed as.
        got: Purpose,
    },
    /// With another machine secret.
    #[error(
        "sealed: made with machine secret {got}, opened with {expected}: the machine secret was \
         replaced, or this data comes from another machine; restore the secret or pair again"
    )]
    WrongSecret {
        /// Id of the secret at hand.
        expected: String,
        /// Id of the secret that it was sealed with.
        got: String,
    },
    /// Changed, or moved from another record.
    #[error("sealed: record {record} was altered, or belongs to another record")]
    NotAuthentic {
        /// The record that it was opened as.
        record: String,
    },
    /// HKDF gave no key; it refuses only lengths that are never asked for.
    #[error("sealed: HKDF did not derive a key")]
    Derivation,
    /// More than the cipher takes.
    #[error("sealed: {got} bytes are too many for one record")]
    TooLong {
        /// Bytes that came.
        got: usize,
    },
}

impl Classified for SealError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// What a sealed record is for. Each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The machine's key for NIP-46 and NIP-42.
    ClientKey,
    /// The key by which a vault states things.
    VaultKey,
    /// The operator service's key.
    ServiceKey,
    /// The key that administers a bunker.
    AdminKey,
    /// An operator's key held by the service, while it moves to a bunker.
    OperatorKey,
    /// A key that the embedded bunker signs with.
    BunkerKey,
    /// What opens a Lightning wallet.
    WalletCredential,
    /// The hash of the PIN that opens a machine's service mode.
    ServicePin,
}

impl Purpose {
    const ALL: [Self; 8] = [
        Self::ClientKey,
        Self::VaultKey,
        Self::ServiceKey,
        Self::AdminKey,
        Self::OperatorKey,
        Self::BunkerKey,
        Self::WalletCredential,
        Self::ServicePin,
    ];

    /// The name in the envelope.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientKey => "client-key",
            Self::VaultKey => "vault-key",
            Self::ServiceKey => "service-key",
            Self::AdminKey => "admin-key",
            Self::OperatorKey => "operator-key",
            Self::BunkerKey => "bunker-key",
            Self::WalletCredential => "wallet-credential",
            Self::ServicePin => "service-pin",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or(SealError::Malformed)
    }
}

/// The secret that everything else at rest hangs on: 32 random bytes that the service manager
/// hands over as a credential. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct MachineSecret {
    secret: Zeroizing<[u8; 32]>,
    id: String,
}

impl MachineSecret {
    /// Takes the content of the credential.
    ///
    /// # Errors
    /// [`SealError::SecretLength`].
    pub fn from_slice(bytes: &[u8]) -> Result<Self, SealError> {
        let wrong = |_| SealError::SecretLength { got: bytes.len() };
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.try_into().map_err(wrong)?);
        let id = to_hex(derive::<8>(secret.as_slice(), "secret-id")?.as_slice());
        Ok(Self { secret, id })
    }

    /// Seals `plaintext` as `purpose` under the id of its record.
    ///
    /// `nonce` is 12 fresh random bytes: two plaintexts under one nonce give each other away.
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond the cipher's 256 GiB.
    pub fn seal(
        &self,
        purpose: Purpose,
        record: &str,
        nonce: [u8; NONCE_LEN],
        plaintext: &[u8],
    ) -> Result<Sealed, SealError> {
        let mut text = head(purpose, &self.id);
        let aad = format!("{text}{record}");
        let payload = Payload { msg: plaintext, aad: aad.as_bytes() };
        let ciphertext = self
            .cipher(purpose)?
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| SealError::TooLong { got: plaintext.len() })?;
        URL_SAFE_NO_PAD.encode_string([nonce.as_slice(), &ciphertext].concat(), &mut text);
        Ok(Sealed { text, purpose })
    }

    /// Opens what was sealed as `purpose` under the id of this record.
    ///
    /// # Errors
    /// The first [`SealError`] that applies: purpose, secret, then the bytes and the record.
    pub fn open(
        &self,
        purpose: Purpose,
        record: &str,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let parts = Parts::of(&sealed.text)?;
        if parts.purpose != purpose {
            return Err(SealError::WrongPurpose { expected: purpose, got: parts.purpose });
        }
        if parts.secret_id != self.id {
            let (expected, got) = (self.id.clone(), parts.secret_id.to_owned());
            return Err(SealError::WrongSecret { expected, got });
        }
        let aad = format!("{}{record}", head(purpose, &self.id));
        let payload = Payload { msg: &parts.ciphertext, aad: aad.as_bytes() };
        self.cipher(purpose)?
            .decrypt(Nonce::from_slice(&parts.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError::NotAuthentic { record: record.to_owned() })
    }

    /// Names this secret in envelopes and messages without giving any of it away: 16 hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn cipher(&self, purpose: Purpose) -> Result<ChaCha20Poly1305, SealError> {
        let key = derive::<32>(self.secret.as_slice(), &format!("key:{purpose}"))?;
        Ok(ChaCha20Poly1305::new(key.as_slice().into()))
    }
}

fn derive<const N: usize>(secret: &[u8], info: &str) -> Result<Zeroizing<[u8; N]>, SealError> {
    let mut out = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(SALT), secret)
        .expand(info.as_bytes(), out.as_mut_slice())
        .map_err(|_| SealError::Derivation)?;
    Ok(out)
}

impl fmt::Debug for MachineSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineSecret(redacted)")
    }
}

/// An envelope: `Display` and `FromStr` are its text. Without the machine secret it is worthless,
/// and still nobody's business: `Debug` shows only what it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    text: String,
    purpose: Purpose,
}

impl Sealed {
    /// What it says that it is for; only opening it proves that.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }
}

impl FromStr for Sealed {
    type Err = SealError;
    fn from_str(text: &str) -> Result<Self, SealError> {
        let purpose = Parts::of(text)?.purpose;
        Ok(Self { text: text.to_owned(), purpose })
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.purpose)
    }
}

/// What stands before the bytes; no field can hold a colon, so no two heads are one text.
fn head(purpose: Purpose, secret_id: &str) -> String {
    format!("{PREFIX}{purpose}:{secret_id}:")
}

/// An envelope taken apart.
struct Parts<'a> {
    purpose: Purpose,
    secret_id: &'a str,
    nonce: [u8; NONCE_LEN],
    ciphertext: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, SealError> {
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix(SCHEME).and_then(|rest| rest.split(':').next());
            return Err(match version.filter(|v| v.starts_with('v') && v.len() <= 5) {
                Some(got) => SealError::Version { got: got.to_owned() },
                None => SealError::Malformed,
            });
        };
        let mut fields = rest.split(':');
        let (Some(purpose), Some(secret_id), Some(bytes), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(SealError::Malformed);
        };
        if secret_id.len() != 16 || !secret_id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(SealError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(bytes).map_err(|_| SealError::Malformed)?;
        let (nonce, ciphertext) =
            bytes.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Malformed)?;
        if ciphertext.len() < TAG_LEN {
            return Err(SealError::Malformed);
        }
        let (nonce, ciphertext) = (*nonce, ciphertext.to_vec());
        Ok(Self { purpose: purpose.parse()?, secret_id, nonce, ciphertext })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: [u8; NONCE_LEN] = [9; NONCE_LEN];

    fn machine(n: u8) -> MachineSecret {
        MachineSecret::from_slice(&[n; 32]).unwrap()
    }

    fn sealed(plaintext: &[u8]) -> Sealed {
        machine(1).seal(Purpose::ClientKey, "client", NONCE, plaintext).unwrap()
    }

    /// Loss prevented: an update that cannot read what the version before it wrote loses the
    /// vault's key, and with it every claim that it signed.
    #[test]
    fn the_envelope_of_version_1_stays_readable() {
        let text = "bitspire-sealed:v1:client-key:183699ca4b48c627:CQkJCQkJCQkJCQkJpUKjS0qIC3URi2NIF0pOSLok-j7Hkw";
        assert_eq!(sealed(b"secret").to_string(), text);
        let opened = machine(1).open(Purpose::ClientKey, "client", &text.parse().unwrap()).unwrap();
        assert_eq!(opened.as_slice(), b"secret");
    }

    /// Loss prevented: a technician who restores the wrong credential is told that the data is
    /// damaged, and throws the machine's keys away.
    #[test]
    fn each_wrong_thing_is_named() {
        let envelope = sealed(b"secret");
        let (expected, got) = (machine(2).id().to_owned(), machine(1).id().to_owned());
        assert_eq!(
            machine(2).open(Purpose::ClientKey, "client", &envelope),
            Err(SealError::WrongSecret { expected, got })
        );
        let (expected, got) = (Purpose::VaultKey, Purpose::ClientKey);
        assert_eq!(
            machine(1).open(Purpose::VaultKey, "client", &envelope),
            Err(SealError::WrongPurpose { expected, got })
        );
        assert_eq!(
            machine(1).open(Purpose::ClientKey, "other", &envelope),
            Err(SealError::NotAuthentic { record: "other".into() })
        );
        assert_eq!(
            MachineSecret::from_slice(&[1; 31]).unwrap_err(),
            SealError::SecretLength { got: 31 }
        );
        for (text, expected) in [
            ("", SealError::Malformed),
            ("bitspire-sealed:", SealError::Malformed),
            ("bitspire-sealed:v2:x", SealError::Version { got: "v2".into() }),
            ("bitspire-sealed:v1:client-key:0011223344556677:AAAA", SealError::Malformed),
            ("bitspire-sealed:v1:client-key:0011223344556677", SealError::Malformed),
            ("bitspire-sealed:v1:no-such:0011223344556677:AAAA", SealError::Malformed),
        ] {
            assert_eq!(text.parse::<Sealed>(), Err(expected), "{text}");
        }
    }

    /// Loss prevented: an envelope that says it is for another purpose, so that one key is used
    /// as another.
    #[test]
    fn a_renamed_purpose_does_not_open() {
        let text = sealed(b"secret").to_string().replace("client-key", "vault-key");
        assert_eq!(
            machine(1).open(Purpose::VaultKey, "client", &text.parse().unwrap()),
            Err(SealError::NotAuthentic { record: "client".into() })
        );
    }

    /// Loss prevented: two purposes under one name open each other's records.
    #[test]
    fn every_purpose_has_its_own_name_and_key() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse::<Purpose>(), Ok(purpose));
            let one = machine(1).seal(purpose, "r", NONCE, b"same").unwrap().to_string();
            let tail = one.rsplit(':').next().unwrap().to_owned();
            for other in Purpose::ALL.into_iter().filter(|other| *other != purpose) {
                let two = machine(1).seal(other, "r", NONCE, b"same").unwrap().to_string();
                assert!(!two.ends_with(&tail), "{purpose} {other}");
            }
        }
    }

    /// Loss prevented: a private key in a log.
    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?} {:?}", machine(0xab), sealed(b"secret"));
        assert_eq!(shown, "MachineSecret(redacted) Sealed(client-key)");
    }

    proptest! {
        /// Loss prevented: a key that goes in and does not come out.
        #[test]
        fn what_is_sealed_opens(
            secret: [u8; 32], nonce: [u8; 12], plaintext: Vec<u8>, record in "\\PC{0,40}",
            purpose in proptest::sample::select(&Purpose::ALL[..]),
        ) {
            let secret = MachineSecret::from_slice(&secret).unwrap();
            let text = secret.seal(purpose, &record, nonce, &plaintext).unwrap().to_string();
            let opened = secret.open(purpose, &record, &text.parse().unwrap()).unwrap();
            prop_assert_eq!(opened.as_slice(), plaintext.as_slice());
        }

        /// Loss prevented: one changed byte that goes unseen is another key.
        #[test]
        fn any_changed_character_is_refused(
            plaintext: Vec<u8>, at: proptest::sample::Index, by in 0usize..64,
        ) {
            const ALPHABET: &[u8; 64] =
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut text = sealed(&plaintext).to_string().into_bytes();
            let at = at.index(text.len());
            prop_assume!(text[at] != ALPHABET[by]);
            text[at] = ALPHABET[by];
            let text = String::from_utf8(text).unwrap();
            let opened = text
                .parse()
                .and_then(|envelope| machine(1).open(Purpose::ClientKey, "client", &envelope));
            prop_assert!(opened.is_err());
        }

        /// Loss prevented: a crash at boot by a file that was cut or overwritten.
        #[test]
        fn no_text_panics(tail in "\\PC{0,80}", cut: proptest::sample::Index) {
            prop_assert!(tail.parse::<Sealed>().is_err());
            let _ = format!("{PREFIX}client-key:0011223344556677:{tail}").parse::<Sealed>();
            let whole = sealed(b"secret").to_string();
            let cut = &whole[..cut.index(whole.len())];
            let opened = cut
                .parse()
                .and_then(|envelope| machine(1).open(Purpose::ClientKey, "client", &envelope));
            prop_assert!(opened.is_err());
        }
    }
}
