//! The store's own promises: durable, grouped, isolated, alone.

mod books;
mod fixtures;
mod fleet;
mod payout;
pub(super) mod plans;
mod tokens;
mod trade;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::time::Unix;

use super::column::ToColumn;
use super::log::{forget_nonces, use_nonce};
use super::row::Row;
use super::*;

/// Tells a child process of these tests which database to work on.
const CHILD: &str = "BITSPIRE_TEST_STORE_CHILD";

struct Folder {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("operator.db");
    Folder { _dir: dir, path }
}

fn open(folder: &Folder) -> Store {
    Store::open(&folder.path, Unix(1)).unwrap()
}

fn mark(store: &Store, nonce: &str) -> Result<bool, StoreError> {
    let nonce = nonce.to_owned();
    store.write_blocking(move |tx| use_nonce(tx, "test", &nonce, Unix(9)))
}

fn marks(store: &Store) -> u64 {
    let count = |read: &Read<'_>| {
        read.one("SELECT count(*) AS n FROM used_nonces", &[], |row: &Row<'_>| row.get("n"))
    };
    store.read_blocking::<Option<u64>, StoreError, _>(count).unwrap().unwrap()
}

/// This test binary again, running only the test `name`, on `database`.
fn child(name: &str, database: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("store::tests::{name}"), "--exact", "--nocapture"]);
    command.env(CHILD, database).stdout(Stdio::piped());
    command
}

/// The numbers that a child acknowledged, as far as it got, and then `end` with it.
fn acknowledged(mut child: Child, at_least: u64, end: impl FnOnce(&mut Child)) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = 0;
    let mut end = Some(end);
    while let Some(Ok(line)) = lines.next() {
        if let Some(number) = line.strip_prefix("acknowledged ") {
            last = number.parse().unwrap();
        }
        if last >= at_least
            && let Some(end) = end.take()
        {
            end(&mut child);
        }
    }
    child.wait().unwrap();
    last
}

/// Not a test by itself: what `what_was_acknowledged_survives_kill_9` starts and kills.
#[test]
fn writes_until_killed() {
    let Some(database) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&database), Unix(1)).unwrap();
    for number in 1u64.. {
        mark(&store, &number.to_string()).unwrap();
        println!("acknowledged {number}");
    }
}

/// Loss prevented: a payment that was recorded, acknowledged and gone after a crash is paid twice.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let folder = folder();
    let child = child("writes_until_killed", &folder.path).spawn().unwrap();
    let last = acknowledged(child, 25, |child| child.kill().unwrap());
    assert!(last >= 25);
    let store = open(&folder);
    assert!(marks(&store) >= last, "{last} acknowledged, {} found", marks(&store));
    assert!(!mark(&store, &last.to_string()).unwrap(), "the last one is there");
}

/// Not a test by itself: runs where the file system refuses to let a file grow.
#[test]
fn writes_until_the_disk_refuses() {
    let Some(database) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&database), Unix(1)).unwrap();
    for number in 1u64.. {
        let Err(error) = mark(&store, &number.to_string()) else {
            println!("acknowledged {number}");
            continue;
        };
        assert!(
            matches!(error, StoreError::CommitUnknown { .. } | StoreError::Stopped { .. }),
            "{error}"
        );
        break;
    }
    let again = mark(&store, "again").unwrap_err();
    assert!(matches!(again, StoreError::Stopped { .. }), "{again}");
    assert!(again.to_string().contains("restart"), "{again}");
    assert!(store.health().is_err());
}

