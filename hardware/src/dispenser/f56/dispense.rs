//! A dispense: status, count command, its answer or the lack of it.
//!
//! Promise and failure policy: the module above; each plan ends in exactly one outcome.

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;

use super::line::{LineEvent, Nature};
use super::{DispenseStep, F56, Job, LIMITS, fault_kind, slot};
use crate::Authority;
use crate::dispenser::{DeviceFault, DispensePlan, FaultKind};
use crate::frame::f56::{BayCount, Counts, Reply, Request, SLOTS, TwoDigits};
use crate::frame::hex;

impl<A: Authority> F56<A> {
    pub(super) fn on_dispense(
        &mut self,
        plan: A::Committed<DispensePlan>,
        step: DispenseStep,
        event: LineEvent,
        now: Mono,
    ) {
        match (step, event) {
            (DispenseStep::Look, LineEvent::Reply(reply)) => {
                self.on_status(&reply, now);
                if let Some(error) = reply.error() {
                    let kind = fault_kind(&error);
                    self.state.bays = None;
                    self.state.not_started(kind, format!("the device is not well: {error}"));
                } else if self.state.notes_at_exit {
                    let detail = "notes lie at the exit: wait until they are taken".to_owned();
                    self.state.not_started(FaultKind::ServiceNeeded, detail);
                } else {
                    let request = Request::Count(Counts::new(wanted(plan.as_ref())));
                    self.line.send(request, Nature::Money, now);
                    self.job = Job::Dispense { plan, step: DispenseStep::Command };
                }
            }
            (
                step @ (DispenseStep::Look | DispenseStep::Command),
                LineEvent::NotSent { silent, why },
            ) => {
                let kind = if silent { FaultKind::Silent } else { FaultKind::ServiceNeeded };
                let what = if matches!(step, DispenseStep::Look) { "status" } else { "dispense" };
                self.state.gone(now);
                self.state.not_started(kind, format!("{what}: {why}"));
            }
            (DispenseStep::Look, LineEvent::Lost { why }) => {
                self.state.gone(now);
                self.state.not_started(FaultKind::Silent, format!("status: {why}"));
            }
            (DispenseStep::Command, LineEvent::Reply(reply)) => {
                self.on_count(plan.as_ref(), &reply, now);
            }
            (DispenseStep::Command, LineEvent::Lost { why }) => {
                let why = format!("{why}; last heard: {}", self.line.heard());
                self.line.send(Request::Status, Nature::Listening, now);
                self.job = Job::Dispense { plan, step: DispenseStep::LastLook { why } };
            }
            (DispenseStep::LastLook { why }, LineEvent::Reply(reply)) => {
                self.state.bays = None;
                self.on_status(&reply, now);
                let exit = match reply.notes_at_exit() {
                    Some(true) => "notes lie at the exit",
                    Some(false) => "no notes lie at the exit",
                    None => "the exit is not reported",
                };
                self.state.unknowable(format!("{why}; status afterwards: {exit}"));
            }
            (
                DispenseStep::LastLook { why },
                LineEvent::NotSent { .. } | LineEvent::Lost { .. },
            ) => {
                self.state.gone(now);
                self.state.unknowable(format!("{why}; no answer to a status afterwards"));
            }
            (DispenseStep::LastLook { .. }, LineEvent::Stray(reply)) if is_count(&reply) => {
                self.on_count(plan.as_ref(), &reply, now);
                // the status is still under way
                self.job = Job::Poll;
            }
            (step, LineEvent::Stray(_)) => self.job = Job::Dispense { plan, step },
        }
    }

    /// The device's own final answer.
    pub(super) fn on_count(&mut self, plan: &DispensePlan, reply: &Reply, now: Mono) {
        let Some(counts) = reply.counts() else {
            self.state.bays = None;
            self.state.poll_soon(now);
            let heard = hex(reply.payload());
            return self.state.unknowable(format!("an answer without readable counts: {heard}"));
        };
        let error = reply.error();
        let bays = results(plan, &counts, error.is_none());
        let fault = match error {
            Some(error) => {
                self.state.empty.extend(error.empty_cassette());
                Some(DeviceFault { kind: fault_kind(&error), detail: error.to_string() })
            }
            None => bays.iter().find(|(_, bay)| bay.presented != bay.requested).map(|(id, bay)| {
                let BayResult { requested, presented, .. } = bay;
                let detail = format!(
                    "the device reports success, but counted {presented} notes of bay {id} \
                     instead of {requested}"
                );
                DeviceFault { kind: FaultKind::ServiceNeeded, detail }
            }),
        };
        self.state.finished(bays, fault, now);
    }
}

fn is_count(reply: &Reply) -> bool {
    reply.answers(&Request::Count(Counts::new([TwoDigits::default(); SLOTS])))
}

/// The notes of each cassette; [`State::refusal`](super::State::refusal) has seen to it that they fit.
fn wanted(plan: &DispensePlan) -> [TwoDigits; SLOTS] {
    let mut notes = [TwoDigits::default(); SLOTS];
    for (bay, count) in &plan.notes {
        let place = slot(*bay).and_then(|slot| notes.get_mut(slot));
        if let (Some(place), Some(count)) = (place, TwoDigits::new(*count)) {
            *place = count;
        }
    }
    notes
}

/// Bays that the plan names, and bays that the device counted notes of although it does not.
fn results(plan: &DispensePlan, counts: &[BayCount; SLOTS], complete: bool) -> BayResults {
    let bays = (1..=LIMITS.bays).filter_map(BayId::new).zip(counts);
    let results = bays.map(|(bay, count)| {
        let requested = plan.notes.get(&bay).copied().unwrap_or(0);
        let presented = u32::from(count.dispensed.get());
        let rejected = u32::from(count.rejected.get());
        let picked = complete.then(|| presented.saturating_add(rejected));
        let rejected = Some(rejected);
        (bay, BayResult { requested, picked, presented, rejected, taken: None, retracted: None })
    });
    let named = |bay: &BayId| plan.notes.contains_key(bay);
    results
        .filter(|(bay, result)| named(bay) || result.presented > 0 || result.rejected != Some(0))
        .collect()
}
