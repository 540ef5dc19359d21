//! What came of a movement: the levels before and after, held against what the device said.

use bitspire_shared::cash::{BayResult, BayResults};

use super::moving::TEST_AGAIN_MS;
use super::*;
use crate::frame::ssp::{EventCode, Levels, Reply};

/// How often levels that are refused are asked for before that is a fault; some firmware refuses
/// every second time.
const LEVELS_TRIES: u8 = 10;

impl<A: Authority> SmartPayout<A> {
    /// Begins what waits, once the device is set up and has no note in it.
    pub(super) fn begin(&mut self, now: Mono) {
        let detail = "the device is not set up, or a note or a fault is in the way";
        if self.waiting_plan.take_if(|(_, end)| *end <= now).is_some() {
            self.state.not_started(FaultKind::ServiceNeeded, detail.to_owned());
        }
        if let Some((wish, _)) = self.waiting_emptying.take_if(|(_, end)| *end <= now) {
            let fault = DeviceFault { kind: FaultKind::ServiceNeeded, detail: detail.to_owned() };
            self.tell_emptied(wish.as_ref().bay, EmptyOutcome::NotStarted(fault));
        }
        let ready = self.state.bays.is_some() && self.inlet.calm && self.inlet.escrow.is_none();
        if self.work.is_some() || !ready || self.line.said().is_some() {
            return;
        }
        let what = if let Some((plan, _)) = self.waiting_plan.take() {
            if let Some(DeviceFault { kind, detail }) = self.state.refusal(plan.as_ref(), false) {
                return self.state.not_started(kind, detail);
            }
            What::Pay(plan)
        } else if let Some((wish, _)) = self.waiting_emptying.take() {
            What::Empty(wish)
        } else {
            return;
        };
        self.work = Some(Work { what, moving: Moving::new(now) });
    }

    /// After each poll.
    pub(super) fn follow_work(&mut self, starting: bool, now: Mono) {
        let Some(work) = &mut self.work else { return };
        if work.moving.stage != Stage::Watch {
            // a patience that is over before anything was ordered
            if !work.moving.is_ordered() && now.since(work.moving.begun_at) >= REST_MS {
                self.not_begun(FaultKind::ServiceNeeded, "the device does not come to rest");
            }
            return;
        }
        if work.moving.is_over(starting, now) {
            match work.what {
                What::Follow => self.end_following(),
                _ => {
                    work.moving.stage = Stage::After;
                    work.moving.begun_at = now;
                }
            }
        } else if work.moving.is_lost(now) {
            self.lose_sight("no word of the notes for a minute", now);
        }
    }

    /// The answer to GET ALL LEVELS.
    pub(super) fn on_levels_answer(&mut self, reply: &Reply<'_>, now: Mono) {
        let levels = Levels::parse(reply.rest).filter(|_| reply.is_ok());
        let Some(levels) = levels else { return self.no_levels(reply, now) };
        let country = self.country();
        let ours = levels.iter().filter(|(_, note)| note.country == country);
        let levels: BTreeMap<_, _> = ours.map(|(notes, note)| (note.value, notes)).collect();
        self.setup.ask_again();
        self.recount = false;
        self.levels = Some(levels.clone());
        let Some(mut work) = self.work.take() else { return self.tell_counts() };
        match (work.moving.stage, work.what) {
            (Stage::Before, what) => {
                work.moving.before = Some(levels);
                work.moving.stage = Stage::Test;
                self.tell_counts();
                self.check_held(what, work.moving);
            }
            (Stage::After, What::Pay(plan)) => {
                self.tell_counts();
                self.on_paid(plan.as_ref(), &work.moving, &levels, now);
            }
            (Stage::After, What::Empty(wish)) => {
                self.tell_counts();
                self.on_emptied(wish.as_ref().bay, &work.moving, &levels);
            }
            (_, what) => {
                self.work = Some(Work { what, moving: work.moving });
                self.tell_counts();
            }
        }
    }

    fn no_levels(&mut self, reply: &Reply<'_>, now: Mono) {
        let tries = self.setup.count_refusal();
        let late = tries >= LEVELS_TRIES;
        self.setup.again_at = now.after(TEST_AGAIN_MS);
        let Some(work) = &mut self.work else {
            if late {
                self.trouble(FaultKind::ServiceNeeded, format!("it does not tell levels: {reply}"));
            }
            return;
        };
        work.moving.again_at = now.after(TEST_AGAIN_MS);
        match work.moving.stage {
            Stage::After if late => self.lose_sight("it does not tell its levels", now),
            Stage::Before if late => {
                self.not_begun(FaultKind::ServiceNeeded, "it does not tell its levels");
            }
            _ => {}
        }
    }

