//! One leg: its invoice, bound, and its payment.
//!
//! Promise: an invoice is bound to the leg, with the attempt to pay it, in one transaction, before
//! the paying wallet is asked. An invoice that was made and not bound is never paid. Customers come
//! first: a leg whose sats the wallet does not have beside all that they were promised waits.

use std::sync::Arc;

use bitspire_shared::error::Classified as _;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use serde_json::{Value, json};

use super::pay_request::{self, PayRequestError};
use super::{DistributeError, LEASE_S, Work};
use crate::app::App;
use crate::ids::{LegId, SettlementId};
use crate::ledger::{Earner, leg_paid};
use crate::payout::attempt::{Attempt, End, PATIENCE, Told, inquire, judge};
use crate::payout::fee_limit;
use crate::store::legs::{self, KeptLeg, Leg, LegKind, LegState};
use crate::store::payments::{self, NewPayment, Subject, SubjectKind};
use crate::store::rules::Destination;
use crate::store::{
    Read, StoreError, Tx, claims, ledger, machines, quotes, settlements, withdraws,
};
use crate::wallet::bolt11::Head;
use crate::wallet::{InvoiceRequest, Wallet, WalletError};

/// Seconds for which a leg's invoice can be paid.
const EXPIRY_S: u32 = 3_600;

/// Brings a leg as far as it goes now.
pub(super) async fn carry(
    app: &Arc<App>,
    work: &Work,
    leg: KeptLeg,
) -> Result<(), DistributeError> {
    let attempt = match leg.state {
        LegState::Bound => {
            let Some(hash) = leg.payment_hash else { return Ok(()) };
            let found: Result<_, StoreError> =
                app.store.read(move |read| payments::by_hash(read, hash)).await;
            let Some(payment) = found? else { return Ok(()) };
            Some(Attempt { payment, fresh: false, extra: extra(&leg) })
        }
        LegState::Planned => bound(app, work, &leg).await?,
        _ => None,
    };
    let Some(attempt) = attempt else { return Ok(()) };
    let told = inquire(app, &attempt).await.map_err(DistributeError::Pay)?;
    let (now, work) = (app.clock.now(), work.clone());
    app.store.write(move |tx| conclude(tx, &work, &leg, &attempt, told, now)).await
}

/// What the wallets keep beside the payment; no settlement stamp, for it is no sale.
fn extra(leg: &KeptLeg) -> Value {
    json!({ "type": "leg", "kind": leg.kind, "idempotency_key": leg.idempotency_key })
}

fn wallet<'a>(app: &'a App, id: &str) -> Result<&'a dyn Wallet, DistributeError> {
    let found = app.wallets.get(id).map(AsRef::as_ref);
    found.ok_or_else(|| DistributeError::NoWallet { wallet: id.to_owned() })
}

/// What a wallet says, in time.
async fn in_time<T>(
    wallet: &str,
    asked: impl Future<Output = Result<T, WalletError>>,
) -> Result<T, WalletError> {
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", PATIENCE.as_secs());
        Err(WalletError::Unreachable { wallet: wallet.to_owned(), reason })
    })
}

/// The leg with an invoice of its destination, on record; `None` where it waits for a destination,
/// or is not ours to work on any more.
async fn bound(
    app: &Arc<App>,
    work: &Work,
    leg: &KeptLeg,
) -> Result<Option<Attempt>, DistributeError> {
    let Some(to) = &leg.destination else { return Ok(None) };
    let payer = wallet(app, &work.wallet)?;
    room(app, work, payer, leg.amount_sats, &to.0).await?;
    let (bolt11, payment_hash, expires_at) = match &to.0 {
        Destination::Wallet(receiver) => {
            let (bolt11, head) = invoice(app, payer, receiver, leg).await?;
            (bolt11, head.payment_hash, head.expires_at)
        }
        elsewhere => {
            let failed = |error: PayRequestError| DistributeError::PayRequest {
                to: elsewhere.to_string(),
                kind: error.kind(),
                source: error.into(),
            };
            let allowed = &app.config.outgoing_allowed;
            let url = pay_request::place(elsewhere, allowed).map_err(failed)?;
            let (amount, network, now) = (leg.amount_sats, payer.network(), app.clock.now());
            let made = pay_request::invoice(&url, amount, &network, allowed, now).await;
            let made = made.map_err(failed)?;
            (made.bolt11, made.payment_hash, made.expires_at)
        }
    };
    let new = NewPayment {
        subject: Subject::Leg(leg.id),
        machine_id: work.machine,
        wallet_id: work.wallet.clone(),
        payment_hash,
        bolt11,
        amount_sats: leg.amount_sats,
        fee_limit_sats: fee_limit(leg.amount_sats),
        invoice_expires_at: expires_at,
    };
    let (now, id, extra) = (app.clock.now(), leg.id, extra(leg));
    let (settlement, token) = (work.id, work.token.clone());
    let bind = app.store.write(move |tx| {
        if !settlements::take(tx, settlement, &token, now.after(LEASE_S), now)? {
            return Ok(None);
        }
        legs::bind(tx, id, new.payment_hash)?;
        payments::begin(tx, &new, now)?;
        payments::by_hash(tx, new.payment_hash)
    });
    let payment: Result<_, StoreError> = bind.await;
    Ok(payment?.map(|payment| Attempt { payment, fresh: true, extra }))
}

/// Whether what a wallet pays there never leaves its node.
fn stays(app: &App, payer: &str, to: &Destination) -> bool {
    let Destination::Wallet(receiver) = to else { return false };
    let wallet = |id: &str| app.config.wallets.get(id);
    wallet(payer).zip(wallet(receiver)).is_some_and(|(payer, other)| payer.is_beside(other))
}

