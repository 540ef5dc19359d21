//! The audit: everything is derived again from the signed events, the wallets' own lists and the
//! machines' reports, and each difference to what is stored is told.
//!
//! Promise: the checks are pure functions over rows; one snapshot of the database is what all of
//! them see, on as many threads as there are processors. A wallet's list is read before the snapshot and once more after it: what is in the
//! first reading was recorded before the snapshot was taken, and what changed since is left to the
//! next audit. Nothing is mended here. Rows of the database are read in pages; of a wallet's list,
//! some hundred bytes a payment are in memory while the audit runs.
//!
//! What is under way (a sale without a report, a payout without an end, a promise that nobody has
//! claimed) is told as waiting and is no difference.
//!
//! Failure policy: a wallet that does not answer is a difference, since nothing can be said of it;
//! a database that does not read ends the audit with an error.

mod ahead;
mod books;
mod cash;
mod entries;
mod gather;
mod holdings;
pub mod keys;
mod legs;
mod marks;
mod one;
mod opens;
mod parts;
mod payouts;
mod promises;
pub mod proof;
mod providers;
mod recycled;
mod report;
mod rows;
mod sale;
mod service;
mod signatures;
mod signed;
#[cfg(test)]
pub(crate) mod tests;
mod wallet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;

use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::PaymentHash;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::app::App;
use crate::http::error::in_words;
use crate::settle::{self, SettleError};
use crate::store::StoreError;
use crate::wallet::{Cursor, Flow, PayState, Payment, Wallet, WalletError};

use gather::Given;
pub use one::settlement;
pub use report::{Audit, Check, Difference, Line, Waiting};
use wallet::Seen;

/// Looks at everything.
///
/// # Errors
/// [`StoreError`].
pub async fn run(app: &Arc<App>) -> Result<Audit, StoreError> {
    // one at a time: each of them reads everything
    let _turn = app.auditing.lock().await;
    let mut lists = BTreeMap::new();
    let mut silent = BTreeMap::new();
    let threads = thread::available_parallelism().map_or(1, Into::into);
    // to make a list of a hundred thousand short takes a second
    let places = Arc::new(Semaphore::new(threads));
    let mut reads = JoinSet::new();
    for (id, wallet) in &app.wallets {
        let (app, places) = (app.clone(), places.clone());
        let (id, wallet) = (id.clone(), wallet.clone());
        reads.spawn(async move {
            // never closed
            let _place = places.acquire().await;
            (id, before(&app, &*wallet).await)
        });
    }
    while let Some(read) = reads.join_next().await {
        match read.map_err(broken_off)? {
            (id, Ok(list)) => drop(lists.insert(id, list)),
            (id, Err(error)) => drop(silent.insert(id, in_words(&error))),
        }
    }
    let snapshots = app.store.snapshots(threads).await?;
    let mut wallets = BTreeMap::new();
    for (id, list) in lists {
        let Some(wallet) = app.wallets.get(&id) else { continue };
        match after(app, &**wallet, list).await {
            Ok(seen) => drop(wallets.insert(id, seen)),
            Err(error) => drop(silent.insert(id, in_words(&error))),
        }
    }
    let given = Given::of(app, wallets, silent);
    let audit = tokio::task::spawn_blocking(move || parts::run(snapshots, &given)).await;
    audit.unwrap_or_else(|error| Err(broken_off(error)))
}

fn broken_off(error: JoinError) -> StoreError {
    StoreError::Stopped { reason: error.to_string() }
}

type Payments = BTreeMap<PaymentHash, Payment>;

/// A wallet's list since `from`, up to now: a wallet whose time lies ahead of ours has something new
/// at each look.
async fn list(
    app: &App,
    wallet: &dyn Wallet,
    from: Cursor,
) -> Result<(Payments, Cursor), WalletError> {
    let (mut all, mut cursor) = (Payments::new(), from);
    let began = wallet.cursor_at(app.clock.now());
    loop {
        let (page, next) = wallet.list(cursor).await?;
        let end = next == cursor || began.is_some_and(|began| next >= began);
        all.extend(page.into_iter().map(short).map(|payment| (payment.payment_hash, payment)));
        cursor = next;
        if end {
            return Ok((all, cursor));
        }
    }
}

/// A payment with the hash of what the wallet keeps beside it in its place: a change shows, and a
/// million of them fit into the memory.
fn short(payment: Payment) -> Payment {
    let extra = match &payment.extra {
        Value::Null => Value::Null,
        kept => Value::String(sha256(&kept.to_string()).to_string()),
    };
    Payment { extra, ..payment }
}

/// A wallet's whole list; all of it is on record when this returns.
async fn before(app: &App, wallet: &dyn Wallet) -> Result<(Payments, Cursor), WalletError> {
    let seen = list(app, wallet, Cursor(0)).await?;
    match settle::reconcile(app, wallet).await {
        Err(SettleError::Wallet(error)) => Err(error),
        // a payment that cannot be recorded is a difference that the audit is about to find
        Ok(()) | Err(_) => Ok(seen),
    }
}

/// What the wallet holds, and what has changed since its list was read.
async fn after(
    app: &App,
    wallet: &dyn Wallet,
    (payments, cursor): (Payments, Cursor),
) -> Result<Seen, WalletError> {
    let balance = wallet.balance().await?;
    let (later, _) = list(app, wallet, cursor).await?;
    // an invoice that was only made has moved nothing, nor has what a list tells a second time
    let still = |hash: &PaymentHash, payment: &Payment| {
        payment.flow == Flow::Inbound && payment.state == PayState::Pending
            || payments.get(hash) == Some(payment)
    };
    let moved: BTreeSet<_> = later
        .into_iter()
        .filter(|(hash, payment)| !still(hash, payment))
        .map(|(hash, _)| hash)
        .collect();
    let opening = app.simulated.as_ref().and_then(|node| node.opening(wallet.id()));
    Ok(Seen { payments, moved, balance, opening })
}
