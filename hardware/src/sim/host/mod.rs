//! A simulated device behind a pseudo-terminal, or at the end of a cable, for programs that open a
//! serial port.
//!
//! Promise: one thread owns device and line and sleeps until bytes, a request or the device's
//! own wake-up time come; dropping the [`Host`] ends it and removes its link. `{"action":"unplug"}`
//! takes the terminal away (the program sees a lost port), `{"action":"plug"}` gives a new one, as
//! an adapter that comes back under another name; everything else goes to the device.
//!
//! Failure policy: each error says what to do ([`HostError`]); a request that the device refuses
//! changes nothing ([`SimError`]).

mod end;
mod http;
mod pty;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bitspire_shared::time::Mono;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use thiserror::Error;

use self::end::{End, Place};
pub use self::http::Http;
use super::{SimDevice, SimError};
use crate::engine::LineSettings;
use crate::port::OpenError;

/// Requests that may wait for the device's thread.
const QUEUE: usize = 64;

/// Why a simulator cannot be served.
#[derive(Debug, Error)]
pub enum HostError {
    /// The system gave no pseudo-terminal.
    #[error("no pseudo-terminal could be opened: is /dev/ptmx there, are there too many?")]
    Pty(#[source] io::Error),
    /// The link could not be made.
    #[error("{}: the link cannot be made: give --link another name", link.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The real port cannot be opened.
    #[error(transparent)]
    Port(OpenError),
    /// The control address is not one of this machine alone.
    #[error("{addr}: expected a loopback address with a port, such as 127.0.0.1:0")]
    NotLoopback {
        /// What was given.
        addr: String,
    },
    /// The control address cannot be listened on.
    #[error("{addr}: cannot be listened on: is it in use? port 0 finds a free one")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system gave no thread.
    #[error("no thread could be started")]
    Thread(#[source] io::Error),
}

impl HostError {
    fn pty(error: nix::Error) -> Self {
        Self::Pty(error.into())
    }
}

/// Why a request to a running simulator was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// The device refused it.
    #[error(transparent)]
    Refused(#[from] SimError),
    /// The simulator has ended.
    #[error("the simulator has ended: start it again")]
    Ended,
}

enum Ask {
    Control(Value, SyncSender<Result<Value, SimError>>),
    Counters(SyncSender<Value>),
    Path(SyncSender<Option<PathBuf>>),
    Stop,
}

/// A running simulator; dropping it ends it.
pub struct Host {
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

/// Asks a running simulator; for threads beside its owner.
#[derive(Clone)]
pub struct Remote {
    asks: SyncSender<Ask>,
    bell: Arc<Mutex<UnixStream>>,
}

impl Host {
    /// Serves `device` on a new pseudo-terminal, with a symbolic link to it if one is wanted.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn start(device: Box<dyn SimDevice>, link: Option<&Path>) -> Result<Self, HostError> {
        Self::serve(device, Place::Pty(link.map(Path::to_owned)))
    }

    /// Serves `device` on a real port, at the other end of a cable: `line` is the device's.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn on_port(
        device: Box<dyn SimDevice>,
        path: &Path,
        line: LineSettings,
    ) -> Result<Self, HostError> {
        Self::serve(device, Place::Port(path.to_owned(), line))
    }

    fn serve(device: Box<dyn SimDevice>, place: Place) -> Result<Self, HostError> {
        let end = place.open()?;
        let (bell, rung) = UnixStream::pair().map_err(HostError::Thread)?;
        for end in [&bell, &rung] {
            end.set_nonblocking(true).map_err(HostError::Thread)?;
        }
        let (asks, asked) = mpsc::sync_channel(QUEUE);
        let serving = Serving { device, end: Some(end), place, asked, rung, epoch: Instant::now() };
        let thread = thread::Builder::new()
            .name("simulator".to_owned())
            .spawn(move || serving.run())
            .map_err(HostError::Thread)?;
        let remote = Remote { asks, bell: Arc::new(Mutex::new(bell)) };
        Ok(Self { remote, thread: Some(thread) })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }
}

impl std::ops::Deref for Host {
    type Target = Remote;
    fn deref(&self) -> &Remote {
        &self.remote
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // an error means that its thread has ended already
        let _ = self.remote.put(Ask::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the simulator's thread has panicked");
        }
    }
}

impl Remote {
    /// Does something to the device, as [`SimDevice::control`]; `unplug` and `plug` beside it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn control(&self, action: Value) -> Result<Value, ControlError> {
        Ok(self.ask(|answer| Ask::Control(action, answer))??)
    }

