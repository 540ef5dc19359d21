//! Notes by the ledger against the machine's own counts, bay by bay and value by value.
//!
//! Promise: a difference is told as one only where nothing explains it: no sale under way, none
//! unreported, no report ahead of the heartbeat, no load unbooked, no bay in doubt. Where something
//! does, it is told as waiting for that.

use std::collections::{BTreeMap, BTreeSet};

use bitspire_shared::ids::{BayId, JournalSeq};
use bitspire_shared::money::{Denomination, Direction};
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;

use super::report::{Check, Findings};
use crate::ids::MachineId;
use crate::ledger::Account;
use crate::store::cassettes::Change;

const CHECK: Check = Check::Cash;

/// A machine's notes as both sides have them.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    /// The machine.
    pub(super) machine: MachineId,
    /// The ledger's bays, cashbox and reject bin of it.
    pub(super) ledger: &'a [(Account, i128)],
    /// What the machine said last in its present pairing, and when.
    pub(super) said: Option<(&'a StateReport, Unix)>,
    /// Loads that are not booked.
    pub(super) unbooked: &'a [Change],
    /// Bays that somebody changed at the machine, which is not booked.
    pub(super) unbooked_at_machine: &'a BTreeSet<BayId>,
    /// Whether a paid cash_out is not reported.
    pub(super) unreported: bool,
    /// The furthest journal position of its reports.
    pub(super) reported: JournalSeq,
    /// Bays that a dispense of unknown end took from, since their last count.
    pub(super) in_doubt: &'a BTreeSet<BayId>,
}

impl Notes<'_> {
    /// Why bays, or the cashbox, may differ for now.
    fn unrest(&self, report: &StateReport, direction: Direction) -> Option<String> {
        let open = report.open_transactions.iter().find(|open| open.direction == direction);
        if let Some(open) = open {
            return Some(format!("transaction {} is {}", open.txid, open.state));
        }
        if self.reported > report.journal_seq {
            return Some("the heartbeat is older than the last report".into());
        }
        (direction == Direction::CashOut && self.unreported)
            .then(|| "a paid sale without a report".into())
    }
}

/// Compares the notes of one machine.
pub(super) fn notes(findings: &mut Findings, notes: &Notes<'_>) {
    let machine = notes.machine;
    let mut bays: BTreeMap<(BayId, Denomination), (i128, i128)> = BTreeMap::new();
    let mut boxed: BTreeMap<Denomination, (i128, i128)> = BTreeMap::new();
    let mut binned: BTreeMap<Denomination, (i128, i128)> = BTreeMap::new();
    for (account, value) in notes.ledger {
        let count = |note: Denomination| value.checked_div(note.minor().into()).unwrap_or(0);
        match account {
            Account::Bay(_, bay, note) => bays.entry((*bay, *note)).or_default().0 = count(*note),
            Account::Cashbox(_, note) => boxed.entry(*note).or_default().0 = count(*note),
            Account::RejectBin(_, note) => binned.entry(*note).or_default().0 = count(*note),
            _ => {}
        }
    }
    let Some((report, at)) = notes.said else {
        if bays
            .values()
            .chain(boxed.values())
            .chain(binned.values())
            .any(|(ledger, _)| *ledger != 0)
        {
            findings.wait(CHECK, format!("machine {machine}"), "no heartbeat since pairing", None);
        }
        return;
    };
    for (bay, held) in &report.cassettes {
        bays.entry((*bay, held.denomination_minor)).or_default().1 = held.count.into();
    }
    for (note, count) in report.cashbox.iter().flat_map(|cashbox| &cashbox.notes) {
        boxed.entry(*note).or_default().1 = (*count).into();
    }
    for (note, count) in report.reject_bin.iter().flat_map(|bin| &bin.notes) {
        binned.entry(*note).or_default().1 = (*count).into();
    }
    let mut compare = |place: String, note: Denomination, (ledger, said), why: Option<String>| {
        findings.look(CHECK);
        if ledger == said {
            return;
        }
        let subject = format!("machine {machine}, {place}, notes of {}", note.minor());
        match why {
            Some(why) => {
                let reason = format!("{why}: the ledger has {ledger}, the machine {said}");
                findings.wait(CHECK, subject, reason, Some(at));
            }
            None => {
                let (expected, found) = (format!("{ledger} by the ledger"), format!("{said}"));
                findings.differ(CHECK, subject, expected, format!("{found} by the machine"));
            }
        }
    };
    for ((bay, note), counts) in bays {
        let loading = notes.unbooked.iter().any(|c| c.bay == bay && c.acked_at.is_some())
            || notes.unbooked_at_machine.contains(&bay);
        let why = if notes.in_doubt.contains(&bay) {
            Some("a dispense from it ended unknown; count it".into())
        } else if loading {
            Some("what was put in is not booked yet".into())
        } else {
            notes.unrest(report, Direction::CashOut)
        };
        compare(format!("bay {bay}"), note, counts, why);
    }
    for (note, counts) in boxed {
        compare("cashbox".into(), note, counts, notes.unrest(report, Direction::CashIn));
    }
    // a machine of an earlier version does not tell of it
    for (note, counts) in binned.into_iter().filter(|_| report.reject_bin.is_some()) {
        compare("reject bin".into(), note, counts, notes.unrest(report, Direction::CashOut));
    }
}
