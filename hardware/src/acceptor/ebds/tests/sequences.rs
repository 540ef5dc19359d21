//! Every legal sequence of the protocol.

use super::*;
use crate::acceptor::PowerUpBill;
use AcceptorEvent::{
    Accepting, CashboxRemoved, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered,
    Rejected, Returned, Stacked,
};

fn fault(event: AcceptorEvent) -> DeviceFault {
    match event {
        Fault(fault) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

/// Loss prevented: a device open for notes nobody wants, or without escrow, or with a policy that
/// loses values, from its first day.
#[test]
fn cold_start() {
    let plain = Options::default();
    for options in
        [plain, Options { long_inhibits: true, ..plain }, Options { closed_is_zero: true, ..plain }]
    {
        let mut world = World::new(options);
        let events = world.until(&Closed);
        let [PoweredUp(PowerUpBill::None), Identified { version, notes }, Closed] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(version, "SC8307-SIM 28625V205 SIM serial 00424242, model 54 revision 10");
        let values: Vec<u32> = notes.iter().map(|(d, _)| d.minor() / 100).collect();
        assert_eq!(values, [5, 10, 20, 50, 100, 200, 500]);

        world.accept(&[20, 50]);
        assert_eq!(world.next(), Accepting);
        let polls = world.said.iter().filter_map(|said| match Request::parse(said) {
            Request::Omnibus(own) => Some(own),
            _ => None,
        });
        for own in polls {
            assert!(own.escrow && own.extended && !own.interrupt, "{own:?}");
            assert_eq!(own.policy, PowerUpPolicy::B);
        }
        let inhibits = |long: bool| {
            world.times(|r| {
                matches!(r, Request::NoteInhibits(_, set, l) if l == long
                && set.contains(3) && set.contains(4) && !set.contains(2))
            })
        };
        assert!(inhibits(options.long_inhibits) > 0);
        world.accept(&[]);
        assert_eq!(world.next(), Closed);
    }
}

/// Loss prevented: units that say only an index, with and without a table to tell, take nothing or
/// take a 10 for a 20.
#[test]
fn units_without_reports_at_length() {
    let options = Options { extended: false, ..Options::default() };
    let mut world = World::open(options, &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination: Some(note(20)) });
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    // the device itself refuses what is not enabled
    world.act(json!({"action": "insert", "denomination": 50}));
    assert!(matches!(world.next(), Rejected { .. }));
    assert_eq!((world.cashbox(), world.count("rejected")), (1, 1));
}

/// Loss prevented: a repeated `stacked` credited twice; the device let go before the credit is
/// durable; a note that is counted at another value than in escrow.
#[test]
fn accept_credits_once_and_holds_the_toggle_until_told() {
    let plain = Options::default();
    for options in [
        plain,
        Options { says_value: false, ..plain },
        Options { reports_once: true, ..plain },
        Options { repeats: false, ..plain },
    ] {
        let mut world = World::open(options, &[20]);
        let bill = world.escrow(20);
        world.stack(bill);
        let denomination = options.says_value.then(|| note(20));
        assert_eq!(world.next(), Credit { escrowed: Some(bill), denomination }, "{options:?}");
        if options.repeats {
            assert_eq!(world.count("acknowledged"), 0);
            assert_eq!(world.during(20_000), [], "`stacked` is held");
            assert_eq!(world.count("acknowledged"), 0);
        }
        world.send(AcceptorCommand::AcknowledgeCredit);
        assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
        assert_eq!((world.cashbox(), world.count("acknowledged"), world.stacks()), (1, 1, 1));
        // the next note is another one
        let next = world.escrow(20);
        assert_ne!(next.serial, bill.serial);
    }
}

/// Loss prevented: a host that dies does not know the toggle; the one after it begins with 0, and
/// must meet the word `stacked` there.
#[test]
fn stacked_comes_under_toggle_0() {
    for ms in [300, 700, 1_200, 2_345] {
        let timing = Timing { stack: ms, ..Timing::default() };
        let mut world = World::new(Options::default());
        world.sim = Faulty::new(
            EbdsSim::new(EbdsSim::eur(), Options::default(), timing),
            0,
            FaultRates::default(),
            0,
        );
        let mut world = world.opened(&[20]);
        for _ in 0..3 {
            let bill = world.escrow(20);
            world.stack(bill);
            assert!(matches!(world.next(), Credit { .. }));
            assert!(!world.said.last().unwrap().toggle(), "{ms}");
            world.send(AcceptorCommand::AcknowledgeCredit);
            world.until(&Accepting);
        }
    }
}

/// Loss prevented: a note given back and credited as well.
#[test]
fn return_on_request() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.send(AcceptorCommand::Return);
    world.stack(bill);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    assert_eq!((world.cashbox(), world.count("returned"), world.stacks()), (0, 1, 0));
}

/// Loss prevented: a refused note shown as accepted; a suspected counterfeit taken.
#[test]
fn reject_before_escrow_and_by_class() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "reject_next"}));
    world.act(json!({"action": "insert", "denomination": 20}));
    assert!(matches!(world.next(), Rejected { reason } if reason.contains("REJECTED")));
    assert_eq!(world.next(), Accepting);
    // a denomination that is not enabled is refused by the device itself
    world.act(json!({"action": "insert", "denomination": 50}));
    assert!(matches!(world.next(), Rejected { .. }));
    assert_eq!(world.next(), Accepting);
    assert_eq!(world.count("rejected"), 2);
    for class in ["01", "02", "03", "07"] {
        world.act(json!({"action": "classify_next", "class": class}));
        world.act(json!({"action": "insert", "denomination": 20}));
        let Rejected { reason } = world.next() else { panic!("expected a refusal") };
        assert!(reason.contains(&format!("({class})")), "{reason}");
        assert_eq!(world.next(), Accepting);
    }
    assert_eq!((world.cashbox(), world.count("returned")), (0, 4));
}

