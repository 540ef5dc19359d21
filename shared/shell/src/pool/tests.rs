//! Connections to relays, to real ones.

use std::sync::atomic::{AtomicBool, Ordering};

use nostr::EventBuilder;
use nostr::util::BoxedFuture;
use nostr_relay_builder::builder::{
    PolicyResult, QueryPolicy, RelayBuilder, RelayBuilderNip42, RelayBuilderNip42Mode, WritePolicy,
};
use nostr_relay_builder::{LocalRelay, MockRelay};

use super::inbox::MOST_DUE;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn note(keys: &Keys, text: &str) -> Event {
    EventBuilder::text_note(text).sign_with_keys(keys).unwrap()
}

async fn next(pool: &Pool) -> Event {
    tokio::time::timeout(PATIENCE, pool.next()).await.unwrap().unwrap()
}

async fn connected(relays: &[String], filter: FrameFilter) -> Pool {
    let pool = Pool::connect(Keys::generate(), relays, filter).await.unwrap();
    pool.client.wait_for_connection(PATIENCE).await;
    pool
}

/// Loss prevented: a flood of strangers' events that costs a signature check each.
#[tokio::test]
async fn what_the_frame_filter_refuses_never_comes_out() {
    let relay = MockRelay::run().await.unwrap();
    let url = vec![relay.url().await.to_string()];
    let (known, stranger) = (Keys::generate(), Keys::generate());
    let wanted = known.public_key().to_hex();
    let refused = Arc::new(AtomicBool::new(false));
    let seen = refused.clone();
    let filter: FrameFilter = Arc::new(move |text: &str| {
        let keep = !text.starts_with("[\"EVENT\"") || text.contains(&wanted);
        seen.fetch_or(!keep, Ordering::SeqCst);
        keep
    });
    let reader = connected(&url, filter).await;
    reader.subscribe("all", Filter::new()).await;
    let writer = connected(&url, Arc::new(|_: &str| true)).await;
    writer.publish(&note(&stranger, "junk")).await.unwrap();
    writer.publish(&note(&known, "good")).await.unwrap();
    assert_eq!(next(&reader).await.content, "good");
    assert!(refused.load(Ordering::SeqCst), "the stranger's event must have arrived first");
}

/// Loss prevented: a relay that closes a subscription without end fills the memory, or makes us
/// flood all others.
#[test]
fn what_is_put_off_is_put_off_once_and_stays_bounded() {
    let notifications = tokio::sync::broadcast::channel(1).1;
    let mut inbox = Inbox::new(notifications, tokio::sync::mpsc::channel(1).1);
    let relay = RelayUrl::parse("ws://127.0.0.1:1").unwrap();
    let ask = |n: usize| Again::Ask(relay.clone(), SubscriptionId::new(n.to_string()));
    for n in 0..3 * MOST_DUE {
        inbox.later(AFTER_AUTH, ask(7));
        inbox.later(AFTER_AUTH, ask(n));
    }
    assert_eq!(inbox.due.len(), MOST_DUE);
    assert_eq!(inbox.due.iter().filter(|(_, due)| *due == ask(7)).count(), 1);
    assert_eq!(inbox.next_due(), Some(ask(7)));
    inbox.done(&ask(7));
    assert_eq!(inbox.next_due(), Some(ask(0)));
}

/// Loss prevented: a machine that starts while its relay is down, and hears of no payment and no
/// document until somebody starts it again.
#[tokio::test]
async fn what_was_asked_while_a_relay_was_down_is_asked_once_it_is_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let url = vec![format!("ws://{address}")];
    let keep: FrameFilter = Arc::new(|_: &str| true);
    let reader = Pool::connect(Keys::generate(), &url, keep.clone()).await.unwrap();
    let until = Instant::now() + PATIENCE;
    // once a try has failed, the SDK keeps nothing that it cannot send
    while reader.client.relays().await.values().any(|relay| relay.stats().attempts() < 2) {
        assert!(Instant::now() < until, "{:?}", reader.health());
        tokio::task::yield_now().await;
    }
    let keys = Keys::generate();
    reader.subscribe("all", Filter::new().author(keys.public_key())).await;
    let relay = LocalRelay::new(RelayBuilder::default().port(address.port()));
    relay.run().await.unwrap();
    let writer = connected(&url, keep).await;
    let event = note(&keys, "here");
    writer.publish(&event).await.unwrap();
    assert_eq!(next(&reader).await.id, event.id);
}

