//! The machine secret and the keys that are sealed with it.
//!
//! Promise: no private key lies on the disk in the clear. The machine secret is a credential file
//! of 32 bytes, handed over by the service manager or made at the first start with mode 0600; each
//! key is a sealed file of its own, written beside, flushed and renamed.
//!
//! Failure policy: a wrong, missing or readable-by-others secret is a clear stop, never a silent
//! new identity: a secret is made only where nothing sealed lies beside it yet.

pub mod audit;
mod rotate;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::sealed::{MachineSecret, NONCE_LEN, Purpose, SealError, Sealed};
use nostr::Keys;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::rotate::Rotation;

/// Why a secret cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file system refused.
    #[error("{path}: {what}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The secret is not there, but keys that were sealed with it are.
    #[error(
        "{path}: expected the machine secret, found none, but {sealed} was sealed with it; restore \
         the secret, or remove the sealed files and pair again"
    )]
    Missing {
        /// Where the secret should be.
        path: PathBuf,
        /// A file that needs it.
        sealed: PathBuf,
    },
    /// Others may read it.
    #[error(
        "{path}: expected mode 0600, got {mode:04o}; run chmod 600 and think about who read it"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not open what it should.
    #[error("{path}: does not open")]
    Seal {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// What was opened is no private key.
    #[error("{path}: expected a private key of 32 bytes inside")]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// Another process works with these keys.
    #[error("{folder}: its keys are in use; stop the process that uses them, then try again")]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A change of the machine secret was cut off.
    #[error(
        "{path}: a rotation of the machine secret was cut off, or runs; run `secrets rotate` again, \
         as it was run: it goes on where it stopped, and every key is still there"
    )]
    Rotating {
        /// What lies there until it ends.
        path: PathBuf,
    },
    /// One rotation was cut off and another was asked for.
    #[error(
        "{path}: another rotation was cut off; end it first: with --to if it had one, else without"
    )]
    OtherRotation {
        /// What lies there until it ends.
        path: PathBuf,
    },
    /// The new secret is the old one.
    #[error("expected another machine secret than the one in use, got the same")]
    SameSecret,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(getrandom::Error),
}

impl Classified for SecretError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Fresh random bytes of the operating system.
///
/// # Errors
/// [`SecretError::Random`]; nothing that needs them may go on.
pub fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    Ok(bytes)
}

/// A secret text that a file holds, handed over by the service manager or kept with mode 0600; without
/// the line's end.
///
/// # Errors
/// [`SecretError::Exposed`] where others may read it; [`SecretError::Io`].
pub fn credential(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let metadata = fs::metadata(path).map_err(|e| io_error(path, "cannot be looked at", e))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FOREIGN_TO_A_CREDENTIAL != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|e| io_error(path, "cannot be read", e))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// systemd hands credentials over by an ACL, and the mask of an ACL shows where the group's bits are.
const FOREIGN_TO_A_CREDENTIAL: u32 = 0o037;

/// A folder of sealed keys and the secret that opens them.
#[derive(Clone, Debug)]
pub struct Keyring {
    folder: PathBuf,
    secret: MachineSecret,
    /// Held shared: whoever seals with another secret wants the folder for itself.
    _in_use: Arc<File>,
}

/// The folder's own secret, where no credential is named.
const OWN: &str = "machine-secret";

/// Ending of a sealed file.
const SEALED: &str = "sealed";

