//! What is for sale now.
//!
//! Promise: only what can be done now: cash-out amounts that the bays can make above their floor and
//! within the breaker's allowance, cash-in only with a service in reach and room in the cashbox.
//!
//! Failure policy: each thing that stands in the way is a reason in words.

use std::collections::BTreeMap;

use bitspire_hardware::plan::{PlanRules, Stock, makeable};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Fiat;

/// What the vault knows that decides about sales.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What stands in the way of any sale.
    pub blocked: Vec<String>,
    /// What stands in the way of notes coming in.
    pub cash_in_blocked: Vec<String>,
    /// What stands in the way of notes going out.
    pub cash_out_blocked: Vec<String>,
    /// The bays, without the notes that stay.
    pub stock: BTreeMap<BayId, Stock>,
    /// Notes in one payout at most: the breaker's allowance.
    pub max_notes: u32,
    /// The amounts that a customer may choose.
    pub amounts: Vec<Fiat>,
}

/// What is for sale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shop {
    /// Whether notes can be sold to the machine.
    pub cash_in: bool,
    /// The amounts that can be bought.
    pub cash_out: Vec<Fiat>,
    /// Why not everything is for sale.
    pub reasons: Vec<String>,
}

impl Shop {
    /// What `facts` allow.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        let Facts { blocked, cash_in_blocked, cash_out_blocked, stock, max_notes, amounts } = facts;
        let nothing = !blocked.is_empty();
        let cash_in = !nothing && cash_in_blocked.is_empty();
        let mut reasons = blocked;
        reasons.extend(cash_in_blocked);
        let mut cash_out = Vec::new();
        if cash_out_blocked.is_empty() {
            let makeable = makeable_amounts(&amounts, &stock, max_notes);
            if makeable.is_empty() {
                reasons.push("the bays cannot make any of the amounts".to_owned());
            }
            if !nothing {
                cash_out = makeable;
            }
        }
        reasons.extend(cash_out_blocked);
        Self { cash_in, cash_out, reasons }
    }

    /// Whether anything is for sale.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.cash_in || !self.cash_out.is_empty()
    }
}

fn makeable_amounts(amounts: &[Fiat], stock: &BTreeMap<BayId, Stock>, max_notes: u32) -> Vec<Fiat> {
    let minor = |fiat: &Fiat| u64::try_from(fiat.minor).unwrap_or(0);
    let Some(most) = amounts.iter().map(minor).max() else { return Vec::new() };
    let rules = PlanRules { reserve: 0, max_notes };
    let Ok(can) = makeable(most, stock, rules) else { return Vec::new() };
    amounts.iter().filter(|fiat| can.binary_search(&minor(fiat)).is_ok()).copied().collect()
}

#[cfg(test)]
mod tests {
    use bitspire_hardware::dispenser::BayState;
    use bitspire_shared::money::Denomination;

    use super::*;

    fn facts() -> Facts {
        let eur = "EUR".parse().unwrap();
        let stock = |minor, notes| Stock {
            denomination: Denomination::from_minor(minor).unwrap(),
            notes,
            state: BayState::Present,
        };
        let bay = |n| BayId::new(n).unwrap();
        Facts {
            stock: [(bay(1), stock(2_000, 2)), (bay(2), stock(5_000, 1))].into(),
            max_notes: 40,
            amounts: [2_000, 5_000, 6_000, 9_000, 10_000].map(|m| Fiat::new(m, eur)).to_vec(),
            ..Facts::default()
        }
    }

    fn minors(shop: &Shop) -> Vec<i64> {
        shop.cash_out.iter().map(|fiat| fiat.minor).collect()
    }

    /// Loss prevented: an amount that is paid for and cannot be given.
    #[test]
    fn only_what_the_bays_can_make_is_offered() {
        let shop = Shop::of(facts());
        assert!(shop.cash_in);
        assert_eq!(minors(&shop), [2_000, 5_000, 9_000]);
        let few = Shop::of(Facts { max_notes: 1, ..facts() });
        assert_eq!(minors(&few), [2_000, 5_000], "within the breaker's allowance");
        let none = Shop::of(Facts { max_notes: 0, ..facts() });
        assert_eq!((minors(&none).len(), none.is_open()), (0, true));
    }

    /// Loss prevented: notes taken although nobody can pay for them, or sold by a machine that must
    /// not sell.
    #[test]
    fn what_stands_in_the_way_is_said_and_nothing_is_sold() {
        let why = || vec!["because".to_owned()];
        let shop = Shop::of(Facts { blocked: why(), ..facts() });
        assert_eq!((shop.is_open(), shop.reasons), (false, why()));
        let shop = Shop::of(Facts { cash_in_blocked: why(), ..facts() });
        assert_eq!((shop.cash_in, shop.cash_out.is_empty(), shop.reasons), (false, false, why()));
        let shop = Shop::of(Facts { cash_out_blocked: why(), ..facts() });
        assert_eq!((shop.cash_in, shop.cash_out.is_empty(), shop.reasons), (true, true, why()));
    }
}
