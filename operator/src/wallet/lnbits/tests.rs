//! The battery on the double, and the traps of LNbits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bitspire_shell::clock::Clock;
use zeroize::Zeroizing;

use super::double::{ADMIN_KEY, Double, INVOICE_KEY, OTHER_KEY};
use super::*;
use crate::wallet::battery::{self, Bench, FUNDED, NOW, Outside, node, request};
use crate::wallet::simulated::Behaviour;

const PATIENCE: Duration = Duration::from_secs(30);

fn secret(text: &str) -> Secret {
    Secret::new(Zeroizing::new(text.into()))
}

fn client(double: &Double, key: &str) -> Arc<Lnbits> {
    let server = Server::configured(&double.host.base()).unwrap();
    let access = Access {
        admin_key: secret(key),
        invoice_key: Some(secret(INVOICE_KEY)),
        network: Currency::Regtest,
    };
    Arc::new(Lnbits::new("till", server, access, Clock::new(|| NOW)))
}

async fn double() -> Double {
    let ours = node(None, 1);
    ours.open_wallet("till", FUNDED.to_msat().unwrap()).unwrap();
    Double::start(&ours).await
}

async fn bench() -> Bench {
    let double = double().await;
    let outside = Outside::Nodes { ours: double.node().clone(), theirs: node(None, 2) };
    let mut bench = Bench::connected(client(&double, ADMIN_KEY), outside).await;
    let host = double.host.clone();
    bench.reach = Box::new(move |reachable| {
        let host = host.clone();
        Box::pin(async move { host.reach(reachable).await })
    });
    bench
}

battery::battery_with_faults!(bench);

async fn pay(wallet: &Lnbits, bolt11: &str) -> Result<PayState, WalletError> {
    wallet.pay(bolt11.to_owned(), Sats(5), json!({})).await
}

