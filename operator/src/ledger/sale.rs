//! What is booked when customers pay, are paid, give notes and get notes.
//!
//! Promise: one constructor for each event; the amounts come from a [`Split`] or its [`Parts`],
//! whose sums are checked, and the reference from what makes the event unique.

use std::collections::BTreeMap;

use bitspire_shared::cash::BayResults;
use bitspire_shared::ids::{BayId, JournalSeq, PaymentHash, TxnId, WithdrawId};
use bitspire_shared::money::{Currency, Denomination, Direction, Sats};
use bitspire_shared::rpc::{DispenseOutcome, Notes};
use bitspire_shared::split::{Parts, Split};

use super::account::{Account, Unit};
use super::entry::{Entry, EntryKind, LedgerError, Lines};
use crate::ids::{MachineId, OperatorId};

/// A paid cash_out: the wallet has the sats; principal, fees and surplus have their owners.
///
/// # Errors
/// [`LedgerError`].
pub fn settled(
    machine: MachineId,
    operator: OperatorId,
    hash: PaymentHash,
    txid: Option<TxnId>,
    split: &Split,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(Account::Wallet(machine), split.wire())?;
    credit_parts(&mut lines, machine, operator, split.parts())?;
    lines.book(EntryKind::Settled, hash.to_string(), txid)
}

fn credit_parts(
    lines: &mut Lines,
    machine: MachineId,
    operator: OperatorId,
    parts: Parts,
) -> Result<(), LedgerError> {
    lines.credit(Account::Exchange(machine), parts.principal)?;
    lines.credit(Account::Super, parts.platform_fee)?;
    lines.credit(Account::Operator(operator), parts.operator_fee)?;
    lines.credit(Account::Owed(machine), parts.owed)
}

/// A payment that buys nothing (late, too little, refused though paid): all of it is owed, no fee.
/// `reference` is the payment hash, for a second payment of it the wallet's own id.
///
/// # Errors
/// [`LedgerError`].
pub fn owed_whole(
    machine: MachineId,
    reference: &str,
    txid: TxnId,
    wire: Sats,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(Account::Wallet(machine), wire)?;
    lines.credit(Account::Owed(machine), wire)?;
    lines.book(EntryKind::OwedWhole, reference, Some(txid))
}

/// A payment that nobody can place, in the machine's wallet or (`stray`) in one of no machine.
///
/// # Errors
/// [`LedgerError`].
pub fn suspended(
    machine: MachineId,
    hash: PaymentHash,
    direction: Direction,
    wire: Sats,
    stray: bool,
) -> Result<Entry, LedgerError> {
    let wallet = if stray { Account::StrayWallet(machine) } else { Account::Wallet(machine) };
    let suspense = Account::Suspense(machine);
    let (to, from) = match direction {
        Direction::CashOut => (wallet, suspense),
        Direction::CashIn => (suspense, wallet),
    };
    let mut lines = Lines::default();
    lines.debit(to, wire)?;
    lines.credit(from, wire)?;
    lines.book(EntryKind::Suspended, hash.to_string(), None)
}

/// Whose a payment in suspense is, by verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuspenseTo {
    /// The customer's.
    Customer,
    /// The operator's.
    Operator(OperatorId),
}

/// A verdict about an inbound payment in suspense.
///
/// # Errors
/// [`LedgerError`].
pub fn suspense_resolved(
    machine: MachineId,
    hash: PaymentHash,
    wire: Sats,
    to: SuspenseTo,
) -> Result<Entry, LedgerError> {
    let owner = match to {
        SuspenseTo::Customer => Account::Owed(machine),
        SuspenseTo::Operator(operator) => Account::Operator(operator),
    };
    let mut lines = Lines::default();
    lines.debit(Account::Suspense(machine), wire)?;
    lines.credit(owner, wire)?;
    lines.book(EntryKind::SuspenseResolved, hash.to_string(), None)
}

/// Sats that had arrived in a wallet of no machine were moved to the machine's. `hash` is that of
/// the payment which moved them.
///
/// # Errors
/// [`LedgerError`].
pub fn stray_recovered(
    machine: MachineId,
    hash: PaymentHash,
    sats: Sats,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(Account::Wallet(machine), sats)?;
    lines.credit(Account::StrayWallet(machine), sats)?;
    lines.book(EntryKind::StrayRecovered, hash.to_string(), None)
}

/// A machine's report of the notes of a paid cash_out.
#[derive(Clone, Copy, Debug)]
pub struct DispenseBooking<'a> {
    /// The machine.
    pub machine: MachineId,
    /// Whose it is.
    pub operator: OperatorId,
    /// The transaction.
    pub txid: TxnId,
    /// The journal position of the report; a later report of the same transaction is another one.
    pub journal_seq: JournalSeq,
    /// The notes' currency.
    pub currency: Currency,
    /// How it ended.
    pub outcome: DispenseOutcome,
    /// Where the notes of each bay went, all of this transaction together.
    pub bays: &'a BayResults,
    /// What of it was booked by an earlier report, whose end nobody knew: it is taken back.
    pub earlier: &'a BayResults,
    /// What lies in each bay.
    pub notes: &'a BTreeMap<BayId, Denomination>,
    /// Where the sats went when it was paid.
    pub before: Parts,
    /// Where they belong now: see [`Split::dispensed`]. Equal to `before` for a full dispense, and
    /// for an uncertain one until the verdict.
    pub after: Parts,
}

