//! The machine's configuration: raw as written, checked as used.
//!
//! Promise: what the machine takes and gives at most, and where it listens, is visible in one table
//! (`config show`); secrets are named by path, never by value. Both processes read the same file;
//! each has a folder, and a machine secret, of its own. The kiosk binds loopback only.
//!
//! Failure policy: nothing starts on a configuration that does not read as a whole.

mod dispenser;
mod door;
mod kinds;
mod model;
mod printer;
mod recycler;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use bitspire_hardware::dispenser::DispenserLimits;
use bitspire_shared::money::{Currency, Fiat};
use bitspire_shared::seed::Loopback;
use bitspire_shell::config::{ConfigError, Loaded};
use bitspire_shell::logging::Format;
use serde::{Deserialize, Serialize};

pub use self::dispenser::{CommandForm, DispenserConfig, LineParity};
pub use self::door::DoorConfig;
pub use self::kinds::{AcceptorKind, DispenserKind, RecyclerKind};
use self::model::Preset;
pub use self::model::{MODELS, Model};
pub use self::printer::{PrintWhen, PrinterConfig, PrinterPort};
pub use self::recycler::RecyclerConfig;
use crate::ipc::SecretText;
use crate::journal::Keeping;

/// What holds where nothing else is said.
pub const DEFAULTS: &str = r#"
data_dir = "/var/lib/bitspire"
runtime_dir = "/run/bitspire"

[log]
filter = "info"
format = "text"

[kiosk]
listen = "127.0.0.1:8448"

[pairing]
allow_loopback_relays = false

[vault]
heartbeat_s = 60
disk_floor_bytes = 67108864
archive_after_days = 90
archive_above_entries = 100000

[vault.policy]
cash_in = true
cash_out = true
cash_out_amounts_minor = [2000, 5000, 10000, 20000]
max_note_minor = 10000
max_cash_in_minor = 50000
max_cash_in_per_day_minor = 1000000
cassette_floor_notes = 5
cashbox_capacity_notes = 600
offline_after_s = 120
price_age_s = 120
answer_s = 60
presence_s = 90

[vault.breaker]
notes_per_hour = 200
notes_per_day = 1000
sats_per_hour = 10000000
sats_per_day = 50000000

[net]
"#;

macro_rules! raw {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "the checked struct documents each value")]
        pub struct $name { $(pub $field: $type,)* }
    )*};
}

raw! {
    Raw {
        data_dir: PathBuf, runtime_dir: PathBuf, currency: Option<String>, machine: Option<RawMachine>,
        log: RawLog,
        kiosk: RawKiosk, pairing: RawPairing, vault: RawVault, net: RawNet,
    }
    RawMachine { model: Option<String> }
    RawLog { filter: String, format: Format }
    RawKiosk { listen: String }
    RawPairing { allow_loopback_relays: bool }
    RawVault {
        heartbeat_s: u32, disk_floor_bytes: u64, archive_after_days: u32,
        archive_above_entries: u32, machine_secret_file: Option<PathBuf>,
        claim_url: Option<String>,
        acceptor: Option<RawAcceptor>, dispenser: Option<RawDispenser>,
        recycler: Option<RawRecycler>,
        printer: Option<RawPrinter>, door: Option<RawDoor>, policy: RawPolicy, breaker: RawBreaker,
    }
    RawAcceptor { kind: AcceptorKind, path: String, baud: Option<u32> }
    RawDispenser {
        kind: DispenserKind, path: String, bays: u8, baud: Option<u32>, parity: Option<LineParity>,
        form: Option<CommandForm>,
    }
    RawRecycler {
        kind: RecyclerKind, path: String, baud: Option<u32>, bays_minor: Vec<u32>,
        notes_per_bay: Option<u16>,
    }
    RawPrinter {
        port: PrinterPort, path: String, baud: Option<u32>, columns: Option<u8>,
        print: Option<PrintWhen>,
    }
    RawDoor { path: String, open: Option<String> }
    RawPolicy {
        cash_in: bool, cash_out: bool, cash_out_amounts_minor: Vec<i64>,
        max_note_minor: i64, max_cash_in_minor: i64, max_cash_in_per_day_minor: i64,
        cassette_floor_notes: u32, cashbox_capacity_notes: u32, offline_after_s: u32,
        price_age_s: u32, answer_s: u32, presence_s: u32,
    }
    RawBreaker { notes_per_hour: u32, notes_per_day: u32, sats_per_hour: u64, sats_per_day: u64 }
    RawNet { machine_secret_file: Option<PathBuf> }
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which log lines are shown.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: Format,
    /// The socket between vault, net and command line.
    pub socket: PathBuf,
    /// Where a vault that cannot go on says why.
    pub last_word: PathBuf,
    /// What the vault needs.
    pub vault: VaultConfig,
    /// What net needs.
    pub net: NetConfig,
}

