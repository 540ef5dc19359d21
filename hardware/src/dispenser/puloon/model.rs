//! The models, what differs between them, and what their replies say.

use bitspire_shared::money::Currency;

use crate::dispenser::DispenserLimits;
use crate::dispenser::state::SLOTS;
use crate::engine::{LineSettings, Parity};
use crate::frame::puloon::{ErrorCode, Frame, Id, lcdm1000, lcdm4000};

/// Which dispenser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// LCDM-4000: four cassettes, id 30.
    Lcdm4000,
    /// LCDM-2000: two cassettes, id 50.
    Lcdm2000,
    /// LCDM-1000: one cassette, id 50.
    Lcdm1000,
}

impl Model {
    /// The id of its frames.
    #[must_use]
    pub const fn id(self) -> Id {
        match self {
            Self::Lcdm4000 => Id::Lcdm4000,
            Self::Lcdm2000 | Self::Lcdm1000 => Id::Lcdm1000,
        }
    }

    /// What one command can carry: 20 notes a cassette as Lamassu's field units are driven (the
    /// LCDM-4000 itself stops at 100 in all), 60 by the specification of the smaller ones. More goes
    /// out in batches ([`crate::plan::batches`]), each a plan of its own with its own proof.
    #[must_use]
    pub const fn limits(self) -> DispenserLimits {
        match self {
            Self::Lcdm4000 => DispenserLimits { notes_per_bay: 20, bays: 4 },
            Self::Lcdm2000 => DispenserLimits { notes_per_bay: 60, bays: 2 },
            Self::Lcdm1000 => DispenserLimits { notes_per_bay: 60, bays: 1 },
        }
    }
}

/// How a dispense of an LCDM-4000 ends; units differ, and public sources do not say which want what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DispenseForm {
    /// With a serial number, as Lamassu's field units are driven.
    #[default]
    Serial,
    /// With reserved bytes, as the PyPI package `puloon` has it.
    Plain,
}

/// What an engine must be told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which dispenser.
    pub model: Model,
    /// What the machine trades in.
    pub currency: Currency,
    /// Bits a second: 9600, 19200 or 38400 by the unit's switches.
    pub baud: u32,
    /// Parity: Lamassu's LCDM-4000 units run with even parity, every other source says none.
    pub parity: Parity,
    /// How a dispense ends.
    pub form: DispenseForm,
}

impl Settings {
    /// What field units of the model run with.
    #[must_use]
    pub const fn new(model: Model, currency: Currency) -> Self {
        let parity = match model {
            Model::Lcdm4000 => Parity::Even,
            Model::Lcdm2000 | Model::Lcdm1000 => Parity::None,
        };
        Self { model, currency, baud: 9_600, parity, form: DispenseForm::Serial }
    }

    /// The line that it wants.
    #[must_use]
    pub const fn line(&self) -> LineSettings {
        LineSettings { baud: self.baud, data_bits: 8, parity: self.parity, stop_bits: 1 }
    }

    pub(super) fn status(&self) -> Frame {
        match self.model.id() {
            Id::Lcdm4000 => lcdm4000::Request::Status.frame(),
            Id::Lcdm1000 => lcdm1000::Request::Status.frame(),
        }
    }

    pub(super) fn purge(&self) -> Frame {
        match self.model.id() {
            Id::Lcdm4000 => lcdm4000::Request::Purge.frame(),
            Id::Lcdm1000 => lcdm1000::Request::Purge.frame(),
        }
    }

    pub(super) fn dispense(&self, notes: [u8; SLOTS], serial: u8) -> Frame {
        let [upper, lower, ..] = notes;
        match self.model.id() {
            Id::Lcdm4000 => {
                let form = match self.form {
                    DispenseForm::Serial => lcdm4000::Form::Serial(serial),
                    DispenseForm::Plain => lcdm4000::Form::Plain,
                };
                lcdm4000::Request::Dispense(lcdm4000::Counts { notes, form }).frame()
            }
            Id::Lcdm1000 if lower == 0 => lcdm1000::Request::Upper(upper).frame(),
            Id::Lcdm1000 if upper == 0 => lcdm1000::Request::Lower(lower).frame(),
            Id::Lcdm1000 => lcdm1000::Request::Both(upper, lower).frame(),
        }
    }
}

/// What was counted at one cassette.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// What passed the sensors behind the cassette, where the model tells.
    pub(super) checked: Option<u32>,
    pub(super) exit: u32,
    pub(super) rejected: u32,
}

/// A result of the device: what it counted, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) command: u8,
    pub(super) error: ErrorCode,
    pub(super) bays: [Count; SLOTS],
}

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status { error: ErrorCode, at_exit: bool, present: [bool; SLOTS] },
    Counted(Counted),
    Last(Counted),
    Serial(u8),
    Done { error: ErrorCode },
    Strange,
}

impl Answer {
    pub(super) fn read(frame: &Frame) -> Self {
        match frame.id() {
            Id::Lcdm4000 => Self::big(frame),
            Id::Lcdm1000 => Self::small(frame),
        }
    }

    fn big(frame: &Frame) -> Self {
        use lcdm4000::{AT_EXIT, BayCount, Reply};
        let counted = |command, error, bays: [BayCount; SLOTS]| {
            let bays = bays.map(|BayCount { exit, rejected, .. }| Count {
                checked: None,
                exit: exit.into(),
                rejected: rejected.into(),
            });
            Counted { command, error, bays }
        };
        match Reply::parse(frame) {
            Reply::Status { error, sensors, bays } => Self::Status {
                error,
                at_exit: sensors & AT_EXIT != 0,
                present: bays.map(|bay| bay.present),
            },
            Reply::Counted { command, error, bays } => Self::Counted(counted(command, error, bays)),
            Reply::Last { command, error, bays } => Self::Last(counted(command, error, bays)),
            Reply::Serial { serial, .. } => Self::Serial(serial),
            Reply::Done { error, .. } => Self::Done { error },
            Reply::Measured { .. } | Reply::Values { .. } | Reply::Unknown(_) => Self::Strange,
        }
    }

    fn small(frame: &Frame) -> Self {
        use lcdm1000::{BayCount, Reply};
        let count = |BayCount { checked, exit, rejected, .. }| Count {
            checked: Some(u32::from(checked)),
            exit: u32::from(exit),
            rejected: u32::from(rejected),
        };
        let none = Count::default();
        match Reply::parse(frame) {
            Reply::Status { error, sensors } => {
                let [no_upper, no_lower] = sensors.missing();
                let present = [!no_upper, !no_lower, false, false];
                Self::Status { error, at_exit: sensors.at_exit(), present }
            }
            Reply::One { command, error, bay } => {
                let bays = if command == lcdm1000::LOWER {
                    [none, count(bay), none, none]
                } else {
                    [count(bay), none, none, none]
                };
                Self::Counted(Counted { command, error, bays })
            }
            Reply::Two { error, bays: [upper, lower] } => {
                let bays = [count(upper), count(lower), none, none];
                Self::Counted(Counted { command: lcdm1000::BOTH, error, bays })
            }
            Reply::Done { error, .. } => Self::Done { error },
            Reply::Rom { .. } | Reply::Unknown(_) => Self::Strange,
        }
    }
}
