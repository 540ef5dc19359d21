//! Which notes to give out for an amount.
//!
//! Promise: pure and exact. A plan's sum is the amount, no bay gives more than it holds, and a plan
//! is found whenever there is one. Fewest notes; among equals the denominations of which more is
//! left; bays of one denomination are emptied evenly. Bays that are missing or empty give nothing;
//! what lies below the reserve is touched only where the amount cannot be made without it.
//!
//! Failure policy: an amount that cannot be made is refused with the nearest amounts below and above
//! that can, found by the same search.

use std::collections::BTreeMap;

use bitspire_shared::error::{Classified, Kind};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;
use thiserror::Error;

use crate::dispenser::{BayState, DispensePlan};

/// Amounts that one search may look at, in steps of the denominations' greatest common divisor.
const MAX_STEPS: u64 = 100_000;
/// Weight of the last note of a denomination against that of one among many.
const SCARCITY: u64 = 1 << 20;

/// What one bay holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Its note.
    pub denomination: Denomination,
    /// How many, by the journal.
    pub notes: u32,
    /// As the device sees it; only a present bay gives notes.
    pub state: BayState,
}

/// What a plan must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRules {
    /// Notes to leave in each bay as long as the amount can be made without them.
    pub reserve: u32,
    /// Notes in one payout at most.
    pub max_notes: u32,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// These bays cannot make this amount.
    #[error(
        "expected an amount that the loaded notes can make, got {amount} minor units; nearest \
         below: {}, above: {}", or_none(*below), or_none(*above)
    )]
    NotMakeable {
        /// What was asked, in minor units.
        amount: u64,
        /// The nearest smaller amount above 0 that can be made.
        below: Option<u64>,
        /// The nearest larger amount that can be made.
        above: Option<u64>,
    },
    /// The amount is too large in relation to the denominations' common divisor.
    #[error(
        "expected an amount of at most {most} minor units with these denominations, got {amount}"
    )]
    TooLarge {
        /// What was asked, in minor units.
        amount: u64,
        /// What the search can look at.
        most: u64,
    },
}

impl Classified for PlanError {
    fn kind(&self) -> Kind {
        Kind::Permanent
    }
}

fn or_none(amount: Option<u64>) -> String {
    amount.map_or_else(|| "none".to_owned(), |amount| amount.to_string())
}

/// The notes to give out for `amount` minor units.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    amount: u64,
    bays: &BTreeMap<BayId, Stock>,
    rules: PlanRules,
) -> Result<DispensePlan, PlanError> {
    let spare = usable(bays, rules.reserve);
    if let Some(plan) = Search::up_to(amount, &spare)?.plan(amount, &spare, rules) {
        return Ok(plan);
    }
    let all = usable(bays, 0);
    let search = Search::up_to(amount, &all)?;
    search.plan(amount, &all, rules).ok_or_else(|| PlanError::NotMakeable {
        amount,
        below: search.amounts(rules).rfind(|a| *a < amount),
        above: search.amounts(rules).find(|a| *a > amount),
    })
}

/// The amounts above 0 and up to `limit` minor units that can be made, rising: what a screen may
/// offer.
///
/// # Errors
/// [`PlanError::TooLarge`].
pub fn makeable(
    limit: u64,
    bays: &BTreeMap<BayId, Stock>,
    rules: PlanRules,
) -> Result<Vec<u64>, PlanError> {
    let search = Search::up_to(limit, &usable(bays, 0))?;
    Ok(search.amounts(rules).take_while(|a| *a <= limit).collect())
}

/// `plan` in parts of at most `notes_per_bay` notes of each bay, in the order in which they go out;
/// each is a command of its own, with its own proof. Nothing where `notes_per_bay` is 0.
#[must_use]
pub fn batches(plan: &DispensePlan, notes_per_bay: u32) -> Vec<DispensePlan> {
    let mut left = plan.notes.clone();
    let mut parts = Vec::new();
    if notes_per_bay == 0 {
        return parts;
    }
    loop {
        left.retain(|_, notes| *notes > 0);
        if left.is_empty() {
            return parts;
        }
        let mut part = DispensePlan::default();
        for (bay, notes) in &mut left {
            let now = (*notes).min(notes_per_bay);
            *notes = notes.saturating_sub(now);
            part.notes.insert(*bay, now);
        }
        parts.push(part);
    }
}

