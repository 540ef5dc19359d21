//! The RPC of machines (kind 21000): gate, desk, one file for each method, and pushes.
//!
//! Promise: see [`gate`], [`roster`] and [`desk`]: strangers cost no signature, nobody is served
//! whose machine is not known, a request takes effect once however often it comes, and nothing
//! happens for a machine after its revoke has committed. Requests of one machine that have effects
//! are worked on one after the other; different machines do not wait for each other.
//!
//! Failure policy: the subscription always survives. A request that cannot be answered now is
//! dropped and counted; kind 21000 is ephemeral, so its machine sends it again.

pub mod after_revoke;
mod at_machine;
mod create_invoice;
mod create_withdraw;
mod desk;
mod failure;
pub mod gate;
mod get_payment;
mod get_quote;
mod journal;
mod limits;
mod line;
mod loads;
mod open_session;
pub mod push;
mod recycled;
mod report_dispense;
mod report_state;
pub mod roster;
pub mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitspire_shared::admit::{Refusal, Refused};
use bitspire_shared::ids::{IdError, PubKey, RequestId};
use bitspire_shared::rate::Quota;
use bitspire_shared::rpc::{self as wire, BadRequest, Reply, Request, RpcName, RpcRequest};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{FrameFilter, Pool, PoolError};
use nostr::{Event, Filter, Kind, Timestamp};
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::MissedTickBehavior;

use crate::app::{App, Ring};
use crate::deny::DenyList;
use crate::ids::MachineId;
use crate::outgoing::TargetError;
use crate::outgoing::peer::PeerError;
use crate::rates::{self, Rates};
use crate::store::{StoreError, event_ids, log, outbox, quotes, requests};
pub(crate) use create_withdraw::worth;
use desk::{Call, Desk};
use failure::Failure;
use gate::{Gate, Turned};
use line::Line;
pub(crate) use line::{LineError, random};
use roster::{Machines, Resolver, Snapshot};

/// Requests in work at once; one more is dropped and counted.
const PLACES: usize = 256;
/// How far back a subscription asks: longer than a request can be valid.
const SINCE_S: u64 = 180;
/// Between two looks at what has expired, and two rows of counted refusals.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Seconds after which an answer may be forgotten, once its transaction rests.
const KEEP_REQUESTS_S: u64 = 90 * 86_400;
/// Requests that are forgotten at a time: what a job writes can be undone, in memory.
const FORGOTTEN: u32 = 2_000;
/// Seconds for which a push that was sent stays, for whoever looks.
const KEEP_PUSHES_S: u64 = 86_400;

