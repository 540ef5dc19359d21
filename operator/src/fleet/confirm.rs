//! Confirming a pairing: the digits on the machine's screen are those that this service computes.
//!
//! Promise: a machine is in service only after somebody typed the digits that follow from the four
//! keys of this very pairing, checked in the transaction that puts it in service.
//!
//! Failure policy: other digits change nothing and are logged.

use bitspire_shared::seed::confirmation_digits;
use serde_json::json;

use super::machines::{find, subject};
use super::{FleetError, audit};
use crate::app::{App, Ring};
use crate::ids::{MachineId, OperatorId};
use crate::store::machines::{self as rows, Confirmation, KeptMachine};

/// Puts a machine in service.
///
/// # Errors
/// [`FleetError::WrongDigits`]; [`FleetError::State`] where nothing is to be confirmed yet.
pub async fn confirm(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    digits: &str,
) -> Result<KeptMachine, FleetError> {
    let typed: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
    let (now, service, actor) = (app.clock.now(), app.service_key, actor.to_owned());
    let confirmed = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let state = |needs| {
            let state = machine.confirmation.to_string();
            FleetError::State { machine: id, state, needs }
        };
        let keys = (machine.machine_npub, machine.client_key, machine.vault_key);
        let expected = match (machine.confirmation, keys) {
            (Confirmation::AwaitingConfirmation, (Some(spire), Some(client), Some(vault))) => {
                confirmation_digits(&spire, &client, &vault, &service)
            }
            (Confirmation::AwaitingConfirmation, _) => {
                return Err(state("the bunker has not told yet who redeemed the seed: wait"));
            }
            (Confirmation::AwaitingSession | Confirmation::Unpaired, _) => {
                return Err(state("wait until the machine was started with its seed"));
            }
            (Confirmation::Confirmed | Confirmation::Revoked, _) => {
                return Err(state("there is nothing to confirm"));
            }
        };
        if typed != expected {
            return Err(FleetError::WrongDigits);
        }
        rows::confirm(tx, id, now)?;
        let detail = json!({
            "machine_npub": machine.machine_npub, "vault": machine.vault_key,
            "confirmation": Confirmation::Confirmed,
            "before": { "confirmation": machine.confirmation },
        });
        audit(tx, now, &actor, "machine.confirm", &subject(id), detail)?;
        find(tx, id, operator)
    });
    let confirmed: Result<_, FleetError> = confirmed.await;
    if matches!(confirmed, Err(FleetError::WrongDigits)) {
        tracing::warn!(event = "wrong_digits", machine = %id);
    }
    app.ring(Ring::Roster);
    confirmed
}
