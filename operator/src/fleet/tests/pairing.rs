//! Pairing: each step, and each way in which it fails.

use bitspire_shared::nip46::policy::Policy;
use bitspire_shared::seed::Loopback;
use bitspire_shared::time::Unix;

use super::double::Fault;
use super::*;
use crate::fleet::FleetError;
use crate::relay::{Access as _, Role};
use crate::signer::{BunkerKey, BunkerPolicy, SignerError};
use crate::store::machines::Confirmation;
use crate::store::pairing::{self as attempts, PairingStep};
use crate::store::{documents, sessions};

/// Loss prevented: a seed whose machine pins somebody else, or that nobody can redeem.
#[tokio::test]
async fn the_seed_says_what_was_paired() {
    let site = Site::new().await;
    let paired = site.pair().await.map_err(|failed| failed.error).unwrap();
    let seed = site.seed(&paired);
    let pins = seed.pins().unwrap();
    let operator = site.bunker.state().keys[0].key.unwrap();
    assert_eq!((pins.operator, pins.service), (operator, site.app().service_key));
    assert_eq!((seed.spire(), pins.currency), (paired.spire, "EUR".parse().unwrap()));
    assert_eq!(seed.relays()[0].to_string(), RELAY);
    assert_eq!(seed.bunker().relays()[0].to_string(), RELAY, "the first relay, if none is named");
    assert_eq!(seed.expires_at(), Some(paired.token_expires_at));
    let row = site.row().await;
    assert_eq!(row.machine_npub, Some(paired.spire));
    assert_eq!(row.bunker_spire_key_name.as_deref(), Some("spire-1"));
    assert_eq!(row.confirmation, Confirmation::AwaitingSession);
    assert_eq!(row.bunker_token_expires_at, Some(row.paired_at.unwrap().after(720 * 3_600)));
    let steps: Vec<_> = paired.steps.iter().map(|step| (step.step, step.ok)).collect();
    let expected = ["create_key", "policy", "create_token", "read_token", "switch"];
    assert_eq!(steps, expected.map(|step| (step, true)));
    let shown = format!("{:?}", paired.steps);
    assert!(!shown.contains(seed.secret().expose()), "the secret is in the steps");
    assert!(site.app().roster.awaits_pairing(&paired.spire.to_bytes()));
    let id = site.machine;
    let wanted = site.app().store.read::<_, StoreError, _>(move |read| {
        documents::wanted(read, id, documents::DocumentKind::Fees)
    });
    assert!(wanted.await.unwrap().is_some(), "its fees are published as soon as it has a key");
    // nothing of the seed stays here
    for entry in std::fs::read_dir(site.world.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        let secret = seed.secret().expose().as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

/// Loss prevented: a machine out of service because its bunker failed while it was paired anew.
#[tokio::test]
async fn whatever_fails_the_old_pairing_works() {
    let site = Site::new().await;
    let (old, client) = site.in_service().await;
    let before = site.row().await;
    assert_eq!(before.confirmation, Confirmation::Confirmed);
    let faults = [Fault::Refused, Fault::NotSent, Fault::Lost];
    for method in ["create_key", "policies", "create_token", "tokens"] {
        for fault in faults {
            site.bunker.fail(method, fault);
            let failed = site.pair().await.unwrap_err();
            assert!(site.bunker.state().fault.is_none(), "{method} was not asked for");
            assert!(matches!(failed.error, FleetError::Bunker { .. }), "{method} {fault:?}");
            assert_eq!(site.row().await, before, "{method} {fault:?}");
            assert_eq!(site.bunker.live_users(&old.bunker_key_name), 1, "{method} {fault:?}");
        }
    }
    let role = site.app().roster.role(&client.to_bytes());
    assert_eq!(role, Role::Machine { spire: old.spire.to_bytes() });
    let id = site.machine;
    let all = site.app().store.read::<_, StoreError, _>(move |r| attempts::earlier(r, id, 99));
    let all = all.await.unwrap();
    let failed = all.iter().filter(|attempt| attempt.step == PairingStep::Failed);
    assert_eq!(failed.count(), 12, "each attempt has its row and its end");
    assert!(
        all.iter().all(|attempt| (attempt.step == PairingStep::Failed) == attempt.error.is_some())
    );
    // and then it works, and what the attempts left is revoked with the old key
    let new = site.pair().await.map_err(|failed| failed.error).unwrap();
    assert_eq!(new.bunker_key_name, "spire-1-14");
    assert!(new.steps.iter().all(|step| step.ok), "{:?}", new.steps);
    assert_eq!(site.bunker.live_users(&old.bunker_key_name), 0);
    let open: Vec<_> = site.bunker.state().tokens.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(open, [old.bunker_key_name, new.bunker_key_name], "the first one was redeemed");
    assert_eq!(site.app().roster.role(&client.to_bytes()), Role::Unknown);
    assert_eq!(site.row().await.confirmation, Confirmation::AwaitingSession);
}

/// Loss prevented: a call whose reply was lost is made twice, so that the bunker holds two keys or
/// tokens and nobody knows which one counts.
#[tokio::test]
async fn a_lost_reply_is_looked_up_and_not_repeated() {
    for method in ["create_key", "create_policy", "create_token"] {
        let site = Site::new().await;
        site.bunker.fail(method, Fault::Unheard);
        let paired = site.pair().await.map_err(|failed| failed.error).unwrap();
        assert_eq!(site.row().await.machine_npub, Some(paired.spire));
        let state = site.bunker.state();
        let asked = state.calls.iter().filter(|call| **call == method).count();
        // the operator's own key was made before
        assert_eq!(asked, if method == "create_key" { 2 } else { 1 }, "{method}");
    }
}

/// Loss prevented: two machines with one key, of which each can speak for the other.
#[tokio::test]
async fn a_key_that_somebody_has_is_refused() {
    let site = Site::new().await;
    let (paired, _) = site.in_service().await;
    let second = add(site.app(), "bar").await;
    for taken in [paired.spire, site.app().service_key] {
        site.bunker.state().other_key = Some(taken);
        let failed = pair(site.app(), "test", None, second, &request()).await.unwrap_err();
        assert!(matches!(failed.error, FleetError::KeyTaken { .. }), "{:?}", failed.error);
    }
    site.bunker.state().other_key = Some(key());
    let failed = pair(site.app(), "test", None, second, &request()).await.unwrap_err();
    let unexpected =
        matches!(failed.error, FleetError::Bunker { source: SignerError::Unexpected { .. }, .. });
    assert!(unexpected, "{:?}", failed.error);
}

/// Loss prevented: a machine that may sign what it must not, or not what it must, since somebody
/// changed the policy of our name.
#[tokio::test]
async fn a_policy_that_is_not_ours_stops_the_pairing() {
    let site = Site::new().await;
    let mut rules = crate::fleet::pair::rules();
    let nip44 = rules.pop().unwrap();
    let policy = BunkerPolicy {
        id: 7,
        name: Policy::SPIRE.into(),
        rules: rules.clone(),
        ..BunkerPolicy::default()
    };
    site.bunker.state().policies.push(policy);
    site.bunker.fail("add_rule", Fault::Refused);
    let failed = site.pair().await.unwrap_err().error;
    assert!(matches!(failed, FleetError::Bunker { step: "policy", .. }), "{failed}");
    site.bunker.state().unknown = Some("add_rule");
    let failed = site.pair().await.unwrap_err().error.to_string();
    assert!(failed.contains(&nip44.method) && failed.contains("NIP-44"), "{failed}");
    // a bunker that can is told what is missing, and nothing else
    site.bunker.state().unknown = None;
    assert!(site.pair().await.is_ok());
    assert_eq!(site.bunker.state().policies[0].rules.last(), Some(&nip44));
    rules.push(nip44.clone());
    rules.push(crate::signer::BunkerRule { method: "sign_event".into(), kind: Some(1) });
    site.bunker.state().policies[0].rules = rules.clone();
    let failed = site.pair().await.unwrap_err().error.to_string();
    assert!(failed.contains("sign_event 1"), "{failed}");
    rules.pop();
    site.bunker.state().policies[0].rules = rules;
    assert!(site.pair().await.is_ok());
    assert!(!site.bunker.state().calls.contains(&"create_policy"));
}

/// Loss prevented: a seed that no machine can reach, or a bunker asked for what cannot be used.
#[tokio::test]
async fn what_makes_no_sense_never_reaches_the_bunker() {
    let site = Site::new().await;
    site.bunker.state().calls.clear();
    let refused = async |change: fn(&mut Request)| {
        let mut request = request();
        change(&mut request);
        pair(site.app(), "test", None, site.machine, &request).await.unwrap_err().error
    };
    let loopback = refused(|r| r.relays = vec!["ws://127.0.0.1:7777".into()]).await;
    assert!(matches!(loopback, FleetError::Relay { field: "relays", .. }), "{loopback}");
    let bunker = refused(|r| r.bunker_relay = Some("ws://localhost".into())).await;
    assert!(matches!(bunker, FleetError::Relay { field: "bunker_relay", .. }), "{bunker}");
    assert!(matches!(refused(|r| r.relays.clear()).await, FleetError::Relay { .. }));
    assert!(matches!(refused(|r| r.relays = vec!["x".into()]).await, FleetError::Relay { .. }));
    for hours in [0, 1_000_000] {
        let mut request = request();
        request.hours = Some(hours);
        let refused = pair(site.app(), "test", None, site.machine, &request).await.unwrap_err();
        assert!(matches!(refused.error, FleetError::Invalid { .. }));
    }
    let other = pair(site.app(), "test", Some(OperatorId(9)), site.machine, &request()).await;
    assert!(matches!(other.unwrap_err().error, FleetError::NoMachine(_)));
    assert_eq!(site.bunker.state().calls.len(), 0);
    let mut here = request();
    here.relays = vec!["ws://127.0.0.1:7777".into()];
    here.loopback = Loopback::Allowed;
    assert!(pair(site.app(), "test", None, site.machine, &here).await.is_ok());

    let bare = World::with("[relay]\nembedded = false\n").await;
    let machine = add(&bare.app, "till").await;
    let none = pair(&bare.app, "test", None, machine, &request()).await.unwrap_err();
    let missing =
        matches!(none.error, FleetError::Bunker { source: SignerError::NotConfigured, .. });
    assert!(missing, "{:?}", none.error);
    assert!(bare.app.bunker.set(Double::new()).is_ok());
    let none = pair(&bare.app, "test", None, machine, &request()).await.unwrap_err();
    assert!(matches!(none.error, FleetError::NoIdentity), "{:?}", none.error);
}

/// Loss prevented: an old machine whose key signs on after the new pairing, since the bunker was
/// away when it should have been revoked.
#[tokio::test]
async fn old_keys_are_revoked_later_if_not_at_once() {
    let site = Site::new().await;
    let (old, _) = site.in_service().await;
    site.bunker.fail("revoke_user", Fault::Lost);
    let new = site.pair().await.map_err(|failed| failed.error).unwrap();
    let failed: Vec<_> = new.steps.iter().filter(|step| !step.ok).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(site.row().await.machine_npub, Some(new.spire));
    assert_eq!(site.bunker.live_users(&old.bunker_key_name), 1);
    // over a restart, too
    let site = site.restarted().await;
    crate::fleet::pair::recover(site.app()).await.unwrap();
    upkeep::round(site.app()).await.unwrap();
    assert_eq!(site.bunker.live_users(&old.bunker_key_name), 0);
    assert_eq!(site.row().await.machine_npub, Some(new.spire));
}

/// Loss prevented: a stop in the middle of a pairing that blocks every later one, or that half of
/// it comes into force.
#[tokio::test]
async fn a_stop_in_the_middle_changes_nothing_and_blocks_nothing() {
    let site = Site::new().await;
    let (_, _) = site.in_service().await;
    let before = site.row().await;
    site.bunker.fail("tokens", Fault::Lost);
    let _ = site.pair().await;
    let id = site.machine;
    let left = site.app().store.write::<_, StoreError, _>(move |tx| {
        let mut attempt = attempts::earlier(tx, id, 99)?.remove(0).row;
        attempt.number += 1;
        attempt.key_name = "spire-1-left".into();
        attempt.step = PairingStep::TokenRead;
        attempt.error = None;
        attempts::insert(tx, &attempt)
    });
    left.await.unwrap();
    let name = "spire-1-left".to_owned();
    site.bunker.state().keys.push(BunkerKey { name, key: Some(key()) });
    let site = site.restarted().await;
    crate::fleet::pair::recover(site.app()).await.unwrap();
    let open = site.app().store.read::<_, StoreError, _>(attempts::open).await.unwrap();
    assert_eq!(open, []);
    assert_eq!(site.row().await, before);
    assert!(site.pair().await.is_ok());
}

/// Loss prevented: somebody who redeemed a stolen seed beside the machine is taken for the machine.
#[tokio::test]
async fn a_seed_that_two_redeemed_is_nobodys() {
    let site = Site::new().await;
    let paired = site.pair().await.map_err(|failed| failed.error).unwrap();
    upkeep::round(site.app()).await.unwrap();
    assert_eq!(site.row().await.client_key, None);
    let thief = site.bunker.redeem(&paired.bunker_key_name);
    let machine = site.bunker.redeem(&paired.bunker_key_name);
    upkeep::round(site.app()).await.unwrap();
    assert_eq!(site.row().await.client_key, None);
    let one = site.bunker.state().users.remove(0).1;
    assert_eq!(one.key, thief);
    upkeep::round(site.app()).await.unwrap();
    assert_eq!(site.row().await.client_key, Some(machine));
    let role = site.app().roster.role(&machine.to_bytes());
    assert_eq!(role, Role::Machine { spire: paired.spire.to_bytes() });
    assert!(!site.app().roster.awaits_pairing(&paired.spire.to_bytes()));
}

/// Loss prevented: a machine in service that nobody has looked at, or a session of the pairing
/// before.
#[tokio::test]
async fn only_the_digits_of_this_pairing_put_it_in_service() {
    let site = Site::new().await;
    let early = confirm::confirm(site.app(), "test", None, site.machine, "12345678").await;
    assert!(matches!(early, Err(FleetError::State { .. })));
    let (old, client) = site.in_service().await;
    let vault = site.row().await.vault_key.unwrap();
    let service = site.app().service_key;
    let digits =
        |spire| bitspire_shared::seed::confirmation_digits(spire, &client, &vault, &service);
    let new = site.pair().await.map_err(|failed| failed.error).unwrap();
    let waits = confirm::confirm(site.app(), "test", None, site.machine, &digits(&old.spire)).await;
    assert!(matches!(waits, Err(FleetError::State { .. })), "no vault is pinned yet");
    let (client, vault) = site.boot(&new).await;
    let wrong = confirm::confirm(site.app(), "test", None, site.machine, &digits(&old.spire)).await;
    assert!(matches!(wrong, Err(FleetError::WrongDigits)));
    assert_eq!(site.row().await.confirmation, Confirmation::AwaitingConfirmation);
    let right = bitspire_shared::seed::confirmation_digits(&new.spire, &client, &vault, &service);
    let spaced = format!("{} {}\n", &right[..4], &right[4..]);
    let confirmed =
        confirm::confirm(site.app(), "test", None, site.machine, &spaced).await.unwrap();
    assert_eq!(confirmed.confirmation, Confirmation::Confirmed);
    let again = confirm::confirm(site.app(), "test", None, site.machine, &right).await;
    assert!(matches!(again, Err(FleetError::State { .. })));
    let live = site.app().store.read::<_, StoreError, _>(|r| sessions::all_live(r, Unix(1)));
    assert_eq!(live.await.unwrap(), []);
}
