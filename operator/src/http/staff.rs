//! Operators, people and tokens in the API.
//!
//! Promise: nobody gives a role above their own, or one at another operator. A token is in one
//! answer, the one that made it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, Role, token_hash};
use super::body::Body;
use super::error::ApiError;
use super::people::fresh_token;
use super::{Api, Id};
use crate::fleet::machines::operator_for;
use crate::fleet::{FleetError, audit};
use crate::ids::{OperatorId, TokenId, UserId};
use crate::signer::admin_key;
use crate::store::operators::{self, User};
use crate::store::tokens::{self, ApiToken};
use crate::store::{Kept, Read, StoreError};

const DAY_S: u64 = 86_400;

pub(super) async fn operators(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let all: Result<_, StoreError> = api.app.store.read(operators::list).await;
    let all: Vec<_> = all?.into_iter().filter(|operator| caller.sees(operator.id)).collect();
    let shown: Vec<_> = all
        .iter()
        .map(|operator| {
            json!({
                "id": operator.id,
                "name": operator.name,
                "operator_pubkey": operator.pubkey,
                "operator_npub": operator.pubkey.map(|key| key.npub()),
                "signer": operator.signer,
                "bunker_key_name": operator.bunker_key_name,
            })
        })
        .collect();
    let admin = admin_key(&api.app.keyring).ok();
    let admin = admin.and_then(|keys| PubKey::new(keys.public_key()).ok());
    Ok(Json(json!({
        "operators": shown,
        "service_pubkey": api.app.service_key,
        "bunker_npub": api.app.bunker.get().map(|bunker| bunker.key().npub()),
        // what a bunker that runs on its own has to be started with
        "bunker_admin_npub": admin.map(|key| key.npub()),
        "relays": api.app.config.relays,
        "wallets": api.app.wallets.keys().collect::<Vec<_>>(),
        // what the caller may do, so that a page offers no more
        "role": caller.role,
    })))
}

/// Whether the caller may give `role`, and to whom it then belongs.
fn grant(
    read: &Read<'_>,
    caller: &Caller,
    role: Role,
    named: Option<OperatorId>,
) -> Result<Option<OperatorId>, FleetError> {
    if role > caller.role {
        let expected = format!("a role up to your own, {}", caller.role);
        return Err(FleetError::Invalid { field: "role", expected, got: role.to_string() });
    }
    match role {
        Role::Super => Ok(None),
        _ => operator_for(read, caller.operator, named).map(Some),
    }
}

