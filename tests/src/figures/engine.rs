//! What one turn of an engine costs: a wake-up or an answer of its idle device, and what follows.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bitspire_agent::journal::ByJournal;
use bitspire_hardware::acceptor::{AcceptorCommand, AcceptorEvent};
use bitspire_hardware::dispenser::{DispenserCommand, DispenserEvent};
use bitspire_hardware::engine::Engine;
use bitspire_hardware::recycler::{RecyclerCommand, RecyclerEvent};
use bitspire_hardware::sim::SimDevice;
use bitspire_shared::time::Mono;

use super::devices::{self, Visit, figure_of};
use super::{Figure, percentile};

/// Turns until the device has been set up, and turns of one run.
const TURNS: u32 = 2_000;
const RUNS: usize = 15;

pub(super) const NAMES: [&str; 8] = [
    "engine_tick_us.ccnet",
    "engine_tick_us.ccnet_b2b",
    "engine_tick_us.ebds",
    "engine_tick_us.f56",
    "engine_tick_us.id003",
    "engine_tick_us.id003_rc",
    "engine_tick_us.puloon",
    "engine_tick_us.smart_payout",
];

pub(super) fn measure() -> Result<Vec<Figure>> {
    let mut figures = Figures(Vec::new());
    devices::each(&mut figures)?;
    Ok(figures.0)
}

struct Figures(Vec<Figure>);

impl Visit for Figures {
    fn acceptor<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = AcceptorCommand<ByJournal>, Event = AcceptorEvent>,
    {
        self.add(name, engine, device)
    }

    fn dispenser<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = DispenserCommand<ByJournal>, Event = DispenserEvent>,
    {
        self.add(name, engine, device)
    }

    fn recycler<E>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()>
    where
        E: Engine<Command = RecyclerCommand<ByJournal>, Event = RecyclerEvent>,
    {
        self.add(name, engine, device)
    }
}

impl Figures {
    fn add<E: Engine>(&mut self, name: &str, engine: E, device: impl SimDevice) -> Result<()> {
        let (mut play, mut micros) = (Play::new(engine, device), Vec::new());
        play.turns(TURNS)?;
        for _ in 0..RUNS {
            let spent = play.turns(TURNS)?;
            micros.push(spent.as_secs_f64() * 1e6 / f64::from(TURNS));
        }
        let (name, value) = (figure_of(&NAMES, name)?, percentile(&mut micros, 50)?);
        let bound_is = "the bar, for each turn";
        let peer = None;
        self.0.push(Figure { name, value, unit: "us", bound: 5.0, bound_is, peer, runs: RUNS });
        Ok(())
    }
}

/// Engine and device in virtual time, over a line that takes none.
struct Play<E, D> {
    engine: E,
    device: D,
    now: Mono,
    wake_at: Option<Mono>,
    /// What the device said, for the engine's next turn.
    said: Vec<u8>,
    up: bool,
}

impl<E: Engine, D: SimDevice> Play<E, D> {
    const fn new(engine: E, device: D) -> Self {
        Self { engine, device, now: Mono(0), wake_at: None, said: Vec::new(), up: false }
    }

    /// The engine's own time in so many turns.
    fn turns(&mut self, turns: u32) -> Result<Duration> {
        let mut spent = Duration::ZERO;
        for _ in 0..turns {
            let said = self.heard()?;
            let begun = Instant::now();
            let out = match (std::mem::replace(&mut self.up, true), said.is_empty()) {
                (false, _) => self.engine.on_link_up(self.now),
                (true, false) => self.engine.on_bytes(&said, self.now),
                (true, true) => self.engine.on_tick(self.now),
            };
            spent += begun.elapsed();
            self.wake_at = out.wake_at;
            if !out.write.is_empty() {
                self.said = self.device.on_bytes(&out.write, self.now);
            }
        }
        Ok(spent)
    }

    /// What the device has said; without a word from it, time goes on to whoever is due.
    fn heard(&mut self) -> Result<Vec<u8>> {
        while self.up && self.said.is_empty() {
            let device = self.device.wake_at();
            let Some(due) = [self.wake_at, device].into_iter().flatten().min() else {
                bail!("neither engine nor device wants to be woken")
            };
            self.now = self.now.max(due);
            if device.is_some_and(|at| at <= self.now) {
                self.said = self.device.on_tick(self.now);
            }
            if self.wake_at.is_some_and(|at| at <= self.now) {
                break;
            }
        }
        Ok(std::mem::take(&mut self.said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a figure of an engine that stands still.
    #[test]
    fn every_engine_turns() {
        let figures = measure().unwrap();
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, NAMES);
        assert!(figures.iter().all(|figure| figure.value > 0.0));
    }
}
