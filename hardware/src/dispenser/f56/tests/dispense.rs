//! Dispenses: each option of the device, each result.

use super::*;

/// Loss prevented: the plain case pays another amount than it says.
#[test]
fn notes_go_out_are_counted_and_taken() {
    let mut bench = Rig::ready();
    let (bays, fault) = final_of(bench.dispense(&[(1, 3), (2, 1)]));
    assert_eq!(fault, None);
    assert_eq!(numbers(&bays, 1), (3, Some(3), 3, Some(0)));
    assert_eq!(numbers(&bays, 2), (1, Some(1), 1, Some(0)));
    assert_eq!((bench.out(1), bench.out(2)), (3, 1));
    bench.pass(5_500);
    assert!(!bench.events.contains(&DispenserEvent::Taken));
    let polls = bench.writes.iter().filter(|w| w.ends_with(&ENQ)).count();
    assert_eq!(polls, 2 + 5, "status, count, and one status a second");
    bench.act(&json!({"action": "take"}));
    bench.pass(1_500);
    assert_eq!(bench.events.last(), Some(&DispenserEvent::Taken));
    let (bays, _) = final_of(bench.dispense(&[(2, 20)]));
    assert_eq!(numbers(&bays, 2), (20, Some(20), 20, Some(0)));
    bench.assert_conserved();
}

/// Loss prevented: rejected notes count as paid, or as still in the cassette.
#[test]
fn a_rejected_note_is_replaced_and_counted() {
    let mut bench = Rig::ready();
    bench.arm("reject");
    let (bays, fault) = final_of(bench.dispense(&[(1, 3)]));
    assert_eq!(fault, None);
    assert_eq!(numbers(&bays, 1), (3, Some(4), 3, Some(1)));
    assert_eq!(bench.bay_count(1, "cassette"), 96);
}

/// Loss prevented: notes that left before an error are not counted, and are paid again.
#[test]
fn an_error_half_way_keeps_the_counts() {
    let reject = json!({"action": "arm", "trap": "reject", "bay": 1, "at_note": 3, "times": 5});
    let jam = json!({"action": "arm", "trap": "jam", "at_note": 3});
    let pull = json!({"action": "arm", "trap": "pull", "bay": 2});
    for (trap, presented, rejected, code) in [
        (reject, (2, 0), 5, "error 57 03"),
        (jam, (2, 0), 0, "error 5A 02"),
        (pull, (4, 0), 0, "error 5C 01"),
    ] {
        let mut bench = Rig::ready();
        bench.act(&trap);
        let outcome = bench.dispense(&[(1, 4), (2, 2)]);
        bench.assert_true(&outcome, &trap.to_string());
        let (bays, fault) = final_of(outcome);
        assert_eq!(numbers(&bays, 1), (4, None, presented.0, Some(rejected)), "{trap}");
        assert_eq!(numbers(&bays, 2), (2, None, presented.1, Some(0)), "{trap}");
        let fault = fault.unwrap();
        assert_eq!(fault.kind, FaultKind::ServiceNeeded);
        assert!(fault.detail.contains(code), "{fault:?}");
        let DispenseOutcome::NotStarted(fault) = bench.dispense(&[(1, 1)]) else { panic!() };
        assert!(fault.detail.contains("not set up"), "{fault:?}");
        assert_eq!(bench.dispenses(), 1);
    }
}

/// Loss prevented: an empty cassette is planned with again at once; a refilled one never again.
#[test]
fn an_empty_cassette_is_named_until_it_is_looked_after() {
    let mut fit = Fit::default();
    fit.cassettes[0].as_mut().unwrap().notes = 2;
    let mut bench = Rig::on(F56Sim::new(fit));
    bench.configure();
    let (bays, fault) = final_of(bench.dispense(&[(1, 3), (2, 1)]));
    assert_eq!(numbers(&bays, 1), (3, None, 2, Some(0)));
    assert_eq!(numbers(&bays, 2), (1, None, 0, Some(0)));
    let fault = fault.unwrap();
    assert_eq!(fault.kind, FaultKind::Cassette);
    assert!(fault.detail.contains("cassette 1 is empty"), "{fault:?}");
    bench.act(&json!({"action": "take"}));
    let state = |bench: &mut Rig<F56Sim>| {
        bench.events.clear();
        bench.configure();
        let ready = bench.events.iter().rev().find_map(|event| match event {
            DispenserEvent::Ready { bays, .. } => Some(bays.clone()),
            _ => None,
        });
        ready.unwrap()
    };
    let empty = BTreeMap::from([(bay(1), BayState::Empty), (bay(2), BayState::Present)]);
    assert_eq!(state(&mut bench), empty);
    bench.act(&json!({"action": "refill", "bay": 1, "notes": 50}));
    assert_eq!(state(&mut bench)[&bay(1)], BayState::Present, "configured anew while well");
    let (bays, _) = final_of(bench.dispense(&[(1, 3)]));
    assert_eq!(numbers(&bays, 1), (3, Some(3), 3, Some(0)));
}

