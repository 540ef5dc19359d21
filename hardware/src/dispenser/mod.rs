//! The dispenser port: notes out.
//!
//! Promise: a plan is carried out only with a proof that its intent is durable, at most once, and
//! answered bay by bay; there is no boolean success.
//!
//! Failure policy: counts inside an error reply are kept; when the device's final answer is lost,
//! the result is [`DispenseOutcome::Unknowable`] and nothing is sent again.

pub mod f56;
pub mod puloon;
pub(crate) mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use serde::{Deserialize, Serialize};

use crate::Authority;
pub use crate::acceptor::{DeviceFault, FaultKind};

/// Notes to give out, bay by bay; bays with 0 notes are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispensePlan {
    /// Notes per bay.
    pub notes: BTreeMap<BayId, u32>,
}

/// What one dispense command of a device can carry: data for the planner. A plan beyond it is
/// answered with [`DispenseOutcome::NotStarted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispenserLimits {
    /// Notes of one bay.
    pub notes_per_bay: u32,
    /// Bays, numbered from 1.
    pub bays: u8,
}

/// What the agent may ask of a dispenser.
pub enum DispenserCommand<A: Authority> {
    /// Set up the bays: the note that each one holds; starts the mechanism again, which purges the
    /// path to the reject bin.
    Configure(BTreeMap<BayId, Denomination>),
    /// Give out these notes, for good. A recycler whose bays are being set up begins when they are.
    Dispense(A::Committed<DispensePlan>),
    /// Ask for the state again; while the bays are being set up, the end of that is the answer.
    Refresh,
}

/// How a dispense ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispenseOutcome {
    /// The device's own final answer.
    Final {
        /// Where each bay's notes went.
        bays: BayResults,
        /// What stopped it, if it stopped short.
        fault: Option<DeviceFault>,
    },
    /// The command was refused before any note could move: nothing went out.
    NotStarted(DeviceFault),
    /// Nobody knows what went out; a person must count.
    Unknowable {
        /// The last thing that the device said, in words and hex.
        last_seen: String,
    },
}

/// State of one bay as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BayState {
    /// A cassette is there.
    Present,
    /// No cassette.
    Missing,
    /// The device could not pick a note from it.
    Empty,
}

/// What a dispenser tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DispenserEvent {
    /// It is set up and will take a plan.
    Ready {
        /// The bays as it sees them.
        bays: BTreeMap<BayId, BayState>,
        /// Whether notes lie at the exit.
        notes_at_exit: bool,
    },
    /// A plan has ended.
    Dispensed(DispenseOutcome),
    /// The customer took the notes at the exit.
    Taken,
    /// The device needs a hand.
    Fault(DeviceFault),
    /// A fault or a lost link is over; a `Ready` follows when it is set up again.
    Recovered,
}

/// A dispenser as the agent holds it; events come through the sink given when it was opened.
pub trait Dispenser<A: Authority>: Send {
    /// Asks for something; the answer comes as events.
    ///
    /// # Errors
    /// [`PortClosed`](crate::port::PortClosed) when the device's thread has ended.
    fn send(&mut self, command: DispenserCommand<A>) -> Result<(), crate::port::PortClosed>;

    /// The last frames as text, oldest first, for evidence; none where there is no line.
    fn frames(&self) -> Vec<String> {
        Vec::new()
    }
}
