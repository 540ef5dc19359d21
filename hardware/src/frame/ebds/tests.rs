use proptest::prelude::*;

use super::*;

fn omnibus(notes: u8, mode: u8, config: u8) -> Omnibus {
    let frame = Frame::new(kind::OMNIBUS, false, &[notes, mode, config]);
    match Request::parse(&frame) {
        Request::Omnibus(omnibus) => omnibus,
        other => panic!("{other}"),
    }
}

/// Public frames with what the host means by them.
fn host_vectors() -> Vec<(&'static str, bool, Request<'static>)> {
    use Request as R;
    let mut one = NoteSet::default();
    one.insert(1);
    let zero = omnibus(0, 0, 0);
    vec![
        ("02 08 10 7F 1B 10 03 6C", false, R::Omnibus(omnibus(0x7f, 0x1b, 0x10))),
        ("02 08 11 7F 1B 10 03 6D", true, R::Omnibus(omnibus(0x7f, 0x1b, 0x10))),
        ("02 08 11 00 1B 10 03 12", true, R::Omnibus(omnibus(0, 0x1b, 0x10))),
        ("02 08 10 7F 3F 10 03 48", false, R::Omnibus(omnibus(0x7f, 0x3f, 0x10))),
        ("02 08 10 7F 00 00 03 67", false, R::Omnibus(omnibus(0x7f, 0, 0))),
        ("02 08 60 7F 7F 7F 03 17", false, R::SoftReset),
        ("02 0A 70 02 00 00 00 01 03 79", false, R::NoteSpecification(zero, 1)),
        ("02 09 70 06 00 00 00 03 7F", false, R::ValueTable(zero)),
        (
            "02 11 70 03 00 00 00 01 00 00 00 00 00 00 00 03 63",
            false,
            R::NoteInhibits(zero, one, false),
        ),
        (
            "02 1C 70 03 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 03 6E",
            false,
            R::NoteInhibits(zero, one, true),
        ),
    ]
}

const ESCROW_20: &str = "02 1E 71 02 04 10 00 00 54 10 01 55 53 44 30 32 30 2B 30 30 00 41 41 \
                         41 41 00 00 00 03 67";
const STACKED_20: &str = "02 1E 71 02 11 10 00 00 54 10 01 55 53 44 30 32 30 2B 30 30 00 41 41 \
                          41 41 00 00 00 03 72";

/// Public frames with what the device means by them.
fn device_vectors() -> Vec<(&'static str, bool, Reply<'static>)> {
    use Reply as R;
    let status =
        |state| Status { state, event: 0x10, model: 0x54, revision: 0x10, ..Status::default() };
    let usd = "USD".parse().unwrap();
    let twenty = NoteReport::new(1, usd, (20, 0), Classification::None);
    vec![
        ("02 0B 21 01 10 00 00 54 10 03 7F", true, R::Status(status(bits::IDLING))),
        ("02 0B 20 01 10 00 00 54 10 03 7E", false, R::Status(status(bits::IDLING))),
        ("02 0B 20 08 10 00 00 54 10 03 77", false, R::Status(status(bits::STACKING))),
        ("02 0B 20 00 00 00 00 00 00 03 2B", false, R::Status(Status::default())),
        (ESCROW_20, true, R::Note(status(bits::ESCROWED), twenty)),
        (STACKED_20, true, R::Note(status(bits::STACKED | bits::IDLING), twenty)),
        ("02 0C 70 03 00 00 00 00 00 00 03 7F", false, R::NoteInhibits(Status::default())),
    ]
}

