//! What the API only shows: health, settlements, refused requests, the audit log, the audit.
//!
//! Promise: of what concerns several operators, each sees their own part.

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::PubKey;
use bitspire_shared::money::Fiat;
use bitspire_shell::pool::RelayState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{Caller, Role};
use super::error::ApiError;
use crate::app::App;
use crate::audit::{self, Audit};
use crate::fleet::machines::find;
use crate::fleet::{FleetError, canary};
use crate::ids::{AuditId, MachineId, SettlementId};
use crate::store::settlements::{self, Settlement};
use crate::store::{Kept, StoreError, log, machines, operators, webhook as store_webhook};

/// Rows that are shown where nobody says how many.
const ROWS: u32 = 50;
/// The most rows of one answer.
const MAX_ROWS: u32 = 1_000;

pub(super) async fn health(State(api): State<Api>) -> Response {
    let app = &api.app;
    let store = app.store.health();
    let stats = app.store.stats();
    let status = if store.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // a database that cannot be read is told above
    let canary = canary::standing(app).await.ok().and_then(|standing| standing.alert);
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": {
            "ok": store.is_ok(),
            "error": store.err().map(|error| error.to_string()),
            "commits": stats.commits,
            "failed": stats.failed,
            "queue_full": stats.queue_full,
        },
        "relay_embedded": app.relay.get().is_some(),
        "bunker": app.bunker.get().is_some(),
        "simulated": app.simulated.is_some(),
        "relays": relay_states(app),
        "alerts": canary.into_iter().collect::<Vec<_>>(),
    });
    (status, Json(body)).into_response()
}

/// Connections to relays that are up, and all of them, for each thing that they are for.
fn relay_states(app: &App) -> Value {
    let mut states = BTreeMap::<_, (usize, usize)>::new();
    for (what, health) in app.relay_health() {
        let (up, all) = states.entry(what).or_default();
        *up = up.saturating_add(usize::from(health.state == RelayState::Connected));
        *all = all.saturating_add(1);
    }
    states.iter().map(|(what, (up, all))| ((*what).to_owned(), json!([up, all]))).collect()
}

/// Whether another program is told what happens, and what it has not taken yet.
pub(super) async fn webhook(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let (open, first) = api.app.store.read(store_webhook::open).await?;
    let host = api.app.config.webhook.as_ref().and_then(|webhook| webhook.url.host_str());
    let first = first.map(|first| {
        json!({
            "id": first.id, "machine_id": first.machine_id, "kind": first.kind,
            "tries": first.tries, "due_at": first.due_at, "detail": first.detail,
        })
    });
    Ok(Json(json!({ "host": host, "open": open, "first": first })))
}

