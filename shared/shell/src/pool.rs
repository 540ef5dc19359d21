//! Connections to relays: nostr-sdk's client on a short leash.
//!
//! Promise: an event that comes out of [`Pool::next`] passed the caller's frame filter *before*
//! any signature was checked, then id and signature were verified, and it comes out once however
//! many relays carry it. Subscriptions stay open: one that a relay closes is asked for again.
//!
//! Failure policy: lost notifications are counted and answered by subscribing again (stored kinds
//! come back, ephemeral ones are the sender's to retry); a relay that is down is retried for ever.
//! Kinds 20000-29999 are sent without waiting, since relays need not answer them (NIP-01).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_wsocket::futures_util::StreamExt;
use async_wsocket::{ConnectionMode, Message};
use nostr::util::BoxedFuture;
use nostr_relay_pool::transport::error::TransportError;
use nostr_relay_pool::transport::websocket::{
    DefaultWebsocketTransport, WebSocketSink, WebSocketStream, WebSocketTransport,
};
use nostr_relay_pool::{RelayOptions, RelayPoolNotification};
use nostr_sdk::{
    Client, ClientMessage, ClientOptions, Event, EventId, Filter, Keys, RelayMessage, RelayUrl,
    SubscriptionId,
};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use bitspire_shared::error::{Classified, Kind};

/// Decides on the text of one relay message before anything in it is verified. It is called with
/// whatever a relay sends, on the task that reads from it: it must not block or panic.
pub type FrameFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How long a relay rests between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// How long an authentication takes its time before what it held up is sent again.
const AFTER_AUTH: Duration = Duration::from_millis(200);
/// Events of ephemeral kinds that can be sent again to a relay that wanted to know us first.
const KEPT: usize = 64;

/// Things put off at once, at most: far more subscriptions and unanswered events than there are.
const MOST_DUE: usize = 1_024;

/// Why an event is not known to be with a relay.
#[derive(Debug, Error)]
pub enum PoolError {
    /// The address is no ws or wss URL.
    #[error("relay {url:?}: expected a ws:// or wss:// address")]
    Url {
        /// The address.
        url: String,
        /// What the URL reader says.
        #[source]
        source: nostr_sdk::client::Error,
    },
    /// No relay took the event; each one's answer.
    #[error("no relay took the event: {reasons}")]
    NotTaken {
        /// `relay: reason`, joined by `; `.
        reasons: String,
    },
}

impl Classified for PoolError {
    fn kind(&self) -> Kind {
        match self {
            Self::Url { .. } => Kind::Permanent,
            Self::NotTaken { .. } => Kind::Transient,
        }
    }
}

/// Websockets whose incoming frames are filtered as text.
struct Filtered(FrameFilter);

impl std::fmt::Debug for Filtered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filtered")
    }
}

impl WebSocketTransport for Filtered {
    fn support_ping(&self) -> bool {
        DefaultWebsocketTransport.support_ping()
    }

    fn connect<'a>(
        &'a self,
        url: &'a nostr::Url,
        mode: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let (sink, stream) = DefaultWebsocketTransport.connect(url, mode, timeout).await?;
            let filter = self.0.clone();
            let kept = stream.filter(move |frame| {
                let keep = match frame {
                    Ok(Message::Text(text)) => filter(text),
                    _ => true,
                };
                std::future::ready(keep)
            });
            Ok((sink, Box::pin(kept) as WebSocketStream))
        })
    }
}

/// What is to be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Again {
    /// A subscription that a relay closed.
    Ask(SubscriptionId),
    /// An event that a relay did not take from a stranger.
    Send(RelayUrl, EventId),
}

/// What only the reading task touches.
struct Inbox {
    notifications: broadcast::Receiver<RelayPoolNotification>,
    /// What is to be done again, and when.
    due: Vec<(Instant, Again)>,
}

impl Inbox {
    /// The next thing that is due; it stays so until it is [`done`](Self::done).
    fn next_due(&self) -> Option<Again> {
        self.due.iter().min_by_key(|(at, _)| *at).map(|(_, what)| what.clone())
    }

    /// Does `what` after `rest`: once, however often a relay asks for it, and no relay can make the
    /// list long.
    fn later(&mut self, rest: Duration, what: Again) {
        if self.due.len() < MOST_DUE && self.due.iter().all(|(_, due)| *due != what) {
            self.due.push((Instant::now() + rest, what));
        }
    }

    fn done(&mut self, what: &Again) {
        self.due.retain(|(_, due)| due != what);
    }
}

