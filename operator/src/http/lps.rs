//! Liquidity providers in the API: who they are, what they have left and what is kept for them, their
//! deposits and their shares of sales, and what the operator does with them.
//!
//! Where a provider's sats go is a rule set of the scope `lp`; see [`super::distribution`].

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::money::{Currency, Fiat, Sats};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{Caller, Role};
use super::body::Body;
use super::distribution::Set;
use super::error::{ApiError, in_words};
use super::{Api, Id};
use crate::ids::{DepositId, LpId, MachineId, OperatorId};
use crate::ledger::{Account, Unit};
use crate::lps::{self as deeds, Asker, Cash, LpError, Wanted};
use crate::store::lps::{self, DepositState, KeptDeposit, KeptLp, Mode};
use crate::store::{Read, StoreError, ledger, legs, rules};

/// Shares of sales that one answer lists.
const LISTED: u32 = 100;

impl From<LpError> for ApiError {
    fn from(error: LpError) -> Self {
        let (status, field) = match error {
            LpError::Fleet(error) => return error.into(),
            LpError::Hands(error) => return (*error).into(),
            LpError::None(_) | LpError::NoDeposit(_) => (StatusCode::NOT_FOUND, None),
            LpError::TooMuch { .. } => (StatusCode::BAD_REQUEST, error.field()),
            LpError::Already(_) | LpError::Ended { .. } | LpError::NotOldest(_) => {
                (StatusCode::CONFLICT, None)
            }
            LpError::Ledger(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let refused = Self::new(status, in_words(&error));
        match field {
            Some(field) => refused.with("field", field.into()),
            None => refused,
        }
    }
}

/// A provider as the API shows it.
#[derive(Serialize)]
pub(super) struct View {
    id: LpId,
    operator_id: OperatorId,
    name: String,
    currency: Currency,
    /// Decimals of the currency.
    decimals: u32,
    mode: Option<Mode>,
    daily_limit_minor: Option<i64>,
    /// Fiat that is not sats yet, in minor units and in words.
    left_minor: i64,
    left: String,
    /// What of it became sats today, UTC.
    used_today_minor: i64,
    /// Fiat that was announced and is not confirmed.
    pending_minor: i64,
    /// Sats that are theirs and not paid yet; of these, those that nothing carries.
    sats: i64,
    kept_sats: Sats,
    /// Machines whose sales they take part in; every one of their currency where `everywhere`.
    machines: Vec<MachineId>,
    everywhere: bool,
    /// Where their sats go now.
    to: Option<String>,
    created_at: Unix,
    disabled_at: Option<Unix>,
}

fn view(read: &Read<'_>, lp: &KeptLp, now: Unix) -> Result<View, StoreError> {
    let terms = lps::terms_of(read, lp.id)?;
    let left_minor = lps::left(read, lp)?;
    let mut open = lps::enrolments(read, lp.id)?;
    open.retain(|one| one.ended_at.is_none());
    let pending = lps::deposits(read, lp.id)?;
    let pending = pending.iter().filter(|one| one.state == DepositState::Pending);
    let sats = ledger::balance(read, Account::Lp(lp.id), Unit::Sats)?.saturating_neg();
    let kept = legs::kept_for(read, lp.id)?;
    let kept: u64 = kept.iter().fold(0, |sum, leg| sum.saturating_add(leg.amount_sats.0));
    let rules = rules::of_lp(read, lp.id, now)?;
    let to = rules.and_then(|rules| rules.row.shares.0.into_iter().next());
    Ok(View {
        id: lp.id,
        operator_id: lp.operator_id,
        name: lp.name.clone(),
        currency: lp.currency,
        decimals: lp.currency.exponent(),
        mode: terms.as_ref().map(|terms| terms.mode),
        daily_limit_minor: terms.and_then(|terms| terms.daily_limit_minor),
        left_minor,
        left: Fiat::new(left_minor, lp.currency).to_string(),
        used_today_minor: lps::used_on(read, lp.id, now, None)?,
        pending_minor: pending.fold(0_i64, |sum, one| sum.saturating_add(one.amount_minor)),
        sats,
        kept_sats: Sats(kept),
        machines: open.iter().filter_map(|one| one.machine_id).collect(),
        everywhere: open.iter().any(|one| one.machine_id.is_none()),
        to: to.map(|share| share.to.to_string()),
        created_at: lp.created_at,
        disabled_at: lp.disabled_at,
    })
}

fn deposit_view(kept: &KeptDeposit) -> Value {
    let row = &kept.row;
    json!({
        "id": kept.id, "kind": row.kind, "reference": row.reference,
        "amount_minor": row.amount_minor, "currency": row.currency,
        "amount": Fiat::new(row.amount_minor, row.currency).to_string(), "state": row.state,
        "actor": row.actor, "created_at": row.created_at, "ended_at": row.ended_at,
        "ended_by": row.ended_by,
    })
}

/// A provider with deposits, enrolments, the newest shares and the rule sets.
fn whole(
    read: &Read<'_>,
    id: LpId,
    operator: Option<OperatorId>,
    now: Unix,
) -> Result<Value, LpError> {
    let lp = deeds::find(read, id, operator)?;
    let mut body = json!(view(read, &lp, now)?);
    if let Value::Object(fields) = &mut body {
        let deposits: Vec<_> = lps::deposits(read, id)?.iter().map(deposit_view).collect();
        fields.insert("deposits".into(), deposits.into());
        fields.insert("enrolments".into(), json!(lps::enrolments(read, id)?));
        fields.insert("shares".into(), json!(lps::newest_shares(read, id, LISTED)?));
        let sets: Vec<_> =
            rules::list_of_lp(read, id)?.iter().map(|kept| Set::new(kept, now)).collect();
        fields.insert("rules".into(), json!(sets));
    }
    Ok(body)
}

async fn told(api: &Api, caller: &Caller, id: LpId) -> Result<Value, ApiError> {
    let (operator, now) = (caller.operator, api.app.clock.now());
    Ok(api.app.store.read(move |read| whole(read, id, operator, now)).await?)
}

fn asker(caller: &Caller) -> Asker {
    Asker { actor: caller.actor.clone(), operator: caller.operator }
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<View>>, ApiError> {
    let now = api.app.clock.now();
    let all: Result<Vec<View>, StoreError> = api
        .app
        .store
        .read(move |read| {
            lps::list(read, caller.operator)?.iter().map(|lp| view(read, lp, now)).collect()
        })
        .await;
    Ok(Json(all?))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
) -> Result<Json<Value>, ApiError> {
    told(&api, &caller, id).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Register {
    name: String,
    currency: Currency,
    operator_id: Option<OperatorId>,
    mode: Mode,
    daily_limit_minor: Option<i64>,
}

pub(super) async fn register(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Register>,
) -> Result<Response, ApiError> {
    // whom the principal of sales goes to
    caller.needs(Role::Owner)?;
    let Register { name, currency, operator_id, mode, daily_limit_minor } = body;
    let wanted = Wanted { mode, daily_limit_minor };
    let who = asker(&caller);
    let id = deeds::register(&api.app, who, operator_id, &name, currency, wanted).await?;
    Ok((StatusCode::CREATED, Json(told(&api, &caller, id).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermsBody {
    mode: Mode,
    daily_limit_minor: Option<i64>,
}

pub(super) async fn set_terms(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<TermsBody>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    let wanted = Wanted { mode: body.mode, daily_limit_minor: body.daily_limit_minor };
    deeds::set_terms(&api.app, asker(&caller), id, wanted).await?;
    told(&api, &caller, id).await.map(Json)
}

/// At which machine; at every one of the provider's currency where absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    machine_id: Option<MachineId>,
}

pub(super) async fn enrol(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<At>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    deeds::enrol(&api.app, asker(&caller), id, body.machine_id).await?;
    told(&api, &caller, id).await.map(Json)
}

pub(super) async fn leave(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<At>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    deeds::leave(&api.app, asker(&caller), id, body.machine_id).await?;
    told(&api, &caller, id).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CashBody {
    amount_minor: i64,
    currency: Currency,
    reference: String,
}

impl CashBody {
    fn cash(self) -> Cash {
        let fiat = Fiat::new(self.amount_minor, self.currency);
        Cash { fiat, reference: self.reference }
    }
}

async fn cash(api: &Api, id: DepositId) -> Result<Json<Value>, ApiError> {
    let found: Result<_, StoreError> =
        api.app.store.read(move |read| lps::find_deposit(read, id)).await;
    let found = found?.ok_or(LpError::NoDeposit(id))?;
    Ok(Json(deposit_view(&found)))
}

pub(super) async fn deposit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<CashBody>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Operator)?;
    let made = deeds::deposit(&api.app, asker(&caller), id, body.cash()).await?;
    Ok((StatusCode::CREATED, cash(&api, made).await?).into_response())
}

pub(super) async fn give_back(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<CashBody>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Owner)?;
    let made = deeds::give_back(&api.app, asker(&caller), id, body.cash()).await?;
    Ok((StatusCode::CREATED, cash(&api, made).await?).into_response())
}

pub(super) async fn confirm(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<DepositId>,
) -> Result<Json<Value>, ApiError> {
    // from now on sats are paid for it
    caller.needs(Role::Owner)?;
    deeds::end_deposit(&api.app, asker(&caller), id, true).await?;
    cash(&api, id).await
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<DepositId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    deeds::end_deposit(&api.app, asker(&caller), id, false).await?;
    cash(&api, id).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settle {
    /// What was paid by hand: the sum of some of the oldest kept legs.
    sats: Sats,
    reason: String,
}

pub(super) async fn settle(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
    Body(body): Body<Settle>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    deeds::settle(&api.app, asker(&caller), id, body.sats, &body.reason).await?;
    Ok(Json(json!({ "lp": id, "settled_sats": body.sats })))
}

pub(super) async fn disable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    deeds::set_disabled(&api.app, asker(&caller), id, true).await?;
    told(&api, &caller, id).await.map(Json)
}

pub(super) async fn enable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LpId>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Owner)?;
    deeds::set_disabled(&api.app, asker(&caller), id, false).await?;
    told(&api, &caller, id).await.map(Json)
}
