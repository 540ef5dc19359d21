//! The world as the vault's host.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bitspire_agent::config::{
    AcceptorConfig, AcceptorKind, DispenserConfig, PrinterConfig, RecyclerConfig,
};
use bitspire_agent::journal::{ByJournal, Head, Verified, verify_file};
use bitspire_agent::txn::Txn;
use bitspire_agent::vault::{Event, Host, Next, Place, Point, VaultError};
use bitspire_hardware::acceptor::ccnet::{self, Ccnet};
use bitspire_hardware::acceptor::ebds::{self, Ebds};
use bitspire_hardware::acceptor::id003::{Id003, Settings};
use bitspire_hardware::acceptor::{Acceptor, AcceptorCommand, AcceptorEvent};
use bitspire_hardware::dispenser::f56::F56;
use bitspire_hardware::dispenser::puloon::Puloon;
use bitspire_hardware::dispenser::{Dispenser, DispenserCommand, DispenserEvent};
use bitspire_hardware::frame::ebds::PowerUpPolicy;
use bitspire_hardware::port::PortClosed;
use bitspire_hardware::printer::escpos::EscPos;
use bitspire_hardware::printer::{Printer, PrinterCommand};
use bitspire_hardware::recycler::Recycler;
use bitspire_shared::ids::{JournalHead, JournalSeq};
use bitspire_shared::money::Currency;
use bitspire_shared::time::Mono;
use bitspire_shell::secrets::SecretError;

use super::line::Driver;
use super::world::{Thing, World};

/// One run of the vault in the world.
pub(super) struct InWorld {
    world: Rc<RefCell<World>>,
    started: Mono,
}

impl InWorld {
    pub(super) fn new(world: &Rc<RefCell<World>>) -> Self {
        let started = world.borrow().now;
        Self { world: Rc::clone(world), started }
    }
}

/// What a device is told, until the world takes it.
struct Port<C>(Arc<Mutex<VecDeque<C>>>);

impl<C> Port<C> {
    fn put(&self, command: C) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
    }
}

impl Acceptor<ByJournal> for Port<AcceptorCommand<ByJournal>> {
    fn send(&mut self, command: AcceptorCommand<ByJournal>) -> Result<(), PortClosed> {
        self.put(command);
        Ok(())
    }
}

impl Dispenser<ByJournal> for Port<DispenserCommand<ByJournal>> {
    fn send(&mut self, command: DispenserCommand<ByJournal>) -> Result<(), PortClosed> {
        self.put(command);
        Ok(())
    }
}

impl Printer for Port<PrinterCommand> {
    fn send(&mut self, command: PrinterCommand) -> Result<(), PortClosed> {
        self.put(command);
        Ok(())
    }
}

type Validator = dyn Driver<AcceptorCommand<ByJournal>, AcceptorEvent>;
type Giver = dyn Driver<DispenserCommand<ByJournal>, DispenserEvent>;

impl Host for InWorld {
    fn mono(&self) -> Mono {
        let world = self.world.borrow();
        world.wall.store(world.machine_unix().0, Ordering::Relaxed);
        Mono(world.now.since(self.started))
    }

    fn random(&mut self, bytes: &mut [u8]) -> Result<(), SecretError> {
        let mut world = self.world.borrow_mut();
        for byte in bytes {
            let [fresh, ..] = world.vaults_chance.next_u64().to_le_bytes();
            *byte = fresh;
        }
        Ok(())
    }

    fn acceptor(
        &mut self,
        config: &AcceptorConfig,
        currency: Currency,
    ) -> Result<Box<dyn Acceptor<ByJournal>>, VaultError> {
        let mut world = self.world.borrow_mut();
        let baud = config.baud.unwrap_or(9_600);
        let now = world.now;
        let engine: Box<Validator> = match config.kind {
            AcceptorKind::Id003 => Box::new(Id003::new(Settings { currency, baud })),
            AcceptorKind::Ccnet => Box::new(Ccnet::new(ccnet::Settings { currency, baud })),
            AcceptorKind::Ebds => {
                let policy = PowerUpPolicy::B;
                Box::new(Ebds::new(ebds::Settings { currency, baud, policy }))
            }
        };
        let events = world.acceptor.open(engine, now);
        world.heard_acceptor(events);
        Ok(Box::new(Port(Arc::clone(&world.ports.acceptor))))
    }