/// Loss prevented: a relay that answers each subscription and closes it at once is asked again every
/// two seconds by each machine, for ever; or one that closes once a day is rested from like it.
#[tokio::test(start_paused = true)]
async fn an_answer_alone_does_not_end_the_rests() {
    let pool = Pool::connect(Keys::generate(), &[], Arc::new(|_: &str| true)).await.unwrap();
    pool.subscribe("a", Filter::new()).await;
    let relay = RelayUrl::parse("ws://127.0.0.1:1").unwrap();
    let id = SubscriptionId::new("a");
    let mut inbox = pool.inbox.lock().await;
    let mut failures = Vec::new();
    for lived in [1, 1, 1, 3_600] {
        inbox.asked(&relay, &id);
        let answer = RelayMessage::EndOfStoredEvents(std::borrow::Cow::Borrowed(&id));
        pool.heard(&mut inbox, relay.clone(), answer).await;
        tokio::time::advance(Duration::from_secs(lived)).await;
        let closed = RelayMessage::Closed {
            subscription_id: std::borrow::Cow::Borrowed(&id),
            message: "error: no".into(),
        };
        pool.heard(&mut inbox, relay.clone(), closed).await;
        failures.push(inbox.closed[&(relay.clone(), id.clone())].0.failures());
    }
    assert_eq!(failures, [1, 2, 3, 1]);
}

/// Loss prevented: an event that two relays carry is handled twice.
#[tokio::test]
async fn an_event_on_two_relays_comes_out_once() {
    let (one, two) = (MockRelay::run().await.unwrap(), MockRelay::run().await.unwrap());
    let urls = vec![one.url().await.to_string(), two.url().await.to_string()];
    let keys = Keys::generate();
    let writer = connected(&urls, Arc::new(|_: &str| true)).await;
    let first = note(&keys, "first");
    while writer.publish(&first).await.unwrap().len() < 2 {}
    writer.publish(&note(&keys, "second")).await.unwrap();
    let reader = connected(&urls, Arc::new(|_: &str| true)).await;
    reader.subscribe("all", Filter::new().author(keys.public_key())).await;
    let got = [next(&reader).await.content, next(&reader).await.content];
    let mut sorted = got.clone();
    sorted.sort();
    assert_eq!(sorted, ["first", "second"], "{got:?}");
}

/// Loss prevented: the first request after each reconnect is lost to a relay that asks who we
/// are, and a customer waits for its repetition.
#[tokio::test]
async fn what_a_relay_refused_before_it_knew_us_is_sent_again() {
    let nip42 = RelayBuilderNip42 { mode: RelayBuilderNip42Mode::Both };
    let relay = LocalRelay::new(RelayBuilder::default().nip42(nip42));
    relay.run().await.unwrap();
    let url = vec![relay.url().await.to_string()];
    let keep: FrameFilter = Arc::new(|_: &str| true);
    let keys = Keys::generate();
    let ephemeral = |text: &str| {
        EventBuilder::new(nostr::Kind::from(21_000), text).sign_with_keys(&keys).unwrap()
    };
    let reader = connected(&url, keep.clone()).await;
    reader.subscribe("all", Filter::new().author(keys.public_key())).await;
    // once one of these arrives, the reader is known and its subscription open
    let known = connected(&url, keep.clone()).await;
    let probing = async {
        for n in 0.. {
            known.client.send_event(&ephemeral(&n.to_string())).await.unwrap();
        }
    };
    tokio::select! {
        _ = next(&reader) => {}
        () = probing => {}
    }
    let writer = connected(&url, keep).await;
    let event = ephemeral("refused at first");
    assert_eq!(writer.send(&event).await, 1);
    let arrived = async { while next(&reader).await.id != event.id {} };
    tokio::select! {
        () = arrived => {}
        _ = writer.next() => panic!("the writer has no subscription"),
    }
}

/// Says no to one kind.
#[derive(Debug)]
struct Not(u16);