fn bytes(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

fn decode(mut bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    std::iter::from_fn(|| decoder.push(&mut bytes)).collect()
}

/// Loss prevented: a frame that we read or write other than real units do is a validator that does
/// not answer, or worse, one that does something else.
#[test]
fn public_vectors_hold_in_both_directions() {
    for (text, toggle, request) in host_vectors() {
        let frames = decode(&bytes(text));
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!((Request::parse(&frames[0]), frames[0].toggle()), (request, toggle), "{text}");
        assert_eq!(request.frame(toggle).to_bytes(), bytes(text));
    }
    for (text, toggle, reply) in device_vectors() {
        let frames = decode(&bytes(text));
        assert_eq!(frames.len(), 1, "{text}");
        assert_eq!((Reply::parse(&frames[0]), frames[0].toggle()), (reply, toggle), "{text}");
        assert_eq!(reply.frame(toggle).to_bytes(), bytes(text));
    }
}

/// Loss prevented: a value read wrongly credits a 10 as a 1.
#[test]
fn values_are_read_exactly() {
    let report = |text: &str| {
        let mut bytes = [0; 18];
        bytes[1..10].copy_from_slice(text.as_bytes());
        NoteReport(bytes).note()
    };
    let minor = |text| report(text).map(|(note, currency)| (note.minor(), currency.to_string()));
    assert_eq!(minor("USD020+00"), Some((2_000, "USD".to_owned())));
    assert_eq!(minor("EUR005+02"), Some((50_000, "EUR".to_owned())));
    assert_eq!(minor("USD100-01"), Some((1_000, "USD".to_owned())));
    assert_eq!(minor("USD005-01"), None, "half a dollar is no note");
    assert_eq!(minor("USD000+00"), None, "blank");
    assert_eq!(minor("USD005+99"), None, "absurd");
    assert_eq!(minor("USD+05+00"), None, "digits only");
    assert_eq!(minor("usd005+00"), None, "no currency");
    assert_eq!(NoteReport::BLANK.note(), None);
}

/// Loss prevented: as above, on units that say only an index.
#[test]
fn the_public_value_table_is_read() {
    let mut table = vec![0x02, 0x52, 0x70, 0x06, 0, 0, 0, 0, 0, 0];
    let notes = ["001+00", "002+00", "005+00", "001+01", "002+01", "005+01", "001+02"];
    for (index, note) in (1..).zip(notes) {
        table.push(index);
        table.extend(b"USD");
        table.extend(note.as_bytes());
    }
    table.extend([0x03, 0x7f]);
    let frames = decode(&table);
    let Reply::ValueTable(_, read) = Reply::parse(&frames[0]) else { panic!("{frames:?}") };
    let values: Vec<_> = read.notes().map(|(index, (d, _))| (index, d.minor() / 100)).collect();
    assert_eq!(values, [(1, 1), (2, 2), (3, 5), (4, 10), (5, 20), (6, 50), (7, 100)]);
    assert_eq!(Reply::parse(&frames[0]).frame(false).to_bytes(), table);
}

/// Loss prevented: one bit of noise that turns a return into a stack.
#[test]
fn every_single_bit_error_of_every_vector_is_refused() {
    let all = host_vectors().into_iter().map(|(t, ..)| t);
    for text in all.chain(device_vectors().into_iter().map(|(t, ..)| t)) {
        let good = bytes(text);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_empty(), "{text}, bit {bit}");
        }
    }
}

/// Loss prevented: a message that is unknown, or known with data that does not fit, must reach a
/// person as it came.
#[test]
fn unknown_messages_keep_their_bytes() {
    for (kind, data) in [(2, &[1, 2][..]), (3, &[]), (7, &[]), (7, &[0x0b, 0, 0, 0, 0, 0, 0, 0x7f])]
    {
        let frame = Frame::new(kind, true, data);
        assert_eq!(Reply::parse(&frame), Reply::Unknown { raw: &frame });
        assert_eq!(Reply::parse(&frame).frame(false), frame);
        assert_eq!(Request::parse(&frame), Request::Unknown { raw: &frame });
        assert_eq!(Request::parse(&frame).frame(false), frame);
    }
    // the policy that does not exist
    let frame = Frame::new(1, false, &[0x7f, 0x18, 0x0c]);
    assert_eq!(Request::parse(&frame), Request::Unknown { raw: &frame });
    assert_eq!(Frame::new(7, true, &[0x0b, 0x7f]).to_string(), "71 0B 7F");
}

