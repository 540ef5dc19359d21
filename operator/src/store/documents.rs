//! Configuration documents of machines, each version a row.
//!
//! States, each with its time: wanted -> signed -> taken by a relay -> applied by the machine;
//! superseded as soon as a newer version is wanted, from which on it need not be sent any more.

use bitspire_shared::ids::EventId;
use bitspire_shared::money::{Direction, FeePpm};
use bitspire_shared::split::{FeePair, SplitError};
use bitspire_shared::time::Unix;
use serde_json::Value;

use super::column::{Json, text_enum};
use super::row::{Kept, record};
use super::{Read, StoreError, Tx, outbox};
use crate::ids::{DocumentId, MachineId};

text_enum! {
    /// Which document.
    pub enum DocumentKind {
        /// The fees.
        Fees = "fees",
        /// What lies in the bays.
        Cassettes = "cassettes",
    }
}

/// What a fee document sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fees {
    /// The platform's fee on cash_in.
    pub cash_in_platform: FeePpm,
    /// The operator's fee on cash_in.
    pub cash_in_operator: FeePpm,
    /// The platform's fee on cash_out.
    pub cash_out_platform: FeePpm,
    /// The operator's fee on cash_out.
    pub cash_out_operator: FeePpm,
}

impl Fees {
    /// Those of one direction.
    ///
    /// # Errors
    /// [`SplitError::OverCap`]: never for a stored document, the schema holds the cap.
    pub fn of(self, direction: Direction) -> Result<FeePair, SplitError> {
        match direction {
            Direction::CashIn => FeePair::new(self.cash_in_platform, self.cash_in_operator),
            Direction::CashOut => FeePair::new(self.cash_out_platform, self.cash_out_operator),
        }
    }
}

record! {
    /// A version of a document.
    pub struct Document in "documents", id: DocumentId {
        /// For which machine.
        pub machine_id: MachineId,
        /// Which document.
        pub kind: DocumentKind,
        /// Its plaintext.
        pub body: Json<Value>,
        /// The `published_at` in it.
        pub published_at: Unix,
        /// Fees only: the platform's on cash_in.
        pub cash_in_platform_ppm: Option<FeePpm>,
        /// Fees only: the operator's on cash_in.
        pub cash_in_operator_ppm: Option<FeePpm>,
        /// Fees only: the platform's on cash_out.
        pub cash_out_platform_ppm: Option<FeePpm>,
        /// Fees only: the operator's on cash_out.
        pub cash_out_operator_ppm: Option<FeePpm>,
        /// When it was wanted.
        pub wanted_at: Unix,
        /// The signed event as JSON.
        pub event: Option<String>,
        /// Its id.
        pub event_id: Option<EventId>,
        /// Its `created_at`.
        pub created_at: Option<Unix>,
        /// When it was signed.
        pub signed_at: Option<Unix>,
        /// When the first relay took it.
        pub relay_acked_at: Option<Unix>,
        /// When the machine said that it applies.
        pub applied_at: Option<Unix>,
        /// Since when a newer one is wanted.
        pub superseded_at: Option<Unix>,
    }
}

/// A document with its id.
pub type KeptDocument = Kept<DocumentId, Document>;

impl Document {
    /// What it sets, for a fee document.
    #[must_use]
    pub fn fees(&self) -> Option<Fees> {
        Some(Fees {
            cash_in_platform: self.cash_in_platform_ppm?,
            cash_in_operator: self.cash_in_operator_ppm?,
            cash_out_platform: self.cash_out_platform_ppm?,
            cash_out_operator: self.cash_out_operator_ppm?,
        })
    }
}

/// A version that an operator wants; `fees` for [`DocumentKind::Fees`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDocument {
    /// For which machine.
    pub machine_id: MachineId,
    /// Which document.
    pub kind: DocumentKind,
    /// Its plaintext.
    pub body: Value,
    /// The `published_at` in it.
    pub published_at: Unix,
    /// What a fee document sets.
    pub fees: Option<Fees>,
}

