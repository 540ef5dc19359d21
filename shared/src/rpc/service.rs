//! What people did at a machine in service mode, as its vault tells it.
//!
//! Promise: each event has an id of its own and says what the machine's own books expected at that
//! place of its journal, so that it can be booked exactly whatever was sold before or after it. It
//! stays in the heartbeats until one that carried it was answered, so it may come several times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cash::BayResult;
use crate::ids::{BayId, ChangeId, JournalSeq};
use crate::money::Denomination;
use crate::rpc::body::DispenseOutcome;
use crate::time::Unix;

/// Most events in one report, and so most that a machine does before it has told them.
pub const MAX_SERVICE_EVENTS: usize = 24;
/// Most values of notes, or bays, in one event.
const MAX_PLACES: usize = 32;
/// Most notes of one value, or of one change: more than any machine holds.
const MAX_NOTES: i64 = 1_000_000;
/// Most bytes of a reason.
pub const MAX_REASON: usize = 200;

/// Notes of one value in a box: by the machine's books, and by hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pile {
    /// Notes by the books; below 0 where more came out than they knew of.
    pub expected: i64,
    /// Notes by hand.
    pub counted: u32,
}

/// A box that was emptied, by the notes' value.
pub type Piles = BTreeMap<Denomination, Pile>;

/// What became of a bay's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BayChange {
    /// So many notes were put in; below 0: taken out.
    Delta(i32),
    /// So many notes are there: they were counted.
    Set(u32),
}

/// Where the one note of a bay went in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tested {
    /// The note's value in minor units.
    pub denomination_minor: Denomination,
    /// Where it went.
    pub result: BayResult,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAction {
    /// Notes were put into a bay or taken out, or it was counted.
    BayChanged {
        /// The bay.
        bay: BayId,
        /// Its notes' value in minor units.
        denomination_minor: Denomination,
        /// The change.
        change: BayChange,
        /// Notes by the machine's books just before; `None` where a dispense of unknown end had
        /// taken from the bay since its last count, so that the books could not tell.
        expected: Option<i64>,
        /// Why, in the words of whoever did it.
        reason: String,
    },
    /// The cashbox was emptied and counted.
    CashboxEmptied {
        /// Its notes.
        notes: Piles,
        /// Why a difference, in the words of whoever did it.
        reason: String,
    },
    /// The reject bin was emptied and counted.
    RejectBinEmptied {
        /// Its notes.
        notes: Piles,
        /// Why a difference, in the words of whoever did it.
        reason: String,
    },
    /// One note of each bay was given to whoever stood at the machine.
    TestDispense {
        /// How it ended; uncertain: the bays must be counted.
        outcome: DispenseOutcome,
        /// Where the notes went.
        bays: BTreeMap<BayId, Tested>,
    },
}

impl ServiceAction {
    /// The reason that was given, where the action has one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::BayChanged { reason, .. }
            | Self::CashboxEmptied { reason, .. }
            | Self::RejectBinEmptied { reason, .. } => Some(reason).filter(|r| !r.is_empty()),
            Self::TestDispense { .. } => None,
        }
        .map(String::as_str)
    }
}

/// One thing that somebody did at the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// Makes it booked once.
    pub id: ChangeId,
    /// Its place in the machine's journal.
    pub journal_seq: JournalSeq,
    /// When, by the vault's trusted time.
    pub at: Unix,
    /// What.
    pub action: ServiceAction,
}

impl ServiceEvent {
    /// Whether a report can carry it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn validate(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("service event {}: {what}", self.id));
        if self.action.reason().is_some_and(|reason| reason.len() > MAX_REASON) {
            return wrong("expected a shorter reason");
        }
        let (places, within) = match &self.action {
            ServiceAction::BayChanged { change, expected, .. } => {
                let change = match change {
                    BayChange::Delta(delta) => i64::from(*delta),
                    BayChange::Set(count) => i64::from(*count),
                };
                (1, fits(change) && expected.is_none_or(fits))
            }
            ServiceAction::CashboxEmptied { notes, .. }
            | ServiceAction::RejectBinEmptied { notes, .. } => (
                notes.len(),
                notes.values().all(|pile| fits(pile.expected) && fits(pile.counted.into())),
            ),
            ServiceAction::TestDispense { bays, .. } => (
                bays.len(),
                bays.values().all(|Tested { result, .. }| {
                    let counts = [result.requested, result.presented, result.picked.unwrap_or(0)];
                    result.adds_up() && counts.into_iter().all(|count| fits(count.into()))
                }),
            ),
        };
        if places > MAX_PLACES {
            return wrong("expected fewer values or bays");
        }
        if !within {
            return wrong("expected notes that a machine can hold and that add up");
        }
        Ok(())
    }
}

fn fits(notes: i64) -> bool {
    notes.unsigned_abs() <= MAX_NOTES.unsigned_abs()
}
