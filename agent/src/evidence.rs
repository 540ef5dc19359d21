//! What happened around one transaction, as one file for whoever decides a dispute.
//!
//! Promise: one JSON object, text throughout, so that any tool reads it, nothing has to be unpacked,
//! and whoever gets it can search it for what must not be in it. It holds the journal's entries of
//! the transaction, of the one before and the one after, with their bodies; the chain from there to
//! the head, of later entries only what their hashes need; what a check of the whole journal found;
//! each step as [`replay`] shows it; what the devices said before each fault in that time; the
//! configuration, which names secrets by path only; versions.
//!
//! Failure policy: a journal that does not hold is evidence too: the bundle says where it breaks and
//! holds what can be read. A trace that cannot be read is named.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{Digest, JournalHead, JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use bitspire_shell::config::Shown;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::faults;
use crate::journal::{Head, JournalError, Reader, StoredEntry, chain_hash};
use crate::replay::replay;

/// The version of the bundle.
const FORMAT: u32 = 1;

/// Why there is no bundle, or why one does not hold.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The journal cannot be read.
    #[error("the journal cannot be read")]
    Journal(#[from] JournalError),
    /// No entry is about the transaction.
    #[error("transaction {0} is not in this journal")]
    Unknown(TxnId),
    /// The folder of the devices' traces cannot be read.
    #[error("the devices' traces cannot be read")]
    Traces(#[from] io::Error),
    /// It has no JSON form, or is none of ours.
    #[error("expected an evidence bundle of this version")]
    Json(#[from] serde_json::Error),
    /// The chain in a bundle does not lead to its head.
    #[error("the bundle is broken at entry {at}: {what}", at = .at.0)]
    Broken {
        /// The entry at which it shows.
        at: JournalSeq,
        /// What was expected.
        what: &'static str,
    },
}

/// A link of the chain: an entry, or what its hash needs of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Link {
    seq: JournalSeq,
    at: Unix,
    txid: Option<TxnId>,
    kind: String,
    body: Option<String>,
    body_sha256: Digest,
    prev: JournalHead,
    hash: JournalHead,
}

/// The part of a bundle that can be checked by itself.
#[derive(Debug, Deserialize)]
struct Checkable {
    bitspire_evidence: u32,
    chain: Vec<Link>,
    head: EndOfChain,
}

#[derive(Debug, Serialize, Deserialize)]
struct EndOfChain {
    seq: JournalSeq,
    hash: JournalHead,
}

/// What is asked for.
#[derive(Debug)]
pub struct About<'a> {
    /// The transaction.
    pub txid: TxnId,
    /// The folder with the devices' traces.
    pub faults: &'a Path,
    /// The configuration, as `config show` prints it.
    pub configuration: &'a BTreeMap<String, Shown>,
}

/// First and last entry of the transactions, and which came before and after one of them.
#[derive(Debug, Default)]
struct Spans(BTreeMap<TxnId, (JournalSeq, JournalSeq)>);

impl Spans {
    fn of(reader: &Reader) -> Result<Self, JournalError> {
        let mut spans = Self::default();
        reader.each(JournalSeq(1), reader.head().seq, |entry| {
            if let Some(txid) = entry.txid {
                spans.0.entry(txid).or_insert((entry.seq, entry.seq)).1 = entry.seq;
            }
            Ok(())
        })?;
        Ok(spans)
    }

    fn before(&self, first: JournalSeq) -> Option<TxnId> {
        let older = self.0.iter().filter(|(_, (from, _))| *from < first);
        older.max_by_key(|(_, (from, _))| *from).map(|(txid, _)| *txid)
    }

    fn after(&self, first: JournalSeq) -> Option<TxnId> {
        let newer = self.0.iter().filter(|(_, (from, _))| *from > first);
        newer.min_by_key(|(_, (from, _))| *from).map(|(txid, _)| *txid)
    }
}

