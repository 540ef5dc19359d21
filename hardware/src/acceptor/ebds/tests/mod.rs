//! Engine and simulator on one line, with one clock.

mod cable;
mod crash;
mod defects;
mod hand;
mod sequences;

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;
use crate::acceptor::EscrowedBill;
use crate::frame::ebds::Request;
use crate::sim::SimDevice;
use crate::sim::ebds::{EbdsSim, Options, Timing};
use crate::sim::faulty::{FaultRates, Faulty};

/// One byte at 9600 baud, rounded.
const BYTE_MS: u64 = 1;

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

fn settings(policy: PowerUpPolicy) -> Settings {
    Settings { currency: "EUR".parse().unwrap(), baud: 9600, policy }
}

fn note(major: u32) -> Denomination {
    Denomination::from_minor(major * 100).unwrap()
}

struct World {
    /// Behind a cable that is good until it is told otherwise.
    sim: Faulty<EbdsSim>,
    now: Mono,
    /// What the host said, frame by frame.
    said: Vec<Frame>,
    policy: PowerUpPolicy,
    engine: Option<Ebds<ByTest>>,
    wake_at: Option<Mono>,
    to_device: VecDeque<(Mono, u8)>,
    to_host: VecDeque<(Mono, u8)>,
    events: VecDeque<AcceptorEvent>,
    listener: Decoder,
}

impl World {
    /// A device whose power has just come, and a host that opens the line.
    fn new(options: Options) -> Self {
        Self::with(options, PowerUpPolicy::B, 0)
    }

