use proptest::prelude::*;

use super::*;
use crate::frame::hex;

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_ascii_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

fn read(side: Side, mut bytes: &[u8]) -> Vec<Token> {
    let mut decoder = Decoder::new(side);
    std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
}

fn wire(side: Side, frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.write(side, &mut out);
    out
}

/// Both ways: the frame is the public one, and the public one is that frame.
fn both_ways(side: Side, public: &str, frame: Frame) {
    assert_eq!(hex(&wire(side, &frame)), public);
    assert_eq!(read(side, &bytes(public)), [Token::Frame(frame)], "{public}");
}

/// Loss prevented: one wrong bit in our framing and no real unit ever answers.
#[test]
fn public_vectors_in_both_directions() {
    use lcdm1000::Request as R1;
    use lcdm4000::{BayCount, Counts, Form, Reply, Request, error};
    let lengths = [lcdm4000::length_units(156), lcdm4000::length_units(156), 0, 0];
    let counts = Counts { notes: [3, 1, 0, 0], form: Form::Serial(6) };
    for (public, request) in [
        ("04 30 02 44 03 71", Request::Reset),
        ("04 30 02 67 03 52", Request::Serial),
        ("04 30 02 5E 3C 36 3C 36 30 30 30 30 03 6B", Request::SetLengths(lengths)),
        ("04 30 02 52 23 21 20 20 20 20 26 03 43", Request::Dispense(counts)),
    ] {
        both_ways(Side::Host, public, request.frame());
        assert_eq!(Request::parse(&request.frame()), request);
    }
    let bay = |exit, rejected| BayCount { exit, rejected, present: true };
    let dispensed = Reply::Counted {
        command: lcdm4000::DISPENSE,
        error: error(0),
        bays: [bay(3, 1), bay(1, 0), bay(0, 0), bay(0, 0)],
    };
    for (public, reply) in [
        ("01 30 02 44 20 03 54", Reply::Done { command: 0x44, error: error(0) }),
        ("01 30 02 67 20 25 03 52", Reply::Serial { error: error(0), serial: 5 }),
        ("01 30 02 5E 20 03 4E", Reply::Done { command: 0x5e, error: error(0) }),
        (
            "01 30 02 52 20 30 23 21 31 21 20 32 20 20 33 20 20 34 20 20 20 20 20 20 20 20 20 03 55",
            dispensed,
        ),
    ] {
        both_ways(Side::Device, public, reply.frame());
        assert_eq!(Reply::parse(&reply.frame()), reply);
    }
    for (public, request) in [
        ("04 50 02 45 31 30 03 11", R1::Upper(10)),
        ("04 50 02 44 03 11", R1::Purge),
        ("04 50 02 46 03 13", R1::Status),
        ("04 50 02 47 03 12", R1::RomVersion),
    ] {
        both_ways(Side::Host, public, request.frame());
        assert_eq!(R1::parse(&request.frame()), request);
    }
}

