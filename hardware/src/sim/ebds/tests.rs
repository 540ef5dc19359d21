use proptest::prelude::*;

use super::*;
use crate::frame::ebds::{PowerUpPolicy, Query, Reply, Request, bits};

/// A simulator with a clock, spoken to in frames.
struct Bench {
    sim: EbdsSim,
    now: Mono,
    toggle: bool,
    own: Omnibus,
}

impl Bench {
    /// Running, open for all notes, with this policy.
    fn open(options: Options, policy: PowerUpPolicy) -> Self {
        let sim = EbdsSim::new(EbdsSim::eur(), options, Timing::default());
        let own =
            Omnibus { notes: 0x7f, escrow: true, extended: true, policy, ..Omnibus::default() };
        let mut bench = Self { sim, now: Mono(5_000), toggle: false, own };
        for _ in 0..4 {
            bench.poll();
        }
        bench
    }

    fn ask(&mut self, request: Request<'_>) -> Option<Frame> {
        self.toggle = !self.toggle;
        self.again(request)
    }

    /// Under the toggle of the message before.
    fn again(&mut self, request: Request<'_>) -> Option<Frame> {
        let bytes = self.sim.on_bytes(&request.frame(self.toggle).to_bytes(), self.now);
        Decoder::default().push(&mut bytes.as_slice())
    }

    fn poll(&mut self) -> (Status, Option<NoteReport>) {
        let frame = self.ask(Request::Omnibus(self.own)).expect("an answer");
        assert_eq!(frame.toggle(), self.toggle);
        match Reply::parse(&frame) {
            Reply::Status(status) => (status, None),
            Reply::Note(status, note) => (status, Some(note)),
            other => panic!("expected a state, got {other}"),
        }
    }

    fn state(&mut self) -> u8 {
        self.poll().0.state
    }

    fn stack(&mut self) {
        self.ask(Request::Omnibus(Omnibus { stack: true, ..self.own }));
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.sim.on_tick(self.now);
    }

    fn act(&mut self, action: Value) {
        self.sim.control(&action, self.now).unwrap();
    }

    fn insert_20(&mut self) {
        self.act(json!({"action": "insert", "denomination": 20}));
        assert_eq!(self.state(), bits::ACCEPTING);
        self.wait(1_000);
        let (status, note) = self.poll();
        assert_eq!(status.state, bits::ESCROWED);
        assert_eq!(note.unwrap().note().unwrap().0.minor(), 2_000);
    }

    fn power_cycle(&mut self) {
        self.act(json!({"action": "power_off"}));
        assert_eq!(self.ask(Request::Omnibus(self.own)), None);
        self.act(json!({"action": "power_on"}));
        self.wait(4_000);
        assert_eq!(self.ask(Request::Omnibus(self.own)), None, "it boots");
        self.wait(1_000);
    }

    fn cashbox(&self) -> u64 {
        self.sim.counters()["cashbox"]["20"].as_u64().unwrap_or(0)
    }
}

/// Loss prevented: a simulator that says `stacked` twice to a host that turns the toggle, or not
/// again to one that does not, would hide a host that loses credits or doubles them.
#[test]
fn stacked_is_said_once_and_again_under_the_same_toggle() {
    let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
    bench.insert_20();
    bench.stack();
    assert_eq!(bench.state(), bits::STACKING);
    bench.wait(1_200);
    let (status, note) = bench.poll();
    assert_eq!(status.state, bits::STACKED | bits::IDLING);
    assert!(note.is_some());
    let said = Reply::Note(status, note.unwrap()).frame(bench.toggle);
    for _ in 0..3 {
        let stack = Omnibus { stack: true, ..bench.own };
        assert_eq!(bench.again(Request::Omnibus(stack)), Some(said));
    }
    assert_eq!(bench.sim.counters()["acknowledged"], 0);
    assert_eq!(bench.state(), bits::IDLING);
    assert_eq!((bench.sim.counters()["acknowledged"].clone(), bench.cashbox()), (json!(1), 1));
}

/// Loss prevented: hosts tested against a simulator without power losses lose notes in the field.
#[test]
fn after_a_power_loss_it_does_as_the_policy_says() {
    for (policy, kept, value) in [
        (PowerUpPolicy::A, false, false),
        (PowerUpPolicy::B, true, true),
        (PowerUpPolicy::C, true, false),
    ] {
        let mut bench = Bench::open(Options::default(), policy);
        bench.insert_20();
        bench.power_cycle();
        let (status, _) = bench.poll();
        assert_eq!(status.exception & bits::POWER_UP, bits::POWER_UP);
        assert_eq!(status.state, if kept { bits::ESCROWED } else { bits::RETURNING }, "{policy:?}");
        bench.ask(Request::Omnibus(Omnibus { give_back: true, ..bench.own }));
        bench.wait(1_500);
        assert!(bench.state() & bits::RETURNED != 0);

        bench.insert_20();
        bench.stack();
        bench.power_cycle();
        assert_eq!(bench.state(), bits::STACKING);
        bench.wait(1_200);
        let (status, note) = bench.poll();
        assert!(status.is(bits::STACKED));
        assert_eq!((note.is_some(), bench.cashbox()), (value, 1), "{policy:?}");
    }
}

