use proptest::prelude::*;

use super::*;
use crate::frame::hex;
use crate::frame::kermit::MAX_DATA;
use crate::frame::stream::testing::{self, bytes};

fn bills(kinds: &[u8]) -> Bills {
    kinds.iter().copied().collect()
}

/// Public frames with what the host means by them.
fn host_vectors() -> Vec<(&'static str, Request<'static>)> {
    use Request as R;
    let low_four = bills(&[0, 1, 2, 3]);
    vec![
        ("02 03 06 33 DA 81", R::Poll),
        ("02 03 06 30 41 B3", R::Reset),
        ("02 03 06 00 C2 82", R::Ack),
        ("02 03 06 FF BA 8D", R::Nak),
        ("02 03 06 41 4F D1", R::GetBillTable),
        ("02 03 06 35 EC E4", R::Stack),
        ("02 03 06 36 77 D6", R::Return),
        ("02 03 06 38 09 3F", R::Hold),
        ("02 03 06 31 C8 A2", R::GetStatus),
        ("02 03 0C 34 00 00 0F 00 00 0F 19 46", R::Enable { bills: low_four, escrow: low_four }),
    ]
}

/// Public frames with what the device means by them.
fn device_vectors() -> Vec<(&'static str, Reply<'static>)> {
    use Reply as R;
    use State as S;
    vec![
        ("02 03 06 00 C2 82", R::Ack),
        ("02 03 06 FF BA 8D", R::Nak),
        ("02 03 06 30 41 B3", R::Illegal),
        ("02 03 06 10 43 92", R::State(S::PowerUp)),
        ("02 03 06 11 CA 83", R::State(S::PowerUpBillInValidator)),
        ("02 03 06 12 51 B1", R::State(S::PowerUpBillInStacker)),
        ("02 03 06 13 D8 A0", R::State(S::Initialize)),
        ("02 03 06 15 EE C5", R::State(S::Accepting)),
        ("02 03 06 17 FC E6", R::State(S::Stacking)),
        ("02 03 06 19 82 0F", R::State(S::Disabled)),
        ("02 03 07 80 03 17 01", R::State(S::Escrow(3))),
        ("02 03 07 81 03 CF 18", R::State(S::Stacked(3))),
        ("02 03 07 82 02 2E 23", R::State(S::Returned(2))),
        ("02 03 07 1C 60 77 E0", R::State(S::Rejecting(RejectReason::Insertion))),
        ("02 03 06 42 D4 E3", R::State(S::CassetteOut)),
        ("02 03 06 43 5D F2", R::State(S::ValidatorJammed)),
        ("02 03 06 45 6B 97", R::State(S::Cheated)),
        ("02 03 07 47 50 AB E6", R::State(S::Failure(FailureCode::StackMotor))),
    ]
}

fn decode(bytes: &[u8]) -> Vec<Frame> {
    testing::decode::<CcnetLayout>(bytes)
}

/// Loss prevented: a frame that we read or write other than real units do is a validator that does
/// not answer, or worse, one that does something else.
#[test]
fn public_vectors_hold_in_both_directions() {
    for (text, request) in host_vectors() {
        let frames = decode(&bytes(text));
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!(Request::parse(&frames[0]), request, "{text}");
        assert_eq!(hex(&request.frame().to_bytes()), text);
    }
    for (text, reply) in device_vectors() {
        let frames = decode(&bytes(text));
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!(Reply::parse(&frames[0]), reply, "{text}");
        assert_eq!(hex(&reply.frame().to_bytes()), text);
    }
}

/// A table as a unit on the market gives it (its rows are public): dollars, euros, manats.
fn table() -> Frame {
    let row = |digits, country: &[u8; 3], exponent| {
        let [a, b, c] = *country;
        [digits, a, b, c, exponent]
    };
    let empty = row(0, b"   ", 0);
    let mut rows = vec![
        row(1, b"USA", 0),
        row(2, b"USA", 0),
        row(5, b"USA", 0),
        row(1, b"USA", 1),
        row(2, b"USA", 1),
        row(5, b"USA", 1),
        row(1, b"USA", 2),
        empty,
        row(5, b"EUR", 0),
        row(5, b"EUR", 2),
        row(1, b"AZE", 0),
        row(50, b"AZE", 0x81),
    ];
    rows.resize(24, empty);
    let content = rows.as_flattened();
    Frame::new(VALIDATOR, content[0], &content[1..])
}

