//! Told at least once, in order for each machine, whatever the other side does.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bitspire_shared::ids::JournalSeq;
use serde_json::Value;

use super::*;
use crate::ids::{MachineId, OperatorId};
use crate::outgoing::peer::signature;
use crate::outgoing::testing::Host;
use crate::store::Json;
use crate::store::cassettes::{self, Heartbeat};
use crate::store::machines::{self, Machine};
use crate::testing::World;

const SECRET: &str = "correct horse battery staple";

/// What the other side does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Takes it.
    Takes,
    /// Takes it, and says that it did not.
    Says(StatusCode),
    /// Takes it, and never answers.
    Delays,
}

/// The other side: what it does next, and what it has been sent.
#[derive(Clone, Default)]
struct Other(Arc<Mutex<(Vec<Does>, Vec<Value>)>>);

impl Other {
    fn will(&self, mut next: Vec<Does>) {
        next.reverse();
        self.0.lock().unwrap().0 = next;
    }

    /// Ids as they came, repeats and all, by machine.
    fn came(&self) -> BTreeMap<Option<i64>, Vec<i64>> {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for body in &self.0.lock().unwrap().1 {
            all.entry(body["machine_id"].as_i64()).or_default().push(body["id"].as_i64().unwrap());
        }
        all
    }
}

async fn take(State(other): State<Other>, headers: HeaderMap, body: String) -> StatusCode {
    let header = headers["bitspire-signature"].to_str().unwrap();
    let (at, _) = header.strip_prefix("t=").unwrap().split_once(',').unwrap();
    assert_eq!(header, signature(SECRET, Unix(at.parse().unwrap()), &body), "signed as it came");
    let does = {
        let mut state = other.0.lock().unwrap();
        state.1.push(serde_json::from_str(&body).unwrap());
        state.0.pop().unwrap_or(Does::Takes)
    };
    match does {
        Does::Takes => StatusCode::NO_CONTENT,
        Does::Says(status) => status,
        Does::Delays => std::future::pending().await,
    }
}

struct Told {
    patience: Duration,
    world: World,
    host: Host,
    other: Other,
}

impl Told {
    async fn new() -> Self {
        let other = Other::default();
        let host = Host::start(Router::new().route("/hook", post(take)).with_state(other.clone()));
        let (world, host) = (World::in_memory("").await, host.await);
        let told = Self { patience: PATIENCE, world, host, other };
        let now = told.world.app.clock.now();
        told.world.app.store.write(move |tx| webhook::tell(tx, Some(now))).await.unwrap();
        told
    }

    /// An alarm about a machine, as the service writes it.
    async fn alarm(&self, subject: &'static str) {
        let now = self.world.app.clock.now();
        let write =
            move |tx: &Tx<'_>| log::by_service(tx, "report.doubtful", subject, json!({}), now);
        self.world.app.store.write(write).await.unwrap();
    }

    /// What a machine says of itself, as its heartbeat is kept.
    async fn heartbeat(&self, machine_id: MachineId, alerts: Value) {
        let received_at = self.world.app.clock.now();
        let body = Json(json!({ "alerts": alerts }));
        let write = move |tx: &Tx<'_>| {
            let heartbeat = Heartbeat { machine_id, journal_seq: JournalSeq(1), body, received_at };
            cassettes::set_heartbeat(tx, &heartbeat)
        };
        self.world.app.store.write(write).await.unwrap();
    }

    fn teller(&self) -> Teller {
        let peer = Peer::at(&self.host.base(), "/hook", SECRET);
        Teller { app: Arc::clone(&self.world.app), peer, patience: self.patience }
    }

    async fn open(&self) -> u64 {
        self.world.app.store.read(webhook::open).await.unwrap().0
    }

    /// Looks until nothing is due any more, then lets the longest rest pass; so many times.
    async fn rounds(&self, rounds: u32) {
        for _ in 0..rounds {
            while self.teller().look().await.unwrap() > 0 {}
            self.world.pass(LONGEST_S);
        }
    }
}

/// Loss prevented: whoever is told cannot tell us from anybody else. As `printf '%s' '1800000000.{}' |
/// openssl dgst -sha256 -hmac 'correct horse battery staple'` says it.
#[test]
fn the_signature_is_the_recipes() {
    let expected =
        "t=1800000000,v1=5dc998707093cf86204e7cb9205c157d8c26c0e5f267040f72b9a02ba379caf0";
    assert_eq!(signature(SECRET, Unix(1_800_000_000), "{}"), expected);
}

