//! One settlement, looked at alone: from its request to the last leg.
//!
//! Promise: what is looked at is what the whole audit looks at for this settlement, with the same
//! functions: request, quote, stamp, the wallets' own records of each payment, the machine's reports,
//! the entries, debts and legs that follow.
//!
//! Failure policy: as of the whole audit: a wallet that does not answer is a difference.

use std::collections::BTreeMap;

use bitspire_shared::ids::PaymentHash;

use super::gather::{self, Gather, Given};
use super::marks::Marks;
use super::report::Audit;
use super::wallet::Seen;
use super::{promises, signed};
use crate::app::App;
use crate::http::error::in_words;
use crate::ids::{EntryId, SettlementId};
use crate::store::payments::{Payment, Subject};
use crate::store::settlements::Settlement;
use crate::store::{Kept, Read, StoreError, legs, payments, settlements};
use crate::wallet::{Flow, WalletError};

/// A settlement, its reports, and the attempts to pay its legs.
struct Found {
    settlement: Kept<SettlementId, Settlement>,
    payments: Vec<Payment>,
}

fn rows(read: &Read<'_>, id: SettlementId) -> Result<Option<Found>, StoreError> {
    let Some(settlement) = settlements::find(read, id)? else { return Ok(None) };
    let mut payments = Vec::new();
    for leg in legs::of_settlement(read, id)? {
        let all = payments::of_subject(read, Subject::Leg(leg.id))?;
        payments.extend(all.into_iter().map(|kept| kept.row));
    }
    Ok(Some(Found { settlement, payments }))
}

/// Asks a wallet for its own record of a payment.
async fn seen(
    app: &App,
    id: &str,
    hash: PaymentHash,
    flow: Flow,
) -> Option<Result<Option<crate::wallet::Payment>, WalletError>> {
    let wallet = app.wallets.get(id)?;
    Some(match flow {
        Flow::Inbound => wallet.lookup(hash).await,
        Flow::Outbound => wallet.lookup_payment(hash).await,
    })
}

/// Looks at one settlement; `None` where there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn settlement(app: &App, id: SettlementId) -> Result<Option<Audit>, StoreError> {
    let Some(found) = app.store.read(move |read| rows(read, id)).await? else { return Ok(None) };
    let of = &found.settlement;
    let flow = match of.direction {
        bitspire_shared::money::Direction::CashOut => Flow::Inbound,
        bitspire_shared::money::Direction::CashIn => Flow::Outbound,
    };
    let mut asked = vec![(of.wallet_id.clone(), of.payment_hash, flow)];
    for payment in &found.payments {
        asked.push((payment.wallet_id.clone(), payment.payment_hash, Flow::Outbound));
    }
    let (mut wallets, mut silent) = (BTreeMap::<String, Seen>::new(), BTreeMap::new());
    for (id, hash, flow) in asked {
        match seen(app, &id, hash, flow).await {
            None => {}
            Some(Ok(payment)) => {
                let seen = wallets.entry(id).or_default();
                seen.payments.extend(payment.map(|payment| (hash, payment)));
            }
            Some(Err(error)) => drop(silent.insert(id, in_words(&error))),
        }
    }
    let given = Given::of(app, wallets, silent);
    app.store.read(move |read| look(read, &given, id).map(Some)).await
}

fn look(read: &Read<'_>, given: &Given, id: SettlementId) -> Result<Audit, StoreError> {
    let machines = gather::machines(read, given)?;
    let marks = Marks::of(EntryId(0), given.wallets.keys());
    let mut all = Gather::new(read, given, &machines, &marks);
    let Some(Found { settlement, payments }) = rows(read, id)? else {
        return Ok(all.findings.end());
    };
    for (wallet, why) in &given.silent {
        let (subject, expected) = (format!("wallet {wallet}"), "its records");
        all.findings.differ(super::report::Check::Wallet, subject, expected, why);
    }
    all.sale(&settlement)?;
    all.signatures_hold()?;
    if let Some(txid) = settlement.txid {
        for report in settlements::reports(read, settlement.machine_id, txid)? {
            if let Some(machine) = all.machines.get(&report.machine_id) {
                signed::report(&mut all.findings, &machine.keys, &report);
            }
            promises::report(&mut all.findings, &report, Some(&settlement.row));
        }
    }
    all.before_shares(id)?;
    for leg in legs::of_settlement(read, id)? {
        all.leg(&leg)?;
    }
    for payment in &payments {
        all.payout(payment)?;
    }
    Ok(all.findings.end())
}
