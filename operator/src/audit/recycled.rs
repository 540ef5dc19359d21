//! Notes that recyclers keep, derived again from what the machines' vaults count.
//!
//! Promise: the ledger has moved from a machine's cashbox into each bay what the counts come to, and
//! the count that is told now is the one that is booked.

use std::collections::BTreeMap;

use bitspire_shared::ids::BayId;
use bitspire_shared::money::Denomination;

use super::gather::Gather;
use super::report::Check;
use crate::ids::MachineId;
use crate::ledger::{Account, Entry, EntryKind, RecycledCount};
use crate::store::{StoreError, ledger, recycled};

impl Gather<'_> {
    pub(super) fn recycled(&mut self) -> Result<(), StoreError> {
        let all: Vec<MachineId> = self.machines.keys().copied().collect();
        for machine in all {
            let counts = recycled::list(self.read, machine)?;
            let mut sums: BTreeMap<(BayId, Denomination), i64> = BTreeMap::new();
            for count in &counts {
                let sum = sums.entry((count.bay, count.note)).or_default();
                *sum = sum.saturating_add(count.notes.into());
            }
            let moved = ledger::moved_into(self.read, EntryKind::Recycled, machine)?;
            for (account, _, _) in moved.iter() {
                if let Account::Bay(_, bay, note) = account {
                    sums.entry((bay, note)).or_default();
                }
            }
            for ((bay, note), notes) in sums {
                self.findings.look(Check::Cash);
                let account = Account::Bay(machine, bay, note);
                let value = moved.iter().find(|(of, _, _)| *of == account);
                let value = value.map_or(0, |(_, _, value)| value);
                let expected = i128::from(notes).saturating_mul(note.minor().into());
                if value != expected {
                    let subject = subject(machine, bay, note);
                    let expected = format!("{expected} minor units by the machine's counts");
                    self.findings.differ(Check::Cash, subject, expected, format!("{value} booked"));
                }
            }
            self.told(machine, &counts);
        }
        Ok(())
    }

    /// The newest heartbeat against what is booked of its counts.
    fn told(&mut self, machine: MachineId, counts: &[RecycledCount]) {
        let Some(known) = self.machines.get(&machine) else { return };
        let Some((report, at)) = &known.heartbeat else { return };
        // what a vault before this pairing said is not the present one's
        if known.row.paired_at.is_some_and(|paired_at| *at < paired_at) {
            return;
        }
        let (Some(told), Some(vault)) = (&report.recycled, known.row.vault_key) else { return };
        let mut now: BTreeMap<(BayId, Denomination), u32> = BTreeMap::new();
        for (bay, notes) in &told.notes {
            now.extend(notes.iter().map(|(note, count)| ((*bay, *note), *count)));
        }
        let own = |count: &&RecycledCount| (count.vault, count.since) == (vault, told.since);
        let mut booked: BTreeMap<_, _> =
            counts.iter().filter(own).map(|count| ((count.bay, count.note), count.notes)).collect();
        for ((bay, note), said) in now {
            let has = booked.remove(&(bay, note)).unwrap_or(0);
            if has != said {
                let subject = subject(machine, bay, note);
                let (expected, found) = (format!("{said} by the machine"), format!("{has} booked"));
                self.findings.differ(Check::Cash, subject, expected, found);
            }
        }
        for ((bay, note), has) in booked {
            let subject = subject(machine, bay, note);
            self.findings.differ(Check::Cash, subject, "0 by the machine", format!("{has} booked"));
        }
    }

    /// Whether a machine's count makes this entry.
    pub(super) fn by_recycler(&self, entry: &Entry) -> Result<bool, StoreError> {
        let Some(made) = RecycledCount::of(entry.reference()) else { return Ok(false) };
        let booked = recycled::booked(self.read, &made)?;
        Ok((1..=booked).contains(&made.notes))
    }
}

fn subject(machine: MachineId, bay: BayId, note: Denomination) -> String {
    format!("machine {machine}, bay {bay}, recycled notes of {}", note.minor())
}