/// Loss prevented: an alarm that nobody hears because the other side was down, slow or lost its
/// answer; or that comes after the one that it led to.
#[tokio::test]
async fn each_is_told_and_in_order_whatever_the_other_side_does() {
    let mut told = Told::new().await;
    told.patience = Duration::from_millis(500);
    for _ in 0..3 {
        told.alarm("machine:1").await;
        told.alarm("machine:2").await;
    }
    told.alarm("payment:ab").await;
    let failed = Does::Says(StatusCode::INTERNAL_SERVER_ERROR);
    let moved = Does::Says(StatusCode::TEMPORARY_REDIRECT);
    told.other.will(vec![
        failed,
        Does::Takes,
        Does::Delays,
        moved,
        Does::Takes,
        failed,
        Does::Delays,
    ]);
    while told.open().await > 0 {
        told.rounds(1).await;
    }
    let came = told.other.came();
    assert_eq!(came.keys().copied().collect::<Vec<_>>(), [None, Some(1), Some(2)]);
    for (machine, ids) in came {
        // repeats stand beside each other: the next one comes only when this one was taken
        assert!(ids.is_sorted(), "{machine:?}: {ids:?}");
        let mut once = ids.clone();
        once.dedup();
        assert_eq!(once.len(), if machine.is_some() { 3 } else { 1 }, "{ids:?}");
    }
}

/// Loss prevented: what was to be told is gone with the process, or with the network.
#[tokio::test]
async fn what_is_open_outlives_a_restart_and_an_absence() {
    let mut told = Told::new().await;
    told.alarm("machine:1").await;
    told.host.reach(false).await;
    told.rounds(2).await;
    assert_eq!((told.open().await, told.other.came().len()), (1, 0));
    told.world = told.world.restarted().await;
    told.host.reach(true).await;
    told.rounds(1).await;
    assert_eq!((told.open().await, told.other.came()[&Some(1)].len()), (0, 1));
}

/// Loss prevented: one event that the other side never takes holds up all of a machine's for ever, and
/// nobody learns of it; or the word that it was given up is itself told without end.
#[tokio::test]
async fn what_is_never_taken_is_given_up_and_said() {
    let told = Told::new().await;
    told.alarm("machine:1").await;
    told.alarm("machine:1").await;
    told.other.will(vec![Does::Says(StatusCode::NOT_FOUND); TRIES as usize]);
    told.rounds(TRIES + 1).await;
    assert_eq!(told.open().await, 0);
    let ids = told.other.came().remove(&Some(1)).unwrap();
    assert_eq!(ids.len(), TRIES as usize + 1, "the second one was taken at once");
    let log = told.world.app.store.read(|read| log::audit_tail(read, None, 9)).await.unwrap();
    assert_eq!(log.iter().filter(|row| row.action == "webhook.given_up").count(), 1);
}

/// Loss prevented: a jam or an open door that nobody is told of, since it was not in the machine's
/// first heartbeat; or that is told again each minute.
#[tokio::test]
async fn what_a_machine_says_is_told_whenever_it_changes() {
    let told = Told::new().await;
    let now = told.world.app.clock.now();
    let add = move |tx: &Tx<'_>| {
        let eur = "EUR".parse().unwrap();
        machines::insert(tx, &Machine::new(OperatorId(1), "Bar", "", eur, "till", now))
    };
    let machine = told.world.app.store.write::<_, StoreError, _>(add).await.unwrap();
    let jam = json!([{ "code": "jam", "detail": "bay 1", "severity": "error" }]);
    for (alerts, open) in [(json!([]), 0), (jam.clone(), 1), (jam, 1), (json!([]), 2)] {
        told.heartbeat(machine, alerts).await;
        assert_eq!(told.open().await, open);
    }
}

/// Loss prevented: an outbox that fills the disk where nobody is told.
#[tokio::test]
async fn nothing_is_written_while_nobody_is_told() {
    let told = Told::new().await;
    told.world.app.store.write(|tx| webhook::tell(tx, None)).await.unwrap();
    told.alarm("machine:1").await;
    assert_eq!(told.open().await, 0);
}
