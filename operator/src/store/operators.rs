//! Operators, their people, and what the instance itself takes.

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::FeePpm;
use bitspire_shared::time::Unix;

use super::column::text_enum;
use super::row::{Kept, Row, record};
use super::{Read, StoreError, Tx};
use crate::ids::{OperatorId, UserId};

text_enum! {
    /// Where the operator's key lives.
    pub enum SignerKind {
        /// In the operator's bunker.
        Bunker = "bunker",
        /// In this service, as a warned-about transition.
        Local = "local",
    }
}

text_enum! {
    /// What a person may do.
    pub enum Role {
        /// Look.
        Viewer = "viewer",
        /// Also empty cashboxes and refill bays.
        Collector = "collector",
        /// Also run machines: pair, configure, decide.
        Operator = "operator",
        /// Also change where money goes.
        Owner = "owner",
        /// The instance: the super configuration.
        Super = "super",
    }
}

record! {
    /// An operator.
    pub struct Operator in "operators", id: OperatorId {
        /// For pages and alerts.
        pub name: String,
        /// The operator key; nothing can be published without one.
        pub pubkey: Option<PubKey>,
        /// Where that key lives.
        pub signer: Option<SignerKind>,
        /// Its name in the bunker.
        pub bunker_key_name: Option<String>,
        /// When it was made.
        pub created_at: Unix,
    }
}

record! {
    /// A person's key with a role.
    pub struct User in "users", id: UserId {
        /// Whose machines; `None` for [`Role::Super`].
        pub operator_id: Option<OperatorId>,
        /// The key that signs this person's requests.
        pub pubkey: PubKey,
        /// What it may do.
        pub role: Role,
        /// For pages and the audit log.
        pub name: String,
        /// When it was made.
        pub created_at: Unix,
        /// Since when it may do nothing.
        pub disabled_at: Option<Unix>,
    }
}

/// What the whole instance takes from each principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperConfig {
    /// From cash_in.
    pub cash_in_fee_ppm: FeePpm,
    /// From cash_out.
    pub cash_out_fee_ppm: FeePpm,
    /// Where it goes; without one the leg is held.
    pub wallet_id: Option<String>,
    /// Last change; 0 is "never".
    pub updated_at: Unix,
}

/// Adds an operator.
///
/// # Errors
/// [`StoreError`]; unique on `pubkey`.
pub fn insert(tx: &Tx<'_>, operator: &Operator) -> Result<OperatorId, StoreError> {
    operator.insert_into(tx)
}

/// The operator with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(
    read: &Read<'_>,
    id: OperatorId,
) -> Result<Option<Kept<OperatorId, Operator>>, StoreError> {
    read.one("SELECT * FROM operators WHERE id = ?1", &[&id], Operator::kept)
}

/// Every operator.
///
/// # Errors
/// [`StoreError`].
pub fn list(read: &Read<'_>) -> Result<Vec<Kept<OperatorId, Operator>>, StoreError> {
    read.all("SELECT * FROM operators ORDER BY id", &[], Operator::kept)
}

/// Gives an operator its key, or another one.
///
/// # Errors
/// [`StoreError`]; unique on `pubkey`.
pub fn set_identity(
    tx: &Tx<'_>,
    id: OperatorId,
    pubkey: PubKey,
    signer: SignerKind,
    bunker_key_name: Option<&str>,
) -> Result<(), StoreError> {
    tx.run_one(
        "operators",
        "UPDATE operators SET pubkey = ?2, signer = ?3, bunker_key_name = ?4 WHERE id = ?1",
        &[&id, &pubkey, &signer, &bunker_key_name],
    )
}

/// Adds a person.
///
/// # Errors
/// [`StoreError`]; unique on `pubkey`.
pub fn insert_user(tx: &Tx<'_>, user: &User) -> Result<UserId, StoreError> {
    user.insert_into(tx)
}

/// The person with this key, if it is not disabled.
///
/// # Errors
/// [`StoreError`].
pub fn user_by_key(
    read: &Read<'_>,
    pubkey: PubKey,
) -> Result<Option<Kept<UserId, User>>, StoreError> {
    read.one(
        "SELECT * FROM users WHERE pubkey = ?1 AND disabled_at IS NULL",
        &[&pubkey],
        User::kept,
    )
}

/// The people of one operator, or everybody.
///
/// # Errors
/// [`StoreError`].
pub fn users(
    read: &Read<'_>,
    operator: Option<OperatorId>,
) -> Result<Vec<Kept<UserId, User>>, StoreError> {
    let sql = "SELECT * FROM users WHERE ?1 IS NULL OR operator_id = ?1 ORDER BY id";
    read.all(sql, &[&operator], User::kept)
}

/// Takes a person's rights away.
///
/// # Errors
/// [`StoreError::NotOneRow`] where there is no such person, or it is disabled already.
pub fn disable_user(tx: &Tx<'_>, id: UserId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE users SET disabled_at = ?2 WHERE id = ?1 AND disabled_at IS NULL";
    tx.run_one("users", sql, &[&id, &now])
}

/// The super configuration; it exists from the first start.
///
/// # Errors
/// [`StoreError`].
pub fn super_config(read: &Read<'_>) -> Result<SuperConfig, StoreError> {
    let sql = "SELECT * FROM super_config WHERE id = 1";
    let read_row = |row: &Row<'_>| {
        Ok(SuperConfig {
            cash_in_fee_ppm: row.get("cash_in_fee_ppm")?,
            cash_out_fee_ppm: row.get("cash_out_fee_ppm")?,
            wallet_id: row.get("wallet_id")?,
            updated_at: row.get("updated_at")?,
        })
    };
    read.one(sql, &[], read_row)?.ok_or(StoreError::NotOneRow { table: "super_config", changed: 0 })
}

/// Changes the super configuration.
///
/// # Errors
/// [`StoreError`]; a check where a fee is above the cap.
pub fn set_super_config(tx: &Tx<'_>, config: &SuperConfig) -> Result<(), StoreError> {
    tx.run_one(
        "super_config",
        "UPDATE super_config SET cash_in_fee_ppm = ?1, cash_out_fee_ppm = ?2, wallet_id = ?3,
            updated_at = ?4 WHERE id = 1",
        &[&config.cash_in_fee_ppm, &config.cash_out_fee_ppm, &config.wallet_id, &config.updated_at],
    )
}
