//! `create_invoice`: the one invoice of a cash_out's quote.
//!
//! Promise: amount, memo, expiry and stamp come from the stored quote; one invoice a quote and a
//! transaction, whatever happens on the way. What the wallet made is checked against what it was
//! asked for before anybody is shown it.
//!
//! The memo cannot carry the customer's claim code: the service knows its hash alone, so that it
//! cannot claim in a customer's place. It names amount, machine and the page where the code from
//! screen or receipt is entered.
//!
//! Where customers' wallets may ask by CLINK, the reply names the offer that brings the same invoice.
//!
//! Failure policy: the wallet is asked between two transactions. If the service dies there, the
//! wallet has an invoice that nobody was told of, so nobody pays it; the repeated request makes
//! another one.

use std::sync::Arc;

use bitspire_shared::money::{Direction, Fiat};
use bitspire_shared::rpc::{CreateInvoice, ErrorCode, Invoice, Reply};
use bitspire_shared::settlement::Stamp;
use bitspire_shell::crash;
use serde_json::Value;

use super::Rpc;
use super::desk::{Call, Taken};
use super::failure::{Failure, ensure, refusal};
use super::get_quote::{own_quote, wallet};
use super::roster::Route;
use crate::clink::Codes;
use crate::store::invoices::{self, Invoice as Row, InvoiceState};
use crate::store::quotes::{self, Quote};
use crate::store::{JsonText, Tx};
use crate::wallet::bolt11::Head;
use crate::wallet::{self, InvoiceRequest};

/// Characters of a machine's name in a memo.
const MAX_NAME: usize = 60;

pub(super) async fn answer(
    rpc: &Arc<Rpc>,
    call: Call,
    body: CreateInvoice,
) -> Result<Reply, Failure> {
    let codes = Codes::of(&rpc.app);
    let begun = {
        let (desk, call, codes) = (rpc.desk.clone(), call.clone(), codes.clone());
        rpc.app.store.write(move |tx| begin(&desk, tx, &call, body, &codes)).await?
    };
    let (route, quote) = match begun {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Wanted(route, quote) => (route, quote),
    };
    let page = format!("{}/c/<code>", rpc.app.config.public_base_url);
    let extra = stamp(&quote, &route, &call)?;
    let request = InvoiceRequest {
        amount: quote.wire_sats,
        memo: memo(&quote, &route.machine.name, &page),
        expiry_s: rpc.app.config.invoice_expiry_s,
        extra: extra.clone(),
    };
    crash::point("invoice.before_make", "cash_out");
    let made = wallet(rpc, &route.hit.wallet_id)?
        .make_invoice(request)
        .await
        .map_err(|error| refusal(ErrorCode::WalletUnavailable, error.to_string()))?;
    crash::point("invoice.after_make", "cash_out");
    check(&made, &quote)?;
    let desk = rpc.desk.clone();
    rpc.app
        .store
        .write(move |tx| {
            // again: a revoke may have committed while the wallet was asked
            let route = match desk.begin(tx, &call, Some(quote.txid))? {
                Taken::Answered(reply) => return Ok(reply),
                Taken::Open(route) => route,
            };
            let result = keep(tx, &call, &quote, &made, extra).map(|row| shown(&row, &codes));
            desk.finish::<CreateInvoice>(tx, &call, &route, result)
        })
        .await
}

enum Begun {
    Answered(Reply),
    Wanted(Box<Route>, Box<Quote>),
}

fn begin(
    desk: &super::desk::Desk,
    tx: &Tx<'_>,
    call: &Call,
    body: CreateInvoice,
    codes: &Codes,
) -> Result<Begun, Failure> {
    let txid = quotes::find(tx, body.quote_id)?.map(|quote| quote.txid);
    let route = match desk.begin(tx, call, txid)? {
        Taken::Answered(reply) => return Ok(Begun::Answered(reply)),
        Taken::Open(route) => route,
    };
    let result = match wanted(tx, call, &route, body) {
        Ok(Wanted::Make(quote)) => return Ok(Begun::Wanted(route, quote)),
        Ok(Wanted::Made(row)) => Ok(shown(&row, codes)),
        Err(failure) => Err(failure),
    };
    desk.finish::<CreateInvoice>(tx, call, &route, result).map(Begun::Answered)
}

