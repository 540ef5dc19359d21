//! How a transaction's effects are done.
//!
//! Promise: in their order, the record first; nothing follows a record that is not on the disk. A
//! record that a rule of the journal forbids undoes the step. Results come back as inputs.

use bitspire_hardware::acceptor::AcceptorCommand;
use bitspire_hardware::dispenser::{
    DeviceFault, DispenseOutcome, DispensePlan, DispenserCommand, FaultKind,
};
use bitspire_shared::ids::{JournalSeq, TxnId};
use bitspire_shared::money::Denomination;
use serde_json::Value;

use super::core::Vault;
use super::screens::waits_for_code;
use super::settings::Setting;
use super::{Place, Point, VaultError};
use crate::journal::{CashMove, Entry, JournalError, Stage};
use crate::policy::breaker::Outflow;
use crate::txn::{Effect, Input, Record, Txn};

impl Vault {
    /// Writes an entry.
    pub(super) fn append(&mut self, entry: Entry) -> Result<JournalSeq, VaultError> {
        let at = self.now().unix;
        let seq = self.journal.append(at, entry)?;
        self.flushed()?;
        Ok(seq)
    }

    /// Writes a setting.
    pub(super) fn keep<T: Setting>(&mut self, value: &T) -> Result<JournalSeq, VaultError> {
        let value = serde_json::to_value(value)?;
        self.append(Entry::Setting { key: T::KEY.to_owned(), value, cash: Vec::new() })
    }

    /// Lets go of a setting.
    pub(super) fn forget_setting<T: Setting>(&mut self) -> Result<JournalSeq, VaultError> {
        let (key, value) = (T::KEY.to_owned(), Value::Null);
        self.append(Entry::Setting { key, value, cash: Vec::new() })
    }

    /// An entry is on the disk.
    pub(super) fn flushed(&mut self) -> Result<(), VaultError> {
        let seq = self.journal.head().seq;
        let last = self.halt_after.is_some_and(|last| seq >= last);
        if last || !self.host.reached(Place::Flushed(seq)) {
            return Err(self.halted());
        }
        Ok(())
    }

    /// The power is gone.
    pub(super) fn halted(&self) -> VaultError {
        VaultError::Halted(self.journal.head().seq)
    }

    /// The doing of an effect has come that far.
    pub(super) fn reached(
        &mut self,
        txn: &Txn,
        effect: &'static str,
        point: Point,
    ) -> Result<(), VaultError> {
        if self.host.reached(Place::Effect { txn, effect, point }) {
            return Ok(());
        }
        Err(self.halted())
    }

    /// Tells transactions what they are to be told, until nothing is left.
    pub(super) fn tell_queue(&mut self) -> Result<(), VaultError> {
        while let Some((txid, input)) = self.queue.pop_front() {
            self.step(txid, input)?;
        }
        Ok(())
    }

    fn step(&mut self, txid: TxnId, input: Input) -> Result<(), VaultError> {
        let credit = match &input {
            Input::Credit { escrowed, denomination } => {
                Some(denomination.or(escrowed.map(|bill| bill.denomination)))
            }
            _ => None,
        };
        let Some(txn) = self.txns.get(&txid).cloned() else {
            return match credit {
                Some(said) => self.credit_of_nobody(said),
                None => Ok(()),
            };
        };
        let (next, effects) = txn.step(input, self.now());
        if let [Effect::Ignored { input, state }] = effects.as_slice() {
            tracing::debug!(event = "input_ignored", txn = %txid, input, state);
            return match credit {
                Some(said) => self.credit_of_nobody(said),
                None => Ok(()),
            };
        }
        if credit.is_some() {
            self.unheard = None;
        }
        self.perform(txid, next, effects)
    }

    /// A note was credited that no transaction takes: it is in doubt whose it is, unless it is one
    /// that counted before the start.
    pub(super) fn credit_of_nobody(
        &mut self,
        said: Option<Denomination>,
    ) -> Result<(), VaultError> {
        let unheard = self.unheard.take();
        if unheard.is_some() && said.is_none_or(|said| Some(said) == unheard) {
            tracing::info!(event = "credit_of_before_the_start");
            self.tell_acceptor(AcceptorCommand::AcknowledgeCredit);
            return Ok(());
        }
        if let Some(denomination) = said {
            let doubt = CashMove::StackDoubt { denomination, counted: false };
            self.append(Entry::Cash(vec![doubt]))?;
        }
        let note =
            said.map_or("unknown".to_owned(), |note| format!("{} minor units", note.minor()));
        self.raise("unexplained_credit", format!("a note was stacked that no sale took: {note}"));
        self.tell_acceptor(AcceptorCommand::AcknowledgeCredit);
        Ok(())
    }

