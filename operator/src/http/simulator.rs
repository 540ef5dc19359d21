//! Control of the simulated node: for demonstrations and tests, owners only, and only where a
//! simulated wallet is configured.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Msat;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{Caller, Role};
use super::body::Body;
use super::error::{ApiError, in_words};
use crate::wallet::simulated::{Behaviour, SimulatedNode};

/// The node, for owners.
fn node<'a>(api: &'a Api, caller: &Caller) -> Result<&'a SimulatedNode, ApiError> {
    caller.needs(Role::Owner)?;
    let words = "no wallet of the configuration is simulated";
    api.app.simulated.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, words))
}

fn refused(words: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, words)
}

pub(super) async fn balances(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<BTreeMap<String, Value>>, ApiError> {
    node(&api, &caller)?;
    let mut balances = BTreeMap::new();
    for (id, wallet) in &api.app.wallets {
        let shown = match wallet.balance().await {
            Ok(balance) => json!({ "msat": balance }),
            Err(error) => json!({ "error": in_words(&error) }),
        };
        balances.insert(id.clone(), shown);
    }
    Ok(Json(balances))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pay {
    bolt11: String,
    amount_msat: Option<Msat>,
}

pub(super) async fn pay(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(pay): Body<Pay>,
) -> Result<Json<Value>, ApiError> {
    let node = node(&api, &caller)?;
    let paid = node.customer_pays(&pay.bolt11, pay.amount_msat).map_err(refused)?;
    Ok(Json(json!({ "paid_msat": paid })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    payments: Vec<Behaviour>,
}

pub(super) async fn script(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(script): Body<Script>,
) -> Result<Json<Value>, ApiError> {
    let scripted = script.payments.len();
    node(&api, &caller)?.script(script.payments);
    Ok(Json(json!({ "scripted": scripted })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reachable {
    reachable: bool,
}

pub(super) async fn reachable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Reachable>,
) -> Result<Json<Value>, ApiError> {
    node(&api, &caller)?.set_reachable(body.reachable);
    Ok(Json(json!({ "reachable": body.reachable })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    wallet_id: String,
    payment_hash: PaymentHash,
    succeed: bool,
}

pub(super) async fn resolve(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Resolve>,
) -> Result<Json<Value>, ApiError> {
    let node = node(&api, &caller)?;
    node.resolve(&body.wallet_id, body.payment_hash, body.succeed).map_err(refused)?;
    Ok(Json(json!({ "resolved": body.payment_hash })))
}
