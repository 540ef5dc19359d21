//! Sats instead of notes, after the payment.

use bitspire_shared::rpc::{DispenseOutcome, Doubt, PaymentState};

use super::cash_out::Sale;
use super::*;

fn gives_back(sale: &mut Sale, code: ClaimCode) -> (DispenseOutcome, i64) {
    sale.say(Input::GiveBack(code));
    let mut drafts = sale.effects.iter().filter_map(|effect| match effect {
        Effect::Request(Request { ask: Ask::ReportDispense(draft), .. }) => Some(draft),
        _ => None,
    });
    drafts.next().map(|draft| (draft.outcome, draft.owed_minor)).unwrap()
}

/// Loss prevented: a customer who has paid, cannot wait for the notes any more, and gets neither; or
/// gets both.
#[test]
fn whoever_has_the_code_may_take_sats_instead_of_the_notes() {
    let mut sale = Sale::waiting();
    assert_eq!(gives_back(&mut sale, code()), (DispenseOutcome::None, 10_000));
    let screen = sale.txn.screen();
    assert!(screen.claim.is_some(), "the code brings the sats");
    assert!(matches!(screen.view, View::Short { owed } if owed.minor == 10_000));
    assert!(!moves(&sale.effects));
    for input in [Input::ClaimEntered(code()), Input::GiveBack(code()), Input::Taken] {
        sale.say(input);
        assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]), "no note any more");
    }
    // of a sale that was cut short only the rest
    let mut sale = Sale::paid();
    sale.say(Input::Planned(Some(lots(&[(1, 2_000, 2)]))));
    sale.final_answer(1, presented(&[(1, 2, 2)])).say(Input::ScreenBroken);
    assert_eq!(gives_back(&mut sale, code()), (DispenseOutcome::Partial, 6_000));
}

/// Loss prevented: a passer-by takes somebody's notes from them, or a note that is on its way is
/// paid back as well.
#[test]
fn nobody_else_gives_back_and_nothing_that_may_have_moved() {
    let mut waiting = Sale::waiting();
    waiting.say(Input::GiveBack(ClaimCode::from_bytes([1; 16])));
    assert_eq!(waiting.name(), "paid_waiting");
    let all = [
        Sale::quoted(),
        Sale::invoiced(),
        Sale::paid(),
        Sale::committed(),
        Sale::dispensing(),
        Sale::uncertain(),
    ];
    for mut sale in all {
        let before = sale.name();
        sale.say(Input::GiveBack(code()));
        assert!(matches!(sale.effects[..], [Effect::Ignored { .. }]), "in {before}");
    }
}

/// Loss prevented: a sale that is paid and that no leave ever comes for, of which nobody can decide; a
/// debt for one that is not paid.
#[test]
fn a_paid_sale_without_leave_is_in_doubt_also_after_a_restart() {
    let mut sale = Sale::invoiced();
    let answer = |sale: &mut Sale, state| {
        let request = asked(&sale.effects, "get_payment");
        sale.say(Input::Payment { request, state, wire_sats: None });
        sale.wait(60_000);
    };
    let of = |sale: &Sale| {
        sale.txn
            .in_doubt()
            .map(|Doubt { rest_minor, unknown_minor, .. }| (rest_minor, unknown_minor))
    };
    answer(&mut sale, PaymentState::Pending);
    assert_eq!(of(&sale), None);
    sale.say(Input::Tick);
    answer(&mut sale, PaymentState::Settled);
    assert_eq!(of(&sale), Some((10_000, 0)));
    sale.restart(DispenseFate::Unknown);
    assert_eq!(of(&sale), None, "the next answer says so again");
    answer(&mut sale, PaymentState::Settled);
    assert_eq!(of(&sale), Some((10_000, 0)));
    sale.say(Input::Verdict(verdict(VerdictKind::Owed, 10_000)));
    assert_eq!((sale.name(), of(&sale)), ("short_dispensed", None));
    assert!(!moves(&sale.effects));
}