/// Loss prevented: the wrong notes enabled.
#[test]
fn note_sets_hold_what_was_put_in() {
    let mut set = NoteSet::default();
    for index in [0, 1, 7, 8, 50, 128, 200] {
        set.insert(index);
    }
    let held: Vec<u8> = (0..=255).filter(|index| set.contains(*index)).collect();
    assert_eq!(held, [1, 7, 8, 50, 128]);
}

/// Loss prevented: a dump that a person cannot read.
#[test]
fn frames_have_words() {
    assert_eq!(in_words(Direction::Sent, &bytes("02 08 10 7F 3F 10 03 48")), "STACK [0]");
    assert_eq!(
        in_words(Direction::Received, &bytes(ESCROW_20)),
        "ESCROWED (04 10 00 00 54 10): 2000 minor units of USD at index 1, not classified, or disabled (00) [1]"
    );
    let removed = bytes("02 0B 20 00 00 00 00 00 00 03 2B 02");
    assert_eq!(
        in_words(Direction::Received, &removed),
        "OUT OF SERVICE, CASSETTE REMOVED (00 00 00 00 00 00) [0] (no whole frame)"
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

    /// Loss prevented: a frame type that encodes other than it decodes works against our own
    /// simulator only.
    #[test]
    fn every_frame_goes_there_and_back(
        kind in 0u8..8, toggle in any::<bool>(), data in proptest::collection::vec(0u8..0x80, 0..90),
    ) {
        let frame = Frame::new(kind, toggle, &data);
        prop_assert_eq!(Request::parse(&frame).frame(toggle), frame);
        prop_assert_eq!(Reply::parse(&frame).frame(toggle), frame);
    }

    /// Loss prevented: a frame lost because it came in pieces, or glued to the one before it.
    #[test]
    fn any_split_gives_the_same_frames(
        frames in proptest::collection::vec((0u8..8, proptest::collection::vec(0u8..0x80, 0..=MAX_DATA)), 1..5),
        cuts in proptest::collection::vec(1usize..40, 1..40),
    ) {
        let frames: Vec<Frame> = frames.iter().map(|(kind, data)| Frame::new(*kind, true, data)).collect();
        let stream: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let (mut decoder, mut got, mut rest) = (Decoder::default(), Vec::new(), stream.as_slice());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            got.extend(std::iter::from_fn(|| decoder.push(&mut piece)));
        }
        prop_assert_eq!(got, frames);
    }

    /// Loss prevented: noise before an answer that swallows the answer, and the one after it.
    #[test]
    fn a_frame_after_garbage_is_found_within_one_frame(
        noise in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let idle = Reply::Status(Status { state: 1, ..Status::default() }).frame(true);
        let mut stream = noise;
        // a false start claims at most 127 bytes; what it has swallowed is looked through again
        for _ in 0..=MAX_FRAME / 11 {
            idle.write_to(&mut stream);
        }
        prop_assert!(decode(&stream).last() == Some(&idle));
    }

    /// Loss prevented: a damaged byte in a command that opens the inlet for other notes.
    #[test]
    fn a_single_bit_error_behind_the_length_is_refused(
        kind in 0u8..8,
        data in proptest::collection::vec(4u8..0x80, 0..=MAX_DATA),
        at in any::<proptest::sample::Index>(),
        bit in 0u32..8,
    ) {
        let good = Frame::new(kind, false, &data);
        let mut bytes = good.to_bytes();
        let at = 2 + at.index(bytes.len() - 2);
        bytes[at] ^= 1 << bit;
        prop_assert!(EbdsLayout::checked(&bytes).is_none());
    }
}
