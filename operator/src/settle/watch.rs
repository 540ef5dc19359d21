//! Each wallet is watched: its hints, its list since the durable cursor, its open invoices.
//!
//! Promise: what a wallet tells is looked up and recorded as many at a time as share flushes, and never
//! more than the writer's queue leaves to the others.
//!
//! Failure policy: see the folder's. A hint that could not be looked up is found again by the poll or
//! the list.

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::time::Unix;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::{Instant, MissedTickBehavior};

use super::{LINGER_S, Looked, SettleError, aside, disown};
use crate::app::App;
use crate::store::invoices::{self, InvoiceState};
use crate::store::{machines, settlements};
use crate::wallet::{Cursor, Flow, Hint, Payment, Wallet, WalletError};

/// Between two polls of open invoices.
const POLL: Duration = Duration::from_secs(5);
/// Between two readings of a wallet's list.
const RECONCILE: Duration = Duration::from_secs(180);
/// Open invoices that one poll looks up; the rest comes by hint or list.
const POLLED: u32 = 64;
/// Hinted payments of one wallet that are looked up at a time.
pub(super) const HINTS: usize = 8;
/// Payments that are recorded at a time, of all wallets together, and as many again of hints and polls,
/// which wait for no list: fractions of the writer's queue, which others need, and two of its
/// transactions, so that it has the next one when one is done.
pub(crate) const TOGETHER: usize = 256;

/// How far a cursor may lie ahead of our clock, which was set back perhaps.
const CLOCKS_APART_S: u64 = 86_400;

/// Watches every wallet until the daemon stops.
pub fn start(app: &Arc<App>) {
    for wallet in app.wallets.values() {
        app.tasks.spawn(watch(app.clone(), wallet.clone()));
        let (wallet, stop) = (wallet.clone(), app.stop.clone());
        app.tasks.spawn(async move { wallet.listen(stop).await });
    }
}

pub(super) async fn watch(app: Arc<App>, wallet: Arc<dyn Wallet>) {
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
                Ok(Hint::Payment(hash)) => {
                    let (hashes, missed) = with_those_at_hand(hash, &mut hints);
                    if missed {
                        list_due = Instant::now();
                    }
                    let each = hashes.into_iter().map(|hash| hinted(&app, &*wallet, hash));
                    let mut each: FuturesUnordered<_> = each.collect();
                    while let Some(result) = each.next().await {
                        if result.is_err() {
                            // its list has what was not looked up now
                            list_due = list_due.min(Instant::now() + POLL);
                        }
                        report(wallet.id(), result);
                    }
                }
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

/// A hinted payment with those that are hinted already, so that they share a flush; and whether hints
/// were missed.
fn with_those_at_hand(
    first: PaymentHash,
    hints: &mut broadcast::Receiver<Hint>,
) -> (Vec<PaymentHash>, bool) {
    let mut hashes = vec![first];
    while hashes.len() < HINTS {
        match hints.try_recv() {
            Ok(Hint::Payment(hash)) if hashes.contains(&hash) => {}
            Ok(Hint::Payment(hash)) => hashes.push(hash),
            Ok(Hint::Missed) | Err(TryRecvError::Lagged(_)) => return (hashes, true),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    (hashes, false)
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
pub(super) async fn consider_all(
    app: &App,
    wallet: &dyn Wallet,
    payments: Vec<Payment>,
) -> Result<(), SettleError> {
    let each = payments.into_iter().map(|payment| recorded(app, wallet, payment, &app.recording));
    let considered = futures_util::stream::iter(each).buffered(TOGETHER);
    let last =
        |failed, result: Result<Looked, SettleError>| std::future::ready(result.err().or(failed));
    considered.fold(None, last).await.map_or(Ok(()), Err)
}

/// Records a payment, or keeps it aside, when it has one of these places.
async fn recorded(
    app: &App,
    wallet: &dyn Wallet,
    payment: Payment,
    places: &Semaphore,
) -> Result<Looked, SettleError> {
    // never closed; whoever came first goes first, so a list's order stays
    let _place = places.acquire().await;
    aside::consider_or_keep(app, wallet, payment).await
}

/// Looks the open invoices up, and ends those whose time is over.
pub(super) async fn poll_open(app: &App, wallet: &dyn Wallet) -> Result<(), SettleError> {
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
                Some(payment) => recorded(app, wallet, payment, &app.hinted).await,
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

/// A hint does not say which way: the wallet's word on both is asked for.
pub(super) async fn hinted(
    app: &App,
    wallet: &dyn Wallet,
    hash: PaymentHash,
) -> Result<(), SettleError> {
    let invoice = wallet.lookup(hash).await?;
    let own = invoice.is_some();
    match invoice {
        Some(invoice) => recorded(app, wallet, invoice, &app.hinted).await?,
        None => disown(app, wallet, hash, Flow::Inbound).await?,
    };
    match wallet.lookup_payment(hash).await {
        Ok(Some(payment)) => recorded(app, wallet, payment, &app.hinted).await.map(|_| ()),
        // the hint was of its invoice; a payment to itself that it takes back is found by the audit
        Ok(None) if own => Ok(()),
        Ok(None) => disown(app, wallet, hash, Flow::Outbound).await.map(|_| ()),
        // a wallet with one record for a hash has told it: the invoice
        Err(WalletError::Unknown { .. }) if own && !wallet.absence_is_final() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
