//! The one thread that writes: group commit.
//!
//! Promise: a job is acknowledged only after the COMMIT of its transaction returned, so what was
//! acknowledged survives a power cut. Jobs that wait at the same time share one transaction and one
//! flush; each runs in a savepoint of its own, so a job that fails takes no other with it. While
//! others keep writing, a transaction stays open for at most one flush time (as measured) to let
//! them join; a lone writer waits for nobody.
//!
//! States: running -> stopped. Failure policy: after an I/O error, a full disk or a failed COMMIT
//! the writer stops for good. It never flushes again and hopes: the kernel may have dropped the
//! pages and report success. Jobs of that transaction are answered "unknown", all later ones
//! "stopped"; a restart finds out what is durable.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::{StoreError, is_fatal};
use super::row::{Columns, Tx};
use super::sqlite::Lock;

/// Most jobs in one transaction: bounds the wait of the first.
const BATCH: usize = 128;
/// The longest time that a transaction is held open for others to join.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// Changed rows after which an idle writer makes a checkpoint.
const CHECKPOINT_IDLE: u64 = 2_000;
/// Nobody has written for so long: not between two transactions of those who keep writing, whose pages
/// would be moved again and again.
const IDLE: Duration = Duration::from_millis(20);
/// Changed rows after which a busy one does, too.
const CHECKPOINT_BUSY: u64 = 50_000;

/// What both sides of the queue know of the writer.
#[derive(Debug, Default)]
pub(super) struct Health {
    stopped: OnceLock<String>,
    pub(super) commits: AtomicU64,
    pub(super) jobs: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) queue_full: AtomicU64,
    /// Jobs that were queued.
    pub(super) queued: AtomicU64,
    /// A test's word on when the process dies, counted in commits.
    #[cfg(test)]
    pub(super) death: OnceLock<crate::testing::Death>,
}

impl Health {
    /// The error of every call after the end.
    pub(super) fn stopped(&self) -> StoreError {
        let reason = self.stopped.get().map_or("the store is closed", String::as_str);
        StoreError::Stopped { reason: reason.to_owned() }
    }

    /// Whether the writer still runs, else why not.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.stopped.get().is_some() { Err(self.stopped()) } else { Ok(()) }
    }
}

/// Answers a caller, once it is known whether the transaction is durable.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

/// One caller's work.
pub(super) trait Job: Send {
    /// Runs inside a savepoint. The flag says whether to keep its effects.
    fn run(self: Box<Self>, tx: &Tx<'_>) -> (bool, Answer);
    /// Answers without having run.
    fn refuse(self: Box<Self>, error: StoreError);
}

/// The writer's thread.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) columns: Columns,
    pub(super) queue: Receiver<Box<dyn Job>>,
    pub(super) health: Arc<Health>,
    /// Given back after the connection is closed: fields are dropped in this order.
    pub(super) _lock: Lock,
}

/// Why no further transaction may be made.
struct Stop(String);

/// Says what ended the writer where nothing else could: a job that panicked.
struct SayWhy(Arc<Health>);

impl Drop for SayWhy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.stopped.set("a job panicked".into());
        }
    }
}

/// What one batch has learnt for the next.
struct Pace {
    /// One flush, as a moving average.
    flush: Duration,
    /// Jobs in the last transaction: so many writers are likely there again.
    expected: usize,
    /// Rows changed in all when the last checkpoint was made.
    checkpointed: u64,
}

impl Writer {
    /// Serves the queue until all senders are gone or the disk fails.
    pub(super) fn serve(mut self) {
        let _ended = SayWhy(Arc::clone(&self.health));
        let mut pace = Pace { flush: Duration::ZERO, expected: 1, checkpointed: 0 };
        loop {
            let served = match self.first(&mut pace) {
                Ok(None) => return,
                Ok(Some(first)) => self.batch(first, &mut pace),
                Err(stop) => Err(stop),
            };
            let served = served.and_then(|()| self.checkpoint(CHECKPOINT_BUSY, &mut pace));
            if let Err(Stop(reason)) = served {
                tracing::error!(reason, "database writer stops");
                // dropping the queue answers every job that still waits in it
                let _ = self.health.stopped.set(reason);
                return;
            }
        }
    }

