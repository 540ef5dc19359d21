//! Each check finds what was planted for it, and nothing where nothing was.

pub(super) mod legs;
mod paid;
mod planted;
mod recycled;
mod service;
pub(crate) mod shop;
mod signatures;

use bitspire_shared::document::Action;
use bitspire_shared::ids::WithdrawId;
use bitspire_shared::money::Sats;
use bitspire_shared::rpc::{DispenseOutcome, Withdraw};

use super::report::{Audit, Check};
use crate::ledger::Account;
use crate::rpc::tests::cash_in::fetched;
use crate::store::claims;
use crate::store::settlements::{self, Distribution, SettlementStatus};
use crate::store::withdraws::{self, K1};
use shop::Shop;

fn waits(audit: &Audit, check: Check, part: &str) -> bool {
    audit
        .waiting
        .iter()
        .any(|one| one.check == check && format!("{}: {}", one.subject, one.reason).contains(part))
}

/// Loss prevented: an audit that cries wolf is switched off, and the next loss is not seen; or one
/// that finds nothing because it looks at nothing.
#[tokio::test]
async fn a_busy_shop_has_no_difference() {
    let shop = Shop::busy().await;
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    for line in &audit.checks {
        assert!(line.looked_at > 0, "{line:?}");
    }
    assert!(waits(&audit, Check::Liabilities, "19000 sats promised"), "{:#?}", audit.waiting);
    assert!(waits(&audit, Check::Liabilities, "21000 sats owed"), "the short one");
    assert!(waits(&audit, Check::Liabilities, "42000 sats owed"), "the late one");
    assert_eq!(shop.audit().await, audit, "it changes nothing");
}

/// Loss prevented: a sale that its machine never reported, taken for done; one that is under way,
/// taken for a loss.
#[tokio::test]
async fn what_is_under_way_waits() {
    let mut shop = Shop::open().await;
    let sale = shop.paid().await;
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(!waits(&audit, Check::Dispense, "not reported"), "not yet");
    // two notes are out, and the report is on its way
    shop.counts.bay -= 2;
    shop.heartbeat(&[], &[sale.quote.txid]).await;
    shop.world.advance(901);
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(waits(&audit, Check::Dispense, "not reported"));
    assert!(waits(&audit, Check::Cash, "is dispensing"), "{:#?}", audit.waiting);
    shop.counts.bay += 2;
    shop.dispensed(&sale, DispenseOutcome::Uncertain, 1).await;
    shop.heartbeat(&[], &[]).await;
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(waits(&audit, Check::Dispense, "nobody knows"));
}

/// Loss prevented: notes that a person put in, or found missing, that no book has; a count that is
/// booked in the middle of a sale and hides what is missing.
#[tokio::test]
async fn what_people_put_in_is_booked_once() {
    let mut shop = Shop::open().await;
    let id = shop.world.machine_id;
    let operator = crate::ids::OperatorId(1);
    let fiat = async |shop: &Shop, account: Account| {
        let unit = crate::ledger::Unit::Fiat("EUR".parse().unwrap());
        shop.world.read(move |read| crate::store::ledger::balance(read, account, unit)).await
    };
    assert_eq!(fiat(&shop, Account::Operator(operator)).await, -240_000);
    let sale = shop.paid().await;
    // counted while a sale was under way: 3 notes are missing
    let counted = shop.wish(None, Action::Set(115)).await;
    shop.counts.bay = 115;
    shop.heartbeat(&[counted], &[sale.quote.txid]).await;
    assert_eq!(fiat(&shop, Account::CashDifference(id)).await, 0, "not yet");
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(waits(&audit, Check::Cash, "not booked yet"), "{:#?}", audit.waiting);
    shop.counts.bay += 2;
    shop.dispensed(&sale, DispenseOutcome::Full, 2).await;
    for _ in 0..2 {
        shop.heartbeat(&[counted], &[]).await;
        assert_eq!(fiat(&shop, Account::CashDifference(id)).await, 6_000, "once");
    }
    assert_eq!(
        fiat(&shop, Account::Bay(id, shop::bay(), crate::rpc::tests::cash_out::note(2_000))).await,
        230_000
    );
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(!waits(&audit, Check::Cash, ""), "{:#?}", audit.waiting);
}

/// Loss prevented: the fee of notes that nobody claimed in time is booked and never distributed.
#[tokio::test]
async fn notes_claimed_late_are_settled_all_the_same() {
    let mut shop = Shop::open().await;
    let withdraw = shop.fed().await;
    shop.heartbeat(&[], &[]).await;
    let app = shop.world.app.clone();
    shop.world.advance(u64::from(app.config.withdraw_expiry_s) + 1);
    crate::payout::tests::round(&app).await.unwrap();
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    assert!(waits(&audit, Check::Liabilities, "19000 sats owed"));
    let k1 = K1::from_bytes([4; 32]);
    let lnurl = crate::lnurl::encode(&app.config.public_base_url, &k1).unwrap();
    let (id, now) = (WithdrawId::from_bytes([5; 16]), app.clock.now());
    let first = withdraw.withdraw_id;
    shop.world
        .write(move |tx| {
            let source = first.to_string();
            let (_, claim, _) = claims::page(tx, 0, 9)?.pop().unwrap();
            let debt = claims::by_source(tx, claims::OwedReason::Unclaimed, &source)?;
            assert_eq!(debt.unwrap().sats, Sats(19_000));
            let claim = claims::by_hash(tx, claim.claim_hash)?.unwrap();
            withdraws::insert_for_claim(tx, claim.id, id, now.after(600), now)?;
            withdraws::issue(tx, id, &k1, now.after(600), now)
        })
        .await;
    let hash = fetched(&shop.world, &Withdraw { lnurl, ..withdraw }).await;
    crate::payout::tests::round(&app).await.unwrap();
    let audit = shop.audit().await;
    assert!(audit.ok, "{:#?}", audit.differences);
    let kept = shop.world.read(move |read| settlements::by_hash(read, hash)).await.unwrap();
    assert_eq!((kept.status, kept.withdraw_id), (SettlementStatus::Accepted, Some(first)));
    assert_eq!(kept.distribution, Distribution::Pending);
}

/// Loss prevented: "all is well" from an audit that could not ask the wallet.
#[tokio::test]
async fn a_wallet_that_does_not_answer_is_a_difference() {
    let shop = Shop::open().await;
    shop.world.app.simulated.as_ref().unwrap().set_reachable(false);
    let audit = shop.audit().await;
    assert!(!audit.ok);
    let one = audit.differences.iter().find(|one| one.subject == "wallet till").unwrap();
    assert!(one.found.contains("cannot be reached"), "{one:?}");
}
