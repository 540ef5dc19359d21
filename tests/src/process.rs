//! One part of the world as a process that can be killed and started again.
//!
//! Promise: what it prints to standard output is read until its ready line and kept, with what it
//! logs, in files of its own; dropping it ends it.
//!
//! States: down -> up (after its ready line) -> down (killed, stopped, or ended by itself).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{PATIENCE, wait_for};

/// How much of a log an error shows.
const TAIL: usize = 30;

/// Where a program finds the places at which it dies.
const DEADLY: &str = "FAILPOINTS";

/// A part of the world.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
    child: Option<Child>,
    said: Vec<String>,
    deadly: Option<String>,
}

impl Process {
    /// `program` with `arguments`; its output goes to `NAME.out` and `NAME.log` in `folder`.
    #[must_use]
    pub fn new(
        name: &'static str,
        program: &Path,
        arguments: Vec<OsString>,
        folder: &Path,
    ) -> Self {
        let (program, folder) = (program.to_owned(), folder.to_owned());
        let (child, said, deadly) = (None, Vec::new(), None);
        Self { name, program, arguments, folder, child, said, deadly }
    }

    /// From its next start on it dies when it reaches this place (see `bitspire_shell::crash`) after
    /// having passed it so many times; or nowhere any more.
    pub fn dies_at(&mut self, place: Option<(&str, u32)>) {
        self.deadly = place.map(|(place, passes)| match passes {
            0 => format!("{place}=return"),
            _ => format!("{place}={passes}*off->return"),
        });
    }

    /// From its next start on it panics with these words when it reaches this place.
    pub fn panics_at(&mut self, place: &str, words: &str) {
        self.deadly = Some(format!("{place}=panic({words})"));
    }

