//! A document as an event: what is known of it, and how it is attested, encrypted and signed.
//!
//! Promise: what it is made of is read in one snapshot, and one that was superseded is made into
//! nothing.
//!
//! Failure policy: [`PublishError`]; nothing is written here.

use bitspire_shared::document::{self, Cassettes, DTag, DocumentError, attest};
use bitspire_shared::ids::{Nonce, PubKey};
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use bitspire_shell::secrets::random;
use nostr::Event;
use zeroize::Zeroizing;

use super::PublishError;
use crate::ids::DocumentId;
use crate::publish::fees;
use crate::signer::RemoteSigner;
use crate::store::documents::{self, DocumentKind, KeptDocument};
use crate::store::machines::KeptMachine;
use crate::store::{Read, machines, operators};

/// How long an operator's statement about a document holds: a year, in seconds.
const ATTEST_S: u64 = 365 * 86_400;

/// What a document needs to be made into an event.
pub(super) struct Job {
    pub(super) document: KeptDocument,
    pub(super) machine: KeptMachine,
    spire: PubKey,
    pub(super) operator: PubKey,
    /// `created_at` of the last event of this kind.
    pub(super) last: Option<Unix>,
}

impl Job {
    pub(super) fn address(&self) -> DTag {
        let kind = match self.document.kind {
            DocumentKind::Fees => document::DocumentKind::Fees,
            DocumentKind::Cassettes => document::DocumentKind::Cassettes,
        };
        DTag { kind, spire: self.spire }
    }

    /// The plaintext, with the operator's statement or without.
    fn plaintext(&self, attest: Option<SignedStatement>) -> Result<String, DocumentError> {
        let document = &self.document;
        match document.fees() {
            // from the columns: a stored JSON fraction has passed through a binary float
            Some(set) => {
                let mut fees = fees::document(set, document.published_at)?;
                fees.attest = attest;
                fees.to_json()
            }
            None => {
                let currency = self.machine.currency;
                let text = document.body.0.to_string();
                let mut cassettes = Cassettes::from_json(&text, currency)?;
                cassettes.attest = attest;
                cassettes.to_json(currency)
            }
        }
    }
}

/// What is known of a document that waits; `None` where it is superseded.
pub(super) fn job(read: &Read<'_>, id: DocumentId) -> Result<Option<Job>, PublishError> {
    let Some(document) = documents::find(read, id)?.filter(|d| d.superseded_at.is_none()) else {
        return Ok(None);
    };
    let Some(machine) = machines::find(read, document.machine_id)? else { return Ok(None) };
    if machine.revoked_at.is_some() {
        return Err(PublishError::Revoked);
    }
    let spire = machine.machine_npub.ok_or(PublishError::Unpaired)?;
    let operator = operators::find(read, machine.operator_id)?.and_then(|operator| operator.pubkey);
    let operator = operator.ok_or(PublishError::NoIdentity)?;
    let last = documents::last_created_at(read, machine.id, document.kind)?;
    Ok(Some(Job { document, machine, spire, operator, last }))
}

/// The attested, encrypted and signed event.
pub(super) async fn make(
    signer: &dyn RemoteSigner,
    job: &Job,
    created_at: Unix,
    now: Unix,
) -> Result<Event, PublishError> {
    let statement = Statement::Document {
        spire: job.spire,
        sha256: attest::digest(&job.plaintext(None)?)?,
        nonce: Nonce::from_bytes(random()?),
        not_after: now.after(ATTEST_S),
    };
    let statement = signer.sign(statement.to_unsigned(&job.operator, now)?).await?;
    let plaintext = job.plaintext(Some(SignedStatement::new(statement)))?;
    let content = signer.encrypt(job.spire, Zeroizing::new(plaintext)).await?;
    let event = job.address().to_unsigned(&job.operator, &job.spire, content, created_at);
    Ok(signer.sign(event).await?)
}
