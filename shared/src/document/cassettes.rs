//! What the bays hold: the operator's document and the machine's own.
//!
//! Promise: bays are numbered from 1 and stand once; denominations travel in whole major units of
//! the machine's currency and are held in minor ones. Where a document has `changes`, they count
//! and the counts in `positions` do not; without `changes` it is from a writer that knows none.
//! A machine's own document is signed by its vault.
//!
//! Failure policy: a document that does not hold is refused whole with a [`DocumentError`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, Sig};
use crate::document::attest::canonical_without;
use crate::document::changes::{BayCount, Change};
use crate::document::{DocumentError, SCHEMA_VERSION, read};
use crate::exact::UniqueMap;
use crate::ids::{BayId, JournalSeq, PubKey};
use crate::money::{Currency, Denomination, MoneyError};
use crate::statement::SignedStatement;
use crate::time::Unix;

/// What the vault's signature is over, before the canonical JSON without the signature.
const STATE_PREFIX: &str = "bitspire-state:v1:";
/// The field of the vault's signature.
const SIG_FIELD: &str = "vault_sig";

/// What one bay holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Face value of its notes; several bays may have the same.
    pub denomination: Denomination,
    /// Notes in it.
    pub count: u32,
}

/// What the bays hold.
pub type Positions = BTreeMap<BayId, Position>;

/// The operator's document for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cassettes {
    /// What the bays hold, as the operator sees it.
    pub positions: Positions,
    /// When this version was published; absent from writers that do not say.
    pub published_at: Option<Unix>,
    /// Every change that the machine has not acknowledged; absent from writers that know none.
    pub changes: Option<Vec<Change>>,
    /// The operator's statement; see [`attest`](crate::document::attest). Without it a machine takes
    /// no change of a denomination.
    pub attest: Option<SignedStatement>,
}

/// The machine's own document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassettesState {
    /// What the bays hold, as the machine's journal has it.
    pub positions: Positions,
    /// When it was published.
    pub published_at: Option<Unix>,
    /// The journal position of these counts.
    pub base_seq: Option<JournalSeq>,
}

/// `{denomination, count}` with the denomination in major units.
#[derive(Serialize, Deserialize)]
struct WirePosition {
    denomination: u32,
    count: u32,
}

#[derive(Deserialize)]
struct WireCassettes {
    positions: UniqueMap<BayId, WirePosition>,
    published_at: Option<Unix>,
    changes: Option<Vec<Change>>,
    attest: Option<SignedStatement>,
}

#[derive(Deserialize)]
struct WireState {
    positions: UniqueMap<BayId, WirePosition>,
    published_at: Option<Unix>,
    base_seq: Option<JournalSeq>,
}

#[derive(Serialize)]
struct Written<'a> {
    positions: BTreeMap<BayId, WirePosition>,
    schema_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<Unix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<&'a [Change]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_seq: Option<JournalSeq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attest: Option<&'a SignedStatement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_sig: Option<Sig>,
}

impl Written<'_> {
    fn to_json(&self) -> Result<String, DocumentError> {
        serde_json::to_string(self).map_err(|e| DocumentError::Json(e.to_string()))
    }
}

impl Cassettes {
    /// Reads the plaintext for a machine of `currency`.
    ///
    /// # Errors
    /// The [`DocumentError`] that applies.
    pub fn from_json(text: &str, currency: Currency) -> Result<Self, DocumentError> {
        let wire: WireCassettes = read(text, false)?;
        let mut seen = BTreeSet::new();
        for change in wire.changes.iter().flatten() {
            if !seen.insert(change.id) {
                return Err(DocumentError::DuplicateChange(change.id));
            }
        }
        Ok(Self {
            positions: held(wire.positions, currency)?,
            published_at: wire.published_at,
            changes: wire.changes,
            attest: wire.attest,
        })
    }

    /// The plaintext for a machine of `currency`.
    ///
    /// # Errors
    /// [`DocumentError::Denomination`] for a note that is no whole number of major units.
    pub fn to_json(&self, currency: Currency) -> Result<String, DocumentError> {
        Written {
            positions: written(&self.positions, currency)?,
            schema_version: SCHEMA_VERSION,
            published_at: self.published_at,
            changes: self.changes.as_deref(),
            base_seq: None,
            attest: self.attest.as_ref(),
            vault_sig: None,
        }
        .to_json()
    }

    /// The bays whose denomination is not the one that the machine knows, new bays included: taken
    /// only with the operator's attest, or in service mode at the machine.
    #[must_use]
    pub fn redenominates(&self, own: &BTreeMap<BayId, BayCount>) -> Vec<BayId> {
        let known = |bay| own.get(bay).map(|bay| bay.denomination);
        let other = self.positions.iter().filter(|(bay, p)| known(bay) != Some(p.denomination));
        other.map(|(bay, _)| *bay).collect()
    }
}

