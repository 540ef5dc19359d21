//! Bunkers that take their time, or do not answer: what somebody who waits for a document is told
//! meanwhile, and what becomes of the documents of others.

use bitspire_shared::money::FeePpm;
use tokio::sync::{mpsc, watch};

use super::many::Keeps;
use super::*;
use crate::publish::fees;
use crate::publish::status::Light;
use crate::publish::worker::{AT_BUNKERS, Publisher};
use crate::store::log;
use crate::store::operators::Operator;

/// A bunker that encrypts as it is told: one answer for each document.
struct Gated {
    inner: Double,
    asked: watch::Sender<usize>,
    /// Whether it answers the next one; once nobody says so any more, it does.
    answers: tokio::sync::Mutex<mpsc::UnboundedReceiver<bool>>,
}

impl RemoteSigner for Gated {
    fn key(&self) -> PubKey {
        self.inner.key
    }

    fn sign(&self, event: UnsignedEvent) -> SignerResult<'_, Event> {
        self.inner.sign(event)
    }

    fn encrypt(&self, peer: PubKey, text: Zeroizing<String>) -> SignerResult<'_, String> {
        Box::pin(async move {
            self.asked.send_modify(|asked| *asked += 1);
            match self.answers.lock().await.recv().await {
                Some(false) => Err(SignerError::NoReply { method: "nip44_encrypt", seconds: 15 }),
                Some(true) | None => self.inner.encrypt(peer, text).await,
            }
        })
    }

    fn decrypt(&self, peer: PubKey, payload: String) -> SignerResult<'_, Zeroizing<String>> {
        self.inner.decrypt(peer, payload)
    }
}

/// A daemon whose operator has such a bunker.
struct Bench {
    world: World,
    bunker: Arc<Gated>,
    answers: Option<mpsc::UnboundedSender<bool>>,
    relays: Arc<Keeps>,
    machines: Vec<MachineId>,
}

impl Bench {
    /// With so many machines.
    async fn new(machines: usize) -> Self {
        let world = World::in_memory("[relay]\nembedded = false\n").await;
        let (say, answers) = mpsc::unbounded_channel();
        let (inner, asked) = (Double::new(), watch::Sender::new(0));
        let bunker = Arc::new(Gated { inner, asked, answers: tokio::sync::Mutex::new(answers) });
        let relays = Keeps::new(0);
        let (answers, machines_left) = (Some(say), machines);
        let mut bench = Self { world, bunker, answers, relays, machines: Vec::new() };
        let key = bench.bunker.key();
        bench
            .write(move |tx| {
                let operator = operators::list(tx)?.remove(0).id;
                operators::set_identity(tx, operator, key, SignerKind::Bunker, Some("operator"))
            })
            .await;
        bench.app().set_signer(bench.bunker.clone());
        for n in 0..machines_left {
            let peer = paired(bench.app(), &format!("till-{n}")).await;
            bench.machines.push(peer.id);
        }
        bench
    }

    fn app(&self) -> &Arc<App> {
        &self.world.app
    }

    fn publisher(&self) -> Publisher<Keeps> {
        Publisher::new(self.app().clone(), self.relays.clone())
    }

    /// The publisher works from now on.
    fn runs(&self) {
        self.app().tasks.spawn(self.publisher().run(self.app().listen()));
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.app().store.write(job).await.unwrap()
    }

    async fn fees(&self, id: MachineId) -> status::Standing {
        let read = self.app().store.read(move |read| status::of_machine(read, id));
        read.await.unwrap().fees.unwrap()
    }

    /// How many of the machines' fees are so.
    async fn count(&self, is_so: impl Fn(&status::Standing) -> bool) -> usize {
        let mut count = 0;
        for id in &self.machines {
            count += usize::from(is_so(&self.fees(*id).await));
        }
        count
    }

    /// The operator answers so many of the documents that its bunker has, or will have.
    fn answers(&self, answers: bool, documents: usize) {
        let say = self.answers.as_ref().unwrap();
        (0..documents).for_each(|_| say.send(answers).unwrap());
    }

