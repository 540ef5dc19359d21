//! What customers are promised and paid: each note, each debt and each k1 once.

use bitspire_shared::money::Sats;
use bitspire_shared::time::Unix;

use super::fixtures::{
    World, claim, hash, kind_of, notes, offered, quote_id, txid, withdraw, withdraw_id, world,
};
use crate::ids::PaymentId;
use crate::store::claims::{self, NewOwed, OwedReason};
use crate::store::payments::{self, NewPayment, PaymentState, Resolution, Subject};
use crate::store::withdraws::{self, Bound, K1, Lot, WithdrawState};
use crate::store::{ConstraintKind, Recorded, StoreError};

fn k1(n: u8) -> K1 {
    K1::from_bytes([n; 32])
}

fn payment(world: &World, n: u8) -> NewPayment {
    NewPayment {
        subject: Subject::Withdraw(withdraw_id(1)),
        machine_id: world.machine,
        wallet_id: "wallet-1".into(),
        payment_hash: hash(n),
        bolt11: format!("lnbcrt{n}"),
        amount_sats: Sats(95_000),
        fee_limit_sats: Sats(475),
        invoice_expires_at: Unix(400),
    }
}

/// Loss prevented: two invoices for one k1 are both paid (the double payout).
#[test]
fn a_k1_binds_one_invoice_for_ever() {
    let world = world();
    offered(&world, 1);
    world.write(|tx| withdraws::issue(tx, withdraw_id(1), &k1(1), Unix(300), Unix(140))).unwrap();
    let bind =
        |n, h, now| world.write(move |tx| withdraws::bind(tx, &k1(n), hash(h), "ln", Unix(now)));
    assert_eq!(bind(2, 9, 150).unwrap(), Bound::Refused, "unknown");
    assert_eq!(bind(1, 9, 301).unwrap(), Bound::Refused, "expired");
    assert_eq!(bind(1, 9, 150).unwrap(), Bound::Now);
    assert_eq!(bind(1, 9, 900).unwrap(), Bound::Before, "the same again, at any time");
    assert_eq!(bind(1, 8, 151).unwrap(), Bound::Other);
    let rebind = world.write(|tx| {
        let sql = "UPDATE withdraw_k1s SET bound_hash = ?1";
        tx.run(sql, &[&hash(8)])
    });
    assert_eq!(kind_of(rebind), ConstraintKind::Rule);
    assert!(world.read(|read| withdraws::hash_seen(read, hash(9))));
    assert!(!world.read(|read| withdraws::hash_seen(read, hash(8))));
    let row = world.read(|read| withdraws::find(read, withdraw_id(1))).unwrap();
    assert_eq!(row.state, WithdrawState::Bound);
    assert!(!format!("{:?}", k1(0xab)).contains("ab"), "a k1 is a secret");
}

/// Loss prevented: an unknown payment taken for a failed one, and paid again.
#[test]
fn no_second_attempt_while_the_first_may_succeed() {
    let world = world();
    offered(&world, 1);
    let begin = |n| {
        let new = payment(&world, n);
        world.write(move |tx| payments::begin(tx, &new, Unix(150)))
    };
    let issue = |n| {
        world.write(move |tx| withdraws::issue(tx, withdraw_id(1), &k1(n), Unix(300), Unix(140)))
    };
    issue(1).unwrap();
    world.write(|tx| withdraws::bind(tx, &k1(1), hash(1), "ln", Unix(150))).unwrap();
    let first = begin(1).unwrap();
    assert!(begin(2).unwrap_err().is_unique_on("payments.subject"));
    world.write(move |tx| payments::set_unknown(tx, first, "no answer")).unwrap();
    assert!(begin(2).unwrap_err().is_unique_on("payments.subject"), "unknown is not failed");
    assert_eq!(kind_of(issue(2)), ConstraintKind::Rule, "nor is there a new k1");
    assert_eq!(world.read(payments::open).len(), 1);
    world.write(move |tx| payments::saw_failure(tx, first, "failed", Unix(500))).unwrap();
    world.write(move |tx| payments::saw_failure(tx, first, "failed", Unix(900))).unwrap();
    let seen = world.read(|read| payments::by_hash(read, hash(1))).unwrap();
    assert_eq!((seen.failed_seen_at, seen.state), (Some(Unix(500)), PaymentState::Unknown));
    let end =
        |id: PaymentId, end| world.write(move |tx| payments::resolve(tx, id, end, Unix(1_200)));
    end(first, Resolution::Failed).unwrap();
    issue(2).unwrap();
    assert!(begin(1).unwrap_err().is_unique_on("payments.payment_hash"), "never the same hash");
    let second = begin(2).unwrap();
    end(second, Resolution::Succeeded(Sats(3))).unwrap();
    assert_eq!(kind_of(end(second, Resolution::Failed)), ConstraintKind::Rule, "final");
    assert!(begin(3).unwrap_err().is_unique_on("payments.subject"), "paid once");
    let tried = world.read(|read| payments::of_subject(read, Subject::Withdraw(withdraw_id(1))));
    assert_eq!(
        tried.iter().map(|p| p.state).collect::<Vec<_>>(),
        [PaymentState::Failed, PaymentState::Succeeded]
    );
    let old = world.read(|read| withdraws::session(read, &k1(1))).unwrap();
    assert_eq!(old.bound_hash, Some(hash(1)), "what was bound stays bound, and dead");
}

