//! The battery on the double, and words that are not LND's.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::double::{MACAROON, start};
use super::*;
use crate::outgoing::testing::Host;
use crate::wallet::battery::{self, Bench, FUNDED, Outside, node};
use crate::wallet::simulated::SimulatedNode;

fn funded() -> SimulatedNode {
    let ours = node(None, 1);
    ours.open_wallet("till", FUNDED.to_msat().unwrap()).unwrap();
    ours
}

fn client(host: &Host, path: &str, macaroon: &str) -> Arc<Lnd> {
    let server = Server::configured(&format!("{}{path}", host.base())).unwrap();
    let macaroon = Secret::new(Zeroizing::new(macaroon.into()));
    Arc::new(Lnd::new("till", server, macaroon, Currency::Regtest, Clock::system()))
}

async fn bench() -> Bench {
    let ours = funded();
    let host = start(&ours).await;
    let outside = Outside::Nodes { ours, theirs: node(None, 2) };
    let mut bench = Bench::connected(client(&host, "", MACAROON), outside).await;
    bench.keeps_extra = false;
    bench.reach = Box::new(move |reachable| {
        let host = host.clone();
        Box::pin(async move { host.reach(reachable).await })
    });
    bench
}

battery::battery_with_faults!(bench);

/// Loss prevented: an invoice of the very node that would pay it is bound to a claim, and its customer
/// waits for its end; or a node that does not tell its key serves nobody.
#[tokio::test]
async fn a_node_tells_its_key_once() {
    let ours = funded();
    let host = start(&ours).await;
    assert_eq!(client(&host, "", "00").own_node().await, None);
    let wallet = client(&host, "", MACAROON);
    host.reach(false).await;
    assert_eq!(wallet.own_node().await, None, "it is away");
    host.reach(true).await;
    assert_eq!(wallet.own_node().await, Some(ours.key()));
    host.reach(false).await;
    assert_eq!(wallet.own_node().await, Some(ours.key()));
}

/// Loss prevented: a proxy's "not found", or a macaroon that LND does not take, is read as "never
/// heard of it", and a payment is made once more.
#[tokio::test]
async fn only_lnds_own_words_make_a_hash_unknown() {
    let host = start(&funded()).await;
    let hash = PaymentHash::from_bytes([1; 32]);
    let right = client(&host, "", MACAROON);
    assert_eq!(right.lookup(hash).await.unwrap(), None);
    assert_eq!(right.lookup_payment(hash).await.unwrap(), None);
    for wrong in [client(&host, "/elsewhere", MACAROON), client(&host, "", "00")] {
        for asked in [wrong.lookup(hash).await, wrong.lookup_payment(hash).await] {
            assert!(asked.is_err(), "{asked:?}");
        }
    }
}
