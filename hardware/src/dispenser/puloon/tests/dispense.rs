//! Dispenses: each option of the device, each result.

use super::*;
use crate::frame::puloon::{Id, lcdm1000, lcdm4000};

/// Loss prevented: the plain case pays another amount than it says.
#[test]
fn notes_go_out_are_counted_and_taken() {
    for model in MODELS {
        let mut bench = Rig::ready(model);
        let plan = some(model);
        let (bays, fault) = final_of(bench.dispense(&plan));
        assert_eq!(fault, None, "{model:?}");
        for (number, asked) in &plan {
            assert_eq!(numbers(&bays, *number), (*asked, Some(*asked), *asked, Some(0)));
            assert_eq!(bench.out(*number), *asked);
        }
        bench.pass(5_500);
        assert!(!bench.events.contains(&DispenserEvent::Taken));
        bench.act(&json!({"action": "take"}));
        bench.pass(1_500);
        assert_eq!(bench.events.last(), Some(&DispenserEvent::Taken));
        let most = model.limits().notes_per_bay;
        let (bays, _) = final_of(bench.dispense(&[(1, most)]));
        assert_eq!(numbers(&bays, 1), (most, Some(most), most, Some(0)));
        bench.assert_conserved();
    }
}

/// Loss prevented: one of the three dispense commands of the LCDM-2000 moves the wrong cassette.
#[test]
fn upper_lower_and_both() {
    let mut bench = Rig::ready(Model::Lcdm2000);
    for (plan, command, out) in [
        (&[(1u8, 2u32)] as &[(u8, u32)], 0x45, (2, 0)),
        (&[(2, 3)], 0x55, (2, 3)),
        (&[(1, 1), (2, 1)], 0x56, (3, 4)),
        (&[(1, 0), (2, 1)], 0x55, (3, 5)),
    ] {
        let (_, fault) = final_of(bench.dispense(plan));
        assert_eq!(fault, None);
        let head = [0x04, 0x50, 0x02, command];
        assert!(bench.writes.iter().any(|write| write.starts_with(&head)), "{command:02X}");
        assert_eq!((bench.out(1), bench.out(2)), out);
        bench.act(&json!({"action": "take"}));
        bench.until(|event| *event == DispenserEvent::Taken);
    }
}

/// Loss prevented: notes that fall into an open tray, which no sensor sees, stop every further sale.
#[test]
fn a_unit_with_an_open_tray_sees_nothing_at_its_exit() {
    for model in MODELS {
        let mut bench = Rig::ready(model);
        bench.act(&json!({"action": "set", "tray": true}));
        final_of(bench.dispense(&[(1, 2)]));
        bench.until(|event| *event == DispenserEvent::Taken);
        final_of(bench.dispense(&[(1, 2)]));
        assert_eq!(bench.out(1), 4);
    }
}

/// Loss prevented: rejected notes count as paid, or as still in the cassette; two that stuck together
/// as one.
#[test]
fn rejected_notes_are_replaced_and_told() {
    for model in MODELS {
        for (trap, left, rejected) in [("reject", 96, 1), ("double", 95, 2)] {
            let mut bench = Rig::ready(model);
            bench.arm(trap);
            let outcome = bench.dispense(&[(1, 3)]);
            bench.assert_true(&outcome, trap);
            let (bays, fault) = final_of(outcome);
            assert_eq!(fault, None);
            assert_eq!(numbers(&bays, 1), (3, None, 3, Some(1)), "how many it picked is not known");
            assert_eq!(bench.bay_count(1, "cassette"), left);
            assert_eq!(bench.bay_count(1, "rejected"), rejected);
        }
    }
}

