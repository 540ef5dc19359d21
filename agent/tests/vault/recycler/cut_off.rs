//! Power, line or host lost in the middle of a sale.

use bitspire_agent::config::RecyclerKind;
use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::View;
use bitspire_agent::vault::VaultError;
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::VerdictKind;
use serde_json::json;

use crate::machine::Machine;

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
