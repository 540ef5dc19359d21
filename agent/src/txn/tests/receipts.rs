//! What a receipt states, in each state that has one.

use bitspire_shared::ids::{JournalHead, JournalSeq};
use bitspire_shared::receipt::{Outcome, Receipt, Reference};
use bitspire_shared::rpc::PaymentState;

use super::cash_out::Sale;
use super::*;

/// The names of states in which the customer has paid or fed something.
const WITH: [&str; 10] = [
    "settled",
    "short_dispensed",
    "uncertain",
    "paid_waiting",
    "late",
    "offered",
    "claimed",
    "pay_unknown",
    "redeemed",
    "expired",
];

fn of(txn: &Txn) -> Option<Receipt> {
    txn.receipt(key(4), Position::NONE)
}

/// What holds for the receipt of any transaction in any state; asked after each step of the random
/// sequences.
///
/// Loss prevented: a customer who paid or fed notes and has nothing in hand that says so, or
/// something that says another amount.
pub(super) fn hold(txn: &Txn) {
    let receipt = of(txn);
    let nothing_paid = matches!(txn, Txn::CashOut(_)) && txn.name() == "expired";
    // a note that was taken unasked, before any rate was locked
    let no_deal = matches!(txn, Txn::CashIn(session) if session.locks().is_empty());
    let has = WITH.contains(&txn.name()) && !nothing_paid && !no_deal;
    assert_eq!(receipt.is_some(), has, "{txn:?}");
    let Some(receipt) = receipt else { return };
    let value =
        receipt.notes.iter().map(|(note, count)| u64::from(note.minor()) * u64::from(*count));
    let notes: u64 = value.sum();
    let delivered = notes + receipt.besides_minor;
    let Receipt { fiat_minor, owed_minor, outcome, direction, .. } = receipt;
    match (direction, outcome) {
        (Direction::CashOut, Outcome::Done) => assert!(delivered >= fiat_minor, "{receipt:?}"),
        (Direction::CashOut, Outcome::Late) => {
            assert!(delivered == 0 && receipt.owed_sats.is_some(), "{receipt:?}");
        }
        (Direction::CashOut, _) => {
            assert_eq!(delivered + owed_minor, fiat_minor.max(delivered), "{receipt:?}");
        }
        (Direction::CashIn, _) => assert_eq!(notes, fiat_minor, "{receipt:?}"),
    }
    assert!(receipt.wire_sats().is_ok(), "{receipt:?}");
    assert_eq!(receipt.is_claimable(), outcome != Outcome::Done);
}

/// Loss prevented: a short dispense whose receipt says that all was given, or not what was paid.
#[test]
fn a_short_dispense_states_what_was_given_and_what_is_owed() {
    let mut sale = Sale::dispensing();
    assert!(of(&Txn::CashOut(sale.txn.clone())).is_none(), "not at rest");
    sale.final_answer(1, presented(&[(1, 5, 3)]));
    sale.say(Input::ScreenBroken).wait(16 * 60_000).say(Input::Tick);
    assert_eq!(sale.name(), "short_dispensed");
    let receipt = of(&Txn::CashOut(sale.txn.clone())).unwrap();
    assert_eq!(receipt.notes, [(note(2_000), 3)].into());
    assert_eq!((receipt.outcome, receipt.owed_minor), (Outcome::Owed, 4_000));
    let terms = *quote(Direction::CashOut, 10_000, 1).terms();
    assert_eq!(receipt.wire_sats().unwrap(), terms.wire_sats);
    assert_eq!(receipt.platform_fee_sats, Sats(terms.principal_sats.0 * 3 / 100));
    assert_eq!(receipt.sources, origins());
    let hash = PaymentHash::from_bytes([9; 32]);
    assert_eq!(receipt.reference, Some(Reference::PaymentHash(hash)));
    let position =
        Position { at: Unix(5), seq: JournalSeq(7), head: JournalHead::from_bytes([2; 32]) };
    let placed = Txn::CashOut(sale.txn.clone()).receipt(key(4), position).unwrap();
    assert_eq!((placed.ended_at, placed.journal_seq), (Unix(5), JournalSeq(7)));
    assert_eq!(
        Receipt {
            ended_at: Unix(0),
            journal_seq: JournalSeq(0),
            journal_head: JournalHead::from_bytes([0; 32]),
            ..placed
        },
        receipt
    );
}

/// Loss prevented: whoever paid too late has nothing that says what came and that it is owed back.
#[test]
fn a_late_payment_is_stated_as_owed_in_sats() {
    let mut sale = Sale::invoiced();
    sale.say(Input::Cancel).wait(10_000).say(Input::Tick);
    let request = asked(&sale.effects, "get_payment");
    let state = PaymentState::Late;
    sale.say(Input::Payment { request, state, wire_sats: Some(Sats(123)) });
    assert_eq!(sale.name(), "late");
    let receipt = of(&Txn::CashOut(sale.txn.clone())).unwrap();
    assert_eq!((receipt.outcome, receipt.owed_sats), (Outcome::Late, Some(Sats(123))));
    assert!(receipt.notes.is_empty() && receipt.owed_minor == 0);
}
