//! The session: a key in memory that speaks for the machine, so that no sale waits for the bunker.
//!
//! Promise: the spire key signs one `open_session` and the vault's statement; the vault proves that
//! it agrees. A session is renewed while a quarter of its life is left, and opened again when the
//! service no longer knows it. The old key still reads replies on their way.
//!
//! States ([`Way`]): `Opening -> Session <-> Opening`, and `Spire` while the service refuses a
//! session: then the bunker signs each request.
//!
//! Failure policy: a bunker, vault or service that does not answer is tried again with backoff; a
//! live session is used to its end whatever happens to its renewal.

use std::sync::Arc;

use bitspire_shared::canonical::{CanonicalError, Sig};
use bitspire_shared::error::Classified as _;
use bitspire_shared::ids::{JournalHead, JournalSeq, Nonce, PubKey, RequestId};
use bitspire_shared::nip44::{ConversationKey, Nip44Error};
use bitspire_shared::rpc::{
    ErrorCode, OpenSession, Reply, Request, RpcError, SessionOpened, SessionProof, SignedText as _,
};
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::{SecretError, random};
use nostr::Keys;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Timing;
use super::requests::{Asked, Path};
use super::rpc;
use super::signer::{Signer, SignerError};
use super::store::public;
use super::times::Times;
use crate::ipc::{NetPins, ToVault};
use crate::refused::Refused;

/// Seconds that a session is asked for.
const LIFE_S: u64 = 12 * 3_600;
/// Seconds for which the vault's statement can be used.
const STATEMENT_S: u64 = 600;
/// Longest sleep before the wall clock is looked at again.
const LOOK: Duration = Duration::from_secs(60);

/// A session that the service knows.
pub(super) struct Session {
    pub(super) keys: Keys,
    pub(super) key: PubKey,
    /// Between the session key and the service.
    pub(super) conversation: ConversationKey,
    pub(super) expires_at: Unix,
    opened_at: Unix,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How requests travel now.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Not at all: a session is being opened.
    Opening,
    /// Signed by the session.
    Session(Arc<Session>),
    /// Signed by the bunker: the service refuses a session.
    Spire,
}

/// The vault's part of `open_session`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    pub(super) session: PubKey,
    pub(super) vault: PubKey,
    pub(super) vault_proof: Sig,
    pub(super) journal_seq: JournalSeq,
    pub(super) journal_head: JournalHead,
}

