//! One codec per protocol.
//!
//! Promise: decoders take bytes in any split, never panic, never hold more than one frame's limit,
//! and find the next frame after garbage; codes that we do not know stay `Unknown` with their raw
//! bytes.

pub mod ccnet;
mod codes;
pub mod ebds;
pub mod escpos;
pub mod f56;
pub mod id003;
mod kermit;
pub mod puloon;
pub mod ssp;
mod stream;

use crc::{CRC_16_KERMIT, Crc, Table};

/// Sixteen bytes at a step, from a table of 8 KiB that is made when the program is built.
static KERMIT: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_KERMIT);

/// CRC-16/KERMIT (polynomial 1021 reflected, start 0), which ID-003, CCNET and the Fujitsu F56 use;
/// each sends the low byte first.
#[must_use]
pub fn crc16_kermit(bytes: &[u8]) -> u16 {
    KERMIT.checksum(bytes)
}

/// Upper-case hex with a space between bytes, as protocol documents print frames.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(3));
    for byte in bytes {
        if !text.is_empty() {
            text.push(' ');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16).map(|d| d.to_ascii_uppercase()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a wrong check makes every frame of three device families undeliverable.
    #[test]
    fn the_published_check_value_holds() {
        assert_eq!(crc16_kermit(b"123456789"), 0x2189);
        assert_eq!(crc16_kermit(&[]), 0);
        // JCM ID-003 STATUS REQUEST, low byte first
        assert_eq!(crc16_kermit(&[0xfc, 0x05, 0x11]).to_le_bytes(), [0x27, 0x56]);
    }

    /// Loss prevented: a device that babbles makes the machine ask the system for memory at each
    /// frame, until there is none for the journal.
    #[test]
    fn decoders_do_not_allocate() {
        use super::{ccnet, ebds, f56, id003, puloon, ssp};
        let status = f56::Reply::draft(&f56::Request::Status, true, 0x90);
        let mut drawers = vec![puloon::ACK];
        let counted = puloon::lcdm4000::Request::Status.frame();
        counted.write(puloon::Side::Device, &mut drawers);
        let mut stream = [
            ccnet::State::Escrow(4).frame().to_bytes(),
            ebds::Request::Query(ebds::Query::ALL[0]).frame(true).to_bytes(),
            f56::encode(status.payload()),
            id003::Frame::new(0x8a, &[1; 32]).to_bytes(),
            drawers,
            ssp::Frame::new(true, ssp::VALIDATOR, &[0xf0, 0xef, 3, 0x7f]).to_bytes(),
        ]
        .concat();
        // whole, in pieces, and damaged
        let whole = stream.clone();
        stream.extend(whole.iter().map(|byte| byte ^ 0x10));
        stream.extend(whole);
        let mut found = [0usize; 6];
        let mut decoders = (
            ccnet::Decoder::default(),
            ebds::Decoder::default(),
            f56::Decoder::default(),
            id003::Decoder::default(),
            puloon::Decoder::new(puloon::Side::Device),
            ssp::Decoder::default(),
        );
        let counted = allocation_counter::measure(|| {
            for size in [stream.len(), 1, 7] {
                for piece in stream.chunks(size) {
                    let [mut a, mut b, mut c, mut d, mut e, mut f] = [piece; 6];
                    while let Some(frame) = decoders.0.push(&mut a) {
                        let _ = ccnet::Reply::parse(&frame);
                        found[0] += 1;
                    }
                    while let Some(frame) = decoders.1.push(&mut b) {
                        let _ = ebds::Reply::parse(&frame);
                        found[1] += 1;
                    }
                    while let Some(token) = decoders.2.push(&mut c) {
                        if let f56::Token::Payload(payload) = &token {
                            found[2] += usize::from(f56::Reply::parse(payload).is_some());
                        }
                    }
                    while let Some(frame) = decoders.3.push(&mut d) {
                        let _ = id003::Reply::parse(&frame);
                        found[3] += 1;
                    }
                    while let Some(token) = decoders.4.push(&mut e) {
                        if let puloon::Token::Frame(frame) = token {
                            let _ = puloon::lcdm4000::Reply::parse(&frame);
                            found[4] += 1;
                        }
                    }
                    while let Some(frame) = decoders.5.push(&mut f) {
                        found[5] += 1;
                        let reply = ssp::Reply::parse(frame.data());
                        assert!(reply.events().all(|event| !event.raw.is_empty()));
                    }
                }
            }
        });
        assert!(found.iter().all(|frames| *frames >= 3), "{found:?}");
        assert_eq!(counted.count_total, 0, "{found:?} frames");
    }

    /// Loss prevented: a fault whose raw code is printed wrongly sends the technician astray.
    #[test]
    fn hex_is_as_documents_print_it() {
        assert_eq!(hex(&[0xfc, 0x05, 0x0a]), "FC 05 0A");
        assert_eq!(hex(&[]), "");
    }
}
