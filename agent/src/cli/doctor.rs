//! `doctor hardware`: each configured port, and who answers there.
//!
//! Promise: it runs only while no vault does, and keeps one from starting meanwhile. It asks and
//! changes nothing, but for a test dispense that is asked for by name. That is for a machine whose
//! bays nobody has counted yet: it is refused where the books have any, and while a transaction is
//! open, since the dispenser may be its only witness.
//!
//! Failure policy: every device is looked at, whatever became of the one before; the exit code is
//! that of the first one that is not well.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bitspire_hardware::dispenser::BayState;
use bitspire_hardware::dispenser::puloon::{DispenseForm, Model};
use bitspire_hardware::engine::LineSettings;
use bitspire_hardware::port::{OpenError, Opener, lp, serial};
use bitspire_hardware::probe::{self, Found, ProbeError, Protocol};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Fiat;
use clap::{Args, Subcommand};

use crate::config::{
    AcceptorConfig, AcceptorKind, Config, DispenserConfig, PrinterConfig, PrinterPort,
    RecyclerConfig, RecyclerKind, VaultConfig,
};
use crate::journal::{JournalError, Reader, hold};
use crate::refused::in_words;

/// The vault runs.
const RUNS: u8 = 4;

#[derive(Debug, Subcommand)]
pub(super) enum DoctorVerb {
    /// Ask each configured device what it is and how it is; stop the vault first
    #[command(
        after_help = "Exit codes: 0 each device is the configured one and answers, 1 something \
        else went wrong, 4 the vault runs, 10 no such port or it cannot be opened, 11 permission \
        denied, 12 the port is in use, 13 the device answers at another baud rate or parity, 14 \
        silence, 15 garbage, 16 another device, 17 the line gives back what is sent, 18 the test \
        dispense did not end as it should. With several, the first device's."
    )]
    Hardware(Hardware),
}

#[derive(Debug, Args)]
pub(super) struct Hardware {
    /// Also move one note of this bay to the reject tray, where the dispenser can (Puloon), before
    /// the machine's books count its notes; afterwards service mode's test is the one. Put it back
    #[arg(long, value_name = "BAY", value_parser = bay)]
    test_dispense: Option<BayId>,
}

fn bay(text: &str) -> Result<BayId, String> {
    let number = text.parse().ok().and_then(BayId::new);
    number.ok_or_else(|| "expected a bay's number, from 1".to_owned())
}

/// A device that is not as it should be; what it is was printed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Unwell {
    code: u8,
    what: String,
}

impl Unwell {
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// A device as it is configured.
struct Configured {
    name: &'static str,
    path: String,
    protocol: Protocol,
    line: LineSettings,
    /// A USB printer port has no line.
    opener: Opener,
}

impl DoctorVerb {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        let Self::Hardware(hardware) = self;
        hardware.run(&config.vault)
    }
}

impl Hardware {
    fn run(&self, config: &VaultConfig) -> anyhow::Result<()> {
        // a machine that has never run has no folder, and nothing to keep out
        let held = config.dir.exists().then(|| hold(&config.journal())).transpose();
        let _held = held.map_err(|error| match error {
            JournalError::Locked { .. } => {
                let what = format!("{error}; the vault has the devices: stop it first");
                anyhow::Error::new(Unwell { code: RUNS, what })
            }
            error => error.into(),
        })?;
        if self.test_dispense.is_some() {
            nothing_to_lose(config)?;
        }
        let mut devices = configured(config);
        if devices.is_empty() {
            bail!("no device is configured: name them, or the machine's model ([machine] model)");
        }
        let mut first = None;
        for device in &mut devices {
            let Configured { name, path, protocol, line, .. } = device;
            println!("{name}: {path}, {protocol}, {line}");
            let answer = probe::probe(&mut device.opener, *protocol, *line);
            let code = match answer {
                Ok(found) => {
                    tell(&found);
                    None
                }
                Err(error) => {
                    println!("  NOT WELL  {}", in_words(&error));
                    Some(code(&error))
                }
            };
            first = first.or(code);
        }
        if let Some(bay) = self.test_dispense {
            first = first.or(test(config, &mut devices, bay)?);
        }
        match first {
            Some(code) => {
                let what = "not every device is well: see above".to_owned();
                Err(Unwell { code, what }.into())
            }
            None => Ok(()),
        }
    }
}

/// Neither a transaction whose end the dispenser knows, nor a count that a moved note makes wrong.
fn nothing_to_lose(config: &VaultConfig) -> anyhow::Result<()> {
    let journal = config.journal();
    if !journal.exists() {
        return Ok(());
    }
    let reader = Reader::open(&journal)?;
    if let Some(txn) = reader.open_txns()?.first() {
        bail!(
            "no test dispense: transaction {} is open, and the dispenser may be the only one that \
             knows how it ended; start the vault, or settle it first",
            txn.txid
        );
    }
    if !reader.holdings()?.bays.is_empty() {
        bail!(
            "no test dispense: the books count this machine's notes, and would not count this one: \
             test it in service mode"
        );
    }
    Ok(())
}

