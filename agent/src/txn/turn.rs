//! What one step collects beside the new state.

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

    pub(super) fn alert(&mut self, alert: Alert) {
        self.effects.push(Effect::Alert(alert));
    }
}
