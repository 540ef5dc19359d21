//! Publishing as a relay and a machine see it, with the operator's key in a double of its bunker.

mod asked;
mod cassettes;
mod converge;
mod fees;
mod lies;
mod lineage;
mod many;
mod rollout;
mod states;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bitspire_shared::document::{Checked, DTag, DocumentKind as Address, check_event};
use bitspire_shared::ids::PubKey;
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::time::Unix;
use bitspire_shell::pool::Pool;
use nostr::{Event, Filter, Keys, UnsignedEvent};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use zeroize::Zeroizing;

use crate::app::{App, Ring};
use crate::ids::{MachineId, OperatorId};
use crate::publish;
use crate::publish::status::{self, Documents};
use crate::signer::{RemoteSigner, SignerError, SignerResult};
use crate::store::machines::{self, Machine};
use crate::store::operators::{self, SignerKind};
use crate::store::{Read, StoreError, Tx};
use crate::testing::{World, key};

/// Longer than what was missed at the end of one longest wait takes to be tried again.
const PATIENCE: Duration = Duration::from_secs(120);

/// The operator's bunker: answers, or does not, or signs something else.
struct Double {
    keys: Keys,
    key: PubKey,
    answers: AtomicBool,
    lies: AtomicBool,
}

impl Double {
    fn new() -> Self {
        let keys = Keys::generate();
        let key = PubKey::new(keys.public_key()).unwrap();
        let (answers, lies) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { keys, key, answers, lies }
    }

    fn down<T>(&self, method: &'static str) -> Result<(), Result<T, SignerError>> {
        if self.answers.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Err(SignerError::NoReply { method, seconds: 15 }))
    }

    fn cipher(&self, peer: PubKey) -> ConversationKey {
        ConversationKey::derive(self.keys.secret_key(), &peer).unwrap()
    }
}

impl RemoteSigner for Double {
    fn key(&self) -> PubKey {
        self.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        Box::pin(async move {
            match self.down("sign_event") {
                Ok(()) if self.lies.load(Ordering::SeqCst) => {
                    let what = "the signer's event does not hold".to_owned();
                    Err(SignerError::Lied { method: "sign_event", what })
                }
                Ok(()) => Ok(event.sign_with_keys(&self.keys).unwrap()),
                Err(error) => error,
            }
        })
    }

    fn encrypt(&self, peer: PubKey, text: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async move {
            match self.down("nip44_encrypt") {
                Ok(()) => Ok(self.cipher(peer).encrypt(&text, rand()).unwrap()),
                Err(error) => error,
            }
        })
    }

    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>> {
        Box::pin(async move {
            match self.down("nip44_decrypt") {
                Ok(()) => Ok(Zeroizing::new(self.cipher(peer).decrypt(&payload).unwrap())),
                Err(error) => error,
            }
        })
    }
}

fn rand() -> [u8; 32] {
    bitspire_shell::secrets::random().unwrap()
}

/// A daemon whose one relay is at an address of its own, and its operator's bunker.
struct Site {
    world: World,
    port: u16,
    bunker: Arc<Double>,
}

/// A machine and the keys that it has.
struct Peer {
    id: MachineId,
    spire: Keys,
    vault: Keys,
}

impl Peer {
    fn key(&self) -> PubKey {
        PubKey::new(self.spire.public_key()).unwrap()
    }
}

