//! Points on the curve that were found before.
//!
//! Promise: a key's point is what the curve says; to find it again is an eighth of what a signature's
//! check costs, and a machine's row has three keys, is read for each of its requests, and each of those
//! is signed by one of them. So what was found is remembered, in bounded memory: a function of the key
//! alone, whoever asks.
//!
//! Failure policy: a key that is no point is remembered nowhere.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use nostr::PublicKey;
use nostr::secp256k1::XOnlyPublicKey;

use crate::ids::IdError;

/// How many: those of ten thousand machines with their vaults, clients and sessions, 13 MB.
const MOST: usize = 65_536;

static POINTS: LazyLock<RwLock<HashMap<[u8; 32], XOnlyPublicKey>>> = LazyLock::new(RwLock::default);

/// The point of a key.
///
/// # Errors
/// [`IdError::NotOnCurve`].
pub(crate) fn of(key: &PublicKey) -> Result<XOnlyPublicKey, IdError> {
    if let Some(known) = POINTS.read().unwrap_or_else(PoisonError::into_inner).get(key.as_bytes()) {
        return Ok(*known);
    }
    let point = key.xonly().map_err(|_| IdError::NotOnCurve)?;
    let mut points = POINTS.write().unwrap_or_else(PoisonError::into_inner);
    if points.len() >= MOST {
        points.clear();
    }
    points.insert(key.to_bytes(), point);
    Ok(point)
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    /// Loss prevented: a key that is taken for another, or for one, because it was asked for before; the
    /// memory of a service that runs for years.
    #[test]
    fn what_is_remembered_is_what_the_curve_says() {
        let keys: Vec<_> = (0..9).map(|_| Keys::generate().public_key()).collect();
        for key in keys.iter().chain(&keys) {
            assert_eq!(of(key).ok(), key.xonly().ok());
        }
        let none = PublicKey::from_byte_array([0xff; 32]);
        assert_eq!((of(&none), of(&none)), (Err(IdError::NotOnCurve), Err(IdError::NotOnCurve)));
        assert!(POINTS.read().unwrap().len() <= MOST);
    }
}
