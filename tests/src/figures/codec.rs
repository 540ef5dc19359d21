//! How fast each codec finds, checks and reads frames.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use bitspire_hardware::frame::{ccnet, ebds, f56, id003, puloon, ssp};

use super::{Figure, percentile};

/// Bytes that are read in one run.
const BYTES: usize = 1_000_000;
const RUNS: usize = 15;

pub(super) fn measure() -> Result<Vec<Figure>> {
    Ok(vec![ccnet()?, ebds()?, f56()?, id003()?, puloon()?, ssp()?])
}

fn ccnet() -> Result<Figure> {
    use ccnet::{BILL_TO_BILL, Decoder, Frame, Reply, State, VALIDATOR};
    let table = Frame::new(VALIDATOR, 1, &[b'U'; 119]);
    let cassettes = Frame::new(BILL_TO_BILL, 0x84, &[17, 0x83, 9, 0x1f, 0]);
    let frames = [State::Idling.frame(), State::Escrow(4).frame(), table, cassettes];
    figure("codec_mb_per_s.ccnet", &frames.map(|frame| frame.to_bytes()), |mut bytes| {
        let mut decoder = Decoder::default();
        while let Some(frame) = decoder.push(&mut bytes) {
            black_box(Reply::parse(&frame));
        }
    })
}

fn ebds() -> Result<Figure> {
    use ebds::{Decoder, Omnibus, Query, Reply, Request};
    // the device's answers have the length and the shape of what it is asked
    let requests = [Request::Omnibus(Omnibus::default()), Request::Query(Query::ALL[0])];
    let mut frames = requests.map(|request| request.frame(true).to_bytes()).to_vec();
    frames.push(ebds::Frame::new(2, false, &[1, 0x10, 0, 0, 0x54, 0x03]).to_bytes());
    frames.push(ebds::Frame::new(7, false, &[1; 28]).to_bytes());
    figure("codec_mb_per_s.ebds", &frames, |mut bytes| {
        let mut decoder = Decoder::default();
        while let Some(frame) = decoder.push(&mut bytes) {
            black_box(Reply::parse(&frame));
        }
    })
}

fn f56() -> Result<Figure> {
    let count = f56::Reply::draft(&f56::Request::Status, true, 0x90);
    let frames = [f56::ENQ.to_vec(), f56::encode(count.payload()), f56::ACK.to_vec()];
    figure("codec_mb_per_s.f56", &frames, |mut bytes| {
        let mut decoder = f56::Decoder::default();
        while let Some(token) = decoder.push(&mut bytes) {
            if let f56::Token::Payload(payload) = &token {
                black_box(f56::Reply::parse(payload));
            }
        }
    })
}

fn id003() -> Result<Figure> {
    use id003::{Decoder, Frame, Held, Reply, Status};
    let note = Status::Escrow(Held::Note(0x65)).frame();
    let frames = [Status::Idling.frame(), note, Frame::new(0x8a, &[1; 32])];
    figure("codec_mb_per_s.id003", &frames.map(|frame| frame.to_bytes()), |mut bytes| {
        let mut decoder = Decoder::default();
        while let Some(frame) = decoder.push(&mut bytes) {
            black_box(Reply::parse(&frame));
        }
    })
}

fn puloon() -> Result<Figure> {
    use puloon::lcdm4000::{BayCount, Reply, error};
    use puloon::{Decoder, Side, Token};
    let bay = |exit| BayCount { exit, rejected: 1, present: true };
    let bays = [bay(3), bay(1), bay(0), bay(0)];
    let counted = Reply::Counted { command: 0x52, error: error(0), bays }.frame();
    let mut bytes = vec![puloon::ACK];
    counted.write(Side::Device, &mut bytes);
    bytes.push(puloon::EOT);
    figure("codec_mb_per_s.puloon", &[bytes], |mut bytes| {
        let mut decoder = Decoder::new(Side::Device);
        while let Some(token) = decoder.push(&mut bytes) {
            if let Token::Frame(frame) = token {
                black_box(Reply::parse(&frame));
            }
        }
    })
}

fn ssp() -> Result<Figure> {
    use ssp::{Decoder, Frame, Reply, VALIDATOR};
    // a poll in the clear, one that tells a note, and the longest that goes encrypted
    let told = [&[0xf0][..], &[0xf0, 0xef, 3], &[0x7e; 241]];
    let frames = told.map(|data| Frame::new(true, VALIDATOR, data).to_bytes());
    figure("codec_mb_per_s.ssp", &frames, |mut bytes| {
        let mut decoder = Decoder::default();
        while let Some(frame) = decoder.push(&mut bytes) {
            black_box(Reply::parse(frame.data()).events().count());
        }
    })
}

fn figure(name: &'static str, frames: &[Vec<u8>], read: impl Fn(&[u8])) -> Result<Figure> {
    let stream: Vec<u8> = frames.iter().flatten().copied().cycle().take(BYTES).collect();
    let mb_per_s = |work: &dyn Fn()| {
        let mut speeds = Vec::new();
        for _ in 0..RUNS {
            let begun = Instant::now();
            work();
            speeds.push(1.0 / begun.elapsed().as_secs_f64());
        }
        percentile(&mut speeds, 50)
    };
    let value = mb_per_s(&|| read(black_box(&stream)))?;
    let (bound, bound_is) = (200.0, "the bar; higher is better");
    Ok(Figure { name, value, unit: "MB/s", bound, bound_is, peer: None, runs: RUNS })
}
