//! The battery on the double, and what a reply is worth.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitspire_shared::money::Direction;
use bitspire_shared::rpc::Push;
use lightning_invoice::{InvoiceBuilder, PaymentSecret};

use super::double::Double;
use super::*;
use crate::ledger::Account;
use crate::rpc::tests::cash_in::{claim, fetched};
use crate::rpc::tests::cash_out::{loaded, offered, settlement};
use crate::rpc::tests::trading_with;
use crate::signer::cipher::Encryption;
use crate::store::settlements::{self, SettlementStatus};
use crate::wallet::battery::{self, Bench, FUNDED, Outside, node};
use crate::wallet::simulated::SimulatedNode;

fn funded() -> SimulatedNode {
    let ours = node(None, 1);
    ours.open_wallet("till", FUNDED.to_msat().unwrap()).unwrap();
    ours
}

fn client(double: &Double) -> Arc<Nwc> {
    Arc::new(Nwc::new("till", double.parsed(), Currency::Regtest, Clock::system()))
}

async fn bench_in(encryption: Encryption) -> Bench {
    let ours = funded();
    let double = Arc::new(Double::start(&ours, encryption).await);
    let wallet = client(&double);
    let outside = Outside::Nodes { ours, theirs: node(None, 2) };
    let mut bench = Bench::connected(wallet.clone(), outside).await;
    // whoever is not there yet hears no hint
    wallet.balance().await.unwrap();
    bench.keeps_extra = false;
    bench.reach = Box::new(move |reachable| {
        let (double, wallet) = (double.clone(), wallet.clone());
        Box::pin(async move {
            double.reach(reachable).await;
            while (wallet.line.connected().await > 0) != reachable {
                tokio::task::yield_now().await;
            }
            while reachable && wallet.balance().await.is_err() {}
        })
    });
    bench
}

async fn bench() -> Bench {
    bench_in(Encryption::Nip44).await
}

battery::battery!(bench);
battery::battery! { bench;
    /// Loss prevented: an invoice paid twice because the first answer was lost.
    a_lost_answer_is_unknown
    /// Loss prevented: "pending" or "unreachable" read as "failed", and paid again elsewhere.
    only_failed_is_failed
}

/// Loss prevented: a wallet that knows only the older encryption is one that never answers.
#[tokio::test]
async fn a_wallet_without_nip44_is_spoken_to_in_nip04() {
    battery::an_invoice_round_trips(&bench_in(Encryption::Nip04).await).await;
}

/// Loss prevented: "paid" without proof, or an answer that proves it and is not believed.
#[tokio::test]
async fn a_preimage_proves_a_payment_and_nothing_else_does() {
    let double = Double::start(&funded(), Encryption::Nip44).await;
    let bench =
        Bench::new(client(&double), Outside::Nodes { ours: node(None, 3), theirs: node(None, 2) });
    double.faults.forgetful.store(true, Ordering::SeqCst);
    for proven in [true, false] {
        let preimage = [u8::from(proven) + 7; 32];
        let hash = sha256::Hash::hash(&preimage);
        let key = nostr::secp256k1::SecretKey::from_slice(&[2; 32]).unwrap();
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description(String::new())
            .payment_hash(hash)
            .payment_secret(PaymentSecret([1; 32]))
            .duration_since_epoch(std::time::Duration::from_secs(battery::NOW.0))
            .min_final_cltv_expiry_delta(18)
            .amount_milli_satoshis(5_000_000)
            .build_signed(|digest| nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key))
            .unwrap();
        if proven {
            let text = bitspire_shared::ids::to_hex(&preimage);
            let hash = PaymentHash::from_bytes(hash.to_byte_array());
            double.faults.preimages.lock().unwrap().insert(hash, text);
        }
        match (proven, bench.wallet.pay(invoice.to_string(), Sats(5), json!({})).await) {
            (true, Ok(PayState::Succeeded { amount, fee, .. })) => {
                assert_eq!((amount, fee), (Msat(5_000_000), Msat(2_000)));
            }
            (false, Err(WalletError::Unknown { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Loss prevented: a wallet whose look-up knows incoming payments only has paid, is understood as
/// one that never did, and the customer is paid a second time.
#[tokio::test]
async fn a_payment_that_the_look_up_does_not_tell_is_unknown() {
    let ours = funded();
    let double = Double::start(&ours, Encryption::Nip44).await;
    let (theirs, wallet) = (node(None, 2), client(&double));
    let bench = Bench::new(wallet.clone(), Outside::Nodes { ours: ours.clone(), theirs });
    let (bolt11, hash, _) = bench.elsewhere(1_000).await;
    ours.script([crate::wallet::simulated::Behaviour::LoseAnswer]);
    let lost = wallet.pay(bolt11, Sats(5), json!({})).await;
    assert!(matches!(lost, Err(WalletError::Unknown { .. })), "{lost:?}");
    assert!(!wallet.absence_is_final());
    double.faults.mistyped.store(true, Ordering::SeqCst);
    let told = wallet.lookup_payment(hash).await;
    assert!(matches!(told, Err(WalletError::Unknown { .. })), "{told:?}");
    double.faults.forgetful.store(true, Ordering::SeqCst);
    assert_eq!(wallet.lookup_payment(hash).await.unwrap(), None);
}

/// Loss prevented: a wallet that keeps nothing beside its payments sells no notes and pays for none.
#[tokio::test]
async fn sales_settle_by_our_own_request() {
    let ours = funded();
    let double = Double::start(&ours, Encryption::Nip44).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("uri");
    bitspire_shell::secrets::write_private(&file, double.uri.as_bytes()).unwrap();
    let table = format!("kind = 'nwc'\nkey_file = '{}'\nnetwork = 'regtest'\n", file.display());
    let (world, mut machine) = trading_with(&table).await;
    loaded(&world).await;
    let id = world.machine_id;

    let sale = offered(&mut machine, 5_000).await;
    ours.customer_pays(&sale.invoice.bolt11, None).unwrap();
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert!(machine.is_leave(&sale.quote, sale.invoice.payment_hash, &push.authorisation));
    assert_eq!(settlement(&world, &sale).await.status, SettlementStatus::Accepted);

    let asked = machine.quote(Direction::CashIn, 2_000);
    let quote = machine.ask(asked).await.unwrap();
    let body = claim(&mut machine, &quote, asked.claim_hash, &[(2_000, 1)], &[]);
    let withdraw = machine.ask(machine.signed(body)).await.unwrap();
    let hash = fetched(&world, &withdraw).await;
    crate::payout::tests::round(&world.app).await.unwrap();
    let till = world.app.wallets["till"].clone();
    crate::settle::reconcile(&world.app, &*till).await.unwrap();
    let kept = world.read(move |read| settlements::by_hash(read, hash)).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Accepted, "{:?}", kept.reason);
    assert_eq!(world.balance(Account::CustomerLiability(id)).await, 0);
    assert_eq!(world.balance(Account::RoutingFees(id)).await, 2);
    assert_eq!(world.balance(Account::Wallet(id)).await, 52_500 - 19_000 - 2);
    world.books_hold().await;
}
