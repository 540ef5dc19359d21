//! Pairing, confirming and revoking machines, and the operator's key, in the API.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::seed::Loopback;
use qrcode::{Color, EcLevel, QrCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{Caller, Role};
use super::body::Body;
use super::error::ApiError;
use super::machines::View;
use super::{Api, Id};
use crate::fleet::machines::{find, operator_for};
use crate::fleet::pair::{Failed, Request};
use crate::fleet::{FleetError, confirm, identity, pair, renew, revoke};
use crate::ids::{MachineId, OperatorId, PairingId};
use crate::store::Kept;
use crate::store::pairing::{Pairing, earlier};

/// Above the number of every attempt.
const ALL: u64 = i64::MAX as u64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    #[serde(default)]
    relays: Vec<String>,
    duration_hours: Option<u32>,
    bunker_relay: Option<String>,
    /// Machine and service share one computer.
    #[serde(default)]
    allow_loopback: bool,
    /// Whether the answer holds the seed as a QR code, too.
    #[serde(default)]
    qr: bool,
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        Self::from(failed.error).with("steps", json!(failed.steps))
    }
}

pub(super) async fn pair_machine(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(body): Body<Pair>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let loopback = if body.allow_loopback { Loopback::Allowed } else { Loopback::Refused };
    let request = Request {
        relays: body.relays,
        hours: body.duration_hours,
        bunker_relay: body.bunker_relay,
        loopback,
    };
    let paired = pair::pair(&api.app, &caller.actor, caller.operator, id, &request).await?;
    let mut answer = json!({
        "seed_url": paired.seed_url.as_str(),
        "machine_id": paired.machine_id,
        "spire_npub": paired.spire.npub(),
        "bunker_key_name": paired.bunker_key_name,
        "token_expires_at": paired.token_expires_at,
        "paired_at": paired.paired_at,
        "steps": paired.steps,
    });
    if body.qr {
        answer["qr"] = qr(&paired.seed_url).unwrap_or_default();
    }
    Ok(Json(answer))
}

/// A QR code as an SVG path over `size` by `size` modules, for whoever draws it; `None` for a text
/// that is too long for one.
fn qr(text: &str) -> Option<Value> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let size = code.width();
    let mut path = String::new();
    for (n, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            path.push_str(&format!("M{} {}h1v1h-1z", n % size, n / size));
        }
    }
    Some(json!({ "size": size, "path": path }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirm {
    digits: String,
}

pub(super) async fn confirm_machine(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(body): Body<Confirm>,
) -> Result<Json<View>, ApiError> {
    caller.needs(Role::Operator)?;
    let (actor, operator) = (&caller.actor, caller.operator);
    let machine = confirm::confirm(&api.app, actor, operator, id, &body.digits).await?;
    Ok(Json(View::new(&api.app, machine)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renew {
    hours: Option<u32>,
}

pub(super) async fn renew_machine(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(body): Body<Renew>,
) -> Result<Json<View>, ApiError> {
    caller.needs(Role::Operator)?;
    let (actor, operator) = (&caller.actor, caller.operator);
    let machine = renew::renew(&api.app, actor, operator, id, body.hours).await?;
    Ok(Json(View::new(&api.app, machine)))
}

/// 200 where all was done, 207 where something failed.
pub(super) async fn revoke_machine(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Operator)?;
    let steps = revoke::revoke(&api.app, &caller.actor, caller.operator, id).await?;
    let whole = steps.iter().all(|step| step.ok);
    let status = if whole { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, Json(json!({ "steps": steps }))).into_response())
}

fn shown(kept: &Kept<PairingId, Pairing>) -> Value {
    let attempt = &kept.row;
    json!({
        "number": attempt.number,
        "bunker_key_name": attempt.key_name,
        "requested_by": attempt.requested_by,
        "relays": attempt.relays.0,
        "duration_hours": attempt.duration_hours,
        "step": attempt.step,
        "spire_npub": attempt.spire_key.map(|key| key.npub()),
        "token_id": attempt.token_id,
        "token_expires_at": attempt.token_expires_at,
        "error": attempt.error,
        "started_at": attempt.started_at,
        "updated_at": attempt.updated_at,
    })
}

pub(super) async fn attempts(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Value>, ApiError> {
    let found: Result<_, FleetError> = api
        .app
        .store
        .read(move |read| {
            find(read, id, caller.operator)?;
            Ok(earlier(read, id, ALL)?)
        })
        .await;
    Ok(Json(found?.iter().map(shown).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Init {
    operator_id: Option<OperatorId>,
}

pub(super) async fn init_operator(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Init>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Owner)?;
    let (own, named) = (caller.operator, body.operator_id);
    let id = api.app.store.read(move |read| operator_for(read, own, named)).await?;
    let operator = identity::init(&api.app, &caller.actor, id).await?;
    let answer = json!({
        "operator_id": operator.id,
        "operator_npub": operator.pubkey.map(|key| key.npub()),
        "operator_pubkey": operator.pubkey,
        "bunker_key_name": operator.bunker_key_name,
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}
