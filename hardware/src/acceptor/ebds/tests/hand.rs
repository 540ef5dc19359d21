//! Against a device whose every answer is written by hand: for what no simulator should do.

use super::*;
use crate::frame::ebds::{NoteReport, Reply, bits};

const IDLE: Status = Status {
    state: bits::IDLING,
    event: bits::CASSETTE,
    exception: 0,
    misc: 0,
    model: 0x54,
    revision: 0x10,
};

struct Hand {
    engine: Ebds<ByTest>,
    now: Mono,
    out: Output<AcceptorEvent>,
}

impl Hand {
    fn new() -> Self {
        let mut engine = Ebds::new(settings(PowerUpPolicy::B));
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

    fn answer(&mut self, reply: &Frame) {
        self.now = self.now.after(20);
        let out = self.engine.on_bytes(&reply.to_bytes(), self.now);
        self.add(out);
    }

    fn say(&mut self, command: AcceptorCommand<ByTest>) {
        let out = self.engine.command(command, self.now);
        self.add(out);
    }

    /// Answers what comes for so many milliseconds: polls with this state, questions as a unit with
    /// a table of one note of 20. Returns the commands under each toggle, once each.
    fn answer_all(&mut self, state: Status, ms: u64) -> Vec<Frame> {
        let eur = "EUR".parse().unwrap();
        let report = |index| match index {
            1 => NoteReport::new(1, eur, (20, 0), crate::frame::ebds::Classification::Genuine),
            _ => NoteReport::BLANK,
        };
        let mut commands = Vec::new();
        let end = self.now.after(ms);
        while self.now < end {
            let frame = self.heard();
            let reply = match Request::parse(&frame) {
                Request::Query(_) => Reply::Answer(b"by hand").frame(frame.toggle()),
                Request::NoteSpecification(_, index) => {
                    Reply::Note(state, report(index)).frame(frame.toggle())
                }
                Request::Omnibus(own) => {
                    if own.stack || own.give_back {
                        commands.push(frame);
                    }
                    if state.is(bits::ESCROWED) {
                        Reply::Note(state, report(1)).frame(frame.toggle())
                    } else {
                        Reply::Status(state).frame(frame.toggle())
                    }
                }
                _ => Reply::Status(state).frame(frame.toggle()),
            };
            self.answer(&reply);
        }
        commands
    }

    fn in_escrow() -> (Self, EscrowedBill) {
        let mut hand = Self::new();
        hand.say(AcceptorCommand::Accept([note(20)].into()));
        hand.answer_all(IDLE, 3_000);
        assert_eq!(hand.out.events.last(), Some(&AcceptorEvent::Accepting));
        hand.answer_all(Status { state: bits::ESCROWED, ..IDLE }, 600);
        let Some(AcceptorEvent::Escrowed(bill)) = hand.out.events.last() else {
            panic!("{:?}", hand.out.events)
        };
        let bill = *bill;
        (hand, bill)
    }
}

/// Loss prevented: a STACK said for ever to a device that does not take it; a note that then goes
/// back called unknown.
#[test]
fn a_stack_that_is_not_followed_is_said_three_times() {
    let (mut hand, bill) = Hand::in_escrow();
    hand.say(AcceptorCommand::Stack(Proof(bill)));
    let said = hand.answer_all(Status { state: bits::ESCROWED, ..IDLE }, 6_000);
    let is = |frame: &&Frame, stack: bool| matches!(Request::parse(frame), Request::Omnibus(own) if own.stack == stack);
    assert_eq!(said.iter().filter(|frame| is(frame, true)).count(), 3);
    assert!(said.iter().filter(|frame| is(frame, false)).count() >= 3);
    assert!(said.iter().filter(|frame| is(frame, true)).all(Frame::toggle), "always under 1");
    hand.answer_all(Status { state: bits::RETURNING, ..IDLE }, 500);
    hand.answer_all(IDLE, 1_000);
    assert!(hand.out.events.contains(&AcceptorEvent::Returned), "{:?}", hand.out.events);
}

/// Loss prevented: one damaged answer whose check holds all the same, taken for a credit.
#[test]
fn what_is_heard_once_does_not_count() {
    let (mut hand, bill) = Hand::in_escrow();
    hand.say(AcceptorCommand::Stack(Proof(bill)));
    hand.answer_all(Status { state: bits::STACKING, ..IDLE }, 700);
    let poll = hand.heard();
    let stacked = Status { state: bits::STACKED, ..IDLE };
    hand.answer(&Reply::Status(stacked).frame(poll.toggle()));
    let again = hand.heard();
    assert_eq!((again.toggle(), again), (poll.toggle(), poll), "asked again");
    hand.answer_all(Status { state: bits::STACKING, ..IDLE }, 2_000);
    let credit = |e: &AcceptorEvent| matches!(e, AcceptorEvent::Credit { .. });
    assert!(!hand.out.events.iter().any(credit), "{:?}", hand.out.events);
    hand.answer_all(stacked, 2_000);
    assert_eq!(hand.out.events.iter().filter(|e| credit(e)).count(), 1);
}

/// Loss prevented: an old answer, given again to a host that does not know the toggle, opens the way
/// for a note that is not there any more.
#[test]
fn the_first_answer_is_an_old_word() {
    let mut hand = Hand::new();
    let poll = hand.heard();
    assert!(!poll.toggle());
    let escrow = Reply::Status(Status { state: bits::ESCROWED, ..IDLE });
    hand.answer(&escrow.frame(false));
    assert_eq!(hand.heard(), poll, "heard twice");
    hand.answer(&escrow.frame(false));
    assert!(hand.heard().toggle());
    assert_eq!(hand.out.events, []);
}

/// Loss prevented: a device that goes by another toggle is polled for ever in vain.
#[test]
fn a_device_with_another_toggle_is_followed() {
    let mut hand = Hand::new();
    hand.answer_all(IDLE, 3_000);
    for _ in 0..4 {
        let wrong = !hand.heard().toggle();
        hand.answer(&Reply::Status(IDLE).frame(wrong));
    }
    hand.out.events.clear();
    hand.answer_all(Status { event: bits::CASSETTE | bits::JAMMED, ..IDLE }, 1_000);
    assert!(matches!(hand.out.events[..], [AcceptorEvent::Fault(_)]), "{:?}", hand.out.events);
}

/// Loss prevented: words that contradict each other taken for a credit or a return.
#[test]
fn stacked_and_returned_at_once_is_nothing_known() {
    let (mut hand, bill) = Hand::in_escrow();
    hand.say(AcceptorCommand::Stack(Proof(bill)));
    hand.out.events.clear();
    hand.answer_all(Status { state: bits::STACKED | bits::RETURNED, ..IDLE }, 1_000);
    let [AcceptorEvent::Fault(fault)] = &hand.out.events[..] else {
        panic!("{:?}", hand.out.events)
    };
    assert_eq!(fault.kind, FaultKind::ServiceNeeded);
    hand.answer_all(IDLE, 1_000);
    let told =
        |e: &AcceptorEvent| matches!(e, AcceptorEvent::Credit { .. } | AcceptorEvent::Returned);
    assert!(!hand.out.events.iter().any(told), "{:?}", hand.out.events);
}

/// Loss prevented: a device opened with other line settings answers garbage.
#[test]
fn the_line_is_7e1() {
    let line = Hand::new().engine.line();
    let expected = LineSettings { baud: 9600, data_bits: 7, parity: Parity::Even, stop_bits: 1 };
    assert_eq!(line, expected);
}
