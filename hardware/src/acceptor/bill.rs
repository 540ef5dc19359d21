//! The life of one note, whatever the protocol: from escrow to credit or return, over lost replies,
//! lost links and lost power.
//!
//! Promise: a note is stacked only by the proof that names it; a credit is told once, however often
//! the device repeats it; a note's end is told once, and only if the device told it.
//!
//! Failure policy: a note whose end the device does not tell is neither credited nor called
//! returned: a fault says so.

use std::collections::BTreeSet;

use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;

use super::{AcceptorEvent, DeviceFault, EscrowedBill, FaultKind, PowerUpBill};
use crate::engine::Output;

/// One [`AcceptorCommand::Hold`](super::AcceptorCommand::Hold) keeps the note this long, by as many
/// of the device's own HOLDs as it takes.
const HOLD_MS: u64 = 60_000;
/// Between the device's HOLDs; each is good for 10 s.
const HOLD_AGAIN_MS: u64 = 5_000;
/// How often STACK or RETURN is said to a note that stays in escrow, and questions that get no
/// answer are asked.
pub(crate) const TRIES: u8 = 3;

/// A note's code on the line, and what it is worth.
pub(crate) type Coded = (u8, Denomination, Currency);

/// What the engine has to say, and the fault that it has told.
#[derive(Default)]
pub(crate) struct Voice {
    pub(crate) out: Output<AcceptorEvent>,
    pub(crate) fault: Option<DeviceFault>,
}

impl Voice {
    pub(crate) fn tell(&mut self, event: AcceptorEvent) {
        self.out.events.push(event);
    }

    /// Tells a fault, once for as long as it is the same.
    pub(crate) fn fail(&mut self, kind: FaultKind, detail: String) {
        let fault = DeviceFault { kind, detail };
        if self.fault.as_ref() != Some(&fault) {
            self.fault = Some(fault.clone());
            self.tell(AcceptorEvent::Fault(fault));
        }
    }

    /// The fault that holds, once more: for whoever asks for something that cannot be done.
    pub(crate) fn say_fault_again(&mut self) {
        if let Some(fault) = self.fault.clone() {
            self.tell(AcceptorEvent::Fault(fault));
        }
    }

    /// The device is well; `true` if that is news. A fault that was told in this very step is not
    /// over yet.
    pub(crate) fn recover(&mut self) -> bool {
        let told_now = self.out.events.iter().any(|e| matches!(e, AcceptorEvent::Fault(_)));
        let over = !told_now && self.fault.take().is_some();
        if over {
            self.tell(AcceptorEvent::Recovered);
        }
        over
    }
}

/// What is known and wanted of notes.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) currency: Currency,
    pub(crate) wanted: &'a BTreeSet<Denomination>,
    /// The device's table; `None` until it has told it.
    pub(crate) table: Option<&'a [Coded]>,
}

impl Known<'_> {
    fn note(&self, code: u8) -> Option<(Denomination, Currency)> {
        let (_, denomination, currency) = self.table?.iter().find(|(c, ..)| *c == code)?;
        Some((*denomination, *currency))
    }

    /// The codes of the notes that are wanted.
    pub(crate) fn wanted_codes(&self) -> impl Iterator<Item = u8> {
        let notes = self.table.unwrap_or_default().iter();
        let wanted = notes.filter(|(_, d, c)| *c == self.currency && self.wanted.contains(d));
        wanted.map(|(code, ..)| *code)
    }
}

/// What the note in escrow is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Stack,
    Return,
    Hold,
    Reset,
}

