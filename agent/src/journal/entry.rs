//! What an entry says.
//!
//! Promise: an entry is one canonical JSON text, so its hash can be made again by anybody; it holds
//! everything that the views are derived from. No secret is ever in an entry: claim codes stay in
//! memory, the journal goes into evidence bundles.

use std::collections::BTreeMap;

use bitspire_shared::canonical::sha256;
use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{
    BayId, ChangeId, Digest, JournalHead, JournalSeq, Nonce, RequestId, TxnId,
};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the vault writes with [`Journal::append`](super::Journal::append).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A transaction came into a new state.
    Txn(TxnEntry),
    /// A request is about to be sent for the first time; every repeat sends this body.
    Request(RequestEntry),
    /// Notes came or went outside of a transaction: refills, counts, emptyings.
    Cash(Vec<CashMove>),
    /// A verdict about the whole machine was used.
    Verdict(VerdictUse),
    /// A value that later runs need; the last one of a key counts.
    Setting {
        /// Its name.
        key: String,
        /// Its value.
        value: Value,
        /// The notes that moved with it; none in most.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cash: Vec<CashMove>,
    },
}

/// How far a transaction is; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Notes may still move.
    Open,
    /// No note moves any more; something is left to be told or watched.
    Ended,
    /// Nothing is left to do.
    Closed,
}

impl Stage {
    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Ended => 1,
            Self::Closed => 2,
        }
    }

    pub(super) const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Open),
            1 => Some(Self::Ended),
            2 => Some(Self::Closed),
            _ => None,
        }
    }
}

/// A transaction's new state, with everything that changed together with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnEntry {
    /// Which transaction.
    pub txid: TxnId,
    /// The name of the state, as people read it.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// What brought it here, as people read it.
    pub cause: String,
    /// The whole state: the transaction goes on from it after a restart.
    pub state: Value,
    /// Where notes went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cash: Vec<CashMove>,
    /// The intent whose result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolves: Option<u32>,
    /// The verdict that this entry uses up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictUse>,
}

/// A signed verdict, used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictUse {
    /// Makes it single use.
    pub nonce: Nonce,
    /// The journal position that the operator had seen.
    pub seen: JournalSeq,
}

/// A request as it is sent, signatures included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEntry {
    /// The same for every repeat.
    pub request_id: RequestId,
    /// The transaction that it is about, if it is about one.
    pub txid: Option<TxnId>,
    /// The name of the call.
    pub rpc: String,
    /// The body, to the letter.
    pub body: Value,
}

/// What becomes of a bay's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountChange {
    /// Notes put in (positive) or taken out (negative) by a person.
    Delta(i64),
    /// A person counted: this many are there.
    Set(u32),
}

/// One movement of notes, or of what we know about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CashMove {
    /// The bay holds notes of this value from now on; with another value than before it counts as
    /// empty until somebody counts.
    Assign {
        /// The bay.
        bay: BayId,
        /// Its notes.
        denomination: Denomination,
        /// Whether it is a recycler's, which keeps such notes as customers feed them.
        #[serde(default, skip_serializing_if = "is_false")]
        recycles: bool,
    },
    /// A person changed or counted the bay; each change id once.
    Change {
        /// The bay.
        bay: BayId,
        /// Makes it single use.
        change_id: ChangeId,
        /// The change.
        change: CountChange,
        /// The journal position that it was made on.
        base_seq: JournalSeq,
        /// Why.
        reason: String,
    },
    /// The device's final answer for the bay.
    Dispensed {
        /// The bay.
        bay: BayId,
        /// Its notes.
        denomination: Denomination,
        /// Where they went.
        result: BayResult,
        /// Whether a [`Doubt`](Self::Doubt) about this dispense is over with it.
        clears: bool,
    },
    /// Nobody knows what left the bay.
    Doubt {
        /// The bay.
        bay: BayId,
    },
    /// A dispense from the bay has ended, and notes may have left it that nobody has counted; a count
    /// ends it.
    Unsure {
        /// The bay.
        bay: BayId,
        /// How many, at most.
        most: u32,
    },
    /// A note lies in the cashbox.
    Stacked {
        /// Its value.
        denomination: Denomination,
        /// Whether a [`StackDoubt`](Self::StackDoubt) about it is over with that.
        clears: bool,
    },
    /// Nobody knows whether a note lies in the cashbox.
    StackDoubt {
        /// Its value.
        denomination: Denomination,
        /// Whether it was counted as lying there before.
        counted: bool,
    },
    /// The doubt about a note is over: it does not lie in the cashbox.
    NotStacked {
        /// Its value.
        denomination: Denomination,
    },
    /// Notes that the books had in the cashbox lie in a recycler's bay: it counts them there.
    Recycled {
        /// The bay.
        bay: BayId,
        /// Their value.
        denomination: Denomination,
        /// How many.
        notes: u32,
    },
    /// The notes of this value of which the device had not told lie in the cashbox: no bay has
    /// become more.
    Sorted {
        /// Their value.
        denomination: Denomination,
    },
    /// A recycler counts more notes in the bay (below 0: fewer) than follows from the books and from
    /// what it counted before.
    Differs {
        /// The bay.
        bay: BayId,
        /// How many.
        by: i64,
    },
    /// What was recycled is counted from nothing from here on: whoever kept books of it is gone.
    RecycledAnew,
    /// A person emptied the cashbox and counted.
    CashboxEmptied {
        /// Notes counted, by value; the difference to the books is the operator's to explain.
        counted: BTreeMap<Denomination, u32>,
    },
    /// A person emptied the reject bin and counted.
    RejectBinEmptied {
        /// Notes counted, by value.
        counted: BTreeMap<Denomination, u32>,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own form")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Everything that an entry can be; only [`Entry`] comes from outside of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    /// Entry 1: which machine's journal this is.
    Genesis { binding: Digest },
    /// A vault opened it.
    Started { epoch: u64, version: String },
    /// A point of no return, with the state that goes with it.
    Intent { txn: TxnEntry, no: u32, what: String, value: Value },
    /// As in [`Entry`].
    Txn(TxnEntry),
    /// As in [`Entry`].
    Request(RequestEntry),
    /// As in [`Entry`].
    Cash(Vec<CashMove>),
    /// As in [`Entry`].
    Verdict(VerdictUse),
    /// As in [`Entry`].
    Setting {
        key: String,
        value: Value,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cash: Vec<CashMove>,
    },
    /// The entries up to `upto`, whose hash is `hash`, lie in the archive, which is so long.
    Archived { upto: JournalSeq, hash: JournalHead, bytes: u64 },
}

