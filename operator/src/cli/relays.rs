//! Relays, as people read of them.

use std::fmt::Write as _;
use std::io::Write as _;

use bitspire_shell::clock::Clock;
use serde_json::Value;

use super::show::cell;
use super::{CliError, End};
use crate::config::Config;
use crate::relays::{ask, of_others};

/// A paragraph for each relay of the daemon's answer.
pub(super) fn relays(all: &Value) -> String {
    let mut text = String::new();
    for one in all.as_array().into_iter().flatten() {
        let own = if one["own"] == true { " (our own)" } else { "" };
        let _ = writeln!(text, "{}{own}", cell(&one["relay"]));
        for name in ["name", "software"] {
            if !one[name].is_null() {
                let _ = writeln!(text, "  {name}: {}", cell(&one[name]));
            }
        }
        for line in one["connections"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "  for {}: {}", cell(&line["for"]), connection(line));
        }
        if !one["not_said"].is_null() {
            let _ = writeln!(text, "  says nothing of itself: {}", cell(&one["not_said"]));
        }
        for warning in one["warnings"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "  WARNING: {}", cell(warning));
        }
    }
    text
}

fn connection(line: &Value) -> String {
    let mut text = cell(&line["state"]);
    for (field, words) in [("connected_s", "connected"), ("ok_s", "took an event")] {
        if let Some(seconds) = line[field].as_u64() {
            let _ = write!(text, ", {words} {seconds} s ago");
        }
    }
    if let Some(failures) = line["failures"].as_u64().filter(|failures| *failures > 0) {
        let _ = write!(text, ", {failures} failures in a row");
    }
    if let Some(seconds) = line["refused_s"].as_u64() {
        let _ = write!(text, ", refused {seconds} s ago: {}", cell(&line["refused"]));
    }
    text
}

/// Asks the relays of others what they say of themselves, before a daemon relies on them.
pub(super) fn check(config: &Config) -> Result<End, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut out, mut end) = (std::io::stdout(), End::Done);
    for relay in of_others(config) {
        let known = runtime.block_on(ask(relay, Clock::system().now()));
        let name = known.information.and_then(|said| said.name).unwrap_or_default();
        writeln!(out, "{relay} {name}")?;
        if let Some(error) = known.error {
            writeln!(out, "  says nothing of itself: {error}")?;
        }
        for warning in known.warnings {
            writeln!(out, "  WARNING: {warning}")?;
            end = End::Found;
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Loss prevented: a relay that refuses everything, and nobody reads why.
    #[test]
    fn each_relay_is_told_with_its_last_refusal() {
        let told = relays(&json!([{
            "relay": "wss://r.example", "own": false, "name": "R", "software": null,
            "not_said": null, "warnings": ["it takes money"],
            "connections": [{"for": "documents", "state": "connected", "failures": 0,
                "connected_s": 5, "ok_s": null, "refused_s": 2, "refused": "blocked: no"}],
        }]));
        let lines = [
            "wss://r.example",
            "  name: R",
            "  for documents: connected, connected 5 s ago, refused 2 s ago: blocked: no",
            "  WARNING: it takes money",
        ];
        assert_eq!(told, format!("{}\n", lines.join("\n")));
    }
}
