//! What runs on a bitSpire machine, in two processes.
//!
//! `vault` owns the serial ports, the journal, policy and the transaction machines, and has no
//! network; `net` owns relay, bunker, session and kiosk, and has no serial port.

/// Gives each variant of an enum its name, and all names in one list: one that is added is in it.
macro_rules! named {
    ($type:ident { $($variant:ident => $name:literal),* $(,)? }) => {
        impl $type {
            /// The names of all.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Its name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name),*
                }
            }
        }
    };
}

pub mod at_rest;
pub mod cli;
pub mod config;
pub mod evidence;
pub mod faults;
pub mod ipc;
pub mod journal;
pub mod kiosk;
pub mod last_word;
pub mod net;
pub mod policy;
pub mod refused;
pub mod replay;
pub mod screen;
pub mod service;
pub mod supervise;
pub mod txn;
pub mod vault;
