//! Control of a simulator over HTTP, for tests and demonstrations.
//!
//! Promise: `POST /control` with a JSON action and `GET /counters`, on a loopback address only;
//! answers are JSON, refusals `{"error": "..."}` with 400 (no such action) or 409 (not now). Pages
//! in a browser are refused (they send `Origin`): the control is for programs.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use super::{ControlError, HostError, Remote};
use crate::sim::SimError;

/// Longest body of a request, in bytes.
const MAX_BODY: u64 = 64 * 1024;

/// A running control; dropping it ends it.
pub struct Http {
    server: Arc<Server>,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Listens on `addr` (port 0 finds a free one).
    ///
    /// # Errors
    /// [`HostError::NotLoopback`], [`HostError::Listen`], [`HostError::Thread`].
    pub fn start(addr: &str, remote: Remote) -> Result<Self, HostError> {
        let not_loopback = || HostError::NotLoopback { addr: addr.to_owned() };
        let wanted: SocketAddr = addr.parse().map_err(|_| not_loopback())?;
        if !wanted.ip().is_loopback() {
            return Err(not_loopback());
        }
        let listen = |source| HostError::Listen { addr: addr.to_owned(), source };
        let server = Arc::new(Server::http(wanted).map_err(listen)?);
        let addr = server.server_addr().to_ip().unwrap_or(wanted);
        let serving = Arc::clone(&server);
        let thread = thread::Builder::new()
            .name("simulator http".to_owned())
            .spawn(move || {
                for request in serving.incoming_requests() {
                    serve(request, &remote);
                }
            })
            .map_err(HostError::Thread)?;
        Ok(Self { server, addr, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.server.unblock();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the control's thread has panicked");
        }
    }
}

fn serve(mut request: Request, remote: &Remote) {
    let (status, body) = answer(&mut request, remote);
    let mut response = Response::from_string(format!("{body}\n")).with_status_code(status);
    if let Ok(json) = Header::from_bytes("Content-Type", "application/json") {
        response = response.with_header(json);
    }
    if let Err(error) = request.respond(response) {
        tracing::debug!("an asker left before its answer: {error}");
    }
}

fn answer(request: &mut Request, remote: &Remote) -> (u16, Value) {
    let error = |status, text: &str| (status, json!({ "error": text }));
    if request.headers().iter().any(|header| header.field.equiv("Origin")) {
        return error(403, "this control is for programs, not for pages in a browser");
    }
    let result = match (request.method(), request.url()) {
        (Method::Get, "/counters") => remote.counters(),
        (Method::Post, "/control") => {
            let mut body = String::new();
            let read = request.as_reader().take(MAX_BODY).read_to_string(&mut body);
            let action = read
                .map_err(|e| e.to_string())
                .and_then(|_| serde_json::from_str::<Value>(&body).map_err(|e| e.to_string()));
            match action {
                Ok(action) => remote.control(action),
                Err(why) => {
                    return error(400, &format!("expected a JSON object with an action: {why}"));
                }
            }
        }
        _ => return error(404, "expected POST /control or GET /counters"),
    };
    match result {
        Ok(value) => (200, value),
        Err(refused) => {
            let status = match &refused {
                ControlError::Refused(SimError::Action { .. }) => 400,
                ControlError::Refused(SimError::State(_)) => 409,
                ControlError::Ended => 503,
            };
            error(status, &refused.to_string())
        }
    }
}
