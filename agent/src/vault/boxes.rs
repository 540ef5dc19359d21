//! A recycler's boxes: what it counts in them, held against the books.
//!
//! Promise: a note that came in stands in the cashbox's books from the moment at which it counts for
//! the customer; where the device then counts one note more in a box that keeps such notes, one entry
//! moves it there. What a box has become more or less beyond that is written down as a difference,
//! with an alert that names both numbers: the box gives no more than the smaller of them until
//! somebody has counted. Nothing that the device counts changes what the books say of sales: of a
//! payout that was cut off, its counts are evidence for the person who decides.
//!
//! The device tells its counts when it comes up, and when they have changed; after each note and
//! each payout it is asked, since a note that lies in the cashbox changes none of them. Counts that
//! come while notes go out, or while somebody is in service mode, are asked for again afterwards.
//!
//! Where somebody counts first, by hand, the notes of which the device has yet to tell are found
//! there: a box that has so many more than its books has them, and of a cashbox that has so many
//! fewer they are in the one box that keeps them. So a device that does not count makes no note
//! appear in two places, nor two differences that cancel.
//!
//! A machine whose devices were others before (a dispenser's bays became boxes, or the other way
//! round) sells nothing from a bay with notes until somebody has counted it.
//!
//! Failure policy: a device that does not count leaves the notes in the cashbox's books; they are
//! sorted as soon as it does.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::DispenserCommand;
use bitspire_hardware::recycler::RecyclerEvent;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::rpc::DeviceStatus;

use super::VaultError;
use super::core::Vault;
use crate::journal::{Bay, CashMove, Entry, Holdings, StoredTxn};
use crate::txn::Input;

/// Whether the device is to be asked for its counts.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    due: bool,
}

impl Boxes {
    /// A note came or went, or the books have changed.
    pub(super) fn ask(&mut self) {
        self.due = true;
    }
}

impl Vault {
    /// Asks for the counts, where that is due and nothing stands in the way.
    pub(super) fn count_boxes_if_due(&mut self) {
        if self.config.recycler.is_none() || !self.boxes.due || !self.boxes_rest() {
            return;
        }
        let now = self.mono();
        let Some(giver) = &mut self.dispenser else { return };
        // one that is not set up would call the question a fault
        if giver.status == DeviceStatus::Ready && !giver.is_coming(now) {
            self.boxes.due = !giver.send(DispenserCommand::Refresh);
        }
    }

    /// Whether what the device counts can be held against the books.
    fn boxes_rest(&self) -> bool {
        self.dispensing.is_none() && !self.service.is_inside()
    }

    /// What it says beside what a validator and a dispenser say.
    pub(super) fn recycler_says(&mut self, event: RecyclerEvent) -> Result<(), VaultError> {
        match event {
            RecyclerEvent::Counts(counts) => {
                tracing::info!(event = "boxes_counted", ?counts);
                self.boxes.due = !self.boxes_rest();
                if !self.boxes.due {
                    self.sort_notes(&counts)?;
                }
            }
            RecyclerEvent::Followed { taken, gave_back, fault } => {
                let back = if gave_back { ", a note came back" } else { "" };
                let fault = fault.map_or(String::new(), |fault| format!(", {}", fault.detail));
                let words = format!(
                    "a movement of unknown end is over: {taken} notes were heard to be taken since \
                     the device was met{back}{fault}"
                );
                // there is one movement at a time: it is that of the last intent that has no end
                let open = self.journal.open_txns()?.into_iter();
                let gives = |txn: &StoredTxn| {
                    txn.intent.as_ref().filter(|intent| intent.what == "dispense").map(|i| i.seq)
                };
                let last = open.filter(|txn| gives(txn).is_some()).max_by_key(gives);
                let input = Input::Followed { detail: words.clone() };
                self.queue.extend(last.map(|txn| (txn.txid, input)));
                self.raise("recycler_followed", words);
                self.boxes.ask();
            }
            // nobody here asks for one
            RecyclerEvent::Emptied { bay, outcome } => {
                self.raise("box_emptied", format!("bay {bay}: {outcome:?}"));
            }
            RecyclerEvent::In(_) | RecyclerEvent::Out(_) => {}
        }
        Ok(())
    }

