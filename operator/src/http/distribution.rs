//! Distribution in the API: what is under way and what waits, a settlement with its legs, the rule
//! sets, and what a person decides.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::{PaymentHash, TxnId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{Caller, Role};
use super::body::{Body, Fraction};
use super::error::ApiError;
use super::{Api, Id, reports};
use crate::audit;
use crate::audit::proof::{ProofError, SealedProof};
use crate::distribute::hands::{self, HandsError, How, Word};
use crate::distribute::rules::{self as change, RulesError, Wish};
use crate::ids::{LegId, LpId, MachineId, OperatorId, PaymentId, RuleSetId, SettlementId};
use crate::payout::close::{CloseError, Word as Found, close};
use crate::rpc::after_revoke::{self, KeptClaim, Offered};
use crate::store::legs::{self, KeptLeg, LegKind, LegState};
use crate::store::payments::{self, PaymentState};
use crate::store::rules::{self, Destination, KeptRules, Scope, Share};
use crate::store::settlements::{self, Distribution};
use crate::store::{Kept, Read, StoreError, machines};

/// Settlements of each state that one answer lists.
const LISTED: u32 = 500;

impl From<HandsError> for ApiError {
    fn from(error: HandsError) -> Self {
        let status = match error {
            HandsError::Fleet(error) => return error.into(),
            HandsError::NoSettlement(_) | HandsError::NoLeg(_) => StatusCode::NOT_FOUND,
            HandsError::Settlement { .. } | HandsError::Leg { .. } => StatusCode::CONFLICT,
            HandsError::Platform(_) => StatusCode::FORBIDDEN,
            HandsError::NoReason => StatusCode::BAD_REQUEST,
            HandsError::Ledger(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, super::error::in_words(&error))
    }
}

impl From<CloseError> for ApiError {
    fn from(error: CloseError) -> Self {
        let status = match error {
            CloseError::Fleet(error) => return error.into(),
            CloseError::None(_) => StatusCode::NOT_FOUND,
            CloseError::NoReason | CloseError::Preimage(_) => StatusCode::BAD_REQUEST,
            CloseError::Ended { .. }
            | CloseError::Tells(_)
            | CloseError::Early { .. }
            | CloseError::Known => StatusCode::CONFLICT,
            CloseError::Wallet(_) => StatusCode::SERVICE_UNAVAILABLE,
            CloseError::Payout(_) | CloseError::Leg(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, super::error::in_words(&error))
    }
}

impl From<ProofError> for ApiError {
    fn from(error: ProofError) -> Self {
        let status = match error {
            ProofError::None(_) => StatusCode::NOT_FOUND,
            ProofError::Refused(_) | ProofError::Gone { .. } => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, super::error::in_words(&error))
    }
}

impl From<RulesError> for ApiError {
    fn from(error: RulesError) -> Self {
        match error {
            RulesError::Fleet(error) => error.into(),
            RulesError::Lp(error) => error.into(),
            RulesError::None(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            RulesError::Ended(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
        }
    }
}

/// A leg as the API shows it.
#[derive(Serialize)]
pub(super) struct Shown {
    id: LegId,
    position: i64,
    round: i64,
    kind: LegKind,
    lp_id: Option<LpId>,
    amount_sats: Sats,
    to: Option<String>,
    rules: Option<RuleSetId>,
    state: LegState,
    /// What its wallet has said of the payment.
    payment: Option<PaymentState>,
    payment_hash: Option<PaymentHash>,
    routing_sats: Option<Sats>,
    detail: Option<String>,
    planned_at: Unix,
    ended_at: Option<Unix>,
    ended_by: Option<String>,
}

fn shown(read: &Read<'_>, leg: &KeptLeg) -> Result<Shown, StoreError> {
    let payment = match leg.payment_hash {
        Some(hash) => payments::by_hash(read, hash)?,
        None => None,
    };
    let said = payment.as_ref().and_then(|payment| payment.detail.clone());
    Ok(Shown {
        id: leg.id,
        position: leg.position,
        round: leg.round,
        kind: leg.kind,
        lp_id: leg.lp_id,
        amount_sats: leg.amount_sats,
        to: leg.destination.as_ref().map(|to| to.0.to_string()),
        rules: leg.rule_id,
        state: leg.state,
        payment: payment.as_ref().map(|payment| payment.state),
        payment_hash: leg.payment_hash,
        routing_sats: payment.as_ref().and_then(|payment| payment.fee_paid_sats),
        detail: leg.detail.clone().or(said),
        planned_at: leg.planned_at,
        ended_at: leg.ended_at,
        ended_by: leg.ended_by.clone(),
    })
}

/// A settlement with every round of its legs.
fn whole(
    read: &Read<'_>,
    id: SettlementId,
    operator: Option<OperatorId>,
) -> Result<Value, HandsError> {
    let found = hands::find(read, id, operator)?;
    let all = legs::of_settlement(read, id)?;
    let all: Vec<_> = all.iter().map(|leg| shown(read, leg)).collect::<Result<_, _>>()?;
    let mut body = reports::shown(&found);
    if let Value::Object(fields) = &mut body {
        fields.insert("legs".into(), json!(all));
    }
    Ok(body)
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<SettlementId>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(api.app.store.read(move |read| whole(read, id, caller.operator)).await?))
}

/// Everything about a settlement, derived again and held against the rows and the wallets.
pub(super) async fn verify(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<SettlementId>,
) -> Result<Json<audit::Audit>, ApiError> {
    caller.needs(Role::Operator)?;
    let found = api.app.store.read(move |read| hands::find(read, id, caller.operator)).await?;
    let looked = audit::settlement(&api.app, found.id).await?;
    looked.map(Json).ok_or_else(|| HandsError::NoSettlement(id).into())
}

/// All evidence of a settlement, sealed, for whoever checks it elsewhere.
pub(super) async fn proof(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<SettlementId>,
) -> Result<Json<SealedProof>, ApiError> {
    caller.needs(Role::Operator)?;
    let found = api.app.store.read(move |read| hands::find(read, id, caller.operator)).await?;
    Ok(Json(audit::proof::make(&api.app, found.id).await?))
}

/// What is not distributed: in work, to be worked on, held, errored.
pub(super) async fn open(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let found: Result<Vec<Value>, HandsError> = api
        .app
        .store
        .read(move |read| {
            let mut open = Vec::new();
            for state in [
                Distribution::Errored,
                Distribution::Held,
                Distribution::Processing,
                Distribution::Pending,
            ] {
                for kept in settlements::by_distribution(read, state, caller.operator, LISTED)? {
                    open.push(whole(read, kept.id, caller.operator)?);
                }
            }
            Ok(open)
        })
        .await;
    Ok(Json(found?.into()))
}

/// Why somebody decides something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    reason: String,
}

fn word(caller: Caller, reason: String) -> Word {
    let platform = caller.operator.is_none() || caller.role == Role::Super;
    Word { actor: caller.actor, operator: caller.operator, platform, reason }
}

pub(super) async fn release(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<SettlementId>,
    Body(body): Body<Reason>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let operator = caller.operator;
    hands::release(&api.app, id, word(caller, body.reason)).await?;
    Ok(Json(api.app.store.read(move |read| whole(read, id, operator)).await?))
}

pub(super) async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<SettlementId>,
    Body(body): Body<Reason>,
) -> Result<Json<Value>, ApiError> {
    caller.needs(Role::Operator)?;
    let operator = caller.operator;
    hands::resume(&api.app, id, word(caller, body.reason)).await?;
    Ok(Json(api.app.store.read(move |read| whole(read, id, operator)).await?))
}

/// How a leg ends by a person's word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLeg {
    how: How,
    reason: String,
}