/// Loss prevented: swapped cassettes of different length pay the wrong notes.
#[test]
fn notes_of_another_length_are_rejected_not_paid() {
    let mut fit = Fit::default();
    fit.cassettes[0].as_mut().unwrap().length = (0x82, 0x6e);
    let mut bench = Rig::on(F56Sim::new(fit));
    bench.configure();
    let (bays, fault) = final_of(bench.dispense(&[(1, 2)]));
    assert_eq!(numbers(&bays, 1), (2, None, 0, Some(5)));
    assert!(fault.is_some());
}

/// Loss prevented: a busy or noisy link ends in "unknown" or in nothing although the protocol can
/// mend it.
#[test]
fn trouble_on_the_link_that_the_protocol_mends() {
    for (trap, times) in [
        ("nak_enq", 2),
        ("nak_frame", 2),
        ("damage_reply", 2),
        ("collide", 1),
        ("collide", 3),
        ("collide", 5),
    ] {
        let mut bench = Rig::ready();
        // with the count's own ENQ, so that the status before it is not what meets the trap
        bench.watch(4, Then::Act(json!({"action": "arm", "trap": trap, "times": times})));
        let outcome = bench.dispense(&[(1, 2), (2, 2)]);
        bench.assert_true(&outcome, trap);
        let (bays, fault) = final_of(outcome);
        assert_eq!(fault, None, "{trap}");
        assert_eq!(numbers(&bays, 2), (2, Some(2), 2, Some(0)), "{trap}");
    }
}

/// Loss prevented: a unit with the shorter reply cannot be used, or is misread.
#[test]
fn the_shorter_reply_is_read() {
    let mut bench = Rig::on(F56Sim::new(Fit { short_reply: true, ..Fit::default() }));
    bench.configure();
    let (bays, _) = final_of(bench.dispense(&[(1, 7), (2, 3)]));
    assert_eq!(numbers(&bays, 1), (7, Some(7), 7, Some(0)));
    assert_eq!(numbers(&bays, 2), (3, Some(3), 3, Some(0)));
}

/// Loss prevented: a command that the device refused is held for "unknown": a person must count for
/// nothing.
#[test]
fn refused_before_any_note_moved_is_not_started() {
    for (nth, trap) in [(1, "nak_enq"), (4, "nak_enq"), (1, "nak_frame"), (4, "nak_frame")] {
        let mut bench = Rig::ready();
        bench.watch(nth, Then::Act(json!({"action": "arm", "trap": trap, "times": 3})));
        let outcome = bench.dispense(&[(1, 2)]);
        bench.assert_true(&outcome, trap);
        let DispenseOutcome::NotStarted(fault) = outcome else { panic!("{trap}: {outcome:?}") };
        assert_eq!(fault.kind, FaultKind::ServiceNeeded);
        assert!(fault.detail.contains("refused"), "{fault:?}");
        bench.pass(20_000);
        assert_eq!(bench.events.last(), Some(&DispenserEvent::Recovered));
    }
}

/// Loss prevented: a lost answer is taken for "nothing went out" (paid again) or for success; the
/// command is sent again.
#[test]
fn a_lost_answer_is_unknowable_and_never_sent_again() {
    for (trap, heard) in [
        (json!({"action": "arm", "trap": "mute_all"}), "(frame not acknowledged)"),
        (
            json!({"action": "arm", "trap": "mute_reply"}),
            "(frame acknowledged); last heard: DLE ACK",
        ),
        (json!({"action": "arm", "trap": "damage_reply", "times": 3}), "a damaged frame"),
    ] {
        let mut bench = Rig::ready();
        bench.watch(4, Then::Act(trap.clone()));
        let outcome = bench.dispense(&[(1, 2)]);
        bench.assert_true(&outcome, &trap.to_string());
        let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
        assert_eq!(bench.commands(), 1, "{trap}");
        assert!(last_seen.contains(heard), "{trap}: {last_seen}");
        assert!(last_seen.contains("notes lie at the exit"), "{trap}: {last_seen}");
        let DispenseOutcome::NotStarted(_) = bench.dispense(&[(1, 2)]) else { panic!() };
        bench.act(&json!({"action": "take"}));
        bench.pass(15_000);
        assert!(bench.events.contains(&DispenserEvent::Taken), "{:?}", bench.events);
        bench.configure();
        let (bays, _) = final_of(bench.dispense(&[(2, 1)]));
        assert_eq!(numbers(&bays, 2), (1, Some(1), 1, Some(0)));
        assert_eq!((bench.out(1), bench.dispenses()), (2, 2));
    }
}

