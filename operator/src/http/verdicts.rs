//! Verdicts in the API: what waits for one, those that were given, and giving one.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{BayId, TxnId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::VerdictKind;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::auth::{Caller, Role};
use super::body::Body;
use super::error::ApiError;
use super::{Api, Id};
use crate::fleet::machines::{find, last_report};
use crate::fleet::verdict::{self, Wish};
use crate::fleet::{FleetError, machines};
use crate::ids::{MachineId, OperatorId, VerdictId};
use crate::store::machines::KeptMachine;
use crate::store::settlements::{self, Report};
use crate::store::verdicts::{self, KeptVerdict, VerdictState};
use crate::store::{Read, StoreError};

/// Earlier verdicts that are shown.
const SHOWN: u32 = 20;

/// A verdict as the API shows it.
#[derive(Debug, Serialize)]
struct Given {
    id: VerdictId,
    txid: Option<TxnId>,
    verdict: VerdictKind,
    amount_minor: i64,
    /// The same as people write it.
    amount: String,
    state: VerdictState,
    actor: String,
    created_at: Unix,
    not_after: Unix,
    ended_at: Option<Unix>,
}

impl Given {
    fn new(kept: &KeptVerdict, machine: &KeptMachine, now: Unix) -> Self {
        let live = kept.state == VerdictState::Live;
        let over = live && verdict::lapsed(kept, machine, now);
        Self {
            id: kept.id,
            txid: kept.txid,
            verdict: kept.verdict,
            amount_minor: kept.amount_minor,
            amount: Fiat::new(kept.amount_minor, machine.currency).to_string(),
            state: if over { VerdictState::Lapsed } else { kept.state },
            actor: kept.actor.clone(),
            created_at: kept.created_at,
            not_after: kept.not_after,
            ended_at: kept.ended_at,
        }
    }
}

/// What the machine's vault has stated about the notes.
#[derive(Debug, Serialize)]
struct Stated {
    outcome: DispenseOutcome,
    bays: BTreeMap<BayId, BayResult>,
    owed_minor: i64,
    at: Unix,
}

impl From<Report> for Stated {
    fn from(report: Report) -> Self {
        let Report { outcome, bays, owed_minor, received_at, .. } = report;
        Self { outcome, bays: bays.0, owed_minor, at: received_at }
    }
}

/// A sale that waits for a verdict.
#[derive(Debug, Serialize)]
struct Undecided {
    txid: TxnId,
    direction: Direction,
    state: String,
    since: Unix,
    /// The whole sale.
    amount: Option<String>,
    /// What was paid for it.
    wire_sats: Option<Sats>,
    /// What the customer may still have to get.
    rest_minor: i64,
    rest: String,
    /// Of it, the notes of which nobody knows where they are.
    unknown_minor: i64,
    unknown: String,
    evidence: String,
    reports: Vec<Stated>,
}

/// What there is to decide about a machine, and what was decided.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    /// When the machine said so.
    reported_at: Option<Unix>,
    breaker_open: bool,
    open: Vec<Undecided>,
    given: Vec<Given>,
}

fn listed(
    read: &Read<'_>,
    id: MachineId,
    operator: Option<OperatorId>,
    now: Unix,
) -> Result<Listed, FleetError> {
    let machine = find(read, id, operator)?;
    let given = verdicts::newest(read, id, SHOWN)?;
    let given = given.iter().map(|kept| Given::new(kept, &machine, now)).collect();
    let Some((at, report)) = last_report(read, &machine)? else {
        let (reported_at, open) = (None, Vec::new());
        return Ok(Listed { reported_at, breaker_open: false, open, given });
    };
    let fiat = |minor| Fiat::new(minor, machine.currency).to_string();
    let open = verdict::open(&report).map(|(open, doubt)| {
        let paid = settlements::of_txn(read, id, open.txid)?;
        let reports = settlements::reports(read, id, open.txid)?;
        Ok(Undecided {
            txid: open.txid,
            direction: open.direction,
            state: open.state.clone(),
            since: open.since,
            amount: open.fiat_minor.map(fiat),
            wire_sats: paid.first().map(|settlement| settlement.wire_sats),
            rest_minor: doubt.rest_minor,
            rest: fiat(doubt.rest_minor),
            unknown_minor: doubt.unknown_minor,
            unknown: fiat(doubt.unknown_minor),
            evidence: doubt.evidence.clone(),
            reports: reports.into_iter().map(Stated::from).collect(),
        })
    });
    let open = open.collect::<Result<_, StoreError>>()?;
    let breaker_open = verdict::breaker_open(&report);
    Ok(Listed { reported_at: Some(at), breaker_open, open, given })
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Listed>, ApiError> {
    let now = api.app.clock.now();
    Ok(Json(api.app.store.read(move |read| listed(read, id, caller.operator, now)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decide {
    verdict: VerdictKind,
    txid: Option<TxnId>,
    amount_minor: Option<i64>,
}

pub(super) async fn decide(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(body): Body<Decide>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Operator)?;
    let Decide { verdict, txid, amount_minor } = body;
    let wish = Wish { verdict, txid, amount_minor };
    let kept = verdict::give(&api.app, &caller.actor, caller.operator, id, wish).await?;
    let machine = api.app.store.read(move |read| machines::find(read, id, None)).await?;
    let given = Given::new(&kept, &machine, api.app.clock.now());
    Ok((StatusCode::CREATED, Json(given)).into_response())
}
