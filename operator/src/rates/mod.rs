//! Prices: sources, and the rule by which their answers become one rate.
//!
//! Promise: a rate names each source that it came from and how old each answer was; an answer that
//! is too old counts for nothing, and so does one that lies as far ahead of a clock set back. The median of the fresh ones is taken, without those that are far
//! from it, because one odd source must not set the price; the spread moves it in the operator's
//! favour, in either direction. No floating point.
//!
//! Failure policy: without a fresh answer there is no rate, and so no sale; the last known one is
//! never used instead. Where most sources do not agree, there is none either.

mod poll;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::money::{
    self, Currency, Direction, MAX_ORIGINS, MoneyError, Origins, PPM, Rate, SourceName,
};
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::poll::Poller;
use crate::app::App;
use crate::config::RateRules;
use crate::outgoing::TargetError;

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
        "rates: expected an answer for {currency} of at most {max_age_s} s, the newest is {age_s} s old"
    )]
    Stale {
        /// The currency.
        currency: Currency,
        /// Seconds since the newest answer.
        age_s: u64,
        /// Seconds that are allowed.
        max_age_s: u64,
    },
    /// Most sources are far from the median.
    #[error(
        "rates: {agree} of {fresh} fresh answers for {currency} agree; expected more than half"
    )]
    Disagree {
        /// The currency.
        currency: Currency,
        /// Answers near the median.
        agree: usize,
        /// Fresh answers.
        fresh: usize,
    },
    /// The spread makes it a rate that cannot be.
    #[error("rates: the price with its spread cannot be used")]
    Money(#[from] MoneyError),
}

impl Classified for RateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown { .. } => Kind::Permanent,
            Self::Stale { .. } | Self::Disagree { .. } => Kind::Transient,
            Self::Money(error) => error.kind(),
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
    /// Seconds between its answer and the quote, by our clock.
    pub age_s: u64,
}

/// A rate and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// The median of the fresh answers that agree, of two the lower one; moved by the spread.
    pub rate: Rate,
    /// Every fresh answer that agrees.
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
pub struct Rates {
    sources: Vec<Box<dyn RateSource>>,
    rules: RateRules,
}

/// The sources that are configured; those that are asked over HTTP are asked from now on.
///
/// # Errors
/// [`TargetError`]: TLS cannot be set up.
pub fn start(app: &Arc<App>) -> Result<Rates, TargetError> {
    let config = &app.config.rates;
    let mut sources: Vec<Box<dyn RateSource>> = vec![Box::new(FixedRates(config.fixed.clone()))];
    for feed in &config.feeds {
        let (poller, polled) = Poller::new(feed, app.clock.clone())?;
        app.tasks.spawn(poller.run(app.clone()));
        sources.push(Box::new(polled));
    }
    Ok(Rates::new(sources, config.rules))
}

impl Rates {
    /// Asks these.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn RateSource>>, rules: RateRules) -> Self {
        Self { sources, rules }
    }

    /// The rate of `currency` at `now`, for a sale in this direction.
    ///
    /// # Errors
    /// [`RateError`] without fresh answers that agree.
    pub fn price(
        &self,
        currency: Currency,
        direction: Direction,
        now: Unix,
    ) -> Result<Price, RateError> {
        let max_age_s = self.rules.max_age_s;
        let samples: Vec<_> = self
            .sources
            .iter()
            .filter_map(|source| Some((source.name(), source.sample(currency, now)?)))
            .collect();
        let Some(age_s) = samples.iter().map(|(_, sample)| now.distance(sample.at)).min() else {
            return Err(RateError::Unknown { currency });
        };
        let mut agree: Vec<_> = samples
            .into_iter()
            .filter(|(_, sample)| now.distance(sample.at) <= max_age_s)
            .collect();
        let fresh = agree.len();
        let stale = || RateError::Stale { currency, age_s, max_age_s };
        let first = median(&mut agree).ok_or_else(stale)?;
        agree.retain(|(_, sample)| self.near(first, sample.rate));
        if agree.len().saturating_mul(2) <= fresh {
            return Err(RateError::Disagree { currency, agree: agree.len(), fresh });
        }
        let rate = self.spread(median(&mut agree).ok_or_else(stale)?, direction)?;
        let origin = |(source, sample): (SourceName, Sample)| Origin {
            source,
            rate_nano: sample.rate.nano(),
            age_s: now.distance(sample.at),
        };
        Ok(Price { rate, origins: agree.into_iter().map(origin).collect() })
    }

    fn near(&self, median: Rate, one: Rate) -> bool {
        let away = u128::from(one.nano().abs_diff(median.nano())).saturating_mul(PPM.into());
        away <= u128::from(median.nano()).saturating_mul(self.rules.max_deviation_ppm.into())
    }

    /// Whoever buys notes pays more sats for each unit, whoever sells them gets fewer; rounded the
    /// same way.
    fn spread(&self, rate: Rate, direction: Direction) -> Result<Rate, MoneyError> {
        let (whole, spread) = (u128::from(PPM), u128::from(self.rules.spread_ppm));
        let nano = u128::from(rate.nano());
        let moved = match direction {
            Direction::CashOut => nano.saturating_mul(whole.saturating_add(spread)).div_ceil(whole),
            Direction::CashIn => nano.saturating_mul(whole.saturating_sub(spread)) / whole,
        };
        let overflow = |_| MoneyError::Overflow { what: "rate with its spread" };
        Rate::from_nano(u64::try_from(moved).map_err(overflow)?)
    }
}

