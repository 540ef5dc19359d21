//! `secrets rotate`: another machine secret, while nothing runs.

use std::io::Write as _;
use std::path::PathBuf;

use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::Rotation;
use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, End};
use crate::bunker;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum SecretsVerb {
    /// Seal every key with another machine secret and erase the old one; stop the process first
    ///
    /// Cut off, run it again as it was run: it goes on where it stopped. What was copied before still
    /// opens with the old secret.
    Rotate(Rotate),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// Whose keys
    #[arg(value_enum)]
    of: Of,
    /// The secret in use [default: machine_secret_file of the configuration, else the folder's own]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The new secret: 32 random bytes, mode 0600; needed where machine_secret_file is configured
    /// [default: a fresh one, which becomes the folder's own]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// The daemon's own
    Service,
    /// The bunker's
    Bunker,
}

/// Runs a verb.
pub(super) fn run(config: &Config, verb: SecretsVerb) -> Result<End, CliError> {
    let SecretsVerb::Rotate(Rotate { of, from, to }) = verb;
    let (folder, configured, key) = match of {
        Of::Service => (&config.data_dir, &config.machine_secret_file, "machine_secret_file"),
        Of::Bunker => (
            &config.bunker_data_dir,
            &config.bunker_machine_secret_file,
            "bunker.machine_secret_file",
        ),
    };
    if from.is_none() && to.is_none() && configured.is_some() {
        return Err(CliError::NewSecret { key });
    }
    let from = from.or_else(|| configured.clone());
    match of {
        Of::Service => {
            Rotation::begin(folder, from.as_deref(), to.as_deref())?.finish()?;
        }
        Of::Bunker => {
            bunker::rotate(folder, from.as_deref(), to.as_deref(), Clock::system().now())?;
        }
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}: every key is sealed with the new machine secret", folder.display())?;
    if let Some(to) = to {
        writeln!(out, "now let {key} name it, and keep no copy of {} in the clear", to.display())?;
    }
    Ok(End::Done)
}
