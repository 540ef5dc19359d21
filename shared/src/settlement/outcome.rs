//! What becomes of a payment.
//!
//! Promise: an [`Accepted`] is made by [`accept`](super::accept) alone, so whoever holds one knows
//! that steps 1 to 7 passed; only it yields a [`Dispense`].
//!
//! Failure policy: each refusal is a variant with a stable code.

use rust_decimal::Decimal;
use thiserror::Error;

use crate::ids::{EventId, PaymentHash, PubKey, QuoteId, TxnId};
use crate::money::{Direction, FeePpm, Fiat, Sats};
use crate::settlement::payment::Why;
use crate::settlement::stamp::StampError;
use crate::split::{Split, SplitError, Terms};
use crate::time::Unix;

/// What becomes of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Step 1: not settled, whatever a notification said.
    NotSettled,
    /// Step 2: no business of ours. Nothing is recorded.
    NotOurs,
    /// Step 2: our own invoice, paid into a wallet that no machine owns: wire amount in suspense,
    /// held for a verdict, alert.
    Misrouted {
        /// The protocol's direction.
        direction: Direction,
        /// What moved.
        wire: Sats,
        /// The transaction that it was meant for.
        txid: TxnId,
    },
    /// Steps 2 to 7: recorded once, with the only number that is authenticated.
    Rejected(Rejected),
    /// Passed, but nothing may be dispensed for it: all of it is owed.
    Owed(Owed),
    /// Passed: the customer is served.
    Accepted(Accepted),
}

/// A refused payment. Principal, fee and fiat are absent, not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The protocol's direction.
    pub direction: Direction,
    /// What moved.
    pub wire: Sats,
    /// Why.
    pub reason: Reason,
    /// The transaction to which the wire amount is owed: a cash_out of ours that was paid. Else it
    /// is in suspense.
    pub owed_to: Option<TxnId>,
}

/// Why a payment is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// Steps 2 and 7: it names one of our machines, but no request of ours made it.
    #[error("unrequested: expected a request of ours with this payment hash, found none")]
    Unrequested,
    /// Step 3: the wallet's machine has no key.
    #[error("attribution: the machine of this wallet is not paired")]
    Unpaired,
    /// Step 3: another sender, or none.
    #[error("attribution: expected the sender {expected}, got {}", named(.got))]
    Sender {
        /// The machine's key.
        expected: PubKey,
        /// The stamp's.
        got: Option<PubKey>,
    },
    /// Step 4.
    #[error("stamp")]
    Stamp(#[source] StampError),
    /// Step 5: a value that no transaction can have.
    #[error("range: {field} is outside what a transaction can have")]
    Range {
        /// The field.
        field: &'static str,
    },
    /// Step 5: principal and fee do not make the amount.
    #[error("sum: expected {expected} sats, principal and fee make {got}")]
    Sum {
        /// The amount of the invoice, or of the payment.
        expected: Sats,
        /// What the stamp makes.
        got: Sats,
    },
    /// Step 5: principal and fee make no amount at all.
    #[error("sum")]
    NoSum(#[source] SplitError),
    /// Step 6: the payment went the other way.
    #[error("direction: expected {expected} from the way the payment went, the stamp says {got}")]
    Direction {
        /// The protocol's.
        expected: Direction,
        /// The stamp's.
        got: Direction,
    },
    /// Step 7: a second outbound payment of a withdraw that is settled.
    #[error("paid twice: this withdraw is settled by another payment")]
    PaidTwice,
    /// Step 7: not what we quoted.
    #[error("request: {field} is not what was quoted")]
    Differs {
        /// The first field that differs.
        field: &'static str,
    },
}

fn named(key: &Option<PubKey>) -> String {
    key.map_or_else(|| "none".into(), |key| key.to_string())
}

impl Reason {
    /// The stable name, for rows and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unrequested => "unrequested",
            Self::Unpaired => "unpaired",
            Self::Sender { .. } => "attribution",
            Self::Stamp(_) => "stamp",
            Self::Range { .. } => "range",
            Self::Sum { .. } | Self::NoSum(_) => "sum",
            Self::Direction { .. } => "direction",
            Self::PaidTwice => "paid_twice",
            Self::Differs { .. } => "request",
        }
    }
}

