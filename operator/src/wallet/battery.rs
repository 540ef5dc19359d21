//! What every wallet must do: one battery, run on each implementation.
//!
//! [`battery!`] is for all of them; [`battery_with_faults!`] for those whose other side can be made
//! to fail: the simulated node itself, and the doubles that speak some wallet's protocol over it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bitspire_shell::clock::Clock;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bolt11::Head;
use super::simulated::{Behaviour, SimulatedNode};
use super::*;

/// What the wallet under test holds at first.
pub(in crate::wallet) const FUNDED: Sats = Sats(100_000);

/// When everything happens, for those that can be told.
pub(in crate::wallet) const NOW: Unix = Unix(1_800_000_000);

const PATIENCE: Duration = Duration::from_secs(30);

/// Where the wallet under test can be paid from, and what it can pay.
pub(in crate::wallet) enum Outside {
    /// Nodes: the one behind the wallet under test, and another.
    Nodes {
        /// Behind the wallet.
        ours: SimulatedNode,
        /// The customer's.
        theirs: SimulatedNode,
    },
    /// Another wallet of the same host.
    Neighbour(Arc<dyn Wallet>),
}

pub(in crate::wallet) type Reach = Box<dyn Fn(bool) -> BoxFuture<'static, ()> + Send + Sync>;

/// A wallet under test.
pub(in crate::wallet) struct Bench {
    pub(in crate::wallet) wallet: Arc<dyn Wallet>,
    pub(in crate::wallet) outside: Outside,
    /// Whether the wallet keeps what it is given beside a payment.
    pub(in crate::wallet) keeps_extra: bool,
    /// Makes the host answer, or not.
    pub(in crate::wallet) reach: Reach,
    _listening: DropGuard,
}

/// A node that signs with `key` and charges 2 sats for each payment to another.
pub(in crate::wallet) fn node(file: Option<std::path::PathBuf>, key: u8) -> SimulatedNode {
    let key = nostr::secp256k1::SecretKey::from_slice(&[key; 32]).unwrap();
    SimulatedNode::open(file, key, Sats(2), Clock::new(|| NOW)).unwrap()
}

impl Bench {
    /// A wallet that is being listened to.
    pub(in crate::wallet) fn new(wallet: Arc<dyn Wallet>, outside: Outside) -> Self {
        let stop = CancellationToken::new();
        let (listener, told) = (wallet.clone(), stop.clone());
        tokio::spawn(async move { listener.listen(told).await });
        let reach: Reach = Box::new(|_| panic!("this host cannot be taken away"));
        Self { wallet, outside, keeps_extra: true, reach, _listening: stop.drop_guard() }
    }

    /// The same, and whatever connection the wallet needs for hints stands.
    pub(in crate::wallet) async fn connected(wallet: Arc<dyn Wallet>, outside: Outside) -> Self {
        let mut hints = wallet.watch();
        let bench = Self::new(wallet, outside);
        let told = tokio::time::timeout(PATIENCE, hints.recv()).await;
        assert_eq!(told.expect("connected in time").unwrap(), Hint::Missed);
        bench
    }

    fn node(&self) -> &SimulatedNode {
        match &self.outside {
            Outside::Nodes { ours, .. } => ours,
            Outside::Neighbour(_) => panic!("nothing can fail here"),
        }
    }

    async fn pay_in(&self, bolt11: &str) {
        match &self.outside {
            Outside::Nodes { ours, .. } => {
                ours.customer_pays(bolt11, None).unwrap();
            }
            Outside::Neighbour(other) => {
                let paid = other.pay(bolt11.to_owned(), Sats(1_000), json!({})).await.unwrap();
                assert!(matches!(paid, PayState::Succeeded { .. }), "{paid:?}");
            }
        }
    }

    /// An invoice that the wallet can pay, and what routing costs.
    pub(in crate::wallet) async fn elsewhere(&self, sats: u64) -> (String, PaymentHash, Msat) {
        let (made, fee) = match &self.outside {
            Outside::Nodes { theirs, .. } => {
                (theirs.wallet("c").make_invoice(request(sats)).await.unwrap(), Msat(2_000))
            }
            Outside::Neighbour(other) => {
                (other.make_invoice(request(sats)).await.unwrap(), Msat::ZERO)
            }
        };
        (made.bolt11, made.payment_hash, fee)
    }

    async fn balance(&self) -> u64 {
        self.wallet.balance().await.unwrap().0
    }

    async fn pay(&self, bolt11: &str, limit: u64) -> Result<PayState, WalletError> {
        self.wallet.pay(bolt11.to_owned(), Sats(limit), json!({"txid": "00"})).await
    }
}

pub(in crate::wallet) fn request(sats: u64) -> InvoiceRequest {
    InvoiceRequest {
        amount: Sats(sats),
        memo: "20.00 EUR".into(),
        expiry_s: 600,
        extra: json!({"source": "bitspire", "rate": "1063.829787234", "n": 9_007_199_254_740_993_u64}),
    }
}