impl Keyring {
    /// Opens the keys in `folder` with the secret in `credential`, or in `folder/machine-secret`
    /// where no credential is named; that one is made if nothing was sealed yet.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn open(folder: &Path, credential: Option<&Path>) -> Result<Self, SecretError> {
        // databases beside the keys hold bearer secrets: nobody else has to look in here
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| io_error(folder, "cannot make the folder", e))?;
        let in_use = File::open(folder).map_err(|e| io_error(folder, "cannot be opened", e))?;
        let next = folder.join(rotate::NEXT);
        match in_use.try_lock_shared() {
            Ok(()) if next.exists() => return Err(SecretError::Rotating { path: next }),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SecretError::Rotating { path: next }),
            Err(TryLockError::Error(e)) => return Err(io_error(folder, "cannot be locked", e)),
        }
        let own = folder.join(OWN);
        let path = credential.unwrap_or(&own);
        let secret = match credential_bytes(path, credential.is_some()) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if let Some(sealed) = first_sealed(folder)? {
                    return Err(SecretError::Missing { path: path.to_owned(), sealed });
                }
                if credential.is_some() {
                    return Err(io_error(path, "the credential is not there", source));
                }
                let fresh = Zeroizing::new(random::<32>()?);
                write_private(path, fresh.as_slice())?;
                Zeroizing::new(fresh.to_vec())
            }
            read => read?,
        };
        let secret = MachineSecret::from_slice(&secret)
            .map_err(|source| SecretError::Seal { path: path.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), secret, _in_use: Arc::new(in_use) })
    }

    /// The secret, to seal rows of a database with.
    #[must_use]
    pub const fn secret(&self) -> &MachineSecret {
        &self.secret
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{SEALED}"))
    }

    /// The key sealed as `name`, if there is one.
    ///
    /// # Errors
    /// [`SecretError`]: it is there but does not open.
    pub fn load(&self, name: &str, purpose: Purpose) -> Result<Option<Keys>, SecretError> {
        let Some(plain) = self.open_bytes(name, purpose)? else { return Ok(None) };
        let key = nostr::SecretKey::from_slice(&plain);
        let key = key.map_err(|_| SecretError::NotAKey { path: self.path(name) })?;
        Ok(Some(Keys::new(key)))
    }

    /// The bytes sealed as `name`, if there are any.
    ///
    /// # Errors
    /// [`SecretError`]: they are there but do not open.
    pub fn open_bytes(
        &self,
        name: &str,
        purpose: Purpose,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SecretError> {
        let path = self.path(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path, "cannot be read", e)),
        };
        let seal_error = |source| SecretError::Seal { path: path.clone(), source };
        let sealed: Sealed = text.trim_end().parse().map_err(seal_error)?;
        self.secret.open(purpose, name, &sealed).map(Some).map_err(seal_error)
    }

    /// Seals bytes as `name`; earlier ones of that name are replaced.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn seal_bytes(
        &self,
        name: &str,
        purpose: Purpose,
        plain: &[u8],
    ) -> Result<(), SecretError> {
        let path = self.path(name);
        let nonce = random::<NONCE_LEN>()?;
        let sealed = self.secret.seal(purpose, name, nonce, plain);
        let sealed = sealed.map_err(|source| SecretError::Seal { path: path.clone(), source })?;
        write_private(&path, format!("{sealed}\n").as_bytes())
    }

    /// Makes a fresh key, seals it as `name` and returns it once it is on the disk; an earlier one
    /// of that name is replaced.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn make(&self, name: &str, purpose: Purpose) -> Result<Keys, SecretError> {
        let keys = loop {
            // all but one in 2^128 texts of 32 bytes are a key
            if let Ok(key) =
                nostr::SecretKey::from_slice(Zeroizing::new(random::<32>()?).as_slice())
            {
                break Keys::new(key);
            }
        };
        let plain = Zeroizing::new(keys.secret_key().to_secret_bytes());
        self.seal_bytes(name, purpose, plain.as_slice())?;
        Ok(keys)
    }

    /// Forgets the key sealed as `name`, if there is one.
    ///
    /// # Errors
    /// [`SecretError::Io`].
    pub fn forget(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_error(&path, "cannot be removed", e))
            }
            _ => Ok(()),
        }
    }

    /// The key sealed as `name`, made now if there is none.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn load_or_make(&self, name: &str, purpose: Purpose) -> Result<Keys, SecretError> {
        match self.load(name, purpose)? {
            Some(keys) => Ok(keys),
            None => self.make(name, purpose),
        }
    }
}

/// A machine secret's bytes; `handed_over` by a service manager, or a file of ours.
fn credential_bytes(path: &Path, handed_over: bool) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let metadata = fs::metadata(path).map_err(|e| io_error(path, "cannot be looked at", e))?;
    let mode = metadata.permissions().mode() & 0o777;
    let foreign = if handed_over { FOREIGN_TO_A_CREDENTIAL } else { 0o077 };
    if mode & foreign != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    fs::read(path).map(Zeroizing::new).map_err(|e| io_error(path, "cannot be read", e))
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> SecretError {
    SecretError::Io { path: path.to_owned(), what, source }
}

