//! A bunker's administration over Nostr: nsecbunkerd's RPC, as its forks and our own bunker speak it.
//!
//! Promise: a call that changes something is sent once, in one encoding, and only after the bunker
//! has just answered a `ping` in that encoding; it is never repeated from here. Calls that only read,
//! and `ping`, are sent again every two seconds until they are answered. The first reply to an id
//! counts.
//!
//! Bunkers differ in the kind of their requests (24134, or 24133 alone) and in encryption (NIP-44,
//! or NIP-04 alone): a [`Dialect`] is settled by `ping`, and settled anew after a call that got no
//! reply. Replies are taken on both kinds, since some answer errors on 24133, and in both encryptions.
//!
//! Failure policy: [`SignerError`]; without a reply the effect of a call is unknown and is to be
//! looked up by the caller ([`BunkerAdmin::keys`](super::BunkerAdmin::keys) and the like) before it
//! is asked for again.

mod abilities;
mod calls;
mod exchange;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::KIND;
use bitspire_shell::clock::Clock;
use nostr::Keys;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use self::exchange::{Dialect, Effect, Inner};
use super::cipher::Encryption;
use super::link::{Link, LinkError};
use super::{ADMIN_KIND, BunkerKey, CALL_TIMEOUT, SignerError};

/// Where a bunker is administered, and by whom.
#[derive(Clone)]
pub struct AdminConfig {
    /// The bunker's own public key.
    pub bunker: PubKey,
    /// Where it is reached.
    pub relays: Vec<String>,
    /// The admin key; the bunker has to know it.
    pub admin: Keys,
    /// Its encryption, where it need not be found out.
    pub encryption: Option<Encryption>,
    /// What the bunker encrypts keys with, where it is one that wants such a thing: nsecbunkerd does,
    /// and has to be told it again after each of its restarts.
    pub passphrase: Option<Zeroizing<String>>,
    /// How long a call may take; [`CALL_TIMEOUT`] but in tests.
    pub timeout: Duration,
}

impl std::fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminConfig")
            .field("bunker", &self.bunker)
            .field("relays", &self.relays)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl AdminConfig {
    /// The usual time limit, the encryption that the bunker has, no passphrase.
    #[must_use]
    pub const fn new(bunker: PubKey, relays: Vec<String>, admin: Keys) -> Self {
        let (encryption, passphrase) = (None, None);
        Self { bunker, relays, admin, encryption, passphrase, timeout: CALL_TIMEOUT }
    }
}

/// The administration. Clones share the connection.
#[derive(Clone)]
pub struct AdminClient(Arc<Inner>);

impl AdminClient {
    /// Connects; its task is `tasks`' and ends with `stop`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn start(
        config: AdminConfig,
        clock: Clock,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, LinkError> {
        let AdminConfig { bunker, relays, admin, encryption, passphrase, timeout } = config;
        let link = Link::open(admin, bunker, &relays, &[ADMIN_KIND, KIND], clock).await?;
        let inner = Arc::new(Inner::new(link, timeout, encryption, passphrase));
        let reading = Arc::clone(&inner);
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reading.read() => {}
            }
            reading.close().await;
        });
        Ok(Self(inner))
    }

    async fn call(
        &self,
        effect: Effect,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Zeroizing<String>, SignerError> {
        let (dialect, just_now) = self.0.settled().await?;
        let answered = async {
            if effect == Effect::Changes && !just_now {
                // a relay that is just connecting, or asks for authentication, may lose what is sent
                self.0.exchange(dialect, Effect::Reads, "ping", vec![]).await?;
            }
            self.0.exchange(dialect, effect, method, params).await
        }
        .await;
        if let Err(SignerError::NoReply { .. }) = answered {
            // perhaps it was exchanged for another version
            self.0.unsettle();
        }
        answered
    }

    async fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Vec<Value>,
        expected: &'static str,
    ) -> Result<T, SignerError> {
        let text = self.call(Effect::Reads, method, params).await?;
        serde_json::from_str(&text).map_err(|_| SignerError::Unexpected { method, expected })
    }

    /// A call whose result says nothing but that it worked.
    async fn change(&self, method: &'static str, params: Vec<Value>) -> Result<(), SignerError> {
        self.call(Effect::Changes, method, params).await.map(|_| ())
    }

    async fn all_keys(&self) -> Result<Vec<BunkerKey>, SignerError> {
        let (mut keys, mut names) = (Vec::new(), HashSet::new());
        loop {
            // ours answers in pages; a bunker that ignores the param brings nothing new
            let page = self.some_keys(vec![keys.len().into()]).await?;
            let before = keys.len();
            keys.extend(page.into_iter().filter(|key| names.insert(key.name.clone())));
            if keys.len() == before {
                return Ok(keys);
            }
        }
    }

    async fn one_key(&self, name: &str) -> Result<Option<BunkerKey>, SignerError> {
        // ours answers with this one; a bunker that ignores the params with all
        let some = self.some_keys(vec![0.into(), name.into()]).await?;
        Ok(some.into_iter().find(|key| key.name == name))
    }

    async fn some_keys(&self, params: Vec<Value>) -> Result<Vec<BunkerKey>, SignerError> {
        #[derive(Deserialize)]
        struct Wire {
            name: String,
            #[serde(default)]
            npub: Option<String>,
        }
        let (method, expected) = ("get_keys", "a list of keys");
        let page: Vec<Wire> = self.read(method, params, expected).await?;
        let keys = page.into_iter().map(|Wire { name, npub }| {
            let key = npub.as_deref().map(PubKey::from_hex_or_npub).transpose();
            let key = key.map_err(|_| SignerError::Unexpected { method, expected })?;
            Ok(BunkerKey { name, key })
        });
        keys.collect()
    }

    /// How the bunker is spoken to, once that is settled.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.0.dialect()
    }
}
