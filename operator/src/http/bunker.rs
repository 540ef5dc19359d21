//! The bunker in the API: what it holds, who may use it, what was asked of it.
//!
//! Promise: the same for every bunker; a token's text is in no answer. One bunker has the keys of the
//! whole instance, so only the instance's own role sees it.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{Caller, Role};
use super::body::Body;
use super::error::{ApiError, in_words};
use crate::fleet::revoke::revoke_key;
use crate::fleet::{self, FleetError, Step, canary};
use crate::signer::{BunkerAdmin, BunkerPolicy, BunkerToken, BunkerUser, SignerError};
use crate::store::StoreError;
use crate::store::canaries::KeptCanary;

/// Entries of each log where nobody says how many; the most that fit into one answer of ours.
const ENTRIES: u32 = 40;

/// The bunker's administration, for whoever may see it.
pub(super) fn admin<'a>(api: &'a Api, caller: &Caller) -> Result<&'a dyn BunkerAdmin, ApiError> {
    caller.needs(Role::Super)?;
    Ok(fleet::bunker(&api.app)?.admin())
}

pub(super) fn asked<T>(step: &'static str, answer: Result<T, SignerError>) -> Result<T, ApiError> {
    answer.map_err(|source| FleetError::Bunker { step, source }.into())
}

pub(super) async fn status(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let admin = admin(&api, &caller)?;
    let able = asked("describe", admin.abilities().await)?;
    let key = fleet::bunker(&api.app)?.key();
    Ok(Json(json!({
        "bunker_npub": key.npub(),
        "relay": api.app.config.bunker_relay,
        "software": able.software,
        "cannot": able.cannot(),
    })))
}

/// Proofs that the bunker refuses what has expired, newest first.
pub(super) async fn canary(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let standing = canary::standing(&api.app).await?;
    let shown = |one: &KeptCanary| {
        json!({
            "started_at": one.started_at, "ends_at": one.ends_at, "state": one.state.as_str(),
            "detail": one.detail, "ended_at": one.ended_at,
        })
    };
    Ok(Json(json!({
        "every_hours": api.app.config.canary_hours,
        "alert": standing.alert,
        "found": standing.found.as_ref().map(shown),
        "newest": standing.newest.iter().map(shown).collect::<Value>(),
    })))
}

pub(super) async fn keys(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let keys = asked("get_keys", admin(&api, &caller)?.keys().await)?;
    let shown = keys.iter().map(|key| {
        let npub = key.key.map(|key| key.npub());
        json!({ "name": key.name, "npub": npub, "locked": npub.is_none() })
    });
    Ok(Json(shown.collect()))
}

pub(super) async fn unlock(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    asked("unlock_key", admin(&api, &caller)?.unlock(name.clone()).await)?;
    Ok(Json(json!({ "name": name, "locked": false })))
}

fn policy(policy: &BunkerPolicy) -> Value {
    let rules = policy.rules.iter().enumerate().map(|(n, rule)| {
        let uses = policy.uses.get(n).copied().unwrap_or_default();
        json!({
            "method": rule.method, "kind": rule.kind,
            "max_usage_count": uses.most, "current_usage_count": uses.so_far,
        })
    });
    json!({
        "id": policy.id, "name": policy.name, "expires_at": policy.expires_at,
        "rules": rules.collect::<Value>(),
    })
}

pub(super) async fn policies(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let policies = asked("get_policies", admin(&api, &caller)?.policies().await)?;
    Ok(Json(policies.iter().map(policy).collect()))
}

fn token(token: &BunkerToken) -> Value {
    json!({
        "id": token.id, "client_name": token.client_name, "policy": token.policy,
        "expires_at": token.expires_at, "redeemed_at": token.redeemed_at,
        "redeemed_by": token.redeemed_by,
    })
}

pub(super) async fn tokens(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let tokens = asked("get_key_tokens", admin(&api, &caller)?.tokens(name).await)?;
    Ok(Json(tokens.iter().map(token).collect()))
}

fn user(user: &BunkerUser) -> Value {
    json!({
        "id": user.id, "name": user.name, "npub": user.key.npub(), "created_at": user.created_at,
        "last_used_at": user.last_used_at, "revoked_at": user.revoked_at,
    })
}

pub(super) async fn users(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let users = asked("get_key_users", admin(&api, &caller)?.users(name).await)?;
    Ok(Json(users.iter().map(user).collect()))
}

/// Writes down that this is about to be asked of the bunker.
pub(super) async fn note(
    api: &Api,
    caller: &Caller,
    what: &'static str,
    subject: &str,
) -> Result<(), ApiError> {
    let (actor, about) = (caller.actor.clone(), format!("bunker:{subject}"));
    let now = api.app.clock.now();
    let written =
        api.app.store.write(move |tx| fleet::audit(tx, now, &actor, what, &about, Value::Null));
    let () = written.await.map_err(|error: StoreError| error)?;
    Ok(())
}

/// One of the three.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Revoke {
    User(String),
    Token(i64),
    Key(String),
}

/// 200 where all was done, 207 where something failed.
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(what): Body<Revoke>,
) -> Result<Response, ApiError> {
    let admin = admin(&api, &caller)?;
    let now = api.app.clock.now();
    let subject = match &what {
        Revoke::User(id) => format!("user {id}"),
        Revoke::Token(id) => format!("token {id}"),
        Revoke::Key(name) => format!("key {name}"),
    };
    note(&api, &caller, "bunker.revoke", &subject).await?;
    let one = |step, answer: Result<(), SignerError>| match answer {
        Ok(()) => Step { step, ok: true, detail: subject.clone() },
        Err(error) => Step { step, ok: false, detail: format!("{subject}: {}", in_words(&error)) },
    };
    let mut steps = Vec::new();
    match what {
        Revoke::User(id) => steps.push(one("revoke_user", admin.revoke_user(id).await)),
        Revoke::Token(id) => steps.push(one("revoke_token", admin.revoke_token(id).await)),
        Revoke::Key(name) => revoke_key(admin, &name, now, &mut steps).await,
    }
    let whole = steps.iter().all(|step| step.ok);
    let status = if whole { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, Json(json!({ "steps": steps }))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    limit: Option<u32>,
}

pub(super) async fn audit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(newest): Query<Newest>,
) -> Result<Json<Value>, ApiError> {
    let limit = newest.limit.unwrap_or(ENTRIES);
    Ok(Json(asked("get_audit", admin(&api, &caller)?.audit(limit).await)?))
}
