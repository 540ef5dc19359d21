//! The books of boxes, by what a device counts and what people count.

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
    for (counted, missed) in [(0, vec![kept(2)]), (1, vec![kept(1)]), (2, vec![]), (9, vec![])] {
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
