//! Whole requests a second: verified, decrypted with a kept key, handled, durable, answered sealed and
//! signed; and what a flood does to a machine beside it, and to the service's memory.
//!
//! The request is the heartbeat, which every machine sends and which is written each time. Events come
//! from memory into the service as its relay pool hands them over, and answers go to a relay that is
//! not there: no socket is measured. The bound is one event's check (id and signature) and one
//! signature with nothing around them, on one core, measured in the same run.
//!
//! A heartbeat costs a second check, of its vault's signature, which the bound does not have: it is made
//! beside, on the thread that writes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_operator::app::App;
use bitspire_operator::ids::OperatorId;
use bitspire_operator::rpc::{self, Rpc};
use bitspire_operator::store::StoreError;
use bitspire_operator::store::machines::{self, Confirmation, Machine};
use bitspire_operator::{config, fleet};
use bitspire_shared::admit::whole_event;
use bitspire_shared::ids::{JournalHead, JournalSeq, PubKey, RequestId};
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::rpc::{Request, StateReport, VaultSigned, request_event};
use bitspire_shell::checked;
use bitspire_shell::clock::Clock;
use nostr::secp256k1::Message;
use nostr::{Event, JsonUtil as _, Keys};
use tempfile::TempDir;

use super::agent::memory_mb;
use super::{Figure, gate, percentile};
use crate::world::CURRENCY;

/// Machines that ask.
const MACHINES: usize = 500;
/// Requests of each: within its bucket, and as many as the service takes at once.
const EACH: u64 = 20;
/// Requests under way at a time: fewer than the service has places.
pub(super) const AT_ONCE: u64 = 240;
/// Machines whose waits are measured, without hostile events and beside them.
const ASKING: usize = 2_000;
/// Of those, in turn without and beside: what else disk and computer do meanwhile falls on both.
const IN_TURN: usize = 200;
/// Rounds of either kind, in each of which every machine asks once: with the one before them, they are
/// within what a machine may ask at once.
const ROUNDS: u64 = 3;
/// Hostile events a second.
const FLOOD: u32 = 10_000;
/// So many of them come at a time, as a socket is read.
const AT_A_TIME: usize = 10;
/// Hostile keys, each of one frame; each third does something else.
const HOSTILE: usize = 1_000;
/// Machines of the service that is flooded: those that are measured, and one for each hostile key that
/// is rostered.
const FLOODED: usize = ASKING + HOSTILE - HOSTILE.div_ceil(3);
/// How long the flood lasts at least: 300 000 events.
const FLOOD_FOR: Duration = Duration::from_secs(30);
/// What may be kept of them, in MB: less than an id each, which is 32 bytes.
const MORE_MB: f64 = 8.0;
/// What the slowest hundredth may be slower beside the flood.
const BAR: f64 = 1.1;
const RELAY: &str = "wss://outside.example";

pub(super) struct Peer {
    spire: Keys,
    vault: Keys,
}

/// A service in memory, with its database on the disk.
pub(super) struct Service {
    rpc: Arc<Rpc>,
    app: Arc<App>,
    key: PubKey,
    pub(super) peers: Vec<Peer>,
    _folder: TempDir,
}