/// Loss prevented: the notes of one transaction, or one rate lock, promised twice.
#[test]
fn notes_are_promised_once() {
    let world = world();
    offered(&world, 1);
    let machine = world.machine;
    let again = withdraws::Withdraw { withdraw_id: withdraw_id(2), ..withdraw(machine, 1) };
    let again = world.write(move |tx| withdraws::insert(tx, &again, &[])).unwrap_err();
    assert!(again.is_unique_on("withdraws.machine_id"), "{again}");
    let lot = Lot { quote_id: quote_id(1), notes: notes(9) };
    let other = withdraw(machine, 2);
    let kept = lot.clone();
    let used = world.write(move |tx| withdraws::insert(tx, &other, &[kept])).unwrap_err();
    assert!(used.is_unique_on("withdraw_lots.quote_id"), "{used}");
    let wrong = withdraws::Withdraw { net_sats: Sats(95_001), ..withdraw(machine, 3) };
    let wrong = world.write(move |tx| withdraws::insert(tx, &wrong, &[]));
    assert_eq!(kind_of(wrong), ConstraintKind::Check);
    assert_eq!(world.read(move |read| withdraws::unpaid(read, machine)), Sats(95_000));
    assert_eq!(world.read(|read| withdraws::lots(read, withdraw_id(1))), [lot]);
    assert_eq!(
        world.read(move |read| withdraws::by_txn(read, machine, txid(1))).unwrap(),
        withdraw(machine, 1)
    );
}

/// Loss prevented: what is owed on a transaction is paid twice, or only in part.
#[test]
fn a_claim_pays_every_debt_once() {
    let world = world();
    let machine = world.machine;
    let owe = |reason, source: &'static str, sats| {
        let new = NewOwed {
            claim_hash: claim(1),
            machine_id: machine,
            txid: txid(1),
            reason,
            source: source.into(),
            sats: Sats(sats),
        };
        world.write(move |tx| claims::owe(tx, &new, Unix(200)))
    };
    let id = owe(OwedReason::Surplus, "p1", 7).unwrap().id();
    assert_eq!(owe(OwedReason::Surplus, "p1", 7).unwrap(), Recorded::Known(id));
    assert!(matches!(owe(OwedReason::Surplus, "p1", 8), Err(StoreError::Conflict { .. })));
    owe(OwedReason::Undispensed, "r1", 93).unwrap();
    let pay = |n| {
        world.write(move |tx| {
            withdraws::insert_for_claim(tx, id, withdraw_id(n), Unix(900), Unix(300))
        })
    };
    assert_eq!(pay(1).unwrap(), Some(Sats(100)));
    assert_eq!(pay(2).unwrap(), None, "nothing is left");
    owe(OwedReason::Twice, "p2", 50).unwrap();
    assert!(pay(2).unwrap_err().is_unique_on("withdraws.claim_id"), "one payout at a time");
    let open = world.read(move |read| withdraws::unpaid_of_claim(read, machine, claim(1)));
    assert_eq!(open.iter().map(|w| w.net_sats).collect::<Vec<_>>(), [Sats(100)]);
    world.write(|tx| withdraws::set_state(tx, withdraw_id(1), WithdrawState::Paid)).unwrap();
    assert_eq!(pay(2).unwrap(), Some(Sats(50)));
    let debts = world.read(move |read| claims::debts(read, id));
    let paid_by: Vec<_> = debts.iter().map(|d| d.withdraw_id).collect();
    assert_eq!(paid_by, [Some(withdraw_id(1)), Some(withdraw_id(1)), Some(withdraw_id(2))]);
    let undo = world.write(|tx| tx.run("UPDATE owed SET withdraw_id = NULL", &[]));
    assert_eq!(kind_of(undo), ConstraintKind::Rule);
    assert_eq!(world.read(|read| claims::by_hash(read, claim(1))).unwrap().id, id);
}
