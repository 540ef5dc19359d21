use proptest::prelude::*;

use super::*;
use crate::frame::ccnet::{Reply, Request};

/// A simulator with a clock, spoken to in frames.
struct Bench {
    sim: CcnetSim,
    now: Mono,
}

const ALL: Request<'static> = Request::Enable { bills: Bills::ALL, escrow: Bills::ALL };

impl Bench {
    fn new(options: Options) -> Self {
        Self { sim: CcnetSim::new(CcnetSim::eur(), options, Timing::default()), now: Mono(1_000) }
    }

    /// Powered up, reset, open for all notes.
    fn open(options: Options) -> Self {
        let mut bench = Self::new(options);
        bench.ask(Request::Reset);
        bench.wait(3_000);
        assert_eq!(bench.ask(ALL), Some(Reply::Ack.frame()));
        bench
    }

    fn ask(&mut self, request: Request<'_>) -> Option<Frame> {
        let bytes = self.sim.on_bytes(&request.frame().to_bytes(), self.now);
        Decoder::default().push(&mut bytes.as_slice())
    }

    /// The state, without a word after it.
    fn state(&mut self) -> State {
        let frame = self.ask(Request::Poll).expect("an answer");
        match Reply::parse(&frame) {
            Reply::State(state) => state,
            other => panic!("expected a state, got {other}"),
        }
    }

    fn ack(&mut self) {
        assert_eq!(self.ask(Request::Ack), None);
    }

    /// Lets time pass, polling and confirming nothing.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now = self.now.after(100);
            self.sim.on_tick(self.now);
            self.ask(Request::Poll);
        }
    }

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn insert_20(&mut self) {
        self.act(json!({"action": "insert", "denomination": 20}));
        self.wait(1_000);
        assert_eq!(self.state(), State::Escrow(10));
    }

    fn cashbox(&self) -> u64 {
        self.sim.counters()["cashbox"]["20"].as_u64().unwrap_or(0)
    }
}

/// Loss prevented: a simulator that forgets BILL STACKED by itself would hide a host that never
/// confirms, and one that counts twice would hide a host that credits twice.
#[test]
fn a_note_is_stacked_once_and_its_credit_stays_until_an_ack_in_time() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    assert_eq!(bench.ask(Request::Stack), Some(Reply::Ack.frame()));
    assert_eq!(bench.state(), State::Stacking);
    bench.wait(10_000);
    assert_eq!(bench.state(), State::Stacked(10));
    assert_eq!(bench.ask(Request::Stack), Some(Reply::Illegal.frame()));
    bench.ack();
    assert_eq!(bench.state(), State::Stacked(10), "the ACK of another answer is none");
    bench.now = bench.now.after(101);
    bench.ack();
    assert_eq!(bench.state(), State::Stacked(10), "an ACK that is late is none");
    assert_eq!(bench.ask(Request::Nak), Some(State::Stacked(10).frame()));
    bench.ack();
    assert_eq!((bench.state(), bench.cashbox()), (State::Idling, 1));
}

/// Loss prevented: hosts are built around the decision time, and around a return that is told until
/// it was heard.
#[test]
fn escrow_lasts_ten_seconds_and_its_return_is_told_until_the_ack() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    bench.wait(9_000);
    assert_eq!(bench.ask(Request::Hold), Some(Reply::Ack.frame()));
    bench.wait(9_000);
    assert_eq!(bench.state(), State::Holding);
    bench.wait(1_100);
    assert_eq!(bench.state(), State::Returning);
    bench.wait(10_000);
    assert_eq!(bench.state(), State::Returned(10));
    bench.ack();
    assert_eq!(bench.state(), State::Idling);
    let counters = bench.sim.counters();
    assert_eq!((&counters["returned"], &counters["inserted"]), (&json!(1), &json!(1)));
}

/// Loss prevented: hosts tested against a simulator without power losses lose notes in the field.
#[test]
fn after_a_power_loss_it_tells_where_the_note_was() {
    for (options, credit) in [
        (Options::default(), true),
        (Options { power_recovery: false, ..Options::default() }, false),
    ] {
        let mut bench = Bench::open(options);
        bench.insert_20();
        bench.act(json!({"action": "power_off"}));
        assert_eq!(bench.ask(Request::Poll), None);
        bench.act(json!({"action": "power_on"}));
        assert_eq!(bench.state(), State::PowerUpBillInValidator);
        bench.ask(Request::Reset);
        bench.wait(3_000);
        assert_eq!(bench.state(), State::Returned(10));
        bench.ack();
        assert_eq!(bench.state(), State::Disabled);

        bench.ask(ALL);
        bench.insert_20();
        bench.ask(Request::Stack);
        bench.act(json!({"action": "power_off"}));
        bench.act(json!({"action": "power_on"}));
        assert_eq!(bench.state(), State::PowerUpBillInStacker);
        bench.ask(Request::Reset);
        assert_eq!(bench.state(), State::Initialize);
        bench.wait(3_000);
        let expected = if credit { State::Stacked(10) } else { State::Disabled };
        assert_eq!((bench.state(), bench.cashbox()), (expected, 1));
    }
}

