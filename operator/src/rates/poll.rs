//! Sources that are asked over HTTP, before anybody wants a price.
//!
//! Promise: a number is read from its own text and never passes through a float; 0, none, and
//! whatever is no number are errors. An answer is as old as its question.
//!
//! Failure policy: what fails is told when it begins and when its reason changes; the last good
//! answer stays until it is too old, and then there is no price.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitspire_shared::exact::decimal;
use bitspire_shared::money::{Currency, MoneyError, Rate, SourceName};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::time::MissedTickBehavior;

use super::{RateSource, Sample};
use crate::app::App;
use crate::config::{Feed, Unit};
use crate::outgoing::{Ask, Server, TargetError};

/// The longest answer that is read.
const MOST_BYTES: usize = 256 << 10;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why an answer is no price.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    #[error("expected a number at {pointer}, found nothing there")]
    Missing { pointer: String },
    #[error("expected a number at {pointer}, got {got}")]
    NoNumber { pointer: String, got: String },
    #[error("expected a price above 0: a source that knows none says 0")]
    Zero,
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// The value at `pointer` (RFC 6901), as its own text.
fn at(json: &RawValue, pointer: &str) -> Option<Box<RawValue>> {
    let mut here: Box<RawValue> = json.to_owned();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        here = match here.get().as_bytes().first()? {
            b'{' => {
                let mut map: BTreeMap<String, Box<RawValue>> =
                    serde_json::from_str(here.get()).ok()?;
                map.remove(&token)?
            }
            b'[' => {
                let list: Vec<Box<RawValue>> = serde_json::from_str(here.get()).ok()?;
                list.into_iter().nth(token.parse().ok()?)?
            }
            _ => return None,
        };
    }
    Some(here)
}

/// The rate that an answer says.
pub(super) fn read(json: &RawValue, pointer: &str, unit: Unit) -> Result<Rate, AnswerError> {
    let missing = || AnswerError::Missing { pointer: pointer.to_owned() };
    let found = at(json, pointer).filter(|found| found.get() != "null").ok_or_else(missing)?;
    let no_number = || AnswerError::NoNumber {
        pointer: pointer.to_owned(),
        got: found.get().chars().take(40).collect(),
    };
    // many exchanges write numbers as texts
    let number = match serde_json::from_str::<String>(found.get()) {
        Ok(text) => Decimal::from_str_exact(&text).ok(),
        Err(_) => decimal(&found).ok(),
    };
    let number = number.ok_or_else(no_number)?;
    if number.is_zero() {
        return Err(AnswerError::Zero);
    }
    let sats = match unit {
        Unit::Rate => Some(number),
        Unit::Price => Decimal::from(100_000_000).checked_div(number),
    };
    let sats = sats.ok_or_else(no_number)?;
    let exact = sats.round_dp_with_strategy(9, RoundingStrategy::MidpointNearestEven);
    Ok(Rate::from_decimal(exact)?)
}

type Memory = Arc<Mutex<BTreeMap<Currency, Sample>>>;

/// What a source said last.
pub(super) struct Polled {
    name: SourceName,
    memory: Memory,
}

impl RateSource for Polled {
    fn name(&self) -> SourceName {
        self.name
    }

    fn sample(&self, currency: Currency, _: Unix) -> Option<Sample> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(&currency).cloned()
    }
}

/// Asks one source.
pub(super) struct Poller {
    feed: Feed,
    server: Server,
    clock: Clock,
    memory: Memory,
    /// What failed last, by currency.
    failing: BTreeMap<Currency, String>,
}

impl Poller {
    pub(super) fn new(feed: &Feed, clock: Clock) -> Result<(Self, Polled), TargetError> {
        let server = Server::configured(&feed.url)?;
        let memory = Memory::default();
        let polled = Polled { name: feed.name, memory: memory.clone() };
        let failing = BTreeMap::new();
        Ok((Self { feed: feed.clone(), server, clock, memory, failing }, polled))
    }

    pub(super) async fn run(mut self, app: Arc<App>) {
        let work = async {
            let mut tick = tokio::time::interval(Duration::from_secs(self.feed.every_s.into()));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.look().await;
            }
        };
        tokio::select! {
            () = app.stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Asks for each currency once.
    pub(super) async fn look(&mut self) {
        for currency in self.feed.currencies.clone() {
            let at = self.clock.now();
            match self.ask(currency).await {
                Ok(rate) => {
                    if self.failing.remove(&currency).is_some() {
                        tracing::info!(event = "rate_source_back", source = %self.feed.name, %currency);
                    }
                    let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                    memory.insert(currency, Sample { rate, at });
                }
                Err(reason) => {
                    if self.failing.get(&currency) != Some(&reason) {
                        let source = self.feed.name;
                        tracing::warn!(event = "rate_source_failed", %source, %currency, reason);
                    }
                    self.failing.insert(currency, reason);
                }
            }
        }
    }

    async fn ask(&self, currency: Currency) -> Result<Rate, String> {
        let code = currency.to_string();
        let filled =
            |text: &str| text.replace("{CODE}", &code).replace("{code}", &code.to_lowercase());
        let ask = Ask::get(filled(&self.feed.path)).within(PATIENCE).at_most(MOST_BYTES);
        let answer = self.server.send(ask).await.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(answer.words());
        }
        let json: Box<RawValue> = answer.json()?;
        read(&json, &filled(&self.feed.pointer), self.feed.unit).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::outgoing::testing::Host;

    fn of(json: &str, pointer: &str, unit: Unit) -> Result<u64, String> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        read(&raw, pointer, unit).map(Rate::nano).map_err(|error| error.to_string())
    }

