//! One relay's websocket: when it is tried, what comes through, how it has been.
//!
//! Promise: between two tries lies a rest (see [`Backoff`]), which a waiting customer may shorten to
//! [`FIRST`] but nobody to less. Incoming frames are filtered as text. What the relay did last is
//! known: connected, took an event, refused one and in which words. A connection that came about is
//! told once to whoever reads: nothing that was asked before holds on it.
//!
//! Failure policy: a connection that cannot be made is the next rest; without random bytes each
//! rest is the whole one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_wsocket::futures_util::StreamExt as _;
use async_wsocket::{ConnectionMode, Message};
use nostr::Url;
use nostr::util::BoxedFuture;
use nostr_relay_pool::transport::error::TransportError;
use nostr_relay_pool::transport::websocket::{
    DefaultWebsocketTransport, WebSocketSink, WebSocketStream, WebSocketTransport,
};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::backoff::{Backoff, FIRST};
use super::intake::Intake;
use crate::secrets::random;

/// How the connection to a relay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayState {
    /// Being tried.
    #[default]
    Connecting,
    /// Up.
    Connected,
    /// Down; it is tried again after a rest.
    Resting,
}

/// How a relay has been. Ages are in seconds, before now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RelayHealth {
    /// Its address.
    pub relay: String,
    /// How the connection is.
    pub state: RelayState,
    /// Tries and short connections that failed since the last good one.
    pub failures: u32,
    /// Since it was last connected to.
    pub connected_s: Option<u64>,
    /// Since it last took an event.
    pub ok_s: Option<u64>,
    /// Since it last refused an event or a subscription.
    pub refused_s: Option<u64>,
    /// What it said then.
    pub refused: Option<String>,
}

#[derive(Debug, Default)]
struct Been {
    state: RelayState,
    backoff: Backoff,
    /// When the last try began, and until when the relay rests.
    tried: Option<Instant>,
    until: Option<Instant>,
    connected: Option<Instant>,
    ok: Option<Instant>,
    refused: Option<(Instant, String)>,
    /// Connected, or asked in vain while connected, since somebody looked.
    fresh: bool,
    /// Which connection is the last one.
    number: u64,
}

/// One relay.
#[derive(Debug, Default)]
pub(super) struct Line {
    been: Mutex<Been>,
    hurry: Notify,
    /// How many of all lines are up.
    up: Arc<watch::Sender<usize>>,
}

/// A random number for a rest.
pub(super) fn chance() -> u16 {
    random().map_or(u16::MAX, u16::from_le_bytes)
}

impl Line {
    fn been(&self) -> MutexGuard<'_, Been> {
        self.been.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only place where the state changes: the count of those that are up goes with it.
    fn becomes(&self, been: &mut Been, state: RelayState) {
        let was = std::mem::replace(&mut been.state, state);
        match (was == RelayState::Connected, state == RelayState::Connected) {
            (false, true) => self.up.send_modify(|up| *up = up.saturating_add(1)),
            (true, false) => self.up.send_modify(|up| *up = up.saturating_sub(1)),
            _ => {}
        }
    }

    /// Waits until it may be tried, and counts the try.
    async fn turn(&self) {
        let (until, soonest) = {
            let mut been = self.been();
            let until = been.until.take();
            if until.is_some() {
                self.becomes(&mut been, RelayState::Resting);
            }
            (until, been.tried.map(|tried| tried + FIRST))
        };
        if let Some(until) = until {
            let hurried = self.hurry.notified();
            tokio::select! {
                () = sleep_until(until) => {}
                () = hurried => sleep_until(soonest.map_or(until, |soonest| soonest.min(until))).await,
            }
        }
        let mut been = self.been();
        self.becomes(&mut been, RelayState::Connecting);
        been.tried = Some(Instant::now());
    }

    /// A connection is there; its number.
    fn up(&self) -> u64 {
        let mut been = self.been();
        self.becomes(&mut been, RelayState::Connected);
        been.connected = Some(Instant::now());
        been.fresh = true;
        been.number = been.number.saturating_add(1);
        been.number
    }

    /// Whether it is connected, which the SDK may learn a moment later.
    pub(super) fn is_up(&self) -> bool {
        self.been().state == RelayState::Connected
    }

    /// The connection has ended, or did not come about.
    fn down(&self) {
        self.fall(&mut self.been());
    }

    /// This connection has ended; there may be a later one.
    fn ended(&self, number: u64) {
        let mut been = self.been();
        if been.number == number {
            self.fall(&mut been);
        }
    }

    fn fall(&self, been: &mut Been) {
        let lived = match (been.state, been.connected) {
            (RelayState::Connected, Some(since)) => since.elapsed(),
            _ => Duration::ZERO,
        };
        let rest = been.backoff.failed(lived, chance());
        self.becomes(been, RelayState::Resting);
        been.until = Some(Instant::now() + rest);
    }

    /// It took an event.
    pub(super) fn took(&self) {
        self.been().ok = Some(Instant::now());
    }

    /// It refused an event or a subscription.
    pub(super) fn refused(&self, words: String) {
        self.been().refused = Some((Instant::now(), words));
    }

    /// Somebody waits: the rest that is under way need not be a long one.
    pub(super) fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    fn health(&self, relay: &str) -> RelayHealth {
        let been = self.been();
        let age = |at: Option<Instant>| at.map(|at| at.elapsed().as_secs());
        RelayHealth {
            relay: relay.to_owned(),
            state: been.state,
            failures: been.backoff.failures(),
            connected_s: age(been.connected),
            ok_s: age(been.ok),
            refused_s: age(been.refused.as_ref().map(|(at, _)| *at)),
            refused: been.refused.as_ref().map(|(_, words)| words.clone()),
        }
    }
}

