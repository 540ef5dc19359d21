//! The paired machine's connections: pool, bunker, session, requests, documents, under one token.
//!
//! Promise: everything that a pairing runs ends with it; another pairing begins from nothing.
//!
//! Failure policy: a bunker that refuses is said hello to again, rarely; events beyond a full queue
//! are dropped and counted, since their senders repeat them or relays keep them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitspire_shared::document::DOCUMENT_KIND;
use bitspire_shared::ids::{IdError, PubKey};
use bitspire_shared::nip46;
use bitspire_shared::nip46::client::{Ask, SignerState};
use bitspire_shared::rpc as wire;
use bitspire_shell::pool::{Pool, PoolError};
use bitspire_shell::privacy;
use nostr::{Event, Keys};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use super::documents::{self, Publisher, Reader};
use super::requests::{Asked, Path};
use super::rpc::{self, Carrier, Command};
use super::session::{Keeper, Proof, Way, may_change};
use super::signer::{self, Signer, SignerError};
use super::store::{Pairing, public};
use super::times::Times;
use super::{Timing, gate};
use crate::ipc::{NetPins, NetState, ToNet, ToVault};
use crate::refused::Refused;

/// Events, commands and proofs that may stand in line.
const QUEUE: usize = 256;
/// Documents said to be published that may stand in line: asking for one asks for all.
const PUBLISHED: usize = 4;

