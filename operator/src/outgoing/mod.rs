//! Requests to servers of others, and websockets to them.
//!
//! Promise: an error says whether the request may have had its effect. Redirects are never
//! followed, answers have a limit, everything has a deadline, and a key is sent in the clear only
//! inside the operator's own network. Each request has a connection of its own, so that no old
//! connection that dies under a payment leaves it in doubt.
//!
//! Failure policy: until the first byte is written it is [`SendError::NotSent`]; from then on,
//! without a whole answer, [`SendError::Lost`]. A request is never repeated here.

mod ask;
mod connect;
pub(crate) mod peer;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use hyper_util::rt::TokioIo;
use nostr::Url;
use thiserror::Error;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) use ask::{Answer, Ask, Secret};
use connect::{Connector, Stream};

/// How long a connection may take: name, TCP and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest message that a websocket may bring.
const MESSAGE: usize = 256 << 10;

/// A websocket to another server.
pub(crate) type Socket = WebSocketStream<Box<dyn Stream>>;

/// Why a server cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The address does not read.
    #[error("expected an http:// or https:// address without user, query or fragment")]
    Address,
    /// An address of a stranger that is not spoken to.
    #[error(
        "expected an https:// address without user or fragment; others have to be in outgoing.allow"
    )]
    Stranger,
    /// TLS does not start.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Hosts that strangers' addresses may name though they are of the operator's own network: a peer on
/// the premises, a test. What they name beside is spoken to over TLS and at public addresses only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<String>);

impl Allowed {
    /// Of `host` or `host:port`, as an address names them.
    #[must_use]
    pub const fn new(hosts: Vec<String>) -> Self {
        Self(hosts)
    }

    /// Whether `host`, with its port where it is not the usual one, is allowed.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.0.iter().any(|allowed| allowed == host)
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    /// Nothing was sent.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It was sent, at least in part, and no whole answer came.
    #[error("no whole answer: {0}")]
    Lost(String),
}

/// A connection that is ready for its request.
struct Opened {
    request: hyper::Request<Full<Bytes>>,
    sender: http1::SendRequest<Full<Bytes>>,
    /// What moves the bytes; it lives as long as somebody polls it.
    driver: Fuse<BoxFuture<'static, ()>>,
}

impl Opened {
    async fn begin(&mut self) -> Result<hyper::Response<Incoming>, SendError> {
        let answer = self.sender.send_request(self.request.clone());
        let answer = beside(&mut self.driver, answer).await;
        answer.map_err(|e| SendError::Lost(e.to_string()))
    }
}

/// Works while the connection is driven; its end is seen by the work.
async fn beside<T>(driver: &mut Fuse<BoxFuture<'static, ()>>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = &mut *driver => {}
        }
    }
}

/// What was sent and has no answer in time is lost.
async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        Err(SendError::Lost(format!("nothing within {} s", patience.as_secs())))
    })
}

/// One server.
#[derive(Clone)]
pub(crate) struct Server {
    base: Url,
    connector: Connector,
}

/// Where it is; its user may have put a token into the path.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.base.host_str().unwrap_or_default();
        write!(f, "Server({}://{host})", self.base.scheme())
    }
}

