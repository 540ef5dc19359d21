//! One debt, one claim code, one payment: through the public routes, with restarts in between.

mod closed;
mod ends;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
use axum::http::{Request, StatusCode};
use bitspire_shared::ids::{ClaimCode, PaymentHash, PubKey, TxnId};
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{PayoutError, Worker};
use crate::app::App;
use crate::ids::{MachineId, PaymentId};
use crate::ledger::{Account, Unit, owed_whole};
use crate::lnurl;
use crate::store::claims::{self, NewOwed, OwedReason};
use crate::store::operators::{self, Operator};
use crate::store::payments::{self, PaymentState};
use crate::store::{Read, StoreError, ledger, machines};
use crate::wallet::simulated::{Behaviour, SimulatedNode};
use crate::wallet::{InvoiceRequest, PayState, Wallet as _};

const NOW: u64 = 1_800_000_000;
const OWED: Sats = Sats(75_795);
const CODE: [u8; 16] = [0xc5; 16];

/// The service with one debt of one customer, over restarts; and the customer's own node.
struct World {
    folder: tempfile::TempDir,
    app: Option<Arc<App>>,
    now: Arc<AtomicU64>,
    customer: SimulatedNode,
}

fn open(folder: &Path, now: &Arc<AtomicU64>) -> Arc<App> {
    let file = folder.join("operator.toml");
    let text = "[public]\nbase_url = 'https://pay.example'\n[wallets.till]\nkind = 'simulated'\n\
                opening_sats = 1000000\nrouting_fee_sats = 3\n";
    std::fs::write(&file, text).unwrap();
    let flags = [("data_dir", folder.display().to_string())];
    let (config, _) = crate::config::load(Some(&file), &Default::default(), &flags).unwrap();
    let told = Arc::clone(now);
    App::open(config, Clock::new(move || Unix(told.load(Ordering::SeqCst)))).unwrap()
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(NOW));
        let app = open(folder.path(), &now);
        let clock = app.clock.clone();
        let key = nostr::secp256k1::SecretKey::from_slice(&[9; 32]).unwrap();
        let customer = SimulatedNode::open(None, key, Sats(0), clock).unwrap();
        let owe = |tx: &crate::store::Tx<'_>| {
            let key = PubKey::new(nostr::Keys::generate().public_key()).unwrap();
            let operator = Operator {
                name: "Test".into(),
                pubkey: Some(key),
                signer: Some(operators::SignerKind::Local),
                bunker_key_name: None,
                created_at: Unix(NOW),
            };
            let operator = operators::insert(tx, &operator)?;
            let currency = "EUR".parse().unwrap();
            let machine =
                machines::Machine::new(operator, "Café", "Sintra", currency, "till", Unix(NOW));
            let machine = machines::insert(tx, &machine)?;
            let debt = NewOwed {
                claim_hash: ClaimCode::from_bytes(CODE).hash(),
                machine_id: machine,
                txid: TxnId::from_bytes([1; 16]),
                reason: OwedReason::Late,
                source: "late".into(),
                sats: OWED,
            };
            claims::owe(tx, &debt, Unix(NOW))?;
            let entry = owed_whole(machine, "late", debt.txid, OWED).unwrap();
            ledger::append(tx, &entry, Unix(NOW))?;
            Ok::<_, StoreError>(())
        };
        app.store.write(owe).await.unwrap();
        Self { folder, app: Some(app), now, customer }
    }

    fn app(&self) -> &Arc<App> {
        self.app.as_ref().unwrap()
    }

    /// As after kill -9: nothing but the files.
    fn restart(&mut self) {
        self.app = None;
        self.app = Some(open(self.folder.path(), &self.now));
    }

    fn routes(&self) -> Router {
        let address = SocketAddr::from(([192, 0, 2, 7], 1));
        lnurl::router(self.app()).layer(MockConnectInfo(address))
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        get(self.routes(), path).await
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }

    /// The k1 behind the claim page's LNURL.
    async fn k1(&self) -> String {
        let (_, page) = self.get(&claim_path()).await;
        let lnurl = page.split("LNURL1").nth(1).map(|rest| rest.split(['"', '<']).next().unwrap());
        let (_, url) = bech32::decode(&format!("LNURL1{}", lnurl.unwrap_or(&page))).unwrap();
        String::from_utf8(url).unwrap().rsplit('/').next().unwrap().to_owned()
    }

    async fn invoice(&self, sats: u64) -> String {
        let request = InvoiceRequest {
            amount: Sats(sats),
            memo: "wallet".into(),
            expiry_s: 3_600,
            extra: json!({}),
        };
        self.customer.wallet("c").make_invoice(request).await.unwrap().bolt11
    }

    async fn received(&self) -> Msat {
        self.customer.wallet("c").balance().await.unwrap()
    }

    /// Lightning itself: what the till's node paid arrives at the customer's node.
    async fn deliver(&self, bolt11: &str) {
        let paid = self.app().wallets["till"].lookup_payment(hash_of(bolt11)).await.unwrap();
        if matches!(paid.map(|p| p.state), Some(PayState::Succeeded { .. })) {
            // the second delivery of one payment is refused by the customer's node
            let _ = self.customer.customer_pays(bolt11, None);
        }
    }

    async fn balance(&self, account: Account) -> i64 {
        self.app()
            .store
            .read::<_, StoreError, _>(move |read| ledger::balance(read, account, Unit::Sats))
            .await
            .unwrap()
    }

    async fn attempts(&self) -> Vec<PaymentState> {
        let all = |read: &Read<'_>| payments::page(read, PaymentId(0), u32::MAX);
        let rows = self.app().store.read::<_, StoreError, _>(all).await.unwrap();
        rows.into_iter().map(|row| row.state).collect()
    }

    /// Books and wallet agree: paid once, routing booked, nothing owed.
    async fn assert_paid_once(&self) {
        let machine = MachineId(1);
        assert_eq!(self.balance(Account::Owed(machine)).await, 0);
        assert_eq!(self.balance(Account::RoutingFees(machine)).await, 3);
        let left = self.app().wallets["till"].balance().await.unwrap();
        assert_eq!(left, Msat((1_000_000 - OWED.0 - 3) * 1_000));
        assert_eq!(self.received().await, Msat(OWED.0 * 1_000));
    }
}

