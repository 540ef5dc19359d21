//! Engine and simulated recycler on one line, with one clock; and what every make must do there.

pub(super) mod crash;
pub(super) mod payout;

use std::collections::{BTreeSet, VecDeque};

use bitspire_shared::ids::BayId;
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

pub(super) use super::testing::*;
use super::{EmptyOutcome, Emptying, RecyclerCommand, RecyclerEvent};
use crate::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill};
use crate::dispenser::{DispenseOutcome, DispensePlan, DispenserCommand, DispenserEvent};
use crate::engine::{Engine, Output};
use crate::sim::SimDevice;
use crate::sim::faulty::{FaultRates, Faulty};

/// A make of recyclers, and its simulated unit.
pub(super) trait Make {
    type Engine: Engine<Command = RecyclerCommand<ByTest>, Event = RecyclerEvent>;
    type Sim: SimDevice;
    /// Finds frames in what the host says.
    type Ear: Default;
    fn engine() -> Self::Engine;
    fn sim() -> Self::Sim;
    /// Orders to move notes in what the host says.
    fn orders(ear: &mut Self::Ear, said: &[u8]) -> usize;
}

pub(super) fn plan(notes: &[(u8, u32)]) -> DispensePlan {
    DispensePlan { notes: notes.iter().map(|(n, count)| (bay(*n), *count)).collect() }
}

/// Engine and simulated unit; box 1 keeps notes of 10, box 2 of 20.
pub(super) struct World<M: Make> {
    pub(super) sim: Faulty<M::Sim>,
    pub(super) now: Mono,
    pub(super) engine: Option<M::Engine>,
    wake_at: Option<Mono>,
    pub(super) to_device: VecDeque<(Mono, u8)>,
    pub(super) to_host: VecDeque<(Mono, u8)>,
    pub(super) events: VecDeque<RecyclerEvent>,
    /// Orders to move notes that went over the line.
    pub(super) orders: usize,
    ear: M::Ear,
    pub(super) loaded: u64,
}

