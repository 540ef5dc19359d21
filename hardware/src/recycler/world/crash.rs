//! Host killed, device cycled, cable bad: at each step between intent and result.

use std::collections::BTreeMap;

use super::payout::is_true;
use super::*;
use crate::sim::faulty::seeds;

/// The device's counts, told by a host that has just come up.
fn told<M: Make>(world: &mut World<M>) -> BTreeMap<BayId, u32> {
    let seen = world.until(|e| matches!(e, RecyclerEvent::Counts(_)));
    match seen.last() {
        Some(RecyclerEvent::Counts(boxes)) => boxes.clone(),
        other => panic!("{other:?}"),
    }
}

/// Loss prevented: after a crash in the middle of a payout nobody can say how many notes went, or a
/// new host pays them again.
pub(in crate::recycler) fn a_host_that_dies_anywhere_in_a_payout_learns_from_the_counts<M: Make>() {
    for ms in (0..9_000).step_by(130) {
        let mut world = World::<M>::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        let ordered = world.orders;
        world.kill_host();
        world.run(ms % 7 * 400);
        world.start_host();
        world.configure();
        world.ready();
        assert_eq!(world.orders, ordered, "{ms}: a new host orders nothing by itself");
        // what the books had before the payout was 5
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        let gone = 5 - told(&mut world)[&bay(1)];
        assert_eq!(world.given(), u64::from(gone), "{ms}");
        assert_eq!(world.in_box(1), 5 - u64::from(gone), "{ms}");
        world.conserved();
    }
}

/// Loss prevented: a note that came in just before a crash is in a box and in nobody's count.
pub(in crate::recycler) fn a_host_that_dies_anywhere_while_a_note_comes_in_finds_it_counted_once<
    M: Make,
>() {
    for ms in (0..3_000).step_by(90) {
        let mut world = World::<M>::open(0, [1, 1]);
        let bill = world.escrow(10);
        world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
        world.run(ms);
        world.kill_host();
        world.run(ms % 5 * 300);
        world.start_host();
        world.configure();
        // whatever credit comes is made durable
        let end = world.now.after(60_000);
        let mut ready = false;
        while !ready {
            assert!(world.now < end, "{ms}: {}", world.state());
            world.step();
            while let Some(event) = world.events.pop_front() {
                if matches!(event, RecyclerEvent::In(AcceptorEvent::Credit { .. })) {
                    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
                }
                ready |= matches!(event, RecyclerEvent::Out(DispenserEvent::Ready { .. }));
            }
        }
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        let counted = told(&mut world)[&bay(1)];
        assert_eq!(world.in_box(1), u64::from(counted), "{ms}");
        world.conserved();
    }
}

/// Loss prevented: a device that loses its power while it pays, and a sale that is called settled.
pub(in crate::recycler) fn a_device_that_loses_power_anywhere_in_a_payout_ends_it_truly<M: Make>() {
    let mut known = 0;
    for ms in (0..9_000).step_by(310) {
        let mut world = World::<M>::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        world.act(json!({"action": "power_off"}));
        world.run(ms % 5 * 1_500 + 100);
        world.act(json!({"action": "power_on"}));
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}, {}", world.sim.counters());
        known += u32::from(is_final(&outcome));
        // a plan that had not been begun waits for the device, and is paid out when it is well
        world.run(12_000);
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
        assert!(world.orders <= 1, "{ms}");
        world.conserved();
    }
    assert!(known > 10, "{known} ended with an answer");
}

/// Loss prevented: a half-said answer is taken for a word, or the payout is begun again behind it.
pub(in crate::recycler) fn power_that_goes_at_any_byte_of_a_payout_is_met_truly<M: Make>() {
    for byte in (0..140).step_by(5) {
        let mut world = World::<M>::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.act(json!({"action": "power_off_at", "byte": byte}));
        while world.state() != json!({"status": "OFF"}) {
            world.step();
        }
        world.run(1_000);
        world.act(json!({"action": "power_on"}));
        let outcome = world.outcome();
        // before the inlet was closed for it, the plan has waited
        assert!(is_true(&world, &outcome), "{byte}: {outcome:?}, {}", world.sim.counters());
        world.ready_again();
        assert!(world.orders <= 1, "{byte}");
        world.conserved();
    }
}

/// Loss prevented: a cable that is pulled in the middle of a payout, and an outcome made up for it.
pub(in crate::recycler) fn a_line_that_is_lost_in_a_payout_leaves_it_unknown<M: Make>() {
    let mut known = 0;
    for ms in (200..9_000).step_by(400) {
        let mut world = World::<M>::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        world.to_host.clear();
        world.to_device.clear();
        world.drive(|engine, now| engine.on_link_down("unplugged", now));
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}");
        known += u32::from(is_final(&outcome));
        world.run(2_000);
        world.drive(|engine, now| engine.on_link_up(now));
        world.ready();
        assert!(world.orders <= 1, "{ms}");
        world.conserved();
    }
    assert!(known >= 3, "{known} ended with an answer");
}

/// Loss prevented: noise on the line that pays twice, or passes for a payout.
pub(in crate::recycler) fn over_a_bad_cable_the_outcome_is_true_or_unknown<M: Make>() {
    let (mut known, seeds) = (0, seeds(200));
    let all = seeds.end - seeds.start;
    for seed in seeds {
        let mut world = World::<M>::open(seed, [9, 9]);
        let rates = json!({"drop": 2_000, "duplicate": 0, "corrupt": 2_000, "delay": 0,
            "max_delay_ms": 0, "cut": 0});
        world.act(json!({"action": "rates", "rates": rates}));
        world.pay(&[(1, 2), (2, 1)]);
        let outcome = world.outcome();
        // a movement that has been lost sight of may still be under way
        known += u64::from(matches!(outcome, DispenseOutcome::Final { .. }));
        assert!(is_true(&world, &outcome), "{seed}: {outcome:?}, {}", world.sim.counters());
        assert!(world.orders <= 2, "{seed}");
        world.conserved();
    }
    assert!(known * 3 > all * 2, "{known} of {all} ended with an answer");
}
