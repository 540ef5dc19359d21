//! What an audit says.
//!
//! Promise: every difference is counted, whatever becomes of the list: the list ends after
//! [`LISTED`] of each kind, so that a damaged database cannot fill the memory.

use std::collections::BTreeMap;
use std::fmt;

use bitspire_shared::time::Unix;
use serde::Serialize;

/// Differences, and things that wait, that are listed at most.
const LISTED: usize = 1_000;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Entries balance, and are those that the settlements, payouts, reports and loads make.
    Ledger,
    /// Requests, quotes, claims and reports are signed and say what the rows say.
    Requests,
    /// The wallets' own lists and balances.
    Wallet,
    /// What came out of the dispensers, and what is owed for the rest.
    Dispense,
    /// Notes by the ledger and by the machines' own counts.
    Cash,
    /// What is promised or owed to customers.
    Liabilities,
    /// Fees on their way to whoever earned them.
    Distribution,
}

impl Check {
    /// Every check, in the order in which it is told.
    pub const ALL: [Self; 7] = [
        Self::Ledger,
        Self::Requests,
        Self::Wallet,
        Self::Dispense,
        Self::Cash,
        Self::Liabilities,
        Self::Distribution,
    ];
}

/// One check, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which check.
    pub name: Check,
    /// How many things it looked at.
    pub looked_at: u64,
    /// How many differences it found.
    pub found: u64,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which check found it.
    pub check: Check,
    /// What it is about: an entry, a settlement, a machine.
    pub subject: String,
    /// What follows from the evidence.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Something that is not at rest, so that nothing can be said about it yet; no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Which check met it.
    pub check: Check,
    /// What it is about.
    pub subject: String,
    /// What it waits for.
    pub reason: String,
    /// Since when, where that is known.
    pub since: Option<Unix>,
}

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Whether no check found a difference.
    pub ok: bool,
    /// Each check.
    pub checks: Vec<Line>,
    /// The differences, the first ones where there are very many.
    pub differences: Vec<Difference>,
    /// What waits.
    pub waiting: Vec<Waiting>,
}

/// Collects what the checks find.
#[derive(Debug, Default)]
pub(super) struct Findings {
    counts: BTreeMap<Check, (u64, u64)>,
    differences: Vec<Difference>,
    waiting: Vec<Waiting>,
}

impl Findings {
    /// `check` looked at one more thing.
    pub(super) fn look(&mut self, check: Check) {
        let (looked_at, _) = self.counts.entry(check).or_default();
        *looked_at = looked_at.saturating_add(1);
    }

    /// `check` found a difference.
    pub(super) fn differ(
        &mut self,
        check: Check,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) {
        let (_, count) = self.counts.entry(check).or_default();
        *count = count.saturating_add(1);
        if self.differences.len() < LISTED {
            let (subject, expected) = (subject.to_string(), expected.to_string());
            let found = found.to_string();
            self.differences.push(Difference { check, subject, expected, found });
        }
    }

    /// `check` looked at one more thing, which has to be `expected`.
    pub(super) fn same<T: PartialEq + fmt::Display>(
        &mut self,
        check: Check,
        subject: impl fmt::Display,
        expected: T,
        found: T,
    ) {
        self.look(check);
        if expected != found {
            self.differ(check, subject, expected, found);
        }
    }

    /// `check` met something that is not at rest.
    pub(super) fn wait(
        &mut self,
        check: Check,
        subject: impl fmt::Display,
        reason: impl fmt::Display,
        since: Option<Unix>,
    ) {
        if self.waiting.len() < LISTED {
            let (subject, reason) = (subject.to_string(), reason.to_string());
            self.waiting.push(Waiting { check, subject, reason, since });
        }
    }

    /// What was found in another part, after this one.
    pub(super) fn add(&mut self, other: Self) {
        for (check, (looked_at, found)) in other.counts {
            let counts = self.counts.entry(check).or_default();
            counts.0 = counts.0.saturating_add(looked_at);
            counts.1 = counts.1.saturating_add(found);
        }
        self.differences.extend(other.differences);
        self.differences.truncate(LISTED);
        self.waiting.extend(other.waiting);
        self.waiting.truncate(LISTED);
    }

    /// The result.
    pub(super) fn end(self) -> Audit {
        let Self { counts, differences, waiting } = self;
        let line = |name: Check| {
            let (looked_at, found) = counts.get(&name).copied().unwrap_or_default();
            Line { name, looked_at, found }
        };
        let checks: Vec<_> = Check::ALL.into_iter().map(line).collect();
        let ok = checks.iter().all(|line| line.found == 0);
        Audit { ok, checks, differences, waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: an audit that says "ok" because its list was full.
    #[test]
    fn every_difference_counts_and_the_list_ends() {
        let mut findings = Findings::default();
        for n in 0..LISTED + 5 {
            findings.same(Check::Cash, n, 1, 2);
        }
        findings.same(Check::Wallet, "till", 3, 3);
        let audit = findings.end();
        assert!(!audit.ok);
        assert_eq!(audit.differences.len(), LISTED);
        let line = |name| audit.checks.iter().find(|line| line.name == name).copied().unwrap();
        assert_eq!((line(Check::Cash).looked_at, line(Check::Cash).found), (1_005, 1_005));
        assert_eq!((line(Check::Wallet).looked_at, line(Check::Wallet).found), (1, 0));
    }

    /// Loss prevented: a difference that a part has found, and the whole does not tell or count.
    #[test]
    fn parts_add_up_in_their_order() {
        let mut all = Findings::default();
        for part in 0..3 {
            let mut findings = Findings::default();
            for n in 0..LISTED {
                findings.same(Check::Ledger, format!("{part}.{n}"), 1, 2);
            }
            findings.same(Check::Cash, "bay", 1, 1);
            findings.wait(Check::Dispense, part, "no report yet", None);
            all.add(findings);
        }
        let audit = all.end();
        let line = |name| audit.checks.iter().find(|line| line.name == name).copied().unwrap();
        assert_eq!((line(Check::Ledger).looked_at, line(Check::Ledger).found), (3_000, 3_000));
        assert_eq!((line(Check::Cash).looked_at, line(Check::Cash).found), (3, 0));
        assert_eq!(audit.differences.len(), LISTED);
        assert_eq!(audit.differences.first().unwrap().subject, "0.0");
        assert_eq!(audit.differences.last().unwrap().subject, "0.999");
        let waiting: Vec<_> = audit.waiting.iter().map(|one| one.subject.as_str()).collect();
        assert_eq!(waiting, ["0", "1", "2"]);
    }

    /// Loss prevented: a script that reads "ok" where the field has got another name.
    #[test]
    fn the_shape_stays() {
        let mut findings = Findings::default();
        findings.same(Check::Ledger, "entry 1", "0 sats", "1 sats");
        findings.wait(Check::Dispense, "payment x", "no report yet", Some(Unix(7)));
        insta::assert_json_snapshot!(findings.end());
    }
}
