//! What the machine holds: bays, cashbox, reject bin.
//!
//! Promise: a pure fold over the journal's movements, never written in any other way. For each bay
//! and denomination `loaded + recycled_in - presented - rejected - stray == on hand`; `presented`
//! includes what was pulled back again (`retracted`), which lies in the reject bin. What a recycler
//! counts itself stands beside that (`differs`) and changes nothing of it.
//!
//! Failure policy: a change by a person that does not fit is refused with a [`Refusal`] and changes
//! nothing. What a device says happened is never refused: more notes out than the books had leaves
//! a negative count, another note than the books had leaves a doubt, and both say so.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::DispensePlan;
use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::{BayId, JournalSeq};
use bitspire_shared::money::Denomination;

use super::entry::{CashMove, CountChange};
use super::error::Refusal;

/// One bay, since its notes were assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bay {
    /// Its notes.
    pub denomination: Denomination,
    /// Whether it is a recycler's, which keeps such notes as customers feed them.
    pub recycles: bool,
    /// Notes put in by people, less those taken out, with what counting corrected.
    pub loaded: i64,
    /// Notes that customers fed.
    pub recycled_in: i64,
    /// Notes that reached the exit.
    pub presented: i64,
    /// Those of them that were pulled back again.
    pub retracted: i64,
    /// Notes diverted to the reject bin.
    pub rejected: i64,
    /// Notes that left the bay and arrived nowhere that the device counts; purging puts them into
    /// the reject bin.
    pub stray: i64,
    /// Dispenses of which nobody knows what they took; 0 again after a count.
    pub doubts: i64,
    /// Notes that may be missing though the books have them, at most; 0 again after a count.
    pub unsure: i64,
    /// Notes that the device counts beyond the books; below 0: fewer. 0 again after a count.
    pub differs: i64,
    /// The entry of the last count; changes made before it are refused.
    pub set_at: JournalSeq,
}

impl Bay {
    const fn new(denomination: Denomination, recycles: bool, set_at: JournalSeq) -> Self {
        Self {
            denomination,
            recycles,
            loaded: 0,
            recycled_in: 0,
            presented: 0,
            retracted: 0,
            rejected: 0,
            stray: 0,
            doubts: 0,
            unsure: 0,
            differs: 0,
            set_at,
        }
    }

    /// Notes in the cassette by the books; negative when the device gave out more than those say.
    #[must_use]
    pub const fn on_hand(&self) -> i64 {
        self.loaded
            .saturating_add(self.recycled_in)
            .saturating_sub(self.presented)
            .saturating_sub(self.rejected)
            .saturating_sub(self.stray)
    }

    /// Notes that lie in the cassette for certain, where there is no doubt.
    #[must_use]
    pub const fn sure(&self) -> i64 {
        self.on_hand().saturating_sub(self.fewer())
    }

    /// Notes that may be missing though the books have them, at most.
    #[must_use]
    pub const fn fewer(&self) -> i64 {
        let counted = if self.differs < 0 { self.differs.saturating_neg() } else { 0 };
        self.unsure.saturating_add(counted)
    }

    /// Notes that its device counted last, where it counts.
    #[must_use]
    pub const fn by_device(&self) -> i64 {
        self.on_hand().saturating_add(self.differs)
    }

    fn dispensed(
        &mut self,
        denomination: Denomination,
        result: &BayResult,
        clears: bool,
    ) -> Result<(), Refusal> {
        if self.denomination != denomination {
            self.doubts = add(self.doubts, 1)?;
            return Ok(());
        }
        let before = self.on_hand();
        self.presented = add(self.presented, i64::from(result.presented))?;
        self.retracted = add(self.retracted, i64::from(result.retracted.unwrap_or(0)))?;
        self.rejected = add(self.rejected, i64::from(result.rejected.unwrap_or(0)))?;
        self.stray = add(self.stray, stray(result))?;
        self.doubts = add(self.doubts, if clears { -1 } else { 0 })?;
        if clears && self.recycles {
            // what its device has counted as gone while the books did not know is known now
            let gone = before.saturating_sub(self.on_hand());
            let counted = self.differs.saturating_neg().max(0);
            self.differs = add(self.differs, gone.min(counted))?;
        }
        Ok(())
    }
}

