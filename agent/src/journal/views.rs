//! The views of the entries, and the rules that an entry must meet.
//!
//! Promise: one function, [`project`], derives every view, both while writing (in the entry's own
//! transaction) and when the views are made again; so they cannot differ.

use bitspire_shared::ids::{BayId, JournalSeq, TxnId};
use bitspire_shared::money::Denomination;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::entry::{Body, CashMove, Stage, TxnEntry};
use super::error::{JournalError, Refusal};
use super::holdings::{Bay, Heap, Holdings};
use super::schema::db;

const WRITING: &str = "writing the views";

/// A number as SQLite stores it; neither entries nor seconds come near 2^63.
pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A position as SQLite stores it.
pub(super) fn sql(seq: JournalSeq) -> i64 {
    number(seq.0)
}

/// A position as read back.
pub(super) fn position(number: i64) -> JournalSeq {
    JournalSeq(u64::try_from(number).unwrap_or(0))
}

/// Checks entry `seq` against the rules, writes the views and returns what the machine holds then.
pub(super) fn project(
    tx: &Connection,
    seq: JournalSeq,
    body: &Body,
    held: &Holdings,
) -> Result<Holdings, JournalError> {
    if let Some(verdict) = body.verdict() {
        let nonce = verdict.nonce;
        let fresh = insert(tx, "INSERT OR IGNORE INTO nonces VALUES (?1, ?2)", &nonce, seq)?;
        if !fresh {
            return Err(Refusal::NonceUsed(nonce).into());
        }
    }
    let mut moved = seq;
    if let Some(txn) = body.txn() {
        moved = resolve(tx, seq, txn)?;
        let intent = matches!(body, Body::Intent { .. });
        store_txn(tx, seq, txn, intent)?;
        if intent || txn.stage != Stage::Open {
            refuse_unresolved(tx, txn)?;
        }
    }
    match body {
        Body::Intent { txn, no, what, .. } => store_intent(tx, seq, txn, *no, what)?,
        Body::Request(request) => {
            let id = request.request_id;
            if !insert(tx, "INSERT OR IGNORE INTO requests VALUES (?1, ?2)", &id, seq)? {
                return Err(Refusal::RequestRepeated(id).into());
            }
        }
        Body::Setting { key, value, .. } => {
            let sentence = "INSERT INTO settings VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, seq = excluded.seq";
            let value = bitspire_shared::canonical::to_canonical(value)?;
            execute(tx, sentence, params![key, value, sql(seq)])?;
        }
        Body::Archived { upto, hash, bytes } => {
            let end = params![sql(*upto), hash.as_bytes(), number(*bytes), sql(seq)];
            leave_to_archive(tx, *upto, end)?;
        }
        Body::Genesis { .. }
        | Body::Started { .. }
        | Body::Txn(_)
        | Body::Cash(_)
        | Body::Verdict(_) => {}
    }
    let mut next = held.clone();
    for movement in body.cash() {
        if let CashMove::Change { change_id, bay, .. } = movement {
            let sentence = "INSERT OR IGNORE INTO changes VALUES (?1, ?2, ?3)";
            let values = params![change_id.to_string(), bay.get(), sql(seq)];
            if execute(tx, sentence, values)? == 0 {
                return Err(Refusal::ChangeApplied(*change_id).into());
            }
        }
        next = next.after(movement, seq, moved)?;
    }
    store_holdings(tx, held, &next)?;
    Ok(next)
}

/// Takes entries that lie in the archive, and what was derived from them alone, out of the tables.
fn leave_to_archive(
    tx: &Connection,
    upto: JournalSeq,
    end: &[&dyn rusqlite::ToSql],
) -> Result<(), JournalError> {
    let sentence = "INSERT INTO archive VALUES (1, ?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET upto = excluded.upto, hash = excluded.hash,
           bytes = excluded.bytes, seq = excluded.seq";
    execute(tx, sentence, end)?;
    let closed = "SELECT txid FROM txns WHERE stage = 2 AND seq <= ?1";
    for sentence in [
        "DELETE FROM entries WHERE seq BETWEEN 2 AND ?1".to_owned(),
        "DELETE FROM requests WHERE seq <= ?1".to_owned(),
        format!("DELETE FROM intents WHERE txid IN ({closed})"),
        format!("INSERT INTO gone {closed}"),
        "DELETE FROM txns WHERE stage = 2 AND seq <= ?1".to_owned(),
    ] {
        execute(tx, &sentence, [sql(upto)])?;
    }
    Ok(())
}

/// Whether the transaction's entries lie in the archive: it has ended for good.
pub(super) fn is_gone(conn: &Connection, txid: TxnId) -> Result<bool, JournalError> {
    conn.prepare_cached("SELECT 1 FROM gone WHERE txid = ?1")
        .and_then(|mut s| s.exists([txid.to_string()]))
        .map_err(db("reading what lies in the archive"))
}

fn execute(
    tx: &Connection,
    sentence: &str,
    values: impl rusqlite::Params,
) -> Result<usize, JournalError> {
    tx.prepare_cached(sentence).and_then(|mut s| s.execute(values)).map_err(db(WRITING))
}

