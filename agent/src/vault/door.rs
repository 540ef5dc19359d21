//! The door of the machine.
//!
//! Promise: each opening and closing that is seen is one entry of the journal, and is told to the
//! operator; while the door stands open nothing new is sold, and what is under way ends as ever. A
//! door that was opened while the vault was down is noticed at its start. A change counts once two
//! looks at the switch agree: a contact bounces.
//!
//! States: unknown (no switch, or none that can be read) -> closed <-> open.
//!
//! Failure policy: a switch that cannot be read is an alert and stops nothing: whoever cuts its wire
//! must not close the shop, and whoever has the machine open has its notes already. It closes none
//! where the door was last seen open either, for as long as it cannot be read.

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

/// What the switch said, beside what is on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Switch {
    /// Another state than the one on record, seen once.
    changed_to: Option<bool>,
    /// Whether it could not be read when last looked at.
    unread: bool,
}

impl Vault {
    /// Whether it stands open, as far as anybody knows.
    pub(super) fn door_is_open(&self) -> bool {
        let open = self.config.door.is_some() && self.door.is_some_and(|door| door.open);
        open && !self.switch.unread
    }

    /// Looks at the switch.
    pub(super) fn look_at_door(&mut self) -> Result<(), VaultError> {
        let Some(config) = &self.config.door else { return Ok(()) };
        let said = match self.host.door(&config.path) {
            Ok(said) => said,
            Err(error) => {
                if !self.switch.unread {
                    self.reports.soon(self.mono());
                }
                self.switch = Switch { changed_to: None, unread: true };
                // once, until it changes or an hour has gone by
                self.raise("door_unknown", format!("its switch cannot be read: {error}"));
                return Ok(());
            }
        };
        let open = said.trim() == config.open;
        if std::mem::take(&mut self.switch.unread) {
            self.reports.soon(self.mono());
        }
        if self.door.is_some_and(|door| door.open == open) {
            self.switch.changed_to = None;
            return Ok(());
        }
        if self.switch.changed_to.replace(open) != Some(open) {
            return Ok(());
        }
        self.switch.changed_to = None;
        let first = self.door.is_none();
        let door = Door { open, at: self.now().unix };
        self.keep(&door)?;
        self.door = Some(door);
        match (open, self.service.is_inside()) {
            (true, true) => self.raise_anew("door_opened", "in service mode".to_owned()),
            (true, false) => {
                self.raise_anew("door_opened", "nobody was in service mode".to_owned());
            }
            (false, _) if first => {}
            (false, _) => self.raise_anew("door_closed", "it stood open".to_owned()),
        }
        self.reports.soon(self.mono());
        Ok(())
    }
}
