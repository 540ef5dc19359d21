//! The whole journal, looked through beside the trade.
//!
//! Promise: opening the journal has checked its end and what is open; here every entry and every
//! view is, soon after the start and once a day, on a thread that only reads.
//!
//! Failure policy: a journal that does not hold as a whole ends new sales, and takes no more notes,
//! until the vault is started again; what customers are owed is still given. A journal that could
//! not be read through is said, and looked through again an hour later.

use bitspire_shared::time::Mono;

use super::core::Vault;
use crate::journal::{JournalError, Verified};

/// Before a look that failed is taken again, in milliseconds.
const AGAIN_MS: u64 = 3_600_000;

/// When the next look is due, and what the last ones found.
#[derive(Debug)]
pub(super) struct Inspection {
    due: Mono,
    running: bool,
    broken: Option<String>,
}

impl Inspection {
    /// Due at this moment at first: nothing that grows with the journal holds a start up.
    pub(super) const fn due_at(due: Mono) -> Self {
        Self { due, running: false, broken: None }
    }

    /// Why the journal was found not to hold.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }
}

impl Vault {
    /// Begins a look where one is due and none is under way.
    pub(super) fn inspect_if_due(&mut self) {
        let now = self.mono();
        if now < self.inspection.due {
            return;
        }
        self.inspection.due = now.after(self.pace.inspect);
        if self.inspection.running {
            return;
        }
        match self.host.inspect(&self.config.journal()) {
            Ok(()) => self.inspection.running = true,
            Err(error) => self.not_inspected(&error.to_string()),
        }
    }

    /// A look is over.
    pub(super) fn inspected(&mut self, found: Result<Verified, JournalError>) {
        self.inspection.running = false;
        match found {
            Ok(Verified { head, open }) => {
                tracing::info!(event = "journal_holds", seq = head.seq.0, open);
            }
            Err(error @ JournalError::Broken { .. }) => {
                tracing::error!(event = "journal_broken", %error);
                self.inspection.broken = Some(error.to_string());
                self.reports.soon(self.mono());
            }
            Err(error) => self.not_inspected(&error.to_string()),
        }
    }

    fn not_inspected(&mut self, why: &str) {
        self.inspection.due = self.mono().after(AGAIN_MS.min(self.pace.inspect));
        self.raise("journal_not_checked", why.to_owned());
    }
}
