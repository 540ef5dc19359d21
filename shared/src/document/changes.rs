//! Changes of what the bays hold, as an operator writes them.
//!
//! Promise: a document carries every change that the machine has not acknowledged; the machine
//! decides each one once, in order, on its own counts. So a refill and a dispense that cross on the
//! wire both survive, and so does a machine that was offline for two refills. Applying is pure: the
//! caller writes the decisions down before it acts on the new counts.
//!
//! Failure policy: a change that cannot hold is refused for ever under its id, with a [`Refusal`]
//! that is shown to the operator; the others are not affected by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::ids::{BayId, ChangeId, JournalSeq};
use crate::money::Denomination;

/// The longest reason in bytes.
const MAX_REASON: usize = 200;

/// One change of one bay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Change {
    /// Decided once.
    pub id: ChangeId,
    /// Which bay.
    pub bay: BayId,
    /// What changes.
    pub action: Action,
    /// Why, for people; at most 200 bytes.
    pub reason: String,
    /// The machine's journal position that the operator had seen.
    pub base_seq: JournalSeq,
}

/// What changes in a bay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// So many notes more, or fewer.
    Delta(i32),
    /// So many notes from now on: it was counted.
    Set(u32),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    change_id: ChangeId,
    bay: BayId,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<u32>,
    reason: String,
    base_seq: JournalSeq,
}

impl TryFrom<Wire> for Change {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let action = match (wire.delta, wire.set) {
            (Some(delta), None) => Action::Delta(delta),
            (None, Some(set)) => Action::Set(set),
            _ => return Err("change: expected either delta or set".into()),
        };
        if wire.reason.len() > MAX_REASON {
            let got = wire.reason.len();
            return Err(format!("change: expected a reason of {MAX_REASON} bytes, got {got}"));
        }
        let Wire { change_id: id, bay, reason, base_seq, .. } = wire;
        Ok(Self { id, bay, action, reason, base_seq })
    }
}

impl From<Change> for Wire {
    fn from(change: Change) -> Self {
        let (delta, set) = match change.action {
            Action::Delta(delta) => (Some(delta), None),
            Action::Set(set) => (None, Some(set)),
        };
        let Change { id: change_id, bay, reason, base_seq, .. } = change;
        Self { change_id, bay, delta, set, reason, base_seq }
    }
}

/// What the machine's own journal says about one bay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BayCount {
    /// Face value of its notes.
    pub denomination: Denomination,
    /// Notes in it.
    pub count: u32,
    /// Since when its count is known: the `base_seq` of the last `set` that was applied, or the
    /// journal position of a later count at the machine itself.
    pub last_set: JournalSeq,
}

/// Why a change has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The machine has no such bay.
    #[error("the machine has no bay {0}")]
    UnknownBay(BayId),
    /// The operator had not seen the last count of that bay.
    #[error("bay {bay}: expected a change made after position {last_set}, got one made at {base_seq}",
        last_set = .last_set.0, base_seq = .base_seq.0)]
    OldBase {
        /// The bay.
        bay: BayId,
        /// The last count.
        last_set: JournalSeq,
        /// What the operator had seen.
        base_seq: JournalSeq,
    },
    /// Fewer than no notes, or more than can be counted.
    #[error("bay {bay}: cannot change {count} notes by {delta}")]
    Count {
        /// The bay.
        bay: BayId,
        /// Notes in it.
        count: u32,
        /// The change.
        delta: i32,
    },
}

impl Classified for Refusal {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// The decision about one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Which change; never to be decided again.
    pub id: ChangeId,
    /// Its bay.
    pub bay: BayId,
    /// The bay's new count, or why there is none.
    pub result: Result<u32, Refusal>,
}

/// What applying changes comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The counts after all of them.
    pub counts: BTreeMap<BayId, BayCount>,
    /// The changes that were decided now, in order.
    pub decided: Vec<Decided>,
}

/// Applies the `changes` whose ids are not in `before`, in order, to the machine's own counts.
#[must_use]
pub fn apply(
    own: &BTreeMap<BayId, BayCount>,
    before: &BTreeSet<ChangeId>,
    changes: &[Change],
) -> Applied {
    let mut counts = own.clone();
    let mut seen = before.clone();
    let mut decided = Vec::new();
    for change in changes {
        if !seen.insert(change.id) {
            continue;
        }
        let result = match counts.get_mut(&change.bay) {
            Some(bay) => apply_one(bay, change),
            None => Err(Refusal::UnknownBay(change.bay)),
        };
        decided.push(Decided { id: change.id, bay: change.bay, result });
    }
    Applied { counts, decided }
}

