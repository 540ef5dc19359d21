//! `connect`, with and without the secret.

use super::answer::{CallError, Said};
use super::{Config, Plain};
use crate::nip46::message::{Method, Request};
use crate::seed::BunkerSecret;

/// One try.
#[derive(Clone, Debug)]
pub(super) struct Connect {
    pub(super) with_secret: bool,
    /// The id for a second try; gone when it was used.
    pub(super) spare: Option<String>,
    /// The first try met a secret that was used before.
    pub(super) redeemed: bool,
}

/// How it goes on.
pub(super) enum Next {
    Connected,
    /// The same again, under this id.
    Again(Connect, String),
}

impl Connect {
    pub(super) fn request(&self, id: &str, config: &Config) -> Request {
        let secret = config.secret.as_ref().filter(|_| self.with_secret);
        let secret = secret.map_or("", BunkerSecret::expose);
        let perms = config.perms.as_str();
        let mut params = vec![config.signer.to_string()];
        // positions count, and some signers cannot read a null: no secret is an empty string
        if !secret.is_empty() || !perms.is_empty() {
            params.push(secret.to_owned());
        }
        if !perms.is_empty() {
            params.push(perms.to_owned());
        }
        Request::new(id, Method::Connect, params.into_iter().map(Some).collect())
    }

    pub(super) fn check(&self, said: Said, config: &Config) -> Result<Next, CallError> {
        let (method, secret) = (Method::Connect, config.secret.as_ref());
        let reply = match said {
            Ok(result) => {
                let text = result.as_ref().map_or("", Plain::expose);
                let echo = self.with_secret && BunkerSecret::new(text).ok().as_ref() == secret;
                if text.eq_ignore_ascii_case("ack") || (echo && secret.is_some()) {
                    return Ok(Next::Connected);
                }
                return Err(CallError::Unexpected { method, expected: "ack or the secret" });
            }
            Err(reply) => reply.expose().to_owned(),
        };
        let lower = reply.to_ascii_lowercase();
        let says_redeemed = lower.contains("already redeemed");
        let says_mismatch = lower.contains("secret not match");
        // nsecbunkerd's words for a token that it never made, or that was taken back
        let says_unknown = lower.contains("token not found");
        match (&self.spare, self.with_secret) {
            (Some(spare), true) if says_redeemed => {
                let next = Self { with_secret: false, spare: None, redeemed: true };
                Ok(Next::Again(next, spare.clone()))
            }
            (Some(spare), false) if says_mismatch && secret.is_some() => {
                let next = Self { with_secret: true, spare: None, redeemed: false };
                Ok(Next::Again(next, spare.clone()))
            }
            _ if says_redeemed || self.redeemed => Err(CallError::AlreadyRedeemed),
            (_, true) if says_mismatch || says_unknown => Err(CallError::WrongSecret),
            (_, false) if says_mismatch => Err(CallError::SecretNeeded),
            _ => Err(CallError::Rejected { method, reply }),
        }
    }
}
