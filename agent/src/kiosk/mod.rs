//! The customer's screen: HTTP and server-sent events on loopback.
//!
//! Promise: a screen is a pure function of what the vault says ([`render`]); the page holds no
//! state and decides nothing. Whoever acts, or sees a screen (a claim code may stand on it), shows
//! the token of this boot, which is handed to the machine's browser in the fragment of its address
//! and so never reaches a log or a `Referer`.
//!
//! Another front end finds the contract at `/openapi.json`; each event carries the screen as data
//! beside its HTML.
//!
//! Failure policy: a wrong Host, Origin or token is refused before anything is read, so that a web
//! page elsewhere, or a name that was pointed at loopback, cannot press a button here. A vault that
//! does not take an action in time is 503: the customer presses again.

#[cfg(test)]
mod contract;
mod first_boot;
mod render;
mod service;
#[cfg(test)]
mod tests;
mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bitspire_shared::ids::to_hex;
use bitspire_shell::secrets::{SecretError, random};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

pub use self::render::render;
pub use self::text::text;
use crate::ipc::{CustomerAction, SecretText, ToVault};
use crate::screen::Numbered;

/// What the page may load: itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' \
    data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How a front end drives the machine; a test holds it against the routes and the types.
const OPENAPI: &str = include_str!("../../../docs/kiosk-openapi.json");

/// Name of the header that carries the token.
const TOKEN: &str = "x-kiosk-token";

/// Longest body of an action.
const MAX_BODY: usize = 4_096;

/// The kiosk's side of the world.
pub struct Kiosk {
    token: SecretText,
    address: SocketAddr,
    screens: watch::Receiver<Option<Numbered>>,
    to_vault: mpsc::Sender<ToVault>,
}

impl std::fmt::Debug for Kiosk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kiosk").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Kiosk {
    /// A kiosk reached at `address`, which shows `screens` and passes on what people do there:
    /// [`ToVault::Customer`] and [`ToVault::Seed`].
    ///
    /// # Errors
    /// [`SecretError::Random`]: without a token nothing is served.
    pub fn new(
        address: SocketAddr,
        screens: watch::Receiver<Option<Numbered>>,
        to_vault: mpsc::Sender<ToVault>,
    ) -> Result<Self, SecretError> {
        let token = SecretText::new(to_hex(&random::<32>()?));
        Ok(Self { token, address, screens, to_vault })
    }

    /// Where it is reached.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for the machine's browser, with the token of this boot: a secret.
    #[must_use]
    pub fn url(&self) -> SecretText {
        SecretText::new(format!("http://{}/#{}", self.address, self.token.expose()))
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// What the listener says.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let app = router(Arc::new(self), stop.clone());
        axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

#[derive(Clone)]
struct Shared {
    kiosk: Arc<Kiosk>,
    stop: CancellationToken,
}

fn router(kiosk: Arc<Kiosk>, stop: CancellationToken) -> Router {
    let shared = Shared { kiosk, stop };
    let guarded = Router::new()
        .route("/events", get(events))
        .route("/action", post(action))
        .route("/seed", post(first_boot::seed))
        .route_layer(from_fn_with_state(shared.clone(), with_token));
    Router::new()
        .route("/", get(page))
        .route("/kiosk.js", get(|| async { asset("text/javascript", include_str!("kiosk.js")) }))
        .route("/kiosk.css", get(|| async { asset("text/css", include_str!("kiosk.css")) }))
        .route("/openapi.json", get(|| async { asset("application/json", OPENAPI) }))
        .merge(guarded)
        .layer(from_fn_with_state(shared.clone(), from_here))
        .with_state(shared)
}

fn refused(status: StatusCode, words: &'static str) -> Response {
    tracing::warn!(event = "kiosk_refused", status = status.as_u16(), words);
    (status, words).into_response()
}

/// Only requests that name this address as Host, and come from its own page or from no page.
async fn from_here(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let own = shared.kiosk.address.to_string();
    if request.headers().get(header::HOST).is_none_or(|host| host != own.as_str()) {
        return refused(StatusCode::MISDIRECTED_REQUEST, "expected this machine's own Host");
    }
    let origin = format!("http://{own}");
    if request.headers().get(header::ORIGIN).is_some_and(|from| from != origin.as_str()) {
        return refused(StatusCode::FORBIDDEN, "expected this machine's own Origin");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn with_token(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if same(shared.kiosk.token.expose(), request.headers()) {
        next.run(request).await
    } else {
        refused(StatusCode::UNAUTHORIZED, "expected the token of this boot")
    }
}

/// By hash, so that the time it takes says nothing about the token.
fn same(token: &str, headers: &HeaderMap) -> bool {
    let shown = headers.get(TOKEN).map(|value| Sha256::digest(value.as_bytes()));
    shown == Some(Sha256::digest(token.as_bytes()))
}

async fn page() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], render::page().into_string())
        .into_response()
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// A screen as a front end gets it: its number, its HTML, and what it says as data.
fn data(shown: &Numbered) -> serde_json::Value {
    let Numbered { number, screen } = shown;
    let html = render(screen).into_string();
    serde_json::json!({ "number": number, "html": html, "screen": screen })
}

/// Every screen from now on, the current one first.
async fn events(
    State(shared): State<Shared>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let screens = WatchStream::new(shared.kiosk.screens.clone());
    let page = Page(shared.kiosk.to_vault.clone());
    let screens = screens.map(move |screen| {
        // goes with the stream
        let Page(_) = &page;
        screen
    });
    let events = screens.filter_map(|screen| async {
        let data = data(&screen?);
        Some(Ok(Event::default().event("screen").data(data.to_string())))
    });
    let events = events.take_until(shared.stop.cancelled_owned());
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// A page that listens; when it is gone, the vault hears so.
struct Page(mpsc::Sender<ToVault>);

impl Drop for Page {
    fn drop(&mut self) {
        if self.0.try_send(ToVault::Customer(CustomerAction::Gone)).is_err() {
            tracing::warn!(event = "kiosk_page_gone_untold");
        }
    }
}

async fn action(State(shared): State<Shared>, request: Request) -> Response {
    match posted(request, MAX_BODY, "expected a customer's action as JSON").await {
        Ok(action) => shared.pass_on(ToVault::Customer(action)),
        Err(refused) => refused,
    }
}

/// What the machine's own page has posted.
async fn posted<T: DeserializeOwned>(
    request: Request,
    longest: usize,
    expected: &'static str,
) -> Result<T, Response> {
    if request.headers().get(header::ORIGIN).is_none() {
        return Err(refused(StatusCode::FORBIDDEN, "expected this machine's own Origin"));
    }
    let Ok(body) = axum::body::to_bytes(request.into_body(), longest).await else {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "expected a shorter text"));
    };
    // what is wrong with it could quote it
    serde_json::from_slice(&body).map_err(|_| refused(StatusCode::BAD_REQUEST, expected))
}

impl Shared {
    fn pass_on(&self, message: ToVault) -> Response {
        match self.kiosk.to_vault.try_send(message) {
            Ok(()) => (StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response(),
            Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, "the machine is busy, press again"),
        }
    }
}
