//! Liquidity providers: who they are, in whose sales they take part, what they have handed over, and
//! what they got of each sale.
//!
//! Promise: terms, shares and confirmed deposits are rows that never change; what a provider has left
//! is a sum of the ledger. A provider's sats of a sale and the fiat that they cost are one row, without
//! which the database takes no leg. Deposits and enrolments in another currency, and enrolments at
//! another operator's machines, are refused by the database itself.
//!
//! States of a deposit: pending -> confirmed or cancelled. What is given back is confirmed at once.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Currency, Sats};
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, record};
use super::{Read, StoreError, Tx, ledger};
use crate::ids::{DepositId, EntryId, LpId, MachineId, OperatorId, SettlementId, TermsId};
use crate::ledger::{Account, Unit};

/// Seconds of a day, by which a daily limit counts.
const DAY_S: u64 = 86_400;

text_enum! {
    /// How a provider's fiat becomes sats.
    pub enum Mode {
        /// With every sale, as much as there is.
        Flow = "flow",
        /// So much a day at most.
        Fixed = "fixed",
    }
}

text_enum! {
    /// Which way a provider's fiat went.
    pub enum DepositKind {
        /// To the operator.
        Deposit = "deposit",
        /// Back to the provider.
        Return = "return",
    }
}

text_enum! {
    /// Where a deposit stands.
    pub enum DepositState {
        /// Announced; it counts nowhere.
        Pending = "pending",
        /// The operator has it; it counts.
        Confirmed = "confirmed",
        /// It never came.
        Cancelled = "cancelled",
    }
}

record! {
    /// A liquidity provider.
    pub struct Lp in "lps", id: LpId {
        /// With whom.
        pub operator_id: OperatorId,
        /// What the operator calls them.
        pub name: String,
        /// The currency of all their fiat.
        pub currency: Currency,
        /// When they were registered.
        pub created_at: Unix,
        /// Since when they take no part, where they take none.
        pub disabled_at: Option<Unix>,
    }
}

/// A provider with their number.
pub type KeptLp = Kept<LpId, Lp>;

record! {
    /// The terms of a provider, until the next ones.
    pub struct Terms in "lp_terms", id: TermsId {
        /// Whose.
        pub lp_id: LpId,
        /// How.
        pub mode: Mode,
        /// Minor units a day, UTC, at most; of the mode `fixed`.
        pub daily_limit_minor: Option<i64>,
        /// Who set them.
        pub actor: String,
        /// When.
        pub created_at: Unix,
    }
}

impl Terms {
    /// Minor units that may become sats now: of `left`, with `used` on the same day before.
    #[must_use]
    pub fn may(&self, left: i64, used: i64) -> i64 {
        let today = self.daily_limit_minor.map_or(left, |limit| limit.saturating_sub(used));
        left.min(today).max(0)
    }
}

record! {
    /// In whose sales a provider takes part, or took.
    #[derive(serde::Serialize)]
    pub struct Enrolment in "lp_enrolments" {
        /// Who.
        pub lp_id: LpId,
        /// At which machine; at every one of their currency where absent.
        pub machine_id: Option<MachineId>,
        /// From when on.
        pub since: Unix,
        /// Until when.
        pub ended_at: Option<Unix>,
    }
}

record! {
    /// Fiat that a provider has handed over, or was given back.
    #[derive(serde::Serialize)]
    pub struct Deposit in "lp_deposits", id: DepositId {
        /// Whose.
        pub lp_id: LpId,
        /// Which way.
        pub kind: DepositKind,
        /// What the operator calls it; unique for the provider.
        pub reference: String,
        /// How much, in minor units.
        pub amount_minor: i64,
        /// Its currency, which is the provider's.
        pub currency: Currency,
        /// Where it stands.
        pub state: DepositState,
        /// Who recorded it.
        pub actor: String,
        /// When.
        pub created_at: Unix,
        /// When it was confirmed or cancelled.
        pub ended_at: Option<Unix>,
        /// By whom.
        pub ended_by: Option<String>,
    }
}

/// A deposit with its number.
pub type KeptDeposit = Kept<DepositId, Deposit>;

