mod archive;
mod looking;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{BayId, ChangeId, Digest, JournalSeq, Nonce, RequestId, TxnId};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Unix;
use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const NOW: Unix = Unix(1_800_000_000);
const MACHINE: Digest = Digest::from_bytes([1; 32]);

struct Place {
    _dir: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        Self { _dir: dir, path }
    }

    fn open(&self) -> Result<Journal, JournalError> {
        Journal::open(&self.path, MACHINE, NOW)
    }

    /// Somebody else's hands on the file.
    fn raw(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }
}

fn txid(n: u8) -> TxnId {
    TxnId::from_bytes([n; 16])
}

fn bay() -> BayId {
    BayId::new(1).unwrap()
}

fn txn(n: u8, name: &str, stage: Stage) -> TxnEntry {
    TxnEntry {
        txid: txid(n),
        name: name.into(),
        stage,
        cause: "test".into(),
        state: json!({ "name": name }),
        cash: Vec::new(),
        resolves: None,
        verdict: None,
    }
}

fn append(journal: &mut Journal, txn: TxnEntry) -> Result<JournalSeq, JournalError> {
    journal.append(NOW, Entry::Txn(txn))
}

fn load(journal: &mut Journal, count: u32) {
    let denomination = Denomination::from_minor(2_000).unwrap();
    let assign = vec![CashMove::Assign { bay: bay(), denomination, recycles: false }];
    let base_seq = journal.append(NOW, Entry::Cash(assign)).unwrap();
    let set = CashMove::Change {
        bay: bay(),
        change_id: ChangeId::from_bytes([9; 16]),
        change: CountChange::Set(count),
        base_seq,
        reason: "count".into(),
    };
    journal.append(NOW, Entry::Cash(vec![set])).unwrap();
}

fn plan(count: u32) -> DispensePlan {
    DispensePlan { notes: BTreeMap::from([(bay(), count)]) }
}

fn dispensed(n: u8, no: u32, presented: u32) -> TxnEntry {
    let denomination = Denomination::from_minor(2_000).unwrap();
    let result = BayResult { requested: presented, presented, ..BayResult::default() };
    let cash = vec![CashMove::Dispensed { bay: bay(), denomination, result, clears: false }];
    TxnEntry { cash, resolves: Some(no), ..txn(n, "paid", Stage::Open) }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, JournalError>) -> Refusal {
    match result.unwrap_err() {
        JournalError::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other}"),
    }
}

/// Loss prevented: a proof handed out before the flush dispenses notes that no record knows after a
/// power cut; a lazier sync mode does the same.
#[test]
fn a_commit_is_on_the_disk_before_the_proof_exists() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    let proof = journal.commit(NOW, txn(1, "committed", Stage::Open), 1, plan(4)).unwrap();
    assert_eq!(proof.as_ref(), &plan(4));
    let seq: i64 = place
        .raw()
        .query_row("SELECT max(seq) FROM entries WHERE kind = 'intent'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(u64::try_from(seq).unwrap(), proof.seq().0);
    let pragma = |name: &str| -> String {
        journal
            .conn
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("synchronous"), "Integer(2)");
}

/// Loss prevented: a restart that forgets an open transaction, its open intent or the notes that
/// went out.
#[test]
fn a_restart_finds_everything_again() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    drop(journal.commit(NOW, txn(1, "committed", Stage::Open), 1, plan(4)).unwrap());
    append(&mut journal, dispensed(1, 1, 4)).unwrap();
    let proof = journal.commit(NOW, txn(1, "committed", Stage::Open), 2, plan(2)).unwrap();
    append(&mut journal, txn(2, "settled", Stage::Closed)).unwrap();
    let (head, held, epoch) = (journal.head(), journal.holdings().clone(), journal.epoch());
    let intent = proof.seq();
    drop((journal, proof));

    let journal = place.open().unwrap();
    assert_eq!(journal.epoch(), epoch + 1);
    assert_eq!(journal.head().seq.0, head.seq.0 + 1);
    assert_eq!(journal.holdings(), &held);
    assert_eq!(held.bays[&bay()].on_hand(), 6);
    let open = journal.open_txns().unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].txid, open[0].name.as_str()), (txid(1), "committed"));
    let expected = OpenIntent { no: 2, what: "dispense".into(), seq: intent };
    assert_eq!(open[0].intent, Some(expected));
    assert_eq!(verify_file(&place.path).unwrap().open, 1);
}

