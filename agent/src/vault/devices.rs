//! Note validator and dispenser: what they say, and what they are told.
//!
//! Promise: a device's word goes to the one transaction that it is about; what belongs to none is
//! written down. A dispenser is set up again after each fault and refill, while no plan is under way.
//!
//! Failure policy: a device in trouble takes what it does off the screen; its fault is in the
//! report, in its own words.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_hardware::acceptor::{
    Acceptor, AcceptorCommand, AcceptorEvent, DeviceFault, FaultKind, PowerUpBill,
};
use bitspire_hardware::dispenser::{
    BayState, DispenseOutcome, Dispenser, DispenserCommand, DispenserEvent,
};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::DeviceStatus;
use bitspire_shared::time::Mono;

use super::VaultError;
use super::core::Vault;
use crate::journal::{ByJournal, Stage};
use crate::txn::{Input, Txn};

/// Between two tries to set a dispenser up.
const SET_UP_MS: u64 = 30_000;
/// How long a set-up may take; notes at the exit must be taken first.
const COMING_MS: u64 = 60_000;

/// The note validator.
pub(super) struct Taker {
    device: Box<dyn Acceptor<ByJournal>>,
    pub(super) status: DeviceStatus,
    pub(super) fault: Option<String>,
    pub(super) version: Option<String>,
    /// The notes of our currency that it knows.
    pub(super) notes: BTreeSet<Denomination>,
    /// Where a note was when it was found.
    pub(super) found: Option<PowerUpBill>,
    pub(super) cashbox_out: bool,
    /// When it is reset, where it waits for that.
    reset_at: Option<Mono>,
}

/// The dispenser.
pub(super) struct Giver {
    device: Box<dyn Dispenser<ByJournal>>,
    pub(super) status: DeviceStatus,
    pub(super) fault: Option<String>,
    /// The bays as it sees them; none until it is set up.
    pub(super) bays: BTreeMap<BayId, BayState>,
    /// Since when notes lie at its exit, where they do.
    pub(super) exit: Option<Mono>,
    /// Whether it is to be set up, and from when on that may be tried.
    set_up: Option<Mono>,
    /// Since when it is being set up.
    setting_up: Option<Mono>,
}

impl Taker {
    /// Nothing is known of it yet.
    pub(super) fn new(device: Box<dyn Acceptor<ByJournal>>) -> Self {
        Self {
            device,
            status: DeviceStatus::Starting,
            fault: None,
            version: None,
            notes: BTreeSet::new(),
            found: None,
            cashbox_out: false,
            reset_at: None,
        }
    }

    /// What went over its line last.
    pub(super) fn frames(&self) -> Vec<String> {
        self.device.frames()
    }
}

impl Giver {
    /// Likewise.
    pub(super) fn new(device: Box<dyn Dispenser<ByJournal>>) -> Self {
        Self {
            device,
            status: DeviceStatus::Starting,
            fault: None,
            bays: BTreeMap::new(),
            exit: None,
            set_up: Some(Mono(0)),
            setting_up: None,
        }
    }

    /// What went over its line last.
    pub(super) fn frames(&self) -> Vec<String> {
        self.device.frames()
    }

    /// Whether its driver took the command.
    pub(super) fn send(&mut self, command: DispenserCommand<ByJournal>) -> bool {
        let sent = self.device.send(command);
        if let Err(error) = &sent {
            tracing::error!(event = "dispenser_not_told", %error);
            self.status = DeviceStatus::Fault;
            self.fault = Some(error.to_string());
        }
        sent.is_ok()
    }

    /// It is to be set up again: its notes, its path or its power changed.
    pub(super) fn set_up_again(&mut self, at: Mono) {
        self.set_up = Some(at);
    }

    /// Whether it will be ready, or in trouble, before long.
    pub(super) fn is_coming(&self, now: Mono) -> bool {
        self.set_up.is_some_and(|at| now >= at)
            || self.setting_up.is_some_and(|since| now.since(since) < COMING_MS)
    }

    fn is_down(&mut self, fault: DeviceFault) {
        self.bays.clear();
        self.setting_up = None;
        self.status = status_of(fault.kind);
        self.fault = Some(fault.detail);
    }
}

pub(super) const fn status_of(kind: FaultKind) -> DeviceStatus {
    match kind {
        FaultKind::Silent | FaultKind::LinkLost => DeviceStatus::Silent,
        FaultKind::Jam | FaultKind::Cassette | FaultKind::Cheated | FaultKind::ServiceNeeded => {
            DeviceStatus::Fault
        }
    }
}