    /// Starts it and waits for a line that is `ready` or begins with it.
    ///
    /// # Errors
    /// When it ends before, or says nothing in time: with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// Likewise, with further arguments this time only.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(&mut self, more: &[&str]) -> Result<()> {
        let lines = self.spawn(more)?;
        self.said.clear();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    let ready = line.split(' ').next() == Some("ready");
                    self.said.push(line);
                    if ready {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{}", self.trouble("is not ready in time")),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{}", self.trouble("ended before it was ready"))
                }
            }
        }
    }

    /// Starts it and waits until `ready` says so, for a program that prints no ready line.
    ///
    /// # Errors
    /// When it ends before, or is not ready in time: with the end of its log.
    pub fn start_until(&mut self, mut ready: impl FnMut() -> Result<()>) -> Result<()> {
        self.spawn(&[])?;
        let up = wait_for("ready", PATIENCE, || match self.running() {
            false => Ok(false),
            true => ready().map(|()| true).map_err(|error| format!("{error:#}")),
        });
        match up {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{}", self.trouble("ended before it was ready")),
            Err(late) => Err(late.context(self.trouble("is not ready in time"))),
        }
    }

    /// Starts it; the lines that it prints come from the receiver and go to its file.
    fn spawn(&mut self, more: &[&str]) -> Result<Receiver<String>> {
        if self.running() {
            bail!("{} runs already", self.name);
        }
        let append = |ending| {
            let path = self.file(ending);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("{}: cannot be written", path.display()))
        };
        let (mut copy, log): (File, File) = (append("out")?, append("log")?);
        let mut command = Command::new(&self.program);
        match &self.deadly {
            Some(deadly) => command.env(DEADLY, deadly),
            None => command.env_remove(DEADLY),
        };
        let mut child = command
            .args(&self.arguments)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}: cannot be started", self.program.display()))?;
        let out = child.stdout.take().context("the output was asked for")?;
        self.child = Some(child);
        let (tell, lines) = mpsc::channel();
        // ends with the process; it reads on so that the process never waits for its reader
        thread::Builder::new().name(format!("{} output", self.name)).spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = writeln!(copy, "{line}");
                let _ = tell.send(line);
            }
        })?;
        Ok(lines)
    }

    /// What follows `word` in the line that began with it, before or in the ready line.
    ///
    /// # Errors
    /// When it said no such thing.
    pub fn told(&self, word: &str) -> Result<&str> {
        let mut lines = self.said.iter();
        lines
            .find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
            .with_context(|| format!("{} did not tell its {word}: {:?}", self.name, self.said))
    }

    /// Its name in errors and file names.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its process id while it runs.
    pub fn id(&mut self) -> Option<u32> {
        self.running().then(|| self.child.as_ref().map(Child::id)).flatten()
    }

    /// Whether it runs.
    pub fn running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it as a power cut would: SIGKILL, nothing is told to it.
    ///
    /// # Errors
    /// When it did not run, or ended in another way.
    pub fn kill9(&mut self) -> Result<()> {
        let status = self.end(Signal::SIGKILL)?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            bail!("{}", self.trouble(&format!("had ended by itself: {status}")));
        }
        Ok(())
    }

    /// Collects it after it died at `place`.
    ///
    /// # Errors
    /// When it goes on, or ended in another way or elsewhere.
    pub fn died_at(&mut self, place: &str) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let status = wait_for(self.name, PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })?;
        let said = fs::read_to_string(self.file("log")).unwrap_or_default();
        let there = said.lines().next_back() == Some(&format!("crash point {place}"));
        if status.signal() != Some(Signal::SIGABRT as i32) || !there {
            bail!("{}", self.trouble(&format!("did not die at {place}: {status}")));
        }
        Ok(())
    }

    /// Ends it as a service manager does.
    ///
    /// # Errors
    /// When it did not run, or its end was not good.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.end(Signal::SIGTERM)?;
        if !status.success() {
            bail!("{}", self.trouble(&format!("did not stop well: {status}")));
        }
        Ok(())
    }

    /// Holds it still for a while, as a computer that is out of breath does: it keeps its files and
    /// its connections and does nothing. It goes on by itself.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freezes(&mut self, lasts: Duration) -> Result<Frozen> {
        let id = self.id().with_context(|| format!("{} does not run", self.name))?;
        let id = Pid::from_raw(id.try_into()?);
        kill(id, Signal::SIGSTOP)?;
        let (thaw, thawed) = mpsc::channel::<()>();
        // whoever froze it may wait for an answer of it meanwhile
        let waits = thread::Builder::new().name(format!("{} frozen", self.name)).spawn(move || {
            // early where the guard is dropped
            let _ = thawed.recv_timeout(lasts);
            // one that was killed meanwhile is not collected before the guard is gone
            let _ = kill(id, Signal::SIGCONT);
        });
        match waits {
            Ok(waits) => Ok(Frozen { thaw: Some(thaw), waits: Some(waits) }),
            Err(error) => {
                kill(id, Signal::SIGCONT)?;
                Err(error.into())
            }
        }
    }

    /// Waits until it has ended by itself; its exit code, none after a signal.
    ///
    /// # Errors
    /// When it goes on, or did not run.
    pub fn ends(&mut self) -> Result<Option<i32>> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        let ended = wait_for(self.name, PATIENCE, || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        self.child = ended.is_err().then_some(child);
        ended
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        // one that has ended is collected below, with its own status
        let _ = kill(Pid::from_raw(child.id().try_into()?), signal);
        Ok(child.wait()?)
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.name))
    }

    /// What happened to it, with the end of what it said and logged.
    #[must_use]
    pub fn trouble(&self, what: &str) -> String {
        let tail = |ending| {
            let text = fs::read_to_string(self.file(ending)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        };
        format!("{} {what}\n{}\n{}", self.name, tail("out"), tail("log"))
    }
}

/// A process that is held still; it goes on when its time is over or this is dropped.
#[derive(Debug)]
pub struct Frozen {
    thaw: Option<Sender<()>>,
    waits: Option<JoinHandle<()>>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw = None;
        // it only waits and sends a signal
        let _ = self.waits.take().map(JoinHandle::join);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it has ended already where all went well
        let _ = self.end(Signal::SIGKILL);
    }
}
