//! CLINK for customers' wallets, which ask by Nostr instead of HTTP: an offer for the invoice on the
//! screen of a cash_out (kind 21001), a debit with a session for the sats of a cash_in (kind 21002).
//!
//! Promise: off unless the configuration opens it. Nothing is reachable here that is not on the same
//! screen as bolt11 or LNURL, and nothing is paid but by the rows of these: see [`answer`]. Whoever asks
//! is a stranger: see [`door`] for what they may cause.
//!
//! Failure policy: the subscription always survives. What cannot be answered now is dropped and counted;
//! the kinds are ephemeral, so its wallet asks again, with the same outcome.

mod answer;
mod codes;
mod door;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bitspire_shared::clink::{
    Answer, Asked, DEBIT_KIND, DebitReply, GfyCode, OFFER_KIND, OfferErrorCode, OfferReply,
    RequestError, reply_event, speaks_version,
};
use bitspire_shared::ids::{EventId, IdError, PubKey};
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::seed::{Loopback, parse_relay};
use bitspire_shared::time::Unix;
use bitspire_shell::pool::{Pool, PoolError};
use nostr::{Event, Filter, Kind, Timestamp};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use crate::app::App;
use crate::config::Config;
use crate::rpc::{LineError, random};
pub(crate) use codes::Codes;
use door::{Door, Turned};

/// Requests in work at once; one more is dropped and counted.
const PLACES: usize = 32;
/// Requests that came again and wait for their reply; one more is dropped.
const AGAIN: usize = 64;
/// How far back a subscription asks.
const SINCE_S: u64 = 60;

/// Why CLINK does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A relay's address is none.
    #[error("the relays cannot be used")]
    Relay(#[from] PoolError),
}

