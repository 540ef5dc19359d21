//! Frames to and from a Bill-to-Bill unit.

use super::unit::{Cassette, Cassettes, Command, Recovery, UnitState};
use super::*;
use crate::frame::hex;
use crate::frame::stream::testing::{self, bytes};

/// Public frames to a unit.
fn host_vectors() -> [(&'static str, Request<'static>); 6] {
    use Request as R;
    [
        ("02 01 06 33 62 34", R::Poll),
        ("02 01 06 66 4A 31", R::Unit(Command::PowerRecovery)),
        ("02 01 06 67 C3 20", R::Unit(Command::EmptyDispenser)),
        ("02 01 06 3B 2A B8", R::Unit(Command::CassetteStatus)),
        ("02 01 0A 3C 00 02 02 01 D4 89", R::Unit(Command::Dispense(&[[0, 2], [2, 1]]))),
        ("02 01 08 3D 02 0C C7 66", R::Unit(Command::Unload { cassette: 2, notes: 12 })),
    ]
}

fn frame(content: &[u8]) -> Frame {
    Frame::new(BILL_TO_BILL, content[0], &content[1..])
}

/// Loss prevented: a payout of other notes than were meant, or a unit that does not answer.
#[test]
fn public_vectors_of_a_unit_hold_in_both_directions() {
    for (text, request) in host_vectors() {
        let frames = testing::decode::<CcnetLayout>(&bytes(text));
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!((frames[0].address(), Request::parse(&frames[0])), (BILL_TO_BILL, request));
        assert_eq!(hex(&request.frame().with_address(BILL_TO_BILL).to_bytes()), text);
        testing::refuses_each_bit_error::<CcnetLayout>(text);
    }
    // a validator knows none of them but POLL
    for (_, request) in &host_vectors()[1..] {
        let to_validator = request.frame().with_address(VALIDATOR);
        assert_eq!(Request::parse(&to_validator), Request::Unknown { raw: &to_validator });
    }
}

/// Loss prevented: a state that is taken for another, and a payout that is called finished.
#[test]
fn states_of_a_unit_go_there_and_back() {
    use UnitState as U;
    let states = [
        (&[0x1d][..], U::Dispensing(None), "DISPENSING (1D)"),
        (&[0x1d, 0], U::Dispensing(Some(0)), "DISPENSING (1D)"),
        (&[0x1d, 1], U::Dispensing(Some(1)), "DISPENSING, notes wait at the exit (1D)"),
        (&[0x1e, 1], U::Unloading(Some(1)), "UNLOADING (1E)"),
        (&[0x1f], U::CustomReturning, "CUSTOM RETURNING (1F)"),
        (&[0x20], U::EscrowUnloading, "RECYCLING UNLOADING (20)"),
        (&[0x21], U::SettingType, "SETTING TYPE CASSETTE (21)"),
        (&[0x25], U::Dispensed(&[]), "DISPENSED (25)"),
        (
            &[0x25, 4, 2, 3, 1],
            U::Dispensed(&[[4, 2], [3, 1]]),
            "DISPENSED: 2 of type 4, 1 of type 3 (25)",
        ),
        (&[0x26, 12], U::Unloaded(Some(12)), "UNLOADED: 12 notes (26)"),
        (&[0x27], U::CustomReturned, "CUSTOM BILLS RETURNED (27)"),
        (&[0x28], U::InvalidNumber, "INVALID BILL NUMBER (28)"),
        (&[0x29], U::TypeSet, "SET TYPE CASSETTE (29)"),
    ];
    for (content, state, words) in states {
        let frame = frame(content);
        assert_eq!(UnitState::parse(content), Some(state), "{words}");
        assert_eq!((state.frame(), Reply::parse(&frame)), (frame, Reply::Unit(state)));
        assert_eq!(state.to_string(), words);
        // from a validator they mean nothing
        let other = frame.with_address(VALIDATOR);
        assert_eq!(Reply::parse(&other), Reply::Unknown { raw: &other });
    }
    for odd in [&[0x1d, 0, 0][..], &[0x25, 4], &[0x26, 1, 2], &[0x27, 0], &[0x21, 0], &[0x14]] {
        assert_eq!(UnitState::parse(odd), None, "{odd:02X?}");
    }
}

