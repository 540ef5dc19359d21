//! What every part of the daemon works with: configuration, clock, database, keys, wallets, and a
//! bell that wakes the parts that have something to do.
//!
//! Promise: one place owns the tasks and the stop token, so that a stop is orderly. The bell is a
//! hint: what is to be done stands in the database, and each part looks there after a start and
//! after hints were lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitspire_shared::ids::{IdError, PaymentHash, PubKey};
use bitspire_shared::money::Msat;
use bitspire_shared::sealed::Purpose;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::{Pool, RelayHealth};
use bitspire_shell::secrets::{Keyring, SecretError};
use nostr::Keys;
use nostr::secp256k1::SecretKey;
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config};
use crate::fleet::roster::Roster;
use crate::relay::Relay;
use crate::relays::Relays;
use crate::rpc::tally::Tally;
use crate::settle;
use crate::signer::{Bunker, RemoteSigner};
use crate::store::{OpenError, Store};
use crate::wallet::simulated::SimulatedNode;
use crate::wallet::{self, Identity, Opened, Wallet};

/// Places in the bell's queue; who is slower looks into the database.
const BELL: usize = 256;

/// Something that another part may want to know at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Machines, keys, sessions or roles changed.
    Roster,
    /// A document waits to be published.
    Outbox,
    /// A payment was settled or refused.
    Settled {
        /// Which one.
        payment_hash: PaymentHash,
    },
    /// A withdraw was claimed, paid or failed.
    Withdraw {
        /// The machine that it belongs to.
        spire: PubKey,
    },
}

/// How a wallet answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletAnswer {
    /// Whether it did.
    pub answered: bool,
    /// When it was asked.
    pub at: Unix,
}