fn apply_one(bay: &mut BayCount, change: &Change) -> Result<u32, Refusal> {
    let Change { bay: id, base_seq, .. } = *change;
    if base_seq < bay.last_set {
        return Err(Refusal::OldBase { bay: id, last_set: bay.last_set, base_seq });
    }
    match change.action {
        Action::Set(count) => {
            bay.count = count;
            bay.last_set = base_seq;
        }
        Action::Delta(delta) => {
            let count = bay.count.checked_add_signed(delta);
            bay.count = count.ok_or(Refusal::Count { bay: id, count: bay.count, delta })?;
        }
    }
    Ok(bay.count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bay(number: u8) -> BayId {
        BayId::new(number).unwrap()
    }

    fn change(id: u8, number: u8, action: Action, base: u64) -> Change {
        Change {
            id: ChangeId::from_bytes([id; 16]),
            bay: bay(number),
            action,
            reason: "refill".into(),
            base_seq: JournalSeq(base),
        }
    }

    fn own(count: u32, last_set: u64) -> BTreeMap<BayId, BayCount> {
        let denomination = Denomination::from_minor(2_000).unwrap();
        let held = BayCount { denomination, count, last_set: JournalSeq(last_set) };
        BTreeMap::from([(bay(1), held), (bay(2), held)])
    }

    fn results(own: &BTreeMap<BayId, BayCount>, changes: &[Change]) -> Vec<Result<u32, Refusal>> {
        let applied = apply(own, &BTreeSet::new(), changes);
        applied.decided.into_iter().map(|decided| decided.result).collect()
    }

    /// Loss prevented: a change that the other side reads as another one.
    #[test]
    fn the_wire_form_is_the_agreed_one() {
        let delta = json!({"change_id": "01".repeat(16), "bay": "2", "delta": -5,
            "reason": "refill", "base_seq": 7});
        let read: Change = serde_json::from_value(delta.clone()).unwrap();
        assert_eq!(read, change(1, 2, Action::Delta(-5), 7));
        assert_eq!(serde_json::to_value(&read).unwrap(), delta);
        let mut both = delta.clone();
        both["set"] = 5.into();
        let mut neither = delta.clone();
        neither.as_object_mut().unwrap().remove("delta");
        let mut float = delta.clone();
        float["delta"] = json!(5.0);
        let mut long = delta;
        long["reason"] = "x".repeat(201).into();
        for wrong in [both, neither, float, long] {
            assert!(serde_json::from_value::<Change>(wrong).is_err());
        }
    }

    /// Loss prevented: two refills while the machine was offline, of which one is lost.
    #[test]
    fn changes_apply_in_order() {
        let changes = [
            change(1, 1, Action::Set(100), 40),
            change(2, 1, Action::Delta(50), 40),
            change(3, 2, Action::Delta(-10), 40),
        ];
        assert_eq!(results(&own(10, 0), &changes), [Ok(100), Ok(150), Ok(0)]);
    }

    /// Loss prevented: a count at the machine undone by a change made before it.
    #[test]
    fn a_base_older_than_the_last_count_is_refused() {
        let old =
            Refusal::OldBase { bay: bay(1), last_set: JournalSeq(50), base_seq: JournalSeq(49) };
        let changes = [
            change(1, 1, Action::Delta(5), 49),
            change(2, 1, Action::Set(5), 49),
            change(3, 1, Action::Delta(5), 50),
        ];
        assert_eq!(results(&own(10, 50), &changes), [Err(old), Err(old), Ok(15)]);
        // a count that the operator sent is such a count, for what was made before it
        let changes = [change(1, 1, Action::Set(7), 50), change(2, 1, Action::Delta(5), 49)];
        assert_eq!(results(&own(10, 0), &changes), [Ok(7), Err(old)]);
    }

    /// Loss prevented: notes on paper that no bay can hold.
    #[test]
    fn impossible_changes_are_refused_and_harm_no_other() {
        let changes = [
            change(1, 1, Action::Delta(-11), 1),
            change(2, 9, Action::Set(5), 1),
            change(3, 1, Action::Set(u32::MAX), 1),
            change(4, 1, Action::Delta(1), 1),
            change(5, 2, Action::Delta(1), 1),
        ];
        let expected = [
            Err(Refusal::Count { bay: bay(1), count: 10, delta: -11 }),
            Err(Refusal::UnknownBay(bay(9))),
            Ok(u32::MAX),
            Err(Refusal::Count { bay: bay(1), count: u32::MAX, delta: 1 }),
            Ok(11),
        ];
        assert_eq!(results(&own(10, 0), &changes), expected);
    }

    prop_compose! {
        fn any_changes()(parts in prop::collection::vec(
            (any::<u8>(), 1u8..4, any::<bool>(), 0i32..60, 0u64..60), 0..20,
        )) -> Vec<Change> {
            parts.into_iter().map(|(id, bay, set, n, base)| {
                let action = if set {
                    Action::Set(n.unsigned_abs())
                } else {
                    Action::Delta(n - 30)
                };
                change(id, bay, action, base)
            }).collect()
        }
    }

    proptest! {
        /// Loss prevented: a refill counted twice because its document came twice, or in part
        /// first and whole later.
        #[test]
        fn each_change_is_decided_once_however_it_arrives(
            changes in any_changes(), cut in any::<prop::sample::Index>(), count in 0u32..100,
        ) {
            let own = own(count, 0);
            let whole = apply(&own, &BTreeSet::new(), &changes);
            let first = apply(&own, &BTreeSet::new(), &changes[..cut.index(changes.len() + 1)]);
            let ids = first.decided.iter().map(|decided| decided.id).collect();
            let second = apply(&first.counts, &ids, &changes);
            prop_assert_eq!(&second.counts, &whole.counts);
            let both: Vec<_> = first.decided.into_iter().chain(second.decided).collect();
            prop_assert_eq!(&both, &whole.decided);
            let all: BTreeSet<_> = both.iter().map(|decided| decided.id).collect();
            prop_assert_eq!(all.len(), both.len());
            let again = apply(&whole.counts, &all, &changes);
            prop_assert_eq!(again, Applied { counts: whole.counts, decided: vec![] });
        }

        /// Loss prevented: a dispense that happens while a refill is on the wire.
        #[test]
        fn a_refill_and_a_dispense_that_cross_both_count(
            count in 50u32..100, refill in 0i32..500, presented in 0u32..50,
        ) {
            let changes = [change(1, 1, Action::Delta(refill), 3)];
            let dispense = |mut counts: BTreeMap<BayId, BayCount>| {
                counts.get_mut(&bay(1)).unwrap().count -= presented;
                counts
            };
            let before = BTreeSet::new();
            let refill_first = dispense(apply(&own(count, 2), &before, &changes).counts);
            let dispense_first = apply(&dispense(own(count, 2)), &before, &changes).counts;
            prop_assert_eq!(refill_first, dispense_first);
        }
    }
}
