//! Changing where fees go: who signs, what is refused, from when on it counts.

use super::super::rules::{self, RulesError, Wish};
use super::*;
use crate::fleet::FleetError;
use crate::store::rules as rows;

fn wish(scope: Scope, shares: Vec<Share>) -> Wish {
    Wish { scope, operator: None, machine: None, lp: None, shares }
}

async fn change(world: &World, wish: Wish) -> Result<rows::KeptRules, RulesError> {
    rules::change(world.app(), "cli", None, wish).await
}

/// Loss prevented: whoever has stolen a token leads the fees away before anybody can look.
#[tokio::test]
async fn a_change_counts_after_its_delay_and_can_be_cancelled_until_then() {
    let world = World::new().await;
    let first = change(&world, wish(Scope::Operator, vec![to("mine", 1_000_000)])).await.unwrap();
    assert_eq!(first.in_force_at, Unix(NOW), "before the first sale there is nothing to lead away");
    assert!(rules::holds(&first, &[PubKey::new(world.keys.public_key()).unwrap()]).is_ok());
    world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
    let sale = world.full().await;
    world.round().await;
    let second = change(&world, wish(Scope::Operator, vec![to("other", 1_000_000)])).await.unwrap();
    assert_eq!(second.in_force_at, Unix(NOW + 86_400));
    let third = change(&world, wish(Scope::Super, vec![])).await.unwrap();
    rules::cancel(world.app(), "cli", None, third.id).await.unwrap();
    let again = rules::cancel(world.app(), "cli", None, third.id).await;
    assert!(matches!(again, Err(RulesError::Ended(_))), "{again:?}");
    world.full().await;
    world.round().await;
    assert_eq!((world.holds("mine").await, world.holds("other").await), (600, 0));
    world.pass(86_400);
    world.full().await;
    world.round().await;
    assert_eq!((world.holds("mine").await, world.holds("other").await), (600, 300));
    let late = rules::cancel(world.app(), "cli", None, second.id).await;
    assert!(matches!(late, Err(RulesError::Ended(_))), "{late:?}");
    assert_eq!(world.audited("rules.change").await, 3);
    assert_eq!(world.audited("rules.cancel").await, 1);
    assert_eq!(world.settlement(sale).await.distribution, Distribution::Processed);
    world.assert_whole(600, 900).await;
}

/// Loss prevented: fees to a machine's wallet, where they would be taken for a sale's; to another
/// operator's; more than all of them, or less.
#[tokio::test]
async fn rules_that_cannot_hold_are_refused() {
    let world = World::new().await;
    let all = 1_000_000;
    change(&world, wish(Scope::Super, vec![to("platform", all)])).await.unwrap();
    for (scope, shares, words) in [
        (Scope::Operator, vec![to("till", all)], "no machine's"),
        (Scope::Operator, vec![to("platform", all)], "your own"),
        (Scope::Operator, vec![to("nowhere", all)], "configuration"),
        (Scope::Operator, vec![to("mine", 999_999)], "sum to 1"),
        (Scope::Operator, vec![to("mine", all), to("other", 1)], "sum to 1"),
        (Scope::Operator, vec![to("mine", all), to("other", 0)], "sum to 1"),
        (Scope::Operator, vec![to("mine", 500_000), to("mine", 500_000)], "once"),
        (Scope::Super, vec![to("mine", 500_000), to("other", 500_000)], "at most 1"),
        (Scope::Machine, vec![to("mine", all)], "machine's number"),
    ] {
        let refused = change(&world, wish(scope, shares)).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    let other = Wish { machine: Some(MachineId(9)), ..wish(Scope::Machine, vec![]) };
    let refused = change(&world, other).await;
    assert!(matches!(refused, Err(RulesError::Fleet(FleetError::NoMachine(_)))), "{refused:?}");
    assert_eq!(world.audited("rules.change").await, 1);
}

/// Loss prevented: an operator's fees go to a wallet that the configuration gives to another one; or a
/// wallet that nobody's rules name any more is nobody's for ever.
#[tokio::test]
async fn a_wallet_is_in_the_rules_of_its_owner() {
    let more = "[wallets.ours]\nkind = 'simulated'\noperator = 'Test'\n\
                [wallets.theirs]\nkind = 'simulated'\noperator = 'Somebody'\n";
    let world = World::with(more).await;
    let all = 1_000_000;
    for scope in [Scope::Operator, Scope::Super] {
        let refused = change(&world, wish(scope, vec![to("theirs", all)])).await.unwrap_err();
        assert!(refused.to_string().contains("another operator's"), "{refused}");
    }
    change(&world, wish(Scope::Operator, vec![to("ours", all)])).await.unwrap();
    change(&world, wish(Scope::Super, vec![to("mine", all)])).await.unwrap();
    let taken = change(&world, wish(Scope::Operator, vec![to("mine", all)])).await.unwrap_err();
    assert!(taken.to_string().contains("your own"), "{taken}");
    // before the first sale it counts at once: the other one is superseded
    change(&world, wish(Scope::Super, vec![to("platform", all)])).await.unwrap();
    change(&world, wish(Scope::Operator, vec![to("mine", all)])).await.unwrap();
    // what waits counts too
    world.full().await;
    change(&world, wish(Scope::Super, vec![to("other", all)])).await.unwrap();
    for wallet in ["platform", "other"] {
        let taken = change(&world, wish(Scope::Operator, vec![to(wallet, all)])).await;
        assert!(taken.unwrap_err().to_string().contains("your own"), "{wallet}");
    }
}

/// Loss prevented: a machine that has rules of its own is paid by the others', or for ever.
#[tokio::test]
async fn a_machines_own_rules_count_until_they_are_taken_back() {
    let world = World::ruled().await;
    let own = |shares| Wish { machine: Some(world.machine), ..wish(Scope::Machine, shares) };
    change(&world, own(vec![to("other", 1_000_000)])).await.unwrap();
    world.full().await;
    world.round().await;
    assert_eq!((world.holds("mine").await, world.holds("other").await), (0, 300));
    change(&world, own(vec![])).await.unwrap();
    world.pass(86_400);
    world.full().await;
    world.round().await;
    assert_eq!((world.holds("mine").await, world.holds("other").await), (180, 420));
    world.assert_whole(400, 600).await;
}

/// Loss prevented: somebody with a hand in the database leads fees away, and no audit says so.
#[tokio::test]
async fn the_audit_finds_rules_that_nobody_signed_and_legs_that_no_rule_makes() {
    for (damage, words) in [
        ("UPDATE rules SET shares = replace(shares, 'mine', 'other2')", "signed for other rules"),
        ("UPDATE legs SET amount_sats = amount_sats + 1 WHERE position = 2", "operator_split"),
        ("UPDATE legs SET destination = '{\"wallet\":\"evil\"}' WHERE position = 1", "wallet:evil"),
        ("UPDATE legs SET state = 'void', ended_by = 'x' WHERE position = 1", "succeeded"),
        ("DELETE FROM legs WHERE settlement_id = 1", "a leg of 200 sats"),
        ("UPDATE settlements SET distribution = 'processed' WHERE id = 2", "every leg ended"),
    ] {
        let world = World::ruled().await;
        world.full().await;
        world.round().await;
        world.full().await;
        world.node().script([Behaviour::Pend; 3]);
        world.round().await;
        assert_eq!(world.differences().await, Vec::<String>::new());
        world.write(move |tx| crate::store::damage(tx, &[damage])).await;
        let told = world.differences().await.concat();
        assert!(told.contains(words), "{damage}: {told}");
    }
}
