//! Who may use the API.
//!
//! Promise: every `/api` route needs either NIP-98 (kind 27235: method, full URL, body hash, at
//! most 60 s old, each event once, also over a restart) by a rostered operator key, or a token that was printed once and
//! is kept only as its hash. There is no cookie, so no other site can act in a browser's name.
//!
//! Failure policy: no roster entry, no answer from the roster, a replay, a wrong hash: 401 or 403
//! with what was expected; never a second door.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{Digest, EventId, PubKey};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use futures_util::future::BoxFuture;
use nostr::base64::{self, Engine as _};
use nostr::nips::nip98::{self, HttpMethod};
use nostr::{JsonUtil as _, Timestamp};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::error::ApiError;
use crate::ids::OperatorId;
pub use crate::store::operators::Role;

/// The largest body that the API reads.
pub const MAX_BODY: usize = 256 * 1024;

/// How long an event id is remembered: longer than an event can be valid (60 s back, 30 s ahead).
const REPLAY_WINDOW_S: u64 = 120;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);

/// How many event ids of rostered keys are remembered; beyond it the API answers 503 rather than
/// forget one.
const REPLAY_LIMIT: usize = 65_536;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// How the audit log names them: their key, `token:<name>` or `cli`.
    pub actor: String,
    /// Whose machines they may touch; `None` is everybody's.
    pub operator: Option<OperatorId>,
    /// What they may do.
    pub role: Role,
}

impl Caller {
    /// Whether what belongs to `operator` is theirs to see.
    #[must_use]
    pub fn sees(&self, operator: OperatorId) -> bool {
        self.operator.is_none_or(|own| own == operator)
    }

    /// Refuses a caller below `role`.
    ///
    /// # Errors
    /// [`AuthError::Forbidden`].
    pub fn needs(&self, role: Role) -> Result<(), AuthError> {
        if self.role >= role {
            Ok(())
        } else {
            Err(AuthError::Forbidden { needs: role, has: self.role })
        }
    }
}

/// The roster, as the API's gate asks it.
pub trait Roster: Send + Sync + 'static {
    /// The operator with this key; `None` refuses.
    fn by_key(&self, key: PubKey) -> BoxFuture<'_, Option<Caller>>;
    /// The token with this SHA-256; `None` refuses.
    fn by_token(&self, hash: Digest) -> BoxFuture<'_, Option<Caller>>;
}

/// Why a request goes no further.
#[derive(Debug, Error)]
pub enum AuthError {
    /// Nothing to tell who asks.
    #[error("expected `Authorization: Nostr <NIP-98 event>` or `Authorization: Bearer <token>`")]
    Missing,
    /// The event does not hold for this request.
    #[error("NIP-98: the event does not hold for this request")]
    Nip98(#[source] nip98::Error),
    /// The event was used before.
    #[error("NIP-98: expected a fresh event, got one that was used before; sign each request")]
    Replayed,
    /// The event may have been used before this process began to remember.
    #[error("NIP-98: signed before this service started; sign the request again")]
    BeforeStart,
    /// A good signature, or a token, that is not in the roster.
    #[error("not in the roster: ask the owner to add this key, or use a valid token")]
    Unknown,
    /// The caller's role is too low.
    #[error("expected the role {needs} or above, got {has}")]
    Forbidden {
        /// What the route needs.
        needs: Role,
        /// What the caller has.
        has: Role,
    },
    /// The body is too large.
    #[error("expected a body of at most {MAX_BODY} bytes")]
    TooLarge,
    /// The body did not come.
    #[error("expected the whole body within {} s", BODY_TIME.as_secs())]
    Slow,
    /// More signed requests within two minutes than are remembered.
    #[error("too many signed requests at once: try again in a minute")]
    Busy,
}

impl Classified for AuthError {
    fn kind(&self) -> Kind {
        match self {
            Self::Busy | Self::Slow | Self::BeforeStart => Kind::Transient,
            _ => Kind::Permanent,
        }
    }
}

impl AuthError {
    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }
}

