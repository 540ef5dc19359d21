//! Whatever relays, clocks and power do: a machine ends with what its operator wanted last.
//!
//! The operator's side is the real one: store, wishes, outbox, worker, what a report makes of it.
//! The machine is its rule of application, made of the same functions as the vault's: check, watermark,
//! each change once. Between them are relays that lose, double, delay, reorder, forget, keep old
//! versions, say OK and lie, and carry what others publish under the machine's name.

mod relays;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bitspire_shared::document::watermark::{Decision, Mark, decide};
use bitspire_shared::document::{Action, BayCount, Cassettes, FeesDocument, apply};
use bitspire_shared::ids::{BayId, ChangeId, EventId, JournalSeq};
use bitspire_shared::money::{Currency, Direction, FeePpm};
use nostr::{EventBuilder, Kind as EventKind};

use self::relays::{Between, Chance, Shared};
use super::*;
use crate::publish::cassettes::{Wish, Wishes};
use crate::publish::status::{Light, Standing};
use crate::publish::worker::Publisher;
use crate::publish::{self, fees};

/// How many seeds are played, unless `BITSPIRE_SEEDS` says it.
const SEEDS: u64 = 500;
/// Acts of one story.
const ACTS: u64 = 20;
/// How far a machine's clock may be off, and the operator's may jump, in seconds.
const SKEW_S: u64 = 200;

/// What a machine keeps over a restart.
#[derive(Default)]
struct Reader {
    fees: Option<(Mark, FeesDocument)>,
    cassettes: Option<(Mark, BTreeSet<ChangeId>)>,
    bays: BTreeMap<BayId, BayCount>,
    before: BTreeSet<ChangeId>,
    applied: u64,
}

impl Reader {
    fn takes(&mut self, site: &Bench, peer: &Peer, event: &Event, now: Unix) {
        let Ok(d) = event.tags.identifier().unwrap_or_default().parse::<DTag>() else { return };
        let address = DTag { kind: d.kind, spire: peer.key() };
        let operator = site.bunker.key;
        let Ok(checked) = check_event(event, &address, &operator, &peer.key(), now) else { return };
        let cipher = ConversationKey::derive(peer.spire.secret_key(), &operator).unwrap();
        let text = checked.open(&cipher).unwrap();
        let counts = match d.kind {
            Address::Fees => {
                let document = FeesDocument::from_json(&text).unwrap();
                let mark = checked.mark(Some(document.published_at));
                let last = self.fees.as_ref().map(|(mark, _)| *mark);
                let counts = decide(last.as_ref(), &mark, now) == Decision::Apply;
                if counts {
                    assert!(last < Some(mark), "a version never goes back");
                    self.fees = Some((mark, document));
                }
                counts
            }
            Address::Cassettes => self.counted(&checked, &text, now),
            Address::CassettesState => return,
        };
        self.applied += u64::from(counts);
    }

    fn counted(&mut self, checked: &Checked, text: &str, now: Unix) -> bool {
        let document = Cassettes::from_json(text, eur()).unwrap();
        let mark = checked.mark(document.published_at);
        let last = self.cassettes.as_ref().map(|(mark, _)| *mark);
        if decide(last.as_ref(), &mark, now) != Decision::Apply {
            return false;
        }
        for (bay, position) in &document.positions {
            let denomination = position.denomination;
            let fresh = BayCount { denomination, count: 0, last_set: JournalSeq(0) };
            self.bays.entry(*bay).or_insert(fresh);
        }
        let changes = document.changes.unwrap_or_default();
        let applied = apply(&self.bays, &self.before, &changes);
        self.bays = applied.counts;
        self.before.extend(applied.decided.iter().filter(|d| d.result.is_ok()).map(|d| d.id));
        self.cassettes = Some((mark, changes.iter().map(|change| change.id).collect()));
        true
    }

    fn in_force(&self) -> BTreeSet<EventId> {
        let fees = self.fees.as_ref().map(|(mark, _)| mark.id);
        fees.into_iter().chain(self.cassettes.as_ref().map(|(mark, _)| mark.id)).collect()
    }
}

fn eur() -> Currency {
    "EUR".parse().unwrap()
}

/// A daemon whose relays are simulated.
struct Bench {
    world: World,
    bunker: Arc<Double>,
}

/// One machine's story.
struct Story<'a> {
    bench: &'a Bench,
    peer: Peer,
    reader: Reader,
    relays: Arc<Shared>,
    chance: Chance,
    /// How far the machine's clock is behind the operator's.
    behind: u64,
    /// What the operator wanted last.
    wanted: u32,
    notes: u32,
    changed: BTreeSet<ChangeId>,
}

