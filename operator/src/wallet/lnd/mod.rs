//! LND's REST API.
//!
//! Promise: amounts are LND's own millisats; a payment has LND's fee limit; what became of it is
//! LND's record of its hash, from the router that tracks it.
//!
//! States: `SUCCEEDED` and `FAILED` are final as soon as LND says so: it says "failed" when no part
//! of the payment is in flight any more. An invoice that is `CANCELED` has failed; everything else
//! is pending.
//!
//! Failure policy: as everywhere, [`WalletError::Unreachable`] where nothing was done and
//! [`WalletError::Unknown`] for a payment whose answer is lost or not understood. "Not found" counts
//! only in the words that LND has for an unknown hash: a proxy has others.

#[cfg(test)]
mod double;
mod record;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::time::Duration;

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::HeaderName;
use lightning_invoice::Currency;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::URL_SAFE;
use nostr::secp256k1::PublicKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::bolt11::Head;
use super::node::NodeKey;
use super::{
    Cursor, FailureRule, Flow, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet,
    WalletError, WalletResult,
};
use crate::outgoing::{Answer, Ask, Secret, SendError, Server};
use record::{Balance, Failure, InvoiceRecord, Invoices, Line, Payments};

const MACAROON: HeaderName = HeaderName::from_static("grpc-metadata-macaroon");
/// For how long LND looks for a route, and we for its answer.
const ROUTING_S: u32 = 40;
const PAYING: Duration = Duration::from_secs(50);
/// Records a page of a list.
const PAGE: usize = 100;
/// What such a page may weigh: payments have every try in them.
const PAGE_BYTES: usize = 4 << 20;
/// Pages of one reading of a list.
const PAGES: usize = 1_000;
/// How far back a list is read again, in seconds: it is by when an invoice was made.
const OVERLAP_S: u64 = 86_400;
/// Silence after which the stream of paid invoices is asked for anew.
const SILENCE: Duration = Duration::from_secs(600);
/// Between two tries to be told of payments.
const PAUSE: Duration = Duration::from_secs(5);
/// Hints that wait for whoever is slow.
const HINTS: usize = 1_024;
/// LND's words for a hash that it does not know.
const UNKNOWN: [&str; 3] =
    ["unable to locate invoice", "there are no existing invoices", "payment isn't initiated"];

/// An LND node.
#[derive(Debug)]
pub(crate) struct Lnd {
    id: String,
    server: Server,
    macaroon: Secret,
    network: Currency,
    clock: Clock,
    hints: broadcast::Sender<Hint>,
    key: NodeKey,
}

#[derive(Deserialize)]
struct Made {
    payment_request: String,
}

#[derive(Deserialize)]
struct Info {
    identity_pubkey: String,
}

