//! The life of one note: from escrow to credit or return, over lost replies, lost links and lost
//! power.

use super::super::{EscrowedBill, PowerUpBill};
use super::*;
use crate::frame::ebds::{NoteReport, bits};

/// How long a value may be in coming.
const VALUE_MS: u64 = 1_000;
/// Between STACKs, or RETURNs, that have not been followed.
const TRY_MS: u64 = 300;
/// The same, when a note has not obeyed for long.
const SLOW_TRY_MS: u64 = 5_000;

/// What an answer says of a note's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing, or zero.
    Nothing,
    /// This note.
    Note(Denomination, Currency),
    /// Something that is no note that we know: the raw index, or 0.
    Other(u8),
}

/// The note that the device has, as far as we know.
pub(super) struct Bill {
    /// As it was told to the agent; `None` for a note of an earlier run.
    pub(super) escrowed: Option<EscrowedBill>,
    /// Its value index, on units that say no more.
    index: u8,
    pub(super) stage: Stage,
    /// STACKs or RETURNs sent in this stage.
    tries: u8,
    pub(super) next_try: Mono,
    /// The device said that it gives, or gave, the note back.
    giving_back: bool,
    /// Something came between that may have moved the note otherwise.
    doubt: bool,
    /// The power went, and the note has not been seen since.
    dark: bool,
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
    /// `stacked` was told to the agent.
    Credited {
        /// The agent has made the credit durable.
        durable: bool,
    },
}

impl Bill {
    const fn new(escrowed: Option<EscrowedBill>, stage: Stage) -> Self {
        Self {
            escrowed,
            index: 0,
            stage,
            tries: 0,
            next_try: Mono(0),
            giving_back: false,
            doubt: false,
            dark: false,
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.tries = 0;
        self.next_try = Mono(0);
    }
}

impl<A: Authority> Ebds<A> {
    /// The agent wants this note stacked.
    pub(super) fn stack(&mut self, wanted: EscrowedBill) {
        let waits = self.seen.is_some_and(|status| status.is(bits::ESCROWED));
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

    pub(super) fn credit_is_durable(&mut self, now: Mono) {
        if let Some(Bill { stage: Stage::Credited { durable }, .. }) = &mut self.bill {
            *durable = true;
            // the sooner the toggle turns, the fewer crashes hear the word again
            self.next_poll = now;
        }
    }

    /// The device must go on saying `stacked`: the credit is not durable yet.
    pub(super) fn holds_the_word(&self) -> bool {
        let stage = self.bill.as_ref().map(|bill| bill.stage);
        matches!(stage, Some(Stage::Credited { durable: false }))
    }

    pub(super) fn count_try(&mut self, now: Mono) {
        if let Some(bill) = &mut self.bill {
            bill.tries = bill.tries.saturating_add(1);
            let pause = if bill.tries < TRIES { TRY_MS } else { SLOW_TRY_MS };
            bill.next_try = now.after(pause);
        }
    }

    /// What a reset does with a note follows the policy, and is said afterwards, or not.
    pub(super) fn note_is_reset(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.dark = true;
        }
    }

    pub(super) fn tell_found(&mut self, found: PowerUpBill) {
        if !std::mem::replace(&mut self.found, true) {
            self.tell(AcceptorEvent::PoweredUp(found));
        }
    }

    pub(super) fn doubt(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.doubt = true;
        }
    }

