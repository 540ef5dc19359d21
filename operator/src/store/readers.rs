//! Threads that only read, beside the writer.
//!
//! Promise: each job sees one snapshot, taken after every write that was acknowledged before the
//! job was asked for. Reading waits for no writer, and no async thread waits for a disk.
//!
//! Failure policy: a failed read is an error of that call only.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::error::StoreError;
use super::row::{Columns, Read};
use super::sqlite;

/// One caller's query: gets the snapshot, or the error that kept it from being taken.
pub(super) type ReadJob = Box<dyn FnOnce(Result<&Read<'_>, StoreError>) + Send>;

/// The queue that all reading threads share.
pub(super) type ReadQueue = Arc<Mutex<Receiver<ReadJob>>>;

/// Serves the queue until all senders are gone.
pub(super) fn serve(conn: &Connection, queue: &ReadQueue) {
    let columns = Columns::default();
    loop {
        // the guard is dropped at the end of this statement: jobs run side by side
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        match conn.execute_batch("BEGIN") {
            Ok(()) => {
                job(Ok(&Read::new(conn, &columns)));
                if let Err(error) = conn.execute_batch("ROLLBACK") {
                    tracing::warn!(%error, "a read transaction did not end");
                }
            }
            Err(error) => job(Err(error.into())),
        }
    }
}

/// A connection that sees the database as it was when it was taken.
#[derive(Debug)]
pub struct Snapshot(Connection, Columns);

impl Snapshot {
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let conn = sqlite::open_reader(path).map_err(|e| StoreError::Reader(Box::new(e)))?;
        // the first statement that reads takes it
        conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
        // kibibytes: whoever reads everything finds most of what leads there by random ids
        conn.execute_batch("PRAGMA cache_size = -32768;")?;
        Ok(Self(conn, Columns::default()))
    }

    /// Reads in it.
    #[must_use]
    pub fn read(&self) -> Read<'_> {
        Read::new(&self.0, &self.1)
    }
}
