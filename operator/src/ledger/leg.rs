//! What is booked when a part of a sale reaches whoever it belongs to.
//!
//! Promise: a leg that was paid takes from its owner's account what left the machine's wallet; what
//! routing cost on top is the machine's. One that an operator has paid by other means is theirs to
//! have back.

use bitspire_shared::ids::{PaymentHash, TxnId};
use bitspire_shared::money::Sats;

use super::account::Account;
use super::entry::{Entry, EntryKind, LedgerError, Lines};
use crate::ids::{LegId, LpId, MachineId, OperatorId};

/// Whose a leg's sats were, until they were paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Earner {
    /// The platform's.
    Super,
    /// An operator's.
    Operator(OperatorId),
    /// A liquidity provider's.
    Lp(LpId),
}

impl Earner {
    const fn account(self) -> Account {
        match self {
            Self::Super => Account::Super,
            Self::Operator(id) => Account::Operator(id),
            Self::Lp(id) => Account::Lp(id),
        }
    }
}

/// A leg was paid out of a machine's wallet by the payment `hash`, which cost `routing` on top.
///
/// # Errors
/// [`LedgerError`].
pub fn leg_paid(
    machine: MachineId,
    earner: Earner,
    hash: PaymentHash,
    txid: Option<TxnId>,
    amount: Sats,
    routing: Sats,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(earner.account(), amount)?;
    lines.debit(Account::RoutingFees(machine), routing)?;
    lines.credit(Account::Wallet(machine), amount.plus(routing)?)?;
    lines.book(EntryKind::LegPaid, hash.to_string(), txid)
}

/// `operator` has paid somebody else's leg by other means: its sats, in the machine's wallet, are now
/// the operator's. A share of the operator's own fee moves nothing.
///
/// # Errors
/// [`LedgerError`].
pub fn leg_by_hand(
    earner: Earner,
    operator: OperatorId,
    leg: LegId,
    txid: Option<TxnId>,
    amount: Sats,
) -> Result<Entry, LedgerError> {
    let mut lines = Lines::default();
    lines.debit(earner.account(), amount)?;
    lines.credit(Account::Operator(operator), amount)?;
    lines.book(EntryKind::LegByHand, leg.to_string(), txid)
}
