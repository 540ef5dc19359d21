//! A scripted customer at the kiosk: sees what the machine's page would show, and touches it.
//!
//! Promise: it knows only what a browser knows: the address with this boot's token, the stream of
//! screens, the actions behind the buttons. Like the page, it tells the machine which screen is up,
//! and finds the machine again after a restart.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

use crate::http::Client;
use crate::screen::heading;

/// Between two tries to reach the machine.
const RETRY: Duration = Duration::from_millis(50);
/// The header that carries the token.
const TOKEN: &str = "x-kiosk-token";

#[derive(Debug, Default)]
struct Seen {
    html: String,
    number: u64,
    /// How the last connection ended.
    lost: Option<String>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether it tells the machine which screen is up, as its page does.
    confirms: bool,
    seen: Mutex<Seen>,
    changed: Condvar,
}

/// Somebody in front of the machine; they go when this is dropped.
#[derive(Debug)]
pub struct Customer {
    file: PathBuf,
    client: Client,
    shared: Arc<Shared>,
}

impl Customer {
    /// Steps in front of the machine whose browser's address stands in `file`.
    ///
    /// # Errors
    /// When there is no thread to look with.
    pub fn new(file: PathBuf) -> Result<Self> {
        Self::look(file, true)
    }

    /// Looks over the shoulder of somebody at a browser: the machine does not hear of it.
    ///
    /// # Errors
    /// When there is no thread to look with.
    pub fn beside(file: PathBuf) -> Result<Self> {
        Self::look(file, false)
    }

    fn look(file: PathBuf, confirms: bool) -> Result<Self> {
        let shared = Arc::new(Shared { confirms, ..Shared::default() });
        let (path, eyes) = (file.clone(), Arc::clone(&shared));
        // ends with the machine, or at the next screen after the customer has gone
        thread::Builder::new().name("customer".to_owned()).spawn(move || watch(&path, &eyes))?;
        Ok(Self { file, client: Client::default(), shared })
    }

    /// The screen, once its heading holds one of `words`, and which of them.
    ///
    /// # Errors
    /// When it does not come in time: with the screen that is there.
    pub fn sees<'a>(&self, words: &[&'a str], within: Duration) -> Result<(&'a str, String)> {
        self.looks(&format!("a screen with one of {words:?}"), within, |html| {
            let shown = heading(html);
            let word = words.iter().find(|word| shown.contains(**word));
            word.map(|word| (*word, html.to_owned()))
        })
    }

    /// What `find` makes of the screen, once it makes something of it.
    ///
    /// # Errors
    /// When it does not come in time: with the screen that is there.
    pub fn looks<T>(
        &self,
        what: &str,
        within: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        let mut seen = self.shared.lock();
        loop {
            if let Some(found) = find(&seen.html) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lost = seen.lost.as_deref().unwrap_or("connected");
                bail!("expected {what}, got {:?} ({lost})", heading(&seen.html));
            }
            seen = self
                .shared
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The screen as it is.
    #[must_use]
    pub fn screen(&self) -> String {
        self.shared.lock().html.clone()
    }

    /// Touches a button.
    ///
    /// # Errors
    /// When the machine is not there or does not take it.
    pub fn touches(&self, action: &Value) -> Result<()> {
        let address = fs::read_to_string(&self.file)
            .with_context(|| format!("{}: cannot be read", self.file.display()))?;
        act(&self.client, address.trim(), action)
    }
}

impl Drop for Customer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn act(client: &Client, address: &str, action: &Value) -> Result<()> {
    let (page, token) = address.split_once("/#").context("expected an address with a token")?;
    let headers = [(TOKEN, token), ("origin", page)];
    client.post(&format!("{page}/action"), &headers, action)?;
    Ok(())
}

/// Looks at the screen until the customer goes.
fn watch(file: &std::path::Path, shared: &Shared) {
    loop {
        let ended = follow(file, shared);
        let mut seen = shared.lock();
        if seen.stop {
            return;
        }
        // the page shows nothing of a machine that it has lost
        seen.html.clear();
        seen.lost = Some(ended.map_or_else(|error| format!("{error:#}"), |()| "closed".to_owned()));
        shared.changed.notify_all();
        drop(seen);
        thread::sleep(RETRY);
    }
}

/// One connection.
fn follow(file: &std::path::Path, shared: &Shared) -> Result<()> {
    let address = fs::read_to_string(file).context("no address of the kiosk yet")?;
    let address = address.trim();
    let (page, token) = address.split_once("/#").context("expected an address with a token")?;
    let agent: Agent = Agent::config_builder().proxy(None).build().into();
    let stream = agent.get(format!("{page}/events")).header(TOKEN, token).call()?;
    let client = Client::default();
    for line in BufReader::new(stream.into_body().into_reader()).lines() {
        let line = line?;
        let Some(data) = line.strip_prefix("data:") else { continue };
        let screen: Value = serde_json::from_str(data)?;
        let number = screen["number"].as_u64().context("a screen without a number")?;
        let html = screen["html"].as_str().context("a screen without a page")?.to_owned();
        let mut seen = shared.lock();
        if seen.stop {
            return Ok(());
        }
        (seen.html, seen.number, seen.lost) = (html, number, None);
        shared.changed.notify_all();
        drop(seen);
        if !shared.confirms {
            continue;
        }
        // as the page does; a machine that is busy hears of the next one
        let _ = act(&client, address, &json!({ "action": "seen", "screen": number }));
    }
    Ok(())
}
