//! The dispenser's part of the configuration.

use bitspire_hardware::dispenser::DispenserLimits;
use bitspire_hardware::dispenser::f56;
use bitspire_hardware::dispenser::puloon::{DispenseForm, Model, Settings};
use bitspire_hardware::engine::Parity;
use bitspire_shared::money::Currency;
use bitspire_shell::config::ConfigError;
use serde::{Deserialize, Serialize};

use super::kinds::DispenserKind;
use super::{RawDispenser, port, wrong};

/// Parity of a line whose units differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineParity {
    /// Even parity.
    Even,
    /// No parity bit.
    None,
}

/// How a dispense of an LCDM-4000 ends, which units differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandForm {
    /// With a serial number.
    Serial,
    /// With reserved bytes.
    Plain,
}

/// A dispenser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispenserConfig {
    /// Its protocol.
    pub kind: DispenserKind,
    /// The serial port.
    pub path: String,
    /// Bays that are fitted, numbered from 1.
    pub bays: u8,
    /// A Puloon's bits a second, where its switches say another rate than 9600.
    pub baud: Option<u32>,
    /// A Puloon's parity, where it is not what field units of its model have.
    pub parity: Option<LineParity>,
    /// How an LCDM-4000's dispense ends, where it is not with a serial number.
    pub form: Option<CommandForm>,
}

impl DispenserConfig {
    /// What a Puloon's engine is told.
    #[must_use]
    pub fn lcdm(&self, model: Model, currency: Currency) -> Settings {
        let mut settings = Settings::new(model, currency);
        settings.baud = self.baud.unwrap_or(settings.baud);
        if let Some(parity) = self.parity {
            settings.parity = match parity {
                LineParity::Even => Parity::Even,
                LineParity::None => Parity::None,
            };
        }
        if let Some(form) = self.form {
            settings.form = match form {
                CommandForm::Serial => DispenseForm::Serial,
                CommandForm::Plain => DispenseForm::Plain,
            };
        }
        settings
    }
}

impl DispenserKind {
    /// Which Puloon it is, if it is one.
    #[must_use]
    pub const fn lcdm(self) -> Option<Model> {
        match self {
            Self::F56 => None,
            Self::Puloon4000 => Some(Model::Lcdm4000),
            Self::Puloon2000 => Some(Model::Lcdm2000),
            Self::Puloon1000 => Some(Model::Lcdm1000),
        }
    }

    /// What one of its commands can carry.
    #[must_use]
    pub const fn limits(self) -> DispenserLimits {
        match self.lcdm() {
            None => f56::LIMITS,
            Some(model) => model.limits(),
        }
    }
}

pub(super) fn checked(raw: &RawDispenser) -> Result<DispenserConfig, ConfigError> {
    let RawDispenser { kind, path, bays, baud, parity, form } = raw;
    let most = kind.limits().bays;
    if *bays == 0 || *bays > most {
        return Err(wrong("vault.dispenser.bays", &format!("1 to {most}"), bays));
    }
    let fixed = kind.lcdm().is_none();
    if let Some(baud) = baud.filter(|baud| fixed || !matches!(baud, 9_600 | 19_200 | 38_400)) {
        let expected = if fixed { "nothing: always 9600" } else { "9600, 19200 or 38400" };
        return Err(wrong("vault.dispenser.baud", expected, baud));
    }
    if parity.is_some() && fixed {
        return Err(wrong("vault.dispenser.parity", "nothing: always even", "a parity"));
    }
    if form.is_some() && kind.lcdm() != Some(Model::Lcdm4000) {
        return Err(wrong("vault.dispenser.form", "nothing: only puloon-4000 has forms", "a form"));
    }
    let path = port("vault.dispenser.path", path)?;
    let (baud, parity, form) = (*baud, *parity, *form);
    Ok(DispenserConfig { kind: *kind, path, bays: *bays, baud, parity, form })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: DispenserKind, bays: u8) -> RawDispenser {
        let path = "/dev/ttyS1".to_owned();
        RawDispenser { kind, path, bays, baud: None, parity: None, form: None }
    }

    /// Loss prevented: a machine that talks past its dispenser since a setting of its line was passed
    /// over, or that offers bays that its dispenser does not have.
    #[test]
    fn what_a_unit_does_not_have_is_refused() {
        use DispenserKind::{F56, Puloon1000, Puloon2000, Puloon4000};
        for (kind, most) in [(F56, 4), (Puloon4000, 4), (Puloon2000, 2), (Puloon1000, 1)] {
            assert!(checked(&raw(kind, most)).is_ok());
            assert!(checked(&raw(kind, most + 1)).is_err() && checked(&raw(kind, 0)).is_err());
        }
        let (baud, form) = (Some(19_200), Some(CommandForm::Plain));
        let parity = Some(LineParity::None);
        for refused in [
            RawDispenser { baud, ..raw(F56, 2) },
            RawDispenser { parity, ..raw(F56, 2) },
            RawDispenser { form, ..raw(F56, 2) },
            RawDispenser { form, ..raw(Puloon2000, 2) },
            RawDispenser { baud: Some(115_200), ..raw(Puloon4000, 2) },
        ] {
            assert!(checked(&refused).is_err(), "{refused:?}");
        }
        let config = checked(&RawDispenser { baud, parity, form, ..raw(Puloon4000, 3) }).unwrap();
        let settings = config.lcdm(Model::Lcdm4000, "USD".parse().unwrap());
        assert_eq!((settings.baud, settings.parity), (19_200, Parity::None));
        assert_eq!(settings.form, DispenseForm::Plain);
    }
}
