//! The operator's configuration: raw as written, checked as used.
//!
//! Promise: what is listened on, who may reach it and what is paid at most is visible in one table
//! (`config show`); secrets are named by path, never by value. The API binds loopback unless it is
//! told otherwise, and says so when it is.

mod clink;
mod peers;
mod rates;
mod wallets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use bitspire_shared::ids::PubKey;
use bitspire_shared::money::Sats;
use bitspire_shell::config::{ConfigError, Loaded};
use bitspire_shell::logging::Format;
use serde::{Deserialize, Serialize};

use crate::outgoing::Allowed;
use crate::signer::cipher::Encryption;
pub use clink::RawClink;
pub use peers::{DenyList, Peer, RawDenyList, RawWebhook, WithoutAnswer};
pub use rates::{Feed, FeedKind, RateRules, RatesConfig, RawFeed, RawRates, Unit};
pub use wallets::{RawWallet, Wallet, WalletKind};

/// What holds where nothing else is said.
pub const DEFAULTS: &str = r#"
data_dir = "/var/lib/bitspire-operator"

[log]
filter = "info"
format = "text"

[api]
listen = "127.0.0.1:8441"
base_url = "http://127.0.0.1:8441"

[public]
listen = "127.0.0.1:8442"
base_url = "http://127.0.0.1:8442"
trusted_proxies = ["127.0.0.1", "::1"]

[relay]
embedded = true
listen = "127.0.0.1:8443"
url = "ws://127.0.0.1:8443"
others = []

[bunker]
embedded = true
relay = ""
id = ""
data_dir = ""
admins = []
encryption = "auto"

[pairing]
renew = "auto"
renew_before_hours = 240
renew_hours = 720
warn_before_hours = 168

[canary]
every_hours = 24

[gate]
rate_limit_per_min = 30
burst = 20

[limits]
max_cash_in_sats = 2000000
max_cash_out_sats = 2000000
machine_hour_sats = 10000000
machine_day_sats = 50000000
fee_reserve_sats = 1000

[quotes]
ttl_s = 120
invoice_expiry_s = 300
withdraw_expiry_s = 86400

[clink]
enabled = false
relay = ""

[settlement]
enforce_fee_match = true

[distribution]
rules_delay_hours = 24

[outgoing]
allow = []

[webhook]

[deny_list]
without_answer = "refuse"

[rates]
max_age_s = 60
max_deviation_ppm = 20000
spread_ppm = 0

[rates.fixed]
[rates.sources]
[wallets]
"#;

/// As it is written; unknown keys are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the checked struct documents each value")]
pub struct Raw {
    pub data_dir: PathBuf,
    pub log: RawLog,
    pub api: RawHttp,
    pub public: RawPublic,
    pub relay: RawRelay,
    pub bunker: RawBunker,
    pub pairing: Pairing,
    pub canary: RawCanary,
    pub gate: RawGate,
    pub limits: RawLimits,
    pub quotes: RawQuotes,
    pub clink: RawClink,
    pub settlement: RawSettlement,
    pub distribution: RawDistribution,
    pub outgoing: RawOutgoing,
    pub webhook: RawWebhook,
    pub deny_list: RawDenyList,
    pub rates: RawRates,
    pub wallets: BTreeMap<String, RawWallet>,
    pub machine_secret_file: Option<PathBuf>,
}

macro_rules! raw {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "the checked struct documents each value")]
        pub struct $name { $(pub $field: $type,)* }
    )*};
}

raw! {
    RawLog { filter: String, format: Format }
    RawHttp { listen: String, base_url: String }
    RawPublic { listen: String, base_url: String, trusted_proxies: Vec<String> }
    RawRelay { embedded: bool, listen: String, url: String, others: Vec<String> }
    RawBunker {
        embedded: bool, relay: String, id: String, data_dir: PathBuf, admins: Vec<String>,
        encryption: String, passphrase_file: Option<PathBuf>,
        machine_secret_file: Option<PathBuf>,
    }
    RawCanary { every_hours: u32 }
    RawGate { rate_limit_per_min: u32, burst: u32 }
    RawLimits {
        max_cash_in_sats: u64, max_cash_out_sats: u64, machine_hour_sats: u64,
        machine_day_sats: u64, fee_reserve_sats: u64,
    }
    RawQuotes { ttl_s: u32, invoice_expiry_s: u32, withdraw_expiry_s: u32 }
    RawSettlement { enforce_fee_match: bool }
    RawDistribution { rules_delay_hours: u32 }
    RawOutgoing { allow: Vec<String> }
}

/// Whether a pairing is renewed without anybody's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    /// Yes, for machines that are in service and report.
    Auto,
    /// Somebody says so.
    Ask,
}

