//! The evidence of one settlement in one file, which anybody can check without our database.
//!
//! Promise: a [`Proof`] holds everything that [`check`] looks at: the machine's signed request with
//! the keys of that one message, the statement that names its vault, the quotes and the fee documents
//! behind them, the wallet's record, the vault's reports, the rule sets and the legs. The service
//! seals all of it. Each step is told in words; the first one that does not hold ends the check.
//!
//! What nobody but the service can say is its own word, and called so: that its wallet received or
//! paid, what a fee document (sealed for the machine) sets, which rule sets counted. What the machine
//! has signed it cannot say otherwise.
//!
//! Failure policy: a refused payment has no request behind it and no proof; nothing secret is in a
//! proof, but it names amounts, keys and destinations.

mod check;
mod make;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bitspire_shared::canonical::{CanonicalError, Sig, to_canonical};
use bitspire_shared::ids::{BayId, EventId, PaymentHash, PubKey, TxnId};
use bitspire_shared::money::{Currency, Denomination, Direction, FeePpm, Sats};
use bitspire_shared::nip44::MessageKeys;
use bitspire_shared::rpc::{DispenseOutcome, OpenSession};
use bitspire_shared::statement::SignedStatement;
use bitspire_shared::time::Unix;
use nostr::Keys;
use serde::{Deserialize, Serialize};

use crate::ids::{LegId, LpId, MachineId, OperatorId, RuleSetId, SettlementId};
use crate::store::legs::Leg;
use crate::store::payments::Payment;
use crate::store::quotes::Quote;
use crate::store::rules::RuleSet;
use crate::store::settlements::{Distribution, Report, SettlementStatus};
use crate::store::withdraws::{Lot, Withdraw};

pub use check::{Checked, Pins, Step, check};
pub use make::{ProofError, make};

/// What a proof is called, in its first field and before what is signed.
pub const FORMAT: &str = "bitspire-settlement-proof:v1";

/// A proof with the service's signature over `FORMAT:` and its canonical JSON (RFC 8785).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedProof {
    /// The evidence.
    pub proof: Proof,
    /// BIP-340, by the service key.
    pub seal: Sig,
}

/// The evidence of one settlement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made.
    pub made_at: Unix,
    /// The service key.
    pub service: PubKey,
    /// The operator's key, where it has one.
    pub operator: Option<PubKey>,
    /// The key that signs for the platform, where there is one: its first operator's.
    pub platform: Option<PubKey>,
    /// The machine.
    pub machine: Machine,
    /// Why the request's author spoke for the machine.
    pub session: Option<Session>,
    /// What the payment became.
    pub settlement: Settlement,
    /// The machine's request, as it was signed: `create_invoice`, or `create_withdraw`.
    pub request_event: String,
    /// What opens its content, and nothing else.
    pub request_keys: MessageKeys,
    /// The quote; for cash_in each lock.
    pub quotes: Vec<Quote>,
    /// The fee documents that the quotes name.
    pub fees: Vec<Fees>,
    /// cash_out: the invoice.
    pub invoice: Option<Invoice>,
    /// cash_in: the promise for the notes, its notes by lock, and the attempt that paid it.
    pub withdraw: Option<Promise>,
    /// What the machine's vault has reported of the notes.
    pub reports: Vec<Report>,
    /// What the operator decided about the sale.
    pub verdicts: Vec<SignedStatement>,
    /// The rule sets that the legs name, and the one of the operator that counted.
    pub rules: Vec<Rules>,
    /// Which of them is the operator's that counted when the legs were planned.
    pub own_rules: Option<RuleSetId>,
    /// What liquidity providers got of the principal, and what they could spend, by the service's word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provided>,
    /// The legs, every round of them.
    pub legs: Vec<LegPaid>,
}

/// What a liquidity provider got of the principal, and no more of their account than that needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provided {
    /// Who.
    pub lp_id: LpId,
    /// What they could spend on this sale, in minor units.
    pub may_minor: i64,
    /// Their sats.
    pub sats: Sats,
    /// The fiat that they cost, in minor units.
    pub minor: i64,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its number.
    pub id: MachineId,
    /// Whose it is.
    pub operator_id: OperatorId,
    /// Its key.
    pub spire: PubKey,
    /// Its vault's key.
    pub vault: PubKey,
    /// What lay in the bays when they were reported.
    pub bays: BTreeMap<BayId, Denomination>,
}

/// The session under which the request was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Its key.
    pub key: PubKey,
    /// When it was opened.
    pub opened_at: Unix,
    /// What opened it; sessions of before this was kept have none.
    pub opening: Option<OpenSession>,
}

/// What a payment became, and the wallet's record of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settlement {
    /// Its number.
    pub id: SettlementId,
    /// Hash of the payment.
    pub payment_hash: PaymentHash,
    /// The wallet that received or paid.
    pub wallet_id: String,
    /// Which way the cash went.
    pub direction: Direction,
    /// What the wallet says that moved.
    pub wire_sats: Sats,
    /// When, by the service's clock.
    pub settled_at: Unix,
    /// What the wallet had beside the payment, as JSON text: the stamp, or null.
    pub extra: String,
    /// What it became.
    pub status: SettlementStatus,
    /// The transaction.
    pub txid: TxnId,
    /// Where the sats belong.
    pub principal_sats: Sats,
    /// The platform's.
    pub platform_fee_sats: Sats,
    /// The operator's.
    pub operator_fee_sats: Sats,
    /// The customer's.
    pub owed_sats: Sats,
    /// Value of the notes.
    pub fiat_minor: i64,
    /// Their currency.
    pub fiat_code: Currency,
    /// The fee document.
    pub fees_event_id: Option<EventId>,
    /// The request's event.
    pub request_event_id: EventId,
    /// How the dispense ended.
    pub dispense_outcome: Option<DispenseOutcome>,
    /// Where its distribution stands.
    pub distribution: Distribution,
    /// What it waits for.
    pub hold_reason: Option<String>,
}

/// A fee document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fees {
    /// Its event's id.
    pub event_id: EventId,
    /// The event that the operator signed; its content is sealed for the machine.
    pub event: Option<String>,
    /// The platform's fee in this direction, by the service's word.
    pub platform_ppm: FeePpm,
    /// The operator's.
    pub operator_ppm: FeePpm,
}

/// The invoice of a cash_out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// The BOLT11 text.
    pub bolt11: String,
    /// What was written beside it, as JSON text.
    pub stamp: String,
    /// When it was made.
    pub created_at: Unix,
    /// When it expires.
    pub expires_at: Unix,
}

/// The promise for stacked notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// Its row.
    pub withdraw: Withdraw,
    /// Notes by lock.
    pub lots: Vec<Lot>,
    /// The attempt that paid it.
    pub payment: Payment,
}

/// A rule set with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Its number.
    pub id: RuleSetId,
    /// As the owner's key signed it.
    pub rules: RuleSet,
}

/// A round of a leg, with its payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LegPaid {
    /// Its number.
    pub id: LegId,
    /// Its row.
    pub leg: Leg,
    /// The one payment of it.
    pub payment: Option<Payment>,
}

impl Proof {
    /// What the service signs.
    fn text(&self) -> Result<String, CanonicalError> {
        Ok(format!("{FORMAT}:{}", to_canonical(self)?))
    }

    /// Seals it.
    ///
    /// # Errors
    /// [`CanonicalError`] for an amount beyond 2^53.
    pub fn seal(self, service: &Keys) -> Result<SealedProof, CanonicalError> {
        let seal = Sig::over(&self.text()?, service);
        Ok(SealedProof { proof: self, seal })
    }
}
