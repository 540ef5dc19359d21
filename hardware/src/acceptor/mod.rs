//! The acceptor port: notes in.
//!
//! Promise: a note is stacked only with a proof that its intent is durable, and its credit is
//! acknowledged to the device only when the agent says that the credit is durable. A credit that
//! the device repeats is one [`AcceptorEvent::Credit`].
//!
//! Failure policy: what the device cannot explain is a [`DeviceFault`] with the raw code; a note
//! whose fate is unknown after a restart is reported as such, never dropped.

pub(crate) mod bill;
pub mod ccnet;
pub mod ebds;
pub mod id003;

use std::collections::BTreeSet;

use bitspire_shared::money::{Currency, Denomination};

use crate::Authority;

/// A note in escrow: the device waits for stack or return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EscrowedBill {
    /// Counts the escrows of this run of the engine; a stale stack command is thereby visible.
    pub serial: u32,
    /// Its value as the device recognised it.
    pub denomination: Denomination,
    /// Its currency.
    pub currency: Currency,
}

/// What the agent may ask of an acceptor.
pub enum AcceptorCommand<A: Authority> {
    /// Take notes of these denominations only; an empty set closes the inlet.
    Accept(BTreeSet<Denomination>),
    /// Move the note in escrow to the cashbox, for good.
    Stack(A::Committed<EscrowedBill>),
    /// Give the note in escrow back.
    Return,
    /// Keep the note in escrow for another minute; it goes back then, if nothing was decided.
    Hold,
    /// The credit that was reported is durable: the device may forget it.
    AcknowledgeCredit,
    /// Start the device again, to clear a latched condition. Waits for a note that is on its way,
    /// and for its acknowledgement; a silent device gets it at once, and may lose a credit by it
    /// that nobody has seen.
    Reset,
}

/// Where a note was when the device was found: after it lost power, or when its line came up while
/// it was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerUpBill {
    /// No note in the device, as far as it says.
    None,
    /// Before the point of no return: it will be given back.
    InAcceptor,
    /// Past it: it will be stacked, and credited if the device's power recovery works.
    InStacker,
}

/// What an acceptor tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptorEvent {
    /// Who answered, and the notes that it knows.
    Identified {
        /// Model, firmware and version text as the device gives it.
        version: String,
        /// Its currency table, empty slots left out.
        notes: Vec<(Denomination, Currency)>,
    },
    /// It was found with or without a note inside: once for each time that its line comes up or
    /// that it loses power. What becomes of the note follows as `Credit` or `Returned`.
    PoweredUp(PowerUpBill),
    /// The inlet is open, no note is in the device. Told again after each note. A note that was
    /// sent to the cashbox before and has had neither `Credit` nor `Returned` by now will have
    /// none: nobody knows where it is.
    Accepting,
    /// The inlet is closed, the device is well and without a note; otherwise as `Accepting`.
    Closed,
    /// A note is in escrow.
    Escrowed(EscrowedBill),
    /// The note passed the point of no return. Once per note, however often the device repeats it.
    /// To be answered with [`AcceptorCommand::AcknowledgeCredit`] when the credit is durable.
    Credit {
        /// The note that this run saw in escrow, if it did.
        escrowed: Option<EscrowedBill>,
        /// The value that came with the credit itself, if the device says one.
        denomination: Option<Denomination>,
    },
    /// The note lies in the cashbox.
    Stacked,
    /// The note was given back out of escrow.
    Returned,
    /// A note was refused before escrow.
    Rejected {
        /// The device's reason in words, with its raw code.
        reason: String,
    },
    /// The cashbox was taken out (`true`) or put back (`false`).
    CashboxRemoved(bool),
    /// The device needs a hand.
    Fault(DeviceFault),
    /// A fault or a lost link is over.
    Recovered,
}

/// A device that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFault {
    /// What sort of trouble.
    pub kind: FaultKind,
    /// In words, with the raw code in hex.
    pub detail: String,
}

/// What sort of trouble a device is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It does not answer.
    Silent,
    /// The port is gone.
    LinkLost,
    /// A note is stuck.
    Jam,
    /// The cashbox is full or missing, or a cassette is empty or missing.
    Cassette,
    /// Somebody tried to cheat it.
    Cheated,
    /// Anything else, and every code that we do not know: a person must look.
    ServiceNeeded,
}

/// An acceptor as the agent holds it; events come through the sink given when it was opened.
pub trait Acceptor<A: Authority>: Send {
    /// Asks for something; the answer comes as events.
    ///
    /// # Errors
    /// [`PortClosed`](crate::port::PortClosed) when the device's thread has ended.
    fn send(&mut self, command: AcceptorCommand<A>) -> Result<(), crate::port::PortClosed>;

    /// The last frames as text, oldest first, for evidence; none where there is no line.
    fn frames(&self) -> Vec<String> {
        Vec::new()
    }
}
