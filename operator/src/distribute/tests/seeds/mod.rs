//! Stories of a few sales and of notes fed, with wallets that are away, silent, slow and wrong, customers
//! who fetch what is theirs in every way that wallets know, and a service that dies anywhere: at any
//! commit, and before and after each word with a wallet.

mod customers;
mod mortal;
mod notes;
mod whole;

use tokio_util::task::TaskTracker;

use self::customers::Customer;
use self::mortal::{Dice, Ends, KINDS, Kind, Mortal};
use super::*;
use crate::ids::LpId;
use crate::payout::{self, close};
use crate::settle::{self, SettleError};
use crate::store::payments;
use crate::testing::Death;

/// Stories that one world sees; its files grow with each of them.
const STORIES: u64 = 5;
/// What happens in one, beside its sales.
const ACTS: u64 = 6;
/// Steps of the service until it dies, at most.
const STEPS: u64 = 45;

/// A world over several stories, and what its sales had for whom.
struct Bench {
    world: World,
    lps: [LpId; 2],
    kind: Kind,
    ends: Ends,
    death: Death,
    under_way: TaskTracker,
    /// Whether the wallets' node is out of reach.
    away: bool,
    /// Those who were promised sats in this story.
    customers: Vec<Customer>,
    platform: u64,
    operator: u64,
    deposited: i64,
    /// Sales of either direction.
    sales: usize,
    deaths: u64,
    /// Customers who could fetch theirs a second time, since the first payment had failed for good.
    again: u64,
}

impl Bench {
    async fn new(kind: Kind) -> Self {
        let (world, lps) = World::provided().await;
        let mut bench = Self {
            world,
            lps,
            kind,
            ends: Ends::default(),
            death: Death::never(),
            under_way: TaskTracker::new(),
            away: false,
            customers: Vec::new(),
            platform: 0,
            operator: 0,
            deposited: 30_000,
            sales: 0,
            deaths: 0,
            again: 0,
        };
        bench.takes_notes().await;
        bench.restart().await;
        bench
    }

    /// As after kill -9. What wallets were asked for they do all the same.
    async fn restart(&mut self) {
        self.under_way.close();
        self.under_way.wait().await;
        self.world.restart();
        (self.death, self.under_way, self.away) = (Death::never(), TaskTracker::new(), false);
        let app = Arc::get_mut(self.world.app.as_mut().unwrap()).unwrap();
        app.store.dies_by(self.death.clone());
        for wallet in app.wallets.values_mut() {
            *wallet = Arc::new(Mortal {
                inner: Arc::clone(wallet),
                kind: self.kind,
                clock: app.clock.clone(),
                ends: Arc::clone(&self.ends),
                death: self.death.clone(),
                under_way: self.under_way.clone(),
            });
        }
    }

    fn reach(&mut self, reachable: bool) {
        self.away = !reachable;
        self.world.node().set_reachable(reachable);
    }

    /// What comes of it, unless the service dies before.
    async fn lives<T>(&mut self, does: impl Future<Output = T>) -> Option<T> {
        let death = self.death.clone();
        let done = tokio::select! {
            biased;
            () = death.came() => None,
            done = does => Some(done),
        };
        if done.is_none() {
            self.deaths += 1;
            self.restart().await;
        }
        done
    }

