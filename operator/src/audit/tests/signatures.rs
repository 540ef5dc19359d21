//! Signatures that are looked at many at a time.

use bitspire_shared::batch::Signed;
use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::QuoteId;
use nostr::Keys;

use super::super::report::Check;
use super::super::signatures::{Signatures, What};
use super::planted::finds;
use super::shop::Shop;
use crate::rpc::tests::key;

/// The machine has another key now, the generator of the curve; it had its own one before.
const PAIRED_AGAIN: [&str; 2] = [
    "INSERT INTO pairing_attempts (machine_id, number, key_name, requested_by, relays,
         duration_hours, step, spire_key, started_at, updated_at)
     SELECT id, 1, 'before', 'cli', '[]', 1, 'old_revoked', machine_npub, 0, 0 FROM machines
     WHERE machine_npub IS NOT NULL",
    "UPDATE machines SET
         machine_npub = '79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
     WHERE machine_npub IS NOT NULL",
];
/// Another signature of the same key under a request.
const FORGED: &[&str] = &["UPDATE invoices SET request_event = json_set(request_event, '$.sig',
         (SELECT json_extract(other.request_event, '$.sig') FROM invoices AS other
          WHERE other.payment_hash <> invoices.payment_hash))"];

/// Loss prevented: an operator who is told that all sales before a machine was paired again are forged;
/// or one who is not told that a quote of that time is.
#[tokio::test]
async fn quotes_of_an_earlier_pairing_hold_and_changed_ones_do_not() {
    let shop = Shop::busy().await;
    let given = shop.given().await;
    let audit = shop.damaged(&given, &PAIRED_AGAIN).await;
    assert!(audit.ok, "{:#?}", audit.differences);
    const CHANGED: [&str; 3] = [
        PAIRED_AGAIN[0],
        PAIRED_AGAIN[1],
        "UPDATE quotes SET ttl_s = ttl_s + 1 WHERE direction = 'cash_out'",
    ];
    let audit = shop.damaged(&given, &CHANGED).await;
    assert!(finds(&audit, Check::Requests, "quote_sig"), "{:#?}", audit.differences);
    // where nothing tells which pairing it was, each of them is tried
    const NOT_TOLD: [&str; 3] =
        [PAIRED_AGAIN[0], PAIRED_AGAIN[1], "UPDATE invoices SET stamp = '{}'"];
    let audit = shop.damaged(&given, &NOT_TOLD).await;
    assert!(finds(&audit, Check::Requests, "stamp of"), "{:#?}", audit.differences);
    assert!(!finds(&audit, Check::Requests, "quote_sig"), "{:#?}", audit.differences);
}

/// Loss prevented: a request that somebody made up from parts of others.
#[tokio::test]
async fn a_request_under_another_ones_signature_is_found() {
    let shop = Shop::busy().await;
    let given = shop.given().await;
    let audit = shop.damaged(&given, FORGED).await;
    let found = finds(&audit, Check::Requests, "an event whose id or signature does not hold");
    assert!(found, "{:#?}", audit.differences);
}

/// Loss prevented: of thousands of signatures another one is told as forged than the one that is.
#[test]
fn what_was_put_in_is_told_by_its_own_name() {
    let (ours, other) = (Keys::generate(), Keys::generate());
    let mut signatures = Signatures::default();
    let name = |n: u16| QuoteId::from_bytes([n.to_be_bytes(); 8].concat().try_into().unwrap());
    for n in 0..5_000 {
        let (text, by) = (n.to_string(), if n % 1_000 == 7 { &other } else { &ours });
        let signed = Signed::text(&text, key(&ours), Sig::over(&text, by));
        signatures.put(signed, What::Quote(name(n)));
    }
    assert!(signatures.are_many());
    let told: Vec<_> = signatures.failing().unwrap();
    assert_eq!(told, [7, 1_007, 2_007, 3_007, 4_007].map(|n| What::Quote(name(n))));
    assert!(!signatures.are_many() && signatures.failing().unwrap().is_empty());
}