fn first_sealed(folder: &Path) -> Result<Option<PathBuf>, SecretError> {
    let failed = |e| io_error(folder, "cannot be listed", e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == SEALED) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Writes a file that only its owner may read so that it is there whole, or as it was before.
///
/// # Errors
/// [`SecretError::Io`]; also when somebody else writes the same file right now.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), SecretError> {
    let failed = |e| io_error(path, "cannot be written", e);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // what lies there, from a crash or by somebody's hand, may have other permissions or be a link
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    sync_folder(path)
}

/// Flushes the folder that `path` is in: what its name stands for is on the disk then.
fn sync_folder(path: &Path) -> Result<(), SecretError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")));
    folder.and_then(|folder| folder.sync_all()).map_err(|e| io_error(path, "cannot be flushed", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a restart that gives the machine a new identity, so that the operator
    /// refuses it with customers' money in flight.
    #[test]
    fn a_key_survives_a_restart_and_lies_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let made = Keyring::open(folder.path(), None)
            .unwrap()
            .load_or_make("vault", Purpose::VaultKey)
            .unwrap();
        let ring = Keyring::open(folder.path(), None).unwrap();
        assert_eq!(ring.load_or_make("vault", Purpose::VaultKey).unwrap(), made);
        let other = ring.make("other", Purpose::VaultKey).unwrap();
        ring.forget("other").unwrap();
        ring.forget("other").unwrap();
        assert_ne!(ring.load_or_make("other", Purpose::VaultKey).unwrap(), other);
        let secret = made.secret_key().to_secret_hex();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&secret), "{}", path.display());
            assert!(!bytes.windows(32).any(|w| w == made.secret_key().to_secret_bytes()));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// Loss prevented: a lost secret that is silently replaced, with every sealed key gone.
    #[test]
    fn a_missing_or_wrong_secret_stops_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ring = Keyring::open(folder.path(), None).unwrap();
        ring.make("vault", Purpose::VaultKey).unwrap();
        let secret = folder.path().join("machine-secret");
        fs::remove_file(&secret).unwrap();
        assert!(matches!(Keyring::open(folder.path(), None), Err(SecretError::Missing { .. })));
        assert!(!secret.exists());
        write_private(&secret, &[7; 32]).unwrap();
        let ring = Keyring::open(folder.path(), None).unwrap();
        let refused = ring.load_or_make("vault", Purpose::VaultKey);
        assert!(matches!(refused, Err(SecretError::Seal { .. })), "{refused:?}");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        let exposed = Keyring::open(folder.path(), None);
        assert!(matches!(exposed, Err(SecretError::Exposed { mode: 0o644, .. })));
    }

    /// Loss prevented: a wallet's key that everybody on the computer can read.
    #[test]
    fn a_credential_is_read_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, b"word\n").unwrap();
        assert_eq!(*credential(&path).unwrap(), "word");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = credential(&path);
        assert!(matches!(refused, Err(SecretError::Exposed { mode: 0o644, .. })), "{refused:?}");
        let refused = credential(&folder.path().join("none"));
        assert!(matches!(refused, Err(SecretError::Io { .. })), "{refused:?}");
    }

    /// Loss prevented: a credential that the service manager did not hand over is made up instead.
    #[test]
    fn a_named_credential_is_never_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("credential");
        let refused = Keyring::open(folder.path(), Some(&named));
        assert!(matches!(refused, Err(SecretError::Io { .. })), "{refused:?}");
        assert!(!named.exists() && !folder.path().join("machine-secret").exists());
    }

    /// Loss prevented: the service does not start with a credential that is as safe as can be, or
    /// does with one that everybody can read.
    #[test]
    fn a_credential_may_be_read_by_way_of_an_acl_only() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, named) = (folder.path().join("keys"), folder.path().join("credential"));
        fs::write(&named, [7; 32]).unwrap();
        for (mode, good) in
            [(0o400, true), (0o440, true), (0o444, false), (0o460, false), (0o600, true)]
        {
            fs::set_permissions(&named, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Keyring::open(&keys, Some(&named)).is_ok(), good, "{mode:o}");
        }
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
    }

    /// Loss prevented: a secret that lands in a file of somebody else's choice, or in one that
    /// everybody may read, because a file lay ready.
    #[test]
    fn what_lies_ready_is_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ready) = (folder.path().join("a.key"), folder.path().join("a.key.new"));
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "theirs").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &ready).unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        fs::write(&ready, "").unwrap();
        fs::set_permissions(&ready, fs::Permissions::from_mode(0o666)).unwrap();
        write_private(&path, b"secret").unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"secret");
    }
}
