//! A machine's whole life, with our own bunker and with nsecbunkerd: paired, sold with, revoked,
//! refused, paired again by its operator, sold with again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bitspire_tests::customer::Customer;
use bitspire_tests::sale::{IDLE, buy, feeds, offered, sell, settlements, steps_up};
use bitspire_tests::screen::{amounts, heading};
use bitspire_tests::shop::{self, MACHINE};
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::wallet::CustomerWallet;
use bitspire_tests::world::{BunkerKind, Parts, RelayKind, World};
use serde_json::{Value, json};

/// A machine that notices soon that nobody answers it.
const IMPATIENT: &str = "\n[vault]\nheartbeat_s = 5\n\n[vault.policy]\noffline_after_s = 15\n";

fn world(relay: RelayKind, bunker: BunkerKind) -> World {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let parts = Parts { relay, bunker, ..Parts::default() };
    let world = World::of(parts, program, None).unwrap();
    let path = world.folder().join("machine.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + IMPATIENT).unwrap();
    world
}

/// One sale in each direction, and each in everybody's books.
fn sells(world: &World, customer: &Customer, wallet: &CustomerWallet) {
    let before = settled(world).len();
    buy(world, customer, 2_000).unwrap();
    sell(world, customer, wallet, &[20]).unwrap();
    wait_for("both settlements", PATIENCE, || {
        let new = settled(world).split_off(before);
        let good = new.iter().filter(|row| row["status"] == "accepted").count();
        let reported =
            |row: &Value| row["direction"] != "cash_out" || row["dispense_outcome"] == "full";
        if good == 2 && new.iter().all(reported) { Ok(()) } else { Err(format!("{new:?}")) }
    })
    .unwrap();
}

fn settled(world: &World) -> Vec<Value> {
    settlements(world).unwrap()
}

fn status(world: &World) -> Value {
    world.status().unwrap()
}

/// How often the machine's bunker did not say hello.
fn unheard(world: &World) -> usize {
    let log = fs::read_to_string(world.folder().join("logs/net.log")).unwrap();
    log.matches("bunker_no_hello").count()
}

/// Whether nothing is for sale on this screen, but for what a claim code brings.
fn is_closed(html: &str) -> bool {
    let shown = heading(html);
    shown.contains("Out of service") || (shown.contains(IDLE) && amounts(html).is_empty())
}

/// Somebody who wants notes gets none, nor an invoice.
fn is_turned_away(customer: &Customer) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match customer.sees(&[IDLE, "Out of service"], Duration::from_secs(1)) {
            Ok((_, html)) if is_closed(&html) => return,
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
        // whatever end of a sale is on the screen, they leave it
        let _ = customer.touches(&json!({"action": "finish"}));
    }
    customer.touches(&json!({"action": "start_cash_out", "fiat_minor": 2_000})).unwrap();
    let away = |html: &str| (heading(html).contains("Cancelled") || is_closed(html)).then_some(());
    customer.looks("a customer who is sent away", PATIENCE, away).unwrap();
}

/// Waits until the machine sells nothing, its bunker having been silent or refused it so often.
fn is_refused(world: &World, times: usize) {
    wait_for("a machine that is refused", PATIENCE, || {
        let shown = world.status().map_err(|error| format!("{error:#}"))?;
        let reasons = shown["out_of_service"].to_string();
        match unheard(world) >= times && reasons.contains("the service is out of reach") {
            true => Ok(()),
            false => Err(shown.to_string()),
        }
    })
    .unwrap();
    let machines = world.api("GET", "/dca/machines", None).unwrap();
    assert!(!machines[0]["revoked_at"].is_null(), "{machines}");
}

/// Everything that holds a part of the revocation, or could forget it, loses its power.
fn restart_all(world: &mut World) {
    let World { net, vault, operator, bunker, relay, .. } = world;
    for process in [net, vault, operator, bunker].into_iter().chain(relay.as_mut()) {
        process.kill9().unwrap();
    }
    if let Some(relay) = relay {
        relay.start().unwrap();
    }
    world.bunker.start().unwrap();
    world.operator.start().unwrap();
    world.start_vault().unwrap();
    world.net.start().unwrap();
}

