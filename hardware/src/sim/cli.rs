//! The program `bitspire-sim`: a simulated device on a pseudo-terminal.
//!
//! Promise: the first lines of its output say where it is (`port PATH`, `http URL`), then `ready`;
//! then one line of JSON for each thing that a person does to it. It runs until it is told to stop
//! (`q`, SIGINT, SIGTERM), a standard input that ends does not stop it, and takes its link with it.
//! Exit codes: 0 stopped as told, 1 could not run, 2 wrong use.

mod fit;

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Context, Result, bail};
use bitspire_shared::money::Currency;
use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::bays::SLOTS;
use super::ccnet::CcnetSim;
use super::escpos::EscPosSim;
use super::f56::{F56Sim, Fit};
use super::faulty::{FaultRates, Faulty};
use super::host::{Host, Http, Remote};
use super::id003::Id003Sim;
use super::puloon::Model;
use super::replay::ReplaySim;
use super::{Key, SimDevice};
use crate::engine::{LineSettings, Parity};
use crate::probe::Protocol;
use crate::recycler::smart_payout;

#[derive(Parser)]
#[command(
    name = "bitspire-sim",
    about = "A simulated note validator, dispenser or receipt printer on a pseudo-terminal",
    long_about = "A simulated note validator, dispenser or receipt printer on a pseudo-terminal.\n\n\
        It speaks the device's own serial protocol, byte for byte, and counts every note and slip. Give the \
        printed port (or the name given with --link) to whatever expects a serial port. A \
        pseudo-terminal has no baud rate and no parity: wrong line settings show only over a real \
        cable (--port).",
    after_help = "Keys, each with Enter: ? lists them, c shows the counters, q quits; a line that \
        begins with { is an action as JSON.\n\
        Over HTTP: curl -d '{\"action\":\"take\"}' http://ADDR/control; curl http://ADDR/counters.\n\
        Actions for every device: unplug, plug (the port goes and comes back under another name); \
        with a fault rate or latency also cut_cable, mend_cable, rates.\n\
        Exit codes: 0 stopped as told, 1 could not run, 2 wrong use."
)]
struct Cli {
    #[command(subcommand)]
    device: Device,
}