fn hash_of(bolt11: &str) -> PaymentHash {
    let network = lightning_invoice::Currency::Regtest;
    lnurl::invoice::read(bolt11, OWED, &network).unwrap().payment_hash
}

/// What the worker does once, to its end.
pub(crate) async fn round(app: &Arc<App>) -> Result<(), PayoutError> {
    let mut worker = Worker::new(Arc::clone(app));
    worker.look().await?;
    worker.finish().await;
    Ok(())
}

pub(crate) async fn get(routes: Router, path: &str) -> (StatusCode, String) {
    answer(routes, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn answer(routes: Router, request: Request<Body>) -> (StatusCode, String) {
    let answer = routes.oneshot(request).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn claim_path() -> String {
    format!("/c/{}", ClaimCode::from_bytes(CODE).expose())
}

pub(crate) fn callback(k1: &str, invoice: &str) -> String {
    format!("/lnurl/w/{k1}/cb?k1={k1}&pr={invoice}")
}

/// Loss prevented: a claim that cannot be fetched, or that is paid twice.
#[tokio::test]
async fn a_claim_is_fetched_once() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let offer = world.json(&format!("/lnurl/w/{k1}")).await;
    assert_eq!(offer["tag"], "withdrawRequest");
    assert_eq!(offer["minWithdrawable"], OWED.0 * 1_000);
    assert_eq!(offer["maxWithdrawable"], OWED.0 * 1_000);
    let invoice = world.invoice(OWED.0).await;
    for _ in 0..2 {
        assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
        round(world.app()).await.unwrap();
        world.deliver(&invoice).await;
    }
    world.assert_paid_once().await;
    let other = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &other)).await["status"], "ERROR");
    let (_, page) = world.get(&claim_path()).await;
    assert!(page.contains("Nothing is owed"), "{page}");
}

/// Loss prevented: a link for the wallet on the same phone that leads elsewhere than the code, or
/// nowhere.
#[tokio::test]
async fn the_claim_pages_link_leads_to_the_offer_of_its_code() {
    let world = World::new().await;
    let (_, page) = world.get(&claim_path()).await;
    let link = page.split("href=\"lnurlw://").nth(1).and_then(|rest| rest.split('"').next());
    let path =
        link.and_then(|link| link.strip_prefix("pay.example")).unwrap_or_else(|| panic!("{page}"));
    assert_eq!(path, format!("/lnurl/w/{}", world.k1().await));
    let offer = world.json(path).await;
    assert_eq!(offer["tag"], "withdrawRequest");
    assert_eq!(offer["callback"], format!("https://pay.example{path}/cb"));
    assert!(!page.contains("CLINK"), "it is not served here: {page}");
}

