//! Lightning addresses: what a receiver's server may answer, and what is made of it.

use std::str::FromStr as _;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bitspire_shared::canonical::sha256;
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash as _, sha256 as hashes};
use nostr::secp256k1::SecretKey;

use super::*;
use crate::outgoing::testing::Host;

const METADATA: &str = "[[\"text/plain\",\"fees\"],[\"text/identifier\",\"me@pay.example\"]]";

/// How the receiver's server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    /// Asks for more than it was told.
    Dear,
    /// Another chain.
    OtherChain,
    /// An invoice for something else.
    OtherMetadata,
    /// Takes larger amounts only.
    Proud,
    Refuses,
    /// Sends the asker on to a place inside of our network.
    Redirects,
    LeadsInside,
    Long,
}

#[derive(Clone)]
struct Receiver {
    mood: Arc<Mutex<Mood>>,
    base: Arc<Mutex<String>>,
    /// Preimages of the invoices that were made.
    made: Arc<Mutex<u8>>,
    now: Arc<AtomicU64>,
}

impl Receiver {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }
}

async fn shown(State(at): State<Receiver>) -> Response {
    let base = at.base.lock().unwrap().clone();
    let callback = match at.mood() {
        Mood::LeadsInside => "http://127.0.0.1:1/cb".to_owned(),
        _ => format!("{base}/cb?id=7"),
    };
    match at.mood() {
        Mood::Refuses => axum::Json(json!({"status": "ERROR", "reason": "closed"})).into_response(),
        Mood::Redirects => Redirect::temporary("http://127.0.0.1:1/").into_response(),
        Mood::Long => "x".repeat(70_000).into_response(),
        mood => axum::Json(json!({
            "tag": "payRequest", "callback": callback, "metadata": METADATA,
            "minSendable": if mood == Mood::Proud { 1_000_000_000 } else { 1_000 },
            "maxSendable": 100_000_000_000_u64,
        }))
        .into_response(),
    }
}

async fn made(State(at): State<Receiver>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap();
    assert!(query.starts_with("id=7&"), "{query}");
    let msat: u64 = query.split("amount=").nth(1).unwrap().parse().unwrap();
    let (mood, preimage) = (at.mood(), {
        let mut made = at.made.lock().unwrap();
        *made += 1;
        [*made; 32]
    });
    let metadata = if mood == Mood::OtherMetadata { "[]" } else { METADATA };
    let network = if mood == Mood::OtherChain { Currency::Bitcoin } else { Currency::Regtest };
    let key = SecretKey::from_slice(&[3; 32]).unwrap();
    let invoice = InvoiceBuilder::new(network)
        .description_hash(hashes::Hash::from_str(&sha256(metadata).to_string()).unwrap())
        .payment_hash(hashes::Hash::hash(&preimage))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(Duration::from_secs(at.now.load(Ordering::SeqCst)))
        .min_final_cltv_expiry_delta(18)
        .expiry_time(Duration::from_secs(600))
        .amount_milli_satoshis(if mood == Mood::Dear { msat + 1_000 } else { msat })
        .build_signed(|digest| nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key))
        .unwrap();
    axum::Json(json!({"pr": invoice.to_string(), "routes": []})).into_response()
}

/// A world whose operator's fee goes to an address of a receiver that it can reach.
async fn with(receiver: &Receiver) -> World {
    let router = Router::new()
        .route("/.well-known/lnurlp/me", get(shown))
        .route("/cb", get(made))
        .with_state(receiver.clone());
    let host = Host::start(router).await;
    *receiver.base.lock().unwrap() = host.base();
    let authority = host.base().trim_start_matches("http://").to_owned();
    let world = World::with(&format!("[outgoing]\nallow = ['{authority}']\n")).await;
    receiver.now.store(NOW, Ordering::SeqCst);
    world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
    let all = FeePpm::new(1_000_000).unwrap();
    let address = Destination::LightningAddress(format!("me@{authority}"));
    world.rules(Scope::Operator, vec![Share { ppm: all, to: address }]).await;
    world
}

fn receiver() -> Receiver {
    Receiver {
        mood: Arc::new(Mutex::new(Mood::Good)),
        base: Arc::default(),
        made: Arc::default(),
        now: Arc::default(),
    }
}

/// Loss prevented: sats to whoever's server answers with a dearer invoice, one of another chain, or
/// one for something else; a service that asks a stranger's server for what is inside of its network.
#[tokio::test]
async fn only_the_invoice_that_was_asked_for_is_paid() {
    let receiver = receiver();
    let world = with(&receiver).await;
    let id = world.full().await;
    for (mood, words) in [
        (Mood::Dear, "expected an invoice of 300 sat"),
        (Mood::OtherChain, "Bitcoin"),
        (Mood::OtherMetadata, "metadata"),
        (Mood::Proud, "it takes 1000000000"),
        (Mood::Refuses, "refused: closed"),
        (Mood::Redirects, "unexpected answer"),
        (Mood::LeadsInside, "expected an https:// address"),
        (Mood::Long, "no whole answer"),
    ] {
        *receiver.mood.lock().unwrap() = mood;
        world.round().await;
        let leg = world.legs(id).await.remove(1);
        let why = leg.detail.clone().unwrap();
        assert!(why.contains(words), "{mood:?}: {why}");
        assert_eq!(leg.state, LegState::Planned);
    }
    assert_eq!(world.states(id).await[0], LegState::Paid, "legs are independent");
    *receiver.mood.lock().unwrap() = Mood::Good;
    for _ in 0..2 {
        world.round().await;
    }
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!(world.holds("till").await, OPENING + 10_500 - 500);
    assert_eq!(world.balance(Account::Operator(world.operator)).await, 0);
    world.books_are_the_wallets().await;
}

/// Loss prevented: an address in the rules that makes the service ask inside of its own network, in
/// the clear, or somewhere else than its owner has read.
#[tokio::test]
async fn only_public_addresses_over_tls_are_named_in_rules() {
    let world = World::new().await;
    for (to, words) in [
        (Destination::LightningAddress("me".into()), "Lightning address"),
        (Destination::LightningAddress("me@pay.example/x?".into()), "Lightning address"),
        (Destination::LightningAddress("m e@pay.example".into()), "Lightning address"),
        (Destination::LightningAddress("a@b@pay.example".into()), "Lightning address"),
        (Destination::LnurlPay("http://pay.example/".into()), "https://"),
        (Destination::LnurlPay("https://me:word@pay.example/".into()), "https://"),
        (Destination::LnurlPay("nonsense".into()), "Lightning address"),
    ] {
        let wish = super::super::rules::Wish {
            scope: Scope::Operator,
            operator: None,
            machine: None,
            lp: None,
            shares: vec![Share { ppm: FeePpm::new(1_000_000).unwrap(), to: to.clone() }],
        };
        let refused = super::super::rules::change(world.app(), "cli", None, wish).await;
        let told = refused.unwrap_err().to_string();
        assert!(told.contains(words), "{to}: {told}");
    }
    // a name that leads inside is found out when it is asked for
    world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
    let inside = Destination::LightningAddress("me@localhost".into());
    let all = FeePpm::new(1_000_000).unwrap();
    world.rules(Scope::Operator, vec![Share { ppm: all, to: inside }]).await;
    let id = world.full().await;
    world.round().await;
    let why = world.legs(id).await[1].detail.clone().unwrap();
    assert!(why.contains("is no public address"), "{why}");
}
