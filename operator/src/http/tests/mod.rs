//! The API as programs use it: over TCP, through the gate.

mod at_machine;
mod audit;
mod bunker;
mod fleet;
mod lps;
mod pairing;

use std::net::SocketAddr;

use nostr::hashes::{Hash as _, sha256};
use nostr::nips::nip98::{HttpData, HttpMethod};
use nostr::{Keys, Url};
use serde_json::Value;
use ureq::http::header::AUTHORIZATION;

use crate::serve::{self, Running};
use crate::testing::World;

/// How a request says who sends it.
#[derive(Clone)]
pub(super) enum As {
    Nobody,
    Token(String),
    Key(Keys),
}

/// A running daemon.
pub(super) struct Site {
    pub(super) world: World,
    address: SocketAddr,
    cookie: String,
    running: Running,
}

pub(super) struct Got {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) headers: ureq::http::HeaderMap,
}

impl Got {
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }
}

impl Site {
    pub(super) async fn new() -> Self {
        Self::of(World::with("[relay]\nembedded = false\n").await).await
    }

    pub(super) async fn of(world: World) -> Self {
        let running = serve::start(world.app.clone()).await.unwrap();
        let address = running.api;
        let line = std::fs::read_to_string(world.folder.path().join("api.cookie")).unwrap();
        let cookie = line.trim().split_once(' ').unwrap().1.to_owned();
        Self { world, address, cookie, running }
    }

    pub(super) fn cookie(&self) -> As {
        As::Token(self.cookie.clone())
    }

    pub(super) async fn call(&self, who: &As, method: &str, path: &str, body: Value) -> Got {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let header = match who {
            As::Nobody => None,
            As::Token(token) => Some(format!("Bearer {token}")),
            As::Key(keys) => {
                let url = format!("{}{path}", self.world.app.config.api_base_url);
                let url = Url::parse(&url).unwrap();
                let mut data = HttpData::new(url, method.parse::<HttpMethod>().unwrap());
                if !body.is_empty() {
                    data = data.payload(sha256::Hash::hash(body.as_bytes()));
                }
                Some(data.to_authorization(keys).await.unwrap())
            }
        };
        let url = format!("http://{}{path}", self.address);
        let method = method.to_owned();
        let send = move || {
            let mut request = ureq::http::Request::builder().method(method.as_str()).uri(url);
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let config = ureq::Agent::config_builder().http_status_as_error(false).build();
            let mut got = ureq::Agent::from(config).run(request.body(body).unwrap()).unwrap();
            let text = got.body_mut().read_to_string().unwrap();
            Got {
                status: got.status().as_u16(),
                headers: got.headers().clone(),
                body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            }
        };
        tokio::task::spawn_blocking(send).await.unwrap()
    }

    pub(super) async fn get(&self, who: &As, path: &str) -> Got {
        self.call(who, "GET", path, Value::Null).await
    }

    pub(super) async fn post(&self, who: &As, path: &str, body: Value) -> Got {
        self.call(who, "POST", path, body).await
    }

    pub(super) async fn stop(self) {
        self.running.stop().await;
    }
}