/// Loss prevented: a host that resets a credit away, or enables notes without escrow, must be seen
/// to lose by it.
#[test]
fn what_a_careless_host_loses() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    bench.ask(Request::Stack);
    bench.wait(1_500);
    assert_eq!(bench.ask(Request::Reset), Some(Reply::Ack.frame()));
    bench.wait(3_000);
    assert_eq!((bench.state(), bench.cashbox()), (State::Disabled, 1));

    bench.ask(Request::Enable { bills: Bills::ALL, escrow: Bills::NONE });
    bench.act(json!({"action": "insert", "denomination": 20}));
    bench.wait(2_500);
    assert_eq!((bench.state(), bench.cashbox()), (State::Stacked(10), 2));
}

/// Loss prevented: units differ in what they answer when; a host that knows one of them fails at the
/// other.
#[test]
fn firmware_differs() {
    let mut bench = Bench::open(Options { strict: true, ..Options::default() });
    assert!(matches!(bench.ask(Request::GetBillTable), Some(f) if f.content().len() == 120));
    bench.act(json!({"action": "insert", "denomination": 20}));
    for request in [Request::GetBillTable, Request::GetStatus, ALL] {
        assert_eq!(bench.ask(request), Some(Reply::Illegal.frame()), "{request}");
    }

    let mut bench = Bench::open(Options { closes_after_note: true, ..Options::default() });
    bench.insert_20();
    bench.ask(Request::Stack);
    bench.wait(1_500);
    assert_eq!(bench.state(), State::Stacked(10));
    bench.ack();
    assert_eq!(bench.state(), State::Disabled);

    let mut bench = Bench::open(Options { says_again: true, ..Options::default() });
    assert_eq!(bench.state(), State::Idling);
    assert_eq!(bench.sim.wake_at(), Some(bench.now.after(100)));
    bench.now = bench.now.after(100);
    assert_eq!(bench.sim.on_tick(bench.now), State::Idling.frame().to_bytes());
    bench.now = bench.now.after(1_000);
    assert!(bench.sim.on_tick(bench.now).is_empty(), "once");

    let mut bench = Bench::open(Options { cheat_passes: true, ..Options::default() });
    bench.act(json!({"action": "cheat"}));
    assert_eq!(bench.state(), State::Cheated);
    bench.ack();
    assert_eq!(bench.state(), State::Initialize);
}

/// Loss prevented: a key that does something else than it says, or nothing at all.
#[test]
fn every_key_is_an_action() {
    crate::sim::testing::every_key_is_an_action(Bench::new(Options::default()).sim);
}

/// Loss prevented: a control action that is silently ignored makes a test pass for nothing.
#[test]
fn actions_that_do_not_fit_are_refused() {
    let mut bench = Bench::new(Options::default());
    for action in [json!({}), json!({"action": "x"}), json!({"action": "insert"}), json!(1)] {
        let refused = bench.sim.control(&action, bench.now);
        assert!(matches!(refused, Err(SimError::Action { .. })), "{action}");
    }
    let insert = bench.sim.control(&json!({"action": "insert", "denomination": 20}), bench.now);
    assert!(matches!(insert, Err(SimError::State(_))), "{insert:?}");
}

const ACTIONS: &[&str] = &[
    r#"{"action":"insert","denomination":20}"#,
    r#"{"action":"insert","denomination":20}"#,
    r#"{"action":"power_off"}"#,
    r#"{"action":"power_on"}"#,
    r#"{"action":"stacker_out"}"#,
    r#"{"action":"collect"}"#,
    r#"{"action":"stacker_in"}"#,
    r#"{"action":"jam","where":"stacker"}"#,
    r#"{"action":"cheat"}"#,
    r#"{"action":"clear"}"#,
    r#"{"action":"reject_next","reason":"64"}"#,
    r#"{"action":"leave"}"#,
    r#"{"action":"take"}"#,
    r#"{"action":"set","option":"power_recovery","on":false}"#,
    r#"{"action":"set","option":"cheat_passes","on":true}"#,
];

const REQUESTS: &[Request<'static>] = &[
    Request::Poll,
    Request::Poll,
    Request::Stack,
    Request::Return,
    Request::Ack,
    Request::Ack,
    Request::Nak,
    Request::Reset,
    Request::Hold,
    ALL,
    Request::Enable { bills: Bills::ALL, escrow: Bills::NONE },
];

proptest! {
    /// Loss prevented: a simulator that loses or makes notes proves nothing about the host.
    #[test]
    fn no_note_is_made_or_lost(
        steps in proptest::collection::vec((0..3u8, any::<proptest::sample::Index>(), 0u64..4_000), 1..200),
    ) {
        let mut bench = Bench::open(Options::default());
        for (kind, pick, ms) in steps {
            match kind {
                0 => {
                    let action: Value = serde_json::from_str(ACTIONS[pick.index(ACTIONS.len())]).unwrap();
                    // refusals are part of the game
                    let _ = bench.sim.control(&action, bench.now);
                }
                1 => drop(bench.ask(*pick.get(REQUESTS))),
                _ => {
                    bench.now = bench.now.after(ms);
                    bench.sim.on_tick(bench.now);
                }
            }
            crate::sim::testing::notes_add_up(&bench.sim.counters());
        }
    }
}
