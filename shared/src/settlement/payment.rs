//! Late, over, under, twice: what a paid invoice entitles to.
//!
//! Promise: lateness is the service's clock against the invoice's expiry; whatever is not served is
//! owed to the customer in full, without a fee, so every paid sat is either part of the deal or
//! owed.
//!
//! Failure policy: none; each payment is of one [`Payment`] class.

use crate::money::Sats;
use crate::time::Unix;

/// Seconds after an invoice's expiry in which a payment still counts: its last hop takes time.
pub const GRACE_S: u64 = 60;

/// What an invoice asks for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    /// The invoice's amount.
    pub wire: Sats,
    /// The invoice's expiry.
    pub expires_at: Unix,
}

/// What a payment of an invoice entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payment {
    /// The deal holds at the invoice's amount.
    Serve {
        /// Paid beyond the invoice; owed to the customer.
        surplus: Sats,
    },
    /// Nothing may be dispensed for it.
    OweAll(Why),
}

/// Why all of a payment is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The invoice was settled before by another payment.
    Twice,
    /// Settled more than [`GRACE_S`] after the invoice's expiry. An expiry does not stop a payment
    /// in flight, and who can choose when it settles has a free option on the rate.
    Late,
    /// Less than the invoice.
    Under,
}

impl Why {
    /// The stable name, for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Twice => "twice",
            Self::Late => "late",
            Self::Under => "under",
        }
    }
}

/// Classifies a payment of `paid`, settled at `at` by the service's clock. `settled_before`: an
/// earlier payment of the same invoice is on record, not this one.
#[must_use]
pub fn classify(due: Due, paid: Sats, at: Unix, settled_before: bool) -> Payment {
    if settled_before {
        return Payment::OweAll(Why::Twice);
    }
    if at > due.expires_at.after(GRACE_S) {
        return Payment::OweAll(Why::Late);
    }
    match paid.minus(due.wire) {
        Ok(surplus) => Payment::Serve { surplus },
        Err(_) => Payment::OweAll(Why::Under),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUE: Due = Due { wire: Sats(1_000), expires_at: Unix(600) };

    fn paid(sats: u64, at: u64) -> Payment {
        classify(DUE, Sats(sats), Unix(at), false)
    }

    /// Loss prevented: a payment held back until the rate has moved buys notes at the old rate.
    #[test]
    fn a_minute_after_expiry_it_is_late() {
        assert_eq!(paid(1_000, 660), Payment::Serve { surplus: Sats(0) });
        assert_eq!(paid(1_000, 661), Payment::OweAll(Why::Late));
    }

    /// Loss prevented: notes for less than their price, or a surplus that is kept.
    #[test]
    fn more_is_owed_back_and_less_buys_nothing() {
        assert_eq!(paid(1_007, 1), Payment::Serve { surplus: Sats(7) });
        assert_eq!(paid(999, 1), Payment::OweAll(Why::Under));
        assert_eq!(paid(0, 1), Payment::OweAll(Why::Under));
    }

    /// Loss prevented: one order dispensed once and paid twice, the second amount nobody's.
    #[test]
    fn a_second_payment_is_owed_whole() {
        assert_eq!(classify(DUE, Sats(1_000), Unix(1), true), Payment::OweAll(Why::Twice));
        assert_eq!(classify(DUE, Sats(1_000), Unix(9_999), true), Payment::OweAll(Why::Twice));
    }

    proptest! {
        /// Loss prevented: an authorisation for a payment that is late, too little or a second one.
        #[test]
        fn served_means_in_time_enough_and_first(
            wire in any::<u64>(), expires in any::<u64>(), paid in any::<u64>(),
            at in any::<u64>(), before in any::<bool>(),
        ) {
            let due = Due { wire: Sats(wire), expires_at: Unix(expires) };
            let class = classify(due, Sats(paid), Unix(at), before);
            let good = !before && paid >= wire && at <= expires.saturating_add(GRACE_S);
            match class {
                Payment::Serve { surplus } => prop_assert!(good && surplus.0 == paid - wire),
                Payment::OweAll(_) => prop_assert!(!good),
            }
        }
    }
}
