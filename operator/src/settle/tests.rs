//! Payments that are nobody's sale, and wallets that come and go.

mod flood;
mod odd;

use std::sync::Arc;

use bitspire_shared::ids::*;
use bitspire_shared::money::{Denomination, Direction, Msat, Sats};
use bitspire_shared::rpc::{CreateInvoice, CreateWithdraw, Invoice, Quote};
use serde_json::{Value, json};

use super::watch::{consider_all, hinted, poll_open, watch};
use super::*;
use crate::ledger::Account;
use crate::rpc::tests::{Peer, World, id, key, publish_fees, serving};
use crate::store::claims;
use crate::store::invoices::{self, InvoiceState};
use crate::store::payments::{self, NewPayment, Subject};
use crate::store::settlements::Distribution;
use crate::store::{JsonText, damage, machines, unrecorded};
use crate::wallet::simulated::Behaviour;
use crate::wallet::{Cursor, Hint, InvoiceRequest};

async fn invoice_in(
    world: &World,
    wallet: &str,
    sats: u64,
    extra: Value,
) -> crate::wallet::Invoice {
    let request = InvoiceRequest { amount: Sats(sats), memo: "m".into(), expiry_s: 300, extra };
    world.app.wallets[wallet].make_invoice(request).await.unwrap()
}

fn pay(world: &World, bolt11: &str) {
    world.app.simulated.as_ref().unwrap().customer_pays(bolt11, None).unwrap();
}

async fn read_list(world: &World, wallet: &str) -> Result<(), SettleError> {
    reconcile(&world.app, &*world.app.wallets[wallet].clone()).await
}

async fn settlement(world: &World, hash: PaymentHash) -> Option<Settlement> {
    world.read(move |read| settlements::by_hash(read, hash)).await.map(|kept| kept.row)
}

async fn sold(machine: &mut Peer) -> (Quote, Invoice) {
    let quote = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    let invoice = machine.ask(CreateInvoice { quote_id: quote.quote_id }).await.unwrap();
    (quote, invoice)
}

async fn stamp_of(world: &World, hash: PaymentHash) -> Value {
    world
        .read(move |read| invoices::by_hash(read, hash))
        .await
        .unwrap()
        .stamp
        .as_str()
        .parse()
        .unwrap()
}

/// Loss prevented: a wallet that was used before fills the books with debts to nobody.
#[tokio::test]
async fn what_a_wallet_took_in_before_it_was_a_machines_is_not_booked() {
    let world = World::new().await;
    let before = invoice_in(&world, "stray", 900, json!({})).await;
    pay(&world, &before.bolt11);
    world.advance(10);
    let now = world.app.clock.now();
    let machine = world.machine_id;
    let operator = world.read(move |r| machines::find(r, machine)).await.unwrap().operator_id;
    world
        .write(move |tx| {
            let eur = "EUR".parse().unwrap();
            let machine = machines::Machine::new(operator, "Bar", "Porto", eur, "stray", now);
            machines::insert(tx, &machine)
        })
        .await;
    let after = invoice_in(&world, "stray", 700, json!({})).await;
    pay(&world, &after.bolt11);
    read_list(&world, "stray").await.unwrap();
    assert_eq!(settlement(&world, before.payment_hash).await, None);
    let kept = settlement(&world, after.payment_hash).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Rejected);
    world.books_hold().await;
    let audit = crate::audit::run(&world.app).await.unwrap();
    let told = format!("{:?}", audit.differences);
    assert!(!told.contains(&before.payment_hash.to_string()), "{told}");
}

