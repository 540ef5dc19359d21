//! What the machine's two processes cost: memory, start, rest. The shipped program, its devices
//! simulated, nobody in front of it.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::binary::agent_program;
use super::{Figure, percentile};
use crate::process::Process;
use crate::wait::{PATIENCE, wait_for};
use crate::world::World;

/// Starts that are measured.
const RUNS: usize = 7;
/// How long the machine rests while its processor time is counted.
const REST: Duration = Duration::from_secs(10);
/// Ticks of a second in /proc (Linux, every architecture of ours).
pub(super) const TICKS: f64 = 100.0;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let program = agent_program()?;
    let mut starts = Vec::new();
    let mut rests = None;
    for run in 0..RUNS {
        // the devices' simulators are not what is measured: any build of them will do
        let mut world = World::new(&std::env::current_exe()?, None)?;
        world.acceptor.start()?;
        world.dispenser.start()?;
        let [mut vault, mut net] = parts(&world, &program);
        starts.push(start_ms(&world, &mut vault, &mut net)?);
        if run + 1 == RUNS {
            rests = Some(resting([&mut vault, &mut net])?);
        }
        net.stop()?;
        vault.stop()?;
    }
    let (memory, cpu) = rests.context("nothing was measured")?;
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
        figure("agent_ready_ms", percentile(&mut starts, 50)?, "ms", 150.0, "the bar", RUNS),
        figure("agent_rss_mb", memory, "MB", 20.0, "the bar, both processes, shared pages once", 1),
        figure("agent_idle_cpu_pct", cpu, "% of a core", 0.3, "the bar, both processes", 1),
    ])
}

/// The shipped program's two processes, in this world.
pub(super) fn parts(world: &World, program: &Path) -> [Process; 2] {
    let file = world.folder().join("machine.toml");
    ["vault", "net"].map(|name| {
        let arguments = vec!["--config".into(), file.clone().into(), name.into()];
        Process::new(name, program, arguments, &world.folder().join("logs"))
    })
}

/// Starts both; milliseconds until the kiosk shows the vault's own screen: both are up and have
/// found each other.
pub(super) fn start_ms(world: &World, vault: &mut Process, net: &mut Process) -> Result<f64> {
    let start = Instant::now();
    vault.start_until(|| Ok(()))?;
    net.start()?;
    let customer = world.customer()?;
    customer.sees(&["Not paired"], PATIENCE)?;
    Ok(start.elapsed().as_secs_f64() * 1_000.0)
}

/// Memory in MB and processor time in percent, of all together.
fn resting(processes: [&mut Process; 2]) -> Result<(f64, f64)> {
    let ids = ids(processes)?;
    at_rest(&ids)?;
    let before = ticks(&ids)?;
    thread::sleep(REST);
    let worked = f64::from(ticks(&ids)? - before) / TICKS;
    Ok((memory_mb(&ids)?, worked / REST.as_secs_f64() * 100.0))
}

/// Their ids; all must run.
pub(super) fn ids(processes: [&mut Process; 2]) -> Result<Vec<u32>> {
    let id = |process: &mut Process| {
        process.id().with_context(|| format!("{} runs no more", process.name()))
    };
    processes.into_iter().map(id).collect()
}

/// Waits until a second has passed without work.
pub(super) fn at_rest(ids: &[u32]) -> Result<()> {
    wait_for("a machine at rest", Duration::from_secs(60), || {
        let before = ticks(ids).map_err(|error| error.to_string())?;
        thread::sleep(Duration::from_secs(1));
        match ticks(ids).map_err(|error| error.to_string())? - before {
            0 | 1 => Ok(()),
            busy => Err(format!("{busy} ticks in a second")),
        }
    })
}

/// Resident memory of all together in MB, shared pages once.
pub(super) fn memory_mb(ids: &[u32]) -> Result<f64> {
    let mut kilobytes = 0;
    for id in ids {
        kilobytes += shared_out_kb(*id)?;
    }
    Ok(f64::from(kilobytes) * 1_024.0 / 1_000_000.0)
}

/// Ticks of processor time that the processes have used.
pub(super) fn ticks(ids: &[u32]) -> Result<u32> {
    let mut all = 0;
    for id in ids {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // the name, in brackets, may hold anything; the 12th and 13th field after it count
        let (_, fields) = stat.rsplit_once(')').context("no process name")?;
        for field in fields.split_whitespace().skip(11).take(2) {
            all += field.parse::<u32>()?;
        }
    }
    Ok(all)
}

/// Resident memory in KiB, pages that are shared divided among who shares them (PSS).
pub(super) fn shared_out_kb(id: u32) -> Result<u32> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let mut lines = rollup.lines();
    let line = lines.find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: figures of another process, or of fields that the system does not have.
    #[test]
    fn the_system_tells_what_a_process_costs() {
        let own = std::process::id();
        assert!(shared_out_kb(own).unwrap() > 100);
        let before = ticks(&[own]).unwrap();
        let start = Instant::now();
        let worked = wait_for("a tick of work", Duration::from_secs(20), || {
            let mut sum = 0u64;
            for number in 0..1_000_000u64 {
                sum = sum.wrapping_add(std::hint::black_box(number));
            }
            std::hint::black_box(sum);
            match ticks(&[own]).unwrap() - before {
                0 => Err("no tick yet".to_owned()),
                ticks => Ok(ticks),
            }
        });
        assert!(worked.unwrap() > 0, "after {:?}", start.elapsed());
    }
}
