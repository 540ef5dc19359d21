//! Requests to the service, each until it is answered or forgotten. Pure: time, jitter and event
//! ids are arguments.
//!
//! Promise: a request keeps its id and body; only the event that carries it is made anew, after
//! 2 s, 4 s, 8 s, ... up to 30 s and a jitter, and never faster than the service lets a machine
//! speak. What was tried least comes first, so that a report that is retried holds up no sale. A
//! reply counts if its `e` tag names an event that carried the request it answers.
//!
//! States of a request: due -> carried (waits for its reply, due again later) -> gone.
//!
//! Failure policy: a reply to nothing that waits, or to another request than the one its event
//! answers, changes nothing.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bitspire_shared::ids::{EventId, RequestId};
use bitspire_shared::rate::{Limiter, Quota};
use bitspire_shared::time::Mono;
use serde_json::Value;

/// First and longest wait for a reply, in milliseconds.
const BACKOFF_MS: (u64, u64) = (2_000, 30_000);
/// Events of one request that a reply may still name.
const CARRIERS: usize = 16;
/// The service takes 30 a minute and 20 at once from a machine: a little less leaves room for what
/// it counts otherwise.
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(27).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(18).unwrap();

/// How a request may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// By session, or by the spire key where no session is to be had.
    Any,
    /// By the spire key: `open_session`.
    Spire,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) rpc_name: String,
    pub(super) body: Value,
    pub(super) path: Path,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    tries: u32,
    due: Mono,
    carriers: Vec<EventId>,
}

/// A request whose turn it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) request_id: RequestId,
    pub(super) asked: Asked,
    /// How often it was carried before.
    pub(super) tries: u32,
}

/// What came of adding a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits for its turn.
    Fresh,
    /// It waits already: it is due at once.
    Repeated,
    /// The id waits with another body: nothing changes.
    Conflict,
}

/// Which requests may travel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    /// There is a session, or none is to be had; else only [`Path::Spire`].
    pub(super) any: bool,
    /// Those that show a journal position too. Not while a session is being opened: the service
    /// switches a machine off whose `open_session` shows an earlier position than what it has seen,
    /// and would see the later one first.
    pub(super) positions: bool,
}

/// The field of a body that shows where the journal stands.
const POSITION: &str = "journal_seq";

/// All requests that wait.
#[derive(Debug)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Open>,
    limiter: Limiter,
    /// When the limiter lets the next one through.
    not_before: Mono,
}

impl Default for Requests {
    fn default() -> Self {
        let limiter = Limiter::new(Quota::per_minute(PER_MINUTE, BURST));
        Self { open: BTreeMap::new(), limiter, not_before: Mono(0) }
    }
}

