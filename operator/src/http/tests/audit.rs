//! The audit over the API.

use bitspire_shared::ids::TxnId;
use bitspire_shared::money::Sats;
use serde_json::{Value, json};

use super::{As, Site};
use crate::ids::MachineId;
use crate::ledger::owed_whole;
use crate::store::{StoreError, ledger};

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
