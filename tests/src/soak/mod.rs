//! Sales without end under faults without end: what a year of bad luck does to a machine.
//!
//! Promise: who wants what, what goes wrong, where and for how long follows from the seed; the
//! processes' own timing does not, so that a seed is run again rather than replayed. After each sale
//! everybody's books are held against each other; standard output holds one JSON line, and the exit
//! code is 0 only if no check of any sale failed.
//!
//! Failure policy: a sale that fails a check ends its world, whose folder `--keep` leaves behind;
//! the next sale begins in another one. So does a dispense that nobody knows, which only a person
//! ends.

mod adversary;
mod oracle;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_shared::money::Direction;
use clap::Parser;
use serde_json::{Value, json};

use crate::books::Journal;
use crate::customer::Customer;
use crate::demo::choice;
use crate::report::{Report, ledger_balanced};
use crate::sale::IDLE;
use crate::screen::heading;
use crate::shop::{self, sells};
use crate::shopper::{Habit, Shopper, Wish};
use crate::wait::wait_for;
use crate::wallet::CustomerWallet;
use crate::world::{RelayKind, World};

use adversary::{Adversary, dispenses};

/// How long a sale may take in all, with everything that goes wrong in it.
const SALE: Duration = Duration::from_secs(150);
/// How long a machine may take to sell again.
const AGAIN: Duration = Duration::from_secs(90);
/// How long books may take to agree.
const BOOKS: Duration = Duration::from_secs(45);
/// Between two looks at journal and screen.
const LOOK: Duration = Duration::from_millis(4);

/// Sells again and again while parts of the world die, stand still, lose their cables and their
/// money, and holds everybody's books against each other after each sale
#[derive(Debug, Parser)]
#[command(name = "soak")]
pub struct Soak {
    /// Which customers and which faults
    #[arg(long, value_name = "N")]
    seed: u64,
    /// How many sales
    #[arg(long, value_name = "M")]
    sales: u64,
    /// Begin with this sale of the seed
    #[arg(long, value_name = "K", default_value_t = 0)]
    first: u64,
    /// Leave databases and logs of each world in a folder in this one
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What has come to pass.
#[derive(Debug, Default)]
struct Tally {
    sales: u64,
    worlds: u64,
    faults: BTreeMap<String, u64>,
    ends: BTreeMap<String, u64>,
    violations: Vec<String>,
}

/// A world with somebody in front of it.
struct Scene {
    world: World,
    customer: Customer,
    wallet: CustomerWallet,
}

impl Soak {
    /// Runs it; whether nothing failed.
    ///
    /// # Errors
    /// When no world can be opened or no line be written.
    pub fn run(&self) -> Result<bool> {
        let mut tally = Tally::default();
        let mut scene = None;
        for number in self.first..self.first.saturating_add(self.sales) {
            let mut on = match scene.take() {
                Some(on) => on,
                None => self.open(&mut tally)?,
            };
            match self.sale(&mut on, number, &mut tally) {
                Ok(true) => scene = Some(on),
                Ok(false) => {}
                Err(error) => {
                    let folder = on.world.folder().display();
                    let words = format!("sale {number} in {folder}: {error:#}");
                    eprintln!("VIOLATION {words}");
                    tally.violations.push(words);
                }
            }
        }
        let line = json!({
            "seed": self.seed,
            "sales": tally.sales,
            "worlds": tally.worlds,
            "faults": tally.faults,
            "ends": tally.ends,
            "violations": tally.violations.len(),
            "violated": tally.violations,
            "again": format!("cargo soak --seed {} --sales {}", self.seed, self.sales),
        });
        writeln!(std::io::stdout(), "{line}")?;
        Ok(tally.violations.is_empty())
    }

    fn open(&self, tally: &mut Tally) -> Result<Scene> {
        let kind = match choice(self.seed, &format!("relay {}", tally.worlds), 2) {
            0 => RelayKind::Embedded,
            _ => RelayKind::Apart,
        };
        let keep = self.keep.as_ref().map(|keep| keep.join(format!("world-{}", tally.worlds)));
        tally.worlds += 1;
        let mut world = World::on(kind, &std::env::current_exe()?, keep.as_deref())?;
        shop::open(&mut world, &mut |_| ())?;
        let customer = world.customer()?;
        Ok(Scene { world, customer, wallet: CustomerWallet::new()? })
    }

