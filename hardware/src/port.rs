//! Runs an engine behind a line.
//!
//! Promise: two threads a device. The reader waits on the line and puts what comes into the
//! device's inbox; the engine's thread owns engine and writing half and sleeps until bytes, a
//! command or the engine's own wake-up time come: nothing polls. Dropping the [`Device`] ends both
//! threads. A lost line is opened again, by the same path, for as long as the device is wanted.
//!
//! Failure policy: a line that cannot be opened or is lost is the engine's to report
//! ([`Engine::on_link_down`] with the reason in words); it is opened again with backoff, 250 ms to
//! 10 s. The inbox is bounded: bytes past 4096 and commands past 64 are refused, counted and logged.

mod inbox;
mod lp;
mod serial;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::time::Mono;
use thiserror::Error;

use crate::Authority;
use crate::acceptor::{Acceptor, AcceptorCommand};
use crate::dispenser::{Dispenser, DispenserCommand};
use crate::engine::{Engine, LineSettings, Output};
use crate::printer::{Printer, PrinterCommand};
use crate::recycler::{Recycler, RecyclerCommand};
use crate::trace::{self, Direction, Trace};
use inbox::{Inbox, Refused};
pub use lp::open_lp;
pub(crate) use serial::SerialEnd;
pub use serial::open_serial;

/// First wait before a lost line is opened again.
const BACKOFF_FIRST_MS: u64 = 250;
/// Longest wait between two attempts.
const BACKOFF_LAST_MS: u64 = 10_000;

/// The device's thread takes no more commands: it has ended, or is stuck with a full inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the device's thread takes no commands, nothing was sent: open the device again")]
pub struct PortClosed;

impl Classified for PortClosed {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Why a line could not be opened, and what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Nothing has this name.
    #[error(
        "{port}: no such device: plug it in, or correct the port's name (names under \
         /dev/serial/by-path stay the same over a restart)"
    )]
    NotFound {
        /// The port's name.
        port: String,
    },
    /// We may not.
    #[error("{port}: permission denied: add this program's user to the group that owns the port")]
    Permission {
        /// The port's name.
        port: String,
    },
    /// Somebody else has it.
    #[error("{port}: in use by another program: stop it (a second agent? a modem manager?)")]
    Busy {
        /// The port's name.
        port: String,
    },
    /// Something else has this name.
    #[error("{port}: not a serial port: correct the port's name")]
    NotSerial {
        /// The port's name.
        port: String,
    },
    /// The driver took the settings and did something else.
    #[error(
        "{port}: the line has {what} {got}, expected {expected}: this adapter cannot speak the \
         protocol, use another"
    )]
    Settings {
        /// The port's name.
        port: String,
        /// Which setting.
        what: &'static str,
        /// What the protocol needs.
        expected: String,
        /// What was read back.
        got: String,
    },
    /// Anything else.
    #[error("{port}: cannot be opened")]
    Io {
        /// The port's name.
        port: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Classified for OpenError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::Busy { .. } | Self::Io { .. } => Kind::Transient,
            Self::Permission { .. } | Self::NotSerial { .. } | Self::Settings { .. } => {
                Kind::Permanent
            }
        }
    }
}

/// An open line in two halves.
pub struct Link {
    /// What the device says. A read must return when the line is hung up, or else within about a
    /// second even if nothing comes (`TimedOut` or `WouldBlock`), so that the device can be stopped.
    pub reader: Box<dyn Read + Send>,
    /// What the device is told.
    pub writer: Box<dyn Write + Send>,
    /// Makes a waiting read return at once, for lines that can do that.
    pub hang_up: Option<Box<dyn FnOnce() + Send>>,
}

/// Opens the line, at first and after each loss.
pub type Opener = Box<dyn FnMut(LineSettings) -> Result<Link, OpenError> + Send>;

/// Opens the serial port of this path each time.
#[must_use]
pub fn serial(path: &str) -> Opener {
    let path = path.to_owned();
    Box::new(move |line| open_serial(&path, line))
}

/// Opens the USB printer port of this path each time.
#[must_use]
pub fn lp(path: &str) -> Opener {
    let path = path.to_owned();
    Box::new(move |_| open_lp(&path))
}