#[derive(Subcommand)]
enum Device {
    /// CashCode CCNET validator: inlet, escrow, drop cassette
    Ccnet {
        #[command(flatten)]
        validator: Validator,
        #[command(flatten)]
        common: Common,
    },
    /// CashCode Bill-to-Bill unit (CCNET): a validator with three cassettes that pay out
    #[command(name = "ccnet-b2b")]
    CcnetB2b {
        #[command(flatten)]
        validator: Validator,
        #[command(flatten)]
        common: Common,
    },
    /// ESC/POS receipt printer (Epson TM and alike): paper, cover, cutter
    Escpos {
        #[command(flatten)]
        roll: Roll,
        #[command(flatten)]
        common: Common,
    },
    /// MEI/CPI EBDS validator (Cashflow SC, SCN): inlet, escrow, cashbox
    Ebds {
        #[command(flatten)]
        cashflow: Cashflow,
        #[command(flatten)]
        common: Common,
    },
    /// Fujitsu F53/F56 dispenser: four cassettes, reject bin, exit
    F56 {
        #[command(flatten)]
        cassettes: Cassettes,
        /// Answer dispenses with the 139-byte reply of an older unit
        #[arg(long)]
        short_reply: bool,
        #[command(flatten)]
        common: Common,
    },
    /// JCM ID-003 validator (UBA, iVIZION, iPRO): inlet, escrow, cashbox
    Id003 {
        #[command(flatten)]
        validator: Validator,
        #[command(flatten)]
        common: Common,
    },
    /// JCM ID-003 recycler (iPRO-RC, UBA-RC, Vega-RC): a validator with two boxes that pay out
    #[command(name = "id003-rc")]
    Id003Rc {
        #[command(flatten)]
        validator: Validator,
        #[command(flatten)]
        common: Common,
    },
    /// Puloon LCDM-1000 dispenser: one cassette, reject tray, exit
    #[command(name = "puloon-1000")]
    Puloon1000 {
        #[command(flatten)]
        cassettes: Cassettes,
        #[command(flatten)]
        common: Common,
    },
    /// Puloon LCDM-2000 dispenser: two cassettes, reject tray, exit
    #[command(name = "puloon-2000")]
    Puloon2000 {
        #[command(flatten)]
        cassettes: Cassettes,
        #[command(flatten)]
        common: Common,
    },
    /// Puloon LCDM-4000 dispenser: four cassettes, reject tray, exit
    #[command(name = "puloon-4000")]
    Puloon4000 {
        #[command(flatten)]
        cassettes: Cassettes,
        #[command(flatten)]
        common: Common,
    },
    /// ITL NV200 with SMART Payout (SSP/eSSP): a validator with a store that pays out
    SmartPayout {
        #[command(flatten)]
        validator: Nv200,
        #[command(flatten)]
        common: Common,
    },
    /// A recording: answers as the device of a trace did
    Replay {
        /// What `bitspire-agent trace DEVICE` has printed, or a file of the machine's folder of faults
        trace: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

/// Rate of a unit as it is delivered.
const BAUD: u32 = 9_600;
/// Cassettes where none are named.
const USUAL: [&str; 2] = ["1=20:100", "2=50:100"];

#[derive(Args)]
struct Roll {
    /// Lines that the roll of paper has
    #[arg(long, value_name = "LINES", default_value_t = 2_000)]
    paper: u32,
}

#[derive(Args)]
struct Cassettes {
    /// Currency of the notes
    #[arg(long, value_name = "CODE", default_value = "USD")]
    currency: Currency,
    /// A cassette: bay, note in whole units, count; may be given for each bay [default: 1=20:100, and
    /// 2=50:100 where there is a second one]
    #[arg(long = "bay", value_name = "BAY=NOTE:COUNT")]
    bays: Vec<String>,
    /// Time that one note takes
    #[arg(long, value_name = "MS", default_value_t = 120)]
    note_ms: u64,
}

#[derive(Args)]
struct Validator {
    /// Currency of the notes that it knows
    #[arg(long, value_enum, ignore_case = true, default_value = "USD")]
    currency: KnownNotes,
    /// Settings only while it initialises, as strict firmware has it
    #[arg(long)]
    strict: bool,
    /// A credit that a power loss cut off is not repeated
    #[arg(long)]
    no_power_recovery: bool,
    /// Time that its motions take, in percent of a real unit's
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    pace: u64,
}

#[derive(Args)]
struct Cashflow {
    /// Currency of the notes that it knows
    #[arg(long, value_enum, ignore_case = true, default_value = "USD")]
    currency: KnownNotes,
    /// Notes are named by an index only, as by older units
    #[arg(long)]
    short_reports: bool,
    /// After a power loss it does not repeat what the host has not heard
    #[arg(long)]
    no_power_recovery: bool,
    /// Time that its motions take, in percent of a real unit's
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    pace: u64,
}

#[derive(Args)]
struct Nv200 {
    /// Currency of the notes that it knows
    #[arg(long, value_enum, ignore_case = true, default_value = "USD")]
    currency: KnownNotes,
    /// After a power loss it does not tell what nobody has acknowledged, nor what was cut off
    #[arg(long)]
    no_power_recovery: bool,
    /// Time that its motions take, in percent of a real unit's
    #[arg(long, value_name = "PERCENT", default_value_t = 100)]
    pace: u64,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum KnownNotes {
    Eur,
    Usd,
}

#[derive(Args)]
struct Common {
    /// A symbolic link to the port, for a name that stays the same
    #[arg(long, value_name = "PATH")]
    link: Option<PathBuf>,
    /// A real port instead of a pseudo-terminal, at the other end of a cable
    #[arg(long, value_name = "PATH", conflicts_with = "link")]
    port: Option<PathBuf>,
    /// Settings of the real port [default: the device's usual ones]
    #[arg(long, value_name = "SETTINGS", requires = "port", value_parser = line)]
    line: Option<LineSettings>,
    /// Control over HTTP, on a loopback address; port 0 finds a free one
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// Time that each byte takes on the cable
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u64,
    /// Bad cable: bytes dropped, doubled, changed or held back, per million
    #[arg(long, value_name = "PER_MILLION", default_value_t = 0)]
    fault_rate: u32,
    /// Which faults: the same seed and traffic give the same
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
}

/// Runs the program; `args` begin with its name.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            // a terminal that cannot be written to is nobody's to tell
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let (device, line, common) = match prepare(cli) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("bitspire-sim: {error:#}");
            return ExitCode::from(2);
        }
    };
    let wanted = std::env::var("RUST_LOG").ok().and_then(|wanted| wanted.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // a program that embeds this one has its own already
    let _ = tracing_subscriber::registry().with(lines).with(filter).try_init();
    match run(device, line, &common) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bitspire-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The device, and the line that it has in the field.
fn prepare(cli: Cli) -> Result<(Box<dyn SimDevice>, Option<LineSettings>, Common)> {
    let (device, usual, common): (Box<dyn SimDevice>, _, _) = match cli.device {
        Device::Ccnet { validator, common } => {
            (Box::new(validator.ccnet(CcnetSim::new)), Some(Protocol::Ccnet.line()), common)
        }
        Device::CcnetB2b { validator, common } => {
            (Box::new(validator.ccnet(CcnetSim::unit)), Some(Protocol::CcnetUnit.line()), common)
        }
        Device::Ebds { cashflow, common } => {
            (Box::new(cashflow.device()), Some(Protocol::Ebds.line()), common)
        }
        Device::Escpos { roll, common } => {
            (Box::new(EscPosSim::new(roll.paper)), Some(Protocol::EscPos.line()), common)
        }
        Device::F56 { cassettes, short_reply, common } => {
            let (note_ms, cassettes) = (cassettes.note_ms, cassettes.fit(SLOTS)?);
            let fit = Fit { cassettes, note_ms, short_reply };
            (Box::new(F56Sim::new(fit)), Some(Protocol::F56.line()), common)
        }
        Device::Id003 { validator, common } => {
            (Box::new(validator.id003(Id003Sim::new)), Some(Protocol::Id003.line()), common)
        }
        Device::Id003Rc { validator, common } => {
            (Box::new(validator.id003(Id003Sim::recycler)), Some(Protocol::Id003.line()), common)
        }
        Device::Puloon1000 { cassettes, common } => {
            (cassettes.puloon(Model::Lcdm1000)?, Some(Protocol::Lcdm1000.line()), common)
        }
        Device::Puloon2000 { cassettes, common } => {
            (cassettes.puloon(Model::Lcdm2000)?, Some(Protocol::Lcdm1000.line()), common)
        }
        Device::Puloon4000 { cassettes, common } => {
            (cassettes.puloon(Model::Lcdm4000)?, Some(Protocol::Lcdm4000.line()), common)
        }
        Device::SmartPayout { validator, common } => {
            (Box::new(validator.device()), Some(smart_payout::line(BAUD)), common)
        }
        Device::Replay { trace, common } => {
            let name = trace.display();
            let text = std::fs::read_to_string(&trace).with_context(|| format!("{name}"))?;
            let device = ReplaySim::read(&text).with_context(|| format!("{name}"))?;
            (Box::new(device), None, common)
        }
    };
    let line = common.line.or(usual);
    if common.port.is_some() && line.is_none() {
        bail!("--port: a recording does not say its line: give --line, such as '9600 8E1'");
    }
    if common.fault_rate == 0 && common.latency == 0 {
        return Ok((device, line, common));
    }
    let rates = FaultRates::spread(common.fault_rate);
    let device = Faulty::new(device, common.seed, rates, common.latency);
    Ok((Box::new(device), line, common))
}

/// `9600 8E1`, as technicians write it.
fn line(text: &str) -> Result<LineSettings, String> {
    let expected = || format!("expected settings such as '9600 8E1', got {text:?}");
    let (baud, form) = text.split_once(' ').ok_or_else(expected)?;
    let baud = baud.parse().map_err(|_| expected())?;
    let (data_bits, parity, stop_bits) = match form.as_bytes() {
        [data @ (b'7' | b'8'), parity @ (b'E' | b'N'), stop @ (b'1' | b'2')] => {
            let parity = if *parity == b'E' { Parity::Even } else { Parity::None };
            (data & 0x0f, parity, stop & 0x0f)
        }
        _ => return Err(expected()),
    };
    Ok(LineSettings { baud, data_bits, parity, stop_bits })
}

fn run(device: Box<dyn SimDevice>, line: Option<LineSettings>, common: &Common) -> Result<()> {
    let keys = device.keys();
    // before any thread starts: they inherit the mask, and only the waiting one gets the signal
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("signals cannot be held back")?;
    let (stop, stopped) = mpsc::sync_channel(1);
    let by_signal = stop.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_ok() {
            // a full channel means that it is stopping
            let _ = by_signal.try_send(());
        }
    })?;