    /// Writes what the device's counts say of where notes are.
    fn sort_notes(&mut self, counts: &BTreeMap<BayId, u32>) -> Result<(), VaultError> {
        let moves = sorted(self.journal.holdings(), counts);
        if moves.is_empty() {
            return Ok(());
        }
        for movement in &moves {
            if let CashMove::Differs { bay, by } = movement {
                let booked = self.journal.holdings().bays.get(bay).map(Bay::on_hand);
                tracing::error!(event = "box_differs", %bay, by, booked, counted = counts.get(bay));
            }
        }
        self.append(Entry::Cash(moves))?;
        self.reports.soon(self.mono());
        Ok(())
    }

    /// Before anything else of a start: which bays there are by the configuration.
    pub(super) fn fit_bays(&mut self) -> Result<(), VaultError> {
        let boxes = match (&self.config.recycler, &self.dispenser) {
            (Some(recycler), _) => recycler.bays.clone(),
            (None, Some(_)) => BTreeMap::new(),
            (None, None) => return Ok(()),
        };
        let moves = fitted(self.journal.holdings(), &boxes);
        let other = |movement: &CashMove| match movement {
            CashMove::Assign { bay, denomination, .. } => {
                let held = self.journal.holdings().bays.get(bay)?;
                let gone = held.denomination != *denomination && held.on_hand() != 0;
                let (notes, minor) = (held.on_hand(), held.denomination.minor());
                gone.then(|| format!("{notes} notes of {minor} minor units in bay {bay}"))
            }
            _ => None,
        };
        let gone: Vec<_> = moves.iter().filter_map(other).collect();
        if !gone.is_empty() {
            let words = "other notes are kept from now on where the books had";
            self.raise("refitted", format!("{words} {}", gone.join(", ")));
        }
        let doubted = |movement: &CashMove| match movement {
            CashMove::Doubt { bay } => Some(bay.to_string()),
            _ => None,
        };
        let doubted: Vec<_> = moves.iter().filter_map(doubted).collect();
        if !doubted.is_empty() {
            let words = "the devices are others than before; count what lies in bay ";
            self.raise("refitted", format!("{words}{}", doubted.join(", ")));
        }
        if !moves.is_empty() {
            self.append(Entry::Cash(moves))?;
        }
        Ok(())
    }
}

/// What follows from the counts of a device at rest.
fn sorted(held: &Holdings, counts: &BTreeMap<BayId, u32>) -> Vec<CashMove> {
    let mut moves = Vec::new();
    let mut unsorted = held.unsorted.clone();
    for (bay, books) in held.bays.iter().filter(|(_, books)| books.recycles) {
        // a box that is out keeps nothing: what comes back with it is nobody's note of today
        let Some(counted) = counts.get(bay) else { continue };
        let more = i64::from(*counted).saturating_sub(books.by_device());
        let open = unsorted.get(&books.denomination).copied().unwrap_or(0);
        let kept = more.clamp(0, open);
        if let Ok(notes @ 1..) = u32::try_from(kept) {
            let denomination = books.denomination;
            moves.push(CashMove::Recycled { bay: *bay, denomination, notes });
            unsorted.insert(denomination, open.saturating_sub(kept));
        }
        let by = more.saturating_sub(kept);
        if by != 0 {
            moves.push(CashMove::Differs { bay: *bay, by });
        }
    }
    let in_cashbox = unsorted.into_iter().filter(|(_, notes)| *notes > 0);
    moves.extend(in_cashbox.map(|(denomination, _)| CashMove::Sorted { denomination }));
    moves
}

/// What somebody finds in a box of the notes of which its device has yet to tell; to be written before
/// the count itself.
pub(super) fn found_in_box(held: &Holdings, bay: BayId, counted: u32) -> Option<CashMove> {
    let books = held.bays.get(&bay).filter(|books| books.recycles)?;
    let denomination = books.denomination;
    let open = held.unsorted.get(&denomination).copied().unwrap_or(0);
    let more = i64::from(counted).saturating_sub(books.on_hand());
    let notes = u32::try_from(more.min(open)).ok().filter(|notes| *notes > 0)?;
    Some(CashMove::Recycled { bay, denomination, notes })
}

