//! Configuration documents between an operator and a machine: addressable events of kind 30078
//! (NIP-78), encrypted with NIP-44 from author to reader.
//!
//! Promise: nothing is decrypted before [`check_event`] has seen that kind, author, `d`, reader, id
//! and signature are the expected ones; nothing is applied that [`watermark::decide`] does not
//! order after the last. Each document reads without floating point, ignores fields that it does
//! not know, and refuses another `schema_version`.
//!
//! Failure policy: each way of not being the document is a [`DocumentError`]; the caller keeps the
//! last good one.

pub mod attest;
mod cassettes;
mod changes;
mod fees;
pub mod watermark;

use std::fmt;
use std::str::FromStr;

use nostr::{Event, EventBuilder, Kind as EventKind, Tag, TagKind, Timestamp, UnsignedEvent};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

pub use cassettes::{Cassettes, CassettesState, Position, Positions};
pub use changes::{Action, Applied, BayCount, Change, Decided, Refusal, apply};
pub use fees::{DirectionFees, FeesDocument};

use crate::canonical::CanonicalError;
use crate::error::{Classified, Kind};
use crate::exact::{self, NumberError, shown};
use crate::ids::{ChangeId, Digest, EventId, PubKey};
use crate::money::{Direction, MoneyError};
use crate::nip44::{ConversationKey, Nip44Error};
use crate::split::SplitError;
use crate::statement::StatementError;
use crate::time::Unix;
use watermark::Mark;

/// Kind of a document's event (NIP-78).
pub const DOCUMENT_KIND: u16 = 30078;
/// The schema that is written and read.
pub const SCHEMA_VERSION: u64 = 1;

/// Why a document is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// A `d` tag of no document of ours.
    #[error("d tag: expected bitspire-<document>:<64 hex>, got {0:?}")]
    DTag(String),
    /// Another kind of event.
    #[error("document: expected kind {DOCUMENT_KIND}, got {0}")]
    EventKind(u16),
    /// By another key than the pinned one.
    #[error("document: expected the author {expected}, got {got}")]
    Author {
        /// The pinned key.
        expected: PubKey,
        /// The event's author.
        got: String,
    },
    /// For another machine, another document, or with more than one `d`.
    #[error("document: expected d = {expected} once, got {got}")]
    Address {
        /// The document's address.
        expected: DTag,
        /// What the event has.
        got: String,
    },
    /// For another reader.
    #[error("document: expected p = {expected} once, got {got}")]
    Reader {
        /// Who reads it.
        expected: PubKey,
        /// What the event has.
        got: String,
    },
    /// Past its NIP-40 expiration.
    #[error("document: expired before {}", .now.0)]
    Expired {
        /// The trusted time of the check.
        now: Unix,
    },
    /// Id or signature do not hold.
    #[error("document: id or signature does not hold")]
    BadSignature,
    /// Does not decrypt.
    #[error("document: content")]
    Content(#[source] Nip44Error),
    /// Not the JSON that it should be.
    #[error("document: {0}")]
    Json(String),
    /// Another schema; the last good document stays.
    #[error("document: expected schema_version {SCHEMA_VERSION}, got {0}")]
    SchemaVersion(u64),
    /// A field that is no number.
    #[error("document: {field}")]
    Number {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: NumberError,
    },
    /// A fraction that is no whole number of parts per million, to 0.001 ppm.
    #[error("document: expected {field} in whole parts per million, got {got}")]
    Fraction {
        /// The field.
        field: &'static str,
        /// What came.
        got: Decimal,
    },
    /// Fees above the cap.
    #[error("document: {direction}")]
    Cap {
        /// Of which direction.
        direction: Direction,
        /// The fees and the cap.
        #[source]
        source: SplitError,
    },
    /// `components` that do not make the total.
    #[error("document: {direction}: expected components of {total} ppm together, got {sum}")]
    Components {
        /// Of which direction.
        direction: Direction,
        /// The total.
        total: u32,
        /// What super and operator make.
        sum: u32,
    },
    /// A denomination that is none in whole units of the machine's currency.
    #[error("document: denomination")]
    Denomination(#[source] MoneyError),
    /// One change twice in one document.
    #[error("document: change {0} stands twice")]
    DuplicateChange(ChangeId),
    /// No operator's statement where one is needed.
    #[error("document: expected an attest by the operator, found none")]
    NotAttested,
    /// The operator's statement does not hold.
    #[error("document: attest")]
    Attest(#[source] StatementError),
    /// The operator's statement is about something else.
    #[error("document: expected an attest of document {expected}, got {got}")]
    AttestOther {
        /// Digest of this document.
        expected: Digest,
        /// What the statement says.
        got: String,
    },
    /// No canonical text, so nothing to sign or check.
    #[error("document: canonical form")]
    Canonical(#[source] CanonicalError),
    /// The vault's signature does not hold.
    #[error("document: vault_sig")]
    VaultSig(#[source] CanonicalError),
    /// No vault's signature.
    #[error("document: expected a vault_sig, found none")]
    NotSigned,
}

impl Classified for DocumentError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// Operator to machine: what the bays hold.
    Cassettes,
    /// Machine to operator: what the bays hold.
    CassettesState,
    /// Operator to machine: what a transaction costs.
    Fees,
}

impl DocumentKind {
    const ALL: [Self; 3] = [Self::Cassettes, Self::CassettesState, Self::Fees];

    /// The name before the colon of the `d` tag.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Cassettes => "bitspire-cassettes",
            Self::CassettesState => "bitspire-cassettes-state",
            Self::Fees => "bitspire-fees",
        }
    }
}

/// The `d` tag of a machine's document: `bitspire-fees:<spire hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DTag {
    /// Which document.
    pub kind: DocumentKind,
    /// The machine.
    pub spire: PubKey,
}