/// The notes that left the bays, and the sats that are owed for those that did not come out:
/// delivered notes against the exchange, retracted and rejected ones into the reject bin, and with
/// them those that a final answer leaves in the path, which purging puts there; of an uncertain end,
/// those that left a bay for nobody knows where into suspense. `None` where nothing moved.
///
/// # Errors
/// [`LedgerError::UnknownBay`], [`LedgerError::Contradiction`]; amounts that do not sum.
pub fn dispensed(booking: &DispenseBooking<'_>) -> Result<Option<Entry>, LedgerError> {
    let DispenseBooking { machine, operator, txid, journal_seq, currency, before, after, .. } =
        *booking;
    let unit = Unit::Fiat(currency);
    let mut lines = Lines::default();
    for (bay, moved) in moved(booking.bays, booking.outcome, booking.notes)? {
        moved.carry(&mut lines, unit, (machine, bay), Account::Exchange(machine), false)?;
    }
    for (bay, moved) in moved(booking.earlier, DispenseOutcome::Uncertain, booking.notes)? {
        moved.carry(&mut lines, unit, (machine, bay), Account::Exchange(machine), true)?;
    }
    // what was credited at the payment is taken back and credited as it belongs now
    lines.debit(Account::Exchange(machine), before.principal)?;
    lines.debit(Account::Super, before.platform_fee)?;
    lines.debit(Account::Operator(operator), before.operator_fee)?;
    lines.debit(Account::Owed(machine), before.owed)?;
    credit_parts(&mut lines, machine, operator, after)?;
    let reference = format!("{machine}:{txid}:{}", journal_seq.0);
    match lines.book(EntryKind::Dispensed, reference, Some(txid)) {
        Err(LedgerError::Empty) => Ok(None),
        booked => booked.map(Some),
    }
}

/// Notes that left a bay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    note: Denomination,
    delivered: u32,
    binned: u32,
    lost: u32,
}

impl Moved {
    /// Out of the bay, or `back` into it; what was delivered is `taker`'s.
    pub(super) fn carry(
        &self,
        lines: &mut Lines,
        unit: Unit,
        (machine, bay): (MachineId, BayId),
        taker: Account,
        back: bool,
    ) -> Result<(), LedgerError> {
        let Self { note, delivered, binned, lost } = *self;
        let from = Account::Bay(machine, bay, note);
        for (count, to) in [
            (delivered, taker),
            (binned, Account::RejectBin(machine, note)),
            (lost, Account::Suspense(machine)),
        ] {
            let (from, to) = if back { (to, from) } else { (from, to) };
            lines.carry_notes(unit, (note, count), from, to)?;
        }
        Ok(())
    }
}

/// What each bay of a report comes to.
pub(super) fn moved(
    bays: &BayResults,
    outcome: DispenseOutcome,
    notes: &BTreeMap<BayId, Denomination>,
) -> Result<Vec<(BayId, Moved)>, LedgerError> {
    let mut all = Vec::new();
    for (bay, result) in bays {
        let bay = *bay;
        let rejected = result.rejected.unwrap_or(0);
        let seen = result.presented.saturating_add(rejected);
        let untouched = seen == 0 && result.requested == 0 && result.picked.unwrap_or(0) == 0;
        let note = match notes.get(&bay) {
            Some(note) => *note,
            None if untouched => continue,
            None => return Err(LedgerError::UnknownBay { bay }),
        };
        let left = match result.picked {
            Some(got) if got < seen => {
                return Err(LedgerError::Contradiction { bay, expected: seen, got });
            }
            Some(picked) => picked,
            None if outcome == DispenseOutcome::Uncertain => result.requested.max(seen),
            None => seen,
        };
        let delivered = result.delivered();
        let binned = seen.saturating_sub(delivered);
        let stray = left.saturating_sub(seen);
        let (binned, lost) = match outcome {
            DispenseOutcome::Uncertain => (binned, stray),
            _ => (binned.saturating_add(stray), 0),
        };
        all.push((bay, Moved { note, delivered, binned, lost }));
    }
    Ok(all)
}

/// Where notes in doubt turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Doubt {
    /// The machine.
    pub machine: MachineId,
    /// The transaction.
    pub txid: TxnId,
    /// The journal position that the verdict was about.
    pub journal_seq: JournalSeq,
    /// The notes' currency.
    pub currency: Currency,
    /// Value in doubt, in minor units.
    pub in_doubt: i64,
    /// What of it the customer has, in minor units; the rest is missing until it is found.
    pub delivered: i64,
}

