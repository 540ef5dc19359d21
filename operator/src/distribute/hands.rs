//! What a person decides about a distribution that does not go on by itself.
//!
//! Promise: a held settlement is released only when its machine has reported how the sale ended; a
//! leg whose payment may still succeed is nobody's to end; the platform's fee is the platform's
//! alone to end; each decision is in the audit log with its reason.
//!
//! Failure policy: [`HandsError`]; nothing was written.

use bitspire_shared::money::Direction;
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::json;
use thiserror::Error;

use super::pay::earner;
use super::{NO_SUPER_WALLET, go_on, providers};
use crate::app::{App, Ring};
use crate::fleet::{self, FleetError, machines};
use crate::ids::{LegId, OperatorId, SettlementId};
use crate::ledger::{LedgerError, leg_by_hand, unshared};
use crate::store::legs::{self, KeptLeg, LegKind, LegState};
use crate::store::settlements::{self, Distribution, Settlement};
use crate::store::{Kept, Read, StoreError, Tx, ledger};

/// Why nothing was decided.
#[derive(Debug, Error)]
pub enum HandsError {
    /// No such settlement, or one of somebody else's machines.
    #[error("there is no settlement {0}")]
    NoSettlement(SettlementId),
    /// No such leg, or one of somebody else's machines.
    #[error("there is no leg {0}")]
    NoLeg(LegId),
    /// Not in the state that this needs.
    #[error("settlement {id} is {state}: {needs}")]
    Settlement {
        /// Which one.
        id: SettlementId,
        /// Where it stands.
        state: String,
        /// What it needs.
        needs: &'static str,
    },
    /// A leg that a payment has ended, or may still end.
    #[error(
        "leg {id} is {state}: only one that is planned or kept, or has failed for good and has no \
         later round, can be ended by a person"
    )]
    Leg {
        /// Which one.
        id: LegId,
        /// Where it stands.
        state: LegState,
    },
    /// The platform's fee is not its operator's to end.
    #[error("leg {0} is the platform's fee: expected the platform's own word, not an operator's")]
    Platform(LegId),
    /// No reason for the log.
    #[error("expected a reason, for the audit log")]
    NoReason,
    /// The books.
    #[error("the books do not balance; nothing was written")]
    Ledger(#[from] LedgerError),
    /// The machine or the database.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl From<StoreError> for HandsError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

/// Who decides, and why.
#[derive(Clone, Debug)]
pub struct Word {
    /// As the audit log names them.
    pub actor: String,
    /// Whose machines they may touch.
    pub operator: Option<OperatorId>,
    /// Whether they speak for the platform.
    pub platform: bool,
    /// Why.
    pub reason: String,
}

type KeptSettlement = Kept<SettlementId, Settlement>;

/// A settlement of a machine that the caller may see.
///
/// # Errors
/// [`HandsError::NoSettlement`].
pub fn find(
    read: &Read<'_>,
    id: SettlementId,
    operator: Option<OperatorId>,
) -> Result<KeptSettlement, HandsError> {
    let found = settlements::find(read, id)?.ok_or(HandsError::NoSettlement(id))?;
    match machines::find(read, found.machine_id, operator) {
        Ok(_) => Ok(found),
        Err(FleetError::NoMachine(_)) => Err(HandsError::NoSettlement(id)),
        Err(error) => Err(error.into()),
    }
}

fn state(found: &KeptSettlement) -> String {
    match &found.hold_reason {
        Some(reason) => format!("{} ({reason})", found.distribution),
        None => found.distribution.to_string(),
    }
}

fn refused(found: &KeptSettlement, needs: &'static str) -> HandsError {
    HandsError::Settlement { id: found.id, state: state(found), needs }
}

fn log(
    tx: &Tx<'_>,
    word: &Word,
    action: &str,
    found: &KeptSettlement,
    leg: Option<LegId>,
    now: bitspire_shared::time::Unix,
) -> Result<(), HandsError> {
    let detail = json!({
        "settlement": found.id, "payment_hash": found.payment_hash, "was": state(found),
        "leg": leg, "reason": word.reason,
    });
    let subject = format!("machine:{}", found.machine_id);
    Ok(fleet::audit(tx, now, &word.actor, action, &subject, detail)?)
}

fn with_reason(mut word: Word) -> Result<Word, HandsError> {
    word.reason = word.reason.trim().to_owned();
    if word.reason.is_empty() { Err(HandsError::NoReason) } else { Ok(word) }
}

/// Lets a held settlement be distributed, after somebody has looked at what held it.
///
/// # Errors
/// [`HandsError`]: not held, not reported yet, refused, or waiting for the platform's wallet.
pub async fn release(app: &App, id: SettlementId, word: Word) -> Result<(), HandsError> {
    let (word, now) = (with_reason(word)?, app.clock.now());
    let done: Result<_, HandsError> = app
        .store
        .write(move |tx| {
            let found = find(tx, id, word.operator)?;
            if found.distribution != Distribution::Held {
                return Err(refused(&found, "only a held one is released"));
            }
            if found.hold_reason.as_deref() == Some(NO_SUPER_WALLET) {
                return Err(refused(&found, "set the platform's rules, or end the leg"));
            }
            if found.parts().is_none() {
                return Err(refused(&found, "a refused payment has nothing to distribute"));
            }
            let known = match found.dispense_outcome {
                None | Some(DispenseOutcome::Uncertain) => found.direction == Direction::CashIn,
                Some(_) => true,
            };
            if !known {
                let needs = "the machine's report, or a verdict, has to say how it ended";
                return Err(refused(&found, needs));
            }
            log(tx, &word, "settlement.release", &found, None, now)?;
            go_on(tx, id)?;
            Ok(found.payment_hash)
        })
        .await;
    app.ring(Ring::Settled { payment_hash: done? });
    Ok(())
}

/// Tries the failed legs of an errored settlement once more.
///
/// # Errors
/// [`HandsError`]: not errored.
pub async fn resume(app: &App, id: SettlementId, word: Word) -> Result<(), HandsError> {
    let (word, now) = (with_reason(word)?, app.clock.now());
    let done: Result<_, HandsError> = app
        .store
        .write(move |tx| {
            let found = find(tx, id, word.operator)?;
            if found.distribution != Distribution::Errored {
                return Err(refused(&found, "only an errored one is resumed"));
            }
            for leg in legs::latest(tx, id)? {
                if leg.state == LegState::Failed {
                    legs::again(tx, &leg, now)?;
                }
            }
            log(tx, &word, "settlement.resume", &found, None, now)?;
            go_on(tx, id)?;
            Ok(found.payment_hash)
        })
        .await;
    app.ring(Ring::Settled { payment_hash: done? });
    Ok(())
}

/// How a person ends a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is not paid; its sats stay in the machine's wallet, with their owner's account. A liquidity
    /// provider's are the machine's again, and what they cost is the provider's again.
    Void,
    /// It was paid by other means.
    ByHand,
}

