//! A double of nsecbunkerd: what it does on the wire, its traps included.
//!
//! It holds its state in memory and answers by hand-written JSON, with nothing of our own bunker in
//! it, so that an error of ours is not in both. [`Habits`] tells the versions apart.

mod keys;
mod methods;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bitspire_shared::ids::PubKey;
use bitspire_shell::pool::Pool;
use nostr::nips::{nip04, nip44};
use nostr::{Event, EventBuilder, Filter, Keys, Kind, PublicKey, Tag};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::world::public;

/// How a version behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// The kinds on which it takes administrators' requests.
    pub(crate) kinds: &'static [u16],
    /// Encryptions that it reads.
    pub(crate) nip44: bool,
    pub(crate) nip04: bool,
    /// Rules without a kind; otherwise they throw, and the policy stays as it is then.
    pub(crate) kindless_rules: bool,
    /// `add_policy_rule` and `revoke_token`.
    pub(crate) additions: bool,
    /// The methods `nip44_encrypt` and `nip44_decrypt`.
    pub(crate) nip44_methods: bool,
    pub(crate) pong: &'static str,
}

/// The first versions.
pub(crate) const UPSTREAM: Habits = Habits {
    kinds: &[24_134],
    nip44: false,
    nip04: true,
    kindless_rules: false,
    additions: false,
    nip44_methods: false,
    pong: "ok",
};

/// A fork that serves machines.
pub(crate) const FORK: Habits = Habits {
    kinds: &[24_134],
    nip44: true,
    nip04: true,
    kindless_rules: true,
    additions: true,
    nip44_methods: true,
    pong: "ok",
};

/// A fork that knows one kind alone, takes no rules without a kind but adds them.
pub(crate) const ODD_FORK: Habits =
    Habits { kinds: &[24_133], nip04: false, kindless_rules: false, pong: "pong", ..FORK };

#[derive(Debug)]
struct User {
    id: i64,
    key_name: String,
    client: String,
    name: String,
    revoked: bool,
    conditions: Vec<(String, Option<String>)>,
}

#[derive(Debug)]
struct Token {
    id: i64,
    key_name: String,
    client_name: String,
    secret: String,
    policy: i64,
    redeemed: bool,
    revoked: bool,
}

#[derive(Debug)]
struct Policy {
    id: i64,
    name: String,
    rules: Vec<(String, Option<String>)>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// With their passphrases; what is on its disk.
    keys: HashMap<String, (Keys, String)>,
    /// Names; in memory alone.
    open: Vec<String>,
    /// How often a key was started: more than once answers twice.
    pub(crate) responders: HashMap<String, u32>,
    users: Vec<User>,
    tokens: Vec<Token>,
    policies: Vec<Policy>,
    /// Every method that an administrator asked for.
    pub(crate) asked: Vec<String>,
    /// This call is carried out, and its reply lost.
    pub(crate) lose_reply: Option<&'static str>,
    /// Keys whose profile it has told the world.
    pub(crate) published: Vec<String>,
}

