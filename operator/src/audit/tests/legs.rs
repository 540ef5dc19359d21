//! Sales of a real machine whose fees were distributed: the whole audit, and one settlement alone.

use bitspire_shared::ids::PubKey;

use super::shop::Shop;
use super::*;
use crate::distribute::tests::{in_force, round, to};
use crate::ids::SettlementId;
use crate::store::legs::LegState;
use crate::store::rules::Scope;
use crate::store::{damage, legs, machines, operators};

/// Two sales, a whole and a short one, with the platform's fees where they belong.
pub(in crate::audit) async fn distributed() -> (Shop, Vec<SettlementId>) {
    let mut shop = Shop::open().await;
    let (keys, id, now) = (shop.owner.clone(), shop.world.machine_id, shop.world.app.clock.now());
    let key = PubKey::new(keys.public_key()).unwrap();
    let machine = shop.world.read(move |read| machines::find(read, id)).await.unwrap();
    shop.world
        .write(move |tx| {
            let local = operators::SignerKind::Local;
            operators::set_identity(tx, machine.operator_id, key, local, None)?;
            in_force(tx, &keys, (Scope::Super, None), vec![to("stray", 1_000_000)], now)
        })
        .await;
    let mut sold = Vec::new();
    for (outcome, out) in [(DispenseOutcome::Full, 2), (DispenseOutcome::Partial, 1)] {
        let sale = shop.paid().await;
        shop.dispensed(&sale, outcome, out).await;
        let hash = sale.invoice.payment_hash;
        let kept = shop.world.read(move |read| settlements::by_hash(read, hash)).await.unwrap();
        sold.push(kept.id);
    }
    round(&shop.world.app, 0).await;
    shop.heartbeat(&[], &[]).await;
    (shop, sold)
}

/// Loss prevented: an audit that takes distributed fees for a loss, so that nobody reads it any more;
/// or one that does not look at them. The fees of a short sale go down with its notes.
#[tokio::test]
async fn distributed_fees_are_no_difference_and_changed_ones_are() {
    let (shop, sold) = distributed().await;
    let app = shop.world.app.clone();
    let mut amounts = Vec::new();
    for id in sold.clone() {
        let legs = shop.world.read(move |read| legs::latest(read, id)).await;
        amounts.extend(legs.iter().map(|leg| (leg.state, leg.amount_sats)));
    }
    // 2 % of 40 000 sats, and of half of them
    assert_eq!(amounts, [(LegState::Paid, Sats(800)), (LegState::Paid, Sats(400))]);
    let found = |audit: &Audit| audit.differences.clone();
    assert_eq!(found(&shop.audit().await), []);
    let one = super::super::settlement(&app, sold[1]).await.unwrap().unwrap();
    assert_eq!(found(&one), []);
    for line in &one.checks {
        let looked = [Check::Cash, Check::Liabilities].contains(&line.name) || line.looked_at > 0;
        assert!(looked, "{line:?}");
    }
    assert_eq!(super::super::settlement(&app, SettlementId(99)).await.unwrap(), None);

    let change = "UPDATE legs SET amount_sats = amount_sats + 1 WHERE id = 2";
    shop.world.write(move |tx| damage(tx, &[change])).await;
    for (id, differs) in [(sold[0], false), (sold[1], true)] {
        let one = super::super::settlement(&app, id).await.unwrap().unwrap();
        let told = found(&one).iter().any(|one| one.check == Check::Distribution);
        assert_eq!(told, differs, "{id}");
    }
    assert!(found(&shop.audit().await).iter().any(|one| one.check == Check::Distribution));
}
