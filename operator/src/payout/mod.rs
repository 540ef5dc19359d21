//! Payouts to customers: the one bound invoice of a withdraw, paid once.
//!
//! Promise: the attempt, with the invoice's hash, is durable before the wallet is asked; what the
//! wallet said is durable together with the books. Paying is driven by what stands in the database,
//! so a crash at any point is gone on from by the same code.
//!
//! States of an attempt: pending -> succeeded | failed, or unknown in between. Unknown never turns
//! into failed by waiting: only the wallet's own word does, as final as its kind of wallet gives it
//! ([`FailureRule`]).
//!
//! Failure policy: an unreachable wallet, a refusal and a lost answer leave the attempt open; it is
//! looked up by its hash and, where the wallet has never heard of it, the same invoice is asked for
//! again until it expires.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::WithdrawId;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::rpc::{Push, WithdrawPaid};
use bitspire_shared::time::Unix;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use thiserror::Error;

use crate::app::{App, Ring};
use crate::ids::PaymentId;
use crate::ledger::{Customer, LedgerError, paid_out};
use crate::lnurl::{claims, invoice};
use crate::rpc::push;
use crate::settle;
use crate::store::payments::{self, NewPayment, PaymentState, Resolution, Subject};
use crate::store::withdraws::{self, Purpose, Withdraw, WithdrawState};
use crate::store::{Kept, Read, StoreError, Tx, ledger, machines};
use crate::wallet::{FailureRule, PayState, Wallet, WalletError};

/// How often open attempts are looked at; a bound invoice is paid at once.
const ROUND: Duration = Duration::from_secs(5);

/// Wallet calls under way at once.
const AT_ONCE: usize = 16;

/// Seconds between two answers "failed" that make one final.
const FAILED_APART_S: u64 = 600;

/// Why a payout did not go on; the next round tries again.
#[derive(Debug, Error)]
pub enum PayoutError {
    /// The database.
    #[error("payout: the database did not take it")]
    Store(#[from] StoreError),
    /// The books.
    #[error("payout: the books do not balance; nothing was written")]
    Ledger(#[from] LedgerError),
    /// The machine's wallet is not in the configuration any more.
    #[error("payout: wallet {wallet} is not configured; add it under [wallets]")]
    NoWallet {
        /// Its id.
        wallet: String,
    },
    /// The wallet.
    #[error("payout: the wallet did not settle it")]
    Wallet(#[from] WalletError),
}

impl Classified for PayoutError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Ledger(_) => Kind::Misuse,
            Self::NoWallet { .. } => Kind::Permanent,
            Self::Wallet(error) => error.kind(),
        }
    }
}

/// What routing may cost: 0.5 %, at least 5 sats.
#[must_use]
pub fn fee_limit(amount: Sats) -> Sats {
    Sats((amount.0 / 200).max(5))
}

/// Starts the worker: every bound invoice at once, then in rounds, until the daemon stops.
pub fn start(app: &Arc<App>) {
    let app = Arc::clone(app);
    let mut bell = app.listen();
    app.tasks.clone().spawn(async move {
        loop {
            if let Err(error) = round(&app).await {
                tracing::warn!(event = "payout_round_failed", error = ?error);
            }
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
                // lagged or not: the next round looks into the database
                _ = bell.recv() => {}
            }
        }
    });
}

/// Goes on with every payout that is not final.
///
/// # Errors
/// [`PayoutError::Store`]; what goes wrong with one payout is logged and does not stop the others.
pub async fn round(app: &Arc<App>) -> Result<(), PayoutError> {
    let now = app.clock.now();
    app.store.write(move |tx| claims::expire(tx, now)).await?;
    let open = app.store.read(withdraws::bound).await?;
    stream::iter(open)
        .for_each_concurrent(AT_ONCE, |id| async move {
            if let Err(error) = drive(app, id).await {
                tracing::info!(event = "payout_open", withdraw = %id, error = ?error);
            }
        })
        .await;
    Ok(())
}

/// What is to be done for one withdraw.
struct Job {
    payment: Kept<PaymentId, payments::Payment>,
    withdraw: Withdraw,
    /// Whether this run wrote the attempt, so that the wallet cannot know of it yet.
    fresh: bool,
    /// What the wallet keeps beside the payment.
    extra: Value,
}

/// The settlement stamp for notes; for a debt, which is no sale, what it pays.
fn extra(read: &Read<'_>, withdraw: &Withdraw) -> Value {
    let id = withdraw.withdraw_id;
    match settle::withdraw_stamp(read, id) {
        Ok(Some(stamp)) => stamp,
        Ok(None) => json!({"type": "owed", "txid": withdraw.txid, "withdraw_id": id}),
        // the customer is paid all the same; the settlement then waits for a person
        Err(error) => {
            tracing::error!(event = "payout_without_stamp", withdraw = %id, error = ?error);
            json!({"type": "cash_in", "txid": withdraw.txid, "withdraw_id": id})
        }
    }
}

/// Pays the bound invoice of one withdraw, or finds out what became of it.
///
/// # Errors
/// [`PayoutError`]; nothing is lost, the next round goes on.
pub async fn drive(app: &Arc<App>, id: WithdrawId) -> Result<(), PayoutError> {
    let now = app.clock.now();
    let Some(job) = app.store.write(move |tx| begin(tx, id, now)).await? else { return Ok(()) };
    let wallet = app
        .wallets
        .get(&job.payment.wallet_id)
        .ok_or_else(|| PayoutError::NoWallet { wallet: job.payment.wallet_id.clone() })?
        .clone();
    let said = ask(wallet.as_ref(), &job, now).await;
    let rule = wallet.failures();
    let now = app.clock.now();
    let done = match said {
        Ok(state) => app.store.write(move |tx| conclude(tx, &job, state, rule, now)).await?,
        Err(error) => {
            let (payment, words) = (job.payment.id, error.to_string());
            if error.kind() == Kind::Uncertain {
                app.store.write(move |tx| payments::set_unknown(tx, payment, &words)).await?;
            }
            return Err(error.into());
        }
    };
    if let Some(ring) = done {
        app.ring(ring);
    }
    Ok(())
}

