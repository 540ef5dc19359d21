//! Distribution: the parts of a settlement on their way out of the machine's wallet.
//!
//! Promise: legs begin only when the machine's own report, or a verdict, has said how the sale ended
//! (a settlement is `pending` from then on). They are derived by one pure function
//! ([`plan`]) and written before anything is asked of anybody; the hash of a leg's one invoice is
//! written before its wallet is asked to pay, and what the wallet said is durable together with the
//! books. A leg is paid again never, and tried again only when the wallet has said "failed" for that
//! very hash, as final as its kind gives it. Legs are independent. No leg takes sats that customers
//! were promised, or that another leg may still take: a machine's settlements are in work one after
//! the other. What liquidity providers get of the principal is reserved, with the fiat that it costs
//! them, in the transaction that writes its leg ([`providers`]).
//!
//! States of a settlement: pending -> processing -> processed, or errored where a leg has failed in
//! each of its rounds, or held where the platform has fees and no wallet. processing is a lease: a
//! crashed worker's ends when the one process that may have the database starts, or runs out, and
//! another takes over; what it left behind is found in the rows.
//!
//! Failure policy: an unreachable wallet, a refusal and a lost answer leave a leg as it is, with the
//! reason beside it, and the settlement in work. What has not ended after a quarter of an hour is
//! told, once for each state that it is in.

