//! The places in the programs at which a part dies by itself: between record, flush, effect and
//! result, where nobody who looks from outside could hit.

use std::collections::BTreeSet;
use std::path::Path;

use bitspire_shared::money::Direction;

use crate::case::Place;

/// Where the vault dies while it gives notes.
const GIVING: &[Place] = &[
    ("journal.before_flush.paid", 0),
    ("drive.before_effect.dispense", 0),
    ("journal.before_write.dispense_committed", 0),
    ("journal.before_flush.dispense_committed", 0),
    ("journal.after_flush.dispense_committed", 0),
    ("mark.before_flush.slot", 0),
    ("mark.after_flush.slot", 0),
    ("drive.after_record.dispense", 0),
    ("device.before_write.dispenser", 0),
    ("device.after_write.dispenser", 0),
    ("device.after_write.dispenser", 2),
    ("journal.before_flush.settled", 0),
];

/// Where it dies while it takes notes.
const TAKING: &[Place] = &[
    ("drive.before_effect.stack", 0),
    ("journal.before_flush.stack_committed", 0),
    ("journal.after_flush.stack_committed", 0),
    ("mark.before_flush.slot", 0),
    ("mark.after_flush.slot", 0),
    ("drive.after_record.stack", 0),
    ("drive.after_effect.stack", 0),
    ("device.before_write.acceptor", 0),
    ("device.after_write.acceptor", 0),
    ("device.after_write.acceptor", 1),
    ("journal.before_flush.credited", 0),
    ("journal.before_flush.redeemed", 0),
];

/// Where the operator's daemon dies while it is paid.
const PAID: &[Place] = &[
    ("invoice.before_make.cash_out", 0),
    ("invoice.after_make.cash_out", 0),
    ("outbox.before_send.payment_settled", 0),
    ("outbox.after_send.payment_settled", 0),
];

/// Where it dies while it pays.
const PAYING: &[Place] = &[
    ("payout.before_pay.withdraw", 0),
    ("payout.after_pay.withdraw", 0),
    ("outbox.before_send.withdraw_paid", 0),
    ("outbox.after_send.withdraw_paid", 0),
];

/// The vault's places.
pub(crate) const VAULT: [(Direction, &[Place]); 2] =
    [(Direction::CashOut, GIVING), (Direction::CashIn, TAKING)];
/// The operator's.
pub(crate) const OPERATOR: [(Direction, &[Place]); 2] =
    [(Direction::CashOut, PAID), (Direction::CashIn, PAYING)];

/// The names of the places in a folder's sources.
fn named_in(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in(&path, names);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let calls = text.split("crash::point(\"").skip(1);
            names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}

/// Loss prevented: a place that was put between a record and its effect, and where nothing was ever
/// let die.
#[test]
fn each_place_is_one_where_somebody_dies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut there = BTreeSet::new();
    for package in ["agent", "operator"] {
        named_in(&root.join(package).join("src"), &mut there);
    }
    let all = VAULT.into_iter().chain(OPERATOR).flat_map(|(_, places)| places);
    let tried = all.map(|(place, _)| place.rsplit_once('.').unwrap().0.to_owned());
    assert_eq!(tried.collect::<BTreeSet<_>>(), there);
}
