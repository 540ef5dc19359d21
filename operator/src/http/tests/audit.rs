//! The audit over the API, and the audit log.

use bitspire_shared::document::Action;
use bitspire_shared::ids::{BayId, PubKey, TxnId};
use bitspire_shared::money::{FeePpm, Sats};
use bitspire_shared::seed::confirmation_digits;
use nostr::Keys;
use serde_json::{Value, json};

use super::{As, Site, pairing};
use crate::fleet::{confirm, upkeep};
use crate::ids::MachineId;
use crate::ledger::owed_whole;
use crate::publish::cassettes::{self, Wish, Wishes};
use crate::publish::fees;
use crate::store::{StoreError, ledger, machines};
use crate::testing::key;

/// Loss prevented: a check after a crash that reads "ok" from an answer of another shape; a viewer
/// who reads what every wallet holds.
#[tokio::test]
async fn an_audit_is_for_operators_and_has_one_shape() {
    let site = Site::new().await;
    let cookie = site.cookie();
    let (machines, path) = ("/api/v1/dca/machines", "/api/v1/audit");
    let machine = json!({ "name": "Bar", "fiat_code": "EUR", "wallet_id": "till" });
    site.post(&cookie, machines, machine).await.expect(201);
    let clean = site.post(&cookie, path, Value::Null).await.expect(200);
    assert_eq!(clean["ok"], true, "{clean}");
    assert_eq!((&clean["differences"], &clean["waiting"]), (&json!([]), &json!([])));
    let names: Vec<_> = clean["checks"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    let all = ["ledger", "requests", "wallet", "dispense", "cash", "liabilities", "distribution"];
    assert_eq!(names, all);

    let made_up = |tx: &crate::store::Tx<'_>| {
        let txid = TxnId::from_bytes([1; 16]);
        let entry = owed_whole(MachineId(1), "made up", txid, Sats(5)).unwrap();
        ledger::append(tx, &entry, bitspire_shared::time::Unix(1)).map(|_| ())
    };
    site.world.app.store.write::<_, StoreError, _>(made_up).await.unwrap();
    let found = site.post(&cookie, path, Value::Null).await.expect(200);
    assert_eq!(found["ok"], false);
    let balance = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["subject"] == "balance of wallet till");
    let balance = balance.unwrap();
    assert_eq!(balance["expected"], "1000005000 msat", "{balance}");
    assert_eq!(balance["found"], "1000000000 msat");

    let token = json!({ "name": "screen", "role": "viewer" });
    let viewer = site.post(&cookie, "/api/v1/tokens", token).await.expect(201);
    let viewer = As::Token(viewer["token"].as_str().unwrap().to_owned());
    site.post(&viewer, path, Value::Null).await.expect(403);
    site.stop().await;
}

/// Acts that make something new: there was nothing before.
const NEW: [&str; 7] = [
    "operator.add",
    "operator.import",
    "machine.add",
    "lp.register",
    "lp.deposit",
    "user.add",
    "token.add",
];

/// Whether `all` says at least what `part` does.
fn says(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(name, part)| all.get(name).is_some_and(|one| says(one, part)))
        }
        _ => all == part,
    }
}

