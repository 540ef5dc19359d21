//! One question and its reply, and in which dialect the bunker is asked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitspire_shared::nip46::KIND;
use bitspire_shared::nip46::message::{MessageId, Outcome, Plain, Response};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::super::cipher::Encryption;
use super::super::link::{Link, LinkError, fresh_id};
use super::super::{ADMIN_KIND, Abilities, SignerError};

/// Time between two sendings of what may be repeated.
const AGAIN: Duration = Duration::from_secs(2);
/// Time between two dialects that are tried.
const NEXT: Duration = Duration::from_millis(500);
/// How long a better dialect than the one that was answered is waited for.
const BETTER: Duration = Duration::from_secs(1);
/// Time between two tries while no relay is connected.
const NO_RELAY: Duration = Duration::from_millis(200);
/// Longest part of a bunker's text that is kept, in characters.
const MAX_QUOTE: usize = 200;

/// How a bunker is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dialect {
    /// The kind of the requests.
    pub kind: u16,
    /// Their encryption.
    pub encryption: Encryption,
}

/// Whether a call may be sent more than once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It reads.
    Reads,
    /// It changes something.
    Changes,
}

/// What the clones of a client share.
pub(super) struct Inner {
    link: Link,
    timeout: Duration,
    encryption: Option<Encryption>,
    pub(super) passphrase: Option<Zeroizing<String>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Response>>>,
    dialect: Mutex<Option<Dialect>>,
    /// Held by whoever settles the dialect, so that one does.
    settling: tokio::sync::Mutex<()>,
    abilities: Mutex<Option<Abilities>>,
}

/// The rank of a dialect and the reply in it.
type Answered = (usize, Result<Response, oneshot::error::RecvError>);

enum Got {
    Reply(Response),
    NotSent,
    Nothing,
}

