//! From a paid invoice to a settlement on record, and to the leave to dispense.
//!
//! Promise: three ways lead to one function ([`record`]): a wallet's hint, a poll of open invoices,
//! and the wallet's own list since the durable cursor (at the start, after a wallet was away, and
//! every few minutes). Each payment is decided by [`bitspire_shared::settlement::accept`] and
//! recorded once, by its hash, with its ledger entries, debts and pushes in one transaction. The
//! leave to dispense is signed after that is durable, in a transaction that finds the machine in
//! service: see [`authorise`].
//!
//! For cash_in a settlement's row is written here, for its distribution; the books' entry of the
//! payment itself belongs to whoever made the payment.
//!
//! A wallet that tells a recorded payment otherwise (another amount, or that it failed after all, or
//! was never there) changes nothing that was written, and is told to a person, once for each payment.
//!
//! Failure policy: the watcher never dies of one bad payment and never loses one: what cannot be
//! recorded is kept aside, told, and tried again at each reading ([`aside`]); where the wallet or the
//! database is away, the cursor stays before it.

mod aside;
mod authorise;
mod record;
mod revoke;
#[cfg(test)]
mod tests;
mod watch;
mod withdraw;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::settlement::GRACE_S;
use bitspire_shared::time::Unix;
use serde_json::{Value, json};
use thiserror::Error;

use crate::app::{App, Ring};
use crate::ledger::LedgerError;
use crate::rpc::LineError;
use crate::store::payments::{self, PaymentState};
use crate::store::settlements::{self, Settlement, SettlementStatus};
use crate::store::{Read, StoreError, log};
use crate::wallet::{Flow, PayState, Payment, Wallet, WalletError};
pub(crate) use authorise::authorise;
pub use record::AWAITS_REPORT;
use record::{Facts, Landed};
pub use revoke::hold_open_sales;
pub(crate) use watch::TOGETHER;
pub use watch::{reconcile, start};
pub use withdraw::stamp as withdraw_stamp;

/// Seconds after an invoice's end in which it stays open: a payment may be on its last hop.
const LINGER_S: u64 = GRACE_S + 60;

