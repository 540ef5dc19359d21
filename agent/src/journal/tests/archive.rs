//! Entries that move to the archive: none is lost, the chain goes on, what has ended stays ended.

use std::fs;

use super::*;
use crate::journal::archive::{End, path_of};

const DAY: u64 = 86_400;
/// Everything that may move does.
const ALL: Keeping = Keeping { older_than_s: 3 * DAY, more_than: u64::MAX, least: 1, most: 2_048 };

fn at(days_ago: u64) -> Unix {
    Unix(NOW.0 - days_ago * DAY)
}

/// So many sales, each closed at once, `days_ago`.
fn sales(journal: &mut Journal, which: std::ops::Range<u8>, days_ago: u64) {
    for n in which {
        for (name, stage) in [("paid", Stage::Open), ("settled", Stage::Closed)] {
            journal.append(at(days_ago), Entry::Txn(txn(n, name, stage))).unwrap();
        }
        let request = RequestEntry {
            request_id: RequestId::from_bytes([n; 16]),
            txid: Some(txid(n)),
            rpc: "report_dispense".into(),
            body: json!({}),
        };
        journal.append(at(days_ago), Entry::Request(request)).unwrap();
    }
}

/// Entries of today that stay in any case.
fn today(journal: &mut Journal) {
    for n in 0..200 {
        let value = json!(n);
        journal
            .append(NOW, Entry::Setting { key: "beat".into(), value, cash: Vec::new() })
            .unwrap();
    }
}

impl Place {
    /// Old sales, one that is open, more old sales, and today.
    fn with_history() -> Self {
        let place = Self::new();
        let mut journal = Journal::open(&place.path, MACHINE, at(30)).unwrap();
        sales(&mut journal, 1..40, 20);
        journal.append(at(20), Entry::Txn(txn(40, "uncertain", Stage::Open))).unwrap();
        sales(&mut journal, 41..60, 20);
        today(&mut journal);
        drop(journal);
        place
    }

    fn export_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        Reader::open(&self.path).unwrap().export(&mut lines).unwrap();
        String::from_utf8(lines).unwrap().lines().skip(1).map(ToOwned::to_owned).collect()
    }

    fn live(&self) -> i64 {
        let raw = self.raw();
        raw.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
    }
}

/// Loss prevented: an entry lost on its way to the archive, a sale that is torn apart by it, or one
/// that begins again because its entries are gone.
#[test]
fn closed_sales_move_to_the_archive_and_stay_ended() {
    let place = Place::with_history();
    let (before, live) = (place.export_lines(), place.live());
    let mut journal = place.open().unwrap();
    let moved = journal.archive(NOW, &ALL).unwrap();
    // genesis, the first start, and the sales up to the open one
    assert_eq!(moved, 2 + 39 * 3);
    assert_eq!(journal.archive(NOW, &ALL).unwrap(), 0, "the open sale and what follows stays");
    // genesis stays, the start and the move are new
    assert_eq!(place.live(), live - i64::try_from(moved).unwrap() + 1 + 2);
    assert_eq!(place.export_lines()[..before.len()], before[..]);
    assert_eq!(verify_file(&place.path).unwrap().head, journal.head());

    assert!(journal.has_ended(txid(7)).unwrap());
    let again = append(&mut journal, txn(7, "paid", Stage::Open));
    assert_eq!(refusal(again), Refusal::Ended { txid: txid(7) });
    assert_eq!(journal.txn(txid(50)).unwrap().unwrap().name, "settled");
    let reader = Reader::open(&place.path).unwrap();
    assert_eq!(reader.entries_of(txid(7)).unwrap().len(), 3);
    // what the operator has seen of it is found in both
    let head = journal.head();
    let seen = reader.hashes(&[JournalSeq(1), JournalSeq(20), head.seq].into()).unwrap();
    let twentieth: serde_json::Value = serde_json::from_str(&before[19]).unwrap();
    assert_eq!(seen[&JournalSeq(20)].to_string(), twentieth["hash"].as_str().unwrap());
    assert_eq!((seen.len(), seen[&head.seq]), (3, head.hash));
    drop(reader);

    journal.append(NOW, Entry::Txn(txn(40, "settled", Stage::Closed))).unwrap();
    assert_eq!(journal.archive(NOW, &ALL).unwrap(), 0, "it was closed today");
    today(&mut journal);
    let later = Unix(NOW.0 + 10 * DAY);
    assert!(journal.archive(later, &ALL).unwrap() > 60);
    drop(journal);
    let journal = place.open().unwrap();
    assert!(journal.has_ended(txid(40)).unwrap());
    assert!(journal.open_txns().unwrap().is_empty());
    assert_eq!(place.export_lines()[..before.len()], before[..]);
    assert_eq!(verify_file(&place.path).unwrap().open, 0);
}