/// Loss prevented: after a flush has failed, the next one may report success for lost pages.
#[test]
fn after_a_failed_write_the_writer_stops_for_good() {
    let folder = folder();
    drop(open(&folder));
    let inner = child("writes_until_the_disk_refuses", &folder.path);
    let mut command = Command::new("sh");
    // files of at most 512 kB; the signal for it is ignored, so that the write itself fails
    command.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env(CHILD, &folder.path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<_> = output.lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{lines:#?}");
    let last: u64 = lines
        .iter()
        .filter_map(|line| line.strip_prefix("acknowledged "))
        .next_back()
        .map(|number| number.parse().unwrap())
        .unwrap();
    let store = open(&folder);
    assert!(marks(&store) >= last && marks(&store) <= last + 1, "{last}: {}", marks(&store));
    assert!(mark(&store, "after the restart").unwrap());
}

/// Loss prevented: a flush for each write is a limit of a few hundred sales a second.
#[test]
fn jobs_that_wait_together_share_one_commit() {
    let folder = folder();
    let store = open(&folder);
    let (release, held) = channel::<()>();
    let before = store.stats();
    let first = store.write(move |_| held.recv().map_err(|_| StoreError::Busy));
    let waiting: Vec<_> = (0..50)
        .map(|n| store.write(move |tx| use_nonce(tx, "test", &n.to_string(), Unix(9))))
        .collect();
    release.send(()).unwrap();
    let all = async move {
        first.await.unwrap();
        for one in waiting {
            assert!(one.await.unwrap());
        }
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(all);
    let after = store.stats();
    assert_eq!(after.jobs - before.jobs, 51);
    assert_eq!(after.commits - before.commits, 1, "one flush for all of them");
}

/// Loss prevented: one machine's bad request undoes the payment recorded beside it.
#[test]
fn a_job_that_fails_takes_no_other_with_it() {
    let folder = folder();
    let store = open(&folder);
    let (release, held) = channel::<()>();
    let first = store.write(move |tx| {
        held.recv().map_err(|_| StoreError::Busy)?;
        use_nonce(tx, "test", "first", Unix(9))
    });
    let fails = store.write(|tx| {
        use_nonce(tx, "test", "half", Unix(9))?;
        tx.insert("audit_log", &[("at", &Unix(1))])
    });
    let last = store.write(|tx| use_nonce(tx, "test", "last", Unix(9)));
    release.send(()).unwrap();
    let all = async move { (first.await, fails.await, last.await) };
    let (first, failed, last) =
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(all);
    assert!(first.unwrap() && last.unwrap());
    let failed = failed.unwrap_err();
    assert!(
        matches!(&failed, StoreError::Constraint { kind: ConstraintKind::NotNull, on } if on == "audit_log.actor"),
        "{failed}"
    );
    assert_eq!(marks(&store), 2, "the failed job's own write is undone");
    assert_eq!(store.stats().failed, 1);
    assert_eq!(store.stats().commits, 1);
}

/// Loss prevented: two services on one database pay each claim twice.
#[test]
fn a_second_opener_is_refused() {
    let folder = folder();
    let store = open(&folder);
    let refused = Store::open(&folder.path, Unix(2)).unwrap_err();
    let us = format!("pid {}", std::process::id());
    assert!(matches!(&refused, OpenError::Locked { holder, .. } if *holder == us), "{refused}");
    drop(store);
    open(&folder);
}

/// Loss prevented: our schema written into another program's database.
#[test]
fn a_foreign_database_is_refused() {
    let folder = folder();
    let other = rusqlite::Connection::open(&folder.path).unwrap();
    other.execute_batch("CREATE TABLE theirs (x INTEGER)").unwrap();
    drop(other);
    let refused = Store::open(&folder.path, Unix(1)).unwrap_err();
    assert!(matches!(refused, OpenError::Foreign { got: 0, .. }), "{refused}");
}

/// Loss prevented: an unbounded queue grows until the machine has no memory for the writer.
#[test]
fn a_full_queue_is_an_error_and_counted() {
    let folder = folder();
    let store = open(&folder);
    let (release, held) = channel::<()>();
    let (started, running) = channel();
    let first = store.write(move |_| {
        started.send(()).map_err(|_| StoreError::Busy)?;
        held.recv().map_err(|_| StoreError::Busy)
    });
    running.recv().unwrap();
    let waiting: Vec<_> =
        (0..QUEUE).map(|_| store.write(|tx| forget_nonces(tx, Unix(1)))).collect();
    let refused = mark(&store, "one too many").unwrap_err();
    assert!(matches!(refused, StoreError::QueueFull { places: QUEUE }), "{refused}");
    assert_eq!(refused.kind(), Kind::Transient);
    assert_eq!(store.stats().queue_full, 1);
    release.send(()).unwrap();
    let all = async move {
        first.await.unwrap();
        for one in waiting {
            one.await.unwrap();
        }
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(all);
    assert!(mark(&store, "now there is room").unwrap());
}

/// Loss prevented: a writer that is gone, behind a health page that says that all is well.
#[test]
fn a_job_that_panics_ends_the_writer_and_is_told() {
    let folder = folder();
    let store = open(&folder);
    let panicked = store.write_blocking::<(), StoreError, _>(|_| panic!("on purpose"));
    assert!(matches!(panicked, Err(StoreError::Stopped { .. })), "{panicked:?}");
    let after = mark(&store, "after").unwrap_err();
    assert!(after.to_string().contains("a job panicked"), "{after}");
    assert!(store.health().is_err());
    assert_eq!(marks(&store), 0, "reading goes on");
}

/// Loss prevented: a query that writes past the writer, so past its durability.
#[test]
fn a_reader_sees_what_was_acknowledged_and_cannot_write() {
    let folder = folder();
    let store = open(&folder);
    for n in 0..20u64 {
        mark(&store, &n.to_string()).unwrap();
        assert_eq!(marks(&store), n + 1);
    }
    let refused = store
        .read_blocking(|read| {
            read.one("DELETE FROM used_nonces RETURNING nonce", &[], |row| {
                row.get::<String>("nonce")
            })
        })
        .unwrap_err();
    assert!(matches!(refused, StoreError::Statement(_)), "{refused}");
    assert_eq!(marks(&store), 20);
}

/// Loss prevented: an amount above 2^63 stored as a negative one.
#[test]
fn a_number_that_does_not_fit_is_refused() {
    assert!(matches!(u64::MAX.to_value(), Err(StoreError::TooLarge { got: u64::MAX })));
    let folder = folder();
    let store = open(&folder);
    let read = store
        .read_blocking(|read| read.one("SELECT -1 AS n", &[], |row: &Row<'_>| row.get::<u64>("n")));
    assert!(matches!(&read, Err(StoreError::Column { column, .. }) if column == "n"), "{read:?}");
}

/// Loss prevented: history rewritten, by a REPLACE too, which no DELETE statement announces.
#[test]
fn the_audit_log_is_append_only() {
    let folder = folder();
    let store = open(&folder);
    let entry = super::log::Audit {
        at: Unix(1),
        actor: "cli".into(),
        action: "test".into(),
        subject: "machine:1".into(),
        detail: Json(serde_json::json!({"before": 1})),
        signed: None,
    };
    let kept = entry.clone();
    store.write_blocking(move |tx| super::log::audit(tx, &kept)).unwrap();
    for sql in [
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "REPLACE INTO audit_log (id, at, actor, action, subject, detail)
         VALUES (1, 2, 'nobody', 'test', 'machine:1', '{}')",
    ] {
        let refused = store.write_blocking(move |tx| tx.run(sql, &[])).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Constraint { kind: ConstraintKind::Rule, on } if on == "audit_log: append only"),
            "{sql}: {refused}"
        );
    }
    let tail =
        store.read_blocking(|read| super::log::audit_tail(read, Some("machine:1"), 5)).unwrap();
    assert_eq!(tail.len(), 1);
    assert_eq!(tail[0].row, entry);
}

/// Loss prevented: an audit whose threads see different moments, and tells differences where none are.
#[tokio::test]
async fn snapshots_are_of_one_moment() {
    let folder = folder();
    let store = open(&folder);
    let seen = |snapshot: &Snapshot| {
        let sql = "SELECT count(*) AS n FROM used_nonces";
        let count = snapshot.read().one(sql, &[], |row: &Row<'_>| row.get::<u64>("n"));
        count.unwrap().unwrap()
    };
    let writer = store.clone();
    let writes = std::thread::spawn(move || {
        for n in 0..300 {
            assert!(mark(&writer, &format!("n{n}")).unwrap());
        }
    });
    let mut groups = Vec::new();
    while !writes.is_finished() {
        let before = marks_now(&store).await;
        let group = store.snapshots(3).await.unwrap();
        groups.push((before, group));
        if groups.len() > 20 {
            groups.remove(0);
        }
    }
    writes.join().unwrap();
    for (before, group) in &groups {
        let counts: Vec<_> = group.iter().map(seen).collect();
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        assert!(counts[0] >= *before, "{counts:?} after {before} were acknowledged");
    }
    assert_eq!(seen(&store.snapshots(1).await.unwrap()[0]), 300);
}

async fn marks_now(store: &Store) -> u64 {
    let sql = "SELECT count(*) AS n FROM used_nonces";
    let count = |read: &Read<'_>| read.one(sql, &[], |row: &Row<'_>| row.get("n"));
    store.read::<Option<u64>, StoreError, _>(count).await.unwrap().unwrap()
}
