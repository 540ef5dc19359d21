//! A key in a bunker, used over NIP-46.
//!
//! Promise: what comes back is what was asked for (the pure client checks it), each call ends by its
//! deadline, and a question goes out again under the same id every two seconds and after a reconnect
//! until it is answered: a lost message costs seconds, and a bunker counts it once.
//!
//! States: those of [`SignerState`]. Failure policy: [`SignerError`]; a bunker that gives no reply is
//! locked or down, a signature that did not come has no effect and may be asked for again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::client::{
    Action, Answer, Ask, AskError, CallError, Client, Config, SignerState,
};
use bitspire_shared::nip46::message::{Method, Plain};
use bitspire_shared::seed::BunkerSecret;
use bitspire_shared::time::Mono;
use bitspire_shell::checked;
use bitspire_shell::clock::Clock;
use nostr::{Event, Keys, UnsignedEvent};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::cipher::Encryption;
use super::link::{Link, LinkError, fresh_id};
use super::{CALL_TIMEOUT, RemoteSigner, SignerError, SignerResult};

/// Time between two sendings of a question.
const AGAIN: Duration = Duration::from_secs(2);
/// Time between two looks at deadlines and connections, while something waits.
const TICK: Duration = Duration::from_millis(200);
/// How long a call waits once a person has to open an address, in milliseconds.
const AUTH_WAIT_MS: u64 = 120_000;

/// Where a key is used.
#[derive(Clone)]
pub struct RemoteConfig {
    /// The key that signs events.
    pub key: PubKey,
    /// The key that requests go to: with our own bunker the same one.
    pub signer: PubKey,
    /// Where the bunker is reached.
    pub relays: Vec<String>,
    /// Our end's key.
    pub client: Keys,
    /// For the first [`Remote::connect`] alone.
    pub secret: Option<BunkerSecret>,
    /// How long a call may take; [`CALL_TIMEOUT`] but in tests.
    pub timeout: Duration,
}

impl std::fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("key", &self.key)
            .field("signer", &self.signer)
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

impl RemoteConfig {
    /// A key of our own bunker, which answers in the key's own name.
    #[must_use]
    pub const fn new(key: PubKey, relays: Vec<String>, client: Keys) -> Self {
        Self { key, signer: key, relays, client, secret: None, timeout: CALL_TIMEOUT }
    }
}

/// The signer. Clones share the connection.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

struct Inner {
    key: PubKey,
    link: Link,
    timeout: Duration,
    client: Mutex<Client>,
    waiting: Mutex<HashMap<String, Waiter>>,
    auth_url: Mutex<Option<Plain>>,
    started: Instant,
}

struct Waiter {
    reply: oneshot::Sender<Resolved>,
    sent: bool,
}

struct Resolved {
    result: Result<Answer, CallError>,
    /// Whether any relay was handed the question.
    sent: bool,
}