/// When pairings end, and who renews them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairing {
    /// Who renews them.
    pub renew: Renewal,
    /// So many hours before its end a pairing is renewed.
    pub renew_before_hours: u32,
    /// For how many hours it is renewed.
    pub renew_hours: u32,
    /// So many hours before its end there is a warning.
    pub warn_before_hours: u32,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where databases and sealed secrets live.
    pub data_dir: PathBuf,
    /// Which log lines are shown.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: Format,
    /// API and dashboard.
    pub api_listen: SocketAddr,
    /// How its clients reach it, as they sign it (NIP-98); no slash at its end.
    pub api_base_url: String,
    /// LNURL and claims: the only routes that are open to everybody.
    pub public_listen: SocketAddr,
    /// How wallets reach the public listener; no slash at its end.
    pub public_base_url: String,
    /// Reverse proxies in front of the public listener: where one of these connects, the client is
    /// the last address in `X-Forwarded-For` that is none of them, so that limits are by client.
    /// The proxy must write or extend that header, not pass on what a client sends alone.
    pub public_proxies: Vec<IpAddr>,
    /// Where the embedded relay listens, if it runs inside this process.
    pub relay_listen: Option<SocketAddr>,
    /// All relays, our own first; the first one goes into seeds.
    pub relays: Vec<String>,
    /// Whether the bunker runs inside this process (development only).
    pub bunker_embedded: bool,
    /// The relay through which the bunker is reached.
    pub bunker_relay: String,
    /// The bunker's own public key, where its folder is out of reach: it prints it at its start.
    pub bunker_id: Option<PubKey>,
    /// The bunker's own folder.
    pub bunker_data_dir: PathBuf,
    /// Who may administer the bunker.
    pub bunker_admins: Vec<PubKey>,
    /// The encryption of a bunker's administration, where it need not be found out.
    pub bunker_encryption: Option<Encryption>,
    /// The file with the passphrase of a bunker that locks its keys, as nsecbunkerd does.
    pub bunker_passphrase_file: Option<PathBuf>,
    /// When pairings end.
    pub pairing: Pairing,
    /// Hours between two proofs that the bunker refuses what has expired; 0 = none.
    pub canary_hours: u32,
    /// The bunker's own 32 bytes; made in its folder where none are named.
    pub bunker_machine_secret_file: Option<PathBuf>,
    /// Requests a machine may make a minute.
    pub rate_limit_per_min: NonZeroU32,
    /// Requests it may make at once.
    pub burst: NonZeroU32,
    /// What is paid out at most.
    pub limits: Limits,
    /// Seconds for which a quote holds.
    pub quote_ttl_s: u32,
    /// Seconds for which an invoice can be paid.
    pub invoice_expiry_s: u32,
    /// Seconds for which a withdraw can be claimed by its first link.
    pub withdraw_expiry_s: u32,
    /// The relay that the codes for CLINK wallets name, where these are served.
    pub clink: Option<String>,
    /// Whether a settlement whose fee differs is held.
    pub enforce_fee_match: bool,
    /// Where prices come from.
    pub rates: RatesConfig,
    /// Seconds until a change of where fees go counts; none before the first sale.
    pub rules_delay_s: u64,
    /// Hosts of the own network that destinations may name.
    pub outgoing_allowed: Allowed,
    /// Who is told of alerts, settlements and claims.
    pub webhook: Option<Peer>,
    /// Who is asked before each sale whether it may be.
    pub deny_list: Option<DenyList>,
    /// The wallets by id.
    pub wallets: BTreeMap<String, Wallet>,
    /// Whose a wallet is, by the operator's name, where the configuration says so.
    pub wallet_operators: BTreeMap<String, String>,
    /// The file with the 32 bytes that seal the secrets at rest; made in the data folder at first
    /// start where none is named.
    pub machine_secret_file: Option<PathBuf>,
}

/// Caps that the service itself holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Per cash_in; 0 = none allowed.
    pub max_cash_in: Sats,
    /// Per cash_out; 0 = none allowed.
    pub max_cash_out: Sats,
    /// Per machine and hour, both directions together.
    pub machine_hour: Sats,
    /// Per machine and day, both directions together.
    pub machine_day: Sats,
    /// Kept back in each wallet for routing fees.
    pub fee_reserve: Sats,
}

/// Reads file, environment and flags, and checks them.
///
/// # Errors
/// [`ConfigError`], naming the value to mend.
pub fn load(
    file: Option<&std::path::Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(&str, String)],
) -> Result<(Config, Loaded<Raw>), ConfigError> {
    let loaded = bitspire_shell::config::load::<Raw>(DEFAULTS, file, environment, flags)?;
    let config = check(&loaded.raw)?;
    Ok((config, loaded))
}

