//! Against a device whose every answer is written by hand: for what no simulator should do.

use super::*;
use crate::frame::ccnet::{BILL_TO_BILL, Frame, VALIDATOR};

enum ByTest {}
struct Proof<T>(T);
impl<T> AsRef<T> for Proof<T> {
    fn as_ref(&self) -> &T {
        &self.0
    }
}
impl Authority for ByTest {
    type Committed<T: Send + 'static> = Proof<T>;
}

struct Hand {
    engine: Ccnet<ByTest>,
    now: Mono,
    out: Output<AcceptorEvent>,
    /// ACKs and NAKs of the host.
    words: Vec<Request<'static>>,
    enabled: Bills,
}

impl Hand {
    fn new() -> Self {
        let settings = Settings { currency: "USD".parse().unwrap(), baud: 9600 };
        let mut engine = Ccnet::new(settings);
        let out = engine.on_link_up(Mono(0));
        Self { engine, now: Mono(0), out, words: Vec::new(), enabled: Bills::NONE }
    }

    /// Set up and open for 20s, which are type 4.
    fn open() -> Self {
        let mut hand = Self::new();
        hand.answer_all(State::PowerUp, Reply::Ack, 500);
        hand.answer_all(State::Initialize, Reply::Ack, 500);
        let notes = [Denomination::from_minor(2_000).unwrap()].into();
        hand.command(AcceptorCommand::Accept(notes));
        hand.answer_all(State::Disabled, Reply::Ack, 1_000);
        hand.answer_all(State::Idling, Reply::Ack, 2_000);
        assert_eq!(hand.out.events.last(), Some(&AcceptorEvent::Accepting));
        hand.words.clear();
        hand
    }

    /// With a note in escrow and its proof given.
    fn stacking() -> Self {
        let mut hand = Self::open();
        hand.answer_all(State::Escrow(4), Reply::Ack, 300);
        let Some(AcceptorEvent::Escrowed(bill)) = hand.out.events.last() else {
            panic!("{:?}", hand.out.events)
        };
        hand.command(AcceptorCommand::Stack(Proof(*bill)));
        hand.words.clear();
        hand
    }

    /// The next command or question of the host.
    fn heard(&mut self) -> Frame {
        loop {
            let bytes = std::mem::take(&mut self.out.write);
            let (mut decoder, mut rest) = (Decoder::default(), bytes.as_slice());
            while let Some(frame) = decoder.push(&mut rest) {
                match Request::parse(&frame) {
                    Request::Ack => self.words.push(Request::Ack),
                    Request::Nak => self.words.push(Request::Nak),
                    _ => {
                        assert!(rest.is_empty(), "a second word before the answer");
                        return frame;
                    }
                }
            }
            self.now = self.out.wake_at.expect("a wake-up");
            let out = self.engine.on_tick(self.now);
            self.add(out);
        }
    }

    fn add(&mut self, out: Output<AcceptorEvent>) {
        self.out.write.extend(out.write);
        self.out.events.extend(out.events);
        self.out.wake_at = out.wake_at;
    }

    fn command(&mut self, command: AcceptorCommand<ByTest>) {
        let out = self.engine.command(command, self.now);
        self.add(out);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.now = self.now.after(10);
        let out = self.engine.on_bytes(bytes, self.now);
        self.add(out);
    }

    fn answer(&mut self, reply: Reply<'_>) {
        self.bytes(&reply.frame().to_bytes());
    }

