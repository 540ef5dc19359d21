//! A recycler in place of validator and dispenser: each note is where the books have it.
//!
//! The oracle is the simulated device, which knows where each of its notes lies.

use std::collections::BTreeMap;

use bitspire_agent::config::{AcceptorKind, DispenserKind, RecyclerKind};
use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::journal::verify_file;
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::service::{Counted, Page, Touch};
use bitspire_agent::txn::View;
use bitspire_agent::vault::VaultError;
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::VerdictKind;
use serde_json::{Value, json};

use crate::machine::{Machine, note, one_device, two_devices};
use crate::service_mode::refill;

const FLOOR: &str = "[vault.policy]\ncassette_floor_notes = 0\n";

/// Notes by value in dollars.
type Notes = BTreeMap<u64, i64>;

fn by_value(notes: &Value, unit: u64) -> Notes {
    let notes = notes.as_object().into_iter().flatten();
    let notes =
        notes.map(|(value, count)| (value.parse::<u64>().unwrap() / unit, count.as_i64().unwrap()));
    notes.filter(|(_, count)| *count != 0).collect()
}

/// Where notes are: in the two bays, in the cashbox, with customers.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    bays: [i64; 2],
    cashbox: Notes,
}

impl Machine {
    /// By the simulated device.
    fn there(&self) -> Places {
        let counters = self.acceptor.counters().unwrap();
        let kept = |at: usize| by_value(&counters["boxes"][at], 1).values().sum();
        Places { bays: [kept(0), kept(1)], cashbox: by_value(&counters["cashbox"], 1) }
    }

    /// By the machine's last report.
    fn booked_places(&self) -> Option<Places> {
        let report = self.last_report();
        let bay = |number: &str| report["cassettes"][number]["count"].as_i64();
        let bays = [bay("1")?, bay("2")?];
        Some(Places { bays, cashbox: by_value(&report["cashbox"]["notes"], 100) })
    }

    /// Notes that customers have taken, in dollars.
    fn paid_out(&self) -> u64 {
        let given = by_value(&self.acceptor.counters().unwrap()["given"], 1);
        given.into_iter().map(|(value, count)| value * u64::try_from(count).unwrap()).sum()
    }

    /// Orders to pay out that the device took.
    fn payouts(&self) -> u64 {
        self.acceptor.counters().unwrap()["payouts"].as_u64().unwrap()
    }

    /// Waits until the last report says of each note where it is.
    fn until_books_agree(&mut self) {
        let mut last = None;
        self.until("books that say where each note is", |machine| {
            let Some(booked) = machine.booked_places() else { return false };
            let (there, standing) = (machine.there(), machine.standing());
            let agree = booked == there;
            let now = Some((booked, there, standing));
            if !agree && last != now {
                println!("booked, there, alerts: {now:?}");
                last = now;
            }
            agree
        });
    }

    /// The standing alerts of the last report, by code, with their words.
    fn standing(&self) -> BTreeMap<String, String> {
        let report = self.last_report();
        let alerts = report["alerts"].as_array().into_iter().flatten();
        let words = |alert: &Value, name: &str| alert[name].as_str().unwrap().to_owned();
        alerts.map(|alert| (words(alert, "code"), words(alert, "detail"))).collect()
    }

    /// A whole cash-in of these notes, paid.
    fn buys(&mut self, notes: &[u32]) {
        self.service.paid = false;
        self.open_inlet();
        let mut total = 0;
        for major in notes {
            total += i64::from(*major) * 100;
            self.feed_to(*major, total);
        }
        self.touch(CustomerAction::Finish);
        self.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
        self.pay();
        self.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
        self.touch(CustomerAction::Finish);
        self.wait_for_notes();
    }

    /// A whole cash-out; its report.
    fn gives_out(&mut self, fiat_minor: i64) -> DispenseOutcome {
        self.service.paid = false;
        self.service.reports.clear();
        self.sell(fiat_minor);
        self.pay();
        self.until("the report", |machine| !machine.service.reports.is_empty());
        self.until_view("the end", |view| {
            matches!(view, View::Settled { .. } | View::Short { .. })
        });
        self.touch(CustomerAction::Finish);
        self.wait_for_notes();
        self.service.reports.remove(0).outcome
    }

