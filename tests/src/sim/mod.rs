//! The deterministic simulation of a machine: the real vault, engines and journal in virtual time.
//!
//! Promise: a seed is a whole story (customers, devices on bad cables, relay, wallet, operator, power
//! cuts) and the same story each time; what it breaks is said with the one command that plays it
//! again. Clock, chance, cables, relay and power are simulated; the vault, its transactions, the
//! journal with its SQLite file, the protocol engines and every signature are the machine's own.
//!
//! Failure policy: a seed that breaks an invariant, panics, or does not come to rest has failed; the
//! others are run all the same.

pub mod bite;
mod bounds;
mod collector;
mod customer;
mod deaths;
mod faults;
mod host;
mod line;
mod matrix;
mod net;
mod one;
mod operator;
mod oracle;
mod parts;
mod service;
mod trace;
mod watch;
mod world;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

pub use self::matrix::{Ask, Matrix, matrix};
use self::one::{How, Tally, Template};

/// Failures that are told in full.
const TOLD: usize = 20;

/// Plays machines in virtual time, a seed each, and says what does not hold
#[derive(Debug, Parser)]
#[command(name = "simulate")]
pub struct Simulate {
    /// How many seeds
    #[arg(long, value_name = "N", default_value = "200")]
    seeds: NonZeroU64,
    /// The first one
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// This one only, with everything that happens in it
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Stop at the first seed that fails
    #[arg(long)]
    first: bool,
    /// Whether bugs that are planted in a copy of the sources are found, by so many seeds each and
    /// the crash matrix
    #[arg(long, conflicts_with_all = ["from", "seed", "matrix"])]
    bite: bool,
    /// The crash matrix instead: a death of the vault at each effect of each state
    #[arg(long, conflicts_with_all = ["seeds", "from", "seed"])]
    matrix: bool,
    /// This death only, with everything that happens in it
    #[arg(long, requires = "matrix", value_name = "N.A")]
    cell: Option<String>,
    /// And a second death at each point after the first
    #[arg(long, requires = "matrix")]
    pairs: bool,
    /// Which machine each cell gets: as many turns as there are pairs of devices are all of them
    #[arg(long, requires = "matrix", value_name = "N", default_value_t = 0)]
    turn: usize,
    /// Worlds at once
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Sums {
    tally: Tally,
    /// Seeds that failed, each with what does not hold.
    pub failed: Vec<(u64, Vec<String>)>,
}

impl Sums {
    /// All that was played, in a few lines.
    #[must_use]
    pub fn report(&self) -> String {
        let Tally { seeds, virtual_ms, faults, deaths, messages, bytes, .. } = &self.tally;
        let Tally { entries, customers, verdicts, ends, .. } = &self.tally;
        let hours = virtual_ms / 3_600_000;
        let ends: Vec<String> = ends.iter().map(|(name, n)| format!("{name} {n}")).collect();
        format!(
            "{seeds} seeds, {hours} simulated hours, {customers} customers, {entries} entries\n\
             faults: {faults} of devices, net, page and service, {deaths} deaths of the vault, \
             {messages} messages lost or doubled, {bytes} bytes of the cables\n\
             ends: {}\nverdicts: {verdicts}\nfailed: {}",
            ends.join(", "),
            self.failed.len(),
        )
    }
}

impl Simulate {
    /// Plays what was asked for; `false` where something does not hold.
    ///
    /// # Errors
    /// Where no machine can be set up.
    pub fn run(&self) -> Result<bool> {
        if self.bite {
            return bite::bite(self.seeds.get(), |found| match &found.by {
                Some(by) => println!("found: {}\n    {by}", found.what),
                None => println!("NOT FOUND: {}", found.what),
            });
        }
        if self.matrix {
            return self.run_matrix();
        }
        if let Some(seed) = self.seed {
            let outcome = Template::make()?.run(&How { seed, script: None, shown: true });
            for what in &outcome.wrong {
                println!("seed {seed}: {what}");
            }
            println!("digest {:016x}", outcome.digest);
            return Ok(outcome.wrong.is_empty());
        }
        let began = Instant::now();
        let sums = seeds(self.from, self.seeds.get(), self.first, self.jobs)?;
        println!("{}", sums.report());
        let took = began.elapsed();
        println!("took {} s", took.as_secs());
        for (seed, wrong) in sums.failed.iter().take(TOLD) {
            for what in wrong {
                println!("seed {seed}: {what}");
            }
            println!("again: cargo sim --seed {seed}");
        }
        Ok(sums.failed.is_empty())
    }
}

impl Simulate {
    fn only(&self) -> Result<Option<(usize, usize)>> {
        let Some(cell) = &self.cell else { return Ok(None) };
        let (number, answer) = cell.split_once('.').context("expected two numbers, as 12.0")?;
        Ok(Some((number.parse()?, answer.parse()?)))
    }

    fn run_matrix(&self) -> Result<bool> {
        let began = Instant::now();
        let Self { pairs, turn, jobs, .. } = *self;
        let matrix = matrix(Ask { pairs, only: self.only()?, turn, jobs })?;
        println!("{}", matrix.report());
        println!("took {} s", began.elapsed().as_secs());
        for (name, wrong) in matrix.failed.iter().take(TOLD) {
            for what in wrong {
                println!("{name}: {what}");
            }
        }
        Ok(matrix.failed.is_empty())
    }
}

/// Plays `count` seeds from `from` on, on all processors; with `first`, until one fails.
///
/// # Errors
/// Where no machine can be set up.
pub fn seeds(from: u64, count: u64, first: bool, jobs: Option<usize>) -> Result<Sums> {
    let template = Template::make()?;
    let next = AtomicU64::new(from);
    let end = from.saturating_add(count);
    let sums = Mutex::new(Sums::default());
    let jobs = jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = template.run(&How { seed, script: None, shown: false });
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.tally.add(&outcome.tally);
        if let Some(what) = outcome.wrong.first() {
            // a long run may be stopped before its end
            eprintln!("seed {seed} failed: {what}; again: cargo sim --seed {seed}");
            sums.failed.push((seed, outcome.wrong));
            if first {
                next.store(end, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    sums.failed.sort();
    if sums.tally.seeds != count && sums.failed.is_empty() {
        bail!("{} of {count} seeds were played", sums.tally.seeds);
    }
    Ok(sums)
}

/// What the story of `seed` comes to: the same each time.
///
/// # Errors
/// Where no machine can be set up.
pub fn digest(seed: u64) -> Result<u64> {
    Ok(Template::make()?.run(&How { seed, script: None, shown: false }).digest)
}
