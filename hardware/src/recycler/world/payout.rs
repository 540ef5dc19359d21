//! Notes in, notes out, notes to the cashbox.

use std::collections::BTreeMap;

use bitspire_shared::cash::{BayResult, BayResults};

use super::*;
use crate::acceptor::FaultKind;

pub(in crate::recycler) fn done(requested: u32, taken: u32, retracted: u32) -> BayResult {
    BayResult {
        requested,
        picked: Some(taken + retracted),
        presented: taken + retracted,
        taken: Some(taken),
        retracted: Some(retracted),
        rejected: Some(0),
    }
}

/// Loss prevented: a note that a box keeps is booked as one in the cashbox, or the other way round.
pub(in crate::recycler) fn notes_go_where_they_are_kept_and_the_counts_say_so<M: Make>() {
    let mut world = World::<M>::open(0, [0, 0]);
    let stack = |bill| RecyclerCommand::In(AcceptorCommand::Stack(bill));
    world.take_in(stack, 10);
    world.take_in(stack, 20);
    world.take_in(stack, 10);
    world.take_in(stack, 50);
    assert_eq!((world.in_box(1), world.in_box(2), world.cashbox()), (2, 1, 1));
    assert_eq!(world.counts(), [2, 1]);
    world.take_in(RecyclerCommand::StackAway, 20);
    assert_eq!((world.in_box(2), world.cashbox()), (1, 2));
    // the next one is kept again
    world.take_in(stack, 20);
    assert_eq!(world.counts(), [2, 2]);
    world.conserved();
}

/// Loss prevented: a payout of two kinds that gives one of them, or each twice; an inlet that stays
/// closed after it.
pub(in crate::recycler) fn a_plan_is_paid_out_box_by_box<M: Make>() {
    let mut world = World::<M>::open(0, [5, 5]);
    world.pay(&[(1, 2), (2, 1)]);
    let bays = BayResults::from([(bay(1), done(2, 2, 0)), (bay(2), done(1, 1, 0))]);
    assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None });
    assert_eq!((world.given(), world.in_box(1), world.in_box(2)), (3, 3, 4));
    assert!((1..=2).contains(&world.orders), "{}", world.orders);
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    let stack = |bill| RecyclerCommand::In(AcceptorCommand::Stack(bill));
    world.take_in(stack, 10);
    assert_eq!(world.counts(), [4, 4]);
    world.conserved();
}

/// Loss prevented: more notes than a box holds are ordered of it, and the sale hangs.
pub(in crate::recycler) fn what_a_box_does_not_hold_is_not_ordered<M: Make>() {
    let mut world = World::<M>::open(0, [1, 5]);
    world.pay(&[(1, 2), (2, 1)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 0, 0)), (bay(2), done(1, 0, 0))]));
    assert_eq!((fault.kind, world.orders, world.given()), (FaultKind::Cassette, 0, 0));
}

/// Loss prevented: a plan is carried out while a note lies in escrow, or without the boxes set up.
pub(in crate::recycler) fn what_cannot_be_begun_is_refused<M: Make>() {
    let mut world = World::<M>::new(0);
    world.pay(&[(1, 1)]);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    let mut world = World::<M>::open(0, [5, 5]);
    for notes in [&[(3, 1)][..], &[(1, 21)], &[]] {
        world.pay(notes);
        assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)), "{notes:?}");
    }
    world.escrow(10);
    world.send(RecyclerCommand::In(AcceptorCommand::Hold));
    world.pay(&[(1, 1)]);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    assert_eq!(world.orders, 0);
}

/// Loss prevented: notes moved to the cashbox and still offered for sale, or moved twice.
pub(in crate::recycler) fn an_emptying_tells_how_many_notes_moved<M: Make>() {
    let mut world = World::<M>::open(0, [4, 5]);
    world.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) })));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Emptied { .. }));
    let outcome = EmptyOutcome::Moved { notes: 4, fault: None };
    assert_eq!(seen.last(), Some(&RecyclerEvent::Emptied { bay: bay(1), outcome }));
    assert_eq!((world.in_box(1), world.in_box(2), world.cashbox(), world.orders), (0, 5, 4, 1));
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    assert_eq!(world.counts(), [0, 5]);
}

/// Loss prevented: a lost answer to PAY OUT that is said again pays twice.
pub(in crate::recycler) fn a_lost_answer_to_the_order_is_not_repeated<M: Make>() {
    for action in
        [json!({"action": "silence", "replies": 1}), json!({"action": "deaf", "frames": 1})]
    {
        let mut world = World::<M>::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        // A2 has been answered, the order is on its way
        while world.orders == 0 {
            world.step();
        }
        world.act(action.clone());
        let outcome = world.outcome();
        assert!(matches!(outcome, DispenseOutcome::Final { .. }), "{action}: {outcome:?}");
        assert!(is_true(&world, &outcome), "{action}: {outcome:?}");
        assert_eq!(world.orders, 1, "{action}");
    }
}

