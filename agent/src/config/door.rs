//! The door switch's part of the configuration.

use std::path::PathBuf;

use bitspire_shell::config::ConfigError;

use super::{RawDoor, wrong};

/// A switch at the machine's door, as a file that holds one word: a GPIO line of Linux
/// (`/sys/class/gpio/gpio17/value`), or whatever else writes such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    /// The file.
    pub path: PathBuf,
    /// What it holds while the door is open; anything else means closed.
    pub open: String,
}

/// What a GPIO line shows while its switch is open, with a pull-up.
const OPEN: &str = "1";

pub(super) fn checked(raw: &RawDoor) -> Result<DoorConfig, ConfigError> {
    let (key, expected) = ("vault.door.path", "the file's whole path, like /sys/class/gpio/...");
    if !raw.path.starts_with('/') {
        return Err(wrong(key, expected, format!("{:?}", raw.path)));
    }
    let open = raw.open.as_deref().unwrap_or(OPEN).trim();
    if open.is_empty() {
        return Err(wrong("vault.door.open", "the word of an open door, like 1", "nothing"));
    }
    Ok(DoorConfig { path: PathBuf::from(&raw.path), open: open.to_owned() })
}