/// The values of a settlement that passed steps 1 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settled {
    /// Hash of the payment; one settlement a hash.
    pub payment_hash: PaymentHash,
    /// Direction of the cash.
    pub direction: Direction,
    /// What moved.
    pub wire: Sats,
    /// Sats at market rate, before fees.
    pub principal: Sats,
    /// Commission in sats.
    pub fee: Sats,
    /// Sats per major unit of fiat.
    pub exchange_rate: Decimal,
    /// The notes' value.
    pub fiat: Fiat,
    /// The machine.
    pub spire: PubKey,
    /// Its transaction; absent only in stamps made elsewhere.
    pub txid: Option<TxnId>,
    /// The fee document; absent only in stamps made elsewhere.
    pub fees_event_id: Option<EventId>,
    /// The machine's request event.
    pub request_event_id: EventId,
    /// When it settled, by the service's clock.
    pub at: Unix,
}

/// A payment that passed, all of which is owed to the customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Its values, as quoted.
    pub settled: Settled,
    /// Why nothing is dispensed.
    pub why: Why,
}

impl Owed {
    /// Where its sats go: all of them are owed, no fee is taken.
    ///
    /// # Errors
    /// Never: nothing but one amount is in the sum.
    pub fn split(&self) -> Result<Split, SplitError> {
        let Settled { direction, wire, .. } = self.settled;
        let (principal, fee) = (Sats::ZERO, Sats::ZERO);
        Split::new(Terms { direction, wire, principal, fee, owed: wire, platform: FeePpm::ZERO })
    }
}

/// A settlement; made by [`accept`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub(super) settled: Settled,
    pub(super) surplus: Sats,
    pub(super) dispense: Option<Dispense>,
    pub(super) distribution: Distribution,
}

/// Whether the legs of a settlement may be paid (after the machine's dispense report).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Step 8 passed.
    Free,
    /// A wrong fee, recorded with a warning: the match is not enforced.
    Warned {
        /// Stamped fee less expected fee.
        fee_mismatch_sats: i64,
    },
    /// Not before the operator's verdict.
    Held(Hold),
}

/// Why a distribution waits for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// A wrong fee.
    FeeMismatch {
        /// Stamped fee less expected fee.
        fee_mismatch_sats: i64,
    },
    /// The fee document that the stamp names is not known: nothing to compare with.
    FeesUnknown,
}

/// What a dispense authorisation is signed over, once the settlement's row is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dispense {
    /// The machine.
    pub spire: PubKey,
    /// Its transaction.
    pub txid: TxnId,
    /// The quote.
    pub quote_id: QuoteId,
    /// Hash of the payment.
    pub payment_hash: PaymentHash,
    /// The invoice's amount, without what was paid beyond it.
    pub wire: Sats,
    /// The notes to give.
    pub fiat: Fiat,
}

impl Accepted {
    /// The values.
    #[must_use]
    pub const fn settled(&self) -> &Settled {
        &self.settled
    }

    /// Paid beyond the invoice; owed to the customer.
    #[must_use]
    pub const fn surplus(&self) -> Sats {
        self.surplus
    }

    /// Step 8.
    #[must_use]
    pub const fn distribution(&self) -> Distribution {
        self.distribution
    }

    /// What may be authorised: a cash_out of our own. Step 8 has no say in it.
    #[must_use]
    pub const fn dispense(&self) -> Option<&Dispense> {
        self.dispense.as_ref()
    }

    /// Where its sats go, with the platform's fee of the document in force.
    ///
    /// # Errors
    /// Never: [`accept`] has checked the sum.
    pub fn split(&self, platform: FeePpm) -> Result<Split, SplitError> {
        let Settled { direction, wire, principal, fee, .. } = self.settled;
        Split::new(Terms { direction, wire, principal, fee, owed: self.surplus, platform })
    }
}
