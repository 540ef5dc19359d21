//! The last intent, remembered beside the journal.
//!
//! Promise: before an intent's proof exists, its position and hash are on the disk a second time, in
//! a file of their own. So a journal that has lost its end (a write-ahead log that was cut off or
//! left behind, a database of yesterday put back) is found before the machine trades: what it has
//! forgotten may have moved notes, and must not move them again.
//!
//! Two slots are written in turn, each with its own digest: a write that is cut off leaves the other.
//!
//! Failure policy: a journal behind its mark, or on another path than it, is
//! [`JournalError::Broken`]; so is a mark of which nothing reads. Where there is no file yet, one is
//! made.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::JournalSeq;
use bitspire_shell::crash;

use super::Head;
use super::error::JournalError;
use super::read::broken;

/// Bytes of a slot: what a disk writes at once.
const SLOT: usize = 512;

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    next: u64,
    last: Option<Head>,
}

impl Mark {
    /// Opens the mark of the journal at `journal`, or makes it.
    pub(super) fn open(journal: &Path) -> Result<Self, JournalError> {
        let mut name = journal.as_os_str().to_owned();
        name.push(".mark");
        let path = PathBuf::from(name);
        let failed = |source| JournalError::Files { path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        // a run that died right after it made the file may have left its name unflushed
        super::sync_folder(&path)?;
        let mut slots = Vec::new();
        let length = file.metadata().map_err(failed)?.len();
        for no in 0..2u64 {
            let mut bytes = [0u8; SLOT];
            let at = no * SLOT as u64;
            if length >= at + SLOT as u64 {
                file.read_exact_at(&mut bytes, at).map_err(failed)?;
            }
            slots.push((no, bytes));
        }
        let blank = slots.iter().any(|(_, bytes)| bytes.iter().all(|byte| *byte == 0));
        let read = slots.iter().filter_map(|(no, bytes)| Some((*no, parse(bytes)?)));
        let last = read.max_by_key(|(_, head)| head.seq);
        if last.is_none() && !blank {
            let what = format!("{}: the mark beside the journal does not read", path.display());
            return Err(broken(JournalSeq(0), what));
        }
        let next = last.map_or(0, |(no, _)| 1 - no);
        Ok(Self { file, path, next, last: last.map(|(_, head)| head) })
    }

    /// The last intent that was marked.
    pub(super) const fn last(&self) -> Option<Head> {
        self.last
    }

    /// Remembers an intent; it is on the disk when this returns.
    pub(super) fn set(&mut self, head: Head) -> Result<(), JournalError> {
        let failed = |source| JournalError::Files { path: self.path.clone(), source };
        self.file
            .write_all_at(&slot(head), self.next * SLOT as u64)
            .and_then(|()| {
                crash::point("mark.before_flush", "slot");
                self.file.sync_data()
            })
            .map_err(failed)?;
        crash::point("mark.after_flush", "slot");
        self.next = 1 - self.next;
        self.last = Some(head);
        Ok(())
    }
}

fn slot(head: Head) -> [u8; SLOT] {
    let said = format!("{} {}", head.seq.0, head.hash);
    let text = format!("{said} {}\n", sha256(&said));
    let mut bytes = [b' '; SLOT];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

fn parse(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (said, digest) = text.trim_end().rsplit_once(' ')?;
    if sha256(said).to_string() != digest {
        return None;
    }
    let (seq, hash) = said.split_once(' ')?;
    Some(Head { seq: JournalSeq(seq.parse().ok()?), hash: hash.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use bitspire_shared::ids::JournalHead;

    use super::*;

    fn head(n: u8) -> Head {
        Head { seq: JournalSeq(n.into()), hash: JournalHead::from_bytes([n; 32]) }
    }

    /// Loss prevented: a power cut in the middle of a mark that forgets the one before it, too.
    #[test]
    fn a_mark_that_is_cut_off_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let file = folder.path().join("journal.db.mark");
        let mut mark = Mark::open(&journal).unwrap();
        assert_eq!(mark.last(), None);
        for n in 1..=3 {
            mark.set(head(n)).unwrap();
            let again = Mark::open(&journal).unwrap();
            assert_eq!((mark.last(), again.last()), (Some(head(n)), Some(head(n))));
        }
        let whole = std::fs::read(&file).unwrap();
        for cut in 0..80 {
            // the third lies in the first slot, as does the next but one
            let mut torn = whole.clone();
            torn[..cut].fill(0);
            torn[cut] ^= 0x40;
            std::fs::write(&file, &torn).unwrap();
            assert_eq!(Mark::open(&journal).unwrap().last(), Some(head(2)), "{cut}");
        }
        std::fs::write(&file, vec![b'x'; 2 * SLOT]).unwrap();
        assert!(matches!(Mark::open(&journal), Err(JournalError::Broken { .. })));
        // the very first one was cut off
        std::fs::write(&file, &whole[..40]).unwrap();
        assert_eq!(Mark::open(&journal).unwrap().last(), None);
    }
}
