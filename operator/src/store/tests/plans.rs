//! How SQLite finds what is asked for often: by what it says itself, since a statement that reads a
//! whole table is right, and slow only years later.

use std::cell::RefCell;

use bitspire_shared::ids::{ClaimHash, PaymentHash, QuoteId};
use bitspire_shared::time::Unix;

use super::fixtures::{txid, world};
use super::{Read, Row, ToColumn};
use crate::ids::{MachineId, OperatorId, SettlementId};
use crate::ledger::{Account, EntryKind, Unit};
use crate::store::ledger::Before;
use crate::store::settlements::{self, Distribution};
use crate::store::withdraws::{self, Purpose};
use crate::store::{
    Around, StoreError, claims, invoices, ledger, legs, outbox, payments, quotes, unrecorded,
    volume,
};

const NEAR: Around = Around { before: 2, after: 5 };
const HASH: PaymentHash = PaymentHash::from_bytes([1; 32]);

thread_local! {
    static ASKED: RefCell<Vec<(String, usize)>> = const { RefCell::new(Vec::new()) };
}

/// A statement with so many values is about to be run by this thread.
pub(in crate::store) fn asked(sql: &str, values: usize) {
    ASKED.with_borrow_mut(|asked| asked.push((sql.to_owned(), values)));
}

/// What `run` gives, and how many statements it ran on this thread.
pub(crate) fn counted<T>(run: impl FnOnce() -> T) -> (T, usize) {
    ASKED.take();
    let given = run();
    (given, ASKED.take().len())
}

