//! LNbits itself, from PyPI, over its FakeWallet, that calls nobody: the battery, a sale through
//! settlement, and a distribution inside the instance. What FakeWallet
//! cannot show (pending, failed, routing) is the double's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitspire_shared::rpc::{DispenseOutcome, Push};
use bitspire_shell::clock::Clock;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::ledger::Account;
use crate::rpc::tests::cash_out::{loaded, offered, report, settlement};
use crate::rpc::tests::{sats, trading_with};
use crate::store::settlements::Distribution;
use crate::wallet::battery::{self, Bench, FUNDED, Outside, request};

/// An instance of our own.
struct Instance {
    child: Child,
    base: String,
    data: tempfile::TempDir,
    token: String,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A wallet of the instance.
struct Keys {
    id: String,
    admin: String,
    invoice: String,
}

/// The Python that has LNbits; installed now where it is not.
fn python() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/lnbits");
    let made = Command::new(&script).output().expect("bash runs .ci/lnbits");
    let words = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "LNbits cannot be had; .ci/lnbits says: {words}");
    PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
}

/// Where LNbits looks for its templates.
fn site_packages(python: &Path) -> PathBuf {
    let lib = python.parent().unwrap().parent().unwrap().join("lib");
    let versions = fs::read_dir(&lib).unwrap().map(|entry| entry.unwrap().path());
    let mut found = versions.map(|path| path.join("site-packages"));
    found.find(|path| path.join("lnbits").is_dir()).expect("lnbits in site-packages")
}

impl Instance {
    fn start() -> Self {
        let python = python();
        let data = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let log = File::create(data.path().join("log")).unwrap();
        let child = Command::new(&python)
            .args(["-m", "uvicorn", "lnbits.__main__:app", "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .current_dir(site_packages(&python))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", data.path())
            .env("LNBITS_DATA_FOLDER", data.path())
            .env("LNBITS_ADMIN_UI", "true")
            .env("LNBITS_BACKEND_WALLET_CLASS", "FakeWallet")
            .env("LNBITS_PRICE_AGGREGATOR_ENABLED", "false")
            .env("LNBITS_EXCHANGE_RATE_PROVIDERS", "[]")
            .env("LNBITS_EXTENSIONS_MANIFESTS", "[]")
            .env("LNBITS_WASM_EXTENSIONS_MANIFESTS", "[]")
            .env("LNBITS_RATE_LIMIT_NO", "5000")
            .env("LNBITS_RESERVE_FEE_PERCENT", "0.5")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("python runs");
        let base = format!("http://127.0.0.1:{port}");
        let mut instance = Self { child, base, data, token: String::new() };
        instance.answers();
        instance
    }

    /// Waits until it answers anything at all.
    fn answers(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while std::net::TcpStream::connect(self.base.trim_start_matches("http://")).is_err() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.data.path().join("log")).unwrap();
                panic!("LNbits does not start ({ended:?}): {log}");
            }
            std::thread::yield_now();
        }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.to_string())
            .unwrap();
        let mut answer = ureq::run(request).unwrap();
        answer.body_mut().read_json().unwrap()
    }

    fn first_user(&mut self) {
        let password = "correct horse";
        let body = json!({"username": "admin", "password": password, "password_repeat": password});
        let made = self.call("PUT", "/api/v1/auth/first_install", &body);
        self.token = made["access_token"].as_str().unwrap().to_owned();
    }

    fn wallet(&self, name: &str) -> Keys {
        let made = self.call("POST", "/api/v1/wallet", &json!({"name": name}));
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Keys { id: text("id"), admin: text("adminkey"), invoice: text("inkey") }
    }

    fn fund(&self, keys: &Keys) {
        let given = json!({"id": keys.id, "amount": FUNDED.0});
        self.call("PUT", "/users/api/v1/balance", &given);
    }

    fn funded(&self, name: &str) -> Keys {
        let keys = self.wallet(name);
        self.fund(&keys);
        keys
    }

    fn client(&self, keys: &Keys) -> Arc<Lnbits> {
        let secret = |text: &str| Secret::new(Zeroizing::new(text.to_owned()));
        let access = Access {
            admin_key: secret(&keys.admin),
            invoice_key: Some(secret(&keys.invoice)),
            network: Currency::Bitcoin,
        };
        let server = Server::configured(&self.base).unwrap();
        Arc::new(Lnbits::new("till", server, access, Clock::system()))
    }
}

