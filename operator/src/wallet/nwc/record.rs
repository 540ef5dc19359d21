//! A transaction as NIP-47 writes it.
//!
//! Promise: pure; what a wallet leaves out is not made up in our favour: without a time of its
//! settling, a payment counts as settled when it is looked at.

use bitspire_shared::money::Msat;
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Flow, PayState, Payment};

/// The answer to `list_transactions`.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) transactions: Vec<Record>,
}

/// One transaction.
#[derive(Deserialize)]
pub(super) struct Record {
    #[serde(rename = "type")]
    kind: Option<String>,
    state: Option<String>,
    pub(super) invoice: Option<String>,
    payment_hash: Option<String>,
    /// Millisats.
    amount: Option<u64>,
    /// Millisats.
    fees_paid: Option<u64>,
    pub(super) created_at: Option<u64>,
    settled_at: Option<u64>,
}

impl Record {
    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let hash = self.payment_hash.as_deref().unwrap_or_default();
        let payment_hash = hash.parse().map_err(|e| format!("its payment hash: {e}"))?;
        let flow = match self.kind.as_deref() {
            Some("incoming") => Flow::Inbound,
            Some("outgoing") => Flow::Outbound,
            other => return Err(format!("expected incoming or outgoing, got type {other:?}")),
        };
        let settled_at = self.settled_at.filter(|at| *at > 0);
        let settled = match self.state.as_deref() {
            Some(state) => state.eq_ignore_ascii_case("settled"),
            // the first wallets wrote no state
            None => settled_at.is_some(),
        };
        let over = ["failed", "expired"];
        let over =
            self.state.as_ref().is_some_and(|s| over.iter().any(|o| s.eq_ignore_ascii_case(o)));
        let state = if settled {
            let amount = self.amount.ok_or("expected the amount of a settled payment")?;
            PayState::Succeeded {
                amount: Msat(amount),
                fee: match flow {
                    Flow::Outbound => Msat(self.fees_paid.unwrap_or(0)),
                    Flow::Inbound => Msat::ZERO,
                },
                // whoever settles takes the earlier one of this and their own clock
                at: Unix(settled_at.unwrap_or(u64::MAX)),
            }
        } else if over {
            PayState::Failed
        } else {
            PayState::Pending
        };
        // what belongs beside a payment never left us
        Ok(Payment { payment_hash, flow, state, extra: Value::Null })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(change: Value) -> Result<PayState, String> {
        let mut text = json!({
            "type": "outgoing", "payment_hash": "ab".repeat(32), "amount": 1_000, "fees_paid": 7,
            "created_at": 5,
        });
        for (name, value) in change.as_object().unwrap() {
            text[name] = value.clone();
        }
        let record: Record = serde_json::from_value(text).map_err(|e| e.to_string())?;
        record.payment().map(|payment| payment.state)
    }

    /// Loss prevented: a wallet that says little is understood as one that says "failed" or "paid";
    /// a late payment counts as one in time.
    #[test]
    fn what_is_left_out_is_not_made_up() {
        let paid = |at| PayState::Succeeded { amount: Msat(1_000), fee: Msat(7), at: Unix(at) };
        for (given, expected) in [
            (json!({}), PayState::Pending),
            (json!({"settled_at": 9}), paid(9)),
            (json!({"settled_at": 0}), PayState::Pending),
            (json!({"state": "settled"}), paid(u64::MAX)),
            (json!({"state": "SETTLED", "settled_at": 9}), paid(9)),
            (json!({"state": "pending", "settled_at": 9}), PayState::Pending),
            (json!({"state": "accepted"}), PayState::Pending),
            (json!({"state": "failed"}), PayState::Failed),
            (json!({"state": "expired"}), PayState::Failed),
        ] {
            assert_eq!(state(given.clone()), Ok(expected), "{given}");
        }
        for wrong in [
            json!({"type": "both"}),
            json!({"type": null}),
            json!({"payment_hash": null}),
            json!({"state": "settled", "amount": null}),
            json!({"state": "settled", "amount": -5}),
            json!({"state": "settled", "amount": 1.5}),
        ] {
            assert!(state(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
