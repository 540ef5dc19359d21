//! The machine's statement that names its vault, without what can be made again.
//!
//! Promise: of the signed event only times, nonce and signature are kept; author, tags and content
//! follow from the keys on the receipt, and so the event's id does too. It holds for the pair of
//! keys that it was signed for, and no other.
//!
//! It says that the machine's own key (NIP-01; held by a bunker) named this vault at that time. Its
//! `not_after` ends its use for opening sessions, not what it says about the past.
//!
//! Failure policy: a statement of another form than ours is not taken; a changed one does not check.

use nostr::{Event, Timestamp};
use serde::{Deserialize, Serialize};

use super::ReceiptError;
use crate::canonical::Sig;
use crate::ids::{Nonce, PubKey};
use crate::statement::{SignedStatement, Statement, StatementError};
use crate::time::Unix;

/// A statement that names a vault, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultNaming {
    /// When the machine signed it.
    pub created_at: Unix,
    /// Until when it could open a session.
    pub not_after: Unix,
    /// What made it single use there.
    pub nonce: Nonce,
    /// The machine's signature over the event.
    pub sig: Sig,
}

impl VaultNaming {
    /// The short form of a statement by `spire` that names `vault`.
    ///
    /// # Errors
    /// [`ReceiptError`] where it does not hold, or has more to it than can be made again.
    pub fn of(
        statement: &SignedStatement,
        spire: &PubKey,
        vault: &PubKey,
    ) -> Result<Self, ReceiptError> {
        let event = statement.event();
        let created_at = Unix(event.created_at.as_secs());
        let said = statement.check(spire, created_at)?;
        let naming = Self {
            created_at,
            not_after: said.not_after(),
            nonce: said.nonce(),
            sig: Sig::from_bytes(event.sig.as_ref())?,
        };
        if naming.event(spire, vault)?.id != event.id {
            let words = "the statement does not name this vault, or has further tags";
            return Err(ReceiptError::Form(words.to_owned()));
        }
        Ok(naming)
    }

    /// Checks that `spire` named `vault`.
    ///
    /// # Errors
    /// [`ReceiptError::Naming`].
    pub fn check(&self, spire: &PubKey, vault: &PubKey) -> Result<(), ReceiptError> {
        let statement = SignedStatement::new(self.event(spire, vault)?);
        statement.check(spire, self.created_at)?;
        Ok(())
    }

    /// The event as it was signed.
    fn event(&self, spire: &PubKey, vault: &PubKey) -> Result<Event, ReceiptError> {
        let Self { created_at, not_after, nonce, sig } = *self;
        let said = Statement::Vault { spire: *spire, vault: *vault, nonce, not_after };
        let mut unsigned = said.to_unsigned(spire, created_at).map_err(|_| {
            let content = "a time beyond 2^53 - 1".to_owned();
            ReceiptError::Naming(StatementError::Content(content))
        })?;
        let id = unsigned.id();
        let at = Timestamp::from(created_at.0);
        let (kind, tags, content) = (unsigned.kind, unsigned.tags, unsigned.content);
        Ok(Event::new(id, spire.nostr(), at, kind, tags, content, sig.to_nostr()))
    }
}
