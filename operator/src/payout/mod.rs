//! Payouts to customers: the one bound invoice of a withdraw, paid once.
//!
//! Promise: the attempt, with the invoice's hash, is durable before the wallet is asked; what the
//! wallet said is durable together with the books. Paying is driven by what stands in the database,
//! so a crash at any point is gone on from by the same code.
//!
//! States of an attempt: pending -> succeeded | failed, or unknown in between. Unknown never turns
//! into failed by waiting: only the wallet's own word does, as final as its kind of wallet gives it
//! ([`FailureRule`]), or that a wallet which knows all its payments does not know this one
//! ([`Wallet::absence_is_final`]).
//!
//! Failure policy: an unreachable wallet, a refusal and a lost answer leave the attempt open; it is
//! looked up by its hash and, where the wallet has never heard of it, the same invoice is asked for
//! again until it expires. Each withdraw is driven once at a time, beside the others, so that none
//! waits for another's wallet; one that stays open rests longer each time.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::WithdrawId;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::rpc::{Push, WithdrawPaid};
use bitspire_shared::time::Unix;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::app::{App, Ring};
use crate::ids::PaymentId;
use crate::ledger::{Customer, LedgerError, paid_out};
use crate::lnurl::claims;
use crate::lnurl::invoice::{self, InvoiceRefusal};
use crate::rpc::push;
use crate::settle;
use crate::store::payments::{self, NewPayment, PaymentState, Resolution, Subject};
use crate::store::withdraws::{self, Purpose, Withdraw, WithdrawState};
use crate::store::{Kept, Read, StoreError, Tx, ledger, log, machines};
use crate::wallet::{FailureRule, PayState, Wallet, WalletError};

/// How often the database is looked into; a bound invoice is paid at once.
const ROUND: Duration = Duration::from_secs(5);

/// Payouts under way at once.
const AT_ONCE: usize = 16;

/// How long one wallet may take to answer, so that a payment that somebody holds back keeps no
/// place for ever. Nothing is concluded from it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest rest of a payout between two tries; the first is [`ROUND`], each is twice the last.
const LONGEST_REST: Duration = Duration::from_secs(300);

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
    /// What was bound is no invoice.
    #[error("payout: the bound invoice does not read")]
    Invoice(#[from] InvoiceRefusal),
}

impl Classified for PayoutError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Ledger(_) | Self::Invoice(_) => Kind::Misuse,
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
    let mut bell = app.listen();
    let mut worker = Worker::new(Arc::clone(app));
    let stop = app.stop.clone();
    app.tasks.spawn(async move {
        while !stop.is_cancelled() {
            if let Err(error) = worker.look().await {
                tracing::warn!(event = "payout_round_failed", error = ?error);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(ROUND) => {}
                () = rung_for_withdraw(&mut bell) => {}
                Some(()) = worker.next_done() => {}
            }
        }
        // what was asked of a wallet is answered, if it comes in time
        worker.finish().await;
    });
}

/// Hints about other things do not wake the worker; after lost ones it looks.
async fn rung_for_withdraw(bell: &mut broadcast::Receiver<Ring>) {
    while let Ok(ring) = bell.recv().await {
        if matches!(ring, Ring::Withdraw { .. }) {
            return;
        }
    }
}

/// Drives payouts side by side, each of them once at a time.
struct Worker {
    app: Arc<App>,
    running: FuturesUnordered<BoxFuture<'static, (WithdrawId, Result<(), PayoutError>)>>,
    busy: HashSet<WithdrawId>,
    /// Payouts that did not come to an end: until when each rests, and for how long.
    resting: HashMap<WithdrawId, (Instant, Duration)>,
}

impl Worker {
    fn new(app: Arc<App>) -> Self {
        let (busy, resting) = (HashSet::new(), HashMap::new());
        Self { app, running: FuturesUnordered::new(), busy, resting }
    }

    /// Ends what is overdue and begins with every payout that is not final and does not rest.
    async fn look(&mut self) -> Result<(), PayoutError> {
        let now = self.app.clock.now();
        let overdue: Vec<Withdraw> =
            self.app.store.read(move |read| withdraws::overdue(read, now)).await?;
        for withdraw in overdue {
            let id = withdraw.withdraw_id;
            let expired = self.app.store.write(move |tx| claims::expire(tx, id, now)).await;
            // one that cannot be booked keeps no other customer from their sats
            if let Err(error) = expired {
                tracing::error!(event = "withdraw_not_expired", withdraw = %id, error = ?error);
            }
        }
        let open = self.app.store.read(withdraws::bound).await?;
        self.resting.retain(|id, _| open.contains(id));
        let moment = Instant::now();
        for id in open {
            let rests = self.resting.get(&id).is_some_and(|(until, _)| *until > moment);
            if rests || self.running.len() >= AT_ONCE || !self.busy.insert(id) {
                continue;
            }
            let app = Arc::clone(&self.app);
            self.running.push(Box::pin(async move { (id, drive(&app, id).await) }));
        }
        Ok(())
    }

    /// Waits for one payout to end or to rest; `None` where none is under way.
    async fn next_done(&mut self) -> Option<()> {
        let (id, driven) = self.running.next().await?;
        self.busy.remove(&id);
        if let Err(error) = driven {
            tracing::info!(event = "payout_open", withdraw = %id, error = ?error);
        }
        let last = self.resting.get(&id).map(|(_, rest)| rest.saturating_mul(2));
        let rest = last.unwrap_or(ROUND).min(LONGEST_REST);
        self.resting.insert(id, (Instant::now() + rest, rest));
        Some(())
    }

