//! Host killed, device power-cycled, or both, at each step between escrow and ACK. The agent here
//! keeps the journal that the port's documentation asks for; what it has credited is compared with
//! the simulator's physical notes.

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill, FaultKind};
use serde_json::json;

use crate::journal::Journal;
use crate::world::{Protocol, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Escrowed,
    IntentDurable,
    StackGiven,
    Stacking,
    /// The device says it, the host has not heard it.
    CreditTold,
    CreditSeen,
    CreditDurable,
    AckGiven,
    Confirmed,
}

const POINTS: [Point; 9] = [
    Point::Escrowed,
    Point::IntentDurable,
    Point::StackGiven,
    Point::Stacking,
    Point::CreditTold,
    Point::CreditSeen,
    Point::CreditDurable,
    Point::AckGiven,
    Point::Confirmed,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    Host,
    Device,
    Both,
}

/// Runs to the end of the point's moment.
fn run_to<P: Protocol>(world: &mut World<P>, journal: &mut Journal, point: Point) {
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
        Point::CreditTold => return world.until_status(P::CREDIT),
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
    if point == Point::Confirmed {
        world.until_not_status(P::CREDIT);
    }
}

/// The agent's part after the crash, until the device is well again.
fn recover<P: Protocol>(world: &mut World<P>, journal: &mut Journal, what: &str) {
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
pub(crate) struct Case<P: Protocol> {
    options: P::Options,
    pub(crate) point: Point,
    pub(crate) crash: Crash,
    /// The bytes under way are lost with the host.
    lost: bool,
    pub(crate) down_ms: u64,
}

impl<P: Protocol> Case<P> {
    fn run(self) -> Journal {
        let Self { options, point, crash, lost, down_ms } = self;
        let what = format!("{self:?}");
        let mut world = World::<P>::open(options, &[20]);
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

pub(crate) fn all_cases<P: Protocol>(options: P::Options) -> Vec<(Case<P>, Journal)> {
    let mut outcomes = Vec::new();
    for point in POINTS {
        for crash in [Crash::Host, Crash::Device, Crash::Both] {
            for lost in [true, false] {
                for down_ms in P::DOWN_MS {
                    let case = Case::<P> { options, point, crash, lost, down_ms };
                    outcomes.push((case, case.run()));
                }
            }
        }
    }
    assert_eq!(outcomes.len(), 162);
    outcomes
}

/// The device's power goes at each byte of what it says while a note comes in, and comes again: the
/// agent goes on where it was, and knows of the note.
pub(crate) fn power_goes_at_each_byte<P: Protocol>(options: P::Options) {
    for byte in 0..80 {
        let what = format!("byte {byte}");
        let mut world = World::<P>::open(options, &[20]);
        let mut journal = Journal::default();
        let bill = world.escrow(20);
        journal.intend();
        world.stack(bill);
        world.act(json!({"action": "power_off_at", "byte": byte}));
        while !world.status().starts_with("OFF") {
            world.step();
            while let Some(event) = world.take_event() {
                journal.on_event(&mut world, &event, &what);
            }
        }
        for event in world.during(1_000) {
            journal.on_event(&mut world, &event, &what);
        }
        world.act(json!({"action": "power_on"}));
        recover(&mut world, &mut journal, &what);
        journal.balance(&world, &what);
        assert_eq!((journal.unknown, journal.credits + journal.returns), (0, 1), "{what}");
    }
}
