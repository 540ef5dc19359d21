//! What each provider gets, by arithmetic alone.

use proptest::prelude::*;

use super::*;

fn eur() -> Currency {
    "EUR".parse().unwrap()
}

/// 1 000 sats an euro: 10 sats a cent.
fn thousand() -> Rate {
    Rate::from_nano(1_000_000_000_000).unwrap()
}

/// Loss prevented: a provider who has handed over a third gets half; or more sats than the fiat that is
/// left is worth.
#[test]
fn shares_follow_what_is_left_and_are_worth_no_more() {
    let of = |principal, may: &[i64]| parts(Sats(principal), thousand(), eur(), may).unwrap();
    // 10 000 sats are 10 EUR: of 20 and 10 EUR, two thirds and one
    assert_eq!(of(10_000, &[2_000, 1_000]), [(Sats(6_666), 667), (Sats(3_333), 334)]);
    // of 3 and 1 EUR, all of it: 6 000 sats stay where they are
    assert_eq!(of(10_000, &[300, 100]), [(Sats(3_000), 300), (Sats(1_000), 100)]);
    assert_eq!(of(10_000, &[]), []);
    assert_eq!(of(10_000, &[0, 50]), [(Sats(0), 0), (Sats(500), 50)]);
    assert_eq!(of(1, &[1, 1]), [(Sats(0), 0), (Sats(0), 0)]);
    assert!(parts(Sats(1), thousand(), eur(), &[-1]).is_err());
}

proptest! {
    /// Loss prevented: a sat of the principal that two get, a share that costs more than may be spent,
    /// or less than it is worth, whatever is left to whom.
    #[test]
    fn shares_never_sum_to_more_than_the_principal(
        principal in 0u64..=2_100_000_000_000_000,
        nano in 1u64..=u64::MAX,
        may in proptest::collection::vec(0i64..=1_000_000_000_000, 0..12),
        jpy: bool,
    ) {
        let rate = Rate::from_nano(nano).unwrap();
        let currency = if jpy { "JPY".parse().unwrap() } else { eur() };
        let all: u128 = may.iter().map(|one| u128::from(one.unsigned_abs())).sum();
        let worth = |minor| {
            let worth = rate.principal(Fiat::new(minor, currency), Direction::CashIn);
            worth.unwrap_or(Sats(u64::MAX))
        };
        let parts = parts(Sats(principal), rate, currency, &may).unwrap();
        prop_assert_eq!(parts.len(), may.len());
        let sum: u64 = parts.iter().map(|(sats, _)| sats.0).sum();
        prop_assert!(sum <= principal);
        for ((sats, minor), may) in parts.into_iter().zip(may) {
            prop_assert!((0..=may).contains(&minor), "{} of {}", minor, may);
            prop_assert_eq!(sats == Sats::ZERO, minor == 0);
            // rounded up: a minor unit less would not have paid for it
            prop_assert!(worth(minor) >= sats);
            prop_assert!(minor == 0 || worth(minor - 1) < sats);
            let fair = u128::from(principal) * u128::from(may.unsigned_abs()) / all.max(1);
            let most = worth(may);
            prop_assert_eq!(u128::from(sats.0), fair.min(u128::from(most.0)));
        }
    }
}