/// Loss prevented: two vaults on one dispenser pay one customer twice.
#[test]
fn a_second_vault_does_not_start_and_an_overtaken_one_stops() {
    let place = Place::new();
    let mut first = place.open().unwrap();
    assert!(matches!(place.open(), Err(JournalError::Locked { .. })));

    // the lock was lost (a restored folder, a careless hand): the epoch still tells
    std::fs::remove_file(place.path.with_file_name("journal.db.lock")).unwrap();
    let mut second = place.open().unwrap();
    let late = append(&mut first, txn(1, "paid", Stage::Open));
    assert!(matches!(late, Err(JournalError::Fenced { .. })), "{late:?}");
    assert!(first.poisoned().is_some());
    append(&mut second, txn(1, "paid", Stage::Open)).unwrap();
}

/// Loss prevented: a vault that cannot start again, because a child of the last one lives a moment
/// longer than it.
#[test]
fn a_closed_journal_is_free_though_somebody_has_a_copy_of_its_handle() {
    let place = Place::new();
    let first = place.open().unwrap();
    let copy = first._lock.file.try_clone().unwrap();
    drop(first);
    place.open().unwrap();
    drop(copy);
}

/// Loss prevented: a program that tries again after a failed flush believes a write that the disk
/// has thrown away.
#[test]
fn a_failed_write_closes_the_journal_for_good() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    let before = journal.head();
    journal.conn.pragma_update(None, "max_page_count", 1).unwrap();
    let big = TxnEntry { state: json!("x".repeat(1 << 20)), ..txn(2, "paid", Stage::Open) };
    assert!(matches!(append(&mut journal, big), Err(JournalError::Database { .. })));
    journal.conn.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    let again = append(&mut journal, txn(3, "paid", Stage::Open));
    assert!(matches!(again, Err(JournalError::Poisoned { .. })), "{again:?}");
    load_refused(&mut journal);
    assert_eq!(journal.head(), before);
    drop(journal);
    assert_eq!(place.open().unwrap().open_txns().unwrap().len(), 1);
}

fn load_refused(journal: &mut Journal) {
    let proof = journal.commit(NOW, txn(1, "committed", Stage::Open), 1, plan(0));
    assert!(matches!(proof, Err(JournalError::Refused(_) | JournalError::Poisoned { .. })));
}

/// Loss prevented: one paid transaction dispensed twice, by whatever path.
#[test]
fn an_intent_is_committed_once_and_only_while_the_transaction_is_open() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    let commit = |journal: &mut Journal, n, no, count| {
        journal.commit(NOW, txn(n, "committed", Stage::Open), no, plan(count)).map(drop)
    };
    let unknown = Refusal::UnknownTxn { txid: txid(1) };
    assert_eq!(refusal(commit(&mut journal, 1, 1, 4)), unknown);
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    let short = Refusal::NotEnough { bay: bay(), held: 10, wanted: 11 };
    assert_eq!(refusal(commit(&mut journal, 1, 1, 11)), short);
    commit(&mut journal, 1, 1, 4).unwrap();
    let unresolved = Refusal::Unresolved { txid: txid(1), no: 1 };
    assert_eq!(refusal(commit(&mut journal, 1, 2, 4)), unresolved);
    let settled = || txn(1, "settled", Stage::Ended);
    assert_eq!(refusal(append(&mut journal, settled())), unresolved);
    append(&mut journal, dispensed(1, 1, 4)).unwrap();
    let twice = Refusal::NothingToResolve { txid: txid(1), no: 1 };
    assert_eq!(refusal(append(&mut journal, dispensed(1, 1, 4))), twice);
    let repeated = Refusal::IntentRepeated { txid: txid(1), no: 1 };
    assert_eq!(refusal(commit(&mut journal, 1, 1, 4)), repeated);
    append(&mut journal, settled()).unwrap();
    assert!(journal.has_ended(txid(1)).unwrap());
    let ended = Refusal::Ended { txid: txid(1) };
    assert_eq!(refusal(commit(&mut journal, 1, 2, 1)), ended);
    assert_eq!(refusal(append(&mut journal, txn(1, "paid", Stage::Open))), ended);
    append(&mut journal, txn(1, "settled", Stage::Closed)).unwrap();
    assert_eq!(refusal(append(&mut journal, txn(1, "settled", Stage::Closed))), ended);
    assert_eq!(journal.holdings().bays[&bay()].on_hand(), 6);
    assert_eq!(verify_file(&place.path).unwrap().open, 0);
}

