//! What can go wrong with the journal, and what the vault may do about it.

use std::path::PathBuf;

use bitspire_shared::canonical::CanonicalError;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{BayId, ChangeId, Digest, JournalSeq, Nonce, RequestId, TxnId};
use thiserror::Error;

/// Why the journal did not open, did not write, or must not be trusted.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process holds the journal.
    #[error("journal {path}: another vault ({holder}) holds it; stop that one first")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into the lock file.
        holder: String,
    },
    /// The lock file cannot be made or read.
    #[error("journal {path}: cannot open its files: check the folder and its owner")]
    Files {
        /// The file concerned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another vault opened the journal after this one: this one may write nothing more.
    #[error("journal: opened by another vault since (expected epoch {expected}): stop this one")]
    Fenced {
        /// The epoch of this process.
        expected: u64,
    },
    /// The database refused; after a write this is for good.
    #[error("journal: {doing} failed")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// An earlier write failed: nobody knows what is on the disk, nothing is written any more.
    #[error("journal: closed for writing since {why}; restart the vault, check the disk")]
    Poisoned {
        /// The first failure.
        why: String,
    },
    /// Written by a newer version of this program.
    #[error("journal: schema {found}, this version knows up to {known}; install the newer version")]
    NewerSchema {
        /// What the file says.
        found: u32,
        /// The newest that we can read.
        known: u32,
    },
    /// A step of the schema that the file has taken is not the one that this program carries.
    #[error(
        "journal: step {number} of its schema has SHA-256 {recorded}, this program's has {ours}: \
         one of the two was changed after release; use the program that wrote the journal"
    )]
    MigrationChanged {
        /// Number of the migration.
        number: u32,
        /// Hash in the file.
        recorded: String,
        /// Hash of ours.
        ours: String,
    },
    /// The file's own record of its schema has a gap, or does not match its version.
    #[error(
        "journal: schema {version} with {recorded} steps on record, or with other tables than \
         those steps make: somebody changed the file; do not trade, call the operator"
    )]
    MigrationRecord {
        /// The version that it claims.
        version: u32,
        /// Migrations that it records.
        recorded: usize,
    },
    /// A file that is no journal of ours.
    #[error("journal: expected a bitSpire journal, got a database with application id {found:#x}")]
    NotAJournal {
        /// Its application id.
        found: i64,
    },
    /// The journal of another machine.
    #[error("journal: belongs to machine {got}, this one is {expected}; put the right disk back")]
    OtherMachine {
        /// This machine's binding.
        expected: Digest,
        /// The one in the journal.
        got: Digest,
    },
    /// The chain or a view derived from it does not hold: no trading until a person has looked.
    #[error("journal: broken at entry {at}: {what}; do not trade, restore or call the operator", at = .at.0)]
    Broken {
        /// The entry at which it shows.
        at: JournalSeq,
        /// What was expected and what is there.
        what: String,
    },
    /// The entry has no canonical form.
    #[error("journal: the entry cannot be written")]
    Encode(#[from] CanonicalError),
    /// A rule of the journal forbids the entry; nothing was written, the journal goes on.
    #[error("journal: refused")]
    Refused(#[from] Refusal),
}

impl JournalError {
    /// What somebody at the machine should do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        const FULL: &str = "The disk of the machine's journal is full: make room.";
        const DISK: &str = "The disk of the machine's journal fails or may not be written: check it \
             before the machine trades again.";
        match self {
            Self::Database { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                FULL
            }
            Self::Files { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => FULL,
            Self::Database { .. } | Self::Files { .. } | Self::Poisoned { .. } => DISK,
            Self::Locked { .. } | Self::Fenced { .. } => {
                "Two programs want the machine's journal: stop the other one."
            }
            Self::NewerSchema { .. } | Self::MigrationChanged { .. } => {
                "The machine's journal is another version's: install that version."
            }
            Self::MigrationRecord { .. }
            | Self::NotAJournal { .. }
            | Self::OtherMachine { .. }
            | Self::Broken { .. } => {
                "The machine's journal does not hold: keep its files and restore them together with \
                 the operator."
            }
            Self::Encode(_) | Self::Refused(_) => "Restart the vault and tell the operator.",
        }
    }
}

impl Classified for JournalError {
    fn kind(&self) -> Kind {
        match self {
            Self::Locked { .. } | Self::Files { .. } => Kind::Transient,
            // the write may or may not be on the disk: only a fresh open can tell
            Self::Database { .. } | Self::Poisoned { .. } => Kind::Uncertain,
            Self::Fenced { .. }
            | Self::NewerSchema { .. }
            | Self::MigrationChanged { .. }
            | Self::MigrationRecord { .. }
            | Self::NotAJournal { .. }
            | Self::OtherMachine { .. }
            | Self::Broken { .. }
            | Self::Encode(_) => Kind::Permanent,
            Self::Refused(refusal) => refusal.kind(),
        }
    }
}

/// An entry that a rule of the journal forbids.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The transaction is over.
    #[error("transaction {txid} has ended: no note may move for it, its stage cannot go back")]
    Ended {
        /// The transaction.
        txid: TxnId,
    },
    /// An intent for a transaction without an entry.
    #[error("transaction {txid} is not in the journal: expected its entry before an intent")]
    UnknownTxn {
        /// The transaction.
        txid: TxnId,
    },
    /// The intent before this one has no result yet.
    #[error("transaction {txid}: intent {no} has no result yet, expected one before the next")]
    Unresolved {
        /// The transaction.
        txid: TxnId,
        /// The open intent.
        no: u32,
    },
    /// An intent with this number was committed before.
    #[error("transaction {txid}: intent {no} was committed before")]
    IntentRepeated {
        /// The transaction.
        txid: TxnId,
        /// Its number.
        no: u32,
    },
    /// A result for an intent that is not open.
    #[error(
        "transaction {txid}: intent {no} is not open, expected a result once, after the intent"
    )]
    NothingToResolve {
        /// The transaction.
        txid: TxnId,
        /// The number that the result names.
        no: u32,
    },
    /// A verdict or statement that was used before.
    #[error("nonce {0} was used before")]
    NonceUsed(Nonce),
    /// A verdict made before the transaction came into its present state.
    #[error(
        "verdict made at entry {seen}, the transaction has changed at {changed}: decide again",
        seen = .seen.0, changed = .changed.0
    )]
    StaleVerdict {
        /// What the operator had seen.
        seen: JournalSeq,
        /// When the present state began.
        changed: JournalSeq,
    },
    /// A request with this id is in the journal: send that one again.
    #[error("request {0} is in the journal: send the stored body again")]
    RequestRepeated(RequestId),
    /// A cassette change that was applied before.
    #[error("change {0} was applied before")]
    ChangeApplied(ChangeId),
    /// A cassette change that was made before the bay was last set.
    #[error("bay {bay}: change based on entry {base}, the bay was set at {set}", base = .base.0, set = .set.0)]
    StaleChange {
        /// The bay.
        bay: BayId,
        /// The position that the change names.
        base: JournalSeq,
        /// The bay's last `set`.
        set: JournalSeq,
    },
    /// A bay that nobody has set up.
    #[error("bay {0} is not set up: assign its denomination first")]
    NoSuchBay(BayId),
    /// More notes than the bay holds.
    #[error("bay {bay}: expected a plan within {held} notes, got {wanted}")]
    NotEnough {
        /// The bay.
        bay: BayId,
        /// Notes on hand by the journal.
        held: i64,
        /// Notes that the plan wants.
        wanted: u32,
    },
    /// An amount of notes that does not fit.
    #[error("a count of notes does not fit")]
    Overflow,
}

impl Classified for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::NonceUsed(_)
            | Self::StaleVerdict { .. }
            | Self::ChangeApplied(_)
            | Self::StaleChange { .. }
            | Self::NotEnough { .. } => Kind::Permanent,
            Self::Ended { .. }
            | Self::UnknownTxn { .. }
            | Self::Unresolved { .. }
            | Self::IntentRepeated { .. }
            | Self::NothingToResolve { .. }
            | Self::RequestRepeated(_)
            | Self::NoSuchBay(_)
            | Self::Overflow => Kind::Misuse,
        }
    }
}