/// Loss prevented: a table read wrongly credits a 10 as a 1.
#[test]
fn a_bill_table_is_read() {
    let frame = table();
    let Reply::BillTable(read) = Reply::parse(&frame) else { panic!("{frame}") };
    let notes: Vec<_> = read
        .slots()
        .filter_map(|slot| slot.note().map(|(d, c)| (slot.kind, d.minor(), c.code())))
        .collect();
    let expected = [
        (0, 100, "USD"),
        (1, 200, "USD"),
        (2, 500, "USD"),
        (3, 1_000, "USD"),
        (4, 2_000, "USD"),
        (5, 5_000, "USD"),
        (6, 10_000, "USD"),
        (8, 500, "EUR"),
        (9, 50_000, "EUR"),
        (10, 100, "AZN"),
        // fifty with one digit after the point
        (11, 500, "AZN"),
    ];
    assert_eq!(notes, expected.map(|(kind, minor, code)| (kind, minor, code.to_owned())));
    assert_eq!(Reply::BillTable(read).frame(), frame);

    let slot = |digits, country, exponent| BillSlot { kind: 0, digits, country, exponent };
    assert_eq!(slot(5, *b"XYZ", 0).note(), None, "unknown country");
    assert_eq!(slot(5, *b"USA", 100).note(), None, "absurd exponent");
    assert_eq!(slot(5, *b"USA", 0x83).note(), None, "less than the smallest unit");
    assert_eq!(slot(5, *b"USA", 0x82).note().unwrap().0.minor(), 5);
}

/// Loss prevented: an inlet opened for the notes of another type.
#[test]
fn bill_types_are_bits_from_the_last_byte_on() {
    assert_eq!(bills(&[0, 8, 23]).to_bytes(), [0x80, 0x01, 0x01]);
    assert_eq!(bills(&[24, 200]), Bills::NONE);
    let some = bills(&[3, 22]);
    assert!(some.has(3) && some.has(22) && !some.has(2) && !some.has(24) && !some.has(255));
    assert_eq!(Bills::from_bytes(some.to_bytes()), some);
}

/// Loss prevented: a report that names no unit, or a terminal that is fed control characters.
#[test]
fn an_identity_is_printable() {
    let content = b"SM-EU1353      21KC01002345\x00\x01\x02\x03\x04\x05\x06";
    let frame = Frame::new(VALIDATOR, content[0], &content[1..]);
    let Reply::Identity(identity) = Reply::parse(&frame) else { panic!("{frame}") };
    assert_eq!(identity.text(), "SM-EU1353 21KC01002345");
    assert_eq!(Reply::Identity(identity).frame(), frame);
    let frame = Frame::new(VALIDATOR, 0x1b, &[0xff; 33]);
    let Reply::Identity(identity) = Reply::parse(&frame) else { panic!("{frame}") };
    assert_eq!(identity.text(), "");
}

/// Loss prevented: one bit of noise that turns a return into a stack.
#[test]
fn every_single_bit_error_of_every_vector_is_refused() {
    let table = hex(&table().to_bytes());
    let all = host_vectors().into_iter().map(|(t, _)| t);
    let all = all.chain(device_vectors().into_iter().map(|(t, _)| t));
    for text in all.chain([table.as_str()]) {
        testing::refuses_each_bit_error::<CcnetLayout>(text);
    }
}

/// Loss prevented: a code that is unknown, or known with data that does not fit, must reach a
/// person as it came; a word of another peripheral on the bus is none of the validator's.
#[test]
fn unknown_codes_keep_their_bytes() {
    let odd: [&[u8]; 6] = [&[0x77, 1, 2], &[0x80], &[0x81, 3, 1], &[0x1c], &[0x14, 0], &[0x16]];
    let odd = odd.map(|content| Frame::new(VALIDATOR, content[0], &content[1..]));
    for frame in odd.into_iter().chain([Frame::new(0x02, 0x14, &[])]) {
        assert_eq!(Reply::parse(&frame), Reply::Unknown { raw: &frame });
        assert_eq!(Reply::parse(&frame).frame(), frame);
        assert_eq!(Request::parse(&frame), Request::Unknown { raw: &frame });
        assert_eq!(Request::parse(&frame).frame(), frame);
    }
    assert_eq!(Frame::new(VALIDATOR, 0x77, &[1, 0xa2]).to_string(), "77 01 A2");
    assert_eq!(Frame::new(BILL_TO_BILL, 0x25, &[]).to_string(), "[01] 25");
}