/// Loss prevented: one verdict, or one refill, that counts twice; a verdict about a state that has
/// changed since.
#[test]
fn verdicts_changes_and_requests_are_single_use() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    let verdict = |n, seen| Some(VerdictUse { nonce: Nonce::from_bytes([n; 16]), seen });
    let uncertain = append(&mut journal, txn(1, "uncertain", Stage::Open)).unwrap();
    let mut stale = txn(1, "settled", Stage::Ended);
    stale.verdict = verdict(1, JournalSeq(uncertain.0 - 1));
    assert!(matches!(refusal(append(&mut journal, stale)), Refusal::StaleVerdict { .. }));
    assert!(!journal.nonce_used(&Nonce::from_bytes([1; 16])).unwrap());

    // told and told again: still the state that the operator saw
    append(&mut journal, txn(1, "uncertain", Stage::Open)).unwrap();
    let mut good = txn(1, "settled", Stage::Ended);
    good.verdict = verdict(1, uncertain);
    append(&mut journal, good).unwrap();
    assert!(journal.nonce_used(&Nonce::from_bytes([1; 16])).unwrap());
    let again = Entry::Verdict(verdict(1, uncertain).unwrap());
    let used = Refusal::NonceUsed(Nonce::from_bytes([1; 16]));
    assert_eq!(refusal(journal.append(NOW, again)), used);

    let change_id = ChangeId::from_bytes([9; 16]);
    assert!(journal.change_applied(&change_id).unwrap());
    let base_seq = journal.head().seq;
    let (change, reason) = (CountChange::Delta(50), "refill".to_owned());
    let twice = CashMove::Change { bay: bay(), change_id, change, base_seq, reason };
    let applied = refusal(journal.append(NOW, Entry::Cash(vec![twice])));
    assert_eq!(applied, Refusal::ChangeApplied(change_id));

    let request = RequestEntry {
        request_id: RequestId::from_bytes([3; 16]),
        txid: Some(txid(1)),
        rpc: "create_withdraw".into(),
        body: json!({ "vault_sig": "00" }),
    };
    journal.append(NOW, Entry::Request(request.clone())).unwrap();
    assert_eq!(journal.request(&request.request_id).unwrap(), Some(request.clone()));
    let id = request.request_id;
    let repeated = refusal(journal.append(NOW, Entry::Request(request)));
    assert_eq!(repeated, Refusal::RequestRepeated(id));
    assert_eq!(verify_file(&place.path).unwrap().head, journal.head());
}

/// Loss prevented: history rewritten by a bug or a hand on the machine.
#[test]
fn entries_cannot_be_changed_removed_or_put_in_between() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    let raw = place.raw();
    for sentence in [
        "UPDATE entries SET body = '{}' WHERE seq = 2",
        "DELETE FROM entries WHERE seq = 3",
        "INSERT OR REPLACE INTO entries SELECT 2, at, txid, kind, body, prev, hash FROM entries",
        "INSERT INTO entries VALUES (9, 0, NULL, 'x', '{}', zeroblob(32), zeroblob(32))",
        "UPDATE txns SET stage = 0 - 1",
    ] {
        assert!(raw.execute(sentence, []).is_err(), "{sentence}");
    }
    let defensive = journal.conn.execute("UPDATE sqlite_schema SET sql = ''", []);
    assert!(defensive.is_err());
    assert!(verify_file(&place.path).is_ok());
}

