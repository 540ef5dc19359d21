//! The agent's journal as the port's documentation asks for it; it survives a crash of the host.

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent};

use crate::world::{Protocol, World};

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// A note was to be stacked; `true`: its credit is durable.
    open: Option<bool>,
    pub(crate) credits: u64,
    pub(crate) returns: u64,
    /// Notes whose end nobody told.
    pub(crate) unknown: u64,
    /// Credits for which nothing was intended.
    pub(crate) unexplained: u64,
}

impl Journal {
    pub(crate) fn intend(&mut self) {
        self.open = Some(false);
    }

    pub(crate) fn credit(&mut self) {
        match &mut self.open {
            Some(true) => {}
            Some(credited) => {
                *credited = true;
                self.credits += 1;
            }
            None => self.unexplained += 1,
        }
    }

    pub(crate) fn on_event<P: Protocol>(
        &mut self,
        world: &mut World<P>,
        event: &AcceptorEvent,
        what: &str,
    ) {
        match event {
            AcceptorEvent::Escrowed(bill) => {
                self.intend();
                world.stack(*bill);
            }
            AcceptorEvent::Credit { .. } => {
                self.credit();
                world.send(AcceptorCommand::AcknowledgeCredit);
            }
            AcceptorEvent::Returned => {
                assert_ne!(self.open.take(), Some(true), "returned and credited: {what}");
                self.returns += 1;
            }
            AcceptorEvent::Accepting | AcceptorEvent::Closed => {
                self.unknown += u64::from(self.open.take() == Some(false));
            }
            _ => {}
        }
    }

    /// What was credited against the notes that the device has.
    pub(crate) fn balance<P: Protocol>(&self, world: &World<P>, what: &str) {
        let taken = world.cashbox();
        assert_eq!(world.count("in_path"), 0, "{what}");
        assert_eq!(self.unexplained, 0, "{what}");
        assert!(self.credits <= taken, "{} credited, {taken} taken: {what}", self.credits);
        assert!(taken <= self.credits + self.unknown, "taken, not reported: {what}: {self:?}");
        let back = world.count("returned");
        assert!(self.returns <= back, "{} told as returned, {back} were: {what}", self.returns);
    }
}
