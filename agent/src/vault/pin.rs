//! The PIN of service mode: set at pairing, changed by whoever knows it.
//!
//! Promise: what is kept of it is an Argon2id hash, sealed in the vault's folder: never in the
//! journal, in a log or in the clear. Each try is on the disk before it is looked at.
//!
//! Failure policy: a machine without one has no service mode. One that was forgotten is replaced on
//! the machine itself, by whoever may write in the vault's folder.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use bitspire_shared::sealed::Purpose;
use bitspire_shell::secrets::{Keyring, SecretError};
use zeroize::Zeroizing;

use super::VaultError;
use super::core::Vault;
use super::server::PeerId;
use crate::ipc::{SecretText, ToNet};
use crate::policy::pin::{Locked, check_new};

/// The name of the sealed file.
const NAME: &str = "service-pin";

/// The hash of the PIN, as it is kept.
pub(super) struct Pin(Zeroizing<String>);

impl Pin {
    /// As it lies in the vault's folder, if it was ever set.
    pub(super) fn load(ring: &Keyring) -> Result<Option<Self>, SecretError> {
        let Some(bytes) = ring.open_bytes(NAME, Purpose::ServicePin)? else { return Ok(None) };
        Ok(Some(Self(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))))
    }

    fn is(&self, typed: &str) -> bool {
        let hash = PasswordHash::new(&self.0);
        hash.is_ok_and(|hash| Argon2::default().verify_password(typed.as_bytes(), &hash).is_ok())
    }

    /// Hashes and seals a new one.
    fn make(ring: &Keyring, new: &str, salt: &[u8; 16]) -> Result<Self, VaultError> {
        let salt = SaltString::encode_b64(salt).map_err(VaultError::Pin)?;
        let hash = Argon2::default().hash_password(new.as_bytes(), &salt);
        let text = Zeroizing::new(hash.map_err(VaultError::Pin)?.to_string());
        ring.seal_bytes(NAME, Purpose::ServicePin, text.as_bytes())?;
        Ok(Self(text))
    }
}

impl Vault {
    /// Whether this is the PIN; a machine without one has none that is right.
    pub(super) fn try_pin(&mut self, typed: &str) -> Result<Result<bool, Locked>, VaultError> {
        if self.pin.is_none() {
            return Ok(Ok(false));
        }
        let now = self.mono();
        match self.pin_tries.begin(now) {
            Ok(kept) => drop(self.keep(&kept)?),
            Err(locked) => return Ok(Err(locked)),
        }
        let right = self.pin.as_ref().is_some_and(|pin| pin.is(typed));
        if right {
            let kept = self.pin_tries.right();
            self.keep(&kept)?;
        } else if self.pin_tries.wrong(self.mono()) {
            self.pin_is_locked();
        }
        Ok(Ok(right))
    }

    /// Tells the operator.
    pub(super) fn pin_is_locked(&mut self) {
        let words = "five wrong PINs in a row: service mode is locked for 15 minutes";
        self.raise("service_pin_locked", words.to_owned());
    }

    /// Somebody sets the PIN, or changes it.
    pub(super) fn set_pin(
        &mut self,
        from: PeerId,
        new: &SecretText,
        old: Option<&SecretText>,
    ) -> Result<(), VaultError> {
        let refused = match self.may_set_pin(new, old)? {
            Ok(()) => {
                let salt = self.random()?;
                self.pin = Some(Pin::make(&self.ring, new.expose(), &salt)?);
                let kept = self.pin_tries.right();
                self.keep(&kept)?;
                self.end_service();
                tracing::info!(event = "service_pin_set");
                None
            }
            Err(why) => {
                tracing::warn!(event = "service_pin_refused", why);
                Some(why)
            }
        };
        self.peers.send(from, ToNet::ServicePin { refused });
        Ok(())
    }

    fn may_set_pin(
        &mut self,
        new: &SecretText,
        old: Option<&SecretText>,
    ) -> Result<Result<(), String>, VaultError> {
        if let Err(weak) = check_new(new.expose()) {
            return Ok(Err(weak.to_string()));
        }
        // until the operator has confirmed the first pairing, whoever sets the machine up is at work
        if self.pairing.as_ref().is_none_or(|pairing| !pairing.was_confirmed()) {
            return Ok(Ok(()));
        }
        let Some(old) = old else {
            return Ok(Err(match self.pin {
                Some(_) => "expected the PIN that is set now as well".to_owned(),
                None => "this machine is in service and has no PIN: stop the vault and run \
                         `bitspire-agent service-pin --forgotten` as its user"
                    .to_owned(),
            }));
        };
        Ok(match self.try_pin(old.expose())? {
            Ok(true) => Ok(()),
            Ok(false) => Err("the PIN that is set now is another one".to_owned()),
            Err(locked) => Err(locked.to_string()),
        })
    }
}

/// Sets the PIN in the folder of a vault that does not run: for one that was forgotten. Whoever may
/// write there has everything that the vault has.
///
/// # Errors
/// [`VaultError`]; also where the vault runs.
pub fn replace_pin(config: &crate::config::Config, new: &SecretText) -> Result<(), VaultError> {
    let config = &config.vault;
    let ring = Keyring::open(&config.dir, config.machine_secret_file.as_deref())?;
    // the lock of a running vault refuses this
    let _journal = crate::journal::hold(&config.journal())?;
    let salt = bitspire_shell::secrets::random()?;
    Pin::make(&ring, new.expose(), &salt).map(drop)
}
