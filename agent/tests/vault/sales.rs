//! Whole sales, over the real vault.

use crate::machine::Machine;
use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::txn::View;
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::json;

/// Loss prevented: a paid customer who gets nothing, or something else than was paid for.
#[test]
fn a_cash_out_gives_what_was_paid_for_and_reports_it() {
    let mut machine = Machine::ready();
    machine.sell(20_000);
    assert_eq!(machine.dispenses(), 0);
    machine.service.paid = true;
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!((machine.given(), machine.dispenses()), (20_000, 1));
    let report = machine.service.reports.remove(0);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Full, 0));
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    machine.dispenser.control(json!({ "action": "take" })).unwrap();
    machine.touch(CustomerAction::Finish);
    machine.service.paid = false;
    machine.wait_for_sale();
}

/// Loss prevented: a customer whose notes are in the cashbox and who gets no sats.
#[test]
fn a_cash_in_becomes_a_withdraw_for_its_notes() {
    let mut machine = Machine::ready();
    machine.touch(CustomerAction::StartCashIn);
    machine.until_view("an open inlet", |view| matches!(view, View::Feed { .. }));
    for (dollars, total) in [(20, 2_000), (5, 2_500)] {
        machine.feed(dollars);
        machine.until("the note counted", |machine| {
            matches!(machine.view(), Some(View::Feed { total: fiat, .. }) if fiat.minor == total)
        });
    }
    machine.touch(CustomerAction::Finish);
    machine.until_view(
        "the withdraw",
        |view| matches!(view, View::Claim { lnurl: Some(_), total, .. } if total.minor == 2_500),
    );
    assert_eq!(machine.in_cashbox(), 25);
    let claims: Vec<_> = machine.service.withdraws.values().collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(
        claims[0].notes,
        [(crate::machine::note(20), 1), (crate::machine::note(5), 1)].into()
    );
    machine.service.paid = true;
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
}

/// Loss prevented: notes taken that nobody can pay for.
#[test]
fn notes_fed_with_no_service_in_reach_are_given_back() {
    let mut machine = Machine::ready();
    machine.touch(CustomerAction::StartCashIn);
    machine.until_view("an open inlet", |view| matches!(view, View::Feed { .. }));
    machine.feed(20);
    machine.disconnect();
    machine.until("the note given back", |machine| machine.given_back() == 1);
    assert_eq!(machine.in_cashbox(), 0);
}
