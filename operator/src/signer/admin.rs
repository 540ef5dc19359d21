//! A bunker's administration over Nostr: nsecbunkerd's RPC (kind 24134), NIP-44.
//!
//! Promise: a call that changes something is sent once, in one encoding, and only after the bunker
//! has just answered a `ping`; it is never repeated from here. Calls that only read, and `ping`, are
//! sent again every two seconds until they are answered. The first reply to an id counts.
//!
//! Replies are taken on kinds 24134 and 24133, since some bunkers answer errors on the latter. A
//! bunker that speaks NIP-04 alone does not answer: nothing mutating reaches it either.
//!
//! Failure policy: [`SignerError`]; without a reply the effect of a call is unknown and is to be
//! looked up by the caller ([`BunkerAdmin::keys`] and the like) before it is asked for again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::message::{MessageId, Outcome, Plain, Response};
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use nostr::Keys;
use nostr::nips::nip19::ToBech32 as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::link::{Link, LinkError, fresh_id};
use super::{
    ADMIN_KIND, BunkerAdmin, BunkerKey, BunkerPolicy, BunkerRule, BunkerToken, BunkerUser,
    CALL_TIMEOUT, SignerError, SignerResult, iso,
};

/// Time between two sendings of what may be repeated.
const AGAIN: Duration = Duration::from_secs(2);
/// Time between two tries while no relay is connected.
const NO_RELAY: Duration = Duration::from_millis(200);
/// Longest part of a bunker's text that is kept, in characters.
const MAX_QUOTE: usize = 200;

/// Where a bunker is administered, and by whom.
#[derive(Clone)]
pub struct AdminConfig {
    /// The bunker's own public key.
    pub bunker: PubKey,
    /// Where it is reached.
    pub relays: Vec<String>,
    /// The admin key; the bunker has to know it.
    pub admin: Keys,
    /// How long a call may take; [`CALL_TIMEOUT`] but in tests.
    pub timeout: Duration,
}

impl std::fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminConfig")
            .field("bunker", &self.bunker)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

impl AdminConfig {
    /// The usual time limit.
    #[must_use]
    pub const fn new(bunker: PubKey, relays: Vec<String>, admin: Keys) -> Self {
        Self { bunker, relays, admin, timeout: CALL_TIMEOUT }
    }
}

/// The administration. Clones share the connection.
#[derive(Clone)]
pub struct AdminClient(Arc<Inner>);

struct Inner {
    link: Link,
    timeout: Duration,
    waiting: Mutex<HashMap<String, oneshot::Sender<Response>>>,
}

