//! One connection as the rest of the relay sees it: its keys, its queue, the way to close it.
//!
//! Promise: nobody ever waits for a connection. What does not fit into its queue closes it, counted
//! by its cause; the first cause stands.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bitspire_shared::time::Unix;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::stats::{Count, RelayStats};

/// Number of a connection since the start.
pub(super) type PeerId = u64;

/// An event on its way to many connections.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) json: String,
    /// Last second in which it may be delivered (NIP-40).
    pub(super) expires: Option<Unix>,
}

/// What waits in a connection's queue.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A finished message.
    Text(String),
    /// An event for the subscription with this id (as a JSON string).
    Event { id_json: String, parcel: Arc<Parcel> },
}

/// Why the relay closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Overflow,
    Stalled,
    Idle,
    Revoked,
    Abusive,
    NeverAuthenticated,
    Evicted,
    Shutdown,
}

impl Cause {
    /// Close code of RFC 6455 (7.4.1; 1013 by IANA's registry) and a reason.
    pub(super) const fn frame(self) -> (u16, &'static str) {
        match self {
            Self::Overflow => (1013, "too slow: the queue is full"),
            Self::Stalled => (1013, "too slow: a write took too long"),
            Self::Idle => (1001, "silent for too long"),
            Self::Revoked => (1008, "revoked"),
            Self::Abusive => (1008, "too many bad frames"),
            Self::NeverAuthenticated => (1008, "auth-required: no authentication in time"),
            Self::Evicted => (1013, "room was needed; try again"),
            Self::Shutdown => (1001, "the relay is going down"),
        }
    }

    /// The counter, if it is one of those that tell of trouble.
    const fn count(self) -> Option<Count> {
        match self {
            Self::Overflow => Some(Count::Overflows),
            Self::Stalled => Some(Count::Stalled),
            Self::Idle => Some(Count::Idle),
            Self::Revoked => Some(Count::Revoked),
            Self::Abusive => Some(Count::Abusive),
            Self::NeverAuthenticated => Some(Count::NeverAuthenticated),
            Self::Evicted => Some(Count::Evicted),
            Self::Shutdown => None,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// Keys that authenticated here (NIP-42 allows several).
    keys: Mutex<Arc<[[u8; 32]]>>,
    queue: mpsc::Sender<Outgoing>,
    cause: OnceLock<Cause>,
    closed: CancellationToken,
}

impl Peer {
    /// A connection with a queue of `depth` messages, and the end that its task reads; closed when
    /// `closed` is cancelled.
    pub(super) fn new(
        id: PeerId,
        depth: usize,
        closed: CancellationToken,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, waiting) = mpsc::channel(depth);
        let peer =
            Self { id, keys: Mutex::new(Arc::new([])), queue, cause: OnceLock::new(), closed };
        (peer, waiting)
    }

    /// The keys that authenticated.
    pub(super) fn keys(&self) -> Arc<[[u8; 32]]> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a key, if it is a new one.
    pub(super) fn add_key(&self, key: [u8; 32]) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(&key) {
            *keys = keys.iter().copied().chain([key]).collect();
        }
    }

    /// Puts a message into the queue; a full one closes the connection. False once it is closed.
    pub(super) fn push(&self, message: Outgoing, stats: &RelayStats) -> bool {
        match self.queue.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.close(Cause::Overflow, stats);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Closes the connection now, whatever it is doing.
    pub(super) fn close(&self, cause: Cause, stats: &RelayStats) {
        if self.cause.set(cause).is_ok() {
            if let Some(count) = cause.count() {
                stats.add(count);
            }
            self.closed.cancel();
        }
    }

    /// Why the relay closed it, if it did.
    pub(super) fn cause(&self) -> Option<Cause> {
        let down = self.closed.is_cancelled().then_some(Cause::Shutdown);
        self.cause.get().copied().or(down)
    }

    /// Done as soon as [`close`](Self::close) was called or the relay goes down.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
