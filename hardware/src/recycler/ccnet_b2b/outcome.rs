//! What came of a movement: cassettes before and after, held against what the unit said.

use bitspire_shared::cash::BayResult;

use super::super::orders::nothing;
use super::*;

impl<A: Authority> CcnetB2b<A> {
    /// Begins the plan's first bays.
    pub(super) fn begin_payout(&mut self, plan: A::Committed<DispensePlan>, now: Mono) {
        self.next_part(plan, BayResults::new(), now);
    }

    /// Begins as many of the plan's bays that are not done as one DISPENSE can carry; without any,
    /// the payout is over.
    fn next_part(&mut self, plan: A::Committed<DispensePlan>, done: BayResults, now: Mono) {
        let (mut part, mut sum) = (BTreeMap::new(), 0u32);
        for (bay, notes) in &plan.as_ref().notes {
            let more = sum.saturating_add(*notes);
            if *notes > 0 && !done.contains_key(bay) && more <= MOST_NOTES {
                part.insert(*bay, *notes);
                sum = more;
            }
        }
        if part.is_empty() {
            return self.paid_out(done, None, now);
        }
        let moving = Moving::new(now);
        self.work = Work::Pay(Payment { plan, done, part, moving });
        self.take_line(now);
    }

    /// The notes of a part by their types.
    pub(super) fn of_types(&self, part: &BTreeMap<BayId, u32>) -> Vec<[u8; 2]> {
        let pair = |(bay, notes): (&BayId, &u32)| {
            let kind = self.validator.kind_of(*self.boxes.get(bay)?)?;
            Some([kind, u8::try_from(*notes).ok()?])
        };
        part.iter().filter_map(pair).collect()
    }