fn wrong(key: &str, expected: &str, got: impl ToString) -> ConfigError {
    ConfigError::Value { key: key.into(), expected: expected.into(), got: got.to_string() }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| wrong(key, "an address and port like 127.0.0.1:8441", text))
}

fn websocket(key: &str, text: &str) -> Result<String, ConfigError> {
    let good = text.starts_with("ws://") || text.starts_with("wss://");
    if good { Ok(text.to_owned()) } else { Err(wrong(key, "a ws:// or wss:// address", text)) }
}

/// A public key, as npub or hex; `key` names it in the error.
pub(crate) fn public_key(key: &str, text: &str) -> Result<PubKey, ConfigError> {
    PubKey::from_hex_or_npub(text).map_err(|_| wrong(key, "an npub or 64 hex characters", text))
}

fn pairing(raw: Pairing) -> Result<Pairing, ConfigError> {
    at_least_one("pairing.renew_hours", raw.renew_hours)?;
    if raw.renew == Renewal::Auto && raw.renew_before_hours >= raw.renew_hours {
        let expected = "more hours than pairing.renew_before_hours, or it is renewed at once again";
        return Err(wrong("pairing.renew_hours", expected, raw.renew_hours));
    }
    Ok(raw)
}

fn encryption(text: &str) -> Result<Option<Encryption>, ConfigError> {
    Ok(match text {
        "auto" => None,
        "nip44" => Some(Encryption::Nip44),
        "nip04" => Some(Encryption::Nip04),
        _ => return Err(wrong("bunker.encryption", "auto, nip44 or nip04", text)),
    })
}

fn base_url(key: &str, text: &str) -> Result<String, ConfigError> {
    let expected = "an https:// address without user, query or fragment";
    let good = nostr::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    // a password in it is not repeated
    let shown = if text.contains('@') { "one with a user" } else { text };
    good.then(|| text.trim_end_matches('/').to_owned()).ok_or_else(|| wrong(key, expected, shown))
}

fn proxies(texts: &[String]) -> Result<Vec<IpAddr>, ConfigError> {
    let read = |text: &String| {
        let address = text.parse::<IpAddr>();
        let address = address.map(|address| address.to_canonical());
        address.map_err(|_| wrong("public.trusted_proxies", "IP addresses", text))
    };
    texts.iter().map(read).collect()
}

fn at_least_one(key: &str, number: u32) -> Result<NonZeroU32, ConfigError> {
    NonZeroU32::new(number).ok_or_else(|| wrong(key, "at least 1", number))
}

