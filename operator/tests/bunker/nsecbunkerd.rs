//! A double of nsecbunkerd in the tests' own process, with its state in memory.

#[path = "../../../tests/src/nsecbunkerd/wire/mod.rs"]
#[expect(unreachable_pub, reason = "the world's process has it too, where it is public")]
mod wire;

use std::sync::{Arc, Mutex, MutexGuard};

use bitspire_shared::ids::PubKey;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use nostr::{Event, Filter, Keys, Kind};
use tokio::task::JoinHandle;

pub(crate) use self::wire::{FORK, Habits, ODD_FORK, UPSTREAM};
use self::wire::{State, Wire};
use crate::world::{World, public};

/// The running bunker.
pub(crate) struct Nsecbunkerd {
    pub(crate) id: PubKey,
    wire: Wire,
    relays: Vec<String>,
    clock: Clock,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Nsecbunkerd {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Nsecbunkerd {
    /// On the relay of `world`, by its clock.
    pub(crate) async fn start(habits: Habits, admin: PubKey, world: &World) -> Self {
        let keys = Keys::generate();
        let mut bunker = Self {
            id: public(&keys),
            wire: Wire { keys, admin, habits },
            relays: world.relays.clone(),
            clock: world.time.clock(),
            state: Arc::default(),
            task: None,
        };
        bunker.run(vec![]).await;
        bunker
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// All keys are locked afterwards.
    pub(crate) async fn restart(&mut self) {
        self.task.take().unwrap().abort();
        self.state().lock();
        self.run(vec![]).await;
    }

    /// The same on a relay that brings all administrators' requests of before again.
    pub(crate) async fn restart_with_old_requests(&mut self) {
        self.task.take().unwrap().abort();
        let old = {
            let mut state = self.state();
            state.lock();
            state.asked.clear();
            state.replayed()
        };
        self.run(old).await;
    }

    /// Hears `old` first.
    async fn run(&mut self, old: Vec<Event>) {
        let wire = self.wire.clone();
        let pool = Pool::connect(wire.keys.clone(), &self.relays, Arc::new(|_: &str| true));
        let pool = pool.await.unwrap();
        let kinds = [24_133, 24_134].map(Kind::from);
        pool.subscribe("all", Filter::new().kinds(kinds).limit(0)).await;
        let (state, clock) = (self.state.clone(), self.clock.clone());
        for event in old {
            let replies = wire.hear(&mut state.lock().unwrap(), &event, clock.now());
            for reply in replies {
                pool.send(&reply).await;
            }
        }
        self.task = Some(tokio::spawn(async move {
            while let Some(event) = pool.next().await {
                let replies = wire.hear(&mut state.lock().unwrap(), &event, clock.now());
                for reply in replies {
                    pool.send(&reply).await;
                }
            }
        }));
    }
}
