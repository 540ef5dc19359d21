//! The command line.
//!
//! Promise: every verb but `serve`, `bunker serve`, `secrets`, `config`, `verify-receipt` and
//! `verify-proof` talks to the running daemon over its API on this computer, with the cookie that the
//! daemon wrote at its start; so each act passes the same checks and ends in the same audit log as one
//! from the page.
//!
//! Exit codes: 0 done; 1 refused, failed in part, or something was found; 2 wrong usage or
//! configuration; 3 the daemon cannot be reached.

mod account;
mod args;
mod bunker;
mod client;
mod distribution;
mod export;
mod fees;
mod lps;
mod pair;
mod proof;
mod receipt;
mod rekey;
mod relays;
mod secrets;
mod show;
#[cfg(test)]
mod tests;
mod verbs;
mod verdict;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bitspire_shell::clock::Clock;
use bitspire_shell::config::{ConfigError, Loaded, environment, show as show_config};
use bitspire_shell::{crash, logging, privacy, unit};
use clap::Parser as _;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppError};
use crate::bunker::{Bunker, BunkerConfig, BunkerError};
use crate::clink;
use crate::config::{Config, Raw, public_key};
use crate::http::error::in_words;
use crate::serve::{self, ServeError};
use args::{BunkerVerb, Cli, Command, ConfigVerb};
use client::{Client, ClientError};

/// The configuration file that is read where none is named.
const FILE: &str = "/etc/bitspire/operator.toml";

