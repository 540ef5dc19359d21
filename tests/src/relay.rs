//! Somebody else's relay as a process: stores documents in memory, wants NIP-42, and forgets
//! everything when it ends.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{RelayBuilder, RelayBuilderNip42, RelayBuilderNip42Mode};

#[derive(Debug, Parser)]
struct Relay {
    /// On loopback
    #[arg(long)]
    port: u16,
}

/// Runs until it is killed.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match run(&Relay::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(relay: &Relay) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
        let builder = RelayBuilder::default().addr(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let relay = LocalRelay::new(builder.port(relay.port).nip42(nip42));
        relay.run().await?;
        writeln!(std::io::stdout(), "ready relay={}", relay.url().await)?;
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        stop.recv().await;
        relay.shutdown();
        Ok(())
    })
}
