//! What somebody waits for: whether documents that a write wanted, or an operator asked for, are with
//! a relay.
//!
//! Promise: "published" is said of what a relay took, and of nothing else.
//!
//! Failure policy: whoever waits too long is told that it waits, with the reason where there is one;
//! it goes on without them.

use std::time::Duration;

use bitspire_shared::time::Unix;
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::fleet::machines::{find, subject};
use crate::fleet::{FleetError, audit};
use crate::ids::{DocumentId, MachineId, OperatorId};
use crate::publish::status::{self, Asked, Publish, State};
use crate::publish::{cassettes, fees, wake};
use crate::store::documents::{self, DocumentKind};
use crate::store::machines::KeptMachine;
use crate::store::{StoreError, Tx, operators, outbox};

/// How long a write waits for its documents before it answers "queued".
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an explicit republish waits: longer than a bunker's answers may take.
const REPUBLISH_PATIENCE: Duration = Duration::from_secs(20);

/// What came of documents, as soon as it is known of all; at the latest after `patience`. Each look
/// goes only as far as the first that is under way: ten thousand of them are not read again for each
/// that ends.
async fn await_all(app: &App, asked: &[Asked], patience: Duration) -> Result<Publish, StoreError> {
    let mut ended = app.attempts.subscribe();
    let end = Instant::now() + patience;
    let mut open = asked;
    loop {
        ended.borrow_and_update();
        let wanted = open.to_vec();
        let known = app.store.read(move |read| {
            let outcomes = wanted.iter().map(|asked| status::outcome(read, *asked).transpose());
            outcomes.map_while(|outcome| outcome).collect::<Result<Vec<_>, StoreError>>()
        });
        let known = known.await?;
        if let Some(failed) = known.iter().find(|outcome| outcome.state == State::Queued) {
            return Ok(failed.clone());
        }
        open = open.get(known.len()..).unwrap_or_default();
        if open.is_empty() {
            return Ok(Publish::published());
        }
        if timeout_at(end, ended.changed()).await.is_err() {
            return Ok(Publish::queued("it is being published; no relay has taken it yet"));
        }
    }
}

/// What came of documents that a write has just wanted.
///
/// # Errors
/// [`StoreError`].
pub async fn outcome(app: &App, documents: &[DocumentId]) -> Result<Publish, StoreError> {
    let asked: Vec<_> = documents
        .iter()
        .map(|document| Asked { document: *document, attempts: 0, or_newer: false })
        .collect();
    await_all(app, &asked, PATIENCE).await
}

/// Publishes a machine's documents once more, now.
///
/// # Errors
/// [`FleetError::Unpublishable`] for a machine or an operator without a key,
/// [`FleetError::NotPublished`] where no relay took them: they stay in the outbox.
pub async fn republish(
    app: &App,
    actor: &str,
    operator: Option<OperatorId>,
    id: MachineId,
) -> Result<status::Documents, FleetError> {
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let asked = app.store.write(move |tx| {
        let machine = find(tx, id, operator)?;
        let missing = |why| Err(FleetError::Unpublishable { machine: id, why });
        if machine.machine_npub.is_none() || machine.revoked_at.is_some() {
            return missing("it is not paired: pair it first");
        }
        if operators::find(tx, machine.operator_id)?.is_none_or(|o| o.pubkey.is_none()) {
            return missing("its operator has no key: make one with `operator init`");
        }
        let mut asked = vec![again(tx, &machine, DocumentKind::Fees, now)?];
        if documents::wanted(tx, id, DocumentKind::Cassettes)?.is_some() {
            asked.push(again(tx, &machine, DocumentKind::Cassettes, now)?);
        }
        audit(tx, now, &actor, "machine.republish", &subject(id), serde_json::Value::Null)?;
        Ok(asked)
    });
    let asked: Result<Vec<Asked>, FleetError> = asked.await;
    let asked = asked?;
    wake(app);
    let came = await_all(app, &asked, REPUBLISH_PATIENCE).await?;
    if came.state == State::Queued {
        return Err(FleetError::NotPublished(came.reason.unwrap_or_default()));
    }
    Ok(app.store.read(move |read| status::of_machine(read, id)).await?)
}

/// Makes the wanted version due now; one that a relay has is wanted anew. An attempt that is under way
/// does not count: it began before.
fn again(
    tx: &Tx<'_>,
    machine: &KeptMachine,
    kind: DocumentKind,
    now: Unix,
) -> Result<Asked, FleetError> {
    let waits = documents::wanted(tx, machine.id, kind)?.filter(|d| d.relay_acked_at.is_none());
    let place = match &waits {
        Some(document) => outbox::of_document(tx, document.id)?,
        None => None,
    };
    let (document, attempts) = match (waits, place) {
        (Some(document), Some(place)) => (document.id, place.attempts),
        _ => match kind {
            DocumentKind::Fees => (fees::want(tx, machine, now)?, 0),
            DocumentKind::Cassettes => (cassettes::want(tx, machine, now)?, 0),
        },
    };
    outbox::hurry(tx, document)?;
    Ok(Asked { document, attempts, or_newer: true })
}
