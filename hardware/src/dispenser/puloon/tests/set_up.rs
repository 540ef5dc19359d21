//! Setting up, polling, losing and finding the device.

use super::*;
use crate::engine::Parity;
use crate::frame::hex;

/// Loss prevented: a machine that talks past its dispenser since the line is set wrongly, which no
/// pseudo-terminal shows.
#[test]
fn lines_are_as_field_units_run() {
    for (model, parity) in [
        (Model::Lcdm4000, Parity::Even),
        (Model::Lcdm2000, Parity::None),
        (Model::Lcdm1000, Parity::None),
    ] {
        let expected = LineSettings { baud: 9_600, data_bits: 8, parity, stop_bits: 1 };
        assert_eq!(make(model)().line(), expected);
    }
    let settings =
        Settings { baud: 38_400, parity: Parity::None, ..Settings::new(Model::Lcdm4000, usd()) };
    let line = Puloon::<ByTest>::new(settings).line();
    assert_eq!((line.baud, line.parity), (38_400, Parity::None));
}

/// Loss prevented: a unit that answers a reset once or not at all is held for broken.
#[test]
fn a_reset_is_answered_not_at_all_once_or_twice() {
    for resets in 0..=2 {
        let mut bench = Rig::new(Model::Lcdm4000);
        bench.act(&json!({"action": "set", "resets": resets}));
        bench.configure();
        assert!(matches!(bench.events.as_slice(), [DispenserEvent::Ready { .. }]), "{resets}");
        let (bays, fault) = final_of(bench.dispense(&[(1, 2)]));
        assert_eq!((fault, numbers(&bays, 1)), (None, (2, Some(2), 2, Some(0))));
    }
}

/// Loss prevented: lengths that differ from what field units are sent, so that each note is rejected.
#[test]
fn the_lengths_are_the_published_ones() {
    let mut bench = Rig::new(Model::Lcdm4000);
    bench.configure();
    let sent: Vec<_> = bench.writes.iter().map(|write| hex(write)).collect();
    for public in
        ["04 30 02 44 03 71", "04 30 02 67 03 52", "04 30 02 5E 3C 36 3C 36 30 30 30 30 03 6B"]
    {
        assert!(sent.iter().any(|write| write == public), "{public}: {sent:?}");
    }
}

/// Loss prevented: a bay that the model does not have, or a note that it cannot measure, is set up as
/// something else.
#[test]
fn bays_that_cannot_be_set_up_are_refused() {
    for (model, bays, words) in [
        (Model::Lcdm4000, BTreeMap::from([(bay(1), note(25))]), "bay 1: expected a note"),
        (Model::Lcdm4000, BTreeMap::from([(bay(5), note(20))]), "expected bays 1 to 4, got bay 5"),
        (Model::Lcdm2000, BTreeMap::from([(bay(3), note(20))]), "expected bays 1 to 2, got bay 3"),
        (Model::Lcdm1000, two_bays(), "expected bays 1 to 1, got bay 2"),
        (Model::Lcdm1000, BTreeMap::new(), "at least one bay"),
    ] {
        let mut bench = Rig::new(model);
        bench.command(DispenserCommand::Configure(bays));
        let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else { panic!() };
        assert!(fault.detail.contains(words), "{fault:?}");
        assert!(bench.writes.is_empty());
    }
    // the smaller ones measure nothing that they are told
    let mut bench = Rig::new(Model::Lcdm2000);
    bench.bays = BTreeMap::from([(bay(1), note(25))]);
    bench.configure();
    assert!(matches!(bench.events.as_slice(), [DispenserEvent::Ready { .. }]));
}

/// Loss prevented: a bay without a cassette is offered to customers, or one that is missing keeps the
/// other from being used.
#[test]
fn a_missing_cassette_is_told_and_changes_are_noticed() {
    for model in [Model::Lcdm4000, Model::Lcdm2000] {
        let mut bench = Rig::new(model);
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
    }
}

