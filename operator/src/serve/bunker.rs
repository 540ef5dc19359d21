//! The bunker, as the daemon finds it or runs it, and everything that needs it.
//!
//! Promise: the embedded bunker runs on a folder, a database and a secret of its own, but in this
//! process: a hole in the daemon has every key. It is for development, and says so.
//!
//! Failure policy: without a bunker, or before it answers, the daemon runs: sales go on by session;
//! pairing and documents wait, each with the reason.

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::ids::PubKey;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServeError;
use crate::app::{App, Ring};
use crate::bunker::{Bunker, BunkerConfig, read_id};
use crate::fleet::{account, canary, identity, pair, upkeep};
use crate::signer::admin_key;
use crate::signer::provision::Wiring;
use crate::signer::service::{Manner, ServiceBunker};

/// Between two looks for a bunker that was not there at the start.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the bunker if it is embedded, connects to it, and takes up what was left in the middle.
pub(super) async fn start(
    app: &Arc<App>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), ServeError> {
    pair::recover(app).await?;
    account::reopen(app).await?;
    canary::start(app);
    let id = if app.config.bunker_embedded {
        Some(embedded(app, stop, tasks).await?)
    } else {
        match app.config.bunker_id {
            Some(id) => Some(id),
            None => read_id(&app.config.bunker_data_dir)?,
        }
    };
    match id {
        Some(id) => connect(app, id).await,
        None => {
            tracing::warn!(
                event = "no_bunker",
                "machines cannot be paired and documents are not signed until there is a bunker: \
                 start `bitspire-operator bunker serve`, or set bunker.id"
            );
            wait_for(app.clone());
            Ok(())
        }
    }
}

/// Connects as soon as a bunker has started in its folder.
fn wait_for(app: Arc<App>) {
    app.tasks.clone().spawn(async move {
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let connected = match read_id(&app.config.bunker_data_dir) {
                Ok(None) => continue,
                Ok(Some(id)) => connect(&app, id).await,
                Err(error) => Err(error.into()),
            };
            match connected {
                Ok(()) => return tracing::info!(event = "bunker_found"),
                Err(error) => tracing::warn!(event = "bunker_unusable", error = ?error),
            }
        }
    });
}

async fn connect(app: &Arc<App>, id: PubKey) -> Result<(), ServeError> {
    let wiring = Wiring {
        keyring: app.keyring.clone(),
        relays: vec![app.config.bunker_relay.clone()],
        clock: app.clock.clone(),
        tasks: app.tasks.clone(),
        stop: app.stop.clone(),
    };
    let manner = Manner {
        encryption: app.config.bunker_encryption,
        passphrase_file: app.config.bunker_passphrase_file.clone(),
    };
    let bunker = ServiceBunker::start(id, wiring, manner).await?;
    app.bunker.get_or_init(|| Arc::new(bunker));
    identity::reopen(app).await?;
    // the relay has to know the bunker, and the keys that we reach it with
    app.roster.refresh(app).await?;
    app.ring(Ring::Roster);
    app.ring(Ring::Outbox);
    upkeep::start(app);
    Ok(())
}

async fn embedded(
    app: &Arc<App>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<PubKey, ServeError> {
    tracing::warn!(
        event = "bunker_embedded",
        "the bunker runs inside this process, for development only: every key is behind one door; \
         set bunker.embedded = false and run `bitspire-operator bunker serve` under its own user"
    );
    let mut config = BunkerConfig::of(&app.config, app.clock.clone());
    config.admins.push(PubKey::new(admin_key(&app.keyring)?.public_key())?);
    let bunker = Bunker::open(config).await?;
    let id = bunker.id();
    let (app, stop) = (app.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = bunker.run(stop).await {
            tracing::error!(event = "bunker_ended", error = ?error);
            // with a disk that fails, nothing here can be trusted to be kept
            app.stop.cancel();
        }
    });
    Ok(id)
}
