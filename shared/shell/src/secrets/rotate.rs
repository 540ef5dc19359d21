//! Another machine secret for the same keys.
//!
//! Promise: whatever is cut off, every key opens with one of the two secrets, and both are there:
//! the new one is flushed before the first key is sealed with it, each key is written beside,
//! flushed and renamed, and the old one goes when no key needs it any more. Running it again goes on
//! where it stopped. Nothing changes where a single key opens with neither.
//!
//! A new secret that is handed over lies where whoever hands it over has put it, which may be memory:
//! they keep it on a disk before they begin.
//!
//! States: `machine-secret.next` lies in the folder from the first change to the last. It holds the
//! new secret, or nothing where that is a file of somebody else's.
//!
//! Failure policy: it wants the folder for itself, and [`Keyring::open`](super::Keyring::open)
//! refuses a folder in which a rotation was cut off.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bitspire_shared::sealed::{MachineSecret, NONCE_LEN, Purpose, SealError, Sealed};
use zeroize::Zeroizing;

use super::{
    OWN, SEALED, SecretError, credential_bytes, io_error, random, sync_folder, write_private,
};

/// The new secret, while keys are being sealed with it.
pub(super) const NEXT: &str = "machine-secret.next";

/// A rotation under way; nobody else has the folder while it lives.
#[derive(Debug)]
pub struct Rotation {
    folder: PathBuf,
    /// `None`: erased already, by a run that was cut off.
    old: Option<MachineSecret>,
    new: MachineSecret,
    /// Where the old secret is erased.
    from: Option<PathBuf>,
    /// Whether the new one is a file of somebody else's.
    handed_over: bool,
    _alone: File,
}

