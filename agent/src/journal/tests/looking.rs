//! The journal looked at: verified, exported, of an older version.

use std::fs;
use std::io::BufReader;

use rusqlite::types::Value as Cell;

use super::super::schema::VIEWS;
use super::*;

/// What a machine of version 0.1.0 left behind.
const OLD: &str = include_str!("../fixtures/schema_1.sql");

type Rows = Vec<Vec<Cell>>;

impl Place {
    /// A journal with something in every table.
    fn busy() -> Self {
        let place = Self::new();
        let mut journal = place.open().unwrap();
        load(&mut journal, 10);
        append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
        drop(journal.commit(NOW, txn(1, "committed", Stage::Open), 1, plan(4)).unwrap());
        append(&mut journal, dispensed(1, 1, 4)).unwrap();
        append(&mut journal, txn(2, "open", Stage::Open)).unwrap();
        let request = RequestEntry {
            request_id: RequestId::from_bytes([3; 16]),
            txid: Some(txid(1)),
            rpc: "create_invoice".into(),
            body: json!({ "quote_id": "00" }),
        };
        journal.append(NOW, Entry::Request(request)).unwrap();
        let used = VerdictUse { nonce: Nonce::from_bytes([1; 16]), seen: journal.head().seq };
        journal.append(NOW, Entry::Verdict(used)).unwrap();
        let value = json!({ "a": "text" });
        journal
            .append(NOW, Entry::Setting { key: "beat".into(), value, cash: Vec::new() })
            .unwrap();
        let emptied = CashMove::CashboxEmptied { counted: BTreeMap::new() };
        let denomination = Denomination::from_minor(500).unwrap();
        let result = BayResult { requested: 1, rejected: Some(1), ..BayResult::default() };
        let stray = CashMove::Dispensed { bay: bay(), denomination, result, clears: false };
        let note = CashMove::Stacked { denomination, clears: false };
        journal.append(NOW, Entry::Cash(vec![emptied, stray])).unwrap();
        let bay = BayId::new(2).unwrap();
        let assign = CashMove::Assign { bay, denomination, recycles: true };
        let kept = CashMove::Recycled { bay, denomination, notes: 1 };
        journal.append(NOW, Entry::Cash(vec![assign, note.clone(), note, kept])).unwrap();
        drop(journal);
        place
    }

    fn of_old() -> (Self, Digest) {
        let place = Self::new();
        place.raw().execute_batch(OLD).unwrap();
        let genesis = Reader::open(&place.path).unwrap().entries_at(1, 1).pop().unwrap();
        let body: serde_json::Value = serde_json::from_str(&genesis.body).unwrap();
        (place, body["genesis"]["binding"].as_str().unwrap().parse().unwrap())
    }

    fn export(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        Reader::open(&self.path).unwrap().export(&mut lines).unwrap();
        lines
    }

    /// Everything that a reader gets to see.
    fn content(&self) -> Option<(Vec<u8>, Vec<Rows>)> {
        let mut lines = Vec::new();
        Reader::open(&self.path).ok()?.export(&mut lines).ok()?;
        let raw = self.raw();
        let views = VIEWS.map(|(table, key)| {
            table_of(&raw, &format!("(SELECT * FROM {table} ORDER BY {key})")).1
        });
        Some((lines, views.to_vec()))
    }
}

impl Reader {
    fn entries_at(&self, from: u64, to: u64) -> Vec<StoredEntry> {
        let mut all = Vec::new();
        self.each(JournalSeq(from), JournalSeq(to), |entry| {
            all.push(entry);
            Ok(())
        })
        .unwrap();
        all
    }
}

/// Loss prevented: an entry or a view that the disk, or a hand, has changed, and that a check calls
/// good. Whatever byte is turned over: either the check says so, or all that can be read is as it
/// was.
#[test]
fn a_byte_that_is_turned_over_is_found() {
    let place = Place::busy();
    let (good, before) = (fs::read(&place.path).unwrap(), place.content().unwrap());
    let pages = good.len() / 4_096;
    let (mut found, mut same) = (0, 0);
    // each page at other places, by strides that share no divisor with anything in a page
    for at in (0..good.len()).step_by(211).chain((7..good.len()).step_by(307)) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&place.path, &bad).unwrap();
        match verify_file(&place.path) {
            Err(_) => found += 1,
            Ok(_) => {
                assert_eq!(place.content().as_ref(), Some(&before), "byte {at}");
                same += 1;
            }
        }
        // a log that a look at a bad file left behind belongs to nothing
        for log in ["-wal", "-shm"] {
            let _ = fs::remove_file(place.path.with_file_name(format!("journal.db{log}")));
        }
    }
    assert!(found > 40, "{found} found, {same} in unused places of {pages} pages");
    fs::write(&place.path, &good).unwrap();
    assert!(verify_file(&place.path).is_ok());
}

