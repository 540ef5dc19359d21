//! Customers' wallets that speak CLINK, beside ones that speak LNURL.

mod door;

use std::time::Duration;

use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use bitspire_shared::clink::{DebitPointer, OfferPointer, PriceType};
use bitspire_shared::ids::{ClaimCode, PaymentHash};
use bitspire_shared::money::{Direction, Sats};
use bitspire_shared::rpc::Withdraw;
use nostr::{EventBuilder, Keys, Tag, TagKind};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::*;
use crate::ledger::Account;
use crate::lnurl;
use crate::rpc::tests::cash_in::{claim, named};
use crate::rpc::tests::cash_out::{offered, pay};
use crate::rpc::tests::{PATIENCE, Peer, World, id, key, trading_with};
use crate::store::payments;
use crate::wallet::InvoiceRequest;
use crate::wallet::Wallet as _;
use crate::wallet::simulated::SimulatedNode;

/// The table of the wallet `till`, and the door open.
const OPEN: &str = "kind = 'simulated'\nopening_sats = 100000\n[clink]\nenabled = true\n";

/// A customer's wallet: its Nostr half. It makes a key for each thing that it asks, as the specification
/// recommends.
struct Wallet {
    pool: Pool,
    service: PubKey,
    app: Arc<App>,
}

impl Wallet {
    async fn new(world: &World) -> Self {
        let relays = [world.relay.clone()];
        let all = Arc::new(|_: &str| true);
        let pool = Pool::connect(Keys::generate(), &relays, all).await.unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while pool.connected().await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "no relay");
            tokio::task::yield_now().await;
        }
        Self { pool, service: world.app.service_key, app: world.app.clone() }
    }

    fn cipher(&self, keys: &Keys) -> ConversationKey {
        ConversationKey::derive(keys.secret_key(), &self.service).unwrap()
    }

    fn event(&self, keys: &Keys, kind: u16, body: &str) -> Event {
        let content = self.cipher(keys).encrypt(body, id()).unwrap();
        EventBuilder::new(Kind::from(kind), content)
            .tag(Tag::public_key(self.service.nostr()))
            .tag(Tag::custom(TagKind::custom("clink_version"), ["1"]))
            .custom_created_at(Timestamp::from(self.app.clock.now().0))
            .sign_with_keys(keys)
            .unwrap()
    }

    /// Asks, again each second, as a wallet does that got no reply.
    async fn ask(&self, kind: u16, body: &str) -> Value {
        let keys = Keys::generate();
        let mine = Filter::new().kinds([OFFER_KIND, DEBIT_KIND].map(Kind::from));
        self.pool.subscribe("wallet", mine.pubkey(keys.public_key())).await;
        let mut sent = Vec::new();
        for _ in 0..30 {
            let event = self.event(&keys, kind, body);
            self.pool.send(&event).await;
            sent.push(event.id);
            let reply = tokio::time::timeout(Duration::from_secs(1), async {
                loop {
                    let event = self.pool.next().await.unwrap();
                    if event.tags.event_ids().any(|id| sent.contains(id)) {
                        return event;
                    }
                }
            });
            let Ok(reply) = reply.await else { continue };
            assert_eq!((reply.pubkey, reply.kind), (self.service.nostr(), Kind::from(kind)));
            assert!(speaks_version(&reply));
            let text = self.cipher(&keys).decrypt(&reply.content).unwrap();
            return serde_json::from_str(&text).unwrap();
        }
        panic!("no reply")
    }
}

async fn open() -> (World, Peer) {
    let (world, machine) = trading_with(OPEN).await;
    start(&world.app).await.unwrap();
    (world, machine)
}

/// The invoices of a customer's own node.
struct Payee(SimulatedNode);

impl Payee {
    fn new(world: &World) -> Self {
        let key = nostr::secp256k1::SecretKey::from_slice(&[9; 32]).unwrap();
        Self(SimulatedNode::open(None, key, Sats(0), world.app.clock.clone()).unwrap())
    }

    async fn invoice(&self, sats: Sats) -> (String, PaymentHash) {
        let (memo, extra) = (String::new(), json!({}));
        let request = InvoiceRequest { amount: sats, memo, expiry_s: 300, extra };
        let made = self.0.wallet("c").make_invoice(request).await.unwrap();
        (made.bolt11, made.payment_hash)
    }
}

/// Notes of 20 EUR are in the machine, and it shows both codes for them.
async fn sold(machine: &mut Peer) -> (Withdraw, DebitPointer) {
    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    let debit = DebitPointer::decode(withdraw.ndebit.as_ref().unwrap().expose()).unwrap();
    (withdraw, debit)
}

fn hex(k1: &[u8; 32]) -> String {
    bitspire_shared::ids::to_hex(k1)
}

