//! Units that are less kind than the manual, and movements that nobody has seen whole.

use super::*;

fn is_followed(event: &RecyclerEvent) -> bool {
    matches!(event, RecyclerEvent::Followed { .. })
}

fn is_credit(event: &RecyclerEvent) -> bool {
    matches!(event, RecyclerEvent::In(AcceptorEvent::Credit { .. }))
}

fn is_counts(event: &RecyclerEvent) -> bool {
    matches!(event, RecyclerEvent::Counts(_))
}

fn stack(bill: EscrowedBill) -> RecyclerCommand<ByTest> {
    RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill)))
}

impl World {
    fn stage(&self) -> Option<Stage> {
        Some(self.engine.as_ref()?.work.as_ref()?.moving.stage)
    }

    /// Steps until the movement is there.
    fn comes_to(&mut self, stage: Stage) {
        let end = self.now.after(60_000);
        while self.stage() != Some(stage) {
            assert!(self.now < end, "{}", self.told());
            self.step();
        }
    }
}

/// Loss prevented: notes that an emptying has moved to the cashbox are told as taken by a customer,
/// and a claim is closed with them.
#[test]
fn an_emptying_that_is_only_followed_has_no_taker() {
    let mut followed = 0;
    for number in [1, 2] {
        for ms in (0..6_000).step_by(300) {
            for cut in ["host", "power", "line"] {
                // the last kind goes by SMART EMPTY
                let mut world = World::open(0, if number == 1 { [3, 2] } else { [0, 3] });
                world.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(number) })));
                world.run(ms);
                match cut {
                    "host" => {
                        world.kill_host();
                        world.start_host();
                        world.configure();
                    }
                    "power" => {
                        world.act(json!({"action": "power_off"}));
                        world.run(700);
                        world.act(json!({"action": "power_on"}));
                    }
                    _ => {
                        world.to_host.clear();
                        world.to_device.clear();
                        world.drive(|engine, now| engine.on_link_down("unplugged", now));
                        world.drive(|engine, now| engine.on_link_up(now));
                    }
                }
                world.run(12_000);
                for event in &world.events {
                    if let RecyclerEvent::Followed { taken, .. } = event {
                        assert_eq!(*taken, 0, "{number} {ms} {cut}");
                        followed += 1;
                    }
                }
                assert_eq!(world.given(), 0);
                world.conserved();
            }
        }
    }
    assert!(followed > 20, "{followed}");
}

/// Loss prevented: a unit of an older protocol, whose events have another form, is misread.
#[test]
fn an_older_protocol_is_refused_in_words() {
    let mut world = World::new(0, Options { old_protocol: true, ..Options::default() });
    world.configure();
    let fault = |event: &RecyclerEvent| matches!(event, RecyclerEvent::In(AcceptorEvent::Fault(fault)) if fault.detail.contains("protocol version 8"));
    world.until(fault);
    world.run(20_000);
    let opens = |event: &RecyclerEvent| *event == RecyclerEvent::In(AcceptorEvent::Accepting);
    assert!(!world.events.iter().any(|event| opens(event) || is_ready(event)));
}

/// Loss prevented: an operator who looks for a broken cable, while the unit only has another key; or a
/// store that cannot be used any more once it has the right one again.
#[test]
fn another_fixed_key_is_told_in_words_until_it_is_set_again() {
    for says_unread in [false, true] {
        let mut world = World::open(0, [2, 0]);
        world.act(json!({"action": "set", "option": "says_unread", "on": says_unread}));
        world.act(json!({"action": "rekey", "on": true}));
        let seen = world.until(|event| matches!(event, RecyclerEvent::In(AcceptorEvent::Fault(_))));
        let Some(RecyclerEvent::In(AcceptorEvent::Fault(fault))) = seen.last() else { panic!() };
        assert!(
            fault.detail.contains("fixed key") && fault.detail.contains("maker's tool"),
            "{fault:?}"
        );
        assert_eq!(fault.kind, FaultKind::ServiceNeeded);
        // it is the only trouble for as long as it lasts, and nothing is taken or given
        world.pay(&[(1, 1)]);
        assert!(matches!(world.outcome(), DispenseOutcome::NotStarted(_)));
        world.run(60_000);
        let other = |event: &RecyclerEvent| match event {
            RecyclerEvent::In(AcceptorEvent::Fault(other)) => other != fault,
            event => is_ready(event) || *event == RecyclerEvent::In(AcceptorEvent::Accepting),
        };
        assert!(!world.events.iter().any(other), "{:?}", world.events);
        world.act(json!({"action": "rekey", "on": false}));
        world.configure();
        world.ready();
        assert_eq!((world.refresh(), world.given()), ([2, 0], 0));
        world.conserved();
    }
}

