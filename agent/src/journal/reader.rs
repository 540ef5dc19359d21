//! A journal that is looked at: beside a running vault, of a stopped machine, or a copy.
//!
//! Promise: it shows one moment of the file, however long the look takes and whatever a running
//! vault writes meanwhile; nothing of the journal is changed, and nothing locks the vault out.
//!
//! Failure policy: a file that is no journal, of a newer version, or that cannot be read is an
//! error; what is read is not trusted before [`Reader::verify`] has found that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bitspire_shared::ids::{JournalHead, JournalSeq, TxnId};
use rusqlite::{Connection, params};

use super::Head;
use super::archive::{self, End};
use super::entry::StoredEntry;
use super::error::JournalError;
use super::holdings::Holdings;
use super::lines;
use super::read::{self, StoredTxn, each_entry};
use super::schema::{self, db};
use super::verify::{Verified, verify_all};
use super::views::{self, sql};

/// An open journal, to read.
#[derive(Debug)]
pub struct Reader {
    conn: Connection,
    head: Head,
    archive: End,
    archive_path: PathBuf,
}

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal.
    #[error("the journal cannot be exported")]
    Journal(#[from] JournalError),
    /// The place that it goes to.
    #[error("the export cannot be written: check the place and its room")]
    Write(#[from] io::Error),
}

impl Reader {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// [`JournalError`] where there is none, or it is not of this program.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path.exists() {
            let source = io::ErrorKind::NotFound.into();
            return Err(JournalError::Files { path: path.to_owned(), source });
        }
        let conn = schema::open_reader(path)?;
        // one moment of a file that a running vault goes on writing
        conn.execute_batch("BEGIN").map_err(db("reading"))?;
        let (head, _) = read::head(&conn)?;
        let archive = End::of(&conn)?;
        Ok(Self { conn, head, archive, archive_path: archive::path_of(path) })
    }

    /// The end of the chain, as the file says.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// All transactions that are not closed, in no particular order.
    ///
    /// # Errors
    /// [`JournalError`] where the file cannot be read or does not hold what it must.
    pub fn open_txns(&self) -> Result<Vec<StoredTxn>, JournalError> {
        read::stored_txns(&self.conn, "WHERE stage < 2", [])
    }

    /// What the machine holds by the file's last entry.
    ///
    /// # Errors
    /// As [`open_txns`](Self::open_txns).
    pub fn holdings(&self) -> Result<Holdings, JournalError> {
        views::load_holdings(&self.conn)
    }

    /// The hashes of the entries at these positions; of those beyond the end none.
    ///
    /// # Errors
    /// [`JournalError`] where the file cannot be read.
    pub fn hashes(
        &self,
        wanted: &BTreeSet<JournalSeq>,
    ) -> Result<BTreeMap<JournalSeq, JournalHead>, JournalError> {
        let mut found = BTreeMap::new();
        if let (Some(first), Some(last)) = (wanted.first(), wanted.last()) {
            self.each(*first, *last, |entry| {
                if wanted.contains(&entry.seq) {
                    found.insert(entry.seq, entry.hash);
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Checks the whole journal: the file, its tables, every link of the chain, the journal's rules,
    /// and every view against one made again from the entries. The time this takes grows with the
    /// journal.
    ///
    /// # Errors
    /// [`JournalError::Broken`] with the entry at which it shows; other [`JournalError`]s where the
    /// file cannot be read.
    pub fn verify(&self) -> Result<Verified, JournalError> {
        verify_all(self, &self.conn)
    }

    /// Calls `with` for the entries at these positions, in order, those in the archive first.
    ///
    /// # Errors
    /// Those of `with`, and [`JournalError`] where the file cannot be read.
    pub fn each(
        &self,
        from: JournalSeq,
        to: JournalSeq,
        mut with: impl FnMut(StoredEntry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let upto = self.archive.upto;
        if from <= upto {
            archive::each(&self.archive_path, self.archive, |entry| {
                match (from..=to).contains(&entry.seq) {
                    true => with(entry),
                    false => Ok(()),
                }
            })?;
        }
        let from = from.max(JournalSeq(upto.0.saturating_add(1)));
        let which = "WHERE e.seq BETWEEN ?1 AND ?2 ORDER BY e.seq";
        each_entry(&self.conn, which, params![sql(from), sql(to)], with)
    }

    /// All entries of one transaction, in order.
    ///
    /// # Errors
    /// [`JournalError`] where the file cannot be read.
    pub fn entries_of(&self, txid: TxnId) -> Result<Vec<StoredEntry>, JournalError> {
        let which = "WHERE e.txid = ?1 ORDER BY e.seq";
        let found = read::entries(&self.conn, which, [txid.to_string()])?;
        if !found.is_empty() {
            return Ok(found);
        }
        let mut archived = Vec::new();
        self.each(JournalSeq(1), self.archive.upto, |entry| {
            if entry.txid == Some(txid) {
                archived.push(entry);
            }
            Ok(())
        })?;
        Ok(archived)
    }

    /// Writes the whole journal as lines of canonical JSON, the end of the chain first.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn export(&self, to: &mut dyn Write) -> Result<(), ExportError> {
        to.write_all(lines::first(self.head)?.as_bytes())?;
        let mut failed = None;
        self.each(JournalSeq(1), self.head.seq, |entry| {
            if failed.is_none() {
                failed = to.write_all(entry.to_line()?.as_bytes()).err();
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), Err)?;
        Ok(to.flush()?)
    }
}
