//! Connections to relays: nostr-sdk's client on a short leash.
//!
//! Promise: an event that comes out of [`Pool::next`] passed the caller's frame filter *before*
//! any signature was checked, then id and signature were verified, and it comes out once however
//! many relays carry it. Subscriptions stay open: one that a relay closes, or that was made while a
//! relay was down, is asked for again.
//!
//! Failure policy: what was not read in time is counted and answered by subscribing again, once the
//! reader has caught up and once for all that was lost by then (stored kinds come back, ephemeral ones
//! are the sender's to retry); a relay that is down, or closes a subscription, is asked again for ever,
//! after rests that grow and that chance spreads.
//! Kinds 20000-29999 are sent without waiting, since relays need not answer them (NIP-01).

mod backoff;
mod inbox;
mod intake;
mod line;
mod said;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nostr::JsonUtil as _;
use nostr_relay_pool::{RelayOptions, RelayPoolNotification};
use nostr_sdk::{
    Client, ClientMessage, ClientOptions, Event, EventId, Filter, Keys, RelayMessage, RelayUrl,
    SubscriptionId, Url,
};
use thiserror::Error;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use bitspire_shared::error::{Classified, Kind};

use self::backoff::Backoff;
use self::inbox::{Again, Inbox};
use self::intake::Intake;
use self::line::{Filtered, Line, Lines, chance};
pub use self::line::{RelayHealth, RelayState};

/// Decides on the text of one relay message before anything in it is verified. It is called with
/// whatever a relay sends, on the task that reads from it: it must not block or panic.
pub trait Keeps: Send + Sync {
    /// Whether the message is worth the check of its signature.
    fn keeps(&self, text: &str) -> bool;

    /// The event that was kept last has another's id, or is not signed by the author that it names.
    fn forged(&self, event: &Event) {
        let _ = event;
    }
}

impl<F: Fn(&str) -> bool + Send + Sync> Keeps for F {
    fn keeps(&self, text: &str) -> bool {
        self(text)
    }
}

/// The filter of a pool's messages.
pub type FrameFilter = Arc<dyn Keeps>;

/// How long an authentication takes its time before what it held up is sent again.
const AFTER_AUTH: Duration = Duration::from_millis(200);
/// Events of ephemeral kinds that can be sent again to a relay that wanted to know us first.
const KEPT: usize = 64;

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

