//! LNbits itself, from PyPI, in a process of its own over its FakeWallet: for tests and figures.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// An instance of our own.
pub(crate) struct Instance {
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
pub(crate) struct Keys {
    /// Its id.
    pub(crate) id: String,
    /// For payments.
    pub(crate) admin: String,
    /// For invoices.
    pub(crate) invoice: String,
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
    /// Starts one; it calls nobody.
    pub(crate) fn start() -> Self {
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
            .env("LNBITS_RATE_LIMIT_NO", "100000")
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

    /// Where it listens.
    pub(crate) fn base(&self) -> &str {
        &self.base
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

    /// Makes the first user, in whose name everything is made.
    pub(crate) fn first_user(&mut self) {
        let password = "correct horse";
        let body = json!({"username": "admin", "password": password, "password_repeat": password});
        let made = self.call("PUT", "/api/v1/auth/first_install", &body);
        self.token = made["access_token"].as_str().unwrap().to_owned();
    }

    /// Makes a wallet.
    pub(crate) fn wallet(&self, name: &str) -> Keys {
        let made = self.call("POST", "/api/v1/wallet", &json!({"name": name}));
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Keys { id: text("id"), admin: text("adminkey"), invoice: text("inkey") }
    }

    /// Gives a wallet so many sats.
    pub(crate) fn fund(&self, keys: &Keys, sats: u64) {
        self.call("PUT", "/users/api/v1/balance", &json!({"id": keys.id, "amount": sats}));
    }
}
