//! The door of the machine.
//!
//! Promise: each opening and closing that is seen is one entry of the journal, and is told to the
//! operator; while the door stands open nothing new is sold, and what is under way ends as ever. A
//! door that was opened while the vault was down is noticed at its start.
//!
//! States: unknown (no switch, or none that can be read) -> closed <-> open.
//!
//! Failure policy: a switch that cannot be read is an alert and stops nothing: whoever cuts its wire
//! must not close the shop, and whoever has the machine open has its notes already.

use bitspire_shared::time::Unix;
use serde::{Deserialize, Serialize};

use super::VaultError;
use super::core::Vault;
use super::settings::Setting;

/// How the door was when last seen to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Door {
    pub(super) open: bool,
    at: Unix,
}

impl Setting for Door {
    const KEY: &'static str = "door";
}

impl Vault {
    /// Whether it stands open, as far as anybody knows.
    pub(super) fn door_is_open(&self) -> bool {
        self.config.door.is_some() && self.door.is_some_and(|door| door.open)
    }

    /// Looks at the switch.
    pub(super) fn look_at_door(&mut self) -> Result<(), VaultError> {
        let Some(config) = &self.config.door else { return Ok(()) };
        let said = match self.host.door(&config.path) {
            Ok(said) => said,
            Err(error) => {
                // once, until it changes or an hour has gone by
                self.raise("door_unknown", format!("its switch cannot be read: {error}"));
                return Ok(());
            }
        };
        let open = said.trim() == config.open;
        if self.door.is_some_and(|door| door.open == open) {
            return Ok(());
        }
        let first = self.door.is_none();
        let door = Door { open, at: self.now().unix };
        self.keep(&door)?;
        self.door = Some(door);
        match (open, self.service.is_inside()) {
            (true, true) => self.raise("door_opened", "in service mode".to_owned()),
            (true, false) => {
                self.raise("door_opened", "nobody was in service mode".to_owned());
            }
            (false, _) if first => {}
            (false, _) => self.raise("door_closed", "it stood open".to_owned()),
        }
        self.reports.soon(self.mono());
        Ok(())
    }
}
