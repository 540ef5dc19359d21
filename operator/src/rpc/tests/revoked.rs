//! A machine that is revoked in the middle of a sale: each state of both directions.

use super::cash_in::{claim, fetched};
use super::cash_out::{debts, loaded, offered, owed_by, pay, report, settlement};
use super::*;
use crate::app::Ring;
use crate::settle;
use crate::store::quotes;
use crate::store::settlements::{self, Distribution, SettlementStatus};
use crate::wallet::simulated::Behaviour;

/// What a revoke does in its transaction; how many paid sales it holds.
pub(super) async fn revoke(world: &World) -> usize {
    let (id, now) = (world.machine_id, world.app.clock.now());
    let held = world.write(move |tx| {
        machines::revoke(tx, id, now)?;
        settle::hold_open_sales(tx, id, now)
    });
    let held = held.await;
    notice(world).await;
    held
}

async fn notice(world: &World) {
    world.app.roster.refresh(&world.app).await.unwrap();
    world.app.ring(Ring::Roster);
}

/// The same machine, its vault and journal, under the key of another pairing.
pub(super) async fn paired_again(world: &World, before: &Peer) -> Peer {
    // later than what was agreed on before, and than the last session's request
    world.advance(2);
    let spire = Keys::generate();
    let (id, now, new) = (world.machine_id, world.app.clock.now(), key(&spire));
    let ends = now.after(9_000_000);
    world.write(move |tx| machines::set_paired(tx, id, new, "spire-1-2", ends, now)).await;
    notice(world).await;
    let mut machine = Peer::connect(world, spire).await;
    (machine.vault, machine.journal) = (before.vault.clone(), before.journal);
    machine.open_session().await.unwrap();
    world.confirm().await;
    machine
}

/// Nothing is signed for this payment.
async fn nothing_is_signed(world: &World, hash: PaymentHash) {
    assert!(settle::authorise(&world.app, hash).await.unwrap().is_none());
}

async fn liability(world: &World) -> i64 {
    world.balance(Account::CustomerLiability(world.machine_id)).await
}

/// A cash_in under a lock of 30 EUR.
async fn locked(machine: &mut Peer) -> (Quote, ClaimHash) {
    let asked = machine.quote(Direction::CashIn, 3_000);
    (machine.ask(asked).await.unwrap(), asked.claim_hash)
}

/// 20 EUR stacked, and the withdraw for it.
async fn withdrawn(machine: &mut Peer) -> Withdraw {
    let (quote, claim_hash) = locked(machine).await;
    let body = claim(machine, &quote, claim_hash, &[(2_000, 1)], &[]);
    machine.ask(machine.signed(body)).await.unwrap()
}

/// The payment of a withdraw, as the books have it: out of a wallet whose float nobody has booked.
async fn paid_out(world: &World, hash: PaymentHash) -> settlements::Settlement {
    crate::payout::tests::round(&world.app).await.unwrap();
    let till = world.app.wallets["till"].clone();
    settle::reconcile(&world.app, &*till).await.unwrap();
    world.read(move |read| settlements::by_hash(read, hash)).await.unwrap().row
}

/// Loss prevented: a price that was agreed on before becomes an invoice, and sats without notes.
#[tokio::test]
async fn a_revoked_quote_becomes_no_invoice() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashOut, 1_000);
    let quote = machine.ask(asked).await.unwrap();
    assert_eq!(revoke(&world).await, 0);
    let invoice = CreateInvoice { quote_id: quote.quote_id };
    assert_eq!(machine.ask(invoice).await, Err(ErrorCode::Revoked));
    let mut anew = paired_again(&world, &machine).await;
    let other_key = anew.ask(invoice).await;
    assert_eq!(other_key, Err(ErrorCode::QuoteExpired), "no vault gives notes for it");
    let asked = anew.quote(Direction::CashOut, 1_000);
    assert!(anew.ask(asked).await.is_ok());
    world.books_hold().await;
}

/// Loss prevented: notes that went out just before, and a report of them that nobody takes.
#[tokio::test]
async fn an_authorised_sale_that_was_revoked_is_reported_by_its_vault() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let sale = offered(&mut machine, 5_000).await;
    pay(&world, &sale.invoice, None);
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert!(machine.is_leave(&sale.quote, sale.invoice.payment_hash, &push.authorisation));
    assert_eq!(revoke(&world).await, 1);
    nothing_is_signed(&world, sale.invoice.payment_hash).await;
    let full = report(&mut machine, &sale, DispenseOutcome::Full, &[(1, 2, 2), (2, 1, 1)], 0);
    assert_eq!(machine.ask(full).await, Ok(Ack {}));
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.dispense_outcome, Some(DispenseOutcome::Full));
    assert_eq!((kept.distribution, debts(&world, &sale).await), (Distribution::Held, vec![]));
    assert_eq!(kept.hold_reason.as_deref(), Some("revoked"), "a person looks at it first");
    world.books_hold().await;
}

