//! What `net` keeps on the disk: how the bunker is reached, never the secret that opened it.
//!
//! Promise: the pairing in force is one file, replaced as a whole; a new pairing lies beside it
//! under a client key of its own until the vault has pinned it, so that a failure half-way leaves
//! the old one working, and a seed that was redeemed just before a crash can be used again by the
//! same key. The stored bunker address has no secret: its type cannot hold one.
//!
//! Failure policy: a file that does not read is a refused start that names it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::Purpose;
use bitspire_shared::seed::BunkerUri;
use bitspire_shell::secrets::{Keyring, SecretError, write_private};
use nostr::{Keys, RelayUrl};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ipc::NetPins;

/// The pairing in force.
const CURRENT: &str = "pairing.json";
/// One that the bunker has taken and the vault has not yet pinned.
const NEXT: &str = "pairing-next.json";
/// The two client keys: one in force, the other for the next pairing.
const SLOTS: [&str; 2] = ["client-a", "client-b"];

/// Why the pairing cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The client key or its secret.
    #[error("the client key")]
    Secret(#[from] SecretError),
    /// The file system refused.
    #[error("{path}: cannot be read or removed")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Not the JSON that it should be.
    #[error("{path}: expected a stored pairing; remove the file and pair again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The pairing names a key that is not there.
    #[error("{path}: the client key {key} is gone; remove the file and pair again")]
    NoKey {
        /// Which file.
        path: PathBuf,
        /// The name of the sealed key.
        key: String,
    },
}

impl Classified for StoreError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// How a paired machine reaches its bunker and its service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pairing {
    /// The bunker.
    pub(super) bunker: BunkerUri,
    /// The service's relays.
    pub(super) relays: Vec<RelayUrl>,
    /// The keys that are trusted.
    pub(super) pins: NetPins,
    /// The name of the sealed client key.
    client_key: String,
}

impl Pairing {
    /// All relays, the bunker's first, each once.
    pub(super) fn all_relays(&self) -> Vec<String> {
        all_relays(&self.bunker, &self.relays)
    }
}

/// The relays of bunker and service, each once.
pub(super) fn all_relays(bunker: &BunkerUri, relays: &[RelayUrl]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for relay in bunker.relays().iter().chain(relays) {
        let relay = relay.to_string();
        if !all.contains(&relay) {
            all.push(relay);
        }
    }
    all
}

/// The folder of `net`.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
    ring: Keyring,
}

impl Store {
    pub(super) fn open(folder: &Path, credential: Option<&Path>) -> Result<Self, StoreError> {
        Ok(Self { folder: folder.to_owned(), ring: Keyring::open(folder, credential)? })
    }

    /// The pairing in force and its client key.
    pub(super) fn current(&self) -> Result<Option<(Pairing, Keys)>, StoreError> {
        self.load(CURRENT)
    }

    /// The client key for a pairing with these parties: the one that the bunker may know already
    /// from a try that the vault did not learn of, or a fresh one that replaces none in use.
    pub(super) fn prepare(
        &self,
        bunker: BunkerUri,
        relays: Vec<RelayUrl>,
        pins: NetPins,
    ) -> Result<(Pairing, Keys), StoreError> {
        if let Some((next, keys)) = self.load(NEXT)?
            && next.bunker.signer() == bunker.signer()
            && next.pins == pins
        {
            // the key of before, by the relays of now
            let pairing = Pairing { bunker, relays, pins, client_key: next.client_key };
            self.write(NEXT, &pairing)?;
            return Ok((pairing, keys));
        }
        let used = self.current()?.map(|(pairing, _)| pairing.client_key);
        let free = SLOTS.into_iter().find(|slot| used.as_deref() != Some(*slot));
        let client_key = free.unwrap_or(SLOTS[0]).to_owned();
        let pairing = Pairing { bunker, relays, pins, client_key };
        // before the secret is shown to anybody: a crash from here on finds the same key again
        self.remove(NEXT)?;
        let keys = self.ring.make(&pairing.client_key, Purpose::ClientKey)?;
        self.write(NEXT, &pairing)?;
        Ok((pairing, keys))
    }

    /// The bunker will not have the next pairing: nothing of it stays.
    pub(super) fn give_up(&self) -> Result<(), StoreError> {
        if let Some((next, _)) = self.load(NEXT)? {
            self.remove(NEXT)?;
            self.ring.forget(&next.client_key)?;
        }
        Ok(())
    }

    /// The vault has pinned `pins`: the next pairing is now the one in force, if it is theirs.
    pub(super) fn promote(&self, pins: &NetPins) -> Result<Option<(Pairing, Keys)>, StoreError> {
        if let Some((next, _)) = self.load(NEXT)?
            && next.pins == *pins
        {
            self.write(CURRENT, &next)?;
            self.remove(NEXT)?;
        }
        let Some((pairing, keys)) = self.current()? else { return Ok(None) };
        if pairing.pins == *pins {
            return Ok(Some((pairing, keys)));
        }
        if pairing.pins.spire != pins.spire {
            return Ok(None);
        }
        // the operator has moved the machine to other keys: the vault has checked that
        let pairing = Pairing { pins: *pins, ..pairing };
        self.write(CURRENT, &pairing)?;
        Ok(Some((pairing, keys)))
    }

    fn load(&self, name: &str) -> Result<Option<(Pairing, Keys)>, StoreError> {
        let path = self.folder.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { path, source }),
        };
        let pairing: Pairing = serde_json::from_str(&text)
            .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
        match self.ring.load(&pairing.client_key, Purpose::ClientKey)? {
            Some(keys) => Ok(Some((pairing, keys))),
            None => Err(StoreError::NoKey { path, key: pairing.client_key }),
        }
    }

    fn write(&self, name: &str, pairing: &Pairing) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        let json = serde_json::to_vec_pretty(pairing)
            .map_err(|source| StoreError::Damaged { path: path.clone(), source })?;
        Ok(write_private(&path, &json)?)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// The public key of `keys`, which lies on the curve by being one.
pub(super) fn public(keys: &Keys) -> Result<PubKey, bitspire_shared::ids::IdError> {
    PubKey::new(keys.public_key())
}