    /// A vault that is down starts, takes a note of 20, and dies with its credit on the disk: it has
    /// not asked the device where the note went.
    fn dies_after_a_credit(&mut self) {
        for more in 1.. {
            self.start_and_halt_after(more);
            let mut fed = false;
            let ran = self.until_or_end("its death", &mut |machine| {
                match &machine.screen {
                    Some(MachineScreen::Idle { cash_in: true, .. }) => {
                        machine.touch_once(CustomerAction::StartCashIn);
                    }
                    _ if !fed && matches!(machine.view(), Some(View::Feed { .. })) => {
                        let insert = json!({ "action": "insert", "denomination": 20 });
                        fed = machine.acceptor.control(insert).is_ok();
                    }
                    _ => {}
                }
                false
            });
            assert!(!ran && matches!(self.ended(), Err(VaultError::Halted(_))));
            if self.last_state() == "credited" {
                return;
            }
            // too early: what was begun is brought to its end, the note with it
            self.service.paid = true;
            self.start();
            self.sent.clear();
            self.until("the end of that sale", |machine| {
                !machine.last_report().is_null() && machine.states().is_empty()
            });
            self.until_books_agree();
            self.stop();
        }
    }

    /// Somebody counts so many notes in box 2, and one of 50 in the cashbox, in service mode; no reason
    /// is given, so no count may differ.
    fn counts_all(&mut self, count: u32, cashbox_first: bool) {
        self.enter();
        let boxed = move |form| Touch::Recount { form, count, reason: String::new() };
        let empty = |form| {
            let counted = vec![Counted { minor: note(50).minor(), count: 1 }];
            Touch::EmptyCashbox { form, counted, reason: String::new() }
        };
        if cashbox_first {
            self.did(Page::Cashbox, empty);
        }
        self.did(Page::Bay(crate::machine::bay(2)), boxed);
        if !cashbox_first {
            self.did(Page::Cashbox, empty);
        }
        self.serve(Touch::Leave);
    }

    fn gives_nothing(&self) -> bool {
        matches!(&self.screen, Some(MachineScreen::Idle { cash_out, .. }) if cash_out.is_empty())
    }
}

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

