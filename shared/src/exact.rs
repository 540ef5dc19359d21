//! Numbers and maps in JSON that others write, read exactly.
//!
//! Promise: a number is read from its own text, never through a floating-point value; an object
//! with a key twice is refused, since two readers could take two different values.
//!
//! Failure policy: each way of not being the number that is wanted is a [`NumberError`] that shows
//! at most 40 characters of what came.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use rust_decimal::Decimal;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::canonical::MAX_INTEGER;

/// Why a JSON value is not the number that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NumberError {
    /// A number in quotes: some readers take it, some do not.
    #[error("expected a JSON number, got a text: {0}")]
    Quoted(String),
    /// A text of digits beyond ASCII, which some languages read as a number.
    #[error("expected a JSON number, got digits beyond ASCII: {0}")]
    UnicodeDigits(String),
    /// Null, a truth value, an array or an object.
    #[error("expected a JSON number, got {0}")]
    NotANumber(String),
    /// Below zero.
    #[error("expected a number that is not negative, got {0}")]
    Negative(String),
    /// A point or an exponent where a whole number belongs, `100.0` included.
    #[error("expected a whole number without point or exponent, got {0}")]
    Fraction(String),
    /// A whole number beyond 2^53 - 1, or a decimal that cannot be held exactly.
    #[error("expected a number within 2^53 - 1 and 28 digits, got {0}")]
    Huge(String),
}

/// A whole number that is not negative, up to 2^53 - 1.
///
/// # Errors
/// The [`NumberError`] that applies.
pub fn integer(raw: &RawValue) -> Result<u64, NumberError> {
    let text = number_text(raw)?;
    if text.contains(['.', 'e', 'E']) {
        return Err(NumberError::Fraction(shown(text)));
    }
    let number = text.parse().map_err(|_| NumberError::Huge(shown(text)))?;
    if number > MAX_INTEGER { Err(NumberError::Huge(shown(text))) } else { Ok(number) }
}

/// A decimal number that is not negative, exact to the last digit written; exponents are read too,
/// since writers that print a binary fraction use them for small ones.
///
/// # Errors
/// The [`NumberError`] that applies.
pub fn decimal(raw: &RawValue) -> Result<Decimal, NumberError> {
    let text = number_text(raw)?;
    match exact_decimal(text) {
        Some(value) if value <= Decimal::from(MAX_INTEGER) => Ok(value),
        _ => Err(NumberError::Huge(shown(text))),
    }
}

/// The value of a JSON number's text, if it can be held to its last digit.
pub(crate) fn exact_decimal(text: &str) -> Option<Decimal> {
    let value = match text.split_once(['e', 'E']) {
        None => Decimal::from_str_exact(text).ok()?,
        Some((mantissa, _)) => {
            // the reader of exponents rounds a mantissa that is too long
            Decimal::from_str_exact(mantissa).ok()?;
            Decimal::from_scientific(text).ok()?
        }
    };
    Some(value.normalize())
}

/// The text of a JSON number that does not begin with a minus sign.
fn number_text(raw: &RawValue) -> Result<&str, NumberError> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'0'..=b'9') => Ok(text),
        Some(b'-') => Err(NumberError::Negative(shown(text))),
        Some(b'"') => {
            let inner: String = serde_json::from_str(text).unwrap_or_default();
            let foreign = inner.chars().any(|c| c.is_numeric() && !c.is_ascii());
            let shown = shown(&inner);
            Err(if foreign {
                NumberError::UnicodeDigits(shown)
            } else {
                NumberError::Quoted(shown)
            })
        }
        _ => Err(NumberError::NotANumber(shown(text))),
    }
}

/// What an error may show of a text that came from outside.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `value` as a JSON number with exactly its digits.
///
/// # Errors
/// Never for a decimal: each of them prints as a JSON number.
pub fn to_number(value: Decimal) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(value.normalize().to_string())
}

