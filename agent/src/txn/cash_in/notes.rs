//! One note after the other.

use bitspire_hardware::acceptor::EscrowedBill;
use bitspire_shared::money::Denomination;

use super::{Bill, CashIn, Closing, Fate, Live, Note, State, Taken};
use crate::journal::CashMove;
use crate::txn::deal::Now;
use crate::txn::effect::{Alert, Effect};
use crate::txn::input::BillFate;
use crate::txn::record::{Record, Txn};
use crate::txn::turn::Turn;

impl CashIn {
    pub(super) fn escrowed(
        &mut self,
        bill: EscrowedBill,
        allowed: bool,
        now: Now,
        turn: &mut Turn,
    ) -> Taken {
        let take = allowed && self.takes(&bill, now);
        match &self.state {
            State::Open | State::Credited => {
                self.state = State::Escrowed { bill: bill.into() };
                if take {
                    return Taken::Stack;
                }
            }
            State::StackCommitted { bill: before, .. } if *before == bill.into() => {
                return Taken::Ignored;
            }
            State::StackCommitted { no, .. } => {
                let no = *no;
                let evidence = "another note came before its fate was known".to_owned();
                self.doubt(no, evidence, false, turn);
                self.live.returning = true;
            }
            State::Escrowed { .. } => self.state = State::Escrowed { bill: bill.into() },
            // nobody feeds notes here: it goes back, whatever the state
            _ => {
                self.live.returning = true;
                if let State::Uncertain { device, .. } = &mut self.state {
                    *device = false;
                }
            }
        }
        turn.effects.push(Effect::ReturnBill);
        Taken::Done
    }

    fn takes(&self, bill: &EscrowedBill, now: Now) -> bool {
        self.closing.is_none()
            && self.live.lock_until.is_some_and(|until| now.mono < until)
            && bill.currency == self.deal.fiat.currency
            && self.live.takes.contains(&bill.denomination)
            && i64::from(bill.denomination.minor()) <= self.room()
    }

    /// From a note in escrow to its committed intent.
    pub(super) fn commit_stack(&mut self) -> Option<Effect> {
        let State::Escrowed { bill } = self.state else { return None };
        let no = u32::try_from(self.notes.len()).ok()?.checked_add(1)?;
        let lock = self.locks.last().map(|lock| lock.quote_id);
        let denomination = Some(bill.denomination);
        self.notes.push(Note { no, denomination, lock, fate: Fate::Stacking });
        self.state = State::StackCommitted { bill, no };
        let (txn, cash) = (Txn::CashIn(self.clone()), Vec::new());
        let record = Record { txn, cause: "stack", cash, resolves: None, verdict: None };
        Some(Effect::Stack { record: Box::new(record), no, bill: bill.into() })
    }

    pub(super) fn credit(
        &mut self,
        escrowed: Option<EscrowedBill>,
        denomination: Option<Denomination>,
        turn: &mut Turn,
    ) -> Taken {
        let said = denomination.or(escrowed.map(|bill| bill.denomination));
        let agrees = |bill: &Bill| {
            escrowed.is_none_or(|said| Bill::from(said) == *bill)
                && denomination.is_none_or(|said| said == bill.denomination)
        };
        match self.state.clone() {
            State::StackCommitted { bill, no } if agrees(&bill) => self.count(no, true, turn),
            State::StackCommitted { bill, no } => {
                let evidence = format!("credit of {said:?} for a note of {:?}", bill.denomination);
                self.doubt(no, evidence, true, turn);
            }
            State::Uncertain { evidence, .. } => match self.open_doubt() {
                Some(note) if said.is_none_or(|said| Some(said) == note.denomination) => {
                    self.count(note.no, true, turn);
                }
                _ => self.add_evidence(&evidence, said, turn),
            },
            _ => return self.credit_again(said, turn),
        }
        turn.effects.push(Effect::AcknowledgeCredit);
        Taken::Done
    }

