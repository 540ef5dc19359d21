//! `get_quote`: a price for one transaction.
//!
//! Promise: the quote is a row before it is a reply, with its rate, sources, fees and signature.
//! For cash_in it locks the rate and reserves, in that same transaction, what the whole amount
//! would cost the wallet. The same request again finds its quote by the request's id.
//!
//! A deny-list that the operator has is asked before a new quote, and never about one that was given.
//!
//! The fees are those of the document that the machine last said it applies; before it has said
//! anything, of the one that was signed last: another one's fees the machine would refuse.

use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{PubKey, QuoteId};
use bitspire_shared::money::{Direction, Fiat, Sats};
use bitspire_shared::rpc::{ErrorCode, FeesInForce, GetQuote, Quote, QuoteTerms, Reply};
use bitspire_shared::split::{Charge, FeePair};
use bitspire_shared::time::Unix;
use nostr::Keys;

use super::desk::Call;
use super::failure::{Failure, ensure, refusal};
use super::limits::{self, Funds, Lately};
use super::roster::Route;
use super::{Rpc, random};
use crate::config::Limits;
use crate::deny::{Denied, Sale};
use crate::ids::MachineId;
use crate::rates::{Origin, Price, stated};
use crate::store::documents::{self, DocumentKind};
use crate::store::quotes::{self, Quote as Row};
use crate::store::{JsonText, Read, StoreError, Tx, claims, invoices, legs, volume, withdraws};
use crate::wallet::Wallet;

pub(super) async fn answer(rpc: &Arc<Rpc>, call: Call, body: GetQuote) -> Result<Reply, Failure> {
    let request_id = call.request_id;
    let before = {
        let (desk, call) = (rpc.desk.clone(), call.clone());
        rpc.app.store.read(move |read| Before::look(read, &desk.route(read, &call)?, &call)).await?
    };
    if let Some(row) = before.known {
        let quote = again(&row, &body, before.spire, &rpc.app.service)?;
        return Ok(Reply::ok::<GetQuote>(request_id, &quote)?);
    }
    if let Some(list) = &rpc.deny {
        let fiat = Fiat::new(body.fiat_minor, body.fiat_code);
        let (machine, direction, txid) = (before.machine, body.direction, body.txid);
        let sale = Sale { machine, direction, txid, fiat };
        list.ask(sale, call.now).await.map_err(|denied| match denied {
            Denied::Listed(_) => refusal(ErrorCode::Invalid, denied.to_string()),
            Denied::Silent => refusal(ErrorCode::Internal, denied.to_string()),
        })?;
    }
    let price = rpc.rates.price(body.fiat_code, body.direction, call.now).map_err(|error| {
        match error.kind() {
            Kind::Permanent => refusal(ErrorCode::Invalid, error.to_string()),
            _ => refusal(ErrorCode::Internal, error.to_string()),
        }
    })?;
    let balance = match body.direction {
        Direction::CashOut => Sats::ZERO,
        Direction::CashIn => wallet(rpc, &before.wallet_id)?
            .balance()
            .await
            .map_err(|error| refusal(ErrorCode::WalletUnavailable, error.to_string()))?
            .to_sats_floor(),
    };
    let asked = Asked {
        desk: rpc.desk.clone(),
        service: rpc.app.service.clone(),
        limits: rpc.app.config.limits,
        ttl_s: rpc.app.config.quote_ttl_s,
        quote_id: QuoteId::from_bytes(random()?),
        call,
        body,
        price,
        balance,
        liabilities_before: before.liabilities,
    };
    let quote = rpc.app.store.write(move |tx| asked.make(tx)).await?;
    Ok(Reply::ok::<GetQuote>(request_id, &quote)?)
}

/// The wallet behind an id.
pub(super) fn wallet(rpc: &Rpc, id: &str) -> Result<Arc<dyn Wallet>, Failure> {
    rpc.app.wallets.get(id).cloned().ok_or_else(|| {
        let reason = "the machine's wallet is not configured at the service";
        refusal(ErrorCode::WalletUnavailable, reason).into()
    })
}

/// What is read before wallet and rates are asked.
struct Before {
    spire: PubKey,
    machine: MachineId,
    known: Option<Row>,
    wallet_id: String,
    liabilities: Sats,
}

impl Before {
    fn look(read: &Read<'_>, route: &Route, call: &Call) -> Result<Self, Failure> {
        Ok(Self {
            spire: route.spire,
            machine: route.machine.id,
            known: quotes::by_request(read, route.machine.id, call.request_id)?,
            wallet_id: route.hit.wallet_id.clone(),
            liabilities: liabilities(read, route.machine.id)?,
        })
    }
}

