//! Refusals: counted by reason, logged within bounds, the newest kept for the page that shows them.
//!
//! Promise: strangers decide neither how many lines are logged nor how many rows are written. A
//! refusal before the signature only adds to a count, which becomes one row for each reason at the
//! next [`Tally::take`]; a refusal of a known sender becomes a row of its own up to the quota, and
//! adds to the count beyond it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::admit::{Level, Refused, Stage};
use bitspire_shared::rate::{Limiter, Quota};
use bitspire_shared::time::{Mono, Unix};

use crate::store::log::Rejected;

/// Most characters of the words in a row.
const MAX_DETAIL: usize = 400;

/// What is known of a refused event. Before the signature it says who it claims to be.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// The relay that it came from.
    pub(super) relay: Option<String>,
    /// Its author, as hex.
    pub(super) sender: Option<String>,
    /// Its id, as hex.
    pub(super) event_id: Option<String>,
}

/// Refusals of one reason since the last row.
#[derive(Debug)]
struct Pending {
    count: u64,
    first: About,
    words: String,
}

#[derive(Debug)]
struct Inner {
    totals: BTreeMap<&'static str, u64>,
    pending: BTreeMap<&'static str, Pending>,
    /// Log lines, by reason.
    lines: HashMap<&'static str, Limiter>,
    rows: Limiter,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Inner>);

fn a_minute(rate: u32, burst: u32) -> Quota {
    let at_least_1 = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    Quota::per_minute(at_least_1(rate), at_least_1(burst))
}

impl Tally {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            totals: BTreeMap::new(),
            pending: BTreeMap::new(),
            lines: HashMap::new(),
            rows: Limiter::new(a_minute(60, 30)),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is no refusal of admission, under a name of its own.
    pub(super) fn count(&self, label: &'static str) {
        let mut inner = self.lock();
        let total = inner.totals.entry(label).or_default();
        *total = total.saturating_add(1);
    }

    /// Counts a refusal; `about` is asked only where it will be shown. A row to be written at once,
    /// if there is one.
    pub(super) fn refused(
        &self,
        refused: Refused,
        unix: Unix,
        mono: Mono,
        about: impl Fn() -> About,
    ) -> Option<Rejected> {
        let label = refused.why.label();
        let mut inner = self.lock();
        let total = inner.totals.entry(label).or_default();
        *total = total.saturating_add(1);
        let line = inner.lines.entry(label).or_insert(Limiter::new(a_minute(30, 5)));
        if line.take(mono).is_ok() {
            log(refused, &about());
        }
        // the same event by several relays is the normal case, not a refused request
        if refused.level() == Level::Debug {
            return None;
        }
        if refused.stage == Stage::AfterSignature && inner.rows.take(mono).is_ok() {
            return Some(row(label, about(), refused.why.to_string(), unix));
        }
        let first = |count| Pending { count, first: about(), words: refused.why.to_string() };
        let pending = inner.pending.entry(label).or_insert_with(|| first(0));
        pending.count = pending.count.saturating_add(1);
        None
    }

    /// One row for each reason since the last call.
    pub(super) fn take(&self, now: Unix) -> Vec<Rejected> {
        let pending = std::mem::take(&mut self.lock().pending);
        let rows = pending.into_iter().map(|(label, Pending { count, first, words })| {
            row(label, first, format!("{count} times, the first one: {words}"), now)
        });
        rows.collect()
    }

    /// Every counter.
    pub(super) fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.lock().totals.clone()
    }
}

fn row(label: &str, about: About, words: String, at: Unix) -> Rejected {
    let About { relay, sender, event_id } = about;
    let detail = words.chars().take(MAX_DETAIL).collect();
    Rejected { at, reason: label.to_owned(), relay, sender, event_id, detail }
}

fn log(refused: Refused, about: &About) {
    let About { relay, sender, event_id } = about;
    let (relay, machine) = (relay.as_deref(), sender.as_deref());
    let (reason, id) = (refused.why.label(), event_id.as_deref());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(event = "rpc_refused", reason, relay, machine, id, why = %refused.why)
        };
    }
    match refused.level() {
        Level::Debug => line!(debug),
        Level::Info => line!(info),
        Level::Warn => line!(warn),
        Level::Error => line!(error),
    }
}

#[cfg(test)]
mod tests {
    use bitspire_shared::admit::Refusal;

    use super::*;

    /// Loss prevented: a flood that fills the disk through the log that should show it.
    #[test]
    fn a_flood_is_one_row() {
        let tally = Tally::new();
        let about = || About { sender: Some("ab".into()), ..About::default() };
        let (unix, mono) = (Unix(7), Mono(0));
        for _ in 0..10_000 {
            let refused = Refusal::NotInRoster.before_signature();
            assert!(tally.refused(refused, unix, mono, about).is_none());
        }
        let after = Refusal::Undecryptable.after_signature();
        let own = (0..100).filter_map(|_| tally.refused(after, unix, mono, about)).count();
        assert_eq!(own, 30, "a machine that misbehaves has rows of its own, within bounds");
        tally.refused(Refusal::Duplicate.before_signature(), unix, mono, about);
        let rows = tally.take(Unix(8));
        let reasons: Vec<_> = rows.iter().map(|row| row.reason.as_str()).collect();
        assert_eq!(reasons, ["not_in_roster", "undecryptable"], "duplicates are the normal case");
        assert!(rows[0].detail.starts_with("10000 times"), "{}", rows[0].detail);
        assert_eq!(rows[0].sender.as_deref(), Some("ab"));
        assert!(tally.take(Unix(9)).is_empty());
        assert_eq!(tally.totals()["not_in_roster"], 10_000);
        assert_eq!(tally.totals()["duplicate"], 1);
    }
}
