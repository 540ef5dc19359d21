//! How payouts end that do not end well at once: failures that are none, promises that run out,
//! wallets that hold a payment back.

use std::collections::VecDeque;
use std::sync::Mutex;

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::{JournalHead, JournalSeq, WithdrawId};
use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use nostr::secp256k1::PublicKey;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::log;
use crate::store::withdraws::{self, K1, Purpose, Withdraw, WithdrawState};
use crate::wallet::simulated::SimulatedWallet;
use crate::wallet::{Cursor, FailureRule, Hint, Invoice, Payment, Wallet, WalletResult};

/// The till as a wallet of another kind.
struct Odd {
    inner: SimulatedWallet,
    rule: FailureRule,
    /// It looks up its own invoices only.
    invoices_only: bool,
    /// What it says of the next look-ups, in place of the truth.
    says: Mutex<VecDeque<PayState>>,
    /// A payment that never comes back.
    held: Option<PaymentHash>,
    /// The node behind it, which does not pay itself.
    node: Option<PublicKey>,
}

impl Wallet for Odd {
    fn id(&self) -> &str {
        self.inner.id()
    }
    fn network(&self) -> Currency {
        self.inner.network()
    }
    fn failures(&self) -> FailureRule {
        self.rule
    }
    fn absence_is_final(&self) -> bool {
        !self.invoices_only
    }
    fn own_node(&self) -> BoxFuture<'_, Option<PublicKey>> {
        Box::pin(std::future::ready(self.node))
    }
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        self.inner.make_invoice(request)
    }
    fn pay(&self, bolt11: String, limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        if self.held == Some(hash_of(&bolt11)) {
            return Box::pin(std::future::pending());
        }
        self.inner.pay(bolt11, limit, extra)
    }
    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        self.inner.lookup(hash)
    }
    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        Box::pin(async move {
            let mut found = self.inner.lookup_payment(hash).await?;
            found = found.filter(|_| !self.invoices_only);
            if let Some(found) = &mut found
                && let Some(said) = self.says.lock().unwrap().pop_front()
            {
                found.state = said;
            }
            Ok(found)
        })
    }
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        self.inner.list(since)
    }
    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        self.inner.cursor_at(at)
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

impl World {
    /// From now on the till is a wallet of another kind.
    fn odd(&mut self, rule: FailureRule, says: &[PayState], held: Option<PaymentHash>) {
        self.other_kind(|odd| Odd {
            rule,
            says: Mutex::new(says.iter().copied().collect()),
            held,
            ..odd
        });
    }

    /// From now on the till is a wallet that looks up its own invoices only.
    pub(super) fn invoices_only(&mut self) {
        let rule = FailureRule::TwiceAfterExpiry;
        self.other_kind(|odd| Odd { rule, invoices_only: true, ..odd });
    }

    fn other_kind(&mut self, made: impl FnOnce(Odd) -> Odd) {
        let app = Arc::get_mut(self.app.as_mut().unwrap()).unwrap();
        let odd = Odd {
            inner: app.simulated.as_ref().unwrap().wallet("till"),
            rule: FailureRule::AtOnce,
            invoices_only: false,
            says: Mutex::default(),
            held: None,
            node: None,
        };
        app.wallets.insert("till".into(), Arc::new(made(odd)));
    }

    fn at(&self, second: u64) {
        self.now.store(second, Ordering::SeqCst);
    }

    /// A withdraw for the notes of transaction `n`, with its k1.
    async fn notes(&self, n: u8, code: [u8; 16], expires_at: u64) -> String {
        let k1 = K1::from_bytes([n; 32]);
        let shown = k1.expose();
        let withdraw = Withdraw {
            withdraw_id: WithdrawId::from_bytes([n; 16]),
            machine_id: MachineId(1),
            txid: TxnId::from_bytes([n; 16]),
            purpose: Purpose::CashIn,
            claim_id: None,
            claim_hash: ClaimCode::from_bytes(code).hash(),
            net_sats: OWED,
            state: WithdrawState::Offered,
            created_at: Unix(NOW),
            expires_at: Unix(expires_at),
            fiat_minor: Some(9_000),
            fiat_code: Some("EUR".parse().unwrap()),
            principal_sats: Some(OWED),
            platform_fee_sats: Some(Sats(0)),
            operator_fee_sats: Some(Sats(0)),
            journal_seq: Some(JournalSeq(5)),
            journal_head: Some(JournalHead::from_bytes([5; 32])),
            vault_sig: Some(Sig::over("claim", &nostr::Keys::generate())),
            withdraw_sig: Some(Sig::over("promise", &nostr::Keys::generate())),
            request_event: Some("{}".into()),
        };
        let made = self.app().store.write(move |tx| {
            withdraws::insert(tx, &withdraw, &[])?;
            withdraws::issue(tx, withdraw.withdraw_id, &k1, Unix(expires_at), Unix(NOW))
        });
        made.await.unwrap_or_else(|e: StoreError| panic!("{e}"));
        shown
    }

