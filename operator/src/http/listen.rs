//! One TCP listener with HTTP/1.1 at which strangers may knock.
//!
//! Promise: a connection that does not send the head of a request in time is closed, also between
//! two requests; there are never more of them than allowed, the others wait to be accepted. An
//! upgraded connection (websocket) is no longer counted here: whoever upgraded it owns it.
//! Handlers find the peer's address as `ConnectInfo<SocketAddr>`.
//!
//! Failure policy: a connection that fails ends alone; when the process has no file descriptors
//! left, accepting rests a moment and goes on. When the token is cancelled, requests under way are
//! answered and then everything ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting rests after it failed, as it does without free file descriptors.
const REST: Duration = Duration::from_millis(500);

/// The most that is read of a request's head: a signed event in it (NIP-98) fits many times.
const HEAD_BYTES: usize = 32 * 1024;

/// What clients of one listener may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once, not counting the upgraded ones.
    pub connections: usize,
    /// Time for the head of a request.
    pub head: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 1024, head: Duration::from_secs(10) }
    }
}

/// Serves `router` on `listener` until `token` is cancelled and the last request is answered.
pub async fn listen(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    token: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let tasks = TaskTracker::new();
    let accepting = async {
        // the semaphore is never closed
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let serving =
                        serve(stream, address, router.clone(), bounds.head, token.clone());
                    tasks.spawn(async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(event = "accept_failed", %error);
                    tokio::time::sleep(REST).await;
                }
            }
        }
    };
    token.run_until_cancelled(accepting).await;
    tasks.close();
    tasks.wait().await;
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    head: Duration,
    token: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(event = "nodelay_not_set", %error);
    }
    let app = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        app.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(event = "http_connection_failed", %error);
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    struct Running {
        address: SocketAddr,
        token: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn running(bounds: Bounds) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let who =
            |ConnectInfo(address): ConnectInfo<SocketAddr>| async move { address.to_string() };
        let router = Router::new().route("/", get(who));
        let token = CancellationToken::new();
        let task = tokio::spawn(listen(listener, router, bounds, token.clone()));
        Running { address, token, task }
    }

    async fn patiently<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), what).await.expect("did not come in time")
    }

    /// All that comes until the other side closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        // a reset is an end, too
        let _ = patiently(stream.read_to_string(&mut text)).await;
        text
    }

    /// Loss prevented: strangers who open connections and say nothing use up the file descriptors,
    /// and no machine gets in any more.
    #[tokio::test]
    async fn a_silent_connection_makes_room_for_the_next() {
        let bounds = Bounds { connections: 2, head: Duration::from_millis(50) };
        let running = running(bounds).await;
        let mut silent = TcpStream::connect(running.address).await.unwrap();
        let mut half = TcpStream::connect(running.address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let mut honest = TcpStream::connect(running.address).await.unwrap();
        honest.write_all(REQUEST).await.unwrap();
        let answer = rest(&mut honest).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(&honest.local_addr().unwrap().to_string()), "{answer}");
        assert!(!rest(&mut silent).await.contains(" 200 "));
        assert!(!rest(&mut half).await.contains(" 200 "));
    }

    /// Loss prevented: strangers who send heads without end use up the memory.
    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let running = running(Bounds::default()).await;
        let mut stranger = TcpStream::connect(running.address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(HEAD_BYTES));
        stranger.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stranger).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    /// Loss prevented: a stop that waits for ever for an idle client.
    #[tokio::test]
    async fn the_token_ends_an_idle_connection() {
        let bounds = Bounds { head: Duration::from_secs(3600), ..Bounds::default() };
        let running = running(bounds).await;
        let mut idle = TcpStream::connect(running.address).await.unwrap();
        idle.write_all(REQUEST).await.unwrap();
        let mut first = [0; 12];
        patiently(idle.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        running.token.cancel();
        patiently(running.task).await.unwrap();
        rest(&mut idle).await;
    }
}
