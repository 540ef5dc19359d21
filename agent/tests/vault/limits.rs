//! The breaker, the screen, the bays, the journal.

use std::time::Duration;

use bitspire_agent::ipc::CustomerAction;
use bitspire_agent::journal::Entry;
use bitspire_agent::screen::MachineScreen;
use bitspire_agent::txn::View;
use bitspire_agent::vault::Pace;
use bitspire_shared::document::{Action, Cassettes, Change, DocumentKind};
use bitspire_shared::ids::{ChangeId, JournalSeq};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::statement::VerdictKind;
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use serde_json::{Value, json};

use crate::machine::{EPOCH, Machine, QUICK, bay};

/// One sale to its end, the notes taken.
fn sale(machine: &mut Machine, fiat_minor: i64) {
    machine.service.reports.clear();
    machine.sell(fiat_minor);
    machine.pay();
    machine.until("the report", |machine| !machine.service.reports.is_empty());
    machine.service.paid = false;
    assert!(machine.take());
    machine.until_view("the end", |view| matches!(view, View::Settled { .. }));
    machine.touch(CustomerAction::Finish);
}

pub(crate) fn out_of_service(machine: &Machine, why: &str) -> bool {
    matches!(&machine.screen, Some(MachineScreen::OutOfService { reasons })
        if reasons.iter().any(|reason| reason.contains(why)))
}

/// Loss prevented: a stolen service key empties the machine.
#[test]
fn the_breaker_opens_at_its_limit_and_a_verdict_closes_it() {
    let mut machine =
        Machine::ready_with("[vault.breaker]\nnotes_per_hour = 3\nnotes_per_day = 100\n");
    let offered = |machine: &Machine| match &machine.screen {
        Some(MachineScreen::Idle { cash_out, .. }) => {
            cash_out.iter().map(|fiat| fiat.minor).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    assert_eq!(offered(&machine), [2_000, 5_000, 10_000], "20000 needs four notes");
    sale(&mut machine, 10_000);
    machine.until("what is left", |machine| offered(machine) == [2_000, 5_000]);
    sale(&mut machine, 2_000);
    machine.until("the end of sales", |machine| out_of_service(machine, "breaker"));
    machine.stop();
    machine.start();
    machine.until("the end of sales, still", |machine| out_of_service(machine, "breaker"));
    machine.verdict(None, VerdictKind::CloseBreaker, 0);
    machine.wait_for_sale();
    assert_eq!(offered(&machine), [2_000, 5_000, 10_000], "it counts from nothing");
}

/// Loss prevented: notes given to a passer-by because the page that showed the invoice was gone.
#[test]
fn without_a_page_no_note_moves_until_the_claim_code_comes() {
    let mut machine = Machine::ready();
    machine.sell(2_000);
    let code = machine.txn_screen().unwrap().claim.clone().unwrap();
    machine.touch(CustomerAction::Gone);
    machine.pay();
    machine.until_view("the sale that waits", |view| matches!(view, View::PaidWaiting { .. }));
    assert_eq!(machine.txn_screen().unwrap().claim, None);
    assert_eq!(machine.dispenses(), 0);
    machine.touch(CustomerAction::ClaimCode { code });
    machine.until("the notes", |machine| machine.given() == 2_000);
}

/// Loss prevented: the same for a page that never showed what it was sent.
#[test]
fn a_screen_that_nobody_confirms_is_broken() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { confirm: 5_000, ..QUICK });
    machine.ask(2_000);
    machine.watching = false;
    machine.touch(CustomerAction::Confirm);
    machine.until_view("an invoice", |view| matches!(view, View::Invoice { .. }));
    let hidden = |view: &View| !matches!(view, View::Invoice { .. } | View::Preparing { .. });
    machine.until("no code on the screen", |machine| {
        machine.txn_screen().is_none_or(|screen| screen.claim.is_none() || hidden(&screen.view))
    });
    machine.pay();
    machine.until_view("the sale that waits", |view| matches!(view, View::PaidWaiting { .. }));
    assert_eq!(machine.dispenses(), 0);
    // the operator may decide that the rest is given now
    machine.watching = true;
    let txid = machine.last_txn();
    machine.verdict(Some(txid), VerdictKind::Resume, 2_000);
    machine.until("the notes", |machine| machine.given() == 2_000);
}

