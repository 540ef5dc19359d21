//! Prices: sources, and the rule by which their answers become one rate.
//!
//! Promise: a rate names each source that it came from and how old each answer was; an answer that
//! is too old counts for nothing. The median of the fresh ones is taken, because one odd source
//! must not set the price. No floating point.
//!
//! Failure policy: without a fresh answer there is no rate, and so no sale; the last known one is
//! never used instead.

use std::collections::BTreeMap;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::{self, Currency, MAX_ORIGINS, Origins, Rate, SourceName};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Seconds after which a source's answer counts for nothing.
pub const MAX_AGE_S: u64 = 60;

/// Why there is no rate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RateError {
    /// No source knows the currency.
    #[error("rates: no source knows {currency}; configure one")]
    Unknown {
        /// The currency.
        currency: Currency,
    },
    /// Every answer is too old.
    #[error(
        "rates: expected an answer for {currency} of at most {MAX_AGE_S} s, the newest is {age_s} s old"
    )]
    Stale {
        /// The currency.
        currency: Currency,
        /// Seconds since the newest answer.
        age_s: u64,
    },
}

impl Classified for RateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } => Kind::Permanent,
            Self::Stale { .. } => Kind::Transient,
        }
    }
}

/// One source's last answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Sats per major unit.
    pub rate: Rate,
    /// When the source gave it, by our clock.
    pub at: Unix,
}

/// Somebody who knows prices. Asked while a customer waits, so it answers from memory.
pub trait RateSource: Send + Sync + 'static {
    /// Its name, for the quote's row and the receipt.
    fn name(&self) -> SourceName;

    /// Its last answer for a currency; `None` where it knows none.
    fn sample(&self, currency: Currency, now: Unix) -> Option<Sample>;
}

/// Rates that the configuration sets; always fresh.
#[derive(Clone, Debug)]
pub struct FixedRates(pub BTreeMap<Currency, Rate>);

impl RateSource for FixedRates {
    fn name(&self) -> SourceName {
        SourceName::FIXED
    }

    fn sample(&self, currency: Currency, now: Unix) -> Option<Sample> {
        self.0.get(&currency).map(|rate| Sample { rate: *rate, at: now })
    }
}

/// Where a rate came from, as the quote's row keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The source.
    pub source: SourceName,
    /// Its answer.
    pub rate_nano: u64,
    /// Seconds between its answer and the quote.
    pub age_s: u64,
}

/// A rate and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The median of the fresh answers; of two, the lower one.
    pub rate: Rate,
    /// Every fresh answer.
    pub origins: Vec<Origin>,
}

/// The sources as a quote and a receipt name them. Of more than fit there, those around the median:
/// it is theirs.
#[must_use]
pub fn stated(origins: &[Origin]) -> Origins {
    let first = (origins.len().saturating_sub(1) / 2).saturating_sub(MAX_ORIGINS / 2);
    let near = origins.iter().skip(first).take(MAX_ORIGINS);
    near.fold(Origins::default(), |all, Origin { source, age_s, .. }| {
        let age_s = u16::try_from(*age_s).unwrap_or(u16::MAX);
        let one = Origins::new([money::Origin { source: *source, age_s }]);
        all.with(&one.unwrap_or_default())
    })
}

/// The sources together.
pub struct Rates(Vec<Box<dyn RateSource>>);

impl Rates {
    /// Asks these.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn RateSource>>) -> Self {
        Self(sources)
    }

    /// The rate of `currency` at `now`.
    ///
    /// # Errors
    /// [`RateError`] without a fresh answer.
    pub fn price(&self, currency: Currency, now: Unix) -> Result<Price, RateError> {
        let samples: Vec<_> = self
            .0
            .iter()
            .filter_map(|source| Some((source.name(), source.sample(currency, now)?)))
            .collect();
        let Some(age_s) = samples.iter().map(|(_, sample)| now.since(sample.at)).min() else {
            return Err(RateError::Unknown { currency });
        };
        let mut fresh: Vec<_> =
            samples.into_iter().filter(|(_, sample)| now.since(sample.at) <= MAX_AGE_S).collect();
        fresh.sort_by_key(|(_, sample)| sample.rate);
        let middle = fresh.len().saturating_sub(1) / 2;
        let rate = fresh.get(middle).map(|(_, sample)| sample.rate);
        let rate = rate.ok_or(RateError::Stale { currency, age_s })?;
        let origin = |(source, sample): (SourceName, Sample)| Origin {
            source,
            rate_nano: sample.rate.nano(),
            age_s: now.since(sample.at),
        };
        Ok(Price { rate, origins: fresh.into_iter().map(origin).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(&'static str, u64, u64);

    impl RateSource for Says {
        fn name(&self) -> SourceName {
            self.0.parse().unwrap()
        }

        fn sample(&self, _: Currency, _: Unix) -> Option<Sample> {
            Some(Sample { rate: Rate::from_nano(self.1).unwrap(), at: Unix(self.2) })
        }
    }

    fn price(sources: Vec<Says>) -> Result<u64, RateError> {
        let boxed = sources.into_iter().map(|s| Box::new(s) as Box<dyn RateSource>).collect();
        Rates::new(boxed).price("EUR".parse().unwrap(), Unix(1_000)).map(|p| p.rate.nano())
    }

    /// Loss prevented: the price of an hour ago, or of one broken source, sells notes.
    #[test]
    fn only_fresh_answers_count_and_the_middle_one_wins() {
        let all = vec![Says("a", 100, 1_000), Says("b", 1, 990), Says("c", 101, 950)];
        assert_eq!(price(all), Ok(100));
        assert_eq!(price(vec![Says("a", 7, 939), Says("b", 9, 940)]), Ok(9), "60 s is fresh");
        let currency = "EUR".parse().unwrap();
        let stale = price(vec![Says("a", 7, 939)]);
        assert_eq!(stale, Err(RateError::Stale { currency, age_s: 61 }));
        assert_eq!(price(vec![]), Err(RateError::Unknown { currency }));
        assert_eq!(price(vec![Says("a", 5, 1_000), Says("b", 9, 1_000)]), Ok(5));
    }

    /// Loss prevented: a receipt that names a source whose answer was passed over.
    #[test]
    fn the_sources_around_the_median_are_stated() {
        let origin = |n: u64| Origin {
            source: format!("s{n}").parse().unwrap(),
            rate_nano: 100 + n,
            age_s: n,
        };
        let names = |count: u64| {
            let all: Vec<_> = (0..count).map(origin).collect();
            let names = stated(&all).iter().map(|one| one.source.to_string()).collect::<Vec<_>>();
            names.join(" ")
        };
        assert_eq!(names(0), "");
        assert_eq!(names(1), "s0");
        assert_eq!(names(4), "s0 s1 s2 s3");
        assert_eq!(names(7), "s1 s2 s3 s4", "s3 is the median");
    }

    /// Loss prevented: a configured rate that is taken for stale stops every sale.
    #[test]
    fn a_fixed_rate_is_always_fresh() {
        let eur: Currency = "EUR".parse().unwrap();
        let fixed = FixedRates([(eur, Rate::from_nano(42).unwrap())].into());
        let rates = Rates::new(vec![Box::new(fixed)]);
        let price = rates.price(eur, Unix(5)).unwrap();
        assert_eq!(price.origins, [Origin { source: SourceName::FIXED, rate_nano: 42, age_s: 0 }]);
        let usd = "USD".parse().unwrap();
        assert_eq!(rates.price(usd, Unix(5)), Err(RateError::Unknown { currency: usd }));
    }
}
