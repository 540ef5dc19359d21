//! The simulated Bill-to-Bill unit: what it refuses, and where its notes are.

use super::*;
use crate::frame::ccnet::unit::{Cassettes, Command, Recovery, UNASSIGNED};
use crate::frame::ccnet::{BILL_TO_BILL, Reply, Request};

struct Bench {
    sim: CcnetSim,
    now: Mono,
}

impl Bench {
    /// Powered up and reset; cassette 1 keeps notes of 20, and has three.
    fn new() -> Self {
        let sim = CcnetSim::unit(CcnetSim::eur(), Options::default(), Timing::default());
        let mut bench = Self { sim, now: Mono(1_000) };
        assert!(bench.takes(Request::Reset));
        bench.wait(3_000);
        assert!(bench.takes(Request::Unit(Command::SetCassetteType { cassette: 1, kind: 10 })));
        bench.wait(1_000);
        assert_eq!(bench.poll(), "SET TYPE CASSETTE (29)");
        bench.ask(Request::Ack);
        bench.act(json!({"action": "load", "box": 1, "notes": 3}));
        bench
    }

    fn ask(&mut self, request: Request<'_>) -> Option<Frame> {
        let asked = request.frame().with_address(BILL_TO_BILL).to_bytes();
        let bytes = self.sim.on_bytes(&asked, self.now);
        Decoder::default().push(&mut bytes.as_slice())
    }

    fn takes(&mut self, request: Request<'_>) -> bool {
        let frame = self.ask(request).expect("an answer");
        assert_eq!(frame.address(), BILL_TO_BILL);
        Reply::parse(&frame) == Reply::Ack
    }

    fn poll(&mut self) -> String {
        let frame = self.ask(Request::Poll).expect("an answer");
        Reply::parse(&frame).to_string()
    }

    fn cassettes(&mut self) -> String {
        let frame = self.ask(Request::Unit(Command::CassetteStatus)).expect("an answer");
        Cassettes::parse(frame.content()).unwrap().to_string()
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.sim.on_tick(self.now);
    }

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn sum(&self, pointer: &str) -> u64 {
        let counters = self.sim.counters();
        let notes = counters.pointer(pointer).unwrap().as_object().unwrap();
        notes.values().map(|count| count.as_u64().unwrap()).sum()
    }
}

/// Loss prevented: a simulator that gives notes in any state would hide a host that asks at a bad
/// time, or asks for more than one command may give.
#[test]
fn notes_go_out_only_while_it_is_disabled() {
    let mut bench = Bench::new();
    let dispense = |notes| Request::Unit(Command::Dispense(notes));
    assert!(!bench.takes(dispense(&[[10, 21]])));
    assert!(!bench.takes(dispense(&[[10, 0]])));
    assert!(!bench.takes(Request::Unit(Command::EmptyDispenser)));
    let all = Request::Enable { bills: Bills::ALL, escrow: Bills::ALL };
    assert!(bench.takes(all));
    assert!(!bench.takes(dispense(&[[10, 1]])));
    assert!(!bench.takes(Request::Unit(Command::Unload { cassette: 1, notes: 1 })));
    assert!(!bench.takes(Request::Unit(Command::SetCassetteType { cassette: 1, kind: 9 })));
    assert!(bench.takes(Request::Enable { bills: Bills::NONE, escrow: Bills::NONE }));
    assert!(bench.takes(dispense(&[[10, 4]])));
    assert_eq!(bench.poll(), "INVALID BILL NUMBER (28)");
    assert!(!bench.takes(dispense(&[[10, 1]])), "that is not acknowledged yet");
    bench.poll();
    bench.ask(Request::Ack);
    bench.act(json!({"action": "set", "option": "tells_counts", "on": true}));
    assert!(bench.takes(dispense(&[[10, 2]])));
    assert_eq!(bench.poll(), "DISPENSING (1D)");
    bench.wait(2_500);
    assert_eq!(bench.poll(), "DISPENSING, notes wait at the exit (1D)");
    bench.wait(2_000);
    for _ in 0..3 {
        assert_eq!(bench.poll(), "DISPENSED: 2 of type 10 (25)");
    }
    bench.ask(Request::Ack);
    assert_eq!(bench.poll(), "UNIT DISABLED (19)");
    assert_eq!((bench.sum("/given"), bench.sum("/boxes/0")), (2, 1));
    assert_eq!(bench.cassettes(), "CASSETTES, 1: 1 of type 10, 2 keeps none, 3 keeps none");
}

/// Loss prevented: a host that gives a cassette with notes another type, or enables a unit with
/// notes in its dispenser, must not get away with it here.
#[test]
fn what_a_host_must_not_do_has_its_price() {
    let mut bench = Bench::new();
    let set = Command::SetCassetteType { cassette: 1, kind: UNASSIGNED };
    assert!(bench.takes(Request::Unit(set)));
    bench.wait(1_000);
    assert_eq!((bench.sum("/boxes/0"), bench.sum("/cashbox")), (0, 3));
    let mut bench = Bench::new();
    assert!(bench.takes(Request::Unit(Command::Dispense(&[[10, 3]]))));
    bench.wait(800);
    bench.act(json!({"action": "power_off"}));
    bench.act(json!({"action": "power_on"}));
    assert_eq!(bench.poll(), "POWER UP, BILL IN THE UNIT's dispenser (12)");
    assert!(bench.takes(Request::Reset));
    bench.wait(3_000);
    let frame = bench.ask(Request::Unit(Command::PowerRecovery)).unwrap();
    assert_eq!(Recovery::parse(frame.content()), Some(Recovery::Dispensing(&[[0x8a, 0]])));
    assert!(bench.takes(Request::Enable { bills: Bills::ALL, escrow: Bills::ALL }));
    assert!(bench.poll().starts_with("GENERIC FAILURE"));
}

/// Loss prevented: a simulator that dies between its words only would hide a host that trusts half a
/// word.
#[test]
fn its_power_can_go_in_the_middle_of_a_word() {
    let mut bench = Bench::new();
    bench.act(json!({"action": "power_off_at", "byte": 9}));
    assert!(bench.ask(Request::Poll).is_some(), "6 bytes");
    let asked = Request::Poll.frame().with_address(BILL_TO_BILL).to_bytes();
    assert_eq!(bench.sim.on_bytes(&asked, bench.now).len(), 3);
    assert!(bench.ask(Request::Poll).is_none());
    bench.act(json!({"action": "power_on"}));
    assert_eq!(bench.poll(), "POWER UP (10)");
}

/// Loss prevented: a key that does nothing, or nothing known, in front of a customer.
#[test]
fn every_key_of_a_unit_is_an_action() {
    super::super::testing::every_key_is_an_action(Bench::new().sim);
}