/// Notes that left a bay and arrived nowhere.
fn stray(result: &BayResult) -> i64 {
    let arrived = i64::from(result.presented).saturating_add(result.rejected.unwrap_or(0).into());
    let picked = result.picked.map_or(arrived, i64::from);
    picked.saturating_sub(arrived).max(0)
}

/// Notes that went, or will go when the path is purged, into the reject bin.
fn binned(result: &BayResult) -> i64 {
    stray(result)
        .saturating_add(result.rejected.unwrap_or(0).into())
        .saturating_add(result.retracted.unwrap_or(0).into())
}

/// Notes of one value in a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heap {
    /// Notes by the books.
    pub count: i64,
    /// Notes of which nobody knows whether they are in.
    pub doubts: i64,
}

/// All notes of the machine, by the books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The bays that are set up.
    pub bays: BTreeMap<BayId, Bay>,
    /// Notes taken from customers, by value.
    pub cashbox: BTreeMap<Denomination, Heap>,
    /// The entry at which the cashbox was last emptied.
    pub cashbox_emptied: JournalSeq,
    /// Notes that went wrong, by value.
    pub reject_bin: BTreeMap<Denomination, Heap>,
    /// The entry at which the reject bin was last emptied.
    pub reject_bin_emptied: JournalSeq,
    /// Notes of the cashbox's books of which a recycler has not told yet whether a bay has them.
    pub unsorted: BTreeMap<Denomination, i64>,
    /// Notes that went from customers to a bay.
    pub recycled: BTreeMap<(BayId, Denomination), i64>,
    /// The entry since which that is counted.
    pub recycled_since: JournalSeq,
}

impl Holdings {
    /// The holdings after `movement`, which stands in entry `seq`; the notes themselves moved
    /// after entry `moved`, which is the intent where the movement is an intent's late result: a
    /// person who counted in between has counted it. Whether a change id was applied before is the
    /// caller's to know.
    ///
    /// # Errors
    /// A [`Refusal`] where the movement does not fit; the holdings are then as they were.
    pub fn after(
        &self,
        movement: &CashMove,
        seq: JournalSeq,
        moved: JournalSeq,
    ) -> Result<Self, Refusal> {
        let mut next = self.clone();
        next.apply(movement, seq, moved)?;
        Ok(next)
    }

