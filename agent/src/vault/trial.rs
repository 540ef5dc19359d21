//! The test dispense: one note of each bay, to whoever stands at the machine in service mode.
//!
//! Promise: at most one note of each bay, at most three tests in any hour, never beyond the breaker,
//! and only after the journal has the intent, like any dispense; what came of it is in the journal
//! before anything else, and is told to the operator. A test of unknown end leaves its bays in doubt:
//! they give nothing until somebody has counted them. Nothing is ever given again.
//!
//! States, as transactions of the journal: `test_chosen` -> `test_dispensing` (intent on the disk) ->
//! `test_done` (told or not) -> closed once it was told.
//!
//! Failure policy: a restart in `test_chosen` closes it, one in `test_dispensing` is an unknown end.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::{BayState, DispenseOutcome, DispensePlan, DispenserCommand};
use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::{BayId, ChangeId, TxnId};
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::{
    DeviceStatus, DispenseOutcome as Ended, MAX_SERVICE_EVENTS, ServiceAction, ServiceEvent, Tested,
};
use serde::{Deserialize, Serialize};

use super::VaultError;
use super::core::Vault;
use super::service::KeptService;
use crate::journal::{CashMove, Entry, JournalError, Stage, StoredTxn, TxnEntry};
use crate::policy::breaker::Outflow;
use crate::txn::BadState;

/// Tests in any hour.
const PER_HOUR: usize = 3;
const HOUR_S: u64 = 3_600;
/// A test has one intent.
const NO: u32 = 1;

const CHOSEN: &str = "test_chosen";
const DISPENSING: &str = "test_dispensing";
const DONE: &str = "test_done";

/// Whether a transaction of the journal in the state of this name is a test of the dispenser.
#[must_use]
pub fn is_trial(name: &str) -> bool {
    [CHOSEN, DISPENSING, DONE].contains(&name)
}

/// A test, as it is journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    pub(super) txid: TxnId,
    /// One note of each of these bays.
    bays: BTreeMap<BayId, Denomination>,
    /// What is told of it, once it is over.
    pub(super) event: Option<ServiceEvent>,
}

impl Trial {
    /// The test that a stored transaction is, if it is one.
    pub(super) fn from_stored(stored: &StoredTxn) -> Result<Option<Self>, VaultError> {
        if !is_trial(&stored.name) {
            return Ok(None);
        }
        let read = Self::deserialize(&stored.state);
        let bad = |e: serde_json::Error| BadState { txid: stored.txid, detail: e.to_string() };
        Ok(Some(read.map_err(bad)?))
    }

    fn entry(
        &self,
        name: &str,
        stage: Stage,
        cause: &str,
        cash: Vec<CashMove>,
        resolves: Option<u32>,
    ) -> Result<TxnEntry, VaultError> {
        Ok(TxnEntry {
            txid: self.txid,
            name: name.to_owned(),
            stage,
            cause: cause.to_owned(),
            state: serde_json::to_value(self)?,
            cash,
            resolves,
            verdict: None,
        })
    }

    /// Each bay's result, if the device's answer is about this test and can be true.
    fn results(&self, answer: &DispenseOutcome) -> Option<BayResults> {
        let nothing = BayResult {
            requested: 1,
            picked: Some(0),
            presented: 0,
            taken: Some(0),
            retracted: Some(0),
            rejected: Some(0),
        };
        match answer {
            DispenseOutcome::Final { bays, .. } => {
                let about = bays.keys().eq(self.bays.keys());
                let one = |result: &BayResult| result.requested == 1 && result.adds_up();
                (about && bays.values().all(one)).then(|| bays.clone())
            }
            DispenseOutcome::NotStarted(_) => {
                Some(self.bays.keys().map(|bay| (*bay, nothing)).collect())
            }
            DispenseOutcome::Unknowable { .. } => None,
        }
    }
}

