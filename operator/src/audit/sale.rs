//! What follows from one settlement: its entries, its debts, where its sats belong.
//!
//! Promise: everything is made anew from the payment, the quote and the machine's reports, by the
//! same rules as when it was recorded; nothing is taken from what was booked but which notes lay in
//! the bays at that time.

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::BayId;
use bitspire_shared::money::{Denomination, Direction, Fiat, Sats};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::{Parts, Split, Terms};

use crate::ids::OperatorId;
use crate::ledger::{
    Account, DispenseBooking, Entry, LedgerError, Posting, dispensed, owed_whole, settled,
    suspended,
};
use crate::store::claims::OwedReason;
use crate::store::quotes::Quote;
use crate::store::settlements::{Report, Settlement, SettlementStatus};
use crate::store::withdraws::Withdraw;

/// A settlement with what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sale<'a> {
    /// The settlement.
    pub(super) settlement: &'a Settlement,
    /// Whose machine it is about.
    pub(super) operator: OperatorId,
    /// Whether its wallet is no machine's.
    pub(super) stray: bool,
    /// Its quote.
    pub(super) quote: Option<&'a Quote>,
    /// cash_in: the promise that it paid.
    pub(super) withdraw: Option<&'a Withdraw>,
    /// The machine's reports of it, as they came.
    pub(super) reports: &'a [Report],
    /// What was booked of each report, by its reference.
    pub(super) booked: &'a BTreeMap<String, Entry>,
    /// Whether a verdict says that the customer has everything.
    pub(super) decided: bool,
    /// What lies in the bays now.
    pub(super) bays: &'a BTreeMap<BayId, Denomination>,
}

/// A debt to a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Debt {
    pub(super) reason: OwedReason,
    pub(super) source: String,
    pub(super) sats: Sats,
}

/// What follows from a settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Follows {
    /// The ledger's entries.
    pub(super) entries: Vec<Entry>,
    /// What is owed.
    pub(super) debts: Vec<Debt>,
    /// Where the sats belong; `None` where it was refused.
    pub(super) parts: Option<Parts>,
    /// What the reports that count say of the bays, so far.
    pub(super) bays: BayResults,
    /// How the dispense ended.
    pub(super) outcome: Option<DispenseOutcome>,
    /// Reports of which nothing follows, each with why.
    pub(super) doubts: Vec<(String, String)>,
}

/// The reference of a report's entry and debt.
pub(super) fn reference(report: &Report) -> String {
    format!("{}:{}:{}", report.machine_id, report.txid, report.journal_seq.0)
}

/// What follows from `sale`; in words, why nothing can.
pub(super) fn follows(sale: &Sale<'_>) -> Result<Follows, String> {
    let s = sale.settlement;
    let hash = s.payment_hash.to_string();
    let words = |error: LedgerError| error.to_string();
    let owed = |reason| match s.wire_sats {
        Sats::ZERO => Vec::new(),
        sats => vec![Debt { reason, source: hash.clone(), sats }],
    };
    let whole = |reason| {
        let txid = s.txid.ok_or("its transaction is not known")?;
        let entry = match s.wire_sats {
            Sats::ZERO => None,
            wire => Some(owed_whole(s.machine_id, &hash, txid, wire).map_err(words)?),
        };
        let parts = Parts { owed: s.wire_sats, ..NOTHING };
        let entries = entry.into_iter().collect();
        Ok(Follows { entries, debts: owed(reason), parts: Some(parts), ..Follows::default() })
    };
    match (s.status, s.direction) {
        (SettlementStatus::Accepted, Direction::CashOut) => accepted(sale),
        // the payment is booked by whoever made it
        (SettlementStatus::Accepted, Direction::CashIn) => {
            let withdraw = sale.withdraw.ok_or("the withdraw that it paid is gone")?;
            Ok(Follows { parts: promised(withdraw), ..Follows::default() })
        }
        (SettlementStatus::Late, _) => whole(OwedReason::Late),
        (SettlementStatus::Under, _) => whole(OwedReason::Under),
        (SettlementStatus::Rejected, Direction::CashIn) if s.txid.is_some() => {
            Ok(Follows::default())
        }
        (SettlementStatus::Rejected, Direction::CashOut) if s.txid.is_some() && !sale.stray => {
            Ok(Follows { parts: None, ..whole(OwedReason::Rejected)? })
        }
        (SettlementStatus::Rejected | SettlementStatus::Misrouted, direction) => {
            let stray = sale.stray || s.status == SettlementStatus::Misrouted;
            let entry = match s.wire_sats {
                Sats::ZERO => None,
                wire => {
                    let (machine, hash) = (s.machine_id, s.payment_hash);
                    Some(suspended(machine, hash, direction, wire, stray).map_err(words)?)
                }
            };
            Ok(Follows { entries: entry.into_iter().collect(), ..Follows::default() })
        }
    }
}