/// The gate in front of the API.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    roster: Arc<dyn Roster>,
    base_url: String,
    clock: Clock,
    /// Events signed before may have been used in an earlier process.
    started: Unix,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    ids: HashMap<EventId, Unix>,
    order: VecDeque<EventId>,
}

impl Seen {
    /// Remembers an event; false where it was seen.
    fn first_time(&mut self, id: EventId, now: Unix) -> Result<bool, AuthError> {
        while let Some(oldest) = self.order.front().copied() {
            let fresh = self.ids.get(&oldest).is_some_and(|at| now.since(*at) <= REPLAY_WINDOW_S);
            if fresh {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&oldest);
        }
        if self.ids.contains_key(&id) {
            return Ok(false);
        }
        if self.order.len() >= REPLAY_LIMIT {
            return Err(AuthError::Busy);
        }
        self.ids.insert(id, now);
        self.order.push_back(id);
        Ok(true)
    }
}

impl Gate {
    /// A gate for the API that clients reach under `base_url` (no slash at its end).
    #[must_use]
    pub fn new(roster: Arc<dyn Roster>, base_url: String, clock: Clock) -> Self {
        let started = clock.now();
        Self(Arc::new(Inner { roster, base_url, clock, started, seen: Mutex::default() }))
    }

    /// Who asks, from the header and the body's own bytes.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(
        &self,
        method: &Method,
        path_and_query: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Caller, AuthError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let header = header.ok_or(AuthError::Missing)?;
        match header.split_once(' ') {
            Some(("Bearer", token)) => {
                let hash = token_hash(token);
                self.0.roster.by_token(hash).await.ok_or(AuthError::Unknown)
            }
            Some(("Nostr", _)) => {
                let (key, event) = self.signed(method, path_and_query, header, body)?;
                let caller = self.0.roster.by_key(key).await.ok_or(AuthError::Unknown)?;
                // remembered for rostered keys only: anybody can sign, and fill the memory
                self.once(event)?;
                Ok(caller)
            }
            _ => Err(AuthError::Missing),
        }
    }

    fn signed(
        &self,
        method: &Method,
        path_and_query: &str,
        header: &str,
        body: &[u8],
    ) -> Result<(PubKey, EventId), AuthError> {
        let url = format!("{}{path_and_query}", self.0.base_url);
        let url = nostr::Url::parse(&url).map_err(|_| AuthError::Missing)?;
        let method: HttpMethod = method.as_str().parse().map_err(AuthError::Nip98)?;
        let now = Timestamp::from(self.0.clock.now().0);
        let body = (!body.is_empty()).then_some(body);
        let key =
            nip98::verify_auth_header(header, &url, method, now, body).map_err(AuthError::Nip98)?;
        // by the event's own id: the header's text can be varied without the signature breaking
        let event = event(header).ok_or(AuthError::Missing)?;
        if event.created_at.as_secs() < self.0.started.0 {
            return Err(AuthError::BeforeStart);
        }
        let key = PubKey::new(key).map_err(|_| AuthError::Unknown)?;
        Ok((key, EventId::from_bytes(event.id.to_bytes())))
    }

    fn once(&self, id: EventId) -> Result<(), AuthError> {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = seen.first_time(id, self.0.clock.now())?;
        first.then_some(()).ok_or(AuthError::Replayed)
    }
}

/// The event in a header that has been verified.
fn event(header: &str) -> Option<nostr::Event> {
    let (_, encoded) = header.split_once(' ')?;
    let json = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    nostr::Event::from_json(json).ok()
}

/// What is kept of a token.
#[must_use]
pub fn token_hash(token: &str) -> Digest {
    Digest::from_bytes(Sha256::digest(token.as_bytes()).into())
}

/// Middleware: lets a request through with its [`Caller`] as an extension, or answers it.
pub async fn require(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let bytes = match read(body, BODY_TIME).await {
        Ok(bytes) => bytes,
        Err(refusal) => return ApiError::from(refusal).into_response(),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    match gate.authenticate(&parts.method, &path, &parts.headers, &bytes).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, Body::from(bytes))).await
        }
        Err(refusal) => {
            tracing::warn!(event = "api_refused", method = %parts.method, error = %refusal);
            ApiError::from(refusal).into_response()
        }
    }
}