    async fn state_of(&self, n: u8) -> WithdrawState {
        let id = WithdrawId::from_bytes([n; 16]);
        let found = self.app().store.read(move |read| withdraws::find(read, id)).await;
        found.unwrap_or_else(|e: StoreError| panic!("{e}")).unwrap().state
    }

    async fn bound(&self, k1: &str) -> String {
        let invoice = self.invoice(OWED.0).await;
        let answer = self.json(&callback(k1, &invoice)).await;
        assert_eq!(answer["status"], "OK", "{answer}");
        invoice
    }
}

const ENDED: u64 = NOW + 3_600;

/// Loss prevented: a request that is still on its way to the wallet is taken for one that never
/// was, and the customer is paid a second time.
#[tokio::test]
async fn what_the_wallet_never_heard_of_has_not_failed_yet() {
    let world = World::new().await;
    let k1 = world.k1().await;
    world.bound(&k1).await;
    let node = world.app().simulated.clone().unwrap();
    node.set_reachable(false);
    round(world.app()).await.unwrap();
    world.at(ENDED + 86_400);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Pending], "waiting alone ends nothing");
    node.set_reachable(true);
    for second in [0, 599] {
        world.at(ENDED + 86_400 + second);
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Unknown]);
        assert!(world.get(&claim_path()).await.1.contains("On its way"));
    }
    world.at(ENDED + 86_400 + 600);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Failed]);
    let new = world.k1().await;
    let invoice = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&new, &invoice)).await["status"], "OK");
    round(world.app()).await.unwrap();
    world.deliver(&invoice).await;
    world.assert_paid_once().await;
}

/// Loss prevented: a wallet that looks up its own invoices only has paid, says that it does not know
/// the payment, and the customer is paid a second time.
#[tokio::test]
async fn what_a_wallet_cannot_look_up_never_fails() {
    let mut world = World::new().await;
    world.invoices_only();
    let invoice = world.bound(&world.k1().await).await;
    world.app().simulated.as_ref().unwrap().script([Behaviour::LoseAnswer]);
    round(world.app()).await.unwrap();
    world.customer.customer_pays(&invoice, None).unwrap();
    for second in [0, 599, 600, 86_400] {
        world.at(ENDED + second);
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Unknown], "after {second} s");
        assert!(world.get(&claim_path()).await.1.contains("On its way"));
    }
    let tail = |read: &Read<'_>| log::audit_tail(read, None, 100);
    let rows = world.app().store.read::<_, StoreError, _>(tail).await.unwrap();
    let told = rows.iter().filter(|row| row.action == "payout.held").count();
    assert_eq!(told, 1, "told to the operator, once");
    // it had paid; a wallet that tells it ends the wait
    world.restart();
    round(world.app()).await.unwrap();
    world.assert_paid_once().await;
}

/// Loss prevented: "failed" said twice while the node could still complete the payment.
#[tokio::test]
async fn two_failures_count_after_the_invoices_end_only() {
    let mut world = World::new().await;
    world.odd(FailureRule::TwiceAfterExpiry, &[], None);
    world.bound(&world.k1().await).await;
    world.app().simulated.as_ref().unwrap().script([Behaviour::Fail]);
    for second in [NOW, NOW + 2_000, ENDED, ENDED + 599] {
        world.at(second);
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Unknown], "at {second}");
    }
    world.at(ENDED + 600);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Failed]);
}