/// The running bunker.
pub(crate) struct Nsecbunkerd {
    pub(crate) id: PubKey,
    keys: Keys,
    admin: PubKey,
    habits: Habits,
    relays: Vec<String>,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Nsecbunkerd {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Nsecbunkerd {
    pub(crate) async fn start(habits: Habits, admin: PubKey, relays: &[String]) -> Self {
        let keys = Keys::generate();
        let mut bunker = Self {
            id: public(&keys),
            keys,
            admin,
            habits,
            relays: relays.to_vec(),
            state: Arc::default(),
            task: None,
        };
        bunker.run().await;
        bunker
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// All keys are locked afterwards.
    pub(crate) async fn restart(&mut self) {
        self.task.take().unwrap().abort();
        {
            let mut state = self.state();
            state.open.clear();
            state.responders.clear();
        }
        self.run().await;
    }

    async fn run(&mut self) {
        let pool = Pool::connect(self.keys.clone(), &self.relays, Arc::new(|_: &str| true));
        let pool = pool.await.unwrap();
        let kinds = [24_133, 24_134].map(Kind::from);
        pool.subscribe("all", Filter::new().kinds(kinds).limit(0)).await;
        let wire = Wire { keys: self.keys.clone(), admin: self.admin, habits: self.habits };
        let state = self.state.clone();
        self.task = Some(tokio::spawn(async move {
            while let Some(event) = pool.next().await {
                let replies = wire.hear(&mut state.lock().unwrap(), &event);
                for reply in replies {
                    pool.send(&reply).await;
                }
            }
        }));
    }
}

struct Wire {
    keys: Keys,
    admin: PubKey,
    habits: Habits,
}

fn opened(keys: &Keys, event: &Event) -> Option<String> {
    let (secret, from) = (keys.secret_key(), &event.pubkey);
    match event.content.contains("?iv=") {
        true => nip04::decrypt(secret, from, &event.content).ok(),
        false => nip44::decrypt(secret, from, &event.content).ok(),
    }
}

/// In the request's encryption.
fn sealed(keys: &Keys, to: &Event, kind: u16, text: &Value) -> Event {
    letter(keys, &to.pubkey, to.content.contains("?iv="), kind, text)
}

fn letter(keys: &Keys, peer: &PublicKey, legacy: bool, kind: u16, text: &Value) -> Event {
    let (secret, text) = (keys.secret_key(), text.to_string());
    let content = match legacy {
        true => nip04::encrypt(secret, peer, text).unwrap(),
        false => nip44::encrypt(secret, peer, text, nip44::Version::V2).unwrap(),
    };
    let event = EventBuilder::new(Kind::from(kind), content).tag(Tag::public_key(*peer));
    event.sign_with_keys(keys).unwrap()
}

fn text(params: &Value, at: usize) -> &str {
    params[at].as_str().unwrap_or_default()
}

impl Wire {
    fn hear(&self, state: &mut State, event: &Event) -> Vec<Event> {
        let to: Vec<_> = event.tags.public_keys().copied().collect();
        let legacy = event.content.contains("?iv=");
        if (legacy && !self.habits.nip04) || (!legacy && !self.habits.nip44) {
            return vec![];
        }
        if to.contains(&self.keys.public_key()) {
            let ours = self.habits.kinds.contains(&event.kind.as_u16());
            return if ours { self.administer(state, event) } else { vec![] };
        }
        // a locked key hears nothing
        let named = state.open.iter().find(|name| to.contains(&state.keys[*name].0.public_key()));
        let Some(name) = named.cloned() else { return vec![] };
        let responders = state.responders[&name];
        (0..responders).flat_map(|_| self.sign(state, &name, event)).collect()
    }

    fn administer(&self, state: &mut State, event: &Event) -> Vec<Event> {
        let Some(request) = opened(&self.keys, event) else { return vec![] };
        let request: Value = serde_json::from_str(&request).unwrap();
        let (id, method) = (&request["id"], request["method"].as_str().unwrap_or_default());
        let error = |why: &str| {
            // successes go out on 24134, errors on 24133
            sealed(&self.keys, event, 24_133, &json!({"id": id, "result": "error", "error": why}))
        };
        if event.pubkey != self.admin.nostr() {
            return vec![error("You are not designated to administrate this bunker")];
        }
        state.asked.push(method.to_owned());
        let result = self.call(state, method, &request["params"]);
        if state.lose_reply.take_if(|lost| *lost == method).is_some() {
            return vec![];
        }
        let kind = self.habits.kinds[0];
        match result {
            Ok(result) => {
                let result = match result {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                vec![sealed(&self.keys, event, kind, &json!({"id": id, "result": result}))]
            }
            Err(why) => vec![error(&why)],
        }
    }
}
