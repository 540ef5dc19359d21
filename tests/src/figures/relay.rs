//! The embedded relay with ten thousand machines connected.
//!
//! Two processes: the service as it is shipped, and this one, which is all the machines. Each has a
//! socket of its own, has authenticated, and waits for what is addressed to it.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bitspire_shared::rpc;
use bitspire_shared::sealed::Purpose;
use bitspire_shell::secrets::Keyring;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use nostr::{
    ClientMessage, EventBuilder, Filter, JsonUtil as _, Keys, Kind, RelayMessage, RelayUrl,
    SubscriptionId, Tag, Timestamp,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::agent::{TICKS, shared_out_kb, ticks};
use super::fleet::{self, Paired};
use super::{Figure, percentile};
use crate::world::World;

/// Machines, if the limit of open files allows.
const MACHINES: usize = 10_000;
/// Files that are open beside the sockets, at most.
const OTHERS: usize = 300;
/// Machines that are connected for the bound.
const FEW: usize = 10;
/// Events that are sent, one after the other.
const EVENTS: usize = 2_000;
/// As long as a request or a reply is.
const LENGTH: usize = 600;
/// The bars.
const CPU_US: f64 = 1_000.0;
const RSS_MB: f64 = 300.0;
/// Nothing takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<TcpStream>;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let mut world = World::new(&std::env::current_exe()?, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paired = runtime.block_on(fleet::pair_all(world.folder()))?;
    world.operator.start()?;
    let pid = world.operator.id().context("the operator's process")?;
    let shown = world.operator_says(&["operator", "show"])?;
    let relay = shown["relays"][0].as_str().context("the relay")?.to_owned();
    let ring = Keyring::open(&world.folder().join("operator"), None)?;
    let service = ring.load("service", Purpose::ServiceKey)?.context("the service's key")?;
    let machines = MACHINES.min(files()?.saturating_sub(OTHERS));
    let mut fleet = Fleet::new(&relay, service)?;
    let (mut few, mut many, cpu, memory) = runtime.block_on(async {
        fleet.join(&paired[..FEW]).await?;
        let few = fleet.deliveries(FEW).await?;
        fleet.join(&paired[FEW..machines]).await?;
        let before = ticks(&[pid])?;
        let many = fleet.deliveries(machines).await?;
        let worked = f64::from(ticks(&[pid])? - before) / TICKS;
        anyhow::Ok((few, many, worked, shared_out_kb(pid)?))
    })?;
    drop(fleet);
    world.operator.stop()?;
    let figure = |name, value, unit, bound, bound_is| Figure {
        name,
        value,
        unit,
        bound,
        bound_is,
        peer: None,
        runs: machines,
    };
    let memory = f64::from(memory) * 1_024.0 / 1_000_000.0;
    let cpu = cpu * 1_000_000.0 / EVENTS as f64;
    Ok(vec![
        figure(
            "relay_10k_delivery_ms_p99",
            percentile(&mut many, 99)?,
            "ms",
            percentile(&mut few, 99)?,
            "the same with ten machines connected; runs: machines",
        ),
        figure("relay_10k_cpu_us_an_event", cpu, "us", CPU_US, "the bar; runs: machines"),
        figure("relay_10k_rss_mb", memory, "MB", RSS_MB, "the bar; runs: machines"),
    ])
}

/// Files that this process, and one that it starts, may have open.
fn files() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).context("the limit")?;
    Ok(soft.parse().unwrap_or(usize::MAX))
}

/// The machines that are connected, and the service.
struct Fleet {
    url: RelayUrl,
    address: SocketAddr,
    service: Keys,
    speaks: Option<SplitSink<Socket, Message>>,
    spires: Vec<Keys>,
    arrived: mpsc::UnboundedReceiver<usize>,
    arrives: mpsc::UnboundedSender<usize>,
    /// Each reads its socket, so that it answers the relay's pings.
    readers: JoinSet<()>,
}