/// Whether a call may be sent more than once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It reads.
    Reads,
    /// It changes something.
    Changes,
}

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
        let AdminConfig { bunker, relays, admin, timeout } = config;
        let link = Link::open(admin, bunker, &relays, &[ADMIN_KIND, KIND], clock).await?;
        let inner = Arc::new(Inner { link, timeout, waiting: Mutex::default() });
        let reading = Arc::clone(&inner);
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reading.read() => {}
            }
            reading.link.close().await;
        });
        Ok(Self(inner))
    }

    async fn call(
        &self,
        effect: Effect,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Zeroizing<String>, SignerError> {
        if effect == Effect::Changes {
            // a relay that is just connecting, or asks for authentication, may lose what is sent
            self.0.exchange(Effect::Reads, "ping", vec![]).await?;
        }
        self.0.exchange(effect, method, params).await
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
        #[derive(Deserialize)]
        struct Wire {
            name: String,
            #[serde(default)]
            npub: Option<String>,
        }
        let (method, expected) = ("get_keys", "a list of keys");
        let (mut keys, mut names) = (Vec::new(), HashSet::new());
        loop {
            // ours answers in pages; a bunker that ignores the param brings nothing new
            let skip = vec![keys.len().into()];
            let page: Vec<Wire> = self.read(method, skip, expected).await?;
            let before = keys.len();
            for Wire { name, npub } in page {
                let key = npub.as_deref().map(PubKey::from_hex_or_npub).transpose();
                let key = key.map_err(|_| SignerError::Unexpected { method, expected })?;
                if names.insert(name.clone()) {
                    keys.push(BunkerKey { name, key });
                }
            }
            if keys.len() == before {
                return Ok(keys);
            }
        }
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Response>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) {
        while let Some((_, text)) = self.link.next().await {
            let Ok(response) = Response::parse(text.expose()) else { continue };
            let MessageId::Text(id) = &response.id else { continue };
            if let Some(waiter) = self.waiting().remove(id) {
                // whoever waited may have gone
                let _ = waiter.send(response);
            }
        }
    }

    async fn exchange(
        &self,
        effect: Effect,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Zeroizing<String>, SignerError> {
        let refused = |reason: String| SignerError::Refused { method, reason };
        let id = fresh_id().map_err(|error| refused(error.to_string()))?;
        let request = json!({"id": id, "method": method, "params": params});
        let request = Plain::new(request.to_string());
        let (waiter, mut reply) = oneshot::channel();
        self.waiting().insert(id.clone(), waiter);
        let got = self.send_until(effect, &request, &mut reply).await;
        self.waiting().remove(&id);
        match got.map_err(|error| refused(error.to_string()))? {
            Got::Reply(response) => result(method, response),
            Got::NotSent => Err(SignerError::NotSent { method }),
            Got::Nothing => Err(SignerError::NoReply { method, seconds: self.timeout.as_secs() }),
        }
    }

    async fn send_until(
        &self,
        effect: Effect,
        text: &Plain,
        reply: &mut oneshot::Receiver<Response>,
    ) -> Result<Got, LinkError> {
        let end = Instant::now() + self.timeout;
        let mut sent = false;
        while Instant::now() < end {
            // what no relay was handed had no effect: that much may be repeated
            if !sent || effect == Effect::Reads {
                sent |= self.link.send(ADMIN_KIND, text).await? > 0;
            }
            let pause = if sent { AGAIN } else { NO_RELAY };
            if let Ok(got) = timeout_at((Instant::now() + pause).min(end), &mut *reply).await {
                return Ok(got.map_or(Got::Nothing, Got::Reply));
            }
        }
        Ok(if sent { Got::Nothing } else { Got::NotSent })
    }
}

enum Got {
    Reply(Response),
    NotSent,
    Nothing,
}

/// A bunker's text as it may be logged and shown.
fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTE).collect()
}

fn result(method: &'static str, response: Response) -> Result<Zeroizing<String>, SignerError> {
    match response.outcome() {
        Outcome::Failed(text) => Err(SignerError::Refused { method, reason: quote(text.expose()) }),
        Outcome::Done(Some(text)) => {
            // nsecbunkerd says so of methods that it does not have
            if let Ok((word, reason)) = serde_json::from_str::<(String, String)>(text.expose())
                && word == "error"
            {
                return Err(SignerError::Refused { method, reason: quote(&reason) });
            }
            Ok(Zeroizing::new(text.expose().to_owned()))
        }
        Outcome::Done(None) | Outcome::AuthUrl(_) => {
            Err(SignerError::Unexpected { method, expected: "a result" })
        }
    }
}

/// A time as ISO text or in seconds.
fn time(value: &Value) -> Option<Unix> {
    value.as_str().and_then(iso::parse).or_else(|| value.as_u64().map(Unix))
}

/// A number as a number or as text.
fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}

#[derive(Deserialize)]
struct WireUser {
    id: Value,
    pubkey: PubKey,
    #[serde(default, rename = "revokedAt")]
    revoked_at: Value,
}

#[derive(Deserialize)]
struct WirePolicy {
    id: i64,
    name: String,
    #[serde(default)]
    rules: Vec<WireRule>,
}

#[derive(Deserialize)]
struct WireRule {
    method: String,
    #[serde(default)]
    kind: Value,
}

#[derive(Deserialize)]
struct WireToken {
    id: i64,
    #[serde(default)]
    client_name: String,
    #[serde(default)]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    expires_at: Value,
    #[serde(default)]
    redeemed_at: Value,
}

impl WireToken {
    /// The secret is what stands behind `#`.
    fn checked(self) -> Option<BunkerToken> {
        let secret = match self.token.as_deref() {
            None => None,
            Some(text) => {
                let (_, secret) = text.split_once('#')?;
                Some(BunkerSecret::new(secret).ok()?)
            }
        };
        let known = |value: &Value| value.is_null() || time(value).is_some();
        if !known(&self.expires_at) || !known(&self.redeemed_at) {
            return None;
        }
        Some(BunkerToken {
            id: self.id,
            client_name: self.client_name,
            secret,
            expires_at: time(&self.expires_at),
            redeemed_at: time(&self.redeemed_at),
        })
    }
}

