//! The relays of others: what they say of themselves (NIP-11), and what follows from it.
//!
//! Promise: each relay that the configuration names is asked at the start and every hour; what it
//! cannot do for a fleet stands in the log, on the page and in `relays`, in words that say what to
//! do. Messages that it calls too long are not sent to it, and subscriptions are cut to what it
//! answers in full. NIP-11 is a relay's own word: it only ever makes us more modest.
//!
//! Failure policy: a relay that says nothing of itself is used as any other; it is asked again.

mod information;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitspire_shared::time::Unix;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

pub use information::{Information, Limits};

use crate::app::App;
use crate::outgoing::{Ask, Server};

/// Between two times of asking.
const AGAIN: Duration = Duration::from_secs(3_600);
/// The longest document that is read.
const MOST_BYTES: usize = 64 << 10;
/// No relay that carries events takes so few: a lower bound is an error of its document.
const LEAST_MESSAGE: usize = 4_096;
/// What NIP-11 is asked for as.
const ACCEPT: &str = "application/nostr+json";

/// What a relay said of itself when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// When it was asked.
    pub asked_at: Unix,
    /// What it said.
    pub information: Option<Information>,
    /// Why there is nothing.
    pub error: Option<String>,
    /// What does not fit a fleet, and what to do.
    pub warnings: Vec<String>,
}

/// What is known of the relays, by address.
#[derive(Debug, Default)]
pub struct Relays(Mutex<BTreeMap<String, Known>>);

impl Relays {
    /// What is known of one.
    #[must_use]
    pub fn of(&self, relay: &str) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(relay).cloned()
    }

    /// The tightest limits of all of them: what is asked of every relay fits each.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = known.values().filter_map(|known| known.information.as_ref());
        said.fold(Limits::default(), |all, one| all.and(&one.limits))
    }

    fn set(&self, relay: &str, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(relay.to_owned(), known);
    }
}

/// Asks the relays of others until the daemon stops.
pub fn start(app: &Arc<App>) {
    let app = app.clone();
    let tasks = app.tasks.clone();
    tasks.spawn(async move {
        let stop = app.stop.clone();
        let work = async {
            let mut tick = tokio::time::interval(AGAIN);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                ask_all(&app).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
}

/// The relays that are not our own.
#[must_use]
pub fn of_others(config: &crate::config::Config) -> &[String] {
    let own = usize::from(config.relay_listen.is_some());
    config.relays.get(own..).unwrap_or_default()
}

async fn ask_all(app: &App) {
    let relays = of_others(&app.config);
    let answers = join_all(relays.iter().map(|relay| ask(relay, app.clock.now()))).await;
    for (relay, known) in relays.iter().zip(answers) {
        if let Some(error) = &known.error {
            tracing::info!(event = "relay_says_nothing_of_itself", relay, error);
        }
        let before = app.relays.of(relay).map(|before| before.warnings);
        for warning in known.warnings.iter().filter(|_| before.as_ref() != Some(&known.warnings)) {
            tracing::warn!(event = "relay_does_not_fit", relay, warning);
        }
        if let Some(said) = &known.information {
            // also where it has taken its bound back
            app.each_pool(|pool| pool.set_most_bytes(relay, most_bytes(&said.limits)));
        }
        // a relay that is away now keeps the limits that it had
        let kept = app.relays.of(relay).filter(|kept| kept.information.is_some());
        match kept {
            Some(kept) if known.information.is_none() => {
                app.relays.set(relay, Known { error: known.error, ..kept });
            }
            _ => app.relays.set(relay, known),
        }
    }
}

/// The longest message that a relay is sent.
fn most_bytes(limits: &Limits) -> Option<usize> {
    limits.message_bytes.filter(|bytes| *bytes >= LEAST_MESSAGE)
}

/// Asks one relay what it says of itself, at `now`.
pub async fn ask(relay: &str, now: Unix) -> Known {
    match fetch(relay).await {
        Ok(information) => {
            let warnings = information.warnings();
            Known { asked_at: now, information: Some(information), error: None, warnings }
        }
        Err(error) => {
            Known { asked_at: now, information: None, error: Some(error), warnings: Vec::new() }
        }
    }
}

async fn fetch(relay: &str) -> Result<Information, String> {
    let http = match relay.split_once("://") {
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("ws", rest)) => format!("http://{rest}"),
        _ => return Err("expected a ws:// or wss:// address".into()),
    };
    let server = Server::configured(&http).map_err(|error| error.to_string())?;
    let asked = Ask::get("").accept(ACCEPT).at_most(MOST_BYTES);
    let answer = server.send(asked).await.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(answer.words());
    }
    Ok(Information::read(&answer.json::<serde_json::Value>()?))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode, header};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;
    use crate::outgoing::testing::Host;

    /// Loss prevented: a relay whose document has an odd number in it is sent nothing any more.
    #[test]
    fn an_odd_bound_counts_for_nothing() {
        let at = |message_bytes| most_bytes(&Limits { message_bytes, ..Limits::default() });
        assert_eq!([at(None), at(Some(4_095)), at(Some(4_096))], [None, None, Some(4_096)]);
    }

    /// Loss prevented: a relay is asked for its page instead of its document, and never warned of; or
    /// one without a document is taken for one without limits that somebody had read.
    #[tokio::test]
    async fn a_relay_is_asked_as_nip_11_has_it() {
        let document = async |headers: HeaderMap| {
            if headers[header::ACCEPT] != ACCEPT {
                return Err(StatusCode::UPGRADE_REQUIRED);
            }
            Ok(Json(json!({"name": "R", "limitation": {"payment_required": true}})))
        };
        let host = Host::start(Router::new().route("/", get(document))).await;
        let relay = host.base().replace("http://", "ws://");
        let known = ask(&relay, Unix(7)).await;
        assert_eq!(known.information.unwrap().name.as_deref(), Some("R"));
        assert_eq!((known.asked_at, known.warnings.len(), known.error), (Unix(7), 1, None));
        let nothing = ask(&format!("{relay}/none"), Unix(8)).await;
        assert!(nothing.information.is_none() && nothing.error.unwrap().contains("404"));
        host.reach(false).await;
        assert!(ask(&relay, Unix(9)).await.error.unwrap().contains("not sent"));
    }
}
