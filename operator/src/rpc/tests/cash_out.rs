//! Notes for sats, from the quote to the books.

use bitspire_shared::cash::BayResult;
use bitspire_shared::money::{Denomination, Msat};
use lightning_invoice::Bolt11Invoice;

use super::*;
use crate::settle;
use crate::store::cassettes::{self, Cassette};
use crate::store::claims;
use crate::store::invoices::{self, InvoiceState};
use crate::store::settlements::{self, Distribution, SettlementStatus};

pub(crate) fn note(minor: u32) -> Denomination {
    Denomination::from_minor(minor).unwrap()
}

/// Bay 1 holds notes of 20 EUR, bay 2 of 10 EUR.
pub(crate) async fn loaded(world: &World) {
    let (machine_id, now) = (world.machine_id, world.app.clock.now());
    world
        .write(move |tx| {
            for (bay, minor) in [(1, 2_000), (2, 1_000)] {
                let bay = BayId::new(bay).unwrap();
                let denomination = note(minor);
                let count = 100;
                let cassette = Cassette { machine_id, bay, denomination, count, updated_at: now };
                cassettes::set(tx, &cassette)?;
            }
            Ok(())
        })
        .await;
    // out of the operator's pocket, as a refill books it
    let operator = world.read(move |r| machines::find(r, machine_id)).await.unwrap().operator_id;
    world
        .write(move |tx| {
            for (bay, minor) in [(1, 2_000), (2, 1_000)] {
                let change = ChangeId::from_bytes(id());
                let bay = BayId::new(bay).unwrap();
                let eur = "EUR".parse().unwrap();
                let notes = (note(minor), 100);
                let entry =
                    crate::ledger::refilled(machine_id, operator, change, bay, notes, eur).unwrap();
                ledger::append(tx, &entry, now)?;
            }
            Ok(())
        })
        .await;
}

pub(crate) struct Sale {
    pub(crate) quote: Quote,
    pub(crate) invoice: Invoice,
    claim: ClaimHash,
}

pub(crate) async fn offered(machine: &mut Peer, minor: i64) -> Sale {
    let asked = machine.quote(Direction::CashOut, minor);
    let quote = machine.ask(asked).await.unwrap();
    let invoice = machine.ask(CreateInvoice { quote_id: quote.quote_id }).await.unwrap();
    Sale { quote, invoice, claim: asked.claim_hash }
}

pub(crate) fn pay(world: &World, invoice: &Invoice, amount: Option<Msat>) {
    world.app.simulated.as_ref().unwrap().customer_pays(&invoice.bolt11, amount).unwrap();
}

fn result(requested: u32, presented: u32) -> BayResult {
    BayResult {
        requested,
        picked: Some(presented),
        presented,
        taken: None,
        retracted: Some(0),
        rejected: Some(0),
    }
}

pub(crate) fn report(
    machine: &mut Peer,
    sale: &Sale,
    outcome: DispenseOutcome,
    bays: &[(u8, u32, u32)],
    owed_minor: i64,
) -> VaultSigned<DispenseReport> {
    let (journal_seq, journal_head) = machine.journal();
    let bays = bays
        .iter()
        .map(|(bay, requested, presented)| {
            (BayId::new(*bay).unwrap(), result(*requested, *presented))
        })
        .collect();
    machine.signed(DispenseReport {
        txid: sale.quote.txid,
        payment_hash: sale.invoice.payment_hash,
        outcome,
        bays,
        owed_minor,
        journal_seq,
        journal_head,
    })
}

pub(crate) async fn settlement(world: &World, sale: &Sale) -> settlements::Settlement {
    let hash = sale.invoice.payment_hash;
    world.read(move |read| settlements::by_hash(read, hash)).await.unwrap().row
}

pub(super) async fn debts(world: &World, sale: &Sale) -> Vec<(String, u64)> {
    owed_by(world, sale.claim).await
}

/// What is owed to whoever has the code, with the reasons.
pub(super) async fn owed_by(world: &World, claim: ClaimHash) -> Vec<(String, u64)> {
    world
        .read(move |read| match claims::by_hash(read, claim)? {
            Some(claim) => claims::debts(read, claim.id),
            None => Ok(Vec::new()),
        })
        .await
        .into_iter()
        .map(|debt| (debt.reason.to_string(), debt.sats.0))
        .collect()
}

