//! The daemon's API, as the command line calls it: plain HTTP on this computer, with the cookie.
//!
//! Failure policy: an answer that is lost is told apart from a refusal; nothing is sent twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use ureq::Agent;
use ureq::http::{Request, StatusCode, header};
use zeroize::Zeroizing;

use crate::http::people::cookie_path;

/// Longer than the slowest route: a pairing asks a bunker several times.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Room for a body that holds a key, in bytes: others may grow.
const BODY: usize = 512;

/// Why there is no good answer.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// No cookie: the daemon never ran with this data folder, or we may not read it.
    #[error(
        "{path}: cannot be read; start the daemon with `bitspire-operator serve`, name its data \
         folder with --data-dir, and run this command as its user"
    )]
    Cookie {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What was to be asked is no JSON.
    #[error("the request cannot be written")]
    Body(#[source] serde_json::Error),
    /// Nobody answers where the cookie says.
    #[error("the daemon at {address} cannot be reached; is it running?")]
    Unreachable {
        /// Where.
        address: String,
        /// What was seen.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It said no.
    #[error("{words}")]
    Refused {
        /// Its own words.
        words: String,
        /// All that it answered.
        body: Value,
    },
}

/// The API.
pub(super) struct Client {
    agent: Agent,
    address: String,
    token: Zeroizing<String>,
}

/// An answer.
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its JSON.
    pub(super) body: Value,
}

impl Client {
    /// Reads the cookie in the data folder.
    pub(super) fn new(data_dir: &Path) -> Result<Self, ClientError> {
        let path = cookie_path(data_dir);
        let read = fs::read_to_string(&path).map(Zeroizing::new);
        let line = read.map_err(|source| ClientError::Cookie { path: path.clone(), source })?;
        let (address, token) = line.trim().split_once(' ').ok_or_else(|| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "expected address and token");
            ClientError::Cookie { path, source }
        })?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .proxy(None)
            .build();
        let (address, token) = (address.to_owned(), Zeroizing::new(token.to_owned()));
        Ok(Self { agent: config.into(), address, token })
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call("GET", path, None::<&Value>)
    }

    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, ClientError> {
        self.call("POST", path, Some(body))
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call("PUT", path, Some(body))
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, ClientError> {
        // one body holds a key: its text is erased once it is sent, and has room not to be moved about
        let mut text = Zeroizing::new(Vec::with_capacity(BODY));
        if let Some(body) = body {
            serde_json::to_writer(&mut *text, body).map_err(ClientError::Body)?;
        }
        let unreachable = |source: ureq::Error| ClientError::Unreachable {
            address: self.address.clone(),
            source: Box::new(source),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.address))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token.as_str()))
            .body(text.as_slice())
            .map_err(|error| unreachable(error.into()))?;
        let mut response = self.agent.run(request).map_err(unreachable)?;
        let status = response.status();
        let text = response.body_mut().read_to_string().map_err(unreachable)?;
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        let words = match body.get("error").and_then(Value::as_str) {
            Some(words) => words.to_owned(),
            None => format!("the daemon answered {status}"),
        };
        Err(ClientError::Refused { words, body })
    }
}
