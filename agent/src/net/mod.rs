//! The network process: relays, bunker, session, kiosk. It has no serial port and no authority over
//! money.
//!
//! Promise: what the vault wants asked, signed or published goes out until it is answered; what
//! comes back has passed every check that this side can make and goes to the vault with its signed
//! event, so that the vault can check it again. Either process may start again at any time.
//!
//! States: unpaired -> pairing -> paired (a running [`Life`]). What the vault says it has pinned
//! decides; a pairing on this disk that is not the vault's is not used.
//!
//! Failure policy: a disk or a key that cannot be used ends the process with its reason; everything
//! on the network is tried again.

mod codes;
mod documents;
mod gate;
mod life;
mod link;
mod pairing;
mod requests;
mod rpc;
mod session;
mod signer;
mod store;
#[cfg(test)]
mod tests;
mod times;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use bitspire_shared::ids::PubKey;
use bitspire_shell::clock::Clock;
use bitspire_shell::privacy;
use bitspire_shell::secrets::{SecretError, write_private};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::life::Life;
pub use self::life::LifeError;
use self::link::FromVault;
use self::pairing::{PairError, Wanted};
pub(crate) use self::signer::AUTH_WAIT_MS;
use self::store::Store;
pub use self::store::StoreError;
use self::times::Times;
use crate::config::NetConfig;
use crate::ipc::{NetPins, SecretText, ToNet, ToVault};
use crate::kiosk::Kiosk;
use crate::last_word::LastWord;
use crate::refused::Refused;
use crate::screen::{MachineScreen, Numbered};

/// Messages that may stand in line for the vault.
const TO_VAULT: usize = 256;
/// What may stand in line from the screen; the kiosk says "busy" beyond.
const PRESSED: usize = 8;