/// Why a request gets no reply.
#[derive(Debug, Error)]
enum Unanswered {
    /// Its author's key is none.
    #[error("the author's key is no public key")]
    Key(#[from] IdError),
    /// It does not decrypt, or the reply cannot be encrypted.
    #[error("encryption failed")]
    Cipher(#[from] Nip44Error),
    /// No random bytes.
    #[error("the reply cannot be encrypted")]
    Random(#[from] LineError),
    /// The reply has no text.
    #[error("the reply cannot be written")]
    Text(#[from] serde_json::Error),
    /// The service key does not sign.
    #[error("the service key does not sign: {0}")]
    Sign(String),
}

/// The running service.
struct Clink {
    app: Arc<App>,
    door: Arc<Door>,
    pools: Vec<Arc<Pool>>,
    places: Arc<Semaphore>,
}

/// What is wrong with the configuration, though it works: for `config check` and the log.
#[must_use]
pub fn warning(config: &Config) -> Option<String> {
    let shown = config.clink.as_ref()?;
    let relay = parse_relay(shown).and_then(|relay| Loopback::Refused.check(&[relay]));
    relay.err().map(|error| format!("clink.relay: no customer's wallet reaches it: {error}"))
}

/// Connects to the relays and serves customers' wallets until the daemon stops, where the configuration
/// says so.
///
/// # Errors
/// [`StartError`], before anything has started.
pub async fn start(app: &Arc<App>) -> Result<(), StartError> {
    if app.config.clink.is_none() {
        return Ok(());
    }
    if let Some(warning) = warning(&app.config) {
        tracing::warn!(event = "clink_out_of_reach", warning);
    }
    let (again, asked_again) = mpsc::channel(AGAIN);
    let (service, relays) = (app.service_key, app.config.relays.len());
    let door = Arc::new(Door::new(service, relays, app.clock.clone(), app.clink.clone(), again));
    // connections of their own: a flood here holds up no machine
    let mut pools = Vec::new();
    for url in &app.config.relays {
        let filter = door.filter();
        let pool = Pool::connect(app.service.clone(), std::slice::from_ref(url), filter).await?;
        let pool = Arc::new(pool);
        app.show_pool("wallets", pool.clone());
        pools.push(pool);
    }
    let places = Arc::new(Semaphore::new(PLACES));
    let clink = Arc::new(Clink { app: app.clone(), door, pools: pools.clone(), places });
    app.tasks.spawn(clink.clone().repeat(asked_again));
    for pool in pools {
        app.tasks.spawn(clink.clone().read(pool));
    }
    Ok(())
}

impl Clink {
    /// Reads one relay until the daemon stops.
    async fn read(self: Arc<Self>, pool: Arc<Pool>) {
        let since = self.app.clock.now().0.saturating_sub(SINCE_S);
        let filter = Filter::new()
            .kinds([OFFER_KIND, DEBIT_KIND].map(Kind::from))
            .pubkey(self.app.service.public_key())
            .since(Timestamp::from(since));
        pool.subscribe("clink", filter).await;
        while let Some(Some(event)) = self.app.stop.run_until_cancelled(pool.next()).await {
            self.clone().admit(event);
        }
        pool.close().await;
    }

    /// Sends replies again until the daemon stops.
    async fn repeat(self: Arc<Self>, mut asked_again: mpsc::Receiver<[u8; 32]>) {
        while let Some(Some(id)) = self.app.stop.run_until_cancelled(asked_again.recv()).await {
            if let Some(reply) = self.door.again(&id) {
                self.app.clink.count("repeated");
                self.send(&reply).await;
            }
        }
    }

    /// Takes in an event whose id and signature have verified.
    fn admit(self: Arc<Self>, event: Event) {
        let busy = match self.door.event(&event) {
            Ok(()) => None,
            Err(Turned { told_ms: Some(ms) }) => Some(ms),
            Err(Turned { told_ms: None }) => return,
        };
        // the specification lets nobody answer what speaks another version
        if !speaks_version(&event) {
            self.app.clink.count("version");
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.app.clink.count("no_place");
            return;
        };
        let app = self.app.clone();
        app.tasks.spawn(async move {
            if let Err(error) = self.serve(&event, busy).await {
                self.app.clink.count("unanswered");
                tracing::debug!(event = "clink_unanswered", %error);
            }
            drop(place);
        });
    }

    async fn serve(&self, event: &Event, busy: Option<u64>) -> Result<(), Unanswered> {
        let reader = PubKey::new(event.pubkey)?;
        let cipher = ConversationKey::derive(self.app.service.secret_key(), &reader)?;
        let text = cipher.decrypt(&event.content)?;
        let answer = match (busy, Asked::parse(event.kind.as_u16(), &text)) {
            (Some(ms), _) => self.slow_down(event, ms),
            (None, Ok(Asked::Offer(asked))) => {
                Answer::Offer(answer::offer(&self.app, &asked).await)
            }
            (None, Ok(Asked::Debit(asked))) => {
                let made_at = Unix(event.created_at.as_secs());
                Answer::Debit(answer::debit(&self.app, &asked, made_at).await)
            }
            (None, Err(error)) => unreadable(event, &error),
        };
        self.app.clink.count(outcome(&answer));
        let content = cipher.encrypt(&answer.to_plaintext()?, random()?)?;
        let service = self.app.service_key;
        let id = EventId::from_bytes(event.id.to_bytes());
        let now = self.app.clock.now();
        let reply = reply_event((&service, &reader), &id, answer.kind(), now, content);
        let reply = reply.sign_with_keys(&self.app.service);
        let reply = reply.map_err(|error| Unanswered::Sign(error.to_string()))?;
        self.door.keep(event, reply.clone());
        self.send(&reply).await;
        Ok(())
    }

    fn slow_down(&self, event: &Event, ms: u64) -> Answer {
        if event.kind.as_u16() == OFFER_KIND {
            let error = "Temporary Failure: too many requests";
            return Answer::Offer(OfferReply::error(OfferErrorCode::Temporary, error));
        }
        Answer::Debit(DebitReply::Gfy {
            code: GfyCode::RateLimited,
            error: "Rate Limited".to_owned(),
            range: None,
            delta: None,
            retry_after: Some(self.app.clock.now().after(ms.div_ceil(1_000))),
        })
    }

    async fn send(&self, reply: &Event) {
        let mut handed: usize = 0;
        for pool in &self.pools {
            handed = handed.saturating_add(pool.send(reply).await);
        }
        if handed == 0 {
            self.app.clink.count("reply_without_relay");
        }
    }
}

/// What a request is told that cannot be read.
fn unreadable(event: &Event, error: &RequestError) -> Answer {
    if event.kind.as_u16() == OFFER_KIND {
        let code = match error {
            RequestError::Unsupported { .. } => OfferErrorCode::Unsupported,
            _ => OfferErrorCode::Invalid,
        };
        return Answer::Offer(OfferReply::error(code, &error.to_string()));
    }
    Answer::Debit(DebitReply::gfy(GfyCode::Invalid, &format!("Invalid Request: {error}")))
}

/// The name of an answer's counter.
const fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Offer(OfferReply::Invoice { .. }) => "offer_invoice",
        Answer::Offer(OfferReply::Error { code, .. }) => match code {
            OfferErrorCode::Invalid => "offer_invalid",
            OfferErrorCode::Temporary => "offer_temporary",
            OfferErrorCode::Expired => "offer_expired",
            OfferErrorCode::Unsupported => "offer_unsupported",
            OfferErrorCode::Amount => "offer_amount",
        },
        Answer::Debit(DebitReply::Ok) => "debit_ok",
        Answer::Debit(DebitReply::Gfy { code, .. }) => match code {
            GfyCode::Denied => "debit_denied",
            GfyCode::Temporary => "debit_temporary",
            GfyCode::Expired => "debit_expired",
            GfyCode::RateLimited => "debit_rate_limited",
            GfyCode::Amount => "debit_amount",
            GfyCode::Invalid => "debit_invalid",
        },
    }
}
