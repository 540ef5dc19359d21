//! What runs on a bitSpire machine, in two processes.
//!
//! `vault` owns the serial ports, the journal, policy and the transaction machines, and has no
//! network; `net` owns relay, bunker, session and kiosk, and has no serial port.

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
pub mod replay;
pub mod screen;
pub mod service;
pub mod supervise;
pub mod txn;
pub mod vault;
