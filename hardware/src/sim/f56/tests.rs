use proptest::prelude::*;

use super::*;
use crate::frame::f56::{Counts, NoteSize, Setup, TwoDigits};

fn request(notes: [u32; 2]) -> Request {
    let digits = |n| TwoDigits::new(n).unwrap();
    Request::Count(Counts::new([digits(notes[0]), digits(notes[1]), digits(0), digits(0)]))
}

fn init() -> Request {
    let usd = NoteSize { max: 0xa6, min: 0x92, thickness: 0x0d, polymer: false };
    Request::Init(Setup { odr: 0, slots: [usd, usd, NoteSize::UNUSED, NoteSize::UNUSED] })
}

/// A device and the time.
struct Desk {
    sim: F56Sim,
    now: Mono,
}

impl Desk {
    fn new() -> Self {
        Self { sim: F56Sim::new(Fit::default()), now: Mono(0) }
    }

    fn set_up() -> Self {
        let mut desk = Self::new();
        assert!(desk.ask(&init()).unwrap().positive());
        desk
    }

    fn bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.now = self.now.after(1);
        self.sim.on_bytes(bytes, self.now)
    }

    /// What it says by itself, next.
    fn speech(&mut self) -> Vec<u8> {
        loop {
            let Some(at) = self.sim.wake_at() else { return Vec::new() };
            self.now = at;
            let said = self.sim.on_tick(at);
            if !said.is_empty() {
                return said;
            }
        }
    }

    /// A whole exchange; `None` where no reply comes.
    fn ask(&mut self, request: &Request) -> Option<Reply> {
        assert_eq!(self.bytes(&ENQ), ACK);
        assert_eq!(self.bytes(&encode(&request.payload())), ACK);
        if self.speech() != ENQ {
            return None;
        }
        let frame = self.bytes(&ACK);
        assert!(self.bytes(&ACK).is_empty());
        read(&frame)
    }

    fn dispenses(&self) -> u64 {
        self.sim.counters()["dispenses"].as_u64().unwrap()
    }
}

fn read(mut frame: &[u8]) -> Option<Reply> {
    match Decoder::default().push(&mut frame) {
        Some(Token::Payload(payload)) => Reply::parse(&payload),
        other => panic!("{other:?}"),
    }
}

fn counts(reply: &Reply) -> [u8; 2] {
    let counts = reply.counts().unwrap();
    [counts[0].dispensed.get(), counts[1].dispensed.get()]
}

/// Loss prevented: a simulator more forgiving than the device hides a command that is sent twice.
#[test]
fn a_frame_is_taken_only_after_an_enq_and_once() {
    let mut desk = Desk::set_up();
    let frame = encode(&request([2, 1]).payload());
    assert!(desk.bytes(&frame).is_empty(), "no ENQ before it");
    assert_eq!(desk.bytes(&ENQ), ACK);
    assert_eq!(desk.bytes(&frame), ACK);
    assert!(desk.bytes(&frame).is_empty(), "it has it already");
    assert_eq!(desk.bytes(&ENQ), NAK, "it works");
    assert_eq!(desk.speech(), ENQ);
    let reply = read(&desk.bytes(&ACK)).unwrap();
    assert_eq!(counts(&reply), [2, 1]);
    assert_eq!(reply.notes_at_exit(), Some(true));
    assert_eq!(desk.dispenses(), 1);
}

/// Loss prevented: a simulator that forgets its answer at once, or repeats it for ever, hides what
/// a lost ACK does.
#[test]
fn an_answer_is_offered_until_acknowledged_or_replaced() {
    let mut desk = Desk::set_up();
    desk.bytes(&ENQ);
    desk.bytes(&encode(&request([1, 0]).payload()));
    assert_eq!(desk.speech(), ENQ);
    assert_eq!(desk.speech(), ENQ, "nobody answered: again");
    let frame = desk.bytes(&ACK);
    assert_eq!(desk.bytes(&NAK), frame, "sent again on NAK");
    assert_eq!(desk.bytes(&ENQ), ACK, "the host goes first");
    assert_eq!(desk.speech(), ENQ, "but it says nothing, so the answer is offered again");
    assert_eq!(desk.bytes(&ACK), frame);
    desk.bytes(&ENQ);
    assert_eq!(desk.bytes(&encode(&Request::Status.payload())), ACK);
    assert_eq!(desk.speech(), ENQ);
    let reply = read(&desk.bytes(&ACK)).unwrap();
    assert!(reply.answers(&Request::Status), "the new command has replaced it");
    desk.bytes(&ACK);
    assert!(desk.speech().is_empty());
    assert_eq!(desk.dispenses(), 1);
}