/// Loss prevented: notes that left before an error are not counted, and are paid again.
#[test]
fn an_error_half_way_keeps_the_counts() {
    let trap = |trap: &str, bay: u8, note: u32, times: u32| json!({"action": "arm", "trap": trap, "bay": bay, "at_note": note, "times": times});
    for (model, code) in [
        (Model::Lcdm4000, ["error 03", "error 51", "error 0D"]),
        (Model::Lcdm2000, ["error 36", "error 40", "error 44"]),
    ] {
        for (trap, presented, rejected, code, kind) in [
            (trap("jam", 1, 3, 1), (2, 0), 0, code[0], FaultKind::Jam),
            (trap("pull", 2, 5, 1), (4, 0), 0, code[1], FaultKind::Cassette),
            (trap("reject", 1, 3, 11), (2, 0), 11, code[2], FaultKind::ServiceNeeded),
        ] {
            let mut bench = Rig::ready(model);
            bench.act(&trap);
            let outcome = bench.dispense(&[(1, 4), (2, 2)]);
            bench.assert_true(&outcome, &trap.to_string());
            let (bays, fault) = final_of(outcome);
            assert_eq!(numbers(&bays, 1), (4, None, presented.0, Some(rejected)), "{trap}");
            assert_eq!(numbers(&bays, 2), (2, None, presented.1, Some(0)), "{trap}");
            let fault = fault.unwrap();
            assert_eq!(fault.kind, kind, "{trap}");
            assert!(fault.detail.contains(code), "{fault:?}");
            let DispenseOutcome::NotStarted(fault) = bench.dispense(&[(1, 1)]) else { panic!() };
            assert!(fault.detail.contains("not set up"), "{fault:?}");
            assert_eq!(bench.dispenses(), 1);
        }
    }
}

/// Loss prevented: a count that the device itself doubts is booked as if it were sure.
#[test]
fn a_miscount_is_unknowable() {
    for (model, code) in [(Model::Lcdm4000, "error 07"), (Model::Lcdm2000, "error 3D")] {
        let mut bench = Rig::ready(model);
        bench.act(&json!({"action": "arm", "trap": "miscount", "at_note": 2}));
        let outcome = bench.dispense(&[(1, 3)]);
        let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
        assert!(last_seen.contains(code), "{last_seen}");
        assert_eq!(bench.out(1), 2, "one more than it counted");
    }
}

/// Loss prevented: an empty cassette is planned with again at once; a refilled one never again.
#[test]
fn an_empty_cassette_is_named_until_it_is_looked_after() {
    for model in MODELS {
        let mut fit = Fit::default();
        fit.cassettes[0].as_mut().unwrap().notes = 2;
        let mut bench = Rig::on(model, PuloonSim::new(model, fit));
        bench.configure();
        let (bays, fault) = final_of(bench.dispense(&[(1, 3)]));
        assert_eq!(numbers(&bays, 1), (3, None, 2, Some(0)));
        assert_eq!(fault.unwrap().kind, FaultKind::Cassette);
        bench.act(&json!({"action": "take"}));
        let state = |bench: &mut Rig<PuloonSim>| {
            bench.events.clear();
            bench.configure();
            let ready = bench.events.iter().rev().find_map(|event| match event {
                DispenserEvent::Ready { bays, .. } => Some(bays.clone()),
                _ => None,
            });
            ready.unwrap()[&bay(1)]
        };
        assert_eq!(state(&mut bench), BayState::Empty, "{model:?}");
        bench.act(&json!({"action": "refill", "bay": 1, "notes": 50}));
        assert_eq!(state(&mut bench), BayState::Present, "configured anew while well");
        let (bays, _) = final_of(bench.dispense(&[(1, 3)]));
        assert_eq!(numbers(&bays, 1), (3, Some(3), 3, Some(0)));
    }
}

/// Loss prevented: a missing cassette is answered with more than "nothing went out".
#[test]
fn a_cassette_that_is_missing_is_seen_before_a_note_moves() {
    for model in [Model::Lcdm4000, Model::Lcdm2000] {
        let mut bench = Rig::ready(model);
        bench.act(&json!({"action": "pull", "bay": 2}));
        let outcome = bench.dispense(&[(1, 1), (2, 1)]);
        bench.assert_true(&outcome, "pulled");
        let (bays, fault) = final_of(outcome);
        assert_eq!((bays[&bay(1)].presented, bays[&bay(2)].presented), (0, 0));
        assert_eq!(fault.unwrap().kind, FaultKind::Cassette);
        assert_eq!(bench.dispenses(), 0);
    }
}

/// Loss prevented: a lost answer is taken for "nothing went out" (paid again) or for success, although
/// an LCDM-4000 can be asked; the command is sent again.
#[test]
fn after_a_lost_answer_the_last_status_counts() {
    for trap in ["mute_reply", "mute_all"] {
        for jam in [false, true] {
            let mut bench = Rig::ready(Model::Lcdm4000);
            bench.watch(5, Then::Act(json!({"action": "arm", "trap": trap})));
            if jam {
                bench.act(&json!({"action": "arm", "trap": "jam", "at_note": 3}));
            }
            let outcome = bench.dispense(&[(1, 3), (2, 1)]);
            bench.assert_true(&outcome, trap);
            let (bays, fault) = final_of(outcome);
            assert_eq!(fault.is_some(), jam);
            assert_eq!(bays[&bay(1)].presented, if jam { 2 } else { 3 });
            assert_eq!((bench.commands(), bench.dispenses()), (1, 1), "{trap}");
        }
    }
}

