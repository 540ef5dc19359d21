//! A service on a relay that answers as the test says.

use std::sync::Arc;

use bitspire_shared::ids::{EventId, PubKey, RequestId};
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::rpc::{
    self, ErrorCode, OpenSession, Reply, Request, RpcRequest, ServiceMessage, SessionOpened,
    push_event, reply_event,
};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use bitspire_shell::secrets::random;
use nostr::{Event, Filter, Keys, Kind, UnsignedEvent};
use serde_json::json;

/// The service.
pub(super) struct Service {
    pub(super) keys: Keys,
    pool: Pool,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) author: PubKey,
    pub(super) event: EventId,
    pub(super) created_at: Unix,
    pub(super) id: RequestId,
    pub(super) call: RpcRequest,
    pub(super) plaintext: String,
}

impl Service {
    pub(super) async fn start(keys: Keys, urls: &[String]) -> Self {
        let pool = Pool::connect(keys.clone(), urls, Arc::new(|_: &str| true)).await.unwrap();
        let to_us = Filter::new().kind(Kind::from(rpc::KIND)).pubkey(keys.public_key());
        pool.subscribe("rpc", to_us).await;
        Self { keys, pool }
    }

    fn key(&self, other: &PubKey) -> ConversationKey {
        ConversationKey::derive(self.keys.secret_key(), other).unwrap()
    }

    /// The next request.
    pub(super) async fn next(&self) -> Came {
        let event = tokio::time::timeout(super::PATIENCE, self.pool.next());
        let event = event.await.expect("no request came").unwrap();
        let author = PubKey::new(event.pubkey).unwrap();
        let plaintext = self.key(&author).decrypt(&event.content).unwrap();
        let request = Request::parse(&plaintext).unwrap();
        Came {
            author,
            event: EventId::from_bytes(event.id.to_bytes()),
            created_at: Unix(event.created_at.as_secs()),
            id: request.request_id(),
            call: request.into_call(),
            plaintext,
        }
    }

    /// Encrypts and signs what `make` builds, and sends it.
    pub(super) async fn say(
        &self,
        keys: &Keys,
        reader: &PubKey,
        plaintext: &str,
        make: impl FnOnce(PubKey, String) -> UnsignedEvent,
    ) -> Event {
        let conversation = ConversationKey::derive(keys.secret_key(), reader).unwrap();
        let content = conversation.encrypt(plaintext, random().unwrap()).unwrap();
        let event = make(super::public(keys), content).sign_with_keys(keys).unwrap();
        assert!(self.pool.send(&event).await > 0, "the service has no relay");
        event
    }

    pub(super) async fn reply(&self, to: &Came, reply: Reply) -> Event {
        let text = ServiceMessage::Reply(reply).to_plaintext().unwrap();
        let make = |service, content| reply_event(&service, &to.author, &to.event, now(), content);
        self.say(&self.keys, &to.author, &text, make).await
    }

    pub(super) async fn ok(&self, to: &Came) -> Event {
        self.reply(to, Reply::Ok { request_id: to.id, body: json!({}) }).await
    }

    pub(super) async fn refuse(&self, to: &Came, code: ErrorCode) -> Event {
        self.reply(to, Reply::error(Some(to.id), code, "no")).await
    }

    pub(super) async fn push(&self, to: &PubKey, plaintext: &str) -> Event {
        let make = |service, content| push_event(&service, to, now(), content);
        self.say(&self.keys, to, plaintext, make).await
    }

    /// Takes the next request, which must be `open_session` by `spire`; checks it as a service
    /// does.
    pub(super) async fn session_request(&self, spire: &PubKey) -> (Came, OpenSession) {
        let came = self.next().await;
        assert_eq!(came.author, *spire);
        let RpcRequest::OpenSession(body) = came.call.clone() else { panic!("{came:?}") };
        body.check(spire, &super::public(&self.keys), now()).unwrap();
        (came, *body)
    }

    /// Opens the session that is asked for next, for so many seconds; its key.
    pub(super) async fn open_session(&self, spire: &PubKey, life_s: u64) -> PubKey {
        let (came, body) = self.session_request(spire).await;
        let session_id = bitspire_shared::ids::SessionId::from_bytes([7; 16]);
        let opened = SessionOpened { session_id, expires_at: now().after(life_s) };
        let reply = Reply::ok::<OpenSession>(came.id, &opened).unwrap();
        self.reply(&came, reply).await;
        body.session_pubkey
    }
}

pub(super) fn now() -> Unix {
    Clock::system().now()
}