/// All relays of a pool, by address.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    all: Arc<Mutex<BTreeMap<String, Arc<Line>>>>,
    /// One of them is fresh.
    changed: Arc<Notify>,
    /// How many are up.
    up: Arc<watch::Sender<usize>>,
}

impl Lines {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Line>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, url: &Url) -> Arc<Line> {
        let line = || Arc::new(Line { up: self.up.clone(), ..Line::default() });
        self.all().entry(url.as_str().to_owned()).or_insert_with(line).clone()
    }

    /// How many are up, from now on.
    pub(super) fn up(&self) -> watch::Receiver<usize> {
        self.up.subscribe()
    }

    /// What was asked of `url` did not get there. Where it is down, its next connection is fresh.
    pub(super) fn in_vain(&self, url: &Url) {
        let line = self.of(url);
        let mut been = line.been();
        if been.state == RelayState::Connected {
            been.fresh = true;
            self.changed.notify_one();
        }
    }

    /// Waits for a relay of which nothing is asked yet; there is one until
    /// [`take_fresh`](Self::take_fresh), also for who stopped waiting. For one reader.
    pub(super) async fn freshened(&self) {
        while !self.all().values().any(|line| line.been().fresh) {
            self.changed.notified().await;
        }
    }

    /// The addresses of relays of which nothing is asked yet; it is now.
    pub(super) fn take_fresh(&self) -> BTreeSet<String> {
        let fresh = |line: &Line| std::mem::take(&mut line.been().fresh);
        let all = self.all();
        all.iter().filter(|(_, line)| fresh(line)).map(|(relay, _)| relay.clone()).collect()
    }

    pub(super) fn hurry(&self) {
        self.all().values().for_each(|line| line.hurry());
    }

    pub(super) fn health(&self) -> Vec<RelayHealth> {
        self.all().iter().map(|(relay, line)| line.health(relay)).collect()
    }
}

/// Says when a connection has ended: when whoever reads it lets go.
struct Ends(Arc<Line>, u64);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

/// Websockets that rest between two tries, and whose incoming frames are taken in as text.
pub(super) struct Filtered {
    pub(super) intake: Arc<Intake>,
    pub(super) lines: Lines,
}

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
        url: &'a Url,
        mode: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let line = self.lines.of(url);
            line.turn().await;
            let opened = DefaultWebsocketTransport.connect(url, mode, timeout).await;
            let (sink, stream) = opened.inspect_err(|_| line.down())?;
            let number = line.up();
            self.lines.changed.notify_one();
            let (intake, ends) = (self.intake.clone(), Ends(line, number));
            let kept = stream.filter(move |frame| {
                let _ = &ends;
                let keep = match frame {
                    Ok(Message::Text(text)) => intake.passes(text),
                    _ => true,
                };
                std::future::ready(keep)
            });
            Ok((sink, Box::pin(kept) as WebSocketStream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(line: &Line) -> Duration {
        line.been().until.unwrap().saturating_duration_since(Instant::now())
    }

    /// Loss prevented: a customer who stands before a machine that rests for half a minute; a
    /// machine that hammers a relay which is down because a customer is there.
    #[tokio::test(start_paused = true)]
    async fn a_customer_shortens_the_rest_but_not_below_the_first() {
        let line = Arc::new(Line::default());
        line.turn().await;
        for _ in 0..9 {
            line.down();
        }
        assert!(waits(&line) > FIRST);
        let began = Instant::now();
        let waiting = tokio::spawn({
            let line = line.clone();
            async move { line.turn().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(line.health("r").state, RelayState::Resting);
        line.hurry();
        waiting.await.unwrap();
        assert_eq!(began.elapsed(), FIRST);
        // nobody waited: the next rest is a whole one
        line.hurry();
        line.down();
        let (rest, began) = (waits(&line), Instant::now());
        line.turn().await;
        assert!(began.elapsed() >= rest, "{:?} of {rest:?}", began.elapsed());
    }

    /// Loss prevented: a page that calls a relay well which has refused everything for an hour.
    #[tokio::test(start_paused = true)]
    async fn how_a_relay_has_been_is_told() {
        let line = Line::default();
        line.turn().await;
        line.up();
        line.took();
        tokio::time::advance(Duration::from_secs(70)).await;
        line.refused("blocked: no".into());
        let health = line.health("wss://r");
        assert_eq!((health.state, health.failures), (RelayState::Connected, 0));
        assert_eq!(
            (health.connected_s, health.ok_s, health.refused_s),
            (Some(70), Some(70), Some(0))
        );
        assert_eq!(health.refused.as_deref(), Some("blocked: no"));
        line.down();
        assert_eq!(line.health("wss://r").state, RelayState::Resting);
        assert!(waits(&line) <= FIRST, "the connection had held");
        line.down();
        assert_eq!(line.health("wss://r").failures, 2);
    }

    /// Loss prevented: a machine that says for good that no relay is there, or goes on selling when
    /// none is, since a connection was counted twice or its end came after the next one's start.
    #[tokio::test(start_paused = true)]
    async fn those_that_are_up_are_counted() {
        let lines = Lines::default();
        let count = lines.up();
        let (one, other) = ("wss://a", "wss://b");
        let line = |url| lines.of(&Url::parse(url).unwrap());
        line(one).turn().await;
        assert_eq!(*count.borrow(), 0);
        let first = line(one).up();
        line(other).up();
        assert_eq!(*count.borrow(), 2);
        // tried again before whoever read the first one let go
        line(one).turn().await;
        assert_eq!(*count.borrow(), 1);
        let second = line(one).up();
        line(one).ended(first);
        assert_eq!(*count.borrow(), 2);
        assert!(line(one).is_up());
        line(one).ended(second);
        line(one).down();
        assert_eq!(*count.borrow(), 1);
    }
}
