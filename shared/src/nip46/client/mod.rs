//! The asking end: who waits for what, and what the signer's silence means.
//!
//! Promise: each question that was taken is resolved exactly once: by the signer's answer, checked
//! against the question, by its deadline, or not at all after [`Client::cancel`]. A question keeps
//! its id when it is sent again after a reconnect. Output is a list of [`Action`]s; the shell
//! encrypts and publishes.
//!
//! `connect`: nsecbunkerd burns a secret at its first use and says `Token already redeemed` to a
//! second one: then it goes again without the secret. rust-nostr's signer wants the secret every
//! time and says `Secret not match` without it: then it goes again with it, if it is still in
//! memory. Either is tried once, under a second id, since other params under the first id would be
//! another question with the same name.
//!
//! States of the signer ([`SignerState`]): `Unknown -> Ready <-> Locked | Unavailable`, and
//! `Refused` until a `connect` succeeds. A question that a relay took, after which nothing at all
//! came from the signer, means `Locked`: a locked nsecbunkerd key does not answer. If no relay took
//! it, or others were answered meanwhile, it is `Unavailable`.
//!
//! Failure policy: what is not by the signer, came before, cannot be read or answers nothing that
//! was asked is an [`Action::Ignored`], to be counted; it never ends a wait.

mod answer;
mod codes;
mod connect;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use thiserror::Error;

use self::answer::Said;
pub use self::answer::{Answer, Ask, CallError};
use self::connect::{Connect, Next};
use super::message::{Method, Outcome, Plain, Response};
use super::seen::Seen;
use crate::error::{Classified, Kind};
use crate::ids::{EventId, PubKey};
use crate::seed::BunkerSecret;
use crate::time::Mono;

/// Questions that may wait at once.
const MAX_WAITERS: usize = 1_024;
/// Event ids that are remembered: each reply comes once from every relay.
const REMEMBERED: usize = 4_096;
/// Longest address that is shown to a person.
const MAX_AUTH_URL: usize = 2_048;
/// Longest part of a signer's text that is kept, in characters.
const MAX_QUOTE: usize = 200;

/// What is known of the signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignerState {
    /// Nothing was asked yet, or nothing came back yet.
    Unknown,
    /// It answers.
    Ready,
    /// Its relay takes requests and nobody answers: `unlock` the key.
    Locked,
    /// No relay takes requests, or it is slow.
    Unavailable,
    /// It does not let us in, or is another key's signer: pair again.
    Refused,
}

impl SignerState {
    /// The name in states, alerts and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "signer_unknown",
            Self::Ready => "signer_ready",
            Self::Locked => "signer_locked",
            Self::Unavailable => "signer_unavailable",
            Self::Refused => "signer_refused",
        }
    }

    /// What a person can do.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unknown => "wait for its first answer",
            Self::Ready => "nothing to do",
            Self::Locked => "unlock the key in the bunker, or start the bunker",
            Self::Unavailable => "check the bunker and its relays; this is tried again",
            Self::Refused => "pair again",
        }
    }
}

/// The connection to one signer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The key that signs the replies.
    pub signer: PubKey,
    /// The key that signs events; the signer's own with some bunkers, another with others.
    pub user: PubKey,
    /// Present while pairing, absent in later processes.
    pub secret: Option<BunkerSecret>,
    /// Permissions to ask for, as the NIP writes them; empty for none.
    pub perms: String,
    /// How long a question waits once a person has to open an address, in milliseconds.
    pub auth_wait_ms: u64,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Encrypt and publish this to the signer, then report [`Client::published`].
    Send {
        /// The request's id.
        id: String,
        /// Its text.
        json: Plain,
    },
    /// Give the answer to the one who asked under this id.
    Resolve {
        /// The id that the question was asked under.
        id: String,
        /// What came of it.
        result: Result<Answer, CallError>,
    },
    /// Show this address to a person; the question waits on.
    AuthUrl {
        /// The question's id.
        id: String,
        /// Where the person has to go. It may log in: not for logs.
        url: Plain,
    },
    /// The signer is in another state now.
    State(SignerState),
    /// Nothing; to be counted.
    Ignored(Ignored),
}

/// Why a message changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Ignored {
    /// By another key than the signer's.
    #[error("NIP-46: a reply by another key than the signer's")]
    Author,
    /// Handled before.
    #[error("NIP-46: this event was handled before")]
    Duplicate,
    /// Not a response.
    #[error("NIP-46: expected a response")]
    Malformed,
    /// To no question that waits.
    #[error("NIP-46: a reply to nothing that waits")]
    NoWaiter,
    /// An address that must not be shown.
    #[error("NIP-46: expected an http address for a person to open")]
    AuthUrl,
}