/// Loss prevented: a message without a public vector is built in a form that it is not read in.
#[test]
fn every_other_message_is_read_as_it_is_built() {
    use lcdm4000::{BayCount, BayStatus, Counts, Form, Reply, Request, error};
    let counts = Counts { notes: [1, 0, 20, 60], form: Form::Plain };
    for request in [
        Request::Status,
        Request::Purge,
        Request::Dispense(counts),
        Request::TestDispense(Counts { form: Form::Serial(95), ..counts }),
        Request::LastStatus,
        Request::Diagnostics(3),
        Request::SetOpacities([0, 1, 0x7f, 0xff]),
        Request::Opacities,
        Request::SetOrder([4, 3, 2, 1]),
        Request::Order,
        Request::Lengths,
        Request::Unknown(Frame::new(Id::Lcdm4000, 0x72, &[0x31])),
    ] {
        let sent = wire(Side::Host, &request.frame());
        let [Token::Frame(frame)] = read(Side::Host, &sent)[..] else { panic!("{request:?}") };
        assert_eq!(Request::parse(&frame), request);
    }
    let bay = BayCount { exit: 20, rejected: 9, present: true };
    let bays = [bay, BayCount { present: false, ..bay }, BayCount::default(), bay];
    let seen = BayStatus { sensors: 0x0d, present: true, opacity: 40, length: 198 };
    for reply in [
        Reply::Status { error: error(0x0b), sensors: 0x1b, bays: [seen; 4] },
        Reply::Counted { command: 0x51, error: error(0x0e), bays },
        Reply::Counted { command: 0x53, error: error(0x0d), bays },
        Reply::Last { command: 0x52, error: error(0x51), bays },
        Reply::Done { command: 0x55, error: error(0x30) },
        Reply::Measured { error: error(0), opacity: 1, length: 2, divert_ms: 3, rejected: 5 },
        Reply::Values { command: 0x5b, error: error(0), values: [1, 2, 0xf3, 4] },
        Reply::Values { command: 0x5d, error: error(0), values: [1, 2, 3, 4] },
        Reply::Values { command: 0x5f, error: error(0), values: [198, 0, 9, 255] },
        Reply::Unknown(Frame::new(Id::Lcdm4000, 0x52, &[0x20, 0x31])),
    ] {
        let sent = wire(Side::Device, &reply.frame());
        let [Token::Frame(frame)] = read(Side::Device, &sent)[..] else { panic!("{reply:?}") };
        assert_eq!(Reply::parse(&frame), reply);
    }
}

/// Loss prevented: the same for the smaller models.
#[test]
fn every_message_of_id_50_is_read_as_it_is_built() {
    use lcdm1000::{BayCount, Reply, Request, Sensors, error};
    for request in [
        Request::Lower(60),
        Request::Both(1, 59),
        Request::TestUpper(1),
        Request::TestLower(99),
        Request::Unknown(Frame::new(Id::Lcdm1000, 0x45, b"1x")),
    ] {
        let sent = wire(Side::Host, &request.frame());
        let [Token::Frame(frame)] = read(Side::Host, &sent)[..] else { panic!("{request:?}") };
        assert_eq!(Request::parse(&frame), request);
    }
    let bay = BayCount { checked: 12, exit: 10, rejected: 2, near_end: true };
    let all = [false, true].into_iter().flat_map(|a| [false, true].map(|b| [a, b]));
    let sensors = all.clone().flat_map(|missing| all.clone().map(move |ends| (missing, ends)));
    let mut replies: Vec<_> = sensors
        .map(|(missing, ends)| Reply::Status {
            error: error(0x30),
            sensors: Sensors::draft(ends[0], missing, ends),
        })
        .collect();
    // sensor bytes may look like any control byte
    replies.extend(
        [[1, 3], [3, 3], [4, 6], [0x15, 1], [0, 0xff]]
            .map(|bytes| Reply::Status { error: error(0x4e), sensors: Sensors(bytes) }),
    );
    replies.extend([
        Reply::Done { command: 0x44, error: error(0x4e) },
        Reply::One { command: 0x45, error: error(0x38), bay },
        Reply::One { command: 0x77, error: error(0x30), bay: BayCount::default() },
        Reply::Two { error: error(0x31), bays: [bay, BayCount { exit: 99, ..bay }] },
        Reply::Rom { version: *b"15", checksum: 0xa1b2 },
        Reply::Unknown(Frame::new(Id::Lcdm1000, 0x45, b"1010x200")),
    ]);
    for reply in replies {
        let sent = wire(Side::Device, &reply.frame());
        let [Token::Frame(frame)] = read(Side::Device, &sent)[..] else { panic!("{reply:?}") };
        assert_eq!(Reply::parse(&frame), reply, "{}", hex(&sent));
    }
    let Reply::Status { sensors, .. } =
        Reply::parse(&Frame::new(Id::Lcdm1000, 0x46, b"00\xa0\x02"))
    else {
        panic!()
    };
    assert!(sensors.at_exit() && sensors.missing() == [true, false] && !sensors.no_reject_tray());
}

