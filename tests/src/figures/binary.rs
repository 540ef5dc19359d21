//! The size of the machine's program, as it is shipped: release profile, stripped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Figure;

/// Megabytes that a machine's program may have.
const BAR_MB: f64 = 10.0;

/// A place to die at: no program that is shipped has one.
const PLACE: &[u8] = b"journal.before_flush";

pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = std::fs::read(agent_program()?)?;
    if program.windows(PLACE.len()).any(|window| window == PLACE) {
        bail!("the machine's program has places to die at: it was built with crash-points");
    }
    let value = f64::from(u32::try_from(program.len())?) / 1_000_000.0;
    let (name, unit, bound_is) = ("agent_binary_mb", "MB", "the bar for a machine's program");
    Ok(vec![Figure { name, value, unit, bound: BAR_MB, bound_is, peer: None, runs: 1 }])
}

/// Builds the machine's program as it is shipped; where it is.
pub(super) fn agent_program() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "-p", "bitspire-agent", "--bin", "bitspire-agent"])
        .args(["--message-format", "json"])
        .current_dir(root)
        .output()
        .context("cargo cannot be started")?;
    if !built.status.success() {
        bail!("the agent does not build: {}", String::from_utf8_lossy(&built.stderr));
    }
    let messages = String::from_utf8(built.stdout)?;
    let mut files = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let file = message["executable"].as_str()?;
        (message["target"]["name"] == "bitspire-agent").then(|| file.to_owned())
    });
    let file = files.next().context("cargo names no program called bitspire-agent")?;
    Ok(PathBuf::from(file))
}
