//! What every acceptor must do, through the port that the agent sees: run on each implementation
//! with its real runner, its real line and its simulated device.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered, Rejected,
    Returned, Stacked,
};
use bitspire_hardware::acceptor::{
    Acceptor, AcceptorCommand, AcceptorEvent, EscrowedBill, FaultKind, PowerUpBill,
};
use bitspire_hardware::port::{Device, serial};
use bitspire_hardware::recycler::{Recycler, RecyclerEvent, halves};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::host::Host;
use bitspire_shared::money::Denomination;
use serde_json::{Value, json};
use support::{ByTest, Proof};

const PATIENCE: Duration = Duration::from_secs(30);

type Sink = Box<dyn FnMut(AcceptorEvent) + Send>;

/// One acceptor with its device, which knows notes of 10, 20 and 50.
struct Rig {
    // dropped first: the driver before the device that it talks to
    acceptor: Option<Box<dyn Acceptor<ByTest>>>,
    events: Receiver<AcceptorEvent>,
    host: Host,
    start: fn(&Path, Sink) -> Box<dyn Acceptor<ByTest>>,
    dir: tempfile::TempDir,
}

fn id003() -> Rig {
    use bitspire_hardware::acceptor::id003::{Id003, Settings};
    use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, stacked: 150, take: 150 };
    let sim = Id003Sim::new(Id003Sim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let settings = Settings { currency: "EUR".parse().unwrap(), baud: 9600 };
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("id003", Id003::<ByTest>::new(settings), opener, sink).unwrap())
    })
}

fn ccnet() -> Rig {
    use bitspire_hardware::acceptor::ccnet::{Ccnet, Settings};
    use bitspire_hardware::sim::ccnet::{CcnetSim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, take: 150, confirm: 100 };
    let sim = CcnetSim::new(CcnetSim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let settings = Settings { currency: "EUR".parse().unwrap(), baud: 9600 };
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("ccnet", Ccnet::<ByTest>::new(settings), opener, sink).unwrap())
    })
}

fn ebds() -> Rig {
    use bitspire_hardware::acceptor::ebds::{Ebds, Settings};
    use bitspire_hardware::frame::ebds::PowerUpPolicy;
    use bitspire_hardware::sim::ebds::{EbdsSim, Options, Timing};
    let timing = Timing { boot: 300, accept: 150, stack: 150, take: 150 };
    let sim = EbdsSim::new(EbdsSim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let (currency, policy) = ("EUR".parse().unwrap(), PowerUpPolicy::B);
        let settings = Settings { currency, baud: 9600, policy };
        let opener = serial(line.to_str().unwrap());
        Box::new(Device::start("ebds", Ebds::<ByTest>::new(settings), opener, sink).unwrap())
    })
}

fn id003_rc() -> Rig {
    use bitspire_hardware::acceptor::id003::Settings as Validator;
    use bitspire_hardware::recycler::id003_rc::{Id003Rc, Settings};
    use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, stacked: 150, take: 150 };
    let sim = Id003Sim::recycler(Id003Sim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let validator = Validator { currency: "EUR".parse().unwrap(), baud: 9600 };
        let engine = Id003Rc::<ByTest>::new(Settings { validator, notes_per_box: 30 });
        let opener = serial(line.to_str().unwrap());
        inlet(Device::start("id003-rc", engine, opener, only_in(sink)).unwrap())
    })
}

fn ccnet_b2b() -> Rig {
    use bitspire_hardware::acceptor::ccnet::Settings;
    use bitspire_hardware::recycler::ccnet_b2b::CcnetB2b;
    use bitspire_hardware::sim::ccnet::{CcnetSim, Options, Timing};
    let timing = Timing { initialize: 300, accept: 150, stack: 150, take: 150, confirm: 1_000 };
    let sim = CcnetSim::unit(CcnetSim::eur(), Options::default(), timing);
    Rig::new(sim, |line, sink| {
        let settings = Settings { currency: "EUR".parse().unwrap(), baud: 9600 };
        let opener = serial(line.to_str().unwrap());
        let engine = CcnetB2b::<ByTest>::new(settings);
        inlet(Device::start("ccnet-b2b", engine, opener, only_in(sink)).unwrap())
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
            currency: "EUR".parse().unwrap(),
            baud: 9600,
            notes_per_bay: 30,
            fixed_key: FixedKey::default(),
            primes: Primes::USUAL,
            seed: Seed::new(*b"a seed for tests"),
        });
        let opener = serial(line.to_str().unwrap());
        inlet(Device::start("smart-payout", engine, opener, only_in(sink)).unwrap())
    })
}

