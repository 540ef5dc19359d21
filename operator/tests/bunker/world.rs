//! A relay, a bunker that can be stopped and started, and its administrator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitspire_operator::bunker::{Bunker, BunkerConfig, BunkerStats};
use bitspire_operator::signer::admin::{AdminClient, AdminConfig};
use bitspire_operator::signer::remote::{Remote, RemoteConfig};
use bitspire_operator::signer::{BunkerAdmin as _, BunkerRule, NewRule, SignerError};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::policy::Policy;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use nostr::{Keys, Kind, Timestamp, UnsignedEvent};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RateLimit, RelayBuilder};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing takes this long; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const HOURS: u32 = 720;

pub(crate) fn public(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

/// The system's time and what the test adds to it.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn clock(&self) -> Clock {
        let (system, ahead) = (Clock::system(), self.0.clone());
        Clock::new(move || system.now().after(ahead.load(Ordering::SeqCst)))
    }

    pub(crate) fn pass(&self, secs: u64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> Unix {
        self.clock().now()
    }
}

struct Running {
    bunker: Arc<Bunker>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) struct World {
    /// Kept alive.
    _relay: Option<LocalRelay>,
    pub(crate) relays: Vec<String>,
    pub(crate) folder: TempDir,
    pub(crate) time: Time,
    pub(crate) admin_keys: Keys,
    /// Another administrator, who writes by hand.
    pub(crate) second_admin: Keys,
    pub(crate) admin: AdminClient,
    pub(crate) id: PubKey,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    running: Option<Running>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        // its usual 60 events a minute are less than these tests send
        let limit = RateLimit { max_reqs: 500, notes_per_minute: 60_000 };
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(limit));
        relay.run().await.unwrap();
        let relays = vec![relay.url().await.to_string()];
        Self::on(Some(relay), relays).await
    }

    /// A world on these relays, of which `relay` is kept alive.
    pub(crate) async fn on(relay: Option<LocalRelay>, relays: Vec<String>) -> Self {
        let time = Time(Arc::default());
        let folder = tempfile::tempdir().unwrap();
        let (admin_keys, second_admin) = (Keys::generate(), Keys::generate());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let running =
            start(&folder, &relays, &time, vec![public(&admin_keys), public(&second_admin)]).await;
        let id = running.bunker.id();
        let config = AdminConfig::new(id, relays.clone(), admin_keys.clone());
        let admin = AdminClient::start(config, time.clock(), &tasks, stop.clone()).await.unwrap();
        let running = Some(running);
        Self {
            _relay: relay,
            relays,
            folder,
            time,
            admin_keys,
            second_admin,
            admin,
            id,
            tasks,
            stop,
            running,
        }
    }

    pub(crate) fn stats(&self) -> BunkerStats {
        self.running.as_ref().unwrap().bunker.stats()
    }

    /// Ends the bunker's process, as far as that shows on the disk and on the wire.
    pub(crate) async fn stop_bunker(&mut self) {
        let Running { bunker, stop, task } = self.running.take().unwrap();
        stop.cancel();
        task.await.unwrap();
        drop(Arc::into_inner(bunker).expect("nobody else holds the bunker"));
    }

    /// Starts it again; where no administrators are named they stay.
    pub(crate) async fn start_bunker(&mut self, admins: Vec<PubKey>) {
        self.start_unasked(admins).await;
        self.admin.ping().await.unwrap();
    }

    /// The same, whether or not our administrator is one of them.
    pub(crate) async fn start_unasked(&mut self, admins: Vec<PubKey>) {
        self.running = Some(start(&self.folder, &self.relays, &self.time, admins).await);
    }

    pub(crate) async fn restart(&mut self) {
        self.restart_with(vec![]).await;
    }

    pub(crate) async fn restart_with(&mut self, admins: Vec<PubKey>) {
        self.stop_bunker().await;
        self.start_bunker(admins).await;
    }

    /// A key in the bunker.
    pub(crate) async fn key(&self, name: &str) -> PubKey {
        self.admin.create_key(name.to_owned(), Keys::generate()).await.unwrap()
    }

    /// The policy of machines; its id.
    pub(crate) async fn spire_policy(&self) -> i64 {
        let rules = Policy::spire().rules;
        let rules = rules
            .iter()
            .map(|rule| BunkerRule { method: rule.method.as_str().to_owned(), kind: rule.kind });
        let rules = rules.map(NewRule::from).collect();
        self.admin.create_policy(Policy::SPIRE.to_owned(), rules, None).await.unwrap();
        self.policy_id(Policy::SPIRE).await
    }

    pub(crate) async fn policy_id(&self, name: &str) -> i64 {
        let policies = self.admin.policies().await.unwrap();
        policies.into_iter().find(|policy| policy.name == name).unwrap().id
    }

    /// A token for a key, as pairing makes one.
    pub(crate) async fn token(&self, key: &str, policy: i64) -> BunkerSecret {
        let name = key.to_owned();
        self.admin.create_token(name.clone(), "machine".into(), policy, HOURS).await.unwrap();
        let tokens = self.admin.tokens(name).await.unwrap();
        let newest = tokens.into_iter().max_by_key(|token| token.id).unwrap();
        assert!(newest.redeemed_at.is_none());
        assert!(newest.expires_at.unwrap() > self.time.now());
        newest.secret().unwrap().clone()
    }

    pub(crate) async fn remote(
        &self,
        key: PubKey,
        client: &Keys,
        secret: Option<BunkerSecret>,
    ) -> Remote {
        let config = RemoteConfig::new(key, self.relays.clone(), client.clone());
        let config = RemoteConfig { secret, ..config };
        Remote::start(config, self.time.clock(), &self.tasks, self.stop.clone()).await.unwrap()
    }

    /// A key called `spire` under the machines' policy with a connected client.
    pub(crate) async fn paired(&self) -> (PubKey, Keys, Remote) {
        let key = self.key("spire").await;
        let policy = self.spire_policy().await;
        let (client, secret) = (Keys::generate(), self.token("spire", policy).await);
        let remote = self.remote(key, &client, Some(secret)).await;
        remote.connect().await.unwrap();
        (key, client, remote)
    }

    pub(crate) fn event(&self, author: PubKey, kind: u16, content: &str) -> UnsignedEvent {
        let at = Timestamp::from(self.time.now().0);
        UnsignedEvent::new(author.nostr(), at, Kind::from(kind), [], content)
    }
}

async fn start(folder: &TempDir, relays: &[String], time: &Time, admins: Vec<PubKey>) -> Running {
    let config = BunkerConfig {
        data_dir: folder.path().to_owned(),
        machine_secret_file: None,
        relays: relays.to_vec(),
        admins,
        clock: time.clock(),
    };
    let bunker = Arc::new(Bunker::open(config).await.unwrap());
    let stop = CancellationToken::new();
    let (serving, stopped) = (Arc::clone(&bunker), stop.clone());
    let task = tokio::spawn(async move { serving.run(stopped).await.unwrap() });
    Running { bunker, stop, task }
}

/// The reason for which the bunker refused.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, SignerError>) -> String {
    match result {
        Err(SignerError::Refused { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