    /// Loss prevented: notes for nothing, because a source that knows no price says 0; a price that a
    /// float has bent; the number beside the one that was meant.
    #[test]
    fn a_price_is_read_exactly_or_not_at_all() {
        let kraken = r#"{"error":[],"result":{"XXBTZEUR":{"c":["94000.10000","0.1"],"a/b~c":2}}}"#;
        // 10^17 / 94000.1 = 1063828655500.7...
        assert_eq!(of(kraken, "/result/XXBTZEUR/c/0", Unit::Price), Ok(1_063_828_655_501));
        assert_eq!(of(kraken, "/result/XXBTZEUR/a~1b~0c", Unit::Rate), Ok(2_000_000_000));
        let lnbits = r#"{"rate":1063.8297872340425,"price":94000.0}"#;
        assert_eq!(of(lnbits, "/rate", Unit::Rate), Ok(1_063_829_787_234));
        assert_eq!(of(lnbits, "/price", Unit::Price), Ok(1_063_829_787_234));
        assert_eq!(of("[1e3]", "/0", Unit::Rate), Ok(1_000_000_000_000));
        assert_eq!(of(r#"{"a":9007199254740991}"#, "/a", Unit::Price), Ok(11));
        for (json, pointer, words) in [
            (r#"{"rate":0.0,"price":0.0}"#, "/rate", "above 0"),
            (r#"{"rate":"0"}"#, "/rate", "above 0"),
            (r#"{"rate":null}"#, "/rate", "found nothing"),
            (r#"{"price":1}"#, "/rate", "found nothing"),
            (r#"{"rate":-1}"#, "/rate", "expected a number"),
            (r#"{"rate":"-1"}"#, "/rate", "sats per unit"),
            (r#"{"rate":[1]}"#, "/rate", "expected a number"),
            (r#"{"rate":"dear"}"#, "/rate", "expected a number"),
            ("[1]", "/1", "found nothing"),
            ("7", "/rate", "found nothing"),
        ] {
            let refused = of(json, pointer, Unit::Rate).unwrap_err();
            assert!(refused.contains(words), "{json}: {refused}");
        }
    }

    proptest! {
        /// Loss prevented: a poller that dies of what a stranger's server says.
        #[test]
        fn whatever_is_said_is_read(text in "\\PC*", pointer in "(/[a-z0-9~]{0,3}){0,3}") {
            let raw = serde_json::value::to_raw_value(&json!({"a": [text, {"b": 1}]})).unwrap();
            let _ = read(&raw, &pointer, Unit::Price);
        }

        /// Loss prevented: a price that is turned round with an error worth a sat in a million.
        #[test]
        fn a_price_turns_into_its_rate(cents in 1u64..100_000_000_000) {
            let raw = serde_json::value::RawValue::from_string(format!("[{}.{:02}]", cents / 100, cents % 100));
            let nano = u128::from(read(&raw.unwrap(), "/0", Unit::Price).unwrap().nano());
            // 10^17 sats * 10^9 over cents * 10^-2, to the nearest
            let (exact, cents) = (10_u128.pow(19), u128::from(cents));
            prop_assert!((nano * cents).abs_diff(exact) * 2 <= cents);
        }
    }

    pub(crate) fn feed(base: &str, path: &str, pointer: &str) -> Feed {
        Feed {
            name: "there".parse().unwrap(),
            url: base.to_owned(),
            path: path.to_owned(),
            pointer: pointer.to_owned(),
            unit: Unit::Rate,
            currencies: ["EUR".parse().unwrap()].into(),
            every_s: 20,
        }
    }

    /// Loss prevented: a price whose source died an hour ago and that looks new; no price although
    /// the source is back.
    #[tokio::test]
    async fn an_answer_is_as_old_as_its_question() {
        let answer = async |axum::extract::Path(code): axum::extract::Path<String>| {
            assert_eq!(code, "EUR-eur");
            Json(json!({"eur": {"last": 7}}))
        };
        let host = Host::start(Router::new().route("/t/{code}", get(answer))).await;
        let now = Arc::new(std::sync::atomic::AtomicU64::new(100));
        let told = now.clone();
        let clock = Clock::new(move || Unix(told.load(std::sync::atomic::Ordering::SeqCst)));
        let feed = feed(&host.base(), "/t/{CODE}-{code}", "/{code}/last");
        let (mut poller, polled) = Poller::new(&feed, clock).unwrap();
        let eur = "EUR".parse().unwrap();
        assert_eq!(polled.sample(eur, NOW), None);
        poller.look().await;
        let first = Sample { rate: Rate::from_nano(7_000_000_000).unwrap(), at: Unix(100) };
        assert_eq!(polled.sample(eur, NOW), Some(first.clone()));
        host.reach(false).await;
        now.store(150, std::sync::atomic::Ordering::SeqCst);
        poller.look().await;
        assert_eq!(polled.sample(eur, NOW), Some(first), "as old as it is");
        assert!(poller.failing[&eur].contains("not sent"));
        host.reach(true).await;
        poller.look().await;
        assert_eq!(polled.sample(eur, NOW).unwrap().at, Unix(150));
        assert!(poller.failing.is_empty());
    }

    /// An LNbits whose providers are off answers 0.0 for every currency: that is no price.
    pub(crate) async fn lnbits_without_providers(base: &str) {
        let feed = feed(base, "/api/v1/rate/{CODE}", "/rate");
        let (mut poller, polled) = Poller::new(&feed, Clock::new(|| NOW)).unwrap();
        poller.look().await;
        let eur = "EUR".parse().unwrap();
        assert_eq!(polled.sample(eur, NOW), None);
        assert!(poller.failing[&eur].contains("above 0"), "{:?}", poller.failing);
    }

    /// The time does not matter to what answers from memory.
    const NOW: Unix = Unix(100);
}
