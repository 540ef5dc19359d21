//! Fees: an operator's for one machine, the platform's for all.
//!
//! Promise: fees above the cap in some direction, of some machine, are refused before anything is
//! written; what is written is wanted on each machine that it concerns, in the same transaction.
//!
//! Failure policy: [`FleetError`]; nothing was written.

use bitspire_shared::document::{DirectionFees, DocumentError, FeesDocument};
use bitspire_shared::money::{Direction, FeePpm};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::{published_at, wake};
use crate::app::App;
use crate::fleet::machines::{find, settings, subject};
use crate::fleet::{FleetError, audit, pair_fees};
use crate::ids::{DocumentId, MachineId, OperatorId};
use crate::store::documents::{self, DocumentKind, Fees, NewDocument};
use crate::store::machines::{self, KeptMachine};
use crate::store::operators::{self, SuperConfig};
use crate::store::{StoreError, Tx};

/// The document that says `fees`.
pub(super) fn document(fees: Fees, at: Unix) -> Result<FeesDocument, DocumentError> {
    let of = |direction| {
        let pair = fees.of(direction);
        pair.map(DirectionFees::new).map_err(|source| DocumentError::Cap { direction, source })
    };
    Ok(FeesDocument {
        cash_in: of(Direction::CashIn)?,
        cash_out: of(Direction::CashOut)?,
        published_at: at,
        attest: None,
    })
}

pub(super) fn json(text: &str) -> Result<Value, DocumentError> {
    serde_json::from_str(text).map_err(|error| DocumentError::Json(error.to_string()))
}

/// How errors name a machine.
pub(super) fn named(machine: &KeptMachine) -> String {
    format!("machine {} ({})", machine.id, machine.name)
}

/// Wants the machine's fees as they stand, together with the platform's.
///
/// # Errors
/// [`FleetError::OverCap`], the database.
pub fn want(tx: &Tx<'_>, machine: &KeptMachine, now: Unix) -> Result<DocumentId, FleetError> {
    let platform = operators::super_config(tx)?;
    let (fee_in, fee_out) = (machine.cash_in_fee_ppm, machine.cash_out_fee_ppm);
    pair_fees(Direction::CashIn, &named(machine), platform.cash_in_fee_ppm, fee_in)?;
    pair_fees(Direction::CashOut, &named(machine), platform.cash_out_fee_ppm, fee_out)?;
    let fees = Fees {
        cash_in_platform: platform.cash_in_fee_ppm,
        cash_in_operator: fee_in,
        cash_out_platform: platform.cash_out_fee_ppm,
        cash_out_operator: fee_out,
    };
    let last = documents::wanted(tx, machine.id, DocumentKind::Fees)?;
    let at = published_at(last.map(|last| last.published_at), now);
    let new = NewDocument {
        machine_id: machine.id,
        kind: DocumentKind::Fees,
        body: json(&document(fees, at)?.to_json()?)?,
        published_at: at,
        fees: Some(fees),
    };
    Ok(documents::want(tx, &new, now)?)
}

/// In a transaction: sets an operator's fees of a machine, on cash_in and on cash_out; `None` stays.
/// The version that is wanted from now on; `None` where the fees are so already.
///
/// # Errors
/// [`FleetError`].
pub(super) fn change(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    (cash_in, cash_out): (Option<FeePpm>, Option<FeePpm>),
    (actor, now): (&str, Unix),
) -> Result<Option<DocumentId>, FleetError> {
    let id = machine.id;
    let was = settings(machine);
    let mut to = was.clone();
    to.cash_in_fee_ppm = cash_in.unwrap_or(to.cash_in_fee_ppm);
    to.cash_out_fee_ppm = cash_out.unwrap_or(to.cash_out_fee_ppm);
    if to == was {
        return Ok(None);
    }
    let platform = operators::super_config(tx)?;
    let name = named(machine);
    pair_fees(Direction::CashIn, &name, platform.cash_in_fee_ppm, to.cash_in_fee_ppm)?;
    pair_fees(Direction::CashOut, &name, platform.cash_out_fee_ppm, to.cash_out_fee_ppm)?;
    machines::set_settings(tx, id, &to)?;
    let document = want(tx, &find(tx, id, None)?, now)?;
    let detail = json!({
        "cash_in_fee_ppm": to.cash_in_fee_ppm, "cash_out_fee_ppm": to.cash_out_fee_ppm,
        "before": {"cash_in_fee_ppm": was.cash_in_fee_ppm,
            "cash_out_fee_ppm": was.cash_out_fee_ppm},
    });
    audit(tx, now, actor, "machine.fees", &subject(id), detail)?;
    Ok(Some(document))
}

