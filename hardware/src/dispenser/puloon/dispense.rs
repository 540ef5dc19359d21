//! A dispense: status, the last result, the command, its answer or the lack of it.
//!
//! Promise and failure policy: the module above; each plan ends in exactly one outcome.

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;

use super::line::{LineEvent, Nature};
use super::model::{Answer, Count, Counted};
use super::{Before, DispenseStep, Job, Meaning, Model, Puloon, SLOTS, fault_kind, is_down};
use crate::Authority;
use crate::dispenser::state::slot;
use crate::dispenser::{DeviceFault, DispensePlan, FaultKind};
use crate::frame::hex;
use crate::frame::puloon::lcdm4000::{DISPENSE, Request, SERIALS};
use crate::frame::puloon::{Frame, lcdm1000};

/// How often the command's frame is written at most, each time after proof that it was not taken.
const TRIES: u8 = 3;

/// What to make of an answer.
enum Verdict {
    Final(Option<DeviceFault>),
    /// Nothing moved.
    NotStarted(DeviceFault),
    /// The device says itself that it does not know.
    Unsure(String),
    /// It contradicts itself or the request; in words.
    Contradiction(String),
}

impl<A: Authority> Puloon<A> {
    pub(super) fn on_dispense(
        &mut self,
        plan: A::Committed<DispensePlan>,
        step: DispenseStep,
        event: LineEvent,
        now: Mono,
    ) {
        match (step, event) {
            (DispenseStep::Look, LineEvent::Reply(frame)) => self.on_look(plan, &frame, now),
            (DispenseStep::Before, LineEvent::Reply(frame)) => {
                self.serial = self.serial.saturating_add(1) % SERIALS;
                let before = match Answer::read(&frame) {
                    Answer::Last(last) => Before::Result(last),
                    Answer::Done { .. } => Before::Nothing,
                    _ => Before::Unread,
                };
                self.command_out(plan, 1, before, now);
            }
            (
                DispenseStep::Look | DispenseStep::Before,
                LineEvent::NotSent { why, .. } | LineEvent::Lost { why },
            )
            | (DispenseStep::Command { tries: 1, .. }, LineEvent::NotSent { why, .. }) => {
                self.state.gone(now);
                self.state.not_started(FaultKind::Silent, format!("before the command: {why}"));
            }
            (DispenseStep::Command { tries, before, first }, LineEvent::Reply(frame)) => {
                let plain = matches!(Answer::read(&frame), Answer::Counted(said)
                    if matches!(judge(plan.as_ref(), &said), Verdict::Final(None)));
                if plain || first == Some(frame) {
                    self.line.acknowledge(now);
                    return self.on_answer(plan, before, &frame, now);
                }
                self.line.read_again(now);
                let first = Some(frame);
                self.job =
                    Job::Dispense { plan, step: DispenseStep::Command { tries, before, first } };
            }
            // it does not repeat what was read well: over a clean line once is enough
            (DispenseStep::Command { before, first: Some(first), .. }, LineEvent::Lost { .. }) => {
                if self.line.garbled() {
                    let why = format!("read once only, garbled otherwise: {}", hex(first.data()));
                    return self.ask_after(plan, why, before, None, now);
                }
                self.on_answer(plan, before, &first, now);
            }
            (DispenseStep::Command { tries, before, .. }, LineEvent::Refused) => {
                if before == Before::Unread {
                    self.line.send(self.settings.status(), Nature::Once, now);
                } else {
                    self.question(false, now);
                }
                self.job = Job::Dispense { plan, step: DispenseStep::Refused { tries, before } };
            }
            (
                DispenseStep::Command { before, .. },
                LineEvent::Lost { why } | LineEvent::NotSent { why, .. },
            ) => {
                let why = format!("{why}; last heard: {}", self.line.heard());
                self.ask_after(plan, why, before, None, now);
            }
            (DispenseStep::Refused { tries, before }, LineEvent::Reply(frame)) => {
                self.on_proof(plan, tries, before, &frame, now);
            }
            (
                DispenseStep::Refused { before, .. },
                LineEvent::Lost { why } | LineEvent::NotSent { why, .. },
            ) => {
                let why = format!("NAK (15) to the command, then {why}");
                self.ask_after(plan, why, before, None, now);
            }
            (DispenseStep::Ask { why, before, said }, LineEvent::Reply(frame)) => {
                self.on_last(plan.as_ref(), &why, before, said, &frame, now);
            }
            (DispenseStep::LastLook { why }, LineEvent::Reply(frame)) => {
                let answer = Answer::read(&frame);
                self.state.bays = None;
                self.on_status(answer, now);
                let exit = match answer {
                    Answer::Status { at_exit: true, .. } => "notes lie at the exit",
                    Answer::Status { .. } => "no notes lie at the exit",
                    _ => "the exit is not reported",
                };
                self.state.unknowable(format!("{why}; status afterwards: {exit}"));
            }
            (
                DispenseStep::Ask { why, .. } | DispenseStep::LastLook { why },
                LineEvent::NotSent { .. } | LineEvent::Lost { .. },
            ) => {
                self.state.gone(now);
                self.state.unknowable(format!("{why}; no answer to a question afterwards"));
            }
            (step, LineEvent::Stray(frame)) => self.on_stray(plan, step, &frame, now),
            (step, LineEvent::Refused) => self.job = Job::Dispense { plan, step },
        }
    }