impl WritePolicy for Not {
    fn admit_event<'a>(
        &'a self,
        event: &'a Event,
        _: &'a std::net::SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        let refused = event.kind.as_u16() == self.0;
        let answer = if refused {
            PolicyResult::Reject(format!("not\u{7} for you{}", "!".repeat(1_000)))
        } else {
            PolicyResult::Accept
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Notes the limit of each filter that it is asked for.
#[derive(Debug)]
struct Asked(Arc<std::sync::Mutex<Vec<Option<usize>>>>);

impl QueryPolicy for Asked {
    fn admit_query<'a>(
        &'a self,
        filter: &'a Filter,
        _: &'a std::net::SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        self.0.lock().unwrap().push(filter.limit);
        Box::pin(std::future::ready(PolicyResult::Accept))
    }
}

/// Loss prevented: a reader that falls behind has its relays send all that they keep once more for each
/// event that it lost, loses that too, and is never itself again; or what was lost never comes.
#[tokio::test]
async fn what_an_overload_lost_is_asked_for_once_when_it_is_over() {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let relay = LocalRelay::new(RelayBuilder::default().query_policy(Asked(asked.clone())));
    relay.run().await.unwrap();
    let url = vec![relay.url().await.to_string()];
    let keep: FrameFilter = Arc::new(|_: &str| true);
    let (writer, reader) = (connected(&url, keep.clone()).await, connected(&url, keep).await);
    // else what is subscribed to is asked for once more
    reader.lines.take_fresh();
    let keys = Keys::generate();
    let filler = note(&keys, "filler");
    let full = || while reader.intake.events.try_send(filler.clone()).is_ok() {};
    full();
    reader.subscribe("all", Filter::new().author(keys.public_key())).await;
    let lost = note(&keys, "lost");
    for n in 0..5 {
        full();
        let event = if n == 0 { lost.clone() } else { note(&keys, &n.to_string()) };
        reader.intake.passes(&format!("[\"EVENT\",\"all\",{}]", event.as_json()));
        assert_eq!(next(&reader).await.id, filler.id);
    }
    full();
    writer.publish(&lost).await.unwrap();
    while next(&reader).await.id != lost.id {}
    // in its turn on the one connection
    reader.subscribe("last", Filter::new().limit(7)).await;
    let until = Instant::now() + PATIENCE;
    while !asked.lock().unwrap().contains(&Some(7)) {
        assert!(Instant::now() < until, "the relay was not asked");
        tokio::task::yield_now().await;
    }
    let times = asked.lock().unwrap().iter().filter(|limit| **limit != Some(7)).count();
    assert_eq!(times, 2, "when it was subscribed to, and once for all that was lost");
}

/// Loss prevented: somebody who is told to unlock a bunker that no relay lets them speak to.
#[tokio::test]
async fn what_a_relay_will_not_carry_is_known_with_its_words() {
    let relay = LocalRelay::new(RelayBuilder::default().write_policy(Not(24_133)));
    relay.run().await.unwrap();
    let url = vec![relay.url().await.to_string()];
    let pool = connected(&url, Arc::new(|_: &str| true)).await;
    let keys = Keys::generate();
    pool.subscribe("own", Filter::new().author(keys.public_key())).await;
    let event = EventBuilder::new(nostr::Kind::from(24_133), "x").sign_with_keys(&keys);
    assert_eq!(pool.send(&event.unwrap()).await, 1);
    assert!(pool.refusals().await.is_empty());
    pool.publish(&note(&keys, "second")).await.unwrap();
    // what a relay says is heard while somebody reads
    let reading = async { while pool.next().await.is_some() {} };
    let told = async {
        loop {
            let refusals = pool.refusals().await;
            if !refusals.is_empty() {
                return refusals;
            }
            tokio::task::yield_now().await;
        }
    };
    let refusals = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            () = reading => panic!("the pool has ended"),
            refusals = told => refusals,
        }
    });
    let refusals = refusals.await.unwrap();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let refusal = refusals.values().next().unwrap();
    assert!(refusal.starts_with("blocked: not for you!!!"), "{refusal}");
    assert!(refusal.chars().count() <= 200, "{refusal}");
}

/// Loss prevented: an outbox row marked as delivered that no relay ever took.
#[tokio::test]
async fn publishing_without_a_relay_says_so() {
    let nobody = vec!["ws://127.0.0.1:1".to_string()];
    let pool = Pool::connect(Keys::generate(), &nobody, Arc::new(|_: &str| true)).await.unwrap();
    let answer = pool.publish(&note(&Keys::generate(), "lost")).await;
    assert!(matches!(answer, Err(PoolError::NotTaken { .. })), "{answer:?}");
    assert_eq!(pool.send(&note(&Keys::generate(), "lost")).await, 0);
    let wrong = ["http://x".to_string()];
    let refused = Pool::connect(Keys::generate(), &wrong, Arc::new(|_: &str| true)).await;
    assert!(matches!(refused, Err(PoolError::Url { .. })));
}
