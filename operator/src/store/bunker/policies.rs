//! Policies and their rules.

use bitspire_shared::nip46::message::Method;
use bitspire_shared::time::Unix;

use super::super::row::{Kept, record};
use super::{Read, StoreError, Tx};
use crate::ids::{PolicyId, RuleId};

record! {
    /// A named list of rules.
    pub struct Policy in "policies", id: PolicyId {
        /// Its name.
        pub name: String,
        /// When it was made.
        pub created_at: Unix,
        /// When its rules were changed last.
        pub updated_at: Unix,
        /// The last second at which it allows anything.
        pub expires_at: Option<Unix>,
    }
}

record! {
    /// One thing that a policy allows.
    pub struct Rule in "rules", id: RuleId {
        /// The policy.
        pub policy_id: PolicyId,
        /// The method.
        pub method: Method,
        /// For `sign_event` the event kind; `None` is every kind.
        pub kind: Option<u16>,
        /// How often it may be used.
        pub max_usage_count: Option<u64>,
        /// How often it was.
        pub current_usage_count: u64,
    }
}

/// Stores a policy.
///
/// # Errors
/// [`StoreError`]; unique on `name`.
pub fn insert_policy(tx: &Tx<'_>, policy: &Policy) -> Result<PolicyId, StoreError> {
    policy.insert_into(tx)
}

/// Adds a rule.
///
/// # Errors
/// [`StoreError`].
pub fn insert_rule(tx: &Tx<'_>, rule: &Rule, now: Unix) -> Result<RuleId, StoreError> {
    let sql = "UPDATE policies SET updated_at = ?2 WHERE id = ?1";
    tx.run_one("policies", sql, &[&rule.policy_id, &now])?;
    rule.insert_into(tx)
}

/// Gives a policy another end; `None` is without end. Whether it is there.
///
/// # Errors
/// [`StoreError`].
pub fn end_policy(
    tx: &Tx<'_>,
    id: PolicyId,
    expires_at: Option<Unix>,
    now: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE policies SET expires_at = ?2, updated_at = ?3 WHERE id = ?1";
    Ok(tx.run(sql, &[&id, &expires_at, &now])? == 1)
}

/// Gives a rule another cap.
///
/// # Errors
/// [`StoreError`]; a check where more was used.
pub fn cap_rule(
    tx: &Tx<'_>,
    policy: PolicyId,
    rule: RuleId,
    most: u64,
    now: Unix,
) -> Result<(), StoreError> {
    let sql = "UPDATE policies SET updated_at = ?2 WHERE id = ?1";
    tx.run_one("policies", sql, &[&policy, &now])?;
    let sql = "UPDATE rules SET max_usage_count = ?2 WHERE id = ?1";
    tx.run_one("rules", sql, &[&rule, &Some(most)])
}

/// All policies.
///
/// # Errors
/// [`StoreError`].
pub fn policies(read: &Read<'_>) -> Result<Vec<Kept<PolicyId, Policy>>, StoreError> {
    read.all("SELECT * FROM policies ORDER BY id", &[], Policy::kept)
}

/// One policy.
///
/// # Errors
/// [`StoreError`].
pub fn policy(read: &Read<'_>, id: PolicyId) -> Result<Option<Kept<PolicyId, Policy>>, StoreError> {
    read.one("SELECT * FROM policies WHERE id = ?1", &[&id], Policy::kept)
}

/// The policy called `name`.
///
/// # Errors
/// [`StoreError`].
pub fn policy_by_name(
    read: &Read<'_>,
    name: &str,
) -> Result<Option<Kept<PolicyId, Policy>>, StoreError> {
    read.one("SELECT * FROM policies WHERE name = ?1", &[&name], Policy::kept)
}

/// The rules of a policy, oldest first.
///
/// # Errors
/// [`StoreError`].
pub fn rules_of(read: &Read<'_>, policy: PolicyId) -> Result<Vec<Kept<RuleId, Rule>>, StoreError> {
    read.all("SELECT * FROM rules WHERE policy_id = ?1 ORDER BY id", &[&policy], Rule::kept)
}

/// Counts one use of a rule.
///
/// # Errors
/// [`StoreError`]; a check where the rule is used up.
pub fn count(tx: &Tx<'_>, rule: RuleId) -> Result<(), StoreError> {
    let sql = "UPDATE rules SET current_usage_count = current_usage_count + 1 WHERE id = ?1";
    tx.run_one("rules", sql, &[&rule])
}
