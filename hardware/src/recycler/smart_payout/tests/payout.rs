//! Notes in, notes out, notes to the cashbox.

use super::*;

fn stack(bill: Proof<EscrowedBill>) -> RecyclerCommand<ByTest> {
    RecyclerCommand::In(AcceptorCommand::Stack(bill))
}

/// Loss prevented: a note that the store keeps is booked as one in the cashbox, or the other way
/// round.
#[test]
fn notes_go_where_they_are_kept_and_the_counts_say_so() {
    let mut world = World::open(0, [0, 0]);
    for major in [10, 20, 10, 50] {
        world.take_in(stack, major);
    }
    assert_eq!((world.sum("store"), world.sum("cashbox")), (3, 1));
    assert_eq!(world.refresh(), [2, 1]);
    world.take_in(RecyclerCommand::StackAway, 20);
    assert_eq!((world.sum("store"), world.sum("cashbox")), (3, 2));
    // the next one is kept again
    world.take_in(stack, 20);
    assert_eq!(world.refresh(), [2, 2]);
    assert_eq!(world.credits, 6);
    world.conserved();
}

/// Loss prevented: a payout of two kinds that gives one of them, or each twice; an inlet that stays
/// closed after it.
#[test]
fn a_plan_is_paid_out_at_once() {
    for options in [
        Options::default(),
        Options { closes_after_payout: true, ..Options::default() },
        Options { flaky_levels: true, ..Options::default() },
    ] {
        let mut world = World::with(0, [5, 5], options);
        world.pay(&[(1, 2), (2, 1)]);
        let bays = BayResults::from([(bay(1), done(2, 2, [0; 2])), (bay(2), done(1, 1, [0; 2]))]);
        assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None });
        assert_eq!((world.given(), world.sum("store"), world.payouts()), (3, 7, 1));
        world.run(3_000);
        world.take_in(stack, 10);
        assert_eq!(world.refresh(), [4, 4]);
        world.conserved();
    }
}

/// Loss prevented: a customer who leaves gets the note written off, although the machine has it.
#[test]
fn a_note_that_nobody_takes_is_called_back_and_owed() {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "leave"}));
    world.pay(&[(1, 3)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(3, 0, [1, 0]))]));
    assert!(fault.detail.contains("nobody took"), "{fault:?}");
    assert_eq!((world.given(), world.sum("cashbox"), world.sum("store")), (0, 1, 9));
    world.until(is_ready);
    world.conserved();
}

/// Loss prevented: more notes than the store holds are ordered of it, and the sale hangs.
#[test]
fn what_the_store_does_not_hold_is_not_ordered() {
    let mut world = World::open(0, [1, 5]);
    world.pay(&[(1, 2), (2, 1)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    let none = [(bay(1), done(2, 0, [0; 2])), (bay(2), done(1, 0, [0; 2]))];
    assert_eq!(bays, BayResults::from(none));
    assert_eq!((fault.kind, world.payouts(), world.given()), (FaultKind::Cassette, 0, 0));
}

/// Loss prevented: a plan is carried out while a note lies in escrow, or without bays.
#[test]
fn what_cannot_be_begun_is_refused() {
    let mut world = World::new(0, Options::default());
    world.pay(&[(1, 1)]);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    let mut world = World::open(0, [5, 5]);
    for notes in [&[(3, 1)][..], &[(1, 21)], &[]] {
        world.pay(notes);
        assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)), "{notes:?}");
    }
    world.escrow(10);
    world.send(RecyclerCommand::In(AcceptorCommand::Hold));
    world.pay(&[(1, 1)]);
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    assert_eq!(world.payouts(), 0);
    let twice = [(bay(1), note(10)), (bay(2), note(10))].into();
    world.send(RecyclerCommand::Out(DispenserCommand::Configure(twice)));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_))));
    assert!(format!("{seen:?}").contains("different notes"), "{seen:?}");
}

/// Loss prevented: notes that a jam kept back are called paid, or paid ones kept back.
#[test]
fn a_jam_ends_a_payout_with_the_truth() {
    let mut known = 0;
    for ms in (0..7_000).step_by(410) {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        if world.sim.control(&json!({"action": "jam", "where": "payout"}), world.now).is_err() {
            continue;
        }
        let outcome = world.outcome();
        assert!(is_true(&world, &outcome), "{ms}: {outcome:?}, {}", world.told());
        known += u32::from(is_final(&outcome));
        world.act(json!({"action": "clear"}));
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        world.ready();
        assert!(world.payouts() <= 1);
        world.conserved();
    }
    assert!(known > 1, "{known} ended with an answer");
}

/// Loss prevented: a wrong note that the device put into the cashbox is booked as given; a store that
/// holds less than its levels say, and a payout that is called whole.
#[test]
fn what_did_not_go_to_the_customer_is_told_apart() {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "misread"}));
    world.pay(&[(1, 2)]);
    let DispenseOutcome::Final { bays, fault: None } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 2, [0, 1]))]));
    assert_eq!((world.given(), world.sum("cashbox")), (2, 1));
    let mut world = World::open(0, [2, 5]);
    world.act(json!({"action": "short", "box": 1, "notes": 1}));
    world.pay(&[(1, 2)]);
    let DispenseOutcome::Final { bays, fault: Some(fault) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 1, [0; 2]))]));
    assert!(fault.detail.contains("time-out"), "{fault:?}");
    world.conserved();
}

