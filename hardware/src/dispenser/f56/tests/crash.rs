//! Crashes of either side at each step, and bad cables.

use super::*;
use crate::sim::faulty::{FaultRates, Faulty, seeds};

/// The host's writes in one dispense: four for the status, three for the count, one to acknowledge
/// (see [`Rig::commands`]).
const STEPS: std::ops::RangeInclusive<usize> = 1..=7;

/// The first write that can carry the count's frame.
const FRAME: usize = 5;

/// Loss prevented: a host that dies in the middle and, started again, pays a second time; or notes
/// that move after a death before the command.
#[test]
fn the_host_dies_at_each_step() {
    for nth in STEPS {
        let mut bench = Rig::ready();
        bench.watch(nth, Then::KillHost);
        bench.start(&[(1, 3), (2, 1)]);
        bench.pass(60_000);
        assert!(bench.dead && bench.outcomes().is_empty());
        // the write with which it died is lost: only those before it arrived
        let expected = if nth > FRAME { (3, 1) } else { (0, 0) };
        assert_eq!((bench.out(1), bench.out(2)), expected, "died with write {nth}");
        bench.assert_conserved();

        bench.restart_host();
        bench.configure();
        if expected != (0, 0) {
            let [DispenserEvent::Fault(_)] = bench.events.as_slice() else { panic!() };
            bench.act(&json!({"action": "take"}));
            bench.until(is_ready);
        }
        assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{nth}");
        assert_eq!((bench.out(1), bench.out(2)), expected, "nothing moved on its own");
        let (bays, _) = final_of(bench.dispense(&[(2, 2)]));
        assert_eq!(numbers(&bays, 2), (2, Some(2), 2, Some(0)), "died with write {nth}");
        bench.assert_conserved();
    }
}

/// Loss prevented: a power cut of the device in the middle is taken for success or for "nothing".
#[test]
fn the_device_is_cut_off_at_each_step() {
    for nth in STEPS {
        let mut bench = Rig::ready();
        bench.watch(nth, Then::Act(json!({"action": "power_off"})));
        let outcome = bench.dispense(&[(1, 3), (2, 1)]);
        bench.assert_true(&outcome, &format!("write {nth}"));
        let not_started = matches!(outcome, DispenseOutcome::NotStarted(_));
        let last = matches!(outcome, DispenseOutcome::Final { .. });
        assert_eq!((not_started, last), (nth < FRAME, nth == 7), "write {nth}: {outcome:?}");
        bench.act(&json!({"action": "power_on"}));
        bench.pass(60_000);
        if bench.device.counters()["notes_at_exit"] == true {
            bench.act(&json!({"action": "take"}));
        }
        bench.events.clear();
        bench.configure();
        assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{nth}");
        assert_eq!(bench.dispenses(), u64::from(nth > FRAME));
    }
}

/// Loss prevented: the same with the power cut at each note and at each byte of the answer.
#[test]
fn the_device_is_cut_off_at_each_note_and_byte() {
    let notes = (1..=4).map(|n| json!({"action": "arm", "trap": "power_cut", "at_note": n}));
    let bytes =
        (0..165).step_by(4).map(|n| json!({"action": "arm", "trap": "power_cut", "at_byte": n}));
    for trap in notes.chain(bytes) {
        let mut bench = Rig::ready();
        bench.watch(4, Then::Act(trap.clone()));
        let outcome = bench.dispense(&[(1, 3), (2, 1)]);
        bench.assert_true(&outcome, &trap.to_string());
        assert!(matches!(outcome, DispenseOutcome::Unknowable { .. }), "{trap}: {outcome:?}");
        bench.act(&json!({"action": "power_on"}));
        if bench.device.counters()["notes_at_exit"] == true {
            bench.act(&json!({"action": "take"}));
        }
        bench.pass(20_000);
        bench.configure();
        let in_path: u32 = [1, 2].iter().map(|n| bench.bay_count(*n, "path")).sum();
        assert_eq!(in_path, 0, "{trap}: the set-up purges the path");
        bench.assert_conserved();
    }
}

/// Loss prevented: a write of ours that is lost leads to a wrong result.
#[test]
fn each_write_of_the_host_is_lost_once() {
    for nth in STEPS {
        let mut bench = Rig::ready();
        bench.watch(nth, Then::Lose);
        let outcome = bench.dispense(&[(1, 3), (2, 1)]);
        bench.assert_true(&outcome, &format!("write {nth}"));
        let unknowable = matches!(outcome, DispenseOutcome::Unknowable { .. });
        // the count's frame is never written twice: whether it arrived, nobody knows
        assert_eq!(bench.commands(), 1, "write {nth}");
        assert_eq!(unknowable, nth == FRAME, "write {nth}: {outcome:?}");
        bench.act(&json!({"action": "disarm"}));
        bench.pass(60_000);
        assert_eq!(bench.outcomes().len(), 1);
    }
}

/// Loss prevented: a cable pulled in the middle is taken for "nothing went out".
#[test]
fn the_line_is_lost_at_each_step() {
    for nth in STEPS {
        let mut bench = Rig::ready();
        bench.watch(nth, Then::DropLine);
        let outcome = bench.dispense(&[(1, 3), (2, 1)]);
        bench.assert_true(&outcome, &format!("write {nth}"));
        let not_started = matches!(outcome, DispenseOutcome::NotStarted(_));
        assert_eq!(not_started, nth < FRAME, "write {nth}: {outcome:?}");
        assert!(bench.events.iter().any(|event| matches!(event, DispenserEvent::Fault(f)
            if f.kind == FaultKind::LinkLost)));
    }
}

/// Loss prevented: over a bad cable the machine says a number that is not so, or pays twice.
#[test]
fn over_a_bad_cable_the_result_is_true_or_unknown() {
    let mut seen = [0u32; 3];
    let mut faults = 0;
    for seed in seeds(600) {
        let device = Faulty::new(F56Sim::new(Fit::default()), seed, FaultRates::default(), 1);
        let mut bench = Rig::on(device);
        bench.configure();
        bench.spoil_cable(seed);
        if seed % 3 == 0 {
            bench.act(&json!({"action": "arm", "trap": "reject"}));
        }
        if seed % 7 == 0 {
            bench.act(&json!({"action": "arm", "trap": "jam", "at_note": 3}));
        }
        let outcome = bench.dispense(&[(1, 4), (2, 2)]);
        seen[sort(&outcome)] += 1;
        // the device may still be at work when "unknown" is said
        bench.pass(60_000);
        bench.assert_true(&outcome, &format!("seed {seed}"));
        assert_eq!(bench.outcomes().len(), 1, "seed {seed}: {:?}", bench.events);
        faults += bench.faults();
    }
    assert!(faults > 10_000, "the cable was bad: {faults}");
    assert!(seen.iter().all(|n| *n > 10), "all three happen: {seen:?}");
}