/// The half of a recycler that takes notes.
fn inlet(device: impl Recycler<ByTest> + 'static) -> Box<dyn Acceptor<ByTest>> {
    Box::new(halves::<ByTest>(Box::new(device)).0)
}

/// What a recycler says as an acceptor.
fn only_in(mut sink: Sink) -> Box<dyn FnMut(RecyclerEvent) + Send> {
    Box::new(move |event| {
        if let RecyclerEvent::In(event) = event {
            sink(event);
        }
    })
}

impl Rig {
    fn new(sim: impl SimDevice, start: fn(&Path, Sink) -> Box<dyn Acceptor<ByTest>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(Box::new(sim), Some(&dir.path().join("acceptor"))).unwrap();
        let (_, events) = mpsc::channel();
        let mut rig = Rig { acceptor: None, events, host, start, dir };
        rig.restart();
        rig
    }

    /// A host that knows nothing of the one before it.
    fn restart(&mut self) {
        self.acceptor = None;
        let (tell, events) = mpsc::channel();
        let sink = Box::new(move |event| {
            // the rig may have gone while the last event was on its way
            let _ = tell.send(event);
        });
        self.acceptor = Some((self.start)(&self.dir.path().join("acceptor"), sink));
        self.events = events;
    }

    /// Until the inlet is open for 20 and 50.
    fn open(&mut self) {
        self.accept(&[20, 50]);
        self.until(&Accepting);
    }

    fn send(&mut self, command: AcceptorCommand<ByTest>) {
        self.acceptor.as_mut().unwrap().send(command).unwrap();
    }

    fn accept(&mut self, notes: &[u32]) {
        let notes = notes.iter().map(|major| Denomination::from_minor(major * 100).unwrap());
        let notes: BTreeSet<_> = notes.collect();
        self.send(AcceptorCommand::Accept(notes));
    }

    fn next(&self) -> AcceptorEvent {
        self.events.recv_timeout(PATIENCE).expect("an event within 30 s")
    }

    fn until(&self, last: &AcceptorEvent) -> Vec<AcceptorEvent> {
        let mut events = vec![self.next()];
        while events.last() != Some(last) {
            events.push(self.next());
        }
        events
    }

    fn escrow(&self, major: u32) -> EscrowedBill {
        self.act(json!({"action": "insert", "denomination": major}));
        match self.next() {
            Escrowed(bill) => bill,
            other => panic!("expected the note in escrow, got {other:?}"),
        }
    }

    fn credit(&self) -> Option<EscrowedBill> {
        match self.next() {
            Credit { escrowed, .. } => escrowed,
            other => panic!("expected the credit, got {other:?}"),
        }
    }

    fn act(&self, action: Value) -> Value {
        self.host.control(action).unwrap()
    }

    fn count(&self, name: &str) -> u64 {
        self.host.counters().unwrap()[name].as_u64().unwrap()
    }

