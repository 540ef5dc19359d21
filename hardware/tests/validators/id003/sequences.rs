//! Every legal sequence of the protocol.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Identified, PoweredUp, Recovered, Returned, Stacked,
};
use bitspire_hardware::acceptor::{AcceptorCommand, FaultKind, PowerUpBill};
use bitspire_hardware::frame::id003::{Config, Frame, POWER_RECOVERY, Request};
use bitspire_hardware::sim::id003::Options;
use serde_json::json;

use super::World;
use crate::common::fault;
use crate::world::note;

/// Loss prevented: a device without power recovery set, or open for notes nobody wants, loses
/// credits from its first day.
#[test]
fn cold_start() {
    let mut world = World::new(Options::default());
    let events = world.until(&Closed);
    let [PoweredUp(PowerUpBill::None), Identified { version, notes }, Closed] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(version.contains("ID003-05"), "{version}");
    let values: Vec<u32> = notes.iter().map(|(d, _)| d.minor() / 100).collect();
    assert_eq!(values, [5, 10, 20, 50, 100, 200, 500]);

    let codes: Vec<u8> = world.said.iter().map(Frame::op).filter(|op| *op != 0x11).collect();
    // ACK of POWER UP, version, currencies, RESET; then, during INITIALIZE, the settings
    assert_eq!(codes, [0x50, 0x88, 0x8a, 0x40, 0xc1, 0xc5, 0xc4, 0xc2, 0xc3, 0xc0]);
    assert_eq!(world.times_said(Request::Set(Config::Optional(POWER_RECOVERY))), 1);
    assert_eq!(world.times_said(Request::Set(Config::Inhibit(true))), 1);

    world.accept(&[20, 50]);
    assert_eq!(world.next(), Accepting);
    let disabled = !(1 << 3 | 1 << 4);
    assert_eq!(world.times_said(Request::Set(Config::Denominations { disabled })), 1);
    world.accept(&[]);
    assert_eq!(world.next(), Closed);
}

/// Loss prevented: a repeated VEND VALID credited twice; an ACK before the credit is durable.
#[test]
fn accept_credits_once_and_acknowledges_only_when_told() {
    for says_note in [true, false] {
        let mut world = World::open(Options { says_note, ..Options::default() }, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        let denomination = says_note.then(|| note(20));
        assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination });
        let acks = world.times_said(Request::Ack);
        assert_eq!(world.during(20_000), [], "VEND VALID repeats");
        assert_eq!(world.times_said(Request::Ack), acks);
        world.send(AcceptorCommand::AcknowledgeCredit);
        assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
        assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
        assert_eq!(world.times_said(Request::Stack2), 1);
        // the next note is another one
        let next = world.escrow(20);
        assert_ne!(next.serial, bill.serial);
    }
}

/// Loss prevented: a machine that looks well while nobody can use it, and one that stays out of
/// order after it has been put right.
#[test]
fn latching_conditions_are_told_and_cleared() {
    for (action, kind, code) in [
        (json!({"action": "jam", "where": "acceptor"}), FaultKind::Jam, "(45)"),
        (json!({"action": "jam", "where": "stacker"}), FaultKind::Jam, "(46)"),
        (json!({"action": "cheat"}), FaultKind::Cheated, "(48)"),
        (json!({"action": "fail", "code": "A2"}), FaultKind::ServiceNeeded, "stack motor (A2)"),
        (json!({"action": "fail", "code": "C1"}), FaultKind::ServiceNeeded, "unknown code (C1)"),
        (json!({"action": "comm_error"}), FaultKind::ServiceNeeded, "(4A)"),
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
}

/// Loss prevented: a second note in the inlet takes the machine out of order at once, or never.
#[test]
fn pause_is_a_fault_only_when_it_lasts() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "pause"}));
    assert_eq!(world.during(5_000), []);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.next(), Accepting);
    world.act(json!({"action": "pause"}));
    assert_eq!(fault(world.next()).kind, FaultKind::Jam);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: a state of newer firmware that crashes the machine or passes for "fine".
#[test]
fn an_unknown_state_needs_service_and_keeps_its_code() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "status", "code": "77"}));
    let unknown = fault(world.next());
    assert_eq!(unknown.kind, FaultKind::ServiceNeeded);
    assert!(unknown.detail.contains("77"), "{unknown:?}");
    assert_eq!(world.during(5_000), []);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: units that take settings only while they initialise, or close after each note,
/// would stay closed.
#[test]
fn strict_and_self_closing_units_are_opened() {
    let mut world = World::open(Options { strict: true, ..Options::default() }, &[20]);
    world.accept(&[50]);
    world.until(&Accepting);
    let bill = world.escrow(50);
    world.send(AcceptorCommand::Return);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    world.accept(&[]);
    assert_eq!(world.until(&Closed), [Closed]);
    assert_eq!(bill.denomination, note(50));

    let closing = Options { closes_after_note: true, ..Options::default() };
    let mut world = World::open(closing, &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
}
