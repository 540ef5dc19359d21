//! What a device said before a fault: a file each, beside the journal.
//!
//! Promise: a file holds the last frames of one device, with the journal's position and the
//! transaction at that moment; its name begins with the position, so that whoever looks into a
//! transaction finds it. At most [`KEPT`] files stay, the oldest go first.
//!
//! Failure policy: traces are evidence and no record: one that cannot be written is named in the
//! log, and the machine goes on.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use bitspire_shared::ids::{JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{SecretError, write_private};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Files that stay.
pub const KEPT: usize = 64;
/// Faults of one device that are kept apart while the journal stands still; the last one is
/// written over.
const AT_ONE_POSITION: usize = 4;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `acceptor` or `dispenser`.
    pub device: String,
    /// Where the journal stood.
    pub seq: JournalSeq,
    /// When, by the vault's trusted time.
    pub at: Unix,
    /// The transaction that the device worked for.
    pub txid: Option<TxnId>,
    /// The device's words.
    pub fault: String,
    /// The last frames, oldest first: time on the device's own clock, direction, hex, words.
    pub frames: Vec<String>,
}

/// Why a trace was not written.
#[derive(Debug, Error)]
pub enum FaultError {
    /// The folder.
    #[error("the folder of the traces cannot be used")]
    Folder(#[from] io::Error),
    /// The file.
    #[error("the trace cannot be written")]
    File(#[from] SecretError),
    /// It has no JSON form.
    #[error("the trace cannot be written as JSON")]
    Encode(#[from] serde_json::Error),
}

/// Writes a fault into `folder`, durably.
///
/// # Errors
/// [`FaultError`]: nothing hangs on it.
pub fn write(folder: &Path, fault: &Fault) -> Result<(), FaultError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let files = names(folder)?;
    let begins = format!("{:012}-{}-", fault.seq.0, fault.device);
    let before = files.iter().filter(|name| name.starts_with(&begins)).count();
    let no = before.saturating_add(1).min(AT_ONE_POSITION);
    let name = format!("{begins}{no}.json");
    write_private(&folder.join(&name), &serde_json::to_vec_pretty(fault)?)?;
    let too_many = files.len().saturating_add(usize::from(!files.contains(&name)));
    for old in files.iter().take(too_many.saturating_sub(KEPT)) {
        fs::remove_file(folder.join(old))?;
    }
    Ok(())
}

/// The faults in `folder` from one position to another, by their files' names; the reason instead
/// where one does not read.
///
/// # Errors
/// Where the folder cannot be read; one that is not there holds none.
pub fn read(
    folder: &Path,
    from: JournalSeq,
    to: JournalSeq,
) -> io::Result<Vec<(String, Result<Fault, String>)>> {
    let within = |name: &String| {
        let seq = name.split('-').next().and_then(|seq| seq.parse().ok());
        seq.is_some_and(|seq: u64| (from.0..=to.0).contains(&seq))
    };
    let read = |name: String| {
        let text = fs::read(folder.join(&name)).map_err(|e| e.to_string());
        let fault = text.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
        (name, fault)
    };
    Ok(names(folder)?.into_iter().filter(within).map(read).collect())
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        listed => listed?,
    };
    let mut names = BTreeSet::new();
    for entry in listed {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            names.insert(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(seq: u64) -> Fault {
        Fault {
            device: "dispenser".into(),
            seq: JournalSeq(seq),
            at: Unix(9),
            txid: None,
            fault: "a jam".into(),
            frames: vec!["0 ms -> 10 02".into()],
        }
    }

    /// Loss prevented: a device that fails all night fills the disk that the journal needs, or the
    /// frames of the jam that matters are not found.
    #[test]
    fn traces_are_found_by_position_and_never_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("faults");
        let all = |from, to| read(&folder, JournalSeq(from), JournalSeq(to)).unwrap();
        assert!(all(0, 9).is_empty(), "there is no folder yet");
        for _ in 0..20 {
            write(&folder, &fault(7)).unwrap();
        }
        assert_eq!(all(7, 7).len(), AT_ONE_POSITION);
        for seq in 8..200 {
            write(&folder, &fault(seq)).unwrap();
        }
        assert_eq!(all(0, 1_000).len(), KEPT);
        assert_eq!(all(150, 150)[0].1, Ok(fault(150)));
        assert!(all(0, 100).is_empty(), "the oldest have gone");
        fs::write(folder.join("000000000160-acceptor-1.json"), "{").unwrap();
        assert!(all(160, 160)[0].1.is_err());
    }
}
