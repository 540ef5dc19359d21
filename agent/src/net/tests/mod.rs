//! `net` between a vault on a real socket and a bunker and a service on a real relay.

mod bunker;
mod documents;
mod kiosk;
mod pairing;
mod service;
mod sessions;
mod vault;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitspire_shared::ids::PubKey;
use bitspire_shell::clock::Clock;
use nostr::util::BoxedFuture;
use nostr::{Filter, Keys, Kind};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{PolicyResult, QueryPolicy, RateLimit, RelayBuilder};
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use self::bunker::{Bunker, Manner};
use self::service::Service;
use self::vault::{Talk, Vault};
use super::{NetError, Timing, run_with, store};
use crate::config::NetConfig;
use crate::ipc::{NetPins, SecretText, ToNet, ToVault};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// A seed's secret.
const SECRET: &str = "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e";
/// Short, since the other ends answer at once.
const TIMING: Timing =
    Timing { answer_ms: 3_000, resend_ms: 300, retry_ms: 100, missing_ms: 5_000 };

fn public(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

/// How often a relay was asked for documents.
#[derive(Clone, Debug, Default)]
struct Asks(Arc<AtomicUsize>);

impl QueryPolicy for Asks {
    fn admit_query<'a>(
        &'a self,
        query: &'a Filter,
        _: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let documents = Kind::from(bitspire_shared::document::DOCUMENT_KIND);
        if query.kinds.as_ref().is_some_and(|kinds| kinds.contains(&documents)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async { PolicyResult::Accept })
    }
}

/// A relay on a port of its own, so that it can come back there.
async fn relay(port: u16, asks: &Asks) -> LocalRelay {
    let limit = RateLimit { max_reqs: 1_000, notes_per_minute: 10_000 };
    let builder = RelayBuilder::default().port(port).rate_limit(limit).query_policy(asks.clone());
    let relay = LocalRelay::new(builder);
    relay.run().await.unwrap();
    relay
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A machine's surroundings.
struct World {
    folder: tempfile::TempDir,
    port: u16,
    relay: Option<LocalRelay>,
    asks: Asks,
    spire: Keys,
    operator: Keys,
    service: Service,
    bunker: Bunker,
    vault: Vault,
    /// The machine's own.
    clock: Clock,
    net: Option<(CancellationToken, JoinHandle<Result<(), NetError>>)>,
}

impl World {
    async fn new(manner: Manner) -> Self {
        let port = free_port();
        let asks = Asks::default();
        let relay = relay(port, &asks).await;
        let urls = vec![format!("ws://127.0.0.1:{port}")];
        let folder = tempfile::tempdir().unwrap();
        let spire = Keys::generate();
        let service = Service::start(Keys::generate(), &urls).await;
        let bunker = Bunker::start(spire.clone(), SECRET, manner, &urls).await;
        let vault = Vault::listen(&folder.path().join("vault.sock"));
        Self {
            folder,
            port,
            relay: Some(relay),
            asks,
            spire,
            operator: Keys::generate(),
            service,
            bunker,
            vault,
            clock: Clock::system(),
            net: None,
        }
    }

    fn pins(&self) -> NetPins {
        let service = public(&self.service.keys);
        NetPins { spire: public(&self.spire), operator: public(&self.operator), service }
    }

    fn urls(&self) -> Vec<String> {
        vec![format!("ws://127.0.0.1:{}", self.port)]
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("net")
    }

    fn start_net(&mut self) {
        let config = NetConfig {
            dir: self.data(),
            machine_secret_file: None,
            socket: self.folder.path().join("vault.sock"),
            last_word: self.folder.path().join("vault.end"),
            kiosk_listen: "127.0.0.1:0".parse().unwrap(),
            kiosk_url_file: self.folder.path().join("kiosk.url"),
            seed_url: None,
        };
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(run_with(config, TIMING, self.clock.clone(), |_| (), stop.clone()));
        self.net = Some((stop, running));
    }

    async fn stop_net(&mut self) {
        let (stop, running) = self.net.take().unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    /// What the vault sends when a seed came.
    fn connect(&self) -> ToNet {
        self.connect_by(self.port)
    }

    /// The same, with the relay on another port.
    fn connect_by(&self, port: u16) -> ToNet {
        let query = format!("relay=ws%3A%2F%2F127.0.0.1%3A{port}&secret={SECRET}");
        let bunker_url = SecretText::new(format!("bunker://{}?{query}", public(&self.spire)));
        let relays = vec![format!("ws://127.0.0.1:{port}")];
        ToNet::Connect { bunker_url, relays, pins: self.pins() }
    }

    /// A machine that has just been paired, and its vault.
    async fn paired(manner: Manner) -> (Self, Talk) {
        Self::new(manner).await.pair().await
    }

    async fn pair(self) -> (Self, Talk) {
        let mut world = self;
        world.start_net();
        let mut talk = world.vault.accept(None).await;
        talk.send(world.connect()).await;
        talk.wait(|message| matches!(message, ToVault::Connected { .. }).then_some(())).await;
        talk.send(ToNet::Paired { pins: world.pins() }).await;
        (world, talk)
    }

    /// Opens the session that is asked for next, and waits until the vault knows of it.
    async fn session(&self, talk: &mut Talk, life_s: u64) -> PubKey {
        let spire = self.pins().spire;
        let up = |message: &ToVault| match message {
            ToVault::State(state) if state.session => Some(()),
            _ => None,
        };
        tokio::join!(self.service.open_session(&spire, life_s), talk.wait(up)).0
    }

    async fn restart_relay(&mut self) {
        self.relay.take().unwrap().shutdown();
        // the port is free once the old listener has gone
        while TcpListener::bind(("127.0.0.1", self.port)).is_err() {
            tokio::task::yield_now().await;
        }
        self.relay = Some(relay(self.port, &self.asks).await);
    }
}
