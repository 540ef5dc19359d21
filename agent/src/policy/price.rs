//! What the last signed prices were.
//!
//! Promise: a new rate is compared with the rates of the last signed quotes, for as long as those
//! say something: a service whose price source is broken, or whose key is stolen, does not sell at a
//! tenth of the price.

use bitspire_shared::money::Rate;
use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

/// How far a rate may lie from the median of the recent ones, in parts per million: a tenth.
pub const BAND_PPM: u32 = 100_000;
/// How long a rate says something about the next one, in seconds: six hours.
const AGE_S: u64 = 6 * 3_600;
/// Rates that are kept.
const KEPT: usize = 7;

/// The last rates, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rates(Vec<(Unix, Rate)>);

impl Rates {
    /// Those that are recent enough to compare with.
    #[must_use]
    pub fn recent(&self, now: Unix) -> Vec<Rate> {
        let recent = self.0.iter().filter(|(at, _)| now.since(*at) < AGE_S);
        recent.map(|(_, rate)| *rate).collect()
    }

    /// A quote with this rate held.
    pub fn add(&mut self, rate: Rate, now: Unix) {
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push((now, rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: the price of last week refuses every quote of today.
    #[test]
    fn old_rates_say_nothing() {
        let rate = |nano| Rate::from_nano(nano).unwrap();
        let mut rates = Rates::default();
        for n in 1..=9 {
            rates.add(rate(n), Unix(n));
        }
        assert_eq!(rates.recent(Unix(9)), (3..=9).map(rate).collect::<Vec<_>>());
        assert_eq!(rates.recent(Unix(AGE_S + 8)), [rate(9)]);
        assert!(rates.recent(Unix(AGE_S + 9)).is_empty());
    }
}