impl Lnd {
    /// `macaroon` is in hex, as the header has it.
    pub(crate) fn new(
        id: &str,
        server: Server,
        macaroon: Secret,
        network: Currency,
        clock: Clock,
    ) -> Self {
        let hints = broadcast::channel(HINTS).0;
        let (id, key) = (id.to_owned(), NodeKey::default());
        Self { id, server, macaroon, network, clock, hints, key }
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

    /// Asks for something that moves nothing; `None` where LND does not know the hash.
    async fn find<T: DeserializeOwned>(&self, ask: Ask) -> Result<Option<T>, WalletError> {
        let answer = self.server.send(ask.key(MACAROON, &self.macaroon)).await;
        let answer = answer.map_err(|e| self.unreachable(e.to_string()))?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some).map_err(|e| self.refused(e)),
            _ if is_unknown_hash(&answer) => Ok(None),
            // locked, starting, or gone behind its proxy
            status if status.is_server_error() => Err(self.unreachable(answer.words())),
            _ => Err(self.refused(answer.words())),
        }
    }

    async fn read<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, WalletError> {
        self.find(ask).await?.ok_or_else(|| self.refused("it has no answer"))
    }

    async fn make(&self, request: InvoiceRequest) -> Result<Invoice, WalletError> {
        let body = json!({
            "memo": request.memo, "value": request.amount.to_string(),
            "expiry": request.expiry_s.to_string(),
        });
        let made: Made = self.read(Ask::post("/v1/invoices", &body)).await?;
        let head = Head::read(&made.payment_request).map_err(|e| self.refused(e))?;
        if head.amount != request.amount.to_msat().ok() || head.network != self.network {
            let expected = format!("{} sat on {:?}", request.amount, self.network);
            return Err(self.refused(format!("expected an invoice of {expected}, got another")));
        }
        let Head { payment_hash, expires_at, .. } = head;
        Ok(Invoice { payment_hash, bolt11: made.payment_request, expires_at })
    }

    /// A record as a payment, of this hash.
    fn of(
        &self,
        read: Result<Payment, String>,
        hash: PaymentHash,
    ) -> Result<Option<Payment>, WalletError> {
        let payment = read.map_err(|e| self.refused(e))?;
        if payment.payment_hash != hash {
            return Err(self.refused("it answered with another payment"));
        }
        Ok(Some(payment))
    }

    async fn invoice(&self, hash: PaymentHash) -> Result<Option<Payment>, WalletError> {
        let found: Option<InvoiceRecord> =
            self.find(Ask::get(format!("/v1/invoice/{hash}"))).await?;
        found.map_or(Ok(None), |record| self.of(record.payment(), hash))
    }

    /// The first line of the router's word on a payment; more come while it is in flight.
    async fn payment(&self, hash: PaymentHash) -> Result<Option<Payment>, WalletError> {
        let name = URL_SAFE.encode(hash.as_bytes()).replace('=', "%3D");
        let ask = Ask::get(format!("/v2/router/track/{name}")).at_most(PAGE_BYTES);
        let answer = self.server.first_line(ask.key(MACAROON, &self.macaroon)).await;
        let answer = answer.map_err(|e| self.unreachable(e.to_string()))?;
        if is_unknown_hash(&answer) {
            return Ok(None);
        }
        match answer.json::<Line>() {
            Ok(Line { result: Some(record), .. }) => self.of(record.payment(), hash),
            _ if answer.status.is_server_error() => Err(self.unreachable(answer.words())),
            _ => Err(self.refused(answer.words())),
        }
    }

    async fn send(&self, bolt11: &str, limit: Sats) -> Result<PayState, WalletError> {
        let hash = Head::read(bolt11).map_err(|e| self.refused(e))?.payment_hash;
        let body = json!({
            "payment_request": bolt11, "timeout_seconds": ROUTING_S, "no_inflight_updates": true,
            "fee_limit_msat": limit.0.saturating_mul(1_000).to_string(),
        });
        let ask = Ask::post("/v2/router/send", &body).key(MACAROON, &self.macaroon);
        let ask = ask.within(PAYING).at_most(PAGE_BYTES);
        let answer = match self.server.first_line(ask).await {
            Ok(answer) => answer,
            Err(SendError::NotSent(words)) => return Err(self.unreachable(words)),
            Err(SendError::Lost(words)) => return Err(self.unknown(words)),
        };
        if let Ok(Line { result: Some(record), .. }) = answer.json::<Line>() {
            let payment = record.payment().map_err(|e| self.unknown(e))?;
            return match payment.payment_hash == hash {
                true => Ok(payment.state),
                false => Err(self.unknown("it answered with another payment")),
            };
        }
        // an error with another status may be a proxy's
        let said = answer.status == StatusCode::OK && answer.json::<Failure>().is_ok();
        let declined = said || answer.status.is_client_error();
        // its words may be about this request and not about this payment
        match self.payment(hash).await {
            Ok(Some(payment)) => Ok(payment.state),
            Ok(None) if declined => Err(self.refused(answer.words())),
            Ok(None) => Err(self.unknown(answer.words())),
            Err(error) => Err(self.unknown(format!("{}; then {error}", answer.words()))),
        }
    }

    async fn since(&self, cursor: Cursor) -> Result<(Vec<Payment>, Cursor), WalletError> {
        let from = cursor.0.saturating_sub(OVERLAP_S);
        // a clock that ran ahead must not hide what follows
        let now = self.clock.now().0;
        let (mut payments, mut newest) = (Vec::new(), cursor.0);
        for flow in [Flow::Inbound, Flow::Outbound] {
            let mut offset = 0;
            for page in 0.. {
                if page == PAGES {
                    let words = format!("expected the list to end after {PAGES} pages");
                    return Err(self.refused(words));
                }
                let (read, next) = self.page(flow, from, offset).await?;
                let end = read.len() < PAGE;
                for (made, payment) in read {
                    newest = newest.max(made.min(now));
                    match payment {
                        Ok(payment) => payments.push(payment),
                        // it would stop the list for ever
                        Err(reason) => {
                            tracing::error!(event = "wallet_record", wallet = self.id, reason);
                        }
                    }
                }
                if end {
                    break;
                }
                offset = next;
            }
        }
        Ok((payments, Cursor(newest)))
    }

    async fn page(
        &self,
        flow: Flow,
        from: u64,
        offset: u64,
    ) -> Result<(Vec<(u64, Result<Payment, String>)>, u64), WalletError> {
        let query = format!("creation_date_start={from}&index_offset={offset}");
        match flow {
            Flow::Inbound => {
                let path = format!("/v1/invoices?{query}&num_max_invoices={PAGE}");
                let page: Invoices = self.read(Ask::get(path).at_most(PAGE_BYTES)).await?;
                let read = page.invoices.iter().map(|one| (one.made(), one.payment())).collect();
                Ok((read, page.last_index_offset.0))
            }
            Flow::Outbound => {
                let all = "include_incomplete=true";
                let path = format!("/v1/payments?{query}&max_payments={PAGE}&{all}");
                let page: Payments = self.read(Ask::get(path).at_most(PAGE_BYTES)).await?;
                let read = page.payments.iter().map(|one| (one.made(), one.payment())).collect();
                Ok((read, page.last_index_offset.0))
            }
        }
    }

    fn tell(&self, hint: Hint) {
        // nobody watching is no failure: hints are only hints
        let _ = self.hints.send(hint);
    }

    /// Until the stream ends or is silent for long.
    async fn follow(&self) -> Result<StatusCode, SendError> {
        let ask = Ask::get("/v1/invoices/subscribe").key(MACAROON, &self.macaroon);
        let ask = ask.within(SILENCE).at_most(PAGE_BYTES);
        self.server
            .lines(
                ask,
                || self.tell(Hint::Missed),
                |line| {
                    if let Ok(Line::<InvoiceRecord> { result: Some(record), .. }) =
                        serde_json::from_slice(line)
                        && let Ok(payment) = record.payment()
                    {
                        self.tell(Hint::Payment(payment.payment_hash));
                    }
                    ControlFlow::Continue(())
                },
            )
            .await
    }
}

