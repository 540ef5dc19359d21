//! Sats from a settled payment to whoever earned them, over restarts, failures and silence.

mod changes;
mod pay_requests;
mod people;
mod providers;
mod sales;
mod seeds;
mod side_by_side;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bitspire_shared::ids::{ClaimCode, PaymentHash, PubKey};
use bitspire_shared::money::{Direction, FeePpm, Msat};
use bitspire_shared::rpc::DispenseOutcome;
use bitspire_shared::split::{FeePair, Split, Terms};
use bitspire_shell::clock::Clock;
use nostr::{JsonUtil as _, Keys};

use super::hands::{self, How, Word};
use super::*;
use crate::audit::{self, Check};
use crate::ledger::{Account, Finding, Unit, settled};
use crate::signer::local::LocalSigner;
use crate::store::claims::{self, NewOwed, OwedReason};
use crate::store::legs::LegKind;
use crate::store::operators::{self, Operator};
use crate::store::rules::{Destination, RuleSet, Scope, Share};
use crate::store::settlements::{Consequences, Settlement, SettlementStatus};
use crate::store::{Json, JsonText, ledger};
use crate::wallet::simulated::{Behaviour, SimulatedNode};
use crate::wallet::{InvoiceRequest, Wallet as _};

const NOW: u64 = 1_800_000_000;
/// What the till holds before its first sale.
const OPENING: u64 = 1_000_000;
/// The rate of every sale: 10 sats a cent.
const SATS_PER_EUR: u64 = 1_000;

/// The service with a machine and four wallets, over restarts.
pub(crate) struct World {
    folder: tempfile::TempDir,
    more: String,
    app: Option<Arc<App>>,
    now: Arc<AtomicU64>,
    keys: Keys,
    machine: MachineId,
    operator: OperatorId,
    /// Which worker this is: a claim of an earlier one is a dead one's.
    life: u32,
}

