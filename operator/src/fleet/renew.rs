//! Renewing a pairing before it ends, with nobody at the machine.
//!
//! Promise: a machine asks by being there: one that is in service and whose vault has reported within
//! a day is given more time, if the operator's policy (`pairing.renew`) says so; otherwise somebody
//! says it ([`renew`]). The bunker's grant of the machine's own client, and of no other, is extended
//! first, then the row by which this service serves it. What was revoked is never renewed, and time is
//! never taken away.
//!
//! Failure policy: [`FleetError`]; where the bunker did not do its part the end is as it was, and is
//! tried again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::time::Unix;
use serde_json::json;

use super::machines::{find, subject};
use super::{FleetError, audit, bunker};
use crate::app::{App, Ring};
use crate::config::{Pairing, Renewal};
use crate::http::error::in_words;
use crate::ids::{MachineId, OperatorId};
use crate::store::StoreError;
use crate::store::machines::{self as rows, Confirmation, KeptMachine, Machine};

/// The longest that a pairing may be renewed for, in hours: ten years.
const MAX_HOURS: u32 = 87_600;
const HOUR_S: u64 = 3_600;
/// How old the last report of a machine that asks may be, in seconds.
const ALIVE_S: u64 = 86_400;
const DAY_S: u64 = 86_400;

/// Whether a pairing has an end that matters.
fn runs(machine: &Machine) -> Option<Unix> {
    let ends = machine.bunker_token_expires_at?;
    (machine.confirmation == Confirmation::Confirmed && machine.revoked_at.is_none())
        .then_some(ends)
}

/// What is to be said about the end of a pairing, while it is near or over.
#[must_use]
pub fn warning(machine: &Machine, pairing: &Pairing, now: Unix) -> Option<String> {
    let ends = runs(machine)?;
    if now >= ends {
        return Some("its pairing has ended: no sale starts; `renew` it, or pair it anew".into());
    }
    let left = ends.since(now);
    if left > u64::from(pairing.warn_before_hours).saturating_mul(HOUR_S) {
        return None;
    }
    let left = match left {
        more if more >= 2 * DAY_S => format!("{} days", more / DAY_S),
        less => format!("{} hours", less / HOUR_S),
    };
    Some(match pairing.renew {
        Renewal::Auto => format!(
            "its pairing ends in {left}: it is renewed as soon as the machine reports and the bunker \
             answers"
        ),
        Renewal::Ask => format!("its pairing ends in {left}: `renew` it before"),
    })
}

/// Whether a machine asks for more time, and the policy gives it.
fn is_due(machine: &Machine, pairing: &Pairing, now: Unix) -> bool {
    let before = u64::from(pairing.renew_before_hours).saturating_mul(HOUR_S);
    let near = runs(machine).is_some_and(|ends| now < ends && ends.since(now) <= before);
    let alive = machine.last_seen_at.is_some_and(|at| now.since(at) <= ALIVE_S);
    pairing.renew == Renewal::Auto && machine.disabled_at.is_none() && near && alive
}

/// Gives a machine's pairing `hours` from now on; the configured time where none are named.
///
/// # Errors
/// [`FleetError`]: the end is as it was.
pub async fn renew(
    app: &Arc<App>,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
    hours: Option<u32>,
) -> Result<KeptMachine, FleetError> {
    let hours = hours.unwrap_or(app.config.pairing.renew_hours);
    if !(1..=MAX_HOURS).contains(&hours) {
        let (field, expected) = ("hours", format!("1 to {MAX_HOURS}"));
        return Err(FleetError::Invalid { field, expected, got: hours.to_string() });
    }
    // a pairing or its end must not come in between
    let _turn = app.pairing.lock().await;
    let machine = app.store.read(move |read| find(read, id, operator)).await?;
    let state = |needs| {
        let state = machine.confirmation.to_string();
        FleetError::State { machine: id, state, needs }
    };
    let (Some(_), Some(spire), Some(client), Some(key_name)) = (
        runs(&machine),
        machine.machine_npub,
        machine.client_key,
        machine.bunker_spire_key_name.clone(),
    ) else {
        return Err(state("only a pairing that is in service can be renewed: pair it"));
    };
    let until = app.clock.now().after(u64::from(hours).saturating_mul(HOUR_S));
    let admin = bunker(app)?.admin();
    let failed = |step| move |source| FleetError::Bunker { step, source };
    let users = admin.users(key_name).await.map_err(failed("get_key_users"))?;
    let user = users.into_iter().find(|user| user.key == client && user.revoked_at.is_none());
    let user = user.ok_or_else(|| state("the bunker has cut its client off: pair it anew"))?;
    admin.extend_user(user.id, until).await.map_err(failed("extend_user"))?;
    let (actor, now) = (actor.to_owned(), app.clock.now());
    let renewed = app.store.write(move |tx| {
        let was = find(tx, id, operator)?.bunker_token_expires_at;
        rows::extend_token(tx, id, spire, until)?;
        let machine = find(tx, id, operator)?;
        let detail = json!({
            "token_expires_at": machine.bunker_token_expires_at,
            "before": { "token_expires_at": was },
        });
        audit(tx, now, &actor, "machine.renew", &subject(id), detail)?;
        Ok::<_, FleetError>(machine)
    });
    let renewed = renewed.await?;
    app.ring(Ring::Roster);
    Ok(renewed)
}

/// Which machines were warned about, on which day.
pub(super) type Warned = BTreeMap<MachineId, u64>;

/// Renews what is due, and says what is about to end, once a day.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn look_after(app: &Arc<App>, warned: &mut Warned) -> Result<(), StoreError> {
    let now = app.clock.now();
    let pairing = &app.config.pairing;
    // of those that are further from their end there is nothing to be done or said
    let hours = pairing.warn_before_hours.max(pairing.renew_before_hours);
    let until = now.after(u64::from(hours).saturating_mul(HOUR_S));
    let machines = app.store.read(move |read| rows::ending(read, until)).await?;
    let mut bunker_answers = true;
    for machine in &machines {
        if bunker_answers && is_due(machine, pairing, now) {
            match renew(app, "service", None, machine.id, None).await {
                Ok(_) => {
                    tracing::info!(event = "pairing_renewed", machine = %machine.id);
                    continue;
                }
                Err(error) => {
                    // one that is away is not waited for a thousand times
                    bunker_answers = error.kind() == Kind::Permanent;
                    tracing::warn!(
                        event = "pairing_not_renewed", machine = %machine.id,
                        error = %in_words(&error)
                    );
                }
            }
        }
        let Some(words) = warning(machine, pairing, now) else { continue };
        let today = now.0 / DAY_S;
        if warned.insert(machine.id, today) != Some(today) {
            tracing::warn!(event = "pairing_ends", machine = %machine.id, "{words}");
        }
    }
    Ok(())
}
