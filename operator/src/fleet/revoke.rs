//! Revoking: a machine that may do nothing any more, at once, and keys that sign no more.
//!
//! Promise: from the commit of [`revoke`] on nothing is signed for the machine here, whatever the
//! bunker says; its sessions are closed and its connection to the embedded relay too. Then each
//! client and each open token of its keys is revoked in the bunker.
//!
//! Failure policy: each thing that was tried is a [`Step`] with its answer; what failed can be tried
//! again with the same call.

use std::sync::Arc;

use bitspire_shared::time::Unix;
use serde_json::json;

use super::machines::{find, subject};
use super::{FleetError, Step, audit};
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::ids::{MachineId, OperatorId};
use crate::settle::hold_open_sales;
use crate::signer::BunkerAdmin;
use crate::store::machines::{self as rows, Confirmation};
use crate::store::pairing::{self, PairingStep};
use crate::store::{Read, StoreError};

/// Above the number of every attempt.
const ALL: u64 = i64::MAX as u64;

/// Revokes a machine; what the bunker has to do goes on though nobody waits any more.
///
/// # Errors
/// [`FleetError`]: nothing was revoked.
pub async fn revoke(
    app: &Arc<App>,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
) -> Result<Vec<Step>, FleetError> {
    let now = app.clock.now();
    let actor = actor.to_owned();
    let written = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        // a pairing under way must not take it back into service
        let mut given_up = Vec::new();
        for open in pairing::open(tx)?.iter().filter(|open| open.machine_id == id) {
            pairing::fail(tx, open.id, "the machine was revoked", now)?;
            given_up.extend(open.spire_key);
        }
        if machine.paired_at.is_none() {
            return Err(FleetError::State {
                machine: id,
                state: machine.confirmation.to_string(),
                needs: "there is nothing to revoke",
            });
        }
        let first = machine.revoked_at.is_none();
        if first {
            rows::revoke(tx, id, now)?;
            let held = hold_open_sales(tx, id, now)?;
            let detail = json!({
                "machine_npub": machine.machine_npub, "held_sales": held,
                "confirmation": Confirmation::Revoked,
                "before": { "confirmation": machine.confirmation },
            });
            audit(tx, now, &actor, "machine.revoke", &subject(id), detail)?;
        }
        Ok((first, machine.machine_npub, machine.client_key, given_up))
    });
    let (first, spire, client, given_up) = written.await?;
    let mut steps = vec![match first {
        true => Step::done("stop", "nothing is signed for the machine any more"),
        false => Step::done("stop", "was revoked before"),
    }];
    app.ring(Ring::Roster);
    let of = app.clone();
    let work = async move {
        match of.bunker.get() {
            None => vec![Step::failed("bunker", "no bunker is configured")],
            Some(bunker) => match revoke_earlier(&of, bunker.admin(), id, ALL).await {
                Ok(steps) => steps,
                Err(error) => vec![Step::failed("bunker", error.to_string())],
            },
        }
    };
    // whoever asked may be gone before it is done
    let there = app.tasks.spawn(work);
    if let Some(spire) = spire {
        app.roster.forget(spire, client, &given_up).await;
    }
    if let (Some(relay), Some(client)) = (app.relay.get(), client) {
        let closed = relay.close_client(&client);
        steps.push(Step::done("disconnect", format!("{closed} connections closed")));
    }
    let there = there.await;
    steps.extend(there.unwrap_or_else(|_| vec![Step::failed("bunker", "was cut off")]));
    Ok(steps)
}

/// Revokes the keys of a machine's attempts before `number`, back to the last one that had done so
/// itself.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn revoke_earlier(
    app: &App,
    admin: &dyn BunkerAdmin,
    machine: MachineId,
    number: u64,
) -> Result<Vec<Step>, StoreError> {
    let names = move |read: &Read<'_>| {
        let mut names = Vec::new();
        for attempt in pairing::earlier(read, machine, number)? {
            names.push(attempt.key_name.clone());
            if attempt.step == PairingStep::OldRevoked {
                break;
            }
        }
        Ok::<_, StoreError>(names)
    };
    let names = app.store.read(names).await?;
    let mut steps = Vec::new();
    for name in names {
        match admin.key(name.clone()).await {
            // an attempt that failed early has left no key
            Ok(None) => {}
            Ok(Some(_)) => revoke_key(admin, &name, app.clock.now(), &mut steps).await,
            Err(error) => {
                steps.push(Step::failed("old_keys", format!("{name}: {}", in_words(&error))));
                // a bunker that is away is not asked for each key
                break;
            }
        }
    }
    Ok(steps)
}

/// Revokes every client and every unused token of a key.
pub(crate) async fn revoke_key(
    admin: &dyn BunkerAdmin,
    name: &str,
    now: Unix,
    steps: &mut Vec<Step>,
) {
    match admin.users(name.to_owned()).await {
        Err(error) => {
            steps.push(Step::failed("revoke_user", format!("{name}: {}", in_words(&error))))
        }
        Ok(users) => {
            for user in users.into_iter().filter(|user| user.revoked_at.is_none()) {
                let what = format!("{} of {name}", user.key.npub());
                steps.push(match admin.revoke_user(user.id).await {
                    Ok(()) => Step::done("revoke_user", what),
                    Err(error) => {
                        Step::failed("revoke_user", format!("{what}: {}", in_words(&error)))
                    }
                });
            }
        }
    }
    match admin.tokens(name.to_owned()).await {
        Err(error) => {
            steps.push(Step::failed("revoke_token", format!("{name}: {}", in_words(&error))));
        }
        Ok(tokens) => {
            let open = tokens.into_iter().filter(|token| {
                token.redeemed_at.is_none() && token.expires_at.is_none_or(|ends| ends > now)
            });
            for token in open {
                let what = format!("token {} of {name}", token.id);
                steps.push(match admin.revoke_token(token.id).await {
                    Ok(()) => Step::done("revoke_token", what),
                    Err(error) => {
                        Step::failed("revoke_token", format!("{what}: {}", in_words(&error)))
                    }
                });
            }
        }
    }
}
