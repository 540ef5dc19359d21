//! LNbits (1.6): REST for everything that counts, a websocket for hints.
//!
//! Promise: each request names what it wants in full (`out` is true where nobody says it), amounts
//! are read as the signed millisats that LNbits writes, and what a payment came to is read from the
//! wallet's own record of its hash, with the wallet's key, never from an error's words: LNbits checks
//! the balance before it looks whether an invoice was paid, and answers the status of a hash to
//! anybody, also to whoever has another wallet's key.
//!
//! States: LNbits' `pending`, `success` and `failed` are ours, but `failed` is final only when it
//! was read twice, ten minutes apart, after the invoice's end: LNbits marks a payment failed also
//! when the connection to its node dropped after the node took it.
//!
//! Failure policy: [`WalletError::Unreachable`] where nothing was done; [`WalletError::Unknown`] for
//! every payment whose answer is lost or not understood.
//!
//! LNbits takes no fee limit with a payment: it spends up to its own reserve. A payment is refused
//! where that reserve is above the limit.

#[cfg(test)]
mod double;
mod push;
#[cfg(test)]
mod real;
mod record;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::HeaderName;
use lightning_invoice::Currency;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::bolt11::Head;
use super::{
    Cursor, FailureRule, Flow, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet,
    WalletError, WalletResult,
};
use crate::outgoing::{Answer, Ask, Secret, SendError, Server};
use record::{Page, Record};

const KEY: HeaderName = HeaderName::from_static("x-api-key");
const PAYMENTS: &str = "/api/v1/payments";
/// LNbits answers a payment that its node holds after 5 s; a slow node, and its proxy, take longer.
const PAYING: Duration = Duration::from_secs(50);
/// Records a page of the list.
const PAGE: usize = 200;
/// What such a page may weigh: invoices and stamps.
const PAGE_BYTES: usize = PAGE * 16 * 1_024;
/// Pages of one reading of the list, so that a server that never ends it cannot hold us for ever.
const PAGES: usize = 5_000;
/// How far back a list is read again, in microseconds: a record's time is taken before it is stored.
const OVERLAP: u64 = 60_000_000;
/// Hints that wait for whoever is slow.
const HINTS: usize = 1_024;

/// What a wallet of LNbits needs.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Its admin key.
    pub(crate) admin_key: Secret,
    /// Its invoice key, which LNbits wants in the websocket's address; without it there are no
    /// hints, only polls.
    pub(crate) invoice_key: Option<Secret>,
    /// The chain of the node behind it.
    pub(crate) network: Currency,
}

/// A wallet of an LNbits instance.
#[derive(Debug)]
pub(crate) struct Lnbits {
    id: String,
    server: Server,
    access: Access,
    clock: Clock,
    hints: broadcast::Sender<Hint>,
}

#[derive(Deserialize)]
struct Balance {
    balance: i64,
}

#[derive(Deserialize)]
struct FeeReserve {
    fee_reserve: u64,
}

impl Lnbits {
    pub(crate) fn new(id: &str, server: Server, access: Access, clock: Clock) -> Self {
        Self { id: id.to_owned(), server, access, clock, hints: broadcast::channel(HINTS).0 }
    }

    fn unreachable(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Unreachable { wallet: self.id.clone(), reason: reason.into() }
    }

    fn refused(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Refused { wallet: self.id.clone(), reason: reason.into() }
    }

    fn unknown(&self, reason: impl Into<String>) -> WalletError {
        WalletError::Unknown { wallet: self.id.clone(), reason: reason.into() }
    }

    /// What an answer without what was asked for means, where it moved nothing.
    fn no(&self, answer: &Answer) -> WalletError {
        match answer.status {
            StatusCode::TEMPORARY_REDIRECT => {
                self.unreachable("LNbits is not set up yet: open its page and make its first user")
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.unreachable("too many requests; raise LNBITS_RATE_LIMIT_NO of LNbits")
            }
            status if status.is_server_error() && status.as_u16() != 520 => {
                self.unreachable(answer.words())
            }
            _ => self.refused(answer.words()),
        }
    }

