//! The life of one note: from escrow to credit or return, over lost replies, lost links and lost
//! power.

use super::super::{EscrowedBill, PowerUpBill};
use super::*;
use crate::frame::id003::Frame;

/// The note that the device has, as far as we know.
pub(super) struct Bill {
    /// As it was told to the agent; `None` for a note of an earlier run.
    pub(super) escrowed: Option<EscrowedBill>,
    pub(super) stage: Stage,
    /// STACKs or RETURNs sent in this stage.
    pub(super) tries: u8,
    /// The device said that it gives, or gave, the note back.
    giving_back: bool,
    /// Something came between that may have moved the note otherwise.
    doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The agent has not decided.
    Undecided,
    /// We did not want it: unknown, not enabled, another currency. The agent was not asked.
    Refused,
    /// It is to be given back.
    Leaving,
    /// STACK was, or may have been, sent: by us, or by the run before.
    StackSent,
    /// VEND VALID came, but its value is not known before the table is.
    CreditHeld(Option<u8>),
    /// VEND VALID was told to the agent.
    Credited {
        /// The agent has made the credit durable.
        durable: bool,
        stacked_told: bool,
    },
}

impl Bill {
    const fn new(escrowed: Option<EscrowedBill>, stage: Stage) -> Self {
        Self { escrowed, stage, tries: 0, giving_back: false, doubt: false }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.tries = 0;
    }
}

impl<A: Authority> Id003<A> {
    /// The agent wants this note stacked.
    pub(super) fn stack(&mut self, wanted: EscrowedBill) {
        let waits = matches!(self.seen, Some(Status::Escrow(_) | Status::Holding));
        if let Some(bill) = &mut self.bill
            && waits
            && bill.escrowed == Some(wanted)
            && bill.stage == Stage::Undecided
        {
            bill.enter(Stage::StackSent);
        }
    }

    pub(super) fn give_back_if_undecided(&mut self) {
        if let Some(bill) = &mut self.bill
            && bill.stage == Stage::Undecided
        {
            bill.enter(Stage::Leaving);
        }
    }

    pub(super) fn credit_is_durable(&mut self) {
        if let Some(Bill { stage: Stage::Credited { durable, .. }, .. }) = &mut self.bill {
            *durable = true;
        }
    }

    pub(super) fn acknowledged(&self) -> bool {
        self.stage().is_some_and(|s| matches!(s, Stage::Credited { durable: true, .. }))
    }

    /// After a minute without ACK the device answers nothing but RESET; once the credit is durable
    /// nothing is lost by that. In any other silence a RESET could lose a VEND VALID.
    pub(super) fn only_reset_helps(&self) -> bool {
        self.acknowledged()
    }

    pub(super) fn credit_needs_table(&self) -> bool {
        self.stage().is_some_and(|s| matches!(s, Stage::CreditHeld(_)))
    }

