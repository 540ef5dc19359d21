//! Who gets which sats of one settlement.
//!
//! Promise: the parts of a [`Split`] and of a [`Dispensed`] always sum to what moved on Lightning:
//! cash_out `wire = principal + platform + operator + owed`, cash_in
//! `wire = principal - platform - operator`. Fields are private and each type has one maker that
//! checks the sum. Every rounding goes to a named party: fee legs half to even, the customer's debt
//! up, the rest to the principal.
//!
//! Failure policy: amounts that do not sum are a [`SplitError`]; nothing is adjusted to fit.

mod charge;

use thiserror::Error;

use crate::error::{Classified, Kind};
use crate::money::{Direction, FeePpm, Fiat, MoneyError, Sats};

pub use charge::{Charge, FeePair, wire_of};

/// Why there is no split of these amounts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SplitError {
    /// The two fees together are above what one direction may cost.
    #[error(
        "fees: expected at most {cap} ppm together, got platform {platform} + operator \
         {operator} = {sum}",
        cap = FeePpm::CAP.ppm(), platform = .platform.ppm(), operator = .operator.ppm(),
        sum = .platform.ppm().saturating_add(.operator.ppm())
    )]
    OverCap {
        /// The platform's fee.
        platform: FeePpm,
        /// The operator's fee.
        operator: FeePpm,
    },
    /// The parts do not sum to the wire amount.
    #[error("{direction}: expected a wire amount of {expected} sats, got {got}")]
    Sum {
        /// Direction of the cash.
        direction: Direction,
        /// What the parts sum to.
        expected: Sats,
        /// What moved.
        got: Sats,
    },
    /// A cash_in whose fee is more than its principal.
    #[error("cash_in: expected a fee of at most the principal of {principal} sats, got {fee}")]
    FeeAbovePrincipal {
        /// The principal.
        principal: Sats,
        /// The fee.
        fee: Sats,
    },
    /// Owed sats where no note is promised.
    #[error("cash_in: expected nothing owed in the split, got {owed} sats")]
    OwedOnCashIn {
        /// What was named as owed.
        owed: Sats,
    },
    /// A dispense result for a cash_in.
    #[error("a dispense belongs to a cash_out, got a cash_in")]
    NotCashOut,
    /// A debt below zero or above what was promised, or nothing promised.
    #[error("dispense: expected 0 to {promised} owed of a promise above 0, got {owed}")]
    Debt {
        /// What the customer was promised.
        promised: Fiat,
        /// What did not come out.
        owed: Fiat,
    },
    /// A sum that does not fit, or two currencies.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

impl Classified for SplitError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

/// What a settlement says about itself, before it is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Direction of the cash.
    pub direction: Direction,
    /// What moved on Lightning.
    pub wire: Sats,
    /// The amount at market rate, before fees; 0 where all is owed.
    pub principal: Sats,
    /// The stamped fee; 0 where all is owed.
    pub fee: Sats,
    /// What the customer paid beyond the invoice, or all of it where nothing may be dispensed.
    pub owed: Sats,
    /// The platform's fee of this direction.
    pub platform: FeePpm,
}

/// Where the sats of one settlement go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// For the liquidity providers, or the machine's wallet.
    pub principal: Sats,
    /// First stage: the platform's leg of the fee.
    pub platform_fee: Sats,
    /// Second stage: the rest of the fee.
    pub operator_fee: Sats,
    /// Owed to the customer.
    pub owed: Sats,
}

impl Parts {
    fn sum(&self) -> Result<Sats, MoneyError> {
        Sats::sum([self.principal, self.platform_fee, self.operator_fee, self.owed])
    }
}

/// The two-stage split of one settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    direction: Direction,
    wire: Sats,
    parts: Parts,
    short: bool,
}

impl Split {
    /// Splits the stamped fee: the platform takes its leg, or what there is of it; the operator
    /// takes the rest.
    ///
    /// # Errors
    /// [`SplitError`] where the amounts do not sum to the wire amount.
    pub fn new(terms: Terms) -> Result<Self, SplitError> {
        let Terms { direction, wire, principal, fee, owed, platform } = terms;
        if direction == Direction::CashIn && owed != Sats::ZERO {
            return Err(SplitError::OwedOnCashIn { owed });
        }
        let expected = wire_of(direction, principal, fee)?.plus(owed)?;
        if expected != wire {
            return Err(SplitError::Sum { direction, expected, got: wire });
        }
        let leg = platform.of(principal);
        let platform_fee = leg.min(fee);
        let operator_fee = fee.minus(platform_fee)?;
        let parts = Parts { principal, platform_fee, operator_fee, owed };
        Ok(Self { direction, wire, parts, short: fee < leg })
    }

    /// Direction of the cash.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// What moved on Lightning.
    #[must_use]
    pub const fn wire(&self) -> Sats {
        self.wire
    }