/// Loss prevented: trading on over a journal that somebody edited, or that the disk damaged.
#[test]
fn a_broken_chain_or_view_is_found_before_trade() {
    let edits = [
        (
            "DROP TRIGGER entries_stay; UPDATE entries SET body = replace(body, 'paid', 'piad') WHERE seq = 3",
            true,
        ),
        ("DROP TRIGGER entries_remain; DELETE FROM entries WHERE seq = 4", true),
        ("UPDATE txns SET state = '{}'", true),
        ("UPDATE head SET seq = 3", true),
        ("DROP TRIGGER entries_stay; UPDATE entries SET at = at + 1 WHERE seq = 1", true),
        ("INSERT INTO settings VALUES ('breaker', '0', 3)", false),
        ("INSERT INTO bays VALUES (1, 2000, 500, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0)", false),
    ];
    for (edit, on_opening) in edits {
        let place = Place::new();
        let mut journal = place.open().unwrap();
        append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
        append(&mut journal, txn(1, "waiting", Stage::Open)).unwrap();
        drop(journal);
        place.raw().execute_batch(edit).unwrap();
        let full = verify_file(&place.path);
        assert!(matches!(full, Err(JournalError::Broken { .. })), "{edit}: {full:?}");
        let opened = place.open().map(drop);
        if on_opening {
            assert!(matches!(opened, Err(JournalError::Broken { .. })), "{edit}: {opened:?}");
        }
    }
}

/// Loss prevented: an entry of an open transaction, far behind the end, changed unseen.
#[test]
fn an_old_entry_of_an_open_transaction_is_checked_on_opening() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    append(&mut journal, txn(1, "uncertain", Stage::Open)).unwrap();
    for n in 0..100 {
        let value = json!(n);
        journal
            .append(NOW, Entry::Setting { key: "beat".into(), value, cash: Vec::new() })
            .unwrap();
    }
    assert_eq!(journal.setting("beat").unwrap(), Some(json!(99)));
    drop(journal);
    place
        .raw()
        .execute_batch(
            "DROP TRIGGER entries_stay;
             UPDATE entries SET body = replace(body, 'test', 'tset') WHERE seq = 3;",
        )
        .unwrap();
    let opened = place.open();
    assert!(matches!(opened, Err(JournalError::Broken { at: JournalSeq(3), .. })), "{opened:?}");
}

/// Loss prevented: a journal swapped between machines, or taken back to an older program, explains
/// notes that are not there.
#[test]
fn another_machines_another_programs_and_a_newer_journal_are_refused() {
    let place = Place::new();
    drop(place.open().unwrap());
    let other = Journal::open(&place.path, Digest::from_bytes([2; 32]), NOW);
    assert!(matches!(other, Err(JournalError::OtherMachine { .. })), "{other:?}");
    place.raw().pragma_update(None, "user_version", 99).unwrap();
    let newer = place.open();
    assert!(matches!(newer, Err(JournalError::NewerSchema { found: 99, .. })), "{newer:?}");

    let place = Place::new();
    place.raw().execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    assert!(matches!(place.open(), Err(JournalError::NotAJournal { .. })));
}

/// Loss prevented: an escrowed bill whose value the record does not say.
#[test]
fn a_stack_intent_keeps_the_bill() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    append(&mut journal, txn(1, "escrowed", Stage::Open)).unwrap();
    let denomination = Denomination::from_minor(2_000).unwrap();
    let bill = EscrowedBill { serial: 7, denomination, currency: "EUR".parse().unwrap() };
    drop(journal.commit(NOW, txn(1, "stack_committed", Stage::Open), 1, bill).unwrap());
    let entry = journal.entries_of(txid(1)).unwrap().pop().unwrap();
    let body: serde_json::Value = serde_json::from_str(&entry.body).unwrap();
    let value = json!({ "serial": 7, "denomination": 2_000, "currency": "EUR" });
    assert_eq!(body["intent"]["value"], value);
    assert_eq!(body["intent"]["what"], "stack");
    assert_eq!(journal.entries(entry.seq, 10).unwrap(), [entry]);
}

