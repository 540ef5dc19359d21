//! JSON over HTTP on loopback, as programs beside the daemons speak it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, StatusCode};

/// Longer than any route that asks a bunker.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A client; each request is one connection.
#[derive(Debug)]
pub struct Client(Agent);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its JSON; a text where it is none.
    pub body: Value,
}

impl Default for Client {
    fn default() -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .max_idle_connections(0)
            .proxy(None)
            .build();
        Self(config.into())
    }
}

impl Client {
    /// Whatever is answered.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn call(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.map_or_else(String::new, Value::to_string))?;
        // what follows a # or a ? may be a secret
        let place = url.split(['#', '?']).next().unwrap_or_default();
        let silent = || format!("{method} {place}: no answer");
        let mut response = self.0.run(request).with_context(silent)?;
        let status = response.status();
        let text = response.body_mut().read_to_string().with_context(silent)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    /// The JSON of a GET that went well.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Value> {
        self.call("GET", url, headers, None)?.good(url)
    }

    /// The JSON of a POST that went well.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a refusal.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &Value) -> Result<Value> {
        self.call("POST", url, headers, Some(body))?.good(url)
    }
}

impl Answer {
    fn good(self, url: &str) -> Result<Value> {
        if !self.status.is_success() {
            bail!("{url}: {} {}", self.status, self.body);
        }
        Ok(self.body)
    }
}
