//! What every implementation of the acceptor port must do, run behind the real runner: two threads,
//! a real line, real time.
//!
//! A rig brings an implementation and its simulator; each test here runs on each rig.

mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitspire_hardware::acceptor::AcceptorEvent::{
    Accepting, Closed, Credit, Escrowed, Fault, Identified, PoweredUp, Recovered, Rejected,
    Returned, Stacked,
};
use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::acceptor::{
    Acceptor, AcceptorCommand, AcceptorEvent, EscrowedBill, FaultKind, PowerUpBill,
};
use bitspire_hardware::port::{Device, Link, Opener, open_serial};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Mono;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use serde_json::{Value, json};
use support::{ByTest, Proof};

const DEADLINE: Duration = Duration::from_secs(30);

/// The device's end of a line.
trait End: Read + Write + AsFd + Send + 'static {}
impl<T: Read + Write + AsFd + Send + 'static> End for T {}

/// A simulator that outlives its lines.
struct Bench {
    device: Mutex<Id003Sim>,
    epoch: Instant,
    /// Wakes the thread behind the present line; dropping it cuts the line.
    line: Mutex<Option<Sender<()>>>,
    waker: Mutex<Option<UnixStream>>,
}

impl Bench {
    fn now(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap())
    }

    fn act(&self, action: Value) -> Value {
        let answer = self.device.lock().unwrap().control(&action, self.now()).unwrap();
        self.wake();
        answer
    }

    fn wake(&self) {
        if let Some(waker) = &mut *self.waker.lock().unwrap() {
            waker.write_all(&[0]).unwrap();
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.device.lock().unwrap().counters()[name].as_u64().unwrap()
    }

    fn cashbox(&self) -> u64 {
        let counters = self.device.lock().unwrap().counters();
        counters["cashbox"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    }

    /// Runs the device behind this end until it is unplugged or the host hangs up.
    fn plug(self: &Arc<Self>, mut end: impl End) {
        let (line, unplugged) = channel();
        let (waker, mut woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        *self.line.lock().unwrap() = Some(line);
        *self.waker.lock().unwrap() = Some(waker);
        let bench = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            loop {
                let due = bench.device.lock().unwrap().wake_at();
                let wait = due.map(|at| u16::try_from(at.since(bench.now())).unwrap_or(u16::MAX));
                let mut fds = [
                    PollFd::new(end.as_fd(), PollFlags::POLLIN),
                    PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                ];
                poll(&mut fds, wait.map_or(PollTimeout::NONE, PollTimeout::from)).unwrap();
                let readable = fds[0].any().unwrap_or(false);
                if unplugged.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
                    return;
                }
                while woken.read(&mut buffer).is_ok_and(|n| n > 0) {}
                let mut device = bench.device.lock().unwrap();
                let now = bench.now();
                let mut out = device.on_tick(now);
                if readable {
                    match end.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(n) => out.extend(device.on_bytes(&buffer[..n], now)),
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(_) => return,
                    }
                }
                if end.write_all(&out).is_err() {
                    return;
                }
            }
        });
    }

    fn unplug(&self) {
        *self.line.lock().unwrap() = None;
        self.wake();
    }
}

/// How host and simulator are connected.
trait Rig: Copy + 'static {
    fn opener(&self, bench: &Arc<Bench>) -> Opener;
}

#[derive(Clone, Copy)]
struct OnASocket;

impl Rig for OnASocket {
    fn opener(&self, bench: &Arc<Bench>) -> Opener {
        let bench = Arc::clone(bench);
        Box::new(move |_| {
            let (near, far) = UnixStream::pair().unwrap();
            near.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            bench.plug(far);
            let (writer, third) = (near.try_clone().unwrap(), near.try_clone().unwrap());
            let hang_up = move || third.shutdown(std::net::Shutdown::Both).unwrap_or_default();
            Ok(Link {
                reader: Box::new(near),
                writer: Box::new(writer),
                hang_up: Some(Box::new(hang_up)),
            })
        })
    }
}

#[derive(Clone, Copy)]
struct OnAPty;

