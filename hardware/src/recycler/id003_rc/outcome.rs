//! What came of a movement: counts before and after, held against what the device said.

use super::moving::{Recall, Stage};
use super::*;

impl<A: Authority> Id003Rc<A> {
    /// Begins the plan's first box.
    pub(super) fn begin_payout(&mut self, plan: A::Committed<DispensePlan>, now: Mono) {
        self.next_box(plan, BayResults::new(), now);
    }

    /// Begins the next box of the plan that has notes in it and is not done; without one, the payout
    /// is over.
    fn next_box(&mut self, plan: A::Committed<DispensePlan>, done: BayResults, now: Mono) {
        let open = |(bay, notes): &(&BayId, &u32)| **notes > 0 && !done.contains_key(*bay);
        let next = plan.as_ref().notes.iter().find(open).map(|(bay, notes)| (*bay, *notes));
        let Some((bay, notes)) = next else { return self.paid_out(done, None, now) };
        // at most 20, as the plan was checked
        let notes = u8::try_from(notes).unwrap_or(u8::MAX);
        let moving = Moving::new(now);
        self.work = Work::Pay(Payment { plan, done, bay, notes, moving });
        self.take_line(now);
    }

    /// The device has told its counts.
    pub(super) fn on_counts(&mut self, counts: [u16; BOXES], now: Mono) {
        self.recount = false;
        (self.refused, self.complained) = (0, false);
        self.tell_followed();
        self.tell_counts(counts);
        match std::mem::replace(&mut self.work, Work::None) {
            Work::None => {}
            Work::Count => self.end_work(now),
            Work::SetUp { .. } => self.set_up_done(now),
            Work::Pay(payment) => self.on_payment_counts(payment, counts, now),
            Work::Empty(wish, mut moving) => {
                let Some(before) = moving.before else {
                    (moving.before, moving.stage) = (Some(counts), Stage::Order);
                    self.work = Work::Empty(wish, moving);
                    return;
                };
                let bay = wish.as_ref().bay;
                let notes = left(before, counts, bay);
                let still = held(counts, bay);
                let fault = moving.fault.clone().or_else(|| {
                    let detail = format!("{still} notes are still in box {bay}: look at it");
                    (still > 0).then_some(DeviceFault { kind: FaultKind::ServiceNeeded, detail })
                });
                self.after_trouble(moving, now);
                self.tell_emptied(bay, EmptyOutcome::Moved { notes: u32::from(notes), fault });
            }
            Work::Follow(moving) => {
                self.work = Work::Follow(moving);
                self.follow_on();
            }
        }
    }

    fn set_up_done(&mut self, now: Mono) {
        self.set_up_wanted = false;
        if let Some(why) = self.unknown_note() {
            self.state.fault(FaultKind::ServiceNeeded, why);
        } else {
            let bays = self.boxes.keys().copied().collect();
            self.state.set_up(&bays);
            self.mark_empty();
            self.state.ready();
        }
        self.end_work(now);
    }

    fn on_payment_counts(&mut self, payment: Payment<A>, counts: [u16; BOXES], now: Mono) {
        let Payment { plan, mut done, bay, notes, mut moving } = payment;
        let Some(before) = moving.before else {
            let held = held(counts, bay);
            if held < u16::from(notes) {
                let detail = format!("box {bay} holds {held} notes, {notes} were to come from it");
                self.end_work(now);
                done.insert(bay, nothing(u32::from(notes)));
                let fault = DeviceFault { kind: FaultKind::Cassette, detail };
                return self.paid_out(done, Some((fault, plan.as_ref().clone())), now);
            }
            (moving.before, moving.stage) = (Some(counts), Stage::Order);
            self.work = Work::Pay(Payment { plan, done, bay, notes, moving });
            return;
        };
        let gone = left(before, counts, bay);
        let Some(result) = settle(notes, gone, &moving) else {
            let last_seen = format!(
                "box {bay}: {gone} notes are gone of {notes} to pay out, {} were taken; last: {}; \
                 done before: {done:?}",
                moving.paid, moving.last_word
            );
            self.after_trouble(moving, now);
            return self.unknowable(last_seen);
        };
        done.insert(bay, result);
        let short = result.taken.unwrap_or(0) < u32::from(notes);
        let fault = moving.fault.clone().or_else(|| {
            short.then(|| {
                let detail = if moving.recall != Recall::No {
                    "nobody took the note at the bezel".to_owned()
                } else {
                    format!("it stopped short of its own accord: {}", moving.last_word)
                };
                DeviceFault { kind: FaultKind::ServiceNeeded, detail }
            })
        });
        match fault {
            Some(fault) => {
                let rest = plan.as_ref().clone();
                self.after_trouble(moving, now);
                self.paid_out(done, Some((fault, rest)), now);
            }
            None => {
                self.end_work(now);
                self.next_box(plan, done, now);
            }
        }
    }

