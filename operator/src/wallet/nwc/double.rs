//! A wallet service of NIP-47 on a relay, over a simulated node.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bitspire_shared::ids::{PaymentHash, PubKey};
use bitspire_shared::money::Sats;
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::nip46::message::Plain;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use nostr::{Event, EventBuilder, Filter, Keys, Kind, Tag, TagKind};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::line::{INFO, NOTES, REPLY, REQUEST};
use super::uri::Uri;
use crate::signer::cipher::Encryption;
use crate::wallet::bolt11::Head;
use crate::wallet::simulated::{SimulatedNode, SimulatedWallet};
use crate::wallet::{
    Cursor, Flow, Hint, InvoiceRequest, PayState, Payment, Wallet as _, WalletError,
};

pub(super) fn key(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

struct Service {
    wallet: SimulatedWallet,
    keys: Keys,
    client: Keys,
    conversation: ConversationKey,
    encryption: Encryption,
    pool: Pool,
    faults: Arc<Faults>,
}

/// What a test may want to be otherwise.
#[derive(Default)]
pub(super) struct Faults {
    /// What is answered for a payment that was made.
    pub(super) preimages: Mutex<HashMap<PaymentHash, String>>,
    /// It knows no payment at all.
    pub(super) forgetful: AtomicBool,
    /// Each payment that it knows is an incoming one.
    pub(super) mistyped: AtomicBool,
}

/// The double.
pub(super) struct Double {
    pub(super) uri: String,
    pub(super) faults: Arc<Faults>,
    relay: Mutex<Option<LocalRelay>>,
    port: u16,
    service: Arc<Service>,
    _stop: DropGuard,
}

async fn relay(port: Option<u16>) -> LocalRelay {
    let limit = RateLimit { max_reqs: 500, notes_per_minute: 100_000 };
    let builder = RelayBuilder::default().rate_limit(limit);
    let builder = port.into_iter().fold(builder, RelayBuilder::port);
    let relay = LocalRelay::new(builder);
    relay.run().await.unwrap();
    relay
}

impl Double {
    pub(super) async fn start(node: &SimulatedNode, encryption: Encryption) -> Self {
        let relay = relay(None).await;
        let url = relay.url().await.to_string();
        let (keys, client) = (Keys::generate(), Keys::generate());
        let conversation = ConversationKey::derive(keys.secret_key(), &key(&client)).unwrap();
        let all = Arc::new(|_: &str| true);
        let pool = Pool::connect(keys.clone(), std::slice::from_ref(&url), all).await.unwrap();
        let asked = Filter::new().kind(Kind::from(REQUEST)).pubkey(keys.public_key());
        pool.subscribe("asked", asked).await;
        let secret = client.secret_key().to_secret_hex();
        let uri = format!("nostr+walletconnect://{}?relay={url}&secret={secret}", key(&keys));
        let (wallet, faults) = (node.wallet("till"), Arc::new(Faults::default()));
        let shared = faults.clone();
        let service =
            Service { wallet, keys, client, conversation, encryption, pool, faults: shared };
        let service = Arc::new(service);
        service.introduce().await;
        let stop = CancellationToken::new();
        tokio::spawn(service.clone().serve(stop.clone()));
        let port = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
        let relay = Mutex::new(Some(relay));
        Self { uri, faults, relay, port, service, _stop: stop.drop_guard() }
    }

    pub(super) fn parsed(&self) -> Uri {
        Uri::parse(&self.uri).unwrap()
    }

    /// Takes the relay away, or brings it back.
    pub(super) async fn reach(&self, reachable: bool) {
        if let Some(relay) = self.relay.lock().unwrap().take() {
            relay.shutdown();
        }
        if reachable {
            let back = relay(Some(self.port)).await;
            *self.relay.lock().unwrap() = Some(back);
            while self.service.pool.connected().await == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Service {
    fn event(&self, kind: u16, text: &str) -> EventBuilder {
        let text = Plain::new(text.to_owned());
        let content =
            self.encryption.seal(&self.keys, key(&self.client), &self.conversation, &text);
        EventBuilder::new(Kind::from(kind), content.unwrap())
            .tag(Tag::public_key(self.client.public_key()))
    }

    async fn say(&self, event: EventBuilder) {
        self.pool.send(&event.sign_with_keys(&self.keys).unwrap()).await;
    }

    /// What it can do, kept by the relay.
    async fn introduce(&self) {
        let mut info = EventBuilder::new(Kind::from(INFO), "pay_invoice make_invoice");
        if self.encryption == Encryption::Nip44 {
            info = info.tag(Tag::custom(TagKind::custom("encryption"), ["nip44_v2 nip04"]));
        }
        let info = info.sign_with_keys(&self.keys).unwrap();
        while self.pool.publish(&info).await.is_err() {
            tokio::task::yield_now().await;
        }
    }

    async fn serve(self: Arc<Self>, stop: CancellationToken) {
        let mut hints = self.wallet.watch();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                hint = hints.recv() => if let Ok(Hint::Payment(hash)) = hint {
                    let kind = NOTES[usize::from(self.encryption == Encryption::Nip44)];
                    let text = json!({
                        "notification_type": "payment_received",
                        "notification": {"payment_hash": hash},
                    });
                    self.say(self.event(kind, &text.to_string())).await;
                },
                event = self.pool.next() => match event {
                    Some(event) if event.pubkey == self.client.public_key() => {
                        self.answer(&event).await;
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    async fn answer(&self, event: &Event) {
        let encryption = Encryption::of(&event.content);
        assert_eq!(encryption, self.encryption, "what the info event says");
        let text = encryption
            .open(&self.keys, key(&self.client), &self.conversation, &event.content)
            .unwrap();
        let request: Value = serde_json::from_str(text.expose()).unwrap();
        let method = request["method"].as_str().unwrap();
        let about = Tag::event(event.id);
        let reply = match self.act(method, &request["params"]).await {
            Some(Ok(result)) => json!({"result_type": method, "error": null, "result": result}),
            Some(Err((code, message))) => {
                let error = json!({"code": code, "message": message});
                json!({"result_type": method, "error": error, "result": null})
            }
            // damaged on its way
            None => {
                let garbled = EventBuilder::new(Kind::from(REPLY), "Ag==").tag(about);
                let garbled = garbled.tag(Tag::public_key(self.client.public_key()));
                return self.say(garbled).await;
            }
        };
        self.say(self.event(REPLY, &reply.to_string()).tag(about)).await;
    }

    async fn act(&self, method: &str, params: &Value) -> Option<Result<Value, (&str, String)>> {
        Some(Ok(match method {
            "get_balance" => json!({"balance": self.wallet.balance().await.unwrap()}),
            "make_invoice" => {
                let msat = params["amount"].as_u64().unwrap();
                let request = InvoiceRequest {
                    amount: Sats(msat / 1_000),
                    memo: params["description"].as_str().unwrap().into(),
                    expiry_s: u32::try_from(params["expiry"].as_u64().unwrap()).unwrap(),
                    extra: Value::Null,
                };
                let made = self.wallet.make_invoice(request).await.unwrap();
                json!({
                    "type": "incoming", "invoice": made.bolt11, "payment_hash": made.payment_hash,
                    "amount": msat, "created_at": 1, "expires_at": made.expires_at,
                })
            }
            "lookup_invoice" => {
                let hash = params["payment_hash"].as_str().unwrap().parse().unwrap();
                let mut found = self.wallet.lookup(hash).await.unwrap();
                if found.is_none() {
                    found = self.wallet.lookup_payment(hash).await.unwrap();
                }
                let found = found.filter(|_| !self.faults.forgetful.load(Ordering::SeqCst));
                match found {
                    Some(mut payment) => {
                        if self.faults.mistyped.load(Ordering::SeqCst) {
                            payment.flow = Flow::Inbound;
                        }
                        record(&payment)
                    }
                    None => return Some(Err(("NOT_FOUND", "no such payment".into()))),
                }
            }
            "list_transactions" => {
                let (mut all, _) = self.wallet.list(Cursor(0)).await.unwrap();
                all.retain(|payment| matches!(payment.state, PayState::Succeeded { .. }));
                all.reverse();
                let number = |name: &str| usize::try_from(params[name].as_u64().unwrap()).unwrap();
                let page = all.iter().skip(number("offset")).take(number("limit"));
                json!({"transactions": page.map(record).collect::<Vec<_>>()})
            }
            "pay_invoice" => return self.pay(params["invoice"].as_str().unwrap()).await,
            _ => return Some(Err(("NOT_IMPLEMENTED", method.into()))),
        }))
    }

    async fn pay(&self, bolt11: &str) -> Option<Result<Value, (&str, String)>> {
        let hash = Head::read(bolt11).unwrap().payment_hash;
        match self.wallet.pay(bolt11.to_owned(), Sats(1_000), json!({})).await {
            Ok(PayState::Succeeded { fee, .. }) => {
                let preimage = self.faults.preimages.lock().unwrap().get(&hash).cloned();
                let preimage = preimage.unwrap_or_else(|| "00".repeat(32));
                Some(Ok(json!({"preimage": preimage, "fees_paid": fee})))
            }
            Ok(PayState::Pending) => Some(Err(("OTHER", "it takes its time".into()))),
            Ok(PayState::Failed) => Some(Err(("PAYMENT_FAILED", "no route".into()))),
            Err(WalletError::Refused { reason, .. }) if reason.contains("balance") => {
                Some(Err(("INSUFFICIENT_BALANCE", reason)))
            }
            Err(WalletError::Refused { reason, .. }) => Some(Err(("OTHER", reason))),
            Err(_) => None,
        }
    }
}

fn record(payment: &Payment) -> Value {
    let kind = match payment.flow {
        Flow::Inbound => "incoming",
        Flow::Outbound => "outgoing",
    };
    let mut record = json!({
        "type": kind, "payment_hash": payment.payment_hash, "state": "pending",
        "created_at": Clock::system().now(),
    });
    match payment.state {
        PayState::Pending => {}
        PayState::Failed => record["state"] = "failed".into(),
        PayState::Succeeded { amount, fee, at } => {
            record["state"] = "settled".into();
            record["amount"] = json!(amount);
            record["fees_paid"] = json!(fee);
            record["settled_at"] = json!(at);
        }
    }
    record
}
