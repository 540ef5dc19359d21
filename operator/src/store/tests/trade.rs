//! One sale in the database: everything that must happen once does, whatever is tried again.

use bitspire_shared::cash::{BayResult, BayResults};
use bitspire_shared::ids::{BayId, JournalSeq, PushId};
use bitspire_shared::money::{Direction, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::Parts;
use bitspire_shared::time::Unix;
use serde_json::json;

use super::fixtures::{
    World, claim, hash, head, invoice, invoiced, kind_of, quote, quote_id, request, settlement,
    sig, txid, world,
};
use crate::ledger::{Account, Unit, owed_whole};
use crate::store::claims::{self, NewOwed, OwedReason};
use crate::store::invoices::{self, InvoiceState};
use crate::store::outbox::{self, NewPush};
use crate::store::quotes;
use crate::store::requests::{self, Begun, Reply};
use crate::store::settlements::{
    self, Consequences, Distribution, Repeat, Report, Reported, Settlement, SettlementStatus,
};
use crate::store::{ConstraintKind, Json, JsonText, Recorded, StoreError, ledger};

/// Loss prevented: a request that comes twice makes two invoices, or two answers.
#[test]
fn a_request_has_one_effect_and_one_answer() {
    let world = world();
    let machine = world.machine;
    let begin = |n, body| world.write(move |tx| requests::begin(tx, &request(machine, n, body)));
    assert_eq!(begin(1, 1).unwrap(), Begun::New);
    assert_eq!(begin(1, 1).unwrap(), Begun::Unanswered);
    assert!(matches!(begin(1, 2), Err(StoreError::Conflict { what: "request", .. })));
    let id = request(machine, 1, 1).request_id;
    let reply = |text: &str| Reply::new(text.to_owned());
    let answer = |text| {
        let reply = reply(text);
        world.write(move |tx| requests::answer(tx, machine, id, &reply, Unix(101)))
    };
    answer("{\"a\":1}").unwrap();
    assert_eq!(kind_of(answer("{\"a\":2}")), ConstraintKind::Rule);
    assert_eq!(begin(1, 1).unwrap(), Begun::Answered(reply("{\"a\":1}")));
    assert_eq!(format!("{:?}", reply("{\"lnurl\":1}")), "Reply(11 bytes)", "it may be a secret");
}

/// Loss prevented: the answer of an open sale forgotten, so that a repeat has a second effect.
#[test]
fn a_request_is_kept_until_its_transaction_rests() {
    let world = world();
    let machine = world.machine;
    invoiced(&world, 1);
    world
        .write(move |tx| {
            requests::begin(tx, &request(machine, 1, 1))?;
            requests::begin(tx, &request(machine, 2, 1))
        })
        .unwrap();
    let prune = || world.write(|tx| requests::prune(tx, Unix(5_000), 9)).unwrap();
    assert_eq!(prune(), 1, "only the one without an open invoice");
    world.write(|tx| invoices::set_state(tx, hash(1), InvoiceState::Expired)).unwrap();
    assert_eq!(prune(), 1);
    assert_eq!(world.write(|tx| requests::prune(tx, Unix(5_000), 9)).unwrap(), 0);
}

/// Loss prevented: a quote whose sums do not hold, changed after it was signed, or used twice.
#[test]
fn a_quote_holds_its_sums_and_never_changes() {
    let world = world();
    let machine = world.machine;
    for (direction, wire) in [(Direction::CashOut, 104_999), (Direction::CashIn, 95_001)] {
        let wrong = quotes::Quote { wire_sats: Sats(wire), ..quote(machine, 1, direction) };
        let refused = world.write(move |tx| quotes::insert(tx, &wrong));
        assert_eq!(kind_of(refused), ConstraintKind::Check);
    }
    invoiced(&world, 1);
    let sql = "UPDATE quotes SET wire_sats = 1";
    assert_eq!(kind_of(world.write(move |tx| tx.run(sql, &[]))), ConstraintKind::Rule);
    let again = invoices::Invoice { payment_hash: hash(2), txid: txid(5), ..invoice(machine, 1) };
    let again = world.write(move |tx| invoices::insert(tx, &again)).unwrap_err();
    assert!(again.is_unique_on("invoices.quote_id"), "{again}");
    world.write(move |tx| quotes::insert(tx, &quote(machine, 2, Direction::CashOut))).unwrap();
    let same_txn = invoices::Invoice { txid: txid(1), ..invoice(machine, 2) };
    let same_txn = world.write(move |tx| invoices::insert(tx, &same_txn)).unwrap_err();
    assert!(same_txn.is_unique_on("invoices.machine_id, invoices.txid"), "{same_txn}");
    let found = world.read(move |read| quotes::find(read, quote_id(1))).unwrap();
    assert_eq!(found, quote(machine, 1, Direction::CashOut));
    assert_eq!(world.read(move |read| quotes::of_txn(read, machine, txid(1))), [found]);
}

/// Loss prevented: the same sats of a wallet promised to two customers.
#[test]
fn a_rate_lock_reserves_until_it_ends() {
    let world = world();
    let machine = world.machine;
    for n in [1, 2] {
        world.write(move |tx| quotes::insert(tx, &quote(machine, n, Direction::CashIn))).unwrap();
    }
    let reserved = || world.read(move |read| quotes::reserved(read, machine));
    assert_eq!(reserved(), Sats(190_000));
    world.write(|tx| quotes::release(tx, quote_id(1), Unix(120))).unwrap();
    assert_eq!(reserved(), Sats(95_000));
    assert_eq!(world.write(|tx| quotes::release_expired(tx, Unix(160), Unix(200))).unwrap(), 0);
    assert_eq!(world.write(|tx| quotes::release_expired(tx, Unix(161), Unix(200))).unwrap(), 1);
    assert_eq!(reserved(), Sats(0));
}

fn paid(world: &World, n: u8) -> Consequences {
    let (machine, operator) = (world.machine, world.operator);
    let split = bitspire_shared::split::Split::new(bitspire_shared::split::Terms {
        direction: Direction::CashOut,
        wire: Sats(105_000),
        principal: Sats(100_000),
        fee: Sats(5_000),
        owed: Sats::ZERO,
        platform: bitspire_shared::money::FeePpm::new(20_000).unwrap(),
    });
    let entry =
        crate::ledger::settled(machine, operator, hash(n), Some(txid(n)), &split.unwrap()).unwrap();
    let push = NewPush {
        not_before: Unix(100),
        machine_id: machine,
        push: "payment_settled",
        push_id: PushId::from_bytes([n; 16]),
        body: json!({}),
        expires_at: Unix(500),
    };
    Consequences { entries: vec![entry], owed: vec![], pushes: vec![push] }
}

fn record(
    world: &World,
    row: Settlement,
    with: Consequences,
) -> Result<Recorded<crate::ids::SettlementId>, StoreError> {
    world.write(move |tx| settlements::record(tx, &row, &with))
}

fn wallet(world: &World) -> i64 {
    let account = Account::Wallet(world.machine);
    world.read(move |read| ledger::balance(read, account, Unit::Sats))
}

/// Loss prevented: a payment seen by push, poll and reconciliation credits three times; a payment
/// that changed since it was recorded goes unseen.
#[test]
fn a_payment_is_settled_once() {
    let world = world();
    invoiced(&world, 1);
    let row = settlement(world.machine, 1);
    let first = record(&world, row.clone(), paid(&world, 1)).unwrap();
    assert!(matches!(first, Recorded::New(_)));
    let later = Settlement { recorded_at: Unix(999), ..row.clone() };
    assert_eq!(record(&world, later, paid(&world, 1)).unwrap(), Recorded::Known(first.id()));
    for other in [
        Settlement { wire_sats: Sats(105_001), ..row.clone() },
        Settlement { wallet_id: "wallet-2".into(), ..row.clone() },
        Settlement {
            extra: JsonText::of(&json!({"source": "bitspire", "txid": "other"})),
            ..row.clone()
        },
        Settlement { direction: Direction::CashIn, ..row.clone() },
    ] {
        let refused = record(&world, other, Consequences::default()).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Conflict { key, .. } if *key == hash(1).to_string()),
            "{refused}"
        );
    }
    let found = world.read(|read| settlements::by_hash(read, hash(1))).unwrap();
    assert_eq!(found.row, row);
    assert_eq!(wallet(&world), 105_000, "credited once");
    assert_eq!(world.read(|read| outbox::due_pushes(read, Unix(200), 9)).len(), 1, "pushed once");
}

