//! Rule sets: who gets which share of a fee, from when on.
//!
//! Promise: a rule set is a signed row that never changes; the one in force at a time is the newest
//! whose time had come and that nobody had cancelled before. So what was in force at any time can be
//! told for ever.

use bitspire_shared::money::FeePpm;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{LpId, MachineId, OperatorId, RuleSetId};

text_enum! {
    /// Whose fee a rule set is about.
    pub enum Scope {
        /// The platform's.
        Super = "super",
        /// An operator's.
        Operator = "operator",
        /// An operator's from one machine.
        Machine = "machine",
        /// A liquidity provider's sats.
        Lp = "lp",
    }
}

/// Where a share goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Destination {
    /// Another wallet of this instance's configuration, which is no machine's.
    Wallet(String),
    /// A Lightning address (LUD-16).
    LightningAddress(String),
    /// Where an LNURL-pay leads (LUD-06): an https address.
    LnurlPay(String),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wallet(id) => write!(f, "wallet:{id}"),
            Self::LightningAddress(address) => write!(f, "ln:{address}"),
            Self::LnurlPay(url) => write!(f, "lnurl:{url}"),
        }
    }
}

/// A share of a fee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which part of the fee.
    pub ppm: FeePpm,
    /// Who gets it.
    pub to: Destination,
}

record! {
    /// A rule set.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct RuleSet in "rules", id: RuleSetId {
        /// Whose fee it is about.
        pub scope: Scope,
        /// The operator, where it is one's.
        pub operator_id: Option<OperatorId>,
        /// The machine, where it is about one's.
        pub machine_id: Option<MachineId>,
        /// The provider, where it is about one's sats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub lp_id: Option<LpId>,
        /// All of the fee, or nothing: then it stays in the machine's wallet.
        pub shares: Json<Vec<Share>>,
        /// The event by which the owner's key has signed it.
        pub signed: String,
        /// Who asked for it.
        pub actor: String,
        /// When.
        pub created_at: Unix,
        /// From when on it counts.
        pub in_force_at: Unix,
        /// When it was cancelled, before it counted.
        pub cancelled_at: Option<Unix>,
        /// By whom.
        pub cancelled_by: Option<String>,
    }
}

/// A rule set with its number.
pub type KeptRules = Kept<RuleSetId, RuleSet>;

/// Writes a rule set.
///
/// # Errors
/// [`StoreError`].
pub fn insert(tx: &Tx<'_>, rules: &RuleSet) -> Result<RuleSetId, StoreError> {
    rules.insert_into(tx)
}

/// Cancels a rule set that does not count yet.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it counts, was cancelled or is none.
pub fn cancel(tx: &Tx<'_>, id: RuleSetId, actor: &str, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE rules SET cancelled_at = ?2, cancelled_by = ?3
               WHERE id = ?1 AND cancelled_at IS NULL AND in_force_at > ?2";
    tx.run_one("rules", sql, &[&id, &now, &actor])
}

/// The rule set with this number.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: RuleSetId) -> Result<Option<KeptRules>, StoreError> {
    read.one("SELECT * FROM rules WHERE id = ?1", &[&id], RuleSet::kept)
}

/// Every rule set that an operator (`None`: anybody) may see, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>, operator: Option<OperatorId>) -> Result<Vec<KeptRules>, StoreError> {
    let sql = "SELECT * FROM rules WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY id DESC";
    read.all(sql, &[&operator], RuleSet::kept)
}

/// Every rule set that counts at `at`, or will: not cancelled, and no newer one counts in its place.
///
/// # Errors
/// [`StoreError`].
pub fn standing(read: &Read<'_>, at: Unix) -> Result<Vec<KeptRules>, StoreError> {
    let sql = "SELECT * FROM rules r WHERE cancelled_at IS NULL AND NOT EXISTS (
                   SELECT 1 FROM rules n WHERE n.scope = r.scope
                   AND n.operator_id IS r.operator_id AND n.machine_id IS r.machine_id
                   AND n.lp_id IS r.lp_id
                   AND n.cancelled_at IS NULL AND n.in_force_at <= ?1
                   AND (n.in_force_at, n.id) > (r.in_force_at, r.id)) ORDER BY id";
    read.all(sql, &[&at], RuleSet::kept)
}

fn newest(
    read: &Read<'_>,
    scope: Scope,
    operator: Option<OperatorId>,
    machine: Option<MachineId>,
    at: Unix,
) -> Result<Option<KeptRules>, StoreError> {
    let sql = "SELECT * FROM rules WHERE scope = ?1 AND operator_id IS ?2 AND machine_id IS ?3
               AND lp_id IS NULL AND in_force_at <= ?4 AND cancelled_at IS NULL
               ORDER BY in_force_at DESC, id DESC LIMIT 1";
    read.one(sql, &[&scope, &operator, &machine, &at], RuleSet::kept)
}

/// The platform's rule set in force at `at`.
///
/// # Errors
/// [`StoreError`].
pub fn of_super(read: &Read<'_>, at: Unix) -> Result<Option<KeptRules>, StoreError> {
    newest(read, Scope::Super, None, None, at)
}

/// An operator's rule set in force at `at` for one machine: the machine's own, where it says
/// anything, else the operator's.
///
/// # Errors
/// [`StoreError`].
pub fn of_operator(
    read: &Read<'_>,
    operator: OperatorId,
    machine: MachineId,
    at: Unix,
) -> Result<Option<KeptRules>, StoreError> {
    let own = newest(read, Scope::Machine, Some(operator), Some(machine), at)?;
    match own.filter(|own| !own.shares.0.is_empty()) {
        Some(own) => Ok(Some(own)),
        None => newest(read, Scope::Operator, Some(operator), None, at),
    }
}

/// A liquidity provider's rule set in force at `at`.
///
/// # Errors
/// [`StoreError`].
pub fn of_lp(read: &Read<'_>, lp: LpId, at: Unix) -> Result<Option<KeptRules>, StoreError> {
    let sql = "SELECT * FROM rules WHERE scope = 'lp' AND lp_id = ?1 AND in_force_at <= ?2
               AND cancelled_at IS NULL ORDER BY in_force_at DESC, id DESC LIMIT 1";
    read.one(sql, &[&lp, &at], RuleSet::kept)
}

/// Every rule set of a provider, newest first.
///
/// # Errors
/// [`StoreError`].
pub fn list_of_lp(read: &Read<'_>, lp: LpId) -> Result<Vec<KeptRules>, StoreError> {
    read.all("SELECT * FROM rules WHERE lp_id = ?1 ORDER BY id DESC", &[&lp], RuleSet::kept)
}
