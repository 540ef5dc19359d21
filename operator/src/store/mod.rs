//! The operator's database: one writer with group commit, readers beside it.
//!
//! Promise: what [`Store::write`] acknowledged survives kill -9 and power loss (WAL with
//! `synchronous=FULL`, the answer comes after the COMMIT); a job that fails leaves no trace; one
//! process at a time. The schema says what it can by itself: STRICT tables, CHECKs, foreign keys,
//! unique indexes for everything that must happen once, triggers for what is append-only or final.
//!
//! This module is the only one that knows SQLite. What other modules ask of the database is a typed
//! function of a submodule here that takes a [`Tx`] (to write) or a [`Read`].
//!
//! Failure policy: see [`StoreError`]; after a fault of the disk the writer stops for good.

pub mod bunker;
pub mod canaries;
pub mod cassettes;
pub mod claims;
mod column;
pub mod documents;
mod error;
pub mod event_ids;
pub mod heads;
pub mod invoices;
pub mod ledger;
pub mod legs;
pub mod log;
pub mod lps;
pub mod machines;
mod migrate;
pub mod operators;
pub mod outbox;
pub mod pairing;
pub mod payments;
pub mod quotes;
mod readers;
pub mod recycled;
pub mod relay_docs;
pub mod requests;
pub mod rollouts;
mod row;
pub mod rules;
pub mod service;
pub mod sessions;
pub mod settlements;
mod sqlite;
pub mod tokens;
pub mod unrecorded;
pub mod verdicts;
pub mod volume;
pub mod webhook;
pub mod withdraws;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use bitspire_shared::time::Unix;
use tokio::sync::oneshot;

pub use column::{Json, JsonText};
pub use error::{ConstraintKind, OpenError, StoreError};
pub use readers::Snapshot;
pub use row::{Around, Kept, Read, Recorded, Tx};
#[cfg(test)]
pub(crate) use tests::plans::counted;

use migrate::{MIGRATIONS, Migration, migrate};
use readers::ReadJob;
use row::Columns;
use writer::{Answer, Health, Job, Writer};

/// Places in each queue; a full one is an error that the caller sees, and counted.
pub(crate) const QUEUE: usize = 1_024;
/// Threads that read.
const READERS: usize = 4;

/// The database. Clones share it; it is closed with the last one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    health: Arc<Health>,
    /// `None` only while the store is being dropped.
    queues: Option<Queues>,
    threads: Vec<JoinHandle<()>>,
}

struct Queues {
    write: SyncSender<Box<dyn Job>>,
    read: SyncSender<ReadJob>,
}

/// What the writer has done since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions committed: so many flushes were waited for.
    pub commits: u64,
    /// Jobs run, or refused.
    pub jobs: u64,
    /// Jobs that failed and were undone.
    pub failed: u64,
    /// Calls refused because a queue was full.
    pub queue_full: u64,
    /// Jobs that wait for the writer now.
    pub waiting: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.stats()).finish()
    }
}

impl Store {
    /// Opens the database at `path`, creates it where there is none, and brings it to the current
    /// schema. Takes the lock of the whole database for this process.
    ///
    /// # Errors
    /// [`OpenError`]: in use by another process, newer than this program, changed, unusable.
    pub fn open(path: &Path, now: Unix) -> Result<Self, OpenError> {
        Self::open_with(path, now, MIGRATIONS, READERS)
    }

    /// [`open`](Self::open) for a file with another schema.
    fn open_with(
        path: &Path,
        now: Unix,
        migrations: &[Migration],
        readers: usize,
    ) -> Result<Self, OpenError> {
        let lock = sqlite::lock(path)?;
        let mut conn = sqlite::open_writer(path)?;
        migrate(&mut conn, migrations, now)?;
        sqlite::undo_in_memory(&conn)?;
        let thread_failed = |source| OpenError::Io { path: path.to_owned(), source };

        let health = Arc::new(Health::default());
        let (read, read_queue) = sync_channel(QUEUE);
        let (write, write_queue) = sync_channel(QUEUE);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let mut threads = Vec::new();
        for n in 0..readers {
            let conn = sqlite::open_reader(path)?;
            let queue = Arc::clone(&read_queue);
            let thread = Builder::new().name(format!("db-read-{n}"));
            threads
                .push(thread.spawn(move || readers::serve(&conn, &queue)).map_err(thread_failed)?);
        }
        // the writer is joined last: SQLite tidies the WAL when its last connection closes
        let writer = Writer {
            conn,
            columns: Columns::default(),
            queue: write_queue,
            health: Arc::clone(&health),
            _lock: lock,
        };
        let thread = Builder::new().name("db-write".into());
        threads.push(thread.spawn(move || writer.serve()).map_err(thread_failed)?);
        let (path, queues) = (path.to_owned(), Some(Queues { write, read }));
        Ok(Self(Arc::new(Inner { path, health, queues, threads })))
    }