/// Loss prevented: a wallet that keeps every rule of our own double, and not those of LNbits.
#[tokio::test]
async fn lnbits_itself() {
    let mut instance = tokio::task::spawn_blocking(Instance::start).await.unwrap();
    let nobody = Keys { id: String::new(), admin: "a".into(), invoice: "i".into() };
    let early = instance.client(&nobody).balance().await;
    assert!(
        matches!(&early, Err(WalletError::Unreachable { reason, .. }) if reason.contains("not set up")),
        "{early:?}"
    );
    instance.first_user();
    let other = instance.funded("other");
    let bench = async || {
        let till = instance.client(&instance.funded("till"));
        Bench::connected(till, Outside::Neighbour(instance.client(&other))).await
    };
    battery::an_invoice_round_trips(&bench().await).await;
    battery::a_payment_goes_out_once(&bench().await).await;
    battery::what_cannot_be_paid_is_refused_without_effect(&bench().await).await;
    battery::the_list_tells_what_changed(&bench().await).await;
    a_wrong_key_is_refused(&instance, &nobody).await;
    crate::rates::lnbits_without_providers(&instance.base).await;
    sales(&instance, &instance.client(&other)).await;
}

async fn a_wrong_key_is_refused(instance: &Instance, nobody: &Keys) {
    let wrong = instance.client(nobody);
    let refused = wrong.lookup_payment(PaymentHash::from_bytes([1; 32])).await;
    assert!(matches!(refused, Err(WalletError::Refused { .. })), "{refused:?}");
}

/// A machine whose till is a wallet of the instance: sats for notes, and the platform's share passed
/// on inside the instance.
async fn sales(instance: &Instance, customer: &Lnbits) {
    let keys = instance.wallet("till");
    let files = instance.data.path();
    for (name, text) in [("admin", &keys.admin), ("invoice", &keys.invoice)] {
        bitspire_shell::secrets::write_private(&files.join(name), text.as_bytes()).unwrap();
    }
    let table = format!(
        "kind = 'lnbits'\nurl = '{}'\nkey_file = '{2}/admin'\ninvoice_key_file = '{2}/{1}'\n",
        instance.base,
        "invoice",
        files.display()
    );
    let (world, mut machine) = trading_with(&table).await;
    loaded(&world).await;
    instance.fund(&keys);
    let till = world.app.wallets["till"].clone();
    let id = world.machine_id;

    let sale = offered(&mut machine, 5_000).await;
    let paid = customer.pay(sale.invoice.bolt11.clone(), sats(300), json!({})).await.unwrap();
    assert!(matches!(paid, PayState::Succeeded { .. }), "{paid:?}");
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert!(machine.is_leave(&sale.quote, sale.invoice.payment_hash, &push.authorisation));
    let full = report(&mut machine, &sale, DispenseOutcome::Full, &[(1, 2, 2), (2, 1, 1)], 0);
    machine.ask(full).await.unwrap();
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.distribution, Distribution::Pending);
    assert_eq!(world.balance(Account::Super).await, -1_000);

    let platform = instance.client(&instance.wallet("platform"));
    let leg = platform.make_invoice(request(1_000)).await.unwrap();
    let passed_on = till.pay(leg.bolt11, sats(5), json!({"leg": "super"})).await.unwrap();
    assert!(matches!(passed_on, PayState::Succeeded { fee: Msat::ZERO, .. }), "{passed_on:?}");
    assert_eq!(platform.balance().await.unwrap(), Msat(1_000_000));
    crate::settle::reconcile(&world.app, &*till).await.unwrap();
    // what the wallet was given is there as well: nobody asked for it, so it waits in suspense
    let booked = world.balance(Account::Wallet(id)).await;
    let held = till.balance().await.unwrap().to_sats_floor();
    assert_eq!((booked, held), (100_000 + 52_500, sats(100_000 + 52_500 - 1_000)));
    world.books_hold().await;
}
