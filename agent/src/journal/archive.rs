//! The archive: entries of closed transactions, out of the journal's way.
//!
//! Promise: an entry is in the archive, flushed, before it leaves the journal; whatever is cut off in
//! between leaves it in both, never in none. The archive is one file beside the journal that only
//! grows, a line of canonical JSON an entry, from the first entry on: the chain runs through it into
//! the journal, and a check follows it there. Where it ends is an entry of the journal itself.
//!
//! States of a move: lines written and flushed -> an entry says so and the same commit takes them
//! out of the journal. Lines beyond what the last such entry says are of a move that was cut off:
//! they must be the journal's own entries, and are written again by the next one.
//!
//! Failure policy: no room on the disk leaves all as it was; an archive that is not there, does not
//! open, is too short or other than the journal says ends the move, not the trade; any other write or
//! flush of it that fails closes the journal, as a failed write of its own does.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bitspire_shared::ids::{JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use rusqlite::{Connection, OptionalExtension as _};

use super::Journal;
use super::entry::{Body, Stage, StoredEntry};
use super::error::JournalError;
use super::read::{broken, entries};
use super::schema::db;
use super::views::{position, sql};

/// Entries at the end of the journal that always stay: opening it checks them.
const STAY: u64 = 128;
/// Seconds for which an entry stays at least: the limits of a day are counted from the entries.
const YOUNG_S: u64 = 2 * 86_400;

/// When entries move, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Entries older than this move, in seconds.
    pub older_than_s: u64,
    /// Entries move as well while the journal holds more than these.
    pub more_than: u64,
    /// Fewer are not worth a move.
    pub least: usize,
    /// At most these move at once, but for a sale that was open for longer.
    pub most: u32,
}

impl Default for Keeping {
    fn default() -> Self {
        let older_than_s = 90 * 86_400;
        Self { older_than_s, more_than: 100_000, least: 256, most: 2_048 }
    }
}

/// Where the archive ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The last entry in it; 0 before the first move.
    pub(super) upto: JournalSeq,
    /// Its length up to there.
    pub(super) bytes: u64,
}

impl End {
    /// As the journal says.
    pub(super) fn of(conn: &Connection) -> Result<Self, JournalError> {
        let reading = "reading where the archive ends";
        if !super::migrate::has_table(conn, "archive")? {
            return Ok(Self::default());
        }
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let found: Option<(i64, i64)> = conn
            .query_row("SELECT upto, bytes FROM archive", [], row)
            .optional()
            .map_err(db(reading))?;
        Ok(found.map_or_else(Self::default, |(upto, bytes)| Self {
            upto: position(upto),
            bytes: position(bytes).0,
        }))
    }
}

/// The archive of the journal at `journal`.
pub(super) fn path_of(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".archive.jsonl");
    PathBuf::from(name)
}

/// Calls `with` for each entry of the archive, up to its end.
pub(super) fn each(
    path: &Path,
    end: End,
    mut with: impl FnMut(StoredEntry) -> Result<(), JournalError>,
) -> Result<(), JournalError> {
    if end.upto == JournalSeq(0) {
        return Ok(());
    }
    let failed = |source| JournalError::Files { path: path.to_owned(), source };
    let mut lines = BufReader::new(File::open(path).map_err(failed)?).take(end.bytes);
    let (mut last, mut text) = (JournalSeq(0), String::new());
    loop {
        text.clear();
        let length = lines.read_line(&mut text).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                broken(JournalSeq(last.0.saturating_add(1)), "the archive is no text here")
            }
            _ => failed(e),
        })?;
        if length == 0 {
            break;
        }
        let entry = StoredEntry::from_line(&text, last)?;
        last = entry.seq;
        with(entry)?;
    }
    if last == end.upto {
        return Ok(());
    }
    let what = format!("the archive ends here, expected it up to {}", end.upto.0);
    Err(broken(last, what))
}

impl Journal {
    /// The first entry that is not in the archive.
    ///
    /// # Errors
    /// [`JournalError`] where the file cannot be read.
    pub fn first(&self) -> Result<JournalSeq, JournalError> {
        Ok(JournalSeq(End::of(&self.conn)?.upto.0.saturating_add(1)))
    }

    /// Moves entries that `keeping` lets go to the archive, those of closed transactions up to the
    /// first that is not; how many.
    ///
    /// # Errors
    /// [`JournalError`]: nothing has moved. Any but [`JournalError::Files`] and
    /// [`JournalError::Broken`] closes the journal for writing, as does a disk that fails.
    pub fn archive(&mut self, now: Unix, keeping: &Keeping) -> Result<usize, JournalError> {
        let end = End::of(&self.conn)?;
        let moving = self.movable(now, end, keeping)?;
        let Some(last) = moving.last().filter(|_| moving.len() >= keeping.least) else {
            return Ok(0);
        };
        let (upto, hash) = (last.seq, last.hash);
        let bytes = self.write_archive(end, &moving)?;
        self.write(now, &Body::Archived { upto, hash, bytes })?;
        Ok(moving.len())
    }