/// Bays by denomination, with the notes that each may give.
type Usable = BTreeMap<Denomination, Vec<(BayId, u32)>>;

fn usable(bays: &BTreeMap<BayId, Stock>, reserve: u32) -> Usable {
    let mut usable = Usable::new();
    for (bay, stock) in bays {
        let notes = stock.notes.saturating_sub(reserve);
        if stock.state == BayState::Present && notes > 0 {
            usable.entry(stock.denomination).or_default().push((*bay, notes));
        }
    }
    usable
}

/// Notes and scarcity of the best way to an amount.
type Cost = (u64, u64);

/// A bundle of notes of one denomination that is used whole or not at all; bundles of 1, 2, 4 ... and
/// a rest make every count.
struct Bundle {
    denomination: Denomination,
    notes: u64,
    /// For each step, whether the best way to it (with this bundle and those before) uses it.
    used: Vec<bool>,
}

struct Search {
    step: u64,
    best: Vec<Option<Cost>>,
    bundles: Vec<Bundle>,
}

impl Search {
    /// The best way to every amount up to `amount` and one largest note beyond: any set of notes
    /// above the amount, taken away note by note, passes through that range.
    fn up_to(amount: u64, usable: &Usable) -> Result<Self, PlanError> {
        let values = || usable.keys().map(|d| u64::from(d.minor()));
        let step = values().fold(0, gcd).max(1);
        let count = |bays: &[(BayId, u32)]| bays.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
        let total = usable.iter().fold(0u64, |sum, (denomination, bays)| {
            let value = u64::from(denomination.minor()).saturating_mul(count(bays));
            sum.saturating_add(value)
        });
        let most = amount.saturating_add(values().max().unwrap_or(0)).min(total);
        let steps = most.checked_div(step).unwrap_or(0);
        if steps > MAX_STEPS {
            return Err(PlanError::TooLarge { amount, most: MAX_STEPS.saturating_mul(step) });
        }
        let size = usize::try_from(steps).unwrap_or(0).saturating_add(1);
        let mut search = Self { step, best: vec![None; size], bundles: Vec::new() };
        if let Some(nothing) = search.best.first_mut() {
            *nothing = Some((0, 0));
        }
        for (denomination, bays) in usable {
            let held = count(bays);
            let weight = SCARCITY.checked_div(held).unwrap_or(SCARCITY);
            let mut left = held.min(most.checked_div(u64::from(denomination.minor())).unwrap_or(0));
            let mut notes = 1;
            while left > 0 {
                let bundle = notes.min(left);
                search.add(*denomination, bundle, weight);
                left = left.saturating_sub(bundle);
                notes = notes.saturating_mul(2);
            }
        }
        Ok(search)
    }

    fn add(&mut self, denomination: Denomination, notes: u64, weight: u64) {
        let mut used = vec![false; self.best.len()];
        let width = self.width(denomination, notes);
        for to in (width..self.best.len()).rev() {
            let from = to.checked_sub(width).and_then(|from| *self.best.get(from)?);
            let Some((count, scarcity)) = from else { continue };
            let way = (
                count.saturating_add(notes),
                scarcity.saturating_add(weight.saturating_mul(notes)),
            );
            if let (Some(best), Some(used)) = (self.best.get_mut(to), used.get_mut(to))
                && best.is_none_or(|known| way < known)
            {
                *best = Some(way);
                *used = true;
            }
        }
        self.bundles.push(Bundle { denomination, notes, used });
    }

