//! Engine and simulated unit on one line, with one clock.

mod crash;
mod inlet;
mod odd;
mod payout;

use std::collections::VecDeque;

use bitspire_shared::cash::{BayResult, BayResults};
use serde_json::{Value, json};

use super::*;
use crate::acceptor::EscrowedBill;
use crate::dispenser::DispenseOutcome;
use crate::recycler::testing::*;
use crate::sim::SimDevice;
use crate::sim::faulty::{FaultRates, Faulty};
use crate::sim::smart_payout::{Options, SmartPayoutSim, Timing};

fn done(requested: u32, taken: u32, [retracted, rejected]: [u32; 2]) -> BayResult {
    BayResult {
        requested,
        picked: Some(taken + retracted + rejected),
        presented: taken + retracted,
        taken: Some(taken),
        retracted: Some(retracted),
        rejected: Some(rejected),
    }
}

/// Bay 1 stands for notes of 10, bay 2 of 20.
struct World {
    sim: Faulty<SmartPayoutSim>,
    now: Mono,
    engine: Option<SmartPayout<ByTest>>,
    hosts: u8,
    wake_at: Option<Mono>,
    to_device: VecDeque<(Mono, u8)>,
    to_host: VecDeque<(Mono, u8)>,
    events: VecDeque<RecyclerEvent>,
    credits: usize,
    loaded: u64,
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let start = if options.says_starting { 1_000 } else { 8_000 };
        let timing = Timing { start, ..Timing::default() };
        let device = SmartPayoutSim::new(SmartPayoutSim::eur(), options, timing);
        let mut world = Self {
            sim: Faulty::new(device, seed, FaultRates::default(), 0),
            now: Mono(0),
            engine: None,
            hosts: 0,
            wake_at: None,
            to_device: VecDeque::new(),
            to_host: VecDeque::new(),
            events: VecDeque::new(),
            credits: 0,
            loaded: 0,
        };
        world.start_host();
        world
    }

    /// Set up, open for 10, 20 and 50, with so many notes in each bay.
    fn open(seed: u64, notes: [u32; 2]) -> Self {
        Self::with(seed, notes, Options::default())
    }

    fn with(seed: u64, notes: [u32; 2], options: Options) -> Self {
        let mut world = Self::new(seed, options);
        world.configure();
        world.ready();
        for (number, notes) in (1..).zip(notes) {
            world.act(json!({"action": "load", "box": number, "notes": notes}));
            world.loaded += u64::from(notes);
        }
        world.refresh();
        world
    }

    fn configure(&mut self) {
        let wanted = [10, 20, 50].into_iter().map(note).collect();
        self.send(RecyclerCommand::In(AcceptorCommand::Accept(wanted)));
        let bays = [(bay(1), note(10)), (bay(2), note(20))].into();
        self.send(RecyclerCommand::Out(DispenserCommand::Configure(bays)));
    }

    fn ready(&mut self) {
        let (mut ready, mut open) = (false, false);
        self.until(|event| {
            ready |= is_ready(event);
            open |= *event == RecyclerEvent::In(AcceptorEvent::Accepting);
            ready && open
        });
    }

    /// The counts, asked for.
    fn refresh(&mut self) -> [u32; 2] {
        self.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        match self.until(|e| matches!(e, RecyclerEvent::Counts(_))).pop() {
            Some(RecyclerEvent::Counts(counts)) => [counts[&bay(1)], counts[&bay(2)]],
            other => panic!("{other:?}"),
        }
    }

    fn start_host(&mut self) {
        self.hosts += 1;
        self.engine = Some(SmartPayout::new(Settings {
            currency: currency(),
            baud: 9_600,
            notes_per_bay: 30,
            fixed_key: FixedKey::default(),
            primes: Primes::USUAL,
            seed: Seed::new([self.hosts; 16]),
        }));
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies.
    fn kill_host(&mut self) {
        (self.engine, self.wake_at) = (None, None);
        self.events.clear();
        self.to_host.clear();
        self.to_device.clear();
    }

    fn send(&mut self, command: RecyclerCommand<ByTest>) {
        self.drive(|engine, now| engine.command(command, now));
    }

    fn pay(&mut self, notes: &[(u8, u32)]) {
        let notes = notes.iter().map(|(n, count)| (bay(*n), *count)).collect();
        let plan = Proof(DispensePlan { notes });
        self.send(RecyclerCommand::Out(DispenserCommand::Dispense(plan)));
    }

    fn empty(&mut self, number: u8) -> EmptyOutcome {
        self.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(number) })));
        match self.until(|e| matches!(e, RecyclerEvent::Emptied { .. })).pop() {
            Some(RecyclerEvent::Emptied { outcome, .. }) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn drive(
        &mut self,
        step: impl FnOnce(&mut SmartPayout<ByTest>, Mono) -> Output<RecyclerEvent>,
    ) {
        let Some(engine) = &mut self.engine else { return };
        let Output { write, events, wake_at } = step(engine, self.now);
        queue(&mut self.to_device, self.now, &write);
        let credit =
            |e: &&RecyclerEvent| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. }));
        self.credits += events.iter().filter(credit).count();
        self.events.extend(events);
        self.wake_at = wake_at;
    }

    fn step(&mut self) {
        let next = [
            self.wake_at,
            self.sim.wake_at(),
            self.to_device.front().map(|(at, _)| *at),
            self.to_host.front().map(|(at, _)| *at),
        ];
        let next = next.into_iter().flatten().min().unwrap_or(self.now.after(10));
        self.now = self.now.max(next);
        if self.sim.wake_at().is_some_and(|at| at <= self.now) {
            let bytes = self.sim.on_tick(self.now);
            queue(&mut self.to_host, self.now, &bytes);
        }
        if let Some(byte) = arrived(&mut self.to_device, self.now) {
            let bytes = self.sim.on_bytes(&[byte], self.now);
            queue(&mut self.to_host, self.now, &bytes);
        }
        if let Some(byte) = arrived(&mut self.to_host, self.now) {
            self.drive(|engine, now| engine.on_bytes(&[byte], now));
        }
        if self.wake_at.is_some_and(|at| at <= self.now) {
            self.drive(|engine, now| engine.on_tick(now));
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.step();
        }
    }

    /// Events up to and with the first that fits, within five minutes.
    fn until(&mut self, mut fits: impl FnMut(&RecyclerEvent) -> bool) -> Vec<RecyclerEvent> {
        let (end, mut seen) = (self.now.after(300_000), Vec::new());
        loop {
            while let Some(event) = self.events.pop_front() {
                let found = fits(&event);
                seen.push(event);
                if found {
                    return seen;
                }
            }
            assert!(self.now < end, "it does not come; {seen:?}, {}", self.told());
            self.step();
        }
    }

    fn outcome(&mut self) -> DispenseOutcome {
        let fits =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_)));
        match self.until(fits).pop() {
            Some(RecyclerEvent::Out(DispenserEvent::Dispensed(outcome))) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn insert(&mut self, major: u32) {
        self.act(json!({"action": "insert", "denomination": major}));
        self.loaded += 1;
    }

    fn escrow(&mut self, major: u32) -> EscrowedBill {
        self.insert(major);
        match self.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Escrowed(_)))).pop() {
            Some(RecyclerEvent::In(AcceptorEvent::Escrowed(bill))) => bill,
            other => panic!("{other:?}"),
        }
    }

    /// A note comes in and is credited.
    fn take_in(
        &mut self,
        command: impl FnOnce(Proof<EscrowedBill>) -> RecyclerCommand<ByTest>,
        major: u32,
    ) -> Vec<RecyclerEvent> {
        let bill = self.escrow(major);
        self.send(command(Proof(bill)));
        self.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
        self.acknowledge();
        self.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting))
    }

    fn acknowledge(&mut self) {
        self.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
    }

    fn act(&mut self, action: Value) {
        let done = self.sim.control(&action, self.now);
        assert!(done.is_ok(), "{action}: {done:?}, {}", self.told());
    }

    fn told(&self) -> String {
        let state = self.engine.as_ref().map(|engine| format!("{:?}", engine.setup.step));
        format!("{state:?} {}", self.sim.counters())
    }

    fn sum(&self, place: &str) -> u64 {
        sum(&self.sim.counters()[place])
    }

    fn given(&self) -> u64 {
        self.sum("given")
    }

    fn payouts(&self) -> u64 {
        self.sim.counters()["payouts"].as_u64().unwrap()
    }

    /// No simulated note is made or lost.
    fn conserved(&self) {
        let told = self.sim.counters();
        let flat: u64 = ["returned", "rejected", "removed", "in_path", "at_bezel"]
            .iter()
            .map(|place| told[place].as_u64().unwrap())
            .sum();
        let sums: u64 =
            ["store", "cashbox", "collected", "given"].iter().map(|place| self.sum(place)).sum();
        assert_eq!(flat + sums, self.loaded, "{told}");
    }
}

fn is_ready(event: &RecyclerEvent) -> bool {
    matches!(event, RecyclerEvent::Out(DispenserEvent::Ready { .. }))
}

/// Whether the outcome says what the simulated notes say, or that nobody knows.
fn is_true(world: &World, outcome: &DispenseOutcome) -> bool {
    let (taken, aside) = match outcome {
        DispenseOutcome::Unknowable { .. } => return true,
        DispenseOutcome::NotStarted(_) => (0, 0),
        DispenseOutcome::Final { bays, .. } => {
            let sum = |of: fn(&BayResult) -> Option<u32>| -> u32 {
                bays.values().map(|bay| of(bay).unwrap()).sum()
            };
            (sum(|b| b.taken), sum(|b| b.retracted) + sum(|b| b.rejected))
        }
    };
    (world.given(), world.sum("cashbox")) == (u64::from(taken), u64::from(aside))
}