record! {
    /// What of a settlement's principal is a provider's, and what it follows from.
    pub struct LpShare in "lp_shares" {
        /// Of which settlement.
        pub settlement_id: SettlementId,
        /// Whose.
        pub lp_id: LpId,
        /// By which terms.
        pub terms_id: TermsId,
        /// Their fiat before, in minor units.
        pub left_minor: i64,
        /// What of it had become sats on that day before.
        pub used_minor: i64,
        /// What they could spend on this sale, by their terms.
        pub may_minor: i64,
        /// Their sats.
        pub sats: Sats,
        /// The fiat that they cost, in minor units.
        pub minor: i64,
        /// When.
        pub at: Unix,
    }
}

/// Registers a provider.
///
/// # Errors
/// [`StoreError`]; unique where the operator has one of that name.
pub fn insert(tx: &Tx<'_>, lp: &Lp) -> Result<LpId, StoreError> {
    lp.insert_into(tx)
}

/// The provider with this number.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: LpId) -> Result<Option<KeptLp>, StoreError> {
    read.one("SELECT * FROM lps WHERE id = ?1", &[&id], Lp::kept)
}

/// Every provider of an operator (`None`: of all of them).
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, operator: Option<OperatorId>) -> Result<Vec<KeptLp>, StoreError> {
    let sql = "SELECT * FROM lps WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY id";
    read.all(sql, &[&operator], Lp::kept)
}

/// Lets a provider take no part, or part again.
///
/// # Errors
/// [`StoreError::NotOneRow`] where that is so already.
pub fn set_disabled(tx: &Tx<'_>, id: LpId, at: Option<Unix>) -> Result<(), StoreError> {
    let sql = "UPDATE lps SET disabled_at = ?2
               WHERE id = ?1 AND (disabled_at IS NULL) = (?2 IS NOT NULL)";
    tx.run_one("lps", sql, &[&id, &at])
}

/// Sets a provider's terms.
///
/// # Errors
/// [`StoreError`].
pub fn set_terms(tx: &Tx<'_>, terms: &Terms) -> Result<TermsId, StoreError> {
    terms.insert_into(tx)
}

/// The terms of this number.
///
/// # Errors
/// [`StoreError`].
pub fn find_terms(
    read: &Read<'_>,
    id: TermsId,
) -> Result<Option<Kept<TermsId, Terms>>, StoreError> {
    read.one("SELECT * FROM lp_terms WHERE id = ?1", &[&id], Terms::kept)
}

/// Whether the terms of a share stood when it was written, and no newer ones did.
///
/// # Errors
/// [`StoreError`].
pub fn newest_at(read: &Read<'_>, share: &LpShare) -> Result<bool, StoreError> {
    // those of the same second may have come after it
    let sql = "SELECT 1 FROM lp_terms WHERE lp_id = ?1 AND id = ?2 AND created_at <= ?3
               AND NOT EXISTS (SELECT 1 FROM lp_terms n WHERE n.lp_id = ?1 AND n.id > ?2
                   AND n.created_at < ?3)";
    Ok(read.one(sql, &[&share.lp_id, &share.terms_id, &share.at], |_| Ok(()))?.is_some())
}

/// Whether an enrolment of the provider covered the machine when a share was written.
///
/// # Errors
/// [`StoreError`].
pub fn enrolled_at(
    read: &Read<'_>,
    share: &LpShare,
    machine: MachineId,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM lp_enrolments WHERE lp_id = ?1 AND since <= ?2
               AND (ended_at IS NULL OR ended_at >= ?2)
               AND (machine_id IS NULL OR machine_id = ?3) LIMIT 1";
    Ok(read.one(sql, &[&share.lp_id, &share.at, &machine], |_| Ok(()))?.is_some())
}

/// The terms of a provider that count.
///
/// # Errors
/// [`StoreError`].
pub fn terms_of(read: &Read<'_>, lp: LpId) -> Result<Option<Kept<TermsId, Terms>>, StoreError> {
    let sql = "SELECT * FROM lp_terms WHERE lp_id = ?1 ORDER BY id DESC LIMIT 1";
    read.one(sql, &[&lp], Terms::kept)
}