/// What somebody who counts the cashbox misses there of such notes; to be written before its count.
/// Where two boxes keep them nobody can say which has them: that is left to whoever counts these.
pub(super) fn missed_in_cashbox(
    held: &Holdings,
    counted: &BTreeMap<Denomination, u32>,
) -> Vec<CashMove> {
    let missed = |(denomination, open): (&Denomination, &i64)| {
        let denomination = *denomination;
        let keeps = |bay: &Bay| bay.recycles && bay.denomination == denomination;
        let mut boxes = held.bays.iter().filter(|(_, bay)| keeps(bay));
        let (Some((bay, _)), None) = (boxes.next(), boxes.next()) else { return None };
        // what came back lies in the same box
        let heaps = [&held.cashbox, &held.reject_bin].into_iter();
        let heaps = heaps.filter_map(|heaps| heaps.get(&denomination));
        let booked = heaps.fold(0i64, |sum, heap| sum.saturating_add(heap.count));
        let there = counted.get(&denomination).copied().unwrap_or(0);
        let missing = booked.saturating_sub(there.into()).min(*open);
        let notes = u32::try_from(missing).ok().filter(|notes| *notes > 0)?;
        Some(CashMove::Recycled { bay: *bay, denomination, notes })
    };
    held.unsorted.iter().filter_map(missed).collect()
}

/// What follows from the boxes that are configured; none where the bays are a dispenser's.
fn fitted(held: &Holdings, boxes: &BTreeMap<BayId, Denomination>) -> Vec<CashMove> {
    let mut moves = Vec::new();
    for (bay, denomination) in boxes {
        let (bay, denomination) = (*bay, *denomination);
        let books = held.bays.get(&bay);
        if books.is_none_or(|books| !books.recycles || books.denomination != denomination) {
            moves.push(CashMove::Assign { bay, denomination, recycles: true });
        }
    }
    for (bay, books) in &held.bays {
        let (bay, denomination) = (*bay, books.denomination);
        let own = boxes.get(&bay);
        if boxes.is_empty() && books.recycles {
            moves.push(CashMove::Assign { bay, denomination, recycles: false });
        }
        let stays = match own {
            // other notes begin at nothing
            Some(note) => books.recycles || *note != denomination,
            // nobody sells what is not fitted; a dispenser's bays go by its own configuration
            None => boxes.is_empty() && !books.recycles,
        };
        if !stays && books.doubts == 0 && books.on_hand() != 0 {
            moves.push(CashMove::Doubt { bay });
        }
    }
    if boxes.is_empty() {
        let denominations = held.unsorted.keys();
        moves.extend(denominations.map(|value| CashMove::Sorted { denomination: *value }));
    }
    moves
}

#[cfg(test)]
mod tests {
    use bitspire_shared::cash::BayResult;
    use bitspire_shared::ids::{ChangeId, JournalSeq};

    use super::*;
    use crate::journal::CountChange;

    fn bay(number: u8) -> BayId {
        BayId::new(number).unwrap()
    }

    fn note(major: u32) -> Denomination {
        Denomination::from_minor(major * 100).unwrap()
    }

    /// The holdings, and the position of the last entry.
    struct Books(Holdings, u64);

    impl Books {
        /// Box 1 keeps notes of 10, box 2 of 20.
        fn new() -> Self {
            let mut books = Self(Holdings::default(), 0);
            let boxes = BTreeMap::from([(bay(1), note(10)), (bay(2), note(20))]);
            books.take(&fitted(&books.0, &boxes));
            books
        }

        fn take(&mut self, moves: &[CashMove]) {
            self.1 += 1;
            let at = JournalSeq(self.1);
            for movement in moves {
                self.0 = self.0.after(movement, at, at).unwrap();
            }
        }

