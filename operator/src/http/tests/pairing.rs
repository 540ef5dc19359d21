//! Pairing over the API.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitspire_shared::ids::JournalSeq;
use bitspire_shared::time::Unix;
use rqrr::{Grid, SimpleGrid};
use serde_json::{Value, json};

use super::{As, Site};
use crate::fleet::tests::double::{Double, Fault};
use crate::ids::MachineId;
use crate::store::cassettes::{Heartbeat, set_heartbeat};
use crate::store::{Json, Tx};
use crate::testing::World;

const PAIR: &str = "/api/v1/dca/machines/1/pair";

/// A daemon with a bunker, and one machine.
pub(super) async fn site() -> (Site, Arc<Double>) {
    let world = World::with("[relay]\nembedded = false\n").await;
    let bunker = Double::new();
    assert!(world.app.bunker.set(bunker.clone()).is_ok());
    let site = Site::of(world).await;
    let machine = json!({"name": "Bar", "fiat_code": "EUR", "wallet_id": "till"});
    site.post(&site.cookie(), "/api/v1/dca/machines", machine).await.expect(201);
    (site, bunker)
}

/// What a scanner reads from a code, module by module.
fn scanned(qr: &Value) -> String {
    let size: usize = qr["size"].as_u64().unwrap().try_into().unwrap();
    let dark: BTreeSet<(usize, usize)> = qr["path"]
        .as_str()
        .unwrap()
        .split_terminator('z')
        .map(|square| {
            let at = square.strip_prefix('M').and_then(|at| at.strip_suffix("h1v1h-1")).unwrap();
            let (x, y) = at.split_once(' ').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        })
        .collect();
    let code = SimpleGrid::from_func(size, |x, y| dark.contains(&(x, y)));
    Grid::new(code).decode().unwrap().1
}

/// Loss prevented: a seed that a cache keeps, that a viewer gets, or that is shown a second time.
#[tokio::test]
async fn a_seed_is_in_one_answer_for_whoever_may_pair() {
    let (site, bunker) = site().await;
    let cookie = site.cookie();
    let relays = json!({"relays": ["wss://relay.example"], "qr": true});
    let refused = site.post(&cookie, PAIR, relays.clone()).await.expect(400);
    assert!(refused["error"].as_str().unwrap().contains("operator init"), "{refused}");
    assert_eq!(refused["code"], "no_identity");
    let made = site.post(&cookie, "/api/v1/operators/init", Value::Null).await.expect(201);
    assert!(made["operator_npub"].as_str().unwrap().starts_with("npub1"));
    site.post(&cookie, "/api/v1/operators/init", Value::Null).await.expect(409);
    let viewer = json!({"name": "page", "role": "viewer"});
    let viewer = site.post(&cookie, "/api/v1/tokens", viewer).await.expect(201);
    let viewer = As::Token(viewer["token"].as_str().unwrap().to_owned());
    site.post(&viewer, PAIR, relays.clone()).await.expect(403);
    for path in ["/api/v1/dca/machines/1/revoke", "/api/v1/operators/init"] {
        site.post(&viewer, path, Value::Null).await.expect(403);
    }
    let digits = json!({"digits": "12345678"});
    let confirm = "/api/v1/dca/machines/1/confirm";
    site.post(&viewer, confirm, digits.clone()).await.expect(403);
    site.post(&cookie, confirm, digits).await.expect(409);
    for body in [json!({}), json!({"relays": ["ws://127.0.0.1:1"]}), json!({"relay": "x"})] {
        site.post(&cookie, PAIR, body).await.expect(400);
    }
    site.post(&cookie, "/api/v1/dca/machines/9/pair", relays.clone()).await.expect(404);

    bunker.fail("create_token", Fault::Refused);
    let failed = site.post(&cookie, PAIR, relays.clone()).await.expect(502);
    let done: Vec<_> = failed["steps"].as_array().unwrap().iter().map(|s| &s["step"]).collect();
    assert_eq!(done, ["create_key", "policy"], "{failed}");
    assert_eq!(failed["code"], "bunker_refused");
    let paired = site.post(&cookie, PAIR, relays).await;
    assert_eq!(paired.headers["cache-control"], "no-store");
    let paired = paired.expect(200);
    let seed = paired["seed_url"].as_str().unwrap();
    assert!(seed.starts_with("spire-seed:v1:"), "{seed}");
    assert_eq!(scanned(&paired["qr"]), seed);
    assert_eq!(paired["bunker_key_name"], "spire-1-2");
    let machine = site.get(&cookie, "/api/v1/dca/machines/1").await.expect(200);
    assert_eq!(machine["bunker_token_expires_at"], paired["token_expires_at"]);
    assert_eq!(machine["confirmation"], "awaiting_session");
    let attempts = site.get(&cookie, "/api/v1/dca/machines/1/pairings").await.expect(200);
    let ends: Vec<_> = attempts.as_array().unwrap().iter().map(|a| &a["step"]).collect();
    assert_eq!(ends, ["old_revoked", "failed"]);
    let log = site.get(&cookie, "/api/v1/audit-log").await.expect(200);
    for shown in [&machine, &attempts, &log] {
        assert!(!shown.to_string().contains(seed), "{shown}");
    }

    bunker.fail("revoke_token", Fault::Refused);
    let revoke = "/api/v1/dca/machines/1/revoke";
    let part = site.post(&cookie, revoke, Value::Null).await.expect(207);
    let failed = part["steps"].as_array().unwrap().iter().filter(|step| step["ok"] == false);
    assert_eq!(failed.count(), 1, "{part}");
    site.post(&cookie, revoke, Value::Null).await.expect(200);
    site.stop().await;
}