/// Writes a wanted version with its place in the outbox; the one before is superseded and leaves
/// the outbox.
///
/// # Errors
/// [`StoreError`]; a check for fees above the cap, or a fee document without them.
pub fn want(tx: &Tx<'_>, new: &NewDocument, now: Unix) -> Result<DocumentId, StoreError> {
    tx.run(
        "UPDATE outbox SET done_at = ?3 WHERE done_at IS NULL AND document_id IN (
            SELECT id FROM documents WHERE machine_id = ?1 AND kind = ?2
                AND superseded_at IS NULL)",
        &[&new.machine_id, &new.kind, &now],
    )?;
    tx.run(
        "UPDATE documents SET superseded_at = ?3
         WHERE machine_id = ?1 AND kind = ?2 AND superseded_at IS NULL",
        &[&new.machine_id, &new.kind, &now],
    )?;
    let id = Document {
        machine_id: new.machine_id,
        kind: new.kind,
        body: Json(new.body.clone()),
        published_at: new.published_at,
        cash_in_platform_ppm: new.fees.map(|fees| fees.cash_in_platform),
        cash_in_operator_ppm: new.fees.map(|fees| fees.cash_in_operator),
        cash_out_platform_ppm: new.fees.map(|fees| fees.cash_out_platform),
        cash_out_operator_ppm: new.fees.map(|fees| fees.cash_out_operator),
        wanted_at: now,
        event: None,
        event_id: None,
        created_at: None,
        signed_at: None,
        relay_acked_at: None,
        applied_at: None,
        superseded_at: None,
    }
    .insert_into(tx)?;
    outbox::document(tx, new.machine_id, id, now)?;
    Ok(id)
}

/// The document with this id.
///
/// # Errors
/// [`StoreError`].
pub fn find(read: &Read<'_>, id: DocumentId) -> Result<Option<KeptDocument>, StoreError> {
    read.one("SELECT * FROM documents WHERE id = ?1", &[&id], Document::kept)
}

/// The document of this event.
///
/// # Errors
/// [`StoreError`].
pub fn by_event(read: &Read<'_>, event: EventId) -> Result<Option<KeptDocument>, StoreError> {
    read.one("SELECT * FROM documents WHERE event_id = ?1", &[&event], Document::kept)
}

/// What the fee document with this event sets.
///
/// # Errors
/// [`StoreError`].
pub fn fees_of(read: &Read<'_>, event: EventId) -> Result<Option<Fees>, StoreError> {
    let sql = "SELECT cash_in_platform_ppm, cash_in_operator_ppm, cash_out_platform_ppm,
                   cash_out_operator_ppm FROM documents WHERE event_id = ?1 AND kind = 'fees'";
    read.one(sql, &[&event], |row| {
        Ok(Fees {
            cash_in_platform: row.get("cash_in_platform_ppm")?,
            cash_in_operator: row.get("cash_in_operator_ppm")?,
            cash_out_platform: row.get("cash_out_platform_ppm")?,
            cash_out_operator: row.get("cash_out_operator_ppm")?,
        })
    })
}

/// The version that is wanted now.
///
/// # Errors
/// [`StoreError`].
pub fn wanted(
    read: &Read<'_>,
    machine: MachineId,
    kind: DocumentKind,
) -> Result<Option<KeptDocument>, StoreError> {
    let sql = "SELECT * FROM documents WHERE machine_id = ?1 AND kind = ?2
               AND superseded_at IS NULL";
    read.one(sql, &[&machine, &kind], Document::kept)
}

/// The versions that are wanted now of all a machine's documents, where they are signed: of each what
/// is asked at each heartbeat.
///
/// # Errors
/// [`StoreError`].
pub fn wanted_signed(
    read: &Read<'_>,
    machine: MachineId,
) -> Result<Vec<(DocumentId, EventId)>, StoreError> {
    // the other index has all that were ever signed
    let sql = "SELECT id, event_id FROM documents INDEXED BY documents_wanted
               WHERE machine_id = ?1 AND superseded_at IS NULL AND event_id IS NOT NULL";
    read.all(sql, &[&machine], |row| Ok((row.get("id")?, row.get("event_id")?)))
}

