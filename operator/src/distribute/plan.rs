//! Which legs a settlement has.
//!
//! Promise: pure; the legs of a kind sum to what the settlement has for it, or there are none of it.
//! Each share is rounded half to even, is never more than what is left, and the last one takes the
//! rest. A share that comes to nothing has no leg.
//!
//! What liquidity providers get comes of the principal, never of a fee; see [`super::providers`].

use bitspire_shared::money::{MoneyError, Sats};
use bitspire_shared::split::Parts;

use super::providers::Portion;
use crate::ids::RuleSetId;
use crate::store::legs::{LegKind, NewLeg};
use crate::store::rules::{KeptRules, Share};

/// Shares and the rule set that they are from.
pub(crate) type Shares<'a> = (RuleSetId, &'a [Share]);

/// The shares of a rule set; `None` where it has none.
pub(crate) fn shares(rules: Option<&KeptRules>) -> Option<Shares<'_>> {
    rules.map(|rules| (rules.id, rules.shares.0.as_slice())).filter(|(_, all)| !all.is_empty())
}

/// The legs of `parts`: the platform's fee, which waits where the platform has no wallet, then the
/// operator's fee by its rule set, which stays in the machine's wallet where there is none, then what is
/// a provider's.
///
/// # Errors
/// [`MoneyError`]: never, as long as shares are never more than what is left.
pub(crate) fn legs(
    parts: Parts,
    platform: Option<Shares<'_>>,
    operator: Option<Shares<'_>>,
    providers: &[Portion],
) -> Result<Vec<NewLeg>, MoneyError> {
    let mut legs = Vec::new();
    match platform {
        Some(shares) => split(&mut legs, LegKind::SuperFee, parts.platform_fee, shares)?,
        None if parts.platform_fee > Sats::ZERO => {
            let amount = parts.platform_fee;
            legs.push(NewLeg { kind: LegKind::SuperFee, lp: None, amount, to: None });
        }
        None => {}
    }
    if let Some(shares) = operator {
        split(&mut legs, LegKind::OperatorSplit, parts.operator_fee, shares)?;
    }
    for portion in providers.iter().filter(|portion| portion.sats > Sats::ZERO) {
        let (lp, amount) = (Some(portion.lp), portion.sats);
        legs.push(NewLeg { kind: LegKind::Dca, lp, amount, to: portion.to.clone() });
    }
    Ok(legs)
}

