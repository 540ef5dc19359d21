use proptest::prelude::*;

use super::*;
use crate::frame::id003::{CommMode, Frame, Held, POWER_RECOVERY, Request};

/// A simulator with a clock, spoken to in frames.
struct Bench {
    sim: Id003Sim,
    now: Mono,
}

impl Bench {
    fn new(options: Options) -> Self {
        Self { sim: Id003Sim::new(Id003Sim::eur(), options, Timing::default()), now: Mono(1_000) }
    }

    /// Powered up, reset, open for all notes.
    fn open(options: Options) -> Self {
        let mut bench = Self::new(options);
        bench.ask(Request::Reset);
        bench.ask(Request::Set(Config::Optional(POWER_RECOVERY)));
        bench.ask(Request::Set(Config::Inhibit(false)));
        bench.wait(3_000);
        bench
    }

    fn ask(&mut self, request: Request<'_>) -> Option<Frame> {
        let bytes = self.sim.on_bytes(&request.frame().to_bytes(), self.now);
        Decoder::default().push(&mut bytes.as_slice())
    }

    fn status(&mut self) -> Status {
        let frame = self.ask(Request::StatusRequest).expect("an answer");
        match Reply::parse(&frame) {
            Reply::Status(status) => status,
            other => panic!("expected a state, got {other}"),
        }
    }

    /// Lets time pass, polling.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now = self.now.after(100);
            self.sim.on_tick(self.now);
            self.ask(Request::StatusRequest);
        }
    }

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn insert_20(&mut self) {
        self.act(json!({"action": "insert", "denomination": 20}));
        self.wait(1_000);
        assert_eq!(self.status(), Status::Escrow(Held::Note(0x64)));
    }

    fn cashbox(&self) -> u64 {
        self.sim.counters()["cashbox"]["20"].as_u64().unwrap_or(0)
    }
}

/// Loss prevented: a simulator that forgets VEND VALID by itself would hide a host that never
/// acknowledges, and one that counts twice would hide a host that credits twice.
#[test]
fn a_note_is_stacked_once_and_its_credit_stays_until_the_ack() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    assert_eq!(bench.ask(Request::Stack2), Some(Reply::Ack.frame()));
    assert_eq!(bench.status(), Status::Stacking(None));
    bench.wait(10_000);
    assert_eq!(bench.status(), Status::VendValid(Some(0x64)));
    assert_eq!(bench.ask(Request::Stack2), Some(Reply::InvalidCommand.frame()));
    assert_eq!(bench.ask(Request::Ack), None);
    assert_eq!(bench.status(), Status::Stacked(None));
    bench.wait(300);
    assert_eq!((bench.status(), bench.cashbox()), (Status::Idling, 1));
}

/// Loss prevented: the decision times of the specification are what hosts are built around.
#[test]
fn escrow_lasts_ten_seconds_and_three_without_polls() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    bench.wait(9_000);
    assert_eq!(bench.ask(Request::Hold), Some(Reply::Ack.frame()));
    bench.wait(9_000);
    assert_eq!(bench.status(), Status::Holding);
    bench.wait(1_100);
    assert_eq!(bench.status(), Status::Rejecting(RejectReason::Inhibited));
    bench.wait(2_000);
    bench.insert_20();
    bench.now = bench.now.after(3_500);
    assert_eq!(bench.status(), Status::Returning);
    bench.wait(2_000);
    let counters = bench.sim.counters();
    assert_eq!((&counters["returned"], &counters["inserted"]), (&json!(2), &json!(2)));
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
        assert_eq!(bench.ask(Request::StatusRequest), None);
        bench.act(json!({"action": "power_on"}));
        assert_eq!(bench.status(), Status::PowerUpBillInAcceptor);
        bench.ask(Request::Reset);
        bench.ask(Request::Set(Config::Optional(POWER_RECOVERY)));
        bench.ask(Request::Set(Config::Inhibit(false)));
        bench.wait(3_000);
        assert_eq!(bench.status(), Status::Idling);

        bench.insert_20();
        bench.ask(Request::Stack2);
        bench.act(json!({"action": "power_off"}));
        bench.act(json!({"action": "power_on"}));
        assert_eq!(bench.status(), Status::PowerUpBillInStacker);
        bench.ask(Request::Reset);
        assert_eq!(bench.status(), Status::Initializing);
        bench.ask(Request::Set(Config::Optional(POWER_RECOVERY)));
        bench.wait(3_000);
        let expected = if credit { Status::VendValid(Some(0x64)) } else { Status::Disabled };
        assert_eq!((bench.status(), bench.cashbox()), (expected, 1));
    }
}