/// Loss prevented: a customer who is sent away because the disk, not the page, was slow: what came
/// while it stood still was there in time.
#[test]
fn a_disk_that_stands_still_breaks_no_screen() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { confirm: 800, ..QUICK });
    machine.ask(2_000);
    let database = machine.database();
    (machine.watching, machine.service.silent) = (false, true);
    machine.touch(CustomerAction::Confirm);
    machine.until_view("the next screen", |view| matches!(view, View::Preparing { .. }));
    // the invoice comes, and the page's word just after it
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    machine.answer_last("create_invoice");
    machine.confirm_screen();
    machine.let_pass(Duration::from_millis(1_100));
    database.execute_batch("ROLLBACK").unwrap();
    machine.watching = true;
    machine.until_view("an invoice", |view| matches!(view, View::Invoice { .. }));
    machine.service.silent = false;
    machine.pay();
    machine.until("the notes", |machine| machine.given() == 2_000);
}

/// Loss prevented: trade over a journal that somebody edited far behind its end.
#[test]
fn a_journal_that_does_not_hold_as_a_whole_ends_trade() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { inspect: 100, ..QUICK });
    machine.wait_for_sale();
    let edit = "INSERT INTO settings VALUES ('of nobody', '0', 3)";
    machine.database().execute(edit, []).unwrap();
    for _ in 0..2 {
        machine.until("the end of trade", |machine| out_of_service(machine, "journal"));
        machine.until("the alert", |machine| machine.alerts().contains("journal_broken"));
        // the next start looks again
        machine.sent.clear();
        machine.restart_at(QUICK);
    }
}

/// Loss prevented: a jam that nobody tells of: the customer loses the rest, or gets it twice.
#[test]
fn what_a_jam_kept_back_is_owed() {
    let mut machine = Machine::ready();
    let jam = json!({ "action": "arm", "trap": "jam", "at_note": 3, "times": 3 });
    machine.dispenser.control(jam).unwrap();
    machine.sell(20_000);
    machine.pay();
    machine.until("the notes before the jam", |machine| machine.given() > 0);
    let mut taken = 0;
    machine.until("the report", |machine| {
        taken += u32::from(taken < 3 && machine.take());
        !machine.service.reports.is_empty()
    });
    let report = machine.service.reports.remove(0);
    let given = i64::try_from(machine.given()).unwrap();
    assert!(given < 20_000 || report.outcome == DispenseOutcome::Full, "{report:?}");
    assert_eq!(given + report.owed_minor, 20_000);
}

/// What the last report says of bay 1, and how many changes it names as applied.
fn reported(machine: &Machine) -> Value {
    let count = machine.last_report()["cassettes"]["1"]["count"].clone();
    json!([count, machine.last_report()["applied_changes"].as_array().unwrap().len()])
}

fn change(n: u8, action: Action, base: u64) -> Change {
    Change {
        id: ChangeId::from_bytes([n; 16]),
        bay: bay(1),
        action,
        reason: "refill".into(),
        base_seq: JournalSeq(base),
    }
}

fn publish(machine: &mut Machine, changes: Vec<Change>) {
    let published_at = Some(Unix(machine.service.clock + 1));
    let document = machine.cassettes(&[(1, 20, 100), (2, 50, 100)]);
    let document = Cassettes { changes: Some(changes), published_at, ..document };
    let text = document.to_json(crate::machine::usd()).unwrap();
    machine.publish(DocumentKind::Cassettes, text);
}

