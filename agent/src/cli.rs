//! The command line.
//!
//! Promise: what a command prints goes to standard output, logs go to standard error. No command
//! takes a private key: one in an argument, in the environment or in the configuration is a refused
//! start that says to pair; nothing that could be a secret is repeated in an error.
//!
//! Failure policy: exit code 1 where something went wrong, 2 where the command was not understood, 3
//! where a vault cannot use its journal; `doctor` has codes of its own, which its `--help` lists.

mod doctor;
mod evidence;
mod given;
mod journal;
mod pin;
mod receipt;
mod rekey;
mod replay;
mod secrets;
mod trace;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bitspire_shared::seed::{Loopback, Seed};
use bitspire_shared::time::Unix;
use bitspire_shell::config::{self as shell_config, names_private_key};
use bitspire_shell::{crash, logging, privacy, unit};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::doctor::{DoctorVerb, Unwell};
use self::evidence::Evidence;
use self::journal::JournalVerb;
use self::pin::ServicePin;
use self::receipt::Receipt;
use self::rekey::Rekey;
use self::replay::Replay;
use self::secrets::{AuditVerb, SecretsVerb};
use self::trace::Trace;
use crate::config::{self, Config, SEED_VARIABLE};
use crate::ipc::{self, MachineStatus, NetPins, Role, SecretText, ToNet, ToVault, VERSION};
use crate::net::AUTH_WAIT_MS;
use crate::refused::Refused;
use crate::supervise::{self, Program};
use crate::vault;

/// How long a bunker may take to say anything: longer than it may wait for a person.
const PAIRING: Duration = Duration::from_millis(AUTH_WAIT_MS + 60_000);
/// How long the vault may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(name = "bitspire-agent", version, about = "Runs a bitSpire machine")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "BITSPIRE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value, by its dotted key; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The vault process: devices, journal, transactions; it has no network
    Vault,
    /// The network process: relays, bunker, session, kiosk. Prints `ready kiosk=...` once the kiosk
    /// listens; the browser's own address, a secret, is in `kiosk.url` in the runtime folder
    Net,
    /// Both, as children of this process: for development and small set-ups
    Run,
    /// Pair this machine with the seed URL of the operator's pairing page
    Pair {
        #[command(flatten)]
        seed: SeedArgs,
        /// A file that holds the PIN of service mode, 6 digits or more; asked for at a terminal
        /// otherwise
        #[arg(long, value_name = "FILE")]
        service_pin_file: Option<PathBuf>,
    },
    /// Set or change the PIN of service mode
    ServicePin(ServicePin),
    /// Move the machine to other keys of its operator or service, by a statement that the operator
    /// key has signed: for a service that is lost. Wants the PIN of service mode
    Rekey(Rekey),
    /// Show how the machine is
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at the machine's devices
    #[command(subcommand)]
    Doctor(DoctorVerb),
    /// Show what went over the devices' lines last, frame by frame in words, from the running vault
    Trace(Trace),
    /// Look at the machine's record; beside a running vault, too
    #[command(subcommand)]
    Journal(JournalVerb),
    /// Step through a journal: state, screen and notes after any entry
    Replay(Replay),
    /// Make the receipt of a transaction again, from the journal; without a claim code
    Receipt(Receipt),
    /// Gather what is known about one transaction into one JSON file, without secrets: its journal
    /// entries and those around it, proof that they belong to the chain, its screens, the devices'
    /// last frames, configuration, versions
    Evidence(Evidence),
    /// Change the secret that the machine's keys are sealed with
    #[command(subcommand)]
    Secrets(SecretsVerb),
    /// Look at what lies on the machine's disk
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SeedArgs {
    /// The seed URL, or - to read it from standard input
    #[arg(long, env = SEED_VARIABLE, hide_env_values = true, value_name = "URL")]
    seed_url: Option<SecretText>,
    /// A file that holds the seed URL
    #[arg(long, value_name = "FILE")]
    seed_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Read and check it, start nothing
    Check,
    /// Print each value and where it comes from
    Show,
}

/// Runs the command in `arguments`, of which the first is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    privacy::start();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // before anything could repeat it in a message
    let holds_key = |argument: &OsString| names_private_key(&argument.to_string_lossy());
    if arguments.iter().any(holds_key) {
        eprintln!(
            "an argument holds a private key: refused. The machine's key lives in the operator's \
             bunker: pair the machine with `bitspire-agent pair --seed-url`"
        );
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // nothing can be done about a terminal that is gone
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let _armed = crash::arm();
    match command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            if let Some(VaultEnd::Failed(vault::VaultError::Journal(_))) = error.downcast_ref() {
                return ExitCode::from(supervise::JOURNAL_EXIT);
            }
            error.downcast_ref().map_or(ExitCode::FAILURE, Unwell::exit_code)
        }
    }
}

