//! A machine for tests: the real vault on a thread of its own, simulated devices behind ptys, and a
//! `net` on the socket that says what a test wants, with an honest service behind it.

mod customer;
mod operator;
mod service;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitspire_agent::config::{self, AcceptorKind, Config, DispenserKind, RecyclerKind};
use bitspire_agent::ipc::{self, BunkerState, NetState, Role, ToNet, ToVault, VERSION};
use bitspire_agent::journal::{Journal, StoredEntry};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::vault::{self, Pace, Seams, Stop, VaultError};
use bitspire_hardware::sim::SimDevice;
use bitspire_hardware::sim::ccnet::{self, CcnetSim};
use bitspire_hardware::sim::ebds::{self, EbdsSim};
use bitspire_hardware::sim::f56::{Cassette, F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_hardware::sim::puloon::{self, PuloonSim};
use bitspire_hardware::sim::smart_payout::{self, SmartPayoutSim};
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{BayId, JournalSeq, PubKey};
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use nostr::Keys;
use rusqlite::Connection;
use tempfile::TempDir;

pub(crate) use self::service::{Service, fee_pair};

/// Every wait ends with this at the latest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a simulated device is left alone between two looks at it.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// When the service's clock, and the system's, begin.
pub(crate) const EPOCH: u64 = 1_800_000_000;
/// Sats per dollar times 10^9.
pub(crate) const RATE: u64 = 1_000_000_000_000;

/// What lies in the bays where nothing else is said: (bay, note, count).
const USUAL: &[(u8, u32, u32)] = &[(1, 20, 100), (2, 50, 100)];

/// Who signs.
pub(crate) struct Parties {
    pub(crate) spire: Keys,
    pub(crate) operator: Keys,
    pub(crate) service: Keys,
    pub(crate) client: Keys,
}

pub(crate) fn public(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

pub(crate) fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub(crate) fn bay(number: u8) -> BayId {
    BayId::new(number).unwrap()
}

pub(crate) fn note(major: u32) -> Denomination {
    Denomination::from_major(major, usd()).unwrap()
}

fn parties() -> Parties {
    let keys = |n: u8| Keys::parse(&format!("{n:02x}").repeat(32)).unwrap();
    Parties { spire: keys(1), operator: keys(2), service: keys(3), client: keys(4) }
}

/// No second is waited where none is what a test is about; a busy host gets a minute to confirm a
/// screen.
pub(crate) const QUICK: Pace = Pace {
    tick: 50,
    confirm: 60_000,
    read: 0,
    starting: 200,
    gather: 10,
    report_gap: 50,
    ask_confirmed: 100,
    ask_again: 60_000,
    reset: 100,
    remind: 60_000,
    left: 60_000,
    checkpoint: 600_000,
    first_inspect: 0,
    inspect: 86_400_000,
    trace_gap: 250,
};

struct Running {
    stop: Stop,
    thread: JoinHandle<Result<(), VaultError>>,
    /// Disconnected as soon as the vault has ended.
    ended: Receiver<()>,
}

/// `net`'s end of the socket.
struct Line {
    stream: UnixStream,
    incoming: Receiver<ToNet>,
}

/// The machine.
pub(crate) struct Machine {
    running: Option<Running>,
    line: Option<Line>,
    pub(crate) acceptor: Host,
    pub(crate) dispenser: Host,
    pub(crate) config: Config,
    pub(crate) parties: Parties,
    pub(crate) service: Service,
    pub(crate) screen: Option<MachineScreen>,
    /// The number of the screen, and of the last one that was touched by [`Machine::touch_once`].
    number: u64,
    touched: u64,
    /// Whether the page confirms its screens.
    pub(crate) watching: bool,
    /// Whether the bunker answers, and agrees.
    pub(crate) bunker: bool,
    /// All that the vault sent, for tests to look through.
    pub(crate) sent: Vec<ToNet>,
    pub(crate) halt_after: Option<JournalSeq>,
    pub(crate) pace: Pace,
    /// The system's clock, as it is at the next start.
    pub(crate) wall: Clock,
    folder: TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.line = None;
        if let Some(running) = self.running.take() {
            running.stop.stop();
            let _ = running.thread.join();
        }
    }
}

/// The lines of the configuration for these two devices.
pub(crate) fn two_devices((acceptor, dispenser): (AcceptorKind, DispenserKind)) -> String {
    let (acceptor, dispenser) = (acceptor.protocol(), dispenser.protocol());
    format!(
        "[vault.acceptor]\nkind = '{acceptor}'\npath = 'FOLDER/acceptor'\n\
         [vault.dispenser]\nkind = '{dispenser}'\npath = 'FOLDER/dispenser'\nbays = 2\n"
    )
}

/// The same for a recycler whose bays keep these notes.
pub(crate) fn one_device(kind: RecyclerKind, bays: [u32; 2]) -> String {
    let (kind, [one, two]) = (kind.protocol(), bays.map(|major| major * 100));
    format!(
        "[vault.recycler]\nkind = '{kind}'\npath = 'FOLDER/recycler'\nbays_minor = [{one}, {two}]\n"
    )
}

fn configuration(folder: &Path, devices: &str, more: &str) -> Config {
    let file = folder.join("machine.toml");
    let text = format!(
        "currency = 'USD'\ndata_dir = 'FOLDER/data'\nruntime_dir = 'FOLDER/run'\n\
         {devices}{more}\n[pairing]\nallow_loopback_relays = true\n",
    );
    let text = text.replace("FOLDER", &folder.display().to_string());
    std::fs::write(&file, text).unwrap();
    config::load(Some(&file), &BTreeMap::new(), &[]).unwrap().0
}

fn validator(kind: AcceptorKind) -> Box<dyn SimDevice> {
    match kind {
        AcceptorKind::Ccnet => {
            let timing =
                ccnet::Timing { initialize: 50, accept: 50, stack: 80, take: 50, confirm: 100 };
            Box::new(CcnetSim::new(CcnetSim::usd(), ccnet::Options::default(), timing))
        }
        AcceptorKind::Id003 => {
            let timing = Timing { initialize: 50, accept: 50, stack: 80, stacked: 40, take: 50 };
            Box::new(Id003Sim::new(Id003Sim::usd(), Options::default(), timing))
        }
        AcceptorKind::Ebds => {
            let timing = ebds::Timing { boot: 50, accept: 50, stack: 80, take: 50 };
            Box::new(EbdsSim::new(EbdsSim::usd(), ebds::Options::default(), timing))
        }
    }
}

fn recycler(kind: RecyclerKind) -> Box<dyn SimDevice> {
    match kind {
        RecyclerKind::Id003Rc => {
            let timing = Timing { initialize: 50, accept: 50, stack: 80, stacked: 40, take: 50 };
            Box::new(Id003Sim::recycler(Id003Sim::usd(), Options::default(), timing))
        }
        RecyclerKind::CcnetB2b => {
            let timing =
                ccnet::Timing { initialize: 50, accept: 50, stack: 80, take: 50, confirm: 100 };
            Box::new(CcnetSim::unit(CcnetSim::usd(), ccnet::Options::default(), timing))
        }
        RecyclerKind::SmartPayout => {
            let timing =
                smart_payout::Timing { start: 50, read: 50, stack: 80, take: 50, carry: 100 };
            let notes = SmartPayoutSim::usd();
            Box::new(SmartPayoutSim::new(notes, smart_payout::Options::default(), timing))
        }
    }
}

fn giver(kind: DispenserKind, fit: Fit) -> Box<dyn SimDevice> {
    match kind.lcdm() {
        None => Box::new(F56Sim::new(fit)),
        Some(model) => {
            let fit = puloon::Fit { cassettes: fit.cassettes, note_ms: fit.note_ms };
            Box::new(PuloonSim::new(model, fit))
        }
    }
}

impl Machine {
    /// Simulated devices, nothing running yet.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with more lines of configuration.
    pub(crate) fn with(more: &str) -> Self {
        Self::fitted(AcceptorKind::default(), more)
    }

    /// The same with this validator.
    pub(crate) fn fitted(kind: AcceptorKind, more: &str) -> Self {
        let kinds = (kind, DispenserKind::default());
        Self::made_of(kinds, Fit { note_ms: 4, ..Fit::default() }, more)
    }

    /// A machine that is paired, confirmed and for sale, with these notes (value, how many) in its
    /// bays, of which its books say as many as `booked`.
    pub(crate) fn ready_with_notes(notes: [(u32, u32); 2], booked: u32) -> Self {
        let [one, two] = notes.map(|(denomination, notes)| {
            Some(Cassette { denomination, length: (0xa6, 0x92), notes })
        });
        let fit = Fit { cassettes: [one, two, None, None], note_ms: 4, ..Fit::default() };
        let [(one, _), (two, _)] = notes;
        let machine = Self::made_of((AcceptorKind::default(), DispenserKind::default()), fit, "");
        machine.made_ready(&[(1, one, booked), (2, two, booked)])
    }

    fn made_of(kinds: (AcceptorKind, DispenserKind), fit: Fit, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = Host::start(validator(kinds.0), Some(&folder.path().join("acceptor")));
        let dispenser = giver(kinds.1, fit);
        let dispenser = Host::start(dispenser, Some(&folder.path().join("dispenser")));
        Self {
            running: None,
            line: None,
            acceptor: acceptor.unwrap(),
            dispenser: dispenser.unwrap(),
            config: configuration(folder.path(), &two_devices(kinds), more),
            parties: parties(),
            service: Service { clock: EPOCH, ..Service::default() },
            screen: None,
            number: 0,
            touched: 0,
            watching: true,
            bunker: true,
            sent: Vec::new(),
            halt_after: None,
            pace: QUICK,
            wall: Clock::new(|| Unix(EPOCH)),
            folder,
        }
    }

    /// Other devices come into a machine that is down: a recycler, or a validator and a dispenser.
    pub(crate) fn refit(&mut self, devices: &str, kind: Option<RecyclerKind>, more: &str) {
        let folder = self.folder.path();
        match kind {
            Some(kind) => {
                let device = Host::start(recycler(kind), Some(&folder.join("recycler")));
                self.acceptor = device.unwrap();
            }
            None => {
                let acceptor = validator(AcceptorKind::default());
                let acceptor = Host::start(acceptor, Some(&folder.join("acceptor")));
                self.acceptor = acceptor.unwrap();
            }
        }
        self.config = configuration(folder, devices, more);
    }

    /// A recycler that keeps notes of 10 in its bay 1 and of 20 in its bay 2 and has none of them,
    /// in a machine that is paired, confirmed and takes notes. It sells every note that it has.
    pub(crate) fn recycling(kind: RecyclerKind, limit: &str) -> Self {
        let mut machine = Self::new();
        let more = "[vault.policy]\ncassette_floor_notes = 0\n";
        let devices = one_device(kind, [10, 20]);
        machine.refit(&format!("{devices}{limit}"), Some(kind), more);
        machine.start();
        assert_eq!(machine.set_pin(crate::service_mode::PIN, None), None);
        machine.pair();
        machine.publish_all(&[(1, 10, 0), (2, 20, 0)]);
        machine.wait_for_notes();
        machine
    }

    /// A machine that is paired, confirmed, loaded and for sale.
    pub(crate) fn ready() -> Self {
        Self::ready_with("")
    }

    pub(crate) fn ready_with(more: &str) -> Self {
        Self::with(more).made_ready(USUAL)
    }

    pub(crate) fn ready_on(kind: AcceptorKind) -> Self {
        Self::fitted(kind, "").made_ready(USUAL)
    }

    /// A machine that is ready, with this dispenser.
    pub(crate) fn ready_giving(kind: DispenserKind) -> Self {
        let fit = Fit { note_ms: 4, ..Fit::default() };
        Self::made_of((AcceptorKind::default(), kind), fit, "").made_ready(USUAL)
    }

    fn made_ready(self, bays: &[(u8, u32, u32)]) -> Self {
        let mut machine = self;
        machine.start();
        machine.pair();
        machine.publish_all(bays);
        machine.wait_for_sale();
        machine
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.config.vault.dir
    }

    /// Starts the vault and connects `net`.
    pub(crate) fn start(&mut self) {
        let (config, stop) = (self.config.clone(), Stop::default());
        let (halt_after, pace) = (self.halt_after, self.pace);
        let clock = self.wall.clone();
        let seams = Seams { halt_after, pace, clock };
        let own = stop.clone();
        let (running, ended): (SyncSender<()>, _) = mpsc::sync_channel(0);
        let thread = thread::spawn(move || {
            let _ends_with_the_vault = running;
            vault::run_with(&config, seams, &own)
        });
        self.running = Some(Running { stop, thread, ended });
        self.connect();
    }

    /// Connects `net` to a vault that is starting, until it has said its `Hello`; `false` if it has
    /// ended instead.
    pub(crate) fn connect(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match UnixStream::connect(&self.config.socket) {
                Ok(stream) => break stream,
                Err(_) if self.ends_within(LOOK) => return false,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        let hello = ToVault::Hello { version: VERSION, role: Role::Net };
        if ipc::write(&mut stream, &hello).is_err() {
            return false;
        }
        let mut reader = stream.try_clone().unwrap();
        let (tell, incoming) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(Some(message)) = ipc::read::<ToNet>(&mut reader) {
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        match incoming.recv_timeout(PATIENCE) {
            Ok(ToNet::Hello { .. }) => {}
            Ok(other) => panic!("expected Hello, got {other:?}"),
            Err(RecvTimeoutError::Timeout) => panic!("the vault said no Hello"),
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        self.line = Some(Line { stream, incoming });
        let state =
            NetState { relays: 1, bunker: BunkerState::Ready, session: true, bunker_trouble: None };
        self.say(&ToVault::State(state));
        true
    }

    /// Whether the vault has ended, or ends in this time.
    fn ends_within(&self, time: Duration) -> bool {
        self.running.as_ref().is_none_or(|running| {
            running.ended.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
        })
    }

    /// `net` goes away.
    pub(crate) fn disconnect(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = line.stream.shutdown(std::net::Shutdown::Both);
        }
        (self.screen, self.number, self.touched) = (None, 0, 0);
    }

    /// Ends the vault in good order.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.stop();
            running.thread.join().unwrap().unwrap();
        }
        self.disconnect();
    }

    /// Starts it again at another pace.
    pub(crate) fn restart_at(&mut self, pace: Pace) {
        self.stop();
        self.pace = pace;
        self.start();
    }

    /// The journal's database, as no part of the machine opens it.
    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.config.vault.journal()).unwrap()
    }

    /// Waits until the vault has ended by itself: how.
    pub(crate) fn ended(&mut self) -> Result<(), VaultError> {
        let ended = self.running.take().unwrap().thread.join().unwrap();
        self.disconnect();
        ended
    }

    /// Says something to the vault; one that has ended hears nothing.
    pub(crate) fn say(&mut self, message: &ToVault) {
        if let Some(line) = &mut self.line {
            let _ = ipc::write(&mut line.stream, message);
        }
    }

    /// Serves the vault until `done`, or until it has ended.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        assert!(self.until_or_end(what, &mut done), "the vault ended while waiting for {what}");
    }

    /// The same; `false` if the vault ended first.
    pub(crate) fn until_or_end(
        &mut self,
        what: &str,
        done: &mut dyn FnMut(&mut Self) -> bool,
    ) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if done(self) {
                return true;
            }
            assert!(Instant::now() < deadline, "no {what}; the screen: {:?}", self.screen);
            let heard = self.line.as_ref().map(|line| line.incoming.recv_timeout(LOOK));
            match heard {
                Some(Ok(message)) => self.hear(message),
                Some(Err(RecvTimeoutError::Timeout)) => {}
                // `net` is gone, or the vault is ending
                Some(Err(RecvTimeoutError::Disconnected)) | None => {
                    if self.running.is_some() && self.ends_within(LOOK) {
                        return false;
                    }
                }
            }
        }
    }

    /// Serves the vault for so long.
    pub(crate) fn let_pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let left = || end.saturating_duration_since(Instant::now());
        while let Ok(message) = self.line.as_ref().unwrap().incoming.recv_timeout(left()) {
            self.hear(message);
        }
    }

    fn hear(&mut self, message: ToNet) {
        self.sent.push(message.clone());
        match message {
            ToNet::Screen { number, screen } => {
                self.screen = Some(serde_json::from_value(screen).unwrap());
                self.number = number;
                if self.watching {
                    self.confirm_screen();
                }
            }
            ToNet::Connect { pins, .. } if self.bunker && !self.service.silent => {
                let client = public(&self.parties.client);
                self.say(&ToVault::Connected { client, spire: pins.spire });
            }
            request @ ToNet::Request { .. } if !self.service.silent => self.reply(request),
            _ => {}
        }
    }

    /// Notes that lie at the exit or were taken, in minor units.
    pub(crate) fn given(&self) -> u64 {
        let counters = self.dispenser.counters().unwrap();
        let bays = counters["bays"].as_array().unwrap();
        bays.iter()
            .map(|bay| {
                let out = bay["exit"].as_u64().unwrap() + bay["taken"].as_u64().unwrap();
                out * bay["denomination"].as_u64().unwrap() * 100
            })
            .sum()
    }

    /// How often the dispenser was told to give.
    pub(crate) fn dispenses(&self) -> u64 {
        self.dispenser.counters().unwrap()["dispenses"].as_u64().unwrap()
    }

    /// Notes in the cashbox, in dollars.
    pub(crate) fn in_cashbox(&self) -> u64 {
        let counters = self.acceptor.counters().unwrap();
        let notes = counters["cashbox"].as_object().unwrap();
        notes.iter().map(|(value, n)| value.parse::<u64>().unwrap() * n.as_u64().unwrap()).sum()
    }

    pub(crate) fn given_back(&self) -> u64 {
        self.acceptor.counters().unwrap()["returned"].as_u64().unwrap()
    }

    /// The journal's entries, while the vault does not run.
    pub(crate) fn journal(&self) -> Vec<StoredEntry> {
        self.open_journal().entries(JournalSeq(1), 1_000_000).unwrap()
    }

    /// The journal that no vault holds now.
    pub(crate) fn open_journal(&self) -> Journal {
        assert!(self.running.is_none());
        let vault = self.service.vault.unwrap();
        let binding = sha256(&format!("bitspire-journal-of:v1:{vault}"));
        Journal::open(&self.config.vault.journal(), binding, Unix(1)).unwrap()
    }
}
