//! What a recycler of any make has been asked to do and has not begun.
//!
//! Promise: one order waits at a time, no longer than [`REST_MS`] for the inlet to close and for boxes
//! that are being set up; one that is not begun is told as not started.

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;

use super::{EmptyOutcome, Emptying, RecyclerEvent};
use crate::Authority;
use crate::acceptor::{DeviceFault, FaultKind};
use crate::dispenser::DispensePlan;
use crate::dispenser::state::State;

/// A plan waits for so long until the inlet is closed and no note is in the device.
const REST_MS: u64 = 30_000;

/// Orders with their proofs.
pub(super) struct Orders<A: Authority> {
    plan: Option<(A::Committed<DispensePlan>, Mono)>,
    emptying: Option<(A::Committed<Emptying>, Mono)>,
}

impl<A: Authority> Orders<A> {
    pub(super) const fn new() -> Self {
        Self { plan: None, emptying: None }
    }

    pub(super) const fn any(&self) -> bool {
        self.plan.is_some() || self.emptying.is_some()
    }

    /// Keeps a plan, or tells why it cannot be begun; `busy` is whether notes move.
    pub(super) fn plan(
        &mut self,
        plan: A::Committed<DispensePlan>,
        state: &mut State,
        busy: bool,
        now: Mono,
    ) {
        match state.refusal_so_far(plan.as_ref(), busy || self.any()) {
            Some(DeviceFault { kind, detail }) => state.not_started(kind, detail),
            None => self.plan = Some((plan, now.after(REST_MS))),
        }
    }

    /// Keeps an emptying; the event says why it cannot be begun.
    pub(super) fn empty(
        &mut self,
        wish: A::Committed<Emptying>,
        state: &State,
        busy: bool,
        now: Mono,
    ) -> Option<RecyclerEvent> {
        let bay = wish.as_ref().bay;
        let plan = DispensePlan { notes: BTreeMap::from([(bay, 1)]) };
        let refusal = state.refusal(&plan, busy || self.any());
        if refusal.is_none() {
            self.emptying = Some((wish, now.after(REST_MS)));
        }
        refusal.map(|fault| emptied(bay, EmptyOutcome::NotStarted(fault)))
    }

    /// The plan that waits, to be begun now; one that the boxes as they are set up do not allow is
    /// told as not started.
    pub(super) fn take_plan(&mut self, state: &mut State) -> Option<A::Committed<DispensePlan>> {
        let (plan, _) = self.plan.take()?;
        let Some(DeviceFault { kind, detail }) = state.refusal(plan.as_ref(), false) else {
            return Some(plan);
        };
        state.not_started(kind, detail);
        None
    }

    pub(super) fn take_emptying(&mut self) -> Option<A::Committed<Emptying>> {
        self.emptying.take().map(|(wish, _)| wish)
    }

    /// When to look whether one has waited too long.
    pub(super) fn patience(&self) -> Option<Mono> {
        let plan = self.plan.as_ref().map(|(_, end)| *end);
        plan.or(self.emptying.as_ref().map(|(_, end)| *end))
    }

    /// Whatever has waited too long is not started.
    pub(super) fn give_up(&mut self, state: &mut State, now: Mono) -> Option<RecyclerEvent> {
        let over = self.patience().is_some_and(|end| end <= now);
        let why = "the inlet does not close, or the boxes are not set up: a note or a fault is in the way";
        if over { self.cancel(FaultKind::ServiceNeeded, why, state) } else { None }
    }

    /// Whatever waits is not started.
    pub(super) fn cancel(
        &mut self,
        kind: FaultKind,
        why: &str,
        state: &mut State,
    ) -> Option<RecyclerEvent> {
        if self.plan.take().is_some() {
            state.not_started(kind, why.to_owned());
        }
        let fault = DeviceFault { kind, detail: why.to_owned() };
        let wish = self.take_emptying()?;
        Some(emptied(wish.as_ref().bay, EmptyOutcome::NotStarted(fault)))
    }
}

pub(super) const fn emptied(bay: BayId, outcome: EmptyOutcome) -> RecyclerEvent {
    RecyclerEvent::Emptied { bay, outcome }
}

/// Nothing came of so many notes.
pub(super) fn nothing(notes: u32) -> BayResult {
    BayResult {
        requested: notes,
        picked: Some(0),
        presented: 0,
        taken: Some(0),
        retracted: Some(0),
        rejected: Some(0),
    }
}
