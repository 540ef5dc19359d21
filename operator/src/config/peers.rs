//! Programs of the operator's that the service speaks to: who is told what happens, and who is asked
//! before a sale.

use std::path::PathBuf;

use bitspire_shell::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::wrong;
use crate::outgoing::{Allowed, Server};

/// The webhook, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked struct documents each value")]
pub struct RawWebhook {
    pub url: Option<String>,
    pub secret_file: Option<PathBuf>,
}

/// The deny-list, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked struct documents each value")]
pub struct RawDenyList {
    pub url: Option<String>,
    pub secret_file: Option<PathBuf>,
    pub without_answer: WithoutAnswer,
}

/// What happens to a sale about which the deny-list says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutAnswer {
    /// It is refused.
    Refuse,
    /// It is made.
    Serve,
}

/// A program that knows a secret with us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens: https, and a public address but for `outgoing.allow`.
    pub url: nostr::Url,
    /// The file with the secret.
    pub secret_file: PathBuf,
}

/// A program that says whether a sale may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyList {
    /// Who is asked.
    pub peer: Peer,
    /// What holds where it does not say.
    pub without_answer: WithoutAnswer,
}

fn peer(
    keys: (&str, &str),
    url: Option<&String>,
    file: Option<&PathBuf>,
    allowed: &Allowed,
) -> Result<Option<Peer>, ConfigError> {
    let (url, file) = match (url, file) {
        (None, None) => return Ok(None),
        (Some(url), Some(file)) => (url, file),
        (Some(_), None) => return Err(wrong(keys.1, "a file with a secret", "none")),
        (None, Some(_)) => return Err(wrong(keys.0, "where it listens", "none")),
    };
    // its path or query may hold a token: it is not repeated
    let refused = |why: &str| wrong(keys.0, "an https:// address", why);
    let url: nostr::Url = url.parse().map_err(|_| refused("no address"))?;
    Server::public(&url, allowed).map_err(|error| refused(&error.to_string()))?;
    Ok(Some(Peer { url, secret_file: file.clone() }))
}

pub(super) fn webhook(raw: &RawWebhook, allowed: &Allowed) -> Result<Option<Peer>, ConfigError> {
    let keys = ("webhook.url", "webhook.secret_file");
    peer(keys, raw.url.as_ref(), raw.secret_file.as_ref(), allowed)
}

pub(super) fn deny_list(
    raw: &RawDenyList,
    allowed: &Allowed,
) -> Result<Option<DenyList>, ConfigError> {
    let keys = ("deny_list.url", "deny_list.secret_file");
    let peer = peer(keys, raw.url.as_ref(), raw.secret_file.as_ref(), allowed)?;
    Ok(peer.map(|peer| DenyList { peer, without_answer: raw.without_answer }))
}
