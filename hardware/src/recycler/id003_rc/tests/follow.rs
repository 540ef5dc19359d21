//! A host that comes up while notes are on their way.

use super::*;

/// A host died while the first note waited at the bezel of a customer who has left.
fn left_waiting() -> World {
    let mut world = World::open(0, [5, 5]);
    world.act(json!({"action": "leave"}));
    world.pay(&[(1, 2)]);
    world.until_at_bezel();
    world.run(500);
    world.kill_host();
    world.start_host();
    world.configure();
    world
}

/// Loss prevented: a note that a new host has called back looks, by the counts, like one given, and
/// the customer's claim is closed.
#[test]
fn a_note_that_a_new_host_calls_back_is_told_before_the_counts() {
    let mut world = left_waiting();
    let seen = world.until(|e| matches!(e, RecyclerEvent::Counts(_)));
    let followed = seen.iter().find(|e| matches!(e, RecyclerEvent::Followed { .. }));
    let expected = RecyclerEvent::Followed { taken: 0, gave_back: true, fault: None };
    assert_eq!(followed, Some(&expected), "{seen:?}");
    let counts = RecyclerEvent::Counts([(bay(1), 4), (bay(2), 5)].into());
    assert_eq!((seen.last(), world.cashbox(), world.given()), (Some(&counts), 1, 0));
    world.ready();
    world.conserved();
}

/// Loss prevented: as above where somebody comes back and takes them.
#[test]
fn notes_that_are_taken_after_a_restart_are_told_before_the_counts() {
    let mut world = left_waiting();
    world.run(5_000);
    world.act(json!({"action": "take"}));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Counts(_)));
    let expected = RecyclerEvent::Followed { taken: 2, gave_back: false, fault: None };
    assert!(seen.contains(&expected), "{seen:?}");
    assert_eq!(world.given(), 2);
    world.conserved();
}

/// Loss prevented: a jam that ended the payout is told after counts that look like notes given.
#[test]
fn trouble_that_a_new_host_meets_is_told_before_the_counts() {
    let mut world = left_waiting();
    world.run(5_000);
    world.act(json!({"action": "recycler_jam"}));
    let seen = world.until(|e| matches!(e, RecyclerEvent::Counts(_)));
    let told = |e: &RecyclerEvent| {
        matches!(e, RecyclerEvent::Followed { taken: 0, gave_back: false, fault: Some(_) })
    };
    assert!(seen.iter().any(told), "{seen:?}");
    world.act(json!({"action": "clear"}));
    world.send(RecyclerCommand::In(AcceptorCommand::Reset));
    let after = world.until(|e| *e == RecyclerEvent::Out(DispenserEvent::Recovered));
    assert!(!after.iter().any(|e| matches!(e, RecyclerEvent::Followed { .. })), "told once");
    world.ready();
}

/// Loss prevented: a validator that nobody listens to any more: its fault is not told, its credit is
/// not acknowledged, and a reset that a person has asked for is swallowed.
#[test]
fn the_validators_own_states_are_the_validators() {
    let mut world = left_waiting();
    world.run(5_000);
    world.act(json!({"action": "jam", "where": "stacker"}));
    let seen = world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Fault(_))));
    assert!(seen.iter().any(|e| matches!(e, RecyclerEvent::Followed { .. })), "{seen:?}");
    world.act(json!({"action": "clear"}));
    world.send(RecyclerCommand::In(AcceptorCommand::Reset));
    world.ready();
    world.conserved();
}

/// Loss prevented: a pulled cable, and what was seen of the movement until then is never told.
#[test]
fn a_movement_that_goes_out_of_sight_is_told() {
    let mut world = left_waiting();
    world.run(5_000);
    world.drive(|engine, now| engine.on_link_down("unplugged", now));
    let told = |e: &RecyclerEvent| matches!(e, RecyclerEvent::Followed { .. });
    assert!(world.events.iter().any(told), "{:?}", world.events);
}