/// Each relay: what it says of itself, and how the connections to it have been.
pub(super) async fn relays(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let app = &api.app;
    let machines: Result<_, StoreError> =
        app.store.read(|read| Ok(machines::list(read, None)?.len())).await;
    let machines = machines?;
    let health = app.relay_health();
    let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
    let shown = app.config.relays.iter().enumerate().map(|(number, relay)| {
        let known = app.relays.of(relay);
        let said = known.as_ref().and_then(|known| known.information.as_ref());
        let mut warnings = known.as_ref().map_or_else(Vec::new, |known| known.warnings.clone());
        warnings.extend(said.and_then(|said| said.too_few_subscriptions(machines)));
        let lines = health.iter().filter(|(_, health)| same(&health.relay, relay));
        let lines = lines.map(|(what, health)| {
            json!({
                "for": what, "state": health.state, "failures": health.failures,
                "connected_s": health.connected_s, "ok_s": health.ok_s,
                "refused_s": health.refused_s, "refused": health.refused,
            })
        });
        json!({
            "relay": relay,
            "own": number == 0 && app.relay.get().is_some(),
            "name": said.and_then(|said| said.name.clone()),
            "software": said.and_then(|said| said.software.clone()),
            "limits": said.map(|said| &said.limits),
            "auth_required": said.map(|said| said.auth_required),
            "not_said": known.and_then(|known| known.error),
            "warnings": warnings,
            "connections": lines.collect::<Vec<_>>(),
        })
    });
    Ok(Json(shown.collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    machine: Option<MachineId>,
    before: Option<SettlementId>,
    limit: Option<u32>,
}

/// A settlement as the API shows it.
pub(super) fn shown(kept: &Kept<SettlementId, Settlement>) -> Value {
    let s = &kept.row;
    let fiat = s.fiat_minor.zip(s.fiat_code).map(|(minor, code)| Fiat::new(minor, code));
    json!({
        "id": kept.id,
        "payment_hash": s.payment_hash,
        "machine_id": s.machine_id,
        "wallet_id": s.wallet_id,
        "direction": s.direction,
        "status": s.status,
        "wire_sats": s.wire_sats,
        "reason": s.reason,
        "txid": s.txid,
        "principal_sats": s.principal_sats,
        "platform_fee_sats": s.platform_fee_sats,
        "operator_fee_sats": s.operator_fee_sats,
        "owed_sats": s.owed_sats,
        "exchange_rate": s.exchange_rate.map(|rate| rate.to_string()),
        "fiat": fiat.map(|fiat| fiat.to_string()),
        "fiat_minor": s.fiat_minor,
        "fiat_code": s.fiat_code,
        "fees_event_id": s.fees_event_id,
        "fee_mismatch_sats": s.fee_mismatch_sats,
        "settled_at": s.settled_at,
        "dispense_outcome": s.dispense_outcome,
        "reported_at": s.reported_at,
        "distribution": s.distribution,
        "hold_reason": s.hold_reason,
    })
}

pub(super) async fn settlements(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let limit = page.limit.unwrap_or(ROWS).min(MAX_ROWS);
    let (operator, machine, before) = (caller.operator, page.machine, page.before);
    let rows: Result<_, StoreError> = api
        .app
        .store
        .read(move |read| settlements::newest(read, operator, machine, before, limit))
        .await;
    Ok(Json(rows?.iter().map(shown).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tail {
    subject: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn rejected(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(tail): Query<Tail>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let limit = tail.limit.unwrap_or(ROWS).min(MAX_ROWS);
    let rows: Result<_, StoreError> = api
        .app
        .store
        .read(move |read| {
            let mut rows = log::rejected(read, limit)?;
            let alone = operators::list(read)?.len() < 2;
            if let (Some(_), false) = (caller.operator, alone) {
                let own = machines::list(read, caller.operator)?;
                let own: Vec<_> = own.iter().filter_map(|m| m.machine_npub).collect();
                let is_own = |key: &PubKey| own.contains(key);
                rows.retain(|row| {
                    let sender = row.sender.as_ref().and_then(|hex| hex.parse().ok());
                    sender.as_ref().is_some_and(is_own)
                });
            }
            Ok(rows)
        })
        .await;
    let shown = |row: &log::Rejected| {
        json!({
            "reason": row.reason,
            "count": row.count,
            "first_at": row.first_at,
            "last_at": row.last_at,
            "sender": row.sender,
            "verified": row.verified,
            "relay": row.relay,
            "event_id": row.event_id,
            "detail": row.detail,
        })
    };
    Ok(Json(rows?.iter().map(shown).collect()))
}

/// The audit is of the whole instance: its wallets, its ledger.
pub(super) async fn audit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Audit>, ApiError> {
    caller.needs(Role::Operator)?;
    if caller.operator.is_some() {
        let all: Result<_, StoreError> = api.app.store.read(operators::list).await;
        if all?.len() > 1 {
            caller.needs(Role::Super)?;
        }
    }
    Ok(Json(audit::run(&api.app).await?))
}

pub(super) async fn audit_log(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Query(tail): Query<Tail>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let limit = tail.limit.unwrap_or(ROWS).min(MAX_ROWS);
    let rows: Result<_, FleetError> = api
        .app
        .store
        .read(move |read| {
            if caller.operator.is_some() {
                // the log has no operators: only what is about a machine can be told apart
                let id = tail.subject.as_deref().and_then(|s| s.strip_prefix("machine:"));
                let id = id.and_then(|id| id.parse().ok()).ok_or_else(|| FleetError::Invalid {
                    field: "subject",
                    expected: "one of your machines, such as machine:1".into(),
                    got: tail.subject.clone().unwrap_or_else(|| "none".into()),
                })?;
                find(read, id, caller.operator)?;
            }
            Ok(log::audit_tail(read, tail.subject.as_deref(), limit)?)
        })
        .await;
    let shown = |row: &Kept<AuditId, log::Audit>| {
        json!({
            "id": row.id,
            "at": row.at,
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "detail": row.detail.0,
        })
    };
    Ok(Json(rows?.iter().map(shown).collect()))
}