    /// Who comes for sale `number`.
    fn wish(&self, number: u64) -> Wish {
        let pick = |name: &str, many| choice(self.seed, &format!("sale {number} {name}"), many);
        let at = |name: &str, many: usize| usize::try_from(pick(name, many as u64)).unwrap_or(0);
        let direction = [Direction::CashOut, Direction::CashIn][at("direction", 2)];
        let screens = match direction {
            Direction::CashOut => ["Buy ", "One moment", "Pay ", "Take your notes"],
            Direction::CashIn => ["Feed your notes", "Reading", "One moment", "Claim "],
        };
        let habit = match (pick("habit", 12), direction) {
            (0, _) => Habit::Cancels(screens[at("screen", 4)]),
            // a machine waits long for somebody who has gone
            (1, _) if pick("goes", 3) == 0 => Habit::Leaves(screens[at("screen", 4)]),
            (2, Direction::CashOut) => Habit::PaysTwice,
            (3, Direction::CashOut) => Habit::PaysMore(1 + pick("more", 200_000)),
            (4, Direction::CashOut) => Habit::PaysHalf,
            (2..=4, Direction::CashIn) => Habit::TwoWallets,
            _ => Habit::Plain,
        };
        let many = 1 + pick("many", 3);
        let notes = (0..many).map(|n| [5, 10, 20, 50][at(&format!("note {n}"), 4)]).collect();
        let fiat_minor = [2_000, 5_000, 10_000][at("amount", 3)];
        Wish { direction, fiat_minor, notes, habit }
    }

    /// One sale; whether its world can go on.
    fn sale(&self, scene: &mut Scene, number: u64, tally: &mut Tally) -> Result<bool> {
        let Scene { world, customer, wallet } = scene;
        ready(world, customer)?;
        let journal = Journal::of(world.folder())?;
        let base = journal.seq()?;
        let wish = self.wish(number);
        let mut adversary = Adversary::of(self.seed, number);
        let what = format!("sale {number}: {wish:?}; {}", adversary.plan());
        eprintln!("{what}");
        tally.sales += 1;
        let mut shopper = Shopper::new(world, customer, wallet, wish)?;
        let began = Instant::now();
        let mut codes = (None, 0);
        let ended = loop {
            adversary.tick(world, journal.seq()? - base, false)?;
            if codes.0 != adversary.vault_started_at {
                let known = shopper.last(&journal)?.is_some();
                codes = (adversary.vault_started_at, shopper.codes_entered);
                if !known {
                    // what begins after a start is not a dispense by the start
                    adversary.vault_started_at = None;
                    codes.0 = None;
                }
            }
            shopper.look(world, &journal)?;
            let last = shopper.last(&journal)?;
            let txn = last.map(|entry| entry.txn().clone()).unwrap_or_default();
            if adversary.rests() && rests(&shopper, &txn, &customer.screen()) {
                break txn;
            }
            if began.elapsed() > SALE {
                let heading = heading(&customer.screen());
                bail!(
                    "stuck in {} before {heading:?}: paid {}, accepted {:?}, code entered {} \
                     times; {what}",
                    txn["name"],
                    shopper.paid,
                    shopper.accepted,
                    shopper.codes_entered,
                );
            }
            std::thread::sleep(LOOK);
        };
        adversary.tick(world, 0, true)?;
        if world.counters(&world.dispenser)?["notes_at_exit"] == true {
            // nobody leaves without their notes
            world.act(&world.dispenser, &json!({"action": "take"}))?;
        }
        let state = ended["name"].as_str().unwrap_or("nothing").to_owned();
        eprintln!("        {state} after {:.1} s", began.elapsed().as_secs_f32());
        for (name, many) in &adversary.done {
            *tally.faults.entry(name.clone()).or_default() += many;
        }
        *tally.ends.entry(state.clone()).or_default() += 1;
        if let (Some(before), entered) = codes
            && shopper.codes_entered == entered
            && dispenses(world)? != before
        {
            bail!("dispensed on a start, now {state}; {what}");
        }
        wait_for("books that agree", BOOKS, || {
            let wrong = oracle::wrong(world, &journal).map_err(|error| format!("{error:#}"))?;
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
        })
        .with_context(|| format!("{state}; {what}"))?;
        let mut audit = Report { figures: Value::Null, failed: Vec::new() };
        if !ledger_balanced(world, &mut audit) {
            bail!("{:?}; {state}; {what}", audit.failed);
        }
        Ok(state != "uncertain")
    }
}

/// A machine that sells, whoever has left what on its screen.
fn ready(world: &mut World, customer: &Customer) -> Result<()> {
    wait_for("a machine that sells", AGAIN, || {
        let status = world.status().map_err(|error| format!("{error:#}"))?;
        let screen = heading(&customer.screen());
        if screen.contains(IDLE) && sells(&status) {
            return Ok(());
        }
        for action in ["finish", "cancel"] {
            // where it does not fit it has no effect
            let _ = customer.touches(&json!({"action": action}));
        }
        Err(format!("{status} behind {screen:?}"))
    })
}

/// Whether nothing more comes of a sale without somebody's doing.
fn rests(shopper: &Shopper<'_>, txn: &Value, html: &str) -> bool {
    let idle = heading(html).contains(IDLE);
    let lost = shopper.gone || shopper.code.is_none();
    match txn["name"].as_str() {
        _ if txn["stage"] == "closed" => true,
        Some("uncertain") => true,
        // an invoice that nobody pays waits for its end
        Some("invoiced") => shopper.keeps_their_sats() && (idle || shopper.gone),
        Some("paid_waiting") => idle && lost,
        Some("offered") => (idle && lost) || shopper.gone,
        _ => false,
    }
}
