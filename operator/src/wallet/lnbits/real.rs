//! LNbits itself, from PyPI, over its FakeWallet, that calls nobody: the battery, sales in both
//! directions with their distribution inside the instance, and the audit of them. What FakeWallet
//! cannot show (pending, failed, routing) is the double's.

mod instance;

use std::path::Path;
use std::sync::Arc;

use bitspire_shared::rpc::{DispenseOutcome, Push};
use bitspire_shell::clock::Clock;
use serde_json::json;
use zeroize::Zeroizing;

use self::instance::{Instance, Keys};
use super::*;
use crate::audit::tests::shop::Shop;
use crate::distribute::tests as distribute;
use crate::ledger::Account;
use crate::payout::tests as payout;
use crate::rpc::tests::cash_in::named;
use crate::rpc::tests::cash_out::{offered, settlement};
use crate::rpc::tests::{sats, trading_with};
use crate::store::legs::{self, LegState};
use crate::store::settlements::{self, Distribution, SettlementStatus};
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

/// The lines of a wallet's table, its keys beside them.
fn table(instance: &Instance, files: &Path, keys: &Keys) -> String {
    for (name, text) in [("admin", &keys.admin), ("invoice", &keys.invoice)] {
        let file = files.join(format!("{}-{name}", keys.id));
        bitspire_shell::secrets::write_private(&file, text.as_bytes()).unwrap();
    }
    let (url, files, id) = (instance.base(), files.display(), &keys.id);
    format!(
        "kind = 'lnbits'\nurl = '{url}'\nkey_file = '{files}/{id}-admin'\n\
         invoice_key_file = '{files}/{id}-invoice'\n"
    )
}

/// A machine whose till is a wallet of the instance, as the platform's and the customer's are: notes
/// for sats and sats for notes, the platform's fees on their way by the worker itself, and the audit.
async fn sales(instance: &Instance, customer: &Lnbits) {
    let (keys, platform) = (instance.wallet("till"), instance.wallet("platform"));
    let files = tempfile::tempdir().unwrap();
    let tables = format!(
        "{}[wallets.platform]\n{}",
        table(instance, files.path(), &keys),
        table(instance, files.path(), &platform)
    );
    let (world, machine) = trading_with(&tables).await;
    let mut shop = Shop::of(world, machine).await;
    shop.fill().await;
    shop.platform_to("platform").await;
    instance.fund(&keys, FUNDED.0);
    let app = shop.world.app.clone();
    let (till, platform) = (app.wallets["till"].clone(), app.wallets["platform"].clone());
    let id = shop.world.machine_id;

    let sale = offered(&mut shop.machine, 4_000).await;
    let paid = customer.pay(sale.invoice.bolt11.clone(), sats(300), json!({})).await.unwrap();
    assert!(matches!(paid, PayState::Succeeded { .. }), "{paid:?}");
    let Push::PaymentSettled(push) = shop.machine.push().await else { panic!() };
    let hash = sale.invoice.payment_hash;
    assert!(shop.machine.is_leave(&sale.quote, hash, &push.authorisation));
    shop.dispensed(&sale, DispenseOutcome::Full, 2).await;
    assert_eq!(settlement(&shop.world, &sale).await.distribution, Distribution::Pending);
    assert_eq!(shop.world.balance(Account::Super).await, -800);
    distribute::round(&app, 0).await;
    assert_eq!(settlement(&shop.world, &sale).await.distribution, Distribution::Processed);
    let kept = shop.world.read(move |read| settlements::by_hash(read, hash)).await.unwrap().id;
    let legs = shop.world.read(move |read| legs::latest(read, kept)).await;
    let legs: Vec<_> = legs.iter().map(|leg| (leg.state, leg.amount_sats)).collect();
    assert_eq!(legs, [(LegState::Paid, sats(800))]);
    assert_eq!(shop.world.balance(Account::Super).await, 0);
    assert_eq!(platform.balance().await.unwrap(), Msat(800_000));

    let withdraw = shop.fed().await;
    let before = customer.balance().await.unwrap();
    let theirs = customer.make_invoice(request(withdraw.net_sats.0)).await.unwrap();
    let told = named(&app, &withdraw, &theirs.bolt11).await;
    assert_eq!(told, json!({"status": "OK"}));
    payout::round(&app).await.unwrap();
    let after = customer.balance().await.unwrap();
    assert_eq!(after.0 - before.0, withdraw.net_sats.0 * 1_000);
    crate::settle::reconcile(&app, &*till).await.unwrap();
    let hash = theirs.payment_hash;
    let kept = shop.world.read(move |read| settlements::by_hash(read, hash)).await.unwrap();
    assert_eq!(kept.status, SettlementStatus::Accepted, "{:?}", kept.reason);
    assert_eq!(shop.world.balance(Account::CustomerLiability(id)).await, 0);
    distribute::round(&app, 0).await;
    assert_eq!(platform.balance().await.unwrap(), Msat(1_200_000));

    // what the wallet was given is there as well: nobody asked for it, so it waits in suspense
    let booked = shop.world.balance(Account::Wallet(id)).await;
    let held = till.balance().await.unwrap().to_sats_floor();
    let expected: u64 = 100_000 + 42_000 - 19_000 - 1_200;
    assert_eq!((booked, held), (expected.cast_signed(), sats(expected)));
    shop.world.books_hold().await;
    shop.heartbeat(&[], &[]).await;
    assert_eq!(shop.audit().await.differences, []);
}