/// Loss prevented: the oldest known defect of ID-003 hosts is to RESET a VEND VALID away; the
/// simulator must let it happen. After a minute without ACK nothing but RESET is answered.
#[test]
fn a_reset_during_vend_valid_loses_the_credit() {
    let mut bench = Bench::open(Options::default());
    bench.insert_20();
    bench.ask(Request::Stack2);
    bench.wait(61_500);
    assert_eq!(bench.ask(Request::StatusRequest), None);
    assert_eq!(bench.ask(Request::Reset), Some(Reply::Ack.frame()));
    bench.wait(3_000);
    assert_eq!((bench.status(), bench.cashbox()), (Status::Disabled, 1));
}

/// Loss prevented: a host that relies on settings being taken at any time works on some units only.
#[test]
fn strict_firmware_takes_settings_early_only() {
    let mut bench = Bench::open(Options { strict: true, ..Options::default() });
    assert_eq!(bench.status(), Status::Idling);
    let close = Request::Set(Config::Inhibit(true));
    assert_eq!(bench.ask(close), Some(Reply::InvalidCommand.frame()));
    bench.ask(Request::Reset);
    assert_eq!(bench.ask(close), Some(Reply::Echo(Config::Inhibit(true)).frame()));
}

/// Loss prevented: interrupt mode is what other hosts use; a note must not go by unannounced.
#[test]
fn interrupt_mode_announces_each_change() {
    let mut bench = Bench::open(Options::default());
    bench.ask(Request::Set(Config::Mode(CommMode::Interrupt1)));
    bench.act(json!({"action": "insert", "denomination": 50}));
    assert_eq!(bench.sim.wake_at(), Some(Mono(0)));
    assert_eq!(bench.sim.on_tick(bench.now), Reply::Enq.frame().to_bytes());
    assert!(bench.sim.on_tick(bench.now).is_empty());
    assert_eq!(bench.status(), Status::Accepting);
}

/// Loss prevented: a figure for the host's decisions that leaves out the time in which it held the
/// note, or is that of another note.
#[test]
fn it_tells_when_the_host_decided() {
    let mut bench = Bench::open(Options::default());
    let times = |bench: &Bench| {
        let counters = bench.sim.counters();
        (counters["escrow_at_ms"].as_u64(), counters["decided_at_ms"].as_u64())
    };
    assert_eq!(times(&bench), (None, None));
    bench.insert_20();
    let told = times(&bench).0.unwrap();
    assert_eq!(bench.ask(Request::Hold), Some(Reply::Ack.frame()));
    bench.wait(2_000);
    assert_eq!(bench.status(), Status::Holding);
    assert_eq!(times(&bench), (Some(told), None));
    assert_eq!(bench.ask(Request::Return), Some(Reply::Ack.frame()));
    let decided = times(&bench).1.unwrap();
    assert!(decided >= told + 2_000, "{decided}");
    bench.wait(3_000);
    bench.insert_20();
    assert!(times(&bench).0.unwrap() > decided && times(&bench).1.is_none());
    // nobody decides: the device gives it back by itself
    bench.wait(11_000);
    assert_eq!(times(&bench), (None, None));
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
    r#"{"action":"clear"}"#,
    r#"{"action":"reject_next","reason":"74"}"#,
    r#"{"action":"leave"}"#,
    r#"{"action":"take"}"#,
    r#"{"action":"set","option":"power_recovery","on":false}"#,
];

const REQUESTS: &[Request<'static>] = &[
    Request::StatusRequest,
    Request::StatusRequest,
    Request::Stack1,
    Request::Stack2,
    Request::Return,
    Request::Ack,
    Request::Reset,
    Request::Hold,
    Request::Set(Config::Inhibit(false)),
    Request::Set(Config::Optional(POWER_RECOVERY)),
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