/// Loss prevented: two wallets at one code are both paid. A thousand of them ask at once, each from an
/// address of its own, each with an invoice of its own.
#[tokio::test]
async fn of_a_thousand_wallets_at_once_one_is_paid() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let routes = lnurl::router(world.app());
    let (mut invoices, mut asked) = (Vec::new(), Vec::new());
    for n in 0..1_000_u16 {
        let invoice = world.invoice(OWED.0).await;
        let mut request = Request::get(callback(&k1, &invoice)).body(Body::empty()).unwrap();
        let [high, low] = n.to_be_bytes();
        let address = SocketAddr::from(([198, 18, high, low], 1));
        request.extensions_mut().insert(ConnectInfo(address));
        asked.push(answer(routes.clone(), request));
        invoices.push(invoice);
    }
    let answers = futures_util::future::join_all(asked).await;
    let said = |what: &str| answers.iter().filter(|(_, body)| body.contains(what)).count();
    assert_eq!((said("\"OK\""), said("\"ERROR\"")), (1, 999));
    round(world.app()).await.unwrap();
    for invoice in &invoices {
        world.deliver(invoice).await;
    }
    world.assert_paid_once().await;
}

/// Loss prevented: a crash anywhere between binding and booking pays twice, or never.
#[tokio::test]
async fn a_restart_at_each_step_ends_in_one_payment() {
    for behaviour in [Behaviour::Succeed, Behaviour::LoseAnswer, Behaviour::Pend] {
        let mut world = World::new().await;
        let k1 = world.k1().await;
        let invoice = world.invoice(OWED.0).await;
        world.restart();
        assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
        world.restart();
        // bound, no attempt written
        world.app().simulated.as_ref().unwrap().set_reachable(false);
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Pending]);
        world.restart();
        // attempt written, the wallet was never reached
        world.app().simulated.as_ref().unwrap().script([behaviour]);
        round(world.app()).await.unwrap();
        world.restart();
        // asked; the answer came, was lost, or is pending
        if behaviour == Behaviour::Pend {
            assert_eq!(world.attempts().await, [PaymentState::Unknown]);
            round(world.app()).await.unwrap();
            assert_eq!(world.attempts().await, [PaymentState::Unknown], "pending is not failed");
            let node = world.app().simulated.clone().unwrap();
            node.resolve("till", hash_of(&invoice), true).unwrap();
        }
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Succeeded], "{behaviour:?}");
        world.deliver(&invoice).await;
        world.assert_paid_once().await;
    }
}

/// Loss prevented: a payment that failed leaves the customer with nothing, or opens a second way
/// to be paid while the first one may still succeed.
#[tokio::test]
async fn a_new_k1_comes_only_after_final_failure_and_expiry() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let invoice = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
    let (_, page) = world.get(&claim_path()).await;
    assert!(page.contains("On its way"), "{page}");
    world.app().simulated.as_ref().unwrap().script([Behaviour::Fail]);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Failed]);
    let (_, page) = world.get(&claim_path()).await;
    assert!(page.contains("On its way"), "the invoice could still be paid: {page}");
    let second = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &second)).await["status"], "ERROR");
    world.now.store(NOW + 3_601, Ordering::SeqCst);
    let new = world.k1().await;
    assert_ne!(new, k1);
    let third = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &third)).await["status"], "ERROR", "dead for ever");
    assert_eq!(world.json(&callback(&new, &third)).await["status"], "OK");
    round(world.app()).await.unwrap();
    world.deliver(&third).await;
    world.assert_paid_once().await;
}

/// Loss prevented: an invoice that asks for more, or that was used before, is paid; or a refused
/// one burns the customer's k1.
#[tokio::test]
async fn a_refused_invoice_leaves_the_k1_as_it_was() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let more = world.invoice(OWED.0 + 1).await;
    for pr in [more.as_str(), "lnbcrt1nonsense"] {
        assert_eq!(world.json(&callback(&k1, pr)).await["status"], "ERROR");
    }
    let good = world.invoice(OWED.0).await;
    let other = "0".repeat(64);
    let mixed = format!("/lnurl/w/{k1}/cb?k1={other}&pr={good}");
    assert_eq!(world.json(&mixed).await["status"], "ERROR");
    assert_eq!(world.json(&callback(&other, &good)).await["status"], "ERROR");
    assert_eq!(world.json(&callback(&k1, &good)).await["status"], "OK");
}

/// Loss prevented: a claim code is guessed.
#[tokio::test]
async fn claim_codes_cannot_be_tried_in_bulk() {
    let world = World::new().await;
    let routes = world.routes();
    let mut answers = Vec::new();
    for n in 0..7u8 {
        let wrong = ClaimCode::from_bytes([n; 16]);
        answers.push(get(routes.clone(), &format!("/c/{}", wrong.expose())).await.0);
    }
    assert_eq!(answers[..5], [StatusCode::OK; 5]);
    assert_eq!(answers[5..], [StatusCode::TOO_MANY_REQUESTS; 2]);
}