/// Loss prevented: what an LCDM-2000 says while it works is taken for its answer, or hides it.
#[test]
fn items_are_told_apart_from_replies() {
    let reply = lcdm1000::Reply::Done { command: 0x44, error: lcdm1000::error(0x30) }.frame();
    let mut stream = vec![0x06, 0x01, 0x8d, 0x30, 0x01, 0x9c, 0x03, 0xff];
    stream.extend(wire(Side::Device, &reply));
    stream.push(EOT);
    assert_eq!(
        read(Side::Device, &stream),
        [
            Token::Ack,
            Token::Item { kind: 0x8d, value: 0x30 },
            Token::Item { kind: 0x9c, value: 0x03 },
            Token::Frame(reply),
            Token::Eot
        ]
    );
}

/// Loss prevented: garbage in front of a frame, or a frame that breaks off, costs the next one too.
#[test]
fn the_next_frame_is_found_after_garbage() {
    let good = lcdm4000::Request::Status.frame();
    for garbage in ["04", "04 30", "04 30 02 52 23", "04 04 30 02 50 03", "04 30 02 50 21 03", "55"]
    {
        let stream = [bytes(garbage), wire(Side::Host, &good)].concat();
        assert_eq!(read(Side::Host, &stream).last(), Some(&Token::Frame(good)), "{garbage}");
    }
    let reply = lcdm4000::Reply::Done { command: 0x44, error: lcdm4000::error(0) }.frame();
    for garbage in
        ["01", "01 30 02", "01 50 02 46 30 30 01", "01 30 02 52 20 30", "01 9C", "01 9C 01"]
    {
        let stream = [bytes(garbage), wire(Side::Device, &reply), vec![EOT]].concat();
        let twice = [stream.clone(), wire(Side::Device, &reply)].concat();
        assert_eq!(read(Side::Device, &twice).last(), Some(&Token::Frame(reply)), "{garbage}");
    }
}

/// Loss prevented: a byte lost at one place and doubled at another leaves the check right and moves
/// the counts: two notes of one cassette become two of another.
#[test]
fn counts_that_have_shifted_are_not_read() {
    use lcdm4000::{BayCount, Reply, error};
    let bay = |exit| BayCount { exit, rejected: 0, present: true };
    let reply =
        Reply::Counted { command: 0x52, error: error(0), bays: [bay(0), bay(0), bay(3), bay(0)] };
    let right = wire(Side::Device, &reply.frame());
    let mut read_wrong = 0;
    for lost in 4..27 {
        for doubled in 4..27 {
            let mut shifted = right.clone();
            let byte = shifted[doubled];
            shifted.insert(doubled, byte);
            shifted.remove(if lost > doubled { lost + 1 } else { lost });
            let [Token::Frame(frame)] = read(Side::Device, &shifted)[..] else { continue };
            match Reply::parse(&frame) {
                Reply::Unknown(_) => read_wrong += 1,
                other => assert_eq!(other, reply, "{lost} {doubled}"),
            }
        }
    }
    assert!(read_wrong > 0, "some pass the check");
}

/// Loss prevented: a code that nobody knows is taken for a harmless one, or a doubtful count for a
/// sure one.
#[test]
fn codes_in_words() {
    let known = |id| {
        let code = move |raw| ErrorCode { id, raw };
        (0..=255).map(code).filter(|code| code.nature() != Nature::Unknown).count()
    };
    assert_eq!((known(Id::Lcdm4000), known(Id::Lcdm1000)), (43, 30));
    assert!(lcdm4000::error(0).is_ok() && !lcdm4000::error(0x30).is_ok());
    assert!(lcdm1000::error(0x30).is_ok() && lcdm1000::error(0x31).is_ok());
    assert_eq!(lcdm4000::error(0x7e).to_string(), "error 7E: in no public list");
    assert_eq!(lcdm1000::error(0x40).to_string(), "error 40: the lower cassette is empty");
    for raw in [6, 7, 8, 9, 0x0a, 0x29, 0x40, 0x41, 0x42, 0x43] {
        assert_eq!(lcdm4000::error(raw).nature(), Nature::Miscounted);
    }
}