    fn dispenser(
        &mut self,
        config: &DispenserConfig,
        currency: Currency,
    ) -> Result<Box<dyn Dispenser<ByJournal>>, VaultError> {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        let engine: Box<Giver> = match config.kind.lcdm() {
            None => Box::new(F56::new(currency)),
            Some(model) => Box::new(Puloon::new(config.lcdm(model, currency))),
        };
        let events = world.dispenser.open(engine, now);
        world.heard_dispenser(events);
        Ok(Box::new(Port(Arc::clone(&world.ports.dispenser))))
    }

    fn recycler(
        &mut self,
        _: &RecyclerConfig,
        _: Currency,
    ) -> Result<Box<dyn Recycler<ByJournal>>, VaultError> {
        let why = io::Error::new(io::ErrorKind::Unsupported, "this world has no recycler");
        Err(VaultError::Device(why))
    }

    fn printer(&mut self, config: &PrinterConfig) -> Result<Box<dyn Printer>, VaultError> {
        let mut world = self.world.borrow_mut();
        let now = world.now;
        let events = world.printer.open(Box::new(EscPos::new(config.baud)), now);
        world.heard_printer(events);
        Ok(Box::new(Port(Arc::clone(&world.ports.printer))))
    }

    fn next(&mut self, until: Mono) -> Next {
        let until = Mono(self.started.0.saturating_add(until.0));
        self.world.borrow_mut().advance(until)
    }

    fn inspect(&mut self, journal: &Path) -> io::Result<()> {
        // it is looked through in the end; at a start, now and then
        let nothing = Head { seq: JournalSeq(0), hash: JournalHead::from_bytes([0; 32]) };
        let found = match self.world.borrow_mut().percent(10) {
            true => verify_file(journal),
            false => Ok(Verified { head: nothing, open: 0 }),
        };
        self.world.borrow_mut().put(Event::Inspected(found));
        Ok(())
    }

    fn reached(&mut self, place: Place<'_>) -> bool {
        let mut world = self.world.borrow_mut();
        let lives = match place {
            Place::Effect { txn, effect, point } => world.at_effect(txn, effect, point),
            Place::Flushed(seq) => {
                let slow = std::mem::take(&mut world.slow_disk);
                world.now = world.now.after(slow);
                let now = world.now;
                world.trace.line(now, || format!("entry {}", seq.0));
                world.operator.written = seq.0;
                world.deaths.lives_after_flush()
            }
        };
        if !lives {
            // what was said before is said
            world.take_what_was_said();
            let now = world.now;
            world.trace.line(now, || "dies".to_owned());
        }
        lives
    }
}

impl World {
    fn at_effect(&mut self, txn: &Txn, effect: &'static str, point: Point) -> bool {
        let now = self.now;
        if effect != "show" && effect != "ignored" {
            self.trace.line(now, || format!("{} {effect} {point:?}", txn.name()));
        }
        let (txid, deal) = match txn {
            Txn::CashOut(sale) => (txn.txid(), sale.deal()),
            Txn::CashIn(session) => (txn.txid(), session.deal()),
        };
        if self.known.insert(txid) || self.typed.contains(&deal.claim_hash) {
            self.touched.insert(txid);
        }
        if (effect, point) == ("dispense", Point::Recorded) {
            self.intent_of = Some(txid);
        }
        if point == Point::After {
            self.deaths.forget_record();
            let there = (txn.name(), effect);
            if let Some(then) = self.then.take_if(|then| then.at == there) {
                self.plan(then.ms, Thing::Break(then.fault));
            }
        }
        self.deaths.lives(txn, effect, point, now)
    }
}