pub(super) async fn end_leg(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<LegId>,
    Body(body): Body<EndLeg>,
) -> Result<Json<Shown>, ApiError> {
    // what is not paid, or was paid past the wallet, is where money goes
    caller.needs(Role::Owner)?;
    let ended = hands::end_leg(&api.app, id, body.how, word(caller, body.reason)).await?;
    let found: Result<_, StoreError> = api
        .app
        .store
        .read(move |read| legs::find(read, ended)?.map(|leg| shown(read, &leg)).transpose())
        .await;
    found?.map(Json).ok_or_else(|| HandsError::NoLeg(id).into())
}

/// A share as the API has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    fraction: Fraction,
    to: Destination,
}

/// A rule set as the API shows it.
#[derive(Serialize)]
pub(super) struct Set {
    id: RuleSetId,
    scope: Scope,
    operator_id: Option<OperatorId>,
    machine_id: Option<MachineId>,
    lp_id: Option<LpId>,
    shares: Vec<Part>,
    actor: String,
    created_at: Unix,
    in_force_at: Unix,
    cancelled_at: Option<Unix>,
    cancelled_by: Option<String>,
    /// Whether it does not count yet, and can be cancelled.
    waits: bool,
    signed: Value,
}

impl Set {
    pub(super) fn new(kept: &KeptRules, now: Unix) -> Self {
        let row = &kept.row;
        let part = |share: &Share| Part { fraction: Fraction(share.ppm), to: share.to.clone() };
        Self {
            id: kept.id,
            scope: row.scope,
            operator_id: row.operator_id,
            machine_id: row.machine_id,
            lp_id: row.lp_id,
            shares: row.shares.0.iter().map(part).collect(),
            actor: row.actor.clone(),
            created_at: row.created_at,
            in_force_at: row.in_force_at,
            cancelled_at: row.cancelled_at,
            cancelled_by: row.cancelled_by.clone(),
            waits: row.cancelled_at.is_none() && row.in_force_at > now,
            signed: serde_json::from_str(&row.signed).unwrap_or_default(),
        }
    }
}