/// Loss prevented: an answer that the device repeats, since our last ACK was lost, is counted for
/// the next dispense.
#[test]
fn a_repeated_answer_is_acknowledged_and_counts_once() {
    let mut bench = Rig::ready();
    bench.watch(7, Then::Lose);
    let (bays, _) = final_of(bench.dispense(&[(1, 2)]));
    assert_eq!(numbers(&bays, 1), (2, Some(2), 2, Some(0)));
    bench.act(&json!({"action": "take"}));
    bench.pass(30_000);
    assert_eq!(bench.outcomes().len(), 1, "{:?}", bench.events);
    // and where the next dispense begins while the device still waits for that ACK
    bench.watch(7, Then::Lose);
    let (bays, _) = final_of(bench.dispense(&[(1, 3)]));
    assert_eq!(numbers(&bays, 1), (3, Some(3), 3, Some(0)));
    bench.act(&json!({"action": "take"}));
    bench.run_while(60_000, |bench| !bench.events.contains(&DispenserEvent::Taken));
    let (bays, _) = final_of(bench.dispense(&[(1, 1)]));
    assert_eq!(numbers(&bays, 1), (1, Some(1), 1, Some(0)));
    assert_eq!(bench.out(1), 6);
}

/// Loss prevented: a slow device's answer comes while we look at it for the last time, and is
/// thrown away, or is believed after we said "unknown".
#[test]
fn a_late_answer_counts_until_unknowable_was_said() {
    let mut late = [0, 0];
    for note_ms in (19_900..20_900).step_by(20) {
        let mut bench = Rig::on(F56Sim::new(Fit { note_ms, ..Fit::default() }));
        bench.configure();
        let outcome = bench.dispense(&[(1, 2)]);
        bench.pass(10_000);
        assert_eq!(bench.outcomes().len(), 1);
        match &outcome {
            DispenseOutcome::Final { .. } => {
                bench.assert_true(&outcome, "late");
                late[0] += usize::from(note_ms > 20_000);
            }
            DispenseOutcome::Unknowable { .. } => late[1] += 1,
            DispenseOutcome::NotStarted(_) => panic!("{outcome:?}"),
        }
        assert_eq!(bench.out(1), 2);
    }
    assert!(late[0] > 0 && late[1] > 0, "both happen: {late:?}");
}

/// Loss prevented: a plan that the device cannot carry out in one command goes out in part.
#[test]
fn plans_beyond_the_rules_are_refused_in_words() {
    let refused = |bench: &mut Rig<F56Sim>, notes: &[(u8, u32)]| match bench.dispense(notes) {
        DispenseOutcome::NotStarted(fault) => fault.detail,
        other => panic!("{other:?}"),
    };
    let mut bench = Rig::new();
    assert!(refused(&mut bench, &[(1, 1)]).contains("not set up"));
    bench.configure();
    let text = refused(&mut bench, &[(1, 20), (2, 21)]);
    assert!(text.contains("at most 20") && text.contains("21 of bay 2"), "{text}");
    assert!(refused(&mut bench, &[(3, 1)]).contains("bay 3 was not configured"));
    assert!(refused(&mut bench, &[(1, 0)]).contains("no notes"));
    assert!(refused(&mut bench, &[]).contains("no notes"));
    assert_eq!(bench.writes.len(), 0, "nothing was sent");

    bench.start(&[(1, 1)]);
    bench.command(DispenserCommand::Dispense(Proof(plan_of(&[(2, 1)]))));
    bench.run_while(60_000, |bench| bench.outcomes().len() < 2);
    let outcomes = bench.outcomes();
    assert!(
        matches!(&outcomes[0], DispenseOutcome::NotStarted(f) if f.detail.contains("under way"))
    );
    assert!(matches!(&outcomes[1], DispenseOutcome::Final { fault: None, .. }), "{outcomes:?}");
    assert!(refused(&mut bench, &[(1, 1)]).contains("notes lie at the exit"));
    assert_eq!((bench.out(1), bench.out(2)), (1, 0));
}

/// Loss prevented: a status under way when the customer pays makes the machine refuse to pay out.
#[test]
fn a_plan_waits_for_the_status_that_is_under_way() {
    let mut bench = Rig::ready();
    bench.command(DispenserCommand::Refresh);
    bench.start(&[(1, 2)]);
    let (bays, _) = final_of(bench.outcome());
    assert_eq!(numbers(&bays, 1), (2, Some(2), 2, Some(0)));
}

/// Loss prevented: a success report that does not add up is believed.
#[test]
fn a_success_that_does_not_add_up_is_a_fault() {
    let n = |n| TwoDigits::new(n).unwrap();
    let none = BayCount::default();
    for (one, three) in [(2, 0), (4, 0), (3, 1)] {
        let counts = [
            BayCount { dispensed: n(one), rejected: n(0) },
            none,
            BayCount { dispensed: n(three), rejected: n(0) },
            none,
        ];
        let mut engine = F56::<ByTest>::new(usd());
        let reply = Reply::draft(&Request::Count(Counts::new([n(0); SLOTS])), true, 153);
        engine.on_count(&plan_of(&[(1, 3)]), &reply.with_counts(counts), Mono(0));
        let [DispenserEvent::Dispensed(outcome)] = engine.state.events.as_slice() else { panic!() };
        let (bays, fault) = final_of(outcome.clone());
        assert_eq!(bays[&bay(1)].presented, one);
        assert_eq!(
            bays.get(&bay(3)).map(|b| (b.requested, b.presented)),
            (three > 0).then_some((0, 1))
        );
        assert!(fault.unwrap().detail.contains("reports success"));
    }
}