/// Pair, sell, revoke, refused, pair again, sell.
fn life(mut world: World) {
    let mut tell = |step: &str| eprintln!("{step}");
    shop::open(&mut world, &mut tell).unwrap();
    let customer = world.customer().unwrap();
    let wallet = CustomerWallet::new().unwrap();
    sells(&world, &customer, &wallet);
    let first = status(&world);

    tell("a customer has fed a note and has not scanned yet, when the machine is revoked");
    steps_up(&customer).unwrap();
    customer.touches(&json!({"action": "start_cash_in"})).unwrap();
    customer.sees(&["Feed your notes"], PATIENCE).unwrap();
    feeds(&world, &customer, 20, 2_000).unwrap();
    customer.touches(&json!({"action": "finish"})).unwrap();
    let lnurl = offered(&customer).unwrap();
    let revoked = world.operator_says(&["revoke", MACHINE]).unwrap();
    let steps = revoked["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["ok"] == true), "{revoked}");
    assert!(steps.iter().any(|step| step["step"] == "revoke_user"), "{revoked}");
    tell("what they were offered is theirs all the same");
    wallet.scan(&lnurl).unwrap();
    is_turned_away(&customer);
    tell("nothing comes back with the power");
    let before = unheard(&world);
    restart_all(&mut world);
    is_refused(&world, before + 1);
    assert_eq!(status(&world)["net"]["session"], false);
    assert_ne!(status(&world)["open_txns"], 0, "the machine has not heard of the payment");

    tell("its operator pairs it again, at the machine; nobody counts its bays");
    shop::pair(&world, &shop::invite(&world).unwrap()).unwrap();
    shop::opens(&world).unwrap();
    let second = status(&world);
    assert_ne!(first["pins"]["spire"], second["pins"]["spire"]);
    assert_eq!(first["pins"]["operator"], second["pins"]["operator"]);
    assert!(first["journal_seq"].as_u64() < second["journal_seq"].as_u64(), "{second}");
    wait_for("the sale of before to end", PATIENCE, || {
        let shown = world.status().map_err(|error| format!("{error:#}"))?;
        if shown["open_txns"] == 0 { Ok(()) } else { Err(shown.to_string()) }
    })
    .unwrap();
    sells(&world, &customer, &wallet);
    assert_eq!(settled(&world).len(), 5);
    wait_for("books that agree", PATIENCE, || {
        let audit = world.operator_says(&["audit"]);
        audit.map(drop).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    world.close();
}

/// Loss prevented: a machine that was cut off and still sells, or that nobody gets back into service
/// without losing its books and what its customers are owed.
#[test]
fn a_machine_is_revoked_and_paired_again_with_our_own_bunker() {
    life(world(RelayKind::Embedded, BunkerKind::Own));
}

/// Loss prevented: the same with the bunker that operators have already, which locks its keys at each
/// start and takes no request in an encryption that it does not read.
#[test]
fn a_machine_is_revoked_and_paired_again_with_nsecbunkerd() {
    life(world(RelayKind::Apart, BunkerKind::Nsecbunkerd("fork")));
}

/// Loss prevented: an operator who learns at the first sale, or not at all, that the bunker which is
/// there already cannot serve a machine.
#[test]
fn what_the_first_nsecbunkerd_cannot_do_is_told_before_anything_is_made() {
    let mut world = world(RelayKind::Apart, BunkerKind::Nsecbunkerd("upstream"));
    shop::start(&mut world, &mut |step| eprintln!("{step}")).unwrap();
    let status = world.operator_says(&["bunker", "status"]).unwrap().to_string();
    assert!(status.contains("machines cannot be paired with it"), "{status}");
    let refused = format!("{:#}", world.operator_says(&["operator", "init"]).unwrap_err());
    assert!(refused.contains("version of nsecbunkerd"), "{refused}");
    world.close();
}
