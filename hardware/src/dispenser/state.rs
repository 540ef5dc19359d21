//! What the engine of every dispenser knows of its device, whatever the protocol.
//!
//! Promise: bays and exit are told when they change, silence once, and a plan that cannot be begun
//! is refused in words before anything is sent.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;

use super::{
    BayState, DeviceFault, DispenseOutcome, DispensePlan, DispenserEvent, DispenserLimits,
    FaultKind,
};

/// Most cassettes that a protocol of ours addresses.
pub(crate) const SLOTS: usize = 4;
const EXIT_POLL_MS: u64 = 1_000;
const IDLE_POLL_MS: u64 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    NeverUp,
    Up,
    Down,
}

pub(crate) struct State {
    limits: DispenserLimits,
    pub(crate) link: Link,
    /// The bays, once the device has been set up and for as long as it answers well.
    pub(crate) bays: Option<BTreeMap<BayId, BayState>>,
    /// Bays that the device could not pick from, until they are configured anew while well.
    pub(crate) empty: BTreeSet<BayId>,
    pub(crate) notes_at_exit: bool,
    /// The bays are to be set up, and neither are they yet, nor was told why not.
    coming: bool,
    silent: bool,
    pub(crate) poll_at: Mono,
    pub(crate) events: Vec<DispenserEvent>,
}

impl State {
    pub(crate) const fn new(limits: DispenserLimits) -> Self {
        Self {
            limits,
            link: Link::NeverUp,
            bays: None,
            empty: BTreeSet::new(),
            notes_at_exit: false,
            coming: false,
            silent: false,
            poll_at: Mono(0),
            events: Vec::new(),
        }
    }

    pub(crate) fn up(&mut self, now: Mono) {
        if self.link == Link::Down {
            self.events.push(DispenserEvent::Recovered);
        }
        self.link = Link::Up;
        self.silent = false;
        self.poll_at = now.after(IDLE_POLL_MS);
    }

    pub(crate) fn down(&mut self, why: &str) {
        self.bays = None;
        self.coming = false;
        self.empty.clear();
        if self.link != Link::Down {
            self.fault(FaultKind::LinkLost, why.to_owned());
        }
        self.link = Link::Down;
    }

    /// What a status says: whether notes lie at the exit, and which cassettes are there, where the
    /// device tells.
    pub(crate) fn status(
        &mut self,
        at_exit: Option<bool>,
        present: Option<[bool; SLOTS]>,
        now: Mono,
    ) {
        if std::mem::take(&mut self.silent) {
            self.events.push(DispenserEvent::Recovered);
        }
        if let Some(notes) = at_exit {
            if self.notes_at_exit && !notes {
                self.events.push(DispenserEvent::Taken);
            }
            self.notes_at_exit = notes;
        }
        if let (Some(bays), Some(cassettes)) = (&mut self.bays, present) {
            for (bay, state) in bays {
                let there = slot(*bay).and_then(|slot| cassettes.get(slot)).is_some_and(|is| *is);
                if !there {
                    self.empty.remove(bay);
                }
                *state = match (there, self.empty.contains(bay)) {
                    (false, _) => BayState::Missing,
                    (true, true) => BayState::Empty,
                    (true, false) => BayState::Present,
                };
            }
        }
        self.poll_later(now);
    }

    /// The bays are set up; a status that follows says which cassettes are there.
    pub(crate) fn set_up(&mut self, bays: &BTreeSet<BayId>) {
        let state = |bay: &BayId| {
            let empty = self.empty.contains(bay);
            (*bay, if empty { BayState::Empty } else { BayState::Present })
        };
        self.bays = Some(bays.iter().map(state).collect());
        self.coming = false;
    }

    /// The bays are to be set up (again).
    pub(crate) fn unset(&mut self) {
        self.coming = true;
        if self.bays.take().is_some() {
            // set up again although nothing was wrong: somebody has been at the cassettes
            self.empty.clear();
        }
    }

    /// What keeps the set-up from its end was told: nobody waits for it.
    pub(crate) fn set_up_rests(&mut self) {
        self.coming = false;
    }

    /// Tells the bays after a status, if they have changed or somebody `asked`. Who asks while they
    /// are set up is answered by the end of that.
    pub(crate) fn polled(&mut self, before: Option<&BTreeMap<BayId, BayState>>, asked: bool) {
        if self.bays.is_none() {
            if asked && !self.coming {
                let detail = "the dispenser answers but is not set up: configure its bays";
                self.fault(FaultKind::ServiceNeeded, detail.to_owned());
            }
        } else if asked || before != self.bays.as_ref() {
            self.ready();
        }
    }

    pub(crate) fn ready(&mut self) {
        if let Some(bays) = self.bays.clone() {
            let notes_at_exit = self.notes_at_exit;
            self.events.push(DispenserEvent::Ready { bays, notes_at_exit });
        }
    }

    pub(crate) fn poll_later(&mut self, now: Mono) {
        let ms = if self.notes_at_exit { EXIT_POLL_MS } else { IDLE_POLL_MS };
        self.poll_at = now.after(ms);
    }

