//! Carries out administrators' calls inside one transaction.

use std::sync::Arc;

use bitspire_shared::ids::to_hex;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{SecretError, random};
use nostr::{Keys, SecretKey};
use serde_json::{Value, json};
use thiserror::Error;
use zeroize::Zeroizing;

use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::sealed::Sealed;
use bitspire_shared::seed::BunkerError as SeedError;

use super::super::core::Core;
use super::super::held::{HeldKey, Locked, seal};
use super::list::{audit, is_open, keys, policies, tokens, users};
use super::read::{Call, NewRule};
use crate::ids::{BunkerTokenId, PolicyId};
use crate::signer::Abilities;
use crate::store::bunker as rows;
use crate::store::{StoreError, Tx};

/// Seconds in an hour.
const HOUR: u64 = 3_600;

/// A result and what follows from it, or why nothing was done.
pub(super) type Outcome = Result<(String, After), String>;

/// What follows once it is on the disk.
#[derive(Debug)]
pub(super) enum After {
    Nothing,
    /// A key to answer for.
    Key(Box<HeldKey>),
    /// A token whose text is shown for a while.
    Token(BunkerTokenId, Zeroizing<String>),
    /// A token whose text is shown no longer.
    TokenGone(BunkerTokenId),
}

/// Why a call could not be prepared.
#[derive(Debug, Error)]
pub(super) enum PrepareError {
    #[error("the bunker has no random bytes")]
    Random(#[from] SecretError),
    #[error("the bunker cannot seal the key")]
    Seal(#[from] Locked),
    #[error("the key is none")]
    Key(#[from] IdError),
    #[error("the bunker made a token of the wrong length")]
    Token(#[from] SeedError),
}

/// A call with the random bytes and envelopes that it needs.
pub(super) enum Prepared {
    Plain(Call),
    Key {
        name: String,
        keys: Box<Keys>,
        pubkey: PubKey,
        sealed: Sealed,
    },
    Token {
        key: String,
        client: String,
        policy: PolicyId,
        hours: Option<u32>,
        secret: BunkerSecret,
    },
}

/// Makes what a call needs besides the database.
pub(super) fn prepare(core: &Core, call: Call) -> Result<Prepared, PrepareError> {
    Ok(match call {
        Call::CreateKey { name, given } => {
            let keys = Box::new(match given {
                Some(keys) => keys,
                None => fresh_key()?,
            });
            let pubkey = PubKey::new(keys.public_key())?;
            let sealed = seal(&core.secret, &name, &keys)?;
            Prepared::Key { name, keys, pubkey, sealed }
        }
        Call::CreateToken { key, client, policy, hours } => {
            let text = Zeroizing::new(to_hex(Zeroizing::new(random::<32>()?).as_slice()));
            Prepared::Token { key, client, policy, hours, secret: BunkerSecret::new(&text)? }
        }
        other => Prepared::Plain(other),
    })
}

fn fresh_key() -> Result<Keys, SecretError> {
    loop {
        // all but one in 2^128 texts of 32 bytes are a key
        if let Ok(key) = SecretKey::from_slice(Zeroizing::new(random::<32>()?).as_slice()) {
            return Ok(Keys::new(key));
        }
    }
}

impl Prepared {
    /// What the call is about, for the log.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Key { name, .. } => format!("key {name}"),
            Self::Token { key, client, policy, .. } => {
                format!("key {key}, policy {policy}, client {client}")
            }
            Self::Plain(call) => match call {
                Call::UnlockKey { name: key } | Call::Users { key } | Call::Tokens { key } => {
                    format!("key {key}")
                }
                Call::RevokeUser { id } | Call::ExtendUser { id, .. } => format!("user {id}"),
                Call::CreatePolicy { name, .. } => format!("policy {name}"),
                Call::AddRule { policy, .. }
                | Call::EndPolicy { policy, .. }
                | Call::CapRule { policy, .. } => format!("policy {policy}"),
                Call::RevokeToken { id } => format!("token {id}"),
                _ => String::new(),
            },
        }
    }

    /// Carries it out. What is refused has changed nothing.
    pub(super) fn execute(
        self,
        core: &Arc<Core>,
        tx: &Tx<'_>,
        now: Unix,
    ) -> Result<Outcome, StoreError> {
        let plain = |result: Value| Ok((result.to_string(), After::Nothing));
        let ok = || Ok((json!(["ok"]).to_string(), After::Nothing));
        Ok(match self {
            Self::Key { name, keys, pubkey, sealed } => {
                create_key(tx, name, *keys, pubkey, &sealed, now)?
            }
            Self::Token { key, client, policy, hours, secret } => {
                create_token(tx, key, client, policy, hours, &secret, now)?
            }
            Self::Plain(call) => match call {
                Call::Ping => Ok(("ok".into(), After::Nothing)),
                Call::Keys { skip, name } => plain(keys(core, tx, skip, name.as_deref())?),
                Call::Describe => plain(json!(abilities())),
                Call::ExtendUser { id, until } => match rows::extend_grant(tx, id, until)? {
                    true => ok(),
                    false => Err(format!("there is no user {id} that may do anything still")),
                },
                Call::UnlockKey { name } => match rows::by_name(tx, &name)? {
                    None => unknown_key(&name),
                    Some(key) if is_open(core, &key) => plain(json!({"success": true})),
                    Some(_) => Err(format!(
                        "key {name} does not open: it was sealed with another machine secret"
                    )),
                },
                Call::Users { key } => match rows::by_name(tx, &key)? {
                    None => unknown_key(&key),
                    Some(key) => plain(users(tx, key.id)?),
                },
                Call::RevokeUser { id } => {
                    if rows::revoke_grant(tx, id, now)? {
                        ok()
                    } else {
                        Err(format!("there is no user {id}"))
                    }
                }
                Call::CreatePolicy { name, expires_at, rules } => {
                    if rows::policy_by_name(tx, &name)?.is_some() {
                        return Ok(Err(format!(
                            "policy {name} exists already: add rules to it, or take another name"
                        )));
                    }
                    let policy =
                        rows::Policy { name, created_at: now, updated_at: now, expires_at };
                    let id = rows::insert_policy(tx, &policy)?;
                    for rule in rules {
                        add_rule(tx, id, rule, now)?;
                    }
                    ok()
                }
                Call::Policies => plain(policies(tx)?),
                Call::CreateKey { name, .. } | Call::CreateToken { key: name, .. } => {
                    Err(format!("key {name}: nothing was prepared"))
                }
                Call::Tokens { key } => match rows::by_name(tx, &key)? {
                    None => unknown_key(&key),
                    Some(key) => plain(tokens(core, tx, &key, now)?),
                },
                Call::AddRule { policy, rule } => {
                    if rows::policy(tx, policy)?.is_none() {
                        return Ok(Err(format!("there is no policy {policy}")));
                    }
                    add_rule(tx, policy, rule, now)?;
                    ok()
                }
                Call::EndPolicy { policy, expires_at } => {
                    match rows::end_policy(tx, policy, expires_at, now)? {
                        true => ok(),
                        false => Err(format!("there is no policy {policy}")),
                    }
                }
                Call::CapRule { policy, rule, most } => cap_rule(tx, policy, rule, most, now)?,
                Call::RevokeToken { id } => {
                    if rows::token(tx, id)?.is_none() {
                        return Ok(Err(format!("there is no token {id}")));
                    }
                    rows::revoke_token(tx, id, now)?;
                    Ok((json!(["ok"]).to_string(), After::TokenGone(id)))
                }
                Call::Audit { limit } => plain(audit(tx, limit)?),
            },
        })
    }
}

/// What this bunker can do.
fn abilities() -> Abilities {
    Abilities {
        software: Some(concat!("bitspire ", env!("CARGO_PKG_VERSION")).to_owned()),
        revokes_tokens: true,
        adds_rules: true,
        ends_grants: true,
        enforces_policies: true,
        keeps_audit: true,
    }
}

fn unknown_key(name: &str) -> Outcome {
    Err(format!("there is no key {name}"))
}

fn create_key(
    tx: &Tx<'_>,
    name: String,
    keys: Keys,
    pubkey: PubKey,
    sealed: &Sealed,
    now: Unix,
) -> Result<Outcome, StoreError> {
    if rows::by_name(tx, &name)?.is_some() {
        return Ok(Err(format!(
            "key {name} exists already: this bunker never overwrites a key; take another name"
        )));
    }
    if rows::is_held(tx, pubkey)? {
        return Ok(Err("this very key is here already, under another name".into()));
    }
    let row = rows::Key { name, pubkey, sealed: sealed.to_string(), created_at: now };
    let id = rows::insert(tx, &row)?;
    let result = json!({"npub": pubkey.npub()}).to_string();
    Ok(Ok((result, After::Key(Box::new(HeldKey { id, pubkey, keys })))))
}

fn create_token(
    tx: &Tx<'_>,
    key: String,
    client_name: String,
    policy_id: PolicyId,
    hours: Option<u32>,
    secret: &BunkerSecret,
    now: Unix,
) -> Result<Outcome, StoreError> {
    let Some(key) = rows::by_name(tx, &key)? else { return Ok(unknown_key(&key)) };
    if rows::policy(tx, policy_id)?.is_none() {
        return Ok(Err(format!("there is no policy {policy_id}")));
    }
    let row = rows::Token {
        key_id: key.id,
        policy_id,
        client_name,
        hash: secret.hash(),
        created_at: now,
        expires_at: hours.map(|hours| now.after(u64::from(hours).saturating_mul(HOUR))),
        redeemed_at: None,
        redeemed_by: None,
        revoked_at: None,
    };
    let id = rows::insert_token(tx, &row)?;
    let text = Zeroizing::new(secret.expose().to_owned());
    Ok(Ok((json!(["ok"]).to_string(), After::Token(id, text))))
}

/// A use is never taken back: a cap below what was used already is refused.
fn cap_rule(
    tx: &Tx<'_>,
    policy: PolicyId,
    rule: NewRule,
    most: u64,
    now: Unix,
) -> Result<Outcome, StoreError> {
    let rules = rows::rules_of(tx, policy)?;
    let same = |one: &&crate::store::Kept<_, rows::Rule>| {
        (one.method, one.kind) == (rule.method, rule.kind)
    };
    let same: Vec<_> = rules.iter().filter(same).collect();
    if same.is_empty() {
        return Ok(Err(format!("policy {policy} has no such rule: add it")));
    }
    if let Some(used) = same.iter().map(|one| one.current_usage_count).find(|used| *used > most) {
        return Ok(Err(format!("it was used {used} times already: expected at least as many")));
    }
    for one in same {
        rows::cap_rule(tx, policy, one.id, most, now)?;
    }
    Ok(Ok((json!(["ok"]).to_string(), After::Nothing)))
}

fn add_rule(tx: &Tx<'_>, policy_id: PolicyId, rule: NewRule, now: Unix) -> Result<(), StoreError> {
    let NewRule { method, kind, max } = rule;
    let row = rows::Rule { policy_id, method, kind, max_usage_count: max, current_usage_count: 0 };
    rows::insert_rule(tx, &row, now).map(|_| ())
}
