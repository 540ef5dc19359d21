//! Somebody else's bunker as a process: a double of nsecbunkerd, which serves operators and machines.
//!
//! Promise: it holds keys, tokens, policies and clients in one file, written before it answers, so
//! that it can be killed and started again; then all keys are locked, as nsecbunkerd's are. What it
//! says is [`wire`]'s.

pub mod wire;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bitspire_shared::ids::PubKey;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use clap::{Parser, ValueEnum};
use nostr::{Filter, Keys, Kind};
use serde::{Deserialize, Serialize};

use self::wire::{FORK, Habits, ODD_FORK, State, UPSTREAM, Wire};

/// Its versions.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    /// The first ones, which cannot serve a machine
    Upstream,
    /// A fork that can
    Fork,
    /// Another fork, with one kind for everything
    OddFork,
}

impl Version {
    const fn habits(self) -> Habits {
        match self {
            Self::Upstream => UPSTREAM,
            Self::Fork => FORK,
            Self::OddFork => ODD_FORK,
        }
    }
}

#[derive(Debug, Parser)]
struct Nsecbunkerd {
    /// Where it keeps everything
    #[arg(long)]
    file: PathBuf,
    /// The relay where it is asked
    #[arg(long)]
    relay: String,
    /// Who may administer it, as an npub; kept from the first start on
    #[arg(long)]
    admin: Option<String>,
    /// How it behaves
    #[arg(long, value_enum, default_value_t = Version::Fork)]
    version: Version,
}

/// What is on its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    secret: String,
    admin: PubKey,
    state: State,
}

impl Disk {
    fn open(file: &Path, admin: Option<&str>) -> Result<Self> {
        let kept = match std::fs::read(file) {
            Ok(text) => Some(serde_json::from_slice::<Self>(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let admin = admin.map(PubKey::from_hex_or_npub).transpose()?;
        let mut disk = match kept {
            Some(kept) => kept,
            None => {
                let admin = admin.context("expected --admin at the first start")?;
                let secret = Keys::generate().secret_key().to_secret_hex();
                Self { secret, admin, state: State::default() }
            }
        };
        disk.admin = admin.unwrap_or(disk.admin);
        disk.write(file)?;
        Ok(disk)
    }

    /// In one step: a kill leaves the old or the new.
    fn write(&self, file: &Path) -> Result<()> {
        let next = file.with_extension("next");
        std::fs::write(&next, serde_json::to_vec(self)?)?;
        Ok(std::fs::rename(&next, file)?)
    }
}

/// Runs until it is killed.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match run(&Nsecbunkerd::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nsecbunkerd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Nsecbunkerd) -> Result<()> {
    let mut disk = Disk::open(&asked.file, asked.admin.as_deref())?;
    let keys = Keys::parse(&disk.secret)?;
    let id = PubKey::new(keys.public_key())?;
    let wire = Wire { keys: keys.clone(), admin: disk.admin, habits: asked.version.habits() };
    let clock = Clock::system();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let relays = std::slice::from_ref(&asked.relay);
        let pool = Pool::connect(keys, relays, Arc::new(|_: &str| true)).await?;
        let kinds = [24_133, 24_134].map(Kind::from);
        pool.subscribe("all", Filter::new().kinds(kinds).limit(0)).await;
        let mut out = std::io::stdout();
        writeln!(out, "npub {}", id.npub())?;
        writeln!(out, "ready nsecbunkerd")?;
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            let event = tokio::select! {
                event = pool.next() => event.context("the relay pool has ended")?,
                _ = stop.recv() => return Ok(()),
            };
            let before = disk.state.clone();
            let replies = wire.hear(&mut disk.state, &event, clock.now());
            if disk.state != before {
                disk.write(&asked.file)?;
            }
            for reply in replies {
                pool.send(&reply).await;
            }
        }
    })
}
