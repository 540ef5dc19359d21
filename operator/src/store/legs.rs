//! Legs: the parts of a settlement on their way to whoever they belong to.
//!
//! Promise: a leg is a row with its own key before anything is asked of anybody; the hash of the one
//! invoice that it pays is written before the wallet is asked, and another one never follows in the
//! same round. A new round follows only on one that has finally failed. The database itself refuses
//! more legs than the settlement has sats for them.
//!
//! States: planned -> bound -> paid or failed; planned, or failed before its next round, -> void or
//! by_hand, by a person; a provider's without a destination is kept, until a person settles it: by_hand
//! or void. Whether a bound leg's payment is unknown says its attempt
//! ([`super::payments`]).

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::rules::Destination;
use super::{Read, StoreError, Tx};
use crate::ids::{LegId, LpId, MachineId, RuleSetId, SettlementId};

text_enum! {
    /// Which part of a settlement a leg carries.
    pub enum LegKind {
        /// The platform's fee.
        SuperFee = "super_fee",
        /// A share of the operator's fee.
        OperatorSplit = "operator_split",
        /// A liquidity provider's share of the principal.
        Dca = "dca",
    }
}

text_enum! {
    /// Where a leg stands.
    pub enum LegState {
        /// Written; no invoice yet.
        Planned = "planned",
        /// Its invoice is written; the payment is under way or unknown.
        Bound = "bound",
        /// Paid.
        Paid = "paid",
        /// Finally not paid.
        Failed = "failed",
        /// A person decided that it is not paid; its sats stay in the machine's wallet.
        Void = "void",
        /// A person has paid it by other means.
        ByHand = "by_hand",
        /// A provider's without a destination: its sats lie in the machine's wallet for them.
        Kept = "kept",
    }
}

record! {
    /// A leg.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Leg in "legs", id: LegId {
        /// Its settlement.
        pub settlement_id: SettlementId,
        /// Which one of the settlement, from 1.
        pub position: i64,
        /// Which try of it, from 1.
        pub round: i64,
        /// Names settlement, position and round; nobody has two of them.
        pub idempotency_key: String,
        /// Which part it carries.
        pub kind: LegKind,
        /// Whose it is, where it is a liquidity provider's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub lp_id: Option<LpId>,
        /// How much.
        pub amount_sats: Sats,
        /// The rule set that says where to; absent as long as the platform, or a provider, has none.
        pub rule_id: Option<RuleSetId>,
        /// Where to.
        pub destination: Option<Json<Destination>>,
        /// Where it stands.
        pub state: LegState,
        /// The hash of its one invoice.
        pub payment_hash: Option<PaymentHash>,
        /// Why it does not go on, or why a person ended it.
        pub detail: Option<String>,
        /// When it was planned.
        pub planned_at: Unix,
        /// When it ended.
        pub ended_at: Option<Unix>,
        /// Who ended it, where it was a person.
        pub ended_by: Option<String>,
    }
}

/// A leg with its number.
pub type KeptLeg = Kept<LegId, Leg>;

/// A leg that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLeg {
    /// Which part it carries.
    pub kind: LegKind,
    /// Whose it is, where it is a liquidity provider's.
    pub lp: Option<LpId>,
    /// How much; above 0.
    pub amount: Sats,
    /// Where to, and by which rule set.
    pub to: Option<(RuleSetId, Destination)>,
}

fn key(settlement: SettlementId, position: i64, round: i64) -> String {
    format!("leg:{settlement}:{position}:{round}")
}

/// Writes the legs of a settlement, in order.
///
/// # Errors
/// [`StoreError`]; unique where it has legs; a rule where they are more than it has sats.
pub fn plan(
    tx: &Tx<'_>,
    settlement: SettlementId,
    legs: &[NewLeg],
    now: Unix,
) -> Result<(), StoreError> {
    for (position, leg) in (1_i64..).zip(legs) {
        let (rule_id, destination) = leg.to.clone().unzip();
        Leg {
            settlement_id: settlement,
            position,
            round: 1,
            idempotency_key: key(settlement, position, 1),
            kind: leg.kind,
            lp_id: leg.lp,
            amount_sats: leg.amount,
            rule_id,
            destination: destination.map(Json),
            state: match (leg.lp, &leg.to) {
                (Some(_), None) => LegState::Kept,
                _ => LegState::Planned,
            },
            payment_hash: None,
            detail: None,
            planned_at: now,
            ended_at: None,
            ended_by: None,
        }
        .insert_into(tx)?;
    }
    Ok(())
}

/// Every leg of a settlement, each with all its rounds.
///
/// # Errors
/// [`StoreError`].
pub fn of_settlement(read: &Read<'_>, id: SettlementId) -> Result<Vec<KeptLeg>, StoreError> {
    let sql = "SELECT * FROM legs WHERE settlement_id = ?1 ORDER BY position, round";
    read.all(sql, &[&id], Leg::kept)
}

/// The last round of each leg of a settlement.
///
/// # Errors
/// [`StoreError`].
pub fn latest(read: &Read<'_>, id: SettlementId) -> Result<Vec<KeptLeg>, StoreError> {
    let sql = "SELECT * FROM legs l WHERE settlement_id = ?1 AND round = (SELECT max(round)
                   FROM legs n WHERE n.settlement_id = ?1 AND n.position = l.position)
               ORDER BY position";
    read.all(sql, &[&id], Leg::kept)
}

/// The leg with this number.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: LegId) -> Result<Option<KeptLeg>, StoreError> {
    read.one("SELECT * FROM legs WHERE id = ?1", &[&id], Leg::kept)
}