/// Why a pairing cannot be lived.
#[derive(Debug, Error)]
pub enum LifeError {
    /// A relay address.
    #[error("a stored relay cannot be used: pair again")]
    Relay(#[from] PoolError),
    /// The client key is no key.
    #[error("the stored client key cannot be used: pair again")]
    Key(#[from] IdError),
    /// Likewise.
    #[error("no encryption between client key and bunker: pair again")]
    Signer(#[from] bitspire_shared::nip44::Nip44Error),
}

/// A pairing that runs.
pub(super) struct Life {
    pub(super) pins: NetPins,
    pool: Arc<Pool>,
    rpc: mpsc::Sender<Command>,
    proofs: mpsc::Sender<Proof>,
    wanted: watch::Sender<Option<String>>,
    vault: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Life {
    /// Starts it.
    pub(super) async fn start(
        pairing: &Pairing,
        keys: Keys,
        to_vault: mpsc::Sender<ToVault>,
        times: Times,
        timing: Timing,
    ) -> Result<Self, LifeError> {
        let (pins, signer_key) = (pairing.pins, pairing.bunker.signer());
        let client = public(&keys)?;
        let filter = gate::filter(&signer_key, Some(&pins));
        let pool = Pool::connect(keys.clone(), &pairing.all_relays(), filter).await?;
        let pool = Arc::new(pool);
        let stop = CancellationToken::new();

        let (to_signer, from_bunker) = mpsc::channel(QUEUE);
        let (to_carrier, from_service) = mpsc::channel(QUEUE);
        let (to_reader, from_operator) = mpsc::channel(QUEUE);
        let (rpc, commands) = mpsc::channel(QUEUE);
        let (proofs, proofs_received) = mpsc::channel(QUEUE);
        let (doubts, doubts_received) = mpsc::channel(8);
        let (way, way_watched) = watch::channel(Way::Opening);
        let (trouble, trouble_watched) = watch::channel(None);
        let (wanted, wanted_watched) = watch::channel(None);
        let (vault, vault_watched) = watch::channel(0);
        let (published, published_heard) = mpsc::channel(PUBLISHED);

        let config = signer::config(pairing, None);
        let made = signer::new(
            pool.clone(),
            keys,
            config,
            from_bunker,
            to_vault.clone(),
            times.clone(),
            timing,
        );
        let (signer, worker) = match made {
            Ok(made) => made,
            Err(SignerError::Encrypt(error)) => return Err(error.into()),
            Err(_) => return Err(LifeError::Key(IdError::NotAKey)),
        };
        pool.subscribe(signer::SUBSCRIPTION, signer::replies(&signer_key, &client)).await;

        let mut tasks = JoinSet::new();
        tasks.spawn(worker.run(stop.clone()));
        tasks.spawn(route(pool.clone(), to_signer, to_carrier, to_reader));
        tasks.spawn(hello(signer.clone(), timing, stop.clone()));
        let keeper = Keeper {
            pins,
            signer: signer.clone(),
            to_vault: to_vault.clone(),
            proofs: proofs_received,
            rpc: rpc.clone(),
            doubts: doubts_received,
            way,
            trouble,
            times: times.clone(),
            timing,
            vault: None,
        };
        tasks.spawn(keeper.run(stop.clone()));
        let carrier = Carrier {
            pins,
            pool: pool.clone(),
            signer: signer.clone(),
            way: way_watched.clone(),
            doubts,
            to_vault: to_vault.clone(),
            commands,
            events: from_service,
            published,
            times: times.clone(),
            memory: rpc::Memory::default(),
        };
        tasks.spawn(carrier.run(stop.clone()));
        let reader = Reader {
            pins,
            pool: pool.clone(),
            signer: signer.clone(),
            events: from_operator,
            published: published_heard,
            vault: vault_watched.clone(),
            to_vault: to_vault.clone(),
            times: times.clone(),
            timing,
            memory: documents::Memory::default(),
        };
        tasks.spawn(reader.run(stop.clone()));
        let publisher = Publisher {
            pins,
            pool: pool.clone(),
            signer: signer.clone(),
            wanted: wanted_watched,
            to_vault: to_vault.clone(),
            times,
            timing,
        };
        tasks.spawn(publisher.run(stop.clone()));
        let reporter = Reporter {
            relays: pool.up(),
            signer: signer.state(),
            way: way_watched,
            trouble: trouble_watched,
            vault: vault_watched,
            to_vault,
        };
        tasks.spawn(reporter.run(stop.clone()));
        Ok(Self { pins, pool, rpc, proofs, wanted, vault, stop, tasks })
    }

    /// A connection of the vault is there: it is told everything again.
    pub(super) fn vault_is_back(&self) {
        self.vault.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Passes on what the vault wants of a paired machine.
    pub(super) async fn obey(&self, message: ToNet) {
        match message {
            ToNet::Request { request_id, rpc_name, body } => {
                let asked = Asked { rpc_name, body, path: Path::Any };
                self.command(Command::Add { request_id, asked }).await;
            }
            ToNet::Forget { request_id } => self.command(Command::Forget(request_id)).await,
            ToNet::SessionProof { session, vault, vault_proof, journal_seq, journal_head } => {
                let proof = Proof { session, vault, vault_proof, journal_seq, journal_head };
                // a full queue holds proofs that nobody waits for any more
                let _ = self.proofs.try_send(proof);
            }
            ToNet::PublishState { plaintext } => {
                self.wanted.send_replace(Some(plaintext));
            }
            _ => {}
        }
    }

    /// The vault is gone.
    pub(super) async fn vault_is_gone(&self) {
        self.command(Command::VaultGone).await;
    }

    async fn command(&self, command: Command) {
        // the carrier ends only with the whole pairing
        drop(self.rpc.send(command).await);
    }

    /// Ends it all.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        self.pool.close().await;
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(event = "net_task_died", error = privacy::ended(&error));
            }
        }
    }
}

/// Sorts verified events by kind; the gate has seen to their authors.
async fn route(
    pool: Arc<Pool>,
    to_signer: mpsc::Sender<Event>,
    to_carrier: mpsc::Sender<Event>,
    to_reader: mpsc::Sender<Event>,
) {
    let dropped = AtomicU64::new(0);
    while let Some(event) = pool.next().await {
        let to = match event.kind.as_u16() {
            nip46::KIND => &to_signer,
            wire::KIND => &to_carrier,
            DOCUMENT_KIND => &to_reader,
            _ => continue,
        };
        if to.try_send(event).is_err() {
            let total = dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            tracing::warn!(event = "events_dropped", total);
        }
    }
}

/// Says hello to the bunker, without the secret, until it has answered as the key that is pinned;
/// then asks now and again whether it is there, so that a locked key is known before it is needed.
async fn hello(signer: Signer, timing: Timing, stop: CancellationToken) {
    let first = Duration::from_millis(timing.retry_ms);
    let rarely = first * 150;
    let mut wait = first;
    let work = async {
        loop {
            let result = match signer.connect().await {
                Ok(()) => signer.ask(Ask::GetPublicKey).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {
                    wait = first;
                    loop {
                        sleep(rarely).await;
                        match signer.ask(Ask::Ping).await {
                            Err(error) if may_change(&error) => break,
                            _ => {}
                        }
                    }
                }
                Err(error) => tracing::info!(event = "bunker_no_hello", %error),
            }
            sleep(wait).await;
            wait = (wait * 2).min(rarely);
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Tells the vault how the way to the service is.
struct Reporter {
    relays: watch::Receiver<usize>,
    signer: watch::Receiver<SignerState>,
    way: watch::Receiver<Way>,
    trouble: watch::Receiver<Option<Refused>>,
    vault: watch::Receiver<u64>,
    to_vault: mpsc::Sender<ToVault>,
}

impl Reporter {
    async fn run(mut self, stop: CancellationToken) {
        let mut told: Option<(u64, NetState)> = None;
        loop {
            let relays = u32::try_from(*self.relays.borrow_and_update()).unwrap_or(u32::MAX);
            let session = matches!(*self.way.borrow_and_update(), Way::Session(_));
            let bunker = (*self.signer.borrow_and_update()).into();
            let bunker_trouble = self.trouble.borrow_and_update().clone();
            let state = NetState { relays, bunker, session, bunker_trouble };
            let now = Some((*self.vault.borrow_and_update(), state.clone()));
            if told != now {
                if self.to_vault.send(ToVault::State(state)).await.is_err() {
                    return;
                }
                told = now;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = self.way.changed() => {}
                Ok(()) = self.trouble.changed() => {}
                Ok(()) = self.signer.changed() => {}
                Ok(()) = self.vault.changed() => {}
                Ok(()) = self.relays.changed() => {}
            }
        }
    }
}

/// The machine's identity, for logs.
impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let spire: PubKey = self.pins.spire;
        f.debug_struct("Life").field("spire", &spire).finish_non_exhaustive()
    }
}
