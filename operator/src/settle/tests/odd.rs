//! Wallets that do not behave, over a simulated one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::rpc::tests::PATIENCE;
use crate::rpc::tests::cash_in::{claim, fetched};
use crate::wallet::{FailureRule, Invoice as Made, WalletResult};

/// What the till says of a payment in place of the truth.
#[derive(Clone)]
pub(super) enum Told {
    /// That it failed.
    Failed,
    /// Nothing.
    Unknown,
    /// That it has this beside it.
    With(Value),
    /// In its list, what is so; no answer to a look-up.
    NoAnswer,
    /// In its list, what is so; that it cannot tell, to a look-up.
    InListOnly,
}

/// The till with a fault.
pub(super) struct Odd {
    inner: Arc<dyn Wallet>,
    /// Its list is told by so many payments at a time, and from where it was asked.
    page: Option<usize>,
    pub(super) asked: Mutex<Vec<u64>>,
    /// What it does not look up.
    refused: Option<PaymentHash>,
    /// Its list goes by seconds, from this one on, and is one further at each look.
    seconds: Option<u64>,
    looks: AtomicU64,
    /// What it says otherwise.
    says: Mutex<BTreeMap<PaymentHash, Told>>,
}

impl Odd {
    pub(super) fn over(world: &World) -> Self {
        Self {
            inner: world.app.wallets["till"].clone(),
            page: None,
            asked: Mutex::default(),
            refused: None,
            seconds: None,
            looks: AtomicU64::new(0),
            says: Mutex::default(),
        }
    }

    /// Its list is told by so many payments at a time.
    pub(super) fn by_pages(world: &World, page: usize) -> Self {
        Self { page: Some(page), ..Self::over(world) }
    }

    pub(super) fn say(&self, hash: PaymentHash, told: Told) {
        self.says.lock().unwrap().insert(hash, told);
    }

    fn told(&self, mut payment: Payment) -> Option<Payment> {
        match self.says.lock().unwrap().get(&payment.payment_hash) {
            Some(Told::Unknown) => return None,
            Some(Told::Failed) => payment.state = PayState::Failed,
            Some(Told::With(extra)) => payment.extra = extra.clone(),
            Some(Told::NoAnswer | Told::InListOnly) | None => {}
        }
        Some(payment)
    }
}

impl Wallet for Odd {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn network(&self) -> Currency {
        self.inner.network()
    }
    fn failures(&self) -> FailureRule {
        self.inner.failures()
    }
    fn absence_is_final(&self) -> bool {
        self.inner.absence_is_final()
    }
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Made> {
        self.inner.make_invoice(request)
    }
    fn pay(&self, bolt11: String, limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        self.inner.pay(bolt11, limit, extra)
    }
    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        if self.refused == Some(hash) {
            let (wallet, reason) = (self.id().to_owned(), "its record does not read".into());
            return Box::pin(async { Err(WalletError::Refused { wallet, reason }) });
        }
        let (wallet, reason) = (self.id().to_owned(), "of this one".into());
        match self.says.lock().unwrap().get(&hash) {
            Some(Told::NoAnswer) => {
                return Box::pin(async { Err(WalletError::Unreachable { wallet, reason }) });
            }
            Some(Told::InListOnly) => {
                return Box::pin(async { Err(WalletError::Unknown { wallet, reason }) });
            }
            _ => {}
        }
        Box::pin(
            async move { Ok(self.inner.lookup(hash).await?.and_then(|found| self.told(found))) },
        )
    }
    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(async move {
            Ok(self.inner.lookup_payment(hash).await?.and_then(|found| self.told(found)))
        })
    }
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        if let Some(page) = self.page {
            self.asked.lock().unwrap().push(since.0);
            return Box::pin(async move {
                let (all, _) = self.inner.list(Cursor(0)).await?;
                let from = usize::try_from(since.0).unwrap();
                let told: Vec<_> = all.into_iter().skip(from).take(page).collect();
                let next = Cursor(since.0 + u64::try_from(told.len()).unwrap());
                Ok((told, next))
            });
        }
        let Some(now) = self.seconds else {
            return Box::pin(async move {
                let (payments, next) = self.inner.list(since).await?;
                Ok((payments.into_iter().filter_map(|one| self.told(one)).collect(), next))
            });
        };
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        assert!(look < 5, "the list is read for ever");
        Box::pin(async move {
            if since.0 > now + look {
                return Ok((Vec::new(), since));
            }
            let (payments, _) = self.inner.list(Cursor(0)).await?;
            Ok((payments, Cursor(now + look)))
        })
    }
    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        self.seconds.map(|_| Cursor(at.0))
    }
    fn balance(&self) -> WalletResult<'_, Msat> {
        self.inner.balance()
    }
    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.inner.watch()
    }
    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        self.inner.listen(stop)
    }
}

