//! Defects known from other hosts of this protocol, each as a regression, and broken lines.

use super::*;
use crate::acceptor::PowerUpBill;
use AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered, Returned, Stacked,
};

fn is_credit(event: &AcceptorEvent) -> bool {
    matches!(event, Credit { .. })
}

fn unknown_ends(events: &[AcceptorEvent]) -> usize {
    let unknown =
        |e: &&AcceptorEvent| matches!(e, Fault(f) if f.detail.contains("does not tell where"));
    events.iter().filter(unknown).count()
}

/// Loss prevented: a note in escrow over a power loss, forgotten or counted, under each policy.
#[test]
fn power_lost_in_escrow() {
    for policy in [PowerUpPolicy::A, PowerUpPolicy::B, PowerUpPolicy::C] {
        let mut world = World::with(Options::default(), policy, 0).opened(&[20]);
        world.escrow(20);
        world.power_cycle();
        let events = world.until(&Accepting);
        assert!(events.contains(&PoweredUp(PowerUpBill::InAcceptor)), "{policy:?}: {events:?}");
        assert!(events.contains(&Returned) && !events.iter().any(is_credit), "{events:?}");
        assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
    }
}

/// Loss prevented: power lost while stacking: under B the value comes back, under A and C a blank
/// word follows, which counts only because the note was seen stacking after the power came.
#[test]
fn power_lost_while_stacking() {
    for policy in [PowerUpPolicy::A, PowerUpPolicy::B, PowerUpPolicy::C] {
        let mut world = World::with(Options::default(), policy, 0).opened(&[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        world.until_status("STACKING");
        world.power_cycle();
        let events = world.until(&PoweredUp(PowerUpBill::InStacker));
        assert!(!events.contains(&Accepting), "{policy:?}: {events:?}");
        let denomination = (policy == PowerUpPolicy::B).then(|| note(20));
        let credit = Credit { escrowed: Some(bill), denomination };
        assert!(!world.until(&credit).contains(&Accepting), "{policy:?}");
        world.send(AcceptorCommand::AcknowledgeCredit);
        world.until(&Accepting);
        assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
    }
}

/// Loss prevented: a blank `stacked` at power-up, of units that say it every time, taken for the
/// note that was in escrow when the power went.
#[test]
fn a_blank_word_at_power_up_is_no_note() {
    let mut world = World::open(Options::default(), &[20]);
    world.power_cycle();
    let events = world.until(&Accepting);
    assert!(!events.iter().any(is_credit), "{events:?}");
    assert!(events.contains(&PoweredUp(PowerUpBill::None)), "{events:?}");

    // the note was stacked, and the unit has forgotten to say so
    let options = Options { remembers: false, ..Options::default() };
    let mut world = World::open(options, &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKED");
    world.power_cycle();
    let events = world.until(&Accepting);
    assert!(!events.iter().any(is_credit), "{events:?}");
    assert_eq!((unknown_ends(&events), world.cashbox()), (1, 1), "{events:?}");
}

/// Loss prevented: a restart of the host between `stacked` and its credit: note taken, no credit.
#[test]
fn stacked_outlives_the_host() {
    for says_value in [true, false] {
        let mut world = World::open(Options { says_value, ..Options::default() }, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        assert!(is_credit(&world.next()));
        world.kill_host(true);
        world.run(2_000);
        world.start_host();
        if !says_value {
            // a blank word to a host that knows of no note could be anything
            let events = world.until(&Closed);
            assert!(!events.iter().any(is_credit), "{events:?}");
            continue;
        }
        assert_eq!(world.next(), PoweredUp(PowerUpBill::InStacker));
        assert_eq!(world.next(), Credit { escrowed: None, denomination: Some(note(20)) });
        assert_eq!(world.during(5_000), []);
        assert_eq!(world.count("acknowledged"), 0, "the word is held");
        world.send(AcceptorCommand::AcknowledgeCredit);
        let events = world.until(&Closed);
        assert!(events.contains(&Stacked) && !events.iter().any(is_credit), "{events:?}");
        assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
    }
}

/// Loss prevented: the value of the note before, shown one poll too long, credited for this one.
#[test]
fn a_stale_value_is_waited_out() {
    let options = Options { stale_value: true, ..Options::default() };
    for options in [options, Options { extended: false, ..options }] {
        let mut world = World::open(options, &[20, 50]);
        for major in [50, 20, 50] {
            let bill = world.escrow(major);
            world.stack(bill);
            let credit = Credit { escrowed: Some(bill), denomination: Some(note(major)) };
            assert_eq!(world.next(), credit);
            world.send(AcceptorCommand::AcknowledgeCredit);
            assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
        }
        assert_eq!((world.cashbox(), world.stacks()), (3, 3));
    }
}

/// Loss prevented: a note that is one value in escrow and another when it is stacked, credited at
/// either without a word.
#[test]
fn another_value_at_stacked_is_told() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    world.act(json!({"action": "misread", "denomination": 50}));
    assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination: Some(note(50)) });

    // and one that changes while nobody has decided goes back
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.act(json!({"action": "misread", "denomination": 50}));
    world.run(500);
    world.stack(bill);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    assert_eq!((world.cashbox(), world.stacks()), (0, 0));
}

/// Loss prevented: a cashbox pulled while a note is stacked, whose blank word when it is put back is
/// taken for that note.
#[test]
fn a_cashbox_pulled_while_stacking_makes_the_note_unknown_until_it_is_told_by_value() {
    for says_value in [true, false] {
        let mut world = World::open(Options { says_value, ..Options::default() }, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        world.until_status("STACKING");
        world.run(300);
        world.act(json!({"action": "stacker_out"}));
        world.run(1_000);
        world.act(json!({"action": "jam"}));
        world.act(json!({"action": "clear"}));
        let events = world.until(&Accepting);
        // a person took it out
        assert_eq!((world.cashbox(), world.count("removed")), (0, 1));
        assert!(!events.iter().any(is_credit) && !events.contains(&Returned), "{events:?}");
        assert_eq!(unknown_ends(&events), 1, "{events:?}");
    }
}

/// Loss prevented: a note that a technician pulled out of a jam told as given back.
#[test]
fn a_note_out_of_sight_is_not_called_returned() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    world.act(json!({"action": "jam"}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Jam));
    world.act(json!({"action": "clear"}));
    let events = world.until(&Accepting);
    assert_eq!(unknown_ends(&events), 1, "{events:?}");
    assert!(!events.contains(&Returned), "{events:?}");
}

/// Loss prevented: a host that turns the toggle over when it says something again loses the word
/// that was in the lost answer.
#[test]
fn a_lost_answer_is_asked_for_under_its_toggle() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKED");
    world.act(json!({"action": "silence", "replies": 3}));
    assert!(is_credit(&world.next()));
    world.act(json!({"action": "damage", "replies": 3}));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((world.cashbox(), world.count("acknowledged"), world.stacks()), (1, 1, 1));
}

