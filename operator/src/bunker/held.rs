//! The keys that are held, and who is known to them: what is asked before any signature is checked.
//!
//! Promise: answers from memory. A key whose envelope does not open is not in here, so nothing is
//! subscribed to for it and nobody gets an answer in its name: it is locked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::{MachineSecret, NONCE_LEN, Purpose, SealError, Sealed};
use bitspire_shell::secrets::{SecretError, random};
use nostr::{Keys, SecretKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::limits::Asker;
use crate::ids::BunkerKeyId;
use crate::store::Kept;
use crate::store::bunker::Key;

/// Subscriptions over which the keys are spread, since a relay that refuses one key closes the
/// subscription that names it. Below the 32 that relays commonly allow.
const SHARDS: i64 = 24;

/// A key as its envelope was opened.
#[derive(Debug)]
pub(super) struct HeldKey {
    pub(super) id: BunkerKeyId,
    pub(super) pubkey: PubKey,
    pub(super) keys: Keys,
}

/// Why an envelope gives no key.
#[derive(Debug, Error)]
pub(super) enum Locked {
    #[error("the envelope does not open")]
    Seal(#[from] SealError),
    #[error("expected the private key of {expected} inside")]
    NotThisKey { expected: PubKey },
    #[error("the envelope cannot be sealed")]
    Random(#[from] SecretError),
}

/// Everything that is known in memory.
#[derive(Debug)]
pub(super) struct Held {
    keys: HashMap<[u8; 32], Arc<HeldKey>>,
    /// By key and client.
    clients: HashMap<([u8; 32], [u8; 32]), Asker>,
    admins: HashSet<[u8; 32]>,
}

impl Held {
    pub(super) fn open(
        secret: &MachineSecret,
        rows: Vec<Kept<BunkerKeyId, Key>>,
        clients: &[(PubKey, PubKey, String)],
        admins: &[PubKey],
    ) -> Self {
        let mut keys = HashMap::new();
        for row in rows {
            match unseal(secret, &row) {
                Ok(opened) => {
                    let held = HeldKey { id: row.id, pubkey: row.pubkey, keys: opened };
                    keys.insert(row.pubkey.to_bytes(), Arc::new(held));
                }
                Err(error) => tracing::error!(
                    event = "bunker_key_locked", key = row.name, %error,
                    "no request for this key is answered"
                ),
            }
        }
        let clients = clients.iter().map(|(key, client, policy)| {
            ((key.to_bytes(), client.to_bytes()), Asker::under(policy))
        });
        let admins = admins.iter().map(|admin| admin.to_bytes());
        Self { keys, clients: clients.collect(), admins: admins.collect() }
    }

    pub(super) fn key(&self, pubkey: &[u8; 32]) -> Option<Arc<HeldKey>> {
        self.keys.get(pubkey).cloned()
    }

    pub(super) fn holds(&self, pubkey: &[u8; 32]) -> bool {
        self.keys.contains_key(pubkey)
    }

    /// Who this client of a key is, where it was ever let in.
    pub(super) fn asker(&self, key: &[u8; 32], client: &[u8; 32]) -> Option<Asker> {
        self.clients.get(&(*key, *client)).copied()
    }

    pub(super) fn is_admin(&self, key: &[u8; 32]) -> bool {
        self.admins.contains(key)
    }

    pub(super) fn add_client(&mut self, key: PubKey, client: PubKey, asker: Asker) {
        self.clients.insert((key.to_bytes(), client.to_bytes()), asker);
    }

    /// Takes a new key; the number of its subscription.
    pub(super) fn add_key(&mut self, key: HeldKey) -> i64 {
        let shard = shard(key.id);
        self.keys.insert(key.pubkey.to_bytes(), Arc::new(key));
        shard
    }

    /// The keys by subscription.
    pub(super) fn shards(&self) -> BTreeMap<i64, Vec<PubKey>> {
        let mut shards: BTreeMap<i64, Vec<PubKey>> = BTreeMap::new();
        for key in self.keys.values() {
            shards.entry(shard(key.id)).or_default().push(key.pubkey);
        }
        shards
    }
}

const fn shard(id: BunkerKeyId) -> i64 {
    id.0.rem_euclid(SHARDS)
}

/// A key is sealed under its name, in a space apart from the files of the keyring.
pub(super) fn record(name: &str) -> String {
    format!("keys/{name}")
}

/// The envelope of a key that is to be called `name`.
pub(super) fn seal(secret: &MachineSecret, name: &str, keys: &Keys) -> Result<Sealed, Locked> {
    let plain = Zeroizing::new(keys.secret_key().to_secret_bytes());
    let nonce = random::<NONCE_LEN>()?;
    Ok(secret.seal(Purpose::BunkerKey, &record(name), nonce, plain.as_slice())?)
}

pub(super) fn unseal(secret: &MachineSecret, row: &Key) -> Result<Keys, Locked> {
    let sealed: Sealed = row.sealed.parse()?;
    let plain = secret.open(Purpose::BunkerKey, &record(&row.name), &sealed)?;
    let keys = SecretKey::from_slice(&plain).ok().map(Keys::new);
    // what is inside must not sign under another key's name
    let same = keys.filter(|keys| keys.public_key() == row.pubkey.nostr());
    same.ok_or(Locked::NotThisKey { expected: row.pubkey })
}
