//! The recycler's part of the configuration: one device in place of validator and dispenser.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_hardware::dispenser::DispenserLimits;
use bitspire_hardware::recycler::{ccnet_b2b, id003_rc, smart_payout};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shell::config::ConfigError;

use super::kinds::RecyclerKind;
use super::{RawRecycler, port, wrong};

/// Notes that a bay keeps where nothing else is said: the smallest boxes in the field hold 30.
const NOTES_PER_BAY: u16 = 30;

/// A recycler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecyclerConfig {
    /// Its protocol.
    pub kind: RecyclerKind,
    /// The serial port; names under /dev/serial/by-path stay the same over a restart.
    pub path: String,
    /// Bits a second, where it is not the protocol's usual rate.
    pub baud: Option<u32>,
    /// Which notes each bay keeps, and gives.
    pub bays: BTreeMap<BayId, Denomination>,
    /// Notes that a bay keeps at most; the rest goes to the cashbox. A Bill-to-Bill unit goes by its
    /// own.
    pub notes_per_bay: u16,
}

impl RecyclerKind {
    /// What one of its commands can carry.
    #[must_use]
    pub const fn limits(self) -> DispenserLimits {
        match self {
            Self::Id003Rc => id003_rc::LIMITS,
            Self::CcnetB2b => ccnet_b2b::LIMITS,
            Self::SmartPayout => smart_payout::LIMITS,
        }
    }
}

pub(super) fn checked(raw: &RawRecycler) -> Result<RecyclerConfig, ConfigError> {
    let RawRecycler { kind, path, baud, bays_minor, notes_per_bay } = raw;
    let most = usize::from(kind.limits().bays);
    let key = "vault.recycler.bays_minor";
    if bays_minor.is_empty() || bays_minor.len() > most {
        let expected = format!(
            "the value of the notes that each bay keeps, in minor units: [2000, 5000]; 1 to {most} \
             bays"
        );
        return Err(wrong(key, &expected, format!("{bays_minor:?}")));
    }
    let mut bays = BTreeMap::new();
    for (number, minor) in (1..).zip(bays_minor) {
        let note = Denomination::from_minor(*minor).ok();
        let (Some(bay), Some(note)) = (BayId::new(number), note) else {
            return Err(wrong(key, "notes above 0 minor units", minor));
        };
        bays.insert(bay, note);
    }
    let kinds: BTreeSet<_> = bays.values().collect();
    if *kind != RecyclerKind::Id003Rc && kinds.len() < bays.len() {
        let expected =
            "each value once: the device itself chooses which of two such bays it pays from";
        return Err(wrong(key, expected, format!("{bays_minor:?}")));
    }
    if let Some(baud) = baud.filter(|baud| !matches!(baud, 9_600 | 19_200 | 38_400)) {
        return Err(wrong("vault.recycler.baud", "9600, 19200 or 38400", baud));
    }
    let own_limit = *kind == RecyclerKind::CcnetB2b && notes_per_bay.is_some();
    if own_limit || *notes_per_bay == Some(0) {
        let expected = if own_limit { "nothing: the unit's own" } else { "at least 1" };
        let got = notes_per_bay.unwrap_or_default();
        return Err(wrong("vault.recycler.notes_per_bay", expected, got));
    }
    let path = port("vault.recycler.path", path)?;
    let notes_per_bay = notes_per_bay.unwrap_or(NOTES_PER_BAY);
    Ok(RecyclerConfig { kind: *kind, path, baud: *baud, bays, notes_per_bay })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: RecyclerKind, bays_minor: &[u32]) -> RawRecycler {
        let (path, bays_minor) = ("/dev/ttyS1".to_owned(), bays_minor.to_vec());
        RawRecycler { kind, path, baud: None, bays_minor, notes_per_bay: None }
    }

    /// Loss prevented: a machine that sells from boxes that its recycler does not have, or books the
    /// notes of one box in another.
    #[test]
    fn what_a_unit_does_not_have_is_refused() {
        use RecyclerKind::{CcnetB2b, Id003Rc, SmartPayout};
        let config = checked(&raw(Id003Rc, &[1_000, 2_000])).unwrap();
        let notes: Vec<_> =
            config.bays.iter().map(|(bay, note)| (bay.get(), note.minor())).collect();
        assert_eq!((notes, config.notes_per_bay), (vec![(1, 1_000), (2, 2_000)], 30));
        assert!(checked(&raw(Id003Rc, &[2_000, 2_000])).is_ok(), "two boxes of one value");
        assert!(checked(&RawRecycler { baud: Some(19_200), ..raw(CcnetB2b, &[500]) }).is_ok());
        for refused in [
            raw(Id003Rc, &[]),
            raw(Id003Rc, &[500, 1_000, 2_000]),
            raw(Id003Rc, &[0]),
            raw(CcnetB2b, &[2_000, 2_000]),
            raw(SmartPayout, &[2_000, 2_000]),
            raw(SmartPayout, &[1_000; 9]),
            RawRecycler { baud: Some(115_200), ..raw(Id003Rc, &[500]) },
            RawRecycler { notes_per_bay: Some(0), ..raw(Id003Rc, &[500]) },
            RawRecycler { notes_per_bay: Some(20), ..raw(CcnetB2b, &[500]) },
            RawRecycler { path: "ttyS1".to_owned(), ..raw(Id003Rc, &[500]) },
        ] {
            assert!(checked(&refused).is_err(), "{refused:?}");
        }
    }
}
