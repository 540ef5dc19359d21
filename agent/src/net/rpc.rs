//! Carries requests to the service and its answers to the vault: the shell around [`Requests`].
//!
//! Promise: a reply that the vault gets was signed by the pinned service, is addressed to this
//! machine's spire or session key, and names an event of ours that carried the request it answers;
//! it comes once. Pushes pass under the same checks while they have not expired, once per push id.
//!
//! Failure policy: what does not pass is counted and changes nothing; the request goes on waiting.
//! A refusal that is about the carrying event alone leads to a fresh event; one that says that the
//! session is unknown leads to another session first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bitspire_shared::admit::Head;
use bitspire_shared::canonical::to_canonical;
use bitspire_shared::ids::{EventId, PubKey, PushId, RequestId};
use bitspire_shared::rpc::{
    self, ConfigChanged, ErrorCode, Push, Reply, RpcName, ServiceMessage, request_event,
};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use bitspire_shell::privacy;
use bitspire_shell::secrets::random;
use nostr::{Event, Filter, Kind as EventKind, TagKind};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::requests::{Added, Asked, Gate, Path, Requests};
use super::session::{Session, Way, is_about_the_event};
use super::signer::{Signer, SignerError};
use super::times::Times;
use crate::ipc::{NetPins, ToVault};

/// Pushes that are remembered.
const PUSHES: usize = 1_024;
/// Tries without an answer after which the session is doubted.
const DOUBTFUL_TRIES: u32 = 4;
/// Answers that the bunker decrypts at once; more wait at the relay's end of the queue.
const JOBS: usize = 32;

/// What the rest of `net` asks for.
#[derive(Debug)]
pub(super) enum Command {
    /// A request of the vault.
    Add { request_id: RequestId, asked: Asked },
    /// A request of `net` itself.
    Own { request_id: RequestId, asked: Asked, answered: oneshot::Sender<Reply> },
    /// Nobody waits for it.
    Forget(RequestId),
    /// The vault is gone; it repeats what is open when it is back.
    VaultGone,
    /// Whether requests that show a journal position wait: while a session is being opened.
    HoldPositions(bool),
}

/// The subscription to what the service says to `reader`.
fn messages(service: &PubKey, reader: &PubKey) -> Filter {
    Filter::new().kind(EventKind::from(rpc::KIND)).author(service.nostr()).pubkey(reader.nostr())
}

/// What the bunker was asked for and answered.
enum Done {
    Signed(RequestId, Result<Event, SignerError>),
    Opened(Box<Event>, Result<String, SignerError>),
}

/// Does the carrying.
pub(super) struct Carrier {
    pub(super) pins: NetPins,
    pub(super) pool: Arc<Pool>,
    pub(super) signer: Signer,
    pub(super) way: watch::Receiver<Way>,
    pub(super) doubts: mpsc::Sender<PubKey>,
    pub(super) to_vault: mpsc::Sender<ToVault>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Receiver<Event>,
    /// Documents that the service says to be published.
    pub(super) published: mpsc::Sender<EventId>,
    pub(super) times: Times,
    pub(super) memory: Memory,
}

/// What it remembers.
#[derive(Default)]
pub(super) struct Memory {
    requests: Requests,
    own: HashMap<RequestId, oneshot::Sender<Reply>>,
    /// The session in use and the one before it.
    sessions: VecDeque<Arc<Session>>,
    pushes: HashSet<PushId>,
    push_order: VecDeque<PushId>,
    jobs: JoinSet<Done>,
    hold_positions: bool,
    ignored: u64,
}

