//! Setting up, polling, losing and finding the device.

use super::*;
use crate::engine::Parity;

/// Loss prevented: a machine that talks past its dispenser since the line is set wrongly, which no
/// pseudo-terminal shows.
#[test]
fn the_line_is_9600_8e1() {
    let line = F56::<ByTest>::new(usd()).line();
    let expected = LineSettings { baud: 9_600, data_bits: 8, parity: Parity::Even, stop_bits: 1 };
    assert_eq!(line, expected);
}

/// Loss prevented: a bay without a cassette is offered to customers.
#[test]
fn a_missing_cassette_is_told_and_changes_are_noticed() {
    let mut bench = Rig::new();
    bench.act(&json!({"action": "pull", "bay": 2}));
    bench.configure();
    let ready = |second| DispenserEvent::Ready {
        bays: BTreeMap::from([(bay(1), BayState::Present), (bay(2), second)]),
        notes_at_exit: false,
    };
    assert_eq!(bench.events, [ready(BayState::Missing)]);
    bench.act(&json!({"action": "insert", "bay": 2}));
    bench.pass(11_000);
    assert_eq!(bench.events, [ready(BayState::Missing), ready(BayState::Present)]);
    bench.pass(60_000);
    assert_eq!(bench.events.len(), 2, "nothing changed, nothing is said");
    bench.command(DispenserCommand::Refresh);
    bench.pass(1_000);
    assert_eq!(bench.events.len(), 3);
}

/// Loss prevented: a cassette whose notes the device cannot measure is set up as something else.
#[test]
fn bays_that_cannot_be_set_up_are_refused() {
    for (bays, words) in [
        (BTreeMap::from([(bay(1), note(20)), (bay(2), note(25))]), "bay 2: expected a note"),
        (BTreeMap::from([(bay(5), note(20))]), "expected bays 1 to 4, got bay 5"),
        (BTreeMap::new(), "at least one bay"),
    ] {
        let mut bench = Rig::new();
        bench.command(DispenserCommand::Configure(bays));
        let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else { panic!() };
        assert!(fault.detail.contains(words), "{fault:?}");
        assert!(bench.writes.is_empty());
    }
}

/// Loss prevented: the initialisation differs from what field units are sent.
#[test]
fn the_set_up_command_is_the_public_one() {
    let mut bench = Rig::new();
    let both = BTreeMap::from([(bay(1), note(20)), (bay(2), note(100))]);
    bench.command(DispenserCommand::Configure(both));
    bench.until(is_ready);
    let public = "10 02 00 11 60 02 0D 00 A6 92 A6 92 00 00 00 00 0D 0D 0D 0D 1C 10 03 DC B0";
    assert!(bench.writes.iter().any(|write| hex(write) == public), "{:?}", bench.writes);
}

/// Loss prevented: notes lying at the exit (of a payout before a crash) are pulled back by the
/// reset, uncounted.
#[test]
fn the_set_up_waits_for_notes_at_the_exit() {
    let mut bench = Rig::ready();
    bench.dispense(&[(1, 2)]);
    bench.restart_host();
    bench.command(DispenserCommand::Configure(two_bays()));
    bench.pass(30_000);
    let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else {
        panic!("{:?}", bench.events)
    };
    assert!(fault.detail.contains("notes lie at the exit"), "{fault:?}");
    let DispenseOutcome::NotStarted(_) = bench.dispense(&[(1, 2)]) else { panic!() };
    bench.events.clear();
    bench.act(&json!({"action": "take"}));
    bench.pass(3_000);
    assert!(
        matches!(
            bench.events.as_slice(),
            [DispenserEvent::Taken, DispenserEvent::Recovered, DispenserEvent::Ready { .. }]
        ),
        "{:?}",
        bench.events
    );
    // a second set-up, sent while the first still waits, takes its place
    bench.dispense(&[(1, 2)]);
    bench.restart_host();
    bench.command(DispenserCommand::Configure(two_bays()));
    bench.pass(5_000);
    bench.command(DispenserCommand::Configure(BTreeMap::from([(bay(2), note(50))])));
    bench.pass(5_000);
    bench.act(&json!({"action": "take"}));
    bench.pass(3_000);
    let Some(DispenserEvent::Ready { bays, .. }) = bench.events.last() else { panic!() };
    assert_eq!(bays.keys().copied().collect::<Vec<_>>(), [bay(2)]);
}

