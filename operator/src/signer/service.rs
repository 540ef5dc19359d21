//! The bunker as the service works with it: its administration, and operator keys over NIP-46.
//!
//! Promise: every key that this end authenticates with is in [`Bunker::own_keys`] before anything is
//! sent with it.
//!
//! Failure policy: that of [`provision`](super::provision) and [`admin`](super::admin).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::seed::BunkerSecret;
use bitspire_shell::secrets::{SecretError, credential};
use futures_util::future::BoxFuture;
use nostr::{Keys, UnsignedEvent};
use thiserror::Error;

use super::admin::{AdminClient, AdminConfig};
use super::cipher::Encryption;
use super::provision::{Wiring, client_key, provision, renew_client, reopen, try_sign};
use super::{Bunker, BunkerAdmin, LinkError, RemoteSigner, SetupError, Tried, admin_key};

/// Why the bunker cannot be reached.
#[derive(Debug, Error)]
pub enum ReachError {
    /// The admin key or the passphrase cannot be used.
    #[error("the sealed admin key, or the passphrase of the bunker's keys, cannot be used")]
    Secret(#[from] SecretError),
    /// A key is none.
    #[error("the sealed key is no key")]
    Key(#[from] IdError),
    /// No connection can be made.
    #[error("no connection to the bunker can be made")]
    Link(#[from] LinkError),
}

impl Classified for ReachError {
    fn kind(&self) -> Kind {
        match self {
            Self::Secret(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Link(error) => error.kind(),
        }
    }
}

/// How a bunker wants to be dealt with, where that is not the usual way.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Its encryption, where it need not be found out.
    pub encryption: Option<Encryption>,
    /// The file with the passphrase that its keys are locked with.
    pub passphrase_file: Option<PathBuf>,
}

/// The bunker at the other end of a relay: our own or one that speaks the same.
pub struct ServiceBunker {
    id: PubKey,
    admin: AdminClient,
    wiring: Wiring,
    own: Mutex<BTreeSet<PubKey>>,
}

impl ServiceBunker {
    /// Connects to the bunker called `id` with the service's admin key; asks it nothing yet.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn start(id: PubKey, wiring: Wiring, manner: Manner) -> Result<Self, ReachError> {
        let keys = admin_key(&wiring.keyring)?;
        let own = BTreeSet::from([PubKey::new(keys.public_key())?]);
        let Manner { encryption, passphrase_file } = manner;
        let passphrase = passphrase_file.as_deref().map(credential).transpose()?;
        let config = AdminConfig::new(id, wiring.relays.clone(), keys);
        let config = AdminConfig { encryption, passphrase, ..config };
        let (clock, stop) = (wiring.clock.clone(), wiring.stop.clone());
        let admin = AdminClient::start(config, clock, &wiring.tasks, stop).await?;
        Ok(Self { id, admin, wiring, own: Mutex::new(own) })
    }

    fn own(&self, keys: &Keys) -> Result<(), ReachError> {
        let key = PubKey::new(keys.public_key())?;
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(())
    }
}

impl Bunker for ServiceBunker {
    fn key(&self) -> PubKey {
        self.id
    }

    fn admin(&self) -> &dyn BunkerAdmin {
        &self.admin
    }

    fn own_keys(&self) -> Vec<PubKey> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn prepare(&self, name: &str) -> Result<(), SetupError> {
        Ok(self.own(&client_key(&self.wiring.keyring, name)?)?)
    }

    fn renew(&self, name: &str) -> Result<(), SetupError> {
        let before = client_key(&self.wiring.keyring, name)?;
        renew_client(&self.wiring.keyring, name)?;
        let before = PubKey::new(before.public_key())?;
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(&before);
        self.prepare(name)
    }

    fn try_sign(
        &self,
        name: String,
        secret: Option<BunkerSecret>,
        event: UnsignedEvent,
    ) -> BoxFuture<'_, Result<Tried, SetupError>> {
        Box::pin(async move {
            self.prepare(&name)?;
            let stop = self.wiring.stop.child_token();
            let _ends = stop.clone().drop_guard();
            let wiring = Wiring { stop, ..self.wiring.clone() };
            Ok(try_sign(&name, secret, event, &wiring).await?)
        })
    }

    fn provision(&self, name: String) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>> {
        Box::pin(async move {
            self.prepare(&name)?;
            let remote = provision(&self.admin, &name, &self.wiring).await;
            // it may have been replaced
            self.prepare(&name)?;
            Ok(Arc::new(remote?) as Arc<dyn RemoteSigner>)
        })
    }

    fn reopen(
        &self,
        key: PubKey,
        name: String,
    ) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>> {
        Box::pin(async move {
            let remote = reopen(key, &name, &self.wiring).await?;
            self.prepare(&name)?;
            Ok(Arc::new(remote) as Arc<dyn RemoteSigner>)
        })
    }
}