/// Loss prevented: leave to dispense for a payment of before, in the name of the machine's new key,
/// beside the debt that its customer has a claim to.
#[tokio::test]
async fn what_was_held_by_a_revoke_is_not_authorised_by_another_pairing() {
    let (world, mut machine) = trading().await;
    let sale = offered(&mut machine, 1_000).await;
    pay(&world, &sale.invoice, None);
    machine.push().await;
    revoke(&world).await;
    let mut anew = paired_again(&world, &machine).await;
    let hash = sale.invoice.payment_hash;
    nothing_is_signed(&world, hash).await;
    let payment = anew.ask(GetPayment::PaymentHash(hash)).await.unwrap();
    assert_eq!((payment.state, payment.authorisation), (PaymentState::Settled, None));
    assert_eq!(settlement(&world, &sale).await.hold_reason.as_deref(), Some("revoked"));
    world.books_hold().await;
}

/// Loss prevented: the rest of a sale that came out in part, owed before and forgotten by the revoke,
/// or owed twice.
#[tokio::test]
async fn a_partial_sale_stays_owed_over_a_revoke() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let before = offered(&mut machine, 5_000).await;
    pay(&world, &before.invoice, None);
    machine.push().await;
    let after = offered(&mut machine, 5_000).await;
    pay(&world, &after.invoice, None);
    machine.push().await;
    let partial = DispenseOutcome::Partial;
    let short = report(&mut machine, &before, partial, &[(1, 2, 2), (2, 1, 0)], 1_000);
    machine.ask(short).await.unwrap();
    assert_eq!(revoke(&world).await, 1, "the other one");
    let short = report(&mut machine, &after, partial, &[(1, 2, 2), (2, 1, 0)], 1_000);
    machine.ask(short).await.unwrap();
    let rest = [("undispensed".to_owned(), 10_500)];
    assert_eq!(
        (debts(&world, &before).await, debts(&world, &after).await),
        (rest.to_vec(), rest.to_vec())
    );
    assert_eq!(settlement(&world, &before).await.distribution, Distribution::Pending);
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, -21_000);
    world.books_hold().await;
}

/// Loss prevented: notes in doubt that are paid out as well, or that nobody decides about any more.
#[tokio::test]
async fn an_uncertain_sale_waits_for_a_person_over_a_revoke() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let sale = offered(&mut machine, 5_000).await;
    pay(&world, &sale.invoice, None);
    machine.push().await;
    let unsure = DispenseOutcome::Uncertain;
    let unsure = report(&mut machine, &sale, unsure, &[(1, 2, 1), (2, 1, 0)], 0);
    machine.ask(unsure).await.unwrap();
    revoke(&world).await;
    nothing_is_signed(&world, sale.invoice.payment_hash).await;
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.distribution, Distribution::Held);
    assert_eq!(debts(&world, &sale).await, []);
    // its vault finds out later what came of it
    let end = report(&mut machine, &sale, DispenseOutcome::Partial, &[(1, 2, 2), (2, 1, 0)], 1_000);
    machine.ask(end).await.unwrap();
    assert_eq!(debts(&world, &sale).await, [("undispensed".to_owned(), 10_500)]);
    world.books_hold().await;
}

/// Loss prevented: sats kept back for ever for a lock under which nothing was stacked, or a new one
/// for a machine that may not trade.
#[tokio::test]
async fn a_revoked_lock_ends_at_its_time() {
    let world = World::new().await;
    let rpc = world.serve().await;
    let mut machine = world.in_service().await;
    locked(&mut machine).await;
    revoke(&world).await;
    let id = world.machine_id;
    let reserved = async || world.read(move |read| quotes::reserved(read, id)).await;
    assert_eq!(reserved().await, sats(28_500), "a note may be on its way");
    let other = machine.ask(machine.quote(Direction::CashIn, 1_000)).await;
    assert_eq!(other, Err(ErrorCode::Revoked));
    world.advance(120 + limits::CLAIM_GRACE_S + 1);
    rpc.tidy().await.unwrap();
    assert_eq!(reserved().await, sats(0));
}

/// Loss prevented: a customer's notes in the box of a machine that was revoked before it could claim
/// them, and that is paired again.
#[tokio::test]
async fn notes_stacked_before_a_revoke_are_claimed_after_another_pairing() {
    let (world, mut machine) = serving().await;
    let (quote, claim_hash) = locked(&mut machine).await;
    let body = claim(&mut machine, &quote, claim_hash, &[(2_000, 1)], &[]);
    revoke(&world).await;
    let refused = machine.ask(machine.signed(body.clone())).await;
    assert_eq!(refused, Err(ErrorCode::Revoked), "kept, and no sats are promised");
    let mut anew = paired_again(&world, &machine).await;
    let withdraw = anew.ask(anew.signed(body.clone())).await.unwrap();
    assert_eq!(withdraw.net_sats, sats(19_000));
    let terms = withdraw.terms(key(&anew.spire), key(&anew.vault), quote.txid);
    terms.verify(&withdraw.withdraw_sig, &anew.service).unwrap();
    assert_eq!(anew.ask(anew.signed(body)).await, Ok(withdraw), "one for ever");
    assert_eq!(liability(&world).await, -19_000);
    world.books_hold().await;
}