/// Loss prevented: a dispenser that has been switched off takes the customer's money first.
#[test]
fn a_silent_device_is_noticed_and_found_again() {
    let mut bench = Rig::new();
    bench.act(&json!({"action": "power_off"}));
    bench.configure();
    bench.configure();
    let silent = |event: &DispenserEvent| matches!(event, DispenserEvent::Fault(f) if f.kind == FaultKind::Silent);
    assert_eq!(bench.events.iter().filter(|e| silent(e)).count(), 2, "each set-up is answered");
    bench.pass(120_000);
    assert_eq!(bench.events.len(), 2, "and nothing is said twice by itself: {:?}", bench.events);
    bench.act(&json!({"action": "power_on"}));
    bench.pass(30_000);
    assert_eq!(bench.events.last(), Some(&DispenserEvent::Recovered));
    bench.configure();
    assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })));

    bench.events.clear();
    bench.act(&json!({"action": "power_off"}));
    bench.pass(30_000);
    assert!(matches!(bench.events.as_slice(), [event] if silent(event)), "{:?}", bench.events);
    let DispenseOutcome::NotStarted(_) = bench.dispense(&[(1, 1)]) else { panic!() };
}

/// Loss prevented: a lost port goes unseen, or a command is swallowed while it is lost.
#[test]
fn a_lost_line_is_told_once_and_commands_are_answered() {
    let mut bench = Rig::ready();
    for _ in 0..2 {
        let output = bench.engine.on_link_down("/dev/ttyJ7: no such device", bench.now);
        bench.apply(output);
    }
    let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else { panic!() };
    assert_eq!(fault.kind, FaultKind::LinkLost);
    assert!(fault.detail.contains("ttyJ7"));
    bench.configure();
    bench.command(DispenserCommand::Refresh);
    assert_eq!(bench.events.len(), 3);
    let DispenseOutcome::NotStarted(fault) = bench.dispense(&[(1, 1)]) else { panic!() };
    assert_eq!(fault.kind, FaultKind::LinkLost);
    bench.events.clear();
    let output = bench.engine.on_link_up(bench.now);
    bench.apply(output);
    assert_eq!(bench.events, [DispenserEvent::Recovered]);
    bench.configure();
    assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })));

    let mut engine = F56::<ByTest>::new(usd());
    let output = engine.on_link_down("permission denied", Mono(0));
    assert!(matches!(output.events.as_slice(), [DispenserEvent::Fault(_)]), "the first time too");
}

/// Loss prevented: noise on the line before the first frame keeps the dispenser out for good.
#[test]
fn noise_before_the_first_frame_does_not_matter() {
    for noise in ["10", "10 02", "10 02 01 00 60", "10 02 00 03 00 01 1C 10 03 00 00", "FF 10 10"] {
        let bytes: Vec<u8> = noise.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        let mut bench = Rig::new();
        bench.put(Way::ToHost, bytes.clone());
        bench.put(Way::ToDevice, bytes);
        bench.pass(10);
        bench.configure();
        assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{noise}");
    }
}

/// Loss prevented: a line that never falls silent makes the engine wait without end.
#[test]
fn unending_noise_ends_the_wait() {
    let mut bench = Rig::ready();
    bench.watch(6, Then::Act(json!({"action": "power_off"})));
    bench.start(&[(1, 1)]);
    bench.run_while(60_000, |bench| bench.writes.len() < 6);
    for _ in 0..4_000 {
        if !bench.outcomes().is_empty() {
            break;
        }
        bench.put(Way::ToHost, vec![0x10, 0x02, 0x00, 0x01, 0x55, 0x55]);
        bench.pass(50);
    }
    let outcomes = bench.outcomes();
    let [DispenseOutcome::Unknowable { .. }] = outcomes.as_slice() else { panic!("{outcomes:?}") };
}

/// Loss prevented: a log that shows bytes only, at the moment in which somebody must understand
/// what the device said.
#[test]
fn trace_records_are_in_words() {
    let words = |bytes: &[u8]| F56::<ByTest>::in_words(Direction::Received, bytes);
    assert_eq!(words(&ENQ), "DLE ENQ (10 05)");
    assert_eq!(words(&[0x10, 0x02, 0x00]), "part of a frame (10 02 00)");
    let frame = crate::frame::f56::encode(&Request::Status.payload());
    assert_eq!(
        words(&[&[0x10, 0x06][..], &frame].concat()),
        "DLE ACK (10 06), a frame of 3 bytes (00 01 1C)"
    );
}