/// Sorts them; the middle one, of two the lower one.
fn median(samples: &mut [(SourceName, Sample)]) -> Option<Rate> {
    samples.sort_by_key(|(_, sample)| sample.rate);
    let middle = samples.len().saturating_sub(1) / 2;
    samples.get(middle).map(|(_, sample)| sample.rate)
}

#[cfg(test)]
pub(crate) use poll::tests::lnbits_without_providers;

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

    const RULES: RateRules = RateRules { max_age_s: 60, max_deviation_ppm: 20_000, spread_ppm: 0 };

    fn by(rules: RateRules, sources: Vec<Says>, direction: Direction) -> Result<u64, RateError> {
        let boxed = sources.into_iter().map(|s| Box::new(s) as Box<dyn RateSource>).collect();
        let rates = Rates::new(boxed, rules);
        rates.price("EUR".parse().unwrap(), direction, Unix(1_000)).map(|p| p.rate.nano())
    }

    fn price(sources: Vec<Says>) -> Result<u64, RateError> {
        by(RULES, sources, Direction::CashOut)
    }

    /// Loss prevented: the price of an hour ago sells notes.
    #[test]
    fn only_fresh_answers_count_and_the_middle_one_wins() {
        let all = vec![Says("a", 1_000, 1_000), Says("b", 990, 990), Says("c", 1_010, 950)];
        assert_eq!(price(all), Ok(1_000));
        assert_eq!(price(vec![Says("a", 7, 939), Says("b", 9, 940)]), Ok(9), "60 s is fresh");
        let currency = "EUR".parse().unwrap();
        let stale = price(vec![Says("a", 7, 939)]);
        assert_eq!(stale, Err(RateError::Stale { currency, age_s: 61, max_age_s: 60 }));
        let set_back = price(vec![Says("a", 7, 1_061)]);
        assert_eq!(set_back, Err(RateError::Stale { currency, age_s: 61, max_age_s: 60 }));
        assert_eq!(price(vec![Says("a", 7, 1_060)]), Ok(7), "clocks are set by a little");
        assert_eq!(price(vec![]), Err(RateError::Unknown { currency }));
        assert_eq!(price(vec![Says("a", 1_000, 1_000), Says("b", 1_020, 1_000)]), Ok(1_000));
    }

    /// Loss prevented: one broken source sets the price, or two that contradict each other do.
    #[test]
    fn odd_answers_are_dropped_and_doubt_sells_nothing() {
        let currency = "EUR".parse().unwrap();
        let at = |rates: &[u64]| {
            let names = ["a", "b", "c", "d", "e"];
            price(names.iter().zip(rates).map(|(name, rate)| Says(name, *rate, 1_000)).collect())
        };
        assert_eq!(at(&[1, 1_000, 1_001]), Ok(1_000), "without the odd one: of two the lower");
        assert_eq!(at(&[1, 1_000, 1_001, 1_002, 9_999]), Ok(1_001));
        assert_eq!(at(&[1_000, 1_020]), Ok(1_000), "2 % is near");
        assert_eq!(at(&[1_000, 1_021]), Err(RateError::Disagree { currency, agree: 1, fresh: 2 }));
        let split = at(&[1_000, 1_001, 5_000, 5_001]);
        assert_eq!(split, Err(RateError::Disagree { currency, agree: 2, fresh: 4 }));
    }

    /// Loss prevented: a spread that pays the customer, or a sat lost in its rounding.
    #[test]
    fn the_spread_is_the_operators_in_both_directions() {
        let at = |spread_ppm, direction| {
            let rules = RateRules { spread_ppm, ..RULES };
            by(rules, vec![Says("a", 1_000_001, 1_000)], direction)
        };
        assert_eq!(at(0, Direction::CashOut), Ok(1_000_001));
        assert_eq!(at(5_000, Direction::CashOut), Ok(1_005_002), "1005001.005, up");
        assert_eq!(at(5_000, Direction::CashIn), Ok(995_000), "995000.995, down");
        let most = vec![Says("a", u64::MAX, 1_000)];
        let rules = RateRules { spread_ppm: 1, ..RULES };
        assert!(matches!(by(rules, most, Direction::CashOut), Err(RateError::Money(_))));
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
        let rates = Rates::new(vec![Box::new(fixed)], RULES);
        let price = rates.price(eur, Direction::CashIn, Unix(5)).unwrap();
        assert_eq!(price.origins, [Origin { source: SourceName::FIXED, rate_nano: 42, age_s: 0 }]);
        let usd = "USD".parse().unwrap();
        assert_eq!(
            rates.price(usd, Direction::CashIn, Unix(5)),
            Err(RateError::Unknown { currency: usd })
        );
    }
}
