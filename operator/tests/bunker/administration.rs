//! Who may administer the bunker, and what it does once.

use std::time::Duration;

use bitspire_operator::bunker::{Bunker, BunkerConfig, BunkerError, read_id};
use bitspire_operator::signer::admin::{AdminClient, AdminConfig};
use bitspire_operator::signer::provision::{POLICY, ProvisionError, Wiring, provision, reopen};
use bitspire_operator::signer::{BunkerAdmin as _, RemoteSigner as _, SignerError};
use bitspire_shell::secrets::Keyring;
use nostr::Keys;
use serde_json::json;

use crate::raw::Raw;
use crate::world::{World, public, reason};

/// Loss prevented: anybody who finds the bunker's address makes tokens for every machine.
#[tokio::test]
async fn strangers_administer_nothing() {
    let world = World::new().await;
    let (_, client, _) = world.paired().await;
    let create = json!({"id": "1", "method": "create_new_key", "params": ["evil", ""]});
    let keys = json!({"id": "2", "method": "get_keys", "params": []});
    let now = world.time.now().0;
    let mut strangers = Vec::new();
    for keys_of in [Keys::generate(), client] {
        let stranger = Raw::new(&world, keys_of).await;
        for kind in [24_133, 24_134] {
            for request in [&create, &keys] {
                stranger.send(&stranger.letter(world.id, kind, &request.to_string(), now)).await;
            }
        }
        // what is sent is on its way only as long as the connection lives
        strangers.push(stranger);
    }
    let config = AdminConfig {
        timeout: Duration::from_secs(3),
        ..AdminConfig::new(world.id, world.relays.clone(), Keys::generate())
    };
    let start = AdminClient::start(config, world.time.clock(), &world.tasks, world.stop.clone());
    let refused = start.await.unwrap().keys().await;
    assert_eq!(refused, Err(SignerError::NoReply { method: "ping", seconds: 3 }));
    let names: Vec<_> = world.admin.keys().await.unwrap().into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["spire"]);
    let stats = world.stats();
    assert!(stats.not_for_us >= 8, "{stats:?}");
}

/// Loss prevented: a relay that kept an administrator's request brings it again, and a token is made
/// or a client cut off a second time.
#[tokio::test]
async fn a_request_is_carried_out_once_and_only_while_it_is_fresh() {
    let mut world = World::new().await;
    world.key("spire").await;
    let policy = world.spire_policy().await;
    let admin = Raw::new(&world, world.second_admin.clone()).await;
    let now = world.time.now().0;
    let create = json!({"id": "1", "method": "create_new_token", "params": ["spire", "m", policy]});
    let event = admin.letter(world.id, 24_134, &create.to_string(), now);
    admin.send(&event).await;
    assert_eq!(admin.next(world.id).await["result"], "[\"ok\"]");
    world.restart().await;
    admin.send(&event).await;
    let old = admin.ask(world.id, 24_134, &create, now - 121).await;
    assert!(old["error"].as_str().unwrap().contains("stale"), "the first answer: {old}");
    assert_eq!(world.admin.tokens("spire".into()).await.unwrap().len(), 1);
}

/// Loss prevented: a second machine of one name overwrites the first one's key, which nobody has
/// any more.
#[tokio::test]
async fn a_key_is_never_overwritten_or_held_twice() {
    let world = World::new().await;
    let keys = Keys::generate();
    let made = world.admin.create_key("spire".into(), keys.clone()).await.unwrap();
    assert_eq!(made, public(&keys));
    let again = world.admin.create_key("spire".into(), Keys::generate()).await;
    assert!(reason(again).contains("exists already"));
    let other = world.admin.create_key("other".into(), keys).await;
    assert!(reason(other).contains("under another name"));
    let listed = world.admin.keys().await.unwrap();
    assert!(listed.len() == 1 && listed[0].key == Some(made));
    let raw = Raw::new(&world, world.second_admin.clone()).await;
    let now = world.time.now().0;
    let own = json!({"id": "1", "method": "create_new_key", "params": ["own", ""]});
    let reply = raw.ask(world.id, 24_134, &own, now).await;
    assert!(reply["result"].as_str().unwrap().starts_with("{\"npub\":\"npub1"), "{reply}");
    for (method, params) in [
        (
            "create_new_policy",
            json!([
                json!({"name": "p", "rules": [{"method": "sign_event", "kind": 1}]}).to_string()
            ]),
        ),
        ("unlock_key", json!(["own", "x"])),
    ] {
        let ask = json!({"id": "1", "method": method, "params": params});
        assert!(raw.ask(world.id, 24_134, &ask, now).await["error"].is_null());
    }
    for (method, params, why) in [
        (
            "create_new_policy",
            json!([
                json!({"name": "p", "rules": [{"method": "sign_event", "kind": 1}]}).to_string()
            ]),
            "exists already",
        ),
        ("create_new_token", json!(["spire", "m", 99]), "no policy 99"),
        ("create_new_token", json!(["none", "m", 1]), "no key none"),
        ("get_key_tokens", json!(["none"]), "no key none"),
        ("get_key_users", json!(["none"]), "no key none"),
        ("unlock_key", json!(["none", ""]), "no key none"),
        ("revoke_user", json!(["99"]), "no user 99"),
        ("revoke_token", json!(["99"]), "no token 99"),
        (
            "add_policy_rule",
            json!([json!({"policyId": 99, "rule": {"method": "nip44_encrypt"}}).to_string()]),
            "no policy 99",
        ),
        (
            "create_new_policy",
            json!([json!({"name": "q", "rules": []}).to_string()]),
            "1 to 100 rules",
        ),
        ("make_coffee", json!([]), "unknown method"),
    ] {
        let ask = json!({"id": "1", "method": method, "params": params});
        let refused = raw.ask(world.id, 24_134, &ask, now).await;
        assert!(refused["error"].as_str().unwrap().contains(why), "{method}: {refused}");
    }
}