/// Loss prevented: the last status of an older dispense with the same notes is taken for this one's.
#[test]
fn a_last_status_that_has_not_changed_proves_nothing() {
    // the second command never arrives, or is carried out: the same is said
    for then in [Then::Lose, Then::Act(json!({"action": "arm", "trap": "mute_reply"}))] {
        let mut bench = Rig::ready(Model::Lcdm4000);
        final_of(bench.dispense(&[(1, 3)]));
        bench.act(&json!({"action": "take"}));
        bench.pass(3_000);
        bench.watch(5, then);
        let outcome = bench.dispense(&[(1, 3)]);
        let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
        assert!(last_seen.contains("the same as before"), "{last_seen}");
        assert_eq!(bench.commands(), 1);
    }
}

/// Loss prevented: after a power cut in the middle, an older result that outlived it is believed.
#[test]
fn a_power_cut_in_the_middle_is_unknowable_whatever_is_remembered() {
    for keeps in [false, true] {
        let mut bench = Rig::ready(Model::Lcdm4000);
        bench.act(&json!({"action": "set", "keeps_last": keeps}));
        bench.act(&json!({"action": "arm", "trap": "power_cut", "at_note": 3}));
        bench.start(&[(1, 4)]);
        bench.pass(10_000);
        bench.act(&json!({"action": "power_on"}));
        let outcome = bench.outcome();
        assert!(matches!(outcome, DispenseOutcome::Unknowable { .. }), "{outcome:?}");
        assert_eq!(bench.out(1), 2);
        bench.act(&json!({"action": "take"}));
        bench.events.clear();
        bench.configure();
        assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })));
        assert_eq!(bench.bay_count(1, "path"), 0, "purged");
    }
}

/// Loss prevented: a device that cannot be asked is thought to have given nothing, or all.
#[test]
fn a_lost_answer_of_the_smaller_models_is_unknowable() {
    for model in [Model::Lcdm2000, Model::Lcdm1000] {
        for trap in ["mute_reply", "mute_all"] {
            let mut bench = Rig::ready(model);
            bench.watch(3, Then::Act(json!({"action": "arm", "trap": trap})));
            let outcome = bench.dispense(&[(1, 2)]);
            bench.assert_true(&outcome, trap);
            let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
            assert!(last_seen.contains("notes lie at the exit"), "{last_seen}");
            assert_eq!((bench.commands(), bench.out(1)), (1, 2));
        }
    }
}

/// Loss prevented: a noisy link ends in "unknown" although the protocol can mend it; a device that
/// refuses is held for "unknown".
#[test]
fn naks_and_damaged_replies_are_mended() {
    for model in MODELS {
        let at = frame_at(model);
        for (trap, times) in
            [("nak_frame", 1), ("nak_frame", 2), ("damage_reply", 1), ("damage_reply", 2)]
        {
            let mut bench = Rig::ready(model);
            bench.watch(at, Then::Act(json!({"action": "arm", "trap": trap, "times": times})));
            let outcome = bench.dispense(&[(1, 2)]);
            bench.assert_true(&outcome, trap);
            let (bays, fault) = final_of(outcome);
            assert_eq!((fault, bays[&bay(1)].presented), (None, 2), "{model:?} {trap} {times}");
        }
        let mut bench = Rig::ready(model);
        bench.watch(at, Then::Act(json!({"action": "arm", "trap": "nak_frame", "times": 90})));
        let outcome = bench.dispense(&[(1, 2)]);
        bench.assert_true(&outcome, "always NAK");
        assert!(bench.dispenses() == 0 && bench.commands() <= 3);
    }
}

