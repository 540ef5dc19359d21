//! The vault's power goes after any entry of its journal.

use bitspire_agent::config::{AcceptorKind, DispenserKind};
use bitspire_agent::ipc::{CustomerAction, ToNet};
use bitspire_agent::txn::View;
use bitspire_agent::vault::VaultError;
use bitspire_shared::ids::JournalSeq;
use bitspire_shared::rpc::{DispenseOutcome, notes_value};
use bitspire_shared::statement::VerdictKind;
use serde_json::{Value, json};

use crate::machine::Machine;

impl Machine {
    pub(crate) fn states(&self) -> Vec<String> {
        self.open().into_values().collect()
    }

    /// Waits until a report from now on says that these transactions are open.
    fn until_states(&mut self, expected: &[&str]) {
        self.sent.clear();
        let what = format!("{expected:?}");
        self.until(&what, |machine| {
            !machine.last_report().is_null() && machine.states() == expected
        });
    }

    /// The state of the last transaction in the journal, which no vault holds now.
    pub(crate) fn last_state(&self) -> String {
        let entries = self.journal();
        let state = |body: &str| {
            let body: Value = serde_json::from_str(body).unwrap();
            let txn = body.get("txn").or_else(|| body.get("intent").map(|intent| &intent["txn"]));
            txn.map(|txn| txn["name"].as_str().unwrap().to_owned())
        };
        entries.iter().rev().find_map(|entry| state(&entry.body)).unwrap_or_default()
    }

    /// Starts the vault so that it ends after `more` entries.
    pub(crate) fn start_and_halt_after(&mut self, more: u64) {
        let head = self.journal().len() as u64;
        // its own start is an entry
        self.halt_after = Some(JournalSeq(head + 1 + more));
        self.start();
        self.halt_after = None;
    }
}

/// Loss prevented: a restart in the middle of a sale that pays twice, pays a passer-by, or forgets
/// what is owed.
#[test]
fn a_cash_out_survives_a_halt_after_each_entry() {
    cash_out_survives(DispenserKind::F56);
}

/// Loss prevented: the same on a dispenser that answers each command with its counts, and is purged
/// when it is set up again.
#[test]
fn a_cash_out_over_puloon_survives_a_halt_after_each_entry() {
    // the model that is set up without a wait; what differs between the models has its own table
    cash_out_survives(DispenserKind::Puloon2000);
}