impl From<Entry> for Body {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Txn(txn) => Self::Txn(txn),
            Entry::Request(request) => Self::Request(request),
            Entry::Cash(moves) => Self::Cash(moves),
            Entry::Verdict(verdict) => Self::Verdict(verdict),
            Entry::Setting { key, value, cash } => Self::Setting { key, value, cash },
        }
    }
}

impl Body {
    /// The name in the `kind` column, the same as the body's only key.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Genesis { .. } => "genesis",
            Self::Started { .. } => "started",
            Self::Intent { .. } => "intent",
            Self::Txn(_) => "txn",
            Self::Request(_) => "request",
            Self::Cash(_) => "cash",
            Self::Verdict(_) => "verdict",
            Self::Setting { .. } => "setting",
            Self::Archived { .. } => "archived",
        }
    }

    /// What it is called among the [places to die at](bitspire_shell::crash): by the state that it
    /// brings, or by its kind.
    pub(super) fn name(&self) -> &str {
        self.txn().map_or(self.kind(), |txn| &txn.name)
    }

    /// The transaction that the entry belongs to.
    pub(super) const fn txid(&self) -> Option<TxnId> {
        match self {
            Self::Intent { txn, .. } | Self::Txn(txn) => Some(txn.txid),
            Self::Request(request) => request.txid,
            _ => None,
        }
    }

    /// The state that the entry brings.
    pub(super) const fn txn(&self) -> Option<&TxnEntry> {
        match self {
            Self::Intent { txn, .. } | Self::Txn(txn) => Some(txn),
            _ => None,
        }
    }

    /// The movements of notes in it.
    pub(super) fn cash(&self) -> &[CashMove] {
        match self {
            Self::Intent { txn, .. } | Self::Txn(txn) => &txn.cash,
            Self::Cash(moves) | Self::Setting { cash: moves, .. } => moves,
            _ => &[],
        }
    }

    /// The verdict that it uses up.
    pub(super) const fn verdict(&self) -> Option<VerdictUse> {
        match self {
            Self::Intent { txn, .. } | Self::Txn(txn) => txn.verdict,
            Self::Verdict(verdict) => Some(*verdict),
            _ => None,
        }
    }
}

/// An entry as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its position, from 1 without gaps.
    pub seq: JournalSeq,
    /// When it was written, by the vault's trusted time.
    pub at: Unix,
    /// Its transaction.
    pub txid: Option<TxnId>,
    /// What it is.
    pub kind: String,
    /// Its body, canonical JSON.
    pub body: String,
    /// The hash of the entry before it.
    pub prev: JournalHead,
    /// Its own hash.
    pub hash: JournalHead,
}

impl StoredEntry {
    /// The hash that this entry must have: [`chain_hash`].
    #[must_use]
    pub fn computed_hash(&self) -> JournalHead {
        let Self { seq, at, txid, kind, body, prev, .. } = self;
        chain_hash(*prev, *seq, *at, *txid, kind, &sha256(body))
    }
}

/// The hash of an entry, from the hash before it and that of its body: SHA-256 over
/// `bitspire-journal:v1:<prev>:<seq>:<at>:<txid or ->:<kind>:<sha256 of the body>`.
#[must_use]
pub fn chain_hash(
    prev: JournalHead,
    seq: JournalSeq,
    at: Unix,
    txid: Option<TxnId>,
    kind: &str,
    body: &Digest,
) -> JournalHead {
    let txid = txid.map_or_else(|| "-".to_owned(), |txid| txid.to_string());
    let text = format!("bitspire-journal:v1:{prev}:{}:{}:{txid}:{kind}:{body}", seq.0, at.0);
    JournalHead::from_bytes(*sha256(&text).as_bytes())
}
