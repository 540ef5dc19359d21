//! What the machine's two processes do in and between sales: memory while notes move, how long a note
//! waits in escrow for its decision, how often they wake while nobody is there. The shipped program
//! in a whole world, paired, with one relay and two polled devices.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::agent::{at_rest, ids, memory_mb, parts};
use super::binary::agent_program;
use super::{Figure, percentile};
use crate::customer::Customer;
use crate::sale::{IDLE, buy, feeds, offered, steps_up};
use crate::shop;
use crate::wait::PATIENCE;
use crate::wallet::CustomerWallet;
use crate::world::World;

/// Notes whose decision is measured, in one sale.
const NOTES: i64 = 10;
/// One of them, in units of the currency and in minor units.
const NOTE: (u32, i64) = (5, 500);
/// How long the machine rests while its wake-ups are counted.
const REST: Duration = Duration::from_secs(10);
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(50);
/// Between two polls of the validator while a note moves: what a decision may take.
const POLL_MS: f64 = 100.0;
/// Megabytes that both processes may have in a sale.
const BAR_MB: f64 = 28.0;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = agent_program()?;
    let mut world = World::new(&std::env::current_exe()?, None)?;
    [world.vault, world.net] = parts(&world, &program);
    shop::open(&mut world, &mut |_| ())?;
    let (customer, wallet) = (world.customer()?, CustomerWallet::new()?);
    let both = ids([&mut world.vault, &mut world.net])?;
    let over = AtomicBool::new(false);
    let (sold, most) = thread::scope(|scope| {
        let most = scope.spawn(|| -> Result<f64> {
            let mut most = 0.0f64;
            while !over.load(Ordering::SeqCst) {
                most = most.max(memory_mb(&both)?);
                thread::sleep(LOOK);
            }
            Ok(most)
        });
        let sold = sales(&world, &customer, &wallet);
        over.store(true, Ordering::SeqCst);
        (sold, most.join())
    });
    let mut decisions = sold?;
    let most = most.map_err(|_| anyhow::anyhow!("the look at the memory has panicked"))??;
    // nobody looks at the screen any more
    drop(customer);
    at_rest(&both)?;
    let (polls, wakes) = (writes(both[0])?, switches(&both)?);
    thread::sleep(REST);
    let rate = |count: u32| f64::from(count) / REST.as_secs_f64();
    let (polls, wakes) = (rate(writes(both[0])? - polls), rate(switches(&both)? - wakes));
    let runs = decisions.len();
    let figure = |name, value, unit, bound, bound_is, runs| Figure {
        name,
        value,
        unit,
        bound,
        bound_is,
        peer: None,
        runs,
    };
    Ok(vec![
        figure(
            "escrow_decision_ms",
            percentile(&mut decisions, 50)?,
            "ms",
            POLL_MS,
            "the bar, one poll of the validator while a note moves",
            runs,
        ),
        figure("agent_rss_sale_mb", most, "MB", BAR_MB, "the bar, both processes in sales", 1),
        figure(
            "wakeups_per_s",
            wakes,
            "wake-ups a second",
            3.0 * polls + 2.0,
            "the bar, three times the polls a second of both devices and two",
            1,
        ),
    ])
}

/// A sale in each direction; how long each note waited in escrow, in ms.
fn sales(world: &World, customer: &Customer, wallet: &CustomerWallet) -> Result<Vec<f64>> {
    let amounts = steps_up(customer)?;
    let amount = amounts.iter().max().context("the machine offers nothing")?;
    buy(world, customer, *amount)?;
    steps_up(customer)?;
    customer.touches(&json!({"action": "start_cash_in"}))?;
    customer.sees(&["Feed your notes"], PATIENCE)?;
    let mut decisions = Vec::new();
    for no in 1..=NOTES {
        feeds(world, customer, NOTE.0, no * NOTE.1)?;
        let counters = world.counters(&world.acceptor)?;
        let at = |name: &str| counters[name].as_u64().with_context(|| format!("no {name}"));
        let waited = at("decided_at_ms")?.saturating_sub(at("escrow_at_ms")?);
        decisions.push(f64::from(u32::try_from(waited)?));
    }
    customer.touches(&json!({"action": "finish"}))?;
    wallet.scan(&offered(customer)?)?;
    customer.sees(&["Paid"], PATIENCE)?;
    customer.touches(&json!({"action": "finish"}))?;
    customer.sees(&[IDLE], PATIENCE)?;
    Ok(decisions)
}

/// How often the threads of these processes have gone to sleep, and so how often they were woken;
/// being driven off a busy processor is no wake-up.
fn switches(ids: &[u32]) -> Result<u32> {
    let mut all = 0;
    for id in ids {
        for thread in fs::read_dir(format!("/proc/{id}/task"))? {
            // one that has ended meanwhile did not wake
            let Ok(status) = fs::read_to_string(thread?.path().join("status")) else { continue };
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            all += count.context("no count of switches")?.trim().parse::<u32>()?;
        }
    }
    Ok(all)
}

/// How often a process has written: a vault at rest writes its polls.
fn writes(id: u32) -> Result<u32> {
    let io = fs::read_to_string(format!("/proc/{id}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("syscw:")).context("no syscw")?;
    Ok(line.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::wait::wait_for;

    /// Loss prevented: a bar that is no bar since nothing was counted.
    #[test]
    fn the_system_counts_wake_ups_and_writes() {
        // a process of its own: threads of other tests end, and their counts with them
        let polls = ["-c", "while :; do echo poll; sleep 0.001; done"];
        let child = Command::new("sh").args(polls).stdout(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let counts = || (switches(&[child.id()]).unwrap(), writes(child.id()).unwrap());
        let (woke, wrote) = counts();
        let counted = wait_for("what it does is counted", PATIENCE, || match counts() {
            (wakes, writes) if wakes >= woke + 20 && writes >= wrote + 20 => Ok(()),
            counts => Err(format!("{counts:?}")),
        });
        child.kill().unwrap();
        child.wait().unwrap();
        counted.unwrap();
    }
}
