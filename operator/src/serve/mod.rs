//! The daemon, assembled: relay, workers, listeners, in the order in which they need each other.
//!
//! Promise: when [`Running`] exists, every listener is bound and the roster is read. A stop lets
//! requests under way end, then the workers, then relay and bunker, so that last answers still leave.
//!
//! Failure policy: what cannot start stops the start, with the address or file in question. Work
//! that does not end within [`PATIENCE`] of a stop is left behind: everything that counts is in the
//! database before it is answered.

mod bunker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::ids::IdError;
use bitspire_shared::seed::{BunkerError, parse_relay};
use bitspire_shell::secrets::SecretError;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::clink;
use crate::distribute;
use crate::fleet;
use crate::http::auth::Gate;
use crate::http::listen::{Bounds, listen};
use crate::http::people::People;
use crate::http::{self, Api};
use crate::lnurl;
use crate::payout;
use crate::publish;
use crate::relay::{self, Relay};
use crate::relays;
use crate::rpc;
use crate::settle;
use crate::signer::service::ReachError;
use crate::store::relay_docs::RelayDocs;
use crate::store::{OpenError, StoreError};
use crate::{wallet, webhook};

/// How long a stop waits for the workers, and then for relay and bunker.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// A listener's address is taken or not ours.
    #[error("{what} cannot listen on {address}; change {what}.listen or stop what listens there")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The relay's own address is no relay address.
    #[error("relay.url")]
    RelayUrl(#[source] BunkerError),
    /// The relay's documents do not open.
    #[error("the relay's documents cannot be used")]
    RelayDocs(#[source] OpenError),
    /// The database does not answer.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// A sealed key or the cookie cannot be read or written.
    #[error("a secret in the data folder cannot be used")]
    Secret(#[from] SecretError),
    /// CLINK for customers' wallets does not start.
    #[error("customers' wallets cannot be served by CLINK")]
    Clink(#[from] clink::StartError),
    /// The RPC of machines does not start.
    #[error("the machines cannot be served")]
    Rpc(#[from] rpc::StartError),
    /// Documents cannot be published.
    #[error("documents cannot be published")]
    Publish(#[from] publish::StartError),
    /// The embedded bunker does not open, or its id cannot be read.
    #[error("the bunker cannot be used")]
    Bunker(#[from] crate::bunker::BunkerError),
    /// A sealed key is none.
    #[error("a sealed key cannot be used")]
    Key(#[from] IdError),
    /// Nobody can be told.
    #[error("the webhook cannot be used")]
    Webhook(#[from] webhook::StartError),
    /// The bunker cannot be connected to.
    #[error("the bunker cannot be connected to")]
    Reach(#[from] ReachError),
    /// A part of the daemon cannot go on.
    #[error("a part of the daemon ended; the log says which, and why")]
    Ended,
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for")]
    Signal(#[source] io::Error),
}

/// The running daemon.
#[derive(Debug)]
pub struct Running {
    app: Arc<App>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where wallets and claims are served.
    pub public: SocketAddr,
    /// Where the embedded relay listens, if it runs here.
    pub relay: Option<SocketAddr>,
    base_stop: CancellationToken,
    base_tasks: TaskTracker,
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Bind { what, address, source };
    TcpListener::bind(address).await.map_err(failed)
}

fn bound(what: &'static str, listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| ServeError::Bind { what, address: unknown, source })
}

/// Starts everything.
///
/// # Errors
/// [`ServeError`]; the caller cancels `app.stop`.
pub async fn start(app: Arc<App>) -> Result<Running, ServeError> {
    fleet::first_operator(&app).await?;
    fleet::roster::follow(&app).await?;
    let base_stop = CancellationToken::new();
    let base_tasks = TaskTracker::new();
    let relay = match app.config.relay_listen {
        None => None,
        Some(address) => {
            let listener = bind("relay", address).await?;
            let address = bound("relay", &listener)?;
            let relay = open_relay(&app, &base_stop)?;
            base_tasks.spawn(relay::serve(listener, relay));
            Some(address)
        }
    };
    bunker::start(&app, &base_stop, &base_tasks).await?;
    settle::start(&app);
    rpc::start(&app).await?;
    publish::start(&app).await?;
    relays::start(&app);
    payout::start(&app);
    clink::start(&app).await?;
    distribute::start(&app)?;
    webhook::start(&app).await?;
    // behind the webhook's start, so that it is told
    wallet::compare(&app).await?;
    let public = app.config.public_listen;
    let failed = |source| ServeError::Bind { what: "public", address: public, source };
    let public = lnurl::start(&app).await.map_err(failed)?;
    let listener = bind("api", app.config.api_listen).await?;
    let api = bound("api", &listener)?;
    if !api.ip().is_loopback() {
        tracing::warn!(event = "api_not_on_loopback", address = %api);
    }
    let people = Arc::new(People::new(app.clone()));
    people.write_cookie(&format!("http://{}", local(api)))?;
    let gate = Gate::new(people, app.config.api_base_url.clone(), app.clock.clone());
    let router = http::router(Api { app: app.clone() }, gate);
    app.tasks.spawn(listen(listener, router, Bounds::default(), app.stop.clone()));
    Ok(Running { app, api, public, relay, base_stop, base_tasks })
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError::Signal`].
pub async fn told_to_stop() -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// How this computer reaches what listens on `address`.
fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    address
}

fn open_relay(app: &App, stop: &CancellationToken) -> Result<Relay, ServeError> {
    let own = app.config.relays.first().map_or("", String::as_str);
    let mut config = relay::Config::new(vec![parse_relay(own).map_err(ServeError::RelayUrl)?]);
    config.clock = app.clock.clone();
    let documents = RelayDocs::open(&app.config.data_dir.join("relay.db"), app.clock.now())
        .map_err(ServeError::RelayDocs)?;
    let relay = Relay::new(config, app.roster.clone(), documents, stop.clone());
    Ok(app.relay.get_or_init(|| relay).clone())
}

impl Running {
    /// One line for people and scripts: that it runs, and where.
    #[must_use]
    pub fn ready_line(&self) -> String {
        let relay = self.relay.map_or_else(|| "none".into(), |address| format!("ws://{address}"));
        format!("ready api=http://{} public=http://{} relay={relay}", self.api, self.public)
    }

    /// Waits for SIGTERM or SIGINT.
    ///
    /// # Errors
    /// [`ServeError::Ended`] where a part of the daemon gave up first; [`ServeError::Signal`].
    pub async fn until_stopped(&self) -> Result<(), ServeError> {
        tokio::select! {
            told = told_to_stop() => told,
            () = self.app.stop.cancelled() => Err(ServeError::Ended),
        }
    }

    /// Stops everything, in order.
    pub async fn stop(self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        if tokio::time::timeout(PATIENCE, self.app.tasks.wait()).await.is_err() {
            tracing::warn!(event = "stop_left_tasks", tasks = self.app.tasks.len());
        }
        self.base_stop.cancel();
        self.base_tasks.close();
        if tokio::time::timeout(PATIENCE, self.base_tasks.wait()).await.is_err() {
            tracing::warn!(event = "stop_left_relay_or_bunker");
        }
    }
}
