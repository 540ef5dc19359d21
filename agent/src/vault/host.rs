//! What the vault lives in: its clock, chance, its devices, and whoever brings it events.
//!
//! Promise: all that the vault's one thread reads of the world, but for its own files, comes through
//! [`Host`]; so the very same vault runs as a process and, step by step, in virtual time.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bitspire_hardware::acceptor::ccnet::{self, Ccnet};
use bitspire_hardware::acceptor::ebds::{self, Ebds};
use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::acceptor::{Acceptor, AcceptorEvent};
use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::puloon::Puloon;
use bitspire_hardware::dispenser::{Dispenser, DispenserEvent};
use bitspire_hardware::frame::ebds::PowerUpPolicy;
use bitspire_hardware::frame::ssp::cipher::{FixedKey, Primes, Seed};
use bitspire_hardware::port::{Device, lp, serial};
use bitspire_hardware::printer::escpos::EscPos;
use bitspire_hardware::printer::{Printer, PrinterEvent};
use bitspire_hardware::recycler::ccnet_b2b::CcnetB2b;
use bitspire_hardware::recycler::id003_rc::{self, Id003Rc};
use bitspire_hardware::recycler::smart_payout::{self, SmartPayout};
use bitspire_hardware::recycler::{Recycler, RecyclerEvent};
use bitspire_shared::ids::JournalSeq;
use bitspire_shared::money::Currency;
use bitspire_shared::time::Mono;
use bitspire_shell::secrets::{SecretError, random};

use super::server::PeerId;
use super::wire::Wire;
use super::{Peer, VaultError};
use crate::config::{
    AcceptorConfig, AcceptorKind, DispenserConfig, PrinterConfig, PrinterPort, RecyclerConfig,
    RecyclerKind,
};
use crate::ipc::ToVault;
use crate::journal::{ByJournal, JournalError, Verified, verify_file};
use crate::txn::Txn;

/// Bits a second of a CCNET validator that is not set otherwise.
const CCNET_BAUD: u32 = 9_600;
/// Bits a second of an ID-003 device that is not set otherwise.
const ID003_BAUD: u32 = 9_600;
/// The same of an EBDS device.
const EBDS_BAUD: u32 = 9_600;
/// The same of an SSP device.
const SSP_BAUD: u32 = 9_600;

/// What happens to the vault.
pub enum Event {
    /// A device says something.
    Acceptor(AcceptorEvent),
    /// Likewise.
    Dispenser(DispenserEvent),
    /// Likewise, of what neither a validator nor a dispenser says.
    Recycler(RecyclerEvent),
    /// Likewise.
    Printer(PrinterEvent),
    /// Somebody connected and said who it is.
    Joined(PeerId, Peer),
    /// Somebody said something.
    Said(PeerId, Box<ToVault>),
    /// A connection ended.
    Gone(PeerId),
    /// The whole journal was looked through.
    Inspected(Result<Verified, JournalError>),
    /// The process is to end.
    Stop,
}

impl From<RecyclerEvent> for Event {
    /// A recycler speaks as the validator and as the dispenser that it is.
    fn from(event: RecyclerEvent) -> Self {
        match event {
            RecyclerEvent::In(event) => Self::Acceptor(event),
            RecyclerEvent::Out(event) => Self::Dispenser(event),
            other => Self::Recycler(other),
        }
    }
}

/// What the vault waits for.
pub enum Next {
    /// This happened.
    Event(Event),
    /// Nothing happened until then.
    Due,
    /// The power is gone: nothing more is done. Only a simulation says so.
    Halt,
}

/// Where in the doing of an effect the vault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// Nothing of it was done.
    Before,
    /// Its record is on the disk, and nothing else of it was done.
    Recorded,
    /// It was done, as far as the vault does it: a device was told.
    After,
}

/// Where the power may go.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In the doing of an effect.
    Effect {
        /// The transaction as it will be after the effect.
        txn: &'a Txn,
        /// The effect's [name](crate::txn::Effect::name).
        effect: &'static str,
        /// Where in it.
        point: Point,
    },
    /// An entry is on the disk; nothing that follows it was done.
    Flushed(JournalSeq),
}