/// Loss prevented: notes at the exit (of a payout before a crash) are pushed out or pulled back by
/// the purge, uncounted.
#[test]
fn the_set_up_waits_for_notes_at_the_exit() {
    for model in MODELS {
        let mut bench = Rig::ready(model);
        bench.dispense(&[(1, 2)]);
        bench.restart_host();
        bench.command(DispenserCommand::Configure(bench.bays.clone()));
        bench.pass(30_000);
        let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else {
            panic!("{:?}", bench.events)
        };
        assert!(fault.detail.contains("notes lie at the exit"), "{fault:?}");
        let DispenseOutcome::NotStarted(_) = bench.dispense(&[(1, 2)]) else { panic!() };
        bench.events.clear();
        bench.act(&json!({"action": "take"}));
        bench.until(is_ready);
        assert!(
            matches!(
                bench.events.as_slice(),
                [DispenserEvent::Taken, DispenserEvent::Recovered, DispenserEvent::Ready { .. }]
            ),
            "{:?}",
            bench.events
        );
    }
}

/// Loss prevented: a dispenser that has been switched off takes the customer's money first.
#[test]
fn a_silent_device_is_noticed_and_found_again() {
    for model in MODELS {
        let mut bench = Rig::new(model);
        bench.act(&json!({"action": "power_off"}));
        bench.configure();
        bench.configure();
        let silent = |event: &DispenserEvent| matches!(event, DispenserEvent::Fault(f) if f.kind == FaultKind::Silent);
        assert_eq!(bench.events.iter().filter(|e| silent(e)).count(), 2, "each set-up is answered");
        bench.pass(120_000);
        assert_eq!(bench.events.len(), 2, "nothing is said twice by itself: {:?}", bench.events);
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
}

/// Loss prevented: a lost port goes unseen, or a command is swallowed while it is lost.
#[test]
fn a_lost_line_is_told_once_and_commands_are_answered() {
    let mut bench = Rig::ready(Model::Lcdm2000);
    for _ in 0..2 {
        let output = bench.engine.on_link_down("/dev/ttyJ7: no such device", bench.now);
        bench.apply(output);
    }
    let [DispenserEvent::Fault(fault)] = bench.events.as_slice() else { panic!() };
    assert_eq!(fault.kind, FaultKind::LinkLost);
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
}

/// Loss prevented: noise on the line before the first frame keeps the dispenser out for good.
#[test]
fn noise_before_the_first_frame_does_not_matter() {
    for noise in ["01", "04", "01 30 02 52", "04 30", "01 50 02 46 30", "FF FF", "55 06 15 04"] {
        let bytes: Vec<u8> = noise.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        for model in MODELS {
            let mut bench = Rig::new(model);
            bench.put(Way::ToHost, bytes.clone());
            bench.put(Way::ToDevice, bytes.clone());
            bench.pass(10);
            bench.configure();
            assert!(matches!(bench.events.last(), Some(DispenserEvent::Ready { .. })), "{noise}");
        }
    }
}

/// Loss prevented: a device of the other family is taken for a broken one, and nobody learns why.
#[test]
fn the_wrong_model_is_seen_in_the_trace() {
    let mut sent = Vec::new();
    crate::frame::puloon::lcdm1000::Request::Status.frame().write(Side::Device, &mut sent);
    let words = Puloon::<ByTest>::in_words(Direction::Received, &sent);
    assert!(
        words.starts_with("a frame of id 50, command 46") || words.contains("damaged"),
        "{words}"
    );
    let words = |bytes: &[u8]| Puloon::<ByTest>::in_words(Direction::Received, bytes);
    assert_eq!(words(&[0x06, 0x04]), "ACK (06), EOT (04)");
    assert_eq!(words(&[0x01, 0x9c, 0x38]), "a note was rejected (9C 38)");
    assert_eq!(words(&[0x01, 0x30]), "part of a frame (01 30)");
}
