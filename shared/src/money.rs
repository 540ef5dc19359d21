//! Amounts: sats, millisats, fiat minor units, rates and fees.
//!
//! Promise: checked integers only; no floating point between the wire and the ledger. One rounding
//! rule: a fee leg is rounded half to even; a conversion is rounded so that the operator never
//! loses a sat to it.
//!
//! Failure policy: overflow and mixed currencies are [`MoneyError`]s, never a wrapped number.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::error::{Classified, Kind};

/// A sum that cannot be made, or a text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// The result does not fit.
    #[error("{what}: the result does not fit")]
    Overflow {
        /// Which computation.
        what: &'static str,
    },
    /// Two currencies in one sum.
    #[error("expected an amount in {expected}, got one in {got}")]
    Mixed {
        /// The currency of the left side.
        expected: Currency,
        /// The currency that came.
        got: Currency,
    },
    /// Not an active ISO-4217 code, or one without minor units.
    #[error("currency: expected an ISO-4217 code with a known exponent, got {got:?}")]
    Currency {
        /// The text that came (at most 8 characters of it).
        got: String,
    },
    /// A number outside what the type allows.
    #[error("{what}: expected {expected}, got {got}")]
    Range {
        /// Which value.
        what: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

impl Classified for MoneyError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Which way the cash goes, named from the customer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The customer feeds notes and claims a withdraw: outbound for the operator's wallet.
    CashIn,
    /// The customer pays the machine's invoice and gets notes: inbound for the operator's wallet.
    CashOut,
}

impl Direction {
    /// The wire name: `cash_in` or `cash_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CashIn => "cash_in",
            Self::CashOut => "cash_out",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// The sum.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`].
            pub const fn plus(self, other: Self) -> Result<Self, MoneyError> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Ok(Self(sum)),
                    None => Err(MoneyError::Overflow { what: concat!("sum of ", $what) }),
                }
            }

            /// The difference.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`] where `other` is the larger one.
            pub const fn minus(self, other: Self) -> Result<Self, MoneyError> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Ok(Self(rest)),
                    None => Err(MoneyError::Overflow { what: concat!("difference of ", $what) }),
                }
            }

            /// The sum of all.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`].
            pub fn sum(all: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
                all.into_iter().try_fold(Self::ZERO, Self::plus)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

amount!(
    /// Whole satoshis.
    Sats, "sats"
);
amount!(
    /// Thousandths of a satoshi, as Lightning counts.
    Msat, "msat"
);

impl Sats {
    /// The same amount in millisats.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub const fn to_msat(self) -> Result<Msat, MoneyError> {
        match self.0.checked_mul(1_000) {
            Some(msat) => Ok(Msat(msat)),
            None => Err(MoneyError::Overflow { what: "sats to msat" }),
        }
    }
}

impl Msat {
    /// Whole sats, if there is no fraction of a sat in it.
    #[must_use]
    pub const fn to_sats_exact(self) -> Option<Sats> {
        if self.0.is_multiple_of(1_000) { Some(self.to_sats_floor()) } else { None }
    }

    /// Whole sats; the fraction of a sat is dropped.
    #[must_use]
    pub const fn to_sats_floor(self) -> Sats {
        Sats(self.0 / 1_000)
    }
}

/// An ISO-4217 currency with a known number of minor-unit digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Codes without minor digits, by ISO 4217.
const EXPONENT_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF";
/// Codes with three minor digits.
const EXPONENT_3: &str = "BHD IQD JOD KWD LYD OMR TND";
/// Codes with two minor digits.
const EXPONENT_2: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN \
    BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL \
    GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR \
    LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB \
    PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP \
    SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";

impl Currency {
    /// The code, three upper-case letters.
    #[must_use]
    pub fn code(&self) -> String {
        self.0.iter().map(|b| char::from(*b)).collect()
    }

    /// Digits after the point: USD 2, JPY 0, KWD 3.
    #[must_use]
    pub fn exponent(self) -> u32 {
        let code = self.code();
        if EXPONENT_0.contains(&code) {
            0
        } else if EXPONENT_3.contains(&code) {
            3
        } else {
            2
        }
    }

