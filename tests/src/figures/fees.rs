//! A change of the platform's fees over ten thousand machines.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_operator::publish::AT_BUNKERS;
use bitspire_operator::signer::RemoteSigner as _;
use bitspire_operator::signer::provision::{Wiring, reopen};
use bitspire_operator::signer::remote::Remote;
use bitspire_shared::ids::PubKey;
use bitspire_shell::clock::Clock;
use bitspire_shell::secrets::Keyring;
use futures_util::StreamExt as _;
use nostr::{Keys, Kind, Timestamp, UnsignedEvent};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::{Figure, fleet};
use crate::wait::{PATIENCE, wait_for};
use crate::world::World;

/// Machines, each of which gets a document.
const MACHINES: u64 = 10_000;
/// Documents that the bound is measured with, before the change and again after it: what else the
/// computer does meanwhile falls on both.
const SAMPLE: usize = 3_000;
/// As long as a document is.
const LENGTH: usize = 900;
/// Between two looks at what waits: each costs the service the reading of its machines, so the next one
/// comes when about half of it may have been sent.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(4));
/// For each that waits.
const EACH: Duration = Duration::from_micros(500);
/// It is given up after this.
const LONGEST: Duration = Duration::from_secs(1_800);

pub(super) fn measure() -> Result<Vec<Figure>> {
    let mut world = World::new(&std::env::current_exe()?, None)?;
    world.operator.start()?;
    let shown = world.operator_says(&["operator", "show"])?;
    let admin = shown["bunker_admin_npub"].as_str().context("the bunker's administrator")?;
    world.bunker.start_with(&["--admin", admin])?;
    wait_for("the operator has its key", PATIENCE, || {
        world.operator_says(&["operator", "init"]).map_err(|error| format!("{error:#}"))
    })?;
    let shown = world.operator_says(&["operator", "show"])?;
    let operator = &shown["operators"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned).context("the operator's key");
    let key = PubKey::from_hex_or_npub(&text(&operator["operator_npub"])?)?;
    let name = text(&operator["bunker_key_name"])?;
    let relay = text(&shown["relays"][0])?;
    world.operator.stop()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fleet::pair_all(world.folder()))?;
    world.operator.start()?;
    let of_one = |world: &World| runtime.block_on(of_one(world.folder(), key, &name, &relay));
    let before = of_one(&world)?;

    let started = Instant::now();
    world.operator_says(&["fees", "set", "--super", "--cash-out", "0.02"])?;
    wait_for("the last document at the relay", LONGEST, || match waiting(&world) {
        Ok(0) => Ok(()),
        Ok(left) => {
            let often = u32::try_from(left).unwrap_or(u32::MAX);
            thread::sleep(EACH.saturating_mul(often).clamp(LOOKS.0, LOOKS.1));
            Err(format!("{left} wait"))
        }
        Err(error) => Err(format!("{error:#}")),
    })?;
    let took = started.elapsed().as_secs_f64();
    let each = f64::midpoint(before, of_one(&world)?);
    world.bunker.stop()?;
    world.operator.stop()?;
    Ok(vec![Figure {
        name: "fee_change_10k_s",
        value: took,
        unit: "s",
        bound: each * MACHINES as f64,
        bound_is: "two signatures and one encryption each by the same bunker over the same relay, as many documents at once as the service has there",
        peer: None,
        runs: 1,
    }])
}

/// Documents that wait to be sent.
fn waiting(world: &World) -> Result<u64> {
    let Value::String(text) = world.api("GET", "/metrics", None)? else { bail!("no figures") };
    let name = "bitspire_outbox_waiting{topic=\"document\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map_or(Ok(0), str::parse)?)
}

/// Seconds that the bunker takes for one document, with [`AT_BUNKERS`] of them under way.
async fn of_one(folder: &Path, key: PubKey, name: &str, relay: &str) -> Result<f64> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let wiring = Wiring {
        keyring: Keyring::open(&folder.join("operator"), None)?,
        relays: vec![relay.to_owned()],
        clock: Clock::system(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    let remote = reopen(key, name, &wiring).await?;
    // until it is connected
    one(&remote, key).await?;
    // each document is for another machine: no key that was agreed on before helps
    let made = (0..SAMPLE).map(|_| Ok(PubKey::new(Keys::generate().public_key())?));
    let machines: Vec<_> = made.collect::<Result<_>>()?;
    let started = Instant::now();
    let all = machines.into_iter().map(|machine| one(&remote, machine));
    let mut all = futures_util::stream::iter(all).buffer_unordered(AT_BUNKERS);
    while let Some(made) = all.next().await {
        made?;
    }
    let each = started.elapsed().as_secs_f64() / SAMPLE as f64;
    drop(all);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(each)
}

/// What the service asks of the bunker for one document.
async fn one(remote: &Remote, machine: PubKey) -> Result<()> {
    let event = |content: &str| {
        let kind = Kind::from(30_078);
        UnsignedEvent::new(remote.key().nostr(), Timestamp::now(), kind, [], content)
    };
    remote.sign(event("{}")).await?;
    let text = Zeroizing::new("x".repeat(LENGTH));
    let content = remote.encrypt(machine, text).await?;
    remote.sign(event(&content)).await?;
    Ok(())
}
