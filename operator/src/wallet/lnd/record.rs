//! What LND's REST API answers. It writes 64-bit numbers as text.
//!
//! Promise: pure; a number that is none is an error.

use bitspire_shared::ids::PaymentHash;
use bitspire_shared::money::Msat;
use bitspire_shared::time::Unix;
use nostr::base64::Engine as _;
use nostr::base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::{Flow, PayState, Payment};

/// A number as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) u64);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let wrong = || serde::de::Error::custom(format!("expected digits, got {text:?}"));
        text.parse().map(Self).map_err(|_| wrong())
    }
}

/// A line of a stream.
#[derive(Deserialize)]
pub(super) struct Line<T = PaymentRecord> {
    pub(super) result: Option<T>,
}

/// An error: alone, or as a line of a stream.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Failure {
    /// As a line of a stream.
    Line {
        /// The error.
        error: Words,
    },
    /// Alone.
    Alone(Words),
}

#[derive(Deserialize)]
pub(super) struct Words {
    message: String,
}

impl Failure {
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Line { error } => &error.message,
            Self::Alone(words) => &words.message,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Balance {
    pub(super) local_balance: Amount,
}

#[derive(Deserialize)]
pub(super) struct Amount {
    pub(super) msat: Text,
}

#[derive(Deserialize)]
pub(super) struct Invoices {
    pub(super) invoices: Vec<InvoiceRecord>,
    pub(super) last_index_offset: Text,
}

#[derive(Deserialize)]
pub(super) struct Payments {
    pub(super) payments: Vec<PaymentRecord>,
    pub(super) last_index_offset: Text,
}

/// An invoice of the node.
#[derive(Deserialize)]
pub(super) struct InvoiceRecord {
    /// In base64.
    r_hash: String,
    state: String,
    amt_paid_msat: Text,
    settle_date: Text,
    creation_date: Text,
}

impl InvoiceRecord {
    /// When it was made, in seconds since 1970.
    pub(super) fn made(&self) -> u64 {
        self.creation_date.0
    }

    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let hash = STANDARD.decode(&self.r_hash).ok().and_then(|bytes| bytes.try_into().ok());
        let hash: [u8; 32] = hash.ok_or("expected r_hash as 32 bytes in base64")?;
        let state = match self.state.as_str() {
            "OPEN" | "ACCEPTED" => PayState::Pending,
            "CANCELED" => PayState::Failed,
            "SETTLED" => PayState::Succeeded {
                amount: Msat(self.amt_paid_msat.0),
                fee: Msat::ZERO,
                at: Unix(self.settle_date.0),
            },
            other => return Err(format!("expected a state of an invoice, got {other:?}")),
        };
        let payment_hash = PaymentHash::from_bytes(hash);
        Ok(Payment { payment_hash, flow: Flow::Inbound, state, extra: Value::Null })
    }
}

/// A payment of the node.
#[derive(Deserialize)]
pub(super) struct PaymentRecord {
    payment_hash: PaymentHash,
    status: String,
    value_msat: Text,
    fee_msat: Text,
    creation_time_ns: Text,
}

impl PaymentRecord {
    /// When it was begun, in seconds since 1970.
    pub(super) fn made(&self) -> u64 {
        self.creation_time_ns.0 / 1_000_000_000
    }

    /// In our words.
    pub(super) fn payment(&self) -> Result<Payment, String> {
        let state = match self.status.as_str() {
            "INITIATED" | "IN_FLIGHT" | "UNKNOWN" => PayState::Pending,
            "FAILED" => PayState::Failed,
            "SUCCEEDED" => PayState::Succeeded {
                amount: Msat(self.value_msat.0),
                fee: Msat(self.fee_msat.0),
                at: Unix(self.made()),
            },
            other => return Err(format!("expected a status of a payment, got {other:?}")),
        };
        let (payment_hash, flow) = (self.payment_hash, Flow::Outbound);
        Ok(Payment { payment_hash, flow, state, extra: Value::Null })
    }
}