/// Loss prevented: a host that was held up for a moment calls notes that have moved unknown: its word
/// for an answer that came late made the device forget the next one, unseen.
pub(in crate::recycler) fn a_host_that_is_held_up_misses_nothing<M: Make>() {
    for (at, held) in (0..6_000).step_by(130).flat_map(|at| [350, 450, 900].map(|ms| (at, ms))) {
        for reading in [false, true] {
            let told = format!("{held} ms at {at}, reading: {reading}");
            let mut world = World::<M>::open(0, [3, 3]);
            world.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) })));
            world.run(at);
            world.hold_up(held, reading);
            assert_eq!(world.emptied(), EmptyOutcome::Moved { notes: 3, fault: None }, "{told}");
            world.pay(&[(2, 3)]);
            world.run(at);
            world.hold_up(held, reading);
            let bays = BayResults::from([(bay(2), done(3, 3, 0))]);
            assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None }, "{told}");
            world.conserved();
        }
    }
}

/// Loss prevented: a note counts twice, or never, since the host was held up while it came in.
pub(in crate::recycler) fn a_note_that_comes_in_while_the_host_is_held_up_counts_once<M: Make>() {
    let credit = |e: &&RecyclerEvent| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. }));
    for (at, held) in (0..2_400).step_by(80).flat_map(|at| [350, 450, 900].map(|ms| (at, ms))) {
        for reading in [false, true] {
            let mut world = World::<M>::open(0, [1, 1]);
            let bill = world.escrow(10);
            world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
            world.run(at);
            world.hold_up(held, reading);
            let mut seen = world.until(|e| credit(&e));
            world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
            seen.extend(world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting)));
            let credits = seen.iter().filter(credit).count();
            let told = format!("{held} ms at {at}, reading: {reading}: {seen:?}");
            assert_eq!((credits, world.in_box(1)), (1, 2), "{told}");
            assert_eq!(world.counts(), [2, 1], "{told}");
            world.conserved();
        }
    }
}

/// Loss prevented: a sale is called unpaid because its machine, which had heard of the set-up before,
/// ordered its notes while the boxes were set up once more, or asked for them then.
pub(in crate::recycler) fn who_orders_or_asks_during_a_set_up_waits_for_its_end<M: Make>() {
    for ms in (0..2_000).step_by(40) {
        let mut world = World::<M>::open(0, [3, 3]);
        let boxes = || [(bay(1), note(10)), (bay(2), note(20))].into();
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.run(ms % 120);
        world.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes())));
        world.run(ms);
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.pay(&[(1, 1)]);
        let fault = |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_)));
        let is_end =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_)));
        let seen = world.until(is_end);
        assert!(!seen.iter().any(fault), "{ms}: {seen:?}");
        let bays = BayResults::from([(bay(1), done(1, 1, 0))]);
        let paid = DispenserEvent::Dispensed(DispenseOutcome::Final { bays, fault: None });
        assert_eq!(seen.last(), Some(&RecyclerEvent::Out(paid)), "{ms}");
        // what the boxes turn out to be set up for is what is paid from
        let other = BTreeMap::from([(bay(1), note(10))]);
        world.send(RecyclerCommand::Out(DispenserCommand::Configure(other)));
        world.pay(&[(2, 1)]);
        assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)), "{ms}");
    }
}

/// Whether the outcome says what the simulated notes say, or that nobody knows. Nothing but notes
/// that were called back has gone to the cashbox.
pub(in crate::recycler) fn is_true<M: Make>(world: &World<M>, outcome: &DispenseOutcome) -> bool {
    let (given, retracted) = match outcome {
        DispenseOutcome::Unknowable { .. } => return true,
        DispenseOutcome::NotStarted(_) => (0, 0),
        DispenseOutcome::Final { bays, .. } => {
            let sum = |of: fn(&BayResult) -> Option<u32>| -> u32 {
                bays.values().map(|bay| of(bay).unwrap()).sum()
            };
            (sum(|bay| bay.taken.or(Some(bay.presented))), sum(|bay| bay.retracted))
        }
    };
    let waits = world.sim.counters()["at_bezel"].as_u64().unwrap();
    let presented = matches!(outcome, DispenseOutcome::Final { bays, .. }
        if bays.values().any(|bay| bay.taken.is_none()));
    let out = world.given() + if presented { waits } else { 0 };
    (out, world.cashbox()) == (u64::from(given), u64::from(retracted))
}