/// One note to the tray; a code where it did not go there.
fn test(
    config: &VaultConfig,
    devices: &mut [Configured],
    bay: BayId,
) -> anyhow::Result<Option<u8>> {
    let own = config.dispenser.as_ref().context("no dispenser is configured to test")?;
    let device = devices.iter_mut().find(|device| device.name == "dispenser");
    let device = device.context("no dispenser is configured to test")?;
    if bay.get() > own.bays {
        bail!("expected a bay from 1 to {}, got {bay}", own.bays);
    }
    let form = config.currency.zip(own.kind.lcdm());
    let form =
        form.map_or(DispenseForm::default(), |(currency, model)| own.lcdm(model, currency).form);
    println!("test dispense: one note of bay {bay} to the reject tray");
    let tested = probe::test_dispense(&mut device.opener, device.protocol, device.line, bay, form);
    Ok(match tested {
        Ok(tested) => {
            println!("  rejected  {}", tested.rejected);
            if tested.presented > 0 {
                println!("  NOT WELL  {} notes went out of the exit", tested.presented);
            }
            if let Some(trouble) = &tested.trouble {
                println!("  NOT WELL  {trouble}");
            }
            println!("  put the note back into its cassette: the books have not changed");
            let well = tested.presented == 0 && tested.rejected > 0 && tested.trouble.is_none();
            (!well).then_some(18)
        }
        Err(error) => {
            println!("  NOT WELL  {}", in_words(&error));
            Some(code(&error))
        }
    })
}

fn configured(config: &VaultConfig) -> Vec<Configured> {
    let acceptor = config.acceptor.as_ref().map(acceptor);
    let dispenser = config.dispenser.as_ref().map(|own| dispenser(own, config));
    let printer = config.printer.as_ref().map(printer);
    let recycler = config.recycler.as_ref().map(recycler);
    [acceptor, dispenser, recycler, printer].into_iter().flatten().collect()
}

fn recycler(own: &RecyclerConfig) -> Configured {
    let protocol = match own.kind {
        RecyclerKind::Id003Rc => Protocol::Id003,
        RecyclerKind::CcnetB2b => Protocol::CcnetUnit,
        RecyclerKind::SmartPayout => Protocol::Ssp,
    };
    let usual = protocol.line();
    let line = LineSettings { baud: own.baud.unwrap_or(usual.baud), ..usual };
    Configured {
        name: "recycler",
        path: own.path.clone(),
        protocol,
        line,
        opener: serial(&own.path),
    }
}

fn acceptor(own: &AcceptorConfig) -> Configured {
    let protocol = match own.kind {
        AcceptorKind::Ccnet => Protocol::Ccnet,
        AcceptorKind::Id003 => Protocol::Id003,
        AcceptorKind::Ebds => Protocol::Ebds,
    };
    let usual = protocol.line();
    let line = LineSettings { baud: own.baud.unwrap_or(usual.baud), ..usual };
    Configured {
        name: "acceptor",
        path: own.path.clone(),
        protocol,
        line,
        opener: serial(&own.path),
    }
}

fn dispenser(own: &DispenserConfig, config: &VaultConfig) -> Configured {
    let protocol = match own.kind.lcdm() {
        None => Protocol::F56,
        Some(Model::Lcdm4000) => Protocol::Lcdm4000,
        Some(Model::Lcdm2000 | Model::Lcdm1000) => Protocol::Lcdm1000,
    };
    let settings = own.kind.lcdm().zip(config.currency);
    let line =
        settings.map_or(protocol.line(), |(model, currency)| own.lcdm(model, currency).line());
    Configured {
        name: "dispenser",
        path: own.path.clone(),
        protocol,
        line,
        opener: serial(&own.path),
    }
}

fn printer(own: &PrinterConfig) -> Configured {
    let opener = match own.port {
        PrinterPort::Serial => serial(&own.path),
        PrinterPort::UsbLp => lp(&own.path),
    };
    let protocol = Protocol::EscPos;
    let line = LineSettings { baud: own.baud, ..protocol.line() };
    Configured { name: "printer", path: own.path.clone(), protocol, line, opener }
}

fn tell(found: &Found) {
    let Found { identity, notes, bays, state, .. } = found;
    println!("  is        {}", identity.as_deref().unwrap_or("of a kind that does not say more"));
    let currencies: BTreeSet<String> = notes.iter().map(|(_, currency)| currency.code()).collect();
    for code in currencies {
        let own = notes.iter().filter(|(_, currency)| currency.code() == code);
        let own = own.map(|(note, currency)| Fiat::new(note.minor().into(), *currency).to_string());
        println!("  notes     {}", own.collect::<Vec<_>>().join(", "));
    }
    for (bay, state) in bays {
        let words = match state {
            BayState::Present => "there",
            BayState::Missing => "missing",
            BayState::Empty => "empty",
        };
        println!("  cassette  {bay} is {words}");
    }
    for line in state {
        println!("  says      {line}");
    }
}

const fn code(error: &ProbeError) -> u8 {
    match error {
        ProbeError::Open(OpenError::Permission { .. }) => 11,
        ProbeError::Open(OpenError::Busy { .. }) => 12,
        ProbeError::Open(_) => 10,
        ProbeError::WrongLine { .. } => 13,
        ProbeError::Silent => 14,
        ProbeError::Garbage { .. } => 15,
        ProbeError::OtherDevice { .. } => 16,
        ProbeError::Echo => 17,
        ProbeError::Unanswered | ProbeError::NoTest(_) | ProbeError::NotNow(_) => 18,
        ProbeError::Thread(_) | ProbeError::Lost(_) => 1,
    }
}
