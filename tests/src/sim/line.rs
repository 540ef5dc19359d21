//! One device on its cable, in virtual time: the real engine on this side, the wire-level simulator
//! with its faults on the other.

use bitspire_hardware::engine::{Engine, Output};
use bitspire_hardware::sim::faulty::{FaultRates, Faulty};
use bitspire_hardware::sim::{SimDevice, SimError};
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

/// How long every byte takes.
const LATENCY_MS: u64 = 2;
/// Bytes of the device that are remembered.
const HELD: usize = 256;

/// An engine of whatever protocol, for a line that does not care.
pub(super) trait Driver<C, V> {
    fn link_up(&mut self, now: Mono) -> Output<V>;
    fn link_down(&mut self, now: Mono) -> Output<V>;
    fn bytes(&mut self, bytes: &[u8], now: Mono) -> Output<V>;
    fn tick(&mut self, now: Mono) -> Output<V>;
    fn told(&mut self, command: C, now: Mono) -> Output<V>;
}

impl<E: Engine> Driver<E::Command, E::Event> for E {
    fn link_up(&mut self, now: Mono) -> Output<E::Event> {
        self.on_link_up(now)
    }

    fn link_down(&mut self, now: Mono) -> Output<E::Event> {
        self.on_link_down("unplugged", now)
    }

    fn bytes(&mut self, bytes: &[u8], now: Mono) -> Output<E::Event> {
        self.on_bytes(bytes, now)
    }

    fn tick(&mut self, now: Mono) -> Output<E::Event> {
        self.on_tick(now)
    }

    fn told(&mut self, command: E::Command, now: Mono) -> Output<E::Event> {
        self.command(command, now)
    }
}

/// What is said to a device as `C`, and what it says as `V`.
pub(super) struct Line<C, V> {
    engine: Option<Box<dyn Driver<C, V>>>,
    wake: Option<Mono>,
    sim: Faulty<Box<dyn SimDevice>>,
    /// What came last from the device.
    last: Vec<u8>,
    /// What the next engine hears first.
    stale: Vec<u8>,
}

impl<C, V> Line<C, V> {
    pub(super) fn new(device: Box<dyn SimDevice>, seed: u64, rates: FaultRates) -> Self {
        let sim = Faulty::new(device, seed, rates, LATENCY_MS);
        Self { engine: None, wake: None, sim, last: Vec::new(), stale: Vec::new() }
    }

    /// The vault opens the line.
    pub(super) fn open(&mut self, mut engine: Box<dyn Driver<C, V>>, now: Mono) -> Vec<V> {
        let mut events = Vec::new();
        let output = engine.link_up(now);
        self.engine = Some(engine);
        self.follow(output, now, &mut events);
        let stale = std::mem::take(&mut self.stale);
        self.hear(&stale, now, &mut events);
        events
    }

    /// The vault is gone; what it said is on its way.
    pub(super) fn close(&mut self) {
        self.engine = None;
        self.wake = None;
    }

    /// The last bytes of the device are on their way still when the line is opened again: whoever
    /// opens it has emptied its buffers before.
    pub(super) fn keep_old_bytes(&mut self, most: usize) {
        let from = self.last.len().saturating_sub(most);
        self.stale = self.last.split_off(from);
    }

    pub(super) fn command(&mut self, command: C, now: Mono) -> Vec<V> {
        let mut events = Vec::new();
        if let Some(engine) = &mut self.engine {
            let output = engine.told(command, now);
            self.follow(output, now, &mut events);
        }
        events
    }

    /// The adapter is pulled out and put back.
    pub(super) fn replug(&mut self, now: Mono) -> Vec<V> {
        let mut events = Vec::new();
        if let Some(engine) = &mut self.engine {
            let output = engine.link_down(now);
            self.follow(output, now, &mut events);
        }
        if let Some(engine) = &mut self.engine {
            let output = engine.link_up(now);
            self.follow(output, now, &mut events);
        }
        events
    }

    pub(super) fn wake_at(&self) -> Option<Mono> {
        [self.wake, self.sim.wake_at()].into_iter().flatten().min()
    }

    /// What is due happens.
    pub(super) fn turn(&mut self, now: Mono) -> Vec<V> {
        let mut events = Vec::new();
        if self.sim.wake_at().is_some_and(|at| at <= now) {
            let bytes = self.sim.on_tick(now);
            self.hear(&bytes, now, &mut events);
        }
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            if let Some(engine) = &mut self.engine {
                let output = engine.tick(now);
                self.follow(output, now, &mut events);
            }
        }
        events
    }

    fn hear(&mut self, bytes: &[u8], now: Mono, events: &mut Vec<V>) {
        if bytes.is_empty() {
            return;
        }
        self.last.extend_from_slice(bytes);
        let over = self.last.len().saturating_sub(HELD);
        self.last.drain(..over);
        if let Some(engine) = &mut self.engine {
            let output = engine.bytes(bytes, now);
            self.follow(output, now, events);
        }
    }

    fn follow(&mut self, output: Output<V>, now: Mono, events: &mut Vec<V>) {
        self.wake = output.wake_at;
        events.extend(output.events);
        if !output.write.is_empty() {
            let bytes = self.sim.on_bytes(&output.write, now);
            self.hear(&bytes, now, events);
        }
    }

    /// Somebody does something to the device or its cable.
    pub(super) fn act(&mut self, action: &Value, now: Mono) -> Result<Value, SimError> {
        self.sim.control(action, now)
    }

    /// A good cable from now on.
    pub(super) fn mend(&mut self, now: Mono) {
        let good = json!({ "action": "rates", "rates": {} });
        for action in [json!({ "action": "mend_cable" }), good] {
            self.sim.control(&action, now).expect("the cable takes it");
        }
    }

    pub(super) fn counters(&self) -> Value {
        self.sim.counters()
    }
}
