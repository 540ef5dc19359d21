//! The same life on relays that differ: paired, documents applied, a sale, other fees; and once more
//! after operator and machine have lost their connections and all that they had in memory.

use std::path::Path;

use bitspire_tests::books::Settled;
use bitspire_tests::customer::Customer;
use bitspire_tests::relay::odd::Habit;
use bitspire_tests::sale::buy;
use bitspire_tests::shop;
use bitspire_tests::spare::Spare;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::{RelayKind, World};
use serde_json::Value;

use super::wallet_away::{books_agree, given, settled, settled_and_reported};

fn lives_on(relay: RelayKind) {
    let program = Path::new(env!("CARGO_BIN_EXE_bitspire-world"));
    let mut world = World::on(relay, program, None).unwrap();
    let mut tell = |step: &str| eprintln!("{relay:?}: {step}");
    shop::start(&mut world, &mut tell).unwrap();
    shop::found(&world, &mut tell).unwrap();
    let seed = shop::invite(&world).unwrap();
    shop::pair(&world, &seed).unwrap();
    shop::stock(&world).unwrap();
    let customer = world.customer().unwrap();
    let first = buy(&world, &customer, 2_000).unwrap();
    world
        .operator_says(&["fees", "set", "--machine", shop::MACHINE, "--cash-out", "0.06"])
        .unwrap();
    wait_for("the machine goes by the new fees", PATIENCE, || {
        let shown = world.operator_says(&["machine", "show", shop::MACHINE]);
        let shown = shown.map_err(|error| format!("{error:#}"))?;
        match &shown["documents"]["fees"]["on_machine"] {
            Value::Bool(true) => Ok(()),
            _ => Err(shown["documents"].to_string()),
        }
    })
    .unwrap();
    // what the operator reads of its relay while all this goes on
    let relays = world.operator_says(&["relays"]).unwrap();
    let connections = relays[0]["connections"].as_array().unwrap();
    let documents = connections.iter().find(|one| one["for"] == "documents").unwrap();
    assert!(documents["ok_s"].is_u64(), "{relays}");
    sells_after_a_restart(&mut world, &customer, first.paid_msat);
    if relay == RelayKind::Odd(Habit::Keeper) {
        comes_again(&world);
    }
    if relay == RelayKind::Apart {
        is_redeemed(&world, &seed);
    }
    world.close();
}

/// A relay that carries everybody's letters brings a second machine to the bunker with the seed; it
/// is told who was first, by a name that programs know.
fn is_redeemed(world: &World, seed: &str) {
    let mut spare = Spare::start(world).unwrap();
    let said = spare.offer_seed(seed).unwrap();
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.error.contains("error[seed_redeemed]: not paired: "), "{said:?}");
    assert!(said.error.contains("by another client: make a new seed and pair again"), "{said:?}");
    assert_eq!(spare.status().unwrap()["pins"], Value::Null);
    spare.stop().unwrap();
}

/// What the relay kept has come to the operator since its restart, and was known there: a relay that
/// gives nothing again would pass for one that may.
fn comes_again(world: &World) {
    let again = wait_for("requests of before the restart", PATIENCE, || {
        let metrics = world.api("GET", "/metrics", None).map_err(|error| format!("{error:#}"))?;
        let text = metrics.as_str().unwrap_or_default();
        let name = "bitspire_rpc_refused_total{reason=\"duplicate\"} ";
        match text.lines().find_map(|line| line.strip_prefix(name)) {
            Some(count) if count != "0" => Ok(()),
            _ => Err(text.to_owned()),
        }
    });
    again.unwrap();
}

/// Operator and machine ask the relay for everything again, and get what it kept, holds back or has
/// lost: the first sale stays what it was, and the next one is one sale.
fn sells_after_a_restart(world: &mut World, customer: &Customer, first_msat: u64) {
    let sold = settled_and_reported(world, 1);
    for process in [&mut world.net, &mut world.operator] {
        process.stop().unwrap();
    }
    world.operator.start().unwrap();
    world.net.start().unwrap();
    let second = buy(world, customer, 2_000).unwrap();
    let all = settled_and_reported(world, 2);
    // but for its fees, which may have gone where they belong meanwhile
    let but = |one: &Settled| Settled { distribution: String::new(), ..one.clone() };
    assert_eq!(but(&all[0]), but(&sold[0]), "as it was before the restart");
    let wires: Vec<_> = all.iter().map(|one| u64::try_from(one.wire).unwrap() * 1_000).collect();
    assert_eq!(wires, [first_msat, second.paid_msat]);
    assert_eq!(given(world), 2);
    books_agree(world);
    assert_eq!(settled(world).len(), 2, "and nothing came after");
}

/// Loss prevented: a machine that stands still for ever on a relay which answers only what it must.
#[test]
fn on_a_relay_that_says_little() {
    lives_on(RelayKind::Odd(Habit::Silent));
}

/// Loss prevented: requests of before a restart that a relay kept, and that are carried out again by
/// a service or a machine which has forgotten them.
#[test]
fn on_a_relay_that_keeps_what_it_should_not() {
    lives_on(RelayKind::Odd(Habit::Keeper));
}

/// Loss prevented: the same where a relay serves only whom it knows.
#[test]
fn on_a_relay_that_wants_to_know_everybody() {
    lives_on(RelayKind::Odd(Habit::Strict));
}

/// Loss prevented: a machine that believes what a relay says.
#[test]
fn on_a_relay_that_lies() {
    lives_on(RelayKind::Odd(Habit::Liar));
}

/// Loss prevented: a pairing, a document or a sale that hangs on one message which does not come, or
/// comes twice.
#[test]
fn on_a_relay_that_loses_delays_and_repeats() {
    lives_on(RelayKind::Odd(Habit::Dropper));
}

/// Loss prevented: a battery that passes for what no good relay does; a seed that was in two hands, and
/// whose second machine nobody can tell from one that is out of reach.
#[test]
fn on_good_relays() {
    std::thread::scope(|scope| {
        scope.spawn(|| lives_on(RelayKind::Embedded));
        scope.spawn(|| lives_on(RelayKind::Apart));
    });
}