    /// Before anything is ordered: whether the store holds what is to come out of it.
    fn check_held(&mut self, what: What<A>, mut moving: Moving) {
        match &what {
            What::Pay(plan) => {
                let plan = plan.as_ref();
                let short = plan.notes.iter().find(|(bay, notes)| self.held(**bay) < **notes);
                if let Some((bay, notes)) = short {
                    let held = self.held(*bay);
                    let detail =
                        format!("bay {bay} holds {held} notes, {notes} were to come from it");
                    let fault = DeviceFault { kind: FaultKind::Cassette, detail };
                    let bays = nothing(plan);
                    return self.state.finished(bays, Some(fault), moving.begun_at);
                }
            }
            What::Empty(wish) => {
                let bay = wish.as_ref().bay;
                if self.held(bay) == 0 {
                    return self.tell_emptied(bay, EmptyOutcome::Moved { notes: 0, fault: None });
                }
                let others = self.levels.iter().flatten().filter(|(value, notes)| {
                    **notes > 0 && self.bays.get(&bay).is_none_or(|note| note.minor() != **value)
                });
                // SMART EMPTY has no test
                if others.count() == 0 {
                    moving.stage = Stage::Order;
                }
            }
            What::Follow => {}
        }
        self.work = Some(Work { what, moving });
    }

    /// Notes of a bay, by the levels.
    fn held(&self, bay: BayId) -> u32 {
        let value = self.bays.get(&bay).map(|note| note.minor());
        let level = value.and_then(|value| self.levels.as_ref()?.get(&value));
        level.copied().map_or(0, u32::from)
    }

    fn on_paid(
        &mut self,
        plan: &DispensePlan,
        moving: &Moving,
        after: &BTreeMap<u32, u16>,
        now: Mono,
    ) {
        let Some(bays) = settle(plan, &self.bays, moving, after) else {
            let last_seen = self.unexplained("to pay out", moving, after);
            self.after_trouble(moving);
            return self.unknowable(last_seen);
        };
        let short = bays.values().any(|bay| bay.taken != Some(bay.requested));
        let fault = moving.fault.clone().or_else(|| {
            let detail = format!("it stopped short of its own accord: {}", moving.last_word);
            short.then_some(DeviceFault { kind: FaultKind::ServiceNeeded, detail })
        });
        let fault = fault.filter(|_| short);
        let taken = bays.values().any(|bay| bay.taken > Some(0));
        let failed = fault.is_some();
        self.state.finished(bays, fault, now);
        // each note is taken, or called back, before the device tells the end
        self.state.notes_at_exit = false;
        if taken {
            self.state.events.push(DispenserEvent::Taken);
        }
        if failed {
            self.after_trouble(moving);
        }
    }

    fn on_emptied(&mut self, bay: BayId, moving: &Moving, after: &BTreeMap<u32, u16>) {
        let wanted = DispensePlan { notes: BTreeMap::from([(bay, 1)]) };
        let moved = moved(&wanted, &self.bays, moving, after);
        let value = self.bays.get(&bay).map_or(0, |note| u64::from(note.minor()));
        let notes = moved.and_then(|gone| gone.get(&bay).copied());
        let cashbox = moving.retracted.values().chain(moving.rejected.values());
        let cashbox: u64 = cashbox.map(|notes| u64::from(*notes)).sum();
        let told = |notes: u16| {
            let notes = u64::from(notes);
            notes.saturating_mul(value) == moving.done || notes > 0 && cashbox == notes
        };
        let outcome = match notes.filter(|notes| told(*notes) && self.is_explained(moving)) {
            Some(notes) => {
                let still = self.held(bay);
                let fault = moving.fault.clone().or_else(|| {
                    let detail = format!("{still} notes are still in bay {bay}: look at it");
                    let kind = FaultKind::ServiceNeeded;
                    (still > 0).then_some(DeviceFault { kind, detail })
                });
                EmptyOutcome::Moved { notes: u32::from(notes), fault }
            }
            None => {
                EmptyOutcome::Unknowable { last_seen: self.unexplained("to empty", moving, after) }
            }
        };
        self.after_trouble(moving);
        self.tell_emptied(bay, outcome);
    }