    /// Where it goes.
    #[must_use]
    pub const fn parts(&self) -> Parts {
        self.parts
    }

    /// Whether the stamped fee was less than the platform's leg.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.short
    }

    /// What becomes of it when `owed` of the `promised` notes did not come out: the debt is
    /// rounded up with its share of the fee; both fees scale down on the rest, rounded down, and
    /// the last sats go to the principal. Nothing dispensed: all is owed, no fee is taken.
    ///
    /// # Errors
    /// [`SplitError::NotCashOut`]; [`SplitError::Debt`] for a debt outside the promise.
    pub fn dispensed(&self, promised: Fiat, owed: Fiat) -> Result<Dispensed, SplitError> {
        if self.direction != Direction::CashOut {
            return Err(SplitError::NotCashOut);
        }
        promised.minus(owed)?;
        let outside = SplitError::Debt { promised, owed };
        let (Ok(whole), Ok(missing)) = (u128::try_from(promised.minor), u128::try_from(owed.minor))
        else {
            return Err(outside);
        };
        if whole == 0 || missing > whole {
            return Err(outside);
        }
        let parts = self.parts;
        let deal = self.wire.minus(parts.owed)?;
        let debt = fit(u128::from(deal.0).saturating_mul(missing).div_ceil(whole))?;
        let rest = deal.minus(debt)?;
        let platform_fee = scale_down(parts.platform_fee, rest, deal)?;
        let operator_fee = scale_down(parts.operator_fee, rest, deal)?;
        let principal = rest.minus(platform_fee)?.minus(operator_fee)?;
        let owed = parts.owed.plus(debt)?;
        Dispensed::new(self.wire, Parts { principal, platform_fee, operator_fee, owed })
    }
}

/// The largest whole part of `amount` in proportion to `rest` of `deal`; 0 of an empty deal.
fn scale_down(amount: Sats, rest: Sats, deal: Sats) -> Result<Sats, MoneyError> {
    let product = u128::from(amount.0).saturating_mul(u128::from(rest.0));
    fit(product.checked_div(u128::from(deal.0)).unwrap_or(0))
}

fn fit(sats: u128) -> Result<Sats, MoneyError> {
    u64::try_from(sats).map(Sats).map_err(|_| MoneyError::Overflow { what: "share of sats" })
}

/// The split of a cash_out after its dispense; made by [`Split::dispensed`], once, from the split
/// that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dispensed {
    wire: Sats,
    parts: Parts,
}

impl Dispensed {
    fn new(wire: Sats, parts: Parts) -> Result<Self, SplitError> {
        let expected = parts.sum()?;
        if expected != wire {
            let direction = Direction::CashOut;
            return Err(SplitError::Sum { direction, expected, got: wire });
        }
        Ok(Self { wire, parts })
    }

    /// What moved on Lightning.
    #[must_use]
    pub const fn wire(&self) -> Sats {
        self.wire
    }

