//! What was fed is sold, from where it lies.

use bitspire_agent::config::{AcceptorKind, DispenserKind, RecyclerKind};
use bitspire_agent::journal::verify_file;
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::json;

use super::{FLOOR, Places};
use crate::machine::{Machine, one_device, two_devices};

/// Loss prevented: a recycler whose notes are booked in the cashbox and cannot be sold, or are sold
/// twice.
fn sells_what_it_was_fed(kind: RecyclerKind) {
    let mut machine = Machine::recycling(kind, "");
    assert!(machine.gives_nothing(), "there is nothing to give yet");
    machine.buys(&[20, 10, 50, 20]);
    machine.until_books_agree();
    assert_eq!(machine.there(), Places { bays: [1, 2], cashbox: [(50, 1)].into() });
    let recycled = json!({ "since": 0, "notes": { "1": { "1000": 1 }, "2": { "2000": 2 } } });
    assert_eq!(machine.last_report()["recycled"], recycled);
    let device = &machine.last_report()["devices"]["recycler"];
    assert_eq!((&device["role"], &device["status"]), (&json!("recycler"), &json!("ready")));
    machine.wait_for_sale();
    assert_eq!(machine.gives_out(5_000), DispenseOutcome::Full);
    assert_eq!((machine.paid_out(), machine.there().bays), (50, [0, 0]));
    machine.until_books_agree();
    // and after a restart what comes in then
    machine.buys(&[20]);
    machine.stop();
    machine.start();
    machine.until_books_agree();
    assert_eq!(machine.there(), Places { bays: [0, 1], cashbox: [(50, 1)].into() });
    machine.wait_for_sale();
    assert_eq!(machine.gives_out(2_000), DispenseOutcome::Full);
    machine.until_books_agree();
    assert!(!machine.standing().contains_key("bay_differs"), "{:?}", machine.standing());
    machine.stop();
    assert!(verify_file(&machine.config.vault.journal()).is_ok());
    let journal = machine.open_journal();
    for (bay, held) in &journal.holdings().bays {
        let left = held.loaded + held.recycled_in - held.presented - held.rejected - held.stray;
        assert_eq!((left, held.on_hand(), held.retracted), (0, 0, 0), "bay {bay}");
        assert!(held.recycled_in > 0 && held.loaded == 0, "bay {bay}: {held:?}");
    }
}

/// See [`sells_what_it_was_fed`].
#[test]
fn an_id003_recycler_sells_what_it_was_fed() {
    sells_what_it_was_fed(RecyclerKind::Id003Rc);
}

/// See [`sells_what_it_was_fed`].
#[test]
fn a_bill_to_bill_unit_sells_what_it_was_fed() {
    sells_what_it_was_fed(RecyclerKind::CcnetB2b);
}

/// See [`sells_what_it_was_fed`].
#[test]
fn a_smart_payout_sells_what_it_was_fed() {
    sells_what_it_was_fed(RecyclerKind::SmartPayout);
}

/// Loss prevented: notes that went to the cashbox since their box was full, sold from the box.
#[test]
fn what_a_full_box_does_not_take_is_booked_in_the_cashbox() {
    let mut machine = Machine::recycling(RecyclerKind::Id003Rc, "notes_per_bay = 1\n");
    machine.buys(&[20, 20, 10, 20]);
    machine.until_books_agree();
    assert_eq!(machine.there(), Places { bays: [1, 1], cashbox: [(20, 2)].into() });
    assert!(machine.standing().is_empty(), "{:?}", machine.standing());
}

/// Loss prevented: the notes of a dispenser that is gone, sold from a recycler; and those of a
/// recycler that is gone, from a dispenser.
#[test]
fn a_machine_that_is_refitted_sells_no_note_of_the_devices_before() {
    let mut machine = Machine::ready();
    machine.stop();
    let kind = RecyclerKind::Id003Rc;
    machine.refit(&one_device(kind, [20, 10]), Some(kind), FLOOR);
    machine.start();
    machine.wait_for_notes();
    assert!(machine.gives_nothing(), "{:?}", machine.screen);
    machine.until("the doubt", |machine| machine.standing().contains_key("bay_in_doubt"));
    assert!(machine.alerts().contains("refitted"));
    machine.publish_cassettes(&[(1, 20, 0), (2, 10, 0)]);
    machine.until("no doubt", |machine| !machine.standing().contains_key("bay_in_doubt"));
    assert!(machine.gives_nothing(), "{:?}", machine.screen);
    machine.buys(&[20, 20]);
    machine.until_books_agree();
    machine.wait_for_sale();
    assert_eq!(machine.gives_out(2_000), DispenseOutcome::Full);
    machine.stop();
    // and back, with a note in a box that goes with it
    machine.refit(&two_devices((AcceptorKind::default(), DispenserKind::default())), None, FLOOR);
    machine.start();
    machine.wait_for_notes();
    assert!(machine.gives_nothing(), "{:?}", machine.screen);
    let before = machine.dispenses();
    machine.publish_cassettes(&[(1, 20, 100)]);
    machine.wait_for_sale();
    machine.sell(2_000);
    machine.pay();
    machine.until("the report", |machine| {
        machine.service.reports.iter().any(|report| report.outcome == DispenseOutcome::Full)
    });
    assert_eq!(machine.dispenses(), before + 1);
}
