//! A long past for a machine's journal: entries of sales that were closed long ago.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bitspire_agent::journal::chain_hash;
use bitspire_shared::canonical::{sha256, to_canonical};
use bitspire_shared::ids::{JournalHead, JournalSeq, TxnId};
use bitspire_shared::time::Unix;
use rusqlite::{Connection, params};
use serde_json::json;

use super::agent::{parts, start_ms};
use super::binary::agent_program;
use super::{Figure, percentile};
use crate::world::World;

/// Entries of one sale.
const OF_SALE: u64 = 10;
/// Seconds between two entries.
const APART_S: u64 = 30;

/// Entries of the long past that is measured.
const MILLION: u64 = 1_000_000;
/// Starts that are measured.
const RUNS: usize = 7;

/// From exec to the vault's own screen, with a million entries in the journal.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = agent_program()?;
    let mut world = World::new(&std::env::current_exe()?, None)?;
    world.acceptor.start()?;
    world.dispenser.start()?;
    let [mut vault, mut net] = parts(&world, &program);
    let mut starts = Vec::new();
    for run in 0..=RUNS {
        let took = start_ms(&world, &mut vault, &mut net)?;
        net.stop()?;
        vault.stop()?;
        match run {
            0 => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
                let journal = world.folder().join("machine/vault/journal.db");
                grow(&journal, MILLION, Unix(now.as_secs()))?;
            }
            _ => starts.push(took),
        }
    }
    let value = percentile(&mut starts, 50)?;
    let (name, unit, bound_is) = ("agent_ready_1m_ms", "ms", "the bar, as with an empty journal");
    Ok(vec![Figure { name, value, unit, bound: 150.0, bound_is, peer: None, runs: RUNS }])
}

/// Lets the journal at `path`, which nobody has open, grow to so many entries, the last of them
/// written at `end`.
pub(super) fn grow(path: &Path, entries: u64, end: Unix) -> Result<()> {
    let mut conn = Connection::open(path)?;
    // nobody minds if this is lost
    conn.pragma_update(None, "synchronous", "OFF")?;
    let head = "SELECT seq, hash FROM head";
    let (seq, hash): (i64, [u8; 32]) =
        conn.query_row(head, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (mut seq, mut prev) = (u64::try_from(seq)?, JournalHead::from_bytes(hash));
    let begin = end.0.checked_sub(entries * APART_S).context("a time before all times")?;
    let tx = conn.transaction()?;
    {
        let mut entry = tx.prepare("INSERT INTO entries VALUES (?1, ?2, ?3, 'txn', ?4, ?5, ?6)")?;
        let mut txn = tx.prepare("INSERT INTO txns VALUES (?1, 'settled', 2, ?2, ?2, ?3)")?;
        let mut sale = 0u128;
        while seq + OF_SALE <= entries {
            sale += 1;
            let txid = TxnId::from_bytes(sale.to_be_bytes());
            let state = json!({ "cash_out": { "deal": "x".repeat(600), "no": sale.to_string() } });
            for no in 1..=OF_SALE {
                seq += 1;
                let (name, stage) =
                    if no == OF_SALE { ("settled", "closed") } else { ("quoted", "open") };
                let body = to_canonical(&json!({ "txn": {
                    "txid": txid, "name": name, "stage": stage, "cause": "tick", "state": state,
                } }))?;
                let at = Unix(begin + seq * APART_S);
                let digest = sha256(&body);
                let hash = chain_hash(prev, JournalSeq(seq), at, Some(txid), "txn", &digest);
                let (place, time) = (i64::try_from(seq)?, i64::try_from(at.0)?);
                let (prev_hash, own) = (prev.as_bytes(), hash.as_bytes());
                entry.execute(params![place, time, txid.to_string(), body, prev_hash, own])?;
                prev = hash;
            }
            txn.execute(params![txid.to_string(), i64::try_from(seq)?, to_canonical(&state)?])?;
        }
    }
    tx.execute(
        "UPDATE head SET seq = ?1, hash = ?2",
        params![i64::try_from(seq)?, prev.as_bytes()],
    )?;
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use bitspire_agent::journal::{Journal, verify_file};
    use bitspire_shared::ids::Digest;

    use super::*;

    /// Loss prevented: a figure of a journal that no machine could have.
    #[test]
    fn a_long_past_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let (binding, now) = (Digest::from_bytes([1; 32]), Unix(1_800_000_000));
        drop(Journal::open(&path, binding, now).unwrap());
        grow(&path, 500, now).unwrap();
        assert!(verify_file(&path).unwrap().head.seq.0 > 490);
        let journal = Journal::open(&path, binding, now).unwrap();
        assert!(journal.open_txns().unwrap().is_empty());
    }
}