fn is_unknown_hash(answer: &Answer) -> bool {
    let failure = answer.json::<Failure>();
    failure.is_ok_and(|failure| UNKNOWN.iter().any(|words| failure.message().contains(words)))
}

impl Wallet for Lnd {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> Currency {
        self.network.clone()
    }

    fn failures(&self) -> FailureRule {
        FailureRule::AtOnce
    }

    fn absence_is_final(&self) -> bool {
        true
    }

    fn own_node(&self) -> BoxFuture<'_, Option<PublicKey>> {
        let asked = async {
            let info: Info = self.read(Ask::get("/v1/getinfo").at_most(PAGE_BYTES)).await?;
            Ok(info.identity_pubkey)
        };
        Box::pin(self.key.get(&self.id, asked))
    }

    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        Box::pin(self.make(request))
    }

    fn pay(&self, bolt11: String, fee_limit: Sats, _: Value) -> WalletResult<'_, PayState> {
        Box::pin(async move { self.send(&bolt11, fee_limit).await })
    }

    fn lookup(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.invoice(payment_hash))
    }

    fn lookup_payment(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.payment(payment_hash))
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        Box::pin(self.since(since))
    }

    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        Some(Cursor(at.0))
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        Box::pin(async move {
            let balance: Balance = self.read(Ask::get("/v1/balance/channels")).await?;
            Ok(Msat(balance.local_balance.msat.0))
        })
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.follow() => {
                        tracing::info!(event = "wallet_hints_away", wallet = self.id, ?ended);
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        })
    }
}
