//! The vault's journal: the record of what was about to happen, and of what did.
//!
//! Promise: an entry that [`append`](Journal::append) or [`commit`](Journal::commit) has answered
//! is on the disk, chained to all entries before it by hash, and stays. No device moves a note for
//! good without a [`Committed`] value, which only `commit` makes, after the flush. What the machine
//! holds, the states of its transactions, used nonces and applied changes are views of the entries,
//! written in the same commit.
//!
//! States: open, or poisoned: after one failed write nothing is written any more, since nobody
//! knows what is on the disk; only a new process that reads it again does.
//!
//! Failure policy: a second vault does not start (a lock, and an epoch that fences the older one
//! off where the lock was lost). A broken chain, a view that differs, another machine's journal or
//! a newer version is an error on opening: the machine does not trade. [`JournalError::Refused`]
//! means that a rule forbids the entry: nothing was written and the journal goes on.
//!
//! Blocking: every call may wait for the disk; keep it off the async threads. This is the only
//! module of the agent that knows SQLite.

mod archive;
mod commit;
mod entry;
mod error;
mod heads;
mod holdings;
mod lines;
mod lock;
mod mark;
mod migrate;
mod read;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod verify;
mod views;
mod walk;
mod words;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bitspire_shared::canonical::to_canonical;
use bitspire_shared::ids::{Digest, JournalHead, JournalSeq};
use bitspire_shared::time::Unix;
use bitspire_shell::crash;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use self::entry::Body;
use self::lock::Lock;
use self::mark::Mark;
use self::schema::db;
use self::views::{number, sql};

pub use self::archive::Keeping;
pub use self::commit::{ByJournal, Committed, Intent};
pub use self::entry::{
    CashMove, CountChange, Entry, RequestEntry, Stage, StoredEntry, TxnEntry, VerdictUse,
    chain_hash,
};
pub use self::error::{JournalError, Refusal};
pub use self::heads::{Compared, SeenHead, compare};
pub use self::holdings::{Bay, Heap, Holdings};
pub use self::read::{OpenIntent, StoredTxn};
pub use self::reader::{ExportError, Reader};
pub use self::verify::{Verified, verify_export, verify_file};
pub use self::walk::Walk;

/// Entries after which the write-ahead log goes into the database.
const CHECKPOINT_EVERY: u32 = 512;

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry; 0 before the first.
    pub seq: JournalSeq,
    /// Its hash; zeros before the first.
    pub hash: JournalHead,
}

/// The journal, held by the one vault.
pub struct Journal {
    conn: Connection,
    head: Head,
    epoch: u64,
    holdings: Holdings,
    poisoned: Option<String>,
    since_checkpoint: u32,
    mark: Mark,
    path: PathBuf,
    _lock: Lock,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { head, epoch, poisoned, .. } = self;
        f.debug_struct("Journal")
            .field("head", head)
            .field("epoch", epoch)
            .field("poisoned", poisoned)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal at `path`, or makes it, for the machine that `binding` names: a digest of
    /// something that only this machine has. Checks the end of the chain and all open transactions;
    /// the time this takes does not depend on the length of the journal.
    ///
    /// # Errors
    /// [`JournalError`]: in each case the machine must not trade.
    pub fn open(path: &Path, binding: Digest, now: Unix) -> Result<Self, JournalError> {
        Self::open_file(path, binding, now).map_err(|e| verify::damaged(e, JournalSeq(0)))
    }

    fn open_file(path: &Path, binding: Digest, now: Unix) -> Result<Self, JournalError> {
        let lock = Lock::take(path)?;
        create_file(path)?;
        let conn = schema::open_writer(path, now)?;
        let mark = Mark::open(path)?;
        let (head, epoch) = read::head(&conn)?;
        let mut journal = Self {
            mark,
            path: path.to_owned(),
            holdings: views::load_holdings(&conn)?,
            conn,
            head,
            epoch,
            poisoned: None,
            since_checkpoint: 0,
            _lock: lock,
        };
        if journal.head.seq == JournalSeq(0) {
            journal.write(now, &Body::Genesis { binding })?;
        }
        verify::verify_open_part(&journal.conn, binding, journal.head, journal.mark.last())?;
        let next = epoch.saturating_add(1);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        journal.write(now, &Body::Started { epoch: next, version })?;
        Ok(journal)
    }

    /// Writes an entry and returns its position after the flush.
    ///
    /// # Errors
    /// [`JournalError::Refused`] where a rule forbids it. Any other error closes the journal for
    /// writing, for good: the entry may or may not be on the disk.
    pub fn append(&mut self, at: Unix, entry: Entry) -> Result<JournalSeq, JournalError> {
        let seq = self.write(at, &entry.into())?;
        if self.since_checkpoint >= CHECKPOINT_EVERY {
            self.checkpoint();
        }
        Ok(seq)
    }

