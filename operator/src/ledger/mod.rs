//! Double entry, append-only, in sats and, separately, in fiat minor units.
//!
//! Promise: an [`Entry`] sums to zero in each of its units; there is no other way to make one.
//! Balances are sums of postings; where such a sum is kept, the database adds each posting as it is
//! written, and the audit derives it again. A correction is a new entry that names what it corrects.
//! The database holds the zero sum by itself as well.
//!
//! Amounts are signed. A positive one is a debit: more sats or notes held, or a debt that shrank. A
//! negative one is a credit: held less, or owed more. Where sats meet notes, each unit balances
//! against [`Account::Exchange`] of the machine, because no sum crosses units.
//!
//! Failure policy: amounts that do not sum, or an account in a unit that it does not have, are a
//! [`LedgerError`]; nothing is adjusted to fit.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

mod account;
mod audit;
mod cash;
mod entry;
mod leg;
mod lp;
mod sale;
mod service;

pub use account::{Account, AccountError, Unit};
pub use audit::{Balances, Checker, Closings, Finding, check};
pub use cash::{
    Counted, Emptied, RecycledCount, bay_counted, emptied, recycled, refilled, transit_counted,
};
pub use entry::{Entry, EntryKind, LedgerError, Posting};
pub use leg::{Earner, leg_by_hand, leg_paid};
pub use lp::{LpBooking, deposited, returned, share_reference, shared, unshared};
pub use sale::{
    Customer, DispenseBooking, Doubt, StackBooking, SuspenseTo, dispensed, doubt_resolved,
    liability_to_owed, owed_whole, paid_out, settled, stacked, stray_recovered, suspended,
    suspense_resolved, wallet_moved,
};
pub use service::{ServiceBooking, served, service_reference};

#[cfg(test)]
mod tests;
