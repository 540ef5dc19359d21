//! Notes in, notes out, notes to the drop cassette.

use super::super::super::world::payout;
use super::*;

/// Loss prevented: a note that a box keeps is booked as one in the cashbox, or the other way round.
#[test]
fn notes_go_where_they_are_kept_and_the_counts_say_so() {
    payout::notes_go_where_they_are_kept_and_the_counts_say_so::<Unit>();
}

/// Loss prevented: a payout of two kinds that gives one of them, or each twice; an inlet that stays
/// closed after it.
#[test]
fn a_plan_is_paid_out_box_by_box() {
    payout::a_plan_is_paid_out_box_by_box::<Unit>();
}

/// Loss prevented: more notes than a box holds are ordered of it, and the sale hangs.
#[test]
fn what_a_box_does_not_hold_is_not_ordered() {
    payout::what_a_box_does_not_hold_is_not_ordered::<Unit>();
}

/// Loss prevented: a plan is carried out while a note lies in escrow, or without the boxes set up.
#[test]
fn what_cannot_be_begun_is_refused() {
    payout::what_cannot_be_begun_is_refused::<Unit>();
}

/// Loss prevented: notes moved to the cashbox and still offered for sale, or moved twice.
#[test]
fn an_emptying_tells_how_many_notes_moved() {
    payout::an_emptying_tells_how_many_notes_moved::<Unit>();
}

/// Loss prevented: a lost answer to PAY OUT that is said again pays twice.
#[test]
fn a_lost_answer_to_the_order_is_not_repeated() {
    payout::a_lost_answer_to_the_order_is_not_repeated::<Unit>();
}

/// Loss prevented: a host that was held up for a moment calls notes that have moved unknown: its word
/// for an answer that came late made the device forget the next one, unseen.
#[test]
fn a_host_that_is_held_up_misses_nothing() {
    payout::a_host_that_is_held_up_misses_nothing::<Unit>();
}

/// Loss prevented: a note counts twice, or never, since the host was held up while it came in.
#[test]
fn a_note_that_comes_in_while_the_host_is_held_up_counts_once() {
    payout::a_note_that_comes_in_while_the_host_is_held_up_counts_once::<Unit>();
}

/// Loss prevented: a sale is called unpaid because its machine, which had heard of the set-up before,
/// ordered its notes while the boxes were set up once more, or asked for them then.
#[test]
fn who_orders_or_asks_during_a_set_up_waits_for_its_end() {
    payout::who_orders_or_asks_during_a_set_up_waits_for_its_end::<Unit>();
}
