//! What can go wrong between the daemon and its database.
//!
//! Promise: a caller learns whether its write is in the database ([`Kind::Permanent`],
//! [`Kind::Transient`]: it is not) or whether nobody knows ([`Kind::Uncertain`]: the commit itself
//! failed). A refusal by the schema is told apart from a fault of the disk.

use std::path::PathBuf;

use bitspire_shared::error::{Classified, Kind};
use rusqlite::ErrorCode;
use rusqlite::ffi;
use thiserror::Error;

/// Which rule of the schema refused a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConstraintKind {
    /// A value that must be unique exists already.
    Unique,
    /// A CHECK does not hold.
    Check,
    /// A row that is referred to does not exist, or is still referred to.
    ForeignKey,
    /// A value is missing.
    NotNull,
    /// A trigger refused: append-only table, sum not zero, final state changed.
    Rule,
    /// A value of another type than the column's.
    Type,
}

/// Why a read or a write had no result.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The schema refused the row; nothing was written.
    #[error("database refused a row: {kind:?} constraint, {on}")]
    Constraint {
        /// Which kind of rule.
        kind: ConstraintKind,
        /// The column, the constraint's name or the trigger's message.
        on: String,
    },
    /// A stored value is not what its column should hold.
    #[error("database column {column}: expected {expected}; the row was not written by this code")]
    Column {
        /// The column that was read.
        column: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A number beyond what SQLite stores (2^63 - 1).
    #[error("cannot be stored: expected at most 9223372036854775807, got {got}")]
    TooLarge {
        /// The number that came.
        got: u64,
    },
    /// The row that should be changed does not exist, or is no longer in the state expected.
    #[error("database table {table}: expected one row to change, got {changed}")]
    NotOneRow {
        /// The table.
        table: &'static str,
        /// Rows that did change.
        changed: u64,
    },
    /// The same key with other content: refused, and an alarm, because one of the two is wrong.
    #[error("{what} {key} is recorded with other content: nothing was written; look at both")]
    Conflict {
        /// What is recorded.
        what: &'static str,
        /// Its key.
        key: String,
    },
    /// Too many calls are waiting for the database already.
    #[error("database queue: expected a free place, all {places} are taken; try again")]
    QueueFull {
        /// Places in the queue.
        places: usize,
    },
    /// Another program holds the database's write lock; nothing was written.
    #[error("database is locked by another program: close it and try again")]
    Busy,
    /// The commit failed: whether the write is durable is known only after a restart.
    #[error("database commit failed ({reason}): the outcome is known only after a restart")]
    CommitUnknown {
        /// What SQLite said.
        reason: String,
    },
    /// The writer stopped after an I/O error, or the store is closed. Nothing was written.
    #[error("database writer has stopped ({reason}): check the disk and restart the service")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// A further reader of the database could not be opened.
    #[error("database: no further reader")]
    Reader(#[source] Box<OpenError>),
    /// Any other failure of a statement; nothing was written.
    #[error("database statement failed")]
    Statement(#[source] rusqlite::Error),
}

impl Classified for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::QueueFull { .. } | Self::Busy => Kind::Transient,
            Self::CommitUnknown { .. } => Kind::Uncertain,
            Self::TooLarge { .. } | Self::NotOneRow { .. } => Kind::Misuse,
            Self::Constraint { .. }
            | Self::Conflict { .. }
            | Self::Column { .. }
            | Self::Stopped { .. }
            | Self::Reader(_)
            | Self::Statement(_) => Kind::Permanent,
        }
    }
}

impl StoreError {
    /// Whether a value that must be unique exists already, on a column or index named `on`.
    #[must_use]
    pub fn is_unique_on(&self, on: &str) -> bool {
        matches!(self, Self::Constraint { kind: ConstraintKind::Unique, on: got } if got.contains(on))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let rusqlite::Error::SqliteFailure(code, message) = &error else {
            return Self::Statement(error);
        };
        match code.code {
            ErrorCode::ConstraintViolation => {
                let kind = match code.extended_code {
                    ffi::SQLITE_CONSTRAINT_UNIQUE
                    | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                    | ffi::SQLITE_CONSTRAINT_ROWID => ConstraintKind::Unique,
                    ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
                    ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
                    ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
                    ffi::SQLITE_CONSTRAINT_TRIGGER => ConstraintKind::Rule,
                    ffi::SQLITE_CONSTRAINT_DATATYPE => ConstraintKind::Type,
                    _ => return Self::Statement(error),
                };
                let text = message.as_deref().unwrap_or("unnamed");
                let on = text.split_once("constraint failed: ").map_or(text, |(_, on)| on);
                Self::Constraint { kind, on: on.to_owned() }
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy,
            _ => Self::Statement(error),
        }
    }
}

/// Whether after `error` nothing that this process writes can be trusted to reach the disk.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    )
}

/// Why the database was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another operator process uses this database.
    #[error("{path} is in use by another process ({holder}): stop it first", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: String,
    },
    /// The file or its folder cannot be used.
    #[error("{path}: cannot be opened", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another program's database.
    #[error("{path}: expected a database of this program, got application id {got:#x}", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The application id that it has.
        got: i64,
    },
    /// Written by a newer version of this program.
    #[error(
        "the database has schema version {found}, this program knows {known}: install the newer \
         program, or restore the backup made before the upgrade"
    )]
    Newer {
        /// Version of the database.
        found: u32,
        /// The highest version that this program knows.
        known: u32,
    },
    /// A migration that the database has applied is not the one that this program carries.
    #[error(
        "migration {number} in the database has SHA-256 {recorded}, this program's has {ours}: \
         one of the two was changed after release; use the program that wrote the database"
    )]
    MigrationChanged {
        /// Number of the migration.
        number: u32,
        /// Hash in the database.
        recorded: String,
        /// Hash of ours.
        ours: String,
    },
    /// The database's own record of its migrations has a gap, or does not match its version.
    #[error(
        "the database says version {version} but records {recorded} migrations: restore a backup"
    )]
    MigrationRecord {
        /// `user_version` of the database.
        version: u32,
        /// Migrations that it records.
        recorded: usize,
    },
    /// After a migration a row refers to one that is not there.
    #[error(
        "migration {number} leaves rows of {table} without what they refer to, so nothing was \
         changed: go back to the program from before, and report this"
    )]
    MigrationAstray {
        /// Number of the migration.
        number: u32,
        /// The table of the first such row.
        table: String,
    },
    /// A setting that durability or safety needs was not accepted.
    #[error("database setting {setting}: expected {expected}, got {got}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// SQLite refused.
    #[error("database cannot be opened or migrated")]
    Sqlite(#[from] rusqlite::Error),
}

impl Classified for OpenError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}
