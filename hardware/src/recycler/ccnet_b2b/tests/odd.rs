//! What goes wrong in the mechanism, and words that do not fit.

use super::super::moving::Stage;
use super::super::outcome::settle;
use super::*;
use crate::frame::ccnet::BILL_TO_BILL;
use crate::frame::ccnet::unit::UnitState;

/// Loss prevented: notes that a jam kept back are called paid, or paid ones kept back.
#[test]
fn a_jam_ends_a_payout_with_the_truth() {
    let mut known = 0;
    for ms in (0..7_000).step_by(350) {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        world.act(json!({"action": "unit_jam", "where": "73"}));
        // a plan that has not been begun waits for a while
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}, {}", world.sim.counters());
        known += u32::from(!matches!(outcome, DispenseOutcome::Unknowable { .. }));
        world.act(json!({"action": "clear"}));
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        world.ready_again();
        assert!(world.orders <= 1);
        world.conserved();
    }
    assert!(known > 3, "{known} ended with an answer");
}

/// Loss prevented: notes that a customer has left behind hold the machine's word for ever, or are
/// called taken.
#[test]
fn notes_that_nobody_takes_are_presented_and_told_when_they_are_taken() {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "leave"}));
    world.pay(&[(1, 2)]);
    let outcome = world.outcome();
    let presented = BayResult { taken: None, ..done(2, 2, 0) };
    let bays = BayResults::from([(bay(1), presented)]);
    assert_eq!(outcome, DispenseOutcome::Final { bays, fault: None });
    assert!(is_true(&world, &outcome));
    // the next one must wait
    world.pay(&[(2, 1)]);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    world.act(json!({"action": "take"}));
    let seen = world.until(|e| *e == RecyclerEvent::Out(DispenserEvent::Taken));
    assert!(!seen.iter().any(|e| matches!(e, RecyclerEvent::Followed { .. })), "{seen:?}");
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    world.conserved();
}

/// Loss prevented: notes that the unit has drawn back are booked as the customer's.
#[test]
fn notes_that_are_drawn_back_are_not_paid() {
    for late in [false, true] {
        let mut world = World::open(0, [5, 5]);
        world.act(json!({"action": "leave"}));
        world.pay(&[(1, 2)]);
        if late {
            world.outcome();
        } else {
            world.until_at_bezel();
            world.run(500);
        }
        world.act(json!({"action": "retract"}));
        if late {
            let told = |e: &RecyclerEvent| {
                matches!(e, RecyclerEvent::Followed { taken: 0, gave_back: true, fault: Some(_) })
            };
            world.until(told);
        } else {
            assert!(matches!(world.outcome(), DispenseOutcome::Unknowable { .. }));
        }
        world.act(json!({"action": "clear"}));
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        world.ready_again();
        assert_eq!((world.given(), world.cashbox()), (0, 2));
        world.conserved();
    }
}

/// Loss prevented: a payout from a cassette that is not there.
#[test]
fn a_cassette_that_is_out_gives_nothing() {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "cassette_out", "box": 1}));
    world.pay(&[(1, 2), (2, 1)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 0, 0)), (bay(2), done(1, 0, 0))]));
    assert_eq!((fault.detail.as_str(), world.orders), ("cassette 1 is out", 0));
    world.configure();
    let seen = world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
    let Some(RecyclerEvent::Out(DispenserEvent::Ready { bays, .. })) = seen.last() else {
        panic!()
    };
    assert_eq!(bays[&bay(1)], BayState::Missing);
    // pulled while notes come from it
    for ms in [500, 900, 1_400, 2_200, 3_000] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 3)]);
        world.run(ms);
        world.act(json!({"action": "cassette_out", "box": 1}));
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}, {}", world.sim.counters());
        world.conserved();
    }
}

/// Loss prevented: a unit that has fewer notes than it said, and a payout that never ends.
#[test]
fn a_number_that_the_unit_does_not_have_is_not_paid() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    let due = |engine: &CcnetB2b<ByTest>| match &engine.work {
        Work::Pay(payment) => payment.moving.stage == Stage::Order,
        _ => false,
    };
    while !world.engine.as_ref().is_some_and(due) {
        world.step();
    }
    world.act(json!({"action": "cassette_out", "box": 1}));
    while world.state()["status"] != "INVALID BILL NUMBER (28)" {
        world.step();
    }
    world.act(json!({"action": "cassette_in", "box": 1}));
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 0, 0))]));
    assert_eq!(fault.kind, FaultKind::Cassette);
}