/// Loss prevented: counts and faults of the machine that was there before, taken for those of the
/// one that is paired now; a refill by counts that sales have changed since.
#[tokio::test]
async fn what_a_machine_said_since_it_was_paired_is_shown() {
    let (site, _bunker) = site().await;
    let cookie = site.cookie();
    site.post(&cookie, "/api/v1/operators/init", Value::Null).await.expect(201);
    let relays = json!({"relays": ["wss://relay.example"]});
    let paired = site.post(&cookie, PAIR, relays).await.expect(200);
    let paired_at = paired["paired_at"].as_u64().unwrap();
    let said = json!({
        "versions": {"agent": "0.1.0"},
        "devices": {"acceptor": {"role": "acceptor", "protocol": "id003", "version": null,
            "status": "fault", "fault": "jam"}},
        "cassettes": {"1": {"denomination_minor": 2_000, "count": 480}},
        "recycled": {"since": 0, "notes": {"1": {"2000": 30}}},
        "cashbox": {"notes": {"1000": 3, "5000": 1}, "capacity": 600, "emptied_seq": 0},
        "applied_documents": {}, "applied_changes": [], "open_transactions": [],
        "alerts": [{"code": "jam", "detail": "open the lid", "since": paired_at}],
        "journal_seq": 7, "journal_head": "00".repeat(32),
    });
    let machine = "/api/v1/dca/machines/1";
    for (at, known) in [(paired_at - 1, false), (paired_at, true)] {
        let heartbeat = Heartbeat {
            machine_id: MachineId(1),
            journal_seq: JournalSeq(7),
            body: Json(said.clone()),
            received_at: Unix(at),
        };
        let write = move |tx: &Tx<'_>| set_heartbeat(tx, &heartbeat);
        site.world.app.store.write(write).await.unwrap();
        let shown = site.get(&cookie, machine).await.expect(200);
        let held = site.get(&cookie, &format!("{machine}/cassettes")).await.expect(200);
        assert_eq!(shown["reported"].is_null(), !known, "{shown}");
        assert_eq!(held["reported_at"], if known { json!(at) } else { Value::Null });
        if !known {
            assert_eq!(held["reported"], json!([]));
            continue;
        }
        let bay = json!({"bay": "1", "denomination": 20, "denomination_minor": 2_000, "count": 480,
            "recycled": 30});
        assert_eq!(held["reported"], json!([bay]));
        let reported = &shown["reported"];
        let cashbox = &reported["cashbox"];
        assert_eq!((&cashbox["count"], &cashbox["value"]), (&json!(4), &json!("80.00 EUR")));
        assert_eq!(reported["devices"]["acceptor"]["fault"], "jam");
        assert_eq!(reported["alerts"][0]["detail"], "open the lid");
        let list = site.get(&cookie, "/api/v1/dca/machines").await.expect(200);
        assert_eq!(list[0]["reported"], *reported);
    }
    site.stop().await;
}

/// Loss prevented: a page that hangs, or says "done", where there is no bunker.
#[tokio::test]
async fn without_a_bunker_it_says_so() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let machine = json!({"name": "Bar", "fiat_code": "EUR", "wallet_id": "till"});
    site.post(&cookie, "/api/v1/dca/machines", machine).await.expect(201);
    let relays = json!({"relays": ["wss://relay.example"]});
    let refused = site.post(&cookie, PAIR, relays).await.expect(503);
    assert!(refused["error"].as_str().unwrap().contains("no bunker"), "{refused}");
    assert_eq!(refused["code"], "no_bunker");
    site.post(&cookie, "/api/v1/operators/init", Value::Null).await.expect(503);
    let operators = site.get(&cookie, "/api/v1/operators").await.expect(200);
    assert!(operators["bunker_admin_npub"].as_str().unwrap().starts_with("npub1"));
    site.stop().await;
}
