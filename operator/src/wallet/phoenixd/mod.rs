//! phoenixd (0.4 or later), ACINQ's node with an HTTP API.
//!
//! Promise: a payment is taken for made when phoenixd has its preimage: earlier versions call a
//! payment that failed `isPaid`, since it is completed. Where phoenixd
//! answers "not found", it is asked whether it knows the question at all: it gives an unknown
//! payment and an unknown question the same words.
//!
//! States: completed with its preimage, succeeded; completed without, failed; else pending. "Failed"
//! is final only when it was read twice, ten minutes apart, after the invoice's end.
//!
//! Failure policy: as everywhere, [`WalletError::Unreachable`] where nothing was done and
//! [`WalletError::Unknown`] for a payment whose answer is lost or not understood. phoenixd takes no
//! fee limit: its node's one peer charges 0.4 % and 4 sats.

#[cfg(test)]
mod double;
mod record;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;
use lightning_invoice::Currency;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::STANDARD;
use nostr::secp256k1::PublicKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::bolt11::Head;
use super::node::NodeKey;
use super::{
    Cursor, FailureRule, Hint, Invoice, InvoiceRequest, PayState, Payment, Wallet, WalletError,
    WalletResult,
};
use crate::outgoing::{Answer, Ask, Secret, SendError, Server};
use record::{Incoming, Outgoing};

/// What a description may have; phoenixd refuses more.
const DESCRIPTION: usize = 128;
/// phoenixd answers a payment when it has ended.
const PAYING: Duration = Duration::from_secs(50);
/// Records a page of a list.
const PAGE: usize = 100;
/// What such a page may weigh.
const PAGE_BYTES: usize = PAGE * 4 * 1_024;
/// Pages of one reading of a list.
const PAGES: usize = 1_000;
/// How far back a list is read again, in milliseconds: it is by when an invoice was made.
const OVERLAP: u64 = 86_400_000;
/// Hints that wait for whoever is slow.
const HINTS: usize = 1_024;
/// Between two tries to be told of payments.
const PAUSE: Duration = Duration::from_secs(5);

/// A phoenixd node.
#[derive(Debug)]
pub(crate) struct Phoenixd {
    id: String,
    server: Server,
    password: Secret,
    network: Currency,
    clock: Clock,
    hints: broadcast::Sender<Hint>,
    key: NodeKey,
}

#[derive(Deserialize)]
struct Made {
    serialized: String,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "nodeId")]
    node_id: String,
}

#[derive(Deserialize)]
struct Balance {
    #[serde(rename = "balanceSat")]
    balance_sat: u64,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "paymentHash")]
    payment_hash: PaymentHash,
}

