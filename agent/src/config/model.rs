//! Machines by their model's name: which devices are where.
//!
//! Promise: a model is a layer of the configuration between the defaults and what is written by hand,
//! so each of its values can be another; `config show` names the model as where a value is from.
//!
//! Sources: the device configurations and udev rules of the public lamassu-machine repository
//! (`hardware/codebase`, `hardware/system`). How many cassettes are fitted they do not say: two, the
//! fewest of a unit with more than one, unless it is said by hand.

use std::collections::BTreeMap;
use std::path::Path;

use bitspire_shell::config::{ConfigError, Shown};
use serde::Deserialize;

use super::{AcceptorKind, DEFAULTS, DispenserKind, RecyclerKind, wrong};

/// A machine whose devices are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its note validator and the port.
    pub acceptor: (AcceptorKind, &'static str),
    /// Its dispenser, the port and the bays.
    pub dispenser: Option<(DispenserKind, &'static str, u8)>,
    /// What the validator is where `vault.recycler` is configured: it also gives what it was fed.
    pub recycler: Option<RecyclerKind>,
}

/// The carrier board's second USB adapter, and its own second port, as Lamassu's rules name them.
const J5: &str = "/dev/ttyJ5";
const J7: &str = "/dev/ttyJ7";
/// The only USB adapter of a machine.
const USB: &str = "/dev/ttyUSB0";

const fn model(
    name: &'static str,
    acceptor: (AcceptorKind, &'static str),
    dispenser: Option<(DispenserKind, &'static str, u8)>,
) -> Model {
    Model { name, acceptor, dispenser, recycler: None }
}

/// All that are known.
pub const MODELS: [Model; 11] = {
    use AcceptorKind::{Ebds, Id003};
    use DispenserKind::{F56, Puloon4000};
    [
        model("sintra", (Id003, J5), Some((F56, J7, 2))),
        model("sintra-ssu", (Id003, "/dev/ssu-com1"), Some((F56, "/dev/ssu-com2", 2))),
        model("tejo", (Id003, J5), Some((F56, J7, 2))),
        model("gaia", (Id003, J5), None),
        model("douro", (Id003, USB), Some((Puloon4000, "/dev/ttyS1", 2))),
        model("douro-f53", (Id003, USB), Some((F56, "/dev/ttyS1", 2))),
        model("n7g1", (Id003, USB), None),
        model("batm3", (Ebds, J5), Some((F56, J7, 2))),
        model("batm7in", (Ebds, J5), None),
        model("mei-scr", (Ebds, USB), None),
        Model { recycler: Some(RecyclerKind::Id003Rc), ..model("jcm-ipro-rc", (Id003, USB), None) },
    ]
};

impl Model {
    /// The model of this name.
    fn named(name: &str) -> Result<Self, ConfigError> {
        let found = MODELS.into_iter().find(|model| model.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
            let expected = format!("one of {}, or no model", names.join(", "));
            wrong("machine.model", &expected, format!("{name:?}"))
        })
    }

    /// Its values, as the configuration's file would have them.
    fn lines(self, as_recycler: bool) -> String {
        let Self { acceptor: (kind, path), dispenser, recycler, .. } = self;
        if let Some(kind) = recycler.filter(|_| as_recycler) {
            let kind = kind.protocol();
            return format!("[vault.recycler]\nkind = '{kind}'\npath = '{path}'\n");
        }
        let kind = kind.protocol();
        let mut lines = format!("[vault.acceptor]\nkind = '{kind}'\npath = '{path}'\n");
        if let Some((kind, path, bays)) = dispenser {
            let kind = kind.protocol();
            lines.push_str(&format!(
                "[vault.dispenser]\nkind = '{kind}'\npath = '{path}'\nbays = {bays}\n"
            ));
        }
        lines
    }
}

/// As much of the configuration as says which machine it is.
#[derive(Deserialize)]
struct Which {
    machine: Option<Named>,
    vault: Fitted,
}

#[derive(Deserialize)]
struct Fitted {
    recycler: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Named {
    model: Option<String>,
}

/// What holds where nothing else is said, of the machine that is configured.
pub(super) struct Preset {
    pub(super) defaults: String,
    model: Option<&'static str>,
}

impl Preset {
    pub(super) fn of(
        file: Option<&Path>,
        environment: &BTreeMap<String, String>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let which = bitspire_shell::config::load::<Which>(DEFAULTS, file, environment, flags)?;
        let as_recycler = which.raw.vault.recycler.is_some();
        let name = which.raw.machine.and_then(|machine| machine.model);
        let model = name.as_deref().map(Model::named).transpose()?;
        let lines = model.map(|model| model.lines(as_recycler)).unwrap_or_default();
        let defaults = format!("{DEFAULTS}{lines}");
        Ok(Self { defaults, model: model.map(|model| model.name) })
    }

    /// Names the model where a value is the model's.
    pub(super) fn mark(&self, shown: &mut BTreeMap<String, Shown>) {
        let Some(model) = self.model else { return };
        let tables = ["vault.acceptor.", "vault.dispenser.", "vault.recycler."];
        let devices = |key: &str| tables.iter().any(|table| key.starts_with(table));
        for (_, value) in shown.iter_mut().filter(|(key, _)| devices(key)) {
            if value.origin == "default" {
                value.origin = format!("model {model}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Raw, load};
    use super::*;
    use bitspire_shell::config::Loaded;

    fn read(text: &str) -> Result<(Config, Loaded<Raw>), ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("machine.toml");
        std::fs::write(&file, text).unwrap();
        load(Some(&file), &BTreeMap::new(), &[])
    }

    /// Loss prevented: a machine of a known model that comes up without its devices, or with another's.
    #[test]
    fn each_model_has_its_devices() {
        for model in MODELS {
            let text = format!("currency = 'EUR'\n[machine]\nmodel = '{}'\n", model.name);
            let (config, _) = read(&text).unwrap();
            let acceptor = config.vault.acceptor.unwrap();
            assert_eq!((acceptor.kind, acceptor.path.as_str()), model.acceptor);
            let dispenser = config.vault.dispenser;
            assert_eq!(dispenser.is_some(), model.dispenser.is_some(), "{}", model.name);
            let same = dispenser.map(|own| (own.kind, own.path, own.bays));
            assert_eq!(same, model.dispenser.map(|(k, p, b)| (k, p.to_owned(), b)));
        }
    }

    /// Loss prevented: a recycler that is driven as a validator by its preset, or as two devices on
    /// one line.
    #[test]
    fn a_recycler_takes_the_place_of_both_devices() {
        let bays = "[vault.recycler]\nbays_minor = [1000, 2000]\n";
        let model = "currency = 'EUR'\n[machine]\nmodel = 'jcm-ipro-rc'\n";
        let (config, loaded) = read(&format!("{model}{bays}")).unwrap();
        let recycler = config.vault.recycler.clone().unwrap();
        assert_eq!((recycler.kind, recycler.path.as_str()), (RecyclerKind::Id003Rc, USB));
        assert!(config.vault.acceptor.is_none() && config.vault.dispenser.is_none());
        assert_eq!((config.vault.giver().bays, config.vault.giver().notes_per_bay), (2, 20));
        assert_eq!(loaded.shown["vault.recycler.kind"].origin, "model jcm-ipro-rc");
        let whole = format!("{bays}kind = 'ccnet-b2b'\npath = '/dev/ttyS0'\n");
        let acceptor = "[vault.acceptor]\nkind = 'id003'\npath = '/dev/ttyS1'\n";
        let dispenser = "[vault.dispenser]\nkind = 'f56'\npath = '/dev/ttyS2'\nbays = 2\n";
        assert!(read(&format!("currency = 'EUR'\n{whole}")).is_ok());
        for beside in [acceptor, dispenser, &format!("{acceptor}{dispenser}")] {
            let refused = read(&format!("currency = 'EUR'\n{whole}{beside}")).unwrap_err();
            let words = refused.to_string();
            assert!(words.contains("vault.recycler") && words.contains("beside it"), "{words}");
        }
        let refused = read(&whole).unwrap_err().to_string();
        assert!(refused.contains("currency"), "{refused}");
    }

    /// Loss prevented: a machine with one odd port for which the whole preset is copied, and outlives
    /// its truth.
    #[test]
    fn single_values_are_other_by_hand_and_tell_where_they_are_from() {
        let text = "currency = 'EUR'\n[machine]\nmodel = 'sintra'\n\
            [vault.acceptor]\npath = '/dev/ttyS9'\n[vault.dispenser]\nbays = 4\n";
        let (config, loaded) = read(text).unwrap();
        let acceptor = config.vault.acceptor.unwrap();
        assert_eq!((acceptor.kind, acceptor.path.as_str()), (AcceptorKind::Id003, "/dev/ttyS9"));
        let dispenser = config.vault.dispenser.unwrap();
        assert_eq!((dispenser.path.as_str(), dispenser.bays), (J7, 4));
        let origin = |key: &str| loaded.shown[key].origin.clone();
        assert_eq!(origin("vault.acceptor.kind"), "model sintra");
        assert!(origin("vault.dispenser.bays").ends_with("machine.toml"));
        assert_eq!(origin("vault.heartbeat_s"), "default");
    }

    /// Loss prevented: a typing error in the model's name that leaves a machine without devices.
    #[test]
    fn a_wrong_name_lists_those_that_exist() {
        let refused = read("[machine]\nmodel = 'sintar'\n").unwrap_err().to_string();
        assert!(refused.contains("machine.model") && refused.contains("sintar"), "{refused}");
        for model in MODELS {
            assert!(refused.contains(model.name), "{refused}");
        }
        let refused = read("[machine]\nmodle = 'sintra'\n").unwrap_err();
        assert!(matches!(refused, ConfigError::Shape(_)), "{refused}");
    }
}
