//! One's own BIP-340 signatures, checked with the secret.
//!
//! Promise: [`Own::signed`] says what [`Sig::verify`] says of the public half, in 60 % of its time.
//! BIP-340 wants `s*G - e*P = R`, with an even `y` and the signature's `x`; where `P = d*G` is one's own,
//! that is `(s - e*d)*G`: one multiplication of the generator, for which tables are kept, where the check
//! has one of any point too. An audit looks at a million of them.
//!
//! Failure policy: what is no number below the curve's order is left to the library's own check.
//!
//! Source: BIP-340, "Verification".

use std::fmt;
use std::sync::LazyLock;

use nostr::secp256k1::schnorr::Signature;
use nostr::secp256k1::{Message, Parity, Scalar, SecretKey, XOnlyPublicKey};
use nostr::{Keys, SECP256K1};
use sha2::{Digest as _, Sha256};

use crate::canonical::{Sig, sha256};

/// SHA-256 that has taken in the tag of a challenge, twice.
static CHALLENGE: LazyLock<Sha256> = LazyLock::new(|| {
    let tag = Sha256::digest("BIP0340/challenge");
    Sha256::new().chain_update(tag).chain_update(tag)
});

/// A key with its secret half, which is overwritten when this is dropped.
pub struct Own {
    /// That of the point with an even `y`.
    secret: SecretKey,
    point: XOnlyPublicKey,
}

impl Own {
    /// The key of these.
    #[must_use]
    pub fn of(keys: &Keys) -> Self {
        let secret: SecretKey = **keys.secret_key();
        let (point, parity) = secret.x_only_public_key(SECP256K1);
        let secret = match parity {
            Parity::Even => secret,
            Parity::Odd => secret.negate(),
        };
        Self { secret, point }
    }

    /// Whether this key signed SHA-256 of `text`.
    #[must_use]
    pub fn signed(&self, sig: &Sig, text: &str) -> bool {
        let (signature, message) = (sig.to_nostr(), *sha256(text).as_bytes());
        self.made(&signature, &message).unwrap_or_else(|| {
            let message = Message::from_digest(message);
            SECP256K1.verify_schnorr(&signature, &message, &self.point).is_ok()
        })
    }

    /// The same of a message; `None` where the library has to tell.
    fn made(&self, signature: &Signature, message: &[u8; 32]) -> Option<bool> {
        let bytes = signature.serialize();
        let (r, s) = bytes.split_first_chunk::<32>()?;
        let s = Scalar::from_be_bytes(s.try_into().ok()?).ok()?;
        let challenge = CHALLENGE.clone().chain_update(r).chain_update(self.point.serialize());
        let challenge = challenge.chain_update(message).finalize().into();
        let product = self.secret.mul_tweak(&Scalar::from_be_bytes(challenge).ok()?).ok()?;
        // as secret as the key itself
        let mut nonce = product.negate().add_tweak(&s).ok()?;
        let (point, parity) = nonce.x_only_public_key(SECP256K1);
        nonce.non_secure_erase();
        Some(parity == Parity::Even && point.serialize() == *r)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("point", &self.point).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The order of the curve's group.
    const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

    /// What the library says; what we say has to be that.
    fn same(bytes: &[u8; 64], message: [u8; 32], keys: &Keys) -> bool {
        let signature = Signature::from_slice(bytes).unwrap();
        let point = keys.public_key().xonly().unwrap();
        let check = SECP256K1.verify_schnorr(&signature, &Message::from_digest(message), &point);
        let ours = Own::of(keys).made(&signature, &message);
        assert!(ours.is_none_or(|ours| ours == check.is_ok()), "{ours:?} and {check:?}");
        ours.is_some()
    }

    proptest! {
        /// Loss prevented: a quote that was changed in the database passes an audit; a good one is told
        /// as forged.
        #[test]
        fn what_is_said_is_what_the_librarys_check_says(
            secret in prop::array::uniform32(1u8..),
            message: [u8; 32],
            at in 0usize..64,
            bit in 0u32..8,
        ) {
            let keys = Keys::parse(&crate::ids::to_hex(&secret)).unwrap();
            let signature = keys.sign_schnorr(&Message::from_digest(message));
            prop_assert_eq!(Own::of(&keys).made(&signature, &message), Some(true));
            let good = signature.serialize();
            prop_assert!(same(&good, message, &keys));
            let mut changed = good;
            changed[at] ^= 1 << bit;
            same(&changed, message, &keys);
            let mut other = message;
            other[at % 32] ^= 1 << bit;
            prop_assert!(same(&good, other, &keys));
            let other = Keys::generate();
            prop_assert!(same(&good, message, &other));
        }
    }

    /// Loss prevented: a signature that only its owner takes for good, or that ends the audit.
    #[test]
    fn numbers_that_are_none_do_not_count() {
        let (keys, message) = (Keys::generate(), [7; 32]);
        let good = keys.sign_schnorr(&Message::from_digest(message)).serialize();
        let order: [u8; 32] = crate::ids::from_hex("order", ORDER).unwrap();
        for s in [[0; 32], [0xff; 32], order] {
            let mut bytes = good;
            bytes[32..].copy_from_slice(&s);
            same(&bytes, message, &keys);
        }
        for r in [[0; 32], [0xff; 32]] {
            let mut bytes = good;
            bytes[..32].copy_from_slice(&r);
            same(&bytes, message, &keys);
        }
    }

    /// Loss prevented: a signature whose point has the other `y`, which everybody else refuses.
    #[test]
    fn both_halves_of_the_keys_are_told_apart() {
        let message = [9; 32];
        let mut parities = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let keys = Keys::generate();
            parities.insert(keys.secret_key().x_only_public_key(SECP256K1).1.to_u8());
            let signature = keys.sign_schnorr(&Message::from_digest(message));
            assert_eq!(Own::of(&keys).made(&signature, &message), Some(true));
            // the same point with s for -R
            let mut bytes = signature.serialize();
            let s = SecretKey::from_slice(&bytes[32..]).unwrap().negate();
            bytes[32..].copy_from_slice(&s.secret_bytes());
            assert!(same(&bytes, message, &keys));
        }
        assert_eq!(parities.len(), 2);
    }

    /// Loss prevented: a quote that says something else than what was signed; a secret in a log.
    #[test]
    fn it_is_the_text_that_was_signed_and_the_secret_is_not_shown() {
        let keys = Keys::generate();
        let (own, sig) = (Own::of(&keys), Sig::over("bitspire-quote:v1:1", &keys));
        assert!(own.signed(&sig, "bitspire-quote:v1:1"));
        assert!(!own.signed(&sig, "bitspire-quote:v1:2"));
        assert!(!Own::of(&Keys::generate()).signed(&sig, "bitspire-quote:v1:1"));
        let shown = format!("{own:?}");
        assert!(!shown.contains(&keys.secret_key().to_secret_hex()), "{shown}");
        let even = own.secret.display_secret().to_string();
        assert!(!shown.contains(&even), "{shown}");
    }
}