/// Loss prevented: an ACK that comes as a NAK has the command written again while it is carried out.
#[test]
fn a_false_nak_does_not_pay_twice() {
    for model in MODELS {
        for same in [false, true] {
            let mut bench = Rig::ready(model);
            if same {
                final_of(bench.dispense(&[(1, 3)]));
                bench.act(&json!({"action": "take"}));
                bench.pass(3_000);
            }
            let before = bench.out(1);
            bench.start(&[(1, 3)]);
            let at = frame_at(model);
            bench.run_while(60_000, |bench| bench.writes.len() < at);
            // the device's ACK is on its way: it becomes a NAK
            let now = bench.now;
            bench.run_while(60_000, |bench| {
                !bench.wire.iter().any(|(_, way, bytes)| {
                    matches!(way, Way::ToHost)
                        && bytes.first() == Some(&0x06)
                        && now < bench.now.after(1)
                })
            });
            for (_, way, bytes) in &mut bench.wire {
                if matches!(way, Way::ToHost) && bytes.first() == Some(&0x06) {
                    bytes[0] = 0x15;
                }
            }
            let outcome = bench.outcome();
            assert_eq!(bench.commands(), 1, "{model:?}");
            match outcome {
                DispenseOutcome::Final { bays, .. } => {
                    assert_eq!(bench.out(1) - before, bays[&bay(1)].presented);
                }
                other => assert!(matches!(other, DispenseOutcome::Unknowable { .. }), "{other:?}"),
            }
        }
    }
}

/// Loss prevented: a unit that holds a serial number against repeats gives nothing for the second
/// sale, and we book it.
#[test]
fn each_dispense_has_a_serial_number_of_its_own() {
    let mut bench = Rig::ready(Model::Lcdm4000);
    bench.act(&json!({"action": "set", "strict_serial": true, "tray": true}));
    bench.act(&json!({"action": "refill", "bay": 1, "notes": 200}));
    for round in 1..=100 {
        let (bays, _) = final_of(bench.dispense(&[(1, 1)]));
        assert_eq!((bays[&bay(1)].presented, bench.out(1)), (1, round));
        bench.pass(1_500);
    }
    bench.restart_host();
    bench.configure();
    final_of(bench.dispense(&[(1, 1)]));
    assert_eq!(bench.out(1), 101, "the number goes on after a restart");
}

/// Loss prevented: a unit that wants the longer command cannot be used.
#[test]
fn the_plain_form_works_too() {
    let plain = || {
        let settings = Settings::new(Model::Lcdm4000, usd());
        Puloon::<ByTest>::new(Settings { form: DispenseForm::Plain, ..settings })
    };
    let sim = PuloonSim::new(Model::Lcdm4000, Fit::default());
    let mut bench = Bench::with(plain, sim);
    bench.configure();
    let (bays, _) = final_of(bench.dispense(&[(2, 4)]));
    assert_eq!(numbers(&bays, 2), (4, Some(4), 4, Some(0)));
    assert!(bench.writes.iter().any(|write| write.len() == 21 && write[3] == 0x52));
}

/// Loss prevented: a plan that the device cannot carry out in one command goes out in part.
#[test]
fn plans_beyond_the_rules_are_refused_in_words() {
    for (model, most) in [(Model::Lcdm4000, 20), (Model::Lcdm2000, 60), (Model::Lcdm1000, 60)] {
        let refused = |bench: &mut Rig<PuloonSim>, notes: &[(u8, u32)]| match bench.dispense(notes)
        {
            DispenseOutcome::NotStarted(fault) => fault.detail,
            other => panic!("{other:?}"),
        };
        let mut bench = Rig::new(model);
        assert!(refused(&mut bench, &[(1, 1)]).contains("not set up"));
        bench.configure();
        let text = refused(&mut bench, &[(1, most + 1)]);
        assert!(text.contains(&format!("at most {most}")), "{text}");
        assert!(refused(&mut bench, &[(3, 1)]).contains("bay 3 was not configured"));
        assert!(refused(&mut bench, &[(1, 0)]).contains("no notes"));
        assert_eq!(bench.writes.len(), 0, "nothing was sent");
        bench.start(&[(1, 1)]);
        bench.command(DispenserCommand::Dispense(Proof(plan_of(&[(1, 1)]))));
        bench.run_while(60_000, |bench| bench.outcomes().len() < 2);
        let outcomes = bench.outcomes();
        assert!(
            matches!(&outcomes[0], DispenseOutcome::NotStarted(f) if f.detail.contains("under way"))
        );
        assert!(matches!(&outcomes[1], DispenseOutcome::Final { fault: None, .. }), "{outcomes:?}");
        assert!(refused(&mut bench, &[(1, 1)]).contains("notes lie at the exit"));
        assert_eq!(bench.out(1), 1);
    }
}

