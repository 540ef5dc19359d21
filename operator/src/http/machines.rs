//! Machines in the API.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::PubKey;
use bitspire_shared::money::{Currency, FeePpm, Sats};
use bitspire_shared::seed::confirmation_digits;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Deserializer, Serialize};

use super::auth::{Caller, Role};
use super::body::{Body, Fraction};
use super::error::ApiError;
use super::reported::Reported;
use super::{Api, Id};
use crate::app::App;
use crate::fleet::FleetError;
use crate::fleet::machines::{self, Edit, NewMachine};
use crate::fleet::renew::warning;
use crate::ids::{MachineId, OperatorId};
use crate::publish::status::{self, Documents};
use crate::store::machines::{Confirmation, KeptMachine, list as rows};
use crate::store::rollouts;

/// A machine as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: MachineId,
    operator_id: OperatorId,
    name: String,
    place: String,
    fiat_code: Currency,
    wallet_id: String,
    machine_npub: Option<PubKey>,
    /// The same key as people paste it.
    spire_npub: Option<String>,
    bunker_spire_key_name: Option<String>,
    bunker_connection_id: Option<String>,
    bunker_token_expires_at: Option<Unix>,
    /// What is to be said about the end of the pairing, while it is near.
    pairing_warning: Option<String>,
    paired_at: Option<Unix>,
    confirmation: Confirmation,
    /// What the machine's screen shows, while somebody has to compare it.
    confirmation_digits: Option<String>,
    confirmed_at: Option<Unix>,
    revoked_at: Option<Unix>,
    disabled_at: Option<Unix>,
    disabled_reason: Option<String>,
    cash_in_fee_fraction: Fraction,
    cash_out_fee_fraction: Fraction,
    max_cash_in_sats: Option<Sats>,
    max_cash_in_hour_sats: Option<Sats>,
    max_cash_in_day_sats: Option<Sats>,
    cashbox_capacity: Option<u64>,
    journal_seq: u64,
    last_seen_at: Option<Unix>,
    created_at: Unix,
}

impl View {
    pub(super) fn new(app: &App, kept: KeptMachine) -> Self {
        let digits = match (&kept.confirmation, kept.machine_npub, kept.client_key, kept.vault_key)
        {
            (Confirmation::AwaitingConfirmation, Some(spire), Some(client), Some(vault)) => {
                Some(confirmation_digits(&spire, &client, &vault, &app.service_key))
            }
            _ => None,
        };
        let pairing_warning = warning(&kept, &app.config.pairing, app.clock.now());
        let machine = kept.row;
        Self {
            pairing_warning,
            id: kept.id,
            operator_id: machine.operator_id,
            name: machine.name,
            place: machine.place,
            fiat_code: machine.currency,
            wallet_id: machine.wallet_id,
            machine_npub: machine.machine_npub,
            spire_npub: machine.machine_npub.map(|key| key.npub()),
            bunker_spire_key_name: machine.bunker_spire_key_name,
            bunker_connection_id: machine.bunker_connection_id,
            bunker_token_expires_at: machine.bunker_token_expires_at,
            paired_at: machine.paired_at,
            confirmation: machine.confirmation,
            confirmation_digits: digits,
            confirmed_at: machine.confirmed_at,
            revoked_at: machine.revoked_at,
            disabled_at: machine.disabled_at,
            disabled_reason: machine.disabled_reason,
            cash_in_fee_fraction: Fraction(machine.cash_in_fee_ppm),
            cash_out_fee_fraction: Fraction(machine.cash_out_fee_ppm),
            max_cash_in_sats: machine.max_cash_in_sats,
            max_cash_in_hour_sats: machine.max_cash_in_hour_sats,
            max_cash_in_day_sats: machine.max_cash_in_day_sats,
            cashbox_capacity: machine.cashbox_capacity,
            journal_seq: machine.journal_seq.0,
            last_seen_at: machine.last_seen_at,
            created_at: machine.created_at,
        }
    }
}

/// A machine among others, with what it last said.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    machine: View,
    tags: Vec<String>,
    reported: Option<Reported>,
}

