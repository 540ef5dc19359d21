//! What is made and changed in the bunker over the API: keys, policies and their rules, tokens.
//!
//! Promise: as for looking at it, only the instance's own role may. Each act is in the audit log
//! before the bunker is asked. A token's text is in the one answer to whoever made it, and in no other.
//!
//! Failure policy: what a bunker cannot hold, a cap or an end, is refused, not left out. A call that
//! got no reply is said so: see with the lists whether it was done.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bitspire_shared::seed::{BunkerLink, BunkerUri, parse_relay};
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use super::body::Body;
use super::bunker::{admin, asked, note};
use super::error::ApiError;
use crate::fleet::FleetError;
use crate::signer::{BunkerAdmin, BunkerRule, NewRule, PolicyChange, SignerError};

type Made = Result<(StatusCode, Json<Value>), ApiError>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    name: String,
}

pub(super) async fn key(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(NewKey { name }): Body<NewKey>,
) -> Made {
    let admin = admin(&api, &caller)?;
    note(&api, &caller, "bunker.create_key", &format!("key {name}")).await?;
    let key = asked("create_new_key", admin.create_key(name.clone(), Keys::generate()).await)?;
    Ok((StatusCode::CREATED, Json(json!({ "name": name, "npub": key.npub() }))))
}

/// A rule; for `sign_event` its kind, or `"all"`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    method: String,
    kind: Option<Value>,
    max_usage_count: Option<u64>,
}

impl Rule {
    fn read(self) -> Result<NewRule, ApiError> {
        let Self { method, kind, max_usage_count } = self;
        let bad = || {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "expected a rule for sign_event with its kind, 0 to 65535, or \"all\"; or for \
                 nip44_encrypt or nip44_decrypt without one",
            )
            .with("field", json!("rules"))
        };
        let kind = match (method.as_str(), kind) {
            ("sign_event", Some(Value::String(all))) if all == "all" => None,
            ("sign_event", Some(kind)) => {
                Some(kind.as_u64().and_then(|kind| u16::try_from(kind).ok()).ok_or_else(bad)?)
            }
            ("nip44_encrypt" | "nip44_decrypt", None) => None,
            _ => return Err(bad()),
        };
        Ok(NewRule { rule: BunkerRule { method, kind }, most: max_usage_count })
    }
}

/// Refuses a cap or an end that the bunker would not hold.
async fn held(admin: &dyn BunkerAdmin, method: &'static str, wanted: bool) -> Result<(), ApiError> {
    if wanted && !asked("describe", admin.abilities().await)?.enforces_policies {
        let reason = "it holds no usage caps and no end of a policy".to_owned();
        return asked(method, Err(SignerError::Refused { method, reason }));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPolicy {
    name: String,
    rules: Vec<Rule>,
    /// Unix seconds.
    expires_at: Option<Unix>,
}

pub(super) async fn policy(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(NewPolicy { name, rules, expires_at }): Body<NewPolicy>,
) -> Made {
    let (admin, method) = (admin(&api, &caller)?, "create_new_policy");
    let rules: Vec<NewRule> = rules.into_iter().map(Rule::read).collect::<Result<_, _>>()?;
    // nsecbunkerd takes a second one of the same name
    let there = asked("get_policies", admin.policies().await)?;
    if there.iter().any(|policy| policy.name == name) {
        let reason = format!("policy {name} exists already: add rules to it, or take another name");
        return Err(ApiError::new(StatusCode::CONFLICT, reason).with("field", json!("name")));
    }
    let wanted = expires_at.is_some() || rules.iter().any(|rule| rule.most.is_some());
    held(admin, method, wanted).await?;
    note(&api, &caller, "bunker.create_policy", &format!("policy {name}")).await?;
    asked(method, admin.create_policy(name.clone(), rules, expires_at).await)?;
    let made = asked("get_policies", admin.policies().await)?;
    let made = made.into_iter().filter(|policy| policy.name == name).map(|policy| policy.id).max();
    Ok((StatusCode::CREATED, Json(json!({ "id": made, "name": name }))))
}

pub(super) async fn rule(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Body(rule): Body<Rule>,
) -> Made {
    let (admin, method) = (admin(&api, &caller)?, "add_policy_rule");
    let rule = rule.read()?;
    held(admin, method, rule.most.is_some()).await?;
    note(&api, &caller, "bunker.add_rule", &format!("policy {id}")).await?;
    asked(method, admin.add_rule(id, rule).await)?;
    Ok((StatusCode::OK, Json(json!({ "id": id }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// Unix seconds; `null` is without end, and has to be said.
    #[serde(deserialize_with = "Option::deserialize")]
    expires_at: Option<Unix>,
}

pub(super) async fn end(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Body(End { expires_at }): Body<End>,
) -> Made {
    change(&api, &caller, id, "end_policy", PolicyChange::Ends(expires_at)).await
}

pub(super) async fn cap(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Body(rule): Body<Rule>,
) -> Made {
    let NewRule { rule, most } = rule.read()?;
    let most = most.ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, "expected max_usage_count")
            .with("field", json!("max_usage_count"))
    })?;
    change(&api, &caller, id, "cap_policy_rule", PolicyChange::Cap { rule, most }).await
}

async fn change(
    api: &Api,
    caller: &Caller,
    id: i64,
    method: &'static str,
    change: PolicyChange,
) -> Made {
    let admin = admin(api, caller)?;
    held(admin, method, true).await?;
    note(api, caller, "bunker.change_policy", &format!("policy {id}")).await?;
    asked(method, admin.change_policy(id, change).await)?;
    Ok((StatusCode::OK, Json(json!({ "id": id }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    client_name: String,
    policy: i64,
    hours: u32,
}

/// The bunker's address with the token in it, for one client to connect with, shown this once.
pub(super) async fn token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(NewToken { client_name, policy, hours }): Body<NewToken>,
) -> Made {
    let admin = admin(&api, &caller)?;
    let field = "bunker_relay";
    let relay = parse_relay(&api.app.config.bunker_relay)
        .map_err(|source| FleetError::Relay { field, source })?;
    let key = asked("get_keys", admin.key(name.clone()).await)?.and_then(|key| key.key);
    let key = key.ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, format!("there is no key {name} that is unlocked"))
    })?;
    let list = async || asked("get_key_tokens", admin.tokens(name.clone()).await);
    let newest = list().await?.into_iter().map(|token| token.id).max().unwrap_or(0);
    note(&api, &caller, "bunker.create_token", &format!("key {name}, client {client_name}"))
        .await?;
    let made = admin.create_token(name.clone(), client_name.clone(), policy, hours).await;
    asked("create_new_token", made)?;
    let mut tokens = list().await?.into_iter();
    let token = tokens.find(|token| token.id > newest && token.client_name == client_name);
    let (method, expected) = ("get_key_tokens", "the token that it was told to make");
    let missing = || SignerError::Unexpected { method, expected };
    let token = asked("get_key_tokens", token.ok_or_else(missing))?;
    let secret = Some(asked("get_key_tokens", token.secret())?.clone());
    let uri =
        BunkerUri::new(key, vec![relay]).map_err(|source| FleetError::Relay { field, source })?;
    let bunker_url = BunkerLink { uri, secret };
    let shown = json!({
        "id": token.id, "client_name": client_name, "expires_at": token.expires_at,
        "bunker_url": bunker_url.expose().to_string(),
    });
    Ok((StatusCode::CREATED, Json(shown)))
}