/// Loss prevented: of a fleet larger than one message the rest is taken for missing, and paired anew.
#[tokio::test]
async fn more_keys_than_fit_into_one_message_are_all_listed() {
    let world = World::new().await;
    let raw = Raw::new(&world, world.second_admin.clone()).await;
    let now = world.time.now().0;
    for n in 0..205 {
        let create = json!({"id": n, "method": "create_new_key", "params": [format!("k{n}"), ""]});
        raw.send(&raw.letter(world.id, 24_134, &create.to_string(), now)).await;
    }
    for _ in 0..205 {
        assert!(raw.next(world.id).await["error"].is_null());
    }
    let mut names: Vec<_> =
        world.admin.keys().await.unwrap().into_iter().map(|key| key.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 205);
    let policy = world.spire_policy().await;
    let last = world.admin.keys().await.unwrap().pop().unwrap();
    let secret = world.token(&last.name, policy).await;
    let remote = world.remote(last.key.unwrap(), &Keys::generate(), Some(secret)).await;
    remote.connect().await.expect("the newest key is subscribed to");
}

/// Loss prevented: a bunker that nobody can administer, or that anybody could.
#[tokio::test]
async fn the_first_start_names_the_administrator() {
    let folder = tempfile::tempdir().unwrap();
    let admin = public(&Keys::generate());
    let config = |admins| BunkerConfig {
        data_dir: folder.path().to_owned(),
        machine_secret_file: None,
        relays: vec![],
        admins,
        clock: bitspire_shell::clock::Clock::system(),
    };
    assert!(matches!(Bunker::open(config(vec![])).await, Err(BunkerError::NoAdmin)));
    let id = Bunker::open(config(vec![admin])).await.unwrap().id();
    assert_eq!(Bunker::open(config(vec![])).await.unwrap().id(), id, "it stays");
    assert_eq!(read_id(folder.path()).unwrap(), Some(id));
    assert_eq!(read_id(&folder.path().join("none")).unwrap(), None);
}

/// Loss prevented: whoever stole the service's admin key goes on making tokens for every machine after
/// another one was named.
#[tokio::test]
async fn an_administrator_who_is_named_at_a_start_takes_the_formers_place() {
    let mut world = World::new().await;
    let second = public(&world.second_admin);
    world.admin.ping().await.unwrap();
    world.stop_bunker().await;
    world.start_unasked(vec![second]).await;
    let administers = async |keys: &Keys| {
        let config = AdminConfig {
            timeout: Duration::from_secs(3),
            ..AdminConfig::new(world.id, world.relays.clone(), keys.clone())
        };
        let (tasks, stop) = (&world.tasks, world.stop.clone());
        let admin = AdminClient::start(config, world.time.clock(), tasks, stop).await.unwrap();
        admin.ping().await
    };
    let patience = std::time::Instant::now() + crate::world::PATIENCE;
    while administers(&world.second_admin).await.is_err() {
        assert!(std::time::Instant::now() < patience, "the one who was named does not administer");
    }
    let former = administers(&world.admin_keys).await;
    assert_eq!(former, Err(SignerError::NoReply { method: "ping", seconds: 3 }));
}

fn wiring(world: &World, folder: &tempfile::TempDir) -> Wiring {
    Wiring {
        keyring: Keyring::open(folder.path(), None).unwrap(),
        relays: world.relays.clone(),
        clock: world.time.clock(),
        tasks: world.tasks.clone(),
        stop: world.stop.clone(),
    }
}