/// The bundle about one transaction.
///
/// # Errors
/// [`EvidenceError`].
pub fn bundle(reader: &Reader, about: &About<'_>) -> Result<Value, EvidenceError> {
    let spans = Spans::of(reader)?;
    let span = |txid: TxnId| spans.0.get(&txid).copied();
    let (first, last) = span(about.txid).ok_or(EvidenceError::Unknown(about.txid))?;
    let (before, after) = (spans.before(first), spans.after(first));
    let from = before.and_then(span).map_or(first, |(from, _)| from.min(first));
    let to = after.and_then(span).map_or(last, |(_, to)| to.max(last));
    let Head { seq, hash } = reader.head();
    let mut chain = Vec::new();
    reader.each(from, seq, |entry| {
        chain.push(link(entry, to));
        Ok(())
    })?;
    let checked = match reader.verify() {
        Ok(found) => json!({ "holds": true, "open_transactions": found.open }),
        Err(JournalError::Broken { at, what }) => {
            json!({ "holds": false, "broken_at": at, "what": what })
        }
        Err(other) => return Err(other.into()),
    };
    let mut steps = Vec::new();
    let stepped = replay(reader, last, Some(about.txid), |moment| {
        steps.push(moment.clone());
        Ok(())
    });
    let stopped = stepped.err().map(|error| error.to_string());
    let faults =
        faults::read(about.faults, from, to)?.into_iter().map(|(file, fault)| match fault {
            Ok(fault) => json!({ "file": file, "fault": fault }),
            Err(why) => json!({ "file": file, "cannot_be_read": why }),
        });
    let configuration = about
        .configuration
        .iter()
        .map(|(key, shown)| (key.clone(), json!({ "value": shown.value, "origin": shown.origin })));
    Ok(json!({
        "bitspire_evidence": FORMAT,
        "made_by": { "agent": env!("CARGO_PKG_VERSION") },
        "transaction": { "txid": about.txid, "first": first, "last": last },
        "transaction_before": before,
        "transaction_after": after,
        "journal": checked,
        "head": EndOfChain { seq, hash },
        "chain": chain,
        "replay": { "steps": steps, "stopped": stopped },
        "faults": faults.collect::<Vec<_>>(),
        "configuration": configuration.collect::<serde_json::Map<_, _>>(),
    }))
}

fn link(entry: StoredEntry, bodies_to: JournalSeq) -> Link {
    let StoredEntry { seq, at, txid, kind, body, prev, hash } = entry;
    let body_sha256 = sha256(&body);
    let body = (seq <= bodies_to).then_some(body);
    Link { seq, at, txid, kind, body, body_sha256, prev, hash }
}

/// Checks the chain in a bundle, from its first entry to its head; the head.
///
/// # Errors
/// [`EvidenceError::Json`] where it is no bundle, [`EvidenceError::Broken`] with the entry at which
/// it does not hold.
pub fn verify(text: &str) -> Result<Head, EvidenceError> {
    let Checkable { bitspire_evidence, chain, head } = serde_json::from_str(text)?;
    let broken = |at, what| Err(EvidenceError::Broken { at, what });
    if bitspire_evidence != FORMAT {
        return broken(JournalSeq(0), "a bundle of another version");
    }
    let mut last: Option<Head> = None;
    for link in chain {
        let Link { seq, at, txid, kind, body, body_sha256, prev, hash } = link;
        let follows =
            last.is_none_or(|last| last.seq.0.checked_add(1) == Some(seq.0) && last.hash == prev);
        if !follows {
            return broken(seq, "it does not follow the entry before it");
        }
        if body.is_some_and(|body| sha256(&body) != body_sha256) {
            return broken(seq, "its body does not have its hash");
        }
        if chain_hash(prev, seq, at, txid, &kind, &body_sha256) != hash {
            return broken(seq, "its content does not have its hash");
        }
        last = Some(Head { seq, hash });
    }
    let head = Head { seq: head.seq, hash: head.hash };
    if last != Some(head) {
        return broken(head.seq, "the chain does not lead to the head");
    }
    Ok(head)
}
