//! What every wallet must do: one battery, run on each implementation.

use serde_json::json;

use super::simulated::{Behaviour, SimulatedNode};
use super::*;
use bitspire_shell::clock::Clock;

fn node(file: Option<std::path::PathBuf>, key: u8) -> SimulatedNode {
    let key = nostr::secp256k1::SecretKey::from_slice(&[key; 32]).unwrap();
    SimulatedNode::open(file, key, Sats(2), Clock::new(|| Unix(1_800_000_000))).unwrap()
}

fn request(sats: u64) -> InvoiceRequest {
    InvoiceRequest {
        amount: Sats(sats),
        memo: "20.00 EUR".into(),
        expiry_s: 600,
        extra: json!({"source": "bitspire", "txid": "00"}),
    }
}

/// Loss prevented: an invoice for another amount, or a stamp that does not come back.
#[tokio::test]
async fn an_invoice_round_trips() {
    let node = node(None, 1);
    let wallet = node.wallet("w1");
    let invoice = wallet.make_invoice(request(1_234)).await.unwrap();
    let parsed: lightning_invoice::Bolt11Invoice = invoice.bolt11.parse().unwrap();
    assert_eq!(parsed.amount_milli_satoshis(), Some(1_234_000));
    assert_eq!(invoice.expires_at, Unix(1_800_000_600));
    let found = wallet.lookup(invoice.payment_hash).await.unwrap().unwrap();
    assert_eq!((found.flow, found.state), (Flow::Inbound, PayState::Pending));
    assert_eq!(found.extra["source"], "bitspire");
    let mut hints = wallet.watch();
    node.customer_pays(&invoice.bolt11, None).unwrap();
    assert_eq!(hints.recv().await.unwrap(), invoice.payment_hash);
    let found = wallet.lookup(invoice.payment_hash).await.unwrap().unwrap();
    assert!(matches!(found.state, PayState::Succeeded { amount: Msat(1_234_000), .. }));
    assert_eq!(wallet.balance().await.unwrap(), Msat(1_234_000));
    assert!(node.customer_pays(&invoice.bolt11, None).is_err(), "paid once");
}

/// Loss prevented: an invoice paid twice because the first answer was lost.
#[tokio::test]
async fn a_lost_answer_is_unknown_and_paying_again_pays_once() {
    let (ours, theirs) = (node(None, 1), node(None, 2));
    ours.open_wallet("w1", Msat(10_000_000)).unwrap();
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    let wallet = ours.wallet("w1");
    ours.script([Behaviour::LoseAnswer]);
    let lost = wallet.pay(invoice.bolt11.clone(), Sats(5), json!({})).await;
    assert!(matches!(lost, Err(WalletError::Unknown { .. })), "{lost:?}");
    let again = wallet.pay(invoice.bolt11, Sats(5), json!({})).await.unwrap();
    assert!(matches!(again, PayState::Succeeded { fee: Msat(2_000), .. }));
    assert_eq!(wallet.balance().await.unwrap(), Msat(10_000_000 - 1_000_000 - 2_000));
}

/// Loss prevented: "pending" or "unreachable" read as "failed", and paid again elsewhere.
#[tokio::test]
async fn only_failed_is_failed() {
    let (ours, theirs) = (node(None, 1), node(None, 2));
    ours.open_wallet("w1", Msat(10_000_000)).unwrap();
    let wallet = ours.wallet("w1");
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    let pay = || wallet.pay(invoice.bolt11.clone(), Sats(5), json!({}));
    ours.set_reachable(false);
    assert!(matches!(pay().await, Err(WalletError::Unreachable { .. })));
    ours.set_reachable(true);
    assert_eq!(wallet.lookup(invoice.payment_hash).await.unwrap(), None, "nothing was done");
    ours.script([Behaviour::Pend]);
    assert_eq!(pay().await.unwrap(), PayState::Pending);
    assert_eq!(pay().await.unwrap(), PayState::Pending);
    ours.resolve("w1", invoice.payment_hash, false).unwrap();
    assert_eq!(pay().await.unwrap(), PayState::Failed);
    assert_eq!(wallet.balance().await.unwrap(), Msat(10_000_000));
}

/// Loss prevented: a payment beyond the balance or the fee limit goes out.
#[tokio::test]
async fn limits_are_refusals_without_effect() {
    let (ours, theirs) = (node(None, 1), node(None, 2));
    ours.open_wallet("w1", Msat(1_001_000)).unwrap();
    let wallet = ours.wallet("w1");
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    for limit in [1, 2] {
        let refused = wallet.pay(invoice.bolt11.clone(), Sats(limit), json!({})).await;
        assert!(matches!(refused, Err(WalletError::Refused { .. })), "{refused:?}");
    }
    assert_eq!(wallet.lookup(invoice.payment_hash).await.unwrap(), None);
    assert_eq!(wallet.balance().await.unwrap(), Msat(1_001_000));
}

/// Loss prevented: payments that came in while the service was down are never seen.
#[tokio::test]
async fn the_list_goes_on_from_its_cursor_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.json");
    let (first, second, cursor) = {
        let node = node(Some(file.clone()), 1);
        let wallet = node.wallet("w1");
        let first = wallet.make_invoice(request(1)).await.unwrap();
        let second = wallet.make_invoice(request(2)).await.unwrap();
        let (all, cursor) = wallet.list(Cursor::default()).await.unwrap();
        assert_eq!(all.len(), 2);
        node.customer_pays(&second.bolt11, None).unwrap();
        (first, second, cursor)
    };
    let node = node(Some(file), 1);
    let wallet = node.wallet("w1");
    let (changed, cursor) = wallet.list(cursor).await.unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].payment_hash, second.payment_hash);
    assert_eq!(wallet.list(cursor).await.unwrap(), (vec![], cursor));
    assert!(wallet.lookup(first.payment_hash).await.unwrap().is_some());
    assert_eq!(node.wallet("w2").list(Cursor::default()).await.unwrap().0, vec![]);
}

/// Loss prevented: an internal payment that leaves one wallet and reaches none.
#[tokio::test]
async fn wallets_of_one_node_pay_each_other() {
    let node = node(None, 1);
    node.open_wallet("from", Msat(5_000_000)).unwrap();
    let (from, to) = (node.wallet("from"), node.wallet("to"));
    let invoice = to.make_invoice(request(3_000)).await.unwrap();
    let paid = from.pay(invoice.bolt11, Sats(0), json!({})).await.unwrap();
    assert!(matches!(paid, PayState::Succeeded { fee: Msat(0), .. }));
    assert_eq!(from.balance().await.unwrap(), Msat(2_000_000));
    assert_eq!(to.balance().await.unwrap(), Msat(3_000_000));
    let invoice = to.make_invoice(request(1_000)).await.unwrap();
    node.script([Behaviour::Pend]);
    assert_eq!(from.pay(invoice.bolt11, Sats(0), json!({})).await.unwrap(), PayState::Pending);
    assert!(node.resolve("to", invoice.payment_hash, true).is_err(), "the payer's side ends it");
    node.resolve("from", invoice.payment_hash, true).unwrap();
    assert_eq!(from.balance().await.unwrap(), Msat(1_000_000));
    assert_eq!(to.balance().await.unwrap(), Msat(4_000_000));
}
