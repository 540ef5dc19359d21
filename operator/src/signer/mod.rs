//! The bunker port: what the service asks of a remote signer and of its administration.
//!
//! Promise: no private key of an operator or a machine passes through here but once, when it is
//! made. After a timeout the effect of a call that changes something is *unknown*: it is read back
//! (keys, policies, tokens) before anything is repeated.
//!
//! Failure policy: [`SignerError`] says what the bunker was asked and what came; a bunker that
//! gives no reply is locked or down, never "refused", and one that answers something else lies.

mod abilities;
pub mod admin;
pub mod cipher;
pub(crate) mod iso;
pub(crate) mod link;
pub mod local;
pub mod policy;
pub mod provision;
pub mod remote;
pub mod service;
pub mod trial;

use std::sync::Arc;
use std::time::Duration;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::sealed::Purpose;
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{Keyring, SecretError};
use futures_util::future::BoxFuture;
use nostr::{Event, Keys, UnsignedEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use zeroize::Zeroizing;

pub use abilities::Abilities;
pub use link::LinkError;

/// How long a call may take: a bunker may ask its administrators first, which takes ten seconds.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Kind of the events that administer a bunker (nsecbunkerd's; no NIP has it).
pub const ADMIN_KIND: u16 = 24_134;

/// The service's admin key, made at its first use: what a bunker's administrators list must name.
///
/// # Errors
/// [`SecretError`].
pub fn admin_key(keyring: &Keyring) -> Result<Keys, SecretError> {
    keyring.load_or_make("admin", Purpose::AdminKey)
}

/// What a bunker answers.
pub type SignerResult<'a, T> = BoxFuture<'a, Result<T, SignerError>>;

/// Why a bunker did not do it, and whether it might have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignerError {
    /// No bunker is configured.
    #[error("no bunker is configured: set [bunker] in the configuration")]
    NotConfigured,
    /// No relay took the request: it had no effect.
    #[error("bunker: {method} did not reach any relay; nothing was done, try again")]
    NotSent {
        /// The method.
        method: &'static str,
    },
    /// No reply in time: the key is locked, the bunker is down, or the reply was lost.
    #[error(
        "bunker: no reply to {method} within {seconds} s: it is down or its key is locked; what \
         the call would have done is looked up before it is repeated"
    )]
    NoReply {
        /// The method.
        method: &'static str,
        /// Seconds waited.
        seconds: u64,
    },
    /// It said no.
    #[error("bunker refused {method}: {reason}")]
    Refused {
        /// The method.
        method: &'static str,
        /// Its own words.
        reason: String,
    },
    /// The text of a token that the bunker keeps no longer.
    #[error(
        "bunker: the text of token {id} is not shown any more: the bunker keeps only its hash once \
         it was restarted, or some minutes have passed; revoke the token and make another"
    )]
    TokenHidden {
        /// The token.
        id: i64,
    },
    /// An answer to something else than what was asked: another event, another key, a signature that
    /// does not hold.
    #[error(
        "bunker lied when asked for {method}: {what}. Nothing was made of its answer: do not use \
         this bunker, look at what runs there"
    )]
    Lied {
        /// The method.
        method: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// A reply that does not answer the question.
    #[error("bunker: expected {expected} in reply to {method}, got something else")]
    Unexpected {
        /// The method.
        method: &'static str,
        /// What a reply must hold.
        expected: &'static str,
    },
}

impl SignerError {
    /// Whether the bunker answered something else than it was asked: a person has to look at it.
    #[must_use]
    pub const fn is_lie(&self) -> bool {
        matches!(self, Self::Lied { .. } | Self::Unexpected { .. })
    }

    /// Whether the bunker said that it does not have the method at all, in the words of those that
    /// are known.
    #[must_use]
    pub fn unknown_method(&self) -> bool {
        matches!(self, Self::Refused { reason, .. }
            if reason.to_ascii_lowercase().contains("unknown method"))
    }
}

impl Classified for SignerError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotConfigured
            | Self::Refused { .. }
            | Self::TokenHidden { .. }
            | Self::Lied { .. }
            | Self::Unexpected { .. } => Kind::Permanent,
            Self::NotSent { .. } => Kind::Transient,
            Self::NoReply { .. } => Kind::Uncertain,
        }
    }
}

