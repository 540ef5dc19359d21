//! What one step collects beside the new state.

use bitspire_shared::cash::BayResult;
use bitspire_shared::ids::BayId;

use super::effect::{Alert, Effect};
use super::input::Verdict;
use crate::journal::{CashMove, VerdictUse};

#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Goes into the record.
    pub(super) cash: Vec<CashMove>,
    /// Goes into the record.
    pub(super) resolves: Option<u32>,
    /// Goes into the record.
    pub(super) verdict: Option<VerdictUse>,
    /// To be done after the record.
    pub(super) effects: Vec<Effect>,
}

impl Turn {
    pub(super) fn uses(&mut self, verdict: &Verdict) {
        self.verdict = Some(VerdictUse { nonce: verdict.nonce, seen: verdict.seen });
    }

    /// Notes may have left the bay of which the answer does not tell.
    pub(super) fn unsure(&mut self, bay: BayId, result: &BayResult) {
        let most = result.untold();
        if most > 0 {
            self.cash.push(CashMove::Unsure { bay, most });
        }
    }

    pub(super) fn alert(&mut self, alert: Alert) {
        self.effects.push(Effect::Alert(alert));
    }
}
