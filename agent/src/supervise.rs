//! Runs the machine's two processes as children of one: for development and small set-ups, where
//! no service manager does it.
//!
//! Promise: a child that ends is started again with backoff; a signal to stop reaches both, and
//! this process ends when both have.
//!
//! Failure policy: a child that cannot be started is tried again; one that does not end in time is
//! killed, which the journal is made for.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The exit code of a vault that cannot use its journal.
pub const JOURNAL_EXIT: u8 = 3;

/// First and longest wait before a child is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A child that has run so long starts with the first wait again.
const STEADY: Duration = Duration::from_secs(60);
/// How long children may take to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// One program that is kept running.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in logs.
    pub name: &'static str,
    /// What is executed.
    pub executable: PathBuf,
    /// With which arguments.
    pub arguments: Vec<OsString>,
}

struct Kept {
    program: Program,
    child: Option<Child>,
    started: Instant,
    wait: Duration,
}

/// Keeps `programs` running until `stop`, then ends them.
///
/// # Errors
/// Where the system does not tell of children that end.
pub async fn run(programs: Vec<Program>, stop: CancellationToken) -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    let now = Instant::now();
    let keep = |program| Kept { program, child: None, started: now, wait: Duration::ZERO };
    let mut all: Vec<Kept> = programs.into_iter().map(keep).collect();
    while !stop.is_cancelled() {
        for kept in &mut all {
            kept.look();
        }
        let due = all.iter().filter(|kept| kept.child.is_none());
        let due = due.map(|kept| kept.started + kept.wait).min();
        tokio::select! {
            () = stop.cancelled() => {}
            _ = ended.recv() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
    for kept in &all {
        kept.tell(Signal::SIGTERM);
    }
    let last = Instant::now() + PATIENCE;
    while all.iter_mut().any(Kept::runs) {
        tokio::select! {
            _ = ended.recv() => {}
            () = sleep_until(last) => break,
        }
    }
    for kept in &mut all {
        if let Some(child) = &mut kept.child {
            tracing::error!(event = "child_killed", child = kept.program.name);
            child.kill()?;
            child.wait()?;
        }
    }
    Ok(())
}

impl Kept {
    /// Whether the child is there; one that has ended is collected.
    fn runs(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                tracing::warn!(event = "child_ended", child = self.program.name, %status);
                if status.code() == Some(JOURNAL_EXIT.into()) {
                    tracing::error!(
                        event = "journal_cannot_be_used",
                        "nothing is sold and no note moves: look at the vault's last lines and at \
                         the disk, then at `bitspire-agent journal verify`; it is tried again"
                    );
                }
                self.child = None;
                false
            }
            Err(error) => {
                tracing::error!(event = "child_lost", child = self.program.name, %error);
                self.child = None;
                false
            }
        }
    }

    /// Starts the child if it is not there and its wait is over.
    fn look(&mut self) {
        let ran = self.child.is_some();
        if self.runs() {
            return;
        }
        if ran {
            let steady = self.started.elapsed() >= STEADY;
            let next = (self.wait * 2).clamp(BACKOFF.0, BACKOFF.1);
            self.wait = if steady { BACKOFF.0 } else { next };
            self.started = Instant::now();
        }
        if Instant::now() < self.started + self.wait {
            return;
        }
        let Program { name, executable, arguments } = &self.program;
        match Command::new(executable).args(arguments).spawn() {
            Ok(child) => {
                tracing::info!(event = "child_started", child = name, pid = child.id());
                self.child = Some(child);
            }
            Err(error) => {
                tracing::error!(event = "child_not_started", child = name, %error);
                self.wait = (self.wait * 2).clamp(BACKOFF.0, BACKOFF.1);
            }
        }
        self.started = Instant::now();
    }

    fn tell(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            tracing::warn!(event = "child_not_told", child = self.program.name, %error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(name: &'static str, script: String) -> Program {
        let arguments = ["-c".into(), script.into()].to_vec();
        Program { name, executable: "/bin/sh".into(), arguments }
    }

    async fn lines(path: &Path, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{text:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Loss prevented: a machine that stands still because one of its processes died at night.
    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_a_stop_reaches_it() {
        let folder = tempfile::tempdir().unwrap();
        let (starts, ends) = (folder.path().join("starts"), folder.path().join("ends"));
        let dies = shell("dies", format!("echo x >> {}", starts.display()));
        let ends_at = ends.display();
        let script = format!(
            "trap 'echo bye >> {ends_at}; kill $!; exit 0' TERM; echo up >> {ends_at}; \
             sleep 600 & wait"
        );
        let stays = shell("stays", script);
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(vec![dies, stays], stop.clone()));
        lines(&starts, 2).await;
        lines(&ends, 1).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&ends).unwrap(), "up\nbye\n");
    }
}
