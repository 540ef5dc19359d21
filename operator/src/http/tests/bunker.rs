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

/// Loss prevented: a policy without the cap that was asked for; a token's text in a second answer, or
/// made by somebody who may only look.
#[tokio::test]
async fn what_the_bunker_is_to_hold_is_made_over_the_api() {
    let world = World::with("[relay]\nembedded = false\n").await;
    let bunker = Double::new();
    assert!(world.app.bunker.set(bunker.clone()).is_ok());
    let site = Site::of(world).await;
    let cookie = site.cookie();
    let at = |path: &str| format!("/api/v1/bunker{path}");
    let rule = json!({"method": "sign_event", "kind": 1, "max_usage_count": 5});
    let policy = json!({"name": "notes", "rules": [rule], "expires_at": 4_000_000_000u64});
    let token = json!({"client_name": "phone", "policy": 1, "hours": 24});
    let owner = json!({"name": "page", "role": "owner"});
    let owner = site.post(&cookie, "/api/v1/tokens", owner).await.expect(201);
    let owner = As::Token(owner["token"].as_str().unwrap().to_owned());
    for (path, body) in [
        ("/keys", json!({"name": "mine"})),
        ("/policies", policy.clone()),
        ("/policies/1/rules", rule.clone()),
        ("/policies/1/end", json!({"expires_at": null})),
        ("/policies/1/cap", rule.clone()),
        ("/keys/mine/tokens", token.clone()),
    ] {
        site.post(&owner, &at(path), body).await.expect(403);
    }
    assert!(bunker.state().keys.is_empty() && bunker.state().policies.is_empty());

    let made = site.post(&cookie, &at("/keys"), json!({"name": "mine"})).await.expect(201);
    assert!(made["npub"].as_str().unwrap().starts_with("npub1"), "{made}");
    let made = site.post(&cookie, &at("/policies"), policy.clone()).await.expect(201);
    assert_eq!(made["id"], 1);
    site.post(&cookie, &at("/policies"), policy).await.expect(409);
    for unclear in [
        json!({"method": "sign_event"}),
        json!({"method": "sign_event", "kind": 65_536}),
        json!({"method": "nip44_encrypt", "kind": 1}),
        json!({"method": "connect"}),
    ] {
        site.post(&cookie, &at("/policies/1/rules"), unclear).await.expect(400);
    }
    let more = json!({"method": "nip44_encrypt"});
    site.post(&cookie, &at("/policies/1/rules"), more).await.expect(200);
    let cap = json!({"method": "sign_event", "kind": 1, "max_usage_count": 9});
    site.post(&cookie, &at("/policies/1/cap"), cap).await.expect(200);
    site.post(&cookie, &at("/policies/1/cap"), json!({"method": "nip44_encrypt"}))
        .await
        .expect(400);
    site.post(&cookie, &at("/policies/1/end"), json!({})).await.expect(400);
    let end = json!({"expires_at": 4_100_000_000u64});
    site.post(&cookie, &at("/policies/1/end"), end).await.expect(200);
    let shown = site.get(&cookie, &at("/policies")).await.expect(200);
    assert_eq!(shown[0]["expires_at"], 4_100_000_000u64, "{shown}");
    assert_eq!(shown[0]["rules"][0]["max_usage_count"], 9, "{shown}");
    assert_eq!(shown[0]["rules"][1]["method"], "nip44_encrypt", "{shown}");

    site.post(&cookie, &at("/keys/nobody/tokens"), token.clone()).await.expect(404);
    let made = site.post(&cookie, &at("/keys/mine/tokens"), token).await.expect(201);
    let url = made["bunker_url"].as_str().unwrap();
    let secret = bunker.state().tokens[0].1.secret().unwrap().expose().to_owned();
    assert!(url.starts_with("bunker://") && url.contains(&secret), "{url}");
    let listed = site.get(&cookie, &at("/keys/mine/tokens")).await.expect(200).to_string();
    let log = site.get(&cookie, "/api/v1/audit-log").await.expect(200).to_string();
    assert!(!listed.contains(&secret) && !log.contains(&secret));
    for act in ["create_key", "create_policy", "add_rule", "change_policy", "create_token"] {
        assert!(log.contains(&format!("bunker.{act}")), "{act}: {log}");
    }

    // what it would not hold is not promised
    bunker.state().foreign = true;
    let capped = json!({"name": "other", "rules": [rule]});
    let refused = site.post(&cookie, &at("/policies"), capped).await;
    assert!(refused.body.to_string().contains("no usage caps"), "{:?}", refused.body);
    assert_eq!(bunker.state().policies.len(), 1);
    site.stop().await;
}
