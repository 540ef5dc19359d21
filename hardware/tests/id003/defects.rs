//! Defects known from other hosts of this protocol, each as a regression, and broken lines.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered, Rejected,
    Returned, Stacked,
};
use bitspire_hardware::acceptor::{AcceptorCommand, FaultKind, PowerUpBill};
use bitspire_hardware::frame::id003::Request;
use bitspire_hardware::sim::id003::Options;
use serde_json::json;

use crate::world::{World, note};

fn power_cycle(world: &mut World) {
    world.act(json!({"action": "power_off"}));
    world.run(700);
    world.act(json!({"action": "power_on"}));
}

/// Loss prevented: "unknown code 41" crashed a known host at each power-up with a note inside.
#[test]
fn power_up_with_a_note_in_the_acceptor() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    power_cycle(&mut world);
    let events = world.until(&Accepting);
    assert_eq!(events[0], PoweredUp(PowerUpBill::InAcceptor));
    assert!(events.contains(&Returned) && !events.iter().any(|e| matches!(e, Credit { .. })));
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: VEND VALID after a restart was answered with RESET: note stacked, no credit.
#[test]
fn vend_valid_after_a_restart_is_credited_not_reset() {
    for says_note in [true, false] {
        let mut world = World::open(Options { says_note, ..Options::default() }, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        world.until_status("VEND VALID");
        world.kill_host(true);
        world.run(2_000);
        let resets = world.times_said(Request::Reset);
        world.start_host();
        assert_eq!(world.next(), PoweredUp(PowerUpBill::InStacker));
        let denomination = says_note.then(|| note(20));
        assert_eq!(world.next(), Credit { escrowed: None, denomination });
        world.run(5_000);
        assert_eq!(world.times_said(Request::Reset), resets, "no RESET before the ACK");
        world.send(AcceptorCommand::AcknowledgeCredit);
        assert_eq!(world.next(), Stacked);
        world.until(&Closed);
        assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
    }
}

/// Loss prevented: power lost while stacking: the credit comes back during start-up, with power
/// recovery set, whatever the host was doing.
#[test]
fn power_up_with_a_note_in_the_stacker_brings_its_credit() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    world.act(json!({"action": "power_off"}));
    world.kill_host(true);
    world.act(json!({"action": "power_on"}));
    world.start_host();
    assert_eq!(world.next(), PoweredUp(PowerUpBill::InStacker));
    let events = world.until(&Credit { escrowed: None, denomination: Some(note(20)) });
    assert!(!events.contains(&Closed), "the credit comes before the device is called well");
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until(&Closed);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}

/// Loss prevented: firmware without power recovery gives no credit: the note must be reported as
/// unknown, never dropped and never invented.
#[test]
fn a_stacked_note_without_a_credit_is_unknown() {
    let options = Options { power_recovery: false, ..Options::default() };
    let mut world = World::open(options, &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    power_cycle(&mut world);
    let events = world.until(&Accepting);
    assert_eq!(events[0], PoweredUp(PowerUpBill::InStacker));
    let unknown =
        |e: &&_| matches!(e, Fault(f) if f.detail.contains("does not tell where 2000 minor"));
    assert_eq!(events.iter().filter(unknown).count(), 1, "{events:?}");
    assert!(!events.iter().any(|e| matches!(e, Credit { .. } | Returned)));
    assert_eq!(events[events.len() - 2], Recovered);
}

/// Loss prevented: a note that a technician pulled out of a jam, or that a device without memory
/// came up without, told as given back to the customer.
#[test]
fn a_note_out_of_sight_is_not_called_returned() {
    for jam in [true, false] {
        let mut world = World::open(Options { remembers: jam, ..Options::default() }, &[20]);
        world.escrow(20);
        if jam {
            world.act(json!({"action": "jam", "where": "acceptor"}));
            assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Jam));
            world.act(json!({"action": "clear"}));
            world.send(AcceptorCommand::Reset);
        } else {
            power_cycle(&mut world);
        }
        let events = world.until(&Accepting);
        let unknown = |e: &&_| matches!(e, Fault(f) if f.detail.contains("does not tell where"));
        assert_eq!(events.iter().filter(unknown).count(), 1, "{events:?}");
        assert!(!events.contains(&Returned), "{events:?}");
    }
}

