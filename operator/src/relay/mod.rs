//! The embedded Nostr relay: small, private to one operator, on the service's own HTTP listener.
//!
//! Promise: only keys of the roster (see [`Access`]) get anything done, each in its own name and
//! with its own mail; a stranger can ask to be paired, slowly, and, where the operator has opened that
//! door, ask the service by CLINK, within bounds of its own. An event costs by
//! its addressees, not by the connections. Kinds 20000-29999 are passed on and never stored; kind
//! 30078 is stored durably before it is acknowledged. NIP-01, 11, 40, 42.
//!
//! Failure policy: a client that is slow, silent, revoked or abusive is closed and counted; no
//! other waits for it. When the disk fails, documents are refused and ephemeral events, which are
//! the sales, still pass.

mod access;
mod auth;
mod config;
mod connection;
mod index;
mod limits;
mod message;
mod peer;
mod rules;
mod session;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use bitspire_shared::admit::Head;
use bitspire_shared::ids::{PubKey, to_hex};
use bitspire_shared::nip01;
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::checked;
use nostr::{Event, JsonUtil};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::{Access, Role};
pub use config::{Config, Limits};
pub use stats::{Count, Refusal, RelayStats};

use crate::http::listen::{Bounds, listen};
use crate::store::relay_docs::RelayDocs;
use connection::Connection;
use index::{Index, Subscription};
use limits::Buckets;
use peer::{Cause, Outgoing, Parcel, Peer, PeerId};

/// Read buffer of one connection; the default of 128 KiB would be most of the relay's memory.
const READ_BUFFER: usize = 4096;
/// Time between two removals of expired documents.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The relay. Clones are handles of the same one.
#[derive(Clone)]
pub struct Relay(Arc<Core>);

struct Core {
    config: Config,
    access: Arc<dyn Access>,
    documents: RelayDocs,
    stats: RelayStats,
    buckets: Buckets,
    index: RwLock<Index>,
    registry: Mutex<Registry>,
    started: Instant,
    token: CancellationToken,
    tasks: TaskTracker,
}

/// The connections.
#[derive(Default)]
struct Registry {
    last: PeerId,
    peers: HashMap<PeerId, Arc<Peer>>,
    /// Those without a rostered key, oldest first.
    strangers: BTreeMap<PeerId, Arc<Peer>>,
}

/// Serves `relay` alone on `listener` until its token is cancelled and its last task has ended.
pub async fn serve(listener: TcpListener, relay: Relay) {
    listen(listener, relay.router(), Bounds::default(), relay.0.token.clone()).await;
    relay.stopped().await;
}

async fn enter(
    State(relay): State<Relay>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => relay.upgrade(upgrade),
        Err(rejection) => {
            let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
            if accept.is_some_and(|accept| accept.contains("application/nostr+json")) {
                relay.information()
            } else {
                rejection.into_response()
            }
        }
    }
}

impl Relay {
    /// Starts a relay; its tasks end when `token` is cancelled. To be called on a tokio runtime.
    #[must_use]
    pub fn new(
        config: Config,
        access: Arc<dyn Access>,
        documents: RelayDocs,
        token: CancellationToken,
    ) -> Self {
        let relay = Self(Arc::new(Core {
            buckets: Buckets::new(&config.limits),
            config,
            access,
            documents,
            stats: RelayStats::default(),
            index: RwLock::default(),
            registry: Mutex::default(),
            started: Instant::now(),
            token,
            tasks: TaskTracker::new(),
        }));
        relay.0.tasks.spawn(relay.clone().keep_house());
        relay
    }

    /// The route `/` with websockets and NIP-11, to be mounted or nested.
    pub fn router(&self) -> Router {
        Router::new().route("/", any(enter)).with_state(self.clone())
    }

