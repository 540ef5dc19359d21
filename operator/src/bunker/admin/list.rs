//! What administrators are shown.

use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::super::core::Core;
use crate::ids::BunkerKeyId;
use crate::store::bunker as rows;
use crate::store::{Kept, Read, StoreError};

/// Keys in one answer: their names and npubs must fit into 64 kB.
const PAGE: u32 = 200;

/// Whether a key's envelope has opened.
pub(super) fn is_open(core: &Core, key: &Kept<BunkerKeyId, rows::Key>) -> bool {
    core.held().holds(&key.pubkey.to_bytes())
}

fn time(at: Option<Unix>) -> Value {
    at.map_or(Value::Null, |at| at.to_iso().into())
}

/// Keys from `skip` on, or the one called `name`.
pub(super) fn keys(
    core: &Core,
    read: &Read<'_>,
    skip: u32,
    name: Option<&str>,
) -> Result<Value, StoreError> {
    let page = match name {
        Some(name) => rows::counted(read, name)?.into_iter().collect(),
        None => rows::page(read, skip, PAGE)?,
    };
    Ok(page
        .iter()
        .map(|counted| {
            if !is_open(core, &counted.key) {
                return json!({"name": counted.key.name});
            }
            json!({
                "name": counted.key.name,
                "npub": counted.key.pubkey.npub(),
                "userCount": counted.users,
                "tokenCount": counted.tokens,
            })
        })
        .collect())
}

/// The clients of a key.
pub(super) fn users(read: &Read<'_>, key: BunkerKeyId) -> Result<Value, StoreError> {
    let mut users = Vec::new();
    for rows::Named { grant, client_name } in rows::grants_of(read, key)? {
        let allowed = rows::rules_of(read, grant.policy_id)?;
        let allowed = allowed
            .iter()
            .map(|rule| json!({"method": rule.method, "kind": rule.kind, "allowed": true}));
        users.push(json!({
            "id": grant.id,
            "name": client_name,
            "pubkey": grant.client,
            "createdAt": time(Some(grant.created_at)),
            "lastUsedAt": time(grant.last_used_at),
            "revokedAt": time(grant.revoked_at),
            "signingConditions": allowed.collect::<Value>(),
        }));
    }
    Ok(users.into())
}

/// All policies.
pub(super) fn policies(read: &Read<'_>) -> Result<Value, StoreError> {
    let mut policies = Vec::new();
    for policy in rows::policies(read)? {
        let rules = rows::rules_of(read, policy.id)?;
        let rules = rules.iter().map(|rule| {
            json!({
                "method": rule.method,
                "kind": rule.kind,
                "max_usage_count": rule.max_usage_count,
                "current_usage_count": rule.current_usage_count,
            })
        });
        policies.push(json!({
            "id": policy.id,
            "name": policy.name,
            "description": null,
            "created_at": time(Some(policy.created_at)),
            "updated_at": time(Some(policy.updated_at)),
            "expires_at": time(policy.expires_at),
            "rules": rules.collect::<Value>(),
        }));
    }
    Ok(policies.into())
}

/// The tokens of a key; the text of one only while it is in memory and of use to somebody.
pub(super) fn tokens(
    core: &Core,
    read: &Read<'_>,
    key: &Kept<BunkerKeyId, rows::Key>,
    now: Unix,
) -> Result<Value, StoreError> {
    let mut tokens = Vec::new();
    for token in rows::tokens_of(read, key.id)? {
        let policy = rows::policy(read, token.policy_id)?;
        let of_use = token.redeemed_at.is_none() && token.expires_at.is_none_or(|end| now <= end);
        let text = core.token_text(token.id, now).filter(|_| of_use);
        let text = text.map(|text| format!("{}#{}", key.pubkey.npub(), *text));
        tokens.push(json!({
            "id": token.id,
            "key_name": key.name,
            "client_name": token.client_name,
            "token": text,
            "policy_id": token.policy_id,
            "policy_name": policy.map(|policy| policy.row.name),
            "created_at": time(Some(token.created_at)),
            "updated_at": time(Some(token.redeemed_at.unwrap_or(token.created_at))),
            "expires_at": time(token.expires_at),
            "redeemed_at": time(token.redeemed_at),
            "redeemed_by": token.redeemed_by,
            "time_until_expiration": token.expires_at.map(|end| end.since(now)),
        }));
    }
    Ok(tokens.into())
}

/// The newest entries of each log.
pub(super) fn audit(read: &Read<'_>, limit: u32) -> Result<Value, StoreError> {
    let requests: Value = rows::requests(read, limit)?
        .iter()
        .map(|row| {
            Ok(json!({
                "at": time(Some(row.at)), "key": rows::name_of(read, row.key_id)?,
                "user": row.grant_id, "client": rows::client_of(read, row.grant_id)?,
                "method": row.method, "kind": row.kind, "outcome": row.outcome.as_str(),
                "detail": row.detail,
            }))
        })
        .collect::<Result<_, StoreError>>()?;
    let refused: Value = rows::refused(read, limit)?
        .iter()
        .map(|row| {
            Ok(json!({
                "at": time(Some(row.at)), "key": rows::name_of(read, row.key_id)?,
                "client": row.client, "method": row.method, "kind": row.kind,
                "outcome": "refused", "detail": row.detail,
            }))
        })
        .collect::<Result<_, StoreError>>()?;
    let admin: Value = rows::admin_entries(read, limit)?
        .iter()
        .map(|row| {
            json!({
                "at": time(Some(row.at)), "admin": row.admin, "method": row.method,
                "subject": row.subject, "outcome": row.outcome.as_str(), "detail": row.detail,
            })
        })
        .collect();
    Ok(json!({"requests": requests, "refused": refused, "admin": admin}))
}
