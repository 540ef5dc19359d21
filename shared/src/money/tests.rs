//! Money in both directions, at its edges.

use proptest::prelude::*;

use super::*;

fn currency(code: &str) -> Currency {
    code.parse().unwrap()
}

/// Loss prevented: a JPY amount read with two decimals pays 1/100 of the notes.
#[test]
fn currencies_have_their_own_exponent() {
    assert_eq!(currency("USD").minor_per_major(), 100);
    assert_eq!(currency("JPY").minor_per_major(), 1);
    assert_eq!(currency("KWD").minor_per_major(), 1_000);
    assert_eq!(Fiat::new(-50, currency("EUR")).to_string(), "-0.50 EUR");
    assert_eq!(Fiat::new(1_000, currency("JPY")).to_string(), "1000 JPY");
    for bad in ["usd", "XXX", "US", "USDT", "XAU", "D E", ""] {
        assert!(bad.parse::<Currency>().is_err(), "{bad}");
    }
}

/// Loss prevented: a fee that the machine and the service round differently is a mismatch.
#[test]
fn fee_legs_round_half_to_even() {
    let fee = |ppm, sats| FeePpm::new(ppm).unwrap().of(Sats(sats)).0;
    assert_eq!(fee(50_000, 222_320), 11_116);
    assert_eq!(fee(30_000, 82_386), 2_472);
    assert_eq!(fee(50_000, 82_386), 4_119);
    assert_eq!(fee(500_000, 1), 0, "0.5 goes to the even 0");
    assert_eq!(fee(500_000, 3), 2, "1.5 goes to the even 2");
    assert_eq!(fee(500_000, 5), 2, "2.5 goes to the even 2");
    assert_eq!(fee(1_000_000, u64::MAX), u64::MAX);
}

/// Loss prevented: a conversion rounded for the customer costs the operator a sat a sale.
#[test]
fn conversion_rounds_for_the_operator() {
    let rate = Rate::from_decimal("0.5".parse().unwrap()).unwrap();
    let one = Fiat::new(300, currency("USD"));
    assert_eq!(rate.principal(one, Direction::CashOut), Ok(Sats(2)));
    assert_eq!(rate.principal(one, Direction::CashIn), Ok(Sats(1)));
    assert!(rate.principal(Fiat::new(-1, currency("USD")), Direction::CashIn).is_err());
}

/// Loss prevented: a rate of 0 sells notes for nothing (LNbits answers 0.0 for unknown ones).
#[test]
fn a_rate_is_above_zero_and_exact() {
    for bad in ["0", "-1", "0.0000000001", "99999999999"] {
        assert!(Rate::from_decimal(bad.parse().unwrap()).is_err(), "{bad}");
    }
    let rate = Rate::from_decimal("1063.829787234".parse().unwrap()).unwrap();
    assert_eq!(rate.nano(), 1_063_829_787_234);
    assert_eq!(rate.to_decimal().to_string(), "1063.829787234");
}

proptest! {
    /// Loss prevented: rounding that drifts by more than a sat, or in the wrong direction.
    #[test]
    fn the_two_directions_differ_by_at_most_a_sat(
        minor in 0i64..1_000_000_000, nano in 1u64..10_000_000_000_000,
    ) {
        let rate = Rate::from_nano(nano).unwrap();
        let fiat = Fiat::new(minor, currency("EUR"));
        let up = rate.principal(fiat, Direction::CashOut).unwrap();
        let down = rate.principal(fiat, Direction::CashIn).unwrap();
        prop_assert!(up.0 == down.0 || up.0 == down.0 + 1);
    }

    /// Loss prevented: `max_fiat_minor` one cent too high promises sats that are not there.
    #[test]
    fn fiat_for_is_the_largest_amount_that_fits(
        sats in 0u64..10_000_000_000, nano in 1_000u64..10_000_000_000_000,
    ) {
        let rate = Rate::from_nano(nano).unwrap();
        let fits = rate.fiat_for(Sats(sats), currency("USD")).unwrap();
        prop_assert!(rate.principal(fits, Direction::CashIn).unwrap().0 <= sats);
        let more = Fiat::new(fits.minor + 1, fits.currency);
        prop_assert!(rate.principal(more, Direction::CashIn).unwrap().0 > sats);
    }

    /// Loss prevented: a fee above its principal would make the wire amount negative.
    #[test]
    fn a_fee_is_within_half_a_sat_and_never_above_the_principal(
        ppm in 0u32..=PPM, sats in any::<u64>(),
    ) {
        let fee = u128::from(FeePpm::new(ppm).unwrap().of(Sats(sats)).0);
        let exact = u128::from(sats) * u128::from(ppm);
        prop_assert!((fee * u128::from(PPM)).abs_diff(exact) * 2 <= u128::from(PPM));
        prop_assert!(fee <= u128::from(sats));
    }
}