    /// Where it goes.
    #[must_use]
    pub const fn parts(&self) -> Parts {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ppm(ppm: u32) -> FeePpm {
        FeePpm::new(ppm).unwrap()
    }

    fn usd(minor: i64) -> Fiat {
        Fiat::new(minor, "USD".parse().unwrap())
    }

    /// A cash_out of 222 320 sats with 11 116 of fee, 2 % of it the platform's.
    fn cash_out() -> Terms {
        Terms {
            direction: Direction::CashOut,
            wire: Sats(233_436),
            principal: Sats(222_320),
            fee: Sats(11_116),
            owed: Sats::ZERO,
            platform: ppm(20_000),
        }
    }

    /// Loss prevented: the platform's leg taken out of the operator's principal.
    #[test]
    fn a_fee_below_the_platforms_leg_is_marked_short() {
        let split = Split::new(cash_out()).unwrap();
        assert_eq!(split.parts().platform_fee, Sats(4_446));
        assert_eq!(split.parts().operator_fee, Sats(6_670));
        assert!(!split.is_short());
        let little = Terms { fee: Sats(4_000), wire: Sats(226_320), ..cash_out() };
        let split = Split::new(little).unwrap();
        assert_eq!(split.parts().platform_fee, Sats(4_000));
        assert_eq!(split.parts().operator_fee, Sats::ZERO);
        assert!(split.is_short());
    }

    /// Loss prevented: a row whose parts sum to more or less than what moved.
    #[test]
    fn amounts_that_do_not_sum_are_refused() {
        let sum = Split::new(Terms { wire: Sats(233_437), ..cash_out() });
        assert!(matches!(sum, Err(SplitError::Sum { expected: Sats(233_436), .. })));
        let cash_in = Terms { direction: Direction::CashIn, wire: Sats(211_204), ..cash_out() };
        assert!(Split::new(cash_in).is_ok());
        let owed = Split::new(Terms { owed: Sats(1), ..cash_in });
        assert_eq!(owed, Err(SplitError::OwedOnCashIn { owed: Sats(1) }));
        let above = Split::new(Terms { fee: Sats(222_321), ..cash_in });
        assert!(matches!(above, Err(SplitError::FeeAbovePrincipal { .. })));
    }

    /// Loss prevented: a customer who got half of the notes and is told that nothing is owed.
    #[test]
    fn a_short_dispense_owes_its_share_of_the_wire_amount() {
        let split = Split::new(cash_out()).unwrap();
        let short = split.dispensed(usd(10_000), usd(4_000)).unwrap().parts();
        assert_eq!(short.owed, Sats(93_375), "ceil of 93 374.4");
        assert_eq!(short.platform_fee, Sats(2_667), "floor of 4 446 * 140 061 / 233 436");
        assert_eq!(short.operator_fee, Sats(4_001), "floor of 6 670 * 140 061 / 233 436");
        assert_eq!(short.principal, Sats(140_061 - 2_667 - 4_001));

        let nothing = split.dispensed(usd(10_000), usd(10_000)).unwrap().parts();
        let zero = Sats::ZERO;
        let all_owed =
            Parts { principal: zero, platform_fee: zero, operator_fee: zero, owed: split.wire() };
        assert_eq!(nothing, all_owed);
        assert_eq!(split.dispensed(usd(10_000), usd(0)).unwrap().parts(), split.parts());
    }

    /// Loss prevented: a debt computed from a report that cannot be true.
    #[test]
    fn a_debt_outside_the_promise_is_refused() {
        let split = Split::new(cash_out()).unwrap();
        for (promised, owed) in [(0, 0), (100, 101), (100, -1), (-100, -100)] {
            let debt = split.dispensed(usd(promised), usd(owed));
            assert!(matches!(debt, Err(SplitError::Debt { .. })), "{promised} {owed}");
        }
        let eur = Fiat::new(1, "EUR".parse().unwrap());
        let mixed = split.dispensed(usd(100), eur);
        assert!(matches!(mixed, Err(SplitError::Money(MoneyError::Mixed { .. }))));
        let cash_in = Terms { direction: Direction::CashIn, wire: Sats(211_204), ..cash_out() };
        let none = Split::new(cash_in).unwrap().dispensed(usd(100), usd(1));
        assert_eq!(none, Err(SplitError::NotCashOut));
    }

    proptest! {
        /// Loss prevented: parts that do not sum, whatever the stamp said.
        #[test]
        fn the_sums_hold_for_any_stamp(
            principal in 0u64..1_000_000_000_000, fee in 0u64..1_000_000_000_000,
            owed in 0u64..1_000_000, platform in 0u32..=1_000_000,
        ) {
            let terms = Terms {
                direction: Direction::CashOut,
                wire: Sats(principal + fee + owed),
                principal: Sats(principal),
                fee: Sats(fee),
                owed: Sats(owed),
                platform: ppm(platform),
            };
            let split = Split::new(terms).unwrap();
            let parts = split.parts();
            prop_assert_eq!(parts.sum(), Ok(split.wire()));
            prop_assert_eq!(parts.platform_fee.0 + parts.operator_fee.0, fee);
            prop_assert_eq!(split.is_short(), fee < ppm(platform).of(Sats(principal)).0);
            let off_by_one = Terms { wire: Sats(terms.wire.0 + 1), ..terms };
            prop_assert!(Split::new(off_by_one).is_err());
        }

        /// Loss prevented: a short dispense that loses a sat, or rounds against the customer.
        #[test]
        fn a_short_dispense_sums_and_rounds_for_the_customer(
            principal in 0u64..100_000_000_000, fee in 0u64..1_000_000_000, surplus in 0u64..1_000,
            promised in 1i64..10_000_000, part in 0i64..=1_000, platform in 0u32..=150_000,
        ) {
            let missing = promised * part / 1_000;
            let split = Split::new(Terms {
                direction: Direction::CashOut,
                wire: Sats(principal + fee + surplus),
                principal: Sats(principal),
                fee: Sats(fee),
                owed: Sats(surplus),
                platform: ppm(platform),
            }).unwrap();
            let done = split.dispensed(usd(promised), usd(missing)).unwrap();
            let parts = done.parts();
            prop_assert_eq!(parts.sum(), Ok(split.wire()));
            let debt = u128::from(parts.owed.0 - surplus);
            let exact = u128::from(principal + fee) * u128::try_from(missing).unwrap();
            let whole = u128::try_from(promised).unwrap();
            prop_assert!(debt * whole >= exact && debt * whole < exact + whole);
            prop_assert!(parts.platform_fee <= split.parts().platform_fee);
            prop_assert!(parts.operator_fee <= split.parts().operator_fee);
            if missing == promised {
                prop_assert_eq!(parts.owed, split.wire());
            }
        }
    }
}
