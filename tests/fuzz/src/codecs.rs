//! Bytes into decoders.

use bitspire_hardware::frame::puloon::{self, lcdm1000, lcdm4000};
use bitspire_hardware::frame::{ccnet, ebds, escpos, f56, id003, ssp};
use bitspire_hardware::trace::Direction;

/// As many good frames as one longest frame of this protocol can swallow, and one more.
fn behind(noise: &[u8], good: &[u8], longest: usize) -> Vec<u8> {
    let mut stream = noise.to_vec();
    for _ in 0..=longest / good.len() + 1 {
        stream.extend_from_slice(good);
    }
    stream
}

pub(crate) fn ccnet(input: &[u8]) -> usize {
    let frames = |mut bytes: &[u8]| {
        let mut decoder = ccnet::Decoder::default();
        let frames: Vec<_> = std::iter::from_fn(|| decoder.push(&mut bytes)).collect();
        assert!(bytes.is_empty() && decoder.pending() < 255);
        frames
    };
    let found = frames(input);
    for frame in &found {
        let (reply, request) = (ccnet::Reply::parse(frame), ccnet::Request::parse(frame));
        let again = [reply.frame(), request.frame()];
        assert_eq!(again.map(|again| again.with_address(frame.address())), [*frame, *frame]);
        let state = ccnet::unit::UnitState::parse(frame.content());
        assert!(state.is_none_or(|state| state.frame().content() == frame.content()));
        let recovery = ccnet::unit::Recovery::parse(frame.content());
        assert!(recovery.is_none_or(|said| said.frame().content() == frame.content()));
        let _ = (reply.to_string(), request.to_string());
        if let ccnet::Reply::BillTable(table) = reply {
            let _ = table.slots().filter_map(|slot| slot.note()).count();
        }
    }
    let _ = ccnet::in_words(Direction::Received, input);
    let good = ccnet::State::Idling.frame();
    assert_eq!(frames(&behind(input, &good.to_bytes(), 255)).last(), Some(&good));
    found.len()
}

pub(crate) fn id003(input: &[u8]) -> usize {
    let frames = |mut bytes: &[u8]| {
        let mut decoder = id003::Decoder::default();
        let frames: Vec<_> = std::iter::from_fn(|| decoder.push(&mut bytes)).collect();
        assert!(bytes.is_empty() && decoder.pending() < 255);
        frames
    };
    let found = frames(input);
    for frame in &found {
        let (reply, request) = (id003::Reply::parse(frame), id003::Request::parse(frame));
        assert_eq!(request.frame(), *frame);
        let _ = (reply.to_string(), request.to_string());
        if let Some(extension) = id003::recycler::Extension::parse(frame) {
            assert_eq!(extension.frame(), *frame);
            let _ = extension.to_string();
        }
        let state = id003::recycler::PayState::parse(frame);
        assert!(state.is_none_or(|state| state.frame() == *frame));
        if let id003::Reply::CurrencyAssign(table) = reply {
            let _ = table.slots().filter_map(|slot| slot.note()).count();
        }
    }
    let _ = id003::in_words(Direction::Received, input);
    let good = id003::Status::Idling.frame();
    assert_eq!(frames(&behind(input, &good.to_bytes(), 255)).last(), Some(&good));
    found.len()
}

pub(crate) fn ebds(input: &[u8]) -> usize {
    let frames = |mut bytes: &[u8]| {
        let mut decoder = ebds::Decoder::default();
        let frames: Vec<_> = std::iter::from_fn(|| decoder.push(&mut bytes)).collect();
        assert!(bytes.is_empty());
        frames
    };
    let found = frames(input);
    for frame in &found {
        let request = ebds::Request::parse(frame);
        assert_eq!(request.frame(frame.toggle()), *frame);
        let _ = (ebds::Reply::parse(frame).to_string(), request.to_string());
    }
    let _ = ebds::in_words(Direction::Received, input);
    let good = ebds::Request::Query(ebds::Query::ALL[0]).frame(true);
    assert_eq!(frames(&behind(input, &good.to_bytes(), 127)).last(), Some(&good));
    found.len()
}