enum Wanted {
    Made(Box<Row>),
    Make(Box<Quote>),
}

fn wanted(tx: &Tx<'_>, call: &Call, route: &Route, body: CreateInvoice) -> Result<Wanted, Failure> {
    let quote = own_quote(tx, route, body.quote_id, Direction::CashOut)?;
    // its vault takes leave to dispense only in the name of the key that the price was for
    let since = route.machine.confirmed_at;
    ensure(since.is_some_and(|since| since <= quote.created_at), ErrorCode::QuoteExpired, || {
        "the price was for an earlier pairing of the machine".into()
    })?;
    if let Some(row) = invoices::by_txn(tx, route.machine.id, quote.txid)? {
        ensure(row.quote_id == quote.quote_id, ErrorCode::Conflict, || {
            "this transaction has an invoice for another quote".into()
        })?;
        return Ok(Wanted::Made(Box::new(row)));
    }
    ensure(call.now <= quote.expires_at, ErrorCode::QuoteExpired, || {
        format!("the quote ended {} s ago", call.now.since(quote.expires_at))
    })?;
    Ok(Wanted::Make(Box::new(quote)))
}

fn keep(
    tx: &Tx<'_>,
    call: &Call,
    quote: &Quote,
    made: &wallet::Invoice,
    stamp: Value,
) -> Result<Row, Failure> {
    if let Some(row) = invoices::by_quote(tx, quote.quote_id)? {
        return Ok(row);
    }
    let row = Row {
        quote_id: quote.quote_id,
        machine_id: quote.machine_id,
        txid: quote.txid,
        payment_hash: made.payment_hash,
        bolt11: made.bolt11.clone(),
        wire_sats: quote.wire_sats,
        stamp: JsonText::of(&stamp),
        request_event_id: call.event_id(),
        request_event: call.event_json(),
        created_at: call.now,
        expires_at: made.expires_at,
        state: InvoiceState::Open,
    };
    invoices::insert(tx, &row)?;
    Ok(row)
}

fn shown(row: &Row, codes: &Codes) -> Invoice {
    Invoice {
        noffer: codes.offer(row.quote_id, row.wire_sats),
        payment_hash: row.payment_hash,
        bolt11: row.bolt11.clone(),
        expires_at: row.expires_at,
    }
}

fn stamp(quote: &Quote, route: &Route, call: &Call) -> Result<Value, Failure> {
    let stamp = Stamp {
        direction: quote.direction,
        principal: quote.principal_sats,
        fee: quote.fee_sats,
        exchange_rate: quote.rate_nano.to_decimal(),
        fiat: Fiat::new(quote.fiat_minor, quote.fiat_code),
        txid: Some(quote.txid),
        fees_event_id: Some(quote.fees_event_id),
        sender: route.spire,
        request_event_id: call.event_id(),
    };
    Ok(serde_json::from_str(stamp.to_extra()?.get())?)
}

fn memo(quote: &Quote, machine: &str, page: &str) -> String {
    let fiat = Fiat::new(quote.fiat_minor, quote.fiat_code);
    let machine: String = machine.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    format!("{fiat} in notes at {machine}. With the code on the screen, what is owed: {page}")
}

/// A wallet that makes another invoice than it was asked for is not shown to a customer.
fn check(made: &wallet::Invoice, quote: &Quote) -> Result<(), Failure> {
    let wrong = |what: &str| Failure::Broken(format!("the wallet made an invoice with {what}"));
    let head = Head::read(&made.bolt11).map_err(|_| wrong("no BOLT11 text"))?;
    if head.payment_hash != made.payment_hash {
        return Err(wrong("another payment hash"));
    }
    if head.amount != Some(quote.wire_sats.to_msat()?) {
        return Err(wrong("another amount"));
    }
    Ok(())
}
