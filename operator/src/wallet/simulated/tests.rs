//! The battery on the simulated node, and what is the node's own: restarts, internal payments.

use serde_json::json;

use super::*;
use crate::wallet::battery::{self, Bench, FUNDED, Outside, node, request};

impl SimulatedNode {
    /// What its invoices are signed with.
    pub(crate) fn key(&self) -> nostr::secp256k1::PublicKey {
        self.0.key.public_key(nostr::SECP256K1)
    }
}

async fn bench() -> Bench {
    let (ours, theirs) = (node(None, 1), node(None, 2));
    ours.open_wallet("till", FUNDED.to_msat().unwrap()).unwrap();
    let wallet = Arc::new(ours.wallet("till"));
    let mut bench = Bench::new(wallet, Outside::Nodes { ours: ours.clone(), theirs });
    bench.reach = Box::new(move |reachable| {
        ours.set_reachable(reachable);
        Box::pin(std::future::ready(()))
    });
    bench
}

battery::battery_with_faults!(bench);

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

/// Loss prevented: an internal payment that leaves one wallet and reaches none; an invoice paid
/// twice.
#[tokio::test]
async fn wallets_of_one_node_pay_each_other() {
    let node = node(None, 1);
    node.open_wallet("from", Msat(5_000_000)).unwrap();
    let (from, to) = (node.wallet("from"), node.wallet("to"));
    let invoice = to.make_invoice(request(3_000)).await.unwrap();
    let paid = from.pay(invoice.bolt11.clone(), Sats(0), json!({})).await.unwrap();
    assert!(matches!(paid, PayState::Succeeded { fee: Msat(0), .. }));
    assert!(node.customer_pays(&invoice.bolt11, None).is_err(), "paid once");
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