    /// Whether the bays hold enough for `plan`, for certain.
    ///
    /// # Errors
    /// [`Refusal::NoSuchBay`], [`Refusal::NotEnough`].
    pub fn check_plan(&self, plan: &DispensePlan) -> Result<(), Refusal> {
        for (bay, wanted) in &plan.notes {
            let held = self.bays.get(bay).ok_or(Refusal::NoSuchBay(*bay))?.sure();
            if held < i64::from(*wanted) {
                return Err(Refusal::NotEnough { bay: *bay, held, wanted: *wanted });
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        movement: &CashMove,
        seq: JournalSeq,
        moved: JournalSeq,
    ) -> Result<(), Refusal> {
        match movement {
            CashMove::Assign { bay, denomination, recycles } => {
                match self.bays.get_mut(bay).filter(|held| held.denomination == *denomination) {
                    Some(held) if held.recycles == *recycles => {}
                    // another device's bay: nobody has counted it for us
                    Some(held) => (held.recycles, held.differs) = (*recycles, 0),
                    None => {
                        self.bays.insert(*bay, Bay::new(*denomination, *recycles, seq));
                    }
                }
            }
            CashMove::Change { bay, change, base_seq, .. } => {
                self.change(*bay, *change, *base_seq, seq)?;
            }
            CashMove::Dispensed { bay, denomination, result, clears } => {
                if let Some(held) = self.bays.get_mut(bay).filter(|held| held.set_at <= moved) {
                    held.dispensed(*denomination, result, *clears)?;
                }
                if self.reject_bin_emptied <= moved {
                    let bin = self.reject_bin.entry(*denomination).or_default();
                    bin.count = add(bin.count, binned(result))?;
                }
            }
            CashMove::Doubt { bay } => {
                if let Some(held) = self.bays.get_mut(bay).filter(|held| held.set_at <= moved) {
                    held.doubts = add(held.doubts, 1)?;
                }
            }
            CashMove::Unsure { bay, most } => {
                // a recycler counts itself what is gone
                let counts = |held: &&mut Bay| held.set_at <= moved && !held.recycles;
                if let Some(held) = self.bays.get_mut(bay).filter(counts) {
                    held.unsure = add(held.unsure, i64::from(*most))?;
                }
            }
            CashMove::Stacked { .. }
            | CashMove::StackDoubt { .. }
            | CashMove::NotStacked { .. }
                if moved < self.cashbox_emptied => {}
            CashMove::Stacked { denomination, clears } => {
                let heap = self.cashbox.entry(*denomination).or_default();
                heap.count = add(heap.count, 1)?;
                heap.doubts = add(heap.doubts, if *clears { -1 } else { 0 })?;
                let kept = |bay: &&mut Bay| bay.recycles && bay.denomination == *denomination;
                let mut boxes: Vec<_> = self.bays.values_mut().filter(kept).collect();
                let told = |bay: &&mut &mut Bay| *clears && bay.differs > 0;
                if let Some(bay) = boxes.iter_mut().find(told) {
                    // its device has counted it while nobody knew whose it was
                    bay.differs = add(bay.differs, -1)?;
                }
                if !boxes.is_empty() {
                    self.unsort(*denomination, 1)?;
                }
            }
            CashMove::StackDoubt { denomination, counted } => {
                let heap = self.cashbox.entry(*denomination).or_default();
                heap.count = add(heap.count, if *counted { -1 } else { 0 })?;
                heap.doubts = add(heap.doubts, 1)?;
                if *counted {
                    self.unsort(*denomination, -1)?;
                }
            }
            CashMove::NotStacked { denomination } => {
                let heap = self.cashbox.entry(*denomination).or_default();
                heap.doubts = add(heap.doubts, -1)?;
            }
            CashMove::Recycled { bay, denomination, notes } => {
                let notes = i64::from(*notes);
                let held = self.bay(*bay)?;
                held.recycled_in = add(held.recycled_in, notes)?;
                let heap = self.cashbox.entry(*denomination).or_default();
                heap.count = add(heap.count, notes.saturating_neg())?;
                let all = self.recycled.entry((*bay, *denomination)).or_default();
                *all = add(*all, notes)?;
                self.unsort(*denomination, notes.saturating_neg())?;
            }
            CashMove::Sorted { denomination } => {
                self.unsorted.remove(denomination);
            }
            CashMove::Differs { bay, by } => {
                let held = self.bay(*bay)?;
                held.differs = add(held.differs, *by)?;
            }
            CashMove::RecycledAnew => {
                self.recycled.clear();
                self.recycled_since = seq;
            }
            CashMove::CashboxEmptied { .. } => {
                self.cashbox.clear();
                self.unsorted.clear();
                self.cashbox_emptied = seq;
            }
            CashMove::RejectBinEmptied { .. } => {
                self.reject_bin.clear();
                self.reject_bin_emptied = seq;
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        id: BayId,
        change: CountChange,
        base: JournalSeq,
        seq: JournalSeq,
    ) -> Result<(), Refusal> {
        let bay = self.bay(id)?;
        if base < bay.set_at {
            return Err(Refusal::StaleChange { bay: id, base, set: bay.set_at });
        }
        match change {
            CountChange::Delta(delta) => bay.loaded = add(bay.loaded, delta)?,
            CountChange::Set(count) => {
                let correction = i64::from(count).checked_sub(bay.on_hand());
                bay.loaded = add(bay.loaded, correction.ok_or(Refusal::Overflow)?)?;
                (bay.doubts, bay.unsure, bay.differs) = (0, 0, 0);
                bay.set_at = seq;
            }
        }
        Ok(())
    }

    /// More notes, or fewer, of which the device has yet to tell.
    fn unsort(&mut self, denomination: Denomination, notes: i64) -> Result<(), Refusal> {
        let open = self.unsorted.entry(denomination).or_default();
        *open = add(*open, notes)?.max(0);
        self.unsorted.retain(|_, notes| *notes > 0);
        Ok(())
    }

    fn bay(&mut self, bay: BayId) -> Result<&mut Bay, Refusal> {
        self.bays.get_mut(&bay).ok_or(Refusal::NoSuchBay(bay))
    }
}

fn add(a: i64, b: i64) -> Result<i64, Refusal> {
    // what does not fit into canonical JSON does not fit into a report either
    const MOST: u64 = 1 << 40;
    a.checked_add(b).filter(|sum| sum.unsigned_abs() < MOST).ok_or(Refusal::Overflow)
}

#[cfg(test)]
mod tests {
    use bitspire_shared::ids::ChangeId;
    use proptest::prelude::*;

    use super::*;

    fn twenty() -> Denomination {
        Denomination::from_minor(2_000).unwrap()
    }

    fn bay() -> BayId {
        BayId::new(1).unwrap()
    }

    fn change(change: CountChange, base: u64) -> CashMove {
        let change_id = ChangeId::from_bytes([1; 16]);
        let base_seq = JournalSeq(base);
        CashMove::Change { bay: bay(), change_id, change, base_seq, reason: "refill".into() }
    }

    fn next(holdings: &Holdings, movement: &CashMove, seq: u64) -> Result<Holdings, Refusal> {
        holdings.after(movement, JournalSeq(seq), JournalSeq(seq))
    }

    fn loaded(count: u32) -> Holdings {
        let assign = CashMove::Assign { bay: bay(), denomination: twenty(), recycles: false };
        let holdings = next(&Holdings::default(), &assign, 1).unwrap();
        next(&holdings, &change(CountChange::Set(count), 1), 2).unwrap()
    }

    fn dispensed(result: BayResult) -> CashMove {
        CashMove::Dispensed { bay: bay(), denomination: twenty(), result, clears: false }
    }

    /// Loss prevented: rejected and stray notes that nobody subtracts let the books promise notes
    /// that the cassette does not have.
    #[test]
    fn every_note_that_left_is_subtracted_once() {
        let result = BayResult {
            requested: 5,
            picked: Some(7),
            presented: 4,
            taken: None,
            retracted: Some(1),
            rejected: Some(2),
        };
        let after = next(&loaded(100), &dispensed(result), 3).unwrap();
        assert_eq!(after.bays[&bay()].on_hand(), 93);
        assert_eq!(after.bays[&bay()].stray, 1);
        assert_eq!(after.reject_bin[&twenty()].count, 2 + 1 + 1);
    }

    /// Loss prevented: a refill that was typed in before the last count would be counted twice.
    #[test]
    fn a_change_older_than_the_last_count_is_refused() {
        let holdings = loaded(100);
        let stale = next(&holdings, &change(CountChange::Delta(50), 1), 9);
        assert!(matches!(stale, Err(Refusal::StaleChange { .. })), "{stale:?}");
        let good = next(&holdings, &change(CountChange::Delta(50), 2), 9).unwrap();
        assert_eq!(good.bays[&bay()].on_hand(), 150);
    }

    /// Loss prevented: a plan for more notes than there are ends short in front of the customer.
    #[test]
    fn a_plan_beyond_the_cassette_is_refused() {
        let plan = |count| DispensePlan { notes: BTreeMap::from([(bay(), count)]) };
        assert_eq!(loaded(3).check_plan(&plan(3)), Ok(()));
        let refused = Err(Refusal::NotEnough { bay: bay(), held: 3, wanted: 4 });
        assert_eq!(loaded(3).check_plan(&plan(4)), refused);
        assert_eq!(Holdings::default().check_plan(&plan(1)), Err(Refusal::NoSuchBay(bay())));
    }

    /// Loss prevented: notes promised that a fault has left in the path, uncounted.
    #[test]
    fn what_a_fault_may_have_taken_is_not_promised_until_somebody_counts() {
        let plan = |count| DispensePlan { notes: BTreeMap::from([(bay(), count)]) };
        let unsure = |most| CashMove::Unsure { bay: bay(), most };
        let held = next(&loaded(10), &unsure(3), 3).unwrap();
        let held = next(&held, &unsure(1), 4).unwrap();
        assert_eq!((held.bays[&bay()].on_hand(), held.bays[&bay()].sure()), (10, 6));
        let refused = Err(Refusal::NotEnough { bay: bay(), held: 6, wanted: 7 });
        assert_eq!((held.check_plan(&plan(6)), held.check_plan(&plan(7))), (Ok(()), refused));
        let refilled = next(&held, &change(CountChange::Delta(5), 4), 5).unwrap();
        assert_eq!(refilled.bays[&bay()].sure(), 11, "a refill counts nothing");
        let counted = next(&refilled, &change(CountChange::Set(13), 5), 6).unwrap();
        assert_eq!((counted.bays[&bay()].on_hand(), counted.bays[&bay()].sure()), (13, 13));
        let late = counted.after(&unsure(3), JournalSeq(7), JournalSeq(4)).unwrap();
        assert_eq!(late.bays[&bay()].sure(), 13, "who counted since has counted that, too");
    }

    /// Loss prevented: twenties counted as fifties after a cassette was swapped.
    #[test]
    fn another_denomination_starts_at_nothing() {
        let fifty = Denomination::from_minor(5_000).unwrap();
        let swap = CashMove::Assign { bay: bay(), denomination: fifty, recycles: false };
        let holdings = next(&loaded(100), &swap, 3).unwrap();
        assert_eq!(holdings.bays[&bay()].on_hand(), 0);
        let other = next(&holdings, &dispensed(BayResult::default()), 4).unwrap();
        assert_eq!((other.bays[&bay()].on_hand(), other.bays[&bay()].doubts), (0, 1));
    }

    /// Loss prevented: a late answer about notes that a person has counted since, subtracted again.
    #[test]
    fn a_late_result_does_not_undo_a_count() {
        let doubt = next(&loaded(100), &CashMove::Doubt { bay: bay() }, 3).unwrap();
        assert_eq!(doubt.bays[&bay()].doubts, 1);
        let counted = next(&doubt, &change(CountChange::Set(95), 3), 4).unwrap();
        assert_eq!(counted.bays[&bay()].doubts, 0);
        let result = BayResult { requested: 5, presented: 5, ..BayResult::default() };
        let late = dispensed(result);
        let after = counted.after(&late, JournalSeq(5), JournalSeq(3)).unwrap();
        assert_eq!(after.bays[&bay()].on_hand(), 95);
        let in_time = doubt.after(&late, JournalSeq(5), JournalSeq(3)).unwrap();
        assert_eq!(in_time.bays[&bay()].on_hand(), 95);
    }

    /// Loss prevented: a note of unknown fate that is counted, or forgotten.
    #[test]
    fn a_doubt_about_a_note_ends_counted_or_not() {
        let denomination = twenty();
        let heap = |holdings: &Holdings| {
            let heap = holdings.cashbox[&twenty()];
            (heap.count, heap.doubts)
        };
        let stacked = CashMove::Stacked { denomination, clears: false };
        let one = next(&Holdings::default(), &stacked, 1).unwrap();
        let doubt = |counted| CashMove::StackDoubt { denomination, counted };
        let two = next(&one, &doubt(false), 2).unwrap();
        assert_eq!(heap(&two), (1, 1));
        let ours = CashMove::Stacked { denomination, clears: true };
        assert_eq!(heap(&next(&two, &ours, 3).unwrap()), (2, 0));
        let not_ours = CashMove::NotStacked { denomination };
        assert_eq!(heap(&next(&two, &not_ours, 3).unwrap()), (1, 0));
        assert_eq!(heap(&next(&one, &doubt(true), 2).unwrap()), (0, 1));
        let emptied = CashMove::CashboxEmptied { counted: BTreeMap::new() };
        let empty = next(&two, &emptied, 3).unwrap();
        let late = empty.after(&ours, JournalSeq(4), JournalSeq(2)).unwrap();
        assert!(late.cashbox.is_empty(), "the person who emptied it has counted it");
    }

    proptest! {
        /// Loss prevented: books that do not add up hide a missing note.
        #[test]
        fn what_was_loaded_is_somewhere(
            results in proptest::collection::vec((0u32..9, 0u32..9, 0u32..9, 0u32..3), 0..20),
        ) {
            let mut holdings = loaded(500);
            for (presented, rejected, extra, retracted) in results {
                let result = BayResult {
                    requested: presented,
                    picked: Some(presented + rejected + extra),
                    presented,
                    taken: None,
                    retracted: Some(retracted.min(presented)),
                    rejected: Some(rejected),
                };
                holdings = next(&holdings, &dispensed(result), 3).unwrap();
            }
            let bay = holdings.bays[&bay()];
            let binned = holdings.reject_bin.get(&twenty()).map_or(0, |heap| heap.count);
            let delivered = bay.presented - bay.retracted;
            prop_assert_eq!(bay.on_hand() + delivered + binned, 500);
        }
    }
}