/// Loss prevented: a checkpoint that loses what the log held.
#[test]
fn a_checkpoint_changes_nothing() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    journal.checkpoint();
    assert_eq!(journal.poisoned(), None);
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    assert_eq!(verify_file(&place.path).unwrap().head, journal.head());
}

#[derive(Clone, Debug)]
enum Step {
    Txn(u8, u8),
    Commit(u8, u32, u32),
    Result(u8, u32, u32),
    Refill(u8, i64),
    Count(u8, u32),
    Note(u32),
    Empty,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4, 0u8..3).prop_map(|(n, stage)| Step::Txn(n, stage)),
        3 => (0u8..4, 0u32..3, 0u32..6).prop_map(|(n, no, count)| Step::Commit(n, no, count)),
        3 => (0u8..4, 0u32..3, 0u32..6).prop_map(|(n, no, count)| Step::Result(n, no, count)),
        1 => (0u8..9, -5i64..50).prop_map(|(id, delta)| Step::Refill(id, delta)),
        1 => (0u8..9, 0u32..50).prop_map(|(id, count)| Step::Count(id, count)),
        1 => (1u32..3).prop_map(Step::Note),
        1 => Just(Step::Empty),
        1 => Just(Step::Reopen),
    ]
}

fn person(journal: &mut Journal, id: u8, change: CountChange) -> Result<JournalSeq, JournalError> {
    let change_id = ChangeId::from_bytes([id; 16]);
    let base_seq = journal.head().seq;
    let reason = "person".to_owned();
    let change = CashMove::Change { bay: bay(), change_id, change, base_seq, reason };
    journal.append(NOW, Entry::Cash(vec![change]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Loss prevented: views that drift from the entries: notes, states or nonces that the record
    /// does not explain.
    #[test]
    fn views_made_again_are_the_views(steps in proptest::collection::vec(step(), 1..60)) {
        let place = Place::new();
        let mut journal = place.open().unwrap();
        load(&mut journal, 20);
        for step in steps {
            let stages = [Stage::Open, Stage::Ended, Stage::Closed];
            let done = match step {
                Step::Txn(n, stage) => {
                    append(&mut journal, txn(n, "some", stages[usize::from(stage)])).map(drop)
                }
                Step::Commit(n, no, count) => journal
                    .commit(NOW, txn(n, "committed", Stage::Open), no, plan(count))
                    .map(drop),
                Step::Result(n, no, count) => append(&mut journal, dispensed(n, no, count)).map(drop),
                Step::Refill(id, delta) => {
                    person(&mut journal, id, CountChange::Delta(delta)).map(drop)
                }
                Step::Count(id, count) => person(&mut journal, id, CountChange::Set(count)).map(drop),
                Step::Note(value) => {
                    let denomination = Denomination::from_minor(value).unwrap();
                    let note = CashMove::Stacked { denomination, clears: false };
                    journal.append(NOW, Entry::Cash(vec![note])).map(drop)
                }
                Step::Empty => {
                    let emptied = CashMove::CashboxEmptied { counted: BTreeMap::new() };
                    journal.append(NOW, Entry::Cash(vec![emptied])).map(drop)
                }
                Step::Reopen => {
                    let held = journal.holdings().clone();
                    drop(journal);
                    journal = place.open().unwrap();
                    prop_assert_eq!(journal.holdings(), &held);
                    Ok(())
                }
            };
            prop_assert!(matches!(done, Ok(()) | Err(JournalError::Refused(_))), "{:?}", done);
        }
        prop_assert_eq!(verify_file(&place.path).unwrap().head, journal.head());
    }
}
