//! A bunker on a relay, good and bad.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bitspire_shared::ids::{EventId, PubKey};
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::nip46;
use bitspire_shared::nip46::message::Plain;
use bitspire_shared::nip46::server::{Call, Reply, Server};
use bitspire_shared::seed::BunkerSecret;
use bitspire_shell::pool::Pool;
use bitspire_shell::secrets::random;
use nostr::{Event, EventBuilder, Filter, Keys, Kind, Tag, UnsignedEvent};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::public;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Good,
    /// Its key is locked.
    Silent,
    /// The secret went to another client.
    Redeemed,
    /// The secret's time is over.
    Expired,
    /// The secret is another machine's, or another bunker's, as our own bunker says it.
    Foreign,
    /// The same in nsecbunkerd's words.
    NotFound,
    /// It signs with another key than the seed's.
    OtherKey,
    /// It has no nip44 methods.
    NoNip44,
    /// What it decrypts is another text.
    OtherText,
    /// It signs another event than the one that it was asked for.
    OtherEvent,
    /// The event that was asked for, with a signature of another.
    BadSignature,
    /// Each answer twice, the second one a refusal.
    Twice,
    /// Its answers are to somebody else's requests.
    ForAnother,
    /// It works, and says so only once it is [`Good`](Self::Good) again.
    Late,
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    redeemed_by: Option<PubKey>,
    /// Calls by method.
    calls: BTreeMap<String, u32>,
    /// What it has not sent yet.
    late: Vec<Event>,
}

