//! The command line.
//!
//! Promise: every verb but `serve`, `config` talks to the running daemon over its API on this
//! computer, with the cookie that the daemon wrote at its start; so each act passes the same checks
//! and ends in the same audit log as one from the page.
//!
//! Exit codes: 0 done; 1 refused, failed in part, or something was found; 2 wrong usage or
//! configuration; 3 the daemon cannot be reached.

mod args;
mod client;
mod show;
#[cfg(test)]
mod tests;
mod verbs;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bitspire_shell::clock::Clock;
use bitspire_shell::config::{ConfigError, Loaded, environment, show as show_config};
use bitspire_shell::logging;
use clap::Parser as _;
use thiserror::Error;

use crate::app::{App, AppError};
use crate::config::{Config, Raw};
use crate::http::error::in_words;
use crate::serve::{self, ServeError};
use args::{Cli, Command, ConfigVerb};
use client::ClientError;

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
    /// The daemon's API.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The runtime, or standard output.
    #[error("the system refused")]
    System(#[from] std::io::Error),
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
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
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            // a closed pipe takes the text with it
            let _ = usage.print();
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Found) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bitspire-operator: {}", in_words(&error));
            ExitCode::from(error.code())
        }
    }
}

fn load(cli: &Cli) -> Result<(Config, Loaded<Raw>), ConfigError> {
    let default = Path::new(FILE);
    let file: Option<PathBuf> =
        cli.config.clone().or_else(|| default.exists().then(|| default.to_owned()));
    let mut flags = Vec::new();
    if let Some(folder) = &cli.data_dir {
        flags.push(("data_dir", folder.display().to_string()));
    }
    crate::config::load(file.as_deref(), &environment(), &flags)
}

fn run(cli: Cli) -> Result<End, CliError> {
    let (config, loaded) = load(&cli)?;
    match cli.command {
        Command::Serve => serve(config),
        Command::Config { verb } => {
            let mut out = std::io::stdout();
            match verb {
                ConfigVerb::Check => writeln!(out, "the configuration is good")?,
                ConfigVerb::Show => write!(out, "{}", show_config(&loaded.shown))?,
            }
            Ok(End::Done)
        }
        Command::Ask(ask) => verbs::run(&config.data_dir, cli.json, ask),
    }
}

fn serve(config: Config) -> Result<End, CliError> {
    logging::start(Some(&config.log_filter), config.log_format);
    // opening the database waits for the disk: not on the runtime's thread
    let app = App::open(config, Clock::system())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served: Result<(), CliError> = runtime.block_on(async {
        let running = serve::start(app.clone()).await.inspect_err(|_| app.stop.cancel())?;
        writeln!(std::io::stdout(), "{}", running.ready_line())?;
        running.until_stopped().await?;
        tracing::info!(event = "stopping");
        running.stop().await;
        Ok(())
    });
    served.map(|()| End::Done)
}
