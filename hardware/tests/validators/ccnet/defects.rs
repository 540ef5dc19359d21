//! What this protocol's own handshake is there for: credits and returns that are said until they
//! are confirmed.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, PoweredUp, Recovered, Returned, Stacked,
};
use bitspire_hardware::acceptor::{AcceptorCommand, FaultKind, PowerUpBill};
use bitspire_hardware::frame::ccnet::Request;
use bitspire_hardware::sim::SimDevice as _;
use bitspire_hardware::sim::ccnet::Options;
use serde_json::json;

use super::World;
use crate::world::note;

/// Loss prevented: BILL STACKED met at the start is answered with RESET, or confirmed before the
/// credit is durable: note stacked, no credit.
#[test]
fn a_credit_met_at_the_start_is_neither_reset_nor_confirmed() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("BILL STACKED");
    world.kill_host(true);
    world.run(2_000);
    let resets = world.times_said(Request::Reset);
    world.start_host();
    assert_eq!(world.next(), PoweredUp(PowerUpBill::InStacker));
    assert_eq!(world.next(), Credit { escrowed: None, denomination: Some(note(20)) });
    world.run(5_000);
    assert_eq!(world.times_said(Request::Reset), resets, "no RESET before the ACK");
    assert_eq!(world.count("acknowledged"), 0);
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.next(), Stacked);
    world.until(&Closed);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}

/// Loss prevented: an agent that wants the device started again, while a credit waits, loses it.
#[test]
fn a_reset_waits_for_the_credit() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    let Credit { .. } = world.next() else { panic!("expected the credit") };
    let resets = world.times_said(Request::Reset);
    world.send(AcceptorCommand::Reset);
    assert_eq!(world.during(5_000), []);
    assert_eq!(world.times_said(Request::Reset), resets);
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    // and open again after it
    assert_eq!(world.next(), Accepting);
    assert_eq!(world.times_said(Request::Reset), resets + 1);
    assert_eq!(world.count("acknowledged"), 1);
}

/// Loss prevented: a return that nobody saw leaves the host waiting for a note that the customer has
/// long since taken; the next note could come in its place.
#[test]
fn a_return_out_of_sight_is_told() {
    let mut world = World::open(Options::default(), &[20]);
    let first = world.escrow(20);
    world.act(json!({"action": "cut_cable"}));
    world.run(15_000);
    // the device takes no other note before its return was heard
    let insert = json!({"action": "insert", "denomination": 20});
    assert!(world.sim.control(&insert, world.now).is_err());
    world.act(json!({"action": "mend_cable"}));
    let events = world.until(&Accepting);
    let silent = |e: &_| matches!(e, Fault(f) if f.kind == FaultKind::Silent);
    assert!(events.iter().any(silent), "{events:?}");
    assert!(events.contains(&Returned) && events.contains(&Recovered), "{events:?}");
    world.stack(first);
    let second = world.escrow(20);
    assert_ne!(first.serial, second.serial);
    assert_eq!((world.times_said(Request::Stack), world.count("returned")), (0, 1));
}

/// Loss prevented: a quick customer's next note of the same value, taken for the last one still,
/// stays in escrow until the device gives it back by itself.
#[test]
fn the_next_note_of_the_same_value_is_another_note() {
    let mut world = World::open(Options::default(), &[20]);
    let first = world.escrow(20);
    world.stack(first);
    let Credit { .. } = world.next() else { panic!("expected the credit") };
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until_not_status("BILL STACKED");
    world.act(json!({"action": "cut_cable"}));
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

/// Loss prevented: commands that the device denies are taken for done.
#[test]
fn denied_commands_are_said_again() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "deny", "frames": 3}));
    assert_eq!(world.during(3_000), []);
    let bill = world.escrow(20);
    world.run(50);
    world.act(json!({"action": "deny", "frames": 2}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}

/// Loss prevented: an ACK that the device never gets in time leaves the line in a loop that ends
/// with nothing, or with a second credit.
#[test]
fn a_device_that_hears_no_ack_is_confirmed_again_and_again() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    let Credit { .. } = world.next() else { panic!("expected the credit") };
    for _ in 0..10 {
        world.act(json!({"action": "deaf", "frames": 1}));
        world.send(AcceptorCommand::AcknowledgeCredit);
        world.run(100);
    }
    let events = world.until(&Accepting);
    assert!(!events.iter().any(|e| matches!(e, Credit { .. })), "{events:?}");
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}
