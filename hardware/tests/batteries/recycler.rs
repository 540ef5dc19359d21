//! What every recycler must do, through the port that the agent sees: run on each implementation with
//! its real runner, its real line and its simulated device.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent, EscrowedBill};
use bitspire_hardware::dispenser::{
    DispenseOutcome, DispensePlan, DispenserCommand, DispenserEvent,
};
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::recycler::{
    EmptyOutcome, Emptying, Recycler, RecyclerCommand, RecyclerEvent,
};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::host::Host;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Currency, Denomination};
use serde_json::{Value, json};

use crate::support::{ByTest, Proof};

const PATIENCE: Duration = Duration::from_secs(60);

type Sink = Box<dyn FnMut(RecyclerEvent) + Send>;
type Start = fn(&Path, Sink) -> Box<dyn Recycler<ByTest>>;

/// One recycler with its device: box 1 keeps notes of 10, box 2 of 20.
struct Rig {
    // dropped first: the driver before the device that it talks to
    recycler: Option<Box<dyn Recycler<ByTest>>>,
    events: Receiver<RecyclerEvent>,
    host: Host,
    start: Start,
    dir: tempfile::TempDir,
}

fn id003_rc() -> Rig {
    use bitspire_hardware::acceptor::id003::Settings as Validator;
    use bitspire_hardware::recycler::id003_rc::{Id003Rc, Settings};
    use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, stacked: 150, take: 150 };
    let sim = Id003Sim::recycler(Id003Sim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let validator = Validator { currency: currency(), baud: 9600 };
        let engine = Id003Rc::<ByTest>::new(Settings { validator, notes_per_box: 30 });
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("id003-rc", engine, opener, sink).unwrap())
    })
}

fn smart_payout() -> Rig {
    use bitspire_hardware::frame::ssp::cipher::{FixedKey, Primes, Seed};
    use bitspire_hardware::recycler::smart_payout::{Settings, SmartPayout};
    use bitspire_hardware::sim::smart_payout::{Options, SmartPayoutSim, Timing};
    let timing = Timing { start: 300, read: 150, stack: 150, take: 150, carry: 150 };
    let sim = SmartPayoutSim::new(SmartPayoutSim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let engine = SmartPayout::<ByTest>::new(Settings {
            currency: currency(),
            baud: 9600,
            notes_per_bay: 30,
            fixed_key: FixedKey::default(),
            primes: Primes::USUAL,
            seed: Seed::new(*b"a seed for tests"),
        });
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("smart-payout", engine, opener, sink).unwrap())
    })
}

fn ccnet_b2b() -> Rig {
    use bitspire_hardware::acceptor::ccnet::Settings;
    use bitspire_hardware::recycler::ccnet_b2b::CcnetB2b;
    use bitspire_hardware::sim::ccnet::{CcnetSim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, take: 150, confirm: 1_000 };
    let sim = CcnetSim::unit(CcnetSim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let engine = CcnetB2b::<ByTest>::new(Settings { currency: currency(), baud: 9600 });
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("ccnet-b2b", engine, opener, sink).unwrap())
    })
}

fn currency() -> Currency {
    "EUR".parse().unwrap()
}

fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

fn note(major: u32) -> Denomination {
    Denomination::from_major(major, currency()).unwrap()
}

fn is_ready(event: &RecyclerEvent) -> bool {
    matches!(event, RecyclerEvent::Out(DispenserEvent::Ready { .. }))
}