/// What the vault lives in.
pub trait Host {
    /// Milliseconds on a clock that never goes back, from about the vault's start.
    fn mono(&self) -> Mono;

    /// Fills `bytes` at random, from a source that is good for secrets.
    ///
    /// # Errors
    /// [`SecretError`]; nothing that needs them may go on.
    fn random(&mut self, bytes: &mut [u8]) -> Result<(), SecretError>;

    /// Opens the note validator; what it says is an [`Event::Acceptor`].
    ///
    /// # Errors
    /// [`VaultError::Device`].
    fn acceptor(
        &mut self,
        config: &AcceptorConfig,
        currency: Currency,
    ) -> Result<Box<dyn Acceptor<ByJournal>>, VaultError>;

    /// Opens the dispenser; what it says is an [`Event::Dispenser`].
    ///
    /// # Errors
    /// [`VaultError::Device`].
    fn dispenser(
        &mut self,
        config: &DispenserConfig,
        currency: Currency,
    ) -> Result<Box<dyn Dispenser<ByJournal>>, VaultError>;

    /// Opens the recycler; what it says is an [`Event`] of one of its two sides, or an
    /// [`Event::Recycler`].
    ///
    /// # Errors
    /// [`VaultError::Device`].
    fn recycler(
        &mut self,
        config: &RecyclerConfig,
        currency: Currency,
    ) -> Result<Box<dyn Recycler<ByJournal>>, VaultError>;

    /// Opens the receipt printer; what it says is an [`Event::Printer`].
    ///
    /// # Errors
    /// [`VaultError::Device`].
    fn printer(&mut self, config: &PrinterConfig) -> Result<Box<dyn Printer>, VaultError>;

    /// What the file of the door's switch holds.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn door(&mut self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    /// Waits for the next event until then; what has come already is given at once.
    fn next(&mut self, until: Mono) -> Next;

    /// Begins to look the journal through, beside the trade; [`Event::Inspected`] follows.
    ///
    /// # Errors
    /// Where that cannot be begun.
    fn inspect(&mut self, journal: &Path) -> io::Result<()>;

    /// The vault is there; `false` ends it, as if its power went.
    fn reached(&mut self, place: Place<'_>) -> bool {
        let _ = place;
        true
    }
}

/// The machine itself: serial ports, a queue that threads fill, the system's clock and chance.
pub(super) struct Process {
    epoch: Instant,
    sender: SyncSender<Event>,
    /// Given up first of all: whoever waits to put something in is let go, so that its thread ends.
    events: Option<Receiver<Event>>,
    inspection: Option<JoinHandle<()>>,
    wire: Wire,
}

impl Process {
    pub(super) fn new(sender: SyncSender<Event>, events: Receiver<Event>) -> Self {
        let (epoch, wire) = (Instant::now(), Wire::default());
        Self { epoch, sender, events: Some(events), inspection: None, wire }
    }

    fn end_inspection(&mut self) {
        if self.inspection.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's check has panicked");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.events = None;
        self.end_inspection();
    }
}

