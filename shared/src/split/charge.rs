//! What a transaction costs: the fees of one direction and the charge on a principal.
//!
//! Promise: a [`FeePair`] is within the cap; a [`Charge`] has `wire = principal + fee` for cash_out
//! and `wire = principal - fee` for cash_in, and its fee is the sum of its two legs.
//!
//! Failure policy: fees above the cap or above the principal are a [`SplitError`].

use crate::money::{Direction, FeePpm, Sats};
use crate::split::SplitError;

/// The two fees of one direction; together within [`FeePpm::CAP`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FeePair {
    platform: FeePpm,
    operator: FeePpm,
    total: FeePpm,
}

impl FeePair {
    /// The fees of the platform (super, the whole instance) and of the machine's operator.
    ///
    /// # Errors
    /// [`SplitError::OverCap`].
    pub fn new(platform: FeePpm, operator: FeePpm) -> Result<Self, SplitError> {
        match platform.plus(operator) {
            Ok(total) if total <= FeePpm::CAP => Ok(Self { platform, operator, total }),
            _ => Err(SplitError::OverCap { platform, operator }),
        }
    }

    /// The platform's fee.
    #[must_use]
    pub const fn platform(self) -> FeePpm {
        self.platform
    }

    /// The operator's fee.
    #[must_use]
    pub const fn operator(self) -> FeePpm {
        self.operator
    }

    /// Both together.
    #[must_use]
    pub const fn total(self) -> FeePpm {
        self.total
    }

    /// What a transaction of `principal` costs. Each leg is rounded half to even by itself.
    ///
    /// # Errors
    /// [`SplitError::FeeAbovePrincipal`] for cash_in, [`MoneyError::Overflow`].
    pub fn charge(self, direction: Direction, principal: Sats) -> Result<Charge, SplitError> {
        let platform_fee = self.platform.of(principal);
        let operator_fee = self.operator.of(principal);
        let fee = platform_fee.plus(operator_fee)?;
        let wire = wire_of(direction, principal, fee)?;
        Ok(Charge { direction, principal, platform_fee, operator_fee, fee, wire })
    }
}

/// The amount on Lightning for a principal and a fee: the sum for cash_out, the difference for
/// cash_in.
///
/// # Errors
/// [`SplitError::FeeAbovePrincipal`] for cash_in, [`MoneyError::Overflow`].
pub fn wire_of(direction: Direction, principal: Sats, fee: Sats) -> Result<Sats, SplitError> {
    match direction {
        Direction::CashOut => Ok(principal.plus(fee)?),
        Direction::CashIn => {
            principal.minus(fee).map_err(|_| SplitError::FeeAbovePrincipal { principal, fee })
        }
    }
}

/// What one transaction costs; made by [`FeePair::charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Charge {
    direction: Direction,
    principal: Sats,
    platform_fee: Sats,
    operator_fee: Sats,
    fee: Sats,
    wire: Sats,
}

impl Charge {
    /// Direction of the cash.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The amount at market rate, before fees.
    #[must_use]
    pub const fn principal(&self) -> Sats {
        self.principal
    }

    /// The platform's leg.
    #[must_use]
    pub const fn platform_fee(&self) -> Sats {
        self.platform_fee
    }

    /// The operator's leg.
    #[must_use]
    pub const fn operator_fee(&self) -> Sats {
        self.operator_fee
    }

    /// Both legs.
    #[must_use]
    pub const fn fee(&self) -> Sats {
        self.fee
    }

    /// What moves on Lightning.
    #[must_use]
    pub const fn wire(&self) -> Sats {
        self.wire
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::split::{Split, Terms};

    fn ppm(ppm: u32) -> FeePpm {
        FeePpm::new(ppm).unwrap()
    }

    /// Loss prevented: machine and service that round differently disagree on every sale.
    #[test]
    fn the_worked_examples_hold() {
        let fees = FeePair::new(ppm(30_000), ppm(50_000)).unwrap();
        let charge = fees.charge(Direction::CashIn, Sats(82_386)).unwrap();
        assert_eq!(charge.platform_fee(), Sats(2_472));
        assert_eq!(charge.operator_fee(), Sats(4_119));
        assert_eq!(charge.fee(), Sats(6_591));
        assert_eq!(charge.wire(), Sats(75_795));

        let fees = FeePair::new(FeePpm::ZERO, ppm(50_000)).unwrap();
        let charge = fees.charge(Direction::CashOut, Sats(222_320)).unwrap();
        assert_eq!((charge.fee(), charge.wire()), (Sats(11_116), Sats(233_436)));
    }

    /// Loss prevented: a fee of 100 % by a slip of the hand.
    #[test]
    fn fees_above_the_cap_are_refused() {
        assert!(FeePair::new(ppm(100_000), ppm(50_000)).is_ok());
        let over = FeePair::new(ppm(100_000), ppm(50_001));
        assert!(matches!(over, Err(SplitError::OverCap { .. })));
        let whole = FeePair::new(ppm(1_000_000), ppm(1_000_000));
        assert!(matches!(whole, Err(SplitError::OverCap { .. })));
    }

    prop_compose! {
        fn any_fees()(platform in 0u32..=150_000)(
            platform in Just(platform), operator in 0u32..=150_000 - platform,
        ) -> FeePair {
            FeePair::new(ppm(platform), ppm(operator)).unwrap()
        }
    }

    proptest! {
        /// Loss prevented: a sat that is nobody's, or two parties'.
        #[test]
        fn a_charge_splits_into_its_own_legs(
            fees in any_fees(), principal in 0u64..=2_100_000_000_000_000, cash_in in any::<bool>(),
        ) {
            let direction = if cash_in { Direction::CashIn } else { Direction::CashOut };
            let charge = fees.charge(direction, Sats(principal)).unwrap();
            let split = Split::new(Terms {
                direction,
                wire: charge.wire(),
                principal: charge.principal(),
                fee: charge.fee(),
                owed: Sats::ZERO,
                platform: fees.platform(),
            }).unwrap();
            prop_assert_eq!(split.parts().platform_fee, charge.platform_fee());
            prop_assert_eq!(split.parts().operator_fee, charge.operator_fee());
            prop_assert!(!split.is_short());
            let exact = u128::from(principal) * u128::from(fees.total().ppm());
            let error = (u128::from(charge.fee().0) * 1_000_000).abs_diff(exact);
            prop_assert!(error <= 1_000_000, "two legs, at most half a sat each");
        }
    }
}
