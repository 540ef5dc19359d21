//! The statement that moves a machine to other keys.

use bitspire_shared::statement::Statement;
use bitspire_shared::time::Unix;

use super::*;
use crate::fleet::FleetError;
use crate::fleet::rekey::{Whose, Wish, sign};
use crate::signer::local::LocalSigner;

/// Loss prevented: machines that nobody can move off a service that is lost; or a statement that
/// moves another machine, to somebody whom nobody has named, for ever.
#[tokio::test]
async fn a_rekey_is_signed_for_one_machine_and_one_day() {
    let site = Site::new().await;
    let (paired, _) = site.in_service().await;
    let app = site.app().clone();
    let keys = site.bunker.state().held["operator-1"].clone();
    app.set_signer(Arc::new(LocalSigner::new(keys).unwrap()));
    let now = app.clock.now();
    let row = site.row().await;
    let operator = app.store.read(|read| operators::find(read, OperatorId(1))).await;
    let operator = operator.map_err(|error: StoreError| error).unwrap().unwrap().pubkey.unwrap();
    let (new, vault) = (key(), row.vault_key.unwrap());
    let wish =
        Wish { whose: Whose::Known(site.machine), service: Some(new), operator: None, hours: None };
    let signed = sign(&app, "test", None, wish).await.unwrap();
    let statement = signed.check(&operator, now).unwrap();
    let Statement::Rekey { spire, vault: its, operator: to, service, not_after, .. } = statement
    else {
        panic!("{statement:?}");
    };
    assert_eq!((spire, its, to, service), (paired.spire, vault, operator, new));
    assert!(signed.check(&operator, not_after.after(1)).is_err());
    assert!((Unix(now.0 + 86_000)..=Unix(now.0 + 86_500)).contains(&not_after));

    // to where it is already, and for no time
    let same = Wish { service: None, ..wish };
    assert!(matches!(
        sign(&app, "test", None, same).await,
        Err(FleetError::Invalid { field: "service", .. })
    ));
    for hours in [0, 721] {
        let refused = sign(&app, "test", None, Wish { hours: Some(hours), ..wish }).await;
        assert!(matches!(refused, Err(FleetError::Invalid { field: "hours", .. })), "{hours}");
    }
    // not somebody else's machine
    let other = sign(&app, "test", Some(OperatorId(7)), wish).await;
    assert!(matches!(other, Err(FleetError::NoMachine(_))));

    // one that another service has paired comes here
    let (spire, vault) = (key(), key());
    let whose = Whose::Told { operator: OperatorId(1), spire, vault };
    let told = Wish { whose, service: None, operator: None, hours: Some(720) };
    let signed = sign(&app, "test", None, told).await.unwrap();
    let Statement::Rekey { spire: its, service, .. } = signed.check(&operator, now).unwrap() else {
        panic!("no rekey");
    };
    assert_eq!((its, service), (spire, app.service_key));
}
