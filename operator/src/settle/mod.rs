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
mod withdraw;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::settlement::GRACE_S;
use bitspire_shared::time::Unix;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

use crate::app::{App, Ring};
use crate::ledger::LedgerError;
use crate::rpc::LineError;
use crate::store::invoices::{self, InvoiceState};
use crate::store::payments::{self, PaymentState};
use crate::store::settlements::{self, Settlement, SettlementStatus};
use crate::store::{Read, StoreError, log, machines};
use crate::wallet::{Cursor, Flow, Hint, PayState, Payment, Wallet, WalletError};
pub(crate) use authorise::authorise;
pub use record::AWAITS_REPORT;
use record::{Facts, Landed};
pub use revoke::hold_open_sales;
pub use withdraw::stamp as withdraw_stamp;

/// Between two polls of open invoices.
const POLL: Duration = Duration::from_secs(5);
/// Between two readings of a wallet's list.
const RECONCILE: Duration = Duration::from_secs(180);
/// Open invoices that one poll looks up; the rest comes by hint or list.
const POLLED: u32 = 64;
/// Payments of lists that are recorded at a time, of all wallets together: a fraction of the writer's
/// queue, which others need, and two of its transactions, so that it has the next one when one is done.
pub(crate) const TOGETHER: usize = 256;
/// Seconds after an invoice's end in which it stays open: a payment may be on its last hop.
const LINGER_S: u64 = GRACE_S + 60;

/// How far a cursor may lie ahead of our clock, which was set back perhaps.
const CLOCKS_APART_S: u64 = 86_400;

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

/// Watches every wallet until the daemon stops.
pub fn start(app: &Arc<App>) {
    for wallet in app.wallets.values() {
        app.tasks.spawn(watch(app.clone(), wallet.clone()));
        let (wallet, stop) = (wallet.clone(), app.stop.clone());
        app.tasks.spawn(async move { wallet.listen(stop).await });
    }
}

async fn watch(app: Arc<App>, wallet: Arc<dyn Wallet>) {
    // before the first list, or a payment in between would wait for the next one
    let mut hints = wallet.watch();
    let mut hinting = true;
    // the list first: what it brings shares flushes, a poll waits for each payment
    let mut poll = tokio::time::interval_at(Instant::now() + POLL, POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut list_due = Instant::now();
    loop {
        if Instant::now() >= list_due {
            let read = reconcile(&app, &*wallet).await;
            app.wallet_asked(wallet.id(), !matches!(read, Err(SettleError::Wallet(_))));
            let away = read.as_ref().is_err_and(|error| error.kind() == Kind::Transient);
            list_due = Instant::now() + if away { POLL } else { RECONCILE };
            report(wallet.id(), read);
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            hint = hints.recv(), if hinting => match hint {
                Ok(Hint::Payment(hash)) => report(wallet.id(), hinted(&app, &*wallet, hash).await),
                Ok(Hint::Missed) | Err(RecvError::Lagged(_)) => list_due = Instant::now(),
                Err(RecvError::Closed) => hinting = false,
            },
            _ = poll.tick() => {
                let polled = poll_open(&app, &*wallet).await;
                if matches!(&polled, Err(SettleError::Wallet(e)) if e.kind() == Kind::Transient) {
                    // it was away: what came meanwhile stands in its list
                    list_due = Instant::now();
                }
                report(wallet.id(), polled);
            }
        }
    }
}

fn report(wallet: &str, result: Result<(), SettleError>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == Kind::Transient => {
            let error: &dyn std::error::Error = &error;
            tracing::info!(event = "wallet_away", wallet, error);
        }
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(event = "settle_failed", wallet, error);
        }
    }
}

/// Reads a wallet's list since the durable cursor, and moves the cursor past what is on record, or kept
/// aside; what was kept aside before is tried again.
///
/// # Errors
/// [`SettleError`]: the wallet did not answer, or a payment could not even be kept aside.
pub async fn reconcile(app: &App, wallet: &dyn Wallet) -> Result<(), SettleError> {
    let tried = aside::try_again(app, wallet).await;
    since_cursor(app, wallet).await.and(tried)
}

