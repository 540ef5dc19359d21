//! Payments that moved and that cannot be recorded: a row that contradicts itself, a rule that refuses
//! them, a fault of this program.
//!
//! Promise: such a payment is kept before its wallet's cursor goes past it, and tried again at each
//! reading of the list, by look-up, until it is on record. A person is told once when it is kept
//! (`settlement.unrecorded`) and once when that is over (`settlement.recorded`), in the audit log.
//!
//! Failure policy: what cannot be kept is an error, and the cursor stays. A wallet that does not answer
//! ends the trying until the next reading, which begins with another payment, and keeps its list from
//! nobody; one that says no more that a payment moved leaves it kept; one whose look-up says nothing of
//! a payment that its list has told is taken at the list's word.

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::Direction;
use bitspire_shared::time::Unix;
use serde_json::json;

use super::{Looked, SettleError, consider};
use crate::app::App;
use crate::http::error::in_words;
use crate::store::unrecorded::{self, Unrecorded};
use crate::store::{Json, StoreError, Tx, log};
use crate::wallet::{PayState, Payment, Wallet, WalletError};

/// Payments that are looked up before it is seen whether any of them can be recorded now.
const BATCH: u32 = 16;

/// Whether it lies with the payment, so that it would be the same at each reading of the list.
pub(super) fn stays(error: &SettleError) -> bool {
    !matches!(error, SettleError::Wallet(_))
        && matches!(error.kind(), Kind::Permanent | Kind::Misuse)
}

/// Records a payment as the wallet itself tells it, or keeps it for later.
pub(super) async fn consider_or_keep(
    app: &App,
    wallet: &dyn Wallet,
    payment: Payment,
) -> Result<Looked, SettleError> {
    match consider(app, wallet, payment.clone()).await {
        Err(error) if stays(&error) => {
            keep(app, wallet, payment, &error).await?;
            Ok(Looked::Kept)
        }
        looked => looked,
    }
}

/// Keeps a payment that cannot be recorded, and tells it where it is new.
async fn keep(
    app: &App,
    wallet: &dyn Wallet,
    payment: Payment,
    error: &SettleError,
) -> Result<(), SettleError> {
    let (reason, now, hash) = (in_words(error), app.clock.now(), payment.payment_hash);
    let kept = Unrecorded {
        wallet_id: wallet.id().to_owned(),
        payment_hash: hash,
        direction: payment.flow.direction(),
        told: Json(payment),
        reason: reason.clone(),
        first_at: now,
        tried_at: now,
    };
    let new = app.store.write(move |tx| {
        let new = unrecorded::keep(tx, &kept)?;
        if new {
            tell(tx, "settlement.unrecorded", &kept, now)?;
        }
        Ok::<_, StoreError>(new)
    });
    if new.await? {
        tracing::error!(event = "settlement_unrecorded", wallet = wallet.id(), %hash, reason);
    }
    Ok(())
}

fn tell(tx: &Tx<'_>, action: &str, kept: &Unrecorded, now: Unix) -> Result<(), StoreError> {
    let Unrecorded { wallet_id, payment_hash, direction, reason, first_at, .. } = kept;
    let detail = json!({
        "wallet": wallet_id, "direction": direction, "reason": reason, "since": first_at,
    });
    log::by_service(tx, action, &format!("payment:{payment_hash}"), detail, now).map(|_| ())
}

/// Tries what is kept of a wallet once more: some of it, and the rest only while that helps.
pub(super) async fn try_again(app: &App, wallet: &dyn Wallet) -> Result<(), SettleError> {
    let (now, id) = (app.clock.now(), wallet.id());
    loop {
        let of = id.to_owned();
        let batch = app.store.read(move |read| unrecorded::to_try(read, &of, now, BATCH));
        let batch: Result<Vec<_>, StoreError> = batch.await;
        let mut recorded = false;
        for kept in batch? {
            match try_one(app, wallet, kept, now).await {
                Ok(ended) => recorded |= ended,
                // its list says whether it is away; the next reading begins with another payment
                Err(SettleError::Wallet(error)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::info!(event = "unrecorded_not_looked_up", wallet = id, error);
                    recorded = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if !recorded {
            break;
        }
    }
    let of = id.to_owned();
    let left: Result<u64, StoreError> =
        app.store.read(move |read| unrecorded::count(read, &of)).await;
    let left = left?;
    if left > 0 {
        tracing::warn!(event = "settlements_unrecorded", wallet = id, left);
    }
    Ok(())
}

/// Whether it is on record now, or was found to be none of our business.
async fn try_one(
    app: &App,
    wallet: &dyn Wallet,
    kept: Unrecorded,
    now: Unix,
) -> Result<bool, SettleError> {
    let found = match kept.direction {
        Direction::CashOut => wallet.lookup(kept.payment_hash).await,
        Direction::CashIn => wallet.lookup_payment(kept.payment_hash).await,
    };
    let says_nothing = match &found {
        Ok(None) => kept.direction == Direction::CashIn && !wallet.absence_is_final(),
        Err(WalletError::Unknown { .. }) => true,
        _ => false,
    };
    let found = match found {
        // some wallets tell payments in their list only
        _ if says_nothing => Ok(Some(kept.told.0.clone())),
        found => found,
    };
    let mut away = None;
    let why = match found {
        Ok(Some(payment)) if matches!(payment.state, PayState::Succeeded { .. }) => {
            match consider(app, wallet, payment).await {
                Ok(_) => None,
                Err(error) if stays(&error) => Some(in_words(&error)),
                Err(error) => return Err(error),
            }
        }
        Ok(_) => Some("the wallet says no more that it moved".to_owned()),
        Err(error) if error.kind() == Kind::Transient => {
            let why = in_words(&error);
            away = Some(error);
            Some(why)
        }
        Err(error) => Some(in_words(&error)),
    };
    let hash = kept.payment_hash;
    let ended = app.store.write(move |tx| match why {
        Some(reason) => {
            unrecorded::tried(tx, &Unrecorded { reason, tried_at: now, ..kept }).map(|_| false)
        }
        None => {
            if unrecorded::done(tx, &kept)? {
                tell(tx, "settlement.recorded", &kept, now)?;
            }
            Ok::<_, StoreError>(true)
        }
    });
    let ended = ended.await?;
    if let Some(error) = away {
        return Err(error.into());
    }
    if ended {
        tracing::info!(event = "settlement_recorded_late", wallet = wallet.id(), %hash);
    }
    Ok(ended)
}