impl Server {
    /// A server that the operator's own configuration names: it may stand in the operator's own
    /// network, and only there may it be without TLS.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) fn configured(base: &str) -> Result<Self, TargetError> {
        let base: Url = base.parse().map_err(|_| TargetError::Address)?;
        let bare = base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        if !bare || !base.has_host() || !matches!(base.scheme(), "http" | "https") {
            return Err(TargetError::Address);
        }
        Ok(Self { base, connector: Connector::new()? })
    }

    /// A server that somebody else names, and what is asked of it there: over TLS, and only at a
    /// public address, but where it is one of those `allowed`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) fn public(url: &Url, allowed: &Allowed) -> Result<(Self, String), TargetError> {
        let (path, host) = Self::target(url);
        let own = allowed.names(&host);
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
            && url.has_host();
        if !bare || !(url.scheme() == "https" || own && url.scheme() == "http") {
            return Err(TargetError::Stranger);
        }
        let mut base = url.clone();
        base.set_path("");
        base.set_query(None);
        let connector = Connector::new()?;
        let connector = if own { connector } else { connector.public_only() };
        Ok((Self { base, connector }, path))
    }

    /// Where it is, whatever the scheme: two servers of one place are one server.
    pub(crate) fn place(&self) -> String {
        let host = match self.base.host_str().unwrap_or_default() {
            "localhost" | "[::1]" => "127.0.0.1",
            other => other.trim_end_matches('.'),
        };
        let port = self.base.port_or_known_default().unwrap_or_default();
        format!("{host}:{port}{}", self.base.path().trim_end_matches('/'))
    }

    fn url(&self, path: &str) -> Result<Url, SendError> {
        let text = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        text.parse().map_err(|e| SendError::NotSent(format!("the path does not read: {e}")))
    }

    /// What the request line and the `Host` header say.
    fn target(url: &Url) -> (String, String) {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        (path, host)
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, SendError> {
        let connected = tokio::time::timeout(CONNECT, self.connector.connect(url)).await;
        connected.unwrap_or_else(|_| {
            let words = format!("no connection within {} s", CONNECT.as_secs());
            Err(SendError::NotSent(words))
        })
    }

    /// Everything up to the first byte of the request.
    async fn open(&self, ask: &mut Ask) -> Result<Opened, SendError> {
        let url = self.url(&ask.path)?;
        let (path, host) = Self::target(&url);
        let mut request = hyper::Request::builder()
            .method(ask.method.clone())
            .uri(path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(ACCEPT, ask.accept)
            .header(USER_AGENT, "bitspire");
        if let Some((name, value)) = ask.secret.take() {
            request = request.header(name, value);
        }
        let (kind, body) = ask.body.take().unzip();
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|e| SendError::NotSent(e.to_string()))?;
        let stream = TokioIo::new(self.connect(&url).await?);
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|e| SendError::NotSent(e.to_string()))?;
        let driver: BoxFuture<'static, ()> = Box::pin(connection.map(|_| ()));
        Ok(Opened { request, sender, driver: driver.fuse() })
    }

    /// Sends it once.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn send(&self, mut ask: Ask) -> Result<Answer, SendError> {
        let mut opened = self.open(&mut ask).await?;
        let exchange = async {
            let answer = opened.begin().await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ask.limit).collect();
            let body = beside(&mut opened.driver, body).await;
            let body = body.map_err(|e| SendError::Lost(e.to_string()))?.to_bytes();
            Ok(Answer { status, body })
        };
        in_time(ask.patience, exchange).await
    }

    /// Sends it once and hands each line of the answer to `each`, as it comes, until that breaks or
    /// the answer ends. The patience is for each part of it. `begun` is told a good beginning.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn lines(
        &self,
        mut ask: Ask,
        begun: impl FnOnce(),
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<StatusCode, SendError> {
        let mut opened = self.open(&mut ask).await?;
        let answer = in_time(ask.patience, opened.begin()).await?;
        let status = answer.status();
        if status == StatusCode::OK {
            begun();
        }
        let mut body = answer.into_body();
        let mut text = Vec::new();
        loop {
            let frame = async { Ok(beside(&mut opened.driver, body.frame()).await) };
            let Some(frame) = in_time(ask.patience, frame).await? else {
                if !text.is_empty() {
                    let _ = each(&text);
                }
                return Ok(status);
            };
            let frame = frame.map_err(|e| SendError::Lost(e.to_string()))?;
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if each(&line).is_break() {
                    return Ok(status);
                }
            }
            if text.len() > ask.limit {
                return Err(SendError::Lost(format!("a line of more than {} bytes", ask.limit)));
            }
        }
    }

    /// Sends it once; the answer is its first line, though more may come.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn first_line(&self, ask: Ask) -> Result<Answer, SendError> {
        let mut first = Bytes::new();
        let take = |line: &[u8]| {
            first = Bytes::copy_from_slice(line);
            ControlFlow::Break(())
        };
        let status = self.lines(ask, || {}, take).await?;
        Ok(Answer { status, body: first })
    }

    /// Opens a websocket, with a key in a header where it takes one. The error never repeats the
    /// path: it may hold a key.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn websocket(
        &self,
        path: &str,
        key: Option<(HeaderName, &Secret)>,
    ) -> Result<Socket, SendError> {
        let mut url = self.url(path)?;
        let stream = self.connect(&url).await?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        if url.set_scheme(scheme).is_err() {
            return Err(SendError::NotSent("no websocket address".into()));
        }
        let bounds = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE))
            .max_frame_size(Some(MESSAGE));
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|_| SendError::NotSent("no websocket address".into()))?;
        if let Some((name, value)) = key.and_then(|(name, key)| Some((name, key.header()?))) {
            request.headers_mut().insert(name, value);
        }
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(bounds));
        match tokio::time::timeout(CONNECT, opened).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(SendError::NotSent(format!("no websocket: {error}"))),
            Err(_) => Err(SendError::NotSent("no websocket in time".into())),
        }
    }
}
