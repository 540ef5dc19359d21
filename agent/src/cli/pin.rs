//! The PIN of service mode: typed without echo, or read from a file.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::{control, given};
use crate::config::Config;
use crate::ipc::{self, SecretText, ToNet, ToVault};
use crate::policy::pin::check_new;
use crate::vault;

#[derive(Debug, Args)]
pub(super) struct ServicePin {
    /// A file that holds the new PIN; it is asked for otherwise
    #[arg(long, value_name = "FILE")]
    new_file: Option<PathBuf>,
    /// A file that holds the PIN that is set now; it is asked for otherwise
    #[arg(long, value_name = "FILE", conflicts_with = "forgotten")]
    old_file: Option<PathBuf>,
    /// Replace a forgotten one, or set the first one of a machine in service: run it as the vault's
    /// user while the vault is stopped
    #[arg(long)]
    forgotten: bool,
}

impl ServicePin {
    pub(super) fn run(self, config: &Config) -> anyhow::Result<()> {
        if self.forgotten {
            let new =
                new(self.new_file.as_deref())?.context("expected --new-file or a terminal")?;
            vault::replace_pin(config, &new)?;
            println!("the service PIN is replaced");
            return Ok(());
        }
        let old = match self.old_file.as_deref() {
            Some(file) => Some(given::file(file)?),
            None if io::stdin().is_terminal() => {
                let typed =
                    typed("PIN that is set now, empty while the machine is being paired: ")?;
                Some(typed).filter(|pin| !pin.expose().is_empty())
            }
            None => None,
        };
        let new = new(self.new_file.as_deref())?.context("expected --new-file or a terminal")?;
        set(&config.socket, new, old)?;
        println!("the service PIN is set");
        Ok(())
    }
}

/// A new PIN from a file, or typed twice; `None` where there is neither file nor terminal.
pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Option<SecretText>> {
    let pin = match file {
        Some(file) => given::file(file)?,
        None if io::stdin().is_terminal() => {
            let first = typed("new service PIN, 6 digits or more: ")?;
            if typed("the same again: ")? != first {
                bail!("expected the same PIN twice");
            }
            first
        }
        None => return Ok(None),
    };
    check_new(pin.expose())?;
    Ok(Some(pin))
}

/// The PIN that is set, from a file or typed.
pub(super) fn current(file: Option<&Path>) -> anyhow::Result<SecretText> {
    match file {
        Some(file) => given::file(file),
        None if io::stdin().is_terminal() => typed("service PIN: "),
        None => bail!("expected --service-pin-file or a terminal"),
    }
}

/// Tells the vault.
pub(super) fn set(socket: &Path, new: SecretText, old: Option<SecretText>) -> anyhow::Result<()> {
    let (mut stream, _) = control(socket)?;
    ipc::write(&mut stream, &ToVault::ServicePin { new, old })?;
    loop {
        match ipc::read(&mut stream)? {
            Some(ToNet::ServicePin { refused: None }) => return Ok(()),
            Some(ToNet::ServicePin { refused: Some(why) }) => bail!("the PIN is not set: {why}"),
            Some(_) => {}
            None => bail!("the vault closed the connection: look at its log, then try again"),
        }
    }
}

/// A line of the terminal, which shows nothing of it.
fn typed(prompt: &str) -> anyhow::Result<SecretText> {
    let terminal = io::stdin();
    eprint!("{prompt}");
    io::stderr().flush()?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
    let line = given::line();
    let restored = tcsetattr(&terminal, SetArg::TCSANOW, &before);
    eprintln!();
    restored?;
    Ok(line?)
}