    /// Does the effects of a step to `next`, in order.
    pub(super) fn perform(
        &mut self,
        txid: TxnId,
        next: Txn,
        effects: Vec<Effect>,
    ) -> Result<(), VaultError> {
        for effect in effects {
            let name = effect.name();
            // a step may write two records: the place is in the one of this effect
            let own = match &effect {
                Effect::Journal(record)
                | Effect::Dispense { record, .. }
                | Effect::Stack { record, .. } => Some(record.txn.clone()),
                _ => None,
            };
            let at = own.as_ref().unwrap_or(&next);
            self.reached(at, name, Point::Before)?;
            match effect {
                Effect::Journal(record) => {
                    let entry = Entry::Txn(record.to_entry()?);
                    match self.journal.append(self.now().unix, entry) {
                        Ok(_) => self.recorded(*record, name)?,
                        Err(error) => return self.record_refused(&record, error),
                    }
                }
                Effect::Dispense { record, no, plan } => {
                    if !self.dispense(*record, name, no, plan)? {
                        return Ok(());
                    }
                }
                Effect::Stack { record, no, bill } => {
                    if !self.stack(*record, no, bill, name)? {
                        return Ok(());
                    }
                }
                Effect::Plan { rest } => {
                    self.to_plan = Some((txid, rest));
                    self.plan_if_ready()?;
                }
                Effect::ReturnBill => self.tell_acceptor(AcceptorCommand::Return),
                Effect::AcknowledgeCredit => {
                    self.tell_acceptor(AcceptorCommand::AcknowledgeCredit);
                }
                Effect::Inlet(notes) => {
                    if self.feeding == Some(txid) {
                        self.tell_acceptor(AcceptorCommand::Accept(notes));
                    }
                }
                Effect::Request(request) => self.ask(&next, name, request)?,
                Effect::Forget(id) => self.forget(id),
                Effect::Alert(alert) => self.txn_alert(txid, &alert),
                // the screen is made from the state after each event
                Effect::Show(_) => {}
                Effect::Ignored { input, state } => {
                    tracing::debug!(event = "input_ignored", txn = %txid, input, state);
                }
            }
            self.reached(at, name, Point::After)?;
        }
        self.txns.insert(txid, next);
        Ok(())
    }

    /// A record is on the disk: the transaction is in its state.
    pub(super) fn recorded(
        &mut self,
        record: Record,
        effect: &'static str,
    ) -> Result<(), VaultError> {
        let (txid, stage) = (record.txn.txid(), record.txn.stage());
        let (state, cause) = (record.txn.name(), record.cause);
        tracing::info!(event = "txn", txn = %txid, state, cause);
        if stage != Stage::Open || waits_for_code(&record.txn) {
            self.reports.soon(self.mono());
        }
        self.flushed()?;
        self.reached(&record.txn, effect, Point::Recorded)?;
        self.txns.insert(txid, record.txn);
        Ok(())
    }

    /// The journal forbids a record, and nothing of it was written; any other error is the end.
    pub(super) fn record_refused(
        &mut self,
        record: &Record,
        error: JournalError,
    ) -> Result<(), VaultError> {
        let why = match &error {
            JournalError::Refused(refusal) => refusal.to_string(),
            // a number beyond what JSON keeps exact, by whoever sent it
            JournalError::Encode(number) => number.to_string(),
            _ => return Err(error.into()),
        };
        let (txid, cause) = (record.txn.txid(), record.cause);
        self.raise("record_refused", format!("{txid}: {cause}: {why}"));
        Ok(())
    }

    /// Commits the plan and gives the proof away; `false` where the step is undone.
    fn dispense(
        &mut self,
        record: Record,
        effect: &'static str,
        no: u32,
        plan: DispensePlan,
    ) -> Result<bool, VaultError> {
        let txid = record.txn.txid();
        let notes = plan.notes.values().fold(0u32, |sum, count| sum.saturating_add(*count));
        let at = self.now().unix;
        let proof = match self.journal.commit(at, record.to_entry()?, no, plan) {
            Ok(proof) => proof,
            Err(error) => {
                self.record_refused(&record, error)?;
                self.queue.push_back((txid, Input::Planned(None)));
                return Ok(false);
            }
        };
        // counted by the intent, as after a restart
        let opened = self.breaker.give(Outflow::Notes(notes), at);
        self.recorded(record, effect)?;
        self.dispensing = Some((txid, no));
        let sent = match &mut self.dispenser {
            Some(giver) => giver.send(DispenserCommand::Dispense(proof)),
            None => false,
        };
        self.queue.push_back((
            txid,
            match sent {
                true => Input::DispenseSent { no },
                false => {
                    self.dispensing = None;
                    let detail = "the dispenser's driver has ended".to_owned();
                    let fault = DeviceFault { kind: FaultKind::ServiceNeeded, detail };
                    Input::Dispensed { no, outcome: DispenseOutcome::NotStarted(fault) }
                }
            },
        ));
        if opened {
            self.breaker_opened()?;
        }
        Ok(true)
    }

    /// The breaker is open from now on.
    pub(super) fn breaker_opened(&mut self) -> Result<(), VaultError> {
        let kept = self.breaker.kept().clone();
        self.keep(&kept)?;
        tracing::error!(event = "breaker_open");
        self.reports.soon(self.mono());
        Ok(())
    }
}