/// A question that was not taken.
#[derive(Debug, Error)]
pub enum AskError {
    /// The id waits already.
    #[error("request id {0} waits already: make a fresh one")]
    IdInUse(String),
    /// Too many at once.
    #[error("{MAX_WAITERS} requests wait for the signer already: try again later")]
    Full,
    /// An event of another author.
    #[error("expected an event by {expected}, got one by {got}")]
    ForeignEvent {
        /// The key of this signer.
        expected: PubKey,
        /// The event's author.
        got: String,
    },
    /// An event that is no JSON.
    #[error("the event cannot be written")]
    Json(#[source] serde_json::Error),
}

impl Classified for AskError {
    fn kind(&self) -> Kind {
        match self {
            Self::Full => Kind::Transient,
            Self::IdInUse(_) | Self::ForeignEvent { .. } | Self::Json(_) => Kind::Misuse,
        }
    }
}

/// A question on its way.
#[derive(Clone, Debug)]
struct Waiter {
    /// The id that it was asked under; its own key in the map is what the wire carries.
    asked_as: String,
    what: What,
    json: Plain,
    deadline: Mono,
    /// A relay took it, since it was last sent.
    published: bool,
    /// [`Client::heard`] when it was first sent.
    heard: u64,
    /// The last address that was shown for it.
    shown: Option<Plain>,
}

#[derive(Clone, Debug)]
enum What {
    Connect(Connect),
    Ask(Ask),
}

impl What {
    const fn method(&self) -> Method {
        match self {
            Self::Connect(_) => Method::Connect,
            Self::Ask(ask) => ask.method(),
        }
    }
}

/// What a client remembers between messages.
#[derive(Clone, Debug)]
pub struct Client {
    config: Config,
    state: SignerState,
    waiters: BTreeMap<String, Waiter>,
    seen: Seen,
    /// Messages by the signer so far.
    heard: u64,
    /// A `connect` with the secret succeeded: the next one goes without it.
    redeemed: bool,
}

impl Client {
    /// A client that has asked nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = SignerState::Unknown;
        let seen = Seen::new(REMEMBERED);
        Self { config, state, waiters: BTreeMap::new(), seen, heard: 0, redeemed: false }
    }

    /// What is known of the signer.
    #[must_use]
    pub const fn state(&self) -> SignerState {
        self.state
    }

