//! LNbits beside it: an invoice made and paid inside one instance, as a wallet's program does it.

#[path = "../../../../operator/src/wallet/lnbits/real/instance.rs"]
mod instance;

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use self::instance::Instance;

/// Sats of each payment.
const AMOUNT: u64 = 10;

/// How many payments a second it makes, one after the other: the invoice of one wallet, paid by another.
pub(super) fn rate(payments: u64) -> Result<f64> {
    let mut instance = Instance::start();
    instance.first_user();
    let (payer, payee) = (instance.wallet("payer"), instance.wallet("payee"));
    instance.fund(&payer, AMOUNT.saturating_mul(payments.saturating_add(10)));
    let post = |key: &str, body: Value| -> Result<Value> {
        let request = ureq::http::Request::post(format!("{}/api/v1/payments", instance.base()))
            .header("x-api-key", key)
            .header("content-type", "application/json")
            .body(body.to_string())?;
        Ok(ureq::run(request)?.body_mut().read_json()?)
    };
    let pays = || -> Result<()> {
        let asked = json!({"out": false, "amount": AMOUNT, "unit": "sat", "memo": "figure"});
        let made = post(&payee.invoice, asked)?;
        let bolt11 = made["bolt11"].as_str().with_context(|| format!("no invoice in {made}"))?;
        let paid = post(&payer.admin, json!({"out": true, "bolt11": bolt11}))?;
        anyhow::ensure!(paid["status"] == "success", "expected a payment, got {paid}");
        Ok(())
    };
    // the first ones fill caches
    (0..5).try_for_each(|_| pays())?;
    let started = Instant::now();
    (0..payments).try_for_each(|_| pays())?;
    Ok(super::whole(payments)? / started.elapsed().as_secs_f64())
}
