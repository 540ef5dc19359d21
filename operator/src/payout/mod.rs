//! Payouts to customers: the one bound invoice of a withdraw, paid once.
//!
//! Promise: the attempt, with the invoice's hash, is durable before the wallet is asked; what the
//! wallet said is durable together with the books. Paying is driven by what stands in the database,
//! so a crash at any point is gone on from by the same code.
//!
//! What an attempt is, and when it ends: see [`attempt`].
//!
//! Failure policy: an unreachable wallet, a refusal and a lost answer leave the attempt open; it is
//! looked up by its hash and, where the wallet has never heard of it, the same invoice is asked for
//! again until it expires. Each withdraw is driven once at a time, beside the others, so that none
//! waits for another's wallet; one that stays open rests longer each time, and after a quarter of an
//! hour the operator is told, once: its customer stands there without their sats.

pub(crate) mod attempt;
pub mod close;
pub(crate) mod rounds;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::WithdrawId;
use bitspire_shared::money::Sats;
use bitspire_shared::rpc::{Push, WithdrawPaid};
use bitspire_shared::time::Unix;
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
use crate::store::payments::{self, NewPayment, Payment, PaymentState, Subject};
use crate::store::withdraws::{self, Purpose, Withdraw, WithdrawState};
use crate::store::{Kept, Read, StoreError, Tx, ledger, log, machines};
use crate::wallet::WalletError;
use attempt::{Attempt, End, Told};
use rounds::{ROUND, Rounds};

type KeptPayment = Kept<PaymentId, Payment>;

/// Payouts under way at once.
const AT_ONCE: usize = 16;
/// After so many seconds a payout that has not ended is told.
const TOLD_AFTER_S: u64 = 900;
/// Payouts that one look tells of.
const AT_A_LOOK: u32 = 100;
/// So far apart are two looks for what is to be told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What the audit log calls a payout that has not ended in time.
pub const WAITING: &str = "payout.waiting";

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
    /// When it last looked for what is to be told.
    told: Option<Instant>,
    /// Each withdraw has a lane of its own.
    rounds: Rounds<WithdrawId, WithdrawId, PayoutError>,
}

impl Worker {
    fn new(app: Arc<App>) -> Self {
        Self { app, told: None, rounds: Rounds::new(AT_ONCE) }
    }

    /// Ends what is overdue, tells what takes too long, and begins with every payout that is not final
    /// and does not rest.
    async fn look(&mut self) -> Result<(), PayoutError> {
        let (store, now) = (&self.app.store, self.app.clock.now());
        if self.told.is_none_or(|last| last.elapsed() >= TOLD_EVERY) {
            if !store.read(move |read| late(read, now)).await?.is_empty() {
                store.write(move |tx| tell_late(tx, now)).await?;
            }
            self.told = Some(Instant::now());
        }
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
        let open: Vec<_> = open.into_iter().map(|id| (id, id)).collect();
        let app = &self.app;
        self.rounds.begin(&open, |id| {
            let app = Arc::clone(app);
            async move { drive(&app, id).await }
        });
        Ok(())
    }

    /// Waits for one payout to end or to rest; `None` where none is under way.
    async fn next_done(&mut self) -> Option<()> {
        let (id, driven) = self.rounds.next_done().await?;
        if let Err(error) = driven {
            tracing::info!(event = "payout_open", withdraw = %id, error = ?error);
        }
        Some(())
    }

    async fn finish(&mut self) {
        while self.next_done().await.is_some() {}
    }
}

/// Payouts that have not ended in time and of which nobody was told.
fn late(read: &Read<'_>, now: Unix) -> Result<Vec<KeptPayment>, StoreError> {
    let since = Unix(now.0.saturating_sub(TOLD_AFTER_S));
    payments::overdue(read, (since, now), WAITING, AT_A_LOOK)
}

/// No customer waits for their sats without a word about it.
fn tell_late(tx: &Tx<'_>, now: Unix) -> Result<(), StoreError> {
    let for_ever = Unix(i64::MAX.unsigned_abs());
    for payment in late(tx, now)? {
        let (hash, machine) = (payment.payment_hash, payment.machine_id);
        if log::use_nonce(tx, WAITING, &hash.to_string(), for_ever)? {
            let detail = json!({
                "payment_hash": hash, "machine": machine, "wallet": payment.wallet_id,
                "sats": payment.amount_sats, "since": payment.started_at,
                "reason": payment.detail,
            });
            log::by_service(tx, WAITING, &format!("payment:{hash}"), detail, now)?;
            tracing::error!(
                event = "payout_waiting", %machine, withdraw = %payment.subject_id,
                payment_hash = %hash
            );
        }
    }
    Ok(())
}

/// What is to be done for one withdraw.
struct Job {
    attempt: Attempt,
    withdraw: Withdraw,
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
async fn drive(app: &Arc<App>, id: WithdrawId) -> Result<(), PayoutError> {
    let now = app.clock.now();
    let Some(job) = app.store.write(move |tx| begin(tx, id, now)).await? else { return Ok(()) };
    let told = attempt::inquire(app, &job.attempt).await?;
    let now = app.clock.now();
    let done = app.store.write(move |tx| conclude(tx, &job, told, now)).await?;
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
        let attempt = Attempt { payment, fresh: false, extra: extra(tx, &withdraw) };
        return Ok(open.then_some(Job { attempt, withdraw }));
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
    Ok(payment.map(|payment| {
        let attempt = Attempt { payment, fresh: true, extra };
        Job { attempt, withdraw }
    }))
}

fn conclude(tx: &Tx<'_>, job: &Job, told: Told, now: Unix) -> Result<Option<Ring>, PayoutError> {
    let (payment, withdraw) = (&job.attempt.payment, &job.withdraw);
    match attempt::judge(tx, &job.attempt, told, now)? {
        End::Open => Ok(None),
        End::Failed => rung(tx, withdraw),
        End::Paid { routing } => {
            withdraws::set_state(tx, withdraw.withdraw_id, WithdrawState::Paid)?;
            let customer = match withdraw.purpose {
                Purpose::CashIn => Customer::Withdraw,
                Purpose::Owed => Customer::Claim,
            };
            let entry = paid_out(
                withdraw.machine_id,
                customer,
                payment.payment_hash,
                withdraw.txid,
                withdraw.net_sats,
                routing,
            )?;
            ledger::append(tx, &entry, now)?;
            let (txid, withdraw_id) = (withdraw.txid, withdraw.withdraw_id);
            let wire_sats = withdraw.net_sats;
            let paid = Push::WithdrawPaid(WithdrawPaid { txid, withdraw_id, wire_sats });
            push::queue(tx, withdraw.machine_id, &paid, now)?;
            tracing::info!(
                event = "withdraw_paid", machine = %withdraw.machine_id, txn = %withdraw.txid,
                sats = %withdraw.net_sats, routing = %routing
            );
            rung(tx, withdraw)
        }
    }
}

fn rung(read: &Read<'_>, withdraw: &Withdraw) -> Result<Option<Ring>, PayoutError> {
    let machine = machines::find(read, withdraw.machine_id)?;
    let spire = machine.and_then(|machine| machine.machine_npub);
    Ok(spire.map(|spire| Ring::Withdraw { spire }))
}
