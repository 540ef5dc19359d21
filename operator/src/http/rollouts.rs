//! Fees for many machines, in the API: the preview, roll-outs by tag, and the tags.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::EventId;
use bitspire_shared::money::FeePpm;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{Caller, Role};
use super::body::{Body, Fraction};
use super::error::ApiError;
use super::{Api, Id};
use crate::fleet::FleetError;
use crate::fleet::machines;
use crate::ids::{MachineId, OperatorId, RolloutId};
use crate::publish::rollout::{self, Planned, Wish};
use crate::store::rollouts::{self as rows, Rollout, RolloutState};
use crate::store::{Kept, Read, StoreError, documents, machines as all_machines};

/// Roll-outs that are shown.
const ROWS: u32 = 20;
/// Minutes that a machine has where nobody says how many: two heartbeats and a restart.
const WAIT_MINUTES: u32 = 15;
/// The most minutes that it may have: a week.
const MAX_MINUTES: u32 = 10_080;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetTags {
    tags: Vec<String>,
}

pub(super) async fn set_tags(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(set): Body<SetTags>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let (actor, operator) = (&caller.actor, caller.operator);
    let tags = machines::set_tags(&api.app, actor, operator, id, set.tags).await?;
    Ok(Json(json!({ "id": id, "tags": tags })))
}

/// A change of fees for many machines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    operator_id: Option<OperatorId>,
    /// Tags, a stage each, in order.
    #[serde(default)]
    stages: Vec<String>,
    /// All other machines, as the last stage.
    #[serde(default)]
    rest: bool,
    cash_in_fee_fraction: Option<Fraction>,
    cash_out_fee_fraction: Option<Fraction>,
    /// Minutes that each machine has to apply it.
    wait_minutes: Option<u32>,
}

impl Wanted {
    fn wish(self) -> Result<Wish, FleetError> {
        let minutes = self.wait_minutes.unwrap_or(WAIT_MINUTES);
        if !(1..=MAX_MINUTES).contains(&minutes) {
            return Err(FleetError::Invalid {
                field: "wait_minutes",
                expected: format!("1 to {MAX_MINUTES}"),
                got: minutes.to_string(),
            });
        }
        Ok(Wish {
            stages: self.stages,
            rest: self.rest,
            cash_in: self.cash_in_fee_fraction.map(|fraction| fraction.0),
            cash_out: self.cash_out_fee_fraction.map(|fraction| fraction.0),
            wait_s: minutes.saturating_mul(60),
        })
    }
}

/// The fees of one machine.
#[derive(Serialize)]
struct Pair {
    cash_in_fee_fraction: Fraction,
    cash_out_fee_fraction: Fraction,
}

impl Pair {
    const fn new(cash_in: FeePpm, cash_out: FeePpm) -> Self {
        Self { cash_in_fee_fraction: Fraction(cash_in), cash_out_fee_fraction: Fraction(cash_out) }
    }
}

/// What would become of one machine.
#[derive(Serialize)]
struct Line {
    machine_id: MachineId,
    name: String,
    place: String,
    stage: u32,
    from: Pair,
    to: Pair,
    /// Whether the next stage waits for it.
    waits: bool,
    /// Why it cannot take these fees.
    refused: Option<String>,
}

impl From<Planned> for Line {
    fn from(planned: Planned) -> Self {
        let Planned { machine, stage, cash_in, cash_out, waits, refused } = planned;
        Self {
            from: Pair::new(machine.cash_in_fee_ppm, machine.cash_out_fee_ppm),
            to: Pair::new(cash_in, cash_out),
            machine_id: machine.id,
            name: machine.row.name,
            place: machine.row.place,
            stage,
            waits,
            refused,
        }
    }
}

async fn operator(api: &Api, caller: &Caller, wanted: &Wanted) -> Result<OperatorId, ApiError> {
    let (own, named) = (caller.operator, wanted.operator_id);
    Ok(api.app.store.read(move |read| machines::operator_for(read, own, named)).await?)
}

pub(super) async fn preview(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let operator = operator(&api, &caller, &wanted).await?;
    let wish = wanted.wish()?;
    let planned = api.app.store.read(move |read| rollout::plan(read, operator, &wish)).await;
    let planned: Result<Vec<Planned>, FleetError> = planned;
    let lines: Vec<Line> = planned?.into_iter().map(Line::from).collect();
    Ok(Json(json!({ "machines": lines })))
}

pub(super) async fn begin(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Wanted>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Operator)?;
    let operator = operator(&api, &caller, &wanted).await?;
    let id = rollout::begin(&api.app, &caller.actor, operator, wanted.wish()?).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

/// A machine of a roll-out.
#[derive(Serialize)]
struct Machine {
    machine_id: MachineId,
    name: String,
    stage: u32,
    waits: bool,
    from: Pair,
    written_at: Option<Unix>,
    event_id: Option<EventId>,
    applied_at: Option<Unix>,
}

/// A roll-out.
#[derive(Serialize)]
struct Shown {
    id: RolloutId,
    operator_id: OperatorId,
    state: RolloutState,
    reason: Option<String>,
    cash_in_fee_fraction: Option<Fraction>,
    cash_out_fee_fraction: Option<Fraction>,
    wait_s: u32,
    actor: String,
    created_at: Unix,
    ended_at: Option<Unix>,
    machines: Vec<Machine>,
}

fn shown(read: &Read<'_>, kept: Kept<RolloutId, Rollout>) -> Result<Shown, StoreError> {
    let mut machines = Vec::new();
    for staged in rows::machines(read, kept.id)? {
        let machine = all_machines::find(read, staged.machine_id)?;
        let document = match staged.document_id {
            Some(id) => documents::find(read, id)?,
            None => None,
        };
        machines.push(Machine {
            machine_id: staged.machine_id,
            name: machine.map(|machine| machine.row.name).unwrap_or_default(),
            stage: staged.stage,
            waits: staged.waits,
            from: Pair::new(staged.cash_in_from, staged.cash_out_from),
            written_at: staged.written_at,
            event_id: document.as_ref().and_then(|document| document.event_id),
            applied_at: document.and_then(|document| document.applied_at),
        });
    }
    let (id, row) = (kept.id, kept.row);
    Ok(Shown {
        id,
        operator_id: row.operator_id,
        state: row.state,
        reason: row.reason,
        cash_in_fee_fraction: row.cash_in_fee_ppm.map(Fraction),
        cash_out_fee_fraction: row.cash_out_fee_ppm.map(Fraction),
        wait_s: row.wait_s,
        actor: row.actor,
        created_at: row.created_at,
        ended_at: row.ended_at,
        machines,
    })
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let found: Result<Vec<_>, StoreError> = api
        .app
        .store
        .read(move |read| {
            let newest = rows::newest(read, caller.operator, ROWS)?;
            newest.into_iter().map(|kept| shown(read, kept)).collect()
        })
        .await;
    Ok(Json(json!(found?)))
}

pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<RolloutId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    rollout::stop(&api.app, &caller.actor, caller.operator, id).await?;
    Ok(Json(json!({ "id": id })))
}
