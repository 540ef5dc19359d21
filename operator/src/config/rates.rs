//! Where prices come from, and how they become one.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::money::{Currency, PPM, Rate, SourceName};
use bitspire_shell::config::ConfigError;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{at_least_one, wrong};
use crate::outgoing::Server;

/// The widest spread, in parts per million: 5 %.
const MOST_SPREAD_PPM: u32 = 50_000;

/// What kind of source it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedKind {
    /// An LNbits instance: `/api/v1/rate/{CODE}`.
    Lnbits,
    /// Whoever answers in JSON.
    Http,
}

/// What a source's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Units of the currency for one bitcoin.
    Price,
    /// Sats for one unit of the currency.
    Rate,
}

/// `[rates]`, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked structs document each value")]
pub struct RawRates {
    pub max_age_s: u32,
    pub max_deviation_ppm: u32,
    pub spread_ppm: u32,
    pub fixed: BTreeMap<String, String>,
    pub sources: BTreeMap<String, RawFeed>,
}

/// A table under `[rates.sources]`; which keys it may have is up to its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked struct documents each value")]
pub struct RawFeed {
    pub kind: FeedKind,
    pub url: String,
    pub currencies: Vec<String>,
    pub path: Option<String>,
    pub pointer: Option<String>,
    pub unit: Option<Unit>,
    pub every_s: Option<u32>,
}

/// How answers become a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// Seconds after which a source's answer counts for nothing.
    pub max_age_s: u64,
    /// An answer that is further from the median, in parts per million of it, is dropped.
    pub max_deviation_ppm: u32,
    /// So much, in parts per million, the price is moved in the operator's favour.
    pub spread_ppm: u32,
}

/// A source that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Its name, as quotes and receipts have it.
    pub name: SourceName,
    /// Its address.
    pub url: String,
    /// What comes after it; `{CODE}` and `{code}` stand for the currency.
    pub path: String,
    /// Where the number is in the answer (JSON pointer, RFC 6901); with `{CODE}` and `{code}`.
    pub pointer: String,
    /// What the number is.
    pub unit: Unit,
    /// What it is asked for.
    pub currencies: BTreeSet<Currency>,
    /// Seconds between two times of asking.
    pub every_s: u32,
}

/// What was configured about prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatesConfig {
    /// How answers become a price.
    pub rules: RateRules,
    /// Rates that are set here.
    pub fixed: BTreeMap<Currency, Rate>,
    /// Sources that are asked.
    pub feeds: Vec<Feed>,
}

fn currency(key: &str, code: &str) -> Result<Currency, ConfigError> {
    // the environment cannot spell upper-case keys
    code.to_uppercase().parse().map_err(|e| wrong(key, "an ISO-4217 code", e))
}

pub(super) fn check(raw: &RawRates) -> Result<RatesConfig, ConfigError> {
    let max_age_s = at_least_one("rates.max_age_s", raw.max_age_s)?.get();
    if raw.max_deviation_ppm == 0 || raw.max_deviation_ppm > PPM {
        let expected = "1 to 1000000 parts per million";
        return Err(wrong("rates.max_deviation_ppm", expected, raw.max_deviation_ppm));
    }
    if raw.spread_ppm > MOST_SPREAD_PPM {
        let expected = format!("at most {MOST_SPREAD_PPM} parts per million");
        return Err(wrong("rates.spread_ppm", &expected, raw.spread_ppm));
    }
    let mut fixed = BTreeMap::new();
    for (code, text) in &raw.fixed {
        let key = format!("rates.fixed.{code}");
        let rate = text.parse::<Decimal>().ok().and_then(|rate| Rate::from_decimal(rate).ok());
        let expected = "sats per unit of the currency, above 0, at most 9 decimals, in quotes";
        fixed.insert(currency(&key, code)?, rate.ok_or_else(|| wrong(&key, expected, text))?);
    }
    let mut feeds = Vec::new();
    for (name, source) in &raw.sources {
        let feed = feed(name, source, max_age_s)?;
        if let Some(both) = feed.currencies.iter().find(|code| fixed.contains_key(code)) {
            let key = format!("rates.sources.{name}.currencies");
            let expected = format!("no {both}, since rates.fixed sets it: take one of them away");
            return Err(wrong(&key, &expected, both));
        }
        feeds.push(feed);
    }
    let rules = RateRules {
        max_age_s: max_age_s.into(),
        max_deviation_ppm: raw.max_deviation_ppm,
        spread_ppm: raw.spread_ppm,
    };
    Ok(RatesConfig { rules, fixed, feeds })
}