impl Rig for OnAPty {
    fn opener(&self, bench: &Arc<Bench>) -> Opener {
        let bench = Arc::clone(bench);
        Box::new(move |line| {
            let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let path = ptsname_r(&master).unwrap();
            let link = open_serial(&path, line)?;
            bench.plug(master);
            Ok(link)
        })
    }
}

/// A host with its device.
struct Machine<R> {
    rig: R,
    bench: Arc<Bench>,
    acceptor: Option<Box<dyn Acceptor<ByTest>>>,
    events: Receiver<AcceptorEvent>,
}

impl<R: Rig> Machine<R> {
    fn new(rig: R) -> Self {
        let timing = Timing { initialize: 300, accept: 150, stack: 150, stacked: 150, take: 150 };
        let device = Mutex::new(Id003Sim::new(Id003Sim::eur(), Options::default(), timing));
        let (line, waker) = (Mutex::new(None), Mutex::new(None));
        let bench = Arc::new(Bench { device, epoch: Instant::now(), line, waker });
        let (_, events) = channel();
        let mut machine = Self { rig, bench, acceptor: None, events };
        machine.start();
        machine
    }

    fn open(rig: R) -> Self {
        let mut machine = Self::new(rig);
        machine.accept(&[20, 50]);
        machine.until(&Accepting);
        machine
    }

    fn start(&mut self) {
        let (sink, events) = channel();
        let settings = Settings { currency: "EUR".parse().unwrap(), baud: 9600 };
        let device = Device::start(
            "acceptor",
            Id003::<ByTest>::new(settings),
            self.rig.opener(&self.bench),
            Box::new(move |event| sink.send(event).unwrap_or_default()),
        );
        self.acceptor = Some(Box::new(device.unwrap()));
        self.events = events;
    }

    fn send(&mut self, command: AcceptorCommand<ByTest>) {
        self.acceptor.as_mut().unwrap().send(command).unwrap();
    }

    fn accept(&mut self, notes: &[u32]) {
        let notes = notes.iter().map(|n| Denomination::from_minor(n * 100).unwrap());
        let notes: BTreeSet<_> = notes.collect();
        self.send(AcceptorCommand::Accept(notes));
    }

    fn next(&self) -> AcceptorEvent {
        self.events.recv_timeout(DEADLINE).expect("an event")
    }

    fn until(&self, last: &AcceptorEvent) -> Vec<AcceptorEvent> {
        let mut events = vec![self.next()];
        while events.last() != Some(last) {
            events.push(self.next());
        }
        events
    }

