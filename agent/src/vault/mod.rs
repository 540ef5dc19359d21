//! The process that holds the money: serial ports, journal, limits, transactions. It has no network;
//! its only way out is a unix socket to `net` and to the command line.
//!
//! Promise: a note moves for good only for a transaction of its own, after the journal has it; what
//! is dispensed was authorised by the pinned service for exactly this transaction, and what is
//! claimed lies in the cashbox. `net` is not trusted: whatever it says is checked here against the
//! keys that were pinned once, against the transaction's own state and against the limits of the
//! configuration.
//!
//! One thread owns everything and takes one event after the other; readers of sockets and devices
//! only put events into its queue. States: the devices are told to take nothing, open transactions
//! are told of the restart, then events are taken until the end.
//!
//! Failure policy: a journal that does not hold, a key that does not open or a socket that cannot be
//! made ends the process with its reason. A device in trouble, a network that is gone or a document
//! that does not hold closes what it concerns, and says so on the screen and in the report.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

mod alerts;
mod answers;
mod boxes;
mod core;
mod customer;
mod devices;
mod disk;
mod documents;
mod door;
mod drive;
mod emptying;
mod exit;
mod frames;
mod host;
mod inspect;
mod notes_in;
mod open;
mod pace;
mod pairing;
mod peers;
mod pin;
mod receipts;
mod report;
mod requests;
mod screens;
mod seed;
mod server;
mod service;
mod settings;
mod slip;
mod stock;
mod time;
mod trial;
mod verdicts;
mod wire;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{IdError, JournalSeq};
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::SecretError;
use thiserror::Error;

use self::core::Vault;
use self::host::Process;
pub use self::host::{Event, Host, Next, Place, Point};
pub use self::pace::Pace;
pub(crate) use self::pairing::LEAVE;
pub use self::pin::replace_pin;
pub use self::receipts::named_in;
use self::server::Server;
pub use self::server::{Outlet, Peer, PeerId};
pub use self::trial::is_trial;
use crate::config::Config;
use crate::journal::JournalError;
use crate::last_word::LastWord;
use crate::txn::BadState;

/// Events that may wait; whoever brings more waits.
const QUEUE: usize = 1_024;

/// Why the process ends.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The journal.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// A transaction in it.
    #[error("an open transaction cannot be read: install the version that wrote it")]
    Transaction(#[from] BadState),
    /// A setting in it.
    #[error(
        "journal: expected the setting {key} of this version: install the version that wrote it"
    )]
    Setting {
        /// Its name.
        key: &'static str,
        /// What the reader met.
        #[source]
        source: serde_json::Error,
    },
    /// Something of our own that has no JSON form.
    #[error("a record cannot be written as JSON")]
    Encode(#[from] serde_json::Error),
    /// The vault's key, or random bytes.
    #[error("the vault's key cannot be used")]
    Secret(#[from] SecretError),
    /// Likewise.
    #[error("the vault's key is none")]
    Key(#[from] IdError),
    /// The service PIN.
    #[error("the service PIN cannot be hashed: {0}")]
    Pin(argon2::password_hash::Error),
    /// The socket.
    #[error("{path}: cannot be listened on: check the folder and its owner")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no thread for a device.
    #[error("no thread for a device")]
    Device(#[source] io::Error),
    /// As asked for by [`Seams::halt_after`], or by the [`Host`].
    #[error("halted after entry {}", .0.0)]
    Halted(JournalSeq),
}

impl Classified for VaultError {
    fn kind(&self) -> Kind {
        match self {
            Self::Journal(error) => error.kind(),
            Self::Socket { .. } | Self::Device(_) | Self::Halted(_) => Kind::Transient,
            Self::Transaction(_)
            | Self::Setting { .. }
            | Self::Encode(_)
            | Self::Secret(_)
            | Self::Key(_)
            | Self::Pin(_) => Kind::Permanent,
        }
    }
}

/// Ends a running vault from another thread.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<Stopping>>);

#[derive(Default)]
struct Stopping {
    wanted: bool,
    events: Option<SyncSender<Event>>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stop").finish_non_exhaustive()
    }
}

impl Stop {
    /// Asks the vault to end, now or as soon as it runs; returns before it has.
    pub fn stop(&self) {
        let mut stopping = self.lock();
        stopping.wanted = true;
        if let Some(events) = stopping.events.take() {
            // a vault that has ended needs no stop
            let _ = events.send(Event::Stop);
        }
    }

    fn arm(&self, events: SyncSender<Event>) {
        let mut stopping = self.lock();
        stopping.events = Some(events);
        if stopping.wanted {
            drop(stopping);
            self.stop();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Stopping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where tests put their own parts in.
#[derive(Clone, Debug)]
pub struct Seams {
    /// The wall clock: a hint that decides nothing but whether a seed is too old.
    pub clock: Clock,
    /// Ends the vault right after this entry was flushed, as if its power went: nothing that was to
    /// follow the entry is done.
    pub halt_after: Option<JournalSeq>,
    /// How fast it goes.
    pub pace: Pace,
}

impl Default for Seams {
    fn default() -> Self {
        Self { clock: Clock::system(), halt_after: None, pace: Pace::default() }
    }
}

/// Runs the vault until `stop`.
///
/// # Errors
/// [`VaultError`].
pub fn run(config: &Config, stop: &Stop) -> Result<(), VaultError> {
    run_with(config, Seams::default(), stop)
}

/// The same with parts of one's own.
///
/// # Errors
/// [`VaultError`].
pub fn run_with(config: &Config, seams: Seams, stop: &Stop) -> Result<(), VaultError> {
    let (sender, events) = sync_channel(QUEUE);
    let host = Box::new(Process::new(sender.clone(), events));
    let opened = Vault::open(config, seams, host).and_then(|vault| {
        let server = Server::start(&config.socket, sender.clone())
            .map_err(|source| VaultError::Socket { path: config.socket.clone(), source })?;
        Ok((vault, server))
    });
    let (result, parts) = match opened {
        Ok((mut vault, server)) => {
            vault.tell_last_word(LastWord::read(&config.last_word));
            LastWord::forget(&config.last_word);
            bitspire_shell::unit::ready();
            stop.arm(sender);
            (vault.recover().and_then(|()| vault.work()), Some((vault, server)))
        }
        Err(error) => (Err(error), None),
    };
    // before anybody can see that it is gone
    leave_last_word(config, &result);
    // the vault first, with it the queue: whoever waits to put something in is let go, so that its
    // thread can end
    drop(parts);
    result
}

/// Says why the vault cannot go on, for `net` to show.
fn leave_last_word(config: &Config, result: &Result<(), VaultError>) {
    let error = match result {
        Ok(()) | Err(VaultError::Halted(_)) => return,
        Err(error) => error,
    };
    let mut reasons = vec![
        "Whatever you paid or fed is on record. The operator has to come to the machine."
            .to_owned(),
    ];
    if let VaultError::Journal(error) = error {
        reasons.push(error.advice().to_owned());
    }
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    tracing::error!(event = "vault_cannot_go_on", advice = reasons.last(), "{said}");
    reasons.push(said);
    LastWord { reasons }.leave(&config.last_word);
}

/// Runs a vault without a socket in a world of one's own, until that stops or halts it.
///
/// # Errors
/// [`VaultError`].
pub fn run_in(config: &Config, seams: Seams, host: Box<dyn Host>) -> Result<(), VaultError> {
    let mut vault = Vault::open(config, seams, host)?;
    vault.recover()?;
    vault.work()
}