impl Host for Process {
    fn mono(&self) -> Mono {
        Mono(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&mut self, bytes: &mut [u8]) -> Result<(), SecretError> {
        for chunk in bytes.chunks_mut(32) {
            let fresh: [u8; 32] = random()?;
            for (to, from) in chunk.iter_mut().zip(fresh) {
                *to = from;
            }
        }
        Ok(())
    }

    fn acceptor(
        &mut self,
        config: &AcceptorConfig,
        currency: Currency,
    ) -> Result<Box<dyn Acceptor<ByJournal>>, VaultError> {
        let events = self.sender.clone();
        // a vault that has ended takes no events
        let sink = Box::new(move |event| drop(events.send(Event::Acceptor(event))));
        let name = "acceptor";
        let line = self.wire.line(name, serial(&config.path));
        Ok(match config.kind {
            AcceptorKind::Ccnet => {
                let baud = config.baud.unwrap_or(CCNET_BAUD);
                let engine = Ccnet::<ByJournal>::new(ccnet::Settings { currency, baud });
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
            AcceptorKind::Id003 => {
                let baud = config.baud.unwrap_or(ID003_BAUD);
                let engine = Id003::<ByJournal>::new(Settings { currency, baud });
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
            AcceptorKind::Ebds => {
                let (baud, policy) = (config.baud.unwrap_or(EBDS_BAUD), PowerUpPolicy::B);
                let settings = ebds::Settings { currency, baud, policy };
                let engine = Ebds::<ByJournal>::new(settings);
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
        })
    }

    fn dispenser(
        &mut self,
        config: &DispenserConfig,
        currency: Currency,
    ) -> Result<Box<dyn Dispenser<ByJournal>>, VaultError> {
        let events = self.sender.clone();
        // a vault that has ended takes no events
        let sink = Box::new(move |event| drop(events.send(Event::Dispenser(event))));
        let name = "dispenser";
        let line = self.wire.line(name, serial(&config.path));
        Ok(match config.kind.lcdm() {
            None => {
                let engine = F56::<ByJournal>::new(currency);
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
            Some(model) => {
                let engine = Puloon::<ByJournal>::new(config.lcdm(model, currency));
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
        })
    }

    fn recycler(
        &mut self,
        config: &RecyclerConfig,
        currency: Currency,
    ) -> Result<Box<dyn Recycler<ByJournal>>, VaultError> {
        let events = self.sender.clone();
        // a vault that has ended takes no events
        let sink = Box::new(move |event| drop(events.send(Event::from(event))));
        let name = "recycler";
        let line = self.wire.line(name, serial(&config.path));
        Ok(match config.kind {
            RecyclerKind::Id003Rc => {
                let baud = config.baud.unwrap_or(ID003_BAUD);
                let validator = Settings { currency, baud };
                let notes_per_box = config.notes_per_bay;
                let settings = id003_rc::Settings { validator, notes_per_box };
                let engine = Id003Rc::<ByJournal>::new(settings);
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
            RecyclerKind::CcnetB2b => {
                let baud = config.baud.unwrap_or(CCNET_BAUD);
                let engine = CcnetB2b::<ByJournal>::new(ccnet::Settings { currency, baud });
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
            RecyclerKind::SmartPayout => {
                let engine = SmartPayout::<ByJournal>::new(smart_payout::Settings {
                    currency,
                    baud: config.baud.unwrap_or(SSP_BAUD),
                    notes_per_bay: config.notes_per_bay,
                    fixed_key: FixedKey::default(),
                    primes: Primes::USUAL,
                    seed: Seed::new(random()?),
                });
                Box::new(Device::start(name, engine, line, sink).map_err(VaultError::Device)?)
            }
        })
    }

    fn printer(&mut self, config: &PrinterConfig) -> Result<Box<dyn Printer>, VaultError> {
        let events = self.sender.clone();
        let sink = Box::new(move |event| drop(events.send(Event::Printer(event))));
        let opener = match config.port {
            PrinterPort::Serial => serial(&config.path),
            PrinterPort::UsbLp => lp(&config.path),
        };
        let device = Device::start("printer", EscPos::new(config.baud), opener, sink);
        Ok(Box::new(device.map_err(VaultError::Device)?))
    }

    fn next(&mut self, until: Mono) -> Next {
        let wait = Duration::from_millis(until.since(self.mono()));
        let event = match self.events.as_ref().map(|events| events.recv_timeout(wait)) {
            Some(Ok(event)) => event,
            Some(Err(RecvTimeoutError::Timeout)) => return Next::Due,
            Some(Err(RecvTimeoutError::Disconnected)) | None => Event::Stop,
        };
        if matches!(event, Event::Inspected(_)) {
            self.end_inspection();
        }
        Next::Event(event)
    }

    fn inspect(&mut self, journal: &Path) -> io::Result<()> {
        let (path, events) = (journal.to_owned(), self.sender.clone());
        let look = move || {
            // a vault that has ended needs no answer
            let _ = events.send(Event::Inspected(verify_file(&path)));
        };
        let thread = thread::Builder::new().name("journal check".to_owned()).spawn(look)?;
        self.inspection = Some(thread);
        Ok(())
    }

    fn reached(&mut self, place: Place<'_>) -> bool {
        self.wire.reached(place);
        true
    }
}