    /// Answers what comes for so many milliseconds: polls with this state, questions with what fits,
    /// commands with `command`. Returns the commands.
    fn answer_all(&mut self, state: State, command: Reply<'_>, ms: u64) -> Vec<Frame> {
        let mut table = [0u8; 120];
        table[20..25].copy_from_slice(b"\x02USA\x01");
        let table = Frame::new(VALIDATOR, table[0], &table[1..]);
        let identity = Frame::new(VALIDATOR, b'B', b"Y HAND        0123456789ab\0\0\0\0\0\0\0");
        let mut commands = Vec::new();
        let end = self.now.after(ms);
        while self.now < end {
            let frame = self.heard();
            match Request::parse(&frame) {
                Request::Poll => self.answer(Reply::State(state)),
                Request::Identification => self.answer(Reply::parse(&identity)),
                Request::GetBillTable => self.answer(Reply::parse(&table)),
                Request::GetStatus => {
                    self.answer(Reply::Status { bills: self.enabled, secure: Bills::NONE });
                }
                Request::Enable { bills, escrow } => {
                    assert_eq!(bills, escrow, "a note that would be stacked without a proof");
                    self.enabled = bills;
                    self.answer(Reply::Ack);
                }
                _ => {
                    commands.push(frame);
                    self.answer(command);
                }
            }
        }
        commands
    }

    fn credits(&self) -> usize {
        self.out.events.iter().filter(|e| matches!(e, AcceptorEvent::Credit { .. })).count()
    }
}

/// Loss prevented: a device that shows POWER UP a moment longer is reset again and again and never
/// starts.
#[test]
fn a_taken_reset_is_waited_for() {
    for slow in [State::PowerUp, State::Disabled] {
        let mut hand = Hand::new();
        let resets = hand.answer_all(slow, Reply::Ack, 2_500);
        assert_eq!(resets, [Request::Reset.frame()]);
        let resets = hand.answer_all(slow, Reply::Ack, 2_000);
        assert!(resets.len() <= 1, "{resets:?}");
    }
}

/// Loss prevented: a STACK said for ever to a device that does not take it.
#[test]
fn a_refused_stack_is_said_three_times() {
    let mut hand = Hand::stacking();
    let said = hand.answer_all(State::Escrow(4), Reply::Illegal, 5_000);
    assert_eq!(said, [Request::Stack.frame(); 3]);
    hand.answer_all(State::Returning, Reply::Ack, 1_000);
    hand.answer_all(State::Returned(4), Reply::Ack, 1_000);
    hand.answer_all(State::Idling, Reply::Ack, 1_000);
    assert!(hand.out.events.contains(&AcceptorEvent::Returned), "{:?}", hand.out.events);
}

/// Loss prevented: BILL STACKED confirmed before the credit is durable: a crash then loses a note
/// that nobody will ever tell of again.
#[test]
fn a_credit_is_confirmed_only_when_it_is_durable() {
    let mut hand = Hand::stacking();
    hand.answer_all(State::Stacking, Reply::Ack, 500);
    hand.heard();
    hand.words.clear();
    hand.answer(Reply::State(State::Stacked(4)));
    hand.answer_all(State::Stacked(4), Reply::Ack, 10_000);
    assert_eq!((hand.credits(), hand.words.as_slice()), (1, &[][..]));
    hand.command(AcceptorCommand::AcknowledgeCredit);
    hand.answer_all(State::Stacked(4), Reply::Ack, 300);
    assert_eq!(hand.credits(), 1);
    assert!(hand.words.contains(&Request::Ack) && !hand.words.contains(&Request::Nak));
}

/// Loss prevented: an answer that was only late is confirmed in place of BILL STACKED, which the
/// device then forgets, while the host takes it for an old word.
#[test]
fn a_credit_that_comes_late_is_one() {
    let mut hand = Hand::stacking();
    hand.answer_all(State::Stacking, Reply::Ack, 500);
    hand.heard();
    let both = [State::Stacking, State::Stacked(4)].map(|state| state.frame().to_bytes());
    hand.bytes(&both.concat());
    assert_eq!(hand.credits(), 1);
    hand.command(AcceptorCommand::AcknowledgeCredit);
    hand.answer_all(State::Idling, Reply::Ack, 1_000);
    assert_eq!(hand.credits(), 1);
    assert!(hand.out.events.contains(&AcceptorEvent::Stacked), "{:?}", hand.out.events);
}

