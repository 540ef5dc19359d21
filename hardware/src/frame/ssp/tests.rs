use proptest::prelude::*;

use super::cipher::{Draw, Exchange, FixedKey, MAX_SEALED, Primes, SealError, Seed, Session};
use super::*;
use crate::frame::stream::testing::bytes;

fn decode(mut stream: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    std::iter::from_fn(|| decoder.push(&mut stream)).collect()
}

fn eur(value: u32) -> Money {
    Money { value, country: *b"EUR" }
}

/// Commands of the manual, and of recordings that users of a public host have shown.
fn commands() -> Vec<(&'static str, Request<'static>)> {
    use Request as R;
    vec![
        ("7F 80 01 11 65 82", R::Sync),
        ("7F 00 01 11 66 08", R::Sync),
        ("7F 80 01 07 12 02", R::Poll),
        ("7F 80 01 01 06 02", R::Reset),
        ("7F 80 03 02 07 00 2B B6", R::SetInhibits { channels: 7 }),
        ("7F 80 02 06 08 03 94", R::HostProtocol { version: 8 }),
        ("7F 00 02 06 06 1B 94", R::HostProtocol { version: 6 }),
        ("7F 80 01 08 30 02", R::Reject),
        ("7F 80 01 09 35 82", R::Disable),
        ("7F 80 01 0A 3F 82", R::Enable),
        ("7F 80 01 0C 2B 82", R::Serial),
        ("7F 80 01 17 71 82", R::LastReject),
        ("7F 80 01 18 53 82", R::Hold),
        ("7F 80 01 20 C0 02", R::Firmware),
        ("7F 80 01 21 C5 82", R::Dataset),
        ("7F 80 01 22 CF 82", R::AllLevels),
        ("7F 80 09 4A C5 05 8F 3A 00 00 00 00 B2 73", R::SetGenerator { generator: 982_451_653 }),
        ("7F 80 09 4B 8D A6 13 00 00 00 00 00 6C F6", R::SetModulus { modulus: 1_287_821 }),
        ("7F 80 09 4C 79 C8 9C E2 DE 06 00 00 9D 52", R::KeyExchange { public: 7_554_354_432_121 }),
        ("7F 80 09 4A 53 32 00 00 00 00 00 00 B7 07", R::SetGenerator { generator: 0x3253 }),
        ("7F 00 09 4B F1 27 00 00 00 00 00 00 48 16", R::SetModulus { modulus: 0x27f1 }),
        ("7F 80 09 4A 13 FA 00 00 00 00 00 00 AF C2", R::SetGenerator { generator: 0xfa13 }),
    ]
}

/// Encrypted packets of the manual and of recordings, whose keys nobody has told.
const SEALED: [&str; 3] = [
    "7F 80 11 7E 92 2C F0 C6 74 40 D1 38 B9 17 18 4D FC 76 11 B4 E3 66",
    "7F 00 11 7E 89 63 EE 30 72 F1 28 48 23 DA 48 D8 E0 76 5D FD 4D 2E",
    "7F 80 11 7E 00 FB 22 1C FE BA 91 F5 C3 F9 CA 14 6A E2 38 67 62 08",
];

/// Loss prevented: a command that no device understands.
#[test]
fn public_commands_are_written_and_read() {
    for (text, request) in commands() {
        let wire = bytes(text);
        let seq = wire[1] & SEQ != 0;
        assert_eq!(request.frame(seq, VALIDATOR).to_bytes(), wire, "{text}");
        let frames = decode(&wire);
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!(Request::parse(frames[0].data()), request, "{text}");
        assert_eq!((frames[0].seq(), frames[0].address()), (seq, VALIDATOR), "{text}");
        assert!(!in_words(Direction::Sent, &wire).contains("unknown"), "{text}");
    }
}

/// Loss prevented: an answer that is read as another.
#[test]
fn public_answers_are_read_and_written() {
    let cases: [(&str, Status, &[EventCode]); 5] = [
        ("7F 80 01 F0 23 80", Status::Ok, &[]),
        ("7F 00 01 F0 20 0A", Status::Ok, &[]),
        (
            "7F 80 03 F0 F1 F8 DC 0C",
            Status::Ok,
            &[EventCode::Reset, EventCode::Unknown { raw: 0xf8 }],
        ),
        ("7F 80 01 F4 38 00", Status::OutOfRange, &[]),
        ("7F 00 01 F4 3B 8A", Status::OutOfRange, &[]),
    ];
    for (text, status, events) in cases {
        let wire = bytes(text);
        let frame = decode(&wire).pop().unwrap();
        let reply = Reply::parse(frame.data());
        assert_eq!(reply.status, status, "{text}");
        let told: Vec<_> = reply.events().map(|event| event.code).collect();
        assert_eq!(told, events, "{text}");
        assert_eq!(Frame::new(frame.seq(), 0, frame.data()).to_bytes(), wire);
    }
    for text in SEALED {
        let wire = bytes(text);
        let frame = decode(&wire).pop().unwrap();
        assert_eq!((frame.data()[0], frame.data().len()), (STEX, 17));
        assert_eq!(frame.to_bytes(), wire);
        assert_eq!(in_words(Direction::Received, &wire), "encrypted, 16 bytes");
    }
}