    /// When [`tick`](Self::tick) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.waiters.values().map(|waiter| waiter.deadline).min()
    }

    /// Connects, under `id` and, for a second try, under `spare`. To be followed by
    /// [`Ask::GetPublicKey`].
    ///
    /// # Errors
    /// [`AskError`]: nothing is sent.
    pub fn connect(
        &mut self,
        id: &str,
        spare: &str,
        deadline: Mono,
    ) -> Result<Vec<Action>, AskError> {
        self.room(id)?;
        self.room(spare)?;
        if id == spare {
            return Err(AskError::IdInUse(id.to_owned()));
        }
        let with_secret = self.config.secret.is_some() && !self.redeemed;
        let connect = Connect { with_secret, spare: Some(spare.to_owned()), redeemed: false };
        Ok(vec![self.send_connect(id, id.to_owned(), connect, deadline)])
    }

    /// Asks under a fresh `id`.
    ///
    /// # Errors
    /// [`AskError`]: nothing is sent.
    pub fn ask(&mut self, id: &str, ask: Ask, deadline: Mono) -> Result<Vec<Action>, AskError> {
        self.room(id)?;
        if let Ask::SignEvent(event) = &ask
            && event.pubkey != self.config.user.nostr()
        {
            let (expected, got) = (self.config.user, event.pubkey.to_hex());
            return Err(AskError::ForeignEvent { expected, got });
        }
        let json = ask.request(id).map_err(AskError::Json)?.to_json();
        Ok(vec![self.wait(id, id.to_owned(), What::Ask(ask), json, deadline)])
    }

    /// Nobody waits for this question any more.
    pub fn cancel(&mut self, id: &str) {
        self.waiters.retain(|_, waiter| waiter.asked_as != id);
    }

    /// A relay took the request (NIP-01 `OK` with `true`).
    pub fn published(&mut self, id: &str) {
        if let Some(waiter) = self.waiters.get_mut(id) {
            waiter.published = true;
        }
    }

    /// The relays are back: everything that waits goes out again, under its own id.
    #[must_use]
    pub fn reconnected(&mut self) -> Vec<Action> {
        let send = |(id, waiter): (&String, &mut Waiter)| {
            waiter.published = false;
            Action::Send { id: id.clone(), json: waiter.json.clone() }
        };
        self.waiters.iter_mut().map(send).collect()
    }

    /// Ends the waits whose deadline has come.
    #[must_use]
    pub fn tick(&mut self, now: Mono) -> Vec<Action> {
        let mut actions = Vec::new();
        let due = self.waiters.iter().filter(|(_, waiter)| waiter.deadline <= now);
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(waiter) = self.waiters.remove(&id) else { continue };
            let silent = waiter.heard == self.heard;
            let used = matches!(waiter.what, What::Connect(Connect { redeemed: true, .. }));
            let state = match silent && waiter.published {
                _ if used => SignerState::Refused,
                true => SignerState::Locked,
                false => SignerState::Unavailable,
            };
            // one lost reply among others that came says nothing of the signer
            if used || (silent && self.state != SignerState::Refused) {
                self.enter(state, &mut actions);
            }
            let method = waiter.what.method();
            let error = CallError::NoReply { method, state };
            let result = Err(if used { CallError::AlreadyRedeemed } else { error });
            actions.push(Action::Resolve { id: waiter.asked_as, result });
        }
        actions
    }

    /// Takes the plaintext of an event of kind 24133 by `author`. The shell has verified the event:
    /// a forged copy must not burn the id of a real one.
    #[must_use]
    pub fn receive(
        &mut self,
        event: EventId,
        author: &PubKey,
        plaintext: &str,
        now: Mono,
    ) -> Vec<Action> {
        if *author != self.config.signer {
            return vec![Action::Ignored(Ignored::Author)];
        }
        if !self.seen.insert(event) {
            return vec![Action::Ignored(Ignored::Duplicate)];
        }
        let Ok(response) = Response::parse(plaintext) else {
            return vec![Action::Ignored(Ignored::Malformed)];
        };
        self.heard = self.heard.saturating_add(1);
        let mut actions = Vec::new();
        if self.state != SignerState::Refused {
            self.enter(SignerState::Ready, &mut actions);
        }
        let id = response.id.to_string();
        match (response.outcome(), self.waiters.remove(&id)) {
            (_, None) => actions.push(Action::Ignored(Ignored::NoWaiter)),
            (Outcome::AuthUrl(url), Some(waiter)) => self.show(id, url, waiter, now, &mut actions),
            (Outcome::Failed(words), Some(waiter)) => self.settle(waiter, Err(words), &mut actions),
            (Outcome::Done(result), Some(waiter)) => self.settle(waiter, Ok(result), &mut actions),
        }
        actions
    }

    fn room(&self, id: &str) -> Result<(), AskError> {
        let spare = |waiter: &Waiter| match &waiter.what {
            What::Connect(connect) => connect.spare.as_deref() == Some(id),
            What::Ask(_) => false,
        };
        if self.waiters.contains_key(id)
            || self.waiters.values().any(|waiter| waiter.asked_as == id || spare(waiter))
        {
            return Err(AskError::IdInUse(id.to_owned()));
        }
        if self.waiters.len() >= MAX_WAITERS { Err(AskError::Full) } else { Ok(()) }
    }

    fn enter(&mut self, state: SignerState, actions: &mut Vec<Action>) {
        if self.state != state {
            self.state = state;
            actions.push(Action::State(state));
        }
    }

    fn wait(
        &mut self,
        id: &str,
        asked_as: String,
        what: What,
        json: Plain,
        deadline: Mono,
    ) -> Action {
        let send = Action::Send { id: id.to_owned(), json: json.clone() };
        let (published, heard, shown) = (false, self.heard, None);
        let waiter = Waiter { asked_as, what, json, deadline, published, heard, shown };
        self.waiters.insert(id.to_owned(), waiter);
        send
    }

    fn send_connect(
        &mut self,
        id: &str,
        asked_as: String,
        connect: Connect,
        deadline: Mono,
    ) -> Action {
        let json = connect.request(id, &self.config).to_json();
        self.wait(id, asked_as, What::Connect(connect), json, deadline)
    }

    fn show(
        &mut self,
        id: String,
        url: Plain,
        mut waiter: Waiter,
        now: Mono,
        actions: &mut Vec<Action>,
    ) {
        waiter.deadline = waiter.deadline.max(now.after(self.config.auth_wait_ms));
        if !may_be_shown(url.expose()) {
            actions.push(Action::Ignored(Ignored::AuthUrl));
        } else if waiter.shown.as_ref() != Some(&url) {
            waiter.shown = Some(url.clone());
            actions.push(Action::AuthUrl { id: waiter.asked_as.clone(), url });
        }
        self.waiters.insert(id, waiter);
    }

    fn settle(&mut self, waiter: Waiter, said: Said, actions: &mut Vec<Action>) {
        let Waiter { asked_as, what, deadline, .. } = waiter;
        let result = match what {
            What::Ask(ask) => ask.check(said, &self.config.user),
            What::Connect(connect) => match connect.check(said, &self.config) {
                Ok(Next::Again(connect, spare)) => {
                    actions.push(self.send_connect(&spare, asked_as, connect, deadline));
                    return;
                }
                Ok(Next::Connected) => {
                    self.redeemed |= connect.with_secret || connect.redeemed;
                    self.enter(SignerState::Ready, actions);
                    Ok(Answer::Connected)
                }
                Err(error) => {
                    self.enter(SignerState::Refused, actions);
                    Err(error)
                }
            },
        };
        if matches!(result, Err(CallError::WrongUser { .. })) {
            self.enter(SignerState::Refused, actions);
        }
        let result = result.map_err(|error| error.quoted(|text| self.quote(text)));
        actions.push(Action::Resolve { id: asked_as, result });
    }

    /// A signer's text as it may be logged and shown.
    fn quote(&self, text: &str) -> String {
        let text = match &self.config.secret {
            Some(secret) => text.replace(secret.expose(), "(secret)"),
            None => text.to_owned(),
        };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTE).collect()
    }
}

fn may_be_shown(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.len() <= MAX_AUTH_URL
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}