    /// The line goes back to the validator, unless the recycler is in trouble.
    fn after_trouble(&mut self, moving: Moving, now: Mono) {
        if moving.state == Some(PayState::Error) {
            self.work = Work::Follow(moving.settled(now));
            self.follow_on();
        } else {
            self.end_work(now);
        }
    }

    /// A movement that nobody here has begun goes on, or its trouble does.
    fn follow_on(&mut self) {
        let Work::Follow(moving) = &mut self.work else { return };
        moving.stage = Stage::Watch;
        if let Some(fault) = moving.fault.clone()
            && !std::mem::replace(&mut self.in_trouble, true)
        {
            self.state.bays = None;
            self.state.fault(fault.kind, fault.detail);
        }
    }

    /// Tells what was seen of a movement that is followed, before the counts that it has led to.
    pub(super) fn tell_followed(&mut self) {
        let Work::Follow(moving) = &mut self.work else { return };
        if !std::mem::take(&mut moving.untold) {
            return;
        }
        self.out.events.push(RecyclerEvent::Followed {
            taken: u32::from(std::mem::take(&mut moving.paid)),
            gave_back: std::mem::take(&mut moving.gave_back),
            fault: moving.fault.clone(),
        });
    }

    pub(super) fn end_following(&mut self, now: Mono) {
        self.tell_followed();
        self.recount = true;
        if std::mem::take(&mut self.in_trouble) {
            self.state.events.push(DispenserEvent::Recovered);
            self.set_up_wanted = !self.boxes.is_empty();
        }
        self.end_work(now);
    }

    /// The payout is over, by the device's own word; boxes that were not reached gave nothing.
    fn paid_out(
        &mut self,
        mut done: BayResults,
        stopped: Option<(DeviceFault, DispensePlan)>,
        now: Mono,
    ) {
        let fault = stopped.map(|(fault, plan)| {
            for (bay, notes) in plan.notes.iter().filter(|(_, notes)| **notes > 0) {
                done.entry(*bay).or_insert(nothing(*notes));
            }
            fault
        });
        let taken = done.values().any(|bay| bay.taken > Some(0));
        self.state.finished(done, fault, now);
        // each note is taken, or called back, before the next one comes
        self.state.notes_at_exit = false;
        if taken {
            self.state.events.push(DispenserEvent::Taken);
        }
    }

    fn unknowable(&mut self, last_seen: String) {
        self.state.bays = None;
        self.recount = true;
        // counts that came before this are told again after it
        self.counts = None;
        self.state.unknowable(last_seen);
    }

    /// The order was not given.
    pub(super) fn not_begun(&mut self, kind: FaultKind, detail: &str, now: Mono) {
        self.tell_not_begun(kind, detail, now);
        self.end_work(now);
    }

