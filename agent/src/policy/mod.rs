//! The limits that the vault holds without asking anybody.
//!
//! Promise: pure: time is an argument, what must outlive the process is a value that the journal
//! keeps. No message from outside moves a limit; only an operator's verdict closes the breaker.
//!
//! Failure policy: where a limit forbids something, nothing is sold, and the reason is in words for
//! the screen and the report.
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

pub mod breaker;
pub mod intake;
pub mod pin;
pub mod price;
pub mod shop;
