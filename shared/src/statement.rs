//! Statements: what one side must show to a process that did not see the encrypted traffic.
//!
//! Promise: a statement is a signed Nostr event (kind 30078, `d` = `bitspire-statement:<type>`)
//! whose content is canonical JSON with its type, the parties' keys, a nonce and `not_after`. It is
//! never published alone; the receiver checks it against a pinned key and uses it once.
//!
//! Failure policy: each way in which it does not hold is a [`StatementError`]; a statement that
//! does not hold has no effect at all.

use nostr::{Event, EventBuilder, JsonUtil, Kind as EventKind, Tag, Timestamp, UnsignedEvent};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{CanonicalError, to_canonical};
use crate::error::{Classified, Kind};
use crate::ids::{Digest, JournalSeq, Nonce, PubKey, TxnId};
use crate::time::Unix;

/// Kind of a statement's event (NIP-78).
const STATEMENT_KIND: u16 = 30078;

/// Why a statement has no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StatementError {
    /// Not an event of kind 30078 with one `d` tag for its type.
    #[error("statement: expected kind 30078 with d = bitspire-statement:{expected}, got {got}")]
    Shape {
        /// The type that the content names.
        expected: &'static str,
        /// What the event has.
        got: String,
    },
    /// By another key than the pinned one.
    #[error("statement: expected the author {expected}, got {got}")]
    Author {
        /// The pinned key.
        expected: PubKey,
        /// The event's author.
        got: String,
    },
    /// Id or signature do not hold.
    #[error("statement: id or signature does not hold")]
    BadSignature,
    /// The content is no statement, or not in canonical form.
    #[error("statement: content is not a canonical statement: {0}")]
    Content(String),
    /// Past its time.
    #[error("statement: valid until {not_after}, now is {now}", not_after = .not_after.0, now = .now.0)]
    Expired {
        /// The end of its validity.
        not_after: Unix,
        /// The trusted time of the check.
        now: Unix,
    },
}

impl Classified for StatementError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// What an operator decides about a transaction or a machine that cannot decide itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The rest is owed to the customer; no more notes move.
    Owed,
    /// Everything was delivered; nothing is owed.
    Settled,
    /// The rest is dispensed now, in front of the customer.
    DispenseRest,
    /// The breaker closes again.
    CloseBreaker,
    /// A transaction that waits goes on.
    Resume,
}

/// The content of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Statement {
    /// The operator vouches for a configuration document.
    Document {
        /// The machine that it is for.
        spire: PubKey,
        /// SHA-256 of the document's canonical JSON without its `attest`.
        sha256: Digest,
        /// Single use.
        nonce: Nonce,
        /// End of validity.
        not_after: Unix,
    },
    /// The operator's decision.
    Verdict {
        /// The machine that it is for.
        spire: PubKey,
        /// Its vault.
        vault: PubKey,
        /// The transaction, where the decision is about one.
        txid: Option<TxnId>,
        /// The journal position that the operator had seen when deciding.
        journal_seq: JournalSeq,
        /// The decision.
        verdict: VerdictKind,
        /// The amount that it is about, in minor units of the machine's currency.
        amount_minor: i64,
        /// Single use.
        nonce: Nonce,
        /// End of validity.
        not_after: Unix,
    },
    /// The spire names the vault that speaks for the machine.
    Vault {
        /// The machine, which is also the author.
        spire: PubKey,
        /// Its vault.
        vault: PubKey,
        /// Single use.
        nonce: Nonce,
        /// End of validity.
        not_after: Unix,
    },
    /// The operator moves a machine's pins to other keys.
    Rekey {
        /// The machine that it is for.
        spire: PubKey,
        /// Its vault.
        vault: PubKey,
        /// The operator key from now on.
        operator: PubKey,
        /// The service key from now on.
        service: PubKey,
        /// Single use.
        nonce: Nonce,
        /// End of validity.
        not_after: Unix,
    },
}

impl Statement {
    /// The type's wire name.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Document { .. } => "document",
            Self::Verdict { .. } => "verdict",
            Self::Vault { .. } => "vault",
            Self::Rekey { .. } => "rekey",
        }
    }

    /// What makes it single use.
    #[must_use]
    pub const fn nonce(&self) -> Nonce {
        match self {
            Self::Document { nonce, .. }
            | Self::Verdict { nonce, .. }
            | Self::Vault { nonce, .. }
            | Self::Rekey { nonce, .. } => *nonce,
        }
    }

    /// End of validity.
    #[must_use]
    pub const fn not_after(&self) -> Unix {
        match self {
            Self::Document { not_after, .. }
            | Self::Verdict { not_after, .. }
            | Self::Vault { not_after, .. }
            | Self::Rekey { not_after, .. } => *not_after,
        }
    }

    /// The machine that it is for.
    #[must_use]
    pub const fn spire(&self) -> PubKey {
        match self {
            Self::Document { spire, .. }
            | Self::Verdict { spire, .. }
            | Self::Vault { spire, .. }
            | Self::Rekey { spire, .. } => *spire,
        }
    }

    /// The event to be signed, by local keys or by a bunker.
    ///
    /// # Errors
    /// [`CanonicalError`] where an integer is beyond 2^53 - 1.
    pub fn to_unsigned(
        &self,
        author: &PubKey,
        created_at: Unix,
    ) -> Result<UnsignedEvent, CanonicalError> {
        let d = Tag::identifier(d_tag(self.type_name()));
        Ok(EventBuilder::new(EventKind::from(STATEMENT_KIND), to_canonical(self)?)
            .tag(d)
            .custom_created_at(Timestamp::from(created_at.0))
            .build(author.nostr()))
    }
}

