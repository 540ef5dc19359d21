//! Uses that are counted, and messages that get no answer.

use bitspire_operator::signer::{BunkerAdmin as _, RemoteSigner as _};
use bitspire_shared::ids::PubKey;
use nostr::Keys;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::world::{World, public, reason};

/// A key under a policy that allows `uses` signatures of kind 1, and its client.
async fn capped(world: &World, uses: u64) -> (PubKey, Keys) {
    let key = world.key("spire").await;
    let raw = Raw::new(world, world.second_admin.clone()).await;
    let policy = json!({
        "name": "capped", "rules": [{"method": "sign_event", "kind": 1, "use_count": uses}],
    });
    let create = json!({"id": "1", "method": "create_new_policy", "params": [policy.to_string()]});
    let done = raw.ask(world.id, 24_134, &create, world.time.now().0).await;
    assert_eq!(done["result"], "[\"ok\"]", "{done}");
    let secret = world.token("spire", world.policy_id("capped").await).await;
    let client = Keys::generate();
    world.remote(key, &client, Some(secret)).await.connect().await.unwrap();
    (key, client)
}

fn sign(id: &str, content: &str) -> Value {
    let event = json!({"kind": 1, "content": content, "tags": [], "created_at": 5});
    json!({"id": id, "method": "sign_event", "params": [event.to_string()]})
}

/// Loss prevented: a cap that a restart sets back.
#[tokio::test]
async fn a_cap_holds_over_restarts() {
    let mut world = World::new().await;
    let (key, client) = capped(&world, 2).await;
    for n in 0..4 {
        let remote = world.remote(key, &client, None).await;
        let signed = remote.sign(world.event(key, 1, &n.to_string())).await;
        if n < 2 {
            signed.unwrap();
        } else {
            assert!(reason(signed).contains("was used 2 times"));
        }
        world.restart().await;
    }
}

/// Loss prevented: a reply that was lost with the process costs a second use, or can never be had
/// because the only use is spent.
#[tokio::test]
async fn a_repeat_is_answered_and_not_counted() {
    let mut world = World::new().await;
    let (key, client) = capped(&world, 1).await;
    let raw = Raw::new(&world, client).await;
    let now = world.time.now().0;
    let first = raw.ask(key, 24_133, &sign("a", "one"), now).await;
    assert!(first["result"].as_str().unwrap().contains("\"content\":\"one\""), "{first}");
    let again = raw.ask(key, 24_133, &sign("a", "one"), now).await;
    assert_eq!(again, first, "from memory");
    // the process ends after it counted and before its reply arrived
    world.restart().await;
    let anew = raw.ask(key, 24_133, &sign("a", "one"), now).await;
    let id = |reply: &Value| {
        let event: Value = serde_json::from_str(reply["result"].as_str().unwrap()).unwrap();
        event["id"].clone()
    };
    assert_eq!(id(&anew), id(&first));
    for other in [sign("b", "one"), sign("a", "two")] {
        let refused = raw.ask(key, 24_133, &other, now).await;
        assert!(refused["error"].as_str().unwrap().contains("was used 1 times"), "{refused}");
    }
    let audit = json!({"id": "1", "method": "get_audit", "params": []});
    let admin = Raw::new(&world, world.second_admin.clone()).await;
    let audit = admin.ask(world.id, 24_134, &audit, world.time.now().0).await;
    let audit: Value = serde_json::from_str(audit["result"].as_str().unwrap()).unwrap();
    let signatures = |part: &str| {
        let rows = audit[part].as_array().unwrap();
        rows.iter().filter(|row| row["method"] == "sign_event" && row["kind"] == 1).count()
    };
    assert_eq!((signatures("requests"), signatures("refused")), (1, 2), "{audit}");
}

/// Loss prevented: a repeat of what was allowed before opens a door that was shut since.
#[tokio::test]
async fn a_repeat_needs_a_live_grant_too() {
    let world = World::new().await;
    let (key, client) = capped(&world, 5).await;
    let raw = Raw::new(&world, client).await;
    let now = world.time.now().0;
    let first = raw.ask(key, 24_133, &sign("a", "one"), now).await;
    assert!(first["error"].is_null());
    let [user] = &world.admin.users("spire".into()).await.unwrap()[..] else { panic!() };
    world.admin.revoke_user(user.id.clone()).await.unwrap();
    let again = raw.ask(key, 24_133, &sign("a", "one"), now).await;
    assert!(again["error"].as_str().unwrap().contains("revoked"), "{again}");
}

/// Loss prevented: a bunker that talks to anybody about keys that it does not hold, or dies of a
/// message that is none.
#[tokio::test]
async fn garbage_and_unknown_keys_are_met_with_silence() {
    let world = World::new().await;
    let (key, client, _) = world.paired().await;
    let raw = Raw::new(&world, client).await;
    let now = world.time.now().0;
    let ping = json!({"id": "p", "method": "ping", "params": []});
    let absent = public(&Keys::generate());
    raw.send(&raw.letter(absent, 24_133, &ping.to_string(), now)).await;
    for garbage in ["", "x", "{}", "[]", "{\"id\":\"a\",\"result\":\"ack\"}"] {
        if !garbage.is_empty() {
            raw.send(&raw.letter(key, 24_133, garbage, now)).await;
        }
    }
    // encrypted for somebody else
    let mut foreign = raw.letter(absent, 24_133, &ping.to_string(), now);
    foreign = nostr::EventBuilder::new(foreign.kind, foreign.content.clone())
        .tag(nostr::Tag::public_key(key.nostr()))
        .sign_with_keys(&raw.keys)
        .unwrap();
    raw.send(&foreign).await;
    let pong = raw.ask(key, 24_133, &ping, now).await;
    assert_eq!(pong, json!({"id": "p", "result": "pong"}), "the first answer of all");
    assert_eq!(world.stats().answered, 3, "connect, get_public_key and this ping");
}

/// Loss prevented: one client, or a crowd of strangers, keeps the bunker busy for all others.
#[tokio::test]
async fn who_asks_too_often_is_not_answered() {
    let world = World::new().await;
    let (key, client, remote) = world.paired().await;
    let stranger = Raw::new(&world, Keys::generate()).await;
    let now = world.time.now().0;
    let ping = |n: u32| json!({"id": n.to_string(), "method": "ping", "params": []}).to_string();
    for n in 0..200 {
        stranger.send(&stranger.letter(key, 24_133, &ping(n), now)).await;
    }
    remote.sign(world.event(key, 30_078, "x")).await.expect("a known client is not in the crowd");
    let noisy = Raw::new(&world, client).await;
    for n in 0..200 {
        noisy.send(&noisy.letter(key, 24_133, &ping(n), now)).await;
    }
    let policy = world.policy_id("spirekeeper-spire").await;
    let other = world.key("other").await;
    let secret = world.token("other", policy).await;
    let quiet = world.remote(other, &Keys::generate(), Some(secret)).await;
    quiet.connect().await.expect("another key has its own bucket");
    let stats = world.stats();
    assert!(stats.limited > 200, "{stats:?}");
    assert!(stats.answered < 80 && stats.refused <= 40, "{stats:?}");
}
