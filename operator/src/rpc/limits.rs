//! Caps: what a machine may still move, and what its wallet can still promise.
//!
//! Promise: the service holds the caps itself; a machine cannot raise them. What is promised for
//! notes never exceeds what the wallet can pay after everything that it owes, has reserved, and
//! keeps back for routing fees: stacked notes cannot be given back.

use bitspire_shared::money::{Direction, Fiat, Rate, Sats};
use bitspire_shared::split::{Charge, FeePair};

use crate::config::Limits;
use crate::store::machines::Machine;
use crate::store::volume::Volume;

/// Seconds after a lock's end in which its sats stay reserved, for a machine that has stacked
/// notes and cannot reach us at once.
pub(super) const CLAIM_GRACE_S: u64 = 900;

/// What a machine has moved lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    /// Within the last hour.
    pub(super) hour: Volume,
    /// Within the last day.
    pub(super) day: Volume,
}

fn less(from: Sats, taken: &[Sats]) -> Sats {
    Sats(taken.iter().fold(from.0, |rest, sats| rest.saturating_sub(sats.0)))
}

/// Sats that one more cash_out may have.
pub(super) fn cash_out_room(limits: &Limits, lately: Lately) -> Sats {
    let hour = less(limits.machine_hour, &[lately.hour.cash_in, lately.hour.cash_out]);
    let day = less(limits.machine_day, &[lately.day.cash_in, lately.day.cash_out]);
    limits.max_cash_out.min(hour).min(day)
}

/// What the wallet holds and what of it is somebody's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Funds {
    /// What can be spent.
    pub(super) balance: Sats,
    /// Promised to customers or owed to them, and not paid.
    pub(super) liabilities: Sats,
    /// Reserved by other locks.
    pub(super) reserved: Sats,
}

/// Sats that one more lock for cash_in may promise.
pub(super) fn cash_in_room(
    limits: &Limits,
    machine: &Machine,
    lately: Lately,
    funds: Funds,
) -> Sats {
    let Funds { balance, liabilities, reserved } = funds;
    let hour = less(limits.machine_hour, &[lately.hour.cash_in, lately.hour.cash_out]);
    let day = less(limits.machine_day, &[lately.day.cash_in, lately.day.cash_out]);
    let own = |cap: Option<Sats>, used| cap.map_or(Sats(u64::MAX), |cap| less(cap, &[used]));
    machine
        .max_cash_in_sats
        .unwrap_or(limits.max_cash_in)
        .min(own(machine.max_cash_in_hour_sats, lately.hour.cash_in))
        .min(own(machine.max_cash_in_day_sats, lately.day.cash_in))
        .min(hour)
        .min(day)
        .min(less(balance, &[liabilities, reserved, limits.fee_reserve]))
}

/// The largest amount up to `asked` for which at most `room` is paid, and something is.
pub(super) fn most(asked: Fiat, rate: Rate, fees: FeePair, room: Sats) -> Option<(Fiat, Charge)> {
    let fits = |minor: i64| {
        let fiat = Fiat { minor, ..asked };
        let principal = rate.principal(fiat, Direction::CashIn).ok()?;
        let charge = fees.charge(Direction::CashIn, principal).ok()?;
        (charge.wire() <= room).then_some((fiat, charge))
    };
    let (mut good, mut bad) = (0, asked.minor.checked_add(1)?);
    while bad.saturating_sub(good) > 1 {
        let middle = good.saturating_add(bad.saturating_sub(good) / 2);
        if fits(middle).is_some() { good = middle } else { bad = middle }
    }
    fits(good).filter(|(_, charge)| charge.wire() > Sats::ZERO)
}

#[cfg(test)]
mod tests {
    use bitspire_shared::money::FeePpm;
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits {
            max_cash_in: Sats(1_000),
            max_cash_out: Sats(500),
            machine_hour: Sats(2_000),
            machine_day: Sats(5_000),
            fee_reserve: Sats(10),
        }
    }

    fn machine() -> Machine {
        use crate::ids::OperatorId;
        use bitspire_shared::time::Unix;
        Machine::new(OperatorId(1), "m", "p", "EUR".parse().unwrap(), "w", Unix(1))
    }

    /// Loss prevented: notes are stacked for which the wallet cannot pay.
    #[test]
    fn the_wallets_promises_come_off_its_balance() {
        let funds =
            |balance| Funds { balance: Sats(balance), liabilities: Sats(100), reserved: Sats(200) };
        let room =
            |balance| cash_in_room(&limits(), &machine(), Lately::default(), funds(balance)).0;
        assert_eq!(room(10_000), 1_000, "the cap of one transaction");
        assert_eq!(room(900), 590);
        assert_eq!(room(310), 0);
        assert_eq!(room(0), 0, "never below 0");
    }

    /// Loss prevented: a machine taken over empties the wallet in an hour.
    #[test]
    fn hours_and_days_are_capped() {
        let volume =
            |cash_in, cash_out| Volume { cash_in: Sats(cash_in), cash_out: Sats(cash_out) };
        let lately = Lately { hour: volume(800, 900), day: volume(800, 900) };
        assert_eq!(cash_out_room(&limits(), lately), Sats(300));
        let funds = Funds { balance: Sats(9_999), liabilities: Sats(0), reserved: Sats(0) };
        assert_eq!(cash_in_room(&limits(), &machine(), lately, funds), Sats(300));
        let day = Lately { hour: volume(0, 0), day: volume(2_400, 2_500) };
        assert_eq!(cash_out_room(&limits(), day), Sats(100));
        let own = Machine { max_cash_in_hour_sats: Some(Sats(850)), ..machine() };
        assert_eq!(cash_in_room(&limits(), &own, lately, funds), Sats(50));
        let none = Machine { max_cash_in_sats: Some(Sats(0)), ..machine() };
        assert_eq!(cash_in_room(&limits(), &none, Lately::default(), funds), Sats(0));
    }

    proptest! {
        /// Loss prevented: a lock that promises a sat more than there is.
        #[test]
        fn a_lock_fits_its_room(
            minor in 1i64..10_000_000, nano in 1u64..10_000_000_000_000, room in 0u64..10_000_000,
            platform in 0u32..75_000, operator in 0u32..75_000,
        ) {
            let fees = FeePair::new(
                FeePpm::new(platform).unwrap(), FeePpm::new(operator).unwrap()).unwrap();
            let asked = Fiat::new(minor, "EUR".parse().unwrap());
            let rate = Rate::from_nano(nano).unwrap();
            if let Some((fiat, charge)) = most(asked, rate, fees, Sats(room)) {
                prop_assert!(charge.wire().0 <= room && charge.wire().0 > 0);
                prop_assert!(fiat.minor <= minor && fiat.minor > 0);
                let principal = rate.principal(fiat, Direction::CashIn).unwrap();
                prop_assert_eq!(charge, fees.charge(Direction::CashIn, principal).unwrap());
            }
        }
    }
}
