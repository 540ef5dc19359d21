//! Host killed, device cycled, cable bad: at each step between intent and result.

use super::super::super::world::crash;
use super::super::super::world::payout::is_true;
use super::*;

/// Loss prevented: after a crash in the middle of a payout nobody can say how many notes went, or a
/// new host pays them again.
#[test]
fn a_host_that_dies_anywhere_in_a_payout_learns_from_the_counts() {
    crash::a_host_that_dies_anywhere_in_a_payout_learns_from_the_counts::<Rc>();
}

/// Loss prevented: a note that came in just before a crash is in a box and in nobody's count.
#[test]
fn a_host_that_dies_anywhere_while_a_note_comes_in_finds_it_counted_once() {
    crash::a_host_that_dies_anywhere_while_a_note_comes_in_finds_it_counted_once::<Rc>();
}

/// Loss prevented: a device that loses its power while it pays, and a sale that is called settled.
#[test]
fn a_device_that_loses_power_anywhere_in_a_payout_ends_it_truly() {
    crash::a_device_that_loses_power_anywhere_in_a_payout_ends_it_truly::<Rc>();
}

/// Loss prevented: a half-said answer is taken for a word, or the payout is begun again behind it.
#[test]
fn power_that_goes_at_any_byte_of_a_payout_is_met_truly() {
    crash::power_that_goes_at_any_byte_of_a_payout_is_met_truly::<Rc>();
}

/// Loss prevented: a cable that is pulled in the middle of a payout, and an outcome made up for it.
#[test]
fn a_line_that_is_lost_in_a_payout_leaves_it_unknown() {
    crash::a_line_that_is_lost_in_a_payout_leaves_it_unknown::<Rc>();
}

/// Loss prevented: noise on the line that pays twice, or passes for a payout.
#[test]
fn over_a_bad_cable_the_outcome_is_true_or_unknown() {
    crash::over_a_bad_cable_the_outcome_is_true_or_unknown::<Rc>();
}

/// Loss prevented: a note that is taken, or left at the bezel of a device without power, just as it
/// is called back, is booked as one in the cashbox, or the other way round.
#[test]
fn whatever_happens_as_a_note_is_called_back_the_outcome_is_true() {
    // closely around the 4D, and on until the 26 has had its ACK
    let (close, on) = ((61_570..61_650).step_by(5), (61_450..62_100).step_by(65));
    for (action, times, least) in [("take", close, [2, 2]), ("power_off", on, [0, 2])] {
        let (mut taken, mut retracted) = (0, 0);
        for ms in times {
            let mut world = World::open(0, [5, 5]);
            world.act(json!({"action": "leave"}));
            world.pay(&[(1, 2)]);
            world.run(ms);
            world.act(json!({ "action": action }));
            if action == "power_off" {
                world.run(ms % 5 * 700 + 100);
                world.act(json!({"action": "power_on"}));
            }
            let outcome = world.outcome();
            let told = world.sim.counters();
            assert!(is_true(&world, &outcome), "{action} at {ms}: {outcome:?}, {told}");
            if let DispenseOutcome::Final { bays, .. } = outcome {
                taken += bays[&bay(1)].taken.unwrap();
                retracted += bays[&bay(1)].retracted.unwrap();
            }
            world.conserved();
        }
        assert!(taken >= least[0] && retracted >= least[1], "{action}: {taken}, {retracted}");
    }
}
