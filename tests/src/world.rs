//! A world: one operator, one machine with its devices, in a folder of their own.
//!
//! Promise: everything listens on loopback, on ports that nobody else has and that stay the same
//! over restarts; nothing outside the folder is written.

mod files;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use bitspire_agent::config::{AcceptorKind, DispenserKind, RecyclerKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::files::{machine_toml, operator_toml};
use crate::customer::Customer;
use crate::http::Client;
use crate::process::Process;
use crate::relay::odd::Habit;

/// Below the ports that systems give to outgoing connections, so that none of ours is taken while
/// its process is down.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// The machine's currency.
pub const CURRENCY: &str = "EUR";
/// Sats for a unit of the currency.
pub const RATE: &str = "1063.829787234";
/// What the machine's wallet holds at first, in sats.
pub const OPENING_SATS: u64 = 5_000_000;
/// Notes in each bay at first: bay, note, count.
pub const BAYS: [(u8, u32, u32); 2] = [(1, 20, 100), (2, 50, 100)];

/// The same of a recycler: little more than what always stays, so that it sells what it was fed.
pub const BOXES: [(u8, u32, u32); 2] = [(1, 10, 6), (2, 20, 6)];

/// What a relay that is a process of its own was sent, in the world's folder: a line of JSON each.
pub const RELAY_SEEN: &str = "relay-seen.jsonl";

/// Where a world's files are.
#[derive(Debug)]
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

/// Which relay machine, service and bunker meet on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayKind {
    /// The operator's own, in its daemon.
    #[default]
    Embedded,
    /// Somebody else's program, a process of its own.
    Apart,
    /// Somebody else's, with a habit.
    Odd(Habit),
}

/// Whose bunker holds the keys of operator and machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BunkerKind {
    /// Our own.
    #[default]
    Own,
    /// nsecbunkerd, as a double speaks for it: one of its versions.
    Nsecbunkerd(&'static str),
}

/// What a world is made of, where there is a choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// The relay.
    pub relay: RelayKind,
    /// The bunker.
    pub bunker: BunkerKind,
    /// The note validator.
    pub acceptor: AcceptorKind,
    /// The dispenser.
    pub dispenser: DispenserKind,
    /// A recycler in place of both.
    pub recycler: Option<RecyclerKind>,
}

impl Parts {
    /// The bays that the dispenser has, of [`BAYS`], or the recycler's.
    #[must_use]
    pub fn bays(self) -> &'static [(u8, u32, u32)] {
        if self.recycler.is_some() {
            return &BOXES;
        }
        let most = usize::from(self.dispenser.limits().bays);
        &BAYS[..BAYS.len().min(most)]
    }
}

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// A running world.
#[derive(Debug)]
pub struct World {
    // before the folder: the processes end before their files go
    /// The note validator, or the recycler.
    pub acceptor: Process,
    /// The dispenser; never up where there is a recycler.
    pub dispenser: Process,
    /// The operator's daemon: API, relay, public listener.
    pub operator: Process,
    /// The relay, where it is a process of its own.
    pub relay: Option<Process>,
    /// The bunker that holds the keys of operator and machine.
    pub bunker: Process,
    /// The machine's vault.
    pub vault: Process,
    /// The machine's network process.
    pub net: Process,
    /// What it is made of.
    pub parts: Parts,
    client: Client,
    operator_file: PathBuf,
    machine_file: PathBuf,
    program: PathBuf,
    folder: Folder,
}

impl World {
    /// Prepares a world: folder, configuration, processes that are down. `program` is
    /// `bitspire-world`; with `keep` its files stay there.
    ///
    /// # Errors
    /// When the folder cannot be written, or holds something already.
    pub fn new(program: &Path, keep: Option<&Path>) -> Result<Self> {
        Self::of(Parts::default(), program, keep)
    }