    /// The entries that may move now, in order.
    fn movable(
        &self,
        now: Unix,
        end: End,
        keeping: &Keeping,
    ) -> Result<Vec<StoredEntry>, JournalError> {
        let first = end.upto.0.saturating_add(1);
        let last = self.head().seq.0.saturating_sub(STAY);
        let which = "WHERE e.seq BETWEEN ?1 AND ?2 ORDER BY e.seq LIMIT ?3";
        let mut most = keeping.most;
        loop {
            let bounds = (sql(JournalSeq(first)), sql(JournalSeq(last)), most);
            let mut all = entries(&self.conn, which, bounds)?;
            let (cut, stopped) = self.cut(now, end, keeping, &all)?;
            let whole = u32::try_from(all.len()).is_ok_and(|len| len < most);
            if cut >= keeping.least || stopped || whole {
                all.truncate(cut);
                return Ok(all);
            }
            // a sale was open for longer than so many entries: they move together
            most = most.saturating_mul(2);
        }
    }

    /// How many of the first entries may move, and whether one stands among them that may not.
    fn cut(
        &self,
        now: Unix,
        end: End,
        keeping: &Keeping,
        all: &[StoredEntry],
    ) -> Result<(usize, bool), JournalError> {
        let held = self.head().seq.0.saturating_sub(end.upto.0);
        // a cut is where every transaction before it has all its entries before it
        let (mut cut, mut closes_at) = (0, JournalSeq(0));
        for (no, entry) in all.iter().enumerate() {
            let age = now.since(entry.at);
            let rest = held.saturating_sub(u64::try_from(no).unwrap_or(u64::MAX));
            let old = age > keeping.older_than_s.max(YOUNG_S);
            if !old && (rest <= keeping.more_than || age <= YOUNG_S) {
                return Ok((cut, true));
            }
            if let Some(txid) = entry.txid {
                match self.closed_at(txid)? {
                    Some(closed) => closes_at = closes_at.max(closed),
                    None => return Ok((cut, true)),
                }
            }
            if closes_at <= entry.seq {
                cut = no.saturating_add(1);
            }
        }
        Ok((cut, false))
    }

    /// The last entry of a transaction that is closed.
    fn closed_at(&self, txid: TxnId) -> Result<Option<JournalSeq>, JournalError> {
        Ok(self.txn(txid)?.filter(|txn| txn.stage == Stage::Closed).map(|txn| txn.seq))
    }

    /// Appends lines and flushes them; the archive's length then.
    fn write_archive(&mut self, end: End, moving: &[StoredEntry]) -> Result<u64, JournalError> {
        let path = path_of(&self.path);
        let failed = |source| JournalError::Files { path: path.clone(), source };
        let fresh = end.upto == JournalSeq(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(fresh).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < end.bytes {
            let what = format!("its archive {} has lost its end", path.display());
            return Err(broken(end.upto, what));
        }
        self.check_doubles(&mut file, end).map_err(|e| match e {
            JournalError::Files { source, .. } => failed(source),
            other => other,
        })?;
        let mut lines = String::new();
        for entry in moving {
            lines += &entry.to_line()?;
        }
        // written again even where it lies there: nobody knows whether it was flushed
        let written = file
            .set_len(end.bytes)
            .and_then(|()| file.write_all_at(lines.as_bytes(), end.bytes))
            .and_then(|()| file.sync_all());
        if let Err(source) = written {
            // what is too much is cut off by the next move, too
            let _ = file.set_len(end.bytes);
            if source.kind() != std::io::ErrorKind::StorageFull {
                self.poison(&format!("writing the archive failed: {source}"));
            }
            return Err(failed(source));
        }
        if fresh {
            super::sync_folder(&path)?;
        }
        let more = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Ok(end.bytes.saturating_add(more))
    }

    /// What lies beyond the archive's end is of a move that was cut off: the journal's own entries.
    fn check_doubles(&self, file: &mut File, end: End) -> Result<(), JournalError> {
        let failed = |source| JournalError::Files { path: self.path.clone(), source };
        file.seek(SeekFrom::Start(end.bytes)).map_err(failed)?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).map_err(failed)?;
        let mut last = end.upto;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            // the last line may have been cut off
            let Some(text) = line.ends_with(b"\n").then(|| String::from_utf8_lossy(line)) else {
                break;
            };
            // a page that was not flushed reads as zeros, whatever lies behind it
            if line.contains(&0) {
                break;
            }
            let entry = StoredEntry::from_line(&text, last)?;
            last = entry.seq;
            let own = entries(&self.conn, "WHERE e.seq = ?1", [sql(entry.seq)])?.pop();
            if own.as_ref() != Some(&entry) {
                let what = "the archive holds an entry here that the journal does not have";
                return Err(broken(entry.seq, what));
            }
        }
        Ok(())
    }
}