/// Enrols a provider at a machine, or at all of their currency.
///
/// # Errors
/// [`StoreError`]; unique where they are enrolled there; a rule for a machine of another currency or
/// operator.
pub fn enrol(tx: &Tx<'_>, enrolment: &Enrolment) -> Result<(), StoreError> {
    enrolment.insert_into(tx)
}

/// Ends an enrolment.
///
/// # Errors
/// [`StoreError::NotOneRow`] where there is none.
pub fn leave(
    tx: &Tx<'_>,
    lp: LpId,
    machine: Option<MachineId>,
    now: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE lp_enrolments SET ended_at = ?3
               WHERE lp_id = ?1 AND machine_id IS ?2 AND ended_at IS NULL";
    tx.run_one("lp_enrolments", sql, &[&lp, &machine, &now])
}

/// Every enrolment of a provider, ended ones too, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn enrolments(read: &Read<'_>, lp: LpId) -> Result<Vec<Enrolment>, StoreError> {
    let sql = "SELECT * FROM lp_enrolments WHERE lp_id = ?1 ORDER BY id DESC";
    read.all(sql, &[&lp], Enrolment::from_row)
}

/// The providers who take part in a machine's sales in `currency`.
///
/// # Errors
/// [`StoreError`].
pub fn taking_part(
    read: &Read<'_>,
    (operator, machine): (OperatorId, MachineId),
    currency: Currency,
) -> Result<Vec<KeptLp>, StoreError> {
    let sql = "SELECT * FROM lps l WHERE operator_id = ?1 AND currency = ?3
               AND disabled_at IS NULL AND EXISTS (SELECT 1 FROM lp_enrolments e
                   WHERE e.lp_id = l.id AND e.ended_at IS NULL
                   AND (e.machine_id IS NULL OR e.machine_id = ?2)) ORDER BY id";
    read.all(sql, &[&operator, &machine, &currency], Lp::kept)
}

/// Fiat that a provider has left, in minor units, by the ledger.
///
/// # Errors
/// [`StoreError`].
pub fn left(read: &Read<'_>, lp: &KeptLp) -> Result<i64, StoreError> {
    let owed = ledger::balance(read, Account::Lp(lp.id), Unit::Fiat(lp.currency))?;
    Ok(owed.saturating_neg())
}

/// The same, as it was before an entry was written.
///
/// # Errors
/// [`StoreError`].
pub fn left_before(read: &Read<'_>, lp: &KeptLp, entry: EntryId) -> Result<i64, StoreError> {
    let account = (Account::Lp(lp.id), Unit::Fiat(lp.currency));
    Ok(ledger::balance_of_lp_before(read, account, entry)?.saturating_neg())
}

/// Fiat of a provider that became sats on the day of `at`, UTC, in minor units; before `settlement`'s
/// share, where one is named.
///
/// # Errors
/// [`StoreError`].
pub fn used_on(
    read: &Read<'_>,
    lp: LpId,
    at: Unix,
    settlement: Option<SettlementId>,
) -> Result<i64, StoreError> {
    let from = Unix(at.0.saturating_sub(at.0 % DAY_S));
    let sql = "SELECT coalesce(sum(minor), 0) AS minor FROM lp_shares
               WHERE lp_id = ?1 AND at >= ?2 AND at < ?3 AND (?4 IS NULL OR rowid <
                   (SELECT rowid FROM lp_shares WHERE settlement_id = ?4 AND lp_id = ?1))";
    let values: &[&dyn super::column::ToColumn] = &[&lp, &from, &from.after(DAY_S), &settlement];
    Ok(read.one(sql, values, |row| row.get("minor"))?.unwrap_or(0))
}

/// Writes what a provider gets of a settlement.
///
/// # Errors
/// [`StoreError`]; unique where they have a share of it.
pub fn insert_share(tx: &Tx<'_>, share: &LpShare) -> Result<(), StoreError> {
    share.insert_into(tx)
}

/// What providers get of a settlement.
///
/// # Errors
/// [`StoreError`].
pub fn shares_of(read: &Read<'_>, id: SettlementId) -> Result<Vec<LpShare>, StoreError> {
    let sql = "SELECT * FROM lp_shares WHERE settlement_id = ?1 ORDER BY lp_id";
    read.all(sql, &[&id], LpShare::from_row)
}

