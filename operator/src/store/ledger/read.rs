//! The ledger's rows as an audit reads them: many at once, and those that do not read are told apart.

use std::collections::BTreeMap;

use bitspire_shared::ids::PaymentHash;

use super::{Booked, read_entry, read_posting};
use crate::ids::EntryId;
use crate::ledger::{Entry, EntryKind, Posting};
use crate::store::column::ToColumn;
use crate::store::row::legible;
use crate::store::{Around, Read, StoreError};

/// The entry that books this event, and those that were written around it; one that does not read is not
/// among them.
///
/// # Errors
/// [`StoreError`].
pub fn around(
    read: &Read<'_>,
    (kind, reference): (EntryKind, &str),
    around: Around,
) -> Result<Vec<Booked>, StoreError> {
    let sql = "SELECT near.* FROM ledger_entries AS named JOIN ledger_entries AS near
                   ON near.id BETWEEN named.id - ?3 AND named.id + ?4
               WHERE named.kind = ?1 AND named.reference = ?2";
    let values: [&dyn ToColumn; 4] = [&kind, &reference, &around.before, &around.after];
    let near = read.all(sql, &values, |row| legible(read_entry(row)))?;
    Ok(near.into_iter().flatten().collect())
}

/// What was booked of a payment, by its hash; an entry that does not read is not among it.
///
/// # Errors
/// [`StoreError`].
pub fn of_payment(read: &Read<'_>, hash: PaymentHash) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT * FROM ledger_entries
               WHERE kind IN ('settled', 'owed_whole', 'suspended', 'stray_recovered',
                              'withdraw_paid', 'claim_paid', 'leg_paid', 'wallet_moved')
                   AND reference = ?1";
    let entries = read.all(sql, &[&hash], |row| legible(read_entry(row)))?;
    Ok(entries.into_iter().flatten().map(|booked| booked.entry).collect())
}

/// The same of one that is booked as settled, beside that entry.
///
/// # Errors
/// [`StoreError`].
pub fn beside_settled(read: &Read<'_>, hash: PaymentHash) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT * FROM ledger_entries
               WHERE kind IN ('owed_whole', 'suspended', 'stray_recovered', 'withdraw_paid',
                              'claim_paid', 'leg_paid', 'wallet_moved') AND reference = ?1";
    let entries = read.all(sql, &[&hash], |row| legible(read_entry(row)))?;
    Ok(entries.into_iter().flatten().map(|booked| booked.entry).collect())
}

/// An entry as it stands there, whether it holds or not, with its postings.
#[derive(Debug)]
pub struct Written {
    /// Its number.
    pub id: EntryId,
    /// The entry, or why it is none.
    pub booked: Result<Booked, StoreError>,
    /// Its postings, in order.
    pub postings: Vec<Posting>,
}

/// At most `limit` entries after `after`, as they stand there, oldest first.
///
/// # Errors
/// [`StoreError`]: a posting that does not read.
pub fn written(read: &Read<'_>, after: EntryId, limit: u32) -> Result<Vec<Written>, StoreError> {
    let sql = "SELECT * FROM ledger_entries WHERE id > ?1 ORDER BY id LIMIT ?2";
    let entries = read.all(sql, &[&after, &limit], |row| {
        Ok(Written { id: row.get("id")?, booked: read_entry(row), postings: Vec::new() })
    })?;
    let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(entries) };
    let mut postings: BTreeMap<EntryId, Vec<Posting>> = BTreeMap::new();
    let lines = read.all(
        "SELECT entry_id, account, unit, amount FROM ledger_postings
         WHERE entry_id > ?1 AND entry_id <= ?2 ORDER BY entry_id, line",
        &[&after, &last],
        |row| Ok((row.get::<EntryId>("entry_id")?, read_posting(row)?)),
    )?;
    for (entry, posting) in lines {
        postings.entry(entry).or_default().push(posting);
    }
    let with = |mut entry: Written| {
        entry.postings = postings.remove(&entry.id).unwrap_or_default();
        entry
    };
    Ok(entries.into_iter().map(with).collect())
}
