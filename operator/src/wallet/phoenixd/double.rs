//! phoenixd as it answers, over a simulated node.
//!
//! From its source: `Api.kt`, `json/JsonSerializers.kt`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Form, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::outgoing::testing::Host;
use crate::wallet::battery::NOW;
use crate::wallet::bolt11::Head;
use crate::wallet::simulated::{SimulatedNode, SimulatedWallet};
use crate::wallet::{
    Cursor, Flow, Hint, InvoiceRequest, PayState, Payment, Wallet as _, WalletError,
};

/// `:hush`.
const BASIC: &str = "Basic Omh1c2g=";
pub(super) const PASSWORD: &str = "hush";

pub(super) struct Inner {
    wallet: SimulatedWallet,
    invoices: Mutex<HashMap<PaymentHash, String>>,
    /// It is of a time before payments could be asked for by their hash.
    pub(super) old: AtomicBool,
}

/// The double.
pub(super) struct Double {
    pub(super) inner: Arc<Inner>,
    pub(super) host: Host,
}

type Shared = State<Arc<Inner>>;

fn text(status: StatusCode, words: impl ToString) -> Response {
    (status, words.to_string()).into_response()
}

/// Unknown payments and unknown questions alike.
fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "Unknown endpoint (check api doc)")
}

impl Double {
    pub(super) async fn start(node: &SimulatedNode) -> Self {
        let inner = Arc::new(Inner {
            wallet: node.wallet("till"),
            invoices: Mutex::default(),
            old: AtomicBool::new(false),
        });
        let info = json!({"nodeId": node.key().to_string(), "chain": "regtest", "channels": []});
        let router = Router::new()
            .route("/getinfo", get(move || async move { Json(info) }))
            .route("/createinvoice", post(create))
            .route("/payinvoice", post(pay))
            .route("/getbalance", get(balance))
            .route("/payments/{list}", get(list))
            .route("/payments/{list}/{hash}", get(one))
            .route("/websocket", get(socket))
            .fallback(|| async { not_found() })
            .layer(from_fn_with_state(inner.clone(), door))
            .with_state(inner.clone());
        Self { inner, host: Host::start(router).await }
    }
}

async fn door(State(_): Shared, request: Request, next: Next) -> Response {
    match request.headers().get("authorization") {
        Some(key) if key == BASIC => next.run(request).await,
        _ => text(StatusCode::UNAUTHORIZED, "Invalid authentication (use basic auth ...)"),
    }
}

type Fields = Form<HashMap<String, String>>;

async fn create(State(inner): Shared, Form(form): Fields) -> Response {
    if form["description"].chars().count() > 128 {
        let words = "Request parameter description is too long (max 128 characters)";
        return text(StatusCode::BAD_REQUEST, words);
    }
    let request = InvoiceRequest {
        amount: Sats(form["amountSat"].parse().unwrap()),
        memo: form["description"].clone(),
        expiry_s: form["expirySeconds"].parse().unwrap(),
        extra: Value::Null,
    };
    let amount = request.amount;
    let made = inner.wallet.make_invoice(request).await.unwrap();
    inner.invoices.lock().await.insert(made.payment_hash, made.bolt11.clone());
    let (hash, invoice) = (made.payment_hash, made.bolt11);
    Json(json!({"amountSat": amount, "paymentHash": hash, "serialized": invoice})).into_response()
}

