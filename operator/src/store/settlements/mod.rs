//! Settlements: what a payment became, with its ledger entry, its debts and what is to be sent, in
//! one transaction.
//!
//! Promise: one settlement a payment hash. The same payment recorded again writes nothing; the same
//! hash with other content is refused. What was accepted never changes; where the sats belong may
//! change once, by the machine's report, and the sum holds before and after.
//!
//! States of `distribution`: pending -> processing -> processed or errored; held until a report or
//! a verdict; rejected rests. processing is a lease: whoever holds the token works on it, and a
//! crashed worker's lease runs out.

mod distribution;
mod report;

use bitspire_shared::ids::{EventId, PaymentHash, QuoteId, TxnId, WithdrawId};
use bitspire_shared::money::{Currency, Direction, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::Parts;
use bitspire_shared::time::Unix;
use rust_decimal::Decimal;

use super::claims::{self, NewOwed};
use super::column::{JsonText, text_enum};
use super::outbox::{self, NewPush};
use super::row::{Kept, Recorded, legible, record};
use super::{Around, Read, StoreError, Tx, ledger};
use crate::ids::{MachineId, OperatorId, SettlementId};
use crate::ledger::Entry;

pub use distribution::{
    Overdue, by_distribution, distributable, end_leases, finish, held_for, held_unreported, hold,
    overdue, release, take,
};
pub use report::{
    Report, Reported, latest_report, newest_position, newest_report, record_report, report_page,
    reports, uncertain,
};

/// What [`StoreError::Conflict`] names where a wallet tells a recorded payment otherwise.
pub const CONFLICT: &str = "settlement of payment";

text_enum! {
    /// What a payment became.
    pub enum SettlementStatus {
        /// The customer is served.
        Accepted = "accepted",
        /// Paid too late: all of it is owed.
        Late = "late",
        /// Paid too little: all of it is owed.
        Under = "under",
        /// Refused.
        Rejected = "rejected",
        /// Paid into a wallet of no machine.
        Misrouted = "misrouted",
    }
}

text_enum! {
    /// Where the distribution of a settlement stands.
    pub enum Distribution {
        /// Its legs may be paid.
        Pending = "pending",
        /// A worker has it.
        Processing = "processing",
        /// Every leg is final.
        Processed = "processed",
        /// A leg failed; a person looks.
        Errored = "errored",
        /// Nothing to distribute: refused.
        Rejected = "rejected",
        /// Waits for a report or a verdict.
        Held = "held",
    }
}

record! {
    /// A settlement.
    pub struct Settlement in "settlements", id: SettlementId {
        /// Hash of the payment.
        pub payment_hash: PaymentHash,
        /// The machine that it is about: the wallet's, or the one that is named.
        pub machine_id: MachineId,
        /// The wallet that received or paid.
        pub wallet_id: String,
        /// The protocol's direction.
        pub direction: Direction,
        /// What it became.
        pub status: SettlementStatus,
        /// What moved on Lightning.
        pub wire_sats: Sats,
        /// What the wallet had beside the payment, as it came.
        pub extra: JsonText,
        /// Why it was refused.
        pub reason: Option<String>,
        /// The transaction.
        pub txid: Option<TxnId>,
        /// Its quote.
        pub quote_id: Option<QuoteId>,
        /// cash_in: the withdraw that was paid.
        pub withdraw_id: Option<WithdrawId>,
        /// Where the sats belong: principal. Absent, not zero, where it was refused.
        pub principal_sats: Option<Sats>,
        /// The platform's leg.
        pub platform_fee_sats: Option<Sats>,
        /// The operator's leg.
        pub operator_fee_sats: Option<Sats>,
        /// Owed to the customer.
        pub owed_sats: Option<Sats>,
        /// Sats per major unit, as stamped.
        pub exchange_rate: Option<Decimal>,
        /// The notes' value in minor units.
        pub fiat_minor: Option<i64>,
        /// Their currency.
        pub fiat_code: Option<Currency>,
        /// The fee document.
        pub fees_event_id: Option<EventId>,
        /// The request's event.
        pub request_event_id: Option<EventId>,
        /// Stamped fee less expected fee, where they differ.
        pub fee_mismatch_sats: Option<i64>,
        /// The stamped fee was less than the platform's leg.
        pub short: bool,
        /// When it settled, by the service's clock.
        pub settled_at: Unix,
        /// When it was written.
        pub recorded_at: Unix,
        /// How the dispense ended.
        pub dispense_outcome: Option<DispenseOutcome>,
        /// When that was reported.
        pub reported_at: Option<Unix>,
        /// Where its distribution stands.
        pub distribution: Distribution,
        /// What it waits for.
        pub hold_reason: Option<String>,
        /// Who works on it.
        pub claim_token: Option<String>,
        /// Until when that worker has it.
        pub lease_until: Option<Unix>,
    }
}

impl Settlement {
    /// Where the sats belong; `None` for a refused payment.
    #[must_use]
    pub fn parts(&self) -> Option<Parts> {
        Some(Parts {
            principal: self.principal_sats?,
            platform_fee: self.platform_fee_sats?,
            operator_fee: self.operator_fee_sats?,
            owed: self.owed_sats?,
        })
    }

    /// Whether `other` tells the same payment: all that the wallet itself has said.
    fn same_payment(&self, other: &Self) -> bool {
        self.wallet_id == other.wallet_id
            && self.direction == other.direction
            && self.wire_sats == other.wire_sats
            && self.extra == other.extra
    }
}

/// What is written together with a settlement or a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// The ledger's entries.
    pub entries: Vec<Entry>,
    /// What is owed to the customer.
    pub owed: Vec<NewOwed>,
    /// What the machine is told.
    pub pushes: Vec<NewPush>,
}