/// A whole body, in time: whoever sends it has not said yet who they are.
async fn read(body: Body, within: Duration) -> Result<Bytes, AuthError> {
    match tokio::time::timeout(within, axum::body::to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(AuthError::TooLarge),
        Err(_) => Err(AuthError::Slow),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use nostr::Keys;
    use nostr::hashes::{Hash as _, sha256};
    use nostr::nips::nip98::HttpData;

    use super::*;

    struct Known(PubKey);

    impl Roster for Known {
        fn by_key(&self, key: PubKey) -> BoxFuture<'_, Option<Caller>> {
            let caller = Caller { actor: "1".into(), operator: None, role: Role::Owner };
            Box::pin(async move { (key == self.0).then_some(caller) })
        }
        fn by_token(&self, hash: Digest) -> BoxFuture<'_, Option<Caller>> {
            let caller = Caller { actor: "2".into(), operator: None, role: Role::Viewer };
            Box::pin(async move { (hash == token_hash("secret")).then_some(caller) })
        }
    }

    struct World {
        gate: Gate,
        keys: Keys,
        now: Arc<AtomicU64>,
    }

    fn world() -> World {
        let keys = Keys::generate();
        let now = Arc::new(AtomicU64::new(Timestamp::now().as_secs()));
        let told = now.clone();
        let clock = Clock::new(move || Unix(told.load(Ordering::SeqCst)));
        let roster = Arc::new(Known(PubKey::new(keys.public_key()).unwrap()));
        World { gate: Gate::new(roster, "http://127.0.0.1:8441".into(), clock), keys, now }
    }

    async fn header(keys: &Keys, path: &str, body: &[u8]) -> HeaderMap {
        let url = format!("http://127.0.0.1:8441{path}").parse().unwrap();
        let mut data = HttpData::new(url, HttpMethod::POST);
        if !body.is_empty() {
            data = data.payload(sha256::Hash::hash(body));
        }
        let value = data.to_authorization(keys).await.unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    impl World {
        async fn ask(
            &self,
            path: &str,
            headers: &HeaderMap,
            body: &[u8],
        ) -> Result<Caller, AuthError> {
            self.gate.authenticate(&Method::POST, path, headers, body).await
        }
    }

    /// Loss prevented: a signed "revoke" or "set fees" replayed by whoever saw it.
    #[tokio::test]
    async fn a_signed_request_counts_once_and_for_itself_only() {
        let world = world();
        let headers = header(&world.keys, "/api/v1/x", b"{}").await;
        let caller = world.ask("/api/v1/x", &headers, b"{}").await.unwrap();
        assert_eq!(caller.role, Role::Owner);
        assert!(matches!(world.ask("/api/v1/x", &headers, b"{}").await, Err(AuthError::Replayed)));
        // the same event, spelt with a blank more
        let value = headers[header::AUTHORIZATION].to_str().unwrap();
        let engine = &base64::engine::general_purpose::STANDARD;
        let mut json = engine.decode(value.strip_prefix("Nostr ").unwrap()).unwrap();
        json.insert(1, b' ');
        let respelt = format!("Nostr {}", engine.encode(json)).parse().unwrap();
        let respelt = HeaderMap::from_iter([(header::AUTHORIZATION, respelt)]);
        assert!(matches!(world.ask("/api/v1/x", &respelt, b"{}").await, Err(AuthError::Replayed)));
        let headers = header(&world.keys, "/api/v1/x", b"{}").await;
        for (path, body) in
            [("/api/v1/y", &b"{}"[..]), ("/api/v1/x?a=1", b"{}"), ("/api/v1/x", b"[]")]
        {
            let refused = world.ask(path, &headers, body).await;
            assert!(matches!(refused, Err(AuthError::Nip98(_))), "{path}: {refused:?}");
        }
        world.now.fetch_add(61, Ordering::SeqCst);
        assert!(matches!(world.ask("/api/v1/x", &headers, b"{}").await, Err(AuthError::Nip98(_))));
    }

    /// Loss prevented: a body that nobody signed.
    #[tokio::test]
    async fn a_body_must_be_signed_too() {
        let world = world();
        let headers = header(&world.keys, "/api/v1/x", b"").await;
        let refused = world.ask("/api/v1/x", &headers, b"{\"fee\":1}").await;
        assert!(matches!(refused, Err(AuthError::Nip98(_))), "{refused:?}");
    }

    /// Loss prevented: a stranger with a key of their own, or a guessed token, runs the fleet.
    #[tokio::test]
    async fn strangers_are_refused_and_roles_hold() {
        let world = world();
        let headers = header(&Keys::generate(), "/api/v1/x", b"").await;
        assert!(matches!(world.ask("/api/v1/x", &headers, b"").await, Err(AuthError::Unknown)));
        let bearer = |token: &str| {
            let value = format!("Bearer {token}").parse().unwrap();
            HeaderMap::from_iter([(header::AUTHORIZATION, value)])
        };
        assert!(matches!(world.ask("/", &bearer("guess"), b"").await, Err(AuthError::Unknown)));
        assert!(matches!(world.ask("/", &HeaderMap::new(), b"").await, Err(AuthError::Missing)));
        let viewer = world.ask("/", &bearer("secret"), b"").await.unwrap();
        assert!(viewer.needs(Role::Viewer).is_ok());
        assert!(matches!(viewer.needs(Role::Operator), Err(AuthError::Forbidden { .. })));
    }

    /// Loss prevented: whoever can sign, so anybody, fills the memory and locks the owner out.
    #[tokio::test]
    async fn strangers_leave_no_trace() {
        let world = world();
        let headers = header(&Keys::generate(), "/api/v1/x", b"").await;
        for _ in 0..2 {
            let refused = world.ask("/api/v1/x", &headers, b"").await;
            assert!(matches!(refused, Err(AuthError::Unknown)), "{refused:?}");
        }
        assert!(world.gate.0.seen.lock().unwrap().order.is_empty());
    }

    /// Loss prevented: a restart forgets which requests were made, and one is made again.
    #[tokio::test]
    async fn a_restart_accepts_nothing_that_was_signed_before_it() {
        let world = world();
        let headers = header(&world.keys, "/api/v1/x", b"").await;
        world.ask("/api/v1/x", &headers, b"").await.unwrap();
        world.now.fetch_add(10, Ordering::SeqCst);
        let Inner { roster, base_url, clock, .. } = world.gate.0.as_ref();
        let gate = Gate::new(roster.clone(), base_url.clone(), clock.clone());
        let refused = gate.authenticate(&Method::POST, "/api/v1/x", &headers, b"").await;
        assert!(matches!(refused, Err(AuthError::BeforeStart)), "{refused:?}");
    }

    /// Loss prevented: strangers who send a body without end hold every connection of the API.
    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refused = read(Body::from_stream(never), Duration::from_millis(1)).await;
        assert!(matches!(refused, Err(AuthError::Slow)), "{refused:?}");
        let large = read(Body::from(vec![0; MAX_BODY + 1]), BODY_TIME).await;
        assert!(matches!(large, Err(AuthError::TooLarge)), "{large:?}");
    }

    /// Loss prevented: the replay memory grows without end, or forgets an event that still counts.
    #[test]
    fn the_replay_memory_is_bounded_and_forgets_only_what_has_expired() {
        let mut seen = Seen::default();
        let id = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            EventId::from_bytes(bytes)
        };
        for n in 0..REPLAY_LIMIT as u32 {
            assert!(seen.first_time(id(n), Unix(1_000)).unwrap());
        }
        assert!(matches!(seen.first_time(id(u32::MAX), Unix(1_090)), Err(AuthError::Busy)));
        assert!(!seen.first_time(id(7), Unix(1_120)).unwrap());
        assert!(seen.first_time(id(7), Unix(1_121)).unwrap());
        assert_eq!(seen.order.len(), 1);
    }
}
