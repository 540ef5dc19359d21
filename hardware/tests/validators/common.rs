//! What every validator must do, whatever it speaks: sequences, power losses, broken lines and lost
//! words, at every step of a note.

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, CashboxRemoved, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered,
    Rejected, Returned, Stacked,
};
use bitspire_hardware::acceptor::{
    AcceptorCommand, AcceptorEvent, DeviceFault, FaultKind, PowerUpBill,
};
use serde_json::json;

use crate::world::{Protocol, World, note};

macro_rules! tests {
    ($protocol:ty) => {
        $crate::common::tests!($protocol:
            return_on_request
            a_note_that_is_not_wanted_any_more_is_given_back
            hold_keeps_the_note_for_a_minute
            escrow_times_out
            cashbox_out_and_in
            reject_before_escrow
            cashbox_full
            a_note_met_in_escrow_at_start_is_given_back
            power_up_with_a_note_in_the_acceptor
            power_up_with_a_note_in_the_stacker_brings_its_credit
            a_stacked_note_without_a_credit_is_unknown
            a_note_out_of_sight_is_not_called_returned
            a_reset_to_a_silent_device_gives_no_note_back
            a_credited_note_stays_credited_while_nobody_can_look
            a_note_left_in_the_inlet_is_a_fault_until_it_is_taken
            a_device_that_was_silent_for_a_while_is_well_again
            bad_frames_are_asked_again_in_silence
            a_late_currency_table_is_waited_for
            a_lost_reply_to_stack_is_looked_up_not_repeated
            a_lost_stack_is_said_again_while_the_note_still_waits
            a_lost_ack_is_said_again_without_a_second_credit
            a_lost_link_keeps_the_note_and_its_credit);
    };
    ($protocol:ty: $($test:ident)*) => {
        $(#[test] fn $test() { $crate::common::$test::<$protocol>() })*
    };
}
pub(crate) use tests;

pub(crate) fn fault(event: AcceptorEvent) -> DeviceFault {
    match event {
        Fault(fault) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

fn power_cycle<P: Protocol>(world: &mut World<P>) {
    world.act(json!({"action": "power_off"}));
    world.run(700);
    world.act(json!({"action": "power_on"}));
}

/// Loss prevented: a note given back and credited as well.
pub(crate) fn return_on_request<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.send(AcceptorCommand::Return);
    world.stack(bill);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
    assert_eq!(world.times(&P::stack()), 0);
}

/// Loss prevented: a note taken after the machine has stopped wanting it (limit reached).
pub(crate) fn a_note_that_is_not_wanted_any_more_is_given_back<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20, 50]);
    world.act(json!({"action": "insert", "denomination": 50}));
    world.run(300);
    world.accept(&[20]);
    assert_eq!(world.next(), Rejected { reason: "not enabled: 5000 minor units of EUR".into() });
    assert_eq!(world.until(&Accepting), [Accepting]);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: a note that goes back while the customer still reads the rate, or that stays in
/// escrow for ever.
pub(crate) fn hold_keeps_the_note_for_a_minute<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.send(AcceptorCommand::Hold);
    assert_eq!(world.during(40_000), []);
    assert!((7..=9).contains(&world.times(&P::hold())));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until(&Accepting);

    world.escrow(20);
    world.send(AcceptorCommand::Hold);
    assert_eq!(world.during(60_000), []);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    assert_eq!((world.cashbox(), world.count("returned")), (1, 1));
}

/// Loss prevented: a note that the device gives back by itself, still counted as in escrow.
pub(crate) fn escrow_times_out<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    assert_eq!(world.until(&Accepting), [Returned, Accepting]);
    // the proof comes too late, also when the next note is in escrow
    world.stack(bill);
    let next = world.escrow(20);
    world.stack(bill);
    assert_eq!(world.during(3_000), []);
    assert_eq!(world.times(&P::stack()), 0);
    world.stack(next);
    assert!(matches!(world.next(), Credit { escrowed, .. } if escrowed == Some(next)));
}

/// Loss prevented: a cashbox taken out without a trace.
pub(crate) fn cashbox_out_and_in<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "stacker_out"}));
    assert_eq!(world.next(), CashboxRemoved(true));
    assert_eq!(fault(world.next()).kind, FaultKind::Cassette);
    world.act(json!({"action": "collect"}));
    world.act(json!({"action": "stacker_in"}));
    assert_eq!(world.until(&Accepting), [CashboxRemoved(false), Recovered, Accepting]);
}

/// Loss prevented: a refused note shown as accepted.
pub(crate) fn reject_before_escrow<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "reject_next", "reason": P::REJECT.0}));
    world.act(json!({"action": "insert", "denomination": 20}));
    assert_eq!(world.next(), Rejected { reason: P::REJECT.1.to_owned() });
    assert_eq!(world.next(), Accepting);
    // a denomination that is not enabled is refused by the device itself
    world.act(json!({"action": "insert", "denomination": 50}));
    assert!(matches!(world.next(), Rejected { reason } if reason.contains(P::INHIBITED)));
    assert_eq!(world.next(), Accepting);
    assert_eq!(world.count("rejected"), 2);
}