impl<M: Make> World<M> {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            sim: Faulty::new(M::sim(), seed, FaultRates::default(), 0),
            now: Mono(0),
            engine: None,
            wake_at: None,
            to_device: VecDeque::new(),
            to_host: VecDeque::new(),
            events: VecDeque::new(),
            orders: 0,
            ear: M::Ear::default(),
            loaded: 0,
        };
        world.start_host();
        world
    }

    /// Set up, open for 10, 20 and 50, with so many notes in each box.
    pub(super) fn open(seed: u64, notes: [u32; 2]) -> Self {
        let mut world = Self::new(seed);
        world.configure();
        world.ready();
        for (number, notes) in (1..).zip(notes) {
            world.act(json!({"action": "load", "box": number, "notes": notes}));
            world.loaded += u64::from(notes);
        }
        world.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        world.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
        world
    }

    pub(super) fn configure(&mut self) {
        let wanted: BTreeSet<_> = [10, 20, 50].into_iter().map(note).collect();
        self.send(RecyclerCommand::In(AcceptorCommand::Accept(wanted)));
        let boxes = [(bay(1), note(10)), (bay(2), note(20))].into();
        self.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
    }

    pub(super) fn ready(&mut self) {
        self.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
        self.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    }

    /// Well again after something went wrong; configured anew, as whoever keeps books does then.
    pub(super) fn ready_again(&mut self) {
        self.configure();
        self.ready();
    }

    pub(super) fn start_host(&mut self) {
        self.engine = Some(M::engine());
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies.
    pub(super) fn kill_host(&mut self) {
        (self.engine, self.wake_at) = (None, None);
        self.events.clear();
        self.to_host.clear();
    }

    pub(super) fn send(&mut self, command: RecyclerCommand<ByTest>) {
        self.drive(|engine, now| engine.command(command, now));
    }

    pub(super) fn pay(&mut self, notes: &[(u8, u32)]) {
        self.send(RecyclerCommand::Out(DispenserCommand::Dispense(Proof(plan(notes)))));
    }

    pub(super) fn drive(
        &mut self,
        step: impl FnOnce(&mut M::Engine, Mono) -> Output<RecyclerEvent>,
    ) {
        let Some(engine) = &mut self.engine else { return };
        let Output { write, events, wake_at } = step(engine, self.now);
        self.orders += M::orders(&mut self.ear, &write);
        queue(&mut self.to_device, self.now, &write);
        self.events.extend(events);
        self.wake_at = wake_at;
    }

    pub(super) fn step(&mut self) {
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

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.step();
        }
    }

    /// For so long, whatever the device answers arrives as this frame.
    pub(super) fn hear_only(&mut self, frame: &[u8], ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.step();
            if !self.to_host.is_empty() {
                self.to_host.clear();
                self.drive(|engine, now| engine.on_bytes(frame, now));
            }
        }
    }

    /// The host's process is held up for so long, or, `reading`, only what reads its line: the device
    /// goes on. Then the host looks at its clock first, and finds all that came in one go.
    pub(super) fn hold_up(&mut self, ms: u64, reading: bool) {
        let (end, mut heard) = (self.now.after(ms), VecDeque::new());
        if !reading {
            self.wake_at = self.wake_at.map(|at| at.max(end));
        }
        while self.now < end {
            heard.append(&mut self.to_host);
            self.step();
        }
        heard.append(&mut self.to_host);
        let bytes: Vec<_> = heard.into_iter().map(|(_, byte)| byte).collect();
        self.drive(|engine, now| engine.on_bytes(&bytes, now));
    }

    /// Until a note waits for the customer.
    pub(super) fn until_at_bezel(&mut self) {
        while self.sim.counters()["at_bezel"] == 0 {
            self.step();
        }
    }

    /// Events up to and with the first that fits, within five minutes.
    pub(super) fn until(&mut self, fits: impl Fn(&RecyclerEvent) -> bool) -> Vec<RecyclerEvent> {
        let (end, mut seen) = (self.now.after(300_000), Vec::new());
        loop {
            while let Some(event) = self.events.pop_front() {
                let found = fits(&event);
                seen.push(event);
                if found {
                    return seen;
                }
            }
            assert!(self.now < end, "it does not come; {seen:?}, {}", self.state());
            self.step();
        }
    }

    /// The device's counts, asked for.
    pub(super) fn counts(&mut self) -> [u32; 2] {
        self.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        let seen = self.until(|e| matches!(e, RecyclerEvent::Counts(_)));
        match seen.last() {
            Some(RecyclerEvent::Counts(boxes)) => [boxes[&bay(1)], boxes[&bay(2)]],
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn emptied(&mut self) -> EmptyOutcome {
        match self.until(|e| matches!(e, RecyclerEvent::Emptied { .. })).pop() {
            Some(RecyclerEvent::Emptied { outcome, .. }) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn outcome(&mut self) -> DispenseOutcome {
        let fits =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_)));
        match self.until(fits).pop() {
            Some(RecyclerEvent::Out(DispenserEvent::Dispensed(outcome))) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn escrow(&mut self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        self.loaded += 1;
        let seen = self.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Escrowed(_))));
        match seen.last() {
            Some(RecyclerEvent::In(AcceptorEvent::Escrowed(bill))) => *bill,
            other => panic!("{other:?}"),
        }
    }

    /// A note comes in and is credited.
    pub(super) fn take_in(
        &mut self,
        command: impl FnOnce(Proof<EscrowedBill>) -> RecyclerCommand<ByTest>,
        major: u32,
    ) {
        let bill = self.escrow(major);
        self.send(command(Proof(bill)));
        self.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
        self.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
        self.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    }

    pub(super) fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    pub(super) fn state(&mut self) -> Value {
        self.sim.control(&json!({"action": "state"}), self.now).unwrap()
    }

    /// Notes in a box, as they lie there.
    pub(super) fn in_box(&self, number: usize) -> u64 {
        sum(&self.sim.counters()["boxes"][number - 1])
    }

    pub(super) fn given(&self) -> u64 {
        sum(&self.sim.counters()["given"])
    }

    pub(super) fn cashbox(&self) -> u64 {
        sum(&self.sim.counters()["cashbox"])
    }

    /// No simulated note is made or lost.
    pub(super) fn conserved(&self) {
        let counters = self.sim.counters();
        let n = |name: &str| counters[name].as_u64().unwrap();
        let stopped: u64 =
            ["at_bezel", "in_path", "returned", "rejected", "removed"].map(n).iter().sum();
        let kept = self.in_box(1) + self.in_box(2) + self.given() + self.cashbox();
        assert_eq!(kept + stopped, self.loaded, "{counters}");
    }
}
