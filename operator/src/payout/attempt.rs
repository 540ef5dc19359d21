//! One attempt to pay an invoice, whoever is paid: what its wallet is asked, and what its answer means.
//!
//! Promise: the attempt, with the invoice's hash, was durable before it came here. A hash that its
//! wallet may know is looked up before it is asked for again.
//!
//! States: pending -> succeeded | failed, or unknown in between. Unknown never turns into failed by
//! waiting: only the wallet's own word does, as final as its kind of wallet gives it
//! ([`FailureRule`]), or that a wallet which knows all its payments does not know this one
//! ([`Wallet::absence_is_final`]).
//!
//! Failure policy: an unreachable wallet, a refusal and a lost answer leave the attempt open.

use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::crash;
use serde_json::{Value, json};

use super::PayoutError;
use crate::app::App;
use crate::ids::PaymentId;
use crate::store::payments::{self, Payment, PaymentState, Resolution, SubjectKind};
use crate::store::{Kept, StoreError, Tx, log};
use crate::wallet::{FailureRule, PayState, Wallet, WalletError};

/// How long one wallet may take to answer, so that a payment that somebody holds back keeps no
/// place for ever. Nothing is concluded from it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds between two answers "failed" that make one final.
const FAILED_APART_S: u64 = 600;

/// An attempt that is not final.
pub(crate) struct Attempt {
    /// As it stands in the database.
    pub(crate) payment: Kept<PaymentId, Payment>,
    /// Whether this run wrote it, so that the wallet cannot know of it yet.
    pub(crate) fresh: bool,
    /// What the wallet keeps beside the payment.
    pub(crate) extra: Value,
}

/// What is known of an attempt.
enum Said {
    /// The wallet's own word.
    State(PayState),
    /// The invoice has expired and the wallet has never heard of its hash.
    Absent,
    /// The invoice expired before any wallet was asked.
    NeverAsked,
    /// A person's, where no wallet says: what routing cost, or that it was not paid.
    Person(Option<Sats>),
}

/// A wallet's answer, and how final its answers are.
pub(crate) struct Told {
    said: Said,
    rule: FailureRule,
    absence_is_final: bool,
}

impl Told {
    /// A person's word, where the wallet never says: what routing cost of a payment that was made.
    pub(crate) const fn by_a_person(paid: Option<Sats>) -> Self {
        let rule = FailureRule::AtOnce;
        Self { said: Said::Person(paid), rule, absence_is_final: false }
    }
}

/// What an attempt has come to.
pub(crate) enum End {
    /// Nothing final.
    Open,
    /// Paid; what routing cost.
    Paid {
        /// In whole sats.
        routing: Sats,
    },
    /// Finally not paid.
    Failed,
}

/// Asks the attempt's wallet to pay, or what became of it.
///
/// # Errors
/// [`PayoutError`]; an answer that was lost is on record as unknown then.
pub(crate) async fn inquire(app: &App, attempt: &Attempt) -> Result<Told, PayoutError> {
    let wallet_id = &attempt.payment.wallet_id;
    let wallet = app.wallets.get(wallet_id);
    let wallet = wallet.ok_or_else(|| PayoutError::NoWallet { wallet: wallet_id.clone() })?;
    let asked = ask(wallet.as_ref(), attempt, app.clock.now());
    let said = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", PATIENCE.as_secs());
        Err(WalletError::Unknown { wallet: wallet_id.clone(), reason })
    });
    match said {
        Ok(said) => {
            let (rule, absence_is_final) = (wallet.failures(), wallet.absence_is_final());
            Ok(Told { said, rule, absence_is_final })
        }
        Err(error) => {
            let (payment, words) = (attempt.payment.id, error.to_string());
            if error.kind() == Kind::Uncertain {
                app.store.write(move |tx| payments::set_unknown(tx, payment, &words)).await?;
            }
            Err(error.into())
        }
    }
}