impl fmt::Display for DTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.prefix(), self.spire)
    }
}

impl FromStr for DTag {
    type Err = DocumentError;
    fn from_str(text: &str) -> Result<Self, DocumentError> {
        let parse = || {
            let (prefix, spire) = text.split_once(':')?;
            let kind = DocumentKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
            Some(Self { kind, spire: spire.parse().ok()? })
        };
        parse().ok_or_else(|| DocumentError::DTag(text.chars().take(120).collect()))
    }
}

impl DTag {
    /// The event to be signed: tags `d` and `p`, `content` encrypted from author to reader.
    #[must_use]
    pub fn to_unsigned(
        &self,
        author: &PubKey,
        reader: &PubKey,
        content: String,
        created_at: Unix,
    ) -> UnsignedEvent {
        EventBuilder::new(EventKind::from(DOCUMENT_KIND), content)
            .tags([Tag::identifier(self.to_string()), Tag::public_key(reader.nostr())])
            .custom_created_at(Timestamp::from(created_at.0))
            .build(author.nostr())
    }
}

/// A document's event that passed [`check_event`]; its content is still encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    id: EventId,
    created_at: Unix,
    content: String,
}

/// Checks an event that a filter brought, before anything of it is decrypted: kind, author, one `d`
/// and one `p` that are the expected ones, NIP-40 expiration, id and signature.
///
/// # Errors
/// The first [`DocumentError`] in that order; signatures last, since they cost most.
pub fn check_event(
    event: &Event,
    address: &DTag,
    author: &PubKey,
    reader: &PubKey,
    now: Unix,
) -> Result<Checked, DocumentError> {
    if event.kind.as_u16() != DOCUMENT_KIND {
        return Err(DocumentError::EventKind(event.kind.as_u16()));
    }
    if event.pubkey != author.nostr() {
        let got = event.pubkey.to_hex();
        return Err(DocumentError::Author { expected: *author, got });
    }
    let only = |kind: TagKind<'_>| {
        let all: Vec<_> = event.tags.iter().filter(|tag| tag.kind() == kind).collect();
        match all.as_slice() {
            [one] => one.content().unwrap_or_default().to_owned(),
            more => format!("{} such tags", more.len()),
        }
    };
    let got = only(TagKind::d());
    if got != address.to_string() {
        return Err(DocumentError::Address { expected: *address, got: shown(&got) });
    }
    let got = only(TagKind::p());
    if got != reader.to_string() {
        return Err(DocumentError::Reader { expected: *reader, got: shown(&got) });
    }
    if event.is_expired_at(&Timestamp::from(now.0)) {
        return Err(DocumentError::Expired { now });
    }
    event.verify().map_err(|_| DocumentError::BadSignature)?;
    Ok(Checked {
        id: EventId::from_bytes(event.id.to_bytes()),
        created_at: Unix(event.created_at.as_secs()),
        content: event.content.clone(),
    })
}

impl Checked {
    /// The event's id.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// When its author says that it was signed.
    #[must_use]
    pub const fn created_at(&self) -> Unix {
        self.created_at
    }

    /// The plaintext.
    ///
    /// # Errors
    /// [`DocumentError::Content`].
    pub fn open(&self, key: &ConversationKey) -> Result<String, DocumentError> {
        key.decrypt(&self.content).map_err(DocumentError::Content)
    }

    /// Its place in the order of documents. Where the plaintext names no `published_at`, the
    /// event's own time stands in.
    #[must_use]
    pub fn mark(&self, published_at: Option<Unix>) -> Mark {
        let published_at = published_at.unwrap_or(self.created_at);
        Mark { published_at, created_at: self.created_at, id: self.id }
    }
}

/// Reads an object of schema 1; `required`: the document must say so.
fn read<'a, T: Deserialize<'a>>(text: &'a str, required: bool) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Gate<'a> {
        #[serde(borrow)]
        schema_version: Option<&'a RawValue>,
    }
    let json = |e: serde_json::Error| DocumentError::Json(e.to_string());
    let gate: Gate<'_> = exact::object(text).map_err(json)?;
    match gate.schema_version {
        Some(raw) => {
            let field = "schema_version";
            let version = exact::integer(raw);
            let version = version.map_err(|source| DocumentError::Number { field, source })?;
            if version != SCHEMA_VERSION {
                return Err(DocumentError::SchemaVersion(version));
            }
        }
        None if required => return Err(DocumentError::Json("expected schema_version".into())),
        None => {}
    }
    exact::object(text).map_err(json)
}

#[cfg(test)]
mod tests;