impl Bench {
    async fn new() -> Self {
        let world = World::in_memory("[relay]\nembedded = false\n").await;
        let bunker = Arc::new(Double::new());
        let key = bunker.key;
        let set = world.app.store.write(move |tx| {
            let operator = operators::list(tx)?.remove(0).id;
            operators::set_identity(tx, operator, key, SignerKind::Bunker, Some("operator"))
        });
        let set: Result<(), StoreError> = set.await;
        set.unwrap();
        world.app.set_signer(bunker.clone());
        Self { world, bunker }
    }

    async fn restarted(self) -> Self {
        let Self { world, bunker } = self;
        let world = world.restarted().await;
        world.app.set_signer(bunker.clone());
        Self { world, bunker }
    }

    async fn story(&self, seed: u64) -> Story<'_> {
        let peer = paired(&self.world.app, &format!("till-{seed}")).await;
        let between = Between::new(seed.wrapping_mul(2).wrapping_add(1));
        let relays = Arc::new(Shared(Mutex::new(between)));
        let chance = Chance(seed);
        Story {
            bench: self,
            peer,
            reader: Reader::default(),
            relays,
            chance,
            behind: 0,
            wanted: 0,
            notes: 0,
            changed: BTreeSet::new(),
        }
    }
}

impl Story<'_> {
    fn app(&self) -> &Arc<App> {
        &self.bench.world.app
    }

    /// The worker looks at what is due, or dies in the middle of it.
    async fn look(&mut self) {
        let publisher = Publisher::new(self.app().clone(), self.relays.clone());
        let dies = self.chance.percent(15) && !self.relays.0.lock().unwrap().good;
        let mut steps = if dies { self.chance.below(6) } else { u64::MAX };
        let mut look = Box::pin(publisher.look());
        std::future::poll_fn(|context| {
            if steps == 0 {
                return std::task::Poll::Ready(());
            }
            steps -= 1;
            look.as_mut().poll(context).map(Result::unwrap)
        })
        .await;
    }

    async fn wants_fees(&mut self) {
        self.wanted = 1_000 + u32::try_from(self.chance.below(90)).unwrap() * 1_000;
        let fee = Some(FeePpm::new(self.wanted).unwrap());
        fees::set(self.app(), "cli", None, self.peer.id, None, fee).await.unwrap();
    }

    async fn puts_notes(&mut self) {
        let more = 1 + u32::try_from(self.chance.below(9)).unwrap();
        let action = Action::Delta(i32::try_from(more).unwrap());
        let wish = Wish { bay: BayId::new(1).unwrap(), denomination: Some(20), action };
        let wishes = Wishes { bays: vec![wish], reason: String::new(), base_seq: None };
        let changed = publish::cassettes::change(self.app(), "cli", None, self.peer.id, wishes);
        // 64 open changes are the most
        if let Ok((ids, _)) = changed.await {
            self.changed.extend(ids);
            self.notes += more;
        }
    }

    fn machine_time(&self) -> Unix {
        Unix(self.app().clock.now().0.saturating_sub(self.behind))
    }

    /// What is on its way arrives, as the relays please.
    fn arrives(&mut self) {
        let mut arriving = {
            let mut between = self.relays.0.lock().unwrap();
            let mut arriving = std::mem::take(&mut between.under_way);
            if between.wrong(30) && !between.all.is_empty() {
                let all = between.all.len() as u64;
                let which = between.chance.below(all);
                arriving.push(between.all[usize::try_from(which).unwrap()].clone());
            }
            if between.wrong(20) {
                arriving.reverse();
            }
            if between.wrong(20) {
                between.under_way = arriving.split_off(arriving.len() / 2);
            }
            arriving
        };
        if self.chance.percent(20) {
            arriving.extend(self.lies());
        }
        let now = self.machine_time();
        for event in arriving {
            self.reader.takes(self.bench, &self.peer, &event, now);
        }
    }

    /// What others publish under the machine's name, and a good event that somebody has changed.
    fn lies(&self) -> Vec<Event> {
        let address = DTag { kind: Address::Fees, spire: self.peer.key() };
        let stranger = EventBuilder::new(EventKind::from(30_078), "x")
            .tags([nostr::Tag::identifier(address.to_string())])
            .sign_with_keys(&Keys::generate())
            .unwrap();
        let changed = self.relays.0.lock().unwrap().all.last().cloned().map(|mut event| {
            event.created_at = nostr::Timestamp::from(event.created_at.as_secs() + 90);
            event
        });
        changed.into_iter().chain([stranger]).collect()
    }

    /// The machine connects anew: relays give what they keep.
    fn reconnects(&mut self) {
        let mut between = self.relays.0.lock().unwrap();
        let kept: Vec<_> = between
            .relays
            .iter()
            .filter(|relay| relay.up)
            .flat_map(|relay| relay.kept.values().cloned())
            .collect();
        between.under_way.extend(kept);
        drop(between);
        self.arrives();
    }

    /// A heartbeat arrives at the operator.
    async fn reports(&self) {
        let (id, now) = (self.peer.id, self.app().clock.now());
        let applied = self.reader.in_force();
        let named = self.reader.cassettes.as_ref().map(|(_, named)| named.clone());
        let done: BTreeSet<_> =
            named.unwrap_or_default().intersection(&self.reader.before).copied().collect();
        let heard =
            self.app().store.write(move |tx| publish::heard(tx, id, &applied, &done, now)).await;
        let heard: Result<(), StoreError> = heard;
        heard.unwrap();
        self.the_page_is_true().await;
    }

    /// "On the machine" is said of what the machine said it applies, and of nothing else.
    async fn the_page_is_true(&self) {
        let id = self.peer.id;
        let shown = self.app().store.read(move |read| status::of_machine(read, id)).await.unwrap();
        let in_force = self.reader.in_force();
        for standing in [shown.fees, shown.cassettes].into_iter().flatten() {
            let there = standing.event_id.is_some_and(|event| in_force.contains(&event));
            assert_eq!(standing.on_machine, there, "{standing:?}");
            assert_eq!(standing.light == Light::Applied, there, "{standing:?}");
        }
    }

    async fn act(&mut self) {
        match self.chance.below(12) {
            0 | 1 => self.wants_fees().await,
            2 => self.puts_notes().await,
            3 | 4 => self.look().await,
            5 => self.arrives(),
            6 => self.reconnects(),
            7 => self.reports().await,
            8 => {
                let seconds = [1, 5, 40, 400][usize::try_from(self.chance.below(4)).unwrap()];
                self.bench.world.pass(seconds);
            }
            9 => {
                let which = usize::try_from(self.chance.below(2)).unwrap();
                let forgets = self.chance.percent(50);
                let relay = &mut self.relays.0.lock().unwrap().relays[which];
                relay.up = !relay.up;
                if forgets {
                    relay.kept.clear();
                }
            }
            10 => {
                let answers = self.chance.percent(60);
                self.bench.bunker.answers.store(answers, Ordering::SeqCst);
            }
            // a clock that is set; the machine's own is off by something else then
            _ => {
                self.bench.world.jump_back(self.chance.below(SKEW_S / 4));
                self.behind = self.chance.below(SKEW_S);
            }
        }
    }

    /// Nothing goes wrong any more: a few heartbeats later all is as wanted.
    async fn converges(&mut self) {
        self.bench.bunker.answers.store(true, Ordering::SeqCst);
        {
            let mut between = self.relays.0.lock().unwrap();
            between.good = true;
            between.relays.iter_mut().for_each(|relay| relay.up = true);
        }
        for _ in 0..3 {
            self.bench.world.pass(301);
            self.look().await;
            self.reconnects();
            self.reports().await;
        }
        let id = self.peer.id;
        let shown = self.app().store.read(move |read| status::of_machine(read, id)).await.unwrap();
        for standing in [shown.fees, shown.cassettes].into_iter().flatten() {
            assert!(standing.on_machine, "{standing:?}");
        }
        assert_eq!(shown.open_changes, 0);
        if self.wanted > 0 {
            let (_, fees) = self.reader.fees.as_ref().unwrap();
            assert_eq!(fees.of(Direction::CashOut).total(), FeePpm::new(self.wanted).unwrap());
        }
        let notes: u32 = self.reader.bays.values().map(|bay| bay.count).sum();
        assert_eq!(notes, self.notes, "each refill once");
        assert_eq!(self.reader.before, self.changed);
    }
}

