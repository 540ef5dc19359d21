//! What a request may have: looked up, decided and written down in one transaction.
//!
//! Promise: when this is committed, and only then, may the request be carried out. A use is counted
//! here and once for each request: the same text of the same client is a repeat, which is checked
//! against grant and policy as they are now but not counted again. A grant is stored before the
//! `ack` that tells of it.
//!
//! Failure policy: a refusal is no error: it is written down too, bounded, since strangers can
//! cause it.

use std::sync::Arc;

use bitspire_shared::ids::Digest;
use bitspire_shared::nip46::policy::{self, Admission};
use bitspire_shared::nip46::server::{Call, Incoming, Reply};
use bitspire_shared::time::Unix;

use super::limits::Asker;
use crate::ids::{BunkerKeyId, BunkerTokenId, GrantId, PolicyId, RuleId};
use crate::store::bunker as rows;
use crate::store::{Kept, Read, StoreError, Tx};

/// A request for one key.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) key: BunkerKeyId,
    /// SHA-256 of the decrypted text.
    pub(super) digest: Digest,
    pub(super) incoming: Arc<Incoming>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The client is let in, for this token, as whom.
    Admitted(GrantId, BunkerTokenId, Asker),
    /// To be carried out.
    Allowed(GrantId),
    /// To be carried out again.
    Repeated(GrantId),
    /// Not to be carried out; what the client is told.
    Denied(String),
}

/// The longest text that a row keeps, in characters.
const BRIEF: usize = 200;

/// What fits into a row.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(BRIEF).collect()
}

/// The name and kind of a call, for rows and logs.
pub(super) fn named(call: &Call) -> (String, Option<u16>) {
    let name = match call {
        Call::Connect { .. } => "connect",
        Call::SignEvent(event) => return ("sign_event".into(), Some(event.kind.as_u16())),
        Call::Ping => "ping",
        Call::GetPublicKey => "get_public_key",
        Call::Nip44Encrypt { .. } => "nip44_encrypt",
        Call::Nip44Decrypt { .. } => "nip44_decrypt",
        Call::Nip04Encrypt { .. } => "nip04_encrypt",
        Call::Nip04Decrypt { .. } => "nip04_decrypt",
        Call::SwitchRelays => "switch_relays",
        Call::Logout => "logout",
        Call::Unknown { method } => return (method.clone(), None),
        Call::Invalid { method, .. } => method.as_str(),
    };
    (name.into(), None)
}

/// Decides on `ask` and writes down what was decided.
pub(super) fn decide(tx: &Tx<'_>, ask: &Ask, now: Unix) -> Result<Decision, StoreError> {
    let decision = match ask.incoming.refusal() {
        Some(Reply::Error(text)) => Decision::Denied(text),
        _ => match &ask.incoming.call {
            Call::Connect { .. } => connect(tx, ask, now)?,
            _ => request(tx, ask, now)?,
        },
    };
    if let Decision::Denied(why) = &decision {
        let (method, kind) = named(&ask.incoming.call);
        let (key_id, client, detail) = (ask.key, ask.incoming.client, brief(why));
        rows::refuse(tx, &rows::Refused { at: now, key_id, client, method, kind, detail })?;
    }
    Ok(decision)
}

fn connect(tx: &Tx<'_>, ask: &Ask, now: Unix) -> Result<Decision, StoreError> {
    let Call::Connect { secret, .. } = &ask.incoming.call else {
        return Ok(Decision::Denied("expected connect".into()));
    };
    let client = ask.incoming.client;
    let standing = rows::grant(tx, ask.key, client)?;
    let token = match secret {
        Some(secret) => rows::by_hash(tx, ask.key, secret.hash())?,
        None => None,
    };
    let known = match &standing {
        Some(grant) => Some(live_grant(grant, policy_name(tx, grant.policy_id)?)),
        None => None,
    };
    let shown = token.as_ref().map(|token| live_token(tx, token)).transpose()?;
    let admission =
        match policy::admit(&client, secret.as_ref(), shown.as_ref(), known.as_ref(), now) {
            Ok(admission) => admission,
            Err(deny) => return Ok(Decision::Denied(deny.to_string())),
        };
    match (admission, standing, token) {
        (Admission::Known, Some(grant), _) => {
            let repeated = rows::allowed(tx, grant.id, ask.digest)?.is_some();
            note(tx, ask, grant.id, None, repeated, now)?;
            Ok(if repeated { Decision::Repeated(grant.id) } else { Decision::Allowed(grant.id) })
        }
        (Admission::Redeemed(grant), None, Some(token)) => {
            rows::redeem(tx, token.id, client, now)?;
            let row = rows::Grant {
                key_id: ask.key,
                policy_id: token.policy_id,
                token_id: token.id,
                client,
                created_at: now,
                expires_at: grant.expires_at,
                last_used_at: None,
                revoked_at: None,
            };
            let id = rows::insert_grant(tx, &row)?;
            note(tx, ask, id, None, false, now)?;
            Ok(Decision::Admitted(id, token.id, Asker::under(&grant.policy)))
        }
        _ => Ok(Decision::Denied("Not authorized".into())),
    }
}

