//! What people and the device count, held against the books.

use bitspire_agent::config::RecyclerKind;
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::service::{Counted, Page, Touch};
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::json;

use super::{Notes, Places};
use crate::machine::{Machine, note};
use crate::service_mode::refill;

/// Loss prevented: notes that somebody has put into a box, or that are not there, taken for the
/// books'; or a difference that nobody hears of.
#[test]
fn counts_that_differ_from_the_books_are_told_with_both_numbers() {
    let mut machine = Machine::recycling(RecyclerKind::Id003Rc, "");
    machine.buys(&[20, 20]);
    machine.until_books_agree();
    let load = json!({ "action": "load", "box": 2, "notes": 3 });
    machine.acceptor.control(load).unwrap();
    // the next note makes it look
    machine.buys(&[20]);
    let words = "bay 2: count it; the device counts 6 notes, the books have 3";
    machine.until("the difference", |machine| {
        machine.standing().get("bay_differs").is_some_and(|told| told == words)
    });
    assert_eq!(
        machine.booked_places().unwrap().bays,
        [0, 3],
        "the note that was fed, and no other"
    );
    // no more is sold than the books have: three of them, though six lie there
    let offered = |machine: &Machine| match &machine.screen {
        Some(MachineScreen::Idle { cash_out, .. }) => {
            cash_out.iter().map(|fiat| fiat.minor).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    machine.until("what three notes make", |machine| offered(machine) == [2_000]);
    // somebody counts what lies there
    machine.publish_cassettes(&[(1, 10, 0), (2, 20, 6)]);
    machine.until_books_agree();
    machine.until("no difference", |machine| !machine.standing().contains_key("bay_differs"));
    // and somebody says that ten are there, which is not so
    machine.publish_cassettes(&[(1, 10, 0), (2, 20, 10)]);
    let words = "bay 2: count it; the device counts 6 notes, the books have 10";
    machine.until("the other difference", |machine| {
        machine.standing().get("bay_differs").is_some_and(|told| told == words)
    });
    assert_eq!(machine.last_report()["cassettes"]["2"]["unsure"], 4);
    // and after a restart it is told still
    machine.stop();
    machine.start();
    machine.sent.clear();
    machine.until("the difference again", |machine| {
        machine.standing().get("bay_differs").is_some_and(|told| told == words)
    });
}

/// Loss prevented: notes of one value counted as those of another, since the operator's document names
/// other notes than the box keeps.
#[test]
fn a_document_does_not_change_what_a_box_keeps() {
    let mut machine = Machine::recycling(RecyclerKind::Id003Rc, "");
    machine.buys(&[20]);
    machine.until_books_agree();
    machine.publish_cassettes(&[(1, 10, 0), (2, 50, 100)]);
    machine.until("the refusal", |machine| {
        let alerts = machine.alerts();
        alerts.contains("other_notes") && alerts.contains("change_refused")
    });
    let bay = &machine.last_report()["cassettes"]["2"];
    assert_eq!((&bay["denomination_minor"], &bay["count"]), (&json!(2_000), &json!(1)));
    machine.wait_for_sale();
    assert_eq!(machine.gives_out(2_000), DispenseOutcome::Full);
}

/// Loss prevented: a refill that the device counts and nobody booked, or a box emptied with notes that
/// the books have elsewhere.
#[test]
fn boxes_are_refilled_and_the_cashbox_is_emptied_in_service_mode() {
    let mut machine = Machine::recycling(RecyclerKind::Id003Rc, "");
    machine.buys(&[20, 50, 50]);
    machine.until_books_agree();
    machine.enter();
    let load = json!({ "action": "load", "box": 1, "notes": 4 });
    machine.acceptor.control(load).unwrap();
    let bay = crate::machine::bay(1);
    machine.did(Page::Bay(bay), refill(4));
    machine.acceptor.control(json!({ "action": "stacker_out" })).unwrap();
    machine.acceptor.control(json!({ "action": "collect" })).unwrap();
    machine.acceptor.control(json!({ "action": "stacker_in" })).unwrap();
    let counted = vec![Counted { minor: note(50).minor(), count: 2 }];
    let emptied = move |form| {
        let (counted, reason) = (counted.clone(), String::new());
        Touch::EmptyCashbox { form, counted, reason }
    };
    assert_eq!(machine.did(Page::Cashbox, emptied), "It is on record.");
    let inside = machine.on_page(Page::Menu).unwrap().2;
    assert!(inside.reject_bin.is_none(), "what comes back lies in the cashbox");
    machine.serve(Touch::Leave);
    machine.until_books_agree();
    assert_eq!(machine.there(), Places { bays: [4, 1], cashbox: Notes::new() });
    assert!(!machine.standing().contains_key("bay_differs"), "{:?}", machine.standing());
    machine.wait_for_sale();
    assert_eq!(machine.gives_out(5_000), DispenseOutcome::Full);
    machine.until_books_agree();
}

/// Loss prevented: a note that is booked in the cashbox and in its box, as two cash differences that
/// cancel, because somebody has counted both while the device could not.
#[test]
fn who_counts_while_the_device_cannot_finds_no_difference() {
    for first in ["box", "cashbox", "document"] {
        let mut machine = Machine::recycling(RecyclerKind::Id003Rc, "");
        machine.buys(&[20, 50]);
        machine.until_books_agree();
        machine.stop();
        machine.dies_after_a_credit();
        machine.acceptor.control(json!({ "action": "unplug" })).unwrap();
        let there = machine.there();
        let [_, kept] = there.bays;
        assert_eq!(there, Places { bays: [0, kept], cashbox: [(50, 1)].into() });
        machine.service.paid = true;
        machine.start();
        machine.sent.clear();
        machine.until("the end of its sale", |machine| {
            !machine.last_report().is_null() && machine.states().is_empty()
        });
        let booked = Places { bays: [0, kept - 1], cashbox: [(20, 1), (50, 1)].into() };
        assert_eq!(machine.booked_places(), Some(booked), "nobody has told of it yet");
        let count = u32::try_from(kept).unwrap();
        if first == "document" {
            machine.publish_cassettes(&[(1, 10, 0), (2, 20, count)]);
            machine.until_books_agree();
            machine.acceptor.control(json!({ "action": "plug" })).unwrap();
        } else {
            machine.counts_all(count, first == "cashbox");
            for action in ["plug", "stacker_out", "collect", "stacker_in"] {
                machine.acceptor.control(json!({ "action": action })).unwrap();
            }
        }
        machine.until_books_agree();
        assert_eq!(machine.there().bays, [0, kept], "{first}");
        let recycled = json!({ "since": 0, "notes": { "2": { "2000": kept } } });
        assert_eq!(machine.last_report()["recycled"], recycled, "{first}");
        machine.wait_for_sale();
        assert!(!machine.standing().contains_key("bay_differs"), "{:?}", machine.standing());
        assert_eq!(machine.gives_out(2_000), DispenseOutcome::Full);
        machine.until_books_agree();
    }
}
