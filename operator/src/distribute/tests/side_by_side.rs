//! Several settlements of one machine, several operators, and a worker after a dead one.

use super::*;
use crate::payout::fee_limit;
use crate::store::payments::{self, NewPayment, Subject};

/// Loss prevented: two legs of one machine each find the same sats free, and together take what its
/// customers were promised.
#[tokio::test]
async fn a_leg_under_way_is_no_other_legs_room() {
    let world = World::new().await;
    world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
    let (first, second) = (world.full().await, world.full().await);
    let machine = world.machine;
    // of 1 021 000 sats 300 are left: a leg takes 200 and 5 for its routing
    let debt = NewOwed {
        claim_hash: ClaimCode::from_bytes([7; 16]).hash(),
        machine_id: machine,
        txid: TxnId::from_bytes([1; 16]),
        reason: OwedReason::Late,
        source: "late".into(),
        sats: Sats(1_015_622),
    };
    world.write(move |tx| claims::owe(tx, &debt, Unix(NOW)).map(|_| ())).await;
    // the first one's payment is written, and its wallet was not asked yet
    let bound = world.app().store.write(move |tx| {
        let (_, legs) = begin(tx, first, "first".into(), Unix(NOW))?.unwrap();
        let leg = legs.first().unwrap();
        let new = NewPayment {
            subject: Subject::Leg(leg.id),
            machine_id: machine,
            wallet_id: "till".into(),
            payment_hash: PaymentHash::from_bytes([9; 32]),
            bolt11: "lnbcrt".into(),
            amount_sats: leg.amount_sats,
            fee_limit_sats: fee_limit(leg.amount_sats),
            invoice_expires_at: Unix(NOW + 600),
        };
        legs::bind(tx, leg.id, new.payment_hash)?;
        let payment = payments::begin(tx, &new, Unix(NOW))?;
        Ok::<_, DistributeError>((leg.id, payment))
    });
    let (leg, payment) = bound.await.unwrap();
    drive(world.app(), second, "second".into()).await.unwrap();
    assert_eq!(world.states(second).await, [LegState::Planned]);
    let why = world.legs(second).await[0].detail.clone().unwrap();
    assert!(why.contains("other legs take"), "{why}");
    world
        .write(move |tx| {
            payments::resolve(tx, payment, payments::Resolution::Failed, Unix(NOW))?;
            legs::end(tx, leg, false, Unix(NOW))
        })
        .await;
    drive(world.app(), second, "second".into()).await.unwrap();
    assert_eq!(world.states(second).await, [LegState::Paid]);
}

/// Loss prevented: two settlements of one machine are in work at once, and each sees the wallet
/// before the other has paid.
#[tokio::test]
async fn a_machines_settlements_are_in_work_one_after_the_other() {
    let world = World::ruled().await;
    for _ in 0..3 {
        world.full().await;
    }
    let mut worker = Worker::new(Arc::clone(world.app())).unwrap();
    for left in [3, 2, 1] {
        worker.look().await.unwrap();
        assert_eq!(world.read(settlements::distributable).await.len(), left);
        assert_eq!(worker.rounds.in_work(), 1);
        worker.next_done().await.unwrap();
    }
    world.assert_whole(600, 900).await;
}

/// Loss prevented: after a crash, nobody works for minutes on what the dead worker had.
#[tokio::test]
async fn a_worker_that_starts_takes_what_the_dead_one_had() {
    let world = World::ruled().await;
    let id = world.full().await;
    world.node().script([Behaviour::Pend; 3]);
    world.round().await;
    for leg in world.legs(id).await {
        world.node().resolve("till", leg.payment_hash.unwrap(), true).unwrap();
    }
    let mut next = Worker::new(Arc::clone(world.app())).unwrap();
    next.look().await.unwrap();
    next.finish().await;
    assert_eq!(world.states(id).await, [LegState::Paid; 3]);
    world.assert_whole(200, 300).await;
}

/// Loss prevented: an operator is not shown what waits, because another one's settlements came first.
#[tokio::test]
async fn an_operators_list_is_not_cut_off_by_anothers() {
    let mut world = World::new().await;
    world.sold(10_000, None).await;
    let (operator, machine) = world
        .write(|tx| {
            let other = Operator {
                name: "Other".into(),
                pubkey: None,
                signer: None,
                bunker_key_name: None,
                created_at: Unix(NOW),
            };
            let other = operators::insert(tx, &other)?;
            let eur = "EUR".parse().unwrap();
            let new = machines::Machine::new(other, "Inn", "", eur, "other", Unix(NOW));
            Ok((other, machines::insert(tx, &new)?))
        })
        .await;
    (world.operator, world.machine) = (operator, machine);
    let id = world.sold(10_000, None).await;
    let held = |operator, limit| {
        world.read(move |read| {
            settlements::by_distribution(read, Distribution::Held, operator, limit)
        })
    };
    let own: Vec<_> = held(Some(operator), 1).await.iter().map(|kept| kept.id).collect();
    assert_eq!(own, [id]);
    assert_eq!(held(None, 9).await.len(), 2);
}

/// Loss prevented: closing balances that leave out what moved before the first day, or have what moved
/// after the last.
#[tokio::test]
async fn what_moved_before_the_first_day_is_in_its_balance() {
    let world = World::ruled().await;
    let (day, machine) = (NOW / 86_400, world.machine);
    for _ in 0..3 {
        world.full().await;
        world.pass(86_400);
    }
    let held = world.read(move |read| ledger::closings(read, day + 1, day + 1)).await;
    let till: Vec<_> = held.iter().filter(|one| one.account == Account::Wallet(machine)).collect();
    assert_eq!(
        till.iter().map(|one| (one.day, one.balance)).collect::<Vec<_>>(),
        [(day + 1, 21_000)]
    );
}