    /// A credit with no note that waits for one: the last note's, said again or for the first time
    /// after a restart, or of a note that nobody told to stack.
    fn credit_again(&mut self, said: Option<Denomination>, turn: &mut Turn) -> Taken {
        let last = self.notes.iter_mut().rev().find(|note| note.is_ours());
        let same = |note: &Note| said.is_none_or(|said| Some(said) == note.denomination);
        match (last, &self.state) {
            (_, State::Redeemed { .. } | State::Expired { .. } | State::Returned) => {
                return Taken::Ignored;
            }
            (Some(note), _) if same(note) && note.fate == (Fate::Credited { heard: false }) => {
                note.fate = Fate::Credited { heard: true };
            }
            // whose it is only the vault can tell: it knows whether the acceptor still speaks of it
            (Some(note), _) if self.live.ended_before && same(note) => return Taken::Ignored,
            (Some(note), State::Credited) if same(note) => {}
            _ => self.unexplained(said, turn),
        }
        turn.effects.push(Effect::AcknowledgeCredit);
        Taken::Done
    }

    fn unexplained(&mut self, said: Option<Denomination>, turn: &mut Turn) {
        let in_escrow = match &self.state {
            State::Escrowed { bill } => Some(bill.denomination),
            _ => None,
        };
        let denomination = said.or(in_escrow);
        let no = u32::try_from(self.notes.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.notes.push(Note { no, denomination, lock: None, fate: Fate::Unknown { open: false } });
        let doubt = |denomination| CashMove::StackDoubt { denomination, counted: false };
        turn.cash.extend(denomination.map(doubt));
        turn.alert(Alert::UnexplainedCredit { denomination });
        if matches!(self.state, State::Open | State::Escrowed { .. } | State::Credited) {
            let evidence = "the acceptor credited a note that nobody told it to stack".to_owned();
            self.become_uncertain(evidence, false);
        }
    }

    fn add_evidence(&mut self, before: &str, said: Option<Denomination>, turn: &mut Turn) {
        turn.alert(Alert::UnexplainedCredit { denomination: said });
        let more = format!("; then a credit of {said:?}");
        if !before.ends_with(&more) {
            self.state = State::Uncertain { evidence: format!("{before}{more}"), device: false };
        }
    }

    pub(super) fn stacked(&mut self, turn: &mut Turn) -> Taken {
        match self.state {
            State::StackCommitted { no, .. } => self.count(no, false, turn),
            State::Credited => self.state = State::Open,
            State::Escrowed { .. } => self.unexplained(None, turn),
            // the session was closed while its last note was on its way
            State::Offered { .. } | State::Claimed { .. } | State::PayUnknown { .. } => {}
            _ => return Taken::Ignored,
        }
        Taken::Done
    }

    pub(super) fn returned(&mut self, turn: &mut Turn) -> Taken {
        match self.state {
            _ if self.live.returning => self.live.returning = false,
            State::Escrowed { .. } => {
                self.state = State::Open;
                self.settle();
            }
            State::StackCommitted { no, .. } => self.not_ours(no, turn),
            State::Uncertain { .. } => match self.open_doubt() {
                Some(note) => self.not_ours(note.no, turn),
                None => return Taken::Ignored,
            },
            State::Credited => self.credited_and_returned(turn),
            State::Offered { .. } | State::Claimed { .. } | State::PayUnknown { .. } => {
                let evidence = "a note was given back after the session had ended".to_owned();
                turn.alert(Alert::Uncertain { evidence });
            }
            _ => return Taken::Ignored,
        }
        Taken::Done
    }

    /// The acceptor gave a note back after it had credited it: somebody may be fishing.
    fn credited_and_returned(&mut self, turn: &mut Turn) {
        if let Some(note) = self.notes.iter_mut().rev().find(|note| note.is_ours()) {
            note.fate = Fate::Unknown { open: false };
            let doubt = |denomination| CashMove::StackDoubt { denomination, counted: true };
            turn.cash.extend(note.denomination.map(doubt));
        }
        let evidence = "the acceptor credited a note and gave it back".to_owned();
        turn.alert(Alert::Uncertain { evidence: evidence.clone() });
        self.become_uncertain(evidence, false);
    }

    /// The last note, where it counts and the acceptor's own credit for it may still come, or come
    /// again.
    pub(crate) fn unheard(&self) -> Option<Denomination> {
        let last = self.notes.iter().rev().find(|note| note.is_ours())?;
        let again = self.live.ended_before || last.fate == Fate::Credited { heard: false };
        last.denomination.filter(|_| again)
    }

    /// The note of which the acceptor may still speak.
    fn open_doubt(&self) -> Option<Note> {
        if !matches!(self.state, State::Uncertain { device: true, .. }) {
            return None;
        }
        let open = |note: &&Note| note.fate == Fate::Unknown { open: true };
        self.notes.iter().find(open).copied()
    }

    fn fate(&mut self, no: u32, fate: Fate) -> Option<Denomination> {
        let note = self.notes.iter_mut().find(|note| note.no == no)?;
        note.fate = fate;
        note.denomination
    }

    /// The note is ours and counts for the customer.
    fn count(&mut self, no: u32, heard: bool, turn: &mut Turn) {
        let clears = matches!(self.state, State::Uncertain { .. });
        let denomination = self.fate(no, Fate::Credited { heard });
        let stacked = |denomination| CashMove::Stacked { denomination, clears };
        turn.cash.extend(denomination.map(stacked));
        turn.resolves = Some(no);
        self.state = State::Credited;
        self.settle();
    }

    /// The note was given back.
    fn not_ours(&mut self, no: u32, turn: &mut Turn) {
        let doubted = matches!(self.state, State::Uncertain { .. });
        let denomination = self.fate(no, Fate::NotOurs);
        let not_stacked = |denomination| CashMove::NotStacked { denomination };
        turn.cash.extend(denomination.filter(|_| doubted).map(not_stacked));
        turn.resolves = Some(no);
        self.state = State::Open;
        self.settle();
    }

    pub(super) fn doubt(&mut self, no: u32, evidence: String, device: bool, turn: &mut Turn) {
        let denomination = self.fate(no, Fate::Unknown { open: true });
        let doubt = |denomination| CashMove::StackDoubt { denomination, counted: false };
        turn.cash.extend(denomination.map(doubt));
        turn.alert(Alert::Uncertain { evidence: evidence.clone() });
        self.become_uncertain(evidence, device);
    }

    fn become_uncertain(&mut self, evidence: String, device: bool) {
        self.closing.get_or_insert(Closing::Uncertain);
        self.state = State::Uncertain { evidence, device };
    }

    /// No more notes; what is on its way is waited for.
    pub(super) fn close(&mut self, why: Closing) -> Taken {
        if self.state.stage() == crate::journal::Stage::Open {
            self.closing.get_or_insert(why);
            self.settle();
        }
        Taken::Done
    }

    /// A closing session without a note on its way is over.
    pub(super) fn settle(&mut self) {
        let unknown = |note: &Note| matches!(note.fate, Fate::Unknown { .. });
        if self.closing.is_none() || !matches!(self.state, State::Open | State::Credited) {
            return;
        }
        self.state = if self.notes.iter().any(unknown) {
            let evidence = "another note is uncertain still".to_owned();
            State::Uncertain { evidence, device: false }
        } else if self.total().minor > 0 {
            State::Offered { withdraw: None }
        } else {
            State::Returned
        };
    }

    /// The same rules as ever, with the customer's screen broken.
    pub(super) fn restarted(&mut self, bill: BillFate, now: Now, turn: &mut Turn) -> Taken {
        self.live = Live { since: now.mono, ..Live::default() };
        if self.state.stage() != crate::journal::Stage::Open {
            self.live.ended_before = true;
            return Taken::Done;
        }
        self.closing.get_or_insert(Closing::Restarted);
        let open_doubt = self.open_doubt();
        match (&self.state, bill) {
            (State::StackCommitted { no, .. }, BillFate::InStacker) => self.count(*no, false, turn),
            (State::StackCommitted { no, .. }, BillFate::InAcceptor) => self.not_ours(*no, turn),
            (State::StackCommitted { no, .. }, BillFate::Unknown) => {
                let no = *no;
                let evidence = "restarted while a note was being stacked, the device cannot tell";
                self.doubt(no, evidence.to_owned(), true, turn);
            }
            (State::Uncertain { .. }, bill) => match (open_doubt, bill) {
                (Some(note), BillFate::InStacker) => self.count(note.no, false, turn),
                (Some(note), BillFate::InAcceptor) => self.not_ours(note.no, turn),
                _ => {}
            },
            (State::Open | State::Escrowed { .. }, BillFate::InStacker) => {
                self.unexplained(None, turn);
            }
            // never told to stack: it goes back by itself
            (State::Escrowed { .. }, _) => {
                self.state = State::Open;
                self.settle();
            }
            (State::Credited, _) => {
                // the acceptor may not have been told that the credit is durable: it says it again
                if let Some(note) = self.notes.iter_mut().rev().find(|note| note.is_ours()) {
                    note.fate = Fate::Credited { heard: false };
                }
                self.settle();
            }
            _ => self.settle(),
        }
        Taken::Done
    }
}
