//! What liquidity providers get of a sale.
//!
//! Promise: a provider's part of the principal, and the fiat that it costs them, are derived by one
//! pure function from what each of them has left; both are written, with their entry, in the
//! transaction that writes the leg, so that what is on its way counts as spent. The parts never sum to
//! more than the principal, nobody's part costs more than they may spend, and what nobody gets stays
//! in the machine's wallet.
//!
//! Failure policy: as of [`super`]; a cash_in, and a sale whose rate is not on record, have no parts.

use bitspire_shared::money::{Currency, Direction, Fiat, MoneyError, Rate, Sats};
use bitspire_shared::time::Unix;

use super::{DistributeError, plan};
use crate::ids::{LpId, OperatorId, RuleSetId, SettlementId};
use crate::ledger::{LpBooking, shared};
use crate::store::legs::Leg;
use crate::store::lps::{self, LpShare};
use crate::store::rules::{self, Destination};
use crate::store::settlements::Settlement;
use crate::store::{Kept, Read, StoreError, Tx, ledger};

/// Principal, rate and currency of a sale.
pub(crate) type Terms = (Sats, Rate, Currency);

/// What a provider gets of a sale, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Portion {
    /// Whose.
    pub(crate) lp: LpId,
    /// The sats; 0 where it came to nothing.
    pub(crate) sats: Sats,
    /// Where to, and by which rule set; where there is none, it is kept for them.
    pub(crate) to: Option<(RuleSetId, Destination)>,
}

/// The parts of `principal` of providers who may spend `may` minor units of `currency` each, and what
/// each part costs: in proportion to what they may spend, rounded down, and never worth more than that.
///
/// # Errors
/// [`MoneyError::Overflow`], also for somebody who may spend less than nothing.
pub(crate) fn parts(
    principal: Sats,
    rate: Rate,
    currency: Currency,
    may: &[i64],
) -> Result<Vec<(Sats, i64)>, MoneyError> {
    let overflow = MoneyError::Overflow { what: "shares of a principal" };
    let mut all: u128 = 0;
    for one in may {
        let one = u128::try_from(*one).map_err(|_| overflow.clone())?;
        all = all.checked_add(one).ok_or(overflow.clone())?;
    }
    let mut parts = Vec::with_capacity(may.len());
    for minor in may {
        let one = u128::try_from(*minor).map_err(|_| overflow.clone())?;
        let share = u128::from(principal.0).checked_mul(one).ok_or(overflow.clone())?;
        let share = share.checked_div(all).unwrap_or(0);
        let share = Sats(u64::try_from(share).map_err(|_| overflow.clone())?);
        let sats = match rate.principal(Fiat::new(*minor, currency), Direction::CashIn) {
            Ok(most) => share.min(most),
            // worth more than there can be sats
            Err(MoneyError::Overflow { .. }) => share,
            Err(error) => return Err(error),
        };
        parts.push((sats, rate.cost_of(sats, currency)?.minor));
    }
    Ok(parts)
}

/// What the parts of a sale follow from; `None` where nobody gets any.
///
/// # Errors
/// [`MoneyError`]: a rate that is none.
pub(crate) fn terms(settlement: &Settlement) -> Result<Option<Terms>, MoneyError> {
    let Settlement { direction: Direction::CashOut, .. } = settlement else { return Ok(None) };
    let (Some(principal), Some(rate), Some(currency)) =
        (settlement.principal_sats, settlement.exchange_rate, settlement.fiat_code)
    else {
        return Ok(None);
    };
    Ok(Some((principal, Rate::from_decimal(rate)?, currency)))
}

/// Writes what providers get of a settlement, with what it costs them, and tells where it goes.
pub(super) fn reserve(
    tx: &Tx<'_>,
    settlement: &Kept<SettlementId, Settlement>,
    operator: OperatorId,
    now: Unix,
) -> Result<Vec<Portion>, DistributeError> {
    let Some((principal, rate, currency)) = terms(settlement)? else { return Ok(Vec::new()) };
    let mut shares = Vec::new();
    for lp in lps::taking_part(tx, (operator, settlement.machine_id), currency)? {
        let Some(terms) = lps::terms_of(tx, lp.id)? else { continue };
        let (left, used) = (lps::left(tx, &lp)?, lps::used_on(tx, lp.id, now, None)?);
        let spend = terms.may(left, used);
        if spend > 0 {
            shares.push(LpShare {
                settlement_id: settlement.id,
                lp_id: lp.id,
                terms_id: terms.id,
                left_minor: left,
                used_minor: used,
                may_minor: spend,
                sats: Sats::ZERO,
                minor: 0,
                at: now,
            });
        }
    }
    let may: Vec<_> = shares.iter().map(|share| share.may_minor).collect();
    let parts = parts(principal, rate, currency, &may)?;
    // where nobody gets anything, nothing is written, so that planning again finds nothing
    if parts.iter().all(|(sats, _)| *sats == Sats::ZERO) {
        return Ok(Vec::new());
    }
    let mut portions = Vec::new();
    for (share, (sats, minor)) in shares.into_iter().zip(parts) {
        let share = LpShare { sats, minor, ..share };
        lps::insert_share(tx, &share)?;
        if sats > Sats::ZERO {
            ledger::append(tx, &shared(&booking(settlement, &share, currency))?, now)?;
        }
        let rules = rules::of_lp(tx, share.lp_id, now)?;
        let to = match plan::shares(rules.as_ref()) {
            Some((rule, [only])) => Some((rule, only.to.clone())),
            _ => None,
        };
        portions.push(Portion { lp: share.lp_id, sats, to });
    }
    Ok(portions)
}

/// What is booked of a share.
pub(crate) fn booking(settlement: &Settlement, share: &LpShare, currency: Currency) -> LpBooking {
    LpBooking {
        lp: share.lp_id,
        machine: settlement.machine_id,
        settlement: share.settlement_id,
        txid: settlement.txid,
        sats: share.sats,
        minor: share.minor,
        currency,
    }
}

/// What was booked of a provider's leg, when its sats became theirs.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn of_leg(
    read: &Read<'_>,
    settlement: &Settlement,
    leg: &Leg,
) -> Result<Option<LpBooking>, StoreError> {
    let (Some(lp), Some(currency)) = (leg.lp_id, settlement.fiat_code) else { return Ok(None) };
    let share = lps::share(read, leg.settlement_id, lp)?;
    Ok(share.map(|share| booking(settlement, &share, currency)))
}

#[cfg(test)]
mod tests;
