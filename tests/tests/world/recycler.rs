//! Recyclers from outside: what customers feed is sold again, and every part's books have it once.

use std::process::Command;

use bitspire_tests::books::{Journal, Ledger};
use bitspire_tests::world::{BOXES, CURRENCY};
use serde_json::{Value, json};

/// Minor units of a unit of the currency.
const MINOR: i64 = 100;

/// Loss prevented: a recycled note that journal and ledger have in different places, or that is sold
/// without having been there.
fn sells_what_it_was_fed(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitspire-world"));
    command.args(["demo", "--once", "--seed", "7", "--recycler", kind, "--keep"]).arg(&kept);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{kind}: {}\n{told}", output.status);
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    for held in ["ledger_balanced", "notes_balanced", "fees_applied", "paired"] {
        assert_eq!(figures[held], true, "{kind}, {held}: {figures}");
    }
    let (fed, given) = (json!({ "10": 2, "20": 2 }), json!({ "10": 1, "20": 2 }));
    assert_eq!(figures["cash_in"]["notes_stacked"], fed, "{kind}");
    assert_eq!(figures["notes_recycled"], fed, "{kind}: none in the cashbox");
    assert_eq!(figures["cash_out"]["notes_presented"], given, "{kind}");
    // more went out than could without what was fed: all but one of each kind had to stay
    let journal = Journal::of(&kept).unwrap();
    let ledger = Ledger::of(&kept).unwrap();
    let cash = |account: &str| ledger.balance(account, CURRENCY).unwrap();
    for (bay, book) in journal.bays().unwrap() {
        let (_, note, loaded) = BOXES[usize::from(bay) - 1];
        let presented = given[note.to_string()].as_i64().unwrap();
        assert_eq!(book.on_hand, i64::from(loaded) + 2 - presented, "{kind}, bay {bay}: {book:?}");
        assert_eq!((book.presented, book.doubts), (presented, 0), "{kind}, bay {bay}");
        let worth = book.on_hand * book.denomination;
        assert_eq!(cash(&format!("bay:1:{bay}:")), worth, "{kind}, bay {bay} by the ledger");
    }
    assert_eq!(cash("cashbox:1:"), 0, "{kind}: the cashbox by the ledger");
    assert_eq!(cash("cash_difference:1"), 0, "{kind}");
    assert_eq!(cash("exchange:1"), (50 - 60) * MINOR, "{kind}: given less fed");
}

/// See [`sells_what_it_was_fed`].
#[test]
fn a_recycler_sells_what_it_was_fed() {
    sells_what_it_was_fed("id003-rc");
}

/// See [`sells_what_it_was_fed`].
#[test]
fn a_recycler_over_ccnet_sells_what_it_was_fed() {
    sells_what_it_was_fed("ccnet-b2b");
}

/// See [`sells_what_it_was_fed`].
#[test]
fn a_recycler_over_ssp_sells_what_it_was_fed() {
    sells_what_it_was_fed("smart-payout");
}
