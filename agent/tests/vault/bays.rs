//! A bay that ends in the middle of a sale, and another one that gives the rest.

use std::collections::BTreeMap;

use bitspire_agent::txn::View;
use bitspire_shared::cash::BayResult;
use bitspire_shared::rpc::{DispenseOutcome, DispenseReport};
use serde_json::{Value, json};

use crate::machine::{Machine, bay};

/// A sale of so much, the notes taken as they come, up to its report.
fn sale(machine: &mut Machine, fiat_minor: i64) -> DispenseReport {
    machine.sell(fiat_minor);
    machine.pay();
    machine.until("the report", |machine| {
        let more = matches!(machine.view(), Some(View::TakeNotes { .. }));
        if more {
            machine.take();
        }
        !machine.service.reports.is_empty()
    });
    assert_eq!(machine.service.reports.len(), 1);
    machine.service.reports.remove(0)
}

/// What left each bay for the customer, by the simulated device and by the report.
fn out_of_bays(machine: &Machine, report: &DispenseReport) -> [BTreeMap<u64, u64>; 2] {
    let counters = machine.dispenser.counters().unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let bays = counters["bays"].as_array().unwrap().iter();
    let there = bays.map(|bay| (number(&bay["bay"]), number(&bay["exit"]) + number(&bay["taken"])));
    let said = |(bay, result): (&bitspire_shared::ids::BayId, &BayResult)| {
        (u64::from(bay.get()), u64::from(result.presented))
    };
    let given = |(_, count): &(u64, u64)| *count > 0;
    [there.filter(given).collect(), report.bays.iter().map(said).filter(given).collect()]
}

/// What the machine says lies in a bay.
fn booked(machine: &Machine, number: u8) -> u64 {
    machine.last_report()["cassettes"][number.to_string()]["count"].as_u64().unwrap()
}

fn holds(machine: &Machine, report: &DispenseReport, expected: &[(u64, u64)], given: u64) {
    let expected: BTreeMap<u64, u64> = expected.iter().copied().collect();
    let [there, said] = out_of_bays(machine, report);
    assert_eq!((&there, &said), (&expected, &expected), "{report:?}");
    assert_eq!(machine.given(), given);
}

/// Loss prevented: a customer who goes away with less than was paid for, although the notes lie in the
/// next bay; or with more, because what came before the end was not counted.
#[test]
fn an_empty_bay_is_followed_by_the_next_one() {
    // the same notes in both; the books know nothing of what is missing
    let mut machine = Machine::ready_with_notes([(20, 3), (20, 3)], 50);
    let report = sale(&mut machine, 10_000);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Full, 0));
    let [there, said] = out_of_bays(&machine, &report);
    assert_eq!(there, said);
    assert_eq!((there.values().sum::<u64>(), machine.given()), (5, 10_000));
    assert_eq!(there.len(), 2, "out of both: {there:?}");
    // other notes
    let mut machine = Machine::ready_with_notes([(20, 100), (50, 2)], 100);
    let report = sale(&mut machine, 20_000);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Full, 0));
    holds(&machine, &report, &[(1, 5), (2, 2)], 20_000);
    machine.until("the books", |machine| (booked(machine, 1), booked(machine, 2)) == (95, 98));
    machine.until("its end", |machine| machine.open().is_empty());
}

/// Loss prevented: the same where somebody has pulled a cassette while notes went out of it.
#[test]
fn a_cassette_that_is_pulled_is_followed_by_the_next_one() {
    let mut machine = Machine::ready();
    let pull = json!({ "action": "arm", "trap": "pull", "bay": 2, "at_note": 3 });
    machine.dispenser.control(pull).unwrap();
    let report = sale(&mut machine, 20_000);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Full, 0));
    holds(&machine, &report, &[(1, 5), (2, 2)], 20_000);
    machine.until("the books", |machine| (booked(machine, 1), booked(machine, 2)) == (95, 98));
}

/// Loss prevented: a customer who is owed nothing, or too much, where no bay has the rest.
#[test]
fn what_no_bay_has_is_owed_to_the_note() {
    let mut machine = Machine::ready_with_notes([(20, 1), (50, 2)], 100);
    let report = sale(&mut machine, 20_000);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::Partial, 8_000));
    holds(&machine, &report, &[(1, 1), (2, 2)], 12_000);
    machine
        .until_view("the debt", |view| matches!(view, View::Short { owed } if owed.minor == 8_000));
    let code = machine.txn_screen().unwrap().claim.clone();
    assert!(code.is_some(), "the claim code is on the screen");
    // nothing at all: both are empty, and one try each is enough to know
    let mut machine = Machine::ready_with_notes([(20, 0), (50, 0)], 100);
    let report = sale(&mut machine, 2_000);
    assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::None, 2_000));
    assert_eq!((machine.given(), report.bays.get(&bay(2)).map(|b| b.presented)), (0, None));
}