        fn fed(&mut self, major: u32) {
            self.take(&[CashMove::Stacked { denomination: note(major), clears: false }]);
        }

        /// The device counts: what is written of it.
        fn counts(&mut self, counts: [u32; 2]) -> Vec<CashMove> {
            let counts = [(bay(1), counts[0]), (bay(2), counts[1])].into();
            let moves = sorted(&self.0, &counts);
            self.take(&moves);
            assert_eq!(sorted(&self.0, &counts), [], "the same counts say nothing new");
            moves
        }

        fn gave(&mut self, number: u8, notes: u32, clears: bool) {
            let result = BayResult {
                requested: notes,
                picked: Some(notes),
                presented: notes,
                taken: Some(notes),
                retracted: Some(0),
                rejected: Some(0),
            };
            let denomination = self.0.bays[&bay(number)].denomination;
            self.take(&[CashMove::Dispensed { bay: bay(number), denomination, result, clears }]);
        }

        fn counted(&mut self, number: u8, notes: u32) {
            self.take(&[CashMove::Change {
                bay: bay(number),
                change_id: ChangeId::from_bytes([1; 16]),
                change: CountChange::Set(notes),
                base_seq: JournalSeq(self.1),
                reason: "counted".into(),
            }]);
        }

        /// Notes of a bay by the books, and those that it may give.
        fn bay(&self, number: u8) -> (i64, i64) {
            let held = self.0.bays[&bay(number)];
            (held.on_hand(), held.sure())
        }

        fn cashbox(&self, major: u32) -> i64 {
            self.0.cashbox.get(&note(major)).map_or(0, |heap| heap.count)
        }
    }

    /// Loss prevented: a note that stands in the books of a box and lies in the cashbox, or the other
    /// way round.
    #[test]
    fn a_note_is_booked_where_the_device_counts_it() {
        let mut books = Books::new();
        books.fed(10);
        assert_eq!((books.cashbox(10), books.bay(1)), (1, (0, 0)), "nobody knows yet");
        let kept = CashMove::Recycled { bay: bay(1), denomination: note(10), notes: 1 };
        assert_eq!(books.counts([1, 0]), [kept]);
        assert_eq!((books.cashbox(10), books.bay(1)), (0, (1, 1)));
        // this one went to the cashbox: the box is full
        books.fed(10);
        assert_eq!(books.counts([1, 0]), [CashMove::Sorted { denomination: note(10) }]);
        assert_eq!((books.cashbox(10), books.bay(1)), (1, (1, 1)));
        // no box keeps these
        books.fed(50);
        assert_eq!(books.counts([1, 0]), []);
        // two of them between two counts, of which one was kept
        books.fed(20);
        books.fed(20);
        let kept = CashMove::Recycled { bay: bay(2), denomination: note(20), notes: 1 };
        assert_eq!(books.counts([1, 1]), [kept, CashMove::Sorted { denomination: note(20) }]);
        assert_eq!((books.cashbox(20), books.bay(2)), (1, (1, 1)));
        assert_eq!(books.0.recycled[&(bay(2), note(20))], 1);
    }

    /// Loss prevented: notes that somebody has put into a box, or taken out, explained away as those
    /// of customers; or a box that goes on selling what its device does not count.
    #[test]
    fn a_difference_is_written_down_and_not_sold() {
        let mut books = Books::new();
        books.fed(10);
        let fifteen = [
            CashMove::Recycled { bay: bay(1), denomination: note(10), notes: 1 },
            CashMove::Differs { bay: bay(1), by: 15 },
        ];
        assert_eq!(books.counts([16, 0]), fifteen);
        assert_eq!(books.bay(1), (1, 1), "no more than the books have");
        // one more comes in: it is the customer's, the fifteen are not
        books.fed(10);
        let kept = CashMove::Recycled { bay: bay(1), denomination: note(10), notes: 1 };
        assert_eq!(books.counts([17, 0]), [kept]);
        assert_eq!(books.bay(1), (2, 2));
        // nineteen are gone that nobody has sold, or seventeen and what the books had
        assert_eq!(books.counts([1, 0]), [CashMove::Differs { bay: bay(1), by: -16 }]);
        assert_eq!(books.bay(1), (2, 1), "no more than the device counts");
        books.counted(1, 1);
        assert_eq!(books.bay(1), (1, 1));
        assert_eq!(books.counts([1, 0]), [], "somebody counted what it counts");
        books.counted(1, 5);
        assert_eq!(books.counts([1, 0]), [CashMove::Differs { bay: bay(1), by: -4 }]);
        assert_eq!(books.bay(1), (5, 1));
    }