impl Inner {
    pub(super) fn new(
        link: Link,
        timeout: Duration,
        encryption: Option<Encryption>,
        passphrase: Option<Zeroizing<String>>,
    ) -> Self {
        Self {
            link,
            timeout,
            encryption,
            passphrase,
            waiting: Mutex::default(),
            dialect: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            abilities: Mutex::default(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Response>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dialect(&self) -> Option<Dialect> {
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn abilities(&self) -> Option<Abilities> {
        self.abilities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_abilities(&self, found: &Abilities) {
        *self.abilities.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.clone());
    }

    /// What was found out of the bunker may not hold any more.
    pub(super) fn unsettle(&self) {
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.abilities.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes replies to whoever waits for them.
    pub(super) async fn read(&self) {
        while let Some((_, text)) = self.link.next().await {
            let Ok(response) = Response::parse(text.expose()) else { continue };
            let MessageId::Text(id) = &response.id else { continue };
            if let Some(waiter) = self.waiting().remove(id) {
                // whoever waited may have gone
                let _ = waiter.send(response);
            }
        }
    }

    pub(super) async fn close(&self) {
        self.link.close().await;
    }

    /// The dialects that are tried, the most likely first.
    fn dialects(&self) -> Vec<Dialect> {
        let encryptions = match self.encryption {
            Some(named) => vec![named],
            None => vec![Encryption::Nip44, Encryption::Nip04],
        };
        let of = |kind| encryptions.iter().map(move |encryption| (kind, *encryption));
        let all = of(ADMIN_KIND).chain(of(KIND));
        all.map(|(kind, encryption)| Dialect { kind, encryption }).collect()
    }

    /// The bunker's dialect, and whether it has answered just now.
    pub(super) async fn settled(&self) -> Result<(Dialect, bool), SignerError> {
        if let Some(dialect) = self.dialect() {
            return Ok((dialect, false));
        }
        let _alone = self.settling.lock().await;
        if let Some(dialect) = self.dialect() {
            return Ok((dialect, false));
        }
        let dialect = self.settle().await?;
        tracing::info!(
            event = "bunker_dialect",
            kind = dialect.kind,
            encryption = dialect.encryption.as_str()
        );
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner) = Some(dialect);
        Ok((dialect, true))
    }

    /// Pings in each dialect by turns until one is answered, then once more in those that are better:
    /// their first pings may have been lost. A ping changes nothing, so any number of them may be on
    /// the way.
    async fn settle(&self) -> Result<Dialect, SignerError> {
        let dialects = self.dialects();
        let mut pings = Vec::new();
        let mut replies = FuturesUnordered::new();
        for (rank, dialect) in dialects.iter().enumerate() {
            let id = fresh_id().map_err(|error| refused("ping", &error))?;
            let (waiter, reply) = oneshot::channel();
            self.waiting().insert(id.clone(), waiter);
            replies.push(async move { (rank, reply.await) });
            pings.push((id, *dialect));
        }
        let settled = self.ping_by_turns(&pings, &mut replies).await;
        for (id, _) in &pings {
            self.waiting().remove(id);
        }
        let rank = settled?;
        dialects.get(rank).copied().ok_or(SignerError::NotSent { method: "ping" })
    }

    async fn ping_by_turns(
        &self,
        pings: &[(String, Dialect)],
        replies: &mut (impl Stream<Item = Answered> + Unpin),
    ) -> Result<usize, SignerError> {
        let method = "ping";
        let end = Instant::now() + self.timeout;
        let mut sent = false;
        let mut turns = pings.iter().cycle();
        let mut found = loop {
            let Some(ping) = turns.next().filter(|_| Instant::now() < end) else {
                let seconds = self.timeout.as_secs();
                return Err(match sent {
                    true => SignerError::NoReply { method, seconds },
                    false => SignerError::NotSent { method },
                });
            };
            sent |= self.ping(ping).await? > 0;
            let pause = if sent { NEXT } else { NO_RELAY };
            let heard = timeout_at((Instant::now() + pause).min(end), replies.next()).await;
            if let Ok(Some((rank, Ok(response)))) = heard {
                result(method, response)?;
                break rank;
            }
        };
        for ping in pings.iter().take(found) {
            self.ping(ping).await?;
        }
        let last_call = Instant::now() + BETTER;
        while found > 0
            && let Ok(Some((rank, answered))) = timeout_at(last_call, replies.next()).await
        {
            if answered.is_ok_and(|response| result(method, response).is_ok()) {
                found = found.min(rank);
            }
        }
        Ok(found)
    }

    async fn ping(&self, (id, dialect): &(String, Dialect)) -> Result<usize, SignerError> {
        let text = Plain::new(json!({"id": id, "method": "ping", "params": []}).to_string());
        let sent = self.link.send(dialect.kind, dialect.encryption, &text).await;
        sent.map_err(|error| refused("ping", &error))
    }

    pub(super) async fn exchange(
        &self,
        dialect: Dialect,
        effect: Effect,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Zeroizing<String>, SignerError> {
        let id = fresh_id().map_err(|error| refused(method, &error))?;
        let request = json!({"id": id, "method": method, "params": params});
        let request = Plain::new(request.to_string());
        let (waiter, mut reply) = oneshot::channel();
        self.waiting().insert(id.clone(), waiter);
        let got = self.send_until(dialect, effect, &request, &mut reply).await;
        self.waiting().remove(&id);
        match got.map_err(|error| refused(method, &error))? {
            Got::Reply(response) => result(method, response),
            Got::NotSent => Err(SignerError::NotSent { method }),
            Got::Nothing => Err(SignerError::NoReply { method, seconds: self.timeout.as_secs() }),
        }
    }

    async fn send_until(
        &self,
        dialect: Dialect,
        effect: Effect,
        text: &Plain,
        reply: &mut oneshot::Receiver<Response>,
    ) -> Result<Got, LinkError> {
        let end = Instant::now() + self.timeout;
        let mut sent = false;
        while Instant::now() < end {
            // what no relay was handed had no effect: that much may be repeated
            if !sent || effect == Effect::Reads {
                sent |= self.link.send(dialect.kind, dialect.encryption, text).await? > 0;
            }
            let pause = if sent { AGAIN } else { NO_RELAY };
            if let Ok(got) = timeout_at((Instant::now() + pause).min(end), &mut *reply).await {
                return Ok(got.map_or(Got::Nothing, Got::Reply));
            }
        }
        Ok(if sent { Got::Nothing } else { Got::NotSent })
    }
}

/// A request that could not even be made.
fn refused(method: &'static str, error: &dyn std::fmt::Display) -> SignerError {
    SignerError::Refused { method, reason: error.to_string() }
}

/// A bunker's text as it may be logged and shown.
fn quote(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_QUOTE).collect()
}

fn result(method: &'static str, response: Response) -> Result<Zeroizing<String>, SignerError> {
    match response.outcome() {
        Outcome::Failed(text) => Err(SignerError::Refused { method, reason: quote(text.expose()) }),
        Outcome::Done(Some(text)) => {
            // nsecbunkerd says so of methods that it does not have
            if let Ok((word, reason)) = serde_json::from_str::<(String, String)>(text.expose())
                && word == "error"
            {
                return Err(SignerError::Refused { method, reason: quote(&reason) });
            }
            Ok(Zeroizing::new(text.expose().to_owned()))
        }
        Outcome::Done(None) | Outcome::AuthUrl(_) => {
            Err(SignerError::Unexpected { method, expected: "a result" })
        }
    }
}