fn split(
    legs: &mut Vec<NewLeg>,
    kind: LegKind,
    fee: Sats,
    (rule, shares): Shares<'_>,
) -> Result<(), MoneyError> {
    let Some((last, others)) = shares.split_last() else { return Ok(()) };
    let mut left = fee;
    let mut add = |share: &Share, amount: Sats| {
        if amount > Sats::ZERO {
            legs.push(NewLeg { kind, lp: None, amount, to: Some((rule, share.to.clone())) });
        }
    };
    for share in others {
        let amount = share.ppm.of(fee).min(left);
        left = left.minus(amount)?;
        add(share, amount);
    }
    add(last, left);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bitspire_shared::money::{Direction, FeePpm};
    use bitspire_shared::split::{FeePair, Split, Terms};
    use proptest::prelude::*;

    use super::*;
    use crate::store::rules::Destination;

    fn ppm(ppm: u32) -> FeePpm {
        FeePpm::new(ppm).unwrap()
    }

    fn to(name: &str, part: u32) -> Share {
        Share { ppm: ppm(part), to: Destination::Wallet(name.into()) }
    }

    const NONE: Parts = Parts {
        principal: Sats::ZERO,
        platform_fee: Sats::ZERO,
        operator_fee: Sats::ZERO,
        owed: Sats::ZERO,
    };

    fn amounts(legs: &[NewLeg]) -> Vec<(LegKind, u64)> {
        legs.iter().map(|leg| (leg.kind, leg.amount.0)).collect()
    }

    /// Loss prevented: legs that differ from what was agreed by hand: principal 82 386, platform 3 %,
    /// operator 5 %.
    #[test]
    fn the_worked_example_has_these_legs() {
        let fees = FeePair::new(ppm(30_000), ppm(50_000)).unwrap();
        let charge = fees.charge(Direction::CashIn, Sats(82_386)).unwrap();
        let split = Split::new(Terms {
            direction: Direction::CashIn,
            wire: charge.wire(),
            principal: charge.principal(),
            fee: charge.fee(),
            owed: Sats::ZERO,
            platform: fees.platform(),
        });
        let (one, two) = ([to("super", 1_000_000)], [to("a", 500_000), to("b", 500_000)]);
        let platform = Some((RuleSetId(1), &one[..]));
        let operator = Some((RuleSetId(2), &two[..]));
        let legs = legs(split.unwrap().parts(), platform, operator, &[]).unwrap();
        let (fee, share) = (LegKind::SuperFee, LegKind::OperatorSplit);
        assert_eq!(amounts(&legs), [(fee, 2_472), (share, 2_060), (share, 2_059)]);
    }

    /// Loss prevented: the platform's part handed to the operator because nobody has named a wallet
    /// yet; sats sent somewhere though no rule says so.
    #[test]
    fn without_a_wallet_the_platforms_leg_waits_and_without_rules_nothing_moves() {
        let parts = Parts { platform_fee: Sats(7), operator_fee: Sats(5), ..NONE };
        let waiting = legs(parts, None, None, &[]).unwrap();
        assert_eq!(amounts(&waiting), [(LegKind::SuperFee, 7)]);
        assert_eq!(waiting[0].to, None);
        assert_eq!(legs(NONE, None, None, &[]).unwrap(), []);
    }

    /// Loss prevented: of four shares that each round up, more is paid than was taken.
    #[test]
    fn rounding_never_pays_more_than_there_is() {
        let shares = [to("a", 300_000), to("b", 300_000), to("c", 300_000), to("d", 100_000)];
        let parts = Parts { operator_fee: Sats(5), ..NONE };
        let legs = legs(parts, None, Some((RuleSetId(2), &shares)), &[]).unwrap();
        let share = LegKind::OperatorSplit;
        assert_eq!(amounts(&legs), [(share, 2), (share, 2), (share, 1)]);
    }

    proptest! {
        /// Loss prevented: a sat that no leg carries, or that two carry, whatever the shares are.
        #[test]
        fn legs_sum_to_the_fees(
            platform_fee in 0u64..=2_100_000_000_000_000,
            operator_fee in 0u64..=2_100_000_000_000_000,
            cuts in proptest::collection::btree_set(1u32..1_000_000, 0..8),
        ) {
            let mut shares = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([1_000_000]) {
                shares.push(to(&cut.to_string(), cut - from));
                from = cut;
            }
            let one = [to("super", 1_000_000)];
            let parts = Parts {
                platform_fee: Sats(platform_fee), operator_fee: Sats(operator_fee), ..NONE
            };
            let legs = legs(
                parts, Some((RuleSetId(1), &one)), Some((RuleSetId(2), &shares)), &[],
            ).unwrap();
            let sum = |kind| -> u64 {
                legs.iter().filter(|leg| leg.kind == kind).map(|leg| leg.amount.0).sum()
            };
            prop_assert_eq!(sum(LegKind::SuperFee), platform_fee);
            prop_assert_eq!(sum(LegKind::OperatorSplit), operator_fee);
            prop_assert!(legs.iter().all(|leg| leg.amount > Sats::ZERO));
            // each share is its fraction within a sat, but for the last one, which has the rest
            for share in shares.iter().rev().skip(1) {
                let of = |leg: &&NewLeg| leg.to.as_ref().is_some_and(|(_, to)| *to == share.to);
                let got = legs.iter().find(of).map_or(0, |leg| leg.amount.0);
                prop_assert!(got <= share.ppm.of(Sats(operator_fee)).0);
            }
        }
    }
}
