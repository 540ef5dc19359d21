//! Log output, set up in one place.
//!
//! Promise: one line an event with the fields `txn`, `machine`, `event`; to standard error, so that
//! what a command prints stays clean. The relay SDK's own lines are off: it logs whole messages
//! that an attacker may have made.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is shown where nothing else is asked for.
const DEFAULT: &str = "info";

/// Appended to every filter, so that it cannot be forgotten.
const QUIET: &str = "nostr_relay_pool=off,nostr_sdk=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging with `filter` (`info`, `debug`, `info,bitspire_agent=debug`, ...). The first call
/// in a process counts.
pub fn start(filter: Option<&str>, format: Format) {
    let filter = EnvFilter::new(format!("{},{QUIET}", filter.unwrap_or(DEFAULT)));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // colours are for people; in a journal they are noise
        .with_ansi(std::io::stderr().is_terminal());
    // a second start (tests, the multi-call binary) leaves the first one in place
    let _ = match format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().try_init(),
    };
}
