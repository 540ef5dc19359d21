//! LND's REST API as it answers, over a simulated node.
//!
//! From LND's API reference: `lnrpc`, `routerrpc`, behind grpc-gateway.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Sats;
use bitspire_shell::clock::Clock;
use futures_util::{StreamExt as _, stream};
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use crate::outgoing::testing::Host;
use crate::wallet::bolt11::Head;
use crate::wallet::simulated::{SimulatedNode, SimulatedWallet};
use crate::wallet::{
    Cursor, Flow, Hint, InvoiceRequest, PayState, Payment, Wallet as _, WalletError,
};

pub(super) const MACAROON: &str = "0201036c6e64";

type Shared = State<Arc<SimulatedWallet>>;

fn error(status: u16, code: u8, words: &str) -> Response {
    let body = json!({"code": code, "message": words, "details": []});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

pub(super) async fn start(node: &SimulatedNode) -> Host {
    let wallet = Arc::new(node.wallet("till"));
    let info = json!({"identity_pubkey": node.key().to_string(), "alias": "double"});
    let router = Router::new()
        .route("/v1/getinfo", get(move || async move { Json(info) }))
        .route("/v1/invoices", get(invoices).post(create))
        .route("/v1/invoices/subscribe", get(subscribe))
        .route("/v1/invoice/{hash}", get(invoice))
        .route("/v1/payments", get(payments))
        .route("/v1/balance/channels", get(balance))
        .route("/v2/router/send", axum::routing::post(send))
        .route("/v2/router/track/{name}", get(track))
        .fallback(|| async { error(404, 5, "Not Found") })
        .layer(from_fn(door))
        .with_state(wallet);
    Host::start(router).await
}

async fn door(request: Request, next: Next) -> Response {
    match request.headers().get("grpc-metadata-macaroon") {
        Some(key) if key == MACAROON => next.run(request).await,
        _ => error(500, 2, "verification failed: signature mismatch after caveat verification"),
    }
}

fn record(payment: &Payment) -> Value {
    let made = Clock::system().now().0;
    let hash = payment.payment_hash;
    let (amount, fee, at) = match payment.state {
        PayState::Succeeded { amount, fee, at } => (amount.0, fee.0, at.0),
        _ => (0, 0, 0),
    };
    match payment.flow {
        Flow::Inbound => json!({
            "r_hash": STANDARD.encode(hash.as_bytes()), "amt_paid_msat": amount.to_string(),
            "settle_date": at.to_string(), "creation_date": made.to_string(),
            "state": match payment.state {
                PayState::Pending => "OPEN",
                PayState::Succeeded { .. } => "SETTLED",
                PayState::Failed => "CANCELED",
            },
        }),
        Flow::Outbound => json!({
            "payment_hash": hash, "value_msat": amount.to_string(), "fee_msat": fee.to_string(),
            "creation_time_ns": (made * 1_000_000_000).to_string(),
            "status": match payment.state {
                PayState::Pending => "IN_FLIGHT",
                PayState::Succeeded { .. } => "SUCCEEDED",
                PayState::Failed => "FAILED",
            },
        }),
    }
}

async fn create(State(wallet): Shared, Json(body): Json<Value>) -> Response {
    let number = |name: &str| body[name].as_str().unwrap().parse().unwrap();
    let request = InvoiceRequest {
        amount: Sats(number("value")),
        memo: body["memo"].as_str().unwrap().into(),
        expiry_s: u32::try_from(number("expiry")).unwrap(),
        extra: Value::Null,
    };
    let made = wallet.make_invoice(request).await.unwrap();
    let hash = STANDARD.encode(made.payment_hash.as_bytes());
    Json(json!({"r_hash": hash, "payment_request": made.bolt11, "add_index": "1"})).into_response()
}

async fn invoice(State(wallet): Shared, Path(hash): Path<PaymentHash>) -> Response {
    match wallet.lookup(hash).await.unwrap() {
        Some(payment) => Json(record(&payment)).into_response(),
        None => error(404, 5, "unable to locate invoice"),
    }
}

async fn page(wallet: &SimulatedWallet, flow: Flow, offset: &str, limit: &str) -> Vec<Value> {
    let (mut all, _) = wallet.list(Cursor(0)).await.unwrap();
    all.retain(|payment| payment.flow == flow);
    let (offset, limit) = (offset.parse().unwrap(), limit.parse().unwrap());
    all.iter().skip(offset).take(limit).map(record).collect()
}

type Asked = Query<HashMap<String, String>>;

async fn invoices(State(wallet): Shared, Query(asked): Asked) -> Response {
    let (offset, limit) = (&asked["index_offset"], &asked["num_max_invoices"]);
    let page = page(&wallet, Flow::Inbound, offset, limit).await;
    let last = offset.parse::<usize>().unwrap() + page.len();
    Json(json!({"invoices": page, "last_index_offset": last.to_string()})).into_response()
}

async fn payments(State(wallet): Shared, Query(asked): Asked) -> Response {
    assert_eq!(asked["include_incomplete"], "true");
    let (offset, limit) = (&asked["index_offset"], &asked["max_payments"]);
    let page = page(&wallet, Flow::Outbound, offset, limit).await;
    let last = offset.parse::<usize>().unwrap() + page.len();
    Json(json!({"payments": page, "last_index_offset": last.to_string()})).into_response()
}

async fn balance(State(wallet): Shared) -> Response {
    let msat = wallet.balance().await.unwrap();
    Json(json!({"local_balance": {"sat": "1", "msat": msat.0.to_string()}})).into_response()
}

fn line(result: &Value) -> String {
    format!("{}\n", json!({"result": result}))
}

async fn send(State(wallet): Shared, Json(body): Json<Value>) -> Response {
    let text = body["payment_request"].as_str().unwrap().to_owned();
    let hash = Head::read(&text).unwrap().payment_hash;
    match wallet.lookup_payment(hash).await.unwrap().map(|earlier| earlier.state) {
        Some(PayState::Succeeded { .. }) => return error(409, 6, "invoice is already paid"),
        Some(PayState::Pending) => return error(409, 6, "payment is in transition"),
        _ => {}
    }
    let limit: u64 = body["fee_limit_msat"].as_str().unwrap().parse().unwrap();
    match wallet.pay(text, Sats(limit / 1_000), Value::Null).await {
        Ok(state) => {
            let payment =
                Payment { payment_hash: hash, flow: Flow::Outbound, state, extra: Value::Null };
            line(&record(&payment)).into_response()
        }
        Err(WalletError::Refused { .. }) => {
            let (flow, state) = (Flow::Outbound, PayState::Failed);
            let payment = Payment { payment_hash: hash, flow, state, extra: Value::Null };
            line(&record(&payment)).into_response()
        }
        // the connection ends in the middle of the answer
        Err(_) => {
            let gone = stream::iter([
                Ok(Bytes::from_static(b"{\"result\":")),
                Err(std::io::Error::other("gone")),
            ]);
            Body::from_stream(gone).into_response()
        }
    }
}

/// The state now, and the stream stays open.
async fn track(State(wallet): Shared, Path(name): Path<String>) -> Response {
    let hash = URL_SAFE.decode(name).unwrap().try_into().unwrap();
    match wallet.lookup_payment(PaymentHash::from_bytes(hash)).await.unwrap() {
        Some(payment) => {
            let now = stream::iter([Ok::<_, std::io::Error>(line(&record(&payment)))]);
            Body::from_stream(now.chain(stream::pending())).into_response()
        }
        None => error(404, 5, "payment isn't initiated"),
    }
}

async fn subscribe(State(wallet): Shared) -> Response {
    let hints = wallet.watch();
    let told = stream::unfold((wallet, hints), async |(wallet, mut hints)| {
        loop {
            let Ok(Hint::Payment(hash)) = hints.recv().await else { return None };
            if let Ok(Some(payment)) = wallet.lookup(hash).await {
                let told = Ok::<_, std::io::Error>(line(&record(&payment)));
                return Some((told, (wallet, hints)));
            }
        }
    });
    Body::from_stream(told).into_response()
}