async fn pay(State(inner): Shared, Form(form): Fields) -> Response {
    let invoice = form["invoice"].clone();
    let hash = Head::read(&invoice).unwrap().payment_hash;
    let failed = |reason: &str| {
        let body = json!({"type": "payment_failed", "paymentHash": hash, "reason": reason});
        Json(body).into_response()
    };
    if inner.wallet.lookup_payment(hash).await.unwrap().is_some() {
        return failed("this invoice has already been paid, or is being paid");
    }
    inner.invoices.lock().await.insert(hash, invoice.clone());
    match inner.wallet.pay(invoice, Sats(1_000), Value::Null).await {
        Ok(PayState::Succeeded { amount, .. }) => {
            let body = json!({"type": "payment_sent", "recipientAmountSat": amount.0 / 1_000});
            Json(body).into_response()
        }
        Ok(PayState::Failed) => failed("no route"),
        Ok(PayState::Pending) => text(StatusCode::GATEWAY_TIMEOUT, "a proxy's patience"),
        Err(WalletError::Refused { reason, .. }) => failed(&reason),
        // the connection ends in the middle of the answer
        Err(_) => {
            let gone = futures_util::stream::iter([
                Ok(Bytes::from_static(b"{")),
                Err(std::io::Error::other("gone")),
            ]);
            Body::from_stream(gone).into_response()
        }
    }
}

async fn balance(State(inner): Shared) -> Response {
    let msat = inner.wallet.balance().await.unwrap();
    Json(json!({"balanceSat": msat.0 / 1_000, "feeCreditSat": 0})).into_response()
}

fn flow(list: &str) -> Option<Flow> {
    match list {
        "incoming" => Some(Flow::Inbound),
        "outgoing" | "outgoingbyhash" => Some(Flow::Outbound),
        _ => None,
    }
}

impl Inner {
    async fn record(&self, payment: &Payment) -> Value {
        let created = NOW.0 * 1_000;
        let invoice = self.invoices.lock().await[&payment.payment_hash].clone();
        let over = !matches!(payment.state, PayState::Pending);
        let mut record = json!({
            "paymentHash": payment.payment_hash, "invoice": invoice, "isPaid": over,
            "fees": 0, "createdAt": created, "completedAt": over.then_some(created),
        });
        let received = match payment.state {
            PayState::Succeeded { amount, fee, .. } => {
                record["preimage"] = "00".repeat(32).into();
                record["fees"] = json!(fee);
                amount
            }
            _ => Msat::ZERO,
        };
        match payment.flow {
            Flow::Inbound => record["receivedSat"] = json!(received.0 / 1_000),
            Flow::Outbound => record["sent"] = json!(received.0 / 1_000),
        }
        record
    }
}

async fn one(State(inner): Shared, Path((list, hash)): Path<(String, String)>) -> Response {
    let old = inner.old.load(Ordering::SeqCst) && list == "outgoingbyhash";
    let Some(flow) = flow(&list).filter(|_| !old) else { return not_found() };
    let Ok(hash) = hash.parse() else {
        return text(StatusCode::BAD_REQUEST, "Invalid value for paymentHash");
    };
    let found = match flow {
        Flow::Inbound => inner.wallet.lookup(hash).await.unwrap(),
        Flow::Outbound => inner.wallet.lookup_payment(hash).await.unwrap(),
    };
    match found {
        Some(payment) => Json(inner.record(&payment).await).into_response(),
        None => not_found(),
    }
}

async fn list(
    State(inner): Shared,
    Path(list): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(flow) = flow(&list) else { return not_found() };
    let (mut all, _) = inner.wallet.list(Cursor(0)).await.unwrap();
    all.retain(|payment| payment.flow == flow);
    all.reverse();
    let number = |name: &str| query[name].parse().unwrap();
    let mut page = Vec::new();
    for payment in all.iter().skip(number("offset")).take(number("limit")) {
        page.push(inner.record(payment).await);
    }
    Json(page).into_response()
}

async fn socket(State(inner): Shared, up: WebSocketUpgrade) -> Response {
    let mut hints = inner.wallet.watch();
    up.on_upgrade(async move |mut socket| {
        while let Ok(Hint::Payment(hash)) = hints.recv().await {
            let note = json!({"type": "payment_received", "amountSat": 1, "paymentHash": hash});
            if socket.send(Message::Text(note.to_string().into())).await.is_err() {
                return;
            }
        }
    })
}
