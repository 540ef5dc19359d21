//! Puts an operator's key into the bunker and connects to it.
//!
//! Promise: may be run again after any interruption, and at every start: each step looks first at
//! what is there. The operator's private key is made here, handed over once and forgotten. Our end's
//! key is sealed on the disk before the bunker hears of it, so that a redeemed token is never lost
//! with the process that redeemed it.
//!
//! Failure policy: [`ProvisionError`]; nothing in the bunker is replaced. A client key of ours that
//! was revoked there stays dead: a fresh one is sealed in its place, and the next run connects.

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::sealed::Purpose;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::{Keyring, SecretError};
use nostr::{Keys, UnsignedEvent};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::link::LinkError;
use super::policy::{PolicyError, ensure_policy};
use super::remote::{Remote, RemoteConfig};
use super::{BunkerAdmin, BunkerRule, BunkerToken, RemoteSigner as _, SignerError, Tried};

/// The policy that the service uses an operator's key under.
pub const POLICY: &str = "bitspire-operator";
/// The event kind of documents and statements (NIP-78), all that the service has an operator sign.
const DOCUMENT: u16 = 30_078;
/// The name of the service as a client.
const CLIENT: &str = "bitspire-operator";
/// How long the service's connection holds: ten years, since nobody is there to renew it. The
/// operator ends it by revoking it.
const HOURS: u32 = 87_600;

/// Why there is no connection to the operator's key.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// Our end's key cannot be used.
    #[error("the sealed client key cannot be used")]
    Secret(#[from] SecretError),
    /// The bunker did not do it.
    #[error("the bunker did not take the operator's key")]
    Signer(#[from] SignerError),
    /// No connection can be made.
    #[error("no connection to the bunker can be made")]
    Link(#[from] LinkError),
    /// The name is unfit for a file.
    #[error("expected a key name of a-z, 0-9 and -, got {got:?}")]
    Name {
        /// What came.
        got: String,
    },
    /// The author of what is to be signed is no key.
    #[error("the key that is to sign is no key")]
    Key(#[from] IdError),
    /// There is no policy to use the key under.
    #[error("the bunker's policy for the operator's key")]
    Policy(#[from] PolicyError),
    /// It cannot encrypt documents.
    #[error(
        "the bunker has no nip44_encrypt and nip44_decrypt, without which no document can be \
         written: use the embedded bunker, or a version of nsecbunkerd that has them"
    )]
    NoNip44(#[source] SignerError),
    /// It is there, but the bunker does not show it.
    #[error("the bunker does not show {what} that it was told to make: unlock the key, try again")]
    NotThere {
        /// What was looked for.
        what: &'static str,
    },
    /// Our end's key was dead.
    #[error(
        "the service's access to key {name:?} had been revoked in the bunker; it has a fresh client \
         key now: run this again to let it in"
    )]
    Replaced {
        /// The key's name.
        name: String,
    },
    /// Nothing was set up yet.
    #[error("no connection to the operator's key {name:?} was set up: run `operator init`")]
    NotSetUp {
        /// The key's name.
        name: String,
    },
}

impl Classified for ProvisionError {
    fn kind(&self) -> Kind {
        match self {
            Self::Secret(error) => error.kind(),
            Self::Signer(error) => error.kind(),
            Self::Link(error) => error.kind(),
            Self::NotThere { .. } | Self::Replaced { .. } => Kind::Transient,
            Self::Policy(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Name { .. } | Self::NoNip44(_) | Self::NotSetUp { .. } => Kind::Permanent,
        }
    }
}

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Our sealed keys.
    pub keyring: Keyring,
    /// Where the bunker is reached.
    pub relays: Vec<String>,
    /// The wall clock.
    pub clock: Clock,
    /// Owns the connection's tasks.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

impl Wiring {
    async fn remote(
        &self,
        key: PubKey,
        client: Keys,
        secret: Option<BunkerSecret>,
    ) -> Result<Remote, LinkError> {
        let config = RemoteConfig { secret, ..RemoteConfig::new(key, self.relays.clone(), client) };
        Remote::start(config, self.clock.clone(), &self.tasks, self.stop.clone()).await
    }
}

/// Name of our end's key in the keyring; the embedded relay must know that key as the service's.
fn client_name(key_name: &str) -> Result<String, ProvisionError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if key_name.is_empty() || !key_name.chars().all(plain) {
        return Err(ProvisionError::Name { got: key_name.to_owned() });
    }
    Ok(format!("signer-{key_name}"))
}

/// Our end's key for the key called `key_name`, made now if there is none. The embedded relay has to
/// know it before [`provision`] runs over it.
///
/// # Errors
/// [`ProvisionError`].
pub fn client_key(keyring: &Keyring, key_name: &str) -> Result<Keys, ProvisionError> {
    Ok(keyring.load_or_make(&client_name(key_name)?, Purpose::ClientKey)?)
}

/// A fresh key in the place of our end's key for the key called `key_name`.
///
/// # Errors
/// [`ProvisionError`].
pub(super) fn renew_client(keyring: &Keyring, key_name: &str) -> Result<(), ProvisionError> {
    Ok(keyring.make(&client_name(key_name)?, Purpose::ClientKey).map(|_| ())?)
}

/// Has `event` signed by its author's key, called `key_name`, once; redeems `secret` before, where
/// there is one. The connection ends with `wiring`.
///
/// # Errors
/// [`ProvisionError`] where the bunker said neither yes nor no.
pub(super) async fn try_sign(
    key_name: &str,
    secret: Option<BunkerSecret>,
    event: UnsignedEvent,
    wiring: &Wiring,
) -> Result<Tried, ProvisionError> {
    let client = client_key(&wiring.keyring, key_name)?;
    let key = PubKey::new(event.pubkey)?;
    let redeems = secret.is_some();
    let remote = wiring.remote(key, client, secret).await?;
    let asked = async {
        if redeems {
            remote.connect().await?;
        }
        remote.sign(event).await
    };
    match asked.await {
        Ok(_) => Ok(Tried::Signed),
        Err(SignerError::Refused { reason, .. }) => Ok(Tried::Refused(reason)),
        Err(error) => Err(error.into()),
    }
}

/// Makes the key called `key_name` in the bunker, if it is not there, and connects to it.
///
/// # Errors
/// [`ProvisionError`]; to be run again.
pub async fn provision(
    admin: &dyn BunkerAdmin,
    key_name: &str,
    wiring: &Wiring,
) -> Result<Remote, ProvisionError> {
    let client = client_key(&wiring.keyring, key_name)?;
    let key = ensure_key(admin, key_name).await?;
    let users = admin.users(key_name.to_owned()).await?;
    let known = users.into_iter().find(|user| user.key.nostr() == client.public_key());
    let secret = match known {
        Some(user) if user.revoked_at.is_some() => {
            // used from the next run on: the embedded relay has to know it first
            wiring.keyring.make(&client_name(key_name)?, Purpose::ClientKey)?;
            return Err(ProvisionError::Replaced { name: key_name.to_owned() });
        }
        Some(_) => None,
        None => {
            let policy = ensure_policy(admin, POLICY, &rules()).await?;
            Some(ensure_token(admin, key_name, policy).await?)
        }
    };
    let remote = wiring.remote(key, client, secret).await?;
    remote.connect().await?;
    check_nip44(&remote).await?;
    tracing::info!(event = "operator_key_connected", key = %remote.key(), name = key_name);
    Ok(remote)
}

/// Uses the key called `key_name` again, after it was provisioned once; asks the bunker nothing yet,
/// which may be down.
///
/// # Errors
/// [`ProvisionError`].
pub async fn reopen(
    key: PubKey,
    key_name: &str,
    wiring: &Wiring,
) -> Result<Remote, ProvisionError> {
    let client = wiring.keyring.load(&client_name(key_name)?, Purpose::ClientKey)?;
    let client = client.ok_or_else(|| ProvisionError::NotSetUp { name: key_name.to_owned() })?;
    Ok(wiring.remote(key, client, None).await?)
}

/// What a call that got no reply may have done is looked up by the caller, next.
pub(super) fn unless_unknown<T>(result: Result<T, SignerError>) -> Result<(), SignerError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Kind::Uncertain => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) async fn ensure_key(
    admin: &dyn BunkerAdmin,
    name: &str,
) -> Result<PubKey, ProvisionError> {
    let find = async || -> Result<Option<PubKey>, ProvisionError> {
        match admin.key(name.to_owned()).await? {
            None => Ok(None),
            Some(key) => key.key.map(Some).ok_or(ProvisionError::NotThere { what: "the key" }),
        }
    };
    if let Some(key) = find().await? {
        return Ok(key);
    }
    unless_unknown(admin.create_key(name.to_owned(), Keys::generate()).await)?;
    find().await?.ok_or(ProvisionError::NotThere { what: "the key" })
}