/// Loss prevented: a machine that trades on old fees, or counts a refill twice or never, because of
/// the order in which relays, clocks and restarts did their worst.
#[tokio::test]
async fn a_machine_ends_with_what_its_operator_wanted_last() {
    let seeds = std::env::var("BITSPIRE_SEEDS").map_or(SEEDS, |n| n.parse().unwrap());
    let mut bench = Bench::new().await;
    let mut applied = 0;
    for seed in 0..seeds {
        let mut story = bench.story(seed).await;
        eprintln!("seed {seed}");
        for _ in 0..ACTS {
            story.act().await;
        }
        story.converges().await;
        applied += story.reader.applied;
        drop(story);
        if seed % 50 == 49 {
            bench = bench.restarted().await;
        }
    }
    assert!(applied > seeds, "documents must have travelled: {applied}");
}

/// Loss prevented: a machine that was off for a month, while its relays forgot everything, and goes
/// on with the fees of then.
#[tokio::test]
async fn a_machine_that_was_off_for_a_month_is_right_within_one_reconnect() {
    let bench = Bench::new().await;
    let mut story = bench.story(1).await;
    story.relays.0.lock().unwrap().good = true;
    story.wants_fees().await;
    story.look().await;
    story.arrives();
    story.reports().await;
    let before = story.reader.in_force();
    assert_eq!(before.len(), 1);

    story.wants_fees().await;
    story.puts_notes().await;
    story.look().await;
    {
        let mut between = story.relays.0.lock().unwrap();
        between.under_way.clear();
        between.relays.iter_mut().for_each(|relay| relay.kept.clear());
    }
    bench.world.pass(30 * 86_400);
    story.reconnects();
    assert_eq!(story.reader.in_force(), before, "the relays have nothing for it");
    // its first heartbeat says what it has
    story.reports().await;
    story.look().await;
    story.arrives();
    story.reports().await;
    assert_eq!(story.reader.in_force().len(), 2);
    story.converges().await;
}

