//! Reads what the checks look at, page by page, in one snapshot of the database.
//!
//! Promise: every settlement, withdraw, payout, leg, deposit, report, debt, load and entry is looked at once, and
//! nothing of them is kept in memory beyond its page. The work is in parts, and as many threads take
//! the next one as there are readers of the snapshot; what they find is told in the order of the parts,
//! so that the first difference is the same one each time.
//!
//! Failure policy: a row that does not read ends the audit with the column's name; an entry of the
//! ledger that does not read is a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bitspire_shared::ids::{BayId, EventId, PubKey};
use bitspire_shared::money::{Denomination, Direction, Sats};
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;
use nostr::SecretKey;
use serde::Deserialize as _;
use serde_json::Value;

use super::promises;
use super::reasons::{Reasons, of_a_sale};
use super::report::{Audit, Check, Findings};
use super::sale::{self, Follows, Sale};
use super::signed::FeeDocument;
use super::wallet::Seen;
use super::{books, signed};
use crate::ids::{EntryId, MachineId, SettlementId};
use crate::ledger::{Account, Balances, Checker, Closings, Entry, EntryKind, Unit};
use crate::store::ledger::Booked;
use crate::store::machines::KeptMachine;
use crate::store::quotes::Quote;
use crate::store::settlements::{Report, Settlement};
use crate::store::{
    Kept, Read, Snapshot, StoreError, cassettes, claims, documents, invoices, ledger, machines,
    operators, pairing, quotes, service, sessions, settlements, verdicts, withdraws,
};
use crate::wallet::Flow;

/// Rows read at a time.
pub(super) const PAGE: u32 = 500;

/// What the audit knows beside the database.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The service key.
    pub(super) service: PubKey,
    /// Its secret half.
    pub(super) secret: SecretKey,
    /// The wallets that answered.
    pub(super) wallets: BTreeMap<String, Seen>,
    /// Those that did not, and why.
    pub(super) silent: BTreeMap<String, String>,
    /// Now.
    pub(super) now: Unix,
}

impl Given {
    /// What opens machines' requests.
    pub(super) fn opens(&self) -> signed::Opens {
        signed::Opens::Service(Arc::new(signed::Ciphers::new(self.secret.clone())))
    }
}

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
}

