//! A unit that is slower, ruder or more stubborn than it should be.

use super::super::moving::Stage;
use super::*;
use crate::frame::ccnet::BILL_TO_BILL;

fn of(content: &[u8]) -> Vec<u8> {
    Frame::new(BILL_TO_BILL, content[0], &content[1..]).to_bytes()
}

const BUSY: &[u8] = &[0x1b, 5];
const NAK: &[u8] = &[0xff];

fn fault_with(words: &str) -> impl Fn(&RecyclerEvent) -> bool {
    move |e| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(f)) if f.detail.contains(words))
}

fn until_stage(world: &mut World, stage: Stage) {
    let is = |engine: &CcnetB2b<ByTest>| match &engine.work {
        Work::Pay(payment) => payment.moving.stage == stage,
        _ => false,
    };
    while !world.engine.as_ref().is_some_and(is) {
        world.step();
    }
}

/// Loss prevented: the proof of a note that is to go to the drop cassette moves the note after it,
/// or nothing.
#[test]
fn a_second_note_leaves_the_first_ones_way_alone() {
    // second note, by StackAway, then: in cassettes 1 and 2, drop cassette, given back
    for (major, away, notes) in
        [(20, false, (1, 2, 1, 0)), (50, false, (1, 1, 2, 0)), (20, true, (1, 1, 1, 1))]
    {
        let mut world = World::open(0, [1, 1]);
        world.act(json!({"action": "set", "option": "closes_late", "on": true}));
        let bill = world.escrow(10);
        world.send(RecyclerCommand::StackAway(Proof(bill)));
        world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
        world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
        while world.state()["status"] != "IDLING (14)" {
            world.step();
        }
        let second = Proof(world.escrow(major));
        world.send(if away {
            RecyclerCommand::StackAway(second)
        } else {
            RecyclerCommand::In(AcceptorCommand::Stack(second))
        });
        if !away {
            world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
            world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
        }
        world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
        let returned = world.sim.counters()["returned"].as_u64().unwrap();
        let are = (world.in_box(1), world.in_box(2), world.cashbox(), returned);
        assert_eq!(are, notes, "{major} {away}: {}", world.sim.counters());
        assert_eq!(world.orders, 1);
        world.conserved();
    }
}

/// Loss prevented: a stale proof sends the note in escrow to the drop cassette.
#[test]
fn a_proof_of_another_note_sends_none_away() {
    let mut world = World::open(0, [1, 1]);
    let bill = world.escrow(10);
    let stale = EscrowedBill { serial: bill.serial + 9, ..bill };
    world.send(RecyclerCommand::StackAway(Proof(stale)));
    world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
    world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    assert_eq!((world.in_box(1), world.cashbox(), world.orders), (2, 0, 0));
}

/// Loss prevented: an order whose ACK comes late, or not at all, is called undone and then carried
/// out.
#[test]
fn an_order_that_begins_late_is_waited_for() {
    for (acked, ms) in [(true, 9_000), (false, 3_000)] {
        let mut world = World::open(0, [5, 5]);
        world.act(json!({"action": "start_late", "ms": ms}));
        world.pay(&[(1, 2)]);
        while world.orders == 0 {
            world.step();
        }
        while world.to_host.is_empty() {
            world.step();
        }
        world.to_host.clear();
        let polls = |engine: &CcnetB2b<ByTest>| matches!(engine.waiting, Some((Said::Poll, _)));
        while !world.engine.as_ref().is_some_and(polls) {
            world.step();
        }
        if acked {
            world.drive(|engine, now| engine.on_bytes(&of(&[0x00]), now));
        }
        let outcome = world.outcome();
        let bays = BayResults::from([(bay(1), done(2, 2, 0))]);
        assert_eq!(outcome, DispenseOutcome::Final { bays, fault: None }, "{acked}");
        assert_eq!((world.given(), world.orders), (2, 1));
    }
}

/// Loss prevented: a unit that answers each question with NAK or BUSY holds a payout, and the line,
/// without outcome or fault.
#[test]
fn a_unit_that_only_denies_ends_the_payout() {
    for said in [NAK, BUSY] {
        for stage in [Stage::Before, Stage::Watch, Stage::After] {
            let mut world = World::open(0, [5, 5]);
            world.pay(&[(1, 2)]);
            until_stage(&mut world, stage);
            world.hear_only(&of(said), 90_000);
            let outcome = world.outcome();
            let begun = stage != Stage::Before;
            let unknown = matches!(outcome, DispenseOutcome::Unknowable { .. });
            assert_eq!(unknown, begun, "{said:02X?} {stage:?}: {outcome:?}");
            world.ready_again();
        }
        // set-up
        let mut world = World::open(0, [5, 5]);
        world.configure();
        // the validator's own patience with BUSY is a minute
        world.hear_only(&of(said), 90_000);
        let told = world.events.iter().any(CcnetB2b::<ByTest>::is_fault);
        assert!(told, "{said:02X?}: {:?}", world.events);
        world.ready();
    }
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    until_stage(&mut world, Stage::Before);
    world.act(json!({"action": "deny", "frames": 200}));
    assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
    assert_eq!(world.orders, 0);
    world.ready_again();
}

