//! Reads what the checks look at, page by page, in one snapshot of the database.
//!
//! Promise: every settlement and every report is looked at once, with what belongs to it; what is kept of
//! them beyond its page is bounded ([`Rows`]), but for the hashes of payments ([`Marks`]).
//!
//! Failure policy: a row that does not read ends the audit with the column's name; an entry of the
//! ledger that does not read is a difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitspire_shared::ids::{BayId, PubKey};
use bitspire_shared::money::{Denomination, Direction, Sats};
use bitspire_shared::rpc::StateReport;
use bitspire_shared::time::Unix;
use nostr::SecretKey;
use serde::Deserialize as _;
use serde_json::Value;

use super::marks::Marks;
use super::opens::{Ciphers, Opens};
use super::promises;
use super::report::{Check, Findings};
use super::rows::Rows;
use super::sale::{self, Follows, Sale};
use super::signatures::{Signatures, What};
use super::wallet::Seen;
use super::{books, signed};
use crate::app::App;
use crate::ids::{MachineId, SettlementId};
use crate::ledger::{Account, EntryKind, Unit};
use crate::store::machines::KeptMachine;
use crate::store::quotes::Quote;
use crate::store::settlements::{Report, Settlement};
use crate::store::{
    Kept, Read, StoreError, cassettes, claims, ledger, machines, operators, pairing, sessions,
    settlements, verdicts, withdraws,
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
    /// What the audit of `app` knows; of each wallet what it told, or why it did not.
    pub(super) fn of(
        app: &App,
        wallets: BTreeMap<String, Seen>,
        silent: BTreeMap<String, String>,
    ) -> Self {
        let (service, secret) = (app.service_key, app.service.secret_key().clone());
        let now = app.clock.now();
        Self { service, secret, wallets, silent, now }
    }

    /// What opens machines' requests.
    pub(super) fn opens(&self) -> Opens {
        Opens::Service(Arc::new(Ciphers::new(self.secret.clone())))
    }
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

pub(super) struct Gather<'a> {
    pub(super) read: &'a Read<'a>,
    pub(super) given: &'a Given,
    pub(super) findings: Findings,
    pub(super) machines: &'a Machines,
    pub(super) marks: &'a Marks,
    pub(super) signatures: Signatures,
    /// What lies beside what was asked for.
    pub(super) rows: Rows<'a>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        read: &'a Read<'a>,
        given: &'a Given,
        machines: &'a Machines,
        marks: &'a Marks,
    ) -> Self {
        let (findings, rows) = (Findings::default(), Rows::of(read));
        let signatures = Signatures::default();
        Self { read, given, findings, machines, marks, signatures, rows }
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
            if let Some(entry) = self.rows.entry(EntryKind::Dispensed, &reference)? {
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

    /// Settlements after a number, up to another.
    pub(super) fn sales(
        &mut self,
        mut after: SettlementId,
        to: SettlementId,
    ) -> Result<(), StoreError> {
        while after < to {
            let page = settlements::page(self.read, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for settlement in page.iter().take_while(|kept| kept.id <= to) {
                self.sale(settlement)?;
            }
            if self.signatures.are_many() {
                self.signatures_hold()?;
            }
        }
        Ok(())
    }

    pub(super) fn sale(&mut self, kept: &Kept<SettlementId, Settlement>) -> Result<(), StoreError> {
        let settlement = &kept.row;
        let hash = settlement.payment_hash;
        let flow = match settlement.direction {
            Direction::CashOut => Flow::Inbound,
            Direction::CashIn => Flow::Outbound,
        };
        self.in_wallet(&settlement.wallet_id, hash, flow);
        let quote = self.rows.quote(settlement)?;
        if settlement.quote_id.is_some() {
            self.request(settlement, quote.as_deref())?;
        }
        self.distribution(kept)?;
        let follows = match self.follows(settlement, quote.as_deref())? {
            Ok(follows) => follows,
            Err(why) => {
                let subject = format!("settlement {hash}");
                self.findings.differ(Check::Ledger, subject, "a row that can be derived", why);
                return Ok(());
            }
        };
        for expected in &follows.entries {
            let found = self.rows.in_ledger(expected.kind(), expected.reference())?;
            if let Some(found) = &found {
                self.marks.found(found.id);
            }
            let found = found.as_ref().map(|found| &found.entry);
            books::entry(&mut self.findings, expected, found);
            if let Some(entry) = found.filter(|found| found.kind() == EntryKind::Settled) {
                self.paid(settlement, entry)?;
            }
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
        let invoice = self.rows.invoice(settlement.payment_hash)?;
        let machine = quote.and_then(|quote| self.machines.get(&quote.machine_id));
        let (Some(quote), Some(invoice), Some(machine)) = (quote, &invoice, machine) else {
            let subject = format!("settlement {}", settlement.payment_hash);
            let expected = "the quote and the invoice that it names";
            self.findings.differ(Check::Requests, subject, expected, "one of them is gone");
            return Ok(());
        };
        let document = self.rows.document(quote.fees_event_id)?;
        let keys = &machine.keys;
        let (read, id) = (self.read, quote.machine_id);
        let speaks = |key| spoke(read, id, key);
        let (findings, later) = (&mut self.findings, &mut self.signatures);
        signed::quote(findings, quote, &document, machine.operator);
        let asked = What::Request(invoice.payment_hash, invoice.quote_id);
        let sender = signed::invoice(findings, keys, (invoice, quote), &speaks, &mut |signed| {
            later.put(signed, asked);
            true
        });
        signed::by_service(findings, keys, quote, sender, &mut |signed| {
            later.put(signed, What::Quote(quote.quote_id));
            true
        });
        if settlement.principal_sats.is_some() {
            signed::settlement(&mut self.findings, settlement, quote, invoice);
        }
        Ok(())
    }

    pub(super) fn heartbeats(&mut self) -> Result<(), StoreError> {
        for machine in self.machines.values() {
            if let Some(body) = &machine.said {
                signed::heartbeat(&mut self.findings, &machine.keys, machine.row.id, body);
            }
        }
        Ok(())
    }

    /// Reports, the same.
    pub(super) fn reports(&mut self, mut after: i64, to: i64) -> Result<(), StoreError> {
        while after < to {
            let page = settlements::report_page(self.read, after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (_, report) in page.iter().take_while(|(id, _)| *id <= to) {
                let Some(machine) = self.machines.get(&report.machine_id) else { continue };
                signed::report(&mut self.findings, &machine.keys, report);
                let of = self.rows.settlement(report.payment_hash)?;
                promises::report(&mut self.findings, report, of.as_ref().map(|kept| &kept.row));
            }
        }
        Ok(())
    }

    pub(super) fn promises(&mut self) -> Result<(), StoreError> {
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
    opens: &Opens,
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
