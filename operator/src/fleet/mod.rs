//! The fleet: machines, their pairing, the operator's own key, who is who.
//!
//! Promise: what a caller asks for is checked whole before anything is written; every change is one
//! transaction together with its line in the audit log. A machine key belongs to one machine, and
//! a wallet too.
//!
//! Failure policy: [`FleetError`]; where a bunker has no part in it, nothing was changed.

pub mod machines;
pub mod roster;

use bitspire_shared::document::DocumentError;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::money::{Direction, FeePpm};
use bitspire_shared::split::{FeePair, SplitError};
use bitspire_shared::time::Unix;
use serde_json::Value;
use thiserror::Error;

use crate::app::App;
use crate::ids::{MachineId, OperatorId};
use crate::store::{Json, Read, StoreError, Tx, log, machines as rows, operators};

/// Why the fleet is as it was.
#[derive(Debug, Error)]
pub enum FleetError {
    /// No such machine, or it is not the caller's.
    #[error("there is no machine {0}; `machine list` shows yours")]
    NoMachine(MachineId),
    /// No such operator.
    #[error("there is no operator {0}")]
    NoOperator(OperatorId),
    /// A value that makes no sense.
    #[error("{field}: expected {expected}, got {got}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What came.
        got: String,
    },
    /// Fees above the cap in one direction.
    #[error("{direction} of {whom}")]
    OverCap {
        /// The direction.
        direction: Direction,
        /// Which machine.
        whom: String,
        /// The two fees and the cap.
        #[source]
        source: SplitError,
    },
    /// Fees of the platform that some machine's own fees leave no room for.
    #[error("nothing was changed: {0}")]
    Breaches(String),
    /// A document that cannot be written.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A machine that nothing can be published for.
    #[error("machine {machine}: {why}")]
    Unpublishable {
        /// The machine.
        machine: MachineId,
        /// What is missing.
        why: &'static str,
    },
    /// What was asked to be published now was not.
    #[error("not published, it stays in the outbox: {0}")]
    NotPublished(String),
    /// A key that somebody else has.
    #[error("the key {key} belongs to {owner}: a machine has a key of its own")]
    KeyTaken {
        /// The key as npub.
        key: String,
        /// Who has it.
        owner: String,
    },
    /// A wallet that another machine has.
    #[error("the wallet {0:?} belongs to another machine: a wallet has one machine")]
    WalletTaken(String),
    /// Not in the state that this needs.
    #[error("machine {machine} is {state}: {needs}")]
    State {
        /// The machine.
        machine: MachineId,
        /// What it is.
        state: String,
        /// What has to be done first.
        needs: &'static str,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classified for FleetError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::NotPublished(_) => Kind::Transient,
            _ => Kind::Permanent,
        }
    }
}

/// Writes a line of the audit log.
///
/// # Errors
/// [`StoreError`].
pub fn audit(
    tx: &Tx<'_>,
    now: Unix,
    actor: &str,
    action: &str,
    subject: &str,
    detail: Value,
) -> Result<(), StoreError> {
    log::audit(
        tx,
        &log::Audit {
            at: now,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: Json(detail),
            signed: None,
        },
    )
    .map(|_| ())
}

/// Refuses a key that is not free to be `machine`'s spire key.
///
/// # Errors
/// [`FleetError::KeyTaken`].
pub fn guard_key(
    read: &Read<'_>,
    key: PubKey,
    machine: Option<MachineId>,
    service: PubKey,
) -> Result<(), FleetError> {
    let taken = |owner: String| Err(FleetError::KeyTaken { key: key.npub(), owner });
    if key == service {
        return taken("this service".into());
    }
    if let Some(other) = rows::by_spire(read, key)?.filter(|other| Some(other.id) != machine) {
        return taken(format!("machine {} ({})", other.id, other.name));
    }
    match operators::list(read)?.iter().find(|operator| operator.pubkey == Some(key)) {
        Some(operator) => taken(format!("operator {} ({})", operator.id, operator.name)),
        None => Ok(()),
    }
}

/// Platform's and operator's fees of one direction, within the cap.
///
/// # Errors
/// [`FleetError::OverCap`] naming direction, machine, sum and cap.
pub fn pair_fees(
    direction: Direction,
    whom: &str,
    platform: FeePpm,
    operator: FeePpm,
) -> Result<FeePair, FleetError> {
    FeePair::new(platform, operator).map_err(|source| FleetError::OverCap {
        direction,
        whom: whom.to_owned(),
        source,
    })
}

/// Makes the first operator where there is none, so that machines have somebody to belong to. Its
/// key comes with `operator init`.
///
/// # Errors
/// [`StoreError`].
pub async fn first_operator(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    app.store
        .write(move |tx| {
            if operators::list(tx)?.is_empty() {
                let operator = operators::Operator {
                    name: "operator".into(),
                    pubkey: None,
                    signer: None,
                    bunker_key_name: None,
                    created_at: now,
                };
                let id = operators::insert(tx, &operator)?;
                let subject = format!("operator:{id}");
                audit(tx, now, "service", "operator.add", &subject, Value::Null)?;
            }
            Ok(())
        })
        .await
}