impl Requests {
    /// Takes a request.
    pub(super) fn add(&mut self, id: RequestId, asked: Asked, now: Mono) -> Added {
        match self.open.get_mut(&id) {
            Some(open) if open.asked == asked => {
                open.due = open.due.min(now);
                Added::Repeated
            }
            Some(_) => Added::Conflict,
            None => {
                let open = Open { asked, tries: 0, due: now, carriers: Vec::new() };
                self.open.insert(id, open);
                Added::Fresh
            }
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&mut self, id: &RequestId) {
        self.open.remove(id);
    }

    /// Nobody waits for any of `path` any more.
    pub(super) fn forget_all(&mut self, path: Path) {
        self.open.retain(|_, open| open.asked.path != path);
    }

    /// When [`turn`](Self::turn) has something next.
    pub(super) fn next_due(&self, gate: Gate) -> Option<Mono> {
        let due = self.open.values().filter(|open| may_travel(open, gate)).map(|open| open.due);
        due.min().map(|due| due.max(self.not_before))
    }

    /// The next request to carry, if one is due; `jitter` is a random number.
    pub(super) fn turn(&mut self, now: Mono, gate: Gate, jitter: u16) -> Option<Turn> {
        let due =
            self.open.iter_mut().filter(|(_, open)| may_travel(open, gate) && open.due <= now);
        let (request_id, open) = due.min_by_key(|(_, open)| (open.tries, open.due))?;
        if let Err(limited) = self.limiter.take(now) {
            self.not_before = now.after(limited.retry_after_ms);
            return None;
        }
        let tries = open.tries;
        open.tries = tries.saturating_add(1);
        open.due = now.after(wait(tries, jitter));
        Some(Turn { request_id: *request_id, asked: open.asked.clone(), tries })
    }

    /// The event that carries the request on its way.
    pub(super) fn carried(&mut self, id: &RequestId, event: EventId) {
        if let Some(open) = self.open.get_mut(id) {
            if open.carriers.len() >= CARRIERS {
                open.carriers.remove(0);
            }
            open.carriers.push(event);
        }
    }

    /// The request that `event` carried, if it still waits.
    pub(super) fn carried_by(&self, event: &EventId) -> Option<RequestId> {
        let mut open = self.open.iter();
        open.find(|(_, open)| open.carriers.contains(event)).map(|(id, _)| *id)
    }

    /// Whether a request still waits and may travel.
    pub(super) fn travels(&self, id: &RequestId, gate: Gate) -> bool {
        self.open.get(id).is_some_and(|open| may_travel(open, gate))
    }

    /// It was answered; `false` if it no longer waits.
    pub(super) fn settle(&mut self, id: &RequestId) -> bool {
        self.open.remove(id).is_some()
    }

    /// Something changed for the better: what waits is due now.
    pub(super) fn hurry(&mut self, now: Mono) {
        for open in self.open.values_mut() {
            open.due = open.due.min(now);
        }
    }

    /// Requests that wait.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.open.len()
    }
}

fn may_travel(open: &Open, gate: Gate) -> bool {
    match open.asked.path {
        Path::Spire => true,
        Path::Any => gate.any && (gate.positions || open.asked.body.get(POSITION).is_none()),
    }
}

