//! The same life on relays that differ: paired, documents applied, a sale, other fees.

use std::path::Path;

use bitspire_tests::relay::odd::Habit;
use bitspire_tests::sale::buy;
use bitspire_tests::shop;
use bitspire_tests::spare::Spare;
use bitspire_tests::wait::{PATIENCE, wait_for};
use bitspire_tests::world::{RelayKind, World};
use serde_json::Value;

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
    buy(&world, &customer, 2_000).unwrap();
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

/// Loss prevented: a machine that stands still for ever on a relay which answers only what it must.
#[test]
fn on_a_relay_that_says_little() {
    lives_on(RelayKind::Odd(Habit::Silent));
}

/// Loss prevented: requests of yesterday that a relay kept and that are carried out again.
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