    /// The unit has told its cassettes.
    pub(super) fn on_cassettes(&mut self, cassettes: Cassettes<'_>, now: Mono) {
        self.recount = false;
        (self.refused, self.complained) = (0, false);
        let held: Held = cassettes.iter().collect();
        self.tell_counts(&held);
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Count => self.end_work(now),
            Work::SetUp(typing) => {
                self.work = Work::SetUp(typing);
                self.on_typed(now);
            }
            Work::Pay(payment) => self.on_payment(payment, held, now),
            Work::Empty(unloading) => self.on_unloading(unloading, held, now),
            other => self.work = other,
        }
    }

    fn on_payment(&mut self, payment: Payment<A>, held: Held, now: Mono) {
        let Payment { plan, mut done, part, mut moving } = payment;
        let Some(before) = moving.before.clone() else {
            if let Some(detail) = self.unfit_for(&part, &held) {
                self.end_work(now);
                let fault = DeviceFault { kind: FaultKind::Cassette, detail };
                return self.paid_out(done, Some((fault, plan.as_ref().clone())), now);
            }
            (moving.before, moving.stage) = (Some(held), Stage::Order);
            self.work = Work::Pay(Payment { plan, done, part, moving });
            return;
        };
        let kinds = part
            .keys()
            .filter_map(|bay| Some((*bay, self.validator.kind_of(*self.boxes.get(bay)?)?)));
        let kinds: BTreeMap<BayId, u8> = kinds.collect();
        let Some(results) = settle(&part, &kinds, &before, &held, &moving) else {
            let told = |held: &Held| {
                held.iter().map(|(n, c)| format!("{n}: {}", c.notes)).collect::<Vec<_>>().join(", ")
            };
            let last_seen = format!(
                "cassettes before: {}, after: {}; {part:?} were to come, last: {}; done before: {done:?}",
                told(&before),
                told(&held),
                moving.last_word
            );
            if moving.stage == Stage::Presented {
                moving.stage = Stage::Watch;
                self.work = Work::Follow(moving.unknown());
            } else {
                self.end_work(now);
            }
            return self.unknowable(last_seen);
        };
        let presented = moving.stage == Stage::Presented;
        let short = results.iter().any(|(bay, result)| Some(&result.presented) != part.get(bay));
        let part_presented = results.values().fold(0u32, |n, bay| n.saturating_add(bay.presented));
        done.extend(results);
        let fault = moving.fault.clone().or_else(|| {
            let detail = format!("it stopped short of its own accord: {}", moving.last_word);
            short.then_some(DeviceFault { kind: FaultKind::ServiceNeeded, detail })
        });
        let rest = plan.as_ref().notes.iter().any(|(bay, n)| *n > 0 && !done.contains_key(bay));
        let fault = fault.or_else(|| {
            let detail = "nobody takes the notes at the exit".to_owned();
            (presented && rest).then_some(DeviceFault { kind: FaultKind::ServiceNeeded, detail })
        });
        if presented {
            moving.stage = Stage::Watch;
            self.work = Work::Follow(moving.presented(part_presented));
            let stopped = fault.map(|fault| (fault, plan.as_ref().clone()));
            return self.told_presented(done, stopped, now);
        }
        self.end_work(now);
        match fault {
            Some(fault) => self.paid_out(done, Some((fault, plan.as_ref().clone())), now),
            None => self.next_part(plan, done, now),
        }
    }

    /// Why these notes cannot be ordered, in words.
    fn unfit_for(&self, part: &BTreeMap<BayId, u32>, held: &Held) -> Option<String> {
        part.iter().find_map(|(bay, notes)| {
            let kind = self.boxes.get(bay).and_then(|note| self.validator.kind_of(*note));
            match held.get(&bay.get()).filter(|cassette| cassette.present) {
                None => Some(format!("cassette {bay} is out")),
                Some(cassette) if Some(cassette.kind) != kind => {
                    Some(format!("cassette {bay} keeps notes of type {}", cassette.kind))
                }
                Some(cassette) if u32::from(cassette.notes) < *notes => Some(format!(
                    "cassette {bay} holds {} notes, {notes} were to come from it",
                    cassette.notes
                )),
                Some(_) => None,
            }
        })
    }

    fn on_unloading(&mut self, unloading: Unloading<A>, held: Held, now: Mono) {
        let Unloading { proof, cassette, mut notes, mut moving } = unloading;
        let now_in = held.get(&cassette).filter(|c| c.present).map(|c| c.notes);
        let Some(before) = moving.before.as_ref() else {
            if let UnloadProof::Wish(_) = proof {
                notes = now_in.unwrap_or(0);
            }
            let fault = match now_in {
                None => format!("cassette {cassette} is out"),
                Some(0) if matches!(proof, UnloadProof::Wish(_)) => {
                    self.end_work(now);
                    return self.unloaded(&proof, EmptyOutcome::Moved { notes: 0, fault: None });
                }
                Some(0) => format!("cassette {cassette} is empty"),
                Some(_) => {
                    (moving.before, moving.stage) = (Some(held), Stage::Order);
                    self.work = Work::Empty(Unloading { proof, cassette, notes, moving });
                    return;
                }
            };
            self.end_work(now);
            let fault = DeviceFault { kind: FaultKind::Cassette, detail: fault };
            return self.unloaded(&proof, EmptyOutcome::NotStarted(fault));
        };
        let moved =
            only_gone(before, &held, &[cassette]).and_then(|gone| gone.get(&cassette).copied());
        let said = moving.unloaded.map(|said| said.map(u32::from));
        let outcome = match (moved, said) {
            (Some(moved), Some(said)) if said.is_none_or(|said| said == moved) => {
                let still = u32::from(notes).saturating_sub(moved);
                let fault = moving.fault.clone().or_else(|| {
                    let detail =
                        format!("{still} notes are still in cassette {cassette}: look at it");
                    (still > 0).then_some(DeviceFault { kind: FaultKind::ServiceNeeded, detail })
                });
                EmptyOutcome::Moved { notes: moved, fault }
            }
            (Some(0), None) => {
                let detail = format!("it moved nothing: {}", moving.last_word);
                let fault = DeviceFault { kind: FaultKind::ServiceNeeded, detail };
                EmptyOutcome::Moved { notes: 0, fault: Some(moving.fault.clone().unwrap_or(fault)) }
            }
            _ => EmptyOutcome::Unknowable {
                last_seen: format!(
                    "{moved:?} notes have left cassette {cassette}, {said:?} were said to be \
                     unloaded; last: {}",
                    moving.last_word
                ),
            },
        };
        self.end_work(now);
        self.unloaded(&proof, outcome);
    }

    /// Tells how an unloading ended.
    fn unloaded(&mut self, proof: &UnloadProof<A>, outcome: EmptyOutcome) {
        self.recount = true;
        if matches!(outcome, EmptyOutcome::Unknowable { .. }) {
            self.held = None;
        }
        let well = matches!(outcome, EmptyOutcome::Moved { notes: 1, fault: None });
        match proof {
            UnloadProof::Wish(wish) => self.out.events.push(emptied(wish.as_ref().bay, outcome)),
            UnloadProof::Away(_) if well => {}
            UnloadProof::Away(bill) => {
                let minor = bill.as_ref().denomination.minor();
                let detail = format!(
                    "the note of {minor} minor units that was to go to the drop cassette may be in a \
                     recycling cassette: {outcome:?}"
                );
                self.state.fault(FaultKind::ServiceNeeded, detail);
            }
        }
    }

    /// The payout is over, by the device's own word; bays that were not reached gave nothing.
    fn paid_out(
        &mut self,
        done: BayResults,
        stopped: Option<(DeviceFault, DispensePlan)>,
        now: Mono,
    ) {
        let taken = done.values().any(|bay| bay.taken > Some(0));
        self.told_presented(done, stopped, now);
        self.state.notes_at_exit = false;
        if taken {
            self.state.events.push(DispenserEvent::Taken);
        }
    }

    /// The payout is over for whoever ordered it.
    fn told_presented(
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
        self.state.finished(done, fault, now);
    }

    fn unknowable(&mut self, last_seen: String) {
        self.state.bays = None;
        self.recount = true;
        // counts that came before this are told again after it
        self.held = None;
        self.state.unknowable(last_seen);
    }

    /// The order was not given.
    pub(super) fn not_begun(&mut self, kind: FaultKind, detail: &str, now: Mono) {
        self.tell_not_begun(kind, detail, now);
        self.end_work(now);
    }

    fn tell_not_begun(&mut self, kind: FaultKind, detail: &str, now: Mono) {
        let fault = DeviceFault { kind, detail: detail.to_owned() };
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Pay(Payment { plan, done, .. }) if !done.is_empty() => {
                self.paid_out(done, Some((fault, plan.as_ref().clone())), now);
            }
            Work::Pay(_) => self.state.not_started(kind, fault.detail),
            Work::Empty(Unloading { proof, .. }) => {
                self.unloaded(&proof, EmptyOutcome::NotStarted(fault));
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

    /// Notes wait at the exit for too long.
    pub(super) fn waits_in_vain(&mut self) {
        self.state.notes_at_exit = true;
        let presented = match &mut self.work {
            Work::Pay(payment) => {
                payment.moving.stage = Stage::Presented;
                true
            }
            Work::Follow(moving) => moving.presented.is_some(),
            _ => false,
        };
        if !presented {
            self.trouble("notes lie at the exit and nobody takes them (1D 01)");
        }
    }

    /// The unit does not go on by itself; told once.
    pub(super) fn trouble(&mut self, why: &str) {
        if !std::mem::replace(&mut self.in_trouble, true) {
            self.state.fault(FaultKind::ServiceNeeded, why.to_owned());
        }
    }

    /// The line is gone.
    pub(super) fn cut_off(&mut self, why: &str, now: Mono) {
        let cancelled = self.orders.cancel(FaultKind::LinkLost, why, &mut self.state);
        self.out.events.extend(cancelled);
        self.forget_movement(FaultKind::LinkLost, why, now);
        self.end_emptying();
        self.tell_followed();
        self.work = Work::None;
        self.waiting = None;
        self.held = None;
    }

    /// Tells that a movement of ours has no known end, or was not ordered yet.
    fn forget_movement(&mut self, kind: FaultKind, why: &str, now: Mono) {
        if let Work::Pay(Payment { moving, .. }) | Work::Empty(Unloading { moving, .. }) =
            &self.work
            && matches!(moving.stage, Stage::Before | Stage::Order)
        {
            return self.tell_not_begun(kind, why, now);
        }
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Pay(Payment { done, part, moving, .. }) => {
                let last = &moving.last_word;
                let last_seen =
                    format!("{why}; {part:?} were to come, last: {last}; done before: {done:?}");
                self.unknowable(last_seen);
                self.work = Work::Follow(moving.unknown());
            }
            Work::Empty(Unloading { proof, moving, .. }) => {
                let last_seen = format!("{why}; last: {}", moving.last_word);
                self.unloaded(&proof, EmptyOutcome::Unknowable { last_seen });
                self.work = Work::Follow(moving.unknown());
            }
            other => self.work = other,
        }
    }

    /// Tells what was seen of a movement that is followed, before the counts that it has led to.
    fn tell_followed(&mut self) {
        let Work::Follow(moving) = &self.work else { return };
        let (taken, gave_back, fault) = (moving.taken(), moving.gave_back, moving.fault.clone());
        let (presented, all_taken) = (moving.presented.is_some(), moving.all_taken());
        let untold = moving.untold;
        self.state.notes_at_exit = false;
        if presented && all_taken {
            self.state.events.push(DispenserEvent::Taken);
            return self.out_of_trouble();
        }
        if untold || presented {
            self.tell_end(taken, gave_back, fault);
        }
    }

    pub(super) fn tell_end(&mut self, taken: u32, gave_back: bool, fault: Option<DeviceFault>) {
        self.recount = true;
        self.held = None;
        self.out.events.push(RecyclerEvent::Followed { taken, gave_back, fault });
        self.out_of_trouble();
    }

    fn out_of_trouble(&mut self) {
        if std::mem::take(&mut self.in_trouble) {
            self.state.events.push(DispenserEvent::Recovered);
            self.set_up_wanted = !self.boxes.is_empty();
        }
    }

    pub(super) fn end_following(&mut self, now: Mono) {
        self.tell_followed();
        self.recount = true;
        self.end_work(now);
    }

    /// Tells the counts, if they are news or somebody asked.
    fn tell_counts(&mut self, held: &Held) {
        let counting = matches!(self.work, Work::Count);
        let asked = counting && std::mem::take(&mut self.asked);
        let before = self.state.bays.clone();
        let counts = |held: &Held| {
            let there = held.iter().filter(|(_, cassette)| cassette.present);
            let counts = there.filter_map(|(n, c)| Some((BayId::new(*n)?, u32::from(c.notes))));
            counts.collect::<BTreeMap<_, _>>()
        };
        let new = counts(held);
        if self.held.replace(held.clone()).as_ref().map(counts).as_ref() != Some(&new) || asked {
            self.out.events.push(RecyclerEvent::Counts(new));
        }
        self.mark_bays();
        if counting {
            self.state.polled(before.as_ref(), asked);
        }
    }
}

