//! Clients that are let in, use a key, and are cut off.

use bitspire_operator::signer::{
    BunkerAdmin as _, BunkerRule, PolicyChange, RemoteSigner as _, SignerError,
};
use bitspire_shared::nip46::policy::Policy;
use bitspire_shared::time::Unix;
use nostr::nips::nip44;
use nostr::{EventBuilder, Keys, Kind, NostrSigner as _};
use nostr_connect::prelude::{NostrConnect, NostrConnectURI};
use serde_json::json;
use zeroize::Zeroizing;

use crate::raw::Raw;
use crate::world::{HOURS, PATIENCE, World, public, reason};

/// Loss prevented: a machine that is paired and cannot sell, or one that signs what is not its own.
#[tokio::test]
async fn a_paired_machine_signs_its_kinds_and_nothing_else() {
    let world = World::new().await;
    let (key, _, remote) = world.paired().await;
    for kind in Policy::SPIRE_KINDS {
        let event = world.event(key, kind, "x");
        let signed = remote.sign(event.clone()).await.unwrap();
        signed.verify().unwrap();
        assert_eq!((signed.pubkey, signed.kind), (key.nostr(), Kind::from(kind)));
    }
    for kind in [0, 1, 3, 10_002, 27_235] {
        let refused = remote.sign(world.event(key, kind, "x")).await;
        assert!(reason(refused).contains("no rule allows sign_event"));
    }
    let peer = Keys::generate();
    let text = Zeroizing::new("cassettes".to_owned());
    let payload = remote.encrypt(public(&peer), text.clone()).await.unwrap();
    assert_eq!(nip44::decrypt(peer.secret_key(), &key.nostr(), &payload).unwrap(), *text);
    let back = remote.decrypt(public(&peer), payload).await.unwrap();
    assert_eq!(back, text);
    let garbage = remote.decrypt(public(&peer), "AgAA".repeat(40)).await;
    assert!(reason(garbage).contains("NIP-44"));
}

/// Loss prevented: a seed found in the bin pairs a second machine; a machine that must be paired
/// anew after each restart of either side.
#[tokio::test]
async fn a_token_is_worth_one_client_for_ever() {
    let mut world = World::new().await;
    let key = world.key("spire").await;
    let policy = world.spire_policy().await;
    let secret = world.token("spire", policy).await;
    let (one, two) = (Keys::generate(), Keys::generate());
    let machine = world.remote(key, &one, Some(secret.clone())).await;
    machine.connect().await.unwrap();
    machine.connect().await.expect("the same process connects again");
    for _ in 0..2 {
        let thief = world.remote(key, &two, Some(secret.clone())).await;
        assert!(reason(thief.connect().await).contains("another client has used the token"));
        assert!(reason(thief.sign(world.event(key, 30_078, "x")).await).contains("not connected"));
        let restarted = world.remote(key, &one, None).await;
        restarted.connect().await.unwrap();
        restarted.sign(world.event(key, 30_078, "x")).await.unwrap();
        let with_secret = world.remote(key, &one, Some(secret.clone())).await;
        with_secret.connect().await.expect("a lost ack can be asked for again");
        world.restart().await;
    }
    let tokens = world.admin.tokens("spire".into()).await.unwrap();
    assert!(tokens.len() == 1 && tokens[0].redeemed_at.is_some() && tokens[0].secret.is_none());
    let users = world.admin.users("spire".into()).await.unwrap();
    assert_eq!(users.iter().map(|user| user.key).collect::<Vec<_>>(), [public(&one)]);
}

/// Loss prevented: a stolen machine goes on signing until it connects the next time.
#[tokio::test]
async fn revocation_and_expiry_count_at_the_next_signature() {
    let world = World::new().await;
    let (key, client, remote) = world.paired().await;
    remote.sign(world.event(key, 30_078, "x")).await.unwrap();
    let [user] = &world.admin.users("spire".into()).await.unwrap()[..] else { panic!() };
    assert_eq!((user.key, user.revoked_at), (public(&client), None));
    world.admin.revoke_user(user.id.clone()).await.unwrap();
    assert!(reason(remote.sign(world.event(key, 30_078, "y")).await).contains("revoked"));
    let [user] = &world.admin.users("spire".into()).await.unwrap()[..] else { panic!() };
    assert!(user.revoked_at.is_some());
    // a revoked client key stays dead, whatever it shows
    let policy = world.policy_id(Policy::SPIRE).await;
    let again = world.remote(key, &client, Some(world.token("spire", policy).await)).await;
    assert!(reason(again.connect().await).contains("revoked"));

    let fresh =
        world.remote(key, &Keys::generate(), Some(world.token("spire", policy).await)).await;
    fresh.connect().await.unwrap();
    fresh.sign(world.event(key, 30_078, "x")).await.unwrap();
    let unused = world.token("spire", policy).await;
    world.time.pass(u64::from(HOURS) * 3_600 + 10);
    assert!(reason(fresh.sign(world.event(key, 30_078, "y")).await).contains("expired"));
    let late = world.remote(key, &Keys::generate(), Some(unused)).await;
    assert!(reason(late.connect().await).contains("expired"));
}

