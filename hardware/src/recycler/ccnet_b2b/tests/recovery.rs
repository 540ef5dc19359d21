//! What the unit was at as its power went.

use super::*;
use crate::frame::ccnet::BILL_TO_BILL;

/// Until the unit is well again, credits made durable as they come; how many, and whether one is
/// said to be uncertain.
fn credits(world: &mut World) -> (u64, bool) {
    let (mut credits, mut doubt) = (0, false);
    let end = world.now.after(60_000);
    loop {
        assert!(world.now < end, "{}", world.state());
        world.step();
        while let Some(event) = world.events.pop_front() {
            match event {
                RecyclerEvent::In(AcceptorEvent::Credit { .. }) => {
                    credits += 1;
                    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
                }
                RecyclerEvent::In(AcceptorEvent::Fault(fault)) => {
                    doubt |= fault.detail.contains("does not tell where");
                }
                RecyclerEvent::In(AcceptorEvent::Accepting) if world.is_well() => {
                    return (credits, doubt);
                }
                _ => {}
            }
        }
    }
}

impl World {
    fn is_well(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.state.bays.is_some())
    }

    /// The host waits for the answer to POWER RECOVERY; what it hears is this.
    fn answer_recovery(&mut self, content: &[u8]) {
        let waits = |engine: &CcnetB2b<ByTest>| matches!(engine.waiting, Some((Said::Recovery, _)));
        let end = self.now.after(120_000);
        while !self.engine.as_ref().is_some_and(waits) {
            assert!(self.now < end, "it does not ask: {}", self.state());
            self.step();
        }
        self.to_device.clear();
        self.to_host.clear();
        let bytes = Frame::new(BILL_TO_BILL, content[0], &content[1..]).to_bytes();
        self.drive(|engine, now| engine.on_bytes(&bytes, now));
    }
}

/// A note of 10 has been told to be stacked, so long ago, as the power goes and comes back.
fn cut_off(options: &[(&str, bool)], ms: u64, host: bool) -> World {
    let mut world = World::open(0, [0, 0]);
    for (option, on) in options {
        world.act(json!({"action": "set", "option": option, "on": on}));
    }
    let bill = world.escrow(10);
    world.events.clear();
    world.send(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
    world.run(ms);
    world.act(json!({"action": "power_off"}));
    if host {
        world.kill_host();
    }
    world.run(ms % 7 * 300 + 50);
    world.act(json!({"action": "power_on"}));
    if host {
        world.start_host();
        world.configure();
    }
    world
}

/// Loss prevented: the credit of a note that lay in the transport path as the power went, forgotten
/// by the unit at ENABLE, or told twice.
#[test]
fn a_unit_that_loses_power_while_a_note_comes_in_credits_it_once() {
    for (late, host) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut all = 0;
        for ms in (0..2_400).step_by(120) {
            let mut world = cut_off(&[("late_credit", late)], ms, host);
            let (credits, doubt) = credits(&mut world);
            let stacked = world.in_box(1) + world.cashbox();
            // by the device's word it was not in process, or it was: never in doubt
            assert_eq!(
                (credits, doubt),
                (stacked, false),
                "{late} {host} {ms}: {}",
                world.sim.counters()
            );
            all += credits;
            world.conserved();
        }
        assert!(all > 10, "{all}");
    }
}

/// Loss prevented: as above with firmware that tells nothing: a note without credit and without a
/// word.
#[test]
fn a_unit_that_tells_no_credit_leaves_it_in_doubt() {
    for ms in (0..2_400).step_by(240) {
        let mut world = cut_off(&[("power_recovery", false)], ms, false);
        let (credits, doubt) = credits(&mut world);
        let stacked = world.in_box(1) + world.cashbox();
        assert!(credits == stacked || doubt, "{ms}: {credits}, {}", world.sim.counters());
    }
}

/// Loss prevented: a credit whose host died before it was durable, or whose answer was lost.
#[test]
fn a_credit_that_was_found_is_told_until_it_is_durable() {
    let mut world = cut_off(&[], 800, true);
    world.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
    world.run(3_000);
    assert_eq!(world.sim.counters()["acknowledged"], 0);
    world.kill_host();
    world.start_host();
    world.configure();
    assert_eq!(credits(&mut world), (1, false));
    assert_eq!(world.sim.counters()["acknowledged"], 1);
    // and not again
    world.act(json!({"action": "power_off"}));
    world.act(json!({"action": "power_on"}));
    assert_eq!(credits(&mut world), (0, false));
}

