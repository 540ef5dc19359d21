//! From a payment in a wallet to a settlement in the ledger.
//!
//! Promise: [`accept`] is the only way to a [`Accepted`] settlement, the same for a live
//! notification, a poll and a reconciliation, and a pure function of what its caller looked up.
//! Nothing that anybody could write into a payment is trusted alone: the [`Stamp`] must agree with
//! the wallet's own look-up, with the machine that owns the wallet and with the request that made
//! the invoice.
//!
//! States of a payment, in the order of the steps: [`Outcome::NotSettled`] and
//! [`Outcome::NotOurs`] (nothing is recorded), [`Outcome::Misrouted`] and [`Outcome::Rejected`]
//! (recorded with the wire amount alone), [`Outcome::Owed`] (valid, but late, too little or paid
//! twice: all of it is the customer's), [`Outcome::Accepted`] (the customer is served; whether its
//! sats are distributed is [`Distribution`]'s matter and never the customer's).
//!
//! Failure policy: each refusal is a variant of its own; none is an error that a listener could die
//! of, and none is silent.

mod accept;
mod outcome;
mod payment;
mod stamp;

pub use accept::{FeesInForce, LookUp, Machine, Moved, Observed, Request, StampMaker, accept};
pub use outcome::{
    Accepted, Dispense, Distribution, Hold, Outcome, Owed, Reason, Rejected, Settled,
};
pub use payment::{Due, GRACE_S, Payment, Why, classify};
pub use stamp::{SOURCE, Stamp, StampError, claimed_sender};

#[cfg(test)]
mod tests;
