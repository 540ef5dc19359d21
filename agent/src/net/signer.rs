//! The bunker, asked through relays: a thin shell around `shared::nip46::client`.
//!
//! Promise: each question is answered, or fails with a [`SignerError`], exactly once. While it
//! waits it is sent again, encrypted afresh, under its own id: relays need not keep these events
//! and may not have known us yet when it was first sent. Nothing that a customer waits for comes
//! here once a session is open.
//!
//! States: those of [`SignerState`], given out by [`Signer::state`].
//!
//! Failure policy: what cannot be decrypted or is no answer is counted and ends no wait.

use std::collections::HashMap;
use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{EventId, PubKey, to_hex};
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::nip46;
use bitspire_shared::nip46::client::{
    Action, Answer, Ask, AskError, CallError, Client, Config, SignerState,
};
use bitspire_shared::nip46::message::Plain;
use bitspire_shell::pool::Pool;
use bitspire_shell::secrets::{SecretError, random};
use nostr::{Event, EventBuilder, Filter, Keys, Kind as EventKind, Tag, Timestamp, UnsignedEvent};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, sleep_until};
use tokio_util::sync::CancellationToken;

use super::times::Times;
use super::{Timing, store};
use crate::ipc::{SecretText, ToVault};

/// Questions that may stand in line for the worker.
const QUEUE: usize = 64;
/// Name of the subscription to the bunker's replies.
pub(super) const SUBSCRIPTION: &str = "bunker";

/// Why the bunker gave nothing.
#[derive(Debug, Error)]
pub(super) enum SignerError {
    /// It did not answer, or said no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The question was not taken.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// No request can be made.
    #[error("the request to the bunker cannot be made")]
    Encrypt(#[from] Nip44Error),
    /// No random bytes.
    #[error("the request to the bunker cannot be made")]
    Random(#[from] SecretError),
    /// The connection is being taken down.
    #[error("the connection to the bunker is closed")]
    Closed,
}

impl Classified for SignerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Call(error) => error.kind(),
            Self::Ask(error) => error.kind(),
            Self::Encrypt(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::Closed => Kind::Transient,
        }
    }
}

/// The subscription to what the bunker answers to `client`.
pub(super) fn replies(signer: &PubKey, client: &PubKey) -> Filter {
    let kind = EventKind::from(nip46::KIND);
    Filter::new().kind(kind).author(signer.nostr()).pubkey(client.nostr())
}

type Answered = oneshot::Sender<Result<Answer, SignerError>>;

struct Question {
    /// `None` is `connect`.
    ask: Option<Ask>,
    answered: Answered,
}

/// Asks the bunker.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    questions: mpsc::Sender<Question>,
    state: watch::Receiver<SignerState>,
}

impl Signer {
    /// What is known of the bunker.
    pub(super) fn state(&self) -> watch::Receiver<SignerState> {
        self.state.clone()
    }

    /// Says hello, with the secret where the client was given one.
    pub(super) async fn connect(&self) -> Result<(), SignerError> {
        self.question(None).await.map(|_| ())
    }

    /// Asks, and waits for the checked answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, SignerError> {
        self.question(Some(ask)).await
    }

    /// `event`, signed by the spire key.
    pub(super) async fn sign(&self, event: UnsignedEvent) -> Result<Event, SignerError> {
        let ask = Ask::SignEvent(Box::new(event));
        let method = ask.method();
        match self.ask(ask).await? {
            Answer::Signed(event) => Ok(*event),
            _ => Err(CallError::Unexpected { method, expected: "a signed event" }.into()),
        }
    }

    /// `plaintext`, encrypted from the spire key to `peer`.
    pub(super) async fn encrypt(
        &self,
        peer: PubKey,
        plaintext: String,
    ) -> Result<String, SignerError> {
        let plaintext = Plain::new(plaintext);
        self.text(Ask::Nip44Encrypt { peer, plaintext }).await
    }

    /// What `peer` encrypted to the spire key.
    pub(super) async fn decrypt(
        &self,
        peer: PubKey,
        payload: String,
    ) -> Result<String, SignerError> {
        self.text(Ask::Nip44Decrypt { peer, payload }).await
    }

    async fn text(&self, ask: Ask) -> Result<String, SignerError> {
        let method = ask.method();
        match self.ask(ask).await? {
            Answer::Text(text) => Ok(text.expose().to_owned()),
            _ => Err(CallError::Unexpected { method, expected: "a text" }.into()),
        }
    }

    async fn question(&self, ask: Option<Ask>) -> Result<Answer, SignerError> {
        let (answered, answer) = oneshot::channel();
        let question = Question { ask, answered };
        self.questions.send(question).await.map_err(|_| SignerError::Closed)?;
        answer.await.map_err(|_| SignerError::Closed)?
    }
}

/// Does the asking.
pub(super) struct Worker {
    pool: Arc<Pool>,
    keys: Keys,
    signer: PubKey,
    conversation: ConversationKey,
    client: Client,
    times: Times,
    timing: Timing,
    waiting: HashMap<String, Answered>,
    questions: mpsc::Receiver<Question>,
    events: mpsc::Receiver<Event>,
    state: watch::Sender<SignerState>,
    to_vault: mpsc::Sender<ToVault>,
    ignored: u64,
}

