//! What a vault that could not go on has to say, for whoever is left to say it.
//!
//! Promise: a vault that ends for a reason leaves it in the runtime folder, which is no disk; the
//! next one takes it away once it may trade. `net` shows it meanwhile, so that people in front of
//! the machine read that it is out of service, and why, and not that it is starting.
//!
//! Failure policy: a word that cannot be written is in the log all the same.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// For the screen: what is wrong, what to do.
    pub reasons: Vec<String>,
}

impl LastWord {
    /// Leaves it at `path`.
    pub fn leave(&self, path: &Path) {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let text = serde_json::to_vec(self).unwrap_or_default();
        // not flushed: it need not outlive this boot, and a disk that does not flush is a reason
        // for the group, too: `net` may be a user of its own
        let left = fs::write(&beside, text)
            .and_then(|()| fs::set_permissions(&beside, fs::Permissions::from_mode(0o640)))
            .and_then(|()| fs::rename(&beside, path));
        if let Err(error) = left {
            tracing::error!(event = "last_word_not_left", %error);
        }
    }

    /// The word at `path`, if there is one.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Takes it away.
    pub fn forget(path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(event = "last_word_stays", %error);
            }
            _ => {}
        }
    }
}