/// Loss prevented: entries that the day's limits are counted from, or that a young journal needs,
/// moved because it is large.
#[test]
fn a_large_journal_moves_early_but_never_the_last_two_days() {
    let place = Place::new();
    let mut journal = Journal::open(&place.path, MACHINE, at(9)).unwrap();
    sales(&mut journal, 1..60, 8);
    sales(&mut journal, 60..120, 1);
    today(&mut journal);
    let keeping = Keeping { older_than_s: 90 * DAY, more_than: 400, ..ALL };
    let held = journal.head().seq.0;
    let moved = journal.archive(NOW, &keeping).unwrap();
    assert!(held - u64::try_from(moved).unwrap() >= 399 && moved > 100, "{moved} of {held}");
    let keeping = Keeping { more_than: 0, ..keeping };
    journal.archive(NOW, &keeping).unwrap();
    assert_eq!(journal.txn(txid(60)).unwrap().unwrap().name, "settled");
    assert!(journal.txn(txid(59)).unwrap().is_none());
    assert!(verify_file(&place.path).is_ok());
}

/// Loss prevented: a disk that fills because one sale was open for long, and nothing after it moved.
#[test]
fn a_sale_that_was_open_for_long_moves_with_all_that_it_spans() {
    let place = Place::new();
    let mut journal = Journal::open(&place.path, MACHINE, at(30)).unwrap();
    journal.append(at(20), Entry::Txn(txn(200, "uncertain", Stage::Open))).unwrap();
    sales(&mut journal, 1..60, 20);
    journal.append(at(20), Entry::Txn(txn(200, "settled", Stage::Closed))).unwrap();
    today(&mut journal);
    let moved = journal.archive(NOW, &Keeping { most: 16, least: 8, ..ALL }).unwrap();
    assert!(moved >= 59 * 3 + 2, "{moved}");
    assert!(verify_file(&place.path).is_ok());
}

/// Loss prevented: a power cut in the middle of a move that loses an entry, or leaves an archive
/// that no check understands.
#[test]
fn a_move_that_is_cut_off_anywhere_loses_nothing() {
    let place = Place::with_history();
    let file = path_of(&place.path);
    let before = place.export_lines();
    let journal_before = fs::read(&place.path).unwrap();
    let mut journal = place.open().unwrap();
    journal.archive(NOW, &ALL).unwrap();
    drop(journal);
    let whole = fs::read(&file).unwrap();
    let all = before.len();
    // a page in the middle was not flushed
    let mut holed = whole.clone();
    holed[300..700].fill(0);
    fs::write(&place.path, &journal_before).unwrap();
    fs::write(&file, &holed).unwrap();
    let mut journal = place.open().unwrap();
    assert_eq!(journal.archive(NOW, &ALL).unwrap(), 2 + 39 * 3);
    drop(journal);
    assert_eq!(fs::read(&file).unwrap(), whole);
    // the lines are there, in part or whole, and the journal does not say so yet
    for length in (0..=whole.len()).step_by(whole.len() / 23) {
        fs::write(&place.path, &journal_before).unwrap();
        fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(place.export_lines(), before);
        assert!(verify_file(&place.path).is_ok(), "{length}");
        let mut journal = place.open().unwrap();
        assert_eq!(journal.archive(NOW, &ALL).unwrap(), 2 + 39 * 3, "{length}");
        drop(journal);
        assert_eq!(fs::read(&file).unwrap(), whole, "{length}");
        assert_eq!(place.export_lines()[..all], before[..]);
        assert!(verify_file(&place.path).is_ok(), "{length}");
    }
}