/// The steps of the statements that `ask` runs.
fn plan(read: &Read<'_>, ask: impl FnOnce(&Read<'_>) -> Result<(), StoreError>) -> Vec<String> {
    ASKED.take();
    ask(read).unwrap();
    let asked = ASKED.take();
    assert!(!asked.is_empty(), "nothing was asked");
    let steps = asked.iter().flat_map(|(sql, values)| {
        let explained = format!("EXPLAIN QUERY PLAN {sql}");
        // a plan does not depend on what is bound
        let nothing: Vec<&dyn ToColumn> = vec![&None::<i64>; *values];
        read.all(&explained, &nothing, |row: &Row<'_>| row.get::<String>("detail")).unwrap()
    });
    steps.collect()
}

/// Loss prevented: heartbeats, rounds and pages that get slower with each sale there ever was.
#[test]
fn what_is_asked_often_is_found_by_an_index() {
    let (machine, operator) = (MachineId(1), Some(OperatorId(1)));
    type Ask = fn(&Read<'_>, MachineId, Option<OperatorId>) -> Result<(), StoreError>;
    let often: &[(&str, Ask)] = &[
        ("promised", |read, m, _| withdraws::unpaid(read, m).map(drop)),
        ("promised for", |read, m, _| withdraws::unpaid_for(read, m, Purpose::Owed).map(drop)),
        ("of a claim", |read, m, _| {
            withdraws::unpaid_of_claim(read, m, ClaimHash::from_bytes([1; 32])).map(drop)
        }),
        ("under a claim", |read, _, _| {
            withdraws::unpaid_under(read, ClaimHash::from_bytes([1; 32])).map(drop)
        }),
        ("overdue", |read, _, _| withdraws::overdue(read, Unix(9)).map(drop)),
        ("bound", |read, _, _| withdraws::bound(read).map(drop)),
        ("open", |read, _, _| withdraws::open(read).map(drop)),
        ("owed", |read, _, _| claims::open_debts(read).map(drop)),
        ("owed by a machine", |read, m, _| claims::unassigned(read, m).map(drop)),
        ("unreported", |read, m, _| settlements::unreported(read, m, Unix(1)).map(drop)),
        ("held", |read, _, _| settlements::held_for(read, "x", 9).map(drop)),
        ("errored", |read, _, o| {
            settlements::by_distribution(read, Distribution::Errored, o, 9).map(drop)
        }),
        ("distributable", |read, _, _| settlements::distributable(read).map(drop)),
        ("newest", |read, m, o| {
            settlements::newest(read, o, Some(m), Some(SettlementId(9)), 9).map(drop)
        }),
        ("moved", |read, m, _| volume::since(read, m, Unix(1), txid(1)).map(drop)),
        ("reserved", |read, m, _| quotes::reserved(read, m).map(drop)),
        ("open invoices", |read, m, _| invoices::open(read, m, 9).map(drop)),
        ("balance", |read, _, _| ledger::balance(read, Account::Super, Unit::Sats).map(drop)),
        ("notes", |read, m, _| volume::cashbox_notes(read, m).map(drop)),
        ("bays", |read, _, _| ledger::balances_of(read, "bay:1:").map(drop)),
        ("loaded", |read, m, _| {
            ledger::was_loaded(read, Account::InTransit(m), Before::Done(Unix(9))).map(drop)
        }),
        ("open payments", |read, _, _| payments::open(read).map(drop)),
        ("late payouts", |read, _, _| {
            payments::overdue(read, (Unix(1), Unix(9)), "x", 9).map(drop)
        }),
        ("legs", |read, _, _| legs::of_settlement(read, SettlementId(1)).map(drop)),
        ("outbox", |read, _, _| outbox::depth(read).map(drop)),
    ];
    // all that is open may be of others
    let own: &[(&str, Ask)] = &[
        ("invoices to look up", |read, m, _| invoices::to_look_up(read, m, "x", 9).map(drop)),
        ("unrecorded", |read, _, _| unrecorded::to_try(read, "x", Unix(1), 9).map(drop)),
        ("how many unrecorded", |read, _, _| unrecorded::count(read, "x").map(drop)),
        ("open invoices", |read, m, _| invoices::open(read, m, 9).map(drop)),
        ("unreported", |read, m, _| settlements::unreported(read, m, Unix(1)).map(drop)),
        ("reserved", |read, m, _| quotes::reserved(read, m).map(drop)),
        ("quotes around", |read, _, _| {
            quotes::around(read, QuoteId::from_bytes([1; 16]), NEAR).map(drop)
        }),
        ("invoices around", |read, _, _| invoices::around(read, HASH, NEAR).map(drop)),
        ("settlements around", |read, _, _| settlements::around(read, HASH, NEAR).map(drop)),
        ("entries around", |read, _, _| {
            ledger::around(read, (EntryKind::Settled, "x"), NEAR).map(drop)
        }),
        ("entries beside", |read, _, _| ledger::beside_settled(read, HASH).map(drop)),
    ];
    let world = world();
    for (what, ask) in own {
        let steps = world.store.read_blocking::<_, StoreError, _>(move |read| {
            Ok(plan(read, |read| ask(read, machine, operator)))
        });
        let steps = steps.unwrap();
        let scan = |step: &String| step.starts_with("SCAN") && step != "SCAN CONSTANT ROW";
        assert!(!steps.iter().any(scan), "{what}: {steps:?}");
    }
    let slow = world.store.read_blocking::<_, StoreError, _>(move |read| {
        let slow = often.iter().flat_map(|(what, ask)| {
            let steps = plan(read, |read| ask(read, machine, operator));
            let index = |step: &str| {
                step.contains(" INDEX ")
                    || step == "SCAN CONSTANT ROW"
                    || step.contains("(subquery")
            };
            let whole = |step: &String| step.starts_with("SCAN") && !index(step);
            steps
                .into_iter()
                .filter(whole)
                .map(|step| format!("{what}: {step}"))
                .collect::<Vec<_>>()
        });
        Ok(slow.collect::<Vec<_>>())
    });
    assert_eq!(slow.unwrap(), Vec::<String>::new());
}

/// Loss prevented: a paid customer's machine that is told last, since each push is looked for among the
/// documents of ten thousand machines, or among a day's that expired unsent while no relay was there,
/// or waits for as many that say only that fees have changed.
#[test]
fn what_is_due_is_found_without_what_else_waits() {
    let world = world();
    let plans = world.store.read_blocking::<_, StoreError, _>(move |read| {
        let now = Unix(9);
        let documents =
            plan(read, |read| outbox::due_documents(read, now, outbox::START, 9).map(drop));
        let pushes = plan(read, |read| outbox::due_pushes(read, now, 9).map(drop));
        Ok((documents, pushes))
    });
    let (documents, pushes) = plans.unwrap();
    let found = "SEARCH outbox USING INDEX outbox_documents (not_before>? AND not_before<?)";
    assert_eq!(documents, [found]);
    let found =
        "SEARCH outbox USING INDEX outbox_pushes (<expr>=? AND not_before>? AND not_before<?)";
    assert_eq!(pushes, [found, found], "those that customers wait for first");
}

/// Loss prevented: a machine that was stolen and goes on selling, since its revoke first reads what is held
/// of ten thousand others, and all other writes wait for it.
#[test]
fn a_revoke_reads_the_sales_of_its_machine_alone() {
    let world = world();
    let machine = world.machine;
    let steps = world.write(move |tx| {
        Ok(plan(tx, |_| crate::settle::hold_open_sales(tx, machine, Unix(9)).map(drop)))
    });
    let steps: Vec<_> = steps.unwrap();
    let (found, others): (Vec<_>, Vec<_>) =
        steps.iter().partition(|step| step.contains("machine_id=?"));
    assert_eq!(found.len(), 2, "its invoices, its sales: {steps:?}");
    assert!(others.iter().all(|step| step.contains("ORDER BY")), "{steps:?}");
}

/// Loss prevented: closing balances that are the slower the more was ever sold, or the more days there
/// were.
#[test]
fn the_ends_of_days_are_found_without_the_postings_and_past_other_days() {
    let world = world();
    let steps = world.store.read_blocking::<_, StoreError, _>(move |read| {
        Ok(plan(read, |read| ledger::closings(read, 3, 9).map(drop)))
    });
    let steps = steps.unwrap();
    let of_rows = |step: &&String| step.starts_with("SCAN") && !step.contains("held");
    let rows: Vec<_> =
        steps.iter().filter(of_rows).filter(|step| !step.contains("subquery")).collect();
    assert_eq!(rows, Vec::<&String>::new(), "{steps:?}");
    let past = |step: &&String| step.contains("(account,unit)>(?,?)");
    assert_eq!(steps.iter().filter(past).count(), 2, "{steps:?}");
}