    fn on_look(&mut self, plan: A::Committed<DispensePlan>, frame: &Frame, now: Mono) {
        let Some(error) = self.on_status(Answer::read(frame), now) else {
            self.state.bays = None;
            let heard = hex(frame.data());
            let detail = format!("expected a status of this model, got {heard}");
            return self.state.not_started(FaultKind::ServiceNeeded, detail);
        };
        if is_down(error) {
            self.state.bays = None;
            let detail = format!("the device is not well: {error}");
            self.state.not_started(fault_kind(error), detail);
        } else if self.state.notes_at_exit {
            let detail = "notes lie at the exit: wait until they are taken".to_owned();
            self.state.not_started(FaultKind::ServiceNeeded, detail);
        } else if self.settings.model == Model::Lcdm4000 {
            self.line.send(Request::LastStatus.frame(), Nature::Query, now);
            self.job = Job::Dispense { plan, step: DispenseStep::Before };
        } else {
            self.command_out(plan, 1, Before::Unread, now);
        }
    }

    fn command_out(
        &mut self,
        plan: A::Committed<DispensePlan>,
        tries: u8,
        before: Before,
        now: Mono,
    ) {
        let wanted = wanted(plan.as_ref());
        let frame = self.settings.dispense(wanted, self.serial);
        let notes = wanted.iter().map(|notes| u32::from(*notes)).sum();
        self.line.send(frame, Nature::Money(notes), now);
        let step = DispenseStep::Command { tries, before, first: None };
        self.job = Job::Dispense { plan, step };
    }

    /// Asks what became of a command: the last result, or `by_status` where there is none.
    fn question(&mut self, by_status: bool, now: Mono) {
        let big = self.settings.model == Model::Lcdm4000 && !by_status;
        let frame = if big { Request::LastStatus.frame() } else { self.settings.status() };
        self.line.send(frame, Nature::Query, now);
    }

    fn ask_after(
        &mut self,
        plan: A::Committed<DispensePlan>,
        why: String,
        before: Before,
        said: Option<Counted>,
        now: Mono,
    ) {
        self.question(before == Before::Unread, now);
        let step = if before == Before::Unread {
            DispenseStep::LastLook { why }
        } else {
            DispenseStep::Ask { why, before, said }
        };
        self.job = Job::Dispense { plan, step };
    }

    /// The answer to the command.
    pub(super) fn on_answer(
        &mut self,
        plan: A::Committed<DispensePlan>,
        before: Before,
        frame: &Frame,
        now: Mono,
    ) {
        let (said, why) = match Answer::read(frame) {
            Answer::Counted(said) => match judge(plan.as_ref(), &said) {
                Verdict::Contradiction(why) => (Some(said), why),
                verdict => return self.conclude(plan.as_ref(), &said, verdict, now),
            },
            Answer::Done { error } if error.nature() == Meaning::Refused => {
                self.state.bays = None;
                self.state.poll_soon(now);
                return self.state.not_started(FaultKind::ServiceNeeded, error.to_string());
            }
            Answer::Done { error } => (None, format!("an answer without counts: {error}")),
            _ => (None, format!("an answer without readable counts: {}", hex(frame.data()))),
        };
        self.ask_after(plan, why, before, said, now);
    }

