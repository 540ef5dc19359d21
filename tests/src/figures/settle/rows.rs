//! The rows of settlements alone: nothing is decided, and nothing comes to the disk.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bitspire_operator::ids::OperatorId;
use bitspire_operator::ledger;
use bitspire_operator::store::outbox::NewPush;
use bitspire_operator::store::quotes::{self, Quote};
use bitspire_operator::store::settlements::{
    self, Consequences, Distribution, Settlement, SettlementStatus,
};
use bitspire_operator::store::{Recorded, StoreError, Tx, invoices};
use bitspire_shared::ids::PushId;
use bitspire_shared::money::Sats;
use bitspire_shared::split::{Split, Terms};
use serde_json::json;

use super::shop::{Shop, random};

/// How it ended: what was written is always undone.
enum Undone {
    Took(Duration),
    Failed(anyhow::Error),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// How many settlements' rows (settlement, ledger, push, invoice) one core writes a second.
pub(super) async fn per_s(shop: &Shop, count: u32) -> Result<f64> {
    let sales = shop.unpaid(count)?;
    let pushes = sales.iter().map(|_| random().map(PushId::from_bytes));
    let pushes = pushes.collect::<Result<Vec<_>>>()?;
    let written = shop.app.store.write::<(), Undone, _>(move |tx| {
        for (quote, invoice) in &sales {
            quotes::insert(tx, quote)?;
            invoices::insert(tx, invoice)?;
        }
        let started = Instant::now();
        for ((quote, invoice), push) in sales.iter().zip(pushes) {
            settle(tx, quote, invoice, push).map_err(Undone::Failed)?;
        }
        Err(Undone::Took(started.elapsed()))
    });
    match written.await {
        Err(Undone::Took(took)) => Ok(f64::from(count) / took.as_secs_f64()),
        Err(Undone::Failed(error)) => Err(error),
        Ok(()) => bail!("expected that it is undone"),
    }
}

fn settle(tx: &Tx<'_>, quote: &Quote, invoice: &invoices::Invoice, push: PushId) -> Result<()> {
    let (machine, hash, now) = (quote.machine_id, invoice.payment_hash, quote.created_at);
    let split = Split::new(Terms {
        direction: quote.direction,
        wire: quote.wire_sats,
        principal: quote.principal_sats,
        fee: quote.fee_sats,
        owed: Sats::ZERO,
        platform: quote.platform_fee_ppm,
    })?;
    let parts = split.parts();
    let row = Settlement {
        payment_hash: hash,
        machine_id: machine,
        wallet_id: "w1".into(),
        direction: quote.direction,
        status: SettlementStatus::Accepted,
        wire_sats: quote.wire_sats,
        extra: invoice.stamp.clone(),
        reason: None,
        txid: Some(quote.txid),
        quote_id: Some(quote.quote_id),
        withdraw_id: None,
        principal_sats: Some(parts.principal),
        platform_fee_sats: Some(parts.platform_fee),
        operator_fee_sats: Some(parts.operator_fee),
        owed_sats: Some(parts.owed),
        exchange_rate: Some(quote.rate_nano.to_decimal()),
        fiat_minor: Some(quote.fiat_minor),
        fiat_code: Some(quote.fiat_code),
        fees_event_id: Some(quote.fees_event_id),
        request_event_id: Some(invoice.request_event_id),
        fee_mismatch_sats: None,
        short: false,
        settled_at: now,
        recorded_at: now,
        dispense_outcome: None,
        reported_at: None,
        distribution: Distribution::Held,
        hold_reason: Some("awaits_report".into()),
        claim_token: None,
        lease_until: None,
    };
    let body = json!({ "payment_hash": hash, "txid": quote.txid });
    let with = Consequences {
        entries: vec![ledger::settled(machine, OperatorId(1), hash, Some(quote.txid), &split)?],
        owed: Vec::new(),
        pushes: vec![NewPush {
            machine_id: machine,
            push: "payment_settled",
            push_id: push,
            body,
            expires_at: now.after(600),
            not_before: now,
        }],
    };
    match settlements::record(tx, &row, &with)? {
        Recorded::New(_) => {}
        Recorded::Known(id) => bail!("settlement {id} was there before"),
    }
    Ok(invoices::set_state(tx, hash, invoices::InvoiceState::Settled)?)
}