/// Loss prevented: "Insufficient balance." for a second request is taken for the end of the first
/// payment, which took that balance, and the customer is paid again.
#[tokio::test]
async fn an_errors_words_are_not_the_payments_end() {
    let (double, theirs) = (double().await, node(None, 2));
    let wallet = client(&double, ADMIN_KEY);
    let invoice = theirs.wallet("c").make_invoice(request(99_000)).await.unwrap();
    for behaviour in [Behaviour::LoseAnswer, Behaviour::Succeed] {
        double.node().script([behaviour]);
        match (behaviour, wallet.pay(invoice.bolt11.clone(), Sats(495), json!({})).await) {
            (Behaviour::LoseAnswer, Err(WalletError::Unknown { .. })) => {}
            (Behaviour::Succeed, Ok(PayState::Succeeded { amount: Msat(99_000_000), .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wallet.failures(), FailureRule::TwiceAfterExpiry);
}

/// Loss prevented: a proxy's error is taken for the wallet's refusal.
#[tokio::test]
async fn a_bad_gateway_is_unknown() {
    let (double, theirs) = (double().await, node(None, 2));
    let wallet = client(&double, ADMIN_KEY);
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    double.faults().bad_gateway.store(true, Ordering::SeqCst);
    let unclear = pay(&wallet, &invoice.bolt11).await;
    assert!(matches!(unclear, Err(WalletError::Unknown { .. })), "{unclear:?}");
    assert!(matches!(pay(&wallet, &invoice.bolt11).await, Ok(PayState::Succeeded { .. })));
}

/// Loss prevented: a wallet that was given another key "never heard" of a payment that it made, so
/// that it is paid once more.
#[tokio::test]
async fn a_wrong_key_is_no_answer() {
    let (double, theirs) = (double().await, node(None, 2));
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    pay(&client(&double, ADMIN_KEY), &invoice.bolt11).await.unwrap();
    let wrong = client(&double, "no key of any wallet");
    let (hash, all) = (invoice.payment_hash, Cursor::default());
    let refusals = [
        wrong.lookup_payment(hash).await.err(),
        wrong.lookup(hash).await.err(),
        wrong.list(all).await.err(),
        wrong.balance().await.err(),
        pay(&wrong, &invoice.bolt11).await.err(),
        wrong.make_invoice(request(1)).await.err(),
    ];
    for refused in refusals {
        assert!(matches!(refused, Some(WalletError::Refused { .. })), "{refused:?}");
        assert!(!format!("{refused:?} {wrong:?}").contains("no key of any"), "{refused:?}");
    }
    // a key of the wrong wallet is a wallet, and it never paid this
    let other = client(&double, OTHER_KEY);
    assert_eq!(other.lookup_payment(hash).await.unwrap(), None);
}

/// Loss prevented: a new LNbits answers with its set-up page, and that counts as a wallet's word.
#[tokio::test]
async fn before_its_first_user_nothing_is_known() {
    let (double, theirs) = (double().await, node(None, 2));
    let wallet = client(&double, ADMIN_KEY);
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    double.faults().first_install.store(true, Ordering::SeqCst);
    for refused in [
        wallet.lookup_payment(invoice.payment_hash).await.err(),
        pay(&wallet, &invoice.bolt11).await.err(),
        wallet.make_invoice(request(1)).await.err(),
    ] {
        assert!(
            matches!(&refused, Some(WalletError::Unreachable { reason, .. }) if reason.contains("not set up")),
            "{refused:?}"
        );
    }
}

/// Loss prevented: routing eats the sale, because LNbits' own limit is above ours.
#[tokio::test]
async fn a_reserve_above_the_limit_is_refused_before_anything_is_paid() {
    let (double, theirs) = (double().await, node(None, 2));
    let wallet = client(&double, ADMIN_KEY);
    let invoice = theirs.wallet("c").make_invoice(request(1_000)).await.unwrap();
    double.faults().reserve_min.store(5_001, Ordering::SeqCst);
    let refused = pay(&wallet, &invoice.bolt11).await;
    assert!(
        matches!(&refused, Err(WalletError::Refused { reason, .. }) if reason.contains("LNBITS_RESERVE_FEE_MIN")),
        "{refused:?}"
    );
    assert_eq!(wallet.lookup_payment(invoice.payment_hash).await.unwrap(), None);
    double.faults().reserve_min.store(5_000, Ordering::SeqCst);
    assert!(matches!(pay(&wallet, &invoice.bolt11).await, Ok(PayState::Succeeded { .. })));
}

async fn next(hints: &mut broadcast::Receiver<Hint>) -> Hint {
    tokio::time::timeout(PATIENCE, hints.recv()).await.expect("a hint in time").unwrap()
}

/// Loss prevented: notes for a message that anybody can send.
#[tokio::test]
async fn a_forged_message_is_a_hint_and_nothing_more() {
    let bench = bench().await;
    let Outside::Nodes { ours, .. } = &bench.outside else { unreachable!() };
    let double = Double::start(ours).await;
    let wallet = client(&double, ADMIN_KEY);
    let mut hints = wallet.watch();
    let stop = CancellationToken::new();
    let listening = tokio::spawn({
        let (wallet, stop) = (wallet.clone(), stop.clone());
        async move { wallet.listen(stop).await }
    });
    assert_eq!(next(&mut hints).await, Hint::Missed, "whatever came before is in the list");
    let made = wallet.make_invoice(request(1_000)).await.unwrap();
    let hash = made.payment_hash;
    for data in [
        "no JSON",
        "{\"payment\":{\"payment_hash\":7}}",
        &format!(
            "{{\"payment\":{{\"payment_hash\":\"{hash}\",\"status\":\"success\",\"amount\":1000000}}}}"
        ),
    ] {
        let data: String = data.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/ws/{INVOICE_KEY}?data={data}");
        let server = Server::configured(&double.host.base()).unwrap();
        server.send(Ask::post(path, &Value::Null)).await.unwrap();
    }
    assert_eq!(next(&mut hints).await, Hint::Payment(hash));
    let found = wallet.lookup(hash).await.unwrap().unwrap();
    assert_eq!(found.state, PayState::Pending);
    // what happens while nobody listens is told by the list
    let (_, cursor) = wallet.list(Cursor::default()).await.unwrap();
    double.deaf(true);
    ours.customer_pays(&made.bolt11, None).unwrap();
    double.deaf(false);
    assert_eq!(next(&mut hints).await, Hint::Missed);
    let (changed, _) = wallet.list(cursor).await.unwrap();
    let paid = changed.iter().find(|payment| payment.payment_hash == hash).unwrap();
    assert!(matches!(paid.state, PayState::Succeeded { .. }));
    stop.cancel();
    listening.await.unwrap();
}

/// Loss prevented: LNbits' clock ran ahead for an hour, and every payment of the next one is passed
/// over.
#[tokio::test]
async fn a_wallets_clock_moves_no_cursor_beyond_now() {
    let double = double().await;
    let wallet = client(&double, ADMIN_KEY);
    double.faults().ahead_s.store(3_600, Ordering::SeqCst);
    wallet.make_invoice(request(1)).await.unwrap();
    let (listed, cursor) = wallet.list(Cursor::default()).await.unwrap();
    assert_eq!((listed.len(), cursor), (1, Cursor(NOW.0 * 1_000_000)));
    assert_eq!(wallet.list(cursor).await.unwrap(), (listed, cursor), "told again until it is past");
}