    /// A reply to nothing that was asked now: a late answer to the command counts until the outcome
    /// was told.
    fn on_stray(
        &mut self,
        plan: A::Committed<DispensePlan>,
        step: DispenseStep,
        frame: &Frame,
        now: Mono,
    ) {
        // written again after a NAK, as far as it has been: not any more
        let again = matches!(step, DispenseStep::Command { tries: 2.., .. });
        let asking = matches!(
            step,
            DispenseStep::Refused { .. } | DispenseStep::Ask { .. } | DispenseStep::LastLook { .. }
        );
        let waits = asking || again && !self.line.exposed();
        let sent = self.settings.dispense(wanted(plan.as_ref()), self.serial).command();
        match Answer::read(frame) {
            Answer::Counted(said) if waits && said.command == sent => {
                let verdict = match judge(plan.as_ref(), &said) {
                    Verdict::Final(None) => Verdict::Final(None),
                    _ => Verdict::Unsure(format!("a late answer: {}", hex(frame.data()))),
                };
                self.conclude(plan.as_ref(), &said, verdict, now);
                self.line.withdraw();
                if asking && self.line.exposed() {
                    // the question is still under way
                    self.job = Job::Poll;
                }
            }
            _ => self.job = Job::Dispense { plan, step },
        }
    }

    /// After a `NAK` to the command: whether the device has not taken it.
    fn on_proof(
        &mut self,
        plan: A::Committed<DispensePlan>,
        tries: u8,
        before: Before,
        frame: &Frame,
        now: Mono,
    ) {
        let idle = match (before, Answer::read(frame)) {
            // asked at once, answered without a garbled byte: it would be at work, or its answer
            // would have come first
            (Before::Unread, Answer::Status { at_exit, .. }) => !self.line.garbled() && !at_exit,
            (Before::Result(before), Answer::Last(last)) => {
                last == before && !could_be(plan.as_ref(), &before)
            }
            // no result before and none now: from firmware that has none at all, or a device that
            // restarted with the notes out, it proves nothing
            _ => false,
        };
        if !idle {
            let why = "NAK (15) to the command, and no proof that it was not taken".to_owned();
            return match before {
                Before::Unread => self.ask_after(plan, why, before, None, now),
                _ => self.on_last(plan.as_ref(), &why, before, None, frame, now),
            };
        }
        if tries < TRIES {
            return self.command_out(plan, tries.saturating_add(1), before, now);
        }
        self.state.bays = None;
        self.state.poll_soon(now);
        let detail = format!("the device refused the command {TRIES} times (NAK 15)");
        self.state.not_started(FaultKind::ServiceNeeded, detail);
    }

    /// The last result after a lost answer, or one that does not add up.
    pub(super) fn on_last(
        &mut self,
        plan: &DispensePlan,
        why: &str,
        before: Before,
        said: Option<Counted>,
        frame: &Frame,
        now: Mono,
    ) {
        let heard = hex(frame.data());
        let unknown = |what: &str| Verdict::Unsure(format!("{why}; last status: {what} ({heard})"));
        let nothing = Counted {
            command: 0,
            error: crate::frame::puloon::lcdm4000::error(0),
            bays: Default::default(),
        };
        let (last, verdict) = match Answer::read(frame) {
            Answer::Last(last) if last.command != DISPENSE => (last, unknown("of another command")),
            Answer::Last(last) if before == Before::Result(last) => {
                (last, unknown("the same as before the command"))
            }
            Answer::Last(last) => {
                let verdict = match judge(plan, &last) {
                    Verdict::Contradiction(detail) if said == Some(last) => {
                        let kind = FaultKind::ServiceNeeded;
                        Verdict::Final(Some(DeviceFault { kind, detail }))
                    }
                    Verdict::Contradiction(detail) => unknown(&detail),
                    verdict => verdict,
                };
                (last, verdict)
            }
            _ => (nothing, unknown("none")),
        };
        self.conclude(plan, &last, verdict, now);
    }

    fn conclude(&mut self, plan: &DispensePlan, said: &Counted, verdict: Verdict, now: Mono) {
        match verdict {
            Verdict::Final(fault) => {
                self.empties(plan, said);
                let bays = results(plan, said, fault.is_none());
                self.state.finished(bays, fault, now);
            }
            Verdict::NotStarted(DeviceFault { kind, detail }) => {
                self.state.bays = None;
                self.state.poll_soon(now);
                self.state.not_started(kind, detail);
            }
            Verdict::Unsure(words) | Verdict::Contradiction(words) => {
                self.state.bays = None;
                self.state.poll_soon(now);
                self.state.unknowable(words);
            }
        }
    }

