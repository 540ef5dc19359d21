//! A client that writes its messages by hand.

use bitspire_shared::ids::PubKey;
use bitspire_shell::pool::Pool;
use nostr::nips::nip44;
use nostr::{Event, EventBuilder, Filter, Keys, Kind, Tag, Timestamp};
use serde_json::Value;

use crate::world::{PATIENCE, World};

pub(crate) struct Raw {
    pub(crate) pool: Pool,
    pub(crate) keys: Keys,
}

impl Raw {
    pub(crate) async fn new(world: &World, keys: Keys) -> Self {
        let relays = &world.relays;
        let pool =
            Pool::connect(keys.clone(), relays, std::sync::Arc::new(|_: &str| true)).await.unwrap();
        pool.subscribe("own", Filter::new().pubkey(keys.public_key()).limit(0)).await;
        // what it sends itself comes back: then the relay is connected and the subscription stands
        let raw = Self { pool, keys };
        let own = PubKey::new(raw.keys.public_key()).unwrap();
        let wake = Raw {
            pool: Pool::connect(Keys::generate(), relays, std::sync::Arc::new(|_: &str| true))
                .await
                .unwrap(),
            keys: Keys::generate(),
        };
        loop {
            let event = wake.letter(own, 24_133, "hello", world.time.now().0);
            wake.pool.send(&event).await;
            let heard =
                tokio::time::timeout(std::time::Duration::from_millis(100), raw.pool.next());
            if heard.await.is_ok() {
                wake.pool.close().await;
                return raw;
            }
        }
    }

    /// An event that carries `text` to `to`.
    pub(crate) fn letter(&self, to: PubKey, kind: u16, text: &str, at: u64) -> Event {
        let (ours, theirs) = (self.keys.secret_key(), to.nostr());
        let content = nip44::encrypt(ours, &theirs, text, nip44::Version::V2).unwrap();
        EventBuilder::new(Kind::from(kind), content)
            .tag(Tag::public_key(theirs))
            .custom_created_at(Timestamp::from(at))
            .sign_with_keys(&self.keys)
            .unwrap()
    }

    pub(crate) async fn send(&self, event: &Event) {
        assert!(self.pool.send(event).await > 0);
    }

    /// The next message by `from`; messages by others have to be named, too.
    pub(crate) async fn next(&self, from: PubKey) -> Value {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.pool.next()).await.unwrap().unwrap();
            let text = nip44::decrypt(self.keys.secret_key(), &event.pubkey, &event.content);
            let text = text.unwrap();
            if text == "hello" {
                continue;
            }
            assert_eq!(event.pubkey, from.nostr(), "{text}");
            return serde_json::from_str(&text).unwrap();
        }
    }

    /// Sends a NIP-46 or administrative request and waits for what comes next.
    pub(crate) async fn ask(&self, to: PubKey, kind: u16, request: &Value, at: u64) -> Value {
        self.send(&self.letter(to, kind, &request.to_string(), at)).await;
        self.next(to).await
    }
}
