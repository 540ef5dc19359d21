//! Publishing: what an operator wants its machines to know, as signed and encrypted documents
//! (NIP-78, kind 30078), and what machines say about their cassettes.
//!
//! Promise: a wish and its place in the outbox are one write. A version is signed once, kept, and
//! sent until a relay has taken it, also over a restart; then the machine is told to look. A version
//! that a newer one supersedes is not sent any more.
//!
//! A machine that reports another version than the wanted one, long after a relay took that, is sent
//! it once more: relays forget.
//!
//! States of a version: wanted -> signed -> taken by a relay -> applied by the machine, see
//! [`documents`](crate::store::documents).
//!
//! Failure policy: a publish that fails never fails the write; the reason stands in the outbox and
//! on the page, and it is tried again with backoff, for as long as it takes.

pub mod cassettes;
pub mod fees;
mod lies;
pub mod rollout;
mod states;
pub mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_shared::admit::{EventHead, Frame, MAX_FRAME};
use bitspire_shared::document::DOCUMENT_KIND;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{FrameFilter, Pool, PoolError};
use thiserror::Error;

use crate::app::{App, Ring};
use crate::fleet::FleetError;
use crate::ids::MachineId;
use crate::store::{Tx, machines};

pub use worker::{AT_BUNKERS, heard, outcome, republish};

/// Why nothing is published.
#[derive(Debug, Error)]
pub enum StartError {
    /// A relay's address is none.
    #[error("the relays cannot be used")]
    Relay(#[from] PoolError),
}

impl Classified for StartError {
    fn kind(&self) -> Kind {
        match self {
            Self::Relay(error) => error.kind(),
        }
    }
}

/// The keys, as hex, whose events are looked at.
type Authors = Arc<Mutex<HashSet<String>>>;

/// Lets through what the machines of the roster publish as documents.
fn frames(authors: Authors) -> FrameFilter {
    Arc::new(move |text: &str| {
        text.len() <= MAX_FRAME
            && match Frame::parse(text) {
                Ok(Frame::Event(EventHead { pubkey, kind, .. })) => {
                    kind == DOCUMENT_KIND
                        && authors.lock().unwrap_or_else(PoisonError::into_inner).contains(pubkey)
                }
                Ok(Frame::Other) => true,
                Err(_) => false,
            }
    })
}

/// Publishes what waits and reads what machines say, until the daemon stops.
///
/// # Errors
/// [`StartError`], before anything has started.
pub async fn start(app: &Arc<App>) -> Result<(), StartError> {
    let authors = Authors::default();
    let bells = (app.listen(), app.listen());
    let keys = app.service.clone();
    let pool = Pool::connect(keys, &app.config.relays, frames(authors.clone())).await?;
    let pool = Arc::new(pool);
    app.show_pool("documents", pool.clone());
    app.tasks.spawn(rollout::run(app.clone(), app.listen()));
    app.tasks.spawn(worker::Publisher::new(app.clone(), pool.clone()).run(bells.0));
    states::start(app, pool, authors, bells.1);
    Ok(())
}

/// What a machine must be told as soon as its key is known: at its making, and in the transaction of
/// each pairing. [`Ring::Outbox`] after the commit sends it at once.
///
/// # Errors
/// [`FleetError`]: fees above the cap, the database.
pub fn key_known(tx: &Tx<'_>, id: MachineId, now: Unix) -> Result<(), FleetError> {
    let machine = machines::find(tx, id)?.ok_or(FleetError::NoMachine(id))?;
    fees::want(tx, &machine, now)?;
    // bays that were declared, and changes that an earlier pairing did not take
    if !crate::store::cassettes::open_changes(tx, id)?.is_empty() {
        cassettes::want(tx, &machine, now)?;
    }
    Ok(())
}

/// The time to put into the next version: never before the last one's, whatever the clock does.
fn published_at(last: Option<Unix>, now: Unix) -> Unix {
    last.map_or(now, |last| last.max(now))
}

/// Wakes the worker.
fn wake(app: &App) {
    app.ring(Ring::Outbox);
}
