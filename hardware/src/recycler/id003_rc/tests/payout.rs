//! Notes in, notes out, notes to the cashbox.

use super::super::super::world::is_final;
use super::super::super::world::payout;
use super::super::super::world::payout::{done, is_true};
use super::super::moving::Recall;
use super::*;

/// Loss prevented: a note that a box keeps is booked as one in the cashbox, or the other way round.
#[test]
fn notes_go_where_they_are_kept_and_the_counts_say_so() {
    payout::notes_go_where_they_are_kept_and_the_counts_say_so::<Rc>();
}

/// Loss prevented: a payout of two kinds that gives one of them, or each twice; an inlet that stays
/// closed after it.
#[test]
fn a_plan_is_paid_out_box_by_box() {
    payout::a_plan_is_paid_out_box_by_box::<Rc>();
}

/// Loss prevented: more notes than a box holds are ordered of it, and the sale hangs.
#[test]
fn what_a_box_does_not_hold_is_not_ordered() {
    payout::what_a_box_does_not_hold_is_not_ordered::<Rc>();
}

/// Loss prevented: a plan is carried out while a note lies in escrow, or without the boxes set up.
#[test]
fn what_cannot_be_begun_is_refused() {
    payout::what_cannot_be_begun_is_refused::<Rc>();
}

/// Loss prevented: notes moved to the cashbox and still offered for sale, or moved twice.
#[test]
fn an_emptying_tells_how_many_notes_moved() {
    payout::an_emptying_tells_how_many_notes_moved::<Rc>();
}

/// Loss prevented: a lost answer to PAY OUT that is said again pays twice.
#[test]
fn a_lost_answer_to_the_order_is_not_repeated() {
    payout::a_lost_answer_to_the_order_is_not_repeated::<Rc>();
}

/// Loss prevented: a host that was held up for a moment calls notes that have moved unknown: its word
/// for an answer that came late made the device forget the next one, unseen.
#[test]
fn a_host_that_is_held_up_misses_nothing() {
    payout::a_host_that_is_held_up_misses_nothing::<Rc>();
}

/// Loss prevented: a note counts twice, or never, since the host was held up while it came in.
#[test]
fn a_note_that_comes_in_while_the_host_is_held_up_counts_once() {
    payout::a_note_that_comes_in_while_the_host_is_held_up_counts_once::<Rc>();
}

/// Loss prevented: a sale is called unpaid because its machine, which had heard of the set-up before,
/// ordered its notes while the boxes were set up once more, or asked for them then.
#[test]
fn who_orders_or_asks_during_a_set_up_waits_for_its_end() {
    payout::who_orders_or_asks_during_a_set_up_waits_for_its_end::<Rc>();
}

/// Loss prevented: a customer who leaves gets the note written off, although the machine has it.
#[test]
fn a_note_that_nobody_takes_is_called_back_and_owed() {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "leave"}));
    world.pay(&[(1, 3)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(3, 0, 1))]));
    assert!(fault.detail.contains("nobody took"), "{fault:?}");
    assert_eq!((world.given(), world.cashbox(), world.in_box(1)), (0, 1, 4));
    world.conserved();
}

/// Loss prevented: a sale that is held as uncertain, since its host was held up while one note followed
/// the other: it saw PAY VALID, its ACK, and PAY VALID again.
#[test]
fn a_note_that_nobody_saw_come_counts_where_the_counts_say_so() {
    for nth in [1, 2] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 3)]);
        let acknowledged = |engine: &Id003Rc<ByTest>| match &engine.work {
            Work::Pay(Payment { moving, .. }) => moving.paid == nth && !moving.current,
            _ => false,
        };
        while !world.engine.as_ref().is_some_and(acknowledged) {
            world.step();
        }
        world.hold_up(3_300, false);
        let bays = BayResults::from([(bay(1), done(3, 3, 0))]);
        assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None }, "{nth}");
        world.conserved();
    }
}

/// Loss prevented: notes that a jam kept back are called paid, or paid ones kept back.
#[test]
fn a_jam_ends_a_payout_with_the_truth() {
    let mut known = 0;
    for ms in (0..7_000).step_by(350) {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        if world.sim.control(&json!({"action": "recycler_jam"}), world.now).is_err() {
            continue;
        }
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}, {}", world.sim.counters());
        known += u32::from(is_final(&outcome));
        world.act(json!({"action": "clear"}));
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        world.until(|e| *e == RecyclerEvent::Out(DispenserEvent::Recovered));
        world.ready();
        assert!(world.orders <= 1);
        world.conserved();
    }
    assert!(known > 5, "{known} ended with an answer");
}

/// Loss prevented: a box that is called empty, and has notes that nobody looks for.
#[test]
fn a_box_that_is_not_empty_after_an_emptying_is_a_fault() {
    let mut world = World::open(0, [4, 5]);
    world.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) })));
    while world.cashbox() < 2 {
        world.step();
    }
    world.act(json!({"action": "load", "box": 1, "notes": 6}));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Emptied { .. }));
    let Some(RecyclerEvent::Emptied { outcome, .. }) = seen.last() else { panic!() };
    let EmptyOutcome::Moved { fault: Some(fault), .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(fault.kind, FaultKind::ServiceNeeded);
    assert!(fault.detail.contains("6 notes are still in box 1"), "{fault:?}");
}

/// Loss prevented: counts and PAY VALID that do not agree are called a success.
#[test]
fn an_outcome_is_settled_only_where_counts_and_device_agree() {
    let back = PayState::ReturnPayOutNote(Some(0));
    let of = |notes, gone, paid, recall, then: &[PayState]| {
        let mut moving = Moving::new(Mono(0));
        (moving.paid, moving.recall) = (paid, recall);
        for state in then {
            moving.on_state(*state, Mono(0));
        }
        super::super::outcome::settle(notes, gone, &moving).map(|bay| (bay.taken, bay.retracted))
    };
    assert_eq!(of(3, 3, 3, Recall::No, &[]), Some((Some(3), Some(0))));
    assert_eq!(of(3, 1, 1, Recall::No, &[]), Some((Some(1), Some(0))));
    assert_eq!(of(3, 3, 1, Recall::No, &[]), Some((Some(3), Some(0))), "PAY VALID once a command");
    assert_eq!(of(3, 2, 1, Recall::Said, &[back]), Some((Some(1), Some(1))), "called back");
    assert_eq!(of(3, 1, 1, Recall::Said, &[]), Some((Some(1), Some(0))), "taken all the same");
    assert_eq!(of(3, 3, 2, Recall::No, &[]), None, "one is gone of which it has not spoken");
    assert_eq!(of(3, 2, 1, Recall::Said, &[]), None, "the device has not said that it came back");
    for odd in [PayState::ReturnToBox, PayState::ReturnError] {
        assert_eq!(of(3, 2, 1, Recall::Said, &[odd]), None, "{odd}: it is not in the cashbox");
    }
    assert_eq!(of(2, 2, 1, Recall::No, &[back]), None, "it went back of its own accord");
    assert_eq!(of(3, 2, 1, Recall::Refused, &[]), None, "the recall was refused");
    assert_eq!(of(3, 2, 1, Recall::No, &[]), None, "one is missing");
    assert_eq!(of(3, 3, 1, Recall::Said, &[back]), None, "two are missing");
    assert_eq!(of(3, 1, 2, Recall::No, &[]), None, "more taken than gone");
    assert_eq!(of(2, 3, 3, Recall::No, &[]), None, "more gone than ordered");
}