/// Loss prevented: a frame type that encodes other than it decodes works against our own simulator
/// only.
#[test]
fn every_state_and_command_goes_there_and_back() {
    for op in 0..=255u8 {
        for rest in [&[][..], &[0], &[0x60], &[1, 2, 3], &[0, 0, 15, 0, 0, 15], &[0; 5]] {
            let frame = Frame::new(VALIDATOR, op, rest);
            assert_eq!(Request::parse(&frame).frame(), frame, "{op:02X} {rest:?}");
            assert_eq!(Reply::parse(&frame).frame(), frame, "{op:02X} {rest:?}");
        }
    }
}

/// Loss prevented: a dump that a person cannot read.
#[test]
fn frames_have_words() {
    let reset = bytes("02 03 06 30 41 B3");
    assert_eq!(in_words(Direction::Sent, &reset), "RESET");
    assert_eq!(in_words(Direction::Received, &reset), "ILLEGAL COMMAND (30)");
    let two = bytes("02 03 06 00 C2 82 02 03 07 80 03 17 01 02 03");
    assert_eq!(
        in_words(Direction::Received, &two),
        "ACK; ESCROW POSITION, type 3 (80) (no whole frame)"
    );
    let enable = bytes("02 03 0C 34 00 00 0F 00 00 0F 19 46");
    assert_eq!(in_words(Direction::Sent, &enable), "ENABLE BILL TYPES 00000F, escrow 00000F");
}

proptest! {
    /// Loss prevented: bytes of a broken or hostile device that stop or swell the machine.
    #[test]
    fn arbitrary_bytes_do_no_harm(noise in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let mut decoder = Decoder::default();
        let mut rest = noise.as_slice();
        while let Some(frame) = decoder.push(&mut rest) {
            let _ = (Reply::parse(&frame).to_string(), Request::parse(&frame).to_string());
        }
        prop_assert!(rest.is_empty() && decoder.pending() < MAX_FRAME);
    }

    /// Loss prevented: what a broken device says in a whole frame stops the machine.
    #[test]
    fn arbitrary_content_does_no_harm(
        address in 0u8..6,
        first in any::<u8>(),
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let frame = Frame::new(address, first, &rest);
        prop_assert!(frame.content().len() <= MAX_DATA);
        let reply = Reply::parse(&frame);
        prop_assert_eq!(reply.frame().with_address(address), frame);
        prop_assert_eq!(Request::parse(&frame).frame().with_address(address), frame);
        let _ = (reply.to_string(), Request::parse(&frame).to_string());
        if let Reply::BillTable(table) = reply {
            let _ = table.slots().filter_map(|slot| slot.note()).count();
        }
    }

    /// Loss prevented: a frame lost because it came in pieces, or glued to the one before it.
    #[test]
    fn any_split_gives_the_same_frames(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..=249)), 1..5),
        cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let frames: Vec<Frame> =
            frames.iter().map(|(op, data)| Frame::new(VALIDATOR, *op, data)).collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let got = testing::in_pieces::<CcnetLayout>(&stream, &cuts);
        prop_assert_eq!(got, frames);
    }

    /// Loss prevented: noise before an answer that swallows the answer, and the one after it.
    #[test]
    fn a_frame_after_garbage_is_found_within_one_frame(
        noise in proptest::collection::vec(prop_oneof![Just(0x02u8), Just(0x03), any::<u8>()], 0..100),
    ) {
        prop_assert!(testing::is_found_behind::<CcnetLayout>(noise, &State::Idling.frame().to_bytes()));
    }

    /// Loss prevented: a damaged byte in a setting that opens the inlet for other notes.
    #[test]
    fn a_single_bit_error_behind_the_length_is_refused(
        op in any::<u8>(),
        data in proptest::collection::vec(any::<u8>(), 0..=249),
        at in any::<proptest::sample::Index>(),
        bit in 0u32..8,
    ) {
        let good = Frame::new(VALIDATOR, op, &data);
        let mut bytes = good.to_bytes();
        let at = 3 + at.index(bytes.len() - 3);
        bytes[at] ^= 1 << bit;
        prop_assert!(CcnetLayout::checked(&bytes).is_none());
    }
}
