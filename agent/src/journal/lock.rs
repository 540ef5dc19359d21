//! One vault at a time.
//!
//! Promise: the lock is held as long as the process lives and goes with it, however it ends. It
//! lies beside the database: closing any handle of the database file itself would drop SQLite's own
//! locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// The lock, while it lives.
#[derive(Debug)]
pub(super) struct Lock {
    pub(super) file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // closing is not enough: a child between fork and exec still has the handle. Where this
        // fails, the lock goes with the last handle.
        self.file.unlock().ok();
    }
}

impl Lock {
    /// Takes the lock beside the journal at `journal`.
    pub(super) fn take(journal: &Path) -> Result<Self, JournalError> {
        let mut name = journal.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let failed = |source| JournalError::Files { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // what it says only helps a person: without it the answer is the same
                if file.read_to_string(&mut holder).is_err() || holder.is_empty() {
                    holder = "unknown process".to_owned();
                }
                return Err(JournalError::Locked { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let note = format!("process {}", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(failed)?;
        Ok(Self { file })
    }
}