/// Loss prevented: notes moved to the cashbox and still offered for sale, or other bays emptied too.
#[test]
fn an_emptying_tells_how_many_notes_moved() {
    let mut world = World::open(0, [4, 5]);
    assert_eq!(world.empty(1), EmptyOutcome::Moved { notes: 4, fault: None });
    assert_eq!((world.refresh(), world.sum("cashbox")), ([0, 5], 4));
    world.until(is_ready);
    // the last kind goes by SMART EMPTY
    assert_eq!(world.empty(2), EmptyOutcome::Moved { notes: 5, fault: None });
    assert_eq!((world.refresh(), world.sum("cashbox"), world.payouts()), ([0, 0], 9, 0));
    world.until(is_ready);
    assert_eq!(world.empty(2), EmptyOutcome::Moved { notes: 0, fault: None });
    world.conserved();
}

/// Loss prevented: a lost answer to the order, and a second payout for it.
#[test]
fn a_lost_answer_to_the_order_is_not_repeated() {
    for (action, amount) in [("silence", "replies"), ("deaf", "frames"), ("damage", "replies")] {
        for ms in (0..1_200).step_by(40) {
            let mut world = World::open(0, [5, 5]);
            world.pay(&[(1, 2)]);
            world.run(ms);
            world.act(json!({"action": action, amount: 2}));
            let outcome = world.outcome();
            let bays = BayResults::from([(bay(1), done(2, 2, [0; 2]))]);
            assert_eq!(outcome, DispenseOutcome::Final { bays, fault: None }, "{action} {ms}");
            assert_eq!((world.given(), world.payouts()), (2, 1), "{action} {ms}");
        }
    }
}

/// Loss prevented: a plan that was made for other bays pays other notes.
#[test]
fn bays_that_are_configured_anew_end_a_plan_that_is_not_ordered_yet() {
    for ms in [0, 20, 60] {
        let mut world = World::open(0, [5, 5]);
        world.pay(&[(1, 2)]);
        world.run(ms);
        let other = [(bay(1), note(20)), (bay(2), note(10))].into();
        world.send(RecyclerCommand::Out(DispenserCommand::Configure(other)));
        let outcome = world.outcome();
        assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{ms}: {outcome:?}");
        world.until(is_ready);
        world.pay(&[(1, 1)]);
        assert!(is_final(&world.outcome()));
        assert_eq!(world.sim.counters()["given"], json!({"20": 1}));
    }
}

/// Loss prevented: a sale is called unpaid because its machine, which had heard of the set-up before,
/// ordered its notes while the bays were set up once more, or asked for them then.
#[test]
fn who_orders_or_asks_during_a_set_up_waits_for_its_end() {
    for ms in (0..2_000).step_by(40) {
        let mut world = World::open(0, [3, 3]);
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.run(ms % 120);
        world.configure();
        world.run(ms);
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.pay(&[(1, 1)]);
        let fault = |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_)));
        let is_end =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_)));
        let seen = world.until(is_end);
        assert!(!seen.iter().any(fault), "{ms}: {seen:?}");
        let bays = BayResults::from([(bay(1), done(1, 1, [0; 2]))]);
        let paid = DispenserEvent::Dispensed(DispenseOutcome::Final { bays, fault: None });
        assert_eq!(seen.last(), Some(&RecyclerEvent::Out(paid)), "{ms}");
    }
}

/// Loss prevented: levels and events that do not agree are called a success.
#[test]
fn an_outcome_is_settled_only_where_levels_and_device_agree() {
    use crate::frame::ssp::EventCode as C;
    let bays = BTreeMap::from([(bay(1), note(10)), (bay(2), note(20))]);
    let plan = DispensePlan { notes: BTreeMap::from([(bay(1), 3)]) };
    let of = |after: [u16; 2], told: u64, ended: Option<C>, aside: [u16; 2]| {
        let mut moving = Moving::met(Mono(0));
        moving.before = Some([(1_000, 5), (2_000, 5)].into());
        (moving.done, moving.ended, moving.acked) = (told, ended, true);
        if aside[0] > 0 {
            moving.retracted.insert(1_000, aside[0]);
        }
        if aside[1] > 0 {
            moving.rejected.insert(1_000, aside[1]);
        }
        let after = [(1_000, after[0]), (2_000, after[1])].into();
        let bays = super::super::outcome::settle(&plan, &bays, &moving, &after)?;
        let BayResult { taken, retracted, rejected, .. } = bays[&bay(1)];
        Some([taken?, retracted?, rejected?])
    };
    let over = Some(C::Dispensed);
    assert_eq!(of([2, 5], 3_000, over, [0, 0]), Some([3, 0, 0]));
    assert_eq!(of([4, 5], 1_000, over, [0, 0]), Some([1, 0, 0]));
    assert_eq!(of([3, 5], 1_000, over, [1, 0]), Some([1, 1, 0]), "called back");
    assert_eq!(of([1, 5], 3_000, over, [0, 1]), Some([3, 0, 1]), "a wrong one");
    assert_eq!(of([2, 5], 3_000, None, [0, 0]), None, "it has told no end");
    assert_eq!(of([5, 5], 0, None, [0, 0]), None, "taken on, and nothing told");
    assert_eq!(of([2, 5], 2_000, over, [0, 0]), None, "one is missing");
    assert_eq!(of([3, 5], 3_000, over, [0, 0]), None, "more paid than gone");
    assert_eq!(of([2, 4], 3_000, over, [0, 0]), None, "another kind is gone, too");
    assert_eq!(of([6, 5], 0, over, [0, 0]), None, "a note came from nowhere");
    assert_eq!(of([1, 5], 4_000, over, [0, 0]), None, "more than was ordered");
}
