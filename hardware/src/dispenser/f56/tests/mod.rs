//! The engine against the simulated device.

mod crash;
mod dispense;
mod line;
mod set_up;

use std::collections::BTreeMap;

use bitspire_shared::time::Mono;
use serde_json::json;

use super::*;
use crate::dispenser::tests::*;
use crate::dispenser::{BayState, DispenseOutcome};
use crate::frame::f56::{BayCount, Counts, ENQ, SLOTS, TwoDigits};
use crate::frame::hex;
use crate::sim::SimDevice;
use crate::sim::f56::{F56Sim, Fit};

type Rig<D> = Bench<F56<ByTest>, D>;

/// An engine in a machine that trades in dollars.
fn engine() -> F56<ByTest> {
    F56::new(usd())
}

impl Rig<F56Sim> {
    fn new() -> Self {
        Self::on(F56Sim::new(Fit::default()))
    }

    /// Set up and ready.
    fn ready() -> Self {
        let mut bench = Self::new();
        bench.configure();
        assert!(matches!(bench.events.as_slice(), [DispenserEvent::Ready { .. }]));
        bench.events.clear();
        bench
    }
}

impl<D: SimDevice> Rig<D> {
    fn on(device: D) -> Self {
        Self::with(engine, device)
    }

    /// How often the count command was written. Of the host's writes of a dispense, 1 is the status'
    /// ENQ, 2 its frame, 3 the ACK to the reply's ENQ, 4 the ACK to the reply and the count's ENQ, 5
    /// the count's frame, 6 and 7 the ACKs of its reply.
    fn commands(&self) -> usize {
        let head = [0x10, 0x02, 0x00, 0x19, 0x60, 0x03];
        let all = self.writes.concat();
        all.windows(head.len()).filter(|part| *part == head).count()
    }
}
