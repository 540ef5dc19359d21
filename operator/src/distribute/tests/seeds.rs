//! Many sales, with a wallet that is away, silent, slow and wrong, and a worker that dies anywhere.

use super::*;
use crate::store::payments::{self, PaymentState};

/// Sales of one world; a world's files grow with each of them.
const SALES: u64 = 10;

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

/// Payments that their wallet has under way.
async fn pending(world: &World) -> Vec<PaymentHash> {
    let open = world.read(payments::open).await;
    open.into_iter().map(|payment| payment.payment_hash).collect()
}

/// One thing that may happen.
async fn step(world: &mut World, dice: &mut Dice) {
    match dice.below(12) {
        0 => world.restart(),
        1 => world.node().set_reachable(false),
        2 => world.node().set_reachable(true),
        3 => world.node().script([Behaviour::LoseAnswer]),
        4 => world.node().script([Behaviour::Fail]),
        5 => world.node().script([Behaviour::Pend, Behaviour::LoseAnswer]),
        6 => world.pass(dice.below(4_000)),
        7 => {
            for hash in pending(world).await {
                // what is not under way at the wallet is not ended by it
                let _ = world.node().resolve("till", hash, dice.below(2) == 0);
            }
        }
        _ => world.round().await,
    }
}

/// Brings everything to an end, as time and a person would.
async fn ended(world: &mut World) {
    world.node().set_reachable(true);
    for _ in 0..200 {
        for hash in pending(world).await {
            let _ = world.node().resolve("till", hash, true);
        }
        world.round().await;
        let errored = |read: &Read<'_>| {
            settlements::by_distribution(read, Distribution::Errored, None, u32::MAX)
        };
        for kept in world.read(errored).await {
            hands::resume(world.app(), kept.id, world.word()).await.unwrap();
        }
        if world.read(settlements::distributable).await.is_empty() {
            return;
        }
        world.pass(601);
    }
    panic!("it does not come to an end");
}

/// One world of some sales; what the legs carried.
async fn story(seed: u64) {
    let mut dice = Dice(seed);
    let (mut world, [flow, fixed]) = World::provided().await;
    let (mut platform, mut operator) = (0, 0);
    for _ in 0..SALES {
        world.node().set_reachable(true);
        let principal = 1 + dice.below(200_000);
        let id = world.sold(principal, Some(DispenseOutcome::Full)).await;
        let sale = world.settlement(id).await;
        platform += sale.platform_fee_sats.unwrap().0;
        operator += sale.operator_fee_sats.unwrap().0;
        for _ in 0..dice.below(8) {
            step(&mut world, &mut dice).await;
        }
    }
    ended(&mut world).await;
    world.assert_whole(platform, operator).await;
    let paid = world.read(|read| payments::page(read, crate::ids::PaymentId(0), u32::MAX)).await;
    let paid: Vec<_> = paid.iter().filter(|one| one.state == PaymentState::Succeeded).collect();
    let every = world.read(|read| legs::page(read, crate::ids::LegId(0), u32::MAX)).await;
    let which = |payment: &payments::Payment| {
        let leg = every.iter().find(|leg| leg.id.to_string() == payment.subject_id).unwrap();
        (leg.settlement_id, leg.position)
    };
    // a later round is the same leg
    let mut legs: Vec<_> = paid.iter().map(|one| which(&one.row)).collect();
    legs.sort_unstable();
    legs.dedup();
    assert_eq!(legs.len(), paid.len(), "seed {seed}: a leg was paid twice");
    world.assert_providers(&every, [flow, fixed]).await;
}

/// Loss prevented: any order of timeouts, unknowns, late successes, failures and restarts in which a
/// sat is lost, paid twice, or in the books otherwise than in the wallet. `DISTRIBUTION_SEEDS` sales
/// are played; 500 where nothing is said.
#[tokio::test]
async fn five_hundred_sales_are_distributed_to_the_sat() {
    let sales = std::env::var("DISTRIBUTION_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..sales.unwrap_or(500_u64).div_ceil(SALES) {
        story(seed).await;
    }
}