    /// The first job of the next transaction; `None` when all senders are gone.
    fn first(&mut self, pace: &mut Pace) -> Result<Option<Box<dyn Job>>, Stop> {
        if self.changed(pace) >= CHECKPOINT_IDLE {
            match self.queue.recv_timeout(IDLE) {
                Ok(job) => return Ok(Some(job)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.checkpoint(CHECKPOINT_IDLE, pace)?,
            }
        }
        Ok(self.queue.recv().ok())
    }

    fn batch(&mut self, first: Box<dyn Job>, pace: &mut Pace) -> Result<(), Stop> {
        if let Err(error) = self.conn.execute_batch("BEGIN IMMEDIATE") {
            let stop = is_fatal(&error).then(|| Stop(error.to_string()));
            self.health.jobs.fetch_add(1, Ordering::Relaxed);
            self.health.failed.fetch_add(1, Ordering::Relaxed);
            first.refuse(error.into());
            return stop.map_or(Ok(()), Err);
        }
        let deadline = Instant::now() + pace.flush.min(LONGEST_WAIT);
        let mut answers = VecDeque::new();
        let mut next = Some(first);
        while let Some(job) = next {
            if let Err(Stop(reason)) = self.run(job, &mut answers) {
                // nothing of this transaction was committed
                let _ = self.conn.execute_batch("ROLLBACK");
                for answer in answers {
                    answer(Err(StoreError::Stopped { reason: reason.clone() }));
                }
                return Err(Stop(reason));
            }
            next = self.another(answers.len(), pace.expected, deadline);
        }
        let began = Instant::now();
        let committed = self.conn.execute_batch("COMMIT");
        pace.expected = answers.len();
        pace.flush = (pace.flush * 3 + began.elapsed()) / 4;
        if let Err(error) = committed {
            let reason = error.to_string();
            for answer in answers {
                answer(Err(StoreError::CommitUnknown { reason: reason.clone() }));
            }
            return Err(Stop(format!("commit: {reason}")));
        }
        self.health.commits.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        if self.health.death.get().is_some_and(crate::testing::Death::strikes) {
            // as after kill -9: what was committed stays, nobody hears of it, nothing more is done
            let _unheard = (answers, self.queue.iter().collect::<Vec<_>>());
            return Err(Stop("killed by a test".into()));
        }
        for answer in answers {
            answer(Ok(()));
        }
        Ok(())
    }

    /// The next job of this transaction, if it is to have one.
    fn another(&self, have: usize, expected: usize, deadline: Instant) -> Option<Box<dyn Job>> {
        if have >= BATCH {
            return None;
        }
        match self.queue.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if have >= expected => return None,
            Err(TryRecvError::Empty) => {}
        }
        self.queue.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    fn run(&mut self, job: Box<dyn Job>, answers: &mut VecDeque<Answer>) -> Result<(), Stop> {
        let stop = |error: rusqlite::Error| Stop(error.to_string());
        self.health.jobs.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.prepared("SAVEPOINT job") {
            let reason = error.to_string();
            job.refuse(StoreError::Stopped { reason });
            return Err(stop(error));
        }
        let tx = Tx::new(&self.conn, &self.columns);
        let (keep, answer) = job.run(&tx);
        let fatal = tx.into_fatal();
        answers.push_back(answer);
        if let Some(reason) = fatal {
            return Err(Stop(reason));
        }
        if self.conn.is_autocommit() {
            // SQLite rolls the whole transaction back by itself on some faults
            return Err(Stop("the transaction was rolled back under a job".into()));
        }
        if keep {
            self.prepared("RELEASE job").map_err(stop)
        } else {
            self.health.failed.fetch_add(1, Ordering::Relaxed);
            self.conn.execute_batch("ROLLBACK TO job; RELEASE job").map_err(stop)
        }
    }

    /// Runs what each job needs: read once, not each time.
    fn prepared(&self, sql: &str) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// Rows changed since the last checkpoint.
    fn changed(&self, pace: &Pace) -> u64 {
        self.conn.total_changes().saturating_sub(pace.checkpointed)
    }

    /// Moves what is committed from the WAL into the database, where so many rows have changed.
    fn checkpoint(&mut self, due: u64, pace: &mut Pace) -> Result<(), Stop> {
        if self.changed(pace) < due {
            return Ok(());
        }
        pace.checkpointed = self.conn.total_changes();
        match self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            Err(error) if is_fatal(&error) => Err(Stop(format!("checkpoint: {error}"))),
            // put off by another program that reads: the next one moves these pages, too
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