/// Loss prevented: a sale whose sats, notes and fees do not come out even.
#[tokio::test]
async fn a_sale_from_quote_to_books() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let sale = offered(&mut machine, 5_000).await;
    let quote = &sale.quote;
    assert_eq!((quote.principal_sats, quote.fee_sats), (sats(50_000), sats(2_500)));
    let terms = quote.terms(key(&world.spire));
    terms.verify(&quote.quote_sig, &machine.service).unwrap();
    let bolt11: Bolt11Invoice = sale.invoice.bolt11.parse().unwrap();
    assert_eq!(bolt11.amount_milli_satoshis(), Some(52_500_000));
    let memo = bolt11.description().to_string();
    assert!(memo.contains("50.00 EUR") && memo.contains("https://pay.example/c/<code>"), "{memo}");

    let hash = sale.invoice.payment_hash;
    let ask = GetPayment::PaymentHash(hash);
    assert_eq!(machine.ask(ask).await.unwrap().state, PaymentState::Pending);
    pay(&world, &sale.invoice, None);
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert_eq!((push.txid, push.wire_sats), (quote.txid, sats(52_500)));
    assert!(machine.is_leave(quote, hash, &push.authorisation));
    let payment = machine.ask(ask).await.unwrap();
    assert_eq!((payment.state, payment.wire_sats), (PaymentState::Settled, Some(sats(52_500))));
    assert!(machine.is_leave(quote, hash, &payment.authorisation.unwrap()));
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.distribution, Distribution::Held);

    let full = report(&mut machine, &sale, DispenseOutcome::Full, &[(1, 2, 2), (2, 1, 1)], 0);
    assert_eq!(machine.ask(full.clone()).await, Ok(Ack {}));
    assert_eq!(machine.ask(full).await, Ok(Ack {}), "again, under another request id");
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.distribution, Distribution::Pending);
    assert_eq!(kept.dispense_outcome, Some(DispenseOutcome::Full));
    assert_eq!(world.balance(Account::Wallet(world.machine_id)).await, 52_500);
    assert_eq!(world.balance(Account::Super).await, -1_000);
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, 0);
    assert_eq!(debts(&world, &sale).await, []);
    assert_eq!(machine.ask(ask).await.unwrap().authorisation, None, "its notes are out");
    world.books_hold().await;
}

/// Loss prevented: a customer who got a part of the notes and is owed nothing; or a second report
/// that pays the debt twice.
#[tokio::test]
async fn what_did_not_come_out_is_owed_once() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let sale = offered(&mut machine, 5_000).await;
    pay(&world, &sale.invoice, None);
    machine.push().await;
    let partial = DispenseOutcome::Partial;
    let short = report(&mut machine, &sale, partial, &[(1, 2, 2), (2, 1, 0)], 1_000);
    machine.ask(short).await.unwrap();
    assert_eq!(debts(&world, &sale).await, [("undispensed".to_string(), 10_500)]);
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, -10_500);
    assert_eq!(settlement(&world, &sale).await.distribution, Distribution::Pending);
    let other = report(&mut machine, &sale, DispenseOutcome::None, &[(1, 2, 0)], 5_000);
    machine.ask(other).await.unwrap();
    assert_eq!(debts(&world, &sale).await, [("undispensed".to_string(), 10_500)], "once");
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.hold_reason.as_deref(), Some("doubtful_report"));
    assert_eq!(world.audited("report.doubtful").await, 1);
    world.books_hold().await;
}