impl CassettesState {
    /// Reads the plaintext of a machine of `currency`; see [`check_vault`](Self::check_vault).
    ///
    /// # Errors
    /// The [`DocumentError`] that applies.
    pub fn from_json(text: &str, currency: Currency) -> Result<Self, DocumentError> {
        let wire: WireState = read(text, false)?;
        Ok(Self {
            positions: held(wire.positions, currency)?,
            published_at: wire.published_at,
            base_seq: wire.base_seq,
        })
    }

    /// The plaintext of a machine of `currency`, signed with its vault's key.
    ///
    /// # Errors
    /// [`DocumentError::Denomination`] for a note that is no whole number of major units;
    /// [`DocumentError::Canonical`] for an integer beyond 2^53 - 1.
    pub fn to_json(
        &self,
        currency: Currency,
        vault: &nostr::Keys,
    ) -> Result<String, DocumentError> {
        let mut body = Written {
            positions: written(&self.positions, currency)?,
            schema_version: SCHEMA_VERSION,
            published_at: self.published_at,
            changes: None,
            base_seq: self.base_seq,
            attest: None,
            vault_sig: None,
        };
        let signed = signed_text(&body.to_json()?).map_err(DocumentError::Canonical)?;
        body.vault_sig = Some(Sig::over(&signed, vault));
        body.to_json()
    }

    /// Checks that the machine's vault signed this plaintext, unknown fields included.
    ///
    /// # Errors
    /// [`DocumentError::NotSigned`], [`DocumentError::VaultSig`].
    pub fn check_vault(text: &str, vault: &PubKey) -> Result<(), DocumentError> {
        #[derive(Deserialize)]
        struct Signed {
            vault_sig: Option<Sig>,
        }
        let read: Signed = read(text, false)?;
        let sig = read.vault_sig.ok_or(DocumentError::NotSigned)?;
        let signed = signed_text(text).map_err(DocumentError::Canonical)?;
        sig.verify("cassettes-state", &signed, vault).map_err(DocumentError::VaultSig)
    }
}

fn signed_text(text: &str) -> Result<String, CanonicalError> {
    Ok(format!("{STATE_PREFIX}{}", canonical_without(text, SIG_FIELD)?))
}

fn held(
    wire: UniqueMap<BayId, WirePosition>,
    currency: Currency,
) -> Result<Positions, DocumentError> {
    let position = |wire: WirePosition| {
        let denomination = Denomination::from_major(wire.denomination, currency)
            .map_err(DocumentError::Denomination)?;
        Ok(Position { denomination, count: wire.count })
    };
    wire.0.into_iter().map(|(bay, wire)| Ok((bay, position(wire)?))).collect()
}