impl Rig {
    fn new(sim: impl SimDevice, start: Start) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(Box::new(sim), Some(&dir.path().join("recycler"))).unwrap();
        let (_, events) = mpsc::channel();
        let mut rig = Self { recycler: None, events, host, start, dir };
        rig.restart();
        rig
    }

    /// The host's process dies, and another one comes up.
    fn restart(&mut self) {
        self.recycler = None;
        let (tell, events) = mpsc::channel();
        let sink = Box::new(move |event| {
            // the rig may have gone while the last event was on its way
            let _ = tell.send(event);
        });
        self.recycler = Some((self.start)(&self.dir.path().join("recycler"), sink));
        self.events = events;
        self.configure();
        self.until(|event| *event == RecyclerEvent::In(AcceptorEvent::Accepting));
    }

    /// Until it is ready to give.
    fn configure(&mut self) {
        let notes: BTreeSet<_> = [10, 20, 50].into_iter().map(note).collect();
        self.send(RecyclerCommand::In(AcceptorCommand::Accept(notes)));
        let boxes = BTreeMap::from([(bay(1), note(10)), (bay(2), note(20))]);
        self.send(RecyclerCommand::Out(DispenserCommand::Configure(boxes)));
        self.until(is_ready);
    }

    fn send(&mut self, command: RecyclerCommand<ByTest>) {
        self.recycler.as_mut().unwrap().send(command).unwrap();
    }

    fn until(&self, fits: impl Fn(&RecyclerEvent) -> bool) -> RecyclerEvent {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event within a minute");
            if fits(&event) {
                return event;
            }
        }
    }

    /// The boxes' counts, asked for.
    fn counts(&mut self) -> [u32; 2] {
        self.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        match self.until(|event| matches!(event, RecyclerEvent::Counts(_))) {
            RecyclerEvent::Counts(boxes) => [boxes[&bay(1)], boxes[&bay(2)]],
            other => panic!("{other:?}"),
        }
    }

    fn load(&mut self, notes: [u32; 2]) {
        for (number, notes) in (1..).zip(notes) {
            self.act(json!({"action": "load", "box": number, "notes": notes}));
        }
        self.send(RecyclerCommand::Out(DispenserCommand::Refresh));
        self.until(is_ready);
    }

    fn escrow(&self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        let escrowed =
            |event: &RecyclerEvent| matches!(event, RecyclerEvent::In(AcceptorEvent::Escrowed(_)));
        match self.until(escrowed) {
            RecyclerEvent::In(AcceptorEvent::Escrowed(bill)) => bill,
            other => panic!("{other:?}"),
        }
    }

    fn take_in(&mut self, command: RecyclerCommand<ByTest>) {
        self.send(command);
        self.until(|event| matches!(event, RecyclerEvent::In(AcceptorEvent::Credit { .. })));
        self.send(RecyclerCommand::In(AcceptorCommand::AcknowledgeCredit));
        self.until(|event| *event == RecyclerEvent::In(AcceptorEvent::Accepting));
    }

    fn pay(&mut self, notes: &[(u8, u32)]) {
        let notes = notes.iter().map(|(number, count)| (bay(*number), *count)).collect();
        self.send(RecyclerCommand::Out(DispenserCommand::Dispense(Proof(DispensePlan { notes }))));
    }

    fn outcome(&self) -> DispenseOutcome {
        let fits = |event: &RecyclerEvent| {
            matches!(event, RecyclerEvent::Out(DispenserEvent::Dispensed(_)))
        };
        match self.until(fits) {
            RecyclerEvent::Out(DispenserEvent::Dispensed(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn act(&self, action: Value) {
        self.host.control(action).unwrap();
    }

    /// Until a note waits for a customer who does not take it.
    fn wait_for_the_bezel(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.host.counters().unwrap()["at_bezel"] != 1 {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    fn payouts(&self) -> Value {
        self.host.counters().unwrap()["payouts"].clone()
    }

    fn sum(&self, pointer: &str) -> u64 {
        let counters = self.host.counters().unwrap();
        let notes = counters.pointer(pointer).unwrap().as_object().unwrap();
        notes.values().map(|count| count.as_u64().unwrap()).sum()
    }
}

/// Loss prevented: a box that gives what nobody put in, or keeps what is sold.
fn what_comes_in_can_go_out(mut rig: Rig) {
    for major in [10, 20, 50] {
        let bill = rig.escrow(major);
        rig.take_in(RecyclerCommand::In(AcceptorCommand::Stack(Proof(bill))));
    }
    let bill = rig.escrow(10);
    rig.take_in(RecyclerCommand::StackAway(Proof(bill)));
    assert_eq!((rig.counts(), rig.sum("/cashbox")), ([1, 1], 2));
    rig.pay(&[(1, 1), (2, 1)]);
    let DispenseOutcome::Final { bays, fault: None } = rig.outcome() else { panic!() };
    assert!(bays.values().all(|bay| (bay.presented, bay.taken) == (1, Some(1))), "{bays:?}");
    assert_eq!((rig.counts(), rig.sum("/given")), ([0, 0], 2));
}

/// Loss prevented: notes in the cashbox that the books still offer.
fn an_emptying_is_counted(mut rig: Rig) {
    rig.load([3, 2]);
    rig.send(RecyclerCommand::Empty(Proof(Emptying { bay: bay(1) })));
    let emptied = rig.until(|event| matches!(event, RecyclerEvent::Emptied { .. }));
    let outcome = EmptyOutcome::Moved { notes: 3, fault: None };
    assert_eq!(emptied, RecyclerEvent::Emptied { bay: bay(1), outcome });
    assert_eq!((rig.counts(), rig.sum("/cashbox")), ([0, 2], 3));
}

/// Loss prevented: a note paid twice, or never booked, because the host died.
fn a_payout_outlives_the_host(mut rig: Rig) {
    rig.load([3, 2]);
    rig.act(json!({"action": "leave"}));
    rig.pay(&[(1, 1)]);
    rig.wait_for_the_bezel();
    rig.recycler = None;
    rig.act(json!({"action": "take"}));
    rig.restart();
    assert_eq!((rig.counts(), rig.sum("/given")), ([2, 2], 1));
    assert_eq!(rig.payouts(), 1);
}

/// Loss prevented: a plan that cannot be carried out, or not at once, moves notes.
fn refusals_move_nothing(mut rig: Rig) {
    rig.load([25, 2]);
    for plan in [&[(1, 21)][..], &[], &[(1, 0)], &[(9, 1)]] {
        rig.pay(plan);
        let outcome = rig.outcome();
        let DispenseOutcome::NotStarted(fault) = outcome else { panic!("{plan:?}: {outcome:?}") };
        assert_eq!(fault.detail.contains("batches"), plan == [(1, 21)], "{plan:?}: {fault:?}");
    }
    assert_eq!((rig.counts(), rig.sum("/given")), ([25, 2], 0));
    assert_eq!(rig.payouts(), 0);
}

/// Loss prevented: a cable pulled in the middle is taken for "nothing went out", or the payout is begun
/// again behind it.
fn a_line_lost_in_a_payout_leaves_it_unknown(mut rig: Rig) {
    rig.load([3, 2]);
    rig.act(json!({"action": "leave"}));
    rig.pay(&[(1, 1)]);
    rig.wait_for_the_bezel();
    rig.act(json!({"action": "unplug"}));
    let outcome = rig.outcome();
    let DispenseOutcome::Unknowable { last_seen } = outcome else { panic!("{outcome:?}") };
    assert!(!last_seen.is_empty());
    rig.pay(&[(1, 1)]);
    let outcome = rig.outcome();
    assert!(matches!(outcome, DispenseOutcome::NotStarted(_)), "{outcome:?}");
    rig.act(json!({"action": "take"}));
    rig.act(json!({"action": "plug"}));
    rig.until(|event| *event == RecyclerEvent::Out(DispenserEvent::Recovered));
    rig.configure();
    assert_eq!((rig.counts(), rig.sum("/given")), ([2, 2], 1));
    assert_eq!(rig.payouts(), 1, "and nothing was sent again");
    rig.pay(&[(1, 2)]);
    let DispenseOutcome::Final { bays, fault: None } = rig.outcome() else { panic!() };
    assert_eq!((bays[&bay(1)].taken, rig.sum("/given")), (Some(2), 3));
}

macro_rules! battery {
    ($($name:ident)*) => {
        $(battery!($name: what_comes_in_can_go_out an_emptying_is_counted
            a_payout_outlives_the_host refusals_move_nothing
            a_line_lost_in_a_payout_leaves_it_unknown);)*
    };
    ($name:ident: $($test:ident)*) => {
        mod $name {
            $(#[test] fn $test() { super::$test(super::$name()) })*
        }
    };
}

battery!(ccnet_b2b id003_rc smart_payout);