/// Loss prevented: a customer who pays another invoice than the one on the screen, or pays one that is
/// over; a wallet that waits because its mistake is not told to it.
#[tokio::test]
async fn an_offer_brings_the_invoice_on_the_screen() {
    let (world, mut machine) = open().await;
    let sale = offered(&mut machine, 2_000).await;
    let code = OfferPointer::decode(sale.invoice.noffer.as_ref().unwrap()).unwrap();
    assert_eq!((code.pubkey, code.relay.as_str()), (world.app.service_key, &*world.relay));
    assert_eq!((code.price_type, code.price), (PriceType::Fixed, Some(sale.quote.wire_sats)));
    let wallet = Wallet::new(&world).await;
    let offer = &code.offer;
    let invoice = json!({"bolt11": sale.invoice.bolt11});
    let sats = sale.quote.wire_sats.0;
    for (body, expected) in [
        (json!({"offer": offer}), invoice.clone()),
        (json!({"offer": offer, "amount_sats": sats, "payer_data": {"a": 1}}), invoice),
        (
            json!({"offer": offer, "amount": sats - 1}),
            json!({"error": "Invalid Amount", "code": 5, "range": {"min": sats, "max": sats}}),
        ),
        (
            json!({"offer": offer, "zap": "{}"}),
            json!({"error": "zaps are not served here", "code": 4}),
        ),
        (json!({"offer": "0".repeat(32)}), json!({"error": "Invalid Offer", "code": 1})),
        (json!({"offer": "../x"}), json!({"error": "Invalid Offer", "code": 1})),
    ] {
        assert_eq!(wallet.ask(OFFER_KIND, &body.to_string()).await, expected, "{body}");
    }
    let malformed = wallet.ask(OFFER_KIND, "no json").await;
    assert_eq!(malformed["code"], 1, "{malformed}");

    pay(&world, &sale.invoice, None);
    machine.push().await;
    let asked = |offer: &str| bitspire_shared::clink::OfferRequest {
        offer: offer.to_owned(),
        amount: None,
    };
    let paid = answer::offer(&world.app, &asked(offer)).await;
    assert_eq!(paid, OfferReply::error(OfferErrorCode::Invalid, "Invalid Offer"), "paid once");
    let late = offered(&mut machine, 1_000).await;
    world.advance(301);
    let late = answer::offer(&world.app, &asked(&late.quote.quote_id.to_string())).await;
    assert_eq!(late, OfferReply::error(OfferErrorCode::Expired, "Offer has expired."));
    assert_eq!(wallet.ask(OFFER_KIND, "{}").await["code"], 1);
    let counted = world.app.clink.totals();
    for what in ["offer_invoice", "offer_invalid", "offer_unsupported", "offer_amount"] {
        assert!(counted.get(what).is_some_and(|count| *count > 0), "{what}: {counted:?}");
    }
}

/// Loss prevented: notes paid for twice, by CLINK and by LNURL; a session that a mistyped request has
/// used up; a reply that was lost, and then the customer is told that their sats are another's.
#[tokio::test]
async fn a_debit_is_paid_once_whatever_else_is_asked() {
    let (world, mut machine) = open().await;
    let (withdraw, debit) = sold(&mut machine).await;
    assert_eq!(debit.pointer, Some(withdraw.withdraw_id.to_string()));
    let (k1, pointer) = (hex(debit.k1.as_ref().unwrap()), debit.pointer.unwrap());
    let wallet = Wallet::new(&world).await;
    let payee = Payee::new(&world);
    let net = withdraw.net_sats;
    let (good, hash) = payee.invoice(net).await;
    let (other, _) = payee.invoice(net).await;
    let (more, _) = payee.invoice(Sats(net.0 + 1)).await;
    let range = json!({"min": net, "max": net});
    for (body, code, has_range) in [
        (json!({"bolt11": good, "k1": k1, "pointer": "other"}), 6, false),
        (json!({"bolt11": good, "k1": k1, "amount_sats": net.0 - 1}), 5, true),
        (json!({"bolt11": more, "k1": k1}), 5, true),
        (json!({"bolt11": "lnbc1", "k1": k1}), 6, false),
        (json!({"bolt11": good}), 6, false),
        (json!({"k1": k1, "amount_sats": net}), 6, false),
        (json!({"bolt11": good, "k1": "ab".repeat(32)}), 3, false),
    ] {
        let told = wallet.ask(DEBIT_KIND, &body.to_string()).await;
        assert_eq!((&told["res"], &told["code"]), (&json!("GFY"), &json!(code)), "{told}");
        assert_eq!(told.get("range"), has_range.then_some(&range), "{told}");
        assert!(!told.to_string().contains(&k1), "{told}");
    }
    let asked = |bolt11: &str| {
        json!({"pointer": pointer, "amount_sats": net, "bolt11": bolt11, "k1": k1}).to_string()
    };
    let ok = json!({"res": "ok"});
    assert_eq!(wallet.ask(DEBIT_KIND, &asked(&good)).await, ok);
    assert_eq!(wallet.ask(DEBIT_KIND, &asked(&good)).await, ok, "the reply was lost");
    let denied = wallet.ask(DEBIT_KIND, &asked(&other)).await;
    assert_eq!(denied["code"], 1, "{denied}");
    assert_eq!(named(&world.app, &withdraw, &other).await["status"], "ERROR");
    assert_eq!(named(&world.app, &withdraw, &good).await["status"], "OK", "the same one");
    crate::payout::tests::round(&world.app).await.unwrap();
    let paid = world.read(move |read| payments::by_hash(read, hash)).await.unwrap();
    assert_eq!(paid.state, payments::PaymentState::Succeeded);
    assert_eq!(wallet.ask(DEBIT_KIND, &asked(&good)).await, ok, "long after");
    assert_eq!(wallet.ask(DEBIT_KIND, &asked(&other)).await["code"], 1);
    assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, -19_000, "once");

    // the very same event again: the very same reply
    let event = wallet.event(&Keys::generate(), DEBIT_KIND, &asked(&good));
    wallet.pool.send(&event).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.app.clink.total("repeated") == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is not sent again");
        let _ = tokio::time::timeout(Duration::from_millis(200), wallet.pool.next()).await;
        wallet.pool.send(&event).await;
    }

    let old = Unix(world.app.clock.now().0 - 121);
    let Ok(Asked::Debit(request)) = Asked::parse(DEBIT_KIND, &asked(&good)) else { panic!() };
    let late = serde_json::to_value(answer::debit(&world.app, &request, old).await).unwrap();
    let delta = json!({"max_delta_ms": 120_000, "actual_delta_ms": 121_000});
    assert_eq!((&late["code"], &late["delta"]), (&json!(3), &delta));
}

