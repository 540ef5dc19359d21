//! A machine that speaks to the service through a real relay.

pub(crate) mod cash_in;
pub(crate) mod cash_out;
mod denied;
mod gate;
mod hints;
mod minute;
mod revoked;
mod sessions;
mod strangers;
pub(crate) mod verdicts;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitspire_shared::canonical::Sig;
use bitspire_shared::ids::*;
use bitspire_shared::money::{Direction, FeePpm, Sats};
use bitspire_shared::nip44::ConversationKey;
use bitspire_shared::rpc::*;
use bitspire_shared::seed::parse_relay;
use bitspire_shared::statement::{SignedStatement, Statement};
use bitspire_shared::time::Unix;
use bitspire_shell::clock::Clock;
use bitspire_shell::pool::Pool;
use nostr::{Event, Filter, Keys};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use serde_json::json;
use tempfile::TempDir;

use super::roster::Resolver;
use super::*;
use crate::ledger::{Account, Unit};
use crate::relay::Relay;
use crate::store::documents::{self, DocumentKind, Fees, NewDocument};
use crate::store::machines::{self, Machine};
use crate::store::relay_docs::RelayDocs;
use crate::store::{Read, Tx, ledger, operators};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(keys: &Keys) -> PubKey {
    PubKey::new(keys.public_key()).unwrap()
}

pub(crate) fn id<const N: usize>() -> [u8; N] {
    random().unwrap()
}

pub(crate) fn ppm(n: u32) -> FeePpm {
    FeePpm::new(n).unwrap()
}

/// The service with one paired machine. 1 EUR is 1 000 sats; fees are 2 % and 3 %.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) relay: String,
    till: String,
    _peer: Option<LocalRelay>,
    pub(crate) client: Keys,
    pub(crate) ahead: Arc<AtomicU64>,
    pub(crate) app: Arc<App>,
    pub(crate) machine_id: MachineId,
    pub(crate) spire: Keys,
}

pub(crate) fn clock(ahead: &Arc<AtomicU64>) -> Clock {
    let (system, ahead) = (Clock::system(), ahead.clone());
    Clock::new(move || system.now().after(ahead.load(Ordering::SeqCst)))
}

/// The table of the wallet `till`, where a test does not say otherwise.
const SIMULATED: &str = "kind = 'simulated'\nopening_sats = 100000\n";