/// Loss prevented: a single value changed by somebody who knows SQLite, in an entry or in a view.
#[test]
fn a_value_that_is_changed_is_found_where_it_stands() {
    let place = Place::busy();
    let good = fs::read(&place.path).unwrap();
    // what belongs to the archive is changed in its own test
    let views = VIEWS.map(|(table, _)| table).into_iter();
    let views = views.filter(|table| !["archive", "gone"].contains(table));
    let tables = ["entries", "head"].into_iter().chain(views);
    let mut edits = 0;
    for table in tables {
        fs::write(&place.path, &good).unwrap();
        let (names, rows) = table_of(&place.raw(), table);
        assert!(!rows.is_empty(), "{table} is not tested");
        for row in rows {
            for (name, cell) in names.iter().zip(&row) {
                let Some(other) = another(cell) else { continue };
                fs::write(&place.path, &good).unwrap();
                let which = format!("{} = ?2 AND {name} = ?3", names[0]);
                edit(
                    &place,
                    &format!("UPDATE OR REPLACE {table} SET {name} = ?1 WHERE {which}"),
                    [&other, &row[0], cell],
                );
                let said = verify_file(&place.path);
                let Err(JournalError::Broken { at, what }) = said else {
                    panic!("{table}.{name} {cell:?} -> {other:?}: {said:?}");
                };
                if let ("entries", Cell::Integer(seq)) = (table, &row[0]) {
                    let seq = u64::try_from(*seq).unwrap();
                    // a position that moved leaves a gap where it was
                    assert!((seq..=seq + 1).contains(&at.0), "{name} of {seq}: {at:?}: {what}");
                }
                edits += 1;
            }
        }
    }
    assert!(edits > 100, "{edits}");
}

fn table_of(raw: &Connection, table: &str) -> (Vec<String>, Rows) {
    let mut statement = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let names: Vec<String> = statement.column_names().map(ToOwned::to_owned).collect();
    let row = |row: &rusqlite::Row<'_>| (0..names.len()).map(|column| row.get(column)).collect();
    let rows = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    (names, rows)
}

/// Another value of the same type.
fn another(cell: &Cell) -> Option<Cell> {
    Some(match cell {
        Cell::Integer(n) => Cell::Integer(n + 1),
        Cell::Text(text) => {
            let mut bytes = text.clone().into_bytes();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Cell::Text(String::from_utf8(bytes).unwrap())
        }
        Cell::Blob(bytes) => {
            let mut bytes = bytes.clone();
            bytes[9] ^= 1;
            Cell::Blob(bytes)
        }
        Cell::Null | Cell::Real(_) => return None,
    })
}