/// Reads a JSON object; an array of the values in order, which a derived reader would take as
/// well, is refused.
///
/// # Errors
/// What is wrong with the text.
pub fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().starts_with('{') {
        serde_json::from_str(text)
    } else {
        Err(serde_json::Error::custom("expected a JSON object"))
    }
}

/// A JSON object in which no key stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueMap<K: Ord, V>(pub BTreeMap<K, V>);

impl<'de, K, V> Deserialize<'de> for UniqueMap<K, V>
where
    K: Ord + Deserialize<'de>,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Unique(PhantomData))
    }
}

struct Unique<K, V>(PhantomData<fn() -> (K, V)>);

impl<'de, K, V> Visitor<'de> for Unique<K, V>
where
    K: Ord + Deserialize<'de>,
    V: Deserialize<'de>,
{
    type Value = UniqueMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without repeated keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice in one object"));
            }
        }
        Ok(UniqueMap(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    /// Loss prevented: an amount that two readers of one text take for two different amounts.
    #[test]
    fn an_integer_has_one_reading() {
        assert_eq!(integer(&raw("0")), Ok(0));
        assert_eq!(integer(&raw("9007199254740991")), Ok(MAX_INTEGER));
        for huge in ["9007199254740992", "99999999999999999999999999"] {
            assert_eq!(integer(&raw(huge)), Err(NumberError::Huge(huge.into())));
        }
        for fraction in ["100.0", "1e3", "1E3", "0.5"] {
            assert_eq!(integer(&raw(fraction)), Err(NumberError::Fraction(fraction.into())));
        }
        assert_eq!(integer(&raw("-1")), Err(NumberError::Negative("-1".into())));
        assert_eq!(integer(&raw("\"100\"")), Err(NumberError::Quoted("100".into())));
        for arabic in ["\"\u{663}\u{664}\"", "\"\\u0663\\u0664\""] {
            let expected = NumberError::UnicodeDigits("\u{663}\u{664}".into());
            assert_eq!(integer(&raw(arabic)), Err(expected));
        }
        for other in ["null", "true", "[1]", "{}"] {
            assert_eq!(integer(&raw(other)), Err(NumberError::NotANumber(other.into())));
        }
    }

    /// Loss prevented: a rate or a fraction that changes in its last digits while it is read.
    #[test]
    fn a_decimal_is_exact() {
        let read = |text: &str| decimal(&raw(text)).unwrap().to_string();
        assert_eq!(read("0.07769999999999999"), "0.07769999999999999");
        assert_eq!(read("5e-05"), "0.00005");
        assert_eq!(read("1.25E+3"), "1250");
        assert_eq!(read("20.00"), "20");
        for huge in ["1e-40", "0.00000000000000000000000000001", "1e20", "9007199254740993.5"] {
            assert_eq!(decimal(&raw(huge)), Err(NumberError::Huge(huge.into())), "{huge}");
        }
        assert!(matches!(decimal(&raw("-0.1")), Err(NumberError::Negative(_))));
    }

    /// Loss prevented: a document with two values for one key, each side acting on another one.
    #[test]
    fn a_key_stands_once() {
        let map: UniqueMap<String, u8> = serde_json::from_str(r#"{"a":1,"b":2}"#).unwrap();
        assert_eq!(map.0.len(), 2);
        assert!(serde_json::from_str::<UniqueMap<String, u8>>(r#"{"a":1,"\u0061":1}"#).is_err());
        assert!(object::<UniqueMap<String, u8>>(" {}").is_ok());
        assert!(object::<(u8,)>("[1]").is_err());
    }

    proptest! {
        /// Loss prevented: a number that comes back from the wire as another one.
        #[test]
        fn what_is_written_is_read_back(mantissa in 0..MAX_INTEGER, scale in 0u32..12) {
            let value = Decimal::from_i128_with_scale(i128::from(mantissa), scale);
            prop_assert_eq!(decimal(&to_number(value).unwrap()), Ok(value.normalize()));
            prop_assert_eq!(integer(&raw(&mantissa.to_string())), Ok(mantissa));
        }
    }
}