/// Loss prevented: a full cashbox that nobody empties.
pub(crate) fn cashbox_full<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "stacker_full"}));
    let full = fault(world.next());
    assert_eq!((full.kind, full.detail.as_str()), (FaultKind::Cassette, P::FULL));
    world.act(json!({"action": "stacker_out"}));
    assert_eq!(world.next(), CashboxRemoved(true));
    world.next();
    world.act(json!({"action": "collect"}));
    world.act(json!({"action": "stacker_in"}));
    assert_eq!(world.until(&Accepting), [CashboxRemoved(false), Recovered, Accepting]);
}

/// Loss prevented: a host that starts while the device is running must not lose the note in it, nor
/// take the earlier run's note for its own.
pub(crate) fn a_note_met_in_escrow_at_start_is_given_back<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.escrow(20);
    world.kill_host(false);
    world.start_host();
    let events = world.until(&Closed);
    assert_eq!(events[..2], [PoweredUp(PowerUpBill::InAcceptor), Returned]);
    assert!(!events.iter().any(|e| matches!(e, Escrowed(_))));
    assert_eq!(world.count("returned"), 1);
}
/// Loss prevented: "unknown code 41" crashed a known host at each power-up with a note inside.
pub(crate) fn power_up_with_a_note_in_the_acceptor<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.escrow(20);
    power_cycle(&mut world);
    let events = world.until(&Accepting);
    assert_eq!(events[0], PoweredUp(PowerUpBill::InAcceptor));
    assert!(events.contains(&Returned) && !events.iter().any(|e| matches!(e, Credit { .. })));
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: power lost while stacking: the credit comes back during start-up, with power
/// recovery set, whatever the host was doing.
pub(crate) fn power_up_with_a_note_in_the_stacker_brings_its_credit<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    world.act(json!({"action": "power_off"}));
    world.kill_host(true);
    world.act(json!({"action": "power_on"}));
    world.start_host();
    assert_eq!(world.next(), PoweredUp(PowerUpBill::InStacker));
    let events = world.until(&Credit { escrowed: None, denomination: Some(note(20)) });
    assert!(!events.contains(&Closed), "the credit comes before the device is called well");
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.until(&Closed);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}

/// Loss prevented: firmware without power recovery gives no credit: the note must be reported as
/// unknown, never dropped and never invented.
pub(crate) fn a_stacked_note_without_a_credit_is_unknown<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "set", "option": "power_recovery", "on": false}));
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    power_cycle(&mut world);
    let events = world.until(&Accepting);
    assert_eq!(events[0], PoweredUp(PowerUpBill::InStacker));
    let unknown =
        |e: &&_| matches!(e, Fault(f) if f.detail.contains("does not tell where 2000 minor"));
    assert_eq!(events.iter().filter(unknown).count(), 1, "{events:?}");
    assert!(!events.iter().any(|e| matches!(e, Credit { .. } | Returned)));
    assert_eq!(events[events.len() - 2], Recovered);
}

/// Loss prevented: a note that a technician pulled out of a jam, or that a device without memory
/// came up without, told as given back to the customer.
pub(crate) fn a_note_out_of_sight_is_not_called_returned<P: Protocol>() {
    for jam in [true, false] {
        let mut world = World::<P>::open(P::Options::default(), &[20]);
        world.act(json!({"action": "set", "option": "remembers", "on": jam}));
        world.escrow(20);
        if jam {
            world.act(json!({"action": "jam", "where": "acceptor"}));
            assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Jam));
            world.act(json!({"action": "clear"}));
            world.send(AcceptorCommand::Reset);
        } else {
            power_cycle(&mut world);
        }
        let events = world.until(&Accepting);
        let unknown = |e: &&_| matches!(e, Fault(f) if f.detail.contains("does not tell where"));
        assert_eq!(events.iter().filter(unknown).count(), 1, "{events:?}");
        assert!(!events.contains(&Returned), "{events:?}");
    }
}

/// Loss prevented: RESET, said to a device that has lost its power since its note was seen in
/// escrow, is taken for what gave the note back, which lies in the cashbox.
pub(crate) fn a_reset_to_a_silent_device_gives_no_note_back<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "set", "option": "power_recovery", "on": false}));
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("STACKING");
    world.act(json!({"action": "power_off"}));
    assert_eq!(fault(world.next()).kind, FaultKind::Silent);
    world.send(AcceptorCommand::Reset);
    world.run(3_000);
    world.act(json!({"action": "power_on"}));
    let events = world.until(&Accepting);
    assert!(!events.contains(&Returned), "{events:?}");
    let unknown = |e: &_| matches!(e, Fault(f) if f.detail.contains("does not tell where"));
    assert!(events.iter().any(unknown), "{events:?}");
    assert_eq!((world.cashbox(), world.count("returned")), (1, 0));
}

