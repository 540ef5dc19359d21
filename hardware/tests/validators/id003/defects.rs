//! Defects known from other hosts of this protocol, each as a regression, and broken lines.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, PoweredUp, Recovered, Returned, Stacked,
};
use bitspire_hardware::acceptor::{AcceptorCommand, FaultKind, PowerUpBill};
use bitspire_hardware::frame::id003::Request;
use bitspire_hardware::sim::id003::Options;
use serde_json::json;

use super::World;
use crate::world::note;

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
