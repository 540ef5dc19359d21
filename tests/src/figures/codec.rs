//! How fast each codec finds and reads frames, against the check sum alone over the same bytes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use bitspire_hardware::frame::{ccnet, crc16_kermit, f56, id003};

use super::{Figure, percentile};

/// Bytes that are read in one run.
const BYTES: usize = 1_000_000;
const RUNS: usize = 15;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let table = ccnet::Frame::new(ccnet::VALIDATOR, 1, &[b'U'; 119]);
    let ccnet_frames = [ccnet::State::Idling.frame(), ccnet::State::Escrow(4).frame(), table];
    let table = id003::Frame::new(0x8a, &[1; 32]);
    let note = id003::Status::Escrow(id003::Held::Note(0x65)).frame();
    let id003_frames = [id003::Status::Idling.frame(), note, table];
    let count = f56::Reply::draft(&f56::Request::Status, true, 0x90);
    let f56_frames = [f56::ENQ.to_vec(), f56::encode(count.payload()), f56::ACK.to_vec()];
    Ok(vec![
        figure(
            "codec_mb_per_s.ccnet",
            &ccnet_frames.map(|frame| frame.to_bytes()),
            |mut bytes| {
                let mut decoder = ccnet::Decoder::default();
                while let Some(frame) = decoder.push(&mut bytes) {
                    black_box(ccnet::Reply::parse(&frame));
                }
            },
        )?,
        figure("codec_mb_per_s.f56", &f56_frames, |bytes| {
            let mut decoder = f56::Decoder::default();
            for piece in bytes.chunks(64) {
                for token in decoder.push(piece) {
                    if let f56::Token::Payload(payload) = token {
                        black_box(f56::Reply::parse(payload));
                    }
                }
            }
        })?,
        figure(
            "codec_mb_per_s.id003",
            &id003_frames.map(|frame| frame.to_bytes()),
            |mut bytes| {
                let mut decoder = id003::Decoder::default();
                while let Some(frame) = decoder.push(&mut bytes) {
                    black_box(id003::Reply::parse(&frame));
                }
            },
        )?,
    ])
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
    let bound = mb_per_s(&|| {
        black_box(crc16_kermit(black_box(&stream)));
    })?;
    let bound_is = "the check sum alone over the same bytes";
    Ok(Figure { name, value, unit: "MB/s", bound, bound_is, peer: None, runs: RUNS })
}
