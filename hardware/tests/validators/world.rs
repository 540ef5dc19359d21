//! Engine and simulator on one line, with one clock.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill};
use bitspire_hardware::engine::{Engine, Output};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::faulty::{FaultRates, Faulty};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;
use serde_json::{Value, json};

use crate::support::{ByTest, Proof};

/// One byte at 9600 baud, rounded.
const BYTE_MS: u64 = 1;

/// A protocol: its engine, its simulated device, and what they say.
pub(crate) trait Protocol: Copy + Debug + 'static {
    type Engine: Engine<Command = AcceptorCommand<ByTest>, Event = AcceptorEvent>;
    type Sim: SimDevice;
    type Options: Copy + Debug + Default;
    type Frame: PartialEq;
    /// How the device's state begins when a credit waits for its confirmation.
    const CREDIT: &'static str;
    /// The code of a note of another length, and how it is told.
    const REJECT: (&'static str, &'static str);
    /// The code of a note that is not enabled.
    const INHIBITED: &'static str;
    /// How a full cashbox is told.
    const FULL: &'static str;
    /// How long either side is away: too short for the other to notice, long enough for a fault, long
    /// enough for the device to end a note by itself.
    const DOWN_MS: [u64; 3];
    /// For notes of EUR.
    fn engine() -> Self::Engine;
    /// Knows notes of EUR.
    fn sim(options: Self::Options) -> Self::Sim;
    /// The frames of the host in these bytes.
    fn frames(bytes: &[u8]) -> Vec<Self::Frame>;
    /// The command to stack, as this engine says it.
    fn stack() -> Self::Frame;
    /// The command to keep a note in escrow.
    fn hold() -> Self::Frame;
    /// The question for the notes that the device knows.
    fn table() -> Self::Frame;
}

pub(crate) struct World<P: Protocol> {
    /// Behind a cable that is good until it is told otherwise.
    pub(crate) sim: Faulty<P::Sim>,
    pub(crate) now: Mono,
    /// What the host said, frame by frame.
    pub(crate) said: Vec<P::Frame>,
    engine: Option<P::Engine>,
    wake_at: Option<Mono>,
    to_device: VecDeque<(Mono, u8)>,
    to_host: VecDeque<(Mono, u8)>,
    events: VecDeque<AcceptorEvent>,
}

impl<P: Protocol> World<P> {
    /// A device that has just got its power, and a host that opens the line.
    pub(crate) fn new(options: P::Options) -> Self {
        Self::with_cable(options, 0)
    }

    /// As `new`; the cable's faults, once there are any, follow this seed.
    pub(crate) fn with_cable(options: P::Options, seed: u64) -> Self {
        let device = P::sim(options);
        let mut world = Self {
            sim: Faulty::new(device, seed, FaultRates::default(), 0),
            now: Mono(0),
            said: Vec::new(),
            engine: None,
            wake_at: None,
            to_device: VecDeque::new(),
            to_host: VecDeque::new(),
            events: VecDeque::new(),
        };
        world.start_host();
        world
    }

    /// Brought up and open for these notes.
    pub(crate) fn open(options: P::Options, notes: &[u32]) -> Self {
        let mut world = Self::new(options);
        world.accept(notes);
        world.until(&AcceptorEvent::Accepting);
        world
    }

    pub(crate) fn start_host(&mut self) {
        self.engine = Some(P::engine());
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies; with `lost`, so do the bytes under way.
    pub(crate) fn kill_host(&mut self, lost: bool) {
        self.engine = None;
        self.wake_at = None;
        self.events.clear();
        self.to_host.clear();
        if lost {
            self.to_device.clear();
        }
    }

    /// Something that the device said earlier arrives only now.
    pub(crate) fn late(&mut self, bytes: &[u8]) {
        queue(&mut self.to_host, self.now, bytes);
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

    fn drive(&mut self, step: impl FnOnce(&mut P::Engine, Mono) -> Output<AcceptorEvent>) {
        let Some(engine) = &mut self.engine else { return };
        let Output { write, events, wake_at } = step(engine, self.now);
        self.said.extend(P::frames(&write));
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

    pub(crate) fn until_not_status(&mut self, name: &str) {
        let end = self.now.after(120_000);
        while self.status().starts_with(name) {
            assert!(self.now < end, "{name} does not end");
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

    pub(crate) fn times(&self, frame: &P::Frame) -> usize {
        self.said.iter().filter(|said| *said == frame).count()
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
