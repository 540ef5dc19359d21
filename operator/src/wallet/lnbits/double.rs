//! LNbits 1.6 as it answers, over a simulated node: for tests of what the real one does only when
//! its node fails.
//!
//! From the source of LNbits 1.6.2: `core/views/payment_api.py`, `core/services/payments.py`,
//! `core/services/websockets.py`, `decorators.py`, `middleware.py`, `exceptions.py`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use serde_json::{Value, json};
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

use crate::outgoing::testing::Host;
use crate::wallet::battery::NOW;
use crate::wallet::bolt11::Head;
use crate::wallet::simulated::{SimulatedNode, SimulatedWallet};
use crate::wallet::{
    Cursor, Flow, Hint, InvoiceRequest, PayState, Payment, Wallet as _, WalletError,
};

pub(super) const ADMIN_KEY: &str = "admin-key-of-till";
pub(super) const INVOICE_KEY: &str = "invoice-key-of-till";
/// A key of another wallet of the same host.
pub(super) const OTHER_KEY: &str = "admin-key-of-other";

/// What a test may want to be otherwise.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) first_install: AtomicBool,
    /// LNBITS_RESERVE_FEE_MIN, in millisats; 0 stands for its default.
    pub(super) reserve_min: AtomicU64,
    /// The next answer to a payment is this one, from a proxy, and LNbits never sees it.
    pub(super) bad_gateway: AtomicBool,
    /// How far its clock is ahead, in seconds.
    pub(super) ahead_s: AtomicU64,
    /// Websockets end, and new ones are refused.
    pub(super) deaf: AtomicBool,
}

struct Inner {
    node: SimulatedNode,
    wallet: SimulatedWallet,
    /// By change of the node: what the record holds beside what a node knows.
    invoices: Mutex<HashMap<PaymentHash, (String, i64)>>,
    forged: broadcast::Sender<String>,
    faults: Faults,
    hang_up: std::sync::Mutex<CancellationToken>,
}

/// The double.
#[derive(Clone)]
pub(super) struct Double {
    inner: Arc<Inner>,
    pub(super) host: Host,
}

type Shared = State<Arc<Inner>>;