/// Holds the wallet against the leg, all that its machine's customers have a right to, and the legs
/// that are under way (this one is not yet) or kept for providers.
async fn room(
    app: &App,
    work: &Work,
    payer: &dyn Wallet,
    amount: Sats,
    to: &Destination,
) -> Result<(), DistributeError> {
    let machine = work.machine;
    // before the balance: what is paid in between counts twice then, never not at all
    let promised = app.store.read(move |read| promised(read, machine)).await?;
    let balance: Msat = in_time(payer.id(), payer.balance())
        .await
        .map_err(|error| DistributeError::Pay(error.into()))?;
    let balance = balance.to_sats_floor();
    let routing = if stays(app, &work.wallet, to) { Sats::ZERO } else { fee_limit(amount) };
    let needed = amount.plus(routing)?;
    if promised.plus(needed)? <= balance {
        return Ok(());
    }
    Err(DistributeError::NoRoom { needed, promised, balance })
}

/// What a machine's customers were promised or are owed and what routing it may cost, with what other
/// legs may still take and what is kept for providers.
fn promised(read: &Read<'_>, machine: crate::ids::MachineId) -> Result<Sats, DistributeError> {
    let withdraws = withdraws::unpaid(read, machine)?;
    let owed = claims::unassigned(read, machine)?;
    let promised = withdraws.plus(owed)?.plus(quotes::reserved(read, machine)?)?;
    let routing = if promised == Sats::ZERO { Sats::ZERO } else { fee_limit(promised) };
    let legs = payments::under_way(read, machine, SubjectKind::Leg)?;
    Ok(promised.plus(routing)?.plus(legs)?.plus(legs::kept_sats(read, machine)?)?)
}

/// An invoice of the receiving wallet for exactly the leg.
async fn invoice(
    app: &App,
    payer: &dyn Wallet,
    receiver: &str,
    leg: &KeptLeg,
) -> Result<(String, Head), DistributeError> {
    let id = receiver.to_owned();
    let of: Result<_, StoreError> =
        app.store.read(move |read| machines::by_wallet(read, &id)).await;
    if let Some(machine) = of? {
        let (wallet, machine) = (receiver.to_owned(), machine.id);
        return Err(DistributeError::MachinesWallet { wallet, machine });
    }
    let target = wallet(app, receiver)?;
    let request = InvoiceRequest {
        amount: leg.amount_sats,
        memo: format!("{} {}", leg.kind, leg.idempotency_key),
        expiry_s: EXPIRY_S,
        extra: extra(leg),
    };
    let made = in_time(receiver, target.make_invoice(request)).await;
    let made = made.map_err(DistributeError::Receiver)?;
    let wrong = |got: String| DistributeError::Invoice { expected: leg.amount_sats, got };
    let head = Head::read(&made.bolt11).map_err(wrong)?;
    let exact = head.amount == leg.amount_sats.to_msat().ok()
        && head.payment_hash == made.payment_hash
        && head.network == payer.network();
    match exact {
        true => Ok((made.bolt11, head)),
        false => Err(wrong(format!("{:?} on {:?}", head.amount, head.network))),
    }
}

/// Records how the payment stands, with what follows for the leg and the books.
fn conclude(
    tx: &Tx<'_>,
    work: &Work,
    leg: &KeptLeg,
    attempt: &Attempt,
    told: Told,
    now: Unix,
) -> Result<(), DistributeError> {
    match judge(tx, attempt, told, now)? {
        End::Open => Ok(()),
        End::Failed => Ok(legs::end(tx, leg.id, false, now)?),
        End::Paid { routing } => {
            legs::end(tx, leg.id, true, now)?;
            let earner = earner(leg, work.operator);
            let (hash, amount) = (attempt.payment.payment_hash, leg.amount_sats);
            let entry = leg_paid(work.machine, earner, hash, work.txid, amount, routing)?;
            ledger::append(tx, &entry, now)?;
            tracing::info!(
                event = "leg_paid", settlement = %work.id, leg = %leg.id, kind = %leg.kind,
                machine = %work.machine, sats = %amount, routing = %routing
            );
            Ok(())
        }
    }
}

/// Ends a leg's payment by a person's word.
///
/// # Errors
/// [`DistributeError`].
pub(crate) fn close(
    tx: &Tx<'_>,
    id: LegId,
    attempt: &Attempt,
    told: Told,
    now: Unix,
) -> Result<(), DistributeError> {
    let gone = |settlement, what| DistributeError::Broken { settlement, what };
    let leg = legs::find(tx, id)?.ok_or_else(|| gone(SettlementId(0), "its leg is gone"))?;
    let of = leg.settlement_id;
    let settlement = settlements::find(tx, of)?.ok_or_else(|| gone(of, "it is gone"))?;
    let machine = machines::find(tx, settlement.machine_id)?;
    let machine = machine.ok_or_else(|| gone(of, "its machine is gone"))?;
    let work = Work {
        id: of,
        machine: settlement.machine_id,
        operator: machine.operator_id,
        wallet: settlement.wallet_id.clone(),
        txid: settlement.txid,
        token: String::new(),
    };
    conclude(tx, &work, &leg, attempt, told, now)
}

/// Whose the sats of such a leg are until it is paid.
pub(crate) fn earner(leg: &Leg, operator: crate::ids::OperatorId) -> Earner {
    match (leg.kind, leg.lp_id) {
        (LegKind::SuperFee, _) => Earner::Super,
        (_, Some(lp)) => Earner::Lp(lp),
        (_, None) => Earner::Operator(operator),
    }
}
