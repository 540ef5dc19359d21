//! kill -9 of each part at each entry of the machine's journal, in both directions of a sale; and
//! the vault and the operator's daemon dying by themselves between record, flush, effect and result.
//!
//! Promise held: whatever dies whenever, the sale ends finished or owed, nothing is dispensed by a
//! start, and ledger, wallet, journal and the simulated notes agree afterwards.

mod case;
mod places;

use bitspire_tests::world::{RelayKind, World};

use case::{dies_at_each_entry, dies_at_each_place};

/// Loss prevented: notes given twice, or never, after the machine's power was cut.
#[test]
fn the_vault_dies_at_each_entry() {
    dies_at_each_entry("vault", RelayKind::Embedded, |world: &mut World| &mut world.vault);
}

/// Loss prevented: a sale that is forgotten with the process that carried its messages.
#[test]
fn net_dies_at_each_entry() {
    dies_at_each_entry("net", RelayKind::Embedded, |world| &mut world.net);
}

/// Loss prevented: sats booked twice, or never, after the service's power was cut.
#[test]
fn the_operator_dies_at_each_entry() {
    dies_at_each_entry("operator", RelayKind::Embedded, |world| &mut world.operator);
}

/// Loss prevented: a sale that waits for a key which it does not need.
#[test]
fn the_bunker_dies_at_each_entry() {
    dies_at_each_entry("bunker", RelayKind::Embedded, |world| &mut world.bunker);
}

/// Loss prevented: a sale that ends with one lost message, on a relay that is not ours.
#[test]
fn the_relay_dies_at_each_entry() {
    dies_at_each_entry("relay", RelayKind::Apart, |world| world.relay.as_mut().unwrap());
}

/// Loss prevented: notes given or taken twice, or for nothing, after the power went between what is
/// written and what is done.
#[test]
fn the_vault_dies_between_record_and_effect() {
    dies_at_each_place("vault", |world| &mut world.vault, places::VAULT);
}

/// Loss prevented: sats paid twice, or an invoice that nobody can pay, after the service's power went
/// between what it wrote and what a wallet or a relay was told.
#[test]
fn the_operator_dies_between_record_and_effect() {
    dies_at_each_place("operator", |world| &mut world.operator, places::OPERATOR);
}