    /// Closes every connection that authenticated as `key`, at once; how many there were. What may
    /// come later is the roster's to refuse.
    pub fn close_client(&self, key: &PubKey) -> usize {
        let peers: Vec<_> = self.registry().peers.values().cloned().collect();
        let key = key.to_bytes();
        let theirs = peers.iter().filter(|peer| peer.keys().contains(&key));
        theirs.map(|peer| self.close(peer, Cause::Revoked)).count()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &RelayStats {
        &self.0.stats
    }

    /// Done when the token is cancelled and the last task has ended.
    pub async fn stopped(&self) {
        self.0.token.cancelled().await;
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn information(&self) -> Response {
        let open = [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
        let kind = [(header::CONTENT_TYPE, "application/nostr+json")];
        let information = self.0.config.information(self.access().clink().is_some());
        (open, kind, Json(information)).into_response()
    }

    fn upgrade(&self, upgrade: WebSocketUpgrade) -> Response {
        let mut random = [0; 32];
        let Ok(()) = getrandom::fill(&mut random) else {
            tracing::error!(event = "relay_no_randomness");
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let Some((peer, queue)) = self.welcome() else {
            self.count(Count::Full);
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let connection = Connection::new(self.clone(), peer, queue, to_hex(&random));
        let largest = self.0.config.limits.message_bytes;
        let tasks = self.0.tasks.clone();
        upgrade
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(READ_BUFFER)
            .max_message_size(largest)
            .max_frame_size(largest)
            .on_upgrade(move |socket| tasks.track_future(connection.run(socket)))
    }

    /// Makes a place for a new connection.
    fn welcome(&self) -> Option<(Arc<Peer>, mpsc::Receiver<Outgoing>)> {
        let limits = &self.0.config.limits;
        let mut registry = self.registry();
        if registry.peers.len() >= limits.connections || self.0.token.is_cancelled() {
            return None;
        }
        if registry.strangers.len() >= limits.strangers {
            // the oldest has had its time; a machine authenticates within moments
            while let Some((_, oldest)) = registry.strangers.pop_first() {
                if !rules::is_rostered(self.access(), &oldest.keys()) {
                    self.close(&oldest, Cause::Evicted);
                    break;
                }
            }
        }
        registry.last += 1;
        let id = registry.last;
        let (peer, queue) = Peer::new(id, limits.queue, self.0.token.child_token());
        let peer = Arc::new(peer);
        registry.peers.insert(id, peer.clone());
        registry.strangers.insert(id, peer.clone());
        self.count(Count::Opened);
        Some((peer, queue))
    }

    /// Takes a connection out, with all its subscriptions.
    fn leave<'a>(&self, peer: &Peer, subscriptions: impl Iterator<Item = &'a Arc<Subscription>>) {
        subscriptions.for_each(|subscription| self.unsubscribe(subscription));
        let mut registry = self.registry();
        registry.peers.remove(&peer.id);
        registry.strangers.remove(&peer.id);
        self.count(Count::Closed);
    }

    /// Notes that a connection has authenticated one more key.
    fn authenticated(&self, peer: &Peer) {
        if rules::is_rostered(self.access(), &peer.keys()) {
            self.registry().strangers.remove(&peer.id);
        }
    }

    fn subscribe(&self, subscription: &Arc<Subscription>) {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner).insert(subscription);
    }

    fn unsubscribe(&self, subscription: &Arc<Subscription>) {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner).remove(subscription);
    }

    /// Puts a verified event into the queue of each subscription that takes it and whose
    /// connection may read it at this moment.
    fn route(&self, event: &Event, head: &Head) {
        let index = self.0.index.read().unwrap_or_else(PoisonError::into_inner);
        let candidates = index.candidates(head);
        drop(index);
        let mut parcel = None;
        for subscription in candidates {
            let keys = subscription.peer.keys();
            if !subscription.takes(event) || !rules::may_read(self.access(), &keys, head) {
                continue;
            }
            // written once, by us: what one client sent as JSON is not what another has to read
            let parcel = parcel.get_or_insert_with(|| {
                Arc::new(Parcel { json: event.as_json(), expires: head.expiration })
            });
            let id_json = subscription.id_json.clone();
            if self.push(&subscription.peer, Outgoing::Event { id_json, parcel: parcel.clone() }) {
                self.count(Count::Delivered);
            }
        }
    }

    /// Checks id, then signature.
    fn verify(&self, event: &Event) -> Result<(), Refusal> {
        if !nip01::id_holds(event) {
            return Err(Refusal::Id);
        }
        self.count(Count::SignatureChecks);
        checked::signature_holds(event).then_some(()).ok_or(Refusal::Signature)
    }

    fn may_read(&self, peer: &Peer, event: &Event) -> bool {
        Head::of(event).is_ok_and(|head| rules::may_read(self.access(), &peer.keys(), &head))
    }

    fn push(&self, peer: &Peer, message: Outgoing) -> bool {
        peer.push(message, &self.0.stats)
    }

    fn close(&self, peer: &Peer, cause: Cause) {
        peer.close(cause, &self.0.stats);
    }

    /// Counts a refusal, and logs it unless too many were logged lately.
    fn refuse(&self, refusal: Refusal, peer: &Peer) {
        self.0.stats.refuse(refusal);
        if refusal != Refusal::AuthRequired && self.0.buckets.allows_log(self.mono()) {
            let client = peer.keys().first().map(|key| to_hex(key.split_at(4).0));
            tracing::warn!(
                event = "relay_refused",
                reason = refusal.label(),
                client = client.as_deref().unwrap_or("unauthenticated"),
            );
        }
    }

    async fn keep_house(self) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        let token = self.0.token.clone();
        while token.run_until_cancelled(tick.tick()).await.is_some() {
            if let Err(error) = self.0.documents.sweep(self.now()).await {
                tracing::warn!(event = "relay_sweep_failed", %error);
            }
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self) -> &dyn Access {
        self.0.access.as_ref()
    }

    fn config(&self) -> &Config {
        &self.0.config
    }

    fn documents(&self) -> &RelayDocs {
        &self.0.documents
    }

    fn buckets(&self) -> &Buckets {
        &self.0.buckets
    }

    fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    fn count(&self, count: Count) {
        self.0.stats.add(count);
    }

    fn now(&self) -> Unix {
        self.0.config.clock.now()
    }

    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