    /// Whether the device has said how it ended, or nothing was taken on at all.
    fn is_explained(&self, moving: &Moving) -> bool {
        moving.ended.is_some() || !moving.acked
    }

    fn unexplained(&self, what: &str, moving: &Moving, after: &BTreeMap<u32, u16>) -> String {
        let levels = |levels: &BTreeMap<u32, u16>| {
            let words = levels.iter().map(|(value, notes)| format!("{notes} x {value}"));
            words.collect::<Vec<_>>().join(", ")
        };
        let before = moving.before.as_ref().map(levels).unwrap_or_default();
        format!(
            "notes {what}: the store held {before}, it holds {}; the device says {} of {}; last: {}",
            levels(after),
            moving.done,
            self.settings.currency,
            moving.last_word
        )
    }

    fn after_trouble(&mut self, moving: &Moving) {
        self.recount = true;
        if moving.ended == Some(EventCode::Jammed)
            && let Some(DeviceFault { kind, detail }) = moving.fault.clone()
        {
            return self.trouble(kind, detail);
        }
        self.set_up_wanted = !self.bays.is_empty();
        if self.set_up_wanted {
            self.unset();
        }
    }

    fn unknowable(&mut self, last_seen: String) {
        self.state.bays = None;
        (self.recount, self.set_up_wanted) = (true, !self.bays.is_empty());
        self.state.unknowable(last_seen);
    }

    /// The order was not given, or not taken.
    pub(super) fn not_begun(&mut self, kind: FaultKind, detail: &str) {
        match self.work.take().map(|work| work.what) {
            Some(What::Pay(_)) => self.state.not_started(kind, detail.to_owned()),
            Some(What::Empty(wish)) => {
                let fault = DeviceFault { kind, detail: detail.to_owned() };
                self.tell_emptied(wish.as_ref().bay, EmptyOutcome::NotStarted(fault));
            }
            Some(What::Follow) | None => {}
        }
        self.recount = true;
    }

    /// Nobody knows what became of the notes; the movement is followed to its end all the same.
    pub(super) fn lose_sight(&mut self, why: &str, now: Mono) {
        let Some(work) = &mut self.work else { return };
        if !work.moving.is_ordered() {
            return self.not_begun(FaultKind::Silent, why);
        }
        let Some(Work { what, mut moving }) = self.work.take() else { return };
        moving.emptying |= matches!(what, What::Empty(_));
        let last_seen =
            format!("{why}; paid or moved: {}; last: {}", moving.done, moving.last_word);
        match what {
            What::Pay(_) => self.unknowable(last_seen),
            What::Empty(wish) => {
                let outcome = EmptyOutcome::Unknowable { last_seen };
                self.tell_emptied(wish.as_ref().bay, outcome);
            }
            What::Follow => return self.tell_followed(&moving),
        }
        self.recount = true;
        self.work = Some(Work { what: What::Follow, moving: moving.followed_on(now) });
    }

    /// The line is gone.
    pub(super) fn cut_off(&mut self, why: &str, now: Mono) {
        if self.waiting_plan.take().is_some() {
            self.state.not_started(FaultKind::LinkLost, why.to_owned());
        }
        if let Some((wish, _)) = self.waiting_emptying.take() {
            let fault = DeviceFault { kind: FaultKind::LinkLost, detail: why.to_owned() };
            self.tell_emptied(wish.as_ref().bay, EmptyOutcome::NotStarted(fault));
        }
        self.lose_sight(why, now);
        if let Some(Work { what: What::Follow, moving }) = self.work.take() {
            self.tell_followed(&moving);
        }
        self.told_counts = None;
        self.recount = true;
    }

    /// Told behind the outcome of the same movement, and before the levels that it has led to.
    fn tell_followed(&mut self, moving: &Moving) {
        let told = std::mem::take(&mut self.state.events);
        self.out.events.extend(told.into_iter().map(RecyclerEvent::Out));
        self.told_counts = None;
        self.recount = true;
        let gave_back = !moving.retracted.is_empty() || !moving.rejected.is_empty();
        let taken = if moving.emptying { 0 } else { moving.rises };
        let fault = moving.fault.clone();
        self.out.events.push(RecyclerEvent::Followed { taken, gave_back, fault });
    }

