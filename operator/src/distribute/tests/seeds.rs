//! Stories of a few sales each, with wallets that are away, silent, slow and wrong, and a service that
//! dies anywhere: before and after each word with a wallet, so between any two of its records.

use std::sync::atomic::AtomicI64;

use futures_util::future::BoxFuture;
use lightning_invoice::Currency;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ids::{LegId, LpId, PaymentId};
use crate::store::payments::{self, PaymentState};
use crate::wallet::{Cursor, FailureRule, Hint, Invoice, PayState, Payment, Wallet, WalletResult};

/// Stories that one world sees; its files grow with each of them.
const STORIES: u64 = 10;
/// What happens in one, beside its sales.
const ACTS: u64 = 8;

/// splitmix64: the same story for a seed each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// When the service dies, counted in what it asks of wallets.
#[derive(Clone, Default)]
struct Death {
    /// Halves of questions until then: asked, answered, asked, ... Below 0: it lives.
    left: Arc<AtomicI64>,
    dead: Arc<Notify>,
}

impl Death {
    /// Comes back unless this is where it dies.
    async fn passes(&self) {
        if self.left.load(Ordering::SeqCst) < 0 || self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return;
        }
        self.dead.notify_one();
        std::future::pending::<()>().await;
    }
}

/// A wallet of a service that may die while it asks.
struct Mortal {
    inner: Arc<dyn Wallet>,
    death: Death,
}

impl Mortal {
    fn asks<'a, T: Send + 'a>(&'a self, asked: WalletResult<'a, T>) -> WalletResult<'a, T> {
        Box::pin(async move {
            self.death.passes().await;
            let answer = asked.await;
            self.death.passes().await;
            answer
        })
    }
}

impl Wallet for Mortal {
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
    fn make_invoice(&self, request: InvoiceRequest) -> WalletResult<'_, Invoice> {
        self.asks(self.inner.make_invoice(request))
    }
    fn pay(&self, bolt11: String, fee_limit: Sats, extra: Value) -> WalletResult<'_, PayState> {
        self.asks(self.inner.pay(bolt11, fee_limit, extra))
    }
    fn lookup(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        self.asks(self.inner.lookup(hash))
    }
    fn lookup_payment(&self, hash: PaymentHash) -> WalletResult<'_, Option<Payment>> {
        self.asks(self.inner.lookup_payment(hash))
    }
    fn list(&self, since: Cursor) -> WalletResult<'_, (Vec<Payment>, Cursor)> {
        self.inner.list(since)
    }
    fn cursor_at(&self, at: Unix) -> Option<Cursor> {
        self.inner.cursor_at(at)
    }
    fn balance(&self) -> WalletResult<'_, Msat> {
        self.asks(self.inner.balance())
    }
    fn watch(&self) -> broadcast::Receiver<Hint> {
        self.inner.watch()
    }
    fn listen(&self, stop: CancellationToken) -> BoxFuture<'_, ()> {
        self.inner.listen(stop)
    }
}

/// A world over several stories, and what its sales had for whom.
struct Bench {
    world: World,
    lps: [LpId; 2],
    death: Death,
    platform: u64,
    operator: u64,
    deposited: i64,
    deaths: u64,
}

impl Bench {
    async fn new() -> Self {
        let (world, lps) = World::provided().await;
        let death = Death::default();
        death.left.store(-1, Ordering::SeqCst);
        let (platform, operator, deaths) = (0, 0, 0);
        let mut bench = Self { world, lps, death, platform, operator, deposited: 30_000, deaths };
        bench.restart();
        bench
    }

    /// As after kill -9.
    fn restart(&mut self) {
        self.world.restart();
        self.death.left.store(-1, Ordering::SeqCst);
        let app = Arc::get_mut(self.world.app.as_mut().unwrap()).unwrap();
        for wallet in app.wallets.values_mut() {
            let (inner, death) = (Arc::clone(wallet), self.death.clone());
            *wallet = Arc::new(Mortal { inner, death });
        }
    }

    /// One round of the worker, unless the service dies in it.
    async fn round(&mut self) {
        let died = tokio::select! {
            biased;
            () = self.world.round() => false,
            () = self.death.dead.notified() => true,
        };
        if died {
            self.deaths += 1;
            self.restart();
        }
    }

    /// A sale of which the machine has reported; now and then somebody has to look at it first.
    async fn sells(&mut self, dice: &mut Dice) {
        self.world.node().set_reachable(true);
        self.death.left.store(-1, Ordering::SeqCst);
        let principal = 1 + dice.below(60_000);
        let id = self.world.sold(principal, Some(DispenseOutcome::Full)).await;
        let sale = self.world.settlement(id).await;
        self.platform += sale.platform_fee_sats.unwrap().0;
        self.operator += sale.operator_fee_sats.unwrap().0;
        if dice.below(6) == 0 {
            self.world.write(move |tx| settlements::hold(tx, id, "doubtful_report")).await;
        }
    }

    /// One thing that may happen.
    async fn acts(&mut self, dice: &mut Dice) {
        let node = self.world.node();
        match dice.below(14) {
            0 => self.restart(),
            1 => node.set_reachable(false),
            2 => node.set_reachable(true),
            3 => node.script([Behaviour::LoseAnswer]),
            4 => node.script([Behaviour::Fail; 3]),
            5 => node.script([Behaviour::Pend, Behaviour::LoseAnswer]),
            6 => self.world.pass(dice.below(4_000)),
            7 => {
                for hash in self.pending().await {
                    // what is not under way at the wallet is not ended by it
                    let _ = node.resolve("till", hash, dice.below(2) == 0);
                }
            }
            8 => {
                let minor = i64::try_from(1 + dice.below(20_000)).unwrap();
                self.world.deposits(self.lps[0], minor, &dice.next().to_string()).await;
                self.deposited += minor;
            }
            9 | 10 => {
                let left = i64::try_from(dice.below(30)).unwrap();
                self.death.left.store(left, Ordering::SeqCst);
                self.round().await;
            }
            _ => self.round().await,
        }
    }