impl Vault {
    /// One note of each bay that has one; words for the screen.
    pub(super) fn begin_trial(&mut self) -> Result<Result<String, String>, VaultError> {
        let bays = match self.may_try() {
            Ok(bays) => bays,
            Err(why) => return Ok(Err(why)),
        };
        let at = self.now().unix;
        let mut kept = KeptService { ..self.kept_service.clone() };
        kept.trials.retain(|tried| at.since(*tried) < HOUR_S);
        kept.trials.push(at);
        self.keep(&kept)?;
        self.kept_service = kept;
        let trial = Trial { txid: TxnId::from_bytes(self.random()?), bays, event: None };
        self.append(Entry::Txn(trial.entry(CHOSEN, Stage::Open, "service", Vec::new(), None)?))?;
        let notes: BTreeMap<BayId, u32> = trial.bays.keys().map(|bay| (*bay, 1)).collect();
        let count = u32::try_from(notes.len()).unwrap_or(u32::MAX);
        let plan = DispensePlan { notes };
        let entry = trial.entry(DISPENSING, Stage::Open, "service", Vec::new(), None)?;
        let proof = match self.journal.commit(at, entry, NO, plan) {
            Ok(proof) => proof,
            Err(JournalError::Refused(why)) => {
                let closed = trial.entry(DONE, Stage::Closed, "refused", Vec::new(), None)?;
                self.append(Entry::Txn(closed))?;
                return Ok(Err(why.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let opened = self.breaker.give(Outflow::Notes(count), at);
        self.flushed()?;
        let txid = trial.txid;
        self.trials.push(trial);
        self.dispensing = Some((txid, NO));
        let sent = match &mut self.dispenser {
            Some(giver) => giver.send(DispenserCommand::Dispense(proof)),
            None => false,
        };
        if opened {
            self.breaker_opened()?;
        }
        if !sent {
            self.dispensing = None;
            let last_seen = "the dispenser's driver has ended".to_owned();
            self.end_trial(txid, &DispenseOutcome::Unknowable { last_seen })?;
            return Ok(Err("the dispenser's driver has ended".to_owned()));
        }
        Ok(Ok("The dispenser gives one note of each bay. Take them.".to_owned()))
    }

    /// The bays to give a note of, or why none is given.
    fn may_try(&self) -> Result<BTreeMap<BayId, Denomination>, String> {
        let no = |why: &str| Err(why.to_owned());
        let Some(giver) = &self.dispenser else { return no("this machine gives no notes") };
        if giver.status != DeviceStatus::Ready {
            let fault = giver.fault.as_deref().unwrap_or("it is starting");
            return Err(format!("dispenser: {fault}"));
        }
        if giver.is_coming(self.mono()) {
            return no("the dispenser is being set up: try again in a moment");
        }
        if giver.exit.is_some() {
            return no("notes lie at the exit: take them first");
        }
        if self.dispensing.is_some() || self.to_plan.is_some() {
            return no("the dispenser is at work");
        }
        if self.inspection.broken().is_some() || self.disk.is_low() {
            return no("the journal does not hold, or has no room: see the alerts");
        }
        let Some(now) = self.time.known(self.mono()) else {
            return no("the service has not told the time: a test waits for it");
        };
        let lately = self.kept_service.trials.iter().filter(|at| now.since(**at) < HOUR_S);
        if lately.count() >= PER_HOUR {
            return Err(format!("it was tested {PER_HOUR} times within the hour"));
        }
        if self.untold().len() >= MAX_SERVICE_EVENTS {
            return no("the operator's service has not heard of what was done here before");
        }
        let ready = |state: BayState| !matches!(state, BayState::Missing);
        let stock = self.stock(0);
        let bays = stock.iter().filter(|(_, stock)| stock.notes > 0 && ready(stock.state));
        let bays: BTreeMap<_, _> = bays.map(|(bay, stock)| (*bay, stock.denomination)).collect();
        if bays.is_empty() {
            return no("no bay has a note that can be given");
        }
        if u32::try_from(bays.len()).is_ok_and(|count| count > self.breaker.allowance(now)) {
            return no("the breaker allows no more notes for now");
        }
        Ok(bays)
    }

    /// Whether the dispenser's answer is about a test.
    pub(super) fn is_trial(&self, txid: TxnId) -> bool {
        self.trials.iter().any(|trial| trial.txid == txid)
    }

    /// The device has answered, or nobody knows what it did.
    pub(super) fn end_trial(
        &mut self,
        txid: TxnId,
        answer: &DispenseOutcome,
    ) -> Result<(), VaultError> {
        let Some(trial) = self.trials.iter().find(|trial| trial.txid == txid) else {
            return Ok(());
        };
        let mut trial = trial.clone();
        if trial.event.is_some() {
            return Ok(());
        }
        let results = trial.results(answer);
        let unknown = BayResult { requested: 1, ..BayResult::default() };
        let outcome = match &results {
            None => Ended::Uncertain,
            Some(results) => {
                let out = results.values().filter(|result| result.delivered() > 0).count();
                match out {
                    0 => Ended::None,
                    n if n == results.len() => Ended::Full,
                    _ => Ended::Partial,
                }
            }
        };
        let mut cash = Vec::new();
        for (bay, denomination) in &trial.bays {
            let (bay, denomination) = (*bay, *denomination);
            let Some(results) = &results else {
                cash.push(CashMove::Doubt { bay });
                continue;
            };
            let result = results.get(&bay).copied().unwrap_or(unknown);
            cash.push(CashMove::Dispensed { bay, denomination, result, clears: false });
            if result.untold() > 0 {
                cash.push(CashMove::Unsure { bay, most: result.untold() });
            }
        }
        let tested = trial.bays.iter().map(|(bay, note)| {
            let known = results.as_ref().and_then(|results| results.get(bay));
            let result = known.copied().unwrap_or(unknown);
            (*bay, Tested { denomination_minor: *note, result })
        });
        let action = ServiceAction::TestDispense { outcome, bays: tested.collect() };
        let (id, journal_seq) = (ChangeId::from_bytes(self.random()?), self.next_entry());
        trial.event = Some(ServiceEvent { id, journal_seq, at: self.now().unix, action });
        let entry = trial.entry(DONE, Stage::Ended, "dispensed", cash, Some(NO))?;
        self.append(Entry::Txn(entry))?;
        if outcome == Ended::Uncertain {
            self.raise("test_uncertain", "count the bays: nobody knows what a test gave".into());
        }
        for known in self.trials.iter_mut().filter(|known| known.txid == txid) {
            *known = trial.clone();
        }
        self.reports.soon(self.mono());
        let words = match outcome {
            Ended::Full => "Each bay gave its note.",
            Ended::Partial | Ended::None => "Not each bay gave its note. See its fault.",
            Ended::Uncertain => "Nobody knows what was given: count the bays.",
        };
        let now = self.mono();
        self.service.did(Ok(words.to_owned()), now);
        Ok(())
    }

    /// After a restart: what the journal has of tests that were not told.
    pub(super) fn recover_trial(
        &mut self,
        trial: Trial,
        stored: &StoredTxn,
    ) -> Result<(), VaultError> {
        let txid = trial.txid;
        if trial.event.is_none() && stored.intent.is_none() {
            let closed = trial.entry(DONE, Stage::Closed, "restarted", Vec::new(), None)?;
            self.append(Entry::Txn(closed))?;
            return Ok(());
        }
        self.trials.push(trial);
        let last_seen = "restarted during a test, the device cannot tell".to_owned();
        self.end_trial(txid, &DispenseOutcome::Unknowable { last_seen })
    }

    /// The service has heard of these.
    pub(super) fn trials_told(&mut self, events: &[ChangeId]) -> Result<(), VaultError> {
        let heard =
            |trial: &&Trial| trial.event.as_ref().is_some_and(|event| events.contains(&event.id));
        let told: Vec<Trial> = self.trials.iter().filter(heard).cloned().collect();
        for trial in told {
            let entry = trial.entry(DONE, Stage::Closed, "told", Vec::new(), None)?;
            self.append(Entry::Txn(entry))?;
            self.trials.retain(|known| known.txid != trial.txid);
        }
        Ok(())
    }
}