/// Loss prevented: a machine whose time is over though it was renewed; a revoked one that is renewed.
#[tokio::test]
async fn a_client_is_given_more_time_and_a_revoked_one_is_not() {
    let world = World::new().await;
    let (key, _, remote) = world.paired().await;
    let [user] = &world.admin.users("spire".into()).await.unwrap()[..] else { panic!() };
    assert_eq!(user.name.as_deref(), Some("machine"));
    let until = world.time.now().after(u64::from(HOURS) * 3_600 * 2);
    world.admin.extend_user(user.id.clone(), until).await.unwrap();
    world.admin.extend_user(user.id.clone(), world.time.now()).await.unwrap();
    world.time.pass(u64::from(HOURS) * 3_600 + 10);
    remote.sign(world.event(key, 30_078, "x")).await.expect("what it has is never shortened");
    world.time.pass(u64::from(HOURS) * 3_600);
    assert!(reason(remote.sign(world.event(key, 30_078, "y")).await).contains("expired"));
    let later = world.time.now().after(3_600);
    world.admin.extend_user(user.id.clone(), later).await.unwrap();
    remote.sign(world.event(key, 30_078, "z")).await.expect("also after its end");
    world.admin.revoke_user(user.id.clone()).await.unwrap();
    let refused = world.admin.extend_user(user.id.clone(), later.after(3_600)).await;
    assert!(reason(refused).contains("no user"));
    assert!(reason(remote.sign(world.event(key, 30_078, "w")).await).contains("revoked"));
    let log = world.admin.audit(40).await.unwrap();
    assert_eq!(log["requests"][0]["key"], "spire", "{log}");
    assert_eq!(log["refused"][0]["outcome"], "refused");
    assert!(log["admin"].as_array().unwrap().iter().any(|row| row["method"] == "extend_user"));
}

/// Loss prevented: a token that was taken back still pairs, or its client goes on signing.
#[tokio::test]
async fn a_revoked_token_is_dead_with_what_was_made_of_it() {
    let world = World::new().await;
    let (key, _, remote) = world.paired().await;
    let policy = world.policy_id(Policy::SPIRE).await;
    let unused = world.token("spire", policy).await;
    let tokens = world.admin.tokens("spire".into()).await.unwrap();
    for token in tokens {
        world.admin.revoke_token(token.id).await.unwrap();
    }
    assert!(world.admin.tokens("spire".into()).await.unwrap().is_empty());
    let late = world.remote(key, &Keys::generate(), Some(unused)).await;
    assert!(reason(late.connect().await).contains("does not know the token"));
    assert!(reason(remote.sign(world.event(key, 30_078, "x")).await).contains("revoked"));
}

