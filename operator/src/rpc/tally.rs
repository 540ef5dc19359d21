//! Refusals: counted by reason, logged within bounds, kept by reason and sender for whoever looks.
//!
//! Promise: strangers decide neither how many lines are logged nor how many rows are written. A
//! refusal adds to the row of its reason and sender: at once for a known sender up to the quota, else
//! at the next [`Tally::take`]. Between two of these, each reason has [`SENDERS`] rows and looks at
//! the senders of [`LOOKED_AT`] requests; what is beyond adds to the row without a sender, so that a
//! flood costs a count each.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitspire_shared::admit::{Level, Refused, Stage};
use bitspire_shared::rate::{Limiter, Quota};
use bitspire_shared::time::{Mono, Unix};

use crate::store::log::Rejected;

/// Most characters of the words in a row.
const MAX_DETAIL: usize = 400;
/// Senders that are told apart for one reason between two looks.
const SENDERS: usize = 8;
/// Requests whose sender is read for one reason between two looks.
const LOOKED_AT: u64 = 512;

/// What is known of a refused event. Before the signature it says who it claims to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct About {
    /// The relay that it came from.
    pub(crate) relay: Option<String>,
    /// Its author, as hex.
    pub(crate) sender: Option<String>,
    /// Its id, as hex.
    pub(crate) event_id: Option<String>,
}

impl About {
    /// An event that came through this relay.
    pub(crate) fn of(relay: &str, event: &nostr::Event) -> Self {
        Self {
            relay: Some(relay.to_owned()),
            sender: Some(event.pubkey.to_hex()),
            event_id: Some(event.id.to_hex()),
        }
    }
}

/// Refusals of one reason since the last look.
#[derive(Debug, Default)]
struct Pending {
    count: u64,
    rows: Vec<Rejected>,
}

impl Pending {
    fn add(&mut self, why: Refused, unix: Unix, about: impl Fn() -> About) {
        self.count = self.count.saturating_add(1);
        let about = if self.count <= LOOKED_AT { about() } else { About::default() };
        let mut row = row(why, about, unix);
        if !self.rows.iter().any(|known| known.sender == row.sender) && self.rows.len() >= SENDERS {
            row.sender = None;
        }
        match self.rows.iter_mut().find(|known| known.sender == row.sender) {
            Some(known) => {
                let (count, first_at) = (known.count.saturating_add(1), known.first_at);
                *known = Rejected { count, first_at, last_at: unix.max(first_at), ..row };
            }
            None => self.rows.push(row),
        }
    }
}

#[derive(Debug)]
struct Inner {
    totals: BTreeMap<&'static str, u64>,
    pending: BTreeMap<(&'static str, bool), Pending>,
    /// Log lines, by reason.
    lines: HashMap<&'static str, Limiter>,
    rows: Limiter,
}

/// The counters.
#[derive(Debug)]
pub struct Tally(Mutex<Inner>);

fn a_minute(rate: u32, burst: u32) -> Quota {
    let at_least_1 = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    Quota::per_minute(at_least_1(rate), at_least_1(burst))
}

impl Default for Tally {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            totals: BTreeMap::new(),
            pending: BTreeMap::new(),
            lines: HashMap::new(),
            rows: Limiter::new(a_minute(60, 30)),
        }))
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is no refusal of admission, under a name of its own.
    pub(crate) fn count(&self, label: &'static str) {
        let mut inner = self.lock();
        let total = inner.totals.entry(label).or_default();
        *total = total.saturating_add(1);
    }

    /// Counts a refusal; `about` is asked only where it will be shown. A row to be written at once,
    /// if there is one.
    pub(crate) fn refused(
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
        let verified = refused.stage == Stage::AfterSignature;
        if verified && inner.rows.take(mono).is_ok() {
            return Some(row(refused, about(), unix));
        }
        inner.pending.entry((label, verified)).or_default().add(refused, unix, about);
        None
    }

    /// What was counted since the last call, for the rows of each reason and sender.
    pub(crate) fn take(&self) -> Vec<Rejected> {
        let pending = std::mem::take(&mut self.lock().pending);
        pending.into_values().flat_map(|pending| pending.rows).collect()
    }

    /// One counter since the start.
    #[must_use]
    pub fn total(&self, label: &str) -> u64 {
        self.lock().totals.get(label).copied().unwrap_or_default()
    }

    /// Every counter since the start.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.lock().totals.clone()
    }
}

fn row(refused: Refused, about: About, at: Unix) -> Rejected {
    let About { relay, sender, event_id } = about;
    Rejected {
        reason: refused.why.label().to_owned(),
        sender,
        verified: refused.stage == Stage::AfterSignature,
        count: 1,
        first_at: at,
        last_at: at,
        relay,
        event_id,
        detail: refused.why.to_string().chars().take(MAX_DETAIL).collect(),
    }
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

    fn from(sender: u8) -> impl Fn() -> About {
        move || About { sender: Some(format!("{sender:064x}")), ..About::default() }
    }

    /// Loss prevented: a flood that fills the disk through the log that should show it; a sender whom
    /// nobody can name, because another one was louder.
    #[test]
    fn a_flood_is_one_row() {
        let tally = Tally::default();
        let mono = Mono(0);
        let refused = Refusal::NotInRoster.before_signature();
        tally.refused(refused, Unix(7), mono, from(1));
        for _ in 0..99 {
            assert!(tally.refused(refused, Unix(8), mono, from(2)).is_none());
        }
        let after = Refusal::Undecryptable.after_signature();
        let own = (0..100).filter_map(|_| tally.refused(after, Unix(7), mono, from(3))).count();
        assert_eq!(own, 30, "a machine that misbehaves has rows of its own, within bounds");
        tally.refused(Refusal::Duplicate.before_signature(), Unix(7), mono, from(4));
        let rows = tally.take();
        let told: Vec<_> = rows
            .iter()
            .map(|row| (&*row.reason, row.verified, row.count, row.first_at, row.last_at))
            .collect();
        let told: &[_] = &told;
        assert_eq!(
            told,
            [
                ("not_in_roster", false, 1, Unix(7), Unix(7)),
                ("not_in_roster", false, 99, Unix(8), Unix(8)),
                ("undecryptable", true, 70, Unix(7), Unix(7)),
            ],
            "duplicates are the normal case"
        );
        assert_eq!(rows[1].sender, from(2)().sender);
        assert!(tally.take().is_empty());
        assert_eq!(tally.totals()["not_in_roster"], 100);
        assert_eq!(tally.totals()["duplicate"], 1);
    }

    /// Loss prevented: a flood from a thousand keys that writes a thousand rows, or makes the service
    /// read each frame twice.
    #[test]
    fn what_is_too_much_to_be_told_apart_is_counted() {
        let tally = Tally::default();
        let read = std::cell::Cell::new(0u64);
        for n in 0..10_000u64 {
            let about = || {
                read.set(read.get() + 1);
                About { sender: Some(format!("{:064x}", n % 1_000)), ..About::default() }
            };
            let refused = Refusal::NotInRoster.before_signature();
            tally.refused(refused, Unix(7), Mono(0), about);
        }
        let rows = tally.take();
        assert_eq!(rows.len(), SENDERS + 1);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 10_000);
        assert_eq!(rows.iter().filter(|row| row.sender.is_none()).count(), 1);
        assert!(read.get() <= LOOKED_AT + 5, "{} frames read for their sender", read.get());
    }
}