/// A signer and the worker that has to run for it; `events` brings the verified events of the
/// bunker's kind.
pub(super) fn new(
    pool: Arc<Pool>,
    keys: Keys,
    config: Config,
    events: mpsc::Receiver<Event>,
    to_vault: mpsc::Sender<ToVault>,
    times: Times,
    timing: Timing,
) -> Result<(Signer, Worker), SignerError> {
    let (ask, questions) = mpsc::channel(QUEUE);
    let client = Client::new(config.clone());
    let (state, watched) = watch::channel(client.state());
    let worker = Worker {
        pool,
        conversation: ConversationKey::derive(keys.secret_key(), &config.signer)?,
        keys,
        signer: config.signer,
        client,
        times,
        timing,
        waiting: HashMap::new(),
        questions,
        events,
        state,
        to_vault,
        ignored: 0,
    };
    Ok((Signer { questions: ask, state: watched }, worker))
}

impl Worker {
    /// Works until `stop`, or until nobody can ask any more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut again = tokio::time::interval(Duration::from_millis(self.timing.resend_ms));
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.client.next_deadline().map(|at| self.times.instant(at));
            let waits = deadline.is_some();
            tokio::select! {
                () = stop.cancelled() => return,
                question = self.questions.recv() => match question {
                    Some(question) => {
                        // a full period before the first repetition
                        if !waits {
                            again.reset();
                        }
                        self.take(question).await;
                    }
                    None => return,
                },
                event = self.events.recv() => match event {
                    Some(event) => self.receive(&event).await,
                    None => return,
                },
                () = sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if waits => {
                    let actions = self.client.tick(self.times.mono());
                    self.perform(actions).await;
                }
                _ = again.tick(), if waits => {
                    let actions = self.client.reconnected();
                    self.perform(actions).await;
                }
            }
        }
    }

    async fn take(&mut self, Question { ask, answered }: Question) {
        let deadline = self.times.mono().after(self.timing.answer_ms);
        let asked = random::<16>().and_then(|id| Ok((to_hex(&id), to_hex(&random::<16>()?))));
        let asked = asked.map_err(SignerError::from).and_then(|(id, spare)| {
            let actions = match ask {
                Some(ask) => self.client.ask(&id, ask, deadline)?,
                None => self.client.connect(&id, &spare, deadline)?,
            };
            Ok((id, actions))
        });
        match asked {
            Ok((id, actions)) => {
                self.waiting.insert(id, answered);
                self.perform(actions).await;
            }
            // the one who asked may have gone
            Err(error) => drop(answered.send(Err(error))),
        }
    }

    async fn receive(&mut self, event: &Event) {
        let Ok(author) = PubKey::new(event.pubkey) else { return self.ignore("author") };
        let own = self.keys.public_key();
        if author != self.signer || event.tags.public_keys().all(|key| *key != own) {
            return self.ignore("not for us");
        }
        let id = EventId::from_bytes(event.id.to_bytes());
        match self.conversation.decrypt(&event.content) {
            Ok(plaintext) => {
                let plaintext = Plain::new(plaintext);
                let now = self.times.mono();
                let actions = self.client.receive(id, &author, plaintext.expose(), now);
                self.perform(actions).await;
            }
            Err(error) => {
                tracing::warn!(event = "bunker_reply_undecryptable", %error);
                self.ignore("does not decrypt");
            }
        }
    }

    async fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { id, json } => match self.sealed(&json) {
                    Ok(event) => {
                        if self.pool.send(&event).await > 0 {
                            self.client.published(&id);
                        }
                    }
                    Err(error) => tracing::error!(event = "bunker_request_not_made", %error),
                },
                Action::Resolve { id, result } => {
                    if let Some(answered) = self.waiting.remove(&id) {
                        // the one who asked may have gone
                        drop(answered.send(result.map_err(SignerError::from)));
                    }
                }
                Action::AuthUrl { url, .. } => {
                    tracing::warn!(event = "bunker_wants_a_person");
                    let url = SecretText::new(url.expose().to_owned());
                    if self.to_vault.try_send(ToVault::AuthUrl { url }).is_err() {
                        tracing::warn!(event = "to_vault_full");
                    }
                }
                Action::State(state) => {
                    tracing::info!(event = "bunker_state", state = state.as_str());
                    self.state.send_replace(state);
                }
                Action::Ignored(ignored) => self.ignore(&ignored.to_string()),
            }
        }
    }

    fn sealed(&self, json: &Plain) -> Result<Event, SignerError> {
        let content = self.conversation.encrypt(json.expose(), random::<32>()?)?;
        let event = EventBuilder::new(EventKind::from(nip46::KIND), content)
            .tag(Tag::public_key(self.signer.nostr()))
            .custom_created_at(Timestamp::from(self.times.unix().0));
        event.sign_with_keys(&self.keys).map_err(|_| SignerError::Closed)
    }

    fn ignore(&mut self, why: &str) {
        self.ignored = self.ignored.saturating_add(1);
        tracing::debug!(event = "bunker_reply_ignored", why, total = self.ignored);
    }
}

/// How long a bunker may wait for a person, in milliseconds.
pub(crate) const AUTH_WAIT_MS: u64 = 5 * 60_000;

/// What the client of a pairing is told: the secret only while pairing.
pub(super) fn config(
    pairing: &store::Pairing,
    secret: Option<bitspire_shared::seed::BunkerSecret>,
) -> Config {
    Config {
        signer: pairing.bunker.signer(),
        user: pairing.pins.spire,
        secret,
        perms: String::new(),
        auth_wait_ms: AUTH_WAIT_MS,
    }
}