/// Loss prevented: a plan beyond what one DISPENSE carries is cut short, or refused by the unit.
#[test]
fn a_large_plan_goes_out_by_several_orders() {
    for counts in [false, true] {
        let mut world = World::open(0, [15, 15]);
        world.act(json!({"action": "set", "option": "tells_counts", "on": counts}));
        world.pay(&[(1, 12), (2, 14)]);
        let bays = BayResults::from([(bay(1), done(12, 12, 0)), (bay(2), done(14, 14, 0))]);
        assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None });
        assert_eq!((world.orders, world.given()), (2, 26));
        world.conserved();
    }
}

/// Loss prevented: notes that a change of settings has moved to the drop cassette, without a record.
#[test]
fn a_cassette_with_notes_keeps_its_type() {
    let mut world = World::open(0, [3, 0]);
    let fault = |world: &mut World, boxes: &[(u8, u32)]| {
        let boxes = boxes.iter().map(|(n, major)| (bay(*n), note(*major))).collect();
        world.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
        let seen = world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_))));
        match seen.last() {
            Some(RecyclerEvent::Out(DispenserEvent::Fault(fault))) => fault.detail.clone(),
            other => panic!("{other:?}"),
        }
    };
    for boxes in [&[(1, 20), (2, 10)][..], &[(2, 20)]] {
        let why = fault(&mut world, boxes);
        assert!(why.contains("cassette 1 holds 3 notes"), "{why}");
    }
    assert!(fault(&mut world, &[(1, 10), (2, 10)]).contains("one cassette for each note"));
    assert!(fault(&mut world, &[(1, 10), (17, 20)]).contains("bay 17"));
    assert!(fault(&mut world, &[(1, 10), (2, 3)]).contains("knows no note of 300"));
    assert_eq!((world.in_box(1), world.cashbox()), (3, 0));
    // an empty one takes another
    let boxes = [(bay(1), note(10)), (bay(3), note(20))].into();
    world.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
    world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    world.take_in(|bill| RecyclerCommand::In(AcceptorCommand::Stack(bill)), 20);
    assert_eq!((world.in_box(2), world.in_box(3)), (0, 1));
}

/// Loss prevented: a note that was to go to the cashbox stays in a cassette, and nobody is told.
#[test]
fn a_note_that_does_not_go_on_to_the_drop_cassette_is_told() {
    let mut world = World::open(0, [1, 1]);
    let bill = world.escrow(10);
    world.send(RecyclerCommand::StackAway(Proof(bill)));
    world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
    world.act(json!({"action": "cassette_out", "box": 1}));
    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_))));
    let Some(RecyclerEvent::Out(DispenserEvent::Fault(fault))) = seen.last() else { panic!() };
    assert!(fault.detail.contains("1000 minor units"), "{fault:?}");
    assert_eq!((world.in_box(1), world.cashbox()), (2, 0));
    // one that is given back is nobody's to move
    let mut world = World::open(0, [1, 1]);
    let bill = world.escrow(10);
    world.act(json!({"action": "jam", "where": "acceptor"}));
    world.send(RecyclerCommand::StackAway(Proof(bill)));
    world.act(json!({"action": "clear"}));
    world.send(RecyclerCommand::In(AcceptorCommand::Reset));
    world.ready_again();
    world.take_in(|bill| RecyclerCommand::In(AcceptorCommand::Stack(bill)), 10);
    assert_eq!((world.in_box(1), world.cashbox(), world.orders), (2, 0, 0));
}

/// Loss prevented: a movement that a new host meets is not followed, or its line never given back.
#[test]
fn a_payout_that_a_new_host_meets_is_followed_to_its_end() {
    for counts in [false, true] {
        let mut world = World::open(0, [5, 5]);
        world.act(json!({"action": "set", "option": "tells_counts", "on": counts}));
        world.act(json!({"action": "leave"}));
        world.pay(&[(1, 2)]);
        world.until_at_bezel();
        world.kill_host();
        world.start_host();
        world.configure();
        world.run(3_000);
        world.act(json!({"action": "take"}));
        let seen = world.until(|e| matches!(e, RecyclerEvent::Counts(_)));
        // as many as it says; the counts tell the rest
        let taken = if counts { 2 } else { 0 };
        let told = RecyclerEvent::Followed { taken, gave_back: false, fault: None };
        assert!(seen.contains(&told), "{seen:?}");
        world.ready();
        assert_eq!((world.given(), world.in_box(1)), (2, 3));
    }
}