/// Loss prevented: lengths that differ from what field units are told.
#[test]
fn lengths_in_units() {
    for (mm, units) in [(156, 198), (120, 152), (133, 169), (0, 0)] {
        assert_eq!(lcdm4000::length_units(mm), units);
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let data = prop::collection::vec(0x20..=0xffu8, 0..=MAX_DATA);
    (any::<bool>(), 0x20..=0xffu8, data).prop_filter_map("fixed size", |(big, command, data)| {
        let id = if big { Id::Lcdm4000 } else { Id::Lcdm1000 };
        let fixed = id == Id::Lcdm1000 && command == lcdm1000::STATUS;
        (!fixed || data.len() == 4).then(|| Frame::new(id, command, &data))
    })
}

proptest! {
    /// Loss prevented: a reply that comes in pieces is read otherwise than one that comes whole.
    #[test]
    fn any_split_gives_the_same_tokens(
        parts in prop::collection::vec(
            (any_frame(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..6), any::<bool>()),
            1..6,
        ),
        cuts in prop::collection::vec(1usize..20, 1..20),
    ) {
        let side_of = |device| if device { Side::Device } else { Side::Host };
        let stream: Vec<u8> = parts
            .iter()
            .flat_map(|(frame, device, noise, clean)| {
                let noise = if *clean { &[][..] } else { noise };
                [wire(side_of(*device), frame), noise.to_vec()].concat()
            })
            .collect();
        for side in [Side::Host, Side::Device] {
            let single = {
                let mut decoder = Decoder::new(side);
                let one = |byte: &u8| decoder.push(&mut [*byte].as_slice());
                stream.iter().filter_map(one).collect::<Vec<_>>()
            };
            let (mut decoder, mut got, mut rest) = (Decoder::new(side), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                got.extend(std::iter::from_fn(|| decoder.push(&mut piece)));
            }
            prop_assert_eq!(&got, &single);
            prop_assert_eq!(read(side, &stream), single);
        }
    }

    /// Loss prevented: bytes of a failing device stop the machine.
    #[test]
    fn no_bytes_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        for side in [Side::Host, Side::Device] {
            for token in read(side, &stream) {
                if let Token::Frame(frame) = token {
                    let (a, b) = (lcdm4000::Request::parse(&frame), lcdm1000::Request::parse(&frame));
                    let (c, d) = (lcdm4000::Reply::parse(&frame), lcdm1000::Reply::parse(&frame));
                    prop_assert!(a.frame().id() == frame.id() && b.frame().id() == frame.id());
                    prop_assert!(c.frame().id() == frame.id() && d.frame().id() == frame.id());
                }
            }
        }
    }

    /// Loss prevented: a message that our own side cannot read back.
    #[test]
    fn frames_are_read_as_they_are_written(frame in any_frame(), device in any::<bool>()) {
        let side = if device { Side::Device } else { Side::Host };
        prop_assert_eq!(read(side, &wire(side, &frame)), [Token::Frame(frame)]);
    }

    /// Loss prevented: a bit that flips on the cable changes how many notes went out.
    #[test]
    fn a_frame_with_one_wrong_bit_is_no_frame(frame in any_frame(), at in any::<usize>(), bit in 0..8u8) {
        for side in [Side::Host, Side::Device] {
            let mut sent = wire(side, &frame);
            let at = at % sent.len();
            sent[at] ^= 1 << bit;
            let tokens = read(side, &sent);
            prop_assert!(!tokens.iter().any(|t| matches!(t, Token::Frame(_))), "{tokens:?}");
        }
    }
}
