//! Fixed keys for the tests of this crate.

use crate::ids::PubKey;

/// The secret key of `n` repeated, for `n` from 1 to 254, and its public key.
pub(crate) fn keys(n: u8) -> (nostr::Keys, PubKey) {
    let keys = nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
    let key = PubKey::new(keys.public_key()).unwrap();
    (keys, key)
}

/// The public key alone.
pub(crate) fn key(n: u8) -> PubKey {
    keys(n).1
}