/// Promised to a machine's customers, or owed to them, and not paid; and what legs of sales that are
/// settled are still to carry out of its wallet.
fn liabilities(read: &Read<'_>, machine: MachineId) -> Result<Sats, Failure> {
    let customers = withdraws::unpaid(read, machine)?.plus(claims::unassigned(read, machine)?)?;
    Ok(customers.plus(legs::open_sats(read, machine)?)?)
}

/// The stored quote as a reply.
fn again(row: &Row, body: &GetQuote, spire: PubKey, service: &Keys) -> Result<Quote, Failure> {
    let same = row.txid == body.txid
        && row.direction == body.direction
        && row.claim_hash == body.claim_hash
        && row.fiat_code == body.fiat_code
        && row.fiat_minor <= body.fiat_minor;
    ensure(same, ErrorCode::Conflict, || "this request id was used with another body".into())?;
    let terms = QuoteTerms {
        spire,
        quote_id: row.quote_id,
        direction: row.direction,
        txid: row.txid,
        fiat: Fiat::new(row.fiat_minor, row.fiat_code),
        exchange_rate: row.rate_nano,
        principal_sats: row.principal_sats,
        fee_sats: row.fee_sats,
        wire_sats: row.wire_sats,
        fees_event_id: row.fees_event_id,
        ttl_s: row.ttl_s,
    };
    let origins: Vec<Origin> = serde_json::from_str(row.sources.as_str())?;
    Ok(Quote { quote_sig: row.quote_sig, ..Quote::sign(&terms, stated(&origins), service) })
}

/// Everything that the transaction needs.
struct Asked {
    desk: super::desk::Desk,
    service: Keys,
    limits: Limits,
    ttl_s: u32,
    quote_id: QuoteId,
    call: Call,
    body: GetQuote,
    price: Price,
    balance: Sats,
    liabilities_before: Sats,
}

impl Asked {
    fn make(&self, tx: &Tx<'_>) -> Result<Quote, Failure> {
        let Self { call, body, price, .. } = self;
        let route = self.desk.route(tx, call)?;
        call.keep(tx)?;
        let machine = &route.machine;
        ensure(body.fiat_code == machine.currency, ErrorCode::Invalid, || {
            format!("fiat_code: expected {}, got {}", machine.currency, body.fiat_code)
        })?;
        self.one_transaction(tx, machine.id)?;
        let fees = fees_in_force(tx, machine.id, body.direction)?;
        let (fiat, charge) = match body.direction {
            Direction::CashOut => self.cash_out(tx, machine.id, fees.fees)?,
            Direction::CashIn => self.cash_in(tx, machine, fees.fees)?,
        };
        let terms = QuoteTerms {
            spire: route.spire,
            quote_id: self.quote_id,
            direction: body.direction,
            txid: body.txid,
            fiat,
            exchange_rate: price.rate,
            principal_sats: charge.principal(),
            fee_sats: charge.fee(),
            wire_sats: charge.wire(),
            fees_event_id: fees.event_id,
            ttl_s: self.ttl_s,
        };
        let quote = Quote::sign(&terms, stated(&price.origins), &self.service);
        let row = Row {
            quote_id: quote.quote_id,
            machine_id: machine.id,
            request_id: call.request_id,
            txid: quote.txid,
            claim_hash: body.claim_hash,
            direction: quote.direction,
            fiat_minor: quote.fiat_minor,
            fiat_code: quote.fiat_code,
            rate_nano: quote.exchange_rate,
            sources: JsonText::of(&serde_json::to_value(&price.origins)?),
            platform_fee_ppm: fees.fees.platform(),
            operator_fee_ppm: fees.fees.operator(),
            fees_event_id: quote.fees_event_id,
            principal_sats: quote.principal_sats,
            fee_sats: quote.fee_sats,
            wire_sats: quote.wire_sats,
            ttl_s: quote.ttl_s,
            quote_sig: quote.quote_sig,
            created_at: call.now,
            expires_at: call.now.after(self.ttl_s.into()),
            reserved_sats: match body.direction {
                Direction::CashIn => quote.wire_sats,
                Direction::CashOut => Sats::ZERO,
            },
            reservation_ended_at: None,
        };
        quotes::insert(tx, &row)?;
        Ok(quote)
    }

