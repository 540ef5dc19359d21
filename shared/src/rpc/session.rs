//! Opening a session: another key speaks for the machine, so that no sale waits for the bunker.
//!
//! Promise: the session key and the vault key both agreed to this session at this service, and the
//! spire named the vault.
//!
//! Failure policy: the first thing that does not hold is a [`SessionError`]; no session is opened.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{CanonicalError, Sig};
use crate::error::{Classified, Kind};
use crate::ids::{JournalHead, JournalSeq, Nonce, PubKey, SessionId};
use crate::rpc::signed::{SessionProof, SignedText};
use crate::statement::{SignedStatement, Statement, StatementError};
use crate::time::Unix;

/// The longest that a session may last, in seconds: a day.
const MAX_SESSION_S: u64 = 86_400;

/// `open_session`: from now on `session_pubkey` speaks for the machine. Signed by the spire key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenSession {
    /// The session's key.
    pub session_pubkey: PubKey,
    /// The vault's key.
    pub vault_pubkey: PubKey,
    /// The session's end, at most 24 hours ahead.
    pub expires_at: Unix,
    /// The session key's signature over the [`SessionProof`].
    pub proof: Sig,
    /// The vault key's signature over the same.
    pub vault_proof: Sig,
    /// The spire's statement that names the vault key.
    pub vault_statement: SignedStatement,
    /// How far the machine's journal has come.
    pub journal_seq: JournalSeq,
    /// Its head there.
    pub journal_head: JournalHead,
}

/// Why a session is not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// It ends too late, or has ended.
    #[error(
        "session: expected an end within 86400 s from now ({now}), got {expires_at}",
        now = .now.0, expires_at = .expires_at.0
    )]
    Lifetime {
        /// The end that was asked for.
        expires_at: Unix,
        /// Trusted time of the check.
        now: Unix,
    },
    /// Two of the four parties share a key.
    #[error("session: expected four different keys for spire, service, session and vault")]
    SharedKey,
    /// A proof does not hold.
    #[error("session: a proof does not hold")]
    Proof(#[from] CanonicalError),
    /// The vault's statement does not hold.
    #[error("session: the vault's statement does not hold")]
    Statement(#[from] StatementError),
    /// The statement holds, but says something else.
    #[error("session: expected the spire's statement naming the vault {expected}, got {got}")]
    OtherVault {
        /// The vault of the body.
        expected: PubKey,
        /// What the statement is about.
        got: String,
    },
}

impl Classified for SessionError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

impl OpenSession {
    /// Checks lifetime, keys, both proofs and the vault's statement, and gives the statement's
    /// nonce. Whether the nonce was used, the vault is the pinned one and the journal has not gone
    /// back is the caller's to know.
    ///
    /// # Errors
    /// The first [`SessionError`] in that order.
    pub fn check(
        &self,
        spire: &PubKey,
        service: &PubKey,
        now: Unix,
    ) -> Result<Nonce, SessionError> {
        let expires_at = self.expires_at;
        if expires_at <= now || expires_at.since(now) > MAX_SESSION_S {
            return Err(SessionError::Lifetime { expires_at, now });
        }
        let (session, vault) = (self.session_pubkey, self.vault_pubkey);
        let mut keys = [*spire, *service, session, vault];
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(SessionError::SharedKey);
        }
        let proof = SessionProof { spire: *spire, service: *service, session, vault, expires_at };
        proof.verify(&self.proof, &session)?;
        proof.verify(&self.vault_proof, &vault)?;
        match self.vault_statement.check(spire, now)? {
            Statement::Vault { spire: named, vault: v, nonce, .. }
                if named == *spire && v == vault =>
            {
                Ok(nonce)
            }
            other => {
                let got = match other {
                    Statement::Vault { spire, vault, .. } => format!("vault {vault} of {spire}"),
                    other => format!("a statement of type {}", other.type_name()),
                };
                Err(SessionError::OtherVault { expected: vault, got })
            }
        }
    }
}

/// Reply to `open_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The session.
    pub session_id: SessionId,
    /// Its end; not after the one that was asked for.
    pub expires_at: Unix,
}
