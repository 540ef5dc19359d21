//! What is booked of liquidity providers: their fiat, and the sats that it becomes.
//!
//! Promise: what a provider has in fiat goes down by what their sats of a sale cost in the very entry
//! that makes the sats theirs, against the sale's principal; where no leg carries these sats in the
//! end, all of it is taken back.

use bitspire_shared::ids::TxnId;
use bitspire_shared::money::{Currency, Fiat, Sats};

use super::account::{Account, Unit};
use super::entry::{Entry, EntryKind, LedgerError, Lines};
use crate::ids::{DepositId, LegId, LpId, MachineId, SettlementId};

/// A provider's fiat came to the operator.
///
/// # Errors
/// [`LedgerError`].
pub fn deposited(lp: LpId, id: DepositId, fiat: Fiat) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.carry(Unit::Fiat(fiat.currency), fiat.minor, Account::Lp(lp), Account::Deposits(lp))?;
    lines.book(EntryKind::LpDeposit, id.to_string(), None)
}

/// A provider was given fiat back.
///
/// # Errors
/// [`LedgerError`].
pub fn returned(lp: LpId, id: DepositId, fiat: Fiat) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.carry(Unit::Fiat(fiat.currency), fiat.minor, Account::Deposits(lp), Account::Lp(lp))?;
    lines.book(EntryKind::LpReturn, id.to_string(), None)
}

/// A part of a sale's principal, for a provider's fiat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LpBooking {
    /// Whose.
    pub lp: LpId,
    /// The machine that sold.
    pub machine: MachineId,
    /// The sale.
    pub settlement: SettlementId,
    /// Its transaction.
    pub txid: Option<TxnId>,
    /// The sats.
    pub sats: Sats,
    /// What they cost, in minor units.
    pub minor: i64,
    /// Of this currency.
    pub currency: Currency,
}

/// The reference of the entry by which a part of a sale becomes a provider's.
#[must_use]
pub fn share_reference(settlement: SettlementId, lp: LpId) -> String {
    format!("{settlement}:{lp}")
}

/// A part of the principal becomes the provider's, and what it costs of their fiat the machine's.
///
/// # Errors
/// [`LedgerError`].
pub fn shared(booking: &LpBooking) -> Result<Entry, LedgerError> {
    let LpBooking { lp, machine, settlement, txid, sats, minor, currency } = *booking;
    let (own, exchange) = (Account::Lp(lp), Account::Exchange(machine));
    let mut lines = Lines::default();
    lines.debit(exchange, sats)?;
    lines.credit(own, sats)?;
    lines.carry(Unit::Fiat(currency), minor, exchange, own)?;
    lines.book(EntryKind::LpShare, share_reference(settlement, lp), txid)
}

/// That is taken back, since `leg` was ended without being paid.
///
/// # Errors
/// [`LedgerError`].
pub fn unshared(booking: &LpBooking, leg: LegId) -> Result<Entry, LedgerError> {
    let LpBooking { lp, machine, settlement: _, txid, sats, minor, currency } = *booking;
    let (own, exchange) = (Account::Lp(lp), Account::Exchange(machine));
    let mut lines = Lines::default();
    lines.debit(own, sats)?;
    lines.credit(exchange, sats)?;
    lines.carry(Unit::Fiat(currency), minor, own, exchange)?;
    lines.book(EntryKind::LpShareVoid, leg.to_string(), txid)
}
