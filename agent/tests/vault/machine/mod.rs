//! A machine for tests: the real vault on a thread of its own, simulated devices behind ptys, and a
//! `net` on the socket that says what a test wants, with an honest service behind it.

mod operator;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitspire_agent::config::{self, Config};
use bitspire_agent::ipc::{
    self, BunkerState, CustomerAction, NetState, Role, ToNet, ToVault, VERSION,
};
use bitspire_agent::journal::{Journal, StoredEntry};
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::View;
use bitspire_agent::vault::{self, Seams, Stop, VaultError};
use bitspire_hardware::sim::f56::{F56Sim, Fit};
use bitspire_hardware::sim::host::Host;
use bitspire_hardware::sim::id003::{Id003Sim, Options, Timing};
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{BayId, JournalSeq, PaymentHash, PubKey};
use bitspire_shared::money::{Currency, Denomination};
use bitspire_shared::rpc::Reply;
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::json;
use tempfile::TempDir;

pub(crate) use self::service::{Service, fee_pair};

/// Every wait ends with this at the latest.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Sats per dollar times 10^9.
pub(crate) const RATE: u64 = 1_000_000_000_000;

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

struct Running {
    stop: Stop,
    thread: JoinHandle<Result<(), VaultError>>,
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
    /// Whether the page confirms its screens.
    pub(crate) watching: bool,
    /// All that the vault sent, for tests to look through.
    pub(crate) sent: Vec<ToNet>,
    pub(crate) halt_after: Option<JournalSeq>,
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

fn configuration(folder: &Path, more: &str) -> Config {
    let file = folder.join("machine.toml");
    let text = format!(
        "currency = 'USD'\ndata_dir = '{0}/data'\nruntime_dir = '{0}/run'\n\
         [vault.acceptor]\nkind = 'id003'\npath = '{0}/acceptor'\n\
         [vault.dispenser]\nkind = 'f56'\npath = '{0}/dispenser'\nbays = 2\n\
         [pairing]\nallow_loopback_relays = true\n{more}",
        folder.display()
    );
    std::fs::write(&file, text).unwrap();
    config::load(Some(&file), &BTreeMap::new(), &[]).unwrap().0
}

impl Machine {
    /// Simulated devices, nothing running yet.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same with more lines of configuration.
    pub(crate) fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let timing = Timing { initialize: 50, accept: 50, stack: 80, stacked: 40, take: 50 };
        let acceptor = Id003Sim::new(Id003Sim::usd(), Options::default(), timing);
        let acceptor = Host::start(Box::new(acceptor), Some(&folder.path().join("acceptor")));
        let dispenser = F56Sim::new(Fit { note_ms: 4, ..Fit::default() });
        let dispenser = Host::start(Box::new(dispenser), Some(&folder.path().join("dispenser")));
        Self {
            running: None,
            line: None,
            acceptor: acceptor.unwrap(),
            dispenser: dispenser.unwrap(),
            config: configuration(folder.path(), more),
            parties: parties(),
            service: Service { clock: 1_800_000_000, ..Service::default() },
            screen: None,
            watching: true,
            sent: Vec::new(),
            halt_after: None,
            folder,
        }
    }

    /// A machine that is paired, confirmed, loaded and for sale.
    pub(crate) fn ready() -> Self {
        Self::ready_with("")
    }

    pub(crate) fn ready_with(more: &str) -> Self {
        let mut machine = Self::with(more);
        machine.start();
        machine.pair();
        machine.publish_fees();
        machine.publish_cassettes(&[(1, 20, 100), (2, 50, 100)]);
        machine.wait_for_sale();
        machine
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data/vault")
    }

    /// Starts the vault and connects `net`.
    pub(crate) fn start(&mut self) {
        let (config, stop) = (self.config.clone(), Stop::default());
        let seams = Seams { halt_after: self.halt_after, ..Seams::default() };
        let own = stop.clone();
        let thread = thread::spawn(move || vault::run_with(&config, seams, &own));
        self.running = Some(Running { stop, thread });
        self.connect();
    }

    /// Connects `net` to a vault that is starting; `false` if that has ended instead.
    pub(crate) fn connect(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut stream = loop {
            match UnixStream::connect(&self.config.socket) {
                Ok(stream) => break stream,
                Err(_) if self.has_ended() => return false,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::yield_now();
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
        self.line = Some(Line { stream, incoming });
        let state = NetState { relays: 1, bunker: BunkerState::Ready, session: true };
        self.say(&ToVault::State(state));
        true
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.thread.is_finished())
    }

    /// `net` goes away.
    pub(crate) fn disconnect(&mut self) {
        if let Some(line) = self.line.take() {
            let _ = line.stream.shutdown(std::net::Shutdown::Both);
        }
        self.screen = None;
    }

    /// Ends the vault in good order.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.stop();
            running.thread.join().unwrap().unwrap();
        }
        self.disconnect();
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

