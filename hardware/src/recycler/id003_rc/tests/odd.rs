//! Answers that do not fit, or come too late.

use super::super::super::world::{note, payout::is_true};
use super::super::moving::Stage;
use super::*;

fn begun() -> World {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    while !world.engine.as_ref().is_some_and(|engine| matches!(engine.work, Work::Pay(_))) {
        world.step();
    }
    world
}

/// The order's answer is in, nothing was asked since.
fn until_acked(world: &mut World) {
    let acked = |engine: &Id003Rc<ByTest>| match &engine.work {
        Work::Pay(payment) => payment.moving.acked,
        _ => false,
    };
    while !world.engine.as_ref().is_some_and(acked) {
        world.step();
    }
}

/// Loss prevented: somebody who asks for the state during a payout never hears it.
#[test]
fn who_asks_during_a_payout_is_answered_after_it() {
    let mut world = begun();
    until_acked(&mut world);
    world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
    world.outcome();
    world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
}

/// Loss prevented: a word about another note sends the one in escrow to the cashbox, and the box's
/// notes are counted wrong.
#[test]
fn a_stale_proof_sends_no_note_to_the_cashbox() {
    let mut world = World::open(0, [1, 1]);
    let bill = world.escrow(10);
    while !world.engine.as_ref().is_some_and(|engine| engine.validator.awaits_state()) {
        world.step();
    }
    let stale = crate::acceptor::EscrowedBill { serial: bill.serial + 9, ..bill };
    world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
    world.send(RecyclerCommand::StackAway(Proof(stale)));
    world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
    assert_eq!((world.in_box(1), world.cashbox()), (2, 0));
}

/// Loss prevented: trouble that comes after another fault is never asked for, and the payout never
/// ends.
#[test]
fn trouble_after_a_note_that_is_stuck_is_asked_for() {
    let mut moving = Moving::new(Mono(0));
    moving.ordered(Mono(0));
    for state in [PayState::PayStay, PayState::ReturnError, PayState::Error] {
        moving.on_state(state, Mono(100));
    }
    assert!(moving.fault.is_some());
    assert_eq!(moving.stage, Stage::Trouble);
    moving.explain(FaultKind::Jam, "a jam".to_owned());
    // it lasts, and is not asked for again
    moving.stage = Stage::Watch;
    moving.on_state(PayState::Error, Mono(200));
    assert_eq!(moving.stage, Stage::Watch);
}

/// Loss prevented: a device that talks nonsense holds the line, and the sale, for ever.
#[test]
fn nonsense_is_silence() {
    let mut world = begun();
    world.until_at_bezel();
    world.hear_only(&Extension::Counts([0, 0]).frame().to_bytes(), 62_000);
    // while it lasts, not when the device comes to its senses
    let told = |e: &RecyclerEvent, fits: fn(&DispenseOutcome) -> bool| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(outcome)) if fits(outcome));
    let unknowable = |o: &DispenseOutcome| matches!(o, DispenseOutcome::Unknowable { .. });
    assert!(world.events.iter().any(|e| told(e, unknowable)), "{:?}", world.events);
    let mut world = begun();
    world.hear_only(&Reply::Ack.frame().to_bytes(), 5_000);
    let not_started = |o: &DispenseOutcome| matches!(o, DispenseOutcome::NotStarted(_));
    assert!(world.events.iter().any(|e| told(e, not_started)), "{:?}", world.events);
    assert_eq!(world.orders, 0);
}

/// Loss prevented: a device that is slow to begin is taken for one that has not understood, and pays
/// after the sale was called unpaid.
#[test]
fn an_order_that_was_acknowledged_is_waited_for() {
    let mut world = begun();
    until_acked(&mut world);
    world.hear_only(&Reply::Status(Status::Disabled).frame().to_bytes(), 2_500);
    let outcome = world.outcome();
    let DispenseOutcome::Final { bays, fault: None } = &outcome else { panic!("{outcome:?}") };
    assert_eq!(bays[&bay(1)].taken, Some(2));
    // one that it never begins is not known to be over
    let mut world = begun();
    until_acked(&mut world);
    world.hear_only(&Reply::Status(Status::Disabled).frame().to_bytes(), 62_000);
    assert!(matches!(world.outcome(), DispenseOutcome::Unknowable { .. }));
}