/// Loss prevented: a note taken after the machine has stopped wanting it (limit reached).
#[test]
fn a_note_that_is_not_wanted_any_more_is_given_back() {
    let mut world = World::open(Options::default(), &[20, 50]);
    world.act(json!({"action": "insert", "denomination": 50}));
    world.run(1_050);
    world.accept(&[20]);
    assert_eq!(world.next(), Rejected { reason: "not enabled: 5000 minor units of EUR".into() });
    assert_eq!(world.until(&Accepting), [Accepting]);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: a note that goes back while the customer still reads the rate, or that stays in
/// escrow for ever, since the device has no limit of its own.
#[test]
fn escrow_lasts_ten_seconds_and_a_minute_with_hold() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    assert_eq!(world.during(9_500), []);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    // the proof comes too late, also when the next note is in escrow
    world.stack(bill);
    let next = world.escrow(20);
    world.stack(bill);
    world.send(AcceptorCommand::Hold);
    assert_eq!(world.during(40_000), []);
    assert_eq!(world.stacks(), 0);
    world.stack(next);
    assert!(matches!(world.next(), Credit { escrowed, .. } if escrowed == Some(next)));
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until(&Accepting);

    world.escrow(20);
    world.send(AcceptorCommand::Hold);
    assert_eq!(world.during(59_000), []);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    assert_eq!((world.cashbox(), world.count("returned")), (1, 2));
}

/// Loss prevented: a cashbox taken out without a trace; the blank `stacked` when it is put back
/// taken for a note.
#[test]
fn cashbox_out_and_in() {
    for stale_value in [false, true] {
        let mut world = World::open(Options { stale_value, ..Options::default() }, &[20]);
        world.act(json!({"action": "stacker_out"}));
        assert_eq!(world.next(), CashboxRemoved(true));
        assert_eq!(fault(world.next()).kind, FaultKind::Cassette);
        // as the vault does after a fault
        world.send(AcceptorCommand::Reset);
        assert_eq!(world.during(20_000), []);
        world.act(json!({"action": "collect"}));
        world.act(json!({"action": "stacker_in"}));
        assert_eq!(world.until(&Accepting), [CashboxRemoved(false), Recovered, Accepting]);
        assert_eq!(world.during(3_000), []);
    }
}

/// Loss prevented: a machine that looks well while nobody can use it, and one that stays out of
/// order after it has been put right.
#[test]
fn conditions_are_told_and_end() {
    for (action, kind, word) in [
        (json!({"action": "jam"}), FaultKind::Jam, "JAMMED"),
        (json!({"action": "cheat"}), FaultKind::Cheated, "CHEATED"),
    ] {
        let mut world = World::open(Options::default(), &[20]);
        world.act(action);
        let fault = fault(world.next());
        assert_eq!(fault.kind, kind);
        assert!(fault.detail.contains(word), "{fault:?}");
        assert_eq!(world.during(5_000), [], "told once");
        world.act(json!({"action": "clear"}));
        assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
    }
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "fail"}));
    let failure = fault(world.next());
    assert_eq!(failure.kind, FaultKind::ServiceNeeded);
    assert!(failure.detail.contains("FAILURE"), "{failure:?}");
    world.act(json!({"action": "clear"}));
    assert_eq!(world.during(5_000), [], "latched");
    world.send(AcceptorCommand::Reset);
    assert_eq!(world.until(&Accepting), [Recovered, Accepting], "our own reset is no power loss");
    assert_eq!(world.resets(), 1);
}

/// Loss prevented: a full cashbox that nobody empties.
#[test]
fn cashbox_full() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "stacker_full"}));
    let full = fault(world.next());
    assert_eq!(full.kind, FaultKind::Cassette);
    assert!(full.detail.contains("STACKER FULL"), "{full:?}");
    world.act(json!({"action": "stacker_out"}));
    assert_eq!(world.next(), CashboxRemoved(true));
    world.next();
    world.act(json!({"action": "collect"}));
    world.act(json!({"action": "stacker_in"}));
    assert_eq!(world.until(&Accepting), [CashboxRemoved(false), Recovered, Accepting]);
}

/// Loss prevented: a second note in the inlet takes the machine out of order at once, or never.
#[test]
fn pause_is_a_fault_only_when_it_lasts() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "pause"}));
    assert_eq!(world.during(5_000), []);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.during(2_000), []);
    world.act(json!({"action": "pause"}));
    assert_eq!(fault(world.next()).kind, FaultKind::Jam);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: words of newer firmware that crash the machine or pass for "fine".
#[test]
fn unknown_words_need_service_and_keep_their_bytes() {
    let mut world = World::open(Options::default(), &[20]);
    world.act(json!({"action": "status", "code": "77"}));
    let unknown = fault(world.next());
    assert_eq!(unknown.kind, FaultKind::ServiceNeeded);
    assert!(unknown.detail.contains("77"), "{unknown:?}");
    assert_eq!(world.during(5_000), []);
    world.act(json!({"action": "clear"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: a host that starts while the device is running must not lose the note in it, nor
/// take the earlier run's note for its own.
#[test]
fn a_note_met_in_escrow_at_start_is_given_back() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    world.kill_host(false);
    world.start_host();
    let events = world.until(&Closed);
    assert_eq!(events[..2], [PoweredUp(PowerUpBill::InAcceptor), Returned]);
    assert!(!events.iter().any(|e| matches!(e, Escrowed(_))));
    assert_eq!(world.count("returned"), 1);
}