async fn since_cursor(app: &App, wallet: &dyn Wallet) -> Result<(), SettleError> {
    let id = wallet.id().to_owned();
    let read = id.clone();
    let from: Option<u64> =
        app.store.read(move |r| settlements::cursor(r, &read).map_err(SettleError::Store)).await?;
    let mut from = from.unwrap_or(0);
    let now = app.clock.now();
    let began = wallet.cursor_at(now);
    if wallet.cursor_at(now.after(CLOCKS_APART_S)).is_some_and(|most| from > most.0) {
        // left by a wallet of another kind, in a smaller unit: nothing would ever come after it
        tracing::warn!(event = "wallet_list_anew", wallet = id, cursor = from);
        let (id, left) = (id.clone(), from);
        let forget = app.store.write(move |tx| settlements::forget_cursor(tx, &id, left));
        forget.await.map_err(SettleError::Store)?;
        from = 0;
    }
    let mut page = wallet.list(Cursor(from)).await?;
    let mut recorded_to = None;
    loop {
        let (payments, to) = page;
        // what came meanwhile is for the next reading: a wallet whose time lies ahead of ours has
        // something new at each look, and would keep us for ever
        let last = to.0 == from || began.is_some_and(|began| to >= began);
        // the wallet is asked for the next page while this one is being recorded
        let following = async {
            match last || app.stop.is_cancelled() {
                true => Ok(None),
                false => wallet.list(to).await.map(Some),
            }
        };
        // the cursor follows one page behind, in a commit with what is recorded meanwhile
        let (moved, recorded, next) = tokio::join!(
            move_cursor(app, &id, recorded_to.take()),
            consider_all(app, wallet, payments),
            following
        );
        moved?;
        recorded?;
        if to.0 == from {
            return Ok(());
        }
        from = to.0;
        recorded_to = Some(from);
        match next {
            Ok(Some(following)) => page = following,
            ended => {
                move_cursor(app, &id, recorded_to).await?;
                return ended.map(|_| ()).map_err(Into::into);
            }
        }
    }
}

/// What a wallet's list has up to here is on record.
async fn move_cursor(app: &App, wallet: &str, to: Option<u64>) -> Result<(), SettleError> {
    let (Some(to), id, now) = (to, wallet.to_owned(), app.clock.now()) else { return Ok(()) };
    let moved = app.store.write(move |tx| match settlements::cursor(tx, &id)? {
        // somebody else has read further meanwhile
        Some(further) if further >= to => Ok(()),
        _ => settlements::set_cursor(tx, &id, to, now),
    });
    moved.await.map_err(SettleError::Store)
}

/// Records what a list brought, in its order, so many at a time that they share a flush: a list after a
/// long absence has a hundred thousand. One that cannot be recorded keeps no other from it.
async fn consider_all(
    app: &App,
    wallet: &dyn Wallet,
    payments: Vec<Payment>,
) -> Result<(), SettleError> {
    let each = payments.into_iter().map(|payment| async move {
        // never closed; whoever came first goes first, so the order stays
        let _place = app.recording.acquire().await;
        aside::consider_or_keep(app, wallet, payment).await
    });
    let considered = futures_util::stream::iter(each).buffered(TOGETHER);
    let last =
        |failed, result: Result<Looked, SettleError>| std::future::ready(result.err().or(failed));
    considered.fold(None, last).await.map_or(Ok(()), Err)
}

/// Looks the open invoices up, and ends those whose time is over.
async fn poll_open(app: &App, wallet: &dyn Wallet) -> Result<(), SettleError> {
    let id = wallet.id().to_owned();
    let open: Vec<(PaymentHash, Unix)> = app
        .store
        .read(move |read| match machines::by_wallet(read, &id)? {
            Some(machine) => invoices::to_look_up(read, machine.id, &id, POLLED),
            None => Ok(Vec::new()),
        })
        .await
        .map_err(SettleError::Store)?;
    let mut failed = None;
    for (hash, expires_at) in open {
        let looked = async {
            match wallet.lookup(hash).await? {
                // where it is kept, its invoice stays open, and the list's readings look for it
                Some(payment) => aside::consider_or_keep(app, wallet, payment).await,
                None => disown(app, wallet, hash, Flow::Inbound).await,
            }
        };
        let looked = match looked.await {
            Ok(looked) => looked,
            Err(SettleError::Wallet(error)) if error.kind() == Kind::Transient => {
                return Err(error.into());
            }
            // one payment that cannot be looked up or recorded keeps no other from being seen
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let over = app.clock.now() > expires_at.after(LINGER_S);
        if looked == Looked::Nothing && over {
            app.store
                .write(move |tx| invoices::set_state(tx, hash, InvoiceState::Expired))
                .await
                .map_err(SettleError::Store)?;
        }
    }
    failed.map_or(Ok(()), Err)
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

/// A hint does not say which way: the wallet's word on both is asked for.
async fn hinted(app: &App, wallet: &dyn Wallet, hash: PaymentHash) -> Result<(), SettleError> {
    let invoice = wallet.lookup(hash).await?;
    let own = invoice.is_some();
    match invoice {
        Some(invoice) => aside::consider_or_keep(app, wallet, invoice).await?,
        None => disown(app, wallet, hash, Flow::Inbound).await?,
    };
    match wallet.lookup_payment(hash).await {
        Ok(Some(payment)) => aside::consider_or_keep(app, wallet, payment).await.map(|_| ()),
        Ok(None) => disown(app, wallet, hash, Flow::Outbound).await.map(|_| ()),
        // a wallet with one record for a hash has told it: the invoice
        Err(WalletError::Unknown { .. }) if own && !wallet.absence_is_final() => Ok(()),
        Err(error) => Err(error.into()),
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