/// Loss prevented: an ACK that comes late is taken for the word that there is nothing to credit.
#[test]
fn one_word_of_nothing_is_not_enough() {
    let mut world = cut_off(&[], 800, false);
    world.answer_recovery(&[0x00]);
    assert_eq!(credits(&mut world), (1, false));
}

/// Loss prevented: an answer that nobody understands, and ENABLE makes the unit forget it.
#[test]
fn an_unknown_answer_keeps_the_inlet_closed() {
    let mut world = World::new(0);
    world.configure();
    for _ in 0..3 {
        world.answer_recovery(&[0x55, 1, 2]);
    }
    let seen = world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_))));
    let Some(RecyclerEvent::Out(DispenserEvent::Fault(fault))) = seen.last() else { panic!() };
    assert!(fault.detail.contains("55 01 02"), "{fault:?}");
    world.run(9_000);
    assert_eq!(world.state()["status"], "UNIT DISABLED (19)");
    // it is asked again, and told once
    for _ in 0..3 {
        world.answer_recovery(&[0x55, 1, 2]);
    }
    world.run(1_000);
    let told = |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(_)));
    assert!(!world.events.iter().any(told), "{:?}", world.events);
    world.ready();
}

/// Loss prevented: of several notes that were under way, one that is credited twice because the
/// answer was cut off, or not at all.
#[test]
fn several_credits_are_told_one_by_one_and_once() {
    let mut world = World::new(0);
    world.configure();
    let credit = |major: u32| {
        RecyclerEvent::In(AcceptorEvent::Credit { escrowed: None, denomination: Some(note(major)) })
    };
    // 10 and 20
    let both = [0x17, 9, 1, 10, 0];
    world.answer_recovery(&both);
    world.until(|e| *e == credit(10));
    world.run(500);
    assert!(!world.events.contains(&credit(20)), "the first is not durable");
    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
    world.until(|e| *e == credit(20));
    // the unit falls silent, and says it again
    world.act(json!({"action": "deaf", "frames": 40}));
    world.answer_recovery(&both);
    world.run(500);
    world.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
    world.answer_recovery(&both);
    world.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    assert!(
        !world.events.iter().any(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })))
    );
}

/// Loss prevented: a unit that refuses the question once is believed for good, and ENABLE makes it
/// forget a credit.
#[test]
fn one_refusal_is_not_enough() {
    for times in [1, 2] {
        let mut world = cut_off(&[], 800, false);
        for _ in 0..times {
            world.answer_recovery(&[0x30]);
        }
        assert_eq!(credits(&mut world), (1, false));
    }
}

/// Loss prevented: an old unit, which does not know the question, never takes a note.
#[test]
fn a_unit_without_power_recovery_is_used_as_it_is() {
    let mut world = World::new(0);
    world.configure();
    for _ in 0..3 {
        world.answer_recovery(&[0x30]);
    }
    world.ready();
}

/// Loss prevented: notes in the dispenser that are given, and told to nobody.
#[test]
fn notes_that_were_left_in_the_dispenser_go_out_and_are_told() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 3)]);
    while world.sim.counters()["in_path"] != 2 {
        world.step();
    }
    world.act(json!({"action": "power_off"}));
    world.run(500);
    world.act(json!({"action": "power_on"}));
    assert!(matches!(world.outcome(), DispenseOutcome::Unknowable { .. }));
    let told = RecyclerEvent::Followed { taken: 2, gave_back: false, fault: None };
    let seen = world.until(|e| *e == told);
    assert!(!seen.iter().any(|e| matches!(e, RecyclerEvent::Counts(_))), "{seen:?}");
    let counts = RecyclerEvent::Counts([(bay(1), 3), (bay(2), 5), (bay(3), 0)].into());
    world.until(|e| *e == counts);
    world.ready_again();
    assert_eq!((world.given(), world.orders), (2, 1));
    world.conserved();
}

/// Loss prevented: notes that nobody fetches after a power loss lie at the exit for the next
/// customer, and nobody is told.
#[test]
fn notes_that_nobody_takes_after_a_power_loss_are_a_fault() {
    let mut world = World::open(0, [5, 5]);
    world.pay(&[(1, 3)]);
    while world.sim.counters()["in_path"] != 2 {
        world.step();
    }
    world.act(json!({"action": "power_off"}));
    world.act(json!({"action": "leave"}));
    world.act(json!({"action": "power_on"}));
    let fault = |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Fault(f)) if f.detail.contains("1D 01"));
    world.until(fault);
    world.act(json!({"action": "take"}));
    world.until(|e| *e == RecyclerEvent::Out(DispenserEvent::Recovered));
    world.ready();
    assert!(!world.engine.as_ref().unwrap().state.notes_at_exit);
    world.conserved();
}