    pub(super) fn power_went(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.dark = true;
        }
    }

    /// The note in escrow is to go back, whoever's it is.
    pub(super) fn leave(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        // the device may take a STACK that it has had all the same
        bill.doubt |= bill.stage == Stage::StackSent;
        if !matches!(bill.stage, Stage::Leaving | Stage::Refused) {
            bill.enter(Stage::Leaving);
        }
    }

    /// A note is in escrow, and for a while nobody could look: it is the one that was there, or the
    /// next one, and goes back in either case.
    pub(super) fn came_out_of_sight(&mut self) {
        if self.bill.as_ref().is_some_and(|bill| matches!(bill.stage, Stage::Credited { .. })) {
            // a credited note never comes back to escrow
            self.end_of_note();
        }
        if self.bill.is_some() {
            return self.leave();
        }
        self.bill = Some(Bill::new(None, Stage::Refused));
        let reason = "it came while the device was silent".to_owned();
        self.tell(AcceptorEvent::Rejected { reason });
    }

    /// The device gives a note back.
    pub(super) fn gives_back(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        bill.giving_back = true;
    }

    /// The note is on its way into the cashbox, in sight.
    pub(super) fn may_be_stacked(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::StackSent));
        bill.dark = false;
        match bill.stage {
            Stage::Undecided | Stage::Refused | Stage::Leaving => bill.enter(Stage::StackSent),
            Stage::StackSent | Stage::Credited { .. } => {}
        }
    }

    /// What an answer says of the value of a note.
    pub(super) fn said(&self, status: Status, report: Option<NoteReport>) -> Said {
        match report {
            Some(report) if report.is_blank() => Said::Nothing,
            Some(report) => match report.note() {
                Some((denomination, currency)) => Said::Note(denomination, currency),
                None => Said::Other(report.index()),
            },
            None => match status.value() {
                0 => Said::Nothing,
                // reported at length, or not at all: these bits may be those of the note before
                _ if self.setup.is_sure_of_length() => Said::Nothing,
                index => match self.setup.note(index) {
                    Some((denomination, currency)) => Said::Note(denomination, currency),
                    None => Said::Other(index),
                },
            },
        }
    }

    pub(super) fn on_escrow(&mut self, status: Status, report: Option<NoteReport>, now: Mono) {
        let said = self.said(status, report);
        if let Some(Bill { escrowed: None, stage: Stage::StackSent, doubt, .. }) = &mut self.bill {
            // an earlier run's note was on its way, and one waits for a decision: whichever it is,
            // nobody has given this run a proof for it
            *doubt = true;
            return self.leave();
        }
        if let Some(bill) = &self.bill {
            // a credited note never comes back to escrow: this is the next one
            let ended = matches!(bill.stage, Stage::Credited { .. });
            if !bill.giving_back && !ended {
                return self.still_in_escrow(said, now);
            }
            // the polls between the two notes were lost
            self.end_of_note();
        }
        let class = report.map_or(Classification::None, |report| report.classification());
        let (said, class) = match (self.weighed.replace((said, class)), said) {
            (Some((before, class)), Said::Nothing) if before != Said::Nothing => (before, class),
            (_, Said::Nothing) if now.since(self.entered) < VALUE_MS => return,
            (Some((before, _)), said) if before == said => (said, class),
            _ => return,
        };
        self.weighed = None;
        self.new_note(said, class, now);
        if let Some(bill) = &mut self.bill {
            bill.index = status.value();
        }
    }

    fn still_in_escrow(&mut self, said: Said, now: Mono) {
        let Some(bill) = &self.bill else { return };
        let other = match (bill.escrowed, said) {
            (Some(note), Said::Note(d, c)) => (note.denomination, note.currency) != (d, c),
            (Some(_), Said::Other(index)) => index != bill.index,
            (None, _) | (_, Said::Nothing) => false,
        };
        let leaves = match bill.stage {
            Stage::Undecided => other || now >= self.hold_until || self.reset_wanted,
            Stage::StackSent => other || bill.tries >= TRIES,
            _ => false,
        };
        if leaves {
            self.leave();
        }
    }

    fn new_note(&mut self, said: Said, class: Classification, now: Mono) {
        let good = matches!(class, Classification::None | Classification::Genuine);
        let refused = match said {
            Said::Note(denomination, currency) => {
                let wanted =
                    currency == self.settings.currency && self.wanted.contains(&denomination);
                if good && wanted {
                    self.serial = self.serial.wrapping_add(1);
                    let bill = EscrowedBill { serial: self.serial, denomination, currency };
                    self.bill = Some(Bill::new(Some(bill), Stage::Undecided));
                    self.hold_until = now.after(ESCROW_MS);
                    return self.tell(AcceptorEvent::Escrowed(bill));
                }
                format!("{} minor units of {currency}", denomination.minor())
            }
            Said::Nothing => "no value is told".to_owned(),
            Said::Other(index) => format!("note index {index:02X}"),
        };
        let why = if good { String::new() } else { format!(", {class}") };
        self.bill = Some(Bill::new(None, Stage::Refused));
        self.tell(AcceptorEvent::Rejected { reason: format!("not enabled: {refused}{why}") });
    }

    /// The device says that a note lies in the cashbox.
    pub(super) fn on_stacked(&mut self, said: Said) {
        let Some(bill) = &mut self.bill else {
            // in escrow mode it stacks nothing unasked: a blank word, or an earlier run's note
            if said != Said::Nothing && !(self.found && self.cashbox_out) {
                self.tell_found(PowerUpBill::InStacker);
                self.bill = Some(Bill::new(None, Stage::StackSent));
                self.credit(said);
            }
            return;
        };
        match bill.stage {
            Stage::Credited { .. } => {}
            Stage::StackSent if said == Said::Nothing && (bill.doubt || bill.dark) => {}
            Stage::Undecided | Stage::Refused | Stage::Leaving if said == Said::Nothing => {
                bill.doubt = true;
            }
            _ => {
                self.tell_found(PowerUpBill::InStacker);
                self.credit(said);
            }
        }
    }

    fn credit(&mut self, said: Said) {
        let Some(bill) = &mut self.bill else { return };
        let own = self.settings.currency;
        let denomination = match said {
            Said::Note(denomination, currency) if currency == own => Some(denomination),
            Said::Nothing => None,
            // the table is not known again yet: the index was this note's
            Said::Other(index) if index != 0 && index == bill.index => None,
            Said::Note(..) | Said::Other(_) if bill.escrowed.is_none() => None,
            Said::Note(..) | Said::Other(_) => {
                // not what was in escrow, and nothing that can be named: the note's end is unknown
                bill.doubt = true;
                return;
            }
        };
        bill.enter(Stage::Credited { durable: false });
        let escrowed = bill.escrowed;
        self.tell(AcceptorEvent::Credit { escrowed, denomination });
    }

    pub(super) fn on_returned(&mut self) {
        if self.bill.is_some() || !self.found {
            self.tell_found(PowerUpBill::InAcceptor);
            self.gives_back();
        }
    }

    /// The device has no note any more, or has the next one.
    pub(super) fn end_of_note(&mut self) {
        let Some(bill) = self.bill.take() else { return };
        match bill.stage {
            Stage::Credited { .. } => self.tell(AcceptorEvent::Stacked),
            Stage::Refused => {}
            _ if bill.giving_back => self.tell(AcceptorEvent::Returned),
            // what was given back was said to be so
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
}