    /// Runs `job` on the writer's thread; the answer comes when its effects are on the disk, or
    /// undone because it failed.
    ///
    /// The job is queued by this call, not by the first poll, and runs even if the future is
    /// dropped. It must not wait for anything: everybody's writes wait for it.
    ///
    /// # Errors
    /// The job's own error, or a [`StoreError`] as one of its errors.
    pub fn write<T, E, F>(&self, job: F) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.queue_write(job);
        let health = Arc::clone(&self.0.health);
        async move { answer?.await.unwrap_or_else(|_| Err(health.stopped().into())) }
    }

    /// [`write`](Self::write) for a thread that may wait: CLI, tests. Never on an async thread.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_blocking<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.queue_write(job)?;
        answer.blocking_recv().unwrap_or_else(|_| Err(self.0.health.stopped().into()))
    }

    /// Runs `query` on a reading thread, on one snapshot of the database.
    ///
    /// # Errors
    /// The query's own error, or a [`StoreError`] as one of its errors.
    pub fn read<T, E, F>(
        &self,
        query: F,
    ) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F>
    where
        F: FnOnce(&Read<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.queue_read(query);
        let health = Arc::clone(&self.0.health);
        async move { answer?.await.unwrap_or_else(|_| Err(health.stopped().into())) }
    }

    /// [`read`](Self::read) for a thread that may wait: CLI, tests. Never on an async thread.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_blocking<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Read<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.queue_read(query)?;
        answer.blocking_recv().unwrap_or_else(|_| Err(self.0.health.stopped().into()))
    }

    /// Readers of their own that all see one moment: what was acknowledged before this call is in it,
    /// and nothing of later writes. For work of minutes, which would keep the others' readers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshots(&self, count: usize) -> Result<Vec<Snapshot>, StoreError> {
        let path = self.0.path.clone();
        // nobody commits while the writer does this
        self.write(move |_| (0..count).map(|_| Snapshot::take(&path)).collect()).await
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let health = &self.0.health;
        let jobs = health.jobs.load(Ordering::Relaxed);
        StoreStats {
            commits: health.commits.load(Ordering::Relaxed),
            jobs,
            failed: health.failed.load(Ordering::Relaxed),
            queue_full: health.queue_full.load(Ordering::Relaxed),
            waiting: health.queued.load(Ordering::Relaxed).saturating_sub(jobs),
        }
    }

    /// Whether the writer still takes jobs; for the health page and the watchdog.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] with the reason.
    pub fn health(&self) -> Result<(), StoreError> {
        self.0.health.check()
    }

    /// From now on the process dies when `death` says so, at a commit of this store.
    #[cfg(test)]
    pub(crate) fn dies_by(&self, death: crate::testing::Death) {
        self.0.health.death.set(death).unwrap();
    }

    fn queue_write<T, E, F>(&self, job: F) -> Result<oneshot::Receiver<Result<T, E>>, StoreError>
    where
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.0.health.check()?;
        let (reply, answer) = oneshot::channel();
        let queues = self.queues()?;
        let job: Box<dyn Job> = Box::new(Task { job, reply });
        queues.write.try_send(job).map_err(|error| self.not_queued(&error))?;
        self.0.health.queued.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    fn queue_read<T, E, F>(&self, query: F) -> Result<oneshot::Receiver<Result<T, E>>, StoreError>
    where
        F: FnOnce(&Read<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |snapshot| {
            // a caller that went away is no fault
            let _ = reply.send(snapshot.map_err(E::from).and_then(query));
        });
        let queues = self.queues()?;
        queues.read.try_send(job).map_err(|error| self.not_queued(&error))?;
        Ok(answer)
    }

    fn queues(&self) -> Result<&Queues, StoreError> {
        self.0.queues.as_ref().ok_or_else(|| self.0.health.stopped())
    }

    fn not_queued<T>(&self, error: &TrySendError<T>) -> StoreError {
        match error {
            TrySendError::Full(_) => {
                self.0.health.queue_full.fetch_add(1, Ordering::Relaxed);
                StoreError::QueueFull { places: QUEUE }
            }
            TrySendError::Disconnected(_) => self.0.health.stopped(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queues = None;
        for thread in self.threads.drain(..) {
            // the last clone may have lived in a job: a thread does not wait for itself
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a database thread panicked");
            }
        }
    }
}

/// A job with the place for its answer.
struct Task<F, T, E> {
    job: F,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Job for Task<F, T, E>
where
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn run(self: Box<Self>, tx: &Tx<'_>) -> (bool, Answer) {
        let Self { job, reply } = *self;
        let result = job(tx);
        let keep = result.is_ok();
        let answer = move |committed: Result<(), StoreError>| {
            // a job that failed wrote nothing, whatever became of the others' transaction
            let result = result.and_then(|value| Ok(committed.map(|()| value)?));
            let _ = reply.send(result);
        };
        (keep, Box::new(answer))
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error.into()));
    }
}

/// Changes rows behind the back of the schema's rules, as a fault or a hand in the file would: for
/// tests of whoever has to notice.
#[cfg(test)]
pub(crate) fn damage(tx: &Tx<'_>, statements: &[&str]) -> Result<(), StoreError> {
    let rules = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '% BEFORE %'";
    for rule in tx.all(rules, &[], |row| row.get::<String>("name"))? {
        tx.run(&format!("DROP TRIGGER {rule}"), &[])?;
    }
    tx.run("PRAGMA ignore_check_constraints = ON", &[])?;
    for statement in statements {
        assert!(tx.run(statement, &[])? > 0, "nothing to damage: {statement}");
    }
    Ok(())
}
