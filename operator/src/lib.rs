//! The operator's daemon: pairs machines, publishes fees and cassettes, answers their RPC, settles
//! and distributes payments, keeps the ledger.

pub mod app;
pub mod audit;
pub mod bunker;
pub mod cli;
pub mod clink;
pub mod config;
pub(crate) mod deny;
pub mod distribute;
pub mod fleet;
pub mod http;
pub mod ids;
pub mod ledger;
pub mod lnurl;
pub mod lps;
pub mod outgoing;
pub mod payout;
pub mod publish;
pub mod rates;
pub mod relay;
pub mod relays;
pub mod rpc;
pub mod serve;
pub mod settle;
pub mod signer;
pub mod store;
#[cfg(test)]
mod testing;
pub mod wallet;
pub mod webhook;

/// Millions of short-lived rows and messages on a few threads: see docs/adr/0014.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
