//! One recycler as the two devices that its agent drives: an acceptor and a dispenser.
//!
//! Promise: both halves speak to the same device; what one is told comes to it in the order in which
//! it was said to either.
//!
//! Failure policy: a half that panics while it speaks leaves the other one working.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Recycler, RecyclerCommand};
use crate::Authority;
use crate::acceptor::{Acceptor, AcceptorCommand};
use crate::dispenser::{Dispenser, DispenserCommand};
use crate::port::PortClosed;

/// A half of a recycler. What it says comes through the recycler's own sink.
pub struct Half<A: Authority>(Arc<Mutex<Box<dyn Recycler<A>>>>);

/// The inlet and the outlet of a recycler.
#[must_use]
pub fn halves<A: Authority>(device: Box<dyn Recycler<A>>) -> (Half<A>, Half<A>) {
    let device = Arc::new(Mutex::new(device));
    (Half(Arc::clone(&device)), Half(device))
}

impl<A: Authority> Half<A> {
    fn say(&self, command: RecyclerCommand<A>) -> Result<(), PortClosed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).send(command)
    }

    fn said(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).frames()
    }
}

impl<A: Authority> Acceptor<A> for Half<A> {
    fn send(&mut self, command: AcceptorCommand<A>) -> Result<(), PortClosed> {
        self.say(RecyclerCommand::In(command))
    }

    fn frames(&self) -> Vec<String> {
        self.said()
    }
}

impl<A: Authority> Dispenser<A> for Half<A> {
    fn send(&mut self, command: DispenserCommand<A>) -> Result<(), PortClosed> {
        self.say(RecyclerCommand::Out(command))
    }

    fn frames(&self) -> Vec<String> {
        self.said()
    }
}