async fn shown_fees(bench: &Bench, id: MachineId) -> Standing {
    let shown = bench.world.app.store.read(move |read| status::of_machine(read, id)).await;
    shown.unwrap().fees.unwrap()
}

/// The page says that the fees are signed, that no relay has them, and that the machine has not; how
/// often it was tried.
async fn with_no_relay(bench: &Bench, id: MachineId) -> u32 {
    let fees = shown_fees(bench, id).await;
    assert_eq!((fees.light, fees.on_machine), (Light::Published, false));
    assert_eq!((fees.relay_acked_at, fees.applied_at), (None, None));
    assert!(fees.reason.unwrap().contains("no relay took"));
    fees.attempts
}

/// Loss prevented: a fee that is lost, or published twice, because no relay took it for an hour and
/// the service was started again meanwhile; a page that says it is there, at any moment of that hour.
#[tokio::test]
async fn what_no_relay_takes_for_an_hour_goes_out_once() {
    let bench = Bench::new().await;
    let mut story = bench.story(2).await;
    let mut attempts;
    let Story { wanted, peer, relays, .. } = {
        {
            let mut between = story.relays.0.lock().unwrap();
            between.good = true;
            between.relays.iter_mut().for_each(|relay| relay.up = false);
        }
        story.wants_fees().await;
        story.look().await;
        attempts = with_no_relay(&bench, story.peer.id).await;
        story
    };
    let bench = bench.restarted().await;
    relays.0.lock().unwrap().all.clear();
    let publisher = Publisher::new(bench.world.app.clone(), relays.clone());
    for _ in 0..120 {
        bench.world.pass(30);
        publisher.look().await.unwrap();
        let so_far = with_no_relay(&bench, peer.id).await;
        assert!(so_far >= attempts, "{so_far} after {attempts}");
        attempts = so_far;
    }
    let tried = relays.0.lock().unwrap().all.len();
    assert!((100..=121).contains(&tried), "every half minute: {tried}");
    relays.0.lock().unwrap().relays.iter_mut().for_each(|relay| relay.up = true);
    bench.world.pass(30);
    for _ in 0..5 {
        publisher.look().await.unwrap();
        bench.world.pass(5);
        let taken = relays.0.lock().unwrap().all.len() > tried;
        let light = if taken { Light::RelayAcked } else { Light::Published };
        let fees = shown_fees(&bench, peer.id).await;
        assert_eq!((fees.light, fees.on_machine), (light, false));
        assert_eq!(fees.reason.is_none(), taken, "{:?}", fees.reason);
    }
    assert_eq!(shown_fees(&bench, peer.id).await.light, Light::RelayAcked);
    let all = relays.0.lock().unwrap().all.clone();
    assert_eq!(all.len(), tried + 1, "once a relay has it, it is done");
    assert!(all.iter().all(|event| event.id == all[0].id), "always the same event");
    let mut reader = Reader::default();
    reader.takes(&bench, &peer, &all[0], bench.world.app.clock.now());
    let (_, fees) = reader.fees.unwrap();
    assert_eq!(fees.of(Direction::CashOut).total(), FeePpm::new(wanted).unwrap());
}