impl Rotation {
    /// Begins, or goes on with, a rotation of the keys in `folder` from the secret in the file
    /// `from` to the one in the file `to`. Without `from` it is the folder's own file, which is
    /// erased at the end; without `to` a fresh one that becomes the folder's own file.
    ///
    /// # Errors
    /// [`SecretError`]; nothing has changed then, but for a secret that lies ready.
    pub fn begin(
        folder: &Path,
        from: Option<&Path>,
        to: Option<&Path>,
    ) -> Result<Self, SecretError> {
        let alone = File::open(folder).map_err(|e| io_error(folder, "cannot be opened", e))?;
        match alone.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SecretError::InUse { folder: folder.to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(io_error(folder, "cannot be locked", e)),
        }
        let (own, next) = (folder.join(OWN), folder.join(NEXT));
        let ready = match fs::read(&next) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error(&next, "cannot be read", e)),
        };
        let old_path = from.unwrap_or(&own);
        let old = match credential_bytes(old_path, from.is_some()) {
            Ok(bytes) => Some(secret_of(old_path, &bytes)?),
            Err(SecretError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && ready.is_some() =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        let new = match (to, &ready) {
            (Some(_), Some(ready)) if !ready.is_empty() => {
                return Err(SecretError::OtherRotation { path: next });
            }
            (None, Some(ready)) if ready.is_empty() => {
                return Err(SecretError::OtherRotation { path: next });
            }
            (Some(path), _) => credential_bytes(path, true)?,
            (None, Some(ready)) => ready.clone(),
            (None, None) => Zeroizing::new(random::<32>()?.to_vec()),
        };
        let lies_ready = if to.is_some() { &[][..] } else { new.as_slice() };
        let new = secret_of(to.unwrap_or(&next), &new)?;
        if old.as_ref().is_some_and(|old| old.id() == new.id()) {
            return Err(SecretError::SameSecret);
        }
        let rotation = Self {
            folder: folder.to_owned(),
            old,
            new,
            from: from.is_none().then_some(own),
            handed_over: to.is_some(),
            _alone: alone,
        };
        for path in rotation.sealed()? {
            rotation.sealed_anew(&path)?;
        }
        if let Some(path) = to {
            // whoever wrote it may not have flushed it
            let flushed = File::open(path).and_then(|file| file.sync_all());
            flushed.map_err(|e| io_error(path, "cannot be flushed", e))?;
            sync_folder(path)?;
        }
        if ready.is_none() {
            write_private(&next, lies_ready)?;
        }
        Ok(rotation)
    }

    /// The envelope under the new secret; `None` where it is under that already.
    ///
    /// # Errors
    /// [`SecretError::Seal`]: it opens with neither.
    pub fn reseal(
        &self,
        purpose: Purpose,
        record: &str,
        sealed: &Sealed,
    ) -> Result<Option<Sealed>, SecretError> {
        let failed = |source| SecretError::Seal { path: record.into(), source };
        let plain = match (self.new.open(purpose, record, sealed), &self.old) {
            (Ok(_), _) => return Ok(None),
            (Err(SealError::WrongSecret { .. }), Some(old)) => {
                old.open(purpose, record, sealed).map_err(failed)?
            }
            (Err(error), _) => return Err(failed(error)),
        };
        let nonce = random::<NONCE_LEN>()?;
        self.new.seal(purpose, record, nonce, &plain).map(Some).map_err(failed)
    }

    /// Seals every key of the folder anew and erases the old secret. What else is sealed with it, rows
    /// of a database, goes before.
    ///
    /// # Errors
    /// [`SecretError`]: run it again, as it was run; it goes on where it stopped.
    pub fn finish(self) -> Result<(), SecretError> {
        while self.step()? {}
        Ok(())
    }

    /// Takes one step that is on the disk when it returns; `false` after the last.
    fn step(&self) -> Result<bool, SecretError> {
        for path in self.sealed()? {
            if let Some(sealed) = self.sealed_anew(&path)? {
                write_private(&path, format!("{sealed}\n").as_bytes())?;
                return Ok(true);
            }
        }
        let next = self.folder.join(NEXT);
        match (&self.from, self.handed_over) {
            // the last step: one name for the other
            (Some(own), false) => {
                let old = OpenOptions::new().write(true).open(own);
                fs::rename(&next, own).map_err(|e| io_error(own, "cannot be replaced", e))?;
                sync_folder(own)?;
                match old {
                    Ok(old) => overwrite(old, own)?,
                    Err(e) => return Err(io_error(own, "cannot be erased", e)),
                }
            }
            (None, false) => {
                let own = self.folder.join(OWN);
                fs::rename(&next, &own).map_err(|e| io_error(&own, "cannot be replaced", e))?;
                sync_folder(&own)?;
            }
            (Some(own), true) if own.exists() => {
                let old = OpenOptions::new().write(true).open(own);
                overwrite(old.map_err(|e| io_error(own, "cannot be erased", e))?, own)?;
                fs::remove_file(own).map_err(|e| io_error(own, "cannot be removed", e))?;
                sync_folder(own)?;
                return Ok(true);
            }
            (_, true) => {
                fs::remove_file(&next).map_err(|e| io_error(&next, "cannot be removed", e))?;
                sync_folder(&next)?;
            }
        }
        Ok(false)
    }

    /// The sealed files, in order.
    fn sealed(&self) -> Result<Vec<PathBuf>, SecretError> {
        let failed = |e| io_error(&self.folder, "cannot be listed", e);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == SEALED) {
                all.push(path);
            }
        }
        all.sort();
        Ok(all)
    }

    /// The envelope in this file under the new secret; `None` where it is under that already.
    fn sealed_anew(&self, path: &Path) -> Result<Option<Sealed>, SecretError> {
        let text = fs::read_to_string(path).map_err(|e| io_error(path, "cannot be read", e))?;
        let failed = |source| SecretError::Seal { path: path.to_owned(), source };
        let sealed: Sealed = text.trim_end().parse().map_err(failed)?;
        let name = path.file_stem().map(|name| name.to_string_lossy()).unwrap_or_default();
        self.reseal(sealed.purpose(), &name, &sealed).map_err(|error| match error {
            SecretError::Seal { source, .. } => failed(source),
            other => other,
        })
    }
}

fn secret_of(path: &Path, bytes: &[u8]) -> Result<MachineSecret, SecretError> {
    let secret = MachineSecret::from_slice(bytes);
    secret.map_err(|source| SecretError::Seal { path: path.to_owned(), source })
}