/// Notes that have left each of these cassettes, if no other has changed and none is out.
fn only_gone(before: &Held, after: &Held, cassettes: &[u8]) -> Option<BTreeMap<u8, u32>> {
    if !before.keys().eq(after.keys()) {
        return None;
    }
    let mut gone = BTreeMap::new();
    for ((number, old), new) in before.iter().zip(after.values()) {
        let left = old.notes.checked_sub(new.notes)?;
        if cassettes.contains(number) && new.present {
            gone.insert(*number, u32::from(left));
        } else if left > 0 || old.present != new.present {
            return None;
        }
    }
    Some(gone)
}

/// What became of a part's notes, if what is gone and what was said agree.
pub(super) fn settle(
    part: &BTreeMap<BayId, u32>,
    kinds: &BTreeMap<BayId, u8>,
    before: &Held,
    after: &Held,
    moving: &Moving,
) -> Option<BayResults> {
    let cassettes: Vec<u8> = part.keys().map(|bay| bay.get()).collect();
    let gone = only_gone(before, after, &cassettes)?;
    let gone_of = |bay: &BayId| gone.get(&bay.get()).copied();
    if part.iter().any(|(bay, notes)| gone_of(bay).is_none_or(|gone| gone > *notes)) {
        return None;
    }
    let any = gone.values().any(|gone| *gone > 0);
    let taken = match &moving.dispensed {
        // what it says that it gave is what is gone
        Some(said) => {
            let of = |bay: &BayId| kinds.get(bay).and_then(|kind| said.get(kind)).copied();
            let agree = part.keys().all(|bay| of(bay).unwrap_or(0) == gone_of(bay).unwrap_or(0));
            let known = said.keys().all(|kind| kinds.values().any(|k| k == kind));
            let well = moving.fault.is_none() && any && (said.is_empty() || agree && known);
            if !well {
                return None;
            }
            true
        }
        None if moving.stage == Stage::Presented => {
            let all = part.iter().all(|(bay, notes)| gone_of(bay) == Some(*notes));
            if !all || moving.fault.is_some() {
                return None;
            }
            false
        }
        // nothing came so far as the exit
        None if !any && !moving.waited => true,
        None => return None,
    };
    let result = |(bay, notes): (&BayId, &u32)| {
        let gone = gone_of(bay)?;
        let taken = taken.then_some(gone);
        let result = BayResult { picked: Some(gone), presented: gone, taken, ..nothing(*notes) };
        Some((*bay, result))
    };
    part.iter().map(result).collect()
}
