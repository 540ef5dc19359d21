//! A walk along the journal's chain: what the entries make of the machine, one after the other.
//!
//! Promise: what a step makes of the views is what the vault made of them when it wrote the entry:
//! the same function derives both. A step that does not hold changes nothing that is trusted
//! afterwards: the walk ends with it.

use bitspire_shared::ids::{JournalHead, JournalSeq, TxnId};
use rusqlite::Connection;

use super::Head;
use super::entry::{Body, StoredEntry};
use super::error::JournalError;
use super::holdings::Holdings;
use super::migrate;
use super::read::{StoredTxn, broken, parse, stored_txns};
use super::verify::check_link;
use super::views;

/// Where a walk stands: after an entry, with everything that follows from the entries so far.
#[derive(Debug)]
pub struct Walk {
    views: Connection,
    head: Head,
    held: Holdings,
    epoch: u64,
}

impl Walk {
    /// Before the first entry.
    ///
    /// # Errors
    /// [`JournalError`] where there is no room for the views in memory.
    pub fn from_nothing() -> Result<Self, JournalError> {
        let head = Head { seq: JournalSeq(0), hash: JournalHead::from_bytes([0; 32]) };
        let views = migrate::scratch_newest()?;
        Ok(Self { views, head, held: Holdings::default(), epoch: 0 })
    }

    /// Goes on to the next entry.
    ///
    /// # Errors
    /// [`JournalError::Broken`] where it is not the next one, or breaks a rule.
    pub fn take(&mut self, entry: &StoredEntry) -> Result<(), JournalError> {
        check_link(entry, self.head)?;
        let body = parse(entry)?;
        if matches!(body, Body::Genesis { .. }) != (entry.seq == JournalSeq(1)) {
            return Err(broken(entry.seq, "expected genesis as the first entry and nowhere else"));
        }
        let next = views::project(&self.views, entry.seq, &body, &self.held);
        self.held = next.map_err(|e| match e {
            JournalError::Refused(rule) => broken(entry.seq, format!("breaks a rule: {rule}")),
            other => other,
        })?;
        if let Body::Started { epoch, .. } = body {
            self.epoch = epoch;
        }
        self.head = Head { seq: entry.seq, hash: entry.hash };
        Ok(())
    }

    /// The entry that it stands at.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// What the machine held there.
    #[must_use]
    pub const fn holdings(&self) -> &Holdings {
        &self.held
    }

    /// The transactions that were not closed there.
    ///
    /// # Errors
    /// [`JournalError`] where a view does not read.
    pub fn open_txns(&self) -> Result<Vec<StoredTxn>, JournalError> {
        stored_txns(&self.views, "WHERE stage < 2 ORDER BY seq", [])
    }

    /// One transaction as it was there.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn txn(&self, txid: TxnId) -> Result<Option<StoredTxn>, JournalError> {
        Ok(stored_txns(&self.views, "WHERE txid = ?1", [txid.to_string()])?.pop())
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) const fn views(&self) -> &Connection {
        &self.views
    }

    pub(super) fn ends_at(&self, head: Head) -> Result<(), JournalError> {
        if self.head == head {
            return Ok(());
        }
        let last = self.head.seq;
        let what = format!("the head says {}, the entries end at {}", head.seq.0, last.0);
        Err(broken(last, what))
    }
}