/// The version that was signed last.
///
/// # Errors
/// [`StoreError`].
pub fn last_signed(
    read: &Read<'_>,
    machine: MachineId,
    kind: DocumentKind,
) -> Result<Option<KeptDocument>, StoreError> {
    let sql = "SELECT * FROM documents WHERE machine_id = ?1 AND kind = ?2
               AND event_id IS NOT NULL ORDER BY created_at DESC, id DESC LIMIT 1";
    read.one(sql, &[&machine, &kind], Document::kept)
}

/// `created_at` of the version that was signed last: that of the next one is later.
///
/// # Errors
/// [`StoreError`].
pub fn last_created_at(
    read: &Read<'_>,
    machine: MachineId,
    kind: DocumentKind,
) -> Result<Option<Unix>, StoreError> {
    let sql = "SELECT max(created_at) AS at FROM documents
               WHERE machine_id = ?1 AND kind = ?2 AND event_id IS NOT NULL";
    Ok(read.one(sql, &[&machine, &kind], |row| row.get("at"))?.flatten())
}

/// The version that the machine said it applies, the newest of them; of an earlier pairing none
/// counts, since a machine that is paired anew begins without documents.
///
/// # Errors
/// [`StoreError`].
pub fn last_applied(
    read: &Read<'_>,
    machine: MachineId,
    kind: DocumentKind,
) -> Result<Option<KeptDocument>, StoreError> {
    let sql = "SELECT * FROM documents WHERE machine_id = ?1 AND kind = ?2
               AND event_id IS NOT NULL AND applied_at IS NOT NULL
               AND signed_at >= coalesce((SELECT paired_at FROM machines WHERE id = ?1), 0)
               ORDER BY created_at DESC, id DESC LIMIT 1";
    read.one(sql, &[&machine, &kind], Document::kept)
}

/// Records the signed event of a document, before it is sent for the first time. False where a newer
/// version is wanted meanwhile: nothing is recorded then.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is signed already.
pub fn set_signed(
    tx: &Tx<'_>,
    id: DocumentId,
    (event_id, event): (EventId, &str),
    created_at: Unix,
    now: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE documents SET event_id = ?2, event = ?3, created_at = ?4, signed_at = ?5
               WHERE id = ?1 AND event_id IS NULL AND superseded_at IS NULL";
    if tx.run(sql, &[&id, &event_id, &event, &created_at, &now])? == 1 {
        return Ok(true);
    }
    match find(tx, id)? {
        Some(document) if document.superseded_at.is_none() => {
            Err(StoreError::NotOneRow { table: "documents", changed: 0 })
        }
        _ => Ok(false),
    }
}

/// A relay took it; the first one counts.
///
/// # Errors
/// [`StoreError::NotOneRow`] where it is not signed.
pub fn set_relay_acked(tx: &Tx<'_>, id: DocumentId, now: Unix) -> Result<(), StoreError> {
    let sql = "UPDATE documents SET relay_acked_at = coalesce(relay_acked_at, ?2)
               WHERE id = ?1 AND event_id IS NOT NULL";
    tx.run_one("documents", sql, &[&id, &now])
}

/// The machine said that the document of this event applies. False for an event that is not one of
/// its documents.
///
/// # Errors
/// [`StoreError`].
pub fn set_applied(
    tx: &Tx<'_>,
    machine: MachineId,
    event: EventId,
    now: Unix,
) -> Result<bool, StoreError> {
    let sql = "UPDATE documents SET applied_at = coalesce(applied_at, ?3)
               WHERE machine_id = ?1 AND event_id = ?2";
    Ok(tx.run(sql, &[&machine, &event, &now])? == 1)
}