/// Loss prevented: anybody with a wallet on a shared host buys notes with a copied stamp.
#[tokio::test]
async fn a_payment_that_we_did_not_ask_for_is_refused_and_kept() {
    let (world, mut machine) = serving().await;
    let (_, ours) = sold(&mut machine).await;
    let stamp = stamp_of(&world, ours.payment_hash).await;
    let copied = invoice_in(&world, "till", 10_500, stamp.clone()).await;
    let elsewhere = invoice_in(&world, "stray", 10_500, stamp).await;
    let plain = invoice_in(&world, "till", 700, json!({})).await;
    let foreign = invoice_in(&world, "stray", 900, json!({"tag": "shop"})).await;
    for invoice in [&copied, &elsewhere, &plain, &foreign] {
        pay(&world, &invoice.bolt11);
    }
    read_list(&world, "till").await.unwrap();
    read_list(&world, "stray").await.unwrap();
    for (hash, reason) in [
        (copied.payment_hash, "unrequested"),
        (elsewhere.payment_hash, "unrequested"),
        (plain.payment_hash, "attribution"),
    ] {
        let kept = settlement(&world, hash).await.unwrap();
        assert_eq!(kept.status, SettlementStatus::Rejected);
        assert!(kept.reason.as_ref().unwrap().starts_with(reason), "{:?}", kept.reason);
        assert_eq!(kept.parts(), None, "absent, not zero");
        assert!(authorise(&world.app, hash).await.unwrap().is_none());
    }
    assert_eq!(settlement(&world, foreign.payment_hash).await, None, "none of our business");
    let id = world.machine_id;
    assert_eq!(world.balance(Account::Wallet(id)).await, 11_200);
    assert_eq!(world.balance(Account::StrayWallet(id)).await, 10_500);
    assert_eq!(world.balance(Account::Suspense(id)).await, -21_700);
    assert_eq!(world.audited("settlement.rejected").await, 3);
    world.books_hold().await;
}

/// Loss prevented: our own invoice, paid into a wallet of no machine, is dropped without a word.
#[tokio::test]
async fn a_payment_into_no_machines_wallet_waits_in_suspense() {
    let (world, mut machine) = serving().await;
    let quote = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    let made = invoice_in(&world, "stray", 10_500, json!({})).await;
    let row = invoices::Invoice {
        quote_id: quote.quote_id,
        machine_id: world.machine_id,
        txid: quote.txid,
        payment_hash: made.payment_hash,
        bolt11: made.bolt11.clone(),
        wire_sats: quote.wire_sats,
        stamp: JsonText::of(&json!({"nostr_sender_pubkey": key(&world.spire)})),
        request_event_id: EventId::from_bytes(id()),
        request_event: "{}".into(),
        created_at: world.app.clock.now(),
        expires_at: made.expires_at,
        state: InvoiceState::Open,
    };
    world.write(move |tx| invoices::insert(tx, &row)).await;
    pay(&world, &made.bolt11);
    read_list(&world, "stray").await.unwrap();
    let kept = settlement(&world, made.payment_hash).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Misrouted);
    assert_eq!(kept.distribution, Distribution::Held);
    assert_eq!(world.balance(Account::StrayWallet(world.machine_id)).await, 10_500);
    assert_eq!(world.audited("settlement.misrouted").await, 1);
    assert!(authorise(&world.app, made.payment_hash).await.unwrap().is_none());
    world.books_hold().await;
}

/// Loss prevented: one payment recorded three times by hint, poll and list; or one lost because
/// the wallet was away.
#[tokio::test]
async fn three_ways_lead_to_one_settlement() {
    let (world, mut machine) = serving().await;
    let (_, first) = sold(&mut machine).await;
    let (_, second) = sold(&mut machine).await;
    pay(&world, &first.bolt11);
    for _ in 0..2 {
        assert_eq!(look(&world.app, "till", first.payment_hash).await.unwrap(), Looked::Landed);
        read_list(&world, "till").await.unwrap();
        poll_open(&world.app, &*world.app.wallets["till"].clone()).await.unwrap();
    }
    let id = world.machine_id;
    assert_eq!(world.balance(Account::Wallet(id)).await, 10_500);
    let node = world.app.simulated.as_ref().unwrap();
    pay(&world, &second.bolt11);
    node.set_reachable(false);
    let away = read_list(&world, "till").await.unwrap_err();
    assert_eq!(away.kind(), Kind::Transient);
    node.set_reachable(true);
    read_list(&world, "till").await.unwrap();
    assert_eq!(world.balance(Account::Wallet(id)).await, 21_000);
    world.books_hold().await;
}

/// Loss prevented: a service that was away and reads its wallet's list for minutes, a flush for each
/// payment, while customers who paid wait for their notes.
#[tokio::test]
async fn what_came_while_away_shares_its_flushes() {
    let (world, _machine) = serving().await;
    let mut hashes = Vec::new();
    for _ in 0..100 {
        let invoice = invoice_in(&world, "till", 700, json!({})).await;
        pay(&world, &invoice.bolt11);
        hashes.push(invoice.payment_hash);
    }
    let before = world.app.store.stats().commits;
    read_list(&world, "till").await.unwrap();
    let commits = world.app.store.stats().commits - before;
    assert!(commits < 50, "{commits} for 100 payments");
    for hash in hashes {
        assert!(settlement(&world, hash).await.is_some());
    }
    world.books_hold().await;
}