/// Milliseconds to the next try, up to a quarter longer than the backoff.
fn wait(tries: u32, jitter: u16) -> u64 {
    let backoff = BACKOFF_MS.0.saturating_mul(1 << tries.min(10)).min(BACKOFF_MS.1);
    let quarter = backoff / 4;
    backoff.saturating_add(quarter.saturating_mul(u64::from(jitter)) / u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OPEN: Gate = Gate { any: true, positions: true };
    const SHUT: Gate = Gate { any: false, positions: true };

    fn id(n: u8) -> RequestId {
        RequestId::from_bytes([n; 16])
    }

    fn event(n: u8) -> EventId {
        EventId::from_bytes([n; 32])
    }

    fn asked(path: Path) -> Asked {
        Asked { rpc_name: "get_payment".into(), body: json!({"a": 1}), path }
    }

    fn with(ids: &[u8]) -> Requests {
        let mut requests = Requests::default();
        for n in ids {
            assert_eq!(requests.add(id(*n), asked(Path::Any), Mono(0)), Added::Fresh);
        }
        requests
    }

    /// Loss prevented: a lost reply to a claim leaves a customer without their money.
    #[test]
    fn a_request_is_carried_until_it_is_answered() {
        let mut requests = with(&[1]);
        let mut now = Mono(0);
        let mut gaps = Vec::new();
        for n in 0..8 {
            let turn = requests.turn(now, OPEN, 0).unwrap();
            assert_eq!((turn.request_id, turn.tries), (id(1), u32::from(n)));
            requests.carried(&id(1), event(n));
            assert_eq!(requests.turn(now, OPEN, 0), None);
            let due = requests.next_due(OPEN).unwrap();
            gaps.push(due.since(now));
            now = due;
        }
        assert_eq!(gaps, [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(requests.carried_by(&event(0)), Some(id(1)), "a late reply to the first try");
        assert!(requests.settle(&id(1)));
        assert!(!requests.settle(&id(1)));
        assert_eq!((requests.next_due(OPEN), requests.carried_by(&event(0))), (None, None));
    }

    /// Loss prevented: a vault that starts again makes a second request of the same id.
    #[test]
    fn the_same_request_again_is_one_request() {
        let mut requests = with(&[1]);
        requests.turn(Mono(0), OPEN, 0).unwrap();
        assert_eq!(requests.add(id(1), asked(Path::Any), Mono(500)), Added::Repeated);
        assert_eq!(requests.next_due(OPEN), Some(Mono(500)));
        let other = Asked { body: json!({"a": 2}), ..asked(Path::Any) };
        assert_eq!(requests.add(id(1), other, Mono(500)), Added::Conflict);
        assert_eq!(requests.len(), 1);
        assert_eq!(requests.turn(Mono(500), OPEN, 0).unwrap().asked, asked(Path::Any));
    }

    /// Loss prevented: reports that nobody answers keep a customer's invoice waiting.
    #[test]
    fn what_was_tried_least_comes_first() {
        let mut requests = with(&[1]);
        requests.turn(Mono(0), OPEN, 0).unwrap();
        requests.add(id(2), asked(Path::Any), Mono(3_000));
        let turn = |requests: &mut Requests| requests.turn(Mono(3_000), OPEN, 0).unwrap();
        assert_eq!(turn(&mut requests).request_id, id(2));
        assert_eq!(turn(&mut requests).request_id, id(1));
    }

    /// Loss prevented: money requests signed by the bunker although a session is about to open.
    #[test]
    fn without_a_way_only_the_session_itself_travels() {
        let mut requests = with(&[1]);
        assert_eq!((requests.next_due(SHUT), requests.turn(Mono(9), SHUT, 0)), (None, None));
        requests.add(id(2), asked(Path::Spire), Mono(9));
        assert_eq!(requests.turn(Mono(9), SHUT, 0).unwrap().request_id, id(2));
        requests.forget_all(Path::Any);
        assert_eq!(requests.turn(Mono(9), OPEN, 0), None);
        assert!(requests.travels(&id(2), SHUT) && !requests.travels(&id(1), OPEN));
    }

    /// Loss prevented: a machine that is switched off as a copy of itself, because a report overtook
    /// the opening of its session.
    #[test]
    fn no_position_travels_while_a_session_is_opened() {
        let mut requests = with(&[1]);
        let body = json!({"journal_seq": 7, "txid": "x"});
        let report = Asked { rpc_name: "report_state".into(), body, path: Path::Any };
        requests.add(id(2), report, Mono(0));
        let held = Gate { any: true, positions: false };
        assert_eq!(requests.turn(Mono(0), held, 0).unwrap().request_id, id(1));
        assert_eq!(requests.turn(Mono(0), held, 0), None);
        assert_eq!(requests.next_due(held), Some(Mono(2_000)), "the payment's next try");
        assert_eq!(requests.turn(Mono(0), OPEN, 0).unwrap().request_id, id(2));
    }

    proptest! {
        /// Loss prevented: a machine that floods its service is refused in the middle of a sale.
        #[test]
        fn never_faster_than_the_service_allows(
            count in 1u8..60, jitters in prop::collection::vec(any::<u16>(), 400..401),
        ) {
            let mut requests = with(&(0..count).collect::<Vec<_>>());
            let mut service = Limiter::new(Quota::per_minute(
                NonZeroU32::new(30).unwrap(), NonZeroU32::new(20).unwrap(),
            ));
            let mut now = Mono(0);
            for jitter in jitters {
                match requests.turn(now, OPEN, jitter) {
                    Some(_) => prop_assert_eq!(service.take(now), Ok(())),
                    None => {
                        let due = requests.next_due(OPEN).unwrap();
                        prop_assert!(due > now, "no turn at {:?}, yet due at {:?}", now, due);
                        now = due;
                    }
                }
            }
        }
    }
}
