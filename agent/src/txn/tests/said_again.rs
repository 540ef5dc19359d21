//! A credit that the acceptor says again to a vault that has started anew.

use super::cash_in::Session;
use super::*;
use crate::journal::CashMove;

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

/// Loss prevented: a five that is fished for a hundred: the first credit after a power cut, whatever
/// its value, taken for that of the note which the machine found in the stacker.
#[test]
fn a_first_credit_of_another_value_is_another_note() {
    let five = Some(note(500));
    let mut session = Session::committed();
    session.restart(BillFate::InStacker);
    assert_eq!((session.txn.total().minor, session.name()), (2_000, "offered"));
    session.say(credit(500));
    assert!(session.has(&Effect::Alert(Alert::UnexplainedCredit { denomination: five })));
    let doubt = CashMove::StackDoubt { denomination: note(500), counted: false };
    assert_eq!(record(&session.effects).unwrap().cash, [doubt]);
    // its own credit may still come
    session.say(credit(2_000));
    assert!(matches!(session.effects[..], [Effect::Journal(_), Effect::AcknowledgeCredit]));
    assert_eq!(session.txn.total().minor, 2_000);
}