fn public(keys: &Keys) -> Result<PubKey> {
    Ok(PubKey::new(keys.public_key())?)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

impl Service {
    pub(super) async fn start(machines: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("operator.toml");
        // nobody listens there; the limits are those that a service has unless it is told others
        let text = format!(
            "data_dir = '{}'\n[relay]\nembedded = false\nurl = 'ws://127.0.0.1:9'\n",
            folder.path().display()
        );
        std::fs::write(&file, text)?;
        let (config, _) = config::load(Some(&file), &BTreeMap::new(), &[])?;
        let app = App::open(config, Clock::system())?;
        fleet::first_operator(&app).await?;
        let peer = |_| Peer { spire: Keys::generate(), vault: Keys::generate() };
        let peers: Vec<Peer> = (0..machines).map(peer).collect();
        let (now, currency) = (app.clock.now(), CURRENCY.parse()?);
        let mut rows = Vec::new();
        for (peer, n) in peers.iter().zip(1..) {
            let wallet = format!("w{n}");
            rows.push(Machine {
                machine_npub: Some(public(&peer.spire)?),
                bunker_spire_key_name: Some(wallet.clone()),
                bunker_token_expires_at: Some(now.after(720 * 3_600)),
                paired_at: Some(now),
                client_key: Some(public(&Keys::generate())?),
                vault_key: Some(public(&peer.vault)?),
                confirmation: Confirmation::Confirmed,
                confirmed_at: Some(now),
                ..Machine::new(OperatorId(1), &wallet, "", currency, &wallet, now)
            });
        }
        let written = app.store.write::<_, StoreError, _>(move |tx| {
            rows.iter().try_for_each(|row| machines::insert(tx, row).map(|_| ()))
        });
        written.await?;
        let rpc = rpc::start(&app).await?;
        Ok(Self { rpc, key: app.service_key, app, peers, _folder: folder })
    }

    /// The heartbeat number `n` of a machine.
    pub(super) fn request(&self, peer: &Peer, n: u64) -> Result<Event> {
        let report = StateReport {
            versions: [("agent".to_owned(), "0.1.0".to_owned())].into(),
            devices: BTreeMap::new(),
            cassettes: BTreeMap::new(),
            cashbox: None,
            reject_bin: None,
            recycled: None,
            service_events: vec![],
            applied_documents: BTreeMap::new(),
            applied_changes: std::collections::BTreeSet::new(),
            open_transactions: vec![],
            alerts: vec![],
            used_nonces: vec![],
            journal_seq: JournalSeq(n + 1),
            journal_head: JournalHead::from_bytes(random()?),
        };
        let body = VaultSigned::sign(report, &peer.vault)?;
        let text = Request::new(RequestId::from_bytes(random()?), body)?.to_plaintext()?;
        let cipher = ConversationKey::derive(peer.spire.secret_key(), &self.key)?;
        let content = cipher.encrypt(&text, random()?)?;
        let event = request_event(&public(&peer.spire)?, &self.key, Clock::system().now(), content);
        Ok(event.sign_with_keys(&peer.spire)?)
    }

    /// Answers so far: each finds no relay, which is counted.
    fn answered(&self) -> u64 {
        self.app.refusals.total("reply_without_relay")
    }

    /// Waits until so many were answered.
    pub(super) async fn until_answered(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.answered() < count {
            if Instant::now() > deadline {
                bail!("{} of {count} answered: {:?}", self.answered(), self.rpc.counters());
            }
            tokio::task::yield_now().await;
            // the other threads of the service need a core, too
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Waits until the relay's budget refuses what is forged.
    async fn until_held_off(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.app.refusals.total("relay_busy") < u64::from(FLOOD / 10) {
            if Instant::now() > deadline {
                bail!("no forged event was refused unverified: {:?}", self.rpc.counters());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Takes an event in as the relay pool would hand it over: verified.
    pub(super) fn hand_over(&self, event: Event) -> Result<()> {
        if !checked::holds(&event) {
            bail!("an event of our own does not hold: {}", event.id);
        }
        self.rpc.clone().admit(RELAY, event);
        Ok(())
    }

    pub(super) async fn stop(self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
    }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

pub(super) fn measure() -> Result<Vec<Figure>> {
    let (value, bound) = runtime()?.block_on(per_second())?;
    Ok(vec![Figure {
        name: "rpc_per_s",
        value,
        unit: "requests/s",
        bound,
        bound_is: "one event verified and one signature made, with nothing around them",
        peer: None,
        runs: 1,
    }])
}

async fn per_second() -> Result<(f64, f64)> {
    let service = Service::start(MACHINES).await?;
    let mut events = Vec::new();
    for n in 0..EACH {
        for peer in &service.peers {
            events.push(service.request(peer, n)?);
        }
    }
    let count = u64::try_from(events.len())?;
    let bound = verified_and_signed(&events)?;
    let before = service.answered();
    let started = Instant::now();
    for (event, n) in events.into_iter().zip(0u64..) {
        if n >= AT_ONCE {
            service.until_answered(before + n - AT_ONCE).await?;
        }
        service.hand_over(event)?;
    }
    service.until_answered(before + count).await?;
    let seconds = started.elapsed().as_secs_f64();
    service.stop().await;
    Ok((f64::from(u32::try_from(count)?) / seconds, bound))
}

fn verified_and_signed(events: &[Event]) -> Result<f64> {
    let verified = gate::to_verify(events)?;
    let keys = Keys::generate();
    let started = Instant::now();
    for event in events {
        keys.sign_schnorr(&Message::from_digest(event.id.to_bytes()));
    }
    let both = verified + started.elapsed();
    Ok(f64::from(u32::try_from(events.len())?) / both.as_secs_f64())
}

/// What comes from an outside relay while a machine asks: a third by strangers, a third under a
/// rostered key with a signature that does not hold, a third sent before; each under a key of its own.
async fn hostile(service: &Service) -> Result<Vec<String>> {
    let frame = |event: &Event| format!("[\"EVENT\",\"rpc\",{}]", event.as_json());
    let (mut frames, mut authors) = (Vec::new(), HashSet::new());
    let mut rostered = service.peers.iter().skip(ASKING);
    for n in 0..HOSTILE {
        let mut next = || rostered.next().context("a machine for each hostile key");
        let event = match n % 3 {
            0 => {
                let stranger = Peer { spire: Keys::generate(), vault: Keys::generate() };
                service.request(&stranger, 0)?
            }
            1 => {
                let peer = next()?;
                let mut event = service.request(peer, 0)?;
                event.sig = service.request(peer, 0)?.sig;
                event
            }
            _ => {
                let event = service.request(next()?, 0)?;
                let before = service.answered();
                service.hand_over(event.clone())?;
                service.until_answered(before + 1).await?;
                event
            }
        };
        authors.insert(event.pubkey);
        frames.push(frame(&event));
    }
    if authors.len() != HOSTILE {
        bail!("expected {HOSTILE} hostile keys, got {}", authors.len());
    }
    Ok(frames)
}

pub(super) fn flood() -> Result<Vec<Figure>> {
    let Flooded { quiet, beside, more_mb, events } = runtime()?.block_on(flooded())?;
    Ok(vec![
        Figure {
            name: "flood_p99_ratio",
            value: beside / quiet,
            unit: "times",
            bound: BAR,
            bound_is: "the bar: the slowest hundredth beside 10 000 hostile events a second",
            peer: None,
            runs: ASKING * usize::try_from(ROUNDS)?,
        },
        Figure {
            name: "flood_rss_mb_more",
            value: more_mb,
            unit: "MB",
            bound: MORE_MB,
            bound_is: "the bar: an id kept of each of 300 000 hostile events would be 9.6 MB",
            peer: None,
            runs: events,
        },
    ])
}

/// What a flood has done.
struct Flooded {
    /// The slowest hundredth of the waits without it, in ms.
    quiet: f64,
    /// The same beside it.
    beside: f64,
    /// The most memory of this process at any second of it, beyond what it had before.
    more_mb: f64,
    /// Hostile events.
    events: usize,
}

/// What comes through the outside relay, on a thread of its own, as each relay's connection has a task
/// of its own.
struct Flood {
    on: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Sent>,
}

/// What has come of it.
struct Sent {
    frames: u32,
    /// While it was on.
    seconds: f64,
    /// Those whose signature held.
    held: u32,
}

impl Flood {
    /// Off at first.
    fn start(service: &Service, frames: Vec<String>) -> Self {
        let (on, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (lets, stop, filter) = (on.clone(), over.clone(), service.rpc.filter(RELAY));
        let thread = std::thread::spawn(move || {
            let mut frames = frames.iter().cycle();
            let (mut sent, mut held, mut been) = (0u32, 0u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                if !lets.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let began = Instant::now();
                for frame in frames.by_ref().take(AT_A_TIME) {
                    sent += 1;
                    // what passes costs its check, as in the pool, and goes no further
                    if filter.keeps(frame)
                        && let Some(event) = whole_event(frame)
                    {
                        if checked::holds(&event) {
                            held += 1;
                        } else {
                            filter.forged(&event);
                        }
                    }
                }
                let due = Duration::from_secs_f64(f64::from(sent) / f64::from(FLOOD));
                std::thread::sleep(due.saturating_sub(been + began.elapsed()));
                been += began.elapsed();
            }
            Sent { frames: sent, seconds: been.as_secs_f64(), held }
        });
        Self { on, over, thread }
    }

    fn let_in(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    fn end(self) -> Result<Sent> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the flood ended in a panic"))
    }
}

async fn flooded() -> Result<Flooded> {
    let service = Service::start(FLOODED).await?;
    let flood = Flood::start(&service, hostile(&service).await?);
    // what is kept of machines that ask is no memory of the flood
    asked(&service, &service.peers[..ASKING], 0, &mut Vec::new()).await?;
    let own = [std::process::id()];
    let before_mb = memory_mb(&own)?;
    let measured = async {
        let mut most_mb = before_mb;
        flood.let_in(true);
        let began = Instant::now();
        while began.elapsed() < FLOOD_FOR {
            tokio::time::sleep(Duration::from_secs(1)).await;
            most_mb = most_mb.max(memory_mb(&own)?);
        }
        // what the service keeps of machines' requests would count as the flood's
        Ok::<_, anyhow::Error>((beside(&service, &flood).await?, most_mb))
    };
    let measured = measured.await;
    let sent = flood.end()?;
    let ((quiet, beside), most_mb) = measured?;
    let stale = service.app.refusals.total("stale");
    service.stop().await;
    if stale > 0 {
        bail!("{stale} hostile events were refused for their age: it took too long");
    }
    if sent.held > 0 {
        bail!("{} hostile events passed for good ones", sent.held);
    }
    let rate = f64::from(sent.frames) / sent.seconds;
    if rate < f64::from(FLOOD) * 0.9 {
        bail!("expected {FLOOD} hostile events a second, got {rate:.0}");
    }
    let (more_mb, events) = ((most_mb - before_mb).max(0.0), usize::try_from(sent.frames)?);
    Ok(Flooded { quiet, beside, more_mb, events })
}

/// The slowest hundredth of the machines' waits without the flood, and beside it, in milliseconds.
async fn beside(service: &Service, flood: &Flood) -> Result<(f64, f64)> {
    // a forger first takes the shares of the keys that it forges, once
    flood.let_in(true);
    service.until_held_off().await?;
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for machines in service.peers[..ASKING].chunks(IN_TURN) {
            flood.let_in(false);
            asked(service, machines, 2 * round + 1, &mut quiet).await?;
            flood.let_in(true);
            asked(service, machines, 2 * round + 2, &mut beside).await?;
        }
    }
    Ok((percentile(&mut quiet, 99)?, percentile(&mut beside, 99)?))
}

/// How long each of these machines waits for the answer to its request number `n`, in milliseconds.
async fn asked(service: &Service, machines: &[Peer], n: u64, waits: &mut Vec<f64>) -> Result<()> {
    for machine in machines {
        let event = service.request(machine, n)?;
        let before = service.answered();
        let started = Instant::now();
        service.hand_over(event)?;
        service.until_answered(before + 1).await?;
        waits.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(())
}
