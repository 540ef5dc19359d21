use proptest::prelude::*;

use super::*;
use crate::frame::puloon::lcdm4000::{BayCount, Counts, Reply, Request};

/// A device and the time.
struct Desk {
    sim: PuloonSim,
    now: Mono,
}

fn frame(mut bytes: &[u8]) -> Option<Frame> {
    let mut decoder = Decoder::new(Side::Device);
    std::iter::from_fn(|| decoder.push(&mut bytes)).find_map(|token| match token {
        Token::Frame(frame) => Some(frame),
        _ => None,
    })
}

fn dispense(notes: [u8; 4], serial: u8) -> Frame {
    Request::Dispense(Counts { notes, form: Form::Serial(serial) }).frame()
}

impl Desk {
    fn new(model: Model) -> Self {
        Self { sim: PuloonSim::new(model, Fit::default()), now: Mono(0) }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.now = self.now.after(1);
        self.sim.on_bytes(bytes, self.now)
    }

    fn act(&mut self, action: &Value) {
        self.sim.control(action, self.now).unwrap();
    }

    /// What it says by itself, next, but for items.
    fn speech(&mut self) -> Vec<u8> {
        loop {
            let Some(at) = self.sim.wake_at() else { return Vec::new() };
            self.now = at;
            let said = self.sim.on_tick(at);
            if !said.is_empty() && said != REJECTED {
                return said;
            }
        }
    }

    fn send(&mut self, request: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        request.write(Side::Host, &mut bytes);
        self.bytes(&bytes)
    }

    /// A whole exchange; `None` where no reply comes.
    fn ask(&mut self, request: &Frame) -> Option<Frame> {
        let first = self.send(request);
        assert_eq!(first.first(), Some(&ACK));
        let reply = frame(&first).or_else(|| frame(&self.speech()));
        assert_eq!(self.bytes(&[ACK]), reply.map_or_else(Vec::new, |_| vec![EOT]));
        reply
    }

    fn big(&mut self, request: Request) -> Reply {
        Reply::parse(&self.ask(&request.frame()).unwrap())
    }

    fn small(&mut self, request: lcdm1000::Request) -> lcdm1000::Reply {
        lcdm1000::Reply::parse(&self.ask(&request.frame()).unwrap())
    }

    fn dispenses(&self) -> u64 {
        self.sim.counters()["dispenses"].as_u64().unwrap()
    }

    fn conserved(&self) {
        let counters = self.sim.counters();
        for bay in counters["bays"].as_array().unwrap() {
            let places = ["cassette", "path", "exit", "taken", "rejected", "collected"];
            let sum: u64 = places.iter().map(|place| bay[place].as_u64().unwrap()).sum();
            assert_eq!(sum, bay["loaded"].as_u64().unwrap(), "{counters}");
        }
    }
}

/// Loss prevented: a simulator that answers otherwise than the published frames trains a driver that
/// no real unit understands.
#[test]
fn published_exchanges_byte_for_byte() {
    let bytes = |hex: &str| -> Vec<u8> {
        hex.split(' ').map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
    };
    let mut desk = Desk::new(Model::Lcdm4000);
    assert_eq!(desk.bytes(&bytes("04 30 02 44 03 71")), [ACK]);
    for _ in 0..2 {
        assert_eq!(desk.speech(), bytes("01 30 02 44 20 03 54"), "twice");
        assert_eq!(desk.bytes(&[ACK]), [EOT]);
    }
    assert_eq!(desk.bytes(&bytes("04 30 02 5E 3C 36 3C 36 30 30 30 30 03 6B")), [ACK]);
    assert_eq!(desk.speech(), bytes("01 30 02 5E 20 03 4E"));
    assert_eq!(desk.bytes(&[ACK]), [EOT]);
    desk.act(&json!({"action": "arm", "trap": "reject"}));
    assert_eq!(desk.bytes(&bytes("04 30 02 52 23 21 20 20 20 20 26 03 43")), [ACK]);
    // cassettes 3 and 4 are not fitted: their type is 30, which changes the check
    let reply = desk.speech();
    assert_eq!(
        reply[..25],
        bytes("01 30 02 52 20 30 23 21 31 21 20 32 20 20 30 20 20 30 20 20 20 20 20 20 20")
    );
    let Reply::Serial { serial, .. } = desk.big(Request::Serial) else { panic!() };
    assert_eq!(serial, 6, "the serial number of the last dispense");
}

/// Loss prevented: a simulator that forgets its reply at once, or repeats it for ever, hides what a
/// lost ACK does; one that hears while it works hides a command that is sent twice.
#[test]
fn a_reply_is_repeated_until_acknowledged_or_replaced() {
    let mut desk = Desk::new(Model::Lcdm4000);
    let request = dispense([2, 1, 0, 0], 1);
    assert_eq!(desk.send(&request), [ACK]);
    assert!(desk.send(&request).is_empty(), "it works");
    let reply = desk.speech();
    assert_eq!(desk.speech(), reply, "nobody acknowledged it");
    assert_eq!(desk.bytes(&[NAK]), reply, "sent again on NAK");
    assert!(desk.bytes(&[NAK]).is_empty(), "three times at most");
    let Reply::Last { command, bays, .. } = desk.big(Request::LastStatus) else { panic!() };
    assert_eq!((command, bays[0].exit, bays[1].exit), (0x52, 2, 1));
    assert_eq!(desk.dispenses(), 1);
    assert_eq!(desk.bytes(&[0x04, 0x30, 0x02, 0x50, 0x03, 0x00]), [NAK], "a wrong check");
}

