//! Codes inside CCNET frames: why a note was refused, what has failed, which country.

use bitspire_shared::money::Currency;

use crate::frame::codes::codes;

codes!(
    /// Why a note was refused (data of REJECTING).
    RejectReason {
        0x60 Insertion "inserted wrongly",
        0x61 Magnetic "magnetic or dielectric pattern does not fit",
        0x62 RemainsInHead "a note was left in the head",
        0x63 Multiplying "compensation error",
        0x64 Conveying "note was not conveyed well",
        0x65 Identification "denomination not recognised",
        0x66 Verification "verification failed",
        0x67 Optic "optical pattern does not fit",
        0x68 Inhibited "denomination not accepted now",
        0x69 Capacitance "capacitance does not fit",
        0x6a Operation "operation error",
        0x6c Length "length does not fit",
        0x6d Ultraviolet "ultraviolet pattern does not fit",
        0x92 BarcodeUnreadable "barcode cannot be read",
        0x93 BarcodeLength "barcode has another number of characters",
        0x94 BarcodeStart "barcode has no start sequence",
        0x95 BarcodeStop "barcode has a wrong stop sequence",
    }
);

codes!(
    /// What has failed (data of GENERIC FAILURE).
    FailureCode {
        0x50 StackMotor "stack motor",
        0x51 TransportSpeed "transport motor speed",
        0x52 TransportMotor "transport motor",
        0x53 AlignMotor "aligning motor",
        0x54 InitialBoxStatus "initial cassette status",
        0x55 Optic "optic canal",
        0x56 Magnetic "magnetic canal",
        0x57 OperatingSystem "operating system",
        0x58 MemoryStick "memory stick",
        0x59 DataLink "data link",
        0x5a I2c "I2C bus",
        0x5b Spi "SPI bus",
        0x5c SecondCpu "second processor",
        0x5f Capacitance "capacitance canal",
    }
);

codes!(
    /// What has failed in a Bill-to-Bill unit (data of its GENERIC FAILURE).
    UnitFailure {
        0x50 StackMotor "drop cassette motor",
        0x51 TransportSpeed "transport motor speed",
        0x52 TransportMotor "transport motor",
        0x53 AlignMotor "aligning motor",
        0x54 InitialBoxStatus "initial cassette status",
        0x55 Optic "optic canal",
        0x56 Magnetic "magnetic canal",
        0x57 Cassette1 "motor of recycling cassette 1",
        0x58 Cassette2 "motor of recycling cassette 2",
        0x59 Cassette3 "motor of recycling cassette 3",
        0x5a UnitTransport "transport motor of the unit",
        0x5b Switch1 "switch motor 1",
        0x5c Switch2 "switch motor 2",
        0x5d Dispenser1 "dispenser motor 1",
        0x5e Dispenser2 "dispenser motor 2",
        0x5f Capacitance "capacitance canal",
        0xca Retracted "notes that nobody took were drawn back",
    }
);

codes!(
    /// Where a note is stuck in a Bill-to-Bill unit (data of BILL-TO-BILL UNIT JAMMED).
    UnitJam {
        0x70 Cassette1 "in recycling cassette 1",
        0x71 Cassette2 "in recycling cassette 2",
        0x72 Cassette3 "in recycling cassette 3",
        0x73 Transport "in the transport path",
        0x74 Switch "in the switch",
        0x75 Dispenser "in the dispenser",
    }
);

/// Countries of the bill table by ISO 3166. Real units name the euro `EUR`; whatever is a currency's
/// code is that currency.
const COUNTRIES: &str = "ARE AED, ARG ARS, ARM AMD, AUS AUD, AZE AZN, BLR BYN, BRA BRL, CAN CAD, \
    CHE CHF, CHL CLP, CHN CNY, COL COP, CZE CZK, DNK DKK, EGY EGP, GBR GBP, GEO GEL, GTM GTQ, \
    HKG HKD, HUN HUF, IDN IDR, IND INR, ISR ILS, JPN JPY, KAZ KZT, KEN KES, KGZ KGS, KOR KRW, \
    MDA MDL, MEX MXN, MYS MYR, NGA NGN, NOR NOK, NZL NZD, PER PEN, PHL PHP, POL PLN, PRY PYG, \
    ROU RON, RUS RUB, SAU SAR, SGP SGD, SRB RSD, SWE SEK, THA THB, TJK TJS, TUR TRY, UKR UAH, \
    URY UYU, USA USD, UZB UZS, VNM VND, ZAF ZAR";

/// The currency of a country code, if we know the code.
#[must_use]
pub fn country_currency(country: [u8; 3]) -> Option<Currency> {
    let country = std::str::from_utf8(&country).ok()?;
    let by_country = COUNTRIES.split(", ").find_map(|pair| pair.strip_prefix(country));
    by_country.map_or(country, str::trim_start).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: notes of a currency whose country is misspelt here would never be taken, or
    /// be taken for another's.
    #[test]
    fn every_country_has_a_currency() {
        for pair in COUNTRIES.split(", ") {
            let (country, currency) = pair.split_once(' ').unwrap();
            assert!(country.parse::<Currency>().is_err(), "{country} is a currency itself");
            let found = country_currency(country.as_bytes().try_into().unwrap());
            assert_eq!(found.map(|c| c.code()).as_deref(), Some(currency));
        }
        assert_eq!(country_currency(*b"EUR").map(|c| c.code()).as_deref(), Some("EUR"));
        for unknown in [*b"   ", *b"XYZ", *b"US ", [0; 3], [0xff; 3]] {
            assert_eq!(country_currency(unknown), None);
        }
    }

    /// Loss prevented: a code that changes on its way through the types sends the technician to
    /// the wrong part.
    #[test]
    fn codes_go_there_and_back() {
        for code in 0..=255 {
            assert_eq!(RejectReason::from_code(code).code(), code);
            assert_eq!(FailureCode::from_code(code).code(), code);
            assert_eq!(UnitFailure::from_code(code).code(), code);
            assert_eq!(UnitJam::from_code(code).code(), code);
        }
        assert_eq!((RejectReason::KNOWN.len(), FailureCode::KNOWN.len()), (17, 14));
        assert_eq!((UnitFailure::KNOWN.len(), UnitJam::KNOWN.len()), (17, 6));
        assert_eq!(RejectReason::from_code(0x6c).to_string(), "length does not fit (6C)");
        assert_eq!(FailureCode::from_code(0x5d).to_string(), "unknown code (5D)");
    }
}