/// Loss prevented: a STACK whose reply was lost, sent again, could stack the next note; one that
/// never reached the device leaves the customer without note and credit.
#[test]
fn after_a_lost_stack_the_state_is_asked_for() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.act(json!({"action": "silence", "replies": 2}));
    world.stack(bill);
    assert!(is_credit(&world.next()));
    assert_eq!(world.stacks(), 1);

    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.run(150);
    world.act(json!({"action": "deaf", "frames": 2}));
    world.stack(bill);
    assert!(is_credit(&world.next()));
    assert!(world.stacks() <= 3);
    assert_eq!(world.cashbox(), 1);
}

/// Loss prevented: a silent device in service; a note in escrow that the device gave back by itself
/// meanwhile, still counted as there.
#[test]
fn silence_is_a_fault_and_ends() {
    let options = Options { returns_unpolled: true, ..Options::default() };
    let mut world = World::open(options, &[20]);
    world.act(json!({"action": "silence", "replies": 60}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Silent));
    world.act(json!({"action": "silence", "replies": 0}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);

    world.escrow(20);
    world.act(json!({"action": "cut_cable"}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Silent));
    world.run(8_000);
    world.act(json!({"action": "mend_cable"}));
    let events = world.until(&Accepting);
    assert!(events.contains(&Recovered) && events.contains(&Returned), "{events:?}");
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: the note table had to come at once or the start failed.
#[test]
fn a_late_note_table_is_waited_for() {
    let mut world = World::new(Options::default());
    world.accept(&[20]);
    while world.times(|r| matches!(r, Request::NoteSpecification(..))) < 3 {
        world.step();
    }
    world.act(json!({"action": "deaf", "frames": 2}));
    let events = world.until(&Accepting);
    assert!(events.iter().any(|e| matches!(e, Identified { notes, .. } if notes.len() == 7)));
}

/// Loss prevented: a pulled cable at each step of a note must neither double nor lose its credit.
#[test]
fn a_lost_link_keeps_the_note_and_its_credit() {
    for at in ["ESCROWED", "STACKING", "STACKED"] {
        let mut world = World::open(Options::default(), &[20]);
        let bill = world.escrow(20);
        if at != "ESCROWED" {
            world.stack(bill);
        }
        world.until_status(at);
        let before = world.during(0);
        world.link(false);
        assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::LinkLost));
        world.stack(bill);
        assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::LinkLost), "refused");
        world.run(1_000);
        world.link(true);
        let mut events = before;
        loop {
            let event = world.next();
            events.push(event.clone());
            match event {
                Credit { escrowed, .. } => {
                    assert_eq!(escrowed, Some(bill));
                    world.send(AcceptorCommand::AcknowledgeCredit);
                }
                Accepting => break,
                _ => {}
            }
        }
        let credits = events.iter().filter(|e| is_credit(e)).count();
        let returns = events.iter().filter(|e| **e == Returned).count();
        let expected = if at == "ESCROWED" { (0, 1) } else { (1, 0) };
        assert_eq!((credits, returns), expected, "{at}: {events:?}");
        assert_eq!((world.cashbox() as usize, world.stacks()), (credits, credits));
    }
}

/// Loss prevented: the proof of one note spent on the next, which came while nobody could look.
#[test]
fn a_note_that_came_out_of_sight_is_another_note() {
    let options = Options { returns_unpolled: true, ..Options::default() };
    let mut world = World::open(options, &[20]);
    let first = world.escrow(20);
    world.act(json!({"action": "jam"}));
    world.act(json!({"action": "clear"}));
    let events = world.until(&Accepting);
    assert_eq!(unknown_ends(&events), 1, "{events:?}");
    world.act(json!({"action": "insert", "denomination": 20}));
    let Escrowed(second) = world.next() else { panic!("expected the second note") };
    assert_ne!(first.serial, second.serial);
    world.stack(first);
    assert_eq!(world.during(2_000), []);
    assert_eq!(world.stacks(), 0);
}