/// Loss prevented: an interrupted set-up that leaves an operator without a key, or with two.
#[tokio::test]
async fn an_operators_key_is_provisioned_once() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let wiring = wiring(&world, &folder);
    assert!(matches!(
        reopen(world.id, "operator-1", &wiring).await,
        Err(ProvisionError::NotSetUp { .. })
    ));
    assert!(matches!(
        provision(&world.admin, "../operator", &wiring).await,
        Err(ProvisionError::Name { .. })
    ));
    let signer = provision(&world.admin, "operator-1", &wiring).await.unwrap();
    let key = signer.key();
    let document = || world.event(key, 30_078, "x");
    assert_eq!(signer.sign(document()).await.unwrap().pubkey, key.nostr());
    assert!(reason(signer.sign(world.event(key, 1, "x")).await).contains("no rule"));
    let again = provision(&world.admin, "operator-1", &wiring).await.unwrap();
    assert_eq!(again.key(), key);
    again.sign(document()).await.unwrap();
    assert_eq!(world.admin.keys().await.unwrap().len(), 1);
    assert_eq!(world.admin.tokens("operator-1".into()).await.unwrap().len(), 1);
    let other = provision(&world.admin, "operator-2", &wiring).await.unwrap();
    assert_ne!(other.key(), key);
    assert_eq!(world.admin.policies().await.unwrap().len(), 1);
    world.restart().await;
    let reopened = reopen(key, "operator-1", &wiring).await.unwrap();
    reopened.sign(world.event(key, 30_078, "y")).await.unwrap();
    // revoked by hand: a fresh client key, and at the next run a token for it
    let [user] = &world.admin.users("operator-1".into()).await.unwrap()[..] else { panic!() };
    world.admin.revoke_user(user.id.clone()).await.unwrap();
    assert!(reason(reopened.sign(world.event(key, 30_078, "z")).await).contains("revoked"));
    let replaced = provision(&world.admin, "operator-1", &wiring).await;
    assert!(matches!(replaced, Err(ProvisionError::Replaced { .. })));
    let healed = provision(&world.admin, "operator-1", &wiring).await.unwrap();
    healed.sign(world.event(key, 30_078, "z")).await.unwrap();
}

/// Loss prevented: a pairing that hands out a seed without a secret after the bunker was restarted
/// between two of its steps.
#[tokio::test]
async fn a_tokens_text_is_not_shown_after_a_restart_or_a_while() {
    let mut world = World::new().await;
    world.key("spire").await;
    let policy = world.spire_policy().await;
    world.token("spire", policy).await;
    world.restart().await;
    let [token] = &world.admin.tokens("spire".into()).await.unwrap()[..] else { panic!() };
    assert!(matches!(token.secret(), Err(SignerError::TokenHidden { .. })));
    world.token("spire", policy).await;
    world.time.pass(901);
    let tokens = world.admin.tokens("spire".into()).await.unwrap();
    assert!(tokens.len() == 2 && tokens.iter().all(|token| token.secret.is_none()));
    // provisioning meets the same and makes another
    let folder = tempfile::tempdir().unwrap();
    let wiring = wiring(&world, &folder);
    world.key("operator-1").await;
    let signer = provision(&world.admin, "operator-1", &wiring).await.unwrap();
    let id = world.policy_id(POLICY).await;
    let name = "bitspire-operator".to_owned();
    world.admin.create_token("operator-1".into(), name, id, 1).await.unwrap();
    world.restart().await;
    drop(signer);
    let fresh = tempfile::tempdir().unwrap();
    let wiring = Wiring { keyring: Keyring::open(fresh.path(), None).unwrap(), ..wiring };
    provision(&world.admin, "operator-1", &wiring).await.unwrap();
    let unused = world.admin.tokens("operator-1".into()).await.unwrap();
    assert!(unused.iter().all(|token| token.redeemed_at.is_some()), "{unused:?}");
}

/// Loss prevented: a call that never left is taken for one whose effect is unknown.
#[tokio::test]
async fn without_a_relay_nothing_was_sent() {
    let world = World::new().await;
    let nobody = vec!["ws://127.0.0.1:1".to_owned()];
    let config = AdminConfig {
        timeout: Duration::from_secs(2),
        ..AdminConfig::new(world.id, nobody.clone(), world.admin_keys.clone())
    };
    let start = AdminClient::start(config, world.time.clock(), &world.tasks, world.stop.clone());
    let admin = start.await.unwrap();
    assert_eq!(admin.ping().await, Err(SignerError::NotSent { method: "ping" }));
    let made = admin.create_key("spire".into(), Keys::generate()).await;
    assert_eq!(made, Err(SignerError::NotSent { method: "ping" }));
    let config = bitspire_operator::signer::remote::RemoteConfig {
        timeout: Duration::from_secs(1),
        ..bitspire_operator::signer::remote::RemoteConfig::new(world.id, nobody, Keys::generate())
    };
    let remote = bitspire_operator::signer::remote::Remote::start(
        config,
        world.time.clock(),
        &world.tasks,
        world.stop.clone(),
    );
    let signed = remote.await.unwrap().sign(world.event(world.id, 1, "x")).await;
    assert_eq!(signed, Err(SignerError::NotSent { method: "sign_event" }));
}