/// Zeros in the place of a secret: what a disk keeps beside, nobody can tell.
fn overwrite(mut file: File, path: &Path) -> Result<(), SecretError> {
    let zeros = file.write_all(&[0; 32]).and_then(|()| file.sync_all());
    zeros.map_err(|e| io_error(path, "cannot be erased", e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nostr::Keys;

    use super::super::Keyring;
    use super::*;

    const NAMES: [&str; 3] = ["vault", "client-a", "pin"];

    fn made(folder: &Path) -> Vec<Keys> {
        let ring = Keyring::open(folder, None).unwrap();
        NAMES.iter().map(|name| ring.make(name, Purpose::VaultKey).unwrap()).collect()
    }

    fn held(folder: &Path, credential: Option<&Path>) -> Vec<Keys> {
        let ring = Keyring::open(folder, credential).unwrap();
        let load = |name: &&str| ring.load(name, Purpose::VaultKey).unwrap().unwrap();
        NAMES.iter().map(load).collect()
    }

    fn secret(path: &Path) -> Option<MachineSecret> {
        fs::read(path).ok().and_then(|bytes| MachineSecret::from_slice(&bytes).ok())
    }

    /// Loss prevented: a power cut in the middle leaves keys that no secret opens: a machine that is
    /// nobody's, an operator without keys.
    #[test]
    fn cut_off_anywhere_every_key_opens_and_the_next_run_ends_it() {
        let elsewhere = tempfile::tempdir().unwrap();
        let handed = elsewhere.path().join("handed");
        write_private(&handed, &[9; 32]).unwrap();
        for to in [None, Some(handed.as_path())] {
            let mut cut = 0;
            loop {
                let folder = tempfile::tempdir().unwrap();
                let (folder, own) = (folder.path(), folder.path().join(OWN));
                let keys = made(folder);
                let old = secret(&own).unwrap();
                let rotation = Rotation::begin(folder, None, to).unwrap();
                let mut more = true;
                for _ in 0..cut {
                    more = more && rotation.step().unwrap();
                }
                drop(rotation);
                if more {
                    // a stop, not another identity
                    let opened = Keyring::open(folder, to);
                    assert!(matches!(opened, Err(SecretError::Rotating { .. })), "cut {cut}");
                    let there = [Some(old.clone()), secret(&folder.join(NEXT)), secret(&handed)];
                    for name in NAMES {
                        let text = fs::read_to_string(folder.join(format!("{name}.sealed")));
                        let sealed: Sealed = text.unwrap().trim_end().parse().unwrap();
                        let opens = |secret: &MachineSecret| {
                            secret.open(Purpose::VaultKey, name, &sealed).is_ok()
                        };
                        assert!(there.iter().flatten().any(opens), "cut {cut}: {name}");
                    }
                    Rotation::begin(folder, None, to).unwrap().finish().unwrap();
                }
                assert_eq!(held(folder, to), keys, "cut {cut}");
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                    assert_eq!(mode, 0o600, "{}", path.display());
                    // nothing opens with the old one, which is gone
                    if let Ok(sealed) =
                        fs::read_to_string(&path).unwrap_or_default().trim_end().parse()
                    {
                        let name = path.file_stem().unwrap().to_str().unwrap();
                        assert!(old.open(Purpose::VaultKey, name, &sealed).is_err());
                    }
                }
                let now = secret(&own);
                assert_eq!(now.is_some(), to.is_none(), "cut {cut}");
                assert!(now.is_none_or(|now| now.id() != old.id()));
                assert!(!folder.join(NEXT).exists());
                if !more {
                    assert!(cut > NAMES.len(), "{cut}");
                    break;
                }
                cut += 1;
            }
        }
    }

    /// Loss prevented: keys sealed under a running process, which goes on with the old secret; a
    /// half of the keys under a secret, when one key opens with none.
    #[test]
    fn nothing_changes_where_it_cannot_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let keys = made(folder);
        let running = Keyring::open(folder, None).unwrap();
        let refused = Rotation::begin(folder, None, None);
        assert!(matches!(refused, Err(SecretError::InUse { .. })), "{refused:?}");
        drop(running);
        let own = folder.join(OWN);
        let same = Rotation::begin(folder, None, Some(&own));
        assert!(matches!(same, Err(SecretError::SameSecret)), "{same:?}");
        let stranger = MachineSecret::from_slice(&[5; 32]).unwrap();
        let sealed = stranger.seal(Purpose::VaultKey, "odd", [1; NONCE_LEN], b"x").unwrap();
        let odd = folder.join("odd.sealed");
        fs::write(&odd, sealed.to_string()).unwrap();
        let refused = Rotation::begin(folder, None, None);
        assert!(matches!(&refused, Err(SecretError::Seal { path, .. }) if *path == odd));
        drop(refused);
        assert!(!folder.join(NEXT).exists());
        fs::remove_file(odd).unwrap();
        assert_eq!(held(folder, None), keys);
        // one that was cut off is ended as it was begun
        drop(Rotation::begin(folder, None, None).unwrap());
        let elsewhere = tempfile::tempdir().unwrap();
        let handed = elsewhere.path().join("handed");
        write_private(&handed, &[9; 32]).unwrap();
        let other = Rotation::begin(folder, None, Some(&handed));
        assert!(matches!(other, Err(SecretError::OtherRotation { .. })), "{other:?}");
        drop(other);
        Rotation::begin(folder, None, None).unwrap().finish().unwrap();
        assert_eq!(held(folder, None), keys);
    }
}
