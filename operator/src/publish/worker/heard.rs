//! What a machine says that it applies.
//!
//! Promise: its lights and its changes are written as it says them, and a version that a relay took
//! long ago and that it does not have is sent once more.

use std::collections::BTreeSet;

use bitspire_shared::ids::{ChangeId, EventId};
use bitspire_shared::time::Unix;

use crate::ids::MachineId;
use crate::store::{StoreError, Tx, documents, outbox};

/// How long a document that a relay took may be on its way to its machine before it is sent once
/// more, in seconds. A machine that refuses a document is sent it so often.
const ONCE_MORE_S: u64 = 300;

/// What a machine says that it applies: its lights, its changes; and where that is not what is
/// wanted, although a relay took it long ago, the relays have forgotten it, or gave it to nobody: it
/// is sent once more.
///
/// # Errors
/// [`StoreError`].
pub fn heard(
    tx: &Tx<'_>,
    machine: MachineId,
    applied: &BTreeSet<EventId>,
    changes: &BTreeSet<ChangeId>,
    now: Unix,
) -> Result<(), StoreError> {
    for event in applied {
        documents::set_applied(tx, machine, *event, now)?;
    }
    for change in changes {
        crate::store::cassettes::ack_change(tx, machine, *change, now)?;
    }
    for (wanted, event) in documents::wanted_signed(tx, machine)? {
        if !applied.contains(&event) {
            outbox::once_more(tx, wanted, now, Unix(now.0.saturating_sub(ONCE_MORE_S)))?;
        }
    }
    Ok(())
}
