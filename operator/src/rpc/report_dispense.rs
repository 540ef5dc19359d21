//! `report_dispense`: where the notes of one paid cash_out went.
//!
//! Promise: what the vault signed is kept as evidence whatever it says, also for a machine that was
//! revoked. A report that agrees with the sale books notes and debt once, and lets the sats be
//! distributed. Anything else books nothing and holds the settlement for a person: a report of a
//! sale that was never paid, one that contradicts itself, a second and different end, and any report
//! of a machine that an alarm has stopped: of two journals nobody knows yet which one is true.
//!
//! An uncertain end books the notes that may have left the bays into suspense, and leaves the sats
//! where they are, held. A later report of the sale, after a verdict or the device's own word, takes
//! that back and books what it says itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitspire_shared::canonical::Sig;
use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Denomination, Direction, Fiat, Sats};
use bitspire_shared::rpc::{Ack, DispenseOutcome, DispenseReport, ErrorCode, Reply, VaultSigned};
use bitspire_shared::split::{Parts, Split, Terms};

use serde_json::json;

use super::Rpc;
use super::desk::{Call, not_by_vault, vault};
use super::failure::{Failure, refusal};
use super::roster::Route;
use crate::ids::{MachineId, SettlementId};
use crate::ledger::{DispenseBooking, EntryKind, LedgerError, dispensed};
use crate::settle::AWAITS_REPORT;
use crate::store::claims::{NewOwed, OwedReason};
use crate::store::machines::DisabledBy;
use crate::store::quotes::{self, Quote};
use crate::store::settlements::{self, Consequences, Distribution, Reported, SettlementStatus};
use crate::store::{Json, Kept, StoreError, Tx, cassettes, ledger, log, verdicts};

/// Why a settlement is held whose notes are in doubt.
const UNCERTAIN: &str = "uncertain";

type Signed = VaultSigned<DispenseReport>;
type Settlement = Kept<SettlementId, settlements::Settlement>;

pub(super) async fn answer(rpc: &Arc<Rpc>, call: Call, body: Signed) -> Result<Reply, Failure> {
    let desk = rpc.desk.clone();
    rpc.app
        .store
        .write(move |tx| {
            let vault = vault(&desk.route(tx, &call)?)?;
            let report = body.check(&vault).map_err(|e| not_by_vault(&e))?;
            desk.once::<Signed>(tx, &call, Some(report.txid), |route| {
                take(tx, &call, route, report, body.sig()).map(|()| Ack {})
            })
        })
        .await
}

/// What a report means for its settlement.
enum Meaning {
    /// The sats belong so now, and these are the books' lines.
    Booked(Parts, Consequences),
    /// A person decides.
    Doubtful(String),
}

fn take(
    tx: &Tx<'_>,
    call: &Call,
    route: &Route,
    report: &DispenseReport,
    vault_sig: Sig,
) -> Result<(), Failure> {
    let machine = &route.machine;
    let row = settlements::Report {
        machine_id: machine.id,
        txid: report.txid,
        payment_hash: report.payment_hash,
        outcome: report.outcome,
        bays: Json(report.bays.clone()),
        owed_minor: report.owed_minor,
        journal_seq: report.journal_seq,
        journal_head: report.journal_head,
        vault_sig,
        received_at: call.now,
    };
    let settlement = settlements::by_hash(tx, report.payment_hash)?.filter(|settlement| {
        settlement.machine_id == machine.id && settlement.txid == Some(report.txid)
    });
    let meaning = match &settlement {
        None => Meaning::Doubtful("no payment of this transaction is on record".into()),
        // also where it was revoked since: a person enables it, or closes the sale
        Some(_) if machine.disabled_by == Some(DisabledBy::Alarm) => {
            Meaning::Doubtful("an alarm has stopped the machine: a person looks first".into())
        }
        Some(settlement) => read(tx, route, settlement, report)?,
    };
    let subject = format!("machine:{}", machine.id);
    let (about, with) = match (&settlement, &meaning) {
        (Some(settlement), Meaning::Booked(parts, with)) => {
            let id = settlement.id;
            (Some(Reported { settlement: id, parts: *parts }), with.clone())
        }
        _ => (None, Consequences::default()),
    };
    let new = match settlements::record_report(tx, &row, about, &with) {
        Ok(new) => new,
        Err(StoreError::Conflict { .. }) => {
            let reason = "another report was made at this position of the journal";
            return Err(refusal(ErrorCode::Conflict, reason).into());
        }
        Err(error) => return Err(error.into()),
    };
    if !new {
        return Ok(());
    }
    if let Meaning::Doubtful(why) = &meaning {
        let detail = json!({
            "txid": report.txid, "payment_hash": report.payment_hash,
            "outcome": report.outcome, "owed_minor": report.owed_minor, "why": why,
        });
        log::by_service(tx, "report.doubtful", &subject, detail, call.now)?;
        tracing::error!(event = "report_doubtful", machine = %machine.id, txn = %report.txid, why);
    }
    let Some(settlement) = settlement else { return Ok(()) };
    distribute(tx, &settlement, report, &meaning)
}

/// Lets the sats go where the report leaves no question; holds them where it does.
fn distribute(
    tx: &Tx<'_>,
    settlement: &Settlement,
    report: &DispenseReport,
    meaning: &Meaning,
) -> Result<(), Failure> {
    let open = matches!(settlement.distribution, Distribution::Held | Distribution::Pending);
    let waits = matches!(settlement.hold_reason.as_deref(), Some(AWAITS_REPORT | UNCERTAIN));
    let uncertain = report.outcome == DispenseOutcome::Uncertain;
    match meaning {
        Meaning::Doubtful(_) if open => {
            settlements::hold(tx, settlement.id, "doubtful_report")?;
        }
        // what it is held for besides, it stays held for
        Meaning::Booked(..) if uncertain && waits => {
            settlements::hold(tx, settlement.id, UNCERTAIN)?;
        }
        Meaning::Booked(..) if uncertain => {}
        Meaning::Booked(..) if waits => settlements::release(tx, settlement.id)?,
        _ => {}
    }
    Ok(())
}

