//! How far a document has come: wanted, signed, taken by a relay, applied by the machine.
//!
//! Promise: what is shown is what the database knows; "on the machine" is said only where the
//! machine itself said so of the version that is wanted now.

use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::time::Unix;
use nostr::{Event, JsonUtil as _};
use serde::Serialize;
use serde_json::Value;

use crate::ids::{DocumentId, MachineId};
use crate::store::documents::{self, DocumentKind, KeptDocument};
use crate::store::{Read, StoreError, cassettes, outbox};

/// The furthest that the wanted version has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Light {
    /// Wanted, not signed yet.
    Wanted,
    /// Signed; no relay has said that it took it.
    Published,
    /// With a relay; the machine has not said that it applies.
    RelayAcked,
    /// The machine applies it.
    Applied,
}

/// Where one document stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// How far the wanted version has come.
    pub light: Light,
    /// Whether the machine applies what is wanted.
    pub on_machine: bool,
    /// What is wanted.
    pub body: Value,
    /// Since when.
    pub wanted_at: Unix,
    /// The event, once it is signed.
    pub event_id: Option<EventId>,
    /// When it was signed.
    pub published_at: Option<Unix>,
    /// When the first relay took it.
    pub relay_acked_at: Option<Unix>,
    /// When the machine said that it applies.
    pub applied_at: Option<Unix>,
    /// Failed attempts to publish it, while it waits.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: Option<String>,
    /// Whose key signed it.
    pub signed_by: Option<PubKey>,
    /// The event of the version that the machine applies, the wanted one or an older one.
    pub in_force: Option<EventId>,
    /// Whose key signed that.
    pub in_force_signed_by: Option<PubKey>,
}

/// Where a machine's documents stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Documents {
    /// The fees.
    pub fees: Option<Standing>,
    /// The cassettes.
    pub cassettes: Option<Standing>,
    /// Refills and counts that the machine has not acknowledged.
    pub open_changes: usize,
}

fn light(document: &KeptDocument) -> Light {
    match (document.applied_at, document.relay_acked_at, document.event_id) {
        (Some(_), _, _) => Light::Applied,
        (None, Some(_), _) => Light::RelayAcked,
        (None, None, Some(_)) => Light::Published,
        (None, None, None) => Light::Wanted,
    }
}

/// The key that signed a version: what the machine's values rest on.
fn signer(document: &KeptDocument) -> Option<PubKey> {
    let event = Event::from_json(document.event.as_deref()?).ok()?;
    PubKey::new(event.pubkey).ok()
}

fn standing(
    read: &Read<'_>,
    machine: MachineId,
    kind: DocumentKind,
) -> Result<Option<Standing>, StoreError> {
    let Some(document) = documents::wanted(read, machine, kind)? else { return Ok(None) };
    let waiting = outbox::of_document(read, document.id)?.filter(|row| row.done_at.is_none());
    let in_force = documents::last_applied(read, machine, kind)?;
    Ok(Some(Standing {
        light: light(&document),
        on_machine: document.applied_at.is_some(),
        wanted_at: document.wanted_at,
        event_id: document.event_id,
        published_at: document.signed_at,
        relay_acked_at: document.relay_acked_at,
        applied_at: document.applied_at,
        attempts: waiting.as_ref().map_or(0, |row| row.attempts),
        reason: waiting.and_then(|row| row.row.last_error),
        signed_by: signer(&document),
        in_force: in_force.as_ref().and_then(|document| document.event_id),
        in_force_signed_by: in_force.as_ref().and_then(signer),
        body: document.row.body.0,
    }))
}

/// Where a machine's documents stand.
///
/// # Errors
/// [`StoreError`].
pub fn of_machine(read: &Read<'_>, machine: MachineId) -> Result<Documents, StoreError> {
    Ok(Documents {
        fees: standing(read, machine, DocumentKind::Fees)?,
        cassettes: standing(read, machine, DocumentKind::Cassettes)?,
        open_changes: cassettes::open_changes(read, machine)?.len(),
    })
}

/// Whether what was written is with a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits in the outbox.
    Queued,
    /// A relay took it.
    Published,
}

/// What a write answers about its documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Publish {
    /// The least of them.
    pub state: State,
    /// Why it waits.
    pub reason: Option<String>,
}

impl Publish {
    pub(super) fn published() -> Self {
        Self { state: State::Published, reason: None }
    }

    pub(super) fn queued(reason: impl Into<String>) -> Self {
        Self { state: State::Queued, reason: Some(reason.into()) }
    }
}

/// A document that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) document: DocumentId,
    /// How often it had been tried by then.
    pub(super) attempts: u32,
    /// Whether a newer version in its place will do.
    pub(super) or_newer: bool,
}

/// What came of one document; `None` while its attempt is under way.
pub(super) fn outcome(read: &Read<'_>, asked: Asked) -> Result<Option<Publish>, StoreError> {
    let Some(document) = documents::find(read, asked.document)? else {
        return Ok(Some(Publish::queued("it is not there any more")));
    };
    if document.relay_acked_at.is_some() {
        return Ok(Some(Publish::published()));
    }
    if document.superseded_at.is_some() {
        if asked.or_newer
            && let Some(newer) = documents::wanted(read, document.machine_id, document.kind)?
        {
            return outcome(read, Asked { document: newer.id, attempts: 0, ..asked });
        }
        return Ok(Some(Publish::queued("a newer version is wanted")));
    }
    let waiting = outbox::of_document(read, asked.document)?;
    let failed = waiting.filter(|row| row.attempts > asked.attempts);
    Ok(failed.map(|row| Publish::queued(row.row.last_error.unwrap_or_default())))
}