    /// Where every note is; `port` is the terminal's name, or null while it is unplugged.
    ///
    /// # Errors
    /// [`ControlError::Ended`].
    pub fn counters(&self) -> Result<Value, ControlError> {
        self.ask(Ask::Counters)
    }

    /// The name of the host's end; `None` while it is unplugged.
    ///
    /// # Errors
    /// [`ControlError::Ended`].
    pub fn path(&self) -> Result<Option<PathBuf>, ControlError> {
        self.ask(Ask::Path)
    }

    fn ask<T>(&self, ask: impl FnOnce(SyncSender<T>) -> Ask) -> Result<T, ControlError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.put(ask(answer))?;
        answered.recv().map_err(|_| ControlError::Ended)
    }

    fn put(&self, ask: Ask) -> Result<(), ControlError> {
        self.asks.send(ask).map_err(|_| ControlError::Ended)?;
        // a bell that cannot take another byte has been rung
        let _ = self.bell.lock().unwrap_or_else(PoisonError::into_inner).write(&[1]);
        Ok(())
    }
}

struct Serving {
    device: Box<dyn SimDevice>,
    end: Option<End>,
    place: Place,
    asked: Receiver<Ask>,
    rung: UnixStream,
    epoch: Instant,
}

impl Serving {
    fn run(mut self) {
        loop {
            let asks: Vec<_> = self.asked.try_iter().collect();
            for ask in asks {
                if !self.answer(ask) {
                    return;
                }
            }
            if self.device.wake_at().is_some_and(|at| at <= self.now()) {
                let bytes = self.device.on_tick(self.now());
                self.write(&bytes);
            }
            if let Err(error) = self.wait() {
                tracing::error!("the simulator's line failed: {error}");
                self.end = None;
            }
        }
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Sleeps until something is there, and gives the device what the host has written.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = match self.device.wake_at() {
            None => PollTimeout::NONE,
            // one more, since a part of a millisecond is cut off
            Some(at) => {
                let ms = at.since(self.now()).saturating_add(1);
                PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
            }
        };
        let bell = PollFd::new(self.rung.as_fd(), PollFlags::POLLIN);
        let terminal = self.end.as_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<_> = [Some(bell), terminal].into_iter().flatten().collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        drop(fds);
        let mut rings = [0u8; 64];
        // empty is what it is most of the time
        let _ = self.rung.read(&mut rings);
        let Some(end) = &mut self.end else { return Ok(()) };
        let bytes = end.read()?;
        if !bytes.is_empty() {
            let answer = self.device.on_bytes(&bytes, self.now());
            self.write(&answer);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(end) = self.end.as_mut().filter(|_| !bytes.is_empty())
            && let Err(error) = end.write(bytes)
        {
            tracing::error!("the simulator's line failed: {error}");
            self.end = None;
        }
    }

    /// Whether to go on. An asker that has gone needs no answer.
    fn answer(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Stop => return false,
            Ask::Path(to) => {
                let _ = to.send(self.path().map(Path::to_owned));
            }
            Ask::Counters(to) => {
                let mut counters = self.device.counters();
                if let Some(fields) = counters.as_object_mut() {
                    let port = self.path().map(|path| path.display().to_string());
                    fields.insert("port".to_owned(), json!(port));
                    fields.insert("now_ms".to_owned(), json!(self.now().0));
                }
                let _ = to.send(counters);
            }
            Ask::Control(action, to) => {
                let _ = to.send(self.control(&action));
            }
        }
        true
    }

    fn path(&self) -> Option<&Path> {
        self.end.as_ref().map(End::path)
    }

    fn control(&mut self, action: &Value) -> Result<Value, SimError> {
        match action.get("action").and_then(Value::as_str) {
            Some("unplug") => {
                self.end.take().ok_or_else(|| SimError::State("it is unplugged".to_owned()))?;
                Ok(json!({}))
            }
            Some("plug") => {
                if self.end.is_some() {
                    return Err(SimError::State("it is plugged in".to_owned()));
                }
                let end = self.place.open().map_err(|error| SimError::State(error.to_string()))?;
                let port = json!({ "port": end.path().display().to_string() });
                self.end = Some(end);
                Ok(port)
            }
            _ => self.device.control(action, self.now()),
        }
    }
}
