//! Engine and simulated recycler on one line, with one clock.

mod crash;
mod follow;
mod odd;
mod payout;

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::*;
use crate::acceptor::{AcceptorCommand, EscrowedBill};
use crate::dispenser::DispenseOutcome;
use crate::frame::id003::Decoder;
use crate::recycler::testing::*;
use crate::sim::SimDevice;
use crate::sim::faulty::{FaultRates, Faulty};
use crate::sim::id003::{Id003Sim, Options, Timing};

fn plan(notes: &[(u8, u32)]) -> DispensePlan {
    DispensePlan { notes: notes.iter().map(|(n, count)| (bay(*n), *count)).collect() }
}

/// Box 1 keeps notes of 10, box 2 of 20.
struct World {
    sim: Faulty<Id003Sim>,
    now: Mono,
    engine: Option<Id003Rc<ByTest>>,
    wake_at: Option<Mono>,
    to_device: VecDeque<(Mono, u8)>,
    to_host: VecDeque<(Mono, u8)>,
    events: VecDeque<RecyclerEvent>,
    /// Orders to move notes that went over the line.
    orders: usize,
    heard: Decoder,
    loaded: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let device = Id003Sim::recycler(Id003Sim::eur(), Options::default(), Timing::default());
        let mut world = Self {
            sim: Faulty::new(device, seed, FaultRates::default(), 0),
            now: Mono(0),
            engine: None,
            wake_at: None,
            to_device: VecDeque::new(),
            to_host: VecDeque::new(),
            events: VecDeque::new(),
            orders: 0,
            heard: Decoder::default(),
            loaded: 0,
        };
        world.start_host();
        world
    }

    /// Set up, open for 10, 20 and 50, with so many notes in each box.
    fn open(seed: u64, notes: [u32; 2]) -> Self {
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

    fn configure(&mut self) {
        let wanted: BTreeSet<_> = [10, 20, 50].into_iter().map(note).collect();
        self.send(RecyclerCommand::In(AcceptorCommand::Accept(wanted)));
        let boxes = [(bay(1), note(10)), (bay(2), note(20))].into();
        self.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
    }

    fn ready(&mut self) {
        self.until(|e| matches!(e, RecyclerEvent::Out(DispenserEvent::Ready { .. })));
        self.until(|e| *e == RecyclerEvent::In(AcceptorEvent::Accepting));
    }

    fn start_host(&mut self) {
        let validator = Validator { currency: currency(), baud: 9_600 };
        self.engine = Some(Id003Rc::new(Settings { validator, notes_per_box: 30 }));
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies.
    fn kill_host(&mut self) {
        (self.engine, self.wake_at) = (None, None);
        self.events.clear();
        self.to_host.clear();
    }

    fn send(&mut self, command: RecyclerCommand<ByTest>) {
        self.drive(|engine, now| engine.command(command, now));
    }

    fn pay(&mut self, notes: &[(u8, u32)]) {
        self.send(RecyclerCommand::Out(DispenserCommand::Dispense(Proof(plan(notes)))));
    }

    fn drive(&mut self, step: impl FnOnce(&mut Id003Rc<ByTest>, Mono) -> Output<RecyclerEvent>) {
        let Some(engine) = &mut self.engine else { return };
        let Output { write, events, wake_at } = step(engine, self.now);
        let mut said = write.as_slice();
        while let Some(frame) = self.heard.push(&mut said) {
            let meant = Extension::parse(&frame);
            self.orders += usize::from(matches!(
                meant,
                Some(Extension::PayOut { .. } | Extension::Collect { .. })
            ));
        }
        queue(&mut self.to_device, self.now, &write);
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

    /// For so long, whatever the device answers arrives as this frame.
    fn hear_only(&mut self, frame: &Frame, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.step();
            if !self.to_host.is_empty() {
                self.to_host.clear();
                self.drive(|engine, now| engine.on_bytes(&frame.to_bytes(), now));
            }
        }
    }

    /// Until a note waits for the customer.
    fn until_at_bezel(&mut self) {
        while self.sim.counters()["at_bezel"] == 0 {
            self.step();
        }
    }

    /// Events up to and with the first that fits, within five minutes.
    fn until(&mut self, fits: impl Fn(&RecyclerEvent) -> bool) -> Vec<RecyclerEvent> {
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

    fn outcome(&mut self) -> DispenseOutcome {
        let fits =
            |e: &RecyclerEvent| matches!(e, RecyclerEvent::Out(DispenserEvent::Dispensed(_)));
        match self.until(fits).pop() {
            Some(RecyclerEvent::Out(DispenserEvent::Dispensed(outcome))) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn escrow(&mut self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        self.loaded += 1;
        let seen = self.until(|e| matches!(e, RecyclerEvent::In(AcceptorEvent::Escrowed(_))));
        match seen.last() {
            Some(RecyclerEvent::In(AcceptorEvent::Escrowed(bill))) => *bill,
            other => panic!("{other:?}"),
        }
    }

    /// A note comes in and is credited.
    fn take_in(
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

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn state(&mut self) -> Value {
        self.sim.control(&json!({"action": "state"}), self.now).unwrap()
    }

    /// Notes in a box, as they lie there.
    fn in_box(&self, number: usize) -> u64 {
        sum(&self.sim.counters()["boxes"][number - 1])
    }

    fn given(&self) -> u64 {
        sum(&self.sim.counters()["given"])
    }

    fn cashbox(&self) -> u64 {
        sum(&self.sim.counters()["cashbox"])
    }

    /// No simulated note is made or lost.
    fn conserved(&self) {
        let bezel = self.sim.counters()["at_bezel"].as_u64().unwrap();
        let path = self.sim.counters()["in_path"].as_u64().unwrap();
        let all = self.in_box(1) + self.in_box(2) + self.given() + self.cashbox() + bezel + path;
        assert_eq!(all, self.loaded, "{}", self.sim.counters());
    }
}