/// Loss prevented: a settlement without its ledger entry, or the other way round.
#[test]
fn a_settlement_and_its_consequences_are_one() {
    let world = world();
    invoiced(&world, 1);
    let machine = world.machine;
    let wrong = Settlement { owed_sats: Some(Sats(1)), ..settlement(machine, 1) };
    assert_eq!(kind_of(record(&world, wrong, paid(&world, 1))), ConstraintKind::Check);
    let owed = |sats| NewOwed {
        claim_hash: claim(1),
        machine_id: machine,
        txid: txid(1),
        reason: OwedReason::Surplus,
        source: hash(1).to_string(),
        sats,
    };
    let with = Consequences { owed: vec![owed(Sats(5)), owed(Sats(6))], ..paid(&world, 1) };
    let refused = record(&world, settlement(machine, 1), with);
    assert!(matches!(refused, Err(StoreError::Conflict { what: "debt", .. })), "{refused:?}");
    assert_eq!(wallet(&world), 0);
    assert!(world.read(|read| settlements::by_hash(read, hash(1))).is_none());
    assert!(world.read(move |read| claims::by_txn(read, machine, txid(1))).is_none());

    let row = settlement(machine, 1);
    let refused_row = Settlement {
        status: SettlementStatus::Rejected,
        reason: Some("sum".into()),
        distribution: Distribution::Rejected,
        hold_reason: None,
        ..row
    };
    let kept = record(&world, refused_row.clone(), Consequences::default());
    assert_eq!(kind_of(kept), ConstraintKind::Check, "absent, not zero");
    let absent = Settlement {
        principal_sats: None,
        platform_fee_sats: None,
        operator_fee_sats: None,
        owed_sats: None,
        ..refused_row
    };
    record(&world, absent, Consequences::default()).unwrap();
    let change = world.write(|tx| tx.run("UPDATE settlements SET wire_sats = 0", &[]));
    assert_eq!(kind_of(change), ConstraintKind::Rule);
}