/// What a relay's answer means for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    /// It has the event, or a newer one of its address.
    Taken,
    /// It takes it once it knows us.
    WhoAreYou,
    /// It takes it, but not so fast.
    Later,
    /// It will not carry it for us, now or later.
    NotForUs,
    /// It did not take it.
    Failed,
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
    intake: Arc<Intake>,
    inbox: Mutex<Inbox>,
    wanted: Mutex<HashMap<SubscriptionId, Filter>>,
    sent: Mutex<VecDeque<Sent>>,
    lines: Lines,
    /// How long a message each relay takes, where it says so.
    most_bytes: std::sync::Mutex<HashMap<RelayUrl, usize>>,
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
        let (intake, events) = Intake::new(filter);
        let (intake, lines) = (Arc::new(intake), Lines::default());
        let client = Client::builder()
            .signer(auth)
            .websocket_transport(Filtered { intake: intake.clone(), lines: lines.clone() })
            .opts(ClientOptions::new().automatic_authentication(true))
            .build();
        let notifications = client.notifications();
        let inbox = Inbox::new(notifications, events);
        for url in relays {
            // the rests are the transport's
            let options =
                RelayOptions::new().retry_interval(Duration::ZERO).adjust_retry_interval(false);
            client
                .pool()
                .add_relay(url.as_str(), options)
                .await
                .map_err(|e| PoolError::Url { url: url.clone(), source: e.into() })?;
        }
        client.connect().await;
        Ok(Self {
            client,
            intake,
            inbox: Mutex::new(inbox),
            wanted: Mutex::new(HashMap::new()),
            sent: Mutex::new(VecDeque::new()),
            lines,
            most_bytes: std::sync::Mutex::default(),
        })
    }

    /// Asks all relays for `filter` under the name `id`, from now on and after each reconnect;
    /// replaces an earlier filter of that name.
    pub async fn subscribe(&self, id: &str, filter: Filter) {
        let id = SubscriptionId::new(id);
        // held while it is sent, here and below: an older filter must not follow a newer one
        let mut wanted = self.wanted.lock().await;
        wanted.insert(id.clone(), filter.clone());
        self.ask(id, filter).await;
    }

    /// Stops asking for `id`.
    pub async fn unsubscribe(&self, id: &str) {
        let id = SubscriptionId::new(id);
        let mut wanted = self.wanted.lock().await;
        wanted.remove(&id);
        self.client.unsubscribe(&id).await;
    }

    async fn ask(&self, id: SubscriptionId, filter: Filter) {
        match self.client.subscribe_with_id(id.clone(), filter, None).await {
            // the SDK forgets it for these: it asks after a reconnect for what it once sent
            Ok(output) => output.failed.keys().for_each(|relay| self.lines.in_vain(relay.into())),
            Err(error) => {
                tracing::info!(event = "relay_subscribe_failed", subscription = %id, %error);
                for (relay, _) in self.client.relays().await {
                    self.lines.in_vain((&relay).into());
                }
            }
        }
    }

    /// Puts what is wanted of relays that are connected anew, or were asked in vain, on the list:
    /// whatever became of it on an earlier connection.
    async fn want_of_fresh(&self, inbox: &mut Inbox) {
        let relays = self.client.relays().await;
        let wanted = self.wanted.lock().await;
        // nothing is waited for from here on: a caller who stops waiting loses none of them
        let fresh = self.lines.take_fresh();
        let fresh = |relay: &&RelayUrl| fresh.contains(<&Url>::from(*relay).as_str());
        for relay in relays.keys().filter(fresh) {
            for id in wanted.keys() {
                let what = Again::Ask(relay.clone(), id.clone());
                inbox.done(&what);
                inbox.later(AFTER_AUTH, what);
            }
        }
    }

    /// The next event that passed the filter and whose id and signature hold; `None` after
    /// [`close`](Self::close). To be called from one task.
    pub async fn next(&self) -> Option<Event> {
        let mut inbox = self.inbox.lock().await;
        loop {
            inbox.lose(self.intake.take_lost());
            if inbox.lost > 0 && inbox.has_caught_up() {
                self.ask_anew(inbox.lost).await;
                // last, so that a caller who stops waiting in between has it done by the next one
                inbox.lost = 0;
            }
            let due = inbox.due.iter().map(|(at, _)| *at).min();
            let Inbox { notifications, events, .. } = &mut *inbox;
            let received = tokio::select! {
                received = notifications.recv() => received,
                Some(event) = events.recv() => return Some(event),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let Some(what) = inbox.next_due() else { continue };
                    let again = match &what {
                        Again::Ask(relay, id) => {
                            inbox.asked(relay, id);
                            let sent = self.ask_again(relay, id).await;
                            (!sent).then(|| inbox.rest(relay, id))
                        }
                        Again::Send(relay, id) => {
                            self.send_again(relay, id).await;
                            None
                        }
                    };
                    // last, so that a caller who stops waiting in between loses nothing
                    inbox.done(&what);
                    if let Some(rest) = again {
                        inbox.later(rest, what);
                    }
                    continue;
                }
                () = self.lines.freshened() => {
                    self.want_of_fresh(&mut inbox).await;
                    continue;
                }
            };
            match received {
                // every event comes by the intake, once
                Ok(RelayPoolNotification::Event { .. }) => {}
                Ok(RelayPoolNotification::Message { relay_url, message }) => {
                    self.heard(&mut inbox, relay_url, message).await;
                }
                Ok(RelayPoolNotification::Shutdown) | Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(lost)) => inbox.lose(lost),
            }
        }
    }

    /// So much was not read in time: what relays keep is asked for once more.
    async fn ask_anew(&self, lost: u64) {
        tracing::warn!(event = "relay_notifications_lost", lost);
        let wanted = self.wanted.lock().await;
        for (id, filter) in wanted.iter() {
            self.ask(id.clone(), filter.clone()).await;
        }
    }

    /// One message of a relay, other than a new event.
    async fn heard(&self, inbox: &mut Inbox, relay: RelayUrl, message: RelayMessage<'_>) {
        match message {
            RelayMessage::Closed { subscription_id, message } => {
                let id = subscription_id.into_owned();
                tracing::info!(
                    event = "relay_closed_subscription", %relay, subscription = %id,
                    reason = said::words(&message)
                );
                {
                    let wanted = self.wanted.lock().await;
                    inbox.closed.retain(|(_, id), _| wanted.contains_key(id));
                    if !wanted.contains_key(&id) {
                        return;
                    }
                }
                // one that wants to know us first is asked by the SDK as soon as it does, and here
                // again, should it never say so
                if !said::asks_who_we_are(&message) {
                    self.line(&relay).refused(said::words(&message));
                }
                let rest = inbox.rest(&relay, &id);
                inbox.later(rest, Again::Ask(relay, id));
            }
            RelayMessage::Ok { event_id, status, message } => {
                let answered = said::of_event(status, &message);
                match answered {
                    Answered::Taken => self.line(&relay).took(),
                    Answered::WhoAreYou => {
                        inbox.later(AFTER_AUTH, Again::Send(relay, event_id));
                    }
                    Answered::Later => {
                        self.line(&relay).refused(said::words(&message));
                        let rest = Backoff::default().failed(Duration::ZERO, chance());
                        inbox.later(rest, Again::Send(relay, event_id));
                    }
                    Answered::NotForUs | Answered::Failed => {
                        self.line(&relay).refused(said::words(&message));
                        if answered == Answered::NotForUs {
                            self.not_for_us(relay, event_id, &message).await;
                        }
                    }
                }
            }
            _ => {}
        }
    }

    async fn not_for_us(&self, relay: RelayUrl, id: EventId, said: &str) {
        let mut sent = self.sent.lock().await;
        if let Some(Sent { refused, .. }) = sent.iter_mut().find(|sent| sent.event.id == id)
            && refused.iter().all(|(by, _)| *by != relay)
        {
            refused.push((relay, said::words(said)));
        }
    }

    fn line(&self, relay: &RelayUrl) -> Arc<Line> {
        self.lines.of(relay.into())
    }

    /// Whether it was sent, or need not be: what a relay that is down misses, it is asked for once
    /// it is back.
    async fn ask_again(&self, relay: &RelayUrl, id: &SubscriptionId) -> bool {
        let wanted = self.wanted.lock().await;
        let Some(filter) = wanted.get(id).cloned() else { return true };
        let Ok(relay) = self.client.relay(relay).await else { return true };
        let asked = relay.subscribe_with_id(id.clone(), filter, Default::default()).await;
        let Err(error) = asked else { return true };
        tracing::info!(event = "relay_subscribe_failed", subscription = %id, %error);
        !self.line(relay.url()).is_up()
    }

    /// Publishes an event of a stored kind and waits until at least one relay says OK; the relays
    /// that took it. While some are connected, the others are not waited for.
    ///
    /// # Errors
    /// [`PoolError::NotTaken`] with each relay's reason; to be tried again later.
    pub async fn publish(&self, event: &Event) -> Result<Vec<String>, PoolError> {
        let (mut up, mut all) = (Vec::new(), Vec::new());
        let mut reasons = Vec::new();
        for (url, relay) in self.client.relays().await {
            if let Some(words) = self.too_long_for(&url, event) {
                reasons.push(format!("{url}: {words}"));
            } else {
                if relay.is_connected() {
                    up.push(url.clone());
                }
                all.push(url);
            }
        }
        let to = if up.is_empty() { all } else { up };
        let mut taken = Vec::new();
        self.intake.sent(event.id);
        if !to.is_empty() {
            let sent = self.client.send_event_to(to, event).await;
            let sent = sent.map_err(|e| PoolError::NotTaken { reasons: e.to_string() })?;
            taken.extend(sent.success.iter().map(ToString::to_string));
            for (relay, reason) in &sent.failed {
                if said::of_event(false, reason) == Answered::Taken {
                    taken.push(relay.to_string());
                } else {
                    reasons.push(format!("{relay}: {reason}"));
                }
            }
        }
        if taken.is_empty() {
            return Err(PoolError::NotTaken { reasons: reasons.join("; ") });
        }
        Ok(taken)
    }

    /// What `relay` says of itself (NIP-11, `max_message_length`): it is not sent longer messages,
    /// for which some relays would drop the connection; `None` where it names no bound.
    pub fn set_most_bytes(&self, relay: &str, bytes: Option<usize>) {
        if let Ok(relay) = RelayUrl::parse(relay) {
            let mut most = self.most_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            match bytes {
                Some(bytes) => most.insert(relay, bytes),
                None => most.remove(&relay),
            };
        }
    }

    /// Why `relay` does not get `event`, where the message with it is longer than it takes; the
    /// relay's health tells it too.
    fn too_long_for(&self, relay: &RelayUrl, event: &Event) -> Option<String> {
        let most = {
            let most = self.most_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            most.get(relay).copied()?
        };
        // ["EVENT",..]
        if event.as_json().len().saturating_add(10) <= most {
            return None;
        }
        let words = format!("the event is longer than the {most} bytes that it takes");
        self.line(relay).refused(words.clone());
        Some(words)
    }

    /// Hands an event of an ephemeral kind to every connected relay without waiting for an answer;
    /// how many relays it was handed to. One that says `auth-required:` or `rate-limited:` gets it
    /// again once, while [`next`](Self::next) is being waited for. The sender keeps it until its reply comes.
    pub async fn send(&self, event: &Event) -> usize {
        {
            let mut sent = self.sent.lock().await;
            if sent.len() >= KEPT {
                sent.pop_front();
            }
            sent.push_back(Sent { event: event.clone(), twice: Vec::new(), refused: Vec::new() });
        }
        let mut handed = 0;
        for (url, relay) in self.client.relays().await {
            if self.too_long_for(&url, event).is_some() || !relay.is_connected() {
                continue;
            }
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

    /// Somebody waits: relays that rest are tried soon.
    pub fn hurry(&self) {
        self.lines.hurry();
    }

    /// How each relay has been.
    #[must_use]
    pub fn health(&self) -> Vec<RelayHealth> {
        self.lines.health()
    }

    /// How many connections are there, from now on; [`connected`](Self::connected) may follow a
    /// moment later.
    #[must_use]
    pub fn up(&self) -> watch::Receiver<usize> {
        self.lines.up()
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
