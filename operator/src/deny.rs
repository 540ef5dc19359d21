//! The deny-list: a program of the operator's that is asked before each sale whether it may be.
//!
//! Promise: no quote is given that the list refuses. Where it does not say, the configuration
//! decides: `refuse` (as it is where nothing is said) or `serve`, which is logged for each sale. What
//! was quoted is not asked about again: whoever has paid, or fed notes, gets what was agreed.
//!
//! Failure policy: no answer in time, another status than 2xx and an answer without `allow` are
//! silence; [`Denied`] says in words which of the two it was. Beyond [`OPEN`] questions without an
//! answer it is not asked: those who wait for a list that hangs take no more of the service's places.

use std::time::Duration;

use bitspire_shared::ids::TxnId;
use bitspire_shared::money::{Direction, Fiat};
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::config::WithoutAnswer;
use crate::ids::MachineId;
use crate::outgoing::peer::{Peer, PeerError};

/// How long the list may take: a customer waits; a test on a busy computer waits longer.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 30 } else { 3 });
/// Questions at a time: an eighth of the requests that the service works on at once.
const OPEN: usize = 32;
/// Characters of its reason that are shown.
const WORDS: usize = 200;

/// Why a sale may not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    /// The list says so.
    #[error("not sold: {0}")]
    Listed(String),
    /// The list does not say.
    #[error("not sold: the operator's deny-list does not answer, and nothing is sold without it")]
    Silent,
}

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sale {
    pub(crate) machine: MachineId,
    pub(crate) direction: Direction,
    pub(crate) txid: TxnId,
    /// The amount; for notes that are fed the most of them.
    pub(crate) fiat: Fiat,
}

/// What it answers.
#[derive(Deserialize)]
struct Answered {
    allow: bool,
    reason: Option<String>,
}

/// The list.
pub(crate) struct DenyList {
    peer: Peer,
    without_answer: WithoutAnswer,
    patience: Duration,
    places: Semaphore,
}

impl DenyList {
    fn new(peer: Peer, without_answer: WithoutAnswer, patience: Duration) -> Self {
        Self { peer, without_answer, patience, places: Semaphore::new(OPEN) }
    }

    /// The one that the configuration names.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) fn open(app: &App) -> Result<Option<Self>, PeerError> {
        let Some(config) = &app.config.deny_list else { return Ok(None) };
        let peer = Peer::open(&config.peer, &app.config.outgoing_allowed)?;
        Ok(Some(Self::new(peer, config.without_answer, PATIENCE)))
    }

    /// Asks about a sale.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) async fn ask(&self, sale: Sale, now: Unix) -> Result<(), Denied> {
        let Sale { machine, direction, txid, fiat } = sale;
        let body = json!({
            "machine_id": machine, "direction": direction, "txid": txid,
            "fiat_minor": fiat.minor, "fiat_code": fiat.currency,
        });
        match self.answer(&body, now).await {
            Ok(Answered { allow: true, .. }) => Ok(()),
            Ok(Answered { reason, .. }) => {
                let reason = reason.unwrap_or_else(|| "the operator's deny-list says no".into());
                let words: String =
                    reason.chars().filter(|c| !c.is_control()).take(WORDS).collect();
                tracing::warn!(event = "sale_denied", %machine, txn = %txid, reason = words);
                Err(Denied::Listed(words))
            }
            Err(reason) => {
                let serve = self.without_answer == WithoutAnswer::Serve;
                let (event, txn) = ("deny_list_silent", txid);
                tracing::warn!(event, %machine, %txn, reason, served = serve);
                if serve { Ok(()) } else { Err(Denied::Silent) }
            }
        }
    }

    /// What it says, or in words why it does not.
    async fn answer(&self, body: &serde_json::Value, now: Unix) -> Result<Answered, String> {
        let place = self.places.try_acquire();
        let Ok(_place) = place else { return Err(format!("{OPEN} questions wait already")) };
        match self.peer.send(body, now, self.patience).await {
            Ok(answer) if answer.status.is_success() => answer.json(),
            Ok(answer) => Err(answer.words()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use bitspire_shared::ids::TxnId;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::outgoing::testing::Host;

    async fn asked(path: &str, without_answer: WithoutAnswer) -> Result<(), Denied> {
        let no = "{\"allow\":false,\"reason\":\"one a day\\u0007\"}";
        let router = Router::new()
            .route("/yes", post(|| async { "{\"allow\":true}" }))
            .route("/no", post(move || async move { no }))
            .route("/bare", post(|| async { "{\"allow\":false}" }))
            .route("/other", post(|| async { "{}" }))
            .route(
                "/failed",
                post(|| async {
                    (StatusCode::INTERNAL_SERVER_ERROR, "{\"allow\":true}").into_response()
                }),
            )
            .route("/never", post(|| async { std::future::pending::<()>().await }));
        let host = Host::start(router).await;
        let peer = Peer::at(&host.base(), path, "secret");
        let patience = if path == "/never" { Duration::from_millis(50) } else { PATIENCE };
        DenyList::new(peer, without_answer, patience).ask(sale(), NOW).await
    }

    const NOW: Unix = Unix(1_800_000_000);

    fn sale() -> Sale {
        Sale {
            machine: MachineId(1),
            direction: Direction::CashOut,
            txid: TxnId::from_bytes([1; 16]),
            fiat: Fiat::new(4_000, "EUR".parse().unwrap()),
        }
    }

    /// Loss prevented: whoever is on the list is sold to because the list was slow, broken or said so in
    /// other words; or nobody is sold to though the operator wanted to serve without it.
    #[tokio::test]
    async fn a_list_that_does_not_say_decides_as_configured() {
        for without in [WithoutAnswer::Refuse, WithoutAnswer::Serve] {
            assert_eq!(asked("/yes", without).await, Ok(()));
            let listed = Err(Denied::Listed("one a day".into()));
            assert_eq!(asked("/no", without).await, listed, "without the bell");
            assert!(matches!(asked("/bare", without).await, Err(Denied::Listed(_))));
            let silent = match without {
                WithoutAnswer::Refuse => Err(Denied::Silent),
                WithoutAnswer::Serve => Ok(()),
            };
            for path in ["/other", "/failed", "/never", "/gone"] {
                assert_eq!(asked(path, without).await, silent, "{path}");
            }
        }
    }

    /// Loss prevented: a list that hangs takes every place of the service, and customers who have paid
    /// are not heard.
    #[tokio::test]
    async fn a_list_that_hangs_takes_few_places() {
        let never = post(|| async { std::future::pending::<()>().await });
        let host = Host::start(Router::new().route("/never", never)).await;
        let peer = Peer::at(&host.base(), "/never", "secret");
        let list = DenyList::new(peer, WithoutAnswer::Refuse, PATIENCE);
        let ask = || Box::pin(list.ask(sale(), NOW));
        let mut open: Vec<_> = (0..OPEN).map(|_| ask()).collect();
        for asked in &mut open {
            assert_eq!(asked.as_mut().now_or_never(), None, "it waits for the list");
        }
        assert_eq!(ask().now_or_never(), Some(Err(Denied::Silent)));
        drop(open);
        assert_eq!(ask().now_or_never(), None, "its place is free again");
    }
}
