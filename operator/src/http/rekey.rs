//! The statement that moves a machine to other keys, in the API.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bitspire_shared::ids::PubKey;
use serde::Deserialize;

use super::Api;
use super::auth::{Caller, Role};
use super::body::Body;
use super::error::ApiError;
use crate::fleet::FleetError;
use crate::fleet::machines::operator_for;
use crate::fleet::rekey::{self, Whose, Wish};
use crate::ids::{MachineId, OperatorId};

/// A machine of this service, or the keys of another one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rekey {
    machine_id: Option<MachineId>,
    operator_id: Option<OperatorId>,
    spire: Option<PubKey>,
    vault: Option<PubKey>,
    service: Option<PubKey>,
    operator: Option<PubKey>,
    hours: Option<u32>,
}

/// Answers with the signed event alone: it is what the machine takes.
pub(super) async fn sign(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<Rekey>,
) -> Result<Response, ApiError> {
    caller.needs(Role::Owner)?;
    let Rekey { machine_id, operator_id, spire, vault, service, operator, hours } = body;
    let own = caller.operator;
    let whose = match (machine_id, spire, vault) {
        (Some(id), None, None) => Whose::Known(id),
        (None, Some(spire), Some(vault)) => {
            let of = api.app.store.read(move |read| operator_for(read, own, operator_id)).await?;
            Whose::Told { operator: of, spire, vault }
        }
        _ => {
            return Err(ApiError::from(FleetError::Invalid {
                field: "machine_id",
                expected: "a machine's number, or else its spire and its vault".into(),
                got: "neither or both".into(),
            }));
        }
    };
    let wish = Wish { whose, service, operator, hours };
    let signed = rekey::sign(&api.app, &caller.actor, own, wish).await?;
    Ok((StatusCode::CREATED, Json(signed)).into_response())
}
