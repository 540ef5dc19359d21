//! What the service tells a machine unasked.
//!
//! Promise: a push is a hint. The machine acts on what it can verify for what it is waiting for,
//! and asks by itself besides, so a lost push costs seconds, never a sale.

use serde::{Deserialize, Serialize};

use crate::canonical::Sig;
use crate::ids::{EventId, PaymentHash, TxnId, WithdrawId};
use crate::money::Sats;
use crate::statement::SignedStatement;

/// Push: an invoice was paid; the same as `get_payment` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentSettled {
    /// The vault's transaction.
    pub txid: TxnId,
    /// The invoice.
    pub payment_hash: PaymentHash,
    /// What moved on Lightning.
    pub wire_sats: Sats,
    /// The service key's signature over the
    /// [`DispenseAuthorisation`](crate::rpc::DispenseAuthorisation).
    pub authorisation: Sig,
}

/// Push: a wallet has asked for the withdraw; its payment is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawClaimed {
    /// The vault's transaction.
    pub txid: TxnId,
    /// The withdraw.
    pub withdraw_id: WithdrawId,
}

/// Push: the withdraw was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawPaid {
    /// The vault's transaction.
    pub txid: TxnId,
    /// The withdraw.
    pub withdraw_id: WithdrawId,
    /// What the customer got.
    pub wire_sats: Sats,
}

/// Push: a configuration document was published; fetch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChanged {
    /// The document's `d` tag.
    pub d: String,
    /// Its event.
    pub event_id: EventId,
}

/// Push: the operator has decided; the vault checks the statement against the pinned key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictPush {
    /// The operator's statement.
    pub statement: SignedStatement,
}