/// Why the RPC does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A relay's address is none.
    #[error("the relays cannot be used")]
    Relay(#[from] PoolError),
    /// The sources of prices cannot be asked.
    #[error("the sources of prices cannot be asked")]
    Rates(#[from] TargetError),
    /// The deny-list cannot be asked.
    #[error("deny_list")]
    DenyList(#[from] PeerError),
    /// The service key is no public key.
    #[error("the service key cannot be used")]
    Key(#[from] IdError),
    /// The roster cannot be read.
    #[error("the roster cannot be read")]
    Store(#[from] StoreError),
}

/// A request that cannot be read.
struct Unreadable {
    request_id: Option<RequestId>,
    refused: Refused,
    words: String,
}

/// The running RPC.
pub struct Rpc {
    app: Arc<App>,
    service: PubKey,
    rates: Rates,
    deny: Option<DenyList>,
    desk: Desk,
    gate: Arc<Gate>,
    line: Line,
    places: Arc<Semaphore>,
    /// One lock a machine: its requests with effects do not overlap.
    turns: Mutex<HashMap<MachineId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Connects to the relays and serves the machines until the daemon stops.
///
/// # Errors
/// [`StartError`], before anything has started.
pub async fn start(app: &Arc<App>) -> Result<Arc<Rpc>, StartError> {
    let rates = rates::start(app)?;
    start_with(app, rates, vec![Box::new(Machines)]).await
}

async fn start_with(
    app: &Arc<App>,
    rates: Rates,
    resolvers: Vec<Box<dyn Resolver>>,
) -> Result<Arc<Rpc>, StartError> {
    let service = PubKey::new(app.service.public_key())?;
    let quota = Quota::per_minute(app.config.rate_limit_per_min, app.config.burst);
    let gate = Arc::new(Gate::new(service, app.clock.clone(), quota, app.refusals.clone()));
    let now = app.clock.now();
    let seen =
        app.store.read::<_, StoreError, _>(move |read| event_ids::live(read, now, gate::SEEN));
    gate.remember(&seen.await?);
    // before the roster is read, or a change in between would be missed
    let bell = app.listen();
    // a connection for each relay: each has a bucket of its own
    let mut pools = Vec::new();
    for url in &app.config.relays {
        let filter = gate.filter(url);
        let pool = Pool::connect(app.service.clone(), std::slice::from_ref(url), filter).await?;
        let pool = Arc::new(pool);
        app.show_pool("machines", pool.clone());
        pools.push((url.clone(), pool));
    }
    let connections = pools.iter().map(|(_, pool)| pool.clone()).collect();
    let rpc = Arc::new(Rpc {
        app: app.clone(),
        service,
        rates,
        deny: DenyList::open(app)?,
        desk: Desk(Arc::new(resolvers)),
        gate,
        line: Line::new(app.service.clone(), service, app.clock.clone(), connections),
        places: Arc::new(Semaphore::new(PLACES)),
        turns: Mutex::default(),
    });
    rpc.reload().await?;
    app.tasks.spawn(rpc.clone().keep_house(bell));
    app.tasks.spawn(push::deliver(rpc.clone(), app.listen()));
    for (url, pool) in pools {
        app.tasks.spawn(rpc.clone().read(url, pool));
    }
    Ok(rpc)
}

impl Rpc {
    /// Refused and dropped requests since the start, by reason.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.app.refusals.totals()
    }

    /// Reads the roster again.
    ///
    /// # Errors
    /// [`StoreError`]: then nobody is let in until it can be read.
    async fn reload(&self) -> Result<(), StoreError> {
        let (resolvers, service, now) = (self.desk.0.clone(), self.service, self.app.clock.now());
        let loaded =
            self.app.store.read(move |read| Snapshot::load(service, &resolvers, read, now));
        match loaded.await {
            Ok(snapshot) => {
                self.line.retain(|key| snapshot.lists(key));
                self.gate.set_roster(snapshot);
                Ok(())
            }
            Err(error) => {
                self.gate.close(self.service);
                Err(error)
            }
        }
    }

    async fn keep_house(self: Arc<Self>, mut bell: broadcast::Receiver<Ring>) {
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                () = self.app.stop.cancelled() => {
                    if let Err(error) = self.tidy().await {
                        tracing::warn!(event = "rpc_tidy_failed", %error);
                    }
                    return;
                }
                ring = bell.recv() => match ring {
                    Ok(Ring::Roster) | Err(broadcast::error::RecvError::Lagged(_)) => false,
                    Ok(_) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => true,
            };
            if let Err(error) = self.reload().await {
                tracing::error!(event = "rpc_roster_unreadable", %error);
            }
            if due && let Err(error) = self.tidy().await {
                tracing::warn!(event = "rpc_tidy_failed", %error);
            }
        }
    }

    /// Writes what was counted, ends what has expired, forgets what is old.
    async fn tidy(&self) -> Result<(), StoreError> {
        let now = self.app.clock.now();
        let (rows, ids) = (self.app.refusals.take(), self.gate.take_unkept());
        let before = move |age: u64| Unix(now.0.saturating_sub(age));
        self.app
            .store
            .write(move |tx| {
                for row in &rows {
                    log::reject(tx, row)?;
                }
                quotes::release_expired(tx, before(limits::CLAIM_GRACE_S), now)?;
                requests::prune(tx, before(KEEP_REQUESTS_S), FORGOTTEN)?;
                outbox::prune(tx, before(KEEP_PUSHES_S))?;
                log::forget_nonces(tx, now)?;
                for (id, until) in &ids {
                    event_ids::keep(tx, *id, *until)?;
                }
                event_ids::prune(tx, now, gate::SEEN)?;
                Ok(())
            })
            .await
    }

    /// Reads one relay until the daemon stops.
    async fn read(self: Arc<Self>, relay: String, pool: Arc<Pool>) {
        let since = self.app.clock.now().0.saturating_sub(SINCE_S);
        let filter = Filter::new()
            .kind(Kind::from(wire::KIND))
            .pubkey(self.service.nostr())
            .since(Timestamp::from(since));
        pool.subscribe("rpc", filter).await;
        while let Some(Some(event)) = self.app.stop.run_until_cancelled(pool.next()).await {
            self.clone().admit(&relay, event);
        }
        pool.close().await;
    }

    /// The filter for the connection to one relay.
    #[must_use]
    pub fn filter(&self, relay: &str) -> FrameFilter {
        self.gate.filter(relay)
    }

    /// Takes in an event that came through `relay` and whose id and signature have verified: stage 2
    /// of its admission, then a task for the request. What cannot be taken is counted.
    pub fn admit(self: Arc<Self>, relay: &str, event: Event) {
        let admitted = self.gate.event(relay, &event);
        if let Err(Turned { tell: false, row: None, .. }) = admitted {
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.app.refusals.count("no_place");
            return;
        };
        let (app, relay) = (self.app.clone(), relay.to_owned());
        let event = Arc::new(event);
        app.tasks.spawn(async move {
            match admitted {
                Ok(machine) => self.handle(&relay, event, machine).await,
                Err(turned) => self.turn_away(&event, None, turned).await,
            }
            drop(place);
        });
    }

    async fn handle(self: &Arc<Self>, relay: &str, event: Arc<Event>, machine: MachineId) {
        let request = match self.open(&event) {
            Ok(request) => request,
            Err(Unreadable { request_id, refused, words }) => {
                self.gate.keep_later(&event);
                let turned = self.gate.turn(relay, &event, Some(machine), refused);
                return self.turn_away(&event, Some((request_id, words)), turned).await;
            }
        };
        let id = request.request_id();
        match self.answer(&event, request, machine).await {
            Ok(reply) => self.reply(&event, reply).await,
            Err(Failure::Turned(refused)) => {
                let turned = self.gate.turn(relay, &event, Some(machine), refused);
                let words = Some((Some(id), refused.why.to_string()));
                self.turn_away(&event, words, turned).await;
            }
            Err(failure) => {
                if failure.is_ours() {
                    self.app.refusals.count("failed");
                    let error: &dyn std::error::Error = &failure;
                    tracing::error!(event = "rpc_failed", %machine, request = %id, error);
                } else {
                    self.app.refusals.count("not_served");
                }
                let told = failure.told();
                self.reply(&event, Reply::error(Some(id), told.code, &told.reason)).await;
            }
        }
    }

    /// Decrypts and parses.
    fn open(&self, event: &Event) -> Result<Request, Unreadable> {
        let plaintext = self.line.open(event).map_err(|_| {
            let why = Refusal::Undecryptable;
            let (refused, words) = (why.after_signature(), why.to_string());
            Unreadable { request_id: None, refused, words }
        })?;
        Request::parse(&plaintext).map_err(|bad: BadRequest| {
            let refused = Refused::from(&bad);
            Unreadable { request_id: bad.request_id, refused, words: bad.error.reason }
        })
    }

    /// Tells a sender that it was turned away, if it is told, and keeps the row.
    async fn turn_away(
        &self,
        event: &Event,
        words: Option<(Option<RequestId>, String)>,
        turned: Turned,
    ) {
        if let Some(row) = turned.row {
            let written: Result<(), StoreError> =
                self.app.store.write(move |tx| log::reject(tx, &row)).await;
            if let Err(error) = written {
                tracing::warn!(event = "rpc_refusal_not_kept", %error);
            }
        }
        if turned.tell {
            let why = turned.refused.why;
            let (id, reason) = words.unwrap_or_else(|| (None, why.to_string()));
            self.reply(event, Reply::error(id, why.code(), &reason)).await;
        }
    }

    async fn reply(&self, event: &Event, reply: Reply) {
        match self.line.reply(event, reply).await {
            Ok(0) => self.app.refusals.count("reply_without_relay"),
            Ok(_) => {}
            Err(error) => tracing::warn!(event = "rpc_reply_failed", %error),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        event: &Arc<Event>,
        request: Request,
        machine: MachineId,
    ) -> Result<Reply, Failure> {
        let name = request.call().name();
        let kept = Arc::new(AtomicBool::new(false));
        let call = Call {
            event: event.clone(),
            sender: self.line.sender(event)?,
            request_id: request.request_id(),
            name,
            body_sha256: request.body_sha256(),
            now: self.app.clock.now(),
            kept: kept.clone(),
        };
        let turn = self.turn_of(machine);
        // a repeat waits for the first to end, and then finds its answer
        let _turn = match name.keeps_reply() || name == RpcName::GetQuote {
            true => Some(turn.lock().await),
            false => None,
        };
        let answered = match request.into_call() {
            RpcRequest::OpenSession(body) => open_session::answer(self, call, *body).await,
            RpcRequest::GetQuote(body) => get_quote::answer(self, call, *body).await,
            RpcRequest::CreateInvoice(body) => create_invoice::answer(self, call, *body).await,
            RpcRequest::CreateWithdraw(body) => create_withdraw::answer(self, call, *body).await,
            RpcRequest::GetPayment(body) => get_payment::answer(self, call, *body).await,
            RpcRequest::ReportDispense(body) => report_dispense::answer(self, call, *body).await,
            RpcRequest::ReportState(body) => report_state::answer(self, call, *body).await,
        };
        // what failed wrote nothing, whatever it was about to write
        if answered.is_err() || !kept.load(Ordering::Relaxed) {
            self.gate.keep_later(event);
        }
        answered
    }

    fn turn_of(&self, machine: MachineId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(machine).or_default().clone()
    }
}
