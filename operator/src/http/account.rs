//! Operators' keys in the API: taken in, moved into the bunker, and every secret that lies here.
//!
//! Promise: a private key comes in once, in a body, and is in no answer and no log.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Api;
use super::auth::{Caller, Role};
use super::body::Body;
use super::error::ApiError;
use crate::audit::keys::{Secrets, keys};
use crate::fleet::account;
use crate::fleet::machines::operator_for;
use crate::ids::OperatorId;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Import {
    operator_id: Option<OperatorId>,
    nsec: Zeroizing<String>,
}

pub(super) async fn import(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Import>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let (own, named) = (caller.operator, body.operator_id);
    let id = api.app.store.read(move |read| operator_for(read, own, named)).await?;
    let key = account::import(&api.app, &caller.actor, id, &body.nsec).await?;
    Ok(Json(json!({
        "operator_id": id, "operator_npub": key.npub(), "signer": "local",
        "next": "account migrate-to-bunker: until then whoever breaks into this service has the key",
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Migrate {
    operator_id: Option<OperatorId>,
}

pub(super) async fn migrate(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Migrate>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let (own, named) = (caller.operator, body.operator_id);
    let id = api.app.store.read(move |read| operator_for(read, own, named)).await?;
    let key = account::migrate(&api.app, &caller.actor, id).await?;
    Ok(Json(json!({ "operator_id": id, "operator_npub": key.npub(), "signer": "bunker" })))
}

/// Of the whole instance.
pub(super) async fn secrets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Secrets>, ApiError> {
    caller.needs(Role::Super)?;
    Ok(Json(keys(&api.app).await?))
}