fn open_app(folder: &TempDir, relay: &str, till: &str, ahead: &Arc<AtomicU64>) -> Arc<App> {
    let file: PathBuf = folder.path().join("operator.toml");
    let text = format!(
        "data_dir = '{}'\n\
         [relay]\nurl = '{relay}'\n\
         [gate]\nrate_limit_per_min = 6000\nburst = 1000\n\
         [public]\nbase_url = 'https://pay.example'\n\
         [rates.fixed]\nEUR = '1000'\n\
         [wallets.till]\n{till}\
         [wallets.stray]\nkind = 'simulated'\n",
        folder.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let (config, _) = crate::config::load(Some(&file), &BTreeMap::new(), &[]).unwrap();
    App::open(config, clock(ahead)).unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_till(SIMULATED).await
    }

    /// The same, with another wallet: the lines of its table.
    pub(crate) async fn with_till(till: &str) -> Self {
        let limit = || RateLimit { max_reqs: 500, notes_per_minute: 100_000 };
        let made = || LocalRelay::new(RelayBuilder::default().rate_limit(limit()));
        let mut relay = made();
        // it looks for a free port first, and another test may take that before it does
        let taken = |error: &str| error.contains("Address already in use");
        for _ in 0..20 {
            match relay.run().await.map_err(|error| error.to_string()) {
                Ok(()) => break,
                Err(error) if taken(&error) => relay = made(),
                Err(error) => panic!("{error}"),
            }
        }
        let url = relay.url().await.to_string();
        Self::on(url, till, Some(relay)).await
    }

    /// The same, behind our own relay.
    pub(crate) async fn embedded() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let world = Self::on(url.clone(), SIMULATED, None).await;
        let app = &world.app;
        let config = crate::relay::Config::new(vec![parse_relay(&url).unwrap()]);
        let path = world.folder.path().join("relay.db");
        let documents = RelayDocs::open(&path, app.clock.now()).unwrap();
        let relay = Relay::new(config, app.roster.clone(), documents, app.stop.clone());
        app.tasks.spawn(crate::relay::serve(listener, relay));
        app.roster.refresh(app).await.unwrap();
        world
    }

    async fn on(relay: String, till: &str, peer: Option<LocalRelay>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ahead = Arc::new(AtomicU64::new(0));
        let app = open_app(&folder, &relay, till, &ahead);
        let (spire, client) = (Keys::generate(), Keys::generate());
        let (now, spire_key, client_key) = (app.clock.now(), key(&spire), key(&client));
        let machine_id = app
            .store
            .write(move |tx| {
                let operator = operators::Operator {
                    name: "Test".into(),
                    pubkey: None,
                    signer: None,
                    bunker_key_name: None,
                    created_at: now,
                };
                let operator = operators::insert(tx, &operator)?;
                let eur = "EUR".parse().unwrap();
                let machine = Machine::new(operator, "Café", "Sintra", eur, "till", now);
                let id = machines::insert(tx, &machine)?;
                machines::set_paired(tx, id, spire_key, "spire-1", now.after(9_000_000), now)?;
                machines::set_client(tx, id, client_key, None)?;
                publish_fees(tx, id, fees_event(), 30_000, now)?;
                Ok::<_, StoreError>(id)
            })
            .await
            .unwrap();
        let till = till.to_owned();
        Self { folder, relay, till, _peer: peer, client, ahead, app, machine_id, spire }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The service with everything in memory lost.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.app = open_app(&self.folder, &self.relay, &self.till, &self.ahead);
    }

    pub(crate) async fn stop(&mut self) {
        self.app.stop.cancel();
        self.app.tasks.close();
        self.app.tasks.wait().await;
        // the lock of the database is free once the last clone is gone
        let folder = tempfile::tempdir().unwrap();
        let parked = open_app(&folder, "ws://127.0.0.1:1", SIMULATED, &self.ahead);
        let old = std::mem::replace(&mut self.app, parked);
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut old = old;
        loop {
            match Arc::try_unwrap(old) {
                Ok(app) => break drop(app),
                Err(shared) => old = shared,
            }
            assert!(std::time::Instant::now() < deadline, "somebody keeps the app");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn serve(&self) -> Arc<Rpc> {
        start(&self.app).await.unwrap()
    }

    pub(crate) async fn serve_with(&self, resolvers: Vec<Box<dyn Resolver>>) -> Arc<Rpc> {
        let rates = crate::rates::start(&self.app).unwrap();
        start_with(&self.app, rates, resolvers).await.unwrap()
    }

    pub(crate) async fn machine(&self) -> Peer {
        Peer::connect(self, self.spire.clone()).await
    }

    /// A machine in service.
    pub(crate) async fn in_service(&self) -> Peer {
        let mut machine = self.machine().await;
        machine.open_session().await.unwrap();
        self.confirm().await;
        machine
    }

    pub(crate) async fn confirm(&self) {
        let (id, now) = (self.machine_id, self.app.clock.now());
        self.write(move |tx| machines::confirm(tx, id, now)).await;
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.app.store.write(job).await.unwrap()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Read<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.app.store.read(query).await.unwrap()
    }

    pub(crate) async fn balance(&self, account: Account) -> i64 {
        self.read(move |read| ledger::balance(read, account, Unit::Sats)).await
    }

    pub(crate) async fn books_hold(&self) {
        let findings = self.read(ledger::findings).await;
        assert!(findings.is_empty(), "{findings:?}");
    }

    pub(crate) async fn audited(&self, action: &'static str) -> usize {
        let rows = self.read(|read| log::audit_tail(read, None, 1_000)).await;
        rows.iter().filter(|row| row.action == action).count()
    }
}

/// A fee document as it was signed: 2 % for the platform, `operator` ppm for the operator.
pub(crate) fn publish_fees(
    tx: &Tx<'_>,
    machine_id: MachineId,
    event: EventId,
    operator: u32,
    now: Unix,
) -> Result<(), StoreError> {
    let (platform, operator) = (ppm(20_000), ppm(operator));
    let fees = Fees {
        cash_in_platform: platform,
        cash_in_operator: operator,
        cash_out_platform: platform,
        cash_out_operator: operator,
    };
    let (kind, fees, body) = (DocumentKind::Fees, Some(fees), json!({}));
    let document = NewDocument { machine_id, kind, body, published_at: now, fees };
    let document = documents::want(tx, &document, now)?;
    documents::set_signed(tx, document, (event, "{}"), now, now).map(drop)
}

/// A machine in service.
pub(crate) async fn serving() -> (World, Peer) {
    serving_with(SIMULATED).await
}

async fn serving_with(till: &str) -> (World, Peer) {
    let world = World::with_till(till).await;
    world.serve().await;
    let machine = world.in_service().await;
    (world, machine)
}

/// A machine in service, and the wallets watched.
pub(crate) async fn trading() -> (World, Peer) {
    trading_with(SIMULATED).await
}

/// The same, with another wallet: the lines of its table.
pub(crate) async fn trading_with(till: &str) -> (World, Peer) {
    let (world, machine) = serving_with(till).await;
    crate::settle::start(&world.app);
    (world, machine)
}

pub(crate) fn fees_event() -> EventId {
    EventId::from_bytes([6; 32])
}

/// What speaks for a machine.
pub(crate) struct Peer {
    pub(crate) spire: Keys,
    pub(crate) session: Keys,
    pub(crate) vault: Keys,
    pub(crate) service: PubKey,
    clock: Clock,
    pool: Pool,
    pub(crate) pushes: Vec<Push>,
    journal: u64,
}

/// The code of a refusal.
pub(crate) type Answer<T> = Result<T, ErrorCode>;

impl Peer {
    pub(crate) async fn connect(world: &World, spire: Keys) -> Self {
        let relays = [world.relay.clone()];
        let all = Arc::new(|_: &str| true);
        let pool = Pool::connect(world.client.clone(), &relays, all).await.unwrap();
        let (session, vault) = (Keys::generate(), Keys::generate());
        let service = key(&Keys::new(world.app.service.secret_key().clone()));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while pool.connected().await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "no relay");
            tokio::task::yield_now().await;
        }
        let mine = Filter::new().kind(Kind::from(wire::KIND)).pubkey(spire.public_key());
        pool.subscribe("spire", mine).await;
        let clock = world.app.clock.clone();
        Self { spire, session, vault, service, clock, pool, pushes: Vec::new(), journal: 0 }
    }

    pub(crate) fn journal(&mut self) -> (JournalSeq, JournalHead) {
        self.journal += 1;
        (JournalSeq(self.journal), JournalHead::from_bytes([self.journal as u8; 32]))
    }

    pub(crate) fn event(&self, signer: &Keys, plaintext: &str) -> Event {
        let cipher = ConversationKey::derive(signer.secret_key(), &self.service).unwrap();
        let content = cipher.encrypt(plaintext, id()).unwrap();
        let event = request_event(&key(signer), &self.service, self.clock.now(), content);
        event.sign_with_keys(signer).unwrap()
    }

    pub(crate) async fn send(&self, event: &Event) {
        assert_eq!(self.pool.send(event).await, 1);
    }

    fn read(&self, signer: &Keys, event: &Event) -> Option<ServiceMessage> {
        assert_eq!(event.pubkey, self.service.nostr());
        let cipher = ConversationKey::derive(signer.secret_key(), &self.service).unwrap();
        let text = cipher.decrypt(&event.content).ok()?;
        Some(ServiceMessage::parse(&text).unwrap())
    }

    /// The next message for `signer`, with the request's event that it answers.
    pub(crate) async fn next(&self, signer: &Keys) -> (Option<nostr::EventId>, ServiceMessage) {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.pool.next()).await.unwrap().unwrap();
            if let Some(message) = self.read(signer, &event) {
                return (event.tags.event_ids().next().copied(), message);
            }
        }
    }

    /// Waits for a push.
    pub(crate) async fn push(&mut self) -> Push {
        if let Some(push) = self.pushes.pop() {
            return push;
        }
        let session = self.session.clone();
        loop {
            if let (_, ServiceMessage::Push { push, .. }) = self.next(&session).await {
                return push;
            }
        }
    }

    /// Sends a request, again after a second, as a machine does, until it is answered.
    pub(crate) async fn request(&mut self, signer: &Keys, request: &Request) -> Reply {
        let plaintext = request.to_plaintext().unwrap();
        let mut sent = Vec::new();
        for _ in 0..30 {
            let event = self.event(signer, &plaintext);
            self.send(&event).await;
            sent.push(event.id);
            let answer = tokio::time::timeout(Duration::from_secs(1), async {
                loop {
                    match self.next(signer).await {
                        (Some(to), ServiceMessage::Reply(reply)) if sent.contains(&to) => {
                            return Ok(reply);
                        }
                        (_, ServiceMessage::Push { push, .. }) => return Err(push),
                        _ => {}
                    }
                }
            });
            match answer.await {
                Ok(Ok(reply)) => return reply,
                Ok(Err(push)) => self.pushes.push(push),
                Err(_) => {}
            }
        }
        panic!("no answer");
    }

    pub(crate) async fn ask<M: Method>(&mut self, body: M) -> Answer<M::Reply> {
        let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
        let session = self.session.clone();
        let reply = self.request(&session, &request).await;
        reply.read::<M>().unwrap().map_err(|error| error.code)
    }

    pub(crate) fn opening(&mut self) -> OpenSession {
        let (journal_seq, journal_head) = self.journal();
        let (spire, vault, now) = (key(&self.spire), key(&self.vault), self.clock.now());
        let expires_at = now.after(3_600);
        let session = key(&self.session);
        let proof = SessionProof { spire, service: self.service, session, vault, expires_at };
        let nonce = Nonce::from_bytes(id());
        let statement = Statement::Vault { spire, vault, nonce, not_after: now.after(600) };
        let event = statement.to_unsigned(&spire, now).unwrap();
        OpenSession {
            session_pubkey: session,
            vault_pubkey: vault,
            expires_at,
            proof: proof.sign(&self.session),
            vault_proof: proof.sign(&self.vault),
            vault_statement: SignedStatement::new(event.sign_with_keys(&self.spire).unwrap()),
            journal_seq,
            journal_head,
        }
    }

    pub(crate) async fn open(&mut self, body: OpenSession) -> Answer<SessionOpened> {
        let request = Request::new(RequestId::from_bytes(id()), body).unwrap();
        let spire = self.spire.clone();
        let reply = self.request(&spire, &request).await;
        let opened = reply.read::<OpenSession>().unwrap().map_err(|error| error.code)?;
        let session = self.session.public_key();
        let mine = Filter::new().kind(Kind::from(wire::KIND)).pubkey(session);
        self.pool.subscribe("session", mine).await;
        Ok(opened)
    }

    pub(crate) async fn open_session(&mut self) -> Answer<SessionOpened> {
        let body = self.opening();
        self.open(body).await
    }

    pub(crate) fn quote(&self, direction: Direction, minor: i64) -> GetQuote {
        GetQuote {
            direction,
            txid: TxnId::from_bytes(id()),
            fiat_minor: minor,
            fiat_code: "EUR".parse().unwrap(),
            claim_hash: ClaimHash::from_bytes(id()),
        }
    }

    pub(crate) fn signed<T: VaultBody>(&self, body: T) -> VaultSigned<T> {
        VaultSigned::sign(body, &self.vault).unwrap()
    }

    /// Whether a signature is the service's leave to dispense.
    pub(crate) fn is_leave(&self, quote: &Quote, hash: PaymentHash, sig: &Sig) -> bool {
        let leave = DispenseAuthorisation {
            spire: key(&self.spire),
            vault: key(&self.vault),
            txid: quote.txid,
            quote_id: quote.quote_id,
            payment_hash: hash,
            wire_sats: quote.wire_sats,
            fiat: quote.terms(key(&self.spire)).fiat,
        };
        leave.verify(sig, &self.service).is_ok()
    }
}

pub(crate) fn sats(n: u64) -> Sats {
    Sats(n)
}
