//! The whole system from outside: real processes on simulated devices, the simulated machine, and
//! the shape of the workspace itself. One program, so that tests which mostly wait do so beside
//! each other, and one link instead of eleven. The crash matrix keeps both cores busy by itself and
//! is a program of its own.

mod clear;
mod clink;
mod customer;
mod demo;
mod disk;
#[path = "../../../operator/tests/bunker/npm/installed.rs"]
mod installed;
mod life;
mod ndk;
mod power;
mod processes;
mod recycler;
mod relays;
mod seeds;
mod service_mode;
mod sim;
mod soak;
mod strangers;
mod structure;
mod units;
mod wallet_away;
