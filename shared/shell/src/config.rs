//! Configuration: defaults < TOML file < environment `BITSPIRE_*` < flags.
//!
//! Promise: an unknown or misspelt key is an error that names it; each value's origin can be shown;
//! a private key in any of the sources is a refused start that says where it belongs; a number with
//! a point is refused before anything has rounded it.
//!
//! Failure policy: nothing starts on a configuration that does not read as a whole.

use std::collections::BTreeMap;
use std::path::Path;

use config::{Config, Environment, File, FileFormat, Value, ValueKind};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why there is no usable configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file that was named is not there or cannot be read.
    #[error("configuration file {path}: cannot be read; check the path and its permissions")]
    File {
        /// The path as given.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A value is missing, misspelt or of the wrong type.
    #[error("configuration does not read; compare with `config show` and the documentation")]
    Shape(#[source] config::ConfigError),
    /// A value reads but makes no sense.
    #[error("configuration: {key}: expected {expected}, got {got}")]
    Value {
        /// Dotted key.
        key: String,
        /// What it must be.
        expected: String,
        /// What came.
        got: String,
    },
    /// A private key outside the place for secrets.
    #[error(
        "{origin} holds a private key ({key}): refused. The machine's key lives in the operator's \
         bunker: remove it and pair the machine with `bitspire-agent pair --seed-url`"
    )]
    PrivateKey {
        /// Dotted key or variable.
        key: String,
        /// Where it was found.
        origin: String,
    },
}

/// A configuration and where each of its values came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration as it was read; still to be checked.
    pub raw: T,
    /// Every value by its dotted key.
    pub shown: BTreeMap<String, Shown>,
}

/// One value as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The value in words; never a secret, since secrets are named by path only.
    pub value: String,
    /// `default`, the file's path, `environment` or `flag`.
    pub origin: String,
}

/// Reads the configuration: `defaults` is TOML, `flags` are dotted keys with their values.
///
/// # Errors
/// [`ConfigError`], each naming what to mend.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &[(&str, String)],
) -> Result<Loaded<T>, ConfigError> {
    let key = environment.iter().find(|(key, value)| holds_private_key(key, value));
    if let Some((key, _)) = key {
        return Err(ConfigError::PrivateKey { key: key.clone(), origin: "environment".into() });
    }
    let mut builder = Config::builder().add_source(File::from_str(defaults, FileFormat::Toml));
    let mut written = None;
    if let Some(path) = file {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: name.clone(), source })?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        written = Some((name, table(&text)));
    }
    let variables = environment.iter().filter(|(key, _)| key.starts_with("BITSPIRE_"));
    let variables = variables.map(|(key, value)| (key.clone(), value.clone())).collect();
    builder = builder.add_source(
        // values stay text until it is known what they are for: a rate read as a float is another
        Environment::with_prefix("BITSPIRE")
            .prefix_separator("_")
            .separator("__")
            .source(Some(variables)),
    );
    for (key, value) in flags {
        let value = Value::new(Some(&"flag".to_owned()), ValueKind::String(value.clone()));
        builder = builder.set_override(*key, value).map_err(ConfigError::Shape)?;
    }
    let config = builder.build().map_err(ConfigError::Shape)?;
    let mut shown = BTreeMap::new();
    let from = Origins { defaults: table(defaults), file: written, environment, flags };
    flatten("", &config.cache, &from, &mut shown)?;
    if let Some((key, found)) = shown.iter().find(|(_, found)| names_private_key(&found.value)) {
        return Err(ConfigError::PrivateKey { key: key.clone(), origin: found.origin.clone() });
    }
    let raw = config.try_deserialize().map_err(ConfigError::Shape)?;
    Ok(Loaded { raw, shown })
}

/// Whether a variable of ours, or of the software that machines ran before, holds a private key.
/// Other programs' variables are none of our business.
fn holds_private_key(key: &str, value: &str) -> bool {
    let ours = key.starts_with("BITSPIRE_") || key.starts_with("ATM_");
    ours && (key.ends_with("PRIVATE_KEY") || names_private_key(value))
}

/// Whether a private key stands in a text, bare (NIP-19) or encrypted (NIP-49).
#[must_use]
pub fn names_private_key(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("nsec1") || text.contains("ncryptsec1")
}

/// This process's environment, as [`load`] takes it.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    // a value that is no text becomes one that does not read, not one that is not there
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into())))
        .collect()
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap_or_default()
}

struct Origins<'a> {
    defaults: toml::Table,
    file: Option<(String, toml::Table)>,
    environment: &'a BTreeMap<String, String>,
    flags: &'a [(&'a str, String)],
}

impl Origins<'_> {
    fn of(&self, key: &str) -> String {
        let variable = format!("BITSPIRE_{}", key.replace('.', "__").to_uppercase());
        if self.flags.iter().any(|(flag, _)| *flag == key) {
            return "flag".into();
        }
        // the environment cannot spell a key with upper-case letters
        if key.to_lowercase() == key && self.environment.contains_key(&variable) {
            return format!("environment {variable}");
        }
        let written = |table: &toml::Table| {
            let mut parts = key.split('.');
            let first = parts.next().and_then(|part| table.get(part));
            parts.fold(first, |at, part| at.and_then(|at| at.get(part))).is_some()
        };
        match &self.file {
            Some((path, table)) if written(table) => path.clone(),
            _ if written(&self.defaults) => "default".into(),
            _ => "unknown".into(),
        }
    }
}

