//! What the bunker signs a second, and how long one signature takes: over the operator's own relay,
//! on real sockets, with what was allowed on the disk before each signature.
//!
//! Two bounds, both measured in the same run: what one core signs with nothing around it (the bar is
//! half of it), and what the signatures and checks that this path cannot do without leave to all
//! cores (three signatures: request, document, reply; five checks: the relay's and the reader's of
//! request and reply, and the client's of its document). The second is below the bar.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bitspire_operator::bunker::{Bunker, BunkerConfig};
use bitspire_operator::relay::{Access, Config, Relay, Role, serve};
use bitspire_operator::signer::admin::{AdminClient, AdminConfig};
use bitspire_operator::signer::policy::ensure_policy;
use bitspire_operator::signer::remote::{Remote, RemoteConfig};
use bitspire_operator::signer::{BunkerAdmin as _, BunkerRule, RemoteSigner as _};
use bitspire_operator::store::relay_docs::RelayDocs;
use bitspire_shared::canonical::sha256;
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip46::policy::Policy;
use bitspire_shell::clock::Clock;
use nostr::secp256k1::Message;
use nostr::{Keys, Kind, RelayUrl, Timestamp, UnsignedEvent};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Figure, percentile};

/// Machines, each with a key and a client of its own: one alone is held to sixty requests a minute.
const MACHINES: usize = 64;
/// Machines that ask one after the other.
const ALONE: usize = 16;
/// Signatures of each machine.
const EACH: usize = 40;
/// Signatures with nothing around them.
const RAW: u32 = 5_000;
/// What one request cannot do without: see the module's head.
const SIGNATURES: f64 = 3.0;
const CHECKS: f64 = 5.0;
/// The bar for one signature, in milliseconds.
const BAR_MS: f64 = 5.0;

/// Everybody is known from the start.
#[derive(Default)]
struct Everybody {
    roles: HashMap<[u8; 32], Role>,
    held: HashSet<[u8; 32]>,
}

impl Access for Everybody {
    fn role(&self, key: &[u8; 32]) -> Role {
        self.roles.get(key).copied().unwrap_or(Role::Unknown)
    }
    fn session_of(&self, _: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }
    fn held_by_bunker(&self, key: &[u8; 32]) -> bool {
        self.held.contains(key)
    }
    fn awaits_pairing(&self, _: &[u8; 32]) -> bool {
        false
    }
}

struct Machine {
    spire: Keys,
    client: Keys,
}

fn public(keys: &Keys) -> Result<PubKey> {
    Ok(PubKey::new(keys.public_key())?)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A part on a thread of its own, as it has a process of its own; what it tells once it stands.
fn apart<T: Send + 'static, F: Future<Output = Result<()>>>(
    part: impl FnOnce(mpsc::Sender<T>) -> F + Send + 'static,
) -> Result<(T, thread::JoinHandle<Result<()>>)> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || runtime()?.block_on(part(tell)));
    match told.recv() {
        Ok(told) => Ok((told, thread)),
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            _ => bail!("a part ended before it stood"),
        },
    }
}

pub(super) fn measure() -> Result<Vec<Figure>> {
    let (raw, path) = raw()?;
    let folder = tempfile::tempdir()?;
    let (stop, admin) = (CancellationToken::new(), Keys::generate());
    let machine = |_| Machine { spire: Keys::generate(), client: Keys::generate() };
    let machines: Vec<Machine> = (0..MACHINES).map(machine).collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("ws://{}", listener.local_addr()?);
    let config = BunkerConfig {
        data_dir: folder.path().join("bunker"),
        machine_secret_file: None,
        relays: vec![url.clone()],
        admins: vec![public(&admin)?],
        clock: Clock::system(),
    };
    let stopped = stop.clone();
    let (id, bunker) = apart(move |tell| async move {
        let bunker = Bunker::open(config).await?;
        tell.send(bunker.id())?;
        Ok(bunker.run(stopped).await?)
    })?;
    let mut everybody = Everybody::default();
    everybody.roles.insert(id.to_bytes(), Role::Bunker);
    everybody.roles.insert(public(&admin)?.to_bytes(), Role::Service);
    for Machine { spire, client } in &machines {
        let spire = public(spire)?.to_bytes();
        everybody.held.insert(spire);
        everybody.roles.insert(public(client)?.to_bytes(), Role::Machine { spire });
    }
    let documents = RelayDocs::open(&folder.path().join("relay.db"), Clock::system().now())?;
    let (stopped, at) = (stop.clone(), RelayUrl::parse(&url)?);
    let ((), relay) = apart(move |tell| async move {
        let relay = Relay::new(Config::new(vec![at]), Arc::new(everybody), documents, stopped);
        let listener = TcpListener::from_std(listener)?;
        tell.send(())?;
        serve(listener, relay).await;
        Ok(())
    })?;
    let (per_s, mut times) = runtime()?.block_on(clients(id, &url, admin, machines, &stop))?;
    stop.cancel();
    for part in [bunker, relay] {
        part.join().ok().context("a part died")??;
    }
    let (sum, runs) = (MACHINES.saturating_sub(ALONE) * EACH, times.len());
    let bar = "raw Schnorr signatures a second of one core, same run; the bar is half of it";
    let figure = |name, value, unit, bound, bound_is, runs| Figure {
        name,
        value,
        unit,
        bound,
        bound_is,
        peer: None,
        runs,
    };
    let of_path = "the path's own signatures and checks on all cores, same run";
    Ok(vec![
        figure("bunker_signs_per_s", per_s, "signatures/s", raw, bar, sum),
        figure("bunker_signs_per_s_of_path", per_s, "signatures/s", path, of_path, sum),
        figure("bunker_sign_p99_ms", percentile(&mut times, 99)?, "ms", BAR_MS, "the bar", runs),
    ])
}