    /// Minor units in one major unit: USD 100, JPY 1, KWD 1000.
    #[must_use]
    pub fn minor_per_major(self) -> u32 {
        match self.exponent() {
            0 => 1,
            3 => 1_000,
            _ => 100,
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let known = |list: &str| list.split_ascii_whitespace().any(|code| code == text);
        match text.as_bytes() {
            &[a, b, c] if known(EXPONENT_0) || known(EXPONENT_2) || known(EXPONENT_3) => {
                Ok(Self([a, b, c]))
            }
            _ => Err(MoneyError::Currency { got: text.chars().take(8).collect() }),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An amount of one currency in its minor units (cents, yen, fils).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fiat {
    /// Minor units.
    pub minor: i64,
    /// The currency.
    pub currency: Currency,
}

impl Fiat {
    /// `minor` minor units of `currency`.
    #[must_use]
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`MoneyError::Mixed`], [`MoneyError::Overflow`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.same(other)?;
        let minor = self.minor.checked_add(other.minor);
        minor.map_or(Err(MoneyError::Overflow { what: "sum of fiat" }), |minor| {
            Ok(Self { minor, ..self })
        })
    }

    /// The difference of two amounts of one currency; it may be negative.
    ///
    /// # Errors
    /// [`MoneyError::Mixed`], [`MoneyError::Overflow`].
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.same(other)?;
        let minor = self.minor.checked_sub(other.minor);
        minor.map_or(Err(MoneyError::Overflow { what: "difference of fiat" }), |minor| {
            Ok(Self { minor, ..self })
        })
    }

    fn same(self, other: Self) -> Result<(), MoneyError> {
        if self.currency == other.currency {
            return Ok(());
        }
        Err(MoneyError::Mixed { expected: self.currency, got: other.currency })
    }
}

/// As people read it: `20.00 USD`, `-0.50 EUR`, `1000 JPY`.
impl fmt::Display for Fiat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = Decimal::new(self.minor, self.currency.exponent());
        write!(f, "{amount} {}", self.currency)
    }
}

/// The face value of one note in minor units of the machine's currency; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Denomination(u32);

impl Denomination {
    /// A note worth `minor` minor units.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for 0.
    pub fn from_minor(minor: u32) -> Result<Self, MoneyError> {
        if minor == 0 {
            return Err(MoneyError::Range {
                what: "denomination",
                expected: "more than 0 minor units",
                got: minor.to_string(),
            });
        }
        Ok(Self(minor))
    }

    /// A note worth `major` whole units of `currency`, as cassette documents say it.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for 0, [`MoneyError::Overflow`].
    pub fn from_major(major: u32, currency: Currency) -> Result<Self, MoneyError> {
        let minor = major.checked_mul(currency.minor_per_major());
        Self::from_minor(minor.ok_or(MoneyError::Overflow { what: "denomination" })?)
    }

    /// The value in minor units.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0
    }

    /// Whole units of `currency`, if the note has no minor part.
    #[must_use]
    pub fn major(self, currency: Currency) -> Option<u32> {
        let unit = currency.minor_per_major();
        self.0.checked_rem(unit).filter(|rest| *rest == 0)?;
        self.0.checked_div(unit)
    }

    /// The value of `count` such notes in minor units.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn times(self, count: u32) -> Result<i64, MoneyError> {
        i64::from(self.0)
            .checked_mul(i64::from(count))
            .ok_or(MoneyError::Overflow { what: "value of notes" })
    }
}

