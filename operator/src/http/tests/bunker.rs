//! The bunker over the API.

use serde_json::{Value, json};

use super::{As, Site};
use crate::fleet::tests::double::{Double, Fault};
use crate::testing::World;

/// Loss prevented: whoever may look at machines sees, or cuts off, every operator's keys; a token's
/// text in an answer.
#[tokio::test]
async fn the_bunker_is_the_instances_own() {
    let world = World::with("[relay]\nembedded = false\n").await;
    let bunker = Double::new();
    assert!(world.app.bunker.set(bunker.clone()).is_ok());
    let site = Site::of(world).await;
    let cookie = site.cookie();
    site.post(&cookie, "/api/v1/operators/init", Value::Null).await.expect(201);
    let machine = json!({"name": "Bar", "fiat_code": "EUR", "wallet_id": "till"});
    site.post(&cookie, "/api/v1/dca/machines", machine).await.expect(201);
    let relays = json!({"relays": ["wss://relay.example"]});
    let paired = site.post(&cookie, "/api/v1/dca/machines/1/pair", relays).await.expect(200);
    let client = bunker.redeem("spire-1");

    let owner = json!({"name": "page", "role": "owner"});
    let owner = site.post(&cookie, "/api/v1/tokens", owner).await.expect(201);
    let owner = As::Token(owner["token"].as_str().unwrap().to_owned());
    let paths = ["", "/keys", "/policies", "/audit", "/keys/spire-1/tokens", "/keys/spire-1/users"];
    for path in paths {
        site.get(&owner, &format!("/api/v1/bunker{path}")).await.expect(403);
    }
    let revoke = "/api/v1/bunker/revoke";
    site.post(&owner, revoke, json!({"key": "spire-1"})).await.expect(403);
    site.post(&owner, "/api/v1/bunker/keys/spire-1/unlock", Value::Null).await.expect(403);
    let mut shown = String::new();
    for path in paths {
        shown += &site.get(&cookie, &format!("/api/v1/bunker{path}")).await.expect(200).to_string();
    }
    let secret = bunker.state().tokens[0].1.secret().unwrap().expose().to_owned();
    assert!(!shown.contains(&secret) && shown.contains("spire-1"), "{shown}");
    let users = site.get(&cookie, "/api/v1/bunker/keys/spire-1/users").await.expect(200);
    assert_eq!((&users[0]["npub"], &users[0]["revoked_at"]), (&json!(client.npub()), &Value::Null));
    let policies = site.get(&cookie, "/api/v1/bunker/policies").await.expect(200);
    assert_eq!(policies[0]["rules"][0]["kind"], 21_000, "{policies}");

    let (name, key) = (paired["bunker_key_name"].as_str().unwrap(), json!({"key": "spire-1"}));
    bunker.fail("revoke_user", Fault::Refused);
    let part = site.post(&cookie, revoke, key.clone()).await.expect(207);
    assert_eq!(part["steps"][0]["ok"], false, "{part}");
    assert_eq!(bunker.live_users(name), 1);
    site.post(&cookie, revoke, key).await.expect(200);
    assert_eq!(bunker.live_users(name), 0);
    site.post(&cookie, revoke, json!({"user": "0"})).await.expect(200);
    site.post(&cookie, revoke, json!({"token": 1})).await.expect(200);
    site.post(&cookie, revoke, json!({})).await.expect(400);
    let log = site.get(&cookie, "/api/v1/audit-log").await.expect(200).to_string();
    assert!(log.contains("bunker.revoke") && log.contains("bunker:key spire-1"), "{log}");
    bunker.fail("keys", Fault::Lost);
    site.get(&cookie, "/api/v1/bunker/keys").await.expect(502);
    site.stop().await;
}

/// Loss prevented: a renewal by somebody who may only look.
#[tokio::test]
async fn a_renewal_is_for_whoever_may_pair() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let machine = json!({"name": "Bar", "fiat_code": "EUR", "wallet_id": "till"});
    site.post(&cookie, "/api/v1/dca/machines", machine).await.expect(201);
    let viewer = json!({"name": "page", "role": "viewer"});
    let viewer = site.post(&cookie, "/api/v1/tokens", viewer).await.expect(201);
    let viewer = As::Token(viewer["token"].as_str().unwrap().to_owned());
    let path = "/api/v1/dca/machines/1/renew";
    site.post(&viewer, path, json!({})).await.expect(403);
    site.post(&cookie, path, json!({"hours": 0})).await.expect(400);
    site.post(&cookie, path, json!({})).await.expect(409);
    site.stop().await;
}
