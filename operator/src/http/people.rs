//! Who may use the API: people by their key, programs by a token, this computer's own CLI by the
//! cookie file.
//!
//! Promise: a token is shown once and stored as its hash only. The cookie is a token that is made
//! at each start and dies with the process; its file can be read by the service's own user alone,
//! who can read the database anyway.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bitspire_shared::ids::{Digest, PubKey, to_hex};
use bitspire_shell::secrets::{SecretError, random, write_private};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use zeroize::Zeroizing;

use super::auth::{Caller, Role, Roster, token_hash};
use crate::app::App;
use crate::store::{operators, tokens};

/// What a token begins with, so that it is known when it lies about.
const PREFIX: &str = "bitspire_";
/// Whom the audit log names for the cookie.
const CLI: &str = "cli";
/// The file of the cookie in the data folder.
const COOKIE: &str = "api.cookie";

/// A fresh token.
///
/// # Errors
/// [`SecretError::Random`].
pub fn fresh_token() -> Result<Zeroizing<String>, SecretError> {
    Ok(Zeroizing::new(format!("{PREFIX}{}", to_hex(&random::<32>()?))))
}

/// Where the cookie lies.
#[must_use]
pub fn cookie_path(data_dir: &Path) -> PathBuf {
    data_dir.join(COOKIE)
}

/// The API's roster.
pub struct People {
    app: Arc<App>,
    cookie: Mutex<Option<Digest>>,
}

impl People {
    /// Everybody that the database knows, and no cookie.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app, cookie: Mutex::new(None) }
    }

    /// Makes the cookie of this run and writes it, with the API's address, for the CLI.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn write_cookie(&self, address: &str) -> Result<(), SecretError> {
        let token = fresh_token()?;
        let line = Zeroizing::new(format!("{address} {}\n", token.as_str()));
        write_private(&cookie_path(&self.app.config.data_dir), line.as_bytes())?;
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = Some(token_hash(&token));
        Ok(())
    }
}

impl Roster for People {
    fn by_key(&self, key: PubKey) -> BoxFuture<'_, Option<Caller>> {
        Box::pin(async move {
            let found = self.app.store.read(move |read| operators::user_by_key(read, key)).await;
            let user = found.inspect_err(unanswered).ok()??;
            Some(Caller { actor: key.to_string(), operator: user.operator_id, role: user.role })
        })
    }

    fn by_token(&self, hash: Digest) -> BoxFuture<'_, Option<Caller>> {
        Box::pin(async move {
            // hashes: what their comparison takes tells nothing about the token
            if *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) == Some(hash) {
                return Some(Caller { actor: CLI.into(), operator: None, role: Role::Super });
            }
            let now = self.app.clock.now();
            let found = self.app.store.read(move |read| tokens::by_hash(read, hash, now)).await;
            let token = found.inspect_err(unanswered).ok()??;
            let actor = format!("token:{}", token.name);
            Some(Caller { actor, operator: token.operator_id, role: token.role })
        })
    }
}

fn unanswered(error: &crate::store::StoreError) {
    tracing::error!(event = "api_roster_unanswered", %error);
}