/// Loss prevented: a policy that was widened or has ended counts only after the next pairing.
#[tokio::test]
async fn a_changed_policy_counts_at_the_next_signature() {
    let world = World::new().await;
    let key = world.key("spire").await;
    let raw = Raw::new(&world, world.second_admin.clone()).await;
    let policy = json!({
        "name": "short", "expires_at": "2100-01-01T00:00:00Z",
        "rules": [{"method": "sign_event", "kind": 1}],
    });
    let create = json!({"id": "1", "method": "create_new_policy", "params": [policy.to_string()]});
    let now = || world.time.now().0;
    let ok = json!({"id": "1", "result": "[\"ok\"]"});
    assert_eq!(raw.ask(world.id, 24_134, &create, now()).await, ok);
    let id = world.policy_id("short").await;
    let secret = world.token("spire", id).await;
    let remote = world.remote(key, &Keys::generate(), Some(secret)).await;
    remote.connect().await.unwrap();
    remote.sign(world.event(key, 1, "x")).await.unwrap();
    assert!(reason(remote.sign(world.event(key, 7, "x")).await).contains("kind 7"));
    let rule = json!({"policyId": id, "rule": {"method": "sign_event", "kind": 7}});
    let add = json!({"id": "1", "method": "add_policy_rule", "params": [rule.to_string()]});
    assert_eq!(raw.ask(world.id, 24_134, &add, now()).await, ok);
    remote.sign(world.event(key, 7, "x")).await.unwrap();
    // 24133 to the bunker's own key is administration, too
    let rules = json!({"id": "1", "method": "get_policies", "params": []});
    let listed = raw.ask(world.id, 24_133, &rules, now()).await;
    assert!(listed["result"].as_str().unwrap().contains("\"expires_at\":\"2100-01-01T00:00:00Z\""));
    assert_eq!(listed["result"].as_str().unwrap().matches("\"current_usage_count\":1").count(), 2);
    // a cap and an end, too; what was used counts and is never taken back
    let cap = |most| {
        let rule = BunkerRule { method: "sign_event".to_owned(), kind: Some(1) };
        world.admin.change_policy(id, PolicyChange::Cap { rule, most })
    };
    cap(1).await.unwrap();
    reason(remote.sign(world.event(key, 1, "y")).await);
    cap(2).await.unwrap();
    remote.sign(world.event(key, 1, "y")).await.unwrap();
    assert!(reason(cap(1).await).contains("used 2 times"));
    let end = |at| world.admin.change_policy(id, PolicyChange::Ends(at));
    end(Some(Unix(now() - 1))).await.unwrap();
    reason(remote.sign(world.event(key, 7, "y")).await);
    end(None).await.unwrap();
    remote.sign(world.event(key, 7, "y")).await.unwrap();
    let (rule, most) = (BunkerRule { method: "nip44_encrypt".to_owned(), kind: None }, 1);
    let absent = world.admin.change_policy(id, PolicyChange::Cap { rule, most }).await;
    assert!(reason(absent).contains("no such rule"));
}

/// Loss prevented: software of others cannot use our bunker, so a machine of another make stays out.
#[tokio::test]
async fn a_client_of_another_make_connects_and_signs() {
    let world = World::new().await;
    let key = world.key("spire").await;
    let policy = world.spire_policy().await;
    let secret = world.token("spire", policy).await;
    let uri = format!("bunker://{key}?relay={}&secret={}", world.relays[0], secret.expose());
    let uri = NostrConnectURI::parse(&uri).unwrap();
    let app = Keys::generate();
    for _ in 0..2 {
        // it shows the secret at every start
        let client = NostrConnect::new(uri.clone(), app.clone(), PATIENCE, None).unwrap();
        assert_eq!(client.get_public_key().await.unwrap(), key.nostr());
        let event = EventBuilder::new(Kind::from(30_078), "x").build(key.nostr());
        client.sign_event(event).await.unwrap().verify().unwrap();
        let peer = Keys::generate();
        let payload = client.nip44_encrypt(&peer.public_key(), "hi").await.unwrap();
        assert_eq!(nip44::decrypt(peer.secret_key(), &key.nostr(), &payload).unwrap(), "hi");
        assert_eq!(client.nip44_decrypt(&peer.public_key(), &payload).await.unwrap(), "hi");
        let note = EventBuilder::new(Kind::from(1), "x").build(key.nostr());
        assert!(client.sign_event(note).await.is_err());
        client.shutdown().await;
    }
    let other = NostrConnect::new(uri, Keys::generate(), PATIENCE, None).unwrap();
    assert!(other.get_public_key().await.is_err(), "the secret is used");
}

/// Loss prevented: a client that logged out, as before a machine is sold, can still sign.
#[tokio::test]
async fn a_client_that_logs_out_is_gone() {
    let world = World::new().await;
    let (key, client, remote) = world.paired().await;
    let raw = Raw::new(&world, client).await;
    let now = || world.time.now().0;
    let ask = |method: &str| json!({"id": method, "method": method, "params": []});
    let answered = |method: &str, result: &str| json!({"id": method, "result": result});
    let pong = raw.ask(key, 24_133, &ask("ping"), now()).await;
    assert_eq!(pong, answered("ping", "pong"));
    let switch = raw.ask(key, 24_133, &ask("switch_relays"), now()).await;
    assert_eq!(switch, json!({"id": "switch_relays", "result": null}));
    let unknown = raw.ask(key, 24_133, &ask("make_coffee"), now()).await;
    assert!(unknown["error"].as_str().unwrap().contains("unknown method"));
    let logout = raw.ask(key, 24_133, &ask("logout"), now()).await;
    assert_eq!(logout, answered("logout", "ack"));
    let refused = remote.sign(world.event(key, 30_078, "x")).await;
    assert!(matches!(refused, Err(SignerError::Refused { .. })), "{refused:?}");
}
