//! Notes at the dispenser's exit.
//!
//! Promise: as long as notes lie there, their sale stays on the screen and reminds whoever bought
//! them; nothing more is dispensed onto them. Notes that nobody takes are the operator's to look
//! after: no dispenser of ours can pull them back, so the operator is told, until they are gone.

use super::core::Vault;
use crate::txn::Txn;

impl Vault {
    /// How long notes have been lying there, in milliseconds.
    fn at_exit(&self) -> Option<u64> {
        let since = self.dispenser.as_ref()?.exit?;
        Some(self.mono().since(since))
    }

    fn sale_on_screen(&self) -> bool {
        let shown = self.on_screen.and_then(|txid| self.txns.get(&txid));
        matches!(shown, Some(Txn::CashOut(_)))
    }

    /// Whether the sale on the screen may not leave it yet.
    pub(super) fn notes_are_awaited(&self) -> bool {
        self.sale_on_screen() && self.at_exit().is_some_and(|ms| ms < self.pace.left)
    }

    /// Whether the buyer is to be reminded.
    pub(super) fn notes_are_late(&self) -> bool {
        self.sale_on_screen() && self.at_exit().is_some_and(|ms| ms >= self.pace.remind)
    }

    /// Tells the operator of notes that nobody has taken.
    pub(super) fn look_at_exit(&mut self) {
        if self.at_exit().is_some_and(|ms| ms >= self.pace.left) {
            let words = "notes lie at the dispenser's exit and nobody takes them: until somebody \
                         does, no more are given";
            self.raise("notes_left_at_exit", words.to_owned());
        }
    }
}
