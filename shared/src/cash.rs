//! What a dispenser says about its notes, bay by bay.
//!
//! Promise: five numbers instead of one flag, because picked, presented, taken, retracted and
//! rejected are five different places for a note. What a device cannot tell is absent, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::BayId;

/// Where the notes of one bay went in one dispense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BayResult {
    /// Notes that the plan asked for.
    pub requested: u32,
    /// Notes that left the cassette, whatever became of them.
    pub picked: Option<u32>,
    /// Notes that reached the customer's exit.
    pub presented: u32,
    /// Notes that the customer took; `None` where the device cannot tell.
    pub taken: Option<u32>,
    /// Notes pulled back from the exit; they are owed.
    pub retracted: Option<u32>,
    /// Notes diverted to the reject bin.
    pub rejected: Option<u32>,
}

/// Notes that a dispenser rejects in a row before it gives up: we set F53 and F56 to bear four.
const REJECTS_BORNE: u32 = 5;

impl BayResult {
    /// Notes that may have left the cassette beyond those told, at most; 0 where the device told how
    /// many it picked. One that did not has stopped on the way: with each note that did not arrive,
    /// twice where two stuck together; with one note more for each reject that it tells, and, where
    /// it does not tell them, with as many as it bears.
    #[must_use]
    pub fn untold(&self) -> u32 {
        if self.picked.is_some() {
            return 0;
        }
        let under_way = self.requested.saturating_sub(self.presented).max(1).saturating_mul(2);
        // a reject that is told may be of two notes that stuck together, too
        under_way.saturating_add(self.rejected.unwrap_or(REJECTS_BORNE))
    }

    /// Whether a device can have meant it: no more notes arrived than were picked, and no more were
    /// pulled back than were presented.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        let arrived = u64::from(self.presented).saturating_add(self.rejected.unwrap_or(0).into());
        self.picked.is_none_or(|picked| arrived <= picked.into())
            && self.retracted.unwrap_or(0) <= self.presented
    }

    /// Notes that the customer has or could have: presented less retracted.
    #[must_use]
    pub fn delivered(&self) -> u32 {
        self.presented.saturating_sub(self.retracted.unwrap_or(0))
    }
}

/// The result of every bay that a plan named.
pub type BayResults = BTreeMap<BayId, BayResult>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: notes in a jammed path that are promised to the next customer.
    #[test]
    fn whoever_does_not_tell_what_was_picked_may_have_picked_more() {
        let told =
            BayResult { requested: 5, picked: Some(4), presented: 4, ..BayResult::default() };
        assert_eq!(told.untold(), 0);
        let jammed = BayResult { picked: None, rejected: Some(1), ..told };
        assert_eq!(jammed.untold(), 3, "the reject may have been two notes");
        let last = BayResult { presented: 5, ..jammed };
        assert_eq!(last.untold(), 3, "a fault after the last note");
        let rejects = BayResult { requested: 10, presented: 10, rejected: Some(5), ..jammed };
        assert_eq!(rejects.untold(), 7);
        assert_eq!(BayResult { presented: 0, rejected: None, ..jammed }.untold(), 15);
        assert_eq!(BayResult { requested: u32::MAX, presented: 0, ..jammed }.untold(), u32::MAX);
    }
}
