//! Payments as phoenixd writes them.
//!
//! Promise: pure; without its preimage nothing counts as paid out.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::{Msat, Sats};
use bitspire_shared::time::Unix;
use serde::Deserialize;
use serde_json::Value;

use super::super::bolt11::Head;
use super::super::{Flow, PayState, Payment};

/// An invoice of the node.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Incoming {
    payment_hash: PaymentHash,
    is_paid: bool,
    received_sat: u64,
    /// Millisats that its peer took for liquidity.
    fees: u64,
    invoice: Option<String>,
    /// Milliseconds since 1970, as all times here.
    completed_at: Option<u64>,
    pub(super) created_at: u64,
}

impl Incoming {
    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let state = match (self.is_paid, self.completed_at) {
            (true, Some(at)) => {
                PayState::Succeeded { amount: self.paid()?, fee: Msat::ZERO, at: Unix(at / 1_000) }
            }
            (true, None) => return Err("expected when a paid invoice was paid, got nothing".into()),
            (false, _) => PayState::Pending,
        };
        let (payment_hash, flow) = (self.payment_hash, Flow::Inbound);
        Ok(Payment { payment_hash, flow, state, extra: Value::Null })
    }

    /// What the customer paid: liquidity is the node's cost. What is received has lost its part of a
    /// sat, so that the invoice's amount counts where that is all that is missing.
    fn paid(&self) -> Result<Msat, String> {
        let received = Sats(self.received_sat).to_msat().map_err(|e| e.to_string())?;
        let paid = Msat(received.0.saturating_add(self.fees));
        let asked = self.invoice.as_deref().and_then(|text| Head::read(text).ok()?.amount);
        let part = |asked: &Msat| asked.0.saturating_sub(paid.0) < 1_000 && *asked > paid;
        Ok(asked.filter(part).unwrap_or(paid))
    }
}

/// A payment of the node.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outgoing {
    payment_hash: PaymentHash,
    preimage: Option<String>,
    /// Millisats.
    fees: u64,
    invoice: Option<String>,
    completed_at: Option<u64>,
    pub(super) created_at: u64,
}

impl Outgoing {
    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let state = match (&self.preimage, self.completed_at) {
            (_, None) => PayState::Pending,
            (None, Some(_)) => PayState::Failed,
            (Some(_), Some(at)) => {
                let head = Head::read(self.invoice.as_deref().unwrap_or_default())?;
                let amount = head.amount.ok_or("expected an invoice with an amount")?;
                PayState::Succeeded { amount, fee: Msat(self.fees), at: Unix(at / 1_000) }
            }
        };
        let (payment_hash, flow) = (self.payment_hash, Flow::Outbound);
        Ok(Payment { payment_hash, flow, state, extra: Value::Null })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Loss prevented: a payment that failed counts as paid, because it is over and phoenixd's first
    /// versions called that paid.
    #[test]
    fn without_a_preimage_nothing_is_paid() {
        let out = |preimage: Option<&str>, completed: Option<u64>| {
            let record = json!({
                "type": "outgoing_payment", "paymentHash": "ab".repeat(32), "preimage": preimage,
                "isPaid": completed.is_some(), "sent": 1_004, "fees": 4_016, "createdAt": 5,
                "completedAt": completed, "invoice": crate::wallet::bolt11::FAKE,
            });
            serde_json::from_value::<Outgoing>(record).unwrap().payment().unwrap().state
        };
        assert_eq!(out(None, None), PayState::Pending);
        assert_eq!(out(None, Some(9_000)), PayState::Failed);
        let paid = PayState::Succeeded { amount: Msat(1_000_000), fee: Msat(4_016), at: Unix(9) };
        assert_eq!(out(Some("00"), Some(9_999)), paid);
    }

    /// Loss prevented: a customer who paid in full is taken for one who paid too little, because the
    /// node bought liquidity with a part of it.
    #[test]
    fn liquidity_is_not_the_customers_cost() {
        let paid = |received: u64, fees: u64| {
            let record = json!({
                "type": "incoming_payment", "paymentHash": "ab".repeat(32), "isPaid": true,
                "receivedSat": received, "fees": fees, "completedAt": 9_000, "createdAt": 5,
                "invoice": crate::wallet::bolt11::FAKE,
            });
            match serde_json::from_value::<Incoming>(record).unwrap().payment().unwrap().state {
                PayState::Succeeded { amount, .. } => amount,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(paid(1_000, 0), Msat(1_000_000));
        assert_eq!(paid(989, 10_500), Msat(1_000_000), "half a sat is missing");
        assert_eq!(paid(988, 10_500), Msat(998_500), "more than a sat is");
        assert_eq!(paid(1_200, 0), Msat(1_200_000));
    }
}