/// Loss prevented: a power cut between a note, its credit, its box and its sale that books it twice
/// or nowhere, pays twice, or takes a payout for complete that was not.
fn survives_a_halt_after_each_entry(kind: RecyclerKind) {
    let mut machine = Machine::recycling(kind, "");
    machine.stop();
    let mut halted_in = Vec::new();
    for more in 1.. {
        machine.service.paid = false;
        machine.service.reports.clear();
        machine.service.withdraws.clear();
        machine.start_and_halt_after(more);
        let (given, payouts) = (machine.paid_out(), machine.payouts());
        let (mut fed, mut bought) = (0, false);
        let ran = machine.until_or_end("a sale in each direction", &mut |machine| {
            match machine.view() {
                None if !bought => match &machine.screen {
                    Some(MachineScreen::Idle { cash_in: true, .. }) if fed == 0 => {
                        machine.touch_once(CustomerAction::StartCashIn);
                    }
                    Some(MachineScreen::Idle { cash_out, .. }) if !cash_out.is_empty() => {
                        let fiat_minor = cash_out[0].minor;
                        machine.touch_once(CustomerAction::StartCashOut { fiat_minor });
                    }
                    _ => {}
                },
                Some(View::Feed { total, .. }) if total.minor > 0 => {
                    machine.touch_once(CustomerAction::Finish);
                }
                Some(View::Feed { .. }) if fed == 0 => {
                    let insert = json!({ "action": "insert", "denomination": 20 });
                    fed += usize::from(machine.acceptor.control(insert).is_ok());
                }
                Some(View::Claim { .. }) if !machine.service.paid => machine.pay(),
                Some(View::Redeemed { .. }) => {
                    machine.service.paid = false;
                    machine.touch_once(CustomerAction::Finish);
                }
                Some(View::Offer { .. }) => {
                    bought = true;
                    machine.touch_once(CustomerAction::Confirm);
                }
                Some(View::Invoice { .. }) if !machine.service.paid => machine.pay(),
                _ => {}
            }
            !machine.service.reports.is_empty() && machine.states_after_report_are_empty()
        });
        if ran {
            machine.stop();
            break;
        }
        assert!(matches!(machine.ended(), Err(VaultError::Halted(_))));
        halted_in.push(machine.last_state());
        println!("halted {more} entries on, in {:?}", halted_in.last());
        // what the device was told before the power went it does all the same, or gives back
        machine.until("a device at rest", |machine| {
            let counters = machine.acceptor.counters().unwrap();
            let paid = (machine.paid_out() - given) / 20 == machine.payouts() - payouts;
            paid && counters["at_bezel"] == 0
        });
        let moved = machine.paid_out() - given;
        machine.service.paid = true;
        machine.start();
        machine.sent.clear();
        machine.until("an end, or a doubt", |machine| {
            let states = machine.states();
            let rests = |state: &String| ["uncertain", "paid_waiting"].contains(&state.as_str());
            !machine.last_report().is_null() && states.iter().all(rests)
        });
        // the person who decides knows what the customer has
        for (txid, state) in machine.open() {
            let report = machine.last_report();
            let open = report["open_transactions"].as_array().unwrap();
            let own = open.iter().find(|open| open["txid"] == json!(txid)).unwrap();
            let cash_in = own["direction"] == "cash_in";
            let (kind, amount) = match (cash_in, moved, state.as_str()) {
                (true, _, _) => {
                    let there = machine.there();
                    let inside: i64 =
                        there.bays.iter().sum::<i64>() + there.cashbox.values().sum::<i64>();
                    let known = machine.booked_places().unwrap();
                    let booked: i64 =
                        known.bays.iter().sum::<i64>() + known.cashbox.values().sum::<i64>();
                    match inside - booked {
                        0 => (VerdictKind::Settled, 0),
                        _ => (VerdictKind::Owed, 2_000),
                    }
                }
                (false, 0, _) => (VerdictKind::Owed, 2_000),
                (false, _, _) => (VerdictKind::Settled, 0),
            };
            machine.verdict(Some(txid), kind, amount);
        }
        machine.until("the end of all", |machine| machine.states().is_empty());
        let after = halted_in.last().unwrap().clone();
        machine.until_books_agree();
        let standing = machine.standing();
        assert!(!standing.contains_key("bay_in_doubt"), "after {after}: {standing:?}");
        assert!(!standing.contains_key("bay_differs"), "after {after}: {standing:?}");
        assert_eq!(machine.paid_out() - given, moved, "after {after}: nothing is paid again");
        machine.stop();
    }
    for state in ["stack_committed", "credited", "offered", "dispense_committed", "dispensing"] {
        assert!(halted_in.iter().any(|halted| halted == state), "{state}: {halted_in:?}");
    }
}

/// See [`survives_a_halt_after_each_entry`].
#[test]
fn a_sale_over_an_id003_recycler_survives_a_halt_after_each_entry() {
    survives_a_halt_after_each_entry(RecyclerKind::Id003Rc);
}

/// See [`survives_a_halt_after_each_entry`].
#[test]
fn a_sale_over_a_bill_to_bill_unit_survives_a_halt_after_each_entry() {
    survives_a_halt_after_each_entry(RecyclerKind::CcnetB2b);
}

/// See [`survives_a_halt_after_each_entry`].
#[test]
fn a_sale_over_a_smart_payout_survives_a_halt_after_each_entry() {
    survives_a_halt_after_each_entry(RecyclerKind::SmartPayout);
}

/// How a payout is cut off while a note waits at the bezel.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The vault dies; the customer takes the note while nobody looks.
    Host,
    /// The device loses its power, and has it again.
    Power,
    /// The cable is out while the customer takes the note.
    Cable,
}

