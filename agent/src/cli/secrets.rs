//! `secrets rotate`: another machine secret, while nothing runs. `audit keys`: what lies on the disk.

use std::path::PathBuf;

use anyhow::bail;
use bitspire_shell::secrets::Rotation;
use clap::{Args, Subcommand, ValueEnum};

use crate::at_rest;
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
    /// Whose keys; run it as that process's user
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
    /// The vault's
    Vault,
    /// The network process's
    Net,
}

impl SecretsVerb {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        let Self::Rotate(Rotate { of, from, to }) = self;
        let (folder, configured, key) = match of {
            Of::Vault => {
                let vault = &config.vault;
                (&vault.dir, &vault.machine_secret_file, "vault.machine_secret_file")
            }
            Of::Net => {
                let net = &config.net;
                (&net.dir, &net.machine_secret_file, "net.machine_secret_file")
            }
        };
        if from.is_none() && to.is_none() && configured.is_some() {
            bail!("{key} hands the secret over: make a new one and name it with --to FILE");
        }
        let from = from.or_else(|| configured.clone());
        Rotation::begin(folder, from.as_deref(), to.as_deref())?.finish()?;
        println!("{}: every key is sealed with the new machine secret", folder.display());
        if let Some(to) = to {
            println!("now let {key} name it, and keep no copy of {} in the clear", to.display());
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// List every file of the machine's folders: what secret is in it, and how it is kept. Exit code 1
    /// where something should not be so
    Keys {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

impl AuditVerb {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        let Self::Keys { json } = self;
        let found = at_rest::look(config);
        if json {
            println!("{}", serde_json::to_string_pretty(&found)?);
        } else {
            for secret in &found.secrets {
                let (mode, kept, file) =
                    (&secret.mode, secret.kept.as_str(), secret.file.display());
                println!("{kept:<7} {mode} {file}: {}", secret.what);
            }
            for finding in &found.findings {
                println!("FOUND {finding}");
            }
        }
        match found.findings.len() {
            0 => Ok(()),
            some => bail!("{some} things should not be so"),
        }
    }
}