fn command(cli: Cli) -> anyhow::Result<()> {
    let mut flags = Vec::new();
    for pair in &cli.common.set {
        let (key, value) = pair.split_once('=').context("--set: expected KEY=VALUE")?;
        flags.push((key, value.to_owned()));
    }
    let mut environment = shell_config::environment();
    environment.remove("BITSPIRE_CONFIG");
    let file = cli.common.config.as_deref();
    let (config, loaded) = config::load(file, &environment, &flags)?;
    match cli.command {
        Verb::Config(ConfigVerb::Check) => println!("the configuration is good"),
        Verb::Config(ConfigVerb::Show) => print!("{}", shell_config::show(&loaded.shown)),
        Verb::Pair { seed: pair, service_pin_file } => {
            let seed = seed(pair)?;
            let _leave = Leave::give(&config.vault.dir.join(vault::LEAVE));
            pair_with(&config.socket, &seed, service_pin_file.as_deref())?;
        }
        Verb::ServicePin(verb) => verb.run(&config)?,
        Verb::Rekey(verb) => verb.run(&config.socket)?,
        Verb::Status { json } => show_status(&config.socket, json)?,
        Verb::Doctor(verb) => verb.run(&config)?,
        Verb::Trace(verb) => verb.run(&config.socket)?,
        Verb::Journal(verb) => journal::run(verb, &config.vault.journal())?,
        Verb::Evidence(evidence) => evidence.run(&config.vault, &loaded.shown)?,
        Verb::Receipt(receipt) => receipt.run(&config.vault)?,
        Verb::Replay(replay) => replay.run(&config.vault.journal())?,
        Verb::Secrets(verb) => verb.run(&config)?,
        Verb::Audit(verb) => verb.run(&config)?,
        Verb::Vault => run_vault(&config)?,
        Verb::Net => until_stopped(&config, |stop| {
            let ready = |kiosk| {
                println!("ready kiosk=http://{kiosk}");
                unit::ready();
            };
            crate::net::run(config.net.clone(), ready, stop)
        })?,
        Verb::Run => {
            let programs = children(&cli.common)?;
            until_stopped(&config, |stop| supervise::run(programs, stop))?;
        }
    }
    Ok(())
}

/// The two processes, with the flags of this one.
fn children(common: &Common) -> anyhow::Result<Vec<Program>> {
    let executable = std::env::current_exe()?;
    let mut flags: Vec<OsString> = Vec::new();
    if let Some(file) = &common.config {
        flags.extend(["--config".into(), file.into()]);
    }
    for pair in &common.set {
        flags.extend(["--set".into(), pair.into()]);
    }
    let child = |name: &'static str| {
        let arguments = std::iter::once(name.into()).chain(flags.iter().cloned()).collect();
        Program { name, executable: executable.clone(), arguments }
    };
    Ok(vec![child("vault"), child("net")])
}

/// Runs the vault on threads of its own, until it ends or a signal to stop comes.
fn run_vault(config: &Config) -> anyhow::Result<()> {
    let stop = vault::Stop::default();
    until_stopped(config, |signalled| async move {
        let own = stop.clone();
        let work = tokio::task::spawn_blocking({
            let config = config.clone();
            move || vault::run(&config, &own)
        });
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = signalled.cancelled() => {
                stop.stop();
                work.await
            }
        };
        ended.map_err(|error| VaultEnd::Died(privacy::ended(&error)))?.map_err(VaultEnd::Failed)
    })
}

/// Why the vault's thread ended.
#[derive(Debug, thiserror::Error)]
enum VaultEnd {
    #[error("the vault cannot go on")]
    Failed(#[source] vault::VaultError),
    #[error("the vault's thread has died: {0}")]
    Died(&'static str),
}

/// Runs a process on one thread until it ends or a signal to stop comes.
fn until_stopped<E, F>(
    config: &Config,
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    logging::start(Some(&config.log_filter), config.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let work = work(stop.clone());
        tokio::pin!(work);
        loop {
            tokio::select! {
                ended = &mut work => return Ok(ended?),
                _ = terminate.recv() => stop.cancel(),
                _ = interrupt.recv() => stop.cancel(),
            }
        }
    })
}

/// The seed URL from flag, standard input or file; checked for its form, so that a wrong paste is
/// told here.
fn seed(pair: SeedArgs) -> anyhow::Result<SecretText> {
    let text = match (pair.seed_url, pair.seed_file) {
        (_, Some(file)) => given::file(&file)?,
        (Some(url), None) if url.expose() == "-" => given::input()?,
        (Some(url), None) => url,
        (None, None) => bail!("expected --seed-url or --seed-file"),
    };
    // its end and its relays are the vault's to judge
    Seed::parse(text.expose(), Unix(0), Loopback::Allowed)
        .map_err(|error| Refused::from(&error))?;
    Ok(text)
}

/// A connection to the vault and what it is paired with.
fn control(socket: &Path) -> anyhow::Result<(UnixStream, Option<NetPins>)> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("{}: the vault does not answer; is it running?", socket.display())
    })?;
    stream.set_read_timeout(Some(ANSWER))?;
    ipc::write(&mut stream, &ToVault::Hello { version: VERSION, role: Role::Control })?;
    match ipc::read(&mut stream)? {
        Some(ToNet::Hello { version: VERSION, pins }) => Ok((stream, pins)),
        Some(ToNet::Hello { version, .. }) => {
            bail!("the vault speaks version {version}, this command {VERSION}: update one of them")
        }
        _ => bail!("expected the vault's Hello"),
    }
}

