//! What the machine says about itself: the heartbeat, and its cassettes once.
//!
//! Promise: counts come from the journal and carry the vault's signature. A report goes out at each
//! heartbeat and soon after something changed, never more often than every few seconds; but at once
//! after fees were applied, since the service quotes by those that were reported last.

use std::collections::BTreeMap;

use bitspire_shared::document::{CassettesState, DTag, DocumentKind, Position};
use bitspire_shared::ids::{BayId, ChangeId, EventId, RequestId};
use bitspire_shared::money::Direction;
use bitspire_shared::rpc::{
    self, BayCount, Cashbox, Device, DeviceRole, DeviceStatus, OpenTxn, Recycled, RejectBin,
    StateReport, VaultSigned,
};
use bitspire_shared::time::Mono;

use super::alerts::short;
use super::core::Vault;
use super::requests::Owner;
use super::{Pace, VaultError};
use crate::ipc::ToNet;
use crate::journal::{Holdings, Stage};
use crate::txn::Txn;

/// When what is due.
#[derive(Debug)]
pub(super) struct Reports {
    pace: Pace,
    due: Mono,
    sent: Option<Mono>,
    waiting: Option<RequestId>,
    /// The service events in it.
    carried: Vec<ChangeId>,
    confirm_due: Mono,
    confirm_asked: bool,
    state_sent: bool,
}

impl Reports {
    /// All is due.
    pub(super) const fn new(pace: Pace) -> Self {
        Self {
            pace,
            due: Mono(0),
            sent: None,
            waiting: None,
            carried: Vec::new(),
            confirm_due: Mono(0),
            confirm_asked: false,
            state_sent: false,
        }
    }

    /// Something changed that the operator should see.
    pub(super) fn soon(&mut self, now: Mono) {
        let earliest = self.sent.map_or(Mono(0), |sent| sent.after(self.pace.report_gap));
        self.due = self.due.min(now.after(self.pace.gather).max(earliest));
    }

    /// The service goes by what is reported: at once, however lately one was sent. For changes that
    /// the operator makes, which are few.
    pub(super) fn now(&mut self, now: Mono) {
        self.due = self.due.min(now);
    }

    /// `net` is there, perhaps a new one.
    pub(super) fn connected(&mut self, now: Mono) {
        self.due = now;
        self.confirm_due = now;
        self.confirm_asked = false;
        self.state_sent = false;
    }

    /// The last report was answered: the service events in it.
    pub(super) fn answered(&mut self) -> Vec<ChangeId> {
        self.waiting = None;
        std::mem::take(&mut self.carried)
    }

    pub(super) fn asked_confirmed(&mut self, now: Mono) {
        self.confirm_asked = false;
        self.confirm_due = now.after(self.pace.ask_confirmed);
    }
}

impl Vault {
    /// Sends what is due.
    pub(super) fn report_if_due(&mut self) -> Result<(), VaultError> {
        let now = self.mono();
        let Some(pairing) = self.pairing.as_ref().filter(|_| self.peers.has_net()) else {
            return Ok(());
        };
        if !pairing.confirmed && !self.reports.confirm_asked && now >= self.reports.confirm_due {
            self.reports.confirm_asked = true;
            self.ask_whether_confirmed()?;
        }
        if now < self.reports.due {
            return Ok(());
        }
        let heartbeat = u64::from(self.config.heartbeat_s.get()).saturating_mul(1_000);
        self.reports.due = now.after(heartbeat);
        self.reports.sent = Some(now);
        if let Some(older) = self.reports.waiting.take() {
            self.forget(older);
        }
        let report = self.state_report()?;
        let carried = report.service_events.iter().map(|event| event.id).collect();
        let body = match VaultSigned::sign(report, &self.keys) {
            Ok(signed) => serde_json::to_value(signed)?,
            Err(error) => {
                // beyond 2^53: no count of a machine is
                tracing::error!(event = "report_not_signed", %error);
                return Ok(());
            }
        };
        let id = RequestId::from_bytes(self.random()?);
        self.reports.waiting = Some(id);
        self.reports.carried = carried;
        self.request(id, Owner::Report, "report_state", body);
        Ok(())
    }

