//! Connections to relays: nostr-sdk's client on a short leash.
//!
//! Promise: an event that comes out of [`Pool::next`] passed the caller's frame filter *before*
//! any signature was checked, then id and signature were verified, and it comes out once however
//! many relays carry it. Subscriptions stay open: one that a relay closes is asked for again.
//!
//! Failure policy: lost notifications are counted and answered by subscribing again (stored kinds
//! come back, ephemeral ones are the sender's to retry); a relay that is down is retried for ever.
//! Kinds 20000-29999 are sent without waiting, since relays need not answer them (NIP-01).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
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

/// How a relay begins that will not carry an event for us, now or later (NIP-01).
const NOT_FOR_US: [&str; 2] = ["restricted:", "blocked:"];
/// Characters of a relay's own words that are kept.
const WORDS: usize = 200;

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

/// What a relay said, fit for a screen.
fn words(said: &str) -> String {
    said.chars().filter(|character| !character.is_control()).take(WORDS).collect()
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

/// One of the last events of ephemeral kinds.
struct Sent {
    event: Event,
    /// The relays that got it twice.
    twice: Vec<RelayUrl>,
    /// The relays that will not carry it for us, and what they said.
    refused: Vec<(RelayUrl, String)>,
}

/// Connections to a set of relays.
pub struct Pool {
    client: Client,
    inbox: Mutex<Inbox>,
    wanted: Mutex<HashMap<SubscriptionId, Filter>>,
    sent: Mutex<VecDeque<Sent>>,
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
                Ok(RelayPoolNotification::Message {
                    relay_url,
                    message: RelayMessage::Ok { event_id, status: false, message },
                }) if NOT_FOR_US.iter().any(|prefix| message.starts_with(prefix)) => {
                    let mut sent = self.sent.lock().await;
                    let known = sent.iter_mut().find(|sent| sent.event.id == event_id);
                    if let Some(Sent { refused, .. }) = known
                        && refused.iter().all(|(relay, _)| *relay != relay_url)
                    {
                        refused.push((relay_url, words(&message)));
                    }
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
            sent.push_back(Sent { event: event.clone(), twice: Vec::new(), refused: Vec::new() });
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

    /// The relays that will not carry one of the last events sent, and what they said to it. They
    /// say so while [`next`](Self::next) is being waited for, if they do.
    pub async fn refusals(&self) -> BTreeMap<String, String> {
        let sent = self.sent.lock().await;
        let refused = sent.iter().flat_map(|sent| &sent.refused);
        refused.map(|(relay, said)| (relay.to_string(), said.clone())).collect()
    }

    /// Sends an event that a relay refused before it knew us; once, so that a relay that will
    /// never know us is not asked for ever.
    async fn send_again(&self, relay: &RelayUrl, id: &EventId) {
        let event = {
            let mut sent = self.sent.lock().await;
            let kept =
                sent.iter_mut().find(|sent| sent.event.id == *id && !sent.twice.contains(relay));
            kept.map(|sent| {
                sent.twice.push(relay.clone());
                sent.event.clone()
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