    /// Loss prevented: a payout that was cut off, held for complete because another note filled the
    /// gap in the box; or notes booked twice, by the counts and by the verdict.
    #[test]
    fn counts_are_evidence_of_a_payout_that_was_cut_off_and_no_more() {
        let mut books = Books::new();
        for _ in 0..5 {
            books.fed(10);
        }
        books.counts([5, 0]);
        books.take(&[CashMove::Doubt { bay: bay(1) }]);
        // two of the three have left the box
        assert_eq!(books.counts([3, 0]), [CashMove::Differs { bay: bay(1), by: -2 }]);
        assert_eq!((books.bay(1).0, books.0.bays[&bay(1)].by_device()), (5, 3));
        // a note that comes in meanwhile is that customer's
        books.fed(10);
        let kept = CashMove::Recycled { bay: bay(1), denomination: note(10), notes: 1 };
        assert_eq!(books.counts([4, 0]), [kept]);
        assert_eq!(books.0.bays[&bay(1)].doubts, 1, "nothing but a verdict or a count ends it");
        // the operator says that the customer has two: the books now say what the device counts
        books.gave(1, 2, true);
        assert_eq!(books.counts([4, 0]), []);
        assert_eq!(books.bay(1), (4, 4));
        // one that ended by the device's own word stands there already
        books.gave(1, 3, false);
        assert_eq!(books.counts([1, 0]), []);
        assert_eq!(books.bay(1), (1, 1));
    }

    /// Loss prevented: a note that a verdict credits, booked in the cashbox though its box has counted
    /// it: two places that are wrong, and a note that nobody may have.
    #[test]
    fn a_note_that_a_verdict_credits_lies_in_the_box_that_counted_it() {
        let mut books = Books::new();
        books.take(&[CashMove::StackDoubt { denomination: note(10), counted: false }]);
        assert_eq!(books.counts([1, 0]), [CashMove::Differs { bay: bay(1), by: 1 }]);
        books.take(&[CashMove::Stacked { denomination: note(10), clears: true }]);
        let kept = CashMove::Recycled { bay: bay(1), denomination: note(10), notes: 1 };
        assert_eq!(books.counts([1, 0]), [kept]);
        assert_eq!((books.cashbox(10), books.bay(1)), (0, (1, 1)));
    }