fn open(folder: &Path, more: &str, now: &Arc<AtomicU64>, keys: &Keys) -> Arc<App> {
    let file = folder.join("operator.toml");
    let text = format!(
        "[wallets.till]\nkind = 'simulated'\nopening_sats = {OPENING}\n[wallets.platform]\n\
         kind = 'simulated'\n[wallets.mine]\nkind = 'simulated'\n[wallets.other]\n\
         kind = 'simulated'\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    let flags = [("data_dir", folder.display().to_string())];
    let (config, _) = crate::config::load(Some(&file), &Default::default(), &flags).unwrap();
    let told = Arc::clone(now);
    let app = App::open(config, Clock::new(move || Unix(told.load(Ordering::SeqCst)))).unwrap();
    app.set_signer(Arc::new(LocalSigner::new(keys.clone()).unwrap()));
    app
}

/// A share of a wallet of ours.
pub(crate) fn to(wallet: &str, ppm: u32) -> Share {
    Share { ppm: FeePpm::new(ppm).unwrap(), to: Destination::Wallet(wallet.into()) }
}

/// Writes a rule set that counts from now on, as its owner signs it.
pub(crate) fn in_force(
    tx: &Tx<'_>,
    keys: &Keys,
    (scope, operator): (Scope, Option<OperatorId>),
    shares: Vec<Share>,
    now: Unix,
) -> Result<(), StoreError> {
    let mut set = RuleSet {
        scope,
        operator_id: operator,
        machine_id: None,
        lp_id: None,
        shares: Json(shares),
        signed: String::new(),
        actor: "test".into(),
        created_at: now,
        in_force_at: now,
        cancelled_at: None,
        cancelled_by: None,
    };
    let event = nostr::EventBuilder::new(nostr::Kind::from(30_078), rules::content(&set).unwrap())
        .tag(nostr::Tag::identifier("bitspire-statement:rules"))
        .sign_with_keys(keys)
        .unwrap();
    set.signed = event.as_json();
    rows::insert(tx, &set).map(|_| ())
}

/// What one worker does once for each settlement, to its end. Workers of one life are one; that there
/// are others at the same time is not known to them.
pub(crate) async fn round(app: &Arc<App>, life: u32) {
    let mut worker = Worker::new(Arc::clone(app)).unwrap();
    worker.token = format!("worker {life}");
    worker.began = true;
    worker.look().await.unwrap();
    let open: Result<Vec<_>, StoreError> = app.store.read(settlements::distributable).await;
    let mut open = open.unwrap();
    // those of one machine come one after the other
    while let Some(done) = worker.next_done().await {
        open.retain(|(id, _)| *id != done);
        worker.begin(&open);
    }
}

impl World {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(more: &str) -> Self {
        // processes die here, computers do not: where there is memory, nothing waits for a disk
        let folder = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm").unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let now = Arc::new(AtomicU64::new(NOW));
        let keys = Keys::generate();
        let app = open(folder.path(), more, &now, &keys);
        let key = PubKey::new(keys.public_key()).unwrap();
        let made = app.store.write(move |tx| {
            let operator = Operator {
                name: "Test".into(),
                pubkey: Some(key),
                signer: Some(operators::SignerKind::Local),
                bunker_key_name: None,
                created_at: Unix(NOW),
            };
            let operator = operators::insert(tx, &operator)?;
            let eur = "EUR".parse().unwrap();
            let new = machines::Machine::new(operator, "Bar", "", eur, "till", Unix(NOW));
            Ok::<_, StoreError>((operator, machines::insert(tx, &new)?))
        });
        let (operator, machine) = made.await.unwrap();
        Self {
            folder,
            more: more.to_owned(),
            app: Some(app),
            now,
            keys,
            machine,
            operator,
            life: 0,
        }
    }

    /// With the platform's fee to `platform`, the operator's to `mine` and `other`.
    async fn ruled() -> Self {
        let world = Self::new().await;
        world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
        world.rules(Scope::Operator, vec![to("mine", 600_000), to("other", 400_000)]).await;
        world
    }

    async fn rules(&self, scope: Scope, shares: Vec<Share>) {
        let (keys, now) = (self.keys.clone(), self.app().clock.now());
        let operator = (scope != Scope::Super).then_some(self.operator);
        self.write(move |tx| in_force(tx, &keys, (scope, operator), shares, now)).await;
    }

    fn app(&self) -> &Arc<App> {
        self.app.as_ref().unwrap()
    }

    fn node(&self) -> SimulatedNode {
        self.app().simulated.clone().unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// As after kill -9: nothing but the files; the claim of the dead worker runs out.
    fn restart(&mut self) {
        self.app = None;
        self.app = Some(open(self.folder.path(), &self.more, &self.now, &self.keys));
        self.life += 1;
        self.pass(LEASE_S + 1);
    }

    async fn round(&self) {
        round(self.app(), self.life).await;
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

    async fn holds(&self, wallet: &str) -> u64 {
        let balance: Msat = self.app().wallets[wallet].balance().await.unwrap();
        balance.to_sats_exact().unwrap().0
    }

    async fn balance(&self, account: Account) -> i64 {
        self.read(move |read| ledger::balance(read, account, Unit::Sats)).await
    }

    async fn legs(&self, id: SettlementId) -> Vec<KeptLeg> {
        self.read(move |read| legs::latest(read, id)).await
    }

    async fn states(&self, id: SettlementId) -> Vec<LegState> {
        self.legs(id).await.iter().map(|leg| leg.state).collect()
    }

    async fn settlement(&self, id: SettlementId) -> Settlement {
        self.read(move |read| settlements::find(read, id)).await.unwrap().row
    }

    async fn audited(&self, action: &'static str) -> usize {
        let rows = self.read(|read| log::audit_tail(read, None, 10_000)).await;
        rows.iter().filter(|row| row.action == action).count()
    }

    /// Books and wallets agree; nothing of what the fees were is anywhere else.
    async fn assert_whole(&self, platform: u64, operator: u64) {
        self.assert_paid(platform, operator).await;
        self.books_are_the_wallets().await;
    }

    async fn assert_paid(&self, platform: u64, operator: u64) {
        assert_eq!(self.balance(Account::Super).await, 0);
        assert_eq!(self.balance(Account::Operator(self.operator)).await, 0);
        assert_eq!(self.holds("platform").await, platform);
        assert_eq!(self.holds("mine").await + self.holds("other").await, operator);
    }

    /// What the ledger has of the till is what the till has, and the audit finds nothing.
    async fn books_are_the_wallets(&self) {
        self.till_is_booked().await;
        assert_eq!(self.differences().await, Vec::<String>::new());
    }

    async fn till_is_booked(&self) {
        let till = i64::try_from(self.holds("till").await).unwrap();
        let opening = i64::try_from(OPENING).unwrap();
        assert_eq!(self.balance(Account::Wallet(self.machine)).await, till - opening);
        let mut findings = self.read(ledger::findings).await;
        // what it began with is in no book
        findings.retain(|one| !matches!(one, Finding::Sign { account: Account::Wallet(_), .. }));
        assert!(findings.is_empty(), "{findings:?}");
    }

    /// What the audit finds of legs and rules: the sales here have no quotes.
    async fn differences(&self) -> Vec<String> {
        let mut found = audit::run(self.app()).await.unwrap().differences;
        let ours = ["leg_", "lp_"];
        found.retain(|one| {
            one.check == Check::Distribution || ours.iter().any(|part| one.subject.contains(part))
        });
        found.iter().map(|one| format!("{one:?}")).collect()
    }

    fn word(&self) -> Word {
        let (actor, reason) = ("cli".into(), "looked into it".into());
        Word { actor, operator: None, platform: true, reason }
    }
}

/// Loss prevented: fees that stay in the machine's wallet, or go out twice.
#[tokio::test]
async fn fees_reach_their_owners_once() {
    let world = World::ruled().await;
    let id = world.full().await;
    for _ in 0..3 {
        world.round().await;
        assert_eq!(world.states(id).await, [LegState::Paid; 3]);
        assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    }
    let legs = world.legs(id).await;
    let told: Vec<_> = legs.iter().map(|leg| (leg.kind, leg.amount_sats.0)).collect();
    let share = LegKind::OperatorSplit;
    assert_eq!(told, [(LegKind::SuperFee, 200), (share, 180), (share, 120)]);
    assert_eq!((world.holds("mine").await, world.holds("other").await), (180, 120));
    world.assert_whole(200, 300).await;
}

/// Loss prevented: a sale without notes pays fees; or one whose end nobody knows.
#[tokio::test]
async fn nothing_moves_before_the_machine_has_said_how_it_ended() {
    let world = World::ruled().await;
    let id = world.sold(10_000, None).await;
    world.round().await;
    assert!(world.legs(id).await.is_empty());
    let refused = hands::release(world.app(), id, world.word()).await;
    assert!(matches!(refused, Err(hands::HandsError::Settlement { .. })), "{refused:?}");
    assert_eq!(world.settlement(id).await.distribution, Distribution::Held);
    assert_eq!(world.holds("platform").await, 0);
}

/// Loss prevented: a crash anywhere between plan and books pays a leg twice, or never.
#[tokio::test]
async fn a_restart_at_each_step_pays_each_leg_once() {
    for behaviour in [Behaviour::Succeed, Behaviour::LoseAnswer, Behaviour::Pend] {
        let mut world = World::ruled().await;
        let id = world.full().await;
        world.restart();
        // planned, and no wallet was reached
        world.node().set_reachable(false);
        world.round().await;
        assert_eq!(world.states(id).await, [LegState::Planned; 3]);
        assert!(world.legs(id).await[0].detail.as_ref().unwrap().contains("cannot be reached"));
        world.restart();
        world.node().set_reachable(true);
        world.node().script([behaviour; 3]);
        world.round().await;
        world.restart();
        if behaviour == Behaviour::Pend {
            for _ in 0..2 {
                world.round().await;
                assert_eq!(world.states(id).await, [LegState::Bound; 3], "pending is not failed");
            }
            for leg in world.legs(id).await {
                world.node().resolve("till", leg.payment_hash.unwrap(), true).unwrap();
            }
        }
        world.round().await;
        assert_eq!(world.states(id).await, [LegState::Paid; 3], "{behaviour:?}");
        assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
        world.assert_whole(200, 300).await;
    }
}

/// Loss prevented: two workers pay one leg.
#[tokio::test]
async fn a_claim_keeps_others_away_until_it_runs_out() {
    let world = World::ruled().await;
    let id = world.full().await;
    world.node().script([Behaviour::Pend; 3]);
    world.round().await;
    for leg in world.legs(id).await {
        world.node().resolve("till", leg.payment_hash.unwrap(), true).unwrap();
    }
    round(world.app(), 99).await;
    assert_eq!(world.states(id).await, [LegState::Bound; 3], "it is the other worker's");
    world.pass(LEASE_S + 1);
    round(world.app(), 99).await;
    assert_eq!(world.states(id).await, [LegState::Paid; 3]);
    world.assert_whole(200, 300).await;
}

/// Loss prevented: the platform's fee is kept by the operator because nobody had named its wallet.
#[tokio::test]
async fn the_platforms_leg_waits_for_its_wallet() {
    let world = World::new().await;
    let id = world.full().await;
    world.round().await;
    let held = world.settlement(id).await;
    assert_eq!(held.hold_reason.as_deref(), Some(NO_SUPER_WALLET));
    assert_eq!(world.states(id).await, [LegState::Planned]);
    let refused = hands::release(world.app(), id, world.word()).await;
    assert!(matches!(refused, Err(hands::HandsError::Settlement { .. })), "{refused:?}");
    world.rules(Scope::Super, vec![to("platform", 1_000_000)]).await;
    world.round().await;
    assert_eq!(world.settlement(id).await.distribution, Distribution::Processed);
    assert_eq!(world.holds("platform").await, 200);
    assert_eq!(world.balance(Account::Operator(world.operator)).await, -300, "no rules: it stays");
    world.books_are_the_wallets().await;
}

/// Loss prevented: fees are paid with sats that customers were promised.
#[tokio::test]
async fn customers_come_first() {
    let world = World::ruled().await;
    let id = world.full().await;
    let machine = world.machine;
    let debt = NewOwed {
        claim_hash: ClaimCode::from_bytes([7; 16]).hash(),
        machine_id: machine,
        txid: TxnId::from_bytes([1; 16]),
        reason: OwedReason::Late,
        source: "late".into(),
        sats: Sats(OPENING + 10_000),
    };
    world.write(move |tx| claims::owe(tx, &debt, Unix(NOW)).map(|_| ())).await;
    world.round().await;
    assert_eq!(world.states(id).await, [LegState::Planned; 3]);
    let why = world.legs(id).await[0].detail.clone().unwrap();
    assert!(why.contains("customers were promised"), "{why}");
    world.sold(10_000, None).await;
    world.round().await;
    assert_eq!(world.states(id).await, [LegState::Paid; 3]);
}

/// Loss prevented: rows that no code wrote: a leg beyond the fee, a split that changes under its
/// legs, an end before the legs have ended, an invoice that takes another's place.
#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() {
    let world = World::ruled().await;
    let id = world.full().await;
    world.node().script([Behaviour::Pend]);
    world.round().await;
    let leg = world.legs(id).await.remove(0);
    let more = [legs::NewLeg { kind: LegKind::SuperFee, lp: None, amount: Sats(1), to: None }];
    type Job = Box<dyn FnOnce(&Tx<'_>) -> Result<(), StoreError> + Send>;
    let write = |job: Job| world.app().store.write(job);
    let other = PaymentHash::from_bytes([9; 32]);
    assert!(write(Box::new(move |tx| legs::plan(tx, id, &more, Unix(NOW)))).await.is_err());
    assert!(write(Box::new(move |tx| legs::bind(tx, leg.id, other))).await.is_err());
    let token = "worker 0";
    let early = move |tx: &Tx<'_>| settlements::finish(tx, id, token, Distribution::Processed);
    assert!(write(Box::new(early)).await.is_err());
    let again = world.legs(id).await.remove(1);
    assert!(
        write(Box::new(move |tx| legs::again(tx, &again, Unix(NOW)).map(|_| ()))).await.is_err()
    );
}
