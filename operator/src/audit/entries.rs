//! The ledger as a whole: every entry, what it is the sum of, and whether anything makes it.
//!
//! Promise: each entry is read once; one that no sale was seen to make is looked at by itself, when all
//! sales were seen.
//!
//! Failure policy: an entry that does not read is a difference.

use std::collections::BTreeSet;

use bitspire_shared::time::Unix;

use super::books;
use super::gather::{Gather, PAGE};
use super::marks::of_a_sale;
use crate::ids::EntryId;
use crate::ledger::{Balances, Checker, Closings};
use crate::store::ledger::Booked;
use crate::store::{StoreError, cassettes, ledger, service, settlements};

impl Gather<'_> {
    /// Entries of sales that no sale was seen to make.
    pub(super) fn beside(&mut self) -> Result<(), StoreError> {
        for id in self.marks.missing() {
            match ledger::entry(self.read, id) {
                Ok(Some(booked)) => self.reason(&booked)?,
                Ok(None) | Err(StoreError::Column { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is on record is the reason of an entry.
    fn reason(&mut self, booked: &Booked) -> Result<(), StoreError> {
        if !self.has_reason(&booked.entry)? {
            books::beside(&mut self.findings, booked.id, &booked.entry);
        }
        Ok(())
    }

    /// Every entry.
    pub(super) fn entries(&mut self) -> Result<(), StoreError> {
        let mut checker = Checker::default();
        let (mut lines, mut days) = (Balances::default(), Closings::default());
        let mut after = EntryId(0);
        loop {
            let page = ledger::written(self.read, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for entry in &page {
                books::written(&mut self.findings, entry);
                for posting in &entry.postings {
                    checker.take(entry.id, posting);
                }
                let Ok(booked) = &entry.booked else { continue };
                for posting in booked.entry.postings() {
                    lines.add(posting);
                    days.add(booked.at, posting);
                }
                let is_marked = of_a_sale(booked.entry.kind()) && self.marks.wanted(entry.id);
                if !is_marked {
                    self.reason(booked)?;
                }
            }
        }
        let (found, posted) = checker.end();
        let mut loading = BTreeSet::new();
        for (id, machine) in self.machines {
            let said = machine.heartbeat.as_ref();
            let selling = said.is_some_and(|(report, _)| !report.open_transactions.is_empty());
            let since = machine.row.paired_at.unwrap_or(Unix(0));
            let ahead = settlements::newest_position(self.read, *id, since)?;
            if selling
                // what it sold may be told before what it was fed
                || said.is_some_and(|(report, _)| report.journal_seq < ahead)
                || !cassettes::unbooked(self.read, *id)?.is_empty()
                || !service::unbooked(self.read, *id)?.is_empty()
                || settlements::unreported(self.read, *id, since)?
            {
                loading.insert(*id);
            }
        }
        books::sums(&mut self.findings, &found, |machine| loading.contains(&machine));
        books::balances(&mut self.findings, &lines, &posted);
        books::closings(&mut self.findings, &days, &ledger::kept_closings(self.read)?);
        Ok(())
    }
}
