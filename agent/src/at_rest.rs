//! Every secret at rest on the machine: what lies where, how it is kept, what should not be there.
//!
//! Promise: every file of the two processes' folders, and of the runtime folder, is told; one that is
//! not known is told as such, never passed over. No secret is opened or repeated.
//!
//! Failure policy: a folder that cannot be listed is a finding, but for the other process's, which has
//! a user of its own, and one that is not there yet.

use std::path::Path;
use std::{fs, io};

use bitspire_shell::secrets::audit::{HANDED_OVER, Kept, OURS, Secret};
use serde::Serialize;

use crate::config::Config;
use crate::vault::LEAVE;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtRest {
    /// Each file.
    pub secrets: Vec<Secret>,
    /// What is wrong.
    pub findings: Vec<String>,
}

/// Lists every secret at rest.
#[must_use]
pub fn look(config: &Config) -> AtRest {
    let (mut secrets, mut findings) = (Vec::new(), Vec::new());
    let runtime = config.socket.parent().unwrap_or(Path::new("."));
    let folders = [config.vault.dir.as_path(), &config.net.dir, runtime];
    for folder in folders {
        if let Err(error) = list(folder, folder == runtime, &folders, &mut secrets)
            && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        {
            findings.push(format!("{}: cannot be listed: {error}", folder.display()));
        }
    }
    let named = [
        (&config.vault.machine_secret_file, "what the vault's keys are sealed with"),
        (&config.net.machine_secret_file, "what the network process's keys are sealed with"),
    ];
    for (path, what) in named {
        if let Some(path) = path {
            secrets.push(Secret::at(path, what.to_owned(), Kept::Clear, HANDED_OVER));
        }
    }
    findings.extend(secrets.iter().filter_map(|secret| {
        let finding = secret.finding.as_ref()?;
        Some(format!("{}: {finding}", secret.file.display()))
    }));
    AtRest { secrets, findings }
}

fn list(
    folder: &Path,
    runtime: bool,
    listed: &[&Path],
    secrets: &mut Vec<Secret>,
) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    // for a trial the folders may lie in each other
    paths.retain(|path| !listed.contains(&path.as_path()));
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let (what, kept) = if runtime { running(&name) } else { known(&name, path.is_dir()) };
        let foreign = if kept == Kept::None { 0 } else { OURS };
        let mut found = Secret::at(&path, what.to_owned(), kept, foreign);
        let odd = match name.as_str() {
            _ if kept == Kept::Unknown => Some("not a file of ours: see what it is, and remove it"),
            "machine-secret.next" => Some("a rotation was cut off: run `secrets rotate` again"),
            LEAVE => Some("the machine takes another pairing: remove it unless one is under way"),
            _ => None,
        };
        found.finding = odd.map(str::to_owned).or(found.finding);
        secrets.push(found);
    }
    Ok(())
}

/// What a file of the runtime folder holds.
fn running(name: &str) -> (&'static str, Kept) {
    match name {
        "kiosk.url" => ("the token of the machine's browser, anew at each start", Kept::Clear),
        "vault.sock" => ("the vault's socket", Kept::None),
        "vault.end" => ("why the vault has ended", Kept::None),
        _ => ("unknown", Kept::Unknown),
    }
}

/// What a file or folder of ours holds, by its name.
fn known(name: &str, folder: bool) -> (&'static str, Kept) {
    if folder {
        return match name {
            "faults" => ("devices' frames before each fault", Kept::None),
            _ => ("unknown", Kept::Unknown),
        };
    }
    let database = ["-wal", "-shm"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    match database {
        "machine-secret" => ("what the keys beside it are sealed with", Kept::Clear),
        "machine-secret.next" => ("what they are being sealed with", Kept::Clear),
        "vault.sealed" => ("the vault's key: what it states", Kept::Sealed),
        "service-pin.sealed" => ("the PIN of service mode, as an Argon2id hash", Kept::Sealed),
        "client-a.sealed" | "client-b.sealed" => {
            ("the client key of a pairing: NIP-46, NIP-42", Kept::Sealed)
        }
        "pairing.json" | "pairing-next.json" => {
            ("how the bunker is reached, without its secret", Kept::None)
        }
        "journal.db" => ("the journal: no claim code, invoice, LNURL, seed or key", Kept::None),
        "journal.db.lock" | "journal.db.mark" => ("whose the journal is, and its end", Kept::None),
        "journal.db.archive.jsonl" => ("the journal's older entries", Kept::None),
        LEAVE => ("leave to pair a machine that was paired before", Kept::None),
        _ => ("unknown", Kept::Unknown),
    }
}
