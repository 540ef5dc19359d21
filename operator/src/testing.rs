//! What tests of several modules start from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use nostr::Keys;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::app::App;
use crate::fleet;

/// A daemon's common ground in a folder of its own, with three simulated wallets and one operator.
pub(crate) struct World {
    pub(crate) app: Arc<App>,
    pub(crate) folder: TempDir,
    now: Arc<AtomicU64>,
}

pub(crate) fn key() -> PubKey {
    PubKey::new(Keys::generate().public_key()).unwrap()
}

impl World {
    /// With further lines of configuration.
    pub(crate) async fn with(more: &str) -> Self {
        Self::on(tempfile::tempdir().unwrap(), more).await
    }

    /// The same without a disk, where the system has a folder in memory: for very many commits.
    pub(crate) async fn in_memory(more: &str) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self::on(folder.unwrap(), more).await
    }

    async fn on(folder: TempDir, more: &str) -> Self {
        let base = "[wallets.till]\nkind = 'simulated'\nopening_sats = 1000000\n\
                    [wallets.bar]\nkind = 'simulated'\n[wallets.kiosk]\nkind = 'simulated'\n\
                    [rates.fixed]\nEUR = '1000'\n[bunker]\nembedded = false\n";
        std::fs::write(folder.path().join("operator.toml"), format!("{base}{more}")).unwrap();
        // the relay SDK reads the system's clock: tests that go through relays stay near it
        let now = Arc::new(AtomicU64::new(Clock::system().now().0));
        let app = open(&folder, &now);
        fleet::first_operator(&app).await.unwrap();
        Self { app, folder, now }
    }

    /// Lets time pass, in seconds.
    pub(crate) fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Somebody sets the clock back, in seconds.
    pub(crate) fn jump_back(&self, seconds: u64) {
        self.now.fetch_sub(seconds, Ordering::SeqCst);
    }

    /// Stops the daemon and opens its folder again; whoever else holds the old one keeps it open.
    pub(crate) async fn restarted(self) -> Self {
        let Self { app, folder, now } = self;
        app.stop.cancel();
        app.tasks.close();
        app.tasks.wait().await;
        drop(app);
        Self { app: open(&folder, &now), folder, now }
    }
}

fn open(folder: &TempDir, now: &Arc<AtomicU64>) -> Arc<App> {
    let listen = "127.0.0.1:0".to_owned();
    let flags = [
        ("data_dir", folder.path().display().to_string()),
        ("api.listen", listen.clone()),
        ("public.listen", listen.clone()),
        ("relay.listen", listen),
    ];
    let file = folder.path().join("operator.toml");
    let (config, _) = crate::config::load(Some(&file), &BTreeMap::new(), &flags).unwrap();
    let told = now.clone();
    App::open(config, Clock::new(move || Unix(told.load(Ordering::SeqCst)))).unwrap()
}

/// When a service dies, counted in its steps: each transaction that it commits, and each half of a
/// question to a wallet (asked, answered). Whoever waits for a step at which it is dead waits for ever.
#[derive(Clone, Debug)]
pub(crate) struct Death(Arc<Steps>);

#[derive(Debug)]
struct Steps {
    left: AtomicI64,
    dead: Notify,
}

impl Death {
    /// It lives.
    pub(crate) fn never() -> Self {
        Self(Arc::new(Steps { left: AtomicI64::new(i64::MAX), dead: Notify::new() }))
    }

    /// From now on it takes so many more steps and dies at the one after them.
    pub(crate) fn after(&self, steps: u64) {
        self.0.left.store(i64::try_from(steps).unwrap(), Ordering::SeqCst);
    }

    /// It lives after all.
    pub(crate) fn spares(&self) {
        self.0.left.store(i64::MAX, Ordering::SeqCst);
    }

    /// A step; whether it is dead.
    pub(crate) fn strikes(&self) -> bool {
        let left = self.0.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 {
            self.0.dead.notify_one();
        }
        left <= 0
    }

    /// A step that is waited for.
    pub(crate) async fn passes(&self) {
        if self.strikes() {
            std::future::pending::<()>().await;
        }
    }

    /// Comes back when it has died.
    pub(crate) async fn came(&self) {
        self.0.dead.notified().await;
    }
}
