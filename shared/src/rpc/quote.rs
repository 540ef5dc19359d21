//! The machine's check of a quote.
//!
//! Promise: a [`CheckedQuote`] was signed by the pinned service for this machine, transaction,
//! direction and amount; its sums follow from its rate and from the fee document that the machine
//! applied; its rate is near the ones of the last signed quotes, and no source of its price had
//! spoken longer ago than the machine allows. Its time to live counts from when the vault asked, on
//! the vault's monotonic clock: that is the caller's.
//!
//! Failure policy: each difference is a variant; nothing is corrected, a new quote is asked for.

use thiserror::Error;

use crate::canonical::CanonicalError;
use crate::error::{Classified, Kind};
use crate::ids::{EventId, PubKey, TxnId};
use crate::money::{Direction, Fiat, Origin, Origins, PPM, Rate, Sats, SourceName};
use crate::rpc::body::{Quote, SignedOrigins};
use crate::rpc::code::ErrorCode;
use crate::rpc::signed::{QuoteTerms, SignedText};
use crate::split::{Charge, FeePair, SplitError};

/// The longest life of a quote that a machine accepts, in seconds: the price of an hour ago is a
/// gift to whoever waits.
const MAX_TTL_S: u32 = 3_600;

/// What the fee document in force says for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeesInForce {
    /// The document's event.
    pub event_id: EventId,
    /// Its fees.
    pub fees: FeePair,
}

/// What the vault knows when a quote comes.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    /// This machine.
    pub spire: &'a PubKey,
    /// The pinned service.
    pub service: &'a PubKey,
    /// Which way the cash goes.
    pub direction: Direction,
    /// The vault's transaction.
    pub txid: TxnId,
    /// What was asked for: the amount, or for cash_in the most that would be taken.
    pub fiat: Fiat,
    /// The fee document that the machine applied, for this direction.
    pub fees: FeesInForce,
    /// Rates of the last signed quotes that are recent enough to compare with. None: no bound yet.
    pub recent_rates: &'a [Rate],
    /// How far from their median a rate may lie, in parts per million.
    pub band_ppm: u32,
    /// How long before the quote a source of its price may have spoken, in seconds.
    pub max_age_s: u32,
}

/// Why a quote is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// Not signed by the pinned service, or not for this machine.
    #[error("quote: not signed by the pinned service for this machine")]
    Signature(#[from] CanonicalError),
    /// For another transaction or direction.
    #[error("quote: expected {expected}, got {got}")]
    OtherTransaction {
        /// Direction and txid of the machine's transaction.
        expected: String,
        /// Those of the quote.
        got: String,
    },
    /// Not the amount that was chosen; for cash_in none, more than asked for, or an unsigned
    /// maximum.
    #[error("quote: expected {expected}, got {got}")]
    Amount {
        /// What was asked for.
        expected: Fiat,
        /// What the quote says.
        got: Fiat,
    },
    /// Made by another fee document than the applied one.
    #[error("quote: expected the fees of {expected}, got those of {got}: wait for the document")]
    OtherFees {
        /// The applied document.
        expected: EventId,
        /// The quote's.
        got: EventId,
    },
    /// The sums do not follow from rate and fees.
    #[error(
        "quote: expected principal {}, fee {} and {} on Lightning, got {principal}, {fee} and {wire}",
        .expected.principal(), .expected.fee(), .expected.wire()
    )]
    Sums {
        /// As computed here.
        expected: Charge,
        /// The quote's principal.
        principal: Sats,
        /// The quote's fee.
        fee: Sats,
        /// The quote's amount on Lightning.
        wire: Sats,
    },
    /// A sum that cannot be made.
    #[error("quote: its sums cannot be made")]
    Charge(#[from] SplitError),
    /// Too far from the last signed rates.
    #[error("quote: expected a rate within {band_ppm} ppm of {median:?}, got {got:?}")]
    Rate {
        /// The band.
        band_ppm: u32,
        /// The median of the recent rates.
        median: Rate,
        /// The quote's.
        got: Rate,
    },
    /// A source of the price spoke too long ago.
    #[error(
        "quote: expected sources of its price of at most {max_age_s} s, got {source_name} of {age_s} s"
    )]
    Age {
        /// The limit.
        max_age_s: u32,
        /// The oldest source.
        source_name: SourceName,
        /// Its age.
        age_s: u16,
    },
    /// Nobody signed how old its price is: whoever carried it may have taken that away.
    #[error("quote: expected the signed ages of its price, at most {max_age_s} s, got none")]
    NoAge {
        /// The limit.
        max_age_s: u32,
    },
    /// No time to live, or too much.
    #[error("quote: expected a ttl of 1 to 3600 s, got {got}")]
    Ttl {
        /// Seconds.
        got: u32,
    },
}