/// Loss prevented: a sale that is held as uncertain although nothing was ordered.
#[test]
fn before_the_order_nothing_is_uncertain() {
    let mut world = begun();
    world.drive(|engine, now| engine.on_link_down("unplugged", now));
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    let mut world = begun();
    world.hear_only(&Reply::InvalidCommand.frame().to_bytes(), 1_000);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    assert_eq!(world.orders, 0);
    // what was given before of another box stays given
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 1), (2, 1)]);
    let second = |engine: &Id003Rc<ByTest>| match &engine.work {
        Work::Pay(payment) => payment.bay == bay(2) && payment.moving.stage == Stage::Before,
        _ => false,
    };
    while !world.engine.as_ref().is_some_and(second) {
        world.step();
    }
    world.drive(|engine, now| engine.on_link_down("unplugged", now));
    let outcome = world.outcome();
    assert!(matches!(outcome, DispenseOutcome::Final { fault: Some(_), .. }), "{outcome:?}");
    assert!(is_true(&world, &outcome) && world.given() == 1, "{outcome:?}");
}

/// Loss prevented: a unit that does not call notes back holds the sale for ever, or the next note's
/// recall is lost with it.
#[test]
fn a_recall_that_is_refused_ends_in_doubt_and_counts_for_one_note_only() {
    let mut moving = Moving::new(Mono(0));
    moving.ordered(Mono(0));
    moving.on_state(PayState::PayStay, Mono(0));
    assert!(moving.wants_back(Mono(60_000)));
    moving.on_state(PayState::PayStay, Mono(60_000));
    moving.recall = super::super::moving::Recall::Refused;
    moving.on_state(PayState::PayStay, Mono(61_000));
    assert!(!moving.wants_back(Mono(61_000)));
    assert_eq!(moving.known_at, Mono(60_000));
    moving.on_state(PayState::PayValid, Mono(62_000));
    moving.on_state(PayState::PayStay, Mono(63_000));
    assert!(moving.wants_back(Mono(123_000)));
    assert_eq!(moving.known_at, Mono(63_000));
}

/// Loss prevented: the late answer to a setting is taken for a state that nobody knows, and a machine
/// whose host was held up is out of order.
#[test]
fn a_late_answer_to_a_setting_is_no_state() {
    let mut late = 0;
    for ms in (0..1_500).step_by(20) {
        let mut world = World::open(0, [1, 1]);
        let sets_up = |engine: &Id003Rc<ByTest>| matches!(engine.work, Work::SetUp { .. });
        world.configure();
        world.run(ms);
        late += u32::from(world.engine.as_ref().is_some_and(sets_up));
        world.hold_up(1_300, true);
        let is_ready =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. }));
        if !world.events.iter().any(is_ready) {
            let seen = world.until(is_ready);
            let fault = |e: &RecyclerEvent| matches!(e, RecyclerEvent::In(AcceptorEvent::Fault(_)));
            assert!(!seen.iter().any(fault), "{ms}: {seen:?}");
        }
    }
    assert!(late > 0, "none of them was held up in its set-up");
}

/// Loss prevented: a plan that was made for other bays pays other notes.
#[test]
fn bays_that_are_configured_anew_end_a_plan_that_waits() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    let other = [(bay(1), note(20)), (bay(2), note(10))].into();
    world.send(RecyclerCommand::Out(DispenserCommand::Configure(other)));
    let outcome = world.outcome();
    assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{outcome:?}");
    assert_eq!(world.orders, 0);
}