impl Site {
    /// Runs; nobody is at the relay's address yet.
    async fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let relay = format!("[relay]\nembedded = false\nurl = 'ws://127.0.0.1:{port}'\n");
        let world = World::with(&relay).await;
        let bunker = Arc::new(Double::new());
        let key = bunker.key;
        let site = Self { world, port, bunker };
        site.write(move |tx| {
            let operator = operators::list(tx)?.remove(0).id;
            operators::set_identity(tx, operator, key, SignerKind::Bunker, Some("operator"))
        })
        .await;
        site.app().set_signer(site.bunker.clone());
        publish::start(site.app()).await.unwrap();
        site
    }

    fn app(&self) -> &Arc<App> {
        &self.world.app
    }

    /// With the same folder, relay address and bunker.
    async fn restarted(self) -> Self {
        let Self { world, port, bunker } = self;
        let world = world.restarted().await;
        world.app.set_signer(bunker.clone());
        publish::start(&world.app).await.unwrap();
        Self { world, port, bunker }
    }

    async fn relay(&self) -> LocalRelay {
        let relay = LocalRelay::new(RelayBuilder::default().port(self.port));
        relay.run().await.unwrap();
        relay
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.app().store.write(job).await.unwrap()
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Read<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.app().store.read(query).await.unwrap()
    }

    async fn documents(&self, id: MachineId) -> Documents {
        self.read(move |read| status::of_machine(read, id)).await
    }

    /// A paired machine with its vault pinned, which nothing was published for yet.
    async fn paired(&self, wallet: &'static str) -> Peer {
        paired(self.app(), wallet).await
    }

    /// Connects to the relay as anybody.
    async fn pool(&self) -> Pool {
        let url = format!("ws://127.0.0.1:{}", self.port);
        Pool::connect(Keys::generate(), &[url], Arc::new(|_: &str| true)).await.unwrap()
    }

    /// Every event of the operator from now on, and what the relay has.
    async fn reader(&self) -> Pool {
        let pool = self.pool().await;
        pool.subscribe("all", Filter::new().author(self.bunker.key.nostr())).await;
        pool
    }

    /// Waits until `holds` does, while the daemon's time passes.
    async fn until<T>(&self, what: &str, holds: impl AsyncFn() -> Option<T>) -> T {
        let wait = async {
            let mut look = tokio::time::interval(Duration::from_millis(100));
            loop {
                look.tick().await;
                self.world.pass(1);
                if let Some(found) = holds().await {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"))
    }
}

/// A paired machine of the first operator with its vault pinned, which nothing was published for yet.
async fn paired(app: &Arc<App>, wallet: &str) -> Peer {
    let first = app.store.read(|read| Ok::<_, StoreError>(operators::list(read)?.remove(0).id));
    paired_of(app, first.await.unwrap(), wallet).await
}

async fn paired_of(app: &Arc<App>, operator: OperatorId, wallet: &str) -> Peer {
    let wallet = wallet.to_owned();
    let (spire, vault) = (Keys::generate(), Keys::generate());
    let key_of = |keys: &Keys| PubKey::new(keys.public_key()).unwrap();
    let (spire_key, vault_key, now) = (key_of(&spire), key_of(&vault), app.clock.now());
    let id = app.store.write(move |tx| {
        let row = Machine::new(operator, &wallet, "", "EUR".parse().unwrap(), &wallet, now);
        let id = machines::insert(tx, &row)?;
        machines::set_paired(tx, id, spire_key, &wallet, now.after(3_600), now)?;
        machines::set_client(tx, id, key(), None)?;
        machines::pin_vault(tx, id, vault_key)?;
        Ok(id)
    });
    let id: Result<MachineId, StoreError> = id.await;
    app.ring(Ring::Roster);
    Peer { id: id.unwrap(), spire, vault }
}

async fn next(pool: &Pool) -> Event {
    tokio::time::timeout(PATIENCE, pool.next()).await.unwrap().unwrap()
}

/// What a machine reads: checked and decrypted.
fn open(site: &Site, peer: &Peer, kind: Address, event: &Event) -> (Checked, String) {
    let address = DTag { kind, spire: peer.key() };
    let (operator, spire) = (site.bunker.key, peer.key());
    let now = Unix(event.created_at.as_secs());
    let checked = check_event(event, &address, &operator, &spire, now).unwrap();
    let cipher = ConversationKey::derive(peer.spire.secret_key(), &operator).unwrap();
    let text = checked.open(&cipher).unwrap();
    (checked, text)
}
