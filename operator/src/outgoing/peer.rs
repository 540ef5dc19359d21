//! A program of the operator's that knows a secret with us, and believes what is signed with it.
//!
//! Promise: each request carries `bitspire-signature: t=<t>,v1=<hex>`: `t` is the time of sending,
//! hex the HMAC-SHA256 (RFC 2104) of `t`, a full stop and the body under the secret's bytes.
//!
//! Failure policy: as of any request to a server: [`SendError`].

use std::time::Duration;

use bitspire_shared::ids::to_hex;
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{SecretError, credential};
use hyper::header::HeaderName;
use nostr::hashes::{Hash as _, HashEngine as _, Hmac, HmacEngine, sha256};
use serde_json::Value;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Allowed, Answer, Ask, Secret, SendError, Server, TargetError};
use crate::config;

/// The header with the signature.
const HEADER: HeaderName = HeaderName::from_static("bitspire-signature");

/// Why a program is not spoken to.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The file with the secret.
    #[error("its secret_file")]
    Secret(#[from] SecretError),
    /// An address that is not spoken to.
    #[error("its url")]
    Target(#[from] TargetError),
}

/// The program.
pub(crate) struct Peer {
    server: Server,
    path: String,
    secret: Zeroizing<String>,
}

impl Peer {
    /// The one that the configuration names.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) fn open(config: &config::Peer, allowed: &Allowed) -> Result<Self, PeerError> {
        let (server, path) = Server::public(&config.url, allowed)?;
        Ok(Self { server, path, secret: credential(&config.secret_file)? })
    }

    #[cfg(test)]
    pub(crate) fn at(base: &str, path: &str, secret: &str) -> Self {
        let server = Server::configured(base).unwrap();
        Self { server, path: path.to_owned(), secret: Zeroizing::new(secret.to_owned()) }
    }

    /// Sends it once.
    ///
    /// # Errors
    /// [`SendError`].
    pub(crate) async fn send(
        &self,
        body: &Value,
        at: Unix,
        patience: Duration,
    ) -> Result<Answer, SendError> {
        let header = signature(&self.secret, at, &body.to_string());
        let header = Secret::new(Zeroizing::new(header));
        self.server.send(Ask::post(&self.path, body).key(HEADER, &header).within(patience)).await
    }
}

/// What the header says.
pub(crate) fn signature(secret: &str, at: Unix, body: &str) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(secret.as_bytes());
    engine.input(at.0.to_string().as_bytes());
    engine.input(b".");
    engine.input(body.as_bytes());
    let mac = Hmac::<sha256::Hash>::from_engine(engine);
    format!("t={},v1={}", at.0, to_hex(mac.as_byte_array()))
}