/// Why there is no session.
#[derive(Debug, Error)]
enum OpenError {
    #[error("the bunker gave no signature")]
    Signer(#[from] SignerError),
    #[error("the vault gave no proof in time, or is another one now")]
    Vault,
    #[error("the service did not answer in time")]
    Service,
    #[error(transparent)]
    Refused(RpcError),
    #[error("the service answered open_session with something else")]
    Reply(#[from] bitspire_shared::rpc::BadMessage),
    #[error("expected a session that ends after now and not after {asked}, got {got}", asked = .asked.0, got = .got.0)]
    Lifetime { asked: Unix, got: Unix },
    #[error("no session key can be made")]
    Random(#[from] SecretError),
    #[error("no session key can be made")]
    Key(#[from] nostr::key::Error),
    #[error("no session key can be made")]
    Conversation(#[from] Nip44Error),
    #[error("no session key can be made")]
    Public(#[from] bitspire_shared::ids::IdError),
    #[error("the request cannot be written")]
    Canonical(#[from] CanonicalError),
    #[error("the connection is closed")]
    Closed,
}

/// Keeps a session open.
pub(super) struct Keeper {
    pub(super) pins: NetPins,
    pub(super) signer: Signer,
    pub(super) to_vault: mpsc::Sender<ToVault>,
    pub(super) proofs: mpsc::Receiver<Proof>,
    pub(super) rpc: mpsc::Sender<rpc::Command>,
    /// Sessions that the service does not know, or does not answer.
    pub(super) doubts: mpsc::Receiver<PubKey>,
    pub(super) way: watch::Sender<Way>,
    /// What the bunker did last instead of signing.
    pub(super) trouble: watch::Sender<Option<Refused>>,
    pub(super) times: Times,
    pub(super) timing: Timing,
    /// The vault's key, once it has told it.
    pub(super) vault: Option<PubKey>,
}

impl Keeper {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn keep(&mut self) {
        let first = Duration::from_millis(self.timing.retry_ms);
        let most = first * 30;
        let mut wait = first;
        loop {
            let opened = self.open().await;
            if self.hold_positions(false).await.is_err() {
                return;
            }
            self.tell_trouble(opened.as_ref().err());
            match opened {
                Ok(session) => {
                    wait = first;
                    tracing::info!(
                        event = "session_open", session = %session.key,
                        expires_at = session.expires_at.0
                    );
                    let session = Arc::new(session);
                    self.way.send_replace(Way::Session(session.clone()));
                    self.live(&session).await;
                }
                Err(OpenError::Refused(error)) => {
                    tracing::warn!(event = "session_refused", %error);
                    self.without_session(Way::Spire);
                    wait = most;
                    self.rest(wait).await;
                }
                Err(OpenError::Closed) => return,
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::info!(event = "session_not_open", %error, cause);
                    self.without_session(Way::Opening);
                    self.rest(wait).await;
                    wait = (wait * 2).min(most);
                }
            }
        }
    }

    /// Sleeps, and lets doubts of that time be answered by the next try.
    async fn rest(&mut self, wait: Duration) {
        sleep(wait).await;
        while self.doubts.try_recv().is_ok() {}
    }

    /// Until it has to be renewed, or the service does not know it.
    async fn live(&mut self, session: &Session) {
        let life = session.expires_at.since(session.opened_at);
        let renew_at = session.opened_at.after(life.saturating_mul(3) / 4);
        loop {
            let left = renew_at.since(self.times.unix());
            if left == 0 {
                return;
            }
            tokio::select! {
                () = sleep(LOOK.min(Duration::from_secs(left))) => {}
                doubted = self.doubts.recv() => match doubted {
                    Some(key) if key == session.key => {
                        tracing::warn!(event = "session_unknown_to_service", session = %key);
                        return;
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    /// What the bunker did is told where somebody looks; a bunker that lies or refuses is no matter of
    /// patience.
    fn tell_trouble(&self, error: Option<&OpenError>) {
        let signer = match error {
            Some(OpenError::Signer(error)) => Some(error),
            _ => None,
        };
        let trouble = signer.map(Refused::from);
        if let (Some(Refused { code, words }), false) = (&trouble, signer.is_some_and(may_change)) {
            tracing::warn!(event = "bunker_trouble", code = code.as_str(), words);
        }
        self.trouble.send_if_modified(|told| {
            let changed = *told != trouble;
            *told = trouble;
            changed
        });
    }

    /// A live session stays, whatever `way` would be without one.
    fn without_session(&self, way: Way) {
        let now = self.times.unix();
        self.way.send_if_modified(|current| match current {
            Way::Session(session) if session.expires_at > now => false,
            _ => {
                *current = way;
                true
            }
        });
    }

    async fn open(&mut self) -> Result<Session, OpenError> {
        let secret = Zeroizing::new(random::<32>()?);
        let keys = Keys::new(nostr::SecretKey::from_slice(secret.as_slice())?);
        let session = public(&keys)?;
        let NetPins { spire, service, .. } = self.pins;
        let opened_at = self.times.unix();
        let expires_at = opened_at.after(LIFE_S);

        let vault = match self.vault {
            Some(vault) => vault,
            None => self.proof(session, expires_at).await?.vault,
        };
        let nonce = Nonce::from_bytes(random()?);
        let not_after = opened_at.after(STATEMENT_S);
        let statement = Statement::Vault { spire, vault, nonce, not_after };
        let statement = self.signer.sign(statement.to_unsigned(&spire, opened_at)?).await?;
        let statement = SignedStatement::new(statement);
        let named = ToVault::Named { statement: Box::new(statement.clone()) };
        self.to_vault.send(named).await.map_err(|_| OpenError::Closed)?;
        // what the vault proves from here on is the latest position that the service hears of
        self.hold_positions(true).await?;
        let proof = self.proof(session, expires_at).await?;
        if self.vault.replace(proof.vault).is_some_and(|known| known != proof.vault) {
            return Err(OpenError::Vault);
        }
        let Proof { vault_proof, journal_seq, journal_head, .. } = proof;
        let ours = SessionProof { spire, service, session, vault, expires_at };
        let body = OpenSession {
            session_pubkey: session,
            vault_pubkey: vault,
            expires_at,
            proof: ours.sign(&keys),
            vault_proof,
            vault_statement: statement,
            journal_seq,
            journal_head,
        };
        let reply = self.ask(body).await?;
        let opened: SessionOpened = reply.read::<OpenSession>()?.map_err(OpenError::Refused)?;
        if opened.expires_at > expires_at || opened.expires_at <= self.times.unix() {
            return Err(OpenError::Lifetime { asked: expires_at, got: opened.expires_at });
        }
        let conversation = ConversationKey::derive(keys.secret_key(), &service)?;
        Ok(Session { keys, key: session, conversation, expires_at: opened.expires_at, opened_at })
    }

    async fn hold_positions(&self, hold: bool) -> Result<(), OpenError> {
        let hold = rpc::Command::HoldPositions(hold);
        self.rpc.send(hold).await.map_err(|_| OpenError::Closed)
    }

    async fn proof(&mut self, session: PubKey, expires_at: Unix) -> Result<Proof, OpenError> {
        while self.proofs.try_recv().is_ok() {}
        let ask = ToVault::ProveSession { session, expires_at };
        self.to_vault.send(ask).await.map_err(|_| OpenError::Closed)?;
        let proofs = &mut self.proofs;
        let wanted = async {
            loop {
                let proof = proofs.recv().await.ok_or(OpenError::Closed)?;
                if proof.session == session {
                    return Ok(proof);
                }
            }
        };
        let patience = Duration::from_millis(self.timing.answer_ms);
        timeout(patience, wanted).await.map_err(|_| OpenError::Vault)?
    }

    async fn ask(&self, body: OpenSession) -> Result<Reply, OpenError> {
        let request_id = RequestId::from_bytes(random()?);
        // parsed and written by the same types as everything that the service reads
        let plaintext = Request::new(request_id, body)?.to_plaintext()?;
        let body = serde_json::from_str::<serde_json::Value>(&plaintext)
            .ok()
            .and_then(|mut request| request.get_mut("body").map(serde_json::Value::take))
            .ok_or(OpenError::Closed)?;
        let asked = Asked { rpc_name: "open_session".into(), body, path: Path::Spire };
        let (answered, answer) = oneshot::channel();
        let own = rpc::Command::Own { request_id, asked, answered };
        self.rpc.send(own).await.map_err(|_| OpenError::Closed)?;
        let patience = Duration::from_millis(self.timing.answer_ms);
        match timeout(patience, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(OpenError::Closed),
            Err(_) => {
                let forget = rpc::Command::Forget(request_id);
                self.rpc.send(forget).await.map_err(|_| OpenError::Closed)?;
                Err(OpenError::Service)
            }
        }
    }
}

/// Whether a refusal is about the event that carried the request, so that a fresh one may pass.
pub(super) fn is_about_the_event(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Expired | ErrorCode::Stale | ErrorCode::Duplicate | ErrorCode::RateLimited
    ) && code.kind() == bitspire_shared::error::Kind::Transient
}

/// Whether the bunker's answer may be another one later.
pub(super) fn may_change(error: &SignerError) -> bool {
    error.kind() == bitspire_shared::error::Kind::Transient
}
