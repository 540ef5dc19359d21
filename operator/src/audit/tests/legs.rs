//! Sales of a real machine whose fees were distributed: the whole audit, and one settlement alone.

use bitspire_shared::money::Fiat;

use super::shop::Shop;
use super::*;
use crate::audit::proof;
use crate::distribute::tests::round;
use crate::ids::SettlementId;
use crate::lps::{self as deeds, Asker, Cash, Wanted};
use crate::store::legs::LegState;
use crate::store::lps::Mode;
use crate::store::{damage, legs, lps, machines};

/// Two sales, a whole and a short one, with the platform's fees where they belong.
pub(in crate::audit) async fn distributed() -> (Shop, Vec<SettlementId>) {
    let mut shop = Shop::open().await;
    shop.platform_to("stray").await;
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

/// Loss prevented: a provider pays for notes that never came out; or an audit, or a proof for somebody
/// else, in which what a provider got cannot be told from a theft.
#[tokio::test]
async fn providers_get_their_part_of_what_came_out() {
    let mut shop = Shop::open().await;
    shop.platform_to("stray").await;
    let id = shop.world.machine_id;
    let machine = shop.world.read(move |read| machines::find(read, id)).await.unwrap();
    let app = shop.world.app.clone();
    let who = || Asker { actor: "cli".into(), operator: None };
    let flow = Wanted { mode: Mode::Flow, daily_limit_minor: None };
    let lp = deeds::register(&app, who(), None, "Ada", machine.currency, flow).await.unwrap();
    deeds::enrol(&app, who(), lp, None).await.unwrap();
    let cash = Cash { fiat: Fiat::new(5_000, machine.currency), reference: "1".into() };
    let made = deeds::deposit(&app, who(), lp, cash).await.unwrap();
    deeds::end_deposit(&app, who(), made, true).await.unwrap();
    let (mut sold, mut got) = (Vec::new(), Vec::new());
    // half of 40 EUR came out of the first sale, so 20 of the provider's 50 were spent on it
    for (outcome, out) in [(DispenseOutcome::Partial, 1), (DispenseOutcome::Full, 2)] {
        let sale = shop.paid().await;
        shop.dispensed(&sale, outcome, out).await;
        let hash = sale.invoice.payment_hash;
        let id = shop.world.read(move |read| settlements::by_hash(read, hash)).await.unwrap().id;
        round(&app, 0).await;
        let shares = shop.world.read(move |read| lps::shares_of(read, id)).await;
        got.extend(shares.iter().map(|share| (share.sats.0, share.minor)));
        sold.push(id);
    }
    assert_eq!(got, [(20_000, 2_000), (30_000, 3_000)]);
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.audit().await.differences, []);
    for id in sold {
        let sealed = proof::make(&app, id).await.unwrap();
        let checked = proof::check(&sealed, proof::Pins::default());
        assert!(checked.ok, "{:?}", checked.steps.last().map(|step| &step.words));
        assert!(checked.steps.last().unwrap().words.contains("dca"), "{}", sealed.proof.legs.len());
        // nothing of the provider's account but what this sale's parts follow from
        let told = serde_json::to_value(&sealed.proof.providers[0]).unwrap();
        let told: Vec<_> = told.as_object().unwrap().keys().cloned().collect();
        assert_eq!(told, ["lp_id", "may_minor", "minor", "sats"]);
        let mut other = sealed.proof.clone();
        other.providers[0].sats.0 += 1;
        let service = nostr::Keys::new(app.service.secret_key().clone());
        let other = other.seal(&service).unwrap();
        assert!(!proof::check(&other, proof::Pins::default()).ok, "a sat more");
    }
}
