//! What nsecbunkerd says on the wire, its traps included.
//!
//! It answers by hand-written JSON, with nothing of our own bunker in it, so that an error of ours is
//! not in both. [`Habits`] tells the versions apart. Two homes share it: the bunker's own tests, and
//! the process that serves a whole world.

mod keys;
mod methods;

use std::collections::BTreeMap;

use bitspire_shared::ids::PubKey;
use bitspire_shared::time::Unix;
use nostr::nips::{nip04, nip44};
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a version behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// The kinds on which it takes administrators' requests.
    pub kinds: &'static [u16],
    /// Whether it reads NIP-44.
    pub nip44: bool,
    /// Whether it reads NIP-04.
    pub nip04: bool,
    /// Rules without a kind; otherwise they throw, and the policy stays as it is then.
    pub kindless_rules: bool,
    /// `add_policy_rule` and `revoke_token`.
    pub additions: bool,
    /// The methods `nip44_encrypt` and `nip44_decrypt`.
    pub nip44_methods: bool,
    /// What it answers a `ping` of its administrators.
    pub pong: &'static str,
}

/// The first versions.
pub const UPSTREAM: Habits = Habits {
    kinds: &[24_134],
    nip44: false,
    nip04: true,
    kindless_rules: false,
    additions: false,
    nip44_methods: false,
    pong: "ok",
};

/// A fork that serves machines.
pub const FORK: Habits = Habits {
    kinds: &[24_134],
    nip44: true,
    nip04: true,
    kindless_rules: true,
    additions: true,
    nip44_methods: true,
    pong: "ok",
};

/// A fork that knows one kind alone, takes no rules without a kind but adds them.
pub const ODD_FORK: Habits =
    Habits { kinds: &[24_133], nip04: false, kindless_rules: false, pong: "pong", ..FORK };

/// A client of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct User {
    id: i64,
    key_name: String,
    client: String,
    name: String,
    revoked: bool,
    conditions: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    id: i64,
    key_name: String,
    client_name: String,
    secret: String,
    policy: i64,
    /// When it can no longer be redeemed, by the bunker's clock.
    ends: Option<Unix>,
    redeemed: bool,
    revoked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Policy {
    id: i64,
    name: String,
    rules: Vec<(String, Option<String>)>,
}

/// A key as it lies on the disk; the real one encrypts it with the passphrase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    secret: String,
    passphrase: String,
}

impl Held {
    fn keys(&self) -> Keys {
        Keys::parse(&self.secret).unwrap()
    }
}

/// What it knows. What is skipped it forgets when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    keys: BTreeMap<String, Held>,
    /// Names; in memory alone.
    #[serde(skip)]
    open: Vec<String>,
    /// How often a key was started: more than once answers twice.
    #[serde(skip)]
    pub responders: BTreeMap<String, u32>,
    users: Vec<User>,
    tokens: Vec<Token>,
    policies: Vec<Policy>,
    /// Every method that an administrator asked for.
    #[serde(skip)]
    pub asked: Vec<String>,
    /// This call is carried out, and its reply lost.
    #[serde(skip)]
    pub lose_reply: Option<&'static str>,
    /// Keys whose profile it has told the world.
    pub published: Vec<String>,
    /// Its administrators' events, as a relay has them that keeps what it should not.
    #[serde(skip)]
    kept: Vec<Event>,
}

impl State {
    /// All keys are locked, as after each start.
    pub fn lock(&mut self) {
        self.open.clear();
        self.responders.clear();
    }

    /// What a relay that has kept its administrators' events brings after a start, the newest first.
    pub fn replayed(&mut self) -> Vec<Event> {
        let mut kept = std::mem::take(&mut self.kept);
        kept.reverse();
        kept
    }
}

/// Its own key, its administrator, its version.
#[derive(Clone, Debug)]
pub struct Wire {
    /// What it answers its administrators with.
    pub keys: Keys,
    /// Who may administer it.
    pub admin: PubKey,
    /// Its version.
    pub habits: Habits,
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
    /// What it says to an event that comes at `now`, in this order.
    pub fn hear(&self, state: &mut State, event: &Event, now: Unix) -> Vec<Event> {
        let to: Vec<_> = event.tags.public_keys().copied().collect();
        let legacy = event.content.contains("?iv=");
        if (legacy && !self.habits.nip04) || (!legacy && !self.habits.nip44) {
            return vec![];
        }
        if to.contains(&self.keys.public_key()) {
            let ours = self.habits.kinds.contains(&event.kind.as_u16());
            return if ours { self.administer(state, event, now) } else { vec![] };
        }
        // a locked key hears nothing
        let named =
            state.open.iter().find(|name| to.contains(&state.keys[*name].keys().public_key()));
        let Some(name) = named.cloned() else { return vec![] };
        let responders = state.responders[&name];
        (0..responders).flat_map(|_| self.sign(state, &name, event, now)).collect()
    }

    /// It asks its administrators, by a request of its own, whether somebody may do something.
    fn acl(&self, key_name: &str, client: &str, method: &str) -> Event {
        let asked = json!({ "keyName": key_name, "remotePubkey": client, "method": method });
        let acl = json!({"id": "acl-1", "method": "acl", "params": [asked.to_string()]});
        letter(&self.keys, &self.admin.nostr(), !self.habits.nip44, 24_134, &acl)
    }

    fn administer(&self, state: &mut State, event: &Event, now: Unix) -> Vec<Event> {
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
        state.kept.push(event.clone());
        let result = self.call(state, method, &request["params"], now);
        if state.lose_reply.take_if(|lost| *lost == method).is_some() {
            return vec![];
        }
        let kind = self.habits.kinds[0];
        let answer = match result {
            Ok(result) => {
                let result = match result {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                sealed(&self.keys, event, kind, &json!({"id": id, "result": result}))
            }
            Err(why) => error(&why),
        };
        // some stranger has asked for something meanwhile
        let stranger = Keys::generate().public_key().to_hex();
        vec![self.acl("somebody", &stranger, "sign_event"), answer]
    }
}