/// A device that runs; dropping it ends both its threads.
pub struct Device<C> {
    inbox: Arc<Inbox<C>>,
    trace: Arc<Trace>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Send + 'static> Device<C> {
    /// Starts the engine behind a line; `name` stands in logs. A line that cannot be opened yet is
    /// no error here: the engine reports it as an event and the line is tried again.
    ///
    /// `sink` gets the events, in order, on the engine's thread: it must not wait for this device.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<E: Engine<Command = C>>(
        name: &str,
        engine: E,
        opener: Opener,
        sink: Box<dyn FnMut(E::Event) + Send>,
    ) -> io::Result<Self> {
        let inbox = Arc::new(Inbox::new(name));
        let trace = Arc::new(Trace::new(name, trace::RECORDS, E::in_words));
        let runner = Runner {
            name: name.to_owned(),
            engine,
            opener,
            sink,
            inbox: Arc::clone(&inbox),
            trace: Arc::clone(&trace),
            epoch: Instant::now(),
            wake_at: None,
            line: Line::Down { retry_at: Mono(0), wait_ms: BACKOFF_FIRST_MS },
            link_number: 0,
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || runner.run())?;
        Ok(Self { inbox, trace, thread: Some(thread) })
    }

    /// Gives the engine a command; never waits.
    ///
    /// # Errors
    /// [`PortClosed`].
    pub fn send(&self, command: C) -> Result<(), PortClosed> {
        self.inbox.command(command).map_err(|Refused| PortClosed)
    }

    /// The last frames.
    #[must_use]
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// Bytes and commands that the full inbox refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inbox.refused()
    }
}

impl<C> Drop for Device<C> {
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // the sink may drop its own device: a thread cannot wait for itself
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a device's thread has panicked");
            }
        }
    }
}

impl Printer for Device<PrinterCommand> {
    fn send(&mut self, command: PrinterCommand) -> Result<(), PortClosed> {
        Self::send(self, command)
    }

    fn frames(&self) -> Vec<String> {
        self.trace.lines()
    }
}

impl<A: Authority> Acceptor<A> for Device<AcceptorCommand<A>> {
    fn send(&mut self, command: AcceptorCommand<A>) -> Result<(), PortClosed> {
        Device::send(self, command)
    }

    fn frames(&self) -> Vec<String> {
        self.trace.lines()
    }
}

impl<A: Authority> Dispenser<A> for Device<DispenserCommand<A>> {
    fn send(&mut self, command: DispenserCommand<A>) -> Result<(), PortClosed> {
        Device::send(self, command)
    }

    fn frames(&self) -> Vec<String> {
        self.trace.lines()
    }
}

impl<A: Authority> Recycler<A> for Device<RecyclerCommand<A>> {
    fn send(&mut self, command: RecyclerCommand<A>) -> Result<(), PortClosed> {
        Device::send(self, command)
    }

    fn frames(&self) -> Vec<String> {
        self.trace.lines()
    }
}

enum Line {
    Up {
        writer: Box<dyn Write + Send>,
        hang_up: Option<Box<dyn FnOnce() + Send>>,
        reader: JoinHandle<()>,
    },
    Down {
        retry_at: Mono,
        wait_ms: u64,
    },
}

struct Runner<E: Engine> {
    name: String,
    engine: E,
    opener: Opener,
    sink: Box<dyn FnMut(E::Event) + Send>,
    inbox: Arc<Inbox<E::Command>>,
    trace: Arc<Trace>,
    epoch: Instant,
    wake_at: Option<Mono>,
    line: Line,
    /// Number of the link whose bytes count; a reader of an older one is not heard.
    link_number: u64,
}

impl<E: Engine> Runner<E> {
    fn run(mut self) {
        let mut bytes = Vec::new();
        self.connect(true);
        loop {
            let due = [self.wake_at, self.retry_at()].into_iter().flatten().min();
            let wait = due.map(|due| Duration::from_millis(due.since(self.now())));
            let taken = self.inbox.take(wait, &mut bytes);
            if taken.stop {
                break;
            }
            if !bytes.is_empty() {
                let now = self.now();
                self.trace.record(
                    Direction::Received,
                    &E::traced(Direction::Received, &bytes),
                    now,
                );
                let output = self.engine.on_bytes(&bytes, now);
                self.apply(output);
            }
            if let Some(why) = taken.lost {
                self.lost(&why);
            }
            for command in taken.commands {
                let output = self.engine.command(command, self.now());
                self.apply(output);
            }
            if self.wake_at.is_some_and(|at| at <= self.now()) {
                self.wake_at = None;
                let output = self.engine.on_tick(self.now());
                self.apply(output);
            }
            if self.retry_at().is_some_and(|at| at <= self.now()) {
                self.connect(false);
            }
        }
        self.close();
        self.inbox.end();
    }