/// What a provider gets of a settlement.
///
/// # Errors
/// [`StoreError`].
pub fn share(
    read: &Read<'_>,
    settlement: SettlementId,
    lp: LpId,
) -> Result<Option<LpShare>, StoreError> {
    let sql = "SELECT * FROM lp_shares WHERE settlement_id = ?1 AND lp_id = ?2";
    read.one(sql, &[&settlement, &lp], LpShare::from_row)
}

/// A provider's share of a sale, with where its sats are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ShareState {
    /// Of which settlement.
    pub settlement_id: SettlementId,
    /// Of which machine.
    pub machine_id: MachineId,
    /// The sats.
    pub sats: Sats,
    /// What they cost, in minor units.
    pub minor: i64,
    /// When.
    pub at: Unix,
    /// The state of its leg; absent where it came to nothing.
    pub state: Option<super::legs::LegState>,
    /// The payment that carries it.
    pub payment_hash: Option<PaymentHash>,
}

/// The newest shares of a provider, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub fn newest_shares(read: &Read<'_>, lp: LpId, limit: u32) -> Result<Vec<ShareState>, StoreError> {
    let sql = "SELECT sh.settlement_id, s.machine_id, sh.sats, sh.minor, sh.at, l.state,
                   l.payment_hash FROM lp_shares sh
               JOIN settlements s ON s.id = sh.settlement_id
               LEFT JOIN legs l ON l.settlement_id = sh.settlement_id AND l.lp_id = sh.lp_id
                   AND l.round = (SELECT max(round) FROM legs n WHERE n.lp_id = sh.lp_id
                       AND n.settlement_id = sh.settlement_id)
               WHERE sh.lp_id = ?1 ORDER BY sh.rowid DESC LIMIT ?2";
    read.all(sql, &[&lp, &limit], |row| {
        Ok(ShareState {
            settlement_id: row.get("settlement_id")?,
            machine_id: row.get("machine_id")?,
            sats: row.get("sats")?,
            minor: row.get("minor")?,
            at: row.get("at")?,
            state: row.get("state")?,
            payment_hash: row.get("payment_hash")?,
        })
    })
}

/// Writes a deposit, or what is given back.
///
/// # Errors
/// [`StoreError`]; unique on the reference; a rule for another currency.
pub fn insert_deposit(tx: &Tx<'_>, deposit: &Deposit) -> Result<DepositId, StoreError> {
    deposit.insert_into(tx)
}

/// The deposit with this number.
///
/// # Errors
/// [`StoreError`].
pub fn find_deposit(read: &Read<'_>, id: DepositId) -> Result<Option<KeptDeposit>, StoreError> {
    read.one("SELECT * FROM lp_deposits WHERE id = ?1", &[&id], Deposit::kept)
}

/// The deposit of a provider under this reference.
///
/// # Errors
/// [`StoreError`].
pub fn by_reference(
    read: &Read<'_>,
    lp: LpId,
    reference: &str,
) -> Result<Option<KeptDeposit>, StoreError> {
    let sql = "SELECT * FROM lp_deposits WHERE lp_id = ?1 AND reference = ?2";
    read.one(sql, &[&lp, &reference], Deposit::kept)
}

/// Every deposit of a provider, and what they were given back, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn deposits(read: &Read<'_>, lp: LpId) -> Result<Vec<KeptDeposit>, StoreError> {
    let sql = "SELECT * FROM lp_deposits WHERE lp_id = ?1 ORDER BY id DESC";
    read.all(sql, &[&lp], Deposit::kept)
}

/// At most `limit` deposits after `after`, oldest first: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn deposit_page(
    read: &Read<'_>,
    after: DepositId,
    limit: u32,
) -> Result<Vec<KeptDeposit>, StoreError> {
    let sql = "SELECT * FROM lp_deposits WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], Deposit::kept)
}

/// Ends a pending deposit: confirmed or cancelled.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has ended.
pub fn end_deposit(
    tx: &Tx<'_>,
    id: DepositId,
    state: DepositState,
    actor: &str,
    now: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE lp_deposits SET state = ?2, ended_at = ?3, ended_by = ?4
               WHERE id = ?1 AND state = 'pending'";
    tx.run_one("lp_deposits", sql, &[&id, &state, &now, &actor])
}