/// Loss prevented: a timer for stuck states that never fires leaves a dead machine in service.
#[test]
fn a_note_left_in_the_inlet_is_a_fault_until_it_is_taken() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "leave"}));
    world.act(json!({"action": "reject_next", "reason": "71"}));
    world.act(json!({"action": "insert", "denomination": 20}));
    assert!(matches!(world.next(), Rejected { .. }));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Jam));
    world.act(json!({"action": "take"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: a machine that takes no notes any more because its validator was out of breath
/// once, between two customers.
#[test]
fn a_device_that_was_silent_for_a_while_is_well_again() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "silence", "replies": 200}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Silent));
    world.act(json!({"action": "silence", "replies": 0}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: one bad check sum put a known host out of service.
#[test]
fn bad_frames_are_asked_again_in_silence() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "damage", "replies": 3}));
    assert_eq!(world.during(5_000), []);
    let bill = world.escrow(20);
    world.act(json!({"action": "damage", "replies": 1}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.act(json!({"action": "damage", "replies": 2}));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((world.cashbox(), world.times_said(Request::Stack2)), (1, 1));
}

/// Loss prevented: the currency table had to come within 5 s or the start failed.
#[test]
fn a_late_currency_table_is_waited_for() {
    let mut world = World::new(Options::default());
    world.accept(&[20]);
    while world.times_said(Request::CurrencyAssign) == 0 {
        world.step();
    }
    world.act(json!({"action": "deaf", "frames": 8}));
    let events = world.until(&Accepting);
    assert!(events.iter().any(|e| matches!(e, Identified { notes, .. } if notes.len() == 7)));
}

/// Loss prevented: a STACK whose reply was lost, sent again, could stack the next note.
#[test]
fn a_lost_reply_to_stack_is_looked_up_not_repeated() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.act(json!({"action": "silence", "replies": 2}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    assert_eq!(world.times_said(Request::Stack2), 1);
}

/// Loss prevented: a STACK that never reached the device leaves the customer without note and
/// credit.
#[test]
fn a_lost_stack_is_said_again_while_the_note_still_waits() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.run(50);
    world.act(json!({"action": "deaf", "frames": 2}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    assert!(world.times_said(Request::Stack2) <= 3);
    assert_eq!(world.cashbox(), 1);
}

/// Loss prevented: a lost ACK leaves the device waiting until it answers no more.
#[test]
fn a_lost_ack_is_said_again_without_a_second_credit() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.run(50);
    world.act(json!({"action": "deaf", "frames": 4}));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!(world.count("acknowledged"), 1);
}

/// Loss prevented: a device that has gone silent behind an unacknowledged credit answers nothing
/// but RESET, and that must not be said before the credit is durable.
#[test]
fn a_device_stuck_behind_its_credit_is_reset_only_when_the_credit_is_durable() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    let resets = world.times_said(Request::Reset);
    let silent = world.next();
    assert!(matches!(&silent, Fault(f) if f.kind == FaultKind::Silent), "{silent:?}");
    world.run(60_000);
    assert_eq!(world.times_said(Request::Reset), resets);
    world.send(AcceptorCommand::AcknowledgeCredit);
    let events = world.until(&Accepting);
    assert!(events.contains(&Stacked) && events.contains(&Recovered), "{events:?}");
    assert!(!events.iter().any(|e| matches!(e, Credit { .. })), "{events:?}");
    assert_eq!(world.cashbox(), 1);
}

/// Loss prevented: a silent device in service; a note in escrow that the device gave back by itself
/// meanwhile, still counted as there.
#[test]
fn silence_is_a_fault_and_ends() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    world.act(json!({"action": "silence", "replies": 30}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Silent));
    let events = world.until(&Accepting);
    assert!(events.contains(&Recovered) && events.contains(&Returned), "{events:?}");
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: the proof of one note spent on the next, which came while nobody could look.
#[test]
fn a_note_that_came_out_of_sight_is_another_note() {
    // the cable is cut while the first is in escrow: the device gives it back after 3 s
    let mut world = World::open(Options::default(), &[20]);
    let first = world.escrow(20);
    world.act(json!({"action": "cut_cable"}));
    world.run(4_700);
    world.act(json!({"action": "insert", "denomination": 20}));
    world.run(1_100);
    assert!(world.status().starts_with("ESCROW"));
    world.act(json!({"action": "mend_cable"}));
    world.run(1_300);
    world.stack(first);
    world.until(&Accepting);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 2));

    // escrow times out in sight, the next note comes to escrow out of sight
    let mut world = World::open(Options::default(), &[20]);
    let first = world.escrow(20);
    world.until_status("REJECTING");
    world.run(200);
    world.act(json!({"action": "cut_cable"}));
    world.run(1_400);
    world.act(json!({"action": "insert", "denomination": 20}));
    world.run(1_010);
    world.act(json!({"action": "mend_cable"}));
    assert_eq!(world.next(), Returned);
    let Escrowed(second) = world.next() else { panic!("expected the second note") };
    assert_ne!(first.serial, second.serial);
}

/// Loss prevented: a quick customer's next note of the same value, taken for the last one still, stays
/// in escrow until the device gives it back by itself.
#[test]
fn the_next_note_of_the_same_value_is_another_note() {
    let mut world = World::open(Options::default(), &[20]);
    let first = world.escrow(20);
    world.stack(first);
    let Credit { .. } = world.next() else { panic!("expected the credit") };
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until_status("STACKED");
    world.act(json!({"action": "cut_cable"}));
    world.until_status("IDLING");
    world.act(json!({"action": "insert", "denomination": 20}));
    world.until_status("ESCROW");
    world.act(json!({"action": "mend_cable"}));
    assert_eq!(world.next(), Stacked);
    let Escrowed(second) = world.next() else { panic!("expected the second note") };
    assert_ne!(first.serial, second.serial);
    world.stack(second);
    let Credit { escrowed, .. } = world.next() else { panic!("expected its credit") };
    assert_eq!(escrowed, Some(second));
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until(&Accepting);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (2, 2));
}

/// Loss prevented: a pulled cable at each step of a note must neither double nor lose its credit.
#[test]
fn a_lost_link_keeps_the_note_and_its_credit() {
    for at in ["ESCROW", "STACKING", "VEND VALID"] {
        let mut world = World::open(Options::default(), &[20]);
        let bill = world.escrow(20);
        if at != "ESCROW" {
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
        let credits = events.iter().filter(|e| matches!(e, Credit { .. })).count();
        let returns = events.iter().filter(|e| **e == Returned).count();
        let expected = if at == "ESCROW" { (0, 1) } else { (1, 0) };
        assert_eq!((credits, returns), expected, "{at}: {events:?}");
        assert_eq!(world.cashbox() as usize, credits);
        assert_eq!(world.times_said(Request::Stack2), credits);
    }
}
