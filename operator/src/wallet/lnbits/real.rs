//! LNbits itself, from PyPI, over its FakeWallet, that calls nobody: the battery, a sale through
//! settlement, and a distribution inside the instance. What FakeWallet
//! cannot show (pending, failed, routing) is the double's.

mod instance;

use std::sync::Arc;

use bitspire_shared::rpc::{DispenseOutcome, Push};
use bitspire_shell::clock::Clock;
use serde_json::json;
use zeroize::Zeroizing;

use self::instance::{Instance, Keys};
use super::*;
use crate::ledger::Account;
use crate::rpc::tests::cash_out::{loaded, offered, report, settlement};
use crate::rpc::tests::{sats, trading_with};
use crate::store::settlements::Distribution;
use crate::wallet::battery::{self, Bench, FUNDED, Outside, request};

impl Instance {
    fn funded(&self, name: &str) -> Keys {
        let keys = self.wallet(name);
        self.fund(&keys, FUNDED.0);
        keys
    }

    fn client(&self, keys: &Keys) -> Arc<Lnbits> {
        let secret = |text: &str| Secret::new(Zeroizing::new(text.to_owned()));
        let access = Access {
            admin_key: secret(&keys.admin),
            invoice_key: Some(secret(&keys.invoice)),
            network: Currency::Bitcoin,
        };
        let server = Server::configured(self.base()).unwrap();
        Arc::new(Lnbits::new("till", server, access, Clock::system()))
    }
}

/// Loss prevented: a wallet that keeps every rule of our own double, and not those of LNbits.
#[tokio::test]
async fn lnbits_itself() {
    let mut instance = tokio::task::spawn_blocking(Instance::start).await.unwrap();
    let nobody = Keys { id: String::new(), admin: "a".into(), invoice: "i".into() };
    let early = instance.client(&nobody).balance().await;
    assert!(
        matches!(&early, Err(WalletError::Unreachable { reason, .. }) if reason.contains("not set up")),
        "{early:?}"
    );
    instance.first_user();
    let other = instance.funded("other");
    let bench = async || {
        let till = instance.client(&instance.funded("till"));
        Bench::connected(till, Outside::Neighbour(instance.client(&other))).await
    };
    battery::an_invoice_round_trips(&bench().await).await;
    battery::a_payment_goes_out_once(&bench().await).await;
    battery::what_cannot_be_paid_is_refused_without_effect(&bench().await).await;
    battery::the_list_tells_what_changed(&bench().await).await;
    a_wrong_key_is_refused(&instance, &nobody).await;
    crate::rates::lnbits_without_providers(instance.base()).await;
    sales(&instance, &instance.client(&other)).await;
}

async fn a_wrong_key_is_refused(instance: &Instance, nobody: &Keys) {
    let wrong = instance.client(nobody);
    let refused = wrong.lookup_payment(PaymentHash::from_bytes([1; 32])).await;
    assert!(matches!(refused, Err(WalletError::Refused { .. })), "{refused:?}");
}

/// A machine whose till is a wallet of the instance: sats for notes, and the platform's share passed
/// on inside the instance.
async fn sales(instance: &Instance, customer: &Lnbits) {
    let keys = instance.wallet("till");
    let files = tempfile::tempdir().unwrap();
    let files = files.path();
    for (name, text) in [("admin", &keys.admin), ("invoice", &keys.invoice)] {
        bitspire_shell::secrets::write_private(&files.join(name), text.as_bytes()).unwrap();
    }
    let table = format!(
        "kind = 'lnbits'\nurl = '{}'\nkey_file = '{2}/admin'\ninvoice_key_file = '{2}/{1}'\n",
        instance.base(),
        "invoice",
        files.display()
    );
    let (world, mut machine) = trading_with(&table).await;
    loaded(&world).await;
    instance.fund(&keys, FUNDED.0);
    let till = world.app.wallets["till"].clone();
    let id = world.machine_id;

    let sale = offered(&mut machine, 5_000).await;
    let paid = customer.pay(sale.invoice.bolt11.clone(), sats(300), json!({})).await.unwrap();
    assert!(matches!(paid, PayState::Succeeded { .. }), "{paid:?}");
    let Push::PaymentSettled(push) = machine.push().await else { panic!() };
    assert!(machine.is_leave(&sale.quote, sale.invoice.payment_hash, &push.authorisation));
    let full = report(&mut machine, &sale, DispenseOutcome::Full, &[(1, 2, 2), (2, 1, 1)], 0);
    machine.ask(full).await.unwrap();
    let kept = settlement(&world, &sale).await;
    assert_eq!(kept.distribution, Distribution::Pending);
    assert_eq!(world.balance(Account::Super).await, -1_000);

    let platform = instance.client(&instance.wallet("platform"));
    let leg = platform.make_invoice(request(1_000)).await.unwrap();
    let passed_on = till.pay(leg.bolt11, sats(5), json!({"leg": "super"})).await.unwrap();
    assert!(matches!(passed_on, PayState::Succeeded { fee: Msat::ZERO, .. }), "{passed_on:?}");
    assert_eq!(platform.balance().await.unwrap(), Msat(1_000_000));
    crate::settle::reconcile(&world.app, &*till).await.unwrap();
    // what the wallet was given is there as well: nobody asked for it, so it waits in suspense
    let booked = world.balance(Account::Wallet(id)).await;
    let held = till.balance().await.unwrap().to_sats_floor();
    assert_eq!((booked, held), (100_000 + 52_500, sats(100_000 + 52_500 - 1_000)));
    world.books_hold().await;
}