/// Loss prevented: a code that nobody understands is confirmed, and with it forgotten by the device;
/// a word of another peripheral is taken for the validator's.
#[test]
fn what_is_not_understood_is_not_confirmed() {
    let mut hand = Hand::open();
    hand.heard();
    hand.words.clear();
    hand.answer(Reply::parse(&Frame::new(BILL_TO_BILL, 0x81, &[4])));
    hand.answer(Reply::parse(&Frame::new(VALIDATOR, 0x77, &[1])));
    let polled = hand.heard();
    assert_eq!((polled, hand.words.as_slice()), (Request::Poll.frame(), &[][..]));
    let Some(AcceptorEvent::Fault(fault)) = hand.out.events.last() else { panic!("a fault") };
    assert_eq!(
        (fault.kind, fault.detail.as_str()),
        (FaultKind::ServiceNeeded, "unknown state 77 01")
    );
    assert_eq!(hand.credits(), 0);
}

/// Loss prevented: a damaged answer costs a third of a second each time, or is denied for ever to a
/// device that says nothing else.
#[test]
fn a_damaged_answer_is_denied_once() {
    let mut hand = Hand::open();
    hand.heard();
    hand.words.clear();
    let mut damaged = State::Escrow(4).frame().to_bytes();
    damaged[3] ^= 1;
    hand.bytes(&damaged);
    // the NAK comes with the wake-up; the answer is said again
    hand.now = hand.out.wake_at.unwrap();
    let out = hand.engine.on_tick(hand.now);
    hand.add(out);
    assert_eq!(std::mem::take(&mut hand.out.write), Request::Nak.frame().to_bytes());
    hand.bytes(&damaged);
    let next = hand.heard();
    assert_eq!((next, hand.words.as_slice()), (Request::Poll.frame(), &[][..]));
    hand.answer(Reply::State(State::Escrow(4)));
    assert!(matches!(hand.out.events.last(), Some(AcceptorEvent::Escrowed(_))));
}

/// Loss prevented: a device that denies every word, or is busy for ever, passes for well.
#[test]
fn a_device_that_only_denies_is_out_of_order() {
    let mut hand = Hand::open();
    let end = hand.now.after(20_000);
    while hand.now < end {
        hand.heard();
        hand.answer(Reply::Nak);
    }
    let silent = |e: &AcceptorEvent| matches!(e, AcceptorEvent::Fault(fault) if fault.kind == FaultKind::Silent);
    assert!(hand.out.events.iter().any(silent), "{:?}", hand.out.events);
    hand.answer_all(State::Idling, Reply::Ack, 5_000);
    assert_eq!(hand.out.events.last(), Some(&AcceptorEvent::Accepting));

    hand.answer_all(State::Busy(3), Reply::Ack, 61_000);
    let Some(AcceptorEvent::Fault(fault)) = hand.out.events.last() else { panic!("a fault") };
    assert_eq!(fault.kind, FaultKind::ServiceNeeded);
}

/// Loss prevented: a device that forgets what it was told to enable takes no notes and looks well.
#[test]
fn what_is_enabled_is_read_back() {
    let mut hand = Hand::open();
    let right = hand.enabled;
    hand.enabled = Bills::NONE;
    hand.command(AcceptorCommand::Accept([Denomination::from_minor(2_000).unwrap()].into()));
    hand.answer_all(State::Disabled, Reply::Ack, 500);
    assert_eq!(hand.enabled, right, "a device that shows itself closed is told again");
    // one that reads back something else for ever is told three times, and then believed
    hand.command(AcceptorCommand::Accept(BTreeSet::new()));
    let mut told = 0;
    let end = hand.now.after(5_000);
    while hand.now < end {
        let frame = hand.heard();
        match Request::parse(&frame) {
            Request::Enable { .. } => {
                told += 1;
                hand.answer(Reply::Ack);
            }
            Request::GetStatus => hand.answer(Reply::Status { bills: right, secure: right }),
            _ => hand.answer(Reply::State(State::Disabled)),
        }
    }
    assert_eq!((told, hand.out.events.last()), (3, Some(&AcceptorEvent::Closed)));
}

/// Loss prevented: a device opened with other line settings answers garbage.
#[test]
fn the_line_is_8n1() {
    let line = Hand::new().engine.line();
    let expected = LineSettings { baud: 9600, data_bits: 8, parity: Parity::None, stop_bits: 1 };
    assert_eq!(line, expected);
}