impl Consequences {
    fn write(&self, tx: &Tx<'_>, now: Unix) -> Result<(), StoreError> {
        for entry in &self.entries {
            ledger::append(tx, entry, now)?;
        }
        for owed in &self.owed {
            claims::owe(tx, owed, now)?;
        }
        for push in &self.pushes {
            outbox::push(tx, push, now)?;
        }
        Ok(())
    }
}

/// Records a settlement with all that follows from it, once.
///
/// # Errors
/// [`StoreError::Conflict`] for a known hash with another wallet, direction, amount or `extra`: an
/// alarm; [`StoreError`]: a check where the amounts do not sum.
pub fn record(
    tx: &Tx<'_>,
    settlement: &Settlement,
    with: &Consequences,
) -> Result<Recorded<SettlementId>, StoreError> {
    let refused = match settlement.insert_into(tx) {
        // nearly always it is a new one
        Ok(id) => {
            with.write(tx, settlement.recorded_at)?;
            return Ok(Recorded::New(id));
        }
        Err(error) => error,
    };
    if !matches!(refused, StoreError::Constraint { .. }) {
        return Err(refused);
    }
    match by_hash(tx, settlement.payment_hash)? {
        Some(known) if known.same_payment(settlement) => Ok(Recorded::Known(known.id)),
        Some(_) => {
            let key = settlement.payment_hash.to_string();
            Err(StoreError::Conflict { what: CONFLICT, key })
        }
        None => Err(refused),
    }
}

/// A further payment of an invoice that is settled already, by the wallet's own id of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// The wallet's own id of the payment.
    pub payment_key: String,
    /// The invoice.
    pub payment_hash: PaymentHash,
    /// What moved.
    pub wire_sats: Sats,
    /// When it settled, by the service's clock.
    pub settled_at: Unix,
}

/// Records a further payment of a settled invoice with all that follows from it, once. True where
/// it was new.
///
/// # Errors
/// [`StoreError::Conflict`] for a known id with other content.
pub fn record_repeat(
    tx: &Tx<'_>,
    repeat: &Repeat,
    with: &Consequences,
    now: Unix,
) -> Result<bool, StoreError> {
    let known = tx.one(
        "SELECT payment_hash, wire_sats FROM repeat_payments WHERE payment_key = ?1",
        &[&repeat.payment_key],
        |row| Ok((row.get("payment_hash")?, row.get("wire_sats")?)),
    )?;
    match known {
        Some(known) if known == (repeat.payment_hash, repeat.wire_sats) => return Ok(false),
        Some(_) => {
            let key = repeat.payment_key.clone();
            return Err(StoreError::Conflict { what: "repeated payment", key });
        }
        None => {}
    }
    tx.insert(
        "repeat_payments",
        &[
            ("payment_key", &repeat.payment_key),
            ("payment_hash", &repeat.payment_hash),
            ("wire_sats", &repeat.wire_sats),
            ("settled_at", &repeat.settled_at),
            ("recorded_at", &now),
        ],
    )?;
    with.write(tx, now)?;
    Ok(true)
}

/// The settlement with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    id: SettlementId,
) -> Result<Option<Kept<SettlementId, Settlement>>, StoreError> {
    read.one("SELECT * FROM settlements WHERE id = ?1", &[&id], Settlement::kept)
}

/// The settlement of this payment.
///
/// # Errors
/// [`StoreError`].
pub fn by_hash(
    read: &Read<'_>,
    hash: PaymentHash,
) -> Result<Option<Kept<SettlementId, Settlement>>, StoreError> {
    read.one("SELECT * FROM settlements WHERE payment_hash = ?1", &[&hash], Settlement::kept)
}

