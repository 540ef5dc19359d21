//! What is told of a secret at rest: where it lies, how it is kept, and what is wrong with that.
//!
//! Promise: nothing is opened or repeated.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How a secret is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// Encrypted with the machine secret.
    Sealed,
    /// In the clear, for its owner alone.
    Clear,
    /// As hashes, of which nothing can be made.
    Hashed,
    /// No secret is in it.
    None,
    /// Nobody knows.
    Unknown,
}

impl Kept {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Clear => "clear",
            Self::Hashed => "hashed",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// The file.
    pub file: PathBuf,
    /// What is in it.
    pub what: String,
    /// How it is kept.
    pub kept: Kept,
    /// Its permission bits, in octal.
    pub mode: String,
    /// What is wrong with it.
    pub finding: Option<String>,
}

/// Permission bits that nobody but the owner may have on a file that a service manager hands over.
pub const HANDED_OVER: u32 = super::FOREIGN_TO_A_CREDENTIAL;
/// The same for a file of ours.
pub const OURS: u32 = 0o077;

impl Secret {
    /// A file, its mode held against bits that nobody but its owner may have.
    #[must_use]
    pub fn at(path: &Path, what: String, kept: Kept, foreign: u32) -> Self {
        let (mode, finding) = match fs::metadata(path) {
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o777;
                // the folder keeps others out of what a database writes beside itself
                let shut = path.parent().and_then(|folder| fs::metadata(folder).ok());
                let shut = shut.is_some_and(|folder| folder.permissions().mode() & OURS == 0);
                let open = mode & foreign != 0 && !shut;
                let finding = open.then(|| "others may read it: chmod 600".to_owned());
                (format!("{mode:04o}"), finding)
            }
            Err(error) => ("-".to_owned(), Some(format!("cannot be looked at: {error}"))),
        };
        Self { file: path.to_owned(), what, kept, mode, finding }
    }
}