/// Loss prevented: one record that the wallet does not tell hides each invoice after it, and their
/// customers wait for their notes.
#[tokio::test]
async fn an_invoice_that_is_not_told_hides_no_other() {
    let (world, mut machine) = serving().await;
    let (_, first) = sold(&mut machine).await;
    // the earlier it ends, the earlier it is looked up
    world.advance(5);
    let (_, second) = sold(&mut machine).await;
    pay(&world, &first.bolt11);
    pay(&world, &second.bolt11);
    let till = Odd { refused: Some(first.payment_hash), ..Odd::over(&world) };
    let error = poll_open(&world.app, &till).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permanent);
    assert_eq!(settlement(&world, first.payment_hash).await, None);
    assert!(settlement(&world, second.payment_hash).await.is_some());
}

/// Loss prevented: a wallet whose time lies ahead of ours is read for ever, and no hint and no open
/// invoice of it is looked at again.
#[tokio::test]
async fn a_list_that_always_has_more_is_read_up_to_now() {
    let (world, mut machine) = serving().await;
    let (_, sale) = sold(&mut machine).await;
    pay(&world, &sale.bolt11);
    let now = world.app.clock.now().0;
    let till = Odd { seconds: Some(now), ..Odd::over(&world) };
    reconcile(&world.app, &till).await.unwrap();
    assert!(settlement(&world, sale.payment_hash).await.is_some());
    let read = world.read(|read| settlements::cursor(read, "till")).await.unwrap();
    assert!((now..=world.app.clock.now().0).contains(&read), "{read}, from {now}");
}

/// Loss prevented: a wallet is exchanged for one of another kind under its old name, whose list is
/// never read again because the cursor is of a smaller unit.
#[tokio::test]
async fn a_cursor_of_another_unit_is_forgotten() {
    let (world, mut machine) = serving().await;
    let (_, sale) = sold(&mut machine).await;
    pay(&world, &sale.bolt11);
    let now = world.app.clock.now();
    let micros = now.0 * 1_000_000;
    world.write(move |tx| settlements::set_cursor(tx, "till", micros, now)).await;
    let till = Odd { seconds: Some(now.0), ..Odd::over(&world) };
    reconcile(&world.app, &till).await.unwrap();
    assert!(settlement(&world, sale.payment_hash).await.is_some());
    let read = world.read(|read| settlements::cursor(read, "till")).await.unwrap();
    assert!((now.0..=world.app.clock.now().0).contains(&read), "{read}, from {}", now.0);
    // a clock that was set back a little is no other unit
    let ahead = now.0 + 3_600;
    world.write(move |tx| settlements::set_cursor(tx, "till", ahead, now)).await;
    reconcile(&world.app, &till).await.unwrap();
    assert_eq!(world.read(|read| settlements::cursor(read, "till")).await, Some(ahead));
}

/// Every payment of the list once more, as after a cursor that was lost.
async fn whole_list(world: &World, till: &Odd) {
    world
        .write(|tx| match settlements::cursor(tx, "till")? {
            Some(cursor) => settlements::forget_cursor(tx, "till", cursor),
            None => Ok(()),
        })
        .await;
    reconcile(&world.app, till).await.unwrap();
}