fn feed(name: &str, raw: &RawFeed, max_age_s: u32) -> Result<Feed, ConfigError> {
    let key = |field: &str| format!("rates.sources.{name}.{field}");
    let expected = "a source's name: 1 to 12 characters of a-z, 0-9, . and -; not fixed";
    let source = name.parse::<SourceName>().ok().filter(|name| *name != SourceName::FIXED);
    let source = source.ok_or_else(|| wrong(&format!("rates.sources.{name}"), expected, name))?;
    Server::configured(&raw.url)
        .map_err(|error| wrong(&key("url"), &error.to_string(), "another"))?;
    let (path, pointer, unit) = match raw.kind {
        FeedKind::Lnbits => {
            let given = [
                ("path", raw.path.is_some()),
                ("pointer", raw.pointer.is_some()),
                ("unit", raw.unit.is_some()),
            ];
            if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
                return Err(wrong(&key(field), "none: LNbits has its own", "one"));
            }
            ("/api/v1/rate/{CODE}".to_owned(), "/rate".to_owned(), Unit::Rate)
        }
        FeedKind::Http => {
            let path = raw.path.clone().filter(|path| path.starts_with('/'));
            let path =
                path.ok_or_else(|| wrong(&key("path"), "a path like /ticker/{CODE}", "none"))?;
            let pointer = raw.pointer.clone().filter(|pointer| pointer.starts_with('/'));
            let expected = "a JSON pointer like /result/0/last";
            let pointer = pointer.ok_or_else(|| wrong(&key("pointer"), expected, "none"))?;
            let expected = "price (units for a bitcoin) or rate (sats for a unit)";
            (path, pointer, raw.unit.ok_or_else(|| wrong(&key("unit"), expected, "none"))?)
        }
    };
    let codes = raw.currencies.iter().map(|code| currency(&key("currencies"), code));
    let currencies = codes.collect::<Result<BTreeSet<_>, _>>()?;
    if currencies.is_empty() {
        return Err(wrong(&key("currencies"), "at least one currency", "none"));
    }
    let every_s = at_least_one(&key("every_s"), raw.every_s.unwrap_or(max_age_s / 3).max(1))?.get();
    if every_s >= max_age_s && max_age_s > 1 {
        let expected =
            format!("less than rates.max_age_s ({max_age_s}), or it is stale in between");
        return Err(wrong(&key("every_s"), &expected, every_s));
    }
    let url = raw.url.trim_end_matches('/').to_owned();
    Ok(Feed { name: source, url, path, pointer, unit, currencies, every_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RatesConfig, String> {
        let base = "max_age_s = 60\nmax_deviation_ppm = 20000\nspread_ppm = 0\n";
        let fixed = if text.contains("[fixed]") { "" } else { "[fixed]\n" };
        let raw: RawRates =
            toml::from_str(&format!("{base}{fixed}{text}")).map_err(|e| e.to_string())?;
        check(&raw).map_err(|e| e.to_string())
    }

    /// Loss prevented: a source that is asked for something else than the operator meant, and sells
    /// notes at that number.
    #[test]
    fn a_source_has_what_its_kind_needs_and_nothing_else() {
        let lnbits = "[sources.ln]\nkind = 'lnbits'\nurl = 'https://ln.example/'\n";
        let config = read(&format!("{lnbits}currencies = ['eur']\n")).unwrap();
        let feed = &config.feeds[0];
        assert_eq!((feed.url.as_str(), feed.every_s), ("https://ln.example", 20));
        assert_eq!((feed.pointer.as_str(), feed.unit), ("/rate", Unit::Rate));
        let http = "[sources.x]\nkind = 'http'\nurl = 'https://x.example'\ncurrencies = ['EUR']\n";
        let good = format!("{http}path = '/t/{{CODE}}'\npointer = '/last'\nunit = 'price'\n");
        assert_eq!(read(&good).unwrap().feeds[0].unit, Unit::Price);
        for (text, named) in [
            (format!("{lnbits}currencies = []"), "rates.sources.ln.currencies"),
            (format!("{lnbits}currencies = ['eur']\nunit = 'price'"), "rates.sources.ln.unit"),
            (format!("{lnbits}currencies = ['E']"), "rates.sources.ln.currencies"),
            (http.to_owned(), "rates.sources.x.path"),
            (good.replace("'/last'", "'last'"), "rates.sources.x.pointer"),
            (good.replace("unit = 'price'", ""), "rates.sources.x.unit"),
            (good.replace("https://x.example", "ftp://x"), "rates.sources.x.url"),
            (good.replace("sources.x", "sources.fixed"), "rates.sources.fixed"),
            (format!("{good}every_s = 60"), "rates.sources.x.every_s"),
            (format!("{good}key = 'x'"), "key"),
            (format!("[fixed]\nEUR = '1'\n{good}"), "rates.sources.x.currencies"),
        ] {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