fn read(
    tx: &Tx<'_>,
    route: &Route,
    settlement: &Settlement,
    report: &DispenseReport,
) -> Result<Meaning, Failure> {
    let doubtful = |why: &str| Ok(Meaning::Doubtful(why.to_owned()));
    let quote = match settlement.quote_id {
        Some(id) => quotes::find(tx, id)?,
        None => None,
    };
    let (Some(quote), Some(before)) = (quote, settlement.parts()) else {
        return doubtful("the payment of this transaction was refused");
    };
    if settlement.status != SettlementStatus::Accepted {
        return doubtful("the payment of this transaction bought nothing");
    }
    if !matches!(settlement.distribution, Distribution::Held | Distribution::Pending) {
        return doubtful("the sats were distributed before this report came");
    }
    match settlement.dispense_outcome {
        None | Some(DispenseOutcome::Uncertain) => {}
        Some(_) => return doubtful("the end of this transaction was reported before"),
    }
    let promised = Fiat::new(quote.fiat_minor, quote.fiat_code);
    let notes = denominations(tx, route.machine.id)?;
    let after = match report.outcome {
        DispenseOutcome::Uncertain => before,
        _ => {
            let owed = Fiat { minor: report.owed_minor, ..promised };
            let delivered = report.bays.iter().try_fold(0i64, |sum, (bay, result)| {
                let value = match (notes.get(bay), result.delivered()) {
                    (_, 0) => 0,
                    (Some(note), count) => note.times(count).ok()?,
                    (None, _) => return None,
                };
                sum.checked_add(value)
            });
            let accounted = delivered.and_then(|value| value.checked_add(report.owed_minor));
            // by a verdict the customer may have more than the notes of which the machine knows
            let decided = settlement.dispense_outcome.is_some()
                || verdicts::settles(tx, route.machine.id, report.txid)?;
            let fits = accounted.is_some_and(|sum| match decided {
                true => sum <= promised.minor,
                false => sum == promised.minor,
            });
            if !fits {
                return doubtful("the notes of the report and what it says is owed do not sum up");
            }
            match split(settlement, &quote)?.dispensed(promised, owed) {
                Ok(done) => done.parts(),
                Err(error) => return doubtful(&error.to_string()),
            }
        }
    };
    let earlier = earlier(tx, report, route.machine.id)?;
    let booking = DispenseBooking {
        machine: route.machine.id,
        operator: route.machine.operator_id,
        txid: report.txid,
        journal_seq: report.journal_seq,
        currency: quote.fiat_code,
        outcome: report.outcome,
        bays: &report.bays,
        earlier: &earlier,
        notes: &notes,
        before,
        after,
    };
    let entry = match dispensed(&booking) {
        Ok(entry) => entry,
        Err(error @ (LedgerError::UnknownBay { .. } | LedgerError::Contradiction { .. })) => {
            return doubtful(&error.to_string());
        }
        Err(error) => return Err(error.into()),
    };
    let debt = after.owed.minus(before.owed)?;
    let owed = (debt > Sats::ZERO).then(|| NewOwed {
        claim_hash: quote.claim_hash,
        machine_id: route.machine.id,
        txid: report.txid,
        reason: OwedReason::Undispensed,
        source: format!("{}:{}:{}", route.machine.id, report.txid, report.journal_seq.0),
        sats: debt,
    });
    let (entries, owed) = (entry.into_iter().collect(), owed.into_iter().collect());
    Ok(Meaning::Booked(after, Consequences { entries, owed, pushes: Vec::new() }))
}

/// What an earlier report of the sale, whose end nobody knew, has booked.
fn earlier(
    tx: &Tx<'_>,
    report: &DispenseReport,
    machine: MachineId,
) -> Result<BayResults, Failure> {
    let mut earlier = settlements::reports(tx, machine, report.txid)?;
    earlier.retain(|earlier| earlier.outcome == DispenseOutcome::Uncertain);
    while let Some(last) = earlier.pop() {
        let reference = format!("{machine}:{}:{}", report.txid, last.journal_seq.0);
        if ledger::find(tx, EntryKind::Dispensed, &reference)?.is_some() {
            return Ok(last.bays.0);
        }
    }
    Ok(BayResults::new())
}

/// What lies in each bay: as the operator entered it, else as the machine said itself.
fn denominations(
    tx: &Tx<'_>,
    machine: MachineId,
) -> Result<BTreeMap<BayId, Denomination>, Failure> {
    let said = cassettes::heartbeat(tx, machine)?;
    let said = said.and_then(|said| said.report()).map(|said| said.cassettes).unwrap_or_default();
    let mut notes: BTreeMap<_, _> =
        said.into_iter().map(|(bay, count)| (bay, count.denomination_minor)).collect();
    let entered = cassettes::list(tx, machine)?;
    notes.extend(entered.into_iter().map(|cassette| (cassette.bay, cassette.denomination)));
    Ok(notes)
}

/// The split of the payment as it was accepted.
fn split(settlement: &Settlement, quote: &Quote) -> Result<Split, Failure> {
    Ok(Split::new(Terms {
        direction: Direction::CashOut,
        wire: settlement.wire_sats,
        principal: quote.principal_sats,
        fee: quote.fee_sats,
        owed: settlement.wire_sats.minus(quote.wire_sats)?,
        platform: quote.platform_fee_ppm,
    })?)
}
