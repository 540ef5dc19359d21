//! The relay over real websockets on loopback.

mod documents;
mod intruders;
mod limits;
mod sessions;
mod traffic;
mod wallets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::{SinkExt, StreamExt};
use nostr::{Event, EventBuilder, EventId, Filter, JsonUtil, Keys, Kind, RelayUrl, Tag, Timestamp};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::testing::Roster;
use super::*;

/// No test waits longer for a state.
const PATIENCE: Duration = Duration::from_secs(30);

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("the state did not come in time")
}

/// Lets the other tasks run until `state` holds.
async fn until(state: impl Fn() -> bool) {
    patiently(async {
        while !state() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The keys of a small fleet, as its roster has them.
struct Cast {
    client: Keys,
    spire: Keys,
    session: Keys,
    other_client: Keys,
    other_spire: Keys,
    service: Keys,
    operator: Keys,
    bunker: Keys,
    unpaired: Keys,
    stranger: Keys,
}

impl Cast {
    fn new(roster: &Roster) -> Self {
        let cast = Self {
            client: Keys::generate(),
            spire: Keys::generate(),
            session: Keys::generate(),
            other_client: Keys::generate(),
            other_spire: Keys::generate(),
            service: Keys::generate(),
            operator: Keys::generate(),
            bunker: Keys::generate(),
            unpaired: Keys::generate(),
            stranger: Keys::generate(),
        };
        let machine = |keys: &Keys| Role::Machine { spire: bytes(keys) };
        roster.set(bytes(&cast.client), machine(&cast.spire));
        roster.set(bytes(&cast.other_client), machine(&cast.other_spire));
        roster.set(bytes(&cast.service), Role::Service);
        roster.set(bytes(&cast.operator), Role::Operator);
        roster.set(bytes(&cast.bunker), Role::Bunker);
        roster.open_session(bytes(&cast.session), bytes(&cast.spire));
        for held in [&cast.spire, &cast.other_spire, &cast.operator, &cast.unpaired] {
            roster.hold(bytes(held));
        }
        roster.await_pairing(bytes(&cast.unpaired), true);
        cast
    }
}

/// A running relay with its clock in the test's hand.
struct World {
    relay: Relay,
    url: String,
    roster: Arc<Roster>,
    cast: Cast,
    clock: Arc<AtomicU64>,
    token: CancellationToken,
    server: JoinHandle<()>,
    file: PathBuf,
    folder: Option<tempfile::TempDir>,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roster = Arc::new(Roster::default());
        let cast = Cast::new(&roster);
        let file = folder.path().join("relay.db");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, Some(folder), file, roster, cast, change)
    }

    fn on(
        listener: TcpListener,
        folder: Option<tempfile::TempDir>,
        file: PathBuf,
        roster: Arc<Roster>,
        cast: Cast,
        change: impl FnOnce(&mut Limits),
    ) -> Self {
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let clock = Arc::new(AtomicU64::new(Timestamp::now().as_secs()));
        let mut config = Config::new(vec![RelayUrl::parse(&url).unwrap()]);
        let told = clock.clone();
        config.clock = Clock::new(move || Unix(told.load(Ordering::SeqCst)));
        change(&mut config.limits);
        let documents = RelayDocs::open(&file, Unix(1)).unwrap();
        let token = CancellationToken::new();
        let relay = Relay::new(config, roster.clone(), documents, token.clone());
        let server = tokio::spawn(serve(listener, relay.clone()));
        Self { relay, url, roster, cast, clock, token, server, file, folder }
    }

    /// Stops the relay and starts another one on the same address and file.
    async fn restarted(self) -> Self {
        let Self { relay, url, roster, cast, token, server, file, folder, .. } = self;
        token.cancel();
        patiently(server).await.unwrap();
        drop(relay);
        let address = url.trim_start_matches("ws://").to_owned();
        let listener = patiently(async {
            loop {
                if let Ok(listener) = TcpListener::bind(&address).await {
                    break listener;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self::on(listener, folder, file, roster, cast, |_| {})
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn forward(&self, secs: u64) {
        self.clock.fetch_add(secs, Ordering::SeqCst);
    }

    fn count(&self, count: Count) -> u64 {
        self.relay.stats().get(count)
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.relay.stats().refused(refusal)
    }

    /// An event of `author` to `reader`, dated now.
    fn event(&self, kind: u16, author: &Keys, reader: &Keys, tags: Vec<Tag>) -> Event {
        self.sized_event(kind, author, reader, tags, 16)
    }

    fn sized_event(
        &self,
        kind: u16,
        author: &Keys,
        reader: &Keys,
        tags: Vec<Tag>,
        size: usize,
    ) -> Event {
        EventBuilder::new(Kind::from(kind), "x".repeat(size))
            .tag(Tag::public_key(reader.public_key()))
            .tags(tags)
            .custom_created_at(Timestamp::from(self.now()))
            .sign_with_keys(author)
            .unwrap()
    }

    async fn connect(&self) -> Client {
        Client::connect(&self.url, None).await.expect("the relay takes the connection")
    }

    /// A connection that is authenticated as `keys`.
    async fn login(&self, keys: &Keys) -> Client {
        let mut client = self.connect().await;
        let (taken, text) = client.auth(keys, &self.url, self.now()).await;
        assert!(taken, "{text}");
        client
    }
}

/// A websocket client without any opinion.
struct Client {
    socket: WebSocketStream<TcpStream>,
    challenge: String,
}

impl Client {
    /// Connects and reads the challenge; `receive_buffer` makes a client that stalls early.
    async fn connect(url: &str, receive_buffer: Option<u32>) -> Result<Self, WsError> {
        let tcp = tokio::net::TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_buffer {
            tcp.set_recv_buffer_size(bytes).unwrap();
        }
        let address = url.trim_start_matches("ws://").parse().unwrap();
        let stream = patiently(tcp.connect(address)).await?;
        let (socket, _) = patiently(tokio_tungstenite::client_async(url, stream)).await?;
        let mut client = Self { socket, challenge: String::new() };
        let hello = client.next().await;
        assert_eq!(hello[0], "AUTH");
        client.challenge = hello[1].as_str().unwrap().to_owned();
        Ok(client)
    }

    async fn send(&mut self, text: impl Into<String>) {
        patiently(self.socket.send(Message::text(text.into()))).await.unwrap();
    }

    /// The next text message.
    async fn next(&mut self) -> Value {
        loop {
            match patiently(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("expected a text message, got {other:?}"),
            }
        }
    }

    /// Reads on until the relay closes; its reason.
    async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match patiently(self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn auth(&mut self, keys: &Keys, relay: &str, now: u64) -> (bool, String) {
        let event = EventBuilder::auth(&self.challenge, RelayUrl::parse(relay).unwrap())
            .custom_created_at(Timestamp::from(now))
            .sign_with_keys(keys)
            .unwrap();
        self.answer("AUTH", &event.as_json(), event.id).await
    }

    /// Sends an event and waits for its OK.
    async fn publish(&mut self, event: &Event) -> (bool, String) {
        self.answer("EVENT", &event.as_json(), event.id).await
    }

    async fn answer(&mut self, verb: &str, json: &str, id: EventId) -> (bool, String) {
        self.send(format!(r#"["{verb}",{json}]"#)).await;
        let answer = self.next().await;
        assert_eq!((&answer[0], &answer[1]), (&json!("OK"), &json!(id.to_hex())), "{answer}");
        (answer[2].as_bool().unwrap(), answer[3].as_str().unwrap().to_owned())
    }

    /// Opens a subscription: the stored events, or why it was closed.
    async fn req(&mut self, id: &str, filter: Filter) -> Result<Vec<EventId>, String> {
        self.send(format!(r#"["REQ","{id}",{}]"#, filter.as_json())).await;
        let mut stored = Vec::new();
        loop {
            let answer = self.next().await;
            assert_eq!(answer[1], id, "{answer}");
            match answer[0].as_str().unwrap() {
                "EVENT" => stored.push(id_of(&answer[2])),
                "EOSE" => return Ok(stored),
                "CLOSED" => return Err(answer[2].as_str().unwrap().to_owned()),
                _ => panic!("{answer}"),
            }
        }
    }

    /// The id of the event that comes next.
    async fn received(&mut self) -> EventId {
        let message = self.next().await;
        assert_eq!(message[0], "EVENT", "{message}");
        id_of(&message[2])
    }
}

fn to(keys: &Keys) -> Filter {
    Filter::new().pubkey(keys.public_key())
}

fn expires(at: u64) -> Tag {
    Tag::expiration(Timestamp::from(at))
}

fn bytes(keys: &Keys) -> [u8; 32] {
    keys.public_key().to_bytes()
}

fn id_of(event: &Value) -> EventId {
    Event::from_json(event.to_string()).unwrap().id
}

/// `event` with one field changed.
fn altered(event: &Event, field: &str, value: impl Into<Value>) -> Event {
    let mut json: Value = serde_json::from_str(&event.as_json()).unwrap();
    json[field] = value.into();
    Event::from_json(json.to_string()).unwrap()
}