    /// Loss prevented: a note that stands in the cashbox's books and in those of its box, and a missing
    /// one that hides behind it, because somebody has counted before the device has.
    #[test]
    fn who_counts_before_the_device_finds_each_note_once() {
        let fed = |notes| {
            let mut books = Books::new();
            books.fed(10);
            books.counts([1, 0]);
            (0..notes).for_each(|_| books.fed(10));
            books
        };
        let kept = |notes| CashMove::Recycled { bay: bay(1), denomination: note(10), notes };
        let moved = |found: Option<CashMove>| match found {
            Some(CashMove::Recycled { notes, .. }) => notes,
            None => 0,
            other => panic!("{other:?}"),
        };
        // the box first: one note of before, two of which nobody knows
        for (counted, found, cashbox) in [(0, 0, 2), (1, 0, 2), (2, 1, 1), (3, 2, 0), (40, 2, 0)] {
            let mut books = fed(2);
            let move_in = found_in_box(&books.0, bay(1), counted);
            assert_eq!(moved(move_in.clone()), found, "{counted}");
            books.take(&Vec::from_iter(move_in));
            books.counted(1, counted);
            assert_eq!((books.bay(1).0, books.cashbox(10)), (counted.into(), cashbox));
            let there = BTreeMap::from([(note(10), u32::try_from(cashbox).unwrap())]);
            assert_eq!(missed_in_cashbox(&books.0, &there), [], "{counted}");
            assert_eq!(found_in_box(&books.0, bay(1), counted), None);
        }
        // the cashbox first
        for (counted, missed) in [(0, vec![kept(2)]), (1, vec![kept(1)]), (2, vec![]), (9, vec![])]
        {
            let books = fed(2);
            let there = BTreeMap::from([(note(10), counted)]);
            assert_eq!(missed_in_cashbox(&books.0, &there), missed, "{counted}");
        }
        // what a device has told of is missing where it is missing
        let mut books = fed(0);
        books.fed(50);
        assert_eq!(missed_in_cashbox(&books.0, &BTreeMap::new()), []);
        assert_eq!(found_in_box(&books.0, bay(1), 7), None);
        assert_eq!(found_in_box(&books.0, bay(3), 7), None, "not fitted");
        // one that came back lies in the same box
        let mut books = fed(1);
        let result = BayResult {
            requested: 1,
            picked: Some(1),
            presented: 1,
            taken: Some(0),
            retracted: Some(1),
            rejected: Some(0),
        };
        let denomination = note(10);
        books.take(&[CashMove::Dispensed { bay: bay(1), denomination, result, clears: false }]);
        let one = BTreeMap::from([(denomination, 1)]);
        assert_eq!(missed_in_cashbox(&books.0, &one), [kept(1)]);
        // two boxes: nobody can say
        let mut books = fed(1);
        books.take(&[CashMove::Assign { bay: bay(2), denomination, recycles: true }]);
        assert_eq!(missed_in_cashbox(&books.0, &BTreeMap::new()), []);
    }

    /// Loss prevented: notes that somebody has put into a box while it was out, taken for those that
    /// customers fed meanwhile.
    #[test]
    fn a_box_that_is_out_keeps_nothing() {
        let mut books = Books::new();
        books.fed(10);
        let moves = sorted(&books.0, &[(bay(2), 0)].into());
        assert_eq!(moves, [CashMove::Sorted { denomination: note(10) }]);
        books.take(&moves);
        assert_eq!(books.counts([7, 0]), [CashMove::Differs { bay: bay(1), by: 7 }]);
        assert_eq!((books.cashbox(10), books.bay(1)), (1, (0, 0)));
    }

    /// Loss prevented: the notes of cassettes that were taken out, sold from boxes that never had
    /// them; and what lay in boxes, from a dispenser.
    #[test]
    fn another_devices_bays_are_not_sold_before_they_are_counted() {
        let mut books = Books(Holdings::default(), 0);
        for (number, major) in [(1, 20), (2, 50), (3, 10)] {
            let (bay, denomination) = (bay(number), note(major));
            books.take(&[CashMove::Assign { bay, denomination, recycles: false }]);
            books.counted(number, 100);
        }
        assert_eq!(fitted(&books.0, &BTreeMap::new()), [], "a dispenser, as ever");
        let boxes = BTreeMap::from([(bay(1), note(20)), (bay(2), note(10))]);
        books.take(&fitted(&books.0, &boxes));
        let doubts =
            |books: &Books| -> Vec<i64> { books.0.bays.values().map(|held| held.doubts).collect() };
        assert_eq!(doubts(&books), [1, 0, 1]);
        assert_eq!(books.bay(2), (0, 0), "other notes begin at nothing");
        assert_eq!(fitted(&books.0, &boxes), [], "once");
        books.counted(1, 0);
        books.fed(20);
        books.counts([1, 0]);
        assert_eq!(books.bay(1), (1, 1));
        books.fed(20);
        // and back, with a note of which the device has not told
        books.take(&fitted(&books.0, &BTreeMap::new()));
        assert_eq!(doubts(&books), [1, 0, 1]);
        assert!(books.0.unsorted.is_empty() && !books.0.bays.values().any(|held| held.recycles));
        assert_eq!(fitted(&books.0, &BTreeMap::new()), [], "once");
    }
}
