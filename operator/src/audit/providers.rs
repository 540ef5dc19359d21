//! Liquidity providers: their fiat, and what it became.
//!
//! Promise: what each provider got of a sale is derived again from what they could spend, and that
//! from their terms, their deposits and their earlier sales by the ledger; by the newest terms, and under
//! an enrolment, of that time; each confirmed deposit has its entry. What a provider could spend is held
//! against nothing but the rows that stood before. That nobody was left out is not derived: since when
//! a provider took no part, and took part again, is not in these rows.

use bitspire_shared::money::Sats;

use super::gather::{Gather, PAGE};
use super::report::{Check, Findings};
use crate::distribute::plan;
use crate::distribute::providers::{self, Portion, Terms};
use crate::ids::{DepositId, EntryId, LegId, SettlementId};
use crate::ledger::{Account, EntryKind, Unit, share_reference, shared, unshared};
use crate::lps::entry_of;
use crate::store::legs::{Leg, LegKind, LegState};
use crate::store::lps::{self, DepositState, KeptLp};
use crate::store::settlements::Settlement;
use crate::store::{Kept, StoreError, ledger, legs, rules};

const CHECK: Check = Check::Distribution;

/// What providers got of `subject`, each with what they could spend before (minor units), against what
/// follows from that.
pub(super) fn derived(
    findings: &mut Findings,
    subject: &str,
    (principal, rate, currency): Terms,
    shares: &[(i64, (Sats, i64))],
) {
    let words = |all: &[(Sats, i64)]| {
        let each = all.iter().map(|(sats, minor)| format!("{sats} sats for {minor}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let (may, found): (Vec<_>, Vec<_>) = shares.iter().copied().unzip();
    let subject = format!("providers of {subject}");
    match providers::parts(principal, rate, currency, &may) {
        Ok(parts) => findings.same(CHECK, subject, words(&parts), words(&found)),
        Err(error) => findings.differ(CHECK, subject, "shares that can be derived", error),
    }
}

impl Gather<'_> {
    /// What providers got of a settlement, held against what they could spend; with where it was to go.
    pub(super) fn portions(
        &mut self,
        kept: &Kept<SettlementId, Settlement>,
        subject: &str,
    ) -> Result<Vec<Portion>, StoreError> {
        let shares = lps::shares_of(self.read, kept.id)?;
        let sale = match providers::terms(kept) {
            _ if shares.is_empty() => return Ok(Vec::new()),
            Ok(Some(sale)) => sale,
            Ok(None) | Err(_) => {
                let expected = "a cash-out with its rate, of which providers get shares";
                self.findings.differ(CHECK, subject, expected, "another one");
                return Ok(Vec::new());
            }
        };
        let each = shares.iter().map(|share| (share.may_minor, (share.sats, share.minor)));
        derived(&mut self.findings, subject, sale, &each.collect::<Vec<_>>());
        let mut portions = Vec::new();
        for share in shares {
            let whose = format!("share of provider {} in {subject}", share.lp_id);
            let used = lps::used_on(self.read, share.lp_id, share.at, Some(kept.id))?;
            self.findings.same(CHECK, format!("spent before {whose}"), used, share.used_minor);
            let newest = lps::newest_at(self.read, &share)?.then_some(share.terms_id);
            let (expected, got) = (format!("{:?}", Some(share.terms_id)), format!("{newest:?}"));
            self.findings.same(CHECK, format!("newest terms of {whose}"), expected, got);
            if !lps::enrolled_at(self.read, &share, kept.machine_id)? {
                let expected = "one that counted then, at this machine";
                self.findings.differ(CHECK, format!("enrolment of {whose}"), expected, "none");
            }
            let terms = lps::find_terms(self.read, share.terms_id)?;
            let may = terms.filter(|terms| terms.lp_id == share.lp_id);
            let may = may.map(|terms| terms.may(share.left_minor, share.used_minor));
            let (expected, found) = (format!("{may:?}"), format!("{:?}", Some(share.may_minor)));
            self.findings.same(CHECK, format!("terms of {whose}"), expected, found);
            let (_, _, currency) = sale;
            let booking = providers::booking(kept, &share, currency);
            if share.sats > Sats::ZERO
                && let Ok(entry) = shared(&booking)
            {
                self.has(&entry)?;
            }
            let rules = rules::of_lp(self.read, share.lp_id, share.at)?;
            let to = plan::shares(rules.as_ref());
            let to = to.and_then(|(rule, all)| Some((rule, all.first()?.to.clone())));
            portions.push(Portion { lp: share.lp_id, sats: share.sats, to });
        }
        Ok(portions)
    }

    /// What each provider had before each of their shares, by their own entries alone.
    pub(super) fn providers(&mut self) -> Result<(), StoreError> {
        for lp in lps::list(self.read, None)? {
            let account = (Account::Lp(lp.id), Unit::Fiat(lp.currency));
            let (mut left, mut after) = (0_i64, EntryId(0));
            loop {
                let page = ledger::lines_of_lp(self.read, account, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.entry;
                for line in &page {
                    if line.kind == EntryKind::LpShare {
                        self.had(&lp, &line.reference, left)?;
                    }
                    left = left.saturating_sub(line.amount);
                }
            }
        }
        Ok(())
    }

    /// What a provider had before the shares of one settlement.
    pub(super) fn before_shares(&mut self, id: SettlementId) -> Result<(), StoreError> {
        for share in lps::shares_of(self.read, id)? {
            let reference = share_reference(id, share.lp_id);
            let booked = match ledger::find(self.read, EntryKind::LpShare, &reference) {
                Err(StoreError::Column { .. }) => None,
                found => found?,
            };
            if let (Some(lp), Some(booked)) = (lps::find(self.read, share.lp_id)?, booked) {
                let left = lps::left_before(self.read, &lp, booked.id)?;
                self.had(&lp, &reference, left)?;
            }
        }
        Ok(())
    }

    fn had(&mut self, lp: &KeptLp, reference: &str, left: i64) -> Result<(), StoreError> {
        let of = reference.split_once(':').and_then(|(of, _)| of.parse().ok());
        let share = match of {
            Some(of) => lps::share(self.read, of, lp.id)?,
            None => None,
        };
        // an entry without a share is told where entries are looked at
        if let Some(share) = share {
            let subject = format!("fiat of provider {} before share {reference}", lp.id);
            self.findings.same(CHECK, subject, left, share.left_minor);
        }
        Ok(())
    }

    /// What was booked of a provider's leg that a person has ended without paying it.
    pub(super) fn unshared(
        &mut self,
        settlement: &Settlement,
        id: LegId,
        leg: &Leg,
    ) -> Result<(), StoreError> {
        if leg.state != LegState::Void {
            return Ok(());
        }
        if let Some(booked) = providers::of_leg(self.read, settlement, leg)?
            && let Ok(entry) = unshared(&booked, id)
        {
            self.has(&entry)?;
        }
        Ok(())
    }

    /// Each confirmed deposit, and what was given back, against its entry.
    pub(super) fn deposits(&mut self) -> Result<(), StoreError> {
        let mut after = DepositId(0);
        loop {
            let page = lps::deposit_page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for kept in page.iter().filter(|kept| kept.state == DepositState::Confirmed) {
                if let Ok(entry) = entry_of(kept) {
                    self.has(&entry)?;
                }
            }
        }
    }

    /// Whether a provider's row makes an entry of this kind.
    pub(super) fn by_provider(&self, kind: EntryKind, reference: &str) -> Result<bool, StoreError> {
        Ok(match kind {
            EntryKind::LpDeposit | EntryKind::LpReturn => match reference.parse() {
                Ok(id) => lps::find_deposit(self.read, id)?.is_some_and(|kept| {
                    let entry = entry_of(&kept);
                    kept.state == DepositState::Confirmed
                        && entry.is_ok_and(|entry| entry.kind() == kind)
                }),
                Err(_) => false,
            },
            EntryKind::LpShare => {
                let of = reference.split_once(':');
                match of.map(|(of, lp)| (of.parse(), lp.parse())) {
                    Some((Ok(of), Ok(lp))) => lps::share(self.read, of, lp)?.is_some(),
                    _ => false,
                }
            }
            EntryKind::LpShareVoid => match reference.parse() {
                Ok(id) => legs::find(self.read, id)?
                    .is_some_and(|leg| leg.kind == LegKind::Dca && leg.state == LegState::Void),
                Err(_) => false,
            },
            _ => false,
        })
    }
}