/// Loss prevented: a refill that is counted twice, or lost because a sale crossed it; and a bay that
/// nobody can count any more, since one count named a position that the journal does not have.
#[test]
fn each_change_of_a_bay_is_applied_once() {
    let mut machine = Machine::ready();
    let ahead = 2_000_000;
    publish(&mut machine, vec![change(1, Action::Delta(50), ahead)]);
    machine.until("the refill", |machine| reported(machine) == json!([150, 1]));
    sale(&mut machine, 2_000);
    let both = vec![change(1, Action::Delta(50), ahead), change(2, Action::Delta(20), ahead)];
    publish(&mut machine, both.clone());
    machine.until("the second refill", |machine| reported(machine) == json!([169, 2]));
    machine.stop();
    machine.start();
    // counted by somebody who had seen less than the last count of that bay, and by one who had not
    let old = vec![
        change(3, Action::Set(10), 1),
        change(4, Action::Set(90), ahead),
        change(5, Action::Delta(5), ahead),
    ];
    publish(&mut machine, old);
    machine.until("the count", |machine| reported(machine) == json!([95, 2]));
    machine.until("the refusal", |machine| machine.alerts().contains("change_refused"));
    let seen = machine.last_report()["journal_seq"].as_u64().unwrap();
    publish(&mut machine, vec![change(6, Action::Set(70), seen)]);
    machine.until("the count by what was reported", |machine| reported(machine) == json!([70, 1]));
}

/// Loss prevented: a bay that nobody can count or refill any more, since an earlier release has kept
/// its last count by a position that the journal does not have.
#[test]
fn a_count_kept_ahead_of_the_journal_does_not_lock_its_bay() {
    let mut machine = Machine::ready();
    machine.stop();
    let mut journal = machine.open_journal();
    let mut value = journal.setting("last_sets").unwrap().unwrap();
    value["1"]["base"] = json!(2_000_000);
    let kept = Entry::Setting { key: "last_sets".to_owned(), value, cash: Vec::new() };
    journal.append(Unix(EPOCH), kept).unwrap();
    drop(journal);
    machine.start();
    machine.wait_for_sale();
    let seen = machine.last_report()["journal_seq"].as_u64().unwrap();
    publish(&mut machine, vec![change(1, Action::Set(70), seen)]);
    machine.until("the count", |machine| reported(machine) == json!([70, 1]));
    assert!(!machine.alerts().contains("change_refused"));
}

/// Loss prevented: a machine that takes no notes after its jam was cleared, until somebody thinks of
/// starting it again.
#[test]
fn a_validator_whose_jam_was_cleared_takes_notes_again() {
    let mut machine = Machine::ready();
    machine.acceptor.control(json!({ "action": "jam", "where": "acceptor" })).unwrap();
    let takes_notes =
        |screen: &MachineScreen| matches!(screen, MachineScreen::Idle { cash_in: true, .. });
    let sells = |machine: &Machine| machine.screen.as_ref().is_some_and(takes_notes);
    machine.until("the jam", |machine| !sells(machine));
    machine.acceptor.control(json!({ "action": "clear" })).unwrap();
    machine.until("an open inlet", |machine| sells(machine));
}

/// Loss prevented: notes that nobody took, and a dispenser that gives the next customer's on top of
/// them.
#[test]
fn notes_that_nobody_takes_hold_the_exit_and_are_told() {
    let mut machine = Machine::ready();
    machine.restart_at(Pace { remind: 100, left: 1_500, ..QUICK });
    machine.wait_for_sale();
    machine.sell(2_000);
    machine.pay();
    machine.until("a reminder", |machine| {
        matches!(&machine.screen, Some(MachineScreen::NotesLeft(screen))
            if matches!(screen.view, View::Settled { .. }))
    });
    assert!(!machine.alerts().contains("notes_left_at_exit"));
    machine.until("the alert", |machine| machine.alerts().contains("notes_left_at_exit"));
    machine.touch(CustomerAction::Finish);
    machine.until("a machine that gives no notes", |machine| {
        matches!(&machine.screen, Some(MachineScreen::Idle { cash_out, .. }) if cash_out.is_empty())
    });
    assert!(machine.take());
    machine.wait_for_sale();
    sale(&mut machine, 2_000);
}