fn d_tag(type_name: &str) -> String {
    format!("bitspire-statement:{type_name}")
}

/// A statement with its signature, as it travels: a JSON object, the Nostr event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedStatement(Event);

impl SignedStatement {
    /// Takes a signed event; nothing is checked before [`check`](Self::check).
    #[must_use]
    pub const fn new(event: Event) -> Self {
        Self(event)
    }

    /// The event, unchecked.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.0
    }

    /// The event's JSON, for a store.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.0.as_json()
    }

    /// The statement, if it holds: by `author`, signature good, shape and content canonical, not
    /// past `not_after`. Whether its nonce was seen before is the caller's to know.
    ///
    /// # Errors
    /// The first [`StatementError`] in that order.
    pub fn check(&self, author: &PubKey, now: Unix) -> Result<Statement, StatementError> {
        let event = &self.0;
        if event.pubkey != author.nostr() {
            let got = event.pubkey.to_hex();
            return Err(StatementError::Author { expected: *author, got });
        }
        event.verify().map_err(|_| StatementError::BadSignature)?;
        let statement: Statement = serde_json::from_str(&event.content)
            .map_err(|e| StatementError::Content(e.to_string()))?;
        let canonical =
            to_canonical(&statement).map_err(|e| StatementError::Content(e.to_string()))?;
        if canonical != event.content {
            return Err(StatementError::Content("fields beyond the known ones".into()));
        }
        let expected = statement.type_name();
        let mut tags = event.tags.iter().filter(|tag| tag.kind() == nostr::TagKind::d());
        let d = tags.next().and_then(Tag::content);
        let kind = event.kind.as_u16();
        if kind != STATEMENT_KIND || d != Some(&d_tag(expected)) || tags.next().is_some() {
            let got = format!("kind {kind} with d = {}", d.unwrap_or("none"));
            return Err(StatementError::Shape { expected, got });
        }
        let not_after = statement.not_after();
        if now > not_after {
            return Err(StatementError::Expired { not_after, now });
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_keys::keys;

    fn owed() -> Statement {
        Statement::Verdict {
            spire: keys(1).1,
            vault: keys(2).1,
            txid: Some(TxnId::from_bytes([7; 16])),
            journal_seq: JournalSeq(42),
            verdict: VerdictKind::Owed,
            amount_minor: 2_000,
            nonce: Nonce::from_bytes([9; 16]),
            not_after: Unix(2_000),
        }
    }

    fn signed(statement: &Statement, author: u8) -> SignedStatement {
        let (keys, key) = keys(author);
        let event = statement.to_unsigned(&key, Unix(1_000)).unwrap();
        SignedStatement::new(event.sign_with_keys(&keys).unwrap())
    }

    /// Loss prevented: a verdict by anybody but the operator would pay a customer twice.
    #[test]
    fn holds_for_its_author_and_its_time_only() {
        let statement = signed(&owed(), 3);
        let operator = keys(3).1;
        assert_eq!(statement.check(&operator, Unix(2_000)), Ok(owed()));
        assert!(matches!(
            statement.check(&keys(4).1, Unix(1_500)),
            Err(StatementError::Author { .. })
        ));
        assert!(matches!(
            statement.check(&operator, Unix(2_001)),
            Err(StatementError::Expired { .. })
        ));
        let wire = serde_json::to_string(&statement).unwrap();
        let back: SignedStatement = serde_json::from_str(&wire).unwrap();
        assert_eq!(back.check(&operator, Unix(1_500)), Ok(owed()));
    }

    /// Loss prevented: content changed on the way (an amount, a machine) with the old signature.
    #[test]
    fn a_changed_content_or_another_shape_is_refused() {
        let (operator_keys, operator) = keys(3);
        let mut event: serde_json::Value =
            serde_json::from_str(&signed(&owed(), 3).to_json()).unwrap();
        let content = event["content"].as_str().unwrap().replace("2000", "9000");
        event["content"] = content.into();
        let forged: SignedStatement = serde_json::from_value(event).unwrap();
        assert_eq!(forged.check(&operator, Unix(1_500)), Err(StatementError::BadSignature));

        let wrong_tag =
            EventBuilder::new(EventKind::from(STATEMENT_KIND), to_canonical(&owed()).unwrap())
                .tag(Tag::identifier("bitspire-statement:document"))
                .sign_with_keys(&operator_keys)
                .unwrap();
        assert!(matches!(
            SignedStatement::new(wrong_tag).check(&operator, Unix(1_500)),
            Err(StatementError::Shape { expected: "verdict", .. })
        ));
    }
}