    let host = match common.port.as_deref().zip(line) {
        Some((port, line)) => Host::on_port(device, port, line)?,
        None => Host::start(device, common.link.as_deref())?,
    };
    let http = common.http.as_deref().map(|addr| Http::start(addr, host.remote())).transpose()?;
    if let Some(path) = host.path()? {
        say(&format!("port {}", path.display()));
    }
    if let Some(http) = &http {
        say(&format!("http http://{}", http.addr()));
    }
    say("ready");
    let remote = host.remote();
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || read_keys(&remote, keys, &stop))?;
    stopped.recv().context("every thread that could stop it has ended")?;
    Ok(())
}

/// A person at the keyboard; ends with the input.
fn read_keys(remote: &Remote, keys: &[Key], stop: &SyncSender<()>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let line = line.trim();
        let done = match line {
            "" => continue,
            "q" => {
                // a full channel means that it is stopping
                let _ = stop.try_send(());
                return;
            }
            "?" => {
                say("c  the counters\nq  quit\n{  an action as JSON");
                for Key { key, what, action } in keys {
                    say(&format!("{key}  {what}  {action}"));
                }
                continue;
            }
            "c" => remote.counters().map_err(|error| error.to_string()),
            _ => {
                let known = keys.iter().find(|key| line.chars().eq([key.key]));
                let text = known.map_or(line, |key| key.action);
                match serde_json::from_str::<Value>(text) {
                    Ok(action) => remote.control(action).map_err(|error| error.to_string()),
                    Err(_) => Err(format!("expected a key or JSON, got {line}; ? lists the keys")),
                }
            }
        };
        match done {
            Ok(value) => say(&value.to_string()),
            Err(why) => eprintln!("bitspire-sim: {why}"),
        }
    }
}

/// One line for whoever reads; a reader that has gone does not stop the device.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