    fn state_report(&self) -> Result<StateReport, VaultError> {
        let head = self.journal.head();
        let holdings = self.journal.holdings();
        let count = |count: i64| u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        let mut alerts = self.alerts.list();
        let since = self.now().unix;
        let mut standing = |code: &str, detail: String| {
            alerts.push(rpc::Alert { code: code.to_owned(), detail: short(&detail), since });
        };
        if let Some(why) = self.inspection.broken() {
            standing("journal_broken", why.to_owned());
        }
        if let Some(why) = self.clock_wrong() {
            standing("clock_wrong", why);
        }
        if self.disk.is_low() {
            standing("disk_low", self.disk_words());
        }
        if self.breaker.is_open() {
            standing("breaker_open", "no notes go out until a verdict closes it".to_owned());
        }
        for (bay, held) in holdings.bays.iter().filter(|(_, held)| held.doubts != 0) {
            let (booked, counted) = (held.on_hand(), held.by_device());
            let counted = match held.recycles {
                true => format!(", {counted} by the device's last count"),
                false => String::new(),
            };
            standing(
                "bay_in_doubt",
                format!("bay {bay}: count it ({booked} by the books{counted})"),
            );
        }
        let differs = |held: &&crate::journal::Bay| held.differs != 0 && held.doubts == 0;
        for (bay, held) in holdings.bays.iter().filter(|(_, held)| differs(held)) {
            let (booked, counted) = (held.on_hand(), held.by_device());
            standing(
                "bay_differs",
                format!(
                    "bay {bay}: count it; the device counts {counted} notes, the books have {booked}"
                ),
            );
        }
        for (bay, held) in holdings.bays.iter().filter(|(_, held)| held.unsure != 0) {
            let (booked, fewer) = (held.on_hand(), held.unsure);
            standing(
                "bay_unsure",
                format!(
                    "bay {bay}: count it; up to {fewer} fewer than the {booked} of the books, after \
                     a fault"
                ),
            );
        }
        if self.door_is_open() {
            standing("door_open", "nothing is sold until it is closed".to_owned());
        }
        if self.service.is_inside() {
            standing("service_mode", "somebody with the PIN is at the machine".to_owned());
        }
        if self.documents_refused > 0 {
            let detail = format!("{} since the start", self.documents_refused);
            standing("documents_refused", detail);
        }
        if self.acceptor.is_some() && !self.has_room() {
            standing("cashbox_full", "empty it: no more notes are taken".to_owned());
        }
        if self.acceptor.as_ref().is_some_and(|taker| taker.cashbox_out) {
            standing("cashbox_out", "the cashbox is not in its place".to_owned());
        }
        let cassettes = holdings.bays.iter().map(|(bay, held)| {
            let denomination_minor = held.denomination;
            let (count, unsure) = (count(held.on_hand()), count(held.fewer()));
            (*bay, BayCount { denomination_minor, count, unsure })
        });
        let cashbox = self.acceptor.as_ref().map(|_| Cashbox {
            notes: holdings.cashbox.iter().map(|(d, heap)| (*d, count(heap.count))).collect(),
            capacity: self.config.policy.cashbox_capacity_notes.get(),
            emptied_seq: holdings.cashbox_emptied,
        });
        let reject_bin = self.dispenser.as_ref().map(|_| RejectBin {
            notes: holdings.reject_bin.iter().map(|(d, heap)| (*d, count(heap.count))).collect(),
            emptied_seq: holdings.reject_bin_emptied,
        });
        let open = self.txns.values().filter(|txn| txn.stage() != Stage::Closed);
        Ok(StateReport {
            versions: [("agent".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
            devices: self.devices(),
            cassettes: cassettes.collect(),
            cashbox,
            reject_bin,
            // also where it is gone: what nobody has heard of must be heard of
            recycled: (self.config.recycler.is_some() || !holdings.recycled.is_empty())
                .then(|| recycled(holdings)),
            service_events: self.untold(),
            applied_documents: self.applied_documents(),
            applied_changes: self.applied_changes()?,
            open_transactions: open.take(MOST).map(open_txn).collect(),
            alerts,
            used_nonces: self.journal.last_nonces(NONCES)?,
            journal_seq: head.seq,
            journal_head: head.hash,
        })
    }

    fn devices(&self) -> BTreeMap<String, Device> {
        let mut devices = BTreeMap::new();
        if let (Some(taker), Some(giver), Some(fitted)) =
            (&self.acceptor, &self.dispenser, &self.config.recycler)
        {
            // the worse of its two sides
            let ready = taker.status == DeviceStatus::Ready;
            let (status, fault) = match ready {
                true => (giver.status, &giver.fault),
                false => (taker.status, &taker.fault),
            };
            let device = Device {
                role: DeviceRole::Recycler,
                protocol: fitted.kind.protocol().to_owned(),
                version: taker.version.as_deref().map(short),
                status,
                fault: fault.as_deref().map(short),
            };
            devices.insert("recycler".to_owned(), device);
        }
        if let (Some(taker), Some(fitted)) = (&self.acceptor, &self.config.acceptor) {
            let device = Device {
                role: DeviceRole::Acceptor,
                protocol: fitted.kind.protocol().to_owned(),
                version: taker.version.as_deref().map(short),
                status: taker.status,
                fault: taker.fault.as_deref().map(short),
            };
            devices.insert("acceptor".to_owned(), device);
        }
        if let (Some(giver), Some(fitted)) = (&self.dispenser, &self.config.dispenser) {
            let device = Device {
                role: DeviceRole::Dispenser,
                protocol: fitted.kind.protocol().to_owned(),
                version: None,
                status: giver.status,
                fault: giver.fault.as_deref().map(short),
            };
            devices.insert("dispenser".to_owned(), device);
        }
        if let Some(press) = &self.press {
            let device = Device {
                role: DeviceRole::Printer,
                protocol: "escpos".to_owned(),
                version: None,
                status: press.status,
                fault: press.fault.as_deref().map(short),
            };
            devices.insert("printer".to_owned(), device);
        }
        devices
    }

    fn applied_documents(&self) -> BTreeMap<String, EventId> {
        let fees = self.fees.as_ref().map(|(kept, _)| (DocumentKind::Fees, &kept.0));
        let cassettes =
            self.cassettes.as_ref().map(|kept| (DocumentKind::Cassettes, &kept.document));
        let all = fees.into_iter().chain(cassettes);
        all.map(|(kind, kept)| (DTag { kind, spire: kept.spire }.to_string(), kept.mark().id))
            .collect()
    }

    /// Publishes what the bays hold, once after a pairing.
    pub(super) fn publish_state(&mut self) -> Result<(), VaultError> {
        let waits = self.peers.has_net() && !self.reports.state_sent;
        let wanted = self.pairing.as_ref().filter(|pairing| waits && !pairing.state_published);
        let (Some(pairing), Some(now)) = (wanted, self.time.known(self.mono())) else {
            return Ok(());
        };
        self.reports.state_sent = true;
        let position = |(bay, held): (&BayId, &crate::journal::Bay)| {
            let count = u32::try_from(held.on_hand().max(0)).unwrap_or(u32::MAX);
            (*bay, Position { denomination: held.denomination, count })
        };
        let state = CassettesState {
            positions: self.journal.holdings().bays.iter().map(position).collect(),
            published_at: Some(now),
            base_seq: Some(self.journal.head().seq),
        };
        match state.to_json(pairing.pins.currency, &self.keys) {
            Ok(plaintext) => self.to_net(ToNet::PublishState { plaintext }),
            Err(error) => self.raise("state_not_published", error.to_string()),
        }
        Ok(())
    }

    /// A relay took it.
    pub(super) fn state_published(&mut self, event: EventId) -> Result<(), VaultError> {
        let Some(mut pairing) = self.pairing.clone().filter(|pairing| !pairing.state_published)
        else {
            return Ok(());
        };
        tracing::info!(event = "state_published", id = %event);
        pairing.state_published = true;
        self.keep(&pairing)?;
        self.pairing = Some(pairing);
        Ok(())
    }
}

/// Nonces in one report.
const NONCES: u32 = 32;
/// Transactions in one report at most.
const MOST: usize = 512;

/// What went from customers to a bay, as far as the count goes back.
fn recycled(held: &Holdings) -> Recycled {
    let mut notes: BTreeMap<BayId, rpc::Notes> = BTreeMap::new();
    for ((bay, value), count) in &held.recycled {
        let count = u32::try_from((*count).max(0)).unwrap_or(u32::MAX);
        notes.entry(*bay).or_default().insert(*value, count);
    }
    Recycled { since: held.recycled_since, notes }
}

fn open_txn(txn: &Txn) -> OpenTxn {
    let (direction, deal) = match txn {
        Txn::CashOut(sale) => (Direction::CashOut, sale.deal()),
        Txn::CashIn(session) => (Direction::CashIn, session.deal()),
    };
    let (fiat_minor, doubt) = match txn {
        Txn::CashOut(sale) => (sale.deal().fiat.minor, sale.in_doubt()),
        Txn::CashIn(session) => (session.total().minor, session.in_doubt()),
    };
    OpenTxn {
        txid: deal.txid,
        direction,
        state: txn.name().to_owned(),
        fiat_minor: Some(fiat_minor),
        since: deal.opened_at,
        doubt: doubt.map(|doubt| rpc::Doubt { evidence: short(&doubt.evidence), ..doubt }),
    }
}