/// Loss prevented: a cut of the power between the exchange of keys and the first word under them, told
/// as another key.
#[test]
fn a_power_loss_among_the_keys_is_no_other_key() {
    for bytes in (1..120).step_by(3) {
        let mut world = World::new(0, Options::default());
        world.configure();
        world.act(json!({"action": "power_off_at", "byte": bytes}));
        world.run(4_000);
        world.act(json!({"action": "power_on"}));
        let seen = world.until(is_ready);
        let key = |event: &RecyclerEvent| matches!(event, RecyclerEvent::In(AcceptorEvent::Fault(fault)) if fault.detail.contains("fixed key"));
        assert!(!seen.iter().any(key), "{bytes}: {seen:?}");
    }
}

/// Loss prevented: a credit that stood behind an event of unknown length is acknowledged unread.
#[test]
fn what_was_not_read_is_not_acknowledged() {
    let mut world = World::open(0, [0, 0]);
    let bill = world.escrow(10);
    world.send(stack(bill));
    world.run(150);
    // no poll comes through until the credit stands behind it
    world.act(json!({"action": "deaf", "frames": 1}));
    world.act(json!({"action": "cheat"}));
    world.act(json!({"action": "code", "code": "99"}));
    world.run(3_000);
    assert_eq!(world.sim.counters()["acknowledged"], 0, "{}", world.told());
    world.run(5_000);
    world.act(json!({"action": "clear"}));
    let seen = world.until(is_credit);
    let told = Some(RecyclerEvent::In(AcceptorEvent::Credit {
        escrowed: Some(bill),
        denomination: Some(note(10)),
    }));
    assert_eq!((world.credits, seen.last()), (1, told.as_ref()));
    world.acknowledge();
    world.until(|event| *event == RecyclerEvent::In(AcceptorEvent::Accepting));
    assert_eq!(world.sim.counters()["acknowledged"], 1);
    world.conserved();
}

/// Loss prevented: a payout that the unit carries out, and answers oddly to, is told as not begun and
/// paid again.
#[test]
fn an_odd_answer_to_the_order_is_no_refusal() {
    for code in ["F6", "F8", "F1"] {
        let mut world = World::open(0, [4, 5]);
        world.act(json!({"action": "odd_order", "code": code}));
        world.pay(&[(1, 2)]);
        let bays = BayResults::from([(bay(1), done(2, 2, [0; 2]))]);
        assert_eq!(world.outcome(), DispenseOutcome::Final { bays, fault: None }, "{code}");
        assert_eq!((world.given(), world.payouts()), (2, 1), "{code}");
        world.run(3_000);
        world.act(json!({"action": "odd_order", "code": code}));
        let moved = world.empty(1);
        assert!(matches!(moved, EmptyOutcome::Moved { notes: 2, .. }), "{code}: {moved:?}");
        world.conserved();
    }
}