/// The bunker.
pub(super) struct Bunker {
    shared: Arc<Mutex<Shared>>,
    count: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

impl Drop for Bunker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bunker {
    pub(super) async fn start(keys: Keys, secret: &str, manner: Manner, urls: &[String]) -> Self {
        let pool = Pool::connect(keys.clone(), urls, Arc::new(|_: &str| true)).await.unwrap();
        let to_us = Filter::new().kind(Kind::from(nip46::KIND)).pubkey(keys.public_key());
        pool.subscribe("bunker", to_us).await;
        let redeemed_by = (manner == Manner::Redeemed).then(|| public(&Keys::generate()));
        let shared = Shared { manner, redeemed_by, calls: BTreeMap::new(), late: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (counter, count) = watch::channel(0);
        let secret = BunkerSecret::new(secret).unwrap();
        let state = shared.clone();
        let task = tokio::spawn(async move {
            let mut server = Server::default();
            while let Some(event) = pool.next().await {
                for reply in answer(&state, &mut server, &keys, &secret, &event) {
                    pool.send(&reply).await;
                }
                counter.send_modify(|count| *count += 1);
            }
        });
        Self { shared, count, task }
    }

    pub(super) fn behave(&self, manner: Manner) {
        self.shared.lock().unwrap().manner = manner;
    }

    pub(super) fn calls(&self, method: &str) -> u32 {
        self.shared.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    /// Waits until it was called so often.
    pub(super) async fn called(&mut self, method: &str, times: u32) {
        let shared = self.shared.clone();
        let enough =
            move || shared.lock().unwrap().calls.get(method).copied().unwrap_or(0) >= times;
        let waited = self.count.wait_for(|_| enough());
        tokio::time::timeout(super::PATIENCE, waited).await.unwrap().unwrap();
    }
}

fn answer(
    shared: &Mutex<Shared>,
    server: &mut Server,
    keys: &Keys,
    secret: &BunkerSecret,
    event: &Event,
) -> Vec<Event> {
    let mut shared = shared.lock().unwrap();
    let client = PubKey::new(event.pubkey).unwrap();
    let conversation = ConversationKey::derive(keys.secret_key(), &client).unwrap();
    let Ok(plaintext) = conversation.decrypt(&event.content) else { return vec![] };
    let id = EventId::from_bytes(event.id.to_bytes());
    let Ok(incoming) = server.receive(id, client, &public(keys), &plaintext) else {
        return vec![];
    };
    let name: Value = serde_json::from_str(&plaintext).unwrap();
    *shared.calls.entry(name["method"].as_str().unwrap().to_owned()).or_default() += 1;
    if shared.manner == Manner::Silent {
        return vec![];
    }
    let json = incoming.respond(reply(&mut shared, keys, secret, client, &incoming.call)).to_json();
    let mut json: Value = serde_json::from_str(json.expose()).unwrap();
    if shared.manner == Manner::ForAnother {
        json["id"] = "somebody-elses".into();
    }
    let say = |json: &Value| {
        let content = conversation.encrypt(&json.to_string(), random().unwrap()).unwrap();
        let reply = EventBuilder::new(Kind::from(nip46::KIND), content);
        reply.tag(Tag::public_key(event.pubkey)).sign_with_keys(keys).unwrap()
    };
    let mut said = std::mem::take(&mut shared.late);
    said.push(say(&json));
    match shared.manner {
        Manner::Late => shared.late = std::mem::take(&mut said),
        Manner::Twice => {
            said.push(say(
                &json!({"id": json["id"], "result": "error", "error": "Not authorized"}),
            ));
        }
        _ => {}
    }
    said
}

fn reply(
    shared: &mut Shared,
    keys: &Keys,
    secret: &BunkerSecret,
    client: PubKey,
    call: &Call,
) -> Reply {
    let no = |text: &str| Reply::Error(text.to_owned());
    let known = shared.redeemed_by == Some(client);
    let peer_key = |peer: &PubKey| ConversationKey::derive(keys.secret_key(), peer).unwrap();
    match call {
        Call::Connect { .. } if shared.manner == Manner::Expired => no("Token expired"),
        Call::Connect { .. } if shared.manner == Manner::Foreign => no("Secret not match"),
        Call::Connect { .. } if shared.manner == Manner::NotFound => no("Token not found"),
        Call::Connect { secret: Some(given), .. } if given == secret => match shared.redeemed_by {
            None => {
                shared.redeemed_by = Some(client);
                Reply::Ack
            }
            Some(_) => no("Token already redeemed"),
        },
        Call::Connect { .. } if known => Reply::Ack,
        Call::GetPublicKey if shared.manner == Manner::OtherKey => {
            Reply::PublicKey(public(&Keys::generate()))
        }
        Call::GetPublicKey => Reply::PublicKey(public(keys)),
        Call::Nip44Encrypt { .. } | Call::Nip44Decrypt { .. }
            if shared.manner == Manner::NoNip44 =>
        {
            no("unknown method")
        }
        _ if !known => no("Not authorized"),
        Call::Nip44Encrypt { peer, plaintext } => {
            let payload = peer_key(peer).encrypt(plaintext.expose(), random().unwrap());
            Reply::Text(Plain::new(payload.unwrap()))
        }
        Call::Nip44Decrypt { .. } if shared.manner == Manner::OtherText => {
            Reply::Text(Plain::new("another".to_owned()))
        }
        Call::Nip44Decrypt { peer, payload } => match peer_key(peer).decrypt(payload) {
            Ok(text) => Reply::Text(Plain::new(text)),
            Err(error) => no(&error.to_string()),
        },
        Call::SignEvent(event) => Reply::Signed(Box::new(sign(shared.manner, event, keys))),
        Call::Ping => Reply::Pong,
        _ => no("not here"),
    }
}

fn sign(manner: Manner, wanted: &UnsignedEvent, keys: &Keys) -> Event {
    let mut signed = wanted.clone().sign_with_keys(keys).unwrap();
    let other = EventBuilder::new(wanted.kind, "another").tags(wanted.tags.iter().cloned());
    let other = other.custom_created_at(wanted.created_at).sign_with_keys(keys).unwrap();
    match manner {
        Manner::OtherEvent => return other,
        Manner::BadSignature => signed.sig = other.sig,
        _ => {}
    }
    signed
}
