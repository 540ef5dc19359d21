//! Relays as there are some: one that says nothing where it need not, one that keeps what it should
//! not, one that wants to know everybody, one that lies, one that loses, delays and repeats.
//!
//! Each is a relay otherwise: it keeps the newest document of an address, serves filters, and
//! forwards. What it does wrong it does now and then, so that whoever tries again gets through.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use futures_util::{SinkExt as _, StreamExt as _};
use nostr::filter::MatchEventOptions;
use nostr::{
    ClientMessage, Event, EventBuilder, Filter, JsonUtil as _, Keys, Kind, RelayMessage,
    SubscriptionId, Timestamp,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

/// What is odd about a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Habit {
    /// Answers neither events of ephemeral kinds nor AUTH (nostr-rs-relay does so).
    Silent,
    /// Keeps events of ephemeral kinds, and gives them to whoever asks.
    Keeper,
    /// Serves nobody that it does not know (NIP-42).
    Strict,
    /// Refuses what it has taken, closes subscriptions, and sends what nobody asked for: strangers'
    /// events, changed ones, words that are no message.
    Liar,
    /// Takes everything, and forwards some of it late, twice or not at all.
    Dropper,
}

impl Habit {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How long what is late is held back.
const LATE: Duration = Duration::from_millis(700);
/// Of so many forwarded messages of a connection one is lost, one is late, one comes twice. No two
/// that follow each other are lost.
const LOST: u64 = 9;
const DELAYED: u64 = 7;
const TWICE: u64 = 5;

/// What waits for one connection at most.
const PLACES: usize = 4_096;
/// Events that a relay keeps which keeps everything.
const MOST: usize = 10_000;

/// A message, and whether it is held back.
type Out = (String, bool);

struct Connection {
    id: u64,
    out: mpsc::Sender<Out>,
    forwarded: u64,
    subscriptions: HashMap<SubscriptionId, Vec<Filter>>,
    known: bool,
}

#[derive(Default)]
struct State {
    kept: Vec<Event>,
    connections: HashMap<u64, Connection>,
    chance: u64,
    next: u64,
}

/// The relay.
struct Odd {
    habit: Habit,
    state: Mutex<State>,
}

fn matches(filters: &[Filter], event: &Event) -> bool {
    filters.iter().any(|filter| filter.match_event(event, MatchEventOptions::new()))
}

impl Connection {
    /// How often the next message is sent, and whether late.
    fn luck(&mut self) -> (usize, bool) {
        self.forwarded += 1;
        let one_of = |n: u64| self.forwarded % n == n - 1;
        let times = if one_of(LOST) { 0 } else { 1 + usize::from(one_of(TWICE)) };
        (times, one_of(DELAYED))
    }
}

impl State {
    /// One in `n`.
    fn one_in(&mut self, n: u64) -> bool {
        // splitmix64: no secret
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).is_multiple_of(n)
    }

    fn keep(&mut self, event: &Event) {
        let (d, kind) = (event.tags.identifier(), event.kind);
        let same = |one: &Event| {
            one.id == event.id
                || (kind.is_addressable()
                    && (one.kind, one.pubkey, one.tags.identifier()) == (kind, event.pubkey, d))
        };
        if self.kept.iter().any(|one| same(one) && one.created_at > event.created_at) {
            return;
        }
        self.kept.retain(|one| !same(one));
        self.kept.push(event.clone());
        if self.kept.len() > MOST {
            self.kept.remove(0);
        }
    }
}

impl Odd {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took(&self, state: &mut State, event: &Event) -> (bool, &'static str) {
        let ephemeral = event.kind.is_ephemeral();
        if !ephemeral || self.habit == Habit::Keeper {
            state.keep(event);
        }
        match self.habit {
            Habit::Liar if state.one_in(4) => (false, "error: something, at times"),
            Habit::Liar if state.one_in(4) => (false, "rate-limited: not so fast"),
            Habit::Liar if state.one_in(4) => (false, "duplicate: have it"),
            _ => (true, ""),
        }
    }

    /// Gives an event to everybody who asked for it.
    fn forward(&self, state: &mut State, event: &Event) {
        for connection in state.connections.values_mut() {
            let asked = connection.subscriptions.iter();
            let asked = asked.filter(|(_, filters)| matches(filters, event));
            let texts: Vec<_> = asked
                .map(|(id, _)| RelayMessage::event(id.clone(), event.clone()).as_json())
                .collect();
            for text in texts {
                let (times, late) = match self.habit {
                    Habit::Dropper => connection.luck(),
                    _ => (1, false),
                };
                for _ in 0..times {
                    // whoever is so slow loses it, as at other relays
                    let _ = connection.out.try_send((text.clone(), late));
                }
            }
        }
    }

    /// What nobody asked for, under the name of a subscription that is there.
    fn lies(&self, id: &SubscriptionId) -> Vec<String> {
        let stranger = |kind: u16| {
            let event = EventBuilder::new(Kind::from(kind), "no").sign_with_keys(&Keys::generate());
            event.ok().map(|event| RelayMessage::event(id.clone(), event).as_json())
        };
        let mut lies: Vec<String> =
            [24_133, 21_000, 30_078, 1].into_iter().filter_map(stranger).collect();
        if let Some(mut event) = self.state().kept.last().cloned() {
            event.created_at = Timestamp::from(event.created_at.as_secs() + 60);
            lies.push(RelayMessage::event(id.clone(), event).as_json());
        }
        lies.extend(
            ["[\"EVENT\"]", "{", "[\"OK\",\"zz\",true]", "[\"NOTICE\",7]"].map(String::from),
        );
        lies
    }