/// The word of the vault's own user that a machine which was paired before may be paired again, for
/// as long as this lives. Nobody else can give it, and a machine that is new needs none.
struct Leave(Option<PathBuf>);

impl Leave {
    fn give(path: &Path) -> Self {
        let given = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        Self(given.ok().map(|_| path.to_owned()))
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("{}: cannot be removed: {error}; remove it", path.display());
        }
    }
}

fn pair_with(socket: &Path, seed_url: &SecretText, pin_file: Option<&Path>) -> anyhow::Result<()> {
    let (mut stream, pins) = control(socket)?;
    match pins {
        Some(pins) => {
            eprintln!(
                "this machine is paired, as {}: a new seed of the same operator pairs it again, with \
                 its books, its open sales and its PIN",
                pins.spire.npub()
            );
            // one whose pairing was never confirmed may have none; any other keeps its own
            if let Some(file) = pin_file
                && let Some(pin) = pin::new(Some(file))?
                && let Err(error) = pin::set(socket, pin, None)
            {
                eprintln!("{error:#}");
            }
        }
        None => match pin::new(pin_file)? {
            Some(pin) => pin::set(socket, pin, None)?,
            None => eprintln!(
                "no service PIN is given: set one with `bitspire-agent service-pin` before the \
                 digits are confirmed, or this machine has no service mode"
            ),
        },
    }
    stream.set_read_timeout(Some(PAIRING))?;
    ipc::write(&mut stream, &ToVault::Seed { seed_url: seed_url.clone() })?;
    loop {
        match ipc::read(&mut stream).context("no answer from the bunker; try again")? {
            Some(ToNet::Paired { pins }) => {
                println!("paired as {}", pins.spire.npub());
                break;
            }
            Some(ToNet::AuthUrl { url }) => {
                println!("the bunker waits for a person: open {}", url.expose());
            }
            Some(ToNet::SeedRefused(refused)) => return Err(refused.into()),
            Some(_) => {}
            None => bail!("the vault closed the connection: look at its log, then try again"),
        }
    }
    if let Some(digits) = ask_status(&mut stream)?.digits {
        println!("compare with the pairing page: {digits}");
    }
    Ok(())
}

fn ask_status(stream: &mut UnixStream) -> anyhow::Result<MachineStatus> {
    stream.set_read_timeout(Some(ANSWER))?;
    ipc::write(stream, &ToVault::Status)?;
    loop {
        match ipc::read(stream)? {
            Some(ToNet::Status(status)) => return Ok(*status),
            Some(_) => {}
            None => bail!("the vault closed the connection: look at its log"),
        }
    }
}

fn show_status(socket: &Path, json: bool) -> anyhow::Result<()> {
    let (mut stream, _) = control(socket)?;
    let status = ask_status(&mut stream)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", in_words(&status));
    }
    Ok(())
}

/// The status, line by line.
fn in_words(status: &MachineStatus) -> String {
    let mut lines = Vec::new();
    match &status.pins {
        Some(pins) => lines.push(format!("paired as {}", pins.spire.npub())),
        None => lines.push("not paired".to_owned()),
    }
    lines.push(format!("vault {}", status.vault));
    if let Some(digits) = &status.digits {
        lines.push(format!("waits for the operator to confirm {digits}"));
    }
    match &status.net {
        Some(net) => {
            lines.push(format!(
                "net: {} relays, bunker {}, {}",
                net.relays,
                net.bunker.as_str(),
                if net.session { "session open" } else { "no session" },
            ));
            let trouble = net.bunker_trouble.iter();
            lines.extend(
                trouble.map(|why| format!("bunker: {}: {}", why.code.as_str(), why.line())),
            );
        }
        None => lines.push("net: not connected".to_owned()),
    }
    lines.push(format!(
        "journal at {}, {} transactions open",
        status.journal_seq.0, status.open_txns
    ));
    match status.out_of_service.as_slice() {
        [] => lines.push("in service".to_owned()),
        reasons => lines.extend(reasons.iter().map(|why| format!("out of service: {why}"))),
    }
    lines.join("\n") + "\n"
}