    /// Payments that their wallet has under way.
    async fn pending(&self) -> Vec<PaymentHash> {
        let open = self.world.read(payments::open).await;
        open.into_iter().map(|payment| payment.payment_hash).collect()
    }

    async fn at(&self, state: Distribution) -> Vec<SettlementId> {
        let found =
            move |read: &Read<'_>| settlements::by_distribution(read, state, None, u32::MAX);
        self.world.read(found).await.iter().map(|kept| kept.id).collect()
    }

    /// Every sale that is not distributed has its line in the log, as it stands now.
    async fn is_told(&mut self) {
        self.death.left.store(-1, Ordering::SeqCst);
        self.world.node().set_reachable(false);
        self.world.pass(TOLD_AFTER_S + LEASE_S + 1);
        // the first round may still take up what nobody had
        for _ in 0..2 {
            self.round().await;
        }
        let lines = self.world.read(|read| log::audit_tail(read, None, 10_000)).await;
        for state in Distribution::ALL {
            if matches!(state, Distribution::Processed | Distribution::Rejected) {
                continue;
            }
            for id in self.at(*state).await {
                let told = lines.iter().any(|line| {
                    let of = &line.detail.0;
                    let as_it_is = of["state"].as_str().unwrap_or("").starts_with(state.as_str());
                    line.action == WAITING && of["settlement"] == id.0 && as_it_is
                });
                assert!(told, "settlement {id} is {state} and nobody was told");
            }
        }
        self.world.node().set_reachable(true);
    }

    /// Brings everything to an end, as time and a person would.
    async fn ends(&mut self, dice: &mut Dice) {
        for _ in 0..200 {
            for hash in self.pending().await {
                let _ = self.world.node().resolve("till", hash, true);
            }
            self.round().await;
            for id in self.at(Distribution::Held).await {
                hands::release(self.world.app(), id, self.world.word()).await.unwrap();
            }
            for id in self.at(Distribution::Errored).await {
                self.decides(id, dice).await;
            }
            if self.world.read(settlements::distributable).await.is_empty() {
                return;
            }
            self.world.pass(601);
        }
        panic!("it does not come to an end");
    }

    /// What has failed three times is tried again; a provider's may be given up.
    async fn decides(&self, id: SettlementId, dice: &mut Dice) {
        let legs = self.world.legs(id).await;
        let theirs = legs.iter().find(|leg| leg.lp_id.is_some() && leg.state == LegState::Failed);
        match theirs.filter(|_| dice.below(2) == 0) {
            Some(leg) => {
                hands::end_leg(self.world.app(), leg.id, How::Void, self.world.word())
                    .await
                    .unwrap();
            }
            None => hands::resume(self.world.app(), id, self.world.word()).await.unwrap(),
        }
    }

    /// Every sat is where it belongs, in the books and in the wallets, and no leg was paid twice.
    async fn is_whole(&self, seed: u64) {
        self.world.assert_paid(self.platform, self.operator).await;
        self.world.till_is_booked().await;
        let paid = self.world.read(|read| payments::page(read, PaymentId(0), u32::MAX)).await;
        let paid: Vec<_> = paid.iter().filter(|one| one.state == PaymentState::Succeeded).collect();
        let every = self.world.read(|read| legs::page(read, LegId(0), u32::MAX)).await;
        let which = |payment: &payments::Payment| {
            let leg = every.iter().find(|leg| leg.id.to_string() == payment.subject_id).unwrap();
            (leg.settlement_id, leg.position)
        };
        // a later round is the same leg
        let mut legs: Vec<_> = paid.iter().map(|one| which(&one.row)).collect();
        legs.sort_unstable();
        legs.dedup();
        assert_eq!(legs.len(), paid.len(), "seed {seed}: a leg was paid twice");
        self.world.assert_providers(&every, self.lps, self.deposited).await;
    }
}

/// Loss prevented: any order of timeouts, unknowns, late successes, failures and deaths of the service
/// in which a sat is lost, paid twice, or in the books otherwise than in the wallet, or in which a
/// payment waits and nobody hears of it. `DISTRIBUTION_SEEDS` stories are played; 500 where nothing is
/// said.
#[tokio::test]
async fn five_hundred_stories_are_distributed_to_the_sat() {
    let seeds = std::env::var("DISTRIBUTION_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = seeds.unwrap_or(500_u64);
    let (mut bench, mut deaths) = (Bench::new().await, 0);
    for seed in 0..seeds {
        // what is told of a failure
        eprintln!("seed {seed}");
        let mut dice = Dice(seed);
        for _ in 0..=dice.below(2) {
            bench.sells(&mut dice).await;
            for _ in 0..dice.below(ACTS) {
                bench.acts(&mut dice).await;
            }
        }
        bench.is_told().await;
        bench.ends(&mut dice).await;
        bench.is_whole(seed).await;
        if seed % STORIES == STORIES - 1 || seed + 1 == seeds {
            bench.world.books_are_the_wallets().await;
            deaths += bench.deaths;
            bench = Bench::new().await;
        }
    }
    assert!(deaths > seeds / 10, "the service must have died: {deaths}");
}
