//! What is asked of another server, and what came back.

use std::fmt;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

/// A key that goes with a request; never shown.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&self.0).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) secret: Option<(HeaderName, HeaderValue)>,
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) accept: &'static str,
    pub(super) patience: Duration,
    pub(super) limit: usize,
}

impl Ask {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let patience = Duration::from_secs(10);
        Self {
            method,
            path: path.into(),
            secret: None,
            body: None,
            accept: "application/json",
            patience,
            limit: 64 << 10,
        }
    }

    /// Asks for `path`, which comes after the server's base address and is encoded as it must be.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Sends `body` as JSON.
    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        let body = Some(("application/json", body.to_string().into_bytes()));
        Self { body, ..Self::new(Method::POST, path) }
    }

    /// Sends `fields` as a form.
    pub(crate) fn form(path: impl Into<String>, fields: &[(&str, &str)]) -> Self {
        let text = encoded(fields);
        let body = Some(("application/x-www-form-urlencoded", text.into_bytes()));
        Self { body, ..Self::new(Method::POST, path) }
    }

    /// With a key in a header; one that no header can hold is not sent, and the server says so.
    pub(crate) fn key(mut self, header: HeaderName, key: &Secret) -> Self {
        self.secret = key.header().map(|value| (header, value));
        self
    }

    /// Which form of answer is wanted (JSON where nothing is said).
    pub(crate) const fn accept(mut self, form: &'static str) -> Self {
        self.accept = form;
        self
    }

    /// How long the answer may take (10 s where nothing is said).
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many bytes the answer may have (64 kB where nothing is said).
    pub(crate) fn at_most(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }
}

/// Fields as a form has them: letters, digits, `-`, `.`, `_` as they are, everything else as the
/// bytes of its UTF-8 in hex.
pub(super) fn encoded(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                    text.push(char::from(byte));
                }
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON of a known form.
    ///
    /// # Errors
    /// In words: what was expected, and where it differs.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        let mut read = serde_json::Deserializer::from_slice(&self.body);
        serde_path_to_error::deserialize(&mut read).map_err(|e| format!("unexpected answer: {e}"))
    }

    /// The status with the first words of the body, for people.
    pub(crate) fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let said = serde_json::from_slice::<Value>(&self.body).ok();
        let said = said
            .as_ref()
            .and_then(|v| ["detail", "message", "error"].iter().find_map(|k| v.get(k)));
        let said = match said {
            Some(Value::String(words)) => words.clone(),
            Some(other) => other.to_string(),
            None => text.into_owned(),
        };
        let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
        format!("{}: {said}", self.status)
    }
}
