//! Machines, people and tokens.

use std::os::unix::fs::PermissionsExt as _;

use bitspire_shared::ids::{BayId, JournalSeq};
use bitspire_shared::money::Denomination;
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde_json::{Value, json};

use super::{As, Site};
use crate::ids::MachineId;
use crate::store::cassettes::{Cassette, Heartbeat, heartbeat, list, set, set_heartbeat};
use crate::store::{Json, Read, StoreError, Tx};
use crate::testing::key;

fn machine(name: &str, wallet: &str) -> Value {
    json!({ "name": name, "fiat_code": "EUR", "wallet_id": wallet })
}

/// Loss prevented: a route that answers without anybody having shown who they are.
#[tokio::test]
async fn every_route_is_behind_the_gate() {
    let site = Site::new().await;
    for (method, path) in [
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/dca/machines"),
        ("POST", "/api/v1/dca/machines"),
        ("GET", "/api/v1/dca/machines/1"),
        ("GET", "/api/v1/dca/settlements"),
        ("GET", "/api/v1/dca/settlements/1"),
        ("POST", "/api/v1/dca/settlements/1/verify"),
        ("POST", "/api/v1/dca/settlements/1/release"),
        ("POST", "/api/v1/dca/settlements/1/resume"),
        ("GET", "/api/v1/dca/distribution"),
        ("POST", "/api/v1/dca/legs/1/end"),
        ("GET", "/api/v1/dca/settlements/all"),
        ("GET", "/api/v1/dca/ledger"),
        ("GET", "/api/v1/dca/balances"),
        ("GET", "/api/v1/dca/liabilities"),
        ("GET", "/api/v1/dca/payouts"),
        ("POST", "/api/v1/dca/payouts/0/close"),
        ("GET", "/api/v1/dca/rules"),
        ("POST", "/api/v1/dca/rules"),
        ("POST", "/api/v1/dca/rules/1/cancel"),
        ("GET", "/api/v1/dca/lps"),
        ("POST", "/api/v1/dca/lps"),
        ("GET", "/api/v1/dca/lps/1"),
        ("PUT", "/api/v1/dca/lps/1/terms"),
        ("POST", "/api/v1/dca/lps/1/deposits"),
        ("POST", "/api/v1/dca/lps/1/settle"),
        ("POST", "/api/v1/dca/lp-deposits/1/confirm"),
        ("GET", "/api/v1/dca/rejected"),
        ("GET", "/api/v1/metrics"),
        ("GET", "/api/v1/audit-log"),
        ("POST", "/api/v1/audit"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/users"),
        ("POST", "/api/v1/simulator/pay"),
        ("GET", "/api/v1/nothing"),
    ] {
        let got = site.call(&As::Nobody, method, path, Value::Null).await;
        assert_eq!(got.status, 401, "{method} {path}");
        let guess = As::Token("bitspire_00".into());
        assert_eq!(site.call(&guess, method, path, Value::Null).await.status, 401);
    }
    let path = site.world.folder.path().join("api.cookie");
    let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "others could read the cookie");
    let health = site.get(&site.cookie(), "/api/v1/health").await;
    assert_eq!(health.headers["cache-control"], "no-store");
    assert_eq!(health.expect(200)["store"]["ok"], true);
    site.stop().await;
}

