//! Every crash, on ID-003 units of every kind.

use bitspire_hardware::frame::id003::{Frame, Request};
use bitspire_hardware::sim::id003::Options;

use super::{Id003Line, World};
use crate::crash::{Case, Crash, Point, all_cases, power_goes_at_each_byte};

/// Loss prevented: a note taken without credit, or credited without being taken. With power
/// recovery everything is known, but for a host that was away for so long that the device has ended
/// the matter by itself: given back the note after 3 s without a poll, or fallen silent after a
/// minute without an ACK.
#[test]
fn with_power_recovery_every_note_is_known() {
    for (case, journal) in all_cases::<Id003Line>(Options::default()) {
        let Case { point, crash, down_ms, .. } = case;
        let given_back = matches!(point, Point::IntentDurable | Point::StackGiven);
        let silent = matches!(point, Point::Stacking | Point::CreditTold | Point::CreditSeen);
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
        let outcomes = all_cases::<Id003Line>(options);
        let unknown = outcomes.iter().filter(|(_, j)| j.unknown > 0).count();
        // such firmware does leave notes unknown: the report must exist
        if !options.power_recovery || !options.remembers {
            assert!(unknown > 0, "{options:?}");
        }
    }
}

/// Loss prevented: a half-said answer is taken for a word, or a credit that it cut off is lost.
#[test]
fn power_that_goes_at_any_byte_loses_no_note() {
    power_goes_at_each_byte::<Id003Line>(Options::default());
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
    world.late(&Frame::new(0x14, &[]).to_bytes());
    world.start_host();
    world.run(30_000);
    assert_eq!(world.times_said(Request::Stack2), 0);
    assert_eq!((world.cashbox(), world.count("returned")), (0, 1));
}
