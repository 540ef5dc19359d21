//! Codes inside ID-003 frames: why a note was refused, what has failed, which country.

use bitspire_shared::money::Currency;

use crate::frame::codes::codes;

codes!(
    /// Why a note was refused (data of REJECTING).
    RejectReason {
        0x71 Insertion "inserted wrongly",
        0x72 Magnetic "magnetic pattern does not fit",
        0x73 ResidualInHead "a note was left in the head",
        0x74 Calibration "calibration or compensation error",
        0x75 Conveying "note was not conveyed well",
        0x76 Denomination "denomination not recognised",
        0x77 PhotoPattern "photo pattern does not fit",
        0x78 PhotoLevel "photo level does not fit",
        0x79 Inhibited "not accepted now, or escrow timed out",
        0x7a Reserved "reserved reason",
        0x7b Operation "operation error",
        0x7c ResidualAtStacker "a note was left at the stacker",
        0x7d Length "length does not fit",
        0x7e PhotoPattern2 "colour pattern does not fit",
        0x7f TrueBill "true-bill feature missing",
    }
);

codes!(
    /// What has failed (data of FAILURE).
    FailureCode {
        0xa2 StackMotor "stack motor",
        0xa5 TransportSpeed "transport motor speed",
        0xa6 TransportMotor "transport motor",
        0xa7 AlignMotor "aligning motor",
        0xa8 AlignMotor2 "aligning motor, second",
        0xa9 Solenoid "reverse solenoid",
        0xab CashboxNotReady "cashbox not ready",
        0xac Optic "optical sensor",
        0xad Magnetic "magnetic sensor",
        0xaf HeadRemoved "validator head removed",
        0xb0 BootRom "boot ROM",
        0xb1 ExternalRom "external ROM",
        0xb2 Rom "ROM",
        0xb3 ExternalRomWrite "writing the external ROM",
    }
);

/// Country codes of the currency table.
const COUNTRIES: [(u8, &str); 13] = [
    (0x01, "USD"),
    (0x08, "CAD"),
    (0x16, "CHF"),
    (0x27, "RUB"),
    (0x2d, "CNY"),
    (0x30, "HUF"),
    (0x51, "KZT"),
    (0x5c, "UAH"),
    (0x63, "INR"),
    (0x78, "IRR"),
    (0x7e, "MDL"),
    (0x86, "UZS"),
    (0xe0, "EUR"),
];

/// The currency of a country code, if we know the code.
#[must_use]
pub fn country_currency(country: u8) -> Option<Currency> {
    let (_, code) = COUNTRIES.iter().find(|(known, _)| *known == country)?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: notes of a currency whose code is misspelt here would never be taken.
    #[test]
    fn every_country_has_a_currency() {
        for (country, code) in COUNTRIES {
            assert_eq!(country_currency(country).map(|c| c.code()).as_deref(), Some(code));
        }
        assert_eq!(country_currency(0x02), None);
    }

    /// Loss prevented: a code that changes on its way through the types sends the technician to
    /// the wrong part.
    #[test]
    fn codes_go_there_and_back() {
        for code in 0..=255 {
            assert_eq!(RejectReason::from_code(code).code(), code);
            assert_eq!(FailureCode::from_code(code).code(), code);
        }
        assert_eq!((RejectReason::KNOWN.len(), FailureCode::KNOWN.len()), (15, 14));
        assert_eq!(RejectReason::from_code(0x7d).to_string(), "length does not fit (7D)");
        assert_eq!(FailureCode::from_code(0xc1).to_string(), "unknown code (C1)");
    }
}