/// What the vault needs.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The vault's own folder: journal and sealed keys.
    pub dir: PathBuf,
    /// The file with the 32 bytes that seal its keys; made in `dir` at first start where none is
    /// named.
    pub machine_secret_file: Option<PathBuf>,
    /// The only currency of the machine; there where a device is.
    pub currency: Option<Currency>,
    /// The note validator; without one there is no cash-in.
    pub acceptor: Option<AcceptorConfig>,
    /// The dispenser; without one there is no cash-out.
    pub dispenser: Option<DispenserConfig>,
    /// The recycler, in place of both.
    pub recycler: Option<RecyclerConfig>,
    /// The receipt printer, if there is one.
    pub printer: Option<PrinterConfig>,
    /// The switch at the door, if there is one.
    pub door: Option<DoorConfig>,
    /// The public address of the operator's service, without a slash at its end: where claim codes
    /// are entered and receipts checked.
    pub claim_url: Option<String>,
    /// Limits per transaction.
    pub policy: Policy,
    /// Limits over time.
    pub breaker: Breaker,
    /// Seconds between two `report_state`.
    pub heartbeat_s: NonZeroU32,
    /// Bytes that must be free on the journal's disk, or nothing is sold.
    pub disk_floor_bytes: u64,
    /// When entries of closed transactions leave the journal for its archive.
    pub keeping: Keeping,
    /// Whether a seed may name relays on loopback.
    pub loopback: Loopback,
}

impl VaultConfig {
    /// The journal's file.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.db")
    }

    /// What one command of whatever gives notes can carry: bays as fitted. Nothing, where there is no
    /// such device.
    #[must_use]
    pub fn giver(&self) -> DispenserLimits {
        let dispenser = self.dispenser.as_ref().map(|fitted| (fitted.kind.limits(), fitted.bays));
        let recycler = self.recycler.as_ref().map(|fitted| {
            let bays = u8::try_from(fitted.bays.len()).unwrap_or(u8::MAX);
            (fitted.kind.limits(), bays)
        });
        let (limits, bays) =
            dispenser.or(recycler).unwrap_or((DispenserLimits { notes_per_bay: 0, bays: 0 }, 0));
        DispenserLimits { bays, ..limits }
    }

    /// The folder with what devices said before their faults.
    #[must_use]
    pub fn faults(&self) -> PathBuf {
        self.dir.join("faults")
    }
}

/// A note validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptorConfig {
    /// Its protocol.
    pub kind: AcceptorKind,
    /// The serial port; names under /dev/serial/by-path stay the same over a restart.
    pub path: String,
    /// Bits a second, where it is not the protocol's usual rate.
    pub baud: Option<u32>,
}

/// Limits per transaction, held by the vault without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether notes may be sold to the machine.
    pub cash_in: bool,
    /// Whether the machine may give notes.
    pub cash_out: bool,
    /// The amounts that a customer may choose, ascending; empty without a currency.
    pub cash_out_amounts: Vec<Fiat>,
    /// The largest note that is taken; absent without a currency.
    pub max_note: Option<Fiat>,
    /// The most that one cash-in takes; absent without a currency.
    pub max_cash_in: Option<Fiat>,
    /// The most that all cash-ins of any 24 hours take; absent without a currency.
    pub max_cash_in_per_day: Option<Fiat>,
    /// Notes that stay in a bay: the device's own count may be off by a few.
    pub cassette_floor_notes: u32,
    /// Notes that the cashbox holds.
    pub cashbox_capacity_notes: NonZeroU32,
    /// No new transaction when nothing was heard of the service for so many seconds.
    pub offline_after_s: NonZeroU32,
    /// No sale at a price of which a source had spoken more than so many seconds before its quote.
    pub price_age_s: NonZeroU32,
    /// Longest time in seconds for which a customer waits for a price or an invoice.
    pub answer_s: NonZeroU32,
    /// Longest time in seconds between a customer's presence and a dispense without their touch.
    pub presence_s: NonZeroU32,
}