impl QuoteError {
    /// The code under which the machine shows and counts it.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Signature(_) => ErrorCode::BadSignature,
            Self::OtherFees { .. } | Self::Sums { .. } => ErrorCode::FeeMismatch,
            Self::Age { .. } | Self::NoAge { .. } => ErrorCode::Stale,
            Self::OtherTransaction { .. }
            | Self::Amount { .. }
            | Self::Charge(_)
            | Self::Rate { .. }
            | Self::Ttl { .. } => ErrorCode::Invalid,
        }
    }
}

impl Classified for QuoteError {
    fn kind(&self) -> Kind {
        self.code().kind()
    }
}

/// A quote that the vault may act on; only [`check_quote`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedQuote {
    terms: QuoteTerms,
    fees: FeePair,
    origins: Origins,
}

impl CheckedQuote {
    /// What the service promised.
    #[must_use]
    pub const fn terms(&self) -> &QuoteTerms {
        &self.terms
    }

    /// The fees of the document that it was made by.
    #[must_use]
    pub const fn fees(&self) -> FeePair {
        self.fees
    }

    /// Where its price came from, as far as the service says.
    #[must_use]
    pub const fn origins(&self) -> Origins {
        self.origins
    }
}

/// Checks a quote against what the vault itself knows.
///
/// # Errors
/// The first [`QuoteError`], in the order of its variants but the ages and the rate last.
pub fn check_quote(quote: &Quote, own: &Expectation<'_>) -> Result<CheckedQuote, QuoteError> {
    let terms = quote.terms(*own.spire);
    terms.verify(&quote.quote_sig, own.service)?;
    let origins = match quote.origins {
        Some(SignedOrigins { sources, sig }) => {
            terms.origins(sources).verify(&sig, own.service)?;
            sources
        }
        None => Origins::default(),
    };
    if (terms.direction, terms.txid) != (own.direction, own.txid) {
        let (expected, got) = (
            format!("{} {}", own.direction, own.txid),
            format!("{} {}", terms.direction, terms.txid),
        );
        return Err(QuoteError::OtherTransaction { expected, got });
    }
    let amount_holds = terms.fiat.currency == own.fiat.currency
        && terms.fiat.minor > 0
        && match own.direction {
            Direction::CashOut => {
                terms.fiat.minor == own.fiat.minor && quote.max_fiat_minor.is_none()
            }
            Direction::CashIn => {
                terms.fiat.minor <= own.fiat.minor && quote.max_fiat_minor == Some(terms.fiat.minor)
            }
        };
    if !amount_holds {
        return Err(QuoteError::Amount { expected: own.fiat, got: terms.fiat });
    }
    let FeesInForce { event_id, fees } = own.fees;
    if terms.fees_event_id != event_id {
        return Err(QuoteError::OtherFees { expected: event_id, got: terms.fees_event_id });
    }
    let principal = terms.exchange_rate.principal(terms.fiat, terms.direction);
    let expected = fees.charge(terms.direction, principal.map_err(SplitError::from)?)?;
    let QuoteTerms { principal_sats: principal, fee_sats: fee, wire_sats: wire, .. } = terms;
    if (principal, fee, wire) != (expected.principal(), expected.fee(), expected.wire()) {
        return Err(QuoteError::Sums { expected, principal, fee, wire });
    }
    if terms.ttl_s == 0 || terms.ttl_s > MAX_TTL_S {
        return Err(QuoteError::Ttl { got: terms.ttl_s });
    }
    bound_age(&origins, own.max_age_s)?;
    bound_rate(terms.exchange_rate, own.recent_rates, own.band_ppm)?;
    Ok(CheckedQuote { terms, fees, origins })
}

