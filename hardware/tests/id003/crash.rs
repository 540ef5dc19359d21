//! Host killed, device power-cycled, or both, at each step between escrow and ACK. The agent here
//! keeps the journal that the port's documentation asks for; what it has credited is compared with
//! the simulator's physical notes.

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill, FaultKind};
use bitspire_hardware::frame::id003::{Frame, Request};
use bitspire_hardware::sim::id003::Options;
use serde_json::json;

use crate::journal::Journal;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Escrowed,
    IntentDurable,
    StackGiven,
    Stacking,
    VendValid,
    CreditSeen,
    CreditDurable,
    AckGiven,
    Stacked,
}

const POINTS: [Point; 9] = [
    Point::Escrowed,
    Point::IntentDurable,
    Point::StackGiven,
    Point::Stacking,
    Point::VendValid,
    Point::CreditSeen,
    Point::CreditDurable,
    Point::AckGiven,
    Point::Stacked,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    Host,
    Device,
    Both,
}

/// Runs to the end of the point's moment.
fn run_to(world: &mut World, journal: &mut Journal, point: Point) {
    let bill = world.escrow(20);
    if point == Point::Escrowed {
        return;
    }
    journal.intend();
    if point == Point::IntentDurable {
        return;
    }
    world.stack(bill);
    match point {
        Point::StackGiven => return,
        Point::Stacking => return world.until_status("STACKING"),
        Point::VendValid => return world.until_status("VEND VALID"),
        _ => {}
    }
    let AcceptorEvent::Credit { .. } = world.next() else { panic!("expected the credit") };
    if point == Point::CreditSeen {
        return;
    }
    journal.credit();
    if point == Point::CreditDurable {
        return;
    }
    world.send(AcceptorCommand::AcknowledgeCredit);
    if point == Point::Stacked {
        world.until_status("STACKED");
    }
}

/// The agent's part after the crash, until the device is well again.
fn recover(world: &mut World, journal: &mut Journal, what: &str) {
    for _ in 0..200 {
        let event = world.next();
        journal.on_event(world, &event, what);
        match event {
            AcceptorEvent::Accepting => return,
            // a minute behind an unacknowledged credit: only RESET is answered
            AcceptorEvent::Fault(fault) if fault.kind == FaultKind::Silent => {
                world.send(AcceptorCommand::Reset);
            }
            _ => {}
        }
    }
    panic!("the device does not come back: {what}");
}

#[derive(Clone, Copy, Debug)]
struct Case {
    options: Options,
    point: Point,
    crash: Crash,
    /// The bytes under way are lost with the host.
    lost: bool,
    down_ms: u64,
}

impl Case {
    fn run(self) -> Journal {
        let Self { options, point, crash, lost, down_ms } = self;
        let what = format!("{self:?}");
        let mut world = World::open(options, &[20]);
        let mut journal = Journal::default();
        run_to(&mut world, &mut journal, point);
        // what was told but not handled before the crash of a device alone is still to be handled
        if crash != Crash::Device {
            world.kill_host(lost);
        }
        if crash != Crash::Host {
            if !lost {
                world.run(12);
            }
            world.act(json!({"action": "power_off"}));
        }
        world.run(down_ms);
        if crash != Crash::Host {
            world.act(json!({"action": "power_on"}));
        }
        match crash {
            Crash::Device => {
                // the agent goes on where it was
                match point {
                    Point::CreditSeen => {
                        journal.credit();
                        world.send(AcceptorCommand::AcknowledgeCredit);
                    }
                    Point::CreditDurable => world.send(AcceptorCommand::AcknowledgeCredit),
                    _ => {}
                }
            }
            Crash::Host | Crash::Both => {
                world.start_host();
                world.accept(&[20]);
            }
        }
        recover(&mut world, &mut journal, &what);

        journal.balance(&world, &what);
        // and the machine goes on
        let bill: EscrowedBill = world.escrow(20);
        world.stack(bill);
        let credit = world.next();
        assert!(
            matches!(credit, AcceptorEvent::Credit { escrowed, .. } if escrowed == Some(bill)),
            "{what}: {credit:?}"
        );
        journal
    }
}

fn all_cases(options: Options) -> Vec<(Case, Journal)> {
    let mut outcomes = Vec::new();
    for point in POINTS {
        for crash in [Crash::Host, Crash::Device, Crash::Both] {
            for lost in [true, false] {
                for down_ms in [200, 5_000, 70_000] {
                    let case = Case { options, point, crash, lost, down_ms };
                    outcomes.push((case, case.run()));
                }
            }
        }
    }
    assert_eq!(outcomes.len(), 162);
    outcomes
}

/// Loss prevented: a note taken without credit, or credited without being taken. With power
/// recovery everything is known, but for a host that was away for so long that the device has ended
/// the matter by itself: given back the note after 3 s without a poll, or fallen silent after a
/// minute without an ACK.
#[test]
fn with_power_recovery_every_note_is_known() {
    for (case, journal) in all_cases(Options::default()) {
        let Case { point, crash, down_ms, .. } = case;
        let given_back = matches!(point, Point::IntentDurable | Point::StackGiven);
        let silent = matches!(point, Point::Stacking | Point::VendValid | Point::CreditSeen);
        let ended =
            (given_back && down_ms >= 5_000) || ((given_back || silent) && down_ms >= 70_000);
        assert!(journal.unknown == 0 || (crash == Crash::Host && ended), "{case:?}");
    }
}

/// Loss prevented: the same on firmware that says no denomination, has no power recovery, forgets
/// over a power loss, or takes settings only while it initialises: unknown where it must be, never
/// wrong.
#[test]
fn on_other_firmware_nothing_is_credited_wrongly() {
    let plain = Options::default();
    for options in [
        Options { says_note: false, ..plain },
        Options { power_recovery: false, ..plain },
        Options { remembers: false, ..plain },
        Options { strict: true, closes_after_note: true, ..plain },
    ] {
        let outcomes = all_cases(options);
        let unknown = outcomes.iter().filter(|(_, j)| j.unknown > 0).count();
        // such firmware does leave notes unknown: the report must exist
        if !options.power_recovery || !options.remembers {
            assert!(unknown > 0, "{options:?}");
        }
    }
}

/// Loss prevented: a note stacked that no intent of the journal is about, because the first answer
/// after a start told of the note before it.
#[test]
fn a_note_is_not_stacked_on_an_old_word() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    world.kill_host(true);
    world.said.clear();
    // 14: a note is being stacked
    world.late(&Frame::new(0x14, &[]));
    world.start_host();
    world.run(30_000);
    assert_eq!(world.times_said(Request::Stack2), 0);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}