/// Signatures a second of one core with nothing around them, and what the signatures and checks of
/// one request leave to all cores.
fn raw() -> Result<(f64, f64)> {
    let keys = Keys::generate();
    let key = keys.public_key().xonly()?;
    let digests = || (0..RAW).map(|n| Message::from_digest(*sha256(&n.to_string()).as_bytes()));
    let started = Instant::now();
    let signatures: Vec<_> = digests().map(|digest| keys.sign_schnorr(&digest)).collect();
    let sign_s = started.elapsed().as_secs_f64() / f64::from(RAW);
    let started = Instant::now();
    for (digest, signature) in digests().zip(&signatures) {
        nostr::SECP256K1.verify_schnorr(signature, &digest, &key)?;
    }
    let check_s = started.elapsed().as_secs_f64() / f64::from(RAW);
    let cores = f64::from(u32::try_from(thread::available_parallelism()?.get())?);
    Ok((1.0 / sign_s, cores / (SIGNATURES * sign_s + CHECKS * check_s)))
}

fn document(spire: PubKey, n: usize) -> UnsignedEvent {
    let kind = Kind::from(30_078);
    UnsignedEvent::new(spire.nostr(), Timestamp::now(), kind, [], format!("document {n}"))
}

/// Signatures a second of all at once, and the times of those one after the other, in milliseconds.
async fn clients(
    id: PubKey,
    url: &str,
    admin: Keys,
    machines: Vec<Machine>,
    stop: &CancellationToken,
) -> Result<(f64, Vec<f64>)> {
    let (tasks, clock, relays) = (TaskTracker::new(), Clock::system(), vec![url.to_owned()]);
    let config = AdminConfig::new(id, relays.clone(), admin);
    let admin = AdminClient::start(config, clock.clone(), &tasks, stop.clone()).await?;
    let rules = Policy::spire().rules.into_iter();
    let rules: Vec<_> = rules
        .map(|rule| BunkerRule { method: rule.method.as_str().into(), kind: rule.kind })
        .collect();
    let policy = ensure_policy(&admin, Policy::SPIRE, &rules).await?;
    let mut remotes = Vec::new();
    for (n, Machine { spire, client }) in machines.into_iter().enumerate() {
        let name = format!("spire-{n}");
        let key = admin.create_key(name.clone(), spire).await?;
        admin.create_token(name.clone(), name.clone(), policy, 1).await?;
        let tokens = admin.tokens(name).await?;
        let secret = tokens.first().context("the token")?.secret()?.clone();
        let config = RemoteConfig::new(key, relays.clone(), client);
        let config = RemoteConfig { secret: Some(secret), ..config };
        let remote = Remote::start(config, clock.clone(), &tasks, stop.clone()).await?;
        remote.connect().await?;
        remotes.push((key, remote));
    }
    let crowd = remotes.split_off(ALONE);
    let mut times = Vec::new();
    for n in 0..EACH {
        for (key, remote) in &remotes {
            let started = Instant::now();
            remote.sign(document(*key, n)).await?;
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    let mut working = JoinSet::new();
    let signatures = u32::try_from(crowd.len() * EACH)?;
    let started = Instant::now();
    for (key, remote) in crowd {
        working.spawn(async move {
            for n in 0..EACH {
                remote.sign(document(key, n)).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = working.join_next().await {
        ended??;
    }
    Ok((f64::from(signatures) / started.elapsed().as_secs_f64(), times))
}