/// Loss prevented: an LNURL on a customer's telephone that is worth nothing once the machine is
/// revoked, or paired again.
#[tokio::test]
async fn an_offered_withdraw_stays_payable() {
    for again in [false, true] {
        let (world, mut machine) = serving().await;
        let withdraw = withdrawn(&mut machine).await;
        revoke(&world).await;
        if again {
            paired_again(&world, &machine).await;
        }
        let hash = fetched(&world, &withdraw).await;
        let kept = paid_out(&world, hash).await;
        assert_eq!(kept.status, SettlementStatus::Accepted, "{again}: {:?}", kept.reason);
        assert_eq!(liability(&world).await, 0);
    }
}

/// Loss prevented: an invoice that was bound before and is not paid, or paid twice.
#[tokio::test]
async fn a_bound_withdraw_is_paid_once_over_a_revoke() {
    let (world, mut machine) = serving().await;
    let withdraw = withdrawn(&mut machine).await;
    let hash = fetched(&world, &withdraw).await;
    revoke(&world).await;
    for _ in 0..2 {
        assert_eq!(paid_out(&world, hash).await.status, SettlementStatus::Accepted);
    }
    assert_eq!(liability(&world).await, 0);
    assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, -19_000);
}

/// Loss prevented: a payment whose end nobody knows, made a second time because the machine was revoked
/// or paired again meanwhile, or never looked up again.
#[tokio::test]
async fn a_withdraw_of_unknown_end_is_looked_up_and_paid_once_over_a_revoke() {
    for behaviour in [Behaviour::LoseAnswer, Behaviour::Pend] {
        let (world, mut machine) = serving().await;
        let node = world.app.simulated.clone().unwrap();
        let withdraw = withdrawn(&mut machine).await;
        let hash = fetched(&world, &withdraw).await;
        node.script([behaviour]);
        crate::payout::tests::round(&world.app).await.unwrap();
        let ask = GetPayment::WithdrawId(withdraw.withdraw_id);
        let payment = machine.ask(ask).await.unwrap();
        assert_eq!(payment.state, PaymentState::Unknown, "{behaviour:?}");
        revoke(&world).await;
        if behaviour == Behaviour::Pend {
            crate::payout::tests::round(&world.app).await.unwrap();
            assert_eq!(liability(&world).await, -19_000, "it waits for the wallet's word");
            node.resolve("till", hash, true).unwrap();
        }
        for _ in 0..2 {
            let kept = paid_out(&world, hash).await;
            assert_eq!(kept.status, SettlementStatus::Accepted, "{behaviour:?}: {:?}", kept.reason);
        }
        assert_eq!(liability(&world).await, 0);
        assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, -19_000, "once");
        let mut anew = paired_again(&world, &machine).await;
        let payment = anew.ask(ask).await.unwrap();
        assert_eq!(payment.state, PaymentState::Settled, "the machine learns of it");
    }
}

/// Loss prevented: sats for notes that were fed, forgotten with the machine because nobody scanned its
/// screen in time.
#[tokio::test]
async fn a_withdraw_that_ends_after_a_revoke_is_owed() {
    let (world, mut machine) = serving().await;
    let (quote, claim_hash) = locked(&mut machine).await;
    let body = claim(&mut machine, &quote, claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    revoke(&world).await;
    world.advance(withdraw.expires_at.since(world.app.clock.now()) + 1);
    crate::payout::tests::round(&world.app).await.unwrap();
    let owed = owed_by(&world, claim_hash).await;
    assert_eq!(owed, [("unclaimed".to_owned(), 19_000)]);
    assert_eq!(liability(&world).await, 0);
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, -19_000);
    world.books_hold().await;
}

/// Loss prevented: the books of a withdraw that was paid before, changed by the revoke.
#[tokio::test]
async fn a_paid_withdraw_stays_paid() {
    let (world, mut machine) = serving().await;
    let withdraw = withdrawn(&mut machine).await;
    let hash = fetched(&world, &withdraw).await;
    let before = paid_out(&world, hash).await;
    assert_eq!(revoke(&world).await, 0);
    assert_eq!(paid_out(&world, hash).await, before);
    assert_eq!(liability(&world).await, 0);
    let mut anew = paired_again(&world, &machine).await;
    let payment = anew.ask(GetPayment::WithdrawId(withdraw.withdraw_id)).await.unwrap();
    assert_eq!(payment.state, PaymentState::Settled, "the machine learns of it");
}