pub mod hands;
pub(crate) mod pay;
pub(crate) mod pay_request;
pub(crate) mod plan;
pub(crate) mod providers;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{Nonce, TxnId};
use bitspire_shared::money::{MoneyError, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{SecretError, random};
use serde_json::json;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::app::{App, Ring};
use crate::ids::{MachineId, OperatorId, SettlementId};
use crate::ledger::LedgerError;
use crate::payout::PayoutError;
use crate::payout::rounds::{ROUND, Rounds};
use crate::store::legs::{self, KeptLeg, LegState};
use crate::store::settlements::{self, Distribution};
use crate::store::{Read, StoreError, Tx, log, machines, rules as rows};
use crate::wallet::WalletError;

/// Settlements in work at once.
const AT_ONCE: usize = 8;
/// For how long a worker has a settlement: longer than one leg's wallets may take to answer.
const LEASE_S: u64 = 300;
/// Rounds of a leg without a person's word.
const ROUNDS: i64 = 3;
/// After so many seconds a settlement that is not distributed is told.
const TOLD_AFTER_S: u64 = 900;
/// Settlements that one look tells of, or lets go on.
const AT_A_LOOK: u32 = 100;
/// So far apart are two looks for what is to be told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Why a settlement is held whose platform fee has no wallet to go to.
pub const NO_SUPER_WALLET: &str = "no_super_wallet";
/// What the audit log calls a settlement that is not distributed in time.
pub const WAITING: &str = "distribution.waiting";

/// Why a leg, or a settlement, does not go on now; the next round tries again.
#[derive(Debug, Error)]
pub enum DistributeError {
    /// The database.
    #[error("distribution: the database did not take it")]
    Store(#[from] StoreError),
    /// The books.
    #[error("distribution: the books do not balance; nothing was written")]
    Ledger(#[from] LedgerError),
    /// Amounts that do not fit.
    #[error("distribution: amounts that do not fit")]
    Money(#[from] MoneyError),
    /// The paying wallet.
    #[error("distribution: the payment has not ended")]
    Pay(#[source] PayoutError),
    /// The receiving wallet.
    #[error("distribution: the receiving wallet makes no invoice")]
    Receiver(#[source] WalletError),
    /// The receiver at a Lightning address or an LNURL-pay.
    #[error("distribution: {to} gives no invoice")]
    PayRequest {
        /// The destination.
        to: String,
        /// What now.
        kind: Kind,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A wallet that is not in the configuration any more.
    #[error("distribution: wallet {wallet} is not configured; add it under [wallets]")]
    NoWallet {
        /// Its id.
        wallet: String,
    },
    /// A destination that is a machine's wallet: what comes in there would be taken for a sale's.
    #[error("distribution: wallet {wallet} is machine {machine}'s; name another one in the rules")]
    MachinesWallet {
        /// Its id.
        wallet: String,
        /// Whose it is.
        machine: MachineId,
    },
    /// An invoice that is not what was asked for.
    #[error("distribution: expected an invoice of {expected} sats on the payer's network: {got}")]
    Invoice {
        /// The leg's amount.
        expected: Sats,
        /// What came.
        got: String,
    },
    /// The wallet holds too little beside what customers were promised.
    #[error(
        "distribution: expected {needed} sats (to another node with 0.5 %, at least 5, for routing) \
         beside the {promised} that customers were promised, other legs take or are kept for \
         providers, the wallet has {balance}; it goes on when there is more"
    )]
    NoRoom {
        /// The leg, and what routing may cost where it leaves the node.
        needed: Sats,
        /// What customers have a right to, and what other legs may take, with the routing.
        promised: Sats,
        /// What the wallet has.
        balance: Sats,
    },
    /// Rows that contradict each other.
    #[error("distribution: settlement {settlement}: {what}")]
    Broken {
        /// Which one.
        settlement: SettlementId,
        /// What is wrong.
        what: &'static str,
    },
}

impl Classified for DistributeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Ledger(_) | Self::Money(_) | Self::Broken { .. } => Kind::Misuse,
            Self::Pay(error) => error.kind(),
            Self::Receiver(error) => error.kind(),
            Self::PayRequest { kind, .. } => *kind,
            Self::NoWallet { .. } | Self::MachinesWallet { .. } | Self::Invoice { .. } => {
                Kind::Permanent
            }
            Self::NoRoom { .. } => Kind::Transient,
        }
    }
}

/// Starts the worker: every settlement that may be distributed at once, then in rounds, until the
/// daemon stops.
///
/// # Errors
/// [`SecretError`] without randomness.
pub fn start(app: &Arc<App>) -> Result<(), SecretError> {
    let mut bell = app.listen();
    let mut worker = Worker::new(Arc::clone(app))?;
    let stop = app.stop.clone();
    app.tasks.spawn(async move {
        while !stop.is_cancelled() {
            if let Err(error) = worker.look().await {
                tracing::warn!(event = "distribution_round_failed", error = ?error);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(ROUND) => {}
                () = rung_for_settlement(&mut bell) => {}
                Some(_) = worker.next_done() => {}
            }
        }
        // what was asked of a wallet is answered, if it comes in time
        worker.finish().await;
    });
    Ok(())
}

/// Hints about other things do not wake the worker; after lost ones it looks.
async fn rung_for_settlement(bell: &mut broadcast::Receiver<Ring>) {
    while let Ok(ring) = bell.recv().await {
        if matches!(ring, Ring::Settled { .. }) {
            return;
        }
    }
}

/// Drives settlements side by side, one of each machine at a time.
pub(crate) struct Worker {
    app: Arc<App>,
    /// Whose claims are its own.
    token: String,
    /// Whether the leases of dead workers were ended.
    began: bool,
    /// When it last looked for what is to be told.
    told: Option<Instant>,
    rounds: Rounds<SettlementId, MachineId, DistributeError>,
}

impl Worker {
    fn new(app: Arc<App>) -> Result<Self, SecretError> {
        let token = Nonce::from_bytes(random()?).to_string();
        Ok(Self { app, token, began: false, told: None, rounds: Rounds::new(AT_ONCE) })
    }

    /// Tells what is overdue, lets go on what has a destination now, and begins with every
    /// settlement that may be distributed and does not rest.
    async fn look(&mut self) -> Result<(), DistributeError> {
        let (store, now) = (&self.app.store, self.app.clock.now());
        if !self.began {
            store.write(settlements::end_leases).await?;
            self.began = true;
        }
        if self.told.is_none_or(|last| last.elapsed() >= TOLD_EVERY) {
            if !store.read(move |read| overdue(read, now)).await?.is_empty() {
                store.write(move |tx| tell_overdue(tx, now)).await?;
            }
            self.told = Some(Instant::now());
        }
        if !store.read(move |read| assignable(read, now)).await?.is_empty() {
            store.write(move |tx| release_assigned(tx, now)).await?;
        }
        let open: Result<Vec<_>, StoreError> = store.read(settlements::distributable).await;
        self.begin(&open?);
        Ok(())
    }

    fn begin(&mut self, open: &[(SettlementId, MachineId)]) {
        let (app, token) = (&self.app, &self.token);
        self.rounds.begin(open, |id| {
            let (app, token) = (Arc::clone(app), token.clone());
            async move { drive(&app, id, token).await }
        });
    }

    /// Waits for one settlement to end or to rest; `None` where none is in work.
    async fn next_done(&mut self) -> Option<SettlementId> {
        let (id, driven) = self.rounds.next_done().await?;
        if let Err(error) = driven {
            tracing::error!(event = "distribution_failed", settlement = %id, error = ?error);
        }
        Some(id)
    }

    async fn finish(&mut self) {
        while self.next_done().await.is_some() {}
    }
}

/// A settlement in work.
#[derive(Clone, Debug)]
struct Work {
    id: SettlementId,
    machine: MachineId,
    operator: OperatorId,
    /// The wallet that received or paid, which is the machine's.
    wallet: String,
    txid: Option<TxnId>,
    token: String,
}

/// Brings a settlement as far as it goes now.
async fn drive(app: &Arc<App>, id: SettlementId, token: String) -> Result<(), DistributeError> {
    let now = app.clock.now();
    let Some((work, legs)) = app.store.write(move |tx| begin(tx, id, token, now)).await? else {
        return Ok(());
    };
    for leg in legs {
        let id = leg.id;
        // legs are independent: what keeps one keeps no other
        let Err(error) = pay::carry(app, &work, leg).await else { continue };
        let words = crate::http::error::in_words(&error);
        tracing::info!(event = "leg_open", settlement = %work.id, leg = %id, reason = words);
        app.store.write(move |tx| legs::note(tx, id, &words)).await?;
    }
    let now = app.clock.now();
    app.store.write(move |tx| end(tx, &work, now)).await
}

/// Takes the settlement, and plans it where that was not done; its legs that have not ended. `None`
/// where it is not to be worked on.
fn begin(
    tx: &Tx<'_>,
    id: SettlementId,
    token: String,
    now: Unix,
) -> Result<Option<(Work, Vec<KeptLeg>)>, DistributeError> {
    if !settlements::take(tx, id, &token, now.after(LEASE_S), now)? {
        return Ok(None);
    }
    let broken = |what| DistributeError::Broken { settlement: id, what };
    let settlement = settlements::find(tx, id)?.ok_or_else(|| broken("it is gone"))?;
    let parts = settlement.parts().ok_or_else(|| broken("a refused payment has no parts"))?;
    let machine = machines::find(tx, settlement.machine_id)?;
    let machine = machine.ok_or_else(|| broken("its machine is gone"))?;
    let operator = machine.operator_id;
    let platform = rows::of_super(tx, now)?;
    if legs::of_settlement(tx, id)?.is_empty() {
        let own = rows::of_operator(tx, operator, settlement.machine_id, now)?;
        let (platform, own) = (plan::shares(platform.as_ref()), plan::shares(own.as_ref()));
        let providers = providers::reserve(tx, &settlement, operator, now)?;
        legs::plan(tx, id, &plan::legs(parts, platform, own, &providers)?, now)?;
    } else if let Some((rule, [share])) = plan::shares(platform.as_ref()) {
        legs::assign(tx, id, rule, &share.to)?;
    }
    let mut open = legs::latest(tx, id)?;
    open.retain(|leg| matches!(leg.state, LegState::Planned | LegState::Bound));
    let work = Work {
        id,
        machine: settlement.machine_id,
        operator,
        wallet: settlement.wallet_id.clone(),
        txid: settlement.txid,
        token,
    };
    Ok(Some((work, open)))
}

/// Ends the work on a settlement as its legs stand; it stays in work where one is on its way.
fn end(tx: &Tx<'_>, work: &Work, now: Unix) -> Result<(), DistributeError> {
    let id = work.id;
    if !settlements::take(tx, id, &work.token, now.after(LEASE_S), now)? {
        return Ok(());
    }
    let (mut open, mut waits, mut spent) = (false, false, Vec::new());
    for leg in legs::latest(tx, id)? {
        match leg.state {
            LegState::Planned if leg.rule_id.is_none() => waits = true,
            LegState::Planned | LegState::Bound => open = true,
            LegState::Failed if leg.round < ROUNDS => {
                legs::again(tx, &leg, now)?;
                open = true;
            }
            LegState::Failed => spent.push(leg.id),
            // what is kept for a provider is theirs already, whenever it is settled
            LegState::Paid | LegState::Void | LegState::ByHand | LegState::Kept => {}
        }
    }
    let machine = work.machine;
    if open {
        return Ok(());
    }
    if !spent.is_empty() {
        settlements::finish(tx, id, &work.token, Distribution::Errored)?;
        let detail = json!({ "settlement": id, "legs": spent });
        log::by_service(tx, "distribution.errored", &subject(machine), detail, now)?;
        tracing::error!(event = "distribution_errored", settlement = %id, %machine);
    } else if waits {
        settlements::finish(tx, id, &work.token, Distribution::Pending)?;
        settlements::hold(tx, id, NO_SUPER_WALLET)?;
    } else {
        settlements::finish(tx, id, &work.token, Distribution::Processed)?;
        tracing::info!(event = "distributed", settlement = %id, %machine);
    }
    Ok(())
}

fn subject(machine: MachineId) -> String {
    format!("machine:{machine}")
}

/// Lets a held or errored settlement be distributed (again); where it comes to wait once more, that is
/// told once more.
fn go_on(tx: &Tx<'_>, id: SettlementId) -> Result<(), StoreError> {
    settlements::release(tx, id)?;
    log::forget_of(tx, WAITING, &id.to_string()).map(|_| ())
}

/// Settlements that waited for the platform's wallet, where there is one now.
fn assignable(read: &Read<'_>, now: Unix) -> Result<Vec<SettlementId>, StoreError> {
    match plan::shares(rows::of_super(read, now)?.as_ref()) {
        Some(_) => settlements::held_for(read, NO_SUPER_WALLET, AT_A_LOOK),
        None => Ok(Vec::new()),
    }
}

/// Settlements that waited for the platform's wallet go on when there is one.
fn release_assigned(tx: &Tx<'_>, now: Unix) -> Result<(), StoreError> {
    assignable(tx, now)?.into_iter().try_for_each(|id| go_on(tx, id))
}

/// What is not distributed in time and of which nobody was told how it stands.
fn overdue(read: &Read<'_>, now: Unix) -> Result<Vec<settlements::Overdue>, StoreError> {
    let since = Unix(now.0.saturating_sub(TOLD_AFTER_S));
    settlements::overdue(read, (since, now), WAITING, AT_A_LOOK)
}

/// No accepted payment stays undistributed without a word about it.
fn tell_overdue(tx: &Tx<'_>, now: Unix) -> Result<(), StoreError> {
    let for_ever = Unix(i64::MAX.unsigned_abs());
    for late in overdue(tx, now)? {
        let settlements::Overdue { id, machine, state } = late;
        if log::use_nonce(tx, WAITING, &format!("{id} {state}"), for_ever)? {
            let detail = json!({ "settlement": id, "state": state });
            log::by_service(tx, WAITING, &subject(machine), detail, now)?;
            tracing::error!(event = "undistributed", settlement = %id, %machine, state);
        }
    }
    Ok(())
}