    pub(super) fn count_try(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.tries = bill.tries.saturating_add(1);
        }
    }

    /// RESET gives a note in escrow back.
    pub(super) fn note_is_reset(&mut self) {
        if let Some(bill) = &mut self.bill
            && matches!(self.seen, Some(Status::Escrow(_) | Status::Holding))
        {
            bill.giving_back = true;
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.bill.as_ref().map(|bill| bill.stage)
    }

    fn tell_found(&mut self, found: PowerUpBill) {
        if !std::mem::replace(&mut self.found, true) {
            self.tell(AcceptorEvent::PoweredUp(found));
        }
    }

    /// `gap`: the device was out of sight for so long that it may have given a note back.
    pub(super) fn follow_note(&mut self, status: Status, changed: bool, gap: bool) {
        match status {
            Status::Idling | Status::Disabled => {
                self.tell_found(PowerUpBill::None);
                self.end_of_note();
            }
            Status::Accepting => self.end_of_note(),
            Status::Escrow(_) | Status::Holding if !self.found || gap => {
                self.tell_found(PowerUpBill::InAcceptor);
                self.leave();
            }
            Status::Escrow(held) => self.on_escrow(held),
            Status::Holding if self.bill.is_none() => self.leave(),
            Status::Stacking(_) | Status::PowerUpBillInStacker => {
                self.tell_found(PowerUpBill::InStacker);
                self.may_be_stacked();
            }
            Status::VendValid(code) => {
                self.tell_found(PowerUpBill::InStacker);
                self.on_vend_valid(code);
            }
            Status::Stacked(_) => self.on_stacked(),
            Status::Rejecting(reason) => match &mut self.bill {
                Some(bill) => bill.giving_back = true,
                None if changed => {
                    self.tell(AcceptorEvent::Rejected { reason: reason.to_string() });
                }
                None => {}
            },
            Status::Returning => {
                self.tell_found(PowerUpBill::InAcceptor);
                self.gives_back();
            }
            Status::PowerUpBillInAcceptor => {
                self.tell_found(PowerUpBill::InAcceptor);
                self.gives_back();
            }
            Status::PowerUp => {
                self.tell_found(PowerUpBill::None);
                self.doubt();
            }
            Status::StackerOpen
            | Status::JamInAcceptor
            | Status::JamInStacker
            | Status::Cheated
            | Status::Failure(_) => self.doubt(),
            Status::Holding
            | Status::Initializing
            | Status::SignatureBusy
            | Status::SignatureEnd
            | Status::StackerFull
            | Status::Pause
            | Status::CommError => {}
        }
    }

    fn doubt(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.doubt = true;
        }
    }

    /// The note in escrow is to go back, whoever's it is.
    fn leave(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        if !matches!(bill.stage, Stage::Leaving | Stage::Refused) {
            bill.enter(Stage::Leaving);
        }
    }

    /// The device gives a note back by itself.
    fn gives_back(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        bill.giving_back = true;
    }

    fn may_be_stacked(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::StackSent));
        match bill.stage {
            Stage::Undecided | Stage::Refused | Stage::Leaving => bill.enter(Stage::StackSent),
            Stage::StackSent | Stage::CreditHeld(_) | Stage::Credited { .. } => {}
        }
    }

    fn on_escrow(&mut self, held: Held) {
        let note = match held {
            Held::Note(code) => self.setup.note(code),
            Held::Ticket => None,
        };
        if let Some(Bill { escrowed: None, stage: Stage::StackSent, doubt, .. }) = &mut self.bill {
            // an earlier run's note was on its way, and one waits for a decision: whichever it is,
            // nobody has given this run a proof for it
            *doubt = true;
            return self.leave();
        }
        if let Some(bill) = &self.bill {
            let same = |b: EscrowedBill| note == Some((b.denomination, b.currency));
            // a credited note never comes back to escrow: this is the next one, of the same value
            let ended = matches!(bill.stage, Stage::CreditHeld(_) | Stage::Credited { .. });
            if !bill.giving_back && !ended && bill.escrowed.is_none_or(same) {
                return;
            }
            // the polls between the two notes were lost
            self.end_of_note();
        }
        let wanted = note.filter(|(d, c)| *c == self.settings.currency && self.wanted.contains(d));
        let Some((denomination, currency)) = wanted else {
            let what = match (note, held) {
                (Some((d, c)), _) => format!("{} minor units of {c}", d.minor()),
                (None, Held::Note(code)) => format!("escrow code {code:02X}"),
                (None, Held::Ticket) => "a ticket".to_owned(),
            };
            self.bill = Some(Bill::new(None, Stage::Refused));
            let reason = format!("not enabled: {what}");
            return self.tell(AcceptorEvent::Rejected { reason });
        };
        self.serial = self.serial.wrapping_add(1);
        let bill = EscrowedBill { serial: self.serial, denomination, currency };
        self.bill = Some(Bill::new(Some(bill), Stage::Undecided));
        self.hold_until = Mono(0);
        self.held_at = Mono(0);
        self.tell(AcceptorEvent::Escrowed(bill));
    }

    fn on_vend_valid(&mut self, code: Option<u8>) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::StackSent));
        match bill.stage {
            Stage::Credited { .. } | Stage::CreditHeld(_) => {}
            _ if bill.escrowed.is_none() && code.is_some() && !self.setup.has_table() => {
                bill.enter(Stage::CreditHeld(code));
            }
            _ => self.credit(code),
        }
    }

    /// The table is there, or will not come: the credit must not wait for it.
    pub(super) fn credit_with_table(&mut self) {
        if let Some(Stage::CreditHeld(code)) = self.stage() {
            self.credit(code);
        }
    }

    fn credit(&mut self, code: Option<u8>) {
        let Some(bill) = &mut self.bill else { return };
        bill.enter(Stage::Credited { durable: false, stacked_told: false });
        let escrowed = bill.escrowed;
        let note = code.and_then(|code| self.setup.note(code));
        let denomination = note
            .filter(|(_, c)| *c == self.settings.currency)
            .map(|(denomination, _)| denomination);
        self.tell(AcceptorEvent::Credit { escrowed, denomination });
    }

    fn on_stacked(&mut self) {
        match self.stage() {
            // VEND VALID went by unseen: the note lies in the cashbox all the same
            Some(Stage::StackSent) => self.credit(None),
            Some(Stage::CreditHeld(code)) => self.credit(code),
            _ => {}
        }
        self.tell_stacked();
    }

    fn tell_stacked(&mut self) {
        if let Some(Bill { stage: Stage::Credited { stacked_told, .. }, .. }) = &mut self.bill
            && !std::mem::replace(stacked_told, true)
        {
            self.tell(AcceptorEvent::Stacked);
        }
    }

    /// The device has no note any more, or has the next one.
    fn end_of_note(&mut self) {
        if let Some(Stage::CreditHeld(code)) = self.stage() {
            self.credit(code);
        }
        self.tell_stacked();
        let Some(bill) = self.bill.take() else { return };
        match bill.stage {
            Stage::Refused | Stage::Credited { .. } | Stage::CreditHeld(_) => {}
            _ if bill.giving_back => self.tell(AcceptorEvent::Returned),
            Stage::Undecided | Stage::Leaving if !bill.doubt => {
                self.tell(AcceptorEvent::Returned);
            }
            Stage::Undecided | Stage::Leaving | Stage::StackSent => {
                let what = bill.escrowed.map_or_else(
                    || "a note of an earlier run".to_owned(),
                    |b| format!("{} minor units of {}", b.denomination.minor(), b.currency),
                );
                self.fail(
                    FaultKind::ServiceNeeded,
                    format!("the device does not tell where {what} went: count the cashbox"),
                );
            }
        }
    }

    /// A state that we do not know.
    pub(super) fn on_unknown(&mut self, raw: &Frame, now: Mono) {
        self.seen = None;
        self.seen_at = now;
        self.current = false;
        self.told_open = None;
        self.doubt();
        self.fail(FaultKind::ServiceNeeded, format!("unknown state {raw}"));
    }
}
