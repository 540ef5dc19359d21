//! What people are told, and what they decide.

use super::*;
use crate::store::Kept;

/// Loss prevented: a leg that is given up after one failure, one that is tried for ever without a
/// word, and one that a person ends while its payment may still succeed.
#[tokio::test]
async fn a_leg_is_tried_again_after_its_wallet_said_failed_and_a_person_is_told() {
    let world = World::ruled().await;
    let id = world.full().await;
    // of three legs the first one is asked for first
    let (fail, pay) = (Behaviour::Fail, Behaviour::Succeed);
    world.node().script([fail, pay, pay, fail, Behaviour::Pend]);
    world.round().await;
    world.round().await;
    world.round().await;
    let bound = world.legs(id).await.remove(0);
    assert_eq!((bound.state, bound.round), (LegState::Bound, 3));
    let early = hands::end_leg(world.app(), bound.id, How::Void, world.word()).await;
    assert!(matches!(early, Err(hands::HandsError::Leg { .. })), "{early:?}");
    world.node().resolve("till", bound.payment_hash.unwrap(), false).unwrap();
    world.round().await;
    assert_eq!(world.settlement(id).await.distribution, Distribution::Errored);
    assert_eq!(world.audited("distribution.errored").await, 1);
    world.round().await;
    assert_eq!(world.holds("platform").await, 0, "it rests until somebody says so");

    hands::resume(world.app(), id, world.word()).await.unwrap();
    world.round().await;
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!(world.legs(id).await[0].round, 4);
    world.assert_whole(200, 300).await;
}

/// Loss prevented: a leg that a person has paid otherwise is paid once more, or is nobody's in the
/// books.
#[tokio::test]
async fn what_a_person_has_paid_is_not_paid_again() {
    let world = World::ruled().await;
    let id = world.full().await;
    world.node().script([Behaviour::Fail; 9]);
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(world.settlement(id).await.distribution, Distribution::Errored);
    let legs = world.legs(id).await;
    let no_reason = Word { reason: " ".into(), ..world.word() };
    let refused = hands::end_leg(world.app(), legs[0].id, How::ByHand, no_reason).await;
    assert!(matches!(refused, Err(hands::HandsError::NoReason)), "{refused:?}");
    hands::end_leg(world.app(), legs[0].id, How::ByHand, world.word()).await.unwrap();
    hands::end_leg(world.app(), legs[1].id, How::Void, world.word()).await.unwrap();
    let twice = hands::end_leg(world.app(), legs[0].id, How::Void, world.word()).await;
    assert!(matches!(twice, Err(hands::HandsError::Leg { .. })), "{twice:?}");
    world.round().await;
    hands::end_leg(world.app(), legs[2].id, How::Void, world.word()).await.unwrap();
    world.round().await;
    assert_eq!(world.states(id).await, [LegState::ByHand, LegState::Void, LegState::Void]);
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!(world.balance(Account::Super).await, 0, "the operator has paid it");
    assert_eq!(world.balance(Account::Operator(world.operator)).await, -500);
    assert_eq!(world.holds("platform").await, 0);
    world.books_are_the_wallets().await;
}

/// Loss prevented: an operator keeps the platform's fee, by their own word that it need not be paid or
/// was.
#[tokio::test]
async fn an_operator_does_not_end_the_platforms_leg() {
    let world = World::new().await;
    let id = world.full().await;
    world.round().await;
    let leg = world.legs(id).await.remove(0);
    assert_eq!((leg.kind, leg.state), (LegKind::SuperFee, LegState::Planned));
    let own = Word { operator: Some(world.operator), platform: false, ..world.word() };
    for how in [How::Void, How::ByHand] {
        let refused = hands::end_leg(world.app(), leg.id, how, own.clone()).await;
        assert!(matches!(refused, Err(hands::HandsError::Platform(_))), "{refused:?}");
    }
    assert_eq!(world.states(id).await, [LegState::Planned]);
    hands::end_leg(world.app(), leg.id, How::Void, world.word()).await.unwrap();
    assert_eq!(world.states(id).await, [LegState::Void]);
}

/// Loss prevented: what a person has let go on comes to wait again, and nobody hears of it any more.
#[tokio::test]
async fn a_state_that_comes_back_is_told_again() {
    let world = World::ruled().await;
    let id = world.full().await;
    let told = async || {
        let rows = world.read(|read| log::audit_tail(read, None, 10_000)).await;
        let errored = |row: &&Kept<_, log::Audit>| {
            row.action == WAITING && row.detail.0["state"] == "errored"
        };
        rows.iter().filter(errored).count()
    };
    world.node().script([Behaviour::Fail; 9]);
    for _ in 0..3 {
        world.round().await;
    }
    world.pass(TOLD_AFTER_S + 1);
    for again in [1, 2] {
        assert_eq!(world.settlement(id).await.distribution, Distribution::Errored);
        world.round().await;
        assert_eq!(told().await, again);
        hands::resume(world.app(), id, world.word()).await.unwrap();
        world.node().script([Behaviour::Fail; 3]);
        world.round().await;
    }
}

/// Loss prevented: a payment of a time when the clock was ahead is told of years late.
#[tokio::test]
async fn what_came_before_the_clock_was_put_back_is_told() {
    let world = World::new().await;
    world.sold(10_000, None).await;
    world.now.fetch_sub(3_600, Ordering::SeqCst);
    world.round().await;
    assert_eq!(world.audited(WAITING).await, 1);
}

/// Loss prevented: sats that stay where they are and nobody hears of it; or an alert that comes
/// every five seconds and is not read any more.
#[tokio::test]
async fn what_is_not_distributed_is_told_once_for_each_state() {
    let world = World::new().await;
    let id = world.sold(10_000, None).await;
    world.round().await;
    assert_eq!(world.audited(WAITING).await, 0);
    world.pass(TOLD_AFTER_S + 1);
    for _ in 0..3 {
        world.round().await;
        assert_eq!(world.audited(WAITING).await, 1);
    }
    world.write(move |tx| settlements::hold(tx, id, "doubtful_report")).await;
    world.round().await;
    assert_eq!(world.audited(WAITING).await, 2);
}
