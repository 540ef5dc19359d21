//! A credit that the acceptor says again to a vault that has started anew.

use super::cash_in::Session;
use super::*;

fn credit(minor: u32) -> Input {
    Input::Credit { escrowed: None, denomination: Some(note(minor)) }
}

/// Loss prevented: a note that counted before the power went, put into doubt because the acceptor
/// was never told that its credit is on the disk; and a second note taken for it.
#[test]
fn a_credit_of_before_the_restart_is_the_vaults_to_name() {
    let mut session = Session::offered();
    assert_eq!(session.txn.unheard(), None, "within one run nothing is said again");
    session.say(credit(2_000));
    assert!(
        session.has(&Effect::Alert(Alert::UnexplainedCredit { denomination: Some(note(2_000)) }))
    );

    let mut session = Session::offered();
    session.restart(BillFate::Unknown);
    assert_eq!(session.txn.unheard(), Some(note(2_000)));
    let before = session.txn.clone();
    session.say(credit(2_000));
    assert!(matches!(session.effects[..], [Effect::Ignored { .. }]), "{:?}", session.effects);
    assert_eq!(session.txn, before);
    // of another value it is another note
    session.say(credit(5_000));
    assert!(
        session.has(&Effect::Alert(Alert::UnexplainedCredit { denomination: Some(note(5_000)) }))
    );
    assert_eq!(session.txn.total().minor, 2_000);
}