    pub(crate) fn touch(&mut self, action: CustomerAction) {
        self.say(&ToVault::Customer(action));
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
            if self.has_ended() && self.running.is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "no {what}; the screen: {:?}", self.screen);
            let Some(line) = &self.line else {
                thread::yield_now();
                continue;
            };
            match line.incoming.recv_timeout(Duration::from_millis(20)) {
                Ok(message) => self.hear(message),
                Err(RecvTimeoutError::Timeout) => {}
                // the vault is ending
                Err(RecvTimeoutError::Disconnected) => thread::yield_now(),
            }
        }
    }

    fn hear(&mut self, message: ToNet) {
        self.sent.push(message.clone());
        match message {
            ToNet::Screen { number, screen } => {
                self.screen = Some(serde_json::from_value(screen).unwrap());
                if self.watching {
                    self.touch(CustomerAction::Seen { screen: number });
                }
            }
            ToNet::Connect { pins, .. } => {
                let client = public(&self.parties.client);
                self.say(&ToVault::Connected { client, spire: pins.spire });
            }
            ToNet::Request { request_id, rpc_name, body } if !self.service.silent => {
                let mut answer = self.answer(request_id, &rpc_name, body);
                if let (Some(change), Reply::Ok { body, .. }) = (self.service.reply, &mut answer) {
                    change(&rpc_name, body);
                }
                let envelope = serde_json::to_value(&answer).unwrap();
                let event = Box::new(self.event());
                self.say(&ToVault::Reply { request_id, event, envelope });
            }
            _ => {}
        }
    }

    pub(crate) fn wait_for_sale(&mut self) {
        self.until("sale", |machine| match &machine.screen {
            Some(MachineScreen::Idle { cash_in, cash_out, .. }) => *cash_in && !cash_out.is_empty(),
            _ => false,
        });
    }

    pub(crate) fn view(&self) -> Option<&View> {
        match &self.screen {
            Some(MachineScreen::Txn(screen)) => Some(&screen.view),
            _ => None,
        }
    }

    pub(crate) fn until_view(&mut self, what: &str, fits: fn(&View) -> bool) {
        self.until(what, |machine| machine.view().is_some_and(fits));
    }

    /// Up to the invoice on the screen; its hash.
    pub(crate) fn sell(&mut self, fiat_minor: i64) -> PaymentHash {
        self.wait_for_sale();
        self.touch(CustomerAction::StartCashOut { fiat_minor });
        self.until_view("an offer", |view| matches!(view, View::Offer { .. }));
        self.touch(CustomerAction::Confirm);
        self.until_view("an invoice", |view| matches!(view, View::Invoice { .. }));
        *self.service.invoices.iter().next_back().unwrap().0
    }

    /// Notes that lie at the exit or were taken, in minor units.
    pub(crate) fn given(&self) -> u64 {
        let counters = self.dispenser.counters().unwrap();
        let bays = counters["bays"].as_array().unwrap();
        let values: BTreeMap<u64, u64> = [(1, 2_000), (2, 5_000)].into();
        bays.iter()
            .map(|bay| {
                let out = bay["exit"].as_u64().unwrap() + bay["taken"].as_u64().unwrap();
                out * values.get(&bay["bay"].as_u64().unwrap()).copied().unwrap_or(0)
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

    /// A customer feeds a note, as soon as the inlet is open.
    pub(crate) fn feed(&mut self, major: u32) {
        let action = json!({ "action": "insert", "denomination": major });
        self.until("an open inlet", |machine| machine.acceptor.control(action.clone()).is_ok());
    }

    /// The journal's entries, while the vault does not run.
    pub(crate) fn journal(&self) -> Vec<StoredEntry> {
        assert!(self.running.is_none());
        let vault = self.service.vault.unwrap();
        let binding = sha256(&format!("bitspire-journal-of:v1:{vault}"));
        let journal = Journal::open(&self.data_dir().join("journal.db"), binding, Unix(1)).unwrap();
        journal.entries(JournalSeq(1), 1_000_000).unwrap()
    }

    /// The alerts of the last report.
    pub(crate) fn alerts(&self) -> BTreeSet<String> {
        let reports = self.sent.iter().filter_map(|message| match message {
            ToNet::Request { rpc_name, body, .. } if rpc_name == "report_state" => Some(body),
            _ => None,
        });
        let all = reports.flat_map(|body| body["alerts"].as_array().unwrap().clone());
        all.map(|alert| alert["code"].as_str().unwrap().to_owned()).collect()
    }
}