/// Loss prevented: one damaged bit that moves other notes than were meant.
#[test]
fn each_bit_error_is_refused() {
    for text in commands().iter().map(|(text, _)| *text).chain(SEALED) {
        let good = bytes(text);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_empty(), "{text}, bit {bit}");
        }
    }
}

/// Loss prevented: a value of 127 that cuts a frame in two.
#[test]
fn a_7f_is_doubled_wherever_it_stands() {
    for data in [vec![0x7f], vec![0x7f; 255], vec![1, 0x7f, 2, 0x7f, 0x7f], vec![0; 0x7f]] {
        let frame = Frame::new(true, 0, &data);
        let wire = frame.to_bytes();
        let stuffed = wire.iter().skip(1).filter(|byte| **byte == STX).count();
        assert_eq!(stuffed % 2, 0);
        assert_eq!(decode(&wire), [frame]);
    }
    // whatever its check ends with
    for low in 0..=u16::MAX {
        let [a, b] = low.to_le_bytes();
        if crc16_ssp(&[0x80, 2, a, b]).to_le_bytes().contains(&STX) {
            let frame = Frame::new(true, 0, &[a, b]);
            assert_eq!(decode(&frame.to_bytes()), [frame]);
        }
    }
}

/// Loss prevented: a frame that was cut off, and the one after it lost with it.
#[test]
fn a_single_7f_begins_anew() {
    let frame = Request::Hold.frame(true, VALIDATOR);
    let wire = frame.to_bytes();
    for cut in 1..wire.len() {
        let mut stream = wire[..cut].to_vec();
        stream.extend(&wire);
        if cut > 1 {
            assert_eq!(decode(&stream), [frame], "cut at {cut}");
        }
        stream.extend(&wire);
        assert_eq!(decode(&stream).last(), Some(&frame), "cut at {cut}");
    }
}

/// Loss prevented: a parameter that stands where the device does not look for it.
#[test]
fn payout_commands_have_the_manuals_form() {
    let notes = Counted::new([(2, eur(1_000)), (1, eur(0x1234_5678))]);
    let pay = Request::PayoutByDenomination { notes, how: How::Real };
    let data = "46 02 02 00 E8 03 00 00 45 55 52 01 00 78 56 34 12 45 55 52 58";
    assert_eq!(pay.frame(false, 0).data(), bytes(data));
    assert_eq!(Request::parse(&bytes(data)), pay);
    let cases = [
        ("33 E8 03 00 00 45 55 52 19", Request::Payout { amount: eur(1_000), how: How::Test }),
        ("3B 00 F4 01 00 00 45 55 52", Request::SetRoute { route: Route::Store, note: eur(500) }),
        ("3B 01 F4 01 00 00 45 55 52", Request::SetRoute { route: Route::Cashbox, note: eur(500) }),
        ("34 0A 00 F4 01 00 00 45 55 52", Request::SetLevel { number: 10, note: eur(500) }),
        ("5C 00", Request::EnablePayout { options: 0 }),
    ];
    for (text, request) in cases {
        assert_eq!(request.frame(true, 0).data(), bytes(text), "{text}");
        assert_eq!(Request::parse(&bytes(text)), request, "{text}");
        assert!(request.needs_keys());
    }
    // too few, too many, out of range
    for text in ["46 02 02 00", "07 00", "3B 02 F4 01 00 00 45 55 52", "46 15", ""] {
        let raw = if text.is_empty() { Vec::new() } else { bytes(text) };
        assert_eq!(Request::parse(&raw), Request::Unknown { raw: &raw }, "{text}");
    }
    let key = Request::SetFixedKey { key: Hidden(0xabcd_ef01) };
    assert!(!format!("{key:?} {key}").to_lowercase().contains("abcd"));
}