/// Loss prevented: a failure that the wallet took back counts as the first of two.
#[tokio::test]
async fn a_failure_that_was_taken_back_does_not_count() {
    let mut world = World::new().await;
    world.bound(&world.k1().await).await;
    world.app().simulated.as_ref().unwrap().script([Behaviour::Pend]);
    round(world.app()).await.unwrap();
    let says = [PayState::Failed, PayState::Pending, PayState::Failed, PayState::Failed];
    world.odd(FailureRule::TwiceAfterExpiry, &says, None);
    for second in [0, 700, 1_400] {
        world.at(ENDED + second);
        round(world.app()).await.unwrap();
        assert_eq!(world.attempts().await, [PaymentState::Unknown], "at {second}");
    }
    world.at(ENDED + 2_000);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Failed]);
}

/// Loss prevented: a wallet that takes no fee limit eats the earnings, and nobody is told.
#[tokio::test]
async fn routing_above_its_limit_is_booked_and_told() {
    let mut world = World::new().await;
    world.bound(&world.k1().await).await;
    world.app().simulated.as_ref().unwrap().script([Behaviour::Pend]);
    round(world.app()).await.unwrap();
    let amount = OWED.to_msat().unwrap();
    let paid = PayState::Succeeded { amount, fee: Msat(400_500), at: Unix(NOW) };
    world.odd(FailureRule::AtOnce, &[paid], None);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Succeeded]);
    assert_eq!(world.balance(Account::RoutingFees(MachineId(1))).await, 401);
    let tail = |read: &Read<'_>| log::audit_tail(read, None, 100);
    let rows = world.app().store.read::<_, StoreError, _>(tail).await.unwrap();
    let told = rows.iter().filter(|row| row.action == "payout.routing_above_limit");
    assert_eq!(told.count(), 1);
}

/// Loss prevented: notes are stacked, the payment fails, the promise has run out meanwhile, and the
/// claim code says that nothing is owed.
#[tokio::test]
async fn notes_are_paid_by_claim_when_the_payment_failed_late() {
    let world = World::new().await;
    let code = [0x77; 16];
    let k1 = world.notes(7, code, NOW + 1_000).await;
    world.bound(&k1).await;
    world.app().simulated.as_ref().unwrap().script([Behaviour::Fail]);
    round(world.app()).await.unwrap();
    world.at(NOW + 2_000);
    round(world.app()).await.unwrap();
    assert_eq!(world.state_of(7).await, WithdrawState::Bound, "never expired under an invoice");
    let path = format!("/c/{}", ClaimCode::from_bytes(code).expose());
    let (_, page) = world.get(&path).await;
    assert!(page.contains("On its way"), "the invoice lives: {page}");
    world.at(ENDED);
    let (_, page) = world.get(&path).await;
    assert!(page.contains("These are yours"), "{page}");
    assert_eq!(world.state_of(7).await, WithdrawState::Expired);
    let gone = world.json(&callback(&k1, &world.invoice(OWED.0).await)).await;
    assert_eq!(gone["status"], "ERROR", "the old k1 is dead");
    let (_, again) = world.get(&path).await;
    assert_eq!(page, again, "one k1 for the debt");
    assert_eq!(world.balance(Account::Owed(MachineId(1))).await, -2 * OWED.0.cast_signed());
}

/// Loss prevented: the minute in which a promise has run out and is no debt yet looks like "paid".
#[tokio::test]
async fn a_promise_that_ran_out_is_owed_at_once() {
    let world = World::new().await;
    world.notes(7, [0x77; 16], NOW + 1_000).await;
    world.at(NOW + 1_001);
    let path = format!("/c/{}", ClaimCode::from_bytes([0x77; 16]).expose());
    assert!(world.get(&path).await.1.contains("These are yours"));
}

/// Loss prevented: one withdraw that cannot be booked stops every other customer's payout.
#[tokio::test]
async fn a_withdraw_that_cannot_expire_stops_no_other() {
    let world = World::new().await;
    // the transaction of the world's debt, under another code
    world.notes(1, [0x11; 16], NOW + 1).await;
    world.notes(2, [0x22; 16], NOW + 2).await;
    world.at(NOW + 10);
    let invoice = world.bound(&world.k1().await).await;
    round(world.app()).await.unwrap();
    assert_eq!(world.state_of(1).await, WithdrawState::Offered);
    assert_eq!(world.state_of(2).await, WithdrawState::Expired);
    assert_eq!(world.attempts().await, [PaymentState::Succeeded]);
    world.deliver(&invoice).await;
    assert_eq!(world.received().await, Msat(OWED.0 * 1_000));
}