/// What the wallet says of the attempt. A hash that it has never heard of may be asked for (again)
/// as long as its invoice lives; a wallet pays one hash once.
async fn ask(wallet: &dyn Wallet, attempt: &Attempt, now: Unix) -> Result<Said, WalletError> {
    let payment = &attempt.payment;
    let known = match attempt.fresh {
        true => None,
        false => wallet.lookup_payment(payment.payment_hash).await?,
    };
    if let Some(known) = known {
        return Ok(Said::State(known.state));
    }
    if now >= payment.invoice_expires_at {
        return Ok(if attempt.fresh { Said::NeverAsked } else { Said::Absent });
    }
    let extra = attempt.extra.clone();
    let whom = match payment.subject {
        SubjectKind::Withdraw => "withdraw",
        SubjectKind::Leg => "leg",
    };
    crash::point("payout.before_pay", whom);
    let paid = wallet.pay(payment.bolt11.clone(), payment.fee_limit_sats, extra).await;
    crash::point("payout.after_pay", whom);
    paid.map(Said::State)
}

/// Records what the answer means for the attempt. What else follows from its end is for the caller,
/// in the same transaction.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn judge(
    tx: &Tx<'_>,
    attempt: &Attempt,
    told: Told,
    now: Unix,
) -> Result<End, StoreError> {
    let payment = &attempt.payment;
    // another run may have been quicker
    let current = payments::by_hash(tx, payment.payment_hash)?;
    let open = current
        .as_ref()
        .is_some_and(|c| matches!(c.state, PaymentState::Pending | PaymentState::Unknown));
    if !open {
        return Ok(End::Open);
    }
    let (words, at_once) = match told.said {
        Said::State(PayState::Pending) => {
            payments::set_under_way(tx, payment.id)?;
            return Ok(End::Open);
        }
        Said::State(PayState::Succeeded { fee, .. }) => {
            return paid(tx, payment, whole_sats(fee), now);
        }
        Said::Person(Some(routing)) => return paid(tx, payment, routing, now),
        Said::Person(None) => ("a person says that it was not paid", true),
        Said::State(PayState::Failed) => {
            ("the wallet says failed", told.rule == FailureRule::AtOnce)
        }
        Said::Absent if !told.absence_is_final => {
            hold(tx, payment, now)?;
            return Ok(End::Open);
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
            event = "payout_failed", machine = %payment.machine_id,
            payment_hash = %payment.payment_hash, reason = words
        );
        return Ok(End::Failed);
    }
    match ended {
        true => payments::saw_failure(tx, payment.id, words, now)?,
        // while the invoice lives a node may still hold the payment: this does not count
        false => payments::set_unknown(tx, payment.id, words)?,
    }
    Ok(End::Open)
}

fn paid(
    tx: &Tx<'_>,
    payment: &Kept<PaymentId, Payment>,
    routing: Sats,
    now: Unix,
) -> Result<End, StoreError> {
    tell_excess(tx, payment, routing, now)?;
    payments::resolve(tx, payment.id, Resolution::Succeeded(routing), now)?;
    Ok(End::Paid { routing })
}

/// The wallet does not know the hash, and may have paid it all the same: the attempt stays unknown,
/// whoever is to be paid waits, and a person is told once to look into the wallet's own history.
fn hold(tx: &Tx<'_>, payment: &Kept<PaymentId, Payment>, now: Unix) -> Result<(), StoreError> {
    let words = "the wallet does not know it, which does not mean that it did not pay";
    payments::set_unknown(tx, payment.id, words)?;
    let (action, hash, machine) = ("payout.held", payment.payment_hash, payment.machine_id);
    let for_ever = Unix(i64::MAX.unsigned_abs());
    if log::use_nonce(tx, action, &hash.to_string(), for_ever)? {
        let detail = json!({
            "payment_hash": hash, "machine": machine, "wallet": payment.wallet_id,
            "sats": payment.amount_sats, "reason": words,
        });
        log::by_service(tx, action, &format!("payment:{hash}"), detail, now)?;
        tracing::error!(
            event = "payout_held", %machine, subject = %payment.subject_id, payment_hash = %hash,
            reason = words
        );
    }
    Ok(())
}

/// Some wallets take no fee limit: what they spent beyond it is booked all the same, and told.
fn tell_excess(tx: &Tx<'_>, payment: &Payment, routing: Sats, now: Unix) -> Result<(), StoreError> {
    let limit = payment.fee_limit_sats;
    if routing > limit {
        let (machine, hash) = (payment.machine_id, payment.payment_hash);
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

/// A part of a sat costs the operator a whole one in the books, never whoever is paid.
const fn whole_sats(fee: Msat) -> Sats {
    Sats(fee.0.div_ceil(1_000))
}
