//! Other people's packages, installed as their lock file says, without any script of theirs, into the
//! folder for tests' files. Node and npm have to be there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is ours: which versions, and what they are made to do.
const FILES: [&str; 5] =
    ["package.json", "package-lock.json", "clients.mjs", "backend.mjs", "clink.mjs"];

/// The folder with our scripts and their packages.
pub(crate) fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/tests/bunker/npm");
    let lock = std::fs::read(source.join("package-lock.json")).unwrap();
    let mark = folder.join("installed-by");
    let same = std::fs::read(&mark).is_ok_and(|before| before == lock);
    for file in FILES {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    if !same {
        // it gives up by itself where the registry does not answer
        let install =
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-timeout=60000"];
        let done = Command::new("npm").args(install).current_dir(&folder).output();
        let done = done.unwrap_or_else(|error| panic!("npm: {error}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::write(&mark, lock).unwrap();
    }
    folder
}