/// Ends a leg by a person's word, and lets its settlement go on to its end.
///
/// # Errors
/// [`HandsError`]: a leg that is bound or has ended; the platform's fee by an operator's word.
pub async fn end_leg(app: &App, id: LegId, how: How, word: Word) -> Result<LegId, HandsError> {
    let (word, now) = (with_reason(word)?, app.clock.now());
    let done: Result<_, HandsError> = app
        .store
        .write(move |tx| {
            let leg = legs::find(tx, id)?.ok_or(HandsError::NoLeg(id))?;
            let found = match find(tx, leg.settlement_id, word.operator) {
                Err(HandsError::NoSettlement(_)) => return Err(HandsError::NoLeg(id)),
                found => found?,
            };
            if leg.kind == LegKind::SuperFee && !word.platform {
                return Err(HandsError::Platform(id));
            }
            let latest = legs::latest(tx, leg.settlement_id)?.iter().any(|last| last.id == id);
            let open = matches!(leg.state, LegState::Planned | LegState::Failed | LegState::Kept);
            if !latest || !open {
                return Err(HandsError::Leg { id, state: leg.state });
            }
            let ended = end(tx, &found, &leg, how, &word, now)?;
            if matches!(found.distribution, Distribution::Held | Distribution::Errored) {
                go_on(tx, found.id)?;
            }
            Ok((ended, found.payment_hash))
        })
        .await;
    let (ended, payment_hash) = done?;
    app.ring(Ring::Settled { payment_hash });
    Ok(ended)
}

pub(crate) fn end(
    tx: &Tx<'_>,
    found: &KeptSettlement,
    leg: &KeptLeg,
    how: How,
    word: &Word,
    now: bitspire_shared::time::Unix,
) -> Result<LegId, HandsError> {
    let (state, action) = match how {
        How::Void => (LegState::Void, "leg.void"),
        How::ByHand => (LegState::ByHand, "leg.by_hand"),
    };
    let ended = legs::give_up(tx, leg, state, (&word.actor, &word.reason), now)?;
    let entry = match (how, leg.kind) {
        (How::ByHand, LegKind::SuperFee | LegKind::Dca) => {
            let operator = machines::find(tx, found.machine_id, None)?.operator_id;
            let whose = earner(leg, operator);
            Some(leg_by_hand(whose, operator, ended, found.txid, leg.amount_sats)?)
        }
        (How::Void, LegKind::Dca) => {
            let booked = providers::of_leg(tx, found, leg)?;
            booked.map(|booked| unshared(&booked, ended)).transpose()?
        }
        _ => None,
    };
    if let Some(entry) = entry {
        ledger::append(tx, &entry, now)?;
    }
    log(tx, word, action, found, Some(ended), now)?;
    Ok(ended)
}
