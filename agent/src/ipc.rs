//! What crosses the socket between `vault` and `net`.
//!
//! Promise: versioned JSON messages behind a 4-byte big-endian length. Neither side trusts the
//! other: `net` may be broken into, so nothing that it says moves a note or mints a sat; what
//! counts is signed by the pinned service or operator key and checked by the vault itself.
//!
//! Failure policy: a frame that is too long, is no message, or comes before both have said
//! [`Hello`](ToVault::Hello) with the same version ends the connection; `net` connects again and
//! the vault repeats what is still open, under the ids that it has made and journaled.

mod action;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{EventId, JournalHead, JournalSeq, PubKey, RequestId};
use bitspire_shared::nip46::client::SignerState;
use bitspire_shared::statement::SignedStatement;
use bitspire_shared::time::Unix;
use nostr::Event;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::action::CustomerAction;
use crate::refused::Refused;

/// The version of this protocol; both sides must speak the same.
pub const VERSION: u32 = 1;

/// The longest message, in bytes: a document with its event fits.
pub const MAX_FRAME: usize = 512 * 1024;

/// A text that must not be printed: the seed URL on its way to the vault, or a bunker URL with its
/// secret on its way to `net`. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself: never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Of an argument or a variable.
impl From<String> for SecretText {
    fn from(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self::new(text.trim().to_owned())
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

/// How the bunker is reached, as screens and alerts show it; mirrors [`SignerState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BunkerState {
    /// Nothing was asked yet, or nothing came back yet.
    Unknown,
    /// It answers.
    Ready,
    /// Its relay takes requests and nobody answers: its key is locked, or it is down.
    Locked,
    /// No relay takes requests, or it is slow.
    Unavailable,
    /// It refuses this client: revoked or expired.
    Refused,
}

impl BunkerState {
    /// The name, as it is written and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Locked => "locked",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

impl From<SignerState> for BunkerState {
    fn from(state: SignerState) -> Self {
        match state {
            SignerState::Unknown => Self::Unknown,
            SignerState::Ready => Self::Ready,
            SignerState::Locked => Self::Locked,
            SignerState::Unavailable => Self::Unavailable,
            SignerState::Refused => Self::Refused,
        }
    }
}

/// What `net` knows about the way to the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// Relays connected.
    pub relays: u32,
    /// The bunker.
    pub bunker: BunkerState,
    /// Whether a session is open, so that requests need no bunker.
    pub session: bool,
    /// Why the bunker's part in the last try for a session failed; the one before may still be open.
    #[serde(default)]
    pub bunker_trouble: Option<Refused>,
}

/// Who has connected to the vault's socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The network process; a newer connection of it replaces an older one.
    #[default]
    Net,
    /// The command line: a seed, the PIN, a rekey, how the machine is; nothing else.
    Control,
}

/// What `status` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// The keys that it is paired with.
    pub pins: Option<NetPins>,
    /// The vault's own key: with it and the spire's an operator signs a rekey.
    pub vault: PubKey,
    /// The digits to compare with the pairing page, for as long as they wait for that.
    pub digits: Option<String>,
    /// The way to the service; absent while `net` is not connected.
    pub net: Option<NetState>,
    /// Where the journal stands.
    pub journal_seq: JournalSeq,
    /// Transactions that are not closed.
    pub open_txns: u32,
    /// Why it is out of service, in words; empty while it sells.
    pub out_of_service: Vec<String>,
}

/// What went over the line of one device last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFrames {
    /// `acceptor`, `dispenser` or `printer`.
    pub device: String,
    /// Oldest first: time since its start, direction, hex, words.
    pub frames: Vec<String>,
}