/// Connections to a set of relays.
pub struct Pool {
    client: Client,
    inbox: Mutex<Inbox>,
    wanted: Mutex<HashMap<SubscriptionId, Filter>>,
    /// The last events of ephemeral kinds, each with the relays that got it twice.
    sent: Mutex<VecDeque<(Event, Vec<RelayUrl>)>>,
    lagged: AtomicU64,
}

impl Pool {
    /// Starts connecting to `relays`, answering NIP-42 challenges with `auth`. Frames that `filter`
    /// refuses are dropped before anything in them is verified.
    ///
    /// # Errors
    /// [`PoolError::Url`].
    pub async fn connect(
        auth: Keys,
        relays: &[String],
        filter: FrameFilter,
    ) -> Result<Self, PoolError> {
        let client = Client::builder()
            .signer(auth)
            .websocket_transport(Filtered(filter))
            .opts(ClientOptions::new().automatic_authentication(true))
            .build();
        let inbox = Inbox { notifications: client.notifications(), due: Vec::new() };
        for url in relays {
            let options = RelayOptions::new().retry_interval(RETRY).adjust_retry_interval(false);
            client
                .pool()
                .add_relay(url.as_str(), options)
                .await
                .map_err(|e| PoolError::Url { url: url.clone(), source: e.into() })?;
        }
        client.connect().await;
        Ok(Self {
            client,
            inbox: Mutex::new(inbox),
            wanted: Mutex::new(HashMap::new()),
            sent: Mutex::new(VecDeque::new()),
            lagged: AtomicU64::new(0),
        })
    }

    /// Asks all relays for `filter` under the name `id`, from now on and after each reconnect;
    /// replaces an earlier filter of that name.
    pub async fn subscribe(&self, id: &str, filter: Filter) {
        let id = SubscriptionId::new(id);
        self.wanted.lock().await.insert(id.clone(), filter.clone());
        self.ask(id, filter).await;
    }

    /// Stops asking for `id`.
    pub async fn unsubscribe(&self, id: &str) {
        let id = SubscriptionId::new(id);
        self.wanted.lock().await.remove(&id);
        self.client.unsubscribe(&id).await;
    }

    async fn ask(&self, id: SubscriptionId, filter: Filter) {
        if let Err(error) = self.client.subscribe_with_id(id.clone(), filter, None).await {
            tracing::info!(event = "relay_subscribe_failed", subscription = %id, %error);
        }
    }

