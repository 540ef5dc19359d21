//! Payments that moved and that cannot be recorded: a row that contradicts itself, a rule that refuses
//! them, a fault of this program.
//!
//! Promise: such a payment is kept before its wallet's cursor goes past it, and tried again at each
//! reading of the list, by look-up, until it is on record. A person is told once when it is kept
//! (`settlement.unrecorded`) and once when that is over (`settlement.recorded`), in the audit log.
//!
//! Failure policy: what cannot be kept is an error, and the cursor stays. A wallet that is away ends
//! the trying until the next reading; one that says no more that a payment moved leaves it kept.

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Direction;
use bitspire_shared::time::Unix;
use serde_json::json;

use super::{Looked, SettleError, consider};
use crate::app::App;
use crate::http::error::in_words;
use crate::store::unrecorded::{self, Unrecorded};
use crate::store::{StoreError, Tx, log};
use crate::wallet::{Flow, PayState, Payment, Wallet};

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
    let (hash, flow) = (payment.payment_hash, payment.flow);
    match consider(app, wallet, payment).await {
        Err(error) if stays(&error) => {
            keep(app, wallet, hash, flow, &error).await?;
            Ok(Looked::Nothing)
        }
        looked => looked,
    }
}

/// Keeps a payment that cannot be recorded, and tells it where it is new.
pub(super) async fn keep(
    app: &App,
    wallet: &dyn Wallet,
    hash: PaymentHash,
    flow: Flow,
    error: &SettleError,
) -> Result<(), SettleError> {
    let (reason, now) = (in_words(error), app.clock.now());
    let kept = Unrecorded {
        wallet_id: wallet.id().to_owned(),
        payment_hash: hash,
        direction: flow.direction(),
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
            recorded |= try_one(app, wallet, kept, now).await?;
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
    let why = match found {
        Ok(Some(payment)) if matches!(payment.state, PayState::Succeeded { .. }) => {
            match consider(app, wallet, payment).await {
                Ok(_) => None,
                Err(error) if stays(&error) => Some(in_words(&error)),
                Err(error) => return Err(error),
            }
        }
        Ok(_) => Some("the wallet says no more that it moved".to_owned()),
        Err(error) if error.kind() == Kind::Transient => return Err(error.into()),
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
    if ended {
        tracing::info!(event = "settlement_recorded_late", wallet = wallet.id(), %hash);
    }
    Ok(ended)
}
