//! A recycler in place of validator and dispenser: each note is where the books have it.
//!
//! The oracle is the simulated device, which knows where each of its notes lies.

mod counts;
mod cut_off;
mod sales;

use std::collections::BTreeMap;

use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::service::{Counted, Page, Touch};
use bitspire_agent::txn::View;
use bitspire_agent::vault::VaultError;
use bitspire_shared::rpc::DispenseOutcome;
use serde_json::{Value, json};

use crate::machine::{Machine, note};

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
        let outcome = self.service.reports.remove(0).outcome;
        if outcome != DispenseOutcome::Full {
            println!("{outcome:?}, alerts: {:?}", self.standing());
        }
        outcome
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