/// Why a payment was not recorded.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The wallet does not say.
    #[error("the wallet does not say")]
    Wallet(#[from] WalletError),
    /// The database did not take it.
    #[error("the database did not take it")]
    Store(#[from] StoreError),
    /// The books do not take it.
    #[error("the books do not take it")]
    Ledger(#[from] LedgerError),
    /// The amounts have no split.
    #[error("the amounts have no split")]
    Split(#[from] bitspire_shared::split::SplitError),
    /// A message cannot be made.
    #[error("a message cannot be made")]
    Line(#[from] LineError),
    /// No such wallet in the configuration.
    #[error("wallet {0:?} is not configured")]
    NoWallet(String),
    /// A stored value is not what it must be.
    #[error("{0}")]
    Broken(String),
}

impl From<serde_json::Error> for SettleError {
    fn from(error: serde_json::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Classified for SettleError {
    fn kind(&self) -> Kind {
        match self {
            Self::Wallet(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Ledger(e) => e.kind(),
            Self::Split(e) => e.kind(),
            Self::Line(e) => e.kind(),
            Self::NoWallet(_) | Self::Broken(_) => Kind::Permanent,
        }
    }
}

/// What a look at the wallet brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The payment is on record now.
    Landed,
    /// Nothing to record.
    Nothing,
    /// The payment cannot be recorded now, and is kept.
    Kept,
}

/// Looks one payment up in the wallet `wallet_id`, and records it if it succeeded.
///
/// # Errors
/// [`SettleError`].
pub(crate) async fn look(
    app: &App,
    wallet_id: &str,
    hash: PaymentHash,
) -> Result<Looked, SettleError> {
    let wallet = app.wallets.get(wallet_id);
    let wallet = wallet.ok_or_else(|| SettleError::NoWallet(wallet_id.to_owned()))?;
    look_in(app, &**wallet, hash).await
}

async fn look_in(app: &App, wallet: &dyn Wallet, hash: PaymentHash) -> Result<Looked, SettleError> {
    match wallet.lookup(hash).await? {
        Some(payment) => consider(app, wallet, payment).await,
        None => disown(app, wallet, hash, Flow::Inbound).await,
    }
}

/// Records a payment as the wallet itself tells it.
async fn consider(app: &App, wallet: &dyn Wallet, payment: Payment) -> Result<Looked, SettleError> {
    let hash = payment.payment_hash;
    match payment.state {
        PayState::Succeeded { .. } => {}
        PayState::Pending => return Ok(Looked::Nothing),
        PayState::Failed => return disown(app, wallet, hash, payment.flow).await,
    }
    let facts = Facts {
        wallet_id: wallet.id().to_owned(),
        payment,
        now: app.clock.now(),
        enforce_fee_match: app.config.enforce_fee_match,
        push_id: bitspire_shared::ids::PushId::from_bytes(crate::rpc::random()?),
    };
    let now = facts.now;
    match app.store.write(move |tx| record::record(tx, &facts)).await {
        Ok(Landed::Nothing) => Ok(Looked::Nothing),
        Ok(Landed::Known) => Ok(Looked::Landed),
        Ok(Landed::New(settlement)) => {
            say(&settlement);
            app.ring(Ring::Settled { payment_hash: hash });
            Ok(Looked::Landed)
        }
        // anything else that contradicts itself is no record of this payment: an error, tried again
        Err(SettleError::Store(StoreError::Conflict {
            what: what @ settlements::CONFLICT,
            key,
        })) => {
            alarm(app, hash, json!({ "what": what, "key": key }), now).await?;
            Ok(Looked::Landed)
        }
        Err(error) => Err(error),
    }
}

/// The wallet says that a payment did not move: nothing to record, unless it has said before that it
/// did. Then what was written stays (the customer may have the notes), and a person is told.
async fn disown(
    app: &App,
    wallet: &dyn Wallet,
    hash: PaymentHash,
    flow: Flow,
) -> Result<Looked, SettleError> {
    let id = wallet.id().to_owned();
    let known = app.store.read(move |read| has_moved(read, &id, hash, flow));
    if !known.await.map_err(SettleError::Store)? {
        return Ok(Looked::Nothing);
    }
    // a list may have an earlier try beside the one that moved: the look-up counts
    let (looked, absent) = match flow {
        Flow::Inbound => (wallet.lookup(hash).await, true),
        Flow::Outbound => (wallet.lookup_payment(hash).await, wallet.absence_is_final()),
    };
    let says = match looked.map(|found| found.map(|payment| payment.state)) {
        Ok(Some(PayState::Failed)) => "failed",
        Ok(None) if absent => "unknown",
        Ok(_) => return Ok(Looked::Landed),
        Err(error) if error.kind() == Kind::Transient => return Err(error.into()),
        Err(_) => "failed in its list, nothing when asked",
    };
    let what = settlements::CONFLICT;
    let detail = json!({ "what": what, "key": hash, "wallet": wallet.id(), "says": says });
    alarm(app, hash, detail, app.clock.now()).await?;
    Ok(Looked::Landed)
}

/// Whether a payment of this wallet is on record as one that moved.
fn has_moved(
    read: &Read<'_>,
    wallet: &str,
    hash: PaymentHash,
    flow: Flow,
) -> Result<bool, StoreError> {
    let settled = settlements::by_hash(read, hash)?
        .is_some_and(|row| row.wallet_id == wallet && row.direction == flow.direction());
    if settled || flow == Flow::Inbound {
        return Ok(settled);
    }
    // a leg, or a debt that was paid, has no settlement of its own
    let paid = payments::by_hash(read, hash)?;
    Ok(paid.is_some_and(|row| row.wallet_id == wallet && row.state == PaymentState::Succeeded))
}

/// A wallet contradicts the record of a payment: told once, since it would be the same at each reading
/// of the list.
async fn alarm(app: &App, hash: PaymentHash, detail: Value, now: Unix) -> Result<(), SettleError> {
    let shown = detail.to_string();
    let first = app.store.write(move |tx| {
        let scope = "settlement.conflict";
        let for_ever = Unix(i64::MAX.unsigned_abs());
        let first = log::use_nonce(tx, scope, &hash.to_string(), for_ever)?;
        if first {
            log::by_service(tx, scope, &format!("payment:{hash}"), detail, now)?;
        }
        Ok::<_, StoreError>(first)
    });
    if first.await? {
        tracing::error!(event = "settlement_conflict", %hash, detail = shown);
    }
    Ok(())
}

fn say(settlement: &Settlement) {
    let Settlement { machine_id, payment_hash, direction, status, wire_sats, reason, .. } =
        settlement;
    let txn = settlement.txid.map(|txid| txid.to_string());
    if *status == SettlementStatus::Accepted {
        let (principal, owed) = (settlement.principal_sats, settlement.owed_sats);
        tracing::info!(
            event = "settlement_landed", machine = %machine_id, txn, %payment_hash, %direction,
            wire = %wire_sats, principal = principal.map(|sats| sats.0),
            owed = owed.map(|sats| sats.0),
        );
    } else {
        tracing::error!(
            event = "settlement_refused", machine = %machine_id, txn, %payment_hash, %direction,
            wire = %wire_sats, %status, reason,
        );
    }
}