/// Loss prevented: a customer who comes back with the claim code and a wallet that speaks CLINK alone;
/// or a second k1 for the same sats.
#[tokio::test]
async fn the_claim_page_shows_the_code_of_the_machine() {
    let (world, mut machine) = open().await;
    let code = ClaimCode::from_bytes([0x5a; 16]);
    let mut asked = machine.quote(Direction::CashIn, 2_000);
    asked.claim_hash = code.hash();
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    let from = std::net::SocketAddr::from(([192, 0, 2, 7], 1));
    let routes = lnurl::router(&world.app).layer(MockConnectInfo(from));
    let call = axum::http::Request::get(format!("/c/{}", code.expose()));
    let answer = routes.oneshot(call.body(Body::empty()).unwrap()).await.unwrap();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let page = String::from_utf8(body.to_vec()).unwrap();
    let ndebit = withdraw.ndebit.unwrap();
    for shown in [withdraw.lnurl.expose(), ndebit.expose(), ">CLINK<"] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
}

/// Loss prevented: notes paid for twice because two wallets with two protocols came at once.
#[tokio::test]
async fn of_wallets_by_both_ways_at_once_one_is_paid() {
    let (world, mut machine) = open().await;
    let payee = Payee::new(&world);
    for _ in 0..4 {
        let (withdraw, debit) = sold(&mut machine).await;
        let k1 = debit.k1.unwrap();
        let mut all = JoinSet::new();
        for n in 0..40 {
            let (bolt11, hash) = payee.invoice(withdraw.net_sats).await;
            let (app, withdraw, k1) = (world.app.clone(), withdraw.clone(), k1.clone());
            all.spawn(async move {
                let accepted = if n % 2 == 0 {
                    let (pointer, amount) = (None, None);
                    let asked =
                        bitspire_shared::clink::DebitRequest { pointer, amount, bolt11, k1 };
                    answer::debit(&app, &asked, app.clock.now()).await == DebitReply::Ok
                } else {
                    named(&app, &withdraw, &bolt11).await["status"] == "OK"
                };
                accepted.then_some(hash)
            });
        }
        let accepted: Vec<_> = all.join_all().await.into_iter().flatten().collect();
        assert_eq!(accepted.len(), 1);
        crate::payout::tests::round(&world.app).await.unwrap();
        let hash = accepted[0];
        let paid = world.read(move |read| payments::by_hash(read, hash)).await.unwrap();
        assert_eq!(paid.state, payments::PaymentState::Succeeded);
        let subject = withdraw.withdraw_id.to_string();
        let rows = world.read(|read| payments::page(read, crate::ids::PaymentId(0), 1_000)).await;
        assert_eq!(rows.iter().filter(|kept| kept.row.subject_id == subject).count(), 1);
    }
    assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, -4 * 19_000);
    assert_eq!(world.balance(Account::CustomerLiability(world.machine_id)).await, 0);
}
