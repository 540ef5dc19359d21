//! Every secret at rest: what lies where, how it is kept, and which of it should not be there.
//!
//! Promise: every file of the service's own folder, and of the bunker's where this process may look
//! into it, is told; one that is not known is told as such, never passed over. No secret is opened or
//! repeated. An operator that owns machines and whose key this service holds is a finding, as is a
//! secret that others may read.
//!
//! Failure policy: a folder that cannot be listed is a finding, not an empty one; but for the bunker's,
//! which has a user of its own and is its own to keep.

use std::fs;
use std::io;
use std::path::Path;

use bitspire_shell::privacy;
use bitspire_shell::secrets::audit::{HANDED_OVER, Kept, OURS, Secret};
use serde::Serialize;

use crate::app::App;
use crate::config::{Config, Wallet};
use crate::store::operators::{self, SignerKind};
use crate::store::{Read, StoreError, machines};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Secrets {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Each file.
    pub secrets: Vec<Secret>,
    /// What is wrong.
    pub findings: Vec<String>,
}

/// Lists every secret at rest.
///
/// # Errors
/// [`StoreError`].
pub async fn keys(app: &App) -> Result<Secrets, StoreError> {
    let (local, owning) = app.store.read(held_here).await?;
    let config = app.config.clone();
    let looked = tokio::task::spawn_blocking(move || look(&config, &local)).await;
    let (secrets, mut findings) = looked.unwrap_or_else(|error| {
        (vec![], vec![format!("the files were not looked at: {}", privacy::ended(&error))])
    });
    findings.extend(secrets.iter().filter_map(|secret| {
        let finding = secret.finding.as_ref()?;
        Some(format!("{}: {finding}", secret.file.display()))
    }));
    findings.extend(owning.into_iter().map(|name| {
        format!(
            "operator {name} owns machines, and its private key is in this service: run `account \
             migrate-to-bunker`"
        )
    }));
    Ok(Secrets { ok: findings.is_empty(), secrets, findings })
}

/// Names of files with the keys of operators that this service holds, and those operators who own
/// machines.
fn held_here(read: &Read<'_>) -> Result<(Vec<String>, Vec<String>), StoreError> {
    let (mut files, mut owning) = (Vec::new(), Vec::new());
    let machines = machines::list(read, None)?;
    for operator in operators::list(read)? {
        if operator.signer != Some(SignerKind::Local) {
            continue;
        }
        files.push(format!("operator-{}.sealed", operator.id));
        if machines.iter().any(|machine| machine.operator_id == operator.id) {
            owning.push(format!("{} ({})", operator.id, operator.name));
        }
    }
    Ok((files, owning))
}

fn look(config: &Config, local: &[String]) -> (Vec<Secret>, Vec<String>) {
    let (mut secrets, mut findings) = (Vec::new(), Vec::new());
    if let Err(error) = list(&config.data_dir, local, &mut secrets) {
        findings.push(format!("{}: cannot be listed: {error}", config.data_dir.display()));
    }
    match list(&config.bunker_data_dir, &[], &mut secrets) {
        // not there, or its own user's
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) => {}
        Err(error) => {
            findings
                .push(format!("{}: cannot be listed: {error}", config.bunker_data_dir.display()));
        }
        Ok(()) => {}
    }
    let named = [
        (&config.machine_secret_file, "what the service's keys are sealed with"),
        (&config.bunker_machine_secret_file, "what the bunker's keys are sealed with"),
        (&config.bunker_passphrase_file, "the passphrase of the bunker's keys"),
    ];
    for (path, what) in named {
        if let Some(path) = path {
            secrets.push(Secret::at(path, what.to_owned(), Kept::Clear, HANDED_OVER));
        }
    }
    for (id, wallet) in &config.wallets {
        let files = match wallet {
            Wallet::Simulated { .. } => vec![],
            Wallet::Lnbits { key_file, invoice_key_file, .. } => {
                [Some(key_file), invoice_key_file.as_ref()].into_iter().flatten().collect()
            }
            Wallet::Lnd { key_file, .. }
            | Wallet::Phoenixd { key_file, .. }
            | Wallet::Nwc { key_file, .. } => vec![key_file],
        };
        for path in files {
            secrets.push(Secret::at(
                path,
                format!("what opens wallet {id}"),
                Kept::Clear,
                HANDED_OVER,
            ));
        }
    }
    secrets.sort_by(|one, other| one.file.cmp(&other.file));
    secrets.dedup_by(|one, other| one.file == other.file);
    (secrets, findings)
}

fn list(folder: &Path, local: &[String], secrets: &mut Vec<Secret>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let (what, kept) = known(&name, local);
        let foreign = if kept == Kept::None { 0 } else { OURS };
        let mut found = Secret::at(&path, what, kept, foreign);
        if kept == Kept::Unknown {
            found.finding = Some("not a file of ours: see what it is, and remove it".into());
        } else if name == "machine-secret.next" {
            found.finding = Some("a rotation was cut off: run `secrets rotate` again".into());
        } else if name.starts_with("operator-")
            && name.ends_with(".sealed")
            && !local.contains(&name)
        {
            found.finding = Some(
                "an operator's private key that is in nobody's use: remove it, or restart the \
                 service, which does"
                    .into(),
            );
        }
        secrets.push(found);
    }
    Ok(())
}

/// What a file of ours holds, by its name.
fn known(name: &str, local: &[String]) -> (String, Kept) {
    let (stem, sealed) = match name.strip_suffix(".sealed") {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    if sealed {
        let what = match stem {
            "service" => "the service's key: RPC, quotes, leave to dispense".to_owned(),
            "admin" => "the key that administers the bunker".to_owned(),
            "bunker-transport" => "the bunker's own key, to relays and administrators".to_owned(),
            _ if local.iter().any(|file| file == name) => {
                "an operator's private key, until it moves to the bunker".to_owned()
            }
            _ => match stem.strip_prefix("signer-") {
                Some(key) => format!("the service's client key for {key} in the bunker"),
                None => format!("a key called {stem}"),
            },
        };
        return (what, Kept::Sealed);
    }
    if name.ends_with(".lock") {
        return ("shut by whoever has the database open".to_owned(), Kept::None);
    }
    let database = ["-wal", "-shm"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(stem);
    let (what, kept) = match database {
        "machine-secret" => ("what the keys beside it are sealed with", Kept::Clear),
        "machine-secret.next" => ("what they are being sealed with", Kept::Clear),
        "api.cookie" => ("the token of the command line, anew at each start", Kept::Clear),
        "operator.db" => ("the books; links of open payouts; tokens as hashes", Kept::Clear),
        "relay.db" => ("documents as ciphertext", Kept::None),
        "bunker.db" => {
            ("every machine's and operator's key, sealed; tokens as hashes", Kept::Sealed)
        }
        "simulated-node.json" => ("the simulated node's books: no real money", Kept::None),
        "bunker-id" => ("the bunker's public key", Kept::None),
        "operator.toml" => ("the configuration, which names secrets by path", Kept::None),
        _ => ("unknown", Kept::Unknown),
    };
    (what.to_owned(), kept)
}