/// From `net` or the command line to the vault.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToVault {
    /// First message of a connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Who speaks.
        #[serde(default)]
        role: Role,
    },
    /// The command line asks how the machine is: answered with [`ToNet::Status`].
    Status,
    /// The command line asks what the devices said last: answered with [`ToNet::Frames`].
    Trace,
    /// A seed URL, from the command line or the first-boot page. The sender hears
    /// [`ToNet::SeedRefused`] or, once the bunker took it, [`ToNet::Paired`].
    Seed {
        /// `spire-seed:v1:...`.
        seed_url: SecretText,
    },
    /// The command line sets the PIN of service mode: answered with [`ToNet::ServicePin`].
    ServicePin {
        /// The new one.
        new: SecretText,
        /// The one that is set, once the pairing is confirmed.
        old: Option<SecretText>,
    },
    /// The command line brings a `rekey` of the operator by hand: answered with [`ToNet::Rekeyed`].
    Rekey {
        /// Signed by the operator's key.
        statement: Box<SignedStatement>,
        /// The PIN of service mode.
        pin: SecretText,
    },
    /// The bunker took the secret and its key is the seed's: pin it all.
    Connected {
        /// The client key that the bunker now knows.
        client: PubKey,
        /// What `get_public_key` said.
        spire: PubKey,
    },
    /// The bunker waits for a person to open this address; the call goes on waiting.
    AuthUrl {
        /// It may log in: for the screen and the command line, not for logs.
        url: SecretText,
    },
    /// The bunker did not take the secret: nothing is pinned.
    ConnectFailed(Refused),
    /// `net` opens a session and needs the vault's proof.
    ProveSession {
        /// The session's key, made by `net`, in its memory only.
        session: PubKey,
        /// The session's end.
        expires_at: Unix,
    },
    /// The machine's statement that names the vault, as it goes to the service: for receipts.
    Named {
        /// Signed by the spire key.
        statement: Box<SignedStatement>,
    },
    /// The service answered a request; `net` asks no more. Refusals that are about the carrying
    /// event alone (expired, stale, duplicate, rate_limited) or about an unknown session do not
    /// come here: `net` sends a fresh event.
    Reply {
        /// The request.
        request_id: RequestId,
        /// The signed event that carried the answer; its `created_at` is trusted time.
        event: Box<Event>,
        /// The decrypted answer: the envelope's JSON.
        envelope: Value,
    },
    /// The service pushed something.
    Push {
        /// The signed event that carried it.
        event: Box<Event>,
        /// The decrypted envelope.
        envelope: Value,
    },
    /// A configuration document came, decrypted by the bunker.
    Document {
        /// The signed event.
        event: Box<Event>,
        /// Its plaintext.
        plaintext: String,
    },
    /// A relay took the machine's cassettes-state document.
    StatePublished {
        /// The event that was published.
        event_id: EventId,
    },
    /// The way to the service changed.
    State(NetState),
    /// The customer did something.
    Customer(CustomerAction),
}

named! {
    ToVault {
        Hello => "Hello",
        Status => "Status",
        Trace => "Trace",
        Seed => "Seed",
        ServicePin => "ServicePin",
        Rekey => "Rekey",
        Connected => "Connected",
        AuthUrl => "AuthUrl",
        ConnectFailed => "ConnectFailed",
        ProveSession => "ProveSession",
        Named => "Named",
        Reply => "Reply",
        Push => "Push",
        Document => "Document",
        StatePublished => "StatePublished",
        State => "State",
        Customer => "Customer",
    }
}

/// Which message it is, never what is in it: answers carry LNURLs, screens claim codes.
impl std::fmt::Debug for ToVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// From the vault to `net` or to the command line.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ToNet {
    /// First message of a connection.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The keys that this machine is paired with, if it is.
        pins: Option<NetPins>,
    },
    /// A good seed came and the machine is free: connect to the bunker with the secret in it.
    Connect {
        /// `bunker://...&secret=...`; the secret lives in memory only.
        bunker_url: SecretText,
        /// The relays of the seed.
        relays: Vec<String>,
        /// What will be pinned once the bunker has taken the secret.
        pins: NetPins,
    },
    /// The bunker waits for a person to open this address: for whoever brought the seed by the command
    /// line.
    AuthUrl {
        /// It may log in.
        url: SecretText,
    },
    /// Why a seed was refused; nothing is stored.
    SeedRefused(Refused),
    /// What became of a [`ToVault::ServicePin`].
    ServicePin {
        /// Why not, in words; it is set without.
        refused: Option<String>,
    },
    /// What became of a [`ToVault::Rekey`].
    Rekeyed {
        /// Why not, in words; the pins are the new ones without.
        refused: Option<String>,
    },
    /// The machine is paired: `net` stores its side.
    Paired {
        /// The pins.
        pins: NetPins,
    },
    /// The vault's part of `open_session`.
    SessionProof {
        /// The session that it is for.
        session: PubKey,
        /// The vault key.
        vault: PubKey,
        /// Its signature over the session text.
        vault_proof: Sig,
        /// Where the journal stands.
        journal_seq: JournalSeq,
        /// Its head there.
        journal_head: JournalHead,
    },
    /// To be asked of the service until it is answered or forgotten, always with the same id.
    Request {
        /// Made and, where money hangs on it, journaled by the vault.
        request_id: RequestId,
        /// `get_quote`, `create_invoice`, ...
        rpc_name: String,
        /// The body, with the vault's signature where it has one.
        body: Value,
    },
    /// Nobody waits for this request any more.
    Forget {
        /// The request.
        request_id: RequestId,
    },
    /// The machine's cassettes-state, to be encrypted to the operator, signed by the spire key and
    /// published.
    PublishState {
        /// The plaintext, signed by the vault.
        plaintext: String,
    },
    /// How the machine is, for the command line.
    Status(Box<MachineStatus>),
    /// What went over the devices' lines last, for the command line.
    Frames {
        /// Each device's.
        devices: Vec<DeviceFrames>,
    },
    /// What the customer sees from now on.
    Screen {
        /// Counts the screens of this run of the vault.
        number: u64,
        /// The screen as data; the kiosk renders it.
        screen: Value,
    },
}

