//! What outlives a run beside the transactions, as settings of the journal.

use std::collections::BTreeMap;

use bitspire_shared::document::watermark::Mark;
use bitspire_shared::ids::{BayId, ChangeId, EventId, JournalSeq, PubKey};
use bitspire_shared::seed::Pins;
use bitspire_shared::time::Unix;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::VaultError;
use crate::journal::Journal;

/// A setting with its name.
pub(super) trait Setting: Serialize + DeserializeOwned {
    const KEY: &'static str;
}

/// Reads the last value, if one was written and not let go of.
pub(super) fn load<T: Setting>(journal: &Journal) -> Result<Option<T>, VaultError> {
    let kept = journal.setting(T::KEY)?.filter(|value| !value.is_null());
    let Some(value) = kept else { return Ok(None) };
    let read = serde_json::from_value(value);
    read.map(Some).map_err(|source| VaultError::Setting { key: T::KEY, source })
}

/// Whom the machine is paired with. Written once; a `rekey` of the operator or a new seed of the same
/// operator writes it again, and somebody with the PIN lets go of it at the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pairing {
    pub(super) pins: Pins,
    pub(super) client: PubKey,
    /// Whether the service has answered what it answers confirmed machines only.
    pub(super) confirmed: bool,
    /// Whether the cassettes-state was published.
    pub(super) state_published: bool,
    /// Whether one that it followed on was confirmed: the PIN is changed by whoever knows it.
    #[serde(default)]
    pub(super) settled: bool,
}

impl Pairing {
    /// Whether it, or one that it followed on, was confirmed.
    pub(super) const fn was_confirmed(&self) -> bool {
        self.confirmed || self.settled
    }
}

impl Setting for Pairing {
    const KEY: &'static str = "pairing";
}

/// A document in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InForce {
    /// The machine that it was for: another pairing begins from nothing.
    pub(super) spire: PubKey,
    published_at: Unix,
    created_at: Unix,
    event_id: EventId,
    /// When it was applied, by trusted time; not kept before this was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) applied_at: Option<Unix>,
    pub(super) plaintext: String,
}

impl InForce {
    pub(super) fn new(spire: PubKey, mark: Mark, plaintext: &str, now: Unix) -> Self {
        Self {
            applied_at: Some(now),
            spire,
            published_at: mark.published_at,
            created_at: mark.created_at,
            event_id: mark.id,
            plaintext: plaintext.to_owned(),
        }
    }

    pub(super) const fn mark(&self) -> Mark {
        let Self { published_at, created_at, event_id, .. } = self;
        Mark { published_at: *published_at, created_at: *created_at, id: *event_id }
    }
}

/// The fee document in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct FeesInForce(pub(super) InForce);

impl Setting for FeesInForce {
    const KEY: &'static str = "document:fees";
}

/// The cassette document in force, and what came of its changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CassettesInForce {
    pub(super) document: InForce,
    /// Changes that it names and that were refused, for ever.
    pub(super) refused: BTreeMap<ChangeId, String>,
}

impl Setting for CassettesInForce {
    const KEY: &'static str = "document:cassettes";
}

/// The last count of each bay by a document: what the operator had seen, and the entry that it
/// became.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LastSets(pub(super) BTreeMap<BayId, LastSet>);

impl Setting for LastSets {
    const KEY: &'static str = "last_sets";
}

/// See [`LastSets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastSet {
    pub(super) base: JournalSeq,
    pub(super) entry: JournalSeq,
}

impl Setting for crate::policy::breaker::Kept {
    const KEY: &'static str = "breaker";
}

impl Setting for crate::policy::price::Rates {
    const KEY: &'static str = "rates";
}