    fn cashbox(&self) -> u64 {
        let counters = self.host.counters().unwrap();
        counters["cashbox"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    }
}

/// Loss prevented: a device whose identity or state the agent must guess.
fn it_comes_up_closed_and_opens_on_command(mut rig: Rig) {
    let mut events = rig.until(&Closed);
    let named = |event: &AcceptorEvent| matches!(event, Identified { .. });
    let named = events.iter().position(named).map(|at| events.remove(at));
    let Some(Identified { notes, .. }) = named else { panic!("{events:?}") };
    assert!(!notes.is_empty());
    assert_eq!(events, [PoweredUp(PowerUpBill::None), Closed]);
    rig.accept(&[20]);
    assert_eq!(rig.next(), Accepting);
    rig.accept(&[]);
    assert_eq!(rig.next(), Closed);
}

/// Loss prevented: a note counted twice, or not at all.
fn a_note_is_credited_once(mut rig: Rig) {
    rig.open();
    let bill = rig.escrow(20);
    assert_eq!(bill.denomination.minor(), 2_000);
    rig.send(AcceptorCommand::Stack(Proof(bill)));
    assert_eq!(rig.credit(), Some(bill));
    assert_eq!(rig.count("acknowledged"), 0);
    rig.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(rig.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((rig.cashbox(), rig.count("acknowledged")), (1, 1));
}

/// Loss prevented: a note stacked that the customer wanted back.
fn a_note_is_given_back(mut rig: Rig) {
    rig.open();
    rig.escrow(50);
    rig.send(AcceptorCommand::Return);
    assert_eq!(rig.until(&Accepting), [Returned, Accepting]);
    assert_eq!((rig.cashbox(), rig.count("returned")), (0, 1));
}

/// Loss prevented: a proof of one note spent on another.
fn a_stale_proof_stacks_nothing(mut rig: Rig) {
    rig.open();
    let first = rig.escrow(20);
    rig.send(AcceptorCommand::Return);
    rig.until(&Accepting);
    let second = rig.escrow(20);
    assert_ne!(first, second);
    rig.send(AcceptorCommand::Stack(Proof(first)));
    rig.send(AcceptorCommand::Return);
    assert_eq!(rig.until(&Accepting), [Returned, Accepting]);
    assert_eq!(rig.cashbox(), 0);
}

/// Loss prevented: a note of a denomination that the operator has switched off.
fn notes_that_are_not_enabled_are_refused(mut rig: Rig) {
    rig.open();
    rig.act(json!({"action": "insert", "denomination": 10}));
    let refused = rig.next();
    assert!(matches!(refused, Rejected { .. }), "{refused:?}");
    assert_eq!(rig.next(), Accepting);
    assert_eq!((rig.cashbox(), rig.count("rejected")), (0, 1));
}

/// Loss prevented: a host that dies between stacking and credit leaves a note without credit.
fn a_credit_outlives_the_host(mut rig: Rig) {
    rig.open();
    let bill = rig.escrow(20);
    rig.send(AcceptorCommand::Stack(Proof(bill)));
    assert_eq!(rig.credit(), Some(bill));
    rig.restart();
    let mut found = rig.next();
    if matches!(found, Identified { .. }) {
        found = rig.next();
    }
    assert_eq!(found, PoweredUp(PowerUpBill::InStacker));
    assert_eq!(rig.credit(), None);
    rig.send(AcceptorCommand::AcknowledgeCredit);
    let events = rig.until(&Closed);
    assert!(!events.iter().any(|e| matches!(e, Credit { .. } | Returned)), "{events:?}");
    assert_eq!((rig.cashbox(), rig.count("acknowledged")), (1, 1));
}

/// Loss prevented: a pulled cable that needs a technician, or that hides what became of a note.
fn a_lost_line_comes_back(mut rig: Rig) {
    rig.open();
    rig.escrow(20);
    rig.act(json!({"action": "unplug"}));
    let lost = rig.next();
    assert!(matches!(&lost, Fault(f) if f.kind == FaultKind::LinkLost), "{lost:?}");
    rig.act(json!({"action": "plug"}));
    let events = rig.until(&Accepting);
    assert!(events.contains(&Recovered) && events.contains(&Returned), "{events:?}");
    assert_eq!((rig.cashbox(), rig.count("returned")), (0, 1));
}

/// Loss prevented: a jam that nobody hears of, or that stays after it was cleared.
fn a_jam_is_told_and_cleared(mut rig: Rig) {
    rig.open();
    rig.act(json!({"action": "jam", "where": "acceptor"}));
    let jam = rig.next();
    assert!(matches!(&jam, Fault(f) if f.kind == FaultKind::Jam), "{jam:?}");
    rig.act(json!({"action": "clear"}));
    rig.send(AcceptorCommand::Reset);
    let mut events = rig.until(&Accepting);
    // where RESET is a start of the device
    events.retain(|event| *event != PoweredUp(PowerUpBill::None));
    assert_eq!(events, [Recovered, Accepting]);
}

macro_rules! battery {
    ($name:ident) => {
        battery!($name:
            it_comes_up_closed_and_opens_on_command a_note_is_credited_once a_note_is_given_back
            a_stale_proof_stacks_nothing notes_that_are_not_enabled_are_refused
            a_credit_outlives_the_host a_lost_line_comes_back a_jam_is_told_and_cleared);
    };
    ($name:ident: $($test:ident)*) => {
        mod $name {
            $(#[test] fn $test() { super::$test(super::$name()) })*
        }
    };
}

battery!(ccnet);
battery!(ccnet_b2b);
battery!(ebds);
battery!(id003);
battery!(id003_rc);
battery!(smart_payout);
