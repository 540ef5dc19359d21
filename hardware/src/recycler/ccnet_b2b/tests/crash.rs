//! Host killed, device cycled, cable bad: at each step between intent and result.

use super::super::super::world::crash;
use super::*;

/// Loss prevented: after a crash in the middle of a payout nobody can say how many notes went, or a
/// new host pays them again.
#[test]
fn a_host_that_dies_anywhere_in_a_payout_learns_from_the_counts() {
    crash::a_host_that_dies_anywhere_in_a_payout_learns_from_the_counts::<Unit>();
}

/// Loss prevented: a note that came in just before a crash is in a box and in nobody's count.
#[test]
fn a_host_that_dies_anywhere_while_a_note_comes_in_finds_it_counted_once() {
    crash::a_host_that_dies_anywhere_while_a_note_comes_in_finds_it_counted_once::<Unit>();
}

/// Loss prevented: a device that loses its power while it pays, and a sale that is called settled.
#[test]
fn a_device_that_loses_power_anywhere_in_a_payout_ends_it_truly() {
    crash::a_device_that_loses_power_anywhere_in_a_payout_ends_it_truly::<Unit>();
}

/// Loss prevented: a cable that is pulled in the middle of a payout, and an outcome made up for it.
#[test]
fn a_line_that_is_lost_in_a_payout_leaves_it_unknown() {
    crash::a_line_that_is_lost_in_a_payout_leaves_it_unknown::<Unit>();
}

/// Loss prevented: noise on the line that pays twice, or passes for a payout.
#[test]
fn over_a_bad_cable_the_outcome_is_true_or_unknown() {
    crash::over_a_bad_cable_the_outcome_is_true_or_unknown::<Unit>();
}

/// Loss prevented: a unit that loses its power in the middle of what it says, and a payout that is
/// called settled, or is ordered again.
#[test]
fn power_that_goes_at_any_byte_of_a_payout_is_met_truly() {
    crash::power_that_goes_at_any_byte_of_a_payout_is_met_truly::<Unit>();
}

/// Loss prevented: notes that left a cassette just before both sides died are given once more, or
/// the unit refuses to start with them inside.
#[test]
fn host_and_unit_that_die_together_in_a_payout_learn_from_the_counts() {
    for ms in (0..9_000).step_by(430) {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        let ordered = world.orders;
        world.kill_host();
        world.act(json!({"action": "power_off"}));
        world.run(500);
        world.act(json!({"action": "power_on"}));
        world.start_host();
        world.configure();
        world.ready();
        assert_eq!(world.orders, ordered, "{ms}");
        let gone = 5 - u64::from(world.counts()[0]);
        assert_eq!((world.given(), world.in_box(1)), (gone, 5 - gone), "{ms}");
        world.conserved();
    }
}

/// Loss prevented: notes on their way to the drop cassette that are booked twice, or nowhere.
#[test]
fn a_unit_that_loses_power_while_it_unloads_is_counted_again() {
    let mut known = 0;
    for ms in (0..5_000).step_by(270) {
        let mut world = World::open(0, [4, 5]);
        world.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) })));
        world.run(ms);
        world.act(json!({"action": "power_off"}));
        world.run(700);
        world.act(json!({"action": "power_on"}));
        match world.emptied() {
            EmptyOutcome::Moved { notes, .. } => {
                known += 1;
                assert_eq!(u64::from(notes), world.cashbox(), "{ms}");
            }
            EmptyOutcome::NotStarted(_) => assert_eq!(world.cashbox(), 0, "{ms}"),
            EmptyOutcome::Unknowable { .. } => {}
        }
        world.ready_again();
        let counts = world.counts();
        assert_eq!(
            (u64::from(counts[0]), world.cashbox()),
            (world.in_box(1), 4 - world.in_box(1)),
            "{ms}"
        );
        world.conserved();
    }
    assert!(known > 0);
}