/// Loss prevented: fees, a pairing, counts or somebody's rights that were changed, and a log that
/// tells what they are and not what they were: nobody sees what was done, or can put it back.
#[tokio::test]
async fn what_is_changed_is_logged_from_what_to_what() {
    let (site, bunker) = pairing::site().await;
    bunker.state().signs = true;
    let (cookie, app, id) = (site.cookie(), site.world.app.clone(), MachineId(1));
    let call = async |method: &str, path: &str, body: Value| {
        let got = site.call(&cookie, method, &format!("/api/v1/{path}"), body).await;
        assert!((200..300).contains(&got.status), "{path}: {} {}", got.status, got.body);
        got.body
    };
    let mut changed: Vec<(&str, Value)> = Vec::new();
    let key_of = |keys: &Keys| PubKey::new(keys.public_key()).unwrap();

    let nsec = json!({"nsec": Keys::generate().secret_key().to_secret_hex()});
    call("POST", "operators/import", nsec).await;
    call("POST", "operators/migrate", Value::Null).await;
    changed.push(("operator.migrate", json!({"signer": "bunker", "before": {"signer": "local"}})));

    call("PATCH", "dca/machines/1", json!({"name": "Pub"})).await;
    changed.push(("machine.edit", json!({"name": "Pub", "before": {"name": "Bar"}})));
    call("PUT", "dca/machines/1/tags", json!({"tags": ["north"]})).await;
    changed.push(("machine.tags", json!({"tags": ["north"], "before": {"tags": []}})));
    call("POST", "dca/machines/1/disable", json!({"reason": "stolen"})).await;
    changed.push(("machine.disable", json!({"reason": "stolen", "before": {"reason": null}})));
    call("POST", "dca/machines/1/enable", Value::Null).await;
    changed.push(("machine.enable", json!({"reason": null, "before": {"reason": "stolen"}})));

    let ppm = |ppm| Some(FeePpm::new(ppm).unwrap());
    fees::set(&app, "test", None, id, ppm(10_000), None).await.unwrap();
    let fee = |to, was| json!({"cash_in_fee_ppm": to, "before": {"cash_in_fee_ppm": was}});
    changed.push(("machine.fees", fee(10_000, 0)));
    fees::set_platform(&app, "test", ppm(20_000), None).await.unwrap();
    changed.push(("super.fees", fee(20_000, 0)));

    for (denomination, action) in [(Some(20), Action::Set(100)), (None, Action::Delta(-3))] {
        let bay = Wish { bay: BayId::new(1).unwrap(), denomination, action };
        let wishes = Wishes { bays: vec![bay], reason: String::new(), base_seq: None };
        cassettes::change(&app, "test", None, id, wishes).await.unwrap();
    }
    let counts = json!({"delta": -3, "count": 97, "before": {"denomination": 20, "count": 100}});
    changed.push(("machine.cassettes", counts));

    let relays = json!({"relays": ["wss://relay.example"]});
    let first = call("POST", "dca/machines/1/pair", relays.clone()).await;
    let client = bunker.redeem(first["bunker_key_name"].as_str().unwrap());
    upkeep::round(&app).await.unwrap();
    let vault = key();
    let pin = app.store.write(move |tx| machines::pin_vault(tx, id, vault)).await;
    pin.map_err(|error: StoreError| error).unwrap();
    let row = app.store.read(move |read| machines::find(read, id)).await;
    let spire = row.map_err(|error: StoreError| error).unwrap().unwrap().machine_npub.unwrap();
    let digits = confirmation_digits(&spire, &client, &vault, &app.service_key);
    confirm::confirm(&app, "test", None, id, &digits).await.unwrap();
    let confirmed =
        json!({"confirmation": "confirmed", "before": {"confirmation": "awaiting_confirmation"}});
    changed.push(("machine.confirm", confirmed));
    site.world.pass(600 * 3_600);
    let until = call("POST", "dca/machines/1/renew", Value::Null).await;
    let until = &until["bunker_token_expires_at"];
    assert_ne!(*until, first["token_expires_at"]);
    let was = json!({"token_expires_at": first["token_expires_at"]});
    changed.push(("machine.renew", json!({"token_expires_at": until, "before": was})));
    let second = call("POST", "dca/machines/1/pair", relays).await;
    let was = json!({
        "machine_npub": spire, "bunker_key_name": first["bunker_key_name"],
        "token_expires_at": until, "client": client, "vault": vault, "confirmation": "confirmed",
    });
    let name = &second["bunker_key_name"];
    changed.push(("machine.pair", json!({"bunker_key_name": name, "before": was})));
    call("POST", "dca/machines/1/revoke", Value::Null).await;
    let revoked =
        json!({"confirmation": "revoked", "before": {"confirmation": "awaiting_session"}});
    changed.push(("machine.revoke", revoked));

    let ada =
        json!({"name": "Ada", "currency": "EUR", "mode": "fixed", "daily_limit_minor": 5_000});
    call("POST", "dca/lps", ada).await;
    call("PUT", "dca/lps/1/terms", json!({"mode": "flow"})).await;
    let was = json!({"mode": "fixed", "daily_limit_minor": 5_000});
    let terms = json!({"mode": "flow", "daily_limit_minor": null, "before": was});
    changed.push(("lp.terms", terms));
    let off = call("POST", "dca/lps/1/disable", Value::Null).await["disabled_at"].clone();
    changed.push(("lp.disable", json!({"disabled_at": off, "before": {"disabled_at": null}})));
    call("POST", "dca/lps/1/enable", Value::Null).await;
    changed.push(("lp.enable", json!({"disabled_at": null, "before": {"disabled_at": off}})));
    for (reference, end, state) in [("a", "confirm", "confirmed"), ("b", "cancel", "cancelled")] {
        let cash = json!({"amount_minor": 100, "currency": "EUR", "reference": reference});
        let made = call("POST", "dca/lps/1/deposits", cash).await["id"].clone();
        call("POST", &format!("dca/lp-deposits/{made}/{end}"), Value::Null).await;
        let action = if end == "confirm" { "lp.deposit.confirm" } else { "lp.deposit.cancel" };
        changed.push((action, json!({"state": state, "before": {"state": "pending"}})));
    }

    let to = |wallet| json!({"scope": "operator", "shares": [{"fraction": "1", "to": {"wallet": wallet}}]});
    let rules = call("POST", "dca/rules", to("bar")).await["id"].clone();
    call("POST", "dca/rules", to("kiosk")).await;
    let log = call("GET", "audit-log?limit=1", Value::Null).await;
    let was = &log[0]["detail"]["before"];
    assert_eq!((&was[0]["rules"], &was[1]), (&rules, &Value::Null), "{log}");
    assert_eq!(was[0]["shares"][0]["to"], json!({"wallet": "bar"}), "{log}");
    changed.push(("rules.change", json!({"before": was})));

    let npub = key_of(&Keys::generate()).npub();
    let bob = json!({"npub": npub, "name": "Bob", "role": "viewer"});
    let bob = call("POST", "users", bob).await["id"].clone();
    call("POST", &format!("users/{bob}/disable"), Value::Null).await;
    let was = json!({"npub": npub, "name": "Bob", "role": "viewer"});
    changed.push(("user.disable", json!({"before": was})));
    let token =
        call("POST", "tokens", json!({"name": "page", "role": "viewer"})).await["id"].clone();
    call("POST", &format!("tokens/{token}/revoke"), Value::Null).await;
    let was = json!({"name": "page", "role": "viewer", "expires_at": null});
    changed.push(("token.revoke", json!({"before": was})));

    let log = call("GET", "audit-log?limit=200", Value::Null).await;
    for row in log.as_array().unwrap() {
        let (action, detail) = (row["action"].as_str().unwrap(), &row["detail"]);
        assert!(NEW.contains(&action) || detail.get("before").is_some(), "{row}");
    }
    for (action, told) in changed {
        let newest = log.as_array().unwrap().iter().find(|row| row["action"] == action);
        let newest = newest.unwrap_or_else(|| panic!("no {action} in {log}"));
        assert!(says(&newest["detail"], &told), "{action}: expected {told}, got {newest}");
    }
    site.stop().await;
}