/// Whether the row is new.
fn insert(
    tx: &Connection,
    sentence: &str,
    key: &impl ToString,
    seq: JournalSeq,
) -> Result<bool, JournalError> {
    Ok(execute(tx, sentence, params![key.to_string(), sql(seq)])? == 1)
}

/// Closes the intent whose result the entry is; the position after which its notes moved.
fn resolve(tx: &Connection, seq: JournalSeq, txn: &TxnEntry) -> Result<JournalSeq, JournalError> {
    let Some(no) = txn.resolves else { return Ok(seq) };
    let committed: Option<i64> = tx
        .prepare_cached(
            "UPDATE intents SET resolved = ?3 WHERE txid = ?1 AND no = ?2 AND resolved IS NULL
             RETURNING seq",
        )
        .and_then(|mut s| {
            s.query_row(params![txn.txid.to_string(), no, sql(seq)], |row| row.get(0)).optional()
        })
        .map_err(db(WRITING))?;
    let txid = txn.txid;
    committed.map(position).ok_or_else(|| Refusal::NothingToResolve { txid, no }.into())
}

fn store_txn(
    tx: &Connection,
    seq: JournalSeq,
    txn: &TxnEntry,
    intent: bool,
) -> Result<(), JournalError> {
    let txid = txn.txid;
    let before: Option<(String, i64, i64)> = tx
        .prepare_cached("SELECT name, stage, since FROM txns WHERE txid = ?1")
        .and_then(|mut s| {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            s.query_row([txid.to_string()], row).optional()
        })
        .map_err(db(WRITING))?;
    let mut since = seq;
    if before.is_none() && is_gone(tx, txid)? {
        return Err(Refusal::Ended { txid }.into());
    }
    if let Some((name, stage, changed)) = before {
        let stage = Stage::from_number(stage).unwrap_or(Stage::Closed);
        let over = stage == Stage::Closed || txn.stage < stage;
        if over || (intent && stage != Stage::Open) {
            return Err(Refusal::Ended { txid }.into());
        }
        let changed = position(changed);
        if let Some(verdict) = txn.verdict.filter(|verdict| verdict.seen < changed) {
            return Err(Refusal::StaleVerdict { seen: verdict.seen, changed }.into());
        }
        if name == txn.name {
            since = changed;
        }
    } else if intent {
        return Err(Refusal::UnknownTxn { txid }.into());
    }
    if intent && txn.stage != Stage::Open {
        return Err(Refusal::Ended { txid }.into());
    }
    let state = bitspire_shared::canonical::to_canonical(&txn.state)?;
    let sentence = "INSERT INTO txns VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (txid) DO UPDATE SET name = excluded.name, stage = excluded.stage,
           seq = excluded.seq, since = excluded.since, state = excluded.state";
    let values =
        params![txid.to_string(), txn.name, txn.stage.number(), sql(seq), sql(since), state];
    execute(tx, sentence, values).map(drop)
}

/// Before the next intent, and before the end, the last intent has a result.
fn refuse_unresolved(tx: &Connection, txn: &TxnEntry) -> Result<(), JournalError> {
    let txid = txn.txid;
    let open: Option<u32> = tx
        .prepare_cached("SELECT no FROM intents WHERE txid = ?1 AND resolved IS NULL")
        .and_then(|mut s| s.query_row([txid.to_string()], |row| row.get(0)).optional())
        .map_err(db(WRITING))?;
    open.map_or(Ok(()), |no| Err(Refusal::Unresolved { txid, no }.into()))
}

fn store_intent(
    tx: &Connection,
    seq: JournalSeq,
    txn: &TxnEntry,
    no: u32,
    what: &str,
) -> Result<(), JournalError> {
    let txid = txn.txid;
    let sentence = "INSERT OR IGNORE INTO intents VALUES (?1, ?2, ?3, ?4, NULL)";
    if execute(tx, sentence, params![txid.to_string(), no, what, sql(seq)])? == 0 {
        return Err(Refusal::IntentRepeated { txid, no }.into());
    }
    Ok(())
}

fn store_holdings(tx: &Connection, old: &Holdings, new: &Holdings) -> Result<(), JournalError> {
    for (id, bay) in new.bays.iter().filter(|(id, bay)| old.bays.get(id) != Some(*bay)) {
        execute(
            tx,
            "INSERT OR REPLACE INTO bays
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                id.get(),
                bay.denomination.minor(),
                bay.loaded,
                bay.presented,
                bay.retracted,
                bay.rejected,
                bay.stray,
                bay.doubts,
                sql(bay.set_at),
                bay.unsure,
                bay.recycles,
                bay.recycled_in,
                bay.differs
            ],
        )?;
    }
    let boxes = [
        ("cashbox", &old.cashbox, &new.cashbox, old.cashbox_emptied, new.cashbox_emptied),
        (
            "reject_bin",
            &old.reject_bin,
            &new.reject_bin,
            old.reject_bin_emptied,
            new.reject_bin_emptied,
        ),
    ];
    for (name, old, new, was_emptied, emptied) in boxes {
        if was_emptied != emptied {
            execute(tx, &format!("DELETE FROM {name}"), [])?;
            let sentence = "INSERT OR REPLACE INTO emptied VALUES (?1, ?2)";
            execute(tx, sentence, params![name, sql(emptied)])?;
        }
        for (value, heap) in new {
            if was_emptied != emptied || old.get(value) != Some(heap) {
                let sentence = format!("INSERT OR REPLACE INTO {name} VALUES (?1, ?2, ?3)");
                execute(tx, &sentence, params![value.minor(), heap.count, heap.doubts])?;
            }
        }
    }
    store_recycled(tx, old, new)
}