/// Loss prevented: an option of the simulator that does nothing, so that nothing is tested with it.
#[test]
fn the_open_points_are_options() {
    let mut desk = Desk::new(Model::Lcdm4000);
    desk.act(&json!({"action": "set", "strict_serial": true, "tray": true, "resets": 0}));
    assert_eq!(desk.ask(&Request::Reset.frame()), None);
    let first = desk.ask(&dispense([1, 0, 0, 0], 9)).unwrap();
    assert_eq!(desk.ask(&dispense([1, 0, 0, 0], 9)), Some(first), "no motion");
    assert_eq!(desk.dispenses(), 1);
    let Reply::Status { sensors, .. } = desk.big(Request::Status) else { panic!() };
    assert_eq!(sensors, 0, "the notes lie in the tray");
    desk.act(&json!({"action": "power_off"}));
    desk.act(&json!({"action": "power_on"}));
    assert!(matches!(desk.big(Request::LastStatus), Reply::Done { .. }), "forgotten");
    desk.act(&json!({"action": "set", "keeps_last": true}));
    desk.big(Request::Purge);
    desk.act(&json!({"action": "power_off"}));
    desk.act(&json!({"action": "power_on"}));
    assert!(matches!(desk.big(Request::LastStatus), Reply::Last { command: 0x51, .. }));
}

/// Loss prevented: a command of the list that the simulator does not know is first tried on a real
/// unit.
#[test]
fn every_request_is_answered() {
    let mut desk = Desk::new(Model::Lcdm4000);
    let counts = Counts { notes: [2, 0, 0, 0], form: Form::Plain };
    let Reply::Counted { error, bays, .. } = desk.big(Request::TestDispense(counts)) else {
        panic!()
    };
    assert!(error.is_ok());
    assert_eq!(bays[0], BayCount { exit: 0, rejected: 2, present: true });
    let measured = desk.big(Request::Diagnostics(2));
    assert!(matches!(measured, Reply::Measured { length: 198, rejected: 5, .. }), "{measured:?}");
    desk.big(Request::SetOpacities([7, 0, 9, 0]));
    desk.big(Request::SetOrder([2, 1, 3, 4]));
    for (request, values) in [
        (Request::Opacities, [7, 0x50, 9, 0x50]),
        (Request::Order, [2, 1, 3, 4]),
        (Request::Lengths, [198, 198, 0, 0]),
    ] {
        assert!(matches!(desk.big(request), Reply::Values { values: v, .. } if v == values));
    }
    let unknown = Request::Unknown(Frame::new(crate::frame::puloon::Id::Lcdm4000, 0x72, &[]));
    let reply = desk.ask(&unknown.frame()).unwrap();
    assert_eq!(reply.data(), [0x50], "error 30");
    assert_eq!(desk.dispenses(), 0);

    let mut desk = Desk::new(Model::Lcdm2000);
    use lcdm1000::Request as Small;
    let good = lcdm1000::error(0x30);
    assert!(matches!(desk.small(Small::RomVersion), lcdm1000::Reply::Rom { .. }));
    for (request, bay) in [(Small::TestUpper(2), 1), (Small::TestLower(3), 2)] {
        let lcdm1000::Reply::One { error, bay: counted, .. } = desk.small(request) else {
            panic!()
        };
        assert_eq!((error, counted.exit, u64::from(counted.rejected)), (good, 0, bay + 1));
    }
    let lcdm1000::Reply::One { bay, .. } = desk.small(Small::Lower(2)) else { panic!() };
    assert_eq!((bay.checked, bay.exit), (2, 2));
    desk.act(&json!({"action": "take"}));
    let lcdm1000::Reply::Two { bays, .. } = desk.small(Small::Both(1, 2)) else { panic!() };
    assert_eq!((bays[0].exit, bays[1].exit), (1, 2));
    let lcdm1000::Reply::Status { sensors, .. } = desk.small(Small::Status) else { panic!() };
    assert!(sensors.at_exit());
    assert!(desk.send(&Request::Status.frame()).is_empty(), "the other family's id");
    let lcdm1000::Reply::One { error: refused, .. } = desk.small(Small::Upper(61)) else {
        panic!()
    };
    assert_eq!(refused, lcdm1000::error(0x3b));
    desk.conserved();
}

/// Loss prevented: a key that does something else than it says, or nothing at all.
#[test]
fn every_key_is_an_action_of_its_own() {
    let mut desk = Desk::new(Model::Lcdm2000);
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
        (0..6usize, 1..9u32).prop_map(|(trap, note)| {
            let trap = ["reject", "double", "jam", "pull", "miscount", "power_cut"][trap];
            json!({"action": "arm", "trap": trap, "at_note": note})
        }),
    ]
}

proptest! {
    /// Loss prevented: a simulator that loses or makes notes, against which every count is checked.
    #[test]
    fn no_note_is_lost_or_made(
        model in 0..3usize,
        steps in prop::collection::vec((any_action(), 0..30u8, 0..30u8, 0..40usize), 1..25)
    ) {
        let model = [Model::Lcdm4000, Model::Lcdm2000, Model::Lcdm1000][model];
        let mut desk = Desk::new(model);
        for (action, one, two, ticks) in steps {
            // refused or not: it must not lose notes
            let _ = desk.sim.control(&action, desk.now);
            let requests = match model {
                Model::Lcdm4000 => [Request::Purge.frame(), dispense([one, two, 0, 0], two)],
                _ => [lcdm1000::Request::Purge.frame(), lcdm1000::Request::Both(one, two).frame()],
            };
            for request in requests {
                desk.send(&request);
                for _ in 0..ticks {
                    desk.speech();
                }
                desk.bytes(&[ACK]);
            }
            desk.conserved();
        }
    }
}