    /// A transaction has one direction, one claim and one end.
    fn one_transaction(&self, tx: &Tx<'_>, machine: MachineId) -> Result<(), Failure> {
        let Self { body, .. } = self;
        let ended = match body.direction {
            Direction::CashOut => invoices::by_txn(tx, machine, body.txid)?.is_some(),
            Direction::CashIn => withdraws::by_txn(tx, machine, body.txid)?.is_some(),
        };
        ensure(!ended, ErrorCode::Conflict, || {
            "this transaction has its invoice or withdraw already".into()
        })?;
        let used = quotes::claim_is_anothers(tx, machine, body.txid, body.claim_hash)?;
        ensure(!used, ErrorCode::Invalid, || {
            "claim_hash: another transaction has this claim code".into()
        })?;
        let same = quotes::of_txn(tx, machine, body.txid)?.iter().all(|earlier| {
            earlier.direction == body.direction && earlier.claim_hash == body.claim_hash
        });
        ensure(same, ErrorCode::Conflict, || {
            "this transaction was quoted with another direction or claim".into()
        })
    }

    fn lately(&self, tx: &Tx<'_>, machine: MachineId) -> Result<Lately, StoreError> {
        let since = |age: u64| Unix(self.call.now.0.saturating_sub(age));
        let txid = self.body.txid;
        Ok(Lately {
            hour: volume::since(tx, machine, since(3_600), txid)?,
            day: volume::since(tx, machine, since(86_400), txid)?,
        })
    }

    fn cash_out(
        &self,
        tx: &Tx<'_>,
        machine: MachineId,
        fees: FeePair,
    ) -> Result<(Fiat, Charge), Failure> {
        let fiat = Fiat::new(self.body.fiat_minor, self.body.fiat_code);
        let too_much =
            |_| refusal(ErrorCode::OverLimit, format!("{fiat} is more than can be sold"));
        let principal = self.price.rate.principal(fiat, Direction::CashOut).map_err(too_much)?;
        let charge = fees.charge(Direction::CashOut, principal)?;
        let room = limits::cash_out_room(&self.limits, self.lately(tx, machine)?);
        ensure(charge.wire() <= room, ErrorCode::OverLimit, || {
            format!("expected at most {room} sats, {fiat} cost {}", charge.wire())
        })?;
        Ok((fiat, charge))
    }

    fn cash_in(
        &self,
        tx: &Tx<'_>,
        machine: &crate::store::machines::KeptMachine,
        fees: FeePair,
    ) -> Result<(Fiat, Charge), Failure> {
        let full = match machine.cashbox_capacity {
            Some(capacity) => volume::cashbox_notes(tx, machine.id)? >= capacity,
            None => false,
        };
        ensure(!full, ErrorCode::OverLimit, || "the cashbox is full: empty it".into())?;
        let funds = Funds {
            balance: self.balance,
            // what was paid since the balance was read has left it already, or has not: the larger
            liabilities: liabilities(tx, machine.id)?.max(self.liabilities_before),
            reserved: quotes::reserved(tx, machine.id)?,
        };
        let room = limits::cash_in_room(&self.limits, machine, self.lately(tx, machine.id)?, funds);
        let asked = Fiat::new(self.body.fiat_minor, self.body.fiat_code);
        limits::most(asked, self.price.rate, fees, room).ok_or_else(|| {
            let reason = format!("{room} sats can be promised now: no note is worth so little");
            refusal(ErrorCode::OverLimit, reason).into()
        })
    }
}

/// The fees of the document that the machine applies.
fn fees_in_force(
    read: &Read<'_>,
    machine: MachineId,
    direction: Direction,
) -> Result<FeesInForce, Failure> {
    let kind = DocumentKind::Fees;
    let document = match documents::last_applied(read, machine, kind)? {
        Some(applied) => Some(applied),
        None => documents::last_signed(read, machine, kind)?,
    };
    let found = document.and_then(|document| Some((document.event_id?, document.fees()?)));
    let Some((event_id, fees)) = found else {
        let reason = "no fee document is published for this machine";
        return Err(refusal(ErrorCode::FeeMismatch, reason).into());
    };
    Ok(FeesInForce { event_id, fees: fees.of(direction)? })
}

/// The machine of a quote may not ask for another one's.
pub(super) fn own_quote(
    read: &Read<'_>,
    route: &Route,
    id: QuoteId,
    direction: Direction,
) -> Result<Row, Failure> {
    let quote = quotes::find(read, id)?.filter(|quote| quote.machine_id == route.machine.id);
    quote.filter(|quote| quote.direction == direction).ok_or_else(|| {
        refusal(ErrorCode::Invalid, format!("no {direction} quote {id} of this machine")).into()
    })
}