/// One machine, with where its documents stand and what it last said.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    machine: View,
    tags: Vec<String>,
    documents: Documents,
    reported: Option<Reported>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Listed>>, ApiError> {
    let found: Result<Vec<_>, FleetError> = api
        .app
        .store
        .read(move |read| {
            let machines = rows(read, caller.operator)?.into_iter();
            let mut tags: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for (machine, tag) in rollouts::tags(read)? {
                tags.entry(machine).or_default().push(tag);
            }
            let one = |machine: KeptMachine| {
                let tags = tags.remove(&machine.id).unwrap_or_default();
                Ok((Reported::find(read, &machine)?, tags, machine))
            };
            machines.map(one).collect()
        })
        .await;
    let listed = |(reported, tags, machine)| {
        let machine = View::new(&api.app, machine);
        Listed { machine, tags, reported }
    };
    Ok(Json(found?.into_iter().map(listed).collect()))
}

pub(super) async fn show(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<Shown>, ApiError> {
    let found: Result<_, FleetError> = api
        .app
        .store
        .read(move |read| {
            let machine = machines::find(read, id, caller.operator)?;
            let reported = Reported::find(read, &machine)?;
            let tags = rollouts::tags_of(read, id)?;
            Ok((machine, tags, status::of_machine(read, id)?, reported))
        })
        .await;
    let (machine, tags, documents, reported) = found?;
    Ok(Json(Shown { machine: View::new(&api.app, machine), tags, documents, reported }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    operator_id: Option<OperatorId>,
    name: String,
    #[serde(default)]
    place: String,
    fiat_code: Currency,
    wallet_id: String,
    npub: Option<String>,
    cash_in_fee_fraction: Option<Fraction>,
    cash_out_fee_fraction: Option<Fraction>,
}

pub(super) async fn add(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(add): Body<Add>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Operator)?;
    let npub = add.npub.as_deref().map(|text| PubKey::from_hex_or_npub(text.trim())).transpose();
    let npub = npub.map_err(|error| FleetError::Invalid {
        field: "npub",
        expected: "an npub or 64 hex characters".into(),
        got: error.to_string(),
    })?;
    let (own, named) = (caller.operator, add.operator_id);
    let operator = api.app.store.read(move |r| machines::operator_for(r, own, named)).await?;
    let fee = |fraction: Option<Fraction>| fraction.map_or(FeePpm::ZERO, |fraction| fraction.0);
    let new = NewMachine {
        operator,
        name: add.name,
        place: add.place,
        currency: add.fiat_code,
        wallet_id: add.wallet_id,
        npub,
        cash_in_fee: fee(add.cash_in_fee_fraction),
        cash_out_fee: fee(add.cash_out_fee_fraction),
    };
    let added = machines::add(&api.app, &caller.actor, new).await?;
    Ok((StatusCode::CREATED, Json(View::new(&api.app, added))).into_response())
}

/// A field that is absent stays; one that is null is the default.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    name: Option<String>,
    place: Option<String>,
    #[serde(default, deserialize_with = "given")]
    max_cash_in_sats: Option<Option<Sats>>,
    #[serde(default, deserialize_with = "given")]
    max_cash_in_hour_sats: Option<Option<Sats>>,
    #[serde(default, deserialize_with = "given")]
    max_cash_in_day_sats: Option<Option<Sats>>,
    #[serde(default, deserialize_with = "given")]
    cashbox_capacity: Option<Option<u64>>,
}

pub(super) async fn edit(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(change): Body<Change>,
) -> Result<Json<View>, ApiError> {
    caller.needs(Role::Operator)?;
    let edit = Edit {
        name: change.name,
        place: change.place,
        max_cash_in: change.max_cash_in_sats,
        max_cash_in_hour: change.max_cash_in_hour_sats,
        max_cash_in_day: change.max_cash_in_day_sats,
        cashbox_capacity: change.cashbox_capacity,
    };
    let machine = machines::edit(&api.app, &caller.actor, caller.operator, id, edit).await?;
    Ok(Json(View::new(&api.app, machine)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disable {
    reason: String,
}

pub(super) async fn disable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
    Body(disable): Body<Disable>,
) -> Result<Json<View>, ApiError> {
    set_disabled(&api, &caller, id, Some(disable.reason)).await
}

pub(super) async fn enable(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Id(id): Id<MachineId>,
) -> Result<Json<View>, ApiError> {
    set_disabled(&api, &caller, id, None).await
}

async fn set_disabled(
    api: &Api,
    caller: &Caller,
    id: MachineId,
    reason: Option<String>,
) -> Result<Json<View>, ApiError> {
    caller.needs(Role::Operator)?;
    let (actor, operator) = (&caller.actor, caller.operator);
    let machine = machines::set_disabled(&api.app, actor, operator, id, reason).await?;
    Ok(Json(View::new(&api.app, machine)))
}
