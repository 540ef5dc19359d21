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

impl BayResult {
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
