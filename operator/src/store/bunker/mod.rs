//! The bunker's database: keys, grants and what was asked, in a file of its own.
//!
//! Promise: as [`Store`]: what a write acknowledged is on the disk. The schema holds what must hold
//! whatever the code does: a key is sealed and never overwritten, a token is redeemed once, a
//! revoked client stays revoked, a use is never taken back, one request is counted once, the logs
//! are append-only.
//!
//! Failure policy: as [`Store`]: a fault of the disk stops all further writing.

mod grants;
mod keys;
mod log;
mod policies;

use std::path::Path;

use bitspire_shared::time::Unix;

use super::error::OpenError;
use super::migrate::Migration;
use super::{Read, Store, StoreError, Tx};

pub use grants::{
    Grant, Named, Token, by_hash, client_of, extend_grant, grant, grants_of, insert_grant,
    insert_token, known_clients, redeem, revoke_grant, revoke_token, token, tokens_of, touch,
};
pub use keys::{
    Counted, Key, all, by_name, counted, insert, is_held, name_of, page, reseal, set_admins,
};
pub use log::{
    AdminEntry, AdminOutcome, Refused, Request, RequestOutcome, admin_entries, admin_entry,
    allowed, is_new, note, refuse, refused, requests,
};
pub use policies::{
    Policy, Rule, cap_rule, count, end_policy, insert_policy, insert_rule, policies, policy,
    policy_by_name, rules_of,
};

const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "bunker_0001_keys",
        sql: include_str!("../migrations/bunker_0001_keys.sql"),
    },
    Migration {
        number: 2,
        name: "bunker_0002_reseal",
        sql: include_str!("../migrations/bunker_0002_reseal.sql"),
    },
];

/// Opens the file at `path`, creates it where there is none. Only the functions of this module fit
/// its schema.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path, now: Unix) -> Result<Store, OpenError> {
    Store::open_with(path, now, MIGRATIONS, 1)
}