/// Loss prevented: a customer's credit taken back, because the line was dead while the note went into
/// the cashbox and the next one came into escrow, which is then given back.
pub(crate) fn a_credited_note_stays_credited_while_nobody_can_look<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until(&Credit { escrowed: Some(bill), denomination: Some(bill.denomination) });
    world.send(AcceptorCommand::AcknowledgeCredit);
    world.run(200);
    world.act(json!({"action": "silence", "replies": 1_000}));
    world.run(1_600);
    world.act(json!({"action": "insert", "denomination": 20}));
    world.run(2_400);
    world.act(json!({"action": "silence", "replies": 0}));
    world.run(15_000);
    let events: Vec<_> = std::iter::from_fn(|| world.take_event()).collect();
    assert!(!events.contains(&Returned), "{events:?}");
    assert_eq!((world.cashbox(), world.count("returned")), (1, 1), "{events:?}");
}

/// Loss prevented: a timer for stuck states that never fires leaves a dead machine in service.
pub(crate) fn a_note_left_in_the_inlet_is_a_fault_until_it_is_taken<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "leave"}));
    world.act(json!({"action": "reject_next", "reason": P::REJECT.0}));
    world.act(json!({"action": "insert", "denomination": 20}));
    assert!(matches!(world.next(), Rejected { .. }));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Jam));
    world.act(json!({"action": "take"}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: a machine that takes no notes any more because its validator was out of breath
/// once, between two customers.
pub(crate) fn a_device_that_was_silent_for_a_while_is_well_again<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "silence", "replies": 200}));
    assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::Silent));
    world.act(json!({"action": "silence", "replies": 0}));
    assert_eq!(world.until(&Accepting), [Recovered, Accepting]);
}

/// Loss prevented: one bad check sum put a known host out of service.
pub(crate) fn bad_frames_are_asked_again_in_silence<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    world.act(json!({"action": "damage", "replies": 3}));
    assert_eq!(world.during(5_000), []);
    let bill = world.escrow(20);
    world.act(json!({"action": "damage", "replies": 1}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.act(json!({"action": "damage", "replies": 2}));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((world.cashbox(), world.times(&P::stack())), (1, 1));
}

/// Loss prevented: the currency table had to come within 5 s or the start failed.
pub(crate) fn a_late_currency_table_is_waited_for<P: Protocol>() {
    let mut world = World::<P>::new(P::Options::default());
    world.accept(&[20]);
    while world.times(&P::table()) == 0 {
        world.step();
    }
    world.act(json!({"action": "deaf", "frames": 8}));
    let events = world.until(&Accepting);
    assert!(events.iter().any(|e| matches!(e, Identified { notes, .. } if notes.len() == 7)));
}

/// Loss prevented: a STACK whose reply was lost, sent again, could stack the next note.
pub(crate) fn a_lost_reply_to_stack_is_looked_up_not_repeated<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.act(json!({"action": "silence", "replies": 2}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    assert_eq!(world.times(&P::stack()), 1);
}

/// Loss prevented: a STACK that never reached the device leaves the customer without note and
/// credit.
pub(crate) fn a_lost_stack_is_said_again_while_the_note_still_waits<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.run(50);
    world.act(json!({"action": "deaf", "frames": 2}));
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    assert!(world.times(&P::stack()) <= 3);
    assert_eq!(world.cashbox(), 1);
}

/// Loss prevented: a lost ACK leaves the device waiting until it answers no more.
pub(crate) fn a_lost_ack_is_said_again_without_a_second_credit<P: Protocol>() {
    let mut world = World::<P>::open(P::Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    assert!(matches!(world.next(), Credit { .. }));
    world.run(50);
    world.act(json!({"action": "deaf", "frames": 4}));
    world.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(world.until(&Accepting), [Stacked, Accepting]);
    assert_eq!(world.count("acknowledged"), 1);
}

/// Loss prevented: a pulled cable at each step of a note must neither double nor lose its credit.
pub(crate) fn a_lost_link_keeps_the_note_and_its_credit<P: Protocol>() {
    for at in ["ESCROW", "STACKING", P::CREDIT] {
        let mut world = World::<P>::open(P::Options::default(), &[20]);
        let bill = world.escrow(20);
        if at != "ESCROW" {
            world.stack(bill);
        }
        world.until_status(at);
        let before = world.during(0);
        world.link(false);
        assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::LinkLost));
        world.stack(bill);
        assert!(matches!(world.next(), Fault(f) if f.kind == FaultKind::LinkLost), "refused");
        world.run(1_000);
        world.link(true);
        let mut events = before;
        loop {
            let event = world.next();
            events.push(event.clone());
            match event {
                Credit { escrowed, .. } => {
                    assert_eq!(escrowed, Some(bill));
                    world.send(AcceptorCommand::AcknowledgeCredit);
                }
                Accepting => break,
                _ => {}
            }
        }
        let credits = events.iter().filter(|e| matches!(e, Credit { .. })).count();
        let returns = events.iter().filter(|e| **e == Returned).count();
        let expected = if at == "ESCROW" { (0, 1) } else { (1, 0) };
        assert_eq!((credits, returns), expected, "{at}: {events:?}");
        assert_eq!(world.cashbox() as usize, credits);
        assert_eq!(world.times(&P::stack()), credits);
    }
}