/// Each source counts: which of them made the price is the service's word alone.
fn bound_age(origins: &Origins, max_age_s: u32) -> Result<(), QuoteError> {
    let oldest = origins.iter().max_by_key(|origin| origin.age_s);
    let Origin { source, age_s } = oldest.ok_or(QuoteError::NoAge { max_age_s })?;
    if u32::from(age_s) <= max_age_s {
        return Ok(());
    }
    Err(QuoteError::Age { max_age_s, source_name: source, age_s })
}

/// The median, because one odd rate that once slipped in must not move the bound.
fn bound_rate(got: Rate, recent: &[Rate], band_ppm: u32) -> Result<(), QuoteError> {
    let mut sorted = recent.to_vec();
    sorted.sort_unstable();
    let Some(median) = sorted.get(sorted.len() / 2).copied() else {
        return Ok(());
    };
    let off = u128::from(got.nano().abs_diff(median.nano())).saturating_mul(u128::from(PPM));
    if off <= u128::from(median.nano()).saturating_mul(u128::from(band_ppm)) {
        return Ok(());
    }
    Err(QuoteError::Rate { band_ppm, median, got })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rpc::fixtures::{fees, key, keys, origins, quote_terms, terms_of};

    fn expectation<'a>(
        terms: &QuoteTerms,
        spire: &'a PubKey,
        service: &'a PubKey,
        recent_rates: &'a [Rate],
    ) -> Expectation<'a> {
        Expectation {
            spire,
            service,
            direction: terms.direction,
            txid: terms.txid,
            fiat: terms.fiat,
            fees: fees(),
            recent_rates,
            band_ppm: 50_000,
            max_age_s: 11,
        }
    }

    fn check(
        terms: &QuoteTerms,
        change: impl Fn(&mut QuoteTerms),
    ) -> Result<CheckedQuote, QuoteError> {
        let (spire, service) = (key(1), key(2));
        let mut changed = *terms;
        change(&mut changed);
        let quote = Quote::sign(&changed, origins(), &keys(2));
        check_quote(&quote, &expectation(terms, &spire, &service, &[terms.exchange_rate]))
    }

    /// Loss prevented: a quote with one number changed sells notes at the wrong price.
    #[test]
    fn every_field_is_checked() {
        let good = quote_terms(Direction::CashOut);
        assert_eq!(*check(&good, |_| ()).unwrap().terms(), good);
        type Change = fn(&mut QuoteTerms);
        let cases: [(Change, ErrorCode); 9] = [
            (|t| t.spire = key(9), ErrorCode::BadSignature),
            (|t| t.direction = Direction::CashIn, ErrorCode::Invalid),
            (|t| t.txid = TxnId::from_bytes([9; 16]), ErrorCode::Invalid),
            (|t| t.fiat.minor -= 1, ErrorCode::Invalid),
            (|t| t.fiat.currency = "USD".parse().unwrap(), ErrorCode::Invalid),
            (|t| t.fees_event_id = EventId::from_bytes([9; 32]), ErrorCode::FeeMismatch),
            (|t| t.fee_sats.0 -= 1, ErrorCode::FeeMismatch),
            (|t| t.wire_sats.0 += 1, ErrorCode::FeeMismatch),
            (|t| t.ttl_s = 0, ErrorCode::Invalid),
        ];
        for (n, (change, code)) in cases.into_iter().enumerate() {
            assert_eq!(check(&good, change).unwrap_err().code(), code, "case {n}");
        }
        assert!(check(&good, |t| t.ttl_s = 3_600).is_ok());
        assert!(matches!(check(&good, |t| t.ttl_s = 3_601), Err(QuoteError::Ttl { got: 3_601 })));
    }

    /// Loss prevented: a maximum raised on the way lets a customer feed notes that nobody can pay.
    #[test]
    fn the_cash_in_maximum_is_the_signed_one() {
        let good = quote_terms(Direction::CashIn);
        let (spire, service) = (key(1), key(2));
        let mut own = expectation(&good, &spire, &service, &[]);
        let quote = Quote::sign(&good, origins(), &keys(2));
        assert!(check_quote(&quote, &own).is_ok());
        let raised = Quote { max_fiat_minor: Some(good.fiat.minor + 1), ..quote };
        assert!(matches!(check_quote(&raised, &own), Err(QuoteError::Amount { .. })));
        let absent = Quote { max_fiat_minor: None, ..quote };
        assert!(matches!(check_quote(&absent, &own), Err(QuoteError::Amount { .. })));
        let none = Fiat { minor: 0, ..good.fiat };
        let none =
            Quote::sign(&terms_of(good.direction, none, good.exchange_rate), origins(), &keys(2));
        assert!(matches!(check_quote(&none, &own), Err(QuoteError::Amount { .. })), "a lock on 0");
        own.fiat.minor += 1_000;
        assert!(check_quote(&quote, &own).is_ok(), "less than asked for is a lower limit");
        own.fiat.minor -= 2_000;
        assert!(matches!(check_quote(&quote, &own), Err(QuoteError::Amount { .. })));
    }

    /// Loss prevented: sources changed on the way: a receipt then names somebody who never said it.
    #[test]
    fn the_sources_of_the_price_are_the_signed_ones() {
        let good = quote_terms(Direction::CashOut);
        let (spire, service) = (key(1), key(2));
        let own = expectation(&good, &spire, &service, &[]);
        let quote = Quote::sign(&good, origins(), &keys(2));
        assert_eq!(check_quote(&quote, &own).unwrap().origins(), origins());
        assert_eq!(check_quote(&quote, &own).unwrap().fees(), fees().fees);
        let signed = quote.origins.unwrap();
        let other = Origins::new(origins().iter().take(1)).unwrap();
        let changed = Quote { origins: Some(SignedOrigins { sources: other, ..signed }), ..quote };
        let refused = check_quote(&changed, &own).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::BadSignature);
        let silent = Quote { origins: None, ..quote };
        let no_age = Err(QuoteError::NoAge { max_age_s: 11 });
        assert_eq!(check_quote(&silent, &own), no_age, "taken away on the way");
    }

    /// Loss prevented: notes sold at the price of an hour ago, freshly signed.
    #[test]
    fn a_price_that_is_older_than_the_limit_is_refused() {
        let good = quote_terms(Direction::CashOut);
        let (spire, service) = (key(1), key(2));
        let mut own = expectation(&good, &spire, &service, &[]);
        let quote = Quote::sign(&good, origins(), &keys(2));
        assert!(check_quote(&quote, &own).is_ok(), "its oldest source is just young enough");
        own.max_age_s -= 1;
        let refused = check_quote(&quote, &own).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::Stale);
        assert!(refused.to_string().contains("bitstamp of 11 s"), "{refused}");
        let nobody = Quote::sign(&good, Origins::default(), &keys(2));
        assert_eq!(check_quote(&nobody, &own), Err(QuoteError::NoAge { max_age_s: 10 }));
    }

    /// Loss prevented: a service with a broken price source sells at a tenth of the price.
    #[test]
    fn a_rate_far_from_the_last_ones_is_refused() {
        let rate = |nano| Rate::from_nano(nano).unwrap();
        let recent = [rate(1_000_000), rate(90), rate(1_010_000)];
        for (nano, holds) in
            [(1_050_000, true), (950_000, true), (1_050_001, false), (949_999, false)]
        {
            assert_eq!(bound_rate(rate(nano), &recent, 50_000).is_ok(), holds, "{nano}");
        }
        assert!(bound_rate(rate(1), &[], 50_000).is_ok(), "nothing to compare with yet");
    }

    proptest! {
        /// Loss prevented: a good quote refused for a difference that is none.
        #[test]
        fn every_quote_made_by_the_rules_holds(
            minor in 1i64..100_000_000, nano in 1u64..10_000_000_000_000, out in any::<bool>(),
        ) {
            let direction = if out { Direction::CashOut } else { Direction::CashIn };
            let fiat = Fiat::new(minor, "EUR".parse().unwrap());
            let terms = terms_of(direction, fiat, Rate::from_nano(nano).unwrap());
            prop_assert!(check(&terms, |_| ()).is_ok());
            prop_assert!(check(&terms, |t| t.principal_sats.0 += 1).is_err());
        }
    }
}