    /// The bay that the device could not pick from: the one that it names, else the first that is
    /// short.
    fn empties(&mut self, plan: &DispensePlan, said: &Counted) {
        let Meaning::Pick(named) = said.error.nature() else { return };
        let short = || {
            let asked = wanted(plan).map(u32::from);
            let mut bays = said.bays.iter().zip(asked);
            let at = bays.position(|(bay, asked)| bay.exit < asked)?;
            u8::try_from(at).ok()?.checked_add(1)
        };
        let bay = match said.command {
            lcdm1000::LOWER if self.settings.model != Model::Lcdm4000 => Some(2),
            _ => named.or_else(short),
        };
        self.state.empty.extend(bay.and_then(BayId::new));
    }
}

fn judge(plan: &DispensePlan, said: &Counted) -> Verdict {
    let asked = wanted(plan).map(u32::from);
    let out = said.bays.map(|bay| bay.exit);
    let nothing = said.bays.iter().all(|bay| bay.exit == 0 && bay.rejected == 0);
    // the sensors of the smaller models in front of the diverter see each note before the exit does
    let lost = |bay: &Count| bay.checked.is_some_and(|checked| bay.exit > checked);
    let error = said.error;
    let fault = |detail| DeviceFault { kind: fault_kind(error), detail };
    match error.nature() {
        Meaning::Fine if out == asked => Verdict::Final(None),
        Meaning::Fine => Verdict::Contradiction(format!(
            "the device reports success, but counted {out:?} notes instead of {asked:?}"
        )),
        Meaning::Miscounted => Verdict::Unsure(format!(
            "the device is not sure of its count: {error}; it counted {out:?} of {asked:?}"
        )),
        Meaning::Refused if nothing => Verdict::NotStarted(fault(error.to_string())),
        _ if out.iter().zip(asked).any(|(out, asked)| *out > asked)
            || said.bays.iter().any(lost) =>
        {
            Verdict::Contradiction(format!("{error}, but counted {out:?} of {asked:?} notes"))
        }
        _ => Verdict::Final(Some(fault(error.to_string()))),
    }
}

/// Whether this last result could be one of the plan: then it proves nothing when it is unchanged.
fn could_be(plan: &DispensePlan, result: &Counted) -> bool {
    let asked = wanted(plan).map(u32::from);
    let as_asked = result.bays.map(|bay| bay.exit) == asked;
    result.command == DISPENSE && (!result.error.is_ok() || as_asked)
}

/// The notes of each cassette; [`State::refusal`](super::State::refusal) has seen to it that they
/// fit.
fn wanted(plan: &DispensePlan) -> [u8; SLOTS] {
    let mut notes = [0; SLOTS];
    for (bay, count) in &plan.notes {
        let place = slot(*bay).and_then(|slot| notes.get_mut(slot));
        if let (Some(place), Ok(count)) = (place, u8::try_from(*count)) {
            *place = count;
        }
    }
    notes
}

/// Bays that the plan names, and bays that the device counted something of although it does not.
fn results(plan: &DispensePlan, said: &Counted, complete: bool) -> BayResults {
    let bays = (1..=4).filter_map(BayId::new).zip(said.bays);
    let results = bays.map(|(bay, count)| {
        let requested = plan.notes.get(&bay).copied().unwrap_or(0);
        let presented = count.exit;
        // the smaller models' own cross-check: what passed the check sensors went somewhere
        let apart = count.checked.map(|checked| checked.saturating_sub(presented));
        let holds = apart.is_none_or(|apart| {
            if complete { apart == count.rejected } else { apart >= count.rejected }
        });
        let rejected = holds.then_some(count.rejected);
        // a reject is one or more notes
        let picked = (complete && rejected == Some(0)).then_some(presented);
        (bay, BayResult { requested, picked, presented, rejected, taken: None, retracted: None })
    });
    let named = |bay: &BayId| plan.notes.contains_key(bay);
    results
        .filter(|(bay, result)| named(bay) || result.presented > 0 || result.rejected != Some(0))
        .collect()
}
