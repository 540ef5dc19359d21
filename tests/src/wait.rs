//! Waiting for a state of another process, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a step of the world may take on a busy computer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at another process, which has no way to ring.
const LOOK: Duration = Duration::from_millis(10);

/// Asks until there is an answer; `look` says what it saw instead.
///
/// # Errors
/// After `within`: what was waited for and what was last seen.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!("{what}: not within {} s; last seen: {seen}", within.as_secs())
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}