impl Vault {
    /// Tells the acceptor, if there is one.
    pub(super) fn tell_acceptor(&mut self, command: AcceptorCommand<ByJournal>) {
        let Some(taker) = &mut self.acceptor else { return };
        if let Err(error) = taker.device.send(command) {
            tracing::error!(event = "acceptor_not_told", %error);
            taker.status = DeviceStatus::Fault;
            taker.fault = Some(error.to_string());
            let detail = error.to_string();
            self.queue.extend(self.feeding.map(|txid| (txid, Input::AcceptorFault { detail })));
        }
    }

    /// No notes from now on.
    pub(super) fn close_inlet(&mut self) {
        self.tell_acceptor(AcceptorCommand::Accept(BTreeSet::new()));
    }

    fn tell_feeding(&mut self, input: Input) {
        self.queue.extend(self.feeding.map(|txid| (txid, input)));
    }

    /// Resets a validator that needed a hand: whoever took the note out has no other way to say so.
    /// Until then the RESET changes nothing; a note that was under way is told after it, as after a
    /// start.
    pub(super) fn reset_acceptor(&mut self) {
        let now = self.mono();
        let again = now.after(self.pace.reset);
        let Some(taker) = &mut self.acceptor else { return };
        if taker.reset_at.is_some_and(|at| now >= at) {
            taker.reset_at = Some(again);
            self.tell_acceptor(AcceptorCommand::Reset);
        }
    }

    pub(super) fn acceptor_says(&mut self, event: AcceptorEvent) -> Result<(), VaultError> {
        let (now, pace) = (self.mono(), self.pace.reset);
        let Some(taker) = &mut self.acceptor else { return Ok(()) };
        match event {
            AcceptorEvent::Identified { version, notes } => {
                let own = self.config.currency;
                let ours = notes.into_iter().filter(|(_, currency)| Some(*currency) == own);
                taker.notes = ours.map(|(note, _)| note).collect();
                tracing::info!(event = "acceptor_found", version, notes = taker.notes.len());
                taker.version = Some(version);
            }
            AcceptorEvent::PoweredUp(bill) => {
                tracing::info!(event = "acceptor_powered_up", ?bill);
                taker.found = Some(bill);
            }
            AcceptorEvent::Accepting | AcceptorEvent::Closed => {
                if taker.status != DeviceStatus::Ready {
                    self.reports.soon(Mono(0));
                }
                taker.status = DeviceStatus::Ready;
                (taker.fault, taker.reset_at) = (None, None);
                // it has nothing more to credit
                self.unheard = None;
            }
            AcceptorEvent::Escrowed(bill) => {
                let allowed = self.may_take(&bill)?;
                let known = self.feeding.filter(|txid| self.txns.contains_key(txid));
                match known {
                    Some(txid) => self.queue.push_back((txid, Input::Escrowed { bill, allowed })),
                    None => self.tell_acceptor(AcceptorCommand::Return),
                }
            }
            AcceptorEvent::Credit { escrowed, denomination } => {
                self.boxes.ask();
                match self.feeding.filter(|txid| self.txns.contains_key(txid)) {
                    Some(_) => self.tell_feeding(Input::Credit { escrowed, denomination }),
                    None => {
                        let said = denomination.or(escrowed.map(|bill| bill.denomination));
                        self.credit_of_nobody(said)?;
                    }
                }
            }
            AcceptorEvent::Stacked => self.tell_feeding(Input::Stacked),
            AcceptorEvent::Returned => self.tell_feeding(Input::Returned),
            AcceptorEvent::Rejected { reason } => {
                tracing::info!(event = "note_rejected", reason);
            }
            AcceptorEvent::CashboxRemoved(out) => {
                tracing::warn!(event = "cashbox", out);
                taker.cashbox_out = out;
                self.reports.soon(Mono(0));
                if out && !self.service.is_inside() {
                    let words = "the cashbox was taken out and nobody was in service mode";
                    self.raise("cashbox_pulled", words.to_owned());
                }
            }
            AcceptorEvent::Fault(DeviceFault { kind, detail }) => {
                tracing::error!(event = "acceptor_fault", ?kind, detail);
                taker.status = status_of(kind);
                taker.fault = Some(detail.clone());
                // a line that is lost or silent comes back by itself
                let latches = taker.status == DeviceStatus::Fault;
                taker.reset_at = latches.then(|| now.after(pace));
                self.reports.soon(Mono(0));
                if kind == FaultKind::ServiceNeeded && self.feeding.is_none() {
                    // it may be over in a moment, and what it said about a note with it
                    self.raise("acceptor_fault", detail.clone());
                }
                self.tell_feeding(Input::AcceptorFault { detail });
            }
            AcceptorEvent::Recovered => {
                taker.status = DeviceStatus::Starting;
                (taker.fault, taker.reset_at) = (None, None);
                self.reports.soon(Mono(0));
            }
        }
        Ok(())
    }