/// Loss prevented: an event that is read at the wrong place, and a credit with it.
#[test]
fn events_are_found_one_behind_the_other() {
    let text = "F1 DC 01 E8 03 00 00 D0 07 00 00 45 55 52 EE 03 DA 01 E8 03 00 00 45 55 52 \
        C9 F4 01 00 00 45 55 52 CE 01 F4 01 00 00 45 55 52 E6 04 E6 01 F4 01 00 00 45 55 52 \
        B1 01 00 00 00 00 45 55 52 01 EB 99 EE 01";
    let raw = bytes(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    let events: Vec<_> = Events::new(&raw).collect();
    let codes: Vec<_> = events.iter().map(|event| event.code).collect();
    use EventCode as C;
    let unknown = C::Unknown { raw: 0x99 };
    assert_eq!(
        codes,
        [
            C::Reset,
            C::IncompletePayout,
            C::Credit,
            C::Dispensing,
            C::Transferred,
            C::InBezel,
            C::Fraud,
            C::Fraud,
            C::PayoutError,
            C::Stacked,
            unknown
        ]
    );
    let Detail::Pairs(pairs) = events[1].detail else { panic!() };
    assert_eq!(pairs.iter().collect::<Vec<_>>(), [Amount { done: eur(1_000), wanted: 2_000 }]);
    assert_eq!(events[2].detail, Detail::Channel(3));
    let Detail::Sums(sums) = events[3].detail else { panic!() };
    assert_eq!((sums.of(*b"EUR"), sums.of(*b"USD")), (1_000, 0));
    assert_eq!(events[4].detail, Detail::Note(eur(500)));
    assert_eq!(events[5].detail, Detail::Note(eur(500)));
    assert_eq!(events[6].detail, Detail::Channel(4));
    assert!(matches!(events[8].detail, Detail::Error(_, 1)));
    // behind one whose length nobody knows, nothing is made up
    assert_eq!(events[10].raw, [0x99, 0xee, 1]);
    let cut: Vec<_> = Events::new(&[0xee]).map(|event| event.code).collect();
    assert_eq!(cut, [C::Unknown { raw: 0xee }]);
}

/// Loss prevented: a channel that is taken for another note.
#[test]
fn setup_and_levels_are_read_as_written() {
    let notes = [eur(500), eur(1_000), eur(2_000)];
    let mut out = Vec::new();
    Setup::write(UNIT_SMART_PAYOUT, *b"0433", 8, 100, &notes, &mut out);
    let setup = Setup::parse(&out).unwrap();
    assert_eq!((setup.unit, setup.protocol, setup.multiplier), (UNIT_SMART_PAYOUT, 8, 100));
    let channels: Vec<_> = setup.channels().map(|c| (c.number, c.note)).collect();
    assert_eq!(channels, [(1, notes[0]), (2, notes[1]), (3, notes[2])]);
    assert!((0..out.len()).all(|cut| Setup::parse(&out[..cut]).is_none()));
    let levels = [(3, notes[1]), (0x102, notes[2])];
    let mut out = Vec::new();
    write_levels(&levels, &mut out);
    assert_eq!(Levels::parse(&out).unwrap().iter().collect::<Vec<_>>(), levels);
    assert!((0..out.len()).all(|cut| Levels::parse(&out[..cut]).is_none()));
}

/// Loss prevented: two sides that do not come to the same key, and a payout that never happens.
#[test]
fn both_sides_come_to_the_same_key() {
    let fixed = FixedKey::default();
    for primes in [Primes::USUAL, Primes::new(982_451_653, 1_287_821).unwrap()] {
        let of = |secret| Exchange::new(primes.generator(), primes.modulus(), secret);
        let (host, device) = (of(0x1234_5678_9abc_def1), of(0xfeed));
        let mut to = host.finish(device.public(), &fixed).unwrap();
        let mut from = device.finish(host.public(), &fixed).unwrap();
        for round in 0..40u8 {
            let command = vec![round; usize::from(round)];
            let sealed = to.seal_command(&command, [9; 16]).unwrap();
            assert_eq!(sealed.len() % 16, 1);
            assert_eq!(from.open_command(&sealed).unwrap().data(), command);
            let reply = from.seal_reply(&[0xf0, round], [7; 16]).unwrap();
            assert_eq!(to.open_reply(&reply).unwrap().data(), [0xf0, round]);
        }
    }
    let usual = Primes::USUAL;
    assert_eq!(Primes::new(usual.generator(), usual.modulus()), Ok(usual));
    for (generator, modulus) in [(7, 11), (15, 11), (11, 9), (0, 0), (1, 1), (2, 2)] {
        assert!(Primes::new(generator, modulus).is_err(), "{generator} {modulus}");
    }
    let host = Exchange::new(usual.generator(), usual.modulus(), 5);
    for part in [0, 1, usual.modulus(), u64::MAX] {
        assert_eq!(host.finish(part, &fixed).err(), Some(SealError::Key(part)));
    }
}

/// Loss prevented: an old packet that pays again, or one under another key that is obeyed.
#[test]
fn a_packet_is_opened_once_and_in_its_turn() {
    let fixed = FixedKey::default();
    let (mut host, mut device) = (Session::new(&fixed, 77), Session::new(&fixed, 77));
    let first = host.seal_command(&[0x56], [1; 16]).unwrap();
    let second = host.seal_command(&[0x57], [1; 16]).unwrap();
    let early = device.open_command(&second).unwrap_err();
    assert_eq!(early, SealError::Count { expected: 0, got: 1 });
    assert_eq!(device.open_command(&first).unwrap().data(), [0x56]);
    let again = device.open_command(&first).unwrap_err();
    assert_eq!(again, SealError::Count { expected: 1, got: 0 });
    assert_eq!(device.open_command(&second).unwrap().data(), [0x57]);
    // the answer to a packet that the device has not had
    assert!(Session::new(&fixed, 77).seal_reply(&[0xf0], [0; 16]).is_some_and(|stale| {
        matches!(host.open_reply(&stale), Err(SealError::Count { expected: 2, got: 0 }))
    }));
    for other in [Session::new(&fixed, 78), Session::new(&FixedKey::new(1), 77)] {
        assert_eq!(other.open_reply(&first).unwrap_err(), SealError::Check);
    }
    for bad in [&[][..], &[STEX], &first[1..], &first[..16]] {
        assert!(matches!(host.open_reply(bad), Err(SealError::Form(_) | SealError::Check)));
    }
    assert!(host.seal_command(&[0; MAX_SEALED], [0; 16]).is_some());
    assert!(host.seal_command(&[0; MAX_SEALED + 1], [0; 16]).is_none());
}

/// Loss prevented: another layout than the makers': every command is dropped. The plain packet is of
/// a public recording; the block is the one that its fields come to under the maker's fixed key.
#[test]
fn what_is_sealed_has_the_makers_layout() {
    // LEN 2, COUNT 7, F0 C6, padding, check
    let recorded = bytes("02 07 00 00 00 F0 C6 BA B3 78 19 66 EF 04 06 F4");
    let (covered, check) = recorded.split_at(14);
    assert_eq!(crc16_ssp(covered).to_le_bytes(), check);
    let fixed = FixedKey::default();
    let mut session = Session::new(&fixed, 0x1122_3344_5566_7788);
    for _ in 0..7 {
        session.seal_command(&[0x07], [0; 16]).unwrap();
    }
    let mut pad = [0; 16];
    pad[..7].copy_from_slice(&covered[7..]);
    let sealed = session.seal_reply(&[0xf0, 0xc6], pad).unwrap();
    use aes::cipher::{BlockEncrypt, KeyInit};
    let key = bytes("67 45 23 01 67 45 23 01 88 77 66 55 44 33 22 11");
    let mut block = aes::Block::clone_from_slice(&recorded);
    aes::Aes128::new_from_slice(&key).unwrap().encrypt_block(&mut block);
    assert_eq!((sealed[0], &sealed[1..]), (STEX, block.as_slice()));
}

/// Loss prevented: a key in a log, or a secret that comes twice.
#[test]
fn secrets_show_nothing_and_do_not_repeat() {
    let seed = Seed::new([0xab; 16]);
    let session = Session::new(&FixedKey::new(0xabab_abab), 0xabab_abab);
    let shown = format!("{seed:?} {:?} {session:?}", FixedKey::new(0xabab_abab)).to_lowercase();
    assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
    let (mut one, mut other) = (Draw::new(&seed), Draw::new(&Seed::new([0xac; 16])));
    let drawn: std::collections::BTreeSet<_> =
        (0..50).flat_map(|_| [one.secret(), other.secret()]).collect();
    assert_eq!(drawn.len(), 100);
    assert!(drawn.iter().all(|secret| *secret >= 2));
}

proptest! {
    /// Loss prevented: a frame that is lost for how its bytes came, or for what came before it.
    #[test]
    fn frames_are_found_in_any_pieces_behind_any_noise(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(STX)], 0..300),
        data in prop::collection::vec(prop_oneof![any::<u8>(), Just(STX)], 1..255),
        sizes in prop::collection::vec(1usize..20, 1..8),
    ) {
        let frame = Frame::new(true, VALIDATOR, &data);
        let wire = frame.to_bytes();
        let mut stream = noise;
        stream.extend(&wire);
        stream.extend(&wire);
        let (mut decoder, mut rest, mut got) = (Decoder::default(), stream.as_slice(), Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            got.extend(std::iter::from_fn(|| decoder.push(&mut piece)));
        }
        prop_assert_eq!(got.last(), Some(&frame));
    }
}
