//! A dispenser's engine against its simulated device, in memory and in virtual time.

use std::collections::{BTreeMap, VecDeque};

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use super::{DeviceFault, DispenseOutcome, DispensePlan, DispenserCommand, DispenserEvent};
use crate::Authority;
use crate::engine::{Engine, Output};
use crate::sim::SimDevice;
use crate::sim::faulty::{FaultRates, Faulty};

/// The tests' own authority: its proof proves nothing.
pub(super) enum ByTest {}

pub(super) struct Proof<T>(pub(super) T);

impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}

impl Authority for ByTest {
    type Committed<T: Send + 'static> = Proof<T>;
}

pub(super) const WIRE_MS: u64 = 2;

pub(super) enum Way {
    ToDevice,
    ToHost,
}

/// What happens to bytes of the host on their way, and to the world meanwhile.
#[derive(Clone)]
pub(super) enum Then {
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
pub(super) struct Bench<E, D> {
    pub(super) engine: E,
    pub(super) make: fn() -> E,
    pub(super) device: D,
    pub(super) now: Mono,
    pub(super) wire: VecDeque<(Mono, Way, Vec<u8>)>,
    pub(super) wake_at: Option<Mono>,
    pub(super) events: Vec<DispenserEvent>,
    /// Every write of the host since the last `watch`.
    pub(super) writes: Vec<Vec<u8>>,
    pub(super) watch: Option<(usize, Then)>,
    pub(super) dead: bool,
    /// What `configure` sets up.
    pub(super) bays: BTreeMap<BayId, Denomination>,
    /// Whether the device counts rejects in events of one or more notes.
    pub(super) rejects_are_events: bool,
}

pub(super) fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

pub(super) fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub(super) fn note(major: u32) -> Denomination {
    Denomination::from_major(major, usd()).unwrap()
}

pub(super) fn two_bays() -> BTreeMap<BayId, Denomination> {
    BTreeMap::from([(bay(1), note(20)), (bay(2), note(50))])
}

pub(super) fn plan_of(notes: &[(u8, u32)]) -> DispensePlan {
    DispensePlan { notes: notes.iter().map(|(n, count)| (bay(*n), *count)).collect() }
}

impl<E, D: SimDevice> Bench<E, D>
where
    E: Engine<Command = DispenserCommand<ByTest>, Event = DispenserEvent>,
{
    /// The engine that `make` makes, at `device`.
    pub(super) fn with(make: fn() -> E, device: D) -> Self {
        let mut bench = Self {
            engine: make(),
            make,
            device,
            now: Mono(1_000),
            wire: VecDeque::new(),
            wake_at: None,
            events: Vec::new(),
            writes: Vec::new(),
            watch: None,
            dead: false,
            bays: two_bays(),
            rejects_are_events: false,
        };
        let output = bench.engine.on_link_up(bench.now);
        bench.apply(output);
        bench
    }

    /// Another host at the same device, as after a restart.
    pub(super) fn restart_host(&mut self) {
        self.engine = (self.make)();
        self.wire.clear();
        self.events.clear();
        self.writes.clear();
        self.watch = None;
        self.dead = false;
        let output = self.engine.on_link_up(self.now);
        self.apply(output);
    }

    pub(super) fn command(&mut self, command: DispenserCommand<ByTest>) {
        let output = self.engine.command(command, self.now);
        self.apply(output);
    }

    pub(super) fn configure(&mut self) {
        let before = self.events.len();
        self.command(DispenserCommand::Configure(self.bays.clone()));
        self.run_while(300_000, |bench| {
            let answers = bench.events.iter().skip(before);
            !answers
                .clone()
                .any(|event| is_ready(event) || matches!(event, DispenserEvent::Fault(_)))
        });
    }

    /// Dispenses and runs until the outcome is there.
    pub(super) fn dispense(&mut self, notes: &[(u8, u32)]) -> DispenseOutcome {
        self.start(notes);
        self.outcome()
    }

    pub(super) fn start(&mut self, notes: &[(u8, u32)]) {
        self.events.clear();
        self.writes.clear();
        self.command(DispenserCommand::Dispense(Proof(plan_of(notes))));
    }

    pub(super) fn outcome(&mut self) -> DispenseOutcome {
        self.run_while(200_000, |bench| bench.outcomes().is_empty());
        let outcomes = self.outcomes();
        let [outcome] = outcomes.as_slice() else { panic!("{:?}", self.events) };
        outcome.clone()
    }

    pub(super) fn outcomes(&self) -> Vec<DispenseOutcome> {
        let outcome = |event: &DispenserEvent| match event {
            DispenserEvent::Dispensed(outcome) => Some(outcome.clone()),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    pub(super) fn act(&mut self, action: &Value) -> Value {
        self.device.control(action, self.now).unwrap()
    }

    pub(super) fn arm(&mut self, trap: &str) {
        self.act(&json!({"action": "arm", "trap": trap}));
    }

    /// Does `then` to the host's write number `nth` (from 1) after the dispense command.
    pub(super) fn watch(&mut self, nth: usize, then: Then) {
        self.watch = Some((nth, then));
    }

    /// Until an event of this run fits.
    pub(super) fn until(&mut self, fits: impl Fn(&DispenserEvent) -> bool) {
        self.run_while(300_000, |bench| !bench.events.iter().any(&fits));
        assert!(self.events.iter().any(&fits), "{:?}", self.events);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        let until = self.now.after(ms);
        self.run_while(ms, |bench| bench.now < until);
        self.now = until;
    }

    pub(super) fn run_while(&mut self, limit_ms: u64, mut more: impl FnMut(&Self) -> bool) {
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

    pub(super) fn deliver(&mut self) {
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

    pub(super) fn put(&mut self, way: Way, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.wire.push_back((self.now.after(WIRE_MS), way, bytes));
        }
    }

    pub(super) fn apply(&mut self, output: Output<DispenserEvent>) {
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

    pub(super) fn bay_count(&self, number: u8, what: &str) -> u32 {
        let counters = self.device.counters();
        let bays = counters["bays"].as_array().unwrap();
        let bay = bays.iter().find(|b| b["bay"] == number);
        bay.map_or(0, |bay| u32::try_from(bay[what].as_u64().unwrap()).unwrap())
    }

    /// Notes of the bay that are out: at the exit or taken.
    pub(super) fn out(&self, number: u8) -> u32 {
        self.bay_count(number, "exit") + self.bay_count(number, "taken")
    }

    pub(super) fn dispenses(&self) -> u64 {
        self.device.counters()["dispenses"].as_u64().unwrap()
    }

    /// No note of the simulated world is lost or made.
    pub(super) fn assert_conserved(&self) {
        for number in [1, 2] {
            let places = ["cassette", "path", "exit", "taken", "rejected", "collected"];
            let sum: u32 = places.iter().map(|place| self.bay_count(number, place)).sum();
            assert_eq!(sum, self.bay_count(number, "loaded"), "bay {number}");
        }
    }

    /// The outcome of the first dispense of this device says nothing that is not so.
    pub(super) fn assert_true(&self, outcome: &DispenseOutcome, story: &str) {
        self.assert_conserved();
        assert!(self.dispenses() <= 1, "{story}: carried out {} times", self.dispenses());
        for number in [1, 2] {
            let (out, rejected) = (self.out(number), self.bay_count(number, "rejected"));
            match outcome {
                DispenseOutcome::Final { bays, .. } => {
                    let said = bays.get(&bay(number)).copied().unwrap_or_default();
                    assert_eq!(said.presented, out, "{story}: bay {number}: {outcome:?}");
                    let events = self.rejects_are_events;
                    let so = match said.rejected {
                        Some(told) => told == rejected || events && 0 < told && told < rejected,
                        None => events || rejected == 0,
                    };
                    assert!(so, "{story}: bay {number}, {rejected} rejected: {outcome:?}");
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

impl<E, D: SimDevice> Bench<E, Faulty<D>>
where
    E: Engine<Command = DispenserCommand<ByTest>, Event = DispenserEvent>,
{
    /// The cable goes bad: from one fault in 2 000 bytes to one in 20, and cut with every fifth
    /// seed.
    pub(super) fn spoil_cable(&mut self, seed: u64) {
        let rate = 500 * (1 + (seed * seed) % 100);
        let mut rates = FaultRates::spread(u32::try_from(rate).unwrap());
        rates.cut = u32::from(seed.is_multiple_of(5)) * 2_000;
        let rates = json!({"drop": rates.drop, "duplicate": rates.duplicate,
            "corrupt": rates.corrupt, "delay": rates.delay, "max_delay_ms": 300, "cut": rates.cut});
        self.act(&json!({"action": "rates", "rates": rates}));
    }

    /// What has gone wrong on the cable.
    pub(super) fn faults(&self) -> u64 {
        let cable = &self.device.counters()["cable"];
        let ways = ["to_device", "to_host"].map(|way| &cable[way]);
        let what = ["dropped", "duplicated", "corrupted", "delayed", "cut_off"];
        ways.iter().flat_map(|way| what.map(|what| way[what].as_u64().unwrap())).sum()
    }
}

/// Which of the outcomes: final, not started, unknowable.
pub(super) const fn sort(outcome: &DispenseOutcome) -> usize {
    match outcome {
        DispenseOutcome::Final { .. } => 0,
        DispenseOutcome::NotStarted(_) => 1,
        DispenseOutcome::Unknowable { .. } => 2,
    }
}

pub(super) fn is_ready(event: &DispenserEvent) -> bool {
    matches!(event, DispenserEvent::Ready { .. })
}

pub(super) fn final_of(outcome: DispenseOutcome) -> (BayResults, Option<DeviceFault>) {
    match outcome {
        DispenseOutcome::Final { bays, fault } => (bays, fault),
        other => panic!("{other:?}"),
    }
}

/// The numbers of one bay: requested, picked, presented, rejected.
pub(super) fn numbers(bays: &BayResults, number: u8) -> (u32, Option<u32>, u32, Option<u32>) {
    let BayResult { requested, picked, presented, rejected, taken, retracted } = bays[&bay(number)];
    assert_eq!((taken, retracted), (None, None), "this device cannot tell");
    (requested, picked, presented, rejected)
}
