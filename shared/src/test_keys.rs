//! Fixed keys for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

use crate::ids::PubKey;

/// Derived once each: a property test asks thousands of times.
static KEYS: LazyLock<Mutex<BTreeMap<u8, (nostr::Keys, PubKey)>>> = LazyLock::new(Mutex::default);

/// The secret key of `n` repeated, for `n` from 1 to 254, and its public key.
pub(crate) fn keys(n: u8) -> (nostr::Keys, PubKey) {
    let make = || {
        let keys = nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
        let key = PubKey::new(keys.public_key()).unwrap();
        (keys, key)
    };
    KEYS.lock().unwrap().entry(n).or_insert_with(make).clone()
}

/// The public key alone.
pub(crate) fn key(n: u8) -> PubKey {
    keys(n).1
}
