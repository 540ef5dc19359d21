//! Currencies, amounts of cash and notes, in minor units.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::MoneyError;

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