fn written(
    positions: &Positions,
    currency: Currency,
) -> Result<BTreeMap<BayId, WirePosition>, DocumentError> {
    let wire = |position: &Position| {
        let Position { denomination, count } = *position;
        let denomination = denomination.major(currency).ok_or_else(|| {
            DocumentError::Denomination(MoneyError::Range {
                what: "denomination",
                expected: "whole major units",
                got: format!("{} minor units of {currency}", denomination.minor()),
            })
        })?;
        Ok(WirePosition { denomination, count })
    };
    positions.iter().map(|(bay, position)| Ok((*bay, wire(position)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::document::changes::Action;
    use crate::ids::ChangeId;

    fn usd() -> Currency {
        "USD".parse().unwrap()
    }

    fn bay(number: u8) -> BayId {
        BayId::new(number).unwrap()
    }

    fn position(minor: u32, count: u32) -> Position {
        Position { denomination: Denomination::from_minor(minor).unwrap(), count }
    }

    fn cassettes() -> Cassettes {
        Cassettes {
            positions: [(bay(1), position(2_000, 500)), (bay(2), position(2_000, 0))].into(),
            published_at: Some(Unix(7)),
            changes: Some(vec![Change {
                id: ChangeId::from_bytes([1; 16]),
                bay: bay(1),
                action: Action::Delta(100),
                reason: "refill".into(),
                base_seq: JournalSeq(3),
            }]),
            attest: None,
        }
    }

    fn read(text: &str) -> Result<Cassettes, DocumentError> {
        Cassettes::from_json(text, usd())
    }

    /// Loss prevented: 20 read as 20 cents, or a document that older readers cannot read.
    #[test]
    fn the_wire_form_is_the_agreed_one() {
        let text = cassettes().to_json(usd()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let positions =
            json!({"1": {"denomination": 20, "count": 500}, "2": {"denomination": 20, "count": 0}});
        assert_eq!(value["positions"], positions);
        assert_eq!((&value["schema_version"], &value["published_at"]), (&json!(1), &json!(7)));
        assert_eq!(read(&text), Ok(cassettes()));

        let old = read(r#"{"positions": {"1": {"denomination": 20, "count": 500}}}"#).unwrap();
        assert_eq!((old.changes, old.published_at), (None, None), "no changes is not none to make");
        let yen = Cassettes::from_json(
            r#"{"positions": {"1": {"denomination": 1000, "count": 1}}}"#,
            "JPY".parse().unwrap(),
        );
        assert_eq!(yen.unwrap().positions[&bay(1)].denomination.minor(), 1_000);
    }

    /// Loss prevented: counts of a bay that does not exist, or of one bay twice.
    #[test]
    fn positions_that_cannot_be_are_refused() {
        let json = |positions: &str| read(&format!("{{\"positions\":{positions}}}"));
        for wrong in [
            r#"{"0":{"denomination":20,"count":1}}"#,
            r#"{"01":{"denomination":20,"count":1}}"#,
            r#"{"1":{"denomination":20,"count":1},"1":{"denomination":20,"count":1}}"#,
            r#"{"1":{"denomination":20.5,"count":1}}"#,
            r#"{"1":{"denomination":20,"count":-1}}"#,
            r#"{"1":{"denomination":20,"count":"1"}}"#,
            r#"[]"#,
        ] {
            assert!(matches!(json(wrong), Err(DocumentError::Json(_))), "{wrong}");
        }
        for wrong in [0, u32::MAX] {
            let text = format!("{{\"1\":{{\"denomination\":{wrong},\"count\":1}}}}");
            assert!(matches!(json(&text), Err(DocumentError::Denomination(_))), "{wrong}");
        }
        let cents = Cassettes { positions: [(bay(1), position(50, 1))].into(), ..cassettes() };
        assert!(matches!(cents.to_json(usd()), Err(DocumentError::Denomination(_))));
    }

    /// Loss prevented: one id for two changes, of which one is never applied.
    #[test]
    fn a_change_stands_once_and_another_schema_is_refused() {
        let mut twice = cassettes();
        let changes = twice.changes.as_mut().unwrap();
        changes.push(changes[0].clone());
        let text = twice.to_json(usd()).unwrap();
        let id = ChangeId::from_bytes([1; 16]);
        assert_eq!(read(&text), Err(DocumentError::DuplicateChange(id)));
        let v2 = r#"{"positions":[],"schema_version":2}"#;
        assert_eq!(read(v2), Err(DocumentError::SchemaVersion(2)));
    }

    /// Loss prevented: 20s declared as 50s without the operator's signature.
    #[test]
    fn a_changed_denomination_is_seen() {
        let own = |minor| BayCount {
            denomination: Denomination::from_minor(minor).unwrap(),
            count: 1,
            last_set: JournalSeq(0),
        };
        let known = [(bay(1), own(2_000)), (bay(2), own(5_000))].into();
        assert_eq!(cassettes().redenominates(&known), [bay(2)]);
        assert_eq!(cassettes().redenominates(&[(bay(2), own(2_000))].into()), [bay(1)]);
    }

    fn vault(n: u8) -> (nostr::Keys, PubKey) {
        let keys = nostr::Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
        let key = PubKey::new(keys.public_key()).unwrap();
        (keys, key)
    }

    /// Loss prevented: counts that the network process made up, booked as the machine's.
    #[test]
    fn a_state_is_the_vaults_word() {
        let state = CassettesState {
            positions: cassettes().positions,
            published_at: Some(Unix(7)),
            base_seq: Some(JournalSeq(9)),
        };
        let (keys, key) = vault(2);
        let text = state.to_json(usd(), &keys).unwrap();
        assert_eq!(CassettesState::from_json(&text, usd()), Ok(state));
        assert_eq!(CassettesState::check_vault(&text, &key), Ok(()));
        let other = CassettesState::check_vault(&text, &vault(3).1);
        assert!(matches!(other, Err(DocumentError::VaultSig(_))));
        for changed in [text.replace("500", "501"), text.replacen('{', "{\"x\":1,", 1)] {
            let changed = CassettesState::check_vault(&changed, &key);
            assert!(matches!(changed, Err(DocumentError::VaultSig(_))));
        }
        let bare = r#"{"positions":{}}"#;
        assert_eq!(CassettesState::check_vault(bare, &key), Err(DocumentError::NotSigned));
    }

    proptest! {
        /// Loss prevented: counts that change between the two sides.
        #[test]
        fn what_is_written_is_read_back(
            bays in prop::collection::btree_map(1u8..=255, (1u32..10_000, any::<u32>()), 0..12),
        ) {
            let positions: Positions = bays
                .into_iter()
                .map(|(number, (major, count))| (bay(number), position(major * 100, count)))
                .collect();
            let written = Cassettes { positions, ..cassettes() };
            prop_assert_eq!(read(&written.to_json(usd()).unwrap()), Ok(written));
        }
    }
}