impl BunkerAdmin for AdminClient {
    fn ping(&self) -> SignerResult<'_, ()> {
        Box::pin(async move { self.call(Effect::Reads, "ping", vec![]).await.map(|_| ()) })
    }

    fn keys(&self) -> SignerResult<'_, Vec<BunkerKey>> {
        Box::pin(self.all_keys())
    }

    fn create_key(&self, name: String, key: Keys) -> SignerResult<'_, PubKey> {
        Box::pin(async move {
            #[derive(Deserialize)]
            struct Wire {
                npub: String,
            }
            let (method, expected) = ("create_new_key", "the key's npub");
            let unexpected = SignerError::Unexpected { method, expected };
            let nsec = key.secret_key().to_bech32().map_err(|_| unexpected.clone())?;
            let text = self
                .call(Effect::Changes, method, vec![name.into(), "".into(), nsec.into()])
                .await?;
            let wire: Wire = serde_json::from_str(&text).map_err(|_| unexpected.clone())?;
            let got = PubKey::from_hex_or_npub(&wire.npub).map_err(|_| unexpected.clone())?;
            if got.nostr() == key.public_key() { Ok(got) } else { Err(unexpected) }
        })
    }

    fn users(&self, key_name: String) -> SignerResult<'_, Vec<BunkerUser>> {
        Box::pin(async move {
            let (method, expected) = ("get_key_users", "a list of users");
            let users: Vec<WireUser> = self.read(method, vec![key_name.into()], expected).await?;
            let users = users.into_iter().map(|user| {
                let revoked_at = time(&user.revoked_at);
                // a time that cannot be read must not make a revoked client a live one
                if !user.revoked_at.is_null() && revoked_at.is_none() {
                    return None;
                }
                Some(BunkerUser { id: text_of(&user.id)?, key: user.pubkey, revoked_at })
            });
            users.collect::<Option<_>>().ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn revoke_user(&self, id: String) -> SignerResult<'_, ()> {
        Box::pin(self.change("revoke_user", vec![id.into()]))
    }

    fn policies(&self) -> SignerResult<'_, Vec<BunkerPolicy>> {
        Box::pin(async move {
            let (method, expected) = ("get_policies", "a list of policies");
            let policies: Vec<WirePolicy> = self.read(method, vec![], expected).await?;
            let rule = |rule: WireRule| {
                let kind = match text_of(&rule.kind).filter(|kind| kind != "all") {
                    Some(kind) => Some(kind.parse().ok()?),
                    None => None,
                };
                Some(BunkerRule { method: rule.method, kind })
            };
            let policy = |policy: WirePolicy| {
                let rules = policy.rules.into_iter().map(rule).collect::<Option<_>>()?;
                Some(BunkerPolicy { id: policy.id, name: policy.name, rules })
            };
            let policies = policies.into_iter().map(policy).collect::<Option<_>>();
            policies.ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn create_policy(&self, name: String, rules: Vec<BunkerRule>) -> SignerResult<'_, ()> {
        let policy = json!({"name": name, "rules": rules});
        Box::pin(self.change("create_new_policy", vec![policy.to_string().into()]))
    }

    fn create_token(
        &self,
        key_name: String,
        client_name: String,
        policy_id: i64,
        hours: u32,
    ) -> SignerResult<'_, ()> {
        let params = vec![key_name.into(), client_name.into(), policy_id.into(), hours.into()];
        Box::pin(self.change("create_new_token", params))
    }

    fn tokens(&self, key_name: String) -> SignerResult<'_, Vec<BunkerToken>> {
        Box::pin(async move {
            let (method, expected) = ("get_key_tokens", "a list of tokens");
            let tokens: Vec<WireToken> = self.read(method, vec![key_name.into()], expected).await?;
            let tokens = tokens.into_iter().map(WireToken::checked).collect::<Option<_>>();
            tokens.ok_or(SignerError::Unexpected { method, expected })
        })
    }

    fn revoke_token(&self, id: i64) -> SignerResult<'_, ()> {
        Box::pin(self.change("revoke_token", vec![json!({"tokenId": id}).to_string().into()]))
    }
}