    async fn finish(&mut self) {
        while self.next_done().await.is_some() {}
    }
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

/// What is known of an attempt.
enum Said {
    /// The wallet's own word.
    State(PayState),
    /// The invoice has expired and the wallet has never heard of its hash.
    Absent,
    /// The invoice expired before any wallet was asked.
    NeverAsked,
}

/// Pays the bound invoice of one withdraw, or finds out what became of it.
async fn drive(app: &Arc<App>, id: WithdrawId) -> Result<(), PayoutError> {
    let now = app.clock.now();
    let Some(job) = app.store.write(move |tx| begin(tx, id, now)).await? else { return Ok(()) };
    let wallet_id = &job.payment.wallet_id;
    let wallet = app.wallets.get(wallet_id);
    let wallet = wallet.ok_or_else(|| PayoutError::NoWallet { wallet: wallet_id.clone() })?;
    let said = tokio::time::timeout(PATIENCE, ask(wallet.as_ref(), &job, now)).await;
    let said = said.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", PATIENCE.as_secs());
        Err(WalletError::Unknown { wallet: wallet_id.clone(), reason })
    });
    let word = (wallet.failures(), wallet.absence_is_final());
    let now = app.clock.now();
    let done = match said {
        Ok(said) => app.store.write(move |tx| conclude(tx, &job, said, word, now)).await?,
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
    let expires_at = invoice::expiry(&bolt11)?;
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
async fn ask(wallet: &dyn Wallet, job: &Job, now: Unix) -> Result<Said, WalletError> {
    let known = match job.fresh {
        true => None,
        false => wallet.lookup_payment(job.payment.payment_hash).await?,
    };
    if let Some(known) = known {
        return Ok(Said::State(known.state));
    }
    if now >= job.payment.invoice_expires_at {
        return Ok(if job.fresh { Said::NeverAsked } else { Said::Absent });
    }
    let extra = job.extra.clone();
    let paid = wallet.pay(job.payment.bolt11.clone(), job.payment.fee_limit_sats, extra).await;
    paid.map(Said::State)
}

fn conclude(
    tx: &Tx<'_>,
    job: &Job,
    said: Said,
    (rule, absence_is_final): (FailureRule, bool),
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
    let (words, at_once) = match said {
        Said::State(PayState::Pending) => {
            payments::set_under_way(tx, payment.id)?;
            return Ok(None);
        }
        Said::State(PayState::Succeeded { fee, .. }) => {
            let routing = whole_sats(fee);
            tell_excess(tx, job, routing, now)?;
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
            return rung(tx, &job.withdraw);
        }
        Said::State(PayState::Failed) => ("the wallet says failed", rule == FailureRule::AtOnce),
        Said::Absent if !absence_is_final => {
            hold(tx, job, now)?;
            return Ok(None);
        }
        // whatever kind of wallet: a request that it was sent may still be on its way to its books
        Said::Absent => ("the wallet has never heard of it", false),
        Said::NeverAsked => ("expired before a wallet was asked", true),
    };
    let ended = now >= payment.invoice_expires_at;
    let first = current.and_then(|c| c.failed_seen_at);
    let twice = first.is_some_and(|first| now.since(first) >= FAILED_APART_S);
    if at_once || (ended && twice) {
        payments::resolve(tx, payment.id, Resolution::Failed, now)?;
        tracing::info!(
            event = "payout_failed", machine = %job.withdraw.machine_id,
            txn = %job.withdraw.txid, reason = words
        );
        return rung(tx, &job.withdraw);
    }
    match ended {
        true => payments::saw_failure(tx, payment.id, words, now)?,
        // while the invoice lives a node may still hold the payment: this does not count
        false => payments::set_unknown(tx, payment.id, words)?,
    }
    Ok(None)
}

/// The wallet does not know the hash, and may have paid it all the same: the attempt stays unknown,
/// the customer waits, and a person is told once to look into the wallet's own history.
fn hold(tx: &Tx<'_>, job: &Job, now: Unix) -> Result<(), PayoutError> {
    let (payment, machine) = (&job.payment, job.withdraw.machine_id);
    let words = "the wallet does not know it, which does not mean that it did not pay";
    payments::set_unknown(tx, payment.id, words)?;
    let (action, hash) = ("payout.held", payment.payment_hash);
    let for_ever = Unix(i64::MAX.unsigned_abs());
    if log::use_nonce(tx, action, &hash.to_string(), for_ever)? {
        let detail = json!({
            "payment_hash": hash, "machine": machine, "wallet": payment.wallet_id,
            "sats": payment.amount_sats, "reason": words,
        });
        log::by_service(tx, action, &format!("payment:{hash}"), detail, now)?;
        tracing::error!(
            event = "payout_held", %machine, txn = %job.withdraw.txid, payment_hash = %hash,
            reason = words
        );
    }
    Ok(())
}

/// Some wallets take no fee limit: what they spent beyond it is booked all the same, and told.
fn tell_excess(tx: &Tx<'_>, job: &Job, routing: Sats, now: Unix) -> Result<(), PayoutError> {
    let (payment, limit) = (&job.payment, job.payment.fee_limit_sats);
    if routing > limit {
        let (machine, hash) = (job.withdraw.machine_id, payment.payment_hash);
        let detail = json!({
            "payment_hash": hash, "machine": machine, "wallet": payment.wallet_id,
            "routing_sats": routing, "limit_sats": limit,
        });
        let action = "payout.routing_above_limit";
        log::by_service(tx, action, &format!("payment:{hash}"), detail, now)?;
        tracing::warn!(event = "routing_above_limit", %machine, %routing, %limit);
    }
    Ok(())
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