impl Fleet {
    fn new(relay: &str, service: Keys) -> Result<Self> {
        let address = relay.trim_start_matches("ws://").trim_end_matches('/').parse()?;
        let (arrives, arrived) = mpsc::unbounded_channel();
        let url = RelayUrl::parse(relay)?;
        let (spires, readers) = (Vec::new(), JoinSet::new());
        Ok(Self { url, address, service, speaks: None, spires, arrived, arrives, readers })
    }

    /// Connects these machines too, and the service with the first of them.
    async fn join(&mut self, machines: &[Paired]) -> Result<()> {
        if self.speaks.is_none() {
            let (speaks, mut hears) = self.connect(&self.service).await?.split();
            self.speaks = Some(speaks);
            self.readers.spawn(async move { while let Some(Ok(_)) = hears.next().await {} });
        }
        for Paired { spire, client } in machines {
            let mut socket = self.connect(client).await?;
            let filter = Filter::new().kind(Kind::from(rpc::KIND)).pubkey(spire.public_key());
            let asked = ClientMessage::req(SubscriptionId::new("m"), vec![filter]);
            socket.send(Message::text(asked.as_json())).await?;
            until(&mut socket, |said| matches!(said, RelayMessage::EndOfStoredEvents(_))).await?;
            let (number, arrives) = (self.spires.len(), self.arrives.clone());
            self.spires.push(spire.clone());
            self.readers.spawn(async move {
                // the other half answers pings
                while let Some(Ok(message)) = socket.next().await {
                    if message.to_text().is_ok_and(|text| text.starts_with("[\"EVENT\"")) {
                        let _ = arrives.send(number);
                    }
                }
            });
        }
        Ok(())
    }

    async fn connect(&self, keys: &Keys) -> Result<Socket> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut socket, _) = tokio_tungstenite::client_async(self.url.as_str(), stream).await?;
        let mut challenge = String::new();
        until(&mut socket, |said| match said {
            RelayMessage::Auth { challenge: asked } => {
                challenge = asked.to_string();
                true
            }
            _ => false,
        })
        .await?;
        let event = EventBuilder::auth(challenge, self.url.clone()).sign_with_keys(keys)?;
        let id = event.id;
        socket.send(Message::text(ClientMessage::auth(event).as_json())).await?;
        let mut good = false;
        until(&mut socket, |said| match said {
            RelayMessage::Ok { event_id, status, .. } if *event_id == id => {
                good = *status;
                true
            }
            _ => false,
        })
        .await?;
        if !good {
            bail!("the relay does not know a machine's key");
        }
        Ok(socket)
    }

    /// How long each of the events takes, in milliseconds, to one of the first `among` machines.
    async fn deliveries(&mut self, among: usize) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        for n in 0..EVENTS {
            let to = n * 7_919 % among;
            let now = Timestamp::now();
            let event = EventBuilder::new(Kind::from(rpc::KIND), "x".repeat(LENGTH))
                .tag(Tag::public_key(self.spires[to].public_key()))
                .tag(Tag::expiration(now + 180))
                .custom_created_at(now)
                .sign_with_keys(&self.service)?;
            let text = ClientMessage::event(event).as_json();
            let started = Instant::now();
            let speaks = self.speaks.as_mut().context("the service is not connected")?;
            speaks.send(Message::text(text)).await?;
            let arrived = tokio::time::timeout(PATIENCE, self.arrived.recv()).await;
            if arrived.context("an event did not arrive")? != Some(to) {
                bail!("an event came to another machine");
            }
            took.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(took)
    }
}

/// Reads until the relay has said this.
async fn until(socket: &mut Socket, mut said: impl FnMut(&RelayMessage<'_>) -> bool) -> Result<()> {
    loop {
        let next = tokio::time::timeout(PATIENCE, socket.next()).await.context("no answer")?;
        let message = next.context("the relay has closed the connection")??;
        if let Ok(text) = message.to_text()
            && let Ok(message) = RelayMessage::from_json(text)
            && said(&message)
        {
            return Ok(());
        }
    }
}
