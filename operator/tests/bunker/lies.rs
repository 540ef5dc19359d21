//! A bunker that lies to the service, and one that does not know the service's token.

use std::sync::{Arc, Mutex};

use bitspire_operator::signer::remote::Remote;
use bitspire_operator::signer::{RemoteSigner as _, SignerError};
use bitspire_shared::error::{Classified as _, Kind};
use bitspire_shared::ids::PubKey;
use bitspire_shared::seed::BunkerSecret;
use nostr::nips::nip44;
use nostr::{Event, EventBuilder, Keys, UnsignedEvent};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::raw::Raw;
use crate::world::{World, public, reason};

/// How it answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    /// Another event than the one that it was asked for.
    OtherEvent,
    /// The event that was asked for, by another key.
    OtherAuthor,
    /// The event that was asked for, with a signature of another.
    BadSignature,
    /// It says that it signs with another key.
    OtherUser,
    /// Something that is no event.
    NoEvent,
    /// It refuses each `connect` so.
    Refuses(&'static str),
}

/// A bunker that writes its messages by hand.
struct Liar {
    key: PubKey,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Liar {
    async fn start(world: &World) -> Self {
        let keys = Keys::generate();
        let (key, raw) = (public(&keys), Raw::new(world, keys).await);
        let (manner, time) = (Arc::new(Mutex::new(Manner::Honest)), world.time.clone());
        let shown = manner.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = raw.pool.next().await {
                let text = nip44::decrypt(raw.keys.secret_key(), &event.pubkey, &event.content);
                let asked = text.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
                let Some(asked) = asked else { continue };
                let mut answer = answer(*shown.lock().unwrap(), &raw.keys, &asked);
                answer["id"] = asked["id"].clone();
                let client = PubKey::new(event.pubkey).unwrap();
                let letter = raw.letter(client, 24_133, &answer.to_string(), time.now().0);
                raw.pool.send(&letter).await;
            }
        });
        Self { key, manner, task }
    }

    fn behaves(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    async fn client(&self, world: &World, secret: Option<&str>) -> Remote {
        let secret = secret.map(|secret| BunkerSecret::new(secret).unwrap());
        world.remote(self.key, &Keys::generate(), secret).await
    }
}

fn answer(manner: Manner, keys: &Keys, asked: &Value) -> Value {
    let result = match (asked["method"].as_str().unwrap(), manner) {
        ("connect", Manner::Refuses(words)) => return json!({ "result": "error", "error": words }),
        ("connect", _) => "ack".to_owned(),
        ("get_public_key", Manner::OtherUser) => Keys::generate().public_key().to_hex(),
        ("get_public_key", _) => keys.public_key().to_hex(),
        ("sign_event", Manner::NoEvent) => "ack".to_owned(),
        ("sign_event", _) => {
            let wanted = asked["params"][0].as_str().unwrap();
            serde_json::to_string(&sign(manner, keys, wanted)).unwrap()
        }
        (other, _) => panic!("{other} was not to be asked"),
    };
    json!({ "result": result })
}

fn sign(manner: Manner, keys: &Keys, wanted: &str) -> Event {
    let wanted: UnsignedEvent = serde_json::from_str(wanted).unwrap();
    let like_it = |content: &str, by: &Keys| {
        let event = EventBuilder::new(wanted.kind, content).tags(wanted.tags.iter().cloned());
        event.custom_created_at(wanted.created_at).sign_with_keys(by).unwrap()
    };
    let mut signed = like_it(&wanted.content, keys);
    match manner {
        Manner::OtherEvent => return like_it("another", keys),
        Manner::OtherAuthor => return like_it(&wanted.content, &Keys::generate()),
        Manner::BadSignature => signed.sig = like_it("another", keys).sig,
        _ => {}
    }
    signed
}

/// Loss prevented: a bunker that was taken over passes for one that says no, so that nobody looks at
/// it; or something that it made up goes out in the operator's name.
#[tokio::test]
async fn a_lie_is_called_one_and_nothing_is_made_of_it() {
    let world = World::new().await;
    let liar = Liar::start(&world).await;
    let remote = liar.client(&world, None).await;
    remote.connect().await.unwrap();
    for (manner, words) in [
        (Manner::OtherEvent, "its content differs"),
        (Manner::OtherAuthor, "its pubkey differs"),
        (Manner::BadSignature, "wrong id or signature"),
        (Manner::NoEvent, "expected a signed event in reply to sign_event"),
    ] {
        liar.behaves(manner);
        let lie = remote.sign(world.event(liar.key, 30_078, "x")).await.unwrap_err();
        assert!(lie.to_string().contains(words), "{manner:?}: {lie}");
        assert_eq!((lie.code(), lie.kind()), ("bunker_lied", Kind::Permanent), "{manner:?}");
        if !matches!(manner, Manner::NoEvent) {
            assert!(matches!(lie, SignerError::Lied { method: "sign_event", .. }), "{lie:?}");
            assert!(lie.to_string().ends_with("do not use this bunker, look at what runs there"));
        }
        // it is over with the lie
        liar.behaves(Manner::Honest);
        let event = world.event(liar.key, 30_078, "y");
        assert_eq!(remote.sign(event).await.unwrap().content, "y");
    }
    liar.behaves(Manner::OtherUser);
    let lie = remote.connect().await.unwrap_err();
    assert!(matches!(lie, SignerError::Lied { method: "get_public_key", .. }), "{lie:?}");
    let (words, key) = (lie.to_string(), liar.key.to_string());
    assert!(words.contains(&format!("expected a signer for {key}, got one for")), "{words}");
    assert_eq!(lie.code(), "bunker_lied");
}

/// Loss prevented: a service that tells its operator to make a new seed and to pair again, where it
/// is its own token that the bunker does not take.
#[tokio::test]
async fn a_token_that_is_not_taken_is_a_refusal_in_the_services_words() {
    let world = World::new().await;
    let liar = Liar::start(&world).await;
    for (said, words) in [
        ("Token already redeemed", "another client has used the token"),
        ("Secret not match", "does not know the token"),
        ("Token not found", "does not know the token"),
        ("Not authorized", "Not authorized"),
    ] {
        liar.behaves(Manner::Refuses(said));
        let refused = liar.client(&world, Some(&"5e".repeat(32))).await.connect().await;
        let code = refused.as_ref().map_err(SignerError::code);
        assert_eq!(code, Err("bunker_refused"), "{said}");
        let refused = reason(refused);
        assert!(refused.contains(words) && !refused.contains("seed"), "{said}: {refused}");
    }
}
