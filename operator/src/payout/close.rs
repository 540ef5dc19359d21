//! A person's word about a payment whose end its wallet never tells.
//!
//! Promise: "paid" needs the preimage, which is the proof; "not paid" is taken only of a wallet that
//! cannot tell it itself, a day after the invoice's end, and only while the wallet, asked once more,
//! still does not know the payment. What follows for the customer, the leg and the books is what
//! follows from the wallet's own word.
//!
//! Failure policy: [`CloseError`]; nothing was written.

use std::sync::Arc;

use bitspire_shared::ids::{PaymentHash, WithdrawId};
use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::attempt::{Attempt, Told};
use super::{Job, KeptPayment, PayoutError, conclude};
use crate::app::{App, Ring};
use crate::distribute::{self, DistributeError};
use crate::fleet::{self, FleetError, machines};
use crate::ids::{LegId, OperatorId};
use crate::store::payments::{self, Payment, PaymentState, SubjectKind};
use crate::store::{Read, StoreError, Tx, withdraws};
use crate::wallet::WalletError;

/// Seconds after the invoice's end before "not paid" is believed.
pub const MARGIN_S: u64 = 86_400;

/// What a person has found in the wallet's own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was paid: the preimage, and what routing cost.
    Paid {
        /// Its SHA-256 is the payment's hash.
        preimage: [u8; 32],
        /// What routing cost.
        routing: Sats,
    },
    /// It was not paid, and will not be.
    NotPaid,
}

/// Why nothing was closed.
#[derive(Debug, Error)]
pub enum CloseError {
    /// No such payment, or one of somebody else's machines.
    #[error("there is no payment {0} of ours")]
    None(PaymentHash),
    /// One that has ended.
    #[error("payment {hash} has ended: {state}")]
    Ended {
        /// Which one.
        hash: PaymentHash,
        /// How.
        state: PaymentState,
    },
    /// A preimage of another payment.
    #[error("this is not the preimage of payment {0}: its SHA-256 is another one")]
    Preimage(PaymentHash),
    /// A wallet that tells it itself.
    #[error("wallet {0} knows all its payments and will tell this one's end itself: wait for it")]
    Tells(String),
    /// Too early.
    #[error(
        "not before {}, a day after the invoice's end: it may still be on its way",
        .not_before.to_iso()
    )]
    Early {
        /// When it is believed.
        not_before: Unix,
    },
    /// The wallet knows it after all.
    #[error("the wallet knows it after all: it is looked at again in the next minutes")]
    Known,
    /// No reason for the log.
    #[error("expected a reason, for the audit log")]
    NoReason,
    /// The wallet does not answer.
    #[error("the wallet has to be asked once more, and does not answer")]
    Wallet(#[from] WalletError),
    /// A payout's end.
    #[error(transparent)]
    Payout(#[from] PayoutError),
    /// A leg's end.
    #[error(transparent)]
    Leg(#[from] DistributeError),
    /// The machine or the database.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl From<StoreError> for CloseError {
    fn from(error: StoreError) -> Self {
        Self::Fleet(error.into())
    }
}

/// A payment of ours that has not ended.
fn find(
    read: &Read<'_>,
    hash: PaymentHash,
    operator: Option<OperatorId>,
) -> Result<KeptPayment, CloseError> {
    let found = payments::by_hash(read, hash)?.ok_or(CloseError::None(hash))?;
    match machines::find(read, found.machine_id, operator) {
        Err(FleetError::NoMachine(_)) => return Err(CloseError::None(hash)),
        seen => drop(seen?),
    }
    match found.state {
        PaymentState::Pending | PaymentState::Unknown => Ok(found),
        state => Err(CloseError::Ended { hash, state }),
    }
}

/// Ends a payment by a person's word.
///
/// # Errors
/// [`CloseError`].
pub async fn close(
    app: &Arc<App>,
    (actor, operator): (&str, Option<OperatorId>),
    hash: PaymentHash,
    word: Word,
    reason: &str,
) -> Result<(), CloseError> {
    let reason = reason.trim().to_owned();
    if reason.is_empty() {
        return Err(CloseError::NoReason);
    }
    let found = app.store.read(move |read| find(read, hash, operator)).await?;
    match word {
        Word::Paid { preimage, .. } => {
            if Sha256::digest(preimage).as_slice() != hash.as_bytes() {
                return Err(CloseError::Preimage(hash));
            }
        }
        Word::NotPaid => unheard_of(app, &found).await?,
    }
    let (now, actor) = (app.clock.now(), actor.to_owned());
    let ended = app.store.write(move |tx| {
        let found = find(tx, hash, operator)?;
        let detail = json!({
            "payment_hash": hash, "wallet": found.wallet_id, "sats": found.amount_sats,
            "paid": matches!(word, Word::Paid { .. }), "reason": reason,
        });
        let subject = format!("machine:{}", found.machine_id);
        fleet::audit(tx, now, &actor, "payout.close", &subject, detail)?;
        end(tx, found, word, now)
    });
    let ring: Result<Option<Ring>, CloseError> = ended.await;
    if let Some(ring) = ring? {
        app.ring(ring);
    }
    Ok(())
}

/// Whether a person's "not paid" can be believed.
async fn unheard_of(app: &App, found: &Payment) -> Result<(), CloseError> {
    let not_before = found.invoice_expires_at.after(MARGIN_S);
    if app.clock.now() < not_before {
        return Err(CloseError::Early { not_before });
    }
    // a wallet that is gone from the configuration tells nothing any more
    let Some(wallet) = app.wallets.get(&found.wallet_id) else { return Ok(()) };
    if wallet.absence_is_final() {
        return Err(CloseError::Tells(found.wallet_id.clone()));
    }
    match wallet.lookup_payment(found.payment_hash).await? {
        Some(_) => Err(CloseError::Known),
        None => Ok(()),
    }
}

fn end(
    tx: &Tx<'_>,
    payment: KeptPayment,
    word: Word,
    now: Unix,
) -> Result<Option<Ring>, CloseError> {
    let told = Told::by_a_person(match word {
        Word::Paid { routing, .. } => Some(routing),
        Word::NotPaid => None,
    });
    let (hash, subject) = (payment.payment_hash, payment.subject_id.clone());
    let kind = payment.subject;
    let attempt = Attempt { payment, fresh: false, extra: json!({}) };
    match kind {
        SubjectKind::Withdraw => {
            let id: Option<WithdrawId> = subject.parse().ok();
            let withdraw = match id {
                Some(id) => withdraws::find(tx, id)?,
                None => None,
            };
            let withdraw = withdraw.ok_or(CloseError::None(hash))?;
            Ok(conclude(tx, &Job { attempt, withdraw }, told, now)?)
        }
        SubjectKind::Leg => {
            let id: LegId = subject.parse().map_err(|_| CloseError::None(hash))?;
            distribute::pay::close(tx, id, &attempt, told, now)?;
            Ok(Some(Ring::Settled { payment_hash: hash }))
        }
    }
}