/// A verdict about notes in doubt: delivered ones against the exchange, the others are a cash
/// difference until a count finds them.
///
/// # Errors
/// [`LedgerError::TooMuch`] for more delivered than was in doubt.
pub fn doubt_resolved(doubt: &Doubt) -> Result<Entry, LedgerError> {
    let Doubt { machine, txid, journal_seq, currency, in_doubt, delivered } = *doubt;
    let missing = in_doubt.checked_sub(delivered).filter(|rest| *rest >= 0 && delivered >= 0);
    let missing = missing.ok_or(LedgerError::TooMuch { expected: in_doubt, got: delivered })?;
    let (unit, from) = (Unit::Fiat(currency), Account::Suspense(machine));
    let mut lines = Lines::default();
    lines.carry(unit, delivered, from, Account::Exchange(machine))?;
    lines.carry(unit, missing, from, Account::CashDifference(machine))?;
    let reference = format!("{machine}:{txid}:{}", journal_seq.0);
    lines.book(EntryKind::DoubtResolved, reference, Some(txid))
}

/// A cash_in whose notes are stacked.
#[derive(Clone, Copy, Debug)]
pub struct StackBooking<'a> {
    /// The machine.
    pub machine: MachineId,
    /// Whose it is.
    pub operator: OperatorId,
    /// The transaction.
    pub txid: TxnId,
    /// The withdraw that promises the sats.
    pub withdraw: WithdrawId,
    /// The notes' currency.
    pub currency: Currency,
    /// Every stacked note, of all locks together.
    pub notes: &'a Notes,
    /// What is promised to the customer.
    pub net: Sats,
    /// Principal and fees; nothing is owed.
    pub parts: Parts,
}

/// Notes in the cashbox, and the sats promised for them.
///
/// # Errors
/// [`LedgerError::Unbalanced`] where `net` is not principal less fees.
pub fn stacked(booking: &StackBooking<'_>) -> Result<Entry, LedgerError> {
    let StackBooking { machine, operator, txid, withdraw, currency, notes, net, parts } = *booking;
    let (unit, exchange) = (Unit::Fiat(currency), Account::Exchange(machine));
    let mut lines = Lines::default();
    for (note, count) in notes {
        let cashbox = Account::Cashbox(machine, *note);
        lines.carry_notes(unit, (*note, *count), exchange, cashbox)?;
    }
    lines.debit(exchange, parts.principal)?;
    lines.credit(Account::CustomerLiability(machine), net)?;
    lines.credit(Account::Super, parts.platform_fee)?;
    lines.credit(Account::Operator(operator), parts.operator_fee)?;
    lines.credit(Account::Owed(machine), parts.owed)?;
    lines.book(EntryKind::Stacked, withdraw.to_string(), Some(txid))
}

/// A withdraw that ended without a payment: its sats stay owed, through the claim.
///
/// # Errors
/// [`LedgerError`].
pub fn liability_to_owed(
    machine: MachineId,
    withdraw: WithdrawId,
    txid: TxnId,
    net: Sats,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(Account::CustomerLiability(machine), net)?;
    lines.credit(Account::Owed(machine), net)?;
    lines.book(EntryKind::LiabilityToOwed, withdraw.to_string(), Some(txid))
}

/// Which debt a payment to a customer settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Customer {
    /// The sats promised for a cash_in.
    Withdraw,
    /// What was owed.
    Claim,
}

/// A customer was paid `wire` by the payment `hash`, which cost `routing` on top.
///
/// # Errors
/// [`LedgerError`].
pub fn paid_out(
    machine: MachineId,
    customer: Customer,
    hash: PaymentHash,
    txid: TxnId,
    wire: Sats,
    routing: Sats,
) -> Result<Entry, LedgerError> {
    let (kind, debt) = match customer {
        Customer::Withdraw => (EntryKind::WithdrawPaid, Account::CustomerLiability(machine)),
        Customer::Claim => (EntryKind::ClaimPaid, Account::Owed(machine)),
    };
    let mut lines = Lines::default();
    lines.debit(debt, wire)?;
    lines.debit(Account::RoutingFees(machine), routing)?;
    lines.credit(Account::Wallet(machine), wire.plus(routing)?)?;
    lines.book(kind, hash.to_string(), Some(txid))
}

/// The operator put sats into a machine's wallet (`sats` above 0) or took some out (below).
///
/// # Errors
/// [`LedgerError`].
pub fn wallet_moved(
    machine: MachineId,
    operator: OperatorId,
    hash: PaymentHash,
    sats: i64,
) -> Result<Entry, LedgerError> {
    let magnitude = Sats(sats.unsigned_abs());
    let (wallet, own) = (Account::Wallet(machine), Account::Operator(operator));
    let (to, from) = if sats < 0 { (own, wallet) } else { (wallet, own) };
    let mut lines = Lines::default();
    lines.debit(to, magnitude)?;
    lines.credit(from, magnitude)?;
    lines.book(EntryKind::WalletMoved, hash.to_string(), None)
}