impl Carrier {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let NetPins { spire, service, .. } = self.pins;
        self.pool.subscribe("rpc-spire", messages(&service, &spire)).await;
        self.follow_way().await;
        loop {
            self.carry_what_is_due().await;
            let due = self.memory.requests.next_due(self.gate()).map(|due| self.times.instant(due));
            let room = self.memory.jobs.len() < JOBS;
            tokio::select! {
                () = stop.cancelled() => return,
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                event = self.events.recv(), if room => match event {
                    Some(event) => self.receive(event).await,
                    None => return,
                },
                Some(done) = self.memory.jobs.join_next() => match done {
                    Ok(done) => self.finish(done).await,
                    Err(error) => {
                        tracing::error!(event = "bunker_job_died", error = privacy::ended(&error));
                    }
                },
                changed = self.way.changed() => match changed {
                    Ok(()) => self.follow_way().await,
                    Err(_) => return,
                },
                () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Hears what the service says to a new session; the one before stays until the next.
    async fn follow_way(&mut self) {
        let way = self.way.borrow_and_update().clone();
        if let Way::Session(session) = way {
            let known = &mut self.memory.sessions;
            if known.back().is_none_or(|last| last.key != session.key) {
                self.pool
                    .subscribe(&name(&session), messages(&self.pins.service, &session.key))
                    .await;
                known.push_back(session);
                if known.len() > 2
                    && let Some(old) = known.pop_front()
                {
                    self.pool.unsubscribe(&name(&old)).await;
                }
            }
            self.memory.requests.hurry(self.times.mono());
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.times.mono();
        match command {
            Command::Add { request_id, asked } => {
                if self.memory.requests.add(request_id, asked, now) == Added::Conflict {
                    tracing::error!(event = "request_id_with_another_body", %request_id);
                }
            }
            Command::Own { request_id, asked, answered } => {
                self.memory.requests.add(request_id, asked, now);
                self.memory.own.insert(request_id, answered);
            }
            Command::Forget(request_id) => {
                self.memory.requests.forget(&request_id);
                self.memory.own.remove(&request_id);
            }
            Command::VaultGone => self.memory.requests.forget_all(Path::Any),
            Command::HoldPositions(hold) => self.memory.hold_positions = hold,
        }
    }

    fn gate(&self) -> Gate {
        let any = !matches!(*self.way.borrow(), Way::Opening);
        Gate { any, positions: !self.memory.hold_positions }
    }

    async fn carry_what_is_due(&mut self) {
        loop {
            let way = self.way.borrow().clone();
            let (now, gate) = (self.times.mono(), self.gate());
            let jitter = random::<2>().map_or(0, u16::from_be_bytes);
            let Some(turn) = self.memory.requests.turn(now, gate, jitter) else {
                return;
            };
            let (id, asked) = (turn.request_id, turn.asked);
            // a heartbeat can wait; everything else is asked while somebody stands there
            if asked.rpc_name != RpcName::ReportState.as_str() {
                self.pool.hurry();
            }
            let plaintext = json!({
                "rpc_name": asked.rpc_name, "request_id": id, "body": asked.body,
            });
            let plaintext = match to_canonical(&plaintext) {
                Ok(plaintext) => plaintext,
                Err(error) => {
                    tracing::error!(event = "request_not_canonical", request_id = %id, %error);
                    self.memory.requests.forget(&id);
                    continue;
                }
            };
            match (way, asked.path) {
                (Way::Session(session), Path::Any) => {
                    if turn.tries >= DOUBTFUL_TRIES && self.pool.connected().await > 0 {
                        // a full queue holds doubts already
                        let _ = self.doubts.try_send(session.key);
                    }
                    match self.by_session(&session, &plaintext) {
                        Some(event) => self.send(&id, &event).await,
                        None => tracing::error!(event = "request_not_made", request_id = %id),
                    }
                }
                _ => {
                    let (signer, pins, now) = (self.signer.clone(), self.pins, self.times.unix());
                    self.memory.jobs.spawn(async move {
                        Done::Signed(id, by_spire(&signer, &pins, plaintext, now).await)
                    });
                }
            }
        }
    }

    fn by_session(&self, session: &Session, plaintext: &str) -> Option<Event> {
        let content = session.conversation.encrypt(plaintext, random::<32>().ok()?).ok()?;
        let now = self.times.unix();
        let event = request_event(&session.key, &self.pins.service, now, content);
        event.sign_with_keys(&session.keys).ok()
    }

    async fn send(&mut self, id: &RequestId, event: &Event) {
        self.memory.requests.carried(id, EventId::from_bytes(event.id.to_bytes()));
        let relays = self.pool.send(event).await;
        tracing::debug!(event = "request_sent", request_id = %id, relays);
    }

    /// Takes a verified event of the service's kind.
    async fn receive(&mut self, event: Event) {
        let Ok(head) = Head::of(&event) else { return self.ignore("its tags") };
        if event.pubkey != self.pins.service.nostr() || head.kind != rpc::KIND {
            return self.ignore("its author or kind");
        }
        match carrier(&event) {
            // what answers an event of ours that still waits is fresh; to ask our clock as well
            // would lock a machine out whose clock is wrong, since replies are what sets it
            Some(of) if self.memory.requests.carried_by(&of).is_none() => {
                return self.ignore("a reply to nothing that waits");
            }
            Some(_) => {}
            None if head.expiration.is_none_or(|end| end < self.times.unix()) => {
                return self.ignore("an expired push");
            }
            None => {}
        }
        let Some(recipient) = head.recipient else { return self.ignore("nobody's") };
        if recipient == self.pins.spire.to_bytes() {
            let (signer, service) = (self.signer.clone(), self.pins.service);
            self.memory.jobs.spawn(async move {
                let plaintext = signer.decrypt(service, event.content.clone()).await;
                Done::Opened(Box::new(event), plaintext)
            });
            return;
        }
        let sessions = self.memory.sessions.iter();
        let Some(session) = sessions.into_iter().find(|s| s.key.to_bytes() == recipient) else {
            return self.ignore("another's");
        };
        match session.conversation.decrypt(&event.content) {
            Ok(plaintext) => self.heard(event, &plaintext, Some(session.key)).await,
            Err(_) => self.ignore("it does not decrypt"),
        }
    }

    async fn finish(&mut self, done: Done) {
        match done {
            // a request that must not travel any more gets another event at its next turn
            Done::Signed(id, Ok(event)) => {
                if self.memory.requests.travels(&id, self.gate()) {
                    self.send(&id, &event).await;
                }
            }
            Done::Signed(id, Err(error)) => {
                tracing::info!(event = "request_not_signed", request_id = %id, %error);
            }
            Done::Opened(event, Ok(plaintext)) => self.heard(*event, &plaintext, None).await,
            Done::Opened(_, Err(error)) => {
                tracing::info!(event = "reply_not_decrypted", %error);
            }
        }
    }

    /// Takes what the service said; `session`: to which key, if not to the spire's.
    async fn heard(&mut self, event: Event, plaintext: &str, session: Option<PubKey>) {
        let envelope: Option<Value> = serde_json::from_str(plaintext).ok();
        let (Some(envelope), Ok(message)) = (envelope, ServiceMessage::parse(plaintext)) else {
            return self.ignore("no message of this version");
        };
        match (message, carrier(&event)) {
            (ServiceMessage::Push { push_id, push }, None) => {
                if !self.is_new(push_id) {
                    return self.ignore("a push that came before");
                }
                if let Push::ConfigChanged(ConfigChanged { event_id, .. }) = push {
                    // a full queue asks for all documents anyway
                    let _ = self.published.try_send(event_id);
                }
                self.tell_vault(ToVault::Push { event: Box::new(event), envelope }).await;
            }
            (ServiceMessage::Reply(reply), Some(carrier)) => {
                let Some(id) = self.memory.requests.carried_by(&carrier) else {
                    return self.ignore("a reply to nothing that waits");
                };
                if reply.request_id().is_some_and(|named| named != id)
                    || (reply.request_id().is_none() && matches!(reply, Reply::Ok { .. }))
                {
                    return self.ignore("a reply to another request than its event names");
                }
                self.times.heard(Unix(event.created_at.as_secs()));
                if self.tries_again(&reply, &id, session) {
                    return;
                }
                self.memory.requests.settle(&id);
                match self.memory.own.remove(&id) {
                    // the one who asked may have gone
                    Some(answered) => drop(answered.send(reply)),
                    None => {
                        let event = Box::new(event);
                        self.tell_vault(ToVault::Reply { request_id: id, event, envelope }).await;
                    }
                }
            }
            (ServiceMessage::Push { .. }, Some(_)) => self.ignore("a push that names a request"),
            (ServiceMessage::Reply(_), None) => self.ignore("a reply that names no request"),
        }
    }

    /// Whether the request stays: what was refused is the event, or the session.
    fn tries_again(&mut self, reply: &Reply, id: &RequestId, session: Option<PubKey>) -> bool {
        let Reply::Error { code, reason, .. } = reply else { return false };
        if is_about_the_event(*code) {
            tracing::info!(event = "event_refused", request_id = %id, %code, reason);
            return true;
        }
        match (code, session) {
            (ErrorCode::NotInRoster, Some(key)) => {
                // a full queue holds doubts already
                let _ = self.doubts.try_send(key);
                true
            }
            _ => false,
        }
    }

    fn is_new(&mut self, push: PushId) -> bool {
        let Memory { pushes, push_order, .. } = &mut self.memory;
        if !pushes.insert(push) {
            return false;
        }
        push_order.push_back(push);
        if push_order.len() > PUSHES
            && let Some(oldest) = push_order.pop_front()
        {
            pushes.remove(&oldest);
        }
        true
    }

    async fn tell_vault(&self, message: ToVault) {
        // without a receiver `net` is ending
        drop(self.to_vault.send(message).await);
    }

    fn ignore(&mut self, why: &str) {
        self.memory.ignored = self.memory.ignored.saturating_add(1);
        tracing::warn!(event = "service_message_ignored", why, total = self.memory.ignored);
    }
}

/// Name of a session's subscription.
fn name(session: &Session) -> String {
    format!("rpc-{}", session.key.to_string().get(..16).unwrap_or_default())
}

/// The one event that `event` names by its `e` tag.
fn carrier(event: &Event) -> Option<EventId> {
    let mut tags = event.tags.iter().filter(|tag| tag.kind() == TagKind::e());
    let id = tags.next()?.content()?.parse().ok()?;
    tags.next().is_none().then_some(id)
}

async fn by_spire(
    signer: &Signer,
    pins: &NetPins,
    plaintext: String,
    now: Unix,
) -> Result<Event, SignerError> {
    let content = signer.encrypt(pins.service, plaintext).await?;
    signer.sign(request_event(&pins.spire, &pins.service, now, content)).await
}