fn flatten(
    key: &str,
    value: &Value,
    from: &Origins<'_>,
    shown: &mut BTreeMap<String, Shown>,
) -> Result<(), ConfigError> {
    let value = match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(&key, value, from, shown)?;
            }
            return Ok(());
        }
        ValueKind::Float(number) => {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                expected: "a whole number, or an exact decimal in quotes".into(),
                got: number.to_string(),
            });
        }
        ValueKind::Array(items) => {
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        kind => kind.to_string(),
    };
    shown.insert(key.to_owned(), Shown { value, origin: from.of(key) });
    Ok(())
}

/// The table that `config show` prints: key, value, origin.
#[must_use]
pub fn show(shown: &BTreeMap<String, Shown>) -> String {
    let width = |part: fn(&str, &Shown) -> usize| {
        shown.iter().map(|(key, value)| part(key, value)).max().unwrap_or(0)
    };
    let (keys, values) = (width(|key, _| key.len()), width(|_, shown| shown.value.len()));
    shown
        .iter()
        .map(|(key, s)| format!("{key:keys$}  {:values$}  # {}\n", s.value, s.origin))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        name: String,
        gate: Gate,
        relays: Vec<String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Gate {
        burst: u32,
        rate: u32,
    }

    const DEFAULTS: &str = "name = 'a'\nrelays = []\n[gate]\nburst = 20\nrate = 30\n";

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Loss prevented: a limit that the operator set and that another source silently overrules.
    #[test]
    fn later_sources_win_and_each_value_tells_its_origin() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, "name = 'b'\nrelays = ['wss://r']\n[gate]\nburst = 5\n").unwrap();
        let environment = variables(&[("BITSPIRE_GATE__BURST", "7"), ("HOME", "/x")]);
        let flags = [("name", "c".to_owned())];
        let loaded = load::<Raw>(DEFAULTS, Some(&file), &environment, &flags).unwrap();
        let gate = Gate { burst: 7, rate: 30 };
        let relays = vec!["wss://r".to_owned()];
        assert_eq!(loaded.raw, Raw { name: "c".into(), gate, relays });
        let origin = |key: &str| loaded.shown[key].origin.clone();
        assert_eq!(origin("name"), "flag");
        assert_eq!(origin("gate.burst"), "environment BITSPIRE_GATE__BURST");
        assert_eq!(origin("gate.rate"), "default");
        assert_eq!(origin("relays"), file.display().to_string());
        assert!(show(&loaded.shown).contains("gate.rate"), "{}", show(&loaded.shown));
    }

    /// Loss prevented: a misspelt limit is no limit.
    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let environment = variables(&[("BITSPIRE_GATE__BURTS", "7")]);
        let refused = load::<Raw>(DEFAULTS, None, &environment, &[]).unwrap_err();
        let ConfigError::Shape(cause) = refused else { panic!("{refused}") };
        assert!(cause.to_string().contains("burts"), "{cause}");
        let missing = load::<Raw>(DEFAULTS, Some(Path::new("/nowhere")), &environment, &[]);
        assert!(matches!(missing, Err(ConfigError::File { .. })));
    }

    /// Loss prevented: a machine that signs with a key from its own disk can be cloned.
    #[test]
    fn a_private_key_in_any_source_is_a_refused_start() {
        let old = variables(&[("ATM_PRIVATE_KEY", "x")]);
        let refused = load::<Raw>(DEFAULTS, None, &old, &[]).unwrap_err();
        assert!(refused.to_string().contains("pair"), "{refused}");
        let flags = [("name", "nsec1qqq".to_owned())];
        let refused = load::<Raw>(DEFAULTS, None, &BTreeMap::new(), &flags).unwrap_err();
        assert!(matches!(refused, ConfigError::PrivateKey { .. }));
        assert!(!refused.to_string().contains("nsec1qqq"));
    }

    /// Loss prevented: a key in a list, in capitals or in a variable goes unseen; another program's
    /// variable stops the daemon.
    #[test]
    fn keys_are_found_wherever_they_stand_and_only_ours() {
        for (name, value) in [
            ("BITSPIRE_NAME", " NSEC1QQQ"),
            ("BITSPIRE_OLD_PRIVATE_KEY", ""),
            ("ATM_KEY", "nsec1q"),
            ("BITSPIRE_NAME", "ncryptsec1q"),
        ] {
            let refused = load::<Raw>(DEFAULTS, None, &variables(&[(name, value)]), &[]);
            assert!(matches!(refused, Err(ConfigError::PrivateKey { .. })), "{name}: {refused:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, "relays = ['wss://r', 'nsec1qqq']\n").unwrap();
        let refused = load::<Raw>(DEFAULTS, Some(&file), &BTreeMap::new(), &[]);
        assert!(matches!(refused, Err(ConfigError::PrivateKey { .. })), "{refused:?}");
        let others = variables(&[("DEPLOY_PRIVATE_KEY", "x"), ("NOTE", "nsec1qqq")]);
        assert!(load::<Raw>(DEFAULTS, None, &others, &[]).is_ok());
    }

    /// Loss prevented: a limit or a rate that was rounded on its way through a float.
    #[test]
    fn no_number_goes_through_a_float() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operator.toml");
        std::fs::write(&file, "[gate]\nburst = 7.6\n").unwrap();
        let refused = load::<Raw>(DEFAULTS, Some(&file), &BTreeMap::new(), &[]).unwrap_err();
        assert!(refused.to_string().contains("gate.burst"), "{refused}");
        let environment = variables(&[("BITSPIRE_GATE__BURST", "7.6")]);
        assert!(load::<Raw>(DEFAULTS, None, &environment, &[]).is_err());
        let exact = "99999999.123456789";
        let environment = variables(&[("BITSPIRE_NAME", exact)]);
        assert_eq!(load::<Raw>(DEFAULTS, None, &environment, &[]).unwrap().raw.name, exact);
    }
}