/// Loss prevented: a simulator that dispenses without having been set up hides that a device which
/// lost its power must be set up again.
#[test]
fn it_must_be_set_up_after_power_and_errors() {
    let mut desk = Desk::new();
    let refused = |desk: &mut Desk| {
        let reply = desk.ask(&request([1, 0])).unwrap();
        assert_eq!((reply.positive(), counts(&reply)), (false, [0, 0]));
    };
    refused(&mut desk);
    desk.ask(&init());
    assert!(desk.ask(&request([1, 0])).unwrap().positive());
    desk.sim.control(&json!({"action": "power_off"}), desk.now).unwrap();
    assert!(desk.bytes(&ENQ).is_empty());
    desk.sim.control(&json!({"action": "power_on"}), desk.now).unwrap();
    refused(&mut desk);
    desk.ask(&init());
    desk.sim.control(&json!({"action": "arm", "trap": "jam"}), desk.now).unwrap();
    assert!(!desk.ask(&request([1, 0])).unwrap().positive());
    refused(&mut desk);
    assert_eq!(desk.dispenses(), 2);
}

/// Loss prevented: a request that only the codec knows is answered with silence.
#[test]
fn every_request_is_answered() {
    let mut desk = Desk::set_up();
    for (request, positive) in [
        (Request::Status, true),
        (Request::Status2, true),
        (Request::SensorLevels, true),
        (Request::Cancel, true),
        (Request::ClearLog("now".to_owned()), true),
        (Request::Transport, false),
        (Request::Unknown { raw: vec![0x60, 0x77, 0x1c] }, false),
    ] {
        let reply = desk.ask(&request).unwrap();
        assert_eq!(reply.positive(), positive, "{request:?}");
        assert!(reply.answers(&request), "{request:?}");
        assert_eq!(reply.cassettes(), Some([Some(0x0c), Some(0x0a), None, None]));
    }
    let levels = desk.ask(&Request::SensorLevels).unwrap().sensor_levels().unwrap();
    assert_eq!(levels[0].0, "FDLS1");
}

/// Loss prevented: a key that does something else than it says, or nothing at all.
#[test]
fn every_key_is_an_action_of_its_own() {
    let mut desk = Desk::new();
    let mut seen = std::collections::BTreeSet::from(['c', 'q', '?', '{']);
    for Key { key, action, .. } in desk.sim.keys() {
        assert!(seen.insert(*key), "{key} twice");
        let done = desk.sim.control(&serde_json::from_str(action).unwrap(), desk.now);
        assert!(!matches!(done, Err(SimError::Action { .. })), "{key}: {done:?}");
    }
}

fn any_action() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"action": "take"})),
        (1..4u8, 0..40u32).prop_map(|(b, n)| json!({"action": "refill", "bay": b, "notes": n})),
        (0..6u8).prop_map(|b| json!({"action": "pull", "bay": b})),
        (0..6u8).prop_map(|b| json!({"action": "insert", "bay": b})),
        Just(json!({"action": "collect_rejects"})),
        Just(json!({"action": "power_off"})),
        Just(json!({"action": "power_on"})),
        (0..4usize, 1..9u32).prop_map(|(trap, note)| {
            let trap = ["reject", "jam", "pull", "power_cut"][trap];
            json!({"action": "arm", "trap": trap, "at_note": note})
        }),
    ]
}

proptest! {
    /// Loss prevented: a simulator that loses or makes notes, against which every count is checked.
    #[test]
    fn no_note_is_lost_or_made(
        steps in prop::collection::vec((any_action(), 0..30u32, 0..30u32, 0..9usize), 1..25)
    ) {
        let mut desk = Desk::set_up();
        for (action, one, two, ticks) in steps {
            // refused or not: it must not lose notes
            let _ = desk.sim.control(&action, desk.now);
            for wanted in [init(), request([one, two])] {
                desk.bytes(&ENQ);
                desk.bytes(&encode(&wanted.payload()));
                for _ in 0..ticks {
                    desk.speech();
                }
            }
            let counters = desk.sim.counters();
            for bay in counters["bays"].as_array().unwrap() {
                let places = ["cassette", "path", "exit", "taken", "rejected", "collected"];
                let sum: u64 = places.iter().map(|place| bay[place].as_u64().unwrap()).sum();
                prop_assert_eq!(sum, bay["loaded"].as_u64().unwrap(), "{}", counters);
            }
        }
    }
}