/// What only a recycler's books have; those of other machines are not touched.
fn store_recycled(tx: &Connection, old: &Holdings, new: &Holdings) -> Result<(), JournalError> {
    if old.unsorted != new.unsorted {
        execute(tx, "DELETE FROM unsorted", [])?;
        for (value, notes) in &new.unsorted {
            let sentence = "INSERT INTO unsorted VALUES (?1, ?2)";
            execute(tx, sentence, params![value.minor(), notes])?;
        }
    }
    if old.recycled_since != new.recycled_since {
        execute(tx, "DELETE FROM recycled", [])?;
        let sentence = "INSERT OR REPLACE INTO emptied VALUES ('recycled', ?1)";
        execute(tx, sentence, [sql(new.recycled_since)])?;
    }
    for ((bay, value), notes) in &new.recycled {
        let sentence = "INSERT OR REPLACE INTO recycled VALUES (?1, ?2, ?3)";
        if old.recycled.get(&(*bay, *value)) != Some(notes) {
            execute(tx, sentence, params![bay.get(), value.minor(), notes])?;
        }
    }
    Ok(())
}

/// What the machine holds, as the tables say.
pub(super) fn load_holdings(conn: &Connection) -> Result<Holdings, JournalError> {
    let reading = "reading what the machine holds";
    let mut holdings = Holdings::default();
    let mut bays = conn
        .prepare(
            "SELECT bay, denomination, loaded, presented, retracted, rejected, stray, doubts,
                    set_at, unsure, recycles, recycled_in, differs FROM bays",
        )
        .map_err(db(reading))?;
    let rows = bays
        .query_map([], |row| {
            let bay = Bay {
                denomination: denomination(row, 1)?,
                loaded: row.get(2)?,
                presented: row.get(3)?,
                retracted: row.get(4)?,
                rejected: row.get(5)?,
                stray: row.get(6)?,
                doubts: row.get(7)?,
                set_at: position(row.get(8)?),
                unsure: row.get(9)?,
                recycles: row.get(10)?,
                recycled_in: row.get(11)?,
                differs: row.get(12)?,
            };
            Ok((bay_id(row)?, bay))
        })
        .map_err(db(reading))?;
    holdings.bays = rows.collect::<Result<_, _>>().map_err(db(reading))?;
    for (name, heaps) in
        [("cashbox", &mut holdings.cashbox), ("reject_bin", &mut holdings.reject_bin)]
    {
        let mut rows = conn
            .prepare(&format!("SELECT denomination, count, doubts FROM {name}"))
            .map_err(db(reading))?;
        let rows = rows
            .query_map([], |row| {
                Ok((denomination(row, 0)?, Heap { count: row.get(1)?, doubts: row.get(2)? }))
            })
            .map_err(db(reading))?;
        *heaps = rows.collect::<Result<_, _>>().map_err(db(reading))?;
    }
    let emptied = |name: &str| {
        conn.query_row("SELECT seq FROM emptied WHERE box = ?1", [name], |row| row.get(0))
            .optional()
            .map(|seq| seq.map_or(JournalSeq(0), position))
            .map_err(db(reading))
    };
    holdings.cashbox_emptied = emptied("cashbox")?;
    holdings.reject_bin_emptied = emptied("reject_bin")?;
    holdings.recycled_since = emptied("recycled")?;
    let mut unsorted =
        conn.prepare("SELECT denomination, notes FROM unsorted").map_err(db(reading))?;
    let rows = unsorted.query_map([], |row| Ok((denomination(row, 0)?, row.get(1)?)));
    holdings.unsorted = rows.and_then(Iterator::collect).map_err(db(reading))?;
    let mut recycled =
        conn.prepare("SELECT bay, denomination, notes FROM recycled").map_err(db(reading))?;
    let rows =
        recycled.query_map([], |row| Ok(((bay_id(row)?, denomination(row, 1)?), row.get(2)?)));
    holdings.recycled = rows.and_then(Iterator::collect).map_err(db(reading))?;
    Ok(holdings)
}

fn bay_id(row: &rusqlite::Row<'_>) -> rusqlite::Result<BayId> {
    BayId::new(row.get(0)?).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, 0))
}

fn denomination(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Denomination> {
    let minor: u32 = row.get(column)?;
    Denomination::from_minor(minor)
        .map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, minor.into()))
}