    /// What each of the service's workers does once: customers' payouts, the wallet's list, legs.
    async fn round(&mut self) {
        let app = Arc::clone(self.world.app());
        self.lives(async move { payout::tests::round(&app).await.unwrap() }).await;
        let app = Arc::clone(self.world.app());
        let read = async move {
            let till = Arc::clone(&app.wallets["till"]);
            match settle::reconcile(&app, &*till).await {
                Ok(()) | Err(SettleError::Wallet(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        };
        self.lives(read).await;
        let (app, life) = (Arc::clone(self.world.app()), self.world.life);
        self.lives(async move { round(&app, life).await }).await;
    }

    /// A sale of which the machine has reported: now and then not all notes came, or somebody has to
    /// look at it first.
    async fn sells(&mut self, dice: &mut Dice) {
        let id = match dice.below(3) {
            0 => self.owes(dice).await,
            _ => {
                self.waits_for_nobody();
                let principal = 1 + dice.below(60_000);
                let id = self.world.sold(principal, Some(DispenseOutcome::Full)).await;
                self.earns(id).await;
                id
            }
        };
        if dice.below(6) == 0 {
            self.world.write(move |tx| settlements::hold(tx, id, "doubtful_report")).await;
        }
    }

    /// A sale of which not all notes came; what is owed for them is a customer's.
    async fn owes(&mut self, dice: &mut Dice) -> SettlementId {
        self.waits_for_nobody();
        let principal = 20 + dice.below(60_000);
        let missing = i64::try_from(1 + dice.below(principal.div_ceil(10) - 1)).unwrap();
        let (txid, code) = (TxnId::from_bytes(dice.bytes()), dice.bytes());
        let claim = ClaimCode::from_bytes(code).hash();
        let (id, owed) = self.world.short(principal, missing, (txid, claim)).await;
        self.customers.push(Customer::new(code, owed, None));
        self.earns(id).await;
        id
    }

    /// What follows is no part of the service's own work.
    fn waits_for_nobody(&mut self) {
        self.reach(true);
        self.death.spares();
    }

    async fn earns(&mut self, id: SettlementId) {
        let sale = self.world.settlement(id).await;
        self.platform += sale.platform_fee_sats.unwrap().0;
        self.operator += sale.operator_fee_sats.unwrap().0;
        self.sales += 1;
    }

    /// One thing that may happen.
    async fn acts(&mut self, dice: &mut Dice) {
        let node = self.world.node();
        match dice.below(20) {
            0 => self.restart().await,
            1 => self.reach(false),
            2 => self.reach(true),
            3 => node.script([Behaviour::LoseAnswer]),
            4 => node.script([Behaviour::Fail; 3]),
            5 => node.script([Behaviour::Pend, Behaviour::LoseAnswer]),
            // a promise for notes lasts a day
            6 if dice.below(6) == 0 => self.world.pass(90_000),
            6 => self.world.pass(dice.below(4_000)),
            7 => {
                for hash in self.pending().await {
                    // what is not under way at the wallet is not ended by it
                    let _ = node.resolve("till", hash, dice.below(2) == 0);
                }
            }
            8 => {
                self.death.spares();
                let minor = i64::try_from(1 + dice.below(20_000)).unwrap();
                self.world.deposits(self.lps[0], minor, &dice.next().to_string()).await;
                self.deposited += minor;
            }
            9..=11 => {
                // early ones more often: the first worker has few steps
                let steps = 1 + dice.below(STEPS);
                self.death.after(dice.below(steps));
                self.round().await;
            }
            12 => {
                self.death.after(dice.below(6));
                self.customer_acts(dice).await;
            }
            13..=16 => self.customer_acts(dice).await,
            _ => self.round().await,
        }
    }

    /// Payments that have not ended.
    async fn pending(&self) -> Vec<PaymentHash> {
        let open = self.world.read(payments::open).await;
        open.into_iter().map(|payment| payment.payment_hash).collect()
    }

    async fn at(&self, state: Distribution) -> Vec<SettlementId> {
        let found =
            move |read: &Read<'_>| settlements::by_distribution(read, state, None, u32::MAX);
        self.world.read(found).await.iter().map(|kept| kept.id).collect()
    }

    /// Brings everything to an end, as time and people would.
    async fn ends(&mut self, dice: &mut Dice) {
        for turn in 0..64 {
            if turn == 12 {
                // nothing is to go wrong any more
                self.restart().await;
            }
            // before time passes, or an invoice ends that no wallet was asked for
            self.all_fetch(dice).await;
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
            self.closes().await;
            let open = self.world.read(settlements::distributable).await;
            if self.all_paid().await && open.is_empty() && self.pending().await.is_empty() {
                return;
            }
            self.world.pass(601 << (turn / 3).min(5));
        }
        let open = self.world.read(payments::open).await;
        let legs = self.world.read(settlements::distributable).await;
        panic!("it does not come to an end: {open:#?} {legs:?} {:#?}", self.customers);
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

    /// A person looks into the history of a wallet that does not tell what it never paid.
    async fn closes(&self) {
        if self.kind.absence_is_final {
            return;
        }
        let now = self.world.app().clock.now();
        for payment in self.world.read(payments::open).await {
            let hash = payment.payment_hash;
            let late = now >= payment.invoice_expires_at.after(close::MARGIN_S);
            if late && self.truth(hash).await.is_none() {
                let word = close::Word::NotPaid;
                close::close(self.world.app(), ("cli", None), hash, word, "looked").await.unwrap();
            }
        }
    }
}

/// Loss prevented: any order of timeouts, unknowns, late successes, failures and deaths of the service
/// in which a sat is lost, paid twice, or in the books otherwise than in the wallet, or in which a
/// payment waits and nobody hears of it. `DISTRIBUTION_SEEDS` stories are played, 500 where nothing is
/// said, from `DISTRIBUTION_FROM` on, and those of its world before it.
#[tokio::test]
async fn five_hundred_stories_are_distributed_to_the_sat() {
    let said = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = said("DISTRIBUTION_FROM").unwrap_or(0);
    let end = from + said("DISTRIBUTION_SEEDS").unwrap_or(500);
    let first = from / STORIES * STORIES;
    let seeds = end - first;
    let kind = |seed: u64| KINDS[usize::try_from(seed / STORIES % 3).unwrap()];
    let (mut bench, mut deaths, mut again) = (Bench::new(kind(first)).await, 0, 0);
    for seed in first..end {
        // what is told of a failure
        eprintln!("seed {seed}");
        let mut dice = Dice(seed);
        for _ in 0..=dice.below(2) {
            match dice.below(5) {
                0 | 1 => bench.feeds(&mut dice).await,
                _ => bench.sells(&mut dice).await,
            }
            for _ in 0..dice.below(ACTS) {
                bench.acts(&mut dice).await;
            }
        }
        bench.is_told().await;
        bench.ends(&mut dice).await;
        bench.is_whole(seed).await;
        if seed % STORIES == STORIES - 1 || seed + 1 == end {
            bench.audits().await;
            (deaths, again) = (deaths + bench.deaths, again + bench.again);
            bench = Bench::new(kind(seed + 1)).await;
        }
    }
    eprintln!("{seeds} stories, {deaths} deaths, {again} who fetched again");
    assert!(deaths >= seeds / 10, "the service must have died: {deaths}");
    assert!(again >= seeds / 50, "payments must have failed for good: {again}");
}

/// Loss prevented: two records of which the first is durable and the second is not, with nothing in
/// between that a random death would fall on. One story of notes fed, a short sale, both customers and
/// their wallets dies at its first step, its second, and so on to its last.
#[tokio::test]
async fn a_story_that_dies_at_any_step_ends_the_same() {
    let mut bench = Bench::new(KINDS[0]).await;
    for step in 0.. {
        eprintln!("step {step}");
        let mut dice = Dice(step);
        bench.feeds(&mut dice).await;
        bench.owes(&mut dice).await;
        let deaths = bench.deaths;
        bench.death.after(step);
        for who in 0..2 {
            bench.fetches(who, &mut dice).await;
        }
        bench.round().await;
        let lived = bench.deaths == deaths;
        bench.death.spares();
        bench.ends(&mut dice).await;
        bench.is_whole(step).await;
        if lived {
            assert!(step > 40, "a story of {step} steps is none");
            return bench.audits().await;
        }
        if step % STORIES == STORIES - 1 {
            bench = Bench::new(KINDS[0]).await;
        }
    }
}