/// Loss prevented: a machine that shares a key or a wallet with another, so that one's payments
/// are taken for the other's.
#[tokio::test]
async fn a_machine_is_added_once_and_whole() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let path = "/api/v1/dca/machines";
    let npub = key().npub();
    let mut first = machine("Bar", "till");
    first["npub"] = npub.clone().into();
    first["cash_in_fee_fraction"] = "0.05".into();
    first["cash_out_fee_fraction"] = json!(0.0777);
    let added = site.post(&cookie, path, first).await.expect(201);
    assert_eq!(added["spire_npub"], npub.as_str());
    assert_eq!(added["cash_out_fee_fraction"], json!(0.0777));
    assert_eq!(added["confirmation"], "unpaired");
    let refusals = [
        (machine("Other", "till"), 409, "wallet_id", "another machine"),
        (
            json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar", "npub": npub}),
            409,
            "npub",
            "Bar",
        ),
        (machine("", "bar"), 400, "name", "name"),
        (machine("a\nb", "bar"), 400, "name", "control characters"),
        (machine("O", "nowhere"), 400, "wallet_id", "till"),
        (json!({"name": "O", "fiat_code": "XAU", "wallet_id": "bar"}), 400, "fiat_code", "XAU"),
        (
            json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar", "npub": "nsec1"}),
            400,
            "npub",
            "npub",
        ),
        (json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar", "fee": 1}), 400, "fee", "fee"),
        (
            json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar",
                "cash_in_fee_fraction": 0.16}),
            400,
            "cash_in_fee_fraction",
            "150000",
        ),
        (
            json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar",
                "cash_out_fee_fraction": 5}),
            400,
            "cash_out_fee_fraction",
            "fraction from 0 to 1",
        ),
        (
            json!({"name": "O", "fiat_code": "EUR", "wallet_id": "bar", "operator_id": 9}),
            404,
            "",
            "operator",
        ),
    ];
    for (body, status, field, words) in refusals {
        let refused = site.post(&cookie, path, body.clone()).await;
        let error = refused.body["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(refused.status, status, "{body}: {error}");
        assert!(error.contains(words) && !error.contains(" at line "), "{body}: {error}");
        // what a page shows beside the field that is to blame
        assert_eq!(refused.body["field"].as_str().unwrap_or_default(), field, "{body}: {error}");
    }
    let all = site.get(&cookie, path).await.expect(200);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    let one = site.get(&cookie, "/api/v1/dca/machines/1").await.expect(200);
    assert_eq!(one["name"], "Bar");
    for (id, status) in [("2", 404), ("x", 400), ("-1", 404)] {
        let path = format!("/api/v1/dca/machines/{id}");
        assert_eq!(site.get(&cookie, &path).await.status, status, "{id}");
    }
    let edit = json!({"place": "Corner", "max_cash_in_sats": 5});
    let edited = site.call(&cookie, "PATCH", "/api/v1/dca/machines/1", edit).await.expect(200);
    assert_eq!((&edited["place"], &edited["max_cash_in_sats"]), (&json!("Corner"), &json!(5)));
    let edit = json!({"max_cash_in_sats": null});
    let edited = site.call(&cookie, "PATCH", "/api/v1/dca/machines/1", edit).await.expect(200);
    assert_eq!((&edited["place"], &edited["max_cash_in_sats"]), (&json!("Corner"), &json!(null)));
    let off = json!({"reason": "stolen"});
    let off = site.post(&cookie, "/api/v1/dca/machines/1/disable", off).await.expect(200);
    assert_eq!(off["disabled_reason"], "stolen");
    let on = site.post(&cookie, "/api/v1/dca/machines/1/enable", Value::Null).await.expect(200);
    assert_eq!(on["disabled_reason"], Value::Null);
    let log = site.get(&cookie, "/api/v1/audit-log?subject=machine:1").await.expect(200);
    let actions: Vec<_> = log.as_array().unwrap().iter().map(|row| &row["action"]).collect();
    let expected =
        ["machine.enable", "machine.disable", "machine.edit", "machine.edit", "machine.add"];
    assert_eq!(actions, expected);
    // from what to what
    assert_eq!(log[0]["detail"]["before"]["reason"], "stolen", "{log}");
    assert_eq!(log[2]["detail"]["before"]["max_cash_in_sats"], 5, "{log}");
    assert_eq!(log[3]["detail"]["before"]["place"], "", "{log}");
    site.stop().await;
}

