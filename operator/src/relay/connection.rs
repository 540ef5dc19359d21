//! One websocket: reads frames, writes answers and queued events, keeps time.
//!
//! Promise: a connection waits for nobody but its own client, and for that one only for the write
//! deadline. Whoever closes it (revocation, overflow, shutdown) is heard at once, also in the middle
//! of a write.
//!
//! States: unauthenticated (with a deadline) -> authenticated -> closed. Failure policy: a broken
//! socket ends the connection; its subscriptions and its place go with it, however it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::SinkExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::index::Subscription;
use super::message;
use super::peer::{Cause, Outgoing, Peer};
use super::stats::{Count, Refusal};
use super::{Relay, limits::ConnectionBuckets};

/// Queued messages that are written with one flush.
const BATCH: usize = 32;
/// Time for the closing handshake.
const FAREWELL: Duration = Duration::from_secs(1);
/// Policy violation (RFC 6455, 7.4.1).
const POLICY: u16 = 1008;

/// The connection is over.
#[derive(Debug)]
pub(super) struct Gone;

/// One connection's task.
pub(super) struct Connection {
    pub(super) relay: Relay,
    pub(super) peer: Arc<Peer>,
    queue: mpsc::Receiver<Outgoing>,
    pub(super) challenge: String,
    pub(super) subscriptions: HashMap<String, Arc<Subscription>>,
    pub(super) buckets: ConnectionBuckets,
    /// Documents on their way to the disk.
    pub(super) writes: Arc<Semaphore>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.relay.leave(&self.peer, self.subscriptions.values());
    }
}

impl Connection {
    pub(super) fn new(
        relay: Relay,
        peer: Arc<Peer>,
        queue: mpsc::Receiver<Outgoing>,
        challenge: String,
    ) -> Self {
        let limits = &relay.config().limits;
        let buckets = ConnectionBuckets::new(limits);
        let writes = Arc::new(Semaphore::new(limits.writes));
        Self { peer, queue, challenge, subscriptions: HashMap::new(), buckets, writes, relay }
    }

    /// Serves the socket until it is closed from either side.
    pub(super) async fn run(mut self, mut socket: WebSocket) {
        let Err(Gone) = self.serve(&mut socket).await;
        let closing = async {
            if let Some(cause) = self.peer.cause() {
                let (code, reason) = cause.frame();
                let frame = CloseFrame { code, reason: reason.into() };
                let _ = socket.send(Message::Close(Some(frame))).await;
            }
            // ends the handshake when it was the client that began it
            let _ = socket.close().await;
        };
        // a client that does not even take this is dropped without it
        let _ = timeout(FAREWELL, closing).await;
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> Result<std::convert::Infallible, Gone> {
        let relay = self.relay.clone();
        let limits = &relay.config().limits;
        self.say(socket, message::challenge(&self.challenge)).await?;
        let deadline = match relay.access().clink() {
            Some(_) => limits.wallet_deadline,
            None => limits.auth_deadline,
        };
        let deadline = sleep(deadline);
        tokio::pin!(deadline);
        let mut ping = interval_at(Instant::now() + limits.ping, limits.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = true;
        let mut batch = Vec::new();
        loop {
            if self.peer.cause().is_some() {
                return Err(Gone);
            }
            let anonymous = self.peer.keys().is_empty();
            tokio::select! {
                () = self.peer.closed() => return Err(Gone),
                () = &mut deadline, if anonymous => {
                    self.relay.close(&self.peer, Cause::NeverAuthenticated);
                }
                _ = ping.tick() => {
                    if heard {
                        heard = false;
                        self.write(socket, [Message::Ping(Default::default())]).await?;
                    } else {
                        self.relay.close(&self.peer, Cause::Idle);
                    }
                }
                count = self.queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Err(Gone);
                    }
                    let now = self.relay.now();
                    let messages = batch.drain(..).filter_map(|waiting| match waiting {
                        Outgoing::Text(text) => Some(text),
                        Outgoing::Event { id_json, parcel } => {
                            let alive = parcel.expires.is_none_or(|last| last >= now);
                            if !alive {
                                relay.count(Count::ExpiredInQueue);
                            }
                            alive.then(|| message::event(&id_json, &parcel.json))
                        }
                    });
                    self.write(socket, messages.map(|text| Message::Text(text.into()))).await?;
                }
                frame = socket.recv() => {
                    heard = true;
                    match frame {
                        Some(Ok(Message::Text(text))) => self.on_text(socket, &text).await?,
                        Some(Ok(Message::Binary(_))) => {
                            self.complain(socket, Refusal::Malformed).await?;
                        }
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                        Some(Ok(Message::Close(_))) | None => return Err(Gone),
                        Some(Err(error)) => {
                            self.relay.count(Count::Broken);
                            tracing::debug!(event = "relay_socket_broken", %error);
                            let reason = "invalid: a frame is broken or too large".into();
                            let frame = CloseFrame { code: POLICY, reason };
                            self.write(socket, [Message::Close(Some(frame))]).await?;
                            return Err(Gone);
                        }
                    }
                }
            }
        }
    }

    /// Writes one text message.
    pub(super) async fn say(&mut self, socket: &mut WebSocket, text: String) -> Result<(), Gone> {
        self.write(socket, [Message::Text(text.into())]).await
    }

    /// Answers a frame that concerns no event and no subscription.
    pub(super) async fn complain(
        &mut self,
        socket: &mut WebSocket,
        refusal: Refusal,
    ) -> Result<(), Gone> {
        self.refuse(refusal);
        self.say(socket, message::notice(refusal.message())).await
    }

    /// Counts a refusal; too many of the kinds that no honest client causes close the connection.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.relay.refuse(refusal, &self.peer);
        if refusal.is_abuse() && !self.buckets.allows_bad_frame(self.relay.mono()) {
            self.relay.close(&self.peer, Cause::Abusive);
        }
    }

    /// Writes messages with one flush, within the write deadline and until closed.
    async fn write(
        &self,
        socket: &mut WebSocket,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<(), Gone> {
        let writing = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        tokio::select! {
            () = self.peer.closed() => Err(Gone),
            written = timeout(self.relay.config().limits.write_deadline, writing) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Gone),
                Err(_) => {
                    self.relay.close(&self.peer, Cause::Stalled);
                    Err(Gone)
                }
            },
        }
    }
}
