//! What a machine is made of, by its seed: the validator, the dispenser, the printer.

use bitspire_agent::config::{AcceptorKind, DispenserKind};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::ccnet::{self, CcnetSim};
use bitspire_hardware::sim::ebds::{self, EbdsSim};
use bitspire_hardware::sim::escpos::EscPosSim;
use bitspire_hardware::sim::f56::{self, F56Sim};
use bitspire_hardware::sim::faulty::SplitMix64;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_hardware::sim::puloon::{self, PuloonSim};
use clap::ValueEnum as _;

/// Milliseconds that a note takes out of a dispenser.
const NOTE_MS: u64 = 120;
/// Lines of paper in a new roll.
pub(super) const ROLL: u64 = 2_000;

/// The devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) acceptor: AcceptorKind,
    pub(super) dispenser: DispenserKind,
    pub(super) printer: bool,
}

impl Parts {
    /// Each validator with each dispenser; every other machine has a printer.
    pub(super) fn kinds() -> Vec<Self> {
        let mut kinds = Vec::new();
        for &acceptor in AcceptorKind::value_variants() {
            for &dispenser in DispenserKind::value_variants() {
                kinds.push(Self { acceptor, dispenser, printer: kinds.len() % 2 == 1 });
            }
        }
        kinds
    }

    /// One of them by chance.
    pub(super) fn by(chance: &mut SplitMix64) -> Self {
        let kinds = Self::kinds();
        let at = chance.below(u64::try_from(kinds.len()).unwrap_or(1));
        let kind = kinds[usize::try_from(at).unwrap_or(0)];
        Self { printer: chance.chance(500_000), ..kind }
    }

    /// Bays of its dispenser, of those that a world fills.
    pub(super) fn bays(self) -> u8 {
        self.dispenser.limits().bays.min(2)
    }

    /// `options`: how the firmware of the validator is, as far as it can differ so.
    pub(super) fn validator(self, options: Options) -> Box<dyn SimDevice> {
        let Options { says_note, power_recovery, closes_after_note, .. } = options;
        match self.acceptor {
            AcceptorKind::Id003 => {
                let timing =
                    Timing { initialize: 1_000, accept: 600, stack: 800, stacked: 200, take: 800 };
                Box::new(Id003Sim::new(Id003Sim::usd(), options, timing))
            }
            AcceptorKind::Ccnet => {
                let timing = ccnet::Timing {
                    initialize: 1_000,
                    accept: 600,
                    stack: 800,
                    take: 800,
                    confirm: 100,
                };
                let options =
                    ccnet::Options { power_recovery, closes_after_note, ..Default::default() };
                Box::new(CcnetSim::new(CcnetSim::usd(), options, timing))
            }
            AcceptorKind::Ebds => {
                let timing = ebds::Timing { boot: 1_000, accept: 600, stack: 800, take: 800 };
                let options = ebds::Options {
                    extended: says_note,
                    closed_is_zero: closes_after_note,
                    ..Default::default()
                };
                Box::new(EbdsSim::new(EbdsSim::usd(), options, timing))
            }
        }
    }

    pub(super) fn giver(self) -> Box<dyn SimDevice> {
        match self.dispenser.lcdm() {
            None => Box::new(F56Sim::new(f56::Fit { note_ms: NOTE_MS, ..Default::default() })),
            Some(model) => {
                let fit = puloon::Fit { note_ms: NOTE_MS, ..Default::default() };
                Box::new(PuloonSim::new(model, fit))
            }
        }
    }

    pub(super) fn press(self) -> Box<dyn SimDevice> {
        Box::new(EscPosSim::new(u32::try_from(ROLL).unwrap_or(u32::MAX)))
    }

    /// The devices' names.
    pub(super) fn name(self) -> String {
        let printer = if self.printer { "+printer" } else { "" };
        format!("{}+{}{printer}", self.acceptor.protocol(), self.dispenser.protocol())
    }

    /// Why the validator refuses a note, as it would say so.
    pub(super) const fn refusal(self) -> &'static str {
        match self.acceptor {
            AcceptorKind::Ccnet => "65",
            AcceptorKind::Id003 | AcceptorKind::Ebds => "76",
        }
    }
}
