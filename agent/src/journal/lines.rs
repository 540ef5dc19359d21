//! Entries as lines of text: exports, archives, `journal show --json`.
//!
//! Promise: each line is one canonical JSON object and holds the entry's body to the letter, as a
//! string, so that whoever has the lines can make every hash again:
//! `sha256("bitspire-journal:v1:<prev>:<seq>:<at>:<txid or ->:<kind>:<sha256 of the body>")`. An
//! export begins with a line that names its format and the end of the chain, so that one that was
//! cut off shows.

use bitspire_shared::canonical::to_canonical;
use bitspire_shared::ids::{JournalHead, JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::Head;
use super::entry::StoredEntry;
use super::error::JournalError;
use super::read::broken;

/// The version of the lines.
const FORMAT: u32 = 1;

/// The first line of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    bitspire_journal: u32,
    head_seq: JournalSeq,
    head_hash: JournalHead,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: JournalSeq,
    at: Unix,
    txid: Option<TxnId>,
    kind: String,
    body: String,
    prev: JournalHead,
    hash: JournalHead,
}

/// The first line of an export that ends at `head`, with its line end.
pub(super) fn first(head: Head) -> Result<String, JournalError> {
    let line = First { bitspire_journal: FORMAT, head_seq: head.seq, head_hash: head.hash };
    Ok(to_canonical(&line)? + "\n")
}

/// The end of the chain that the first line names.
pub(super) fn read_first(text: &str) -> Result<Head, JournalError> {
    let no_export = |e: serde_json::Error| {
        let what = format!("expected the first line of a journal export, got {e}");
        broken(JournalSeq(0), what)
    };
    let First { bitspire_journal, head_seq, head_hash } =
        serde_json::from_str(text).map_err(no_export)?;
    if bitspire_journal != FORMAT {
        let what = format!("expected an export of format {FORMAT}, got {bitspire_journal}");
        return Err(broken(JournalSeq(0), what));
    }
    let head = Head { seq: head_seq, hash: head_hash };
    if first(head)? != text {
        let what = "the first line is not spelt as a journal writes it";
        return Err(broken(JournalSeq(0), what));
    }
    Ok(head)
}

impl StoredEntry {
    /// The entry as one line of canonical JSON, with its line end.
    ///
    /// # Errors
    /// [`JournalError::Encode`]: no entry that was written is without.
    pub fn to_line(&self) -> Result<String, JournalError> {
        let Self { seq, at, txid, kind, body, prev, hash } = self.clone();
        Ok(to_canonical(&Line { seq, at, txid, kind, body, prev, hash })? + "\n")
    }

    /// The entry of a line; `after` is the position before it, for what is said of a bad one.
    pub(super) fn from_line(text: &str, after: JournalSeq) -> Result<Self, JournalError> {
        let no_entry = |what: String| broken(JournalSeq(after.0.saturating_add(1)), what);
        let Line { seq, at, txid, kind, body, prev, hash } = serde_json::from_str(text)
            .map_err(|e| no_entry(format!("expected an entry as a line of JSON, got {e}")))?;
        let entry = Self { seq, at, txid, kind, body, prev, hash };
        // one entry has one spelling
        if entry.to_line()? != text {
            return Err(no_entry("its line is not spelt as a journal writes it".to_owned()));
        }
        Ok(entry)
    }
}
