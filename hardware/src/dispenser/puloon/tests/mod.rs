//! The engine against the simulated device.

mod crash;
mod dispense;
mod set_up;

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::dispenser::tests::*;
use crate::dispenser::{BayState, DispenseOutcome};
use crate::sim::SimDevice;
use crate::sim::puloon::{Fit, PuloonSim};

const MODELS: [Model; 3] = [Model::Lcdm4000, Model::Lcdm2000, Model::Lcdm1000];

type Rig<D> = Bench<Puloon<ByTest>, D>;

fn make(model: Model) -> fn() -> Puloon<ByTest> {
    match model {
        Model::Lcdm4000 => || Puloon::new(Settings::new(Model::Lcdm4000, usd())),
        Model::Lcdm2000 => || Puloon::new(Settings::new(Model::Lcdm2000, usd())),
        Model::Lcdm1000 => || Puloon::new(Settings::new(Model::Lcdm1000, usd())),
    }
}

impl Rig<PuloonSim> {
    fn new(model: Model) -> Self {
        Self::on(model, PuloonSim::new(model, Fit::default()))
    }

    /// Set up and ready.
    fn ready(model: Model) -> Self {
        let mut bench = Self::new(model);
        bench.configure();
        assert!(
            matches!(bench.events.as_slice(), [DispenserEvent::Ready { .. }]),
            "{model:?}: {:?}",
            bench.events
        );
        bench.events.clear();
        bench
    }
}

impl<D: SimDevice> Rig<D> {
    fn on(model: Model, device: D) -> Self {
        let mut bench = Self::with(make(model), device);
        bench.rejects_are_events = true;
        if model == Model::Lcdm1000 {
            bench.bays.remove(&bay(2));
        }
        bench
    }

    /// How often a dispense was written.
    fn commands(&self) -> usize {
        let all = self.writes.concat();
        let is = |head: &[u8]| match head {
            [0x04, 0x30, 0x02, command] => *command == 0x52,
            [0x04, 0x50, 0x02, command] => matches!(command, 0x45 | 0x55 | 0x56),
            _ => false,
        };
        all.windows(4).filter(|head| is(head)).count()
    }
}

/// Of the host's writes of a dispense, which one carries its frame: status, ACK, on an LCDM-4000 last
/// status and ACK, frame, ACK.
const fn frame_at(model: Model) -> usize {
    match model {
        Model::Lcdm4000 => 5,
        Model::Lcdm2000 | Model::Lcdm1000 => 3,
    }
}

/// A plan that the model has the bays for.
fn some(model: Model) -> Vec<(u8, u32)> {
    match model {
        Model::Lcdm4000 | Model::Lcdm2000 => vec![(1, 3), (2, 1)],
        Model::Lcdm1000 => vec![(1, 4)],
    }
}