impl Double {
    /// The wallet `till` of `node`, as LNbits shows it.
    pub(super) async fn start(node: &SimulatedNode) -> Self {
        let inner = Arc::new(Inner {
            node: node.clone(),
            wallet: node.wallet("till"),
            invoices: Mutex::default(),
            forged: broadcast::channel(16).0,
            faults: Faults::default(),
            hang_up: std::sync::Mutex::default(),
        });
        let router = Router::new()
            .route("/api/v1/payments", get(|| async { StatusCode::NOT_IMPLEMENTED }).post(create))
            .route("/api/v1/payments/paginated", get(paginated))
            .route("/api/v1/payments/fee-reserve", get(fee_reserve))
            .route("/api/v1/wallet", get(balance))
            .route(
                "/api/v1/rate/{currency}",
                get(|| async { Json(json!({"rate": 0.0, "price": 0.0})) }),
            )
            .route("/api/v1/ws/{item}", get(socket).post(forge))
            .layer(from_fn_with_state(inner.clone(), door))
            .with_state(inner.clone());
        Self { inner, host: Host::start(router).await }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Ends every websocket; new ones are refused while it is deaf.
    pub(super) fn deaf(&self, deaf: bool) {
        self.inner.faults.deaf.store(deaf, Ordering::SeqCst);
        if deaf {
            let mut hang_up = self.inner.hang_up.lock().unwrap();
            std::mem::take(&mut *hang_up).cancel();
        }
    }
}

/// Until somebody has made the first user, everything leads to one page.
async fn door(State(inner): Shared, request: Request, next: Next) -> Response {
    if inner.faults.first_install.load(Ordering::SeqCst) {
        return Redirect::temporary("/first_install").into_response();
    }
    next.run(request).await
}

fn refuse(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

fn payment_error(detail: impl ToString, status: &str) -> Response {
    refuse(520, json!({"detail": detail.to_string(), "status": status}))
}

/// Who asks, by the key in the header: whether it is the wallet's own.
fn key(headers: &HeaderMap) -> Result<bool, Box<Response>> {
    match headers.get("x-api-key").and_then(|key| key.to_str().ok()) {
        Some(ADMIN_KEY | INVOICE_KEY) => Ok(true),
        Some(OTHER_KEY) => Ok(false),
        Some(_) => Err(Box::new(refuse(404, json!({"detail": "Wallet not found."})))),
        None => Err(Box::new(refuse(401, json!({"detail": "No Api Key provided."})))),
    }
}

impl Inner {
    async fn record(&self, payment: &Payment) -> Value {
        let kept = self.invoices.lock().await.get(&payment.payment_hash).cloned();
        let (bolt11, msat) = kept.unwrap_or_default();
        let signed = if payment.flow == Flow::Outbound { -msat } else { msat };
        let (status, amount, fee, at) = match payment.state {
            PayState::Pending => ("pending", signed, 0, NOW),
            PayState::Failed => ("failed", signed, 0, NOW),
            PayState::Succeeded { amount, fee, at } => {
                let amount = i64::try_from(amount.0).unwrap();
                let amount = if payment.flow == Flow::Outbound { -amount } else { amount };
                ("success", amount, -i64::try_from(fee.0).unwrap(), at)
            }
        };
        let at = at.after(self.faults.ahead_s.load(Ordering::SeqCst)).to_iso();
        json!({
            "checking_id": payment.payment_hash, "payment_hash": payment.payment_hash,
            "wallet_id": "4130a948d6fc4711bf162875cf7aefd4", "amount": amount, "fee": fee,
            "bolt11": bolt11, "payment_request": bolt11, "status": status, "memo": "x",
            "preimage": "00".repeat(32), "time": at, "created_at": at, "updated_at": at,
            "labels": [], "extra": payment.extra, "external_id": null,
        })
    }

    async fn keep(&self, hash: PaymentHash, bolt11: &str, msat: u64) {
        let kept = (bolt11.to_owned(), i64::try_from(msat).unwrap());
        self.invoices.lock().await.insert(hash, kept);
    }

    async fn make(&self, body: &Value) -> Response {
        let Some(sats) = body["amount"].as_u64().filter(|sats| *sats > 0) else {
            return payment_error("Amountless invoices not supported.", "failed");
        };
        let request = InvoiceRequest {
            amount: Sats(sats),
            memo: body["memo"].as_str().unwrap_or("LNbits").into(),
            expiry_s: body["expiry"].as_u64().map_or(3_600, |s| u32::try_from(s).unwrap()),
            extra: body["extra"].clone(),
        };
        let made = self.wallet.make_invoice(request).await.unwrap();
        self.keep(made.payment_hash, &made.bolt11, sats * 1_000).await;
        let payment = self.wallet.lookup(made.payment_hash).await.unwrap().unwrap();
        refuse(201, self.record(&payment).await)
    }

    fn reserve(&self, msat: u64) -> u64 {
        let min = match self.faults.reserve_min.load(Ordering::SeqCst) {
            0 => 2_000,
            set => set,
        };
        min.max(msat / 200)
    }

    /// The order of LNbits: the balance comes before the question whether it was paid.
    async fn pay(&self, body: &Value) -> Response {
        let Some(text) = body["bolt11"].as_str() else {
            return refuse(400, json!({"detail": "Missing BOLT11 invoice"}));
        };
        let Ok(Head { payment_hash: hash, amount: Some(Msat(msat)), .. }) = Head::read(text) else {
            return payment_error("Bolt11 decoding failed.", "failed");
        };
        let balance = self.wallet.balance().await.unwrap().0;
        if balance < msat {
            return payment_error("Insufficient balance.", "failed");
        }
        match self.wallet.lookup_payment(hash).await.unwrap().map(|old| old.state) {
            Some(PayState::Pending) => {
                return payment_error("Payment is still pending.", "pending");
            }
            Some(PayState::Succeeded { .. }) => {
                return payment_error("Payment already paid.", "success");
            }
            Some(PayState::Failed) => {
                let words = "Payment is failed node, retrying is not possible.";
                return payment_error(words, "failed");
            }
            None => {}
        }
        self.keep(hash, text, msat).await;
        let limit = Sats(self.reserve(msat) / 1_000);
        match self.wallet.pay(text.to_owned(), limit, body["extra"].clone()).await {
            Ok(PayState::Failed) => payment_error("Payment failed: no route", "failed"),
            Ok(_) => {
                let payment = self.wallet.lookup_payment(hash).await.unwrap().unwrap();
                refuse(201, self.record(&payment).await)
            }
            Err(WalletError::Refused { reason, .. }) => payment_error(reason, "failed"),
            // the connection ends in the middle of the answer
            Err(_) => {
                let gone = futures_util::stream::iter([
                    Ok(Bytes::from_static(b"{\"status\":")),
                    Err(std::io::Error::other("gone")),
                ]);
                (StatusCode::CREATED, Body::from_stream(gone)).into_response()
            }
        }
    }
}

async fn create(State(inner): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let own = match key(&headers) {
        Ok(own) => own,
        Err(refused) => return *refused,
    };
    // whoever does not say `out` pays
    let out = body["out"].as_bool().unwrap_or(true);
    if out && inner.faults.bad_gateway.swap(false, Ordering::SeqCst) {
        return refuse(502, json!("bad gateway"));
    }
    match (out, own) {
        (true, true) => inner.pay(&body).await,
        (true, false) => payment_error("Insufficient balance.", "failed"),
        (false, _) => inner.make(&body).await,
    }
}

async fn paginated(
    State(inner): Shared,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut payments = match key(&headers) {
        Ok(true) => inner.wallet.list(Cursor(0)).await.unwrap().0,
        Ok(false) => Vec::new(),
        Err(refused) => return *refused,
    };
    if let Some(hash) = query.get("payment_hash[eq]") {
        payments.retain(|payment| payment.payment_hash.to_string() == *hash);
    }
    // newest first; who says nothing gets ten
    payments.reverse();
    let number = |name, default| query.get(name).map_or(default, |n: &String| n.parse().unwrap());
    let (offset, limit) = (number("offset", 0), number("limit", 10));
    let total = payments.len();
    let mut data = Vec::new();
    for payment in payments.iter().skip(offset).take(limit) {
        data.push(inner.record(payment).await);
    }
    Json(json!({"data": data, "total": total})).into_response()
}

async fn fee_reserve(
    State(inner): Shared,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let reserve = inner.reserve(Head::read(&query["invoice"]).unwrap().amount.unwrap().0);
    Json(json!({"fee_reserve": reserve})).into_response()
}

async fn balance(State(inner): Shared, headers: HeaderMap) -> Response {
    match key(&headers) {
        Ok(true) => {
            let msat = inner.wallet.balance().await.unwrap();
            Json(json!({"name": "till", "balance": msat})).into_response()
        }
        Ok(false) => Json(json!({"name": "other", "balance": 0})).into_response(),
        Err(refused) => *refused,
    }
}

/// Whoever knows the item's name sends what they like to those who listen.
async fn forge(
    State(inner): Shared,
    Path(item): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!(item, INVOICE_KEY);
    inner.forged.send(query["data"].clone()).unwrap();
    Json(json!({"sent": true})).into_response()
}

async fn socket(State(inner): Shared, Path(item): Path<String>, up: WebSocketUpgrade) -> Response {
    if inner.faults.deaf.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    assert_eq!(item, INVOICE_KEY);
    up.on_upgrade(move |socket| tell(inner, socket))
}

async fn tell(inner: Arc<Inner>, mut socket: WebSocket) {
    let mut hints = inner.wallet.watch();
    let mut forged = inner.forged.subscribe();
    let hang_up = inner.hang_up.lock().unwrap().clone();
    loop {
        let text = tokio::select! {
            biased;
            () = hang_up.cancelled() => return,
            forged = forged.recv() => forged.unwrap(),
            hint = hints.recv() => {
                let Ok(Hint::Payment(hash)) = hint else { continue };
                let found = match inner.wallet.lookup(hash).await {
                    Ok(Some(found)) => Some(found),
                    _ => inner.wallet.lookup_payment(hash).await.ok().flatten(),
                };
                let Some(payment) = found else { continue };
                let payment = inner.record(&payment).await;
                json!({"wallet_balance": 1, "payment": payment}).to_string()
            }
        };
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}

impl Double {
    /// The node behind.
    pub(super) fn node(&self) -> &SimulatedNode {
        &self.inner.node
    }
}