/// Loss prevented: a note that is credited by its destination; a failure that sends the technician
/// to a part that the unit does not have.
#[test]
fn what_a_validator_says_otherwise() {
    let of = |content: &[u8]| match Reply::parse(&frame(content)) {
        Reply::State(state) => state.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(of(&[0x81, 3, 0]), "BILL STACKED, type 3, in the drop cassette (81)");
    assert_eq!(of(&[0x81, 3, 2]), "BILL STACKED, type 3, in cassette 2 (81)");
    assert_eq!(of(&[0x12, 1]), "POWER UP, BILL IN THE UNIT's dispenser (12)");
    assert_eq!(
        of(&[0x47, 0xca]),
        "GENERIC FAILURE: notes that nobody took were drawn back (CA) (47)"
    );
    assert_eq!(of(&[0x48, 0x75]), "BILL-TO-BILL UNIT JAMMED: in the dispenser (75) (48)");
    // of old firmware: type and destination in one byte
    let packed = frame(&[0x81, 0x32]);
    assert_eq!(Reply::parse(&packed), Reply::Unknown { raw: &packed });
    let status = frame(&[0, 0, 15, 0, 0, 0, 0, 0, 6]);
    let Reply::UnitStatus { bills, secure, routed } = Reply::parse(&status) else { panic!() };
    assert!(bills.has(3) && !bills.has(4) && secure == Bills::NONE);
    assert!(routed.has(1) && routed.has(2) && !routed.has(0));
    assert_eq!(Reply::parse(&status).frame(), status);
}

/// Loss prevented: cassettes that are offered although they are out, or notes of another kind.
#[test]
fn cassettes_are_read() {
    let content = [0x84, 17, 0xc3, 100, 0x9f, 0, 0x1f, 0, 0x98, 2];
    let cassettes = Cassettes::parse(&content).unwrap();
    let cassette = |present, full, kind, notes| Cassette { present, full, kind, notes };
    let expected = [
        (1, cassette(true, false, 4, 17)),
        (2, cassette(true, true, 3, 100)),
        (3, cassette(true, false, unit::UNASSIGNED, 0)),
        (4, cassette(false, false, unit::UNASSIGNED, 0)),
        (5, cassette(true, false, unit::ESCROW_CASSETTE, 2)),
    ];
    assert_eq!(cassettes.iter().collect::<Vec<_>>(), expected);
    assert_eq!(cassettes.frame(), frame(&content));
    assert_eq!(
        cassettes.to_string(),
        "CASSETTES, 1: 17 of type 4, 2: 100 of type 3 (full), 3 keeps none, 4 is out, 5 is for \
         escrow, 2 notes"
    );
    // one could be ESCROW POSITION, which comes late
    for odd in [&[][..], &[0x80, 3], &[0x80, 3, 0x80], &[0; 34]] {
        assert_eq!(Cassettes::parse(odd), None, "{odd:02X?}");
    }
}

/// Loss prevented: the credit of a note that was under way as the power went.
#[test]
fn recoveries_go_there_and_back() {
    let all: [(&[u8], Recovery<'_>); 5] = [
        (&[0x00], Recovery::None),
        (&[0x17], Recovery::Packing(&[])),
        (&[0x17, 4, 0, 3, 2], Recovery::Packing(&[[4, 0], [3, 2]])),
        (&[0x3c, 0x84, 1], Recovery::Dispensing(&[[0x84, 1]])),
        (&[0x3d, 2, 12, 0x04, 0], Recovery::Unloading { cassette: 2, notes: 12, words: &[[4, 0]] }),
    ];
    for (content, recovery) in all {
        assert_eq!(Recovery::parse(content), Some(recovery));
        assert_eq!(recovery.frame(), frame(content));
    }
    for odd in [&[0x17, 4][..], &[0x3c, 1], &[0x3d, 2], &[0x14], &[]] {
        assert_eq!(Recovery::parse(odd), None, "{odd:02X?}");
    }
}

/// Loss prevented: a dump that a person cannot read.
#[test]
fn frames_of_a_unit_have_words() {
    let words = |command: Command<'_>| in_words(Direction::Sent, &command.frame().to_bytes());
    assert_eq!(words(Command::CassetteStatus), "RECYCLING CASSETTE STATUS");
    assert_eq!(words(Command::Dispense(&[[0, 2], [2, 1]])), "DISPENSE 2 of type 0, 1 of type 2");
    assert_eq!(words(Command::Unload { cassette: 2, notes: 12 }), "UNLOAD 12 notes of cassette 2");
    let set = |kind| Command::SetCassetteType { cassette: 1, kind };
    assert_eq!(words(set(4)), "SET CASSETTE TYPE: cassette 1 keeps type 4");
    assert_eq!(words(set(unit::UNASSIGNED)), "SET CASSETTE TYPE: cassette 1 keeps none");
    assert_eq!(words(Command::PowerRecovery), "POWER RECOVERY");
    assert_eq!(words(Command::EmptyDispenser), "EMPTY DISPENSER");
    assert_eq!(Command::parse(&[0x3c]), None, "a DISPENSE of nothing");
    assert_eq!(Command::parse(&[0x3c, 1]), None);
}
