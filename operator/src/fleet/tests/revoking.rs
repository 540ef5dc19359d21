//! Revoking, and the operator's own key.

use super::double::Fault;
use super::*;
use crate::fleet::FleetError;
use crate::fleet::revoke::revoke;
use crate::relay::{Access as _, Role};
use crate::store::machines::Confirmation;
use crate::store::pairing::{self as attempts, Progress};

/// Loss prevented: a stolen machine that trades on while its bunker is away.
#[tokio::test]
async fn a_revoked_machine_stops_at_once_whatever_the_bunker_does() {
    let site = Site::new().await;
    let unpaired = revoke(site.app(), "test", None, site.machine).await;
    assert!(matches!(unpaired, Err(FleetError::State { .. })));
    let (paired, client) = site.in_service().await;
    site.bunker.fail("revoke_user", Fault::Refused);
    let other = revoke(site.app(), "test", Some(OperatorId(9)), site.machine).await;
    assert!(matches!(other, Err(FleetError::NoMachine(_))));
    let steps = revoke(site.app(), "test", None, site.machine).await.unwrap();
    let failed: Vec<_> = steps.iter().filter(|step| !step.ok).map(|step| step.step).collect();
    assert_eq!(failed, ["revoke_user"], "{steps:?}");
    assert_eq!(site.row().await.confirmation, Confirmation::Revoked);
    assert_eq!(site.app().roster.role(&client.to_bytes()), Role::Unknown);
    assert_eq!(site.bunker.live_users(&paired.bunker_key_name), 1);
    // what failed is done the next time
    let steps = revoke(site.app(), "test", None, site.machine).await.unwrap();
    assert!(steps.iter().all(|step| step.ok), "{steps:?}");
    assert_eq!(site.bunker.live_users(&paired.bunker_key_name), 0);
}

/// Loss prevented: a seed that is still good after its machine was revoked.
#[tokio::test]
async fn an_unredeemed_seed_dies_with_the_revoke() {
    let site = Site::new().await;
    let paired = site.pair().await.map_err(|failed| failed.error).unwrap();
    revoke(site.app(), "test", None, site.machine).await.unwrap();
    assert_eq!(site.bunker.state().tokens.len(), 0);
    assert!(!site.app().roster.awaits_pairing(&paired.spire.to_bytes()));
    // and a machine that was revoked can be paired again
    let again = site.pair().await.map_err(|failed| failed.error).unwrap();
    assert_ne!(again.spire, paired.spire);
    assert_eq!(site.row().await.confirmation, Confirmation::AwaitingSession);
}

/// Loss prevented: a pairing that was under way takes a revoked machine back into service.
#[tokio::test]
async fn a_revoke_ends_a_pairing_under_way() {
    let site = Site::new().await;
    let (_, _) = site.in_service().await;
    let id = site.machine;
    site.bunker.fail("tokens", Fault::Lost);
    let _ = site.pair().await;
    let left = site.app().store.write::<_, StoreError, _>(move |tx| {
        let mut attempt = attempts::earlier(tx, id, 99)?.remove(0).row;
        attempt.number += 1;
        attempt.key_name = "spire-1-slow".into();
        attempt.step = attempts::PairingStep::TokenRead;
        attempt.error = None;
        attempts::insert(tx, &attempt)
    });
    let open = left.await.unwrap();
    revoke(site.app(), "test", None, id).await.unwrap();
    let now = site.app().clock.now();
    let late = site.app().store.write(move |tx| {
        attempts::advance(tx, open, attempts::PairingStep::Switched, &Progress::default(), now)
    });
    let late: Result<_, StoreError> = late.await;
    assert!(matches!(late, Err(StoreError::NotOneRow { .. })));
}

/// Loss prevented: an operator's key replaced under machines that have pinned it.
#[tokio::test]
async fn an_operator_has_one_key_for_ever() {
    let site = Site::new().await;
    let again = identity::init(site.app(), "test", OperatorId(1)).await;
    assert!(matches!(again, Err(FleetError::HasIdentity { .. })));
    let none = identity::init(site.app(), "test", OperatorId(9)).await;
    assert!(matches!(none, Err(FleetError::NoOperator(_))));
    let key = site.bunker.state().keys[0].key.unwrap();
    assert!(site.app().signer(key).is_some());
    let site = site.restarted().await;
    assert!(site.app().signer(key).is_none());
    identity::reopen(site.app()).await.unwrap();
    assert!(site.app().signer(key).is_some());
}