/// Loss prevented: a payout that was cut off in the middle and is called whole, or nothing, or is
/// begun again; and a person who decides about it without what the device counted.
fn is_in_doubt_until_somebody_decides(kind: RecyclerKind) {
    let mut in_doubt = 0;
    for cut in [Cut::Host, Cut::Power, Cut::Cable] {
        let mut machine = Machine::recycling(kind, "");
        machine.buys(&[10, 20, 20, 20]);
        machine.until_books_agree();
        machine.wait_for_sale();
        let does = |machine: &Machine, action: &str| {
            machine.acceptor.control(json!({ "action": action })).unwrap();
        };
        does(&machine, "leave");
        machine.sell(5_000);
        machine.pay();
        machine.until("a note at the bezel", |machine| {
            machine.acceptor.counters().unwrap()["at_bezel"] != 0
        });
        match cut {
            Cut::Host => {
                machine.stop();
                does(&machine, "take");
                machine.service.paid = true;
                machine.start();
            }
            Cut::Power => {
                does(&machine, "power_off");
                does(&machine, "power_on");
                does(&machine, "take");
            }
            Cut::Cable => {
                does(&machine, "unplug");
                does(&machine, "take");
                does(&machine, "plug");
            }
        }
        machine.sent.clear();
        machine.until("an end, or a doubt", |machine| {
            let states = machine.states();
            !machine.last_report().is_null()
                && (states.is_empty() || states == ["uncertain"])
                && machine.service.reports.last().is_some()
        });
        let doubt = machine.states() == ["uncertain"];
        in_doubt += u32::from(doubt);
        if doubt {
            machine.until("the device's count beside the books'", |machine| {
                // what has left the boxes, by the device itself
                let [one, _] = machine.there().bays;
                let words =
                    format!("bay 1: count it (1 by the books, {one} by the device's last count)");
                let report = machine.last_report();
                let alerts = report["alerts"].as_array().unwrap();
                alerts.iter().any(|alert| alert["detail"] == words.as_str())
            });
            // who met it still under way tells the person who decides
            machine.until("what was heard of it", |machine| {
                let report = machine.last_report();
                let evidence = &report["open_transactions"][0]["doubt"]["evidence"];
                let heard = |words: &str| words.contains(" notes were heard to be taken");
                matches!(cut, Cut::Power) || evidence.as_str().is_some_and(heard)
            });
        }
        let (given, payouts) = (machine.paid_out(), machine.payouts());
        let owed = 5_000 - i64::try_from(given).unwrap() * 100;
        if doubt {
            let txid = machine.open().into_keys().next();
            let kind = if owed == 0 { VerdictKind::Settled } else { VerdictKind::Owed };
            machine.verdict(txid, kind, owed);
            machine.until("the end", |machine| machine.states().is_empty());
        }
        machine.until("what is owed", |machine| {
            machine.service.reports.last().is_some_and(|report| report.owed_minor == owed)
        });
        assert_eq!((machine.paid_out(), machine.payouts()), (given, payouts), "{cut:?}");
        // whoever looks into the boxes counts what is there, and they sell again
        let [one, two] = machine.there().bays.map(|count| u32::try_from(count).unwrap());
        machine.publish_cassettes(&[(1, 10, one), (2, 20, two)]);
        machine.until_books_agree();
        machine.until("no doubt", |machine| {
            let standing = machine.standing();
            !standing.contains_key("bay_in_doubt") && !standing.contains_key("bay_differs")
        });
        does(&machine, "take");
        machine.touch(CustomerAction::Finish);
        machine.wait_for_sale();
        assert_eq!(machine.gives_out(2_000), DispenseOutcome::Full, "{cut:?}");
    }
    assert!(in_doubt >= 2, "{in_doubt}: a dead host and a lost line cannot know");
}

/// See [`is_in_doubt_until_somebody_decides`].
#[test]
fn a_payout_of_an_id003_recycler_that_is_cut_off_is_in_doubt() {
    is_in_doubt_until_somebody_decides(RecyclerKind::Id003Rc);
}

/// See [`is_in_doubt_until_somebody_decides`].
#[test]
fn a_payout_of_a_bill_to_bill_unit_that_is_cut_off_is_in_doubt() {
    is_in_doubt_until_somebody_decides(RecyclerKind::CcnetB2b);
}

/// See [`is_in_doubt_until_somebody_decides`].
#[test]
fn a_payout_of_a_smart_payout_that_is_cut_off_is_in_doubt() {
    is_in_doubt_until_somebody_decides(RecyclerKind::SmartPayout);
}

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
