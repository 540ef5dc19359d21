//! Liquidity providers over the API: what is refused, in which words, and to whom.

use serde_json::{Value, json};

use super::{As, Site};

const PATH: &str = "/api/v1/dca/lps";

async fn posted(site: &Site, path: &str, body: Value, status: u16) -> Value {
    site.post(&site.cookie(), &format!("/api/v1/dca/{path}"), body).await.expect(status)
}

/// Loss prevented: money of another currency, or twice the same, counted for a provider; one who only
/// looks, or who stands at the machines, makes sats somebody's.
#[tokio::test]
async fn a_provider_is_registered_enrolled_and_paid_for() {
    let site = Site::new().await;
    let machine = json!({ "name": "Bar", "fiat_code": "EUR", "wallet_id": "till" });
    posted(&site, "machines", machine, 201).await;
    let ada =
        json!({ "name": "Ada", "currency": "EUR", "mode": "fixed", "daily_limit_minor": 5_000 });
    let made = posted(&site, "lps", ada.clone(), 201).await;
    let told = (&made["left"], &made["mode"], &made["to"], &made["decimals"]);
    assert_eq!(told, (&json!("0.00 EUR"), &json!("fixed"), &Value::Null, &json!(2)));
    let twice = posted(&site, "lps", ada, 409).await;
    assert!(twice["error"].as_str().unwrap().contains("already"), "{twice}");
    let odd = json!({ "name": "Eve", "currency": "EUR", "mode": "flow", "daily_limit_minor": 1 });
    assert_eq!(posted(&site, "lps", odd, 400).await["field"], "daily_limit");
    posted(&site, "lps/1/enrol", json!({ "machine_id": 9 }), 404).await;
    let enrolled = posted(&site, "lps/1/enrol", json!({ "machine_id": 1 }), 200).await;
    assert_eq!(enrolled["machines"], json!([1]));

    let cash = |minor: i64, currency: &str, reference: &str| json!({ "amount_minor": minor, "currency": currency, "reference": reference });
    let refused = posted(&site, "lps/1/deposits", cash(100, "USD", "a"), 400).await;
    assert_eq!(refused["field"], "currency");
    let words = refused["error"].as_str().unwrap();
    assert!(words.contains("expected EUR") && words.contains("got USD"), "{words}");
    let first = posted(&site, "lps/1/deposits", cash(10_000, "EUR", "a"), 201).await;
    assert_eq!((&first["state"], &first["id"]), (&json!("pending"), &json!(1)));
    assert_eq!(posted(&site, "lps/1/deposits", cash(10_000, "EUR", "a"), 201).await["id"], 1);
    posted(&site, "lps/1/deposits", cash(10_001, "EUR", "a"), 409).await;
    let token = json!({ "name": "clerk", "role": "operator" });
    let clerk = site.post(&site.cookie(), "/api/v1/tokens", token).await.expect(201);
    let clerk = As::Token(clerk["token"].as_str().unwrap().to_owned());
    site.post(&clerk, "/api/v1/dca/lp-deposits/1/confirm", Value::Null).await.expect(403);
    site.post(&clerk, &format!("{PATH}/1/return"), cash(1, "EUR", "b")).await.expect(403);
    assert_eq!(
        posted(&site, "lp-deposits/1/confirm", Value::Null, 200).await["state"],
        "confirmed"
    );
    posted(&site, "lp-deposits/1/cancel", Value::Null, 409).await;
    posted(&site, "lp-deposits/7/confirm", Value::Null, 404).await;
    let refused = posted(&site, "lps/1/return", cash(10_001, "EUR", "b"), 400).await;
    assert_eq!(refused["field"], "amount");
    posted(&site, "lps/1/return", cash(4_000, "EUR", "b"), 201).await;
    posted(&site, "lps/1/settle", json!({ "sats": 1, "reason": "cash" }), 409).await;
    posted(&site, "lps/1/settle", json!({ "reason": "cash" }), 400).await;
    posted(&site, "lps/1/disable", Value::Null, 200).await;

    let shown = site.get(&site.cookie(), &format!("{PATH}/1")).await.expect(200);
    assert_eq!((&shown["left"], &shown["left_minor"]), (&json!("60.00 EUR"), &json!(6_000)));
    assert_eq!(shown["deposits"].as_array().unwrap().len(), 2);
    assert!(!shown["disabled_at"].is_null());
    let all = site.get(&clerk, PATH).await.expect(200);
    assert_eq!(all[0]["name"], "Ada");
    site.get(&site.cookie(), &format!("{PATH}/2")).await.expect(404);
    site.stop().await;
}