/// Loss prevented: the second payment of an invoice is nobody's, or is owed twice.
#[test]
fn a_second_payment_of_an_invoice_is_owed_once() {
    let world = world();
    invoiced(&world, 1);
    let machine = world.machine;
    record(&world, settlement(machine, 1), paid(&world, 1)).unwrap();
    let repeat = |sats| Repeat {
        payment_key: "internal-1".into(),
        payment_hash: hash(1),
        wire_sats: sats,
        settled_at: Unix(150),
    };
    let owed = NewOwed {
        claim_hash: claim(1),
        machine_id: machine,
        txid: txid(1),
        reason: OwedReason::Twice,
        source: "internal-1".into(),
        sats: Sats(105_000),
    };
    let entry = owed_whole(machine, "internal-1", txid(1), Sats(105_000)).unwrap();
    let with = Consequences { entries: vec![entry], owed: vec![owed], pushes: vec![] };
    let run = |sats| {
        let (repeat, with) = (repeat(sats), with.clone());
        world.write(move |tx| settlements::record_repeat(tx, &repeat, &with, Unix(151)))
    };
    assert!(run(Sats(105_000)).unwrap());
    assert!(!run(Sats(105_000)).unwrap());
    assert!(matches!(run(Sats(1)), Err(StoreError::Conflict { .. })));
    assert_eq!(wallet(&world), 210_000);
    assert_eq!(world.read(move |read| claims::unassigned(read, machine)), Sats(105_000));
}

fn report(world: &World, presented: u32) -> Report {
    let result = BayResult { requested: 2, presented, ..BayResult::default() };
    Report {
        machine_id: world.machine,
        txid: txid(1),
        payment_hash: hash(1),
        outcome: DispenseOutcome::Partial,
        bays: Json(BayResults::from([(BayId::new(1).unwrap(), result)])),
        owed_minor: 4_500,
        journal_seq: JournalSeq(8),
        journal_head: head(8),
        vault_sig: sig(),
        received_at: Unix(160),
    }
}