/// Loss prevented: somebody who may look gives themselves more, or one operator runs another's
/// machines.
#[tokio::test]
async fn roles_and_operators_hold() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let person = Keys::generate();
    let npub = bitspire_shared::ids::PubKey::new(person.public_key()).unwrap().npub();
    let user = json!({"npub": npub, "name": "Ada", "role": "owner"});
    site.post(&cookie, "/api/v1/users", user.clone()).await.expect(201);
    site.post(&cookie, "/api/v1/users", user).await.expect(409);
    let ada = As::Key(person);
    site.post(&ada, "/api/v1/dca/machines", machine("Bar", "till")).await.expect(201);
    let token = json!({"name": "page", "role": "viewer", "days": 1});
    let token = site.post(&ada, "/api/v1/tokens", token).await.expect(201);
    let viewer = As::Token(token["token"].as_str().unwrap().to_owned());
    let seen = site.get(&viewer, "/api/v1/dca/machines").await.expect(200);
    assert_eq!(seen.as_array().unwrap().len(), 1);
    for (path, body) in [
        ("/api/v1/dca/machines", machine("Mine", "bar")),
        ("/api/v1/tokens", json!({"name": "more", "role": "owner"})),
        ("/api/v1/dca/machines/1/disable", json!({"reason": "x"})),
        ("/api/v1/simulator/reachable", json!({"reachable": false})),
    ] {
        let refused = site.post(&viewer, path, body).await.expect(403);
        assert!(refused["error"].as_str().unwrap().contains("viewer"), "{refused}");
    }
    let more = json!({"name": "more", "role": "super"});
    site.post(&ada, "/api/v1/tokens", more).await.expect(400);
    site.get(&ada, "/api/v1/audit-log").await.expect(400);
    // a machine of somebody else is not there
    let other = site.world.app.store.write(|tx| {
        let operator = crate::store::operators::Operator {
            name: "other".into(),
            pubkey: None,
            signer: None,
            bunker_key_name: None,
            created_at: bitspire_shared::time::Unix(1),
        };
        crate::store::operators::insert(tx, &operator)
    });
    let other: Result<_, crate::store::StoreError> = other.await;
    let mut theirs = machine("Theirs", "kiosk");
    site.post(&cookie, "/api/v1/dca/machines", theirs.clone()).await.expect(400);
    theirs["operator_id"] = json!(other.unwrap());
    let theirs = site.post(&cookie, "/api/v1/dca/machines", theirs).await.expect(201);
    let path = format!("/api/v1/dca/machines/{}", theirs["id"]);
    site.get(&ada, &path).await.expect(404);
    site.post(&ada, &format!("{path}/disable"), json!({"reason": "x"})).await.expect(404);
    site.get(&ada, &format!("/api/v1/audit-log?subject=machine:{}", theirs["id"]))
        .await
        .expect(404);
    site.get(&ada, "/api/v1/audit-log?subject=machine:1").await.expect(200);
    // an end is an end
    let id = &token["id"];
    site.post(&ada, &format!("/api/v1/tokens/{id}/revoke"), Value::Null).await.expect(200);
    site.get(&viewer, "/api/v1/dca/machines").await.expect(401);
    site.post(&cookie, "/api/v1/users/1/disable", Value::Null).await.expect(200);
    site.get(&ada, "/api/v1/dca/machines").await.expect(401);
    site.stop().await;
}

/// Loss prevented: a token that lies in the database for whoever copies it.
#[tokio::test]
async fn a_token_is_shown_once_and_not_stored() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let body = json!({"name": "page", "role": "owner"});
    let made = site.post(&cookie, "/api/v1/tokens", body).await.expect(201);
    let token = made["token"].as_str().unwrap().to_owned();
    let listed = site.get(&cookie, "/api/v1/tokens").await.expect(200);
    assert!(!listed.to_string().contains(&token));
    site.get(&As::Token(token.clone()), "/api/v1/health").await.expect(200);
    for entry in std::fs::read_dir(site.world.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }
    site.stop().await;
}