    /// As `new`; the cable's faults, once there are any, follow this seed.
    fn with(options: Options, policy: PowerUpPolicy, seed: u64) -> Self {
        let timing = Timing { boot: 2_000, ..Timing::default() };
        let device = EbdsSim::new(EbdsSim::eur(), options, timing);
        let mut world = Self {
            sim: Faulty::new(device, seed, FaultRates::default(), 0),
            now: Mono(0),
            said: Vec::new(),
            policy,
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
    fn open(options: Options, notes: &[u32]) -> Self {
        Self::new(options).opened(notes)
    }

    fn opened(mut self, notes: &[u32]) -> Self {
        self.accept(notes);
        self.until(&AcceptorEvent::Accepting);
        self
    }

    fn start_host(&mut self) {
        self.engine = Some(Ebds::new(settings(self.policy)));
        self.drive(|engine, now| engine.on_link_up(now));
    }

    /// The host's process dies; with `lost`, so do the bytes under way.
    fn kill_host(&mut self, lost: bool) {
        self.engine = None;
        self.wake_at = None;
        self.events.clear();
        self.to_host.clear();
        self.listener.clear();
        if lost {
            self.to_device.clear();
        }
    }

    fn link(&mut self, up: bool) {
        self.to_host.clear();
        self.to_device.clear();
        self.drive(|engine, now| match up {
            true => engine.on_link_up(now),
            false => engine.on_link_down("unplugged", now),
        });
    }

    fn send(&mut self, command: AcceptorCommand<ByTest>) {
        self.drive(|engine, now| engine.command(command, now));
    }

    fn accept(&mut self, notes: &[u32]) {
        let notes = notes.iter().map(|major| note(*major)).collect::<BTreeSet<_>>();
        self.send(AcceptorCommand::Accept(notes));
    }

    fn stack(&mut self, bill: EscrowedBill) {
        self.send(AcceptorCommand::Stack(Proof(bill)));
    }

    fn drive(&mut self, step: impl FnOnce(&mut Ebds<ByTest>, Mono) -> Output<AcceptorEvent>) {
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

    /// The next event, within two minutes.
    fn next(&mut self) -> AcceptorEvent {
        let end = self.now.after(120_000);
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(self.now < end, "no event within two minutes; {}", self.status());
            self.step();
        }
    }

    /// Events up to and with this one.
    fn until(&mut self, last: &AcceptorEvent) -> Vec<AcceptorEvent> {
        let mut events = vec![self.next()];
        while events.last() != Some(last) {
            assert!(events.len() < 100, "{last:?} does not come: {events:?}");
            events.push(self.next());
        }
        events
    }

    /// Events of so many milliseconds.
    fn during(&mut self, ms: u64) -> Vec<AcceptorEvent> {
        self.run(ms);
        self.events.drain(..).collect()
    }

    /// A customer inserts a note, which comes to escrow.
    fn escrow(&mut self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        match self.next() {
            AcceptorEvent::Escrowed(bill) => {
                assert_eq!(bill.denomination, note(major));
                bill
            }
            other => panic!("expected the note in escrow, got {other:?}"),
        }
    }

    fn act(&mut self, action: Value) -> String {
        let answer = self.sim.control(&action, self.now).unwrap();
        // the cable has no state
        answer["status"].as_str().unwrap_or_default().to_owned()
    }

    fn power_cycle(&mut self) {
        self.act(json!({"action": "power_off"}));
        self.run(700);
        self.act(json!({"action": "power_on"}));
    }

    fn status(&mut self) -> String {
        self.act(json!({"action": "state"}))
    }

    fn until_status(&mut self, name: &str) {
        let end = self.now.after(120_000);
        while !self.status().starts_with(name) {
            assert!(self.now < end, "{name} does not come; {}", self.status());
            self.step();
        }
    }

    /// Notes in the cashbox, all values.
    fn cashbox(&self) -> u64 {
        let counters = self.sim.counters();
        counters["cashbox"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    }

    fn count(&self, name: &str) -> u64 {
        self.sim.counters()[name].as_u64().unwrap()
    }

    fn times(&self, fits: impl Fn(Request<'_>) -> bool) -> usize {
        self.said.iter().filter(|said| fits(Request::parse(said))).count()
    }

    fn stacks(&self) -> usize {
        self.times(|request| matches!(request, Request::Omnibus(own) if own.stack))
    }

    fn resets(&self) -> usize {
        self.times(|request| request == Request::SoftReset)
    }
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

/// The agent's journal as the port's documentation asks for it; it survives a crash of the host.
#[derive(Debug, Default)]
struct Journal {
    /// A note was to be stacked; `true`: its credit is durable.
    open: Option<bool>,
    credits: u64,
    returns: u64,
    /// Notes whose end nobody told.
    unknown: u64,
    /// Credits for which nothing was intended.
    unexplained: u64,
}

impl Journal {
    fn intend(&mut self) {
        self.open = Some(false);
    }

    fn credit(&mut self) {
        match &mut self.open {
            Some(true) => {}
            Some(credited) => {
                *credited = true;
                self.credits += 1;
            }
            None => self.unexplained += 1,
        }
    }

    fn on_event(&mut self, world: &mut World, event: &AcceptorEvent, what: &str) {
        match event {
            AcceptorEvent::Escrowed(bill) => {
                self.intend();
                world.stack(*bill);
            }
            AcceptorEvent::Credit { .. } => {
                self.credit();
                world.send(AcceptorCommand::AcknowledgeCredit);
            }
            AcceptorEvent::Returned => {
                assert_ne!(self.open.take(), Some(true), "returned and credited: {what}");
                self.returns += 1;
            }
            AcceptorEvent::Accepting | AcceptorEvent::Closed => {
                self.unknown += u64::from(self.open.take() == Some(false));
            }
            _ => {}
        }
    }

    /// What was credited against the notes that the device has.
    fn balance(&self, world: &World, what: &str) {
        let taken = world.cashbox();
        assert_eq!(world.count("in_path"), 0, "{what}");
        assert_eq!(self.unexplained, 0, "{what}");
        assert!(self.credits <= taken, "{} credited, {taken} taken: {what}", self.credits);
        assert!(taken <= self.credits + self.unknown, "taken, not reported: {what}: {self:?}");
        let back = world.count("returned");
        assert!(self.returns <= back, "{} told as returned, {back} were: {what}", self.returns);
    }
}