impl Remote {
    /// Begins; asks nothing yet. Its tasks are `tasks`' and end with `stop`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn start(
        config: RemoteConfig,
        clock: Clock,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, LinkError> {
        let RemoteConfig { key, signer, relays, client, secret, timeout } = config;
        let link = Link::open(client, signer, &relays, &[KIND], clock).await?;
        let config =
            Config { signer, user: key, secret, perms: String::new(), auth_wait_ms: AUTH_WAIT_MS };
        let inner = Arc::new(Inner {
            key,
            link,
            timeout,
            client: Mutex::new(Client::new(config)),
            waiting: Mutex::default(),
            auth_url: Mutex::default(),
            started: Instant::now(),
        });
        let (reading, ticking, stopped) = (Arc::clone(&inner), Arc::clone(&inner), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = reading.read(signer) => {}
            }
            reading.link.close().await;
        });
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = ticking.tick() => {}
            }
        });
        Ok(Self(inner))
    }

    /// Connects, with the secret if there is one, and checks that the signer holds the key.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn connect(&self) -> Result<(), SignerError> {
        let ids = fresh_id().and_then(|id| Ok((id, fresh_id()?)));
        let (id, spare) = ids.map_err(|error| refused(Method::Connect, error.to_string()))?;
        let end = self.0.deadline();
        let ask = |client: &mut Client| client.connect(&id, &spare, end);
        self.0.exchange(&id, Method::Connect, ask).await?;
        self.0.ask(Ask::GetPublicKey).await.map(|_| ())
    }

    /// What is known of the signer.
    #[must_use]
    pub fn state(&self) -> SignerState {
        self.0.client().state()
    }

    /// The address that the signer asked a person to open last. It may log in: to be shown to the
    /// operator, never to be logged.
    #[must_use]
    pub fn auth_url(&self) -> Option<Plain> {
        self.0.auth_url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn refused(method: Method, reason: String) -> SignerError {
    SignerError::Refused { method: method.as_str(), reason }
}

impl Inner {
    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn deadline(&self) -> Mono {
        self.mono().after(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX))
    }

    async fn read(&self, signer: PubKey) {
        while let Some((event, text)) = self.link.next().await {
            let now = self.mono();
            let actions = self.client().receive(event, &signer, text.expose(), now);
            self.perform(actions).await;
        }
    }

    async fn tick(&self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent_at, mut connected) = (Instant::now(), 0);
        loop {
            ticks.tick().await;
            let now = self.mono();
            let due = self.client().tick(now);
            self.perform(due).await;
            let relays = self.link.connected().await;
            let reconnected = relays > connected;
            connected = relays;
            if reconnected || sent_at.elapsed() >= AGAIN {
                sent_at = Instant::now();
                let again = self.client().reconnected();
                self.perform(again).await;
            }
        }
    }

    async fn perform(&self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { id, json } => {
                    match self.link.send(KIND, Encryption::Nip44, &json).await {
                        Ok(0) => {}
                        Ok(_) => {
                            self.client().published(&id);
                            if let Some(waiter) = self.waiting().get_mut(&id) {
                                waiter.sent = true;
                            }
                        }
                        Err(error) => tracing::error!(event = "signer_request_not_made", %error),
                    }
                }
                Action::Resolve { id, result } => {
                    if let Some(waiter) = self.waiting().remove(&id) {
                        // whoever asked may have gone
                        let _ = waiter.reply.send(Resolved { result, sent: waiter.sent });
                    }
                }
                Action::AuthUrl { url, .. } => {
                    tracing::warn!(event = "signer_asks_a_person", key = %self.key);
                    *self.auth_url.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
                }
                Action::State(state) => tracing::info!(
                    event = "signer_state", key = %self.key, state = state.as_str(),
                    advice = state.advice()
                ),
                Action::Ignored(why) => tracing::debug!(event = "signer_message_ignored", %why),
            }
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, SignerError> {
        let method = ask.method();
        let id = fresh_id().map_err(|error| refused(method, error.to_string()))?;
        let end = self.deadline();
        self.exchange(&id, method, |client| client.ask(&id, ask, end)).await
    }

    async fn exchange(
        &self,
        id: &str,
        method: Method,
        ask: impl FnOnce(&mut Client) -> Result<Vec<Action>, AskError>,
    ) -> Result<Answer, SignerError> {
        let (reply, answer) = oneshot::channel();
        self.waiting().insert(id.to_owned(), Waiter { reply, sent: false });
        let asked = ask(&mut self.client());
        let actions = asked.map_err(|error| {
            self.waiting().remove(id);
            match error {
                AskError::Full => SignerError::NotSent { method: method.as_str() },
                other => refused(method, other.to_string()),
            }
        })?;
        self.perform(actions).await;
        let (name, seconds) = (method.as_str(), self.timeout.as_secs());
        let no_reply = SignerError::NoReply { method: name, seconds };
        let Ok(Resolved { result, sent }) = answer.await else { return Err(no_reply) };
        result.map_err(|error| match error {
            CallError::NoReply { .. } if !sent => SignerError::NotSent { method: name },
            CallError::NoReply { .. } => no_reply,
            error => said(method, &error, self.key),
        })
    }
}

/// What the answer of the signer of `key` comes to, in the service's words: there is no seed here.
fn said(method: Method, error: &CallError, key: PubKey) -> SignerError {
    let lied = |what: String| SignerError::Lied { method: method.as_str(), what };
    let refused = |reason: &str| refused(method, reason.to_owned());
    let error = match error {
        CallError::Unexpected { expected, .. } => unexpected(method, expected),
        CallError::WrongUser { expected, got } => {
            lied(format!("expected a signer for {expected}, got one for {got}"))
        }
        CallError::OtherEvent { .. } | CallError::BadSignature => lied(error.to_string()),
        CallError::AlreadyRedeemed => refused(
            "another client has used the token that was made for this service: see who it is \
             (`bunker users`), then try again with a new token",
        ),
        CallError::WrongSecret | CallError::SecretNeeded => {
            refused("it does not know the token that was made for this service: try again")
        }
        other => refused(&other.to_string()),
    };
    if error.is_lie() {
        tracing::error!(event = "bunker_lied", code = error.code(), %key, %error);
    }
    error
}

/// An answer of another kind than the question's; the pure client does not give one.
const fn unexpected(method: Method, expected: &'static str) -> SignerError {
    SignerError::Unexpected { method: method.as_str(), expected }
}

impl RemoteSigner for Remote {
    fn key(&self) -> PubKey {
        self.0.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        Box::pin(async move {
            match self.0.ask(Ask::SignEvent(Box::new(event))).await? {
                Answer::Signed(event) => {
                    checked::is_known(&event);
                    Ok(*event)
                }
                _ => Err(unexpected(Method::SignEvent, "a signed event")),
            }
        })
    }

    fn encrypt(&self, peer: PubKey, plaintext: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async move {
            let plaintext = Plain::new(plaintext.as_str().to_owned());
            match self.0.ask(Ask::Nip44Encrypt { peer, plaintext }).await? {
                Answer::Text(text) => Ok(text.expose().to_owned()),
                _ => Err(unexpected(Method::Nip44Encrypt, "a payload")),
            }
        })
    }

    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>> {
        Box::pin(async move {
            match self.0.ask(Ask::Nip44Decrypt { peer, payload }).await? {
                Answer::Text(text) => Ok(Zeroizing::new(text.expose().to_owned())),
                _ => Err(unexpected(Method::Nip44Decrypt, "a text")),
            }
        })
    }
}
