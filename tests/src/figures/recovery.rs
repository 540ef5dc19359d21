//! From SIGKILL in the middle of a dispense to the machine's own screen: both processes of the
//! shipped program die and start again, with a movement of notes of which nobody knows the end.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::agent::parts;
use super::binary::agent_program;
use super::{Figure, percentile};
use crate::books::Journal;
use crate::sale::{orders, pays, steps_up};
use crate::screen::heading;
use crate::shop;
use crate::wait::{PATIENCE, wait_for};
use crate::world::World;

/// Machines that die.
const RUNS: usize = 7;
/// Milliseconds that it may take.
const BAR_MS: f64 = 1_000.0;
/// What `net` shows by itself, while it has not found the vault.
const WITHOUT_VAULT: [&str; 2] = ["", "One moment"];

pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = agent_program()?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(recovery_ms(&program)?);
    }
    let (value, bound_is) = (percentile(&mut times, 50)?, "the bar, devices' own resets apart");
    let (name, unit) = ("recovery_ms", "ms");
    Ok(vec![Figure { name, value, unit, bound: BAR_MS, bound_is, peer: None, runs: RUNS }])
}

/// One machine, killed while it dispenses the most that it can.
fn recovery_ms(program: &std::path::Path) -> Result<f64> {
    let mut world = World::new(&std::env::current_exe()?, None)?;
    [world.vault, world.net] = parts(&world, program);
    shop::open(&mut world, &mut |_| ())?;
    let customer = world.customer()?;
    let amounts = steps_up(&customer)?;
    let amount = *amounts.iter().max().context("the machine offers nothing")?;
    let journal = Journal::of(world.folder())?;
    let before = journal.seq()?;
    let bolt11 = orders(&customer, amount)?;
    pays(&world, &bolt11)?;
    wait_for("notes on their way", PATIENCE, || {
        let entries = journal.after(before).map_err(|error| format!("{error:#}"))?;
        let moves = entries.iter().any(|entry| entry.kind == "intent");
        if moves { Ok(()) } else { Err("none yet".to_owned()) }
    })?;
    world.net.kill9()?;
    world.vault.kill9()?;
    drop(customer);
    let start = Instant::now();
    world.vault.start_until(|| Ok(()))?;
    world.net.start()?;
    let customer = world.customer()?;
    let own = |html: &str| {
        let shown = heading(html);
        (!WITHOUT_VAULT.contains(&shown.as_str())).then_some(())
    };
    customer.looks("the vault's own screen", PATIENCE, own)?;
    let took = start.elapsed().as_secs_f64() * 1_000.0;
    let entries = journal.after(before)?;
    ensure!(entries.iter().any(|entry| entry.kind == "started"), "the vault has not begun again");
    Ok(took)
}
