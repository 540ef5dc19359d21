//! The bitSpire protocol, used by the machine and by the operator service.
//!
//! Promise: pure. Nothing here reads a clock, a socket, a file or a source of randomness; time and
//! random bytes are arguments. Money is integers from the wire to the ledger.
//!
//! Failure policy: every refusal is an enum variant that says what was expected and what came; each
//! boundary error has a [`error::Kind`]. Nothing panics on input, whatever it is.
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

pub mod admit;
pub mod batch;
pub mod canonical;
pub mod cash;
pub mod clink;
pub mod document;
pub mod error;
pub mod exact;
pub mod ids;
pub mod money;
pub mod nip01;
pub mod nip44;
pub mod nip46;
mod points;
pub mod rate;
pub mod receipt;
pub mod rpc;
pub mod sealed;
pub mod seed;
pub mod settlement;
pub mod split;
pub mod statement;
#[cfg(test)]
mod test_keys;
pub mod time;
