//! What is to be done later, or again: learning who redeemed a seed, revoking old keys that could not
//! be revoked at once, opening keys that a bunker's restart has locked, renewing pairings.
//!
//! Promise: a client key is taken over only where it is the only one that redeemed; it is what the
//! relay then knows the machine by, and part of the digits that people compare.
//!
//! Failure policy: the bunker is asked again, every few seconds while somebody is likely to stand at
//! the machine, and less often later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use super::pair;
use super::renew::{Warned, look_after};
use super::unlock::unlock;
use crate::app::{App, Ring};
use crate::http::error::in_words;
use crate::signer::BunkerAdmin;
use crate::store::StoreError;
use crate::store::machines::{self, KeptMachine};
use crate::store::pairing::{self, PairingStep};

/// Between two looks while a seed is likely to be redeemed.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks otherwise.
const LATER: Duration = Duration::from_secs(30);
/// For how long after a pairing a seed is likely to be redeemed, in seconds.
const LIKELY_S: u64 = 3_600;

/// Starts the worker; it ends with the daemon.
pub fn start(app: &Arc<App>) {
    let app = app.clone();
    let mut bell = app.listen();
    app.tasks.clone().spawn(async move {
        let mut warned = Warned::new();
        loop {
            if let Err(error) = look_after(&app, &mut warned).await {
                tracing::error!(event = "upkeep_failed", %error);
            }
            let pause = round(&app).await.unwrap_or_else(|error| {
                tracing::error!(event = "upkeep_failed", %error);
                LATER
            });
            let rest = tokio::time::sleep(pause);
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    () = app.stop.cancelled() => return,
                    () = &mut rest => break,
                    rung = bell.recv() => match rung {
                        Ok(Ring::Roster) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => return,
                    },
                }
            }
        }
    });
}

/// Looks once after everything; how long to rest then.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn round(app: &App) -> Result<Duration, StoreError> {
    let Some(bunker) = app.bunker.get() else { return Ok(LATER) };
    unlock(app, bunker.admin()).await?;
    finish_old(app, bunker.admin()).await?;
    let now = app.clock.now();
    let waiting = app.store.read(move |read| machines::unredeemed(read, now)).await?;
    let mut pause = LATER;
    for machine in waiting {
        let fresh = machine.paired_at.is_some_and(|at| now.since(at) < LIKELY_S);
        if !learn(app, bunker.admin(), &machine).await? && fresh {
            pause = SOON;
        }
    }
    Ok(pause)
}

/// Whether the machine's client key is known now.
async fn learn(
    app: &App,
    admin: &dyn BunkerAdmin,
    machine: &KeptMachine,
) -> Result<bool, StoreError> {
    let Some(name) = machine.bunker_spire_key_name.clone() else { return Ok(false) };
    let mut users = match admin.users(name).await {
        Ok(users) => users,
        Err(error) => {
            tracing::info!(event = "bunker_users_unread", machine = %machine.id,
                error = %in_words(&error));
            return Ok(false);
        }
    };
    users.retain(|user| user.revoked_at.is_none());
    let user = match users.as_slice() {
        [] => return Ok(false),
        [user] => user.clone(),
        more => {
            // a token is worth one client: nobody can tell here which one is the machine
            tracing::error!(event = "seed_redeemed_twice", machine = %machine.id,
                clients = more.len());
            return Ok(false);
        }
    };
    let (id, spire) = (machine.id, machine.machine_npub);
    let learnt = app.store.write(move |tx| {
        // paired anew in the meantime: this was somebody else
        if machines::find(tx, id)?.is_none_or(|machine| machine.machine_npub != spire) {
            return Ok(false);
        }
        machines::set_client(tx, id, user.key, Some(&user.id)).map(|()| true)
    });
    match learnt.await {
        Ok(true) => {
            tracing::info!(event = "seed_redeemed", machine = %id);
            app.roster.refresh(app).await?;
            app.ring(Ring::Roster);
            Ok(true)
        }
        Ok(false) => Ok(false),
        Err(error) if error.is_unique_on("client_key") => {
            tracing::error!(event = "client_key_of_two_machines", machine = %id);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Pairings in force whose old keys are still to be revoked.
async fn finish_old(app: &App, admin: &dyn BunkerAdmin) -> Result<(), StoreError> {
    // somebody who pairs right now does it
    let Ok(_turn) = app.pairing.try_lock() else { return Ok(()) };
    let open = app.store.read::<_, StoreError, _>(pairing::open).await?;
    for attempt in open.iter().filter(|open| open.step == PairingStep::Switched) {
        let steps = pair::finish(app, admin, attempt.id, &attempt.row).await?;
        for step in steps.iter().filter(|step| !step.ok) {
            tracing::warn!(event = "old_key_not_revoked", machine = %attempt.machine_id,
                step = step.step, detail = step.detail);
        }
    }
    Ok(())
}