/// Loss prevented: a report that does not add up books a debt, or lets the sats go.
#[tokio::test]
async fn a_report_that_does_not_add_up_waits_for_a_person() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let (full, uncertain) = (DispenseOutcome::Full, DispenseOutcome::Uncertain);
    let partial = DispenseOutcome::Partial;
    for (outcome, bays, owed, hold) in [
        (full, vec![(1, 1, 1)], 0, "doubtful_report"),
        (full, vec![(9, 1, 1)], 0, "doubtful_report"),
        // more than was paid for: by a note, by a hundred, and beside a debt for the same notes
        (full, vec![(1, 3, 3)], 0, "doubtful_report"),
        (full, vec![(1, 2, 100), (2, 1, 1)], 0, "doubtful_report"),
        (partial, vec![(1, 2, 2), (2, 1, 1)], 1_000, "doubtful_report"),
        (partial, vec![(1, 2, 2), (2, 1, 0)], 1_001, "doubtful_report"),
        (uncertain, vec![(1, 1, 1), (2, 0, 0)], 0, "uncertain"),
    ] {
        let sale = offered(&mut machine, 5_000).await;
        pay(&world, &sale.invoice, None);
        machine.push().await;
        let body = report(&mut machine, &sale, outcome, &bays, owed);
        machine.ask(body).await.unwrap();
        let kept = settlement(&world, &sale).await;
        assert_eq!(kept.distribution, Distribution::Held);
        assert_eq!(kept.hold_reason.as_deref(), Some(hold));
        assert_eq!(debts(&world, &sale).await, []);
    }
    let unpaid = offered(&mut machine, 1_000).await;
    let body = report(&mut machine, &unpaid, full, &[(2, 1, 1)], 0);
    machine.ask(body).await.unwrap();
    assert_eq!(world.audited("report.doubtful").await, 7, "notes without a payment");
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, 0);
    world.books_hold().await;
}

/// Loss prevented: a copy of a vault, whose journal was told apart from the true one, says of a sale
/// that its notes were not given, and they are paid for a second time.
#[tokio::test]
async fn a_report_under_an_alarm_moves_nothing() {
    let (world, mut machine) = trading().await;
    loaded(&world).await;
    let (full, none) = (DispenseOutcome::Full, DispenseOutcome::None);
    let mut sales = Vec::new();
    for (outcome, given, owed) in [(none, 0, 1_000), (full, 1, 0), (none, 0, 1_000)] {
        let sale = offered(&mut machine, 1_000).await;
        pay(&world, &sale.invoice, None);
        machine.push().await;
        sales.push((sale, outcome, given, owed));
    }
    let (id, now) = (world.machine_id, world.app.clock.now());
    world.write(move |tx| machines::suspect(tx, id, "two journals", now)).await;
    for (n, (sale, outcome, given, owed)) in sales.iter().enumerate() {
        if n == 2 {
            // whoever speaks then is told so, and what is under way still counts
            world.write(move |tx| machines::revoke(tx, id, now)).await;
        }
        let body = report(&mut machine, sale, *outcome, &[(2, 1, *given)], *owed);
        let _ = machine.ask(body).await;
        let kept = settlement(&world, sale).await;
        assert_eq!(kept.distribution, Distribution::Held, "{outcome:?}");
        assert_eq!(kept.hold_reason.as_deref(), Some("doubtful_report"), "{outcome:?}");
        assert_eq!(kept.dispense_outcome, None);
        assert_eq!(debts(&world, sale).await, []);
    }
    assert_eq!(world.audited("report.doubtful").await, 3, "kept as evidence");
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, 0);
    world.books_hold().await;
}

/// Loss prevented: notes for a payment that came too late, was too little, or more than asked.
#[tokio::test]
async fn late_and_little_is_owed_whole_and_more_is_owed_back() {
    let (world, mut machine) = trading().await;
    let ask = |sale: &Sale| GetPayment::PaymentHash(sale.invoice.payment_hash);

    let little = offered(&mut machine, 1_000).await;
    pay(&world, &little.invoice, Some(Msat(10_499_999)));
    let payment = paid(&mut machine, ask(&little)).await;
    assert_eq!((payment.state, payment.authorisation), (PaymentState::Late, None));
    assert_eq!(debts(&world, &little).await, [("under".to_string(), 10_499)]);

    let more = offered(&mut machine, 1_000).await;
    pay(&world, &more.invoice, Some(Msat(10_600_000)));
    let payment = paid(&mut machine, ask(&more)).await;
    assert!(machine.is_leave(
        &more.quote,
        more.invoice.payment_hash,
        &payment.authorisation.unwrap()
    ));
    assert_eq!(debts(&world, &more).await, [("surplus".to_string(), 100)]);

    let late = offered(&mut machine, 1_000).await;
    world.advance(361);
    pay(&world, &late.invoice, None);
    let hash = late.invoice.payment_hash;
    settle::look(&world.app, "till", hash).await.unwrap();
    assert_eq!(settlement(&world, &late).await.status, SettlementStatus::Late);
    assert_eq!(debts(&world, &late).await, [("late".to_string(), 10_500)]);
    assert!(settle::authorise(&world.app, hash).await.unwrap().is_none());
    assert_eq!(world.balance(Account::Owed(world.machine_id)).await, -10_499 - 100 - 10_500);
    world.books_hold().await;
}

