//! The private keys of a world, opened with the secrets beside them: known, so that a test can show
//! that they are nowhere else, and can act as a part that has gone bad.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::{MachineSecret, Purpose, Sealed};
use bitspire_shell::secrets::Keyring;
use nostr::{Keys, SecretKey};

use crate::books::sealed_keys;

/// Keys that lie in files of their own: folder, name, what for.
const FILES: [(&str, &str, Purpose); 6] = [
    ("machine/net", "client-a", Purpose::ClientKey),
    ("machine/vault", "vault", Purpose::VaultKey),
    ("operator", "service", Purpose::ServiceKey),
    ("operator", "admin", Purpose::AdminKey),
    ("operator", "signer-operator-1", Purpose::ClientKey),
    ("bunker", "bunker-transport", Purpose::BunkerKey),
];

/// The operator's key in the bunker.
pub const OPERATOR: &str = "operator-1";
/// The machine's key in the bunker.
pub const SPIRE: &str = "spire-1";
/// The service's key in the operator's folder.
pub const SERVICE: &str = "service";

/// Every private key of the world in `folder`, by name.
///
/// # Errors
/// When one is not there or does not open.
pub fn all(folder: &Path) -> Result<BTreeMap<String, Keys>> {
    let mut keys = held_by_bunker(folder)?;
    for (place, name, purpose) in FILES {
        let ring = Keyring::open(&folder.join(place), None)?;
        let opened = ring.load(name, purpose)?;
        keys.insert(name.to_owned(), opened.with_context(|| format!("{place}: no {name}"))?);
    }
    Ok(keys)
}

fn held_by_bunker(folder: &Path) -> Result<BTreeMap<String, Keys>> {
    let secret = MachineSecret::from_slice(&fs::read(folder.join("bunker/machine-secret"))?)?;
    let mut keys = BTreeMap::new();
    for (name, pubkey, sealed) in sealed_keys(folder)? {
        let sealed: Sealed = sealed.parse()?;
        let plain = secret.open(Purpose::BunkerKey, &format!("keys/{name}"), &sealed)?;
        let opened = Keys::new(SecretKey::from_slice(&plain)?);
        if PubKey::new(opened.public_key())?.to_string() != pubkey {
            bail!("{name}: another key is inside than {pubkey}");
        }
        keys.insert(name, opened);
    }
    Ok(keys)
}
