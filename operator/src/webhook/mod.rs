//! The webhook: another program is told of alerts, settlements and claims.
//!
//! Promise: what is told is durable before anybody is asked to take it ([`crate::store::webhook`]),
//! is told at least once, each with a number that rises, and in order for each machine: the next one
//! is sent when the one before was taken. Each request is signed, see [`crate::outgoing::peer`].
//!
//! States of an event: open -> sent, or given up after [`TRIES`] tries, which is an act in the audit
//! log.
//!
//! Failure policy: any answer but 2xx, none at all and a lost one are the same: tried again after
//! rests that double up to an hour. It may have been taken, so whoever is told drops repeats by their
//! number. A machine's events wait for the first of them; other machines' wait for one answer of it at
//! most. Nothing here delays a sale.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::time::Unix;
use futures_util::future::join_all;
use serde_json::json;
use thiserror::Error;

use crate::app::App;
use crate::outgoing::peer::{Peer, PeerError};
use crate::store::webhook::{self, Event};
use crate::store::{StoreError, Tx, log};

/// Machines told at once.
const AT_ONCE: u32 = 16;
/// Between two looks for something to tell.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest rest between two tries.
const LONGEST_S: u64 = 3_600;
/// Tries of one event: a day and a half of them.
pub const TRIES: u32 = 48;
/// How long what ended is kept.
const KEPT_S: u64 = 30 * 86_400;

/// Why nobody is told.
#[derive(Debug, Error)]
pub enum StartError {
    /// The database.
    #[error("webhook: the database does not take it")]
    Store(#[from] StoreError),
    /// Whoever is to be told is not spoken to.
    #[error("webhook")]
    Peer(#[from] PeerError),
}

/// Seconds until the try after `tries`.
fn rest_s(tries: u32) -> u64 {
    1_u64.checked_shl(tries.saturating_add(1)).unwrap_or(LONGEST_S).min(LONGEST_S)
}

/// Who is told, and how.
struct Teller {
    app: Arc<App>,
    peer: Peer,
    patience: Duration,
}

/// Starts telling, where the configuration names somebody; else nothing is written any more.
///
/// # Errors
/// [`StartError`]: without the secret, or at an address that is not spoken to.
pub async fn start(app: &Arc<App>) -> Result<(), StartError> {
    let since = app.config.webhook.as_ref().map(|_| app.clock.now());
    app.store.write(move |tx| webhook::tell(tx, since)).await?;
    let Some(config) = &app.config.webhook else { return Ok(()) };
    let peer = Peer::open(config, &app.config.outgoing_allowed)?;
    let teller = Teller { app: Arc::clone(app), peer, patience: PATIENCE };
    let stop = app.stop.clone();
    app.tasks.spawn(async move {
        while !stop.is_cancelled() {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                told = teller.look() => told,
            };
            match told {
                // the next of the same machine may follow at once
                Ok(told) if told > 0 => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(event = "webhook_round_failed", error = ?error),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
    Ok(())
}

impl Teller {
    /// Tells each machine's first event that is due; how many were taken.
    async fn look(&self) -> Result<usize, StoreError> {
        let now = self.app.clock.now();
        let due = self.app.store.read(move |read| webhook::due(read, now, AT_ONCE)).await?;
        let told = join_all(due.into_iter().map(|event| self.tell(event))).await;
        let taken = told.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(taken.into_iter().filter(|taken| *taken).count())
    }

    /// Tells one event; whether it was taken.
    async fn tell(&self, event: Event) -> Result<bool, StoreError> {
        let body = json!({
            "id": event.id, "machine_id": event.machine_id, "kind": event.kind,
            "event": event.event.0,
        });
        let at = self.app.clock.now();
        let refused = match self.peer.send(&body, at, self.patience).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(answer.words()),
            Err(error) => Some(error.to_string()),
        };
        let (now, id) = (self.app.clock.now(), event.id);
        match refused {
            None => {
                let write = move |tx: &Tx<'_>| {
                    webhook::sent(tx, id, now)?;
                    webhook::forget(tx, Unix(now.0.saturating_sub(KEPT_S)))
                };
                self.app.store.write(write).await?;
                Ok(true)
            }
            Some(words) => {
                tracing::info!(event = "webhook_not_taken", id = %id, reason = words);
                self.app.store.write(move |tx| rest(tx, &event, &words, now)).await?;
                Ok(false)
            }
        }
    }
}

/// What was not taken rests, or is given up.
fn rest(tx: &Tx<'_>, event: &Event, words: &str, now: Unix) -> Result<(), StoreError> {
    if event.tries.saturating_add(1) < TRIES {
        return webhook::failed(tx, event.id, words, now.after(rest_s(event.tries)));
    }
    webhook::give_up(tx, event.id, words, now)?;
    let detail = json!({ "event": event.id, "kind": event.kind, "reason": words });
    log::by_service(tx, "webhook.given_up", &format!("webhook:{}", event.id), detail, now)?;
    tracing::error!(event = "webhook_given_up", id = %event.id);
    Ok(())
}
