//! Payments that are looked at with their settlements, and those that are not.

use bitspire_shared::money::Direction;

use super::planted::{finds, first};
use super::shop::Shop;
use crate::audit;
use crate::audit::report::Check;
use crate::store::settlements::{self, SettlementStatus};
use crate::store::{StoreError, damage};
use crate::wallet::{Flow, PayState};

/// A second entry of a payment that is settled.
const TWICE: &[&str] = &["INSERT INTO ledger_entries (at, kind, reference, lines)
                 SELECT at, 'suspended', reference, lines FROM ledger_entries
                 WHERE kind = 'settled' LIMIT 1"];

/// Loss prevented: a payment that is held against its settlement alone, where more is booked of it than
/// that, or while the wallet changes it: a balance that seems wrong, or a wrong one that does not.
#[tokio::test]
async fn what_is_booked_beside_a_sale_counts_and_what_moved_waits() {
    let shop = Shop::busy().await;
    let given = shop.given().await;
    let audit = shop.damaged(&given, TWICE).await;
    assert!(finds(&audit, Check::Ledger, "none for entry suspended"), "{:#?}", audit.differences);
    assert!(!finds(&audit, Check::Wallet, "balance of wallet"), "{:#?}", audit.differences);

    let mut told = given.clone();
    let till = told.wallets.get_mut("till").unwrap();
    let payment = first(till, Flow::Inbound);
    payment.state = PayState::Failed;
    let hash = payment.payment_hash;
    till.moved.insert(hash);
    let audit = shop.damaged(&told, &[]).await;
    assert!(audit.ok, "{:#?}", audit.differences);
    let waits = |reason: &str| audit.waiting.iter().any(|one| one.reason.contains(reason));
    assert!(waits("moved while the audit looked"), "{:#?}", audit.waiting);
}

/// Loss prevented: a sale that is said to hold, of which its wallet tells another amount.
#[tokio::test]
async fn one_settlement_is_held_against_what_its_wallet_says() {
    let shop = Shop::busy().await;
    let app = &shop.world.app;
    let sold = shop.world.read(|read| settlements::newest(read, None, None, None, 100)).await;
    let plain = sold.iter().find(|kept| {
        kept.direction == Direction::CashOut && kept.status == SettlementStatus::Accepted
    });
    let id = plain.unwrap().id;
    let good = audit::settlement(app, id).await.unwrap().unwrap();
    assert!(good.ok, "{:#?}", good.differences);
    let more = format!("UPDATE settlements SET wire_sats = wire_sats + 1 WHERE id = {}", id.0);
    shop.world.write(move |tx| damage(tx, &[more.as_str()])).await;
    let bad = audit::settlement(app, id).await.unwrap().unwrap();
    assert!(finds(&bad, Check::Wallet, "sats of cash_out"), "{:#?}", bad.differences);
}

/// A quote and an invoice that nobody sold by, and which do not read.
const BESIDE: &[&str] = &[
    "INSERT INTO quotes SELECT substr(quote_id, 1, 31) || 'g', machine_id,
         substr(request_id, 1, 31) || 'g', txid, claim_hash, direction, fiat_minor, fiat_code,
         rate_nano, sources, platform_fee_ppm, operator_fee_ppm, fees_event_id, principal_sats,
         fee_sats, wire_sats, ttl_s, quote_sig, created_at, expires_at, 0, NULL
     FROM quotes WHERE direction = 'cash_out' ORDER BY rowid LIMIT 1",
    "INSERT INTO invoices SELECT substr(quote_id, 1, 31) || 'g', machine_id,
         substr(txid, 1, 31) || 'g', substr(payment_hash, 1, 63) || 'g', bolt11, wire_sats, stamp,
         request_event_id, request_event, created_at, expires_at, 'expired'
     FROM invoices ORDER BY rowid LIMIT 1",
];

/// Loss prevented: an audit that ends without a word, since a row that nobody asked for does not read; or
/// one that goes on without a row that it needs.
#[tokio::test]
async fn what_lies_beside_a_row_ends_no_audit_and_the_row_itself_does() {
    let shop = Shop::busy().await;
    let given = shop.given().await;
    let audit = shop.damaged(&given, BESIDE).await;
    assert!(audit.ok, "{:#?}", audit.differences);
    let broken = ["UPDATE quotes SET quote_sig = 'g' WHERE quote_id IN
                   (SELECT quote_id FROM settlements)"];
    let id = shop.world.read(|read| settlements::newest(read, None, None, None, 100)).await;
    let id = id.iter().find(|kept| kept.quote_id.is_some()).unwrap().id;
    shop.world.write(move |tx| damage(tx, &broken)).await;
    let ended = audit::settlement(&shop.world.app, id).await.unwrap_err();
    assert!(matches!(&ended, StoreError::Column { column, .. } if column == "quote_sig"));
}