/// Loss prevented: a validator that is fooled turns paper into sats for as long as it takes.
#[test]
fn no_more_sats_are_promised_than_the_breaker_allows() {
    // a dollar is a thousand sats
    let mut machine = Machine::ready_with("[vault.breaker]\nsats_per_hour = 30000\n");
    machine.open_inlet();
    machine.feed_to(20, 2_000);
    machine.feed(20);
    machine.until("the note given back", |machine| machine.given_back() == 1);
    machine.until("the breaker", |machine| machine.alerts().contains("breaker_open"));
    machine.touch(CustomerAction::Finish);
    machine.until_view(
        "the withdraw of what was taken",
        |view| matches!(view, View::Claim { total, .. } if total.minor == 2_000),
    );
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
    assert_eq!(machine.in_cashbox(), 20);
    machine.stop();
    machine.start();
    machine.until("the end of sales", |machine| out_of_service(machine, "breaker"));
    machine.verdict(None, VerdictKind::CloseBreaker, 0);
    machine.wait_for_sale();
}

/// Loss prevented: more cash in a machine, day after day, than its operator wants to lie there.
#[test]
fn a_day_takes_no_more_than_its_limit_and_no_larger_notes() {
    let mut machine = Machine::ready_with(
        "[vault.policy]\nmax_note_minor = 2000\nmax_cash_in_per_day_minor = 3000\n",
    );
    let refuses = |machine: &Machine, major: u32| {
        let note = json!({ "action": "insert", "denomination": major });
        machine.acceptor.control(note).is_err()
    };
    machine.open_inlet();
    machine.feed_to(20, 2_000);
    assert!(refuses(&machine, 50), "no note of this value");
    machine.until("an inlet for what is left", |machine| refuses(machine, 20));
    machine.touch(CustomerAction::Finish);
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
    machine.pay();
    machine.until_view("the end", |view| matches!(view, View::Redeemed { .. }));
    machine.stop();
    machine.start();
    machine.wait_for_sale();
    machine.open_inlet();
    // the day has 10 left, a restart or not; a validator that is just starting still swallows a note
    // that it gives back
    machine.until("an inlet for the rest of the day", |machine| refuses(machine, 20));
    machine.feed_to(10, 1_000);
    machine.touch(CustomerAction::Finish);
    machine.until_view("the withdraw", |view| matches!(view, View::Claim { .. }));
    machine.service.paid = true;
    machine.until("a machine that takes no more", |machine| {
        machine.touch_once(CustomerAction::Finish);
        matches!(&machine.screen, Some(MachineScreen::Idle { cash_in: false, .. }))
    });
    assert_eq!(machine.in_cashbox(), 30);
}

/// Loss prevented: a machine that sells while it does not know the day, or one that expires a paid
/// sale because its clock was moved.
#[test]
fn a_clock_that_is_a_year_off_stops_new_sales_only() {
    const YEAR: u64 = 365 * 86_400;
    let mut machine = Machine::ready();
    for wall in [EPOCH - YEAR, EPOCH + YEAR] {
        // paid, and nobody there any more
        machine.sell(2_000);
        let code = machine.txn_screen().unwrap().claim.clone().unwrap();
        machine.stop();
        machine.wall = Clock::new(move || Unix(wall));
        machine.start();
        machine.pay();
        machine.until("the paid sale", |machine| {
            matches!(&machine.screen, Some(MachineScreen::Idle { waiting: true, cash_in, cash_out, .. })
                if !cash_in && cash_out.is_empty())
        });
        machine.until("the alert", |machine| machine.alerts().contains("clock_wrong"));
        let given = machine.given();
        machine.touch(CustomerAction::ClaimCode { code });
        machine.until("the notes", |machine| machine.given() == given + 2_000);
        assert!(machine.take());
        machine.until("no more sales", |machine| {
            machine.touch_once(CustomerAction::Finish);
            out_of_service(machine, "clock")
        });
        machine.stop();
        machine.wall = Clock::new(|| Unix(EPOCH));
        machine.service.paid = false;
        machine.start();
        machine.wait_for_sale();
    }
}