/// Why a command did not do what it should.
#[derive(Debug, Error)]
enum CliError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon's files.
    #[error(transparent)]
    App(#[from] AppError),
    /// The daemon's parts.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The bunker.
    #[error(transparent)]
    Bunker(#[from] BunkerError),
    /// The daemon's API.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An option that does not read.
    #[error("{0}")]
    Typed(String),
    /// A new secret is missing.
    #[error("{key} hands the secret over: make a new one and name it with --to FILE")]
    NewSecret {
        /// The configured value.
        key: &'static str,
    },
    /// A secret in a file.
    #[error(transparent)]
    Secret(#[from] bitspire_shell::secrets::SecretError),
    /// A seed that could not be written.
    #[error(transparent)]
    Seed(#[from] pair::SeedFileError),
    /// The text of a receipt.
    #[error("{what}: cannot be read")]
    Text {
        /// Where it should have come from.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The key of a machine.
    #[error("--spire: expected the machine's npub or its 64 hex characters")]
    Machine(#[source] bitspire_shared::ids::IdError),
    /// The key of a service.
    #[error("--service: expected the service's npub or its 64 hex characters")]
    Service(#[source] bitspire_shared::ids::IdError),
    /// A proof of another form.
    #[error("expected a settlement's proof, as `settlement proof` writes it")]
    Proof(#[source] serde_json::Error),
    /// A file that could not be written.
    #[error("{what}: cannot be written; it must not be there yet")]
    Out {
        /// Which one.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The receipt.
    #[error(transparent)]
    Receipt(#[from] bitspire_shared::receipt::ReceiptError),
    /// A day that is none.
    #[error("{0}")]
    Day(String),
    /// An answer of another shape.
    #[error("{path}: expected a list in the daemon's answer: is it of another version?")]
    Answer {
        /// What was asked for.
        path: String,
    },
    /// The runtime, or standard output.
    #[error("the system refused")]
    System(#[from] std::io::Error),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::NewSecret { .. }
            | Self::Typed(_)
            | Self::Text { .. }
            | Self::Machine(_)
            | Self::Service(_)
            | Self::Out { .. }
            | Self::Seed(pair::SeedFileError::Open { .. }) => 2,
            Self::Client(ClientError::Unreachable { .. } | ClientError::Cookie { .. }) => 3,
            _ => 1,
        }
    }
}

/// How a command that ran ended.
enum End {
    /// Done.
    Done,
    /// Something is not as it should be; it was printed.
    Found,
}

/// Runs the command line; the first of `args` is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    privacy::start();
    command(args)
}

/// The same in a process that is somebody else's: what it says when it falls over is theirs.
fn command(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            // a closed pipe takes the text with it
            let _ = usage.print();
            return ExitCode::from(code);
        }
    };
    let _armed = crash::arm();
    match run(cli) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Found) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bitspire-operator: {}", in_words(&error));
            ExitCode::from(error.code())
        }
    }
}

fn load(
    config: Option<PathBuf>,
    data_dir: Option<&Path>,
) -> Result<(Config, Loaded<Raw>), ConfigError> {
    let default = Path::new(FILE);
    let file: Option<PathBuf> = config.or_else(|| default.exists().then(|| default.to_owned()));
    let mut flags = Vec::new();
    if let Some(folder) = data_dir {
        flags.push(("data_dir", folder.display().to_string()));
    }
    crate::config::load(file.as_deref(), &environment(), &flags)
}

fn run(cli: Cli) -> Result<End, CliError> {
    let Cli { config, data_dir, json, command } = cli;
    let loaded = || load(config, data_dir.as_deref());
    match command {
        // whoever checks a receipt needs no operator's configuration
        Command::VerifyReceipt(asked) => receipt::verify(asked, json),
        Command::VerifyProof(asked) => proof::verify(asked, json),
        Command::Settlement { verb } => proof::settlement(&loaded()?.0.data_dir, json, verb),
        Command::Serve => serve(loaded()?.0),
        Command::Bunker { verb: BunkerVerb::Serve { admin } } => serve_bunker(loaded()?.0, &admin),
        Command::Bunker { verb: BunkerVerb::Ask(ask) } => {
            bunker::run(&loaded()?.0.data_dir, json, ask)
        }
        Command::Config { verb } => {
            let (config, loaded) = loaded()?;
            let mut out = std::io::stdout();
            match verb {
                ConfigVerb::Check { relays } => {
                    writeln!(out, "the configuration is good")?;
                    if let Some(warning) = clink::warning(&config) {
                        writeln!(out, "WARNING: {warning}")?;
                    }
                    if relays {
                        return relays::check(&config);
                    }
                }
                ConfigVerb::Show => write!(out, "{}", show_config(&loaded.shown))?,
            }
            Ok(End::Done)
        }
        Command::Secrets { verb } => secrets::run(&loaded()?.0, verb),
        Command::Pair(asked) => pair::run(&Client::new(&loaded()?.0.data_dir)?, json, asked),
        Command::Export { what } => export::export(&Client::new(&loaded()?.0.data_dir)?, what),
        Command::Ask(ask) => verbs::run(&loaded()?.0.data_dir, json, ask),
    }
}

fn serve_bunker(mut config: Config, admins: &[String]) -> Result<End, CliError> {
    logging::start(Some(&config.log_filter), config.log_format);
    for admin in admins {
        config.bunker_admins.push(public_key("--admin", admin)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served: Result<(), CliError> = runtime.block_on(async {
        let bunker = Bunker::open(BunkerConfig::of(&config, Clock::system())).await?;
        let stop = CancellationToken::new();
        let run = bunker.run(stop.clone());
        tokio::pin!(run);
        writeln!(std::io::stdout(), "ready bunker={}", bunker.id().npub())?;
        unit::ready();
        tokio::select! {
            ended = &mut run => return Ok(ended?),
            told = serve::told_to_stop() => told?,
        }
        tracing::info!(event = "stopping");
        stop.cancel();
        Ok(run.await?)
    });
    served.map(|()| End::Done)
}

fn serve(config: Config) -> Result<End, CliError> {
    logging::start(Some(&config.log_filter), config.log_format);
    // opening the database waits for the disk: not on the runtime's thread
    let app = App::open(config, Clock::system())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served: Result<(), CliError> = runtime.block_on(async {
        let running = serve::start(app.clone()).await.inspect_err(|_| app.stop.cancel())?;
        writeln!(std::io::stdout(), "{}", running.ready_line())?;
        unit::ready();
        let told = running.until_stopped().await;
        tracing::info!(event = "stopping");
        running.stop().await;
        Ok(told?)
    });
    served.map(|()| End::Done)
}