    pub(crate) fn poll_soon(&mut self, now: Mono) {
        self.poll_at = now.after(EXIT_POLL_MS);
    }

    /// The device did not answer something harmless: it must be set up again when it does. Said
    /// once, and to whoever `asked`.
    pub(crate) fn no_answer(&mut self, why: String, asked: bool, waiting: bool, now: Mono) {
        let known = self.silent;
        self.gone(now);
        if waiting {
            self.not_started(FaultKind::Silent, why);
        } else if asked || !known {
            self.fault(FaultKind::Silent, format!("{why}; check its power and its cable"));
        }
    }

    /// The device has stopped answering.
    pub(crate) fn gone(&mut self, now: Mono) {
        self.bays = None;
        self.coming = false;
        self.silent = true;
        self.poll_at = now.after(IDLE_POLL_MS);
    }

    pub(crate) fn fault(&mut self, kind: FaultKind, detail: String) {
        self.coming = false;
        self.events.push(DispenserEvent::Fault(DeviceFault { kind, detail }));
    }

    pub(crate) fn not_started(&mut self, kind: FaultKind, detail: String) {
        let outcome = DispenseOutcome::NotStarted(DeviceFault { kind, detail });
        self.events.push(DispenserEvent::Dispensed(outcome));
    }

    pub(crate) fn unknowable(&mut self, last_seen: String) {
        let outcome = DispenseOutcome::Unknowable { last_seen };
        self.events.push(DispenserEvent::Dispensed(outcome));
    }

    /// The device's own final answer.
    pub(crate) fn finished(&mut self, bays: BayResults, fault: Option<DeviceFault>, now: Mono) {
        if fault.is_some() {
            self.bays = None;
        }
        self.notes_at_exit |= bays.values().any(|bay| bay.presented > 0);
        self.poll_soon(now);
        self.events.push(DispenserEvent::Dispensed(DispenseOutcome::Final { bays, fault }));
    }

    /// Why these bays cannot be set up at all.
    pub(crate) fn unfit<'a>(&self, bays: impl IntoIterator<Item = &'a BayId>) -> Option<String> {
        let most = self.limits.bays;
        let mut any = false;
        for bay in bays {
            any = true;
            if bay.get() > most {
                return Some(format!("expected bays 1 to {most}, got bay {bay}"));
            }
        }
        (!any).then(|| "expected at least one bay with notes, got none".to_owned())
    }

    /// Why this plan cannot be begun at all; `busy` is whether another is under way.
    pub(crate) fn refusal(&self, plan: &DispensePlan, busy: bool) -> Option<DeviceFault> {
        self.refuse(plan, busy, false)
    }

    /// The same of a device that keeps a plan until its bays are set up: whoever ordered it may have
    /// heard of the set-up before, or of none. It is held against the bays when they are there.
    pub(crate) fn refusal_so_far(&self, plan: &DispensePlan, busy: bool) -> Option<DeviceFault> {
        self.refuse(plan, busy, self.coming)
    }

    fn refuse(&self, plan: &DispensePlan, busy: bool, may_wait: bool) -> Option<DeviceFault> {
        let no = |kind, detail: String| Some(DeviceFault { kind, detail });
        if self.link != Link::Up {
            return no(FaultKind::LinkLost, "the port is not open".to_owned());
        }
        let bays = self.bays.as_ref();
        if busy || bays.is_none() && !may_wait {
            let detail = if busy {
                "another dispense is under way: wait for its outcome"
            } else {
                "the dispenser is not set up: configure its bays and wait until it is ready"
            };
            return no(FaultKind::ServiceNeeded, detail.to_owned());
        }
        for (bay, notes) in &plan.notes {
            if bays.is_some_and(|bays| !bays.contains_key(bay)) {
                let detail = format!("bay {bay} was not configured");
                return no(FaultKind::ServiceNeeded, detail);
            }
            if *notes > self.limits.notes_per_bay {
                let limit = self.limits.notes_per_bay;
                let detail = format!(
                    "expected at most {limit} notes of a bay in one command, got {notes} of bay \
                     {bay}: split the plan into batches"
                );
                return no(FaultKind::ServiceNeeded, detail);
            }
        }
        if plan.notes.values().all(|notes| *notes == 0) {
            return no(FaultKind::ServiceNeeded, "the plan holds no notes".to_owned());
        }
        None
    }
}

/// The place of a bay in a command.
pub(crate) fn slot(bay: BayId) -> Option<usize> {
    usize::from(bay.get()).checked_sub(1).filter(|slot| *slot < SLOTS)
}

/// What is a fault among what a dispenser tells.
pub(crate) const fn is_fault(event: &DispenserEvent) -> bool {
    match event {
        DispenserEvent::Fault(_) => true,
        DispenserEvent::Dispensed(outcome) => {
            !matches!(outcome, DispenseOutcome::Final { fault: None, .. })
        }
        DispenserEvent::Ready { .. } | DispenserEvent::Taken | DispenserEvent::Recovered => false,
    }
}