    fn end_following(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.tell_followed(&work.moving);
        self.after_trouble(&work.moving);
    }

    /// Tells the counts, if they are news or somebody asked.
    fn tell_counts(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let before = self.state.bays.clone();
        let counts: BTreeMap<_, _> = self.bays.keys().map(|bay| (*bay, self.held(*bay))).collect();
        if counts.is_empty() {
            return;
        }
        if self.told_counts.as_ref() != Some(&counts) || asked {
            self.out.events.push(RecyclerEvent::Counts(counts.clone()));
            self.told_counts = Some(counts);
        }
        self.mark_empty();
        if self.work.is_none() {
            self.state.polled(before.as_ref(), asked);
        }
    }

    pub(super) fn mark_empty(&mut self) {
        let Some(mut bays) = self.state.bays.take() else { return };
        for (bay, state) in &mut bays {
            *state = if self.held(*bay) == 0 { BayState::Empty } else { BayState::Present };
        }
        self.state.bays = Some(bays);
    }
}

fn nothing(plan: &DispensePlan) -> BayResults {
    let none = |requested| BayResult {
        requested,
        picked: Some(0),
        presented: 0,
        taken: Some(0),
        retracted: Some(0),
        rejected: Some(0),
    };
    plan.notes.iter().filter(|(_, notes)| **notes > 0).map(|(bay, n)| (*bay, none(*n))).collect()
}

/// Notes that have left the store, bay by bay; `None` where a bay of no plan has changed, or a note
/// came from nowhere.
fn moved(
    plan: &DispensePlan,
    bays: &BTreeMap<BayId, Denomination>,
    moving: &Moving,
    after: &BTreeMap<u32, u16>,
) -> Option<BTreeMap<BayId, u16>> {
    let before = moving.before.as_ref()?;
    let wanted: BTreeMap<u32, BayId> = plan
        .notes
        .iter()
        .filter(|(_, notes)| **notes > 0)
        .filter_map(|(bay, _)| Some((bays.get(bay)?.minor(), *bay)))
        .collect();
    let mut gone = BTreeMap::new();
    let values: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
    for value in values {
        let level = |levels: &BTreeMap<u32, u16>| levels.get(&value).copied().unwrap_or(0);
        let left = level(before).checked_sub(level(after))?;
        match wanted.get(&value) {
            Some(bay) => drop(gone.insert(*bay, left)),
            None if left > 0 => return None,
            None => {}
        }
    }
    Some(gone)
}

/// What became of the notes of a plan, if what is gone and what was said agree.
pub(super) fn settle(
    plan: &DispensePlan,
    bays: &BTreeMap<BayId, Denomination>,
    moving: &Moving,
    after: &BTreeMap<u32, u16>,
) -> Option<BayResults> {
    if moving.strewn {
        return None;
    }
    let gone = moved(plan, bays, moving, after)?;
    let any = gone.values().any(|notes| *notes > 0);
    // what was taken on, and has no end that the device has told, is not over
    if moving.ended.is_none() && (any || moving.acked && !moving.power_lost) {
        return None;
    }
    let mut results = nothing(plan);
    let mut paid = 0u64;
    let mut aside = 0u32;
    for (bay, result) in &mut results {
        let value = bays.get(bay)?.minor();
        let of = |notes: &BTreeMap<u32, u16>| notes.get(&value).copied().unwrap_or(0);
        let (retracted, rejected) = (of(&moving.retracted), of(&moving.rejected));
        let picked = gone.get(bay).copied().unwrap_or(0);
        let presented = picked.checked_sub(rejected)?;
        let taken = presented.checked_sub(retracted)?;
        result.picked = Some(picked.into());
        result.presented = presented.into();
        result.taken = Some(taken.into());
        result.retracted = Some(retracted.into());
        result.rejected = Some(rejected.into());
        if u32::from(taken) > result.requested {
            return None;
        }
        paid = paid.saturating_add(u64::from(taken).saturating_mul(value.into()));
        aside = aside.saturating_add(u32::from(retracted)).saturating_add(u32::from(rejected));
    }
    let told: u32 =
        moving.retracted.values().chain(moving.rejected.values()).map(|n| u32::from(*n)).sum();
    (paid == moving.done && aside == told).then_some(results)
}