pub(super) async fn users(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let users: Result<_, StoreError> =
        api.app.store.read(move |read| operators::users(read, caller.operator)).await;
    let shown = |user: &Kept<UserId, User>| {
        json!({
            "id": user.id,
            "operator_id": user.operator_id,
            "name": user.name,
            "npub": user.pubkey.npub(),
            "role": user.role,
            "disabled_at": user.disabled_at,
        })
    };
    Ok(Json(users?.iter().map(shown).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddUser {
    npub: String,
    name: String,
    role: Role,
    operator_id: Option<OperatorId>,
}

pub(super) async fn add_user(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(add): Body<AddUser>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Owner)?;
    let invalid = |error: bitspire_shared::ids::IdError| FleetError::Invalid {
        field: "npub",
        expected: "an npub or 64 hex characters".into(),
        got: error.to_string(),
    };
    let pubkey = PubKey::from_hex_or_npub(add.npub.trim()).map_err(invalid)?;
    let now = api.app.clock.now();
    let written = api.app.store.write(move |tx| {
        let operator_id = grant(tx, &caller, add.role, add.operator_id)?;
        let (role, name) = (add.role, add.name);
        let detail = json!({ "npub": pubkey.npub(), "role": role, "name": name });
        let user = User { operator_id, pubkey, role, name, created_at: now, disabled_at: None };
        let id = operators::insert_user(tx, &user).map_err(|error| {
            if error.is_unique_on("users.pubkey") {
                return FleetError::KeyTaken { key: pubkey.npub(), owner: "another user".into() };
            }
            error.into()
        })?;
        audit(tx, now, &caller.actor, "user.add", &format!("user:{id}"), detail)?;
        Ok::<_, FleetError>(id)
    });
    Ok((StatusCode::CREATED, Json(json!({ "id": written.await? }))).into_response())
}

pub(super) async fn disable_user(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<UserId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let now = api.app.clock.now();
    let written = api.app.store.write(move |tx| {
        let all = operators::users(tx, caller.operator)?;
        let user = all.iter().find(|user| user.id == id && user.role <= caller.role);
        let open = user.filter(|user| user.disabled_at.is_none());
        let open = open.ok_or_else(|| FleetError::Invalid {
            field: "user",
            expected: "somebody with rights that are yours to take; see `user list`".into(),
            got: id.to_string(),
        })?;
        operators::disable_user(tx, open.id, now)?;
        let before = json!({ "npub": open.pubkey.npub(), "name": open.name, "role": open.role });
        let detail = json!({ "before": before });
        audit(tx, now, &caller.actor, "user.disable", &format!("user:{id}"), detail)?;
        Ok::<_, FleetError>(())
    });
    written.await?;
    Ok(Json(json!({ "id": id })))
}

pub(super) async fn tokens(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let tokens: Result<_, StoreError> =
        api.app.store.read(move |read| tokens::list(read, caller.operator)).await;
    let shown = |token: &Kept<TokenId, ApiToken>| {
        json!({
            "id": token.id,
            "operator_id": token.operator_id,
            "name": token.name,
            "role": token.role,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "revoked_at": token.revoked_at,
        })
    };
    Ok(Json(tokens?.iter().map(shown).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddToken {
    name: String,
    role: Role,
    operator_id: Option<OperatorId>,
    days: Option<u32>,
}

pub(super) async fn add_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(add): Body<AddToken>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Owner)?;
    let name = add.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > 200 {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "name: expected 1 to 200 characters"));
    }
    let token = fresh_token()
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let now = api.app.clock.now();
    let expires_at: Option<Unix> =
        add.days.map(|days| now.after(u64::from(days).saturating_mul(DAY_S)));
    let hash = token_hash(&token);
    let written = api.app.store.write(move |tx| {
        let operator_id = grant(tx, &caller, add.role, add.operator_id)?;
        let detail = json!({ "name": name, "role": add.role, "expires_at": expires_at });
        let row = ApiToken {
            name,
            hash,
            operator_id,
            role: add.role,
            created_at: now,
            expires_at,
            revoked_at: None,
        };
        let id = tokens::insert(tx, &row)?;
        audit(tx, now, &caller.actor, "token.add", &format!("token:{id}"), detail)?;
        Ok::<_, FleetError>(id)
    });
    let id = written.await?;
    let body = json!({ "id": id, "token": token.as_str(), "expires_at": expires_at });
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

pub(super) async fn revoke_token(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<TokenId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let now = api.app.clock.now();
    let written = api.app.store.write(move |tx| {
        let all = tokens::list(tx, caller.operator)?;
        let open = all.iter().find(|token| token.id == id && token.revoked_at.is_none());
        let open = open.filter(|token| token.role <= caller.role);
        let token = open.ok_or_else(|| FleetError::Invalid {
            field: "token",
            expected: "one that holds and is yours to end; see `token list`".into(),
            got: id.to_string(),
        })?;
        tokens::revoke(tx, id, now)?;
        let before = json!({
            "name": token.name, "role": token.role, "expires_at": token.expires_at,
        });
        let detail = json!({ "before": before });
        audit(tx, now, &caller.actor, "token.revoke", &format!("token:{id}"), detail)?;
        Ok::<_, FleetError>(())
    });
    written.await?;
    Ok(Json(json!({ "id": id })))
}