/// Loss prevented: a unit that is busy with notes for ever stands there, and nobody is told or can
/// reset it.
#[test]
fn a_movement_without_end_is_told_and_can_be_reset() {
    for (said, recovers) in [(&[0x1d, 0][..], false), (&[0x21], false), (&[0x1d, 0], true)] {
        let mut world = World::open(0, [5, 5]);
        if recovers {
            world.pay(&[(1, 3)]);
            while world.sim.counters()["in_path"] != 2 {
                world.step();
            }
            world.act(json!({"action": "power_off"}));
            world.act(json!({"action": "power_on"}));
            let watches = |engine: &CcnetB2b<ByTest>| match &engine.work {
                Work::Recover(recovering) => recovering.moving.is_some(),
                _ => false,
            };
            while !world.engine.as_ref().is_some_and(watches) {
                world.step();
            }
        }
        world.events.clear();
        world.hear_only(&of(said), 700_000);
        let faults = world.events.iter().filter(|e| fault_with("come to an end")(e)).count();
        assert_eq!(faults, 1, "{said:02X?}: {:?}", world.events);
        world.send(RecyclerCommand::In(AcceptorCommand::Reset));
        // the real unit is heard again only once it was reset
        let reset = |engine: &CcnetB2b<ByTest>| matches!(engine.waiting, Some((Said::Reset, _)));
        let end = world.now.after(5_000);
        while !world.engine.as_ref().is_some_and(reset) {
            assert!(world.now < end, "{said:02X?}: no reset");
            world.hear_only(&of(said), 10);
        }
        world.ready_again();
    }
}

/// Loss prevented: a set-up that the unit never ends, and the machine waits in silence.
#[test]
fn a_set_up_without_end_is_told() {
    let mut world = World::open(0, [0, 5]);
    let boxes = [(bay(1), note(50)), (bay(2), note(20))].into();
    world.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
    while world.state()["status"] != "SETTING TYPE CASSETTE (21)" {
        world.step();
    }
    world.hear_only(&of(&[0x21]), 700_000);
    assert!(world.events.iter().any(fault_with("come to an end")), "{:?}", world.events);
    world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
}

/// Loss prevented: notes that the unit says it did not give are booked as taken.
#[test]
fn presented_notes_are_taken_only_if_the_unit_says_all() {
    for (counts, all) in [(&[0x25, 9, 2][..], true), (&[0x25, 9, 1], false), (&[0x25], true)] {
        let mut world = World::open(0, [5, 5]);
        world.act(json!({"action": "leave"}));
        world.pay(&[(1, 2)]);
        world.outcome();
        world.events.clear();
        world.hear_only(&of(counts), 1_500);
        world.hear_only(&of(&[0x19]), 1_500);
        let taken = world.events.contains(&RecyclerEvent::Out(DispenserEvent::Taken));
        let told = RecyclerEvent::Followed { taken: 1, gave_back: false, fault: None };
        assert_eq!((taken, world.events.contains(&told)), (all, !all), "{:?}", world.events);
    }
}

/// Loss prevented: counts that belong to an unknown payout are told before it and never after, and
/// are booked as if nothing had been under way.
#[test]
fn counts_are_told_after_an_outcome_that_nobody_knows() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 3)]);
    while world.in_box(1) != 4 {
        world.step();
    }
    world.act(json!({"action": "unit_jam", "where": "73"}));
    assert!(matches!(world.outcome(), DispenseOutcome::Unknowable { .. }));
    world.act(json!({"action": "clear"}));
    world.send(RecyclerCommand::In(AcceptorCommand::Reset));
    let counts = RecyclerEvent::Counts([(bay(1), 4), (bay(2), 5), (bay(3), 0)].into());
    world.until(|e| *e == counts);
}

/// Loss prevented: somebody who asks for the state during a payout never hears it.
#[test]
fn who_asks_during_a_payout_is_answered_after_it() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    until_stage(&mut world, Stage::Watch);
    world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
    world.outcome();
    world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
}

/// Loss prevented: notes that another host keeps in escrow are moved to the drop cassette, or the
/// machine never starts for them.
#[test]
fn an_escrow_cassette_is_left_alone() {
    let mut world = World::open(0, [1, 1]);
    world.act(json!({"action": "retype", "box": 3, "code": "18"}));
    world.ready_again();
    let held = world.engine.as_ref().and_then(|engine| engine.held.clone()).unwrap();
    assert_eq!(held[&3].kind, 24);
}

/// Loss prevented: a note that the unit has put into the drop cassette is looked for in another, or
/// moved from there instead.
#[test]
fn a_note_that_the_unit_diverts_is_where_it_says() {
    for away in [false, true] {
        let mut world = World::open(0, [1, 1]);
        world.act(json!({"action": "divert_next"}));
        world.take_in(
            |bill| match away {
                true => RecyclerCommand::StackAway(bill),
                false => RecyclerCommand::In(AcceptorCommand::Stack(bill)),
            },
            10,
        );
        assert_eq!((world.in_box(1), world.cashbox(), world.orders), (1, 1, 0));
        world.conserved();
    }
}