/// Waits until `told` says yes, which it must without anybody doing anything more.
async fn until<F: Future<Output = bool>>(mut told: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !told().await {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("told in time");
}

pub(in crate::wallet) async fn an_invoice_round_trips(bench: &Bench) {
    let wallet = &bench.wallet;
    let before = bench.balance().await;
    let mut hints = wallet.watch();
    let made = wallet.make_invoice(request(1_234)).await.unwrap();
    let head = Head::read(&made.bolt11).unwrap();
    assert_eq!((head.amount, head.network), (Some(Msat(1_234_000)), wallet.network()));
    assert_eq!((head.payment_hash, head.expires_at), (made.payment_hash, made.expires_at));
    let found = wallet.lookup(made.payment_hash).await.unwrap().unwrap();
    assert_eq!((found.flow, found.state), (Flow::Inbound, PayState::Pending));
    if bench.keeps_extra {
        assert_eq!(found.extra["rate"], "1063.829787234");
        assert_eq!(found.extra["n"], 9_007_199_254_740_993_u64);
    }
    match wallet.lookup_payment(made.payment_hash).await {
        Ok(None) => {}
        // one record for a hash: whether it was paid as well is not known
        Err(WalletError::Unknown { .. }) if !wallet.absence_is_final() => {}
        other => panic!("not paid by us: {other:?}"),
    }
    bench.pay_in(&made.bolt11).await;
    let told = tokio::time::timeout(PATIENCE, async {
        while hints.recv().await.unwrap() != Hint::Payment(made.payment_hash) {}
    });
    told.await.expect("a hint in time");
    let found = wallet.lookup(made.payment_hash).await.unwrap().unwrap();
    assert!(matches!(found.state, PayState::Succeeded { amount: Msat(1_234_000), .. }));
    assert_eq!(bench.balance().await, before + 1_234_000);
}

pub(in crate::wallet) async fn a_payment_goes_out_once(bench: &Bench) {
    let (bolt11, hash, fee) = bench.elsewhere(1_000).await;
    let before = bench.balance().await;
    assert_eq!(bench.wallet.lookup_payment(hash).await.unwrap(), None);
    let first = bench.pay(&bolt11, 5).await.unwrap();
    let amount = Msat(1_000_000);
    assert!(
        matches!(first, PayState::Succeeded { amount: a, fee: f, .. } if (a, f) == (amount, fee)),
        "{first:?}"
    );
    let after = before - 1_000_000 - fee.0;
    assert_eq!(bench.balance().await, after);
    let again = bench.pay(&bolt11, 5).await.unwrap();
    assert!(matches!(again, PayState::Succeeded { .. }), "{again:?}");
    assert_eq!(bench.balance().await, after);
    let found = bench.wallet.lookup_payment(hash).await.unwrap().unwrap();
    assert_eq!((found.flow, found.state), (Flow::Outbound, again));
    assert_eq!(bench.wallet.lookup(hash).await.unwrap(), None, "no invoice of ours");
}

pub(in crate::wallet) async fn what_cannot_be_paid_is_refused_without_effect(bench: &Bench) {
    let before = bench.balance().await;
    let (bolt11, hash, _) = bench.elsewhere(FUNDED.0 * 3).await;
    not_made(bench, hash, bench.pay(&bolt11, 5_000).await).await;
    let refused = bench.pay("lnbcrt1nonsense", 5).await;
    assert!(matches!(refused, Err(WalletError::Refused { .. })), "{refused:?}");
    assert_eq!(bench.balance().await, before);
}

/// Everything after a cursor, to the end.
async fn all(wallet: &dyn Wallet, mut from: Cursor) -> (Vec<Payment>, Cursor) {
    let mut payments = Vec::new();
    loop {
        let (page, next) = wallet.list(from).await.unwrap();
        payments.extend(page);
        assert!(next >= from, "a cursor goes on");
        if next == from {
            return (payments, from);
        }
        from = next;
    }
}

pub(in crate::wallet) async fn the_list_tells_what_changed(bench: &Bench) {
    let wallet = &*bench.wallet;
    let first = wallet.make_invoice(request(1)).await.unwrap();
    let (_, cursor) = all(wallet, Cursor::default()).await;
    let second = wallet.make_invoice(request(2)).await.unwrap();
    bench.pay_in(&second.bolt11).await;
    bench.pay_in(&first.bolt11).await;
    let (bolt11, hash, _) = bench.elsewhere(3).await;
    bench.pay(&bolt11, 5).await.unwrap();
    until(|| async {
        let (changed, _) = all(wallet, cursor).await;
        let moved = |hash, flow| {
            changed.iter().any(|payment| {
                (payment.payment_hash, payment.flow) == (hash, flow)
                    && matches!(payment.state, PayState::Succeeded { .. })
            })
        };
        moved(first.payment_hash, Flow::Inbound)
            && moved(second.payment_hash, Flow::Inbound)
            && moved(hash, Flow::Outbound)
    })
    .await;
}

pub(in crate::wallet) async fn a_lost_answer_is_unknown(bench: &Bench) {
    let (bolt11, hash, fee) = bench.elsewhere(1_000).await;
    let before = bench.balance().await;
    bench.node().script([Behaviour::LoseAnswer]);
    let lost = bench.pay(&bolt11, 5).await;
    assert!(matches!(lost, Err(WalletError::Unknown { .. })), "{lost:?}");
    let again = bench.pay(&bolt11, 5).await.unwrap();
    assert!(matches!(again, PayState::Succeeded { .. }));
    assert_eq!(bench.balance().await, before - 1_000_000 - fee.0);
    let found = bench.wallet.lookup_payment(hash).await.unwrap().unwrap();
    assert_eq!(found.state, again);
}

pub(in crate::wallet) async fn only_failed_is_failed(bench: &Bench) {
    let (bolt11, hash, _) = bench.elsewhere(1_000).await;
    let before = bench.balance().await;
    let pay = || bench.pay(&bolt11, 5);
    (bench.reach)(false).await;
    let away = pay().await;
    assert!(matches!(away, Err(WalletError::Unreachable { .. })), "{away:?}");
    for asked in [bench.wallet.lookup(hash).await, bench.wallet.lookup_payment(hash).await] {
        assert!(matches!(asked, Err(WalletError::Unreachable { .. })), "{asked:?}");
    }
    (bench.reach)(true).await;
    assert_eq!(bench.wallet.lookup_payment(hash).await.unwrap(), None, "nothing was done");
    bench.node().script([Behaviour::Pend]);
    assert_eq!(pay().await.unwrap(), PayState::Pending);
    assert_eq!(pay().await.unwrap(), PayState::Pending);
    bench.node().resolve("till", hash, false).unwrap();
    assert_eq!(pay().await.unwrap(), PayState::Failed);
    assert_eq!(bench.balance().await, before);
    let (bolt11, hash, _) = bench.elsewhere(1_000).await;
    bench.node().script([Behaviour::Fail]);
    assert_eq!(bench.pay(&bolt11, 5).await.unwrap(), PayState::Failed);
    let found = bench.wallet.lookup_payment(hash).await.unwrap().unwrap();
    assert_eq!(found.state, PayState::Failed);
    assert_eq!(bench.balance().await, before);
}

pub(in crate::wallet) async fn the_fee_limit_holds(bench: &Bench) {
    let (bolt11, hash, _) = bench.elsewhere(1_000).await;
    let before = bench.balance().await;
    not_made(bench, hash, bench.pay(&bolt11, 1).await).await;
    assert_eq!(bench.balance().await, before);
}

/// Refused, or begun and failed: some nodes keep a record of what they could not pay.
async fn not_made(bench: &Bench, hash: PaymentHash, said: Result<PayState, WalletError>) {
    assert!(matches!(said, Err(WalletError::Refused { .. }) | Ok(PayState::Failed)), "{said:?}");
    let known = bench.wallet.lookup_payment(hash).await.unwrap();
    assert!(known.is_none_or(|known| known.state == PayState::Failed));
}

/// The battery, as tests of the module that names its bench: `async fn() -> Bench`.
macro_rules! battery {
    ($bench:path) => {
        $crate::wallet::battery::battery! { $bench;
            /// Loss prevented: an invoice for another amount, a stamp that does not come back, or a
            /// payment that nobody is told of.
            an_invoice_round_trips
            /// Loss prevented: an invoice paid twice because it was asked for twice.
            a_payment_goes_out_once
            /// Loss prevented: a refusal that is taken for a payment under way, or the other way round.
            what_cannot_be_paid_is_refused_without_effect
            /// Loss prevented: payments that came in while nobody listened are never seen.
            the_list_tells_what_changed
        }
    };
    ($bench:path; $($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[tokio::test]
        async fn $name() {
            $crate::wallet::battery::$name(&$bench().await).await;
        }
    )*};
}

/// The battery and what only a host that can fail shows.
macro_rules! battery_with_faults {
    ($bench:path) => {
        $crate::wallet::battery::battery!($bench);
        $crate::wallet::battery::battery! { $bench;
            /// Loss prevented: an invoice paid twice because the first answer was lost.
            a_lost_answer_is_unknown
            /// Loss prevented: "pending" or "unreachable" read as "failed", and paid again elsewhere.
            only_failed_is_failed
            /// Loss prevented: routing that costs more than the sale earned.
            the_fee_limit_holds
        }
    };
}

pub(in crate::wallet) use {battery, battery_with_faults};
