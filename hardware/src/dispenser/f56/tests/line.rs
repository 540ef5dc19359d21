//! The link layer byte by byte, where the simulated device is too well-behaved.

use super::*;
use crate::frame::f56::{ACK, NAK, encode};

fn count() -> Request {
    let zero = TwoDigits::default();
    Request::Count(Counts::new([TwoDigits::new(2).unwrap(), zero, zero, zero]))
}

/// A line whose frame has been acknowledged.
fn waiting(request: Request, nature: Nature) -> Line {
    let mut line = Line::new();
    line.send(request, nature, Mono(0));
    line.on_bytes(&ACK, Mono(10));
    line.on_bytes(&ACK, Mono(20));
    line.take_write();
    line
}

fn reply(request: &Request) -> Vec<u8> {
    encode(Reply::draft(request, true, 153).with_counts([BayCount::default(); SLOTS]).payload())
}

/// Loss prevented: an ENQ that comes twice is acknowledged twice; the device takes the second ACK
/// for its answer's and forgets an answer that we then cannot read.
#[test]
fn an_echoed_enq_is_acknowledged_once() {
    let mut line = waiting(count(), Nature::Money);
    line.on_bytes(&[ENQ, ENQ].concat(), Mono(100));
    line.on_bytes(&ENQ, Mono(600));
    assert_eq!(line.take_write(), ACK);
    // five seconds later it is a new one: our ACK was lost
    line.on_bytes(&ENQ, Mono(5_100));
    assert_eq!(line.take_write(), ACK);
}

/// Loss prevented: bytes of a damaged answer that look like an ENQ are acknowledged, and the device
/// takes that for its answer's ACK.
#[test]
fn a_damaged_answer_is_asked_for_again_on_a_quiet_line_only() {
    let mut line = waiting(count(), Nature::Money);
    line.on_bytes(&ENQ, Mono(100));
    assert_eq!(line.take_write(), ACK);
    let mut damaged = reply(&count());
    damaged[3] = 0x20; // shorter than it is: the rest follows after the "end"
    damaged.extend(ENQ);
    line.on_bytes(&damaged, Mono(110));
    line.on_bytes(&ENQ, Mono(180));
    line.on_tick(Mono(220));
    assert_eq!(line.take_write(), [0; 0], "not quiet for 100 ms yet");
    assert_eq!(line.wake_at(), Some(Mono(280)));
    line.on_tick(Mono(280));
    assert_eq!(line.take_write(), NAK);
    line.on_bytes(&reply(&count()), Mono(300));
    assert_eq!(line.take_write(), ACK);
    assert!(matches!(line.take_events().as_slice(), [LineEvent::Reply(_)]));
}

/// Loss prevented: an old answer to something else is read as the answer to a dispense.
#[test]
fn an_answer_to_something_else_is_a_stray() {
    let mut line = waiting(count(), Nature::Money);
    for request in [Request::Status, Request::Status2, Request::SensorLevels, Request::Cancel] {
        line.on_bytes(&[&ENQ[..], &reply(&request)].concat(), Mono(100));
        assert!(matches!(line.take_events().as_slice(), [LineEvent::Stray(_)]), "{request:?}");
        assert!(line.exposed());
    }
    line.on_bytes(&[&ENQ[..], &reply(&count())].concat(), Mono(200));
    assert!(matches!(line.take_events().as_slice(), [LineEvent::Reply(_)]));
}

/// Loss prevented: the command that moves notes is sent twice. What may be repeated is.
#[test]
fn silence_repeats_a_query_but_never_money() {
    for (request, nature, writes) in
        [(count(), Nature::Money, 1), (Request::Status, Nature::Query, 3)]
    {
        let mut line = Line::new();
        let frame = encode(&request.payload());
        line.send(request, nature, Mono(0));
        let mut now = Mono(0);
        let (mut written, mut ended) = (Vec::new(), Vec::new());
        loop {
            let write = line.take_write();
            if write == ENQ {
                line.on_bytes(&ACK, now);
            }
            written.extend(write);
            ended.extend(line.take_events());
            let Some(at) = line.wake_at() else { break };
            now = now.max(at);
            line.on_tick(now);
        }
        written.extend(line.take_write());
        let times = written.windows(frame.len()).filter(|part| *part == frame).count();
        assert_eq!(times, writes, "{nature:?}");
        let [LineEvent::Lost { why }] = ended.as_slice() else { panic!("{ended:?}") };
        assert!(why.contains("not acknowledged"), "{why}");
    }
}