/// Loss prevented: a watcher that dies of one bad payment, so that no later one is seen, or reads its
/// wallet's list from there for ever, more each time; or one that goes past it, so that nobody ever hears
/// of it and it is never recorded; or tells of it again every few minutes.
#[tokio::test]
async fn one_bad_payment_stops_no_other_and_is_not_passed_over() {
    let (world, mut machine) = serving().await;
    let (quote, bad) = sold(&mut machine).await;
    let (_, good) = sold(&mut machine).await;
    // a claim on record that is not the one which was quoted
    let (machine_id, now) = (world.machine_id, world.app.clock.now());
    let other = ClaimHash::from_bytes(id());
    world.write(move |tx| claims::open(tx, other, machine_id, quote.txid, now)).await;
    let node = world.app.simulated.as_ref().unwrap();
    node.customer_pays(&bad.bolt11, Some(Msat(1_000))).unwrap();
    // more behind it than are recorded at a time
    for _ in 0..TOGETHER {
        pay(&world, &invoice_in(&world, "till", 1_000, json!({})).await.bolt11);
    }
    pay(&world, &good.bolt11);
    read_list(&world, "till").await.unwrap();
    let behind = settlement(&world, good.payment_hash).await.map(|kept| kept.status);
    assert_eq!(behind, Some(SettlementStatus::Accepted), "by the list alone");
    let till = world.app.wallets["till"].clone();
    let (_, end) = till.list(Cursor(0)).await.unwrap();
    assert_eq!(world.read(|read| settlements::cursor(read, "till")).await, Some(end.0));

    for _ in 0..2 {
        // long after the invoice's end
        world.advance(10_000);
        read_list(&world, "till").await.unwrap();
        poll_open(&world.app, &*till).await.unwrap();
        hinted(&world.app, &*till, bad.payment_hash).await.unwrap();
        assert_eq!(settlement(&world, bad.payment_hash).await, None);
    }
    assert_eq!(world.audited("settlement.unrecorded").await, 1);
    let invoice = world.read(move |read| invoices::by_hash(read, bad.payment_hash)).await.unwrap();
    assert_eq!(invoice.state, InvoiceState::Open, "nobody says that it was not paid");
    let kept = world.read(move |read| unrecorded::to_try(read, "till", Unix(0), 9)).await;
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!((kept.payment_hash, kept.direction), (bad.payment_hash, Direction::CashOut));
    assert!(kept.reason.contains("claim of"), "{}", kept.reason);

    // somebody has looked after it
    let claim = format!("DELETE FROM claims WHERE txid = '{}'", quote.txid);
    world.write(move |tx| damage(tx, &[claim.as_str()])).await;
    world.advance(180);
    read_list(&world, "till").await.unwrap();
    let kept = settlement(&world, bad.payment_hash).await.unwrap();
    assert_eq!((kept.status, kept.wire_sats), (SettlementStatus::Under, Sats(1)));
    assert_eq!(world.read(|read| unrecorded::count(read, "till")).await, 0);
    assert_eq!(world.audited("settlement.recorded").await, 1);
    world.books_hold().await;
}

