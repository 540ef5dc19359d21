//! The price of bitcoin and the fees on it: exact, with one rounding rule each.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Currency, Direction, Fiat, MoneyError, Sats};

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

    /// The smallest amount of `currency` that is worth at least `sats`: what they cost, rounded up.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub fn cost_of(self, sats: Sats, currency: Currency) -> Result<Fiat, MoneyError> {
        let overflow = MoneyError::Overflow { what: "sats to fiat" };
        let scale = RATE_SCALE.saturating_mul(u128::from(currency.minor_per_major()));
        let scaled = u128::from(sats.0).checked_mul(scale).ok_or(overflow.clone())?;
        let minor = scaled.div_ceil(u128::from(self.0));
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
