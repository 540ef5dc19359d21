//! Notes on hand, and which of them to give.

use std::collections::BTreeMap;

use bitspire_hardware::dispenser::BayState;
use bitspire_hardware::plan::{PlanError, PlanRules, Stock, batches, plan};
use bitspire_shared::ids::BayId;
use bitspire_shared::money::Fiat;

use super::VaultError;
use super::core::Vault;
use crate::txn::{Lot, Lots};

impl Vault {
    /// The bays as journal and device know them, less `reserve` notes each, and less those that may be
    /// missing. A bay about whose count there is a doubt gives nothing until somebody has counted.
    pub(super) fn stock(&self, reserve: u32) -> BTreeMap<BayId, Stock> {
        let seen = self.dispenser.as_ref().map(|giver| &giver.bays);
        let bays = self.journal.holdings().bays.iter();
        bays.map(|(id, bay)| {
            let state = match seen.and_then(|bays| bays.get(id)) {
                Some(state) if bay.doubts == 0 => *state,
                _ => BayState::Missing,
            };
            let notes = u32::try_from(bay.sure().max(0)).unwrap_or(u32::MAX);
            let notes = notes.saturating_sub(reserve);
            (*id, Stock { denomination: bay.denomination, notes, state })
        })
        .collect()
    }

    /// Notes worth at most `rest`, for one command of the dispenser; none where that is not
    /// possible, or not allowed: an amount beyond the breaker opens it.
    pub(super) fn plan(&mut self, rest: Fiat) -> Result<Option<Lots>, VaultError> {
        let Ok(amount) = u64::try_from(rest.minor) else { return Ok(None) };
        let allowance = self.breaker.allowance(self.now().unix);
        let reserve = self.config.policy.cassette_floor_notes;
        let stock = self.stock(0);
        let within = |amount, max_notes| plan(amount, &stock, PlanRules { reserve, max_notes });
        if within(amount, allowance).is_err() && within(amount, u32::MAX).is_ok() {
            if self.breaker.trip() {
                self.breaker_opened()?;
            }
            return Ok(None);
        }
        let found = within(amount, allowance).or_else(|error| match error {
            // what can be given is given; the rest is owed
            PlanError::NotMakeable { below: Some(below), .. } => within(below, allowance),
            other => Err(other),
        });
        let Ok(whole) = found else { return Ok(None) };
        let most = self.config.giver().notes_per_bay;
        let first = batches(&whole, most).into_iter().next();
        let lot = |(bay, count): (BayId, u32)| {
            let denomination = stock.get(&bay)?.denomination;
            Some((bay, Lot { denomination, count }))
        };
        Ok(first.and_then(|first| first.notes.into_iter().map(lot).collect()))
    }
}
