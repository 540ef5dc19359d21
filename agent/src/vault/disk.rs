//! Room on the journal's disk.
//!
//! Promise: sales end while there is still room to write down how the running one ends; they begin
//! again by themselves once there is room.
//!
//! Failure policy: a disk that does not tell its room is not called full: the journal's own writes
//! decide then.

use nix::sys::statvfs::statvfs;

use super::VaultError;
use super::core::Vault;
use crate::journal::JournalError;

/// Whether there is room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    low: bool,
}

impl Disk {
    /// Whether less is free than must be.
    pub(super) const fn is_low(self) -> bool {
        self.low
    }
}

impl Vault {
    /// Looks how much is free.
    pub(super) fn look_at_disk(&mut self) {
        let free = match statvfs(&self.config.dir) {
            Ok(disk) => disk.blocks_available().saturating_mul(disk.fragment_size()),
            Err(error) => {
                tracing::warn!(event = "disk_not_looked_at", %error);
                return;
            }
        };
        let floor = self.config.disk_floor_bytes;
        let low = free < floor;
        if low == self.disk.low {
            return;
        }
        self.disk.low = low;
        if low {
            tracing::error!(event = "disk_low", free, floor, "sales end: make room on the disk");
        } else {
            tracing::info!(event = "disk_has_room", free, floor);
        }
        self.reports.soon(self.mono());
    }

    /// While nothing happens: old entries go to the archive, the log into the database.
    pub(super) fn tidy_journal(&mut self) -> Result<(), VaultError> {
        match self.journal.archive(self.now().unix, &self.config.keeping) {
            Ok(0) => {}
            Ok(moved) => tracing::info!(event = "entries_archived", moved),
            // the journal itself is as good as before
            Err(error @ (JournalError::Files { .. } | JournalError::Broken { .. }))
                if self.journal.poisoned().is_none() =>
            {
                self.raise("not_archived", error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        self.journal.checkpoint();
        Ok(())
    }

    /// What the screen and the report say of it.
    pub(super) fn disk_words(&self) -> String {
        let floor = self.config.disk_floor_bytes / 1_048_576;
        format!("the journal's disk is nearly full: less than {floor} MiB are free, make room")
    }
}