/// At most `limit` legs after `after`, oldest first: for the auditor.
///
/// # Errors
/// [`StoreError`].
pub fn page(read: &Read<'_>, after: LegId, limit: u32) -> Result<Vec<KeptLeg>, StoreError> {
    let sql = "SELECT * FROM legs WHERE id > ?1 ORDER BY id LIMIT ?2";
    read.all(sql, &[&after, &limit], Leg::kept)
}

/// Says where the legs of a settlement go that wait for a destination.
///
/// # Errors
/// [`StoreError`].
pub fn assign(
    tx: &Tx<'_>,
    settlement: SettlementId,
    rule: RuleSetId,
    to: &Destination,
) -> Result<(), StoreError> {
    let sql = "UPDATE legs SET rule_id = ?2, destination = ?3
               WHERE settlement_id = ?1 AND state = 'planned' AND rule_id IS NULL";
    tx.run(sql, &[&settlement, &rule, &Json(to)]).map(|_| ())
}

/// Binds the one invoice that this round pays.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it has one, or has ended; unique on the hash.
pub fn bind(tx: &Tx<'_>, id: LegId, hash: PaymentHash) -> Result<(), StoreError> {
    let sql = "UPDATE legs SET state = 'bound', payment_hash = ?2, detail = NULL
               WHERE id = ?1 AND state = 'planned' AND rule_id IS NOT NULL";
    tx.run_one("legs", sql, &[&id, &hash])
}

/// Notes why a leg does not go on.
///
/// # Errors
/// [`StoreError`].
pub fn note(tx: &Tx<'_>, id: LegId, detail: &str) -> Result<(), StoreError> {
    let sql = "UPDATE legs SET detail = ?2 WHERE id = ?1 AND state IN ('planned', 'bound')
               AND detail IS NOT ?2";
    tx.run(sql, &[&id, &detail]).map(|_| ())
}

/// Ends a bound leg as its payment has ended.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not bound.
pub fn end(tx: &Tx<'_>, id: LegId, paid: bool, now: Unix) -> Result<(), StoreError> {
    let state = if paid { LegState::Paid } else { LegState::Failed };
    let sql = "UPDATE legs SET state = ?2, ended_at = ?3 WHERE id = ?1 AND state = 'bound'";
    tx.run_one("legs", sql, &[&id, &state, &now])
}

/// The next round of a leg that has finally failed.
fn following(failed: &Leg, now: Unix) -> Leg {
    let round = failed.round.saturating_add(1);
    Leg {
        round,
        idempotency_key: key(failed.settlement_id, failed.position, round),
        state: LegState::Planned,
        payment_hash: None,
        detail: None,
        planned_at: now,
        ended_at: None,
        ended_by: None,
        ..failed.clone()
    }
}

/// Begins the next round of a leg that has finally failed.
///
/// # Errors
/// [`StoreError`]; unique where a later round is there already.
pub fn again(tx: &Tx<'_>, failed: &KeptLeg, now: Unix) -> Result<LegId, StoreError> {
    following(failed, now).insert_into(tx)
}

/// A person ends a leg that no payment can end any more: `void` or `by_hand`, with the reason.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is bound or has ended otherwise.
pub fn give_up(
    tx: &Tx<'_>,
    leg: &KeptLeg,
    state: LegState,
    (actor, reason): (&str, &str),
    now: Unix,
) -> Result<LegId, StoreError> {
    let id = match leg.state {
        LegState::Failed => again(tx, leg, now)?,
        _ => leg.id,
    };
    let sql = "UPDATE legs SET state = ?2, detail = ?3, ended_at = ?4, ended_by = ?5
               WHERE id = ?1 AND state IN ('planned', 'kept')";
    tx.run_one("legs", sql, &[&id, &state, &reason, &now, &actor])?;
    Ok(id)
}

/// Sats of a machine's wallet that legs are still to carry away, or that it keeps for providers.
///
/// # Errors
/// [`StoreError`].
pub fn open_sats(read: &Read<'_>, machine: MachineId) -> Result<Sats, StoreError> {
    // each of both has its index
    let sql = "SELECT (SELECT coalesce(sum(amount_sats), 0) FROM legs l
                   JOIN settlements s ON s.id = l.settlement_id
                   WHERE s.machine_id = ?1 AND l.state IN ('planned', 'bound'))
               + (SELECT coalesce(sum(amount_sats), 0) FROM legs l
                   JOIN settlements s ON s.id = l.settlement_id
                   WHERE s.machine_id = ?1 AND l.state = 'kept') AS sats";
    Ok(read.one(sql, &[&machine], |row| row.get("sats"))?.unwrap_or_default())
}

/// The legs of a provider that lie in machines' wallets for them, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn kept_for(read: &Read<'_>, lp: LpId) -> Result<Vec<KeptLeg>, StoreError> {
    let sql = "SELECT * FROM legs WHERE lp_id = ?1 AND state = 'kept'
               ORDER BY id";
    read.all(sql, &[&lp], Leg::kept)
}

/// Sats of a machine's wallet that are kept for providers.
///
/// # Errors
/// [`StoreError`].
pub fn kept_sats(read: &Read<'_>, machine: MachineId) -> Result<Sats, StoreError> {
    let sql = "SELECT coalesce(sum(amount_sats), 0) AS sats FROM legs l
               JOIN settlements s ON s.id = l.settlement_id
               WHERE s.machine_id = ?1 AND l.state = 'kept'";
    Ok(read.one(sql, &[&machine], |row| row.get("sats"))?.unwrap_or_default())
}