/// Sets an operator's fees of a machine; `None` stays. The version that is wanted now, if there is
/// one: what did not change is not published again.
///
/// # Errors
/// [`FleetError`]; nothing was written.
pub async fn set(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    cash_in: Option<FeePpm>,
    cash_out: Option<FeePpm>,
) -> Result<(KeptMachine, Option<DocumentId>), FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let written = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let document = match change(tx, &machine, (cash_in, cash_out), (&actor, now))? {
            Some(document) => Some(document),
            None => documents::wanted(tx, id, DocumentKind::Fees)?.map(|document| document.id),
        };
        Ok((find(tx, id, operator)?, document))
    });
    let written: Result<_, FleetError> = written.await;
    wake(app);
    written
}

/// Sets the platform's fees; `None` stays. What is wanted now on each machine that has a key.
///
/// # Errors
/// [`FleetError::Breaches`] naming each machine and direction that would be above the cap; nothing
/// was written.
pub async fn set_platform(
    app: &App,
    actor: &str,
    cash_in: Option<FeePpm>,
    cash_out: Option<FeePpm>,
) -> Result<(SuperConfig, Vec<DocumentId>), FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let written = app.store.write(move |tx| {
        let was = operators::super_config(tx)?;
        let to = SuperConfig {
            cash_in_fee_ppm: cash_in.unwrap_or(was.cash_in_fee_ppm),
            cash_out_fee_ppm: cash_out.unwrap_or(was.cash_out_fee_ppm),
            wallet_id: was.wallet_id.clone(),
            updated_at: now,
        };
        if (to.cash_in_fee_ppm, to.cash_out_fee_ppm) == (was.cash_in_fee_ppm, was.cash_out_fee_ppm)
        {
            return Ok((was, Vec::new()));
        }
        let all = machines::list(tx, None)?;
        let breaches = breaches(&all, &to);
        if !breaches.is_empty() {
            return Err(FleetError::Breaches(breaches.join("; ")));
        }
        operators::set_super_config(tx, &to)?;
        let told = all.iter().filter(|m| m.machine_npub.is_some() && m.revoked_at.is_none());
        let told: Result<Vec<_>, FleetError> = told.map(|machine| want(tx, machine, now)).collect();
        let detail = json!({
            "cash_in_fee_ppm": to.cash_in_fee_ppm, "cash_out_fee_ppm": to.cash_out_fee_ppm,
            "before": {"cash_in_fee_ppm": was.cash_in_fee_ppm,
                "cash_out_fee_ppm": was.cash_out_fee_ppm},
        });
        audit(tx, now, &actor, "super.fees", "super", detail)?;
        Ok((to, told?))
    });
    let written: Result<_, FleetError> = written.await;
    wake(app);
    written
}

fn breaches(machines: &[KeptMachine], platform: &SuperConfig) -> Vec<String> {
    let mut found = Vec::new();
    for machine in machines {
        for (direction, fee, own) in [
            (Direction::CashIn, platform.cash_in_fee_ppm, machine.cash_in_fee_ppm),
            (Direction::CashOut, platform.cash_out_fee_ppm, machine.cash_out_fee_ppm),
        ] {
            if let Err(error) = pair_fees(direction, &named(machine), fee, own) {
                found.push(crate::http::error::in_words(&error));
            }
        }
    }
    found
}

/// The platform's fees.
///
/// # Errors
/// [`StoreError`].
pub async fn platform(app: &App) -> Result<SuperConfig, StoreError> {
    app.store.read(operators::super_config).await
}