/// Loss prevented: a wallet that takes back what it has said goes unnoticed, though the notes are out;
/// or its second word undoes a sale in the books, or keeps the next one from being seen.
#[tokio::test]
async fn what_a_wallet_takes_back_is_told_once_and_moves_nothing() {
    let (world, mut machine) = serving().await;
    let till = Odd::over(&world);
    let id = world.machine_id;
    for (n, told) in [(1, Told::Failed), (2, Told::Unknown)] {
        let (_, unpaid) = sold(&mut machine).await;
        till.say(unpaid.payment_hash, told.clone());
        let (_, sale) = sold(&mut machine).await;
        let hash = sale.payment_hash;
        pay(&world, &sale.bolt11);
        whole_list(&world, &till).await;
        let kept = settlement(&world, hash).await.unwrap();
        assert_eq!(kept.status, SettlementStatus::Accepted);
        assert_eq!(world.audited("settlement.conflict").await, n - 1, "unpaid is no contradiction");

        till.say(hash, told);
        for _ in 0..2 {
            hinted(&world.app, &till, hash).await.unwrap();
            poll_open(&world.app, &till).await.unwrap();
            assert_eq!(look_in(&world.app, &till, hash).await.unwrap(), Looked::Landed);
            whole_list(&world, &till).await;
        }
        assert_eq!(world.audited("settlement.conflict").await, n, "once a payment");
        assert_eq!(settlement(&world, hash).await.unwrap(), kept);
        // the good one of the round before, too
        assert_eq!(
            world.balance(Account::Wallet(id)).await,
            10_500 * (2 * i64::try_from(n).unwrap() - 1)
        );

        let (_, good) = sold(&mut machine).await;
        pay(&world, &good.bolt11);
        reconcile(&world.app, &till).await.unwrap();
        let good = settlement(&world, good.payment_hash).await.unwrap();
        assert_eq!(good.status, SettlementStatus::Accepted);
    }
    world.books_hold().await;
}

/// Loss prevented: a payout that was made, and that its wallet calls failed afterwards, is made once
/// more; or nobody hears that the customer may have nothing.
#[tokio::test]
async fn a_payout_that_was_made_takes_no_later_failure() {
    let (world, mut machine) = serving().await;
    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    let hash = fetched(&world, &withdraw).await;
    crate::payout::tests::round(&world.app).await.unwrap();
    let till = Odd::over(&world);
    whole_list(&world, &till).await;
    let paid = world.read(move |read| payments::by_hash(read, hash)).await.unwrap();
    assert_eq!(paid.state, PaymentState::Succeeded);
    let kept = settlement(&world, hash).await.unwrap();

    for told in [Told::Failed, Told::Unknown] {
        till.say(hash, told);
        hinted(&world.app, &till, hash).await.unwrap();
        whole_list(&world, &till).await;
        crate::payout::tests::round(&world.app).await.unwrap();
    }
    assert_eq!(world.audited("settlement.conflict").await, 1);
    let still = world.read(move |read| payments::by_hash(read, hash)).await.unwrap();
    assert_eq!((&still, settlement(&world, hash).await.unwrap()), (&paid, kept));
    let (id, now) = (paid.id, world.app.clock.now());
    let end = move |tx: &crate::store::Tx<'_>| {
        payments::resolve(tx, id, payments::Resolution::Failed, now)
    };
    let refused = world.app.store.write::<_, StoreError, _>(end).await;
    assert!(matches!(refused, Err(StoreError::Constraint { .. })), "final: {refused:?}");
    let machine = world.machine_id;
    assert_eq!(world.balance(Account::CustomerLiability(machine)).await, 0);
    assert_eq!(world.balance(Account::Wallet(machine)).await, -19_000);
}

/// Loss prevented: a payment whose wallet did not answer when it was hinted waits for minutes, since no
/// poll looks for it.
#[tokio::test]
async fn a_hint_that_was_not_looked_up_is_soon_found_in_the_list() {
    let world = World::new().await;
    let till = Arc::new(Odd::over(&world));
    world.app.tasks.spawn(watch(world.app.clone(), till.clone()));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.app.wallet_answers().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "its list is not read");
        tokio::task::yield_now().await;
    }
    let stray = invoice_in(&world, "till", 700, json!({})).await;
    till.say(stray.payment_hash, Told::NoAnswer);
    pay(&world, &stray.bolt11);
    landed(&world, stray.payment_hash).await;
}

/// A settlement that a listener is about to record.
pub(super) async fn landed(world: &World, hash: PaymentHash) -> Settlement {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(settlement) = settlement(world, hash).await {
            return settlement;
        }
        assert!(tokio::time::Instant::now() < deadline, "the listener does not see {hash}");
        tokio::task::yield_now().await;
    }
}

