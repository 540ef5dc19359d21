//! Whether customers' wallets may ask by CLINK, and where.

use bitspire_shell::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::wrong;

/// As it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked struct documents each value")]
pub struct RawClink {
    pub enabled: bool,
    pub relay: String,
}

/// The relay for CLINK wallets: one of ours, since nobody listens elsewhere, and short enough for a
/// code.
pub(super) fn check(raw: &RawClink, relays: &[String]) -> Result<Option<String>, ConfigError> {
    if !raw.enabled {
        return Ok(None);
    }
    let named = if raw.relay.is_empty() { relays.first() } else { Some(&raw.relay) };
    let ours = named.filter(|relay| relays.contains(relay) && relay.len() <= 255);
    let expected = "relay.url or one of relay.others, of at most 255 characters";
    ours.cloned().map(Some).ok_or_else(|| wrong("clink.relay", expected, &raw.relay))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::{Config, load};

    fn with(text: &str) -> Result<Config, super::ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &BTreeMap::new(), &[]).map(|(config, _)| config)
    }

    /// Loss prevented: codes on the screens that name a relay at which nobody listens; a door that
    /// opens by itself.
    #[test]
    fn wallets_are_asked_to_a_relay_of_ours() {
        assert_eq!(with("").unwrap().clink, None);
        let on = with("[clink]\nenabled = true\n").unwrap();
        assert_eq!(on.clink.as_deref(), Some("ws://127.0.0.1:8443"));
        assert!(crate::clink::warning(&on).unwrap().contains("loopback"));
        let there = "[clink]\nenabled = true\nrelay = 'wss://relay.example'\n";
        let refused = with(there).unwrap_err();
        assert!(refused.to_string().contains("clink.relay"), "{refused}");
        let listening = format!("[relay]\nothers = ['wss://relay.example']\n{there}");
        let listening = with(&listening).unwrap();
        assert_eq!(listening.clink.as_deref(), Some("wss://relay.example"));
        assert_eq!(crate::clink::warning(&listening), None);
    }
}
