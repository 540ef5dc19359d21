use proptest::prelude::*;

use super::*;
use crate::frame::hex;
use crate::frame::stream::testing::{self, bytes};

/// Public frames with what the host means by them.
fn host_vectors() -> Vec<(&'static str, Request<'static>)> {
    use Request as R;
    vec![
        ("FC 05 11 27 56", R::StatusRequest),
        ("FC 05 40 2B 15", R::Reset),
        ("FC 05 41 A2 04", R::Stack1),
        ("FC 05 42 39 36", R::Stack2),
        ("FC 05 43 B0 27", R::Return),
        ("FC 05 44 0F 53", R::Hold),
        ("FC 05 45 86 42", R::Wait),
        ("FC 05 49 EA 88", R::Stack3),
        ("FC 05 50 AA 05", R::Ack),
        ("FC 05 8A 7D 7C", R::CurrencyAssign),
        ("FC 05 80 27 D3", R::Get(ConfigKind::Denominations)),
        ("FC 05 88 6F 5F", R::Version),
        ("FC 06 C3 01 8D C7", R::Set(Config::Inhibit(true))),
        ("FC 06 C3 00 04 D6", R::Set(Config::Inhibit(false))),
        ("FC 06 C2 01 55 DE", R::Set(Config::Mode(CommMode::Interrupt1))),
        ("FC 07 C0 00 00 2D B5", R::Set(Config::Denominations { disabled: 0 })),
        ("FC 07 C5 02 00 20 BF", R::Set(Config::Optional(POWER_RECOVERY))),
    ]
}

/// Public frames with what the device means by them.
fn device_vectors() -> Vec<(&'static str, Reply<'static>)> {
    use Reply as R;
    use Status as S;
    vec![
        ("FC 05 11 27 56", R::Status(S::Idling)),
        ("FC 05 40 2B 15", R::Status(S::PowerUp)),
        ("FC 05 41 A2 04", R::Status(S::PowerUpBillInAcceptor)),
        ("FC 05 42 39 36", R::Status(S::PowerUpBillInStacker)),
        ("FC 05 43 B0 27", R::Status(S::StackerFull)),
        ("FC 05 44 0F 53", R::Status(S::StackerOpen)),
        ("FC 05 45 86 42", R::Status(S::JamInAcceptor)),
        ("FC 05 46 1D 70", R::Status(S::JamInStacker)),
        ("FC 05 47 94 61", R::Status(S::Pause)),
        ("FC 05 48 63 99", R::Status(S::Cheated)),
        ("FC 06 49 A2 A0 21", R::Status(S::Failure(FailureCode::StackMotor))),
        ("FC 05 4A 71 BA", R::Status(S::CommError)),
        ("FC 05 4B F8 AB", R::InvalidCommand),
        ("FC 05 12 BC 64", R::Status(S::Accepting)),
        ("FC 06 13 64 1D AC", R::Status(S::Escrow(Held::Note(0x64)))),
        ("FC 05 14 8A 01", R::Status(S::Stacking(None))),
        ("FC 06 15 64 CD F8", R::Status(S::VendValid(Some(0x64)))),
        ("FC 05 16 98 22", R::Status(S::Stacked(None))),
        ("FC 06 17 71 51 8C", R::Status(S::Rejecting(RejectReason::Insertion))),
        ("FC 05 18 E6 CB", R::Status(S::Returning)),
        ("FC 05 19 6F DA", R::Status(S::Holding)),
        ("FC 05 05 82 00", R::Enq),
        ("FC 05 1A F4 E8", R::Status(S::Disabled)),
        ("FC 05 1B 7D F9", R::Status(S::Initializing)),
        ("FC 05 50 AA 05", R::Ack),
        ("FC 07 80 00 00 5B B3", R::ReadBack(Config::Denominations { disabled: 0 })),
        ("FC 06 C3 01 8D C7", R::Echo(Config::Inhibit(true))),
        ("FC 06 C3 00 04 D6", R::Echo(Config::Inhibit(false))),
        ("FC 06 C2 01 55 DE", R::Echo(Config::Mode(CommMode::Interrupt1))),
        ("FC 07 C0 00 00 2D B5", R::Echo(Config::Denominations { disabled: 0 })),
        ("FC 07 C5 02 00 20 BF", R::Echo(Config::Optional(POWER_RECOVERY))),
    ]
}

const CURRENCY_USD: &str = "FC 15 8A 61 01 01 00 63 01 05 00 64 01 01 01 65 01 02 01 02 FC";