    /// The next event that passed the filter and whose id and signature hold; `None` after
    /// [`close`](Self::close). To be called from one task.
    pub async fn next(&self) -> Option<Event> {
        let mut inbox = self.inbox.lock().await;
        loop {
            let due = inbox.due.iter().map(|(at, _)| *at).min();
            let received = tokio::select! {
                received = inbox.notifications.recv() => received,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let Some(what) = inbox.next_due() else { continue };
                    match &what {
                        Again::Ask(id) => {
                            let filter = self.wanted.lock().await.get(id).cloned();
                            if let Some(filter) = filter {
                                self.ask(id.clone(), filter).await;
                            }
                        }
                        Again::Send(relay, id) => self.send_again(relay, id).await,
                    }
                    // last, so that a caller who stops waiting in between loses nothing
                    inbox.done(&what);
                    continue;
                }
            };
            match received {
                Ok(RelayPoolNotification::Event { event, .. }) => return Some(*event),
                Ok(RelayPoolNotification::Message {
                    relay_url,
                    message: RelayMessage::Closed { subscription_id, message },
                }) => {
                    tracing::info!(
                        event = "relay_closed_subscription",
                        relay = %relay_url, subscription = %subscription_id, reason = %message
                    );
                    // after `auth-required` the SDK asks again by itself once it is authenticated
                    if !message.starts_with("auth-required") {
                        inbox.later(RETRY, Again::Ask(subscription_id.into_owned()));
                    }
                }
                Ok(RelayPoolNotification::Message {
                    relay_url,
                    message: RelayMessage::Ok { event_id, status: false, message },
                }) if message.starts_with("auth-required") => {
                    inbox.later(AFTER_AUTH, Again::Send(relay_url, event_id));
                }
                Ok(RelayPoolNotification::Message { .. }) => {}
                Ok(RelayPoolNotification::Shutdown) | Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(lost)) => {
                    self.lagged.fetch_add(lost, Ordering::Relaxed);
                    tracing::warn!(event = "relay_notifications_lost", lost);
                    let wanted = self.wanted.lock().await.clone();
                    for (id, filter) in wanted {
                        self.ask(id, filter).await;
                    }
                }
            }
        }
    }

    /// Notifications lost because they were not read in time, since the start.
    #[must_use]
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// Publishes an event of a stored kind and waits until at least one relay says OK; the relays
    /// that took it.
    ///
    /// # Errors
    /// [`PoolError::NotTaken`] with each relay's reason; to be tried again later.
    pub async fn publish(&self, event: &Event) -> Result<Vec<String>, PoolError> {
        let sent = self.client.send_event(event).await;
        let sent = sent.map_err(|e| PoolError::NotTaken { reasons: e.to_string() })?;
        if sent.success.is_empty() {
            let reasons: Vec<_> =
                sent.failed.iter().map(|(relay, reason)| format!("{relay}: {reason}")).collect();
            return Err(PoolError::NotTaken { reasons: reasons.join("; ") });
        }
        Ok(sent.success.iter().map(ToString::to_string).collect())
    }

    /// Hands an event of an ephemeral kind to every connected relay without waiting for an answer;
    /// how many relays it was handed to. One that says `auth-required:` gets it again once, while
    /// [`next`](Self::next) is being waited for. The sender keeps it until its reply comes.
    pub async fn send(&self, event: &Event) -> usize {
        {
            let mut sent = self.sent.lock().await;
            if sent.len() >= KEPT {
                sent.pop_front();
            }
            sent.push_back((event.clone(), Vec::new()));
        }
        let mut handed = 0;
        for relay in self.client.relays().await.values().filter(|relay| relay.is_connected()) {
            match relay.send_msg(ClientMessage::event(event.clone())) {
                Ok(()) => handed += 1,
                Err(error) => tracing::info!(
                    event = "relay_send_failed", relay = %relay.url(), %error
                ),
            }
        }
        handed
    }

    /// Sends an event that a relay refused before it knew us; once, so that a relay that will
    /// never know us is not asked for ever.
    async fn send_again(&self, relay: &RelayUrl, id: &EventId) {
        let event = {
            let mut sent = self.sent.lock().await;
            let kept =
                sent.iter_mut().find(|(event, twice)| event.id == *id && !twice.contains(relay));
            kept.map(|(event, twice)| {
                twice.push(relay.clone());
                event.clone()
            })
        };
        let (Some(event), Ok(relay)) = (event, self.client.relay(relay).await) else { return };
        if let Err(error) = relay.send_msg(ClientMessage::event(event)) {
            tracing::info!(event = "relay_send_failed", relay = %relay.url(), %error);
        }
    }

    /// Relays connected right now.
    pub async fn connected(&self) -> usize {
        self.client.relays().await.values().filter(|relay| relay.is_connected()).count()
    }

    /// Closes all connections; [`next`](Self::next) then ends.
    pub async fn close(&self) {
        self.client.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use nostr::EventBuilder;
    use nostr_relay_builder::MockRelay;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn note(keys: &Keys, text: &str) -> Event {
        EventBuilder::text_note(text).sign_with_keys(keys).unwrap()
    }

    async fn next(pool: &Pool) -> Event {
        tokio::time::timeout(PATIENCE, pool.next()).await.unwrap().unwrap()
    }

    async fn connected(relays: &[String], filter: FrameFilter) -> Pool {
        let pool = Pool::connect(Keys::generate(), relays, filter).await.unwrap();
        pool.client.wait_for_connection(PATIENCE).await;
        pool
    }

    /// Loss prevented: a flood of strangers' events that costs a signature check each.
    #[tokio::test]
    async fn what_the_frame_filter_refuses_never_comes_out() {
        let relay = MockRelay::run().await.unwrap();
        let url = vec![relay.url().await.to_string()];
        let (known, stranger) = (Keys::generate(), Keys::generate());
        let wanted = known.public_key().to_hex();
        let refused = Arc::new(AtomicBool::new(false));
        let seen = refused.clone();
        let filter: FrameFilter = Arc::new(move |text: &str| {
            let keep = !text.starts_with("[\"EVENT\"") || text.contains(&wanted);
            seen.fetch_or(!keep, Ordering::SeqCst);
            keep
        });
        let reader = connected(&url, filter).await;
        reader.subscribe("all", Filter::new()).await;
        let writer = connected(&url, Arc::new(|_: &str| true)).await;
        writer.publish(&note(&stranger, "junk")).await.unwrap();
        writer.publish(&note(&known, "good")).await.unwrap();
        assert_eq!(next(&reader).await.content, "good");
        assert!(refused.load(Ordering::SeqCst), "the stranger's event must have arrived first");
    }

    /// Loss prevented: a relay that closes a subscription without end fills the memory, or makes us
    /// flood all others.
    #[test]
    fn what_is_put_off_is_put_off_once_and_stays_bounded() {
        let notifications = broadcast::channel(1).1;
        let mut inbox = Inbox { notifications, due: Vec::new() };
        let ask = |n: usize| Again::Ask(SubscriptionId::new(n.to_string()));
        for n in 0..3 * MOST_DUE {
            inbox.later(RETRY, ask(7));
            inbox.later(RETRY, ask(n));
        }
        assert_eq!(inbox.due.len(), MOST_DUE);
        assert_eq!(inbox.due.iter().filter(|(_, due)| *due == ask(7)).count(), 1);
        assert_eq!(inbox.next_due(), Some(ask(7)));
        inbox.done(&ask(7));
        assert_eq!(inbox.next_due(), Some(ask(0)));
    }

    /// Loss prevented: an event that two relays carry is handled twice.
    #[tokio::test]
    async fn an_event_on_two_relays_comes_out_once() {
        let (one, two) = (MockRelay::run().await.unwrap(), MockRelay::run().await.unwrap());
        let urls = vec![one.url().await.to_string(), two.url().await.to_string()];
        let keys = Keys::generate();
        let writer = connected(&urls, Arc::new(|_: &str| true)).await;
        let first = note(&keys, "first");
        while writer.publish(&first).await.unwrap().len() < 2 {}
        writer.publish(&note(&keys, "second")).await.unwrap();
        let reader = connected(&urls, Arc::new(|_: &str| true)).await;
        reader.subscribe("all", Filter::new().author(keys.public_key())).await;
        let got = [next(&reader).await.content, next(&reader).await.content];
        let mut sorted = got.clone();
        sorted.sort();
        assert_eq!(sorted, ["first", "second"], "{got:?}");
    }

    /// Loss prevented: the first request after each reconnect is lost to a relay that asks who we
    /// are, and a customer waits for its repetition.
    #[tokio::test]
    async fn what_a_relay_refused_before_it_knew_us_is_sent_again() {
        use nostr_relay_builder::LocalRelay;
        use nostr_relay_builder::builder::{
            RelayBuilder, RelayBuilderNip42, RelayBuilderNip42Mode,
        };
        let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
        let relay = LocalRelay::new(RelayBuilder::default().nip42(nip42));
        relay.run().await.unwrap();
        let url = vec![relay.url().await.to_string()];
        let keep: FrameFilter = Arc::new(|_: &str| true);
        let keys = Keys::generate();
        let ephemeral = |text: &str| {
            EventBuilder::new(nostr::Kind::from(21_000), text).sign_with_keys(&keys).unwrap()
        };
        let reader = connected(&url, keep.clone()).await;
        reader.subscribe("all", Filter::new().author(keys.public_key())).await;
        // once one of these arrives, the reader is known and its subscription open
        let known = connected(&url, keep.clone()).await;
        let probing = async {
            for n in 0.. {
                known.client.send_event(&ephemeral(&n.to_string())).await.unwrap();
            }
        };
        tokio::select! {
            _ = next(&reader) => {}
            () = probing => {}
        }
        let writer = connected(&url, keep).await;
        let event = ephemeral("refused at first");
        assert_eq!(writer.send(&event).await, 1);
        let arrived = async { while next(&reader).await.id != event.id {} };
        tokio::select! {
            () = arrived => {}
            _ = writer.next() => panic!("the writer has no subscription"),
        }
    }

    /// Loss prevented: an outbox row marked as delivered that no relay ever took.
    #[tokio::test]
    async fn publishing_without_a_relay_says_so() {
        let nobody = vec!["ws://127.0.0.1:1".to_string()];
        let pool =
            Pool::connect(Keys::generate(), &nobody, Arc::new(|_: &str| true)).await.unwrap();
        let answer = pool.publish(&note(&Keys::generate(), "lost")).await;
        assert!(matches!(answer, Err(PoolError::NotTaken { .. })), "{answer:?}");
        assert_eq!(pool.send(&note(&Keys::generate(), "lost")).await, 0);
        let wrong = ["http://x".to_string()];
        let refused = Pool::connect(Keys::generate(), &wrong, Arc::new(|_: &str| true)).await;
        assert!(matches!(refused, Err(PoolError::Url { .. })));
    }
}