/// One key that a bunker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BunkerKey {
    /// Grants hang on this name.
    pub name: String,
    /// Its public key; absent while it is locked.
    pub key: Option<PubKey>,
}

/// One client that redeemed a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BunkerUser {
    /// What [`BunkerAdmin::revoke_user`] takes.
    pub id: String,
    /// The client key.
    pub key: PubKey,
    /// Whom its token was made for.
    pub name: Option<String>,
    /// When it redeemed its token.
    pub created_at: Option<Unix>,
    /// When something was allowed to it last.
    pub last_used_at: Option<Unix>,
    /// Set once it is revoked.
    pub revoked_at: Option<Unix>,
}

/// One rule of a policy: `kind` is absent for methods that have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BunkerRule {
    /// `sign_event`, `nip44_encrypt`, ...
    pub method: String,
    /// The event kind for `sign_event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<u16>,
}

/// A rule that is to be made or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRule {
    /// What it allows.
    pub rule: BunkerRule,
    /// How often at most; `None` is without end.
    pub most: Option<u64>,
}

impl From<BunkerRule> for NewRule {
    fn from(rule: BunkerRule) -> Self {
        Self { rule, most: None }
    }
}

/// What is changed about a policy that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// Its end; `None` is without end.
    Ends(Option<Unix>),
    /// How often one of its rules may be used.
    Cap {
        /// The rule.
        rule: BunkerRule,
        /// At most, what was used already included.
        most: u64,
    },
}

/// How often a rule was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// So far.
    pub so_far: u64,
    /// At most; `None` is without end.
    pub most: Option<u64>,
}

/// A policy and its id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BunkerPolicy {
    /// What tokens are made with.
    pub id: i64,
    /// Its name; ours are found by it, on every call.
    pub name: String,
    /// What it allows.
    pub rules: Vec<BunkerRule>,
    /// How often each rule was used, in their order.
    pub uses: Vec<Uses>,
    /// When it ends.
    pub expires_at: Option<Unix>,
}

/// One token of a key.
#[derive(Clone, Debug)]
pub struct BunkerToken {
    /// What [`BunkerAdmin::revoke_token`] takes.
    pub id: i64,
    /// The name that it was made for.
    pub client_name: String,
    /// The part behind `#`, which a client connects with: a bearer secret. Absent where the bunker
    /// keeps only its hash any more.
    pub secret: Option<BunkerSecret>,
    /// The policy that its client gets.
    pub policy: Option<String>,
    /// When it can no longer be used.
    pub expires_at: Option<Unix>,
    /// Set once a client has used it.
    pub redeemed_at: Option<Unix>,
    /// Who has used it, as the bunker names them.
    pub redeemed_by: Option<String>,
}

impl BunkerToken {
    /// The secret, for the seed.
    ///
    /// # Errors
    /// [`SignerError::TokenHidden`].
    pub fn secret(&self) -> Result<&BunkerSecret, SignerError> {
        self.secret.as_ref().ok_or(SignerError::TokenHidden { id: self.id })
    }
}