pub(super) async fn rule_sets(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Set>>, ApiError> {
    let now = api.app.clock.now();
    let all: Result<Vec<KeptRules>, StoreError> =
        api.app.store.read(move |read| rules::list(read, caller.operator)).await;
    Ok(Json(all?.iter().map(|kept| Set::new(kept, now)).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRules {
    scope: Scope,
    operator_id: Option<OperatorId>,
    machine_id: Option<MachineId>,
    lp_id: Option<LpId>,
    shares: Vec<Part>,
}

pub(super) async fn set_rules(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<SetRules>,
) -> Result<Response, ApiError> {
    caller.needs(match body.scope {
        Scope::Super => Role::Super,
        Scope::Operator | Scope::Machine | Scope::Lp => Role::Owner,
    })?;
    let share = |part: Part| Share { ppm: part.fraction.0, to: part.to };
    let wish = Wish {
        scope: body.scope,
        operator: body.operator_id,
        machine: body.machine_id,
        lp: body.lp_id,
        shares: body.shares.into_iter().map(share).collect(),
    };
    let kept = change::change(&api.app, &caller.actor, caller.operator, wish).await?;
    Ok((StatusCode::CREATED, Json(Set::new(&kept, api.app.clock.now()))).into_response())
}

pub(super) async fn cancel_rules(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<RuleSetId>,
) -> Result<Json<Set>, ApiError> {
    caller.needs(Role::Owner)?;
    let kept = change::cancel(&api.app, &caller.actor, caller.operator, id).await?;
    Ok(Json(Set::new(&kept, api.app.clock.now())))
}

/// Payments to customers and of legs whose end is not known.
pub(super) async fn payouts(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, ApiError> {
    let open: Result<Vec<Value>, StoreError> = api
        .app
        .store
        .read(move |read| {
            let own = machines::list(read, caller.operator)?;
            let mut open = payments::open(read)?;
            open.retain(|one| own.iter().any(|machine| machine.id == one.machine_id));
            let shown = |one: &Kept<PaymentId, payments::Payment>| {
                json!({
                    "payment_hash": one.payment_hash, "machine_id": one.machine_id,
                    "wallet_id": one.wallet_id, "pays": one.subject, "which": one.subject_id,
                    "amount_sats": one.amount_sats, "state": one.state, "detail": one.detail,
                    "started_at": one.started_at, "invoice_expires_at": one.invoice_expires_at,
                })
            };
            Ok(open.iter().map(shown).collect())
        })
        .await;
    Ok(Json(open?.into()))
}

/// What a person has found in the wallet's own history.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseBody {
    /// Of a payment that was made: 64 hex characters.
    preimage: Option<String>,
    /// What routing it cost.
    routing_sats: Option<Sats>,
    reason: String,
}

pub(super) async fn close_payout(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(hash): Id<PaymentHash>,
    Body(body): Body<CloseBody>,
) -> Result<Json<Value>, ApiError> {
    // whether a customer, or an owner of a fee, is paid again
    caller.needs(Role::Owner)?;
    let field = |field: &str, words: &str| {
        let words = format!("{field}: {words}");
        ApiError::new(StatusCode::BAD_REQUEST, words).with("field", field.into())
    };
    let word = match (&body.preimage, body.routing_sats) {
        (None, None) => Found::NotPaid,
        (None, Some(_)) => return Err(field("routing_sats", "expected only with a preimage")),
        (Some(hex), routing) => Found::Paid {
            preimage: bitspire_shared::ids::from_hex("preimage", hex.trim())
                .map_err(|error| field("preimage", &error.to_string()))?,
            routing: routing.unwrap_or_default(),
        },
    };
    close(&api.app, (&caller.actor, caller.operator), hash, word, &body.reason).await?;
    let found: Result<_, StoreError> =
        api.app.store.read(move |read| payments::by_hash(read, hash)).await;
    let state = found?.map(|payment| payment.row.state);
    Ok(Json(json!({ "payment_hash": hash, "state": state })))
}

/// What vaults claimed after the revoke of their machines.
pub(super) async fn kept_claims(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<KeptClaim>>, ApiError> {
    let kept: Result<_, StoreError> =
        api.app.store.read(move |read| after_revoke::list(read, caller.operator)).await;
    Ok(Json(kept?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferBody {
    machine: MachineId,
    txid: TxnId,
    reason: String,
}

/// Offers one of them to its customer.
pub(super) async fn offer_kept(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<OfferBody>,
) -> Result<Json<Offered>, ApiError> {
    // sats for notes that nobody here has seen
    caller.needs(Role::Owner)?;
    let who = (caller.actor.as_str(), caller.operator);
    Ok(Json(after_revoke::offer(&api.app, who, body.machine, body.txid, &body.reason).await?))
}