/// Why the process ends.
#[derive(Debug, Error)]
pub enum NetError {
    /// The stored pairing or its key.
    #[error("the stored pairing cannot be used")]
    Store(#[from] StoreError),
    /// The pairing cannot be lived.
    #[error("the stored pairing cannot be used")]
    Life(#[from] LifeError),
    /// The kiosk's address.
    #[error("the kiosk cannot listen on {address}: is another program there?")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The kiosk's token, or the file for the browser.
    #[error("the kiosk's address cannot be handed to the browser")]
    Url(#[from] SecretError),
    /// The kiosk ended.
    #[error("the kiosk does not serve any more")]
    Serve(#[source] io::Error),
}

/// How long things may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The bunker's answer; a bunker that asks its admins first takes 10 s.
    pub answer_ms: u64,
    /// From one sending of a question to the bunker to the next.
    pub resend_ms: u64,
    /// First wait after a failure; it grows to 30 times this.
    pub retry_ms: u64,
    /// How long a document that is said to be published may take to come by itself.
    pub missing_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { answer_ms: 20_000, resend_ms: 3_000, retry_ms: 2_000, missing_ms: 2_000 }
    }
}

/// Runs the network process until `stop`; `ready` is told the kiosk's address once it listens.
///
/// # Errors
/// [`NetError`].
pub async fn run(
    config: NetConfig,
    ready: impl FnOnce(SocketAddr),
    stop: CancellationToken,
) -> Result<(), NetError> {
    run_with(config, Timing::default(), Clock::system(), ready, stop).await
}

/// The same with times and a clock of one's own.
///
/// # Errors
/// [`NetError`].
pub async fn run_with(
    config: NetConfig,
    timing: Timing,
    clock: Clock,
    ready: impl FnOnce(SocketAddr),
    stop: CancellationToken,
) -> Result<(), NetError> {
    let store = Store::open(&config.dir, config.machine_secret_file.as_deref())?;
    let (to_vault, outgoing) = mpsc::channel(TO_VAULT);
    let (incoming, from_vault) = mpsc::channel(TO_VAULT);
    let (screens, shown) = watch::channel(Some(starting()));
    let (actions, pressed) = mpsc::channel(PRESSED);
    let (kiosk, listener) = open_kiosk(&config, shown, actions).await?;
    ready(kiosk.address());
    let ending = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(link::run(config.socket.clone(), outgoing, incoming, ending.clone()));
    tasks.spawn(pass_on(pressed, to_vault.clone(), ending.clone()));
    let kiosk = kiosk.serve(listener, ending.clone());
    tokio::pin!(kiosk);
    let mut net = Net {
        store,
        seed: config.seed_url,
        last_word: config.last_word,
        screens,
        to_vault,
        times: Times::new(clock),
        timing,
        life: None,
        tries: JoinSet::new(),
    };
    let result = tokio::select! {
        result = net.work(from_vault) => result,
        served = &mut kiosk => Err(NetError::Serve(match served {
            Err(error) => error,
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
        })),
        () = stop.cancelled() => Ok(()),
    };
    net.tries.shutdown().await;
    if let Some(life) = net.life.take() {
        life.end().await;
    }
    ending.cancel();
    drop(net);
    while tasks.join_next().await.is_some() {}
    result
}

/// What is shown while there is no vault to say anything.
const fn starting() -> Numbered {
    Numbered { number: 0, screen: MachineScreen::Starting }
}

/// The kiosk on its listener, and its address where the machine's browser finds it.
async fn open_kiosk(
    config: &NetConfig,
    screens: watch::Receiver<Option<Numbered>>,
    actions: mpsc::Sender<ToVault>,
) -> Result<(Kiosk, TcpListener), NetError> {
    let address = config.kiosk_listen;
    let listen = |source| NetError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let kiosk = Kiosk::new(listener.local_addr().map_err(listen)?, screens, actions)?;
    write_private(&config.kiosk_url_file, kiosk.url().expose().as_bytes())?;
    Ok((kiosk, listener))
}

/// Takes what comes from the screen to the vault.
async fn pass_on(
    mut pressed: mpsc::Receiver<ToVault>,
    to_vault: mpsc::Sender<ToVault>,
    stop: CancellationToken,
) {
    let work = async {
        while let Some(message) = pressed.recv().await {
            if to_vault.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// What the main task holds.
struct Net {
    store: Store,
    screens: watch::Sender<Option<Numbered>>,
    /// A seed from the environment, for a machine that nobody has paired yet.
    seed: Option<SecretText>,
    /// Where a vault that cannot go on says why.
    last_word: PathBuf,
    to_vault: mpsc::Sender<ToVault>,
    times: Times,
    timing: Timing,
    life: Option<Life>,
    /// At most one try to pair.
    tries: JoinSet<(PubKey, Result<PubKey, PairError>)>,
}

impl Net {
    async fn work(&mut self, mut from_vault: mpsc::Receiver<FromVault>) -> Result<(), NetError> {
        loop {
            tokio::select! {
                message = from_vault.recv() => match message {
                    Some(FromVault::Up(pins)) => self.vault_is_up(pins).await?,
                    Some(FromVault::Message(message)) => self.obey(*message).await?,
                    Some(FromVault::Absent) => self.show_without_vault(),
                    Some(FromVault::Down) => {
                        self.show_without_vault();
                        self.tries.shutdown().await;
                        if let Some(life) = &self.life {
                            life.vault_is_gone().await;
                        }
                    }
                    None => return Ok(()),
                },
                Some(tried) = self.tries.join_next() => match tried {
                    Ok((spire, result)) => self.tried(spire, result).await,
                    Err(error) => {
                        tracing::error!(event = "pairing_died", error = privacy::ended(&error));
                    }
                },
            }
        }
    }

    /// There is no vault to say what is shown: why it has ended, or that it starts.
    fn show_without_vault(&self) {
        let screen = match LastWord::read(&self.last_word) {
            Some(LastWord { reasons }) => {
                Numbered { number: 0, screen: MachineScreen::OutOfService { reasons } }
            }
            None => starting(),
        };
        self.screens.send_if_modified(|shown| {
            let changed = shown.as_ref() != Some(&screen);
            *shown = Some(screen);
            changed
        });
    }

    async fn vault_is_up(&mut self, pins: Option<NetPins>) -> Result<(), NetError> {
        match pins {
            Some(pins) => self.live(pins).await?,
            None => {
                self.end_life().await;
                if let Some(seed_url) = self.seed.clone() {
                    self.tell(ToVault::Seed { seed_url }).await;
                }
            }
        }
        if let Some(life) = &self.life {
            life.vault_is_back();
        }
        Ok(())
    }

    async fn obey(&mut self, message: ToNet) -> Result<(), NetError> {
        match message {
            ToNet::Connect { bunker_url, relays, pins } => {
                tracing::info!(event = "pairing_begins", spire = %pins.spire);
                let wanted = Wanted { bunker_url, relays, pins };
                let (store, to_vault) = (self.store.clone(), self.to_vault.clone());
                let (times, timing) = (self.times.clone(), self.timing);
                self.tries.shutdown().await;
                self.tries.spawn(async move {
                    let tried = pairing::connect(&store, wanted, to_vault, times, timing).await;
                    (pins.spire, tried)
                });
            }
            ToNet::Paired { pins } => {
                self.end_life().await;
                self.live(pins).await?;
            }
            // for the command line
            ToNet::ServicePin { .. } | ToNet::Rekeyed { .. } | ToNet::AuthUrl { .. } => {}
            ToNet::SeedRefused(Refused { code, words }) => {
                tracing::warn!(event = "seed_refused", code = code.as_str(), words);
            }
            ToNet::Screen { number, screen } => match serde_json::from_value(screen) {
                Ok(screen) => {
                    self.screens.send_replace(Some(Numbered { number, screen }));
                }
                Err(error) => tracing::error!(event = "screen_not_readable", number, %error),
            },
            ToNet::Hello { .. } | ToNet::Status(_) | ToNet::Frames { .. } => {}
            message => match &self.life {
                Some(life) => life.obey(message).await,
                None => tracing::warn!(event = "request_before_pairing"),
            },
        }
        Ok(())
    }

    async fn tried(&mut self, spire: PubKey, result: Result<PubKey, PairError>) {
        let message = match result {
            Ok(client) => {
                tracing::info!(event = "bunker_connected", %spire, %client);
                ToVault::Connected { client, spire }
            }
            Err(error) => {
                let refused = Refused::from(&error);
                let Refused { code, words } = &refused;
                tracing::warn!(event = "pairing_failed", %spire, code = code.as_str(), words);
                ToVault::ConnectFailed(refused)
            }
        };
        self.tell(message).await;
    }

    /// Runs the stored pairing with `pins`, if it does not run already.
    async fn live(&mut self, pins: NetPins) -> Result<(), NetError> {
        if self.life.as_ref().is_some_and(|life| life.pins == pins) {
            return Ok(());
        }
        self.end_life().await;
        let Some((pairing, keys)) = self.store.promote(&pins)? else {
            tracing::error!(
                event = "no_pairing_here", spire = %pins.spire,
                "the vault is paired, but this folder holds no connection to its bunker: reset the \
                 pairing in service mode and pair again"
            );
            return Ok(());
        };
        let (times, timing) = (self.times.clone(), self.timing);
        let life = Life::start(&pairing, keys, self.to_vault.clone(), times, timing).await?;
        tracing::info!(event = "paired", spire = %pins.spire);
        self.life = Some(life);
        Ok(())
    }

    async fn end_life(&mut self) {
        if let Some(life) = self.life.take() {
            life.end().await;
        }
    }

    async fn tell(&self, message: ToVault) {
        // without a receiver the link has ended, and so will this
        drop(self.to_vault.send(message).await);
    }
}