    fn now(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn retry_at(&self) -> Option<Mono> {
        match self.line {
            Line::Up { .. } => None,
            Line::Down { retry_at, .. } => Some(retry_at),
        }
    }

    fn apply(&mut self, output: Output<E::Event>) {
        let Output { write, events, wake_at } = output;
        self.wake_at = wake_at;
        let mut failed = None;
        if let (Line::Up { writer, .. }, false) = (&mut self.line, write.is_empty()) {
            failed = writer.write_all(&write).err();
            self.trace.record(Direction::Sent, &E::traced(Direction::Sent, &write), self.now());
        }
        for event in events {
            if E::is_fault(&event) {
                self.trace.dump("a fault");
            }
            (self.sink)(event);
        }
        if let Some(error) = failed {
            self.lost(&format!("write failed: {error}"));
        }
    }

    fn connect(&mut self, first: bool) {
        let Line::Down { wait_ms, .. } = self.line else { return };
        let opened = (self.opener)(self.engine.line()).and_then(|link| self.start_reader(link));
        match opened {
            Ok(line) => {
                self.line = line;
                tracing::info!(device = %self.name, "line open");
                let output = self.engine.on_link_up(self.now());
                self.apply(output);
            }
            Err(error) => {
                let why = in_words(&error);
                tracing::warn!(device = %self.name, retry_ms = wait_ms, "{why}");
                self.line = Line::Down {
                    retry_at: self.now().after(wait_ms),
                    wait_ms: wait_ms.saturating_mul(2).min(BACKOFF_LAST_MS),
                };
                if first {
                    let output = self.engine.on_link_down(&why, self.now());
                    self.apply(output);
                }
            }
        }
    }

    fn start_reader(&mut self, link: Link) -> Result<Line, OpenError> {
        let Link { reader, writer, hang_up } = link;
        self.link_number = self.inbox.new_link();
        let (inbox, number) = (Arc::clone(&self.inbox), self.link_number);
        let reader = thread::Builder::new()
            .name(format!("{} reader", self.name))
            .spawn(move || read_until_lost(reader, &inbox, number))
            .map_err(|source| OpenError::Io { port: self.name.clone(), source })?;
        Ok(Line::Up { writer, hang_up, reader })
    }

    fn lost(&mut self, why: &str) {
        if matches!(self.line, Line::Down { .. }) {
            return;
        }
        tracing::warn!(device = %self.name, "line lost: {why}");
        self.trace.dump("the line was lost");
        self.close();
        let output = self.engine.on_link_down(why, self.now());
        self.apply(output);
    }

    /// Ends the reader and lets go of the port, so that it can be opened again.
    fn close(&mut self) {
        let down = Line::Down {
            retry_at: self.now().after(BACKOFF_FIRST_MS),
            wait_ms: BACKOFF_FIRST_MS.saturating_mul(2),
        };
        if let Line::Up { writer, hang_up, reader } = std::mem::replace(&mut self.line, down) {
            self.inbox.new_link();
            drop(writer);
            if let Some(hang_up) = hang_up {
                hang_up();
            }
            if reader.join().is_err() {
                tracing::error!(device = %self.name, "the reader's thread has panicked");
            }
        }
    }
}

fn read_until_lost<C>(mut reader: Box<dyn Read + Send>, inbox: &Inbox<C>, link: u64) {
    let mut buffer = [0u8; 512];
    while inbox.is_current(link) {
        match reader.read(&mut buffer) {
            Ok(0) => return inbox.lost(link, "the device's side has hung up".to_owned()),
            Ok(n) => inbox.bytes(link, buffer.get(..n).unwrap_or_default()),
            Err(e) if is_only_waiting(&e) => {}
            Err(e) => return inbox.lost(link, format!("read failed: {e}")),
        }
    }
}

fn is_only_waiting(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn in_words(error: &OpenError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
