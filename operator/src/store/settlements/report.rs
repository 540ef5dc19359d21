//! Dispense reports: what a vault stated about the notes of a paid cash_out.
//!
//! Promise: evidence is kept whatever it says; what follows from it is written with it, once.

use bitspire_shared::canonical::Sig;
use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::{JournalHead, JournalSeq, PaymentHash, TxnId};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::Parts;
use bitspire_shared::time::Unix;

use super::Consequences;
use crate::ids::{MachineId, SettlementId};
use crate::store::column::Json;
use crate::store::row::record;
use crate::store::{Read, StoreError, Tx};

record! {
    /// A report.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Report in "dispense_reports" {
        /// The machine.
        pub machine_id: MachineId,
        /// Its transaction.
        pub txid: TxnId,
        /// The invoice that was paid.
        pub payment_hash: PaymentHash,
        /// How it ended.
        pub outcome: DispenseOutcome,
        /// Each bay's notes.
        pub bays: Json<BayResults>,
        /// What the customer did not get, in minor units.
        pub owed_minor: i64,
        /// The journal position of the end.
        pub journal_seq: JournalSeq,
        /// The journal's head there.
        pub journal_head: JournalHead,
        /// The vault's signature.
        pub vault_sig: Sig,
        /// When it came.
        pub received_at: Unix,
    }
}

/// What a report does to its settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The settlement.
    pub settlement: SettlementId,
    /// Where its sats belong now.
    pub parts: Parts,
}

/// Records a report with all that follows from it, once for its journal position. `about` is the
/// settlement that it changes; without one the report is kept as evidence only. True where it was
/// new.
///
/// # Errors
/// [`StoreError::Conflict`] for another report at the same position; a check where the parts do not
/// sum to what moved; [`StoreError::NotOneRow`] where the settlement was not accepted.
pub fn record_report(
    tx: &Tx<'_>,
    report: &Report,
    about: Option<Reported>,
    with: &Consequences,
) -> Result<bool, StoreError> {
    let known = tx.one(
        "SELECT * FROM dispense_reports WHERE machine_id = ?1 AND txid = ?2 AND journal_seq = ?3",
        &[&report.machine_id, &report.txid, &report.journal_seq],
        Report::from_row,
    )?;
    if let Some(known) = known {
        // the same report comes again at another time; BIP-340 signatures of one text differ
        let (vault_sig, received_at) = (report.vault_sig, report.received_at);
        if (Report { vault_sig, received_at, ..known }) == *report {
            return Ok(false);
        }
        let key = format!("{} at {}", report.txid, report.journal_seq.0);
        return Err(StoreError::Conflict { what: "dispense report", key });
    }
    report.insert_into(tx)?;
    if let Some(Reported { settlement, parts }) = about {
        tx.run_one(
            "settlements",
            "UPDATE settlements SET principal_sats = ?2, platform_fee_sats = ?3,
                operator_fee_sats = ?4, owed_sats = ?5, dispense_outcome = ?6, reported_at = ?7
             WHERE id = ?1 AND status = 'accepted' AND direction = 'cash_out'
                AND distribution IN ('pending', 'held')",
            &[
                &settlement,
                &parts.principal,
                &parts.platform_fee,
                &parts.operator_fee,
                &parts.owed,
                &report.outcome,
                &report.received_at,
            ],
        )?;
    }
    with.write(tx, report.received_at)?;
    Ok(true)
}

/// Every report of a transaction, in the order of the machine's journal.
///
/// # Errors
/// [`StoreError`].
pub fn reports(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Vec<Report>, StoreError> {
    let sql = "SELECT * FROM dispense_reports WHERE machine_id = ?1 AND txid = ?2
               ORDER BY journal_seq";
    read.all(sql, &[&machine, &txid], Report::from_row)
}

/// The last report of a transaction by the machine's journal.
///
/// # Errors
/// [`StoreError`].
pub fn latest_report(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Option<Report>, StoreError> {
    Ok(reports(read, machine, txid)?.pop())
}

/// At most `limit` reports after the one numbered `after`, oldest first: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn report_page(
    read: &Read<'_>,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Report)>, StoreError> {
    let sql = "SELECT * FROM dispense_reports WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], |row| Ok((row.get("id")?, Report::from_row(row)?)))
}

/// The number of the newest report; 0 where there is none.
///
/// # Errors
/// [`StoreError`].
pub fn newest_report(read: &Read<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce(max(id), 0) AS newest FROM dispense_reports";
    Ok(read.one(sql, &[], |row| row.get("newest"))?.unwrap_or(0))
}

/// The furthest journal position that a machine has stated in a report of notes that came since
/// `since`: out of its bays, or into its cashbox.
///
/// # Errors
/// [`StoreError`].
pub fn newest_position(
    read: &Read<'_>,
    machine: MachineId,
    since: Unix,
) -> Result<JournalSeq, StoreError> {
    let sql = "SELECT max(coalesce((SELECT max(journal_seq) FROM dispense_reports
                   WHERE machine_id = ?1 AND received_at >= ?2), 0),
               coalesce((SELECT max(journal_seq) FROM withdraws
                   WHERE machine_id = ?1 AND created_at >= ?2), 0)) AS seq";
    let seq = read.one(sql, &[&machine, &since], |row| row.get("seq"))?;
    Ok(seq.unwrap_or(JournalSeq(0)))
}

/// The reports of a machine whose end nobody knows, and that no later one of their sale explains.
///
/// # Errors
/// [`StoreError`].
pub fn uncertain(read: &Read<'_>, machine: MachineId) -> Result<Vec<Report>, StoreError> {
    let sql = "SELECT * FROM dispense_reports r WHERE machine_id = ?1 AND outcome = 'uncertain'
               AND NOT EXISTS (SELECT 1 FROM dispense_reports later
                   WHERE later.machine_id = r.machine_id AND later.txid = r.txid
                       AND later.id > r.id AND later.outcome <> 'uncertain') ORDER BY id";
    read.all(sql, &[&machine], Report::from_row)
}