/// Loss prevented: somebody who holds a payment back keeps all others waiting, or is paid twice.
#[tokio::test]
async fn a_payment_that_is_held_back_delays_nobody() {
    let mut world = World::new().await;
    let held = world.bound(&world.notes(7, [0x77; 16], NOW + 86_400).await).await;
    world.odd(FailureRule::AtOnce, &[], Some(hash_of(&held)));
    world.bound(&world.k1().await).await;
    let mut worker = Worker::new(Arc::clone(world.app()));
    worker.look().await.unwrap();
    let done = tokio::time::timeout(std::time::Duration::from_secs(20), worker.next_done());
    assert_eq!(done.await, Ok(Some(())), "the other one is done while the first is held");
    let mut attempts = world.attempts().await;
    attempts.sort_by_key(|state| *state == PaymentState::Succeeded);
    assert_eq!(attempts, [PaymentState::Pending, PaymentState::Succeeded]);
    worker.look().await.unwrap();
    assert_eq!(worker.rounds.in_work(), 1, "what is under way is not begun again");
}

/// Loss prevented: an invoice that the wallet paid for something else settles a customer's claim; a
/// wallet's own invoice blocks one.
#[tokio::test]
async fn an_invoice_that_the_wallet_knows_is_refused() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let node = world.app().simulated.clone().unwrap();
    let paid = world.invoice(OWED.0).await;
    node.wallet("till").pay(paid.clone(), Sats(5), json!({})).await.unwrap();
    let request =
        InvoiceRequest { amount: OWED, memo: "own".into(), expiry_s: 600, extra: json!({}) };
    let own = node.wallet("till").make_invoice(request).await.unwrap().bolt11;
    for invoice in [&paid, &own] {
        let answer = world.json(&callback(&k1, invoice)).await;
        assert!(answer["reason"].as_str().unwrap().contains("not used before"), "{answer}");
    }
    node.set_reachable(false);
    let good = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &good)).await["status"], "ERROR", "cannot be asked");
    node.set_reachable(true);
    for _ in 0..2 {
        assert_eq!(world.json(&callback(&k1, &good)).await["status"], "OK");
        round(world.app()).await.unwrap();
    }
}

/// Loss prevented: an invoice that the till's node has made for another wallet of it, and cannot pay, is
/// bound to the claim, and its customer waits for its end.
#[tokio::test]
async fn an_invoice_of_the_paying_node_leaves_the_k1_as_it_was() {
    let mut world = World::new().await;
    let node = world.app().simulated.clone().unwrap();
    world.other_kind(|odd| Odd { node: Some(node.key()), ..odd });
    let k1 = world.k1().await;
    let request =
        InvoiceRequest { amount: OWED, memo: "own".into(), expiry_s: 600, extra: json!({}) };
    let own = node.wallet("another").make_invoice(request).await.unwrap().bolt11;
    let answer = world.json(&callback(&k1, &own)).await;
    assert_eq!(answer["status"], "ERROR");
    assert!(answer["reason"].as_str().unwrap().contains("cannot pay itself"), "{answer}");
    let good = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &good)).await["status"], "OK", "no k1 was used up");
    round(world.app()).await.unwrap();
    world.deliver(&good).await;
    world.assert_paid_once().await;
}

/// Loss prevented: a wallet that cannot read the refusal tells its owner that the machine is broken.
#[tokio::test]
async fn every_refusal_is_an_lnurl_answer() {
    let world = World::new().await;
    let k1 = world.k1().await;
    for query in ["", "?k1=1", "?pr=x", "?k1=%ff&pr=%ff", "?k1=1&k1=2&pr=x"] {
        let (status, body) = world.get(&format!("/lnurl/w/{k1}/cb{query}")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\"ERROR\""), "{query}: {body}");
    }
}

/// Loss prevented: sats that nobody behind one address can fetch, since the wallets that ask what
/// is offered use up what the second step needs.
#[tokio::test]
async fn a_wallet_that_asks_too_often_can_still_name_its_invoice() {
    let world = World::new().await;
    let k1 = world.k1().await;
    let routes = world.routes();
    let offer = format!("/lnurl/w/{k1}");
    let mut last = String::new();
    for _ in 0..100 {
        last = get(routes.clone(), &offer).await.1;
    }
    assert!(last.contains("too many requests"), "{last}");
    let invoice = world.invoice(OWED.0).await;
    let named = get(routes, &callback(&k1, &invoice)).await.1;
    assert!(named.contains("OK"), "{named}");
}