/// The hard breaker: beyond it nothing is sold until it is closed by an operator's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Notes given out in any hour.
    pub notes_per_hour: NonZeroU32,
    /// Notes given out in any day.
    pub notes_per_day: NonZeroU32,
    /// Sats promised for notes in any hour, at market rate.
    pub sats_per_hour: NonZeroU64,
    /// Sats promised for notes in any day, at market rate.
    pub sats_per_day: NonZeroU64,
}

/// What net needs.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Net's own folder: the sealed client key and the pairing.
    pub dir: PathBuf,
    /// The file with the 32 bytes that seal its key; made in `dir` at first start where none is
    /// named.
    pub machine_secret_file: Option<PathBuf>,
    /// The socket of the vault.
    pub socket: PathBuf,
    /// Where a vault that cannot go on says why.
    pub last_word: PathBuf,
    /// Where the kiosk listens.
    pub kiosk_listen: SocketAddr,
    /// Where the kiosk's address of this boot is written for the machine's browser: a secret.
    pub kiosk_url_file: PathBuf,
    /// A seed URL for a machine that nobody has paired yet, from the environment.
    pub seed_url: Option<SecretText>,
}

/// The environment's way to hand a seed URL over.
pub const SEED_VARIABLE: &str = "BITSPIRE_SEED_URL";

/// Reads file, environment and flags over the machine's model, and checks them.
///
/// # Errors
/// [`ConfigError`], naming the value to mend.
pub fn load(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(&str, String)],
) -> Result<(Config, Loaded<Raw>), ConfigError> {
    let mut environment = environment.clone();
    let seed = environment.remove(SEED_VARIABLE).map(SecretText::new);
    let preset = Preset::of(file, &environment, flags)?;
    let defaults = &preset.defaults;
    let mut loaded = bitspire_shell::config::load::<Raw>(defaults, file, &environment, flags)?;
    preset.mark(&mut loaded.shown);
    let mut config = check(&loaded.raw)?;
    config.net.seed_url = seed;
    Ok((config, loaded))
}

fn wrong(key: &str, expected: &str, got: impl ToString) -> ConfigError {
    ConfigError::Value { key: key.into(), expected: expected.into(), got: got.to_string() }
}

fn at_least_one(key: &str, number: u32) -> Result<NonZeroU32, ConfigError> {
    NonZeroU32::new(number).ok_or_else(|| wrong(key, "at least 1", number))
}

fn at_least_one_sat(key: &str, number: u64) -> Result<NonZeroU64, ConfigError> {
    NonZeroU64::new(number).ok_or_else(|| wrong(key, "at least 1", number))
}

fn check(raw: &Raw) -> Result<Config, ConfigError> {
    let socket = raw.runtime_dir.join("vault.sock");
    let last_word = raw.runtime_dir.join("vault.end");
    let loopback = match raw.pairing.allow_loopback_relays {
        true => Loopback::Allowed,
        false => Loopback::Refused,
    };
    let listen = &raw.kiosk.listen;
    let expected = "a loopback address and port like 127.0.0.1:8448: the kiosk has no other guard";
    let kiosk_listen: SocketAddr =
        listen.parse().map_err(|_| wrong("kiosk.listen", expected, listen))?;
    if !kiosk_listen.ip().is_loopback() {
        return Err(wrong("kiosk.listen", expected, listen));
    }
    Ok(Config {
        log_filter: raw.log.filter.clone(),
        log_format: raw.log.format,
        socket: socket.clone(),
        last_word: last_word.clone(),
        vault: vault(raw, loopback)?,
        net: NetConfig {
            dir: raw.data_dir.join("net"),
            machine_secret_file: raw.net.machine_secret_file.clone(),
            socket,
            last_word,
            kiosk_listen,
            kiosk_url_file: raw.runtime_dir.join("kiosk.url"),
            seed_url: None,
        },
    })
}