/// Loss prevented: a device that talks nonsense, or goes on and on, holds the line for ever.
#[test]
fn nonsense_is_not_an_outcome() {
    let unknowable = |e: &RecyclerEvent| {
        let RecyclerEvent::Out(DispenserEvent::Dispensed(outcome)) = e else { return false };
        matches!(outcome, DispenseOutcome::Unknowable { .. })
    };
    let of = |content: &[u8]| Frame::new(BILL_TO_BILL, content[0], &content[1..]).to_bytes();
    for (said, ms) in [(&[0x77, 1][..], 70_000), (&[0x1d, 0], 610_000), (&[0x14, 9, 9], 70_000)] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        while world.orders == 0 {
            world.step();
        }
        world.run(400);
        world.hear_only(&of(said), ms);
        assert!(world.events.iter().any(unknowable), "{said:02X?}: {:?}", world.events);
        // a person asks for a reset, and gets it
        world.act(json!({"action": "take"}));
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        world.ready_again();
        assert_eq!(world.orders, 1);
    }
}

/// Loss prevented: an order that the unit could not answer is carried out after the sale was called
/// unpaid.
#[test]
fn an_order_that_was_answered_by_busy_is_not_called_undone() {
    for busy in [true, false] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        while world.orders == 0 {
            world.step();
        }
        world.to_device.clear();
        let said: &[u8] = if busy { &[0x1b, 5] } else { &[0x00] };
        let bytes = Frame::new(BILL_TO_BILL, said[0], &said[1..]).to_bytes();
        world.drive(|engine, now| engine.on_bytes(&bytes, now));
        let outcome = world.outcome();
        assert!(matches!(outcome, DispenseOutcome::Unknowable { .. }), "{outcome:?}");
    }
}

/// Loss prevented: a plan that was made for other bays pays other notes.
#[test]
fn bays_that_are_configured_anew_end_a_plan_that_is_not_ordered_yet() {
    for ms in [0, 100, 300, 420] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        let ordered = world.orders > 0;
        let other = [(bay(1), note(10)), (bay(3), note(50))].into();
        world.send(RecyclerCommand::Out(DispenserCommand::Configure(other)));
        let outcome = world.outcome();
        let not_started = matches!(outcome, DispenseOutcome::NotStarted(_));
        assert!(not_started != ordered && is_true(&world, &outcome), "{ms}: {outcome:?}");
    }
}

/// Loss prevented: counts and DISPENSED that do not agree are called a success.
#[test]
fn an_outcome_is_settled_only_where_counts_and_device_agree() {
    let held = |notes: [u8; 3]| -> Held {
        let cassette = |notes| Cassette { present: true, full: false, kind: 4, notes };
        (1..).zip(notes.map(cassette)).collect()
    };
    let part = [(bay(1), 3)].into();
    let kinds = [(bay(1), 4)].into();
    let of = |after: [u8; 3], states: &[UnitState<'_>]| {
        let mut moving = Moving::new(Mono(0));
        moving.ordered(Mono(0));
        for state in states {
            moving.on_unit(*state, Mono(0));
        }
        let results = settle(&part, &kinds, &held([9, 9, 9]), &held(after), &moving)?;
        results.values().next().map(|bay| bay.taken)
    };
    let (waits, done) = (UnitState::Dispensing(Some(1)), UnitState::Dispensed(&[]));
    assert_eq!(of([6, 9, 9], &[waits, done]), Some(Some(3)));
    assert_eq!(of([7, 9, 9], &[done]), Some(Some(2)), "short");
    assert_eq!(of([6, 9, 9], &[UnitState::Dispensed(&[[4, 3]])]), Some(Some(3)));
    assert_eq!(of([9, 9, 9], &[]), Some(Some(0)), "nothing has begun");
    assert_eq!(of([6, 9, 9], &[UnitState::Dispensed(&[[4, 2]])]), None, "it says other counts");
    assert_eq!(of([6, 9, 9], &[UnitState::Dispensed(&[[4, 3], [5, 1]])]), None, "and another type");
    assert_eq!(of([6, 9, 9], &[waits]), None, "it has not said that they were taken");
    assert_eq!(of([9, 9, 9], &[waits]), None, "notes at the exit, and none gone");
    assert_eq!(of([9, 9, 9], &[done]), None, "given, and none gone");
    assert_eq!(of([5, 9, 9], &[done]), None, "more gone than ordered");
    assert_eq!(of([6, 8, 9], &[done]), None, "another cassette gave one");
    assert_eq!(of([10, 9, 9], &[]), None, "more than before");
    assert_eq!(of([6, 9, 9], &[done, UnitState::InvalidNumber]), None, "and a fault");
    let mut out = held([6, 9, 9]);
    out.get_mut(&1).unwrap().present = false;
    assert_eq!(
        settle(&part, &kinds, &held([9, 9, 9]), &out, &Moving::new(Mono(0))),
        None,
        "it is out"
    );
}
