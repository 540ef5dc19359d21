//! One seed: a world, its vault from start to start, and the verdict of the oracle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use bitspire_agent::config::{self, Config, DispenserKind};
use bitspire_agent::journal::{Journal, Reader, verify_file};
use bitspire_agent::txn::Txn;
use bitspire_agent::vault::{self, Seams, VaultError};
use bitspire_hardware::sim::faulty::SplitMix64;
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::{EventId, JournalSeq, PubKey};
use bitspire_shared::time::{Mono, Unix};
use bitspire_shell::clock::Clock;
use tempfile::TempDir;

use super::bounds::Bounds;
use super::deaths::{Aim, Passed};
use super::faults::Rates;
use super::host::InWorld;
use super::oracle::{Books, judge};
use super::parts::Parts;
use super::world::{Thing, World};

/// Vaults that a world may wear out before something must be wrong.
const STARTS: u32 = 2_000;

/// Machines that are paired, confirmed and loaded, for each seed to begin with: with two bays, and
/// with one.
pub(super) struct Template([Shop; 2]);

/// One of them.
struct Shop {
    folder: TempDir,
    vault: PubKey,
    fees: EventId,
    now: Mono,
}

/// How a world ended.
pub(super) struct Outcome {
    /// What does not hold.
    pub(super) wrong: Vec<String>,
    pub(super) digest: u64,
    pub(super) tally: Tally,
    pub(super) passed: Option<Passed>,
    /// Whether all aimed deaths came.
    pub(super) hit: bool,
    /// Whether a device had something to say about the moment of the last death.
    pub(super) device_played: bool,
}

/// Sums over worlds.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) virtual_ms: u64,
    pub(super) faults: u64,
    pub(super) deaths: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    pub(super) customers: u64,
    pub(super) verdicts: u64,
    /// Transactions by direction and state in the end.
    pub(super) ends: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.virtual_ms += other.virtual_ms;
        self.faults += other.faults;
        self.deaths += other.deaths;
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.entries += other.entries;
        self.customers += other.customers;
        self.verdicts += other.verdicts;
        for (name, count) in &other.ends {
            *self.ends.entry(name.clone()).or_default() += count;
        }
    }
}

/// A folder in memory, where the system has one: a simulated disk needs no platter.
fn fresh_folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.context("no folder for a world")
}