fn request(tx: &Tx<'_>, ask: &Ask, now: Unix) -> Result<Decision, StoreError> {
    let (client, call) = (ask.incoming.client, &ask.incoming.call);
    let Some(grant) = rows::grant(tx, ask.key, client)? else {
        return Ok(Decision::Denied(policy::Deny::NotConnected.to_string()));
    };
    let before = rows::allowed(tx, grant.id, ask.digest)?;
    let rules = rows::rules_of(tx, grant.policy_id)?;
    let mut policy = live_policy(rows::policy(tx, grant.policy_id)?, &rules);
    if let Some(counted) = before.as_ref().and_then(|request| request.rule_id) {
        // its own use stands in the count already
        let own = rules.iter().position(|rule| rule.id == counted);
        if let Some(rule) = own.and_then(|at| policy.rules.get_mut(at)) {
            rule.current_usage_count = rule.current_usage_count.saturating_sub(1);
        }
    }
    let known = live_grant(&grant, policy.name.clone());
    let allow = match policy::authorize(call, &client, Some(&known), &policy, now) {
        Ok(allow) => allow,
        Err(deny) => return Ok(Decision::Denied(deny.to_string())),
    };
    let rule = allow.rule.and_then(|at| rules.get(at)).map(|rule| rule.id);
    if let Some(rule) = rule.filter(|_| before.is_none()) {
        rows::count(tx, rule)?;
    }
    note(tx, ask, grant.id, rule, before.is_some(), now)?;
    if matches!(call, Call::Logout) {
        rows::revoke_grant(tx, grant.id, now)?;
    }
    Ok(match before {
        Some(_) => Decision::Repeated(grant.id),
        None => Decision::Allowed(grant.id),
    })
}

fn note(
    tx: &Tx<'_>,
    ask: &Ask,
    grant_id: GrantId,
    rule_id: Option<RuleId>,
    repeated: bool,
    now: Unix,
) -> Result<(), StoreError> {
    rows::touch(tx, grant_id, now)?;
    if repeated {
        return Ok(());
    }
    note_outcome(tx, ask, grant_id, rule_id, rows::RequestOutcome::Allowed, "", now)
}

/// Writes down what came of a request that a grant covers.
pub(super) fn note_outcome(
    tx: &Tx<'_>,
    ask: &Ask,
    grant_id: GrantId,
    rule_id: Option<RuleId>,
    outcome: rows::RequestOutcome,
    detail: &str,
    now: Unix,
) -> Result<(), StoreError> {
    let (method, kind) = named(&ask.incoming.call);
    let (key_id, digest, detail) = (ask.key, ask.digest, brief(detail));
    let row =
        rows::Request { at: now, key_id, grant_id, method, kind, digest, rule_id, outcome, detail };
    rows::note(tx, &row)
}

fn policy_name(read: &Read<'_>, id: PolicyId) -> Result<String, StoreError> {
    Ok(rows::policy(read, id)?.map(|policy| policy.row.name).unwrap_or_default())
}

fn live_grant(grant: &Kept<GrantId, rows::Grant>, policy: String) -> policy::Grant {
    policy::Grant {
        client: grant.client,
        policy,
        expires_at: grant.expires_at,
        revoked_at: grant.revoked_at,
    }
}

fn live_token(
    read: &Read<'_>,
    token: &Kept<BunkerTokenId, rows::Token>,
) -> Result<policy::Token, StoreError> {
    Ok(policy::Token {
        hash: token.hash,
        policy: policy_name(read, token.policy_id)?,
        expires_at: token.expires_at,
        redeemed_by: token.redeemed_by,
    })
}

fn live_policy(
    row: Option<Kept<PolicyId, rows::Policy>>,
    rules: &[Kept<RuleId, rows::Rule>],
) -> policy::Policy {
    let rules = rules.iter().map(|rule| policy::Rule {
        method: rule.method,
        kind: rule.kind,
        max_usage_count: rule.max_usage_count,
        current_usage_count: rule.current_usage_count,
    });
    let (name, expires_at) = row.map(|p| (p.row.name, p.row.expires_at)).unwrap_or_default();
    policy::Policy { name, expires_at, rules: rules.collect() }
}