fn decode(bytes: &[u8]) -> Vec<Frame> {
    testing::decode::<Id003Layout>(bytes)
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

/// Loss prevented: a table read wrongly credits a 10 as a 1.
#[test]
fn the_public_currency_table_is_read() {
    let frames = decode(&bytes(CURRENCY_USD));
    let Reply::CurrencyAssign(table) = Reply::parse(&frames[0]) else { panic!("{frames:?}") };
    let usd = "USD".parse().unwrap();
    let read: Vec<_> = table.slots().map(|s| (s.code, s.note().unwrap().0.minor())).collect();
    assert_eq!(read, [(0x61, 100), (0x63, 500), (0x64, 1_000), (0x65, 2_000)]);
    assert!(table.slots().all(|s| s.note().unwrap().1 == usd));
    assert_eq!(hex(&Reply::CurrencyAssign(table).frame().to_bytes()), CURRENCY_USD);

    let slot = |country, value, exponent| CurrencySlot { code: 0x61, country, value, exponent };
    assert_eq!(slot(0x01, 0, 0).note(), None, "empty slot");
    assert_eq!(slot(0x02, 5, 0).note(), None, "unknown country");
    assert_eq!(slot(0x01, 5, 200).note(), None, "absurd exponent");
    assert_eq!(slot(0xe0, 5, 2).note().unwrap().0.minor(), 50_000);
}

/// Loss prevented: frames with a wrong check that stand in public code would be taken for real
/// settings of the inlet.
#[test]
fn public_frames_with_a_wrong_check_are_ignored() {
    for text in ["FC 07 C0 C0 00 FF 70", "FC 06 C2 00 DC FC", "FC 06 C4 00 0C 96"] {
        assert!(decode(&bytes(text)).is_empty(), "{text}");
    }
}

/// Loss prevented: one bit of noise that turns a return into a stack.
#[test]
fn every_single_bit_error_of_every_vector_is_refused() {
    let all = host_vectors().into_iter().map(|(t, _)| t);
    for text in all.chain(device_vectors().into_iter().map(|(t, _)| t)).chain([CURRENCY_USD]) {
        testing::refuses_each_bit_error::<Id003Layout>(text);
    }
}

/// Loss prevented: a code that is unknown, or known with data that does not fit, must reach a
/// person as it came.
#[test]
fn unknown_codes_keep_their_bytes() {
    for (op, data) in [(0x77, &[1, 2][..]), (0x13, &[]), (0x17, &[]), (0x49, &[1, 2]), (0xc3, &[7])]
    {
        let frame = Frame::new(op, data);
        assert_eq!(Reply::parse(&frame), Reply::Unknown { raw: &frame });
        assert_eq!(Reply::parse(&frame).frame(), frame);
        assert_eq!(Request::parse(&frame), Request::Unknown { raw: &frame });
        assert_eq!(Request::parse(&frame).frame(), frame);
    }
    assert_eq!(Frame::new(0x77, &[1, 0xa2]).to_string(), "77 01 A2");
}

/// Loss prevented: a frame type that encodes other than it decodes works against our own simulator
/// only.
#[test]
fn every_state_setting_and_command_goes_there_and_back() {
    for op in 0..=255u8 {
        for data in [&[][..], &[0], &[1], &[2], &[0x64], &[0, 0], &[2, 0], &[1, 0x12]] {
            let frame = Frame::new(op, data);
            assert_eq!(Request::parse(&frame).frame(), frame, "{op:02X} {data:?}");
            // the payload of these two is not kept
            if op != 0xdf {
                assert_eq!(Reply::parse(&frame).frame(), frame, "{op:02X} {data:?}");
            }
        }
    }
    let ticket = Frame::new(0x13, &[0x6f, b'1', b'2']);
    assert_eq!(Reply::parse(&ticket), Reply::Status(Status::Escrow(Held::Ticket)));
}

/// Loss prevented: a dump that a person cannot read.
#[test]
fn frames_have_words() {
    let status = bytes("FC 05 11 27 56");
    assert_eq!(in_words(Direction::Sent, &status), "STATUS REQUEST");
    assert_eq!(in_words(Direction::Received, &status), "IDLING (11)");
    let two = bytes("FC 05 50 AA 05 FC 06 17 71 51 8C FC 05");
    assert_eq!(
        in_words(Direction::Received, &two),
        "ACK; REJECTING: inserted wrongly (71) (17) (no whole frame)"
    );
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

    /// Loss prevented: a frame lost because it came in pieces, or glued to the one before it.
    #[test]
    fn any_split_gives_the_same_frames(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..=250)), 1..5),
        cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let frames: Vec<Frame> = frames.iter().map(|(op, data)| Frame::new(*op, data)).collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let got = testing::in_pieces::<Id003Layout>(&stream, &cuts);
        prop_assert_eq!(got, frames);
    }

    /// Loss prevented: noise before an answer that swallows the answer, and the one after it.
    #[test]
    fn a_frame_after_garbage_is_found_within_one_frame(
        noise in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        prop_assert!(testing::is_found_behind::<Id003Layout>(noise, &Status::Idling.frame().to_bytes()));
    }

    /// Loss prevented: a damaged byte in a setting that opens the inlet for other notes.
    #[test]
    fn a_single_bit_error_behind_the_length_is_refused(
        op in 0u8..0xf0,
        data in proptest::collection::vec(0u8..0xf0, 0..=250),
        at in any::<proptest::sample::Index>(),
        bit in 0u32..8,
    ) {
        let good = Frame::new(op, &data);
        let mut bytes = good.to_bytes();
        let at = 2 + at.index(bytes.len() - 2);
        bytes[at] ^= 1 << bit;
        prop_assert!(!decode(&bytes).contains(&good));
        prop_assert!(Id003Layout::checked(&bytes).is_none());
    }
}
