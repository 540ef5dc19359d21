//! A change for many machines at once: how much of it bunkers and relays have, and what a death in the
//! middle leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use bitspire_shared::money::FeePpm;
use bitspire_shell::pool::PoolError;
use futures_util::future::BoxFuture;
use tokio::sync::Barrier;

use super::*;
use crate::publish::worker::{AT_BUNKERS, Carrier, Publisher};
use crate::publish::{fees, status};
use crate::testing::Death;

/// More than a page of the outbox.
const MACHINES: usize = 100;
/// More than the bunker has at once.
const TOGETHER: usize = AT_BUNKERS + 4;

/// A bunker that takes its time, and counts what it has at once.
struct Busy {
    inner: Double,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Busy {
    fn new() -> Arc<Self> {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner: Double::new(), now, most })
    }

    async fn counted<T>(&self, work: impl Future<Output = T>) -> T {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let done = work.await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

impl RemoteSigner for Busy {
    fn key(&self) -> PubKey {
        self.inner.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        Box::pin(self.counted(self.inner.sign(event)))
    }

    fn encrypt(&self, peer: PubKey, text: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(self.counted(self.inner.encrypt(peer, text)))
    }

    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>> {
        Box::pin(self.counted(self.inner.decrypt(peer, payload)))
    }
}

/// A relay that keeps everything, and answers the first ones only when so many have come.
pub(super) struct Keeps {
    events: Mutex<Vec<Event>>,
    first: Option<(Barrier, AtomicUsize)>,
}

impl Keeps {
    pub(super) fn new(first: usize) -> Arc<Self> {
        let first = (first > 0).then(|| (Barrier::new(first), AtomicUsize::new(first)));
        Arc::new(Self { events: Mutex::default(), first })
    }

    /// The events of each machine.
    fn by_machine(&self) -> BTreeMap<String, BTreeSet<nostr::EventId>> {
        let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for event in self.events.lock().unwrap().iter() {
            let d = event.tags.identifier().unwrap().to_owned();
            all.entry(d).or_default().insert(event.id);
        }
        all
    }
}

impl Carrier for Keeps {
    fn carry<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<Vec<String>, PoolError>> {
        Box::pin(async move {
            self.events.lock().unwrap().push(event.clone());
            if let Some((together, left)) = &self.first {
                let waits = |left: usize| left.checked_sub(1);
                if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, waits).is_ok() {
                    together.wait().await;
                }
            }
            Ok(vec!["wss://keeps".to_owned()])
        })
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A daemon with so many machines, for all of which new fees are wanted.
async fn wanted(bunker: &Arc<Busy>) -> (World, Vec<MachineId>) {
    let world = World::in_memory("[relay]\nembedded = false\n").await;
    let key = bunker.inner.key;
    let set = world.app.store.write(move |tx| {
        let operator = operators::list(tx)?.remove(0).id;
        operators::set_identity(tx, operator, key, SignerKind::Bunker, Some("operator"))
    });
    let set: Result<(), StoreError> = set.await;
    set.unwrap();
    world.app.set_signer(bunker.clone());
    let mut machines = Vec::new();
    for n in 0..MACHINES {
        machines.push(paired(&world.app, &format!("till-{n}")).await.id);
    }
    let fee = Some(FeePpm::new(20_000).unwrap());
    let (_, documents) = fees::set_platform(&world.app, "cli", None, fee).await.unwrap();
    assert_eq!(documents.len(), MACHINES);
    (world, machines)
}

async fn look(world: &World, relays: &Arc<Keeps>) -> Result<(), StoreError> {
    let publisher = Publisher::new(world.app.clone(), relays.clone());
    tokio::time::timeout(PATIENCE, publisher.look()).await.expect("a look ends")
}

async fn taken(world: &World, machines: &[MachineId]) -> usize {
    let machines = machines.to_vec();
    let read = world.app.store.read(move |read| {
        let all = machines.iter().map(|id| status::of_machine(read, *id));
        all.collect::<Result<Vec<_>, StoreError>>()
    });
    let acked = |one: &&Documents| one.fees.as_ref().unwrap().relay_acked_at.is_some();
    read.await.unwrap().iter().filter(acked).count()
}

/// Loss prevented: new fees that reach the last of ten thousand machines minutes after the first, since
/// the bunker waits for relays, or page for page; a bunker that is asked for all of them at once, and
/// drops what is beyond its limits.
#[tokio::test]
async fn a_bunker_has_a_window_of_a_change_and_does_not_wait_for_relays() {
    let (bunker, relays) = (Busy::new(), Keeps::new(TOGETHER));
    let (world, machines) = wanted(&bunker).await;
    look(&world, &relays).await.unwrap();
    assert_eq!(taken(&world, &machines).await, MACHINES, "one look takes all");
    assert_eq!(bunker.most.load(Ordering::SeqCst), AT_BUNKERS);
    assert_eq!(relays.by_machine().len(), MACHINES);
    assert_eq!(relays.events.lock().unwrap().len(), MACHINES);
}

/// Loss prevented: machines that keep the old fees, or get the new ones in two events that contend,
/// since the service died while dozens of documents were under way, each in another step.
#[tokio::test]
async fn a_change_that_dies_at_any_commit_is_one_event_for_each_machine() {
    for commits in [0, 1, 2, 4, 7, 12] {
        let (bunker, relays) = (Busy::new(), Keeps::new(0));
        let (world, machines) = wanted(&bunker).await;
        let death = Death::never();
        world.app.store.dies_by(death.clone());
        death.after(commits);
        tokio::select! {
            () = death.came() => {}
            _ = look(&world, &relays) => panic!("it was done after {commits} commits"),
        }
        let world = world.restarted().await;
        world.app.set_signer(bunker.clone());
        let before = taken(&world, &machines).await;
        assert!(before < MACHINES, "after {commits} commits");
        look(&world, &relays).await.unwrap();
        assert_eq!(taken(&world, &machines).await, MACHINES, "after {commits} commits");
        let events = relays.by_machine();
        assert_eq!(events.len(), MACHINES);
        assert!(events.values().all(|ids| ids.len() == 1), "after {commits} commits: two events");
    }
}
