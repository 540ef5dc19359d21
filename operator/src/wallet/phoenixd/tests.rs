//! The battery on the double, and what phoenixd leaves unclear.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::double::{Double, PASSWORD};
use super::*;
use crate::wallet::battery::{self, Bench, FUNDED, NOW, Outside, node, request};
use crate::wallet::simulated::SimulatedNode;

fn funded() -> SimulatedNode {
    let ours = node(None, 1);
    ours.open_wallet("till", FUNDED.to_msat().unwrap()).unwrap();
    ours
}

fn client(double: &Double, password: &str) -> Arc<Phoenixd> {
    let server = Server::configured(&double.host.base()).unwrap();
    let password = Secret::new(Zeroizing::new(password.into()));
    Arc::new(Phoenixd::new("till", server, &password, Currency::Regtest, Clock::new(|| NOW)))
}

async fn bench() -> Bench {
    let ours = funded();
    let double = Double::start(&ours).await;
    let outside = Outside::Nodes { ours, theirs: node(None, 2) };
    let mut bench = Bench::connected(client(&double, PASSWORD), outside).await;
    bench.keeps_extra = false;
    bench.reach = Box::new(move |reachable| {
        let host = double.host.clone();
        Box::pin(async move { host.reach(reachable).await })
    });
    bench
}

battery::battery!(bench);
battery::battery! { bench;
    /// Loss prevented: an invoice paid twice because the first answer was lost.
    a_lost_answer_is_unknown
    /// Loss prevented: "pending" or "unreachable" read as "failed", and paid again elsewhere.
    only_failed_is_failed
}

/// Loss prevented: a phoenixd that cannot look payments up says "not found" of one that it made, and
/// it is paid once more.
#[tokio::test]
async fn not_found_counts_only_where_the_question_is_known() {
    let (double, theirs) = (Double::start(&funded()).await, node(None, 2));
    let wallet = client(&double, PASSWORD);
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    assert_eq!(wallet.lookup_payment(invoice.payment_hash).await.unwrap(), None);
    double.inner.old.store(true, Ordering::SeqCst);
    let refused = wallet.lookup_payment(invoice.payment_hash).await;
    assert!(matches!(refused, Err(WalletError::Refused { .. })), "{refused:?}");
    let paid = wallet.pay(invoice.bolt11, Sats(5), Value::Null).await;
    assert!(matches!(paid, Err(WalletError::Unknown { .. })), "{paid:?}");
}

/// Loss prevented: an invoice of the very node that would pay it is bound to a claim, and its customer
/// waits for its end; or a node that does not tell its key serves nobody.
#[tokio::test]
async fn phoenixd_tells_its_key_once() {
    let ours = funded();
    let double = Double::start(&ours).await;
    assert_eq!(client(&double, "guess").own_node().await, None);
    let wallet = client(&double, PASSWORD);
    assert_eq!(wallet.own_node().await, Some(ours.key()));
    double.host.reach(false).await;
    assert_eq!(wallet.own_node().await, Some(ours.key()));
}

/// Loss prevented: a wrong password is a wallet that never heard of a payment; a long memo, no sale.
#[tokio::test]
async fn a_wrong_password_is_no_answer_and_a_long_memo_is_cut() {
    let double = Double::start(&funded()).await;
    let wrong = client(&double, "guess");
    for refused in [
        wrong.lookup_payment(PaymentHash::from_bytes([1; 32])).await.err(),
        wrong.lookup(PaymentHash::from_bytes([1; 32])).await.err(),
        wrong.list(Cursor::default()).await.err(),
    ] {
        assert!(matches!(refused, Some(WalletError::Refused { .. })), "{refused:?}");
        assert!(!format!("{refused:?} {wrong:?}").contains("guess"));
    }
    let long = InvoiceRequest { memo: "ü".repeat(300), ..request(5) };
    client(&double, PASSWORD).make_invoice(long).await.unwrap();
}
