//! The embedded bunker: holds the keys of machines and operators, and signs for their clients.
//!
//! Promise: a private key leaves this process only sealed. Whether a client may have something
//! signed is looked up in the database at every request, so that a changed policy, an expired token
//! or a revoked client counts at the next one; what was allowed, and counted, is on the disk before
//! anything is signed, and the same request under the same id is counted once, also over a restart.
//! A token is worth one client; only its hash is stored.
//!
//! It is a process of its own with its own folder, database and machine secret: a hole in the web
//! daemon must not have every key. To relays it authenticates (NIP-42) with its transport key, made
//! at the first start and named in the file `bunker-id`; the roster of the embedded relay must know
//! this key. The same key is where administrators send their requests. Every held key answers
//! NIP-46 (kind 24133, NIP-44, or NIP-04 for clients that know no other) in its own name.
//!
//! A stranger's message to a held key costs that key's strangers' bucket, before its signature is
//! checked; a stranger's message to the transport key is dropped at once.
//!
//! Failure policy: what cannot be read, is for no key that is held, or for a key that does not open
//! (locked), is met with silence, as in other bunkers. A database that fails means silence, too: the
//! client sends again; after a fault of the disk the process ends with an error.

mod admin;
mod answer;
mod core;
mod decide;
mod held;
mod limits;
mod replies;
mod rotate;
mod serve;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::sealed::Purpose;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::PoolError;
use bitspire_shell::secrets::{Keyring, SecretError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::core::Core;
use self::held::Held;
pub use self::limits::BunkerStats;
pub use self::rotate::rotate;
use crate::config::Config;
use crate::store::bunker as rows;
use crate::store::{OpenError, StoreError};

/// Name of the transport key in the keyring.
const TRANSPORT: &str = "bunker-transport";
/// The file that tells the bunker's public key.
const ID_FILE: &str = "bunker-id";

/// How a bunker is set up.
#[derive(Clone, Debug)]
pub struct BunkerConfig {
    /// Its own folder: database, sealed transport key, machine secret unless that is named.
    pub data_dir: PathBuf,
    /// The file with the 32 bytes that everything here is sealed with; made in the folder where none
    /// is named.
    pub machine_secret_file: Option<PathBuf>,
    /// Where it is reached.
    pub relays: Vec<String>,
    /// Who administers it. Where any are named they replace those of earlier starts; where none
    /// are, those of earlier starts stay. The first start has to name one.
    pub admins: Vec<PubKey>,
    /// The wall clock.
    pub clock: Clock,
}

impl BunkerConfig {
    /// The bunker that the configuration describes.
    #[must_use]
    pub fn of(config: &Config, clock: Clock) -> Self {
        Self {
            data_dir: config.bunker_data_dir.clone(),
            machine_secret_file: config.bunker_machine_secret_file.clone(),
            relays: vec![config.bunker_relay.clone()],
            admins: config.bunker_admins.clone(),
            clock,
        }
    }
}

/// Why a bunker does not run.
#[derive(Debug, Error)]
pub enum BunkerError {
    /// Its secrets cannot be used.
    #[error("the bunker's secrets cannot be used")]
    Secret(#[from] SecretError),
    /// Its database does not open.
    #[error("the bunker's database cannot be used")]
    Open(#[from] OpenError),
    /// Its database failed.
    #[error("the bunker's database failed")]
    Store(#[from] StoreError),
    /// Its transport key is none.
    #[error("the bunker's transport key cannot be used")]
    Key(#[from] IdError),
    /// A relay's address is wrong.
    #[error("the bunker's relays cannot be used")]
    Relays(#[from] PoolError),
    /// Nobody could use it.
    #[error(
        "the bunker has no administrator: start it once with --admin <npub of the operator \
         service's admin key>"
    )]
    NoAdmin,
    /// The file with its id cannot be written or read.
    #[error("{path}: the bunker's id cannot be {what}", path = .path.display())]
    Id {
        /// The file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file with its id holds something else.
    #[error("{path}: expected an npub; start the bunker, which writes it anew", path = .path.display())]
    NotAnId {
        /// The file.
        path: PathBuf,
    },
}

impl Classified for BunkerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Secret(error) => error.kind(),
            Self::Open(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Relays(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::NoAdmin | Self::Id { .. } | Self::NotAnId { .. } => Kind::Permanent,
        }
    }
}

/// An opened bunker. It answers while [`run`](Self::run) runs.
#[derive(Debug)]
pub struct Bunker {
    core: Arc<Core>,
    relays: Vec<String>,
    /// Held, so that nobody seals the keys with another secret meanwhile.
    _keyring: Keyring,
}

impl Bunker {
    /// Opens the folder and every key in it.
    ///
    /// # Errors
    /// [`BunkerError`], before anything has started.
    pub async fn open(config: BunkerConfig) -> Result<Self, BunkerError> {
        let BunkerConfig { data_dir, machine_secret_file, relays, admins, clock } = config;
        let keyring = Keyring::open(&data_dir, machine_secret_file.as_deref())?;
        let transport = keyring.load_or_make(TRANSPORT, Purpose::BunkerKey)?;
        let now = clock.now();
        let db = rows::open(&data_dir.join("bunker.db"), now)?;
        let admins: Vec<PubKey> =
            db.write(move |tx| rows::set_admins(tx, &admins, now)).await.map_err(unstored)?;
        if admins.is_empty() {
            return Err(BunkerError::NoAdmin);
        }
        let (keys, clients) = db
            .read(|read| Ok((rows::all(read)?, rows::known_clients(read)?)))
            .await
            .map_err(unstored)?;
        let held = Held::open(keyring.secret(), keys, &clients, &admins);
        let id = PubKey::new(transport.public_key())?;
        write_id(&data_dir, id)?;
        let core = Core::new(db, keyring.secret().clone(), transport, id, held, clock);
        Ok(Self { core: Arc::new(core), relays, _keyring: keyring })
    }

    /// The transport key: authenticates to relays, takes the administrators' requests.
    #[must_use]
    pub fn id(&self) -> PubKey {
        self.core.id
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> BunkerStats {
        self.core.counts.snapshot()
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// [`BunkerError`]: a relay's address is wrong, or the disk failed.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), BunkerError> {
        serve::run(&self.core, &self.relays, &stop).await
    }
}

/// A [`StoreError`] as one of ours; names the type for closures that only read or write.
const fn unstored(error: StoreError) -> BunkerError {
    BunkerError::Store(error)
}

/// Opens a bunker and serves until `stop` is cancelled.
///
/// # Errors
/// [`BunkerError`].
pub async fn serve(config: BunkerConfig, stop: CancellationToken) -> Result<(), BunkerError> {
    Bunker::open(config).await?.run(stop).await
}

fn write_id(data_dir: &Path, id: PubKey) -> Result<(), BunkerError> {
    let path = data_dir.join(ID_FILE);
    fs::write(&path, format!("{}\n", id.npub())).map_err(|source| BunkerError::Id {
        path,
        what: "written",
        source,
    })
}

/// The public key of the bunker whose folder this is, once it was started there.
///
/// # Errors
/// [`BunkerError::Id`], [`BunkerError::NotAnId`].
pub fn read_id(data_dir: &Path) -> Result<Option<PubKey>, BunkerError> {
    let path = data_dir.join(ID_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => PubKey::from_hex_or_npub(text.trim())
            .map(Some)
            .map_err(|_| BunkerError::NotAnId { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BunkerError::Id { path, what: "read", source }),
    }
}