    fn says(&self, id: u64, text: String) {
        if let Some(connection) = self.state().connections.get(&id) {
            let _ = connection.out.try_send((text, false));
        }
    }

    fn hears(&self, id: u64, message: ClientMessage<'_>) {
        let known = self.state().connections.get(&id).is_some_and(|one| one.known);
        let strict = self.habit == Habit::Strict && !known;
        match message {
            ClientMessage::Auth(event) => {
                let good = event.verify().is_ok() && event.kind == Kind::Authentication;
                if let Some(connection) = self.state().connections.get_mut(&id) {
                    connection.known |= good;
                }
                if self.habit != Habit::Silent {
                    self.says(id, RelayMessage::ok(event.id, good, "").as_json());
                }
            }
            ClientMessage::Event(event) if strict => {
                let words = "auth-required: who are you";
                self.says(id, RelayMessage::ok(event.id, false, words).as_json());
            }
            ClientMessage::Event(event) => {
                if event.verify().is_err() {
                    let words = "invalid: id or signature";
                    return self.says(id, RelayMessage::ok(event.id, false, words).as_json());
                }
                let (status, words) = {
                    let mut state = self.state();
                    let said = self.took(&mut state, &event);
                    self.forward(&mut state, &event);
                    said
                };
                if self.habit != Habit::Silent || !event.kind.is_ephemeral() {
                    self.says(id, RelayMessage::ok(event.id, status, words).as_json());
                }
            }
            ClientMessage::Req { subscription_id, .. } if strict => {
                let closed = RelayMessage::closed(subscription_id.into_owned(), "auth-required: x");
                self.says(id, closed.as_json());
            }
            ClientMessage::Req { subscription_id, filters } => {
                let name = subscription_id.into_owned();
                if self.habit == Habit::Liar {
                    if self.state().one_in(4) {
                        let words = ["error: shutting down", "restricted: x", "rate-limited: x"];
                        let which = usize::try_from(id % 3).unwrap_or_default();
                        return self.says(id, RelayMessage::closed(name, words[which]).as_json());
                    }
                    for lie in self.lies(&name) {
                        self.says(id, lie);
                    }
                }
                let filters: Vec<Filter> = filters.into_iter().map(Cow::into_owned).collect();
                let stored: Vec<Event> = {
                    let mut state = self.state();
                    if let Some(connection) = state.connections.get_mut(&id) {
                        connection.subscriptions.insert(name.clone(), filters.clone());
                    }
                    state.kept.iter().filter(|event| matches(&filters, event)).cloned().collect()
                };
                for event in stored {
                    self.says(id, RelayMessage::event(name.clone(), event).as_json());
                }
                self.says(id, RelayMessage::eose(name).as_json());
            }
            ClientMessage::Close(name) => {
                if let Some(connection) = self.state().connections.get_mut(&id) {
                    connection.subscriptions.remove(&name);
                }
            }
            _ => {}
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) -> Result<()> {
        let socket = tokio_tungstenite::accept_async(stream).await?;
        let (mut sink, mut stream) = socket.split();
        let (out, mut waiting) = mpsc::channel::<Out>(PLACES);
        let id = {
            let mut state = self.state();
            state.next += 1;
            let id = state.next;
            let subscriptions = HashMap::new();
            let connection = Connection { id, out, forwarded: 0, subscriptions, known: false };
            state.connections.insert(id, connection);
            id
        };
        if matches!(self.habit, Habit::Strict | Habit::Silent) {
            self.says(id, RelayMessage::auth(format!("challenge {id}")).as_json());
        }
        let ended = async {
            let mut held = VecDeque::new();
            loop {
                let due = held.front().map(|(due, _)| *due);
                tokio::select! {
                    said = waiting.recv() => match said {
                        Some((text, false)) => sink.send(Message::text(text)).await?,
                        Some((text, true)) => held.push_back((Instant::now() + LATE, text)),
                        None => return Ok(()),
                    },
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                        if let Some((_, text)) = held.pop_front() {
                            sink.send(Message::text(text)).await?;
                        }
                    }
                    heard = stream.next() => match heard {
                        Some(Ok(Message::Text(text))) => {
                            if let Ok(message) = ClientMessage::from_json(text.as_bytes()) {
                                self.hears(id, message);
                            }
                        }
                        Some(Ok(Message::Ping(bytes))) => sink.send(Message::Pong(bytes)).await?,
                        Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return Ok(()),
                        Some(Ok(_)) => {}
                    },
                }
            }
        };
        let ended: Result<()> = ended.await;
        self.state().connections.retain(|_, connection| connection.id != id);
        ended
    }
}

/// Listens on loopback; `ready` is told once it does. Runs until it is dropped.
///
/// # Errors
/// When the port is taken.
pub async fn run(port: u16, habit: Habit, ready: impl FnOnce()) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    ready();
    let relay = Arc::new(Odd { habit, state: Mutex::default() });
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tasks.spawn(relay.clone().serve(stream));
            }
            // a connection that breaks is its end
            Some(_) = tasks.join_next() => {}
        }
    }
}