/// Loss prevented: a host that reads values off a table that the device does not have.
#[test]
fn it_answers_questions() {
    let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
    let frame = bench.ask(Request::Query(Query::Serial)).unwrap();
    assert_eq!(Reply::parse(&frame), Reply::Answer(b"00424242\0"));
    let frame = bench.ask(Request::NoteSpecification(bench.own, 7)).unwrap();
    let Reply::Note(_, note) = Reply::parse(&frame) else { panic!("{frame}") };
    assert_eq!(note.note().unwrap().0.minor(), 50_000);
    let frame = bench.ask(Request::NoteSpecification(bench.own, 8)).unwrap();
    assert!(matches!(Reply::parse(&frame), Reply::Note(_, note) if note.is_blank()));

    let short = Options { extended: false, ..Options::default() };
    let mut bench = Bench::open(short, PowerUpPolicy::B);
    let frame = bench.ask(Request::NoteSpecification(bench.own, 1)).unwrap();
    let Reply::Status(status) = Reply::parse(&frame) else { panic!("{frame}") };
    assert_eq!(status.exception & bits::INVALID, bits::INVALID);
    let frame = bench.ask(Request::ValueTable(bench.own)).unwrap();
    let Reply::ValueTable(_, table) = Reply::parse(&frame) else { panic!("{frame}") };
    assert_eq!(table.notes().count(), 7);
}

/// Loss prevented: a reset that leaves the toggle, or a note, where the host does not expect it.
#[test]
fn a_soft_reset_starts_anew() {
    let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
    assert_eq!(bench.ask(Request::SoftReset), None);
    bench.wait(5_000);
    // any toggle is new to it
    let frame = bench.again(Request::Omnibus(bench.own)).unwrap();
    let status = Reply::parse(&frame).status().unwrap();
    assert_eq!(status.exception & bits::POWER_UP, bits::POWER_UP);
    assert!(status.is(bits::STACKED), "a blank word");
}

/// Loss prevented: a key that does something else than it says, or nothing at all.
#[test]
fn every_key_is_an_action() {
    let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
    assert!(!bench.sim.keys().is_empty());
    let mut seen = std::collections::BTreeSet::from(['c', 'q', '?', '{']);
    for key in bench.sim.keys() {
        assert!(seen.insert(key.key), "{} twice", key.key);
        let action: Value = serde_json::from_str(key.action).unwrap();
        let refused = bench.sim.control(&action, bench.now);
        assert!(!matches!(refused, Err(SimError::Action { .. })), "key {}: {refused:?}", key.key);
    }
}

/// Loss prevented: a control action that is silently ignored makes a test pass for nothing.
#[test]
fn actions_that_do_not_fit_are_refused() {
    let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
    for action in [
        json!({}),
        json!({"action": "x"}),
        json!({"action": "insert"}),
        json!({"action": "insert", "denomination": 7}),
        json!({"action": "set", "option": "x", "on": true}),
        json!(1),
    ] {
        let refused = bench.sim.control(&action, bench.now);
        assert!(matches!(refused, Err(SimError::Action { .. })), "{action}");
    }
    bench.wait(6_000);
    let insert = bench.sim.control(&json!({"action": "insert", "denomination": 20}), bench.now);
    assert!(matches!(insert, Err(SimError::State(_))), "nobody polls: {insert:?}");
    for option in ["repeats", "remembers", "stale_value", "returns_unpolled"] {
        bench.act(json!({"action": "set", "option": option, "on": true}));
    }
}

const ACTIONS: &[&str] = &[
    r#"{"action":"insert","denomination":20}"#,
    r#"{"action":"insert","denomination":20}"#,
    r#"{"action":"power_off"}"#,
    r#"{"action":"power_on"}"#,
    r#"{"action":"stacker_out"}"#,
    r#"{"action":"collect"}"#,
    r#"{"action":"stacker_in"}"#,
    r#"{"action":"jam"}"#,
    r#"{"action":"fail"}"#,
    r#"{"action":"clear"}"#,
    r#"{"action":"reject_next"}"#,
    r#"{"action":"leave"}"#,
    r#"{"action":"take"}"#,
    r#"{"action":"set","option":"returns_unpolled","on":true}"#,
];

proptest! {
    /// Loss prevented: a simulator that loses or makes notes proves nothing about the host.
    #[test]
    fn no_note_is_made_or_lost(
        steps in proptest::collection::vec((0..3u8, any::<proptest::sample::Index>(), 0u64..4_000), 1..200),
    ) {
        let mut bench = Bench::open(Options::default(), PowerUpPolicy::B);
        for (kind, pick, ms) in steps {
            match kind {
                0 => {
                    let action: Value = serde_json::from_str(ACTIONS[pick.index(ACTIONS.len())]).unwrap();
                    // refusals are part of the game
                    let _ = bench.sim.control(&action, bench.now);
                }
                1 => {
                    let own = bench.own;
                    let policy = match ms % 3 {
                        0 => PowerUpPolicy::A,
                        1 => PowerUpPolicy::B,
                        _ => PowerUpPolicy::C,
                    };
                    let requests = [
                        Request::Omnibus(own),
                        Request::Omnibus(Omnibus { policy, ..own }),
                        Request::Omnibus(Omnibus { stack: true, ..own }),
                        Request::Omnibus(Omnibus { give_back: true, ..own }),
                        Request::Omnibus(Omnibus { escrow: false, ..own }),
                        Request::SoftReset,
                    ];
                    let _ = bench.ask(*pick.get(&requests));
                }
                _ => bench.wait(ms),
            }
            let c = bench.sim.counters();
            let n = |name: &str| c[name].as_u64().unwrap();
            let boxed = |name: &str| c[name]["20"].as_u64().unwrap_or(0);
            prop_assert_eq!(
                n("inserted"),
                n("in_path") + n("returned") + n("rejected") + n("removed")
                    + boxed("cashbox") + boxed("collected"),
                "{}", c
            );
            prop_assert!(n("acknowledged") <= boxed("cashbox") + boxed("collected"));
        }
    }
}
