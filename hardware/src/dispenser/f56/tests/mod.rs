//! The engine against the simulated device, in memory and in virtual time.

mod crash;
mod dispense;
mod line;
mod set_up;

use std::collections::{BTreeMap, VecDeque};

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::*;
use crate::frame::f56::ENQ;
use crate::frame::f56::{BayCount, Counts, TwoDigits};
use crate::sim::SimDevice;
use crate::sim::f56::{F56Sim, Fit};

/// The tests' own authority: its proof proves nothing.
enum ByTest {}

struct Proof<T>(T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for ByTest {
    type Committed<T: Send + 'static> = Proof<T>;
}

const WIRE_MS: u64 = 2;

enum Way {
    ToDevice,
    ToHost,
}

/// What happens to bytes of the host on their way, and to the world meanwhile.
#[derive(Clone)]
enum Then {
    /// They arrive.
    Pass,
    /// They are lost.
    Lose,
    /// This is done to the device, then they arrive.
    Act(Value),
    /// They are lost and the host with them.
    KillHost,
    /// They are lost and the line is gone.
    DropLine,
}

/// Engine and device with a wire of 2 ms between them.
struct Bench<D> {
    engine: F56<ByTest>,
    device: D,
    now: Mono,
    wire: VecDeque<(Mono, Way, Vec<u8>)>,
    wake_at: Option<Mono>,
    events: Vec<DispenserEvent>,
    /// Every write of the host since the last `watch`.
    writes: Vec<Vec<u8>>,
    watch: Option<(usize, Then)>,
    dead: bool,
}

fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn note(major: u32) -> Denomination {
    Denomination::from_major(major, usd()).unwrap()
}

fn two_bays() -> BTreeMap<BayId, Denomination> {
    BTreeMap::from([(bay(1), note(20)), (bay(2), note(50))])
}

fn plan_of(notes: &[(u8, u32)]) -> DispensePlan {
    DispensePlan { notes: notes.iter().map(|(n, count)| (bay(*n), *count)).collect() }
}

impl Bench<F56Sim> {
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

impl<D: SimDevice> Bench<D> {
    fn on(device: D) -> Self {
        let mut bench = Self {
            engine: F56::new(usd()),
            device,
            now: Mono(1_000),
            wire: VecDeque::new(),
            wake_at: None,
            events: Vec::new(),
            writes: Vec::new(),
            watch: None,
            dead: false,
        };
        let output = bench.engine.on_link_up(bench.now);
        bench.apply(output);
        bench
    }

    /// Another host at the same device, as after a restart.
    fn restart_host(&mut self) {
        self.engine = F56::new(usd());
        self.wire.clear();
        self.events.clear();
        self.writes.clear();
        self.watch = None;
        self.dead = false;
        let output = self.engine.on_link_up(self.now);
        self.apply(output);
    }

    fn command(&mut self, command: DispenserCommand<ByTest>) {
        let output = self.engine.command(command, self.now);
        self.apply(output);
    }

    fn configure(&mut self) {
        let before = self.events.len();
        self.command(DispenserCommand::Configure(two_bays()));
        self.run_while(300_000, |bench| {
            let answers = bench.events.iter().skip(before);
            !answers
                .clone()
                .any(|event| is_ready(event) || matches!(event, DispenserEvent::Fault(_)))
        });
    }

    /// Dispenses and runs until the outcome is there.
    fn dispense(&mut self, notes: &[(u8, u32)]) -> DispenseOutcome {
        self.start(notes);
        self.outcome()
    }

    fn start(&mut self, notes: &[(u8, u32)]) {
        self.events.clear();
        self.writes.clear();
        self.command(DispenserCommand::Dispense(Proof(plan_of(notes))));
    }

    fn outcome(&mut self) -> DispenseOutcome {
        self.run_while(200_000, |bench| bench.outcomes().is_empty());
        let outcomes = self.outcomes();
        let [outcome] = outcomes.as_slice() else { panic!("{:?}", self.events) };
        outcome.clone()
    }

    fn outcomes(&self) -> Vec<DispenseOutcome> {
        let outcome = |event: &DispenserEvent| match event {
            DispenserEvent::Dispensed(outcome) => Some(outcome.clone()),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    fn act(&mut self, action: &Value) -> Value {
        self.device.control(action, self.now).unwrap()
    }

    fn arm(&mut self, trap: &str) {
        self.act(&json!({"action": "arm", "trap": trap}));
    }

    /// Does `then` to the host's write number `nth` (from 1) after the dispense command: 1 is the
    /// status' ENQ, 2 its frame, 3 the ACK to the reply's ENQ, 4 the ACK to the reply and the
    /// count's ENQ, 5 the count's frame, 6 and 7 the ACKs of its reply.
    fn watch(&mut self, nth: usize, then: Then) {
        self.watch = Some((nth, then));
    }

    /// Until an event of this run fits.
    fn until(&mut self, fits: impl Fn(&DispenserEvent) -> bool) {
        self.run_while(300_000, |bench| !bench.events.iter().any(&fits));
        assert!(self.events.iter().any(&fits), "{:?}", self.events);
    }

    fn pass(&mut self, ms: u64) {
        let until = self.now.after(ms);
        self.run_while(ms, |bench| bench.now < until);
        self.now = until;
    }

    fn run_while(&mut self, limit_ms: u64, mut more: impl FnMut(&Self) -> bool) {
        let limit = self.now.after(limit_ms);
        while more(self) {
            let wire = self.wire.front().map(|(at, ..)| *at);
            let engine = self.wake_at.filter(|_| !self.dead);
            let due = [wire, engine, self.device.wake_at()].into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= limit) else {
                return;
            };
            self.now = self.now.max(at);
            if wire.is_some_and(|at| at <= self.now) {
                self.deliver();
            } else if engine.is_some_and(|at| at <= self.now) {
                let output = self.engine.on_tick(self.now);
                self.apply(output);
            } else {
                let bytes = self.device.on_tick(self.now);
                self.put(Way::ToHost, bytes);
            }
        }
    }

    fn deliver(&mut self) {
        match self.wire.pop_front() {
            Some((_, Way::ToDevice, bytes)) => {
                let answer = self.device.on_bytes(&bytes, self.now);
                self.put(Way::ToHost, answer);
            }
            Some((_, Way::ToHost, bytes)) if !self.dead => {
                let output = self.engine.on_bytes(&bytes, self.now);
                self.apply(output);
            }
            _ => {}
        }
    }

    fn put(&mut self, way: Way, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.wire.push_back((self.now.after(WIRE_MS), way, bytes));
        }
    }

    fn apply(&mut self, output: Output<DispenserEvent>) {
        self.wake_at = output.wake_at;
        let mut then = Then::Pass;
        if !output.write.is_empty() {
            self.writes.push(output.write.clone());
            if let Some((_, due)) = self.watch.take_if(|(nth, _)| *nth == self.writes.len()) {
                then = due;
            }
        }
        if !matches!(then, Then::KillHost) {
            self.events.extend(output.events);
        }
        match then {
            Then::Pass => self.put(Way::ToDevice, output.write),
            Then::Lose => {}
            Then::Act(action) => {
                self.act(&action);
                self.put(Way::ToDevice, output.write);
            }
            Then::KillHost => self.dead = true,
            Then::DropLine => {
                self.wire.clear();
                let output = self.engine.on_link_down("unplugged", self.now);
                self.apply(output);
            }
        }
    }

    fn bay_count(&self, number: u8, what: &str) -> u32 {
        let counters = self.device.counters();
        let bays = counters["bays"].as_array().unwrap();
        let bay = bays.iter().find(|b| b["bay"] == number).unwrap();
        u32::try_from(bay[what].as_u64().unwrap()).unwrap()
    }

    /// Notes of the bay that are out: at the exit or taken.
    fn out(&self, number: u8) -> u32 {
        self.bay_count(number, "exit") + self.bay_count(number, "taken")
    }

    /// How often the count command was written.
    fn commands(&self) -> usize {
        let head = [0x10, 0x02, 0x00, 0x19, 0x60, 0x03];
        let all = self.writes.concat();
        all.windows(head.len()).filter(|part| *part == head).count()
    }

    fn dispenses(&self) -> u64 {
        self.device.counters()["dispenses"].as_u64().unwrap()
    }

    /// No note of the simulated world is lost or made.
    fn assert_conserved(&self) {
        for number in [1, 2] {
            let places = ["cassette", "path", "exit", "taken", "rejected", "collected"];
            let sum: u32 = places.iter().map(|place| self.bay_count(number, place)).sum();
            assert_eq!(sum, self.bay_count(number, "loaded"), "bay {number}");
        }
    }

    /// The outcome of the first dispense of this device says nothing that is not so.
    fn assert_true(&self, outcome: &DispenseOutcome, story: &str) {
        self.assert_conserved();
        assert!(self.dispenses() <= 1, "{story}: carried out {} times", self.dispenses());
        for number in [1, 2] {
            let (out, rejected) = (self.out(number), self.bay_count(number, "rejected"));
            match outcome {
                DispenseOutcome::Final { bays, .. } => {
                    let said = bays.get(&bay(number)).copied().unwrap_or_default();
                    assert_eq!(said.presented, out, "{story}: bay {number}: {outcome:?}");
                    assert_eq!(said.rejected.unwrap_or(0), rejected, "{story}: {outcome:?}");
                }
                DispenseOutcome::NotStarted(_) => {
                    let held = self.bay_count(number, "cassette");
                    let loaded = self.bay_count(number, "loaded");
                    assert_eq!(held, loaded, "{story}: {outcome:?}");
                }
                DispenseOutcome::Unknowable { last_seen } => assert!(!last_seen.is_empty()),
            }
        }
    }
}

fn is_ready(event: &DispenserEvent) -> bool {
    matches!(event, DispenserEvent::Ready { .. })
}

fn final_of(outcome: DispenseOutcome) -> (BayResults, Option<DeviceFault>) {
    match outcome {
        DispenseOutcome::Final { bays, fault } => (bays, fault),
        other => panic!("{other:?}"),
    }
}

/// The numbers of one bay: requested, picked, presented, rejected.
fn numbers(bays: &BayResults, number: u8) -> (u32, Option<u32>, u32, Option<u32>) {
    let BayResult { requested, picked, presented, rejected, taken, retracted } = bays[&bay(number)];
    assert_eq!((taken, retracted), (None, None), "this device cannot tell");
    (requested, picked, presented, rejected)
}