/// Loss prevented: a demonstration's controls in reach where money is real, or of the wrong hands.
#[tokio::test]
async fn the_simulator_obeys_owners() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let balances = site.get(&cookie, "/api/v1/simulator/balances").await.expect(200);
    assert_eq!(balances["till"]["msat"], 1_000_000_000);
    let off = json!({"reachable": false});
    site.post(&cookie, "/api/v1/simulator/reachable", off).await.expect(200);
    let balances = site.get(&cookie, "/api/v1/simulator/balances").await.expect(200);
    assert!(balances["till"]["error"].as_str().unwrap().contains("reached"), "{balances}");
    let bad = json!({"bolt11": "lnbc1nothing"});
    site.post(&cookie, "/api/v1/simulator/pay", bad).await.expect(409);
    let script = json!({"payments": ["fail", "pend"]});
    let scripted = site.post(&cookie, "/api/v1/simulator/script", script).await.expect(200);
    assert_eq!(scripted["scripted"], 2);
    site.stop().await;
}

/// Loss prevented: a fleet in trouble that the operator's monitoring shows as quiet.
#[tokio::test]
async fn the_figures_are_those_of_the_instance() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let path = "/api/v1/dca/machines";
    site.post(&cookie, path, machine("Bar", "till")).await.expect(201);
    let about = crate::rpc::tally::About::default;
    let refused = bitspire_shared::admit::Refusal::NotInRoster.before_signature();
    let (unix, mono) = (bitspire_shared::time::Unix(1), bitspire_shared::time::Mono(0));
    site.world.app.refusals.refused(refused, unix, mono, about);
    site.world.app.wallet_asked("till", false);
    let token = json!({"name": "prometheus", "role": "viewer"});
    let token = site.post(&cookie, "/api/v1/tokens", token).await.expect(201);
    let viewer = As::Token(token["token"].as_str().unwrap().to_owned());
    let got = site.get(&viewer, "/api/v1/metrics").await;
    assert_eq!(got.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = got.expect(200);
    let text = text.as_str().unwrap();
    for line in [
        "bitspire_rpc_refused_total{reason=\"not_in_roster\"} 1",
        "bitspire_machines{standing=\"unpaired\"} 1",
        "bitspire_outbox_waiting{topic=\"document\"} 0",
        "bitspire_webhook_waiting 0",
        "bitspire_webhook_tries 0",
        "bitspire_store_up 1",
    ] {
        assert!(text.lines().any(|got| got == line), "{line} in {text}");
    }
    assert!(text.contains("bitspire_wallet_up{wallet=\"till\"}"), "{text}");
    site.stop().await;
}

/// Loss prevented: one operator's sales paid into another one's wallet, by a name that was typed.
#[tokio::test]
async fn a_wallet_is_its_operators_own() {
    let more = "[relay]\nembedded = false\n\
                [wallets.ours]\nkind = 'simulated'\noperator = 'operator'\n\
                [wallets.theirs]\nkind = 'simulated'\noperator = 'somebody else'\n";
    let site = Site::of(crate::testing::World::with(more).await).await;
    let cookie = site.cookie();
    let name = site.get(&cookie, "/api/v1/operators").await.expect(200);
    assert_eq!(name["operators"][0]["name"], "operator", "{name}");
    let path = "/api/v1/dca/machines";
    let refused = site.post(&cookie, path, machine("Bar", "theirs")).await.expect(400);
    assert_eq!(refused["field"], "wallet_id", "{refused}");
    site.post(&cookie, path, machine("Bar", "ours")).await.expect(201);
    site.post(&cookie, path, machine("Till", "till")).await.expect(201);
    site.stop().await;
}