/// The note that the device has, as far as we know.
struct Bill {
    /// As it was told to the agent; `None` for a note of an earlier run.
    escrowed: Option<EscrowedBill>,
    stage: Stage,
    /// STACKs or RETURNs sent in this stage.
    tries: u8,
    /// The device said that it gives, or gave, the note back.
    giving_back: bool,
    /// Something came between that may have moved the note otherwise.
    doubt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The agent has not decided.
    Undecided,
    /// We did not want it: unknown, not enabled, another currency. The agent was not asked.
    Refused,
    /// It is to be given back.
    Leaving,
    /// STACK was, or may have been, sent: by us, or by the run before.
    StackSent,
    /// The credit came, but its value is not known before the table is.
    CreditHeld(Option<u8>),
    /// The credit was told to the agent.
    Credited {
        /// The agent has made it durable.
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

/// The notes of one run of an engine, one after the other.
#[derive(Default)]
pub(crate) struct Notes {
    bill: Option<Bill>,
    serial: u32,
    held_at: Mono,
    hold_until: Mono,
    /// Whether this link, or this power-up, has told where a note was.
    pub(crate) found: bool,
}

impl Notes {
    /// The agent wants this note stacked; the device shows it waiting. `false` if it is another
    /// note, or was decided about before.
    pub(crate) fn stack(&mut self, wanted: EscrowedBill) -> bool {
        let waits =
            |bill: &&mut Bill| bill.escrowed == Some(wanted) && bill.stage == Stage::Undecided;
        let Some(bill) = self.bill.as_mut().filter(waits) else { return false };
        bill.enter(Stage::StackSent);
        true
    }

    pub(crate) fn give_back_if_undecided(&mut self) {
        if let Some(bill) = &mut self.bill
            && bill.stage == Stage::Undecided
        {
            bill.enter(Stage::Leaving);
        }
    }

    pub(crate) fn credit_is_durable(&mut self) {
        if let Some(Bill { stage: Stage::Credited { durable, .. }, .. }) = &mut self.bill {
            *durable = true;
        }
    }

    pub(crate) fn acknowledged(&self) -> bool {
        self.stage().is_some_and(|s| matches!(s, Stage::Credited { durable: true, .. }))
    }

    /// Its credit was told, or waits for the table.
    pub(crate) fn is_credited(&self) -> bool {
        self.stage().is_some_and(|s| matches!(s, Stage::Credited { .. } | Stage::CreditHeld(_)))
    }

    /// Whether the agent has not decided about the note in escrow.
    pub(crate) fn is_undecided(&self) -> bool {
        self.stage() == Some(Stage::Undecided)
    }

    /// Whether the agent has asked to keep it in escrow.
    pub(crate) fn is_held(&self, now: Mono) -> bool {
        now < self.hold_until
    }

    pub(crate) fn credit_needs_table(&self) -> bool {
        self.stage().is_some_and(|s| matches!(s, Stage::CreditHeld(_)))
    }

    pub(crate) fn has_none(&self) -> bool {
        self.bill.is_none()
    }

    /// The agent wants the note kept in escrow.
    pub(crate) fn hold(&mut self, now: Mono) {
        self.hold_until = now.after(HOLD_MS);
    }

    /// What the note in escrow is told.
    pub(crate) fn decide(&self, reset_wanted: bool, now: Mono) -> Option<Word> {
        let bill = self.bill.as_ref()?;
        let again = bill.tries < TRIES;
        match bill.stage {
            // only what this run has a proof for
            Stage::StackSent if again && bill.escrowed.is_some() => Some(Word::Stack),
            Stage::Refused | Stage::Leaving if again => Some(Word::Return),
            Stage::Undecided | Stage::Refused | Stage::Leaving if reset_wanted => Some(Word::Reset),
            Stage::Undecided => {
                let due = now < self.hold_until && self.held_at.after(HOLD_AGAIN_MS) <= now;
                due.then_some(Word::Hold)
            }
            _ => None,
        }
    }

    /// The note in escrow was told this.
    pub(crate) fn said(&mut self, word: Word, now: Mono) {
        match (word, &mut self.bill) {
            (Word::Stack | Word::Return, Some(bill)) => bill.tries = bill.tries.saturating_add(1),
            (Word::Hold, _) => self.held_at = now,
            (Word::Reset, Some(bill)) => bill.giving_back = true,
            (_, None) => {}
        }
    }

    fn stage(&self) -> Option<Stage> {
        self.bill.as_ref().map(|bill| bill.stage)
    }

    pub(crate) fn tell_found(&mut self, found: PowerUpBill, voice: &mut Voice) {
        if !std::mem::replace(&mut self.found, true) {
            voice.tell(AcceptorEvent::PoweredUp(found));
        }
    }

    /// Something came between that may have moved the note otherwise.
    pub(crate) fn doubt(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.doubt = true;
        }
    }

    /// The note in escrow is to go back, whoever's it is.
    pub(crate) fn leave(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        if !matches!(bill.stage, Stage::Leaving | Stage::Refused) {
            bill.enter(Stage::Leaving);
        }
    }

    /// A note is in escrow, and for a while nobody could look: it is the one that was there, or the
    /// next one, and goes back in either case.
    pub(crate) fn came_out_of_sight(&mut self, known: &Known<'_>, voice: &mut Voice) {
        let found = self.found;
        self.tell_found(PowerUpBill::InAcceptor, voice);
        match self.stage() {
            // a credited note never comes back to escrow
            Some(Stage::CreditHeld(_) | Stage::Credited { .. }) => self.end_of_note(known, voice),
            None if found => {}
            _ => return self.leave(),
        }
        self.bill = Some(Bill::new(None, Stage::Refused));
        let reason = "it came while the device was silent".to_owned();
        voice.tell(AcceptorEvent::Rejected { reason });
    }

    /// The device gives a note back by itself.
    pub(crate) fn gives_back(&mut self) {
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::Leaving));
        bill.giving_back = true;
    }

    /// The device refuses a note: the one in escrow, or one that never came so far.
    pub(crate) fn rejects(&mut self, reason: impl ToString, news: bool, voice: &mut Voice) {
        match &mut self.bill {
            Some(bill) => bill.giving_back = true,
            None if news => voice.tell(AcceptorEvent::Rejected { reason: reason.to_string() }),
            None => {}
        }
    }

    /// A note is past escrow.
    pub(crate) fn may_be_stacked(&mut self, voice: &mut Voice) {
        self.tell_found(PowerUpBill::InStacker, voice);
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::StackSent));
        match bill.stage {
            Stage::Undecided | Stage::Refused | Stage::Leaving => bill.enter(Stage::StackSent),
            Stage::StackSent | Stage::CreditHeld(_) | Stage::Credited { .. } => {}
        }
    }

    /// A note with this code is in escrow, or something that is no note.
    pub(crate) fn on_escrow(&mut self, code: Option<u8>, known: &Known<'_>, voice: &mut Voice) {
        let note = code.and_then(|code| known.note(code));
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
            self.end_of_note(known, voice);
        }
        let wanted = note.filter(|(d, c)| *c == known.currency && known.wanted.contains(d));
        let Some((denomination, currency)) = wanted else {
            let what = match (note, code) {
                (Some((d, c)), _) => format!("{} minor units of {c}", d.minor()),
                (None, Some(code)) => format!("escrow code {code:02X}"),
                (None, None) => "a ticket".to_owned(),
            };
            self.bill = Some(Bill::new(None, Stage::Refused));
            return voice.tell(AcceptorEvent::Rejected { reason: format!("not enabled: {what}") });
        };
        self.serial = self.serial.wrapping_add(1);
        let bill = EscrowedBill { serial: self.serial, denomination, currency };
        self.bill = Some(Bill::new(Some(bill), Stage::Undecided));
        (self.held_at, self.hold_until) = (Mono(0), Mono(0));
        voice.tell(AcceptorEvent::Escrowed(bill));
    }

    /// The device says that a note is past the point of no return.
    pub(crate) fn on_credit(&mut self, code: Option<u8>, known: &Known<'_>, voice: &mut Voice) {
        self.tell_found(PowerUpBill::InStacker, voice);
        let bill = self.bill.get_or_insert(Bill::new(None, Stage::StackSent));
        match bill.stage {
            Stage::Credited { .. } | Stage::CreditHeld(_) => {}
            _ if bill.escrowed.is_none() && code.is_some() && known.table.is_none() => {
                bill.enter(Stage::CreditHeld(code));
            }
            _ => self.credit(code, known, voice),
        }
    }

    /// The table is there, or will not come: the credit must not wait for it.
    pub(crate) fn credit_with_table(&mut self, known: &Known<'_>, voice: &mut Voice) {
        if let Some(Stage::CreditHeld(code)) = self.stage() {
            self.credit(code, known, voice);
        }
    }

    fn credit(&mut self, code: Option<u8>, known: &Known<'_>, voice: &mut Voice) {
        let Some(bill) = &mut self.bill else { return };
        bill.enter(Stage::Credited { durable: false, stacked_told: false });
        let escrowed = bill.escrowed;
        let note = code.and_then(|code| known.note(code));
        let denomination =
            note.filter(|(_, c)| *c == known.currency).map(|(denomination, _)| denomination);
        voice.tell(AcceptorEvent::Credit { escrowed, denomination });
    }

    /// The note lies in the cashbox, whether its credit was seen or not.
    pub(crate) fn on_stacked(&mut self, known: &Known<'_>, voice: &mut Voice) {
        match self.stage() {
            Some(Stage::StackSent) => self.credit(None, known, voice),
            Some(Stage::CreditHeld(code)) => self.credit(code, known, voice),
            _ => {}
        }
        self.tell_stacked(voice);
    }

    fn tell_stacked(&mut self, voice: &mut Voice) {
        if let Some(Bill { stage: Stage::Credited { stacked_told, .. }, .. }) = &mut self.bill
            && !std::mem::replace(stacked_told, true)
        {
            voice.tell(AcceptorEvent::Stacked);
        }
    }

    /// The device has no note any more, or has the next one.
    pub(crate) fn end_of_note(&mut self, known: &Known<'_>, voice: &mut Voice) {
        self.credit_with_table(known, voice);
        self.tell_stacked(voice);
        let Some(bill) = self.bill.take() else { return };
        match bill.stage {
            Stage::Refused | Stage::Credited { .. } | Stage::CreditHeld(_) => {}
            _ if bill.giving_back => voice.tell(AcceptorEvent::Returned),
            Stage::Undecided | Stage::Leaving if !bill.doubt => {
                voice.tell(AcceptorEvent::Returned);
            }
            Stage::Undecided | Stage::Leaving | Stage::StackSent => {
                let what = bill.escrowed.map_or_else(
                    || "a note of an earlier run".to_owned(),
                    |b| format!("{} minor units of {}", b.denomination.minor(), b.currency),
                );
                voice.fail(
                    FaultKind::ServiceNeeded,
                    format!("the device does not tell where {what} went: count the cashbox"),
                );
            }
        }
    }
}