    /// As [`new`](Self::new), on a relay of the given kind.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn on(relay: RelayKind, program: &Path, keep: Option<&Path>) -> Result<Self> {
        Self::of(Parts { relay, ..Parts::default() }, program, keep)
    }

    /// As [`new`](Self::new), of the given parts.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn of(parts: Parts, program: &Path, keep: Option<&Path>) -> Result<Self> {
        let kind = parts.relay;
        let folder = match keep {
            None => Folder::Temporary(TempDir::with_prefix("bitspire-")?),
            Some(kept) => {
                fs::create_dir_all(kept)
                    .with_context(|| format!("{}: cannot be made", kept.display()))?;
                // simulators and agent are given whole paths
                let kept = fs::canonicalize(kept)?;
                if fs::read_dir(&kept)?.next().is_some() {
                    bail!("{}: expected an empty folder", kept.display());
                }
                Folder::Kept(kept)
            }
        };
        let root = folder.path().to_owned();
        let operator_file = root.join("operator.toml");
        let [relay] = free_ports()?;
        fs::write(&operator_file, operator_toml(&root, relay, parts)?)?;
        let machine_file = root.join("machine.toml");
        fs::write(&machine_file, machine_toml(&root, parts)?)?;
        // a service manager makes the runtime folder
        fs::create_dir(root.join("run"))?;
        let logs = root.join("logs");
        fs::create_dir(&logs)?;
        let process =
            |name, arguments: Vec<OsString>| Process::new(name, program, arguments, &logs);
        let sim = |device: &str, arguments: &[String]| {
            let mut all: Vec<OsString> = vec!["sim".into(), device.into()];
            all.extend(["--currency", CURRENCY, "--http", "127.0.0.1:0"].map(OsString::from));
            all.extend(arguments.iter().map(OsString::from));
            all.extend(["--link".into(), root.join(format!("{device}.tty")).into()]);
            all
        };
        let mut bays = vec!["--note-ms".to_owned(), "20".to_owned()];
        for (bay, note, count) in parts.bays() {
            bays.extend(["--bay".to_owned(), format!("{bay}={note}:{count}")]);
        }
        let taker = parts.recycler.map_or(parts.acceptor.protocol(), RecyclerKind::protocol);
        let acceptor = sim(taker, &["--pace".to_owned(), "10".to_owned()]);
        let part = |program: &str, file: &Path, words: &[&str]| {
            let mut all = vec![program.into(), "--config".into(), file.into()];
            all.extend(words.iter().map(OsString::from));
            all
        };
        let bunker = match parts.bunker {
            BunkerKind::Own => part("operator", &operator_file, &["bunker", "serve"]),
            BunkerKind::Nsecbunkerd(version) => {
                let mut all: Vec<OsString> = vec!["nsecbunkerd".into(), "--version".into()];
                let there = format!("ws://127.0.0.1:{relay}");
                all.extend([version, "--relay", &there].map(OsString::from));
                all.extend(["--file".into(), root.join("nsecbunkerd.json").into()]);
                all
            }
        };
        let apart = |flag: &str, what: OsString| {
            let port = relay.to_string().into();
            process("relay", vec!["relay".into(), "--port".into(), port, flag.into(), what])
        };
        let relay = match kind {
            RelayKind::Embedded => None,
            RelayKind::Apart => Some(apart("--seen", root.join(RELAY_SEEN).into())),
            RelayKind::Odd(habit) => Some(apart("--habit", habit.name().into())),
        };
        Ok(Self {
            relay,
            acceptor: process("acceptor", acceptor),
            dispenser: process("dispenser", sim(parts.dispenser.protocol(), &bays)),
            operator: process("operator", part("operator", &operator_file, &["serve"])),
            bunker: process("bunker", bunker),
            vault: process("vault", part("agent", &machine_file, &["vault"])),
            net: process("net", part("agent", &machine_file, &["net"])),
            parts,
            client: Client::default(),
            operator_file,
            machine_file,
            program: program.to_owned(),
            folder,
        })
    }

    /// The world's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Names somebody else's bunker in the operator's configuration, as its administrator does.
    ///
    /// # Errors
    /// When it has not said its name, or the file cannot be changed.
    pub fn name_bunker(&self) -> Result<()> {
        let id = self.bunker.told("npub")?;
        let text = fs::read_to_string(&self.operator_file)?;
        let named = text.replace("\n[bunker]\n", &format!("\n[bunker]\nid = \"{id}\"\n"));
        Ok(fs::write(&self.operator_file, named)?)
    }

    /// Somebody who stands in front of the machine.
    ///
    /// # Errors
    /// When there is no thread to look with.
    pub fn customer(&self) -> Result<Customer> {
        Customer::new(self.folder().join("run/kiosk.url"))
    }

    /// The device that gives notes.
    #[must_use]
    pub const fn giver(&self) -> &Process {
        if self.parts.recycler.is_some() { &self.acceptor } else { &self.dispenser }
    }

    /// What somebody does to a simulated device.
    ///
    /// # Errors
    /// When the device refuses it or is down.
    pub fn act(&self, device: &Process, action: &Value) -> Result<Value> {
        self.client.post(&format!("{}/control", device.told("http")?), &[], action)
    }

    /// Where every note of a simulated device is.
    ///
    /// # Errors
    /// When the device is down.
    pub fn counters(&self, device: &Process) -> Result<Value> {
        self.client.get(&format!("{}/counters", device.told("http")?), &[])
    }

    /// A command of `bitspire-operator`, as the operator types it; its JSON.
    ///
    /// # Errors
    /// When it ends with another code than 0: with all that it said.
    pub fn operator_says(&self, words: &[&str]) -> Result<Value> {
        self.says("operator", &self.operator_file, &[&["--json"], words].concat())
    }

    /// How the machine is, by its own command line.
    ///
    /// # Errors
    /// When the vault does not answer.
    pub fn status(&self) -> Result<Value> {
        self.says("agent", &self.machine_file, &["status", "--json"])
    }

    /// Starts the vault and waits until it answers.
    ///
    /// # Errors
    /// When it does not: with the end of its log.
    pub fn start_vault(&mut self) -> Result<()> {
        let (program, file) = (self.program.clone(), self.machine_file.clone());
        let status = || says(&program, "agent", &file, &["status", "--json"]).map(drop);
        self.vault.start_until(status)
    }

    /// Hands the seed to the machine, as an installer does.
    ///
    /// # Errors
    /// When the machine is not paired by it: with what it said.
    pub fn give_seed(&self, seed_url: &str) -> Result<()> {
        let Said { code, error, .. } = self.offer_seed(seed_url)?;
        if code != Some(0) {
            bail!("the machine is not paired: {error}");
        }
        Ok(())
    }

    /// What the machine's command line says to a seed, which comes on standard input, seen by
    /// nobody.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn offer_seed(&self, seed_url: &str) -> Result<Said> {
        offer_seed(&self.program, &self.machine_file, seed_url)
    }

    /// The program that every part is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The kiosk's address as the machine's browser gets it, with this boot's token.
    ///
    /// # Errors
    /// When the machine has not written it.
    pub fn kiosk_address(&self) -> Result<String> {
        let file = self.folder().join("run/kiosk.url");
        let text = fs::read_to_string(&file);
        Ok(text.with_context(|| format!("{}: cannot be read", file.display()))?.trim().to_owned())
    }

    /// The operator's page, with the token that logs in to it.
    ///
    /// # Errors
    /// When the daemon has not written it.
    pub fn page_address(&self) -> Result<String> {
        let (address, token) = self.cookie()?;
        Ok(format!("{address}/#token={token}"))
    }

    /// Ends every process in order, as a service manager does; one that has ended already, by the
    /// same signal, is left alone.
    pub fn close(&mut self) {
        let Self { acceptor, dispenser, operator, relay, bunker, vault, net, .. } = self;
        let parts = [net, vault, operator, bunker, dispenser, acceptor];
        for process in parts.into_iter().chain(relay) {
            if let (true, Err(error)) = (process.running(), process.stop()) {
                eprintln!("{error:#}");
            }
        }
    }

    fn cookie(&self) -> Result<(String, String)> {
        let file = self.folder().join("operator/api.cookie");
        let line = fs::read_to_string(&file)
            .with_context(|| format!("{}: cannot be read", file.display()))?;
        let (address, token) = line.trim().split_once(' ').context("expected address and token")?;
        Ok((address.to_owned(), token.to_owned()))
    }

    fn says(&self, part: &str, file: &Path, words: &[&str]) -> Result<Value> {
        says(&self.program, part, file, words)
    }

    /// An answer of the operator's API, with the cookie that the daemon wrote at its start.
    ///
    /// # Errors
    /// When it refuses or is down.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (address, token) = self.cookie()?;
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let url = format!("{address}/api/v1{path}");
        match (method, body) {
            ("GET", None) => self.client.get(&url, &headers),
            (_, body) => self.client.post(&url, &headers, body.unwrap_or(&json!({}))),
        }
    }
}

