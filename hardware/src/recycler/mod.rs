//! The recycler port: one device that takes notes in, keeps some of them in boxes, and gives those
//! out again.
//!
//! Promise: what comes in follows the rules of the [acceptor](crate::acceptor) port, what goes out
//! those of the [dispenser](crate::dispenser) port: a note is stacked, paid out or moved to the
//! cashbox only with a proof that its intent is durable. The device's own counts of its boxes are
//! told when it comes up, and whenever they have changed: whoever keeps books holds them against
//! the last record, which is how it learns how many notes a movement that a crash has cut off has
//! taken out of a box. Counts do not tell a note that was given from one that went to the cashbox:
//! who has it stays uncertain, but for what `Followed` says was taken.
//!
//! Failure policy: where counts and customer's hand do not add up, the outcome is
//! [`DispenseOutcome::Unknowable`](crate::dispenser::DispenseOutcome::Unknowable); nothing is paid
//! out again because an answer was lost.

pub mod ccnet_b2b;
pub mod id003_rc;
mod orders;
mod roles;
pub mod smart_payout;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod world;

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use serde::{Deserialize, Serialize};

use crate::Authority;
use crate::acceptor::{AcceptorCommand, AcceptorEvent, DeviceFault, EscrowedBill};
use crate::dispenser::{DispenserCommand, DispenserEvent};
pub use roles::{Half, halves};

/// All notes of a box are to go to the cashbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Emptying {
    /// The box.
    pub bay: BayId,
}

/// What the agent may ask of a recycler.
pub enum RecyclerCommand<A: Authority> {
    /// As of an acceptor. A note that is stacked goes to the box that keeps its kind, if that has
    /// room, and to the cashbox otherwise.
    In(AcceptorCommand<A>),
    /// Move the note in escrow to the cashbox, for good, even where a box could keep it.
    StackAway(A::Committed<EscrowedBill>),
    /// As of a dispenser. `Configure` says which note each box keeps; the inlet is closed for a
    /// moment.
    Out(DispenserCommand<A>),
    /// Move the notes of a box to the cashbox, for good.
    Empty(A::Committed<Emptying>),
}

/// What a recycler tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecyclerEvent {
    /// Of notes that come in.
    In(AcceptorEvent),
    /// Of notes that go out.
    Out(DispenserEvent),
    /// The notes in each box as the device counts them: at the start, and after each change.
    Counts(BTreeMap<BayId, u32>),
    /// A movement has ended, or is out of sight again, that was met running, or that was told as
    /// unknowable; the counts that it led to come after this. Notes that are gone by them, beyond
    /// those taken, are with a customer or in the cashbox: the books must hold them as uncertain.
    Followed {
        /// Notes that the device was heard to say were taken, since it was met: at least so many.
        taken: u32,
        /// It was heard to say that a note came back.
        gave_back: bool,
        /// What was seen to go wrong.
        fault: Option<DeviceFault>,
    },
    /// An emptying has ended.
    Emptied {
        /// The box.
        bay: BayId,
        /// How it ended.
        outcome: EmptyOutcome,
    },
}

/// How an emptying ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmptyOutcome {
    /// So many notes went from the box to the cashbox, by the device's counts.
    Moved {
        /// Notes.
        notes: u32,
        /// What stopped it, if it stopped short.
        fault: Option<DeviceFault>,
    },
    /// Refused before any note could move.
    NotStarted(DeviceFault),
    /// Nobody knows how many notes moved; a person must count.
    Unknowable {
        /// The last thing that the device said, in words and hex.
        last_seen: String,
    },
}

/// What is a fault among what a recycler tells.
const fn is_fault(event: &RecyclerEvent) -> bool {
    match event {
        RecyclerEvent::In(event) => matches!(event, AcceptorEvent::Fault(_)),
        RecyclerEvent::Out(event) => crate::dispenser::state::is_fault(event),
        RecyclerEvent::Emptied { outcome, .. } => {
            !matches!(outcome, EmptyOutcome::Moved { fault: None, .. })
        }
        RecyclerEvent::Followed { fault, .. } => fault.is_some(),
        RecyclerEvent::Counts(_) => false,
    }
}

/// A recycler as the agent holds it; events come through the sink given when it was opened.
pub trait Recycler<A: Authority>: Send {
    /// Asks for something; the answer comes as events.
    ///
    /// # Errors
    /// [`PortClosed`](crate::port::PortClosed) when the device's thread has ended.
    fn send(&mut self, command: RecyclerCommand<A>) -> Result<(), crate::port::PortClosed>;

    /// The last frames as text, oldest first, for evidence; none where there is no line.
    fn frames(&self) -> Vec<String> {
        Vec::new()
    }
}