fn vault(raw: &Raw, loopback: Loopback) -> Result<VaultConfig, ConfigError> {
    let RawVault { heartbeat_s, machine_secret_file, acceptor, dispenser, policy, .. } = &raw.vault;
    let RawVault { recycler, breaker, printer, door, claim_url, .. } = &raw.vault;
    let RawVault { disk_floor_bytes, archive_after_days, archive_above_entries, .. } = &raw.vault;
    let currency = raw.currency.as_deref().map(|code| {
        let code = code.parse::<Currency>();
        code.map_err(|e| wrong("currency", "an ISO-4217 code", e))
    });
    let currency = currency.transpose()?;
    let devices = [acceptor.is_some(), dispenser.is_some(), recycler.is_some()];
    if currency.is_none() && devices.contains(&true) {
        let expected = "an ISO-4217 code, since a device is configured";
        return Err(wrong("currency", expected, "none"));
    }
    if let (Some(_), [taker, giver, _]) = (recycler, devices)
        && (taker || giver)
    {
        let got = match (taker, giver) {
            (true, true) => "vault.acceptor and vault.dispenser beside it",
            (true, false) => "vault.acceptor beside it",
            (false, _) => "vault.dispenser beside it",
        };
        let expected = "a recycler alone: it takes notes and gives them, no other device does";
        return Err(wrong("vault.recycler", expected, got));
    }
    let acceptor = acceptor.as_ref().map(|RawAcceptor { kind, path, baud }| {
        let path = port("vault.acceptor.path", path)?;
        Ok(AcceptorConfig { kind: *kind, path, baud: *baud })
    });
    Ok(VaultConfig {
        dir: raw.data_dir.join("vault"),
        machine_secret_file: machine_secret_file.clone(),
        currency,
        acceptor: acceptor.transpose()?,
        dispenser: dispenser.as_ref().map(dispenser::checked).transpose()?,
        recycler: recycler.as_ref().map(recycler::checked).transpose()?,
        printer: printer.as_ref().map(printer::checked).transpose()?,
        door: door.as_ref().map(door::checked).transpose()?,
        claim_url: claim_url.as_deref().map(printer::claim_url).transpose()?,
        policy: check_policy(policy, currency)?,
        breaker: Breaker {
            notes_per_hour: at_least_one("vault.breaker.notes_per_hour", breaker.notes_per_hour)?,
            notes_per_day: at_least_one("vault.breaker.notes_per_day", breaker.notes_per_day)?,
            sats_per_hour: at_least_one_sat("vault.breaker.sats_per_hour", breaker.sats_per_hour)?,
            sats_per_day: at_least_one_sat("vault.breaker.sats_per_day", breaker.sats_per_day)?,
        },
        heartbeat_s: at_least_one("vault.heartbeat_s", *heartbeat_s)?,
        disk_floor_bytes: *disk_floor_bytes,
        keeping: Keeping {
            older_than_s: u64::from(*archive_after_days).saturating_mul(86_400),
            more_than: u64::from(*archive_above_entries),
            ..Keeping::default()
        },
        loopback,
    })
}

fn port(key: &str, path: &str) -> Result<String, ConfigError> {
    let good = path.starts_with('/');
    good.then(|| path.to_owned()).ok_or_else(|| {
        wrong(key, "the port's whole path, like /dev/serial/by-path/...", format!("{path:?}"))
    })
}