impl Part {
    fn run(self, all: &mut Gather<'_>) -> Result<(), StoreError> {
        match self {
            Self::Sales(after, to) => all.sales(SettlementId(after), SettlementId(to)),
            Self::Reports(after, to) => all.reports(after, to),
            Self::Whole(part) => part(all),
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
        |all| all.wallets(),
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
    let (machines, parts, reasons) = {
        let read = first.read();
        (machines(&read, given)?, parts(&read)?, Reasons::up_to(ledger::newest(&read)?))
    };
    // the longest of them is the last one in the order of telling
    let next = AtomicUsize::new(0);
    let take = || {
        let taken = next.fetch_add(1, Ordering::Relaxed);
        parts.len().checked_sub(taken.checked_add(1)?)
    };
    let found: Mutex<BTreeMap<usize, Result<Findings, StoreError>>> = Mutex::default();
    let last = thread::scope(|scope| {
        let work = |snapshot: Snapshot| {
            let (machines, parts, reasons) = (&machines, &parts, &reasons);
            let (next, found, take) = (&next, &found, &take);
            scope.spawn(move || {
                let read = snapshot.read();
                let mut all = Gather::new(&read, given, machines, reasons);
                while let Some((number, part)) = take().and_then(|n| Some((n, parts.get(n)?))) {
                    let ran = part.run(&mut all);
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
        ended.map(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic))).last()
    });
    let mut findings = Findings::default();
    for ran in found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
        findings.add(ran?);
    }
    // what no sale made can only be told when all of them were seen
    let last = last.ok_or_else(|| StoreError::Stopped { reason: "the audit broke off".into() })?;
    let read = last.read();
    let mut all = Gather::new(&read, given, &machines, &reasons);
    all.beside()?;
    findings.add(all.findings);
    Ok(findings.end())
}

/// Everything that is known of one machine.
pub(super) struct Machine {
    pub(super) row: KeptMachine,
    pub(super) keys: signed::Keys,
    pub(super) operator: Option<PubKey>,
    pub(super) heartbeat: Option<(StateReport, Unix)>,
    /// The same, as its vault signed it.
    said: Option<Value>,
    pub(super) bays: BTreeMap<BayId, Denomination>,
}

/// The machines, with their keys.
pub(super) type Machines = BTreeMap<MachineId, Machine>;

/// Reads all of them.
pub(super) fn machines(read: &Read<'_>, given: &Given) -> Result<Machines, StoreError> {
    let opens = given.opens();
    let each = machines::list(read, None)?.into_iter();
    each.map(|row| Ok((row.id, machine(read, given, &opens, row)?))).collect()
}

/// Fee documents that are kept at a time.
const DOCUMENTS: usize = 4_096;

pub(super) struct Gather<'a> {
    pub(super) read: &'a Read<'a>,
    pub(super) given: &'a Given,
    pub(super) findings: Findings,
    pub(super) machines: &'a Machines,
    reasons: &'a Reasons,
    /// Fee documents that were looked at already.
    documents: BTreeMap<EventId, Rc<FeeDocument>>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        read: &'a Read<'a>,
        given: &'a Given,
        machines: &'a Machines,
        reasons: &'a Reasons,
    ) -> Self {
        let (findings, documents) = (Findings::default(), BTreeMap::new());
        Self { read, given, findings, machines, reasons, documents }
    }

    /// The fee document of an event.
    pub(super) fn document(&mut self, id: EventId) -> Result<Rc<FeeDocument>, StoreError> {
        if let Some(known) = self.documents.get(&id) {
            return Ok(known.clone());
        }
        let document = documents::by_event(self.read, id)?;
        let document = document.map(|kept| FeeDocument::new(&kept.row)).unwrap_or_default();
        let document = Rc::new(document);
        if self.documents.len() >= DOCUMENTS {
            self.documents.clear();
        }
        self.documents.insert(id, document.clone());
        Ok(document)
    }

    /// An entry of the ledger, where it reads; its own look finds it where it does not.
    pub(super) fn entry(
        &self,
        kind: EntryKind,
        reference: &str,
    ) -> Result<Option<Entry>, StoreError> {
        Ok(self.in_ledger(kind, reference)?.map(|booked| booked.entry))
    }

    /// The same with its number.
    fn in_ledger(&self, kind: EntryKind, reference: &str) -> Result<Option<Booked>, StoreError> {
        match ledger::find(self.read, kind, reference) {
            Ok(booked) => Ok(booked),
            Err(StoreError::Column { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The quote of a settlement.
    pub(super) fn quote(&self, settlement: &Settlement) -> Result<Option<Quote>, StoreError> {
        settlement.quote_id.map_or(Ok(None), |id| quotes::find(self.read, id))
    }

    /// What follows from a settlement with its quote.
    pub(super) fn follows(
        &self,
        settlement: &Settlement,
        quote: Option<&Quote>,
    ) -> Result<Result<Follows, String>, StoreError> {
        let Some(machine) = self.machines.get(&settlement.machine_id) else {
            return Ok(Err("its machine is gone".into()));
        };
        let withdraw = match settlement.withdraw_id {
            Some(id) => withdraws::find(self.read, id)?,
            None => None,
        };
        let mut reports: Vec<Report> = Vec::new();
        if let Some(txid) = settlement.txid {
            reports = settlements::reports(self.read, settlement.machine_id, txid)?;
        }
        let decided = match settlement.txid {
            // it changes what follows from a report, and nothing else
            Some(txid) if !reports.is_empty() => {
                verdicts::settles(self.read, settlement.machine_id, txid)?
            }
            _ => false,
        };
        let mut booked = BTreeMap::new();
        for report in &reports {
            let reference = sale::reference(report);
            if let Some(entry) = self.entry(EntryKind::Dispensed, &reference)? {
                booked.insert(reference, entry);
            }
        }
        Ok(sale::follows(&Sale {
            settlement,
            operator: machine.row.operator_id,
            stray: machine.row.wallet_id != settlement.wallet_id,
            quote,
            withdraw: withdraw.as_ref(),
            reports: &reports,
            booked: &booked,
            decided,
            bays: &machine.bays,
        }))
    }

    fn sales(&mut self, mut after: SettlementId, to: SettlementId) -> Result<(), StoreError> {
        while after < to {
            let page = settlements::page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for settlement in page.iter().take_while(|kept| kept.id <= to) {
                self.sale(settlement)?;
            }
        }
        Ok(())
    }

    pub(super) fn sale(&mut self, kept: &Kept<SettlementId, Settlement>) -> Result<(), StoreError> {
        let settlement = &kept.row;
        let hash = settlement.payment_hash;
        let subject = format!("settlement {hash}");
        let flow = match settlement.direction {
            Direction::CashOut => Flow::Inbound,
            Direction::CashIn => Flow::Outbound,
        };
        self.in_wallet(&settlement.wallet_id, hash, flow);
        let quote = self.quote(settlement)?;
        if settlement.quote_id.is_some() {
            self.request(settlement, quote.as_ref())?;
        }
        self.distribution(kept)?;
        let follows = match self.follows(settlement, quote.as_ref())? {
            Ok(follows) => follows,
            Err(why) => {
                self.findings.differ(Check::Ledger, subject, "a row that can be derived", why);
                return Ok(());
            }
        };
        for expected in &follows.entries {
            let found = self.in_ledger(expected.kind(), expected.reference())?;
            if let Some(found) = &found {
                self.reasons.found(found.id);
            }
            let found = found.map(|found| found.entry);
            books::entry(&mut self.findings, expected, found.as_ref());
        }
        books::parts(&mut self.findings, settlement, &follows);
        for debt in &follows.debts {
            let found = claims::by_source(self.read, debt.reason, &debt.source)?;
            books::debt(&mut self.findings, debt, found.as_ref());
        }
        promises::dispense(&mut self.findings, settlement, &follows, self.given.now);
        Ok(())
    }

    fn request(
        &mut self,
        settlement: &Settlement,
        quote: Option<&Quote>,
    ) -> Result<(), StoreError> {
        let invoice = invoices::by_hash(self.read, settlement.payment_hash)?;
        let machine = quote.and_then(|quote| self.machines.get(&quote.machine_id));
        let (Some(quote), Some(invoice), Some(machine)) = (quote, &invoice, machine) else {
            let subject = format!("settlement {}", settlement.payment_hash);
            let expected = "the quote and the invoice that it names";
            self.findings.differ(Check::Requests, subject, expected, "one of them is gone");
            return Ok(());
        };
        let document = self.document(quote.fees_event_id)?;
        let keys = &machine.keys;
        let (read, id) = (self.read, quote.machine_id);
        let speaks = |key| spoke(read, id, key);
        signed::quote(&mut self.findings, keys, quote, &document, machine.operator);
        signed::invoice(&mut self.findings, keys, (invoice, quote), &speaks);
        if settlement.principal_sats.is_some() {
            signed::settlement(&mut self.findings, settlement, quote, invoice);
        }
        Ok(())
    }

    fn heartbeats(&mut self) -> Result<(), StoreError> {
        for machine in self.machines.values() {
            if let Some(body) = &machine.said {
                signed::heartbeat(&mut self.findings, &machine.keys, machine.row.id, body);
            }
        }
        Ok(())
    }

    fn reports(&mut self, mut after: i64, to: i64) -> Result<(), StoreError> {
        while after < to {
            let page = settlements::report_page(self.read, after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, report) in page.iter().take_while(|(id, _)| *id <= to) {
                let Some(machine) = self.machines.get(&report.machine_id) else { continue };
                signed::report(&mut self.findings, &machine.keys, report);
                let of = settlements::by_hash(self.read, report.payment_hash)?;
                promises::report(&mut self.findings, report, of.as_ref().map(|kept| &kept.row));
            }
        }
        Ok(())
    }

    fn promises(&mut self) -> Result<(), StoreError> {
        for id in self.machines.keys() {
            let owed = claims::unassigned(self.read, *id)?;
            let paying = withdraws::unpaid_for(self.read, *id, withdraws::Purpose::Owed)?;
            let promised = withdraws::unpaid_for(self.read, *id, withdraws::Purpose::CashIn)?;
            let owed = Sats(owed.0.saturating_add(paying.0));
            for (account, sats) in
                [(Account::CustomerLiability(*id), promised), (Account::Owed(*id), owed)]
            {
                let ledger = ledger::balance(self.read, account, Unit::Sats)?;
                promises::sum(&mut self.findings, account, sats, ledger);
            }
        }
        Ok(())
    }

    /// Entries of sales that no sale was seen to make.
    fn beside(&mut self) -> Result<(), StoreError> {
        for id in self.reasons.missing() {
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

    fn entries(&mut self) -> Result<(), StoreError> {
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
                let is_marked = of_a_sale(booked.entry.kind()) && self.reasons.wanted(entry.id);
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
                || !settlements::unreported(self.read, *id, since)?.is_empty()
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

/// Whether this key ever spoke for the machine in a session.
pub(super) fn spoke(read: &Read<'_>, machine: MachineId, key: PubKey) -> bool {
    // where the database does not read, the next statement ends the audit
    let session = sessions::by_key(read, key).ok().flatten();
    session.is_some_and(|session| session.machine_id == machine)
}

pub(super) fn machine(
    read: &Read<'_>,
    given: &Given,
    opens: &signed::Opens,
    row: KeptMachine,
) -> Result<Machine, StoreError> {
    let mut spires: Vec<_> = row.machine_npub.into_iter().collect();
    let earlier = pairing::earlier(read, row.id, i64::MAX.unsigned_abs())?;
    spires.extend(earlier.iter().filter_map(|attempt| attempt.spire_key));
    let mut vaults = sessions::vaults(read, row.id)?;
    vaults.extend(row.vault_key);
    let (service, opens) = (given.service, opens.clone());
    let keys = signed::Keys { service, opens, spires, vaults };
    let heartbeat = cassettes::heartbeat(read, row.id)?;
    let said = heartbeat.as_ref().map(|heartbeat| heartbeat.body.0.clone());
    let heartbeat = heartbeat.and_then(|heartbeat| {
        let report = StateReport::deserialize(&heartbeat.body.0).ok()?;
        Some((report, heartbeat.received_at))
    });
    let counted = heartbeat.iter().flat_map(|(report, _)| &report.cassettes);
    let mut bays: BTreeMap<_, _> =
        counted.map(|(bay, held)| (*bay, held.denomination_minor)).collect();
    let entered = cassettes::list(read, row.id)?;
    bays.extend(entered.into_iter().map(|cassette| (cassette.bay, cassette.denomination)));
    let operator = operators::find(read, row.operator_id)?.and_then(|operator| operator.pubkey);
    Ok(Machine { row, keys, operator, heartbeat, said, bays })
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
