//! What one turn of an engine costs: a wake-up or an answer of its idle device, and what follows.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bitspire_agent::journal::ByJournal;
use bitspire_hardware::acceptor::{ccnet, ebds, id003};
use bitspire_hardware::dispenser::{f56, puloon};
use bitspire_hardware::engine::Engine;
use bitspire_hardware::frame::ebds::PowerUpPolicy;
use bitspire_hardware::frame::ssp::cipher::{FixedKey, Primes, Seed};
use bitspire_hardware::recycler::{ccnet_b2b, smart_payout};
use bitspire_hardware::sim::{self, SimDevice};
use bitspire_shared::time::Mono;

use super::{Figure, percentile};

/// Turns until the device has been set up, and turns of one run.
const TURNS: u32 = 2_000;
const RUNS: usize = 15;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let currency = "EUR".parse()?;
    let baud = 9_600;
    let model = puloon::Model::Lcdm4000;
    let policy = PowerUpPolicy::default();
    Ok(vec![
        figure(
            "engine_tick_us.ccnet",
            ccnet::Ccnet::<ByJournal>::new(ccnet::Settings { currency, baud }),
            sim::ccnet::CcnetSim::new(
                sim::ccnet::CcnetSim::eur(),
                sim::ccnet::Options::default(),
                sim::ccnet::Timing::default(),
            ),
        )?,
        figure(
            "engine_tick_us.ccnet_b2b",
            ccnet_b2b::CcnetB2b::<ByJournal>::new(ccnet::Settings { currency, baud }),
            sim::ccnet::CcnetSim::unit(
                sim::ccnet::CcnetSim::eur(),
                sim::ccnet::Options::default(),
                sim::ccnet::Timing::default(),
            ),
        )?,
        figure(
            "engine_tick_us.ebds",
            ebds::Ebds::<ByJournal>::new(ebds::Settings { currency, baud, policy }),
            sim::ebds::EbdsSim::new(
                sim::ebds::EbdsSim::eur(),
                sim::ebds::Options::default(),
                sim::ebds::Timing::default(),
            ),
        )?,
        figure(
            "engine_tick_us.f56",
            f56::F56::<ByJournal>::new(currency),
            sim::f56::F56Sim::new(sim::f56::Fit::default()),
        )?,
        figure(
            "engine_tick_us.id003",
            id003::Id003::<ByJournal>::new(id003::Settings { currency, baud }),
            sim::id003::Id003Sim::new(
                sim::id003::Id003Sim::eur(),
                sim::id003::Options::default(),
                sim::id003::Timing::default(),
            ),
        )?,
        figure(
            "engine_tick_us.puloon",
            puloon::Puloon::<ByJournal>::new(puloon::Settings::new(model, currency)),
            sim::puloon::PuloonSim::new(model, sim::puloon::Fit::default()),
        )?,
        figure(
            "engine_tick_us.smart_payout",
            smart_payout::SmartPayout::<ByJournal>::new(smart_payout::Settings {
                currency,
                baud,
                notes_per_bay: 30,
                fixed_key: FixedKey::default(),
                primes: Primes::USUAL,
                seed: Seed::new([1; 16]),
            }),
            sim::smart_payout::SmartPayoutSim::new(
                sim::smart_payout::SmartPayoutSim::eur(),
                sim::smart_payout::Options::default(),
                sim::smart_payout::Timing::default(),
            ),
        )?,
    ])
}

fn figure<E: Engine>(name: &'static str, engine: E, device: impl SimDevice) -> Result<Figure> {
    let (mut play, mut micros) = (Play::new(engine, device), Vec::new());
    play.turns(TURNS)?;
    for _ in 0..RUNS {
        let spent = play.turns(TURNS)?;
        micros.push(spent.as_secs_f64() * 1e6 / f64::from(TURNS));
    }
    let value = percentile(&mut micros, 50)?;
    let bound_is = "the bar, for each turn";
    Ok(Figure { name, value, unit: "us", bound: 5.0, bound_is, peer: None, runs: RUNS })
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
        assert_eq!(figures.len(), 7);
        assert!(figures.iter().all(|figure| figure.value > 0.0));
    }
}