impl<'de> Deserialize<'de> for Denomination {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_minor(u32::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// A price of bitcoin: sats per major unit of fiat, times 10^9, so nine exact decimals.
///
/// On signed strings and in RPC bodies it is this integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Rate(u64);

/// Parts of one sat in a [`Rate`].
const RATE_SCALE: u128 = 1_000_000_000;

impl Rate {
    /// A rate of `nano` billionths of a sat per major unit.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for 0: a source that knows no price answers 0 (LNbits does).
    pub fn from_nano(nano: u64) -> Result<Self, MoneyError> {
        if nano == 0 {
            return Err(MoneyError::Range {
                what: "rate",
                expected: "more than 0 sats per unit",
                got: nano.to_string(),
            });
        }
        Ok(Self(nano))
    }

    /// A rate from a decimal number of sats per major unit; digits past the ninth are refused.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for zero, negative, too many digits or too large.
    pub fn from_decimal(sats_per_unit: Decimal) -> Result<Self, MoneyError> {
        let refused = || MoneyError::Range {
            what: "rate",
            expected: "sats per unit, above 0, at most 9 decimals",
            got: sats_per_unit.to_string(),
        };
        let scaled = sats_per_unit.checked_mul(Decimal::new(1_000_000_000, 0));
        let scaled = scaled.ok_or_else(refused)?.normalize();
        if scaled.scale() != 0 {
            return Err(refused());
        }
        Self::from_nano(scaled.to_u64().ok_or_else(refused)?)
    }

    /// Billionths of a sat per major unit.
    #[must_use]
    pub const fn nano(self) -> u64 {
        self.0
    }

    /// Sats per major unit as an exact decimal, for a stamp or a page.
    #[must_use]
    pub fn to_decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), 9).normalize()
    }

    /// What `fiat` is worth in sats, rounded so that the operator never loses a sat: up for
    /// cash_out, down for cash_in.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for a negative amount, [`MoneyError::Overflow`].
    pub fn principal(self, fiat: Fiat, direction: Direction) -> Result<Sats, MoneyError> {
        let overflow = MoneyError::Overflow { what: "fiat to sats" };
        let minor = u128::try_from(fiat.minor).map_err(|_| MoneyError::Range {
            what: "amount",
            expected: "not below 0",
            got: fiat.to_string(),
        })?;
        let scale = RATE_SCALE.saturating_mul(u128::from(fiat.currency.minor_per_major()));
        let product = minor.checked_mul(u128::from(self.0)).ok_or(overflow.clone())?;
        let sats = match direction {
            Direction::CashOut => product.div_ceil(scale),
            Direction::CashIn => product.checked_div(scale).ok_or(overflow.clone())?,
        };
        u64::try_from(sats).map(Sats).map_err(|_| overflow)
    }

    /// The largest amount of `currency` whose [`principal`](Self::principal) for cash_in is at
    /// most `sats`.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn fiat_for(self, sats: Sats, currency: Currency) -> Result<Fiat, MoneyError> {
        // floor(m * rate / scale) <= s  <=>  m * rate < (s + 1) * scale
        let overflow = MoneyError::Overflow { what: "sats to fiat" };
        let scale = RATE_SCALE.saturating_mul(u128::from(currency.minor_per_major()));
        let above = u128::from(sats.0).saturating_add(1).checked_mul(scale);
        let below = above.ok_or(overflow.clone())?.saturating_sub(1);
        let minor = below.checked_div(u128::from(self.0)).ok_or(overflow.clone())?;
        i64::try_from(minor).map(|minor| Fiat { minor, currency }).map_err(|_| overflow)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_nano(u64::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// A fee in parts per million of the principal; at most 1 000 000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FeePpm(u32);

/// One whole in parts per million.
pub const PPM: u32 = 1_000_000;

impl FeePpm {
    /// No fee.
    pub const ZERO: Self = Self(0);
    /// The most that super and operator may take together, per direction: 15 %.
    pub const CAP: Self = Self(150_000);

    /// A fee of `ppm` parts per million.
    ///
    /// # Errors
    /// [`MoneyError::Range`] above 1 000 000.
    pub fn new(ppm: u32) -> Result<Self, MoneyError> {
        if ppm > PPM {
            return Err(MoneyError::Range {
                what: "fee",
                expected: "at most 1000000 ppm",
                got: ppm.to_string(),
            });
        }
        Ok(Self(ppm))
    }

    /// Parts per million.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// Both together.
    ///
    /// # Errors
    /// [`MoneyError::Range`] above the whole.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        Self::new(self.0.saturating_add(other.0))
    }

    /// This share of `principal`, rounded half to even: 222 320 at 5 % is 11 116.
    #[must_use]
    pub fn of(self, principal: Sats) -> Sats {
        const WHOLE: u128 = PPM as u128;
        let product = u128::from(principal.0).saturating_mul(u128::from(self.0));
        let (whole, rest) = (product.div_euclid(WHOLE), product.rem_euclid(WHOLE));
        let half = WHOLE.div_euclid(2);
        let up = rest > half || (rest == half && whole % 2 == 1);
        let sats = if up { whole.saturating_add(1) } else { whole };
        // ppm <= 1 000 000, so the share is never above the principal
        Sats(u64::try_from(sats).unwrap_or(principal.0))
    }
}

impl<'de> Deserialize<'de> for FeePpm {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(d)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
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
}
