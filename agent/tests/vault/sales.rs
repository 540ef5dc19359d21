//! Whole sales, over the real vault.

use std::num::NonZeroU32;

use bitspire_agent::ipc::{CustomerAction, SecretText, ToNet};
use bitspire_agent::txn::View;
use bitspire_agent::vault::Pace;
use bitspire_shared::rpc::DispenseOutcome;

use crate::machine::{Machine, QUICK, note};

/// Loss prevented: a customer who has paid and cannot wait gets neither notes nor sats, or both.
#[test]
fn a_customer_who_has_paid_may_take_sats_instead() {
    let mut machine = Machine::ready();
    machine.sell(2_000);
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    machine.touch(CustomerAction::Gone);
    machine.pay();
    machine.until_view("the sale that waits", |view| matches!(view, View::PaidWaiting { .. }));
    machine.touch(CustomerAction::GiveBack { code: SecretText::new("aaaa-bbbb".to_owned()) });
    machine.touch(CustomerAction::GiveBack { code: code.clone() });
    machine
        .until_view("the debt", |view| matches!(view, View::Short { owed } if owed.minor == 2_000));
    assert_eq!(machine.txn_screen().unwrap().claim, Some(code.clone()));
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    let report = machine.service.reports.remove(0);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::None, 2_000));
    // and no notes for it any more
    machine.touch(CustomerAction::ClaimCode { code });
    machine.leave();
    assert_eq!(machine.dispenses(), 0);
}

/// Loss prevented: a paid customer who gets nothing, or something else than was paid for.
#[test]
fn a_cash_out_gives_what_was_paid_for_and_reports_it() {
    let mut machine = Machine::ready();
    machine.sell(20_000);
    assert_eq!(machine.dispenses(), 0);
    machine.pay();
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!((machine.given(), machine.dispenses()), (20_000, 1));
    let report = machine.service.reports.remove(0);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Full, 0));
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    assert!(machine.take());
    machine.leave();
}

/// Loss prevented: a customer whose notes are in the cashbox and who gets no sats.
#[test]
fn a_cash_in_becomes_a_withdraw_for_its_notes() {
    let mut machine = Machine::ready();
    machine.open_inlet();
    for (dollars, total) in [(20, 2_000), (5, 2_500)] {
        machine.feed_to(dollars, total);
    }
    machine.touch(CustomerAction::Finish);
    machine.until_view(
        "the withdraw",
        |view| matches!(view, View::Claim { lnurl: Some(_), total, .. } if total.minor == 2_500),
    );
    assert_eq!(machine.in_cashbox(), 25);
    let claims: Vec<_> = machine.service.withdraws.values().collect();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].notes, [(note(20), 1), (note(5), 1)].into());
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
}

/// Loss prevented: notes taken that nobody can pay for.
#[test]
fn notes_fed_with_no_service_in_reach_are_given_back() {
    let mut machine = Machine::ready();
    machine.open_inlet();
    machine.feed(20);
    machine.disconnect();
    machine.until("the note given back", |machine| machine.given_back() == 1);
    assert_eq!(machine.in_cashbox(), 0);
}

/// Loss prevented: a customer who waits for ever for the withdraw of notes that lie in the cashbox,
/// because its one answer was lost between `net` and vault.
#[test]
fn what_is_not_answered_is_asked_again() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { ask_again: 100, ..QUICK });
    machine.open_inlet();
    machine.feed_to(5, 500);
    machine.service.silent = true;
    machine.sent.clear();
    machine.touch(CustomerAction::Finish);
    machine.until("the claim, said again and again", |machine| {
        let claims = machine.sent.iter().filter(|message| {
            matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "create_withdraw")
        });
        claims.count() >= 3
    });
    machine.service.silent = false;
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
    assert_eq!(machine.service.withdraws.len(), 1);
}

/// Loss prevented: customers sent away after each change of fees, because the service goes on
/// quoting by the fees before until the machine's next report.
#[test]
fn fees_are_told_as_soon_as_they_are_applied() {
    let mut machine = Machine::ready();
    machine.config.vault.heartbeat_s = NonZeroU32::new(86_400).unwrap();
    let never = 86_400_000;
    machine.restart_at(Pace { gather: never, report_gap: never, ..QUICK });
    machine.until("the first report", |machine| machine.applied(machine.service.fees.unwrap()));
    for _ in 0..2 {
        machine.publish_fees();
        machine.until("the new fees", |machine| machine.applied(machine.service.fees.unwrap()));
    }
    machine.sell(2_000);
}
