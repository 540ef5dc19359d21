//! Payments whose end the wallet never tells: a person's word, and what it takes.

use nostr::hashes::Hash as _;

use super::super::close::{CloseError, MARGIN_S, Word, close};
use super::*;
use crate::payout::{TOLD_AFTER_S, WAITING};
use crate::store::log;

/// A claim whose payment went out (or not), in a wallet that looks up its own invoices only.
async fn held(paid: bool) -> (World, PaymentHash, String) {
    let mut world = World::new().await;
    world.invoices_only();
    let k1 = world.k1().await;
    let invoice = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
    let behaviour = if paid { Behaviour::LoseAnswer } else { Behaviour::Fail };
    world.app().simulated.as_ref().unwrap().script([behaviour]);
    // whatever became of it, the first answer is lost
    round(world.app()).await.unwrap();
    let hash = hash_of(&invoice);
    (world, hash, invoice)
}

async fn say(world: &World, hash: PaymentHash, word: Word) -> Result<(), CloseError> {
    close(world.app(), ("cli", None), hash, word, "looked into the wallet").await
}

/// Loss prevented: a customer who is paid twice because somebody said too early, or of a wallet that
/// tells it itself, that they were not paid.
#[tokio::test]
async fn not_paid_is_believed_late_and_of_a_silent_wallet_only() {
    let (world, hash, _) = held(true).await;
    let early = say(&world, hash, Word::NotPaid).await;
    assert!(matches!(early, Err(CloseError::Early { .. })), "{early:?}");
    world.now.store(NOW + 3_601 + MARGIN_S, Ordering::SeqCst);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Unknown]);
    let none = close(world.app(), ("cli", None), hash, Word::NotPaid, " ").await;
    assert!(matches!(none, Err(CloseError::NoReason)), "{none:?}");
    say(&world, hash, Word::NotPaid).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Failed]);
    let again = say(&world, hash, Word::NotPaid).await;
    assert!(matches!(again, Err(CloseError::Ended { .. })), "{again:?}");
    assert_ne!(world.balance(Account::Owed(MachineId(1))).await, 0, "it stays owed");

    let mut world = world;
    world.restart();
    let k1 = world.k1().await;
    let second = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &second)).await["status"], "OK");
    world.app().simulated.as_ref().unwrap().script([Behaviour::Pend]);
    round(world.app()).await.unwrap();
    world.now.fetch_add(4_000 + MARGIN_S, Ordering::SeqCst);
    let tells = say(&world, hash_of(&second), Word::NotPaid).await;
    assert!(matches!(tells, Err(CloseError::Tells(_))), "{tells:?}");
}

/// Loss prevented: a debt that is written off by a preimage that proves nothing; one that stays open
/// though its customer was paid.
#[tokio::test]
async fn paid_needs_the_preimage() {
    let (world, hash, _) = held(true).await;
    let word = Word::Paid { preimage: [9; 32], routing: Sats(3) };
    let wrong = say(&world, hash, word).await;
    assert!(matches!(wrong, Err(CloseError::Preimage(_))), "{wrong:?}");
    assert_eq!(world.attempts().await, [PaymentState::Unknown]);
    let other = PaymentHash::from_bytes([1; 32]);
    let none = say(&world, other, Word::NotPaid).await;
    assert!(matches!(none, Err(CloseError::None(_))), "{none:?}");
}

/// An invoice of the customer's whose preimage is known here.
fn known_invoice(preimage: [u8; 32]) -> String {
    let key = nostr::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
    lightning_invoice::InvoiceBuilder::new(lightning_invoice::Currency::Regtest)
        .description("wallet".into())
        .payment_hash(nostr::hashes::sha256::Hash::hash(&preimage))
        .payment_secret(lightning_invoice::PaymentSecret([7; 32]))
        .duration_since_epoch(std::time::Duration::from_secs(NOW))
        .min_final_cltv_expiry_delta(18)
        .expiry_time(std::time::Duration::from_secs(3_600))
        .amount_milli_satoshis(OWED.0 * 1_000)
        .build_signed(|digest| nostr::SECP256K1.sign_ecdsa_recoverable(digest, &key))
        .unwrap()
        .to_string()
}

/// Loss prevented: the books have a debt that was paid, because no wallet says so.
#[tokio::test]
async fn what_was_paid_is_booked_by_its_preimage() {
    let mut world = World::new().await;
    world.invoices_only();
    let (k1, preimage) = (world.k1().await, [5; 32]);
    let invoice = known_invoice(preimage);
    assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
    world.app().simulated.as_ref().unwrap().script([Behaviour::LoseAnswer]);
    round(world.app()).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Unknown]);
    let word = Word::Paid { preimage, routing: Sats(3) };
    say(&world, hash_of(&invoice), word).await.unwrap();
    assert_eq!(world.attempts().await, [PaymentState::Succeeded]);
    assert_eq!(world.balance(Account::Owed(MachineId(1))).await, 0);
    assert_eq!(world.balance(Account::RoutingFees(MachineId(1))).await, 3);
    let left = world.app().wallets["till"].balance().await.unwrap();
    assert_eq!(left, Msat((1_000_000 - OWED.0 - 3) * 1_000));
}

/// Loss prevented: a customer stands there for hours while a wallet holds their sats back, and the
/// operator hears of it from them.
#[tokio::test]
async fn a_payout_that_does_not_end_is_told_once() {
    let mut world = World::new().await;
    let k1 = world.k1().await;
    let invoice = world.invoice(OWED.0).await;
    assert_eq!(world.json(&callback(&k1, &invoice)).await["status"], "OK");
    world.app().simulated.as_ref().unwrap().script([Behaviour::Pend]);
    for (second, times) in [(0, 0), (TOLD_AFTER_S, 0), (TOLD_AFTER_S + 1, 1), (TOLD_AFTER_S + 9, 1)]
    {
        world.now.store(NOW + second, Ordering::SeqCst);
        round(world.app()).await.unwrap();
        let tail = |read: &Read<'_>| log::of_action(read, WAITING, None);
        let told = world.app().store.read::<_, StoreError, _>(tail).await.unwrap();
        assert_eq!(told.len(), times, "after {second} s");
        world.restart();
    }
    let node = world.app().simulated.clone().unwrap();
    node.resolve("till", hash_of(&invoice), true).unwrap();
    round(world.app()).await.unwrap();
    world.deliver(&invoice).await;
    world.assert_paid_once().await;
}
