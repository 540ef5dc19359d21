//! The whole journal, looked through beside the trade.
//!
//! Promise: opening the journal has checked its end and what is open; here every entry and every
//! view is, soon after the start and once a day, on a thread that only reads.
//!
//! Failure policy: a journal that does not hold as a whole ends new sales, and takes no more notes,
//! until the vault is started again; what customers are owed is still given. A journal that could
//! not be read through is said, and looked through again an hour later.

use std::io;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};

use bitspire_shared::time::Mono;

use super::Event;
use super::core::Vault;
use crate::journal::{JournalError, Verified, verify_file};

/// Before a look that failed is taken again, in milliseconds.
const AGAIN_MS: u64 = 3_600_000;

/// When the next look is due, and what the last ones found.
#[derive(Debug)]
pub(super) struct Inspection {
    due: Mono,
    running: Option<JoinHandle<()>>,
    broken: Option<String>,
    events: SyncSender<Event>,
}

impl Inspection {
    /// Due at once.
    pub(super) const fn new(events: SyncSender<Event>) -> Self {
        Self { due: Mono(0), running: None, broken: None, events }
    }

    /// Why the journal was found not to hold.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn start(&mut self, journal: &Path) -> io::Result<()> {
        let (path, events) = (journal.to_owned(), self.events.clone());
        let look = move || {
            // a vault that has ended needs no answer
            let _ = events.send(Event::Inspected(verify_file(&path)));
        };
        let thread = thread::Builder::new().name("journal check".to_owned()).spawn(look)?;
        self.running = Some(thread);
        Ok(())
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        if self.running.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's check has panicked");
        }
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
        if self.inspection.running.is_none()
            && let Err(error) = self.inspection.start(&self.config.journal())
        {
            self.not_inspected(&error.to_string());
        }
    }

    /// A look is over.
    pub(super) fn inspected(&mut self, found: Result<Verified, JournalError>) {
        if self.inspection.running.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's check has panicked");
        }
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