pub(crate) fn f56(input: &[u8]) -> usize {
    let tokens = |mut bytes: &[u8]| {
        let mut decoder = f56::Decoder::default();
        std::iter::from_fn(|| decoder.push(&mut bytes)).collect::<Vec<_>>()
    };
    let found = tokens(input);
    assert!(found.len() <= input.len());
    for token in &found {
        let f56::Token::Payload(payload) = token else { continue };
        assert!(payload.len() <= 512);
        let _ = format!("{:?}", f56::Request::parse(payload));
        if let Some(reply) = f56::Reply::parse(payload) {
            let _ = (reply.error(), reply.sensors(), reply.notes_at_exit(), reply.cassettes());
            let _ = (reply.counts(), reply.sensor_levels());
        }
    }
    let good = f56::Request::Status.payload();
    let stream = behind(input, &f56::encode(&good), 520);
    assert_eq!(tokens(&stream).last(), Some(&f56::Token::Payload(f56::Payload::new(&good))));
    found.len()
}

pub(crate) fn puloon(input: &[u8]) -> usize {
    let tokens = |side, mut bytes: &[u8]| {
        let mut decoder = puloon::Decoder::new(side);
        let tokens: Vec<_> = std::iter::from_fn(|| decoder.push(&mut bytes)).collect();
        assert!(bytes.is_empty());
        tokens
    };
    let mut found = 0;
    for side in [puloon::Side::Host, puloon::Side::Device] {
        let tokens_here = tokens(side, input);
        assert!(tokens_here.len() <= input.len());
        for token in tokens_here {
            found += 1;
            let puloon::Token::Frame(frame) = token else { continue };
            let of =
                [lcdm4000::Request::parse(&frame).frame(), lcdm4000::Reply::parse(&frame).frame()];
            assert!(of.iter().all(|again| again.id() == frame.id()));
            let of =
                [lcdm1000::Request::parse(&frame).frame(), lcdm1000::Reply::parse(&frame).frame()];
            assert!(of.iter().all(|again| again.id() == frame.id()));
        }
        let good = lcdm4000::Request::Status.frame();
        let mut wire = Vec::new();
        good.write(side, &mut wire);
        let stream = behind(input, &wire, 30);
        assert_eq!(tokens(side, &stream).last(), Some(&puloon::Token::Frame(good)));
    }
    found
}

pub(crate) fn ssp(input: &[u8]) -> usize {
    use ssp::cipher::{FixedKey, Session};
    let frames = |mut bytes: &[u8]| {
        let mut decoder = ssp::Decoder::default();
        let frames: Vec<_> = std::iter::from_fn(|| decoder.push(&mut bytes)).collect();
        assert!(bytes.is_empty() && decoder.pending() < 259);
        frames
    };
    let found = frames(input);
    let mut session = Session::new(&FixedKey::default(), 1);
    for frame in &found {
        assert_eq!(frames(&frame.to_bytes()), [*frame]);
        let data = frame.data();
        let (request, reply) = (ssp::Request::parse(data), ssp::Reply::parse(data));
        assert_eq!(request.frame(frame.seq(), frame.address()), *frame);
        let _ = (request.to_string(), reply.to_string(), reply.refusal());
        let told: usize = reply.events().map(|event| event.raw.len()).sum();
        assert_eq!(told, reply.rest.len(), "an event is lost");
        for event in reply.events() {
            let _ = event.to_string();
        }
        if let Some(setup) = ssp::Setup::parse(reply.rest) {
            let _ = setup.channels().filter_map(|channel| channel.note.note()).count();
        }
        let _ = ssp::Levels::parse(reply.rest).map(|levels| levels.iter().count());
        // whatever was not sealed under this key is refused
        assert!(session.open_command(data).is_err());
    }
    let _ = ssp::in_words(Direction::Received, input);
    let good = ssp::Request::Poll.frame(true, ssp::VALIDATOR);
    assert_eq!(frames(&behind(input, &good.to_bytes(), 12)).last(), Some(&good));
    found.len()
}

pub(crate) fn escpos(input: &[u8]) -> usize {
    let mut meant = 0;
    for byte in input {
        // its number, or none, and never another's
        assert!(escpos::Ask::of(*byte).is_none_or(|ask| ask.number() == *byte));
        let status = escpos::Status::of(*byte);
        meant += usize::from(!matches!(status, escpos::Status::Unknown(_)));
        for ask in escpos::Ask::ALL {
            assert!(ask.troubles(*byte).len() <= 4);
            let _ = (ask.is_near_end(*byte), ask.bytes());
        }
    }
    meant
}