/// Some bunkers have no NIP-44: better told now than at the first document.
async fn check_nip44(remote: &Remote) -> Result<(), ProvisionError> {
    let to_itself = remote.key();
    let refused = |error: SignerError| match error {
        error @ SignerError::Refused { .. } => ProvisionError::NoNip44(error),
        other => other.into(),
    };
    let text = Zeroizing::new("bitspire".to_owned());
    let payload = remote.encrypt(to_itself, text.clone()).await.map_err(refused)?;
    if remote.decrypt(to_itself, payload).await.map_err(refused)? == text {
        return Ok(());
    }
    let (method, expected) = ("nip44_decrypt", "what nip44_encrypt was given");
    Err(SignerError::Unexpected { method, expected }.into())
}

fn rules() -> Vec<BunkerRule> {
    let rule = |method: &str, kind| BunkerRule { method: method.to_owned(), kind };
    vec![
        rule("sign_event", Some(DOCUMENT)),
        rule("nip44_encrypt", None),
        rule("nip44_decrypt", None),
    ]
}

async fn ensure_token(
    admin: &dyn BunkerAdmin,
    key_name: &str,
    policy: i64,
) -> Result<BunkerSecret, ProvisionError> {
    let unused = async || -> Result<Vec<BunkerToken>, ProvisionError> {
        let mut tokens = admin.tokens(key_name.to_owned()).await?;
        tokens.retain(|token| token.client_name == CLIENT && token.redeemed_at.is_none());
        Ok(tokens)
    };
    for token in unused().await? {
        match &token.secret {
            Some(secret) => return Ok(secret.clone()),
            // made by a run that was interrupted; nobody can use it
            None => admin.revoke_token(token.id).await?,
        }
    }
    let made = admin.create_token(key_name.to_owned(), CLIENT.to_owned(), policy, HOURS).await;
    unless_unknown(made)?;
    let token = unused().await?.into_iter().max_by_key(|token| token.id);
    let token = token.ok_or(ProvisionError::NotThere { what: "the token" })?;
    Ok(token.secret()?.clone())
}
