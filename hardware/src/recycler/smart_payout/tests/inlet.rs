//! Notes that come in: decisions, refusals, troubles.

use super::*;

fn inlet(event: AcceptorEvent) -> impl Fn(&RecyclerEvent) -> bool {
    move |seen| *seen == RecyclerEvent::In(event.clone())
}

fn is_fault_of(kind: FaultKind) -> impl Fn(&RecyclerEvent) -> bool {
    move |event| matches!(event, RecyclerEvent::In(AcceptorEvent::Fault(fault)) if fault.kind == kind)
}

/// Loss prevented: a note that is kept although nobody has decided, or against a decision.
#[test]
fn a_note_in_escrow_waits_for_its_decision_and_goes_back_without_one() {
    let mut world = World::open(0, [0, 0]);
    world.escrow(10);
    let before = world.now;
    world.until(inlet(AcceptorEvent::Returned));
    assert!(world.now.since(before) < 15_000);
    world.until(inlet(AcceptorEvent::Accepting));
    world.escrow(20);
    world.send(RecyclerCommand::In(AcceptorCommand::Hold));
    let before = world.now;
    world.run(50_000);
    let bill = world.escrow_is(20);
    assert!(world.now.since(before) >= 50_000 && bill);
    world.send(RecyclerCommand::In(AcceptorCommand::Return));
    world.until(inlet(AcceptorEvent::Returned));
    world.until(inlet(AcceptorEvent::Accepting));
    // not enabled: the agent is not asked
    world.act(json!({"action": "reject_next", "reason": "05"}));
    world.insert(10);
    let rejected = |e: &RecyclerEvent| matches!(e, RecyclerEvent::In(AcceptorEvent::Rejected { reason }) if reason.contains("05"));
    world.until(rejected);
    world.until(inlet(AcceptorEvent::Accepting));
    world.insert(100);
    let reason = |e: &RecyclerEvent| {
        matches!(e, RecyclerEvent::In(AcceptorEvent::Rejected { reason })
            if reason.contains("channel inhibited"))
    };
    world.until(reason);
    assert_eq!((world.credits, world.sum("store"), world.sum("cashbox")), (0, 0, 0));
    world.conserved();
}

impl World {
    /// Whether a note waits in escrow now, and nothing was told of it since.
    fn escrow_is(&mut self, _: u32) -> bool {
        let state = self.sim.control(&json!({"action": "state"}), self.now).unwrap();
        state["status"] == "ESCROW" && !self.events.iter().any(inlet(AcceptorEvent::Returned))
    }
}

/// Loss prevented: a proof of an earlier note that accepts a later one.
#[test]
fn a_stale_proof_accepts_nothing() {
    let mut world = World::open(0, [0, 0]);
    let first = world.escrow(10);
    world.until(inlet(AcceptorEvent::Accepting));
    world.escrow(10);
    world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(first))));
    world.until(inlet(AcceptorEvent::Returned));
    assert_eq!((world.credits, world.sum("store")), (0, 0));
}

/// Loss prevented: a credit that the device forgets before the machine has written it down, or one
/// that is told at each poll.
#[test]
fn a_credit_is_acknowledged_only_when_it_is_durable() {
    let mut world = World::open(0, [0, 0]);
    for round in 1..4 {
        let bill = world.escrow(20);
        world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
        world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
        world.run(20_000);
        assert_eq!(world.sim.counters()["acknowledged"], round - 1);
        world.acknowledge();
        world.until(inlet(AcceptorEvent::Accepting));
        assert_eq!(
            (world.credits, world.sim.counters()["acknowledged"] == json!(round)),
            (round, true)
        );
    }
    assert_eq!(world.refresh(), [0, 3]);
}

/// Loss prevented: a trouble that nobody is told of, or an inlet that never opens again.
#[test]
fn troubles_are_told_and_pass() {
    let mut world = World::open(0, [0, 0]);
    world.act(json!({"action": "stacker_out"}));
    world.until(inlet(AcceptorEvent::CashboxRemoved(true)));
    world.act(json!({"action": "collect"}));
    world.act(json!({"action": "stacker_in"}));
    world.until(inlet(AcceptorEvent::CashboxRemoved(false)));
    world.until(inlet(AcceptorEvent::Accepting));
    for (action, kind) in [
        (json!({"action": "cheat"}), FaultKind::Cheated),
        (json!({"action": "code", "code": "99"}), FaultKind::ServiceNeeded),
    ] {
        world.act(action);
        world.until(is_fault_of(kind));
        world.act(json!({"action": "clear"}));
        world.until(inlet(AcceptorEvent::Recovered));
    }
    world.run(1_000);
    world.escrow(10);
    world.act(json!({"action": "jam", "where": "acceptor"}));
    world.until(is_fault_of(FaultKind::Jam));
    world.act(json!({"action": "clear"}));
    world.send(RecyclerCommand::In(AcceptorCommand::Reset));
    world.until(inlet(AcceptorEvent::Accepting));
    assert_eq!(world.credits, 0);
    world.conserved();
}

/// Loss prevented: an inlet that is open although it was closed, and a payout that fails for that.
#[test]
fn a_closed_inlet_takes_nothing_and_pays() {
    let mut world = World::open(0, [2, 2]);
    world.send(RecyclerCommand::In(AcceptorCommand::Accept(BTreeSet::new())));
    world.until(inlet(AcceptorEvent::Closed));
    let insert = json!({"action": "insert", "denomination": 10});
    assert!(world.sim.control(&insert, world.now).is_err());
    world.pay(&[(1, 1)]);
    assert!(is_final(&world.outcome()));
    assert_eq!(world.given(), 1);
}

/// Loss prevented: a device that is silent, and a machine that goes on as if it were not.
#[test]
fn silence_is_told_once_and_is_over_with_the_next_answer() {
    let mut world = World::open(0, [1, 1]);
    world.act(json!({"action": "cut_cable"}));
    world.until(is_fault_of(FaultKind::Silent));
    world.run(60_000);
    assert!(!world.events.iter().any(is_fault_of(FaultKind::Silent)), "{:?}", world.events);
    world.act(json!({"action": "mend_cable"}));
    let seen = world.until(inlet(AcceptorEvent::Accepting));
    assert!(seen.iter().any(is_ready) && seen.iter().any(inlet(AcceptorEvent::Recovered)));
}