/// Loss prevented: history that was changed or lost outside of the database and that a check calls
/// good, or an archive of another journal that is written over.
#[test]
fn what_is_wrong_with_the_archive_is_found_and_nothing_is_written_over_it() {
    let place = Place::with_history();
    let file = path_of(&place.path);
    let journal_before = fs::read(&place.path).unwrap();
    let mut journal = place.open().unwrap();
    journal.archive(NOW, &ALL).unwrap();
    drop(journal);
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(509) {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 7);
        fs::write(&file, &bad).unwrap();
        let said = verify_file(&place.path);
        assert!(matches!(said, Err(JournalError::Broken { .. })), "byte {at}: {said:?}");
    }
    // too short: found, and no move goes on from there
    fs::write(&file, &whole[..whole.len() - 10]).unwrap();
    assert!(matches!(verify_file(&place.path), Err(JournalError::Broken { .. })));
    let mut journal = place.open().unwrap();
    journal.append(at(19), Entry::Txn(txn(40, "settled", Stage::Closed))).unwrap();
    today(&mut journal);
    let later = Unix(NOW.0 + 10 * DAY);
    assert!(matches!(journal.archive(later, &ALL), Err(JournalError::Broken { .. })));
    assert_eq!(journal.poisoned(), None, "the journal itself is as good as before");
    // not there: opened all the same, and no move makes another
    drop(journal);
    fs::remove_file(&file).unwrap();
    let mut journal = place.open().unwrap();
    assert!(matches!(journal.archive(later, &ALL), Err(JournalError::Files { .. })));
    assert_eq!((journal.poisoned(), file.exists()), (None, false));
    drop(journal);

    // the lines of another journal: they stay
    fs::write(&place.path, &journal_before).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    let (first, rest) = whole.split_once('\n').unwrap();
    let mut first: serde_json::Value = serde_json::from_str(first).unwrap();
    first["at"] = json!(1);
    let other = format!("{first}\n{rest}");
    fs::write(&file, &other).unwrap();
    let mut journal = place.open().unwrap();
    assert!(matches!(journal.archive(NOW, &ALL), Err(JournalError::Broken { .. })));
    assert_eq!(fs::read_to_string(&file).unwrap(), other);
    assert_eq!(End::of(&journal.conn).unwrap(), End::default());
}

/// Loss prevented: an entry removed by hand, that the archive never got.
#[test]
fn only_what_lies_in_the_archive_can_leave_the_journal() {
    let place = Place::with_history();
    let mut journal = place.open().unwrap();
    journal.archive(NOW, &ALL).unwrap();
    drop(journal);
    let raw = place.raw();
    for sentence in [
        "DELETE FROM entries WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 200",
        "UPDATE archive SET upto = 5",
        "UPDATE archive SET bytes = 5",
    ] {
        assert!(raw.execute(sentence, []).is_err(), "{sentence}");
    }
    drop(raw);
    let good = fs::read(&place.path).unwrap();
    for sentence in [
        "INSERT INTO gone VALUES ('x' || ?1 || ?2 || ?3)",
        "DELETE FROM gone WHERE txid > '20' AND ?1 = ?2 AND ?2 = ?3",
        "UPDATE archive SET bytes = bytes - ?1 * ?2 * ?3",
        "UPDATE archive SET upto = upto - ?1 * ?2 * ?3",
        "UPDATE archive SET hash = zeroblob(32) WHERE ?1 = ?2 AND ?2 = ?3",
    ] {
        fs::write(&place.path, &good).unwrap();
        let one = rusqlite::types::Value::Integer(1);
        super::looking::edit(&place, sentence, [&one, &one, &one]);
        let said = verify_file(&place.path);
        assert!(matches!(said, Err(JournalError::Broken { .. })), "{sentence}: {said:?}");
    }
}
