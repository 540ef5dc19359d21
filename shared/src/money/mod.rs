//! Amounts: sats, millisats, fiat minor units, rates and fees.
//!
//! Promise: checked integers only; no floating point between the wire and the ledger. One rounding
//! rule: a fee leg is rounded half to even; a conversion is rounded so that the operator never
//! loses a sat to it.
//!
//! Failure policy: overflow and mixed currencies are [`MoneyError`]s, never a wrapped number.

mod fiat;
mod origin;
mod rate;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::fiat::{Currency, Denomination, Fiat};
pub use self::origin::{MAX_ORIGINS, Origin, Origins, SourceName};
pub use self::rate::{FeePpm, PPM, Rate};
use crate::error::{Classified, Kind};

/// A sum that cannot be made, or a text that is no amount.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// The result does not fit.
    #[error("{what}: the result does not fit")]
    Overflow {
        /// Which computation.
        what: &'static str,
    },
    /// Two currencies in one sum.
    #[error("expected an amount in {expected}, got one in {got}")]
    Mixed {
        /// The currency of the left side.
        expected: Currency,
        /// The currency that came.
        got: Currency,
    },
    /// Not an active ISO-4217 code, or one without minor units.
    #[error("currency: expected an ISO-4217 code with a known exponent, got {got:?}")]
    Currency {
        /// The text that came (at most 8 characters of it).
        got: String,
    },
    /// A number outside what the type allows.
    #[error("{what}: expected {expected}, got {got}")]
    Range {
        /// Which value.
        what: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

impl Classified for MoneyError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// Which way the cash goes, named from the customer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The customer feeds notes and claims a withdraw: outbound for the operator's wallet.
    CashIn,
    /// The customer pays the machine's invoice and gets notes: inbound for the operator's wallet.
    CashOut,
}

impl Direction {
    /// The wire name: `cash_in` or `cash_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CashIn => "cash_in",
            Self::CashOut => "cash_out",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);

            /// The sum.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`].
            pub const fn plus(self, other: Self) -> Result<Self, MoneyError> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Ok(Self(sum)),
                    None => Err(MoneyError::Overflow { what: concat!("sum of ", $what) }),
                }
            }

            /// The difference.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`] where `other` is the larger one.
            pub const fn minus(self, other: Self) -> Result<Self, MoneyError> {
                match self.0.checked_sub(other.0) {
                    Some(rest) => Ok(Self(rest)),
                    None => Err(MoneyError::Overflow { what: concat!("difference of ", $what) }),
                }
            }

            /// The sum of all.
            ///
            /// # Errors
            /// [`MoneyError::Overflow`].
            pub fn sum(all: impl IntoIterator<Item = Self>) -> Result<Self, MoneyError> {
                all.into_iter().try_fold(Self::ZERO, Self::plus)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

amount!(
    /// Whole satoshis.
    Sats, "sats"
);
amount!(
    /// Thousandths of a satoshi, as Lightning counts.
    Msat, "msat"
);

impl Sats {
    /// The same amount in millisats.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`].
    pub const fn to_msat(self) -> Result<Msat, MoneyError> {
        match self.0.checked_mul(1_000) {
            Some(msat) => Ok(Msat(msat)),
            None => Err(MoneyError::Overflow { what: "sats to msat" }),
        }
    }
}

impl Msat {
    /// Whole sats, if there is no fraction of a sat in it.
    #[must_use]
    pub const fn to_sats_exact(self) -> Option<Sats> {
        if self.0.is_multiple_of(1_000) { Some(self.to_sats_floor()) } else { None }
    }

    /// Whole sats; the fraction of a sat is dropped.
    #[must_use]
    pub const fn to_sats_floor(self) -> Sats {
        Sats(self.0 / 1_000)
    }
}