fn cash_out_survives(kind: DispenserKind) {
    let mut machine = Machine::ready_giving(kind);
    machine.stop();
    let mut halted_in = Vec::new();
    for more in 1.. {
        machine.service.paid = false;
        machine.service.reports.clear();
        machine.start_and_halt_after(more);
        let (given, dispenses) = (machine.given(), machine.dispenses());
        let mut began = false;
        let ran = machine.until_or_end("the end of a sale", &mut |machine| {
            began |= machine.view().is_some();
            match machine.view() {
                None if !began && machine.is_for_sale() => {
                    machine.touch_once(CustomerAction::StartCashOut { fiat_minor: 2_000 });
                }
                Some(View::Offer { .. }) => machine.touch_once(CustomerAction::Confirm),
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
        // what the dispenser was told before the power went it does all the same
        machine.until("the notes on their way", |machine| {
            machine.given() - given == 2_000 * (machine.dispenses() - dispenses)
        });
        let (moved, known) = (machine.given() - given, machine.dispenses());
        let state = machine.last_state();
        halted_in.push(state.clone());
        machine.service.paid = true;
        machine.start();
        match state.as_str() {
            "quoted" | "cancelled" | "" => machine.until_states(&[]),
            "invoiced" | "paid" | "paid_waiting" => {
                machine.until_states(&["paid_waiting"]);
                assert_eq!((moved, known), (0, dispenses));
                machine.decide(VerdictKind::Owed, 2_000);
                machine.until_states(&[]);
                let report = machine.service.reports.pop().unwrap();
                assert_eq!((report.outcome, report.owed_minor), (DispenseOutcome::None, 2_000));
            }
            "dispense_committed" | "dispensing" => {
                machine.until_states(&["uncertain"]);
                machine.until("its report", |machine| {
                    let last = machine.service.reports.last();
                    last.is_some_and(|report| report.outcome == DispenseOutcome::Uncertain)
                });
                // the person who counts finds what has moved
                match moved {
                    0 => machine.decide(VerdictKind::Owed, 2_000),
                    _ => machine.decide(VerdictKind::Settled, 0),
                }
                machine.until_states(&[]);
                machine.publish_all(&[(1, 20, 90), (2, 50, 90)]);
            }
            "settled" => {
                machine.until_states(&[]);
                assert_eq!(moved, 2_000);
                assert_eq!(machine.service.reports.last().unwrap().outcome, DispenseOutcome::Full);
            }
            other => panic!("{other}"),
        }
        assert_eq!((machine.given() - given, machine.dispenses()), (moved, known), "after {state}");
        // the customer takes what lies there; nothing lying there is fine
        machine.take();
        machine.wait_for_sale();
        machine.stop();
    }
    for state in ["quoted", "invoiced", "paid", "dispense_committed", "dispensing", "settled"] {
        assert!(halted_in.iter().any(|halted| halted == state), "{state}: {halted_in:?}");
    }
}

/// What is fed in each cash-in, in dollars.
const NOTES: [u64; 2] = [20, 5];

/// Loss prevented: a note that a restart takes for nothing, or pays for twice.
#[test]
fn a_cash_in_survives_a_halt_after_each_entry() {
    cash_in_survives(AcceptorKind::Id003, &["offered", "claimed", "redeemed"]);
}

/// Loss prevented: the same on a validator that is let go by the next message, not by an answer of
/// its own.
#[test]
fn a_cash_in_over_ebds_survives_a_halt_after_each_entry() {
    // whether it has told before the customer ends the session that the last note lies in the
    // cashbox is one entry more or less: a later state may go without its halt
    cash_in_survives(AcceptorKind::Ebds, &["offered"]);
}

/// Loss prevented: the same on a validator that says its credit until it is confirmed, at the poll
/// after the one that brought it.
#[test]
fn a_cash_in_over_ccnet_survives_a_halt_after_each_entry() {
    cash_in_survives(AcceptorKind::Ccnet, &["offered"]);
}

fn cash_in_survives(kind: AcceptorKind, last: &[&str]) {
    let mut machine = Machine::ready_on(kind);
    machine.stop();
    let mut halted_in = Vec::new();
    for more in 1.. {
        machine.service.paid = false;
        machine.service.withdraws.clear();
        machine.start_and_halt_after(more);
        let cashbox = machine.in_cashbox();
        let (mut began, mut fed, mut claimed) = (false, 0, false);
        let ran = machine.until_or_end("the end of a session", &mut |machine| {
            began |= machine.view().is_some();
            match machine.view() {
                None if !began && machine.is_for_sale() => {
                    machine.touch_once(CustomerAction::StartCashIn);
                }
                Some(View::Feed { total, .. }) if total.minor == 2_500 => {
                    machine.touch_once(CustomerAction::Finish);
                }
                Some(View::Feed { .. }) => {
                    if let Some(note) = NOTES.get(fed) {
                        let insert = json!({ "action": "insert", "denomination": note });
                        fed += usize::from(machine.acceptor.control(insert).is_ok());
                    }
                }
                Some(View::Claim { .. }) if !claimed => {
                    claimed = true;
                    machine.claim();
                }
                Some(View::Paying { .. }) if !machine.service.paid => machine.pay(),
                _ => {}
            }
            began && matches!(machine.view(), Some(View::Redeemed { .. }))
        });
        if ran {
            machine.stop();
            break;
        }
        assert!(matches!(machine.ended(), Err(VaultError::Halted(_))));
        let state = machine.last_state();
        halted_in.push(state.clone());
        machine.service.paid = true;
        // the acceptor, which was not told that its credit is durable, repeats it after the end
        let late = state == "credited";
        if late {
            machine.acceptor.control(json!({ "action": "unplug" })).unwrap();
        }
        machine.start();
        machine.sent.clear();
        machine.until("its end, or a doubt", |machine| {
            let states = machine.states();
            !machine.last_report().is_null() && (states.is_empty() || states == ["uncertain"])
        });
        if !machine.states().is_empty() {
            // the acceptor gave the note back by itself while nobody polled it, and says no more:
            // the person who counts the cashbox decides
            assert_eq!(state, "stack_committed");
            let (last, before) = NOTES[..fed].split_last().unwrap();
            match machine.in_cashbox() - cashbox - before.iter().sum::<u64>() {
                0 => machine.decide(VerdictKind::Settled, 0),
                _ => machine.decide(VerdictKind::Owed, i64::try_from(last * 100).unwrap()),
            }
            machine.until_states(&[]);
        }
        if late {
            machine.acceptor.control(json!({ "action": "plug" })).unwrap();
        }
        machine.wait_for_sale();
        let claims = machine.service.withdraws.values();
        let claimed: i64 = claims.map(|claim| notes_value(&claim.notes).unwrap()).sum();
        let stacked = machine.in_cashbox() - cashbox;
        assert_eq!(claimed, i64::try_from(stacked * 100).unwrap(), "after {state}");
        let counters = machine.acceptor.counters().unwrap();
        assert_eq!(counters["in_path"], json!(0), "after {state}");
        assert!(!machine.alerts().contains("unexplained_credit"), "after {state}");
        machine.stop();
    }
    let states = ["open", "escrowed", "stack_committed", "credited"];
    for state in states.iter().chain(last) {
        assert!(halted_in.iter().any(|halted| halted == state), "{state}: {halted_in:?}");
    }
}

/// Loss prevented: a paid customer whose machine went down gets neither notes nor sats.
#[test]
fn the_claim_code_brings_the_notes_after_a_restart() {
    let mut machine = Machine::ready();
    machine.sell(2_000);
    let code = match machine.txn_screen().and_then(|screen| screen.claim.clone()) {
        Some(code) => code,
        None => panic!("{:?}", machine.screen),
    };
    machine.stop();
    machine.start();
    machine.pay();
    machine.until_states(&["paid_waiting"]);
    assert_eq!(machine.dispenses(), 0);
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    assert_eq!(machine.dispenses(), 1);
}

impl Machine {
    pub(crate) fn states_after_report_are_empty(&self) -> bool {
        let told = self.sent.iter().rposition(|message| {
            matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "report_dispense")
        });
        let after = told.map_or(&[][..], |at| &self.sent[at..]);
        let reported = after.iter().any(|message| {
            matches!(message, ToNet::Request { rpc_name, .. } if rpc_name == "report_state")
        });
        reported && self.states().is_empty()
    }

    /// A verdict about the one open transaction.
    fn decide(&mut self, kind: VerdictKind, amount_minor: i64) {
        let txid = self.open().into_keys().next();
        assert!(txid.is_some());
        self.verdict(txid, kind, amount_minor);
    }
}
