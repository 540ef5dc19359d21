//! From a folder of configuration to a machine that sells: what an operator and an installer do,
//! with the commands that they type.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::wait::{PATIENCE, wait_for};
use crate::world::{BunkerKind, CURRENCY, World};

/// Fees as fractions: the platform's and the operator's, the same in both directions.
pub const FEES: (&str, &str) = ("0.03", "0.05");

/// The machine's number at the operator.
pub const MACHINE: &str = "1";

/// Starts every process, pairs the machine, publishes fees and cassettes, and waits until it is
/// open; `tell` gets a line a step.
///
/// # Errors
/// At the first step that does not succeed.
pub fn open(world: &mut World, tell: &mut dyn FnMut(&str)) -> Result<()> {
    start(world, tell)?;
    found(world, tell)?;
    tell("pairing: a key of the machine's own in the bunker, a seed for it");
    pair(world, &invite(world)?)?;
    tell("notes for the bays, counted");
    stock(world)
}

/// Starts every process; the operator has found its bunker.
///
/// # Errors
/// At the first one that does not come up.
pub fn start(world: &mut World, tell: &mut dyn FnMut(&str)) -> Result<()> {
    match world.parts.recycler {
        Some(_) => {
            tell("a recycler, simulated");
            world.acceptor.start()?;
        }
        None => {
            tell("a note validator and a dispenser, simulated");
            world.acceptor.start()?;
            world.dispenser.start()?;
        }
    }
    if let Some(relay) = &mut world.relay {
        tell("a relay of somebody else's");
        relay.start()?;
    }
    tell("the operator's daemon: relay, API, LNURL");
    world.operator.start()?;
    let operator = world.operator_says(&["operator", "show"])?;
    let admin = operator["bunker_admin_npub"].as_str().context("the bunker's administrator")?;
    tell("the bunker, which holds the keys");
    world.bunker.start_with(&["--admin", admin])?;
    if world.parts.bunker != BunkerKind::Own {
        tell("its name for the operator's daemon, which starts again with it");
        world.name_bunker()?;
        world.operator.stop()?;
        world.operator.start()?;
    }
    wait_for("the operator finds its bunker", PATIENCE, || {
        let shown = world.operator_says(&["operator", "show"]);
        match shown.map_err(|error| format!("{error:#}"))?["bunker_npub"].as_str() {
            Some(_) => Ok(()),
            None => Err("it has none".to_owned()),
        }
    })?;
    tell("the machine: vault and network process");
    world.start_vault()?;
    world.net.start()
}

/// The operator's key, the platform's fees, and a machine that nobody has paired yet.
///
/// # Errors
/// When the operator's daemon refuses one of them.
pub fn found(world: &World, tell: &mut dyn FnMut(&str)) -> Result<()> {
    tell("the operator's key, made in the bunker");
    // on a relay that loses messages an answer may be missing: it is run again
    wait_for("the operator's key", PATIENCE, || {
        let made = world.operator_says(&["operator", "init"]);
        made.map_err(|error| format!("{error:#}"))
    })?;
    tell("a machine, and fees: 3 % for the platform, 5 % for the operator");
    let (platform, own) = FEES;
    let both = ["--cash-in", platform, "--cash-out", platform];
    world.operator_says(&[["fees", "set", "--super"].as_slice(), &both].concat())?;
    let add = ["machine", "add", "--name", "demo", "--currency", CURRENCY, "--wallet", "machine"];
    let fees = ["--cash-in-fee", own, "--cash-out-fee", own];
    let machine = world.operator_says(&[add.as_slice(), &fees].concat())?;
    if machine["id"].as_u64() != MACHINE.parse().ok() {
        bail!("expected machine {MACHINE}, got {machine}");
    }
    Ok(())
}

/// A seed URL for the machine: a secret.
///
/// # Errors
/// When the operator or its bunker refuses.
pub fn invite(world: &World) -> Result<String> {
    // likewise: an attempt that lost an answer is given up, and the next one has a key of its own
    let paired = wait_for("a pairing", PATIENCE, || {
        let paired = world.operator_says(&["pair", MACHINE, "--allow-loopback"]);
        paired.map_err(|error| format!("{error:#}"))
    })?;
    Ok(paired["seed_url"].as_str().context("the pairing's seed")?.to_owned())
}

/// Pairs the machine by its seed; the operator compares the digits and confirms.
///
/// # Errors
/// At the first step that does not succeed.
pub fn pair(world: &World, seed_url: &str) -> Result<()> {
    world.give_seed(seed_url)?;
    let digits = wait_for("digits to compare", PATIENCE, || {
        let status = world.status().map_err(|error| format!("{error:#}"))?;
        status["digits"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
    })?;
    wait_for("the operator hears of the machine", PATIENCE, || {
        let confirmed = world.operator_says(&["confirm", MACHINE, &digits]);
        confirmed.map_err(|error| format!("{error:#}"))
    })?;
    Ok(())
}

/// Fills the bays, and waits until the machine sells.
///
/// # Errors
/// When it does not in time.
pub fn stock(world: &World) -> Result<()> {
    if world.parts.recycler.is_some() {
        for (bay, _, count) in world.parts.bays() {
            // it takes them once the vault has told it what to keep
            let load = json!({"action": "load", "box": bay, "notes": count});
            wait_for("a box that keeps notes", PATIENCE, || {
                world.act(&world.acceptor, &load).map_err(|error| format!("{error:#}"))
            })?;
        }
    }
    let mut load = vec!["cassettes", "set", "--machine", MACHINE, "--reason", "first load"];
    let bays = world.parts.bays().iter();
    let bays: Vec<_> =
        bays.map(|(bay, note, count)| format!("--bay={bay}={note}:{count}")).collect();
    load.extend(bays.iter().map(String::as_str));
    world.operator_says(&load)?;
    opens(world)
}

/// Waits until the machine sells.
///
/// # Errors
/// When it does not in time.
pub fn opens(world: &World) -> Result<()> {
    wait_for("a machine that sells", PATIENCE, || {
        let status = world.status().map_err(|error| format!("{error:#}"))?;
        match sells(&status) {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    })
}

/// Whether nothing stands in the way of a sale.
#[must_use]
pub fn sells(status: &Value) -> bool {
    let reasons = status["out_of_service"].as_array();
    status["net"]["session"] == true && reasons.is_some_and(Vec::is_empty)
}