    pub(super) fn dispenser_says(&mut self, event: DispenserEvent) {
        let now = self.mono();
        let Some(giver) = &mut self.dispenser else { return };
        match event {
            DispenserEvent::Ready { bays, notes_at_exit } => {
                tracing::info!(event = "dispenser_ready", bays = bays.len(), notes_at_exit);
                giver.bays = bays;
                giver.exit = notes_at_exit.then(|| giver.exit.unwrap_or(now));
                giver.setting_up = None;
                giver.status = DeviceStatus::Ready;
                giver.fault = None;
                self.reports.soon(now);
            }
            DispenserEvent::Dispensed(outcome) => {
                tracing::info!(event = "dispensed", ?outcome);
                if let DispenseOutcome::Final { bays, .. } = &outcome
                    && bays.values().any(|bay| bay.presented > 0)
                {
                    giver.exit.get_or_insert(now);
                }
                match &outcome {
                    DispenseOutcome::Final { fault: None, .. } => {}
                    DispenseOutcome::Final { fault: Some(fault), .. }
                    | DispenseOutcome::NotStarted(fault) => {
                        giver.is_down(fault.clone());
                        giver.set_up_again(now);
                    }
                    DispenseOutcome::Unknowable { last_seen } => {
                        let detail = last_seen.clone();
                        giver.is_down(DeviceFault { kind: FaultKind::ServiceNeeded, detail });
                        giver.set_up_again(now);
                    }
                }
                self.boxes.ask();
                match self.dispensing.take() {
                    Some((txid, _)) if self.is_trial(txid) => {
                        self.trial_answer = Some((txid, outcome));
                    }
                    Some((txid, no)) => {
                        self.queue.push_back((txid, Input::Dispensed { no, outcome }));
                    }
                    None => tracing::error!(event = "answer_to_no_dispense", ?outcome),
                }
            }
            DispenserEvent::Taken => {
                giver.exit = None;
                let waits = |txn: &Txn| matches!(txn, Txn::CashOut(_));
                let open = self.txns.iter().filter(|(_, txn)| waits(txn));
                let open = open.filter(|(_, txn)| txn.stage() == Stage::Open);
                let all: Vec<_> = open.map(|(txid, _)| (*txid, Input::Taken)).collect();
                self.queue.extend(all);
            }
            DispenserEvent::Fault(fault) => {
                tracing::error!(event = "dispenser_fault", kind = ?fault.kind, fault.detail);
                giver.is_down(fault);
                giver.set_up = Some(now.after(SET_UP_MS));
                self.reports.soon(now);
            }
            DispenserEvent::Recovered => {
                giver.status = DeviceStatus::Starting;
                giver.set_up_again(now);
            }
        }
    }

    /// Sets the dispenser up where that is due and no plan is under way.
    pub(super) fn set_bays_up(&mut self) {
        let now = self.mono();
        let bays: BTreeMap<_, _> = match &self.config.recycler {
            Some(recycler) => recycler.bays.clone(),
            None => {
                let fitted = self.config.giver().bays;
                let bays = self.journal.holdings().bays.iter();
                let bays = bays.filter(|(id, _)| id.get() <= fitted);
                bays.map(|(id, bay)| (*id, bay.denomination)).collect()
            }
        };
        let Some(giver) = &mut self.dispenser else { return };
        let due = giver.set_up.is_some_and(|at| now >= at);
        if due && self.dispensing.is_none() && !bays.is_empty() {
            giver.set_up = None;
            giver.setting_up = Some(now);
            giver.send(DispenserCommand::Configure(bays));
        }
    }

    /// Chooses notes for a transaction that waits for that, unless the dispenser is being set up:
    /// then as soon as it is ready, or in trouble.
    pub(super) fn plan_if_ready(&mut self) -> Result<(), VaultError> {
        let Some((txid, rest)) = self.to_plan else { return Ok(()) };
        let now = self.mono();
        if self.dispenser.as_ref().is_some_and(|giver| giver.is_coming(now)) {
            return Ok(());
        }
        self.to_plan = None;
        let lots = self.plan(rest)?;
        self.queue.push_back((txid, Input::Planned(lots)));
        Ok(())
    }
}