/// Which message it is, never what is in it: answers carry LNURLs, screens claim codes.
impl std::fmt::Debug for ToNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello { .. } => "Hello",
            Self::Connect { .. } => "Connect",
            Self::AuthUrl { .. } => "AuthUrl",
            Self::SeedRefused(_) => "SeedRefused",
            Self::ServicePin { .. } => "ServicePin",
            Self::Rekeyed { .. } => "Rekeyed",
            Self::Paired { .. } => "Paired",
            Self::SessionProof { .. } => "SessionProof",
            Self::Request { .. } => "Request",
            Self::Forget { .. } => "Forget",
            Self::PublishState { .. } => "PublishState",
            Self::Status(_) => "Status",
            Self::Frames { .. } => "Frames",
            Self::Screen { .. } => "Screen",
        })
    }
}

/// The keys that `net` must know: none of them secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetPins {
    /// The machine's Nostr identity, held by the bunker.
    pub spire: PubKey,
    /// The operator's key.
    pub operator: PubKey,
    /// The service's key.
    pub service: PubKey,
}

/// Why the socket was closed.
#[derive(Debug, Error)]
pub enum IpcError {
    /// The socket broke or was closed.
    #[error("the socket between vault and net broke")]
    Io(#[from] io::Error),
    /// A frame beyond the limit.
    #[error("expected a message of at most {MAX_FRAME} bytes, got {got}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// A frame that is no message of this side.
    #[error("expected a message of version {VERSION}")]
    NoMessage(#[source] serde_json::Error),
}

/// The bytes of one message: length, then JSON.
///
/// # Errors
/// [`IpcError::TooLong`], [`IpcError::NoMessage`].
pub fn encode<T: Serialize>(message: &T) -> Result<Zeroizing<Vec<u8>>, IpcError> {
    let body = Zeroizing::new(serde_json::to_vec(message).map_err(IpcError::NoMessage)?);
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let length = length.ok_or(IpcError::TooLong { got: body.len() })?;
    // in its full size at once: a buffer that grows leaves copies behind
    let mut frame = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(4)));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Reads one message; `None` at a clean end between two messages.
///
/// # Errors
/// [`IpcError`]; the connection is of no use after one.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, IpcError> {
    let mut length = [0u8; 4];
    let got = loop {
        match from.read(&mut length) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {} // a signal is no end
            got => break got?,
        }
    };
    match got {
        0 => return Ok(None),
        got => from.read_exact(length.get_mut(got..).unwrap_or_default())?,
    }
    let mut body = Zeroizing::new(vec![0u8; body_length(length)?]);
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// The length of a message, from the four bytes before it.
///
/// # Errors
/// [`IpcError::TooLong`].
pub fn body_length(bytes: [u8; 4]) -> Result<usize, IpcError> {
    match u32::from_be_bytes(bytes) as usize {
        got if got > MAX_FRAME => Err(IpcError::TooLong { got }),
        length => Ok(length),
    }
}

/// The message of these bytes.
///
/// # Errors
/// [`IpcError::NoMessage`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, IpcError> {
    serde_json::from_slice(body).map_err(IpcError::NoMessage)
}

/// Writes one message.
///
/// # Errors
/// [`IpcError`]; the connection is of no use after one.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), IpcError> {
    to.write_all(&encode(message)?)?;
    Ok(to.flush()?)
}