    /// The bunker has been asked for so many.
    async fn asked(&self, documents: usize) {
        let mut asked = self.bunker.asked.subscribe();
        let wait = asked.wait_for(|asked| *asked >= documents);
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert_eq!(*waited.expect("the bunker is not asked").unwrap(), documents);
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let wait = async {
            while !holds().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn is_republished(&self) {
        let written = async || {
            let read =
                self.app().store.read(|read| log::of_action(read, "machine.republish", None));
            let written: Result<Vec<_>, StoreError> = read.await;
            !written.unwrap().is_empty()
        };
        self.until("it is asked for", written).await;
    }
}

fn ppm(ppm: u32) -> FeePpm {
    FeePpm::new(ppm).unwrap()
}

async fn want(app: &App, id: MachineId, cash_out: u32) {
    fees::set(app, "cli", None, id, None, Some(ppm(cash_out))).await.unwrap();
}

async fn look(publisher: &Publisher<Keeps>) {
    let look = tokio::time::timeout(PATIENCE, publisher.look()).await;
    look.expect("a look ends").unwrap();
}

/// Loss prevented: an operator who unlocks the bunker, asks once more, and is told that no relay has the
/// fees: by an attempt from before, while they go out; or whose asking is undone by it.
#[tokio::test]
async fn an_attempt_from_before_is_no_answer_to_a_republish() {
    let bench = Bench::new(1).await;
    let id = bench.machines[0];
    bench.runs();
    want(bench.app(), id, 10_000).await;
    bench.asked(1).await;
    let meanwhile = async {
        bench.is_republished().await;
        bench.answers(false, 1);
        bench.asked(2).await;
        bench.answers(true, 1);
    };
    let republish = publish::republish(bench.app(), "cli", None, id);
    let (came, ()) = tokio::join!(republish, meanwhile);
    assert_eq!(came.unwrap().fees.unwrap().light, Light::RelayAcked);
}

/// Loss prevented: an operator who is told that the machine's fees are with no relay, though newer ones
/// than those that were asked for are.
#[tokio::test]
async fn a_newer_version_answers_a_republish_too() {
    let bench = Bench::new(1).await;
    let id = bench.machines[0];
    bench.runs();
    want(bench.app(), id, 10_000).await;
    bench.asked(1).await;
    let meanwhile = async {
        bench.is_republished().await;
        want(bench.app(), id, 20_000).await;
        bench.answers(true, 2);
    };
    let republish = publish::republish(bench.app(), "cli", None, id);
    let (came, ()) = tokio::join!(republish, meanwhile);
    let fees = came.unwrap().fees.unwrap();
    assert_eq!(fees.light, Light::RelayAcked);
    assert_eq!(fees.body["cash_out_fee_fraction"], serde_json::json!(0.02));
}

/// Loss prevented: fees that reach their machine only when the bunker of another operator has answered,
/// or not: a quarter of a minute for each question, for as long as it is away.
#[tokio::test]
async fn a_bunker_that_is_asked_keeps_nothing_of_others_from_being_begun() {
    let bench = Bench::new(1).await;
    bench.runs();
    want(bench.app(), bench.machines[0], 10_000).await;
    bench.asked(1).await;

    let other = Arc::new(Double::new());
    let (key, now) = (other.key, bench.app().clock.now());
    let operator = bench
        .write(move |tx| {
            let operator = Operator {
                name: "Other".into(),
                pubkey: Some(key),
                signer: Some(SignerKind::Bunker),
                bunker_key_name: Some("other".into()),
                created_at: now,
            };
            operators::insert(tx, &operator)
        })
        .await;
    bench.app().set_signer(other);
    let peer = paired_of(bench.app(), operator, "bar").await;
    want(bench.app(), peer.id, 20_000).await;
    let acked = async || bench.fees(peer.id).await.light == Light::RelayAcked;
    bench.until("a relay has the other's", acked).await;
    assert_eq!(bench.fees(bench.machines[0]).await.light, Light::Wanted);
}

/// Loss prevented: an operator's dead bunker that is asked for each of its documents, again and again, in
/// the places of those that would answer; or that is not asked any more when it is there again.
#[tokio::test]
async fn a_bunker_that_stays_away_is_asked_with_one_document() {
    let all = 2 * AT_BUNKERS;
    let mut bench = Bench::new(all).await;
    for id in &bench.machines {
        want(bench.app(), *id, 10_000).await;
    }
    let publisher = bench.publisher();
    let found_out = async {
        bench.asked(AT_BUNKERS).await;
        bench.answers(false, AT_BUNKERS);
    };
    tokio::join!(look(&publisher), found_out);
    assert_eq!(bench.count(|fees| fees.attempts == 1).await, all);

    bench.world.pass(1);
    let asked_once = async {
        bench.asked(AT_BUNKERS + 1).await;
        let others = async || bench.count(|fees| fees.attempts == 2).await == all - 1;
        bench.until("the others wait", others).await;
        bench.answers(false, 1);
    };
    tokio::join!(look(&publisher), asked_once);
    bench.asked(AT_BUNKERS + 1).await;

    bench.answers = None;
    for _ in 0..3 {
        bench.world.pass(30);
        look(&publisher).await;
    }
    assert_eq!(bench.count(|fees| fees.light == Light::RelayAcked).await, all);
}