fn check(raw: &Raw) -> Result<Config, ConfigError> {
    let mut relays = vec![websocket("relay.url", &raw.relay.url)?];
    for other in &raw.relay.others {
        relays.push(websocket("relay.others", other)?);
    }
    let bunker_relay = match raw.bunker.relay.as_str() {
        "" => raw.relay.url.clone(),
        named => websocket("bunker.relay", named)?,
    };
    let bunker_id = match raw.bunker.id.as_str() {
        "" => None,
        id => Some(public_key("bunker.id", id)?),
    };
    let admins = raw.bunker.admins.iter().map(|admin| public_key("bunker.admins", admin));
    let bunker_admins = admins.collect::<Result<_, _>>()?;
    let bunker_data_dir = match &raw.bunker.data_dir {
        empty if empty.as_os_str().is_empty() => raw.data_dir.join("bunker"),
        named => named.clone(),
    };
    let listen = address("relay.listen", &raw.relay.listen)?;
    let allowed = Allowed::new(raw.outgoing.allow.clone());
    Ok(Config {
        data_dir: raw.data_dir.clone(),
        log_filter: raw.log.filter.clone(),
        log_format: raw.log.format,
        api_listen: address("api.listen", &raw.api.listen)?,
        api_base_url: base_url("api.base_url", &raw.api.base_url)?,
        public_listen: address("public.listen", &raw.public.listen)?,
        public_proxies: proxies(&raw.public.trusted_proxies)?,
        public_base_url: base_url("public.base_url", &raw.public.base_url)?,
        relay_listen: raw.relay.embedded.then_some(listen),
        bunker_embedded: raw.bunker.embedded,
        bunker_relay,
        bunker_id,
        bunker_data_dir,
        bunker_admins,
        pairing: pairing(raw.pairing)?,
        canary_hours: raw.canary.every_hours,
        bunker_encryption: encryption(&raw.bunker.encryption)?,
        bunker_passphrase_file: raw.bunker.passphrase_file.clone(),
        bunker_machine_secret_file: raw.bunker.machine_secret_file.clone(),
        rate_limit_per_min: at_least_one("gate.rate_limit_per_min", raw.gate.rate_limit_per_min)?,
        burst: at_least_one("gate.burst", raw.gate.burst)?,
        limits: Limits {
            max_cash_in: Sats(raw.limits.max_cash_in_sats),
            max_cash_out: Sats(raw.limits.max_cash_out_sats),
            machine_hour: Sats(raw.limits.machine_hour_sats),
            machine_day: Sats(raw.limits.machine_day_sats),
            fee_reserve: Sats(raw.limits.fee_reserve_sats),
        },
        quote_ttl_s: at_least_one("quotes.ttl_s", raw.quotes.ttl_s)?.get(),
        invoice_expiry_s: at_least_one("quotes.invoice_expiry_s", raw.quotes.invoice_expiry_s)?
            .get(),
        withdraw_expiry_s: at_least_one("quotes.withdraw_expiry_s", raw.quotes.withdraw_expiry_s)?
            .get(),
        clink: clink::check(&raw.clink, &relays)?,
        relays,
        enforce_fee_match: raw.settlement.enforce_fee_match,
        rates: rates::check(&raw.rates)?,
        rules_delay_s: u64::from(raw.distribution.rules_delay_hours).saturating_mul(3_600),
        webhook: peers::webhook(&raw.webhook, &allowed)?,
        deny_list: peers::deny_list(&raw.deny_list, &allowed)?,
        outgoing_allowed: allowed,
        wallets: wallets::check(&raw.wallets)?,
        wallet_operators: wallets::operators(&raw.wallets)?,
        machine_secret_file: raw.machine_secret_file.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load(None, &environment, &[]).map(|(config, _)| config)
    }

    /// Loss prevented: an API that listens to the world because nobody said otherwise.
    #[test]
    fn the_defaults_read_and_bind_loopback() {
        let config = with(&[]).unwrap();
        assert!(config.api_listen.ip().is_loopback());
        assert_eq!(config.limits.max_cash_in, Sats(2_000_000));
        assert_eq!(config.bunker_relay, config.relays[0]);
        assert!(config.enforce_fee_match);
    }

    /// Loss prevented: a rate of 0, or one that a float has bent, sells notes for nothing.
    #[test]
    fn rates_are_exact_and_above_zero() {
        let config = with(&[("BITSPIRE_RATES__FIXED__EUR", "'1063.829787234'")]);
        assert!(config.is_err(), "quotes inside the text are no number");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, "[rates.fixed]\nEUR = '1063.829787234'\n").unwrap();
        let (config, _) = load(Some(&file), &BTreeMap::new(), &[]).unwrap();
        let rate = config.rates.fixed[&"EUR".parse().unwrap()];
        assert_eq!(rate.nano(), 1_063_829_787_234);
        for wrong in ["'0'", "1063.829787234"] {
            std::fs::write(&file, format!("[rates.fixed]\nEUR = {wrong}\n")).unwrap();
            assert!(load(Some(&file), &BTreeMap::new(), &[]).is_err(), "{wrong}");
        }
        let config = with(&[("BITSPIRE_RATES__FIXED__EUR", "99999999.123456789")]).unwrap();
        assert_eq!(config.rates.fixed[&"EUR".parse().unwrap()].nano(), 99_999_999_123_456_789);
    }

    /// Loss prevented: a typing error that is found at the first sale.
    #[test]
    fn each_wrong_value_is_named() {
        for (key, value, named) in [
            ("BITSPIRE_API__LISTEN", "localhost", "api.listen"),
            ("BITSPIRE_RELAY__URL", "https://relay", "relay.url"),
            ("BITSPIRE_GATE__BURST", "0", "gate.burst"),
            ("BITSPIRE_BUNKER__ID", "npub1x", "bunker.id"),
            ("BITSPIRE_PAIRING__RENEW_HOURS", "24", "pairing.renew_hours"),
            ("BITSPIRE_BUNKER__ENCRYPTION", "rot13", "bunker.encryption"),
            ("BITSPIRE_PUBLIC__BASE_URL", "lnurl.example", "public.base_url"),
            ("BITSPIRE_PUBLIC__BASE_URL", "https://", "public.base_url"),
            ("BITSPIRE_PUBLIC__BASE_URL", "https://lnurl.example/?a=1", "public.base_url"),
            ("BITSPIRE_API__BASE_URL", "https://me:word@host", "api.base_url"),
            ("BITSPIRE_WEBHOOK__URL", "https://host/word", "webhook.secret_file"),
            ("BITSPIRE_WEBHOOK__SECRET_FILE", "/nowhere", "webhook.url"),
            ("BITSPIRE_DENY_LIST__URL", "http://word.example", "deny_list.secret_file"),
        ] {
            let refused = with(&[(key, value)]).unwrap_err();
            assert!(refused.to_string().contains(named), "{refused}");
            assert!(!refused.to_string().contains("word"), "{refused}");
        }
    }
}
