//! Log output, set up in one place.
//!
//! Promise: one line an event with the fields `txn`, `machine`, `event`; to standard error, so that
//! what a command prints stays clean. The relay SDK's own lines are off: it logs whole messages
//! that an attacker may have made.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Silent whatever is asked for.
const QUIET: [&str; 2] = ["nostr_relay_pool", "nostr_sdk"];

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

/// Starts logging with `filter` (`info`, `debug`, `info,bitspire_agent=debug`, ...); one that cannot
/// be read is said so, and `info` taken instead. The first call in a process counts.
pub fn start(filter: Option<&str>, format: Format) {
    let wanted = filter.map(str::parse::<Targets>);
    let unreadable = matches!(wanted, Some(Err(_)));
    let targets = wanted
        .and_then(Result::ok)
        .unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let targets = targets.with_targets(QUIET.map(|target| (target, LevelFilter::OFF)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // colours are for people; in a journal they are noise
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        Format::Text => lines.with_filter(targets).boxed(),
        Format::Json => lines.json().with_filter(targets).boxed(),
    };
    // a second start (tests, the multi-call binary) leaves the first one in place
    let _ = tracing_subscriber::registry().with(lines).try_init();
    if unreadable {
        tracing::error!(
            event = "log_filter_unreadable",
            "log.filter: expected levels like info or info,bitspire_agent=debug; info is taken"
        );
    }
}
