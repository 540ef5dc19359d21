//! Renewing a pairing before it ends.

use bitspire_shared::time::Unix;

use super::double::Fault;
use super::*;
use crate::fleet::FleetError;
use crate::fleet::renew::{Warned, look_after, renew, warning};
use crate::fleet::revoke::revoke;
use crate::store::machines::disable;

const HOUR: u64 = 3_600;

impl Site {
    async fn with(more: &str) -> Self {
        let world = World::with(&format!("{more}\n[relay]\nembedded = false\n")).await;
        Self::of(world).await
    }

    async fn ends(&self) -> Unix {
        self.row().await.bunker_token_expires_at.unwrap()
    }

    /// The machine's heartbeat.
    async fn reports(&self) {
        let (id, now) = (self.machine, self.app().clock.now());
        let write = self.app().store.write::<_, StoreError, _>(move |tx| rows::saw(tx, id, now));
        write.await.unwrap();
    }

    async fn looked_after(&self) {
        look_after(self.app(), &mut Warned::new()).await.unwrap();
    }

    async fn warning(&self) -> String {
        let row = self.row().await;
        warning(&row, &self.app().config.pairing, self.app().clock.now()).unwrap_or_default()
    }
}

/// Loss prevented: a machine that stops a month after it was set up, and somebody has to travel to it.
#[tokio::test]
async fn a_machine_that_reports_is_given_more_time() {
    let site = Site::new().await;
    let (paired, client) = site.in_service().await;
    assert_eq!(site.warning().await, "");
    site.reports().await;
    site.looked_after().await;
    assert_eq!(site.ends().await, paired.token_expires_at, "its end is far away");
    site.world.pass((720 - 100) * HOUR);
    // one that nobody hears of does not ask
    site.looked_after().await;
    assert_eq!(site.ends().await, paired.token_expires_at);
    assert!(site.warning().await.contains("ends in 4 days"), "{}", site.warning().await);
    site.reports().await;
    site.bunker.fail("extend_user", Fault::NotSent);
    site.looked_after().await;
    assert_eq!(site.ends().await, paired.token_expires_at, "the bunker did not do its part");
    site.looked_after().await;
    let until = site.app().clock.now().after(720 * HOUR);
    assert_eq!(site.ends().await, until);
    assert_eq!(site.warning().await, "");
    let user = site.bunker.state().users.iter().find(|(_, user)| user.key == client).cloned();
    assert_eq!(site.bunker.state().extended, [(user.unwrap().1.id, until)]);
    let again = site.bunker.state().calls.len();
    site.looked_after().await;
    assert_eq!(site.bunker.state().calls.len(), again, "once");
    let subject = format!("machine:{}", site.machine);
    let log = site.app().store.read::<_, StoreError, _>(move |read| {
        crate::store::log::audit_tail(read, Some(&subject), 9)
    });
    let actions: Vec<_> = log.await.unwrap().into_iter().map(|row| row.row.action).collect();
    assert!(actions.contains(&"machine.renew".to_owned()), "{actions:?}");
}

/// Loss prevented: a machine that was taken out of service, or that its operator wants to decide
/// about, renewed by itself; a renewal that shortens what is there.
#[tokio::test]
async fn what_the_policy_does_not_give_somebody_has_to_say() {
    let site = Site::with("[pairing]\nrenew = 'ask'\n").await;
    let (paired, _) = site.in_service().await;
    site.world.pass((720 - 30) * HOUR);
    site.reports().await;
    site.looked_after().await;
    assert_eq!(site.ends().await, paired.token_expires_at);
    assert!(site.warning().await.contains("ends in 30 hours: `renew`"), "{}", site.warning().await);
    let (app, id) = (site.app(), site.machine);
    for hours in [0, 100_000] {
        let refused = renew(app, "test", None, id, Some(hours)).await;
        assert!(matches!(refused, Err(FleetError::Invalid { .. })));
    }
    let other = renew(app, "test", Some(OperatorId(9)), id, None).await;
    assert!(matches!(other, Err(FleetError::NoMachine(_))));
    let shorter = renew(app, "test", None, id, Some(1)).await.unwrap();
    assert_eq!(shorter.bunker_token_expires_at, Some(paired.token_expires_at), "never shortened");
    site.world.pass(40 * HOUR);
    assert!(site.warning().await.contains("has ended"));
    let renewed = renew(app, "test", None, id, Some(48)).await.unwrap();
    assert_eq!(renewed.bunker_token_expires_at, Some(app.clock.now().after(48 * HOUR)));
    // cut off in the bunker by hand
    for (_, user) in &mut site.bunker.state().users {
        user.revoked_at = Some(Unix(1));
    }
    let cut_off = renew(app, "test", None, id, None).await.unwrap_err();
    assert!(cut_off.to_string().contains("cut its client off"), "{cut_off}");
    revoke(app, "test", None, id).await.unwrap();
    let revoked = renew(app, "test", None, id, None).await;
    assert!(matches!(revoked, Err(FleetError::State { .. })), "{revoked:?}");
    assert_eq!(site.warning().await, "", "revoked is revoked");
}

/// Loss prevented: a machine that was stopped because it is under suspicion is given another month.
#[tokio::test]
async fn a_disabled_machine_is_not_renewed() {
    let site = Site::new().await;
    let (paired, _) = site.in_service().await;
    site.world.pass((720 - 30) * HOUR);
    site.reports().await;
    let (id, now) = (site.machine, site.app().clock.now());
    let write =
        site.app().store.write::<_, StoreError, _>(move |tx| disable(tx, id, "looked into", now));
    write.await.unwrap();
    site.looked_after().await;
    assert_eq!(site.ends().await, paired.token_expires_at);
}