fn configuration(folder: &Path, parts: Parts) -> Result<Config> {
    let file = folder.join("machine.toml");
    let (acceptor, dispenser) = (parts.acceptor.protocol(), parts.dispenser.protocol());
    let printer = match parts.printer {
        true => "[vault.printer]\nport = 'serial'\npath = '/printer'\nprint = 'always'\n",
        false => "",
    };
    let text = format!(
        "currency = 'USD'\ndata_dir = '{0}/data'\nruntime_dir = '{0}/run'\n\
         [vault]\nheartbeat_s = 20\n\
         [vault.acceptor]\nkind = '{acceptor}'\npath = '{0}/acceptor'\n\
         [vault.dispenser]\nkind = '{dispenser}'\npath = '{0}/dispenser'\nbays = {1}\n\
         {printer}[vault.breaker]\nnotes_per_hour = 5000\nnotes_per_day = 5000\n\
         [pairing]\nallow_loopback_relays = true\n",
        folder.display(),
        parts.bays(),
    );
    fs::write(&file, text)?;
    Ok(config::load(Some(&file), &BTreeMap::new(), &[])?.0)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Runs the vault over and over until the world is over.
fn live(world: &Rc<RefCell<World>>, config: &Config) -> Result<()> {
    world.borrow_mut().deaths.set_folder(&config.vault.dir);
    for _ in 0..STARTS {
        world.borrow_mut().start_vault();
        let wall = Arc::clone(&world.borrow().wall);
        let clock = Clock::new(move || Unix(wall.load(Ordering::Relaxed)));
        let seams = Seams { clock, ..Seams::default() };
        let ended = vault::run_in(config, seams, Box::new(InWorld::new(world)));
        let mut world = world.borrow_mut();
        match ended {
            Ok(()) => world.take_what_was_said(),
            Err(VaultError::Halted(_)) => {
                world.deaths.bury().context("the disk of a dead vault")?
            }
            Err(error) => {
                let cause = anyhow::Error::new(error);
                bail!("the vault ended: {cause:#}");
            }
        }
        world.end_vault();
        if world.over {
            return Ok(());
        }
        let ms = world.outage();
        world.let_pass(ms);
    }
    bail!("the vault was started {STARTS} times")
}

impl Template {
    pub(super) fn make() -> Result<Self> {
        let shop = |dispenser| Shop::make(Parts { dispenser, ..Parts::default() });
        Ok(Self([shop(DispenserKind::default())?, shop(DispenserKind::Puloon1000)?]))
    }

    /// A world on a copy of the machine, run to its end.
    pub(super) fn run(&self, how: &How) -> Outcome {
        let [two, one] = &self.0;
        if how.rates().parts.bays() == 1 { one.run(how) } else { two.run(how) }
    }
}

impl Shop {
    fn make(parts: Parts) -> Result<Self> {
        let folder = fresh_folder()?;
        let config = configuration(folder.path(), parts)?;
        let rates = Rates { parts, ..Rates::good() };
        let world = Rc::new(RefCell::new(World::new(0, rates)));
        world.borrow_mut().operator.sets_up = true;
        world.borrow_mut().plan(300, Thing::Operate);
        live(&world, &config)?;
        let world = world.borrow();
        let (Some(vault), Some(fees)) = (world.service.vault, world.service.fees) else {
            bail!("the machine was not set up");
        };
        Ok(Self { folder, vault, fees, now: world.now })
    }

    fn run(&self, how: &How) -> Outcome {
        let caught = catch_unwind(AssertUnwindSafe(|| self.run_whole(how)));
        match caught {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::failed(format!("{error:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Outcome::failed(format!("panic: {}", text.unwrap_or_default()))
            }
        }
    }

    fn run_whole(&self, how: &How) -> Result<Outcome> {
        let folder = fresh_folder()?;
        copy(&self.folder.path().join("data"), &folder.path().join("data"))?;
        let rates = how.rates();
        let config = configuration(folder.path(), rates.parts)?;
        let mut world = World::new(how.seed, rates);
        world.now = self.now.after(10_000);
        world.bounds = Bounds::new(world.now, rates.minutes);
        world.service.vault = Some(self.vault);
        world.service.fees = Some(self.fees);
        world.service.invoice_s = world.rates.invoice_s;
        if how.shown {
            world.trace.show();
        }
        if let How { script: Some(script), .. } = how {
            world.crowd.script = Some(script.people.clone());
            world.deaths.aims.clone_from(&script.aims);
            world.deaths.passed = script.watched.then(Passed::default);
            world.device_after = script.device;
            world.then = script.then;
        }
        world.plan_faults();
        world.plan(1_000, Thing::Operate);
        let began = world.now;
        let world = Rc::new(RefCell::new(world));
        live(&world, &config)?;
        let world = world.borrow();
        let mut outcome = self.judge(&world, &config)?;
        outcome.tally.virtual_ms = world.now.since(began);
        Ok(outcome)
    }

    fn judge(&self, world: &World, config: &Config) -> Result<Outcome> {
        let path: PathBuf = config.vault.journal();
        let mut wrong = Vec::new();
        if let Err(error) = verify_file(&path) {
            wrong.push(format!("D2: {error}"));
        }
        let binding = sha256(&format!("bitspire-journal-of:v1:{}", self.vault));
        let journal = Journal::open(&path, binding, Unix(1)).context("the journal in the end")?;
        let mut entries = Vec::new();
        // both files: a long life has an archive
        Reader::open(&path)?.each(JournalSeq(1), journal.head().seq, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        let books = Books::read(&journal, &entries).map_err(anyhow::Error::msg)?;
        wrong.extend(judge(world, &books));
        let mut tally = Tally {
            seeds: 1,
            faults: world.deaths.faults,
            deaths: world.deaths.deaths,
            messages: world.net.lost + world.net.doubled,
            bytes: world.cable_faults(),
            entries: u64::try_from(books.entries)?,
            customers: world.crowd.served,
            verdicts: world.operator.verdicts,
            ..Tally::default()
        };
        for txn in books.txns.values() {
            let direction = match txn {
                Txn::CashOut(_) => "cash_out",
                Txn::CashIn(_) => "cash_in",
            };
            *tally.ends.entry(format!("{direction} {}", txn.name())).or_default() += 1;
        }
        Ok(Outcome {
            wrong,
            digest: world.trace.digest(),
            tally,
            passed: world.deaths.passed.clone(),
            hit: world.deaths.aims.is_empty(),
            device_played: world.device_played,
        })
    }
}

impl Outcome {
    fn failed(why: String) -> Self {
        Self {
            wrong: vec![why],
            digest: 0,
            tally: Tally { seeds: 1, ..Tally::default() },
            passed: None,
            hit: true,
            device_played: true,
        }
    }
}

/// What a device does after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// It says what is so.
    Truthful,
    /// It says nothing for a while.
    Silent,
    /// It has lost its power, its counters and its memory.
    Reset,
    /// An old answer of it comes first.
    Old,
}

impl Answer {
    pub(super) const ALL: [Self; 4] = [Self::Truthful, Self::Silent, Self::Reset, Self::Old];
}

/// What goes wrong in a world without chance, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Then {
    /// State and effect: as soon as this was told.
    pub(super) at: (&'static str, &'static str),
    /// So much later.
    pub(super) ms: u64,
    pub(super) fault: super::faults::Fault,
}

/// A world without chance: who comes, and where the vault dies.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) parts: Parts,
    pub(super) people: Vec<super::customer::Person>,
    /// What goes wrong as soon as this effect of this state was told.
    pub(super) then: Option<Then>,
    pub(super) aims: Vec<Aim>,
    pub(super) watched: bool,
    pub(super) device: Answer,
}

/// Which world.
#[derive(Clone, Debug)]
pub(super) struct How {
    pub(super) seed: u64,
    pub(super) script: Option<Script>,
    pub(super) shown: bool,
}

impl How {
    fn rates(&self) -> Rates {
        match &self.script {
            Some(Script { parts, .. }) => {
                Rates { parts: *parts, minutes: 2, invoice_s: 60, ..Rates::good() }
            }
            None => Rates::by(&mut SplitMix64::new(self.seed ^ 0x5eed)),
        }
    }
}
