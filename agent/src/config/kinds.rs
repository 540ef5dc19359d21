//! Which devices a machine may have, and the one name that each has everywhere.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Which protocol the note validator speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum AcceptorKind {
    /// CashCode CCNET.
    Ccnet,
    /// JCM ID-003.
    #[default]
    Id003,
    /// MEI/CPI EBDS.
    Ebds,
}

impl AcceptorKind {
    /// Its name in reports, in the configuration and as `bitspire-sim`'s device.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Ccnet => "ccnet",
            Self::Id003 => "id003",
            Self::Ebds => "ebds",
        }
    }
}

/// Which protocol the dispenser speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DispenserKind {
    /// Fujitsu F53 and F56.
    #[default]
    F56,
    /// Puloon LCDM-4000.
    #[serde(rename = "puloon-4000")]
    #[value(name = "puloon-4000")]
    Puloon4000,
    /// Puloon LCDM-2000.
    #[serde(rename = "puloon-2000")]
    #[value(name = "puloon-2000")]
    Puloon2000,
    /// Puloon LCDM-1000.
    #[serde(rename = "puloon-1000")]
    #[value(name = "puloon-1000")]
    Puloon1000,
}

impl DispenserKind {
    /// Its name in reports, in the configuration and as `bitspire-sim`'s device.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::F56 => "f56",
            Self::Puloon4000 => "puloon-4000",
            Self::Puloon2000 => "puloon-2000",
            Self::Puloon1000 => "puloon-1000",
        }
    }
}

/// Which protocol the recycler speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum RecyclerKind {
    /// JCM ID-003 with its recycler extension.
    #[serde(rename = "id003-rc")]
    #[value(name = "id003-rc")]
    Id003Rc,
    /// CashCode Bill-to-Bill (CCNET).
    #[serde(rename = "ccnet-b2b")]
    #[value(name = "ccnet-b2b")]
    CcnetB2b,
    /// ITL NV200 with SMART Payout.
    SmartPayout,
}

impl RecyclerKind {
    /// Its name in reports, in the configuration and as `bitspire-sim`'s device.
    #[must_use]
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Id003Rc => "id003-rc",
            Self::CcnetB2b => "ccnet-b2b",
            Self::SmartPayout => "smart-payout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a device that reports, configuration and simulator call by different names.
    #[test]
    fn a_device_has_one_name() {
        fn check<T>(protocol: fn(T) -> &'static str)
        where
            T: ValueEnum + Copy + Serialize + PartialEq + std::fmt::Debug,
        {
            for kind in T::value_variants() {
                let name = protocol(*kind);
                assert_eq!(serde_json::to_value(kind).unwrap(), name);
                assert_eq!(T::from_str(name, false), Ok(*kind));
            }
        }
        check(AcceptorKind::protocol);
        check(DispenserKind::protocol);
        check(RecyclerKind::protocol);
    }
}