fn check_policy(raw: &RawPolicy, currency: Option<Currency>) -> Result<Policy, ConfigError> {
    let fiat = |key: &str, minor: i64| match (minor > 0, currency) {
        (true, currency) => Ok(currency.map(|currency| Fiat::new(minor, currency))),
        (false, _) => Err(wrong(key, "above 0 minor units", minor)),
    };
    let key = "vault.policy.cash_out_amounts_minor";
    let mut amounts = Vec::new();
    for minor in &raw.cash_out_amounts_minor {
        amounts.extend(fiat(key, *minor)?);
    }
    if !raw.cash_out_amounts_minor.is_sorted_by(|a, b| a < b) {
        return Err(wrong(key, "ascending amounts", format!("{:?}", raw.cash_out_amounts_minor)));
    }
    let offline = at_least_one("vault.policy.offline_after_s", raw.offline_after_s)?;
    Ok(Policy {
        cash_in: raw.cash_in,
        cash_out: raw.cash_out,
        cash_out_amounts: amounts,
        max_note: fiat("vault.policy.max_note_minor", raw.max_note_minor)?,
        max_cash_in: fiat("vault.policy.max_cash_in_minor", raw.max_cash_in_minor)?,
        max_cash_in_per_day: fiat(
            "vault.policy.max_cash_in_per_day_minor",
            raw.max_cash_in_per_day_minor,
        )?,
        cassette_floor_notes: raw.cassette_floor_notes,
        cashbox_capacity_notes: at_least_one(
            "vault.policy.cashbox_capacity_notes",
            raw.cashbox_capacity_notes,
        )?,
        offline_after_s: offline,
        price_age_s: at_least_one("vault.policy.price_age_s", raw.price_age_s)?,
        answer_s: at_least_one("vault.policy.answer_s", raw.answer_s)?,
        presence_s: at_least_one("vault.policy.presence_s", raw.presence_s)?,
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

    /// Loss prevented: a kiosk that anybody in the shop's network can press buttons on.
    #[test]
    fn the_defaults_read_and_the_kiosk_is_on_loopback_only() {
        let config = with(&[]).unwrap();
        assert!(config.net.kiosk_listen.ip().is_loopback());
        assert_eq!(config.vault.loopback, Loopback::Refused);
        assert_ne!(config.vault.dir, config.net.dir);
        let refused = with(&[("BITSPIRE_KIOSK__LISTEN", "0.0.0.0:8448")]).unwrap_err();
        assert!(refused.to_string().contains("kiosk.listen"), "{refused}");
    }

    /// Loss prevented: a machine that takes notes of a currency that nobody named.
    #[test]
    fn devices_and_amounts_are_in_the_machines_currency() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine.toml");
        let devices = "[vault.acceptor]\nkind = 'id003'\npath = '/dev/ttyS0'\n\
            [vault.dispenser]\nkind = 'f56'\npath = '/dev/ttyS1'\nbays = 2\n";
        std::fs::write(&file, devices).unwrap();
        let refused = load(Some(&file), &BTreeMap::new(), &[]).unwrap_err();
        assert!(refused.to_string().contains("currency"), "{refused}");
        std::fs::write(&file, format!("currency = 'EUR'\n{devices}")).unwrap();
        let (config, _) = load(Some(&file), &BTreeMap::new(), &[]).unwrap();
        let vault = config.vault;
        let eur: Currency = "EUR".parse().unwrap();
        assert_eq!(vault.currency, Some(eur));
        assert_eq!(vault.policy.cash_out_amounts[0], Fiat::new(2_000, eur));
        assert_eq!(vault.dispenser.unwrap().bays, 2);
    }

    /// Loss prevented: a typing error that is found at the first sale.
    #[test]
    fn each_wrong_value_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine.toml");
        for (text, named) in [
            ("currency = 'euro'\n", "currency"),
            ("[vault.policy]\nmax_cash_in_minor = 0\n", "max_cash_in_minor"),
            ("[vault.policy]\ncash_out_amounts_minor = [5000, 2000]\n", "cash_out_amounts_minor"),
            ("[vault.door]\npath = 'gpio17'\n", "vault.door.path"),
            ("[vault.door]\npath = '/x'\nopen = ' '\n", "vault.door.open"),
            ("[vault.breaker]\nnotes_per_hour = 0\n", "notes_per_hour"),
            ("[vault.breaker]\nsats_per_day = 0\n", "sats_per_day"),
            ("[vault.policy]\nprice_age_s = 0\n", "price_age_s"),
            ("[vault.policy]\nmax_note_minor = 0\n", "max_note_minor"),
            ("[vault.policy]\nmax_cash_in_per_day_minor = 0\n", "max_cash_in_per_day_minor"),
            (
                "currency = 'EUR'\n[vault.dispenser]\nkind = 'f56'\npath = '/x'\nbays = 9\n",
                "vault.dispenser.bays",
            ),
            (
                "currency = 'EUR'\n[vault.acceptor]\nkind = 'id003'\npath = 'COM1'\n",
                "vault.acceptor.path",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let refused = load(Some(&file), &BTreeMap::new(), &[]).unwrap_err();
            assert!(refused.to_string().contains(named), "{text}: {refused}");
        }
    }
}