/// Loss prevented: tags that nobody can type again, or of somebody else's machine; a preview that
/// changes fees.
#[tokio::test]
async fn fees_go_out_by_tag_and_are_shown_first() {
    let site = Site::new().await;
    let cookie = site.cookie();
    for (name, wallet) in [("Bar", "till"), ("Café", "bar")] {
        site.post(&cookie, "/api/v1/dca/machines", machine(name, wallet)).await.expect(201);
    }
    let tags = |tags: Value| json!({ "tags": tags });
    let path = "/api/v1/dca/machines/1/tags";
    let set = site.call(&cookie, "PUT", path, tags(json!(["trial", "north", "trial"]))).await;
    assert_eq!(set.expect(200)["tags"], json!(["north", "trial"]));
    site.call(&cookie, "PUT", path, tags(json!(["Two words"]))).await.expect(400);
    let listed = site.get(&cookie, "/api/v1/dca/machines").await.expect(200);
    assert_eq!(listed[0]["tags"], json!(["north", "trial"]));
    let wish = json!({ "stages": ["trial"], "rest": true, "cash_out_fee_fraction": "0.05" });
    let plan = site.post(&cookie, "/api/v1/dca/fees/preview", wish.clone()).await.expect(200);
    let line = &plan["machines"][1];
    assert_eq!((&line["name"], &line["stage"]), (&json!("Café"), &json!(1)), "{plan}");
    assert_eq!(line["from"]["cash_out_fee_fraction"].as_f64(), Some(0.0), "{plan}");
    assert_eq!(line["to"]["cash_out_fee_fraction"], json!(0.05), "{plan}");
    assert_eq!(line["waits"], false, "it has no key");
    let listed = site.get(&cookie, "/api/v1/dca/machines").await.expect(200);
    let fee = listed[0]["cash_out_fee_fraction"].as_f64();
    assert_eq!(fee, Some(0.0), "a look changes nothing");
    let begun = site.post(&cookie, "/api/v1/dca/rollouts", wish).await.expect(201);
    assert_eq!(begun["id"], 1);
    let log = site.get(&cookie, "/api/v1/audit-log?subject=machine:1").await.expect(200);
    assert!(log.to_string().contains("machine.tags"), "{log}");
    for (path, body) in [
        ("/api/v1/dca/fees/preview", json!({ "rest": true })),
        ("/api/v1/dca/fees/preview", json!({ "cash_in_fee_fraction": "0.01" })),
        ("/api/v1/dca/rollouts", json!({ "rest": true, "cash_in_fee_fraction": "0.9" })),
        ("/api/v1/dca/rollouts/7/stop", Value::Null),
    ] {
        site.post(&cookie, path, body).await.expect(400);
    }
    site.stop().await;
}

/// Loss prevented: notes that are missing from a bay, and a look at the page that makes one side's
/// number the other's, so that nobody ever sees that they were missing.
#[tokio::test]
async fn a_difference_is_shown_with_both_numbers_and_overwrites_neither() {
    let site = Site::new().await;
    let cookie = site.cookie();
    site.post(&cookie, "/api/v1/dca/machines", machine("Bar", "till")).await.expect(201);
    let (machine_id, bay) = (MachineId(1), BayId::new(1).unwrap());
    let denomination = Denomination::from_minor(2_000).unwrap();
    let ours = Cassette { machine_id, bay, denomination, count: 100, updated_at: Unix(5) };
    let said = json!({
        "versions": {}, "devices": {}, "cashbox": null,
        "cassettes": {"1": {"denomination_minor": 2_000, "count": 97}},
        "applied_documents": {}, "applied_changes": [], "open_transactions": [], "alerts": [],
        "journal_seq": 7, "journal_head": "00".repeat(32),
    });
    let its = Heartbeat {
        machine_id,
        journal_seq: JournalSeq(7),
        body: Json(said),
        received_at: Unix(6),
    };
    let kept = (vec![ours.clone()], Some(its.clone()));
    let write = move |tx: &Tx<'_>| set(tx, &ours).and_then(|()| set_heartbeat(tx, &its));
    site.world.app.store.write(write).await.unwrap();
    let difference = json!([{"bay": "1", "declared": 100, "reported": 97, "on_its_way": false}]);
    let path = "/api/v1/dca/machines/1/cassettes";
    for _ in 0..2 {
        let shown = site.get(&cookie, path).await.expect(200);
        assert_eq!(shown["differences"], difference, "{shown}");
        assert_eq!(shown["declared"][0]["count"], 100, "{shown}");
        assert_eq!(shown["reported"][0]["count"], 97, "{shown}");
        let both =
            move |read: &Read<'_>| Ok((list(read, machine_id)?, heartbeat(read, machine_id)?));
        let both: Result<_, StoreError> = site.world.app.store.read(both).await;
        assert_eq!(both.unwrap(), kept);
    }
    site.stop().await;
}