/// What an answer with this code and these counts comes to.
fn outcome_of(model: Model, code: u8, exit: u8) -> DispenseOutcome {
    let mut engine = make(model)();
    let frame = match model {
        Model::Lcdm4000 => {
            let mut bays = [lcdm4000::BayCount { exit: 0, rejected: 0, present: true }; 4];
            bays[0].exit = exit;
            let error = lcdm4000::error(code);
            lcdm4000::Reply::Counted { command: 0x52, error, bays }.frame()
        }
        _ => {
            let bay = lcdm1000::BayCount { checked: exit, exit, rejected: 0, near_end: false };
            let error = lcdm1000::error(code);
            lcdm1000::Reply::One { command: 0x45, error, bay }.frame()
        }
    };
    let plan = Proof(plan_of(&[(1, 3)]));
    let before = if model == Model::Lcdm4000 { Before::Nothing } else { Before::Unread };
    engine.on_answer(plan, before, &frame, bitspire_shared::time::Mono(0));
    let job = std::mem::replace(&mut engine.job, Job::None);
    if let Job::Dispense { plan, step: DispenseStep::Ask { why, before, said } } = job {
        // the last status says the same
        let Answer::Counted(last) = Answer::read(&frame) else { panic!() };
        let mut bays = [lcdm4000::BayCount { exit: 0, rejected: 0, present: true }; 4];
        bays[0].exit = exit;
        let frame = lcdm4000::Reply::Last { command: 0x52, error: last.error, bays }.frame();
        engine.on_last(plan.as_ref(), &why, before, said, &frame, bitspire_shared::time::Mono(0));
    } else if let Job::Dispense { step: DispenseStep::LastLook { why }, .. } = job {
        engine.state.unknowable(why);
    }
    match engine.state.events.pop() {
        Some(DispenserEvent::Dispensed(outcome)) => outcome,
        other => panic!("{other:?}"),
    }
}

/// Loss prevented: a code that nobody knows passes for success, or one that says "not sure" for a
/// count.
#[test]
fn every_code_has_its_outcome() {
    for model in [Model::Lcdm4000, Model::Lcdm1000] {
        for raw in 0..=0xdfu8 {
            let error = ErrorCode { id: model.id(), raw };
            let short = outcome_of(model, raw, 2);
            match (error.nature(), &short) {
                // success with a note less: believed of the model that says so twice
                (Meaning::Fine, DispenseOutcome::Final { fault: Some(_), .. }) => {
                    assert_eq!(model, Model::Lcdm4000);
                }
                (Meaning::Fine, DispenseOutcome::Unknowable { .. }) => {
                    assert_eq!(model.id(), Id::Lcdm1000);
                }
                (Meaning::Miscounted, DispenseOutcome::Unknowable { last_seen }) => {
                    assert!(last_seen.contains(&format!("error {raw:02X}")), "{last_seen}");
                }
                (nature, DispenseOutcome::Final { bays, fault: Some(fault) }) => {
                    assert_ne!(nature, Meaning::Miscounted, "{raw:02X}");
                    assert_eq!(bays[&bay(1)].presented, 2);
                    if nature == Meaning::Unknown {
                        assert_eq!(fault.kind, FaultKind::ServiceNeeded);
                        assert!(fault.detail.contains("in no public list"), "{fault:?}");
                    }
                }
                (nature, other) => panic!("{raw:02X} {nature:?}: {other:?}"),
            }
            let none = outcome_of(model, raw, 0);
            let refused = matches!(none, DispenseOutcome::NotStarted(_));
            assert_eq!(refused, error.nature() == Meaning::Refused, "{raw:02X}: {none:?}");
        }
    }
}

/// Loss prevented: more notes than were asked for are booked as the device says in a frame that two
/// wrong bytes can make.
#[test]
fn counts_that_contradict_their_code_are_not_believed_once() {
    assert!(matches!(outcome_of(Model::Lcdm1000, 0x36, 9), DispenseOutcome::Unknowable { .. }));
    assert!(matches!(outcome_of(Model::Lcdm1000, 0x30, 9), DispenseOutcome::Unknowable { .. }));
    let (bays, fault) = final_of(outcome_of(Model::Lcdm4000, 0x00, 9));
    assert_eq!(bays[&bay(1)].presented, 9, "said twice");
    assert!(fault.unwrap().detail.contains("reports success"));
}
