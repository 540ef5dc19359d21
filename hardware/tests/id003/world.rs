//! Engine and simulator on one line, with one clock.

use std::collections::{BTreeSet, VecDeque};

use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill};
use bitspire_hardware::engine::{Engine, Output};
use bitspire_hardware::frame::id003::{Decoder, Frame, Request};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::faulty::{FaultRates, Faulty};
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use crate::support::{ByTest, Proof};

/// One byte at 9600 baud, rounded.
const BYTE_MS: u64 = 1;

pub(crate) struct World {
    /// Behind a cable that is good until it is told otherwise.
    pub(crate) sim: Faulty<Id003Sim>,
    pub(crate) now: Mono,
    /// What the host said, frame by frame.
    pub(crate) said: Vec<Frame>,
    engine: Option<Id003<ByTest>>,
    wake_at: Option<Mono>,
    to_device: VecDeque<(Mono, u8)>,
    to_host: VecDeque<(Mono, u8)>,
    events: VecDeque<AcceptorEvent>,
    listener: Decoder,
}

impl World {
    /// A device that has just got its power, and a host that opens the line.
    pub(crate) fn new(options: Options) -> Self {
        Self::with_cable(options, 0)
    }

    /// As `new`; the cable's faults, once there are any, follow this seed.
    pub(crate) fn with_cable(options: Options, seed: u64) -> Self {
        let device = Id003Sim::new(Id003Sim::eur(), options, Timing::default());
        let mut world = Self {
            sim: Faulty::new(device, seed, FaultRates::default(), 0),
            now: Mono(0),
            said: Vec::new(),
            engine: None,
            wake_at: None,
            to_device: VecDeque::new(),
            to_host: VecDeque::new(),
            events: VecDeque::new(),
            listener: Decoder::default(),
        };
        world.start_host();
        world
    }

    /// Brought up and open for these notes.
    pub(crate) fn open(options: Options, notes: &[u32]) -> Self {
        let mut world = Self::new(options);
        world.accept(notes);
        world.until(&AcceptorEvent::Accepting);
        world
    }

    pub(crate) fn start_host(&mut self) {
        self.engine = Some(Id003::new(Settings { currency: "EUR".parse().unwrap(), baud: 9600 }));
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies; with `lost`, so do the bytes under way.
    pub(crate) fn kill_host(&mut self, lost: bool) {
        self.engine = None;
        self.wake_at = None;
        self.events.clear();
        self.to_host.clear();
        self.listener.clear();
        if lost {
            self.to_device.clear();
        }
    }

    /// Something that the device said earlier arrives only now.
    pub(crate) fn late(&mut self, reply: &Frame) {
        let mut bytes = Vec::new();
        reply.write_to(&mut bytes);
        queue(&mut self.to_host, self.now, &bytes);
    }

    pub(crate) fn link(&mut self, up: bool) {
        self.to_host.clear();
        self.to_device.clear();
        self.drive(|engine, now| match up {
            true => engine.on_link_up(now),
            false => engine.on_link_down("unplugged", now),
        });
    }

    pub(crate) fn send(&mut self, command: AcceptorCommand<ByTest>) {
        self.drive(|engine, now| engine.command(command, now));
    }

    pub(crate) fn accept(&mut self, notes: &[u32]) {
        let notes = notes.iter().map(|major| note(*major)).collect::<BTreeSet<_>>();
        self.send(AcceptorCommand::Accept(notes));
    }

    pub(crate) fn stack(&mut self, bill: EscrowedBill) {
        self.send(AcceptorCommand::Stack(Proof(bill)));
    }

    fn drive(&mut self, step: impl FnOnce(&mut Id003<ByTest>, Mono) -> Output<AcceptorEvent>) {
        let Some(engine) = &mut self.engine else { return };
        let Output { write, events, wake_at } = step(engine, self.now);
        let mut heard = write.as_slice();
        while let Some(frame) = self.listener.push(&mut heard) {
            self.said.push(frame);
        }
        queue(&mut self.to_device, self.now, &write);
        self.events.extend(events);
        self.wake_at = wake_at;
    }

    /// The next thing happens.
    pub(crate) fn step(&mut self) {
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

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn take_event(&mut self) -> Option<AcceptorEvent> {
        self.events.pop_front()
    }

    /// The next event, within two minutes.
    pub(crate) fn next(&mut self) -> AcceptorEvent {
        let end = self.now.after(120_000);
        loop {
            if let Some(event) = self.take_event() {
                return event;
            }
            assert!(self.now < end, "no event within two minutes; {}", self.status());
            self.step();
        }
    }

    /// Events up to and with this one.
    pub(crate) fn until(&mut self, last: &AcceptorEvent) -> Vec<AcceptorEvent> {
        let mut events = vec![self.next()];
        while events.last() != Some(last) {
            assert!(events.len() < 100, "{last:?} does not come: {events:?}");
            events.push(self.next());
        }
        events
    }

    /// Events of so many milliseconds.
    pub(crate) fn during(&mut self, ms: u64) -> Vec<AcceptorEvent> {
        self.run(ms);
        self.events.drain(..).collect()
    }

    /// A customer inserts a note, which comes to escrow.
    pub(crate) fn escrow(&mut self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        match self.next() {
            AcceptorEvent::Escrowed(bill) => {
                assert_eq!(bill.denomination, note(major));
                bill
            }
            other => panic!("expected the note in escrow, got {other:?}"),
        }
    }

    pub(crate) fn act(&mut self, action: Value) -> String {
        let answer = self.sim.control(&action, self.now).unwrap();
        // the cable has no state
        answer["status"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn status(&mut self) -> String {
        self.act(json!({"action": "state"}))
    }

    pub(crate) fn until_status(&mut self, name: &str) {
        let end = self.now.after(120_000);
        while !self.status().starts_with(name) {
            assert!(self.now < end, "{name} does not come; {}", self.status());
            self.step();
        }
    }

    /// Notes in the cashbox, all values.
    pub(crate) fn cashbox(&self) -> u64 {
        let counters = self.sim.counters();
        counters["cashbox"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.sim.counters()[name].as_u64().unwrap()
    }

    pub(crate) fn times_said(&self, request: Request<'_>) -> usize {
        let frame = request.frame();
        self.said.iter().filter(|said| **said == frame).count()
    }
}

pub(crate) fn note(major: u32) -> Denomination {
    Denomination::from_minor(major * 100).unwrap()
}

fn arrived(line: &mut VecDeque<(Mono, u8)>, now: Mono) -> Option<u8> {
    let (at, _) = line.front()?;
    if *at <= now { line.pop_front().map(|(_, byte)| byte) } else { None }
}

fn queue(line: &mut VecDeque<(Mono, u8)>, now: Mono, bytes: &[u8]) {
    for byte in bytes {
        let free = line.back().map_or(now, |(at, _)| now.max(*at));
        line.push_back((free.after(BYTE_MS), *byte));
    }
}
