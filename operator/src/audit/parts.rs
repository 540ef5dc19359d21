//! What there is to do, in parts, and who does it.
//!
//! Promise: every settlement, withdraw, payout, leg, deposit, report, debt, load and entry is in one part.
//! As many threads take the next part as there are readers of the snapshot; what they find is told in the
//! order of the parts, so that the first difference is the same one each time.
//!
//! Failure policy: where a part cannot be done nobody begins another one, and the audit ends with the
//! error; a thread that breaks off breaks the audit off.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::gather::{Gather, Given, Machines, machines};
use super::marks::Marks;
use super::report::{Audit, Findings};
use crate::ids::SettlementId;
use crate::store::{Read, Snapshot, StoreError, ledger, settlements};

/// Settlements or reports in a part: a few seconds of one thread.
const SHARE: i64 = 20_000;

type Whole = fn(&mut Gather<'_>) -> Result<(), StoreError>;

/// A part of the work.
#[derive(Clone, Copy)]
enum Part {
    /// Settlements after the first number, up to the second one.
    Sales(i64, i64),
    /// Reports, the same.
    Reports(i64, i64),
    /// All of something.
    Whole(Whole),
    /// The wallet of this number; all sales were seen.
    Wallet(usize),
}

impl Part {
    fn run(self, all: &mut Gather<'_>) -> Result<(), StoreError> {
        match self {
            Self::Sales(after, to) => all.sales(SettlementId(after), SettlementId(to)),
            Self::Reports(after, to) => all.reports(after, to),
            Self::Whole(part) => part(all),
            Self::Wallet(number) => {
                let wallet = all.given.wallets.iter().nth(number);
                wallet.map_or(Ok(()), |(id, seen)| all.wallet(id, seen))
            }
        }
    }
}

/// Everything there is to do, in the order in which it is told.
fn parts(read: &Read<'_>) -> Result<Vec<Part>, StoreError> {
    let newest = settlements::newest(read, None, None, None, 1)?;
    let newest = newest.first().map_or(0, |kept| kept.id.0);
    let mut parts: Vec<Part> = shares(newest).map(|(after, to)| Part::Sales(after, to)).collect();
    parts.push(Part::Whole(|all| all.heartbeats()));
    let newest = settlements::newest_report(read)?;
    parts.extend(shares(newest).map(|(after, to)| Part::Reports(after, to)));
    let whole: [Whole; 13] = [
        |all| all.withdraws(),
        |all| all.payouts(),
        |all| all.legs(),
        |all| all.deposits(),
        |all| all.providers(),
        |all| all.debts(),
        |all| all.silent(),
        |all| all.loads(),
        |all| all.recycled(),
        |all| all.service(),
        |all| all.cash(),
        |all| all.promises(),
        |all| all.entries(),
    ];
    parts.extend(whole.map(Part::Whole));
    Ok(parts)
}

/// What lies up to the number `newest`, in shares.
fn shares(newest: i64) -> impl Iterator<Item = (i64, i64)> {
    let starts = std::iter::successors(Some(0_i64), |after| after.checked_add(SHARE));
    starts
        .take_while(move |after| *after < newest)
        .map(|after| (after, after.saturating_add(SHARE)))
}

/// Runs every check, on as many threads as there are snapshots, which are of one moment.
pub(super) fn run(snapshots: Vec<Snapshot>, given: &Given) -> Result<Audit, StoreError> {
    let Some(first) = snapshots.first() else { return Ok(Findings::default().end()) };
    let (machines, parts, marks) = {
        let read = first.read();
        (
            machines(&read, given)?,
            parts(&read)?,
            Marks::of(ledger::newest(&read)?, given.wallets.keys()),
        )
    };
    let shared = Shared { given, machines: &machines, marks: &marks };
    let mut findings = Findings::default();
    let snapshots = shared.all(snapshots, &parts, &mut findings)?;
    // a wallet's rest, and what no sale made, can only be told when all sales were seen
    let wallets: Vec<_> = (0..given.wallets.len()).map(Part::Wallet).collect();
    let mut snapshots = shared.all(snapshots, &wallets, &mut findings)?;
    let last = snapshots.pop();
    let last = last.ok_or_else(|| StoreError::Stopped { reason: "the audit broke off".into() })?;
    let read = last.read();
    let mut all = Gather::new(&read, given, &machines, &marks);
    all.beside()?;
    findings.add(all.findings);
    Ok(findings.end())
}

/// What all threads look at.
#[derive(Clone, Copy)]
struct Shared<'a> {
    given: &'a Given,
    machines: &'a Machines,
    marks: &'a Marks,
}

impl Shared<'_> {
    /// Does these parts, on a thread for each snapshot, which are given back; adds what they find.
    fn all(
        self,
        snapshots: Vec<Snapshot>,
        parts: &[Part],
        findings: &mut Findings,
    ) -> Result<Vec<Snapshot>, StoreError> {
        // what is told last is done first: of all parts, the longest are the last ones
        let next = AtomicUsize::new(0);
        let take = || {
            let taken = next.fetch_add(1, Ordering::Relaxed);
            parts.len().checked_sub(taken.checked_add(1)?)
        };
        let found: Mutex<BTreeMap<usize, Result<Findings, StoreError>>> = Mutex::default();
        let snapshots = thread::scope(|scope| {
            let work = |snapshot: Snapshot| {
                let (next, found, take) = (&next, &found, &take);
                scope.spawn(move || {
                    let read = snapshot.read();
                    let mut all = Gather::new(&read, self.given, self.machines, self.marks);
                    while let Some((number, part)) = take().and_then(|n| Some((n, parts.get(n)?))) {
                        let ran = part.run(&mut all).and_then(|()| all.signatures_hold());
                        let ran = ran.map(|()| std::mem::take(&mut all.findings));
                        let failed = ran.is_err();
                        found.lock().unwrap_or_else(PoisonError::into_inner).insert(number, ran);
                        if failed {
                            // nobody begins another part
                            next.store(parts.len(), Ordering::Relaxed);
                        }
                    }
                    drop(all);
                    drop(read);
                    snapshot
                })
            };
            let working: Vec<_> = snapshots.into_iter().map(work).collect();
            let ended = working.into_iter().map(|thread| thread.join());
            ended.map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        for ran in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            findings.add(ran?);
        }
        Ok(snapshots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss prevented: a settlement or report between two parts, which no audit looks at.
    #[test]
    fn every_number_is_in_one_part() {
        for newest in [0, 1, SHARE - 1, SHARE, SHARE + 1, 3 * SHARE, 7 * SHARE + 5] {
            let mut next = 1;
            for (after, to) in shares(newest) {
                assert_eq!(after + 1, next, "up to {newest}");
                assert!(after < newest && to > after);
                next = to + 1;
            }
            assert!(next > newest, "up to {newest}");
        }
    }
}
