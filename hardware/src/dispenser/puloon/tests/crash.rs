//! Crashes of either side at each step, and bad cables.

use super::*;
use crate::sim::faulty::{FaultRates, Faulty, seeds};

/// The host's writes in one dispense ([`frame_at`]).
fn steps(model: Model) -> std::ops::RangeInclusive<usize> {
    1..=frame_at(model) + 1
}

fn both_out<D: SimDevice>(bench: &Rig<D>) -> u32 {
    bench.out(1) + bench.out(2)
}

/// Loss prevented: a host that dies in the middle and, started again, pays a second time; or notes
/// that move after a death before the command.
#[test]
fn the_host_dies_at_each_step() {
    for model in MODELS {
        for nth in steps(model) {
            let mut bench = Rig::ready(model);
            bench.watch(nth, Then::KillHost);
            bench.start(&some(model));
            bench.pass(90_000);
            assert!(bench.dead && bench.outcomes().is_empty(), "{model:?} {nth}");
            // the write with which it died is lost: only those before it arrived
            let expected = if nth > frame_at(model) { 4 } else { 0 };
            assert_eq!(both_out(&bench), expected, "{model:?}: died with write {nth}");
            bench.assert_conserved();

            bench.restart_host();
            bench.configure();
            if expected > 0 {
                let [DispenserEvent::Fault(_)] = bench.events.as_slice() else { panic!() };
                bench.act(&json!({"action": "take"}));
                bench.until(is_ready);
            }
            assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{nth}");
            assert_eq!(both_out(&bench), expected, "nothing moved on its own");
            let (bays, _) = final_of(bench.dispense(&[(1, 2)]));
            assert_eq!(numbers(&bays, 1), (2, Some(2), 2, Some(0)), "died with write {nth}");
            bench.assert_conserved();
        }
    }
}

/// Loss prevented: a power cut of the device in the middle is taken for success or for "nothing".
#[test]
fn the_device_is_cut_off_at_each_step() {
    for model in MODELS {
        let frame = frame_at(model);
        for nth in steps(model) {
            let mut bench = Rig::ready(model);
            bench.watch(nth, Then::Act(json!({"action": "power_off"})));
            let outcome = bench.dispense(&some(model));
            bench.assert_true(&outcome, &format!("{model:?} write {nth}"));
            let not_started = matches!(outcome, DispenseOutcome::NotStarted(_));
            let last = matches!(outcome, DispenseOutcome::Final { .. });
            let expected = (nth < frame, nth > frame);
            assert_eq!((not_started, last), expected, "{model:?} write {nth}: {outcome:?}");
            bench.act(&json!({"action": "power_on"}));
            bench.pass(60_000);
            if bench.device.counters()["notes_at_exit"] == true {
                bench.act(&json!({"action": "take"}));
            }
            bench.events.clear();
            bench.configure();
            assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{nth}");
            assert_eq!(bench.dispenses(), u64::from(nth > frame));
        }
    }
}

/// Loss prevented: the same with the power cut at each note and at each byte of the answer.
#[test]
fn the_device_is_cut_off_at_each_note_and_byte() {
    for model in MODELS {
        let notes = (1..=4).map(|n| json!({"action": "arm", "trap": "power_cut", "at_note": n}));
        let bytes = (0..14).map(|n| json!({"action": "arm", "trap": "power_cut", "at_byte": n}));
        for trap in notes.chain(bytes) {
            for on_again in [false, true] {
                let mut bench = Rig::ready(model);
                bench.act(&json!({"action": "set", "keeps_last": on_again}));
                bench.watch(frame_at(model), Then::Act(trap.clone()));
                bench.start(&some(model));
                bench.pass(5_000);
                if on_again {
                    bench.act(&json!({"action": "power_on"}));
                }
                let outcome = bench.outcome();
                let story = format!("{model:?} {trap} {on_again}");
                bench.assert_true(&outcome, &story);
                // the whole was done and is remembered: an LCDM-4000 can say so
                let told = model == Model::Lcdm4000 && on_again && trap.get("at_byte").is_some();
                let known = matches!(outcome, DispenseOutcome::Final { .. });
                assert_eq!(known, told, "{story}: {outcome:?}");
                assert_eq!(bench.commands(), 1, "{story}");
            }
        }
    }
}

/// Loss prevented: a write of ours that is lost leads to a wrong result.
#[test]
fn each_write_of_the_host_is_lost_once() {
    for model in MODELS {
        for nth in steps(model) {
            let mut bench = Rig::ready(model);
            bench.watch(nth, Then::Lose);
            let outcome = bench.dispense(&some(model));
            let story = format!("{model:?} write {nth}");
            bench.assert_true(&outcome, &story);
            // the frame is never written twice: whether it arrived, nobody knows
            assert_eq!(bench.commands(), 1, "{story}");
            let unknowable = matches!(outcome, DispenseOutcome::Unknowable { .. });
            assert_eq!(unknowable, nth == frame_at(model), "{story}: {outcome:?}");
            bench.pass(60_000);
            assert_eq!(bench.outcomes().len(), 1);
        }
    }
}

/// Loss prevented: a cable pulled in the middle is taken for "nothing went out".
#[test]
fn the_line_is_lost_at_each_step() {
    for model in MODELS {
        for nth in steps(model) {
            let mut bench = Rig::ready(model);
            bench.watch(nth, Then::DropLine);
            let outcome = bench.dispense(&some(model));
            bench.assert_true(&outcome, &format!("{model:?} write {nth}"));
            let not_started = matches!(outcome, DispenseOutcome::NotStarted(_));
            assert_eq!(not_started, nth < frame_at(model), "{model:?} write {nth}: {outcome:?}");
            assert!(bench.events.iter().any(|event| matches!(event, DispenserEvent::Fault(f)
                if f.kind == FaultKind::LinkLost)));
        }
    }
}

/// Loss prevented: over a bad cable the machine says a number that is not so, or pays twice.
#[test]
fn over_a_bad_cable_the_result_is_true_or_unknown() {
    for model in MODELS {
        let mut seen = [0u32; 3];
        let mut faults = 0;
        for seed in seeds(600) {
            let sim = PuloonSim::new(model, Fit::default());
            let mut bench = Rig::on(model, Faulty::new(sim, seed, FaultRates::default(), 1));
            bench.configure();
            bench.spoil_cable(seed);
            let traps = [(3, "reject"), (4, "double"), (7, "jam"), (9, "mute_reply"), (11, "pull")];
            for (every, trap) in traps {
                if seed % every == 0 {
                    bench.act(&json!({"action": "arm", "trap": trap, "at_note": 3}));
                }
            }
            let plan: &[(u8, u32)] =
                if model == Model::Lcdm1000 { &[(1, 6)] } else { &[(1, 4), (2, 2)] };
            let outcome = bench.dispense(plan);
            seen[sort(&outcome)] += 1;
            // the device may still be at work when "unknown" is said
            bench.pass(60_000);
            bench.assert_true(&outcome, &format!("{model:?} seed {seed}"));
            assert_eq!(bench.outcomes().len(), 1, "seed {seed}: {:?}", bench.events);
            faults += bench.faults();
        }
        assert!(faults > 1_000, "the cable was bad: {faults}");
        assert!(seen.iter().all(|n| *n > 10), "all three happen: {seen:?}");
    }
}