/// Changes one value, past every guard of the schema, which stands again afterwards.
pub(super) fn edit(place: &Place, sentence: &str, values: [&Cell; 3]) {
    let raw = place.raw();
    let (_, triggers) = {
        let sentence = "(SELECT name, sql FROM sqlite_schema WHERE type = 'trigger')";
        table_of(&raw, sentence)
    };
    let text = |cell: &Cell| match cell {
        Cell::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    for trigger in &triggers {
        raw.execute_batch(&format!("DROP TRIGGER {}", text(&trigger[0]))).unwrap();
    }
    raw.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
    let changed = raw.execute(sentence, values).unwrap();
    assert!(changed >= 1, "{sentence}");
    for trigger in &triggers {
        raw.execute_batch(&text(&trigger[1])).unwrap();
    }
}

/// Loss prevented: a guard of the schema that was taken away, so that the next edit leaves no trace.
#[test]
fn a_missing_guard_is_found() {
    let place = Place::busy();
    place.raw().execute_batch("DROP TRIGGER entries_stay").unwrap();
    let said = verify_file(&place.path).unwrap_err().to_string();
    assert!(said.contains("entries_stay"), "{said}");
}

/// Loss prevented: an export that only our own database can vouch for, or one that was cut off or
/// touched and still passes.
#[test]
fn an_export_is_checked_without_the_database() {
    let place = Place::busy();
    let lines = place.export();
    let good = verify_export(BufReader::new(&lines[..]), |_| ()).unwrap();
    assert_eq!(good, verify_file(&place.path).unwrap());
    for at in (0..lines.len()).step_by(5) {
        let mut bad = lines.clone();
        bad[at] ^= 1 << (at % 7);
        assert!(verify_export(BufReader::new(&bad[..]), |_| ()).is_err(), "byte {at}");
    }
    let text = String::from_utf8(lines).unwrap();
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let cut = all[..all.len() - 1].concat();
    assert!(matches!(verify_export(cut.as_bytes(), |_| ()), Err(JournalError::Broken { .. })));
    assert!(verify_export(&b""[..], |_| ()).is_err());
    let mut swapped = all.clone();
    swapped.swap(3, 4);
    assert!(verify_export(swapped.concat().as_bytes(), |_| ()).is_err());
}

/// Loss prevented: a look at the journal that holds the vault up, or shows half an entry.
#[test]
fn a_look_beside_a_running_vault_shows_one_moment() {
    let place = Place::busy();
    let mut journal = place.open().unwrap();
    let reader = Reader::open(&place.path).unwrap();
    let head = journal.head();
    append(&mut journal, txn(3, "open", Stage::Open)).unwrap();
    journal.checkpoint();
    assert_eq!((journal.poisoned(), reader.head()), (None, head));
    assert_eq!(reader.verify().unwrap().head, head);
    assert!(reader.entries_of(txid(3)).unwrap().is_empty());
    assert_eq!(reader.entries_at(2, 3).len(), 2);
    let later = Reader::open(&place.path).unwrap();
    assert_eq!(later.verify().unwrap().head, journal.head());
    let nowhere = Reader::open(&place.path.with_file_name("other.db"));
    assert!(matches!(nowhere, Err(JournalError::Files { .. })), "{nowhere:?}");
}

/// Loss prevented: an update of the program after which the machine's record cannot be read, or is
/// read as another machine's.
#[test]
fn a_journal_of_the_first_version_goes_on() {
    let (place, binding) = Place::of_old();
    let before = fs::read(&place.path).unwrap();
    assert_eq!(verify_file(&place.path).unwrap().open, 1);
    assert_eq!(fs::read(&place.path).unwrap(), before, "a look changes nothing");
    let lines = place.export();

    let journal = Journal::open(&place.path, binding, NOW).unwrap();
    let open = journal.open_txns().unwrap();
    assert_eq!((open.len(), open[0].name.as_str()), (1, "uncertain"));
    assert_eq!(journal.holdings().bays[&bay()].doubts, 1);
    drop(journal);
    drop(Journal::open(&place.path, binding, NOW).unwrap());
    let text = String::from_utf8(lines).unwrap();
    let (_, old) = text.split_once('\n').unwrap();
    let now = String::from_utf8(place.export()).unwrap();
    assert!(now.contains(old), "what was on record stays to the letter");
    assert!(verify_file(&place.path).is_ok());

    let (place, binding) = Place::of_old();
    place.raw().execute_batch("DROP TRIGGER entries_stay").unwrap();
    let refused = Journal::open(&place.path, binding, NOW);
    assert!(matches!(refused, Err(JournalError::MigrationRecord { .. })), "{refused:?}");
}

/// Loss prevented: notes that move a second time, because the database of yesterday was put back or
/// the log lost its end.
#[test]
fn a_journal_behind_its_last_intent_is_refused() {
    let place = Place::new();
    let mut journal = place.open().unwrap();
    load(&mut journal, 10);
    append(&mut journal, txn(1, "paid", Stage::Open)).unwrap();
    drop(journal);
    let yesterday = fs::read(&place.path).unwrap();
    let mut journal = place.open().unwrap();
    drop(journal.commit(NOW, txn(1, "committed", Stage::Open), 1, plan(4)).unwrap());
    drop(journal);
    drop(place.open().unwrap());
    let today = fs::read(&place.path).unwrap();
    fs::write(&place.path, &yesterday).unwrap();
    let refused = place.open().map(drop);
    assert!(matches!(refused, Err(JournalError::Broken { .. })), "{refused:?}");
    // what a check alone cannot know
    assert!(verify_file(&place.path).is_ok());

    // another past, as long as the one that was
    fs::write(&place.path, &yesterday).unwrap();
    let mark = place.path.with_file_name("journal.db.mark");
    let kept = fs::read(&mark).unwrap();
    fs::remove_file(&mark).unwrap();
    let mut other = place.open().unwrap();
    for n in 2..5 {
        append(&mut other, txn(n, "paid", Stage::Open)).unwrap();
    }
    drop(other);
    fs::write(&mark, &kept).unwrap();
    let refused = place.open().map(drop);
    assert!(matches!(refused, Err(JournalError::Broken { .. })), "{refused:?}");
    fs::write(&place.path, &today).unwrap();
    drop(place.open().unwrap());
}
