//! Against a device whose every answer is written by hand: for what no simulator should do.

use super::*;
use crate::acceptor::AcceptorEvent::Credit;
use crate::acceptor::EscrowedBill;
use crate::frame::id003::{Frame, Held};

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
    engine: Id003<ByTest>,
    now: Mono,
    out: Output<AcceptorEvent>,
}

impl Hand {
    fn new() -> Self {
        let settings = Settings { currency: "USD".parse().unwrap(), baud: 9600 };
        let mut engine = Id003::new(settings);
        let out = engine.on_link_up(Mono(0));
        Self { engine, now: Mono(0), out }
    }

    /// The next frame of the host.
    fn heard(&mut self) -> Frame {
        while self.out.write.is_empty() {
            self.now = self.out.wake_at.expect("a wake-up");
            let out = self.engine.on_tick(self.now);
            self.add(out);
        }
        let bytes = std::mem::take(&mut self.out.write);
        Decoder::default().push(&mut bytes.as_slice()).expect("a whole frame")
    }

    fn add(&mut self, out: Output<AcceptorEvent>) {
        self.out.write.extend(out.write);
        self.out.events.extend(out.events);
        self.out.wake_at = out.wake_at;
    }

    fn answer(&mut self, reply: Reply<'_>) {
        self.now = self.now.after(20);
        let out = self.engine.on_bytes(&reply.frame().to_bytes(), self.now);
        self.add(out);
    }

    /// Answers what comes for so many milliseconds: polls with this state, settings with their
    /// echo, commands with `command`. Returns the commands.
    fn answer_all(&mut self, state: Status, command: Reply<'_>, ms: u64) -> Vec<Frame> {
        let table = Frame::new(0x8a, &[0x65, 0x01, 0x02, 0x01, 0x66, 0x01, 0x05, 0x01]);
        let mut commands = Vec::new();
        let end = self.now.after(ms);
        while self.now < end {
            let frame = self.heard();
            match Request::parse(&frame) {
                Request::StatusRequest => self.answer(Reply::Status(state)),
                Request::Set(config) => self.answer(Reply::Echo(config)),
                Request::Version => self.answer(Reply::Version(b"by hand")),
                Request::CurrencyAssign => self.answer(Reply::parse(&table)),
                Request::Ack => {}
                _ => {
                    commands.push(frame);
                    self.answer(command);
                }
            }
        }
        commands
    }

    /// Brought up, open for notes of 20, with one in escrow that is told to stack.
    fn stacks(&mut self) -> EscrowedBill {
        self.answer_all(Status::PowerUp, Reply::Ack, 500);
        self.answer_all(Status::Initializing, Reply::Ack, 2_000);
        let notes = [Denomination::from_minor(2_000).unwrap()].into();
        let out = self.engine.command(AcceptorCommand::Accept(notes), self.now);
        self.add(out);
        self.answer_all(Status::Idling, Reply::Ack, 2_000);
        self.answer_all(Status::Escrow(Held::Note(0x65)), Reply::Ack, 300);
        let Some(AcceptorEvent::Escrowed(bill)) = self.out.events.last().cloned() else {
            panic!("{:?}", self.out.events)
        };
        let out = self.engine.command(AcceptorCommand::Stack(Proof(bill)), self.now);
        self.add(out);
        bill
    }
}

/// Loss prevented: a device that shows POWER UP a moment longer is reset again and again and never
/// starts.
#[test]
fn a_taken_reset_is_waited_for() {
    for slow in [Status::PowerUp, Status::Disabled] {
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
    let mut hand = Hand::new();
    hand.stacks();
    let state = Status::Escrow(Held::Note(0x65));
    let said = hand.answer_all(state, Reply::InvalidCommand, 5_000);
    assert_eq!(said, [Request::Stack2.frame(); 3]);
    hand.answer_all(Status::Returning, Reply::Ack, 1_000);
    hand.answer_all(Status::Idling, Reply::Ack, 1_000);
    assert!(hand.out.events.contains(&AcceptorEvent::Returned), "{:?}", hand.out.events);
}

/// Loss prevented: a note that is credited as what it seemed to be in escrow, and lies in the cashbox as
/// another.
#[test]
fn a_note_that_is_credited_as_another_is_told_as_both() {
    let mut hand = Hand::new();
    let bill = hand.stacks();
    hand.answer_all(Status::Stacking(None), Reply::Ack, 500);
    hand.answer_all(Status::VendValid(Some(0x66)), Reply::Ack, 1_000);
    let fifty = Denomination::from_minor(5_000).unwrap();
    let credits: Vec<_> = hand.out.events.iter().filter(|e| matches!(e, Credit { .. })).collect();
    assert_eq!(credits, [&Credit { escrowed: Some(bill), denomination: Some(fifty) }]);
}

/// Loss prevented: a device opened with other line settings answers garbage.
#[test]
fn the_line_is_8e1() {
    let line = Hand::new().engine.line();
    let expected = LineSettings { baud: 9600, data_bits: 8, parity: Parity::Even, stop_bits: 1 };
    assert_eq!(line, expected);
}
