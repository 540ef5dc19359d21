//! Every legal sequence of the protocol.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Identified, PoweredUp, Recovered, Returned, Stacked,
};
use bitspire_hardware::acceptor::{AcceptorCommand, FaultKind, PowerUpBill};
use bitspire_hardware::frame::ccnet::{Bills, Request};
use bitspire_hardware::sim::ccnet::Options;
use serde_json::json;

use super::World;
use crate::common::fault;
use crate::world::note;

fn enable(kinds: &[u8]) -> Request<'static> {
    let bills: Bills = kinds.iter().copied().collect();
    Request::Enable { bills, escrow: bills }
}

/// Loss prevented: a device open for notes nobody wants, or one that stacks them without being
/// asked, loses credits from its first day.
#[test]
fn cold_start() {
    let mut world = World::new(Options::default());
    let events = world.until(&Closed);
    let [PoweredUp(PowerUpBill::None), Identified { version, notes }, Closed] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(version, "SM-SIM A 21KC00000001");
    let values: Vec<u32> = notes.iter().map(|(d, _)| d.minor() / 100).collect();
    assert_eq!(values, [5, 10, 20, 50, 100, 200, 500]);

    let said = world.said.iter().map(|frame| frame.content()[0]);
    let said: Vec<u8> = said.filter(|op| ![0x33, 0x00].contains(op)).collect();
    // who it is, its bills, RESET; then, when it is disabled, ENABLE of nothing and its read-back
    assert_eq!(said, [0x37, 0x41, 0x30, 0x34, 0x31]);
    assert_eq!(world.times_said(enable(&[])), 1);

    world.accept(&[20, 50]);
    assert_eq!(world.next(), Accepting);
    assert_eq!(world.times_said(enable(&[10, 11])), 1);
    world.accept(&[]);
    assert_eq!(world.next(), Closed);
    let asked = [0x33, 0x37, 0x41, 0x31];
    let asked = world.said.iter().filter(|frame| asked.contains(&frame.content()[0])).count();
    let confirmed = world.times_said(Request::Ack);
    assert!(confirmed == asked || confirmed + 1 == asked, "each answer with data has its ACK");
    assert_eq!(world.times_said(Request::Nak), 0);
}

/// Loss prevented: a repeated BILL STACKED credited twice; an ACK before the credit is durable.
#[test]
fn accept_credits_once_and_confirms_only_when_told() {
    for says_again in [false, true] {
        let mut world = World::open(Options { says_again, ..Options::default() }, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination: Some(note(20)) });
        let acks = world.times_said(Request::Ack);
        assert_eq!(world.during(20_000), [], "BILL STACKED repeats");
        assert_eq!(world.times_said(Request::Ack), acks);
        world.send(AcceptorCommand::AcknowledgeCredit);
        assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
        assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
        assert_eq!(world.times_said(Request::Stack), 1);
        // the next note is another one
        let next = world.escrow(20);
        assert_ne!(next.serial, bill.serial);
    }
}

/// Loss prevented: a device that names another note when it is stacked: both values must reach the
/// agent, which alone can doubt.
#[test]
fn a_note_that_is_stacked_as_another_is_told_as_both() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "misread_next", "denomination": 50}));
    let bill = world.escrow(20);
    world.stack(bill);
    assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination: Some(note(50)) });
}

/// Loss prevented: a machine that looks well while nobody can use it, and one that stays out of
/// order after it has been put right.
#[test]
fn latching_conditions_are_told_and_cleared() {
    for (action, kind, code) in [
        (json!({"action": "jam", "where": "acceptor"}), FaultKind::Jam, "(43)"),
        (json!({"action": "jam", "where": "stacker"}), FaultKind::Jam, "(44)"),
        (json!({"action": "cheat"}), FaultKind::Cheated, "(45)"),
        (json!({"action": "fail", "code": "50"}), FaultKind::ServiceNeeded, "stack motor (50)"),
        (json!({"action": "fail", "code": "5D"}), FaultKind::ServiceNeeded, "unknown code (5D)"),
    ] {
        let mut world = World::open(Options::default(), &[20]);
        world.act(action);
        let fault = fault(world.next());
        assert_eq!(fault.kind, kind);
        assert!(fault.detail.contains(code), "{fault:?}");
        assert_eq!(world.during(5_000), [], "told once");
        world.act(json!({"action": "clear"}));
        assert_eq!(world.during(5_000), [], "latched");
        world.send(AcceptorCommand::Reset);
        assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
    }
    // on other firmware it is told once, and over
    let mut world = World::open(Options { cheat_passes: true, ..Options::default() }, &[20]);
    world.act(json!({"action": "cheat"}));
    assert_eq!(fault(world.next()).kind, FaultKind::Cheated);
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: a second note in the inlet, or a busy device, takes the machine out of order at
/// once, or never.
#[test]
fn pause_and_busy_are_waited_for() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "pause"}));
    assert_eq!(world.during(10_000), []);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.next(), Accepting);
    world.act(json!({"action": "pause"}));
    assert_eq!(fault(world.next()).kind, FaultKind::Jam);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);

    let bill = world.escrow(20);
    world.act(json!({"action": "busy", "polls": 3}));
    world.run(500);
    world.stack(bill);
    world.act(json!({"action": "busy", "polls": 4}));
    assert!(matches!(world.next(), Credit { escrowed, .. } if escrowed == Some(bill)));
}

/// Loss prevented: a state of newer firmware that crashes the machine or passes for "fine"; notes
/// that the device takes for false, and may keep.
#[test]
fn doubtful_states_need_service_and_keep_their_code() {
    for code in ["77", "84", "90"] {
        let mut world = World::open(Options::default(), &[20]);
        world.act(json!({"action": "status", "code": code}));
        let unknown = fault(world.next());
        assert_eq!(unknown.kind, FaultKind::ServiceNeeded);
        assert!(unknown.detail.contains(code), "{unknown:?}");
        assert_eq!(world.during(5_000), []);
        world.act(json!({"action": "clear"}));
        assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
    }
}

/// Loss prevented: units that take settings only while nothing moves, or close after each note,
/// would stay closed.
#[test]
fn strict_and_self_closing_units_are_opened() {
    let options = Options { strict: true, closes_after_note: true, ..Options::default() };
    let mut world = World::open(options, &[20]);
    world.accept(&[50]);
    assert_eq!(world.during(1_000), [], "it stays open");
    world.escrow(50);
    world.send(AcceptorCommand::Return);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    let bill = world.escrow(50);
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    world.accept(&[]);
    assert_eq!(world.until(&Closed), [Closed]);
}
