//! The world's processes start, are killed and start again on the same files.

use std::path::Path;

use bitspire_tests::process::Process;
use bitspire_tests::shop;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::{OPENING_SATS, World};
use serde_json::json;

fn world() -> World {
    World::new(Path::new(env!("CARGO_BIN_EXE_bitspire-world")), None).unwrap()
}

/// Loss prevented: crash tests against a device that forgets its notes by itself, or that is no
/// process at all.
#[test]
fn devices_run_as_processes_and_keep_count() {
    let mut world = world();
    world.acceptor.start().unwrap();
    world.dispenser.start().unwrap();
    let link = world.folder().join("f56.tty");
    assert!(link.exists(), "the dispenser's port is {}", link.display());
    let before = world.counters(&world.dispenser).unwrap();
    world.act(&world.dispenser, &json!({"action": "refill", "bay": 1, "notes": 5})).unwrap();
    assert_ne!(world.counters(&world.dispenser).unwrap(), before);
    let refused = world.act(&world.acceptor, &json!({"action": "insert", "denomination": 20}));
    assert!(refused.is_err(), "nobody polls it: the inlet is closed");
    world.dispenser.kill9().unwrap();
    assert!(world.counters(&world.dispenser).is_err());
    world.dispenser.start().unwrap();
    world.acceptor.stop().unwrap();
}

/// Loss prevented: an operator that does not come back, or funds its wallet again, after a power
/// cut.
#[test]
fn the_operator_survives_kill_9() {
    let mut world = world();
    world.operator.start().unwrap();
    let added = world
        .operator_says(&[
            "machine",
            "add",
            "--name",
            "bar",
            "--currency",
            "EUR",
            "--wallet",
            "machine",
        ])
        .unwrap();
    for _ in 0..3 {
        world.operator.kill9().unwrap();
        assert!(world.api("GET", "/health", None).is_err());
        world.operator.start().unwrap();
        let health = wait_for("a healthy operator", PATIENCE, || {
            world.api("GET", "/health", None).map_err(|error| format!("{error:#}"))
        });
        assert_eq!(health.unwrap()["store"]["ok"], true);
        let machines = world.api("GET", "/dca/machines", None).unwrap();
        assert_eq!(machines[0]["name"], "bar", "{added}");
        let balances = world.api("GET", "/simulator/balances", None).unwrap();
        assert_eq!(balances["machine"]["msat"], OPENING_SATS * 1_000);
    }
    world.operator.stop().unwrap();
}

/// Loss prevented: a test that waits for ever, or fails without a word, where a part did not start.
#[test]
fn a_part_that_does_not_start_says_why() {
    let mut world = world();
    std::fs::write(world.folder().join("operator.toml"), "[nonsense]\n").unwrap();
    let error = format!("{:#}", world.operator.start().unwrap_err());
    assert!(error.contains("operator ended before it was ready"), "{error}");
    assert!(error.contains("nonsense"), "{error}");
    assert!(world.operator.kill9().is_err(), "it had ended by itself");
}

/// Loss prevented: a kiosk that keeps an old boot's door open, or a page that never comes back, after
/// a power cut.
#[test]
fn the_kiosk_comes_back_after_kill_9() {
    let mut world = world();
    world.net.start().unwrap();
    let address = || std::fs::read_to_string(world.folder().join("run/kiosk.url")).unwrap();
    let first = address();
    let customer = world.customer().unwrap();
    customer.sees(&["One moment"], PATIENCE).unwrap();
    world.net.kill9().unwrap();
    assert!(customer.touches(&json!({"action": "start_cash_in"})).is_err(), "nobody is there");
    world.net.start().unwrap();
    let second = std::fs::read_to_string(world.folder().join("run/kiosk.url")).unwrap();
    assert_ne!(first, second, "a boot has a token of its own");
    customer.sees(&["One moment"], PATIENCE).unwrap();
    world.net.stop().unwrap();
}

/// Loss prevented: a vault that does not come back on its journal, or a machine whose two processes
/// do not find each other again, whichever of them lost its power.
#[test]
fn vault_and_net_find_each_other_after_kill_9() {
    let mut world = world();
    world.acceptor.start().unwrap();
    world.dispenser.start().unwrap();
    world.start_vault().unwrap();
    world.net.start().unwrap();
    let customer = world.customer().unwrap();
    customer.sees(&["Not paired"], PATIENCE).unwrap();
    let mut position = 0;
    for _ in 0..3 {
        world.vault.kill9().unwrap();
        customer.sees(&["One moment"], PATIENCE).unwrap();
        world.start_vault().unwrap();
        let journal = world.status().unwrap()["journal_seq"].as_u64().unwrap();
        assert!(journal > position, "{journal} entries after {position}");
        position = journal;
        customer.sees(&["Not paired"], PATIENCE).unwrap();
    }
    world.net.kill9().unwrap();
    world.net.start().unwrap();
    customer.sees(&["Not paired"], PATIENCE).unwrap();
    let second = format!("{:#}", second_vault(&world));
    assert!(second.contains("ended before it was ready"), "{second}");
    world.net.stop().unwrap();
    world.vault.stop().unwrap();
}

/// Loss prevented: a seed, a key or a customer's code in the log of a program that fell over; all of
/// them on the disk, since one that was not started by its unit left its memory there.
#[test]
fn a_program_that_falls_tells_no_value_and_leaves_no_memory() {
    let mut world = world();
    shop::start(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    let World { vault, net, operator, bunker, .. } = &mut world;
    for process in [vault, net, operator, bunker] {
        let limits = format!("/proc/{}/limits", process.id().unwrap());
        let limits = std::fs::read_to_string(limits).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        let most: Vec<&str> = core.split_whitespace().take(2).collect();
        assert_eq!(most, ["0", "0"], "{}: {core}", process.name());
    }
    world.vault.stop().unwrap();
    let secret = "spire-seed:v1:c2VjcmV0";
    world.vault.panics_at("journal.before_write.started", secret);
    let fell = format!("{:#}", world.start_vault().unwrap_err());
    assert!(fell.contains("panicked at "), "{fell}");
    let log = std::fs::read_to_string(world.folder().join("logs/vault.log")).unwrap();
    assert!(log.contains("panicked at ") && !log.contains(secret), "{log}");
}

/// What a second vault on the same journal says.
fn second_vault(world: &World) -> anyhow::Error {
    let folder = world.folder();
    let arguments = ["agent".into(), "--config".into(), folder.join("machine.toml").into()];
    let arguments = arguments.into_iter().chain(["vault".into()]).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut second = Process::new("second", program, arguments, &folder.join("logs"));
    second.start_until(|| anyhow::bail!("it must not run")).unwrap_err()
}
