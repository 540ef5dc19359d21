//! The whole of bitSpire as one world: structure, crash and end-to-end tests.
//!
//! Promise: every part runs as a process of its own, from the program `bitspire-world`, so that a
//! test can end any of them with SIGKILL at any moment and start it again on the same files.
//!
//! Failure policy: whatever does not happen in time is an error that names the process and shows
//! the last lines of its log.

pub mod books;
pub mod customer;
pub mod demo;
pub mod figures;
pub mod http;
pub mod keys;
pub mod nsecbunkerd;
pub mod power;
pub mod process;
pub mod relay;
pub mod report;
pub mod sale;
pub mod screen;
pub mod secrets;
pub mod shop;
pub mod shopper;
pub mod sim;
pub mod soak;
pub mod spare;
pub mod wait;
pub mod wallet;
pub mod world;