/// The settlement of a payment, and those that were recorded around it, where they read.
///
/// # Errors
/// [`StoreError`].
pub fn around(
    read: &Read<'_>,
    hash: PaymentHash,
    around: Around,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    let sql = "SELECT near.* FROM settlements AS named JOIN settlements AS near
                   ON near.id BETWEEN named.id - ?2 AND named.id + ?3
               WHERE named.payment_hash = ?1";
    let near = read
        .all(sql, &[&hash, &around.before, &around.after], |row| legible(Settlement::kept(row)))?;
    Ok(near.into_iter().flatten().collect())
}

/// Every settlement of a transaction, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn of_txn(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    let sql = "SELECT * FROM settlements WHERE machine_id = ?1 AND txid = ?2 ORDER BY id";
    read.all(sql, &[&machine, &txid], Settlement::kept)
}

/// At most `limit` settlements after `after`, oldest first: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(
    read: &Read<'_>,
    after: SettlementId,
    limit: u32,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    let sql = "SELECT * FROM settlements WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], Settlement::kept)
}

/// The settlements for the notes of this withdraw.
///
/// # Errors
/// [`StoreError`].
pub fn of_withdraw(
    read: &Read<'_>,
    machine: MachineId,
    txid: TxnId,
    withdraw: WithdrawId,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    let mut all = of_txn(read, machine, txid)?;
    all.retain(|settlement| settlement.withdraw_id == Some(withdraw));
    Ok(all)
}

/// Whether a further payment of a settled invoice is on record under the wallet's own id of it.
///
/// # Errors
/// [`StoreError`].
pub fn knows_repeat(read: &Read<'_>, payment_key: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM repeat_payments WHERE payment_key = ?1) AS known";
    Ok(read.one(sql, &[&payment_key], |row| row.get("known"))?.unwrap_or(false))
}

/// Whether nobody has reported yet where the notes of some cash_out of a machine went, paid since `since`.
///
/// # Errors
/// [`StoreError`].
pub fn unreported(read: &Read<'_>, machine: MachineId, since: Unix) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM settlements
               WHERE machine_id = ?1 AND distribution = 'held' AND status = 'accepted'
               AND direction = 'cash_out' AND reported_at IS NULL AND settled_at >= ?2) AS waits";
    Ok(read.one(sql, &[&machine, &since], |row| row.get("waits"))?.unwrap_or(false))
}

/// The newest settlements of one operator's machines, of one machine or of all, before `before`.
///
/// # Errors
/// [`StoreError`].
pub fn newest(
    read: &Read<'_>,
    operator: Option<OperatorId>,
    machine: Option<MachineId>,
    before: Option<SettlementId>,
    limit: u32,
) -> Result<Vec<Kept<SettlementId, Settlement>>, StoreError> {
    // a condition that may be absent hides the index that it could use
    let one = if machine.is_some() { "s.machine_id = ?2" } else { "?2 IS NULL" };
    let sql = format!(
        "SELECT s.* FROM settlements s JOIN machines m ON m.id = s.machine_id
         WHERE {one} AND (?1 IS NULL OR m.operator_id = ?1)
             AND s.id < coalesce(?3, 9223372036854775807) ORDER BY s.id DESC LIMIT ?4"
    );
    read.all(&sql, &[&operator, &machine, &before, &limit], Settlement::kept)
}

/// How far a wallet's list of payments has been read.
///
/// # Errors
/// [`StoreError`].
pub fn cursor(read: &Read<'_>, wallet_id: &str) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT cursor FROM wallet_cursors WHERE wallet_id = ?1";
    read.one(sql, &[&wallet_id], |row| row.get("cursor"))
}

/// Moves a wallet's cursor on, in the transaction that recorded what lies before it.
///
/// # Errors
/// [`StoreError`]; a rule for a cursor that goes back.
pub fn set_cursor(tx: &Tx<'_>, wallet_id: &str, cursor: u64, now: Unix) -> Result<(), StoreError> {
    let sql = "INSERT INTO wallet_cursors (wallet_id, cursor, updated_at) VALUES (?1, ?2, ?3)
               ON CONFLICT (wallet_id) DO UPDATE SET cursor = ?2, updated_at = ?3";
    tx.run_one("wallet_cursors", sql, &[&wallet_id, &cursor, &now])
}

/// Forgets a wallet's cursor, so that its whole list is read again: it is of another counting.
///
/// # Errors
/// [`StoreError`].
pub fn forget_cursor(tx: &Tx<'_>, wallet_id: &str, cursor: u64) -> Result<(), StoreError> {
    let sql = "DELETE FROM wallet_cursors WHERE wallet_id = ?1 AND cursor = ?2";
    tx.run(sql, &[&wallet_id, &cursor]).map(|_| ())
}