/// Loss prevented: the time without power counts as silence, and what the unit tells after its start
/// comes too late to be believed.
#[test]
fn a_start_that_is_not_announced_is_waited_for() {
    let slow = Options { says_starting: false, ..Options::default() };
    let mut world = World::with(0, [5, 5], slow);
    world.pay(&[(1, 2)]);
    while world.sim.counters()["in_path"] == 0 {
        world.step();
    }
    world.run(400);
    world.act(json!({"action": "power_off"}));
    world.run(6_000);
    world.act(json!({"action": "power_on"}));
    let DispenseOutcome::Final { bays, fault: Some(_) } = world.outcome() else { panic!() };
    assert_eq!(bays, BayResults::from([(bay(1), done(2, 0, [0, 1]))]));
    world.conserved();
    // a note on its way in
    let mut world = World::with(0, [5, 5], slow);
    world.run(10_000);
    let bill = world.escrow(10);
    world.send(stack(bill));
    world.run(400);
    world.act(json!({"action": "power_off"}));
    world.run(15_000);
    world.act(json!({"action": "power_on"}));
    let credit = world.until(is_credit).pop();
    let denomination = Some(note(10));
    let told = AcceptorEvent::Credit { escrowed: Some(bill), denomination };
    assert_eq!(credit, Some(RecyclerEvent::In(told)));
    world.conserved();
}

/// Loss prevented: a sale that hangs for ever on a payout that does not get on.
#[test]
fn a_payout_that_stands_still_is_halted_and_then_unknown() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    while world.sim.counters()["in_path"] == 0 {
        world.step();
    }
    world.act(json!({"action": "stall"}));
    let outcome = world.outcome();
    assert!(matches!(outcome, DispenseOutcome::Unknowable { .. }), "{outcome:?}");
    world.act(json!({"action": "clear"}));
    world.until(is_followed);
    world.until(is_ready);
    assert_eq!((world.given(), world.payouts()), (2, 1));
    world.conserved();
}

/// Loss prevented: counts that come before the word of what moved, or not at all, and books that
/// never get whole again.
#[test]
fn what_was_followed_stands_between_the_outcome_and_the_counts() {
    // the order is lost, and nothing has changed by it
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    world.comes_to(Stage::Watch);
    world.act(json!({"action": "cut_cable"}));
    world.to_device.clear();
    let outcome = world.outcome();
    assert!(matches!(outcome, DispenseOutcome::Unknowable { .. }), "{outcome:?}");
    world.act(json!({"action": "mend_cable"}));
    world.until(is_followed);
    world.until(is_counts);
    assert_eq!((world.payouts(), world.given()), (0, 0));
    // the line is lost
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 2)]);
    world.comes_to(Stage::Watch);
    world.events.clear();
    world.drive(|engine, now| engine.on_link_down("unplugged", now));
    let place = |fits: fn(&RecyclerEvent) -> bool| world.events.iter().position(fits).unwrap();
    let unknown = place(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_))));
    assert!(unknown < place(is_followed), "{:?}", world.events);
    world.drive(|engine, now| engine.on_link_up(now));
    world.until(is_followed);
    world.until(is_counts);
}

/// Loss prevented: the acknowledgement of one note ends the next one, whose credit then belongs to no
/// customer.
#[test]
fn an_acknowledgement_is_of_its_own_note() {
    let mut world = World::open(0, [0, 0]);
    let bill = world.escrow(10);
    world.send(stack(bill));
    // where the note went is hidden, and the next one comes at once
    world.until(is_credit);
    world.act(json!({"action": "code", "code": "99"}));
    world.run(1_000);
    world.act(json!({"action": "clear"}));
    world.acknowledge();
    while world.sim.counters()["acknowledged"] == 0 {
        world.step();
    }
    let next = world.escrow(10);
    world.send(stack(next));
    let credit = world.until(is_credit).pop();
    let denomination = Some(note(10));
    let told = AcceptorEvent::Credit { escrowed: Some(next), denomination };
    assert_eq!(credit, Some(RecyclerEvent::In(told)));
    world.conserved();
}

/// Loss prevented: the credit of another unit passes for the repetition of one that was told.
#[test]
fn another_unit_repeats_nothing() {
    let mut world = World::open(0, [0, 0]);
    let bill = world.escrow(10);
    world.send(stack(bill));
    world.until(is_credit);
    world.act(json!({"action": "power_off"}));
    world.act(json!({"action": "replace"}));
    world.act(json!({"action": "power_on"}));
    let credit = world.until(is_credit).pop();
    let told = AcceptorEvent::Credit { escrowed: None, denomination: Some(note(10)) };
    assert_eq!((credit, world.credits), (Some(RecyclerEvent::In(told)), 2));
}