/// What the command line of the machine with this configuration says to a seed.
pub(crate) fn offer_seed(program: &Path, file: &Path, seed_url: &str) -> Result<Said> {
    let mut command = Command::new(program);
    command.args(["agent", "--config"]).arg(file).args(["pair", "--seed-url", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("its input")?.write_all(seed_url.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    Ok(Said { code: output.status.code(), out, error })
}

/// A command of one part; its JSON.
pub(crate) fn says(program: &Path, part: &str, file: &Path, words: &[&str]) -> Result<Value> {
    let mut command = Command::new(program);
    let output = command.arg(part).arg("--config").arg(file).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{part} {words:?}: {}\n{said}{error}", output.status);
    }
    serde_json::from_str(&said).with_context(|| format!("{part} {words:?}: no JSON: {said}"))
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

/// TCP ports that nobody listens at and nobody else is given while this process lives: whoever wants
/// one must get its UDP port too, and keeps that one.
///
/// # Errors
/// When none can be found.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static KEPT: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let mut found = Vec::new();
    for _ in 0..1_000 {
        let bytes = getrandom::u32().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let port = PORTS.start + u16::try_from(bytes % u32::from(PORTS.end - PORTS.start))?;
        let Ok(mark) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
            found.push(port);
        }
        if let Ok(ports) = <[u16; N]>::try_from(found.as_slice()) {
            return Ok(ports);
        }
    }
    bail!("no {N} free ports between {} and {}", PORTS.start, PORTS.end)
}
