//! Somebody else's relay as a process: stores documents in memory, wants NIP-42 unless it is `--open`,
//! and forgets everything when it ends; with `--seen` it writes down every event and filter that it
//! is sent, as whoever runs a relay can. With `--habit` it is one of the odd ones.

pub mod odd;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use clap::Parser;
use nostr::util::BoxedFuture;
use nostr::{Event, Filter};
use nostr_relay_builder::LocalRelay;
use nostr_relay_builder::builder::{
    PolicyResult, QueryPolicy, RateLimit, RelayBuilder, RelayBuilderNip42, RelayBuilderNip42Mode,
    WritePolicy,
};
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;

#[derive(Debug, Parser)]
struct Relay {
    /// On loopback
    #[arg(long)]
    port: u16,
    /// A file for everything that it is sent, a line of JSON each
    #[arg(long)]
    seen: Option<PathBuf>,
    /// What is odd about it
    #[arg(long, conflicts_with = "seen")]
    habit: Option<odd::Habit>,
    /// Takes everything from everybody
    #[arg(long)]
    open: bool,
}

/// Writes down what comes, and takes it.
#[derive(Debug, Clone)]
struct Seen(Arc<Mutex<File>>);

impl Seen {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// What could not be written down is not taken: a test would miss it.
    fn note(&self, what: &Value) -> PolicyResult {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match writeln!(file, "{what}") {
            Ok(()) => PolicyResult::Accept,
            Err(error) => PolicyResult::Reject(error.to_string()),
        }
    }
}

impl WritePolicy for Seen {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let noted = self.note(&json!({ "event": event }));
        Box::pin(async move { noted })
    }
}

impl QueryPolicy for Seen {
    fn admit_query<'a>(
        &'a self,
        query: &'a Filter,
        _: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let noted = self.note(&json!({ "filter": query }));
        Box::pin(async move { noted })
    }
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
        if let Some(habit) = relay.habit {
            let ready = format!("ready relay=ws://127.0.0.1:{}", relay.port);
            let mut stop = tokio::signal::unix::signal(SignalKind::terminate())?;
            return tokio::select! {
                ran = odd::run(relay.port, habit, || println!("{ready}")) => ran,
                _ = stop.recv() => Ok(()),
            };
        }
        let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
        let builder = RelayBuilder::default().addr(IpAddr::V4(Ipv4Addr::LOCALHOST));
        // its usual 60 events a minute are few where one connection speaks for a whole fleet
        let limit = RateLimit { max_reqs: 500, notes_per_minute: 60_000 };
        let mut builder = builder.port(relay.port).rate_limit(limit);
        if !relay.open {
            builder = builder.nip42(nip42);
        }
        if let Some(path) = &relay.seen {
            let seen = Seen::open(path)?;
            builder = builder.write_policy(seen.clone()).query_policy(seen);
        }
        let relay = LocalRelay::new(builder);
        relay.run().await?;
        writeln!(std::io::stdout(), "ready relay={}", relay.url().await)?;
        let mut stop = tokio::signal::unix::signal(SignalKind::terminate())?;
        stop.recv().await;
        relay.shutdown();
        Ok(())
    })
}
