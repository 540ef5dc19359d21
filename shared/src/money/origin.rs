//! Where a price came from: names of sources and how old their answers were.
//!
//! Promise: a handful of short names in one fixed order, so that it is copied like the price that it
//! stands beside, fits on a receipt and has one spelling under a signature.
//!
//! Failure policy: a name of another form, a source named twice and a fifth source are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::MoneyError;

/// Most sources of one price.
pub const MAX_ORIGINS: usize = 4;
/// Longest name, in characters.
const MAX_NAME: usize = 12;

/// Name of somebody who knows prices: 1 to 12 characters of `a-z`, `0-9`, `.`, `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName {
    /// Padded with zeros.
    bytes: [u8; MAX_NAME],
}

impl SourceName {
    /// A rate that the operator's configuration sets.
    pub const FIXED: Self = Self { bytes: *b"fixed\0\0\0\0\0\0\0" };

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
        let name = self.bytes.get(..end).unwrap_or_default();
        // only the characters that `from_str` lets in
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl FromStr for SourceName {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-');
        if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(good) {
            return Err(MoneyError::Range {
                what: "name of a price source",
                expected: "1 to 12 characters of a-z, 0-9, . and -",
                got: text.chars().take(24).collect(),
            });
        }
        let mut bytes = [0u8; MAX_NAME];
        for (slot, byte) in bytes.iter_mut().zip(text.bytes()) {
            *slot = byte;
        }
        Ok(Self { bytes })
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SourceName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SourceName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// One source of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Who said it.
    pub source: SourceName,
    /// Seconds between its answer and the quote.
    pub age_s: u16,
}

/// The sources of one price, by name; at most [`MAX_ORIGINS`], none where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origins([Option<Origin>; MAX_ORIGINS]);

impl Origins {
    /// These sources, in the order of their names.
    ///
    /// # Errors
    /// [`MoneyError::Range`] for too many, or for one that is named twice.
    pub fn new(all: impl IntoIterator<Item = Origin>) -> Result<Self, MoneyError> {
        let mut sorted: Vec<Origin> = all.into_iter().collect();
        sorted.sort_unstable();
        let twice = sorted.windows(2).any(|pair| match pair {
            [a, b] => a.source == b.source,
            _ => false,
        });
        if sorted.len() > MAX_ORIGINS || twice {
            return Err(MoneyError::Range {
                what: "sources of a price",
                expected: "at most 4, each once",
                got: format!("{sorted:?}"),
            });
        }
        let mut list = [None; MAX_ORIGINS];
        for (slot, origin) in list.iter_mut().zip(sorted) {
            *slot = Some(origin);
        }
        Ok(Self(list))
    }

    /// The sources, by name.
    pub fn iter(&self) -> impl Iterator<Item = Origin> {
        self.0.into_iter().flatten()
    }

    /// Whether no source is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The sources of two prices together, each with its older age; of more than fit, the first by
    /// name.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut all = std::collections::BTreeMap::new();
        for Origin { source, age_s } in self.iter().chain(other.iter()) {
            let oldest = all.entry(source).or_insert(age_s);
            *oldest = age_s.max(*oldest);
        }
        let mut list = [None; MAX_ORIGINS];
        for (slot, (source, age_s)) in list.iter_mut().zip(all) {
            *slot = Some(Origin { source, age_s });
        }
        Self(list)
    }
}

impl Serialize for Origins {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(Vec::<Origin>::deserialize(d)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(source: &str, age_s: u16) -> Origin {
        Origin { source: source.parse().unwrap(), age_s }
    }

    /// Loss prevented: one list of sources in two orders is two texts, and a good quote is refused.
    #[test]
    fn sources_have_one_order_and_one_spelling() {
        let one = Origins::new([origin("kraken", 3), origin("bitstamp", 5)]).unwrap();
        let other = Origins::new([origin("bitstamp", 5), origin("kraken", 3)]).unwrap();
        assert_eq!(one, other);
        let wire = serde_json::to_string(&one).unwrap();
        assert_eq!(wire, r#"[{"source":"bitstamp","age_s":5},{"source":"kraken","age_s":3}]"#);
        assert_eq!(serde_json::from_str::<Origins>(&wire).unwrap(), one);
        for bad in ["", "Kraken", "a b", "thirteen-char", "a:b", "é"] {
            assert!(bad.parse::<SourceName>().is_err(), "{bad:?}");
        }
        assert_eq!("fixed".parse(), Ok(SourceName::FIXED));
        assert!(Origins::new([origin("a", 1), origin("a", 2)]).is_err(), "named twice");
        assert!(Origins::new(["a", "b", "c", "d", "e"].map(|name| origin(name, 1))).is_err());
    }

    /// Loss prevented: a receipt over two prices that states the younger answer only.
    #[test]
    fn together_the_older_age_stands() {
        let one = Origins::new([origin("a", 3), origin("b", 9)]).unwrap();
        let other = Origins::new([origin("b", 2), origin("c", 1)]).unwrap();
        let both = Origins::new([origin("a", 3), origin("b", 9), origin("c", 1)]).unwrap();
        assert_eq!((one.with(&other), other.with(&one)), (both, both));
        assert!(Origins::default().is_empty() && !both.is_empty());
    }
}