/// Loss prevented: a report that comes again owes again; one that contradicts replaces evidence.
#[test]
fn a_report_changes_its_settlement_once() {
    let world = world();
    invoiced(&world, 1);
    let machine = world.machine;
    let id = record(&world, settlement(machine, 1), paid(&world, 1)).unwrap().id();
    let parts = |owed| Parts {
        principal: Sats(50_000),
        platform_fee: Sats(1_000),
        operator_fee: Sats(1_500),
        owed: Sats(owed),
    };
    let run = |report: Report, owed| {
        let about = Some(Reported { settlement: id, parts: parts(owed) });
        let with = Consequences::default();
        world.write(move |tx| settlements::record_report(tx, &report, about, &with))
    };
    assert_eq!(kind_of(run(report(&world, 1), 52_499)), ConstraintKind::Check, "must sum");
    assert!(run(report(&world, 1), 52_500).unwrap());
    let vault_sig = bitspire_shared::canonical::Sig::over("again", &super::fixtures::keys(1));
    let again = Report { received_at: Unix(170), vault_sig, ..report(&world, 1) };
    assert!(!run(again, 52_500).unwrap());
    let other = run(report(&world, 2), 52_500);
    assert!(matches!(other, Err(StoreError::Conflict { what: "dispense report", .. })));
    let now = world.read(move |read| settlements::find(read, id)).unwrap();
    assert_eq!(now.parts(), Some(parts(52_500)));
    assert_eq!(now.dispense_outcome, Some(DispenseOutcome::Partial));
    let last = world.read(move |read| settlements::latest_report(read, machine, txid(1)));
    assert_eq!(last.unwrap(), report(&world, 1));
}

/// Loss prevented: two workers pay the legs of one settlement; a crashed one blocks it for ever.
#[test]
fn a_settlement_is_distributed_by_one_worker_at_a_time() {
    let world = world();
    invoiced(&world, 1);
    let id = record(&world, settlement(world.machine, 1), paid(&world, 1)).unwrap().id();
    let take = |token: &'static str, now| {
        world.write(move |tx| settlements::take(tx, id, token, Unix(now + 60), Unix(now))).unwrap()
    };
    assert!(!take("a", 200), "held");
    world.write(move |tx| settlements::release(tx, id)).unwrap();
    assert!(take("a", 200));
    assert!(!take("b", 260), "the lease holds");
    assert!(take("b", 261), "the lease has run out");
    let end = |token: &'static str| {
        world.write(move |tx| settlements::finish(tx, id, token, Distribution::Processed))
    };
    assert!(matches!(end("a"), Err(StoreError::NotOneRow { changed: 0, .. })), "lost its lease");
    let held = world.write(move |tx| settlements::hold(tx, id, "verdict"));
    assert!(held.is_err(), "not while a worker has it");
    end("b").unwrap();
    let done = world.read(move |read| settlements::find(read, id)).unwrap();
    assert_eq!(done.row.distribution, Distribution::Processed);
}

/// Loss prevented: payments between the old and the new cursor are never looked at.
#[test]
fn a_cursor_never_goes_back() {
    let world = world();
    let set = |at| world.write(move |tx| settlements::set_cursor(tx, "wallet-1", at, Unix(9)));
    assert_eq!(world.read(|read| settlements::cursor(read, "wallet-1")), None);
    set(10).unwrap();
    assert_eq!(kind_of(set(9)), ConstraintKind::Rule);
    set(11).unwrap();
    assert_eq!(world.read(|read| settlements::cursor(read, "wallet-1")), Some(11));
}

/// Loss prevented: all of the above only as long as the process lives.
#[test]
fn a_sale_is_there_after_a_restart() {
    let world = world();
    invoiced(&world, 1);
    let row = settlement(world.machine, 1);
    record(&world, row.clone(), paid(&world, 1)).unwrap();
    let World { store, folder, .. } = world;
    drop(store);
    let store = super::open(&folder);
    let found = store.read_blocking(|read| settlements::by_hash(read, hash(1)));
    let found: Result<_, StoreError> = found;
    assert_eq!(found.unwrap().unwrap().row, row);
    assert_eq!(store.read_blocking(ledger::findings).unwrap(), []);
}
