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
use nostr::{Event, EventBuilder, Filter, Keys, Kind, Tag};
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
    /// It signs with another key than the seed's.
    OtherKey,
    /// It has no nip44 methods.
    NoNip44,
}

#[derive(Debug)]
struct Shared {
    manner: Manner,
    redeemed_by: Option<PubKey>,
    /// Calls by method.
    calls: BTreeMap<String, u32>,
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
        let shared = Shared { manner, redeemed_by, calls: BTreeMap::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (counter, count) = watch::channel(0);
        let secret = BunkerSecret::new(secret).unwrap();
        let state = shared.clone();
        let task = tokio::spawn(async move {
            let mut server = Server::default();
            while let Some(event) = pool.next().await {
                if let Some(reply) = answer(&state, &mut server, &keys, &secret, &event) {
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
) -> Option<Event> {
    let mut shared = shared.lock().unwrap();
    let client = PubKey::new(event.pubkey).unwrap();
    let conversation = ConversationKey::derive(keys.secret_key(), &client).unwrap();
    let plaintext = conversation.decrypt(&event.content).ok()?;
    let id = EventId::from_bytes(event.id.to_bytes());
    let incoming = server.receive(id, client, &public(keys), &plaintext).ok()?;
    let name: serde_json::Value = serde_json::from_str(&plaintext).unwrap();
    *shared.calls.entry(name["method"].as_str().unwrap().to_owned()).or_default() += 1;
    if shared.manner == Manner::Silent {
        return None;
    }
    let no = |text: &str| Reply::Error(text.to_owned());
    let known = shared.redeemed_by == Some(client);
    let peer_key = |peer: &PubKey| ConversationKey::derive(keys.secret_key(), peer).unwrap();
    let reply = match &incoming.call {
        Call::Connect { .. } if shared.manner == Manner::Expired => no("Token expired"),
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
        Call::Nip44Decrypt { peer, payload } => match peer_key(peer).decrypt(payload) {
            Ok(text) => Reply::Text(Plain::new(text)),
            Err(error) => no(&error.to_string()),
        },
        Call::SignEvent(event) => {
            Reply::Signed(Box::new((**event).clone().sign_with_keys(keys).unwrap()))
        }
        Call::Ping => Reply::Pong,
        _ => no("not here"),
    };
    let json = incoming.respond(reply).to_json();
    let content = conversation.encrypt(json.expose(), random().unwrap()).unwrap();
    let reply = EventBuilder::new(Kind::from(nip46::KIND), content);
    Some(reply.tag(Tag::public_key(event.pubkey)).sign_with_keys(keys).unwrap())
}