impl Phoenixd {
    /// `password` is the one of phoenix.conf that may pay.
    pub(crate) fn new(
        id: &str,
        server: Server,
        password: &Secret,
        network: Currency,
        clock: Clock,
    ) -> Self {
        let pair = Zeroizing::new(format!(":{}", password.expose()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let (id, password) = (id.to_owned(), Secret::new(basic));
        let (hints, key) = (broadcast::channel(HINTS).0, NodeKey::default());
        Self { id, server, password, network, clock, hints, key }
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

    /// Asks for something that moves nothing.
    async fn ask(&self, ask: Ask) -> Result<Answer, WalletError> {
        let answer = self.server.send(ask.key(AUTHORIZATION, &self.password)).await;
        let answer = answer.map_err(|e| self.unreachable(e.to_string()))?;
        match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(answer),
            status if status.is_server_error() => Err(self.unreachable(answer.words())),
            _ => Err(self.refused(answer.words())),
        }
    }

    async fn read<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, WalletError> {
        let answer = self.ask(ask).await?;
        match answer.status {
            StatusCode::OK => answer.json().map_err(|e| self.refused(e)),
            _ => Err(self.refused(answer.words())),
        }
    }

    async fn make(&self, request: InvoiceRequest) -> Result<Invoice, WalletError> {
        let description: String = request.memo.chars().take(DESCRIPTION).collect();
        let (amount, expiry) = (request.amount.to_string(), request.expiry_s.to_string());
        let form =
            [("amountSat", &*amount), ("expirySeconds", &*expiry), ("description", &*description)];
        let made: Made = self.read(Ask::form("/createinvoice", &form)).await?;
        let head = Head::read(&made.serialized).map_err(|e| self.refused(e))?;
        if head.amount != request.amount.to_msat().ok() || head.network != self.network {
            let expected = format!("{} sat on {:?}", request.amount, self.network);
            return Err(self.refused(format!("expected an invoice of {expected}, got another")));
        }
        let Head { payment_hash, expires_at, .. } = head;
        Ok(Invoice { payment_hash, bolt11: made.serialized, expires_at })
    }

    /// One record; none only where phoenixd knows what it was asked for.
    async fn record<T: DeserializeOwned>(
        &self,
        list: &str,
        hash: PaymentHash,
    ) -> Result<Option<T>, WalletError> {
        let answer = self.ask(Ask::get(format!("/payments/{list}/{hash}"))).await?;
        if answer.status == StatusCode::OK {
            return answer.json().map(Some).map_err(|e| self.refused(e));
        }
        // no hash at all: a fault of ours where the question is known
        let probe = Ask::get(format!("/payments/{list}/x")).key(AUTHORIZATION, &self.password);
        let probe = self.server.send(probe).await.map_err(|e| self.unreachable(e.to_string()))?;
        match probe.status {
            StatusCode::BAD_REQUEST => Ok(None),
            _ => Err(self.refused(format!("expected phoenixd 0.4, which knows /payments/{list}"))),
        }
    }

    async fn incoming(&self, hash: PaymentHash) -> Result<Option<Payment>, WalletError> {
        let found: Option<Incoming> = self.record("incoming", hash).await?;
        let found = found.map(|record| record.payment()).transpose();
        self.of(found.map_err(|e| self.refused(e))?, hash)
    }

    async fn outgoing(&self, hash: PaymentHash) -> Result<Option<Payment>, WalletError> {
        let found: Option<Outgoing> = self.record("outgoingbyhash", hash).await?;
        let found = found.map(|record| record.payment()).transpose();
        self.of(found.map_err(|e| self.refused(e))?, hash)
    }

    fn of(
        &self,
        found: Option<Payment>,
        hash: PaymentHash,
    ) -> Result<Option<Payment>, WalletError> {
        match found {
            Some(payment) if payment.payment_hash != hash => {
                Err(self.refused("it answered with another payment"))
            }
            found => Ok(found),
        }
    }

    async fn send(&self, bolt11: &str) -> Result<PayState, WalletError> {
        let hash = Head::read(bolt11).map_err(|e| self.refused(e))?.payment_hash;
        let ask = Ask::form("/payinvoice", &[("invoice", bolt11)]);
        let ask = ask.key(AUTHORIZATION, &self.password).within(PAYING);
        let answer = match self.server.send(ask).await {
            Ok(answer) => answer,
            Err(SendError::NotSent(words)) => return Err(self.unreachable(words)),
            Err(SendError::Lost(words)) => return Err(self.unknown(words)),
        };
        let declined = answer.status.is_client_error();
        // whatever it answers: its record says what became of the payment
        match self.outgoing(hash).await {
            Ok(Some(payment)) => Ok(payment.state),
            Ok(None) if declined || answer.status == StatusCode::OK => {
                Err(self.refused(answer.words()))
            }
            Ok(None) => Err(self.unknown(answer.words())),
            Err(error) if declined => {
                Err(self.refused(format!("{}; then {error}", answer.words())))
            }
            Err(error) => Err(self.unknown(format!("{}; then {error}", answer.words()))),
        }
    }

    /// All of a list since `from`, in milliseconds.
    async fn pages<T: DeserializeOwned>(
        &self,
        list: &str,
        from: u64,
    ) -> Result<Vec<T>, WalletError> {
        let mut all = Vec::new();
        for page in 0..PAGES {
            let offset = page.saturating_mul(PAGE);
            let query = format!("from={from}&all=true&limit={PAGE}&offset={offset}");
            let ask = Ask::get(format!("/payments/{list}?{query}")).at_most(PAGE_BYTES);
            let page: Vec<T> = self.read(ask).await?;
            let end = page.len() < PAGE;
            all.extend(page);
            if end {
                return Ok(all);
            }
        }
        Err(self.refused(format!("expected the list to end after {PAGES} pages")))
    }

    async fn since(&self, cursor: Cursor) -> Result<(Vec<Payment>, Cursor), WalletError> {
        let from = cursor.0.saturating_sub(OVERLAP);
        let incoming: Vec<Incoming> = self.pages("incoming", from).await?;
        let outgoing: Vec<Outgoing> = self.pages("outgoing", from).await?;
        // a clock that ran ahead must not hide what follows
        let now = self.clock.now().0.saturating_mul(1_000);
        let made = incoming.iter().map(|record| record.created_at);
        let made = made.chain(outgoing.iter().map(|record| record.created_at));
        let newest = made.map(|at| at.min(now)).max().unwrap_or(0).max(cursor.0);
        let read = incoming.iter().map(Incoming::payment);
        let read = read.chain(outgoing.iter().map(Outgoing::payment));
        let mut payments = Vec::new();
        for payment in read {
            match payment {
                Ok(payment) => payments.push(payment),
                // it would stop the list for ever
                Err(reason) => tracing::error!(event = "wallet_record", wallet = self.id, reason),
            }
        }
        Ok((payments, Cursor(newest)))
    }

    fn tell(&self, hint: Hint) {
        // nobody watching is no failure: hints are only hints
        let _ = self.hints.send(hint);
    }

    /// Until the connection ends: phoenixd pings every 10 s and closes what does not answer.
    async fn follow(&self) -> Result<(), SendError> {
        let key = Some((AUTHORIZATION, &self.password));
        let mut socket = self.server.websocket("/websocket", key).await?;
        self.tell(Hint::Missed);
        while let Ok(Some(Ok(message))) = tokio::time::timeout(PAYING, socket.next()).await {
            if let Message::Text(text) = message
                && let Ok(Received { payment_hash }) = serde_json::from_str(&text)
            {
                self.tell(Hint::Payment(payment_hash));
            }
        }
        Ok(())
    }
}

impl Wallet for Phoenixd {
    fn id(&self) -> &str {
        &self.id
    }

    fn network(&self) -> Currency {
        self.network.clone()
    }

    fn failures(&self) -> FailureRule {
        FailureRule::TwiceAfterExpiry
    }

    fn absence_is_final(&self) -> bool {
        true
    }

    fn own_node(&self) -> BoxFuture<'_, Option<PublicKey>> {
        let asked = async {
            let info: Info = self.read(Ask::get("/getinfo").at_most(PAGE_BYTES)).await?;
            Ok(info.node_id)
        };
        Box::pin(self.key.get(&self.id, asked))
    }

    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        Box::pin(self.make(request))
    }

    fn pay(&self, bolt11: String, _: Sats, _: Value) -> WalletResult<'_, PayState> {
        Box::pin(async move { self.send(&bolt11).await })
    }

    fn lookup(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.incoming(payment_hash))
    }

    fn lookup_payment(&self, payment_hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(self.outgoing(payment_hash))
    }

    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        Box::pin(self.since(since))
    }

    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        Some(Cursor(at.0.saturating_mul(1_000)))
    }

    fn balance(&self) -> WalletResult<'_, Msat> {
        Box::pin(async move {
            let Balance { balance_sat } = self.read(Ask::get("/getbalance")).await?;
            Sats(balance_sat).to_msat().map_err(|e| self.refused(e.to_string()))
        })
    }

    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.hints.subscribe()
    }

    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.follow() => if let Err(error) = ended {
                        let error: &dyn std::error::Error = &error;
                        tracing::info!(event = "wallet_hints_away", wallet = self.id, error);
                    },
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        })
    }
}