    /// Steps that `notes` notes are worth.
    fn width(&self, denomination: Denomination, notes: u64) -> usize {
        let value = u64::from(denomination.minor()).saturating_mul(notes);
        usize::try_from(value.checked_div(self.step).unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// Amounts above 0 that can be made within the rules, rising.
    fn amounts(&self, rules: PlanRules) -> impl DoubleEndedIterator<Item = u64> {
        let ways = self.best.iter().enumerate().skip(1);
        ways.filter(move |(_, way)| {
            way.is_some_and(|(notes, _)| notes <= u64::from(rules.max_notes))
        })
        .filter_map(|(at, _)| u64::try_from(at).ok()?.checked_mul(self.step))
    }

    fn plan(&self, amount: u64, usable: &Usable, rules: PlanRules) -> Option<DispensePlan> {
        if amount == 0 || amount.checked_rem(self.step) != Some(0) {
            return None;
        }
        let mut at = usize::try_from(amount.checked_div(self.step)?).ok()?;
        let (notes, _) = (*self.best.get(at)?)?;
        if notes > u64::from(rules.max_notes) {
            return None;
        }
        let mut counts: BTreeMap<Denomination, u64> = BTreeMap::new();
        for bundle in self.bundles.iter().rev() {
            if bundle.used.get(at).copied().unwrap_or(false) {
                let count = counts.entry(bundle.denomination).or_default();
                *count = count.saturating_add(bundle.notes);
                at = at.checked_sub(self.width(bundle.denomination, bundle.notes))?;
            }
        }
        let mut plan = DispensePlan::default();
        for (denomination, count) in counts {
            share_out(count, usable.get(&denomination)?.clone(), &mut plan);
        }
        Some(plan)
    }
}

/// `count` notes from bays of one denomination, always the next from the fullest.
fn share_out(count: u64, mut bays: Vec<(BayId, u32)>, plan: &mut DispensePlan) {
    for _ in 0..count {
        let Some((bay, left)) =
            bays.iter_mut().max_by_key(|(bay, left)| (*left, u8::MAX ^ bay.get()))
        else {
            return;
        };
        *left = left.saturating_sub(1);
        let notes = plan.notes.entry(*bay).or_default();
        *notes = notes.saturating_add(1);
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while let Some(rest) = a.checked_rem(b) {
        a = b;
        b = rest;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: PlanRules = PlanRules { reserve: 0, max_notes: 40 };

    fn bay(number: u8) -> BayId {
        BayId::new(number).unwrap()
    }

    fn stock(minor: u32, notes: u32) -> Stock {
        let denomination = Denomination::from_minor(minor).unwrap();
        Stock { denomination, notes, state: BayState::Present }
    }

    fn bays(held: &[(u32, u32)]) -> BTreeMap<BayId, Stock> {
        (1..).zip(held).map(|(n, (minor, notes))| (bay(n), stock(*minor, *notes))).collect()
    }

    fn notes(plan: &DispensePlan) -> Vec<(u8, u32)> {
        plan.notes.iter().map(|(bay, notes)| (bay.get(), *notes)).collect()
    }

    /// Every amount that a nested loop over all counts can make, with its fewest notes.
    fn brute_force(held: &[(u32, u32)]) -> BTreeMap<u64, u32> {
        held.iter().fold(BTreeMap::from([(0, 0)]), |ways, (minor, count)| {
            let mut more: BTreeMap<u64, u32> = BTreeMap::new();
            for (sum, used) in ways {
                for n in 0..=*count {
                    let sum = sum + u64::from(*minor) * u64::from(n);
                    let best = more.entry(sum).or_insert(u32::MAX);
                    *best = (*best).min(used + n);
                }
            }
            more
        })
    }

    /// Loss prevented: a greedy planner that says "no" to 60 with 50s and 20s in the machine.
    #[test]
    fn finds_what_a_greedy_search_misses() {
        let held = bays(&[(5_000, 10), (2_000, 10)]);
        assert_eq!(notes(&plan(6_000, &held, RULES).unwrap()), [(2, 3)]);
        assert_eq!(notes(&plan(11_000, &held, RULES).unwrap()), [(1, 1), (2, 3)]);
    }

    /// Loss prevented: a customer told "not possible" without the amount next door.
    #[test]
    fn a_refusal_names_the_nearest_amounts() {
        let held = bays(&[(5_000, 1), (2_000, 2)]);
        let refused = |amount| plan(amount, &held, RULES).unwrap_err();
        let near = |amount, below, above| PlanError::NotMakeable { amount, below, above };
        assert_eq!(refused(3_000), near(3_000, Some(2_000), Some(4_000)));
        assert_eq!(refused(3_333), near(3_333, Some(2_000), Some(4_000)));
        assert_eq!(refused(100), near(100, None, Some(2_000)));
        assert_eq!(refused(0), near(0, None, Some(2_000)));
        assert_eq!(refused(99_999), near(99_999, Some(9_000), None));
        let text = refused(3_000).to_string();
        assert!(text.ends_with("nearest below: 2000, above: 4000"), "{text}");
        assert_eq!(plan(1, &BTreeMap::new(), RULES), Err(near(1, None, None)));
        assert_eq!(makeable(9_000, &held, RULES).unwrap(), [2_000, 4_000, 5_000, 7_000, 9_000]);
        assert_eq!(makeable(6_999, &held, RULES).unwrap(), [2_000, 4_000, 5_000]);
    }

    /// Loss prevented: a missing or jammed bay is planned with, and the payout ends short.
    #[test]
    fn bays_that_are_not_present_give_nothing() {
        for state in [BayState::Missing, BayState::Empty] {
            let mut held = bays(&[(5_000, 10), (2_000, 10)]);
            held.get_mut(&bay(1)).unwrap().state = state;
            assert_eq!(notes(&plan(10_000, &held, RULES).unwrap()), [(2, 5)]);
            assert!(plan(5_000, &held, RULES).is_err());
        }
    }

    /// Loss prevented: the last small notes go first, and the machine can make nothing any more.
    #[test]
    fn the_reserve_is_touched_only_where_it_must_be() {
        let rules = PlanRules { reserve: 5, max_notes: 40 };
        let held = bays(&[(5_000, 6), (2_000, 50)]);
        assert_eq!(notes(&plan(10_000, &held, rules).unwrap()), [(2, 5)]);
        assert_eq!(notes(&plan(5_000, &held, rules).unwrap()), [(1, 1)]);
        // one 50 above the reserve; two are needed, and no way without
        let held = bays(&[(5_000, 6), (2_000, 0)]);
        assert_eq!(notes(&plan(10_000, &held, rules).unwrap()), [(1, 2)]);
    }

    /// Loss prevented: of two equal ways the scarcer notes are used up; of two equal bays one runs
    /// dry.
    #[test]
    fn equal_ways_spare_what_is_scarce() {
        // 60 = 30 + 30 = 20 + 40
        let held = bays(&[(3_000, 80), (2_000, 4), (4_000, 80)]);
        assert_eq!(notes(&plan(6_000, &held, RULES).unwrap()), [(1, 2)]);
        let held = bays(&[(3_000, 4), (2_000, 80), (4_000, 80)]);
        assert_eq!(notes(&plan(6_000, &held, RULES).unwrap()), [(2, 1), (3, 1)]);
        let held = bays(&[(2_000, 10), (2_000, 13)]);
        assert_eq!(notes(&plan(10_000, &held, RULES).unwrap()), [(1, 1), (2, 4)]);
    }

    /// Loss prevented: a payout of more notes than the exit holds.
    #[test]
    fn the_number_of_notes_is_bounded() {
        let held = bays(&[(500, 100), (2_000, 3)]);
        let rules = PlanRules { reserve: 0, max_notes: 5 };
        assert_eq!(notes(&plan(7_000, &held, rules).unwrap()), [(1, 2), (2, 3)]);
        assert_eq!(
            plan(7_500, &held, rules),
            Err(PlanError::NotMakeable { amount: 7_500, below: Some(7_000), above: None })
        );
    }

    /// Loss prevented: a fat-fingered amount makes the machine search for minutes.
    #[test]
    fn an_absurd_amount_is_refused_at_once() {
        let held = bays(&[(1, u32::MAX), (2_000, u32::MAX)]);
        let error = plan(1_000_000_000, &held, RULES).unwrap_err();
        assert_eq!(error, PlanError::TooLarge { amount: 1_000_000_000, most: 100_000 });
        let held = bays(&[(2_000, u32::MAX), (5_000, u32::MAX)]);
        let rules = PlanRules { reserve: 0, max_notes: u32::MAX };
        assert!(plan(50_000_000, &held, rules).is_ok());
    }

    /// Loss prevented: a plan above the device's limit is refused as a whole, or a batch loses notes.
    #[test]
    fn batches_keep_every_note() {
        let whole =
            DispensePlan { notes: BTreeMap::from([(bay(1), 45), (bay(2), 20), (bay(3), 0)]) };
        let parts: Vec<_> = batches(&whole, 20).iter().map(notes).collect();
        assert_eq!(parts, [vec![(1, 20), (2, 20)], vec![(1, 20)], vec![(1, 5)]]);
        assert!(batches(&DispensePlan::default(), 20).is_empty());
        assert!(batches(&whole, 0).is_empty());
    }

    proptest! {
        /// Loss prevented: a plan that pays another amount, takes notes that are not there, or is
        /// not found although it exists.
        #[test]
        fn agrees_with_brute_force(
            held in prop::collection::vec(
                (prop::sample::select(vec![100u32, 200, 500, 1_000, 1_500, 2_000, 5_000]), 0..7u32),
                0..5,
            ),
            amount in 0..300u64,
            max_notes in 0..25u32,
            reserve in 0..4u32,
        ) {
            let amount = amount * 100;
            let rules = PlanRules { reserve, max_notes };
            let stocks = bays(&held);
            let all = brute_force(&held);
            let ok = |a: &u64| *a > 0 && all.get(a).is_some_and(|n| *n <= max_notes);
            match plan(amount, &stocks, rules) {
                Ok(plan) => {
                    let mut sum = 0;
                    for (bay, notes) in &plan.notes {
                        let stock = stocks[bay];
                        prop_assert!((1..=stock.notes).contains(notes));
                        sum += u64::from(stock.denomination.minor()) * u64::from(*notes);
                    }
                    prop_assert_eq!(sum, amount);
                    let used: u32 = plan.notes.values().sum();
                    prop_assert!(used <= max_notes);
                    let spare: Vec<_> =
                        held.iter().map(|(m, n)| (*m, n.saturating_sub(reserve))).collect();
                    let fewest = brute_force(&spare).get(&amount).copied();
                    let fewest = fewest.filter(|n| *n <= max_notes).unwrap_or(all[&amount]);
                    prop_assert_eq!(used, fewest);
                }
                Err(PlanError::NotMakeable { amount: said, below, above }) => {
                    prop_assert_eq!(said, amount);
                    prop_assert!(!ok(&amount));
                    prop_assert_eq!(below, all.keys().copied().filter(|a| *a < amount).rfind(&ok));
                    prop_assert_eq!(above, all.keys().copied().filter(|a| *a > amount).find(&ok));
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            let offered = makeable(amount, &stocks, rules).unwrap();
            let expected: Vec<_> = all.keys().copied().filter(|a| *a <= amount && ok(a)).collect();
            prop_assert_eq!(offered, expected);
        }

        /// Loss prevented: notes lost or doubled between plan and batches.
        #[test]
        fn batches_add_up(
            held in prop::collection::btree_map(1..9u8, 0..70u32, 0..6),
            limit in 1..25u32,
        ) {
            let whole = DispensePlan { notes: held.iter().map(|(n, c)| (bay(*n), *c)).collect() };
            let parts = batches(&whole, limit);
            for (bay, count) in &whole.notes {
                let of = |part: &DispensePlan| part.notes.get(bay).copied().unwrap_or(0);
                prop_assert_eq!(parts.iter().map(of).sum::<u32>(), *count);
            }
            for part in &parts {
                prop_assert!(!part.notes.is_empty());
                prop_assert!(part.notes.values().all(|n| (1..=limit).contains(n)));
            }
        }
    }
}