/// Where the sats of a cash_in belong, as promised.
fn promised(withdraw: &Withdraw) -> Option<Parts> {
    Some(Parts {
        principal: withdraw.principal_sats?,
        platform_fee: withdraw.platform_fee_sats?,
        operator_fee: withdraw.operator_fee_sats?,
        owed: Sats::ZERO,
    })
}

const NOTHING: Parts = Parts {
    principal: Sats::ZERO,
    platform_fee: Sats::ZERO,
    operator_fee: Sats::ZERO,
    owed: Sats::ZERO,
};

fn accepted(sale: &Sale<'_>) -> Result<Follows, String> {
    let s = sale.settlement;
    let quote = sale.quote.ok_or("its quote is gone")?;
    let surplus = s.wire_sats.minus(quote.wire_sats).map_err(|e| e.to_string())?;
    let split = Split::new(Terms {
        direction: Direction::CashOut,
        wire: s.wire_sats,
        principal: quote.principal_sats,
        fee: quote.fee_sats,
        owed: surplus,
        platform: quote.platform_fee_ppm,
    });
    let split = split.map_err(|e| e.to_string())?;
    let txid = Some(quote.txid);
    let entry = settled(s.machine_id, sale.operator, s.payment_hash, txid, &split);
    let mut follows = Follows {
        entries: vec![entry.map_err(|e| e.to_string())?],
        parts: Some(split.parts()),
        ..Follows::default()
    };
    if surplus > Sats::ZERO {
        let (reason, source) = (OwedReason::Surplus, s.payment_hash.to_string());
        follows.debts.push(Debt { reason, source, sats: surplus });
    }
    for report in sale.reports {
        if let Err(why) = reported(sale, quote, &split, report, &mut follows) {
            follows.doubts.push((reference(report), why));
        }
    }
    Ok(follows)
}

/// Adds what follows from one report; in words, why nothing does.
fn reported(
    sale: &Sale<'_>,
    quote: &Quote,
    split: &Split,
    report: &Report,
    follows: &mut Follows,
) -> Result<(), String> {
    match follows.outcome {
        None | Some(DispenseOutcome::Uncertain) => {}
        Some(_) => return Err("the end of this sale was reported before".into()),
    }
    if report.payment_hash != sale.settlement.payment_hash {
        return Err("it names another payment".into());
    }
    let before = follows.parts.unwrap_or(split.parts());
    let reference = reference(report);
    let notes = notes(sale, &reference);
    let promised = Fiat::new(quote.fiat_minor, quote.fiat_code);
    let after = match report.outcome {
        DispenseOutcome::Uncertain => before,
        _ => {
            let (out, owed) = (delivered(report, &notes)?, report.owed_minor);
            // by a verdict the customer may have more than the notes of which the machine knows
            let decided = sale.decided || follows.outcome.is_some();
            let fits = out.checked_add(owed).is_some_and(|sum| match decided {
                true => sum <= promised.minor,
                false => sum == promised.minor,
            });
            if !fits {
                return Err(format!("{out} out and {owed} owed of {}", promised.minor));
            }
            let owed = Fiat { minor: report.owed_minor, ..promised };
            split.dispensed(promised, owed).map_err(|e| e.to_string())?.parts()
        }
    };
    let booking = DispenseBooking {
        machine: sale.settlement.machine_id,
        operator: sale.operator,
        txid: report.txid,
        journal_seq: report.journal_seq,
        currency: quote.fiat_code,
        outcome: report.outcome,
        bays: &report.bays.0,
        earlier: &follows.bays,
        notes: &notes,
        before,
        after,
    };
    follows.entries.extend(dispensed(&booking).map_err(|e| e.to_string())?);
    let debt = after.owed.minus(before.owed).map_err(|e| e.to_string())?;
    if debt > Sats::ZERO {
        let reason = OwedReason::Undispensed;
        follows.debts.push(Debt { reason, source: reference, sats: debt });
    }
    follows.bays = report.bays.0.clone();
    follows.parts = Some(after);
    follows.outcome = Some(report.outcome);
    Ok(())
}

/// What lay in each bay: as it was booked, else as it is now.
fn notes(sale: &Sale<'_>, reference: &str) -> BTreeMap<BayId, Denomination> {
    let mut notes = sale.bays.clone();
    let booked = sale.booked.get(reference).map_or(&[][..], Entry::postings);
    for Posting { account, .. } in booked {
        if let Account::Bay(_, bay, note) = account {
            notes.insert(*bay, *note);
        }
    }
    notes
}

fn delivered(report: &Report, notes: &BTreeMap<BayId, Denomination>) -> Result<i64, String> {
    report.bays.0.iter().try_fold(0i64, |sum, (bay, result)| {
        let value = match (notes.get(bay), result.delivered()) {
            (_, 0) => Some(0),
            (Some(note), count) => note.times(count).ok(),
            (None, _) => None,
        };
        let sum = value.and_then(|value| sum.checked_add(value));
        sum.ok_or_else(|| format!("the notes of bay {bay} have no known value"))
    })
}