/// Why the daemon does not start.
#[derive(Debug, Error)]
pub enum AppError {
    /// The keys do not open.
    #[error("the service's keys cannot be used")]
    Secret(#[from] SecretError),
    /// The service's key is no key.
    #[error("the service's key")]
    ServiceKey(#[from] IdError),
    /// The database does not open.
    #[error("the database cannot be used")]
    Store(#[from] OpenError),
    /// A wallet cannot be reached as it is configured.
    #[error("a wallet cannot be used as it is configured")]
    Wallet(#[from] wallet::OpenError),
    /// The simulated node's books cannot be read.
    #[error("{path}: the simulated node's books cannot be read")]
    Simulated {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The daemon's common ground.
pub struct App {
    /// The checked configuration.
    pub config: Config,
    /// The wall clock.
    pub clock: Clock,
    /// When this process began, by that clock: what nobody could say before is not late yet.
    pub started_at: Unix,
    /// The database.
    pub store: Store,
    /// The service key: answers RPC, signs quotes and authorisations.
    pub service: Keys,
    /// Its public half.
    pub service_key: PubKey,
    /// The sealed keys, for parts that have one of their own.
    pub keyring: Keyring,
    /// The wallets by id.
    pub wallets: BTreeMap<String, Arc<dyn Wallet>>,
    /// What makes each of them the one that it is.
    pub(crate) identities: BTreeMap<String, Identity>,
    /// The node behind simulated wallets, for its control routes.
    pub simulated: Option<SimulatedNode>,
    /// What was refused to machines and strangers, by reason.
    pub refusals: Arc<Tally>,
    /// What became of the requests of customers' wallets by CLINK.
    pub clink: Arc<Tally>,
    /// Places of the wallets' lists in the writer's queue: see `settle`.
    pub recording: Semaphore,
    /// The same of what is hinted or polled: customers wait for it.
    pub hinted: Semaphore,
    /// Who may do what at the relay; see [`Roster::refresh`].
    pub roster: Arc<Roster>,
    /// The embedded relay, where it runs in this process.
    pub relay: OnceLock<Relay>,
    /// What the relays of others say of themselves.
    pub relays: Relays,
    /// The bunker, once it is there.
    pub bunker: OnceLock<Arc<dyn Bunker>>,
    /// Rises with each attempt to publish a document that has ended.
    pub attempts: watch::Sender<u64>,
    /// Held by whoever pairs or revokes: these ask the bunker several things, and must not mix.
    pub pairing: tokio::sync::Mutex<()>,
    /// Held by the audit that runs: each reads everything.
    pub auditing: tokio::sync::Mutex<()>,
    signers: Mutex<BTreeMap<PubKey, Arc<dyn RemoteSigner>>>,
    pools: Mutex<Vec<(&'static str, Arc<Pool>)>>,
    wallet_answers: Mutex<BTreeMap<String, WalletAnswer>>,
    /// Cancelled when the daemon stops.
    pub stop: CancellationToken,
    /// Owns every task.
    pub tasks: TaskTracker,
    bell: broadcast::Sender<Ring>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

impl App {
    /// Opens everything that lies in the data folder.
    ///
    /// # Errors
    /// [`AppError`], before anything has started.
    pub fn open(config: Config, clock: Clock) -> Result<Arc<Self>, AppError> {
        let credential = config.machine_secret_file.as_deref();
        let keyring = Keyring::open(&config.data_dir, credential)?;
        let service = keyring.load_or_make("service", Purpose::ServiceKey)?;
        let service_key = PubKey::new(service.public_key())?;
        let store = Store::open(&config.data_dir.join("operator.db"), clock.now())?;
        let simulated = open_simulated(&config, &clock)?;
        let secret = service.secret_key();
        let opened = wallet::open(&config.wallets, simulated.as_ref(), secret, &clock)?;
        let Opened { wallets, identities } = opened;
        let clink = config.clink.as_ref().map(|_| service_key);
        let roster = Arc::new(Roster::new(clock.clone()).with_clink(clink));
        Ok(Arc::new(Self {
            started_at: clock.now(),
            config,
            clock,
            refusals: Arc::default(),
            clink: Arc::default(),
            recording: Semaphore::new(settle::TOGETHER),
            hinted: Semaphore::new(settle::TOGETHER),
            roster,
            relay: OnceLock::new(),
            relays: Relays::default(),
            bunker: OnceLock::new(),
            attempts: watch::Sender::new(0),
            pairing: tokio::sync::Mutex::default(),
            auditing: tokio::sync::Mutex::default(),
            signers: Mutex::default(),
            pools: Mutex::default(),
            wallet_answers: Mutex::default(),
            store,
            service,
            service_key,
            keyring,
            wallets,
            identities,
            simulated,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            bell: broadcast::channel(BELL).0,
        }))
    }

    /// The operator key `key`, to sign with; `None` until the bunker was reached for it.
    #[must_use]
    pub fn signer(&self, key: PubKey) -> Option<Arc<dyn RemoteSigner>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// From now on, this signs for its key.
    pub fn set_signer(&self, signer: Arc<dyn RemoteSigner>) {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        signers.insert(signer.key(), signer);
    }

    /// From now on, these connections are among those whose health is shown; `what` is what they
    /// are for.
    pub fn show_pool(&self, what: &'static str, pool: Arc<Pool>) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push((what, pool));
    }

    /// Does something with each of them.
    pub fn each_pool(&self, does: impl Fn(&Pool)) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().for_each(|(_, pool)| does(pool));
    }

    /// How each relay has been, for each thing that it is used for.
    #[must_use]
    pub fn relay_health(&self) -> Vec<(&'static str, RelayHealth)> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(what, pool): &(&'static str, Arc<Pool>)| {
            pool.health().into_iter().map(|health| (*what, health)).collect::<Vec<_>>()
        };
        pools.iter().flat_map(of).collect()
    }

    /// How each wallet answered when it was last asked for its list.
    #[must_use]
    pub fn wallet_answers(&self) -> BTreeMap<String, WalletAnswer> {
        self.wallet_answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A wallet was asked for its list.
    pub fn wallet_asked(&self, id: &str, answered: bool) {
        let last = WalletAnswer { answered, at: self.clock.now() };
        let mut all = self.wallet_answers.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.to_owned(), last);
    }

    /// Tells the others; nobody listening is fine.
    pub fn ring(&self, ring: Ring) {
        let _ = self.bell.send(ring);
    }

    /// Hears what happens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Ring> {
        self.bell.subscribe()
    }
}

/// A node with a wallet for each simulated one in the configuration, each funded once.
fn open_simulated(config: &Config, clock: &Clock) -> Result<Option<SimulatedNode>, AppError> {
    let simulated: Vec<_> = config
        .wallets
        .iter()
        .filter_map(|(id, wallet)| match wallet {
            config::Wallet::Simulated { opening, routing_fee } => Some((id, opening, routing_fee)),
            _ => None,
        })
        .collect();
    let Some((_, _, routing_fee)) = simulated.first() else { return Ok(None) };
    let path = config.data_dir.join("simulated-node.json");
    let failed = |source| AppError::Simulated { path: path.clone(), source };
    // regtest: the key guards nothing, and a fixed one keeps invoices payable over restarts
    let key = SecretKey::from_slice(&[0x51; 32]).map_err(std::io::Error::other).map_err(failed)?;
    let node = SimulatedNode::open(Some(path.clone()), key, **routing_fee, clock.clone())
        .map_err(failed)?;
    for (id, opening, _) in &simulated {
        node.open_wallet(id, Msat(opening.0.saturating_mul(1_000))).map_err(failed)?;
    }
    Ok(Some(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a restart that funds a wallet again, so that books and node differ.
    #[tokio::test]
    async fn a_restart_keeps_key_and_balance() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, "[wallets.till]\nkind = 'simulated'\nopening_sats = 5000\n").unwrap();
        let flags = [("data_dir", folder.path().display().to_string())];
        let mut keys = Vec::new();
        for _ in 0..2 {
            let none = std::collections::BTreeMap::new();
            let (config, _) = crate::config::load(Some(&file), &none, &flags).unwrap();
            let app = App::open(config, Clock::system()).unwrap();
            keys.push(app.service.public_key());
            assert_eq!(app.wallets["till"].balance().await.unwrap(), Msat(5_000_000));
        }
        assert_eq!(keys[0], keys[1]);
    }
}
