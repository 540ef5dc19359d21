//! What a revoke does to the sales of its machine.
//!
//! Promise: to be called in the transaction of the revoke. Each paid, unreported cash_out is held
//! with its claim open to the customer; each unpaid invoice is cancelled, so that it is late
//! whenever it is paid. Offered withdraws stay payable: they are the customers'.

use bitspire_shared::time::Unix;

use crate::ids::MachineId;
use crate::store::invoices::{self, InvoiceState};
use crate::store::{StoreError, Tx, claims, quotes, settlements};

/// Holds the open sales of a machine that is being revoked; how many paid ones.
///
/// # Errors
/// [`StoreError`].
pub fn hold_open_sales(tx: &Tx<'_>, machine: MachineId, now: Unix) -> Result<usize, StoreError> {
    for (hash, _) in invoices::open(tx, machine, u32::MAX)? {
        invoices::set_state(tx, hash, InvoiceState::Cancelled)?;
    }
    let held = settlements::held_unreported(tx, machine)?;
    let count = held.len();
    for settlement in held {
        settlements::hold(tx, settlement.id, "revoked")?;
        if let Some(id) = settlement.quote_id
            && let Some(quote) = quotes::find(tx, id)?
        {
            claims::open(tx, quote.claim_hash, machine, quote.txid, now)?;
        }
    }
    Ok(count)
}