async fn paid(machine: &mut Peer, ask: GetPayment) -> Payment {
    loop {
        let payment = machine.ask(ask).await.unwrap();
        if payment.state != PaymentState::Pending {
            return payment;
        }
    }
}

/// Loss prevented: a crash between the settlement and its push leaves a paid customer waiting.
#[tokio::test]
async fn a_restart_between_settlement_and_push_loses_neither() {
    let mut world = World::new().await;
    let rpc = world.serve().await;
    let mut machine = world.in_service().await;
    let sale = offered(&mut machine, 1_000).await;
    drop(rpc);
    // the service dies; the customer pays; it settles and dies again before it could push
    world.restart().await;
    pay(&world, &sale.invoice, None);
    settle::reconcile(&world.app, &*world.app.wallets["till"].clone()).await.unwrap();
    assert_eq!(settlement(&world, &sale).await.status, SettlementStatus::Accepted);
    world.restart().await;
    let _rpc = world.serve().await;
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert!(machine.is_leave(&sale.quote, sale.invoice.payment_hash, &push.authorisation));
}

/// Loss prevented: a customer who paid in time gets no notes, because the machine was switched off
/// in between; or a machine that an alarm stopped gives notes.
#[tokio::test]
async fn a_paid_sale_is_finished_by_a_machine_that_was_switched_off() {
    let (world, mut machine) = serving().await;
    let sale = offered(&mut machine, 1_000).await;
    let quote = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    let (id, now) = (world.machine_id, world.app.clock.now());
    world.write(move |tx| machines::disable(tx, id, "to be moved", now)).await;
    let begun = machine.ask(CreateInvoice { quote_id: quote.quote_id }).await;
    assert_eq!(begun, Err(ErrorCode::Disabled), "a quote is no sale yet");
    pay(&world, &sale.invoice, None);
    let hash = sale.invoice.payment_hash;
    let payment = paid(&mut machine, GetPayment::PaymentHash(hash)).await;
    assert!(machine.is_leave(&sale.quote, hash, &payment.authorisation.unwrap()));
    world.write(move |tx| machines::suspect(tx, id, "two journals", now)).await;
    let payment = machine.ask(GetPayment::PaymentHash(hash)).await.unwrap();
    assert_eq!((payment.state, payment.authorisation), (PaymentState::Settled, None));
    world.books_hold().await;
}

/// Loss prevented: leave to dispense signed for a machine after its revoke; or the customer's
/// payment kept.
#[tokio::test]
async fn after_a_revoke_nothing_is_signed_and_payments_are_owed() {
    let (world, mut machine) = serving().await;
    let (paid, unpaid) = (offered(&mut machine, 1_000).await, offered(&mut machine, 2_000).await);
    pay(&world, &paid.invoice, None);
    let hash = paid.invoice.payment_hash;
    settle::look(&world.app, "till", hash).await.unwrap();
    assert!(settle::authorise(&world.app, hash).await.unwrap().is_some());
    let (id, now) = (world.machine_id, world.app.clock.now());
    let held = world
        .write(move |tx| {
            machines::revoke(tx, id, now)?;
            settle::hold_open_sales(tx, id, now)
        })
        .await;
    assert_eq!(held, 1);
    assert!(settle::authorise(&world.app, hash).await.unwrap().is_none());
    assert_eq!(settlement(&world, &paid).await.hold_reason.as_deref(), Some("revoked"));
    let claim = paid.claim;
    assert!(world.read(move |read| claims::by_hash(read, claim)).await.is_some());
    pay(&world, &unpaid.invoice, None);
    settle::look(&world.app, "till", unpaid.invoice.payment_hash).await.unwrap();
    assert_eq!(settlement(&world, &unpaid).await.status, SettlementStatus::Late);
    assert_eq!(debts(&world, &unpaid).await, [("late".to_string(), 21_000)]);
    let ask = GetPayment::PaymentHash(hash);
    assert_eq!(machine.ask(ask).await, Err(ErrorCode::Revoked));
    world.books_hold().await;
}