/// Loss prevented: sats distributed by a fee that the machine was never told; or a customer who
/// waits for his notes because of a quarrel about fees.
#[tokio::test]
async fn a_wrong_fee_holds_the_distribution_and_serves_the_customer() {
    let (world, mut machine) = serving().await;
    let (machine_id, now) = (world.machine_id, world.app.clock.now());
    let (_, invoice) = sold(&mut machine).await;
    let hash = invoice.payment_hash;
    // a quote whose document says something else than its fees
    let other = EventId::from_bytes([7; 32]);
    world.write(move |tx| publish_fees(tx, machine_id, other, 20_000, now)).await;
    let invoice_row = world.read(move |read| invoices::by_hash(read, hash)).await.unwrap();
    let quote = world
        .read(move |read| crate::store::quotes::find(read, invoice_row.quote_id))
        .await
        .unwrap();
    let made = invoice_in(&world, "till", 10_500, json!({})).await;
    let wrong = crate::store::quotes::Quote {
        quote_id: QuoteId::from_bytes(id()),
        request_id: RequestId::from_bytes(id()),
        txid: TxnId::from_bytes(id()),
        claim_hash: ClaimHash::from_bytes(id()),
        fees_event_id: other,
        ..quote
    };
    let mut stamp: Value = invoice_row.stamp.as_str().parse().unwrap();
    stamp["txid"] = json!(wrong.txid);
    stamp["fees_event_id"] = json!(other);
    let row = invoices::Invoice {
        quote_id: wrong.quote_id,
        txid: wrong.txid,
        payment_hash: made.payment_hash,
        bolt11: made.bolt11.clone(),
        stamp: JsonText::of(&stamp),
        ..invoice_row
    };
    world
        .write(move |tx| {
            crate::store::quotes::insert(tx, &wrong)?;
            invoices::insert(tx, &row)
        })
        .await;
    let state = PayState::Succeeded { amount: Msat(10_500_000), fee: Msat(0), at: now };
    let flow = crate::wallet::Flow::Inbound;
    let payment = Payment { payment_hash: made.payment_hash, flow, state, extra: stamp };
    consider(&world.app, &*world.app.wallets["till"].clone(), payment).await.unwrap();
    let kept = settlement(&world, made.payment_hash).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Accepted);
    assert_eq!(kept.hold_reason.as_deref(), Some("fee_mismatch"));
    assert_eq!(kept.fee_mismatch_sats, Some(100));
    assert!(authorise(&world.app, made.payment_hash).await.unwrap().is_some(), "he is served");
}

/// Loss prevented: the fee of a cash_in is never distributed, or its payment is booked twice.
#[tokio::test]
async fn a_paid_withdraw_becomes_a_settlement() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let (journal_seq, journal_head) = machine.journal();
    let claim = CreateWithdraw {
        quote_id: quote.quote_id,
        txid: quote.txid,
        notes: [(Denomination::from_minor(2_000).unwrap(), 1)].into(),
        earlier: vec![],
        fiat_code: quote.fiat_code,
        journal_seq,
        journal_head,
        claim_hash: asked.claim_hash,
    };
    let withdraw = machine.ask(machine.signed(claim)).await.unwrap();
    let theirs = crate::wallet::simulated::SimulatedNode::open(
        None,
        nostr::secp256k1::SecretKey::from_slice(&[9; 32]).unwrap(),
        Sats(0),
        world.app.clock.clone(),
    )
    .unwrap();
    let request = InvoiceRequest {
        amount: withdraw.net_sats,
        memo: String::new(),
        expiry_s: 300,
        extra: json!({}),
    };
    let customer: Arc<dyn Wallet> = Arc::new(theirs.wallet("c"));
    let invoice = customer.make_invoice(request).await.unwrap();
    let (machine_id, now) = (world.machine_id, world.app.clock.now());
    let attempt = NewPayment {
        subject: Subject::Withdraw(withdraw.withdraw_id),
        machine_id,
        wallet_id: "till".into(),
        payment_hash: invoice.payment_hash,
        bolt11: invoice.bolt11.clone(),
        amount_sats: withdraw.net_sats,
        fee_limit_sats: Sats(50),
        invoice_expires_at: invoice.expires_at,
    };
    let extra = world
        .write(move |tx| {
            payments::begin(tx, &attempt, now)?;
            Ok(withdraw_stamp(tx, withdraw.withdraw_id).unwrap().unwrap())
        })
        .await;
    let till = world.app.wallets["till"].clone();
    world.app.simulated.as_ref().unwrap().script([Behaviour::LoseAnswer]);
    assert!(till.pay(invoice.bolt11, Sats(50), extra).await.is_err(), "the answer is lost");
    read_list(&world, "till").await.unwrap();
    read_list(&world, "till").await.unwrap();
    let kept = settlement(&world, invoice.payment_hash).await.unwrap();
    assert_eq!((kept.direction, kept.status), (Direction::CashIn, SettlementStatus::Accepted));
    assert_eq!(kept.distribution, Distribution::Pending);
    assert_eq!(kept.withdraw_id, Some(withdraw.withdraw_id));
    let parts = kept.parts().unwrap();
    assert_eq!((parts.principal, parts.platform_fee), (Sats(20_000), Sats(400)));
    assert_eq!(parts.operator_fee, Sats(600));
    // the payment itself is booked by whoever made it
    assert_eq!(world.balance(Account::CustomerLiability(machine_id)).await, -19_000);
    assert!(authorise(&world.app, invoice.payment_hash).await.unwrap().is_none());
}
