//! The printer port: slips of paper.
//!
//! Promise: a slip is printed at most once, and is told as printed only when the printer itself has
//! said that it carried out everything up to the end of it. A slip may hold a claim code: it is in
//! no log and no trace, and what a printer in trouble has not printed is cleared out of it, so that
//! it does not come out for the next customer when somebody puts paper in.
//!
//! Failure policy: no sale waits for a printer. A slip that cannot be printed now is
//! [`PrinterEvent::NotPrinted`] with the reason; it is never tried again by itself.

pub mod escpos;

use std::fmt;

use zeroize::Zeroizing;

pub use crate::acceptor::{DeviceFault, FaultKind};

/// A slip as the printer gets it. Wiped when dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Slip(Zeroizing<Vec<u8>>);

impl Slip {
    /// Takes the bytes of a slip ([`crate::frame::escpos::Writer::cut`]).
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes: never log them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slip({} bytes)", self.0.len())
    }
}

/// What the agent may ask of a printer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrinterCommand {
    /// Print this, once; answered with [`PrinterEvent::Printed`] or [`PrinterEvent::NotPrinted`].
    Print(Slip),
}

/// What a printer tells the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrinterEvent {
    /// It can print.
    Ready {
        /// The roll is nearly used up.
        paper_low: bool,
    },
    /// It cannot print until somebody, or time, has mended this.
    Fault(DeviceFault),
    /// The slip is on paper and cut.
    Printed,
    /// The slip is not, or not whole, on paper.
    NotPrinted {
        /// Why, for a person.
        why: String,
    },
}

/// A printer as the agent holds it; events come through the sink given when it was opened.
pub trait Printer: Send {
    /// Asks for something; the answer comes as an event.
    ///
    /// # Errors
    /// [`PortClosed`](crate::port::PortClosed) when the device's thread has ended.
    fn send(&mut self, command: PrinterCommand) -> Result<(), crate::port::PortClosed>;

    /// The last frames as text, oldest first; what a slip says is not in them.
    fn frames(&self) -> Vec<String> {
        Vec::new()
    }
}