/// The open attempt of the withdraw, written now where there is none.
fn begin(tx: &Tx<'_>, id: WithdrawId, now: Unix) -> Result<Option<Job>, PayoutError> {
    let Some(withdraw) = withdraws::find(tx, id)? else { return Ok(None) };
    let Some(session) = withdraws::live_session(tx, id)? else { return Ok(None) };
    let (Some(payment_hash), Some(bolt11)) = (session.bound_hash, session.bound_bolt11.clone())
    else {
        return Ok(None);
    };
    if let Some(payment) = payments::by_hash(tx, payment_hash)? {
        let open = matches!(payment.state, PaymentState::Pending | PaymentState::Unknown);
        let extra = extra(tx, &withdraw);
        return Ok(open.then_some(Job { payment, withdraw, fresh: false, extra }));
    }
    let machine = machines::find(tx, withdraw.machine_id)?;
    let Some(machine) = machine else { return Ok(None) };
    let expires_at = invoice::expiry(&bolt11).unwrap_or(now);
    let new = NewPayment {
        subject: Subject::Withdraw(id),
        machine_id: withdraw.machine_id,
        wallet_id: machine.wallet_id.clone(),
        payment_hash,
        bolt11,
        amount_sats: withdraw.net_sats,
        fee_limit_sats: fee_limit(withdraw.net_sats),
        invoice_expires_at: expires_at,
    };
    payments::begin(tx, &new, now)?;
    let payment = payments::by_hash(tx, payment_hash)?;
    let extra = extra(tx, &withdraw);
    Ok(payment.map(|payment| Job { payment, withdraw, fresh: true, extra }))
}

/// What the wallet says of the attempt. A hash that it has never heard of may be asked for (again)
/// as long as its invoice lives; a wallet pays one hash once.
async fn ask(wallet: &dyn Wallet, job: &Job, now: Unix) -> Result<PayState, WalletError> {
    if !job.fresh
        && let Some(known) = wallet.lookup(job.payment.payment_hash).await?
    {
        return Ok(known.state);
    }
    if now >= job.payment.invoice_expires_at {
        return Ok(PayState::Failed);
    }
    wallet.pay(job.payment.bolt11.clone(), job.payment.fee_limit_sats, job.extra.clone()).await
}

fn conclude(
    tx: &Tx<'_>,
    job: &Job,
    state: PayState,
    rule: FailureRule,
    now: Unix,
) -> Result<Option<Ring>, PayoutError> {
    let payment = &job.payment;
    // another run may have been quicker
    let current = payments::by_hash(tx, payment.payment_hash)?;
    let open = current
        .as_ref()
        .is_some_and(|c| matches!(c.state, PaymentState::Pending | PaymentState::Unknown));
    if !open {
        return Ok(None);
    }
    match state {
        PayState::Pending => {
            payments::set_unknown(tx, payment.id, "pending at the wallet")?;
            Ok(None)
        }
        PayState::Succeeded { fee, .. } => {
            let routing = whole_sats(fee);
            payments::resolve(tx, payment.id, Resolution::Succeeded(routing), now)?;
            withdraws::set_state(tx, job.withdraw.withdraw_id, WithdrawState::Paid)?;
            let customer = match job.withdraw.purpose {
                Purpose::CashIn => Customer::Withdraw,
                Purpose::Owed => Customer::Claim,
            };
            let entry = paid_out(
                job.withdraw.machine_id,
                customer,
                payment.payment_hash,
                job.withdraw.txid,
                job.withdraw.net_sats,
                routing,
            )?;
            ledger::append(tx, &entry, now)?;
            let (txid, withdraw_id) = (job.withdraw.txid, job.withdraw.withdraw_id);
            let wire_sats = job.withdraw.net_sats;
            let paid = Push::WithdrawPaid(WithdrawPaid { txid, withdraw_id, wire_sats });
            push::queue(tx, job.withdraw.machine_id, &paid, now)?;
            tracing::info!(
                event = "withdraw_paid", machine = %job.withdraw.machine_id,
                txn = %job.withdraw.txid, sats = %job.withdraw.net_sats, routing = %routing
            );
            rung(tx, &job.withdraw)
        }
        PayState::Failed => {
            let first = current.and_then(|c| c.failed_seen_at);
            let ended = now >= payment.invoice_expires_at;
            let twice = first.is_some_and(|first| now.since(first) >= FAILED_APART_S);
            if rule == FailureRule::AtOnce || (ended && twice) {
                payments::resolve(tx, payment.id, Resolution::Failed, now)?;
                return rung(tx, &job.withdraw);
            }
            payments::saw_failure(tx, payment.id, "the wallet says failed", now)?;
            Ok(None)
        }
    }
}

fn rung(read: &Read<'_>, withdraw: &Withdraw) -> Result<Option<Ring>, PayoutError> {
    let machine = machines::find(read, withdraw.machine_id)?;
    let spire = machine.and_then(|machine| machine.machine_npub);
    Ok(spire.map(|spire| Ring::Withdraw { spire }))
}

/// A part of a sat costs the operator a whole one in the books, never the customer.
const fn whole_sats(fee: Msat) -> Sats {
    Sats(fee.0.div_ceil(1_000))
}