    fn tell_not_begun(&mut self, kind: FaultKind, detail: &str, now: Mono) {
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Pay(Payment { plan, done, .. }) if !done.is_empty() => {
                let fault = DeviceFault { kind, detail: detail.to_owned() };
                self.paid_out(done, Some((fault, plan.as_ref().clone())), now);
            }
            Work::Pay(_) => self.state.not_started(kind, detail.to_owned()),
            Work::Empty(wish, _) => {
                let fault = DeviceFault { kind, detail: detail.to_owned() };
                self.tell_emptied(wish.as_ref().bay, EmptyOutcome::NotStarted(fault));
            }
            _ => {}
        }
    }

    /// Nobody knows what became of the notes; the movement is followed to its end all the same.
    pub(super) fn lose_sight(&mut self, why: &str, now: Mono) {
        self.heard = now;
        self.forget_movement(FaultKind::ServiceNeeded, why, now);
        if let Work::Follow(moving) = &mut self.work {
            (moving.stage, moving.known_at) = (Stage::Watch, now);
        } else {
            self.end_work(now);
        }
    }

    /// The line is gone.
    pub(super) fn cut_off(&mut self, why: &str, now: Mono) {
        let cancelled = self.orders.cancel(FaultKind::LinkLost, why, &mut self.state);
        self.out.events.extend(cancelled);
        self.tell_followed();
        self.forget_movement(FaultKind::LinkLost, why, now);
        self.work = Work::None;
        self.waiting = None;
        self.counts = None;
    }

    /// Tells that a movement of ours has no known end, or was not ordered yet.
    fn forget_movement(&mut self, kind: FaultKind, why: &str, now: Mono) {
        if let Work::Pay(Payment { moving, .. }) | Work::Empty(_, moving) = &self.work
            && matches!(moving.stage, Stage::Before | Stage::Order)
        {
            return self.tell_not_begun(kind, why, now);
        }
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Pay(payment) => {
                let Payment { done, bay, notes, mut moving, .. } = payment;
                moving.untold = true;
                let last_seen = format!(
                    "{why}; {notes} notes of box {bay} were to come, {} were seen taken; last: {}; \
                     done before: {done:?}",
                    moving.paid, moving.last_word
                );
                self.unknowable(last_seen);
                self.work = Work::Follow(moving);
            }
            Work::Empty(wish, mut moving) => {
                moving.untold = true;
                let last_seen = format!("{why}; last: {}", moving.last_word);
                self.recount = true;
                self.tell_emptied(wish.as_ref().bay, EmptyOutcome::Unknowable { last_seen });
                self.work = Work::Follow(moving);
            }
            other => self.work = other,
        }
    }

    /// Tells the counts, if they are news or somebody asked.
    fn tell_counts(&mut self, counts: [u16; BOXES]) {
        // who asks during a movement is answered after it
        let rests = !matches!(self.work, Work::Pay(_) | Work::Empty(..));
        let asked = rests && std::mem::take(&mut self.asked);
        let before = self.state.bays.clone();
        if self.counts.replace(counts) != Some(counts) || asked {
            let boxes = (1..)
                .zip(counts)
                .filter_map(|(number, notes)| Some((BayId::new(number)?, u32::from(notes))));
            self.out.events.push(RecyclerEvent::Counts(boxes.collect()));
        }
        self.mark_empty();
        if rests {
            self.state.polled(before.as_ref(), asked);
        }
    }

    fn mark_empty(&mut self) {
        let Some(counts) = self.counts else { return };
        for (bay, state) in self.state.bays.iter_mut().flatten() {
            let empty = at(*bay).and_then(|at| counts.get(at)) == Some(&0);
            *state = if empty { BayState::Empty } else { BayState::Present };
        }
    }
}

fn held(counts: [u16; BOXES], bay: BayId) -> u16 {
    at(bay).and_then(|at| counts.get(at).copied()).unwrap_or(0)
}

/// Notes that have left a box between two counts.
fn left(before: [u16; BOXES], after: [u16; BOXES], bay: BayId) -> u16 {
    held(before, bay).saturating_sub(held(after, bay))
}

/// What became of one box's notes, if what is gone and what was said agree.
pub(super) fn settle(notes: u8, gone: u16, moving: &Moving) -> Option<BayResult> {
    let paid = moving.paid;
    // by the device's word, not by ours
    let called_back = u16::from(moving.recall == Recall::Done && moving.gave_back && gone > paid);
    // firmware that says PAY VALID once a command
    let undisturbed = moving.fault.is_none() && moving.recall == Recall::No && !moving.gave_back;
    let once = paid == 1 && gone == u16::from(notes) && undisturbed;
    // a host that was held up saw one PAY VALID where there were two, with their ACKs
    let unseen = if undisturbed { gone.saturating_sub(paid).min(moving.perhaps) } else { 0 };
    let taken = if once { gone } else { paid.saturating_add(unseen) };
    (taken.saturating_add(called_back) == gone && gone <= u16::from(notes)).then(|| BayResult {
        picked: Some(u32::from(gone)),
        presented: u32::from(gone),
        taken: Some(u32::from(taken)),
        retracted: Some(u32::from(called_back)),
        ..nothing(u32::from(notes))
    })
}