/// Loss prevented: an old price, another machine's quote, a sum above the cap.
#[tokio::test]
async fn quotes_and_invoices_have_their_limits() {
    let (world, mut machine) = serving().await;
    let mut asked = machine.quote(Direction::CashOut, 200_000);
    assert_eq!(machine.ask(asked).await, Err(ErrorCode::OverLimit), "2 100 000 sats");
    asked.fiat_minor = (1 << 53) - 1;
    assert_eq!(machine.ask(asked).await, Err(ErrorCode::OverLimit));
    asked.fiat_minor = 0;
    assert_eq!(machine.ask(asked).await, Err(ErrorCode::Invalid));
    let mut usd = machine.quote(Direction::CashOut, 1_000);
    usd.fiat_code = "USD".parse().unwrap();
    assert_eq!(machine.ask(usd).await, Err(ErrorCode::Invalid));

    let asked = machine.quote(Direction::CashOut, 1_000);
    let old = machine.ask(asked).await.unwrap();
    let stolen = GetQuote { txid: TxnId::from_bytes(id()), ..asked };
    assert_eq!(machine.ask(stolen).await, Err(ErrorCode::Invalid), "a claim code used twice");
    let turned = GetQuote { direction: Direction::CashIn, ..asked };
    assert_eq!(machine.ask(turned).await, Err(ErrorCode::Conflict));
    let unknown = CreateInvoice { quote_id: QuoteId::from_bytes(id()) };
    assert_eq!(machine.ask(unknown).await, Err(ErrorCode::Invalid));
    let new = machine.ask(asked).await.unwrap();
    machine.ask(CreateInvoice { quote_id: new.quote_id }).await.unwrap();
    let second = CreateInvoice { quote_id: old.quote_id };
    assert_eq!(machine.ask(second).await, Err(ErrorCode::Conflict), "one invoice a transaction");

    let quote = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    world.app.simulated.as_ref().unwrap().set_reachable(false);
    let invoice = CreateInvoice { quote_id: quote.quote_id };
    let request = Request::new(RequestId::from_bytes(id()), invoice).unwrap();
    let session = machine.session.clone();
    let away = machine.request(&session, &request).await.read::<CreateInvoice>().unwrap();
    assert_eq!(away.unwrap_err().code, ErrorCode::WalletUnavailable);
    world.app.simulated.as_ref().unwrap().set_reachable(true);
    let back = machine.request(&session, &request).await.read::<CreateInvoice>().unwrap();
    assert!(back.is_ok(), "the same request succeeds once the wallet is back");
    world.advance(121);
    let late = machine.ask(machine.quote(Direction::CashOut, 1_000)).await;
    assert!(late.is_ok());
    let expired = machine.ask(machine.quote(Direction::CashOut, 1_000)).await.unwrap();
    world.advance(121);
    let expired = CreateInvoice { quote_id: expired.quote_id };
    assert_eq!(machine.ask(expired).await, Err(ErrorCode::QuoteExpired));
}

/// Loss prevented: an invoice that nobody paid counts as open for ever.
#[tokio::test]
async fn an_unpaid_invoice_ends() {
    let (world, mut machine) = serving().await;
    let sale = offered(&mut machine, 1_000).await;
    world.advance(421);
    settle::start(&world.app);
    let hash = sale.invoice.payment_hash;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let invoice = world.read(move |read| invoices::by_hash(read, hash)).await.unwrap();
        if invoice.state == InvoiceState::Expired {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
    }
}
