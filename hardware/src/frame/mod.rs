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

/// CRC-16/KERMIT (polynomial 1021 reflected, start 0), which ID-003, CCNET and the Fujitsu F56 use;
/// each sends the low byte first.
#[must_use]
pub fn crc16_kermit(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x8408 } else { crc >> 1 }
        })
    })
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

    /// Loss prevented: a fault whose raw code is printed wrongly sends the technician astray.
    #[test]
    fn hex_is_as_documents_print_it() {
        assert_eq!(hex(&[0xfc, 0x05, 0x0a]), "FC 05 0A");
        assert_eq!(hex(&[]), "");
    }
}