    fn escrow(&self, major: u32) -> EscrowedBill {
        self.bench.act(json!({"action": "insert", "denomination": major}));
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
}

/// Loss prevented: a device whose identity or state the agent must guess.
fn it_comes_up_closed_and_opens_on_command(rig: impl Rig) {
    let mut machine = Machine::new(rig);
    let events = machine.until(&Closed);
    let [PoweredUp(PowerUpBill::None), Identified { notes, .. }, Closed] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(!notes.is_empty());
    machine.accept(&[20]);
    assert_eq!(machine.next(), Accepting);
    machine.accept(&[]);
    assert_eq!(machine.next(), Closed);
}

/// Loss prevented: a note counted twice, or not at all.
fn a_note_is_credited_once(rig: impl Rig) {
    let mut machine = Machine::open(rig);
    let bill = machine.escrow(20);
    assert_eq!(bill.denomination.minor(), 2_000);
    machine.send(AcceptorCommand::Stack(Proof(bill)));
    assert_eq!(machine.credit(), Some(bill));
    assert_eq!(machine.bench.count("acknowledged"), 0);
    machine.send(AcceptorCommand::AcknowledgeCredit);
    assert_eq!(machine.until(&Accepting), [Stacked, Accepting]);
    assert_eq!((machine.bench.cashbox(), machine.bench.count("acknowledged")), (1, 1));
}

/// Loss prevented: a note stacked that the customer wanted back.
fn a_note_is_given_back(rig: impl Rig) {
    let mut machine = Machine::open(rig);
    machine.escrow(50);
    machine.send(AcceptorCommand::Return);
    assert_eq!(machine.until(&Accepting), [Returned, Accepting]);
    assert_eq!((machine.bench.cashbox(), machine.bench.count("returned")), (0, 1));
}

/// Loss prevented: a proof of one note spent on another.
fn a_stale_proof_stacks_nothing(rig: impl Rig) {
    let mut machine = Machine::open(rig);
    let first = machine.escrow(20);
    machine.send(AcceptorCommand::Return);
    machine.until(&Accepting);
    let second = machine.escrow(20);
    assert_ne!(first, second);
    machine.send(AcceptorCommand::Stack(Proof(first)));
    machine.send(AcceptorCommand::Return);
    assert_eq!(machine.until(&Accepting), [Returned, Accepting]);
    assert_eq!(machine.bench.cashbox(), 0);
}

/// Loss prevented: a note of a denomination that the operator has switched off.
fn notes_that_are_not_enabled_are_refused(rig: impl Rig) {
    let machine = Machine::open(rig);
    machine.bench.act(json!({"action": "insert", "denomination": 10}));
    let refused = machine.next();
    assert!(matches!(refused, Rejected { .. }), "{refused:?}");
    assert_eq!(machine.next(), Accepting);
    assert_eq!((machine.bench.cashbox(), machine.bench.count("rejected")), (0, 1));
}

/// Loss prevented: a host that dies between stacking and credit leaves a note without credit.
fn a_credit_outlives_the_host(rig: impl Rig) {
    let mut machine = Machine::open(rig);
    let bill = machine.escrow(20);
    machine.send(AcceptorCommand::Stack(Proof(bill)));
    assert_eq!(machine.credit(), Some(bill));
    machine.acceptor = None;
    machine.start();
    assert_eq!(machine.next(), PoweredUp(PowerUpBill::InStacker));
    assert_eq!(machine.credit(), None);
    machine.send(AcceptorCommand::AcknowledgeCredit);
    let events = machine.until(&Closed);
    assert!(!events.iter().any(|e| matches!(e, Credit { .. } | Returned)), "{events:?}");
    assert_eq!((machine.bench.cashbox(), machine.bench.count("acknowledged")), (1, 1));
}

/// Loss prevented: a pulled cable that needs a technician, or that hides what became of a note.
fn a_lost_line_comes_back(rig: impl Rig) {
    let machine = Machine::open(rig);
    machine.escrow(20);
    machine.bench.unplug();
    let lost = machine.next();
    assert!(matches!(&lost, Fault(f) if f.kind == FaultKind::LinkLost), "{lost:?}");
    let events = machine.until(&Accepting);
    assert!(events.contains(&Recovered) && events.contains(&Returned), "{events:?}");
    assert_eq!((machine.bench.cashbox(), machine.bench.count("returned")), (0, 1));
}

/// Loss prevented: a jam that nobody hears of, or that stays after it was cleared.
fn a_jam_is_told_and_cleared(rig: impl Rig) {
    let mut machine = Machine::open(rig);
    machine.bench.act(json!({"action": "jam", "where": "acceptor"}));
    let jam = machine.next();
    assert!(matches!(&jam, Fault(f) if f.kind == FaultKind::Jam), "{jam:?}");
    machine.bench.act(json!({"action": "clear"}));
    machine.send(AcceptorCommand::Reset);
    assert_eq!(machine.until(&Accepting), [Recovered, Accepting]);
}

macro_rules! battery {
    ($name:ident on $rig:expr) => {
        battery!($name on $rig =>
            it_comes_up_closed_and_opens_on_command a_note_is_credited_once a_note_is_given_back
            a_stale_proof_stacks_nothing notes_that_are_not_enabled_are_refused
            a_credit_outlives_the_host a_lost_line_comes_back a_jam_is_told_and_cleared);
    };
    ($name:ident on $rig:expr => $($test:ident)*) => {
        mod $name {
            $(#[test] fn $test() { super::$test($rig) })*
        }
    };
}

battery!(id003_on_a_socket on super::OnASocket);
battery!(id003_on_a_pty on super::OnAPty);
