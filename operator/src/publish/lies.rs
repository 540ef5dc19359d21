//! A bunker that answers a document with a lie: somebody has to look at it.
//!
//! Promise: it stands in the audit log as an act of the service, `bunker.lied`, from where the webhook
//! has it, once a day for a document; the document waits in the outbox meanwhile.
//!
//! Failure policy: [`StoreError`]; written with the failed attempt itself, or not at all.

use bitspire_shared::time::Unix;
use serde_json::json;

use crate::fleet::machines::subject;
use crate::ids::{DocumentId, MachineId};
use crate::store::{StoreError, Tx, log};

/// The act's name.
pub(super) const LIED: &str = "bunker.lied";
/// For how long it is told once for a document, in seconds.
const TOLD_FOR_S: u64 = 86_400;

/// Tells it of a machine's document.
///
/// # Errors
/// [`StoreError`].
pub(super) fn tell(
    tx: &Tx<'_>,
    machine: MachineId,
    document: DocumentId,
    (code, reason): (&str, &str),
    now: Unix,
) -> Result<(), StoreError> {
    if log::use_nonce(tx, LIED, &document.to_string(), now.after(TOLD_FOR_S))? {
        let detail = json!({ "document": document, "code": code, "reason": reason });
        log::by_service(tx, LIED, &subject(machine), detail, now)?;
    }
    Ok(())
}