    /// Asks for something that moves nothing.
    async fn read<T: serde::de::DeserializeOwned>(&self, ask: Ask) -> Result<T, WalletError> {
        let answer = self.server.send(ask.key(KEY, &self.access.admin_key)).await;
        let answer = answer.map_err(|e| self.unreachable(e.to_string()))?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => answer.json().map_err(|e| self.refused(e)),
            _ => Err(self.no(&answer)),
        }
    }

    async fn make(&self, request: InvoiceRequest) -> Result<Invoice, WalletError> {
        let body = json!({
            "out": false, "amount": request.amount.0, "unit": "sat", "memo": request.memo,
            "expiry": request.expiry_s, "extra": request.extra,
        });
        let record: Record = self.read(Ask::post(PAYMENTS, &body)).await?;
        let payment = record.payment().map_err(|e| self.refused(e))?;
        let head = Head::read(&record.bolt11).map_err(|e| self.refused(e))?;
        let msat = request.amount.to_msat().ok();
        if payment.flow != Flow::Inbound
            || payment.payment_hash != head.payment_hash
            || head.amount != msat
            || head.network != self.access.network
        {
            let expected = format!("{} sat on {:?}", request.amount, self.access.network);
            return Err(self.refused(format!("expected an invoice of {expected}, got another")));
        }
        let Head { payment_hash, expires_at, .. } = head;
        Ok(Invoice { payment_hash, bolt11: record.bolt11, expires_at })
    }

    /// The wallet's records of a hash, as LNbits' node has them now: at most one each way.
    async fn records(&self, hash: PaymentHash) -> Result<Vec<Payment>, WalletError> {
        let query = format!("payment_hash%5Beq%5D={hash}&recheck_pending=true&limit=10");
        let ask = Ask::get(format!("{PAYMENTS}/paginated?{query}"));
        let page: Page = self.read(ask).await?;
        let mut found = Vec::new();
        for record in &page.data {
            let payment = record.payment().map_err(|e| self.refused(e))?;
            if payment.payment_hash != hash {
                return Err(self.refused("it does not look for a hash: expected LNbits 1.6"));
            }
            found.push(payment);
        }
        Ok(found)
    }

    async fn record(&self, hash: PaymentHash, flow: Flow) -> Result<Option<Payment>, WalletError> {
        Ok(self.records(hash).await?.into_iter().find(|payment| payment.flow == flow))
    }

    async fn hold_fee_limit(&self, bolt11: &str, limit: Sats) -> Result<(), WalletError> {
        let path = format!("{PAYMENTS}/fee-reserve?invoice={bolt11}");
        let FeeReserve { fee_reserve } = self.read(Ask::get(path)).await?;
        if fee_reserve <= limit.0.saturating_mul(1_000) {
            return Ok(());
        }
        Err(self.refused(format!(
            "it may spend {fee_reserve} msat on routing, the limit is {limit} sat; set \
             LNBITS_RESERVE_FEE_MIN to at most 5000 and LNBITS_RESERVE_FEE_PERCENT to at most 0.5"
        )))
    }

    async fn send(&self, text: &str, limit: Sats, extra: Value) -> Result<PayState, WalletError> {
        let hash = Head::read(text).map_err(|e| self.refused(e))?.payment_hash;
        self.hold_fee_limit(text, limit).await?;
        let body = json!({"out": true, "bolt11": text, "extra": extra});
        let ask = Ask::post(PAYMENTS, &body).key(KEY, &self.access.admin_key).within(PAYING);
        let answer = match self.server.send(ask).await {
            Ok(answer) => answer,
            Err(SendError::NotSent(words)) => return Err(self.unreachable(words)),
            Err(SendError::Lost(words)) => return Err(self.unknown(words)),
        };
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => {
                let record: Record = answer.json().map_err(|e| self.unknown(e))?;
                let payment = record.payment().map_err(|e| self.unknown(e))?;
                if payment.payment_hash != hash || payment.flow != Flow::Outbound {
                    return Err(self.unknown("it answered with another payment"));
                }
                Ok(payment.state)
            }
            // turned away at the door
            StatusCode::TEMPORARY_REDIRECT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND => Err(self.no(&answer)),
            // its words may be about this request and not about this payment
            _ => match self.record(hash, Flow::Outbound).await {
                Ok(Some(payment)) => Ok(payment.state),
                Ok(None) if answer.status.is_client_error() || answer.status.as_u16() == 520 => {
                    Err(self.refused(answer.words()))
                }
                Ok(None) => Err(self.unknown(answer.words())),
                Err(error) => Err(self.unknown(format!("{}; then {error}", answer.words()))),
            },
        }
    }

    /// Newest first from LNbits, until what was read before: a record that changes meanwhile moves
    /// to the front and is told twice or next time, never passed over.
    async fn since(&self, cursor: Cursor) -> Result<(Vec<Payment>, Cursor), WalletError> {
        let from = cursor.0.saturating_sub(OVERLAP);
        let now = self.clock.now().0.saturating_mul(1_000_000);
        let (mut payments, mut newest) = (Vec::new(), cursor.0);
        for page in 0..PAGES {
            let offset = page.saturating_mul(PAGE);
            let query = format!("sortby=updated_at&direction=desc&limit={PAGE}&offset={offset}");
            let ask = Ask::get(format!("{PAYMENTS}/paginated?{query}")).at_most(PAGE_BYTES);
            let page: Page = self.read(ask).await?;
            let mut reached = page.data.len() < PAGE;
            for record in &page.data {
                let at = record.updated_us().map_err(|e| self.refused(e))?;
                if at < from {
                    reached = true;
                    break;
                }
                // LNbits' clock may have run ahead for a while: what follows would be passed over
                newest = newest.max(at.min(now));
                match record.payment() {
                    Ok(payment) => payments.push(payment),
                    // it would stop the list for ever
                    Err(reason) => {
                        tracing::error!(event = "wallet_record", wallet = self.id, reason);
                    }
                }
            }
            if reached {
                payments.reverse();
                return Ok((payments, Cursor(newest)));
            }
        }
        Err(self.refused(format!("expected the list to end after {PAGES} pages")))
    }
}

impl Wallet for Lnbits {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> Currency {
        self.access.network.clone()
    }

    fn failures(&self) -> FailureRule {
        FailureRule::TwiceAfterExpiry
    }

    fn absence_is_final(&self) -> bool {
        true
    }

    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        Box::pin(self.make(request))
    }

    fn pay(&self, bolt11: String, fee_limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        Box::pin(async move { self.send(&bolt11, fee_limit, extra).await })
    }

    fn lookup(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.record(payment_hash, Flow::Inbound))
    }

    fn lookup_payment(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.record(payment_hash, Flow::Outbound))
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        Box::pin(self.since(since))
    }

    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        Some(Cursor(at.0.saturating_mul(1_000_000)))
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        Box::pin(async move {
            let Balance { balance } = self.read(Ask::get("/api/v1/wallet")).await?;
            // an overdrawn wallet can pay nothing
            Ok(Msat(u64::try_from(balance).unwrap_or(0)))
        })
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(push::listen(self, stop))
    }
}