    /// Moves the write-ahead log into the database. The vault calls it while nothing happens;
    /// `append` does when it has waited too long. A failure shows at the next write: what was
    /// written before is safe in the log.
    pub fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        let done = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match done {
            Ok(()) => {}
            // the log has it all and is as good as before
            Err(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                tracing::error!(event = "checkpoint_without_room", "make room on the disk");
            }
            Err(source) => self.poison(&format!("a checkpoint failed: {source}")),
        }
    }

    /// The end of the chain.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// How often the journal was opened to write, this time included.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the machine holds.
    #[must_use]
    pub const fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// Why nothing is written any more, if that is so.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// The entry just written is an intent: see [`Mark`].
    fn remember_intent(&mut self) -> Result<(), JournalError> {
        let marked = self.mark.set(self.head);
        if let Err(JournalError::Files { source, .. }) = &marked {
            self.poison(&format!("marking an intent failed: {source}"));
        }
        marked
    }

    fn poison(&mut self, why: &str) {
        self.poisoned.get_or_insert_with(|| why.to_owned());
    }

    fn write(&mut self, at: Unix, body: &Body) -> Result<JournalSeq, JournalError> {
        if let Some(why) = &self.poisoned {
            return Err(JournalError::Poisoned { why: why.clone() });
        }
        let mut entry = StoredEntry {
            seq: JournalSeq(self.head.seq.0.saturating_add(1)),
            at,
            txid: body.txid(),
            kind: body.kind().to_owned(),
            body: to_canonical(body)?,
            prev: self.head.hash,
            hash: self.head.hash,
        };
        entry.hash = entry.computed_hash();
        match self.write_flushed(&entry, body) {
            Ok((holdings, epoch)) => {
                self.head = Head { seq: entry.seq, hash: entry.hash };
                self.holdings = holdings;
                self.epoch = epoch;
                self.since_checkpoint = self.since_checkpoint.saturating_add(1);
                Ok(entry.seq)
            }
            // rolled back before anything was flushed
            Err(refused @ (JournalError::Refused(_) | JournalError::Encode(_))) => Err(refused),
            Err(error) => {
                let why = match &error {
                    JournalError::Database { doing, source } => format!("{doing} failed: {source}"),
                    other => other.to_string(),
                };
                self.poison(&why);
                Err(error)
            }
        }
    }

    /// One transaction: rules, views, entry, head; returns after the flush.
    fn write_flushed(
        &mut self,
        entry: &StoredEntry,
        body: &Body,
    ) -> Result<(Holdings, u64), JournalError> {
        let doing = "writing an entry";
        crash::point("journal.before_write", body.name());
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(db(doing))?;
        // a journal that was opened by another vault since has another epoch and another end
        let epoch = match body {
            Body::Started { epoch, .. } => *epoch,
            _ => self.epoch,
        };
        let advanced = tx
            .prepare_cached(
                "UPDATE head SET seq = ?1, hash = ?2, epoch = ?3
                 WHERE id = 1 AND epoch = ?4 AND seq = ?1 - 1 AND hash = ?5",
            )
            .and_then(|mut s| {
                s.execute(params![
                    sql(entry.seq),
                    entry.hash.as_bytes(),
                    number(epoch),
                    number(self.epoch),
                    entry.prev.as_bytes()
                ])
            })
            .map_err(db(doing))?;
        if advanced != 1 {
            return Err(JournalError::Fenced { expected: self.epoch });
        }
        let holdings = views::project(&tx, entry.seq, body, &self.holdings)?;
        tx.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .and_then(|mut s| {
                s.execute(params![
                    sql(entry.seq),
                    number(entry.at.0),
                    entry.txid.map(|txid| txid.to_string()),
                    entry.kind,
                    entry.body,
                    entry.prev.as_bytes(),
                    entry.hash.as_bytes()
                ])
            })
            .map_err(db(doing))?;
        crash::point("journal.before_flush", body.name());
        tx.commit().map_err(db("flushing an entry"))?;
        crash::point("journal.after_flush", body.name());
        Ok((holdings, epoch))
    }
}

/// Keeps any vault from using the journal at `path` for as long as the answer lives.
pub(crate) fn hold(path: &Path) -> Result<impl Sized + use<>, JournalError> {
    Lock::take(path)
}

/// Makes the file, readable by its owner only, and makes its name durable.
fn create_file(path: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::Files { path: path.to_owned(), source };
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.map_err(failed)?,
    };
    sync_folder(path)
}

/// Makes the name of a file durable.
fn sync_folder(path: &Path) -> Result<(), JournalError> {
    let failed = |source| JournalError::Files { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(failed)?;
    folder.sync_all().map_err(failed)
}