/// The key of a second machine, whose wallet is `stray`.
async fn second_machine(world: &World) -> PubKey {
    let (first, now) = (world.machine_id, world.app.clock.now());
    let spire = key(&nostr::Keys::generate());
    world
        .write(move |tx| {
            let operator = machines::find(tx, first)?.unwrap().operator_id;
            let eur = "EUR".parse().unwrap();
            let new = machines::Machine::new(operator, "Bar", "Porto", eur, "stray", now);
            let id = machines::insert(tx, &new)?;
            machines::set_paired(tx, id, spire, "spire-2", now.after(9_000_000), now)
        })
        .await;
    spire
}

/// Loss prevented: a wallet that changes what we wrote beside a payment buys notes by it, or has them
/// booked for another machine, or ends the listener, or the customer who paid loses the sats.
#[tokio::test]
async fn a_changed_stamp_is_refused_and_the_customer_is_owed() {
    let (world, mut machine) = serving().await;
    let other = second_machine(&world).await;
    let till = Arc::new(Odd::over(&world));
    world.app.tasks.spawn(watch(world.app.clone(), till.clone()));
    let huge = u64::MAX;
    let cases = [
        (json!({ "nostr_sender_pubkey": other }), "attribution"),
        (json!({ "nostr_sender_pubkey": null }), "attribution"),
        (json!({ "type": "cash_in" }), "sum"),
        (json!({ "type": "cash_in", "principal_sats": 11_000 }), "direction"),
        (json!({ "type": "cash_sideways" }), "stamp"),
        (json!({ "principal_sats": 10_001 }), "sum"),
        (json!({ "principal_sats": 10_400, "fee_sats": 100 }), "request"),
        (json!({ "principal_sats": -10_000 }), "stamp"),
        (json!({ "principal_sats": huge }), "stamp"),
        (json!({ "principal_sats": 9_007_199_254_740_991_u64 }), "range"),
        (json!({ "principal_sats": 10_000.0 }), "stamp"),
        (json!({ "principal_sats": "\u{661}\u{660}\u{660}\u{660}\u{660}" }), "stamp"),
        (json!({ "fee_sats": -500 }), "stamp"),
        (json!({ "fiat_amount": 1_000 }), "request"),
        (json!({ "fiat_amount": -10 }), "stamp"),
        (json!({ "fiat_code": "USD" }), "request"),
        (json!({ "txid": "00".repeat(16) }), "request"),
        (json!([]), "attribution"),
    ];
    let mut last = None;
    for (changes, reason) in &cases {
        let asked = machine.quote(Direction::CashOut, 1_000);
        let quote = machine.ask(asked).await.unwrap();
        let invoice = machine.ask(CreateInvoice { quote_id: quote.quote_id }).await.unwrap();
        let hash = invoice.payment_hash;
        let mut extra = stamp_of(&world, hash).await;
        match changes.as_object() {
            Some(changes) => extra.as_object_mut().unwrap().extend(changes.clone()),
            None => extra = changes.clone(),
        }
        till.say(hash, Told::With(extra));
        pay(&world, &invoice.bolt11);
        let kept = landed(&world, hash).await;
        let row = (kept.status, kept.machine_id, kept.wire_sats, kept.parts());
        let whole = Sats(10_500);
        assert_eq!(row, (SettlementStatus::Rejected, world.machine_id, whole, None), "{changes}");
        let said = kept.reason.as_deref().unwrap_or_default();
        assert!(said.starts_with(&format!("{reason}:")), "{changes}: {said}");
        assert!(authorise(&world.app, hash).await.unwrap().is_none(), "{changes}");
        let owed = world
            .read(move |read| {
                let claim = claims::by_hash(read, asked.claim_hash)?.unwrap();
                claims::open_sats(read, claim.id)
            })
            .await;
        assert_eq!(owed, whole, "{changes}");
        last = Some(kept);
    }
    assert_eq!(world.audited("settlement.rejected").await, cases.len());
    let (_, good) = sold(&mut machine).await;
    pay(&world, &good.bolt11);
    assert_eq!(landed(&world, good.payment_hash).await.status, SettlementStatus::Accepted);
    world.books_hold().await;

    // the wallet then tells a payment otherwise: alarmed once, nothing changes
    let kept = last.unwrap();
    for _ in 0..2 {
        look(&world.app, "till", kept.payment_hash).await.unwrap();
    }
    assert_eq!(settlement(&world, kept.payment_hash).await.unwrap(), kept);
    assert_eq!(world.audited("settlement.conflict").await, 1);
}
