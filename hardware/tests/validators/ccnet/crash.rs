//! Every crash, on CCNET units of every kind.

use bitspire_hardware::acceptor::AcceptorEvent::{Closed, Credit};
use bitspire_hardware::frame::ccnet::{Request, State};
use bitspire_hardware::sim::ccnet::Options;

use super::{CcnetLine, World};
use crate::crash::{all_cases, power_goes_at_each_byte};

/// Loss prevented: a note taken without credit, or credited without being taken. What became of a
/// note is said until it is confirmed, so every note is known, however long either side was away.
#[test]
fn every_note_is_known() {
    for (case, journal) in all_cases::<CcnetLine>(Options::default()) {
        assert_eq!(journal.unknown, 0, "{case:?}");
    }
}

/// Loss prevented: the same on firmware that tells no credit after a power loss, forgets over it, or
/// is strict, closes after each note and says things again unasked: unknown where it must be, never
/// wrong.
#[test]
fn on_other_firmware_nothing_is_credited_wrongly() {
    let plain = Options::default();
    for options in [
        Options { power_recovery: false, ..plain },
        Options { remembers: false, ..plain },
        Options { strict: true, closes_after_note: true, says_again: true, ..plain },
    ] {
        let outcomes = all_cases::<CcnetLine>(options);
        let unknown = outcomes.iter().filter(|(_, j)| j.unknown > 0).count();
        // such firmware does leave notes unknown: the report must exist
        let forgets = !options.power_recovery || !options.remembers;
        assert_eq!(unknown > 0, forgets, "{options:?}");
    }
}

/// Loss prevented: a half-said answer is taken for a word, or a credit that it cut off is lost.
#[test]
fn power_that_goes_at_any_byte_loses_no_note() {
    power_goes_at_each_byte::<CcnetLine>(Options::default());
}

/// Loss prevented: a note stacked that no intent of the journal is about, because the first answer
/// after a start told of the note before it.
#[test]
fn a_note_is_not_stacked_on_an_old_word() {
    let mut world = World::open(Options::default(), &[20]);
    world.escrow(20);
    world.kill_host(true);
    world.said.clear();
    world.late(&State::Stacking.frame().to_bytes());
    world.start_host();
    world.run(30_000);
    assert_eq!(world.times_said(Request::Stack), 0);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}

/// Loss prevented: the ACK of one answer is taken for that of BILL STACKED while the host asks for
/// the table that the credit's value needs: a host that dies then would leave a note without credit.
#[test]
fn the_table_is_asked_for_without_losing_the_credit() {
    let mut world = World::open(Options::default(), &[20]);
    let bill = world.escrow(20);
    world.stack(bill);
    world.until_status("BILL STACKED");
    for _ in 0..3 {
        world.kill_host(true);
        world.start_host();
        while world.take_event()
            != Some(Credit { escrowed: None, denomination: Some(bill.denomination) })
        {
            world.step();
        }
        assert!(world.status().starts_with("BILL STACKED"));
    }
    world.send(bitspire_hardware::acceptor::AcceptorCommand::AcknowledgeCredit);
    world.until(&Closed);
    assert_eq!((world.cashbox(), world.count("acknowledged")), (1, 1));
}
