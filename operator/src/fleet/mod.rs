//! The fleet: machines, their pairing, the operator's own key, who is who.
//!
//! Promise: what a caller asks for is checked whole before anything is written; every change is one
//! transaction together with its line in the audit log. A machine key belongs to one machine, and
//! a wallet too.
//!
//! Failure policy: [`FleetError`]; where a bunker has no part in it, nothing was changed.

pub mod account;
pub mod canary;
mod codes;
pub mod confirm;
pub mod identity;
pub mod machines;
pub mod pair;
pub mod rekey;
pub mod renew;
pub mod revoke;
pub mod roster;
#[cfg(test)]
pub(crate) mod tests;
mod unlock;
pub mod upkeep;
pub mod verdict;

use std::sync::Arc;

use bitspire_shared::document::DocumentError;
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::money::{Direction, FeePpm};
use bitspire_shared::seed::{BunkerError, SeedError};
use bitspire_shared::split::{FeePair, SplitError};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::SecretError;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::app::App;
use crate::ids::{MachineId, OperatorId};
use crate::signer::policy::PolicyError;
use crate::signer::{Bunker, SetupError, SignerError};
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
    /// Somebody else pairs it.
    #[error("machine {0} is being paired already: wait for the end, then look at it")]
    Busy(MachineId),
    /// The operator has no key yet.
    #[error("the operator has no key yet: run `bitspire-operator operator init`")]
    NoIdentity,
    /// The operator has a key.
    #[error("operator {operator} has the key {key} already: machines have pinned it")]
    HasIdentity {
        /// The operator.
        operator: OperatorId,
        /// Its key as npub.
        key: String,
    },
    /// The bunker did not do its part; the machine is as it was.
    #[error("{step}")]
    Bunker {
        /// What it was asked for.
        step: &'static str,
        /// What became of it.
        #[source]
        source: SignerError,
    },
    /// The machines' policy in the bunker is not ours.
    #[error(transparent)]
    Policy(PolicyError),
    /// The operator's key cannot be made or used.
    #[error("the operator's key cannot be set up in the bunker")]
    Setup(#[source] SetupError),
    /// A relay's address that no seed can hold.
    #[error("{field}")]
    Relay {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: BunkerError,
    },
    /// What the bunker gave makes no seed.
    #[error("the seed cannot be made of what the bunker gave")]
    Seed(#[source] SeedError),
    /// The digits of the machine's screen are not ours.
    #[error(
        "these are not the digits of this pairing: somebody stands between, or the wrong machine \
         was looked at. Do not confirm; revoke the machine and pair it anew"
    )]
    WrongDigits,
    /// No randomness.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Our own work was cut off.
    #[error("the work was cut off in the middle: look at the machine before trying again")]
    CutOff,
    /// A key that this service should hold.
    #[error(
        "the private key of operator {0} should be here and is not: restore operator-{0}.sealed from \
         a backup"
    )]
    LocalKeyGone(OperatorId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PolicyError> for FleetError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Signer(source) => Self::Bunker { step: "policy", source },
            differs @ PolicyError::Differs { .. } => Self::Policy(differs),
        }
    }
}

impl FleetError {
    /// The field of the request that is to blame, where it is one.
    #[must_use]
    pub const fn field(&self) -> Option<&'static str> {
        Some(match self {
            Self::Invalid { field, .. } | Self::Relay { field, .. } => field,
            Self::OverCap { direction: Direction::CashIn, .. } => "cash_in_fee_fraction",
            Self::OverCap { direction: Direction::CashOut, .. } => "cash_out_fee_fraction",
            Self::KeyTaken { .. } => "npub",
            Self::WalletTaken(_) => "wallet_id",
            Self::WrongDigits => "digits",
            _ => return None,
        })
    }
}

impl Classified for FleetError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Bunker { source, .. } => source.kind(),
            Self::NotPublished(_) | Self::Busy(_) => Kind::Transient,
            Self::CutOff => Kind::Uncertain,
            _ => Kind::Permanent,
        }
    }
}

/// One thing that was asked of the bunker or done here, with its answer, for the person who waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What.
    pub step: &'static str,
    /// Whether it was done.
    pub ok: bool,
    /// The answer in words; no secret.
    pub detail: String,
}

impl Step {
    fn done(step: &'static str, detail: impl Into<String>) -> Self {
        Self { step, ok: true, detail: detail.into() }
    }

    fn failed(step: &'static str, detail: impl Into<String>) -> Self {
        Self { step, ok: false, detail: detail.into() }
    }
}

/// The bunker.
pub(crate) fn bunker(app: &App) -> Result<&Arc<dyn Bunker>, FleetError> {
    let missing = || FleetError::Bunker { step: "bunker", source: SignerError::NotConfigured };
    app.bunker.get().ok_or_else(missing)
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