/// A bunker's administration.
pub trait BunkerAdmin: Send + Sync + 'static {
    /// Whether it answers at all.
    fn ping(&self) -> SignerResult<'_, ()>;
    /// All keys.
    fn keys(&self) -> SignerResult<'_, Vec<BunkerKey>>;
    /// The key called `name`, if there is one.
    fn key(&self, name: String) -> SignerResult<'_, Option<BunkerKey>>;
    /// Stores `key` under `name`, which no key may have: grants hang on names.
    fn create_key(&self, name: String, key: Keys) -> SignerResult<'_, PubKey>;
    /// Unlocks a key that is locked, which bunkers with passphrases are after each restart; asks for
    /// it once, and looks whether it is open then.
    fn unlock(&self, name: String) -> SignerResult<'_, ()>;
    /// The clients of a key.
    fn users(&self, key_name: String) -> SignerResult<'_, Vec<BunkerUser>>;
    /// Cuts a client off.
    fn revoke_user(&self, id: String) -> SignerResult<'_, ()>;
    /// All policies.
    fn policies(&self) -> SignerResult<'_, Vec<BunkerPolicy>>;
    /// Makes a policy; its id is found by listing. Ends and caps count where the bunker holds them
    /// ([`Abilities::enforces_policies`]).
    fn create_policy(
        &self,
        name: String,
        rules: Vec<NewRule>,
        expires_at: Option<Unix>,
    ) -> SignerResult<'_, ()>;
    /// Adds a rule to a policy, where the bunker can ([`Abilities::adds_rules`]).
    fn add_rule(&self, policy_id: i64, rule: NewRule) -> SignerResult<'_, ()>;
    /// Changes a policy that is there, where the bunker can; it counts at the next request.
    fn change_policy(&self, policy_id: i64, change: PolicyChange) -> SignerResult<'_, ()>;
    /// Makes a token; it is found by listing.
    fn create_token(
        &self,
        key_name: String,
        client_name: String,
        policy_id: i64,
        hours: u32,
    ) -> SignerResult<'_, ()>;
    /// The tokens of a key.
    fn tokens(&self, key_name: String) -> SignerResult<'_, Vec<BunkerToken>>;
    /// Makes an unredeemed token useless.
    fn revoke_token(&self, id: i64) -> SignerResult<'_, ()>;
    /// Lets a client go on until `until`; what it has is never shortened. Where what is granted has no
    /// end ([`Abilities::ends_grants`]), there is nothing to do.
    fn extend_user(&self, id: String, until: Unix) -> SignerResult<'_, ()>;
    /// The newest `limit` entries of each log: `{requests, refused, admin}`.
    fn audit(&self, limit: u32) -> SignerResult<'_, Value>;
    /// What it can do.
    fn abilities(&self) -> SignerResult<'_, Abilities>;
}

/// A key in a bunker, used over NIP-46.
pub trait RemoteSigner: Send + Sync + 'static {
    /// The key that signs.
    fn key(&self) -> PubKey;
    /// Signs exactly this event: what comes back is checked to be it.
    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event>;
    /// NIP-44 from this key to `peer`.
    fn encrypt(&self, peer: PubKey, plaintext: Zeroizing<String>) -> SignerResult<'_, String>;
    /// NIP-44 from `peer` to this key.
    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>>;
}

/// Why a key in a bunker cannot be used by the service.
pub type SetupError = Box<dyn std::error::Error + Send + Sync>;

/// What a bunker made of a request of a client whose end or rights are on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It signed.
    Signed,
    /// It said no, in these words.
    Refused(String),
}

/// A bunker that the service works with: its administration, and the operator keys that the service
/// itself may use in it.
pub trait Bunker: Send + Sync + 'static {
    /// The key that it authenticates with at relays.
    fn key(&self) -> PubKey;
    /// Its administration.
    fn admin(&self) -> &dyn BunkerAdmin;
    /// The keys that the service itself authenticates with to reach it.
    fn own_keys(&self) -> Vec<PubKey>;
    /// Makes our end's key for the operator key called `name`, if there is none; from then on it is
    /// one of the [`own_keys`](Self::own_keys), which a relay may have to know first.
    ///
    /// # Errors
    /// [`SetupError`].
    fn prepare(&self, name: &str) -> Result<(), SetupError>;
    /// Makes our end's key for the key called `name` anew; the one before is nobody's from then on.
    ///
    /// # Errors
    /// [`SetupError`].
    fn renew(&self, name: &str) -> Result<(), SetupError>;
    /// Asks the key `event.pubkey`, called `name`, to sign `event` for our end's key of that name,
    /// over a connection of its own that ends with the answer; where there is a `secret`, it is
    /// redeemed first.
    fn try_sign(
        &self,
        name: String,
        secret: Option<BunkerSecret>,
        event: UnsignedEvent,
    ) -> BoxFuture<'_, Result<Tried, SetupError>>;
    /// Makes the operator key called `name` in the bunker, if it is not there, and connects to it.
    /// May be run again after any interruption.
    fn provision(&self, name: String) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>>;
    /// Uses the operator key `key`, called `name`, again; asks the bunker nothing yet.
    fn reopen(
        &self,
        key: PubKey,
        name: String,
    ) -> BoxFuture<'_, Result<Arc<dyn RemoteSigner>, SetupError>>;
}
