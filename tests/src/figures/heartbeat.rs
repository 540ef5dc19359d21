//! What ten thousand machines cost that each say once a minute how they are: processor time and memory
//! of the whole service, with its database on the disk.
//!
//! Each heartbeat comes out of memory as the relay pool hands it over, verified here, and is answered
//! into a relay that is not there. The first round is not counted: in it the service derives each
//! machine's conversation key, which it then keeps.

use std::time::{Duration, Instant};

use anyhow::Result;
use nostr::Event;

use super::Figure;
use super::agent::{TICKS, shared_out_kb, ticks};
use super::rpc::{AT_ONCE, Service, runtime};

/// Machines.
const MACHINES: u32 = 10_000;
/// In which each of them is heard once.
const MINUTE: Duration = Duration::from_secs(60);
/// The bars.
const CPU_PCT: f64 = 15.0;
const RSS_MB: f64 = 300.0;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let (cpu, memory) = runtime()?.block_on(minute())?;
    let figure = |name, value, unit, bound, bound_is| Figure {
        name,
        value,
        unit,
        bound,
        bound_is,
        peer: None,
        runs: 1,
    };
    Ok(vec![
        figure("heartbeat_10k_cpu_pct", cpu, "% of a core", CPU_PCT, "the bar"),
        figure("heartbeat_10k_rss_mb", memory, "MB", RSS_MB, "the bar, with the events themselves"),
    ])
}

/// One heartbeat of each machine.
fn round(service: &Service, n: u64) -> Result<Vec<Event>> {
    service.peers.iter().map(|peer| service.request(peer, n)).collect()
}

async fn minute() -> Result<(f64, f64)> {
    let service = Service::start(usize::try_from(MACHINES)?).await?;
    for (event, n) in round(&service, 0)?.into_iter().zip(0u64..) {
        service.until_answered(n.saturating_sub(AT_ONCE)).await?;
        service.hand_over(event)?;
    }
    service.until_answered(u64::from(MACHINES)).await?;
    let events = round(&service, 1)?;
    let own = [std::process::id()];
    let (before, started) = (ticks(&own)?, Instant::now());
    for (event, n) in events.into_iter().zip(0u32..) {
        let due = started + MINUTE * n / MACHINES;
        tokio::time::sleep_until(due.into()).await;
        service.hand_over(event)?;
    }
    service.until_answered(u64::from(MACHINES) * 2).await?;
    let worked = f64::from(ticks(&own)? - before) / TICKS;
    let cpu = worked / started.elapsed().as_secs_f64() * 100.0;
    let memory = f64::from(shared_out_kb(own[0])?) * 1_024.0 / 1_000_000.0;
    service.stop().await;
    Ok((cpu, memory))
}
